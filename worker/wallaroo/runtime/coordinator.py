"""Worker 0's other job: the coordinator, as a service.

It runs in gRPC's threads, off the one that runs the dataflow, so that a slow user function keeps
nobody from joining, stopping or asking for the status. One lock serializes the state machine.
"""

import queue
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import structlog

from wallaroo.errors import Failure
from wallaroo.partitioning import Assignment
from wallaroo.protocol import coordinator as protocol
from wallaroo.runtime.messages import assignment_message, failure_from, failure_message
from wallaroo.v1 import control_pb2 as pb
from wallaroo.v1 import control_pb2_grpc

#: The cluster's incarnation. There is one as long as a lost worker ends the run.
GENERATION = 1

#: Of the connections to the coordinator: a message names every partition of every source, and
#: whoever looks before it listens looks again soon.
CONTROL_OPTIONS = [
    ("grpc.max_receive_message_length", 1 << 28),
    ("grpc.max_send_message_length", 1 << 28),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 500),
]

_log = structlog.get_logger("wallaroo.coordinator")


class CoordinatorService(control_pb2_grpc.CoordinatorServicer):
    """Carries out what the state machine says.

    partitions: of each source, by its name.
    """

    def __init__(
        self, application: str, assignment: Assignment, partitions: dict[str, list[str]]
    ) -> None:
        self._application = application
        self._assignment = assignment
        self._partitions = partitions
        self._machine = protocol.Coordinator(workers=len(assignment.workers))
        self._lock = threading.Lock()
        #: Who is connected, and that somebody no longer is.
        self._members: set[int] = set()
        self._left = threading.Condition(self._lock)
        self._queues: dict[int, queue.SimpleQueue[pb.ToWorker | None]] = {}
        self._status: dict[int, pb.WorkerStatus] = {}
        self._failure: Failure | None = None

    def serve(self, address: str) -> grpc.Server:
        """Start to listen at `address`."""
        # Each member holds a thread for as long as it is one; the rest answer short calls.
        threads = ThreadPoolExecutor(len(self._assignment.workers) + 4, "coordinator")
        server = grpc.server(threads, options=[("grpc.so_reuseport", 0), *CONTROL_OPTIONS])
        control_pb2_grpc.add_CoordinatorServicer_to_server(self, server)
        server.add_insecure_port(address)
        server.start()
        return server

    # What workers and the command line call

    def Join(  # noqa: N802  gRPC's names
        self, requests: Iterator[pb.FromWorker], context: grpc.ServicerContext
    ) -> Iterator[pb.ToWorker]:
        first = next(requests, None)
        if first is None or first.WhichOneof("kind") != "register":
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the first message must register")
        assert first is not None
        worker = first.register.worker
        mine: queue.SimpleQueue[pb.ToWorker | None] = queue.SimpleQueue()
        context.add_callback(lambda: mine.put(None))
        accepted = self._register(first.register, mine)
        reader = threading.Thread(
            target=self._read,
            args=(worker, requests, mine),
            name=f"from worker {worker}",
            daemon=True,
        )
        reader.start()
        while (message := mine.get()) is not None:
            yield message
        if accepted:
            self._handle(protocol.Lost(worker))
            with self._lock:
                self._members.discard(worker)
                self._left.notify_all()

    def Status(  # noqa: N802
        self, request: pb.StatusRequest, context: grpc.ServicerContext
    ) -> pb.StatusReply:
        return self.status()

    def status(self) -> pb.StatusReply:
        """How the application is now, as far as workers have reported."""
        with self._lock:
            return pb.StatusReply(
                application=self._application,
                phase=self._machine.phase.value,
                generation=GENERATION,
                epoch=self._machine.epoch,
                stop_requested=self._machine.stop_requested,
                assignment=assignment_message(self._assignment),
                workers=[status for _, status in sorted(self._status.items())],
                failure=failure_message(self._failure) if self._failure else None,
            )

    def Stop(  # noqa: N802
        self, request: pb.StopRequest, context: grpc.ServicerContext
    ) -> pb.StopReply:
        self._handle(protocol.StopRequested())
        return pb.StopReply()

    def wait_until_alone(self) -> None:
        """Return when no other member is connected: all have got what they were told."""
        with self._lock:
            self._left.wait_for(lambda: self._members <= {0})

    # Between messages and the state machine

    def _register(
        self, register: pb.Register, mine: "queue.SimpleQueue[pb.ToWorker | None]"
    ) -> bool:
        """Whether the worker may take part; it is told if it may not."""
        worker = register.worker
        with self._lock:
            event = protocol.Registered(worker, register.address, register.fingerprint)
            fresh = worker not in self._members
            if fresh:
                self._queues[worker] = mine
            effects = self._machine.handle(event)
            refused = any(isinstance(effect, protocol.Refuse) for effect in effects)
            if fresh and refused:
                del self._queues[worker]
            if fresh and not refused:
                self._members.add(worker)
                self._status[worker] = pb.WorkerStatus(worker=worker, pid=register.pid)
            for effect in effects:
                self._carry_out(effect, mine)
        return fresh and not refused

    def _read(
        self,
        worker: int,
        requests: Iterator[pb.FromWorker],
        mine: "queue.SimpleQueue[pb.ToWorker | None]",
    ) -> None:
        try:
            for message in requests:
                self._take(worker, message)
        except grpc.RpcError:
            pass  # the call has ended: Join says so
        except Exception:  # a thread's traceback would go nowhere
            _log.exception("a message of a worker could not be handled", worker_from=worker)
        finally:
            mine.put(None)

    def _take(self, worker: int, message: pb.FromWorker) -> None:
        match message.WhichOneof("kind"):
            case "connected":
                self._handle(protocol.Connected(worker))
            case "sources_ended":
                self._handle(protocol.SourcesEnded(worker))
            case "barrier_passed":
                self._handle(protocol.BarrierPassed(worker, message.barrier_passed.epoch))
            case "report":
                with self._lock:
                    self._status[worker].report.CopyFrom(message.report)
            case "failed":
                with self._lock:
                    self._failure = self._failure or failure_from(message.failed.failure)
                self._handle(protocol.Lost(worker))

    def _handle(self, event: protocol.Event) -> None:
        with self._lock:
            for effect in self._machine.handle(event):
                self._carry_out(effect, None)

    def _carry_out(
        self,
        effect: protocol.Effect,
        refused: "queue.SimpleQueue[pb.ToWorker | None] | None",
    ) -> None:
        match effect:
            case protocol.Refuse():
                assert refused is not None
                refused.put(
                    pb.ToWorker(generation=GENERATION, refuse=pb.Refuse(message=effect.message))
                )
            case protocol.Connect():
                connect = pb.Connect(
                    members=[pb.Member(worker=w, address=a) for w, a in effect.members.items()],
                    assignment=assignment_message(self._assignment),
                    partitions=[
                        pb.Partitions(source=source, names=names)
                        for source, names in self._partitions.items()
                    ],
                )
                self._send_all(pb.ToWorker(generation=GENERATION, connect=connect))
            case protocol.Start():
                self._send_all(pb.ToWorker(generation=GENERATION, start=pb.Start()))
            case protocol.Inject():
                inject = pb.Inject(epoch=effect.epoch, final=effect.final)
                self._send_all(pb.ToWorker(generation=GENERATION, inject=inject))
            case protocol.Finish():
                self._send_all(pb.ToWorker(generation=GENERATION, finish=pb.Finish()))

    def _send_all(self, message: pb.ToWorker) -> None:
        for mine in self._queues.values():
            mine.put(message)
