"""All benchmarks in one run: prints tables, and writes what is in them as JSON.

    bench.py [--quick] [--only NAME]... [--json PATH]

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
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import breakdown
import checkpoint
import children
import disk
import latency
import memory
import recovery
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
    checkpoint_seconds: float = 10.0
    checkpoint_latency_seconds: float = 20.0
    checkpoint_latency_warm_up: float = 3.0
    recovery_keys: int = 1_000_000
    recovery_settle: float = 5.0
    recovery_seconds: float = 10.0
    disk_keys: int = 10_000_000
    disk_cache: int = 100_000
    disk_fill_seconds: float = 150.0
    disk_update_seconds: float = 60.0
    disk_settle: float = 10.0
    disk_steady_keys: int = 1_000_000
    disk_steady_seconds: float = 200.0


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
    checkpoint_seconds=3.0,
    checkpoint_latency_seconds=3.0,
    checkpoint_latency_warm_up=1.0,
    recovery_keys=20_000,
    recovery_settle=2.5,
    recovery_seconds=5.0,
    disk_keys=50_000,
    disk_cache=5_000,
    disk_fill_seconds=10.0,
    disk_update_seconds=4.0,
    disk_settle=1.0,
    disk_steady_keys=50_000,
    disk_steady_seconds=4.0,
)

#: A name, what was measured, and the tables of it.
Section = tuple[str, Any, list[Table]]


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description="Throughput, latency and memory of Wallaroo, the cost of checkpoints, recovery."
    )
    parser.add_argument("--quick", action="store_true", help="small counts, to see that it works")
    parser.add_argument(
        "--only",
        action="append",
        choices=SECTIONS,
        metavar="NAME",
        help="measure this and nothing else: " + ", ".join(SECTIONS),
    )
    parser.add_argument(
        "--json", type=Path, metavar="PATH", help="default: build/bench.json, or bench-NAME.json"
    )
    arguments = parser.parse_args()
    names = list(dict.fromkeys(arguments.only or ()))
    path = arguments.json or Path("build") / ("-".join(["bench", *names]) + ".json")
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
        for name, measured, tables in _sections(sizes, names or SECTIONS):
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
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1))
    console.print(f"{found['seconds']:.0f} s; written to {path}")


def _sections(sizes: Sizes, names: Iterable[str]) -> Iterator[Section]:
    """Measure one thing after the other."""
    for name, sections in SECTIONS.items():
        # The breakdown takes apart what the throughput was, and brings it.
        if name in names and not (name == "throughput" and "breakdown" in names):
            yield from sections(sizes)


def _throughput(sizes: Sizes) -> Iterator[Section]:
    rows = _throughput_rows(sizes)
    yield "throughput", [asdict(row) for row in rows], throughput.tables(rows)


def _breakdown(sizes: Sizes) -> Iterator[Section]:
    rows = _throughput_rows(sizes)
    yield "throughput", [asdict(row) for row in rows], throughput.tables(rows)
    parts = breakdown.measure(sizes.events, rows)
    yield "breakdown", [asdict(each) for each in parts], breakdown.tables(parts)


def _throughput_rows(sizes: Sizes) -> list[throughput.Row]:
    return throughput.measure(
        sizes.events, sizes.repetitions, sizes.events_bytewax, sizes.repetitions_bytewax
    )


def _latency(sizes: Sizes) -> Iterator[Section]:
    latencies = latency.measure(sizes.latency_seconds, sizes.latency_warm_up, sizes.repetitions)
    yield "latency", asdict(latencies), latency.tables(latencies)


def _memory(sizes: Sizes) -> Iterator[Section]:
    keys = memory.measure_keys(sizes.keys, sizes.repetitions)
    stalled = memory.measure_stalled(sizes.stalled_settle, sizes.stalled_seconds)
    found = {"keys": asdict(keys), "stalled": asdict(stalled)}
    yield "memory", found, memory.tables(keys, stalled)


def _checkpoint(sizes: Sizes) -> Iterator[Section]:
    rows = checkpoint.measure_throughput(sizes.checkpoint_seconds, sizes.repetitions)
    latencies = checkpoint.measure_latency(
        sizes.checkpoint_latency_seconds, sizes.checkpoint_latency_warm_up, sizes.repetitions
    )
    found = {"throughput": [asdict(row) for row in rows], "latency": asdict(latencies)}
    yield "checkpoint", found, checkpoint.tables(rows, latencies)


def _recovery(sizes: Sizes) -> Iterator[Section]:
    found = recovery.measure(
        sizes.recovery_keys, sizes.recovery_settle, sizes.recovery_seconds, sizes.repetitions
    )
    yield "recovery", [asdict(each) for each in found], recovery.tables(found)


def _disk(sizes: Sizes) -> Iterator[Section]:
    large = disk.measure_large(
        sizes.disk_keys,
        sizes.disk_cache,
        sizes.disk_fill_seconds,
        sizes.disk_settle,
        sizes.disk_update_seconds,
    )
    steady = disk.measure_steady(
        sizes.disk_steady_keys, sizes.disk_settle, sizes.disk_steady_seconds
    )
    yield "disk", {"large": asdict(large), "steady": asdict(steady)}, disk.tables(large, steady)


#: What can be measured alone, by name.
SECTIONS: dict[str, Callable[[Sizes], Iterator[Section]]] = {
    "throughput": _throughput,
    "breakdown": _breakdown,
    "latency": _latency,
    "memory": _memory,
    "checkpoint": _checkpoint,
    "recovery": _recovery,
    "disk": _disk,
}


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
