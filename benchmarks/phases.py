"""A source in two phases, for what needs much state first: every key once, then updates of them.

The first goes as fast as it can. The second begins when the benchmark says so, by `go`, once it
has seen what it wants to see of the first; it offers events at a fixed pace, whatever comes, or as
many as are taken. Every partition has its own share of the keys. What event comes at which place is
a function of the partition and the place alone, so a partition can be read again from anywhere,
and the benchmark can tell what must come out.
"""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wallaroo.api.connectors import Services, SourceConfig, SourceReader

#: Seconds between looks at the clock, in the second phase.
_TICK = 0.005
#: Updates are drawn in blocks of so many.
_BLOCK = 1024
#: More updates than are ever made.
_NO_END = 1 << 62


class Phased(SourceConfig[int]):
    """Numbers of keys, in `partitions` partitions.

    keys: to begin with, or as many as `fill_seconds` allow. rate: updates a second, in all; 0 for
    as many as are taken. seconds: of updates. folder: where to look for `go`, and to write to.
    """

    def __init__(
        self,
        keys: int,
        fill_seconds: float,
        rate: int,
        seconds: float,
        partitions: int,
        folder: Path,
    ) -> None:
        self.keys = keys
        self.fill_seconds = fill_seconds
        self.rate = rate
        self.seconds = seconds
        self.names = [str(i) for i in range(partitions)]
        self.folder = folder

    def partitions(self) -> list[str]:
        return self.names

    def open(self, partition: str, services: Services, position: Any = None) -> SourceReader:
        reader = _Reader(self, int(partition), position)
        services.spawn(_tick(reader, services))
        return reader


async def _tick(reader: "_Reader", services: Services) -> None:
    while True:
        reader.look()
        services.wake()
        # All readers of a process at the same time.
        await asyncio.sleep(_TICK - time.monotonic() % _TICK)


class _Reader(SourceReader):
    def __init__(self, config: Phased, partition: int, position: Any) -> None:
        count = len(config.names)
        self._config = config
        self._partition = partition
        self._share = _share(config.keys, partition, count)
        self._rate = config.rate / count
        self._until_filled = 0.0
        self._at: int = position["at"] if position else 0
        #: How many keys there are; None while they are being filled in.
        self._filled: int | None = position["filled"] if position else None
        #: When updates begin; how many of them may be read by now.
        self._go: float | None = None
        self._due = 0
        self._block: tuple[int, list[int]] = (-1, [])
        #: Whether what is read has been read before, or is late for that.
        self._behind = position is not None

    def look(self) -> None:
        """See how far updates may go."""
        if self._go is None:
            self._go = going(self._config.folder)
        if self._go is None or self._filled is None:
            return
        passed = time.monotonic() - self._go
        if self._rate:
            self._due = int(min(max(0.0, passed), self._config.seconds) * self._rate)
        elif passed < self._config.seconds:
            self._due = _NO_END
        else:
            self.ended = True

    def read(self, limit: int) -> list[int]:
        if self.ended:
            return []
        if self._filled is None:
            return self._fill(limit)
        at = self._at - self._filled
        block, offset = divmod(at, _BLOCK)
        end = min(self._due, at + limit, at - offset + _BLOCK)
        if end <= at:
            self._maybe_end(at)
            return []
        if block != self._block[0]:
            count = len(self._config.names)
            drawn = updates(self._partition, count, self._filled, block)
            self._block = (block, drawn.tolist())
        self._at += end - at
        return self._block[1][offset : offset + end - at]

    def _maybe_end(self, at: int) -> None:
        if self._behind and self._go is not None:
            self._behind = False
            note(self._config.folder, f"caught-up-{self._partition}", time.monotonic())
        if self._rate and at == int(self._config.seconds * self._rate):
            self.ended = True

    def _fill(self, limit: int) -> list[int]:
        now = time.monotonic()
        if not self._until_filled:
            self._until_filled = now + self._config.fill_seconds
        end = min(self._at + limit, self._share)
        if end == self._at or now > self._until_filled:
            self._filled = self._at
            took = now - self._until_filled + self._config.fill_seconds
            note(self._config.folder, f"filled-{self._partition}", [self._filled, took])
            return []
        count = len(self._config.names)
        numbers = range(self._partition + self._at * count, self._partition + end * count, count)
        self._at = end
        return list(numbers)

    def position(self) -> Any:
        return {"at": self._at, "filled": self._filled}


def _share(keys: int, partition: int, partitions: int) -> int:
    return len(range(partition, keys, partitions))


def updates(partition: int, partitions: int, filled: int, block: int) -> npt.NDArray[np.int64]:
    """A block of a partition's updates: its keys, equally likely; shape (1024,)."""
    drawn = np.random.default_rng((partition, block)).integers(0, filled, _BLOCK)
    return drawn * partitions + partition


def offered(keys: int, rate: int, seconds: float, partitions: int) -> npt.NDArray[np.int64]:
    """How often each key comes from a `Phased` that ends by itself, shape (keys,)."""
    counts = np.ones(keys, np.int64)
    for partition in range(partitions):
        left = int(seconds * (rate / partitions))
        for block in range(-(-left // _BLOCK)):
            drawn = updates(partition, partitions, _share(keys, partition, partitions), block)
            np.add.at(counts, drawn[: left - block * _BLOCK], 1)
    return counts


def go(folder: Path) -> float:
    """Let updates begin; returns when that is, by the clock that all processes share."""
    now = time.monotonic()
    note(folder, "go", now)
    return now


def going(folder: Path) -> float | None:
    """When updates begin, or began."""
    try:
        return float((folder / "go").read_text())
    except FileNotFoundError:
        return None


def filled(folder: Path, partitions: int) -> list[tuple[int, float]] | None:
    """By partition, how many keys it has and how long that took; None while that is not over."""
    found = notes(folder, "filled")
    return found if len(found) == partitions else None


def note(folder: Path, name: str, value: object) -> None:
    """Write something for the benchmark, at once."""
    draft = folder / f".{name}"
    draft.write_text(json.dumps(value))
    draft.replace(folder / name)


def notes(folder: Path, what: str) -> list[Any]:
    """What has been noted under `what` by partitions."""
    return [json.loads(file.read_text()) for file in sorted(folder.glob(f"{what}-*"))]


updates(0, 1, 1, 0)  # the first takes 20 ms; processes are forked from one that has done it
