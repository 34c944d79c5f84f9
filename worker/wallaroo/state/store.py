"""A worker's state: what is in memory, the deltas of the last epochs, and the base.

An entry touched in an epoch is written thrice: encoded after the barrier, in the epoch's delta,
and, once that is committed, in the base. Whoever owns the store calls `work` between batches, so
that encoding, merging and forgetting happen in slices of a fraction of a millisecond; what
waits for the disk is handed out as jobs, which share nothing with the store and may run in another
thread.

The cache of entries may be bounded: then entries that the base has synced are dropped, the oldest
first, unless they have been touched since the merge before.

After a rescale the store *settles*: what it was given goes from the staging into the base, what it
gave away goes from base and memory, and the base notes the version of the assignment. Until then
the staging is what is read, and what it gave away is never asked for. There is no hurry unless the
next rescale waits for it, so workers take turns.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from wallaroo.disk import Disk
from wallaroo.protocol.manifest import DeltaMark
from wallaroo.state.base import Base, Batch, View
from wallaroo.state.codec import Codec
from wallaroo.state.delta import Content, Delta, is_delta, read_delta
from wallaroo.state.entries import (
    ATTRIBUTES,
    ENTRIES,
    Block,
    Form,
    Key,
    StateDamaged,
    as_entries,
    base_key,
    key_at,
    open_block,
    open_rows,
)
from wallaroo.state.live import CHUNK, MISSING, Live, Place, stored_at
from wallaroo.state.native import AVAILABLE, NativePlace, new_merge
from wallaroo.state.settlement import Settlement, Tenure
from wallaroo.state.staging import Staging
from wallaroo.state.throttle import Throttle, Worked

if TYPE_CHECKING:
    from wallaroo.state import _native

#: How many committed deltas are merged at once, or how many bytes of them if that is more than
#: half the base.
_DELTAS = 8
_BYTES = 32 << 20
#: How many times more deltas wait where restoring an entry costs less.
_NATIVE = 4
#: Blocks that are put into a merge at once, and entries that are taken out of it.
_ADDED, _TAKEN = 8, 512
#: Most bytes of deltas merged at once: they are in memory meanwhile.
_AT_ONCE = 256 << 20
#: How far above a bounded cache sources go on, in entries, if the cache is smaller than that.
_ABOVE = 50_000
#: Most entries of what is freed at once: 3 to 8 ms, a tenth of what one by one takes.
_AT_A_TIME = 200_000
#: A chunk should take about this long, in seconds.
_SLICE = 0.0003
#: Seconds after a rescale in which all workers begin to settle if nothing waits for it; none does
#: in the first half of them.
_SETTLING = 10.0
#: By how much of an interval between merges the first of a worker may be ahead of another's.
_AHEAD = 0.5


#: What stands for the entries that an epoch has touched at a place.
Touched = Live | int


class Catcher(Protocol):
    """Looks on as epochs are encoded and committed: who gives entries away."""

    def caught(self, block: Block) -> None:
        """A block has been encoded."""

    def ended(self, place: int) -> None:
        """All of a place is encoded that the epoch touched."""

    def sealed(self, epoch: int) -> None:
        """The delta of an epoch is complete."""

    def committed(self, epoch: int) -> None:
        """An epoch is committed."""


class _Stage(Enum):
    """What is being done for a merge; all but `PREPARING` by a job."""

    READING = "its deltas are read"
    PREPARING = "their blocks are put in order, between events"
    TAKING = "what was put in order in C goes into the batch"
    WRITING = "the batch is written"


@dataclass
class _Merge:
    """Deltas on their way into the base, newest first."""

    marks: list[DeltaMark]
    batch: Batch
    #: Takes the blocks that were encoded by it; None if that is not available.
    native: "_native.Merge | None"
    #: What is left of them: blocks of the newest first, with the number of newer deltas.
    blocks: deque[tuple[int, Block]] = field(default_factory=deque)
    keys: int = 0
    #: How many blocks the oldest of them has.
    oldest: int = 0
    #: By place, the keys that are in the batch, of those blocks.
    seen: dict[int, set[Key]] = field(default_factory=dict)
    stage: _Stage = _Stage.READING

    @property
    def epoch(self) -> int:
        return self.marks[0].epoch


class Store:
    """The state of all places of a pipeline on one worker.

    folder: of the deltas; it is made. clock: in seconds, monotonic. cache: how many entries to
    keep in memory, None for all. throttle: keeps jobs from taking too much of a processor. turn: in
    [0, 1), by which workers on one machine take turns to merge. native: whether to use what is
    written in C.

    Before anything is touched comes `recover`, at a start too, unless the folders are known to be
    empty. Raises OSError.
    """

    def __init__(
        self,
        disk: Disk,
        folder: Path,
        codec: Codec,
        base: Base,
        clock: Callable[[], float],
        cache: int | None = None,
        *,
        throttle: Throttle | None = None,
        turn: float = 0.0,
        native: bool = AVAILABLE,
    ) -> None:
        self._disk = disk
        self._folder = folder
        self._codec = codec
        self._base = base
        self._clock = clock
        self._cache = cache
        self._throttle = throttle or Throttle()
        self._turn = turn
        #: What share of an interval the next merge comes sooner.
        self._ahead = _AHEAD * turn
        #: When to begin to settle.
        self._settling_from = 0.0
        #: Deltas, or entries in memory, become too many: no time for pauses.
        self._behind = False
        #: A rescale waits for what is done in the background.
        self.hastened = False
        self._native = native
        self._places: dict[int, Place] = {}
        #: Whether all entries there are, are in memory, or in the staging.
        self._complete = base.stamp.epoch == 0
        #: Entries ever made, up to the last epoch taken.
        self._keys = base.stamp.keys
        self._committed = base.stamp.epoch
        self._deltas: list[DeltaMark] = []
        #: The last epochs whose delta was taken, and was written.
        self._taken = self._written = 0
        #: The last committed epoch, and how many deltas there were, when none was to be merged.
        self._not_due = (-1, -1)
        # The epoch whose barrier is passing
        self._frozen: list[tuple[Place, Touched]] = []
        self._encoding: deque[Place] = deque()
        self._settling: deque[Place] = deque()
        self._blocks: list[Block] = []
        #: What each epoch that isn't in the base has touched; only what isn't committed if the
        #: cache has no bound.
        self._touched: dict[int, list[tuple[Place, Touched]]] = {}
        self._merge: _Merge | None = None
        #: Dicts and sets to be freed, very large ones bit by bit.
        self._waste: deque[dict[Any, Any] | set[Any]] = deque()
        #: Restored blocks of places that are not open yet, newest first, by place.
        self._unopened: dict[int, list[tuple[int, Block]]] = {}
        #: The epoch of the last recovery.
        self._restored = 0
        #: What the last merge brought, which eviction spares once; if the cache is bounded.
        self._recent: list[tuple[Place, Touched]] = []
        #: By place where it may be possible: how many entries eviction has kept in a row.
        self._evictable: dict[int, int] = {}
        # A rescale
        self._tenure = Tenure(max(1, base.stamp.version))
        self._staging: Staging | None = None
        self._catcher: Catcher | None = None
        #: Deltas that a donor has yet to read; the names of those that stay until it is done, and
        #: of those that have stayed though the base has them.
        self._pinned: list[DeltaMark] | None = None
        self._held: set[str] = set()
        self._left: list[str] = []
        self._settlement: Settlement | None = None
        #: The version for which memory holds nothing that is another's, and places to look at.
        self._clean = self._tenure.version
        self._cleaning: deque[Place] = deque()
        disk.make_folder(folder)

    # Places

    def place(
        self,
        number: int,
        name: str,
        make: Callable[[], Any],
        point: Callable[[Any], int] | None = None,
    ) -> Place:
        """The state at a place of the pipeline; the same whenever it is asked for.

        number: names the place in what is stored, below 65536. make: makes the state of a new
        key. point: of a key in the hash interval, if that is not its hash; such a place's keys are
        not counted.
        """
        place = self._places.get(number)
        if place is None:
            kind: Any = NativePlace if self._native else Place
            place = self._places[number] = kind(
                number,
                name,
                make,
                point,
                form=Form(self._codec, number, name, make),
                load=lambda key: self._load(number, key),
                frozen=self._has_frozen,
                track=self._cache is not None,
            )
            for epoch, block in self._unopened.pop(number, ()):
                self._restore(epoch, block)
        assert place is not None
        return place

    @property
    def places(self) -> dict[int, Place]:
        """All places, by number."""
        return self._places

    def _load(self, number: int, key: Key) -> Any:
        staging = self._staging
        if self._complete and staging is None:
            return MISSING
        place = self._places[number]
        point = place.point(key)
        if staging is not None and staging.mark.covers(point):
            entry = staging.get(base_key(number, point, key))
        elif self._complete:
            entry = None
        else:
            entry = self._base.get(base_key(number, point, key))
        return MISSING if entry is None else place.form.value(key, entry)

    def _has_frozen(self, place: Place) -> None:
        if any(place is each for each, _ in self._frozen):
            raise RuntimeError(f"{place.name} passed two barriers before the first one's delta")
        frozen: Touched | None = place.frozen
        assert frozen is not None
        self._frozen.append((place, frozen))
        self._encoding.append(place)
        self._settling.append(place)

    @property
    def keys(self) -> int:
        """How many entries have been made here, of places without a point function."""
        return (
            self._keys
            + self._base.stamp.moved
            + sum(place.made + place.frozen_made for place in self._places.values() if place.counts)
        )

    @property
    def in_memory(self) -> int:
        """How many entries are in memory."""
        return sum(place.count for place in self._places.values())

    @property
    def over(self) -> bool:
        """Whether far more entries are in memory than should be: sources had better pause."""
        return self._cache is not None and self._above(1.0)

    @property
    def pressed(self) -> bool:
        """Whether entries have to be written soon, so that fewer can be in memory."""
        return self._cache is not None and self._above(0.25)

    def _above(self, share: float) -> bool:
        assert self._cache is not None
        return self.in_memory > self._cache + share * max(self._cache, _ABOVE)

    # Work in slices

    @property
    def encoded(self) -> bool:
        """Whether nothing that has passed a barrier is left to encode."""
        return not self._encoding

    @property
    def cleaned(self) -> bool:
        """Whether nothing is left in memory of what a rescale has taken."""
        return not self._cleaning

    def work(self, until: float) -> bool:
        """Do what there is to do, until the clock is at `until`; whether there may be more.

        Does at least one slice, of about 0.3 ms. Raises `StateRefused`, `StateDamaged`.
        """
        if self.over:
            # Sources wait for it, and epochs that follow one another may always leave something
            # to encode.
            self._relieve()
        while self._slice():
            if self._clock() >= until:
                return True
        return False

    def _slice(self) -> bool:
        """Do a little; False if there is nothing to do."""
        if self._encoding:
            self._encode()
        elif self._settling:
            if not self._settling[0].settle():
                self._settling.popleft()
        elif self.over and self._relieve():
            pass  # first of all, for sources wait for it
        elif self._waste:
            self._tidy()
        elif self._cleaning:
            if not self._cleaning[0].clean():
                self._cleaning.popleft()
        else:
            return self._relieve()
        return True

    def _relieve(self) -> bool:
        """Bring entries a little nearer to where memory can do without them."""
        if self._settlement:
            return self._settlement.prepare()
        if self._unsettled and self._merge is None:
            return self._maybe_settle()
        if self._merge and self._merge.blocks:
            self._prepare(self._merge)
            return True
        return self._evict()

    def _encode(self) -> None:
        place = self._encoding[0]
        began = self._clock()
        block = place.encode()
        took = self._clock() - began
        if took > _SLICE:
            place.chunk = max(1, place.chunk // 2)
        elif took < _SLICE / 4:
            place.chunk = min(CHUNK, place.chunk * 2)
        if block is None:
            self._encoding.popleft()
            if self._catcher:
                self._catcher.ended(place.number)
        else:
            self._blocks.append(block)
            if self._catcher:
                self._catcher.caught(block)

    def _tidy(self) -> None:
        waste = self._waste[0]
        if (
            any(waste is getattr(place, "rest", None) for place in self._places.values())
            or not waste
        ):
            self._waste.popleft()
        elif len(waste) <= _AT_A_TIME:
            waste.clear()
            self._waste.popleft()
        else:
            pop: Callable[[], Any] = waste.popitem if isinstance(waste, dict) else waste.pop
            for _ in range(2 * CHUNK):
                pop()

    # Deltas

    def take_delta(self, epoch: int, generation: int) -> Delta:
        """The delta of the epoch whose barrier all places have passed, once it is `encoded`.

        Its `write` is a job for the background; what that returns is for `wrote`.
        """
        if self._encoding:
            raise RuntimeError(f"the delta of epoch {epoch} is taken before it is encoded")
        if len(self._frozen) != len(self._places):
            raise RuntimeError(f"the delta of epoch {epoch} is taken before all places have passed")
        for place in self._places.values():
            if place.counts:
                self._keys += place.frozen_made
            place.frozen_made = 0
        self._touched[epoch] = self._frozen
        self._taken = epoch
        blocks = self._blocks
        self._frozen, self._blocks = [], []
        if self._catcher:
            self._catcher.sealed(epoch)
        return Delta(self._disk, self._folder, epoch, generation, self._keys, blocks)

    def wrote(self, mark: DeltaMark) -> None:
        """A delta is durable."""
        self._deltas.append(mark)
        self._written = mark.epoch
        self._behind = self._is_behind()

    @property
    def deltas(self) -> tuple[DeltaMark, ...]:
        """The deltas that are not in the base, in order, for the manifest."""
        return tuple(self._deltas)

    @property
    def base_epoch(self) -> int:
        """The epoch that the base holds."""
        return self._base.stamp.epoch

    def committed(self, epoch: int) -> None:
        """An epoch is committed: nothing will go back behind it."""
        self._committed = max(self._committed, epoch)
        if self._cache is None:
            self._forget(epoch)
        if self._catcher:
            self._catcher.committed(epoch)

    def _forget(self, epoch: int) -> None:
        """Drop what epochs up to `epoch` have touched."""
        for each in [each for each in self._touched if each <= epoch]:
            self._throw_away(self._touched.pop(each))

    def _throw_away(self, touched: list[tuple[Place, Touched]]) -> None:
        self._waste.extend(live for _, live in touched if isinstance(live, Live) and live)

    # Merging into the base

    def take_job(self) -> Callable[[], Any] | None:
        """A job for the background, if there is one; what it returns is for `job_done`.

        It is one of four: to read deltas that are to be merged into the base, to put what they
        hold in order, to write the base, and to settle it. Raises, when it is run, `StateDamaged`
        and OSError.
        """
        merge = self._merge
        if self._pinned is not None and not self.pressed:
            return None  # a copy goes first, unless memory has to wait for it
        if self._settlement:
            return self._settlement.take_job()
        if merge is None:
            marks = self._due()
            if not marks:
                return None
            native = new_merge() if self._native else None
            self._merge = merge = _Merge(marks[::-1], self._base.batch(), native)
            by_hash = frozenset(place.number for place in self._places.values() if place.counts)
            self._behind = self._is_behind()
            self._ahead = 0.0
            return partial(
                _read,
                self._disk,
                self._folder,
                merge.marks,
                native,
                by_hash,
                self._clock,
                self._worked,
            )
        if merge.stage is not _Stage.PREPARING or merge.blocks:
            return None
        if merge.native is not None:
            merge.stage = _Stage.TAKING
            return partial(_take, merge.native, merge.batch, self._clock, self._worked)
        merge.stage = _Stage.WRITING
        written = [*self._left, *(mark.name for mark in merge.marks)]
        self._left = [name for name in written if name in self._held]
        gone = [name for name in written if name not in self._held]
        return partial(_write, self._disk, self._folder, self._base, merge, gone, self._worked)

    def job_done(self, result: Any) -> None:
        """The job that was taken last has ended, and this is what it returned."""
        if self._settlement:
            if self._settlement.written():
                if self._staging is self._settlement.staging:
                    self._staging = None
                self._settlement = None
                self._complete = False
            return
        merge = self._merge
        assert merge is not None
        if merge.stage is _Stage.READING:
            contents: list[Content] = result
            merge.stage = _Stage.PREPARING
            merge.keys = contents[0].keys
            merge.oldest = len(contents[-1].blocks)
            for rank, content in enumerate(contents):
                merge.blocks.extend((rank, block) for block in content.blocks)
            return
        if merge.stage is _Stage.TAKING:
            merge.stage, merge.native = _Stage.PREPARING, None
            return
        self._merge = None
        self._deltas = [mark for mark in self._deltas if mark.epoch > merge.epoch]
        self._waste.extend(merge.seen.values())
        if self._cache is None:
            self._forget(merge.epoch)
            return
        self._throw_away(self._recent)
        merged = [each for each in self._touched if each <= merge.epoch]
        self._recent = [pair for each in merged for pair in self._touched.pop(each)]
        if merge.epoch < self._restored:
            return  # what was restored has no set of its own in `_touched`
        self._evictable = dict.fromkeys(self._places, 0)
        for place in self._places.values():
            stored = place.forget_stored()
            if stored:
                self._waste.append(stored)
                self._complete = False

    def _worked(self, seconds: float) -> None:
        """A job has done a piece of work, in another thread."""
        if self._behind:
            return
        if self.hastened:
            self._throttle.awaited(seconds)
        else:
            self._throttle.worked(seconds)

    def _is_behind(self) -> bool:
        """Whether there will soon be enough for the next merge while one goes on."""
        newer = [mark for mark in self._deltas if self._merge and mark.epoch > self._merge.epoch]
        return self.pressed or self._enough(newer, 0.5)

    def _enough(self, marks: list[DeltaMark], share: float = 1.0) -> bool:
        """Whether deltas are as many as are merged at once, or so many bytes."""
        most = _DELTAS * (_NATIVE if self._native else 1)
        size = sum(mark.size for mark in marks)
        return len(marks) >= share * most or size >= share * max(_BYTES, self._base.size / 2)

    def _due(self) -> list[DeltaMark]:
        """The deltas to merge now, oldest first."""
        state = self._committed, len(self._deltas)
        if self._cache is None and state == self._not_due and not self._unsettled:
            return []
        if self._unsettled:  # what the base lacked at the switch goes first
            due = self._is_time_to_settle()
            marks = [mark for mark in self._deltas if mark.epoch <= self._tenure.switched]
        else:
            marks = [mark for mark in self._deltas if mark.epoch <= self._committed]
            due = self._enough(marks, 1.0 - self._ahead) or (
                self._cache is not None and self._above(0.5)
            )
        if not marks or not due:
            if not self._unsettled:
                self._not_due = state
            return []
        size = sum(mark.size for mark in marks)
        while len(marks) > 1 and size > _AT_ONCE:
            size -= marks.pop().size
        return marks

    def _prepare(self, merge: _Merge) -> None:
        """Put a block's entries into the batch, except those that are in it already."""
        rank, block = merge.blocks.popleft()
        place = self._places.get(block.place)
        if place is None:
            raise StateDamaged(_unknown(block.place))
        keys, values = open_block(block)
        seen = merge.seen.setdefault(block.place, set())
        if not seen.isdisjoint(keys):
            new = [index for index, key in enumerate(keys) if key not in seen]
            keys, values = [keys[index] for index in new], [values[index] for index in new]
        if self._cache is not None or len(merge.blocks) >= merge.oldest:
            seen.update(keys)  # else nobody will ask: growing a large set takes long
        where = stored_at(place, keys)
        if merge.native is not None:
            merge.native.put(rank, where, as_entries(block.kind, values))
            return
        put = merge.batch.put
        for at, entry in zip(where, as_entries(block.kind, values), strict=True):
            put(at, entry)

    # The bounded cache

    def _evict(self) -> bool:
        """Drop a few entries that the base has, if there are too many; False if none can be."""
        if self._cache is None or not self._evictable:
            return False
        left = self.in_memory - self._cache
        if left <= 0:
            return False
        number = max(self._evictable, key=lambda number: self._places[number].evictable)
        place = self._places[number]
        unsynced: list[Any] = [each for at, each in self._frozen if at is place]
        unsynced += [each for pairs in self._touched.values() for at, each in pairs if at is place]
        recent: list[Any] = [each for at, each in self._recent if at is place]
        kept, dropped = place.evict(min(CHUNK, left), self._evictable[number], unsynced, recent)
        if dropped:
            self._complete = False
        if kept < place.evictable:
            self._evictable[number] = kept
        else:
            del self._evictable[number]
        return True

    # Rescales

    @property
    def _unsettled(self) -> bool:
        return self._tenure.version > max(1, self._base.stamp.version)

    def _is_time_to_settle(self) -> bool:
        """Whether to settle now: when something waits for it, else in turn with other workers."""
        return (
            self.hastened
            or self.pressed
            or self._enough(self._deltas)
            or self._clock() >= self._settling_from
        )

    def _maybe_settle(self) -> bool:
        """Begin to settle once the base is of the switch's epoch; whether it has begun."""
        if (
            self._base.stamp.epoch < self._tenure.switched
            or self._pinned is not None
            or not self._is_time_to_settle()
        ):
            return False
        counting = {number: place.counts for number, place in self._places.items()}
        self._settlement = Settlement(
            self._base, self._tenure, self._staging, counting, self._took, self._worked
        )
        return True

    def _took(self, number: int, entries: list[tuple[bytes, bytes]]) -> None:
        """Entries come from the staging: into memory, too, if all may be there."""
        place = self._places.get(number)
        if self._cache is None and isinstance(place, NativePlace):
            place.restore(ENTRIES, [key_at(at) for at, _ in entries], [each for _, each in entries])

    @property
    def settled(self) -> bool:
        """Whether nothing is left here to be done about the last rescale."""
        return not self._unsettled and not self._settlement and not self._cleaning

    def has_settled(self, version: int) -> bool:
        """Whether the base is settled for a version of the assignment."""
        return self._base.stamp.version >= version

    @property
    def staging(self) -> Staging | None:
        """What the last rescale gave, until the base has it."""
        return self._staging

    def receive(self, staging: Staging | None) -> None:
        """From now on what `staging` covers is read from there; None: it came to nothing."""
        self._staging = staging

    def switched(self, tenure: Tenure) -> None:
        """The switch is committed: from now on this is what the worker owns."""
        self._tenure = tenure
        self._settling_from = self._clock() + _SETTLING * (1 + self._turn) / 2
        self._clean_up()

    def _clean_up(self) -> None:
        if self._clean == self._tenure.version:
            return
        self._clean = self._tenure.version
        self._cleaning = deque(place for place in self._places.values())
        for place in self._places.values():
            place.clean_for(self._tenure.owns)

    def catch(self, catcher: Catcher | None) -> None:
        """Have `catcher` look on from now on."""
        self._catcher = catcher

    def pin(self) -> tuple[View, int] | None:
        """The base as it is, and the last committed epoch; None if it is not the time.

        The deltas that this base lacks stay until `unpin`. What is touched after it is in later
        deltas, each of them whole.
        """
        merge = self._merge
        # One that memory waits for can't wait for a copy.
        first = merge is not None and (merge.stage is _Stage.WRITING or self.pressed)
        self.hastened = first or self._settlement is not None
        quiet = not self._frozen and not self._blocks and self._taken == self._written
        if self.hastened or not quiet or self._pinned is not None:
            return None
        self._pinned = list(self._deltas)
        self._held = {mark.name for mark in self._pinned}
        return self._base.view(), self._committed

    @property
    def pinned(self) -> bool:
        """Whether there are pinned deltas that have not been read."""
        return bool(self._pinned)

    def pinned_job(self) -> Callable[[], tuple[int, Content]] | None:
        """Reads the newest pinned delta that has not been read: its epoch and content."""
        if not self._pinned:
            return None
        mark = self._pinned.pop()

        def read() -> tuple[int, Content]:
            began = self._clock()
            content = read_delta(self._disk, self._folder, mark)
            self._worked(self._clock() - began)
            return mark.epoch, content

        return read

    def unpin(self) -> None:
        """The deltas may go: those that the base has by now with the next merge."""
        self._pinned = None
        self._held = set()

    # Recovery

    def recover(
        self,
        epoch: int,
        marks: tuple[DeltaMark, ...],
        tenure: Tenure | None = None,
        staging: Staging | None = None,
    ) -> None:
        """Go to the state at the end of a committed epoch: at a start, and to roll back.

        marks: of the deltas that the manifest names. All other deltas are removed. tenure: what
        the worker owns; all, from the beginning, by default. staging: what the manifest says that
        the base lacks beside. Every job must have ended, well or not; every `Place.live` is a new
        one afterwards. Raises `StateDamaged` if what is stored isn't that state; OSError.
        """
        self._tenure = tenure or Tenure()
        self._pinned = self._catcher = None
        self._held, self._left = set(), []
        self._settlement = None
        self._settling_from = 0.0
        self.hastened = False
        self._taken = self._written = 0
        pending = self._pending(epoch, marks)
        self._drop(epoch)
        self._staging = staging if self._unsettled else None
        if self._staging:
            self._staging.check()
        self._clean_up()
        self._keys = self._base.stamp.keys
        for mark in reversed(pending):
            content = read_delta(self._disk, self._folder, mark)
            if mark is pending[-1]:
                self._keys = content.keys
            for block in content.blocks:
                self._restore(mark.epoch, block)
        kept = {mark.name for mark in pending}
        for name in self._disk.names(self._folder):
            if is_delta(name) and name not in kept:
                self._disk.remove(self._folder / name)
        self._disk.sync_folder(self._folder)
        self._deltas = pending
        self._committed = epoch
        self._restored = epoch
        self._complete = self._base.stamp.epoch == 0

    def _pending(self, epoch: int, marks: tuple[DeltaMark, ...]) -> list[DeltaMark]:
        """The deltas that lead from the base to `epoch`. Raises `StateDamaged`."""
        # A base of before it was a member is as good as one of when it became one.
        base = max(self._base.stamp.epoch, self._tenure.joined - 1)
        pending = sorted((m for m in marks if m.epoch > base), key=lambda m: m.epoch)
        where = f"the state in {self._folder.parent}"
        advice = (
            "the directory is not the one that this worker wrote last; give it back that one, or "
            "start the application anew from an empty directory"
        )
        if base > epoch:
            raise StateDamaged(
                f"{where} is of epoch {base}, which is newer than {epoch}, the last committed: "
                f"{advice}"
            )
        found = [mark.epoch for mark in pending]
        if found != list(range(base + 1, epoch + 1)):
            raise StateDamaged(
                f"{where} is of epoch {base}, and epoch {epoch} was committed with deltas of "
                f"{found or 'no epoch'} after it: {advice}"
            )
        return pending

    def _drop(self, epoch: int) -> None:
        """Forget all that isn't of the state at `epoch`, or may not be."""
        newer = [pair for each, pairs in self._touched.items() if each > epoch for pair in pairs]
        for place in self._places.values():
            touched: list[Any] = [each for at, each in newer + self._frozen if at is place]
            place.drop(touched)
        self._touched = {
            each: lives
            for each, lives in self._touched.items()
            if self._base.stamp.epoch < each <= epoch
        }
        self._frozen, self._blocks = [], []
        self._encoding.clear()
        self._settling.clear()
        self._merge = None
        self._unopened = {}
        self._evictable = {}
        if self._cache is None:
            self._touched = {}

    def _restore(self, epoch: int, block: Block) -> None:
        """Take the entries of a block into memory that aren't there: newest first."""
        place = self._places.get(block.place)
        if place is None:
            self._unopened.setdefault(block.place, []).append((epoch, block))
            return
        suspect = self._unsettled and epoch <= self._tenure.switched
        if isinstance(place, NativePlace) and not suspect:
            rows = open_rows(block)
            if rows is not None:
                place.restore_rows(*rows)
                return
        keys, values = open_block(block)
        if suspect:
            # Some of them may have been given away since, and be back.
            kept = [at for at, key in enumerate(keys) if self._is_ours(place.point(key))]
            keys, values = [keys[at] for at in kept], [values[at] for at in kept]
        place.restore(block.kind, keys, values)

    def _is_ours(self, point: int) -> bool:
        """Whether a point was ours before the switch, and is."""
        staging = self._staging
        return self._tenure.owns(point) and not (staging and staging.mark.covers(point))

    def close(self) -> None:
        """Let go of the files. Nothing may be touched afterwards."""
        self._base.close()


def _read(
    disk: Disk,
    folder: Path,
    marks: list[DeltaMark],
    native: "_native.Merge | None",
    by_hash: frozenset[int],
    clock: Callable[[], float],
    worked: Worked,
) -> list[Content]:
    """What the deltas hold, but for the blocks that `native` has taken."""
    if native is None:
        return [read_delta(disk, folder, mark) for mark in marks]
    found = []
    for rank, mark in enumerate(marks):
        began = clock()
        content = read_delta(disk, folder, mark)
        worked(clock() - began)
        ours: list[Block] = []
        left: list[Block] = []
        for block in content.blocks:
            fits = block.kind == ATTRIBUTES and block.place in by_hash
            (ours if fits else left).append(block)
        for start in range(0, len(ours), _ADDED):
            began = clock()
            part = ours[start : start + _ADDED]
            odd = native.add(rank, [(block.place, block.entries, block.payload) for block in part])
            left += [part[index] for index in odd]
            worked(clock() - began)
        found.append(Content(content.keys, left))
    return found


def _take(
    native: "_native.Merge", batch: Batch, clock: Callable[[], float], worked: Worked
) -> None:
    """Put what `native` holds into the batch."""
    put = batch.put
    while True:
        began = clock()
        keys, entries = native.take(_TAKEN)
        if not keys:
            break
        for key, entry in zip(keys, entries, strict=True):
            put(key, entry)
        worked(clock() - began)


def _write(
    disk: Disk, folder: Path, base: Base, merge: _Merge, gone: list[str], worked: Worked
) -> None:
    """Write the batch; then remove the deltas that nobody needs any more."""
    base.write(merge.batch, base.stamp._replace(epoch=merge.epoch, keys=merge.keys), worked)
    for name in gone:
        disk.remove(folder / name)
    disk.sync_folder(folder)


def _unknown(number: int) -> str:
    return (
        f"there is state of place {number}, which the application does not have: it was stored by "
        "another version of the application; run that version, or start anew from an empty "
        "directory"
    )
