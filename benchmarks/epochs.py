"""What the epochs of a live run take and write, seen from outside: its status, its delta files.

A delta lies in a worker's folder from before its epoch is committed until it is merged into the
base, some epochs later, so whoever looks a few times a second misses none. The epoch that ends a
run is not among them: it is committed when nobody answers any more.
"""

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import children
from wallaroo.state.delta import _blocks, is_delta


@dataclass(frozen=True)
class Epoch:
    """A committed epoch.

    seconds: from its barrier's injection until its manifest was durable. entries, size: touched in
    it, and their bytes in the deltas, of all workers.
    """

    number: int
    seconds: float
    entries: int
    size: int


@dataclass(frozen=True)
class Epochs:
    """Those of one or several runs: how many, and means of what each took; entries, bytes."""

    count: int
    mean: float
    longest: float
    entries: float
    size: float

    @classmethod
    def of(cls, epochs: Iterable[Epoch]) -> "Epochs":
        epochs = list(epochs)
        count = len(epochs)
        if not count:
            return cls(0, 0.0, 0.0, 0.0, 0.0)
        return cls(
            count,
            sum(epoch.seconds for epoch in epochs) / count,
            max(epoch.seconds for epoch in epochs),
            sum(epoch.entries for epoch in epochs) / count,
            sum(epoch.size for epoch in epochs) / count,
        )


class Watch:
    """Notes the epochs of a run whenever it is called."""

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}
        #: By epoch and worker, entries and bytes.
        self._deltas: dict[tuple[int, str], tuple[int, int]] = {}

    def __call__(self, running: children.Running) -> None:
        """Look at a run."""
        status = running.status()
        if not status or not status["epoch"]:
            return
        self._seconds[status["epoch"]] = status["epoch_seconds"]
        for epoch, worker, path in deltas(running.at):
            if epoch <= status["epoch"] and (epoch, worker) not in self._deltas:
                with contextlib.suppress(FileNotFoundError):  # merged meanwhile
                    data = path.read_bytes()
                    entries = sum(block.entries for block in _blocks(data))
                    self._deltas[epoch, worker] = entries, len(data)

    @property
    def epochs(self) -> list[Epoch]:
        """All that were seen, in order."""
        return [
            Epoch(
                number,
                seconds,
                sum(
                    entries for (epoch, _), (entries, _) in self._deltas.items() if epoch == number
                ),
                sum(size for (epoch, _), (_, size) in self._deltas.items() if epoch == number),
            )
            for number, seconds in sorted(self._seconds.items())
        ]


def deltas(at: Path) -> Iterator[tuple[int, str, Path]]:
    """Epoch, worker and path of every delta file of the run in the directory `at`."""
    for path in at.glob("workers/*/deltas/*"):
        if is_delta(path.name):
            yield int(path.name.split("-")[1]), path.parent.parent.name, path
