"""A disk that forgets, when it crashes, some of what was not synced."""

import random
from collections.abc import Iterable
from pathlib import Path


class Crashed(BaseException):
    """The machine is gone. No Exception: nothing may catch it."""


class _File:
    def __init__(self) -> None:
        self.data = b""
        self.durable = b""


class ForgetfulDisk:
    """Holds files in memory; every operation that changes something may be the last."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._names: dict[Path, _File] = {}
        self._durable: dict[Path, _File] = {}
        self.operations = 0
        #: The operation at which it crashes, before it is done.
        self.crash_at = -1

    def _operate(self) -> None:
        self.operations += 1
        if self.operations == self.crash_at:
            raise Crashed

    def crash(self) -> None:
        """Keep what is durable, and of the rest anything that a kernel may have written."""
        names = dict(self._durable)
        for path in {*self._names, *self._durable}:
            if self._random.random() < 0.5:
                names.pop(path, None)
                if path in self._names:
                    names[path] = self._names[path]
        for file in {*names.values()}:
            file.data = file.durable = self._mix(file)
        self._names = names
        self._durable = dict(names)

    def _mix(self, file: _File) -> bytes:
        if file.data == file.durable or self._random.random() < 0.3:
            return file.durable
        size = self._random.choice((len(file.data), len(file.durable)))
        sources = (file.data, file.durable, b"")
        pages = (self._random.choice(sources)[at : at + 2] for at in range(0, size, 2))
        mixed = b"".join(page.ljust(2, b"\0") for page in pages)[:size]
        same = 0  # what is durable and was not written again stays
        for new, old in zip(file.data, file.durable, strict=False):
            if new != old:
                break
            same += 1
        return (file.durable[:same] + mixed[same:])[:size]

    def contents(self, path: Path) -> bytes | None:
        """What anybody sees of a file now."""
        return self._names[path].data if path in self._names else None

    def _file(self, path: Path) -> _File:
        if path not in self._names:
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return self._names[path]

    def names(self, folder: Path) -> list[str]:
        return sorted(path.name for path in self._names if path.parent == folder)

    def make_folder(self, folder: Path) -> None:
        pass

    def size(self, path: Path) -> int:
        return len(self._names[path].data) if path in self._names else -1

    def read(self, path: Path, offset: int = 0, length: int = -1) -> bytes:
        data = self._file(path).data[offset:]
        return data if length < 0 else data[:length]

    def write(self, path: Path, data: Iterable[bytes]) -> None:
        self._operate()
        self._names.setdefault(path, _File()).data = b"".join(data)

    def write_at(self, path: Path, offset: int, data: bytes) -> None:
        self._operate()
        file = self._names.setdefault(path, _File())
        before = file.data[:offset].ljust(offset, b"\0")
        file.data = before + data + file.data[offset + len(data) :]

    def truncate(self, path: Path, size: int) -> None:
        self._operate()
        file = self._file(path)
        file.data = file.data[:size].ljust(size, b"\0")

    def sync(self, path: Path) -> None:
        self._operate()
        file = self._file(path)
        file.durable = file.data

    def link(self, path: Path, name: Path) -> None:
        self._operate()
        if name in self._names:
            raise FileExistsError(17, "File exists", str(name))
        self._names[name] = self._file(path)

    def rename(self, path: Path, name: Path) -> None:
        self._operate()
        self._names[name] = self._file(path)
        del self._names[path]

    def remove(self, path: Path) -> None:
        self._operate()
        self._names.pop(path, None)

    def sync_folder(self, folder: Path) -> None:
        self._operate()
        for path in {*self._names, *self._durable}:
            if path.parent == folder:
                self._durable.pop(path, None)
                if path in self._names:
                    self._durable[path] = self._names[path]
