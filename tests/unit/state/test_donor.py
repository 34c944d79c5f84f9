"""What a donor sends, in what order, how fast, and what it never sends.

Rulings are those of docs/protocol.md.
"""

from collections.abc import Callable, Iterable

import pytest
from tests.unit.state.moving import PLACES, Owner, Parcels

import wallaroo.state.donor as donor_module
from wallaroo.partitioning import INTERVAL, hash_key
from wallaroo.partitioning.rewrite import Move
from wallaroo.state.donor import Donor
from wallaroo.state.entries import base_key
from wallaroo.state.parcels import Entries, Last, Parcel, UpTo

HALF = INTERVAL // 2
KEYS = [f"key {number}" for number in range(60)]
#: What goes to worker 1, and what to worker 2; the rest stays.
MOVES = [Move(HALF, HALF + HALF // 2, 0, 1), Move(0, HALF // 2, 0, 2)]


def goes_to(receiver: int, keys: Iterable[str] = KEYS) -> list[str]:
    (move,) = [move for move in MOVES if move.receiver == receiver]
    return [key for key in keys if move.start <= hash_key(key) < move.end]


class Giver:
    """Worker 0, whose keys are in its base or in deltas, and a donor of some of them."""

    def __init__(self, *, deltas: int = 2) -> None:
        self.owner = Owner(0)
        self.outlets = {1: Parcels(), 2: Parcels()}
        self.now = 0.0
        #: What receivers have taken in, by receiver: as their staging would have it.
        self.received: dict[int, dict[bytes, bytes]] = {1: {}, 2: {}}
        self.touch(KEYS)
        self.owner.commit()
        if deltas < 2:
            for _ in range(8):  # as many as are merged
                self.owner.commit()
            self.owner.merge()
            assert self.owner.base.stamp.epoch == 9
        for _ in range(deltas - 1):
            self.touch(KEYS[:30])
            self.owner.commit()

    def touch(self, keys: Iterable[str], number: int = 1) -> None:
        for key in keys:
            self.owner.place(number).live[key].count += 1

    def donor(self, *, allowed: bool = True, clock: Callable[[], float] | None = None) -> Donor:
        donor = Donor(self.owner.store, MOVES, self.outlets, clock or (lambda: self.now))
        donor.allowed = allowed
        return donor

    def work(self, donor: Donor, seconds: float = 1.0) -> list[Parcel]:
        """Let it do what it can, job and all, while time goes on; what it sent."""
        for _ in range(50):
            self.now += seconds / 50
            while donor.work(self.now):
                pass
            if job := donor.take_job():
                donor.job_done(job())
        sent: list[Parcel] = []
        for receiver, outlet in self.outlets.items():
            for parcel in outlet.take():
                sent.append(parcel)
                if isinstance(parcel, Entries):
                    entries = zip(parcel.keys, parcel.values, strict=True)
                    self.received[receiver].update(entries)
        return sent

    def counts(self, receiver: int, number: int = 1) -> dict[str, int]:
        """What a receiver has: by key, the count."""
        place = self.owner.place(number)
        found = {}
        for key, value in self.received[receiver].items():
            if key[:2] == number.to_bytes(2, "big"):
                name = key[11:].decode()
                assert key == base_key(number, place.point(name), name)
                found[name] = place.form.value(name, value).count
        return found

    def expected(self, receiver: int) -> dict[str, int]:
        live = self.owner.place(1).live
        return {key: live[key].count for key in goes_to(receiver)}

    def has_all(self) -> bool:
        return all(self.counts(each) == self.expected(each) for each in (1, 2))


@pytest.fixture(params=[1, 2, 5], ids=["base", "delta", "deltas"])
def giver(request: pytest.FixtureRequest) -> Giver:
    return Giver(deltas=request.param)


def epochs(parcels: list[Parcel]) -> list[int]:
    return [parcel.epoch for parcel in parcels if isinstance(parcel, UpTo)]


class TestCopying:
    def test_begins_when_all_that_take_part_are_ready(self, giver: Giver) -> None:
        donor = giver.donor(allowed=False)
        assert giver.work(donor) == []
        donor.allowed = True
        assert giver.work(donor)

    def test_gives_each_receiver_its_keys_and_no_other(self, giver: Giver) -> None:
        """Base and the deltas that it lacks: the newest of each key."""
        sent = giver.work(giver.donor())
        assert giver.has_all()
        assert epochs(sent) == [giver.owner.epoch] * 2

    def test_says_up_to_where_when_all_of_it_has_been_sent(self, giver: Giver) -> None:
        donor = giver.donor()
        giver.work(donor)
        giver.touch(KEYS)
        giver.owner.commit()
        giver.now += 1
        while donor.work(giver.now):
            pass
        for outlet in giver.outlets.values():
            *entries, last = outlet.parcels
            assert last == UpTo(giver.owner.epoch)
            assert entries
            assert all(isinstance(each, Entries) for each in entries)

    def test_sends_what_each_later_epoch_touched(self, giver: Giver) -> None:
        donor = giver.donor()
        giver.work(donor)
        giver.touch(KEYS[:10])
        giver.owner.commit()
        sent = giver.work(donor)
        keys = {key for each in sent if isinstance(each, Entries) for key in each.keys}
        assert len(keys) == len(goes_to(1, KEYS[:10])) + len(goes_to(2, KEYS[:10]))
        assert giver.has_all()

    def test_sends_only_what_is_committed(self, giver: Giver) -> None:
        """Ruling 22."""
        donor = giver.donor()
        giver.work(donor)
        giver.touch(KEYS)
        giver.owner.pass_barrier()
        giver.owner.write_delta()
        assert giver.work(donor) == []
        giver.owner.store.committed(giver.owner.epoch + 1)
        assert epochs(giver.work(donor)) == [giver.owner.epoch + 1] * 2

    def test_a_delta_that_is_there_and_not_committed_waits_for_its_commit(self) -> None:
        """Ruling 22: also when it was written before the copy began."""
        giver = Giver()
        before = {each: giver.expected(each) for each in (1, 2)}
        giver.touch(KEYS)
        giver.owner.pass_barrier()
        giver.owner.write_delta()
        donor = giver.donor()
        sent = giver.work(donor)
        assert epochs(sent) == [giver.owner.epoch] * 2
        assert {each: giver.counts(each) for each in (1, 2)} == before
        giver.owner.store.committed(giver.owner.epoch + 1)
        giver.work(donor)
        assert giver.has_all()

    def test_what_is_committed_while_deltas_are_read_is_the_newest(self) -> None:
        giver = Giver(deltas=4)
        donor = giver.donor()
        while not (job := donor.take_job()):
            giver.now += 0.01
            donor.work(giver.now)
        for _ in range(2):
            giver.touch(KEYS[:20])
            giver.owner.commit()
        donor.job_done(job())
        giver.work(donor)
        assert giver.has_all()

    def test_sends_once_what_several_epochs_touched(self, giver: Giver) -> None:
        donor = giver.donor()
        giver.work(donor)
        for _ in range(3):
            giver.touch(KEYS)
            giver.owner.commit()
        sent = giver.work(donor)
        keys = [key for each in sent if isinstance(each, Entries) for key in each.keys]
        assert len(keys) == len(set(keys))
        assert giver.has_all()

    def test_does_not_begin_while_an_epoch_passes(self, giver: Giver) -> None:
        """What it touches must be in the delta whole."""
        donor = giver.donor()
        giver.touch(KEYS)
        giver.owner.pass_barrier()
        assert giver.work(donor) == []
        mark = giver.owner.write_delta()
        assert giver.work(donor)
        assert mark.epoch == giver.owner.epoch + 1

    def test_keeps_the_deltas_that_it_needs_until_they_are_read(self) -> None:
        """Ruling 22."""
        giver = Giver(deltas=12)
        donor = giver.donor()
        while not (job := donor.take_job()):
            giver.now += 0.01
            donor.work(giver.now)
        assert giver.owner.merge() == 0
        donor.job_done(job())
        assert giver.owner.merge() == 0
        giver.work(donor)
        assert giver.owner.merge() > 0
        assert giver.has_all()

    def test_partitions_go_with_their_position(self, giver: Giver) -> None:
        giver.touch(["a", "b", "c", "d", "e", "f"], number=3)
        giver.owner.commit()
        giver.work(giver.donor())
        place = giver.owner.place(3)
        for receiver in (1, 2):
            (move,) = [move for move in MOVES if move.receiver == receiver]
            names = {n for n in "abcdef" if move.start <= place.point(n) < move.end}
            assert set(giver.counts(receiver, 3)) == names

    def test_no_object_is_made_of_what_moves(self, monkeypatch: pytest.MonkeyPatch) -> None:
        giver = Giver(deltas=1)
        monkeypatch.setattr(
            type(giver.owner.place(1).form), "value", lambda *_: pytest.fail("an object was made")
        )
        assert giver.work(giver.donor())


class TestTheLimit:
    @staticmethod
    def entries(giver: Giver) -> int:
        return sum(
            len(each.keys)
            for outlet in giver.outlets.values()
            for each in outlet.parcels
            if isinstance(each, Entries)
        )

    def test_of_bytes_a_second_is_kept(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(donor_module, "_RATE", 200)
        monkeypatch.setattr(donor_module, "_PARCEL", 1)
        giver = Giver(deltas=1)
        donor = giver.donor()
        size = 0
        for _ in range(100):
            giver.now += 0.1
            donor.work(giver.now + 1)
        size = sum(len(frame) for outlet in giver.outlets.values() for frame in outlet.frames)
        assert 200 * 10 * 0.5 <= size <= 200 * 10 * 1.5
        assert donor.wait > 0

    def test_is_doubled_when_what_is_behind_does_not_shrink_over_three_epochs(self) -> None:
        """Ruling 23."""
        giver = Giver(deltas=1)
        donor = giver.donor()
        giver.work(donor)
        rate = donor._haste
        rates = []
        for _ in range(9):
            giver.touch(KEYS)
            giver.owner.commit()  # and no time to send
            rates.append(donor._haste / rate)
        assert rates == [1, 1, 1, 1, 2, 2, 2, 2, 4]

    def test_stays_when_nothing_is_left_over_from_one_epoch_to_the_next(self) -> None:
        giver = Giver(deltas=1)
        donor = giver.donor()
        giver.work(donor)
        rate = donor._haste
        for _ in range(9):
            giver.touch(KEYS)
            giver.owner.commit()
            giver.work(donor)
            assert giver.has_all()
        assert donor._haste == rate

    def test_a_receiver_without_room_is_waited_for(self, giver: Giver) -> None:
        donor = giver.donor()
        giver.outlets[1].room = False
        assert giver.work(donor) == []
        giver.outlets[1].room = True
        giver.work(donor)
        assert giver.has_all()

    def test_it_does_little_at_a_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A slice of about a millisecond: the stream is never far away."""
        monkeypatch.setattr(donor_module, "_PARCEL", 5)
        giver = Giver(deltas=1)
        ticks = iter(range(1, 1_000_000))
        donor = giver.donor(clock=lambda: float(next(ticks)))
        sent = {0}
        for _ in range(200):
            donor.work(0.0)
            sent.add(self.entries(giver))
        assert len(sent) > 4

    def test_it_rests_longer_than_it_works(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(donor_module, "_PARCEL", 1)
        giver = Giver(deltas=1)
        slow = 0.0

        def clock() -> float:
            giver.now += slow  # each look at the clock takes time, as work does
            return giver.now

        donor = giver.donor(clock=clock)
        donor.work(giver.now)
        slow = 0.001
        began, sent = giver.now, self.entries(giver)
        while donor.work(giver.now) or donor.wait:
            giver.now += donor.wait
        spent = (giver.now - began) / (self.entries(giver) - sent)
        assert spent > donor_module._REST * slow
        giver.work(donor)
        assert giver.has_all()


class TestTheSwitch:
    def switched(self, giver: Giver) -> Donor:
        donor = giver.donor()
        giver.work(donor)
        giver.touch(KEYS[:20])
        giver.owner.commit()
        giver.touch(KEYS[20:25])
        donor.switch()
        return donor

    def test_what_is_left_of_one_place_does_not_hold_up_another(self, giver: Giver) -> None:
        """Partitions stand still until their positions are there."""
        self.switched(giver)
        assert not any(outlet.frames for outlet in giver.outlets.values())
        giver.owner.place(3).freeze()
        giver.owner.work()
        for outlet in giver.outlets.values():
            assert outlet.parcels == [Last(3)]
        giver.owner.place(1).freeze()
        giver.owner.place(2).freeze()
        giver.owner.work()
        for outlet in giver.outlets.values():
            left, *others = outlet.parcels[1:]
            assert isinstance(left, Entries)
            assert len(left.keys) > 1, "what an epoch before had touched"
            assert others[-2:] == [Last(1), Last(2)]

    def test_what_was_touched_last_follows_as_it_is_encoded_and_ends_for_each_place(
        self, giver: Giver
    ) -> None:
        """Ruling 20: end-marked, and sent even when empty."""
        self.switched(giver)
        giver.work(giver.donor(allowed=False))
        giver.owner.pass_barrier()
        giver.touch(KEYS[:40])  # behind the barrier: another's, or of the next epoch
        expected = {each: giver.expected(each) for each in (1, 2)}
        giver.owner.work()
        for outlet in giver.outlets.values():
            lasts = [each for each in outlet.parcels if isinstance(each, Last)]
            assert sorted(last.place for last in lasts) == [number for number, *_ in PLACES]
            assert outlet.ended
            assert isinstance(outlet.parcels[-1], Last), "nothing follows"
            entries = [e for e in outlet.parcels if isinstance(e, Entries)]
            places = {int.from_bytes(key[:2], "big") for each in entries for key in each.keys}
            assert places <= {1}
        giver.work(giver.donor(allowed=False))
        for receiver, counts in expected.items():
            touched = goes_to(receiver, KEYS[:40])
            before = {k: n - (k in touched) for k, n in counts.items()}
            assert giver.counts(receiver) == before, "as it was at the barrier"

    def test_entries_of_a_place_come_before_its_end(self, giver: Giver) -> None:
        self.switched(giver)
        giver.owner.pass_barrier()
        giver.owner.work()
        for outlet in giver.outlets.values():
            ended: set[int] = set()
            for parcel in outlet.parcels:
                if isinstance(parcel, Last):
                    ended.add(parcel.place)
                elif isinstance(parcel, Entries):
                    places = {int.from_bytes(key[:2], "big") for key in parcel.keys}
                    assert not places & ended

    def test_nothing_limits_the_last_delta(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Ruling 15."""
        giver = Giver(deltas=1)
        donor = giver.donor()
        giver.work(donor)
        giver.touch(KEYS)
        giver.owner.commit()
        donor._allowed, donor._rested = -1e9, 1e9
        for outlet in giver.outlets.values():
            outlet.room = False
        giver.touch(KEYS)
        expected = {each: giver.expected(each) for each in (1, 2)}
        donor.switch()
        giver.owner.pass_barrier()
        giver.owner.work()
        giver.work(giver.donor(allowed=False))
        assert {each: giver.counts(each) for each in (1, 2)} == expected
        assert not donor.wait

    def test_the_next_epoch_is_not_sent(self, giver: Giver) -> None:
        self.switched(giver)
        giver.owner.commit()
        for outlet in giver.outlets.values():
            outlet.take()
        giver.touch([key for key in KEYS if not {key} & {*goes_to(1), *goes_to(2)}])
        giver.owner.commit()
        assert not any(outlet.frames for outlet in giver.outlets.values())


class TestTheEnd:
    def test_of_an_attempt_leaves_the_store_as_it_was(self, giver: Giver) -> None:
        """Ruling 24: given up without a rollback."""
        donor = giver.donor()
        giver.now += 0.1
        donor.work(giver.now)
        donor.close()
        for outlet in giver.outlets.values():
            outlet.take()
        for _ in range(10):
            giver.touch(KEYS)
            giver.owner.commit()
        assert giver.owner.merge() > 0
        assert not any(outlet.frames for outlet in giver.outlets.values())

    def test_while_deltas_are_read_lets_them_go_only_then(self) -> None:
        giver = Giver(deltas=12)
        donor = giver.donor()
        while not (job := donor.take_job()):
            giver.now += 0.01
            donor.work(giver.now)
        donor.close()
        assert giver.owner.merge() == 0
        donor.job_done(job())
        assert giver.owner.merge() > 0

    def test_the_next_attempt_begins_anew(self, giver: Giver) -> None:
        """Ruling 22."""
        first = giver.donor()
        giver.work(first)
        first.close()
        giver.touch(KEYS[:5])
        giver.owner.commit()
        giver.received = {1: {}, 2: {}}
        giver.work(giver.donor())
        assert giver.has_all()
