"""What an application does is the same on any number of workers, and what its pipeline says."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.dataflow import pipelines as p
from tests.unit.dataflow.cluster import Cluster, cut_at, small_rooms
from tests.unit.dataflow.pipelines import Events, tallies
from tests.unit.dataflow.reference import Reference

import wallaroo
from wallaroo import Application, testing


def stateful_steps_in_a_row(numbers: Events) -> Events:
    return numbers.key_by(p.by_rest).to(p.tally).to(p.count).to(p.every_second)


def rekeyed_twice(numbers: Events) -> Events:
    return numbers.key_by(p.by_rest).to(p.count).key_by(p.by_byte).to(p.tally).key_by(p.by_char)


def collected(numbers: Events) -> Events:
    return numbers.key_by(p.by_any).to(p.count).collect().to(p.tally)


def merged(numbers: Events) -> Events:
    more = p.source("more").to(p.double_up).key_by(p.by_rest)
    return numbers.key_by(p.by_any).merge(more).to(p.tally).key_by(p.by_byte).to(p.count)


def merged_with_itself(numbers: Events) -> Events:
    return numbers.merge(numbers).key_by(p.by_rest).to(p.count)


def fanned_out(numbers: Events) -> Events:
    keyed = numbers.key_by(p.by_rest)
    first = keyed.to(p.count).key_by(p.by_any).to(p.tally)
    return first.merge(keyed.to(p.add_one)).merge(keyed.key_by(p.by_char).to(p.count))


def multis_of_all_kinds(numbers: Events) -> Events:
    return (numbers.to(p.some_or_none).to(p.as_generator).key_by(p.by_rest).to(p.count_twice)).to(
        p.tally_and_split
    )


def filtered(numbers: Events) -> Events:
    return numbers.to(p.drop_fives).key_by(p.by_any).to(p.every_second).to(p.drop_fives)


def unkeyed(numbers: Events) -> Events:
    return numbers.to(p.tally).to(p.count)


def one_step_at_two_places(numbers: Events) -> Events:
    return numbers.key_by(p.by_rest).to(p.tally).key_by(p.by_any).to(p.tally)


SHAPES: list[Callable[[Events], Events]] = [
    stateful_steps_in_a_row,
    rekeyed_twice,
    collected,
    merged,
    merged_with_itself,
    fanned_out,
    multis_of_all_kinds,
    filtered,
    unkeyed,
    one_step_at_two_places,
]


def assert_as_the_reference(
    application: Application,
    inputs: Mapping[str, Sequence[int]],
    workers: int,
    seed: int,
) -> None:
    reference = Reference(application)
    for source, events in inputs.items():
        reference.give(source, events)
    result = testing.run(application, inputs, workers=workers, seed=seed)
    for sink, written in enumerate(reference.sinks):
        assert Counter(result.encoded(sink)) == Counter(text.encode() for text in written)
    for place, states in reference.states.items():
        assert tallies(result.state(place)) == tallies(states)


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: str(shape.__name__))
def test_results_are_those_of_the_pipeline_on_any_number_of_workers(
    shape: Callable[[Events], Events], workers: int
) -> None:
    application = p.application(shape(p.source()), sinks=2)
    inputs = {"numbers": range(200)}
    if shape is merged:
        inputs["more"] = range(1000, 1100)
    for seed in range(3):
        assert_as_the_reference(application, inputs, workers, seed)


@settings(max_examples=80, deadline=None)
@given(
    pipeline=p.steps().map(lambda steps: steps(p.source())),
    numbers=st.lists(st.integers(-1000, 1000), max_size=60),
    workers=st.sampled_from([1, 2, 3, 7]),
    seed=st.integers(0, 10_000),
)
def test_results_of_any_pipeline_are_what_it_says(
    pipeline: Events, numbers: list[int], workers: int, seed: int
) -> None:
    assert_as_the_reference(p.application(pipeline), {"numbers": numbers}, workers, seed)


def test_results_of_more_events_than_a_batch_and_its_blocks_hold_are_complete() -> None:
    application = p.application(rekeyed_twice(p.source()))
    assert_as_the_reference(application, {"numbers": range(5000)}, 3, 0)


def test_every_sink_gets_every_event() -> None:
    application = p.application(p.source().key_by(p.by_any), sinks=3)
    result = testing.run(application, {"numbers": range(50)}, workers=3)
    for sink in range(3):
        assert sorted(result.values(sink)) == list(range(50))


def test_an_encoder_that_returns_none_writes_nothing() -> None:
    @wallaroo.encoder
    def even_only(event: int) -> str | None:
        return None if event % 2 else str(event)

    class Even(p.Kept):
        encoder = even_only

    pipeline = p.source().to_sinks([Even(), p.Kept()])
    result = testing.run(wallaroo.build_application("even", pipeline), {"numbers": range(4)})
    assert result.encoded(0) == [b"0", b"2"]
    assert result.encoded(1) == [b"0", b"1", b"2", b"3"]


@pytest.mark.parametrize("workers", [1, 3])
def test_a_str_key_and_the_bytes_key_of_its_utf8_have_states_of_their_own(workers: int) -> None:
    application = p.application(p.source().key_by(p.by_any).to(p.tally))
    states = testing.run(application, {"numbers": range(8)}, workers=workers).state("tally")
    assert tallies(states) == {
        "": (1, 0),
        b"": (1, 1),
        "a": (2, 2 + 4),
        b"a": (1, 3),  # the int 97 is "a"
        "é": (1, 5),
        b"\xff": (1, 6),
        "long" * 50: (1, 7),
    }


def test_keys_that_change_their_type_midway_are_found_again() -> None:
    """Generated code expects the type of key that came last; another one must not be lost."""

    @wallaroo.key_extractor
    def by_phase(event: int) -> str | bytes | int:
        return ("a", b"a", 97)[event // 100 % 3]

    application = p.application(p.source().key_by(by_phase).to(p.count))
    for workers in (1, 2):
        states = testing.run(application, {"numbers": range(900)}, workers=workers).state("count")
        assert {key: state.count for key, state in states.items()} == {"a": 600, b"a": 300}


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_events_beside_a_boundary_of_the_assignment_reach_their_owner(workers: int) -> None:
    application = p.application(fanned_out(p.source()))
    reference = Reference(application)
    reference.give("numbers", range(150))
    for seed in range(6):
        assignment = cut_at(p.KEYS, workers, seed)
        with small_rooms():
            cluster = Cluster(application, {"numbers": {0: range(150)}}, workers, seed, assignment)
            cluster.run()
        assert Counter(cluster.written()) == Counter(reference.sinks[0])
        for place, states in reference.states.items():
            assert tallies(cluster.state(place)) == tallies(states)


def test_a_chain_of_many_multi_steps_runs() -> None:
    """Each is a loop of the generated code, and Python nests 20 at most."""
    numbers = p.source()
    for _ in range(30):
        numbers = numbers.to(p.some_or_none)
    application = p.application(numbers.key_by(p.by_rest).to(p.count_twice).to(p.count_twice))
    for workers in (1, 2):
        assert_as_the_reference(application, {"numbers": range(40)}, workers, 0)


def test_many_exchanges_in_a_row_run() -> None:
    numbers = p.source()
    for extractor in itertools.islice(itertools.cycle((p.by_rest, p.by_byte, p.by_any)), 40):
        numbers = numbers.key_by(extractor).to(p.some_or_none).to(p.tally)
    application = p.application(numbers)
    for workers in (1, 2):
        assert_as_the_reference(application, {"numbers": [2, 6, 10]}, workers, 0)


class CountDown:
    def initial_value(self) -> int:
        return 50

    def apply(self, previous: int) -> int | None:
        return previous - 1 if previous > 1 else None


def test_a_generator_feeds_the_pipeline_from_one_worker() -> None:
    numbers = wallaroo.source("numbers", wallaroo.GenSourceConfig("numbers", CountDown()))
    application = p.application(numbers.key_by(p.by_rest).to(p.tally))
    for workers in (1, 3):
        result = testing.run(application, workers=workers)
        assert sorted(result.values()) == list(range(1, 51))


def test_an_outputs_iterator_is_used_up_before_the_next_event() -> None:
    lines: list[str] = []

    @wallaroo.computation_multi(name="letters")
    def letters(event: int) -> Iterator[int]:
        lines.append(f"begin {event}")
        yield event
        lines.append(f"end {event}")

    testing.run(p.application(p.source().to(letters)), {"numbers": [1, 2]})
    assert lines == ["begin 1", "end 1", "begin 2", "end 2"]
