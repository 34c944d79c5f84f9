"""Numbers as people read them: medians with their range, and targets met or not.

A target that is missed is shown, never raised: what a machine is doing beside a benchmark would
otherwise decide whether the benchmark fails.
"""

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Self, TypeVar

from rich.table import Table
from rich.text import Text

T = TypeVar("T")
K = TypeVar("K")

BYTEWAX_MISSING = "bytewax is not installed"


@dataclass(frozen=True)
class Spread:
    """The median of some repetitions, the lowest and the highest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Self:
        values = list(values)
        return cls(statistics.median(values), min(values), max(values))

    def cells(self, form: str) -> tuple[str, str]:
        """The median and the range, each number in the format `form`."""
        return f"{self.median:{form}}", f"{self.low:{form}} - {self.high:{form}}"


def interleaved(runs: dict[K, Callable[[], T]], repetitions: dict[K, int]) -> dict[K, list[T]]:
    """What each run gave, by its name, in turns (A B C A B C).

    What the machine does meanwhile so touches all alike. repetitions: of each run; those with
    fewer than others sit out the last turns.
    """
    found: dict[K, list[T]] = {name: [] for name in runs}
    for turn in range(max(repetitions.values())):
        for name, run in runs.items():
            if turn < repetitions[name]:
                found[name].append(run())
    return found


def target(text: str, met: bool | None) -> Text:
    """A target, and whether it is met; None if that can't be told."""
    if met is None:
        return Text(f"{text}: -", style="dim")
    return Text(f"{text}: {'met' if met else 'NOT met'}", style="green" if met else "bold red")


def table(title: str, *columns: str, caption: str = "") -> Table:
    """An empty table; all columns but the first are aligned to the right."""
    made = Table(title=title, caption=caption or None, title_justify="left", caption_justify="left")
    for index, column in enumerate(columns):
        made.add_column(column, justify="right" if index else "left", no_wrap=True)
    return made
