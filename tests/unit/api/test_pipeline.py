"""Pipelines are values; what does not fit together is refused when it is built, by name."""

from collections.abc import Callable
from typing import Any

import pytest
from tests.unit.dataflow import pipelines as p
from tests.unit.dataflow.pipelines import Events

import wallaroo
from wallaroo import WallarooParameterError
from wallaroo.api.pipeline import KeyNode, MergeNode, SinkNode, SourceNode, StepNode, ordered


def closed() -> Events:
    return p.source().to_sink(p.Kept())


def refused(build: Callable[[], object]) -> str:
    with pytest.raises(WallarooParameterError) as caught:
        build()
    return str(caught.value)


class TestASource:
    @pytest.mark.parametrize(
        "name", ["", None, 3, b"name"], ids=lambda value: repr(value).partition(" at 0x")[0]
    )
    def test_without_a_name_is_refused(self, name: Any) -> None:
        message = refused(lambda: wallaroo.source(name, p.Given()))
        assert message == f"a source needs a name, a non-empty str, not {name!r}"

    @pytest.mark.parametrize(
        "config",
        [None, p.Given, "file.txt", p.Kept()],
        ids=lambda value: repr(value).partition(" at 0x")[0],
    )
    def test_of_no_config_is_refused_by_name(self, config: Any) -> None:
        message = refused(lambda: wallaroo.source("lines", config))
        assert message.startswith("source 'lines' takes a source's config")
        assert repr(config) in message

    def test_may_have_spaces_in_its_name(self) -> None:
        node = wallaroo.source("lines of a book", p.Given()).node
        assert isinstance(node, SourceNode)
        assert node.name == "lines of a book"


class TestTo:
    @pytest.mark.parametrize("step", [None, len, "double", lambda event: event, p.Given()])
    def test_takes_decorated_functions_alone(self, step: Any) -> None:
        message = refused(lambda: p.source().to(step))
        assert message.startswith(f"to() takes a computation or a state computation, not {step!r}")
        assert ("decorate it" in message) == callable(step)

    def test_says_where_a_key_extractor_belongs(self) -> None:
        message = refused(lambda: p.source().to(p.by_rest))  # type: ignore[arg-type]
        assert "<key extractor 'by_rest'>; use key_by() for it" in message

    def test_does_not_take_an_encoder(self) -> None:
        assert "<encoder 'as_text'>" in refused(
            lambda: p.source().to(p.as_text),  # type: ignore[arg-type]
        )


@pytest.mark.parametrize(
    "extractor", [None, str, p.add_one, "key"], ids=lambda value: repr(value).partition(" at 0x")[0]
)
def test_key_by_takes_a_key_extractor_alone(extractor: Any) -> None:
    message = refused(lambda: p.source().key_by(extractor))
    assert message == (
        f"key_by() takes a function decorated with @wallaroo.key_extractor, not {extractor!r}"
    )


@pytest.mark.parametrize("other", [None, p.add_one, [p.source()]], ids=["None", "step", "list"])
def test_merge_takes_a_pipeline_alone(other: Any) -> None:
    message = refused(lambda: p.source().merge(other))
    assert message == f"merge() takes a pipeline, not {other!r}"


class TestAfterASink:
    @pytest.mark.parametrize(
        ("call", "build"),
        [
            ("to()", lambda: closed().to(p.add_one)),
            ("key_by()", lambda: closed().key_by(p.by_rest)),
            ("collect()", lambda: closed().collect()),
            ("merge()", lambda: closed().merge(p.source("more"))),
            ("merge()", lambda: p.source("more").merge(closed())),
            ("to_sink()", lambda: closed().to_sink(p.Kept())),
            ("to_sinks()", lambda: closed().to_sinks([p.Kept()])),
        ],
    )
    def test_nothing_can_follow(self, call: str, build: Callable[[], object]) -> None:
        assert refused(build) == (
            f"{call} after to_sink or to_sinks: nothing can follow a pipeline's sink"
        )


class TestASink:
    @pytest.mark.parametrize(
        "config",
        [None, p.Kept, "out.txt", p.Given()],
        ids=lambda value: repr(value).partition(" at 0x")[0],
    )
    def test_of_no_config_is_refused(self, config: Any) -> None:
        message = refused(lambda: p.source().to_sink(config))
        assert message.startswith("to_sink() takes a sink's config")
        assert repr(config) in message

    def test_among_several_of_no_config_is_refused(self) -> None:
        message = refused(lambda: p.source().to_sinks([p.Kept(), "out.txt"]))  # type: ignore[list-item]
        assert message.startswith("to_sinks() takes a sink's config")
        assert "not 'out.txt'" in message

    @pytest.mark.parametrize(
        "configs", [[], (), None, 3, p.Kept()], ids=lambda value: repr(value).partition(" at 0x")[0]
    )
    def test_list_without_a_sink_is_refused(self, configs: Any) -> None:
        message = refused(lambda: p.source().to_sinks(configs))
        assert message.startswith("to_sinks() takes a list of at least one sink, not ")

    def test_list_may_be_any_iterable(self) -> None:
        sinks = iter([p.Kept(), p.Kept()])
        node = p.source().to_sinks(sinks).node  # type: ignore[arg-type]
        assert isinstance(node, SinkNode)
        assert len(node.sinks) == 2


class TestAnApplication:
    def test_is_its_name_and_its_last_node(self) -> None:
        pipeline = closed()
        application = wallaroo.build_application("word count", pipeline)
        assert (application.name, application.node) == ("word count", pipeline.node)

    @pytest.mark.parametrize(
        "name", ["", None, 3], ids=lambda value: repr(value).partition(" at 0x")[0]
    )
    def test_without_a_name_is_refused(self, name: Any) -> None:
        message = refused(lambda: wallaroo.build_application(name, closed()))
        assert message == f"an application needs a name, a non-empty str, not {name!r}"

    def test_without_a_sink_is_refused_by_name(self) -> None:
        message = refused(lambda: wallaroo.build_application("count", p.source().to(p.add_one)))
        assert message == (
            "application 'count' has a pipeline without a sink: end it with to_sink() or to_sinks()"
        )

    @pytest.mark.parametrize(
        "pipeline",
        [None, "pipeline", p.Given()],
        ids=lambda value: repr(value).partition(" at 0x")[0],
    )
    def test_of_no_pipeline_is_refused_by_name(self, pipeline: Any) -> None:
        message = refused(lambda: wallaroo.build_application("count", pipeline))
        assert message == f"application 'count' is built from a pipeline, not {pipeline!r}"


class TestNames:
    @staticmethod
    def step(name: str) -> wallaroo.Computation[int, int]:
        @wallaroo.computation(name=name)
        def another(event: int) -> int:
            return event

        return another

    def test_of_two_different_steps_must_differ(self) -> None:
        pipeline = p.source().to(p.add_one).to(self.step("add one"))
        message = refused(lambda: p.application(pipeline))
        assert "application 'test': two different steps are named 'add one'" in message
        assert "(functions add_one and another)" in message

    def test_of_two_different_steps_in_two_branches_must_differ(self) -> None:
        pipeline = p.source().to(p.add_one).merge(p.source("more").to(self.step("add one")))
        assert "'add one'" in refused(lambda: p.application(pipeline))

    def test_of_a_step_and_a_state_step_must_differ(self) -> None:
        pipeline = p.source().to(p.tally).to(self.step("tally"))
        assert "two different steps are named 'tally'" in refused(lambda: p.application(pipeline))

    def test_of_one_step_at_two_places_may_be_the_same(self) -> None:
        p.application(p.source().to(p.tally).key_by(p.by_rest).to(p.tally))

    def test_of_one_function_decorated_twice_alike_may_be_the_same(self) -> None:
        def function(event: int) -> int:
            return event

        first = wallaroo.computation(name="same")(function)
        second = wallaroo.computation(name="same")(function)
        p.application(p.source().to(first).to(second))

    def test_of_one_function_with_two_kinds_of_state_must_differ(self) -> None:
        """The same name would stand for two different states."""

        class Other:
            pass

        def function(event: int, state: object) -> int:
            return event

        first = wallaroo.state_computation(name="same", state=p.Tally)(function)
        second = wallaroo.state_computation(name="same", state=Other)(function)
        message = refused(lambda: p.application(p.source().to(first).to(second)))
        assert "two different steps are named 'same'" in message

    def test_of_one_key_extractor_may_be_used_again(self) -> None:
        p.application(p.source().key_by(p.by_rest).to(p.tally).key_by(p.by_rest).to(p.count))

    def test_of_two_sources_must_differ(self) -> None:
        pipeline = p.source("lines").merge(p.source("lines"))
        message = refused(lambda: p.application(pipeline))
        assert message.startswith("application 'test': two sources are named 'lines'")

    def test_of_a_source_that_is_used_twice_may_be_the_same(self) -> None:
        lines = p.source("lines")
        p.application(lines.merge(lines.to(p.add_one)))


class TestAPipelineIsAValue:
    def test_a_call_leaves_it_as_it_was(self) -> None:
        numbers = p.source()
        node = numbers.node
        numbers.to(p.add_one).key_by(p.by_rest).to_sink(p.Kept())
        assert numbers.node is node

    def test_it_may_be_continued_in_two_ways(self) -> None:
        numbers = p.source()
        left, right = numbers.to(p.add_one), numbers.to(p.drop_fives)
        assert left.node.parents == right.node.parents == (numbers.node,)

    def test_each_call_is_a_node_after_its_parents(self) -> None:
        left = p.source("left").to(p.add_one)
        right = p.source("right").key_by(p.by_rest)
        nodes = ordered(left.merge(right).collect().to_sink(p.Kept()).node)
        assert [type(node) for node in nodes] == [
            *(SourceNode, StepNode, SourceNode, KeyNode),
            *(MergeNode, KeyNode, SinkNode),
        ]

    def test_a_shared_part_is_ordered_once(self) -> None:
        shared = p.source().to(p.add_one)
        nodes = ordered(shared.merge(shared.to(p.drop_fives)).merge(shared).node)
        assert len(nodes) == len(set(nodes)) == 5

    def test_a_long_chain_is_ordered_without_recursion(self) -> None:
        numbers = p.source()
        for _ in range(5000):
            numbers = numbers.to(p.add_one)
        assert len(ordered(numbers.node)) == 5001
