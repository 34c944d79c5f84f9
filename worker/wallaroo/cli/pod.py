"""`wallaroo pod`: a worker as a pod of Kubernetes."""

import json
import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

import click
from prometheus_client import Gauge

from wallaroo import logs
from wallaroo.cli.common import CANNOT_START
from wallaroo.cli.options import PASS_THROUGH, engine_options
from wallaroo.errors import InputError, WallarooParameterError
from wallaroo.runtime.application import Program, load
from wallaroo.runtime.checks import check_connectors, check_outside
from wallaroo.runtime.directory import Directory
from wallaroo.runtime.health import Health
from wallaroo.runtime.options import MOST_WORKERS, Options
from wallaroo.runtime.pod import HEALTH_PORT, Pod, PodWorker, leave_word, run_pod
from wallaroo.runtime.worker import tune_interpreter


@click.command(context_settings=PASS_THROUGH)
@click.option("--name", required=True, help="The application's name in its namespace.")
@click.option("--application", default="", help="Its id, which a new one of that name has not.")
@click.option("--coordinator", default="", metavar="HOST:PORT", help="Where worker 0 is found.")
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path),
    default="/var/lib/wallaroo",
    show_default=True,
    help="The volume of this worker's state.",
)
@click.option(
    "--tls",
    type=click.Path(path_type=Path),
    help="Where tls.crt, tls.key and ca.crt are.  [default: no TLS]",
)
@click.option("--check", is_flag=True, help="Only load the application, and print what it is.")
@click.option(
    "--steps-of",
    "steps",
    multiple=True,
    metavar="PLACE",
    help="With --check: what a checkpoint holds, which the application must have.",
)
@click.option("--pod-name", envvar="POD_NAME", default="", hidden=True)
@click.option("--pod-uid", envvar="POD_UID", default="", hidden=True)
@click.option("--pod-ip", envvar="POD_IP", default="", hidden=True)
@engine_options
@click.argument("app", metavar="APP.py")
@click.argument("arguments", metavar="[ARG]...", nargs=-1, type=click.UNPROCESSED)
def pod(
    name: str,
    application: str,
    coordinator: str,
    directory: Path,
    tls: Path | None,
    check: bool,
    steps: tuple[str, ...],
    pod_name: str,
    pod_uid: str,
    pod_ip: str,
    app: str,
    arguments: tuple[str, ...],
    interval: float,
    cache: int | None,
    on_error: tuple[str, Path] | None,
    patience: float,
    grace: float,
    drain_time: float,
) -> None:
    """Run one worker as a pod of Kubernetes, whose number is the last part of POD_NAME.

    POD_NAME, POD_UID and POD_IP say which pod it is. It stays, idle, when the application has
    ended, and ends by SIGTERM, once what it has done is in a checkpoint.
    """
    dead_letters = on_error[1] if on_error else None
    if check:
        try:
            program = _load(app, arguments, directory, dead_letters)
            _check_steps(program, steps)
        except (InputError, WallarooParameterError) as error:
            _refuse(str(error) or f"{app} raised {type(error).__name__}")
        click.echo(json.dumps(_description(program)))
        return
    # Before anything else: as the first process of its container it would not heed the signal.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    worker = _number(pod_name)
    if not pod_ip or not coordinator:
        _refuse("a pod needs POD_NAME, POD_IP and --coordinator: it is started by the operator")
    logs.configure(application=name, worker=worker)
    tune_interpreter()
    this = Pod(pod_name, pod_uid, pod_ip, worker, application, coordinator, tls)
    options = Options(None, interval, cache, dead_letters, patience, True, grace, drain_time)
    try:
        health = Health(pod_ip, HEALTH_PORT, lambda: "it loads the application")
        network = this.network()
        program = _load(app, arguments, directory, dead_letters)
    except (InputError, WallarooParameterError, OSError) as error:
        _refuse(str(error) or f"{app} raised {type(error).__name__}")
    made = PodWorker(program, this, options, Directory(directory), network)
    health.unready = lambda: made.unready
    refused = Gauge("wallaroo_refused_connections", "Connections of strangers, which were refused")
    refused.set_function(lambda: made.refused)
    os._exit(run_pod(made))


def _load(
    app: str, arguments: tuple[str, ...], directory: Path, dead_letters: Path | None
) -> Program:
    """The application, if it fits a pod. Raises `InputError` and `WallarooParameterError`."""
    program = load(app, arguments)
    check_connectors(program.graph, dead_letters)
    check_outside(program.graph, dead_letters, directory)
    return program


def _check_steps(program: Program, steps: tuple[str, ...]) -> None:
    gone = [each for each in steps if each not in program.graph.places]
    if gone:
        raise InputError(
            f"the checkpoint holds {', '.join(gone)}, which the application no longer has; put it "
            "back, or run it as a new application"
        )


def _description(program: Program) -> dict[str, object]:
    graph = program.graph
    return {
        "application": program.name,
        "fingerprint": program.fingerprint,
        "steps": list(graph.places),
        "sources": [source.name for source in graph.sources],
        "sinks": [sink.identity for sink in graph.sinks],
    }


def _number(name: str) -> int:
    number = name.rpartition("-")[2]
    if not number.isdecimal() or int(number) >= MOST_WORKERS:
        _refuse(f"POD_NAME is {name!r}: it must end in the worker's number, as a StatefulSet's do")
    return int(number)


def _refuse(message: str) -> NoReturn:
    leave_word(message)
    click.echo(f"Error: {message}", err=True)
    sys.exit(CANNOT_START)
