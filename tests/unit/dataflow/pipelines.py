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

    def open(self, partition: str, services: Services, position: Any = None) -> SourceReader:
        raise NotImplementedError


@wallaroo.encoder
def as_text(value: object) -> str:
    return str(value)


class Kept(SinkConfig[Any]):
    """A sink whose writer the test hands in."""

    encoder: wallaroo.Encoder[Any] | None = as_text

    def open(self, services: Services, mark: dict[str, Any] | None = None) -> SinkWriter:
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


# What raises, for some events


@wallaroo.computation(name="brittle")
def brittle(event: int) -> int | None:
    if event % 7 == 3:
        raise ValueError("three")
    return event


@wallaroo.computation_multi(name="brittle generator")
def brittle_generator(event: int) -> Iterator[int]:
    yield event
    if event % 5 == 2:
        raise ValueError("two")
    yield event + 1


@wallaroo.state_computation(name="brittle tally", state=Tally)
def brittle_tally(event: int, state: Tally) -> int:
    state.add(event)
    if event % 11 == 4:
        raise ValueError("four")
    return event


@wallaroo.state_computation_multi(name="brittle split", state=Tally)
def brittle_split(event: int, state: Tally) -> Iterable[int]:
    state.add(event)
    return [event, 1 // (event % 6)]


@wallaroo.key_extractor
def by_brittle(event: int) -> Any:
    if event % 6 == 5:
        raise KeyError(event)
    return 1.5 if event % 13 == 7 else f"key {event % 4}"


@wallaroo.encoder
def brittle_text(event: int) -> str:
    return str(event * (1 // (event % 9)) or event)


class Brittle(Kept):
    encoder = brittle_text


#: All keys that these extractors give.
KEYS: list[str | bytes] = [
    *("", b"", "a", b"a", "é", b"\xff", "long" * 50),
    *(f"rest {rest}" for rest in range(11)),
    *(bytes([rest]) for rest in range(13)),
    *(chr(rest) for rest in range(17)),
    *(f"key {rest}" for rest in range(4)),
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


_BRITTLE: list[Step] = [
    *(
        (lambda pipeline, step=step: pipeline.to(step))
        for step in (brittle, brittle_generator, brittle_tally, brittle_split)
    ),
    lambda pipeline: pipeline.key_by(by_brittle),
]


def _names(*, fragile: bool) -> st.SearchStrategy[Step]:
    sound = st.sampled_from(_STEPS)
    return st.one_of(sound, st.sampled_from(_BRITTLE)) if fragile else sound


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


def steps(*, fragile: bool = False) -> st.SearchStrategy[Step]:
    """Chains of steps that fork and meet again; fragile: some raise for some events."""
    return st.recursive(
        _names(fragile=fragile),
        lambda inner: (
            st.lists(inner, max_size=4).map(_chain)
            | st.lists(st.lists(inner, max_size=3).map(_chain), min_size=2, max_size=3).map(
                _fan_out
            )
        ),
        max_leaves=10,
    )


@st.composite
def applications(draw: st.DrawFn, *, fragile: bool = False) -> wallaroo.Application:
    """Pipelines of one or two sources and one or two sinks; fragile: parts of them raise."""
    some = steps(fragile=fragile)
    pipeline = draw(some)(source("numbers"))
    if draw(st.booleans()):
        pipeline = pipeline.merge(draw(some)(source("more")))
        pipeline = draw(some)(pipeline)
    kinds = [Kept, Brittle] if fragile else [Kept]
    sinks = [draw(st.sampled_from(kinds))() for _ in range(draw(st.integers(1, 2)))]
    return wallaroo.build_application("test", pipeline.to_sinks(sinks))
