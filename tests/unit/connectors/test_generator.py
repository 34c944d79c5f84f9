"""A generator gives its values one after the other, until it returns None or is stopped."""

import threading
from pathlib import Path
from typing import Any

import pytest
from tests.unit.connectors.services import DirectServices

import wallaroo
from wallaroo.api.connectors import SourceReader
from wallaroo.errors import InputError
from wallaroo.state.allowlist import AllowList
from wallaroo.state.codec import Codec


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


class Fibonacci:
    """Its instance is its state: `apply` changes it."""

    def __init__(self, last: int) -> None:
        self.before = [0]
        self.last = last

    def initial_value(self) -> int:
        return 1

    def apply(self, previous: int) -> int | None:
        value = self.before[-1] + previous
        self.before.append(previous)
        return value if value <= self.last else None


FIBONACCI = [1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89]


def saved(reader: SourceReader) -> Any:
    codec = Codec(AllowList([Path(__file__).parent]))
    return codec.decode(codec.encode(reader.position()))


class TestAPosition:
    @pytest.mark.parametrize("count", range(len(FIBONACCI) + 1))
    def test_goes_on_right_behind_what_was_read(self, count: int) -> None:
        config = wallaroo.GenSourceConfig("numbers", Fibonacci(100))
        reader = config.open("numbers", DirectServices())
        assert count == 0 or reader.read(count) == FIBONACCI[:count]
        position = saved(reader)
        assert reader.read(100) == FIBONACCI[count:], "it goes on undisturbed"
        again = config.open("numbers", DirectServices(), position)
        assert again.read(100) == FIBONACCI[count:]
        assert again.ended

    def test_of_one_that_has_ended_is_its_end(self) -> None:
        config = wallaroo.GenSourceConfig("numbers", CountTo(3))
        reader = config.open("numbers", DirectServices())
        reader.read(10)
        again = config.open("numbers", DirectServices(), saved(reader))
        assert again.read(10) == []
        assert again.ended

    def test_of_one_that_is_stopped_is_where_it_was(self) -> None:
        config = wallaroo.GenSourceConfig("numbers", CountTo(9))
        reader = config.open("numbers", DirectServices())
        reader.read(3)
        reader.stop()
        again = config.open("numbers", DirectServices(), saved(reader))
        assert again.read(3) == [4, 5, 6]

    def test_of_another_kind_of_source_is_refused(self) -> None:
        config = wallaroo.GenSourceConfig("numbers", CountTo(9))
        with pytest.raises(InputError, match="'numbers': the saved state is of another kind"):
            config.open("numbers", DirectServices(), {"bytes": 7})


def test_without_a_position_it_begins_as_the_application_made_it() -> None:
    """A rollback to the beginning, after it has changed itself."""
    config = wallaroo.GenSourceConfig("numbers", Fibonacci(100))
    for _ in range(2):
        assert config.open("numbers", DirectServices()).read(100) == FIBONACCI


def test_one_that_can_not_be_copied_is_refused_with_words() -> None:
    class Locked(CountTo):
        def __init__(self) -> None:
            super().__init__(3)
            self.lock = threading.Lock()

    with pytest.raises(InputError, match=r"'numbers': its generator can't be copied \(TypeError: "):
        reader_of(Locked())
