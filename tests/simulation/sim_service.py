"""The coordinator in worker 0's process: as `wallaroo.runtime.coordinator`, without gRPC."""

from typing import TYPE_CHECKING

from tests.simulation.sim_control import Session

from wallaroo.partitioning import Assignment
from wallaroo.protocol import coordinator as protocol
from wallaroo.protocol.manifest import Manifest
from wallaroo.protocol.messages import FromWorker, Register
from wallaroo.runtime.manifests import Manifests

if TYPE_CHECKING:
    from tests.simulation.sim_process import Process


class Service:
    """Carries out what the state machine says."""

    def __init__(self, process: "Process") -> None:
        self.process = process
        self._cluster = cluster = process.cluster
        scenario = cluster.scenario
        graph = scenario.graph
        self._manifests = Manifests(process.disk, process.folder / "manifests")
        manifest = self._manifests.last()
        if manifest is None:
            name = graph.application.name
            manifest = Manifest(name, 0, 0, scenario.assignment, {}, {})
        found = {source.name: source.config.partitions() for source in graph.sources}
        manifest = manifest.for_program(graph.places, found)
        cluster.invariants.starts(manifest)
        self.machine = protocol.Coordinator(manifest, "fingerprint", scenario.interval)
        self.sessions: dict[str, Session] = {}
        self._calls = 0

    def join(self, worker: "Process", register: Register) -> None:
        """A worker has connected."""
        name = f"{worker.worker}/{len(self._cluster.names)}"
        self._cluster.names.append(name)
        session = Session(name, worker, self)
        self.sessions[name] = session
        worker.session = session
        self._handle(protocol.Heard(worker.worker, name, register))

    def heard(self, session: Session, message: FromWorker) -> None:
        """A worker says something."""
        self._handle(protocol.Heard(session.worker.worker, session.name, message))

    def lost(self, session: Session) -> None:
        """A session is over."""
        self.sessions.pop(session.name, None)
        self._handle(protocol.Lost(session.worker.worker, session.name))
        self.process.maybe_exit()

    def watch(self, session: Session, since: float) -> None:
        """Give a worker up if it has been silent since then."""
        scenario, scheduler = self._cluster.scenario, self.process.scheduler
        if session.name not in self.sessions or not self._cluster.silent(session):
            return
        if self.process.awake_since > since:  # this process was held up: nobody could be heard
            self.process.later(scenario.patience, lambda: self.watch(session, scheduler.now))
            return
        scheduler.log(f"{session.name} is silent")
        self._handle(protocol.Lost(session.worker.worker, session.name))
        session.break_up(0.0, session.delay())

    def stop(self) -> None:
        """Somebody wants the application to end."""
        self._handle(protocol.StopRequested())

    def rescale(self, base: int, assignment: Assignment) -> None:
        """Somebody wants another assignment."""
        self._handle(protocol.RescaleRequested(base, assignment))

    @property
    def alone(self) -> bool:
        """Whether no other worker is connected."""
        return all(session.worker is self.process for session in self.sessions.values())

    def _handle(self, event: protocol.Event) -> None:
        self._calls += 1
        machine = self.machine
        effects = machine.handle(event, self.process.scheduler.now)
        self._cluster.noticed(machine)
        for effect in effects:
            match effect:
                case protocol.Tell(worker, name, message):
                    self._cluster.invariants.told(self, self._calls, worker, message)
                    session = self.sessions.get(name)
                    if session:
                        session.down.send(message)
                case protocol.Persist(manifest):
                    self._persist(manifest)
                case protocol.Timer(seconds=seconds):
                    self._wait(effect, seconds)
                case protocol.Answer(refusal):
                    self.process.scheduler.log(f"rescale: {refusal or 'begins'}")

    def _wait(self, timer: protocol.Timer, seconds: float) -> None:
        self.process.later(seconds, lambda: self._handle(protocol.Elapsed(timer)))

    def _persist(self, manifest: Manifest) -> None:
        def persisted(_: object) -> None:
            self._handle(protocol.Persisted(manifest.generation, manifest.epoch))

        def failed(error: Exception) -> None:
            raise error

        self.process.submit(lambda: self._manifests.add(manifest), persisted, failed)
