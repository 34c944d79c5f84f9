"""The application that the latency benchmark runs: events offered at a fixed pace, whatever comes.

    latency_app.py RATE KEYS SECONDS WORKERS RESULTS

Each of WORKERS partitions offers its share of RATE events a second for SECONDS. An event carries
the time at which it was due, not the time at which it was read: a dataflow that stalls is charged
for every event that had to wait meanwhile (no coordinated omission).

As from a socket, what is there is found once a turn of the event loop: a task lets the reader look
at the clock, and wakes the dataflow, every half millisecond, which asyncio makes about one, since
it counts in whole milliseconds. So an event waits about half a millisecond in the mean before it
can be read; the readers tell how long it was. (A reader that looked at the clock whenever it was
asked would find an event or two every time, and keep its worker busy with batches of one.)

At the end every worker writes to the folder RESULTS: latencies in ns by the time the event was due,
of events from this worker and from others; the times of reading; CPU seconds of the last part.
"""

import asyncio
import time
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import events
import wallaroo
from wallaroo.api.connectors import Services, SinkConfig, SinkWriter, SourceConfig, SourceReader

#: Seconds between wakes, as asked for.
_TICK = 0.0005

#: Key, the time it is due in ns, the worker that read it.
Event = tuple[str, int, int]

#: Of this process. They tell when all is over: writing a file takes milliseconds.
_readers: list["_Reader"] = []


class Paced(SourceConfig[Event]):
    """`rate` events a second in all for `seconds`, over `keys` keys."""

    def __init__(
        self, rate: int, keys: int, seconds: float, partitions: int, results: Path
    ) -> None:
        self.rate = rate
        self.keys = keys
        self.seconds = seconds
        self.names = [str(i) for i in range(partitions)]
        self.results = results

    def partitions(self) -> list[str]:
        return self.names

    def numbers(self, partition: int, count: int) -> npt.NDArray[np.int64]:
        """The keys of a partition's events, shape (count,)."""
        return np.random.default_rng(partition).integers(0, self.keys, count)

    def open(self, partition: str, services: Services, position: Any = None) -> SourceReader:
        share = self.rate // len(self.names)
        words = events.named(self.numbers(int(partition), int(share * self.seconds)))
        path = self.results / f"read-{partition}"
        reader = _Reader(words, 10**9 // share, services.worker, path)
        _readers.append(reader)
        services.spawn(_tick(reader, services))
        return reader


async def _tick(reader: "_Reader", services: Services) -> None:
    while True:
        reader.may_look = True
        services.wake()
        await asyncio.sleep(_TICK)


class _Reader(SourceReader):
    """Gives `words`, one every `period` ns."""

    def __init__(self, words: list[str], period: int, worker: int, path: Path) -> None:
        self._words = words
        self._period = period
        self._worker = worker
        self._path = path
        self.may_look = False
        self._began = 0
        self._at = 0
        #: How many had been read after each read, and when.
        self._counts = array("q")
        self._times = array("q")
        self._cpu: list[tuple[int, float]] = []

    def read(self, limit: int) -> list[Event]:
        if not self.may_look:
            return []
        now = time.monotonic_ns()
        if not self._began:
            self._began = now
        due = min((now - self._began) // self._period + 1, len(self._words))
        end = min(due, self._at + limit)
        self.may_look = end < due
        if end == self._at:
            return []
        words, began, period, worker = self._words, self._began, self._period, self._worker
        batch = [(words[i], began + i * period, worker) for i in range(self._at, end)]
        self._at = end
        self._counts.append(end)
        self._times.append(now)
        if not self._cpu or now - self._cpu[-1][0] > 10**8:
            self._cpu.append((now, time.process_time()))
        self.ended = end == len(words)
        return batch

    def tell(self) -> None:
        """Write when the events were due, and how long each waited to be read."""
        due = self._began + np.arange(len(self._words)) * self._period
        read = np.searchsorted(np.array(self._counts), np.arange(len(self._words)), side="right")
        np.savez(
            self._path, due=due, took=np.array(self._times)[read] - due, cpu=np.array(self._cpu)
        )


class Latencies(SinkConfig[tuple[int, int]]):
    """Notes how long each event took until it came here."""

    def __init__(self, results: Path) -> None:
        self.results = results

    def open(self, services: Services, mark: dict[str, Any] | None = None) -> SinkWriter:
        return _Writer(services.worker, self.results / f"written-{services.worker}")


class _Writer(SinkWriter):
    def __init__(self, worker: int, path: Path) -> None:
        self._worker = worker
        self._path = path
        self._due = array("q")
        self._took = array("q")
        self._sender = array("q")

    def write(self, batch: list[tuple[int, int]]) -> None:
        now = time.monotonic_ns()
        for due, sender in batch:
            self._due.append(due)
            self._took.append(now - due)
            self._sender.append(sender)

    def checkpoint(self, epoch: int, done: Callable[[Any], None]) -> None:
        done(None)

    def commit(self, epoch: int, done: Callable[[], None]) -> None:
        done()

    def close(self) -> None:
        np.savez(
            self._path,
            due=np.array(self._due),
            took=np.array(self._took),
            local=np.array(self._sender) == self._worker,
        )
        for reader in _readers:
            reader.tell()


@wallaroo.key_extractor
def key_of(event: Event) -> str:
    """The key of an event."""
    return event[0]


@wallaroo.state_computation("count", events.Total)
def count(event: Event, total: events.Total) -> tuple[int, int]:
    """Count the key's events; the output is what the latency is computed from."""
    total.count += 1
    return event[1:]


def application_setup(args: list[str]) -> wallaroo.Application:
    """Paced events, counted by key."""
    rate, keys, seconds, workers, results = args[1:]
    source = Paced(int(rate), int(keys), float(seconds), int(workers), Path(results))
    pipeline = (
        wallaroo.source("paced", source).key_by(key_of).to(count).to_sink(Latencies(Path(results)))
    )
    return wallaroo.build_application("latency", pipeline)
