"""Throughput: the bare loop, `wallaroo run` with 1, 2 and 4 workers, and bytewax, in turns.

All call the same two functions for the same words, and each runs in fresh processes. Ratios are to
the bare loop and to bytewax in the same run of this benchmark, for times on one machine differ
from one hour to the next by more than what they are to show. Wallaroo takes no checkpoints here but
one at the end, as bytewax takes none: what they cost is the checkpoint benchmark's to say.

bytewax gets fewer events, or most of the time would be its: what it takes for one does not depend
on how many there are (CPU time of one process for 1M and 5M: zipf 2450 and 2620 ns, uniform 8930
and 9240 ns).
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from rich.table import Table
from rich.text import Text

import children
from report import BYTEWAX_MISSING, Spread, interleaved, table, target

KINDS = {"zipf": "about 97k distinct words of 5M", "uniform": "about 1M distinct words of 5M"}
_WORKERS = (1, 2, 4)
_PROCESSES = (1, 2)
_BARE = "bare loop"
#: Lowest ratio to the bare loop, by kind and workers; and to bytewax.
_TARGETS = {("zipf", 1): 0.8, ("uniform", 1): 0.8, ("zipf", 2): 1.0, ("uniform", 2): 1.2}
_TARGET_BYTEWAX = 3.0


@dataclass(frozen=True)
class Run:
    """One measurement: wall time of an event, and CPU time of all workers if it is known, in ns."""

    wall: float
    cpu: float | None = None


@dataclass(frozen=True)
class Row:
    """What one way to process the words takes; ratios above 1 are faster. None: not measured."""

    kind: str
    name: str
    workers: int | None
    events: int
    ns: Spread | None
    cpu_ns: float | None
    repetitions: int
    to_bare: float | None
    to_bytewax: float | None
    targets: tuple[tuple[str, bool | None], ...]


def measure(
    events: int, repetitions: int, events_bytewax: int, repetitions_bytewax: int
) -> list[Row]:
    """Process `events` events of each kind, with bytewax `events_bytewax`."""
    has_bytewax = importlib.util.find_spec("bytewax") is not None
    rows = []
    for kind in KINDS:
        runs: dict[str, Callable[[], Run]] = {_BARE: partial(_bare, kind, events)}
        for workers in _WORKERS:
            runs[_name("wallaroo", workers, "worker")] = partial(_wallaroo, workers, kind, events)
        for processes in _PROCESSES if has_bytewax else ():
            name = _name("bytewax", processes, "process")
            runs[name] = partial(_bytewax, processes, kind, events_bytewax)
        counts = {
            name: repetitions_bytewax if name.startswith("bytewax") else repetitions
            for name in runs
        }
        sizes = {name: events_bytewax if name.startswith("bytewax") else events for name in runs}
        rows += _rows(kind, interleaved(runs, counts), sizes)
    return rows


def _name(what: str, count: int, unit: str) -> str:
    plural = "" if count == 1 else "es" if unit.endswith("s") else "s"
    return f"{what}, {count} {unit}{plural}"


def _bare(kind: str, events: int) -> Run:
    return Run(children.run_script("events.py", kind, events)["seconds"] / events * 1e9)


def _wallaroo(workers: int, kind: str, events: int) -> Run:
    with children.folder() as into:
        children.run_wallaroo(
            workers,
            "throughput_app.py",
            *(kind, events, workers, into),
            options=children.NO_CHECKPOINTS,
        )
        found = children.results(into)
    cpu = sum(each["cpu"] for each in found)
    return Run(_wall(found, events), cpu / events * 1e9)


def _bytewax(processes: int, kind: str, events: int) -> Run:
    with children.folder() as into:
        children.run_bytewax(processes, kind, events, into)
        return Run(_wall(children.results(into), events))


def _wall(found: list[dict[str, float]], events: int) -> float:
    """Nanoseconds an event from the first read to the last output."""
    outputs = sum(each["outputs"] for each in found)
    # Shares are whole: up to as many events as there are partitions are left out.
    if not events - len(found) < outputs <= events:
        raise children.ChildFailed(f"{outputs} outputs of {events} events")
    seconds = max(each["ended"] for each in found) - min(each["began"] for each in found)
    return seconds / outputs * 1e9


def _rows(kind: str, found: dict[str, list[Run]], events: dict[str, int]) -> list[Row]:
    wall = {name: Spread.of(run.wall for run in runs) for name, runs in found.items()}
    bare = wall[_BARE].median
    bytewax = min((wall[name].median for name in wall if name.startswith("bytewax")), default=None)
    workers = {_name("wallaroo", count, "worker"): count for count in _WORKERS}
    rows = []
    for name, runs in found.items():
        ns = wall[name].median
        cpu = [run.cpu for run in runs if run.cpu is not None]
        to_bytewax = bytewax / ns if bytewax else None
        targets: list[tuple[str, bool | None]] = []
        if name in workers:
            least = _TARGETS.get((kind, workers[name]))
            if least is not None:
                targets.append((f"{least}x bare", bare / ns >= least))
            met = None if to_bytewax is None else to_bytewax >= _TARGET_BYTEWAX
            targets.append((f"{_TARGET_BYTEWAX:.0f}x bytewax", met))
        rows.append(
            Row(
                kind,
                name,
                workers.get(name),
                events[name],
                wall[name],
                Spread.of(cpu).median if cpu else None,
                len(runs),
                bare / ns,
                to_bytewax,
                tuple(targets),
            )
        )
    if bytewax is None:
        rows.append(Row(kind, BYTEWAX_MISSING, None, 0, None, None, 0, None, None, ()))
    return rows


def tables(rows: list[Row]) -> list[Table]:
    """A table for each kind."""
    return [_table(kind, [row for row in rows if row.kind == kind]) for kind in KINDS]


def _table(kind: str, rows: list[Row]) -> Table:
    sizes = f"{rows[0].events:,} events"
    if rows[-1].events:
        sizes += f", with bytewax {rows[-1].events:,}"
    made = table(
        f"Throughput, {kind} ({KINDS[kind]})",
        *("", "runs", "ns/event", "min - max", "events/s", "x bare", "x bytewax", "targets"),
        caption=f"{sizes}; ns/event: wall time from the first read to the last output, median;\n"
        "x bytewax: to the better of its two",
    )
    for row in rows:
        if row.ns is None:
            made.add_row(row.name, style="dim")
            continue
        made.add_row(
            row.name,
            str(row.repetitions),
            *row.ns.cells(",.0f"),
            f"{1e9 / row.ns.median:,.0f}",
            f"{row.to_bare:.2f}",
            "" if row.to_bytewax is None else f"{row.to_bytewax:.2f}",
            Text("\n").join(target(*each) for each in row.targets),
        )
    return made
