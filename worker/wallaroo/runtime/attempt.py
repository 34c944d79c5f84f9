"""A worker's part in one attempt to rescale: what it gives, what it gets, and its streams for that.

It is a donor to some, a receiver of others, or neither; whether it was a member before and is one
after does not matter for that.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from wallaroo.dataflow.barrier import Barrier
from wallaroo.dataflow.consignment import CHANNEL, Consignment
from wallaroo.dataflow.engine import Engine
from wallaroo.dataflow.exchange import Outbox
from wallaroo.partitioning import Assignment
from wallaroo.partitioning.rewrite import moves
from wallaroo.protocol.manifest import Staging as StagingMark
from wallaroo.protocol.member import HasStaged
from wallaroo.protocol.messages import Enlist
from wallaroo.state.base import Base
from wallaroo.state.donor import Donor
from wallaroo.state.parcels import Last, UpTo
from wallaroo.state.settlement import Tenure
from wallaroo.state.staging import Staging
from wallaroo.state.store import Store
from wallaroo.state.throttle import Worked

#: Bytes between two words of a receiver on how far it is.
_WORD = 1 << 20

#: What a stream starts from.
Outgoing = Outbox | Consignment


class Incoming(Protocol):
    """What a stream ends in."""

    sender: int
    on_room: Callable[[], None]

    @property
    def has_room(self) -> bool: ...

    def add(self, blocks: list[bytes]) -> None:
        """Frames have come."""

    def add_barrier(self, barrier: Barrier) -> None:
        """A barrier has come."""


class Bases(Protocol):
    """Databases in folders."""

    def open(self, path: Path, *, brief: bool = False) -> Base:
        """The one in a folder, which is made if there is none. Raises `StateDamaged`.

        brief: it will be read once, and go.
        """

    def remove(self, path: Path) -> None:
        """Remove one with its folder; fine if there is none. Raises OSError."""

    def names(self, folder: Path) -> list[str]:
        """Of the folders in a folder."""


class _Arrivals:
    """Where the stream of a donor ends."""

    def __init__(
        self, sender: int, has_room: Callable[[], bool], take: Callable[[int, bytes], None]
    ) -> None:
        self.sender = sender
        self.on_room: Callable[[], None] = lambda: None
        self._has_room = has_room
        self._take = take

    @property
    def has_room(self) -> bool:
        return self._has_room()

    def add(self, blocks: list[bytes]) -> None:
        for block in blocks:
            self._take(self.sender, block)

    def add_barrier(self, barrier: Barrier) -> None:
        pass  # nothing follows


class Attempt:
    """What worker `worker` does in the attempt `to`; joins: it becomes a member by it."""

    def __init__(self, to: Enlist, worker: int, *, joins: bool) -> None:
        self.to = to
        self.joins = joins
        self.donor: Donor | None = None
        self.staging: Staging | None = None
        #: Its database is being opened; and its streams are, or are open.
        self.opening = self.ready = False
        #: The epoch of its switch, once that is injected.
        self.switch = 0
        self._worker = worker
        self._arrivals: list[_Arrivals] = []
        self._told = (-2, 0)
        found = moves(to.old, to.new)
        self._gives = [move for move in found if move.donor == worker]
        self._gets = [move for move in found if move.receiver == worker]
        #: What is to be staged, if anything is.
        self.mark: StagingMark | None = None
        if self._gets:
            ranges = tuple((move.start, move.end) for move in self._gets)
            self.mark = StagingMark(f"{to.generation}-{to.attempt}", ranges)

    @property
    def joiners(self) -> set[int]:
        return set(self.to.new.workers) - set(self.to.old.workers)

    @property
    def leavers(self) -> set[int]:
        return set(self.to.old.workers) - set(self.to.new.workers)

    @property
    def leaves(self) -> bool:
        """Whether the worker is no member behind the switch."""
        return self._worker in self.leavers

    def tenure(self, joined: int) -> Tenure:
        """What the worker owns behind the switch."""
        new = self.to.new
        return Tenure(new.version, owned(new, self._worker), self.switch, joined)

    def open(
        self,
        engine: Engine,
        store: Store,
        base: Base | None,
        clock: Callable[[], float],
        wake: Callable[[Outgoing], None],
        take: Callable[[int, bytes], None],
        worked: Worked,
    ) -> tuple[list[Outgoing], dict[tuple[int, int], Incoming]]:
        """The ends of the streams that it needs, by channel and sender where they come in.

        base: an empty database for what it gets. wake: called with what has something to send.
        take: called with a donor's parcels. worked: after pieces of work in the background.
        """
        self.ready = True
        to = self.to
        made = engine.enlist(to.new, self.joiners - {self._worker})
        if self.joins:
            made = list(engine.outboxes)
        outgoing: list[Outgoing] = [engine.outboxes[key] for key in made]
        incoming: dict[tuple[int, int], Incoming] = {key: engine.inboxes[key] for key in made}
        if self._gives:
            receivers = sorted({move.receiver for move in self._gives})
            outlets = {receiver: Consignment(receiver, wake) for receiver in receivers}
            self.donor = Donor(store, self._gives, outlets, clock)
            outgoing.extend(outlets.values())
        if self.mark:
            assert base
            donors = sorted({move.donor for move in self._gets})
            places = to.places.values()
            self.staging = staging = Staging(self.mark, base, donors, places, worked)
            for donor in donors:
                arrivals = _Arrivals(donor, lambda: staging.has_room, take)
                self._arrivals.append(arrivals)
                incoming[CHANNEL, donor] = arrivals
        return outgoing, incoming

    def inject(self, epoch: int, engine: Engine, store: Store) -> None:
        """The barrier of the switch comes next."""
        self.switch = epoch
        if self.staging:
            store.receive(self.staging)
            ranges = [(move.start, move.end, move.donor) for move in self._gets]
            engine.await_state(ranges, self.staging.awaited)
        if self.donor:
            self.donor.switch()

    def take(self, donor: int, data: bytes, engine: Engine) -> HasStaged | None:
        """A donor's parcel has come; returns what is to be said of it. Raises `StateDamaged`."""
        staging = self.staging
        assert staging is not None
        parcel = staging.take(donor, data)
        if isinstance(parcel, Last) and self.switch:
            engine.arrived(donor, parcel.place)
        far = isinstance(parcel, UpTo) or staging.size >= self._told[1] + _WORD
        if not far or (staging.epoch, staging.size) == self._told:
            return None
        self._told = staging.epoch, staging.size
        to = self.to
        return HasStaged(to.generation, to.attempt, staging.epoch, staging.entries, staging.size)

    def take_job(self) -> tuple[Callable[[], Any], Callable[[Any], None]] | None:
        """What is to be done in the background, and what takes its result."""
        if self.donor and (job := self.donor.take_job()):
            return job, self.donor.job_done
        if self.staging and (job := self.staging.take_job()):
            for arrivals in self._arrivals:
                arrivals.on_room()
            return job, self.staging.job_done
        return None

    def close(self) -> None:
        """It is over: give nothing any more."""
        if self.donor:
            self.donor.close()


def owned(assignment: Assignment, worker: int) -> tuple[tuple[int, int], ...]:
    """What a worker owns, as [start, end) in order."""
    return tuple((piece.start, piece.end) for piece in assignment.pieces_of(worker))


def remote(inboxes: Mapping[tuple[int, int], Any]) -> dict[tuple[int, int], Incoming]:
    """The inboxes to which other workers send."""
    return {key: inbox for key, inbox in inboxes.items() if not inbox.local}
