"""What checkpoints cost: throughput and latency with one each second beside none, in turns.

Throughput: words as fast as they go, for the same time with checkpoints and without. A run counts
from the first event read to the last output, so the checkpoint that ends a run is no part of it.

Latency: two workers are offered 50,000 events a second. Each event touches an entry of two keys, in
two steps with an exchange before each, and no entry is touched twice in a second: each epoch has
100,000 entries to encode and to write while events pass.

Epochs are watched from outside (epochs.py), in runs without checkpoints just as often.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from rich.table import Table
from rich.text import Text

import children
import latency
from epochs import Epoch, Epochs, Watch
from report import Spread, interleaved, table, target

_KINDS = ("zipf", "uniform")
_WORKERS = (1, 2)
_INTERVAL = "1s"
_OPTIONS = {"none": children.NO_CHECKPOINTS, "1 s": ("--checkpoint-interval", _INTERVAL)}
_WITHOUT, _WITH = _OPTIONS
#: Least throughput with checkpoints, as a share of that without, by kind.
_TARGETS = {"zipf": 0.9, "uniform": 0.8}
#: Milliseconds, with checkpoints: p99 of the median run, the longest of all runs.
_TARGET_P99, _TARGET_MAX = 15.0, 50.0


@dataclass(frozen=True)
class Throughput:
    """Events/s without checkpoints and with them, and how they compare turn by turn."""

    kind: str
    workers: int
    seconds: float
    without: Spread
    with_checkpoints: Spread
    ratio: Spread
    epochs: Epochs
    repetitions: int
    target: tuple[str, bool]


@dataclass(frozen=True)
class Latency:
    """Milliseconds by percentile: of the runs without checkpoints, and of those with them.

    waited: until they were read, with checkpoints.
    """

    seconds: float
    without: dict[str, Spread]
    with_checkpoints: dict[str, Spread]
    waited: dict[str, Spread]
    rate: Spread
    epochs: Epochs
    repetitions: int
    targets: tuple[tuple[str, bool], ...]


@dataclass(frozen=True)
class _Run:
    rate: float
    epochs: list[Epoch]


def measure_throughput(seconds: float, repetitions: int) -> list[Throughput]:
    """Run each way for `seconds`."""
    return [_throughput(kind, n, seconds, repetitions) for kind in _KINDS for n in _WORKERS]


def _throughput(kind: str, workers: int, seconds: float, repetitions: int) -> Throughput:
    runs: dict[str, Callable[[], _Run]] = {
        name: partial(_run, kind, workers, seconds, name) for name in _OPTIONS
    }
    found = interleaved(runs, dict.fromkeys(runs, repetitions))
    pairs = zip(found[_WITHOUT], found[_WITH], strict=True)
    ratio = Spread.of(after.rate / before.rate for before, after in pairs)
    least = _TARGETS[kind]
    return Throughput(
        kind,
        workers,
        seconds,
        Spread.of(run.rate for run in found[_WITHOUT]),
        Spread.of(run.rate for run in found[_WITH]),
        ratio,
        Epochs.of(epoch for run in found[_WITH] for epoch in run.epochs),
        repetitions,
        (f">= {least:.2f}", ratio.median >= least),
    )


def _run(kind: str, workers: int, seconds: float, checkpoints: str) -> _Run:
    watch = Watch()
    with children.folder() as into:
        children.run_wallaroo(
            workers,
            "checkpoint_app.py",
            *(kind, seconds, workers, into),
            options=_OPTIONS[checkpoints],
            watch=watch,
        )
        found = children.results(into)
    took = max(each["ended"] for each in found) - min(each["began"] for each in found)
    return _Run(sum(each["outputs"] for each in found) / took, watch.epochs)


def measure_latency(seconds: float, warm_up: float, repetitions: int) -> Latency:
    """Offer events for `warm_up` seconds, which do not count, and `seconds` more."""
    watches = {name: [Watch() for _ in range(repetitions)] for name in _OPTIONS}
    left = {name: iter(each) for name, each in watches.items()}

    def run(name: str) -> latency.Run:
        app = "checkpoint_latency_app.py"
        return latency.run(app, seconds, warm_up, _OPTIONS[name], next(left[name]))

    found = interleaved(
        {name: partial(run, name) for name in _OPTIONS}, dict.fromkeys(_OPTIONS, repetitions)
    )

    def spreads(name: str, group: str) -> dict[str, Spread]:
        return {
            percentile: Spread.of(run.groups[group][percentile] for run in found[name])
            for percentile in latency.PERCENTILES
        }

    with_checkpoints = spreads(_WITH, "all")
    return Latency(
        seconds,
        spreads(_WITHOUT, "all"),
        with_checkpoints,
        spreads(_WITH, "until read"),
        Spread.of(run.rate for run in found[_WITH]),
        # What the first epochs touch is new, and fewer.
        Epochs.of(
            epoch
            for watch in watches[_WITH]
            for epoch in watch.epochs[_warm(watch.epochs, warm_up) :]
        ),
        repetitions,
        (
            (f"p99 < {_TARGET_P99:.0f} ms", with_checkpoints["p99"].median < _TARGET_P99),
            (f"max < {_TARGET_MAX:.0f} ms", with_checkpoints["max"].high < _TARGET_MAX),
        ),
    )


def _warm(epochs: list[Epoch], warm_up: float) -> int:
    """How many epochs the warm-up has; it keeps one of few."""
    return min(int(warm_up) + 1, len(epochs) - 1)


def tables(throughput: list[Throughput], found: Latency) -> list[Table]:
    """One of throughput, one of latencies, one of the epochs."""
    return [_throughput_table(throughput), _latency_table(found), _epochs_table(throughput, found)]


def _throughput_table(rows: list[Throughput]) -> Table:
    first = rows[0]
    made = table(
        f"Throughput with a checkpoint each second: {first.seconds:g} s a run, "
        f"{first.repetitions} runs each",
        *("", "events/s without", "with", "ratio", "min - max", "target"),
        caption="from the first event read to the last output; medians, and ratios turn by turn",
    )
    for row in rows:
        made.add_row(
            f"{row.kind}, {row.workers} worker{'s' * (row.workers > 1)}",
            f"{row.without.median:,.0f}",
            f"{row.with_checkpoints.median:,.0f}",
            *row.ratio.cells(".2f"),
            target(*row.target),
        )
    return made


def _latency_table(found: Latency) -> Table:
    made = table(
        f"Latency in ms with a checkpoint each second: {latency.WORKERS} workers, "
        f"{latency.RATE:,} events/s offered, {found.repetitions} runs of {found.seconds:g} s",
        *("checkpoints", *latency.PERCENTILES, "targets"),
        caption="since the event was due; medians of the runs, with min - max, and the targets' "
        "max is of all runs.\nEach event touches an entry of two keys, each second others: 100,000 "
        f"entries a second. {found.rate.median:,.0f} events/s came out.",
    )
    targets = Text("\n").join(target(*each) for each in found.targets)
    for name, spreads, aims in (
        (_WITHOUT, found.without, ""),
        (_WITH, found.with_checkpoints, targets),
        (f"{_WITH}: until read", found.waited, ""),
    ):
        made.add_row(name, *("\n".join(s.cells(".2f")) for s in spreads.values()), aims)
    return made


def _epochs_table(rows: list[Throughput], found: Latency) -> Table:
    made = table(
        "Epochs committed in the runs with checkpoints, all together",
        *("", "epochs", "mean, ms", "longest, ms", "entries an epoch", "MB", "bytes an entry"),
        caption="from the barrier's injection until the manifest is durable; deltas of all workers",
    )
    measured = {
        f"{row.kind}, {row.workers} worker{'s' * (row.workers > 1)}": row.epochs for row in rows
    }
    for name, epochs in {**measured, "latency": found.epochs}.items():
        made.add_row(
            name,
            str(epochs.count),
            f"{1000 * epochs.mean:.0f}",
            f"{1000 * epochs.longest:.0f}",
            f"{epochs.entries:,.0f}",
            f"{epochs.size / 1e6:.1f}",
            f"{epochs.size / epochs.entries:.0f}" if epochs.entries else "",
        )
    return made
