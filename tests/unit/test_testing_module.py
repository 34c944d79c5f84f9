"""`wallaroo.testing` as a user's own test sees it."""

from pathlib import Path

import pytest

import wallaroo
from wallaroo import testing


class Total:
    count = 0


@wallaroo.computation_multi(name="split")
def split(line: str) -> list[str]:
    return line.split()


@wallaroo.key_extractor
def word_itself(word: str) -> str:
    return word


@wallaroo.state_computation(name="count", state=Total)
def count(word: str, total: Total) -> tuple[str, int]:
    total.count += 1
    return (word, total.count)


@wallaroo.encoder
def encode(result: tuple[str, int]) -> str | None:
    return f"{result[0]}={result[1]}" if result[1] < 3 else None


@wallaroo.decoder(header_length=4, length_fmt=">I")
def decode(payload: bytes) -> str:
    return payload.decode()


def word_count() -> wallaroo.Application:
    lines = wallaroo.source("lines", wallaroo.TCPSourceConfig("lines", "h", 1, decode))
    counts = lines.to(split).key_by(word_itself).to(count)
    return wallaroo.build_application("word count", counts.to_sink(_sink()))


def _sink() -> wallaroo.TCPSinkConfig[tuple[str, int]]:
    return wallaroo.TCPSinkConfig("h", 1, encode)


LINES = {"lines": ["a b", "a", "a c"]}


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
class TestARun:
    def test_gives_the_events_that_came_to_the_sink(self, workers: int) -> None:
        result = testing.run(word_count(), LINES, workers=workers)
        assert sorted(result.values()) == [("a", 1), ("a", 2), ("a", 3), ("b", 1), ("c", 1)]

    def test_gives_what_the_encoder_made_of_them(self, workers: int) -> None:
        result = testing.run(word_count(), LINES, workers=workers)
        assert sorted(result.encoded()) == [b"a=1", b"a=2", b"b=1", b"c=1"]

    def test_gives_the_states_of_all_workers_together(self, workers: int) -> None:
        states = testing.run(word_count(), LINES, workers=workers).state("count")
        assert {key: state.count for key, state in states.items()} == {"a": 3, "b": 1, "c": 1}

    def test_gives_the_states_of_each_worker(self, workers: int) -> None:
        result = testing.run(word_count(), LINES, workers=workers)
        keys = [key for states in result.states for key in states["count"]]
        assert len(result.states) == workers
        assert sorted(map(str, keys)) == ["a", "b", "c"]

    def test_of_no_events_gives_nothing(self, workers: int) -> None:
        result = testing.run(word_count(), {"lines": []}, workers=workers)
        assert (result.values(), result.encoded(), result.state("count")) == ([], [], {})

    def test_with_the_same_seed_is_the_same(self, workers: int) -> None:
        lines = {"lines": [f"{number} {number % 7}" for number in range(300)]}
        first = testing.run(word_count(), lines, workers=workers, seed=5)
        again = testing.run(word_count(), lines, workers=workers, seed=5)
        assert first.values() == again.values()


def test_seeds_make_workers_take_turns_differently() -> None:
    lines = {"lines": [f"{number} {number % 7}" for number in range(300)]}
    orders = {
        tuple(testing.run(word_count(), lines, workers=3, seed=seed).values()) for seed in range(5)
    }
    assert len(orders) > 1


def test_the_inputs_stay_as_they_were() -> None:
    lines = {"lines": ["a b"]}
    testing.run(word_count(), lines)
    assert lines == {"lines": ["a b"]}


def test_an_application_can_be_run_again_from_nothing() -> None:
    application = word_count()
    for _ in range(2):
        assert sorted(testing.run(application, LINES).state("count")) == ["a", "b", "c"]


def test_a_state_that_no_step_has_is_empty() -> None:
    assert testing.run(word_count(), LINES).state("other") == {}


def test_a_source_that_listens_must_be_given_its_events() -> None:
    with pytest.raises(ValueError, match="source 'lines' listens; give its events in inputs"):
        testing.run(word_count())


class CountDown:
    left = 3

    def initial_value(self) -> int:
        return self.left

    def apply(self, previous: int) -> int | None:
        self.left = previous - 1
        return self.left or None


def test_a_generator_needs_no_other_part_of_the_users() -> None:
    numbers = wallaroo.source("numbers", wallaroo.GenSourceConfig("numbers", CountDown()))
    application = wallaroo.build_application(
        "numbers", numbers.to_sink(wallaroo.FileSinkConfig[int]("out", encode_number))
    )
    assert testing.run(application).values() == [3, 2, 1]


encode_number = wallaroo.encoder(str)


def test_inputs_of_a_source_that_is_none_are_refused() -> None:
    with pytest.raises(ValueError, match="no source is named 'words'"):
        testing.run(word_count(), {**LINES, "words": ["a"]})


def test_files_that_are_not_given_are_read(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text("a b\na\n")
    lines = wallaroo.source("book", wallaroo.FileSourceConfig("book", tmp_path / "*.txt"))
    counts = lines.to(split).key_by(word_itself).to(count)
    application = wallaroo.build_application("word count", counts.to_sink(_sink()))
    result = testing.run(application, workers=2)
    assert sorted(result.values()) == [("a", 1), ("a", 2), ("b", 1)]


def test_files_that_are_given_are_not_read(tmp_path: Path) -> None:
    lines = wallaroo.source("book", wallaroo.FileSourceConfig("book", tmp_path / "missing"))
    application = wallaroo.build_application(
        "word count", lines.to(split).key_by(word_itself).to(count).to_sink(_sink())
    )
    assert testing.run(application, {"book": ["a"]}).values() == [("a", 1)]


def test_a_file_sink_writes_no_file(tmp_path: Path) -> None:
    out = tmp_path / "out.txt"
    lines = wallaroo.source("lines", wallaroo.TCPSourceConfig("lines", "h", 1, decode))
    application = wallaroo.build_application(
        "copy", lines.to_sink(wallaroo.FileSinkConfig[str](out))
    )
    assert testing.run(application, LINES).encoded() == [b"a b\n", b"a\n", b"a c\n"]
    assert not out.exists()
