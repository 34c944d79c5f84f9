"""The state objects that a worker's functions see: one dict a place in the pipeline.

It holds the entries touched in this epoch; a key's first touch falls into `__missing__`. That is
the slow path, so all that is to be checked or done once an epoch happens there: the touched set,
loading, and encoding an entry of the last epoch before it changes. The fast path is a dict's own
look-up.
"""

from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from wallaroo.partitioning import hash_key, normalize_key
from wallaroo.state.entries import Block, Form, Key, base_key, base_keys

#: Most entries of a block, and of a slice of other work.
CHUNK = 256

#: Stands for no state object: those may be any value.
MISSING: Any = object()


class NotMyKey(Exception):
    """A key was touched on a worker that does not own it."""


class Live(dict[Key, Any]):
    """The state objects of a place that were touched in one epoch; `Place.live` is the current."""

    __slots__ = ("_place",)

    def __init__(self, place: "Place") -> None:
        super().__init__()
        self._place = place

    def __missing__(self, key: Any) -> Any:
        place = self._place
        if type(key) is not str and type(key) is not bytes:
            return place.first_touch(self, key)  # a str of another class is no key of an entry
        frozen = place.frozen
        if frozen is not None:
            state = frozen.get(key, MISSING)
            if state is not MISSING:
                if place.encoding:
                    place.encode_early(key, state)
                self[key] = state
                return state
        state = place.rest.get(key, MISSING)
        if state is MISSING:
            return place.first_touch(self, key)
        self[key] = state
        return state


class Place:
    """The state at one place of the pipeline.

    An entry is in `live` if it was touched in this epoch, and in `rest` unless it is new in this
    epoch (`fresh`): nothing is moved between them, since moving costs more than finding. `freeze`
    puts `live` aside as `frozen` until its entries are encoded and the new ones are in `rest`.

    number: names the place in what is stored; name: in messages. make: makes the state of a new
    key. point: of a key, in the hash interval; its hash if None. form: how its entries are
    written. load: the state object that is stored for a key that is not in memory, or `MISSING`.
    frozen: called after `freeze`. track: whether to keep `order`.
    """

    def __init__(
        self,
        number: int,
        name: str,
        make: Callable[[], Any],
        point: Callable[[Any], int] | None = None,
        *,
        form: Form,
        load: Callable[[Key], Any],
        frozen: Callable[["Place"], None],
        track: bool,
    ) -> None:
        self.number = number
        self.name = name
        self.point: Callable[[Any], int] = point or hash_key
        #: Whether its entries are keys of the stream, not something of ours like a position.
        self.counts = point is None
        #: Says whether this worker owns a point of the hash interval; None if it owns all.
        self.owns: Callable[[int], bool] | None = None
        self.load = load
        self.form = form
        self.live = Live(self)
        self.frozen: Live | None = None
        #: Whether entries of `frozen` are still to be encoded.
        self.encoding = False
        self.rest: dict[Key, Any] = {}
        #: Entries restored and not touched since, as an opened block has them: kind and value.
        self.stored: dict[Key, tuple[int, Any]] = {}
        #: Entries made in this epoch, and in the frozen one.
        self.made = 0
        self.frozen_made = 0
        #: Keys of `rest`, oldest first, if its size is bounded.
        self.order: deque[Key] | None = deque() if track else None
        #: How many entries to encode at once.
        self.chunk = CHUNK
        self._make = make
        self._has_frozen = frozen
        #: Keys of `live` that are not in `rest`; None if none is.
        self._fresh: list[Key] | None = None
        self._settling: Iterator[Key] | None = None
        self._unsettled = 0
        #: What is left of `frozen` to encode.
        self._keys: Iterator[Key] = iter(())
        self._states: Iterator[Any] = iter(())
        #: What of `frozen` has been touched since: as it was, as an entry or as attributes.
        self._early: dict[Key, bytes] = {}
        self._snapshots: dict[Key, dict[str, Any]] = {}
        #: Entries to look at after a rescale, and which of them stay.
        self._suspects: Iterator[Key] | None = None
        self._stays: Callable[[int], bool] = bool

    # First touches

    def first_touch(self, live: Live, key: object) -> Any:
        """The state of a key that is not in memory, put into `live`."""
        proper = exact(normalize_key(key))
        if proper is not key:  # an int, which is looked up as its character
            return live[proper]
        if live is not self.live:
            raise RuntimeError(f"the state at {self.name} was touched through that of a past epoch")
        if self.owns is not None and not self.owns(self.point(proper)):
            raise NotMyKey
        entry = self.stored.get(proper)
        state = self.load(proper) if entry is None else self.form.opened(proper, *entry)
        if state is MISSING:
            state = self._make()
            if proper in live:  # what makes a state has touched it: there is one of a key
                return live[proper]
            self.made += 1
        elif entry is not None:
            del self.stored[proper]
        if self._fresh is not None:
            self._fresh.append(proper)
        live[proper] = state
        return state

    def encode_early(self, key: Key, state: Any) -> None:
        """Encode an entry of `frozen` as it is, before it changes. Raises `StateRefused`."""
        snapshot = self.form.snapshot(state)
        if snapshot is None:
            self._early[key] = self.form.entry(key, state)
        else:
            self._snapshots[key] = snapshot

    # An epoch's end

    def freeze(self) -> None:
        """The epoch's barrier has passed: go on with a new `live`, and encode the old one."""
        if self.encoding:
            raise RuntimeError(f"{self.name} passed a barrier before its last epoch was encoded")
        while self.settle():
            pass
        self.frozen, self.live = self.live, Live(self)
        self.frozen_made, self.made = self.made, 0
        self.encoding = True
        self._keys = iter(self.frozen)
        self._states = iter(self.frozen.values())
        fresh = self._fresh
        self._settling = iter(self.frozen if fresh is None else fresh)
        self._unsettled = len(self.frozen if fresh is None else fresh)
        self._fresh = []
        self._has_frozen(self)

    def encode(self) -> Block | None:
        """Encode a chunk of `frozen`; None if nothing is left. Raises `StateRefused`.

        No key comes twice with different values: what was touched since is encoded already.
        """
        early, snapshots = self._early, self._snapshots
        while keys := list(islice(self._keys, self.chunk)):
            states = list(islice(self._states, self.chunk))
            for taken in (early, snapshots):
                if taken and not taken.keys().isdisjoint(keys):
                    left = [index for index, key in enumerate(keys) if key not in taken]
                    keys = [keys[index] for index in left]
                    states = [states[index] for index in left]
            if keys:
                return self.form.block(keys, states)
        self.encoding = False
        if snapshots:
            keys = list(islice(snapshots, CHUNK))
            return self.form.attributes(keys, [snapshots.pop(key) for key in keys])
        if early:
            keys = list(islice(early, CHUNK))
            return self.form.entries(keys, [early.pop(key) for key in keys])
        return None

    def settle(self) -> bool:
        """Put a chunk of the frozen epoch's new entries into `rest`; whether any is left."""
        if self._settling is None:
            return False
        frozen = self.frozen
        assert frozen is not None
        if not self.rest and self.order is None:
            # All that is in memory is of this epoch.
            self.rest = frozen
        else:
            keys = list(islice(self._settling, CHUNK))
            rest = self.rest
            for key in keys:
                rest[key] = frozen[key]
            if self.order is not None:
                self.order.extend(keys)
            self._unsettled -= len(keys)
            if keys:
                return True
        self._unsettled = 0
        self._settling = None
        self.frozen = None
        return False

    @property
    def settled(self) -> bool:
        """Whether all entries of past epochs are in `rest`."""
        return self._settling is None

    # What is in memory

    @property
    def count(self) -> int:
        """How many entries are in memory."""
        fresh = len(self.live) if self._fresh is None else len(self._fresh)
        return len(self.rest) + len(self.stored) + self._unsettled + fresh

    def items(self) -> Iterator[tuple[Key, Any]]:
        """All entries in memory, as they are now."""
        yield from self.rest.items()
        frozen = {} if self.frozen is None else self.frozen
        yield from (each for each in frozen.items() if each[0] not in self.rest)
        for key, state in self.live.items():
            if key not in self.rest and key not in frozen:
                yield key, state
        for key, entry in self.stored.items():
            yield key, self.form.opened(key, *entry)

    # The bounded cache

    @property
    def evictable(self) -> int:
        """How many entries eviction has to look at before it has seen all."""
        return len(self.rest)

    def evict(
        self, limit: int, kept: int, unsynced: list[Live], recent: list[Live]
    ) -> tuple[int, int]:
        """Look at up to `limit` entries, oldest first, and drop those that can be.

        unsynced: of past epochs, what the base has not; that stays. recent: what the last merge
        brought; that is spared once. kept: how many in a row have stayed so far. Returns that as
        it is now, and how many were dropped.
        """
        order, rest, dropped = self.order, self.rest, 0
        assert order is not None
        unsynced = [*unsynced, self.live]
        for _ in range(min(limit, len(order))):
            key = order.popleft()
            if key not in rest:
                continue  # it has been given away
            if any(key in live for live in unsynced):
                kept += 1
                order.append(key)
                continue
            kept = 0
            spared = [live for live in recent if key in live]
            if spared:
                for live in spared:
                    del live[key]
                order.append(key)
            else:
                del rest[key]
                dropped += 1
        return kept, dropped

    def forget_stored(self) -> dict[Key, tuple[int, Any]] | None:
        """The base has what was restored: what of it was not touched need not be in memory."""
        stored, self.stored = self.stored, {}
        return stored or None

    # After a rescale

    def clean_for(self, owns: Callable[[int], bool]) -> None:
        """From now on `clean` forgets the entries whose points `owns` denies."""
        self._suspects = None
        self._stays = owns

    def clean(self) -> bool:
        """Forget some entries of what has been given away; whether there may be more."""
        if self._suspects is None:
            if not self.settled:
                return True  # what was touched last is on its way into `rest`
            self._suspects = iter([*self.rest, *self.stored])
        keys = list(islice(self._suspects, CHUNK))
        point, stays, rest, stored = self.point, self._stays, self.rest, self.stored
        for key in keys:
            if not stays(point(key)):
                rest.pop(key, None)
                stored.pop(key, None)
        if not keys:
            self._suspects = None
        return bool(keys)

    # Rollback

    def drop(self, touched: list[Live]) -> None:
        """Forget the current epoch, the frozen one, and all entries of those in `touched`."""
        lives = [self.live, *touched]
        if self.frozen is not None:
            lives.append(self.frozen)
        if any(live is self.rest for live in lives):
            self.rest = {}
        for live in lives:
            for key in live:
                self.rest.pop(key, None)
        self.live = Live(self)
        self.frozen = None
        self.encoding = False
        self._fresh = []
        self._settling = None
        self._unsettled = 0
        self._keys, self._states = iter(()), iter(())
        self._early, self._snapshots = {}, {}
        self.made = self.frozen_made = 0
        if self.order is not None:
            self.order = deque(self.rest)

    def restore(self, kind: int, keys: list[Key], values: list[Any]) -> None:
        """Take an opened block's entries, of keys that have none; objects are made when touched."""
        rest, stored = self.rest, self.stored
        self.form.check(kind)
        if self._fresh is None:
            self._fresh = list(self.live)
        for key, value in zip(keys, values, strict=True):
            if key not in rest and key not in stored:
                stored[key] = kind, value


def stored_at(place: "Place", keys: list[Key]) -> list[bytes]:
    """Where the base keeps entries of a place."""
    if place.counts:
        return base_keys(place.number, keys)
    return [base_key(place.number, place.point(key), key) for key in keys]


def exact(key: Key) -> Key:
    """`key` as an instance of str or bytes itself."""
    if type(key) is str or type(key) is bytes:
        return key
    return str.__str__(key) if isinstance(key, str) else bytes.__add__(key, b"")
