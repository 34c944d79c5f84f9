"""The coordinator and the members together, with a network, processes and disks that a seed rules.

What a member does in its time (going back, the disk, the sinks, the streams of a rescale) ends
whenever the seed says so; messages of one connection stay in order, those of different ones do not.
A process may die at any moment, its messages may still come when its successor is there already,
and a stream may break. Somebody may ask for another number of workers, again and again.
"""

import random
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.unit.protocol.watch import OVER, Watched, register

from wallaroo.errors import Failure
from wallaroo.partitioning import Assignment
from wallaroo.partitioning.rewrite import moves, rewrite
from wallaroo.protocol import member as m
from wallaroo.protocol.coordinator import (
    Coordinator,
    Elapsed,
    Event,
    Heard,
    Lost,
    Persist,
    Persisted,
    Phase,
    RescaleRequested,
    StopRequested,
    Tell,
    Timer,
)
from wallaroo.protocol.manifest import DeltaMark, Part
from wallaroo.protocol.messages import (
    Enlist,
    Failed,
    FromWorker,
    Halt,
    Prepared,
    Recover,
    Register,
    ToWorker,
)


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
    #: What it works by, since when, and the last epoch that it knows to be committed.
    assignment: Assignment | None = None
    joined: int = 0
    committed: int = 0
    #: The attempt to rescale that it takes part in, and how far it is.
    attempt: Enlist | None = None
    donates: bool = False
    staged: int = -1

    def takes_part(self, to: Enlist) -> bool:
        """Whether it has its ends of the streams of an attempt."""
        mine = self.attempt
        return mine is not None and (mine.generation, mine.attempt) == (to.generation, to.attempt)


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
        #: How many workers are asked for.
        self.target = workers
        #: Whether the coordinator dies, too.
        self.restarts = False
        #: Whether time is short for what a rescale waits for.
        self.hasty = False
        #: Epochs after which nothing may be processed.
        self.last = 0

    @property
    def phase(self) -> Phase:
        return self.watched.machine.phase

    @property
    def members(self) -> tuple[int, ...]:
        return self.watched.committed.members

    @property
    def needed(self) -> set[int]:
        """The workers whose process has to be there."""
        committed = self.watched.committed
        leaving = committed.leaving.keys() - self.watched.left
        return {*committed.members, *leaving, *range(self.target)}

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

    def ask(self) -> None:
        """Somebody brings about the number of workers that is asked for."""
        old = self.watched.committed.assignment
        new = rewrite(old, range(self.target))
        if set(old.workers) == set(new.workers):
            new = old  # what is under way is called off
        self.tell(RescaleRequested(old.version, new))

    @property
    def settled(self) -> bool:
        """Whether the workers are as many as were asked for, and no other holds anything."""
        committed = self.watched.committed
        return set(committed.members) == set(range(self.target)) and not committed.leaving

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

    def restart(self) -> None:
        """The coordinator dies, and begins again with what is durable; all connect anew."""
        watched = self.watched
        manifest = watched.committed
        if watched.persisting and self.chance.random() < 0.5:
            manifest = watched.persisting
        interval = watched.machine.interval
        self.watched = Watched(Coordinator(manifest, "same", interval))
        self.watched.used.add(manifest.generation)
        self.last = 0  # the application runs again
        self.to_do.clear()
        self.timers.clear()
        self.ghosts.clear()
        for process in list(self.processes.values()):
            self.sessions += 1
            process.session = f"{process.worker}/{self.sessions}"
            process.told.clear()
            process.said.clear()
            if process.ended:
                del self.processes[process.worker]
                continue
            self.handle(process, m.Told(Halt()))
            admitted = process.directory.admitted
            process.said.append(register(process.worker, admitted=admitted))

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
                    process.running = process.donates = False
                    process.barrier = 0
                    process.attempt = None
                    if self.chance.random() < 0.7:  # else what was begun ends in the next life
                        process.jobs.clear()
                case m.GoBack(to):
                    process.directory.admitted = True
                    process.assignment = to.assignment
                    process.committed = to.epoch
                    process.jobs.append(self._go_back(process, to))
                case m.Run():
                    assert not self.last, "it processes behind a final epoch (ruling 17)"
                    process.running = True
                    process.drained = False
                case m.GetReady(to, joins):
                    process.attempt, process.donates, process.staged = to, False, -1
                    process.jobs.append(self._enlist(process, to, joins=joins))
                case m.Donate(attempt):
                    assert process.attempt
                    assert process.attempt.attempt == attempt
                    process.donates = True
                case m.LetGo(attempt):
                    assert process.attempt
                    generation = process.machine.generation
                    gone = m.ClientsGone(generation, attempt, self.chance.randrange(3))
                    process.jobs.append(lambda gone=gone: gone)  # type: ignore[misc]
                case m.GiveUpAttempt():
                    assert process.running, "what is in force goes on"
                    process.attempt = None
                case m.PutBarrier(epoch, _, switch):
                    self._put_barrier(process, epoch, switch=switch)
                case m.Publish(epoch, switched):
                    assert process.running
                    process.committed = epoch
                    if switched:
                        self._has_switched(process)
                    process.jobs.append(self._publish(process, epoch))
                case m.End():
                    process.ended = True
                    if self.phase not in OVER:
                        del self.processes[process.worker]
                        self.ghosts.append(process)
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
            first = max(1, to.part.joined)
            wanted = marks[-1].epoch if process.worker not in to.assignment.workers else to.epoch
            assert [mark.epoch for mark in marks] == list(range(first, wanted + 1)), "a gap"
            assert set(marks) <= set(process.directory.deltas), "committed, and not durable"
            process.directory.deltas = marks
            process.directory.published = max(process.directory.published, wanted)
            assert process.directory.published == wanted, "published, and not committed"
            process.joined = to.part.joined
            if process.worker not in to.assignment.workers:
                return m.SinksPublished(to.generation, to.epoch)
            return m.Recovered(to.generation)

        return done

    def _put_barrier(self, process: Process, epoch: int, *, switch: bool) -> None:
        assert process.attempt or not switch
        if process.attempt and not process.running:  # from here on it takes part
            assert switch, "before the switch one that joins processes nothing (ruling 20)"
            process.running, process.drained = True, False
            process.joined = epoch
            process.directory.published = process.committed = epoch - 1
        assert process.running
        process.barrier = epoch
        process.jobs.append(self._checkpoint(process, epoch, switch=switch))

    def _checkpoint(
        self, process: Process, epoch: int, *, switch: bool
    ) -> Callable[[], m.Event | None]:
        generation = process.machine.generation
        to = process.attempt
        assert process.assignment
        others = set(process.assignment.workers)
        if switch:
            assert to
            others = {*to.old.workers, *to.new.workers}

        def done() -> m.Event | None:
            if process.machine.generation != generation or not process.running:
                return m.Durable(generation, epoch, Part("late"))
            aligned = all(
                other in self.processes
                and self.processes[other].machine.generation == generation
                and self.processes[other].barrier >= epoch
                for other in others
            )
            if not aligned:
                process.jobs.append(done)  # it waits for the barrier of the others
                return None
            mark = DeltaMark(epoch, generation, self.chance.randrange(1 << 64), 1)
            process.directory.deltas = [*process.directory.deltas, mark]
            ended = {("numbers", name) for name in "ab"} if process.drained else set()
            part = Part(
                f"directory {process.worker}",
                tuple(process.directory.deltas),
                ({"sink": "out", "mark": {"epoch": epoch, "generation": generation}},),
                ended=frozenset(ended),
                counts=(epoch, process.worker, 1, 0),
                joined=process.joined,
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

    # Rescales

    def _enlist(self, process: Process, to: Enlist, *, joins: bool) -> Callable[[], m.Event | None]:
        fresh = joins

        def done() -> m.Event | None:
            nonlocal fresh
            if process.attempt is not to:
                return None
            if fresh:  # what it has of an earlier time is of no use
                fresh = False
                process.directory.admitted = True
                process.directory.deltas = []
                process.assignment = to.old
            others = {*to.old.workers, *to.new.workers}
            if not all(w in self.processes and self.processes[w].takes_part(to) for w in others):
                process.jobs.append(done)  # it waits for the streams of the others
                return None
            leaves = process.worker not in to.new.workers
            return m.IsEnlisted(to.generation, to.attempt, leaves and self.chance.random() < 0.5)

        return done

    def _stage(self, process: Process) -> None:
        """A receiver has all that its donors know to be committed."""
        to = process.attempt
        assert to
        process.staged = self._staged(process)
        self.handle(process, m.HasStaged(to.generation, to.attempt, process.staged, 0, 0))

    def _staged(self, process: Process) -> int:
        """How far a receiver could be; -1 if nothing has come."""
        to = process.attempt
        if to is None or (process.barrier and process.barrier == process.machine._switch):
            return -1
        donors = {m.donor for m in moves(to.old, to.new) if m.receiver == process.worker}
        known = [self.processes.get(donor) for donor in donors]
        if not all(each and each.takes_part(to) and each.donates for each in known):
            return -1
        return min((each.committed for each in known if each), default=-1)

    def _has_switched(self, process: Process) -> None:
        to, process.attempt = process.attempt, None
        assert to
        process.assignment = to.new
        process.drained = process.donates = False

    # Time

    def step(self, *, faults: float = 0.0) -> bool:
        """One thing happens somewhere, if anything can."""
        if faults and self.chance.random() < faults:
            self._fault()
            return True
        options: list[Callable[[], None]] = []
        for worker in sorted(self.needed | self.processes.keys()):
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
            if self.drains and process.running and not process.drained and self._owns(process):
                options.append(lambda p=process: self._drain(p))  # type: ignore[misc]
            if self._staged(process) > process.staged:
                options.append(lambda p=process: self._stage(p))  # type: ignore[misc]
        if not self.settled and not self.watched.machine.rescale:
            options.append(self.ask)
        options += [lambda ghost=ghost: self.bury(ghost) for ghost in self.ghosts]  # type: ignore[misc]
        options += [lambda event=event: self._do(event) for event in self.to_do]  # type: ignore[misc]
        options += [
            lambda timer=timer: self._elapse(timer)  # type: ignore[misc]
            for timer in self.timers
            if timer.kind != "rescale" or (self.hasty and self.chance.random() < 0.03)
        ]
        if not options:
            return False
        self.chance.choice(options)()
        return True

    def _owns(self, process: Process) -> bool:
        assignment = process.assignment
        return assignment is not None and process.worker in assignment.workers

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
        if what < 0.4 and workers:
            self.kill(self.chance.choice(workers))
        elif what < 0.7 and workers:
            process = self.processes[self.chance.choice(workers)]
            attempt = process.attempt.attempt if process.attempt else 0
            event = m.StreamBroke(
                process.machine.generation,
                self.chance.choice(workers),
                self.chance.choice((0, attempt)),
            )
            self.handle(process, event)
        elif what < 0.75:
            self._fail_to_join()
        elif what < 0.78 and self.restarts and not self.over:
            self.restart()
        elif self.watched.events:  # something is heard again, from whenever
            event_before = self.chance.choice(self.watched.events)
            match event_before:
                case Heard(_, _, message) if not isinstance(message, Register | Failed):
                    self.tell(event_before)
                case Persisted() | Elapsed() | Lost() | RescaleRequested():
                    self.tell(event_before)
                case _:
                    pass

    def _fail_to_join(self) -> None:
        """One that is to join can't: it says so, and ends."""
        committed = self.watched.committed
        joiners = sorted(self.processes.keys() - {*committed.members, *committed.leaving})
        if joiners and not self.watched.switching and not self.watched.persisting:
            process = self.processes.pop(self.chance.choice(joiners))
            process.alive = False
            self.ghosts.append(process)
            if process.said and isinstance(process.said[0], Register):
                process.said.clear()
                return
            self.tell(Heard(process.worker, process.session, Failed(Failure("no"))))

    def stop(self) -> None:
        self.tell(StopRequested())

    def calm(self, done: Callable[[], bool], most: int = 20_000) -> None:
        """No more faults: all is delivered, and `done` has to come true."""
        self.hasty = False
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
            worker in self.processes and self.processes[worker].running for worker in self.members
        )

    @property
    def over(self) -> bool:
        return self.phase in OVER
