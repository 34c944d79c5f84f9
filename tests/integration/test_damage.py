"""State that is damaged, lost or another's is refused in words, and never silently believed."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import sequences
from processes import Run, until

COUNT = 40_000


@dataclass
class Saved:
    """What a run has left in `folder`, and a copy of it."""

    folder: Path
    copy: Path
    app: Path

    @property
    def workers(self) -> Path:
        return self.folder / "dir" / "workers"

    def restore(self) -> None:
        shutil.rmtree(self.folder)
        shutil.copytree(self.copy, self.folder)

    def run(self) -> Run:
        args = [f"numbers:{COUNT}", str(self.folder / "out.txt")]
        return Run(self.folder, self.app, args, 2, ["--checkpoint-interval", "50ms"])


@pytest.fixture(scope="module")
def run_once(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """Deltas and a base on each worker, after a stop."""
    top = tmp_path_factory.mktemp("damage")
    saved = Saved(top / "run", top / "copy", top / "run" / "app.py")
    saved.folder.mkdir()
    saved.app.write_text("import wallaroo\n" + sequences.APP)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        run = saved.run()
        pattern = "dir/workers/?/base/*.sst"
        until(lambda: len(list(saved.folder.glob(pattern))) >= 2)
        epoch = run.until_running()["epoch"]
        until(lambda: run.until_running()["epoch"] > epoch + 2)
        run.process.terminate()
        run.succeed()
    (saved.folder / "hurry").touch()
    shutil.copytree(saved.folder, saved.copy)
    return saved


@pytest.fixture
def saved(run_once: Saved) -> Saved:
    run_once.restore()
    return run_once


def last(folder: Path, pattern: str) -> Path:
    return max(folder.glob(pattern))


def flip(path: Path) -> None:
    """One bit, in the middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def refused(saved: Saved, *words: str) -> None:
    """The run ends with one message, which has these words."""
    run = saved.run()
    try:
        code = run.wait()
    finally:
        run.kill()
    assert code in {1, 2}, run.err
    messages = [line for line in run.err.splitlines() if line.startswith("Error: ")]
    assert len(messages) == 1, run.err
    for word in words:
        assert word in messages[0]
    assert "Traceback" not in run.err


def refused_or_exact(saved: Saved, *words: str) -> None:
    """Where damage does no harm, or was not met, what comes out is right."""
    run = saved.run()
    try:
        code = run.wait()
    finally:
        run.kill()
    if code == 0:
        sequences.check(saved.folder / "out.txt", range(1, COUNT + 1))
        return
    messages = [line for line in run.err.splitlines() if line.startswith("Error: ")]
    assert len(messages) == 1, run.err
    for word in words:
        assert word in messages[0]
    assert "Traceback" not in run.err


def test_what_was_saved_is_good(saved: Saved) -> None:
    run = saved.run()
    run.succeed()
    sequences.check(saved.folder / "out.txt", range(1, COUNT + 1))


@pytest.mark.parametrize("damage", [flip, shorten, Path.unlink])
def test_a_damaged_delta_is_refused(damage: Callable[[Path], None], saved: Saved) -> None:
    path = last(saved.workers / "1", "deltas/delta-*")
    damage(path)
    refused(saved, str(path))


@pytest.mark.parametrize("damage", [flip, shorten, Path.unlink])
@pytest.mark.parametrize("name", ["*.sst", "MANIFEST-*", "CURRENT"])
def test_a_damaged_base_is_refused(name: str, damage: Callable[[Path], None], saved: Saved) -> None:
    damage(last(saved.workers / "1", f"base/{name}"))
    refused_or_exact(saved, str(saved.workers / "1"))


@pytest.mark.parametrize("damage", [flip, shorten])
def test_a_damaged_manifest_is_refused(damage: Callable[[Path], None], saved: Saved) -> None:
    path = last(saved.workers / "0", "manifests/*.json")
    damage(path)
    refused(saved, str(path), "put back an intact copy")


def test_without_the_last_manifest_the_one_before_rules_or_is_refused(saved: Saved) -> None:
    last(saved.workers / "0", "manifests/*.json").unlink()
    refused_or_exact(saved, str(saved.workers))


def test_without_manifests_state_is_refused(saved: Saved) -> None:
    shutil.rmtree(saved.workers / "0" / "manifests")
    refused(saved, "worker 0's directory is lost")


@pytest.mark.parametrize("damage", [flip, shorten, Path.unlink])
def test_a_damaged_identity_is_refused(damage: Callable[[Path], None], saved: Saved) -> None:
    damage(saved.workers / "1" / "identity.json")
    refused(saved, "worker 1's directory" if damage is flip else str(saved.workers / "1"))


def test_a_lost_directory_is_refused(saved: Saved) -> None:
    shutil.rmtree(saved.workers / "1")
    refused(saved, "worker 1's directory is not the one that the checkpoint", "put")


def test_the_lost_directory_of_worker_0_is_refused(saved: Saved) -> None:
    shutil.rmtree(saved.workers / "0")
    refused(saved, "worker 0's directory is lost")


def test_directories_that_were_swapped_are_refused(saved: Saved) -> None:
    (saved.workers / "0").rename(saved.workers / "2")
    (saved.workers / "1").rename(saved.workers / "0")
    (saved.workers / "2").rename(saved.workers / "1")
    refused(saved, str(saved.workers), "belongs to worker")


def test_an_older_copy_of_a_directory_is_refused(saved: Saved) -> None:
    mine = saved.workers / "1"
    old = saved.folder / "old"
    mine.rename(old)
    shutil.copytree(old, mine)
    saved.run().succeed()  # it goes on without the copy
    shutil.rmtree(mine)
    old.rename(mine)
    refused(saved, str(mine))


def test_output_that_was_shortened_is_refused(saved: Saved) -> None:
    part = saved.folder / "out.part-1.txt"
    shorten(part)
    refused(saved, str(part), "shortened")
