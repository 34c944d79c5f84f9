"""A worker without its transport: carries out what its state machine says.

It ties the dataflow, the state and the connectors to the protocol. What differs between a process
and a simulation (connections, threads, time, the disk) is handed in as a `Host`.
"""

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from xxhash import xxh3_64_hexdigest

from wallaroo.api.connectors import SinkConfig, SourceReader
from wallaroo.connectors.file_sink import FileSinkConfig
from wallaroo.dataflow.barrier import Barrier
from wallaroo.dataflow.engine import SLICE, Counters, Engine
from wallaroo.dataflow.exchange import Outbox
from wallaroo.dataflow.failures import refused
from wallaroo.dataflow.graph import Graph
from wallaroo.disk import Disk
from wallaroo.errors import DataflowError, Failure, InputError, to_be_mended
from wallaroo.partitioning import Assignment
from wallaroo.protocol.manifest import DeltaMark, Part
from wallaroo.protocol.member import (
    Abandon,
    Durable,
    End,
    Event,
    GiveUp,
    GoBack,
    Member,
    Publish,
    PutBarrier,
    Recovered,
    Run,
    Say,
    SinksPublished,
    SourcesEnded,
    StreamBroke,
    Told,
)
from wallaroo.protocol.messages import FromWorker, Recover, Register, ToWorker
from wallaroo.runtime.identity import identify, keep
from wallaroo.state.base import Base
from wallaroo.state.codec import Codec
from wallaroo.state.entries import StateDamaged, StateRefused
from wallaroo.state.store import Store

T = TypeVar("T")

_DEAD_LETTERS = "dead letters, "
_OVER = "entries to be written to disk: there are far more than --state-cache allows"

#: Seconds of each slice that the base may take while there are events: a fifth. Encoding takes
#: half: what is touched again before it is encoded costs more.
_UPKEEP = SLICE / 4


class Task(Protocol):
    """A coroutine that runs."""

    def cancel(self) -> object:
        """End it."""


class Host(Protocol):
    """What a worker runs on."""

    def tell(self, message: FromWorker) -> None:
        """Say something to the coordinator; lost if the connection is."""

    def wake(self) -> None:
        """Call `Node.run` soon."""

    def submit(
        self, work: Callable[[], T], done: Callable[[T], None], failed: Callable[[Exception], None]
    ) -> None:
        """Do blocking `work` in the background, then call `done` or `failed` here."""

    def spawn(self, task: Coroutine[Any, Any, None]) -> Task:
        """Run a coroutine here."""

    def open_streams(
        self,
        generation: int,
        engine: Engine,
        addresses: Mapping[int, str],
        opened: Callable[[], None],
    ) -> None:
        """Connect the engine's outboxes and inboxes to the other workers'; then call `opened`."""

    def close_streams(self) -> None:
        """Drop them, with what is on its way."""

    def wake_sender(self, outbox: Outbox) -> None:
        """An outbox has something to send."""

    def fail(self, failure: Failure) -> None:
        """Stop the application."""

    def end(self) -> None:
        """The application has ended."""

    def waiting(self, what: str, why: str) -> None:
        """Tell the user what `what` waits for; an empty `why` when it no longer waits."""


@dataclass(frozen=True)
class Settings:
    """What a worker is started with.

    cache: entries that may be kept in memory; None for all.
    dead_letters: where to write events for which a user's function raises; None to stop instead.
    """

    worker: int
    folder: Path
    cache: int | None = None
    dead_letters: FileSinkConfig[str] | None = None


@dataclass(eq=False)
class _Services:
    """What one connector gets; nothing more once it is closed.

    tracked: whether a recovery waits for its work in the background.
    """

    node: "Node"
    worker: int
    workers: int
    disk: Disk
    folder: Path
    tracked: bool
    _tasks: list[Task] = field(default_factory=list)
    _closed: bool = False

    def wake(self) -> None:
        self.node.host.wake()

    def submit(
        self, work: Callable[[], T], done: Callable[[T], None], failed: Callable[[Exception], None]
    ) -> None:
        def then(call: Callable[[Any], None]) -> Callable[[Any], None]:
            return lambda result: None if self._closed else call(result)

        if self.tracked:
            self.node.submit(work, then(done), then(failed))
        else:
            self.node.host.submit(work, then(done), then(failed))

    def spawn(self, task: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(self.node.host.spawn(task))

    def fail(self, failure: Failure) -> None:
        if not self._closed:
            self.node.host.fail(failure)

    def waiting(self, what: str, why: str) -> None:
        self.node.host.waiting(what, why)

    def close(self) -> None:
        self._closed = True
        for task in self._tasks:
            task.cancel()


def sink_folder(identity: str) -> str:
    """The name of the folder of the sink that a checkpoint knows by `identity`."""
    return f"sink-{xxh3_64_hexdigest(identity.encode())}"


class Node:
    """Worker `settings.worker` of an application.

    disk: where its folder is. base: the state's last tier, in that folder.
    new_id: the identity that its folder gets if it has none.
    Raises `InputError` if the folder can't be used.
    """

    def __init__(
        self,
        graph: Graph,
        settings: Settings,
        host: Host,
        disk: Disk,
        base: Callable[[Path], Base],
        codec: Codec,
        clock: Callable[[], float],
        new_id: str,
    ) -> None:
        self.graph = graph
        self.host = host
        self.settings = settings
        self.member = Member()
        self.engine: Engine | None = None
        self._disk = disk
        self._codec = codec
        self._clock = clock
        folder = settings.folder
        self._identity = identify(disk, folder, graph.application.name, settings.worker, new_id)
        self._base = base
        self._store: Store | None = None
        self._running = False
        self._told_ended = False
        #: The barrier that all stages have passed, while its epoch is not durable.
        self._passed = 0
        self._written: DeltaMark | None = None
        self._held = 0
        #: Background work that must be over before the past is made the present.
        self._jobs = 0
        self._going_back: Recover | None = None
        #: Readers that outlive a recovery.
        self._lasting: dict[tuple[str, str], SourceReader] = {}
        #: Marks of dead letters that are not written any more, for when they are again.
        self._left: tuple[dict[str, Any], ...] = ()
        self._services: list[_Services] = []
        self._identities: list[str] = []

    @property
    def store(self) -> Store | None:
        """The worker's state, once it has been opened."""
        return self._store

    def registration(self, address: str, fingerprint: str) -> Register:
        """What to say first to a coordinator."""
        return Register(address, fingerprint, self._identity.id, self._identity.admitted)

    def take(self, message: ToWorker) -> None:
        """The coordinator says something."""
        self._handle(Told(message))

    def stream_broke(self, generation: int, peer: int) -> None:
        """A stream of a generation to or from `peer` broke."""
        self._handle(StreamBroke(generation, peer))

    def run(self) -> bool:
        """Process for about a slice; whether there is more to do at once."""
        engine, store = self.engine, self._store
        if engine is None or store is None or not self._running:
            return False
        clock = self._clock
        more = False
        try:
            until = clock() + SLICE
            while engine.step():
                if clock() > until:
                    more = True
                    break
            over = store.over
            self.host.waiting("memory", _OVER if over else "")
            more |= store.work(clock() + (_UPKEEP if store.encoded else SLICE))
            more |= over and not store.over  # sources may be read again
        except (DataflowError, StateRefused, StateDamaged) as error:
            self._fail(error)
            return False
        self._maybe_write()
        self._maybe_job()
        if engine.sources_ended and not self._told_ended:
            self._told_ended = True
            self._handle(SourcesEnded(self.member.generation))
        return more

    def close(self) -> None:
        """Let go of the state, unless something still writes it: the process is about to end."""
        if self._store and not self._jobs:
            self._store.close()

    # Effects

    def _handle(self, event: Event) -> None:
        for effect in self.member.handle(event):
            match effect:
                case Say(message):
                    self.host.tell(message)
                case Abandon():
                    self._abandon()
                case GoBack(to):
                    self._going_back = to
                    self._maybe_go_back()
                case Run():
                    self._running = True
                    self.host.wake()
                case PutBarrier(epoch, final):
                    assert self.engine
                    self.engine.inject(Barrier(epoch, final))
                    self.host.wake()
                case Publish(epoch):
                    self._publish(epoch)
                case End():
                    self.host.end()
                case GiveUp(message):
                    self.host.fail(Failure(message))

    def _abandon(self) -> None:
        self._running = False
        self._going_back = None
        if self.engine:
            self.engine.close(keep=list(self._lasting.values()))
            self.engine = None
        for services in self._services:
            services.close()
        self._services.clear()
        self.host.close_streams()

    # Back to what is committed

    def _maybe_go_back(self) -> None:
        """Begin once no work of the time before is left that could still write."""
        to = self._going_back
        if to is None:
            return
        why = "work in the background that must be over first" if self._jobs else ""
        self.host.waiting("recovery", why)
        if self._jobs:
            return
        self._going_back = None
        try:
            self._go_back(to)
        except (InputError, DataflowError, StateDamaged, OSError) as error:
            self._fail(error)

    def _go_back(self, to: Recover) -> None:
        settings, generation = self.settings, to.generation
        if not self._identity.admitted:
            self._identity = replace(self._identity, admitted=True)
            keep(self._disk, settings.folder, self._identity)
        if self._store is None:
            self._disk.make_folder(settings.folder / "base")
            self._store = Store(
                self._disk,
                settings.folder / "deltas",
                self._codec,
                self._base(settings.folder / "base"),
                self._clock,
                settings.cache,
            )
        part = to.part or Part(self._identity.id)
        self._passed, self._written, self._held = 0, None, to.epoch
        self._told_ended = False
        self._store.recover(to.epoch, part.deltas)
        workers = len(to.assignment.workers)
        configs = list(self.graph.sinks)
        if settings.dead_letters:
            configs.append(settings.dead_letters)
        self._identities, marks = self._marks(configs, part, to.epoch, workers)
        writers = [
            config.open(self._sink_services(identity, workers), mark)
            for config, identity, mark in zip(configs, self._identities, marks, strict=True)
        ]
        self.engine = engine = Engine(
            self.graph,
            settings.worker,
            to.assignment,
            self._codec,
            self._store,
            to.places,
            to.partitions,
            writers[: len(self.graph.sinks)],
            wake=self.host.wake_sender,
            passed=self._has_passed,
            held=lambda epoch: self._has_held(generation, epoch),
            clock=self._clock,
            epoch=to.epoch,
            counters=Counters(*part.counts),
            dead_letters=writers[-1] if settings.dead_letters else None,
        )
        self._open_sources(engine, to.assignment, to.partitions)
        self.host.open_streams(
            generation, engine, to.addresses, lambda: self._handle(Recovered(generation))
        )

    def _marks(
        self, configs: list[SinkConfig[Any]], part: Part, epoch: int, workers: int
    ) -> tuple[list[str], list[dict[str, Any] | None]]:
        """By sink: what a checkpoint knows it by, and what that says of it.

        Sinks may come and go between two runs, but the output that a checkpoint holds must have
        its sink. Only dead letters may be turned off: theirs is published here.
        """
        names = [config.identity for config in configs]
        if self.settings.dead_letters:
            names[-1] = _DEAD_LETTERS + names[-1]
        known = {each["sink"]: each for each in part.sinks if each}
        # Sinks of one identity are told apart by their order.
        identities = [
            f"{name} #{names[:index].count(name) + 1}" for index, name in enumerate(names)
        ]
        left = [each for name, each in known.items() if name not in identities]
        for each in left:
            if not each["sink"].startswith(_DEAD_LETTERS):
                raise InputError(
                    f"the checkpoint of epoch {epoch} holds output of the sink {each['sink']}, "
                    "which the application no longer has; put it back, or start anew with another "
                    "--dir"
                )
            if each["mark"]:
                services = self._sink_services(each["sink"], workers)
                path = each["sink"].removeprefix(f"{_DEAD_LETTERS}file ").rpartition(" #")[0]
                FileSinkConfig[str](path).open(services, each["mark"]).close()
        self._left = tuple(left)
        return identities, [known.get(name, {}).get("mark") for name in identities]

    def _named_marks(self, marks: tuple[dict[str, Any] | None, ...]) -> tuple[dict[str, Any], ...]:
        named = zip(self._identities, marks, strict=True)
        return (*({"sink": name, "mark": mark} for name, mark in named), *self._left)

    def _sink_services(self, identity: str, workers: int) -> _Services:
        return self._connector(sink_folder(identity), workers, tracked=True)

    def _open_sources(
        self,
        engine: Engine,
        assignment: Assignment,
        partitions: Mapping[str, Mapping[str, int]],
    ) -> None:
        for index, source in enumerate(self.graph.sources):
            config = source.config
            for name, point in sorted(partitions[source.name].items()):
                owner = 0 if config.listens else assignment.owner(point)
                if owner != self.settings.worker:
                    continue
                position, ended = engine.stored_position(source.name, name)
                if ended:
                    continue
                reader = self._lasting.get((source.name, name))
                if reader is None:
                    services = self._connector(
                        f"source-{index}", len(assignment.workers), tracked=False
                    )
                    reader = config.open(name, services, position)
                    if reader.lasting:
                        self._lasting[source.name, name] = reader
                        self._services.remove(services)
                engine.read_from(source.name, name, reader)

    def _connector(self, name: str, workers: int, *, tracked: bool) -> _Services:
        folder = self.settings.folder / name
        if tracked:
            self._disk.make_folder(folder)
        services = _Services(self, self.settings.worker, workers, self._disk, folder, tracked)
        self._services.append(services)
        return services

    # Epochs

    def _has_passed(self, barrier: Barrier) -> None:
        self._passed = barrier.epoch

    def _maybe_write(self) -> None:
        """Write the delta of the epoch that all stages have passed, once it is encoded."""
        store = self._store
        assert store
        if not self._passed or not store.encoded:
            return
        epoch, self._passed = self._passed, 0
        generation = self.member.generation
        delta = store.take_delta(epoch, generation)

        def wrote(mark: DeltaMark) -> None:
            store.wrote(mark)
            if generation == self.member.generation:
                self._written = mark
                self._maybe_durable()

        self.submit(delta.write, wrote, self._fail)

    def _has_held(self, generation: int, epoch: int) -> None:
        if generation == self.member.generation:
            self._held = epoch
            self._maybe_durable()

    def _maybe_durable(self) -> None:
        written = self._written
        if written is None or self._held != written.epoch or not self.engine or not self._store:
            return
        self._written = None
        cut = self.engine.cut
        part = Part(
            self._identity.id,
            self._store.deltas,
            self._named_marks(self.engine.marks),
            self.engine.ended_partitions,
            (cut.read, cut.received, cut.written, cut.dead),
        )
        self._handle(Durable(self.member.generation, written.epoch, part))

    def _publish(self, epoch: int) -> None:
        generation = self.member.generation
        assert self.engine
        assert self._store
        self._store.committed(epoch)
        self.engine.commit(epoch, lambda: self._handle(SinksPublished(generation, epoch)))
        self.host.wake()

    # Background work

    def _maybe_job(self) -> None:
        store = self._store
        assert store
        job = store.take_job()
        if job is not None:
            self.submit(job, store.job_done, self._fail)

    def submit(
        self, work: Callable[[], T], done: Callable[[T], None], failed: Callable[[Exception], None]
    ) -> None:
        """Do work in the background that must be over before this worker recovers."""

        def over(call: Callable[[Any], None]) -> Callable[[Any], None]:
            def then(result: Any) -> None:
                self._jobs -= 1
                call(result)
                self.host.wake()
                self._maybe_go_back()

            return then

        self._jobs += 1
        self.host.submit(work, over(done), over(failed))

    def _fail(self, error: Exception) -> None:
        """Stop the application in words; raises `error` itself if it is a mistake of ours."""
        match error:
            case DataflowError():
                self.host.fail(error.failure)
            case StateRefused():
                self.host.fail(refused(error))
            case StateDamaged() | InputError():
                self.host.fail(Failure(str(error)))
            case OSError():
                where = error.filename or self.settings.folder
                self.host.fail(Failure(to_be_mended(f"can't write {where}: {error.strerror}")))
            case _:
                raise error
