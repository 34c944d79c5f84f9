"""What a person sees: a live line on a terminal, structured logs elsewhere, tables on demand."""

import time
from pathlib import Path
from typing import Any, ClassVar, Self

import structlog
from rich import box
from rich.console import Console
from rich.filesize import decimal
from rich.live import Live as RichLive
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from wallaroo import logs
from wallaroo.errors import Failure


class Live:
    """One line that is kept up to date, on a terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._workers = 0
        self._live = RichLive(
            Text("starting"), console=console, transient=True, refresh_per_second=4
        )
        self._began = time.monotonic()
        self._rate = _Rate()

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def close(self) -> None:
        self._live.stop()

    def update(self, status: dict[str, Any]) -> None:
        total = _totals(status)
        self._workers = len(status["members"])
        rescale = status["rescale"]
        phase = status["phase"]
        parts = [
            f"{phase}{', asked to stop' * _stops(status)}",
            _workers(self._workers),
            *([f"rescale to {rescale['to']}: {rescale['phase']}"] if rescale else []),
            f"{self._rate.of(total['read']):,.0f} events/s",
            f"{total['read']:,} read",
            f"{total['keys']:,} keys",
            f"epoch {status['epoch']}",
        ]
        waiting = [text for worker in status["workers"] for text in worker["waiting"]]
        if waiting:
            parts.append(f"waiting for {waiting[0]}")
        self._live.update(Text("  ".join(parts), overflow="ellipsis", no_wrap=True), refresh=True)

    def tell(self, what: str) -> None:
        self._console.print(what, markup=False, highlight=False)

    def ended(self, status: dict[str, Any]) -> None:
        self.close()
        total = _totals(status)
        self._console.print(
            f"{status.get('application')}: read {total['read']:,} events, "
            f"kept {total['keys']:,} keys, wrote {total['written']:,} outputs on "
            f"{_workers(self._workers)} in {time.monotonic() - self._began:.1f} s",
            markup=False,
            highlight=False,
        )


class Log:
    """Structured lines on standard error, few of them."""

    def __init__(self) -> None:
        logs.configure()
        self._log = structlog.get_logger("wallaroo")
        self._phase = ""
        self._stops = False
        self._waiting: set[str] = set()

    def __enter__(self) -> Self:
        self._log.info("starting")
        return self

    def __exit__(self, *raised: object) -> None:
        pass

    def close(self) -> None:
        pass

    def update(self, status: dict[str, Any]) -> None:
        if status["phase"] != self._phase:
            self._phase = status["phase"]
            self._log.info(self._phase, workers=len(status["members"]))
        if _stops(status) and not self._stops:
            self._log.info("asked to stop", then="a second signal ends it at once")
        self._stops = _stops(status)
        waiting = {text for worker in status["workers"] for text in worker["waiting"]}
        for text in sorted(waiting - self._waiting):
            self._log.warning("waiting", what=text)
        self._waiting = waiting

    def tell(self, what: str) -> None:
        self._log.warning(what)

    def ended(self, status: dict[str, Any]) -> None:
        self._log.info("ended", **_totals(status))


class Rescaling:
    """A bar for a rescale under way, on a terminal; lines elsewhere."""

    _DONE: ClassVar = {"prepare": 5, "copy": 10, "drain": 90, "catch up": 93, "switch": 95}

    def __init__(self, console: Console, workers: int) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[what]}"),
            console=console,
            transient=True,
        )
        title = f"rescaling to {_workers(workers)}"
        self._task = self._progress.add_task(title, total=100, what="waiting for workers")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def close(self) -> None:
        self._progress.stop()

    def update(self, status: dict[str, Any]) -> None:
        rescale = status["rescale"]
        if rescale is None:
            self._progress.update(self._task, completed=0, what="waiting for workers")
            return
        done = self._DONE[rescale["phase"]]
        if rescale["phase"] == "copy" and rescale["entries"]:
            keys = sum(each["keys"] for each in status["workers"])
            share = rescale["entries"] / max(1.0, keys * rescale["moved"])
            done += int(80 * min(1.0, share))
        what = f"{rescale['phase']}: {rescale['entries']:,} entries, {_size(rescale['bytes'])}"
        self._progress.update(self._task, completed=done, what=what)

    def tell(self, what: str) -> None:
        self._console.print(what, markup=False, highlight=False)


def rescaled(console: Console, record: dict[str, Any]) -> None:
    """What a rescale has done."""
    seconds = ", ".join(f"{name} {took:.2f} s" for name, took in record["seconds"].items())
    lost = record.get("lost", 0)  # of no interest to most, and older records lack it
    cut = f"; {lost:,} bytes of clients that were cut off are lost" if lost else ""
    console.print(
        f"Rescaled from {record['from']} to {_workers(record['to'])}: moved "
        f"{record['moved']:.2%} of the keys (the minimum is {record['minimum']:.2%}), "
        f"{record['entries']:,} entries, {_size(record['bytes'])}; {seconds}; events of a moved "
        f"key were held back for {1000 * record['held']:.1f} ms at most{cut}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def _workers(count: int) -> str:
    return f"{count} worker{'s' * (count != 1)}"


def _size(count: float) -> str:
    return decimal(int(count))


def _history(records: list[dict[str, Any]]) -> Table:
    table = Table("rescale", box=box.SIMPLE_HEAD)
    table.add_column("outcome", min_width=len("committed"), overflow="fold")
    for name in ("moved", "minimum", "entries", "size", "took", "held back"):
        table.add_column(name, justify="right", no_wrap=True)
    for each in records:
        table.add_row(
            f"{each['from']} -> {each['to']}",
            each["outcome"] + (f": {each['why']}" if each["why"] else ""),
            f"{each['moved']:.1%}",
            f"{each['minimum']:.1%}",
            f"{each['entries']:,}",
            _size(each["bytes"]),
            f"{sum(each['seconds'].values()):.2f} s",
            f"{1000 * each['held']:.1f} ms",
        )
    return table


class _Rate:
    """Events per second between two looks."""

    def __init__(self) -> None:
        self._at = time.monotonic()
        self._count = 0

    def of(self, count: int) -> float:
        now = time.monotonic()
        rate = (count - self._count) / max(now - self._at, 1e-9)
        self._at, self._count = now, count
        return rate


def _stops(status: dict[str, Any]) -> bool:
    """Whether it has been asked to stop, and has yet to begin with that."""
    return bool(status["stop_requested"]) and status["phase"] in {
        "forming",
        "recovering",
        "running",
    }


def _totals(status: dict[str, Any]) -> dict[str, int]:
    """Of all workers, those that have left included."""
    members = [each for each in status.get("workers", []) if each["worker"] in status["members"]]
    done = [*members, status["departed"]] if members else []
    found = {name: sum(each[name] for each in done) for name in ("read", "written")}
    return {**found, "keys": status.get("keys", 0)}


def failure(console: Console, failure: Failure, log: Path) -> None:
    """Why the application stopped."""
    where = "" if failure.worker is None else f" (worker {failure.worker}; log: {log})"
    console.print(
        f"Error: {failure.message}",
        style="bold",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    for name in ("step", "key", "event"):
        value = getattr(failure, name)
        if value:
            console.print(f"  {name}: {value}", markup=False, highlight=False, soft_wrap=True)
    if failure.traceback:
        console.print(failure.traceback.rstrip(), markup=False, highlight=False, soft_wrap=True)
    console.print(
        f"The application has stopped{where}.",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def status(console: Console, found: dict[str, Any]) -> None:
    """A live application."""
    console.print(
        f"{found['application']}: {found['phase']}{', asked to stop' * _stops(found)}, "
        f"epoch {found['epoch']}, "
        f"assignment version {found['version']}",
        markup=False,
        highlight=False,
    )
    shares: dict[int, int] = {}
    pieces: dict[int, list[str]] = {}
    for piece in found["assignment"]:
        worker = piece["worker"]
        shares[worker] = shares.get(worker, 0) + piece["end"] - piece["start"]
        # Enough digits for a person; --json has them all.
        bounds = f"{piece['start'] >> 40:06x}-{(piece['end'] - 1) >> 40:06x}"
        pieces.setdefault(worker, []).append(bounds)
    table = Table("worker", "share", "hash interval", box=box.SIMPLE_HEAD)
    for name in ("keys", "read", "received", "written"):
        table.add_column(name, justify="right", no_wrap=True)
    for each in found["workers"]:
        worker = each["worker"]
        table.add_row(
            str(worker),
            f"{shares.get(worker, 0) / 2**64:.1%}",
            "\n".join(pieces.get(worker, [])),
            *(f"{each[name]:,}" for name in ("keys", "read", "received", "written")),
        )
    left = found["departed"]
    if any(left.values()):
        counts = (f"{left[name]:,}" for name in ("read", "received", "written"))
        table.add_row("left", "", "", "", *counts)
    console.print(table)
    if rescale := found["rescale"]:
        console.print(
            f"rescaling from {rescale['from']} to {rescale['to']} workers: {rescale['phase']}, "
            f"{rescale['entries']:,} entries, {_size(rescale['bytes'])} so far",
            highlight=False,
        )
    if found["rescales"]:
        console.print(_history(found["rescales"]))
    for each in found["workers"]:
        for text in each["waiting"]:
            console.print(
                f"worker {each['worker']} waits for {text}", markup=False, highlight=False
            )
    if found["error"]:
        _error(console, found["error"])


def outcome(console: Console, found: dict[str, Any]) -> None:
    """How the last run ended."""
    console.print(
        f"{found['application']}: not running; the last run {_HOW[found['ended']]}",
        markup=False,
        highlight=False,
    )
    if found["error"]:
        _error(console, found["error"])


_HOW = {
    "ended": "ended because its sources did",
    "stopped": "was stopped",
    "failed": "stopped by a failure",
    "killed": "was killed",
}


def _error(console: Console, error: dict[str, Any]) -> None:
    for name in ("message", "step", "key", "event", "traceback"):
        if error[name]:
            console.print(f"{name}: {error[name]}", markup=False, highlight=False, soft_wrap=True)
