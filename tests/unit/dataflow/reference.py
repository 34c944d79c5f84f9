"""What a pipeline means, told without stages: one event after the other, depth first."""

from collections import Counter, defaultdict
from collections.abc import Iterable
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


class Reference:
    """An application, interpreted. Sinks get events as their encoder gives them."""

    def __init__(self, application: Application) -> None:
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
                for result in self._results(node, event, key):
                    self._emit(node, result, key)
            case KeyNode(extractor=None):
                self._emit(node, event, "")
            case KeyNode(extractor=extractor):
                assert extractor is not None
                given = extractor(event)
                self._emit(node, event, chr(given) if isinstance(given, int) else given)
            case MergeNode():
                self._emit(node, event, key)
            case SinkNode():
                for sink, config in enumerate(node.sinks):
                    written = config.encoder(event) if config.encoder else event
                    if written is not None:
                        self.sinks[sink].append(written)

    def _results(self, node: StepNode, event: Any, key: str | bytes) -> Iterable[Any]:
        step = node.step
        match step:
            case Computation():
                result = step(event)
                return [] if result is None else [result]
            case ComputationMulti():
                return step(event) or []
        state = self.states[self._places[node]].setdefault(key, None)
        if state is None:
            state = self.states[self._places[node]][key] = step.state()
        result = step(event, state)
        if isinstance(step, StateComputationMulti):
            return result or []
        return [] if result is None else [result]
