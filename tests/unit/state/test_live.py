"""State objects appear when their key is first touched, on the worker that owns it alone."""

import enum
from typing import Any

import pytest
from tests.unit.state import values as v
from tests.unit.state.keeping import Keeper

from wallaroo.partitioning import Assignment, hash_key
from wallaroo.state.entries import StateRefused
from wallaroo.state.live import NotMyKey, Place


class Counter:
    count = 0


class Holder:
    def __init__(self) -> None:
        self.value: Any = None


class Name(enum.StrEnum):
    A = "a"


class Raw(bytes):
    __slots__ = ()


@pytest.fixture
def keeper(native: bool) -> Keeper:
    return Keeper()


@pytest.fixture
def place(keeper: Keeper) -> Place:
    return keeper.store.place(1, "count", Counter)


def counts(place: Place) -> dict[str | bytes, int]:
    return {key: state.count for key, state in place.items()}


def test_a_key_gets_a_state_when_it_is_first_touched(place: Place) -> None:
    live = place.live
    live["a"].count += 1
    live["a"].count += 1
    assert counts(place) == {"a": 2}


def test_looking_for_a_key_makes_no_state(place: Place) -> None:
    assert "a" not in place.live
    assert place.live.get("a") is None
    assert not place.live


def test_a_str_and_its_bytes_are_two_keys(place: Place) -> None:
    live = place.live
    assert live["a"] is not live[b"a"]


def test_an_int_is_the_key_of_its_character(place: Place) -> None:
    live: Any = place.live
    state = live[97]
    assert live["a"] is state
    assert list(live) == ["a"]


@pytest.mark.parametrize(("key", "plain"), [(Name.A, "a"), (Raw(b"a"), b"a")])
def test_a_key_of_a_subclass_is_kept_as_a_plain_one(place: Place, key: Any, plain: Any) -> None:
    state = place.live[key]
    assert place.live[plain] is state
    assert [type(key) for key in place.live] == [type(plain)]


@pytest.mark.parametrize("key", [1.5, None, ("a",), -1])
def test_what_is_no_key_gets_no_state(place: Place, key: Any) -> None:
    with pytest.raises(TypeError):
        place.live[key]
    assert not place.live


def test_a_key_without_utf_8_gets_no_state(place: Place) -> None:
    with pytest.raises(UnicodeEncodeError):
        place.live["\ud800"]


@pytest.mark.parametrize("worker", [0, 1, 2])
def test_a_key_that_another_worker_owns_gets_no_state(place: Place, worker: int) -> None:
    """Ruling 10 of docs/protocol.md: a first touch checks that its point is owned here."""
    assignment = Assignment.first(3)
    place.owns = lambda point: assignment.owner(point) == worker
    for number in range(30):
        key = f"key {number}"
        if assignment.owner(hash_key(key)) == worker:
            place.live[key].count += 1
        else:
            with pytest.raises(NotMyKey):
                place.live[key]
    assert place.live
    assert all(assignment.owner(hash_key(key)) == worker for key in place.live)


def test_a_place_with_points_of_its_own_is_owned_by_them(keeper: Keeper) -> None:
    place = keeper.store.place(1, "positions", dict, point={"here": 1, "there": 2}.__getitem__)
    place.owns = lambda point: point == 1
    assert place.live["here"] == {}
    with pytest.raises(NotMyKey):
        place.live["there"]


def test_after_a_barrier_a_key_has_the_state_that_it_had(keeper: Keeper, place: Place) -> None:
    state = place.live["a"]
    place.freeze()
    assert place.live["a"] is state
    keeper.work()
    assert place.live["a"] is state


def test_any_value_can_be_a_state(keeper: Keeper) -> None:
    place = keeper.store.place(1, "nothing", lambda: None)
    assert place.live["a"] is None
    keeper.commit()
    assert place.live["a"] is None
    assert keeper.store.keys == 1


def test_a_state_that_is_touched_after_the_barrier_is_stored_as_it_was(
    keeper: Keeper, place: Place
) -> None:
    place.live["a"].count = 1
    place.live["b"].count = 1
    place.freeze()
    place.live["a"].count = 2
    keeper.write_delta()
    keeper.epoch, keeper.marks = 1, keeper.store.deltas
    keeper.roll_back()
    assert counts(place) == {"a": 1, "b": 1}


def test_what_can_not_be_stored_is_named_when_its_epoch_is_encoded(keeper: Keeper) -> None:
    place = keeper.store.place(1, "hold", Holder)
    place.live["good"].value = 1
    place.live["bad"].value = lambda: 1
    place.freeze()
    with pytest.raises(StateRefused, match=r"'bad' at hold can't be stored: .*function"):
        keeper.work()


def test_what_can_not_be_stored_is_named_when_it_is_touched_again(keeper: Keeper) -> None:
    place = keeper.store.place(1, "hold", Holder)
    place.live["bad"].value = keeper
    place.freeze()
    with pytest.raises(StateRefused, match="may not be sent or stored") as refused:
        place.live["bad"]
    assert (refused.value.place, refused.value.key) == ("hold", "bad")


@pytest.mark.parametrize("value", ["an en dash \u2013", v.Plain(1), 0.1, {"a": [v.Record("x")]}])
def test_whatever_is_touched_after_the_barrier_comes_back(keeper: Keeper, value: Any) -> None:
    place = keeper.store.place(1, "hold", Holder)
    place.live["a"].value = value
    place.freeze()
    place.live["a"].value = "changed"
    keeper.write_delta()
    keeper.epoch, keeper.marks = 1, keeper.store.deltas
    keeper.restart()
    assert keeper.store.place(1, "hold", Holder).live["a"].value == value


@pytest.mark.parametrize("native", [False], indirect=True)
def test_a_touch_through_the_state_of_a_past_epoch_is_a_mistake(place: Place) -> None:
    """A table in C is the same in every epoch."""
    old = place.live
    place.freeze()
    with pytest.raises(RuntimeError, match="past epoch"):
        old["a"]


@pytest.mark.parametrize("native", [False], indirect=True)
def test_without_checkpoints_there_is_nothing_beside_the_dict(place: Place) -> None:
    for number in range(100):
        place.live[str(number)].count += 1
    assert not place.rest
    assert place._fresh is None
    assert place.count == 100


def test_a_large_state_makes_blocks_small(keeper: Keeper) -> None:
    """The clock goes on by a second per look: every chunk takes too long."""
    place = keeper.store.place(1, "list", list)
    for number in range(600):
        place.live[str(number)].append(number)
    place.freeze()
    keeper.work()
    assert place.chunk == 1
    assert dict(place.items()) == {str(number): [number] for number in range(600)}
