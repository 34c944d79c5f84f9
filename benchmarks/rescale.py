"""Rescaling under load: 3 -> 4 and 4 -> 3 workers, beside two ways that Wallaroo does not go.

Three workers hold a million keys, about 100 bytes each as stored, and are offered 50,000 events a
second. They are rescaled to four, and back. What is measured is how long each event took from when
it was due until its output was at the sink: of keys that stay and of keys that move, in the seconds
before, and from the request until a second after the commit.

- *live*: as it is.
- *at once*: nothing is copied beforehand, all that moves goes at the switch.
- *restart*: the run is stopped, which takes a checkpoint, and started again. The state would have
  to be redistributed meanwhile; that it is not makes this the least that such a way can take.

Beside that: how long the workers' threads waited for a processor (the kernel's run delay), for
where four busy processes share two cores, that is part of every latency.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table
from xxhash import xxh3_64_intdigest

import children
import phases
from report import table
from wallaroo.partitioning import Assignment, Piece
from wallaroo.runtime.directory import Directory

_KEYS, _RATE = 1_000_000, 50_000
#: Seconds of load before a rescale that count, and between two; after a commit that count as part
#: of it; at the end.
_BEFORE, _BETWEEN, _AFTER, _END = 5.0, 20.0, 1.0, 4.0
_FILLING, _PATIENCE = 600.0, 120.0
_PARTITIONS = 12
#: After so many epochs all that has been filled in is in the base.
_MERGED = 36
#: Seconds between looks at the memory of the workers, which cost milliseconds each.
_WEIGH = 0.5
#: Of the plot, in milliseconds.
_TICKS = (10, 30, 100, 300, 1000, 3000)

Arrays = npt.NDArray[np.int64]


@dataclass
class Rescale:
    """One rescale. Times in ms, but for `took` and those of its record, in seconds.

    before, stay, move: p50, p99 and longest, of all events before it, and during it of those whose
    keys stay, and move. during: of all. throughput: events/s that came while state was copied, by
    that before. memory: bytes that all workers took in more at most, pages that they share counted
    once; new: what a process that joins took of them when it had started. waited: share of the time
    that the workers' main threads waited for a processor, before and during.
    """

    name: str
    change: str
    took: float
    before: dict[str, float]
    during: dict[str, float]
    stay: dict[str, float]
    move: dict[str, float]
    longest_gap: float
    throughput: float
    memory: int
    new: int
    waited: tuple[float, float]
    record: dict[str, Any]


@dataclass
class _Sample:
    at: float
    workers: int
    memory: int
    waited: float


@dataclass
class _Watch:
    """Looks at the workers of a run, now and then."""

    running: children.Running
    samples: list[_Sample] = field(default_factory=list)
    _weighed: float = 0.0

    def look(self) -> dict[str, Any] | None:
        status = self.running.status()
        if status is None:
            return None
        memory, waited = 0, 0.0
        last = self.samples[-1] if self.samples else None
        workers = len(status["workers"])
        late = time.monotonic() > self._weighed + _WEIGH
        weigh = last is None or late or workers != last.workers
        if weigh:
            self._weighed = time.monotonic()
        for each in status["workers"]:
            try:
                if weigh:
                    memory += children.proportional_bytes(each["pid"])
                delay = Path(f"/proc/{each['pid']}/schedstat").read_text().split()[1]
                waited += int(delay) / 1e9
            except OSError:
                continue
        if last and not weigh:
            memory = last.memory
        self.samples.append(_Sample(time.monotonic(), workers, memory, waited))
        return status

    def until(self, when: float) -> None:
        while time.monotonic() < when:
            self.look()
            time.sleep(0.1)

    def between(self, start: float, end: float) -> list[_Sample]:
        return [each for each in self.samples if start <= each.at <= end]


def _live(how: str, keys: int, rate: int, plot: list[Any]) -> list[Rescale]:
    """Rescale a live run from 3 to 4 workers, and back."""
    seconds = _BEFORE + 2 * _BETWEEN + _END + 90
    with children.folder() as into:
        arguments = (keys, rate, seconds, _PARTITIONS, into, how)
        with children.started(3, "rescale_app.py", *arguments) as running:
            running.wait_for(
                lambda: phases.filled(into, _PARTITIONS), "does not fill", patience=_FILLING
            )
            _rest(running)
            began = phases.go(into)
            watch = _Watch(running)
            watch.until(began + 3 + _BEFORE)
            marks = []
            for target in (4, 3):
                marks.append(_rescale(watch, target))
                watch.until(marks[-1][1] + _BETWEEN)
            time.sleep(1.0)
            came = _came(into)
    found = []
    for (asked, committed, record, old, new), change in zip(
        marks, ("3 -> 4", "4 -> 3"), strict=True
    ):
        found.append(_measured(how, change, came, asked, committed, record, old, new, watch))
    plot.append((how, came, [(m[0], m[1]) for m in marks], [m[3:] for m in marks]))
    return found


def _rest(running: children.Running) -> None:
    """Wait until all is merged into the base, and nothing is left to do."""
    status = running.running()
    last = status["epoch"] + _MERGED
    running.wait_for(
        lambda: running.running()["epoch"] >= last or None, "does not go on", patience=_PATIENCE
    )


def _rescale(watch: _Watch, target: int) -> tuple[float, float, dict[str, Any], Any, Any]:
    """Ask for `target` workers; when it was asked, and committed, its record, the assignments."""
    status = watch.look()
    assert status
    before, old = len(status["rescales"]), _assignment(status)
    asked = time.monotonic()
    Directory(watch.running.at).write_target(target)
    while True:
        time.sleep(0.02)
        status = watch.look()
        if status and len(status["members"]) == target and len(status["rescales"]) > before:
            return asked, time.monotonic(), status["rescales"][-1], old, _assignment(status)
        if time.monotonic() > asked + _PATIENCE:
            raise children.ChildFailed(f"no rescale to {target}: {status}")


def _assignment(status: dict[str, Any]) -> Assignment:
    pieces = tuple(Piece(p["start"], p["end"], p["worker"]) for p in status["assignment"])
    return Assignment(status["version"], pieces)


def _came(into: Path) -> Arrays:
    """Key, due and time of what came, in ns; shape (n, 3), by time when due."""
    found = np.concatenate([np.fromfile(file, np.int64) for file in into.glob("came-*")])
    found = found[: len(found) // 3 * 3].reshape(-1, 3)
    return found[found[:, 1].argsort()]


def _measured(
    how: str,
    change: str,
    came: Arrays,
    asked: float,
    committed: float,
    record: dict[str, Any],
    old: Assignment,
    new: Assignment,
    watch: _Watch,
) -> Rescale:
    due, took = came[:, 1] / 1e9, (came[:, 2] - came[:, 1]) / 1e6
    before = (due >= asked - _BEFORE) & (due < asked)
    during = (due >= asked) & (due < committed + _AFTER)
    moves = np.zeros(len(came), bool)
    moves[during] = _move(came[during, 0], old, new)
    copy = record["seconds"].get("copy", 0.0)
    switched = committed - record["seconds"].get("switch", 0.0)
    arrived = came[:, 2] / 1e9
    copying = ((arrived >= switched - copy) & (arrived < switched)).sum() / max(copy, 1e-9)
    was = ((arrived >= asked - _BEFORE) & (arrived < asked)).sum() / _BEFORE
    quiet, busy = watch.between(asked - _BEFORE, asked), watch.between(asked, committed)
    gaps = np.diff(np.sort(arrived[(arrived >= asked) & (arrived < committed + _AFTER)]))
    return Rescale(
        how,
        change,
        committed - asked,
        _percentiles(took[before]),
        _percentiles(took[during]),
        _percentiles(took[during & ~moves]),
        _percentiles(took[during & moves]),
        1000 * float(gaps.max()),
        float(copying / was),
        max(each.memory for each in busy) - max(each.memory for each in quiet),
        _started(busy),
        (_share(quiet), _share(busy)),
        record,
    )


def _started(samples: list[_Sample]) -> int:
    """How much the memory grew when there was one worker more."""
    for before, after in itertools.pairwise(samples):
        if after.workers > before.workers:
            return after.memory - before.memory
    return 0


def _share(samples: list[_Sample]) -> float:
    """Of the time between samples, how much threads waited for a processor."""
    if len(samples) < 2:
        return 0.0
    first, last = samples[0], samples[-1]
    return max(0.0, last.waited - first.waited) / (last.at - first.at)


def _move(keys: Arrays, old: Assignment, new: Assignment) -> npt.NDArray[np.bool_]:
    distinct, where = np.unique(keys, return_inverse=True)
    points = [xxh3_64_intdigest(f"k{key}".encode()) for key in distinct.tolist()]
    return np.array([old.owner(p) != new.owner(p) for p in points])[where]


def _percentiles(ms: npt.NDArray[np.float64]) -> dict[str, float]:
    if not len(ms):
        return {"p50": 0.0, "p99": 0.0, "max": 0.0}
    p50, p99, most = np.percentile(ms, [50, 99, 100])
    return {"p50": float(p50), "p99": float(p99), "max": float(most)}


def _restart(keys: int, rate: int, plot: list[Any]) -> list[Rescale]:
    """Stop a run and start it again."""
    seconds = _BEFORE + _BETWEEN + _END + 30
    with children.folder() as into, children.folder() as temporary:
        at = temporary / "app"
        arguments = (keys, rate, seconds, _PARTITIONS, into, "restart")
        command = children._command(at, 3, "rescale_app.py", arguments)
        with (temporary / "said").open("w") as said:
            first = subprocess.Popen(command, stdout=said, stderr=said)
            running = children.Running(at, "rescale_app.py", first, temporary / "said")
            second = None
            try:
                running.wait_for(
                    lambda: phases.filled(into, _PARTITIONS), "does not fill", patience=_FILLING
                )
                _rest(running)
                began = phases.go(into)
                watch = _Watch(running)
                watch.until(began + 3 + _BEFORE)
                status = watch.look()
                assert status
                asked = time.monotonic()
                stop = [sys.executable, "-m", "wallaroo", "stop", "--dir", str(at)]
                subprocess.run(stop, check=True)
                running.close()
                second = subprocess.Popen(command, stdout=said, stderr=said)
                back = children.Running(at, "rescale_app.py", second, temporary / "said")
                back.running()
                committed = time.monotonic()
                time.sleep(_BETWEEN)
                back.close()
            finally:
                for process in (first, second):
                    if process:
                        children._end(process)
        came = _came(into)
    due, took = came[:, 1] / 1e9, (came[:, 2] - came[:, 1]) / 1e6
    before = (due >= asked - _BEFORE) & (due < asked)
    during = (due >= asked) & (due < committed + _AFTER)
    arrived = np.sort(came[:, 2] / 1e9)
    gaps = np.diff(arrived[(arrived >= asked) & (arrived < committed + 5.0)])
    plot.append(("restart", came, [(asked, committed)], []))
    every = _percentiles(took[during])
    return [
        Rescale(
            "restart",
            "3",
            committed - asked,
            _percentiles(took[before]),
            every,
            every,
            every,
            1000 * float(gaps.max()),
            0.0,
            0,
            0,
            (0.0, 0.0),
            {},
        )
    ]


def _tables(found: list[Rescale], rate: int, keys: int) -> list[Table]:
    times = table(
        f"Rescaling under load: {keys:,} keys, {rate:,} events/s offered; latencies in ms",
        *("", "took, s", "p50 before", "p99", "p99 during", "x", "max stay", "max move", "gap"),
        caption="from when an event was due; max: of keys that stay, and that move, from the\n"
        "request to 1 s after the commit; gap: longest time without an output anywhere",
    )
    for each in found:
        times.add_row(
            f"{each.name} {each.change}",
            f"{each.took:.2f}",
            f"{each.before['p50']:.2f}",
            f"{each.before['p99']:.2f}",
            f"{each.during['p99']:.2f}",
            f"{each.during['p99'] / each.before['p99']:.1f}",
            f"{each.stay['max']:.1f}",
            f"{each.move['max']:.1f}",
            f"{each.longest_gap:.1f}",
        )
    rest = table(
        "What it took",
        *("", "moved", "minimum", "entries", "MB", "copy, s", "switch, s", "held back, ms"),
        *("throughput", "memory, MB", "new process", "run delay before", "during"),
        caption="throughput: while state was copied, by that before; run delay: seconds that main "
        "threads\nof workers waited for a processor, a second",
    )
    for each in found:
        if not each.record:
            continue
        record = each.record
        rest.add_row(
            f"{each.name} {each.change}",
            f"{record['moved']:.2%}",
            f"{record['minimum']:.2%}",
            f"{record['entries']:,}",
            f"{record['bytes'] / 1e6:.1f}",
            f"{record['seconds'].get('copy', 0):.2f}",
            f"{record['seconds'].get('switch', 0):.2f}",
            f"{1000 * record['held']:.1f}",
            f"{each.throughput:.2f}",
            f"{each.memory / 1e6:.0f}",
            f"{each.new / 1e6:.0f}",
            f"{each.waited[0]:.2f}",
            f"{each.waited[1]:.2f}",
        )
    return [times, rest]


def _plot(path: Path, runs: list[Any]) -> None:
    """Latency over time: the longest of each 50 ms, of keys that stay and of keys that move."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    size = (11, 2.6 * len(runs))
    figure, axes = plt.subplots(len(runs), 1, figsize=size, squeeze=False, sharey=True)
    for axis, (name, came, marks, assignments) in zip(axes[:, 0], runs, strict=True):
        start = marks[0][0] - _BEFORE
        due, took = came[:, 1] / 1e9 - start, (came[:, 2] - came[:, 1]) / 1e6
        inside = (due >= 0) & (due < marks[-1][1] - start + _END)
        keys, due, took = came[inside, 0], due[inside], took[inside]
        if assignments:
            moves = np.zeros(len(keys), bool)
            for old, new in assignments:
                moves |= _move(keys, old, new)
            groups = [("keys that stay", ~moves, "#3b6ea5"), ("keys that move", moves, "#d1602f")]
        else:
            groups = [("all keys", np.ones(len(keys), bool), "#3b6ea5")]
        for label, which, colour in groups:
            bins = (due[which] / 0.05).astype(int)
            most = np.zeros(bins.max() + 1)
            np.maximum.at(most, bins, took[which])
            axis.plot(np.arange(len(most)) * 0.05, most, label=label, color=colour, linewidth=0.9)
        for asked, committed in marks:
            axis.axvspan(asked - start, committed - start, color="0.9")
        axis.set(yscale="log", title=name, ylabel="longest latency, ms", xlabel="seconds")
        axis.set_yticks(_TICKS, labels=map(str, _TICKS))
        axis.minorticks_off()
        axis.legend(loc="upper right")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measure, print, plot, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keys", type=int, default=_KEYS)
    parser.add_argument("--rate", type=int, default=_RATE)
    parser.add_argument("--only", choices=("live", "at once", "restart"), action="append")
    parser.add_argument("--out", type=Path, default=Path("build"))
    asked = parser.parse_args()
    plot: list[Any] = []
    ways: dict[str, Callable[[], list[Rescale]]] = {
        "live": lambda: _live("live", asked.keys, asked.rate, plot),
        "at once": lambda: _live("at once", asked.keys, asked.rate, plot),
        "restart": lambda: _restart(asked.keys, asked.rate, plot),
    }
    found: list[Rescale] = []
    console = Console() if Console().is_terminal else Console(width=180)
    for name, way in ways.items():
        if not asked.only or name in asked.only:
            try:
                found += way()
            except children.ChildFailed as error:
                console.print(str(error), style="red", markup=False, highlight=False)
                sys.exit(1)
    for each in _tables(found, asked.rate, asked.keys):
        console.print(each)
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / "rescale.json").write_text(json.dumps([asdict(each) for each in found], indent=1))
    _plot(asked.out / "rescale.png", plot)
    console.print(f"written to {asked.out / 'rescale.json'} and {asked.out / 'rescale.png'}")
    os._exit(0)


if __name__ == "__main__":
    main()
