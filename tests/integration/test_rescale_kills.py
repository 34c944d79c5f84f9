"""Workers that die or hang in each phase of a rescale: it comes about all the same, exactly."""

import json
import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import sequences
from processes import Run, alive, cli, until

FAST = ["--checkpoint-interval", "50ms"]
HANG = [*FAST, "--heartbeat-timeout", "1s"]

#: Seconds of the random test.
RANDOM = 15.0


@pytest.fixture
def app(write_app: Callable[..., Path]) -> Path:
    return write_app(sequences.APP)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.txt"


@pytest.fixture
def fail_at(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., list[Path]]:
    """Has workers get a signal at (point, worker) each; returns what is there once they have."""

    def plan(*faults: tuple[str, int], how: str = "SIGKILL") -> list[Path]:
        found: list[dict[str, Any]] = []
        for index, (point, worker) in enumerate(faults):
            marker = str(tmp_path / f"fault-{index}")
            fault = {"point": point, "worker": worker, "nth": 1, "signal": how, "marker": marker}
            found.append(fault)
        monkeypatch.setenv("FAULTS", json.dumps(found))
        return [Path(each["marker"]) for each in found]

    return plan


def finish(run: Run, out: Path) -> None:
    """Let the endless source end; then all that it gave must be there."""
    sequences.enough(out)
    run.succeed()
    sequences.check_endless(out)


def rescale(run: Run, markers: list[Path], workers: int) -> None:
    """To so many workers, in spite of the faults that are planned for it."""
    run.ask_for(workers)
    for marker in markers:
        until(marker.exists, f"{marker.name} has not come about")
    run.until_members(workers)


#: By role: the points in each phase. Workers are 0 and 1, then 0 to 2: 2 joins, and leaves again.
JOINS = {
    "the joiner": [
        ("before it gets ready", 2),
        ("before it takes a parcel", 2),
        ("before the copy is reported", 2),
        ("before the switch is reported", 2),
        ("before it has switched", 2),
        ("before it is settled", 2),
    ],
    "a donor": [
        ("before it is enlisted", 1),
        ("in the middle of the copy", 1),
        ("after the switch is injected", 1),
        ("before its last words to a receiver", 1),
        ("after it has switched", 1),
        ("after it is settled", 1),
    ],
    "the coordinator": [
        ("before the rescale begins", 0),
        ("before it donates", 0),
        ("before the last epoch before the switch", 0),
        ("before the switch is injected", 0),
        ("before the switch is durable", 0),
        ("before the switch is told", 0),
    ],
}
LEAVES = {
    "the leaver": [
        ("before it is enlisted", 2),
        ("in the middle of the copy", 2),
        ("before its last words to a receiver", 2),
        ("before the switch is reported", 2),
        ("before it has switched", 2),
        ("before it ends", 2),
    ],
    "a receiver": [
        ("before it takes a parcel", 1),
        ("before the copy is reported", 1),
        ("before the switch is reported", 1),
        ("after it has switched", 1),
        ("before it is settled", 1),
        ("after it is settled", 1),
    ],
    "the coordinator": [
        ("before it is enlisted", 0),
        ("before the last epoch before the switch", 0),
        ("after the switch is injected", 0),
        ("before the switch is durable", 0),
        ("before the switch is told", 0),
        ("after it has switched", 0),
    ],
}


def pairs(
    roles: dict[str, list[tuple[str, int]]],
) -> list[Any]:
    """Two faults each, of which the second meets the attempt after the first."""
    return [
        pytest.param(points[index : index + 2], id=f"{role}: {points[index][0]}")
        for role, points in roles.items()
        for index in range(0, len(points), 2)
    ]


@pytest.mark.parametrize("faults", pairs(JOINS))
def test_whoever_is_killed_while_a_worker_joins_it_joins_and_all_is_exact(
    faults: list[tuple[str, int]],
    app: Path,
    out: Path,
    fail_at: Callable[..., list[Path]],
    start: Callable[..., Run],
) -> None:
    """Rulings 21, 22 and 24."""
    markers = fail_at(*faults)
    run = start(app, "endless:5000", out, workers=2, options=FAST)
    run.until_committed(1)
    rescale(run, markers[:1], 3)
    if not markers[1].exists():  # the first let the rescale commit
        rescale(run, [], 2)
        rescale(run, markers, 3)
    finish(run, out)


@pytest.mark.parametrize("faults", pairs(LEAVES))
def test_whoever_is_killed_while_a_worker_leaves_it_leaves_and_all_is_exact(
    faults: list[tuple[str, int]],
    app: Path,
    out: Path,
    fail_at: Callable[..., list[Path]],
    start: Callable[..., Run],
) -> None:
    """Rulings 21, 22, 24 and 29."""
    markers = fail_at(*faults)
    run = start(app, "endless:5000", out, workers=3, options=FAST)
    run.until_committed(1)
    rescale(run, markers[:1], 2)
    if not markers[1].exists():
        rescale(run, [], 3)
        rescale(run, markers, 2)
    until(lambda: not (run.dir / "workers" / "2").exists())
    finish(run, out)


@pytest.mark.parametrize(
    "faults",
    [
        [("before it is enlisted", 2), ("before it takes a parcel", 2)],
        [("before the copy is reported", 2), ("before the switch is reported", 2)],
        [("after it has switched", 2), ("before it is settled", 2)],
    ],
    ids=lambda faults: faults[0][0],
)
def test_a_receiver_that_hangs_is_replaced_and_the_rescale_comes_about(
    faults: list[tuple[str, int]],
    app: Path,
    out: Path,
    fail_at: Callable[..., list[Path]],
    start: Callable[..., Run],
) -> None:
    """Rulings 1, 19 and 24."""
    markers = fail_at(*faults, how="SIGSTOP")
    run = start(app, "endless:5000", out, workers=2, options=HANG)
    run.until_committed(1)
    rescale(run, markers[:1], 3)
    if not markers[1].exists():
        rescale(run, [], 2)
        rescale(run, markers, 3)
    finish(run, out)
    assert "worker 2 has not answered for 1 s: it is killed" in run.err


@pytest.mark.parametrize(
    ("what", "before", "after", "fault"),
    [
        ("the runner", 2, 3, ("before it is enlisted", 2)),
        ("everything", 3, 2, ("in the middle of the copy", 2)),
        ("everything", 2, 3, ("before the copy is reported", 2)),
        ("the runner", 2, 3, ("before the switch is reported", 2)),
        ("everything", 3, 2, ("before the switch is durable", 0)),
        ("everything", 3, 2, ("before it has switched", 2)),
        ("everything", 2, 3, ("before it is settled", 2)),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else str(value),
)
def test_the_next_run_goes_on_from_a_rescale_in_which_all_was_killed(
    what: str,
    before: int,
    after: int,
    fault: tuple[str, int],
    app: Path,
    out: Path,
    fail_at: Callable[..., list[Path]],
    start: Callable[..., Run],
) -> None:
    """Rulings 21, 22 and 25: there is no third case."""
    markers = fail_at(fault, how="SIGSTOP")
    run = start(app, "endless:5000", out, workers=before, options=FAST)
    run.until_committed(1)
    run.ask_for(after)
    until(markers[0].exists)
    if what == "everything":
        run.kill_everything()
    else:
        pids = run.children()
        run.kill()
        until(lambda: not any(map(alive, pids)), "workers are left")
    run = start(app, "endless:5000", out, workers=None, options=FAST)
    members = run.until_running()["members"]
    assert members in (list(range(before)), list(range(after)))
    rescale(run, [], before if len(members) == after else after)
    finish(run, out)


def test_scale_returns_though_the_coordinator_dies_as_soon_as_the_rescale_is_committed(
    app: Path, out: Path, fail_at: Callable[..., list[Path]], start: Callable[..., Run]
) -> None:
    """The record of a rescale is as durable as its commit."""
    fail_at(("before the switch is told", 0))
    run = start(app, "endless:5000", out, workers=2, options=FAST)
    run.until_committed(1)
    done = cli("scale", "1", "--dir", str(run.dir))
    assert done.returncode == 0, done.stderr
    assert [(each["from"], each["to"]) for each in run.until_members(1)["rescales"]] == [(2, 1)]
    finish(run, out)


@pytest.mark.parametrize("seed", [1])
def test_rescales_and_kills_at_random_times(
    seed: int, app: Path, out: Path, start: Callable[..., Run]
) -> None:
    chance = random.Random(seed)
    run = start(app, "endless:5000", out, workers=2, options=FAST)
    run.until_committed(1)
    until_then = time.monotonic() + RANDOM
    done: list[object] = []
    while time.monotonic() < until_then:
        workers = chance.randint(1, 4)
        done.append(workers)
        run.ask_for(workers)
        for _ in range(chance.choice((0, 1, 1, 2))):
            time.sleep(chance.random() ** 2 * 2)
            pids = [worker["pid"] for worker in run.status().get("workers", [])]
            if pids:
                done.append(f"kill {pids.index(victim := chance.choice(pids))}")
                with suppress(ProcessLookupError):
                    os.kill(victim, signal.SIGKILL)
        if chance.random() < 0.6:
            run.until_members(workers)
    assert run.process.poll() is None, f"{done} {run.wait()} {run.err}"
    workers = 3
    run.ask_for(workers)
    run.until_members(workers)
    try:
        finish(run, out)
    except AssertionError as error:
        raise AssertionError(f"seed {seed}, after {done}: {error}") from None
