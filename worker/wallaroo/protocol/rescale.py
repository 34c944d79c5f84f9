"""One attempt to rescale: who takes part, how far they are, and what is remembered of it.

Members and owners change at one barrier, *s*. Before it, whatever goes wrong, the attempt is given
up and nothing has happened. Behind it the attempt commits with *s*, or a fault rolls it back
together with *s*. There is no third case.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from wallaroo.partitioning import INTERVAL, Assignment
from wallaroo.partitioning.rewrite import Move, minimum, moves

#: How many attempts are remembered.
HISTORY = 20


class Phase(Enum):
    """How far an attempt has come."""

    #: Those that take part open streams to one another.
    PREPARE = "prepare"
    #: Donors send what moves as of a committed epoch, then what each later epoch touched of it.
    COPY = "copy"
    #: Leavers on which a source listens let go of its clients; copying goes on.
    DRAIN = "drain"
    #: Receivers have nearly all: one epoch is run at once, so that little is left for the last.
    CATCH_UP = "catch up"
    #: The barrier behind which the new assignment holds is under way.
    SWITCH = "switch"


@dataclass
class Rescale:
    """An attempt.

    attempt: its number, in the coordinator's generation. began: seconds, of any clock.
    """

    generation: int
    attempt: int
    old: Assignment
    new: Assignment
    began: float
    phase: Phase = Phase.PREPARE
    #: Epochs committed since it began; with the first all state there is, is in some checkpoint.
    commits: int = 0
    enlisted: set[int] = field(default_factory=set)
    #: Leavers on which a source listens; those of them whose connections are closed.
    listening: set[int] = field(default_factory=set)
    drained: set[int] = field(default_factory=set)
    #: By leaver: bytes that clients had sent, and that were not read when they were cut off.
    lost: dict[int, int] = field(default_factory=dict)
    #: By receiver: the epoch up to which it has all; entries and bytes that it has taken in.
    staged: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    #: The epoch that had to be committed before the switch, once receivers had caught up.
    last: int = 0
    #: The longest time that events were held back, in seconds.
    held: float = 0.0
    #: When the phases began.
    times: dict[Phase, float] = field(default_factory=dict)
    #: What had been done at the last look for progress.
    _seen: Any = None

    def __post_init__(self) -> None:
        self.times[self.phase] = self.began
        self.moves: tuple[Move, ...] = moves(self.old, self.new)

    @property
    def joiners(self) -> frozenset[int]:
        return frozenset(self.new.workers) - frozenset(self.old.workers)

    @property
    def leavers(self) -> frozenset[int]:
        return frozenset(self.old.workers) - frozenset(self.new.workers)

    @property
    def everyone(self) -> frozenset[int]:
        """Members of the old assignment and of the new one."""
        return frozenset(self.new.workers) | frozenset(self.old.workers)

    @property
    def draining(self) -> set[int]:
        """Leavers that have connections of clients still to be closed."""
        return self.listening - self.drained

    @property
    def receivers(self) -> frozenset[int]:
        return frozenset(move.receiver for move in self.moves)

    def enter(self, phase: Phase, now: float) -> None:
        """Go on to a phase."""
        self.phase = phase
        self.times[phase] = now

    def caught_up(self, committed: int) -> bool:
        """Whether all receivers have all that is committed."""
        return all(self.staged.get(worker, (-1, 0, 0))[0] >= committed for worker in self.receivers)

    def progressed(self) -> bool:
        """Whether anything has been done since this was asked last."""
        before, self._seen = self._seen, (self.phase, sorted(self.staged.items()))
        return bool(before != self._seen)

    def missing(self) -> str:
        """Who has not said what they are waited for, in words."""
        if self.phase is Phase.PREPARE:
            if missing := self.everyone - self.enlisted:
                return f"{_workers(missing)} did not get ready"
            return "the checkpoint that has to come first was not committed"
        return "nothing more was copied, or an epoch was not committed"

    def progress(self, now: float) -> dict[str, Any]:
        """How far it is: its record so far, and the phase."""
        return {**self.record("", "", now), "phase": self.phase.value}

    def record(self, outcome: str, why: str, now: float) -> dict[str, Any]:
        """What is remembered of it.

        moved, minimum: shares of the interval; entries, bytes: what was sent, an entry that was
        touched meanwhile again; seconds: of each phase; held: longest hold-back in seconds;
        lost: bytes of connections that were cut off with them unread.
        """
        marks = [*self.times.items()]
        ends = [*(at for _, at in marks[1:]), now]
        return {
            "attempt": f"{self.generation}-{self.attempt}",
            "from": len(self.old.workers),
            "to": len(self.new.workers),
            "version": self.new.version,
            "outcome": outcome,
            "why": why,
            "moved": sum(move.end - move.start for move in self.moves) / INTERVAL,
            "minimum": float(minimum(len(self.old.workers), len(self.new.workers))),
            "pieces": len(self.new.pieces),
            "entries": sum(entries for _, entries, _ in self.staged.values()),
            "bytes": sum(size for _, _, size in self.staged.values()),
            "seconds": {
                phase.value: round(end - at, 4)
                for (phase, at), end in zip(marks, ends, strict=True)
            },
            "held": round(self.held, 4),
            "lost": sum(self.lost.values()),
        }


def _workers(numbers: Iterable[int]) -> str:
    found = [str(number) for number in sorted(numbers)]
    return f"worker{'s' * (len(found) > 1)} {', '.join(found)}"
