"""A barrier cuts all streams consistently, whoever is ahead of whom."""

import contextlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st
from tests.unit.dataflow import pipelines as p
from tests.unit.dataflow.cluster import Cluster, Cut, cut_at, small_rooms
from tests.unit.dataflow.pipelines import Events, tallies
from tests.unit.dataflow.reference import Reference

from wallaroo import Application
from wallaroo.api.pipeline import SourceNode, ordered


def inputs_for(application: Application, workers: int, size: int = 60) -> dict[str, Any]:
    """Every source gives other numbers on every worker."""
    names = [node.name for node in ordered(application.node) if isinstance(node, SourceNode)]
    return {
        name: {
            worker: [1 + 31 * number + 7 * worker + place for number in range(size)]
            for worker in range(workers)
        }
        for place, name in enumerate(names)
    }


def assert_consistent(cluster: Cluster, cut: Cut) -> None:
    """States and sinks at the cut hold what the sources had given, no more and no less.

    In memory when the stages passed the barrier, and in the deltas, which were encoded when later
    events had gone through the same stages.
    """
    reference = Reference(cluster.graph.application)
    for source, by_worker in cluster.readers.items():
        for worker, reader in by_worker.items():
            reference.give(source, reader.events[: cut.given[source][worker]])
            assert cut.positions[source][worker] == cut.given[source][worker]
    for place, states in reference.states.items():
        assert tallies(cut.state(place)) == tallies(states), f"state of {place!r}"
        for worker, saved in cut.saved[place].items():
            in_memory = cut.states[place][worker]
            assert tallies(saved) == tallies(in_memory), f"deltas of {place!r}"
    for place, by in cut.states.items():
        assert place in reference.states or not cut.state(place)
        assert cut.saved[place].keys() == {worker for worker, states in by.items() if states}
    for sink, written in enumerate(reference.sinks):
        assert Counter(cut.written[sink]) == Counter(written), f"sink {sink}"
    letters = [(letter["step"], letter["event"]) for letter in cut.letters]
    assert Counter(letters) == Counter(reference.letters), "what was set aside"


def rekeyed_twice(numbers: Events) -> Events:
    return numbers.key_by(p.by_rest).to(p.count).key_by(p.by_byte).to(p.tally)


def two_ways(numbers: Events) -> Events:
    keyed = numbers.key_by(p.by_any).to(p.tally)
    return keyed.to(p.double_up).key_by(p.by_rest).to(p.count).merge(keyed.to(p.every_second))


def keyed_meets_unkeyed(numbers: Events) -> Events:
    """A state step that is fed inside the worker by one branch, by an exchange from another."""
    keyed = numbers.key_by(p.by_rest)
    return keyed.merge(numbers).to(p.tally).key_by(p.by_char).to(p.count)


def key_kept_beside_another(numbers: Events) -> Events:
    keyed = numbers.key_by(p.by_rest)
    return keyed.key_by(p.by_byte).to(p.count).merge(keyed.to(p.tally))


def collected(numbers: Events) -> Events:
    return numbers.to(p.tally).key_by(p.by_any).to(p.count).collect().to(p.every_second)


def four_deep(numbers: Events) -> Events:
    for extractor in (p.by_rest, p.by_byte, p.by_char, p.by_any):
        numbers = numbers.key_by(extractor).to(p.tally_and_split)
    return numbers


def diamond(numbers: Events) -> Events:
    left = numbers.key_by(p.by_rest).to(p.count)
    right = numbers.to(p.drop_fives).key_by(p.by_char).to(p.tally)
    return left.merge(right).key_by(p.by_byte).to(p.count).merge(right.key_by(p.by_any))


SHAPES = [
    rekeyed_twice,
    two_ways,
    keyed_meets_unkeyed,
    key_kept_beside_another,
    collected,
    four_deep,
    diamond,
]


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: str(shape.__name__))
def test_every_stage_passes_a_barrier_with_exactly_what_the_sources_gave_before_it(
    shape: Callable[[Events], Events], workers: int
) -> None:
    """Ruling 14 of docs/protocol.md: the local destination obeys alignment like any stream."""
    application = p.application(shape(p.source()), sinks=2)
    for seed in range(6):
        inputs = inputs_for(application, workers)
        with small_rooms():
            cluster = Cluster(application, inputs, workers, seed)
            cluster.run(barriers=4)
        assert len(cluster.cuts) == 5
        for cut in cluster.cuts.values():
            assert_consistent(cluster, cut)


@settings(max_examples=60, deadline=None)
@given(
    application=p.applications(),
    workers=st.integers(1, 3),
    seed=st.integers(0, 10_000),
    fragmented=st.booleans(),
    small=st.booleans(),
)
def test_any_pipeline_passes_barriers_with_exactly_what_its_sources_gave_before_them(
    application: Application, workers: int, seed: int, fragmented: bool, small: bool
) -> None:
    assignment = cut_at(p.KEYS, workers, seed) if fragmented else None
    inputs = inputs_for(application, workers, 25)
    with small_rooms() if small else contextlib.nullcontext():
        cluster = Cluster(application, inputs, workers, seed, assignment)
        note(cluster.graph.describe())
        cluster.run(barriers=3)
    for cut in cluster.cuts.values():
        assert_consistent(cluster, cut)


@settings(max_examples=60, deadline=None)
@given(
    application=p.applications(fragile=True),
    workers=st.integers(1, 3),
    seed=st.integers(0, 10_000),
    fragmented=st.booleans(),
    small=st.booleans(),
)
def test_any_pipeline_sets_aside_what_raises_and_nothing_else_in_the_epoch_of_its_cause(
    application: Application, workers: int, seed: int, fragmented: bool, small: bool
) -> None:
    """Ruling 33 of docs/protocol.md: the dead-letter file is published with its epoch."""
    assignment = cut_at(p.KEYS, workers, seed) if fragmented else None
    inputs = inputs_for(application, workers, 25)
    with small_rooms() if small else contextlib.nullcontext():
        cluster = Cluster(application, inputs, workers, seed, assignment, dead_letters=True)
        note(cluster.graph.describe())
        cluster.run(barriers=3)
    for cut in cluster.cuts.values():
        assert_consistent(cluster, cut)
