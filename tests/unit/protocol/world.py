"""The coordinator and the members together, with a network, processes and disks that a seed rules.

What a member does in its time (going back, the disk, the sinks) ends whenever the seed says so;
messages of one connection stay in order, those of different ones do not. A process may die at any
moment, its messages may still come when its successor is there already, and a stream may break.
"""

import random
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.unit.protocol.watch import OVER, Watched, register

from wallaroo.protocol import member as m
from wallaroo.protocol.coordinator import (
    Elapsed,
    Event,
    Heard,
    Lost,
    Persist,
    Persisted,
    Phase,
    StopRequested,
    Tell,
    Timer,
)
from wallaroo.protocol.manifest import DeltaMark, Part
from wallaroo.protocol.messages import FromWorker, Prepared, Recover, Register, ToWorker


@dataclass
class Directory:
    """What a worker's disk has: durable deltas, and the epoch up to which sinks are published."""

    deltas: list[DeltaMark] = field(default_factory=list)
    published: int = 0
    admitted: bool = False


@dataclass(eq=False)
class Process:
    """A worker's process, in one session."""

    worker: int
    session: str
    directory: Directory
    machine: m.Member = field(default_factory=m.Member)
    alive: bool = True
    running: bool = False
    ended: bool = False
    told: deque[ToWorker] = field(default_factory=deque)
    said: deque[FromWorker] = field(default_factory=deque)
    #: What ends some time.
    jobs: list[Callable[[], m.Event | None]] = field(default_factory=list)
    #: The epoch whose barrier it has put behind its sources.
    barrier: int = 0
    drained: bool = False


class World:
    """`workers` of an application; `drains`: its sources come to an end some time."""

    def __init__(
        self, workers: int, seed: int, *, interval: float = 1.0, drains: bool = False
    ) -> None:
        self.chance = random.Random(seed)
        self.watched = Watched.new(workers, interval)
        self.drains = drains
        self.directories: dict[int, Directory] = defaultdict(Directory)
        self.processes: dict[int, Process] = {}
        self.ghosts: list[Process] = []
        self.to_do: list[Event] = []
        self.timers: list[Timer] = []
        self.sessions = 0
        self.workers = workers
        #: Epochs after which nothing may be processed.
        self.last = 0

    @property
    def phase(self) -> Phase:
        return self.watched.machine.phase

    # The coordinator

    def tell(self, event: Event) -> None:
        for effect in self.watched.tell(event):
            match effect:
                case Tell(worker, session, message):
                    process = self.processes.get(worker)
                    if process and process.session == session:
                        process.told.append(message)
                case Persist(manifest):
                    self.to_do.append(Persisted(manifest.generation, manifest.epoch))
                case Timer():
                    self.timers.append(effect)
        if self.watched.closed:
            self.last = self.watched.committed.epoch

    # Processes

    def start(self, worker: int) -> None:
        """A process begins; one before it may not be missed yet."""
        self.sessions += 1
        directory = self.directories[worker]
        process = Process(worker, f"{worker}/{self.sessions}", directory)
        process.said.append(register(worker, admitted=directory.admitted))
        self.processes[worker] = process

    def kill(self, worker: int) -> None:
        process = self.processes.pop(worker)
        process.alive = False
        while process.said and self.chance.random() < 0.5:
            process.said.pop()
        if process.said and isinstance(process.said[0], Register):
            process.said.clear()  # it holds the directory's lock until it is dead
        self.ghosts.append(process)

    def bury(self, ghost: Process) -> None:
        """What it said last is heard, or not; then it is missed."""
        if ghost.said:
            self.tell(Heard(ghost.worker, ghost.session, ghost.said.popleft()))
        else:
            self.ghosts.remove(ghost)
            self.tell(Lost(ghost.worker, ghost.session))

    def handle(self, process: Process, event: m.Event) -> None:
        for effect in process.machine.handle(event):
            match effect:
                case m.Say(message):
                    self._check_said(process, message)
                    process.said.append(message)
                case m.Abandon():
                    process.running = False
                    process.barrier = 0
                    if self.chance.random() < 0.7:  # else what was begun ends in the next life
                        process.jobs.clear()
                case m.GoBack(to):
                    process.directory.admitted = True
                    process.jobs.append(self._go_back(process, to))
                case m.Run():
                    assert not self.last, "it processes behind a final epoch (ruling 17)"
                    process.running = True
                    process.drained = False
                case m.PutBarrier(epoch, _):
                    assert process.running
                    process.barrier = epoch
                    process.jobs.append(self._checkpoint(process, epoch))
                case m.Publish(epoch):
                    assert process.running
                    process.jobs.append(self._publish(process, epoch))
                case m.End():
                    process.ended = True
                case m.GiveUp(why):
                    raise AssertionError(f"worker {process.worker} is refused: {why}")

    def _check_said(self, process: Process, message: FromWorker) -> None:
        if isinstance(message, Prepared):
            assert process.directory.published >= message.epoch - 1, "ruling 28"
            assert process.running

    def _go_back(self, process: Process, to: Recover) -> Callable[[], m.Event | None]:
        def done() -> m.Event | None:
            assert to.part
            if process.machine.generation != to.generation:
                return None
            marks = list(to.part.deltas)
            assert [mark.epoch for mark in marks] == list(range(1, to.epoch + 1)), "a gap"
            assert set(marks) <= set(process.directory.deltas), "committed, and not durable"
            process.directory.deltas = marks
            process.directory.published = max(process.directory.published, to.epoch)
            assert process.directory.published == to.epoch, "published, and not committed"
            return m.Recovered(to.generation)

        return done

    def _checkpoint(self, process: Process, epoch: int) -> Callable[[], m.Event | None]:
        generation = process.machine.generation

        def done() -> m.Event | None:
            if process.machine.generation != generation or not process.running:
                return m.Durable(generation, epoch, Part("late"))
            aligned = all(
                each.machine.generation == generation and each.barrier >= epoch
                for each in self.processes.values()
            )
            if not aligned or len(self.processes) < self.workers:
                process.jobs.append(done)  # it waits for the barrier of the others
                return None
            mark = DeltaMark(epoch, generation, self.chance.randrange(1 << 64), 1)
            process.directory.deltas = [*process.directory.deltas, mark]
            ended = {("numbers", name) for name in "ab"} if process.drained else set()
            part = Part(
                f"directory {process.worker}",
                tuple(process.directory.deltas),
                ended=frozenset(ended),
            )
            return m.Durable(generation, epoch, part)

        return done

    def _publish(self, process: Process, epoch: int) -> Callable[[], m.Event | None]:
        generation = process.machine.generation

        def done() -> m.Event | None:
            if process.machine.generation == generation:
                process.directory.published = max(process.directory.published, epoch)
            return m.SinksPublished(generation, epoch)

        return done

    # Time

    def step(self, *, faults: float = 0.0) -> bool:
        """One thing happens somewhere, if anything can."""
        if faults and self.chance.random() < faults:
            self._fault()
            return True
        options: list[Callable[[], None]] = []
        for worker in range(self.workers):
            process = self.processes.get(worker)
            if process is None:
                options.append(lambda worker=worker: self.start(worker))  # type: ignore[misc]
                continue
            if process.told:
                options.append(lambda p=process: self.handle(p, m.Told(p.told.popleft())))  # type: ignore[misc]
            if process.said:
                options.append(lambda p=process: self._hear(p))  # type: ignore[misc]
            if process.jobs:
                options.append(lambda p=process: self._job(p))  # type: ignore[misc]
            if self.drains and process.running and not process.drained:
                options.append(lambda p=process: self._drain(p))  # type: ignore[misc]
        options += [lambda ghost=ghost: self.bury(ghost) for ghost in self.ghosts]  # type: ignore[misc]
        options += [lambda event=event: self._do(event) for event in self.to_do]  # type: ignore[misc]
        options += [lambda timer=timer: self._elapse(timer) for timer in self.timers]  # type: ignore[misc]
        if not options:
            return False
        self.chance.choice(options)()
        return True

    def _hear(self, process: Process) -> None:
        self.tell(Heard(process.worker, process.session, process.said.popleft()))

    def _job(self, process: Process) -> None:
        done = process.jobs.pop(self.chance.randrange(len(process.jobs)))
        event = done()
        if event is not None:
            self.handle(process, event)

    def _drain(self, process: Process) -> None:
        process.drained = True
        self.handle(process, m.SourcesEnded(process.machine.generation))

    def _do(self, event: Event) -> None:
        self.to_do.remove(event)
        self.tell(event)

    def _elapse(self, timer: Timer) -> None:
        self.timers.remove(timer)
        self.tell(Elapsed(timer))

    def _fault(self) -> None:
        what = self.chance.random()
        workers = sorted(self.processes)
        if what < 0.45 and workers:
            self.kill(self.chance.choice(workers))
        elif what < 0.75 and workers:
            process = self.processes[self.chance.choice(workers)]
            event = m.StreamBroke(process.machine.generation, self.chance.randrange(self.workers))
            self.handle(process, event)
        elif self.watched.events:  # something is heard again, from whenever
            event_before = self.chance.choice(self.watched.events)
            match event_before:
                case Heard(_, _, message) if not isinstance(message, Register):
                    self.tell(event_before)
                case Persisted() | Elapsed() | Lost():
                    self.tell(event_before)
                case _:
                    pass

    def stop(self) -> None:
        self.tell(StopRequested())

    def calm(self, done: Callable[[], bool], most: int = 20_000) -> None:
        """No more faults: all is delivered, and `done` has to come true."""
        for _ in range(most):
            if done():
                return
            if not self.step():
                break
        assert done(), f"it stays {self.phase}"

    @property
    def works(self) -> bool:
        """Whether everybody processes."""
        return self.phase is Phase.RUNNING and all(
            worker in self.processes and self.processes[worker].running
            for worker in range(self.workers)
        )

    @property
    def over(self) -> bool:
        return self.phase in OVER
