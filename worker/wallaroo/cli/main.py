"""The command line: `wallaroo`.

Options before APP are Wallaroo's, everything after it is the application's.
"""

import io
import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

import click
import structlog
from rich.console import Console

from wallaroo import logs
from wallaroo.cli import plan as plans
from wallaroo.cli import show
from wallaroo.cli.options import PASS_THROUGH, local_options
from wallaroo.cli.pod import pod
from wallaroo.errors import Failure, InputError, WallarooParameterError
from wallaroo.runtime.application import Program, load
from wallaroo.runtime.client import Client, Unreachable
from wallaroo.runtime.coordinator import MOST_WORKERS
from wallaroo.runtime.directory import Directory, default_directory
from wallaroo.runtime.forking import serve
from wallaroo.runtime.local import run_worker
from wallaroo.runtime.options import Options
from wallaroo.runtime.runner import Interrupted, Runner, Stopped, WorkerEnded
from wallaroo.runtime.worker import FAILED as WORKER_FAILED
from wallaroo.runtime.worker import tune_interpreter

#: What can't start exits with 2, what stops by a failure with 1, what is killed with 130.
_CANNOT_START, _FAILED, _KILLED = 2, 1, 130
#: Seconds for a run to answer: worker 0 may be starting again.
_PATIENCE = 30.0


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="wallaroo-on-kubernetes")
def cli() -> None:
    """Stateful stream processing in plain Python."""


_dir_option = click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where the application keeps state and logs.  [default: .wallaroo/NAME]",
)


@cli.command(context_settings=PASS_THROUGH)
@click.option(
    "--workers",
    type=click.IntRange(min=1, max=MOST_WORKERS),
    help="How many worker processes share the keys.  [default: as many as there were, first 1]",
)
@local_options
@_dir_option
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
        _refuse("--state-cache needs checkpoints: only what one holds can leave the memory")
    try:
        cwd = Path.cwd()  # before the application's code can change it
    except FileNotFoundError:
        _refuse("the current directory has been removed; change to another")
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
            status = Runner(program, options, at, cwd).run(view)
        except InputError as error:
            view.close()
            _refuse(str(error))
        except Stopped as error:
            view.close()
            show.failure(console, error.failure, error.log)
            sys.exit(_FAILED)
        except WorkerEnded as error:
            view.close()
            click.echo(f"Error: {error}", err=True)
            sys.exit(_FAILED)
        except Interrupted:
            view.close()
            click.echo("Killed: the next run goes on from the last checkpoint.", err=True)
            sys.exit(_KILLED)
        view.ended(status)
    _leave(0)


@cli.command(context_settings=PASS_THROUGH)
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
        _leave(WORKER_FAILED)
    dead_letters = on_error[1] if on_error else None
    options = Options(
        workers, interval, cache, dead_letters, patience, everywhere, grace, drain_time, metrics
    )
    _leave(run_worker(program, worker, options, at, sockets))


@cli.command(hidden=True)
@click.argument("runner", type=int)
@click.argument("lock", type=int)
def fork_server(runner: int, lock: int) -> None:
    """Fork worker processes, as the runner asks over a file descriptor."""
    serve(runner, lock, lambda arguments: _leave(cli.main(arguments, standalone_mode=False) or 0))


@cli.command()
@_dir_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(directory: Path | None, as_json: bool) -> None:
    """Show members, assignment, epoch, and each worker's keys and events."""
    at = _find(directory)
    address = _coordinator(at)
    if address is None:
        _show_outcome(at, as_json)
        return
    with Client(address) as client:
        found = _answer(client, at)
    if found is None:
        _show_outcome(at, as_json)
    elif as_json:
        click.echo(json.dumps(found))
    else:
        show.status(Console(), found)


def _show_outcome(at: Directory, as_json: bool) -> None:
    outcome = at.outcome()
    if outcome is None:
        _refuse(f"no run lives in {at.path}, and none has ended there in an orderly way")
    if as_json:
        click.echo(json.dumps({**(outcome.get("status") or {}), **_outcome_json(outcome)}))
    else:
        show.outcome(Console(), outcome)


def _outcome_json(outcome: dict[str, Any]) -> dict[str, Any]:
    return {
        "application": outcome["application"],
        "phase": outcome["ended"],
        "error": outcome["error"],
    }


@cli.command()
@_dir_option
def stop(directory: Path | None) -> None:
    """Let everything that was read reach the sinks, then end all workers."""
    at = _find(directory)
    address = _coordinator(at)
    if address is None:
        _refuse(f"no run lives in {at.path}")
    with Client(address) as client:
        began, told = time.monotonic(), 0.0
        while at.locked and at.outcome() is None:
            now = time.monotonic()
            if now - told > 1:  # again and again: a coordinator that is restarted does not know
                try:
                    client.stop()
                    told = now
                except Unreachable as error:  # it is starting again, or has just ended
                    if not told and now - began > _PATIENCE:
                        _refuse(f"the run in {at.path} does not answer ({error})")
            time.sleep(0.05)
    outcome = at.outcome()
    if outcome and outcome["ended"] not in ("ended", "stopped"):
        show.outcome(Console(stderr=True), outcome)
        sys.exit(_FAILED)


@cli.command(context_settings={"ignore_unknown_options": True})
@click.argument("workers", metavar="N M [...]", nargs=-1, type=click.UNPROCESSED)
def plan(workers: tuple[str, ...]) -> None:
    """Show what rescales from N to M workers, and on, would move; touch nothing.

    It begins with N workers that have never been rescaled.
    """
    try:
        counts = plans.counts(workers)
    except InputError as error:
        _refuse(str(error))
    plans.show(Console(), counts)


@cli.command()
@_dir_option
@click.argument("workers", type=click.IntRange(min=1, max=MOST_WORKERS), metavar="WORKERS")
def scale(directory: Path | None, workers: int) -> None:
    """Change the number of workers of a live run, while its events flow.

    Returns when the rescale is committed. To be interrupted stops nothing: the run goes on with it.
    """
    at = _find(directory)
    address = _coordinator(at)
    if address is None:
        _refuse(f"no run lives in {at.path}; give 'wallaroo run' the number with --workers")
    console = Console()
    with Client(address) as client:
        first = _answer(client, at)
        if first is None:
            _refuse(f"the run in {at.path} has ended")
        before = {each["attempt"] for each in first["rescales"]}
        _ask_for(at, workers)
        if first["members"] == list(range(workers)) and not first["rescale"]:
            click.echo(f"{workers} workers run already")
            return
        with show.Rescaling(console, workers) as view:
            try:
                record = _follow(client, at, workers, before, view)
            except _NotRescaled as error:
                view.close()
                click.echo(f"Error: {error}", err=True)
                sys.exit(_FAILED)
    if record:
        show.rescaled(console, record)
    else:  # it was called off, and there they are
        click.echo(f"{workers} workers run")


class _NotRescaled(Exception):
    pass


def _ask_for(at: Directory, workers: int) -> None:
    try:
        at.write_target(workers)
    except OSError as error:
        _refuse(f"can't write in {at.path}: {error.strerror}")


def _follow(
    client: Client, at: Directory, workers: int, before: set[str], view: show.Rescaling
) -> dict[str, Any] | None:
    """Wait until there are so many workers; the record of the rescale to them.

    before: the attempts that are known. Raises `_NotRescaled`.
    """
    while True:
        time.sleep(0.1)
        if (asked := at.target()) != workers:
            raise _NotRescaled(f"{asked} workers were asked for meanwhile")
        try:
            found = client.status()
        except Unreachable:
            if not at.locked:
                raise _NotRescaled("the run has ended before it was rescaled") from None
            continue
        new = [each for each in found["rescales"] if each["attempt"] not in before]
        before |= {each["attempt"] for each in new}
        for record in new:
            if record["outcome"] != "committed":
                view.tell(f"given up, and tried again: {record['why']}")
            elif record["to"] == workers:
                return dict(record)
        if found["members"] == list(range(workers)) and not found["rescale"]:
            return None
        if found["phase"] in ("ended", "failed"):
            raise _NotRescaled("the run has ended before it was rescaled")
        view.update(found)


def _answer(client: Client, at: Directory) -> dict[str, Any] | None:
    """How the run is, as soon as it says: worker 0 may be starting again. None if it has ended."""
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            return client.status()
        except Unreachable as error:
            if not at.locked:
                return None
            if time.monotonic() > until:
                _refuse(f"the run in {at.path} does not answer ({error})")
            time.sleep(0.1)


def _load(app: str, arguments: tuple[str, ...]) -> Program:
    try:
        return load(app, arguments)
    except (InputError, WallarooParameterError) as error:
        _refuse(str(error) or f"{app}: application_setup raised {type(error).__name__}")


def _find(directory: Path | None) -> Directory:
    """The directory that is meant: the one there is in .wallaroo, if none is named."""
    if directory is None:
        found = [path.parent for path in Path(".wallaroo").glob("*/application.json")]
        if len(found) != 1:
            _refuse(
                "name the application's directory with --dir: "
                + (", ".join(sorted(map(str, found))) or "there is none in .wallaroo")
            )
        directory = found[0]
    if not directory.is_dir():
        _refuse(f"there is no directory {directory}")
    return Directory(directory.absolute())


def _coordinator(at: Directory) -> str | None:
    try:
        return at.coordinator()
    except InputError as error:
        _refuse(str(error))


def _leave(code: int) -> NoReturn:
    """End now: threads that user code has started, or that are blocked, hold nobody up."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _refuse(message: str) -> NoReturn:
    click.echo(f"Error: {message}", err=True)
    sys.exit(_CANNOT_START)


cli.add_command(pod)


def main() -> None:
    """The program `wallaroo`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # whatever a terminal can't show is escaped
            stream.reconfigure(errors="backslashreplace")
    logging.captureWarnings(True)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))
    cli()
