"""Sources that listen on every worker, as pods do: those that leave let go of their clients first.

Each worker listens on a port of its own, where pods would have an address of their own.
"""

import contextlib
import json
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pods import Pods
from processes import Run, frame, free_port, until

from wallaroo.partitioning import Assignment
from wallaroo.partitioning.rewrite import rewrite

OPTIONS = ["--checkpoint-interval", "50ms", "--listen-everywhere", "--drain-grace", "200ms"]

APP = """
import sys

class Count:
    count = 0

@wallaroo.decoder(header_length=4, length_fmt=">I")
def decode(payload):
    return payload.decode()

@wallaroo.key_extractor
def key(text):
    return text.split()[0]

@wallaroo.state_computation(name="count", state=Count)
def count(text, state):
    state.count += 1
    return f"{text} {state.count}"

def application_setup(args):
    worker = sys.argv[sys.argv.index("--worker") + 1] if "--worker" in sys.argv else 0
    ports = args[1].split(",")
    source = wallaroo.TCPSourceConfig("in", "127.0.0.1", ports[int(worker)], decode)
    pipeline = (wallaroo.source("in", source).key_by(key).to(count)
        .to_sink(wallaroo.FileSinkConfig("out.txt")))
    return wallaroo.build_application("in", pipeline)
"""


@pytest.fixture
def ports() -> list[int]:
    found: set[int] = set()
    while len(found) < 3:
        found.add(free_port())
    return sorted(found)


def connect(port: int) -> socket.socket:
    """To a source that may not listen yet."""

    made: list[socket.socket] = []

    def connected() -> list[socket.socket]:
        with contextlib.suppress(ConnectionRefusedError):
            made.append(socket.create_connection(("127.0.0.1", port)))
        return made

    return until(connected, "nobody listens")[0]


class Client(threading.Thread):
    """Sends numbers under its name. When told that a connection ends it goes on at worker 0."""

    def __init__(self, name: str, ports: list[int], worker: int) -> None:
        super().__init__(daemon=True)
        self.title = name
        self.ports = ports
        self.moves = 0
        self.sent = 0
        self.enough = threading.Event()
        self._connection = connect(ports[worker])

    def run(self) -> None:
        while not self.enough.is_set():
            if select.select([self._connection], [], [], 0.001)[0]:
                assert self._connection.recv(1) == b""
                self._connection.close()
                self.moves += 1
                self._connection = connect(self.ports[0])
            self._connection.sendall(frame(f"{self.title} {self.sent}".encode()))
            self.sent += 1
        self._connection.close()

    def end(self) -> None:
        self.enough.set()
        self.join()


@pytest.fixture
def clients(ports: list[int]) -> Iterator[Callable[..., Client]]:
    """Starts clients and ends them."""
    begun: list[Client] = []

    def begin(name: str, worker: int) -> Client:
        client = Client(name, ports, worker)
        client.start()
        begun.append(client)
        return client

    yield begin
    for client in begun:
        client.enough.set()


def lines(folder: Path) -> list[str]:
    return "".join(part.read_text() for part in folder.glob("out*.txt")).splitlines()


def finish(run: Run) -> None:
    run.process.terminate()
    run.succeed()


def attempt(run: Run) -> dict[str, Any]:
    """The rescale under way, or nothing."""
    return run.status().get("rescale") or {}


IN_A_POD = APP.replace(
    '"127.0.0.1", ports[int(worker)]',
    '__import__("os").environ.get("POD_IP", "127.0.0.1"), ports[0]',
)


@pytest.fixture
def pods(write_app: Callable[..., Path], ports: list[int], tmp_path: Path) -> Iterator[Pods]:
    options = ["--checkpoint-interval", "50ms", "--drain-grace", "1s", "--drain-timeout", "2s"]
    made = Pods(tmp_path, write_app(IN_A_POD), [str(ports[0])], options)
    yield made
    made.kill()


def test_every_pod_listens_and_one_that_leaves_is_not_ready_before_it_stops_to(
    pods: Pods, ports: list[int], tmp_path: Path
) -> None:
    """Ruling K8s 12."""
    pods.begun(2)
    until(lambda: pods.pods[0].ready and pods.pods[1].ready)
    port = ports[0]
    with (
        socket.create_connection((pods.ip(0), port)) as other,
        socket.create_connection((pods.ip(1), port)) as client,
    ):
        other.sendall(frame(b"a 0"))
        client.sendall(frame(b"b 0") + frame(b"cut")[:6])
        until(lambda: len(lines(tmp_path)) == 2)
        until(lambda: "wallaroo_connections 1.0" in pods.pods[1].get("/metrics")[1])
        before = pods.status()
        old = Assignment.first(2)
        with pods.client() as asked:
            asked.rescale(before["version"], rewrite(old, [0]))
        until(lambda: not pods.pods[1].ready)
        with socket.create_connection((pods.ip(1), port)) as late:
            late.sendall(frame(b"c 0"))
        assert client.recv(1) == b"", "it is told to go"
        found = pods.until(lambda found: found["members"] == [0], "it does not leave")
        record = found["rescales"][-1]
        assert (record["outcome"], record["lost"]) == ("committed", 6)
        assert pods.pods[0].ready
        for worker, metric in ((0, "rescale"), (1, "connection")):
            line = f"wallaroo_{metric}_lost_bytes_total 6.0"
            until(lambda: line in pods.pods[worker].get("/metrics")[1])  # noqa: B023
        with pytest.raises(ConnectionError):
            socket.create_connection((pods.ip(1), port))
    until(lambda: sorted(lines(tmp_path)) == ["a 0 1", "b 0 1", "c 0 1"])


def test_clients_that_connect_again_lose_nothing(
    write_app: Callable[..., Path],
    start: Callable[..., Run],
    ports: list[int],
    clients: Callable[..., Client],
    tmp_path: Path,
) -> None:
    """Ruling 31, and ruling K8s 12."""
    run = start(write_app(APP), ",".join(map(str, ports)), workers=3, options=OPTIONS)
    first = [clients(f"first-{n}", n % 3) for n in range(9)]
    until(lambda: all(client.sent > 100 for client in first))
    record = run.scale(1)
    assert record["seconds"]["drain"] > 0.2, "clients may still come for a while"
    assert record["lost"] == 0
    assert [client.moves for client in first] == [0, 1, 1] * 3
    for port in ports[1:]:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
    record = run.scale(3)
    assert "drain" not in record["seconds"], "nobody leaves, so that nobody waits"
    second = [clients(f"second-{n}", n % 3) for n in range(9)]
    until(lambda: all(client.sent > 100 for client in second))
    assert run.scale(2)["lost"] == 0
    assert [client.moves for client in second] == [0, 0, 1] * 3
    for client in (*first, *second):
        client.end()
    finish(run)
    found = lines(tmp_path)
    for client in (*first, *second):
        mine = [line.split()[1:] for line in found if line.startswith(f"{client.title} ")]
        assert sorted(int(number) for number, _ in mine) == list(range(client.sent))
        assert sorted(int(count) for _, count in mine) == list(range(1, client.sent + 1))


def test_a_client_that_stays_is_cut_off_and_what_it_loses_is_counted(
    write_app: Callable[..., Path], start: Callable[..., Run], ports: list[int], tmp_path: Path
) -> None:
    """Ruling 31, and ruling K8s 12."""
    options = [*OPTIONS, "--drain-timeout", "1s"]
    run = start(write_app(APP), ",".join(map(str, ports)), workers=2, options=options)
    with connect(ports[1]) as client, connect(ports[0]) as other:
        client.sendall(b"".join(frame(f"a {n}".encode()) for n in range(100)) + frame(b"cut")[:5])
        until(lambda: len(lines(tmp_path)) == 100)
        run.ask_for(1)
        until(lambda: attempt(run).get("phase") == "drain")
        client.sendall(b"ut" + b"".join(frame(f"b {n}".encode()) for n in range(50)) + b"\0\0")
        record = run.until_members(1)["rescales"][-1]
        assert 1.0 < record["seconds"]["drain"] < 10.0
        assert (record["outcome"], record["lost"]) == ("committed", 2)
        with pytest.raises(ConnectionError):
            until(lambda: client.send(frame(b"more")) and False)
        other.sendall(frame(b"c 0"))
        until(lambda: "c 0 1" in lines(tmp_path))
    finish(run)
    found = lines(tmp_path)
    assert len(found) == 152, "all but the unfinished frame"
    assert "cut 1" in found


def test_a_worker_that_stays_after_all_lets_clients_in_again(
    write_app: Callable[..., Path], start: Callable[..., Run], ports: list[int], tmp_path: Path
) -> None:
    run = start(write_app(APP), ",".join(map(str, ports)), workers=2, options=OPTIONS)
    with connect(ports[1]) as client:
        client.sendall(frame(b"a 0"))
        until(lambda: len(lines(tmp_path)) == 1)
        run.ask_for(1)
        assert client.recv(1) == b"", "it is told to go"
        run.ask_for(2)
        until(lambda: run.status()["rescales"] and not attempt(run))
        assert run.status()["rescales"][-1]["outcome"] == "aborted"
        with connect(ports[1]) as other:
            client.sendall(frame(b"a 1"))
            other.sendall(frame(b"b 0"))
            until(lambda: len(lines(tmp_path)) == 3)
    finish(run)
    assert sorted(lines(tmp_path)) == ["a 0 1", "a 1 2", "b 0 1"]


def test_a_fault_meanwhile_keeps_the_clients_and_the_rescale_is_tried_again(
    write_app: Callable[..., Path], start: Callable[..., Run], ports: list[int], tmp_path: Path
) -> None:
    run = start(write_app(APP), ",".join(map(str, ports)), workers=3, options=OPTIONS)
    with connect(ports[2]) as client:
        client.sendall(frame(b"a 0"))
        until(lambda: len(lines(tmp_path)) == 1)
        victim = run.pids()[1]
        run.ask_for(2)
        until(lambda: attempt(run).get("phase") == "drain")
        os.kill(victim, signal.SIGKILL)
        until(lambda: run.until_running()["recoveries"])
        client.sendall(frame(b"a 1"))
        until(lambda: len(lines(tmp_path)) == 2)
        until(lambda: attempt(run).get("phase") == "drain")
        time.sleep(0.5)
        client.sendall(frame(b"a 2"))
    record = run.until_members(2)["rescales"][-1]
    assert (record["outcome"], record["lost"]) == ("committed", 0)
    finish(run)
    assert sorted(lines(tmp_path)) == ["a 0 1", "a 1 2", "a 2 3"]


@pytest.mark.parametrize(("workers", "to"), [(3, 2), (2, 3)], ids=["leaves", "joins"])
def test_a_fault_behind_the_switch_leaves_nobody_deaf(
    workers: int,
    to: int,
    write_app: Callable[..., Path],
    start: Callable[..., Run],
    ports: list[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ruling 31: it is a crash for TCP, and then worker 2 listens as the assignment says."""
    marker = tmp_path / "fault"
    fault = {"point": "before the switch is reported", "worker": 1, "nth": 1}
    monkeypatch.setenv("FAULTS", json.dumps([{**fault, "marker": str(marker)}]))
    options = [*OPTIONS, "--drain-timeout", "500ms"]
    app = write_app("import faults\n" + APP)
    run = start(app, ",".join(map(str, ports)), workers=workers, options=options)
    with connect(ports[0]) as client:
        run.until_committed()
        run.ask_for(to)
        until(marker.exists)
        if to < workers:
            with connect(ports[2]) as again:
                again.sendall(frame(b"a 0"))
        found = run.until_members(to)
        assert [each["outcome"] for each in found["rescales"]] == ["aborted", "committed"]
        client.sendall(frame(b"b 0"))
        if to > workers:
            with connect(ports[2]) as again:
                again.sendall(frame(b"a 0"))
        until(lambda: sorted(lines(tmp_path)) == ["a 0 1", "b 0 1"])
    finish(run)
    assert sorted(lines(tmp_path)) == ["a 0 1", "b 0 1"]
