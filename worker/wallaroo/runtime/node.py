"""A worker without its transport: carries out what its state machine says.

It ties the dataflow, the state and the connectors to the protocol. What differs between a process
and a simulation (connections, threads, time, the disk) is handed in as a `Host`.
"""

from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from xxhash import xxh3_64_hexdigest

from wallaroo.api.connectors import SinkConfig, SinkWriter, SourceReader
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
from wallaroo.protocol.manifest import Staging as StagingMark
from wallaroo.protocol.member import (
    Abandon,
    ClientsGone,
    Donate,
    Durable,
    End,
    Event,
    GetReady,
    GiveUp,
    GiveUpAttempt,
    GoBack,
    IsEnlisted,
    LetGo,
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
from wallaroo.protocol.messages import Enlist, FromWorker, Recover, Register, ToWorker
from wallaroo.runtime.attempt import Attempt, Bases, Incoming, Outgoing, owned, remote
from wallaroo.runtime.identity import identify, keep
from wallaroo.state.base import Base
from wallaroo.state.codec import Codec, CodecError
from wallaroo.state.entries import StateDamaged, StateRefused
from wallaroo.state.settlement import Tenure
from wallaroo.state.staging import Staging
from wallaroo.state.store import Store
from wallaroo.state.throttle import Throttle

T = TypeVar("T")

_DEAD_LETTERS = "dead letters, "
_OVER = "entries to be written to disk: there are far more than --state-cache allows"

#: Seconds of each slice that the base may take while there are events: a fifth. Encoding takes
#: half: what is touched again before it is encoded costs more.
_UPKEEP = SLICE / 4
#: How long it rests after each second, so that others have the processor.
_REST = 4.0

#: Seconds of each slice that copying for a rescale may take.
_COPYING = SLICE / 4
#: Multiples of it, less the whole part, are spread evenly, however many there are.
_GOLDEN = (5**0.5 - 1) / 2
#: Seconds before it is looked again whether the limit of its rate allows more.
_LIMITED = 0.01


class Task(Protocol):
    """A coroutine that runs."""

    def cancel(self) -> object:
        """End it."""


class Host(Protocol):
    """What a worker runs on."""

    def tell(self, message: FromWorker) -> None:
        """Say something to the coordinator; lost if the connection is."""

    def wake(self, after: float = 0.0) -> None:
        """Call `Node.run` soon, or after so many seconds."""

    def submit(
        self, work: Callable[[], T], done: Callable[[T], None], failed: Callable[[Exception], None]
    ) -> None:
        """Do blocking `work` in the background, then call `done` or `failed` here."""

    def rest(self, seconds: float) -> None:
        """Let so much time pass: asked for by work in the background."""

    def spawn(self, task: Coroutine[Any, Any, None]) -> Task:
        """Run a coroutine here."""

    def open_streams(
        self,
        generation: int,
        attempt: int,
        outgoing: Sequence[Outgoing],
        incoming: Mapping[tuple[int, int], Incoming],
        addresses: Mapping[int, str],
        opened: Callable[[], None],
    ) -> None:
        """Open streams to other workers, and let them open theirs; then call `opened`.

        attempt: to rescale, that they belong to; 0 for those of the generation, which replace all
        that there are. incoming: by channel and sender.
        """

    def close_streams(self, attempt: int | None = None) -> None:
        """Drop them, with what is on its way; all, or those of an attempt."""

    def drop_streams(self, workers: Collection[int]) -> None:
        """Let go of the streams to and from workers that need them no more."""

    def wake_sender(self, outbox: Outgoing) -> None:
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
    everywhere: sources that listen do so on all workers, not only on worker 0.
    strange: the folder may be another's, as long as nobody has said that it is this worker's.
    """

    worker: int
    folder: Path
    cache: int | None = None
    dead_letters: FileSinkConfig[str] | None = None
    everywhere: bool = False
    strange: bool = False


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


def _without_pending(known: dict[str, Any] | None) -> dict[str, Any] | None:
    """What a checkpoint knows of a sink whose output of the last epoch may be lost."""
    mark = known and known["mark"]
    return {**known, "mark": {**mark, "lost": True}} if known and mark else known


def sink_folder(identity: str) -> str:
    """The name of the folder of the sink that a checkpoint knows by `identity`."""
    return f"sink-{xxh3_64_hexdigest(identity.encode())}"


class Node:
    """Worker `settings.worker` of an application.

    disk: where its folder is. bases: the databases in that folder.
    new_id: the identity that its folder gets if it has none.
    Raises `InputError` if the folder can't be used.
    """

    def __init__(
        self,
        graph: Graph,
        settings: Settings,
        host: Host,
        disk: Disk,
        bases: Bases,
        codec: Codec,
        clock: Callable[[], float],
        new_id: str,
    ) -> None:
        self.graph = graph
        self.host = host
        self.settings = settings
        self.member = Member(settings.worker)
        self.engine: Engine | None = None
        self._disk = disk
        self._codec = codec
        self._clock = clock
        folder = settings.folder
        name = graph.application.name
        self._identity = identify(
            disk, folder, name, settings.worker, new_id, strange=settings.strange
        )
        self._bases = bases
        self._store: Store | None = None
        self._running = False
        self._told_ended = False
        #: The barrier that all stages have passed, while its epoch is not durable.
        self._passed = 0
        self._written: DeltaMark | None = None
        self._held = 0
        #: Background work that must be over before the past is made the present.
        self._jobs = 0
        #: When the state may be looked after again.
        self._upkeep = 0.0
        self._throttle = Throttle(host.rest)
        self._going_back: Recover | None = None
        self._getting_ready: Enlist | None = None
        #: Readers that outlive a recovery.
        self._lasting: dict[tuple[str, str], SourceReader] = {}
        #: All readers there ever were to which clients connect; of those that are closed, what
        #: they had lost still counts.
        self._listening: list[SourceReader] = []
        #: Clients are being let go of: what had been lost before, and whether all are gone.
        self._lost_before = 0
        self._clients_gone = True
        #: What dataflows have done that are abandoned; where the last of them stood.
        self._done = Counters()
        self._stood = Counters()
        #: Marks of dead letters that are not written any more, for when they are again.
        self._left: tuple[dict[str, Any], ...] = ()
        self._services: list[_Services] = []
        self._identities: list[str] = []
        #: The attempt to rescale that is under way; the staging that its store still reads.
        self._attempt: Attempt | None = None
        self._staged: Staging | None = None
        #: The epoch at whose end this worker became a member.
        self._joined = 0
        #: It is a member by the assignment in force, as far as it knows.
        self._serves = False
        #: Stagings that nobody will read, to be removed when no work in the background is left.
        self._discarded: list[Staging] = []

    @property
    def store(self) -> Store | None:
        """The worker's state, once it has been opened."""
        return self._store

    @property
    def progress(self) -> Counters:
        """What has been done since this process began, also what had to be done again."""
        return self._done + self.engine.progress if self.engine else self._done

    @property
    def counters(self) -> Counters:
        """Where the dataflow stands, or stood when there was one."""
        return self.engine.counters if self.engine else self._stood

    @property
    def connections(self) -> int:
        """Clients that are connected to sources here."""
        return sum(reader.connections for reader in self._listening)

    @property
    def unread(self) -> int:
        """Bytes that they have sent and that wait to be read, as far as is known."""
        return sum(reader.unread for reader in self._listening)

    @property
    def lost(self) -> int:
        """Bytes that they had sent unread when they were cut off, since this process began."""
        return sum(reader.lost for reader in self._listening)

    @property
    def serves(self) -> bool:
        """Whether it is a member, as far as it knows, and clients may come to it.

        They may to one that is to leave, until it lets go of them: nothing may come of that.
        """
        attempt = self._attempt
        leaves = attempt is not None and attempt.leaves and bool(attempt.switch)
        return self._serves and not leaves and not self.member.draining

    @property
    def processing(self) -> bool:
        """Whether it processes events, or would if there were any."""
        return self._running and self._serves

    def registration(self, address: str, fingerprint: str) -> Register:
        """What to say first to a coordinator."""
        return Register(address, fingerprint, self._identity.id, self._identity.admitted)

    def take(self, message: ToWorker) -> None:
        """The coordinator says something."""
        self._handle(Told(message))

    def stream_broke(self, generation: int, attempt: int, peer: int) -> None:
        """A stream to or from `peer` broke, of a generation, or of an attempt in it."""
        if self._attempt is None and not (self.engine and self._owns_something):
            return  # who has handed all over needs none any more
        self._handle(StreamBroke(generation, peer, attempt))

    def cannot_send(self, outbox: Outbox, error: CodecError) -> None:
        """An outbox has an event that can't be encoded."""
        assert self.engine
        self._fail(self.engine.unencodable(outbox, error))

    def run(self) -> bool:
        """Process for about a slice; whether there is more to do at once."""
        engine, store = self.engine, self._store
        if self._going_back:
            self._maybe_go_back()
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
            more |= self._keep_up(store)
            more |= over and not store.over  # sources may be read again
            more |= self._copy()
        except (DataflowError, InputError, StateRefused, StateDamaged) as error:
            self._fail(error)
            return False
        self._maybe_write()
        self._maybe_job()
        self._maybe_enlisted()
        if engine.sources_ended and not self._told_ended and self._owns_something:
            self._told_ended = True
            self._handle(SourcesEnded(self.member.generation))
        return more

    def _keep_up(self, store: Store) -> bool:
        """Do what the state needs; whether there is more to be done at once.

        To encode has no time: what is touched again before it is encoded costs more. The rest may
        take a fifth of the time, of a slice and on the whole, unless memory runs short.
        """
        began = self._clock()
        if not store.encoded or store.pressed:
            return store.work(began + (_UPKEEP if store.encoded else SLICE))
        if began < self._upkeep:
            self.host.wake(self._upkeep - began)
            return False
        if store.work(began + _UPKEEP):
            now = self._clock()
            self._upkeep = now + (1.0 if store.hastened else _REST) * (now - began)
            self.host.wake(self._upkeep - now)
        return False

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
                case PutBarrier(epoch, final, switch):
                    self._inject(Barrier(epoch, final, switch))
                case GetReady(enlist, joins):
                    self._get_ready(enlist, joins=joins)
                case Donate():
                    self._donate()
                case LetGo(attempt, grace, patience):
                    self._let_go(attempt, grace, patience)
                case GiveUpAttempt():
                    self._give_up_attempt()
                case Publish(epoch, switched):
                    self._publish(epoch)
                    if switched:
                        self._has_switched()
                case End():
                    self._close_lasting()
                    self.host.end()
                case GiveUp(message):
                    self._close_lasting()
                    self.host.fail(Failure(message))

    def _abandon(self) -> None:
        self._running = False
        self._throttle.hurried = True  # what is under way is waited for
        self._going_back = None
        self._getting_ready = None
        self._forget_attempt()
        if self.engine:
            self._done += self.engine.progress
            self._stood = self.engine.counters
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
            if self._getting_ready and not self._jobs:
                self._maybe_join()
            return
        closing = any(reader.closing for reader in self._listening)  # its port is needed again
        why = "work in the background that must be over first" if self._jobs or closing else ""
        self.host.waiting("recovery", why)
        if why:
            return
        self._going_back = None
        self._throttle.hurried = False
        try:
            self._go_back(to)
        except (InputError, DataflowError, StateDamaged, OSError) as error:
            self._fail(error)

    def _go_back(self, to: Recover) -> None:
        generation = to.generation
        part = to.part or Part(self._identity.id)
        self._serves = self.settings.worker in to.assignment.workers
        if not self._serves:
            self._open_sinks(part, to.epoch, len(to.assignment.workers))
            self._abandon()  # what was committed is published now: nothing is left here
            self._close_lasting()
            self._handle(SinksPublished(generation, to.epoch))
            return
        if part.joined > to.epoch:
            self._start_anew()  # its state is lost, and whoever may decide that has done so
            part = replace(part, sinks=tuple(map(_without_pending, part.sinks)))
        self._admit()
        tenure = Tenure(
            to.assignment.version,
            owned(to.assignment, self.settings.worker),
            to.switched,
            part.joined,
        )
        self._joined = part.joined
        store = self._open_store()
        self._take_up_staging(store, part.staging, tenure)
        store.recover(to.epoch, part.deltas, tenure, self._staged)
        self._remove_stagings(keep=self._staged)
        engine = self._make_engine(
            store, to.assignment, to.epoch, generation, to.places, to.partitions, part
        )
        self._open_sources(engine, to.assignment)
        self.host.open_streams(
            generation,
            0,
            list(engine.outboxes.values()),
            remote(engine.inboxes),
            to.addresses,
            lambda: self._handle(Recovered(generation)),
        )

    def _admit(self) -> None:
        if not self._identity.admitted:
            self._identity = replace(self._identity, admitted=True)
            keep(self._disk, self.settings.folder, self._identity)

    def _open_store(self) -> Store:
        if self._store is None:
            folder = self.settings.folder
            self._disk.make_folder(folder / "base")
            self._store = Store(
                self._disk,
                folder / "deltas",
                self._codec,
                self._bases.open(folder / "base"),
                self._clock,
                self.settings.cache,
                throttle=self._throttle,
                turn=self.settings.worker * _GOLDEN % 1.0,
            )
        return self._store

    def _open_sinks(self, part: Part, epoch: int, workers: int) -> list[SinkWriter]:
        configs = list(self.graph.sinks)
        if self.settings.dead_letters:
            configs.append(self.settings.dead_letters)
        self._identities, marks = self._marks(configs, part, epoch, workers)
        return [
            config.open(self._sink_services(identity, workers), mark)
            for config, identity, mark in zip(configs, self._identities, marks, strict=True)
        ]

    def _make_engine(
        self,
        store: Store,
        assignment: Assignment,
        epoch: int,
        generation: int,
        places: Mapping[str, int],
        partitions: Mapping[str, Mapping[str, int]],
        part: Part,
        workers: int = 0,
    ) -> Engine:
        """The dataflow, which goes on from `epoch`; workers: if not those of the assignment."""
        self._passed, self._written, self._held = 0, None, epoch
        self._told_ended = False
        writers = self._open_sinks(part, epoch, workers or len(assignment.workers))
        self._partitions = partitions
        self.engine = Engine(
            self.graph,
            self.settings.worker,
            assignment,
            self._codec,
            store,
            places,
            partitions,
            writers[: len(self.graph.sinks)],
            wake=self.host.wake_sender,
            passed=self._has_passed,
            held=lambda epoch: self._has_held(generation, epoch),
            clock=self._clock,
            epoch=epoch,
            counters=Counters(*part.counts),
            dead_letters=writers[-1] if self.settings.dead_letters else None,
            gained=self._open_gained,
            listens=self.settings.everywhere or self.settings.worker == 0,
        )
        return self.engine

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

    def _open_gained(self, source: str) -> None:
        """Read what this worker has gained of a source."""
        assert self.engine
        assert self._attempt
        to = self._attempt.to
        self._open_sources(self.engine, to.new, source, already=to.old)

    def _open_sources(
        self,
        engine: Engine,
        assignment: Assignment,
        only: str | None = None,
        already: Assignment | None = None,
    ) -> None:
        """Read the partitions that an assignment gives this worker.

        only: of this source. already: but not those that this one had given it.
        """
        for index, source in enumerate(self.graph.sources):
            config = source.config
            for name in sorted(self._partitions[source.name]):
                if only not in (None, source.name) or not engine.reads(
                    source.name, name, assignment
                ):
                    continue
                if already and engine.reads(source.name, name, already):
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
                    if config.listens:
                        self._listening.append(reader)
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
        if not self._clients_gone and barrier.switch:
            self._are_gone()  # cut off: there was no time to read what they had sent

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
        attempt = self._attempt
        switches = attempt is not None and attempt.switch == written.epoch
        if attempt and switches and attempt.staging and not attempt.staging.durable:
            return  # ruling 21
        self._written = None
        cut = self.engine.cut
        staging = self._store.staging
        part = Part(
            self._identity.id,
            self._store.deltas,
            self._named_marks(self.engine.marks),
            self.engine.ended_partitions,
            (cut.read, cut.received, cut.written, cut.dead),
            self._joined,
            staging.mark if staging else None,
        )
        held = self.engine.held_back if switches else 0.0
        self._handle(Durable(self.member.generation, written.epoch, part, held))

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
            self.submit(job, self._job_done, self._fail)

    def _job_done(self, result: Any) -> None:
        store = self._store
        assert store
        store.job_done(result)
        if self._staged and store.staging is None:  # the base has it
            self._discarded.append(self._staged)
            self._staged = None

    # Rescales

    @property
    def _owns_something(self) -> bool:
        assert self.engine
        return self.settings.worker in self.engine.assignment.workers

    def _get_ready(self, to: Enlist, *, joins: bool) -> None:
        """Take part in an attempt: open streams to all others."""
        self._forget_attempt()
        if joins:
            self._getting_ready = to
            self._maybe_go_back()
        else:
            self._attempt = Attempt(to, self.settings.worker, joins=False)
            self.host.wake()

    def _maybe_join(self) -> None:
        """Begin from nothing: what an earlier membership has left is of no use any more."""
        to, self._getting_ready = self._getting_ready, None
        assert to
        try:
            self._start_anew()
            self._admit()
            store = self._open_store()
            tenure = Tenure(to.old.version, (), 0, to.epoch + 1)
            store.recover(to.epoch, (), tenure)
            part = Part(self._identity.id, sinks=to.sinks)
            self._make_engine(
                store,
                to.old,
                to.epoch,
                to.generation,
                to.places,
                to.partitions,
                part,
                max(to.new.workers) + 1,
            )
        except (InputError, DataflowError, StateDamaged, OSError) as error:
            self._fail(error)
            return
        self._attempt = Attempt(to, self.settings.worker, joins=True)
        self._running = True
        self.host.wake()

    def _start_anew(self) -> None:
        """Remove what this folder holds of an earlier membership, or of another worker."""
        self._stood = Counters()
        if self._store:
            self._store.close()
            self._store = None
        if self._staged:
            self._staged.close()
            self._staged = None
        name, worker = self.graph.application.name, self.settings.worker
        folder = self.settings.folder
        mine = replace(self._identity, application=name, worker=worker)
        if mine != self._identity:
            self._identity = mine
            keep(self._disk, folder, mine)
        self._bases.remove(folder / "base")
        self._remove_stagings(None)
        for name in self._disk.names(folder / "deltas"):
            self._disk.remove(folder / "deltas" / name)
        for name in self._disk.names(folder):
            if name.startswith("sink-"):
                for file in self._disk.names(folder / name):
                    self._disk.remove(folder / name / file)

    def _maybe_enlisted(self) -> None:
        """Open what an attempt needs once the last rescale is settled here."""
        attempt, engine, store = self._attempt, self.engine, self._store
        if attempt is None or attempt.opening or not engine or not store:
            return
        waits = not store.settled
        if waits and not store.hastened:
            self.host.wake()  # it may be a reason to settle now
        store.hastened = waits
        if waits:
            return
        attempt.opening = True
        mark = attempt.mark
        if mark is None:
            self._enlisted(attempt, None)
            return
        # Not here: events go on meanwhile.
        folder = self._staging_folder(mark)
        self.submit(
            lambda: self._bases.open(folder, brief=True),
            lambda base: self._enlisted(attempt, base),
            self._fail,
        )

    def _enlisted(self, attempt: Attempt, base: Base | None) -> None:
        """Open the streams of an attempt, unless it has been given up."""
        engine, store = self.engine, self._store
        if attempt is not self._attempt or not engine or not store:
            if base and attempt.mark:
                self._discarded.append(Staging(attempt.mark, base))
            return
        outgoing, incoming = attempt.open(
            engine,
            store,
            base,
            self._clock,
            self.host.wake_sender,
            self._has_come,
            self._throttle.awaited,
        )
        to = attempt.to
        listens = attempt.leaves and any(not reader.ended for reader in self._listening)
        event = IsEnlisted(to.generation, to.attempt, listens)
        self.host.open_streams(
            to.generation, to.attempt, outgoing, incoming, to.addresses, lambda: self._handle(event)
        )

    def _staging_folder(self, mark: StagingMark) -> Path:
        return self.settings.folder / f"staging-{mark.id}"

    def _donate(self) -> None:
        attempt = self._attempt
        if attempt and attempt.donor:
            attempt.donor.allowed = True
        self.host.wake()

    def _let_go(self, number: int, grace: float, patience: float) -> None:
        """Let go of the clients that are connected here, as this worker leaves."""
        readers = list(self._lasting.values())
        left = len(readers)
        self._lost_before = self.lost
        self._clients_gone = False

        def done() -> None:
            nonlocal left
            left -= 1
            attempt = self._attempt
            if not left and attempt and attempt.to.attempt == number and not self._clients_gone:
                self._are_gone()

        for reader in readers:
            reader.let_go(grace, patience, done)
        if not readers:
            self._are_gone()

    def _are_gone(self) -> None:
        attempt = self._attempt
        assert attempt
        self._clients_gone = True
        to = attempt.to
        lost = self.lost - self._lost_before
        self._handle(ClientsGone(to.generation, to.attempt, lost))

    def _take_back(self, attempt: Attempt) -> None:
        """An attempt has come to nothing: who was to leave goes on to listen, who came does not."""
        self._clients_gone = True
        if attempt.joins:
            self._close_lasting()
            return
        for reader in self._lasting.values():
            try:
                reader.take_back()
            except InputError as error:
                self._fail(error)

    def _close_lasting(self) -> None:
        """Read nothing any more."""
        for reader in self._lasting.values():
            reader.close()
        self._lasting.clear()

    def _copy(self) -> bool:
        """What is to be done for a rescale now; whether there may be more at once."""
        attempt = self._attempt
        if attempt is None:
            return False
        more = False
        if attempt.donor:
            more = attempt.donor.work(self._clock() + _COPYING)
            if wait := attempt.donor.wait:
                self.host.wake(max(wait, _LIMITED))
        work = attempt.take_job()
        if work is not None:
            job, done = work

            def then(result: Any) -> None:
                done(result)
                if self._attempt is attempt:
                    self._maybe_durable()

            self.submit(job, then, self._fail)
        return more

    def _has_come(self, donor: int, data: bytes) -> None:
        """A parcel of a donor has come."""
        attempt = self._attempt
        if attempt is None or self.engine is None:
            return
        try:
            said = attempt.take(donor, data, self.engine)
        except (StateDamaged, DataflowError, InputError) as error:
            self._fail(error)
            return
        if said is not None:
            self._handle(said)
        self.host.wake()

    def _inject(self, barrier: Barrier) -> None:
        engine, store, attempt = self.engine, self._store, self._attempt
        assert engine
        if barrier.switch:
            assert attempt
            assert store
            attempt.inject(barrier.epoch, engine, store)
            self._staged = attempt.staging
            if attempt.joins:
                self._joined = barrier.epoch
            # A fault behind this barrier is a crash for what is read elsewhere from there on.
            for source, partition in list(self._lasting):
                if not engine.reads(source, partition, attempt.to.new):
                    del self._lasting[source, partition]
        engine.inject(barrier)
        self.host.wake()

    def _has_switched(self) -> None:
        """The switch is committed."""
        attempt, engine, store = self._attempt, self.engine, self._store
        assert attempt
        assert engine
        assert store
        self._attempt = None
        self._serves = not attempt.leaves
        attempt.close()
        engine.switch_done()
        if attempt.leaves:
            return  # its last words are that its sinks have published
        store.switched(attempt.tenure(self._joined))
        engine.dismiss(attempt.leavers)
        self.host.drop_streams(attempt.leavers)
        self._told_ended = False

    def _give_up_attempt(self) -> None:
        """Nothing comes of it: what is in force stays."""
        attempt = self._attempt
        self._forget_attempt()
        if attempt and attempt.ready and self.engine:
            self.engine.give_up_switch(attempt.joiners)
            self.host.close_streams(attempt.to.attempt)

    def _forget_attempt(self) -> None:
        attempt, self._attempt = self._attempt, None
        if attempt is None:
            return
        attempt.close()
        if self._store:
            self._store.hastened = False
        self._take_back(attempt)
        if attempt.staging and attempt.staging is not self._staged:
            self._discarded.append(attempt.staging)
            self._drop_discarded()

    def _drop_discarded(self) -> None:
        """Remove what nobody will read, unless it may still be written."""
        if self._discarded and not self._jobs:
            discarded, self._discarded = self._discarded, []

            def remove() -> None:
                for staging in discarded:
                    staging.close()
                    self._bases.remove(self._staging_folder(staging.mark))

            self.submit(remove, lambda _: None, self._fail)

    def _take_up_staging(self, store: Store, mark: StagingMark | None, tenure: Tenure) -> None:
        """Go on with the staging that the manifest names, and no other."""
        if self._staged and (mark is None or self._staged.mark != mark):
            self._staged.close()
            self._staged = None
        if mark and not self._staged and not store.has_settled(tenure.version):
            base = self._bases.open(self._staging_folder(mark), brief=True)
            self._staged = Staging(mark, base)

    def _remove_stagings(self, keep: Staging | None) -> None:
        """Remove those of attempts that came to nothing, or are part of the base."""
        folder = self.settings.folder
        kept = self._staging_folder(keep.mark).name if keep else ""
        for name in self._bases.names(folder):
            if name.startswith("staging-") and name != kept:
                self._bases.remove(folder / name)

    def submit(
        self, work: Callable[[], T], done: Callable[[T], None], failed: Callable[[Exception], None]
    ) -> None:
        """Do work in the background that must be over before this worker recovers."""

        def over(call: Callable[[Any], None]) -> Callable[[Any], None]:
            def then(result: Any) -> None:
                self._jobs -= 1
                call(result)
                self.host.wake()
                self._drop_discarded()
                self._maybe_go_back()

            return then

        self._jobs += 1
        self.host.submit(work, over(done), over(failed))

    def _fail(self, error: Exception) -> None:
        """Stop the application in words; raises `error` itself if it is a mistake of ours."""
        self._running = False  # what comes behind an event that failed must not go on without it
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
