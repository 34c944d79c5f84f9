"""The worker process: carries out what the coordinator says, and drives the dataflow.

One thread runs the dataflow, in slices of a millisecond or two, and the streams that feed it, in
one event loop. The connection to the coordinator has a thread of its own, blocking work another.
"""

import asyncio
import contextlib
import ctypes
import gc
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import grpc
import grpc.aio
import structlog

from wallaroo.api.connectors import SinkWriter
from wallaroo.dataflow.barrier import Barrier
from wallaroo.dataflow.engine import SLICE, Engine
from wallaroo.dataflow.exchange import Inbox, Outbox
from wallaroo.errors import DataflowError, Failure, InputError
from wallaroo.partitioning import Assignment, partition_point
from wallaroo.runtime.application import Program
from wallaroo.runtime.coordinator import CONTROL_OPTIONS, GENERATION, CoordinatorService
from wallaroo.runtime.directory import Directory, coordinator_address, worker_address
from wallaroo.runtime.exchange import Lost, Receiver, Sender
from wallaroo.runtime.messages import assignment_from, failure_message, status_dict
from wallaroo.state.allowlist import AllowList
from wallaroo.state.codec import Codec, CodecError
from wallaroo.v1 import control_pb2 as pb
from wallaroo.v1 import control_pb2_grpc

T = TypeVar("T")

#: Exit code of a worker that stopped the application, and said why.
FAILED = 3
#: Seconds in which a worker whose stream has broken turns out to have ended.
_PATIENCE = 2.0
#: Seconds between reports to the coordinator.
_REPORT = 0.25

_log = structlog.get_logger("wallaroo.worker")


def die_with_parent(parent: int) -> None:
    """End this process when the process `parent`, which started it, ends, however it does."""
    if sys.platform == "linux":
        set_parent_death_signal = 1  # PR_SET_PDEATHSIG of prctl(2)
        ctypes.CDLL(None, use_errno=True).prctl(set_parent_death_signal, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    if sys.platform != "linux":
        threading.Thread(target=watch, name="parent", daemon=True).start()


def keep_from_children(lock: int) -> None:
    """Close `lock` in processes that user code forks: it is held by workers alone."""

    def close() -> None:
        with contextlib.suppress(OSError):
            os.close(lock)

    os.register_at_fork(after_in_child=close)
    os.set_inheritable(lock, False)


class Worker:
    """Worker `worker` of `workers`, with its log in `directory` and its socket in `sockets`."""

    def __init__(
        self, program: Program, worker: int, workers: int, directory: Directory, sockets: Path
    ) -> None:
        self.program = program
        self.worker = worker
        self.workers = workers
        self._directory = directory
        self._sockets = sockets
        self._codec = Codec(AllowList([program.path.parent]))
        # One for each source and sink: one that blocks holds up no other.
        connectors = [*program.graph.sources, *program.graph.sinks]
        self._threads = ThreadPoolExecutor(len(connectors), "background")
        self._control = _Control(coordinator_address(sockets))
        self._tasks: set[asyncio.Task[None]] = set()
        self._senders: dict[int, Sender] = {}
        self._waiting: dict[str, str] = {}
        self._failure: Failure | None = None
        self._ended_told = False
        self._finishing = False

    async def run(self) -> int:
        """Work until told to finish; returns the exit code."""
        self._loop = asyncio.get_running_loop()
        self._work = asyncio.Event()
        self._done = asyncio.Event()
        self._engine: Engine | None = None
        self._inboxes: asyncio.Future[dict[tuple[int, int], Inbox]] = self._loop.create_future()
        address = worker_address(self._sockets, self.worker)
        receiver = Receiver(self.worker, GENERATION, self._inboxes, self.wake, self._lost)
        server = await receiver.serve(address)
        service, coordinator = self._coordinate() if self.worker == 0 else (None, None)
        self._control.join(
            pb.Register(
                worker=self.worker,
                address=address,
                fingerprint=self.program.fingerprint,
                pid=os.getpid(),
            ),
            lambda message: self._loop.call_soon_threadsafe(self._take, message),
            lambda why: self._loop.call_soon_threadsafe(self._coordinator_lost, why),
        )
        self.spawn(self._report())
        await self._done.wait()
        self._finishing = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for sender in self._senders.values():
            await sender.close()
        await server.stop(None)
        if service:
            with contextlib.suppress(OSError):  # the runner says what it knows
                self._directory.write_status(status_dict(service.status()))
        self._control.leave()
        if service and coordinator:
            if not self._failure:
                await asyncio.to_thread(service.wait_until_alone)
            coordinator.stop(None).wait()
        self._threads.shutdown(wait=False, cancel_futures=True)
        return FAILED if self._failure else 0

    def _coordinate(self) -> tuple[CoordinatorService, grpc.Server]:
        partitions = {
            source.name: source.config.partitions() for source in self.program.graph.sources
        }
        service = CoordinatorService(self.program.name, Assignment.first(self.workers), partitions)
        return service, service.serve(coordinator_address(self._sockets))

    # Services for connectors

    def wake(self) -> None:
        """Run the dataflow."""
        self._work.set()

    def submit(
        self, work: Callable[[], T], done: Callable[[T], None], failed: Callable[[Exception], None]
    ) -> None:
        """Do blocking `work` in the background, then call `done` or `failed` here."""

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
            self._loop.call_soon_threadsafe(function, argument)

    def spawn(self, task: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine until the worker ends."""
        running = self._loop.create_task(task)
        self._tasks.add(running)
        running.add_done_callback(self._ran)

    def _ran(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            return
        if isinstance(error, DataflowError):
            self.fail(error.failure)
        elif isinstance(error, InputError):
            self.fail(Failure(str(error)))
        elif isinstance(error, Lost):
            self._lost(error)
        else:
            # A mistake of ours: the runner says which worker ended, and where its log is.
            _log.error("worker broken", exc_info=error)
            os._exit(1)

    def fail(self, failure: Failure) -> None:
        """Stop the application."""
        if self._failure or self._finishing:
            return
        self._failure = failure = replace(failure, worker=self.worker)
        self._done.set()
        _log.error("stopped", reason=failure.message, step=failure.step, key=failure.key)
        sys.stderr.write(failure.traceback)
        try:
            self._directory.write_failure(self.worker, failure)
        except OSError as error:
            _log.error("the reason can't be written", why=str(error))
        self._control.send(pb.FromWorker(failed=pb.Failed(failure=failure_message(failure))))

    def waiting(self, what: str, why: str) -> None:
        """Tell the user what `what` waits for."""
        if why:
            if self._waiting.get(what) != why:
                _log.warning("waiting", what=what, why=why)
            self._waiting[what] = why
        elif self._waiting.pop(what, None):
            _log.info("no longer waiting", what=what)

    # What the coordinator says

    def _take(self, message: pb.ToWorker) -> None:
        if message.generation != GENERATION:
            _log.error("refused a message of another generation", generation=message.generation)
            return
        match message.WhichOneof("kind"):
            case "connect":
                self.spawn(self._connect(message.connect))
            case "start":
                _log.info("started")
                self.spawn(self._drive())
            case "inject":
                assert self._engine
                self._engine.inject(Barrier(message.inject.epoch, message.inject.final))
                self.wake()
            case "finish":
                _log.info("finished")
                self._done.set()
            case "refuse":
                self.fail(Failure(message.refuse.message))

    def _coordinator_lost(self, why: str) -> None:
        self._lost(Lost(0, f"its coordinator is gone: {why}"))

    def _lost(self, error: Lost) -> None:
        """A stream has broken. If its worker has ended, the runner sees that and ends the run."""
        if self._finishing:
            return
        _log.error("lost a worker", lost=error.worker, why=str(error))
        self._loop.call_later(_PATIENCE, self.fail, Failure(str(error)))

    async def _connect(self, message: pb.Connect) -> None:
        """Make the dataflow and open its streams, sources and sinks."""
        assignment = assignment_from(message.assignment)
        addresses = {member.worker: member.address for member in message.members}
        sinks: list[SinkWriter] = [sink.open(self) for sink in self.program.graph.sinks]
        self._engine = engine = Engine(
            self.program.graph,
            self.worker,
            assignment,
            self._codec,
            sinks,
            wake=self._wake_sender,
            passed=self._passed,
            clock=time.perf_counter,
        )
        for outbox in engine.outboxes.values():
            self._senders[id(outbox)] = Sender(
                outbox, self.worker, GENERATION, addresses[outbox.receiver], self.wake
            )
        self._inboxes.set_result(engine.inboxes)
        await asyncio.gather(*(sender.connect() for sender in self._senders.values()))
        for outbox in engine.outboxes.values():
            self.spawn(self._send(engine, outbox, self._senders[id(outbox)]))
        self._open_sources(
            engine, assignment, {each.source: list(each.names) for each in message.partitions}
        )
        self._control.send(pb.FromWorker(connected=pb.Connected()))

    def _open_sources(
        self, engine: Engine, assignment: Assignment, partitions: dict[str, list[str]]
    ) -> None:
        for source in self.program.graph.sources:
            names = partitions[source.name]
            for index, name in enumerate(names):
                owner = assignment.owner(partition_point(index, len(names)))
                if (0 if source.config.listens else owner) == self.worker:
                    engine.read_from(source.name, source.config.open(name, self))

    async def _send(self, engine: Engine, outbox: Outbox, sender: Sender) -> None:
        try:
            await sender.run()
        except CodecError as error:
            raise engine.unencodable(outbox, error) from error

    def _wake_sender(self, outbox: Outbox) -> None:
        self._senders[id(outbox)].wake()

    def _passed(self, barrier: Barrier) -> None:
        self._control.send(pb.FromWorker(report=self._counters()))
        self._control.send(pb.FromWorker(barrier_passed=pb.BarrierPassed(epoch=barrier.epoch)))

    # The dataflow

    async def _drive(self) -> None:
        """Run the dataflow whenever there is something to do, in slices."""
        engine = self._engine
        assert engine
        # What exists by now stays: collections need not look at it again.
        gc.collect()
        gc.freeze()
        clock = time.perf_counter
        while True:
            self._work.clear()
            until = clock() + SLICE
            while engine.step():
                if clock() > until:
                    self._work.set()
                    break
            if engine.sources_ended and not self._ended_told:
                self._ended_told = True
                self._control.send(pb.FromWorker(sources_ended=pb.SourcesEnded()))
            if self._work.is_set():
                await asyncio.sleep(0)
            else:
                await self._work.wait()

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(_REPORT)
            self._control.send(pb.FromWorker(report=self._counters()))

    def _counters(self) -> pb.Report:
        engine = self._engine
        return pb.Report(
            read=engine.counters.read if engine else 0,
            received=engine.counters.received if engine else 0,
            written=engine.counters.written if engine else 0,
            keys=engine.keys if engine else 0,
            waiting=[f"{what}: {why}" for what, why in sorted(self._waiting.items())],
        )


class _Control:
    """The connection to the coordinator: a thread reads it, gRPC's own write it."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address, options=CONTROL_OPTIONS)
        self._outgoing: queue.SimpleQueue[pb.FromWorker | None] = queue.SimpleQueue()
        self._reader: threading.Thread | None = None

    def join(
        self,
        register: pb.Register,
        take: Callable[[pb.ToWorker], object],
        lost: Callable[[str], object],
    ) -> None:
        """Register, and call `take` with what the coordinator says until `lost` is called."""
        self.send(pb.FromWorker(register=register))

        def requests() -> Iterator[pb.FromWorker]:
            while (message := self._outgoing.get()) is not None:
                yield message

        def read() -> None:
            why = "it closed the connection"
            try:
                call = control_pb2_grpc.CoordinatorStub(self._channel).Join(
                    requests(), wait_for_ready=True
                )
                for message in call:
                    take(message)
            except grpc.RpcError as error:
                why = error.details() or why
            with contextlib.suppress(RuntimeError):  # the loop is closed: the worker has ended
                lost(why)

        self._reader = threading.Thread(target=read, name="coordinator", daemon=True)
        self._reader.start()

    def send(self, message: pb.FromWorker) -> None:
        """Tell the coordinator; never blocks."""
        self._outgoing.put(message)

    def leave(self) -> None:
        """Close the connection once what was sent is on its way."""
        self._outgoing.put(None)
        if self._reader:
            self._reader.join(timeout=1)
        self._channel.close()


def run_worker(
    program: Program, worker: int, workers: int, directory: Directory, sockets: Path
) -> int:
    """Run a worker in this process until the application ends; returns the exit code."""
    try:
        return asyncio.run(Worker(program, worker, workers, directory, sockets).run())
    except InputError as error:
        directory.write_failure(worker, Failure(str(error), worker=worker))
        _log.error("stopped", reason=str(error))
        return FAILED
