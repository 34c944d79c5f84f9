"""A whole cluster in one thread: processes on machines, what happens to them, and how it ends."""

from pathlib import Path

from tests.simulation.sim_base import Content
from tests.simulation.sim_control import Session
from tests.simulation.sim_disk import File, Folder, MachineDisk
from tests.simulation.sim_invariants import Invariants
from tests.simulation.sim_outcome import check_outcome
from tests.simulation.sim_process import Process
from tests.simulation.sim_scenario import MOST, Scenario
from tests.simulation.sim_scheduler import Scheduler, Violation

from wallaroo.partitioning.rewrite import rewrite
from wallaroo.protocol.coordinator import Coordinator
from wallaroo.protocol.manifest import Manifest

#: Seconds of virtual time in which an application ends once no more faults come.
_PATIENCE = 300.0
#: Seconds for which a worker that has become slow is.
_SLOW = 60.0
#: Calls that are more than any application needs.
_STEPS = 150_000


class Cluster:
    """Runs a scenario until its application is complete."""

    def __init__(self, scenario: Scenario, scheduler: Scheduler) -> None:
        self.scenario = scenario
        self.scheduler = scheduler
        count = 1 if scenario.together else MOST
        self._machines = [MachineDisk() for _ in range(count)]
        #: By worker, the databases in its folder.
        self.contents: list[dict[str, Content]] = [{} for _ in range(MOST)]
        #: How many workers are asked for; those that ever lived.
        self.target = scenario.workers
        self.ever: set[int] = set()
        self.uncleared: set[int] = set()
        self.invariants = Invariants(self)
        #: Workers that no message to or from the coordinator reaches.
        self.partitioned: set[int] = set()
        #: Of all sessions ever.
        self.names: list[str] = []
        self._processes: dict[int, Process] = {}
        self._lives = 0
        self._down: set[int] = set()
        self._faults = list(scenario.faults)
        self._healed_at = 0.0
        self._frames = 0
        self._runs = 0
        self._under_way = False
        self._complete = False
        #: Somebody has stopped the application for the user's bug.
        self._failed = False
        for machine in self._machines:
            self._furnish(machine)

    def _furnish(self, machine: MachineDisk) -> None:
        """What is there before anything starts: folders, and output of an earlier life."""
        out = Folder()
        if self.scheduler.chance(0.2):
            for name in ("0.txt", "0.part-0.txt", "0.part-1.txt", "0.part-7.txt"):
                stale = File()
                stale.change(0, b"stale 1 \n" * 99)
                stale.sync()
                out.change((name, stale))
        sim = Folder()
        sim.change(("out", out), ("dir", Folder()))
        machine.root.change(("sim", sim))
        for folder in (out, sim, machine.root):
            folder.sync()

    def run(self) -> None:
        """Run to the end."""
        self._start_run()
        self._next_target(list(self.scenario.targets))
        self._next_fault()
        while not self._complete:
            if not self.scheduler.step():
                raise Violation("nothing is left to happen, and the application has not ended")
            if self.scheduler.steps > _STEPS:
                raise Violation(f"no end after {_STEPS} steps")
            if not self._faults and self.scheduler.now > self._healed_at + _PATIENCE:
                raise Violation(f"no end {_PATIENCE} seconds after the last fault")
        self.scheduler.log("complete")
        for machine in self._machines:
            machine.power_cut(self.scheduler.random)
        check_outcome(self)

    # Where things are

    def folder(self, worker: int) -> Path:
        """A worker's folder."""
        return Path("/sim/dir/workers") / str(worker)

    def machine_of(self, worker: int) -> MachineDisk:
        """The disk of a worker's machine."""
        return self._machines[self._machine(worker)]

    def _machine(self, worker: int) -> int:
        return 0 if self.scenario.together else worker

    def living(self, worker: int) -> Process | None:
        """A worker's process, if it lives."""
        process = self._processes.get(worker)
        return process if process and process.alive else None

    def silent(self, session: Session) -> bool:
        """Whether nothing has been heard of a worker."""
        process = session.worker
        return process.paused or not process.alive or session.blocked

    # Runs

    def _start_run(self) -> None:
        self._runs += 1
        self._under_way = True
        for worker in self._needed():
            self._start(worker)
        self._scale()

    def _needed(self) -> set[int]:
        """The workers that must run: members, and those that are not done with leaving."""
        manifest = self.invariants.durable_manifest()
        if manifest is None:
            return set(range(self.scenario.workers))
        return {*manifest.members, *manifest.leaving}

    def _scale(self) -> None:
        """Bring about as many workers as are asked for, as whoever runs workers does."""
        run = self._runs

        def look() -> None:
            if run == self._runs and not self._complete:
                self._look()
                self.scheduler.after(self.scheduler.delay(0.02), look)

        look()

    def _next_target(self, targets: list[tuple[float, int]]) -> None:
        """Ask for other numbers of workers, each in its time."""
        if not targets:
            return
        (seconds, target), *left = targets

        def ask() -> None:
            manifest = self.invariants.durable_manifest()
            there = manifest and set(manifest.members) == set(range(self.target))
            if self.scenario.patient and not there and not self._complete:
                self.scheduler.after(seconds, ask)
                return
            self.target = target
            self.scheduler.log(f"{target} workers are asked for")
            self._next_target(left)

        self.scheduler.after(seconds, ask)

    def _look(self) -> None:
        first = self.living(0)
        service = first.service if first else None
        if service is None:
            return
        machine = service.machine
        committed = machine.committed
        wanted = set(range(self.target))
        for worker in self.uncleared - {*committed.members, *committed.leaving} - wanted:
            self._clear(worker)
        if wanted == set(committed.members):
            if machine.rescale and self.scheduler.chance(0.5):
                now = committed.assignment
                service.process.enter(lambda: service.rescale(now.version, now))
            return
        for worker in sorted(wanted - set(committed.members)):
            if worker not in committed.leaving:
                self._start(worker)
        missing = wanted - {*machine.members, *machine.joiners}
        if missing or wanted & set(committed.leaving):
            return
        found = rewrite(committed.assignment, sorted(wanted))
        rescale = machine.rescale
        if rescale is None or rescale.new != found:
            service.process.enter(lambda: service.rescale(committed.assignment.version, found))

    def _clear(self, worker: int) -> None:
        """Remove what a worker that has left leaves behind."""
        process = self.living(worker)
        if process and not process.ended:
            return
        self.uncleared.discard(worker)
        if process:
            self._gone(process, soon=True)
        folder = self.machine_of(worker).folder(str(self.folder(worker).parent))
        if folder:
            folder.change((str(worker), None))
        self.contents[worker].clear()

    def noticed(self, machine: Coordinator) -> None:
        """The coordinator has handled something."""

    def _start(self, worker: int) -> None:
        if self.living(worker) or self._machine(worker) in self._down:
            return
        self._lives += 1
        self.ever.add(worker)
        self.uncleared.add(worker)
        process = self._processes[worker] = Process(self, worker, self._lives)
        self.scheduler.log(f"{process} starts")
        process.start()

    def _restart(self, worker: int) -> None:
        run = self._runs

        def restart() -> None:
            if run == self._runs:
                self._start(worker)

        self.scheduler.after(self.scheduler.delay(self.scenario.restart_delay), restart)

    def exits(self, process: Process) -> None:
        """A process has ended by itself."""
        self.scheduler.log(f"{process} exits")
        self._gone(process, soon=True)
        if process.worker == 0:
            self._run_over()
        elif not self.living(0) and process.worker in self._needed():
            self._restart(process.worker)  # on the word of one whose successor needs it again

    def failed(self, process: Process) -> None:
        """A process has ended for a user's bug: so does the run, whether others heard of it."""
        self.scheduler.log(f"{process} stops the application")
        self._gone(process, soon=True)
        self._failed = True
        run = self._runs

        def over() -> None:
            if run == self._runs:
                self._run_over()

        self.scheduler.after(self.scheduler.delay(0.1), over)

    def _run_over(self) -> None:
        """Worker 0 has ended: so has the run, and whoever starts workers ends the others."""
        self._runs += 1
        self._under_way = False
        for worker in range(MOST):
            other = self.living(worker)
            if other:
                self._gone(other, soon=True)
        manifest = self.invariants.durable_manifest()
        assert manifest
        self.scheduler.log(f"run over at {manifest.epoch}")
        self.scenario.sample.bug.mended |= self._failed
        self._complete = manifest.complete
        if not self._complete:
            if self.scheduler.chance(0.3):
                for machine in self._machines:
                    machine.power_cut(self.scheduler.random)
            self.scheduler.after(self.scheduler.delay(0.1), self._start_run)

    @property
    def manifest(self) -> Manifest:
        """What is committed at the end."""
        manifest = self.invariants.durable_manifest()
        assert manifest
        return manifest

    # Deaths

    def _gone(self, process: Process, *, soon: bool) -> None:
        """A process is no more. soon: whether its peers learn of it by themselves."""
        process.alive, process.gone = False, True
        for content in self.contents[process.worker].values():
            content.cut(self.scheduler.random)
        delay = self.scheduler.delay
        late = 0.005 if soon else 3.0
        for streams in process.streams:
            streams.close()
        process.receiver.die()
        if process.service:
            for session in process.service.sessions.values():
                session.break_up(0.0, delay(late))
        if process.session:
            process.session.break_up(delay(late), 0.0)

    def kill(self, process: Process) -> None:
        """End a process in the middle of everything."""
        self.scheduler.log(f"{process} is killed")
        self._gone(process, soon=True)
        self._restart(process.worker)
        if process.worker == 0:
            self._restart_ended()

    def _restart_ended(self) -> None:
        """Those that have ended are needed again: the application has not."""
        for worker in sorted(self._needed() - {0}):
            if not self.living(worker):
                self._restart(worker)

    def burnt(self, process: Process) -> None:
        """A process has died at a change of its disk."""
        if process.fuse_cuts_power:
            self.cut_power(self._machine(process.worker))
        else:
            self.kill(process)

    def cut_power(self, number: int) -> None:
        """Cut a machine's power; it comes back after a while."""
        if number in self._down:
            return
        self.scheduler.log(f"machine {number} loses power")
        self._down.add(number)
        mine = [w for w in sorted(self._needed()) if self._machine(w) == number]
        also = [w for w in sorted(self.ever) if self._machine(w) == number]
        for worker in {*mine, *also}:
            process = self._processes.get(worker)
            if process and not process.gone:
                self._gone(process, soon=False)
        self._machines[number].power_cut(self.scheduler.random)
        if 0 in mine:
            mine = sorted(self._needed())
        run = self._runs

        def back() -> None:
            self._down.discard(number)
            self.scheduler.log(f"machine {number} is back")
            if run == self._runs:
                for worker in mine:
                    self._restart(worker)
            elif self._under_way:
                for worker in self._needed():
                    self._start(worker)

        self.scheduler.after(self.scheduler.delay(self.scenario.restart_delay), back)

    # Faults

    def _next_fault(self) -> None:
        """Let the next fault come after a while, or once so many frames have been sent."""
        self._healed_at = self.scheduler.now
        if not self._faults:
            return
        left = len(self._faults)
        if self.scheduler.chance(0.5):
            self._frames = self.scheduler.random.randrange(1, 40)
            self.scheduler.after(1.0, lambda: self._fault(left))
        else:
            self._frames = 0
            delay = self.scheduler.delay(self.scenario.fault_gap)
            self.scheduler.after(delay, lambda: self._fault(left))

    def sent(self) -> None:
        """A frame has been sent."""
        self._frames -= 1
        if not self._frames:
            left = len(self._faults)
            self.scheduler.after(0.0, lambda: self._fault(left))

    def _fault(self, left: int) -> None:
        if left != len(self._faults) or not left:
            return
        kind = self._faults.pop()
        self.scheduler.log(f"fault: {kind}")
        self._strike(kind)
        self._next_fault()

    def _strike(self, kind: str) -> None:
        chance = self.scheduler.random
        living = [each for worker in range(MOST) if (each := self.living(worker))]
        if not living:
            return
        process = chance.choice(living)
        match kind:
            case "kill":
                self.kill(process)
            case "kill at" | "cut power at":
                process.fuse = chance.choice((1, 2, 3, 5, 10, 20))
                process.fuse_cuts_power = kind == "cut power at"
            case "cut power":
                self.cut_power(self._machine(process.worker))
            case "kill all":
                for each in living:
                    self.kill(each)
            case "cut all power":
                for number in range(len(self._machines)):
                    self.cut_power(number)
            case "pause":
                self._pause(process)
            case "partition":
                self._partition(process.worker)
            case "break stream":
                streams = [each for some in process.streams for each in some.streams.values()]
                if streams:
                    stream = chance.choice(streams)
                    stream.break_up(stream.delay(), stream.delay())
            case "break session":
                session = process.session
                if session:
                    session.break_up(session.delay(), session.delay())
            case "slow":
                process.slowness = chance.choice((3.0, 20.0))
                self.scheduler.after(_SLOW, process.speed_up)
            case "stop":
                first = self.living(0)
                service = first.service if first else None
                if service:
                    service.process.enter(service.stop)

    def _silence(self, process: Process) -> None:
        """Nothing is heard of a process from now on: the coordinator will notice."""
        first, session, now = self.living(0), process.session, self.scheduler.now
        service = first.service if first else None
        if service and session:
            service.process.later(self.scenario.patience, lambda: service.watch(session, now))

    def _pause(self, process: Process) -> None:
        process.pause()
        if process.worker:
            self._silence(process)
        luck = self.scheduler.random.choice((0.2, 1.5, 4.0))
        self.scheduler.after(self.scenario.patience * luck, process.go_on)

    def _partition(self, worker: int) -> None:
        process = self.living(worker)
        if worker in self.partitioned or not worker or process is None:
            return
        self.partitioned.add(worker)
        self._silence(process)

        def heal() -> None:
            self.partitioned.discard(worker)
            self.scheduler.log(f"worker {worker} is reached again")
            now = self.living(worker)
            if now and now.session:
                now.session.up.hurry()
                now.session.down.hurry()

        luck = self.scheduler.random.choice((0.2, 1.5, 4.0))
        self.scheduler.after(self.scenario.patience * luck, heal)
