"""The command line: `wallaroo`.

Options before APP are Wallaroo's, everything after it is the application's.
"""

import importlib
import io
import logging
import os
import sys
from typing import ClassVar

import click
import structlog

from wallaroo.cli.common import refuse
from wallaroo.errors import InputError


class _Commands(click.Group):
    """Each is loaded when it is asked for: to look at a run needs little of what runs it."""

    _modules: ClassVar = {
        "fork-server": "worker",
        "plan": "plan",
        "pod": "pod",
        "run": "run",
        "scale": "control",
        "status": "control",
        "stop": "control",
        "worker": "worker",
    }

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._modules)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._modules:
            return None
        module = importlib.import_module(f"wallaroo.cli.{self._modules[cmd_name]}")
        command = getattr(module, cmd_name.replace("-", "_"))
        assert isinstance(command, click.Command)
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="wallaroo-on-kubernetes")
def cli() -> None:
    """Stateful stream processing in plain Python."""


def _open_streams() -> None:
    """Have standard streams where whoever started us has closed them.

    Else what is opened next would get their numbers, and workers would write their logs to it.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # It gets the lowest number that is free: its own.
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115  for ever


def main() -> None:
    """The program `wallaroo`."""
    _open_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # whatever a terminal can't show is escaped
            stream.reconfigure(errors="backslashreplace")
    logging.captureWarnings(True)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))
    try:
        cli()
    except InputError as error:  # a file in DIR that somebody has damaged, or may not read
        refuse(str(error))
