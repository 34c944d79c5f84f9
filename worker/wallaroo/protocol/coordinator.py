"""The coordinator: brings the workers together, starts them, and ends them at one barrier.

Each `handle` takes one event and returns what is to be done about it, in order. It may be told
the same thing twice, or something that no longer matters; it then does nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType


class Phase(Enum):
    """How far the application has come."""

    FORMING = "forming"
    CONNECTING = "connecting"
    RUNNING = "running"
    STOPPING = "stopping"
    ENDED = "ended"
    FAILED = "failed"


# Events


@dataclass(frozen=True)
class Registered:
    """A worker is there. address: where its exchanges listen; fingerprint: of its program."""

    worker: int
    address: str
    fingerprint: str


@dataclass(frozen=True)
class Connected:
    """A worker has opened its streams to all others."""

    worker: int


@dataclass(frozen=True)
class SourcesEnded:
    """A worker has read all that it is to read."""

    worker: int


@dataclass(frozen=True)
class BarrierPassed:
    """All of a worker's stages and sinks have passed the barrier of `epoch`."""

    worker: int
    epoch: int


@dataclass(frozen=True)
class StopRequested:
    """Somebody wants the application to end in an orderly way."""


@dataclass(frozen=True)
class Lost:
    """A worker is gone, or has failed."""

    worker: int


Event = Registered | Connected | SourcesEnded | BarrierPassed | StopRequested | Lost


# Effects


@dataclass(frozen=True)
class Refuse:
    """Tell a worker that it can't take part, and why."""

    worker: int
    message: str


@dataclass(frozen=True)
class Connect:
    """Tell all workers where the others are; they connect to one another."""

    members: Mapping[int, str]


@dataclass(frozen=True)
class Start:
    """Tell all workers to read their sources."""


@dataclass(frozen=True)
class Inject:
    """Tell all workers to put a barrier behind what their sources have given so far."""

    epoch: int
    final: bool


@dataclass(frozen=True)
class Finish:
    """Tell all workers that everything is where it should be: they end."""


Effect = Refuse | Connect | Start | Inject | Finish


@dataclass
class Coordinator:
    """The state machine for an application of `workers` workers."""

    workers: int
    phase: Phase = Phase.FORMING
    epoch: int = 0
    _members: dict[int, Registered] = field(default_factory=dict)
    #: The workers that have done what the phase waits for.
    _done: set[int] = field(default_factory=set)
    _ended: set[int] = field(default_factory=set)
    stop_requested: bool = False

    def handle(self, event: Event) -> list[Effect]:
        """Take an event in; what comes out is to be carried out in this order."""
        match event:
            case Registered():
                return self._registered(event)
            case Lost():
                if self.phase is not Phase.ENDED and event.worker in self._members:
                    self.phase = Phase.FAILED
                return []
            case StopRequested():
                self.stop_requested = True
                return self._maybe_stop()
            case Connected():
                if self.phase is not Phase.CONNECTING or not self._all_done(event.worker):
                    return []
                self._enter(Phase.RUNNING)
                return [Start(), *self._maybe_stop()]
            case SourcesEnded():
                self._ended.add(event.worker)
                return self._maybe_stop()
            case BarrierPassed():
                if self.phase is not Phase.STOPPING or event.epoch != self.epoch:
                    return []
                if not self._all_done(event.worker):
                    return []
                self._enter(Phase.ENDED)
                return [Finish()]

    def _registered(self, event: Registered) -> list[Effect]:
        worker = event.worker
        if self.phase in {Phase.ENDED, Phase.FAILED}:
            return [Refuse(worker, f"the application has {self.phase.value}")]
        if self._members.get(worker) == event:
            return []
        why = self._why_not(event)
        if why:
            return [Refuse(worker, why)]
        self._members[worker] = event
        if len(self._members) < self.workers:
            return []
        self._enter(Phase.CONNECTING)
        members = {each.worker: each.address for each in self._members.values()}
        return [Connect(MappingProxyType(members))]

    def _why_not(self, event: Registered) -> str:
        """Why a worker can't take part; empty if it can."""
        if not 0 <= event.worker < self.workers:
            return f"there is no worker {event.worker} among {self.workers}"
        if event.worker in self._members:
            return f"worker {event.worker} has registered already, from elsewhere"
        for other in self._members.values():
            if other.fingerprint != event.fingerprint:
                return (
                    f"worker {event.worker} runs another program than worker {other.worker}: "
                    "their steps, their code or their Python differ"
                )
        return ""

    def _enter(self, phase: Phase) -> None:
        self.phase = phase
        self._done = set()

    def _all_done(self, worker: int) -> bool:
        self._done.add(worker)
        return len(self._done) == self.workers

    def _maybe_stop(self) -> list[Effect]:
        """A final barrier, if it is time for one: at a stop, or when all sources have ended."""
        if self.phase is not Phase.RUNNING:
            return []
        if not self.stop_requested and len(self._ended) < self.workers:
            return []
        self._enter(Phase.STOPPING)
        self.epoch += 1
        return [Inject(self.epoch, final=True)]
