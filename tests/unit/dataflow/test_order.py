"""Order holds per (sender, key): the sequence window of each key is unbroken."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st
from tests.unit.dataflow import pipelines as p
from tests.unit.dataflow.cluster import (
    Cluster,
    Reader,
    Writer,
    cut_at,
    engine_of,
    run_dry,
    small_rooms,
)

import wallaroo
from wallaroo import Application
from wallaroo.partitioning import INTERVAL, Assignment, Piece, hash_key

WINDOW = 4
KEYS = 5


@dataclass(frozen=True)
class Numbered:
    """Event `number` of its key; `branch` says by which ways it came."""

    key: str
    number: int
    branch: str = ""


class Windowed(NamedTuple):
    key: str
    branch: str
    numbers: tuple[int, ...]


@wallaroo.key_extractor
def by_key(event: Numbered) -> str:
    return event.key + event.branch


@wallaroo.key_extractor
def by_bytes(event: Numbered) -> bytes:
    return (event.key + event.branch).encode()[::-1]


@wallaroo.computation(name="same")
def same(event: Numbered) -> Numbered:
    return Numbered(event.key, event.number, event.branch)


@wallaroo.computation_multi(name="just one")
def just_one(event: Numbered) -> list[Numbered]:
    return [event]


class Calls:
    count = 0


@wallaroo.state_computation(name="pass", state=Calls)
def let_through(event: Numbered, calls: Calls) -> Numbered:
    calls.count += 1
    return event


@wallaroo.computation(name="left")
def left(event: Numbered) -> Numbered:
    return Numbered(event.key, event.number, event.branch + "l")


@wallaroo.computation(name="right")
def right(event: Numbered) -> Numbered:
    return Numbered(event.key, event.number, event.branch + "r")


class Last:
    def __init__(self) -> None:
        self.numbers: list[int] = []


@wallaroo.state_computation(name="window", state=Last)
def window(event: Numbered, last: Last) -> Windowed:
    last.numbers = [*last.numbers, event.number][-WINDOW:]
    return Windowed(event.key, event.branch, tuple(last.numbers))


@wallaroo.encoder
def as_it_is(event: Windowed) -> str:
    return "|".join([event.key, event.branch, ",".join(map(str, event.numbers))])


class Kept(p.Kept):
    encoder = as_it_is


Numbers = wallaroo.Pipeline[Numbered]
Way = Callable[[Numbers], Numbers]


def two_ways(numbers: Numbers) -> Numbers:
    return numbers.to(left).merge(numbers.to(right))


def two_ways_by_two_exchanges(numbers: Numbers) -> Numbers:
    return (
        numbers.to(left)
        .key_by(by_key)
        .to(let_through)
        .merge(numbers.to(right).key_by(by_bytes).to(let_through))
    )


WAYS: dict[str, Way] = {
    "key_by": lambda numbers: numbers.key_by(by_key),
    "key_by bytes": lambda numbers: numbers.key_by(by_bytes),
    "same": lambda numbers: numbers.to(same),
    "just one": lambda numbers: numbers.to(just_one),
    "state": lambda numbers: numbers.key_by(by_key).to(let_through),
    "two ways": two_ways,
    "two exchanges": two_ways_by_two_exchanges,
}


def application(ways: Sequence[str]) -> Application:
    numbers: Numbers = wallaroo.source("numbers", p.Given())  # type: ignore[arg-type]
    for way in ways:
        numbers = WAYS[way](numbers)
    windows = numbers.key_by(by_key).to(window)
    return wallaroo.build_application("windows", windows.to_sink(Kept()))


def inputs(workers: int, size: int) -> dict[str, dict[int, list[Numbered]]]:
    """Each worker's source has keys of its own, numbered 1, 2, 3, …"""
    return {
        "numbers": {
            worker: [
                Numbered(f"{worker}.{key}", number)
                for number in range(1, size + 1)
                for key in range(KEYS)
            ]
            for worker in range(workers)
        }
    }


def assert_unbroken(written: list[str], ways: Sequence[str], workers: int, size: int) -> None:
    """Each key's windows are (1), (1, 2), … (n-3 … n), in this order, by each branch."""
    found: dict[str, list[str]] = {}
    for line in written:
        key, branch, numbers = line.split("|")
        found.setdefault(key + "|" + branch, []).append(numbers)
    expected = [
        ",".join(map(str, range(max(1, number - WINDOW + 1), number + 1)))
        for number in range(1, size + 1)
    ]
    forks = sum(way.startswith("two") for way in ways)
    assert len(found) == workers * KEYS * 2**forks
    for key, windows in found.items():
        assert windows == expected, key


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize(
    "ways",
    [[], ["key_by bytes"], ["state", "key_by bytes"], ["two ways"], ["two exchanges", "two ways"]],
    ids=", ".join,
)
def test_each_keys_window_is_unbroken_while_barriers_pass(ways: list[str], workers: int) -> None:
    for seed in range(4):
        with small_rooms():
            cluster = Cluster(application(ways), inputs(workers, 12), workers, seed)
            cluster.run(barriers=3)
        assert_unbroken(cluster.written(), ways, workers, 12)


@settings(max_examples=40, deadline=None)
@given(
    ways=st.lists(st.sampled_from(sorted(WAYS)), max_size=4).filter(
        lambda ways: sum(way.startswith("two") for way in ways) <= 2
    ),
    workers=st.integers(1, 3),
    seed=st.integers(0, 10_000),
    fragmented=st.booleans(),
)
def test_each_keys_window_is_unbroken_by_any_way(
    ways: list[str], workers: int, seed: int, fragmented: bool
) -> None:
    keys = [
        f"{worker}.{key}{branch}"
        for worker in range(workers)
        for key in range(KEYS)
        for branch in ("", "l", "r", "lr")
    ]
    assignment = cut_at(keys, workers, seed) if fragmented else None
    with small_rooms():
        cluster = Cluster(application(ways), inputs(workers, 8), workers, seed, assignment)
        note(cluster.graph.describe())
        cluster.run(barriers=2)
    assert_unbroken(cluster.written(), ways, workers, 8)


def test_an_event_beside_a_boundary_does_not_overtake_one_that_was_queued_before_it() -> None:
    """Loops too deep to inline are queued; the slot of a boundary starts a loop of its own."""
    numbers = p.source()
    for _ in range(7):
        numbers = numbers.to(p.some_or_none)
    numbers = numbers.key_by(p.by_rest)
    for _ in range(7):
        numbers = numbers.to(p.some_or_none)
    application = p.application(numbers.collect().to(p.some_or_none))
    plain, beside = 2, 6  # some_or_none lets both through as they are
    at = hash_key(f"rest {beside}")
    alone = Assignment(1, (Piece(0, at, 0), Piece(at, INTERVAL, 0)))
    assert alone.slots[hash_key(f"rest {plain}") >> alone.slot_shift] is not None
    assert alone.slots[at >> alone.slot_shift] is None
    writer = Writer()
    reader = Reader([plain, beside, plain, beside])
    engine = engine_of(application, assignment=alone, readers={"numbers": reader}, writers=[writer])
    run_dry(engine)
    assert writer.written == ["2", "6", "2", "6"]
