"""What a user gets wrong before anything runs: one clear message, and exit code 2."""

import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from processes import Peer, Run, cli, free_port, until

SETUP = """
def application_setup(args):
    source = wallaroo.source("lines", wallaroo.FileSourceConfig("lines", {path!r}))
    {pipeline}
    return wallaroo.build_application("app", pipeline)
"""
STEPS = """
@wallaroo.computation(name="same")
def one(line):
    return line

@wallaroo.computation(name="same")
def other(line):
    return line
"""


def refused(run: Run, *words: str) -> None:
    """The run can't start, and says why in one line without a traceback."""
    assert run.wait() == 2
    message = run.err.splitlines()[-1]
    assert message.startswith("Error: ")
    for word in words:
        assert word in message
    assert "Traceback" not in run.err


def test_no_such_module(tmp_path: Path, start: Callable[..., Run]) -> None:
    refused(start(tmp_path / "absent.py"), "no such application", "absent.py")


def test_a_folder_is_no_module(tmp_path: Path, start: Callable[..., Run]) -> None:
    refused(start(tmp_path), "no such application", "folder")


def test_a_module_named_like_one_of_pythons(
    write_app: Callable[..., Path], start: Callable[..., Run]
) -> None:
    refused(start(write_app("", name="json")), "json.py", "rename")


def test_no_application_setup(write_app: Callable[..., Path], start: Callable[..., Run]) -> None:
    refused(start(write_app("x = 1")), "no function application_setup(args)")


def test_application_setup_returns_something_else(
    write_app: Callable[..., Path], start: Callable[..., Run]
) -> None:
    app = write_app("def application_setup(args):\n    return 7\n")
    refused(start(app), "application_setup returned 7", "build_application")


def test_a_module_that_raises_shows_the_users_own_traceback(
    write_app: Callable[..., Path], start: Callable[..., Run]
) -> None:
    run = start(write_app("def application_setup(args):\n    return 1 / 0\n"))
    assert run.wait() == 2
    assert "application_setup raised: ZeroDivisionError: division by zero" in run.err
    assert "return 1 / 0" in run.err
    assert "worker/wallaroo" not in run.err


@pytest.mark.parametrize(
    ("pipeline", "words"),
    [
        ("pipeline = source", ["pipeline without a sink"]),
        (
            "pipeline = source.to(one).to(other).to_sink(wallaroo.FileSinkConfig('out'))",
            ["two different steps are named 'same'", "one and other"],
        ),
        ("pipeline = source.to(len)", ["to() takes a computation", "len"]),
    ],
)
def test_a_pipeline_that_is_not_right(
    pipeline: str, words: list[str], write_app: Callable[..., Path], start: Callable[..., Run]
) -> None:
    app = write_app(STEPS + SETUP.format(path=__file__, pipeline=pipeline))
    refused(start(app), *words)


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (
            "@wallaroo.computation(name='double')\ndef double(a, b):\n    return a\n",
            ["computation 'double'", "must take 1 parameter", "double(a, b)"],
        ),
        (
            """
class Total:
    def __init__(self, start): pass

@wallaroo.state_computation(name='count', state=Total)
def count(data, state): pass
""",
            ["state computation 'count'", "Total", "without arguments", "start"],
        ),
    ],
)
def test_a_step_that_is_not_right(
    step: str, words: list[str], write_app: Callable[..., Path], start: Callable[..., Run]
) -> None:
    refused(start(write_app(step)), *words)


def test_no_worker(write_app: Callable[..., Path], start: Callable[..., Run]) -> None:
    run = start(write_app(""), workers=0)
    assert run.wait() == 2
    assert "--workers" in run.err
    assert "0 is not in the range" in run.err


GOOD = "pipeline = source.to_sink(wallaroo.FileSinkConfig('out.txt'))"


def test_no_file_matches(write_app: Callable[..., Path], start: Callable[..., Run]) -> None:
    app = write_app(SETUP.format(path="absent/*.txt", pipeline=GOOD))
    refused(start(app, workers=2), "source 'lines'", "no file matches absent/*.txt")


LONG = "x" * 300


def test_names_that_the_system_does_not_take(
    write_app: Callable[..., Path], start: Callable[..., Run], tmp_path: Path
) -> None:
    refused(start(tmp_path / LONG), "can't read", "File name too long")
    app = write_app(SETUP.format(path=LONG, pipeline=GOOD))
    refused(start(app), "source 'lines': can't read", "File name too long")
    for command in ("status", "stop"):
        done = cli(command, "--dir", LONG)
        assert done.returncode == 2
        assert done.stderr == f"Error: can't use {LONG}: File name too long\n"


def test_a_file_without_a_name(write_app: Callable[..., Path], start: Callable[..., Run]) -> None:
    refused(start(write_app(SETUP.format(path="", pipeline=GOOD))), "'lines': '' names no file")


def test_a_directory_whose_name_is_not_utf_8(
    write_app: Callable[..., Path], tmp_path: Path
) -> None:
    app = write_app(SETUP.format(path=__file__, pipeline=GOOD))
    done = cli("run", "--dir", str(tmp_path / "d\udcff"), str(app))
    assert done.returncode == 2
    assert "its name is not UTF-8; choose another --dir" in done.stderr


def test_arguments_need_not_be_utf_8(
    write_app: Callable[..., Path], start: Callable[..., Run]
) -> None:
    start(write_app(SETUP.format(path=__file__, pipeline=GOOD)), "\udcff").succeed()


def test_no_room_for_sockets(
    write_app: Callable[..., Path],
    start: Callable[..., Run],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/dev/null")  # writable, and no folder
    app = write_app(SETUP.format(path=__file__, pipeline=GOOD))
    refused(start(app), "can't make a folder for sockets in /dev/null", "XDG_RUNTIME_DIR")


def test_status_of_a_run_whose_outcome_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "outcome.json").write_text("[")
    done = cli("status", "--dir", str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.startswith(f"Error: can't read {tmp_path / 'outcome.json'}: ")


def test_a_sink_that_cannot_be_written(
    tmp_path: Path, write_app: Callable[..., Path], start: Callable[..., Run]
) -> None:
    sink = f"pipeline = source.to_sink(wallaroo.FileSinkConfig({str(tmp_path / 'no' / 'out')!r}))"
    run = start(write_app(SETUP.format(path=__file__, pipeline=sink)))
    assert run.wait() == 1
    assert "can't write" in run.err
    assert "No such file or directory" in run.err
    assert "Traceback" not in run.err


LISTENING = """
@wallaroo.decoder(header_length=4, length_fmt=">I")
def decode(payload):
    return payload

def application_setup(args):
    pipeline = (wallaroo.source("in", wallaroo.TCPSourceConfig("in", "127.0.0.1", args[1], decode))
        .to_sink(wallaroo.FileSinkConfig("out.txt")))
    return wallaroo.build_application("listening", pipeline)
"""


def test_a_port_in_use(write_app: Callable[..., Path], start: Callable[..., Run]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        run = start(write_app(LISTENING), port, workers=2)
        assert run.wait() == 1
    assert f"source 'in': can't listen on 127.0.0.1:{port}: Address already in use" in run.err
    assert "Traceback" not in run.err


def test_a_directory_in_use_by_a_live_run(
    write_app: Callable[..., Path], start: Callable[..., Run]
) -> None:
    app = write_app(LISTENING)
    first = start(app, free_port())
    first.until_running()
    refused(
        start(app, free_port()), "in use by a live run", str(first.process.pid), "wallaroo stop"
    )
    assert first.status()["phase"] == "running", "the live run is unharmed"


def test_a_directory_of_another_application(
    tmp_path: Path, write_app: Callable[..., Path], start: Callable[..., Run]
) -> None:
    Path(tmp_path / "text").write_text("a line\n")
    setup = SETUP.format(path=str(tmp_path / "text"), pipeline=GOOD)
    start(write_app(setup)).succeed()
    other = write_app(setup.replace('"app"', '"another"'), name="another")
    refused(start(other), "belongs to the application 'app', not to 'another'")


def test_a_directory_that_is_not_wallaroos(
    tmp_path: Path, write_app: Callable[..., Path], start: Callable[..., Run]
) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir" / "thesis.txt").write_text("years of work")
    app = write_app(SETUP.format(path=__file__, pipeline=GOOD))
    refused(start(app), "not empty", "choose another --dir")


def test_status_and_stop_without_a_run(tmp_path: Path) -> None:
    for command in ("status", "stop"):
        done = cli(command, "--dir", str(tmp_path))
        assert done.returncode == 2
        assert "no run lives" in done.stderr


def test_nothing_listens_but_what_the_application_asks_for(
    write_app: Callable[..., Path], start: Callable[..., Run]
) -> None:
    port = free_port()
    run = start(write_app(LISTENING), port, workers=2)
    pids = [*run.pids(), run.process.pid]
    assert listening(pids) == {port}


def listening(pids: list[int]) -> set[int]:
    """The TCP ports on which any of the processes listens."""
    inodes = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            target = link.readlink() if link.is_symlink() else Path()
            if str(target).startswith("socket:["):
                inodes.add(str(target)[8:-1])
    ports = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                ports.add(int(fields[1].rpartition(":")[2], 16))
    return ports


def test_sockets_and_directory_are_private(
    write_app: Callable[..., Path], start: Callable[..., Run]
) -> None:
    run = start(write_app(LISTENING), free_port())
    run.until_running()
    control = (run.dir / "control.json").read_text()
    sockets = Path(control.partition("unix:")[2].partition('"')[0]).parent
    for path in (sockets, run.dir):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert cli("stop", "--dir", str(run.dir)).returncode == 0
    run.succeed()
    assert not sockets.exists()


def test_a_peer_that_is_never_there_is_waited_for(
    peer: Peer, write_app: Callable[..., Path], start: Callable[..., Run], tmp_path: Path
) -> None:
    port = peer.port
    peer.close()
    (tmp_path / "text").write_text("one\ntwo\n")
    pipeline = f"pipeline = source.to_sink(wallaroo.TCPSinkConfig('127.0.0.1', {port}, enc))"
    encoder = "@wallaroo.encoder\ndef enc(line):\n    return line + '\\n'\n"
    run = start(write_app(encoder + SETUP.format(path=str(tmp_path / "text"), pipeline=pipeline)))
    waiting = until(
        lambda: [w for each in run.status().get("workers", []) for w in each["waiting"]]
    )
    assert waiting == [f"sink 127.0.0.1:{port}: can't connect: Connection refused"] or (
        f"sink 127.0.0.1:{port}" in waiting[0]
    )
    late = Peer(port)
    run.succeed()
    late.close()
    assert late.data == b"one\ntwo\n"


def test_a_very_short_time_between_checkpoints(
    write_app: Callable[..., Path], start: Callable[..., Run]
) -> None:
    app = write_app(SETUP.format(path=__file__, pipeline=GOOD))
    start(app, options=["--checkpoint-interval", "0.00001"]).succeed()


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (["--checkpoint-interval", "abc"], ["--checkpoint-interval", "'abc' is no duration"]),
        (["--checkpoint-interval", "-1s"], ["--checkpoint-interval", "no duration"]),
        (["--checkpoint-interval", "1e9m"], ["--checkpoint-interval", "too long"]),
        (["--on-error", "x", "y"], ["--on-error", "'x' is not", "dead-letter"]),
        (["--on-error", "dead-letter", "."], ["--on-error", "is a directory"]),
        (["--state-cache", "0"], ["--state-cache", "0 is not in the range"]),
        (["--heartbeat-timeout", "soon"], ["--heartbeat-timeout", "no duration"]),
        (["--heartbeat-timeout", "0"], ["--heartbeat-timeout", "at least"]),
    ],
)
def test_an_option_that_is_not_right(
    option: list[str],
    words: list[str],
    write_app: Callable[..., Path],
    start: Callable[..., Run],
) -> None:
    refused(start(write_app(""), options=option), *words)
