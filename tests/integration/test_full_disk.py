"""A disk that is full ends the run in words; with room again the same command finishes exactly."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sequences
from processes import Run

COUNT = 40_000
FAST = ["--checkpoint-interval", "50ms"]

#: Much state: a long text per number.
APP = """
class Text:
    text = ""

@wallaroo.key_extractor
def key(line):
    return line

@wallaroo.state_computation(name="keep", state=Text)
def keep(line, state):
    state.text += line * 40
    return f"{line} {len(state.text)}"

def application_setup(args):
    lines = wallaroo.source("lines", wallaroo.FileSourceConfig("lines", args[1]))
    pipeline = lines.key_by(key).to(keep).to_sink(wallaroo.FileSinkConfig(args[2]))
    return wallaroo.build_application("keeping", pipeline)
"""


class SmallDisk:
    """A file system in memory, at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        self._mount("mount", "-t", "tmpfs", "-o", "size=200m", "none", str(path))

    def shrink(self, size: str) -> None:
        self._mount("mount", "-o", f"remount,size={size}", str(self.path))

    def grow(self) -> None:
        self._mount("mount", "-o", "remount,size=200m", str(self.path))

    def close(self) -> None:
        self._mount("umount", "--lazy", str(self.path))

    def _mount(self, *command: str) -> None:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
        if done.returncode:
            pytest.skip(f"can't mount here: {done.stderr.strip()}")


@pytest.fixture
def small(tmp_path: Path) -> Iterator[SmallDisk]:
    disk = SmallDisk(tmp_path / "small")
    yield disk
    disk.close()


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / "lines"
    path.write_text("".join(f"{number:05}\n" for number in range(COUNT)))
    return path


@pytest.mark.parametrize("size", ["4k", "8k", "48k", "600k"])
def test_a_full_disk_of_state_ends_the_run_in_words_and_with_room_it_goes_on(
    size: str,
    small: SmallDisk,
    lines: Path,
    write_app: Callable[..., Path],
    start: Callable[..., Run],
    tmp_path: Path,
) -> None:
    small.shrink(size)
    (tmp_path / "dir").symlink_to(small.path / "dir")
    (small.path / "dir").mkdir()
    args = write_app(APP), lines, tmp_path / "out.txt"
    run = start(*args, workers=2, options=FAST)
    full(run, tmp_path / "dir")
    small.grow()
    run = start(*args, workers=2, options=FAST)
    run.succeed()
    check(tmp_path / "out.txt", 1)


def test_a_full_disk_of_output_ends_the_run_in_words_and_with_room_it_goes_on(
    small: SmallDisk,
    lines: Path,
    write_app: Callable[..., Path],
    start: Callable[..., Run],
) -> None:
    small.shrink("600k")
    lines.write_text(lines.read_text() * 3)
    out = small.path / "out.txt"
    args = write_app(APP), lines, out
    run = start(*args, workers=2, options=FAST)
    full(run, small.path)
    before = [path.read_bytes() for path in sequences.parts(out)]
    small.grow()
    run = start(*args, workers=2, options=FAST)
    run.succeed()
    check(out, 3)
    for path, old in zip(sequences.parts(out), before, strict=True):
        assert path.read_bytes().startswith(old), "what had been published stays"


def full(run: Run, folder: Path) -> None:
    """The run says, once, that there is no room in `folder`."""
    assert run.wait() in {1, 2}
    messages = [line for line in run.err.splitlines() if line.startswith("Error: ")]
    assert len(messages) == 1, run.err
    assert str(folder) in messages[0]
    assert "No space left on device" in messages[0]
    assert "Traceback" not in run.err


def check(out: Path, times: int) -> None:
    """Each line has come out so many times, with its state as it then was."""
    found = [line for part in sequences.parts(out) for line in part.read_text().splitlines()]
    expected = [f"{n:05} {200 * (time + 1)}" for n in range(COUNT) for time in range(times)]
    assert sorted(found) == expected
