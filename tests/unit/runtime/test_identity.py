"""A directory's identity. Ruling 5 of docs/protocol.md: directories have identity."""

from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.connectors.forgetful import Crashed, ForgetfulDisk

from wallaroo.disk import RealDisk
from wallaroo.errors import InputError
from wallaroo.runtime.identity import Identity, identify, keep

FOLDER = Path("/app/worker-3")


def identity(folder: Path, new_id: str = "new") -> Identity:
    return identify(RealDisk(), folder, "app", 3, new_id)


def test_a_directory_that_is_not_there_is_made_and_gets_one(tmp_path: Path) -> None:
    folder = tmp_path / "app" / "worker-3"
    assert identity(folder) == Identity("app", 3, "new")
    assert folder.is_dir()


def test_it_is_kept_whatever_a_later_start_would_give(tmp_path: Path) -> None:
    identity(tmp_path, "first")
    assert identity(tmp_path, "second").id == "first"


def test_that_it_has_been_a_members_is_kept(tmp_path: Path) -> None:
    keep(RealDisk(), tmp_path, replace(identity(tmp_path), admitted=True))
    assert identity(tmp_path, "other") == Identity("app", 3, "new", admitted=True)


@pytest.mark.parametrize(("application", "worker"), [("app", 4), ("other", 3)])
def test_anothers_directory_is_refused_and_both_are_named(
    application: str, worker: int, tmp_path: Path
) -> None:
    identity(tmp_path)
    words = f"belongs to worker 3 of 'app', not to worker {worker} of '{application}'"
    with pytest.raises(InputError, match=words):
        identify(RealDisk(), tmp_path, application, worker, "new")


@pytest.mark.parametrize("name", ["deltas", "base", "manifests"])
def test_a_directory_with_state_and_without_identity_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(InputError, match="is not empty, and does not say whose it is"):
        identity(tmp_path)


def test_the_lock_and_a_draft_may_be_there_before(tmp_path: Path) -> None:
    """Ruling 4: the lock is taken before anything is read."""
    (tmp_path / "lock").touch()
    (tmp_path / ".identity.json.draft").write_text('{"appl')
    assert identity(tmp_path).id == "new"


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"id": "x"}', '{"other": 1}', "\xff"])
def test_a_damaged_one_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "identity.json").write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match=r"identity\.json is damaged"):
        identity(tmp_path)


@pytest.mark.parametrize("seed", range(8))
def test_a_crash_at_any_operation_leaves_the_old_one_or_the_new_one(seed: int) -> None:
    for crash_at in range(1, 6):
        disk = ForgetfulDisk(seed)
        before = identify(disk, FOLDER, "app", 3, "first")
        disk.crash_at = disk.operations + crash_at
        after = replace(before, admitted=True)
        kept = True
        try:
            keep(disk, FOLDER, after)
        except Crashed:
            kept = False
        disk.crash()
        disk.crash_at = -1
        found = identify(disk, FOLDER, "app", 3, "second")
        assert found in ([after] if kept else [before, after])


@pytest.mark.parametrize("seed", range(8))
def test_a_crash_while_it_is_made_leaves_one_that_is_kept_from_then_on(seed: int) -> None:
    for crash_at in range(1, 6):
        disk = ForgetfulDisk(seed)
        disk.crash_at = crash_at
        made = ""
        try:
            made = identify(disk, FOLDER, "app", 3, "first").id
        except Crashed:
            pass
        disk.crash()
        disk.crash_at = -1
        found = identify(disk, FOLDER, "app", 3, "second").id
        assert found == "first" if made else found in {"first", "second"}
        disk.crash()
        assert identify(disk, FOLDER, "app", 3, "third").id == found
