"""A worker without its transport: carries out what its state machine says.

It ties the dataflow, the state and the connectors to the protocol. What differs between a process
and a simulation (connections, threads, time, the disk) is handed in as a `Host`.
"""

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from wallaroo.api.connectors import SinkConfig, SourceReader
from wallaroo.dataflow.barrier import Barrier
from wallaroo.dataflow.engine import SLICE, Counters, Engine
from wallaroo.dataflow.exchange import Outbox
from wallaroo.dataflow.failures import refused
from wallaroo.dataflow.graph import Graph
from wallaroo.disk import Disk
from wallaroo.errors import DataflowError, Failure, InputError
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
    dead_letters: SinkConfig[Any] | None = None


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
        #: Readers of sources that listen, which outlive a recovery.
        self._listening: dict[tuple[str, str], SourceReader] = {}
        self._services: list[_Services] = []

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
            more |= store.work(clock() + (_UPKEEP if store.encoded else SLICE))
            more |= over and not store.over  # sources may be read again
        except DataflowError as error:
            self.host.fail(error.failure)
            return False
        except StateRefused as error:
            self.host.fail(refused(error))
            return False
        except StateDamaged as error:
            self.host.fail(Failure(str(error)))
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
            listening = {source.name for source in self.graph.sources if source.config.listens}
            self.engine.close(keep=frozenset(listening))
            self.engine = None
        for services in self._services:
            services.close()
        self._services.clear()
        self.host.close_streams()

    # Back to what is committed

    def _maybe_go_back(self) -> None:
        """Begin once no work of the time before is left that could still write."""
        to = self._going_back
        if to is None or self._jobs:
            return
        self._going_back = None
        try:
            self._go_back(to)
        except (InputError, StateDamaged) as error:
            self.host.fail(Failure(str(error)))
        except DataflowError as error:
            self.host.fail(error.failure)
        except OSError as error:
            self._disk_failed(error)

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
        marks = self._marks(part, len(configs))
        writers = [
            config.open(self._connector(f"sink-{index}", workers, tracked=True), mark)
            for index, (config, mark) in enumerate(zip(configs, marks, strict=True))
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

    def _marks(self, part: Part, sinks: int) -> tuple[dict[str, Any] | None, ...]:
        """The mark of each sink; that of the dead letters comes last, and may be new or gone."""
        lasting = len(self.graph.sinks)
        if part.sinks and len(part.sinks) not in {lasting, lasting + 1}:
            raise InputError(
                f"the checkpoint knows {len(part.sinks)} sinks, the application has {lasting}; "
                "start anew with another --dir, or put back what is missing"
            )
        return (*part.sinks, *[None] * sinks)[:sinks]

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
                reader = self._listening.get((source.name, name))
                if reader is None:
                    services = self._connector(
                        f"source-{index}", len(assignment.workers), tracked=False
                    )
                    reader = config.open(name, services, position)
                    if config.listens:
                        self._listening[source.name, name] = reader
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

        self.submit(delta.write, wrote, self._disk_failed)

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
            self.engine.marks,
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
            self.submit(job, store.job_done, self._disk_failed)

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

    def _disk_failed(self, error: Exception) -> None:
        if isinstance(error, OSError):
            where = error.filename or self.settings.folder
            why = f"can't write {where}: {error.strerror}"
            self.host.fail(
                Failure(
                    f"{why}; nothing is lost: run again when that is mended, and it goes on from "
                    "the last checkpoint"
                )
            )
        elif isinstance(error, StateDamaged | InputError):
            self.host.fail(Failure(str(error)))
        else:
            raise error
