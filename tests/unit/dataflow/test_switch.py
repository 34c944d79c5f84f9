"""A switch to another assignment, as engines see it: no event lost, doubled, or out of order.

Rulings are those of docs/protocol.md.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.dataflow import pipelines as p
from tests.unit.dataflow.cluster import (
    Reader,
    Writer,
    codec,
    engine_of,
    numbers,
    run_dry,
    small_rooms,
)
from tests.unit.dataflow.pipelines import tallies
from tests.unit.dataflow.reference import Reference
from tests.unit.dataflow.switching import Inputs, Switching, random_assignment

import wallaroo
import wallaroo.dataflow.engine as engine_module
from wallaroo.api.connectors import Services, SourceConfig, SourceReader
from wallaroo.dataflow.barrier import Barrier
from wallaroo.dataflow.engine import Engine
from wallaroo.dataflow.graph import Edge, build_graph
from wallaroo.partitioning import INTERVAL, Assignment, Piece, hash_key
from wallaroo.partitioning.rewrite import rewrite
from wallaroo.protocol import manifest
from wallaroo.state.entries import base_key
from wallaroo.state.memory import MemoryBase, memory_store
from wallaroo.state.parcels import Entries, Last, encode_parcel
from wallaroo.state.staging import Staging

HALF = INTERVAL // 2


def rekeyed() -> p.Events:
    return p.source().key_by(p.by_rest).to(p.tally).key_by(p.by_any).to(p.count)


def split(events: Sequence[int], partitions: int) -> dict[str, Sequence[int]]:
    return {f"part {each}": events[each::partitions] for each in range(partitions)}


def reference_of(application: wallaroo.Application, inputs: Inputs) -> Reference:
    reference = Reference(application)
    for source, names in inputs.items():
        for events in names.values():
            reference.give(source, events)
    return reference


def assert_as_the_reference(cluster: Switching, reference: Reference) -> None:
    for sink, expected in enumerate(reference.sinks):
        assert Counter(cluster.written(sink)) == Counter(expected)
    for place, states in reference.states.items():
        assert tallies(cluster.state(place)) == tallies(states)


def members(chance: random.Random, most: int = 5) -> list[int]:
    return sorted({0, *chance.sample(range(1, most), chance.randrange(most))})


@settings(max_examples=25, deadline=None)
@given(
    application=p.applications(),
    numbers=st.lists(st.integers(-1000, 1000), max_size=60),
    seed=st.integers(0, 10_000),
    partitions=st.integers(1, 4),
)
def test_results_are_those_of_the_pipeline_whatever_switches_there_are(
    application: wallaroo.Application, numbers: list[int], seed: int, partitions: int
) -> None:
    """Any pipeline, any assignments, any order of what comes; some switches are given up."""
    chance = random.Random(seed)
    inputs = {
        source.name: split(numbers, partitions) for source in build_graph(application).sources
    }
    first = random_assignment(chance, 1, members(chance), p.KEYS)
    with small_rooms():
        cluster = Switching(application, inputs, first, seed)
        for _ in range(chance.randrange(1, 4)):
            cluster.turns(60)
            if chance.random() < 0.5:
                cluster.barrier()
            version = cluster.assignment.version + 1
            wanted = members(chance)
            new = random_assignment(chance, version, wanted, p.KEYS)
            cluster.enlist(new)
            cluster.turns(30)
            if chance.random() < 0.2:
                cluster.give_up()
                continue
            cluster.switch()
        cluster.turns(30)
        cluster.finish()
    assert_as_the_reference(cluster, reference_of(application, inputs))


class Seen:
    """The events of a key, as they came, by where they came from."""

    def __init__(self) -> None:
        self.events: list[tuple[str, int]] = []


class Triples(SourceConfig[tuple[str, str, int]]):
    """A source of (key, partition, number) whose readers the test hands in."""

    def partitions(self) -> list[str]:
        return ["all"]

    def open(self, partition: str, services: Services, position: Any = None) -> SourceReader:
        raise NotImplementedError


@wallaroo.key_extractor
def by_key(event: tuple[str, str, int]) -> str:
    return event[0]


@wallaroo.key_extractor
def by_source_and_key(event: tuple[str, str, int]) -> str:
    return f"{event[0]} of {event[1]}"


@wallaroo.state_computation(name="remember", state=Seen)
def remember(event: tuple[str, str, int], state: Seen) -> tuple[str, str, int]:
    state.events.append(event[1:])
    return event


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 100_000))
def test_order_holds_for_each_partition_and_key(seed: int) -> None:
    """Also for those that were held back, and where the partition itself moves."""
    chance = random.Random(seed)
    application = wallaroo.build_application(
        "test",
        wallaroo.source("numbers", Triples())
        .key_by(by_key)
        .to(remember)
        .key_by(by_source_and_key)
        .to(remember)
        .to_sinks([p.Kept()]),
    )
    keys = [f"key {number}" for number in range(6)]
    inputs = {
        "numbers": {
            name: [(chance.choice(keys), name, number) for number in range(60)] for name in "abc"
        }
    }
    with small_rooms():
        cluster = Switching(application, inputs, Assignment.first(3), seed)
        for _ in range(3):
            cluster.turns(100)
            new = rewrite(cluster.assignment, members(chance))
            cluster.enlist(new)
            cluster.turns(40)
            cluster.switch()
        cluster.finish()
    for place in ("remember", "remember#2"):
        found: dict[tuple[str, str], list[int]] = defaultdict(list)
        for key, state in cluster.state(place).items():
            for name, number in state.events:
                found[key.partition(" of ")[0], name].append(number)
        expected = {
            (key, name): [number for k, _, number in events if k == key]
            for name, events in inputs["numbers"].items()
            for key in {k for k, _, _ in events}
        }
        assert found == expected


class TestTheBarrierOfASwitch:
    """Ruling 20."""

    @staticmethod
    def switched(seed: int) -> tuple[Switching, Assignment, int]:
        application = p.application(
            p.source().key_by(p.by_rest).to(p.tally).key_by(p.by_any).to(p.count)
        )
        inputs = {"numbers": split(range(300), 3)}
        chance = random.Random(seed)
        with small_rooms():
            cluster = Switching(application, inputs, Assignment.first(3), seed)
            cluster.turns(50)
            cluster.barrier()
            old = cluster.assignment
            cluster.enlist(rewrite(old, [0, *chance.sample(range(1, 6), 3)]))
            cluster.turns(50)
            cluster.switch()
            epoch = cluster.epoch
            cluster.turns(50)
            cluster.barrier()
            cluster.finish()
        return cluster, old, epoch

    @pytest.mark.parametrize("seed", range(5))
    def test_is_the_first_on_a_joiners_streams_and_the_last_on_a_leavers(self, seed: int) -> None:
        cluster, old, epoch = self.switched(seed)
        new = cluster.assignment
        joiners = set(new.workers) - set(old.workers)
        leavers = set(old.workers) - set(new.workers)
        barrier = Barrier(epoch, switch=True)
        assert joiners
        seen = 0
        for (_, sender, receiver), items in cluster.streams.items():
            if {sender, receiver} & joiners and {sender, receiver} & leavers:
                assert items == [barrier], "between one that joins and one that leaves"
            elif {sender, receiver} & joiners:
                assert items[0] == barrier
                assert items.count(barrier) == 1
            elif {sender, receiver} & leavers:
                assert items[-1] == barrier
            else:
                assert items.count(barrier) == 1
            seen += 1
        edges = [edge for edge in cluster.graph.edges if edge.routed]
        everyone = len({*old.workers, *new.workers})
        assert seen == len(edges) * everyone * (everyone - 1)

    @pytest.mark.parametrize("seed", range(3))
    def test_of_epochs_before_nothing_comes_to_those_that_are_to_join(self, seed: int) -> None:
        application = p.application(p.source().key_by(p.by_rest).to(p.tally))
        inputs = {"numbers": split(range(100), 2)}
        cluster = Switching(application, inputs, Assignment.first(2), seed)
        cluster.enlist(rewrite(cluster.assignment, range(4)))
        del cluster.engines[2], cluster.engines[3], cluster.stores[2], cluster.stores[3]
        cluster.barrier()
        cluster.settle()
        assert not [key for key in cluster.streams if {key[1], key[2]} & {2, 3}]
        for engine in cluster.engines.values():
            assert all(engine.outboxes[0, other].idle for other in (2, 3))

    def test_waits_for_all_members_of_both_assignments(self) -> None:
        """A stage is aligned when it has it from all."""
        application = p.application(p.source().key_by(p.by_rest).to(p.tally))
        passed: list[Barrier] = []
        engine = engine_of(application, workers=2, passed=passed.append)
        (edge,) = engine.graph.edges
        engine.enlist(rewrite(Assignment.first(2), [0, 2]), [2])
        barrier = Barrier(1, switch=True)
        engine.inject(barrier)
        run_dry(engine)
        engine.inboxes[edge.index, 1].add_barrier(barrier)
        run_dry(engine)
        assert passed == []
        engine.inboxes[edge.index, 2].add_barrier(barrier)
        run_dry(engine)
        assert passed == [barrier]

    def test_routes_by_the_new_assignment_what_comes_behind_it(self) -> None:
        application = p.application(p.source().key_by(p.by_rest).to(p.tally))
        feed = Feed(range(100))
        engine = engine_of(application, workers=2, readers={"numbers": feed})
        (edge,) = engine.graph.edges
        new = rewrite(Assignment.first(2), [0, 2])
        engine.enlist(new, [2])
        engine.await_state([], [])
        engine.inject(Barrier(1, switch=True))
        run_dry(engine)
        before, after = (engine.outboxes[edge.index, worker] for worker in (1, 2))
        assert before.take() == Barrier(1, switch=True), "nothing of what comes behind"
        assert before.take() is None
        assert after.take() == Barrier(1, switch=True)
        taken = after.take()
        assert isinstance(taken, list)
        events = [event for block in taken for event in codec().decode_block(block)]
        assert events == [e for e in range(100) if new.owner(hash_key(f"rest {e % 11}")) == 2]


class TestGivingUp:
    """Ruling 24: a switch that does not come leaves everything as it was."""

    @pytest.mark.parametrize("seed", range(3))
    def test_it_leaves_no_streams(self, seed: int) -> None:
        application = p.application(
            p.source().key_by(p.by_rest).to(p.tally).key_by(p.by_any).to(p.count)
        )
        inputs = {"numbers": split(range(200), 3)}
        cluster = Switching(application, inputs, Assignment.first(3), seed)
        before = {
            worker: (list(engine.outboxes), list(engine.inboxes), len(engine._inputs))
            for worker, engine in cluster.engines.items()
        }
        for wanted in (5, 1, 4):
            cluster.turns(40)
            cluster.enlist(rewrite(cluster.assignment, range(wanted)))
            cluster.turns(40)
            cluster.give_up()
        after = {
            worker: (list(engine.outboxes), list(engine.inboxes), len(engine._inputs))
            for worker, engine in cluster.engines.items()
        }
        assert after == before
        cluster.barrier()
        cluster.finish()
        assert_as_the_reference(cluster, reference_of(application, inputs))
        assert cluster.assignment == Assignment.first(3)

    def test_the_next_one_may_have_the_same_workers(self) -> None:
        application = p.application(p.source().key_by(p.by_rest).to(p.tally))
        inputs = {"numbers": split(range(200), 3)}
        cluster = Switching(application, inputs, Assignment.first(2), 1)
        for _ in range(2):
            cluster.enlist(rewrite(cluster.assignment, range(4)))
            cluster.turns(40)
            cluster.give_up()
        cluster.enlist(rewrite(cluster.assignment, range(4)))
        cluster.switch()
        cluster.finish()
        assert_as_the_reference(cluster, reference_of(application, inputs))


class Feed(Reader):
    """Gives what there is, and goes on."""

    def __init__(self, events: Sequence[Any] = ()) -> None:
        super().__init__(list(events))

    def read(self, limit: int) -> list[Any]:
        given = super().read(limit)
        self.ended = self.stopped
        return given


class Receiving:
    """Worker 0, which gets all that worker 1 had; its engine, and what is still to come."""

    def __init__(self, pipeline: p.Events, *, clock: Any = lambda: 0.0) -> None:
        application = p.application(pipeline)
        self.graph = build_graph(application)
        self.numbers = numbers(self.graph)
        self.store = memory_store(codec())
        self.writer = Writer()
        self.feed = Feed()
        self.events: list[int] = self.feed.events  # type: ignore[assignment]
        self.engine: Engine = engine_of(
            application,
            workers=2,
            store=self.store,
            readers={"numbers": self.feed},
            writers=[self.writer],
            clock=clock,
        )
        new = Assignment(2, (Piece(0, INTERVAL, 0),))
        mark = manifest.Staging("1-1", ((HALF, INTERVAL),))
        self.staging = Staging(mark, MemoryBase(), [1], self.numbers.values())
        self.engine.enlist(new, [])
        self.store.receive(self.staging)
        self.engine.await_state([(HALF, INTERVAL, 1)], self.staging.awaited)
        self.engine.inject(Barrier(1, switch=True))
        run_dry(self.engine)
        for edge in self.graph.edges:
            if edge.routed:
                self.from_donor(edge).add_barrier(Barrier(1, switch=True))
        run_dry(self.engine)

    def from_donor(self, edge: Edge) -> Any:
        return self.engine.inboxes[edge.index, 1]

    def give(self, *events: int) -> list[Any]:
        """What is written when the source gives these."""
        self.events += events
        before = len(self.writer.written)
        run_dry(self.engine)
        return self.writer.written[before:]

    def arrive(self, place: str, states: dict[Any, p.Tally] | None = None) -> list[Any]:
        """What is written when the last of a place has come."""
        number = self.numbers[place]
        form = self.store.places[number].form
        found = [
            (base_key(number, hash_key(key), key), form.entry(key, state))
            for key, state in (states or {}).items()
        ]
        self.staging.take(1, encode_parcel(Entries([k for k, _ in found], [v for _, v in found])))
        self.staging.take(1, encode_parcel(Last(number)))
        before = len(self.writer.written)
        self.engine.arrived(1, number)
        run_dry(self.engine)
        return self.writer.written[before:]


def moves_with(event: int) -> bool:
    """Whether the key of an event moves to worker 0."""
    return hash_key(f"rest {event % 11}") >= HALF


MOVED = [event for event in range(200) if moves_with(event)]
KEPT = [event for event in range(200) if not moves_with(event)]


def tallied(count: int) -> p.Tally:
    tally = p.Tally()
    tally.count = count
    return tally


def keyed() -> p.Events:
    return p.source().key_by(p.by_rest).to(p.count)


class TestHoldingBack:
    """A receiver holds back the events of moved keys until the donor's last delta is in."""

    def test_events_of_keys_that_stay_pass(self) -> None:
        receiving = Receiving(p.source().key_by(p.by_rest).to(p.tally))
        assert receiving.give(*KEPT[:5]) == [str(event) for event in KEPT[:5]]

    def test_events_of_keys_that_moved_come_when_their_state_is_here_in_their_order(self) -> None:
        receiving = Receiving(p.source().key_by(p.by_rest).to(p.tally))
        assert receiving.give(*MOVED[:7], *KEPT[:3]) == [str(event) for event in KEPT[:3]]
        assert receiving.arrive("tally") == [str(event) for event in MOVED[:7]]
        assert receiving.give(*MOVED[7:9]) == [str(event) for event in MOVED[7:9]]

    def test_they_find_the_state_that_their_donor_had(self) -> None:
        receiving = Receiving(keyed())
        event = MOVED[0]
        assert receiving.give(event, event) == []
        assert receiving.arrive("count", {f"rest {event % 11}": tallied(7)}) == ["8", "9"]

    def test_a_key_that_the_donor_never_had_is_new(self) -> None:
        receiving = Receiving(keyed())
        receiving.give(MOVED[0])
        assert receiving.arrive("count") == ["1"]

    def test_what_was_held_back_comes_before_what_comes_now(self) -> None:
        """Order per key."""
        receiving = Receiving(p.source().key_by(p.by_rest).to(p.tally))
        receiving.give(*MOVED[:5])
        receiving.events += MOVED[5:10]
        assert receiving.arrive("tally") == [str(event) for event in MOVED[:10]]

    def test_events_of_other_workers_are_held_back_too(self) -> None:
        """A sender that has passed the switch sends what is the receiver's now."""
        new = rewrite(Assignment.first(2), [0, 2])
        application = p.application(p.source().key_by(p.by_rest).to(p.tally))
        store = memory_store(codec())
        writer = Writer()
        engine = engine_of(application, worker=2, workers=2, store=store, writers=[writer])
        engine.enlist(new, [])
        mark = manifest.Staging("1-1", ((HALF, INTERVAL),))
        staging = Staging(mark, MemoryBase(), [1], numbers(engine.graph).values())
        store.receive(staging)
        engine.await_state([(HALF, INTERVAL, 1)], staging.awaited)
        barrier = Barrier(1, switch=True)
        engine.inject(barrier)
        run_dry(engine)
        for sender in (0, 1):
            engine.inboxes[0, sender].add_barrier(barrier)
        run_dry(engine)
        engine.inboxes[0, 0].add([codec().encode_block(MOVED[:4])])
        run_dry(engine)
        assert writer.written == []
        for number in numbers(engine.graph).values():
            staging.take(1, encode_parcel(Last(number)))
            engine.arrived(1, number)
        run_dry(engine)
        assert writer.written == [str(event) for event in MOVED[:4]]

    def test_it_is_over_when_all_is_here(self) -> None:
        receiving = Receiving(keyed())
        for place in receiving.numbers:
            receiving.arrive(place)
        assert not any(task.holding for task in receiving.engine._tasks)

    def test_what_has_come_before_the_barrier_is_not_waited_for(self) -> None:
        """A donor may be faster than all barriers."""
        application = p.application(keyed())
        store, writer, feed = memory_store(codec()), Writer(), Feed()
        engine = engine_of(
            application, workers=2, store=store, writers=[writer], readers={"numbers": feed}
        )
        mark = manifest.Staging("1-1", ((HALF, INTERVAL),))
        staging = Staging(mark, MemoryBase(), [1], numbers(engine.graph).values())
        for number in numbers(engine.graph).values():
            staging.take(1, encode_parcel(Last(number)))
        engine.enlist(Assignment(2, (Piece(0, INTERVAL, 0),)), [])
        store.receive(staging)
        engine.await_state([(HALF, INTERVAL, 1)], staging.awaited)
        engine.inject(Barrier(1, switch=True))
        engine.inboxes[0, 1].add_barrier(Barrier(1, switch=True))
        run_dry(engine)
        feed.events += MOVED[:3]  # type: ignore[operator]
        run_dry(engine)
        assert len(writer.written) == 3

    def test_the_longest_time_is_known(self) -> None:
        now = [5.0]
        receiving = Receiving(keyed(), clock=lambda: now[0])
        receiving.give(MOVED[0])
        now[0] = 7.0
        receiving.give(MOVED[1])
        now[0] = 8.5
        receiving.arrive("count")
        assert receiving.engine.held_back == 3.5

    def test_an_epoch_passes_meanwhile_without_what_is_held_back(self) -> None:
        """Held-back events came behind the barrier of the switch: they are of a later epoch."""
        receiving = Receiving(keyed())
        receiving.give(*MOVED[:3])
        assert receiving.writer.checkpoints == {1: 0}

    def test_a_barrier_does_not_overtake_what_was_let_go_and_has_no_room(self) -> None:
        receiving = Receiving(p.source().key_by(p.by_rest).to(p.tally))
        receiving.give(*MOVED[:3])
        receiving.writer.has_room = False
        assert receiving.arrive("tally") == []
        while receiving.store.work(0.0):
            pass
        receiving.store.take_delta(1, 1)
        receiving.engine.inject(Barrier(2))
        run_dry(receiving.engine)
        assert 2 not in receiving.writer.checkpoints
        receiving.writer.has_room = True
        run_dry(receiving.engine)
        assert receiving.writer.checkpoints == {1: 0, 2: 3}

    def test_of_an_extractor_that_raises_the_event_is_not_held_back(self) -> None:
        application = p.source().key_by(p.by_brittle).to(p.count)
        receiving = Receiving(application)
        with pytest.raises(wallaroo.errors.DataflowError):
            receiving.give(5)


class TestSeveralSteps:
    def test_with_one_key_are_waited_for_together(self) -> None:
        """Two places of one stage: an event goes through both at once."""
        receiving = Receiving(p.source().key_by(p.by_rest).to(p.tally).to(p.count))
        assert receiving.give(MOVED[0]) == []
        assert receiving.arrive("tally") == []
        key = f"rest {MOVED[0] % 11}"
        assert receiving.arrive("count", {key: tallied(4)}) == ["5"]

    def test_with_one_key_do_not_mix_their_states(self) -> None:
        receiving = Receiving(p.source().key_by(p.by_rest).to(p.tally).to(p.count))
        key = f"rest {MOVED[0] % 11}"
        receiving.arrive("tally", {key: tallied(100)})
        receiving.arrive("count", {key: tallied(4)})
        assert receiving.give(MOVED[0]) == ["5"]
        assert receiving.engine.state("tally")[key].count == 101

    def test_of_two_stages_are_waited_for_each_by_itself(self) -> None:
        """Ruling 20: deltas are per stage."""
        receiving = Receiving(
            p.source().key_by(p.by_rest).to(p.tally).key_by(p.by_char).to(p.count)
        )
        first = next(e for e in MOVED if hash_key(chr(e % 17)) < HALF)
        second = next(e for e in KEPT if hash_key(chr(e % 17)) >= HALF)
        both = next(e for e in MOVED if hash_key(chr(e % 17)) >= HALF)
        neither = next(e for e in KEPT if hash_key(chr(e % 17)) < HALF)
        assert len(receiving.give(first, second, both, neither)) == 1
        assert len(receiving.arrive("count")) == 1, "that of the second stage alone"
        assert len(receiving.arrive("tally")) == 2


class TestTheBound:
    """Ruling 16: hold-back has a budget; when it is full the stage stops reading."""

    @pytest.fixture(autouse=True)
    def _little(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(engine_module, "HELD", 20 * 128)
        monkeypatch.setattr("wallaroo.dataflow.exchange.LOCAL_ROOM", 10)

    def test_a_full_one_stops_the_source(self) -> None:
        receiving = Receiving(p.source().key_by(p.by_rest).to(p.tally))
        receiving.give(*(MOVED * 20))
        assert receiving.feed.given < len(MOVED) * 2
        given = receiving.feed.given
        run_dry(receiving.engine)
        assert receiving.feed.given == given

    def test_it_goes_on_when_the_state_is_here_and_nothing_is_lost(self) -> None:
        receiving = Receiving(p.source().key_by(p.by_rest).to(p.tally))
        receiving.give(*(MOVED * 20))
        assert receiving.arrive("tally") == [str(event) for event in MOVED * 20]

    def test_the_barrier_is_not_held_up(self) -> None:
        """Ruling 14: it is exempt from bounds; else the switch could wait for itself."""
        receiving = Receiving(p.source().key_by(p.by_rest).to(p.tally))
        receiving.give(*(MOVED * 20))
        receiving.arrive("tally")
        receiving.engine.inject(Barrier(2))
        while receiving.store.work(0.0):
            pass
        receiving.store.take_delta(1, 1)
        run_dry(receiving.engine)
        assert 2 in receiving.writer.checkpoints


class TestPartitions:
    def test_move_with_their_position(self) -> None:
        """Ruling 27, and DESIGN 2: the read position is an entry like any other."""
        application = p.application(p.source().to(p.add_one))
        inputs = {"numbers": split(range(400), 8)}
        for seed in range(5):
            cluster = Switching(application, inputs, Assignment.first(2), seed)
            cluster.turns(40)
            cluster.enlist(rewrite(cluster.assignment, range(5)))
            cluster.switch()
            cluster.turns(40)
            cluster.enlist(rewrite(cluster.assignment, [0]))
            cluster.switch()
            cluster.finish()
            assert sorted(map(int, cluster.written())) == list(range(1, 401))

    def test_are_not_read_before_their_position_is_here(self) -> None:
        application = p.application(p.source().to(p.add_one))
        inputs = {"numbers": split(range(100), 6)}
        cluster = Switching(application, inputs, Assignment.first(3), 4)
        cluster.arrives = False
        cluster.turns(20)
        cluster.enlist(rewrite(cluster.assignment, [0]))
        cluster.switch()
        engine = cluster.engines[0]
        cluster.settle()
        assert not engine.sources_ended, "its sources have not ended: some are still to come"
        assert len(cluster.written()) < 100
        cluster.arrives = True
        cluster.settle(lambda: not cluster._parcels)
        cluster.settle()
        assert sorted(map(int, cluster.written())) == list(range(1, 101))
        assert engine.sources_ended

    def test_that_had_ended_are_not_read_again(self) -> None:
        application = p.application(p.source().to(p.add_one))
        inputs = {"numbers": split(range(12), 6)}
        cluster = Switching(application, inputs, Assignment.first(3), 4)
        cluster.settle(lambda: cluster.ended)
        cluster.barrier()
        cluster.enlist(rewrite(cluster.assignment, [0]))
        cluster.switch()
        cluster.finish()
        assert sorted(map(int, cluster.written())) == list(range(1, 13))
        names = {("numbers", name) for name in inputs["numbers"]}
        assert cluster.engines[0].ended_partitions == names, "ruling 18: its report names them"

    def test_that_are_given_away_are_let_go_of(self) -> None:
        closed: list[Feed] = []

        class Closing(Feed):
            def close(self) -> None:
                closed.append(self)

        application = p.application(p.source().to(p.add_one))
        reader = Closing(range(5))
        engine = engine_of(application, workers=2, readers={"numbers": reader})
        new = Assignment(2, (Piece(0, HALF, 1), Piece(HALF, INTERVAL, 0)))
        engine.enlist(new, [])
        engine.inject(Barrier(1, switch=True))
        run_dry(engine)
        assert closed == [reader]
        assert reader.given <= 5
        assert engine.ended_partitions == frozenset()
