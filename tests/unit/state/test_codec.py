"""Values come back from bytes as they were, alone and in blocks."""

import datetime as dt
import decimal
import fractions
import ipaddress
import math
import pathlib
import types
import uuid
from collections import ChainMap, Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.state import values as v

from wallaroo.state.allowlist import AllowList
from wallaroo.state.codec import Codec, CodecError, is_plain

CODEC = Codec(AllowList([Path(__file__).parent]))


def alone(value: Any) -> Any:
    return CODEC.decode(CODEC.encode(value))


def block(values: list[Any]) -> list[Any]:
    return CODEC.decode_block(CODEC.encode_block(values))


def in_block(value: Any) -> Any:
    (back,) = block([value])
    return back


def in_mixed_block(value: Any) -> Any:
    back = block([1, v.Plain(), value, "x", v.Defaults()])
    assert back[0] == 1
    assert back[1] == v.Plain()
    assert isinstance(back[4], v.Defaults)
    return back[2]


def inside_another(value: Any) -> Any:
    return in_block(v.Plain(value)).args[0]


WAYS = pytest.mark.parametrize(
    "way",
    [alone, in_block, in_mixed_block, inside_another],
    ids=lambda way: str(way.__name__),
)
Way = Callable[[Any], Any]

hashable = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
    | st.text()
    | st.text(st.characters(categories=["Cs"]), max_size=2)
    | st.binary()
    | st.dates()
    | st.datetimes(timezones=st.none() | st.just(dt.UTC))
    | st.times()
    | st.timedeltas()
    | st.decimals(allow_nan=False)
    | st.fractions()
    | st.uuids()
    | st.ip_addresses()
    | st.sampled_from([*v.Colour, *v.Level, v.Bits.ONE | v.Bits.TWO])
    | st.builds(v.Frozen, st.text(), st.integers())
    | st.builds(v.FrozenSlotted, st.text(), st.integers())
    | st.builds(v.Pair, st.integers(), st.text()),
    lambda inner: st.lists(inner, max_size=4).map(tuple) | st.frozensets(inner, max_size=4),
    max_leaves=6,
)
anything = st.recursive(
    hashable,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(hashable, inner, max_size=4)
        | st.sets(hashable, max_size=4)
        | st.lists(inner, max_size=4).map(deque)
        | st.binary().map(bytearray)
        | st.dictionaries(st.text(), inner, max_size=4).map(OrderedDict)
        | st.builds(v.Plain, inner)
        | st.builds(v.Child, inner, inner)
        | st.builds(v.Record, st.text(), st.lists(inner, max_size=3))
        | st.builds(v.Slotted, inner, inner)
        | st.builds(v.OldPair, inner, inner)
    ),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(value=anything)
def test_any_value_comes_back_alone(value: Any) -> None:
    back = alone(value)
    assert back == value
    assert type(back) is type(value)


@settings(max_examples=150, deadline=None)
@given(values=st.lists(anything, max_size=8))
def test_any_values_come_back_as_a_block(values: list[Any]) -> None:
    back = block(values)
    assert back == values
    assert list(map(type, back)) == list(map(type, values))


@settings(max_examples=50, deadline=None)
@given(values=st.lists(st.builds(v.Plain, anything), min_size=1, max_size=5))
def test_any_objects_of_one_class_come_back_as_a_block(values: list[Any]) -> None:
    assert block(values) == values


def test_an_empty_block_comes_back() -> None:
    assert block([]) == []


EQUAL = [
    v.Plain(1, "a", name="b"),
    v.Plain(),
    v.Child([1], {"a": v.Plain()}),
    v.Outer.Inner(1),
    v.Record("a", [1, v.Frozen("b")]),
    v.Frozen("a", 3),
    v.Slotted("a", 3),
    v.FrozenSlotted("a", 3),
    v.Words(a=1, b=2),
    v.Numbers([1, 2]),
    v.Ordered(b=1, a=2),
    v.Text("a"),
    v.Count(5),
    v.Pair(1, "a"),
    v.OldPair(1, "a"),
    v.Colour.RED,
    v.Bits.ONE | v.Bits.TWO,
    v.Level.LOW,
    Counter("hello"),
    OrderedDict(b=1, a=2),
    defaultdict(list, {"a": [1]}),
    defaultdict(v.Plain, {"a": v.Plain(1)}),
    ChainMap({"a": 1}, {"b": 2}),
    deque([1, 2, 3], maxlen=3),
    dt.datetime(2020, 1, 2, 3, 4, 5, 6, tzinfo=dt.UTC),
    dt.datetime(2020, 1, 2, tzinfo=dt.timezone(dt.timedelta(hours=2), "here")),
    dt.timedelta(days=1),
    decimal.Decimal("1.10"),
    fractions.Fraction(1, 3),
    uuid.UUID(int=5),
    ipaddress.ip_address("::1"),
    ipaddress.ip_network("10.0.0.0/8"),
    pathlib.Path("a/b"),
    pathlib.PureWindowsPath("a/b"),
    types.SimpleNamespace(a=1),
    range(3),
    slice(1, 2),
]


@WAYS
@pytest.mark.parametrize("value", EQUAL, ids=lambda value: repr(value)[:40])
def test_a_value_comes_back_equal_and_of_its_class(way: Way, value: Any) -> None:
    back = way(value)
    assert back == value
    assert type(back) is type(value)


@WAYS
class TestWhatEqualityDoesNotShow:
    def test_an_object_without_attributes_keeps_its_classs_defaults(self, way: Way) -> None:
        back = way(v.Defaults())
        assert vars(back) == {}
        assert (back.count, back.name) == (0, "none")

    def test_an_attribute_beside_defaults_comes_back(self, way: Way) -> None:
        value = v.Defaults()
        value.count = 3
        assert vars(way(value)) == {"count": 3}

    def test_a_class_is_not_called_again(self, way: Way) -> None:
        assert vars(way(v.NeedsArguments(3))) == {"value": 3}

    def test_dicts_and_lists_of_classes_of_their_own_keep_items_and_attributes(
        self, way: Way
    ) -> None:
        words, numbers = v.Words(a=1), v.Numbers([1, 2])
        words.note = numbers.note = "kept"
        assert (way(words), way(words).note) == ({"a": 1}, "kept")
        assert (way(numbers), way(numbers).note) == ([1, 2], "kept")

    def test_a_defaultdict_keeps_its_factory(self, way: Way) -> None:
        back = way(defaultdict(int, a=1))
        back["b"] += 1
        assert back == {"a": 1, "b": 1}

    def test_a_class_that_an_object_holds_comes_back(self, way: Way) -> None:
        assert way(v.Plain(int, v.Plain)) == v.Plain(int, v.Plain)

    def test_a_deque_keeps_its_length(self, way: Way) -> None:
        assert way(deque([1], maxlen=4)).maxlen == 4

    def test_a_generic_class_comes_back(self, way: Way) -> None:
        assert way(v.Box(3)).value == 3

    def test_slots_and_attributes_beside_them_come_back(self, way: Way) -> None:
        value = v.BelowSlots()
        value.one = 1  # type: ignore[attr-defined]
        value.other = 2  # type: ignore[attr-defined]
        back = way(value)
        assert (back.one, back.other) == (1, 2)

    def test_an_exception_keeps_its_arguments_and_attributes(self, way: Way) -> None:
        value = v.Mistake("why")
        value.seen = 7
        back = way(value)
        assert (type(back), back.args, back.seen) == (v.Mistake, ("why",), 7)

    def test_a_builtin_exception_comes_back(self, way: Way) -> None:
        back = way(KeyError("a", 1))
        assert (type(back), back.args) == (KeyError, ("a", 1))

    def test_getstate_decides_what_is_kept(self, way: Way) -> None:
        assert vars(way(v.WithGetState())) == {"kept": 1}

    def test_setstate_is_called(self, way: Way) -> None:
        back = way(v.WithSetState(3))
        assert (back.value, back.restored) == (3, True)

    def test_reduce_decides_how_it_is_made(self, way: Way) -> None:
        value = v.WithReduce(3)
        value.made = "changed"
        back = way(value)
        assert (back.value, back.made) == (3, "by __init__")
        assert way(v.WithReduceEx(4)).value == 4

    def test_new_is_called(self, way: Way) -> None:
        assert way(v.WithNew()).made == "by __new__"

    def test_new_gets_its_arguments(self, way: Way) -> None:
        assert way(v.WithNewArgs(3)).value == 3
        assert way(v.WithNewArgsEx(4)).value == 4

    def test_an_enums_member_is_the_member(self, way: Way) -> None:
        assert way(v.Colour.GREEN) is v.Colour.GREEN

    def test_not_a_number_comes_back(self, way: Way) -> None:
        assert math.isnan(way(math.nan))

    def test_an_object_that_holds_itself_comes_back_so(self, way: Way) -> None:
        value = v.Plain()
        value.args = (value, [value])
        back = way(value)
        assert back.args[0] is back
        assert back.args[1][0] is back

    def test_objects_that_hold_one_another_come_back_so(self, way: Way) -> None:
        left, right = v.Plain(), v.Child()
        left.args, right.args = (right,), (left,)
        back = way(left)
        assert back.args[0].args[0] is back
        assert type(back.args[0]) is v.Child

    def test_a_list_that_holds_itself_comes_back_so(self, way: Way) -> None:
        value: list[Any] = []
        value.append(value)
        back = way(value)
        assert back[0] is back

    def test_an_object_held_twice_comes_back_as_one(self, way: Way) -> None:
        inner = v.Plain(1)
        back = way(v.Plain(inner, [inner]))
        assert back.args[0] is back.args[1][0]


def test_an_object_of_a_block_that_another_holds_comes_back_as_one() -> None:
    inner = v.Plain(1)
    outer = v.Plain(inner)
    first, second = block([inner, outer])
    assert second.args[0] is first


def test_an_object_of_a_mixed_block_that_another_holds_comes_back_as_one() -> None:
    inner = v.Plain(1)
    first, _, _, second = block([inner, 3, v.Slotted("a"), v.Child([inner])])
    assert second.args[0][0] is first


def test_a_block_of_one_object_many_times_comes_back_equal() -> None:
    value = v.Plain(1)
    assert block([value] * 5) == [value] * 5


def test_changing_one_object_of_a_block_changes_no_other() -> None:
    shared = v.Plain(1)
    first, second = block([v.Plain(2), v.Plain(3)])
    first.args = shared
    assert second.args == (3,)


def test_a_block_of_plain_objects_is_smaller_than_their_pickles() -> None:
    values = [v.Plain(number) for number in range(100)]
    assert len(CODEC.encode_block(values)) < sum(len(CODEC.encode(value)) for value in values)


@pytest.mark.parametrize(
    "cls", [v.Plain, v.Child, v.Defaults, v.NeedsArguments, v.Outer.Inner, v.Record, v.Frozen]
)
def test_a_class_written_in_python_that_keeps_all_in_its_dict_is_plain(cls: type) -> None:
    """Ruling 8 of docs/protocol.md."""
    assert is_plain(cls)


@pytest.mark.parametrize(
    "cls",
    [
        *(v.Slots, v.BelowSlots, v.Slotted, v.FrozenSlotted),
        *(v.WithGetState, v.WithSetState, v.WithReduce, v.WithReduceEx),
        *(v.WithNew, v.WithNewArgs, v.WithNewArgsEx),
        *(v.Words, v.Numbers, v.Ordered, v.Lists, v.Text, v.Count, v.Pair, v.Mistake),
        *(v.Colour, v.Bits, v.Level),
        *(int, str, dict, list, Counter, OrderedDict, deque, dt.datetime, Exception),
    ],
    ids=lambda cls: str(cls.__name__),
)
def test_a_class_that_says_how_it_is_copied_or_keeps_more_is_not_plain(cls: type) -> None:
    """Ruling 8 of docs/protocol.md: its `__dict__` alone would lose something."""
    assert not is_plain(cls)


def test_a_class_below_one_that_is_not_plain_is_not_plain() -> None:
    """Ruling 8 of docs/protocol.md: in any base."""

    class Below(v.WithGetState):
        pass

    class BelowSetState(v.WithSetState):
        pass

    class BelowNew(v.WithNew):
        pass

    assert not any(map(is_plain, (Below, BelowSetState, BelowNew)))


@pytest.mark.parametrize("data", [b"", b"\x80", b"no pickle", b"\x80\x05K\x01"])
def test_bytes_that_are_no_value_are_refused_with_words(data: bytes) -> None:
    with pytest.raises(CodecError, match="what was received can't be read: "):
        CODEC.decode(data)


def test_bytes_that_are_cut_short_are_refused() -> None:
    whole = CODEC.encode_block([v.Plain(number) for number in range(10)])
    for size in range(len(whole)):
        with pytest.raises(CodecError):
            CODEC.decode_block(whole[:size])


def test_an_object_that_raises_when_it_is_written_is_refused_with_its_words() -> None:
    with pytest.raises(CodecError, match="RuntimeError: not now"):
        CODEC.encode(v.RaisesInGetState())


def test_a_value_nested_too_deep_is_refused() -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(CodecError, match="RecursionError"):
        CODEC.encode(value)
