"""The flow that the throughput benchmark runs on bytewax: the same two functions, for comparison.

    python -m bytewax.run "bytewax_flow:flow('KIND', COUNT, 'RESULTS')" [-i N -a ADDRESSES]

It is written as bytewax's manual would have it, and gets what helps it: words in memory in
batches of a thousand, a partition for each worker, a sink that takes batches and drops them.
Every worker writes the same results as one of ours (throughput_app.py), to the folder RESULTS.
"""

import json
import time
from pathlib import Path
from typing import Any

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import DynamicSource, StatelessSourcePartition
from bytewax.outputs import DynamicSink, StatelessSinkPartition

import events

#: Events of one batch.
_BATCH = 1000

_began: list[float] = []


class Words(DynamicSource[str]):  # type: ignore[misc, unused-ignore]
    """Words from memory, a share for each worker."""

    def __init__(self, kind: str, count: int) -> None:
        self.kind = kind
        self.count = count

    def build(self, step_id: str, worker_index: int, worker_count: int) -> "_Partition":
        return _Partition(events.words(self.kind, self.count // worker_count, seed=worker_index))


class _Partition(StatelessSourcePartition[str]):  # type: ignore[misc, unused-ignore]
    def __init__(self, words: list[str]) -> None:
        self._words = words
        self._at = 0

    def next_batch(self) -> list[str]:
        if not self._at:
            _began.append(time.monotonic())
        if self._at >= len(self._words):
            raise StopIteration
        batch = self._words[self._at : self._at + _BATCH]
        self._at += len(batch)
        return batch


class Counter(DynamicSink[Any]):  # type: ignore[misc, unused-ignore]
    """Counts the outputs and drops them."""

    def __init__(self, results: str) -> None:
        self.results = Path(results)

    def build(self, step_id: str, worker_index: int, worker_count: int) -> "_Writer":
        return _Writer(self.results / f"{worker_index}.json")


class _Writer(StatelessSinkPartition[Any]):  # type: ignore[misc, unused-ignore]
    def __init__(self, path: Path) -> None:
        self._path = path
        self._count = 0
        self._last = 0.0

    def write_batch(self, items: list[Any]) -> None:
        self._count += len(items)
        self._last = time.monotonic()

    def close(self) -> None:
        result = {
            "began": min(_began, default=self._last),
            "ended": self._last,
            "outputs": self._count,
        }
        self._path.write_text(json.dumps(result))


def count_word(total: events.Total | None, word: str) -> tuple[events.Total, tuple[str, int]]:
    """The state function in the form that `stateful_map` takes."""
    if total is None:
        total = events.Total()
    return total, events.count_word(word, total)


def flow(kind: str, count: int, results: str) -> Dataflow:
    """Words, counted by word."""
    dataflow = Dataflow("throughput")
    words = op.input("words", dataflow, Words(kind, count))
    keyed = op.key_on("key", words, events.key_of)
    counted = op.stateful_map("count", keyed, count_word)
    op.output("out", counted, Counter(results))
    return dataflow
