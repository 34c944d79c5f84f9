"""A source that listens has one partition, of no point: it is read where the worker is told to."""

from typing import Any

import pytest
from tests.unit.dataflow.cluster import Reader, Writer, codec, numbers

import wallaroo
from wallaroo.dataflow.barrier import Barrier
from wallaroo.dataflow.engine import Engine
from wallaroo.dataflow.graph import build_graph
from wallaroo.partitioning import INTERVAL, Assignment
from wallaroo.partitioning.rewrite import rewrite
from wallaroo.state.memory import memory_store
from wallaroo.state.store import Store


@wallaroo.decoder(header_length=4, length_fmt=">I")
def decode(payload: bytes) -> str:
    return payload.decode()


SOURCE = wallaroo.source("in", wallaroo.TCPSourceConfig("in", "127.0.0.1", 1, decode))
GRAPH = build_graph(
    wallaroo.build_application("listens", SOURCE.to_sink(wallaroo.FileSinkConfig[str]("out")))
)

TWO = Assignment.first(2)
THREE = rewrite(TWO, range(3))


def engine(
    worker: int, assignment: Assignment, *, listens: bool | None = None, **more: Any
) -> Engine:
    store: Store = more.pop("store", None) or memory_store(codec())
    point = INTERVAL // 2
    return Engine(
        GRAPH,
        worker,
        assignment,
        codec(),
        store,
        numbers(GRAPH),
        {"in": {"in": point}},
        [Writer()],
        wake=lambda _: None,
        passed=lambda _: None,
        held=lambda _: None,
        clock=lambda: 0.0,
        listens=listens,
        **more,
    )


def reads(made: Engine, assignment: Assignment) -> bool:
    return made.reads("in", "in", assignment)


def test_by_default_worker_0_listens_for_all() -> None:
    assert TWO.owner(INTERVAL // 2) == 1
    assert [reads(engine(worker, TWO), TWO) for worker in (0, 1)] == [True, False]


def test_on_all_workers_each_does_that_is_a_member() -> None:
    joiner = engine(2, TWO, listens=True)
    assert [reads(engine(worker, TWO, listens=True), TWO) for worker in (0, 1)] == [True, True]
    assert (reads(joiner, TWO), reads(joiner, THREE)) == (False, True)


def test_nothing_of_it_is_kept() -> None:
    """Each worker has a partition of that name, so none of them may move with a point."""
    store = memory_store(codec())
    made = engine(1, TWO, listens=True, store=store)
    reader = Reader(["a", "b"])
    made.read_from("in", "in", reader)
    made.step()
    made.inject(Barrier(1))
    while made.step():
        pass
    assert made.stored_position("in", "in") == (None, False)
    (place,) = store.places.values()
    assert dict(place.items()) == {}


@pytest.mark.parametrize("stays", [True, False])
def test_one_that_leaves_lets_go_of_it_at_its_last_barrier(stays: bool) -> None:
    worker = 0 if stays else 2
    made = engine(worker, THREE, listens=True)
    reader = Reader(["a"] * 3)
    closed: list[bool] = []
    reader.close = lambda: closed.append(True)  # type: ignore[method-assign]
    made.read_from("in", "in", reader)
    made.enlist(rewrite(THREE, range(2)), ())
    made.inject(Barrier(1, switch=True))
    while made.step():
        pass
    assert closed == ([] if stays else [True])


def test_one_that_joins_is_told_when_to_begin() -> None:
    gained: list[str] = []
    made = engine(2, TWO, listens=True, gained=gained.append)
    made.enlist(THREE, ())
    made.await_state([(0, 1, 0)], ())
    made.inject(Barrier(1, switch=True))
    while made.step():
        pass
    assert gained == ["in"]
