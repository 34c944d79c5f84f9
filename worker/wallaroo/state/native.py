"""A place whose entries are in a table written in C; what `Place` does, at a tenth of the cost.

Each entry carries the number of the epoch that touched it last. So a first touch is one look-up,
nothing is put aside or settled after a barrier, and entries of a plain class whose attributes are
simple values are encoded without any Python code. Everything else (keys that are odd, states that
are new or stored, values that only pickle can write) is asked of this module.

The extension is optional: where there was no compiler when the package was installed, or the
environment has WALLAROO_PURE_PYTHON set, `Place` is used, which says what is right.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from wallaroo.partitioning import hash_key, normalize_key
from wallaroo.state.entries import ATTRIBUTES, Block, Form, Key
from wallaroo.state.layout import named
from wallaroo.state.live import CHUNK, MISSING, NotMyKey, exact

try:
    from wallaroo.state import _native
except ImportError:
    BUILT = False
else:
    BUILT = True

#: Whether to use it.
AVAILABLE = BUILT and not os.environ.get("WALLAROO_PURE_PYTHON")

#: After how many chunks without a simple entry to leave a place's entries to Python.
_PATIENCE = 16
#: How many times more entries than Python would to encode at once while all are simple.
_SIMPLE = 4
#: How many forms of stored values a table can tell apart.
_FORMS = 1 << 23


class NativePlace:
    """The state at one place of the pipeline: see `Place`, whose parameters and methods it has."""

    def __init__(
        self,
        number: int,
        name: str,
        make: Callable[[], Any],
        point: Callable[[Any], int] | None = None,
        *,
        form: Form,
        load: Callable[[Key], Any],
        frozen: Callable[[Any], None],
        track: bool,
    ) -> None:
        self.number = number
        self.name = name
        self.point: Callable[[Any], int] = point or hash_key
        self.counts = point is None
        self.owns: Callable[[int], bool] | None = None
        self.load = load
        self.form = form
        self.live = _native.Table(_proper, self._first, self._encode_early, self._open)
        #: The table's number of the epoch that was frozen last, until it is encoded.
        self.frozen: int | None = None
        self.encoding = False
        self.made = 0
        self.frozen_made = 0
        self.chunk = CHUNK
        self._make = make
        self._has_frozen = frozen
        self._early: dict[Key, bytes] = {}
        self._blocks: deque[Block] = deque()
        #: How stored values are made objects: their kind, and names if they are rows.
        self._forms: list[tuple[int, tuple[str, ...] | None]] = []
        self._form_numbers: dict[tuple[int, tuple[str, ...] | None], int] = {}
        self._laid: tuple[str, ...] = ()
        self._in_vain = 0
        self._times = 1
        #: After a rescale: which entry to look at next, and which of them stay.
        self._hand = -1
        self._stays: Callable[[int], bool] = bool

    # What the table asks for

    def _first(self, key: Key) -> Any:
        normalize_key(key)  # says what is wrong with it
        self._check(key)
        state = self.load(key)
        if state is MISSING:
            state = self._make()
            if key not in self.live:
                self.made += 1
        return state

    def _open(self, key: Key, number: int, value: Any) -> Any:
        self._check(key)
        return self._opened(key, number, value)

    def _opened(self, key: Key, number: int, value: Any) -> Any:
        kind, names = self._forms[number]
        if names is not None:
            (value,) = named(names, [value], {})
        return self.form.opened(key, kind, value)

    def _check(self, key: Key) -> None:
        if self.owns is not None and not self.owns(self.point(key)):
            raise NotMyKey

    def _encode_early(self, key: Key, state: Any) -> None:
        self._early[key] = self.form.entry(key, state)

    # An epoch's end

    def freeze(self) -> None:
        """The epoch's barrier has passed: go on, and encode what it has touched."""
        if self.encoding:
            raise RuntimeError(f"{self.name} passed a barrier before its last epoch was encoded")
        if not self._laid:
            # Learning slows the use of the object down: it had better not be a frequent one, and
            # those are touched first.
            self.form.learn(self.live.last())
            self._lay()
        self.frozen = self.live.freeze()
        self.frozen_made, self.made = self.made, 0
        self.encoding = True
        self._has_frozen(self)

    def encode(self) -> Block | None:
        """Encode a chunk of the frozen epoch; None if nothing is left. Raises `StateRefused`."""
        if self._blocks:
            return self._blocks.popleft()
        found = self.live.encode(self._times * self.chunk)
        while found is not None:
            payload, count, keys, states = found
            if payload is not None:
                self._in_vain = 0
                self._blocks.append(Block(self.number, ATTRIBUTES, count, payload))
            self._times = 1 if keys else _SIMPLE
            if keys:
                self._in_vain += payload is None
            for start in range(0, len(keys), CHUNK):
                part = slice(start, start + CHUNK)
                self._blocks.append(self.form.block(keys[part], states[part]))
            self._lay()
            if self._blocks:
                return self._blocks.popleft()
            # All had been encoded when they were touched.
            found = self.live.encode(self._times * self.chunk)
        self.encoding = False
        self.frozen = None
        if self._early:
            keys = list(self._early)[:CHUNK]
            return self.form.entries(keys, [self._early.pop(key) for key in keys])
        return None

    def _lay(self) -> None:
        """Tell the table how objects are read by name, as far as that is known now."""
        lesson = self.form.lesson()
        if lesson is None or (self._in_vain >= _PATIENCE and lesson[1] == self._laid):
            if self._laid and lesson is not None:
                self.live.lay(lesson[0], (), ())
            return
        if lesson[1] != self._laid:
            self._in_vain = 0
        self._laid = lesson[1]
        self.live.lay(*lesson)

    def settle(self) -> bool:
        """Nothing: entries are where they were."""
        return False

    # What is in memory

    @property
    def count(self) -> int:
        """How many entries are in memory."""
        return self.live.count

    def items(self) -> Iterator[tuple[Key, Any]]:
        """All entries in memory, as they are now."""
        for key, state, number in self.live.items():
            yield key, state if number is None else self._opened(key, number, state)

    # The bounded cache

    @property
    def evictable(self) -> int:
        """How many entries eviction has to look at before it has seen all."""
        return self.live.count

    def evict(
        self, limit: int, kept: int, unsynced: list[int], recent: list[int]
    ) -> tuple[int, int]:
        """Look at up to `limit` entries, and drop those that can be: see `Place.evict`."""
        looks = min(limit, self.live.count)
        first = min(unsynced, default=self.live.now)
        row, dropped = self.live.evict(limit, first, min(recent, default=first))
        return (kept + row if row >= looks else row), dropped

    def forget_stored(self) -> None:
        """Nothing at once: eviction comes to them."""

    # After a rescale

    def clean_for(self, owns: Callable[[int], bool]) -> None:
        """From now on `clean` forgets the entries whose points `owns` denies."""
        self._hand = 0
        self._stays = owns

    def clean(self) -> bool:
        """Forget some entries of what has been given away; whether there may be more."""
        if self._hand < 0:
            return False
        keys, self._hand = self.live.keys(self._hand, CHUNK)
        point, stays = self.point, self._stays
        gone = [key for key in keys if not stays(point(key))]
        if gone:
            self.live.forget(gone)
        return self._hand >= 0

    # Rollback

    def drop(self, touched: list[int]) -> None:
        """Forget the current epoch, the frozen one, and all entries of those in `touched`."""
        frozen = [] if self.frozen is None else [self.frozen]
        self.live.drop(min([*touched, *frozen, self.live.now]))
        self.frozen = None
        self.encoding = False
        self._early = {}
        self._blocks.clear()
        self.made = self.frozen_made = 0

    def restore(self, kind: int, keys: list[Key], values: list[Any]) -> None:
        """Take an opened block's entries, of keys that have none; objects are made when touched."""
        self.form.check(kind)
        self.live.restore(self._number(kind, None), keys, values)

    def restore_rows(self, keys: list[Key], rows: list[Any], names: tuple[str, ...]) -> None:
        """Likewise, of attributes as rows."""
        self.form.check(ATTRIBUTES)
        self.live.restore(self._number(ATTRIBUTES, names), keys, rows)

    def _number(self, kind: int, names: tuple[str, ...] | None) -> int:
        number = self._form_numbers.get((kind, names))
        if number is None:
            number = self._form_numbers[kind, names] = len(self._forms)
            assert number < _FORMS
            self._forms.append((kind, names))
        return number


def new_merge() -> "_native.Merge":
    """What takes deltas apart on their way into the base."""
    return _native.Merge()


def _proper(key: object) -> Key:
    return exact(normalize_key(key))
