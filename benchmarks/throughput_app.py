"""The application that the throughput benchmark runs: one key, one state, one output per event.

    throughput_app.py KIND COUNT WORKERS RESULTS

Every worker makes its share of the words before it starts, so that making them is not measured,
and writes to the folder RESULTS when it began to read, when the last output had reached its sink
(both by a clock that all processes share) and the CPU seconds of all its threads in between.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import events
import wallaroo
from wallaroo.api.connectors import Services, SinkConfig, SinkWriter, SourceConfig, SourceReader

#: When readers of this process were first asked, and the CPU seconds used until then.
_began: list[tuple[float, float]] = []


def begin() -> None:
    """A reader of this process is asked for the first time."""
    _began.append((time.monotonic(), time.process_time()))


class Words(SourceConfig[str]):
    """Words from memory, in as many partitions as there are workers."""

    def __init__(self, kind: str, count: int, partitions: int) -> None:
        self.kind = kind
        self.count = count
        self.names = [str(i) for i in range(partitions)]

    def partitions(self) -> list[str]:
        return self.names

    def open(self, partition: str, services: Services, position: Any = None) -> SourceReader:
        share = self.count // len(self.names)
        return _Reader(events.words(self.kind, share, seed=int(partition)))


class _Reader(SourceReader):
    def __init__(self, words: list[str]) -> None:
        self._words = words
        self._at = 0

    def read(self, limit: int) -> list[Any]:
        if not self._at:
            begin()
        batch = self._words[self._at : self._at + limit]
        self._at += len(batch)
        self.ended = self._at == len(self._words)
        return batch


class Counter(SinkConfig[Any]):
    """Counts the outputs and drops them."""

    def __init__(self, results: str) -> None:
        self.results = Path(results)

    def open(self, services: Services, mark: dict[str, Any] | None = None) -> SinkWriter:
        return _Writer(self.results / f"{services.worker}.json")


class _Writer(SinkWriter):
    def __init__(self, path: Path) -> None:
        self._path = path
        self._count = 0
        self._last = (0.0, 0.0)

    def write(self, batch: list[Any]) -> None:
        self._count += len(batch)
        self._last = (time.monotonic(), time.process_time())

    def checkpoint(self, epoch: int, done: Callable[[Any], None]) -> None:
        done(None)

    def commit(self, epoch: int, done: Callable[[], None]) -> None:
        done()

    def close(self) -> None:
        began, cpu_before = min(_began, default=self._last)
        ended, cpu = self._last
        result = {
            "began": began,
            "ended": ended,
            "outputs": self._count,
            "cpu": cpu - cpu_before,
        }
        self._path.write_text(json.dumps(result))


key_of = wallaroo.key_extractor(events.key_of)
count_word = wallaroo.state_computation("count", events.Total)(events.count_word)


def application_setup(args: list[str]) -> wallaroo.Application:
    """Words, counted by word."""
    kind, count, workers, results = args[1:]
    pipeline = (
        wallaroo.source("words", Words(kind, int(count), int(workers)))
        .key_by(key_of)
        .to(count_word)
        .to_sink(Counter(results))
    )
    return wallaroo.build_application(f"throughput {kind}", pipeline)
