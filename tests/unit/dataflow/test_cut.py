"""One worker's part of a cut: state, positions and sinks, as they are when a barrier passes."""

from collections.abc import Callable
from typing import Any

import pytest
from tests.unit.dataflow import pipelines as p
from tests.unit.dataflow.cluster import (
    Cluster,
    Reader,
    Saved,
    Writer,
    codec,
    engine_of,
    run_dry,
    small_rooms,
)
from tests.unit.dataflow.pipelines import tallies

import wallaroo
from wallaroo.dataflow.barrier import Barrier
from wallaroo.dataflow.engine import Engine
from wallaroo.dataflow.graph import source_place
from wallaroo.errors import DataflowError
from wallaroo.partitioning import hash_key
from wallaroo.state.codec import Codec
from wallaroo.state.memory import memory_store
from wallaroo.state.store import Store


class Feed(Reader):
    """Gives what the test puts into it."""

    def __init__(self, events: list[Any] | None = None) -> None:
        self.feed: list[Any] = list(events or [])
        super().__init__(self.feed)

    def read(self, limit: int) -> list[Any]:
        given = super().read(limit)
        self.ended = self.stopped
        return given


def counted() -> wallaroo.Application:
    return p.application(p.source().key_by(p.by_rest).to(p.tally))


def fed(
    application: wallaroo.Application,
    *,
    store: Store | None = None,
    writers: list[Writer] | None = None,
    held: Callable[[int], None] = lambda epoch: None,
) -> tuple[Engine, Feed, Saved]:
    store = store or memory_store(codec())
    feed = Feed()
    engine = engine_of(
        application, store=store, readers={"numbers": feed}, writers=writers, held=held
    )
    return engine, feed, Saved(store)


def barrier(engine: Engine, epoch: int) -> None:
    engine.inject(Barrier(epoch))
    run_dry(engine)


class TestStateAtABarrier:
    def test_is_what_was_touched_in_the_epoch_as_it_was_then(self) -> None:
        """An entry touched again before it is encoded is encoded as it was at the barrier."""
        engine, feed, saved = fed(counted())
        feed.feed += [1, 2]
        run_dry(engine)
        barrier(engine, 1)
        feed.feed += [1, 12]
        run_dry(engine)
        assert tallies(saved.take(1)["tally"]) == {"rest 1": (1, 1), "rest 2": (1, 2)}

    def test_does_not_come_again_where_it_was_not_touched_again(self) -> None:
        engine, feed, saved = fed(counted())
        feed.feed += [1, 2]
        run_dry(engine)
        barrier(engine, 1)
        feed.feed += [12]
        run_dry(engine)
        saved.take(1)
        barrier(engine, 2)
        assert tallies(saved.take(2)["tally"]) == {"rest 1": (2, 13)}

    def test_of_an_untouched_epoch_is_empty(self) -> None:
        """Ruling 5 of docs/protocol.md: an untouched epoch has an empty delta."""
        engine, feed, saved = fed(counted())
        feed.feed += [1]
        run_dry(engine)
        barrier(engine, 1)
        saved.take(1)
        barrier(engine, 2)
        assert saved.take(2) == {}

    def test_is_not_frozen_a_second_time_before_it_is_encoded(self) -> None:
        engine, feed, _ = fed(counted())
        feed.feed += [1]
        run_dry(engine)
        barrier(engine, 1)
        engine.inject(Barrier(2))
        with pytest.raises(RuntimeError, match="passed"):
            run_dry(engine)

    def test_of_a_later_stage_is_frozen_when_that_stage_passes(self) -> None:
        """Ruling 14 of docs/protocol.md: events before the barrier are in it, wherever they are."""
        application = p.application(
            p.source().key_by(p.by_rest).to(p.tally).key_by(p.by_byte).to(p.count)
        )
        engine, feed, saved = fed(application)
        feed.feed += [1, 2, 3]
        engine.inject(Barrier(1))
        engine.step()
        feed.feed += [1, 2, 3]
        run_dry(engine)
        delta = saved.take(1)
        assert sum(tally.count for tally in delta.get("tally", {}).values()) == sum(
            tally.count for tally in delta.get("count", {}).values()
        )
        assert tallies(engine.state("count")) == {b"\1": (2, 2), b"\2": (2, 4), b"\3": (2, 6)}


NUMBERS = p.source()


class TestBatchesGoOnWithTheNewEpochsEntries:
    """A batch holds the entries of its epoch as a default: all have to be rebound at a barrier."""

    @pytest.mark.parametrize(
        "pipeline",
        [
            p.source().key_by(p.by_rest).to(p.tally),
            p.source().to(p.tally).key_by(p.by_rest).to(p.count).to(p.every_second),
            p.source().key_by(p.by_rest).to(p.tally).key_by(p.by_byte).to(p.tally),
            NUMBERS.key_by(p.by_rest).merge(NUMBERS.key_by(p.by_byte)).to(p.count),
            NUMBERS.key_by(p.by_rest).merge(NUMBERS).to(p.tally),
        ],
        ids=[
            "one exchange",
            "several states",
            "two exchanges",
            "two inputs",
            "forward and exchange",
        ],
    )
    def test_alone(self, pipeline: p.Events) -> None:
        engine, feed, saved = fed(p.application(pipeline))
        numbers = list(range(30))
        for epoch in (1, 2, 3):
            feed.feed += numbers
            run_dry(engine)
            barrier(engine, epoch)
            delta = saved.take(epoch)
            for place in {place for place in delta if not place.startswith("source ")}:
                now = tallies(engine.state(place))
                assert tallies(saved.entries[place]) == now
                assert tallies(delta[place]) == now, "all keys were touched in the epoch"

    @pytest.mark.parametrize("seed", range(4))
    def test_with_others_while_exchanges_are_inlined_and_not(self, seed: int) -> None:
        """What comes from another worker, from here and inlined are three batches of one stage."""
        application = p.application(
            p.source().key_by(p.by_rest).to(p.tally).key_by(p.by_byte).to(p.count)
        )
        inputs = {"numbers": {worker: range(200) for worker in range(2)}}
        with small_rooms():
            cluster = Cluster(application, inputs, 2, seed)
            cluster.run(barriers=6)
        last = cluster.cuts[7]
        for place in ("tally", "count"):
            saved = {key: each for by in last.saved[place].values() for key, each in by.items()}
            assert tallies(saved) == tallies(cluster.state(place))
            assert sum(tally.count for tally in saved.values()) == 400


class TestPositions:
    def test_are_those_behind_the_events_before_the_barrier(self) -> None:
        engine, feed, saved = fed(counted())
        feed.feed += [1, 2, 3]
        run_dry(engine)
        barrier(engine, 1)
        feed.feed += [4, 5]
        run_dry(engine)
        entry = saved.take(1)[source_place("numbers")]["it"]
        assert codec().decode(entry["position"]) == 3
        assert not entry["ended"]

    def test_that_stay_are_not_written_again(self) -> None:
        engine, feed, saved = fed(counted())
        feed.feed += [1]
        run_dry(engine)
        barrier(engine, 1)
        saved.take(1)
        barrier(engine, 2)
        assert source_place("numbers") not in saved.take(2)

    def test_are_where_the_next_run_reads_on(self) -> None:
        engine, feed, _ = fed(counted())
        feed.feed += [1, 2]
        run_dry(engine)
        assert engine.stored_position("numbers", "it") == (None, False)
        barrier(engine, 1)
        assert engine.stored_position("numbers", "it") == (2, False)

    def test_of_a_partition_that_has_ended_say_so_once_a_barrier_has_passed(self) -> None:
        """Ruling 18 of docs/protocol.md: "ended" is part of a partition's entry."""
        readers = {"short": Reader([1]), "endless": Feed([2])}
        engine = engine_of(counted(), readers={"numbers": readers})
        run_dry(engine)
        before = engine.ended_partitions
        barrier(engine, 1)
        assert before == frozenset()
        assert engine.ended_partitions == {("numbers", "short")}
        assert engine.stored_position("numbers", "short") == (1, True)

    def test_that_had_ended_in_an_earlier_run_are_still_reported(self) -> None:
        """Ruling 18 of docs/protocol.md: one committed manifest shows all ended."""
        store = memory_store(codec())
        engine = engine_of(
            counted(), store=store, readers={"numbers": {"a": Reader([]), "b": Feed()}}
        )
        run_dry(engine)
        barrier(engine, 1)
        Saved(store).take(1)
        again = engine_of(counted(), store=store, readers={"numbers": {"b": Reader([])}}, epoch=1)
        again._partitions = {"numbers": {"a": 0, "b": 0}}
        again.stored_position("numbers", "a")
        run_dry(again)
        barrier(again, 2)
        assert again.ended_partitions == {("numbers", "a"), ("numbers", "b")}

    def test_that_can_not_be_stored_are_a_failure_that_names_the_source(self) -> None:
        class Odd(Feed):
            def position(self) -> Any:
                return self

        engine = engine_of(counted(), readers={"numbers": Odd()})
        engine.inject(Barrier(1))
        with pytest.raises(DataflowError, match="source 'numbers' can't be put into a checkpoint"):
            run_dry(engine)

    def test_may_change_after_the_barrier_without_changing_the_cut(self) -> None:
        class Changing(Feed):
            def position(self) -> Any:
                return self.place

            place: dict[str, int] = {}  # noqa: RUF012

        reader = Changing()
        reader.place = {"at": 1}
        store = memory_store(codec())
        engine = engine_of(counted(), store=store, readers={"numbers": reader})
        barrier(engine, 1)
        reader.place["at"] = 2
        entry = Saved(store).take(1)[source_place("numbers")]["it"]
        assert codec().decode(entry["position"]) == {"at": 1}


class Held(Writer):
    """Holds what it has when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: dict[int, Callable[[Any], None]] = {}
        self.published: list[Callable[[], None]] = []

    def checkpoint(self, epoch: int, done: Callable[[Any], None]) -> None:
        super().checkpoint(epoch, lambda mark: None)
        self.waiting[epoch] = done

    def commit(self, epoch: int, done: Callable[[], None]) -> None:
        self.published.append(done)


class TestSinks:
    def test_hold_what_came_before_the_barrier(self) -> None:
        writer = Held()
        engine, feed, _ = fed(counted(), writers=[writer])
        feed.feed += [1, 2, 3]
        run_dry(engine)
        barrier(engine, 1)
        feed.feed += [4]
        run_dry(engine)
        assert writer.checkpoints == {1: 3}
        assert len(writer.written) == 4

    def test_are_asked_when_their_stage_passes_and_not_before(self) -> None:
        writer = Held()
        engine = engine_of(counted(), workers=2, writers=[writer])
        engine.inject(Barrier(1))
        run_dry(engine)
        before = dict(writer.checkpoints)
        engine.inboxes[0, 1].add_barrier(Barrier(1))
        run_dry(engine)
        assert before == {}
        assert writer.checkpoints == {1: 0}

    def test_are_held_once_all_have_said_so_and_their_marks_are_kept(self) -> None:
        held: list[int] = []
        first, second = Held(), Held()
        application = p.application(p.source().key_by(p.by_rest), sinks=2)
        engine, _, _ = fed(application, writers=[first, second], held=held.append)
        barrier(engine, 1)
        second.waiting[1]({"at": 5})
        before = list(held)
        first.waiting[1](None)
        assert before == []
        assert held == [1]
        assert engine.marks == (None, {"at": 5})

    def test_publish_a_committed_epoch_and_all_have_to(self) -> None:
        writers = [Held(), Held()]
        engine, _, _ = fed(p.application(p.source(), sinks=2), writers=list(writers))
        published: list[bool] = []
        engine.commit(1, lambda: published.append(True))
        writers[0].published[0]()
        before = list(published)
        writers[1].published[0]()
        assert before == []
        assert published == [True]


def test_a_place_keeps_the_number_it_is_given() -> None:
    """Deltas name places by number: it must be the manifest's, not the order in the program."""
    store = memory_store(codec())
    engine = engine_of(counted(), store=store)
    assert {place.name: number for number, place in store._places.items()} == {
        "tally": 0,
        source_place("numbers"): 1,
    }
    assert engine.keys == 0


def test_a_partitions_entry_lies_at_the_partitions_point() -> None:
    """Ruling 11 of docs/protocol.md: a key's point is its hash, a partition's is its own."""
    store = memory_store(codec())
    engine_of(
        counted(), store=store, readers={"numbers": {"left": Reader([]), "right": Reader([])}}
    )
    place = store._places[1]
    assert place.point("left") == 0
    assert store._places[0].point("left") == hash_key("left")


class Full(Store):
    """Says that far more is in memory than should be, when the test says so."""

    full = False

    @property
    def over(self) -> bool:
        return self.full


def test_a_source_is_not_read_while_far_more_is_in_memory_than_should_be() -> None:
    """Eviction waits for a commit, so what is on its way through must go on."""
    store = memory_store(codec())
    store.__class__ = Full
    assert isinstance(store, Full)
    reader, writer = Reader(range(10_000)), Writer()
    engine = engine_of(
        counted(), workers=2, store=store, readers={"numbers": reader}, writers=[writer]
    )
    store.full = True
    run_dry(engine)
    assert reader.reads == 0
    mine = [n for n in range(50) if engine.assignment.owner(hash_key(p.by_rest(n))) == 0]  # type: ignore[arg-type]
    engine.inboxes[0, 1].add([Codec.encode_block(codec(), mine)])
    engine.inject(Barrier(1))
    engine.inboxes[0, 1].add_barrier(Barrier(1))
    run_dry(engine)
    assert len(writer.written) == len(mine), "what others sent is worked off"
    assert writer.checkpoints == {1: len(mine)}, "barriers pass"
    store.full = False
    run_dry(engine)
    assert reader.reads
