"""The application that the checkpoint benchmark runs for throughput: words for so many seconds.

    checkpoint_app.py KIND SECONDS WORKERS RESULTS

It is throughput_app.py's, but for its source: that one's words, all made before the start, would
not last for several checkpoints. Here every worker makes a million, as text of a batch each, and
goes through them again and again until the time is over. Cutting a text gives words that are new
objects, as if they had just arrived, for about 30 ns each; that is part of what is measured.
"""

import time
from typing import Any

import events
import throughput_app
import wallaroo
from throughput_app import Counter
from wallaroo.api.connectors import Services, SourceConfig, SourceReader

_WORDS = 1_000_000
#: Words of one text: as many as a batch has at most.
_TEXT = 1024


class Words(SourceConfig[str]):
    """Words from memory for `seconds`, in as many partitions as there are workers."""

    def __init__(self, kind: str, seconds: float, partitions: int) -> None:
        self.kind = kind
        self.seconds = seconds
        self.names = [str(i) for i in range(partitions)]

    def partitions(self) -> list[str]:
        return self.names

    def open(self, partition: str, services: Services, position: Any = None) -> SourceReader:
        words = events.words(self.kind, _WORDS, seed=int(partition))
        texts = [" ".join(words[at : at + _TEXT]) for at in range(0, _WORDS, _TEXT)]
        return _Reader(texts, self.seconds)


class _Reader(SourceReader):
    def __init__(self, texts: list[str], seconds: float) -> None:
        self._texts = texts
        self._seconds = seconds
        self._until = 0.0
        self._at = 0
        #: What is left of the last text.
        self._left: list[str] = []

    def read(self, limit: int) -> list[Any]:
        if not self._until:
            throughput_app.begin()
            self._until = time.monotonic() + self._seconds
        batch = self._left
        if not batch:
            if time.monotonic() >= self._until:
                self.ended = True
                return []
            batch = self._texts[self._at].split(" ")
            self._at = (self._at + 1) % len(self._texts)
        if len(batch) > limit:
            batch, self._left = batch[:limit], batch[limit:]
        else:
            self._left = []
        return batch


def application_setup(args: list[str]) -> wallaroo.Application:
    """Words, counted by word."""
    kind, seconds, workers, results = args[1:]
    pipeline = (
        wallaroo.source("words", Words(kind, float(seconds), int(workers)))
        .key_by(throughput_app.key_of)
        .to(throughput_app.count_word)
        .to_sink(Counter(results))
    )
    return wallaroo.build_application(f"checkpoint {kind}", pipeline)
