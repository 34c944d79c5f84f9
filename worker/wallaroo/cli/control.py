"""`wallaroo status`, `scale` and `stop`: a run that lives, seen and changed from outside."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from wallaroo.cli import show
from wallaroo.cli.common import FAILED, ProcessCount, dir_option, refuse
from wallaroo.errors import InputError
from wallaroo.runtime.client import Client, Unreachable
from wallaroo.runtime.directory import Directory

#: Seconds for a run to answer: worker 0 may be starting again.
_PATIENCE = 30.0


@click.command()
@dir_option
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
    if outcome is None and at.cut_short:
        refuse(
            f"the run in {at.path} was killed, or its machine stopped; run it again: it goes on "
            "from its last checkpoint"
        )
    if outcome is None:
        refuse(f"no run lives in {at.path}, and none has ended there")
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


@click.command()
@dir_option
def stop(directory: Path | None) -> None:
    """Let everything that was read reach the sinks, then end all workers."""
    at = _find(directory)
    address = _coordinator(at)
    if address is None:
        refuse(f"no run lives in {at.path}")
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
                        refuse(f"the run in {at.path} does not answer ({error})")
            time.sleep(0.05)
    outcome = at.outcome()
    if outcome and outcome["ended"] not in ("ended", "stopped"):
        show.outcome(Console(stderr=True), outcome)
        sys.exit(FAILED)


@click.command()
@dir_option
@click.argument("workers", type=ProcessCount(), metavar="WORKERS")
def scale(directory: Path | None, workers: int) -> None:
    """Change the number of workers of a live run, while its events flow.

    Returns when the rescale is committed. To be interrupted stops nothing: the run goes on with it.
    """
    at = _find(directory)
    address = _coordinator(at)
    if address is None:
        refuse(f"no run lives in {at.path}; give 'wallaroo run' the number with --workers")
    console = Console()
    with Client(address) as client:
        first = _answer(client, at)
        if first is None:
            refuse(f"the run in {at.path} has ended")
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
                sys.exit(FAILED)
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
        refuse(f"can't write in {at.path}: {error.strerror}")


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
                refuse(f"the run in {at.path} does not answer ({error})")
            time.sleep(0.1)


def _find(directory: Path | None) -> Directory:
    """The directory that is meant: the one there is in .wallaroo, if none is named."""
    if directory is None:
        found = [path.parent for path in Path(".wallaroo").glob("*/application.json")]
        if len(found) != 1:
            refuse(
                "name the application's directory with --dir: "
                + (", ".join(sorted(map(str, found))) or "there is none in .wallaroo")
            )
        directory = found[0]
    try:
        there = directory.is_dir()
    except OSError as error:
        refuse(f"can't use {directory}: {error.strerror}")
    if not there:
        refuse(f"there is no directory {directory}")
    return Directory(directory.absolute())


def _coordinator(at: Directory) -> str | None:
    try:
        return at.coordinator()
    except InputError as error:
        refuse(str(error))
