"""The fork server, with a program of its own instead of the worker's."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from wallaroo.runtime.forking import ForkServer, Start, WorkerProcess

_PROGRAM = """
import os, sys, time
from multiprocessing.connection import Connection
from wallaroo.runtime.forking import serve

def main(arguments):
    exec(arguments[0])
    sys.stdout.flush()
    os._exit(0)

serve(Connection(int(sys.argv[1])), main)
"""


def _main(arguments: list[str]) -> NoReturn:
    # pytest has replaced them.
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    exec(arguments[0])
    sys.stdout.flush()
    os._exit(0)


@pytest.fixture
def server() -> Iterator[ForkServer]:
    made = ForkServer(_main, [sys.executable, "-u", "-P", "-c", _PROGRAM])
    yield made
    made.close()


@pytest.fixture
def lock(server: ForkServer, tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "lock"
    number = os.open(path, os.O_CREAT)
    server.hold(number)
    yield path
    os.close(number)


@pytest.fixture
def start(server: ForkServer, tmp_path: Path) -> Callable[[str], WorkerProcess]:
    return lambda code: server.start(Start([code], tmp_path, tmp_path / "log"))


def _ended(process: WorkerProcess) -> int | None:
    process.wait(10)
    return process.poll()


def test_it_tells_how_each_has_ended(start: Callable[[str], WorkerProcess]) -> None:
    codes = ["pass", "os._exit(3)", "raise ValueError", "os.kill(os.getpid(), 9)"]
    assert [_ended(each) for each in list(map(start, codes))] == [0, 3, 1, -9]


def test_what_is_printed_and_raised_is_in_the_log(
    start: Callable[[str], WorkerProcess], tmp_path: Path
) -> None:
    _ended(start("print('hello')"))
    _ended(start("raise ValueError('of ours')"))
    said = (tmp_path / "log").read_text()
    assert said.startswith("hello\n")
    assert "ValueError: of ours" in said


def test_a_worker_runs_where_it_should_under_a_name_of_its_own(
    start: Callable[[str], WorkerProcess], tmp_path: Path
) -> None:
    ids = "os.getpgid(0) == os.getpid(), os.getsid(0) != os.getpid()"
    _ended(start(f"print(os.getcwd(), open('/proc/self/cmdline').read(), {ids})"))
    where, *name, leads, shares = (tmp_path / "log").read_text().split()
    assert (where, name[0], leads, shares) == (str(tmp_path), "wallaroo", "True", "True")


def test_each_is_ended_by_a_signal(start: Callable[[str], WorkerProcess]) -> None:
    one, other = start("time.sleep(100)"), start("time.sleep(100)")
    assert one.poll() is None
    with pytest.raises(TimeoutError):
        one.wait(0.01)
    one.terminate()
    other.kill()
    assert (_ended(one), _ended(other)) == (-signal.SIGTERM, -signal.SIGKILL)
    one.kill()  # its number may be another's by now


def test_without_a_log_none_is_started(server: ForkServer, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        server.start(Start(["pass"], tmp_path, tmp_path / "away" / "log"))


def test_what_was_started_ends_with_the_server_which_is_replaced(
    server: ForkServer, start: Callable[[str], WorkerProcess]
) -> None:
    lost = start("time.sleep(100)")
    os.kill(server.pid, signal.SIGKILL)
    assert _ended(lost) == -signal.SIGKILL
    _until_gone(lost.pid)
    assert _ended(start("os._exit(4)")) == 4


def test_a_server_that_dies_while_it_starts_one_says_so(
    server: ForkServer, start: Callable[[str], WorkerProcess]
) -> None:
    os.kill(server.pid, signal.SIGKILL)
    with pytest.raises(OSError, match="forks workers"):
        start("pass")
    assert _ended(start("os._exit(4)")) == 4


def test_workers_hold_the_lock_and_their_children_do_not(
    server: ForkServer, start: Callable[[str], WorkerProcess], lock: Path, tmp_path: Path
) -> None:
    fds = "os.path.realpath(f'/proc/self/fd/{each}') for each in os.listdir('/proc/self/fd')"
    look = f"print({str(lock)!r} in [{fds}], flush=True)"
    code = f"{look}; pid = os.fork(); pid or ({look}, os._exit(0)); os.waitpid(pid, 0)"
    _ended(start(code))
    os.kill(server.pid, signal.SIGKILL)
    with pytest.raises(OSError, match="forks workers"):
        start("pass")
    _ended(start(code))  # of one that has taken its place
    assert (tmp_path / "log").read_text().split() == ["True", "False"] * 2


def _until_gone(pid: int) -> None:
    until = time.monotonic() + 10
    while time.monotonic() < until:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return
        except FileNotFoundError:
            return
        time.sleep(0.01)
    raise AssertionError(f"{pid} lives")
