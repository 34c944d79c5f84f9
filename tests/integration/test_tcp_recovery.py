"""TCP across a kill: out at least once; in, clients stay connected and new events are taken."""

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

from processes import Peer, Run, frame, free_port, until

FAST = ["--checkpoint-interval", "50ms"]

OUT = """
import os
import time

class Count:
    count = 0

@wallaroo.key_extractor
def key(line):
    return line[-1]

@wallaroo.state_computation(name="count", state=Count)
def count(line, state):
    number = int(line)
    if not number % 25 and not os.path.exists("hurry"):
        time.sleep(0.005)
    state.count += 1
    return f"{line} {state.count}"

@wallaroo.encoder
def encode(text):
    return text + "\\n"

def application_setup(args):
    lines = wallaroo.source("lines", wallaroo.FileSourceConfig("lines", args[1]))
    pipeline = (lines.key_by(key).to(count)
        .to_sink(wallaroo.TCPSinkConfig("127.0.0.1", args[2], encode)))
    return wallaroo.build_application("out", pipeline)
"""


def test_a_tcp_sink_misses_nothing_though_workers_are_killed(
    peer: Peer, write_app: Callable[..., Path], start: Callable[..., Run], tmp_path: Path
) -> None:
    count = 100_000
    (tmp_path / "lines").write_text("".join(f"{number}\n" for number in range(count)))
    run = start(write_app(OUT), tmp_path / "lines", peer.port, workers=2, options=FAST)
    for victim in (1, 0):
        run.until_committed()
        run.kill_workers(victim)
    (tmp_path / "hurry").touch()
    run.succeed()
    expected = {f"{number} {number // 10 + 1}" for number in range(count)}
    until(lambda: len(found(peer)) >= count)
    assert found(peer) == expected, "state is exact, whatever is sent again"


def found(peer: Peer) -> set[str]:
    """What came."""
    return set(peer.data.decode().splitlines())


IN = """
class Count:
    count = 0

@wallaroo.decoder(header_length=4, length_fmt=">I")
def decode(payload):
    return payload.decode()

@wallaroo.key_extractor
def key(text):
    return text

@wallaroo.state_computation(name="count", state=Count)
def count(text, state):
    state.count += 1
    return f"{text} {state.count}"

def application_setup(args):
    source = wallaroo.TCPSourceConfig("in", "127.0.0.1", args[1], decode)
    pipeline = (wallaroo.source("in", source).key_by(key).to(count)
        .to_sink(wallaroo.FileSinkConfig("out.txt")))
    return wallaroo.build_application("in", pipeline)
"""


def lines(folder: Path) -> list[str]:
    return [line for path in folder.glob("out.part-*") for line in path.read_text().splitlines()]


def test_clients_stay_connected_though_another_worker_than_the_one_that_listens_is_killed(
    write_app: Callable[..., Path], start: Callable[..., Run], tmp_path: Path
) -> None:
    port = free_port()
    run = start(write_app(IN), port, workers=3, options=FAST)
    pids = run.pids()
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"".join(frame(f"a{n}".encode()) for n in range(100)))
        until(lambda: len(lines(tmp_path)) == 100)
        client.sendall(frame(b"cut")[:5])
        os.kill(pids[1], signal.SIGKILL)
        until(lambda: run.until_running()["recoveries"])
        client.sendall(frame(b"cut")[5:])  # on the same connection, the rest of a frame
        client.sendall(b"".join(frame(f"a{n}".encode()) for n in range(100)))
        until(lambda: len(lines(tmp_path)) == 201)
    assert run.pids()[0] == pids[0]
    run.process.terminate()
    run.succeed()
    assert sorted(lines(tmp_path)) == sorted(
        ["cut 1", *(f"a{n} {times}" for n in range(100) for times in (1, 2))]
    )


def test_the_worker_that_listens_is_killed_and_its_successor_listens(
    write_app: Callable[..., Path], start: Callable[..., Run], tmp_path: Path
) -> None:
    port = free_port()
    run = start(write_app(IN), port, workers=2, options=FAST)
    pids = run.pids()
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"".join(frame(f"a{n}".encode()) for n in range(100)))
        until(lambda: len(lines(tmp_path)) == 100)
        os.kill(pids[0], signal.SIGKILL)
        client.settimeout(60)
        try:
            assert client.recv(1) == b""
        except ConnectionResetError:
            pass
    until(lambda: run.status().get("phase") == "running" and run.pids()[0] != pids[0])
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"".join(frame(f"a{n}".encode()) for n in range(100)))
        until(lambda: len(lines(tmp_path)) == 200)
    run.process.terminate()
    run.succeed()
    assert sorted(lines(tmp_path)) == sorted(
        f"a{n} {times}" for n in range(100) for times in (1, 2)
    )
