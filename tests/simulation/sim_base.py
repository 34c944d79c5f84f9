"""The base in memory: batches that are written whole or not at all, and lost until synced."""

import random
from collections.abc import Iterator
from pathlib import Path

from tests.simulation.sim_disk import Crash, ProcessDisk


class Content:
    """What is in the files of a base."""

    def __init__(self) -> None:
        self.epoch = 0
        self.keys = 0
        self.entries: dict[bytes, bytes] = {}
        #: A batch that is written and not synced.
        self.unsynced: tuple[dict[bytes, bytes], int, int] | None = None

    def sync(self) -> None:
        """What is written is durable."""
        if self.unsynced:
            entries, self.epoch, self.keys = self.unsynced
            self.entries.update(entries)
            self.unsynced = None

    def cut(self, chance: random.Random) -> None:
        """Its process dies: what it had not synced is there, or not."""
        if chance.random() < 0.5:
            self.sync()
        self.unsynced = None


class SimBatch:
    """Entries to be written at once."""

    def __init__(self) -> None:
        self.entries: dict[bytes, bytes] = {}

    def put(self, key: bytes, value: bytes) -> None:
        self.entries[key] = value


class SimBase:
    """A base whose files are `content`."""

    def __init__(self, path: Path, content: Content, disk: ProcessDisk) -> None:
        self._path = path
        self._content = content
        self._disk = disk
        self.epoch = content.epoch
        self.keys = content.keys

    @property
    def size(self) -> int:
        return sum(map(len, self._content.entries.values()))

    def get(self, key: bytes) -> bytes | None:
        return self._content.entries.get(key)

    def batch(self) -> SimBatch:
        return SimBatch()

    def write(self, batch: SimBatch, epoch: int, keys: int) -> None:
        if not self._disk.user.operate(f"write base {epoch}"):
            raise Crash
        self._content.unsynced = dict(batch.entries), epoch, keys
        if not self._disk.user.operate(f"sync base {epoch}"):
            raise Crash
        self._content.sync()
        self.epoch, self.keys = epoch, keys

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        yield from sorted(e for e in self._content.entries.items() if start <= e[0] < end)

    def close(self) -> None:
        pass
