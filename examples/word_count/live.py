"""Count the words of a book again and again, rescale meanwhile, and check every count.

    python live.py FOLDER [--scale 3 4 2]

It does what a person would do in two terminals: `wallaroo run --workers 3 again.py` in one,
`wallaroo scale 4` and `wallaroo scale 2` in the other while words are counted. In the end each word
must have had every total from 1 up to how often it occurs, each once, whichever workers counted it.
"""

import argparse
import subprocess
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

_HERE = Path(__file__).parent
_PATIENCE = 120.0
#: How often words occur in the book, by grep.
_EXPECTED = {"the": 63_919, "and": 51_696, "of": 34_618}


class Wrong(Exception):
    """Something is not as it must be; the message says what."""


def check(parts: list[Path]) -> tuple[Counter[str], dict[str, dict[int, int]]]:
    """How often each word was counted, in all and by the part that has it.

    Raises `Wrong` if a total is missing, or there twice.
    """
    counts: Counter[str] = Counter()
    sums: Counter[str] = Counter()
    most: dict[str, int] = {}
    where: dict[str, dict[int, int]] = defaultdict(dict)
    for part in parts:
        worker = int(part.stem.rpartition("-")[2])
        last: dict[str, int] = {}
        here: Counter[str] = Counter()
        with part.open(encoding="utf-8") as lines:
            for line in lines:
                word, _, text = line.partition(" => ")
                total = int(text)
                if total <= last.get(word, 0):
                    raise Wrong(f"{part}: '{word}' has total {total} after {last[word]}")
                last[word] = total
                here[word] += 1
                sums[word] += total
        counts.update(here)
        for word, total in last.items():
            most[word] = max(most.get(word, 0), total)
            where[word][worker] = here[word]
    for word, count in counts.items():
        # In each part totals rise. So many of them, up to this one, with this sum, are all of them.
        if most[word] != count or sums[word] != count * (count + 1) // 2:
            raise Wrong(
                f"'{word}' has {count} totals up to {most[word]}: some are missing or twice"
            )
    return counts, where


def run(folder: Path, scale: list[int]) -> list[Path]:
    """Count, and rescale; returns the files that were written. Raises `Wrong`."""
    folder.mkdir(parents=True, exist_ok=True)
    enough = folder / "enough"
    wallaroo = [sys.executable, "-m", "wallaroo"]
    at = ["--dir", str(folder / "dir")]
    command = [*wallaroo, "run", "--workers", str(scale[0]), *at, str(_HERE / "again.py")]
    command += [str(enough), str(folder / "counts.txt")]
    counting = subprocess.Popen(command)  # noqa: S603  our own interpreter, as below
    try:
        _wait_until_it_runs(counting, [*wallaroo, "status", *at])
        for workers in scale[1:]:
            subprocess.run([*wallaroo, "scale", str(workers), *at], check=True)  # noqa: S603
        enough.touch()
        if counting.wait(_PATIENCE):
            raise Wrong("the run failed")
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise Wrong(str(error)) from None
    finally:
        if counting.poll() is None:
            counting.terminate()
            counting.wait()
    return sorted(folder.glob("counts*.txt"))


def _wait_until_it_runs(counting: "subprocess.Popen[bytes]", status: list[str]) -> None:
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until and counting.poll() is None:
        found = subprocess.run(status, capture_output=True, text=True, check=False)  # noqa: S603
        if ": running" in found.stdout:
            return
        time.sleep(0.1)
    raise Wrong("the run does not begin")


def main(args: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--scale", type=int, nargs="+", default=[3, 4, 2], metavar="WORKERS")
    options = parser.parse_args(args)
    try:
        counts, where = check(run(options.folder.absolute(), options.scale))
        times = counts["the"] // _EXPECTED["the"]
        for word, count in _EXPECTED.items():
            if not times or counts[word] != count * times:
                raise Wrong(f"'{word}' was counted {counts[word]:,} times")
    except (Wrong, OSError) as error:
        print(f"live.py: {error}", file=sys.stderr)
        return 1
    workers = sorted({worker for found in where.values() for worker in found})
    table = Table(title="Most frequent words, and which worker counted how many of them")
    table.add_column("word")
    table.add_column("count", justify="right")
    for worker in workers:
        table.add_column(f"worker {worker}", justify="right")
    for word, count in counts.most_common(10):
        shares = (f"{where[word][worker]:,}" if worker in where[word] else "" for worker in workers)
        table.add_row(word, f"{count:,}", *shares)
    console = Console()
    console.print(table)
    console.print(
        f"{counts.total():,} words, {times} times the book, each counted once: every total of each "
        "word is there.",
        highlight=False,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
