"""The examples, run as their READMEs say."""

from collections.abc import Callable
from pathlib import Path

import pytest
from processes import ROOT, Run

EXAMPLES = ROOT / "examples"


@pytest.mark.parametrize("workers", [1, 3])
def test_market_spread_gives_its_expected_alerts(
    workers: int, tmp_path: Path, start: Callable[..., Run]
) -> None:
    folder = EXAMPLES / "market_spread"
    args = ["--session", folder / "session.bin", "--out-file", tmp_path / "alerts.txt"]
    start(folder / "market_spread.py", *args, workers=workers).succeed()
    found = [line for path in tmp_path.glob("alerts*") for line in path.read_text().splitlines()]
    assert sorted(found) == sorted((folder / "expected.txt").read_text().splitlines())


@pytest.mark.parametrize("workers", [1, 3])
def test_users_gives_its_expected_changes_and_members(
    workers: int, tmp_path: Path, start: Callable[..., Run]
) -> None:
    folder = EXAMPLES / "users"
    args = ["--changes", tmp_path / "changes.txt", "--members", tmp_path / "members.jsonl"]
    start(folder / "users.py", *args, workers=workers).succeed()
    changes = [line for path in tmp_path.glob("changes*") for line in path.read_text().splitlines()]
    assert sorted(changes) == (folder / "expected_changes.txt").read_text().splitlines()
    last = {}
    for path in tmp_path.glob("members*"):
        for line in path.read_text().splitlines():
            last[line.partition(",")[0]] = line
    assert sorted(last.values()) == (folder / "expected_members.jsonl").read_text().splitlines()
