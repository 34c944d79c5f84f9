"""`wallaroo worker`, one process of a run, and `wallaroo fork-server`, which starts it."""

import gc
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NoReturn

import click

from wallaroo import logs
from wallaroo.cli.common import leave
from wallaroo.cli.options import PASS_THROUGH, local_options
from wallaroo.errors import Failure, InputError, WallarooParameterError
from wallaroo.runtime.application import load
from wallaroo.runtime.directory import Directory
from wallaroo.runtime.forking import serve
from wallaroo.runtime.local import run_worker
from wallaroo.runtime.options import FAILED, Options
from wallaroo.runtime.worker import tune_interpreter


@click.command(context_settings=PASS_THROUGH)
@click.option("--worker", type=click.IntRange(min=0), required=True, help="This worker's ordinal.")
@click.option("--workers", type=click.IntRange(min=1), help="How many there are to be.")
@click.option("--dir", "directory", type=click.Path(path_type=Path), required=True)
@click.option("--sockets", type=click.Path(path_type=Path), required=True)
@click.argument("app", metavar="APP.py")
@click.argument("arguments", metavar="[ARG]...", nargs=-1, type=click.UNPROCESSED)
@local_options
def worker(
    worker: int,
    workers: int | None,
    directory: Path,
    sockets: Path,
    app: str,
    arguments: tuple[str, ...],
    interval: float,
    cache: int | None,
    on_error: tuple[str, Path] | None,
    patience: float,
    everywhere: bool,
    grace: float,
    drain_time: float,
    metrics: int | None,
) -> None:
    """Run one worker process; `wallaroo run` starts as many as it needs."""
    logs.configure(worker=worker)
    tune_interpreter()
    at = Directory(directory)
    try:
        program = load(app, arguments)
    except (InputError, WallarooParameterError) as error:
        message = f"worker {worker} can't load the application: {error}"
        at.write_failure(worker, Failure(message, worker=worker))
        leave(FAILED)
    dead_letters = on_error[1] if on_error else None
    options = Options(
        workers, interval, cache, dead_letters, patience, everywhere, grace, drain_time, metrics
    )
    leave(run_worker(program, worker, options, at, sockets))


def begin(arguments: list[str]) -> NoReturn:
    """Be the worker process of this command line."""
    name, *rest = arguments
    assert name == worker.name
    leave(worker.main(rest, f"wallaroo {name}", standalone_mode=False) or 0)


@click.command(hidden=True)
@click.argument("runner", type=int)
def fork_server(runner: int) -> None:
    """Fork worker processes, as the runner asks over a file descriptor."""
    gc.collect()
    serve(Connection(runner), begin)
