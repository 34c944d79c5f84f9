"""A file as a sink: what the encoder gives, byte for byte, written by a background thread.

On several workers each writes a part of its own beside the path that the user named.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from wallaroo.api.connectors import Services, SinkConfig, SinkWriter
from wallaroo.api.steps import Encoder
from wallaroo.errors import Failure, InputError, WallarooParameterError

T = TypeVar("T", contravariant=True)

#: Bytes that may wait to be written.
_ROOM = 1 << 22


def _line(value: Any) -> str:
    return f"{value}\n"


class FileSinkConfig(SinkConfig[T]):
    r"""Writes what `encoder` gives to the file `path`; without one, each event as a line.

    >>> import wallaroo
    >>> sink = wallaroo.FileSinkConfig("counts.txt")

    On one worker the file is `path` itself. On several, worker N writes the part
    `counts.part-N.txt` beside it. A run that starts anew writes the file and its parts anew.

    Raises `WallarooParameterError` if `path` is no path or `encoder` no encoder.
    """

    def __init__(self, path: str | os.PathLike[str], encoder: Encoder[T] | None = None) -> None:
        try:
            self.path = Path(path)
        except TypeError:
            raise WallarooParameterError(f"FileSinkConfig: {path!r} is not a path") from None
        if not self.path.name:
            raise WallarooParameterError(f"FileSinkConfig: {path!r} names no file")
        if encoder is not None and not isinstance(encoder, Encoder):
            raise WallarooParameterError(
                f"FileSinkConfig {self.path}: encoder must be decorated with @wallaroo.encoder, "
                f"not {encoder!r}"
            )
        self.encoder = encoder if encoder is not None else Encoder("line", _line)

    def part(self, worker: int, workers: int) -> Path:
        """The file that `worker` of `workers` writes.

        >>> import wallaroo
        >>> wallaroo.FileSinkConfig("counts.txt").part(1, 3)
        PosixPath('counts.part-1.txt')
        """
        if workers == 1:
            return self.path
        return self.path.with_name(f"{self.path.stem}.part-{worker}{self.path.suffix}")

    def writes(self, path: Path) -> bool:
        """Whether `path` is the sink's file or a part of it, of any number of workers.

        >>> import wallaroo
        >>> wallaroo.FileSinkConfig("counts.txt").writes(Path("counts.part-7.txt"))
        True
        """
        mine = self.path.resolve()
        path = path.resolve()
        return path.parent == mine.parent and (path.name == mine.name or self._is_part(path.name))

    def _is_part(self, name: str) -> bool:
        """Whether a file of that name is a part of this sink, of any number of workers."""
        start, end = f"{self.path.stem}.part-", self.path.suffix
        number = name.removeprefix(start).removesuffix(end)
        return number.isdecimal() and name == f"{start}{number}{end}"

    def open(self, services: Services) -> SinkWriter:
        mine = self.part(services.worker, services.workers)
        try:
            if services.worker == 0:
                self._remove_stale(services.workers)
            file = mine.open("wb", buffering=0)
        except OSError as error:
            raise InputError(f"can't write {mine}: {error.strerror}") from None
        return _Writer(mine, file, services)

    def _remove_stale(self, workers: int) -> None:
        """What an earlier run with more workers, or with one, left: it is no part of this."""
        current = {self.part(worker, workers) for worker in range(workers)}
        for path in self.path.parent.iterdir():
            if self._is_part(path.name) and path not in current:
                path.unlink()
        if self.path not in current and self.path.is_file():
            self.path.unlink()


class _Writer(SinkWriter):
    def __init__(self, path: Path, file: Any, services: Services) -> None:
        self._path = path
        self._file = file
        self._services = services
        self._pending: list[bytes] = []
        self._size = 0
        self._writing = 0
        self._finished: Callable[[], None] | None = None

    def write(self, batch: list[bytes | str]) -> None:
        if not any(batch):
            return
        data = b"".join(part.encode() if isinstance(part, str) else part for part in batch)
        self._pending.append(data)
        self._size += len(data)
        self.has_room = self._size + self._writing < _ROOM
        self._go()

    def finish(self, finished: Callable[[], None]) -> None:
        self._finished = finished
        self._go()

    def abort(self) -> None:
        self._file.close()

    def _go(self) -> None:
        """Write what is pending, unless that is under way."""
        if self._writing:
            return
        if self._size:
            data = b"".join(self._pending)
            self._pending.clear()
            self._writing, self._size = self._size, 0
            self._services.submit(lambda: self._write(data), self._wrote, self._failed)
        elif self._finished:
            finished, self._finished = self._finished, None
            self._services.submit(self._close, lambda _: finished(), self._failed)

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]

    def _close(self) -> None:
        if self._path.is_file():  # not a pipe or a device
            os.fsync(self._file.fileno())
        self._file.close()

    def _wrote(self, _: None) -> None:
        self._writing = 0
        self.has_room = self._size < _ROOM
        self._services.wake()
        self._go()

    def _failed(self, error: Exception) -> None:
        why = error.strerror if isinstance(error, OSError) else str(error)
        self._services.fail(Failure(f"can't write {self._path}: {why}", step=f"sink {self._path}"))
