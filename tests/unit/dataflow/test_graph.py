"""Where a pipeline is cut into stages, and how they are joined."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from tests.unit.dataflow import pipelines as p
from tests.unit.dataflow.pipelines import Events

import wallaroo
from wallaroo.dataflow.graph import Edge, Graph, Stage, build_graph

STEP_NAMES = ("add one", "drop fives", "double up")


def graph_of(pipeline: Events, sinks: int = 1) -> Graph:
    return build_graph(p.application(pipeline, sinks))


def names(stage: Stage) -> list[str]:
    return [operation.step.name for operation in stage.operations]


def stage_of(graph: Graph, place: str) -> Stage:
    """The stage that keeps the state `place`."""
    (stage,) = (s for s in graph.stages if any(op.place == place for op in s.operations))
    return stage


def test_a_chain_of_steps_is_one_stage() -> None:
    graph = graph_of(p.source().to(p.add_one).to(p.drop_fives).to(p.double_up))
    (stage,) = graph.stages
    assert stage.source is not None
    assert names(stage) == ["add one", "drop fives", "double up"]
    assert stage.sinks == (0,)
    assert stage.edges == ()


def test_key_by_cuts_and_leads_to_the_next_stage_by_an_exchange() -> None:
    graph = graph_of(p.source().to(p.add_one).key_by(p.by_rest).to(p.drop_fives).to(p.tally))
    first, second = graph.stages
    assert names(first) == ["add one"]
    assert names(second) == ["drop fives", "tally"]
    assert first.edges == (Edge(0, 0, 1, routed=True, extractor=p.by_rest),)
    assert second.sinks == (0,)


def test_stateful_steps_in_a_row_are_one_stage() -> None:
    graph = graph_of(p.source().key_by(p.by_rest).to(p.tally).to(p.count).to(p.add_one))
    assert [names(stage) for stage in graph.stages] == [[], ["tally", "count", "add one"]]


def test_every_key_by_cuts() -> None:
    pipeline = p.source().key_by(p.by_rest).key_by(p.by_byte).to(p.tally).key_by(p.by_char)
    graph = graph_of(pipeline.to(p.count))
    assert [edge.extractor for edge in graph.exchanges] == [p.by_rest, p.by_byte, p.by_char]
    assert [names(stage) for stage in graph.stages] == [[], [], ["tally"], ["count"]]


def test_collect_is_an_exchange_on_the_empty_key() -> None:
    graph = graph_of(p.source().key_by(p.by_rest).collect().to(p.tally))
    assert [edge.extractor for edge in graph.exchanges] == [p.by_rest, None]


def test_a_state_step_before_any_key_by_gets_an_exchange_on_the_empty_key() -> None:
    """Ruling 10 of docs/protocol.md: a state step there has an exchange like any other."""
    graph = graph_of(p.source().to(p.add_one).to(p.tally))
    first, second = graph.stages
    assert names(first) == ["add one"]
    assert names(second) == ["tally"]
    assert first.edges == (Edge(0, 0, 1, routed=True),)


def test_steps_without_state_behind_a_merge_are_done_in_each_branch() -> None:
    merged = p.source("a").merge(p.source("b")).to(p.add_one)
    graph = graph_of(merged.key_by(p.by_rest).to(p.tally))
    assert [names(stage) for stage in graph.stages] == [["add one"], ["add one"], ["tally"]]
    assert [(edge.sender, edge.receiver) for edge in graph.exchanges] == [(0, 2), (1, 2)]


def test_branches_meet_in_a_stage_of_their_own_before_a_state_step() -> None:
    left = p.source("a").key_by(p.by_rest).to(p.add_one)
    right = p.source("b").key_by(p.by_byte)
    graph = graph_of(left.merge(right).to(p.tally))
    meeting = stage_of(graph, "tally")
    inputs = graph.inputs(meeting)
    assert [edge.routed for edge in inputs] == [False, False]
    assert all(edge.keyed for edge in inputs), "the state step needs each event's key"


def test_keyed_and_unkeyed_branches_meet_with_the_keys_that_they_have() -> None:
    numbers = p.source()
    graph = graph_of(numbers.key_by(p.by_rest).merge(numbers).to(p.tally))
    keyed, unkeyed = graph.inputs(stage_of(graph, "tally"))
    if keyed.routed:
        keyed, unkeyed = unkeyed, keyed
    assert (keyed.routed, keyed.keyed) == (False, True)
    assert (unkeyed.routed, unkeyed.extractor) == (True, None)


def test_branches_meet_before_a_sink_without_their_keys() -> None:
    left = p.source("a").key_by(p.by_rest)
    graph = graph_of(left.merge(p.source("b")))
    (last,) = (stage for stage in graph.stages if stage.sinks)
    assert [(edge.routed, edge.keyed) for edge in graph.inputs(last)] == [(False, False)] * 2


def test_a_pipeline_continued_in_two_ways_forwards_to_both() -> None:
    numbers = p.source().to(p.add_one)
    graph = graph_of(numbers.to(p.drop_fives).merge(numbers.to(p.double_up)))
    first = graph.stages[0]
    assert names(first) == ["add one"]
    ways = [graph.stages[edge.receiver] for edge in first.edges]
    assert sorted(map(names, ways)) == [["double up"], ["drop fives"]]
    assert not graph.exchanges


def test_a_forward_to_a_step_that_needs_the_key_carries_it_and_another_does_not() -> None:
    keyed = p.source().key_by(p.by_rest)
    graph = graph_of(keyed.to(p.tally).merge(keyed.to(p.add_one)))
    (split,) = (stage for stage in graph.stages if len(stage.edges) == 2)
    carried = {tuple(names(graph.stages[edge.receiver])): edge.keyed for edge in split.edges}
    assert carried == {("tally",): True, ("add one",): False}


def test_a_pipeline_merged_with_itself_gives_every_event_twice() -> None:
    numbers = p.source()
    graph = graph_of(numbers.merge(numbers).key_by(p.by_rest).to(p.tally))
    assert len(graph.inputs(stage_of(graph, "tally"))) == 2


def test_a_keyed_pipeline_continued_by_another_key_by_needs_no_forward() -> None:
    keyed = p.source().key_by(p.by_rest)
    pipeline = keyed.key_by(p.by_byte).to(p.tally).merge(keyed.key_by(p.by_char).to(p.count))
    graph = graph_of(pipeline)
    (split,) = (stage for stage in graph.stages if len(stage.edges) == 2)
    assert [edge.extractor for edge in split.edges] == [p.by_byte, p.by_char]


@pytest.mark.parametrize("count", [1, 8, 9, 16, 17, 40])
def test_many_multi_steps_are_spread_over_stages_of_at_most_eight(count: int) -> None:
    """Each is a loop of the generated code, and Python nests 20 at most."""
    numbers = p.source()
    for _ in range(count):
        numbers = numbers.to(p.double_up)
    graph = graph_of(numbers)
    multis = [sum(operation.multi for operation in stage.operations) for stage in graph.stages]
    assert sum(multis) == count
    assert max(multis) <= 8
    assert len(graph.stages) == -(-count // 8)


def test_many_stateful_multi_steps_stay_with_their_keys() -> None:
    numbers = p.source().key_by(p.by_rest)
    for _ in range(20):
        numbers = numbers.to(p.count_twice)
    graph = graph_of(numbers)
    assert len(graph.exchanges) == 1
    assert [edge.keyed for edge in graph.edges if not edge.routed] == [True, True]


def test_each_place_of_one_step_has_state_of_its_own() -> None:
    numbers = p.source().key_by(p.by_rest).to(p.tally).to(p.count)
    graph = graph_of(numbers.key_by(p.by_byte).to(p.tally).to(p.tally))
    places = [op.place for stage in graph.stages for op in stage.operations]
    assert places == ["tally", "count", "tally#2", "tally#3"]


def test_steps_without_state_have_no_place() -> None:
    graph = graph_of(p.source().to(p.add_one).to(p.add_one))
    assert [op.place for op in graph.stages[0].operations] == ["", ""]


def test_sinks_are_numbered_in_the_order_of_to_sinks() -> None:
    graph = graph_of(p.source().key_by(p.by_rest), sinks=3)
    assert graph.stages[-1].sinks == (0, 1, 2)
    assert len(graph.sinks) == 3


def test_a_stage_is_called_by_its_source_and_steps() -> None:
    graph = graph_of(p.source("lines of a book").to(p.add_one).key_by(p.by_rest).to(p.tally))
    assert [stage.name for stage in graph.stages] == ["lines of a book > add one", "tally"]


SAME: list[Callable[[], Events]] = [
    lambda: p.source().key_by(p.by_rest).to(p.tally),
    lambda: p.source().key_by(p.by_byte).to(p.tally),
    lambda: p.source().key_by(p.by_rest).to(p.count),
    lambda: p.source().key_by(p.by_rest).to(p.tally).to(p.add_one),
    lambda: p.source("other").key_by(p.by_rest).to(p.tally),
    lambda: p.source().key_by(p.by_rest).to(p.tally_and_split),
]


def test_what_workers_must_agree_on_is_the_same_for_the_same_pipeline() -> None:
    assert graph_of(SAME[0]()).describe() == graph_of(SAME[0]()).describe()


def test_what_workers_must_agree_on_differs_for_other_pipelines() -> None:
    assert len({graph_of(pipeline()).describe() for pipeline in SAME}) == len(SAME)


@settings(max_examples=60, deadline=None)
@given(application=p.applications())
def test_any_pipeline_becomes_stages_each_before_those_it_leads_to(
    application: wallaroo.Application,
) -> None:
    graph = build_graph(application)
    assert [stage.index for stage in graph.stages] == list(range(len(graph.stages)))
    assert [edge.index for edge in graph.edges] == list(range(len(graph.edges)))
    for stage in graph.stages:
        for edge in stage.edges:
            assert edge.sender == stage.index < edge.receiver


@settings(max_examples=60, deadline=None)
@given(application=p.applications())
def test_in_any_pipeline_every_stage_but_the_sources_is_fed_and_every_one_feeds(
    application: wallaroo.Application,
) -> None:
    graph = build_graph(application)
    for stage in graph.stages:
        assert bool(graph.inputs(stage)) != bool(stage.source)
        assert stage.edges or stage.sinks


@settings(max_examples=60, deadline=None)
@given(application=p.applications())
def test_in_any_pipeline_a_state_step_is_reached_by_its_key_alone(
    application: wallaroo.Application,
) -> None:
    """Every event comes to a state step by an exchange, or with its key from one that did."""
    graph = build_graph(application)
    with_owner: dict[int, bool] = {}
    for stage in graph.stages:
        inputs = graph.inputs(stage)
        with_owner[stage.index] = bool(inputs) and all(
            edge.routed or with_owner[edge.sender] for edge in inputs
        )
        if stage.stateful:
            assert with_owner[stage.index]
            assert all(edge.routed or edge.keyed for edge in inputs)


@settings(max_examples=100, deadline=None)
@given(application=p.applications())
def test_in_any_pipeline_places_are_unique(application: wallaroo.Application) -> None:
    graph = build_graph(application)
    places = [op.place for stage in graph.stages for op in stage.operations if op.place]
    assert len(places) == len(set(places))
