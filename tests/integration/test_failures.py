"""User code that raises, and processes that are killed: one message, exit code 1, no orphans."""

import os
import re
import signal
import socket
from collections.abc import Callable
from pathlib import Path

from processes import Peer, Run, alive, cli, frame, free_port, until

KEYED = """
import itertools

class Event:
    def __init__(self, user, amount):
        self.user = user
        self.amount = amount

    def __repr__(self):
        return f"Event({self.user}, {self.amount})"

class Numbers:
    def initial_value(self):
        return Event("user 0", 0)

    def apply(self, previous):
        n = previous.amount + 1
        return Event(f"user {n % 50}", n)

class Total:
    amount = 0

@wallaroo.key_extractor
def user(event):
    return event.user

@wallaroo.encoder
def encode(event):
    return f"{event}\\n"

def application_setup(args):
    pipeline = (wallaroo.source("numbers", wallaroo.GenSourceConfig("numbers", Numbers()))
        .key_by(user).to(add).to_sink(wallaroo.FileSinkConfig("out.txt", encode)))
    return wallaroo.build_application("numbers", pipeline)
"""

ENDLESS = (
    """
@wallaroo.state_computation(name="add", state=lambda: Total())
def add(event, total):
    total.amount += event.amount
    return None
"""
    + KEYED
)


def test_a_user_function_that_raises_stops_the_run_and_says_where(
    write_app: Callable[..., Path], start: Callable[..., Run]
) -> None:
    failing = """
@wallaroo.state_computation(name="add", state=lambda: Total())
def add(event, total):
    if event.amount == 1007:
        raise ValueError("too much")
    return None
"""
    run = start(write_app(failing + KEYED), workers=3)
    assert run.wait() == 1
    assert "Error: state computation 'add' raised ValueError: too much" in run.err
    assert "step: state computation 'add'" in run.err
    assert "key: 'user 7'" in run.err
    assert "event: Event(user 7, 1007)" in run.err
    assert 'raise ValueError("too much")' in run.err
    status = cli("status", "--dir", str(run.dir))
    assert "stopped by a failure" in status.stdout
    assert "state computation 'add' raised ValueError: too much" in status.stdout
    error = run.status()["error"]
    assert error["key"] == "'user 7'"
    assert error["event"] == "Event(user 7, 1007)"
    assert 'raise ValueError("too much")' in error["traceback"]
    assert run.status()["phase"] == "failed"


def test_a_key_that_is_no_key_names_step_and_event(
    write_app: Callable[..., Path], start: Callable[..., Run]
) -> None:
    for workers in (1, 2):
        text = ENDLESS.replace("return event.user", "return 1.5 if event.amount == 9 else 'k'")
        run = start(write_app(text), workers=workers)
        assert run.wait() == 1
        assert "returned 1.5 for event Event(user 9, 9)" in run.err
        assert "neither str, bytes nor int" in run.err


def test_a_class_that_may_not_travel_is_named(
    write_app: Callable[..., Path], start: Callable[..., Run]
) -> None:
    text = ENDLESS.replace('Event(f"user {n % 50}", n)', 'Event(f"user {n % 50}", n, open("x"))')
    text = ENDLESS.replace("self.user = user", "self.user = user; self.log = print")
    run = start(write_app(text), workers=2)
    assert run.wait() == 1
    assert "made an event that can't be sent to worker" in run.err
    assert "the function print may not be sent or stored: only values may" in run.err


DECODING = """
@wallaroo.decoder(header_length=4, length_fmt=">I")
def decode(payload):
    return int(payload)

@wallaroo.encoder
def encode(number):
    return f"{number}\\n"

def application_setup(args):
    config = wallaroo.TCPSourceConfig("in", "127.0.0.1", args[1], decode, max_size=100)
    pipeline = wallaroo.source("in", config).to_sink(wallaroo.FileSinkConfig("out.txt", encode))
    return wallaroo.build_application("decoding", pipeline)
"""


def test_a_decoder_that_raises_is_named_with_what_it_got(
    write_app: Callable[..., Path], start: Callable[..., Run]
) -> None:
    port = free_port()
    run = start(write_app(DECODING), port)
    run.until_running()
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(frame(b"1") + frame(b"many"))
        assert run.wait() == 1
    assert "decoder 'decode' raised ValueError" in run.err
    assert "event: b'many'" in run.err


def test_a_frame_that_is_too_long_costs_its_sender_the_connection_and_nobody_else(
    write_app: Callable[..., Path], start: Callable[..., Run], tmp_path: Path
) -> None:
    port = free_port()
    run = start(write_app(DECODING), port)
    run.until_running()
    with (
        socket.create_connection(("127.0.0.1", port)) as good,
        socket.create_connection(("127.0.0.1", port)) as bad,
    ):
        good.sendall(frame(b"1"))
        bad.settimeout(60)
        bad.sendall(frame(b"2") + b"\xff\xff\xff\xff rubbish")
        try:
            assert bad.recv(1) == b"", "it is closed"
        except ConnectionResetError:
            pass
        good.sendall(frame(b"3"))
        until(lambda: (tmp_path / "out.txt").read_text().count("\n") == 3)
    assert cli("stop", "--dir", str(run.dir)).returncode == 0
    run.succeed()
    assert sorted((tmp_path / "out.txt").read_text().split()) == ["1", "2", "3"]
    assert "refused a frame" in run.logs()
    assert "max_size=100" in run.logs()


def test_workers_that_die_again_and_again_end_the_run_with_the_last_ones_name_and_log(
    write_app: Callable[..., Path], start: Callable[..., Run]
) -> None:
    text = ENDLESS.replace(
        "return None", "import os; event.amount == 999 and os.kill(os.getpid(), 9)"
    )
    run = start(write_app(text), workers=3)
    assert run.wait() == 1
    owner = re.search(r"Error: worker (\d) was ended by SIGKILL; that was its 5th death", run.err)
    assert owner, run.err
    log = run.dir / "logs" / f"worker-{owner[1]}.log"
    assert str(log) in run.err
    assert "was ended by SIGKILL" in run.status()["error"]["message"]
    assert run.err.count(f"worker {owner[1]} was ended by SIGKILL: it is started again") == 4


def test_no_worker_outlives_a_killed_runner_and_the_directory_is_free_again(
    write_app: Callable[..., Path], start: Callable[..., Run]
) -> None:
    app = write_app(ENDLESS)
    run = start(app, workers=3)
    pids = run.pids()
    os.kill(pids[2], signal.SIGSTOP)  # not even one that does nothing
    run.kill()
    until(lambda: not any(map(alive, pids)), "workers are left")
    again = start(app, workers=2)
    again.until_running()
    assert cli("stop", "--dir", str(again.dir)).returncode == 0
    again.succeed()


def test_a_worker_stuck_in_user_code_ends_with_its_runner(
    write_app: Callable[..., Path], start: Callable[..., Run]
) -> None:
    text = ENDLESS.replace("total.amount += event.amount", "import time; time.sleep(10000)")
    run = start(write_app(text), workers=2)
    pids = run.pids()
    assert run.status()["phase"] == "running", "and it answers meanwhile"
    run.kill()
    until(lambda: not any(map(alive, pids)), "workers are left")


def test_a_second_signal_ends_at_once(
    peer: Peer, write_app: Callable[..., Path], start: Callable[..., Run], tmp_path: Path
) -> None:
    port = peer.port
    peer.close()  # so that the first signal's drain waits for ever
    text = ENDLESS.replace("return None", "return event").replace(
        'wallaroo.FileSinkConfig("out.txt", encode)',
        f'wallaroo.TCPSinkConfig("127.0.0.1", {port}, encode)',
    )
    run = start(write_app(text), workers=2)
    pids = run.pids()
    run.process.send_signal(signal.SIGTERM)
    until(lambda: run.status().get("stop_requested"))
    run.process.send_signal(signal.SIGTERM)
    assert run.wait() == 130
    assert "Killed: the next run goes on from the last checkpoint." in run.err
    until(lambda: not any(map(alive, pids)))


def test_a_file_that_is_damaged_is_named(
    write_app: Callable[..., Path], start: Callable[..., Run], tmp_path: Path
) -> None:
    (tmp_path / "text.gz").write_bytes(b"this is no gzip file")
    app = write_app("""
        def application_setup(args):
            lines = wallaroo.source("lines", wallaroo.FileSourceConfig("lines", args[1]))
            return wallaroo.build_application("a", lines.to_sink(wallaroo.FileSinkConfig("out")))
    """)
    run = start(app, tmp_path / "text.gz")
    assert run.wait() == 1
    assert "source 'lines': can't read" in run.err
    assert "text.gz" in run.err
    assert "Not a gzipped file" in run.err


FILES = """
def application_setup(args):
    lines = wallaroo.source("lines", wallaroo.FileSourceConfig("lines", args[1]))
    return wallaroo.build_application("files", lines.to_sink(wallaroo.FileSinkConfig(args[2])))
"""


def test_a_file_that_vanishes_before_its_turn_is_named(
    write_app: Callable[..., Path], start: Callable[..., Run], tmp_path: Path
) -> None:
    for number in ("1", "2"):
        (tmp_path / f"{number}.txt").write_text(f"{number}\n")
    app = write_app("""
        import time
        from pathlib import Path

        @wallaroo.computation(name="hold the worker up")
        def hold_up(line):
            Path("held").touch()
            while not Path("go").exists():
                time.sleep(0.01)
            return line

        def application_setup(args):
            lines = wallaroo.source("lines", wallaroo.FileSourceConfig("lines", args[1]))
            sink = wallaroo.FileSinkConfig(args[2])
            return wallaroo.build_application("files", lines.to(hold_up).to_sink(sink))
    """)
    run = start(app, tmp_path / "[12].txt", tmp_path / "out")
    until((tmp_path / "held").exists)
    (tmp_path / "2.txt").unlink()
    (tmp_path / "go").touch()
    assert run.wait() == 1
    assert f"can't read {tmp_path / '2.txt'}" in run.err
    assert "No such file or directory" in run.err
    assert "2" not in (tmp_path / "out").read_text()


def test_a_full_disk_is_named(
    write_app: Callable[..., Path], start: Callable[..., Run], tmp_path: Path
) -> None:
    (tmp_path / "1.txt").write_text("one\n")
    run = start(write_app(FILES), tmp_path / "1.txt", "/dev/full")
    assert run.wait() == 1
    assert "Error: can't write /dev/full: No space left on device" in run.err
    assert "Traceback" not in run.err
