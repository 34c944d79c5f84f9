"""Attributes read by name are those that the object has, whatever its class and its past."""

import random
from typing import Any

import pytest

from wallaroo.state.layout import Layout, named


class _Attributes(dict[str, Any]):
    """A `__dict__` of another class."""


def read(layout: Layout, *values: Any) -> list[dict[str, Any]]:
    rows, odd = layout.read(list(values))
    return named(layout.names, rows, odd)


class Counter:
    count = 0


def test_objects_that_are_alike_are_read_without_their_dict() -> None:
    layout = Layout(Counter)
    counters = [Counter() for _ in range(5)]
    for number, counter in enumerate(counters):
        counter.count = number + 1
    assert read(layout, *counters) == [{"count": number} for number in range(1, 6)]
    assert layout.snapshot(counters[3]) == {"count": 4}


def test_a_value_that_is_the_class_own_is_looked_at_closely() -> None:
    layout = Layout(Counter)
    counted, flagged, zero = Counter(), Counter(), Counter()
    counted.count = 1
    flagged.flag = 0  # type: ignore[attr-defined]
    zero.count = 0
    assert read(layout, counted, flagged, zero) == [{"count": 1}, {"flag": 0}, {"count": 0}]
    assert layout.snapshot(flagged) is None


def test_no_attribute_is_lost_of_an_object_whose_dict_was_asked_for() -> None:
    layout = Layout(Counter)
    plain, flagged = Counter(), Counter()
    plain.count = flagged.count = 3000
    assert read(layout, plain) == [{"count": 3000}]
    flagged.flag = "precious"  # type: ignore[attr-defined]
    assert vars(flagged)
    assert layout.snapshot(flagged) in (None, {"count": 3000, "flag": "precious"})
    assert read(layout, plain, flagged)[1] == {"count": 3000, "flag": "precious"}


@pytest.mark.parametrize("first", range(0, 3000, 500))
def test_any_objects_are_read_as_they_are(first: int) -> None:
    for seed in range(first, first + 500):
        chance = random.Random(seed)
        body = {name: chance.choice((0, 1, None, "s")) for name in "abc" if chance.random() < 0.3}
        base = type("Base", (), body)
        layout = Layout(base)
        objects = [base() for _ in range(chance.randint(1, 6))]
        for _ in range(chance.randint(1, 25)):
            change(chance, chance.choice(objects))
            some = [chance.choice(objects) for _ in range(chance.randint(1, 4))]
            if chance.random() < 0.3:
                assert read(layout, *some) == [dict(vars(each)) for each in some], seed
            snapshot = layout.snapshot(some[0])
            assert snapshot is None or snapshot == dict(vars(some[0])), seed


def change(chance: random.Random, value: Any) -> None:
    match chance.randrange(12):
        case 0 | 1 | 2 | 3 | 4 | 5:
            some: tuple[Any, ...] = (0, 1, None, "s", 1000, 2.5, [1], {}, {"q": 1})
            setattr(value, chance.choice("abcdef"), chance.choice(some))
        case 6:
            vars(value).pop(chance.choice("abc"), None)
        case 7:
            assert vars(value) is not None
        case 8:
            value.__dict__ = dict(vars(value))
        case 9:
            value.__dict__ = _Attributes(vars(value))
        case 10:
            vars(value)["z"] = 1
