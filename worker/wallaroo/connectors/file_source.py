"""Files as a source: one partition a file, each read by the worker that owns it.

A background thread reads ahead by one chunk, so that a slow disk does not stall the dataflow.
Files of one worker are read one after the other, so few are open at a time.
"""

import glob
import gzip
import os
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


class FileSourceConfig(SourceConfig[T]):
    """The lines of the files that match `path` (a glob), as str without their line end.

    >>> import wallaroo
    >>> book = wallaroo.source("book", wallaroo.FileSourceConfig("book", "chapters/*.txt.gz"))

    Files that end in `.gz` are decompressed. With a `decoder` a file is a sequence of frames, as
    a TCP source reads them. Every worker must be able to read every file. A file is read from its
    first byte to the last that it has then; when all are read the source has ended.

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
        if decoder is not None and not isinstance(decoder, Decoder):
            raise WallarooParameterError(
                f"FileSourceConfig '{name}': decoder must be decorated with @wallaroo.decoder, "
                f"not {decoder!r}"
            )
        self.decoder = decoder

    def partitions(self) -> list[str]:
        paths = sorted(glob.glob(self.path, recursive=True))
        if Path(self.path).exists():  # whatever its name looks like
            paths = [self.path]
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

    def open(self, partition: str, services: Services) -> SourceReader:
        cut = _Frames(self.decoder) if self.decoder else _Lines()
        return _Reader(self.name, partition, cut, self.decoder, services)


class _Lines:
    """Lines of a chunk; what is after the last line end waits for the next."""

    what = "line"

    def __init__(self) -> None:
        self._rest = b""

    def cut(self, chunk: bytes) -> list[Any]:
        end = chunk.rfind(b"\n") + 1
        if not end:
            self._rest += chunk
            return []
        whole = self._rest + chunk[:end]
        self._rest = chunk[end:]
        return self._decode(whole)

    def _decode(self, whole: bytes) -> list[Any]:
        # Not str.splitlines(): it takes form feeds and others for line ends, too.
        lines = whole.decode("utf-8").split("\n")
        if not lines[-1]:
            lines.pop()
        return [line[:-1] if line[-1:] == "\r" else line for line in lines]

    def end(self) -> list[Any]:
        return self._decode(self._rest) if self._rest else []

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
    ) -> None:
        self.decoder = decoder
        self._source = source
        self._path = path
        self._cut = cut
        self._services = services
        self._file: BinaryIO | None = None
        self._events: list[Any] = []
        self._at = 0
        self._position = 0
        self._reading = False
        self._read_all = False

    def read(self, limit: int) -> list[Any]:
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

    def _next(self) -> bytes:
        """In the background: open the file if it is not open yet, and read the next chunk."""
        if self._file is None:
            opening = gzip.open if self._path.endswith(".gz") else open
            self._file = cast("BinaryIO", opening(self._path, "rb"))
        return self._file.read(_CHUNK)

    def _took(self, chunk: bytes) -> None:
        self._reading = False
        if self.ended:
            self.stop()
            return
        try:
            self._events = self._cut.cut(chunk) if chunk else self._cut.end()
            if self._cut.waiting > _LONGEST:
                raise ValueError(f"a {self._cut.what} is longer than {_LONGEST} bytes")
        except ValueError as error:
            self._failed(error)
            return
        self._position += len(chunk)
        self._at = 0
        if not chunk:
            self._read_all = True
            assert self._file is not None
            self._file.close()
        self._services.wake()

    def _failed(self, error: Exception) -> None:
        if self._file:
            self._file.close()
        why = str(error)
        if isinstance(error, UnicodeDecodeError):
            why = f"it is not UTF-8: byte {error.object[error.start]:#x} ({error.reason})"
        elif isinstance(error, OSError):
            why = error.strerror or why
        elif isinstance(error, EOFError | zlib.error):
            why = f"it is damaged: {error}"
        self._services.fail(
            Failure(
                f"source '{self._source}': can't read {self._path} after byte {self._position}: "
                f"{why}",
                step=f"source '{self._source}'",
            )
        )
