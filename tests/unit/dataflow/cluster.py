"""Several engines in one test, driven by hand.

A seed decides who takes the next turn, how much a source gives, how long a batch seems to take,
how long a frame is under way and how soon the state is encoded. Every stage tells when it passes a
barrier, so that a test sees the cut: what the sources had given, and what was in each state and
sink at that moment. The deltas are read back, so that a test sees what a recovery would.
"""

import contextlib
import copy
import json
import random
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from wallaroo.api.connectors import SinkWriter, SourceReader
from wallaroo.api.pipeline import Application
from wallaroo.dataflow.barrier import Barrier
from wallaroo.dataflow.engine import Engine
from wallaroo.dataflow.exchange import Outbox
from wallaroo.dataflow.graph import Graph, Stage, build_graph, source_place
from wallaroo.partitioning import INTERVAL, Assignment, Piece, hash_key
from wallaroo.state.allowlist import AllowList
from wallaroo.state.codec import Codec
from wallaroo.state.entries import open_block
from wallaroo.state.memory import memory_store
from wallaroo.state.store import Store

HERE = Path(__file__).parent


def codec() -> Codec:
    """A codec that takes the classes of the tests beside this file."""
    return Codec(AllowList([HERE]))


def cut_at(keys: Sequence[str | bytes], workers: int, seed: int) -> Assignment:
    """An assignment with a boundary right before and right behind each key's point."""
    chance = random.Random(seed)
    points = {hash_key(key) for key in keys}
    starts = sorted({0} | points | {point + 1 for point in points if point + 1 < INTERVAL})
    ends = [*starts[1:], INTERVAL]
    owners = [chance.randrange(workers) for _ in starts]
    owners[:workers] = range(workers)[: len(owners)]
    return Assignment(1, tuple(map(Piece, starts, ends, owners)))


@contextlib.contextmanager
def small_rooms() -> Iterator[None]:
    """Queues that are full after a few events, blocks of a few values."""
    with mock.patch.multiple(
        "wallaroo.dataflow.exchange", ROOM=120, FRAME=60, LOCAL_ROOM=6, BLOCK=4
    ):
        yield


class Reader(SourceReader):
    """Gives `events`, a few at a time, sometimes none."""

    def __init__(self, events: Sequence[Any], chance: random.Random | None = None) -> None:
        self.events = events
        self.given = 0
        self.reads = 0
        self.stopped = False
        self._chance = chance

    def read(self, limit: int) -> list[Any]:
        self.reads += 1
        if self._chance:
            limit = min(limit, self._chance.choice((0, 1, 1, 2, 3, 5, 8)))
        if self.stopped:
            limit = 0
        events = list(self.events[self.given : self.given + limit])
        self.given += len(events)
        self.ended = self.stopped or self.given == len(self.events)
        return events

    def stop(self) -> None:
        self.stopped = True

    def position(self) -> Any:
        return self.given


class Writer(SinkWriter):
    """Keeps what it gets; by epoch, how much that was at its checkpoint."""

    def __init__(self) -> None:
        self.written: list[Any] = []
        self.checkpoints: dict[int, int] = {}

    def write(self, batch: list[Any]) -> None:
        self.written += batch

    def checkpoint(self, epoch: int, done: Callable[[Any], None]) -> None:
        assert epoch not in self.checkpoints, "an epoch ends once"
        self.checkpoints[epoch] = len(self.written)
        done(None)

    def commit(self, epoch: int, done: Callable[[], None]) -> None:
        done()


def engine_of(
    application: Application,
    *,
    worker: int = 0,
    workers: int = 1,
    assignment: Assignment | None = None,
    store: Store | None = None,
    readers: Mapping[str, SourceReader | Mapping[str, SourceReader]] | None = None,
    writers: Sequence[SinkWriter] | None = None,
    wake: Callable[[Outbox], None] = lambda outbox: None,
    passed: Callable[[Barrier], None] = lambda barrier: None,
    held: Callable[[int], None] = lambda epoch: None,
    clock: Callable[[], float] = lambda: 0.0,
    epoch: int = 0,
    dead_letters: SinkWriter | None = None,
) -> Engine:
    """One worker's engine; what is not said is as little as can be.

    readers: by source the reader of its partition "it", or those of its partitions by name.
    """
    graph = build_graph(application)
    allowed = codec()
    by_source = {
        name: {"it": reader} if isinstance(reader, SourceReader) else reader
        for name, reader in (readers or {}).items()
    }
    engine = Engine(
        graph,
        worker,
        assignment or Assignment.first(workers),
        allowed,
        store or memory_store(allowed),
        numbers(graph),
        {source.name: dict.fromkeys(by_source.get(source.name, ()), 0) for source in graph.sources},
        [Writer() for _ in graph.sinks] if writers is None else list(writers),
        wake=wake,
        passed=passed,
        held=held,
        clock=clock,
        epoch=epoch,
        dead_letters=dead_letters,
    )
    for source, partitions in by_source.items():
        for partition, reader in partitions.items():
            engine.read_from(source, partition, reader)
    return engine


def numbers(graph: Graph) -> dict[str, int]:
    """A number for each place of the graph."""
    return {name: number for number, name in enumerate(graph.places)}


def run_dry(engine: Engine) -> None:
    """Let an engine do all that it can."""
    for _ in range(100_000):
        if not engine.step():
            return
    raise AssertionError("the engine does not come to rest")


class Saved:
    """What a recovery of one worker would find, by place: the deltas, one upon the other."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.entries: dict[str, dict[Any, Any]] = defaultdict(dict)

    def take(self, epoch: int) -> dict[str, dict[Any, Any]]:
        """Encode what the epoch has touched, as far as that is not done, and add it.

        What the epoch has touched, by place.
        """
        while self.store.work(0.0):
            pass
        delta: dict[str, dict[Any, Any]] = defaultdict(dict)
        for block in self.store.take_delta(epoch, 1)._blocks:
            place = self.store._places[block.place]
            keys, values = open_block(block)
            entries = delta[place.name]
            for key, opened in zip(keys, values, strict=True):
                value = place.form.opened(key, block.kind, opened)
                entry = place.form.entry
                if key in entries:  # it was touched again when it had been encoded
                    assert entry(key, value) == entry(key, entries[key]), "twice, and not the same"
                entries[key] = value
        for name, entries in delta.items():
            self.entries[name] |= entries
        return dict(delta)


@dataclass
class Cut:
    """What one barrier cut off, of all workers together.

    given: by source, by worker, how many events came before it.
    states: by place, by worker, a copy of the state of each key.
    saved: the same as the deltas have it.
    positions: by source, by worker, where it would be read on, as the deltas have it.
    written: by sink, what came before it.
    letters: the events that were set aside before it.
    """

    given: dict[str, dict[int, int]] = field(default_factory=lambda: defaultdict(dict))
    states: dict[str, dict[int, dict[Any, Any]]] = field(default_factory=lambda: defaultdict(dict))
    saved: dict[str, dict[int, dict[Any, Any]]] = field(default_factory=lambda: defaultdict(dict))
    positions: dict[str, dict[int, Any]] = field(default_factory=lambda: defaultdict(dict))
    written: dict[int, list[Any]] = field(default_factory=lambda: defaultdict(list))
    letters: list[dict[str, Any]] = field(default_factory=list)
    passed: set[int] = field(default_factory=set)
    held: set[int] = field(default_factory=set)

    def state(self, place: str) -> dict[Any, Any]:
        """The state of each key at a place; fails if two workers hold the same key."""
        merged: dict[Any, Any] = {}
        for states in self.states[place].values():
            assert not merged.keys() & states.keys(), "a key is on two workers"
            merged |= states
        return merged


class WatchedEngine(Engine):
    """Tells when one of its stages passes a barrier."""

    on_pass: Callable[[Engine, Stage, Barrier], None] = lambda engine, stage, barrier: None

    def _pass(self, task: Any, barrier: Barrier) -> None:
        type(self).on_pass(self, task.stage, barrier)
        super()._pass(task, barrier)


class Cluster:
    """`inputs`: by source, by worker, the events that the source gives there."""

    def __init__(
        self,
        application: Application,
        inputs: Mapping[str, Mapping[int, Sequence[Any]]],
        workers: int,
        seed: int,
        assignment: Assignment | None = None,
        *,
        dead_letters: bool = False,
    ) -> None:
        self.chance = random.Random(seed)
        self.graph = build_graph(application)
        self.cuts: dict[int, Cut] = defaultdict(Cut)
        self.writers = [[Writer() for _ in self.graph.sinks] for _ in range(workers)]
        self._now = 0.0
        on_pass = self._on_pass

        class _Engine(WatchedEngine):
            pass

        _Engine.on_pass = staticmethod(on_pass)
        self._codec = allowed = codec()
        self.stores = [memory_store(allowed) for _ in range(workers)]
        self._saved = [Saved(store) for store in self.stores]
        self.letters = [Writer() for _ in range(workers)]
        self.engines = [
            _Engine(
                self.graph,
                worker,
                assignment or Assignment.first(workers),
                allowed,
                self.stores[worker],
                numbers(self.graph),
                {source: {"it": 0} for source in inputs},
                list(self.writers[worker]),
                wake=lambda outbox: None,
                passed=self._on_passed(worker),
                held=self._on_held(worker),
                clock=self._clock,
                dead_letters=self.letters[worker] if dead_letters else None,
            )
            for worker in range(workers)
        ]
        self.readers: dict[str, dict[int, Reader]] = {}
        for source, by_worker in inputs.items():
            self.readers[source] = {}
            for worker, events in by_worker.items():
                reader = self.readers[source][worker] = Reader(events, self.chance)
                self.engines[worker].read_from(source, "it", reader)
        self._flying: dict[tuple[int, int, int], deque[list[bytes] | Barrier]] = defaultdict(deque)

    def _clock(self) -> float:
        # A batch takes no time, or long: the engine lets batches grow and shrink.
        self._now += self.chance.choice((0.0, 0.0, 0.0, 0.01))
        return self._now

    def _on_passed(self, worker: int) -> Callable[[Barrier], None]:
        return lambda barrier: self.cuts[barrier.epoch].passed.add(worker)

    def _on_held(self, worker: int) -> Callable[[int], None]:
        return lambda epoch: self.cuts[epoch].held.add(worker)

    def _on_pass(self, engine: Engine, stage: Stage, barrier: Barrier) -> None:
        cut = self.cuts[barrier.epoch]
        if stage.source:
            name = stage.source.name
            reader = self.readers.get(name, {}).get(engine.worker)
            cut.given[name][engine.worker] = reader.given if reader else 0
        for operation in stage.operations:
            if operation.place:
                assert engine.worker not in cut.states[operation.place], "passed twice"
                states = copy.deepcopy(dict(engine.state(operation.place)))
                cut.states[operation.place][engine.worker] = states
        for sink in stage.sinks:
            cut.written[sink] += self.writers[engine.worker][sink].written

    def turn(self) -> bool:
        """One small thing somewhere: a step, a frame sent, a frame delivered."""
        engine = self.chance.choice(self.engines)
        what = self.chance.random()
        if what > 0.95:
            return self.stores[engine.worker].work(0.0)
        if what < 0.5 or not engine.outboxes:
            return engine.step()
        outbox = self.chance.choice(list(engine.outboxes.values()))
        return self.send(engine, outbox) if what < 0.75 else self.deliver(engine, outbox)

    def send(self, engine: Engine, outbox: Outbox) -> bool:
        flying = self._flying[outbox.edge.index, engine.worker, outbox.receiver]
        if len(flying) >= 3:
            return False
        taken = outbox.take()
        if taken is not None:
            flying.append(taken)
        return taken is not None

    def deliver(self, engine: Engine, outbox: Outbox) -> bool:
        flying = self._flying[outbox.edge.index, engine.worker, outbox.receiver]
        inbox = self.engines[outbox.receiver].inboxes[outbox.edge.index, engine.worker]
        if not flying or not inbox.has_room:
            return False
        taken = flying.popleft()
        if isinstance(taken, Barrier):
            inbox.add_barrier(taken)
        else:
            inbox.add(taken)
        return True

    def settle(self, done: Callable[[], bool] = lambda: False) -> None:
        """Take turns until `done`, or until nobody has anything to do."""
        while not done():
            for _ in range(8 * len(self.engines)):
                self.turn()
            if done():
                return
            ran = False
            for engine in self.engines:
                # A reader that happens to give nothing makes a step that does nothing.
                ran |= any(engine.step() for _ in range(20))
                for outbox in engine.outboxes.values():
                    ran |= self.send(engine, outbox)
                    ran |= self.deliver(engine, outbox)
            if not ran:
                return

    @property
    def ended(self) -> bool:
        return all(engine.sources_ended for engine in self.engines)

    def barrier(self, epoch: int, *, final: bool = False) -> None:
        """Inject a barrier on every worker, each at a moment of its own, and see it through."""
        workers = list(self.engines)
        self.chance.shuffle(workers)
        for engine in workers:
            for _ in range(self.chance.choice((0, 0, 1, 5, 20))):
                self.turn()
            engine.inject(Barrier(epoch, final=final))
        everyone = set(range(len(self.engines)))
        self.settle(lambda: self.cuts[epoch].passed == everyone)
        assert self.cuts[epoch].passed == everyone, "the barrier is stuck"
        assert self.cuts[epoch].held == everyone, "a sink was not asked to hold the epoch"

    def save(self, epoch: int) -> None:
        """Take the deltas of an epoch, before whose end no other begins."""
        cut = self.cuts[epoch]
        for worker, saved in enumerate(self._saved):
            saved.take(epoch)
            for place, entries in saved.entries.items():
                cut.saved[place][worker] = dict(entries)
            for source in self.readers:
                entry = saved.entries[source_place(source)].get("it")
                if entry is not None:
                    cut.positions[source][worker] = self._codec.decode(entry["position"])
            written = self.letters[worker].written[: self.letters[worker].checkpoints.get(epoch)]
            cut.letters += [json.loads(line) for line in written]

    def run(self, barriers: int = 0) -> None:
        """Run to the end of the sources, with up to `barriers` barriers on the way."""
        for epoch in range(1, barriers + 1):
            for _ in range(self.chance.randrange(40)):
                self.turn()
            self.barrier(epoch)
            for _ in range(self.chance.randrange(40)):
                self.turn()
            self.save(epoch)
        self.settle(lambda: self.ended)
        assert self.ended, "the sources are stuck"
        self.barrier(barriers + 1, final=True)
        self.save(barriers + 1)

    def written(self, sink: int = 0) -> list[Any]:
        """What came to a sink, on all workers."""
        return [value for writers in self.writers for value in writers[sink].written]

    def state(self, place: str) -> dict[Any, Any]:
        """The state of each key at a place, on all workers."""
        cut = Cut()
        for engine in self.engines:
            cut.states[place][engine.worker] = dict(engine.state(place))
        return cut.state(place)
