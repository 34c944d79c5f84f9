"""Bugs of a user's: they stop the application in words, and are mended before it is run again.

A bug shows at one event of one state computation. What is committed by then must be without a
trace of it: once it is mended, what comes out is as if it had never been there.
"""

import random
from collections.abc import Callable, Collection
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from wallaroo.errors import Failure, shorten
from wallaroo.partitioning import Assignment, hash_key

if TYPE_CHECKING:
    from tests.simulation.sim_applications import Event, Keyed

KINDS = (
    "it raises",
    "what it gives can't be sent",
    "its state can't be stored",
    "its key is another when asked again",
)
_RAISES, _UNSENDABLE, _UNSTORABLE, _IMPURE = KINDS

#: What no allow-list has.
FOREIGN = partial(int)


class Bug:
    """None, until one is drawn; it is mended when the application has stopped for it."""

    def __init__(self) -> None:
        self.kind = ""
        self.mended = False
        self.place = ""
        self._key: str | bytes = ""
        self._name = ""
        self._number = 0
        self._wrong = ""
        #: Events that have not travelled since an extractor was asked about them.
        self._asked: WeakSet[Event] = WeakSet()

    def draw(
        self,
        chance: random.Random,
        places: dict[str, "Keyed"],
        assignment: Assignment,
        storable: Collection[Callable[[], Any]],
        *,
        rescales: bool,
    ) -> None:
        """Let one event of some place show some bug.

        storable: states that can hold what may not be stored.
        """
        used = [place for place, keyed in sorted(places.items()) if keyed.inputs]
        if not used:
            return
        self.place = chance.choice(used)
        keyed = places[self.place]
        self._key = chance.choice(sorted(keyed.inputs, key=repr))
        self._name = chance.choice(sorted(keyed.inputs[self._key]))
        self._number = chance.randint(1, keyed.inputs[self._key][self._name])
        kinds = [_RAISES, _UNSENDABLE]
        if keyed.make in storable:
            kinds.append(_UNSTORABLE)
        # While a rescale goes on events are routed again, and a wrong key can lead to its owner.
        if keyed.extracts and len(assignment.workers) > 1 and not rescales:
            kinds.append(_IMPURE)
            owner = assignment.owner(hash_key(self._key))
            others = (f"wrong {number}" for number in range(1000))
            self._wrong = next(e for e in others if assignment.owner(hash_key(e)) != owner)
        self.kind = chance.choice(kinds)

    def hits(self, place: str, event: "Event") -> bool:
        """Whether the bug shows here."""
        return (
            event.number == self._number
            and event.name == self._name
            and place == self.place
            and not self.mended
            and bool(self.kind)
        )

    def strike(self, state: Any, made: "Event") -> None:
        """What goes wrong at the event, behind what should be done."""
        if self.kind == _RAISES:
            raise RuntimeError("a bug")
        if self.kind == _UNSENDABLE:
            made.foreign = FOREIGN
        elif self.kind == _UNSTORABLE and isinstance(state, dict):
            state["foreign"] = FOREIGN
        elif self.kind == _UNSTORABLE:
            state.foreign = FOREIGN

    def key(self, event: "Event", key: str | bytes | int) -> str | bytes | int:
        """Another key than when the event was where it was made."""
        if self.kind != _IMPURE or event in self._asked:
            return key
        if event.asked:
            return self._wrong
        event.asked = True
        self._asked.add(event)
        return key

    @property
    def must_stop(self) -> bool:
        """Whether the application can't have gone on to its end with it."""
        # The others show only where the event goes to another worker.
        return not self.mended and self.kind in {_RAISES, _UNSTORABLE}

    def explains(self, failure: Failure) -> bool:
        """Whether this is how the bug must be told."""
        step, key = f"state computation '{self.place}'", shorten(self._key)
        message = failure.message
        if self.mended or not self.kind:
            return False
        if self.kind == _RAISES:
            told = "raised RuntimeError" in message and "a bug" in failure.traceback
            return told and (failure.step, failure.key) == (step, key) and bool(failure.event)
        if self.kind == _UNSENDABLE:
            return step in failure.step and "can't be sent to worker" in message
        if self.kind == _UNSTORABLE:
            return message.startswith(f"the state of {step} for key {key} can't be stored")
        return failure.key == shorten(self._wrong) and "does not own it" in message
