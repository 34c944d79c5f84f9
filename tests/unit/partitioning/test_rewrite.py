"""Ruling 26: what a rewrite moves is the least that equal shares allow, in few pieces."""

import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wallaroo.partitioning import (
    INTERVAL,
    Assignment,
    Move,
    Piece,
    minimum,
    moved,
    moves,
    rewrite,
)

COUNTS = st.integers(1, 64)


def walk(counts: Iterable[int]) -> Iterator[tuple[Assignment, Assignment]]:
    """Each step of a walk over numbers of workers, as the assignment before and behind."""
    counts = iter(counts)
    old = Assignment.first(next(counts))
    for count in counts:
        new = rewrite(old, range(count))
        yield old, new
        old = new


@st.composite
def member_sets(draw: st.DrawFn) -> list[list[int]]:
    """Sets of any ordinals, the first of 0 .. n - 1: joins and leaves in one rewrite."""
    rest = draw(st.lists(st.lists(st.integers(0, 40), min_size=1, unique=True), max_size=8))
    return [list(range(draw(st.integers(1, 20)))), *rest]


def rewritten(sets: Sequence[Sequence[int]]) -> Iterator[tuple[Assignment, Assignment]]:
    old = Assignment.first(len(sets[0]))
    for members in sets[1:]:
        new = rewrite(old, members)
        yield old, new
        old = new


def sizes(assignment: Assignment) -> dict[int, int]:
    found: dict[int, int] = {}
    for piece in assignment.pieces:
        found[piece.worker] = found.get(piece.worker, 0) + piece.end - piece.start
    return found


def assert_ruling_26(old: Assignment, new: Assignment) -> None:
    """All that must hold of a step, whoever joins and leaves."""
    before, behind = sizes(old), sizes(new)
    staying, joining = before.keys() & behind.keys(), behind.keys() - before.keys()
    leaving = before.keys() - behind.keys()
    n, m, k = len(before), len(behind), len(joining | leaving)
    parts = moves(old, new)
    pairs = {(part.donor, part.receiver) for part in parts}
    length = sum(part.end - part.start for part in parts)

    assert new.version == old.version + 1
    assert max(behind.values()) - min(behind.values()) <= 1
    assert not any(donor in staying and receiver in staying for donor, receiver in pairs)
    assert all(receiver not in leaving for _, receiver in pairs)
    assert all(donor not in joining for donor, _ in pairs)
    assert len(pairs) <= n + k - 1
    assert all(a.worker != b.worker for a, b in itertools.pairwise(new.pieces))
    assert length == moved(old, new) == least(before, list(behind))
    if not joining or not leaving:
        assert abs(length - minimum(n, m) * INTERVAL) <= k
    # Whatever is cut, once for each pair at most, shows as a border that was none.
    borders = {piece.start for piece in old.pieces}
    assert sum(piece.start not in borders for piece in new.pieces) <= len(pairs)
    assert len(new.pieces) <= len(old.pieces) + len(pairs)


def least(shares: dict[int, int], members: Sequence[int]) -> int:
    """The least that must move: tries every number of members that stay and get a point more."""
    share, more = divmod(INTERVAL, len(members))
    staying = [shares[member] for member in members if member in shares]
    joining = len(members) - len(staying)
    best = INTERVAL
    for larger in range(max(0, more - joining), min(more, len(staying)) + 1):
        gain = sorted((min(s, share + 1) - min(s, share) for s in staying), reverse=True)
        kept = sum(min(s, share) for s in staying) + sum(gain[:larger])
        best = min(best, INTERVAL - kept)
    return best


@settings(max_examples=150, deadline=None)
@given(counts=st.lists(COUNTS, min_size=2, max_size=6))
def test_short_walks_keep_every_property(counts: list[int]) -> None:
    """Ruling 26."""
    for old, new in walk(counts):
        if old.workers != new.workers:
            assert_ruling_26(old, new)


@settings(max_examples=100, deadline=None)
@given(sets=member_sets())
def test_so_do_joins_and_leaves_in_one(sets: list[list[int]]) -> None:
    """Ruling 26."""
    for members, (old, new) in zip(sets[1:], rewritten(sets), strict=True):
        assert new.workers == tuple(sorted(members))
        if old.workers != new.workers:
            assert_ruling_26(old, new)


def any_number(_: int, dice: random.Random) -> int:
    return dice.randint(1, 64)


def up_to_five_more_or_less(count: int, dice: random.Random) -> int:
    return min(64, max(1, count + dice.randint(-5, 5)))


def one_more_or_less(count: int, dice: random.Random) -> int:
    return min(64, max(1, count + dice.choice([-1, 1])))


def one_more_or_less_of_many(count: int, dice: random.Random) -> int:
    return min(64, max(48, count + dice.choice([-1, 1])))


@pytest.mark.parametrize(
    ("step", "most"),
    [
        (any_number, 450),
        (up_to_five_more_or_less, 700),
        (one_more_or_less, 1000),
        (one_more_or_less_of_many, 1000),
    ],
)
def test_long_walks_keep_every_property_and_few_pieces(
    step: Callable[[int, random.Random], int], most: int
) -> None:
    """Ruling 26. What was measured stands in docs/decisions/0020-small-fragments-first.md."""
    dice = random.Random(1)
    counts = [64]
    while len(counts) < 201:
        count = step(counts[-1], dice)
        if count != counts[-1]:
            counts.append(count)
    for old, new in walk(counts):
        assert_ruling_26(old, new)
        assert len(new.pieces) <= most
    # The table of slots stays small, and seldom has to be looked behind.
    assert len(new.slots) <= 1 << 15
    assert new.slots.count(None) * 32 <= len(new.slots)


def test_one_by_one_up_to_ten_and_back_is_one_piece_again() -> None:
    """Ruling 26."""
    most = 1
    for old, new in walk([*range(1, 11), *range(9, 0, -1)]):
        assert_ruling_26(old, new)
        most = max(most, len(new.pieces))
    assert new.pieces == (Piece(0, INTERVAL, 0),)
    assert most <= 40


@pytest.mark.parametrize("counts", [(3, 2), (3, 4), (3, 5), (3, 7), (10, 9), (64, 63), (8, 16)])
def test_back_and_forth_makes_no_more_than_two_pieces_a_worker(counts: tuple[int, int]) -> None:
    """Ruling 26: 3 - 2 - 3 - 2 and the like."""
    for old, new in walk([*counts] * 20):
        assert_ruling_26(old, new)
        assert len(new.pieces) <= 2 * max(counts)


def test_twice_as_many_and_back_leaves_no_trace() -> None:
    *_, (_, last) = walk([8, 16, 8])
    assert last.pieces == Assignment.first(8).pieces


@settings(max_examples=50, deadline=None)
@given(counts=st.lists(COUNTS, min_size=2, max_size=4), dice=st.randoms(use_true_random=False))
def test_it_is_a_function_of_the_old_one_and_the_set_of_members(
    counts: list[int], dice: random.Random
) -> None:
    """Ruling 26: the operator, the runner and the simulator come to the same."""
    for old, new in walk(counts):
        members = list(new.workers)
        dice.shuffle(members)
        copy = Assignment(old.version, tuple(Piece(p.start, p.end, p.worker) for p in old.pieces))
        assert rewrite(copy, members) == new


@settings(max_examples=30, deadline=None)
@given(counts=st.lists(COUNTS, min_size=1, max_size=5))
def test_with_the_same_members_the_pieces_stay(counts: list[int]) -> None:
    *_, (_, old) = [(None, Assignment.first(counts[0])), *walk(counts)]
    same = rewrite(old, old.workers)
    assert same == Assignment(old.version + 1, old.pieces)
    assert moves(old, same) == ()


@settings(max_examples=60, deadline=None)
@given(sets=member_sets())
def test_the_moves_are_what_differs_in_order_and_coalesced(sets: list[list[int]]) -> None:
    for old, new in rewritten(sets):
        parts = moves(old, new)
        bounds = sorted({p.start for p in (*old.pieces, *new.pieces)} | {INTERVAL})
        differ = [
            Move(start, end, old.owner(start), new.owner(start))
            for start, end in itertools.pairwise(bounds)
            if old.owner(start) != new.owner(start)
        ]
        assert sum(p.end - p.start for p in parts) == sum(p.end - p.start for p in differ)
        for part in parts:
            assert old.owner(part.start) == old.owner(part.end - 1) == part.donor
            assert new.owner(part.start) == new.owner(part.end - 1) == part.receiver
        for one, other in itertools.pairwise(parts):
            assert one.end <= other.start
            same = (one.donor, one.receiver) == (other.donor, other.receiver)
            assert one.end < other.start or not same


def test_what_lies_side_by_side_between_two_workers_is_one_move() -> None:
    old = Assignment(1, (Piece(0, 4, 0), Piece(4, 8, 0), Piece(8, INTERVAL, 1)))
    new = Assignment(2, (Piece(0, 2, 1), Piece(2, 6, 1), Piece(6, INTERVAL, 1)))
    assert moves(old, new) == (Move(0, 8, 0, 1),)


def test_a_move_between_others_ends_where_either_changes() -> None:
    old = Assignment(1, (Piece(0, 4, 0), Piece(4, 8, 1), Piece(8, INTERVAL, 2)))
    new = Assignment(2, (Piece(0, 6, 3), Piece(6, INTERVAL, 2)))
    assert moves(old, new) == (Move(0, 4, 0, 3), Move(4, 6, 1, 3), Move(6, 8, 1, 2))


QUARTER = INTERVAL // 4


def test_small_pieces_go_first_and_as_a_whole() -> None:
    """Ruling 26: cutting them smaller and smaller is what makes thousands of them."""
    # A sixth of the interval is to go from each: less than the small and the middle one together.
    small, middle, gap = INTERVAL // 32, INTERVAL // 7, INTERVAL // 10
    lengths = [(small, 0), (gap, 1), (middle, 0), (gap, 1), (INTERVAL // 2 - small - middle, 0)]
    bounds = [0, *itertools.accumulate(length for length, _ in lengths)]
    pieces = [
        Piece(*bounds, worker)
        for bounds, (_, worker) in zip(itertools.pairwise(bounds), lengths, strict=True)
    ]
    old = Assignment(1, (*pieces, Piece(bounds[-1], INTERVAL, 1)))
    of_0 = [move for move in moves(old, rewrite(old, range(3))) if move.donor == 0]
    assert [(move.start, move.end) for move in of_0] == [
        (0, small),
        (pieces[2].end - (INTERVAL // 6 - small), pieces[2].end),
    ]


def test_a_receiver_gets_what_lies_beside_its_own() -> None:
    """Ruling 26: two of four leave; each piece of theirs goes to a neighbour, and is none more."""
    assert [p.worker for p in rewrite(Assignment.first(4), [1, 2]).pieces] == [1, 2]
    assert [p.worker for p in rewrite(Assignment.first(4), [0, 3]).pieces] == [0, 3]


def test_a_swap_moves_all_of_the_one_to_the_other() -> None:
    old = Assignment.first(3)
    new = rewrite(old, [0, 7, 2])
    assert [(p.start, p.end) for p in new.pieces] == [(p.start, p.end) for p in old.pieces]
    assert {(move.donor, move.receiver) for move in moves(old, new)} == {(1, 7)}


def test_unequal_shares_become_equal_by_the_least_that_does_it() -> None:
    """Not what a rewrite makes, but what it may be given."""
    old = Assignment(4, (Piece(0, QUARTER, 0), Piece(QUARTER, INTERVAL, 1)))
    new = rewrite(old, [0, 1])
    assert new == Assignment(5, (Piece(0, 2 * QUARTER, 0), Piece(2 * QUARTER, INTERVAL, 1)))


@pytest.mark.parametrize("members", [[], [-1], [0, 1, 1], [2, -1]])
def test_what_are_no_members_is_refused(members: list[int]) -> None:
    with pytest.raises(ValueError, match=r"no members of an assignment: \["):
        rewrite(Assignment.first(2), members)


@given(n=st.integers(1, 1000), m=st.integers(1, 1000))
def test_the_minimum_is_what_joins_or_leaves_of_the_greater_number(n: int, m: int) -> None:
    assert minimum(n, m) == minimum(m, n) == 1 - Fraction(min(n, m), max(n, m))
