"""The application that the memory benchmark runs: every key once; and a plain dict of the same.

    memory_app.py KEYS RESULTS

As an application it writes to the folder RESULTS how many bytes its one worker grew by from its
first read until all was done. Run as a program it prints the same for a plain dict: the same
keys and state objects, made in the same order, in a process that does nothing else.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import children
import events
import wallaroo
from wallaroo.api.connectors import Services, SinkConfig, SinkWriter, SourceConfig, SourceReader

_before: list[int] = []


class Keys(SourceConfig[str]):
    """Every key once, made when it is read: nothing but the state keeps it."""

    def __init__(self, keys: int) -> None:
        self.keys = keys

    def partitions(self) -> list[str]:
        return ["keys"]

    def open(self, partition: str, services: Services, position: Any = None) -> SourceReader:
        return _Reader(self.keys)


class _Reader(SourceReader):
    def __init__(self, keys: int) -> None:
        self._keys = keys
        self._at = 0

    def read(self, limit: int) -> list[str]:
        if not self._at:
            _before.append(children.unshared_bytes())
        end = min(self._at + limit, self._keys)
        batch = [f"w{i}" for i in range(self._at, end)]
        self._at = end
        self.ended = end == self._keys
        return batch


class Growth(SinkConfig[Any]):
    """Drops the outputs, and tells in the end how much the process grew."""

    def __init__(self, results: Path) -> None:
        self.results = results

    def open(self, services: Services, mark: dict[str, Any] | None = None) -> SinkWriter:
        return _Writer(self.results / "growth.json")


class _Writer(SinkWriter):
    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, batch: list[Any]) -> None:
        pass

    def checkpoint(self, epoch: int, done: Callable[[Any], None]) -> None:
        done(None)

    def commit(self, epoch: int, done: Callable[[], None]) -> None:
        done()

    def close(self) -> None:
        if _before:
            self._path.write_text(json.dumps({"bytes": children.unshared_bytes() - _before[0]}))


key_of = wallaroo.key_extractor(events.key_of)
count_word = wallaroo.state_computation("count", events.Total)(events.count_word)


def application_setup(args: list[str]) -> wallaroo.Application:
    """Keys, counted."""
    keys, results = args[1:]
    pipeline = (
        wallaroo.source("keys", Keys(int(keys)))
        .key_by(key_of)
        .to(count_word)
        .to_sink(Growth(Path(results)))
    )
    return wallaroo.build_application("memory", pipeline)


def main() -> None:
    """Fill a plain dict; prints the bytes that the process grew by as JSON."""
    before = children.unshared_bytes()
    states: dict[str, events.Total] = {}
    for i in range(int(sys.argv[1])):
        word = f"w{i}"
        total = states[word] = events.Total()
        events.count_word(word, total)
    print(json.dumps({"bytes": children.unshared_bytes() - before}))


if __name__ == "__main__":
    main()
