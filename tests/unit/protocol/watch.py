"""What must hold of a coordinator whatever it hears, checked at every effect."""

from dataclasses import dataclass, field

from wallaroo.partitioning import Assignment
from wallaroo.protocol.coordinator import (
    Coordinator,
    Effect,
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
from wallaroo.protocol.manifest import Manifest, Part
from wallaroo.protocol.messages import (
    Commit,
    Drained,
    Finish,
    Halt,
    Inject,
    Prepared,
    Published,
    Ready,
    Recover,
    Refuse,
    Register,
    Resume,
)

OVER = {Phase.ENDED, Phase.FAILED}


def beginning(workers: int) -> Manifest:
    """The manifest of an application that has not begun: two partitions of one source."""
    partitions = {"numbers": {"a": 1 << 62, "b": 3 << 62}}
    return Manifest("test", 0, 0, Assignment.first(workers), {"tally": 0}, partitions)


def register(worker: int, directory: str = "", *, admitted: bool = False) -> Register:
    return Register(f"unix:{worker}", "same", directory or f"directory {worker}", admitted)


@dataclass
class Watched:
    """A coordinator that is watched."""

    machine: Coordinator
    events: list[Event] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)
    #: Of each member, the session in which it was taken in.
    sessions: dict[int, str] = field(default_factory=dict)
    #: What the members have said in this generation.
    ready: set[int] = field(default_factory=set)
    drained: set[int] = field(default_factory=set)
    published: set[int] = field(default_factory=set)
    parts: dict[int, Part] = field(default_factory=dict)
    stop_requested: bool = False
    recovering: int = 0
    resumed: bool = False
    injected: Inject | None = None
    persisting: Manifest | None = None
    #: Whether the manifest that is being made durable is of a final epoch.
    final: bool = False
    #: A final epoch is committed.
    closed: bool = False
    used: set[int] = field(default_factory=set)
    over: bool = False

    @classmethod
    def new(cls, workers: int, interval: float = 1.0) -> "Watched":
        return cls(Coordinator(beginning(workers), "same", interval))

    @property
    def committed(self) -> Manifest:
        return self.machine.committed

    def tell(self, *events: Event) -> list[Effect]:
        """Let the events come in one after the other; what came of all of them."""
        effects: list[Effect] = []
        for event in events:
            self.events.append(event)
            before = (self.committed.generation, self.committed.epoch)
            self._hear(event)
            found = self.machine.handle(event)
            for effect in found:
                self._check(effect)
            after = (self.committed.generation, self.committed.epoch)
            assert after >= before, "what is committed went back"
            assert after[1] >= before[1], "what is committed went back"
            effects += found
        self.effects += effects
        return effects

    # What comes in

    def _hear(self, event: Event) -> None:
        match event:
            case Heard(worker, session, Register()):
                pass  # whether it is taken in is seen by what it is told
            case Heard(worker, session, message):
                if self.sessions.get(worker) == session:
                    self._said(worker, message)
            case Lost(worker, session):
                if self.sessions.get(worker) == session:
                    del self.sessions[worker]
            case StopRequested():
                self.stop_requested = True
            case Persisted(generation, epoch):
                manifest = self.persisting
                if manifest and (manifest.generation, manifest.epoch) == (generation, epoch):
                    self.persisting = None
                    self.used.add(generation)
                    if epoch and self.injected and self.injected.epoch == epoch:
                        self.injected = None
                        self.closed |= self.final
                        self.published.clear()

    def _said(self, worker: int, message: object) -> None:
        generation = self.machine.generation
        match message:
            case Ready(said) if said == generation:
                self.ready.add(worker)
            case Drained(said) if said == generation:
                self.drained.add(worker)
            case Published(said, epoch) if said == generation and epoch == self.committed.epoch:
                self.published.add(worker)
            case Prepared(said, epoch, part) if said == generation:
                if self.injected and epoch == self.injected.epoch and not self.persisting:
                    self.parts[worker] = part

    # What comes out

    def _check(self, effect: Effect) -> None:
        members = set(self.committed.members)
        if self.over:
            assert isinstance(effect, Tell), f"{effect} when all is over"
            assert isinstance(effect.message, Finish | Refuse), f"{effect} when all is over"
        match effect:
            case Timer():
                assert effect.seconds > 0
            case Persist(manifest):
                self._check_manifest(manifest)
            case Tell(worker, session, Refuse()):
                if self.sessions.get(worker) == session:
                    del self.sessions[worker]
            case Tell(worker, session, message):
                if isinstance(message, Recover):
                    self.sessions[worker] = session
                if self.over:
                    return  # to whom it comes is of no matter
                assert self.machine._members[worker][0] == session, "told to one that is gone"
                assert worker in members
                self._check_message(worker, message)

    def _check_message(self, worker: int, message: object) -> None:
        members = set(self.committed.members)
        generation = self.machine.generation
        if isinstance(message, Recover | Resume | Inject | Commit):
            assert message.generation in self.used, "it is not durable (ruling 3)"
            assert message.generation == generation
        match message:
            case Halt():
                self._new_generation()
            case Recover():
                if message.generation != self.recovering:
                    self.recovering = message.generation
                    self._new_generation()
                assert message.epoch == self.committed.epoch
                assert message.part == self.committed.parts[worker]
                assert set(message.addresses) == members
            case Resume():
                assert self.ready == members, "not all are ready (ruling 2)"
                assert not self.closed, "nothing follows a final epoch (ruling 17)"
                assert not self.committed.complete, "all that there is was processed (ruling 18)"
                self.resumed = True
            case Inject():
                assert self.resumed
                assert self.injected in (None, message), "two epochs are in flight"
                assert message.epoch == self.committed.epoch + 1
                if self.injected is None:
                    assert message.final == (self.stop_requested or self.drained == members)
                    self.parts.clear()
                self.injected = message
            case Commit():
                assert (generation, message.epoch) == (
                    self.committed.generation,
                    self.committed.epoch,
                ), "it is not durable (ruling 3)"
            case Finish():
                self._check_end(members)

    def _check_end(self, members: set[int]) -> None:
        self.over = True
        if self.machine.phase is Phase.ENDED:
            assert self.closed or self.committed.complete
            assert members in (self.published, self.ready)

    def _check_manifest(self, manifest: Manifest) -> None:
        assert self.persisting is None, "two manifests at once"
        before = self.committed
        if manifest.generation != self.machine.generation:
            assert manifest.generation == self.machine.generation + 1
            assert manifest.generation not in self.used, "a number used twice (ruling 3)"
            assert manifest.epoch == before.epoch
            for worker, part in before.parts.items():
                assert manifest.parts[worker] == part, "what is committed changed"
        else:
            assert self.injected
            assert manifest.epoch == self.injected.epoch == before.epoch + 1
            assert manifest.parts == self.parts, "a part that nobody reported"
            self.final = self.injected.final
        assert set(manifest.parts) == set(manifest.members)
        self.persisting = manifest

    def _new_generation(self) -> None:
        for said in (self.ready, self.drained, self.published):
            said.clear()
        self.resumed = False
        if not self.persisting:
            self.injected = None
            self.parts.clear()
