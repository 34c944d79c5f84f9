"""What several commands have: how they end, and how they name a run's directory."""

import contextlib
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

import click

from wallaroo.runtime.options import MOST_A_CORE, MOST_WORKERS

#: What can't start exits with 2, what stops by a failure with 1, what is killed with 130.
CANNOT_START, FAILED, KILLED = 2, 1, 130

dir_option = click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where the application keeps state and logs.  [default: .wallaroo/NAME]",
)


class ProcessCount(click.IntRange):
    """How many worker processes this machine is to run."""

    def __init__(self) -> None:
        super().__init__(min=1, max=MOST_WORKERS)

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> int:
        workers: int = super().convert(value, param, context)
        cores = os.cpu_count() or 1
        if workers > cores * MOST_A_CORE:
            self.fail(
                f"{workers} are too many for the {cores} processors of this machine, which would "
                f"do nothing but switch between them: at most {cores * MOST_A_CORE}",
                param,
                context,
            )
        return workers


def leave(code: int) -> NoReturn:
    """End now: threads that user code has started, or that are blocked, hold nobody up."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # user code may have closed it, or put its own there
            stream.flush()
    os._exit(code)


def refuse(message: str) -> NoReturn:
    """Say why nothing can be done."""
    click.echo(f"Error: {message}", err=True)
    sys.exit(CANNOT_START)
