"""What is durable when: the order of operations, and what a crash between any two leaves."""

import inspect
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from tests.unit.connectors.forgetful import Crashed, ForgetfulDisk

from wallaroo.disk import Disk, RealDisk, create_durably, replace_durably, write_durably

FILE = Path("/folder/file")
DRAFT = Path("/folder/.file.draft")
OLD, NEW = b"what there was", b"what there is now, and longer"


class Recorded:
    """A disk that says what was done to it, in order."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self.done: list[tuple[str, ...]] = []

    def __getattr__(self, name: str) -> Any:
        function = getattr(self._disk, name)

        def call(*args: Any) -> Any:
            self.done.append((name, *(arg.name for arg in args if isinstance(arg, Path))))
            return function(*args)

        return call


def write(disk: Disk, path: Path, data: bytes) -> None:
    write_durably(disk, path, [data])


HELPERS: list[Callable[[Disk, Path, bytes], None]] = [write, create_durably, replace_durably]


def operations(helper: Callable[[Disk, Path, bytes], None]) -> list[tuple[str, ...]]:
    disk = Recorded(ForgetfulDisk(0))
    helper(disk, FILE, NEW)
    return disk.done


class TestTheOrder:
    def test_a_file_is_synced_before_its_folder(self) -> None:
        assert operations(write) == [
            ("write", "file"),
            ("sync", "file"),
            ("sync_folder", "folder"),
        ]

    def test_a_file_that_must_be_new_gets_its_name_when_what_it_holds_is_durable(self) -> None:
        """Ruling 3 of docs/protocol.md: write, fsync, rename, fsync of the directory."""
        assert operations(create_durably) == [
            ("remove", ".file.draft"),
            ("write", ".file.draft"),
            ("sync", ".file.draft"),
            ("link", ".file.draft", "file"),
            ("remove", ".file.draft"),
            ("sync_folder", "folder"),
        ]

    def test_a_file_is_replaced_when_what_the_new_one_holds_is_durable(self) -> None:
        assert operations(replace_durably) == [
            ("write", ".file.draft"),
            ("sync", ".file.draft"),
            ("rename", ".file.draft", "file"),
            ("sync_folder", "folder"),
        ]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("helper", HELPERS, ids=lambda helper: str(helper.__name__))
def test_what_has_been_done_survives_any_crash(
    helper: Callable[[Disk, Path, bytes], None], seed: int
) -> None:
    disk = ForgetfulDisk(seed)
    helper(disk, FILE, NEW)
    disk.crash()
    assert disk.contents(FILE) == NEW


@pytest.mark.parametrize("seed", range(20))
def test_a_crash_leaves_a_new_file_whole_or_not_at_all(seed: int) -> None:
    for crash_at in range(1, 7):
        disk = ForgetfulDisk(seed)
        disk.crash_at = crash_at
        with pytest.raises(Crashed):
            create_durably(disk, FILE, NEW)
        disk.crash()
        assert disk.contents(FILE) in (None, NEW)
        disk.crash_at = -1
        if disk.contents(FILE) is None:  # whatever is left of the draft is in nobody's way
            create_durably(disk, FILE, OLD)
            disk.crash()
            assert disk.contents(FILE) == OLD


@pytest.mark.parametrize("seed", range(20))
def test_a_crash_leaves_the_old_file_or_the_one_that_replaces_it(seed: int) -> None:
    for crash_at in range(1, 5):
        disk = ForgetfulDisk(seed)
        replace_durably(disk, FILE, OLD)
        disk.crash_at = disk.operations + crash_at
        with pytest.raises(Crashed):
            replace_durably(disk, FILE, NEW)
        disk.crash()
        assert disk.contents(FILE) in (OLD, NEW)


@pytest.mark.parametrize("crash_at", range(1, 7))
def test_a_file_is_not_written_through_what_a_killed_process_left_of_its_draft(
    crash_at: int,
) -> None:
    """Killed between the two, draft and file are two names of one file."""
    disk = ForgetfulDisk(0)
    disk.crash_at = crash_at
    with pytest.raises(Crashed):
        create_durably(disk, FILE, OLD)
    disk.crash_at = -1
    if disk.contents(FILE) is None:
        create_durably(disk, FILE, NEW)
        assert disk.contents(FILE) == NEW
    else:
        with pytest.raises(FileExistsError):
            create_durably(disk, FILE, NEW)
        assert disk.contents(FILE) == OLD


def test_a_file_that_is_there_is_not_created_again(tmp_path: Path) -> None:
    for disk, path in ((RealDisk(), tmp_path / "file"), (ForgetfulDisk(0), FILE)):
        create_durably(disk, path, OLD)
        with pytest.raises(FileExistsError):
            create_durably(disk, path, NEW)
        assert disk.read(path) == OLD
        assert disk.names(path.parent) == ["file"], "a draft is left"


class TestTheRealDisk:
    @pytest.fixture
    def disk(self) -> RealDisk:
        return RealDisk()

    def test_reads_what_was_written_from_any_place(self, disk: RealDisk, tmp_path: Path) -> None:
        path = tmp_path / "file"
        disk.write(path, [b"ab", b"", b"cdef"])
        assert disk.read(path) == b"abcdef"
        assert disk.read(path, 2) == b"cdef"
        assert disk.read(path, 2, 3) == b"cde"
        assert disk.read(path, 9, 3) == b""
        assert disk.size(path) == 6

    def test_empties_a_file_that_is_written_again(self, disk: RealDisk, tmp_path: Path) -> None:
        disk.write(tmp_path / "file", [b"long before"])
        disk.write(tmp_path / "file", [b"now"])
        assert disk.read(tmp_path / "file") == b"now"

    def test_writes_at_a_place_and_makes_the_file(self, disk: RealDisk, tmp_path: Path) -> None:
        path = tmp_path / "file"
        disk.write_at(path, 3, b"def")
        disk.write_at(path, 0, b"abc")
        assert disk.read(path) == b"abcdef"

    def test_truncates(self, disk: RealDisk, tmp_path: Path) -> None:
        disk.write(tmp_path / "file", [b"abcdef"])
        disk.truncate(tmp_path / "file", 2)
        assert disk.read(tmp_path / "file") == b"ab"

    def test_knows_what_is_not_there(self, disk: RealDisk, tmp_path: Path) -> None:
        assert disk.size(tmp_path / "none") == -1
        assert disk.names(tmp_path / "none") == []
        disk.remove(tmp_path / "none")
        with pytest.raises(FileNotFoundError):
            disk.read(tmp_path / "none")

    def test_makes_folders_and_those_above_and_only_for_their_owner(
        self, disk: RealDisk, tmp_path: Path
    ) -> None:
        disk.make_folder(tmp_path / "a" / "b")
        disk.make_folder(tmp_path / "a" / "b")
        assert disk.names(tmp_path / "a") == ["b"]
        assert (tmp_path / "a").stat().st_mode & 0o777 == 0o700

    def test_syncs_the_folder_above_each_folder_that_it_makes(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        synced: list[str] = []
        monkeypatch.setattr(
            RealDisk, "sync_folder", lambda self, folder: synced.append(folder.name)
        )
        RealDisk().make_folder(tmp_path / "a" / "b")
        assert synced == [tmp_path.name, "a"]

    def test_gives_a_second_name_and_renames(self, disk: RealDisk, tmp_path: Path) -> None:
        disk.write(tmp_path / "file", [OLD])
        disk.link(tmp_path / "file", tmp_path / "second")
        disk.rename(tmp_path / "second", tmp_path / "third")
        disk.sync(tmp_path / "third")
        disk.sync_folder(tmp_path)
        assert disk.names(tmp_path) == ["file", "third"]
        assert disk.read(tmp_path / "third") == OLD

    def test_says_when_a_disk_does_not_sync(
        self, disk: RealDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(descriptor: int) -> None:
            raise OSError(5, "Input/output error")

        disk.write(tmp_path / "file", [OLD])
        monkeypatch.setattr("os.fsync", fail)
        with pytest.raises(OSError, match="Input/output error"):
            disk.sync(tmp_path / "file")


@pytest.mark.parametrize("disk", [RealDisk, ForgetfulDisk], ids=lambda disk: str(disk.__name__))
def test_disks_are_used_in_the_same_way(disk: type) -> None:
    for name, function in inspect.getmembers(Disk, inspect.isfunction):
        if not name.startswith("_"):
            expected = list(inspect.signature(function).parameters)
            assert list(inspect.signature(getattr(disk, name)).parameters) == expected, name


def chunks() -> Iterable[bytes]:
    yield b"from "
    yield b"a generator"


def test_what_is_written_may_be_made_on_the_way(tmp_path: Path) -> None:
    write_durably(RealDisk(), tmp_path / "file", chunks())
    assert (tmp_path / "file").read_bytes() == b"from a generator"
