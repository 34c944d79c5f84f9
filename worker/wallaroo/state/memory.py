"""State that lives in memory alone, for running an application without a directory."""

from collections.abc import Callable, Iterator
from pathlib import Path

from wallaroo.disk import RealDisk
from wallaroo.state.base import Stamp
from wallaroo.state.codec import Codec
from wallaroo.state.store import Store
from wallaroo.state.throttle import Worked, at_once


class _Nowhere(RealDisk):
    """A disk that nothing is written to."""

    def make_folder(self, folder: Path) -> None:
        pass


class _Batch:
    def __init__(self) -> None:
        self.entries: dict[bytes, bytes] = {}
        self.cleared: list[tuple[bytes, bytes]] = []

    def put(self, key: bytes, value: bytes) -> None:
        self.entries[key] = value

    def clear(self, start: bytes, end: bytes) -> None:
        self.cleared.append((start, end))


class _View:
    def __init__(self, epoch: int, entries: dict[bytes, bytes]) -> None:
        self.epoch = epoch
        self._entries = sorted(entries.items())

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        yield from (entry for entry in self._entries if start <= entry[0] < end)

    def close(self) -> None:
        pass


class MemoryBase:
    """A base that lives as long as its process."""

    size = 0

    def __init__(self) -> None:
        self.stamp = Stamp()
        self._entries: dict[bytes, bytes] = {}

    def get(self, key: bytes) -> bytes | None:
        return self._entries.get(key)

    def batch(self) -> _Batch:
        return _Batch()

    def write(self, batch: _Batch, stamp: Stamp, worked: Worked = at_once) -> None:
        for start, end in batch.cleared:
            self._entries = {k: v for k, v in self._entries.items() if not start <= k < end}
        self._entries.update(batch.entries)
        self.stamp = stamp

    def view(self) -> _View:
        return _View(self.stamp.epoch, self._entries)

    def close(self) -> None:
        pass


def memory_store(codec: Codec, clock: Callable[[], float] = lambda: 0.0) -> Store:
    """A store whose epochs are never committed."""
    return Store(_Nowhere(), Path("/nowhere"), codec, MemoryBase(), clock)
