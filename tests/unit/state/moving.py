"""Workers' states between which rescales move keys, driven by hand or by a seed.

`Owner` is one worker's store with its disk; `Movers` are several, with an assignment, donors and
stagings between them, and a plain dict that says what each key's state has to be.
"""

import random
from collections import deque
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

from tests.unit.connectors.forgetful import Crashed
from tests.unit.state.keeping import DictBase, Keeper

from wallaroo.partitioning import Assignment, hash_key
from wallaroo.partitioning.rewrite import Move, moves, rewrite
from wallaroo.protocol import manifest
from wallaroo.state.donor import Donor
from wallaroo.state.live import Place
from wallaroo.state.parcels import Parcel, decode_parcel, encode_parcel
from wallaroo.state.settlement import Tenure
from wallaroo.state.staging import Staging


class Counter:
    count = 0


def position(name: str | bytes) -> int:
    """The point of a partition."""
    return hash_key(f"partition {name!r}")


#: Number, name and point function of each place.
PLACES: list[tuple[int, str, Callable[[Any], int] | None]] = [
    (1, "count", None),
    (2, "total", None),
    (3, "numbers", position),
]


class Parcels:
    """An outlet that keeps what it is given, as it would travel."""

    def __init__(self) -> None:
        self.frames: deque[bytes] = deque()
        self.ended = False
        self.room = True

    @property
    def has_room(self) -> bool:
        return self.room

    def add(self, parcel: Parcel) -> int:
        assert not self.ended, "nothing follows the end"
        frame = encode_parcel(parcel)
        self.frames.append(frame)
        return len(frame)

    def end(self) -> None:
        assert not self.ended
        self.ended = True

    @property
    def parcels(self) -> list[Parcel]:
        return [decode_parcel(frame) for frame in self.frames]

    def take(self) -> list[Parcel]:
        """What has come since the last time."""
        parcels = self.parcels
        self.frames.clear()
        return parcels


def owned(assignment: Assignment, worker: int) -> tuple[tuple[int, int], ...]:
    return tuple((piece.start, piece.end) for piece in assignment.pieces_of(worker))


class Owner(Keeper):
    """A worker's store, with what the manifest says of it."""

    def __init__(self, worker: int, cache: int | None = None, seed: int = 0) -> None:
        self.worker = worker
        self.tenure = Tenure()
        #: What the manifest says that it was given; all stagings that are on its disk.
        self.mark: manifest.Staging | None = None
        self.stagings: dict[str, DictBase] = {}
        super().__init__(cache, seed)
        self.open_places()

    def open_places(self) -> None:
        for number, name, point in PLACES:
            self.store.place(number, name, Counter, point)

    def place(self, number: int) -> Place:
        return self.store.places[number]

    def owns(self, assignment: Assignment) -> None:
        """From now on a first touch of what this assignment gives to others is a mistake."""
        for place in self.store.places.values():
            place.owns = lambda point: assignment.owner(point) == self.worker

    def roll_back(self) -> None:
        staging = None
        if self.mark and not self.store.has_settled(self.tenure.version):
            staging = Staging(self.mark, self.stagings[self.mark.id])
        self.store.recover(self.epoch, self.marks, self.tenure, staging)
        self.open_places()

    def stage(self, mark: manifest.Staging, donors: Sequence[int]) -> Staging:
        base = self.stagings[mark.id] = DictBase(self.disk)
        return Staging(mark, base, donors, [number for number, *_ in PLACES])

    def settle(self) -> None:
        """Do all there is to do."""
        self.store.hastened = True
        for _ in range(1000):
            self.work()
            if not self.merge() and self.store.settled:
                return
        raise AssertionError("it does not settle")

    def entries(self) -> dict[int, set[Any]]:
        """By place, the points of what its base has."""
        found: dict[int, set[Any]] = {number: set() for number, *_ in PLACES}
        for key in self.base.entries:
            found[int.from_bytes(key[:2], "big")].add(int.from_bytes(key[2:10], "big"))
        return found


class Attempt:
    """One rescale between `Movers`."""

    def __init__(self, movers: "Movers", new: Assignment, number: int) -> None:
        self.new = new
        self.moves = moves(movers.assignment, new)
        self.outlets: dict[tuple[int, int], Parcels] = {}
        self.donors: dict[int, Donor] = {}
        self.stagings: dict[int, Staging] = {}
        for donor in {move.donor for move in self.moves}:
            giving = [move for move in self.moves if move.donor == donor]
            outlets = {receiver: Parcels() for receiver in {move.receiver for move in giving}}
            self.outlets |= {(donor, receiver): each for receiver, each in outlets.items()}
            owner = movers.owners[donor]
            self.donors[donor] = Donor(owner.store, giving, outlets, owner.clock)
            self.donors[donor].allowed = True
        for receiver in {move.receiver for move in self.moves}:
            getting = [move for move in self.moves if move.receiver == receiver]
            ranges = tuple((move.start, move.end) for move in getting)
            mark = manifest.Staging(f"1-{number}", ranges)
            donors = sorted({move.donor for move in getting})
            self.stagings[receiver] = movers.owners[receiver].stage(mark, donors)

    def move(self, point: int) -> Move | None:
        """The move that a point is part of."""
        return next((move for move in self.moves if move.start <= point < move.end), None)

    def close(self) -> None:
        for donor in self.donors.values():
            donor.close()


class Movers:
    """Workers 0 .. `workers` - 1, and those that come and go."""

    def __init__(self, seed: int, workers: int = 3, cache: int | None = None) -> None:
        self.chance = random.Random(seed)
        self.seed = seed
        self.cache = cache
        self.assignment = Assignment.first(workers)
        self.owners: dict[int, Owner] = {}
        self.epoch = 0
        self.attempts = 0
        #: What each key's state is now, and was at the last commit.
        self.model: dict[tuple[int, Any], int] = {}
        self.durable: dict[tuple[int, Any], int] = {}
        for worker in range(workers):
            self.owners[worker] = owner = Owner(worker, cache, seed + worker)
            owner.tenure = Tenure(1, owned(self.assignment, worker))
            owner.owns(self.assignment)

    def owner(self, number: int, key: Any, assignment: Assignment | None = None) -> Owner:
        point = self.owners[0].place(number).point(key)
        return self.owners[(assignment or self.assignment).owner(point)]

    def touch(self, times: int = 1, *, during: Attempt | None = None) -> None:
        """Random keys; during a switch those of which all is here."""
        for _ in range(times):
            number, *_ = self.chance.choice(PLACES)
            key = f"key {self.chance.randrange(80)}"
            self.touch_key(number, key, during=during)

    def touch_key(self, number: int, key: Any, *, during: Attempt | None = None) -> None:
        owner = self.owner(number, key, during.new if during else None)
        if during:
            move = during.move(owner.place(number).point(key))
            if move and (move.donor, number) in during.stagings[move.receiver].awaited:
                return  # it is held back
        state = owner.place(number).live[key]
        assert state.count == self.model.get((number, key), 0), (number, key)
        state.count += 1
        self.model[number, key] = state.count

    def commit(self) -> None:
        for owner in self.owners.values():
            owner.pass_barrier()
        for owner in self.owners.values():
            owner.write_delta()
        self._is_committed()

    def _is_committed(self) -> None:
        self.epoch += 1
        self.durable = deepcopy(self.model)
        for owner in self.owners.values():
            owner.epoch = self.epoch
            owner.marks = owner.store.deltas
            owner.store.committed(self.epoch)

    def background(self) -> None:
        """A little of what the stores do in their own time."""
        for owner in self.owners.values():
            owner.store.work(owner.clock() + self.chance.randrange(40))
            job = owner.store.take_job() if self.chance.random() < 0.5 else None
            if job:
                owner.store.job_done(job())

    # Rescales

    def begin(self, members: Sequence[int]) -> Attempt:
        for owner in self.owners.values():
            owner.settle()
        new = rewrite(self.assignment, members)
        for worker in set(members) - self.owners.keys():
            self.attempts += 1
            owner = self.owners[worker] = Owner(worker, self.cache, self.seed + self.attempts)
            owner.epoch = self.epoch
            owner.tenure = Tenure(self.assignment.version, (), 0, self.epoch + 1)
            owner.roll_back()
            owner.settle()
        self.attempts += 1
        return Attempt(self, new, self.attempts)

    def copy(self, attempt: Attempt) -> None:
        """A little of it."""
        for donor in attempt.donors.values():
            donor.work(donor._clock() + self.chance.randrange(20))
            if job := donor.take_job():
                donor.job_done(job())
        self.deliver(attempt)

    def deliver(self, attempt: Attempt) -> None:
        for (donor, receiver), outlet in attempt.outlets.items():
            staging = attempt.stagings[receiver]
            for _ in range(self.chance.randrange(4)):
                if outlet.frames:
                    staging.take(donor, outlet.frames.popleft())
            if job := staging.take_job():
                staging.job_done(job())

    def caught_up(self, attempt: Attempt) -> bool:
        return all(each.epoch >= self.epoch for each in attempt.stagings.values())

    def give_up(self, attempt: Attempt) -> None:
        attempt.close()
        for owner in self.owners.values():
            owner.stagings = {
                k: v for k, v in owner.stagings.items() if owner.mark and k == owner.mark.id
            }
        self.dismiss(set(self.owners) - set(self.assignment.workers))

    def dismiss(self, workers: set[int]) -> None:
        for worker in workers:
            del self.owners[worker]

    def switch(self, attempt: Attempt) -> None:
        """Up to where the epoch of the switch is ready to be committed."""
        for receiver, staging in attempt.stagings.items():
            self.owners[receiver].store.receive(staging)
        for donor in attempt.donors.values():
            donor.switch()
        for owner in self.owners.values():
            owner.pass_barrier()
            owner.owns(attempt.new)
        while not all(owner.store.encoded for owner in self.owners.values()):
            self.chance.choice(list(self.owners.values())).store.work(0)
            self.deliver(attempt)
            self.touch(self.chance.randrange(2), during=attempt)
        for owner in self.owners.values():
            mark = owner.store.take_delta(self.epoch + 1, 1).write()
            owner.store.wrote(mark)
        while not all(staging.durable for staging in attempt.stagings.values()):
            self.deliver(attempt)
            self.touch(self.chance.randrange(2), during=attempt)

    def commit_switch(self, attempt: Attempt) -> None:
        before = self.durable
        self._is_committed()
        # What was touched behind the barrier is not of this epoch.
        self.durable = before
        self.assignment = attempt.new
        attempt.close()
        for worker, owner in self.owners.items():
            staging = attempt.stagings.get(worker)
            joined = owner.tenure.joined
            owner.mark = staging.mark if staging else None
            mine = owned(attempt.new, worker)
            owner.tenure = Tenure(attempt.new.version, mine, self.epoch, joined)
            if worker in attempt.new.workers:
                owner.store.switched(owner.tenure)
        self.dismiss(set(self.owners) - set(attempt.new.workers))

    def rescale(self, members: Sequence[int], *, outcome: str = "") -> None:
        """All of a rescale, while events flow; it may be given up, or a fault may undo it.

        outcome: "given up", "fault", or whatever comes.
        """
        attempt = self.begin(members)
        if not outcome:
            outcome = self.chance.choice(("committed", "committed", "given up", "fault"))
        while not self.caught_up(attempt):
            self.touch(self.chance.randrange(6))
            self.copy(attempt)
            self.background()
            if self.chance.random() < 0.1:
                self.commit()
        if outcome == "given up":
            self.give_up(attempt)
            return
        self.touch(self.chance.randrange(10))
        self.commit()
        at_barrier = deepcopy(self.model)
        self.switch(attempt)
        if outcome == "fault":
            attempt.close()
            self.dismiss(set(self.owners) - set(self.assignment.workers))
            self.recover()
            return
        self.durable = at_barrier
        self.commit_switch(attempt)

    def recover(self) -> None:
        """All go back to what is committed."""
        self.model = deepcopy(self.durable)
        for owner in self.owners.values():
            owner.roll_back()
            owner.owns(self.assignment)

    def restart(self) -> None:
        """One crashes; all go back."""
        owner = self.chance.choice(list(self.owners.values()))
        owner.disk.crash_at = -1
        owner.restart()
        self.recover()

    def crash_while_settling(self) -> None:
        """The disk of one fails at any step of its work."""
        owner = self.chance.choice(list(self.owners.values()))
        owner.disk.crash_at = owner.disk.operations + self.chance.randrange(1, 8)
        try:
            owner.settle()
        except Crashed:
            owner.disk.crash_at = -1
            owner.restart()
            self.recover()
        owner.disk.crash_at = -1

    # What must hold

    def keys(self) -> int:
        counting = {number for number, _, point in PLACES if point is None}
        return sum(number in counting for number, _ in self.model)

    def check(self) -> None:
        """Every key is where it belongs, and nowhere else, and is what it must be."""
        for (number, key), count in self.model.items():
            assert self.owner(number, key).place(number).live[key].count == count, (number, key)

    def check_settled(self) -> None:
        """The same, of what is stored."""
        for owner in self.owners.values():
            owner.settle()
            for points in owner.entries().values():
                assert all(owner.tenure.owns(point) for point in points), "what is another's"
            for place in owner.store.places.values():
                stays = owner.tenure.owns
                memory = [*place.rest, *place.stored]
                assert all(stays(place.point(key)) for key in memory), "what is another's"
        assert sum(owner.store.keys for owner in self.owners.values()) == self.keys()
