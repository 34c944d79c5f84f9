"""A worker's side of the protocol: what it does when, and what it says of it.

It processes only in the generation that it was last told to recover to. It reports an epoch when
all of it is durable, and not before its sinks have published the epoch before. One that is to join
takes part in the generation that it is enlisted in, from the barrier of the switch on.
"""

from dataclasses import dataclass
from enum import Enum

from wallaroo.protocol.manifest import Part
from wallaroo.protocol.messages import (
    Abort,
    Broken,
    Checkpointed,
    Commit,
    ConnectionsClosed,
    Copy,
    Drain,
    Drained,
    Enlist,
    Enlisted,
    Finish,
    FromWorker,
    Halt,
    Inject,
    Prepared,
    Published,
    Ready,
    Recover,
    Refuse,
    Resume,
    Staged,
    ToWorker,
)


class Phase(Enum):
    """What a worker does."""

    WAITING = "waiting"
    JOINING = "joining"
    RECOVERING = "recovering"
    READY = "ready"
    RUNNING = "running"
    ENDED = "ended"


# Events


@dataclass(frozen=True)
class Told:
    """The coordinator says something."""

    message: ToWorker


@dataclass(frozen=True)
class Recovered:
    """The worker holds the committed epoch, and its streams are open."""

    generation: int


@dataclass(frozen=True)
class Durable:
    """All that this worker did in an epoch is durable: its delta and what its sinks hold."""

    generation: int
    epoch: int
    part: Part
    held: float = 0.0


@dataclass(frozen=True)
class SinksPublished:
    """All sinks have published an epoch."""

    generation: int
    epoch: int


@dataclass(frozen=True)
class SourcesEnded:
    """There is nothing left to read here."""

    generation: int


@dataclass(frozen=True)
class StreamBroke:
    """A stream to or from another worker broke, which was opened for an attempt if not 0."""

    generation: int
    peer: int
    attempt: int = 0


@dataclass(frozen=True)
class IsEnlisted:
    """The worker is ready for an attempt to rescale. listens: it leaves, and has clients."""

    generation: int
    attempt: int
    listens: bool = False


@dataclass(frozen=True)
class ClientsGone:
    """No client is connected here any more. lost: bytes of those cut off that were not read."""

    generation: int
    attempt: int
    lost: int


@dataclass(frozen=True)
class HasStaged:
    """All that was committed up to an epoch has come from all donors."""

    generation: int
    attempt: int
    epoch: int
    entries: int
    size: int


Event = (
    Told
    | Recovered
    | Durable
    | SinksPublished
    | SourcesEnded
    | StreamBroke
    | IsEnlisted
    | ClientsGone
    | HasStaged
)

# Effects


@dataclass(frozen=True)
class Say:
    """Say something to the coordinator."""

    message: FromWorker


@dataclass(frozen=True)
class Abandon:
    """Stop processing; drop the dataflow with its streams, sources and sinks."""


@dataclass(frozen=True)
class GoBack:
    """Make what was committed the present, and connect to the others. Then say `Recovered`."""

    to: Recover


@dataclass(frozen=True)
class Run:
    """Process."""


@dataclass(frozen=True)
class PutBarrier:
    """Put a barrier behind what the sources have given."""

    epoch: int
    final: bool
    switch: bool


@dataclass(frozen=True)
class GetReady:
    """Open streams to all that take part in an attempt to rescale. Then say `IsEnlisted`.

    joins: from nothing, to become a member.
    """

    to: Enlist
    joins: bool


@dataclass(frozen=True)
class Donate:
    """Send what moves to its receivers."""

    attempt: int


@dataclass(frozen=True)
class LetGo:
    """Let go of the clients that are connected here. Then say `ClientsGone`.

    grace, patience: seconds, of `Drain`.
    """

    attempt: int
    grace: float
    patience: float


@dataclass(frozen=True)
class GiveUpAttempt:
    """Forget an attempt to rescale."""

    attempt: int


@dataclass(frozen=True)
class Publish:
    """An epoch is committed: tell state and sinks. Then say `SinksPublished`.

    switched: it is the one behind which the new assignment holds.
    """

    epoch: int
    switched: bool


@dataclass(frozen=True)
class End:
    """The application has ended, or failed."""


@dataclass(frozen=True)
class GiveUp:
    """The coordinator refuses this worker."""

    message: str


Effect = (
    Say
    | Abandon
    | GoBack
    | Run
    | PutBarrier
    | GetReady
    | Donate
    | LetGo
    | GiveUpAttempt
    | Publish
    | End
    | GiveUp
)


@dataclass
class Member:
    """The state machine of worker `worker`."""

    worker: int = 0
    generation: int = 0
    phase: Phase = Phase.WAITING
    #: The last epoch that the sinks have published.
    published: int = 0
    #: The attempt to rescale that it takes part in, and the epoch of its switch; 0 for none.
    attempt: int = 0
    #: It is about to leave: clients should go elsewhere.
    draining: bool = False
    _switch: int = 0
    _durable: Durable | None = None

    def handle(self, event: Event) -> list[Effect]:
        """Take an event in; what comes out is to be carried out in this order."""
        if self.phase is Phase.ENDED:
            return []
        if isinstance(event, Told):
            return self._told(event.message)
        if event.generation != self.generation:
            return []
        match event:
            case Recovered():
                if self.phase is not Phase.RECOVERING:
                    return []
                self.phase = Phase.READY
                return [Say(Ready(self.generation))]
            case Durable():
                self._durable = event
                return self._maybe_prepared()
            case SinksPublished(epoch=epoch):
                self.published = epoch
                return [Say(Published(self.generation, epoch)), *self._maybe_prepared()]
            case SourcesEnded():
                return [Say(Drained(self.generation))]
            case StreamBroke(peer=peer, attempt=attempt):
                return [Say(Broken(self.generation, peer, attempt))]
            case IsEnlisted(attempt=attempt):
                if attempt != self.attempt:
                    return []
                return [Say(Enlisted(self.generation, attempt, event.listens))]
            case ClientsGone(attempt=attempt, lost=lost):
                if attempt != self.attempt:
                    return []
                return [Say(ConnectionsClosed(self.generation, attempt, lost))]
            case HasStaged(attempt=attempt):
                if attempt != self.attempt:
                    return []
                said = Staged(self.generation, attempt, event.epoch, event.entries, event.size)
                return [Say(said)]

    def _told(self, message: ToWorker) -> list[Effect]:
        match message:
            case Refuse(message=why):
                self.phase = Phase.ENDED
                return [Abandon(), GiveUp(why)]
            case Finish():
                self.phase = Phase.ENDED
                return [Abandon(), End()]
            case Halt():
                return self._halt()
            case Recover():
                # One that is leaving, and was lost for a while, comes back to the same generation:
                # no new one begins for its sake.
                leaving = self.worker not in message.assignment.workers
                last = self.generation - (leaving and self.phase is Phase.WAITING)
                if message.generation <= last:
                    return []
                abandon = self._halt()
                self.generation = message.generation
                self.phase = Phase.RECOVERING
                # What was committed is published on the way back to it.
                self.published = message.epoch
                return [*abandon, GoBack(message)]
            case Enlist():
                return self._enlist(message)
            case Checkpointed():
                return []  # whoever asked for it
        if message.generation != self.generation:
            return []
        match message:
            case Resume():
                if self.phase is not Phase.READY:
                    return []
                self.phase = Phase.RUNNING
                return [Run()]
            case Inject(epoch=epoch, final=final, switch=switch):
                if switch and switch == self.attempt and self.phase is Phase.JOINING:
                    self.phase = Phase.RUNNING
                    self.published = epoch - 1
                if self.phase is not Phase.RUNNING:
                    return []
                self._switch = epoch if switch else 0
                return [PutBarrier(epoch, final, bool(switch))]
            case Commit(epoch=epoch):
                if self.phase is not Phase.RUNNING:
                    return []
                switched = epoch == self._switch
                if switched:
                    self.attempt = self._switch = 0
                return [Publish(epoch, switched)]
            case Copy(attempt=attempt):
                return [Donate(attempt)] if attempt == self.attempt else []
            case Drain(attempt=attempt, grace=grace, patience=patience):
                if attempt != self.attempt:
                    return []
                self.draining = True
                return [LetGo(attempt, grace, patience)]
            case Abort(attempt=attempt):
                return self._give_up(attempt)

    def _enlist(self, message: Enlist) -> list[Effect]:
        if self.phase is Phase.RUNNING and message.generation == self.generation:
            self.attempt = message.attempt
            return [GetReady(message, joins=False)]
        if self.phase is not Phase.WAITING or message.generation < self.generation:
            return []
        self.generation = message.generation
        self.phase = Phase.JOINING
        self.attempt = message.attempt
        return [GetReady(message, joins=True)]

    def _give_up(self, attempt: int) -> list[Effect]:
        if attempt != self.attempt:
            return []
        self.attempt = self._switch = 0
        self.draining = False
        if self.phase is Phase.JOINING:
            return self._halt()
        return [GiveUpAttempt(attempt)]

    def _halt(self) -> list[Effect]:
        abandon = self.phase is not Phase.WAITING
        self.phase = Phase.WAITING
        self._durable = None
        self.attempt = self._switch = 0
        self.draining = False
        return [Abandon()] if abandon else []

    def _maybe_prepared(self) -> list[Effect]:
        durable = self._durable
        if durable is None or self.phase is not Phase.RUNNING:
            return []
        if self.published < durable.epoch - 1:  # ruling 28
            return []
        self._durable = None
        prepared = Prepared(self.generation, durable.epoch, durable.part, durable.held)
        return [Say(prepared)]
