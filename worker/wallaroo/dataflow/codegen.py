"""One generated function per stage and input: the steps fused into one loop over a batch.

A loop that calls the user's functions one after the other, with each result consumed at once,
costs a few per cent more than the same loop written by hand; lists between steps cost up to a
fifth more, chains of generators up to a half. Exchanges whose receiver is this very worker are
generated into the loop of the sender (*inlined*) while the receiver can take events at once.

The generated text is kept: when a user's function raises, the line says which step it was, and
the frame's variables hold the event and its key.
"""

import linecache
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from types import FunctionType
from typing import Any, Protocol

from xxhash import xxh3_64_intdigest

from wallaroo.api.connectors import SinkConfig
from wallaroo.api.steps import Decoder, KeyExtractor, Step
from wallaroo.dataflow.graph import Edge, Graph, Stage
from wallaroo.partitioning import hash_key

#: Deepest nesting of blocks to inline to: Python allows 20.
_BLOCKS = 16

_EMPTY = "''"

_serial = count()


class Environment(Protocol):
    """The objects of a worker that generated code uses."""

    def live(self, place: str) -> dict[Any, Any]:
        """The state at a place."""

    def table(self, edge: Edge, *, inline: bool) -> list[Callable[[Any], None] | None]:
        """By slot of the hash interval: takes an event for the slot's owner.

        With `inline` it is None for this worker.
        """

    def slot_shift(self, edge: Edge) -> int:
        """How far to shift a point to get its slot."""

    def str_keys(self, edge: Edge) -> bool:
        """Whether to expect keys of an exchange to be str, else bytes."""

    def odd_key(self, edge: Edge) -> Callable[[object], str | bytes]:
        """Makes a key that is not as expected a proper one, and notes what it is."""

    def alone(self, edge: Edge) -> bool:
        """Whether this worker owns the whole hash interval, as far as events go by `edge`."""

    def forward(self, edge: Edge) -> Callable[[Any], None]:
        """Takes an event for the next stage of this worker."""

    def sink(self, index: int) -> Callable[[Any], None]:
        """Takes what the encoder gave."""

    @property
    def dead_letters(self) -> Callable[[Exception], None] | None:
        """Takes what a user's function raised; without it, that stops the batch."""


@dataclass(frozen=True)
class Line:
    """What one line of generated code calls: a step, with the names of event and key.

    looks_up: the line looks the key up, so that it may fail before the step is called.
    extractor: what gave the key, if that is known here.
    """

    step: Step
    event: str
    key: str | None = None
    looks_up: bool = False
    gives_key: bool = False
    extractor: KeyExtractor[Any] | None = None


@dataclass(frozen=True)
class Batch:
    """A generated function: takes a batch of events."""

    run: FunctionType
    file: str
    lines: dict[int, Line]
    #: By place: which of the function's defaults is its entries.
    lives: dict[str, int]

    def rebind(self, place: str, live: dict[Any, Any]) -> None:
        """Use other entries for a place from the next call on."""
        at = self.lives.get(place)
        if at is not None:
            defaults = self.run.__defaults__ or ()
            self.run.__defaults__ = (*defaults[:at], live, *defaults[at + 1 :])


@dataclass
class _Code:
    graph: Graph
    environment: Environment
    inline: frozenset[int]
    text: list[str] = field(default_factory=list)
    lines: dict[int, Line] = field(default_factory=dict)
    names: dict[str, Any] = field(default_factory=lambda: {"hash_key": hash_key})
    #: By the variable of a key: what gave it.
    extractors: dict[str, KeyExtractor[Any]] = field(default_factory=dict)
    #: By place: the name of its entries.
    lives: dict[str, str] = field(default_factory=dict)
    #: Depths at which a `try:` is open, whose events are set aside if a function raises.
    tries: list[int] = field(default_factory=list)
    values: int = 0
    depth: int = 1

    def add(self, text: str, line: Line | None = None) -> None:
        self.text.append("    " * self.depth + text)
        if line:
            self.lines[len(self.text) + 1] = line  # the def is the first line

    def bind(self, prefix: str, value: Any) -> str:
        for name, bound in self.names.items():
            if bound is value and name.startswith(prefix):
                return name
        name = f"{prefix}{len(self.names)}"
        self.names[name] = value
        return name

    def value(self) -> str:
        self.values += 1
        return f"v{self.values}"

    def loop(self, value: str, events: str, line: Line | None = None) -> None:
        self.add(f"for {value} in {events}:", line)
        self.depth += 1
        if self.environment.dead_letters:
            self.tries.append(self.depth)
            self.add("try:")
            self.depth += 1

    def end_loops(self) -> None:
        """Close every `try:`: the event is set aside, and its loop goes on with the next."""
        while self.tries:
            self.depth = self.tries.pop()
            self.set_aside()

    def set_aside(self) -> None:
        letters = self.bind("letters", self.environment.dead_letters)
        self.add("except Exception as error:")
        self.add(f"    {letters}(error)")

    def stage(self, stage: Stage, value: str, key: str) -> None:
        """The steps of a stage for the event in `value`; then its edges and sinks."""
        for operation in stage.operations:
            step = operation.step
            function = self.bind("f", step.function)
            call = f"{function}({value})"
            line = Line(step, value)
            if operation.place:
                live = self.bind("live", self.environment.live(operation.place))
                self.lives[operation.place] = live
                call = f"{function}({value}, {live}[{key}])"
                line = Line(step, value, key, looks_up=True, extractor=self.extractors.get(key))
            result = self.value()
            self.add(f"{result} = {call}", line)
            self.add(f"if {result} is None: continue")
            if operation.multi:
                each = self.value()
                self.loop(each, result, line)
                result = each
            value = result
        targets: list[Edge | int] = [*stage.edges, *stage.sinks]
        # What may be inlined comes last: its steps end the iteration with `continue`.
        targets.sort(key=lambda target: isinstance(target, Edge) and target.index in self.inline)
        for position, target in enumerate(targets):
            last = position == len(targets) - 1
            # One way's encoder or extractor that raises must not keep the event from the others,
            # which come now before it and now behind.
            guarded = not last and self.environment.dead_letters is not None
            if guarded:
                self.add("try:")
                self.depth += 1
            if isinstance(target, int):
                self.sink(target, self.graph.sinks[target], value)
            elif target.routed:
                self.exchange(target, value, last=last)
            else:
                append = self.bind("forward", self.environment.forward(target))
                self.add(f"{append}(({key}, {value}))" if target.keyed else f"{append}({value})")
            if guarded:
                self.depth -= 1
                self.set_aside()

    def sink(self, index: int, config: SinkConfig[Any], value: str) -> None:
        write = self.bind("sink", self.environment.sink(index))
        if config.encoder is None:
            self.add(f"{write}({value})")
            return
        encode = self.bind("f", config.encoder.function)
        out = self.value()
        self.add(f"{out} = {encode}({value})", Line(config.encoder, value))
        self.add(f"if {out} is not None: {write}({out})")

    def key(self, extractor: KeyExtractor[Any] | None, value: str) -> str:
        """The variable that holds the key of the event in `value`."""
        if extractor is None:
            return _EMPTY
        extract = self.bind("f", extractor.function)
        # A name of its own: the event's key so far may still be needed beside this one.
        key = f"k{self.value()[1:]}"
        self.extractors[key] = extractor
        self.add(f"{key} = {extract}({value})", Line(extractor, value))
        return key

    def exchange(self, edge: Edge, value: str, *, last: bool) -> None:
        receiver = self.graph.stages[edge.receiver]
        blocks = 2 if self.environment.dead_letters else 1
        loops = self.depth + blocks * sum(operation.multi for operation in receiver.operations)
        inline = last and edge.index in self.inline and loops <= _BLOCKS
        key = self.key(edge.extractor, value)
        first = receiver.operations[0] if receiver.operations else None
        if inline and self.environment.alone(edge) and first and first.place:
            self.stage(receiver, value, key)  # the look-up of the state checks the key
            return
        table = self.bind("table", self.environment.table(edge, inline=inline))
        shift = self.environment.slot_shift(edge)
        take = f"t{value[1:]}"
        if edge.extractor is None:
            self.add(f"{take} = {table}[{hash_key('') >> shift}]")
        else:
            hashing = self.bind("hash", xxh3_64_intdigest)
            odd = self.bind("odd", self.environment.odd_key(edge))
            line = Line(edge.extractor, value, key, gives_key=True, extractor=edge.extractor)
            usual = f"{key}.encode()" if self.environment.str_keys(edge) else key
            self.add("try:")
            self.add(f"    {take} = {table}[{hashing}({usual}) >> {shift}]", line)
            self.add("except (AttributeError, TypeError):")
            self.add(f"    {key} = {odd}({key})", line)
            self.add(f"    {take} = {table}[hash_key({key}) >> {shift}]", line)
        call = Line(edge.extractor, value, key) if edge.extractor else None
        if not inline:
            self.add(f"{take}({value})", call)
            return
        self.add(f"if {take} is not None:")
        self.add(f"    {take}({value})", call)
        self.add("    continue")
        self.stage(receiver, value, key)


def generate(
    graph: Graph,
    stage: Stage,
    entry: Edge | Decoder[Any] | None,
    environment: Environment,
    inline: frozenset[int],
) -> Batch:
    """The function of `stage` for what comes in by `entry`.

    entry: an edge that leads to the stage; or its source's decoder, None if the source has none.
    inline: indexes of the exchanges whose receiving stage, here, can take events at once.
    """
    code = _Code(graph, environment, inline)
    value = code.value()
    key = _EMPTY
    if isinstance(entry, Edge):
        if entry.keyed:
            key = f"k{value[1:]}"
            code.loop(f"{key}, {value}", "events")
        else:
            code.loop(value, "events")
            if _uses_key(stage):
                key = code.key(entry.extractor, value)
    else:
        code.loop(value, "events")
        if entry is not None:
            raw, value = value, code.value()
            decode = code.bind("f", entry.function)
            code.add(f"{value} = {decode}({raw})", Line(entry, raw))
            code.add(f"if {value} is None: continue")
    code.stage(stage, value, key)
    code.add("pass")
    code.end_loops()
    names = list(code.names)
    parameters = ", ".join(["events", *(f"{name}={name}" for name in names)])
    text = "\n".join([f"def run({parameters}):", *code.text, ""])
    file = f"<wallaroo: {stage.name} #{stage.index} {next(_serial)}>"
    exec(compile(text, file, "exec"), code.names)  # noqa: S102  the text is made right here
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    lives = {place: names.index(name) for place, name in code.lives.items()}
    return Batch(code.names["run"], file, code.lines, lives)


def _uses_key(stage: Stage) -> bool:
    return stage.stateful or any(edge.keyed for edge in stage.edges)
