"""Sessions between workers and the coordinator: in order, slow, and cut at any moment.

When a session is cut its two ends learn of it each at a time of its own, and some of what was on
its way still arrives.
"""

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from wallaroo.protocol.messages import FromWorker, ToWorker

if TYPE_CHECKING:
    from tests.simulation.sim_process import Process
    from tests.simulation.sim_service import Service


class Way:
    """One direction of a session. to: the process that gets what is sent."""

    def __init__(self, session: "Session", take: Callable[[Any], None], what: str) -> None:
        self._session = session
        self._take = take
        self._what = what
        self._messages: deque[Any] = deque()

    def send(self, message: Any) -> None:
        """Give a message on its way."""
        if self._session.cut:
            return
        self._messages.append(message)
        self.hurry(1)

    def hurry(self, count: int = -1) -> None:
        """Let `count` messages arrive, each in its time; all by default."""
        session = self._session
        for _ in range(count if count >= 0 else len(self._messages)):
            session.scheduler.after(session.delay(), self._arrive)

    def _arrive(self) -> None:
        session = self._session
        if not self._messages or session.blocked:
            return
        message = self._messages.popleft()
        session.scheduler.log(f"{self._what} {session.name} {_title(message)}")
        self._take(message)

    def lose(self) -> None:
        """The session is cut: only some of what is on its way arrives."""
        for _ in range(session_losses(self._session, len(self._messages))):
            self._messages.pop()


def session_losses(session: "Session", count: int) -> int:
    """How many of the last messages are lost."""
    return session.scheduler.random.randrange(count + 1)


def _title(message: Any) -> str:
    generation = getattr(message, "generation", "")
    return f"{type(message).__name__} {generation} {getattr(message, 'epoch', '')}"


class Session:
    """A connection of `worker`'s process to the coordinator's."""

    def __init__(self, name: str, worker: "Process", service: "Service") -> None:
        self.name = name
        self.worker = worker
        self.service = service
        self.scheduler = worker.scheduler
        self.cut = False
        self.up = Way(
            self,
            lambda message: service.process.enter(lambda: service.heard(self, message)),
            "up",
        )
        self.down = Way(
            self, lambda message: worker.enter(lambda: worker.told(self, message)), "down"
        )

    def delay(self) -> float:
        """Seconds that a message is under way."""
        return self.scheduler.delay(self.worker.cluster.scenario.control_delay)

    @property
    def blocked(self) -> bool:
        """Whether nothing gets through for now."""
        return self.worker.worker in self.worker.cluster.partitioned

    def break_up(self, to_coordinator: float, to_worker: float) -> None:
        """It is cut; each end learns of it after so many seconds."""
        if self.cut:
            return
        self.cut = True
        self.scheduler.log(f"session {self.name} is cut")
        self.up.lose()
        self.down.lose()
        service, worker = self.service, self.worker
        self.scheduler.after(
            to_coordinator, lambda: service.process.enter(lambda: service.lost(self))
        )
        self.scheduler.after(to_worker, lambda: worker.enter(lambda: worker.coordinator_lost(self)))


Said = FromWorker | ToWorker
