"""Latency at a fixed pace: from the time an event was due until its output reached the sink.

Two workers are offered 50,000 events a second, which is a fraction of what they can take: what is
seen is not queueing for the processor but how long an event lies between source, exchange, state
and sink. Events whose key belongs to the worker that read them (*local*) never leave the process;
the others (*exchanged*) go through encoding and gRPC. No checkpoint is taken but one at the end:
what they add is the checkpoint benchmark's to say.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.table import Table
from rich.text import Text

import children
from report import Spread, interleaved, table, target

WORKERS, RATE, KEYS = 2, 50_000, 100_000
PERCENTILES = {"p50": 50.0, "p99": 99.0, "p99.9": 99.9, "max": 100.0}
#: Milliseconds, of all events.
_TARGETS = {"p50": 2.0, "p99": 5.0}

Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Latency:
    """Milliseconds by group of events and by percentile.

    cpu: of all workers, in per cent of one core. rate: events/s that came out.
    """

    groups: dict[str, dict[str, Spread]]
    counts: dict[str, int]
    cpu: Spread
    rate: Spread
    repetitions: int
    targets: tuple[tuple[str, bool | None], ...]


@dataclass(frozen=True)
class Run:
    """One run of an application that writes what latency_app.py does."""

    groups: dict[str, dict[str, float]]
    counts: dict[str, int]
    cpu: float
    rate: float


def measure(seconds: float, warm_up: float, repetitions: int) -> Latency:
    """Offer events for `warm_up` seconds, which do not count, and `seconds` more."""
    name = "latency"
    options = children.NO_CHECKPOINTS
    once = partial(run, "latency_app.py", seconds, warm_up, options)
    runs = interleaved({name: once}, {name: repetitions})[name]
    groups = {
        group: {
            percentile: Spread.of(run.groups[group][percentile] for run in runs)
            for percentile in PERCENTILES
        }
        for group in runs[0].groups
    }
    all_events = groups["all"]
    return Latency(
        groups,
        runs[0].counts,
        Spread.of(run.cpu for run in runs),
        Spread.of(run.rate for run in runs),
        len(runs),
        tuple(
            (f"{percentile} < {most:.0f} ms", all_events[percentile].median < most)
            for percentile, most in _TARGETS.items()
        ),
    )


def run(
    app: str,
    seconds: float,
    warm_up: float,
    options: Sequence[object],
    watch: Callable[[children.Running], None] | None = None,
) -> Run:
    """Run `app` once; for `options` and `watch` see `children.run_wallaroo`."""
    with children.folder() as into:
        arguments = (RATE, KEYS, seconds + warm_up, WORKERS, into)
        children.run_wallaroo(WORKERS, app, *arguments, options=options, watch=watch)
        read = _load(into, "read")
        written = _load(into, "written")
    expected = sum(len(each["due"]) for each in read)
    came = sum(len(each["due"]) for each in written)
    if came != expected:
        raise children.ChildFailed(f"{came} outputs of {expected} events")
    first = min(each["due"][0] for each in read) + int(warm_up * 1e9)
    due, took = _after(first, written)
    local = np.concatenate([each["local"][each["due"] >= first] for each in written])
    waited = _after(first, read)[1]
    groups = {
        "all": took,
        "exchanged": took[~local],
        "local": took[local],
        "until read": waited,
    }
    last = (due + took).max()
    return Run(
        {group: _percentiles(values) for group, values in groups.items()},
        {group: len(values) for group, values in groups.items()},
        sum(_cpu(each["cpu"], first) for each in read),
        float(len(took) / (last - first) * 1e9),
    )


def _load(folder: Path, kind: str) -> list[Arrays]:
    found = []
    for file in sorted(folder.glob(f"{kind}-*.npz")):
        with np.load(file) as arrays:
            found.append(dict(arrays))
    return found


def _after(first: int, parts: list[Arrays]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """When events were due and what they took, of those due from `first` on."""
    due = np.concatenate([each["due"] for each in parts])
    took = np.concatenate([each["took"] for each in parts])
    return due[due >= first], took[due >= first]


def _percentiles(ns: npt.NDArray[Any]) -> dict[str, float]:
    values = np.percentile(ns, list(PERCENTILES.values())) / 1e6
    return dict(zip(PERCENTILES, map(float, values), strict=True))


def _cpu(samples: npt.NDArray[Any], first: int) -> float:
    """Per cent of a core used from `first` on. samples: shape (n, 2), ns and CPU seconds."""
    samples = samples[samples[:, 0] >= first]
    (began, before), (ended, after) = samples[0], samples[-1]
    return float((after - before) / (ended - began) * 1e11)


def tables(found: Latency) -> list[Table]:
    """One table of latencies and one of what it took."""
    first = table(
        f"Latency in ms: {WORKERS} workers, {RATE:,} events/s offered, {KEYS:,} keys, "
        f"{found.repetitions} runs",
        *("events", "a run", *PERCENTILES, "targets"),
        caption="since the event was due; medians of the runs, with min - max. Sources are woken "
        "about every millisecond.",
    )
    targets = Text("\n").join(target(*each) for each in found.targets)
    for group, percentiles in found.groups.items():
        cells = ("\n".join(spread.cells(".2f")) for spread in percentiles.values())
        first.add_row(group, f"{found.counts[group]:,}", *cells, targets if group == "all" else "")
    second = table("What it took", "", "median", "min - max")
    second.add_row("CPU of the workers, % of a core", *found.cpu.cells(".0f"))
    second.add_row("events/s that came out", *found.rate.cells(",.0f"))
    return [first, second]
