"""Files, as the parts that must survive a crash use them.

One operation is one thing that can happen before a crash or not. Writing is not yet keeping: what
a file holds is durable after `sync`, and that it has its name after `sync_folder`. Tests hand in a
disk that forgets the rest when it crashes.
"""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol


class Disk(Protocol):
    """All paths are absolute. Every method raises OSError."""

    def names(self, folder: Path) -> list[str]:
        """What is in a folder, sorted; nothing if there is no such folder."""

    def make_folder(self, folder: Path) -> None:
        """Make a folder, and those above it, durably; fine if it exists."""

    def size(self, path: Path) -> int:
        """Bytes of a file; -1 if there is none."""

    def read(self, path: Path, offset: int = 0, length: int = -1) -> bytes:
        """What a file holds from `offset` on, at most `length` bytes unless that is -1."""

    def write(self, path: Path, data: Iterable[bytes]) -> None:
        """Make or empty a file, and write `data`."""

    def write_at(self, path: Path, offset: int, data: bytes) -> None:
        """Write `data` at `offset` of a file, which is made if there is none."""

    def truncate(self, path: Path, size: int) -> None:
        """Cut a file to `size` bytes."""

    def sync(self, path: Path) -> None:
        """Return when what the file holds is durable."""

    def link(self, path: Path, name: Path) -> None:
        """Give a file a second name. Raises FileExistsError if there is one of that name."""

    def rename(self, path: Path, name: Path) -> None:
        """Give a file another name; one that has the name already is replaced."""

    def remove(self, path: Path) -> None:
        """Remove a file; fine if there is none."""

    def sync_folder(self, folder: Path) -> None:
        """Return when names made, changed and removed in a folder are durable."""


def write_durably(disk: Disk, path: Path, data: Iterable[bytes]) -> None:
    """Write a file; on return it is durable, and its name too."""
    disk.write(path, data)
    disk.sync(path)
    disk.sync_folder(path.parent)


def create_durably(disk: Disk, path: Path, data: bytes) -> None:
    """Make a file that appears whole and durable, or not at all.

    Raises FileExistsError if there is one: it is never overwritten.
    """
    draft = path.with_name(f".{path.name}.draft")
    disk.remove(draft)  # if a process was killed below, it is a second name of the file
    disk.write(draft, [data])
    disk.sync(draft)
    try:
        disk.link(draft, path)
    finally:
        disk.remove(draft)
    disk.sync_folder(path.parent)


def replace_durably(disk: Disk, path: Path, data: bytes) -> None:
    """Write a file; at every moment there is the old one or the new one."""
    draft = path.with_name(f".{path.name}.draft")
    disk.write(draft, [data])
    disk.sync(draft)
    disk.rename(draft, path)
    disk.sync_folder(path.parent)


class RealDisk:
    """The disk of this machine."""

    def __init__(self) -> None:
        #: Folders whose names are known to be durable.
        self._made: set[Path] = set()

    def names(self, folder: Path) -> list[str]:
        try:
            return sorted(entry.name for entry in folder.iterdir())
        except FileNotFoundError:
            return []

    def make_folder(self, folder: Path) -> None:
        if folder in self._made:
            return
        if folder.is_dir():
            # Who made it may have been killed before this; if it is not ours to see, it is old.
            with contextlib.suppress(PermissionError):
                self.sync_folder(folder.parent)
        else:
            if not folder.parent.is_dir():
                self.make_folder(folder.parent)
            folder.mkdir(mode=0o700, exist_ok=True)
            self.sync_folder(folder.parent)
        self._made.add(folder)

    def size(self, path: Path) -> int:
        try:
            return path.stat().st_size
        except FileNotFoundError:
            return -1

    def read(self, path: Path, offset: int = 0, length: int = -1) -> bytes:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(length)

    def write(self, path: Path, data: Iterable[bytes]) -> None:
        with path.open("wb") as file:
            file.writelines(data)

    def write_at(self, path: Path, offset: int, data: bytes) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            view = memoryview(data)
            while view:
                done = os.pwrite(descriptor, view, offset)
                view, offset = view[done:], offset + done
        finally:
            os.close(descriptor)

    def truncate(self, path: Path, size: int) -> None:
        os.truncate(path, size)

    def sync(self, path: Path) -> None:
        _sync(path, os.O_RDONLY)

    def link(self, path: Path, name: Path) -> None:
        os.link(path, name)

    def rename(self, path: Path, name: Path) -> None:
        path.replace(name)

    def remove(self, path: Path) -> None:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()

    def sync_folder(self, folder: Path) -> None:
        _sync(folder, os.O_RDONLY | os.O_DIRECTORY)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
