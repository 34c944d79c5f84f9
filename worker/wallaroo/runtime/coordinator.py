"""Worker 0's other job: the coordinator, as a service.

It runs in gRPC's threads, off the one that runs the dataflow, so that a slow user function keeps
nobody from joining, stopping or asking for the status. One lock serializes the state machine.
"""

import json
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import TypeVar

import grpc
import structlog

from wallaroo.errors import Failure, to_be_mended
from wallaroo.protocol import coordinator as protocol
from wallaroo.protocol.manifest import Manifest
from wallaroo.protocol.messages import Failed, Inject, Register
from wallaroo.runtime.manifests import Manifests
from wallaroo.runtime.messages import (
    assignment_from,
    assignment_message,
    failure_message,
    from_worker,
    to_worker_message,
)
from wallaroo.runtime.metrics import Coordination, Metrics, Overview
from wallaroo.runtime.network import CONTROL_OPTIONS, Network
from wallaroo.runtime.options import HEARTBEAT, MOST_WORKERS
from wallaroo.v1 import control_pb2 as pb
from wallaroo.v1 import control_pb2_grpc

SERVER_OPTIONS = [
    ("grpc.so_reuseport", 0),
    # Workers and operator look whether it is there as often as they like.
    ("grpc.http2.max_ping_strikes", 0),
    *CONTROL_OPTIONS,
]
#: Seconds in which a beginning must have become durable.
_DURABLE = 10.0

_log = structlog.get_logger("wallaroo.coordinator")

T = TypeVar("T")
R = TypeVar("R")
_Queue = queue.SimpleQueue[pb.ToWorker | None]


class CoordinatorService(control_pb2_grpc.CoordinatorServicer):
    """Carries out what the state machine says.

    patience: seconds of silence after which a worker counts as lost.
    fail: called when the coordinator can't go on.
    """

    def __init__(
        self,
        machine: protocol.Coordinator,
        manifests: Manifests,
        patience: float,
        fail: Callable[[Failure], None],
    ) -> None:
        self._machine = machine
        self._manifests = manifests
        self._patience = patience
        self._fail = fail
        self._lock = threading.Lock()
        self._numbers = count(1)
        #: By session: what it is told, and when it was last heard.
        self._sessions: dict[str, _Queue] = {}
        self._heard: dict[str, tuple[int, float]] = {}
        self._gone = threading.Condition(self._lock)
        self._status: dict[int, pb.WorkerStatus] = {}
        self._failure: Failure | None = None
        #: Of all members, when none was settling.
        self._keys = 0
        self._disk = ThreadPoolExecutor(1, "manifests")
        self._closed = threading.Event()
        #: When the last barrier was injected, and how long the last epoch took from there.
        self._injected = 0.0
        self._epoch_took = 0.0
        #: Who wants to know of epochs and rescales.
        self._coordination: Coordination | None = None
        self._committed_at = manifests.committed_at(machine.committed.epoch)
        self._begun = threading.Condition(self._lock)

    def tell(self, metrics: Metrics) -> None:
        """Have metrics know of epochs and rescales."""
        self._coordination = metrics.coordinate(self._overview)

    def _overview(self) -> Overview:
        machine = self._machine
        committed = machine.committed
        return Overview(
            committed.epoch,
            machine.generation,
            len(committed.members),
            self._committed_at,
            machine.recoveries,
        )

    def serve(self, network: Network) -> grpc.Server:
        """Start to listen."""
        self._network = network
        # Each worker holds a thread for as long as it is there, its successor one beside it; the
        # rest answer short calls. Threads are made when they are needed.
        threads = ThreadPoolExecutor(2 * MOST_WORKERS + 8, "coordinator")
        server = grpc.server(threads, options=SERVER_OPTIONS)
        control_pb2_grpc.add_CoordinatorServicer_to_server(self, server)
        network.listen(server, network.coordinator)
        server.start()
        threading.Thread(target=self._watch, name="heartbeats", daemon=True).start()
        return server

    # What workers and the command line call

    def Join(  # noqa: N802  gRPC's names
        self, requests: Iterator[pb.FromWorker], context: grpc.ServicerContext
    ) -> Iterator[pb.ToWorker]:
        first = next(requests, None)
        if first is None or first.WhichOneof("kind") != "register":
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the first message must register")
        assert first is not None
        self._network.met(context.peer())
        worker = first.register.worker
        session = f"{worker}/{next(self._numbers)}"
        mine: _Queue = queue.SimpleQueue()
        with self._lock:
            self._sessions[session] = mine
            self._heard[session] = (worker, time.monotonic())
            self._status[worker] = pb.WorkerStatus(
                worker=worker,
                pid=first.register.pid,
                pod=first.register.pod,
                pod_uid=first.register.pod_uid,
                fingerprint=first.register.fingerprint,
            )
        context.send_initial_metadata(())  # it is connected, though there may be nothing to say
        message = from_worker(first)
        assert isinstance(message, Register)
        self.handle(protocol.Heard(worker, session, message))
        # Not at the end of this function: gRPC drops it wherever it stands when the call ends.
        if not context.add_callback(lambda: self._over(worker, session)):
            self._over(worker, session)
        threading.Thread(
            target=self._read,
            args=(worker, session, requests),
            name=f"from worker {worker}",
            daemon=True,
        ).start()
        while (told := mine.get()) is not None:
            yield told

    def Status(  # noqa: N802
        self, request: pb.StatusRequest, context: grpc.ServicerContext
    ) -> pb.StatusReply:
        self._network.met(context.peer())
        return self.status()

    def status(self) -> pb.StatusReply:
        """How the application is now, as far as workers have reported."""
        with self._lock:
            machine = self._machine
            committed = machine.committed
            for worker, status in self._status.items():
                status.present = worker in machine.present
                status.processing = status.present and status.report.processing
                status.ca = status.report.ca
            rescale = machine.rescale
            vacant = machine.phase is protocol.Phase.VACANT  # there is no assignment yet
            read, received, written, dead = committed.departed
            return pb.StatusReply(
                application=committed.application,
                phase=machine.phase.value,
                generation=machine.generation,
                epoch=committed.epoch,
                epoch_seconds=self._epoch_took,
                stop_requested=machine.stop_requested,
                recoveries=machine.recoveries,
                members=() if vacant else committed.members,
                assignment=None if vacant else assignment_message(committed.assignment),
                workers=[
                    status
                    for worker, status in sorted(self._status.items())
                    if worker in machine.present or worker in committed.members
                ],
                failure=failure_message(self._failure) if self._failure else None,
                joiners=machine.joiners,
                leaving=committed.leaving,
                rescale=json.dumps(rescale.progress(time.monotonic())) if rescale else "",
                history=map(json.dumps, machine.history),
                application_id=committed.application_id,
                vacant=vacant,
                lost=machine.lost,
                committed_at=self._committed_at,
                places=committed.places,
                departed=pb.Report(
                    read=read, received=received, written=written, dead_letters=dead
                ),
                keys=self._all_keys(),
            )

    def _all_keys(self) -> int:
        """How many there are; as they were before a rescale while workers settle behind it."""
        members = [
            self._status[worker].report
            for worker in self._machine.committed.members
            if worker in self._status
        ]
        if not self._keys or not any(each.settling for each in members):
            self._keys = sum(each.keys for each in members)
        return self._keys

    def Begin(  # noqa: N802
        self, request: pb.BeginRequest, context: grpc.ServicerContext
    ) -> pb.BeginReply:
        self._network.met(context.peer())
        if request.workers > MOST_WORKERS:
            return pb.BeginReply(refusal=f"an application has at most {MOST_WORKERS} workers")
        event = protocol.BeginRequested(request.workers, request.accept_loss, request.epoch)
        refusal = _answer(self.handle(event))
        if refusal:
            return pb.BeginReply(refusal=refusal)
        with self._lock:  # what is told to have begun must not be vacant after a crash
            machine = self._machine
            begun = self._begun.wait_for(
                lambda: machine.phase is not protocol.Phase.VACANT, _DURABLE
            )
        return pb.BeginReply(refusal="" if begun else "worker 0 could not write it down: see there")

    def Rescale(  # noqa: N802
        self, request: pb.RescaleRequest, context: grpc.ServicerContext
    ) -> pb.RescaleReply:
        self._network.met(context.peer())
        try:
            assignment = assignment_from(request.assignment)
        except ValueError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            raise AssertionError("abort returned") from None
        effects = self.handle(protocol.RescaleRequested(request.base, assignment))
        return pb.RescaleReply(refusal=_answer(effects))

    def Stop(  # noqa: N802
        self, request: pb.StopRequest, context: grpc.ServicerContext
    ) -> pb.StopReply:
        self._network.met(context.peer())
        self.handle(protocol.StopRequested())
        return pb.StopReply()

    def wait_until_alone(self) -> None:
        """Return when no other worker is connected: all have got what they were told."""
        with self._lock:
            self._gone.wait_for(lambda: all(each.startswith("0/") for each in self._sessions))

    def close(self) -> None:
        """Stop looking after workers."""
        self._closed.set()
        self._disk.shutdown()

    # Between messages and the state machine

    def _read(self, worker: int, session: str, requests: Iterator[pb.FromWorker]) -> None:
        try:
            for message in requests:
                self._take(worker, session, message)
        except grpc.RpcError:
            pass  # the call has ended: Join says so
        except Exception:  # a thread's traceback would go nowhere
            _log.exception("a message of a worker could not be handled", worker_from=worker)
        finally:
            self._end(session)

    def _take(self, worker: int, session: str, message: pb.FromWorker) -> None:
        with self._lock:
            if session in self._heard:
                self._heard[session] = (worker, time.monotonic())
        if message.WhichOneof("kind") == "report":
            with self._lock:
                if session in self._sessions:
                    self._status[worker].report.CopyFrom(message.report)
            return
        said = from_worker(message)
        if isinstance(said, Failed):
            with self._lock:
                self._failure = self._failure or said.failure
        if said is not None:
            self.handle(protocol.Heard(worker, session, said))

    def _watch(self) -> None:
        """Give up workers that are silent for too long."""
        looked = time.monotonic()
        while not self._closed.wait(HEARTBEAT):
            now = time.monotonic()
            away, looked = now - looked > 2 * HEARTBEAT + 0.5, now
            with self._lock:
                if away:  # this process itself was held up: nobody could be heard
                    self._heard = {s: (worker, now) for s, (worker, _) in self._heard.items()}
                silent = [
                    (worker, session)
                    for session, (worker, at) in self._heard.items()
                    if now - at > self._patience
                ]
                for worker, _ in silent:
                    self._status[worker].silent = True
            for worker, session in silent:
                _log.error("a worker is silent", lost=worker, seconds=self._patience)
                self._over(worker, session)

    def _over(self, worker: int, session: str) -> None:
        """A session has ended, or is given up."""
        self._end(session)
        with self._lock:
            self._heard.pop(session, None)
            if self._sessions.pop(session, None) is None:
                return
            self._gone.notify_all()
        self.handle(protocol.Lost(worker, session))

    def _end(self, session: str) -> None:
        mine = self._sessions.get(session)
        if mine:
            mine.put(None)

    def handle(self, event: protocol.Event) -> list[protocol.Effect]:
        """Take an event in, and carry out what comes of it, which is returned."""
        return _or_end(self._handle, event)

    def _handle(self, event: protocol.Event) -> list[protocol.Effect]:
        with self._lock:
            before = self._machine.phase, self._machine.generation
            epoch = self._machine.committed.epoch
            version = self._machine.committed.assignment.version
            last = self._machine.history[-1:]
            effects = self._machine.handle(event, time.monotonic())
            after = self._machine.phase, self._machine.generation
            if before != after:
                _log.info(after[0].value, generation=after[1], after=repr(event)[:200])
            if self._machine.history[-1:] != last:
                _log.info("rescale", **self._machine.history[-1])
                if self._coordination:
                    self._coordination.rescaled(self._machine.history[-1])
            if self._machine.committed.epoch != epoch:
                self._committed_at = time.time()
            if self._machine.committed.assignment.version != version:
                for each in self._status.values():
                    each.report.settling = True  # until it says otherwise
            if before[0] is protocol.Phase.VACANT:
                self._begun.notify_all()
            for effect in effects:
                self._carry_out(effect)
            return effects

    def _carry_out(self, effect: protocol.Effect) -> None:
        match effect:
            case protocol.Tell(session=session, message=message):
                mine = self._sessions.get(session)
                if isinstance(message, Inject):
                    self._injected = time.monotonic()
                if mine:
                    mine.put(to_worker_message(message))
            case protocol.Persist(manifest):
                self._disk.submit(_or_end, self._persist, manifest)
            case protocol.Timer(seconds=seconds):
                timer = threading.Timer(seconds, _or_end, [self._elapsed, effect])
                timer.daemon = True
                timer.start()

    def _elapsed(self, timer: protocol.Timer) -> None:
        if not self._closed.is_set():
            self.handle(protocol.Elapsed(timer))

    def _persist(self, manifest: Manifest) -> None:
        try:
            self._manifests.add(manifest)
        except OSError as error:
            why = f"can't write a manifest in {self._manifests.folder}: {error.strerror or error}"
            self._fail(Failure(to_be_mended(why)))
            return
        took = time.monotonic() - self._injected
        commits = manifest.epoch > self._machine.committed.epoch
        self.handle(protocol.Persisted(manifest.generation, manifest.epoch))
        if commits:
            self._epoch_took = took
            if self._coordination:
                self._coordination.committed(took)


def _answer(effects: list[protocol.Effect]) -> str:
    """What is said to who asked for something: why not; empty if it is on its way."""
    return [each.refusal for each in effects if isinstance(each, protocol.Answer)][-1]


def _or_end(function: Callable[[T], R], argument: T) -> R:
    """Call `function` in a thread whose exceptions would go nowhere: end the process with words."""
    try:
        return function(argument)
    except Exception:
        _log.exception("the coordinator is broken")
        os._exit(1)
