"""Word count over the real text, on real processes."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from processes import ROOT, Run

EXAMPLE = ROOT / "examples" / "word_count" / "word_count.py"


def counts(folder: Path) -> Counter[str]:
    """The last count of each word in the sink's file or its parts."""
    last: Counter[str] = Counter()
    for path in folder.glob("counts*.txt"):
        for line in path.read_text().splitlines():
            word, _, count = line.partition(" => ")
            assert last[word] == int(count) - 1, "a word's counts come in order, none missing"
            last[word] = int(count)
    return last


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
def test_counts_are_exact_on_any_number_of_workers(
    workers: int, tmp_path: Path, start: Callable[..., Run]
) -> None:
    run = start(EXAMPLE, "--out", tmp_path / "counts.txt", workers=workers)
    run.succeed()
    found = counts(tmp_path)
    assert found["the"] == 63_919
    assert found["and"] == 51_696
    parts = sorted(path.name for path in tmp_path.glob("counts*"))
    names = [f"counts.part-{worker}.txt" for worker in range(workers)]
    assert parts == (["counts.txt"] if workers == 1 else names)
    status = run.status()
    assert status["phase"] == "ended"
    assert sum(worker["keys"] for worker in status["workers"]) == len(found)
    assert sum(worker["written"] for worker in status["workers"]) == found.total()
