"""Show where the words of a word count live: python top.py OUT [--top 10].

OUT is what word_count.py was told to write; several workers wrote parts of it. A key lives where
the hash interval says, so each word must be in the part of exactly one worker, and there with
every total from 1 up. That is checked; a run that was rescaled on the way does not pass, for its
words have moved.
"""

import argparse
import sys
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.table import Table

from wallaroo import FileSinkConfig
from wallaroo.partitioning import Assignment, hash_key


class Wrong(Exception):
    """The output is not what the workers of one run write; the message says where."""


def find_parts(out: Path) -> list[Path]:
    """The files that make up the output, in order of their workers."""
    part = FileSinkConfig[object](out).part
    found = {path for path in out.parent.iterdir() if _is_part(path, out)}
    if not found:
        if not out.is_file():
            raise Wrong(f"there is neither {out} nor a part of it such as {part(0, 2)}")
        return [out]
    parts = [part(worker, 2) for worker in range(max(2, len(found)))]
    missing = [path for path in parts if path not in found]
    if missing or out.exists():
        what = f"{missing[0].name} is missing" if missing else f"{out.name} itself is there, too"
        raise Wrong(f"the parts of {out} are not those of one run: {what}")
    return parts


def _is_part(path: Path, out: Path) -> bool:
    prefix = f"{out.stem}.part-"
    number = path.name.removeprefix(prefix).removesuffix(out.suffix)
    return number.isdigit() and path.name == f"{prefix}{number}{out.suffix}"


def read_part(path: Path) -> Counter[str]:
    """The last total of each word, which is also how many lines the word has."""
    counts: Counter[str] = Counter()
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            word, _, total = line.partition(" => ")
            counts[word] += 1
            if total != f"{counts[word]}\n":
                raise Wrong(
                    f"{path}, line {number}: {line.strip()!r} should be total {counts[word]}"
                )
    return counts


def check_owners(parts: list[Path], counts: list[Counter[str]], assignment: Assignment) -> None:
    """Raise `Wrong` unless each word is in the part of the worker that owns it."""
    for worker, words in enumerate(counts):
        for word in words:
            owner = assignment.owner(hash_key(word))
            if owner != worker:
                raise Wrong(
                    f"'{word}' is in {parts[worker]}, but its hash {hash_key(word):016x} belongs "
                    f"to worker {owner}"
                )


def workers_table(counts: list[Counter[str]], assignment: Assignment) -> Table:
    table = Table(title="Where keys live")
    for heading in ("worker", "from hash", "to hash", "words", "events", "share"):
        table.add_column(heading, justify="right", no_wrap=True)
    events = sum(words.total() for words in counts)
    for worker, words in enumerate(counts):
        for piece in assignment.pieces_of(worker):
            table.add_row(
                str(worker),
                f"{piece.start:016x}",
                f"{piece.end - 1:016x}",
                f"{len(words):,}",
                f"{words.total():,}",
                f"{words.total() / events:.1%}" if events else "",
            )
    return table


def top_table(counts: list[Counter[str]], top: int) -> Table:
    table = Table(title="Most frequent words")
    table.add_column("word")
    table.add_column("count", justify="right")
    table.add_column("worker", justify="right")
    found = [(-n, word, worker) for worker, each in enumerate(counts) for word, n in each.items()]
    for negated, word, worker in sorted(found)[:top]:
        table.add_row(word, f"{-negated:,}", str(worker))
    return table


def main(args: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--top", type=int, default=10, metavar="N")
    options = parser.parse_args(args)
    try:
        parts = find_parts(options.out)
        counts = [read_part(path) for path in parts]
        assignment = Assignment.first(len(parts))
        check_owners(parts, counts, assignment)
    except (Wrong, OSError) as error:
        print(f"top.py: {error}", file=sys.stderr)
        return 1
    console = Console()
    console.print(workers_table(counts, assignment))
    console.print(top_table(counts, options.top))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
