"""Pipelines to test with, made of steps whose results depend on what came, not in which order.

Events are ints. A state computation lets out the event or its state's count, never both, so that
the events at every place are the same multiset whatever the interleaving of workers.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from hypothesis import strategies as st

import wallaroo
from wallaroo.api.connectors import Services, SinkConfig, SinkWriter, SourceConfig, SourceReader

Events = wallaroo.Pipeline[int]


class Given(SourceConfig[int]):
    """A source whose reader the test hands in."""

    def partitions(self) -> list[str]:
        return ["all"]

    def open(self, partition: str, services: Services) -> SourceReader:
        raise NotImplementedError


@wallaroo.encoder
def as_text(value: object) -> str:
    return str(value)


class Kept(SinkConfig[Any]):
    """A sink whose writer the test hands in."""

    encoder: wallaroo.Encoder[Any] | None = as_text

    def open(self, services: Services) -> SinkWriter:
        raise NotImplementedError


def source(name: str = "numbers") -> Events:
    return wallaroo.source(name, Given())


def application(pipeline: Events, sinks: int = 1) -> wallaroo.Application:
    return wallaroo.build_application("test", pipeline.to_sinks([Kept() for _ in range(sinks)]))


class Tally:
    """How many events came, and their sum."""

    count = 0
    total = 0

    def add(self, event: int) -> None:
        self.count += 1
        self.total += event


def tallies(states: Mapping[Any, Tally]) -> dict[Any, tuple[int, int]]:
    """Tallies by key, in a form to compare."""
    return {key: (tally.count, tally.total) for key, tally in states.items()}


@wallaroo.computation(name="add one")
def add_one(event: int) -> int:
    return event + 1


@wallaroo.computation(name="drop fives")
def drop_fives(event: int) -> int | None:
    return None if event % 5 == 0 else event


@wallaroo.computation_multi(name="double up")
def double_up(event: int) -> list[int]:
    return [event, event + 7]


@wallaroo.computation_multi(name="some or none")
def some_or_none(event: int) -> list[int] | None:
    return (None, [], [event], [event, -event])[event % 4]


@wallaroo.computation_multi(name="as generator")
def as_generator(event: int) -> Iterator[int]:
    yield from range(event, event + event % 3)


@wallaroo.state_computation(name="tally", state=Tally)
def tally(event: int, state: Tally) -> int:
    state.add(event)
    return event


@wallaroo.state_computation(name="count", state=Tally)
def count(event: int, state: Tally) -> int:
    state.add(event)
    return state.count


@wallaroo.state_computation(name="every second", state=Tally)
def every_second(event: int, state: Tally) -> int | None:
    state.add(event)
    return state.count if state.count % 2 else None


@wallaroo.state_computation_multi(name="tally and split", state=Tally)
def tally_and_split(event: int, state: Tally) -> Iterable[int]:
    state.add(event)
    return (event, event * 3)


@wallaroo.state_computation_multi(name="count twice", state=Tally)
def count_twice(event: int, state: Tally) -> list[int] | None:
    state.add(event)
    return [state.count, -state.count] if state.count % 3 else None


@wallaroo.key_extractor
def by_rest(event: int) -> str:
    return f"rest {event % 11}"


@wallaroo.key_extractor
def by_byte(event: int) -> bytes:
    return bytes([event % 13])


@wallaroo.key_extractor
def by_char(event: int) -> int:
    return event % 17


@wallaroo.key_extractor
def by_any(event: int) -> str | bytes | int:
    """Keys of all kinds, among them both empty ones and two that differ in type alone."""
    return ("", b"", "a", b"a", 97, "é", b"\xff", "long" * 50)[event % 8]


#: All keys that these extractors give.
KEYS: list[str | bytes] = [
    *("", b"", "a", b"a", "é", b"\xff", "long" * 50),
    *(f"rest {rest}" for rest in range(11)),
    *(bytes([rest]) for rest in range(13)),
    *(chr(rest) for rest in range(17)),
]

Step = Callable[[Events], Events]

_STEPS: list[Step] = [
    *(
        (lambda pipeline, step=step: pipeline.to(step))
        for step in (
            *(add_one, drop_fives, double_up, some_or_none, as_generator),
            *(tally, count, every_second, tally_and_split, count_twice),
        )
    ),
    *(
        (lambda pipeline, extractor=extractor: pipeline.key_by(extractor))
        for extractor in (by_rest, by_byte, by_char, by_any)
    ),
    wallaroo.Pipeline.collect,
]


def _names() -> st.SearchStrategy[Step]:
    return st.sampled_from(_STEPS)


def _chain(steps: list[Step]) -> Step:
    def chain(pipeline: Events) -> Events:
        for step in steps:
            pipeline = step(pipeline)
        return pipeline

    return chain


def _fan_out(ways: list[Step]) -> Step:
    def fan_out(pipeline: Events) -> Events:
        first, *others = (way(pipeline) for way in ways)
        for other in others:
            first = first.merge(other)
        return first

    return fan_out


def steps() -> st.SearchStrategy[Step]:
    """Chains of steps that fork and meet again."""
    return st.recursive(
        _names(),
        lambda inner: (
            st.lists(inner, max_size=4).map(_chain)
            | st.lists(st.lists(inner, max_size=3).map(_chain), min_size=2, max_size=3).map(
                _fan_out
            )
        ),
        max_leaves=10,
    )


@st.composite
def applications(draw: st.DrawFn) -> wallaroo.Application:
    """Pipelines of one or two sources and one or two sinks."""
    pipeline = draw(steps())(source("numbers"))
    if draw(st.booleans()):
        pipeline = pipeline.merge(draw(steps())(source("more")))
        pipeline = draw(steps())(pipeline)
    return application(pipeline, sinks=draw(st.integers(1, 2)))
