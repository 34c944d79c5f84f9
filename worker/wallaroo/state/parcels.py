"""What a donor sends to a receiver in a rescale.

Entries travel as the base stores them, key and bytes, so no class of the application is touched on
the way.
"""

import pickle
from typing import NamedTuple

from wallaroo.errors import message_of
from wallaroo.state.entries import StateDamaged, load_builtin


class Entries(NamedTuple):
    """Entries, each replacing what was sent before under its key."""

    keys: list[bytes]
    values: list[bytes]


class UpTo(NamedTuple):
    """All that was committed up to an epoch has been sent."""

    epoch: int


class Last(NamedTuple):
    """Nothing more of a place comes: what was touched before the switch has been sent."""

    place: int


Parcel = Entries | UpTo | Last

_KINDS: tuple[type[Entries], type[UpTo], type[Last]] = (Entries, UpTo, Last)


def encode_parcel(parcel: Parcel) -> bytes:
    """A parcel as bytes."""
    return pickle.dumps((_KINDS.index(type(parcel)), *parcel), 5)


def decode_parcel(data: bytes) -> Parcel:
    """What `encode_parcel` gave. Raises `StateDamaged` if it is anything else.

    >>> decode_parcel(encode_parcel(Last(3)))
    Last(place=3)
    """
    try:
        kind, *fields = load_builtin(data)
        if kind == 0:
            keys, values = fields
            if len(keys) != len(values) or {*map(type, keys), *map(type, values)} - {bytes}:
                raise ValueError("its keys and values do not fit")
            return Entries(keys, values)
        (number,) = fields
        if type(number) is not int or kind not in (1, 2):
            raise ValueError(f"it is of kind {kind!r}")
        return UpTo(number) if kind == 1 else Last(number)
    except Exception as error:
        raise StateDamaged(f"what a donor sent can't be read: {message_of(error)}") from error
