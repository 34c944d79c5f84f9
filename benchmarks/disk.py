"""State on disk: more keys than memory holds, and what the disk holds of keys that change for long.

Large: two workers, each keeping some of its entries in memory, are filled with as many keys as a
time allows; then any of them are updated, as fast as that goes. Memory is to stay as it is,
whatever the number of keys. Steady: one worker's million keys are updated at a fixed pace.

All is seen from outside: /proc of the workers, and the files of the run. What the disk holds is
compared to the entries as the base has them, before compression: each key in its place, and the
state. So it needs a temporary folder (TMPDIR) that is on a disk.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

import children
import events
import phases
from report import table, target
from wallaroo.state.allowlist import AllowList
from wallaroo.state.codec import Codec
from wallaroo.state.entries import Form, base_key

_LARGE_WORKERS = 2
_STEADY_WORKERS, _STEADY_RATE = 1, 20_000
#: Most bytes on disk, as a multiple of the encoded entries'.
_TARGET_RATIO = 2.0
#: Most growth that counts as none, as a share: of the most memory, from the first half of the
#: updates to the second; of the mean on disk, from the second third to the last. What is on disk
#: grows up to what it stays at in the first third, and goes up and down as the base is compacted.
_TARGET_MEMORY, _TARGET_DISK = 0.1, 0.2
#: Seconds between samples; to wait for a start or an end.
_SAMPLE, _PATIENCE = 0.25, 60.0
_MB = 1e6


@dataclass(frozen=True)
class Sample:
    """How things were at `at` seconds after the start of sampling; all of all workers, in bytes."""

    at: float
    keys: int
    read: int
    resident: int
    written: int
    base: int
    deltas: int
    other: int

    @property
    def disk(self) -> int:
        """All that is in the folders of the workers."""
        return self.base + self.deltas + self.other


@dataclass(frozen=True)
class Large:
    """More keys than memory holds. Rates are events/s; bytes a key are of its entry in the base.

    resident: MB; at the end of filling, the most while there were updates. growth: MB.
    """

    keys: int
    cache: int
    fill_seconds: float
    fill_rate: float
    update_seconds: float
    update_rate: float
    resident: tuple[float, float]
    growth: float
    entry_bytes: float
    disk: Sample
    ratio: float
    written_per_update: float
    samples: list[Sample]
    targets: tuple[tuple[str, bool], ...]


@dataclass(frozen=True)
class Steady:
    """The same keys, updated at a fixed pace. disk: MB, least, median and most."""

    keys: int
    seconds: float
    rate: float
    disk: tuple[float, float, float]
    entry_bytes: float
    ratio: float
    growth: float
    written_per_update: float
    samples: list[Sample]
    targets: tuple[tuple[str, bool], ...]


def measure_large(
    keys: int, cache: int, fill_seconds: float, settle: float, seconds: float
) -> Large:
    """Fill in up to `keys` keys, wait for `settle` seconds, and update for `seconds`.

    cache: how many entries each worker keeps in memory, about.
    """
    options = ("--state-cache", cache)
    run = _run(_LARGE_WORKERS, options, keys, fill_seconds, settle, 0, seconds)
    updates = run.updates
    half = len(updates) // 2
    first, second = (
        max(sample.resident for sample in part) for part in (updates[: half + 1], updates[half:])
    )
    most = max(first, second)
    entry_bytes = _entry_bytes(run.keys)
    largest = max(updates, key=lambda sample: sample.disk)
    ratio = largest.disk / (run.keys * entry_bytes)
    growth = (second - first) / _MB
    return Large(
        run.keys,
        cache,
        run.fill_seconds,
        run.keys / run.fill_seconds,
        updates[-1].at - updates[0].at,
        run.rate,
        (run.filled.resident / _MB, most / _MB),
        growth,
        entry_bytes,
        largest,
        ratio,
        run.written_per_update,
        run.samples,
        (
            (f"< {_TARGET_MEMORY:.0%}", second - first < _TARGET_MEMORY * first),
            (f"<= {_TARGET_RATIO:.0f}", ratio <= _TARGET_RATIO),
        ),
    )


def measure_steady(keys: int, settle: float, seconds: float) -> Steady:
    """Fill in `keys` keys, wait for `settle` seconds, and update them for `seconds`."""
    run = _run(_STEADY_WORKERS, (), keys, 1e9, settle, _STEADY_RATE, seconds)
    sizes = [sample.disk for sample in run.updates]
    entry_bytes = _entry_bytes(keys)
    ratio = max(sizes) / (keys * entry_bytes)
    third = len(sizes) // 3
    growth = statistics.mean(sizes[-third:]) / statistics.mean(sizes[third:-third]) - 1
    return Steady(
        keys,
        run.updates[-1].at - run.updates[0].at,
        run.rate,
        (min(sizes) / _MB, statistics.median(sizes) / _MB, max(sizes) / _MB),
        entry_bytes,
        ratio,
        growth,
        run.written_per_update,
        run.samples,
        (
            (f"<= {_TARGET_RATIO:.0f}", ratio <= _TARGET_RATIO),
            (f"< {_TARGET_DISK:.0%}", growth < _TARGET_DISK),
        ),
    )


@dataclass(frozen=True)
class _Run:
    """keys: filled in, in `fill_seconds`. filled: the last sample of that."""

    keys: int
    fill_seconds: float
    samples: list[Sample]
    filled: Sample
    updates: list[Sample]

    @property
    def rate(self) -> float:
        """Updates a second."""
        first, last = self.updates[0], self.updates[-1]
        return (last.read - first.read) / (last.at - first.at)

    @property
    def written_per_update(self) -> float:
        """Bytes that went to the disk."""
        first, last = self.updates[0], self.updates[-1]
        return (last.written - first.written) / max(1, last.read - first.read)


def _run(
    workers: int,
    options: tuple[object, ...],
    keys: int,
    fill_seconds: float,
    settle: float,
    rate: int,
    seconds: float,
) -> _Run:
    samples: list[Sample] = []
    with children.folder() as into:
        arguments = (keys, fill_seconds, rate, seconds, workers, into, "drop")
        with children.started(workers, "phases_app.py", *arguments, options=options) as running:
            pids = [each["pid"] for each in running.running()["workers"]]
            start = time.monotonic()

            def sampled_until(over: Callable[[], bool]) -> int:
                """Take samples; returns the index of the first."""
                first = len(samples)
                while running.alive:
                    sample = _sample(running, pids, start)
                    if sample:
                        samples.append(sample)
                    if over():
                        break
                    time.sleep(_SAMPLE)
                if len(samples) == first:
                    raise children.ChildFailed("phases_app.py was over too soon")
                return first

            sampled_until(lambda: phases.filled(into, workers) is not None)
            filled = samples[-1]
            settled = time.monotonic() + settle
            sampled_until(lambda: time.monotonic() > settled)
            ending = phases.go(into) + seconds - 2 * _SAMPLE
            first = sampled_until(lambda: time.monotonic() > ending)
            running.wait()
        found = phases.filled(into, workers) or []
    return _Run(
        sum(count for count, _ in found),
        max(took for _, took in found),
        samples,
        filled,
        samples[first:],
    )


def _sample(running: children.Running, pids: list[int], start: float) -> Sample | None:
    status = running.status()
    if status is None:
        return None
    sizes = {"base": 0, "deltas": 0, "other": 0}
    for file in running.at.glob("workers/*/**/*"):
        part = file.relative_to(running.at).parts[2]
        try:
            if file.is_file():
                sizes[part if part in sizes else "other"] += file.stat().st_size
        except FileNotFoundError:  # merged or compacted meanwhile
            continue
    return Sample(
        time.monotonic() - start,
        sum(each["keys"] for each in status["workers"]),
        sum(each["read"] for each in status["workers"]),
        sum(children.resident_bytes(pid) for pid in pids),
        sum(children.written_bytes(pid) for pid in pids),
        sizes["base"],
        sizes["deltas"],
        sizes["other"],
    )


def _entry_bytes(keys: int) -> float:
    """Bytes of an entry as the base has it, before compression, in the mean over some keys."""
    form = Form(Codec(AllowList([Path(__file__).parent])), 0, "count", events.Total)
    total = events.Total()
    total.count = 1
    every = [f"k{number}" for number in range(0, keys, max(1, keys // 1000))]
    return statistics.mean(len(base_key(0, 0, key)) + len(form.entry(key, total)) for key in every)


def tables(large: Large, steady: Steady) -> list[Table]:
    """One for many keys, one for long updates."""
    first = table(
        f"More keys than memory holds: {_LARGE_WORKERS} workers, {large.cache:,} entries in each",
        *("", "", "target"),
        caption="growth: of the most resident, from the first half of the updates to the second",
    )
    flat, ratio = (target(*each) for each in large.targets)
    held = large.disk
    first.add_row("keys", f"{large.keys:,}")
    first.add_row(f"filled in a second, for {large.fill_seconds:.0f} s", f"{large.fill_rate:,.0f}")
    name = f"updated in a second, for {large.update_seconds:.0f} s"
    first.add_row(name, f"{large.update_rate:,.0f}")
    first.add_row("resident when filled, MB", f"{large.resident[0]:,.0f}")
    first.add_row("resident during updates, most, MB", f"{large.resident[1]:,.0f}")
    first.add_row("growth, MB", f"{large.growth:,.0f}", flat)
    encoded = large.keys * large.entry_bytes
    first.add_row(f"entries, {large.entry_bytes:.1f} bytes each, MB", f"{encoded / _MB:,.0f}")
    parts = f"base {held.base / _MB:,.0f}, deltas {held.deltas / _MB:,.0f}"
    first.add_row(f"on disk, most, MB ({parts})", f"{held.disk / _MB:,.0f}")
    first.add_row("on disk, of the entries", f"{large.ratio:.2f}", ratio)
    first.add_row("bytes written per update", f"{large.written_per_update:,.0f}")
    second = table(
        f"State on disk while it changes: {_STEADY_WORKERS} worker, {steady.keys:,} keys, "
        f"{steady.rate:,.0f} updates a second for {steady.seconds:.0f} s",
        *("", "", "target"),
        caption="growth: of the mean, from the second third of the updates to the last",
    )
    ratio, flat = (target(*each) for each in steady.targets)
    encoded = steady.keys * steady.entry_bytes
    second.add_row(f"entries, {steady.entry_bytes:.1f} bytes each, MB", f"{encoded / _MB:,.0f}")
    for name, size in zip(("least", "median", "most"), steady.disk, strict=True):
        second.add_row(f"on disk, {name}, MB", f"{size:,.1f}")
    second.add_row("on disk, most, of the entries", f"{steady.ratio:.2f}", ratio)
    second.add_row("growth, %", f"{100 * steady.growth:.0f}", flat)
    second.add_row("bytes written per update", f"{steady.written_per_update:,.0f}")
    return [first, second]
