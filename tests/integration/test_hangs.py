"""Workers that stop to answer: they are given up, and what they wake up to is over."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import sequences
from processes import PATIENCE, WALLAROO, Run, until

from wallaroo.runtime.client import Client, Unreachable
from wallaroo.runtime.directory import Directory, Sockets

COUNT = 60_000
OPTIONS = ["--checkpoint-interval", "50ms", "--heartbeat-timeout", "1s"]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.txt"


class Workers:
    """Two workers that nobody looks after, nor starts again."""

    def __init__(self, cwd: Path, app: Path, out: Path) -> None:
        self.directory = Directory(cwd / "dir")
        self.sockets = Sockets()
        self.lock = self.directory.claim("sequences")
        self.directory.write_control(self.sockets.coordinator)
        command = [WALLAROO, "worker", "--workers", "2", *OPTIONS]
        command += ["--dir", str(self.directory.path), "--sockets", str(self.sockets.path)]
        self.processes = [
            subprocess.Popen(
                [*command, "--worker", str(worker), "--", str(app), f"numbers:{COUNT}", str(out)],
                cwd=cwd,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for worker in range(2)
        ]

    def status(self) -> dict[str, Any]:
        try:
            with Client(self.sockets.coordinator) as client:
                return client.status()
        except Unreachable:
            return {}

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        os.close(self.lock)
        self.sockets.remove()


@pytest.fixture
def workers(write_app: Callable[..., Path], out: Path, tmp_path: Path) -> Iterator[Workers]:
    with ExitStack() as stack:
        made = Workers(tmp_path, write_app(sequences.APP), out)
        stack.callback(made.close)
        yield made


def test_a_worker_that_hangs_while_worker_0_is_replaced_is_killed(
    write_app: Callable[..., Path], start: Callable[..., Run], out: Path, tmp_path: Path
) -> None:
    """The new coordinator has never heard of it."""
    run = start(write_app(sequences.APP), f"numbers:{COUNT}", out, workers=3, options=OPTIONS)
    until(lambda: run.until_running()["epoch"])
    zero, hung, _ = run.pids()
    os.kill(hung, signal.SIGSTOP)
    os.kill(zero, signal.SIGKILL)
    until(lambda: hung not in run.pids() and zero not in run.pids())
    (tmp_path / "hurry").touch()
    run.succeed()
    sequences.check(out, range(1, COUNT + 1))


def test_a_hung_worker_is_killed_and_replaced(
    write_app: Callable[..., Path], start: Callable[..., Run], out: Path, tmp_path: Path
) -> None:
    run = start(write_app(sequences.APP), f"numbers:{COUNT}", out, workers=2, options=OPTIONS)
    until(lambda: run.until_running()["epoch"])
    hung = run.pids()[1]
    os.kill(hung, signal.SIGSTOP)
    until(lambda: run.until_running()["recoveries"])
    assert run.pids()[1] != hung
    (tmp_path / "hurry").touch()
    run.succeed()
    sequences.check(out, range(1, COUNT + 1))
    assert "worker 1 has not answered for 1 s: it is killed" in run.err


def test_a_hung_worker_0_is_killed_and_replaced(
    write_app: Callable[..., Path], start: Callable[..., Run], out: Path, tmp_path: Path
) -> None:
    run = start(write_app(sequences.APP), f"numbers:{COUNT}", out, workers=2, options=OPTIONS)
    until(lambda: run.until_running()["epoch"])
    hung, other = run.pids()
    os.kill(hung, signal.SIGSTOP)
    until(lambda: run.status().get("phase") == "running" and run.pids()[0] != hung)
    assert run.pids()[1] == other
    (tmp_path / "hurry").touch()
    run.succeed()
    sequences.check(out, range(1, COUNT + 1))
    assert "worker 0 has not answered for 3 s: it is killed" in run.err


def test_a_worker_that_wakes_up_after_it_was_given_up_does_nothing_more_and_joins_again(
    workers: Workers, out: Path, tmp_path: Path
) -> None:
    until(lambda: workers.status().get("epoch"))
    sleeper = workers.processes[1]
    sleeper.send_signal(signal.SIGSTOP)
    until(lambda: workers.status()["workers"][1]["silent"])
    given_up = workers.status()
    assert given_up["phase"] == "forming"
    assert not given_up["workers"][1]["present"]
    sleeper.send_signal(signal.SIGCONT)
    until(lambda: workers.status()["phase"] == "running")
    again = workers.status()
    assert again["generation"] > given_up["generation"]
    assert again["workers"][1]["pid"] == sleeper.pid
    (tmp_path / "hurry").touch()
    assert [process.wait(PATIENCE) for process in workers.processes] == [0, 0]
    sequences.check(out, range(1, COUNT + 1))


def test_a_coordinator_that_wakes_up_goes_on(workers: Workers, out: Path, tmp_path: Path) -> None:
    until(lambda: workers.status().get("epoch"))
    workers.processes[0].send_signal(signal.SIGSTOP)
    with pytest.raises(subprocess.TimeoutExpired):
        workers.processes[1].wait(2)
    workers.processes[0].send_signal(signal.SIGCONT)
    epoch = until(workers.status)["epoch"]
    until(lambda: workers.status()["epoch"] > epoch + 1)
    (tmp_path / "hurry").touch()
    assert [process.wait(PATIENCE) for process in workers.processes] == [0, 0]
    sequences.check(out, range(1, COUNT + 1))
