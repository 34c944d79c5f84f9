"""Functions that raise: the application stops at its last checkpoint, or sets the events aside."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import sequences
from processes import Run, cli, until

COUNT = 30_000
FAST = ["--checkpoint-interval", "50ms"]
RAISING = sequences.APP.replace(
    "    state.count += 1\n    state.last",
    "    if {condition}:\n        raise ValueError('unlucky')\n"
    "    state.count += 1\n    state.last",
)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.txt"


def test_after_an_error_is_mended_the_application_goes_on_from_its_last_checkpoint(
    write_app: Callable[..., Path], start: Callable[..., Run], out: Path, tmp_path: Path
) -> None:
    app = write_app(RAISING.replace("{condition}", "number == 5_000"))
    args = app, f"numbers:{COUNT}", out
    run = start(*args, workers=2, options=FAST)
    assert run.wait() == 1
    assert "state computation 'window' raised ValueError: unlucky" in run.err
    shown = cli("status", "--dir", str(run.dir)).stdout
    for words in ("step: state computation 'window'", "key: 'key 20'", "event: 5000"):
        assert words in shown
    assert "raise ValueError('unlucky')" in shown
    before = [part.read_bytes() for part in sequences.parts(out)]
    committed = sequences.check_prefix(out)
    assert 0 < committed < 5_000

    run = start(*args, workers=2, options=FAST)  # not mended
    assert run.wait() == 1
    assert "raised ValueError: unlucky" in run.err
    assert committed <= sequences.check_prefix(out) < 5_000

    write_app(sequences.APP)
    (tmp_path / "hurry").touch()
    run = start(*args, workers=2, options=FAST)
    run.succeed()
    assert "going on from the checkpoint of epoch" in run.err
    assert run.status()["error"] is None
    sequences.check(out, range(1, COUNT + 1))
    for part, old in zip(sequences.parts(out), before, strict=True):
        assert part.read_bytes().startswith(old)


def test_dead_letters_are_set_aside_once_though_a_worker_is_killed(
    write_app: Callable[..., Path], start: Callable[..., Run], out: Path, tmp_path: Path
) -> None:
    app = write_app(RAISING.replace("{condition}", "not number % 100"))
    letters = tmp_path / "letters.jsonl"
    options = [*FAST, "--on-error", "dead-letter", letters]
    run = start(app, f"numbers:{COUNT}", out, workers=2, options=options)
    for victim in (1, 0):
        until(lambda: sum(each["dead_letters"] for each in run.until_running()["workers"]) > 20)
        run.until_committed()
        run.kill_workers(victim)
    (tmp_path / "hurry").touch()
    run.succeed()
    sequences.check(out, (number for number in range(1, COUNT + 1) if number % 100))
    written = [line for part in sequences.parts(letters) for line in part.read_text().splitlines()]
    events = Counter(int(json.loads(line)["event"]) for line in written)
    assert events == Counter(range(100, COUNT + 1, 100)), "each once"
    first = json.loads(written[0])
    assert first["step"] == "state computation 'window'"
    assert "ValueError: unlucky" in first["traceback"]
    counted = [each["dead_letters"] for each in run.status()["workers"]]
    assert sum(counted) == COUNT // 100


COPY = """
@wallaroo.computation(name="check")
def check(line):
    if line.startswith("bad"):
        raise ValueError(line)
    return line

def application_setup(args):
    lines = wallaroo.source("lines", wallaroo.FileSourceConfig("lines", args[1]))
    sinks = [wallaroo.FileSinkConfig(path) for path in args[2:]]
    return wallaroo.build_application("copy", lines.to(check).to_sinks(sinks))
"""


def test_dead_letters_are_kept_while_they_are_turned_off(
    write_app: Callable[..., Path], start: Callable[..., Run], out: Path, tmp_path: Path
) -> None:
    app, letters = write_app(COPY), tmp_path / "letters.jsonl"
    aside = ["--on-error", "dead-letter", letters]
    for name, options in (("bad 1", aside), ("good", []), ("bad 2", aside)):
        (tmp_path / f"{name}.in").write_text(f"{name}\n")
        start(app, tmp_path / "*.in", out, options=options).succeed()
    events = [json.loads(line)["event"] for line in letters.read_text().splitlines()]
    assert events == ["'bad 1'", "'bad 2'"]
    assert out.read_text() == "good\n"


def test_sinks_may_change_places_but_none_may_go(
    write_app: Callable[..., Path], start: Callable[..., Run], out: Path, tmp_path: Path
) -> None:
    app, other = write_app(COPY), tmp_path / "other.txt"
    for number, sinks in enumerate(([out, other], [other, out])):
        (tmp_path / f"{number}.in").write_text(f"{number}\n")
        start(app, tmp_path / "*.in", *sinks).succeed()
    assert out.read_text() == other.read_text() == "0\n1\n"
    run = start(app, tmp_path / "*.in", out)
    assert run.wait() == 1
    assert f"holds output of the sink file {other} #1" in run.err
    assert other.read_text() == "0\n1\n"
