"""Where the time of one event goes at two workers, as a sum.

The time measured from outside, and the CPU time used in it, come from the throughput benchmark;
the time of the real engine without gRPC, and the pieces of that, from pieces.py, which runs as
two processes at once, for the two workers also share caches and memory. What a larger part has
beyond its pieces is a row of its own, so the rows add up to what was measured; a small negative
one is noise.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from rich.table import Table

import children
import throughput
from report import table

_WORKERS = 2


@dataclass(frozen=True)
class Part:
    """ns of a core for one event; for a piece that is called also ns a call, and calls an event."""

    name: str
    ns: float
    call: float | None = None
    calls: float | None = None


@dataclass(frozen=True)
class Breakdown:
    """The parts of one kind's events; they sum to `measured`, ns of both cores for an event."""

    kind: str
    parts: tuple[Part, ...]
    measured: float


def measure(events: int, rows: list[throughput.Row]) -> list[Breakdown]:
    """Take the two-worker rows of the throughput benchmark apart."""
    found = []
    for row in rows:
        if row.workers == _WORKERS and row.ns and row.cpu_ns:
            pieces = _pieces(row.kind, events)
            found.append(_breakdown(row.kind, _WORKERS * row.ns.median, row.cpu_ns, pieces))
    return found


def _pieces(kind: str, events: int) -> dict[str, float]:
    """Means of the two workers."""
    with ThreadPoolExecutor(_WORKERS) as pool:
        runs = list(
            pool.map(
                lambda worker: children.run_script("pieces.py", kind, events, worker),
                range(_WORKERS),
            )
        )
    return {name: sum(run[name] for run in runs) / len(runs) for name in runs[0]}


def _breakdown(kind: str, measured: float, cpu: float, pieces: dict[str, float]) -> Breakdown:
    exchanged = pieces["exchanged"]
    calls = {
        "the user's key function": ("key", 1 + exchanged),  # again where it arrives
        "the user's state function": ("state", 1.0),
        "look up, or make, the state": ("look_up", 1.0),
        "hash and route": ("hash_and_route", 1.0),
        "append to outbox or output": ("append", 1 + exchanged),
        "encode": ("encode", exchanged),
        "decode": ("decode", exchanged),
    }
    parts = [
        Part(name, pieces[piece] * times, pieces[piece], times)
        for name, (piece, times) in calls.items()
    ]
    parts.append(Part("collect garbage", pieces["collecting"]))
    engine = pieces["engine"]
    parts.append(Part("loops, batches, turns of the engine", engine - sum(p.ns for p in parts)))
    parts.append(Part("rest on a CPU: gRPC, event loop", cpu - engine))
    parts.append(Part("rest not on a CPU: waiting", measured - cpu))
    return Breakdown(kind, tuple(parts), measured)


def tables(found: list[Breakdown]) -> list[Table]:
    """A table for each kind."""
    return [_table(each) for each in found]


def _table(found: Breakdown) -> Table:
    made = table(
        f"Where the time of an event goes, {found.kind}, {_WORKERS} workers",
        *("", "ns a call", "calls an event", "ns an event", "%"),
        caption=f"ns of a core: {_WORKERS} cores for the wall time of the table above",
    )
    for part in found.parts:
        made.add_row(
            part.name,
            "" if part.call is None else f"{part.call:.0f}",
            "" if part.calls is None else f"{part.calls:.2f}",
            f"{part.ns:.0f}",
            f"{100 * part.ns / found.measured:.0f}",
        )
    made.add_section()
    made.add_row("measured", "", "", f"{found.measured:.0f}", "100")
    return made
