"""What a receiver is given: readable at once, reported when durable, dropped whole if need be.

Rulings are those of docs/protocol.md.
"""

import random

import pytest
from tests.unit.connectors.forgetful import ForgetfulDisk
from tests.unit.state.keeping import DictBase

import wallaroo.state.staging as staging_module
from wallaroo.protocol import manifest
from wallaroo.state.base import Stamp
from wallaroo.state.entries import StateDamaged, base_key
from wallaroo.state.parcels import Entries, Last, UpTo, encode_parcel
from wallaroo.state.staging import Staging

MARK = manifest.Staging("3-1", ((5, 10), (20, 30)))
DONORS, PLACES = (0, 4), (1, 2)
KEYS = [base_key(1, point, f"key {point}") for point in (5, 6, 7)]


@pytest.fixture
def base() -> DictBase:
    return DictBase(ForgetfulDisk(1))


@pytest.fixture
def staging(base: DictBase) -> Staging:
    return Staging(MARK, base, DONORS, PLACES)


def put(staging: Staging, donor: int, *values: bytes) -> None:
    parcel = Entries(KEYS[: len(values)], list(values))
    assert staging.take(donor, encode_parcel(parcel)) is None


def end(staging: Staging, but: tuple[int, int] | None = None) -> None:
    """All has come, but of one place of one donor."""
    for donor in DONORS:
        for place in PLACES:
            if (donor, place) != but:
                assert staging.take(donor, encode_parcel(Last(place))) == Last(place)


def write(staging: Staging) -> bool:
    """Whether there was something to write."""
    job = staging.take_job()
    if job:
        assert staging.take_job() is None, "one at a time"
        staging.job_done(job())
    return job is not None


def test_its_mark_says_which_points_it_covers() -> None:
    assert [p for p in range(35) if MARK.covers(p)] == [*range(5, 10), *range(20, 30)]


class TestHowFarItIs:
    def test_is_as_far_as_its_last_donor(self, staging: Staging) -> None:
        assert staging.epoch == -1
        assert staging.take(0, encode_parcel(UpTo(7))) == UpTo(7)
        assert staging.epoch == -1
        staging.take(4, encode_parcel(UpTo(5)))
        assert staging.epoch == 5
        staging.take(4, encode_parcel(UpTo(8)))
        assert staging.epoch == 7

    def test_counts_what_has_come_again_when_it_comes_again(self, staging: Staging) -> None:
        put(staging, 0, b"a", b"b")
        put(staging, 0, b"c")
        assert staging.entries == 3
        assert staging.size > 0

    def test_is_told_for_each_place_and_donor(self, staging: Staging) -> None:
        """Ruling 20: a donor's last delta is complete for each place by itself."""
        assert staging.awaited == {(0, 1), (0, 2), (4, 1), (4, 2)}
        staging.take(0, encode_parcel(Last(2)))
        assert (0, 2) not in staging.awaited
        assert (0, 1) in staging.awaited
        assert (4, 2) in staging.awaited


class TestReading:
    def test_finds_what_has_just_come(self, staging: Staging) -> None:
        put(staging, 0, b"a", b"b")
        assert [staging.get(key) for key in KEYS] == [b"a", b"b", None]

    def test_finds_the_newest(self, staging: Staging, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whether it is written, being written, or neither."""
        monkeypatch.setattr(staging_module, "_BATCH", 1)
        put(staging, 0, b"a1", b"b1", b"c1")
        write(staging)
        put(staging, 0, b"a2", b"b2")
        job = staging.take_job()
        assert job
        put(staging, 0, b"a3")
        expected = [b"a3", b"b2", b"c1"]
        assert [staging.get(key) for key in KEYS] == expected
        result = job()
        assert [staging.get(key) for key in KEYS] == expected
        staging.job_done(result)
        assert [staging.get(key) for key in KEYS] == expected
        end(staging)
        write(staging)
        assert list(staging.scan()) == list(zip(KEYS, expected, strict=True))

    def test_at_random_finds_the_newest(self, monkeypatch: pytest.MonkeyPatch) -> None:
        chance = random.Random(1)
        for _ in range(30):
            monkeypatch.setattr(staging_module, "_BATCH", chance.choice((1, 100, 1000)))
            base = DictBase(ForgetfulDisk(1))
            staging, model = Staging(MARK, base, DONORS, PLACES), dict[bytes, bytes]()
            for _ in range(60):
                keys = [base_key(1, chance.randrange(8), "k") for _ in range(chance.randrange(4))]
                values = [chance.randbytes(3) for _ in keys]
                staging.take(0, encode_parcel(Entries(keys, values)))
                model.update(zip(keys, values, strict=True))
                if chance.random() < 0.3:
                    write(staging)
                assert all(staging.get(key) == value for key, value in model.items())
            end(staging)
            while write(staging):
                pass
            assert staging.durable
            assert dict(staging.scan()) == model == base.entries


class TestDurable:
    """Ruling 21: a receiver reports only when all that it was sent is durable."""

    def test_it_is_once_all_has_come_and_is_written(self, staging: Staging) -> None:
        put(staging, 0, b"a")
        end(staging, but=(4, 2))
        assert not write(staging), "little waits"
        assert not staging.durable
        staging.take(4, encode_parcel(Last(2)))
        job = staging.take_job()
        assert job
        result = job()
        assert not staging.durable
        staging.job_done(result)
        assert staging.durable
        assert not write(staging)

    def test_it_is_not_before_a_write_of_earlier_is_over_and_the_last_is(
        self, staging: Staging, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(staging_module, "_BATCH", 1)
        put(staging, 0, b"a")
        job = staging.take_job()
        assert job
        put(staging, 4, b"a", b"b")
        end(staging)
        staging.job_done(job())
        assert not staging.durable
        assert write(staging)
        assert staging.durable

    def test_it_is_also_when_nothing_came(self, staging: Staging, base: DictBase) -> None:
        end(staging)
        assert not staging.durable
        assert write(staging)
        assert staging.durable
        assert base.entries == {}

    def test_a_restart_finds_all_of_it(self, staging: Staging, base: DictBase) -> None:
        put(staging, 0, b"a", b"b")
        end(staging)
        write(staging)
        again = Staging(MARK, base)
        again.check()
        assert again.durable
        assert [again.get(key) for key in KEYS] == [b"a", b"b", None]
        assert list(again.scan()) == [(KEYS[0], b"a"), (KEYS[1], b"b")]

    def test_a_restart_that_finds_but_a_part_is_refused(
        self, staging: Staging, base: DictBase, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(staging_module, "_BATCH", 1)
        put(staging, 0, b"a")
        write(staging)
        assert base.stamp == Stamp(1)
        with pytest.raises(StateDamaged, match="was given by rescale 3-1 is missing"):
            Staging(MARK, base).check()


class TestRoom:
    def test_there_is_none_while_much_waits_to_be_written(
        self, staging: Staging, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(staging_module, "_ROOM", 300)
        monkeypatch.setattr(staging_module, "_BATCH", 100)
        put(staging, 0, b"x" * 100)
        assert staging.has_room
        put(staging, 0, b"x" * 300)
        assert not staging.has_room
        write(staging)
        assert staging.has_room

    def test_the_last_words_need_none(
        self, staging: Staging, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Ruling 15: a last delta is exempt from all bounds."""
        monkeypatch.setattr(staging_module, "_ROOM", 1)
        put(staging, 0, b"x")
        end(staging)
        assert write(staging)
        assert staging.durable


def test_what_is_no_parcel_is_refused(staging: Staging) -> None:
    with pytest.raises(StateDamaged):
        staging.take(0, b"?")
    assert staging.entries == 0


def test_closing_lets_go_of_the_database(staging: Staging, base: DictBase) -> None:
    staging.close()
    assert base.closed
