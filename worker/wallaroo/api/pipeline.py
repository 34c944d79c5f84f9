"""Pipelines: immutable values that say which step follows which.

A pipeline is the last node of a graph whose nodes know what comes before them. Each call makes a
new node, so a pipeline may be continued in two ways; events then go both ways.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from wallaroo.api.connectors import SinkConfig, SourceConfig
from wallaroo.api.steps import (
    Computation,
    ComputationMulti,
    KeyExtractor,
    StateComputation,
    StateComputationMulti,
)
from wallaroo.errors import WallarooParameterError

T = TypeVar("T", covariant=True)
U = TypeVar("U")

Transformation = (
    Computation[Any, Any]
    | ComputationMulti[Any, Any]
    | StateComputation[Any, Any, Any]
    | StateComputationMulti[Any, Any, Any]
)


@dataclass(frozen=True, eq=False)
class Node:
    """One call on a pipeline; `parents` are the pipelines it was called on."""

    parents: tuple["Node", ...] = ()


@dataclass(frozen=True, eq=False)
class SourceNode(Node):
    """The start of a pipeline."""

    name: str = ""
    config: SourceConfig[Any] = None  # type: ignore[assignment]


@dataclass(frozen=True, eq=False)
class StepNode(Node):
    """A computation, with or without state."""

    step: Transformation = None  # type: ignore[assignment]


@dataclass(frozen=True, eq=False)
class KeyNode(Node):
    """A new key for each event; without an extractor all have the one key `""`."""

    extractor: KeyExtractor[Any] | None = None


@dataclass(frozen=True, eq=False)
class MergeNode(Node):
    """The events of two pipelines, interleaved."""


@dataclass(frozen=True, eq=False)
class SinkNode(Node):
    """The end of a pipeline."""

    sinks: tuple[SinkConfig[Any], ...] = ()


class Pipeline(Generic[T]):
    """Steps in order, from one or more sources; `T` is the type of the events so far."""

    def __init__(self, node: Node) -> None:
        self._node = node

    @property
    def node(self) -> Node:
        """The last call."""
        return self._node

    def _open(self, call: str) -> Node:
        if isinstance(self._node, SinkNode):
            raise WallarooParameterError(
                f"{call} after to_sink or to_sinks: nothing can follow a pipeline's sink"
            )
        return self._node

    def to(
        self,
        step: Computation[T, U]
        | ComputationMulti[T, U]
        | StateComputation[T, Any, U]
        | StateComputationMulti[T, Any, U],
    ) -> "Pipeline[U]":
        """Send each event through `step`.

        >>> import wallaroo
        >>> @wallaroo.computation(name="double")
        ... def double(number: int) -> int:
        ...     return 2 * number
        >>> class Numbers:
        ...     def initial_value(self) -> int: return 1
        ...     def apply(self, previous: int) -> int: return previous + 1
        >>> numbers = wallaroo.source("numbers", wallaroo.GenSourceConfig("numbers", Numbers()))
        >>> doubled = numbers.to(double)

        A state computation gets the state of the event's key; before any `key_by` all events
        have the one key `""`. Raises `WallarooParameterError` if `step` is no step.
        """
        node = self._open("to()")
        if not isinstance(
            step, Computation | ComputationMulti | StateComputation | StateComputationMulti
        ):
            advice = ""
            if isinstance(step, KeyExtractor):
                advice = "; use key_by() for it"
            elif callable(step):
                advice = "; decorate it, such as with @wallaroo.computation(name=...)"
            raise WallarooParameterError(
                f"to() takes a computation or a state computation, not {step!r}{advice}"
            )
        return Pipeline(StepNode((node,), step))

    def key_by(self, extractor: KeyExtractor[T]) -> "Pipeline[T]":
        """Give each event a key: from here on it belongs to the worker that owns the key.

        >>> import wallaroo
        >>> @wallaroo.key_extractor
        ... def itself(word: str) -> str:
        ...     return word
        >>> class Words:
        ...     def initial_value(self) -> str: return "a"
        ...     def apply(self, previous: str) -> str: return previous + "a"
        >>> words = wallaroo.source("words", wallaroo.GenSourceConfig("words", Words()))
        >>> keyed = words.key_by(itself)

        Raises `WallarooParameterError` if `extractor` is no key extractor.
        """
        node = self._open("key_by()")
        if not isinstance(extractor, KeyExtractor):
            raise WallarooParameterError(
                f"key_by() takes a function decorated with @wallaroo.key_extractor, "
                f"not {extractor!r}"
            )
        return Pipeline(KeyNode((node,), extractor))

    def collect(self) -> "Pipeline[T]":
        """Give all events one key, so that one worker has them all.

        >>> import wallaroo
        >>> lines = wallaroo.source("lines", wallaroo.FileSourceConfig("lines", "*.txt"))
        >>> together = lines.collect()
        """
        return Pipeline(KeyNode((self._open("collect()"),)))

    def merge(self, other: "Pipeline[U]") -> "Pipeline[T | U]":
        """Interleave the events of two pipelines.

        >>> import wallaroo
        >>> lines = wallaroo.source("lines", wallaroo.FileSourceConfig("lines", "*.txt"))
        >>> notes = wallaroo.source("notes", wallaroo.FileSourceConfig("notes", "*.md"))
        >>> both = lines.merge(notes)

        The order between events of the two is not defined.
        Raises `WallarooParameterError` if either has a sink already.
        """
        node = self._open("merge()")
        if not isinstance(other, Pipeline):
            raise WallarooParameterError(f"merge() takes a pipeline, not {other!r}")
        return Pipeline(MergeNode((node, other._open("merge()"))))

    def to_sink(self, config: SinkConfig[T]) -> "Pipeline[T]":
        """End the pipeline: each event goes to the sink.

        >>> import wallaroo
        >>> lines = wallaroo.source("lines", wallaroo.FileSourceConfig("lines", "*.txt"))
        >>> copied = lines.to_sink(wallaroo.FileSinkConfig("copy.txt"))

        Raises `WallarooParameterError` if `config` is no sink's config.
        """
        return self._to_sinks("to_sink()", [config])

    def to_sinks(self, configs: Sequence[SinkConfig[T]]) -> "Pipeline[T]":
        """End the pipeline: each event goes to every one of the sinks.

        >>> import wallaroo
        >>> lines = wallaroo.source("lines", wallaroo.FileSourceConfig("lines", "*.txt"))
        >>> copies = lines.to_sinks(
        ...     [wallaroo.FileSinkConfig("copy.txt"), wallaroo.FileSinkConfig("spare.txt")]
        ... )

        Raises `WallarooParameterError` if there is none.
        """
        sinks = list(configs) if isinstance(configs, Iterable) else []
        if not sinks:
            raise WallarooParameterError(
                f"to_sinks() takes a list of at least one sink, not {configs!r}"
            )
        return self._to_sinks("to_sinks()", sinks)

    def _to_sinks(self, call: str, configs: list[SinkConfig[T]]) -> "Pipeline[T]":
        node = self._open(call)
        for config in configs:
            if not isinstance(config, SinkConfig):
                raise WallarooParameterError(
                    f"{call} takes a sink's config, such as wallaroo.TCPSinkConfig, not {config!r}"
                )
        return Pipeline(SinkNode((node,), tuple(configs)))


def source(name: str, config: SourceConfig[U]) -> Pipeline[U]:
    """Start a pipeline with the events of a source; `name` may be any words.

    >>> import wallaroo
    >>> lines = wallaroo.source("lines of a book", wallaroo.FileSourceConfig("lines", "*.txt"))

    Raises `WallarooParameterError` if `config` is no source's config.
    """
    if not isinstance(name, str) or not name:
        raise WallarooParameterError(f"a source needs a name, a non-empty str, not {name!r}")
    if not isinstance(config, SourceConfig):
        raise WallarooParameterError(
            f"source '{name}' takes a source's config, such as wallaroo.FileSourceConfig, "
            f"not {config!r}"
        )
    return Pipeline(SourceNode((), name, config))


@dataclass(frozen=True, eq=False)
class Application:
    """What `application_setup` returns: a name and a pipeline that ends in a sink."""

    name: str
    node: SinkNode


def build_application(name: str, pipeline: Pipeline[Any]) -> Application:
    """Make a pipeline an application.

    >>> import wallaroo
    >>> def application_setup(args: list[str]) -> wallaroo.Application:
    ...     lines = wallaroo.source("lines", wallaroo.FileSourceConfig("lines", args[1]))
    ...     pipeline = lines.to_sink(wallaroo.FileSinkConfig(args[2]))
    ...     return wallaroo.build_application("copy", pipeline)
    >>> application_setup(["copy", "in.txt", "out.txt"]).name
    'copy'

    Raises `WallarooParameterError` if the pipeline does not end in a sink, or two different
    steps or sources of it have the same name.
    """
    if not isinstance(name, str) or not name:
        raise WallarooParameterError(f"an application needs a name, a non-empty str, not {name!r}")
    if not isinstance(pipeline, Pipeline):
        raise WallarooParameterError(
            f"application '{name}' is built from a pipeline, not {pipeline!r}"
        )
    node = pipeline.node
    if not isinstance(node, SinkNode):
        raise WallarooParameterError(
            f"application '{name}' has a pipeline without a sink: end it with to_sink() or "
            "to_sinks()"
        )
    _check_names(name, ordered(node))
    return Application(name, node)


def ordered(last: Node) -> list[Node]:
    """All nodes of the pipeline that ends in `last`, each once, after its parents."""
    found: dict[Node, None] = {}
    pending: list[tuple[Node, bool]] = [(last, False)]
    while pending:
        node, parents_done = pending.pop()
        if parents_done:
            found.setdefault(node)
        elif node not in found:
            pending.append((node, True))
            pending.extend((parent, False) for parent in reversed(node.parents))
    return list(found)


def _same(one: Transformation, other: Transformation) -> bool:
    return (
        one.function is other.function
        and type(one) is type(other)
        and getattr(one, "state", None) is getattr(other, "state", None)
    )


def _check_names(application: str, nodes: list[Node]) -> None:
    steps: dict[str, Transformation] = {}
    sources: set[str] = set()
    for node in nodes:
        if isinstance(node, StepNode):
            other = steps.setdefault(node.step.name, node.step)
            if not _same(other, node.step):
                raise WallarooParameterError(
                    f"application '{application}': two different steps are named "
                    f"'{node.step.name}' (functions {other.name_of_function} and "
                    f"{node.step.name_of_function}); a step's name stands for its state, so give "
                    "one of them another"
                )
        elif isinstance(node, SourceNode):
            if node.name in sources:
                raise WallarooParameterError(
                    f"application '{application}': two sources are named '{node.name}'; a "
                    "source is known by its name, so give one of them another"
                )
            sources.add(node.name)
