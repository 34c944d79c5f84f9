"""The application that the recovery and the disk benchmarks run: every key once, then updates.

    phases_app.py KEYS FILL_SECONDS RATE SECONDS PARTITIONS FOLDER SINK

For all but SINK see phases.py. With SINK "drop" outputs are dropped. With "record" the folder gets,
for each process, the time and size of every batch that reached the sink, and for each epoch of each
worker all that it had put out. An epoch that is not committed is run again, under the same number,
and replaces what it had left; so in the end there is what was committed, and nothing else.
"""

import os
import struct
import time
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import events
import wallaroo
from phases import Phased
from wallaroo.api.connectors import Services, SinkConfig, SinkWriter

#: When a batch came, in ns, and how many events it has.
BATCH = struct.Struct("<qq")
#: An output is its key's number, shifted by so much, and which one of its key it is.
SHIFT = 24


class Dropped(SinkConfig[int]):
    """Nothing is kept of the outputs."""

    def open(self, services: Services, mark: dict[str, Any] | None = None) -> SinkWriter:
        return _Dropped()


class _Dropped(SinkWriter):
    def write(self, batch: list[Any]) -> None:
        pass

    def checkpoint(self, epoch: int, done: Callable[[Any], None]) -> None:
        done(None)

    def commit(self, epoch: int, done: Callable[[], None]) -> None:
        done()


class Recorded(SinkConfig[int]):
    """Everything is kept of the outputs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def open(self, services: Services, mark: dict[str, Any] | None = None) -> SinkWriter:
        return _Recorder(self.folder, services.worker)


class _Recorder(SinkWriter):
    def __init__(self, folder: Path, worker: int) -> None:
        self._folder = folder
        self._worker = worker
        self._outputs = array("q")
        path = folder / f"batches-{worker}-{os.getpid()}"
        self._batches = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def write(self, batch: list[int]) -> None:
        # At once: this process may be killed at any time.
        os.write(self._batches, BATCH.pack(time.monotonic_ns(), len(batch)))
        self._outputs.extend(batch)

    def checkpoint(self, epoch: int, done: Callable[[Any], None]) -> None:
        outputs, self._outputs = self._outputs, array("q")
        with (self._folder / f"outputs-{self._worker}-{epoch}").open("wb") as file:
            outputs.tofile(file)
        done(None)

    def commit(self, epoch: int, done: Callable[[], None]) -> None:
        done()

    def close(self) -> None:
        os.close(self._batches)


@wallaroo.key_extractor
def key_of(number: int) -> str:
    """The key of a number."""
    return f"k{number}"


@wallaroo.state_computation("count", events.Total)
def count(number: int, total: events.Total) -> int:
    """Count the key's events."""
    total.count += 1
    return number << SHIFT | total.count


def application_setup(args: list[str]) -> wallaroo.Application:
    """Numbers, counted by key."""
    keys, fill_seconds, rate, seconds, partitions, into, sink = args[1:]
    folder = Path(into)
    source = Phased(
        int(keys), float(fill_seconds), int(rate), float(seconds), int(partitions), folder
    )
    pipeline = (
        wallaroo.source("numbers", source)
        .key_by(key_of)
        .to(count)
        .to_sink(Recorded(folder) if sink == "record" else Dropped())
    )
    return wallaroo.build_application("phases", pipeline)
