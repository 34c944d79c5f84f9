"""All benchmarks in one run: prints tables, and writes what is in them as JSON.

    bench.py [--quick] [--json PATH]

Nothing here fails because something is slow: targets are shown as met or not. It wants a machine
that does nothing else, and says with every section how much of the processors others used.
"""

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import breakdown
import children
import latency
import memory
import throughput

#: Columns of the tables where there is no terminal to tell.
_WIDTH = 120


@dataclass(frozen=True)
class Sizes:
    """How much is measured; times in seconds."""

    events: int = 5_000_000
    repetitions: int = 3
    events_bytewax: int = 1_000_000
    repetitions_bytewax: int = 2
    latency_seconds: float = 10.0
    latency_warm_up: float = 2.0
    keys: int = 1_000_000
    stalled_settle: float = 5.0
    stalled_seconds: float = 15.0


#: Finds what is broken, not what is slow.
QUICK = Sizes(
    events=100_000,
    repetitions=1,
    events_bytewax=100_000,
    repetitions_bytewax=1,
    latency_seconds=1.0,
    latency_warm_up=0.5,
    keys=50_000,
    stalled_settle=1.0,
    stalled_seconds=1.0,
)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description="Throughput, latency and memory of Wallaroo.")
    parser.add_argument("--quick", action="store_true", help="small counts, to see that it works")
    parser.add_argument("--json", type=Path, default=Path("build/bench.json"), metavar="PATH")
    arguments = parser.parse_args()
    sizes = QUICK if arguments.quick else Sizes()
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    began = time.monotonic()
    machine = _machine()
    found: dict[str, Any] = {"sizes": asdict(sizes), "machine": machine, "others": {}}
    console.print(", ".join(f"{name} {value}" for name, value in machine.items()))
    if arguments.quick:
        console.print("--quick: these numbers mean nothing")
    others = _Others()
    try:
        for name, measured, tables in _sections(sizes):
            found[name] = measured
            found["others"][name] = used = others.used()
            for each in tables:
                console.print(each)
                console.print()
            console.print(f"Meanwhile other processes used {used:.0%} of the CPUs.\n")
    except children.ChildFailed as error:
        console.print(str(error), style="red", markup=False, highlight=False)
        sys.exit(1)
    found["seconds"] = time.monotonic() - began
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(found, indent=1))
    console.print(f"{found['seconds']:.0f} s; written to {arguments.json}")


def _sections(sizes: Sizes) -> Iterator[tuple[str, Any, list[Table]]]:
    """Measure one thing after the other: its name, what was measured, and the tables of it."""
    rows = throughput.measure(
        sizes.events, sizes.repetitions, sizes.events_bytewax, sizes.repetitions_bytewax
    )
    yield "throughput", [asdict(row) for row in rows], throughput.tables(rows)
    parts = breakdown.measure(sizes.events, rows)
    yield "breakdown", [asdict(each) for each in parts], breakdown.tables(parts)
    latencies = latency.measure(sizes.latency_seconds, sizes.latency_warm_up, sizes.repetitions)
    yield "latency", asdict(latencies), latency.tables(latencies)
    keys = memory.measure_keys(sizes.keys, sizes.repetitions)
    stalled = memory.measure_stalled(sizes.stalled_settle, sizes.stalled_seconds)
    found = {"keys": asdict(keys), "stalled": asdict(stalled)}
    yield "memory", found, memory.tables(keys, stalled)


class _Others:
    """How busy this machine is with what is not ours."""

    def __init__(self) -> None:
        self._before = self._now()

    def _now(self) -> tuple[float, float]:
        """The time, and the CPU seconds that others have used.

        What a process used, and its children that have ended, is exact in /proc/PID/stat; the
        totals of /proc/stat are samples, which miss what runs for less than a tick.
        """
        ticks = 0
        for file in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):  # it has ended; its parent has its times
                ticks += sum(map(int, file.read_text().rpartition(")")[2].split()[11:15]))
        ours = sum(os.times()[:4])  # of this process, and of its children that have ended
        return time.monotonic(), ticks / os.sysconf("SC_CLK_TCK") - ours

    def used(self) -> float:
        """The share of all CPUs that others used since the last call."""
        (before, used_before), (now, used) = self._before, self._now()
        self._before = now, used
        return max(0.0, (used - used_before) / (now - before) / (os.cpu_count() or 1))


def _machine() -> dict[str, Any]:
    versions = {}
    for package in ("grpcio", "bytewax"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {"python": platform.python_version(), **versions, "cpus": os.cpu_count()}


if __name__ == "__main__":
    main()
