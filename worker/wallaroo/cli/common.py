"""What several commands have: how they end, and how they name a run's directory."""

import os
import sys
from pathlib import Path
from typing import NoReturn

import click

#: What can't start exits with 2, what stops by a failure with 1, what is killed with 130.
CANNOT_START, FAILED, KILLED = 2, 1, 130

dir_option = click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where the application keeps state and logs.  [default: .wallaroo/NAME]",
)


def leave(code: int) -> NoReturn:
    """End now: threads that user code has started, or that are blocked, hold nobody up."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def refuse(message: str) -> NoReturn:
    """Say why nothing can be done."""
    click.echo(f"Error: {message}", err=True)
    sys.exit(CANNOT_START)
