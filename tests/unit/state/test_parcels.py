"""What a donor sends comes as it was sent, and nothing else is taken."""

import os
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wallaroo.state.entries import StateDamaged
from wallaroo.state.parcels import Entries, Last, Parcel, UpTo, decode_parcel, encode_parcel

ENTRIES = st.lists(st.tuples(st.binary(), st.binary()), max_size=5).map(
    lambda pairs: Entries([key for key, _ in pairs], [value for _, value in pairs])
)
PARCELS = st.one_of(
    ENTRIES,
    st.integers(-1, 1 << 64).map(UpTo),
    st.integers(0, 65535).map(Last),
)


@given(PARCELS)
def test_a_parcel_comes_as_it_was_sent(parcel: Parcel) -> None:
    found = decode_parcel(encode_parcel(parcel))
    assert found == parcel
    assert type(found) is type(parcel)


@given(PARCELS, st.data())
def test_a_parcel_that_is_cut_short_is_refused(parcel: Parcel, data: st.DataObject) -> None:
    whole = encode_parcel(parcel)
    with pytest.raises(StateDamaged, match="what a donor sent can't be read"):
        decode_parcel(whole[: data.draw(st.integers(0, len(whole) - 1))])


@given(st.binary())
def test_any_bytes_are_a_parcel_or_refused(data: bytes) -> None:
    try:
        decode_parcel(data)
    except StateDamaged:
        pass


class Names:
    def __reduce__(self) -> Any:
        return os.getcwd, ()


@pytest.mark.parametrize(
    "what",
    [
        Names(),
        (0, [b"key"], [Names()]),
        (0, [b"key"], [{1, os.getcwd}]),
        (1, Names()),
    ],
)
def test_what_names_a_class_or_a_function_is_refused_uncalled(what: object) -> None:
    with pytest.raises(StateDamaged, match=r"it names .*getcwd"):
        decode_parcel(pickle.dumps(what, 5))


@pytest.mark.parametrize(
    "what",
    [
        None,
        5,
        (),
        (0,),
        (0, [b"key"]),
        (0, [b"key"], []),
        (0, [], [b"value"]),
        (0, [b"key"], ["text"]),
        (0, ["key"], [b"value"]),
        (0, [b"key"], [None]),
        (0, 5, 5),
        (1,),
        (1, "5"),
        (1, 5.0),
        (1, True),
        (1, 5, 6),
        (2, None),
        (3, 5),
        (-1, 5),
        ("kind", 5),
        ([], 5),
    ],
    ids=repr,
)
def test_what_does_not_fit_is_refused(what: object) -> None:
    with pytest.raises(StateDamaged, match="what a donor sent can't be read"):
        decode_parcel(pickle.dumps(what, 5))
