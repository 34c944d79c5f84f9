"""Several engines in one test, driven by hand.

A seed decides who takes the next turn, how much a source gives, how long a batch seems to take and
how long a frame is under way. Every stage tells when it passes a barrier, so that a test sees the
cut: what the sources had given, and what was in each state and sink at that moment.
"""

import contextlib
import copy
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
from wallaroo.dataflow.graph import Stage, build_graph
from wallaroo.partitioning import INTERVAL, Assignment, Piece, hash_key
from wallaroo.state.allowlist import AllowList
from wallaroo.state.codec import Codec

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


class Writer(SinkWriter):
    """Keeps what it gets."""

    def __init__(self) -> None:
        self.written: list[Any] = []
        self.finishes: list[Callable[[], None]] = []

    def write(self, batch: list[Any]) -> None:
        self.written += batch

    def finish(self, finished: Callable[[], None]) -> None:
        self.finishes.append(finished)
        finished()


@dataclass
class Cut:
    """What one barrier cut off, of all workers together.

    given: by source, by worker, how many events came before it.
    states: by place, by worker, a copy of the state of each key.
    written: by sink, what came before it.
    """

    given: dict[str, dict[int, int]] = field(default_factory=lambda: defaultdict(dict))
    states: dict[str, dict[int, dict[Any, Any]]] = field(default_factory=lambda: defaultdict(dict))
    written: dict[int, list[Any]] = field(default_factory=lambda: defaultdict(list))
    passed: set[int] = field(default_factory=set)

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
        allowed = codec()
        self.engines = [
            _Engine(
                self.graph,
                worker,
                assignment or Assignment.first(workers),
                allowed,
                list(self.writers[worker]),
                wake=lambda outbox: None,
                passed=self._on_passed(worker),
                clock=self._clock,
            )
            for worker in range(workers)
        ]
        self.readers: dict[str, dict[int, Reader]] = {}
        for source, by_worker in inputs.items():
            self.readers[source] = {}
            for worker, events in by_worker.items():
                reader = self.readers[source][worker] = Reader(events, self.chance)
                self.engines[worker].read_from(source, reader)
        self._flying: dict[tuple[int, int, int], deque[list[bytes] | Barrier]] = defaultdict(deque)

    def _clock(self) -> float:
        # A batch takes no time, or long: the engine lets batches grow and shrink.
        self._now += self.chance.choice((0.0, 0.0, 0.0, 0.01))
        return self._now

    def _on_passed(self, worker: int) -> Callable[[Barrier], None]:
        return lambda barrier: self.cuts[barrier.epoch].passed.add(worker)

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

    def run(self, barriers: int = 0) -> None:
        """Run to the end of the sources, with up to `barriers` barriers on the way."""
        for epoch in range(1, barriers + 1):
            for _ in range(self.chance.randrange(40)):
                self.turn()
            self.barrier(epoch)
        self.settle(lambda: self.ended)
        assert self.ended, "the sources are stuck"
        self.barrier(barriers + 1, final=True)

    def written(self, sink: int = 0) -> list[Any]:
        """What came to a sink, on all workers."""
        return [value for writers in self.writers for value in writers[sink].written]

    def state(self, place: str) -> dict[Any, Any]:
        """The state of each key at a place, on all workers."""
        cut = Cut()
        for engine in self.engines:
            cut.states[place][engine.worker] = dict(engine.state(place))
        return cut.state(place)
