"""A generator gives its values one after the other, until it returns None or is stopped."""

from typing import Any

import pytest
from tests.unit.connectors.services import DirectServices

import wallaroo
from wallaroo.api.connectors import SourceReader


class CountTo:
    def __init__(self, last: int | None) -> None:
        self.last = last

    def initial_value(self) -> int | None:
        return 1

    def apply(self, previous: int) -> int | None:
        return None if previous == self.last else previous + 1


def reader_of(gen: Any) -> SourceReader:
    return wallaroo.GenSourceConfig("numbers", gen).open("numbers", DirectServices())


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 100])
def test_all_values_come_whatever_the_limit(limit: int) -> None:
    reader = reader_of(CountTo(5))
    found = []
    while not reader.ended:
        events = reader.read(limit)
        assert len(events) <= limit
        found += events
    assert found == [1, 2, 3, 4, 5]


def test_one_that_begins_with_none_gives_nothing() -> None:
    class Nothing(CountTo):
        def initial_value(self) -> None:
            return None

    reader = reader_of(Nothing(None))
    assert reader.read(10) == []
    assert reader.ended


def test_values_that_are_false_are_values() -> None:
    class Zeros:
        def __init__(self) -> None:
            self.left = 3

        def initial_value(self) -> int:
            return 0

        def apply(self, previous: int) -> int | None:
            self.left -= 1
            return 0 if self.left else None

    assert reader_of(Zeros()).read(10) == [0, 0, 0]


def test_apply_is_not_called_before_its_value_is_asked_for() -> None:
    calls: list[int] = []

    class Watched(CountTo):
        def apply(self, previous: int) -> int | None:
            calls.append(previous)
            return super().apply(previous)

    reader = reader_of(Watched(None))
    assert reader.read(2) == [1, 2]
    assert calls == [1]


def test_one_that_is_stopped_gives_no_more() -> None:
    reader = reader_of(CountTo(None))
    reader.read(3)
    reader.stop()
    assert reader.read(3) == []
    assert reader.ended
