"""State objects appear when their key is first touched, on the worker that owns it alone."""

import pytest

from wallaroo.partitioning import Assignment, hash_key
from wallaroo.state.live import Live, NotMyKey


class Counter:
    count = 0


def test_a_key_gets_a_state_when_it_is_first_touched() -> None:
    live = Live(Counter, None)
    live["a"].count += 1
    live["a"].count += 1
    assert {key: state.count for key, state in live.items()} == {"a": 2}


def test_looking_for_a_key_makes_no_state() -> None:
    live = Live(Counter, None)
    assert "a" not in live
    assert live.get("a") is None
    assert not live


def test_a_str_and_its_bytes_are_two_keys() -> None:
    live = Live(Counter, None)
    assert live["a"] is not live[b"a"]


def test_an_int_is_the_key_of_its_character() -> None:
    live = Live(Counter, None)
    state = live[97]  # type: ignore[index]
    assert live["a"] is state
    assert list(live) == ["a"]


@pytest.mark.parametrize("key", [1.5, None, ("a",), -1])
def test_what_is_no_key_gets_no_state(key: object) -> None:
    live = Live(Counter, None)
    with pytest.raises(TypeError):
        live[key]  # type: ignore[index]
    assert not live


@pytest.mark.parametrize("worker", [0, 1, 2])
def test_a_key_that_another_worker_owns_gets_no_state(worker: int) -> None:
    """Ruling 10 of docs/protocol.md: a first touch checks that its point is owned here."""
    assignment = Assignment.first(3)
    live = Live(Counter, lambda point: assignment.owner(point) == worker)
    for number in range(30):
        key = f"key {number}"
        if assignment.owner(hash_key(key)) == worker:
            live[key].count += 1
        else:
            with pytest.raises(NotMyKey):
                live[key]
    assert live
    assert all(assignment.owner(hash_key(key)) == worker for key in live)
