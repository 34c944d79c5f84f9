"""The coordinator: forms generations of the cluster, and commits epochs one at a time.

Every fault has one answer: a new generation that begins at the last committed epoch. A generation
forms when all members are there; its number is made durable before anybody hears it. All members
go back to the committed epoch; when all have, they resume. From then on one epoch at a time is
injected, prepared by all, made durable as a manifest, and only then announced.

The assignment changes at the barrier of one epoch, which all members of the old assignment and of
the new one pass, and commits with it (wallaroo.protocol.rescale). Whoever asks for that rewrites
the assignment in force and says from which version: what is remembered and tried again is theirs.

An *attended* coordinator has somebody who decides: it starts from nothing only when it is told to,
and a worker whose state is lost waits for that somebody to accept the loss.

`handle` takes one event and returns what is to be done about it, in order. What is late or is
said twice has no effect.
"""

from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from wallaroo.partitioning import Assignment
from wallaroo.protocol import rescale
from wallaroo.protocol.manifest import Manifest, Part
from wallaroo.protocol.messages import (
    Abort,
    Broken,
    Checkpoint,
    Checkpointed,
    Commit,
    ConnectionsClosed,
    Copy,
    Drain,
    Drained,
    Enlist,
    Enlisted,
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
    Staged,
    ToWorker,
)
from wallaroo.protocol.rescale import HISTORY, Rescale

#: Seconds in which a worker whose stream broke turns out to be gone.
SETTLE = 0.1
#: Seconds before a generation that follows one without a commit, doubled each time up to the last.
BACK_OFF, LONGEST_BACK_OFF = 0.2, 5.0
#: Seconds in which all that take part in a rescale must get ready, and in which, while state is
#: copied, something must have been done.
PREPARE_TIME, COPY_TIME = 60.0, 30.0
#: Seconds for which a leaver still lets clients in, and in which they may then close their
#: connections before these are cut.
GRACE, DRAIN_TIME = 5.0, 30.0


class Phase(Enum):
    """How far the application has come."""

    VACANT = "vacant"
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
class BeginRequested:
    """Somebody wants what only a person or an operator may decide.

    A vacant application is to start from nothing, with so many workers. accept_loss: the state of
    workers is lost, and they are to go on without it: those there are state of where the
    application is vacant, else those that are `lost`, as of the last commit, which is of `epoch`.
    """

    workers: int
    accept_loss: bool = False
    epoch: int = 0


@dataclass(frozen=True)
class RescaleRequested:
    """Somebody has rewritten the assignment, and wants the new one.

    base: the version that it was rewritten from. The assignment in force itself calls an attempt
    off that has not come to its switch.
    """

    base: int
    assignment: Assignment


@dataclass(frozen=True)
class Persisted:
    """A manifest is durable."""

    generation: int
    epoch: int


@dataclass(frozen=True)
class Elapsed:
    """A timer has run out."""

    timer: "Timer"


Event = Heard | Lost | StopRequested | BeginRequested | RescaleRequested | Persisted | Elapsed

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


@dataclass(frozen=True)
class Answer:
    """To who asked for a rescale or a beginning: why not; empty if it is on its way."""

    refusal: str


Effect = Tell | Persist | Timer | Answer


@dataclass
class Coordinator:
    """The state machine of an application.

    committed: the manifest from which to go on; of generation 0 and epoch 0 at the beginning.
    fingerprint: of worker 0's program, which counts.
    interval: seconds between barriers; 0 for none but the last.
    grace, drain_time: of the clients that are connected to a worker which is to leave.
    phase: the first one; VACANT for one that is to be told to begin.
    attended: somebody sees what is lost, and decides.
    """

    committed: Manifest
    fingerprint: str
    interval: float
    grace: float = GRACE
    drain_time: float = DRAIN_TIME
    phase: Phase = Phase.FORMING
    attended: bool = False
    stop_requested: bool = False
    #: Generations begun for a fault, since this coordinator started.
    recoveries: int = 0
    _generation: int = field(init=False)
    #: Workers that are there: members, those that wait to join, those that are leaving.
    _present: dict[int, tuple[str, Register]] = field(default_factory=dict)
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
    #: The attempt to rescale that is under way; how many there were in this generation.
    _rescale: Rescale | None = None
    _attempts: int = 0
    _aborted: set[int] = field(default_factory=set)
    #: The manifest that is being made durable is that of its switch.
    _switching: bool = False
    #: The number of the timer at whose end an attempt must have come further.
    _watching: int = 0
    #: Leavers that hold nothing any more; the next manifest says so.
    _left: set[int] = field(default_factory=set)
    _history: list[dict[str, Any]] = field(default_factory=list)
    #: Workers that are there without the state that they should have; by worker, the directory
    #: with which it may go on without.
    _lost: dict[int, tuple[str, Register]] = field(default_factory=dict)
    _accepted: dict[int, str] = field(default_factory=dict)
    #: By worker that is to be told of a checkpoint: the epoch that holds what it has done.
    _asked: dict[int, int] = field(default_factory=dict)
    _now: float = 0.0

    def __post_init__(self) -> None:
        self._generation = self.committed.generation
        self._history = list(self.committed.history)

    @property
    def generation(self) -> int:
        """The number of the current generation; 0 before the first."""
        return self._generation

    @property
    def members(self) -> dict[int, Register]:
        """The members that are there."""
        return {w: r for w, (_, r) in self._present.items() if w in self.committed.members}

    @property
    def joiners(self) -> dict[int, Register]:
        """The workers that are there and could join."""
        others = (*self.committed.members, *self.committed.leaving)
        return {w: r for w, (_, r) in self._present.items() if w not in others}

    @property
    def lost(self) -> list[int]:
        """Members, and workers that are leaving, that are there without their state."""
        return sorted(self._lost)

    @property
    def present(self) -> set[int]:
        """All workers that are there: members, those that could join, those that are leaving."""
        return set(self._present)

    @property
    def rescale(self) -> Rescale | None:
        """The attempt that is under way."""
        return self._rescale

    @property
    def history(self) -> list[dict[str, Any]]:
        """What is remembered of the last attempts to rescale, the newest last."""
        return self._history

    def handle(self, event: Event, now: float = 0.0) -> list[Effect]:
        """Take an event in; what comes out is to be carried out in this order.

        now: seconds, of any clock: for the record of a rescale, not for decisions.
        """
        self._now = now
        match event:
            case Heard(worker, session, Register() as message):
                return self._registered(worker, session, message)
            case Heard(worker, session, Checkpoint()) if self._is_lost(worker, session):
                return [Tell(worker, session, Checkpointed())]  # it has done nothing
            case Heard(worker, session, message):
                if self._present.get(worker, ("",))[0] != session:
                    return []
                return self._heard(worker, message)
            case Lost(worker, session):
                if self._is_lost(worker, session):
                    del self._lost[worker]
                if self._present.get(worker, ("",))[0] != session:
                    return []
                del self._present[worker]
                self._asked.pop(worker, None)
                return self._is_gone(worker)
            case BeginRequested():
                return self._begin_requested(event)
            case StopRequested():
                self.stop_requested = True
                return self._maybe_inject()
            case RescaleRequested(base, assignment):
                return self._requested(base, assignment)
            case Persisted(generation, epoch):
                return self._persisted(generation, epoch)
            case Elapsed(timer):
                return self._elapsed(timer)

    # Membership

    def _registered(self, worker: int, session: str, message: Register) -> list[Effect]:
        if self._present.get(worker, ("",))[0] == session:
            return []
        if self.phase in {Phase.ENDED, Phase.FAILED}:  # its predecessor died on its way out
            return [Tell(worker, session, Finish())]
        why = self._why_not(worker, message)
        if why:
            return [Tell(worker, session, Refuse(why))]
        self._lost.pop(worker, None)
        if self._has_lost(worker, message):
            self._lost[worker] = session, message
            return []
        effects: list[Effect] = []
        if worker in self._present:  # its successor is here before it was missed
            del self._present[worker]
            effects = self._is_gone(worker)
        self._present[worker] = (session, message)
        if worker in self.committed.leaving and self.phase is not Phase.FORMING:
            effects.append(self._let_go(worker))
        return [*effects, *self._maybe_form()]

    def _is_gone(self, worker: int) -> list[Effect]:
        """A worker that was there is there no more."""
        attempt = self._rescale
        if worker in self.committed.members:
            return self._fault(0.0)
        if attempt is None or worker not in attempt.joiners:
            return []  # it was waiting to join, or is leaving
        if attempt.phase is rescale.Phase.SWITCH:
            # All members may be there, and nobody else need come.
            return [*self._fault(0.0), *self._maybe_form()]
        return self._abort(f"worker {worker}, which was to join, went away")

    def _why_not(self, worker: int, message: Register) -> str:
        """Why a worker can't take part; empty if it can."""
        if message.fingerprint != self.fingerprint:
            return (
                f"worker {worker} runs another program than worker 0: their steps, their code or "
                "their Python differ"
            )
        return "" if self.attended else self._why_lost(worker, message)

    def _has_lost(self, worker: int, message: Register) -> bool:
        """Whether a worker lacks state that it should have, or has some of an unknown time."""
        if not self.attended or self.phase is Phase.VACANT:
            return False
        awaited = worker in self.committed.members or worker in self.committed.leaving
        if not awaited or self._accepted.get(worker) == message.directory:
            return False
        return bool(self._why_lost(worker, message))

    def _is_lost(self, worker: int, session: str) -> bool:
        """Whether it is one that was found to lack its state."""
        return self._lost.get(worker, ("",))[0] == session

    def _why_lost(self, worker: int, message: Register) -> str:
        """Why a worker's directory is not the one that it should be; empty if it is."""
        part = self.committed.parts.get(worker) or self.committed.leaving.get(worker)
        if part and part.directory != message.directory:
            return (
                f"worker {worker}'s directory is not the one that the checkpoint of epoch "
                f"{self.committed.epoch} knows (it is {message.directory}, not {part.directory}): "
                "the worker's state is lost; put the directory back, or start anew with another "
                "--dir"
            )
        if not part and message.admitted and not self.committed.parts:
            return (
                f"worker {worker} holds state, but worker 0 knows of no checkpoint: worker 0's "
                "directory is lost; put it back, or start anew with another --dir"
            )
        return ""

    def _heard(self, worker: int, message: FromWorker) -> list[Effect]:
        if self.phase in {Phase.ENDED, Phase.FAILED}:
            if isinstance(message, Checkpoint):  # there is nothing that it would lack
                return [Tell(worker, self._present[worker][0], Checkpointed())]
            return []
        if isinstance(message, Failed):
            return self._has_failed(worker, message)
        if isinstance(message, Checkpoint):
            return self._checkpoint_asked(worker)
        if isinstance(message, Published) and worker in self.committed.leaving:
            return self._has_left(worker)  # of whatever generation: it owns nothing of this one
        if isinstance(message, Register) or message.generation != self._generation:
            return []  # ruling 1: what an earlier generation did is no longer asked for
        match message:
            case Ready():
                return self._is_ready(worker)
            case Drained():
                self._drained.add(worker)
                return self._maybe_inject()
            case Prepared():
                return self._prepared(worker, message)
            case Published(epoch=epoch):
                return self._has_published(worker, epoch)
            case Broken():
                return self._broken(worker, message.peer, message.attempt)
            case Enlisted():
                return self._is_enlisted(worker, message)
            case ConnectionsClosed():
                return self._has_drained(worker, message)
            case Staged():
                return self._has_staged(worker, message)

    def _broken(self, worker: int, peer: int, number: int) -> list[Effect]:
        """A stream between two workers broke, which was opened for an attempt if that is not 0."""
        members, attempt = self.committed.members, self._rescale
        if self.phase not in {Phase.RECOVERING, Phase.RUNNING, Phase.STOPPING}:
            return []
        if number in self._aborted:
            return []
        if worker in members and peer in members and not (attempt and number == attempt.attempt):
            return self._fault(SETTLE)
        if attempt is None or not {worker, peer} <= attempt.everyone:
            return []  # one of them is leaving
        if attempt.phase is rescale.Phase.SWITCH:
            return self._fault(SETTLE)
        return self._abort(f"the connection of worker {worker} to worker {peer} broke")

    def _has_failed(self, worker: int, message: Failed) -> list[Effect]:
        """A worker can't go on. One that was only to join stops nobody."""
        attempt = self._rescale
        switching = attempt is not None and attempt.phase is rescale.Phase.SWITCH
        if worker in self.committed.members or (
            switching and attempt and worker in attempt.everyone
        ):
            return self._finish(Phase.FAILED)
        del self._present[worker]
        if attempt and worker in attempt.joiners:
            return self._abort(f"worker {worker} can't join: {message.failure.message}")
        return []

    # Generations

    def _fault(self, settle: float) -> list[Effect]:
        """Begin a new generation as soon as all members are there."""
        if self.phase in {Phase.ENDED, Phase.FAILED}:
            return []
        was, self.phase = self.phase, Phase.FORMING
        if was is Phase.FORMING:
            return []
        effects = [*self._tell_all(Halt()), *self._checkpointed()]
        attempt = self._rescale
        if attempt and not self._switching:  # else that is not known yet
            phase = attempt.phase.value
            self._conclude(attempt, "aborted", f"there was a fault in the phase '{phase}'")
        seconds = settle
        if self._fruitless:  # ruling 6
            doubled = min(self._fruitless - 1, 32)  # a power without end is no float any more
            seconds += min(BACK_OFF * 2**doubled, LONGEST_BACK_OFF)
        self._fruitless += 1
        self.recoveries += 1
        if seconds:
            timer = self._timer("form", seconds)
            self._waiting = timer.number
            effects.append(timer)
        return effects

    def _maybe_form(self) -> list[Effect]:
        """Make a new generation's number durable, if it is time for one."""
        if self.phase is not Phase.FORMING or self._persisting or self._waiting:
            return []
        if len(self.members) < len(self.committed.members):
            return []
        parts = {worker: self._part(worker, register) for worker, register in self.members.items()}
        return self._persist(self._next(generation=self._generation + 1, parts=parts))

    def _part(self, worker: int, register: Register) -> Part:
        """What a member begins a generation with."""
        known = self.committed.parts.get(worker, Part(register.directory))
        if self._accepted.get(worker) != register.directory:
            return known
        # Its sinks go on behind what they had written. It is as one that joins with the next
        # epoch: whatever its directory holds is of another time.
        return Part(register.directory, sinks=known.sinks, joined=self.committed.epoch + 1)

    def _next(self, **changes: Any) -> Manifest:
        """The committed manifest with what has changed since."""
        committed = self.committed
        left = {w: part.sinks for w, part in committed.leaving.items() if w in self._left}
        leaving = {w: part for w, part in committed.leaving.items() if w not in left}
        retired = {**committed.retired, **left}
        changed = replace(committed, leaving=leaving, retired=retired, history=tuple(self._history))
        return replace(changed, **changes)

    def _form(self) -> list[Effect]:
        self.phase = Phase.RECOVERING
        self._ready.clear()
        self._drained.clear()
        self._published.clear()
        self._injected = 0
        self._due = bool(self._left)  # the next manifest is to say so
        self._pacing = 0
        self._attempts = 0
        self._aborted.clear()
        leaving = [w for w in self.committed.leaving if w in self._present]
        return [
            *(self._recover(worker, self.committed.parts[worker]) for worker in self.members),
            *(self._let_go(worker) for worker in leaving),
        ]

    def _recover(self, worker: int, part: Part) -> Tell:
        committed = self.committed
        addresses = {worker: register.address for worker, register in self.members.items()}
        message = Recover(
            committed.generation,
            committed.epoch,
            committed.assignment,
            addresses,
            committed.places,
            committed.partitions,
            part,
            committed.switched,
        )
        return Tell(worker, self._present[worker][0], message)

    def _let_go(self, worker: int) -> Effect:
        """Have a worker that owns nothing any more publish what its part says, or end."""
        if worker in self._left:
            return Tell(worker, self._present[worker][0], Finish(released=True))
        return self._recover(worker, self.committed.leaving[worker])

    def _has_left(self, worker: int) -> list[Effect]:
        """A leaver holds nothing any more: it may end, and the next manifest says so."""
        if worker in self._left:
            return []
        self._left.add(worker)
        self._due = True
        session, _ = self._present[worker]
        finish = Tell(worker, session, Finish(released=True))
        return [finish, *self._maybe_inject(), *self._maybe_end()]

    def _is_ready(self, worker: int) -> list[Effect]:
        if self.phase is not Phase.RECOVERING:
            return []
        self._ready.add(worker)
        if not self._ready >= set(self.committed.members):  # ruling 2
            return []
        if self.committed.complete or self._closed:
            # What was committed, a worker has published before it was ready.
            self.phase = Phase.STOPPING
            self._published = set(self.committed.members)
            return self._maybe_end()
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
        drained = self._drained >= set(self.committed.members)
        final = self.stop_requested or drained
        attempt = self._rescale
        ready = attempt is not None and 0 < attempt.last <= self.committed.epoch
        if not (self._due or ready or final):
            return []
        effects: list[Effect] = []
        if final:
            effects = self._abort("the application was about to end")
            self.phase = Phase.STOPPING
        elif attempt and ready:  # ruling 23: the epoch before is just committed
            attempt.enter(rescale.Phase.SWITCH, self._now)
            self._watching = 0
        self._final = final
        self._injected = self.committed.epoch + 1
        self._due = False
        self._parts.clear()
        switch = self._rescale.attempt if self._rescale and ready else 0
        effects += self._tell_all(Inject(self._generation, self._injected, final, switch))
        return effects if final else [*effects, *self._interval()]

    def _interval(self) -> list[Effect]:
        if not self.interval:
            return []
        timer = self._timer("epoch", self.interval)
        self._pacing = timer.number
        return [timer]

    def _prepared(self, worker: int, message: Prepared) -> list[Effect]:
        epoch = message.epoch
        if not self._injected or epoch != self._injected:
            return []
        if self._persisting or self.phase is Phase.FORMING:
            return []
        attempt = self._rescale
        switches = attempt is not None and attempt.phase is rescale.Phase.SWITCH
        self._parts[worker] = message.part
        if attempt and switches:
            attempt.held = max(attempt.held, message.held)
        wanted = attempt.everyone if attempt and switches else set(self.committed.members)
        if not self._parts.keys() >= wanted:
            return []
        self._switching = switches
        if not attempt or not switches:
            parts = {w: self._parts[w] for w in self.committed.members}
            return self._persist(self._next(epoch=epoch, parts=parts))
        # The manifest that commits it remembers it: its coordinator may die right behind that.
        record = attempt.record("committed", "", self._now)
        manifest = self._next()
        left = [manifest.departed, *(self._parts[w].counts for w in attempt.leavers)]
        read, received, written, dead = map(sum, zip(*left, strict=True))
        return self._persist(
            replace(
                manifest,
                departed=(read, received, written, dead),
                history=(*self._history, record)[-HISTORY:],
                epoch=epoch,
                assignment=attempt.new,
                switched=epoch,
                parts={w: self._parts[w] for w in attempt.new.workers},
                leaving={**manifest.leaving, **{w: self._parts[w] for w in attempt.leavers}},
                retired={w: s for w, s in manifest.retired.items() if w not in attempt.joiners},
            )
        )

    def _has_published(self, worker: int, epoch: int) -> list[Effect]:
        if self.phase is not Phase.STOPPING or self._injected or epoch != self.committed.epoch:
            return []
        self._published.add(worker)
        return self._maybe_end()

    def _maybe_end(self) -> list[Effect]:
        """Nothing follows what is committed: end once all of it is published."""
        if self.phase is not Phase.STOPPING or self._injected:
            return []
        if not self._published >= set(self.committed.members):
            return []
        if self.committed.leaving.keys() - self._left:
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
        everyone = self._taking_part()
        self._left &= manifest.leaving.keys()
        self.committed, self._generation = manifest, manifest.generation
        if self._switching and self._rescale:
            self._rescale = None
            self._switching = False
            self._history = list(manifest.history)
            self._drained.clear()  # who reads what has changed: they say so anew
        if self.phase is Phase.FAILED:
            return []
        if begins:
            self._accepted.clear()  # the manifest names their directories now
        else:
            # Once a fault has been seen, this was the last commit before the recovery.
            self._fruitless = 1 if self.phase is Phase.FORMING else 0
            self._injected = 0
            self._closed = self._final
        if self.phase is Phase.VACANT:  # it has begun
            self.phase = Phase.FORMING
        if self.phase is Phase.FORMING:
            refusals = self._refuse_strangers()
            # Of a generation only if all its members are still there; else of the next one.
            complete = len(self.members) == len(self.committed.members)
            if begins and complete and not self._waiting:
                return self._form()
            return [*refusals, *self._maybe_form()]
        self._published.clear()
        told = self._tell(everyone, Commit(generation, epoch))
        told += self._checkpointed(epoch)
        return [*told, *self._has_committed(), *self._maybe_inject()]

    def _refuse_strangers(self) -> list[Effect]:
        """Let go of who came before the manifest was durable, and isn't whom it names."""
        refusals: list[Effect] = []
        for worker, (session, message) in list(self._present.items()):
            why = self._why_not(worker, message)
            if why:
                del self._present[worker]
                refusals.append(Tell(worker, session, Refuse(why)))
            elif self._has_lost(worker, message):
                self._lost[worker] = self._present.pop(worker)
        return refusals

    # What somebody else decides

    def _begin_requested(self, asked: BeginRequested) -> list[Effect]:
        why = self._why_no_beginning(asked)
        if why:
            return [Answer(why)]
        if self.phase is Phase.VACANT:
            assignment = Assignment.first(asked.workers)
            for worker, (_, register) in self._present.items():
                if register.admitted and worker in assignment.workers:
                    self._accepted[worker] = register.directory
            return [*self._persist(replace(self.committed, assignment=assignment)), Answer("")]
        effects: list[Effect] = []
        for worker, (session, register) in sorted(self._lost.items()):
            if worker in self._present:
                continue  # its predecessor is not known to be gone
            del self._lost[worker]
            self._present[worker] = session, register
            if worker in self.committed.leaving:  # what it had yet to publish is lost, too
                effects += self._has_left(worker)
            else:
                self._accepted[worker] = register.directory
        return [*effects, *self._maybe_form(), Answer("")]

    def _why_no_beginning(self, asked: BeginRequested) -> str:
        """Why what was asked for can't be; empty if it can."""
        if self.phase is not Phase.VACANT:
            if not asked.accept_loss:
                return "the application has begun already"
            if self.committed.parts and asked.epoch != self.committed.epoch:
                return (
                    f"the last checkpoint is of epoch {self.committed.epoch}, not of epoch "
                    f"{asked.epoch}: look at what is lost, and accept the loss as of that one"
                )
            return ""
        if self._persisting:
            return "the application has begun already"
        if not asked.workers:
            return "an application begins with at least one worker"
        holders = [
            worker
            for worker, (_, register) in sorted(self._present.items())
            if register.admitted and worker < asked.workers
        ]
        if holders and not asked.accept_loss:
            return (
                f"worker {holders[0]} holds state, but worker 0 knows of no checkpoint: worker 0's "
                "directory is lost; put it back, or accept the loss of the state of all workers"
            )
        return ""

    def _checkpoint_asked(self, worker: int) -> list[Effect]:
        """A worker is about to end, and wants what it has done to be in a checkpoint first."""
        final = self.phase is Phase.STOPPING
        processing = self.phase is Phase.RUNNING or (final and self._injected)
        if not processing or worker not in self.committed.members:
            # What it has done is committed, or will be done again in any case.
            return [Tell(worker, self._present[worker][0], Checkpointed())]
        if final:  # nothing is processed behind that barrier
            self._asked[worker] = self._injected
            return []
        self._asked[worker] = (self._injected or self.committed.epoch) + 1
        self._due = True
        return self._maybe_inject()

    def _checkpointed(self, epoch: int | None = None) -> list[Effect]:
        """Answer those whose work an epoch holds; all of them without one: it is undone."""
        held = {w for w, asked in self._asked.items() if epoch is None or asked <= epoch}
        for worker in held:
            del self._asked[worker]
        return self._tell(held, Checkpointed())

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
        if timer.kind == "rescale" and timer.number == self._watching:
            return self._look_after()
        return []

    def _finish(self, phase: Phase) -> list[Effect]:
        if self.phase in {Phase.ENDED, Phase.FAILED}:
            return []
        self.phase = phase
        self._asked.clear()
        if self._rescale and not self._switching:
            self._conclude(self._rescale, "aborted", "the application ended")
        return self._tell(set(self._present), Finish())

    def _taking_part(self) -> set[int]:
        """The members, and in an attempt to rescale those that are to be."""
        return {*self.committed.members, *(self._rescale.everyone if self._rescale else ())}

    def _tell_all(self, message: ToWorker) -> list[Effect]:
        return self._tell(self._taking_part(), message)

    def _tell(self, workers: set[int], message: ToWorker) -> list[Effect]:
        return [
            Tell(worker, session, message)
            for worker, (session, _) in sorted(self._present.items())
            if worker in workers
        ]

    # Rescales

    def _requested(self, base: int, assignment: Assignment) -> list[Effect]:
        attempt = self._rescale
        if attempt and attempt.new == assignment and base == self.committed.assignment.version:
            return [Answer("")]
        if assignment == self.committed.assignment:
            switching = attempt is not None and attempt.phase is rescale.Phase.SWITCH
            return [*([] if switching else self._abort("it was called off")), Answer("")]
        why = self._why_no_rescale(base, assignment)
        if why:
            return [Answer(why)]
        effects = self._abort(f"{len(assignment.workers)} workers were asked for meanwhile")
        self._attempts += 1
        self._rescale = attempt = Rescale(
            self._generation, self._attempts, self.committed.assignment, assignment, self._now
        )
        addresses = {
            worker: register.address
            for worker, (_, register) in self._present.items()
            if worker in attempt.everyone
        }
        for worker in sorted(attempt.everyone):
            message = Enlist(
                self._generation,
                attempt.attempt,
                self.committed.epoch,
                attempt.old,
                attempt.new,
                addresses,
                self.committed.places,
                self.committed.partitions,
                self.committed.retired.get(worker, ()),
            )
            effects.append(Tell(worker, self._present[worker][0], message))
        return [*effects, self._watch(PREPARE_TIME), Answer("")]

    def _why_no_rescale(self, base: int, assignment: Assignment) -> str:
        """Why a rescale can't begin now; empty if it can."""
        version = self.committed.assignment.version
        if base != version or assignment.version != version + 1:
            return (
                f"the assignment was rewritten from version {base} to {assignment.version}, but "
                f"version {version} is in force: rewrite that one"
            )
        if self.phase is not Phase.RUNNING or self.stop_requested:
            return f"the application is {self.phase.value}: ask again when it runs"
        if self._rescale and self._rescale.phase is rescale.Phase.SWITCH:
            return "a rescale is about to commit: ask again when it has"
        if 0 not in assignment.workers:
            return "worker 0 can't leave: it is the coordinator"
        joiners = set(assignment.workers) - set(self.committed.members)
        if leaving := joiners & set(self.committed.leaving):
            return f"worker {min(leaving)} is still leaving: ask again when it has gone"
        if missing := joiners - set(self._present):
            return f"worker {min(missing)} is not there: start it first"
        return ""

    def _watch(self, seconds: float) -> Timer:
        timer = self._timer("rescale", seconds)
        self._watching = timer.number
        return timer

    def _look_after(self) -> list[Effect]:
        """Time is over: give the attempt up, unless it has come further."""
        attempt = self._rescale
        if attempt is None or attempt.phase is rescale.Phase.SWITCH:
            return []  # ruling 24: from there it commits, or a fault recovers
        if attempt.phase is rescale.Phase.DRAIN and attempt.draining:
            # They can't read what they have, and cut the rest at the switch.
            attempt.drained |= attempt.draining
            return [self._watch(COPY_TIME), *self._maybe_catch_up()]
        if attempt.phase is not rescale.Phase.PREPARE and attempt.progressed():
            return [self._watch(COPY_TIME)]
        seconds = PREPARE_TIME if attempt.phase is rescale.Phase.PREPARE else COPY_TIME
        return self._abort(f"{attempt.missing()} within {seconds:g} s")

    def _is_enlisted(self, worker: int, message: Enlisted) -> list[Effect]:
        attempt = self._rescale
        if attempt is None or attempt.attempt != message.attempt:
            return []
        attempt.enlisted.add(worker)
        if message.listens and worker in attempt.leavers:
            attempt.listening.add(worker)
        return self._maybe_copy()

    def _maybe_copy(self) -> list[Effect]:
        """Let donors begin once all are ready, and all state is in some checkpoint."""
        attempt = self._rescale
        if attempt is None or attempt.phase is not rescale.Phase.PREPARE:
            return []
        if not attempt.enlisted >= attempt.everyone:
            return []
        if not attempt.commits and not (self.interval and self.committed.epoch):
            self._due = True  # ruling 23: with checkpoints off, or before the first
            return self._maybe_inject()
        attempt.enter(rescale.Phase.COPY, self._now)
        copy = self._tell_all(Copy(self._generation, attempt.attempt))
        return [*copy, self._watch(COPY_TIME), *self._maybe_catch_up()]

    def _has_staged(self, worker: int, message: Staged) -> list[Effect]:
        attempt = self._rescale
        if attempt is None or attempt.attempt != message.attempt:
            return []
        attempt.staged[worker] = message.epoch, message.entries, message.size
        return self._maybe_catch_up()

    def _maybe_catch_up(self) -> list[Effect]:
        """Once receivers have all that is committed: one epoch at once, then the switch.

        Before that clients of leavers are let go of (ruling 31), while copying goes on. They come
        last, so that they are not sent away for an attempt of which nothing comes.
        """
        attempt = self._rescale
        if attempt is None or attempt.phase not in {rescale.Phase.COPY, rescale.Phase.DRAIN}:
            return []
        if not attempt.caught_up(self.committed.epoch):
            return []
        if attempt.phase is rescale.Phase.COPY and attempt.draining:
            return self._drain(attempt)
        if attempt.draining:
            return []
        attempt.enter(rescale.Phase.CATCH_UP, self._now)
        attempt.last = self.committed.epoch + 1  # it may be under way
        self._due = True
        return self._maybe_inject()

    def _drain(self, attempt: Rescale) -> list[Effect]:
        """Have leavers let go of their clients."""
        attempt.enter(rescale.Phase.DRAIN, self._now)
        drain = Drain(self._generation, attempt.attempt, self.grace, self.drain_time)
        told = self._tell(attempt.draining, drain)
        return [*told, self._watch(self.grace + self.drain_time + COPY_TIME)]

    def _has_drained(self, worker: int, message: ConnectionsClosed) -> list[Effect]:
        attempt = self._rescale
        if attempt is None or attempt.attempt != message.attempt:
            return []
        attempt.lost[worker] = message.lost
        if attempt.phase is not rescale.Phase.DRAIN or worker not in attempt.draining:
            return []
        attempt.drained.add(worker)
        if attempt.draining:
            return []
        return [self._watch(COPY_TIME), *self._maybe_catch_up()]

    def _has_committed(self) -> list[Effect]:
        """What a commit brings about for a rescale."""
        if self._rescale is None:
            return []
        self._rescale.commits += 1
        return [*self._maybe_copy(), *self._maybe_catch_up()]

    def _abort(self, why: str) -> list[Effect]:
        """Give up the attempt, if there is one; what is in force stays."""
        attempt = self._rescale
        if attempt is None:
            return []
        told = self._tell_all(Abort(self._generation, attempt.attempt))
        self._aborted.add(attempt.attempt)
        self._conclude(attempt, "aborted", why)
        return told

    def _conclude(self, attempt: Rescale, outcome: str, why: str) -> None:
        """An attempt has come to nothing."""
        self._rescale = None
        self._switching = False
        self._watching = 0
        self._history = [*self._history, attempt.record(outcome, why, self._now)][-HISTORY:]
