"""The table in C does what a dict and a few sets would, whatever user code does meanwhile."""

import gc
import pickle
import random
import sys
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.state.keeping import CODEC
from xxhash import xxh3_64_digest

from wallaroo.state import native
from wallaroo.state.entries import (
    ATTRIBUTES,
    Block,
    Form,
    as_entries,
    base_key,
    base_keys,
    open_block,
)

if not native.BUILT:
    pytest.skip("the extension is not built", allow_module_level=True)

from wallaroo.state._native import Merge, Table


class Point:
    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


class One:
    count = 0


def proper(key: Any) -> str | bytes:
    return str(key)


def table(
    first: Callable[[Any], Any] = lambda key: One(),
    early: Callable[[Any, Any], None] = lambda key, state: None,
    open: Callable[[Any, int, Any], Any] = lambda key, form, value: value,  # noqa: A002
) -> Table:
    return Table(proper, first, early, open)


def encoded(made: Table, limit: int = 1000) -> dict[Any, Any]:
    """What is left to encode, simple or not."""
    found: dict[Any, Any] = {}
    while (part := made.encode(limit)) is not None:
        payload, count, keys, states = part
        if payload is not None:
            block_keys, values = open_block(Block(1, ATTRIBUTES, count, payload))
            found |= zip(block_keys, values, strict=True)
        found |= {key: dict(vars(state)) for key, state in zip(keys, states, strict=True)}
    return found


# Touching


def test_a_key_has_one_state_however_often_it_is_touched() -> None:
    made = table()
    assert made["a"] is made["a"]
    assert made["a"] is not made[b"a"]
    assert (made.count, len(made), list(made)) == (2, 2, ["a", b"a"])


def test_what_an_epoch_touched_is_encoded_as_it_was_at_its_end() -> None:
    made = table()
    made.lay(One, ("count",), (0,))
    for number in range(100):
        made[str(number)].count = number + 1
    made.freeze()
    for number in range(0, 100, 3):
        made[str(number)].count = -1
    assert encoded(made, 7) == {str(n): {"count": n + 1} for n in range(100)}
    made.freeze()
    assert encoded(made) == {str(n): {"count": -1} for n in range(0, 100, 3)}


def test_an_exception_of_who_makes_a_state_leaves_nothing() -> None:
    def fail(key: Any) -> Any:
        raise ZeroDivisionError(key)

    made = table(first=fail)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            made["a"]
    assert (made.count, len(made)) == (0, 0)


def test_an_exception_of_who_encodes_early_leaves_the_entry_to_be_encoded() -> None:
    def refuse(key: Any, state: Any) -> None:
        raise ZeroDivisionError

    made = table(first=lambda key: [], early=refuse)
    made["a"].append(1)
    made.freeze()
    with pytest.raises(ZeroDivisionError):
        made["a"]
    part = made.encode(10)
    assert part is not None
    assert part[2:] == (["a"], [[1]])


def test_who_makes_a_state_may_touch_the_table() -> None:
    def first(key: Any) -> Any:
        if len(key) < 40:
            made[key + "x"]
            for number in range(50):
                made[f"{len(key)} {number} {'long' * 10}"]
        return [key]

    made = table(first)
    assert made["x"] == ["x"]
    assert all(made["x" * n] == ["x" * n] for n in range(1, 41))


def test_of_two_states_that_are_made_of_one_key_the_first_stays() -> None:
    depth = 0

    def first(key: Any) -> Any:
        nonlocal depth
        depth += 1
        if depth == 1:
            inner.append(made[key])
        return [depth]

    inner: list[Any] = []
    made = table(first)
    assert made["a"] is inner[0]
    assert made.count == 1


def test_who_encodes_early_may_touch_other_keys() -> None:
    def early(key: Any, state: Any) -> None:
        kept.append((key, list(state)))
        for number in range(200):
            made[f"{key} {number}"]

    kept: list[Any] = []
    made = table(first=lambda key: [], early=early)
    made["a"].append(1)
    made.freeze()
    made["a"].append(2)
    assert kept == [("a", [1])]
    assert made.count == 201


def test_a_finalizer_may_touch_the_table_while_it_drops_entries() -> None:
    class Last:
        def __del__(self) -> None:
            if len(made) < 5000:
                made[f"from {id(self)} {len(made)}"]

    made = table(first=lambda key: Last() if key.startswith("k") else 0)
    for number in range(300):
        made[f"k{number}"]
    made.drop(1)
    assert made.count == len(made)
    assert all(made[key] == 0 for key in list(made))


class Odd(str):
    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        raise ZeroDivisionError

    def __hash__(self) -> int:
        raise ZeroDivisionError


def test_a_key_of_another_class_is_never_asked() -> None:
    made = table()
    made["a"]
    assert made[Odd("a")] is made["a"]
    assert Odd("a") not in made


def test_a_proper_key_is_exact() -> None:
    made = Table(lambda key: key, lambda key: 1, lambda key, state: None, lambda *_: None)
    with pytest.raises(TypeError, match="proper key"):
        made[3]


# Attributes

_BOUNDS = [0, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**63 - 1, 2**63, 10**30]
ATTRIBUTE_VALUES: list[Any] = [
    *_BOUNDS,
    *(-bound for bound in _BOUNDS),
    *(-bound - 1 for bound in _BOUNDS),
    *(0.0, -1.5, float("inf"), None, True, False, [1], {"a": 1}, (1, 2)),
    *("", "a", "\u00e9", "\u20ac", "x" * 255, "x" * 256, "\U0001f600" * 100, "\ud800"),
    *(b"", b"a", b"x" * 256, b"y" * 70_000),
]


@pytest.mark.parametrize("value", ATTRIBUTE_VALUES)
@pytest.mark.parametrize("names", [("a",), ("a", "b"), ("a", "b", "c"), ("a", "b", "c", "d", "e")])
def test_attributes_come_back_as_they_were(value: Any, names: tuple[str, ...]) -> None:
    made = table(first=lambda key: Point(**dict.fromkeys(names, 7)))
    made.lay(Point, names, (object(),) * len(names))
    for name in names:
        setattr(made["key"], name, value)
        setattr(made["schl\u00fcssel"], name, value)
    made.freeze()
    assert encoded(made) == {
        "key": dict.fromkeys(names, value),
        "schl\u00fcssel": dict.fromkeys(names, value),
    }


def plain(**attributes: Any) -> One:
    made = One()
    for name, value in attributes.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize("odd", [{}, {"count": 1, "more": 2}, {"other": 1}, {"count": 0}])
def test_objects_with_other_attributes_are_left_to_python(odd: dict[str, Any]) -> None:
    states = {"good": plain(count=5), "odd": plain(**odd)}
    made = table(states.__getitem__)
    made.lay(One, ("count",), (One.count,))
    made["good"], made["odd"]
    made.freeze()
    part = made.encode(10)
    assert part is not None
    assert (part[1], part[2]) == (1, ["odd"])


def test_encoding_does_not_make_a_dict_of_an_object() -> None:
    made = table()
    made.lay(One, ("count",), (0,))
    made["a"].count = 3
    before = gc.get_referents(made["a"])
    made.freeze()
    encoded(made)
    after = gc.get_referents(made["a"])
    assert [type(each) for each in after] == [type(each) for each in before]


# Against a model


@pytest.mark.parametrize("seed", range(150))
def test_at_random_it_does_what_dicts_would(seed: int) -> None:
    """With entries that come, go, are stored, and are encoded at any time."""
    chance = random.Random(seed)
    keys = [f"k{n}" for n in range(40)] + [b"k%d" % n for n in range(10)]
    early: dict[Any, Any] = {}
    made = table(
        early=lambda key, state: early.update({key: dict(vars(state))}),
        open=lambda key, form, value: plain(count=value),
    )
    made.lay(One, ("count",), (0,))
    values: dict[Any, Any] = {}
    epochs: dict[Any, int] = {}
    stored: dict[Any, Any] = {}
    frozen: dict[Any, Any] = {}
    done: dict[Any, Any] = {}
    encoding = False
    for _ in range(600):
        match chance.randrange(14):
            case 0:
                if not encoding:
                    frozen = {k: dict(values[k]) for k in epochs if epochs[k] == made.now}
                    done = {}
                    early.clear()
                    made.freeze()
                    encoding = True
            case 1 | 2:
                part = made.encode(chance.randint(1, 8))
                if part is None:
                    if encoding:
                        assert done | early == frozen
                    encoding = False
                else:
                    payload, count, odd_keys, states = part
                    if payload is not None:
                        found = open_block(Block(1, ATTRIBUTES, count, payload))
                        done |= zip(*found, strict=True)
                    done |= {k: dict(vars(s)) for k, s in zip(odd_keys, states, strict=True)}
            case 3 if chance.random() < 0.2:
                epoch = max(1, made.now - chance.randrange(3))
                made.drop(epoch)
                for key in [k for k in values if epochs[k] >= epoch]:
                    del values[key], epochs[key]
                encoding = False
            case 4:
                some = chance.sample(keys, 5)
                made.restore(0, some, list(range(1, 6)))
                for value, key in enumerate(some, 1):
                    if key not in values:
                        stored.setdefault(key, value)
            case 5 if not encoding:
                before = {key for key, *_ in made.items()}
                made.evict(chance.randint(1, 20), made.now, max(0, made.now - 2))
                for key in before - {key for key, *_ in made.items()}:
                    assert epochs.get(key, 0) < made.now
                    values.pop(key, None)
                    epochs.pop(key, None)
                    stored.pop(key, None)
            case _:
                key = chance.choice(keys)
                fresh = key not in values
                state = made[key]
                if fresh:
                    values[key] = {"count": stored.pop(key)} if key in stored else {}
                assert vars(state) == values[key] if chance.random() < 0.2 else True
                state.count = values[key]["count"] = chance.randrange(1, 300)
                if chance.random() < 0.02:
                    state.other = values[key]["other"] = "odd"
                epochs[key] = made.now
        assert made.count == len(values) + len(stored)
        assert made.stored == len(stored)
    assert {k: dict(vars(s)) for k, s, form in made.items() if form is None} == values
    assert {k: v for k, v, form in made.items() if form is not None} == stored


# References


def test_every_reference_is_given_back() -> None:
    keys, states = [f"key {n}" for n in range(500)], [One() for _ in range(500)]
    by_key = dict(zip(keys, states, strict=True))
    counts = [*map(sys.getrefcount, keys), *map(sys.getrefcount, states)]
    for _ in range(3):
        made = table(by_key.__getitem__, open=lambda key, form, value: value)
        made.lay(One, ("count",), (0,))
        made.restore(3, keys[:100], states[:100])
        for key in keys:
            made[key]
        made.freeze()
        for key in keys[::2]:
            made[key]
        while made.encode(11):
            pass
        made.freeze()
        made.evict(90, made.now, 0)
        while made.encode(11):
            pass
        made.evict(90, made.now, 0)
        made.items()
        made.drop(2)
        made[keys[0]]
        del made, key
    assert [*map(sys.getrefcount, keys), *map(sys.getrefcount, states)] == counts


def test_a_cycle_through_a_table_is_collected() -> None:
    class Holder:
        pass

    made = table(first=lambda key: Holder())
    made["a"].table = made
    gone = weakref.ref(made["a"])
    del made
    gc.collect()
    assert gone() is None


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow() -> None:
    def size() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096

    made = table()
    made.lay(One, ("count",), (0,))
    merge = Merge()
    sizes = []
    for turn in range(30):
        for number in range(3000):
            made[f"k{number}"].count = turn * number
        made.freeze()
        for number in range(0, 3000, 2):
            made[f"k{number}"].count = 1
        merge = Merge()
        while part := made.encode(256):
            assert part[0] is None or not merge.add(0, [(1, part[1], part[0])])
        while merge.take(100)[0]:
            pass
        if turn % 5 == 0:
            made.drop(1)
        sizes.append(size())
    assert sizes[-1] - sizes[10] < 4 << 20


# Merging

NAMES = st.lists(st.sampled_from(["a", "b", "schl\u00fcssel", "d", "e"]), min_size=1, unique=True)
VALUES = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9)
)
KEYS = st.text(st.characters(codec="utf-8"), max_size=300) | st.binary(max_size=300)


@given(st.data())
def test_a_merge_has_what_python_would_make_of_the_blocks(data: st.DataObject) -> None:
    expected: dict[bytes, Any] = {}
    merge = Merge()
    deltas = data.draw(st.integers(1, 3))
    for rank in sorted(range(deltas), key=lambda _: data.draw(st.integers(0, 9))):
        names = tuple(data.draw(NAMES))
        rows = data.draw(st.dictionaries(KEYS, st.tuples(*[VALUES] * len(names)), max_size=20))
        made = table(lambda key: Point())
        made.lay(Point, names, (object(),) * len(names))
        for key, row in rows.items():
            made[key].__dict__.update(zip(names, row, strict=True))
        made.freeze()
        form = Form(CODEC, 7, "place", Point)
        while part := made.encode(50):
            payload, count, keys, states = part
            blocks = [form.block(keys, states)] if keys else []
            if payload is not None:
                blocks.append(Block(7, ATTRIBUTES, count, payload))
            for block in blocks:
                where = base_keys(7, open_block(block)[0])
                entries = as_entries(block.kind, open_block(block)[1])
                if merge.add(rank, [(7, block.entries, block.payload)]):
                    merge.put(rank, where, entries)
                for at, entry in zip(where, entries, strict=True):
                    if at not in expected or expected[at][0] >= rank:
                        expected[at] = rank, CODEC.decode(entry[1:])
    assert len(merge) == len(expected)
    found: list[tuple[bytes, bytes]] = []
    while (part_taken := merge.take(7))[0]:
        found += zip(*part_taken, strict=True)
    assert [key for key, _ in found] == sorted(expected)
    assert {k: CODEC.decode(e[1:]) for k, e in found} == {k: v for k, (_, v) in expected.items()}


@pytest.mark.parametrize("place", [0, 1, 255, 256, 65535])
def test_keys_are_hashed_as_everywhere(place: int) -> None:
    chance = random.Random(place)
    keys = [chance.randbytes(length) for length in range(241)]
    rows = table(lambda key: plain(count=1))
    rows.lay(One, ("count",), (0,))
    for key in keys:
        rows[key]
    rows.freeze()
    part = rows.encode(1000)
    assert part is not None
    assert part[0] is not None
    merge = Merge()
    assert merge.add(0, [(place, part[1], part[0])]) == []
    assert sorted(merge.take(1000)[0]) == sorted(
        base_key(place, int.from_bytes(xxh3_64_digest(key), "big"), key) for key in keys
    )


def test_many_entries_at_one_point_are_in_order() -> None:
    merge = Merge()
    keys = [base_key(place, 5, f"{n}") for place in (3, 1) for n in range(500)]
    merge.put(0, keys, [b"x"] * len(keys))
    assert merge.take(2000)[0] == sorted(keys)


@given(st.binary(max_size=60), st.integers(0, 3))
def test_a_block_that_is_not_one_of_its_own_is_left_alone(noise: bytes, entries: int) -> None:
    """Truncated, changed, or made by Python: nothing is taken, or read beyond its end."""
    made = table(lambda key: plain(count=300))
    made.lay(One, ("count",), (0,))
    for number in range(3):
        made[f"key {number}"]
    made.freeze()
    part = made.encode(10)
    assert part is not None
    payload = part[0]
    assert payload is not None
    merge = Merge()
    head = payload[:11]
    others = [payload[:cut] for cut in range(len(payload))]
    others += [noise, head + noise, pickle.dumps((["a"], [1], ("count",), {}), 5)]
    framed = b"\x80\x05\x95" + (len(noise) + 3).to_bytes(8, "little") + b"(](" + noise
    others.append(framed)
    blocks = [(1, 3 if each in others[: len(payload)] else entries, each) for each in others]
    assert merge.add(0, blocks) == list(range(len(blocks)))
    assert len(merge) == 0


def test_nothing_can_be_added_once_entries_are_taken() -> None:
    merge = Merge()
    merge.take(1)
    with pytest.raises(RuntimeError, match="too late"):
        merge.add(0, [])
