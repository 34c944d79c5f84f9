"""State entries as bytes: alone, as the base keeps them, and in blocks, as a delta does.

A block is one pickle of up to a few hundred entries, which costs a fifth of pickling each. It
holds builtin values only, so it can be opened, moved and taken apart without any of the
application's classes; entries that need one are bytes of their own within the block, and are
made objects only when their key is touched.
"""

import contextlib
import io
import pickle
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

from xxhash import xxh3_64_digest

from wallaroo.errors import message_of, shorten
from wallaroo.state.codec import Codec, CodecError, filled, is_plain
from wallaroo.state.layout import Layout, named

Key = str | bytes

#: What a block's values are: builtin values; attributes of the place's class; entries.
WHOLE, ATTRIBUTES, ENTRIES = range(3)

_WHOLE, _ATTRIBUTES = bytes([WHOLE]), bytes([ATTRIBUTES])
#: Names a class: a pickle without this byte names none.
_STACK_GLOBAL = b"\x93"

_KEY = struct.Struct(">HQB")


class StateRefused(Exception):
    """A state object can't be stored; the message names it and says why."""

    def __init__(self, place: str, key: Key, why: str) -> None:
        super().__init__(f"the state of key {shorten(key)} at {place} can't be stored: {why}")
        self.place = place
        self.key = key
        self.why = why


class StateDamaged(Exception):
    """What was stored is not there as it was written; the message says what, and what to do."""


class Block(NamedTuple):
    """Entries of one place in a delta."""

    place: int
    kind: int
    entries: int
    payload: bytes


def base_key(place: int, point: int, key: Key) -> bytes:
    """Where the base keeps an entry: in order of place, then point.

    >>> base_key(1, 2, "k").hex()
    '00010000000000000002006b'
    """
    if isinstance(key, str):
        return _KEY.pack(place, point, 0) + key.encode()
    return _KEY.pack(place, point, 1) + key


def key_at(where: bytes) -> Key:
    """The key of an entry that the base keeps there: the inverse of `base_key`.

    >>> key_at(base_key(1, 2, "k")), key_at(base_key(1, 2, b"k"))
    ('k', b'k')
    """
    return where[_KEY.size :] if where[_KEY.size - 1] else where[_KEY.size :].decode()


def base_keys(place: int, keys: list[Key]) -> list[bytes]:
    """Where the base keeps entries whose point is the hash of their key: `base_key` of many.

    >>> from wallaroo.partitioning import hash_key
    >>> base_keys(1, ["k", b"k"]) == [base_key(1, hash_key("k"), key) for key in ("k", b"k")]
    True
    """
    head = place.to_bytes(2, "big")
    every = [(b"\0", key.encode()) if isinstance(key, str) else (b"\1", key) for key in keys]
    return [head + xxh3_64_digest(data) + kind + data for kind, data in every]


def point_key(point: int) -> bytes:
    """A point as the keys of the base have it, below 2^64."""
    return point.to_bytes(8, "big")


def place_range(place: int, start: int, end: int) -> tuple[bytes, bytes]:
    """Where the base keeps the entries of a place at the points [start, end).

    >>> [each.hex() for each in place_range(1, 0, 1 << 64)]
    ['00010000000000000000', '0002']
    """
    head = place.to_bytes(2, "big")
    if end >> 64:
        return head + point_key(start), (place + 1).to_bytes(2, "big")
    return head + point_key(start), head + point_key(end)


class Form:
    """How the state objects of one place are written.

    make: makes a new one; if it is a plain class, its instances are written as `__dict__`s.
    """

    def __init__(self, codec: Codec, number: int, name: str, make: Callable[[], Any]) -> None:
        self._codec = codec
        self._number = number
        self._name = name
        self._class = make if isinstance(make, type) and is_plain(make) else None
        self._layout = None if self._class is None else Layout(self._class)

    def entry(self, key: Key, value: Any) -> bytes:
        """One state object as an entry of its own. Raises `StateRefused`."""
        if self._layout is not None and type(value) is self._class:
            try:
                (attributes,) = named(self._layout.names, *self._layout.read([value]))
                data = pickle.dumps(attributes, 5)
            except Exception:  # the codec says what is wrong
                data = _STACK_GLOBAL
            if _STACK_GLOBAL not in data:
                return _ATTRIBUTES + data
            try:
                checked = self._codec.encode_attributes(value)
                if checked is not None:
                    return _ATTRIBUTES + checked
            except CodecError as error:
                raise StateRefused(self._name, key, str(error)) from error
        try:
            return _WHOLE + self._codec.encode(value)
        except CodecError as error:
            raise StateRefused(self._name, key, str(error)) from error

    def value(self, key: Key, entry: bytes) -> Any:
        """The state object of an entry. Raises `StateDamaged`."""
        try:
            value = self._codec.decode(entry[1:])
        except CodecError as error:
            raise StateDamaged(
                f"the state of key {shorten(key)} at {self._name} can't be made an object: {error}"
            ) from error
        return value if entry[:1] == _WHOLE else filled(self._own_class(), value)

    def block(self, keys: list[Key], values: list[Any]) -> Block:
        """State objects as a block. Raises `StateRefused`."""
        kind = WHOLE
        bare: list[Any] = [values]
        if self._layout is not None and set(map(type, values)) == {self._class}:
            rows, odd = self._layout.read(values)
            kind = ATTRIBUTES
            bare = [rows, self._layout.names, odd]
        try:
            payload = _builtin((keys, *bare))
        except Exception:  # not builtin, or no value at all, of which the codec says why
            return self.entries(keys, list(map(self.entry, keys, values)))
        return Block(self._number, kind, len(keys), payload)

    def learn(self, value: Any) -> None:
        """See how state objects are read by name from one of them, unless that is known."""
        if self._layout is not None and type(value) is self._class:
            self._layout.learn(value)

    def lesson(self) -> tuple[type, tuple[str, ...], tuple[Any, ...]] | None:
        """How plain state objects are read by name now: see `Layout.lesson`."""
        return None if self._layout is None else self._layout.lesson()

    def snapshot(self, value: Any) -> dict[str, Any] | None:
        """The attributes of a state object, if that is simple: for `attributes`."""
        if self._layout is None or type(value) is not self._class:
            return None
        return self._layout.snapshot(value)

    def attributes(self, keys: list[Key], snapshots: list[dict[str, Any]]) -> Block:
        """What `snapshot` gave, as a block."""
        return Block(self._number, ATTRIBUTES, len(keys), _builtin((keys, snapshots)))

    def entries(self, keys: list[Key], entries: list[bytes]) -> Block:
        """Entries as a block."""
        return Block(self._number, ENTRIES, len(keys), _builtin((keys, entries)))

    def check(self, kind: int) -> None:
        """Raise `StateDamaged` if values of that kind can't be made state objects here."""
        if kind == ATTRIBUTES:
            self._own_class()

    def opened(self, key: Key, kind: int, value: Any) -> Any:
        """The state object of a value of an opened block. Raises `StateDamaged`."""
        if kind == ENTRIES:
            return self.value(key, value)
        return value if kind == WHOLE else filled(self._own_class(), value)

    def _own_class(self) -> type:
        if self._class is None:
            raise StateDamaged(
                f"the state at {self._name} was stored by another version of the application, "
                "whose class for it was an ordinary one; run that version, or start anew from an "
                "empty directory"
            )
        return self._class


def open_block(block: Block) -> tuple[list[Key], list[Any]]:
    """Keys and values of a block. Raises `StateDamaged`."""
    try:
        keys, values, *layout = load_builtin(block.payload)
        if layout:
            names, odd = layout
            values = named(names, values, odd)
        if not len(keys) == len(values) == block.entries:
            raise ValueError(f"{len(keys)} keys, {len(values)} values instead of {block.entries}")
    except Exception as error:
        raise StateDamaged(f"a block of entries can't be read: {message_of(error)}") from error
    return keys, values


def open_rows(block: Block) -> tuple[list[Key], list[Any], tuple[str, ...]] | None:
    """Keys, rows of attributes and their names, if that is all that a block has; else None."""
    if block.kind != ATTRIBUTES:
        return None
    with contextlib.suppress(Exception):  # whoever opens it as usual says what is wrong
        keys, rows, names, odd = load_builtin(block.payload)
        if not odd and type(names) is tuple and len(keys) == len(rows) == block.entries:
            return keys, rows, names
    return None


def as_entries(kind: int, values: list[Any]) -> list[bytes]:
    """The values of an opened block, each as an entry of its own."""
    if kind == ENTRIES:
        return values
    mark = _WHOLE if kind == WHOLE else _ATTRIBUTES
    dumps = pickle.dumps
    return [mark + dumps(value, 5) for value in values]


def _builtin(value: Any) -> bytes:
    """The pickle of a value that names no class; raises whatever else there is in it."""
    buffer = io.BytesIO()
    _Pickler(buffer, 5).dump(value)
    return buffer.getvalue()


def load_builtin(data: bytes) -> Any:
    """The value of a pickle that names no class; raises whatever is wrong with any other."""
    return _Unpickler(io.BytesIO(data)).load()


class _NotBuiltin(Exception):
    pass


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        raise _NotBuiltin


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it names {module}.{name}")
