"""What a run is started with beside the application, for its command and for each worker."""

from dataclasses import dataclass
from pathlib import Path

from wallaroo.protocol.coordinator import DRAIN_TIME, GRACE

#: Seconds between a worker's signs of life.
HEARTBEAT = 0.5
#: Of an application; and of those that are processes of one machine, for each of its processors.
MOST_WORKERS, MOST_A_CORE = 1000, 32
#: The code with which a worker ends that has said what is wrong.
FAILED = 3


@dataclass(frozen=True)
class Options:
    """Of a run, the same for all its workers.

    workers: how many are asked for; None for as many as there were, one at the beginning.
    interval: seconds between checkpoints; 0 for none but the last.
    cache: entries of state that may be in a worker's memory; None for all.
    dead_letters: where to write events for which a user's function raises; None to stop instead.
    patience: seconds of silence after which a worker counts as lost.
    everywhere: TCP sources listen on all workers, not only on worker 0.
    grace, drain_time: seconds for which a worker that is to leave lets clients in, and in which
        they may then close their connections before it cuts them off.
    metrics: the port on which worker 0 serves metrics, the others on those that follow; None for
        nobody.
    """

    workers: int | None
    interval: float
    cache: int | None
    dead_letters: Path | None
    patience: float
    everywhere: bool = False
    grace: float = GRACE
    drain_time: float = DRAIN_TIME
    metrics: int | None = None

    def flags(self) -> list[str]:
        """As `wallaroo worker` takes them."""
        flags = ["--checkpoint-interval", f"{self.interval}s"]
        if self.workers is not None:
            flags += ["--workers", str(self.workers)]
        flags += ["--heartbeat-timeout", f"{self.patience}s"]
        if self.cache is not None:
            flags += ["--state-cache", str(self.cache)]
        if self.dead_letters is not None:
            flags += ["--on-error", "dead-letter", str(self.dead_letters)]
        if self.everywhere:
            flags.append("--listen-everywhere")
        if self.metrics is not None:
            flags += ["--metrics-port", str(self.metrics)]
        flags += ["--drain-grace", f"{self.grace}s", "--drain-timeout", f"{self.drain_time}s"]
        return flags
