"""The application that the rescale benchmark runs: every key once, then updates that carry a time.

    rescale_app.py KEYS RATE SECONDS PARTITIONS FOLDER HOW

For the source see phases.py; each update carries the time at which it was due. Each state object
takes about 100 bytes where it is stored. Every process appends what reached its sink to the folder:
key, time when due, time when it came.

With HOW "at once" a donor copies nothing beforehand: all that moves is sent at the switch. That is
not how Wallaroo does it; it is what that is compared to.
"""

import os
import time
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import wallaroo
from phases import Phased, _Reader, _tick
from wallaroo.api.connectors import Services, SinkConfig, SinkWriter, SourceReader
from wallaroo.runtime import attempt
from wallaroo.state.donor import Donor
from wallaroo.state.parcels import Entries

#: Key and the time when it was due, in ns; 0 while keys are filled in.
Event = tuple[int, int]

_NOTE = "x" * 56


class Timed(Phased):
    """As phases.py's, with times."""

    def open(self, partition: str, services: Services, position: Any = None) -> SourceReader:
        reader = _TimedReader(self, int(partition), position)
        services.spawn(_tick(reader, services))
        return reader


class _TimedReader(_Reader):
    def read(self, limit: int) -> list[Any]:
        filling = self._filled is None
        numbers = super().read(limit)
        if filling or self._go is None or self._filled is None:
            return [(number, 0) for number in numbers]
        first = self._at - len(numbers) - self._filled
        began, period = int(self._go * 1e9), 1e9 / self._rate
        return [
            (number, began + int((first + index) * period)) for index, number in enumerate(numbers)
        ]


class Arrived(SinkConfig[Event]):
    """Notes what came, and when."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def open(self, services: Services, mark: dict[str, Any] | None = None) -> SinkWriter:
        return _Writer(self.folder / f"came-{services.worker}-{os.getpid()}-{time.monotonic_ns()}")


class _Writer(SinkWriter):
    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._came = array("q")

    def write(self, batch: list[Any]) -> None:
        now = time.monotonic_ns()
        for number, due in batch:
            if due:
                self._came.extend((number, due, now))

    def checkpoint(self, epoch: int, done: Callable[[Any], None]) -> None:
        self._flush()
        done(None)

    def commit(self, epoch: int, done: Callable[[], None]) -> None:
        done()

    def _flush(self) -> None:
        self._came.tofile(self._file)
        self._file.flush()
        self._came = array("q")

    def close(self) -> None:
        self._flush()
        self._file.close()


class Account:
    """The state of a key."""

    def __init__(self) -> None:
        self.count = 0
        self.note = _NOTE


@wallaroo.key_extractor
def key_of(event: Event) -> str:
    """The key of an event."""
    return f"k{event[0]}"


@wallaroo.state_computation("count", Account)
def count(event: Event, account: Account) -> Event:
    """Count the key's events."""
    account.count += 1
    return event


def _at_once() -> None:
    """Have donors copy nothing before the switch."""

    class AtOnce(Donor):
        _kept: Any = None

        def _scan_some(self) -> bool:
            self._kept, self._view, self._scan = self._view, None, None
            return True

        def switch(self) -> None:
            for receiver, chunk in self._scanned(self._kept):
                keys, values = map(list, zip(*chunk, strict=True))
                self._outlets[receiver].add(Entries(keys, values))
            super().switch()

    vars(attempt)["Donor"] = AtOnce


def application_setup(args: list[str]) -> wallaroo.Application:
    """Keys, counted."""
    keys, rate, seconds, partitions, into, how = args[1:]
    if how == "at once":
        _at_once()
    folder = Path(into)
    source: Any = Timed(int(keys), 600.0, int(rate), float(seconds), int(partitions), folder)
    events: wallaroo.Pipeline[Event] = wallaroo.source("updates", source)
    pipeline = events.key_by(key_of).to(count).to_sink(Arrived(folder))
    return wallaroo.build_application("rescale", pipeline)
