"""What brings about the number of workers that is asked for, on one machine.

It looks at the coordinator's status again and again and does what is next, like an operator: what
is remembered is the number alone, in DIR, and each attempt rewrites the assignment in force anew.
So a coordinator that dies, an attempt that is given up, or another number asked for meanwhile need
no answer of their own.
"""

import contextlib
import time
from collections.abc import Callable
from typing import Any

from wallaroo.errors import InputError
from wallaroo.partitioning import Assignment, Piece
from wallaroo.partitioning.rewrite import rewrite
from wallaroo.protocol.coordinator import Phase
from wallaroo.runtime.client import Client, Unreachable
from wallaroo.runtime.directory import Directory

#: Seconds before a rescale that was given up is tried again, doubled each time up to the last.
_AGAIN, _LONGEST = 1.0, 60.0


class Scaler:
    """Of the run in `directory`."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        #: The members, as far as is known; the workers that must run; those that were to join and
        #: no longer are; and those that hold nothing any more.
        self.members: set[int] = set()
        self.needed: set[int] = set()
        self.unwanted: set[int] = set()
        self.gone: set[int] = set()
        self._target = 0
        self._ever: set[int] = set()
        #: Attempts of which it has been told what came of them.
        self.told: set[str] = set()
        self._failures = 0
        self._not_before = 0.0
        self._wanted: set[int] = set()

    def begin(self, members: list[int], target: int | None) -> None:
        """The run begins with these members, and is to have so many; None for as many. OSError."""
        self.members = set(members)
        self.needed |= self.members
        self._ever = self._directory.workers()  # some may have left when the last run ended
        self._target = len(members) if target is None else target
        self._directory.write_target(self._target)

    @property
    def busy(self) -> bool:
        """Whether there is something to bring about."""
        return self._wanted != self.members

    def look(self, status: dict[str, Any], client: Client, tell: Callable[[str], None]) -> None:
        """Do what is next."""
        self._ask_for(self._asked())
        now = time.monotonic()
        wanted = self._wanted = set(range(self._target))
        self.members = members = set(status["members"])
        leaving, present = set(status["leaving"]), members | set(status["joiners"])
        self._ever |= members | leaving
        self._notice(status, tell)
        if status["phase"] not in {
            Phase.RUNNING.value,
            Phase.FORMING.value,
            Phase.RECOVERING.value,
        }:
            return
        joining = wanted - members - leaving if now >= self._not_before else set()
        # Who takes part in a rescale under way may be a member in a moment, wanted or not.
        taking_part = set(range(status["rescale"]["to"])) if status["rescale"] else set()
        self.needed = members | leaving | joining | (taking_part & present)
        self.unwanted = set(status["joiners"]) - wanted - taking_part
        self.gone = self._ever - members - leaving - wanted - taking_part
        ready = wanted <= present and not wanted & leaving
        if status["phase"] != Phase.RUNNING.value or status["stop_requested"]:
            return
        pieces = tuple(Piece(p["start"], p["end"], p["worker"]) for p in status["assignment"])
        old = Assignment(status["version"], pieces)
        if wanted == members:
            new = old
            if not status["rescale"]:
                return
        elif ready and now >= self._not_before:
            new = rewrite(old, sorted(wanted))
        else:
            return
        with contextlib.suppress(Unreachable):  # the next look finds how it is
            client.rescale(old.version, new)

    def failed(self, why: str, tell: Callable[[str], None]) -> None:
        """A worker that was to join could not."""
        tell(f"{why}; the rescale is tried again")
        self._wait()

    def _asked(self) -> int:
        try:
            return self._directory.target() or self._target
        except InputError:  # it is being damaged by somebody; the last one holds
            return self._target

    def _ask_for(self, target: int) -> None:
        if target != self._target:
            self._target = target
            self._failures, self._not_before = 0, 0.0  # a new target starts afresh

    def _notice(self, status: dict[str, Any], tell: Callable[[str], None]) -> None:
        """Tell what came of the last attempt."""
        last = status["rescales"][-1] if status["rescales"] else None
        if last is None or last["attempt"] in self.told:
            return
        self.told.add(last["attempt"])
        if last["outcome"] == "committed":
            self._failures = 0
            tell(f"rescaled from {last['from']} to {last['to']} workers")
        elif last["to"] == self._target and last["from"] != self._target:
            tell(f"the rescale to {last['to']} workers was given up: {last['why']}")
            self._wait()

    def _wait(self) -> None:
        self._failures += 1
        seconds = min(_AGAIN * 2 ** min(self._failures - 1, 10), _LONGEST)
        self._not_before = time.monotonic() + seconds
