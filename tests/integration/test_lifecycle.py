"""Starts and ends, in the company of user code that does what it likes."""

import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from processes import PATIENCE, WALLAROO, Run, alive, cli, frame, free_port, until

APP = """
import asyncio, os, sys, threading, time

{before}

class Numbers:
    def initial_value(self):
        return 0

    def apply(self, previous):
        {apply}
        return previous + 1 if previous < {last} else None

@wallaroo.key_extractor
def key(number):
    return str(number % 7)

@wallaroo.state_computation(name="step", state=dict)
def step(number, state):
    {step}
    return number

def application_setup(args):
    pipeline = (wallaroo.source("numbers", wallaroo.GenSourceConfig("numbers", Numbers()))
        .key_by(key).to(step).to_sink(wallaroo.FileSinkConfig(args[1])))
    return wallaroo.build_application({name!r}, pipeline)
"""


@pytest.fixture
def begin(
    write_app: Callable[..., Path], start: Callable[..., Run], tmp_path: Path
) -> Callable[..., Run]:
    """Starts the application above with some of its lines filled in."""

    def make(
        *,
        before: str = "",
        apply: str = "pass",
        step: str = "pass",
        last: int = 100,
        name: str = "app",
        workers: int = 1,
    ) -> Run:
        text = APP.format(before=before, apply=apply, step=step, last=last, name=name)
        return start(write_app(text), tmp_path / "out.txt", workers=workers)

    return make


def test_a_slow_source_does_not_hold_its_events_back(
    begin: Callable[..., Run], tmp_path: Path
) -> None:
    run = begin(apply="time.sleep(0.02)", last=10_000)
    out = tmp_path / "out.txt"
    until(lambda: out.exists() and out.stat().st_size)
    assert out.read_text().count("\n") < 100, "not a whole batch at once"
    assert cli("stop", "--dir", str(run.dir)).returncode == 0
    run.succeed()


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("step", "words"),
    [
        (r"raise ValueError('bad \udcff')", r"ValueError: bad \udcff"),
        ("raise asyncio.CancelledError()", "raised CancelledError"),
        ("raise KeyboardInterrupt", "raised KeyboardInterrupt"),
        ("sys.exit(0)", "raised SystemExit: 0"),
        ("raise ValueError('x' * 1_000_000)", "characters left out"),
    ],
)
def test_whatever_a_step_raises_stops_the_run_in_words(
    step: str, words: str, workers: int, begin: Callable[..., Run]
) -> None:
    run = begin(step=step, workers=workers)
    assert run.wait() == 1
    assert words in run.err
    assert "state computation 'step' raised" in run.err
    assert len(run.err) < 100_000


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_that_ends_with_0_too_early_is_no_success(
    workers: int, begin: Callable[..., Run]
) -> None:
    run = begin(step="if number == 50: os._exit(0)", workers=workers)
    assert run.wait() == 1
    assert "ended by itself (code 0) before the application did" in run.err


def test_a_failure_is_told_though_the_directory_is_gone(
    begin: Callable[..., Run], tmp_path: Path
) -> None:
    run = begin(step="assert not os.path.exists('boom')", apply="time.sleep(0.01)", last=10**6)
    run.until_running()
    shutil.rmtree(run.dir.rename(tmp_path / "gone"), ignore_errors=True)
    (tmp_path / "boom").touch()
    assert run.wait() == 1
    assert "worker 0" in run.err
    # Whichever comes first, the function or something that writes to the folder.
    assert re.search("raised AssertionError|can't (write|keep output)", run.err)
    assert "worker/wallaroo" not in run.err, "no traceback of ours"


def test_a_source_that_blocks_does_not_keep_a_failed_run_alive(
    write_app: Callable[..., Path], start: Callable[..., Run], tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "fifo")
    app = write_app("""
import os

class Numbers:
    def initial_value(self):
        return "0"

    def apply(self, previous):
        return "1"

@wallaroo.computation(name="step")
def step(line):
    assert not os.path.exists("boom")

def application_setup(args):
    numbers = wallaroo.source("numbers", wallaroo.GenSourceConfig("numbers", Numbers()))
    lines = wallaroo.source("lines", wallaroo.FileSourceConfig("lines", "fifo"))
    pipeline = numbers.merge(lines).to(step).to_sink(wallaroo.FileSinkConfig("out.txt"))
    return wallaroo.build_application("blocked", pipeline)
""")
    run = start(app)
    run.until_running()
    (tmp_path / "boom").touch()
    assert run.wait() == 1
    assert "computation 'step' raised AssertionError" in run.err


COPY = """
def application_setup(args):
    lines = wallaroo.source("lines", wallaroo.FileSourceConfig("lines", args[1]))
    sinks = [wallaroo.FileSinkConfig(path) for path in args[2:]]
    return wallaroo.build_application("copy", lines.to_sinks(sinks))
"""


@pytest.mark.parametrize(
    ("source", "sinks", "words"),
    [
        ("a.txt", ["a.txt"], "source 'lines' reads a.txt, which the sink a.txt"),
        ("*.txt", ["./b.txt"], "reads b.txt"),
        ("*.txt", ["c.txt"], "reads c.part-4.txt"),
        ("a.txt", ["o", "o"], "two sinks write o"),
    ],
)
def test_a_file_is_not_read_and_written_nor_written_twice(
    source: str,
    sinks: list[str],
    words: str,
    write_app: Callable[..., Path],
    start: Callable[..., Run],
    tmp_path: Path,
) -> None:
    names = ["a.txt", "b.txt", "c.part-4.txt"]
    for name in names:
        (tmp_path / name).write_text("precious\n")
    run = start(write_app(COPY), source, *sinks, workers=2)
    assert run.wait() == 2
    assert words in run.err
    assert all((tmp_path / name).read_text() == "precious\n" for name in names)


def test_an_encoder_that_gives_what_has_no_utf_8_is_named(begin: Callable[..., Run]) -> None:
    run = begin(step=r"return '\udcff'")
    assert run.wait() == 1
    assert "encoder 'line' returned" in run.err
    assert "has no UTF-8" in run.err


def test_why_a_worker_cannot_load_the_application_is_told(begin: Callable[..., Run]) -> None:
    run = begin(before="assert 'worker' not in sys.argv, 'only here'", workers=2)
    assert run.wait() == 1
    assert "can't load the application" in run.err
    assert "only here" in run.err


def test_an_applications_name_is_shown_as_it_is(begin: Callable[..., Run]) -> None:
    run = begin(name="count [/x] [v2] café", apply="time.sleep(0.01)", last=10**6)
    run.until_running()
    shown = cli("status", "--dir", str(run.dir))
    assert "count [/x] [v2] café: running" in shown.stdout
    assert cli("stop", "--dir", str(run.dir)).returncode == 0
    run.succeed()
    assert "was stopped" in cli("status", "--dir", str(run.dir)).stdout


def test_a_stop_whose_drain_fails_says_so(begin: Callable[..., Run], tmp_path: Path) -> None:
    late = "[time.sleep(0.01) for _ in iter(lambda: os.path.exists('late'), True)]"
    step = f"number > 2 and ({late}, (_ for _ in ()).throw(ValueError('late')))"
    run = begin(step=step, apply="time.sleep(0.05)", last=10**6)
    run.until_running()
    with ThreadPoolExecutor() as thread:
        stopping = thread.submit(cli, "stop", "--dir", str(run.dir))
        until(lambda: run.status()["stop_requested"])
        (tmp_path / "late").touch()
        done = stopping.result()
    assert done.returncode == 1
    assert "raised ValueError: late" in done.stderr
    assert run.wait() == 1


def test_an_application_may_change_its_folder(begin: Callable[..., Run], tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    run = begin(before="os.chdir('elsewhere')", workers=2)
    run.succeed()
    assert run.status()["phase"] == "ended"


@pytest.mark.parametrize(
    "before",
    [
        "import socket; socket.setdefaulttimeout(10)",
        "import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN)",
    ],
)
def test_an_application_may_change_what_sockets_and_signals_do(
    before: str, begin: Callable[..., Run]
) -> None:
    begin(before=before, workers=2).succeed()


@pytest.mark.parametrize("how", ["sys.{0}.close()", "sys.{0} = None", "sys.{0} = object()"])
def test_an_application_may_close_its_standard_streams_or_replace_them(
    how: str, begin: Callable[..., Run]
) -> None:
    step = "; ".join(how.format(stream) for stream in ("stdout", "stderr"))
    run = begin(step=step, workers=2)
    run.succeed()
    assert "event=finish" in run.logs(), "what we say is in the log still"


def test_a_run_needs_no_standard_streams(write_app: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("one\n")
    arguments = ["--workers", "2", "--dir", "dir", str(write_app(COPY)), "in.txt", "out.txt"]
    command = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", WALLAROO, "run", *arguments]
    assert subprocess.run(command, cwd=tmp_path, timeout=PATIENCE, check=False).returncode == 0
    written = "".join(path.read_text() for path in tmp_path.glob("out.part-*.txt"))
    assert written == "one\n"
    assert "event=finish" in (tmp_path / "dir" / "logs" / "worker-1.log").read_text()


def test_a_second_signal_ends_a_run_whose_fork_server_is_stopped(
    begin: Callable[..., Run],
) -> None:
    run = begin(apply="time.sleep(0.01)", last=10**6)
    worker = run.pids()[0]
    server = int(Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(server, signal.SIGSTOP)
    try:
        run.process.terminate()
        until(lambda: run.status().get("stop_requested", True))  # its workers may have ended
        run.process.terminate()
        assert run.process.wait(PATIENCE) == 130
        assert not alive(server)
    finally:
        if alive(server):
            os.kill(server, signal.SIGKILL)


def test_a_run_that_was_killed_is_told_of_as_such(begin: Callable[..., Run]) -> None:
    run = begin(apply="time.sleep(0.01)", last=10**6)
    run.until_committed(1)
    run.process.kill()
    until(lambda: "was killed" in cli("status", "--dir", str(run.dir)).stderr)
    done = cli("status", "--dir", str(run.dir))
    assert done.returncode == 2
    assert "run it again: it goes on from its last checkpoint" in done.stderr


def test_that_a_stop_was_asked_for_is_shown_while_a_step_is_in_the_way(
    begin: Callable[..., Run],
) -> None:
    run = begin(step="time.sleep(3600)")
    until(lambda: run.status().get("phase") == "running")
    run.process.terminate()
    until(lambda: run.status().get("stop_requested"))
    # While an epoch is in flight the last one has to wait.
    shown = cli("status", "--dir", str(run.dir)).stdout
    assert "running, asked to stop, epoch 0" in shown or "stopping, epoch 0" in shown
    run.process.terminate()
    assert run.wait() == 130


def test_a_child_that_user_code_forks_does_not_hold_the_directory(
    begin: Callable[..., Run], tmp_path: Path
) -> None:
    fork = "os.fork() or (open('child', 'w').write(str(os.getpid())), time.sleep(1000))"
    begin(step=f"number == 5 and ({fork})").succeed()
    child = int((tmp_path / "child").read_text())
    assert alive(child)
    try:
        begin().succeed()
    finally:
        os.kill(child, 9)


def test_a_thread_that_never_ends_does_not_hold_the_run(begin: Callable[..., Run]) -> None:
    begin(before="threading.Thread(target=time.sleep, args=(1000,)).start()").succeed()


def test_a_stop_takes_what_clients_had_sent_before_it(
    write_app: Callable[..., Path], start: Callable[..., Run], tmp_path: Path
) -> None:
    app = write_app("""
import time

@wallaroo.decoder(header_length=4, length_fmt=">I")
def decode(payload):
    time.sleep(0.2)
    return payload.decode()

def application_setup(args):
    source = wallaroo.TCPSourceConfig("in", "localhost", args[1], decode)
    pipeline = wallaroo.source("in", source).to_sink(wallaroo.FileSinkConfig("out.txt"))
    return wallaroo.build_application("clients", pipeline)
""")
    port = free_port()
    run = start(app, port)
    run.until_running()
    for client in range(6):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(frame(str(client).encode()))
    run.process.terminate()
    run.succeed()
    assert sorted((tmp_path / "out.txt").read_text().split()) == list("012345")
