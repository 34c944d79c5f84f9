"""Options that several commands have."""

import re
from pathlib import Path
from typing import Any, ClassVar

import click

from wallaroo.protocol.coordinator import DRAIN_TIME, GRACE
from wallaroo.runtime.options import HEARTBEAT

#: Of commands that take an application's own arguments.
PASS_THROUGH = {"ignore_unknown_options": True, "allow_interspersed_args": False}


class Duration(click.ParamType[float]):
    """Seconds, from text such as `500ms`, `1s`, `2m` or `0`."""

    name = "duration"
    _units: ClassVar = {"ms": 0.001, "s": 1.0, "m": 60.0, "": 1.0}
    #: Threads can't wait for three hundred years.
    _longest = 1e9

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if isinstance(value, float):
            return value
        # With an exponent, as Python writes what is very short.
        found = re.fullmatch(r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?)\s*(ms|s|m|)", str(value))
        if not found:
            self.fail(f"{value!r} is no duration: write it like 500ms, 1s or 2m", param, ctx)
        seconds = float(found[1]) * self._units[found[2]]
        if seconds > self._longest:
            self.fail(f"{value!r} is too long: at most {self._longest:.0f}s", param, ctx)
        return seconds


def _patient(_context: click.Context, _option: click.Parameter, value: float) -> float:
    if value < 2 * HEARTBEAT:
        raise click.BadParameter(f"it must be at least {2 * HEARTBEAT:g}s")
    return value


def engine_options(command: Any) -> Any:
    """The options of `run` that each worker has."""
    for option in (
        click.option(
            "--checkpoint-interval",
            "interval",
            type=Duration(),
            default="1s",
            show_default=True,
            help="Time between checkpoints; 0 for none but the last.",
        ),
        click.option(
            "--state-cache",
            "cache",
            type=click.IntRange(min=1),
            metavar="N",
            help="Keep about N entries of state in a worker's memory.  [default: all]",
        ),
        click.option(
            "--on-error",
            nargs=2,
            type=(click.Choice(["dead-letter"]), click.Path(path_type=Path, dir_okay=False)),
            metavar="dead-letter PATH",
            help="Write events for which a function raises to PATH, and go on.  [default: stop]",
        ),
        click.option(
            "--heartbeat-timeout",
            "patience",
            type=Duration(),
            callback=_patient,
            default="10s",
            show_default=True,
            help="Silence after which a worker counts as lost.",
        ),
        click.option("--drain-grace", "grace", type=Duration(), default=f"{GRACE}s", hidden=True),
        click.option(
            "--drain-timeout",
            "drain_time",
            type=Duration(),
            default=f"{DRAIN_TIME:g}s",
            help="Time for clients to close their connections to a worker that leaves.",
            hidden=True,
        ),
    ):
        command = option(command)
    return command


def local_options(command: Any) -> Any:
    """Those, and what a worker on this machine has beside them."""
    for option in (
        click.option(
            "--metrics-port",
            "metrics",
            type=click.IntRange(1, 65535),
            metavar="PORT",
            help="Serve metrics for Prometheus on 127.0.0.1: worker N on PORT + N.  [default: off]",
        ),
        # Of no use on one machine, where sources would listen on the same port: for tests.
        click.option("--listen-everywhere", "everywhere", is_flag=True, hidden=True),
    ):
        command = option(command)
    return engine_options(command)
