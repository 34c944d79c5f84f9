"""The state of a committed epoch comes back, whatever happens meanwhile; and nothing of later ones.

Rulings 4 to 9 of docs/protocol.md.
"""

import random
from collections.abc import Callable, Iterator
from copy import deepcopy
from enum import StrEnum
from typing import Any

import pytest
from tests.unit.connectors.forgetful import Crashed
from tests.unit.state import keeping
from tests.unit.state.keeping import FOLDER, Keeper

from wallaroo.protocol.manifest import DeltaMark
from wallaroo.state import store as store_module
from wallaroo.state.delta import Delta
from wallaroo.state.entries import StateDamaged, base_key
from wallaroo.state.live import Place


class Total:
    def __init__(self) -> None:
        self.total = 0
        self.seen: list[int] = []


class Reduced:
    """Says itself how it is copied; counts how often one is made."""

    made = 0

    def __init__(self, values: tuple[int, ...] = ()) -> None:
        self.values = values
        Reduced.made += 1

    def __reduce__(self) -> Any:
        return Reduced, (self.values,)


class Node:
    def __init__(self) -> None:
        self.me = self
        self.inner: Any = Total()


KEYS: list[str | bytes] = [*(f"key {n}" for n in range(9)), *(b"key %d" % n for n in range(5)), ""]


@pytest.fixture
def keeper(native: bool) -> Keeper:
    return Keeper()


@pytest.fixture
def place(keeper: Keeper) -> Place:
    return keeper.store.place(1, "total", Total)


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Merge every delta at once, and let bounded caches be small."""
    monkeypatch.setattr(store_module, "_DELTAS", 1)
    monkeypatch.setattr(store_module, "_NATIVE", 1)
    monkeypatch.setattr(store_module, "_ABOVE", 4)


def add(place: Place, key: Any, value: int = 1) -> None:
    state = place.live[key]
    state.total += value
    state.seen.append(value)


def totals(place: Place, *keys: Any) -> list[int]:
    return [place.live[key].total for key in keys]


def again(keeper: Keeper) -> Place:
    return keeper.store.place(1, "total", Total)


# Rollback and restart


def test_a_rollback_undoes_what_is_not_committed(keeper: Keeper, place: Place) -> None:
    add(place, "a")
    add(place, "b")
    keeper.commit()
    add(place, "a")
    add(place, "c")
    keeper.roll_back()
    assert totals(place, "a", "b", "c") == [1, 1, 0]


def test_a_rollback_undoes_an_epoch_whose_delta_is_written_but_not_committed(
    keeper: Keeper, place: Place
) -> None:
    add(place, "a")
    keeper.commit()
    add(place, "a")
    add(place, "b")
    keeper.pass_barrier()
    add(place, "b")
    lost = keeper.write_delta()
    assert lost.name in keeper.disk.names(FOLDER)
    keeper.roll_back()
    assert totals(place, "a", "b") == [1, 0]
    assert lost.name not in keeper.disk.names(FOLDER)


def test_a_restart_goes_on_from_the_last_commit(keeper: Keeper, place: Place) -> None:
    for _ in range(3):
        add(place, "a")
        add(place, b"b", 2)
        keeper.commit()
    add(place, "a")
    keeper.restart()
    place = again(keeper)
    assert totals(place, "a", b"b") == [3, 6]
    assert place.live["a"].seen == [1, 1, 1]


def test_places_may_be_opened_before_or_after_recovery(keeper: Keeper, place: Place) -> None:
    add(place, "a")
    keeper.commit()
    keeper.disk.crash()
    keeper.store = keeper.open()
    place = again(keeper)
    keeper.roll_back()
    assert totals(place, "a") == [1]


@pytest.mark.usefixtures("eager")
def test_a_restart_finds_in_the_base_what_is_in_no_delta(keeper: Keeper, place: Place) -> None:
    add(place, "a")
    keeper.commit()
    assert keeper.merge() == keeping.merge_jobs()
    assert (keeper.store.base_epoch, keeper.store.deltas) == (1, ())
    assert keeper.disk.names(FOLDER) == []
    keeper.restart()
    place = again(keeper)
    assert keeper.store.in_memory == 0
    assert totals(place, "a", "b") == [1, 0]


@pytest.mark.usefixtures("eager")
def test_after_a_rollback_what_the_base_has_is_read_from_it(keeper: Keeper, place: Place) -> None:
    add(place, "a")
    keeper.commit()
    keeper.merge()
    add(place, "a")
    keeper.roll_back()
    assert totals(place, "a") == [1]


@pytest.mark.usefixtures("eager")
def test_while_all_entries_are_in_memory_the_base_is_not_asked(
    keeper: Keeper, place: Place
) -> None:
    for key in "abc":
        add(place, key)
        keeper.commit()
        keeper.merge()
    assert keeper.base.gets == 0


def test_an_epoch_that_touches_nothing_has_a_delta(keeper: Keeper, place: Place) -> None:
    add(place, "a")
    keeper.commit()
    keeper.commit()
    keeper.commit()
    assert [mark.epoch for mark in keeper.store.deltas] == [1, 2, 3]
    keeper.restart()
    assert totals(again(keeper), "a") == [1]


def test_user_classes_are_made_only_when_their_key_is_touched(keeper: Keeper) -> None:
    place = keeper.store.place(1, "reduced", Reduced)
    for key in "abc":
        place.live[key].values += (1,)
    keeper.commit()
    Reduced.made = 0
    keeper.restart()
    place = keeper.store.place(1, "reduced", Reduced)
    assert Reduced.made == 0
    assert place.live["b"].values == (1,)
    assert Reduced.made == 1


def test_an_object_that_refers_to_itself_comes_back_as_one(keeper: Keeper) -> None:
    place = keeper.store.place(1, "node", Node)
    place.live["a"].inner.total = 5
    keeper.commit()
    keeper.restart()
    state = keeper.store.place(1, "node", Node).live["a"]
    assert state.me is state
    assert state.inner.total == 5


def test_what_one_entry_holds_twice_it_holds_twice_afterwards(keeper: Keeper, place: Place) -> None:
    state = place.live["a"]
    state.other = state.seen
    keeper.commit()
    keeper.restart()
    state = again(keeper).live["a"]
    assert state.other is state.seen


@pytest.mark.usefixtures("eager")
def test_an_entry_in_the_base_lies_at_its_point(keeper: Keeper) -> None:
    place = keeper.store.place(3, "position", dict, point=lambda key: 7)
    place.live["part"]["at"] = 1
    keeper.commit()
    keeper.merge()
    assert list(keeper.base.entries) == [base_key(3, 7, "part")]


def test_state_of_a_class_that_is_ordinary_no_more_is_refused(keeper: Keeper, place: Place) -> None:
    add(place, "a")
    keeper.commit()
    keeper.restart()
    with pytest.raises(StateDamaged, match="another version of the application"):
        keeper.store.place(1, "total", dict)


# The number of keys


@pytest.mark.usefixtures("eager")
def test_keys_are_counted_through_rollback_and_restart(keeper: Keeper, place: Place) -> None:
    positions = keeper.store.place(2, "positions", dict, point=lambda key: 0)
    _ = positions.live["file"]
    add(place, "a")
    add(place, "b")
    assert keeper.store.keys == 2
    keeper.commit()
    add(place, "a")
    add(place, "c")
    keeper.pass_barrier()
    add(place, "d")
    assert keeper.store.keys == 4
    keeper.roll_back()
    assert keeper.store.keys == 2
    keeper.restart()
    assert keeper.store.keys == 2
    again(keeper)
    keeper.store.place(2, "positions", dict, point=lambda key: 0)
    keeper.merge()
    keeper.restart()
    assert keeper.store.keys == 2
    add(again(keeper), "a")
    assert keeper.store.keys == 2


# What a worker refuses to start from


def committed(keeper: Keeper, place: Place, epochs: int) -> None:
    for _ in range(epochs):
        add(place, "a")
        keeper.commit()


def test_a_missing_delta_is_refused(keeper: Keeper, place: Place) -> None:
    committed(keeper, place, 3)
    with pytest.raises(StateDamaged, match=r"epoch 3 was committed with deltas of \[1, 3\]"):
        keeper.open().recover(3, (keeper.marks[0], keeper.marks[2]))


def test_deltas_that_do_not_reach_the_epoch_are_refused(keeper: Keeper, place: Place) -> None:
    committed(keeper, place, 2)
    with pytest.raises(StateDamaged, match="not the one that this worker wrote last"):
        keeper.open().recover(3, keeper.marks)


def test_deltas_beyond_the_epoch_are_refused(keeper: Keeper, place: Place) -> None:
    committed(keeper, place, 2)
    with pytest.raises(StateDamaged):
        keeper.open().recover(1, keeper.marks)


@pytest.mark.usefixtures("eager")
def test_a_base_newer_than_the_epoch_is_refused(keeper: Keeper, place: Place) -> None:
    committed(keeper, place, 2)
    keeper.merge()
    with pytest.raises(StateDamaged, match="of epoch 2, which is newer than 1"):
        keeper.open().recover(1, ())


def test_a_base_that_is_gone_is_refused(keeper: Keeper, place: Place) -> None:
    with pytest.raises(StateDamaged, match=r"of epoch 0, and epoch 5 .* of no epoch after it"):
        keeper.open().recover(5, ())


def test_a_damaged_delta_is_refused_and_none_is_removed(keeper: Keeper, place: Place) -> None:
    committed(keeper, place, 2)
    path = FOLDER / keeper.marks[0].name
    keeper.disk.truncate(path, 20)
    with pytest.raises(StateDamaged, match="has 20 bytes"):
        keeper.open().recover(2, keeper.marks)
    assert len(keeper.disk.names(FOLDER)) == 2


def test_deltas_of_another_generation_are_removed_unread(keeper: Keeper, place: Place) -> None:
    committed(keeper, place, 1)
    Delta(keeper.disk, FOLDER, 1, 9, 0, []).write()
    Delta(keeper.disk, FOLDER, 2, 1, 0, []).write()
    keeper.restart()
    assert keeper.disk.names(FOLDER) == [keeper.marks[0].name]


# Merging


def test_deltas_are_merged_several_at_once_and_each_key_is_written_once(
    keeper: Keeper, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "_NATIVE", 1)
    for epoch in range(1, 9):
        add(place, "same")
        add(place, str(epoch))
        keeper.commit()
        assert keeper.merge() == (keeping.merge_jobs() if epoch == 8 else 0)
    assert keeper.base.writes == [9]
    assert keeper.store.base_epoch == 8
    keeper.restart()
    assert totals(again(keeper), "same", "1", "8") == [8, 1, 1]


def test_workers_take_turns_to_merge(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each after as many epochs as the others, but not all after the same ones."""
    monkeypatch.setattr(store_module, "_NATIVE", 1)
    merged: dict[float, list[int]] = {}
    for turn in (0.0, 0.5, 0.99):
        keeper = Keeper()
        keeper.turn = turn
        keeper.store = keeper.open()
        place = keeper.store.place(1, "total", Total)
        merged[turn] = []
        for epoch in range(1, 25):
            add(place, "same")
            keeper.commit()
            if keeper.merge():
                merged[turn].append(epoch)
    assert merged == {0.0: [8, 16, 24], 0.5: [6, 14, 22], 0.99: [5, 13, 21]}


@pytest.mark.parametrize("hastened", [False, True])
def test_jobs_pause_less_while_a_rescale_waits_for_them(
    keeper: Keeper, place: Place, hastened: bool
) -> None:
    if not keeping.NATIVE:
        pytest.skip("in Python it is done between batches")
    for _ in range(32):
        add(place, "same")
        keeper.commit()
    for _ in range(2):  # reads, and puts in order
        job = keeper.store.take_job()
        assert job
        keeper.store.job_done(job())
        keeper.work()
    assert set(keeper.pauses) == {3.0}
    keeper.pauses.clear()
    job = keeper.store.take_job()
    assert job
    if hastened:
        assert keeper.store.pin() is None
    keeper.store.job_done(job())
    assert keeper.store.base_epoch == 32
    assert set(keeper.pauses) == {1.0 if hastened else 3.0}


@pytest.mark.parametrize("jobs", range(6))
def test_the_base_is_pinned_as_it_is_until_a_merge_writes_it(
    keeper: Keeper, place: Place, jobs: int
) -> None:
    """Ruling 22: with the deltas that it lacks, which go only afterwards."""
    for _ in range(32):
        add(place, "same")
        keeper.commit()
    begun: Any = None
    for number in range(jobs):
        if number % 2:
            keeper.store.job_done(begun())
            keeper.work()
        else:
            begun = keeper.store.take_job()
            if begun is None:
                break
    found = keeper.store.pin()
    written = keeper.store.base_epoch
    assert (found is None) == (jobs == 2 * keeping.merge_jobs() - 1)
    if found is None:
        return
    view, committed = found
    assert (view.epoch, committed) == (written, 32)
    if jobs % 2 and begun:
        keeper.store.job_done(begun())
        keeper.work()
    assert keeper.store.take_job() is None
    read = []
    while job := keeper.store.pinned_job():
        read.append(job()[0])
    assert read == list(range(32, written, -1))
    keeper.store.unpin()
    keeper.merge()
    assert keeper.store.base_epoch == 32


@pytest.mark.usefixtures("native", "eager")
def test_what_memory_waits_for_is_written_while_the_base_is_pinned() -> None:
    """Ruling 22: a copy may take minutes; the deltas that it has yet to read stay meanwhile."""
    small = Keeper(cache=2)
    place = small.store.place(1, "total", Total)
    add(place, "early")
    small.commit()
    found = small.store.pin()
    assert found
    view, _ = found
    assert small.store.take_job() is None  # nothing waits for it
    for number in range(20):
        add(place, f"key {number}")
        small.commit()
        small.merge()
    assert not small.store.over
    assert small.store.base_epoch > 1
    assert view.epoch == 0
    job = small.store.pinned_job()
    assert job
    assert job()[0] == 1
    small.store.unpin()
    first = small.disk.names(FOLDER)[0]
    while small.store.deltas:
        add(place, "late")
        small.commit()
        small.merge()
    assert first not in small.disk.names(FOLDER)
    small.restart()
    assert totals(small.store.place(1, "total", Total), "early", "key 7") == [1, 1]


@pytest.mark.usefixtures("native")
def test_jobs_do_not_pause_while_too_much_waits_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "_ABOVE", 0)
    small = Keeper(cache=2)
    place = small.store.place(1, "total", Total)
    for key in KEYS:
        add(place, key)
    small.commit()
    assert small.store.pressed
    job = small.store.take_job()
    assert job
    small.store.job_done(job())
    assert small.pauses == []


@pytest.mark.usefixtures("eager")
def test_what_is_not_committed_is_not_merged(keeper: Keeper, place: Place) -> None:
    add(place, "a")
    keeper.pass_barrier()
    keeper.write_delta()
    assert keeper.store.take_job() is None


@pytest.mark.usefixtures("eager")
def test_a_delta_goes_only_once_the_base_is_synced(keeper: Keeper, place: Place) -> None:
    add(place, "a")
    keeper.commit()
    read = keeper.store.take_job()
    assert read
    assert keeper.store.take_job() is None
    keeper.store.job_done(read())
    assert keeper.store.take_job() is None, "it is not prepared yet"
    keeper.work()
    if keeping.NATIVE:
        take = keeper.store.take_job()
        assert take
        assert keeper.store.take_job() is None
        keeper.store.job_done(take())
    write = keeper.store.take_job()
    assert write
    assert keeper.store.take_job() is None
    keeper.disk.crash_at = keeper.disk.operations + 1
    with pytest.raises(Crashed):
        write()
    keeper.disk.crash_at = -1
    assert keeper.disk.names(FOLDER) == [keeper.marks[0].name]
    keeper.restart()
    assert totals(again(keeper), "a") == [1]


@pytest.mark.usefixtures("eager")
def test_a_rollback_during_a_merge_starts_the_merge_anew(keeper: Keeper, place: Place) -> None:
    add(place, "a")
    keeper.commit()
    read = keeper.store.take_job()
    assert read
    keeper.store.job_done(read())
    keeper.roll_back()
    assert keeper.merge() == keeping.merge_jobs()
    keeper.restart()
    assert totals(again(keeper), "a") == [1]


def test_the_bytes_of_deltas_are_not_kept_in_memory(keeper: Keeper, place: Place) -> None:
    add(place, "a")
    keeper.commit()
    assert not keeper.store._blocks
    assert all(isinstance(mark, DeltaMark) for mark in keeper.store.deltas)


# Slices


def test_work_stops_when_the_time_is_up(keeper: Keeper) -> None:
    place = keeper.store.place(1, "list", list)
    for number in range(2000):
        _ = place.live[str(number)]
    place.freeze()
    slices = 0
    while keeper.store.work(0):
        slices += 1
        assert keeper.store.encoded or slices < 4000
    assert slices > 8
    assert keeper.store.encoded


def test_a_delta_can_not_be_taken_before_its_entries_are_encoded(
    keeper: Keeper, place: Place
) -> None:
    add(place, "a")
    keeper.pass_barrier()
    assert not keeper.store.encoded
    with pytest.raises(RuntimeError, match="encoded"):
        keeper.store.take_delta(1, 1)


def test_a_delta_can_not_be_taken_before_all_places_have_passed(
    keeper: Keeper, place: Place
) -> None:
    keeper.store.place(2, "other", dict)
    place.freeze()
    keeper.work()
    with pytest.raises(RuntimeError, match="all places"):
        keeper.store.take_delta(1, 1)


def test_what_an_epoch_touched_is_taken_apart_bit_by_bit(keeper: Keeper, place: Place) -> None:
    for _ in range(2):
        for number in range(3000):
            add(place, str(number))
        keeper.commit()
    assert not keeper.store._waste
    assert keeper.store.in_memory == 3000
    assert totals(place, "0", "2999") == [2, 2]


# The bounded cache


@pytest.fixture
def small(native: bool) -> Keeper:
    return Keeper(cache=10)


@pytest.mark.usefixtures("eager")
def test_a_bounded_cache_drops_what_the_base_has(small: Keeper) -> None:
    place = small.store.place(1, "total", Total)
    for number in range(100):
        add(place, str(number), number)
        if number % 5 == 4:
            small.commit()
            small.merge()
    assert small.store.in_memory <= 10
    assert totals(place, *map(str, range(100))) == list(range(100))
    assert small.store.keys == 100


@pytest.mark.usefixtures("eager")
def test_what_the_base_has_not_synced_is_not_dropped(small: Keeper) -> None:
    place = small.store.place(1, "total", Total)
    for number in range(30):
        add(place, str(number))
    small.commit()
    assert small.store.in_memory == 30
    for number in range(30, 60):
        add(place, str(number))
    small.merge()
    assert small.store.in_memory == 30
    assert totals(place, *map(str, range(60))) == [1] * 60


@pytest.mark.usefixtures("eager")
def test_sources_are_to_pause_while_far_too_many_entries_are_in_memory(small: Keeper) -> None:
    place = small.store.place(1, "total", Total)
    for number in range(20):
        add(place, str(number))
    assert not small.store.over
    add(place, "one more")
    assert small.store.over
    small.commit()
    small.merge()
    assert not small.store.over


def test_too_many_entries_start_a_merge_at_once(
    small: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "_ABOVE", 4)
    place = small.store.place(1, "total", Total)
    add(place, "a")
    small.commit()
    assert small.merge() == 0
    for number in range(20):
        add(place, str(number))
    small.commit()
    assert small.merge() == keeping.merge_jobs()


@pytest.mark.usefixtures("eager")
def test_entries_touched_since_the_merge_before_are_spared_once(small: Keeper) -> None:
    place = small.store.place(1, "total", Total)
    for number in range(10):
        add(place, f"old {number}")
    small.commit()
    small.merge()
    for number in range(5):
        add(place, f"new {number}")
    add(place, "old 0")
    small.commit()
    small.merge()
    assert {"old 0", "new 0"} <= dict(place.items()).keys()
    assert small.store.in_memory == 10


@pytest.mark.usefixtures("eager")
def test_a_bounded_cache_is_bounded_after_a_restart_too(small: Keeper) -> None:
    place = small.store.place(1, "reduced", Reduced)
    for number in range(40):
        place.live[str(number)].values += (number,)
    small.commit()
    small.restart()
    place = small.store.place(1, "reduced", Reduced)
    assert small.store.in_memory == 40
    small.merge()
    assert small.store.in_memory <= 10
    assert place.live["7"].values == (7,)


def test_a_store_without_a_bound_is_never_over(keeper: Keeper, place: Place) -> None:
    for number in range(100):
        add(place, str(number))
    assert not keeper.store.over


def test_closing_lets_go_of_the_base(keeper: Keeper) -> None:
    keeper.store.close()
    assert keeper.base.closed


# All of it at random, against plain dicts


def touch_total(state: Any, value: int) -> None:
    state.total += value
    state.seen = [*state.seen[-3:], value]


def touch_dict(state: Any, value: int) -> None:
    state[value % 5] = value


def touch_list(state: Any, value: int) -> None:
    state.append(value)
    del state[:-4]


def touch_reduced(state: Any, value: int) -> None:
    state.values = (*state.values[-3:], value)


def touch_node(state: Any, value: int) -> None:
    touch_total(state.inner, value)


def show(state: Any) -> Any:
    if isinstance(state, Total):
        return state.total, list(state.seen)
    if isinstance(state, Reduced):
        return state.values
    if isinstance(state, Node):
        assert state.me is state
        return show(state.inner)
    return deepcopy(state)


KINDS: list[tuple[int, Callable[[], Any], Callable[[Any, int], None], Any]] = [
    (1, Total, touch_total, None),
    (2, dict, touch_dict, None),
    (3, list, touch_list, None),
    (4, Reduced, touch_reduced, None),
    (5, Node, touch_node, None),
    (6, dict, touch_dict, len),
]


class Simulation:
    """A worker's life by chance: every wait may be long, every disk operation the last."""

    def __init__(self, seed: int, cache: int | None) -> None:
        self.chance = random.Random(seed)
        self.keeper = Keeper(cache, seed)
        #: What a plain dict would hold now, and at the end of the last committed epoch.
        self.model: dict[int, dict[Any, Any]] = {number: {} for number, *_ in KINDS}
        self.commit = deepcopy(self.model)
        #: The same at the barrier that is passing.
        self.cut: dict[int, dict[Any, Any]] = {}
        self.script = self.epochs()
        self.job: Any = None
        #: How often there is time to work.
        self.pace = self.chance.choice((0.03, 0.2))
        self.open()

    def open(self) -> None:
        self.places = {
            number: self.keeper.store.place(number, str(number), make, point)
            for number, make, _, point in KINDS
        }

    def touch(self) -> None:
        number, make, mutate, _ = self.chance.choice(KINDS)
        key = self.chance.choice(KEYS)
        state = self.places[number].live[key]
        expected = self.model[number].setdefault(key, make())
        assert show(state) == show(expected), (number, key)
        value = self.chance.randrange(1000)
        mutate(state, value)
        mutate(expected, value)

    def epochs(self) -> Iterator[None]:
        """What happens to an epoch, one step at a time."""
        while True:
            store, epoch = self.keeper.store, self.keeper.epoch + 1
            self.cut = {}
            for number in self.chance.sample(list(self.places), len(self.places)):
                self.places[number].freeze()
                self.cut[number] = deepcopy(self.model[number])
                yield
            while not store.encoded:
                yield
            delta = store.take_delta(epoch, self.chance.randrange(3))
            yield
            mark = delta.write()
            yield
            store.wrote(mark)
            marks = store.deltas
            for _ in range(self.chance.randrange(10)):
                yield
            # Nothing happens between the coordinator's commit and what it is.
            self.keeper.epoch, self.keeper.marks, self.commit = epoch, marks, self.cut
            for _ in range(self.chance.randrange(3)):
                yield
            store.committed(epoch)
            for _ in range(self.chance.randrange(10)):
                yield

    def background(self) -> None:
        store = self.keeper.store
        if self.job is None:
            self.job = store.take_job()
        elif callable(self.job):
            self.job = [self.job()]
        else:
            store.job_done(self.job[0])
            self.job = None

    def roll_back(self) -> None:
        if callable(self.job):
            result = self.job()
            if self.chance.random() < 0.5:
                self.keeper.store.job_done(result)
        self.job = None
        self.keeper.roll_back()
        self.rolled_back()

    def restart(self) -> None:
        self.job = None
        self.keeper.disk.crash_at = -1
        self.keeper.disk.crash()
        self.keeper.store = self.keeper.open()
        before = self.chance.random() < 0.5
        if before:
            self.open()
        self.keeper.roll_back()
        self.open()
        self.rolled_back()

    def rolled_back(self) -> None:
        self.model = deepcopy(self.commit)
        self.script = self.epochs()
        assert self.keeper.store.keys == self.keys()

    def keys(self) -> int:
        return sum(len(self.model[number]) for number, *_, point in KINDS if point is None)

    def step(self) -> None:
        store = self.keeper.store
        action = self.chance.random()
        if action < 0.5:
            self.touch()
        elif action < 0.5 + self.pace:
            store.work(self.keeper.clock() + self.chance.randrange(20))
        elif action < 0.85:
            next(self.script)
        elif action < 0.96:
            self.background()
        elif action < 0.97:
            self.roll_back()
        elif action < 0.98:
            self.restart()
        elif action < 0.99:
            self.keeper.disk.crash_at = self.keeper.disk.operations + self.chance.randrange(1, 12)
        else:
            assert store.keys == self.keys()
            if store._complete:
                assert store.in_memory == sum(map(len, self.model.values()))

    def run(self, steps: int) -> None:
        for _ in range(steps):
            try:
                self.step()
            except Crashed:
                try:
                    self.restart()
                except Crashed:
                    self.restart()
        self.check()
        self.restart()
        self.check()

    def check(self) -> None:
        for number, expected in self.model.items():
            live = self.places[number].live
            assert {key: show(live[key]) for key in expected} == {
                key: show(state) for key, state in expected.items()
            }


@pytest.mark.parametrize("cache", [None, 12], ids=["unbounded", "bounded"])
@pytest.mark.parametrize("seed", range(60))
def test_at_random_the_state_is_that_of_plain_dicts(
    native: bool, seed: int, cache: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "_DELTAS", 1 + seed % 4)
    monkeypatch.setattr(store_module, "_NATIVE", 1)
    monkeypatch.setattr(store_module, "_ABOVE", 4)
    monkeypatch.setattr(store_module, "_AT_ONCE", 400 * (seed % 3))
    Simulation(seed, cache).run(600)


class Shade(StrEnum):
    RED = "red"


def test_a_key_of_a_str_class_is_stored_as_the_str_that_it_is(keeper: Keeper, place: Place) -> None:
    """It comes again in every epoch: what is found in memory is found by the exact key, too."""
    for _ in range(3):
        place.live[Shade.RED]
        keeper.commit()
    keeper.restart()
    again = keeper.store.place(place.number, place.name, place._make)
    assert [type(key) for key, _ in again.items()] == [str]


def test_attributes_whose_names_are_no_str_come_back(keeper: Keeper, place: Place) -> None:
    vars(place.live["a"])[5] = "five"
    keeper.commit()
    keeper.restart()
    again = keeper.store.place(place.number, place.name, place._make)
    assert vars(again.live["a"])[5] == "five"
