"""Count the words of the book again and again, until a file says that it is enough.

APP.py ENOUGH OUT: it ends at the end of the book once there is a file ENOUGH.
"""

import gzip
from pathlib import Path

from word_count import count, encode_count, split, word_itself

import wallaroo

with gzip.open(Path(__file__).with_name("kjv.txt.gz"), "rt", encoding="utf-8") as book:
    _LINES = book.read().splitlines()


class Again:
    """The lines of the book, over and over. Where it is in the book is all its state."""

    def __init__(self, enough: str) -> None:
        self.enough = enough
        self.line = 0

    def initial_value(self) -> str:
        return _LINES[0]

    def apply(self, _previous: str) -> str | None:
        self.line = (self.line + 1) % len(_LINES)
        if self.line == 0 and Path(self.enough).exists():
            return None
        return _LINES[self.line]


def application_setup(args: list[str]) -> wallaroo.Application:
    _, enough, out = args
    lines = wallaroo.source("book", wallaroo.GenSourceConfig("book", Again(enough)))
    counts = lines.to(split).key_by(word_itself).to(count)
    sink = wallaroo.FileSinkConfig(out, encode_count)
    return wallaroo.build_application("word count again", counts.to_sink(sink))
