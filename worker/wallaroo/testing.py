"""Run an application in memory, in an ordinary test: no processes, no sockets, no files of its own.

    from wallaroo import testing

    def test_counts():
        application = word_count.application_setup(["word_count"])
        result = testing.run(application, {"lines": ["a b", "a"]}, workers=3)
        assert sorted(result.values()) == [("a", 1), ("a", 2), ("b", 1)]

The stages, exchanges, codec and barriers are the real ones; workers take turns, in an order that
`seed` decides.
"""

import inspect
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
from wallaroo.dataflow.graph import Graph, build_graph
from wallaroo.disk import RealDisk
from wallaroo.errors import DataflowError, Failure, InputError
from wallaroo.partitioning import Assignment, partition_point
from wallaroo.state.allowlist import AllowList
from wallaroo.state.codec import Codec, CodecError
from wallaroo.state.memory import memory_store

__all__ = ["ApplicationFailed", "Result", "run"]

T = TypeVar("T")


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
        """The state object of each key of a state computation, of all workers together."""
        return {key: state for worker in self.states for key, state in worker.get(name, {}).items()}


def run(
    application: Application,
    inputs: Mapping[str, Sequence[Any]] | None = None,
    *,
    workers: int = 1,
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
    seed: of the order in which they take turns.

    Raises `ApplicationFailed` when a step fails, ValueError if `inputs` does not fit.
    """
    return _Cluster(application, dict(inputs or {}), workers, seed).run()


class _Inputs(SourceReader):
    def __init__(self, events: Sequence[Any]) -> None:
        self._events = events
        self._at = 0
        self.ended = False

    def read(self, limit: int) -> list[Any]:
        events = list(self._events[self._at : self._at + limit])
        self._at += len(events)
        self.ended = self._at == len(self._events)
        return events


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


class _Cluster:
    def __init__(
        self, application: Application, inputs: dict[str, Sequence[Any]], workers: int, seed: int
    ) -> None:
        graph = build_graph(application)
        self.values: list[list[Any]] = [[] for _ in graph.sinks]
        self.encoded: list[list[bytes]] = [[] for _ in graph.sinks]
        sinks = tuple(map(_RecordedSink, graph.sinks, self.values))
        self.graph = Graph(graph.application, graph.stages, sinks)
        self.random = random.Random(seed)  # noqa: S311
        self.assignment = Assignment.first(workers)
        self.passed: list[int] = [0] * workers
        self.services = [_Services(worker, workers) for worker in range(workers)]
        codec = Codec(AllowList(_folders(application)))
        given = set(inputs)
        partitions = self._partitions(given)
        self.engines = [self._engine(worker, codec, partitions) for worker in range(workers)]
        self._open(inputs, partitions)

    def _engine(
        self, worker: int, codec: Codec, partitions: Mapping[str, Mapping[str, int]]
    ) -> Engine:
        def passed(barrier: Barrier) -> None:
            self.passed[worker] = barrier.epoch

        return Engine(
            self.graph,
            worker,
            self.assignment,
            codec,
            memory_store(codec),
            {name: number for number, name in enumerate(self.graph.places)},
            partitions,
            [_Recorder(encoded) for encoded in self.encoded],
            wake=lambda _: None,
            passed=passed,
            held=lambda _: None,
            clock=lambda: 0.0,
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
        self, inputs: dict[str, Sequence[Any]], partitions: Mapping[str, Mapping[str, int]]
    ) -> None:
        for node in self.graph.sources:
            for partition, point in partitions[node.name].items():
                owner = self.assignment.owner(point)
                if node.name in inputs:
                    reader: SourceReader = _Inputs(inputs[node.name])
                else:
                    try:
                        reader = node.config.open(partition, self.services[owner])
                    except InputError as error:
                        raise ValueError(str(error)) from None
                self.engines[owner].read_from(node.name, partition, reader)

    def run(self) -> Result:
        try:
            self._work()
            while not all(engine.sources_ended for engine in self.engines):
                self._work()
            for engine in self.engines:
                engine.inject(Barrier(1, final=True))
            while not all(self.passed):
                self._work()
        except DataflowError as error:
            raise ApplicationFailed(error.failure) from error
        states = [
            {
                operation.place: dict(engine.state(operation.place))
                for stage in self.graph.stages
                for operation in stage.operations
                if operation.place
            }
            for engine in self.engines
        ]
        return Result(states, self.values, self.encoded)

    def _work(self) -> None:
        """Take turns until nobody has anything to do."""
        pick = self.random.choice
        turns: list[Callable[[], bool]] = []
        for engine, services in zip(self.engines, self.services, strict=True):
            turns.append(lambda engine=engine, services=services: _step(engine, services))  # type: ignore[misc]
            turns += [
                lambda engine=engine, outbox=outbox: self._deliver(engine, outbox)  # type: ignore[misc]
                for outbox in engine.outboxes.values()
            ]
        while True:
            for _ in range(len(turns)):
                pick(turns)()
            worked = [turn() for turn in turns]
            if not any(worked):
                return

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
