"""What a person sees: a live line on a terminal, structured logs elsewhere, tables on demand."""

import time
from pathlib import Path
from typing import Any, Self

import structlog
from rich import box
from rich.console import Console
from rich.live import Live as RichLive
from rich.table import Table
from rich.text import Text

from wallaroo import logs
from wallaroo.errors import Failure


class Live:
    """One line that is kept up to date, on a terminal."""

    def __init__(self, console: Console, workers: int) -> None:
        self._console = console
        self._workers = workers
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
        parts = [
            status["phase"],
            f"{self._workers} worker{'s' * (self._workers > 1)}",
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
            f"{self._workers} worker{'s' * (self._workers > 1)} "
            f"in {time.monotonic() - self._began:.1f} s",
            markup=False,
            highlight=False,
        )


class Log:
    """Structured lines on standard error, few of them."""

    def __init__(self, workers: int) -> None:
        logs.configure()
        self._log = structlog.get_logger("wallaroo")
        self._workers = workers
        self._phase = ""
        self._waiting: set[str] = set()

    def __enter__(self) -> Self:
        self._log.info("starting", workers=self._workers)
        return self

    def __exit__(self, *raised: object) -> None:
        pass

    def close(self) -> None:
        pass

    def update(self, status: dict[str, Any]) -> None:
        if status["phase"] != self._phase:
            self._phase = status["phase"]
            self._log.info(self._phase)
        waiting = {text for worker in status["workers"] for text in worker["waiting"]}
        for text in sorted(waiting - self._waiting):
            self._log.warning("waiting", what=text)
        self._waiting = waiting

    def tell(self, what: str) -> None:
        self._log.warning(what)

    def ended(self, status: dict[str, Any]) -> None:
        self._log.info("ended", **_totals(status))


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


def _totals(status: dict[str, Any]) -> dict[str, int]:
    workers = status.get("workers", [])
    return {name: sum(each[name] for each in workers) for name in ("read", "written", "keys")}


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
        f"{found['application']}: {found['phase']}, epoch {found['epoch']}, "
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
    console.print(table)
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
