"""What a run is started with beside the application, for its command and for each worker."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Options:
    """Of a run, the same for all its workers.

    workers: how many are asked for; None for as many as there were, one at the beginning.
    interval: seconds between checkpoints; 0 for none but the last.
    cache: entries of state that may be in a worker's memory; None for all.
    dead_letters: where to write events for which a user's function raises; None to stop instead.
    patience: seconds of silence after which a worker counts as lost.
    """

    workers: int | None
    interval: float
    cache: int | None
    dead_letters: Path | None
    patience: float

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
        return flags
