"""One life of a worker: the real `Node` on a simulated host, as `wallaroo.runtime.worker`."""

from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tests.simulation.sim_base import SimBases
from tests.simulation.sim_control import Session
from tests.simulation.sim_disk import Crash, ProcessDisk
from tests.simulation.sim_scheduler import Violation
from tests.simulation.sim_service import Service
from tests.simulation.sim_streams import Receiver, Stream, Streams

from wallaroo.errors import DataflowError, Failure, InputError
from wallaroo.protocol.messages import Failed, FromWorker, Halt, Prepared, Ready, ToWorker
from wallaroo.runtime.attempt import Incoming, Outgoing
from wallaroo.runtime.node import Node, Settings, Task

if TYPE_CHECKING:
    from tests.simulation.sim_cluster import Cluster

T = TypeVar("T")


class Process:
    """Worker `worker`, started for the `life`th time."""

    def __init__(self, cluster: "Cluster", worker: int, life: int) -> None:
        self.cluster = cluster
        self.worker = worker
        self.life = life
        self.scheduler = cluster.scheduler
        self.alive = True
        #: The others lose it.
        self.gone = False
        #: It has ended by itself.
        self.ended = False
        self.paused = False
        self.awake_since = self.scheduler.now
        #: How many changes of the disk are left to it, and what ends it then; None for no end.
        self.fuse: int | None = None
        self.fuse_cuts_power = False
        self.slowness = 1.0
        self.folder = cluster.folder(worker)
        self.disk = ProcessDisk(cluster.machine_of(worker), self)
        self.session: Session | None = None
        self.service: Service | None = None
        self.receiver = Receiver(self)
        self.streams: list[Streams] = []
        self.node: Node | None = None
        self._held: list[Callable[[], None]] = []
        self._time = self.scheduler.now
        self._woken = False
        self._attempts = 0

    def __str__(self) -> str:
        return f"worker {self.worker}.{self.life}"

    # Life and death

    def start(self) -> None:
        """Begin."""
        self.enter(self._start)

    def _start(self) -> None:
        scenario = self.cluster.scenario
        self.node = Node(
            scenario.graph,
            Settings(self.worker, self.folder, scenario.cache),
            self,
            self.disk,
            SimBases(self.cluster.contents[self.worker], self.disk),
            scenario.codec,
            self._clock,
            f"{self.scheduler.random.getrandbits(64):016x}",
        )
        if self.worker == 0:
            self.service = Service(self)
        self._join()

    def speed_up(self) -> None:
        """Be as fast as others again."""
        self.slowness = 1.0

    def enter(self, call: Callable[[], None]) -> None:
        """Do something in this process: not if it is dead, later if it is paused."""
        if not self.alive:
            return
        if self.paused:
            self._held.append(call)
            return
        try:
            call()
        except Crash:
            self.cluster.burnt(self)
        except DataflowError as error:
            self.fail(error.failure)
        except InputError as error:
            self.fail(Failure(str(error)))

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        """Do something in this process after a while."""
        self.scheduler.after(seconds, lambda: self.enter(call))

    def pause(self) -> None:
        """Stop in the middle of everything."""
        self.paused = True

    def go_on(self) -> None:
        """After a pause."""
        self.paused = False
        self.awake_since = self.scheduler.now
        held, self._held = self._held, []
        for call in held:
            self.enter(call)

    def operate(self, what: str) -> bool:
        """It is about to change the disk; False if it dies of that."""
        if not self.alive:
            raise Crash
        self.scheduler.log(f"{self} {what}")
        if self.fuse is None:
            return True
        self.fuse -= 1
        if self.fuse > 0:
            return True
        self.alive = False
        return False

    def wrote(self, path: Path, offset: int, length: int) -> None:
        """It has written to a file."""
        if path.parent == self.cluster.scenario.output:
            self.cluster.invariants.wrote(self.disk.machine, path, offset, length)

    # The coordinator

    def _join(self) -> None:
        """Register; again and again while there is no coordinator."""
        if self.session is not None or self.ended:
            return
        delay = self.scheduler.delay(self.cluster.scenario.control_delay)
        self.scheduler.after(delay, lambda: self.enter(self._arrive))

    def _arrive(self) -> None:
        first = self.cluster.living(0)
        service = first.service if first and not first.paused else None
        if service is None or self.worker in self.cluster.partitioned:
            self._attempts += 1
            self.later(min(0.05 * 2**self._attempts, 0.5), self._join)
            return
        if self.session is not None or self.ended:
            return
        assert self.node
        self._attempts = 0
        register = self.node.registration(f"worker-{self.worker}", "fingerprint")
        service.process.enter(lambda: service.join(self, register))

    def told(self, session: Session, message: ToWorker) -> None:
        """The coordinator says something."""
        if session is self.session and self.node and not self.ended:
            self.node.take(message)

    def coordinator_lost(self, session: Session) -> None:
        """The session is over."""
        if session is not self.session or self.ended:
            return
        self.session = None
        assert self.node
        self.node.take(Halt())
        self.later(self.scheduler.delay(0.02), self._join)

    # What a node needs

    def tell(self, message: FromWorker) -> None:
        """Say something to the coordinator; lost if the connection is."""
        if isinstance(message, Prepared):
            self.cluster.invariants.prepared(self, message)
        if isinstance(message, Ready):
            self.cluster.invariants.ready(self.worker, message.generation)
        if self.session:
            self.session.up.send(message)

    def _clock(self) -> float:
        """Every look at the clock takes some time, as what is done in between does."""
        luck = self.scheduler.random.random()
        took = 0.00001 if luck < 0.9 else 0.0005 if luck < 0.98 else 0.004
        self._time = max(self._time, self.scheduler.now) + took * self.slowness
        return self._time

    def wake(self, after: float = 0.0) -> None:
        """Call `Node.run` soon, or after so many seconds."""
        if after:
            self.later(after, self.wake)
        elif not self._woken:
            self._woken = True
            self.later(max(0.0, self._time - self.scheduler.now), self._run)

    def _run(self) -> None:
        self._woken = False
        if self.node and not self.ended and self.node.run():
            self._time += self.cluster.scenario.pace * self.slowness
            self.wake()

    def submit(
        self, work: Callable[[], T], done: Callable[[T], None], failed: Callable[[Exception], None]
    ) -> None:
        """Do blocking `work` in the background, then call `done` or `failed` here."""

        def carry_out() -> None:
            try:
                result = work()
            except Violation:
                raise
            except Exception as error:
                refused = error
                self.later(self._disk_delay(), lambda: failed(refused))
            else:
                self.later(self._disk_delay(), lambda: done(result))

        self.later(self._disk_delay(), carry_out)

    def _disk_delay(self) -> float:
        return self.scheduler.delay(self.cluster.scenario.disk_delay) * self.slowness

    def spawn(self, task: Coroutine[Any, Any, None]) -> Task:
        """Nothing that is simulated has tasks."""
        raise NotImplementedError

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
        self.receiver.expect(generation, attempt, incoming)
        streams = Streams(self, generation, attempt, outgoing, addresses, opened)
        self.streams.append(streams)

    def connected(self, stream: Stream) -> None:
        """A stream has been taken."""
        for streams in self.streams:
            streams.connected(stream)

    def close_streams(self, attempt: int | None = None) -> None:
        """Drop them, with what is on its way; all, or those of an attempt."""
        self.receiver.close(attempt)
        for streams in list(self.streams):
            if attempt in (None, streams.attempt):
                streams.close()
                self.streams.remove(streams)

    def drop_streams(self, workers: Collection[int]) -> None:
        """Let go of the streams to and from workers that need them no more."""
        self.receiver.drop(workers)
        for streams in self.streams:
            streams.drop(workers)

    def rest(self, seconds: float) -> None:
        pass

    def wake_sender(self, outbox: Outgoing) -> None:
        """An outbox has something to send."""
        for streams in self.streams:
            streams.wake(outbox)

    def stream_lost(self, stream: Stream, peer: int) -> None:
        """A stream has broken, unless nobody needs it any more."""
        node = self.node
        if node is None or self.ended or stream.generation != node.member.generation:
            return
        sends = any(id(stream.outbox) in streams.streams for streams in self.streams)
        if node.engine is not None and (sends or self.receiver.holds(stream)):
            node.stream_broke(stream.generation, stream.attempt, peer)

    def fail(self, failure: Failure) -> None:
        """The application can't go on; only a user's bug may be why."""
        if not self.cluster.scenario.sample.bug.explains(failure):
            raise Violation(f"{self} stopped the application: {failure.message}")
        self.tell(Failed(failure))
        self.cluster.failed(self)

    def end(self) -> None:
        """The application has ended."""
        self.scheduler.log(f"{self} ends")
        self.ended = True
        self.maybe_exit()

    def maybe_exit(self) -> None:
        """Exit when nobody needs this process any more."""
        if self.ended and self.alive and (self.service is None or self.service.alone):
            self.cluster.exits(self)

    def waiting(self, what: str, why: str) -> None:
        """Nobody looks."""
