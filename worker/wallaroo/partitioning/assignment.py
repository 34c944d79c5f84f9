"""The assignment: an immutable, versioned map of sub-intervals of the hash interval to workers.

Bounds are integers, so that every worker and every tool computes the same owner for a point.
"""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from wallaroo.partitioning.hashing import INTERVAL


@dataclass(frozen=True, slots=True)
class Piece:
    """The sub-interval [start, end) and the worker that owns it."""

    start: int
    end: int
    worker: int


@dataclass(frozen=True)
class Assignment:
    """Pieces that cover the hash interval in order, without gap or overlap.

    Raises ValueError if they do not.
    """

    version: int
    pieces: tuple[Piece, ...]

    def __post_init__(self) -> None:
        at = 0
        for piece in self.pieces:
            if piece.start != at or piece.end <= piece.start:
                raise ValueError(f"assignment {self.version} has a gap or overlap at {at:#x}")
            at = piece.end
        if at != INTERVAL:
            raise ValueError(f"assignment {self.version} ends at {at:#x}, not at 2^64")

    @classmethod
    def first(cls, workers: int) -> "Assignment":
        """Equal contiguous shares for workers 0 .. `workers` - 1.

        >>> [(p.start >> 62, p.worker) for p in Assignment.first(4).pieces]
        [(0, 0), (1, 1), (2, 2), (3, 3)]
        """
        if workers < 1:
            raise ValueError(f"an assignment needs at least one worker, not {workers}")
        bounds = [INTERVAL * i // workers for i in range(workers + 1)]
        return cls(1, tuple(Piece(bounds[i], bounds[i + 1], i) for i in range(workers)))

    @cached_property
    def starts(self) -> list[int]:
        """The start of each piece, in order."""
        return [piece.start for piece in self.pieces]

    @cached_property
    def workers(self) -> tuple[int, ...]:
        """The workers that own something, in order."""
        return tuple(sorted({piece.worker for piece in self.pieces}))

    def owner(self, point: int) -> int:
        """The worker that owns `point`."""
        return self.pieces[bisect_right(self.starts, point) - 1].worker

    def share(self, worker: int) -> int:
        """How many of the 2^64 points `worker` owns."""
        return sum(piece.end - piece.start for piece in self.pieces if piece.worker == worker)

    def pieces_of(self, worker: int) -> Iterable[Piece]:
        """What `worker` owns, in order."""
        return (piece for piece in self.pieces if piece.worker == worker)

    @cached_property
    def slot_shift(self) -> int:
        """How far to shift a point to get its slot in the table of `slots`.

        There are at least 32 slots a piece, so that few slots hold a boundary, and at least 256.
        """
        return 64 - max(8, (32 * len(self.pieces) - 1).bit_length())

    @cached_property
    def slots(self) -> list[int | None]:
        """The owner of each slot of 2^slot_shift points; None where a boundary falls inside."""
        shift = self.slot_shift
        slots: list[int | None] = []
        for piece in self.pieces:
            first = -(-piece.start >> shift)
            if len(slots) < first:
                slots.append(None)
            slots.extend([piece.worker] * ((piece.end >> shift) - len(slots)))
        return slots
