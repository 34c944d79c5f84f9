"""One worker's turns: small batches, everyone in turn, and what is counted."""

from collections.abc import Sequence
from typing import Any

import pytest
from tests.unit.dataflow import pipelines as p
from tests.unit.dataflow.cluster import Cluster, Reader, engine_of

from wallaroo.dataflow.barrier import Barrier
from wallaroo.dataflow.engine import BATCH, SLICE
from wallaroo.errors import DataflowError


class Asked(Reader):
    """Keeps how many events it was asked for."""

    def __init__(self, events: Sequence[Any]) -> None:
        super().__init__(events)
        self.limits: list[int] = []

    def read(self, limit: int) -> list[Any]:
        self.limits.append(limit)
        return super().read(limit)


class Clock:
    """Each batch takes `batch` seconds: it is looked at before and after."""

    def __init__(self, batch: float) -> None:
        self.batch = batch
        self.now = 0.0

    def __call__(self) -> float:
        self.now += self.batch
        return self.now


def test_an_engine_with_nothing_to_do_says_so() -> None:
    engine = engine_of(p.application(p.source()), readers={"numbers": Reader([1, 2])})
    assert engine.step()
    assert engine.step()
    assert not engine.step()
    assert engine.sources_ended


def test_batches_begin_small_and_are_bounded() -> None:
    reader = Asked(range(10 * BATCH))
    engine = engine_of(p.application(p.source()), readers={"numbers": reader})
    for _ in range(13):
        engine.step()
    assert reader.limits == [min(2**n, BATCH) for n in range(13)]


def test_an_exchange_is_inlined_again_once_what_waited_behind_a_barrier_is_gone() -> None:
    reader = Asked(range(100 * BATCH))
    application = p.application(p.source().key_by(p.by_rest).to(p.tally))
    engine = engine_of(application, readers={"numbers": reader})
    for _ in range(30):
        engine.step()
    (inbox,) = (each for each in engine.inboxes.values() if each.local)
    assert inbox.empty
    engine.inject(Barrier(1))
    waited = 0
    for _ in range(60):
        engine.step()
        waited += not inbox.empty
    assert 0 < waited < 30
    assert inbox.empty


def test_batches_stay_at_one_event_while_even_that_takes_long() -> None:
    reader = Asked(range(10 * BATCH))
    engine = engine_of(
        p.application(p.source()), readers={"numbers": reader}, clock=Clock(2 * SLICE)
    )
    for _ in range(5):
        engine.step()
    assert reader.limits == [1] * 5


def test_one_batch_that_takes_long_is_followed_by_one_of_about_a_slice() -> None:
    clock = Clock(0.0)
    reader = Asked(range(100 * BATCH))
    engine = engine_of(p.application(p.source()), readers={"numbers": reader}, clock=clock)
    while reader.limits[-1:] != [BATCH]:
        engine.step()
    clock.batch = 8 * SLICE
    engine.step()
    engine.step()
    assert reader.limits[-1] == BATCH // 8


def test_batches_grow_again_when_they_are_quick() -> None:
    clock = Clock(2 * SLICE)
    reader = Asked(range(100 * BATCH))
    engine = engine_of(p.application(p.source()), readers={"numbers": reader}, clock=clock)
    while reader.limits[-1:] != [1]:
        engine.step()
    clock.batch = 0.0
    for _ in range(20):
        engine.step()
    assert reader.limits[-1] == BATCH


def test_sources_take_turns() -> None:
    left, right = Asked(range(20 * BATCH)), Asked(range(20 * BATCH))
    application = p.application(p.source("left").merge(p.source("right")))
    engine = engine_of(application, readers={"left": left, "right": right})
    for _ in range(20):
        engine.step()
    assert len(left.limits) > 3
    assert abs(len(left.limits) - len(right.limits)) <= 1


def test_partitions_of_a_source_are_read_one_after_the_other() -> None:
    first, second = Asked(range(2 * BATCH)), Asked(range(BATCH))
    readers = {"numbers": {"first": first, "second": second}}
    engine = engine_of(p.application(p.source()), readers=readers)
    engine.step()
    waiting = not second.limits
    while engine.step():
        pass
    assert waiting
    assert (first.given, second.given) == (2 * BATCH, BATCH)


def test_a_partition_of_a_source_that_is_none_is_refused() -> None:
    with pytest.raises(KeyError, match="other"):
        engine_of(p.application(p.source())).read_from("other", "it", Reader([]))


@pytest.mark.parametrize("workers", [1, 3])
def test_events_read_and_written_and_keys_are_counted(workers: int) -> None:
    application = p.application(p.source().key_by(p.by_rest).to(p.tally).to(p.double_up), sinks=2)
    cluster = Cluster(application, {"numbers": {0: range(100)}}, workers, 0)
    cluster.run()
    counters = [engine.counters for engine in cluster.engines]
    assert sum(each.read for each in counters) == 100
    assert sum(each.written for each in counters) == 100 * 2 * 2
    assert sum(engine.keys for engine in cluster.engines) == 11


def test_events_from_other_workers_are_counted_as_received() -> None:
    application = p.application(p.source().key_by(p.by_rest).to(p.tally))
    cluster = Cluster(application, {"numbers": {0: range(100)}}, 3, 0)
    cluster.run()
    here, *others = cluster.engines
    kept = sum(tally.count for tally in here.state("tally").values())
    assert here.counters.received == 0
    assert sum(engine.counters.received for engine in others) == 100 - kept > 0


def test_events_that_can_not_be_read_are_a_failure_that_names_worker_and_stage() -> None:
    engine = engine_of(p.application(p.source().key_by(p.by_rest).to(p.tally)), workers=2)
    engine.inboxes[0, 1].add([b"no block"])
    with pytest.raises(DataflowError, match="events from worker 1 for tally: what was received"):
        engine.step()
