"""The entries touched in one epoch, as a file: all that a checkpoint writes in the stream's time.

A file is written whole, then synced, and never changed; a mark says what it must hold, so that
any truncation or flipped bit is found before an entry is believed.
"""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from xxhash import xxh3_64, xxh3_64_intdigest

from wallaroo.disk import Disk, write_durably
from wallaroo.protocol.manifest import DeltaMark
from wallaroo.state.entries import Block, StateDamaged

_VERSION = 1
#: Magic, version, epoch, generation, keys.
_HEADER = struct.Struct(">8sHQQQ")
_MAGIC = b"wallDELT"
#: Place, kind, count, length.
_BLOCK = struct.Struct(">HBIQ")
#: Magic, number of blocks; then the checksum of all before it.
_TRAILER = struct.Struct(">8sQ")
_END = b"wallDEND"
_CHECKSUM = struct.Struct(">Q")

#: Bytes that are handed to the disk at once, about. Each write gives the interpreter lock away and
#: waits for it; to join all would keep it for milliseconds.
_PIECE = 256 << 10

_ADVICE = (
    "the state can't be trusted; restore this worker's directory from a copy, or start the "
    "application anew from an empty one"
)


def is_delta(name: str) -> bool:
    """Whether a file's name is that of a delta."""
    return name.startswith("delta-")


class Delta:
    """A delta to be written; shares nothing with the store, so another thread may write it."""

    def __init__(
        self,
        disk: Disk,
        folder: Path,
        epoch: int,
        generation: int,
        keys: int,
        blocks: Iterable[Block],
    ) -> None:
        self.epoch = epoch
        self.generation = generation
        self.keys = keys
        self._disk = disk
        self._folder = folder
        self._blocks = list(blocks)

    def write(self) -> DeltaMark:
        """Write the file; on return it is durable. Raises OSError."""
        pieces = list(self._pieces())
        checksum = xxh3_64()
        for piece in pieces:
            checksum.update(piece)
        pieces.append(_CHECKSUM.pack(checksum.intdigest()))
        mark = DeltaMark(self.epoch, self.generation, checksum.intdigest(), sum(map(len, pieces)))
        write_durably(self._disk, self._folder / mark.name, pieces)
        return mark

    def _pieces(self) -> Iterator[bytes]:
        """All but the checksum."""
        chunks = [_HEADER.pack(_MAGIC, _VERSION, self.epoch, self.generation, self.keys)]
        size = 0
        for block in self._blocks:
            head = _BLOCK.pack(block.place, block.kind, block.entries, len(block.payload))
            chunks += (head, block.payload)
            size += len(block.payload)
            if size >= _PIECE:
                yield b"".join(chunks)
                chunks.clear()
                size = 0
        chunks.append(_TRAILER.pack(_END, len(self._blocks)))
        yield b"".join(chunks)


@dataclass(frozen=True)
class Content:
    """What a delta holds. keys: entries ever made on this worker, up to the epoch's end."""

    keys: int
    blocks: list[Block]


def read_delta(disk: Disk, folder: Path, mark: DeltaMark) -> Content:
    """What a delta file holds. Raises `StateDamaged` unless that is what `mark` says; OSError."""
    path = folder / mark.name
    if disk.size(path) < 0:
        raise StateDamaged(
            f"{path} is missing, which holds the state touched in epoch {mark.epoch}: {_ADVICE}"
        )
    data = disk.read(path)
    wrong = _wrong(data, mark)
    if wrong:
        raise StateDamaged(
            f"{path}, which holds the state touched in epoch {mark.epoch}, is damaged: {wrong}. "
            f"Either the disk is failing or something else wrote to it: {_ADVICE}"
        )
    *_, keys = _HEADER.unpack_from(data)
    try:
        blocks = list(_blocks(data))
    except (struct.error, ValueError) as error:
        raise StateDamaged(f"{path} is no delta file: {error}: {_ADVICE}") from error
    return Content(keys, blocks)


def _wrong(data: bytes, mark: DeltaMark) -> str:
    """Why `data` is not what `mark` says; empty if it is."""
    if len(data) != mark.size:
        return f"it has {len(data)} bytes instead of {mark.size}"
    if len(data) < _HEADER.size + _TRAILER.size + _CHECKSUM.size:
        return "it is too short"
    checksum = xxh3_64_intdigest(memoryview(data)[: -_CHECKSUM.size])
    (written,) = _CHECKSUM.unpack_from(data, len(data) - _CHECKSUM.size)
    if checksum != written:
        return f"its checksum is {checksum:016x}, not {written:016x} as written in it"
    if checksum != mark.checksum:
        return f"its checksum is {checksum:016x}, not {mark.checksum:016x} as committed"
    magic, version, epoch, generation, _ = _HEADER.unpack_from(data)
    if (magic, version) != (_MAGIC, _VERSION):
        return f"it is of format {magic!r} {version}, not {_MAGIC!r} {_VERSION}"
    if (epoch, generation) != (mark.epoch, mark.generation):
        return f"it is of epoch {epoch} and generation {generation}"
    return ""


def _blocks(data: bytes) -> Iterator[Block]:
    end = len(data) - _TRAILER.size - _CHECKSUM.size
    at = _HEADER.size
    count = 0
    while at < end:
        place, kind, entries, length = _BLOCK.unpack_from(data, at)
        at += _BLOCK.size
        if length > end - at:
            raise ValueError(f"a block of {length} bytes at {at} reaches beyond the end")
        yield Block(place, kind, entries, data[at : at + length])
        at += length
        count += 1
    magic, blocks = _TRAILER.unpack_from(data, end)
    if (magic, blocks) != (_END, count):
        raise ValueError(f"{count} blocks instead of {blocks}")
