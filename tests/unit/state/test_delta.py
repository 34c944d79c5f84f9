"""A delta comes back as it was written, or not at all."""

from pathlib import Path

import pytest
from tests.unit.connectors.forgetful import ForgetfulDisk

from wallaroo.protocol.manifest import DeltaMark
from wallaroo.state.delta import Delta, is_delta, read_delta
from wallaroo.state.entries import Block, StateDamaged

FOLDER = Path("/state/deltas")
BLOCKS = [Block(1, 0, 2, b"two entries"), Block(65535, 2, 1, b"")]


def written(blocks: list[Block]) -> tuple[ForgetfulDisk, DeltaMark]:
    disk = ForgetfulDisk(0)
    return disk, Delta(disk, FOLDER, 7, 3, 12, blocks).write()


def test_a_delta_holds_what_was_written() -> None:
    disk, mark = written(BLOCKS)
    content = read_delta(disk, FOLDER, mark)
    assert content.keys == 12
    assert content.blocks == BLOCKS
    assert (mark.epoch, mark.generation) == (7, 3)
    assert disk.size(FOLDER / mark.name) == mark.size


def test_an_epoch_that_touched_nothing_has_an_empty_delta() -> None:
    disk, mark = written([])
    assert read_delta(disk, FOLDER, mark).blocks == []
    assert mark.size < 100


def test_a_delta_is_durable_once_it_is_written() -> None:
    disk, mark = written(BLOCKS)
    disk.crash()
    assert read_delta(disk, FOLDER, mark).blocks == BLOCKS


def test_the_file_is_named_by_epoch_and_generation() -> None:
    _, mark = written([])
    assert mark.name == "delta-0000000000000007-00000003"
    assert is_delta(mark.name)
    assert not is_delta("base")


def test_every_flipped_bit_is_found() -> None:
    disk, mark = written(BLOCKS)
    path = FOLDER / mark.name
    good = disk.read(path)
    for bit in range(len(good) * 8):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        disk.write(path, [bytes(bad)])
        with pytest.raises(StateDamaged, match="damaged"):
            read_delta(disk, FOLDER, mark)


def test_every_truncation_is_found() -> None:
    disk, mark = written(BLOCKS)
    for size in range(mark.size):
        disk.truncate(FOLDER / mark.name, size)
        with pytest.raises(StateDamaged, match=f"{size} bytes instead of {mark.size}"):
            read_delta(disk, FOLDER, mark)


def test_a_missing_file_is_named() -> None:
    disk, mark = written(BLOCKS)
    disk.remove(FOLDER / mark.name)
    with pytest.raises(StateDamaged, match=f"{FOLDER / mark.name} is missing.*epoch 7"):
        read_delta(disk, FOLDER, mark)


def test_another_whole_delta_of_the_same_name_is_not_believed() -> None:
    disk, mark = written(BLOCKS)
    other = Delta(disk, FOLDER, 7, 3, 12, [Block(1, 0, 2, b"2 entries!!"), BLOCKS[1]]).write()
    assert other.name == mark.name
    assert other.size == mark.size
    with pytest.raises(StateDamaged, match="as committed"):
        read_delta(disk, FOLDER, mark)
