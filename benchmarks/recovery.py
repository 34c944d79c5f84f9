"""Recovery: a worker is killed under load; how long until all is as it was, and whether it is.

Three workers hold a million keys, and are offered 50,000 events a second by a source that can be
read again. Once all that the filling left has been merged into the base, and updates have run for a
while, one worker is killed (kill -9): not worker 0, or worker 0, which coordinates. Kills come at
different times after a checkpoint. Throughput is what reaches the sink, in bins of 100 ms, also
what had reached it before and is run again.

In the end what every committed epoch put out must hold each key's numbers 1, 2, 3, ... up to how
often the key was offered, each once.
"""

import os
import signal
import time
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
import epochs
import phases
import phases_app
from report import Spread, interleaved, table, target

_WORKERS, _RATE = 3, 50_000
_KILLED = {"worker 1": 1, "worker 0, coordinates": 0}
#: Seconds of a bin; of time before the kill that its rate is compared to; of time that the rate
#: must last, and the share of the rate before that it must have.
_BIN, _BEFORE, _SUSTAINED, _FULL = 0.1, 2.0, 0.5, 0.95
#: Seconds from the process's being back to full throughput.
_TARGET = 2.0
#: By how much later after the begin of updates each repetition kills.
_SHIFT = 0.37
#: Seconds between looks for the new process; for filling at most; for anything else.
_LOOK, _FILLING, _PATIENCE = 0.02, 300.0, 60.0
#: Seconds after the kill that are printed.
_SHOWN = 4.0

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Run:
    """One kill; times are seconds from it.

    back: until `wallaroo status` has the new process. full: until full throughput; None if it never
    came. caught_up: until all that had been offered was read, and what was new came at its pace.
    gap: the longest time without an output. rates: events/s by bin, from `_BEFORE` before the kill.
    """

    back: float
    full: float | None
    caught_up: float | None
    gap: float
    before: float
    rates: list[float]
    replayed: int
    duplicates: int
    missing: int
    survivors_same: bool

    @property
    def after_back(self) -> float | None:
        """Seconds from the process's being back to full throughput."""
        return None if self.full is None else max(0.0, self.full - self.back)


@dataclass(frozen=True)
class Recovery:
    """Kills of one kind."""

    name: str
    keys: int
    runs: list[Run]
    targets: tuple[tuple[str, bool], ...]


def measure(keys: int, settle: float, after: float, repetitions: int) -> list[Recovery]:
    """Kill `settle` seconds after updates began, and let them go on for `after` seconds more."""
    turns = {name: iter(range(repetitions)) for name in _KILLED}

    def run(name: str) -> Run:
        return _run(_KILLED[name], keys, settle + _SHIFT * next(turns[name]), after)

    runs: dict[str, Callable[[], Run]] = {name: partial(run, name) for name in _KILLED}
    found = interleaved(runs, dict.fromkeys(runs, repetitions))
    return [Recovery(name, keys, each, _targets(each)) for name, each in found.items()]


def _targets(runs: list[Run]) -> tuple[tuple[str, bool], ...]:
    took = [run.after_back for run in runs]
    return (
        (f"<= {_TARGET:.0f} s", all(each is not None and each <= _TARGET for each in took)),
        ("exact", not any(run.duplicates or run.missing for run in runs)),
        ("others live", all(run.survivors_same for run in runs)),
    )


def _run(worker: int, keys: int, settle: float, after: float) -> Run:
    seconds = settle + after
    with children.folder() as into:
        arguments = (keys, _FILLING, _RATE, seconds, _WORKERS, into, "record")
        with children.started(_WORKERS, "phases_app.py", *arguments) as running:
            _wait_until_filled(running, keys, into)
            began = phases.go(into)
            _sleep_until(began + settle)
            before = _pids(running.running())
            os.kill(before[worker], signal.SIGKILL)
            killed = time.monotonic()
            back = running.wait_for(
                partial(_since_back, running, worker, before[worker], killed),
                f"does not have worker {worker} back",
                _LOOK,
                _PATIENCE,
            )
            _sleep_until(began + seconds - 2 * _SUSTAINED)
            now = _pids(running.running())
            running.wait()
        duplicates, missing, replayed = _exactness(into, keys, seconds)
        times, sizes = _batches(into)
        caught_up = phases.notes(into, "caught-up")
    times -= killed
    edges = np.arange(-_BEFORE, after - _SUSTAINED, _BIN)
    rates = np.histogram(times, edges, weights=sizes)[0] / _BIN
    rate = float(rates[: round(_BEFORE / _BIN)].mean())
    under_load = times[(times >= -_BEFORE) & (times < edges[-1])]
    return Run(
        back,
        _full(rates / rate),
        max(caught_up) - killed if len(caught_up) == _WORKERS else None,
        float(np.diff(under_load).max()),
        rate,
        rates.tolist(),
        replayed,
        duplicates,
        missing,
        all(now[each] == pid for each, pid in before.items() if each != worker),
    )


def _wait_until_filled(running: children.Running, keys: int, into: Path) -> None:
    """Return once every key is there, and the base has all of them."""
    running.wait_for(lambda: phases.filled(into, _WORKERS), "does not fill", patience=2 * _FILLING)

    def epoch_of_last() -> int | None:
        status = running.running()
        # What is there now is part of this epoch, or the next.
        all_there = sum(each["keys"] for each in status["workers"]) >= keys
        return status["epoch"] + 2 if all_there else None

    last = running.wait_for(epoch_of_last, "does not get all keys", patience=_PATIENCE)

    def merged() -> bool | None:
        left = [epoch for epoch, _, _ in epochs.deltas(running.at)]
        committed = running.running()["epoch"] > last
        return (committed and min(left, default=last + 1) > last) or None

    running.wait_for(merged, "does not merge its deltas", patience=_PATIENCE)


def _sleep_until(when: float) -> None:
    time.sleep(max(0.0, when - time.monotonic()))


def _pids(status: dict[str, Any]) -> dict[int, int]:
    return {each["worker"]: each["pid"] for each in status["workers"]}


def _since_back(running: children.Running, worker: int, old: int, killed: float) -> float | None:
    """Seconds from the kill until now, if there is a new process."""
    status = running.status()
    pid = _pids(status).get(worker, old) if status else old
    return None if pid == old else time.monotonic() - killed


def _batches(into: Path) -> tuple[Floats, Floats]:
    """When batches reached a sink, in seconds and in order, and how many events each had."""
    files = into.glob("batches-*")
    data = b"".join(file.read_bytes() for file in files)
    found = np.frombuffer(data, np.dtype("<i8")).reshape(-1, 2)
    found = found[found[:, 0].argsort()]
    return found[:, 0] / 1e9, found[:, 1].astype(float)


def _full(shares: Floats) -> float | None:
    """Seconds from the kill until full throughput. shares: of the rate before, by bin.

    It begins with the first bin that has it, from which on the mean has it for long enough: a
    burst, such as of what is made up for, does not fill a hole beside it.
    """
    shares = np.minimum(shares, 1.0)
    long = round(_SUSTAINED / _BIN)
    first = round(_BEFORE / _BIN)
    for at in range(first, len(shares) - long + 1):
        if shares[at] >= _FULL and shares[at : at + long].mean() >= _FULL:
            return (at - first) * _BIN
    return None


def _exactness(into: Path, keys: int, seconds: float) -> tuple[int, int, int]:
    """Outputs that are there twice, or should not be; that are missing; that were run again."""
    files = list(into.glob("outputs-*"))
    outputs = np.concatenate([np.fromfile(file, np.int64) for file in files])
    offered = phases.offered(keys, _RATE, seconds, _WORKERS)
    distinct = np.unique(outputs)
    numbers = distinct & ((1 << phases_app.SHIFT) - 1)
    right = int((numbers <= offered[distinct >> phases_app.SHIFT]).sum())
    _, sizes = _batches(into)
    return len(outputs) - right, int(offered.sum()) - right, int(sizes.sum()) - len(outputs)


def tables(found: list[Recovery]) -> list[Table]:
    """One of times, one of throughput over time."""
    repetitions = len(found[0].runs)
    times = table(
        f"Recovery after kill -9: {_WORKERS} workers, {found[0].keys:,} keys, {_RATE:,} events/s "
        f"offered, {repetitions} runs",
        *("killed", "seconds", "median", "min - max", "targets"),
        caption="back: from the kill until the status has its new process; caught up: until what "
        "was offered\nmeanwhile is read too; full throughput: 95 % of that before, for 0.5 s",
    )
    for each in found:
        rows: dict[str, Sequence[float | None]] = {
            "back": [run.back for run in each.runs],
            "full throughput, from back": [run.after_back for run in each.runs],
            "full throughput, from the kill": [run.full for run in each.runs],
            "caught up, from the kill": [run.caught_up for run in each.runs],
            "longest without an output": [run.gap for run in each.runs],
        }
        targets = iter([*(target(*aim) for aim in each.targets), Text(), Text()])
        for index, (name, values) in enumerate(rows.items()):
            there = [value for value in values if value is not None]
            cells = Spread.of(there).cells(".2f") if len(there) == len(values) else ("never", "")
            times.add_row("" if index else each.name, name, *cells, next(targets))
        times.add_section()
    bins = table(
        "Throughput over time",
        *("killed", "duplicates", "missing", "run again", "1000 events/s in each 100 ms"),
        caption=f"from {_SUSTAINED:g} s before the kill to {_SHOWN:g} s after it; * is the kill",
    )
    for each in found:
        for run in each.runs:
            bins.add_row(
                each.name, str(run.duplicates), str(run.missing), f"{run.replayed:,}", _line(run)
            )
    return [times, bins]


def _line(run: Run) -> str:
    kill = round(_BEFORE / _BIN)
    shown = [f"{rate / 1000:.0f}" for rate in run.rates[: kill + round(_SHOWN / _BIN)]]
    shown.insert(kill, "*")
    words = shown[kill - round(_SUSTAINED / _BIN) :]
    return "\n".join(" ".join(words[at : at + 12]) for at in range(0, len(words), 12))
