"""The coordinator: forms generations of the cluster, and commits epochs one at a time.

Every fault has one answer: a new generation that begins at the last committed epoch. A generation
forms when all members are there; its number is made durable before anybody hears it. All members
go back to the committed epoch; when all have, they resume. From then on one epoch at a time is
injected, prepared by all, made durable as a manifest, and only then announced.

`handle` takes one event and returns what is to be done about it, in order. What is late or is
said twice has no effect.
"""

from dataclasses import dataclass, field, replace
from enum import Enum

from wallaroo.protocol.manifest import Manifest, Part
from wallaroo.protocol.messages import (
    Broken,
    Commit,
    Drained,
    Failed,
    Finish,
    FromWorker,
    Halt,
    Inject,
    Prepared,
    Published,
    Ready,
    Recover,
    Refuse,
    Register,
    Resume,
    ToWorker,
)

#: Seconds in which a worker whose stream broke turns out to be gone.
SETTLE = 0.1
#: Seconds before a generation that follows one without a commit, doubled each time up to the last.
BACK_OFF, LONGEST_BACK_OFF = 0.2, 5.0


class Phase(Enum):
    """How far the application has come."""

    FORMING = "forming"
    RECOVERING = "recovering"
    RUNNING = "running"
    STOPPING = "stopping"
    ENDED = "ended"
    FAILED = "failed"


# Events


@dataclass(frozen=True)
class Heard:
    """A worker has said something in a session: its connection to the coordinator."""

    worker: int
    session: str
    message: FromWorker


@dataclass(frozen=True)
class Lost:
    """A worker's session has broken, or has been silent for too long."""

    worker: int
    session: str


@dataclass(frozen=True)
class StopRequested:
    """Somebody wants the application to end in an orderly way."""


@dataclass(frozen=True)
class Persisted:
    """A manifest is durable."""

    generation: int
    epoch: int


@dataclass(frozen=True)
class Elapsed:
    """A timer has run out."""

    timer: "Timer"


Event = Heard | Lost | StopRequested | Persisted | Elapsed

# Effects


@dataclass(frozen=True)
class Tell:
    """Say something to a worker in its session."""

    worker: int
    session: str
    message: ToWorker


@dataclass(frozen=True)
class Persist:
    """Make a manifest durable; one at a time. Then say `Persisted`."""

    manifest: Manifest


@dataclass(frozen=True)
class Timer:
    """Say `Elapsed` after `seconds`. A timer that no longer matters may elapse: it does nothing."""

    kind: str
    number: int
    seconds: float


Effect = Tell | Persist | Timer


@dataclass
class Coordinator:
    """The state machine of an application.

    committed: the manifest from which to go on; of generation 0 and epoch 0 at the beginning.
    fingerprint: of worker 0's program, which counts.
    interval: seconds between barriers; 0 for none but the last.
    """

    committed: Manifest
    fingerprint: str
    interval: float
    phase: Phase = Phase.FORMING
    stop_requested: bool = False
    #: Generations begun for a fault, since this coordinator started.
    recoveries: int = 0
    _generation: int = field(init=False)
    _members: dict[int, tuple[str, Register]] = field(default_factory=dict)
    _ready: set[int] = field(default_factory=set)
    _drained: set[int] = field(default_factory=set)
    _published: set[int] = field(default_factory=set)
    _parts: dict[int, Part] = field(default_factory=dict)
    #: The epoch in flight, if there is one; whether nothing follows it; whether another is due.
    _injected: int = 0
    _final: bool = False
    _due: bool = False
    #: The epoch that nothing follows is committed.
    _closed: bool = False
    #: A manifest that is being made durable.
    _persisting: Manifest | None = None
    #: Generations since the last commit: the next one backs off.
    _fruitless: int = 0
    #: The number of the timer before whose end no generation begins; 0 if there is none.
    _waiting: int = 0
    #: The number of the timer at whose end the next epoch is due.
    _pacing: int = 0
    _timers: int = 0

    def __post_init__(self) -> None:
        self._generation = self.committed.generation

    @property
    def generation(self) -> int:
        """The number of the current generation; 0 before the first."""
        return self._generation

    @property
    def members(self) -> dict[int, Register]:
        """The workers that are there."""
        return {worker: register for worker, (_, register) in self._members.items()}

    def handle(self, event: Event) -> list[Effect]:
        """Take an event in; what comes out is to be carried out in this order."""
        match event:
            case Heard(worker, session, Register() as message):
                return self._registered(worker, session, message)
            case Heard(worker, session, message):
                if self._members.get(worker, ("",))[0] != session:
                    return []
                return self._heard(worker, message)
            case Lost(worker, session):
                if self._members.get(worker, ("",))[0] != session:
                    return []
                del self._members[worker]
                return self._fault(0.0)
            case StopRequested():
                self.stop_requested = True
                return self._maybe_inject()
            case Persisted(generation, epoch):
                return self._persisted(generation, epoch)
            case Elapsed(timer):
                return self._elapsed(timer)

    # Membership

    def _registered(self, worker: int, session: str, message: Register) -> list[Effect]:
        if self._members.get(worker, ("",))[0] == session:
            return []
        if self.phase in {Phase.ENDED, Phase.FAILED}:  # its predecessor died on its way out
            return [Tell(worker, session, Finish())]
        why = self._why_not(worker, message)
        if why:
            return [Tell(worker, session, Refuse(why))]
        effects: list[Effect] = []
        if worker in self._members:  # its successor is here before it was missed
            del self._members[worker]
            effects = self._fault(0.0)
        self._members[worker] = (session, message)
        return [*effects, *self._maybe_form()]

    def _why_not(self, worker: int, message: Register) -> str:
        """Why a worker can't take part; empty if it can."""
        members = self.committed.members
        if worker not in members:
            return f"there is no worker {worker} among {', '.join(map(str, members))}"
        if message.fingerprint != self.fingerprint:
            return (
                f"worker {worker} runs another program than worker 0: their steps, their code or "
                "their Python differ"
            )
        part = self.committed.parts.get(worker)
        if part and part.directory != message.directory:
            return (
                f"worker {worker}'s directory is not the one that the checkpoint of epoch "
                f"{self.committed.epoch} knows (it is {message.directory}, not {part.directory}): "
                "the worker's state is lost; put the directory back, or start anew with another "
                "--dir"
            )
        if not part and message.admitted:
            return (
                f"worker {worker} holds state, but worker 0 knows of no checkpoint: worker 0's "
                "directory is lost; put it back, or start anew with another --dir"
            )
        return ""

    def _heard(self, worker: int, message: FromWorker) -> list[Effect]:
        if self.phase in {Phase.ENDED, Phase.FAILED}:
            return []
        if isinstance(message, Failed):
            return self._finish(Phase.FAILED)
        if isinstance(message, Register) or message.generation != self._generation:
            return []  # ruling 1: what an earlier generation did is no longer asked for
        match message:
            case Ready():
                return self._is_ready(worker)
            case Drained():
                self._drained.add(worker)
                return self._maybe_inject()
            case Prepared(epoch=epoch, part=part):
                return self._prepared(worker, epoch, part)
            case Published(epoch=epoch):
                return self._has_published(worker, epoch)
            case Broken():
                if self.phase in {Phase.RECOVERING, Phase.RUNNING, Phase.STOPPING}:
                    return self._fault(SETTLE)
                return []

    # Generations

    def _fault(self, settle: float) -> list[Effect]:
        """Begin a new generation as soon as all members are there."""
        if self.phase in {Phase.ENDED, Phase.FAILED}:
            return []
        was, self.phase = self.phase, Phase.FORMING
        if was is Phase.FORMING:
            return []
        seconds = settle
        if self._fruitless:  # ruling 6
            doubled = min(self._fruitless - 1, 32)  # a power without end is no float any more
            seconds += min(BACK_OFF * 2**doubled, LONGEST_BACK_OFF)
        self._fruitless += 1
        self.recoveries += 1
        effects = self._tell_all(Halt())
        if seconds:
            timer = self._timer("form", seconds)
            self._waiting = timer.number
            effects.append(timer)
        return effects

    def _maybe_form(self) -> list[Effect]:
        """Make a new generation's number durable, if it is time for one."""
        if self.phase is not Phase.FORMING or self._persisting or self._waiting:
            return []
        if set(self._members) != set(self.committed.members):
            return []
        parts = {
            worker: self.committed.parts.get(worker, Part(register.directory))
            for worker, (_, register) in self._members.items()
        }
        return self._persist(replace(self.committed, generation=self._generation + 1, parts=parts))

    def _form(self) -> list[Effect]:
        self.phase = Phase.RECOVERING
        self._ready.clear()
        self._drained.clear()
        self._published.clear()
        self._injected = 0
        self._due = False
        self._pacing = 0
        committed = self.committed
        addresses = {worker: register.address for worker, register in self.members.items()}
        return [
            Tell(
                worker,
                session,
                Recover(
                    committed.generation,
                    committed.epoch,
                    committed.assignment,
                    addresses,
                    committed.places,
                    committed.partitions,
                    committed.parts[worker],
                ),
            )
            for worker, (session, _) in self._members.items()
        ]

    def _is_ready(self, worker: int) -> list[Effect]:
        if self.phase is not Phase.RECOVERING:
            return []
        self._ready.add(worker)
        if len(self._ready) < len(self.committed.members):  # ruling 2
            return []
        # What was committed, a worker has published before it was ready.
        if self.committed.complete or self._closed:
            return self._finish(Phase.ENDED)
        self.phase = Phase.RUNNING
        return [
            *self._tell_all(Resume(self._generation)),
            *self._interval(),
            *self._maybe_inject(),
        ]

    # Epochs

    def _maybe_inject(self) -> list[Effect]:
        """Inject the next barrier if it is time for it: a final one when nothing is to follow."""
        if self.phase is not Phase.RUNNING or self._injected:
            return []
        drained = len(self._drained) == len(self.committed.members)
        if not (self._due or self.stop_requested or drained):
            return []
        self._injected = self.committed.epoch + 1
        self._final = self.stop_requested or drained
        if self._final:
            self.phase = Phase.STOPPING
        self._due = False
        self._parts.clear()
        effects = self._tell_all(Inject(self._generation, self._injected, self._final))
        return effects if self._final else [*effects, *self._interval()]

    def _interval(self) -> list[Effect]:
        if not self.interval:
            return []
        timer = self._timer("epoch", self.interval)
        self._pacing = timer.number
        return [timer]

    def _prepared(self, worker: int, epoch: int, part: Part) -> list[Effect]:
        if not self._injected or epoch != self._injected:
            return []
        if self._persisting or self.phase is Phase.FORMING:
            return []
        self._parts[worker] = part
        if len(self._parts) < len(self.committed.members):
            return []
        return self._persist(replace(self.committed, epoch=epoch, parts=dict(self._parts)))

    def _has_published(self, worker: int, epoch: int) -> list[Effect]:
        if self.phase is not Phase.STOPPING or self._injected or epoch != self.committed.epoch:
            return []
        self._published.add(worker)
        if len(self._published) < len(self.committed.members):
            return []
        return self._finish(Phase.ENDED)

    # Manifests

    def _persist(self, manifest: Manifest) -> list[Effect]:
        self._persisting = manifest
        return [Persist(manifest)]

    def _persisted(self, generation: int, epoch: int) -> list[Effect]:
        manifest = self._persisting
        if manifest is None or (manifest.generation, manifest.epoch) != (generation, epoch):
            return []
        self._persisting = None
        begins = manifest.generation != self._generation
        self.committed, self._generation = manifest, manifest.generation
        if self.phase is Phase.FAILED:
            return []
        if not begins:
            # Once a fault has been seen, this was the last commit before the recovery.
            self._fruitless = 1 if self.phase is Phase.FORMING else 0
            self._injected = 0
            self._closed = self._final
        if self.phase is Phase.FORMING:
            refusals = self._refuse_strangers()
            # Of a generation only if all its members are still there; else of the next one.
            complete = set(self._members) == set(self.committed.members)
            if begins and complete and not self._waiting:
                return self._form()
            return [*refusals, *self._maybe_form()]
        self._published.clear()
        return [*self._tell_all(Commit(generation, epoch)), *self._maybe_inject()]

    def _refuse_strangers(self) -> list[Effect]:
        """Let go of who came before the manifest was durable, and isn't whom it names."""
        refusals: list[Effect] = []
        for worker, (session, message) in list(self._members.items()):
            why = self._why_not(worker, message)
            if why:
                del self._members[worker]
                refusals.append(Tell(worker, session, Refuse(why)))
        return refusals

    # Timers and endings

    def _timer(self, kind: str, seconds: float) -> Timer:
        self._timers += 1
        return Timer(kind, self._timers, seconds)

    def _elapsed(self, timer: Timer) -> list[Effect]:
        if timer.kind == "form" and timer.number == self._waiting:
            self._waiting = 0
            return self._maybe_form()
        if timer.kind == "epoch" and timer.number == self._pacing:
            self._due = True
            return self._maybe_inject()
        return []

    def _finish(self, phase: Phase) -> list[Effect]:
        if self.phase in {Phase.ENDED, Phase.FAILED}:
            return []
        self.phase = phase
        return self._tell_all(Finish())

    def _tell_all(self, message: ToWorker) -> list[Effect]:
        return [
            Tell(worker, session, message) for worker, (session, _) in sorted(self._members.items())
        ]
