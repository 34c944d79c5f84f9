"""`wallaroo run`: an application on this machine."""

import sys
from pathlib import Path

import click
from rich.console import Console

from wallaroo.cli import show
from wallaroo.cli.common import FAILED, KILLED, ProcessCount, dir_option, leave, refuse
from wallaroo.cli.options import PASS_THROUGH, local_options
from wallaroo.cli.worker import begin
from wallaroo.errors import InputError, WallarooParameterError
from wallaroo.runtime.application import Program, load
from wallaroo.runtime.directory import Directory, default_directory
from wallaroo.runtime.forking import ForkServer
from wallaroo.runtime.options import Options
from wallaroo.runtime.runner import Interrupted, Runner, Stopped, WorkerEnded

#: What forks the workers once the first fork server is lost. -P: modules come from where Python and
#: the application are, not from this folder. -u: what user code prints is in the log at once.
_FORK_SERVER = [sys.executable, "-u", "-P", "-m", "wallaroo", "fork-server"]


@click.command(context_settings=PASS_THROUGH)
@click.option(
    "--workers",
    type=ProcessCount(),
    help="How many worker processes share the keys.  [default: as many as there were, first 1]",
)
@local_options
@dir_option
@click.argument("app", metavar="APP.py")
@click.argument("arguments", metavar="[ARG]...", nargs=-1, type=click.UNPROCESSED)
def run(
    workers: int | None,
    directory: Path | None,
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
    """Run an application on this machine until its sources end.

    It goes on from the last checkpoint in its directory, if there is one, and rescales to the
    number of workers that is asked for. A worker that dies is started again. SIGINT or SIGTERM lets
    everything that was read reach the sinks, and ends with a checkpoint; a second one ends at once.
    """
    if cache is not None and not interval:
        refuse("--state-cache needs checkpoints: only what one holds can leave the memory")
    try:
        cwd = Path.cwd()  # before the application's code can change it
    except FileNotFoundError:
        refuse("the current directory has been removed; change to another")
    server = ForkServer(begin, _FORK_SERVER)  # before the application is loaded
    program = _load(app, arguments)
    at = Directory(cwd / (directory or default_directory(program.name)))
    console = Console(stderr=True)
    view = show.Live(console) if console.is_terminal else show.Log()
    dead_letters = cwd / on_error[1] if on_error else None
    options = Options(
        workers, interval, cache, dead_letters, patience, everywhere, grace, drain_time, metrics
    )
    with view:
        try:
            status = Runner(program, options, at, cwd, server).run(view)
        except InputError as error:
            view.close()
            refuse(str(error))
        except Stopped as error:
            view.close()
            show.failure(console, error.failure, error.log)
            sys.exit(FAILED)
        except WorkerEnded as error:
            view.close()
            click.echo(f"Error: {error}", err=True)
            sys.exit(FAILED)
        except Interrupted:
            view.close()
            click.echo("Killed: the next run goes on from the last checkpoint.", err=True)
            sys.exit(KILLED)
        view.ended(status)
    leave(0)


def _load(app: str, arguments: tuple[str, ...]) -> Program:
    try:
        return load(app, arguments)
    except (InputError, WallarooParameterError) as error:
        refuse(str(error) or f"{app}: application_setup raised {type(error).__name__}")
