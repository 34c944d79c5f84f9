"""The number of workers changes while events flow: what comes out is as exact as if it had not."""

import gzip
import itertools
import json
import math
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sequences
from processes import WALLAROO, Peer, Run, alive, cli, frame, free_port, until
from xxhash import xxh3_64_intdigest

from wallaroo.partitioning import Assignment
from wallaroo.partitioning.rewrite import rewrite

FAST = ["--checkpoint-interval", "50ms"]

#: More workers than a machine is good for.
MANY = str(32 * (os.cpu_count() or 1) + 1)

#: From each of 1, 2, 3, 5 and 8 to each other, once.
WALK = [1, 2, 3, 5, 8, 5, 3, 2, 1, 3, 8, 2, 5, 1, 5, 2, 8, 1, 8, 3, 1]


@pytest.fixture
def app(write_app: Callable[..., Path]) -> Path:
    return write_app(sequences.APP)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.txt"


@pytest.fixture
def hurry(tmp_path: Path) -> Callable[[], None]:
    """Has sources give all that they have at once."""
    return (tmp_path / "hurry").touch


def finish(run: Run, out: Path) -> None:
    """Let the endless source end; then all that it gave must be there."""
    sequences.enough(out)
    run.succeed()
    sequences.check_endless(out)


def folders(run: Run) -> list[int]:
    """Of the workers that have one."""
    return sorted(int(path.name) for path in (run.dir / "workers").iterdir())


THROUGH = """
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

@wallaroo.encoder
def encode(text):
    return text + "\\n"

def application_setup(args):
    source = wallaroo.TCPSourceConfig("in", "127.0.0.1", args[1], decode)
    sink = (wallaroo.FileSinkConfig("out.txt") if args[2] == "file"
        else wallaroo.TCPSinkConfig("127.0.0.1", args[2], encode))
    pipeline = wallaroo.source("in", source).key_by(key).to(count).to_sink(sink)
    return wallaroo.build_application("through", pipeline)
"""


def events(count: int) -> bytes:
    """So many frames, of a hundred keys."""
    return b"".join(frame(f"a{number % 100}".encode()) for number in range(count))


def counts(count: int) -> list[str]:
    """What comes out of them."""
    return sorted(f"a{number % 100} {number // 100 + 1}" for number in range(count))


def lines(folder: Path) -> list[str]:
    """What has come out."""
    return "".join(part.read_text() for part in folder.glob("out*.txt")).splitlines()


# Where from, where to


def test_from_any_number_to_any_other_nothing_is_lost_nor_twice_and_the_least_moves(
    app: Path, out: Path, start: Callable[..., Run]
) -> None:
    """Rulings 20, 21 and 26: a worker that comes back has nothing of the time before."""
    run = start(app, "endless:5000", out, workers=WALK[0], options=FAST)
    run.until_committed(1)
    for before, workers in itertools.pairwise(WALK):
        record = run.scale(workers)
        assert record["from"] == before
        assert record["minimum"] == abs(before - workers) / max(before, workers)
        assert math.isclose(record["moved"], record["minimum"], rel_tol=1e-12)
        until(lambda workers=workers: folders(run) == list(range(workers)))  # type: ignore[misc]
    assert len(run.status()["rescales"]) == 20
    assert run.status()["version"] == 21
    assert not run.status()["recoveries"]
    finish(run, out)
    assert len(sequences.parts(out)) == 8, "one worker, which stayed, goes on with the file itself"


def test_workers_come_and_go_one_by_one(app: Path, out: Path, start: Callable[..., Run]) -> None:
    run = start(app, "endless:5000", out, workers=1, options=FAST)
    run.until_committed(1)
    for workers in [*range(2, 11), *range(9, 0, -1)]:
        run.scale(workers)
    assert not run.status()["recoveries"]
    finish(run, out)


def test_of_numbers_asked_for_in_quick_succession_the_last_one_holds(
    app: Path, out: Path, start: Callable[..., Run]
) -> None:
    """Ruling 25."""
    run = start(app, "endless:5000", out, workers=3, options=FAST)
    run.until_committed(1)
    for pause in (0.0, 0.4):
        for workers in (2, 3, 2, 4):
            run.ask_for(workers)
            time.sleep(pause)
        run.until_members(4)
        run.scale(3)
    assert not run.status()["recoveries"]
    finish(run, out)


def test_many_file_partitions_move_in_the_middle_of_a_file(
    write_app: Callable[..., Path],
    out: Path,
    start: Callable[..., Run],
    hurry: Callable[[], None],
    tmp_path: Path,
) -> None:
    """Ruling 27."""
    app = write_app(sequences.APP.replace("    pace(number)\n", "    pace(number, 1500)\n"))
    count, files = 60_000, 8
    for index in range(files):
        text = "".join(f"{number}\n" for number in range(index + 1, count + 1, files))
        if index % 2:
            (tmp_path / f"{index}.in.gz").write_bytes(gzip.compress(text.encode()))
        else:
            (tmp_path / f"{index}.in").write_text(text)
    run = start(app, str(tmp_path / "*.in*"), out, workers=1, options=FAST)
    run.until_committed()
    run.scale(3)
    until(lambda: all(each["read"] for each in run.until_running()["workers"]))
    run.scale(4)
    run.scale(2)
    hurry()
    run.succeed()
    sequences.check(out, range(1, count + 1))


# What moves


def test_one_hot_key_moves_between_more_workers_than_there_are_keys(
    write_app: Callable[..., Path], out: Path, start: Callable[..., Run]
) -> None:
    app = write_app(sequences.APP.replace(f"number % {sequences.KEYS}", "number % 1"))
    run = start(app, "endless:5000", out, workers=1, options=FAST)
    run.until_committed(1)
    owners = set()
    for workers in (6, 2, 5, 1):
        run.scale(workers)
        point = xxh3_64_intdigest(b"key 0")
        pieces = run.until_running()["assignment"]
        owners |= {each["worker"] for each in pieces if each["start"] <= point < each["end"]}
    assert len(owners) > 1, "the key has moved"
    finish(run, out)


def test_an_object_of_50_mb_moves(
    write_app: Callable[..., Path], start: Callable[..., Run], tmp_path: Path
) -> None:
    one = Assignment.first(1)
    two = rewrite(one, [0, 1])
    mine = list(two.pieces_of(1))
    key = next(
        str(number)
        for number in range(100)
        if any(p.start <= xxh3_64_intdigest(str(number).encode()) < p.end for p in mine)
    )
    app = write_app(
        "import os\n"
        + THROUGH.replace(
            "    count = 0",
            "    def __init__(self):\n        self.count, self.data = 0, os.urandom(1000) * 50_000",
        ).replace('{state.count}"', '{state.count} {len(state.data)}"')
    )
    port = free_port()
    run = start(app, port, "file", workers=1, options=["--checkpoint-interval", "250ms"])
    run.until_running()
    sent = 0
    with socket.create_connection(("127.0.0.1", port)) as client:
        run.ask_for(2)
        while len(run.until_running()["members"]) != 2:
            client.sendall(frame(key.encode()))
            sent += 1
            time.sleep(0.5)
        assert run.until_members(2)["rescales"][-1]["bytes"] > 50_000_000
        client.sendall(frame(key.encode()))
        sent += 1
        until(lambda: len(lines(tmp_path)) == sent)
    run.process.terminate()
    run.succeed()
    expected = [f"{key} {number} 50000000" for number in range(1, sent + 1)]
    assert sorted(lines(tmp_path)) == sorted(expected)
    assert (tmp_path / "out.part-1.txt").read_text(), "its new owner goes on with it"


def test_before_the_first_event_there_is_nothing_to_move_and_clients_stay_connected(
    write_app: Callable[..., Path], start: Callable[..., Run], tmp_path: Path
) -> None:
    port = free_port()
    run = start(write_app(THROUGH), port, "file", workers=2, options=FAST)
    run.until_running()
    assert run.scale(4)["entries"] == 0
    run.scale(1)
    all_of_it = events(20_000)
    sent = 0

    with socket.create_connection(("127.0.0.1", port)) as client:
        for workers in (3, 2, 1):
            run.ask_for(workers)
            while run.until_running()["members"] != list(range(workers)):
                client.sendall(all_of_it[sent : sent + 501])  # the last frame is cut
                sent += len(all_of_it[sent : sent + 501])
            run.until_members(workers)
        client.sendall(all_of_it[sent:])
        until(lambda: len(lines(tmp_path)) >= 20_000)
    run.process.terminate()
    run.succeed()
    assert sorted(lines(tmp_path)) == counts(20_000)
    assert not run.status()["recoveries"]


def test_a_tcp_sink_that_is_down_delays_a_rescale_and_gets_all_of_it_once(
    peer: Peer, write_app: Callable[..., Path], start: Callable[..., Run]
) -> None:
    """Ruling 30: no epoch ends before all that it sent has arrived."""
    port = free_port()
    run = start(write_app(THROUGH), port, peer.port, workers=2, options=FAST)
    run.until_running()
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(events(1000))
        until(lambda: peer.data.count(b"\n") == 1000)
        run.until_committed()
        peer.close()
        client.sendall(events(1000))
        until(lambda: any(each["waiting"] for each in run.until_running()["workers"]))
        run.ask_for(3)
        until(lambda: run.until_running()["rescale"])
        time.sleep(1)
        found = run.until_running()
        assert found["members"] == [0, 1]
        assert found["rescale"], "it is not given up yet"
        again = Peer(peer.port)
        try:
            run.until_members(3)
            client.sendall(events(1000))
            until(lambda: again.data.count(b"\n") >= 2000)
        finally:
            again.close()
    assert not run.status()["recoveries"]
    run.process.terminate()
    run.succeed()
    assert sorted((peer.data + again.data).decode().splitlines()) == counts(3000)


MANY = """
import faults
import os
import time

class Numbers:
    def initial_value(self):
        return 0

    def apply(self, previous):
        if not previous % 25 and not os.path.exists("hurry"):
            time.sleep(0.005)
        return previous + 1 if previous < 59_999 else None

class Count:
    count = 0

@wallaroo.key_extractor
def key(number):
    return str(number * 7919 % 5000)

@wallaroo.state_computation(name="count", state=Count)
def count(number, state):
    state.count += 1
    return f"{number * 7919 % 5000} {state.count}"

def application_setup(args):
    pipeline = (wallaroo.source("numbers", wallaroo.GenSourceConfig("numbers", Numbers()))
        .key_by(key).to(count).to_sink(wallaroo.FileSinkConfig(args[1])))
    return wallaroo.build_application("many", pipeline)
"""


def test_with_few_entries_in_memory_many_keys_move(
    write_app: Callable[..., Path], out: Path, start: Callable[..., Run], hurry: Callable[[], None]
) -> None:
    run = start(write_app(MANY), out, workers=2, options=[*FAST, "--state-cache", "50"])
    run.until_committed()
    for workers in (3, 1, 2):
        run.scale(workers)
    hurry()
    run.succeed()
    counts: dict[str, list[int]] = {}
    for part in sequences.parts(out):
        for line in part.read_text().splitlines():
            key, _, count = line.partition(" ")
            counts.setdefault(key, []).append(int(count))
    found = {key: sorted(mine) for key, mine in counts.items()}
    assert found == {str(key): list(range(1, 13)) for key in range(5000)}
    assert sum(each["keys"] for each in run.status()["workers"]) == 5000


def test_without_checkpoints_a_rescale_takes_those_that_it_needs(
    app: Path, out: Path, start: Callable[..., Run]
) -> None:
    """Ruling 23."""
    options = ["--checkpoint-interval", "0"]
    run = start(app, "endless:5000", out, workers=2, options=options)
    until(lambda: sum(each["written"] for each in run.until_running()["workers"]))
    assert run.status()["epoch"] == 0
    for workers in (3, 1):
        run.scale(workers)
    epoch = until(lambda: run.until_running()["epoch"])
    time.sleep(0.3)
    assert run.until_running()["epoch"] <= epoch + 1, "leavers that have gone are noted once"
    finish(run, out)


# Together with ends


@pytest.mark.parametrize("moment", [0.0, 0.3, 0.7])
def test_sources_may_end_during_a_rescale(
    moment: float, app: Path, out: Path, start: Callable[..., Run]
) -> None:
    run = start(app, "endless:5000", out, workers=2, options=FAST)
    run.until_committed(1)
    run.ask_for(3)
    until(lambda: run.until_running()["joiners"])
    time.sleep(moment * 0.3)
    sequences.enough(out, 0)
    run.succeed()
    sequences.check_endless(out)
    assert run.status()["phase"] == "ended"


@pytest.mark.parametrize("moment", [0.0, 0.3, 0.7])
def test_a_run_may_be_stopped_during_a_rescale_and_goes_on_to_the_number_that_is_asked_for(
    moment: float, app: Path, out: Path, start: Callable[..., Run]
) -> None:
    """Ruling 17."""
    run = start(app, "endless:5000", out, workers=3, options=FAST)
    run.until_committed(1)
    run.ask_for(1)
    until(lambda: run.until_running()["rescale"] or run.status()["members"] == [0])
    time.sleep(moment * 0.2)
    run.process.terminate()
    run.succeed()
    assert run.status()["phase"] == "stopped"
    assert sequences.check_prefix(out)
    members = len(run.status()["members"])
    run = start(app, "endless:5000", out, workers=None, options=FAST)
    assert len(run.until_running()["members"]) == members, "without a number, as many as there were"
    run.scale(2)
    finish(run, out)


def test_the_next_run_may_have_another_number_of_workers(
    app: Path, out: Path, start: Callable[..., Run]
) -> None:
    run = start(app, "endless:5000", out, workers=1, options=FAST)
    run.until_committed(1)
    run.process.terminate()
    run.succeed()
    run = start(app, "endless:5000", out, workers=3, options=FAST)
    run.until_members(3)
    run.process.terminate()
    run.succeed()
    assert "going on from the checkpoint of epoch" in run.err
    assert "with its 1 worker; then it is rescaled to 3" in run.err
    assert "rescaled from 1 to 3 workers" in run.err
    run = start(app, "endless:5000", out, workers=2, options=FAST)
    run.until_members(2)
    until(lambda: folders(run) == [0, 1])
    finish(run, out)
    assert "with its 3 workers; then it is rescaled to 2" in run.err
    assert "rescaled from 3 to 2 workers" in run.err


# What a person sees


def test_scale_says_what_it_has_done_and_status_remembers_it(
    app: Path, out: Path, start: Callable[..., Run]
) -> None:
    run = start(app, "endless:5000", out, workers=3, options=FAST)
    run.until_committed(1)
    done = cli("scale", "4", "--dir", str(run.dir))
    assert done.returncode == 0, done.stderr
    assert "Rescaled from 3 to 4 workers: moved 25.00% of the keys" in done.stdout
    assert "(the minimum is 25.00%)" in done.stdout
    done = cli("scale", "4", "--dir", str(run.dir))
    assert (done.returncode, done.stdout) == (0, "4 workers run already\n")
    done = cli("scale", "2", "--dir", str(run.dir))
    assert done.returncode == 0, done.stderr
    assert "Rescaled from 4 to 2 workers: moved 50.00%" in done.stdout
    shown = cli("status", "--dir", str(run.dir)).stdout
    for words in ("3 -> 4", "4 -> 2", "committed", "25.0%", "50.0%"):
        assert words in shown
    records = json.loads(cli("status", "--json", "--dir", str(run.dir)).stdout)["rescales"]
    assert [(each["from"], each["to"], each["outcome"]) for each in records] == [
        (3, 4, "committed"),
        (4, 2, "committed"),
    ]
    for each in records:
        assert list(each["seconds"]) == ["prepare", "copy", "catch up", "switch"]
        assert each["entries"] > 0
        assert each["held"] < 5
    finish(run, out)
    assert "rescaled from 3 to 4 workers" in run.err


def test_totals_have_what_workers_did_that_left_and_what_has_moved(
    app: Path, out: Path, start: Callable[..., Run]
) -> None:
    def status() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(cli("status", "--json", "--dir", str(run.dir)).stdout)
        return found

    keys = sequences.KEYS + sequences.BUCKETS
    run = start(app, "endless:5000", out, workers=3, options=FAST)
    run.until_committed(1)
    until(lambda: status()["keys"] == keys)
    assert cli("scale", "1", "--dir", str(run.dir)).returncode == 0
    found = status()
    assert found["keys"] == keys
    assert found["departed"]["written"] > 0
    assert "left" in cli("status", "--dir", str(run.dir)).stdout
    sequences.enough(out)
    run.succeed()
    count = sequences.check_endless(out)
    for total in (f"keys={keys}", f"read={count}", f"written={count}"):
        assert total in run.err
    assert "started again" not in run.err
    assert run.err.count("rescaled from 3 to 1 workers") == 1


def test_scale_is_told_that_another_number_was_asked_for(
    app: Path, out: Path, start: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Ruling 25. What has not come to its switch is called off, with what it had started."""
    fault = {"point": "before it is enlisted", "worker": 2, "nth": 1, "signal": "SIGSTOP"}
    monkeypatch.setenv("FAULTS", json.dumps([{**fault, "marker": str(tmp_path / "fault")}]))
    run = start(app, "endless:5000", out, workers=2, options=[*FAST, "--heartbeat-timeout", "30s"])
    run.until_committed(1)
    command = [WALLAROO, "scale", "3", "--dir", str(run.dir)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as first:
        until((tmp_path / "fault").exists)
        rescale: dict[str, Any] = until(lambda: run.until_running()["rescale"])
        assert (rescale["from"], rescale["to"], rescale["phase"]) == (2, 3, "prepare")
        shown = cli("status", "--dir", str(run.dir)).stdout
        assert "rescaling from 2 to 3 workers: prepare" in shown
        held = [each["pid"] for each in run.status()["workers"]][2]
        second = cli("scale", "1", "--dir", str(run.dir))
        assert second.returncode == 0, second.stderr
        assert first.wait(30) == 1
        assert first.stderr
        assert "1 workers were asked for meanwhile" in first.stderr.read()
    record = run.status()["rescales"][0]
    assert (record["outcome"], record["to"]) == ("aborted", 3)
    assert record["why"] == "1 workers were asked for meanwhile"
    until(lambda: not alive(held), "the worker that is not to join is ended")
    finish(run, out)


@pytest.mark.parametrize("workers", ["0", "-1", "two", "1001", "2.5", "", MANY])
def test_what_is_no_number_of_workers_is_refused(workers: str, tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    for command in (["scale", "--dir", str(tmp_path / "dir"), "--", workers],):
        done = cli(*command)
        assert done.returncode == 2
        assert "WORKERS" in done.stderr
        assert "Traceback" not in done.stderr


def test_without_a_live_run_there_is_nothing_to_scale(
    app: Path, out: Path, start: Callable[..., Run], tmp_path: Path
) -> None:
    done = cli("scale", "2", "--dir", str(tmp_path / "nowhere"))
    assert done.returncode == 2
    assert f"there is no directory {tmp_path / 'nowhere'}" in done.stderr
    run = start(app, "numbers:100", out)
    run.succeed()
    done = cli("scale", "2", "--dir", str(run.dir))
    assert done.returncode == 2
    assert "no run lives in" in done.stderr
    assert "give 'wallaroo run' the number with --workers" in done.stderr


def test_a_worker_that_comes_back_is_a_new_one(
    app: Path, out: Path, start: Callable[..., Run]
) -> None:
    """Ruling 5: a directory has an identity, and that of one that has left is gone."""
    run = start(app, "endless:5000", out, workers=2, options=FAST)
    run.until_committed(1)
    folder = run.dir / "workers" / "1"
    inode = folder.stat().st_ino
    (folder / "stale").touch()
    part = out.with_name("out.part-1.txt")
    run.scale(1)
    until(lambda: not folder.exists())
    until(lambda: not (run.dir / "gone").exists())
    written = part.read_bytes()
    assert written
    run.scale(2)
    assert not (folder / "stale").exists()
    until(lambda: len(part.read_bytes()) > len(written))
    assert part.read_bytes().startswith(written), "it writes on where it was"
    assert inode
    finish(run, out)


def test_a_run_whose_scale_command_is_interrupted_goes_on_with_it(
    app: Path, out: Path, start: Callable[..., Run]
) -> None:
    run = start(app, "endless:5000", out, workers=1, options=FAST)
    run.until_committed(1)
    command = [WALLAROO, "scale", "2", "--dir", str(run.dir)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as scale:
        until(lambda: json.loads((run.dir / "target.json").read_text())["workers"] == 2)
        os.kill(scale.pid, signal.SIGINT)
        scale.wait(30)
    run.until_members(2)
    finish(run, out)
