"""Applications of up to three stateful stages that show every event lost, doubled or moved.

An event has a name, a number and the window of whoever made it. The events of one name are
numbered 1, 2, 3, … in order, from the source on. A state computation counts the events of its key
and keeps the last four as its window; what it gives is named after it and its key, so its own
events are numbered without a gap as well. What must come out is known without running anything.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.simulation.sim_bugs import Bug
from xxhash import xxh3_64_intdigest

import wallaroo
from wallaroo.api.connectors import SourceConfig

HERE = Path(__file__).parent
OUTPUT = Path("/sim/out")
#: By input file: how many events of each name it has.
FILES = 5

Window = tuple[tuple[str, int], ...]


class Event:
    """The `number`th of its name. The rest is a bug's."""

    asked = False
    foreign: Any = None

    def __init__(self, name: str, number: int, window: Window = ()) -> None:
        self.name = name
        self.number = number
        self.window = window


def note(inputs: list[tuple[str, int]], event: Event) -> Window:
    """Add an event to the last four inputs of a key, which are changed in place."""
    inputs.append((event.name, event.number))
    del inputs[:-4]
    return tuple(inputs)


class Plain:
    """State that is its class and its `__dict__`. foreign: a bug's."""

    foreign: Any

    def __init__(self) -> None:
        self.count = 0
        self.inputs: list[tuple[str, int]] = []

    def take(self, event: Event) -> tuple[int, Window]:
        self.count += 1
        return self.count, note(self.inputs, event)

    def seen(self) -> tuple[int, Window]:
        return self.count, tuple(self.inputs)


class Slotted:
    """State that has no `__dict__`."""

    __slots__ = ("count", "inputs")

    def __init__(self) -> None:
        self.count = 0
        self.inputs: list[tuple[str, int]] = []

    take = Plain.take
    seen = Plain.seen


class HalfSlotted(Slotted):
    """State that keeps the count outside its `__dict__`, and has one."""

    def __init__(self) -> None:
        super().__init__()
        self.more = 0

    def take(self, event: Event) -> tuple[int, Window]:
        self.more += 1
        return super().take(event)  # type: ignore[misc]


class Reduced:
    """State that says itself how it is written: its `__dict__` alone would be wrong."""

    def __init__(self, count: int = 0, inputs: Window = ()) -> None:
        self.count = count
        self.inputs = list(inputs)
        self.last = self.inputs

    def __reduce__(self) -> Any:
        return Reduced, (self.count, tuple(self.inputs))

    def take(self, event: Event) -> tuple[int, Window]:
        if self.last is not self.inputs:
            raise RuntimeError("it was not made by its class")
        self.count += 1
        return self.count, note(self.inputs, event)

    seen = Plain.seen


class Listed(list[tuple[str, int]]):
    """State that is a list with a count."""

    total = 0

    def take(self, event: Event) -> tuple[int, Window]:
        self.total += 1
        return self.total, note(self, event)

    def seen(self) -> tuple[int, Window]:
        return self.total, tuple(self)


def take_dict(event: Event, state: dict[str, Any]) -> tuple[int, Window]:
    """State that is a dict."""
    state["count"] = state.get("count", 0) + 1
    return state["count"], note(state.setdefault("inputs", []), event)


STATES: list[Callable[[], Any]] = [Plain, Plain, dict, Slotted, HalfSlotted, Reduced, Listed]
#: Those that hold whatever is put into them.
OPEN_STATES = {Plain, dict, HalfSlotted, Listed}


def seen(state: Any) -> tuple[int, Window]:
    """The count and the window of a state object."""
    if isinstance(state, dict):
        return state["count"], tuple(state["inputs"])
    found: tuple[int, Window] = state.seen()
    return found


class Names:
    """A generator whose state changes with every event."""

    def __init__(self, prefix: str, keys: int, events: int, luck: int) -> None:
        self.prefix = prefix
        self.keys = keys
        self.left = events
        self.luck = luck
        self.counts: dict[str, int] = {}

    def initial_value(self) -> Event | None:
        return self.apply(None)

    def apply(self, previous: object, /) -> Event | None:
        if not self.left:
            return None
        self.left -= 1
        self.luck = (self.luck * 1103515245 + 12345) % (1 << 31)
        name = f"{self.prefix}{(self.luck >> 8) % self.keys}"
        self.counts[name] = self.counts.get(name, 0) + 1
        return Event(name, self.counts[name])


#: How many events there are of each name.
Counts = dict[str, int]
#: The key of an event with a name.
KeyOf = Callable[[str], str | bytes | int]


@dataclass
class Keyed:
    """A state computation as it should end: by key, the names that come in and how often.

    extracts: whether its own extractor gives the keys.
    """

    key_of: KeyOf
    make: Callable[[], Any]
    extracts: bool
    inputs: dict[str | bytes, Counts] = field(default_factory=dict)


@dataclass
class Sketch:
    """What is built: a pipeline, and what it should give."""

    pipeline: wallaroo.Pipeline[Any]
    counts: Counts


@dataclass
class Sample:
    """An application. places: by name of the state computation. outputs: of every sink."""

    application: wallaroo.Application
    places: dict[str, Keyed]
    outputs: Counts
    sinks: int
    bug: Bug


@wallaroo.computation(name="parse")
def parse(line: str) -> Event:
    name, _, number = line.partition(" ")
    return Event(name, int(number))


@wallaroo.computation_multi(name="split")
def split(event: Event) -> list[Event]:
    return [Event(f"{event.name}a", event.number), Event(f"{event.name}b", event.number)]


@wallaroo.encoder
def line_of(event: Event) -> str:
    window = ",".join(f"{name}={number}" for name, number in event.window)
    return f"{event.name} {event.number} {window}\n"


def normal(key: str | bytes | int) -> str | bytes:
    """A key as the state has it."""
    return chr(key) if isinstance(key, int) else key


def shown(key: str | bytes | int) -> str:
    """A key as part of a name."""
    key = normal(key)
    return key.hex() if isinstance(key, bytes) else key


def _spread(name: str, keys: int) -> int:
    return xxh3_64_intdigest(name.encode()) % keys


def _key_of(chance: random.Random) -> KeyOf:
    keys = chance.choice((1, 2, 3, 5, 8, 13))
    return chance.choice(
        (
            lambda name: f"k{_spread(name, keys)}",
            lambda name: f"k{_spread(name, keys)}",
            lambda name: b"b%d" % _spread(name, keys),
            lambda name: ord("a") + _spread(name, keys),
            lambda name: name,
        )
    )


class _Builder:
    def __init__(self, chance: random.Random, *, long: bool) -> None:
        self.chance = chance
        self.long = long
        self.places: dict[str, Keyed] = {}
        self.bug = Bug()

    def source(self, number: int) -> Sketch:
        chance = self.chance
        if chance.random() < (0.2 if self.long else 0.4):
            first, last = sorted((chance.randrange(FILES), chance.randrange(FILES)))
            config: SourceConfig[str] = wallaroo.FileSourceConfig(
                f"files {number}", HERE / "inputs" / f"[{first}-{last}].txt"
            )
            counts: Counts = {}
            for file in range(first, last + 1):
                for line in (HERE / "inputs" / f"{file}.txt").read_text().split("\n"):
                    if line:
                        name = f"s{number}{line.split()[0]}"
                        counts[name] = counts.get(name, 0) + 1

            def rename(event: Event) -> Event:
                return Event(f"s{number}{event.name}", event.number)

            renamed = wallaroo.computation(name=f"rename {number}")(rename)
            lines = wallaroo.source(f"files {number}", config)
            return Sketch(lines.to(parse).to(renamed), counts)
        events = chance.choice((60, 120, 240) if self.long else (5, 20, 60, 120))
        made = Names(f"g{number}n", chance.choice((1, 3, 10, 40)), events, chance.getrandbits(30))
        counts = {}
        for event in _all(Names(made.prefix, made.keys, events, made.luck)):
            counts[event.name] = event.number
        name = f"names {number}"
        return Sketch(wallaroo.source(name, wallaroo.GenSourceConfig(name, made)), counts)

    def state(self, sketch: Sketch, level: str) -> Sketch:
        chance, bug = self.chance, self.bug
        place = f"count {level}"
        make = chance.choice(STATES)
        key_of = _key_of(chance)
        luck = chance.random()
        pipeline = sketch.pipeline
        if luck < 0.1:
            key_of = lambda name: ""
            if luck < 0.05:
                pipeline = pipeline.collect()
            else:  # as it comes, which has a key already unless this is the first
                pipeline = pipeline.key_by(wallaroo.key_extractor(lambda event: ""))
        else:

            def extract(event: Event) -> str | bytes | int:
                key = key_of(event.name)
                return bug.key(event, key) if bug.hits(place, event) else key

            pipeline = pipeline.key_by(wallaroo.key_extractor(extract))

        def count(event: Event, state: Any) -> Event:
            taken = take_dict(event, state) if isinstance(state, dict) else state.take(event)
            made = Event(f"{level}:{shown(key_of(event.name))}", *taken)
            if bug.hits(place, event):
                bug.strike(state, made)
            return made

        step = wallaroo.state_computation(name=place, state=make)(count)
        keyed = self.places[place] = Keyed(key_of, make, luck >= 0.1)
        for name, number in sketch.counts.items():
            keyed.inputs.setdefault(normal(key_of(name)), {})[name] = number
        counts = {
            f"{level}:{shown(key)}": sum(inputs.values()) for key, inputs in keyed.inputs.items()
        }
        return Sketch(pipeline.to(step), counts)

    def merge(self, one: Sketch, other: Sketch) -> Sketch:
        return Sketch(one.pipeline.merge(other.pipeline), one.counts | other.counts)

    def split(self, sketch: Sketch) -> Sketch:
        counts = {f"{name}{end}": n for name, n in sketch.counts.items() for end in "ab"}
        return Sketch(sketch.pipeline.to(split), counts)


def _all(names: Names) -> list[Event]:
    found = []
    while (event := names.apply(None)) is not None:
        found.append(event)
    return found


def sample(chance: random.Random, *, long: bool) -> Sample:
    """An application; a long one has something to do for a while."""
    builder = _Builder(chance, long=long)
    whole = builder.source(0)
    for number in range(1, chance.choice((1, 1, 2, 3))):
        whole = builder.merge(whole, builder.source(number))
    split_already = False
    for level in range(chance.choice((1, 1, 2, 2, 3))):
        if not split_already and chance.random() < 0.15:
            whole = builder.split(whole)
            split_already = True
        done = builder.state(whole, f"{level}")
        luck = chance.random()
        if luck < 0.15:
            done = builder.merge(done, whole)
        elif luck < 0.3:
            done = builder.merge(done, builder.state(whole, f"{level}x"))
        whole = done
    sinks = chance.choice((1, 1, 2))
    configs = [wallaroo.FileSinkConfig(OUTPUT / f"{n}.txt", line_of) for n in range(sinks)]
    application = wallaroo.build_application("sample", whole.pipeline.to_sinks(configs))
    return Sample(application, builder.places, whole.counts, sinks, builder.bug)
