"""A worker process: carries out what the coordinator says, and drives the dataflow.

Where it runs makes a difference to how it begins and ends: see wallaroo.runtime.local and
wallaroo.runtime.pod.

One thread runs the dataflow, in slices of a millisecond or two, and the streams that feed it, in
one event loop. The connection to the coordinator has a thread of its own, blocking work another.
"""

import asyncio
import contextlib
import gc
import math
import os
import queue
import shutil
import sys
import threading
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import grpc
import grpc.aio
import structlog

from wallaroo.connectors.file_sink import FileSinkConfig
from wallaroo.dataflow.engine import Backlog
from wallaroo.dataflow.exchange import Outbox
from wallaroo.disk import RealDisk
from wallaroo.errors import DataflowError, Failure, InputError
from wallaroo.protocol import coordinator as protocol
from wallaroo.protocol.manifest import Manifest
from wallaroo.protocol.messages import Failed, FromWorker, Halt, Published, Ready, ToWorker
from wallaroo.runtime.application import Program
from wallaroo.runtime.attempt import Incoming, Outgoing
from wallaroo.runtime.coordinator import CoordinatorService
from wallaroo.runtime.directory import keep_from_children, lock_folder
from wallaroo.runtime.exchange import OPTIONS, Lost, Pace, Receiver, Sender
from wallaroo.runtime.manifests import Manifests
from wallaroo.runtime.messages import from_worker_message, to_worker
from wallaroo.runtime.metrics import Metrics, Sample, serve
from wallaroo.runtime.network import CONTROL_OPTIONS, Network
from wallaroo.runtime.node import Node, Settings
from wallaroo.runtime.options import HEARTBEAT, Options
from wallaroo.state.allowlist import AllowList
from wallaroo.state.base import Base, RocksBase
from wallaroo.state.codec import Codec, CodecError
from wallaroo.state.native import AVAILABLE
from wallaroo.v1 import control_pb2 as pb
from wallaroo.v1 import control_pb2_grpc

T = TypeVar("T")

#: What the databases' own threads are niced to: they compact in bursts of CPU time.
_NICE = 10
#: Seconds between full collections of garbage, at least, and of quiet before one.
_COLLECT, _IDLE = 60.0, 1.0
#: Blocks of memory by which it may grow beyond twice what it was, before one.
_GROWTH = 1_000_000
#: Seconds between reports to the coordinator.
_REPORT = 0.25
#: Turns of the event loop between two slices of the dataflow.
_TURNS = 4

_log = structlog.get_logger("wallaroo.worker")


def tune_interpreter() -> None:
    """Set this process up for a worker, before the application is loaded."""
    # Most objects here are state that lives long; to look for cycles among young ones as often as
    # by default costs a twentieth. The application's own setting, if any, comes later and wins.
    gc.set_threshold(10_000, 10, 10)
    sys.setswitchinterval(0.0005)


class Worker(ABC):
    """Worker `worker`, with its state in `folder`."""

    def __init__(
        self, program: Program, worker: int, options: Options, folder: Path, network: Network
    ) -> None:
        self.program = program
        self.worker = worker
        self._options = options
        self._folder = folder
        self._network = network
        # One for each source and sink: one that blocks holds up no other. The rest for the state.
        connectors = [*program.graph.sources, *program.graph.sinks]
        self._threads = ThreadPoolExecutor(len(connectors) + 4, "background")
        self._control: Control | None = None
        self._service: CoordinatorService | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._streams: list[_Streams] = []
        self.pace = Pace()
        #: When it will be woken, if it will.
        self._alarm = math.inf
        self._waiting: dict[str, str] = {}
        self._failure: Failure | None = None
        self._finishing = False
        self._attempts = 0
        self._garbage = _Garbage()
        self.metrics = Metrics({"application": program.name, "worker": str(worker)}, self._folder)

    @abstractmethod
    async def run(self) -> int:
        """Work; returns the exit code. Raises `InputError`."""

    async def _start(self) -> None:
        """Begin to work. Raises `InputError`."""
        self._loop = asyncio.get_running_loop()
        self._work = asyncio.Event()
        self._done = asyncio.Event()
        # Its predecessor may still be ending.
        self._lock = await asyncio.to_thread(lock_folder, self._folder)
        keep_from_children(self._lock)
        _log.info("tables of state", written_in="C" if AVAILABLE else "Python")
        graph = self.program.graph
        dead_letters = self._options.dead_letters
        self.node = Node(
            graph,
            Settings(
                self.worker,
                self._folder,
                self._options.cache,
                FileSinkConfig(dead_letters) if dead_letters else None,
                self._options.everywhere,
                strange=self._attended and self.worker != 0,
            ),
            self,
            RealDisk(),
            _Bases(),
            Codec(AllowList([self.program.path.parent])),
            time.perf_counter,
            uuid.uuid4().hex,
        )
        if self._options.metrics is not None:
            serve(self.metrics.registry, self._options.metrics + self.worker)
        self._receiver = Receiver(self.worker, self.wake, self._lost)
        self._server = await self._receiver.serve(self._network)
        if self.worker == 0:
            self._service = self._coordinate()
            self._coordinator = self._service.serve(self._network)
        self._join()
        self.spawn(self._beat())
        self.spawn(self._drive())

    def _coordinate(self) -> CoordinatorService:
        graph = self.program.graph
        manifests = Manifests(RealDisk(), self._folder / "manifests")
        manifest = manifests.last()
        phase = protocol.Phase.FORMING
        if manifest is None:
            manifest, phase = self._beginning()
        found = {source.name: source.config.partitions() for source in graph.sources}
        try:
            manifest = manifest.for_program(graph.places, found)
        except ValueError as error:
            raise InputError(f"{error}; start anew with another --dir, or put it back") from None
        options = self._options
        machine = protocol.Coordinator(
            manifest,
            self.program.fingerprint,
            options.interval,
            grace=options.grace,
            drain_time=options.drain_time,
            phase=phase,
            attended=self._attended,
        )
        service = CoordinatorService(
            machine,
            manifests,
            self._options.patience,
            lambda failure: self._call(self.fail, failure),
        )
        service.tell(self.metrics)
        return service

    # What depends on where it runs

    #: Somebody watches the coordinator who decides what it can't: see `protocol.Coordinator`.
    _attended = False

    @abstractmethod
    def _beginning(self) -> tuple[Manifest, protocol.Phase]:
        """What the coordinator starts from where there is no manifest."""

    @abstractmethod
    def _failed(self, failure: Failure) -> None:
        """This worker can't go on, and is about to tell the coordinator."""

    def _heed(self, message: ToWorker) -> None:
        """The coordinator says something."""
        self.node.take(message)

    def _registration(self) -> pb.FromWorker:
        """What to say first to a coordinator."""
        network = self._network
        message = from_worker_message(
            self.node.registration(network.exchange, self.program.fingerprint)
        )
        message.register.worker = self.worker
        message.register.pid = os.getpid()
        return message

    # The connection to the coordinator

    def _join(self) -> None:
        """Register; again and again while there is no coordinator, as when worker 0 restarts."""
        self._control = control = Control(self._network)
        control.join(
            self._registration(),
            lambda message: self._call(self._take, (control, message)),
            lambda why: self._call(self._coordinator_lost, (control, why)),
        )

    def _take(self, said: "tuple[Control, pb.ToWorker]") -> None:
        control, message = said
        if control is self._control and not self._finishing:
            self._attempts = 0
            kind = message.WhichOneof("kind")
            if kind == "commit":
                self._garbage.freeze()
            if kind in {"recover", "halt", "resume", "finish"}:
                _log.info(kind, generation=message.generation)
            self._heed(to_worker(message))

    def _coordinator_lost(self, lost: "tuple[Control, str]") -> None:
        control, why = lost
        if control is not self._control or self._finishing:
            return
        if not self._attempts:
            _log.warning("the coordinator is gone", why=why)
        self._control = None
        control.leave()
        self.node.take(Halt())
        self._loop.call_later(pause_before(self._attempts), self._rejoin)
        self._attempts += 1

    def _rejoin(self) -> None:
        if not self._finishing and self._control is None:
            self._join()

    def tell(self, message: FromWorker) -> None:
        """Say something to the coordinator; lost if the connection is."""
        if self._control:
            if isinstance(message, Ready | Published):  # it may be the last thing that is said
                self._control.send(pb.FromWorker(report=self._counters()))
            self._control.send(from_worker_message(message))

    # What connectors and the state need

    def wake(self, after: float = 0.0) -> None:
        """Run the dataflow, now or after so many seconds."""
        if not after:
            self._work.set()
            return
        at = self._loop.time() + after
        if at < self._alarm:
            self._alarm = at
            self._loop.call_at(at, self._ring)

    def _ring(self) -> None:
        self._alarm = math.inf
        self._work.set()

    def submit(
        self, work: Callable[[], T], done: Callable[[T], None], failed: Callable[[Exception], None]
    ) -> None:
        """Do blocking `work` in the background, then call `done` or `failed` here."""
        if self._finishing:
            return

        def carry_out() -> None:
            try:
                result = work()
            except Exception as error:
                self._call(failed, error)
            else:
                self._call(done, result)

        self._threads.submit(carry_out)

    def _call(self, function: Callable[[Any], None], argument: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits for it
            self._loop.call_soon_threadsafe(self._guarded, function, argument)

    def _guarded(self, function: Callable[[Any], None], argument: Any) -> None:
        if self._finishing:
            return
        try:
            function(argument)
        except DataflowError as error:
            self.fail(error.failure)
        except InputError as error:
            self.fail(Failure(str(error)))
        except Exception as error:
            self._break(error)

    def _break(self, error: BaseException) -> None:
        """A mistake of ours: the runner says which worker ended, and where its log is."""
        _log.error("worker broken", exc_info=error)
        os._exit(1)

    def rest(self, seconds: float) -> None:
        """Let so much time pass: asked for by work in the background."""
        time.sleep(seconds)

    def spawn(self, task: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a coroutine until it is cancelled, or the worker ends."""
        running = self._loop.create_task(task)
        self._tasks.add(running)
        running.add_done_callback(self._ran)
        return running

    def _ran(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if isinstance(error, DataflowError):
            self.fail(error.failure)
        elif isinstance(error, InputError):
            self.fail(Failure(str(error)))
        elif error is not None:
            self._break(error)

    def fail(self, failure: Failure) -> None:
        """Stop the application."""
        if self._failure or self._finishing:
            return
        self._failure = failure = replace(failure, worker=self.worker)
        _log.error("stopped", reason=failure.message, step=failure.step, key=failure.key)
        with contextlib.suppress(Exception):  # user code may have closed it, or put its own there
            sys.stderr.write(failure.traceback)
        self._failed(failure)
        self.tell(Failed(failure))

    def end(self) -> None:
        """The application has ended."""
        self._done.set()

    def waiting(self, what: str, why: str) -> None:
        """Tell the user what `what` waits for."""
        if why:
            if self._waiting.get(what) != why:
                _log.warning("waiting", what=what, why=why)
            self._waiting[what] = why
        elif self._waiting.pop(what, None):
            _log.info("no longer waiting", what=what)

    # Streams

    def open_streams(
        self,
        generation: int,
        attempt: int,
        outgoing: Sequence[Outgoing],
        incoming: Mapping[tuple[int, int], Incoming],
        addresses: Mapping[int, str],
        opened: Callable[[], None],
    ) -> None:
        """Connect to the other workers, and let them connect; then call `opened`."""
        self._receiver.expect(generation, attempt, incoming)
        self._streams.append(_Streams(self, generation, attempt, outgoing, addresses, opened))

    def to_worker(self, address: str) -> grpc.aio.Channel:
        """A connection of its own to another worker's exchanges."""
        return self._network.to_worker(address, OPTIONS)

    def close_streams(self, attempt: int | None = None) -> None:
        """Drop them, with what is on its way; all, or those of an attempt."""
        self._receiver.close(attempt)
        for streams in list(self._streams):
            if attempt in (None, streams.attempt):
                streams.close()
                self._streams.remove(streams)

    def drop_streams(self, workers: Collection[int]) -> None:
        """Let go of the streams to and from workers that need them no more."""
        self._receiver.drop(workers)
        for streams in self._streams:
            streams.drop(workers)

    def wake_sender(self, outbox: Outgoing) -> None:
        """An outbox has something to send."""
        for streams in self._streams:
            streams.wake(outbox)

    def _lost(self, generation: int, error: Lost) -> None:
        if self._finishing or generation != self.node.member.generation:
            return
        if self.node.engine is not None:  # else it has been abandoned
            _log.warning("a stream broke", peer=error.worker, why=str(error))
            self.node.stream_broke(generation, error.attempt, error.worker)

    # The dataflow

    async def _drive(self) -> None:
        """Run the dataflow whenever there is something to do, in slices."""
        busy = self.metrics.busy
        while True:
            self._work.clear()
            busy.begin()
            more = self.node.run()
            busy.end()
            if more:
                # gRPC needs several turns of the loop for a frame: with one turn a slice, frames
                # would pile up in front of a barrier while this worker is busy.
                for _ in range(_TURNS):
                    await asyncio.sleep(0)
            elif not self._garbage.due:
                await self._work.wait()
            else:
                try:
                    await asyncio.wait_for(self._work.wait(), _IDLE)
                except TimeoutError:
                    self._garbage.collect()

    async def _beat(self) -> None:
        """Report, now and then."""
        while True:
            self.metrics.take(self._sample())
            await asyncio.sleep(_REPORT)
            if self._control:
                self._control.send(pb.FromWorker(report=self._counters()))

    def _sample(self) -> Sample:
        node = self.node
        return Sample(
            node.progress,
            node.engine.backlog if node.engine else Backlog(),
            node.store.keys if node.store else 0,
            node.connections,
            node.unread,
            node.lost,
        )

    def _counters(self) -> pb.Report:
        counters = self.node.counters
        store = self.node.store
        certificates = self._network.certificates
        return pb.Report(
            read=counters.read,
            received=counters.received,
            written=counters.written,
            keys=store.keys if store else 0,
            waiting=[f"{what}: {why}" for what, why in sorted(self._waiting.items())],
            dead_letters=counters.dead,
            connections=self.node.connections,
            lost=self.node.lost,
            processing=self.node.processing,
            settling=bool(store and not store.settled),
            ca=certificates.ca if certificates else "",
        )


def pause_before(attempt: int) -> float:
    """Seconds to wait before another attempt to reach the coordinator, after so many.

    >>> [pause_before(attempt) for attempt in (0, 1, 4, 5)]
    [0.05, 0.1, 0.8, 1.0]
    """
    return 0.05 * 2**attempt if attempt < 5 else 1.0  # it may be gone for days


def _step_back() -> None:
    """Let this thread, and those that it starts, run when others leave a processor free."""
    if sys.platform == "linux":  # elsewhere it would be the whole process
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)


class _Garbage:
    """Keeps collections short: a full one looks at every state object, 0.1 us each.

    What has survived an epoch is set aside, so that collections see only what is newer. Cycles
    among what was set aside are found when there is nothing else to do, and when memory has
    doubled.
    """

    def __init__(self) -> None:
        gc.collect()
        gc.freeze()
        self._collected = time.monotonic()
        self._blocks = sys.getallocatedblocks()

    def freeze(self) -> None:
        """Set aside what lives."""
        if not gc.isenabled():  # the application does as it likes
            return
        if sys.getallocatedblocks() > 2 * self._blocks + _GROWTH:
            self.collect()
        else:
            gc.collect(1)
            gc.freeze()

    @property
    def due(self) -> bool:
        """Whether the last full collection was long ago."""
        return gc.isenabled() and time.monotonic() - self._collected > _COLLECT

    def collect(self) -> None:
        """Look at everything."""
        gc.unfreeze()
        gc.collect()
        gc.freeze()
        self._collected = time.monotonic()
        self._blocks = sys.getallocatedblocks()


class _Bases:
    """Databases of this machine. They are opened by a thread that steps back: their own do, too.

    That is right for threads that never need Python's interpreter lock (see `Throttle`).
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "databases", initializer=_step_back)

    def open(self, path: Path, *, brief: bool = False) -> Base:
        return self._thread.submit(RocksBase, path, time.perf_counter, brief=brief).result()

    def remove(self, path: Path) -> None:
        if path.is_dir():
            shutil.rmtree(path)
            RealDisk().sync_folder(path.parent)

    def names(self, folder: Path) -> list[str]:
        return sorted(each.name for each in folder.iterdir() if each.is_dir())


class _Streams:
    """Streams to other workers that were opened together."""

    def __init__(
        self,
        worker: Worker,
        generation: int,
        attempt: int,
        outgoing: Sequence[Outgoing],
        addresses: Mapping[int, str],
        opened: Callable[[], None],
    ) -> None:
        self._worker = worker
        self._generation = generation
        self.attempt = attempt
        self._senders = {
            id(outbox): Sender(
                outbox,
                worker.worker,
                generation,
                attempt,
                worker.to_worker(addresses[outbox.receiver]),
                worker.pace,
                worker.wake,
            )
            for outbox in outgoing
        }
        #: By outbox, what sends it.
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._opening = worker.spawn(self._open(opened))

    def wake(self, outbox: Outgoing) -> None:
        sender = self._senders.get(id(outbox))
        if sender:
            sender.wake()

    async def _open(self, opened: Callable[[], None]) -> None:
        try:
            await asyncio.gather(*(sender.connect() for sender in self._senders.values()))
        except Lost as error:
            self._worker._lost(self._generation, error)
            return
        for key, sender in self._senders.items():
            self._tasks[key] = self._worker.spawn(self._send(sender))
        opened()

    async def _send(self, sender: Sender) -> None:
        try:
            await sender.run()
            key = id(sender.outbox)
            if self._senders.pop(key, None):
                self._tasks.pop(key)
                await sender.close()
        except CodecError as error:
            assert isinstance(sender.outbox, Outbox)
            self._worker.node.cannot_send(sender.outbox, error)
        except Lost as error:
            self._worker._lost(self._generation, error)

    def drop(self, workers: Collection[int]) -> None:
        """Cut those to some workers."""
        for key, sender in list(self._senders.items()):
            if sender.outbox.receiver in workers:
                self._cut(key)

    def close(self) -> None:
        """Cut them."""
        self._opening.cancel()
        for key in list(self._senders):
            self._cut(key)

    def _cut(self, key: int) -> None:
        task = self._tasks.pop(key, None)
        if task:
            task.cancel()
        self._worker.spawn(self._senders.pop(key).close())


class Control:
    """A session with the coordinator: a thread reads it, gRPC's own write it, one says it lives."""

    def __init__(self, network: Network) -> None:
        self._network = network
        #: The coordinator has taken this session up.
        self.connected = False
        self._channel: grpc.Channel | None = None
        self._outgoing: queue.SimpleQueue[pb.FromWorker | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._left = threading.Event()

    def join(
        self,
        register: pb.FromWorker,
        take: Callable[[pb.ToWorker], object],
        lost: Callable[[str], object],
    ) -> None:
        """Register, and call `take` with what the coordinator says until `lost` is called."""
        self.send(register)

        def requests() -> Iterator[pb.FromWorker]:
            while (message := self._outgoing.get()) is not None:
                yield message

        def read() -> None:
            why = "it closed the connection"
            try:
                self._channel = channel = self._network.to_coordinator(CONTROL_OPTIONS)
                # A file that is not there yet is waited for. Elsewhere each attempt is a new one:
                # the coordinator may have moved.
                call = control_pb2_grpc.CoordinatorStub(channel).Join(
                    requests(), wait_for_ready=self._network.local
                )
                call.initial_metadata()
                self.connected = True
                for message in call:
                    take(message)
            except grpc.RpcError as error:
                why = error.details() or why
            except (OSError, InputError) as error:
                why = str(error)
            self.connected = False
            with contextlib.suppress(RuntimeError):  # the loop is closed: the worker has ended
                lost(why)

        def beat() -> None:
            while not self._left.wait(HEARTBEAT):
                self.send(pb.FromWorker(heartbeat=pb.Heartbeat()))

        for name, target in (("coordinator", read), ("heartbeat", beat)):
            thread = threading.Thread(target=target, name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def send(self, message: pb.FromWorker) -> None:
        """Tell the coordinator; never blocks."""
        self._outgoing.put(message)

    def leave(self) -> None:
        """Close the connection once what was sent is on its way."""
        self._left.set()
        self._outgoing.put(None)
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(timeout=1)
        if self._channel:
            self._channel.close()
