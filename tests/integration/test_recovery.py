"""Any worker may be killed at any time, and the runner too: what comes out stays exact."""

import os
import random
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import sequences
from processes import Run, alive, until

FAST = ["--checkpoint-interval", "50ms"]


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


@pytest.fixture
def files(tmp_path: Path) -> Callable[..., str]:
    """Writes numbers into files; returns the pattern that they match."""

    def write(*numbers: range) -> str:
        for index, mine in enumerate(numbers):
            text = "".join(f"{number}\n" for number in mine)
            (tmp_path / f"numbers-{mine.start}-{index}.in").write_text(text)
        return str(tmp_path / "numbers-*.in")

    return write


def gone(pids: Iterable[int]) -> None:
    until(lambda: not any(map(alive, pids)), "workers are left")


@pytest.mark.parametrize("source", ["files", "numbers"])
def test_workers_killed_at_any_time_are_replaced_and_what_comes_out_is_exact(
    source: str,
    app: Path,
    out: Path,
    start: Callable[..., Run],
    files: Callable[..., str],
    hurry: Callable[[], None],
) -> None:
    count = 60_000
    step = count // 5
    at = files(*(range(n, n + step) for n in range(1, count, step)))
    run = start(app, at if source == "files" else f"numbers:{count}", out, workers=3, options=FAST)
    seed = random.randrange(10**6)
    chance = random.Random(seed)
    run.until_running()
    for turn, victims in enumerate(([1], [2], [1, 2]), start=1):
        time.sleep(chance.random() * 0.3)
        before = run.pids()
        run.kill_workers(*victims)
        for worker, pid in enumerate(run.pids()):
            assert (pid != before[worker]) == (worker in victims), f"seed {seed}"
        assert run.until_running()["recoveries"] >= turn
        sequences.check_prefix(out)
    hurry()
    run.succeed()
    sequences.check(out, range(1, count + 1))


def test_worker_0_and_all_at_once_may_be_killed(
    app: Path, out: Path, start: Callable[..., Run], hurry: Callable[[], None]
) -> None:
    count = 60_000
    run = start(app, f"numbers:{count}", out, workers=3, options=FAST)
    for victims in ([0], [0, 2], [0, 1, 2]):
        run.until_committed()
        before = run.pids()
        run.kill_workers(*victims)
        for worker, pid in enumerate(run.pids()):
            assert (pid != before[worker]) == (worker in victims)
        sequences.check_prefix(out)
    hurry()
    run.succeed()
    sequences.check(out, range(1, count + 1))
    assert run.err.count("is started again") == 6


@pytest.mark.parametrize(
    ("how", "source"),
    [
        ("the runner", "files"),
        ("everything", "numbers"),
        ("a stop", "files"),
        ("a stop", "numbers"),
    ],
)
def test_the_next_run_goes_on_where_the_last_one_ended(
    how: str,
    source: str,
    app: Path,
    out: Path,
    start: Callable[..., Run],
    files: Callable[..., str],
    hurry: Callable[[], None],
) -> None:
    count = 60_000
    at = files(range(1, 20_000), range(20_000, count + 1))
    args = app, at if source == "files" else f"numbers:{count}", out
    for turn in range(1 if how == "a stop" else 2):
        run = start(*args, workers=2, options=FAST)
        run.until_committed()
        pids = run.pids()
        if how == "a stop":
            run.process.terminate()
            run.succeed()
            assert run.status()["phase"] == "stopped"
        else:
            if how == "everything":
                for pid in pids:
                    os.kill(pid, signal.SIGSTOP)  # so that none sees another one die
                for pid in pids:
                    os.kill(pid, signal.SIGKILL)
            run.kill()
            gone(pids)
        assert 0 < sequences.check_prefix(out) < count
        if turn:
            run.wait()
            assert "going on from the checkpoint of epoch" in run.err or how != "a stop"
    hurry()
    run = start(*args, workers=3, options=FAST)
    run.succeed()
    assert "going on from the checkpoint of epoch" in run.err
    assert "with its 2 workers; then it is rescaled to 3" in run.err
    assert run.status()["members"] in ([0, 1], [0, 1, 2])  # its sources may end before
    sequences.check(out, range(1, count + 1))


def test_a_finished_application_does_nothing_again_and_reads_just_what_is_new(
    app: Path, out: Path, start: Callable[..., Run], files: Callable[..., str]
) -> None:
    args = app, files(range(1, 1000)), out
    start(*args, workers=2).succeed()
    before = [path.read_bytes() for path in sequences.parts(out)]
    run = start(*args, workers=2)
    run.succeed()
    assert "all sources had ended" in run.err
    assert "nothing is left to do" in run.err
    assert [path.read_bytes() for path in sequences.parts(out)] == before
    files(range(1000, 2000))
    run = start(*args, workers=2)
    run.succeed()
    assert run.status()["phase"] == "ended"
    sequences.check(out, range(1, 2000))


def test_without_checkpoints_output_appears_at_the_end_and_a_kill_begins_anew(
    app: Path, out: Path, start: Callable[..., Run], hurry: Callable[[], None]
) -> None:
    count = 40_000
    args = app, f"numbers:{count}", out
    run = start(*args, workers=2, options=["--checkpoint-interval", "0"])
    until(lambda: sum(each["written"] for each in run.until_running()["workers"]))
    assert sequences.check_prefix(out) == 0
    run.kill_workers(1)
    assert sequences.check_prefix(out) == 0
    run.kill()
    hurry()
    start(*args, workers=2, options=["--checkpoint-interval", "0"]).succeed()
    sequences.check(out, range(1, count + 1))


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


def test_with_few_entries_in_memory_counts_of_many_keys_survive_kills(
    write_app: Callable[..., Path], out: Path, start: Callable[..., Run], hurry: Callable[[], None]
) -> None:
    run = start(write_app(MANY), out, workers=2, options=[*FAST, "--state-cache", "50"])
    for victim in (1, 0):
        run.until_committed()
        run.kill_workers(victim)
    hurry()
    run.succeed()
    counts: dict[str, int] = {}
    for part in sequences.parts(out):
        for line in part.read_text().splitlines():
            key, _, count = line.partition(" ")
            counts[key] = counts.get(key, 0) + 1
            assert counts[key] == int(count)
    assert counts == {str(key): 12 for key in range(5000)}
    assert run.err.count("is started again") == 2
