"""The base keeps what a batch wrote, in order, and says so when it can't."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from wallaroo.state.base import RocksBase, Stamp
from wallaroo.state.entries import StateDamaged, base_key


@pytest.fixture
def base(tmp_path: Path) -> Iterator[RocksBase]:
    base = RocksBase(tmp_path / "base")
    yield base
    base.close()


def write(base: RocksBase, epoch: int, entries: dict[bytes, bytes]) -> None:
    batch = base.batch()
    for key, value in entries.items():
        batch.put(key, value)
    base.write(batch, Stamp(epoch, len(entries)))


def test_a_new_base_is_empty_and_of_no_epoch(base: RocksBase) -> None:
    assert (base.stamp, base.size) == (Stamp(), 0)
    assert base.get(b"k") is None
    assert list(base.view().scan(b"", b"\xff")) == []


def test_a_batch_brings_entries_epoch_and_number_of_keys(base: RocksBase) -> None:
    write(base, 3, {b"\0\1a": b"1", b"\0\1b": b""})
    assert (base.get(b"\0\1a"), base.get(b"\0\1b"), base.get(b"\0\1c")) == (b"1", b"", None)
    assert base.stamp == Stamp(3, 2)
    assert base.size > 0


def test_a_scan_is_a_range_of_points_in_order(base: RocksBase) -> None:
    entries = {
        base_key(place, point, key): b"%d" % point
        for place in (1, 2)
        for point in (0, 1, 255, 256, 2**64 - 1)
        for key in ("k", b"k")
    }
    write(base, 1, entries)
    found = list(base.view().scan(base_key(1, 1, ""), base_key(1, 256, "")))
    assert [value for _, value in found] == [b"1", b"1", b"255", b"255"]
    whole = list(base.view().scan(base_key(1, 0, ""), base_key(3, 0, "")))
    assert whole == sorted(entries.items())


def test_a_batch_of_several_parts_becomes_one_file(base: RocksBase, tmp_path: Path) -> None:
    keys = [base_key(1, number, "") for number in range(40_000)]
    write(base, 1, dict.fromkeys(keys, b"1"))
    assert len(list((tmp_path / "base").glob("*.sst"))) == 1
    assert sum(1 for _ in base.view().scan(keys[0], base_key(2, 0, ""))) == 40_000


def test_what_is_written_by_another_thread_is_there(base: RocksBase) -> None:
    batch = base.batch()
    batch.put(b"\0\1a", b"1")
    thread = threading.Thread(target=base.write, args=(batch, Stamp(1, 1)))
    thread.start()
    thread.join()
    assert base.get(b"\0\1a") == b"1"


_WRITE_AND_DIE = """
import os, pathlib, signal, sys
from wallaroo.state.base import RocksBase, Stamp
base = RocksBase(pathlib.Path(sys.argv[1]))
for epoch in (1, 2):
    batch = base.batch()
    batch.put(b"\\0\\1a", b"%d" % epoch)
    base.write(batch, Stamp(epoch, 1))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_batch_outlives_a_process_that_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _WRITE_AND_DIE, str(tmp_path / "base")]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    base = RocksBase(tmp_path / "base")
    assert (base.stamp.epoch, base.get(b"\0\1a")) == (2, b"2")
    base.close()


def damage(folder: Path, name: str, change: Callable[[bytearray], object]) -> None:
    for file in folder.glob(name):
        data = bytearray(file.read_bytes())
        change(data)
        file.write_bytes(data)


def flip(share: float) -> Callable[[bytearray], None]:
    def change(data: bytearray) -> None:
        data[int(len(data) * share)] ^= 4

    return change


def halve(data: bytearray) -> None:
    del data[len(data) // 2 :]


def damaged(folder: Path, name: str, change: Callable[[bytearray], object]) -> dict[bytes, bytes]:
    """Makes a base, and damages it; what it held."""
    base = RocksBase(folder)
    entries = {base_key(1, number, f"key {number}"): os.urandom(30) for number in range(3000)}
    write(base, 1, entries)
    base.close()
    damage(folder, name, change)
    return entries


def found(folder: Path, keys: Iterable[bytes]) -> tuple[int, dict[bytes, bytes | None]]:
    """Epoch and entries that the base in a folder says it has."""
    base = RocksBase(folder)
    try:
        return base.stamp.epoch, {key: base.get(key) for key in keys}
    finally:
        base.close()


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("*.sst", halve),
        ("*.sst", flip(0.01)),
        ("*.sst", flip(0.5)),
        ("MANIFEST-*", flip(0.1)),
        ("MANIFEST-*", flip(0.9)),
        ("CURRENT", halve),
    ],
)
def test_damage_is_told_in_words(
    tmp_path: Path, name: str, change: Callable[[bytearray], None]
) -> None:
    folder = tmp_path / "base"
    keys = damaged(folder, name, change)
    with pytest.raises(StateDamaged, match=f"{folder} can't be used: Corruption.*restore.*anew"):
        found(folder, keys)


@pytest.mark.parametrize("share", [number / 40 for number in range(40)])
def test_no_flipped_bit_changes_or_loses_an_entry(tmp_path: Path, share: float) -> None:
    entries = damaged(tmp_path / "base", "*.sst", flip(share))
    try:
        assert found(tmp_path / "base", entries) == (1, entries)
    except StateDamaged:
        pass


def test_a_base_that_has_lost_its_last_batch_says_so_by_its_epoch(tmp_path: Path) -> None:
    keys = damaged(tmp_path / "base", "MANIFEST-*", halve)
    assert found(tmp_path / "base", keys) == (0, dict.fromkeys(keys))


def test_damage_is_found_by_a_scan(tmp_path: Path) -> None:
    folder = tmp_path / "base"
    base = RocksBase(folder)
    write(base, 1, {base_key(1, number, ""): os.urandom(30) for number in range(3000)})
    base.close()
    damage(folder, "*.sst", flip(0.4))
    base = RocksBase(folder)
    with pytest.raises(StateDamaged):
        list(base.view().scan(base_key(1, 0, ""), base_key(2, 0, "")))
    base.close()


def test_a_base_that_another_process_holds_is_not_opened(base: RocksBase, tmp_path: Path) -> None:
    with pytest.raises(StateDamaged, match="lock"):
        RocksBase(tmp_path / "base")


def test_updating_the_same_keys_for_long_does_not_fill_the_disk(
    base: RocksBase, tmp_path: Path
) -> None:
    chance = random.Random(1)
    keys = [base_key(1, chance.getrandbits(64), f"key {number}") for number in range(5000)]
    sizes = []
    for epoch in range(1, 41):
        write(base, epoch, {key: chance.randbytes(40) for key in keys})
        sizes.append(base.size)
    # Compaction is another thread's work, which steps back: it comes, but where others use the
    # processors it comes later.
    for epoch in range(41, 341):
        if base.size <= 3 * sizes[0]:
            break
        time.sleep(0.1)
        write(base, epoch, {keys[0]: b"x"})
    assert base.size <= 3 * sizes[0]
    assert base.get(keys[0]) is not None


def test_the_log_stays_small(base: RocksBase, tmp_path: Path) -> None:
    for epoch in range(1, 60):
        write(base, epoch, {b"\0\1%d" % epoch: b"x"})
    logs = [file.stat().st_size for file in (tmp_path / "base").glob("LOG*")]
    assert sum(logs) < 4 << 20
