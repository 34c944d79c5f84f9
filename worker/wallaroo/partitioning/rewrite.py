"""Rewriting: from an assignment to the next one, for other workers.

As little moves as equal shares allow, and nothing between two workers that both stay: cutting the
interval anew into contiguous shares would move half of all keys. The price is fragments, and most
of what stands here keeps their number low; see docs/decisions/0020-small-fragments-first.md.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain

from wallaroo.partitioning.assignment import Assignment, Piece
from wallaroo.partitioning.hashing import INTERVAL


@dataclass(frozen=True, slots=True)
class Move:
    """The sub-interval [start, end), which goes from its donor to its receiver."""

    start: int
    end: int
    donor: int
    receiver: int


def rewrite(old: Assignment, members: Sequence[int]) -> Assignment:
    """The next version of `old`, in which `members`, in any order, have equal shares.

    A pure function of both. `old` has equal shares, too, as every rewrite makes them. So workers
    that stay give to those that join alone, and get from those that leave alone; and if all stay,
    and none joins, the pieces are the same.

    Raises ValueError if `members` are no workers, or name one twice.

    >>> three = Assignment.first(3)
    >>> four = rewrite(three, range(4))
    >>> four.version, [piece.worker for piece in four.pieces]
    (2, [0, 3, 1, 2, 3])
    >>> moved(three, four) == INTERVAL // 4
    True
    """
    if not members or min(members) < 0 or len(set(members)) < len(members):
        raise ValueError(f"these are no members of an assignment: {list(members)}")
    shares = _shares(old)
    due = _due(shares, members)
    surplus, lack = _more(shares, due), _more(due, shares)
    fragments = _Fragments(old.pieces)
    while lack:
        # Each turn finishes its donor or its receiver, the last one both: so there are fewer
        # turns, and pairs, than donors and receivers. The side with fewer workers has them served
        # one by one; to each those of the other side are chosen by where they lie.
        if len(lack) <= len(surplus):
            receiver = min(lack)
            donor = fragments.nearest(receiver, surplus)
        else:
            donor = min(surplus)
            receiver = fragments.nearest(donor, lack)
        length = min(surplus[donor], lack[receiver])
        fragments.give(donor, receiver, length, lack)
        for lengths, worker in ((surplus, donor), (lack, receiver)):
            lengths[worker] -= length
            if not lengths[worker]:
                del lengths[worker]
    return Assignment(old.version + 1, fragments.pieces())


def _shares(assignment: Assignment) -> dict[int, int]:
    shares: dict[int, int] = {}
    for piece in assignment.pieces:
        shares[piece.worker] = shares.get(piece.worker, 0) + piece.end - piece.start
    return shares


def _due(shares: Mapping[int, int], members: Iterable[int]) -> dict[int, int]:
    """What each member is to own: shares that differ by one point at most.

    Where 2^64 can't be divided some get a point more, and those that have most get it: where it is
    theirs already it need not move, and so what moves is the least that is possible.
    """
    most_first = sorted(members, key=lambda member: (-shares.get(member, 0), member))
    share, more = divmod(INTERVAL, len(most_first))
    return {member: share + (rank < more) for rank, member in enumerate(most_first)}


def _more(one: Mapping[int, int], other: Mapping[int, int]) -> dict[int, int]:
    """By how much the lengths in `one` are greater than in `other`, where they are."""
    return {
        worker: length - other.get(worker, 0)
        for worker, length in one.items()
        if length > other.get(worker, 0)
    }


class _Fragments:
    """The pieces while they change hands.

    Each is in the list of its owner; who owns what lies beside it is looked up by their border.
    """

    def __init__(self, pieces: Iterable[Piece]) -> None:
        self._of: dict[int, list[Piece]] = {}
        self._owner_before: dict[int, int] = {}
        self._owner_behind: dict[int, int] = {}
        for piece in _coalesced(pieces):
            self._add(piece)

    def _add(self, piece: Piece) -> None:
        self._of.setdefault(piece.worker, []).append(piece)
        self._owner_behind[piece.start] = piece.worker
        self._owner_before[piece.end] = piece.worker

    def _beside(self, piece: Piece) -> tuple[int | None, int | None]:
        return self._owner_before.get(piece.start), self._owner_behind.get(piece.end)

    def nearest(self, worker: int, among: Iterable[int]) -> int:
        """Which of `among` has most borders with `worker`; the lowest of several."""
        borders = Counter(chain.from_iterable(map(self._beside, self._of.get(worker, ()))))
        return min(among, key=lambda other: (-borders[other], other))

    def give(self, donor: int, receiver: int, length: int, lack: Mapping[int, int]) -> None:
        """Move pieces of `length` in all, of which the last may be cut.

        Those go first that leave the fewest pieces, and the smallest of them. So small ones go as
        a whole, and find their neighbours again, instead of being cut smaller and smaller.
        `lack` has all that still are to receive something.
        """

        def pieces_more(piece: Piece) -> int:
            """By how many pieces there will be more, as far as this one is concerned."""
            beside = self._beside(piece)
            joined = beside.count(receiver)
            if joined and piece.end - piece.start > length:
                return 0  # the border moves, and the rest keeps its other one
            # Others that lack something could have joined it to their own.
            missed = sum(other in lack for other in beside) - joined
            return missed - joined + (piece.end - piece.start > length)

        def order(piece: Piece) -> tuple[int, bool, int, int]:
            size = piece.end - piece.start
            return pieces_more(piece), size > length, size, piece.start

        theirs = self._of[donor]
        while length:
            piece = min(theirs, key=order)
            theirs.remove(piece)
            start, end = piece.start, piece.end
            if end - start > length:
                if self._owner_before.get(start) == receiver:
                    end = start + length
                    self._add(Piece(end, piece.end, donor))
                else:  # its end, beside which the next donor lies
                    start = end - length
                    self._add(Piece(piece.start, start, donor))
            self._add(Piece(start, end, receiver))
            length -= end - start

    def pieces(self) -> tuple[Piece, ...]:
        """All of them, in order and coalesced."""
        return tuple(_coalesced(chain.from_iterable(self._of.values())))


def _coalesced(pieces: Iterable[Piece]) -> list[Piece]:
    """The pieces in order; neighbours of one owner as one."""
    whole: list[Piece] = []
    for piece in sorted(pieces, key=lambda piece: piece.start):
        if whole and whole[-1].worker == piece.worker:
            whole[-1] = Piece(whole[-1].start, piece.end, piece.worker)
        else:
            whole.append(piece)
    return whole


def moves(old: Assignment, new: Assignment) -> tuple[Move, ...]:
    """What each donor sends to each receiver, in order; what lies side by side is one move.

    >>> old = Assignment.first(2)
    >>> [(m.start >> 60, m.end >> 60, m.donor, m.receiver) for m in moves(old, rewrite(old, [1]))]
    [(0, 8, 0, 1)]
    """
    found: list[Move] = []
    at = 0
    before, behind = iter(old.pieces), iter(new.pieces)
    one, other = next(before), next(behind)
    while True:
        end = min(one.end, other.end)
        donor, receiver = one.worker, other.worker
        if donor != receiver:
            last = found[-1] if found else None
            if last and (last.end, last.donor, last.receiver) == (at, donor, receiver):
                found[-1] = Move(last.start, end, donor, receiver)
            else:
                found.append(Move(at, end, donor, receiver))
        if end == INTERVAL:
            return tuple(found)
        at = end
        if one.end == end:
            one = next(before)
        if other.end == end:
            other = next(behind)


def moved(old: Assignment, new: Assignment) -> int:
    """How many of the 2^64 points change their owner."""
    return sum(move.end - move.start for move in moves(old, new))


def minimum(n: int, m: int) -> Fraction:
    """The fraction of the interval that must move from `n` equal shares to `m`.

    >>> minimum(3, 4), minimum(4, 3), minimum(3, 3)
    (Fraction(1, 4), Fraction(1, 4), Fraction(0, 1))
    """
    return Fraction(abs(m - n), max(n, m))
