"""Files as a source: one partition a file, each read by the worker that owns it.

A background thread reads ahead by one chunk, so that a slow disk does not stall the dataflow.
Files of one worker are read one after the other, so few are open at a time. Where to go on after a
crash is the byte behind the last line or frame handed on, counted after decompression.
"""

import glob
import gzip
import io
import os
import stat
import zlib
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast, overload

from wallaroo.api.connectors import Services, SourceConfig, SourceReader
from wallaroo.api.steps import Decoder
from wallaroo.errors import Failure, InputError, WallarooParameterError

T = TypeVar("T")

#: Bytes read at a time.
_CHUNK = 1 << 18
#: The longest line or frame, in bytes.
_LONGEST = 1 << 24
#: Bytes of a compressed file that are read and dropped at a time, on the way to a position.
_SKIP = 1 << 22


class FileSourceConfig(SourceConfig[T]):
    """The lines of the files that match `path` (a glob), as str without their line end.

    >>> import wallaroo
    >>> book = wallaroo.source("book", wallaroo.FileSourceConfig("book", "chapters/*.txt.gz"))

    Files that end in `.gz` are decompressed. With a `decoder` a file is a sequence of frames, as
    a TCP source reads them. Every worker must be able to read every file. A file is read from its
    first byte to the last that it has then; when all are read the source has ended.

    After a crash every line is counted exactly once: a file is read again from where the last
    checkpoint was, so what has been read of it must not change until the application has ended.
    A pipe can't be read again: what was read since the last checkpoint is lost.

    Raises `WallarooParameterError` if `path` is no path or `decoder` no decoder.
    """

    @overload
    def __init__(
        self: "FileSourceConfig[str]", name: str, path: str | os.PathLike[str]
    ) -> None: ...

    @overload
    def __init__(self, name: str, path: str | os.PathLike[str], decoder: Decoder[T]) -> None: ...

    def __init__(
        self, name: str, path: str | os.PathLike[str], decoder: Decoder[T] | None = None
    ) -> None:
        self.name = name
        try:
            self.path = os.fspath(path)
        except TypeError:
            raise WallarooParameterError(
                f"FileSourceConfig '{name}': {path!r} is not a path"
            ) from None
        if not self.path:
            raise WallarooParameterError(f"FileSourceConfig '{name}': '' names no file")
        if decoder is not None and not isinstance(decoder, Decoder):
            raise WallarooParameterError(
                f"FileSourceConfig '{name}': decoder must be decorated with @wallaroo.decoder, "
                f"not {decoder!r}"
            )
        self.decoder = decoder

    def partitions(self) -> list[str]:
        paths = sorted(glob.glob(self.path, recursive=True))
        try:
            if Path(self.path).exists():  # whatever its name looks like
                paths = [self.path]
        except OSError as error:
            raise InputError(
                f"source '{self.name}': can't read {self.path}: {error.strerror}"
            ) from None
        paths = [path for path in paths if not os.path.isdir(path)]
        if not paths:
            if os.path.isdir(self.path):
                raise InputError(f"source '{self.name}': {self.path} is a folder")
            raise InputError(f"source '{self.name}': no file matches {self.path}")
        for path in paths:
            try:
                path.encode()
            except UnicodeEncodeError:
                raise InputError(
                    f"source '{self.name}': the name of {path!r} is not UTF-8; rename the file"
                ) from None
            if not os.access(path, os.R_OK):  # not open(): a pipe would wait for its writer
                why = "Permission denied" if Path(path).exists() else "it links to nothing"
                raise InputError(f"source '{self.name}': can't read {path}: {why}")
        return paths

    def open(self, partition: str, services: Services, position: Any = None) -> SourceReader:
        cut = _Frames(self.decoder) if self.decoder else _Lines()
        start = 0
        if position is not None:
            start = position.get("bytes", -1) if isinstance(position, dict) else -1
            if not isinstance(start, int) or start < 0:
                raise InputError(
                    f"source '{self.name}': the saved state is of another kind of source, and "
                    f"says nothing about where to go on in {partition}"
                )
        return _Reader(self.name, partition, cut, self.decoder, services, start)


class _Lines:
    """Lines of a chunk; what is after the last line end waits for the next."""

    what = "line"

    def __init__(self) -> None:
        self._rest = b""
        self._whole = b""

    def cut(self, chunk: bytes) -> list[Any]:
        end = chunk.rfind(b"\n") + 1
        if not end:
            self._rest += chunk
            self._whole = b""
            return []
        self._whole = self._rest + chunk[:end]
        self._rest = chunk[end:]
        return self._decode()

    def _decode(self) -> list[Any]:
        # Not str.splitlines(): it takes form feeds and others for line ends, too.
        lines = self._whole.decode("utf-8").split("\n")
        if not lines[-1]:
            lines.pop()
        return [line[:-1] if line[-1:] == "\r" else line for line in lines]

    def end(self) -> list[Any]:
        self._whole, self._rest = self._rest, b""
        return self._decode()

    def size(self, lines: list[Any], count: int) -> int:
        """Bytes of the first `count` of the lines that were cut last."""
        if count == len(lines):  # the last may lack its end
            return len(self._whole)
        # Not their own lengths: those don't tell how they ended.
        return len(self._whole) - len(self._whole.split(b"\n", count)[-1])

    @property
    def waiting(self) -> int:
        return len(self._rest)


class _Frames:
    """Payloads of the frames of a chunk."""

    what = "frame"

    def __init__(self, decoder: Decoder[Any]) -> None:
        self._header = decoder.header
        self._rest = b""

    def cut(self, chunk: bytes) -> list[Any]:
        data = self._rest + chunk
        header = self._header
        frames = []
        at = 0
        while at + header.size <= len(data):
            (length,) = header.unpack_from(data, at)
            if length < 0 or length > _LONGEST:
                raise ValueError(f"a frame's header says {length} bytes; at most {_LONGEST} may be")
            if at + header.size + length > len(data):
                break
            frames.append(data[at + header.size : at + header.size + length])
            at += header.size + length
        self._rest = data[at:]
        return frames

    def end(self) -> list[Any]:
        if self._rest:
            raise ValueError(
                f"the file ends inside a frame, {len(self._rest)} bytes after its start"
            )
        return []

    def size(self, frames: list[Any], count: int) -> int:
        """Bytes of the first `count` of the frames that were cut last, with their headers."""
        return sum(map(len, frames[:count])) + count * self._header.size

    @property
    def waiting(self) -> int:
        return len(self._rest)


class _Reader(SourceReader):
    def __init__(
        self,
        source: str,
        path: str,
        cut: _Lines | _Frames,
        decoder: Decoder[Any] | None,
        services: Services,
        start: int,
    ) -> None:
        self.decoder = decoder
        self._source = source
        self._path = path
        self._cut = cut
        self._services = services
        self.lasting = Path(path).exists() and not Path(path).is_file()
        self.finite = not self.lasting
        self._file: BinaryIO | None = None
        self._events: list[Any] = []
        self._at = 0
        #: Where the first of these events begins, and how far the file is read.
        self._begin = start
        self._read_to = start
        #: Bytes of a compressed file that are still to be dropped.
        self._skip = 0
        self._again = True
        self._reading = False
        self._read_all = False

    def read(self, limit: int) -> list[Any]:
        if self.ended:
            return []
        events = self._events[self._at : self._at + limit]
        self._at += len(events)
        if self._at >= len(self._events) and not self._reading:
            if self._read_all:
                self.ended = True
            else:
                self._reading = True
                self._services.submit(self._next, self._took, self._failed)
        return events

    def stop(self) -> None:
        self.ended = True
        if self._file and not self._reading:
            self._file.close()

    def close(self) -> None:
        self.stop()

    def position(self) -> Any:
        if not self._again:
            return None
        return {"bytes": self._begin + self._cut.size(self._events, self._at)}

    def _next(self) -> bytes | None:
        """In the background: the next chunk; None on the way to where to go on."""
        if self._file is None:
            self._open()
        assert self._file is not None
        if not self._skip:
            return self._file.read(_CHUNK)
        dropped = len(self._file.read(min(self._skip, _SKIP)))
        if not dropped:
            raise _too_short(self._read_to - self._skip)
        self._skip -= dropped
        return None

    def _open(self) -> None:
        packed = self._path.endswith(".gz")
        # Unbuffered: of a pipe what there is, is read, and not waited for more.
        opened = gzip.GzipFile(self._path, "rb") if packed else io.FileIO(self._path)
        self._file = cast("BinaryIO", opened)
        status = os.fstat(self._file.fileno())
        self._again = stat.S_ISREG(status.st_mode)
        if not self._read_to:
            return
        if not self._again:
            raise ValueError("it is no file any more, and can't be read from there")
        if packed:
            self._skip = self._read_to
            return
        if status.st_size < self._read_to:
            raise _too_short(status.st_size)
        self._file.seek(self._read_to)

    def _took(self, chunk: bytes | None) -> None:
        self._reading = False
        if self.ended:
            self.stop()
            return
        if chunk is None:
            self._services.wake()
            return
        try:
            self._begin += self._cut.size(self._events, len(self._events))
            self._events = self._cut.cut(chunk) if chunk else self._cut.end()
            if self._cut.waiting > _LONGEST:
                raise ValueError(f"a {self._cut.what} is longer than {_LONGEST} bytes")
        except ValueError as error:
            self._failed(error)
            return
        self._read_to += len(chunk)
        self._at = 0
        if not chunk:
            self._read_all = True
            assert self._file is not None
            self._file.close()
        self._services.wake()

    def _failed(self, error: Exception) -> None:
        if self._file:
            self._file.close()
        if self.ended:
            return
        why = str(error)
        if isinstance(error, UnicodeDecodeError):
            why = f"it is not UTF-8: byte {error.object[error.start]:#x} ({error.reason})"
        elif isinstance(error, OSError):
            why = error.strerror or why
        elif isinstance(error, EOFError | zlib.error):
            why = f"it is damaged: {error}"
        self._services.fail(
            Failure(
                f"source '{self._source}': can't read {self._path} after byte {self._read_to}: "
                f"{why}",
                step=f"source '{self._source}'",
            )
        )


def _too_short(size: int) -> ValueError:
    return ValueError(
        f"it has only {size} bytes now, so it was truncated or replaced since the checkpoint; put "
        "it back as it was, or run the application anew, from the beginning"
    )
