"""A store on a disk and a base that forget what is not durable, and who drives it to its end."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.unit.connectors.forgetful import ForgetfulDisk

from wallaroo.protocol.manifest import DeltaMark
from wallaroo.state.allowlist import AllowList
from wallaroo.state.base import Stamp
from wallaroo.state.codec import Codec
from wallaroo.state.store import Store
from wallaroo.state.throttle import Throttle, Worked, at_once

CODEC = Codec(AllowList([Path(__file__).parent]))
FOLDER = Path("/state/deltas")
#: Whether to use what is written in C.
NATIVE = False


class DictBatch:
    def __init__(self) -> None:
        #: (start, end) of what is removed, (key, value) of what is put, in order.
        self.changes: list[tuple[bytes, bytes, bool]] = []

    def put(self, key: bytes, value: bytes) -> None:
        self.changes.append((key, value, False))

    def clear(self, start: bytes, end: bytes) -> None:
        self.changes.append((start, end, True))


class DictView:
    def __init__(self, epoch: int, entries: dict[bytes, bytes]) -> None:
        self.epoch = epoch
        self._entries = sorted(entries.items())
        self.closed = False

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        assert not self.closed
        return iter([each for each in self._entries if start <= each[0] < end])

    def close(self) -> None:
        self.closed = True


class DictBase:
    """A base in memory; a batch is in it whole or, if the machine crashes first, not at all."""

    def __init__(self, disk: ForgetfulDisk) -> None:
        self._disk = disk
        self.entries: dict[bytes, bytes] = {}
        self.stamp = Stamp()
        self.gets = 0
        self.writes: list[int] = []
        self.closed = False

    @property
    def size(self) -> int:
        return sum(len(key) + len(value) for key, value in self.entries.items())

    def get(self, key: bytes) -> bytes | None:
        self.gets += 1
        return self.entries.get(key)

    def batch(self) -> DictBatch:
        return DictBatch()

    def write(self, batch: Any, stamp: Stamp, worked: Worked = at_once) -> None:
        self._disk._operate()
        entries = dict(self.entries)
        for key, value, clear in batch.changes:
            if clear:
                for each in [each for each in entries if key <= each < value]:
                    del entries[each]
            else:
                entries[key] = value
        self.entries, self.stamp = entries, stamp
        self.writes.append(sum(not clear for _, _, clear in batch.changes))
        worked(1.0)
        self._disk._operate()

    def view(self) -> DictView:
        return DictView(self.stamp.epoch, self.entries)

    def close(self) -> None:
        self.closed = True


def merge_jobs() -> int:
    """How many jobs a merge takes: to read, where it is in C to put in order, and to write."""
    return 3 if NATIVE else 2


def ticking() -> Callable[[], float]:
    """A clock that goes on whenever it is looked at."""
    return itertools.count(1.0).__next__


class Keeper:
    """Drives a store as a worker does; each method runs to its end."""

    def __init__(self, cache: int | None = None, seed: int = 0) -> None:
        self.disk = ForgetfulDisk(seed)
        self.base = DictBase(self.disk)
        self.cache = cache
        self.turn = 0.0
        self.clock = ticking()
        #: Pauses of what is done in the background.
        self.pauses: list[float] = []
        self.epoch = 0
        self.marks: tuple[DeltaMark, ...] = ()
        self.store = self.open()

    def open(self) -> Store:
        return Store(
            self.disk,
            FOLDER,
            CODEC,
            self.base,
            self.clock,
            self.cache,
            throttle=Throttle(self.pauses.append),
            turn=self.turn,
            native=NATIVE,
        )

    def work(self) -> None:
        while self.store.work(0):
            pass

    def pass_barrier(self) -> None:
        for place in self.store._places.values():
            place.freeze()

    def write_delta(self) -> DeltaMark:
        """What follows the barrier, up to the report."""
        self.work()
        mark = self.store.take_delta(self.epoch + 1, 1).write()
        self.store.wrote(mark)
        return mark

    def commit(self) -> None:
        """Pass a barrier and commit the epoch."""
        self.pass_barrier()
        self.write_delta()
        self.epoch += 1
        self.marks = self.store.deltas
        self.store.committed(self.epoch)
        self.work()

    def merge(self) -> int:
        """Do the jobs there are; how many."""
        jobs = 0
        while job := self.store.take_job():
            self.store.job_done(job())
            self.work()
            jobs += 1
        self.marks = self.store.deltas
        return jobs

    def roll_back(self) -> None:
        self.store.recover(self.epoch, self.marks)

    def restart(self) -> None:
        """Crash, and start from what is durable."""
        self.disk.crash()
        self.store = self.open()
        self.roll_back()
