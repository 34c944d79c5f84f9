"""Workers that are killed at each point of the protocol where it makes a difference."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sequences
from processes import Run, until

#: Numbers of a run; enough for many epochs.
LAST = 40_000
FAST = ["--checkpoint-interval", "50ms"]

#: What makes the others recover, so that a second fault can hit them there.
FIRST = ("before the delta is reported", 1, 2)


@pytest.fixture
def kill_at(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., Callable[[], list[str]]]:
    """Has workers killed at (point, worker, nth) each; returns what tells which were not."""

    def plan(*faults: tuple[str, int | None, int]) -> Callable[[], list[str]]:
        found: list[dict[str, Any]] = []
        for index, (point, worker, nth) in enumerate(faults):
            marker = str(tmp_path / f"fault-{index}")
            found.append({"point": point, "nth": nth, "marker": marker})
            if worker is not None:
                found[-1]["worker"] = worker
        monkeypatch.setenv("FAULTS", json.dumps(found))
        return lambda: [each["point"] for each in found if not Path(each["marker"]).exists()]

    return plan


@pytest.mark.parametrize(
    "faults",
    [
        [
            ("before the barrier", 0, 2),
            ("after the barrier", 1, 2),
            ("before the delta is written", 1, 1),
        ],
        [("before the delta is synced", 0, 2), ("before the delta is reported", 1, 2)],
        [
            ("before the manifest has its name", 0, 2),
            ("before the manifest's name is durable", 0, 2),
            ("before the commit is told", 0, 2),
        ],
        [
            ("before the publication", 1, 2),
            ("in the middle of the publication", 1, 2),
            ("before the part is synced", 0, 3),
        ],
        [
            ("before the publication is reported", 1, 1),
            ("before the pending file is removed", 0, 2),
        ],
        [("before the base is written", 0, 1), ("before the merged deltas are removed", 1, 1)],
        [
            FIRST,
            ("before the state is rolled back", 0, 1),
            ("after the state is rolled back", 0, 1),
            ("before it says that it is ready", 1, 1),
        ],
        [
            FIRST,
            ("before the recovery is told", 0, 1),
            ("in the middle of the publication", 0, 1),
            ("before it says that it is ready", 1, 1),
        ],
    ],
    ids=lambda faults: ", ".join(f"{point} ({worker})" for point, worker, _ in faults),
)
def test_workers_may_be_killed(
    faults: list[tuple[str, int, int]],
    kill_at: Callable[..., Callable[[], list[str]]],
    write_app: Callable[..., Path],
    start: Callable[..., Run],
    tmp_path: Path,
) -> None:
    missed = kill_at(*faults)
    args = f"numbers:{LAST}", tmp_path / "out.txt"
    run = start(write_app(sequences.APP), *args, workers=2, options=FAST)
    until(lambda: not missed() or run.process.poll() is not None)
    (tmp_path / "hurry").touch()
    run.succeed()
    assert not missed(), "these workers were killed"
    sequences.check(tmp_path / "out.txt", range(1, LAST + 1))


@pytest.mark.parametrize(
    "fault",
    [
        ("before the last barrier", 0, 1),
        ("after the last barrier", 1, 1),
        ("before the commit is told", 0, 1),
        ("in the middle of the publication", 1, 1),
        ("before it ends", 1, 1),
        ("before it ends", 0, 1),
    ],
    ids=lambda fault: f"{fault[0]} ({fault[1]})",
)
def test_a_worker_may_be_killed_in_the_last_epoch_of_a_stop(
    fault: tuple[str, int | None, int],
    kill_at: Callable[..., Callable[[], list[str]]],
    write_app: Callable[..., Path],
    start: Callable[..., Run],
    tmp_path: Path,
) -> None:
    missed = kill_at(fault)
    app = write_app(sequences.APP)
    args = f"numbers:{LAST}", tmp_path / "out.txt"
    run = start(app, *args, workers=2, options=["--checkpoint-interval", "0"])
    until(lambda: sum(each["written"] for each in run.until_running()["workers"]))
    run.process.terminate()
    run.succeed()
    assert not missed(), "a worker was killed"
    assert run.status()["phase"] == "stopped"
    stopped_at = sequences.check_prefix(tmp_path / "out.txt")
    assert stopped_at < LAST
    (tmp_path / "hurry").touch()
    start(app, *args, workers=2, options=FAST).succeed()
    sequences.check(tmp_path / "out.txt", range(1, LAST + 1))
