"""A worker's side of the protocol: what it does when, and what it says of it.

It processes only in the generation that it was last told to recover to. It reports an epoch when
all of it is durable, and not before its sinks have published the epoch before.
"""

from dataclasses import dataclass
from enum import Enum

from wallaroo.protocol.manifest import Part
from wallaroo.protocol.messages import (
    Broken,
    Commit,
    Drained,
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
    ToWorker,
)


class Phase(Enum):
    """What a worker does."""

    WAITING = "waiting"
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
    """A stream to or from another worker broke."""

    generation: int
    peer: int


Event = Told | Recovered | Durable | SinksPublished | SourcesEnded | StreamBroke

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


@dataclass(frozen=True)
class Publish:
    """An epoch is committed: tell state and sinks. Then say `SinksPublished`."""

    epoch: int


@dataclass(frozen=True)
class End:
    """The application has ended, or failed."""


@dataclass(frozen=True)
class GiveUp:
    """The coordinator refuses this worker."""

    message: str


Effect = Say | Abandon | GoBack | Run | PutBarrier | Publish | End | GiveUp


@dataclass
class Member:
    """The state machine of a worker."""

    generation: int = 0
    phase: Phase = Phase.WAITING
    #: The last epoch that the sinks have published.
    published: int = 0
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
            case StreamBroke(peer=peer):
                return [Say(Broken(self.generation, peer))]

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
                if message.generation <= self.generation:
                    return []
                abandon = self._halt()
                self.generation = message.generation
                self.phase = Phase.RECOVERING
                # What was committed is published on the way back to it.
                self.published = message.epoch
                return [*abandon, GoBack(message)]
        if message.generation != self.generation:
            return []
        match message:
            case Resume():
                if self.phase is not Phase.READY:
                    return []
                self.phase = Phase.RUNNING
                return [Run()]
            case Inject(epoch=epoch, final=final):
                return [PutBarrier(epoch, final)] if self.phase is Phase.RUNNING else []
            case Commit(epoch=epoch):
                return [Publish(epoch)] if self.phase is Phase.RUNNING else []

    def _halt(self) -> list[Effect]:
        abandon = self.phase is not Phase.WAITING
        self.phase = Phase.WAITING
        self._durable = None
        return [Abandon()] if abandon else []

    def _maybe_prepared(self) -> list[Effect]:
        durable = self._durable
        if durable is None or self.phase is not Phase.RUNNING:
            return []
        if self.published < durable.epoch - 1:  # ruling 28
            return []
        self._durable = None
        return [Say(Prepared(self.generation, durable.epoch, durable.part))]
