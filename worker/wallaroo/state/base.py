"""What a worker keeps of committed epochs: entries by place and point, in RocksDB.

Only committed deltas are written into it, each time as one batch that also stores which epoch it
brings the base to, so it always holds exactly one epoch's state. An interval of points of one
place is one contiguous range of keys. It also stores for which version of the assignment it has
been settled: has what a rescale gave this worker, and nothing of what it took away.
"""

import struct
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import rocksdict

from wallaroo.state.entries import StateDamaged
from wallaroo.state.throttle import Worked, at_once

#: Of the base itself: epoch, keys, those gained by rescales less those given away, and the version
#: of the assignment. Its key lies before those of every place.
_STATE = struct.Struct(">QQqQ")
_STATE_KEY = b"\0"

_MIB = 1 << 20

#: Most entries of a part of a batch: RocksDB keeps the interpreter lock while it takes one.
_PART = 512


#: How many files of the same range are compacted: in a base, and in one that goes soon.
_FEW, _MANY = 2, 32


class Batch(Protocol):
    """Changes to be written at once."""

    def put(self, key: bytes, value: bytes) -> None:
        """Add an entry."""

    def clear(self, start: bytes, end: bytes) -> None:
        """Remove the entries from `start` up to, not including, `end` that are there before it."""


class Stamp(NamedTuple):
    """What a base is.

    epoch: of the last batch written, 0 if there is none. keys: that have been made here by then.
    moved: keys that rescales gave, less those that they took. version: of the assignment for
    which it is settled.
    """

    epoch: int = 0
    keys: int = 0
    moved: int = 0
    version: int = 0


class View(Protocol):
    """A base as it was at one moment."""

    @property
    def epoch(self) -> int: ...

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Entries from `start` up to, not including, `end`, in order. Raises `StateDamaged`."""

    def close(self) -> None:
        """Let go of it."""


class Base(Protocol):
    """The entries of committed epochs. `write` may run in another thread than the rest.

    size: bytes on disk, about.
    """

    @property
    def stamp(self) -> Stamp: ...

    @property
    def size(self) -> int: ...

    def get(self, key: bytes) -> bytes | None:
        """An entry. Raises `StateDamaged`."""

    def batch(self) -> Batch:
        """An empty batch."""

    def write(self, batch: Any, stamp: Stamp, worked: Worked = at_once) -> None:
        """Write a batch, all or nothing; on return it is durable. Raises `StateDamaged`.

        worked: called after each part of it.
        """

    def view(self) -> View:
        """It, as it is now, with the epoch that it is of."""

    def close(self) -> None:
        """Let go of the files."""


class RocksBatch:
    """A batch in parts: one that grows is copied, and a large copy stalls whoever adds to it."""

    def __init__(self) -> None:
        self.parts: list[rocksdict.WriteBatch] = []
        self._room = 0

    def put(self, key: bytes, value: bytes) -> None:
        if not self._room:
            self.parts.append(rocksdict.WriteBatch(raw_mode=True))
            self._room = _PART
        self._room -= 1
        self.parts[-1].put(key, value)

    def clear(self, start: bytes, end: bytes) -> None:
        if not self.parts:
            self.parts.append(rocksdict.WriteBatch(raw_mode=True))
            self._room = _PART
        self.parts[-1].delete_range(start, end)


class RocksBase:
    """A base in the folder `path`, which is made. Raises `StateDamaged`.

    clock: in seconds, to tell how long a part of a batch took; by default nothing takes any time.
    brief: it will be read once, and go: its files are not compacted until there are many.
    """

    def __init__(
        self, path: Path, clock: Callable[[], float] = lambda: 0.0, *, brief: bool = False
    ) -> None:
        self._path = path
        self._clock = clock
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._explained():
            self._db = rocksdict.Rdict(str(path), _options(_MANY if brief else _FEW))
            state = self._db.get(_STATE_KEY)
        self.stamp = Stamp(*_STATE.unpack(state)) if state else Stamp()
        self._unsynced = rocksdict.WriteOptions()
        self._unsynced.disable_wal = True  # type: ignore[assignment,method-assign]  # a property
        # Entries come in order: each is put beside the last, not searched for.
        self._unsynced.memtable_insert_hint_per_batch = True
        self.size = self._measure()

    def get(self, key: bytes) -> bytes | None:
        try:  # a context manager would take longer than the look-up
            found: bytes | None = self._db.get(key)
        except Exception:
            with self._explained():
                raise
        return found

    def batch(self) -> RocksBatch:
        return RocksBatch()

    def write(self, batch: Batch, stamp: Stamp, worked: Worked = at_once) -> None:
        assert isinstance(batch, RocksBatch)
        batch.put(_STATE_KEY, _STATE.pack(*stamp))
        with self._explained():
            # All is in one memtable, which one flush makes one synced file: no log is needed.
            for part in batch.parts:
                began = self._clock()
                self._db.write(part, self._unsynced)
                worked(self._clock() - began)
            self._db.flush(wait=True)
            self.size = self._measure()
        self.stamp = stamp

    def view(self) -> "RocksView":
        with self._explained():
            return RocksView(self._db.snapshot(), self._explained)

    def close(self) -> None:
        self._db.close()

    def _measure(self) -> int:
        return self._db.property_int_value("rocksdb.total-sst-files-size") or 0

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except rocksdict.DbClosedError:
            raise
        except Exception as error:
            why = " ".join(str(error).split()).rstrip(".")
            raise StateDamaged(
                f"the database of state in {self._path} can't be used: {why}. Either the disk is "
                "full or failing, or something else wrote to the folder: if it is damaged, restore "
                "this worker's directory from a copy, or start the application anew from an empty "
                "one"
            ) from error


class RocksView:
    """A snapshot of a `RocksBase`."""

    def __init__(
        self, snapshot: rocksdict.Snapshot, explained: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self._snapshot: rocksdict.Snapshot | None = snapshot
        self._explained = explained
        # Read from inside: the base may be written while the snapshot is taken.
        found = snapshot.iter(rocksdict.ReadOptions())
        found.seek(_STATE_KEY)
        known = found.valid() and found.key() == _STATE_KEY
        self.epoch = Stamp(*_STATE.unpack(found.value())).epoch if known else 0

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        assert self._snapshot is not None
        options = rocksdict.ReadOptions()
        options.set_iterate_upper_bound(end)
        # What is scanned is not looked up afterwards.
        options.fill_cache(False)  # type: ignore[call-arg]  # its stub lacks the argument
        with self._explained():
            found = self._snapshot.iter(options)
            found.seek(start)
            while found.valid():
                yield found.key(), found.value()
                found.next()
            found.status()

    def close(self) -> None:
        self._snapshot = None


def _options(files: int) -> rocksdict.Options:
    """Measured with a million entries of 70 bytes, a tenth of them updated per batch."""
    options = rocksdict.Options(raw_mode=True)
    options.create_if_missing(True)
    table = rocksdict.BlockBasedOptions()
    table.set_bloom_filter(10, False)
    table.set_format_version(5)
    # Filters and indexes in pieces, in the cache: whole ones of large files don't fit into it,
    # and would be read anew for every look-up (40 us instead of 7).
    table.set_block_cache(rocksdict.Cache(32 * _MIB))
    table.set_cache_index_and_filter_blocks(True)
    table.set_pin_l0_filter_and_index_blocks_in_cache(True)
    table.set_index_type(rocksdict.BlockBasedIndexType.two_level_index_search())
    table.set_partition_filters(True)
    table.set_pin_top_level_index_and_filter(True)
    options.set_block_based_table_factory(table)
    # More than a batch ever has: all of it has to be in one.
    options.set_write_buffer_size(1024 * _MIB)
    options.set_arena_block_size(_MIB)
    # Halves what is on disk.
    options.set_compression_type(rocksdict.DBCompressionType.lz4())
    # Compacting early keeps what is on disk below twice the live entries, 1.2 times on average.
    options.set_level_zero_file_num_compaction_trigger(files)
    options.set_level_zero_slowdown_writes_trigger(10 * files)
    options.set_level_zero_stop_writes_trigger(20 * files)
    options.set_level_compaction_dynamic_level_bytes(True)
    options.set_max_bytes_for_level_base(64 * _MIB)
    options.set_target_file_size_base(16 * _MIB)
    # One thread that flushes, one that compacts.
    options.set_max_background_jobs(2)
    options.set_max_subcompactions(1)
    options.set_bytes_per_sync(_MIB)
    options.set_max_log_file_size(_MIB)
    options.set_keep_log_file_num(2)
    options.set_max_manifest_file_size(4 * _MIB)
    options.set_stats_dump_period_sec(0)
    return options
