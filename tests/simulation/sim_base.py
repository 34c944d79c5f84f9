"""Bases in memory: batches that are written whole or not at all, and lost until synced."""

import random
from collections.abc import Iterator
from pathlib import Path

from tests.simulation.sim_disk import Crash, ProcessDisk

from wallaroo.state.base import Stamp
from wallaroo.state.throttle import Worked, at_once

Changes = list[tuple[bytes, bytes | None, bytes]]


class Content:
    """What is in the files of a base."""

    def __init__(self) -> None:
        self.stamp = Stamp()
        self.entries: dict[bytes, bytes] = {}
        #: A batch that is written and not synced.
        self.unsynced: tuple[Changes, Stamp] | None = None

    def sync(self) -> None:
        """What is written is durable."""
        if self.unsynced:
            changes, self.stamp = self.unsynced
            for key, value, end in changes:
                if value is None:
                    self.entries = {k: v for k, v in self.entries.items() if not key <= k < end}
                else:
                    self.entries[key] = value
            self.unsynced = None

    def cut(self, chance: random.Random) -> None:
        """Its process dies: what it had not synced is there, or not."""
        if chance.random() < 0.5:
            self.sync()
        self.unsynced = None


class SimBatch:
    """Changes to be written at once."""

    def __init__(self) -> None:
        self.changes: Changes = []

    def put(self, key: bytes, value: bytes) -> None:
        self.changes.append((key, value, b""))

    def clear(self, start: bytes, end: bytes) -> None:
        self.changes.append((start, None, end))


class SimView:
    """A base as it was."""

    def __init__(self, content: Content) -> None:
        self.epoch = content.stamp.epoch
        self._entries = sorted(content.entries.items())

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        yield from (entry for entry in self._entries if start <= entry[0] < end)

    def close(self) -> None:
        pass


class SimBase:
    """A base whose files are `content`."""

    def __init__(self, path: Path, content: Content, disk: ProcessDisk) -> None:
        self._path = path
        self._content = content
        self._disk = disk
        self.stamp = content.stamp

    @property
    def size(self) -> int:
        return sum(map(len, self._content.entries.values()))

    def get(self, key: bytes) -> bytes | None:
        return self._content.entries.get(key)

    def batch(self) -> SimBatch:
        return SimBatch()

    def write(self, batch: SimBatch, stamp: Stamp, worked: Worked = at_once) -> None:
        if not self._disk.user.operate(f"write {self._path.name} {stamp.epoch}"):
            raise Crash
        self._content.unsynced = list(batch.changes), stamp
        if not self._disk.user.operate(f"sync {self._path.name} {stamp.epoch}"):
            raise Crash
        self._content.sync()
        self.stamp = stamp

    def view(self) -> SimView:
        return SimView(self._content)

    def close(self) -> None:
        pass


class SimBases:
    """The databases in one worker's folder."""

    def __init__(self, contents: dict[str, Content], disk: ProcessDisk) -> None:
        self._contents = contents
        self._disk = disk

    def open(self, path: Path, *, brief: bool = False) -> SimBase:
        return SimBase(path, self._contents.setdefault(path.name, Content()), self._disk)

    def remove(self, path: Path) -> None:
        if path.name in self._contents:
            if not self._disk.user.operate(f"remove {path.name}"):
                raise Crash
            del self._contents[path.name]

    def names(self, folder: Path) -> list[str]:
        return sorted(self._contents)
