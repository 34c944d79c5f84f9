"""Run an application in memory, in an ordinary test: no processes, no sockets, no files of its own.

    from wallaroo import testing

    def test_counts():
        application = word_count.application_setup(["word_count"])
        result = testing.run(application, {"lines": ["a b", "a"]}, workers=3, rescale=5)
        assert sorted(result.values()) == [("a", 1), ("a", 2), ("b", 1)]

The stages, exchanges, codec and barriers are the real ones; workers take turns, in an order that
`seed` decides.
"""

import inspect
import math
import random
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from wallaroo.api.connectors import SinkConfig, SinkWriter, SourceReader
from wallaroo.api.pipeline import Application, ordered
from wallaroo.api.steps import Encoder
from wallaroo.dataflow.barrier import Barrier
from wallaroo.dataflow.engine import Engine
from wallaroo.dataflow.exchange import Outbox
from wallaroo.dataflow.failures import refused
from wallaroo.dataflow.graph import Graph, build_graph
from wallaroo.disk import RealDisk
from wallaroo.errors import DataflowError, Failure, InputError
from wallaroo.partitioning import Assignment, partition_point
from wallaroo.partitioning.rewrite import Move, moves, rewrite
from wallaroo.protocol.manifest import Staging as StagingMark
from wallaroo.state.allowlist import AllowList
from wallaroo.state.codec import Codec, CodecError
from wallaroo.state.entries import StateRefused, base_key
from wallaroo.state.memory import MemoryBase, memory_store
from wallaroo.state.parcels import Entries, Last, encode_parcel
from wallaroo.state.settlement import Tenure
from wallaroo.state.staging import Staging
from wallaroo.state.store import Store

__all__ = ["ApplicationFailed", "Result", "run"]

T = TypeVar("T")

#: Events before a rescale, where inputs do not say how many there are.
_PORTION = 100


class ApplicationFailed(Exception):
    """A step raised, or could not be carried out; the message says which, and `failure` more."""

    def __init__(self, failure: Failure) -> None:
        super().__init__("\n".join(filter(None, (failure.message, failure.traceback))))
        self.failure = failure


@dataclass
class Result:
    """What an application did.

    states: by worker, by the name of the state computation, the state object of each key.
    """

    states: list[dict[str, dict[str | bytes, Any]]]
    _values: list[list[Any]] = field(default_factory=list)
    _encoded: list[list[bytes]] = field(default_factory=list)

    def values(self, sink: int = 0) -> list[Any]:
        """The events that came to a sink, before its encoder, in order of arrival.

        sink: which, in the order of the pipeline's `to_sink` or `to_sinks`.
        """
        return self._values[sink]

    def encoded(self, sink: int = 0) -> list[bytes]:
        """What a sink's encoder made of each event; events that it made None of are left out."""
        return self._encoded[sink]

    def state(self, name: str) -> dict[str | bytes, Any]:
        """The state object of each key of a state computation, of all workers together.

        Raises ValueError if there is none of this name.
        """
        known = set().union(*self.states)
        if name not in known:
            told = ", ".join(map(repr, sorted(known))) or "none has one"
            raise ValueError(f"no step with state is named {name!r}: {told}")
        return {key: state for worker in self.states for key, state in worker.get(name, {}).items()}


def run(
    application: Application,
    inputs: Mapping[str, Sequence[Any]] | None = None,
    *,
    workers: int = 1,
    rescale: int | Sequence[int] = (),
    seed: int = 0,
) -> Result:
    r"""Run `application` until its sources end, and return what came of it.

    >>> import wallaroo
    >>> from wallaroo import testing
    >>> lines = wallaroo.source("lines", wallaroo.FileSourceConfig("lines", "*.txt"))
    >>> copy = wallaroo.build_application("copy", lines.to_sink(wallaroo.FileSinkConfig("out")))
    >>> testing.run(copy, {"lines": ["in the", "beginning"]}, workers=3).encoded()
    [b'in the\n', b'beginning\n']

    inputs: by the name of a source, the events that it gives, after its decoder. Generators and
        files that are not named give their own; a source that listens must be named.
    workers: how many workers share the keys; events travel between them as bytes.
    rescale: to how many workers to rescale on the way, once or several times: after equal shares
        of the events in `inputs`, or after a hundred events each if there are none. State travels
        as bytes then.
    seed: of the order in which they take turns.

    Raises `ApplicationFailed` when a step fails, ValueError if `inputs` does not fit.
    """
    rescales = [rescale] if isinstance(rescale, int) else list(rescale)
    if min([workers, *rescales]) < 1:
        raise ValueError(f"there must be at least 1 worker, not {min([workers, *rescales])}")
    return _Cluster(application, dict(inputs or {}), workers, seed).run(rescales)


class _Inputs(SourceReader):
    def __init__(self, events: Sequence[Any], position: int) -> None:
        self._events = events
        self._at = position

    def read(self, limit: int) -> list[Any]:
        events = list(self._events[self._at : self._at + limit])
        self._at += len(events)
        self.ended = self._at == len(self._events)
        return events

    def position(self) -> int:
        return self._at


class _Recorder(SinkWriter):
    def __init__(self, encoded: list[bytes]) -> None:
        self._encoded = encoded

    def write(self, batch: list[bytes | str]) -> None:
        self._encoded += [part.encode() if isinstance(part, str) else part for part in batch]

    def checkpoint(self, epoch: int, done: Callable[[Any], None]) -> None:
        done(None)

    def commit(self, epoch: int, done: Callable[[], None]) -> None:
        done()


class _RecordedSink(SinkConfig[Any]):
    """Stands for a sink of the application: records events on their way into its encoder."""

    def __init__(self, config: SinkConfig[Any], values: list[Any]) -> None:
        function = config.encoder.function if config.encoder else repr

        def encode(value: Any) -> Any:
            values.append(value)
            return function(value)

        self.encoder = Encoder(config.encoder.name if config.encoder else "repr", encode)

    def open(self, services: Any, mark: Any = None) -> SinkWriter:
        raise NotImplementedError


class _Services:
    """What connectors get: blocking work is done at once."""

    def __init__(self, worker: int, workers: int) -> None:
        self.worker = worker
        self.workers = workers
        self.disk = RealDisk()
        self.folder = Path("/nowhere")  # readers keep nothing
        self.woken = False

    def wake(self) -> None:
        self.woken = True

    def submit(
        self, work: Callable[[], T], done: Callable[[T], None], failed: Callable[[Exception], None]
    ) -> None:
        try:
            result = work()
        except Exception as error:
            failed(error)
        else:
            done(result)

    def spawn(self, task: Coroutine[Any, Any, None]) -> None:
        task.close()
        raise ValueError("this connector needs a real run")

    def fail(self, failure: Failure) -> None:
        raise ApplicationFailed(failure)

    def waiting(self, what: str, why: str) -> None:
        pass


class _Gate:
    """How many events sources may still give until it is time for a rescale."""

    def __init__(self) -> None:
        self.left: float = 0


class _Gated(SourceReader):
    """A reader behind the gate."""

    def __init__(self, reader: SourceReader, gate: _Gate) -> None:
        self._reader = reader
        self._gate = gate
        self.decoder = reader.decoder
        self.finite = reader.finite
        self.ended = reader.ended

    def read(self, limit: int) -> list[Any]:
        if not self._gate.left:
            return []
        events = self._reader.read(int(min(limit, self._gate.left)))
        self._gate.left -= len(events)
        self.ended = self._reader.ended
        return events

    def stop(self) -> None:
        self._reader.stop()
        self.ended = self._reader.ended

    def position(self) -> Any:
        return self._reader.position()

    def close(self) -> None:
        self._reader.close()
        self.ended = True


@dataclass
class _Rescale:
    """A rescale under way: who gives what to whom, and what is still to come of it."""

    new: Assignment
    moves: tuple[Move, ...]
    stagings: dict[int, Staging]
    #: Workers for which the barrier of the switch comes next.
    injected: set[int] = field(default_factory=set)
    #: Receiver, donor, number of the place, entries.
    parcels: list[tuple[int, int, int, Entries]] = field(default_factory=list)
    #: Receiver, number of the place and key of all that was given.
    given: list[tuple[int, int, str | bytes]] = field(default_factory=list)


class _Cluster:
    """Workers that take turns in one thread.

    A rescale is as in a real run from the barrier of the switch on: what a donor has of the moving
    keys when it has passed the barrier comes to the receivers at any time later, place by place.
    """

    def __init__(
        self, application: Application, inputs: dict[str, Sequence[Any]], workers: int, seed: int
    ) -> None:
        graph = build_graph(application)
        self.values: list[list[Any]] = [[] for _ in graph.sinks]
        self.encoded: list[list[bytes]] = [[] for _ in graph.sinks]
        sinks = tuple(map(_RecordedSink, graph.sinks, self.values))
        self.graph = Graph(graph.application, graph.stages, sinks)
        self.numbers = {name: number for number, name in enumerate(self.graph.places)}
        self.inputs = inputs
        self.random = random.Random(seed)  # noqa: S311
        self.assignment = Assignment.first(workers)
        self.codec = Codec(AllowList(_folders(application)))
        self.partitions = self._partitions(set(inputs))
        self.gate = _Gate()
        self.epoch = 0
        #: By worker: the last barrier that it has passed.
        self.passed: dict[int, int] = {}
        self.services: dict[int, _Services] = {}
        self.stores: dict[int, Store] = {}
        self.engines: dict[int, Engine] = {}
        self.rescale: _Rescale | None = None
        for worker in self.assignment.workers:
            self._start(worker)
        for worker in self.assignment.workers:
            for node in self.graph.sources:
                self._open(worker, node.name, self.assignment)

    def _start(self, worker: int) -> None:
        store = self.stores[worker] = memory_store(self.codec)
        self.services[worker] = _Services(worker, len(self.assignment.workers))
        self.passed[worker] = self.epoch
        self.engines[worker] = Engine(
            self.graph,
            worker,
            self.assignment,
            self.codec,
            store,
            self.numbers,
            self.partitions,
            [_Recorder(encoded) for encoded in self.encoded],
            wake=lambda _: None,
            passed=lambda barrier: self._has_passed(worker, barrier),
            held=lambda _: None,
            clock=lambda: 0.0,
            epoch=self.epoch,
            gained=lambda source: self._has_gained(worker, source),
        )

    def _partitions(self, given: set[str]) -> dict[str, dict[str, int]]:
        """By source, the points of its partitions; what is given in inputs has one."""
        unknown = given - {node.name for node in self.graph.sources}
        if unknown:
            raise ValueError(f"no source is named {', '.join(map(repr, sorted(unknown)))}")
        partitions = {}
        for node in self.graph.sources:
            if node.name not in given and node.config.listens:
                raise ValueError(f"source '{node.name}' listens; give its events in inputs")
            try:
                names = ["inputs"] if node.name in given else node.config.partitions()
            except InputError as error:
                raise ValueError(str(error)) from None
            points = {n: partition_point(i, len(names)) for i, n in enumerate(names)}
            partitions[node.name] = points
        return partitions

    def _open(
        self, worker: int, source: str, assignment: Assignment, already: Assignment | None = None
    ) -> None:
        """Read the partitions of a source that are a worker's, but those that were `already`."""
        engine = self.engines[worker]
        config = next(node.config for node in self.graph.sources if node.name == source)
        for partition in self.partitions[source]:
            if not engine.reads(source, partition, assignment):
                continue
            if already and engine.reads(source, partition, already):
                continue
            position, ended = engine.stored_position(source, partition)
            if ended:
                continue
            if source in self.inputs:
                reader: SourceReader = _Inputs(self.inputs[source], position or 0)
            else:
                try:
                    reader = config.open(partition, self.services[worker], position)
                except InputError as error:
                    raise ValueError(str(error)) from None
            engine.read_from(source, partition, _Gated(reader, self.gate))

    def run(self, rescales: Sequence[int]) -> Result:
        """Run to the end of the sources, with rescales to so many workers on the way."""
        given = sum(map(len, self.inputs.values()))
        portion = max(1, given // (len(rescales) + 1)) if given else _PORTION
        try:
            for workers in rescales:
                self.gate.left += portion - portion // 4
                self._work()
                self.gate.left += portion // 4 + 1  # these are on their way meanwhile
                self._rescale_to(workers)
            self.gate.left = math.inf
            self._work()
            while not all(engine.sources_ended for engine in self.engines.values()):
                self._work()
            self._inject(final=True)
            self._work_until(self._all_passed)
        except DataflowError as error:
            raise ApplicationFailed(error.failure) from error
        except StateRefused as error:
            raise ApplicationFailed(refused(error)) from error
        states = [
            {
                operation.place: dict(engine.state(operation.place))
                for stage in self.graph.stages
                for operation in stage.operations
                if operation.place
            }
            for _, engine in sorted(self.engines.items())
        ]
        return Result(states, self.values, self.encoded)

    # Epochs

    def _inject(self, *, final: bool = False, switch: bool = False) -> None:
        """Put a barrier behind what sources have given, on each worker at a moment of its own."""
        self.epoch += 1
        workers = list(self.engines)
        self.random.shuffle(workers)
        for worker in workers:
            if switch:
                for _ in range(self.random.randrange(4)):
                    self._turn()
                self._expect(worker)
            self.engines[worker].inject(Barrier(self.epoch, final=final, switch=switch))

    def _has_passed(self, worker: int, barrier: Barrier) -> None:
        self.passed[worker] = barrier.epoch
        if barrier.switch:
            self._give(worker)

    def _all_passed(self) -> bool:
        return all(self.passed[worker] == self.epoch for worker in self.engines)

    # Rescales

    def _rescale_to(self, workers: int) -> None:
        old = self.assignment
        new = rewrite(old, range(workers))
        if new.workers == old.workers:
            return
        moving = moves(old, new)
        stagings = {}
        for receiver in {move.receiver for move in moving}:
            getting = [move for move in moving if move.receiver == receiver]
            mark = StagingMark("testing", tuple((move.start, move.end) for move in getting))
            donors = {move.donor for move in getting}
            stagings[receiver] = Staging(mark, MemoryBase(), donors, self.numbers.values())
        self.rescale = rescale = _Rescale(new, moving, stagings)
        joiners = set(new.workers) - set(old.workers)
        for worker in sorted(joiners):
            self._start(worker)
        for worker, engine in self.engines.items():
            engine.enlist(new, joiners - {worker})
        self._inject(switch=True)
        self._work_until(lambda: self._all_passed() and not rescale.parcels)
        self._commit(old, rescale)

    def _expect(self, receiver: int) -> None:
        """The barrier of the switch comes next: behind it, what moves here is waited for."""
        rescale = self.rescale
        assert rescale
        rescale.injected.add(receiver)
        staging = rescale.stagings.get(receiver)
        if staging:
            self.stores[receiver].receive(staging)
            getting = [move for move in rescale.moves if move.receiver == receiver]
            ranges = [(move.start, move.end, move.donor) for move in getting]
            self.engines[receiver].await_state(ranges, staging.awaited)

    def _give(self, donor: int) -> None:
        """Put aside for the receivers what a worker has of the moving keys. May raise."""
        rescale = self.rescale
        assert rescale
        giving = [move for move in rescale.moves if move.donor == donor]
        for number, place in self.stores[donor].places.items():
            for receiver in {move.receiver for move in giving}:
                ranges = [(m.start, m.end) for m in giving if m.receiver == receiver]
                entries = Entries([], [])
                for key, state in place.items():
                    point = place.point(key)
                    if any(start <= point < end for start, end in ranges):
                        entries.keys.append(base_key(number, point, key))
                        entries.values.append(place.form.entry(key, state))
                        rescale.given.append((receiver, number, key))
                rescale.parcels.append((receiver, donor, number, entries))

    def _arrive(self) -> bool:
        """Some of what was put aside comes to its receiver."""
        rescale = self.rescale
        if rescale is None or not rescale.parcels:
            return False
        at = self.random.randrange(len(rescale.parcels))
        receiver, donor, number, entries = rescale.parcels.pop(at)
        staging = rescale.stagings[receiver]
        staging.take(donor, encode_parcel(entries))
        staging.take(donor, encode_parcel(Last(number)))
        if receiver in rescale.injected:
            self.engines[receiver].arrived(donor, number)
        return True

    def _has_gained(self, worker: int, source: str) -> None:
        assert self.rescale
        self._open(worker, source, self.rescale.new, already=self.assignment)

    def _commit(self, old: Assignment, rescale: _Rescale) -> None:
        """The switch is over: forget who has left, and what was given away."""
        self.assignment, self.rescale = rescale.new, None
        leavers = set(old.workers) - set(self.assignment.workers)
        for worker in leavers:
            del self.engines[worker], self.stores[worker], self.services[worker]
        for worker, engine in self.engines.items():
            engine.switch_done()
            engine.dismiss(leavers)
            store = self.stores[worker]
            while not store.encoded:
                store.work(0.0)
            store.take_delta(self.epoch, 1)
            store.committed(self.epoch)
            owned = [(each.start, each.end) for each in self.assignment.pieces_of(worker)]
            store.switched(Tenure(self.assignment.version, tuple(owned), self.epoch))
            while not store.cleaned:
                store.work(0.0)
            for receiver, number, key in rescale.given:
                if receiver == worker:
                    store.places[number].live[key]  # as if its base had it
            store.receive(None)

    # Turns

    def _turns(self) -> list[Callable[[], bool]]:
        turns: list[Callable[[], bool]] = [self._arrive] if self.rescale else []
        for worker, engine in self.engines.items():
            services = self.services[worker]
            turns.append(lambda engine=engine, services=services: _step(engine, services))  # type: ignore[misc]
            turns += [
                lambda engine=engine, outbox=outbox: self._deliver(engine, outbox)  # type: ignore[misc]
                for outbox in engine.outboxes.values()
            ]
        return turns

    def _turn(self) -> None:
        self.random.choice(self._turns())()

    def _work(self) -> None:
        """Take turns until nobody has anything to do."""
        turns = self._turns()
        while True:
            for _ in range(len(turns)):
                self.random.choice(turns)()
            worked = [turn() for turn in turns]
            if not any(worked):
                return

    def _work_until(self, done: Callable[[], bool]) -> None:
        while not done():
            self._work()

    def _deliver(self, engine: Engine, outbox: Outbox) -> bool:
        inbox = self.engines[outbox.receiver].inboxes[outbox.edge.index, engine.worker]
        if not inbox.has_room:
            return False
        try:
            taken = outbox.take()
        except CodecError as error:
            raise engine.unencodable(outbox, error) from error
        if taken is None:
            return False
        if isinstance(taken, Barrier):
            inbox.add_barrier(taken)
        else:
            inbox.add(taken)
        return True


def _step(engine: Engine, services: _Services) -> bool:
    services.woken = False
    return engine.step() or services.woken


def _folders(application: Application) -> list[Path]:
    """Where the application's own modules lie: the folders of its functions and generators."""
    found = set()
    for node in ordered(application.node):
        for owner in vars(node).values():
            function = getattr(owner, "function", None)
            generator = type(getattr(owner, "gen", None))
            file = getattr(sys.modules.get(generator.__module__), "__file__", None)
            if inspect.isfunction(function):
                file = inspect.getsourcefile(function)
            if file:
                found.add(Path(file).parent)
    return sorted(found)
