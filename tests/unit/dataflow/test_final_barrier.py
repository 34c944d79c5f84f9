"""A final barrier: sources come to an end, sinks let go of everything, nothing follows."""

from collections.abc import Callable

import pytest
from tests.unit.dataflow import pipelines as p
from tests.unit.dataflow.cluster import Cluster, Reader, Writer, codec

import wallaroo
from wallaroo.api.connectors import Services, SourceReader
from wallaroo.dataflow.barrier import Barrier
from wallaroo.dataflow.engine import Engine
from wallaroo.dataflow.graph import build_graph
from wallaroo.partitioning import Assignment


class LateWriter(Writer):
    """Finishes when the test says so."""

    def finish(self, finished: Callable[[], None]) -> None:
        self.finishes.append(finished)


def engine_of(
    application: wallaroo.Application,
    reader: SourceReader,
    passed: Callable[[Barrier], None],
    writers: list[Writer],
) -> Engine:
    engine = Engine(
        build_graph(application),
        0,
        Assignment.first(1),
        codec(),
        list(writers),
        wake=lambda outbox: None,
        passed=passed,
        clock=lambda: 0.0,
    )
    engine.read_from("numbers", reader)
    return engine


def steps(engine: Engine, most: int = 200) -> None:
    for _ in range(most):
        if not engine.step():
            return


def test_a_source_is_stopped_and_not_read_to_its_end() -> None:
    """Ruling 17 of docs/protocol.md: a final barrier closes its sources."""
    passed: list[Barrier] = []
    reader = Reader(range(1_000_000))
    engine = engine_of(p.application(p.source()), reader, passed.append, [Writer()])
    engine.step()
    engine.inject(Barrier(1, final=True))
    steps(engine)
    assert passed == [Barrier(1, final=True)]
    assert reader.stopped
    assert not engine.step(), "something follows the final barrier"


def test_a_generator_without_an_end_is_stopped() -> None:
    """Ruling 17 of docs/protocol.md."""

    class Numbers:
        def initial_value(self) -> int:
            return 1

        def apply(self, previous: int) -> int:
            return previous + 1

    config = wallaroo.GenSourceConfig("numbers", Numbers())
    passed: list[Barrier] = []
    services: Services = None  # type: ignore[assignment]
    reader = config.open("numbers", services)
    engine = engine_of(p.application(p.source()), reader, passed.append, [Writer()])
    engine.step()
    engine.inject(Barrier(1, final=True))
    steps(engine)
    assert passed == [Barrier(1, final=True)]


def test_it_has_passed_only_when_all_sinks_have_let_go_of_everything() -> None:
    passed: list[Barrier] = []
    writers: list[Writer] = [LateWriter(), LateWriter()]
    engine = engine_of(p.application(p.source(), sinks=2), Reader([1]), passed.append, writers)
    engine.inject(Barrier(1, final=True))
    steps(engine)
    writers[0].finishes[0]()
    too_early = list(passed)
    writers[1].finishes[0]()
    assert too_early == []
    assert passed == [Barrier(1, final=True)]


def test_sinks_are_not_finished_by_a_barrier_that_is_not_final() -> None:
    passed: list[Barrier] = []
    writer = Writer()
    engine = engine_of(p.application(p.source()), Reader([1]), passed.append, [writer])
    engine.inject(Barrier(1))
    steps(engine)
    assert passed == [Barrier(1)]
    assert not writer.finishes


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_what_was_read_before_it_comes_out(workers: int) -> None:
    application = p.application(p.source().key_by(p.by_rest).to(p.count).key_by(p.by_any))
    inputs = {"numbers": {worker: range(10_000) for worker in range(workers)}}
    for seed in range(5):
        cluster = Cluster(application, inputs, workers, seed)
        for _ in range(60):
            cluster.turn()
        cluster.barrier(1, final=True)
        read = sum(reader.given for reader in cluster.readers["numbers"].values())
        assert read < 10_000 * workers
        assert len(cluster.written()) == read


def test_a_worker_that_reads_no_source_takes_part_in_barriers() -> None:
    application = p.application(p.source().key_by(p.by_rest).to(p.tally))
    cluster = Cluster(application, {"numbers": {1: range(100)}}, 3, 0)
    cluster.run(barriers=3)
    assert all(cut.passed == {0, 1, 2} for cut in cluster.cuts.values())
