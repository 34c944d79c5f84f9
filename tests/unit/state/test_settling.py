"""After a switch a store becomes what its worker owns, whatever comes between.

Rulings are those of docs/protocol.md.
"""

import pytest
from tests.unit.connectors.forgetful import Crashed
from tests.unit.state import keeping
from tests.unit.state.moving import PLACES, Counter, Movers, Owner, owned

import wallaroo.state.settlement as settlement_module
import wallaroo.state.store as store_module
from wallaroo.partitioning import INTERVAL, Assignment, hash_key
from wallaroo.partitioning.rewrite import rewrite
from wallaroo.protocol import manifest
from wallaroo.state.entries import StateDamaged, base_key
from wallaroo.state.live import NotMyKey
from wallaroo.state.native import AVAILABLE
from wallaroo.state.parcels import Entries, Last, encode_parcel
from wallaroo.state.settlement import Tenure
from wallaroo.state.staging import Staging

HALF = INTERVAL // 2
KEYS = [f"key {number}" for number in range(40)]
LOW = [key for key in KEYS if hash_key(key) < HALF]
HIGH = [key for key in KEYS if hash_key(key) >= HALF]


def entry(owner: Owner, number: int, key: str, count: int) -> tuple[bytes, bytes]:
    """What a donor sends of a key."""
    place = owner.place(number)
    state = Counter()
    state.count = count
    return base_key(number, place.point(key), key), place.form.entry(key, state)


def give(owner: Owner, keys: list[str], count: int, ranges: list[tuple[int, int]]) -> Staging:
    """A staging in which all has come from worker 9 and is durable."""
    mark = manifest.Staging("1-1", tuple(ranges))
    staging = owner.stage(mark, [9])
    found = [entry(owner, 1, key, count) for key in keys]
    staging.take(9, encode_parcel(Entries([key for key, _ in found], [v for _, v in found])))
    for number, *_ in PLACES:
        staging.take(9, encode_parcel(Last(number)))
    job = staging.take_job()
    assert job
    staging.job_done(job())
    return staging


def switch(owner: Owner, tenure: Tenure, staging: Staging | None = None) -> None:
    """The epoch at hand is that of a switch, and is committed."""
    owner.store.receive(staging)
    owner.commit()
    owner.mark = staging.mark if staging else None
    owner.tenure = tenure
    owner.store.switched(tenure)


def touch(owner: Owner, keys: list[str], number: int = 1) -> None:
    for key in keys:
        owner.place(number).live[key].count += 1


def counts(owner: Owner, keys: list[str], number: int = 1) -> set[int]:
    return {owner.place(number).live[key].count for key in keys}


@pytest.fixture
def lower() -> Owner:
    """Owns the lower half: keys that were touched once, and are in the base."""
    owner = Owner(0)
    owner.tenure = Tenure(1, ((0, HALF),))
    touch(owner, LOW)
    owner.commit()
    return owner


class TestTenure:
    def test_it_knows_what_is_owned_to_the_point(self) -> None:
        tenure = Tenure(2, ((5, 9), (20, 30)))
        asked = [4, 5, 8, 9, 19, 20, 29, 30, INTERVAL - 1]
        assert [tenure.owns(point) for point in asked] == [
            *(False, True, True, False),
            *(False, True, True, False, False),
        ]
        assert not Tenure(2, ()).owns(0)
        assert Tenure().owns(INTERVAL - 1)

    def test_what_is_not_owned_is_lost(self) -> None:
        assert Tenure(2, ((5, 9), (20, 30))).lost == [(0, 5), (9, 20), (30, INTERVAL)]
        assert Tenure(2, ((0, 9), (20, INTERVAL))).lost == [(9, 20)]
        assert Tenure(2, ()).lost == [(0, INTERVAL)]
        assert Tenure().lost == []

    @pytest.mark.parametrize("workers", [1, 2, 3, 5])
    def test_what_one_has_lost_others_own(self, workers: int) -> None:
        assignment = rewrite(Assignment.first(4), range(workers))
        for worker in range(workers):
            tenure = Tenure(2, owned(assignment, worker))
            for start, end in tenure.lost:
                assert not tenure.owns(start)
                assert not tenure.owns(end - 1)
            share = sum(end - start for start, end in tenure.lost)
            assert share + assignment.share(worker) == INTERVAL


class TestAReceiver:
    """Ruling 21."""

    def test_reads_what_it_was_given_before_its_base_has_it(self, lower: Owner) -> None:
        switch(lower, Tenure(2, ((0, INTERVAL),), 2), give(lower, HIGH, 7, [(HALF, INTERVAL)]))
        assert counts(lower, HIGH) == {7}
        assert counts(lower, LOW) == {1}
        assert not lower.store.settled

    def test_does_not_read_the_staging_for_what_it_had(self, lower: Owner) -> None:
        switch(lower, Tenure(2, ((0, INTERVAL),), 2), give(lower, [], 7, [(HALF, INTERVAL)]))
        staging = lower.stagings["1-1"]
        counts(lower, LOW)
        assert staging.gets == 0

    def test_does_not_settle_before_its_turn_unless_something_waits_for_it(
        self, lower: Owner, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Not all at the same time, and not while the switch is hardly over."""
        now = 100.0
        monkeypatch.setattr(lower.store, "_clock", lambda: now)
        monkeypatch.setattr(lower.store, "_turn", 0.5)
        switch(lower, Tenure(2, ((0, INTERVAL),), 2), give(lower, HIGH, 7, [(HALF, INTERVAL)]))
        for wait, settles in ((0.0, False), (7.4, False), (0.2, True)):
            now += wait
            for _ in range(10):
                lower.work()
                lower.merge()
            assert lower.store.settled == settles
        assert counts(lower, HIGH) == {7}

    def test_settles_at_once_when_the_next_rescale_waits_for_it(self, lower: Owner) -> None:
        switch(lower, Tenure(2, ((0, INTERVAL),), 2), give(lower, HIGH, 7, [(HALF, INTERVAL)]))
        lower.store._settling_from = float("inf")
        lower.store.hastened = True
        for _ in range(10):
            lower.work()
            lower.merge()
        assert lower.store.settled

    def test_settles_when_deltas_become_many(self, lower: Owner) -> None:
        """They can't be merged before."""
        switch(lower, Tenure(2, ((0, INTERVAL),), 2), give(lower, HIGH, 7, [(HALF, INTERVAL)]))
        lower.store._settling_from = float("inf")
        for _ in range(40):
            touch(lower, KEYS)
            lower.commit()
            lower.merge()
        assert lower.store.settled

    def test_makes_new_the_keys_that_its_donor_did_not_have(self, lower: Owner) -> None:
        switch(lower, Tenure(2, ((0, INTERVAL),), 2), give(lower, HIGH[1:], 7, [(HALF, INTERVAL)]))
        assert lower.place(1).live[HIGH[0]].count == 0

    def test_has_it_in_its_base_once_it_has_settled(self, lower: Owner) -> None:
        switch(lower, Tenure(2, ((0, INTERVAL),), 2), give(lower, HIGH, 7, [(HALF, INTERVAL)]))
        lower.settle()
        assert lower.store.settled
        assert lower.store.staging is None
        assert lower.entries()[1] == {hash_key(key) for key in KEYS}
        lower.restart()
        assert counts(lower, HIGH) == {7}

    @pytest.mark.skipif(not AVAILABLE, reason="only tables written in C can take them so")
    def test_has_it_in_memory_too_as_far_as_that_is_not_bounded(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(keeping, "NATIVE", True)
        lower = Owner(0)
        lower.tenure = Tenure(1, ((0, HALF),))
        lower.commit()
        switch(lower, Tenure(2, ((0, INTERVAL),), 2), give(lower, HIGH, 7, [(HALF, INTERVAL)]))
        touch(lower, HIGH[:2])  # before
        lower.settle()
        gets = lower.base.gets
        assert counts(lower, HIGH[:2]) == {8}
        assert counts(lower, HIGH[2:]) == {7}
        assert lower.base.gets == gets

    def test_does_not_fill_a_bounded_memory_with_it(self) -> None:
        lower = Owner(0, cache=5)
        lower.tenure = Tenure(1, ((0, HALF),))
        lower.commit()
        switch(lower, Tenure(2, ((0, INTERVAL),), 2), give(lower, HIGH, 7, [(HALF, INTERVAL)]))
        lower.settle()
        assert not set(HIGH) & {key for key, _ in lower.place(1).items()}
        assert counts(lower, HIGH) == {7}

    def test_counts_its_keys_exactly(self, lower: Owner) -> None:
        """Also those that are touched before it has settled, and those that it makes itself."""
        switch(lower, Tenure(2, ((0, INTERVAL),), 2), give(lower, HIGH[2:], 7, [(HALF, INTERVAL)]))
        touch(lower, HIGH)
        lower.commit()
        lower.settle()
        assert lower.store.keys == len(KEYS)
        lower.restart()
        assert lower.store.keys == len(KEYS)
        assert counts(lower, HIGH[2:]) == {8}

    def test_positions_of_partitions_are_no_keys(self, lower: Owner) -> None:
        mark = manifest.Staging("1-1", ((HALF, INTERVAL),))
        staging = lower.stage(mark, [9])
        key, value = entry(lower, 3, "a", 3)
        staging.take(9, encode_parcel(Entries([key], [value])))
        for number, *_ in PLACES:
            staging.take(9, encode_parcel(Last(number)))
        job = staging.take_job()
        assert job
        staging.job_done(job())
        switch(lower, Tenure(2, ((0, INTERVAL),), 2), staging)
        lower.settle()
        assert lower.store.keys == len(LOW)

    def test_writes_what_was_touched_since_over_what_it_was_given(self, lower: Owner) -> None:
        switch(lower, Tenure(2, ((0, INTERVAL),), 2), give(lower, HIGH, 7, [(HALF, INTERVAL)]))
        for _ in range(3):
            touch(lower, HIGH)
            lower.commit()
        lower.settle()
        lower.restart()
        assert counts(lower, HIGH) == {10}

    def test_takes_nothing_back_from_an_earlier_time(self, lower: Owner) -> None:
        """No resurrection on 3-4-3-4: what its base had there goes before the staging is in."""
        touch(lower, HIGH[:3])
        lower.commit()
        lower.merge()
        for _ in range(8):
            lower.commit()
        lower.merge()
        assert lower.entries()[1] >= {hash_key(key) for key in HIGH[:3]}
        epoch = lower.epoch + 1
        staging = give(lower, HIGH[3:], 7, [(HALF, INTERVAL)])
        switch(lower, Tenure(2, ((0, INTERVAL),), epoch), staging)
        lower.settle()
        lower.restart()
        assert counts(lower, HIGH[:3]) == {0}, "its donor did not have these"

    @pytest.mark.parametrize("after", range(1, 12))
    def test_does_all_of_it_again_when_a_restart_comes_between(
        self, lower: Owner, after: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(settlement_module, "_BYTES", 200)
        monkeypatch.setattr(settlement_module, "_SLICE", 3)
        switch(lower, Tenure(2, ((0, INTERVAL),), 2), give(lower, HIGH, 7, [(HALF, INTERVAL)]))
        lower.disk.crash_at = lower.disk.operations + after
        try:
            lower.settle()
        except Crashed:
            pass
        lower.disk.crash_at = -1
        lower.restart()
        assert counts(lower, HIGH) == {7}
        lower.settle()
        assert lower.store.keys == len(KEYS)
        lower.restart()
        assert counts(lower, HIGH) == {7}
        assert counts(lower, LOW) == {1}

    def test_that_lacks_what_the_manifest_says_it_was_given_is_refused(self, lower: Owner) -> None:
        staging = give(lower, HIGH, 7, [(HALF, INTERVAL)])
        switch(lower, Tenure(2, ((0, INTERVAL),), 2), staging)
        lower.stagings[staging.mark.id].stamp = lower.base.stamp._replace(version=0)
        with pytest.raises(StateDamaged, match="was given by rescale 1-1 is missing"):
            lower.restart()

    def test_keeps_it_when_an_earlier_settlement_ends_behind_the_switch(self) -> None:
        """One that joins at version 2 has a base to settle for that, though it owns nothing."""
        owner = Owner(1)
        owner.tenure = Tenure(2, (), 0, 1)
        owner.roll_back()
        owner.work()
        job = owner.store.take_job()
        assert job
        assert owner.store._settlement
        staging = give(owner, HIGH, 7, [(HALF, INTERVAL)])
        switch(owner, Tenure(3, ((HALF, INTERVAL),), 1, 1), staging)
        owner.store.job_done(job())
        assert counts(owner, HIGH) == {7}

    def test_forgets_what_came_to_nothing(self, lower: Owner) -> None:
        """Ruling 22: a recovery before the commit discards staging."""
        lower.store.receive(give(lower, HIGH, 7, [(HALF, INTERVAL)]))
        assert counts(lower, HIGH[:1]) == {7}
        lower.roll_back()
        assert lower.store.staging is None
        assert lower.store.settled


class TestADonor:
    def test_keeps_its_entries_until_the_switch_is_committed(self, lower: Owner) -> None:
        """Ruling 21: a fault before that goes on from them."""
        lower.commit()
        lower.roll_back()
        assert counts(lower, LOW) == {1}

    def test_has_none_of_what_it_gave_away_once_it_has_settled(self, lower: Owner) -> None:
        switch(lower, Tenure(2, ((0, HALF // 2),), 2))
        lower.settle()
        stay = {key for key in LOW if hash_key(key) < HALF // 2}
        assert lower.entries()[1] == {hash_key(key) for key in stay}
        assert set(lower.place(1).rest) == stay
        assert lower.store.keys == len(stay)
        lower.restart()
        assert lower.store.keys == len(stay)

    def test_a_restart_before_it_has_settled_brings_nothing_back(self, lower: Owner) -> None:
        """Ruling 21: at start every worker deletes what the manifest does not give it."""
        switch(lower, Tenure(2, ((0, HALF // 2),), 2))
        lower.restart()
        memory = {**lower.place(1).rest, **lower.place(1).stored}
        assert set(memory) == {key for key in LOW if hash_key(key) < HALF // 2}
        lower.settle()
        assert all(point < HALF // 2 for point in lower.entries()[1])

    def test_what_it_goes_on_to_touch_stays(self, lower: Owner) -> None:
        stay = [key for key in LOW if hash_key(key) < HALF // 2]
        switch(lower, Tenure(2, ((0, HALF // 2),), 2))
        for _ in range(3):
            touch(lower, stay)
            lower.commit()
        lower.settle()
        lower.restart()
        assert counts(lower, stay) == {4}

    def test_does_not_serve_what_it_gave_away(self, lower: Owner) -> None:
        switch(lower, Tenure(2, ((0, HALF // 2),), 2))
        place = lower.place(1)
        place.owns = lower.tenure.owns
        gone = next(key for key in LOW if hash_key(key) >= HALF // 2)
        lower.settle()
        with pytest.raises(NotMyKey):
            place.live[gone]


class TestMemory:
    """After a switch nothing of what is another's is left in it."""

    @pytest.mark.parametrize("cache", [None, 5, 1000])
    def test_is_cleaned_in_slices(self, cache: int | None) -> None:
        owner = Owner(0, cache)
        keys = [f"key {number}" for number in range(2000)]
        touch(owner, keys)
        switch(owner, Tenure(2, ((0, HALF),), 1))
        owner.settle()
        place = owner.place(1)
        left = [*place.rest, *place.stored]
        assert all(hash_key(key) < HALF for key in left)
        stay = [key for key in keys if hash_key(key) < HALF]
        if cache is None:
            assert set(left) == set(stay)
        assert counts(owner, stay) == {1}

    def test_with_a_bound_still_drops_what_the_base_has(self) -> None:
        """What was given away is left over in the order in which keys are dropped."""
        owner = Owner(0, cache=10)
        keys = [f"key {number}" for number in range(200)]
        touch(owner, keys)
        switch(owner, Tenure(2, ((0, HALF),), 1))
        owner.settle()
        stay = [key for key in keys if hash_key(key) < HALF]
        for _ in range(3):
            touch(owner, stay)
            owner.commit()
            owner.merge()
        owner.settle()
        assert counts(owner, stay) == {4}
        owner.restart()
        assert counts(owner, stay) == {4}

    def test_of_one_that_was_touched_behind_the_switch_is_kept(self) -> None:
        owner = Owner(0)
        stay = [key for key in KEYS if hash_key(key) < HALF]
        touch(owner, KEYS)
        owner.pass_barrier()
        touch(owner, stay)
        owner.write_delta()
        owner.epoch = 1
        owner.marks = owner.store.deltas
        owner.store.committed(1)
        owner.tenure = Tenure(2, ((0, HALF),), 1)
        owner.store.switched(owner.tenure)
        owner.settle()
        assert counts(owner, stay) == {2}


@pytest.mark.parametrize("cache", [None, 12], ids=["unbounded", "bounded"])
@pytest.mark.parametrize("seed", range(15))
def test_at_random_keys_are_where_they_belong_and_as_they_were(
    seed: int, cache: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rulings 20 to 23: rescales that commit, are given up, or are undone, crashes between them."""
    monkeypatch.setattr(store_module, "_DELTAS", 1 + seed % 4)
    monkeypatch.setattr(store_module, "_ABOVE", 4)
    monkeypatch.setattr(settlement_module, "_BYTES", 300 * (1 + seed % 3))
    monkeypatch.setattr(settlement_module, "_SLICE", 1 + seed % 7)
    movers = Movers(seed, 1 + seed % 4, cache)
    chance = movers.chance
    for _ in range(8):
        movers.touch(chance.randrange(60))
        if chance.random() < 0.7:
            movers.commit()
        movers.rescale([0, *chance.sample(range(1, 6), chance.randrange(5))])
        movers.touch(chance.randrange(20))
        for _ in range(chance.randrange(4)):
            movers.background()
            movers.touch(chance.randrange(4))
        happens = chance.random()
        if happens < 0.25:
            movers.restart()
        elif happens < 0.5:
            movers.crash_while_settling()
        elif happens < 0.6:
            movers.recover()
        movers.check()
    movers.commit()
    movers.check_settled()
    movers.check()


def test_3_4_3_4_brings_nothing_back() -> None:
    """Ruling 21."""
    movers = Movers(1, 3)
    for members in (4, 3, 4, 3, 4):
        movers.touch(200)
        movers.commit()
        movers.rescale(range(members), outcome="committed")
        movers.touch(50)
    movers.commit()
    movers.check_settled()
    movers.check()
