"""What a pipeline means, told without stages: one event after the other, depth first."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from wallaroo.api.pipeline import (
    Application,
    KeyNode,
    MergeNode,
    Node,
    SinkNode,
    SourceNode,
    StepNode,
    ordered,
)
from wallaroo.api.steps import (
    Computation,
    ComputationMulti,
    StateComputation,
    StateComputationMulti,
)
from wallaroo.partitioning import normalize_key


class Reference:
    """An application, interpreted. Sinks get events as their encoder gives them.

    letters: what is set aside because a function raises, as (step, event): only what that function
    would have made is missing, nothing else.
    """

    def __init__(self, application: Application) -> None:
        self.letters: list[tuple[str, str]] = []
        nodes = ordered(application.node)
        self.states: dict[str, dict[Any, Any]] = defaultdict(dict)
        self.sinks: list[list[Any]] = [[] for _ in application.node.sinks]
        self._sources = {node.name: node for node in nodes if isinstance(node, SourceNode)}
        self._children: dict[Node, list[Node]] = {node: [] for node in nodes}
        self._places: dict[Node, str] = {}
        names: Counter[str] = Counter()
        for node in nodes:
            for parent in node.parents:
                self._children[parent].append(node)
            if isinstance(node, StepNode):
                if isinstance(node.step, StateComputation | StateComputationMulti):
                    name = node.step.name
                    names[name] += 1
                    number = names[name]
                    self._places[node] = name if number == 1 else f"{name}#{number}"

    def give(self, source: str, events: Iterable[Any]) -> None:
        """Let a source give events."""
        for event in events:
            self._emit(self._sources[source], event, "")

    def _emit(self, node: Node, event: Any, key: str | bytes) -> None:
        for child in self._children[node]:
            self._take(child, event, key)

    def _take(self, node: Node, event: Any, key: str | bytes) -> None:
        match node:
            case StepNode():
                results = self._results(node, event, key)
                while True:
                    try:
                        result = next(results)
                    except StopIteration:
                        break
                    except Exception:
                        self._set_aside(node.step, event)
                        break
                    self._emit(node, result, key)
            case KeyNode(extractor=None):
                self._emit(node, event, "")
            case KeyNode(extractor=extractor):
                assert extractor is not None
                try:
                    own = normalize_key(extractor(event))
                except Exception:
                    self._set_aside(extractor, event)
                    return
                self._emit(node, event, own)
            case MergeNode():
                self._emit(node, event, key)
            case SinkNode():
                for sink, config in enumerate(node.sinks):
                    try:
                        written = config.encoder(event) if config.encoder else event
                    except Exception:
                        assert config.encoder
                        self._set_aside(config.encoder, event)
                        continue
                    if written is not None:
                        self.sinks[sink].append(written)

    def _set_aside(self, step: Any, event: Any) -> None:
        self.letters.append((step.title, repr(event)))

    def _results(self, node: StepNode, event: Any, key: str | bytes) -> Iterator[Any]:
        step = node.step
        match step:
            case Computation():
                result = step(event)
                yield from [] if result is None else [result]
                return
            case ComputationMulti():
                yield from step(event) or []
                return
        state = self.states[self._places[node]].setdefault(key, None)
        if state is None:
            state = self.states[self._places[node]][key] = step.state()
        result = step(event, state)
        if isinstance(step, StateComputationMulti):
            yield from result or []
        elif result is not None:
            yield result
