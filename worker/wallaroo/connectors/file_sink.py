"""A file as a sink: what the encoder gives, byte for byte, written by background threads.

On several workers each writes a part of its own beside the path that the user named. What an epoch
gives goes to a pending file first, is durable there before the epoch is committed, and is copied
into the part afterwards, to the place that the epoch's mark names. So it can be copied again after
a crash, and nothing that is not committed ever stands in a part.
"""

import errno
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from wallaroo.api.connectors import Services, SinkConfig, SinkWriter
from wallaroo.api.steps import Encoder
from wallaroo.disk import Disk
from wallaroo.errors import Failure, InputError, WallarooParameterError

T = TypeVar("T", contravariant=True)

#: Bytes that may wait to be written.
_ROOM = 1 << 22
#: Bytes copied at a time from a pending file into a part.
_CHUNK = 1 << 20
_PENDING = ".pending"
#: What to do when the output file and the saved state don't belong together.
_ADVICE = "Put it back as it was, or run the application anew, from the beginning"


def _line(value: Any) -> str:
    return f"{value}\n"


class FileSinkConfig(SinkConfig[T]):
    r"""Writes what `encoder` gives to the file `path`; without one, each event as a line.

    >>> import wallaroo
    >>> sink = wallaroo.FileSinkConfig("counts.txt")

    On one worker the file is `path` itself. On several, worker N writes the part
    `counts.part-N.txt` beside it. A worker that joins later writes such a part, too; one that has
    left and comes back writes on where it was. A run that starts anew writes the file and its parts
    anew.

    Output stands in the file once it is committed, which is at the next checkpoint, and after a
    crash it is there exactly once. Nobody else may change what stands there as long as the
    application's state is kept. Into a pipe or a device, which has no place to write to again, each
    output goes at least once.

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

    @property
    def identity(self) -> str:
        return f"file {self.path.absolute()}"

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

    def open(self, services: Services, mark: dict[str, Any] | None = None) -> SinkWriter:
        mine = self.part(services.worker, services.workers)
        if mark is not None:
            # The number of workers may have changed since: who wrote the file itself goes on so.
            for each in (self.path, self.part(services.worker, 2)):
                if mark.get("path") == str(each.absolute()):
                    mine = each
        part = mine.absolute()
        try:
            str(part).encode()
        except UnicodeEncodeError:
            raise InputError(
                f"can't write {str(part)!r}: its name is not UTF-8; name another"
            ) from None
        if mark is not None and mark.get("path") != str(part):
            raise InputError(
                f"can't write {part}: the output so far is in {mark.get('path')}. Name the path as "
                "it was, or run the application anew, from the beginning"
            )
        place = _Place(part, services.folder, services.disk)
        try:
            left = place.pending()
        except OSError as error:
            raise InputError(
                f"can't keep output of {mine} in {services.folder}: {error.strerror}"
            ) from None
        try:
            if mark is None and services.worker == 0:
                self._remove_stale(services.workers, services.disk)
            start = place.open(mark, left)
        except OSError as error:
            raise InputError(f"can't write {mine}: {error.strerror}") from None
        return _Writer(mine, place, start, services)

    def _remove_stale(self, workers: int, disk: Disk) -> None:
        """What an earlier run with more workers, or with one, left: it is no part of this."""
        folder = self.path.absolute().parent
        current = {self.part(worker, workers).name for worker in range(workers)}
        for name in disk.names(folder):
            whole = name == self.path.name and not _is_special(folder / name)
            if name not in current and (whole or self._is_part(name)):
                disk.remove(folder / name)


def _is_special(path: Path) -> bool:
    """Whether there is something that is no regular file."""
    try:
        return not stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False


def _open_special(path: Path) -> int:
    """Open a pipe or a device. Raises `InputError` if it is a pipe that nobody reads."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise InputError(f"nobody reads the pipe {path}: start its reader first") from None
        raise
    os.set_blocking(descriptor, True)  # what writes it has a thread of its own
    return descriptor


class _Output:
    """What is written in one epoch, and where in the part it belongs."""

    def __init__(self, start: int) -> None:
        self.start = start
        self.length = 0
        #: Not yet in the pending file, and how much is there or on its way.
        self.queue: list[bytes] = []
        self.kept = 0

    @property
    def name(self) -> str:
        """Of the pending file; no other committed output has the same."""
        return f"{self.start:020}{_PENDING}"


class _Shut(Exception):
    pass


class _Gate:
    """Lets background threads through until it is shut.

    After a rollback a new writer has the same files: the old one must not touch them any more.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._is_shut = False

    def __enter__(self) -> None:
        with self._changed:
            if self._is_shut:
                raise _Shut
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._inside -= 1
            self._changed.notify_all()

    def shut(self) -> None:
        """Return when nobody is inside any more."""
        with self._changed:
            self._is_shut = True
            self._changed.wait_for(lambda: not self._inside)


class _Place:
    """A part and its pending files."""

    def __init__(self, part: Path, folder: Path, disk: Disk) -> None:
        self.part = part
        self.folder = folder
        self._disk = disk
        self._gate = _Gate()
        #: Of a part that is a pipe or a device. It stays open: whoever reads the pipe would take
        #: its closing for the end.
        self._descriptor: int | None = None

    def pending(self) -> list[str]:
        """The names of the pending files that there are."""
        self._disk.make_folder(self.folder)
        self._disk.sync_folder(self.folder.parent)
        return [name for name in self._disk.names(self.folder) if name.endswith(_PENDING)]

    def open(self, mark: dict[str, Any] | None, left: list[str]) -> int:
        """Make the part what it was at `mark`, and remove the pending files `left`.

        A mark may say that its pending file may be `lost`. Returns the part's size. Raises
        `InputError` if it can't be made so.
        """
        start = length = 0
        name = None
        if mark is not None:
            start, length, name = mark["start"], mark["length"], mark["pending"]
        end: int = start + length
        if _is_special(self.part):
            self._descriptor = _open_special(self.part)
            if name in left:
                self.publish(start, length, name)
        elif mark is None:
            self._disk.write(self.part, [])
            self._disk.sync(self.part)
            self._disk.sync_folder(self.part.parent)
        else:
            if name in left:
                self.publish(start, length, name)
            size = self._disk.size(self.part)
            if mark.get("lost"):  # with the worker's state: what there is of it is what there is
                end = max(start, min(end, size))
            self._check(size, end)
            if size > end:
                self._disk.truncate(self.part, end)
                self._disk.sync(self.part)
        for each in left:
            self._disk.remove(self.folder / each)
        return end

    def _check(self, size: int, least: int) -> None:
        if size < 0:
            raise InputError(
                f"the output file {self.part} is gone: it had {least} bytes at the last "
                f"checkpoint. {_ADVICE}"
            )
        if size < least:
            raise InputError(
                f"the output file {self.part} has {size} bytes: it was shortened since the last "
                f"checkpoint, when it had {least}, by {least - size} bytes. {_ADVICE}"
            )

    def write(self, name: str, offset: int, data: bytes) -> None:
        """Write to a pending file."""
        with self._gate:
            self._disk.write_at(self.folder / name, offset, data)

    def keep(self, name: str) -> None:
        """Make a pending file durable."""
        with self._gate:
            self._disk.sync(self.folder / name)
        with self._gate:
            self._disk.sync_folder(self.folder)

    def publish(self, start: int, length: int, name: str) -> None:
        """Copy a pending file into the part; on return it is durable there.

        Raises `InputError` if the part lacks what was published before.
        """
        if self._descriptor is None:
            with self._gate:
                self._check(self._disk.size(self.part), start)
        at = 0
        while at < length:
            with self._gate:
                data = self._disk.read(self.folder / name, at, min(_CHUNK, length - at))
            if not data:
                raise InputError(
                    f"the output of {self.part} that waits in {self.folder / name} was shortened "
                    f"from {length} to {at} bytes. {_ADVICE}"
                )
            if self._descriptor is None:
                with self._gate:
                    self._disk.write_at(self.part, start + at, data)
            else:  # not through the gate: who reads a pipe may take for ever
                view = memoryview(data)
                while view:
                    view = view[os.write(self._descriptor, view) :]
            at += len(data)
        if self._descriptor is None:
            with self._gate:
                self._disk.sync(self.part)

    def remove(self, name: str) -> None:
        """Remove a pending file."""
        with self._gate:
            self._disk.remove(self.folder / name)

    def shut(self) -> None:
        """Touch no file any more."""
        self._gate.shut()

    def close(self) -> None:
        """Close the part. Nothing may be under way."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class _Writer(SinkWriter):
    def __init__(self, path: Path, place: _Place, start: int, services: Services) -> None:
        self._path = path
        self._place = place
        self._services = services
        #: Of this epoch; of one whose checkpoint is due; of one that waits for its commit.
        self._now = _Output(start)
        self._sealed: tuple[int, _Output, Callable[[Any], None]] | None = None
        self._kept: tuple[int, _Output] | None = None
        #: Bytes not yet in a pending file.
        self._size = 0
        self._writing = False
        self._publishing: list[Callable[[], None]] = []
        self._closed = False

    def write(self, batch: list[bytes | str]) -> None:
        if not any(batch):
            return
        data = b"".join(part.encode() if isinstance(part, str) else part for part in batch)
        self._now.queue.append(data)
        self._now.length += len(data)
        self._size += len(data)
        self.has_room = self._size < _ROOM
        self._go()

    def checkpoint(self, epoch: int, done: Callable[[Any], None]) -> None:
        output = self._now
        self._now = _Output(output.start + output.length)
        if output.length:
            self._sealed = epoch, output, done
            self._go()
        else:
            done(self._mark(output))

    def _mark(self, output: _Output) -> dict[str, Any]:
        return {
            "path": str(self._place.part),
            "start": output.start,
            "length": output.length,
            "pending": output.name if output.length else None,
        }

    def commit(self, epoch: int, done: Callable[[], None]) -> None:
        if self._kept is None or self._kept[0] != epoch:
            done()
            return
        self._publishing.append(done)
        if len(self._publishing) == 1:
            _, output = self._kept
            self._services.submit(
                lambda: self._place.publish(output.start, output.length, output.name),
                lambda _: self._published(output),
                self._publish_failed,
            )

    def close(self) -> None:
        self._closed = True
        self._place.shut()
        self._now.queue.clear()
        self._sealed = self._kept = None
        if not self._publishing:
            self._place.close()

    def _go(self) -> None:
        """Do what is next, unless a write is under way."""
        if self._writing or self._closed:
            return
        if self._sealed and not self._sealed[1].queue:
            epoch, kept, done = self._sealed
            self._sealed = None
            self._services.submit(
                lambda: self._place.keep(kept.name),
                lambda _: self._is_kept(epoch, kept, done),
                self._keep_failed,
            )
        output = self._sealed[1] if self._sealed else self._now
        if self._writing or not output.queue:
            return
        data, at = b"".join(output.queue), output.kept
        output.queue.clear()
        output.kept += len(data)
        self._writing = True
        self._services.submit(
            lambda: self._place.write(output.name, at, data),
            lambda _: self._wrote(len(data)),
            self._keep_failed,
        )

    def _wrote(self, count: int) -> None:
        if self._closed:
            return
        self._writing = False
        self._size -= count
        if not self.has_room and self._size < _ROOM:
            self.has_room = True
            self._services.wake()
        self._go()

    def _is_kept(self, epoch: int, output: _Output, done: Callable[[Any], None]) -> None:
        if not self._closed:
            self._kept = epoch, output
            done(self._mark(output))

    def _published(self, output: _Output) -> None:
        if self._closed:
            self._place.close()
            return
        if self._kept and self._kept[1] is output:  # the next epoch's may be kept already
            self._kept = None
        published, self._publishing = self._publishing, []
        for done in published:
            done()
        self._services.submit(
            lambda: self._place.remove(output.name), lambda _: None, self._keep_failed
        )

    def _publish_failed(self, error: Exception) -> None:
        self._publishing.clear()
        if self._closed:
            self._place.close()
            return
        self._failed(error, f"can't write {self._path}")

    def _keep_failed(self, error: Exception) -> None:
        self._failed(error, f"can't keep output of {self._path} in {self._place.folder}")

    def _failed(self, error: Exception, what: str) -> None:
        if self._closed:
            return
        if isinstance(error, InputError):
            message = str(error)
        else:
            why = error.strerror if isinstance(error, OSError) else str(error)
            message = f"{what}: {why}. Mend that, then run the application again"
        self._services.fail(Failure(message, step=f"sink {self._path}"))
