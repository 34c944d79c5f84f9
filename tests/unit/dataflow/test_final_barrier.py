"""A final barrier: sources come to an end, sinks hold everything, nothing follows."""

from collections.abc import Callable
from typing import Any

import pytest
from tests.unit.dataflow import pipelines as p
from tests.unit.dataflow.cluster import Cluster, Reader, Writer, engine_of, run_dry

import wallaroo
from wallaroo.api.connectors import Services, SourceReader
from wallaroo.dataflow.barrier import Barrier


class LateWriter(Writer):
    """Holds an epoch when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: dict[int, Callable[[Any], None]] = {}

    def checkpoint(self, epoch: int, done: Callable[[Any], None]) -> None:
        super().checkpoint(epoch, lambda mark: None)
        self.waiting[epoch] = done


def test_a_source_is_stopped_and_not_read_to_its_end() -> None:
    """Ruling 17 of docs/protocol.md: a final barrier closes its sources."""
    passed: list[Barrier] = []
    reader = Reader(range(1_000_000))
    engine = engine_of(p.application(p.source()), readers={"numbers": reader}, passed=passed.append)
    engine.step()
    engine.inject(Barrier(1, final=True))
    run_dry(engine)
    assert passed == [Barrier(1, final=True)]
    assert reader.stopped
    assert not engine.step(), "something follows the final barrier"


class Numbers:
    def initial_value(self) -> int:
        return 1

    def apply(self, previous: int) -> int:
        return previous + 1


def test_a_generator_without_an_end_is_stopped() -> None:
    """Ruling 17 of docs/protocol.md."""
    passed: list[Barrier] = []
    services: Services = None  # type: ignore[assignment]
    reader = wallaroo.GenSourceConfig("numbers", Numbers()).open("numbers", services)
    engine = engine_of(p.application(p.source()), readers={"numbers": reader}, passed=passed.append)
    engine.step()
    engine.inject(Barrier(1, final=True))
    run_dry(engine)
    assert passed == [Barrier(1, final=True)]
    assert not engine.step(), "something follows the final barrier"


def test_what_was_stopped_has_not_ended_and_goes_on_in_the_next_run() -> None:
    """Ruling 18 of docs/protocol.md: end of input is part of a partition's entry; a stop is not."""
    reader = Reader(range(10_000))
    engine = engine_of(p.application(p.source()), readers={"numbers": reader})
    engine.step()
    engine.inject(Barrier(1, final=True))
    run_dry(engine)
    assert reader.ended
    assert engine.ended_partitions == frozenset()
    assert engine.stored_position("numbers", "it") == (reader.given, False)


def test_what_had_come_to_its_end_before_it_has_ended() -> None:
    """Ruling 18 of docs/protocol.md."""
    readers = {"short": Reader([1]), "long": Reader(range(10_000))}
    engine = engine_of(p.application(p.source()), readers={"numbers": readers})
    engine.step()
    engine.inject(Barrier(1, final=True))
    run_dry(engine)
    assert engine.ended_partitions == {("numbers", "short")}


def test_it_is_held_only_when_all_sinks_hold_everything() -> None:
    passed: list[Barrier] = []
    held: list[int] = []
    writers = [LateWriter(), LateWriter()]
    engine = engine_of(
        p.application(p.source(), sinks=2),
        readers={"numbers": Reader([1])},
        writers=writers,
        passed=passed.append,
        held=held.append,
    )
    engine.inject(Barrier(1, final=True))
    run_dry(engine)
    writers[0].waiting[1](None)
    too_early = list(held)
    writers[1].waiting[1](None)
    assert passed == [Barrier(1, final=True)]
    assert too_early == []
    assert held == [1]


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_what_was_read_before_it_comes_out(workers: int) -> None:
    application = p.application(p.source().key_by(p.by_rest).to(p.count).key_by(p.by_any))
    inputs = {"numbers": {worker: range(10_000) for worker in range(workers)}}
    for seed in range(5):
        cluster = Cluster(application, inputs, workers, seed)
        for _ in range(60):
            cluster.turn()
        cluster.barrier(1, final=True)
        cluster.save(1)
        read = sum(reader.given for reader in cluster.readers["numbers"].values())
        assert read < 10_000 * workers
        assert len(cluster.written()) == read
        positions = cluster.cuts[1].positions["numbers"].values()
        assert sum(positions) == read, "it would be read again, or left out"


def test_a_worker_that_reads_no_source_takes_part_in_barriers() -> None:
    application = p.application(p.source().key_by(p.by_rest).to(p.tally))
    cluster = Cluster(application, {"numbers": {1: range(100)}}, 3, 0)
    cluster.run(barriers=3)
    assert all(cut.passed == {0, 1, 2} for cut in cluster.cuts.values())


class Queue(Reader):
    """Ends, as TCP does, when what has come is read."""

    def read(self, limit: int) -> list[Any]:
        self.stopped = False
        return super().read(limit)


def test_a_source_that_is_stopped_is_let_go_of_though_memory_is_full(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No commit, which would free memory, comes before the final barrier."""
    monkeypatch.setattr("tests.unit.dataflow.cluster.Reader", Queue)
    cluster = Cluster(p.application(p.source()), {"numbers": {0: list(range(50))}}, 1, 0)
    reader = cluster.readers["numbers"][0]
    monkeypatch.setattr(type(cluster.stores[0]), "over", property(lambda self: True))
    cluster.settle()
    assert reader.given == 0, "it pauses"
    cluster.barrier(1, final=True)
    assert reader.given == 50


class Lasting(SourceReader):
    """Goes on over a recovery, and has no end of its own."""

    lasting = True

    def read(self, limit: int) -> list[Any]:
        return []


def test_a_reader_that_was_stopped_before_a_recovery_has_not_ended_after_it() -> None:
    reader = Lasting()
    ended = []
    for _ in range(2):
        engine = engine_of(p.application(p.source()), readers={"numbers": reader})
        engine.inject(Barrier(1, final=True))
        run_dry(engine)
        ended.append(engine.ended_partitions)
    assert reader.ended
    assert ended == [frozenset(), frozenset()]
