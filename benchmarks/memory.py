"""Memory: what a key costs beyond a plain dict, and whether memory stays flat when a sink stalls.

Both are measured from outside the thing measured, in fresh processes: the growth of the memory
that a process does not share, less that of a process which only fills a dict with the same keys
and objects; and the resident memory of both workers while their sink's peer reads nothing.
"""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

import children
from report import Spread, interleaved, table, target

#: Bytes a key above a plain dict; megabytes of growth that still count as flat.
_TARGET_KEY, _TARGET_FLAT = 300, 16
_WORKERS = 2
_MB = 1e6
#: Seconds between samples, and for an application to start.
_SAMPLE, _PATIENCE = 0.25, 30.0


@dataclass(frozen=True)
class Memory:
    """Bytes a key in a worker, in a plain dict, and the difference."""

    keys: int
    worker: Spread
    plain: Spread
    above: Spread
    repetitions: int
    target: tuple[str, bool]


@dataclass(frozen=True)
class Stalled:
    """MB resident at the first sample and the most later, by worker; `growth` is of the sum.

    read: events that the generator gave between the first and the last sample.
    """

    seconds: float
    first: list[float]
    most: list[float]
    growth: float
    read: int
    target: tuple[str, bool]


def measure_keys(keys: int, repetitions: int) -> Memory:
    """Fill one worker, and a plain dict, with `keys` keys."""
    runs = {"worker": lambda: _worker(keys), "plain": lambda: _plain(keys)}
    found = interleaved(runs, dict.fromkeys(runs, repetitions))
    above = Spread.of(
        worker - plain for worker, plain in zip(found["worker"], found["plain"], strict=True)
    )
    return Memory(
        keys,
        Spread.of(found["worker"]),
        Spread.of(found["plain"]),
        above,
        repetitions,
        (f"<= {_TARGET_KEY} B above a dict", above.median <= _TARGET_KEY),
    )


def _worker(keys: int) -> float:
    with children.folder() as into:
        children.run_wallaroo(1, "memory_app.py", keys, into)
        (found,) = children.results(into)
    return float(found["bytes"] / keys)


def _plain(keys: int) -> float:
    return float(children.run_script("memory_app.py", keys)["bytes"] / keys)


def measure_stalled(settle: float, seconds: float) -> Stalled:
    """Watch two workers for `seconds` after the first `settle` seconds of a stalled sink."""
    with _never_reads() as port, children.running_wallaroo(_WORKERS, "stalled_app.py", port) as at:
        pids = _pids(at)
        time.sleep(settle)
        before = _read(at)
        samples = [_resident(pids)]
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            time.sleep(_SAMPLE)
            samples.append(_resident(pids))
        read = _read(at) - before
    growth = max(map(sum, samples)) - sum(samples[0])
    most = [max(sample[i] for sample in samples) for i in range(_WORKERS)]
    return Stalled(
        seconds,
        samples[0],
        most,
        growth,
        read,
        (f"flat, < {_TARGET_FLAT} MB", growth < _TARGET_FLAT),
    )


@contextmanager
def _never_reads() -> Iterator[int]:
    """A listener at the port given, which accepts and reads nothing."""
    accepted: list[socket.socket] = []

    def accept() -> None:
        try:
            while True:
                accepted.append(listener.accept()[0])
        except OSError:  # closed: that was all
            return

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    for each in accepted:
        each.close()


def _pids(at: Path) -> list[int]:
    """The workers' process ids, once all of them run."""
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until:
        found = children.status(at)
        pids = [each["pid"] for each in found["workers"]] if found else []
        if found and found["phase"] == "running" and len(pids) == _WORKERS:
            return pids
        time.sleep(0.1)
    raise children.ChildFailed(f"stalled_app.py does not run after {_PATIENCE:.0f} s")


def _read(at: Path) -> int:
    found = children.status(at)
    if not found:
        raise children.ChildFailed("stalled_app.py has ended")
    return sum(each["read"] for each in found["workers"])


def _resident(pids: list[int]) -> list[float]:
    return [children.resident_bytes(pid) / _MB for pid in pids]


def tables(keys: Memory, stalled: Stalled) -> list[Table]:
    """One table for keys and one for the stalled sink."""
    first = table(
        f"Memory of a key: {keys.keys:,} keys, 1 worker, {keys.repetitions} runs",
        *("", "bytes a key", "min - max", "target"),
        caption="growth of unshared memory (USS), less that of a plain dict of the same keys and "
        "state objects",
    )
    first.add_row("worker", *keys.worker.cells("z.0f"))
    first.add_row("plain dict", *keys.plain.cells("z.0f"))
    first.add_row("above a plain dict", *keys.above.cells("z.0f"), target(*keys.target))
    second = table(
        f"Memory under a stalled sink: {_WORKERS} workers, {stalled.seconds:.0f} s",
        *("resident, MB", "at first", "most later", "growth", "target"),
        caption=f"the generator gave {stalled.read:,} events meanwhile: 0 is a source that waits",
    )
    for worker, (began, most) in enumerate(zip(stalled.first, stalled.most, strict=True)):
        second.add_row(f"worker {worker}", f"{began:.1f}", f"{most:.1f}", f"{most - began:.1f}")
    second.add_row("both", "", "", f"{stalled.growth:.1f}", target(*stalled.target))
    return [first, second]
