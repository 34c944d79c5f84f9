"""An assignment covers the hash interval: every point has one owner, and shares are equal."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wallaroo.partitioning import INTERVAL, Assignment, Piece, hash_key

POINTS = st.integers(0, INTERVAL - 1)


@st.composite
def fragmented(draw: st.DrawFn) -> Assignment:
    """Pieces of any size and order of owners; some as short as one point."""
    starts = draw(st.sets(POINTS, max_size=60))
    near = draw(st.sets(st.sampled_from(sorted(starts)), max_size=20)) if starts else set()
    starts |= {point + 1 for point in near if point + 1 < INTERVAL}
    # Boundaries on the edges of slots, too.
    starts |= {slot << 56 for slot in draw(st.sets(st.integers(0, 255), max_size=8))}
    bounds = [*sorted(starts | {0}), INTERVAL]
    workers = draw(st.integers(1, 8))
    return Assignment(
        1,
        tuple(
            Piece(start, end, draw(st.integers(0, workers - 1)))
            for start, end in itertools.pairwise(bounds)
        ),
    )


def first_or_fragmented() -> st.SearchStrategy[Assignment]:
    return st.integers(1, 200).map(Assignment.first) | fragmented()


def owner_by_the_pieces(assignment: Assignment, point: int) -> int:
    (owner,) = (piece.worker for piece in assignment.pieces if piece.start <= point < piece.end)
    return owner


def boundary_points(assignment: Assignment) -> list[int]:
    """Around each boundary: start - 1, start, end - 1, end."""
    points = {
        point
        for piece in assignment.pieces
        for point in (piece.start - 1, piece.start, piece.end - 1, piece.end)
    }
    return sorted(point for point in points if 0 <= point < INTERVAL)


@pytest.mark.parametrize("workers", [*range(1, 34), 64, 100, 127, 200])
class TestTheFirstAssignment:
    def test_gives_shares_that_differ_by_at_most_one(self, workers: int) -> None:
        assignment = Assignment.first(workers)
        shares = [assignment.share(worker) for worker in range(workers)]
        assert sum(shares) == INTERVAL
        assert max(shares) - min(shares) <= 1

    def test_gives_each_worker_one_piece_in_order(self, workers: int) -> None:
        assignment = Assignment.first(workers)
        assert [piece.worker for piece in assignment.pieces] == list(range(workers))
        assert assignment.workers == tuple(range(workers))

    def test_owns_every_boundary_point_as_its_pieces_say(self, workers: int) -> None:
        assignment = Assignment.first(workers)
        for point in boundary_points(assignment):
            assert assignment.owner(point) == owner_by_the_pieces(assignment, point)

    def test_has_a_table_that_agrees_with_every_owner(self, workers: int) -> None:
        assert_table_agrees(Assignment.first(workers))


def assert_table_agrees(assignment: Assignment) -> None:
    """Each slot has the owner of all its points, or None where a boundary lies inside it."""
    shift, slots = assignment.slot_shift, assignment.slots
    inside = {piece.start >> shift for piece in assignment.pieces if piece.start % (1 << shift)}
    assert len(slots) << shift == INTERVAL
    for slot, owner in enumerate(slots):
        assert (owner is None) == (slot in inside), hex(slot)
        if owner is not None:
            first, last = slot << shift, ((slot + 1) << shift) - 1
            assert assignment.owner(first) == owner == assignment.owner(last)


@settings(max_examples=150, deadline=None)
@given(assignment=first_or_fragmented())
def test_the_table_agrees_with_every_owner(assignment: Assignment) -> None:
    assert_table_agrees(assignment)


@settings(max_examples=150, deadline=None)
@given(assignment=first_or_fragmented())
def test_every_boundary_point_is_owned_as_the_pieces_say(assignment: Assignment) -> None:
    for point in boundary_points(assignment):
        assert assignment.owner(point) == owner_by_the_pieces(assignment, point)


@settings(max_examples=150, deadline=None)
@given(assignment=first_or_fragmented(), points=st.lists(POINTS, max_size=20))
def test_every_point_has_exactly_one_owner(assignment: Assignment, points: list[int]) -> None:
    for point in points:
        assert assignment.owner(point) == owner_by_the_pieces(assignment, point)


@settings(max_examples=150, deadline=None)
@given(assignment=first_or_fragmented(), key=st.text(max_size=20) | st.binary(max_size=20))
def test_every_key_has_exactly_one_owner(assignment: Assignment, key: str | bytes) -> None:
    point = hash_key(key)
    slot = assignment.slots[point >> assignment.slot_shift]
    assert owner_by_the_pieces(assignment, point) == assignment.owner(point)
    assert slot in (None, assignment.owner(point))


@settings(max_examples=100, deadline=None)
@given(assignment=fragmented())
def test_shares_and_pieces_of_all_workers_make_the_whole(assignment: Assignment) -> None:
    workers = assignment.workers
    pieces = [piece for worker in workers for piece in assignment.pieces_of(worker)]
    assert sum(map(assignment.share, workers)) == INTERVAL
    assert sorted(pieces, key=lambda piece: piece.start) == list(assignment.pieces)


def test_a_worker_that_owns_nothing_has_no_share() -> None:
    assert Assignment.first(3).share(3) == 0
    assert list(Assignment.first(3).pieces_of(3)) == []


@pytest.mark.parametrize("workers", [1, 8, 9, 200])
def test_there_are_at_least_32_slots_a_piece(workers: int) -> None:
    slots = Assignment.first(workers).slots
    assert len(slots) >= max(256, 32 * workers)


def test_assignments_of_the_same_pieces_are_equal() -> None:
    assert Assignment.first(5) == Assignment.first(5)
    assert hash(Assignment.first(5)) == hash(Assignment.first(5))


MIDDLE = INTERVAL // 2


@pytest.mark.parametrize(
    ("pieces", "message"),
    [
        ([], "ends at 0x0"),
        ([(1, INTERVAL)], "gap or overlap at 0x0"),
        ([(0, MIDDLE)], f"ends at {MIDDLE:#x}"),
        ([(0, INTERVAL + 1)], f"ends at {INTERVAL + 1:#x}"),
        ([(0, MIDDLE), (MIDDLE + 1, INTERVAL)], f"gap or overlap at {MIDDLE:#x}"),
        ([(0, MIDDLE), (MIDDLE - 1, INTERVAL)], f"gap or overlap at {MIDDLE:#x}"),
        ([(0, MIDDLE), (MIDDLE, MIDDLE), (MIDDLE, INTERVAL)], f"overlap at {MIDDLE:#x}"),
        ([(MIDDLE, INTERVAL), (0, MIDDLE)], "gap or overlap at 0x0"),
        ([(0, INTERVAL), (0, INTERVAL)], "gap or overlap"),
    ],
)
def test_pieces_that_do_not_cover_the_interval_are_refused(
    pieces: list[tuple[int, int]], message: str
) -> None:
    with pytest.raises(ValueError, match=f"assignment 7 .*{message}"):
        Assignment(7, tuple(Piece(start, end, 0) for start, end in pieces))


@pytest.mark.parametrize("workers", [0, -1])
def test_no_worker_at_all_is_refused(workers: int) -> None:
    with pytest.raises(ValueError, match="at least one worker"):
        Assignment.first(workers)
