"""Engines whose assignment changes while events flow, driven by a seed.

Like `Cluster`, but workers come and go. What a donor has of the moving keys when its stage passes
the barrier is put aside and comes to the receiver at any time later, place by place; until it has
come the receiver lacks it. Partitions are read where they belong, and move with their position.
"""

import random
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.unit.dataflow.cluster import Reader, Writer, codec, numbers

from wallaroo.api.pipeline import Application
from wallaroo.dataflow.barrier import Barrier
from wallaroo.dataflow.engine import Engine
from wallaroo.dataflow.exchange import Outbox
from wallaroo.dataflow.graph import Stage, build_graph, source_place
from wallaroo.partitioning import INTERVAL, Assignment, Piece, hash_key
from wallaroo.partitioning.rewrite import Move, moves
from wallaroo.protocol import manifest
from wallaroo.state.entries import base_key
from wallaroo.state.memory import MemoryBase, memory_store
from wallaroo.state.parcels import Entries, Last, encode_parcel
from wallaroo.state.settlement import Tenure
from wallaroo.state.staging import Staging
from wallaroo.state.store import Store

#: By source and partition: what it gives.
Inputs = Mapping[str, Mapping[str, Sequence[Any]]]


def owned(assignment: Assignment, worker: int) -> tuple[tuple[int, int], ...]:
    return tuple((piece.start, piece.end) for piece in assignment.pieces_of(worker))


def random_assignment(
    chance: random.Random, version: int, workers: Sequence[int], keys: Sequence[str | bytes]
) -> Assignment:
    """Pieces of any owners, many of which begin or end right at a key's point."""
    points = [hash_key(key) for key in keys]
    cuts = {point + chance.choice((0, 1)) for point in points if chance.random() < 0.5}
    starts = sorted({0} | {cut for cut in cuts if cut < INTERVAL})
    starts = sorted({*starts, *(chance.randrange(INTERVAL) for _ in workers)})
    owners = [chance.choice(workers) for _ in starts]
    owners[: len(workers)] = workers
    return Assignment(version, tuple(map(Piece, starts, [*starts[1:], INTERVAL], owners)))


def given(store: Store, staging_of: list[Move], number: int) -> list[tuple[int, bytes, bytes]]:
    """Receiver, key and entry of what moves of a place's state, as it is now."""
    place = store.places[number]
    found = []
    for key, state in place.items():
        point = place.point(key)
        for move in staging_of:
            if move.start <= point < move.end:
                entry = place.form.entry(key, state)
                found.append((move.receiver, base_key(number, point, key), entry))
    return found


class _Engine(Engine):
    on_pass: Callable[[Engine, Stage, Barrier], None] = lambda engine, stage, barrier: None

    def _pass(self, task: Any, barrier: Barrier) -> None:
        super()._pass(task, barrier)
        type(self).on_pass(self, task.stage, barrier)


class Switching:
    """`inputs` of an application on the workers of an assignment."""

    def __init__(
        self, application: Application, inputs: Inputs, assignment: Assignment, seed: int
    ) -> None:
        self.chance = random.Random(seed)
        self.graph = build_graph(application)
        self.inputs = inputs
        self.numbers = numbers(self.graph)
        self.assignment = assignment
        self.points = {
            source: {name: self.chance.randrange(INTERVAL) for name in names}
            for source, names in inputs.items()
        }
        self.engines: dict[int, Engine] = {}
        self.stores: dict[int, Store] = {}
        #: Of all workers there ever were.
        self.writers: list[list[Writer]] = []
        self.epoch = 0
        self.passed: dict[int, set[int]] = defaultdict(set)
        #: By edge, sender and receiver: what is under way, and all that ever came.
        self._flying: dict[tuple[int, int, int], deque[list[bytes] | Barrier]] = defaultdict(deque)
        self.streams: dict[tuple[int, int, int], list[list[bytes] | Barrier]] = defaultdict(list)
        # A switch
        self.next: Assignment | None = None
        self.moves: tuple[Move, ...] = ()
        self.stagings: dict[int, Staging] = {}
        self._injected: set[int] = set()
        #: Receiver, donor, place and entries of what is still to come, in any order.
        self._parcels: list[tuple[int, int, int, Entries]] = []
        #: Whether what donors send comes by itself.
        self.arrives = True
        self._now = 0.0

        class Switched(_Engine):
            pass

        Switched.on_pass = staticmethod(self._has_passed)
        self._engine: type[Engine] = Switched
        for worker in assignment.workers:
            self._start(worker, assignment)
            self._open(worker, lambda *_: True)

    def _clock(self) -> float:
        self._now += self.chance.choice((0.0, 0.0, 0.0, 0.01))
        return self._now

    def _start(self, worker: int, assignment: Assignment) -> None:
        store = self.stores[worker] = memory_store(codec())
        writers = [Writer() for _ in self.graph.sinks]
        self.writers.append(writers)
        self.engines[worker] = self._engine(
            self.graph,
            worker,
            assignment,
            codec(),
            store,
            self.numbers,
            self.points,
            list(writers),
            wake=lambda outbox: None,
            passed=lambda barrier: self.passed[barrier.epoch].add(worker),
            held=lambda epoch: None,
            clock=self._clock,
            epoch=self.epoch,
            gained=lambda source: self._gained(worker, source),
        )

    def _open(self, worker: int, wanted: Callable[[str, str], bool]) -> None:
        """Read the partitions that are a worker's, from where they are."""
        engine = self.engines[worker]
        assignment = self.next or self.assignment
        for source, names in self.inputs.items():
            for name, events in names.items():
                if engine.reads(source, name, assignment) and wanted(source, name):
                    position, ended = engine.stored_position(source, name)
                    if not ended:
                        reader = Reader(events, self.chance)
                        reader.given = position or 0
                        engine.read_from(source, name, reader)

    def _gained(self, worker: int, source: str) -> None:
        old = self.assignment
        engine = self.engines[worker]
        self._open(worker, lambda s, name: s == source and not engine.reads(s, name, old))

    # Turns

    def turn(self) -> None:
        """One small thing somewhere."""
        engine = self.chance.choice(list(self.engines.values()))
        what = self.chance.random()
        if what < 0.03 and self.arrives:
            self.arrive()
        elif what < 0.06:
            self.stores[engine.worker].work(0.0)
        elif what < 0.5 or not engine.outboxes:
            engine.step()
        else:
            outbox = self.chance.choice(list(engine.outboxes.values()))
            self.send(engine, outbox) if what < 0.75 else self.deliver(engine, outbox)

    def send(self, engine: Engine, outbox: Outbox) -> bool:
        flying = self._flying[outbox.edge.index, engine.worker, outbox.receiver]
        taken = outbox.take() if len(flying) < 3 else None
        if taken is not None:
            flying.append(taken)
        return taken is not None

    def deliver(self, engine: Engine, outbox: Outbox) -> bool:
        key = outbox.edge.index, engine.worker, outbox.receiver
        receiver = self.engines.get(outbox.receiver)
        flying = self._flying[key]
        if receiver is None or not flying:
            return False
        inbox = receiver.inboxes[outbox.edge.index, engine.worker]
        if not inbox.has_room:
            return False
        taken = flying.popleft()
        self.streams[key].append(taken)
        if isinstance(taken, Barrier):
            inbox.add_barrier(taken)
        else:
            inbox.add(taken)
        return True

    def arrive(self) -> bool:
        """Something that a donor has sent comes."""
        if not self._parcels:
            return False
        receiver, donor, number, entries = self._parcels.pop(
            self.chance.randrange(len(self._parcels))
        )
        staging = self.stagings[receiver]
        staging.take(donor, encode_parcel(entries))
        staging.take(donor, encode_parcel(Last(number)))
        if receiver in self._injected:
            self.engines[receiver].arrived(donor, number)
        return True

    def settle(self, done: Callable[[], bool] = lambda: False) -> None:
        """Take turns until `done`, or until nobody has anything to do."""
        while not done():
            for _ in range(8 * len(self.engines)):
                self.turn()
            ran = self.arrives and self.arrive()
            for engine in list(self.engines.values()):
                ran |= any(engine.step() for _ in range(20))
                for outbox in list(engine.outboxes.values()):
                    ran |= self.send(engine, outbox)
                    ran |= self.deliver(engine, outbox)
            if not ran:
                return

    def turns(self, most: int) -> None:
        for _ in range(self.chance.randrange(most)):
            self.turn()

    # Epochs

    def barrier(self, *, final: bool = False, switch: bool = False) -> None:
        """Inject a barrier everywhere, each at a moment of its own, and see it through."""
        epoch = self.epoch + 1
        workers = list(self.engines)
        self.chance.shuffle(workers)
        for worker in workers:
            self.turns(12)
            if switch:
                self._expect(worker)
            self.engines[worker].inject(Barrier(epoch, final=final, switch=switch))
        everyone = set(workers)
        self.settle(lambda: self.passed[epoch] == everyone)
        assert self.passed[epoch] == everyone, "the barrier is stuck"
        self.epoch = epoch
        for store in self.stores.values():
            while not store.encoded:
                store.work(0.0)
            store.take_delta(epoch, 1)
            store.committed(epoch)

    def _expect(self, worker: int) -> None:
        staging = self.stagings.get(worker)
        self._injected.add(worker)
        if staging:
            self.stores[worker].receive(staging)
            getting = [move for move in self.moves if move.receiver == worker]
            ranges = [(move.start, move.end, move.donor) for move in getting]
            self.engines[worker].await_state(ranges, staging.awaited)

    def _has_passed(self, engine: Engine, stage: Stage, barrier: Barrier) -> None:
        if not barrier.switch:
            return
        names = [operation.place for operation in stage.operations if operation.place]
        if stage.source:
            names.append(source_place(stage.source.name))
        giving = [move for move in self.moves if move.donor == engine.worker]
        for name in names:
            number = self.numbers[name]
            found = given(self.stores[engine.worker], giving, number)
            for receiver in {move.receiver for move in giving}:
                mine = [(key, entry) for to, key, entry in found if to == receiver]
                entries = Entries([key for key, _ in mine], [entry for _, entry in mine])
                self._parcels.append((receiver, engine.worker, number, entries))

    # Rescales

    def enlist(self, new: Assignment) -> None:
        """Get ready to switch."""
        old = self.assignment
        self.moves = moves(old, new)
        joiners = set(new.workers) - set(old.workers)
        for worker in joiners:
            self._start(worker, old)
            for engine in self.engines.values():  # streams are new, whoever had the number before
                for edge in self.graph.edges:
                    for key in (
                        (edge.index, worker, engine.worker),
                        (edge.index, engine.worker, worker),
                    ):
                        self._flying.pop(key, None)
                        self.streams.pop(key, None)
        for worker, engine in self.engines.items():
            engine.enlist(new, joiners - {worker})
        places = self.numbers.values()
        for receiver in {move.receiver for move in self.moves}:
            getting = [move for move in self.moves if move.receiver == receiver]
            mark = manifest.Staging("1-1", tuple((move.start, move.end) for move in getting))
            donors = {move.donor for move in getting}
            self.stagings[receiver] = Staging(mark, MemoryBase(), donors, places)
        self.next = new
        self._injected = set()

    def give_up(self) -> None:
        """Nothing comes of it."""
        new, self.next = self.next, None
        assert new
        joiners = set(new.workers) - set(self.assignment.workers)
        for worker in joiners:
            del self.engines[worker], self.stores[worker]
        for engine in self.engines.values():
            engine.give_up_switch(joiners)
        self.stagings, self.moves = {}, ()

    def switch(self) -> None:
        """The barrier of the switch, from its injection to its commit."""
        new, old = self.next, self.assignment
        assert new
        self.barrier(switch=True)
        self.settle(lambda: not self._parcels) if self.arrives else None
        assert not self._parcels or not self.arrives
        if self.arrives:
            self.commit_switch(old, new)

    def commit_switch(self, old: Assignment, new: Assignment) -> None:
        """What is held back has been let go, and all are what the new assignment says."""
        self.assignment, self.next = new, None
        leavers = set(old.workers) - set(new.workers)
        for worker in leavers:
            del self.engines[worker], self.stores[worker]
        for worker, engine in self.engines.items():
            engine.switch_done()
            engine.dismiss(leavers)
            store = self.stores[worker]
            store.switched(Tenure(new.version, owned(new, worker), self.epoch))
            while store._cleaning:
                store.work(0.0)
            staging = self.stagings.get(worker)
            if staging:  # as if the base had it
                for key in staging._fresh:
                    place = store.places[int.from_bytes(key[:2], "big")]
                    name = key[11:] if key[10] else key[11:].decode()
                    assert place.owns is None or place.owns(place.point(name))
                    place.live[name]
                store.receive(None)
        self.stagings, self.moves = {}, ()

    @property
    def ended(self) -> bool:
        return all(engine.sources_ended for engine in self.engines.values())

    def finish(self) -> None:
        """Run to the end of the sources, and pass a final barrier."""
        self.settle(lambda: self.ended)
        assert self.ended, "the sources are stuck"
        self.barrier(final=True)

    # What came of it

    def written(self, sink: int = 0) -> list[Any]:
        return [value for writers in self.writers for value in writers[sink].written]

    def state(self, place: str) -> dict[Any, Any]:
        """The state of each key at a place; fails if two workers hold the same key."""
        merged: dict[Any, Any] = {}
        for worker, engine in self.engines.items():
            states = engine.state(place)
            assert not merged.keys() & states.keys(), "a key is on two workers"
            assert all(self.assignment.owner(hash_key(key)) == worker for key in states)
            merged |= states
        return merged
