"""A machine's disk that forgets, at a power cut, what was not synced.

It keeps what is in memory (the page cache, which outlives a killed process) apart from what is on
the disk. At a power cut each unsynced file keeps, of its writes since the last sync, none, all,
the first few with the last one torn, or any; and each folder keeps, of the names made and removed
in it, the first few.
"""

import errno
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

from tests.simulation.sim_scheduler import Scheduler


class Crash(BaseException):
    """The process that does this is gone. No Exception: nothing may catch it."""


class File:
    """What has a name on the disk."""

    def __init__(self) -> None:
        self.data = b""
        self.synced = b""
        #: Since the last sync: (offset, data), and (size, None) for a truncation.
        self.unsynced: list[tuple[int, bytes | None]] = []

    def change(self, offset: int, data: bytes | None) -> None:
        """Write `data` at `offset`, or cut the file there."""
        self.unsynced.append((offset, data))
        self.data = changed(self.data, offset, data)

    def sync(self) -> None:
        """What it holds is durable."""
        self.synced = self.data
        self.unsynced.clear()

    def cut(self, chance: random.Random) -> None:
        """Lose power."""
        kept = self.unsynced
        luck = chance.random()
        if luck < 0.35:
            kept = []
        elif luck < 0.7:
            kept = kept[: chance.randrange(len(kept) + 1)]
            if kept and (last := kept[-1])[1]:
                kept = [*kept[:-1], (last[0], last[1][: chance.randrange(len(last[1]) + 1)])]
        elif luck < 0.85:
            kept = [each for each in kept if chance.random() < 0.5]
        self.data = self.synced
        for offset, data in kept:
            self.data = changed(self.data, offset, data)
        self.sync()


class Folder:
    """Names of files and folders."""

    def __init__(self) -> None:
        self.names: dict[str, File | Folder] = {}
        self.synced: dict[str, File | Folder] = {}
        #: Since the last sync, in order: changes that happen at once.
        self.unsynced: list[list[tuple[str, File | Folder | None]]] = []

    def change(self, *names: "tuple[str, File | Folder | None]") -> None:
        """Give names to what they stand for from now on, or to nothing."""
        self.unsynced.append(list(names))
        _rename(self.names, names)

    def sync(self) -> None:
        """The names are durable."""
        self.synced = dict(self.names)
        self.unsynced.clear()

    def cut(self, chance: random.Random) -> None:
        """Lose power."""
        self.names = dict(self.synced)
        for change in self.unsynced[: chance.randrange(len(self.unsynced) + 1)]:
            _rename(self.names, change)
        self.sync()
        for _, each in sorted(self.names.items()):
            each.cut(chance)


def changed(before: bytes, offset: int, data: bytes | None) -> bytes:
    """What a file holds after a write, or a truncation."""
    if data is None:
        return before[:offset].ljust(offset, b"\0")
    return before[:offset].ljust(offset, b"\0") + data + before[offset + len(data) :]


def _rename(
    names: dict[str, File | Folder], changes: Iterable[tuple[str, File | Folder | None]]
) -> None:
    for name, file in changes:
        if file is None:
            names.pop(name, None)
        else:
            names[name] = file


class MachineDisk:
    """The disk of one machine."""

    def __init__(self) -> None:
        self.root = Folder()

    def power_cut(self, chance: random.Random) -> None:
        """Forget some of what was not synced."""
        self.root.cut(chance)

    def folder(self, path: str) -> Folder | None:
        """The folder at a path."""
        found: Folder | File | None = self.root
        for name in path.split("/")[1:]:
            if not isinstance(found, Folder):
                return None
            found = found.names.get(name)
        return found if isinstance(found, Folder) else None

    def durable(self, path: Path) -> bytes | None:
        """What is certain to be left of a file after a power cut."""
        found: Folder | File | None = self.root
        for name in str(path).split("/")[1:]:
            if not isinstance(found, Folder):
                return None
            found = found.synced.get(name)
        return found.synced if isinstance(found, File) else None

    def durable_names(self, path: Path) -> list[str]:
        """The names that are certain to be left in a folder."""
        found: Folder | File | None = self.root
        for name in str(path).split("/")[1:]:
            if not isinstance(found, Folder):
                return []
            found = found.synced.get(name)
        return sorted(found.synced) if isinstance(found, Folder) else []


class User(Protocol):
    """A process that uses a disk, and may die of it."""

    @property
    def scheduler(self) -> Scheduler: ...

    def operate(self, what: str) -> bool:
        """It is about to change the disk; False if it dies of that. Raises `Crash`."""

    def wrote(self, path: Path, offset: int, length: int) -> None:
        """It has written `length` bytes to a file."""


class ProcessDisk:
    """A machine's disk as one process sees it: every change may be its last."""

    def __init__(self, machine: MachineDisk, user: User) -> None:
        self.machine = machine
        self.user = user

    def _change(self, what: str, path: Path, change: Callable[[], None]) -> None:
        if self.user.operate(f"{what} {path.name}"):
            change()
            return
        if self.user.scheduler.chance(0.5):  # else it died before
            change()
        raise Crash

    def _folder(self, path: Path) -> Folder:
        folder = self.machine.folder(str(path))
        if folder is None:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))
        return folder

    def _file(self, path: Path) -> File:
        file = self._folder(path.parent).names.get(path.name)
        if not isinstance(file, File):
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))
        return file

    def _made(self, path: Path) -> File:
        folder = self._folder(path.parent)
        file = folder.names.get(path.name)
        if file is None:
            file = File()
            folder.change((path.name, file))
        assert isinstance(file, File)
        return file

    def names(self, folder: Path) -> list[str]:
        found = self.machine.folder(str(folder))
        return sorted(found.names) if found else []

    def make_folder(self, folder: Path) -> None:
        if self.machine.folder(str(folder)) is not None:
            return
        if folder.parent != folder:
            self.make_folder(folder.parent)

        def make() -> None:
            above = self._folder(folder.parent)
            above.change((folder.name, Folder()))
            above.sync()

        self._change("make folder", folder, make)

    def size(self, path: Path) -> int:
        folder = self.machine.folder(str(path.parent))
        file = folder.names.get(path.name) if folder else None
        return len(file.data) if isinstance(file, File) else -1

    def read(self, path: Path, offset: int = 0, length: int = -1) -> bytes:
        data = self._file(path).data[offset:]
        return data if length < 0 else data[:length]

    def write(self, path: Path, data: Iterable[bytes]) -> None:
        self._change("make", path, lambda: self._made(path).change(0, None))
        for each in [each for each in data if each]:
            at = self.size(path)
            self._write("write", path, at, each)

    def write_at(self, path: Path, offset: int, data: bytes) -> None:
        self._write("write at", path, offset, data)

    def _write(self, what: str, path: Path, offset: int, data: bytes) -> None:
        if self.user.operate(f"{what} {offset} {len(data)} {path.name}"):
            self._made(path).change(offset, data)
            self.user.wrote(path, offset, len(data))
            return
        part = self.user.scheduler.random.randrange(len(data) + 1)
        if part:
            self._made(path).change(offset, data[:part])
        raise Crash

    def truncate(self, path: Path, size: int) -> None:
        self._change("truncate", path, lambda: self._file(path).change(size, None))

    def sync(self, path: Path) -> None:
        self._change("sync", path, lambda: self._file(path).sync())

    def link(self, path: Path, name: Path) -> None:
        def link() -> None:
            folder = self._folder(name.parent)
            if name.name in folder.names:
                raise FileExistsError(errno.EEXIST, "File exists", str(name))
            folder.change((name.name, self._file(path)))

        self._change("link", name, link)

    def rename(self, path: Path, name: Path) -> None:
        assert path.parent == name.parent
        self._change(
            "rename",
            name,
            lambda: self._folder(path.parent).change(
                (name.name, self._file(path)), (path.name, None)
            ),
        )

    def remove(self, path: Path) -> None:
        folder = self.machine.folder(str(path.parent))
        if folder and path.name in folder.names:
            self._change("remove", path, lambda: folder.change((path.name, None)))

    def sync_folder(self, folder: Path) -> None:
        self._change("sync folder", folder, lambda: self._folder(folder).sync())
