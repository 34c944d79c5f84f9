"""Manifests on a disk: made whole, never overwritten, and never believed when damaged.

Ruling 3 of docs/protocol.md: commit is write, fsync, rename, fsync of the directory; manifests are
named by (generation, epoch), created exclusively, never overwritten; the highest rules.
"""

from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.connectors.forgetful import Crashed, ForgetfulDisk
from tests.unit.protocol.watch import beginning

from wallaroo.disk import RealDisk
from wallaroo.errors import InputError
from wallaroo.protocol.manifest import Manifest
from wallaroo.runtime.manifests import Manifests, name_of

FOLDER = Path("/app/manifests")


def manifest(generation: int, epoch: int) -> Manifest:
    return replace(beginning(2), generation=generation, epoch=epoch)


@pytest.fixture
def real(tmp_path: Path) -> Manifests:
    return Manifests(RealDisk(), tmp_path / "app" / "manifests")


def test_without_any_there_is_no_last(real: Manifests) -> None:
    assert real.last() is None


def test_the_last_is_the_one_that_was_added_last(real: Manifests) -> None:
    for generation, epoch in [(1, 0), (1, 1), (1, 2), (2, 2)]:
        real.add(manifest(generation, epoch))
        assert real.last() == manifest(generation, epoch)


@pytest.mark.parametrize(
    ("lower", "higher"),
    [((1, 9), (2, 3)), ((9, 1), (10, 1)), ((3, 99), (3, 100)), ((99_999_999, 1), (99_999_999, 2))],
)
def test_the_highest_generation_rules_and_then_the_highest_epoch(
    lower: tuple[int, int], higher: tuple[int, int], real: Manifests
) -> None:
    real.add(manifest(*higher))
    real.add(manifest(*lower))
    assert real.last() == manifest(*higher)


def test_one_that_is_there_is_never_overwritten(real: Manifests) -> None:
    real.add(manifest(1, 1))
    with pytest.raises(FileExistsError):
        real.add(replace(manifest(1, 1), application="other"))
    assert real.last() == manifest(1, 1)


def test_the_last_few_are_kept_and_older_ones_removed(real: Manifests) -> None:
    for epoch in range(12):
        real.add(manifest(1, epoch))
    names = sorted(path.name for path in real.folder.iterdir())
    assert names == [name_of(manifest(1, epoch)) for epoch in range(7, 12)]


def test_what_is_no_manifest_is_left_alone(real: Manifests) -> None:
    real.add(manifest(1, 0))
    for name in ("notes.txt", ".00000002-0000000000000001.json.draft", "00000009-1.json"):
        (real.folder / name).write_text("not one")
    assert real.last() == manifest(1, 0)
    for epoch in range(1, 9):
        real.add(manifest(1, epoch))
    assert (real.folder / "notes.txt").exists()


def test_damage_of_any_byte_is_found(real: Manifests) -> None:
    real.add(manifest(1, 1))
    path = real.folder / name_of(manifest(1, 1))
    data = path.read_bytes()
    for at in range(len(data)):
        for flip in (1, 0x80):
            path.write_bytes(data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :])
            with pytest.raises(InputError, match="is damaged"):
                real.last()


def test_a_truncated_one_is_found_at_any_length(real: Manifests) -> None:
    real.add(manifest(1, 1))
    path = real.folder / name_of(manifest(1, 1))
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(InputError, match="is damaged"):
            real.last()


def test_a_damaged_one_is_not_passed_over_for_an_older_one(real: Manifests) -> None:
    """What the older one says was superseded: going on from it would be wrong without a word."""
    real.add(manifest(1, 1))
    real.add(manifest(1, 2))
    (real.folder / name_of(manifest(1, 2))).write_text("")
    with pytest.raises(InputError, match="put back an intact copy"):
        real.last()


def test_one_under_another_ones_name_is_refused(real: Manifests) -> None:
    real.add(manifest(1, 1))
    path = real.folder / name_of(manifest(1, 1))
    path.rename(real.folder / name_of(manifest(1, 2)))
    with pytest.raises(InputError, match="belongs to another epoch than its name says"):
        real.last()


def test_one_that_can_not_be_read_is_an_error_in_words(real: Manifests) -> None:
    (real.folder / name_of(manifest(1, 1))).mkdir(parents=True)
    with pytest.raises(InputError, match="can't read the manifest"):
        real.last()


@pytest.mark.parametrize("seed", range(8))
def test_a_crash_at_any_operation_leaves_the_one_before_or_the_new_one_whole(seed: int) -> None:
    for crash_at in range(1, 20):
        disk = ForgetfulDisk(seed)
        manifests = Manifests(disk, FOLDER)
        for epoch in range(6):  # so that an old one is removed, too
            manifests.add(manifest(1, epoch))
        disk.crash_at = disk.operations + crash_at
        added = True
        try:
            manifests.add(manifest(1, 6))
        except Crashed:
            added = False
        disk.crash()
        disk.crash_at = -1
        found = manifests.last()
        assert found in ([manifest(1, 6)] if added else [manifest(1, 5), manifest(1, 6)])
        # The next run goes on, whatever the last one left lying.
        following = manifest(2, 6)
        manifests.add(following)
        assert manifests.last() == following


def test_a_crash_behind_it_never_takes_it_back() -> None:
    for seed in range(30):
        disk = ForgetfulDisk(seed)
        manifests = Manifests(disk, FOLDER)
        manifests.add(manifest(1, 1))
        disk.crash()
        assert manifests.last() == manifest(1, 1)
