"""`wallaroo.testing` as a user's own test sees it."""

from collections import Counter
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


def lines_of(count: int) -> dict[str, list[str]]:
    """Of some words often, and of others once."""
    return {"lines": [f"{number % 17} {number % 5} only-{number}" for number in range(count)]}


RESCALES = [(1, 2), (2, 1), (3, 5), (5, 3), (2, [3, 2, 4, 1]), (4, [4]), (3, [1, 8, 2])]


@pytest.mark.parametrize(("workers", "rescale"), RESCALES, ids=str)
class TestARescale:
    @pytest.mark.parametrize("seed", range(5))
    def test_loses_nothing_and_counts_nothing_twice(
        self, workers: int, rescale: int | list[int], seed: int
    ) -> None:
        lines = lines_of(400)
        result = testing.run(word_count(), lines, workers=workers, rescale=rescale, seed=seed)
        expected = Counter(word for line in lines["lines"] for word in line.split())
        assert {w: s.count for w, s in result.state("count").items()} == expected
        assert Counter(result.values()) == Counter(
            (word, number) for word, count in expected.items() for number in range(1, count + 1)
        )

    def test_leaves_each_key_with_its_owner(self, workers: int, rescale: int | list[int]) -> None:
        result = testing.run(word_count(), lines_of(200), workers=workers, rescale=rescale)
        last = rescale if isinstance(rescale, int) else rescale[-1]
        assert len(result.states) == last
        keys = [key for states in result.states for key in states["count"]]
        assert len(keys) == len(set(keys))
        assert all(states["count"] for states in result.states), "they share them"

    def test_keeps_the_order_of_a_key(self, workers: int, rescale: int | list[int]) -> None:
        result = testing.run(word_count(), lines_of(300), workers=workers, rescale=rescale)
        last: dict[str, int] = {}
        for word, number in result.values():
            assert number == last.get(word, 0) + 1
            last[word] = number


def test_a_rescale_moves_where_a_file_is_read(tmp_path: Path) -> None:
    lines_each = 300
    for name in "abcd":
        (tmp_path / f"{name}.txt").write_text(
            "".join(f"{name}{n % 7}\n" for n in range(lines_each))
        )
    lines = wallaroo.source("book", wallaroo.FileSourceConfig("book", tmp_path / "*.txt"))
    counts = lines.to(split).key_by(word_itself).to(count)
    application = wallaroo.build_application("word count", counts.to_sink(_sink()))
    result = testing.run(application, workers=2, rescale=[4, 1, 3])
    assert sum(state.count for state in result.state("count").values()) == 4 * lines_each


def test_a_generator_goes_on_after_a_rescale() -> None:
    numbers = wallaroo.source("numbers", wallaroo.GenSourceConfig("numbers", Thousand()))
    application = wallaroo.build_application(
        "numbers", numbers.to_sink(wallaroo.FileSinkConfig[int]("out", encode_number))
    )
    result = testing.run(application, workers=2, rescale=[1, 3, 2])
    assert result.values() == list(range(1000, 0, -1))


def test_a_rescale_of_a_step_whose_state_can_not_be_stored_fails_with_its_name() -> None:
    lines = wallaroo.source("lines", wallaroo.TCPSourceConfig("lines", "h", 1, decode))
    application = wallaroo.build_application(
        "odd", lines.key_by(word_itself).to(keep_function).to_sink(_sink())
    )
    assert testing.run(application, LINES, workers=2).state("odd")
    with pytest.raises(testing.ApplicationFailed, match="odd"):
        testing.run(application, LINES, workers=2, rescale=3)


@pytest.mark.parametrize("rescale", [0, [2, 0], -1])
def test_a_rescale_to_no_worker_is_refused(rescale: int | list[int]) -> None:
    with pytest.raises(ValueError, match="there must be at least 1 worker"):
        testing.run(word_count(), LINES, rescale=rescale)


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


def test_a_state_that_no_step_has_can_not_be_asked_for() -> None:
    with pytest.raises(ValueError, match="no step with state is named 'other': 'count'"):
        testing.run(word_count(), LINES).state("other")


def test_a_source_that_listens_must_be_given_its_events() -> None:
    with pytest.raises(ValueError, match="source 'lines' listens; give its events in inputs"):
        testing.run(word_count())


class Odd:
    function: object = None


@wallaroo.state_computation(name="odd", state=Odd)
def keep_function(line: str, state: Odd) -> tuple[str, int]:
    state.function = lambda: line
    return (line, 1)


class CountDown:
    left = 3

    def initial_value(self) -> int:
        return self.left

    def apply(self, previous: int) -> int | None:
        self.left = previous - 1
        return self.left or None


class Thousand(CountDown):
    left = 1000


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
