"""Streams through real processes: nothing lost, order kept, back pressure, orderly ends."""

import re
import signal
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest
from processes import Peer, Run, cli, frame, free_port, until

#: Written for Wallaroo 0.6.1, as its documentation taught it: no names in addresses or configs.
OLD_PROGRAM = """
import struct

def application_setup(args):
    in_host, in_port = wallaroo.tcp_parse_input_addrs(args)[0]
    out_host, out_port = wallaroo.tcp_parse_output_addrs(args)[0]

    inputs = wallaroo.source("Sequence Window",
                    wallaroo.TCPSourceConfig(in_host, in_port, decoder))

    pipeline = (inputs
        .key_by(extract_key)
        .to(observe)
        .to_sink(wallaroo.TCPSinkConfig(out_host, out_port, encoder)))

    return wallaroo.build_application("Sequence Window", pipeline)


class Value(object):
    def __init__(self, key, number):
        self.key = key
        self.number = number


class Window(object):
    def __init__(self):
        self.last = [0, 0, 0, 0]


@wallaroo.decoder(header_length=4, length_fmt=">I")
def decoder(bs):
    key, number = struct.unpack(">HQ", bs)
    return Value(str(key), number)


@wallaroo.key_extractor
def extract_key(value):
    return value.key


@wallaroo.state_computation(name="Observe", state=Window)
def observe(value, window):
    window.last = window.last[1:] + [value.number]
    return (value.key, list(window.last))


@wallaroo.encoder
def encoder(result):
    return "{} {}\\n".format(result[0], ",".join(str(n) for n in result[1])).encode()
"""


def value(key: int, number: int) -> bytes:
    return frame(key.to_bytes(2, "big") + number.to_bytes(8, "big"))


def check_windows(data: bytes, keys: int, numbers: int) -> None:
    """Per key 1, 2, 3, … came out, each with the three before it; nothing twice or missing."""
    expected: dict[str, int] = defaultdict(int)
    for line in data.decode().splitlines():
        key, _, window = line.partition(" ")
        expected[key] += 1
        last = expected[key]
        assert window == ",".join(str(max(0, n)) for n in range(last - 3, last + 1)), line
    assert expected == {str(key): numbers for key in range(keys)}


@pytest.mark.parametrize("workers", [1, 3])
def test_a_program_for_wallaroo_0_6_1_keeps_every_sequence(
    workers: int, peer: Peer, write_app: Callable[..., Path], start: Callable[..., Run]
) -> None:
    keys, numbers = 40, 250
    port = free_port()
    args = ["--in", f"127.0.0.1:{port}", "--out", f"127.0.0.1:{peer.port}"]
    run = start(write_app(OLD_PROGRAM), *args, workers=workers)
    run.until_running()

    def send(mine: range) -> None:
        with socket.create_connection(("127.0.0.1", port)) as client:
            data = b"".join(value(key, n) for n in range(1, numbers + 1) for key in mine)
            for at in range(0, len(data), 1000):  # frames cut anywhere
                client.sendall(data[at : at + 1000])

    clients = [threading.Thread(target=send, args=(range(k, k + 4),)) for k in range(0, keys, 4)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    # A stop right behind the last frame: what has arrived still goes through.
    run.process.send_signal(signal.SIGTERM)
    run.succeed()
    until(lambda: peer.data.count(b"\n") >= keys * numbers)
    check_windows(peer.data, keys, numbers)


def test_a_peer_that_goes_away_midway_gets_the_rest_when_it_is_back(
    write_app: Callable[..., Path], start: Callable[..., Run]
) -> None:
    first = Peer()
    port = free_port()
    args = ["--in", f"127.0.0.1:{port}", "--out", f"127.0.0.1:{first.port}"]
    run = start(write_app(OLD_PROGRAM), *args, workers=2)
    run.until_running()
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"".join(value(0, n) for n in range(1, 501)))
        until(lambda: first.data.count(b"\n") == 500)
        first.close()
        client.sendall(b"".join(value(0, n) for n in range(501, 1001)))
        until(lambda: any(worker["waiting"] for worker in run.status()["workers"]))
        second = Peer(first.port)
        client.sendall(b"".join(value(0, n) for n in range(1001, 1501)))
        until(lambda: b" 1497,1498,1499,1500\n" in second.data or _last(second) == 1500)
    assert cli("stop", "--dir", str(run.dir)).returncode == 0
    run.succeed()
    second.close()
    numbers = [int(n) for n in re.findall(rb",(\d+)\n", second.data)]
    assert numbers == list(range(numbers[0], 1501)), "in order, none missing"
    assert numbers[0] <= 501, "from where the first peer left off, or a little before"


def _last(peer: Peer) -> int:
    found = re.findall(rb",(\d+)\n", peer.data)
    return int(found[-1]) if found else 0


COUNTING = """
class Numbers:
    def initial_value(self):
        return 1

    def apply(self, previous):
        return previous + 1 if previous < {last} else None

class Count:
    def __init__(self):
        self.count = 0

@wallaroo.key_extractor
def bucket(number):
    return str(number % 97)

@wallaroo.state_computation(name="count", state=Count)
def count(number, state):
    state.count += 1
    return number

@wallaroo.encoder
def encode(number):
    return "%d\\n" % number

def application_setup(args):
    pipeline = (wallaroo.source("numbers", wallaroo.GenSourceConfig("numbers", Numbers()))
        .key_by(bucket).to(count).to_sink(wallaroo.TCPSinkConfig("127.0.0.1", args[1], encode)))
    return wallaroo.build_application("counting", pipeline)
"""


def rss(pid: int) -> int:
    """Resident memory, in bytes."""
    text = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", text)
    assert found
    return int(found.group(1)) * 1024


def test_a_stalled_sink_stops_its_source_with_memory_flat_and_then_gets_everything(
    write_app: Callable[..., Path], start: Callable[..., Run]
) -> None:
    last = 3_000_000  # far more than all buffers on the way hold
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
    run = start(write_app(COUNTING.format(last=last)), listener.getsockname()[1], workers=2)
    pids = run.pids()
    peers = [listener.accept()[0] for _ in pids]

    def read() -> int:
        return sum(worker["read"] for worker in run.status()["workers"])

    def still() -> bool:
        before = read()
        time.sleep(1)
        return 0 < before == read()

    until(still, "the source goes on reading")
    assert read() < last
    before = [rss(pid) for pid in pids]
    time.sleep(2)
    grown = [after - was for after, was in zip(map(rss, pids), before, strict=True)]
    assert max(grown) < 1 << 20

    received = [0, 0]

    def drain(index: int) -> None:
        while data := peers[index].recv(1 << 20):
            received[index] += data.count(b"\n")

    threads = [threading.Thread(target=drain, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    run.succeed()
    for thread in threads:
        thread.join()
    for each in (*peers, listener):
        each.close()
    assert sum(received) == last


def test_status_shows_members_assignment_and_keys_of_a_live_run(
    peer: Peer, write_app: Callable[..., Path], start: Callable[..., Run]
) -> None:
    run = start(
        write_app(OLD_PROGRAM),
        "--in",
        f"127.0.0.1:{(port := free_port())}",
        "--out",
        f"127.0.0.1:{peer.port}",
        workers=3,
    )
    run.until_running()
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"".join(value(key, 1) for key in range(300)))
        until(lambda: sum(worker["keys"] for worker in run.status()["workers"]) == 300)
    found = run.status()
    assert found["members"] == [0, 1, 2]
    assert found["assignment"][0]["start"] == 0
    assert found["assignment"][-1]["end"] == 1 << 64
    for before, after in zip(found["assignment"], found["assignment"][1:], strict=False):
        assert before["end"] == after["start"]
    shares = [piece["end"] - piece["start"] for piece in found["assignment"]]
    assert max(shares) - min(shares) <= 1
    assert all(worker["keys"] > 50 for worker in found["workers"]), "spread over all"
    shown = cli("status", "--dir", str(run.dir)).stdout
    assert "running" in shown
    assert "33.3%" in shown
    assert cli("stop", "--dir", str(run.dir)).returncode == 0
    run.succeed()
    assert run.status()["phase"] == "stopped"
