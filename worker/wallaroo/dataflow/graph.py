"""From a pipeline to stages.

A stage is a chain of steps that one generated function runs over a batch, and one domain of
barrier alignment, so every state belongs to exactly one stage. Stages are cut

- where a `key_by` or `collect` re-routes: an *exchange* leads to the next stage;
- before a state step or a sink where branches meet, and after an event that goes two ways: a
  *forward* hands events over inside the worker.

The stateless steps after a merge need no cut: each branch does them for itself, unless there are
many branches.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from wallaroo.api.connectors import SinkConfig
from wallaroo.api.pipeline import (
    Application,
    KeyNode,
    MergeNode,
    Node,
    SinkNode,
    SourceNode,
    StepNode,
    Transformation,
    ordered,
)
from wallaroo.api.steps import (
    ComputationMulti,
    KeyExtractor,
    StateComputation,
    StateComputationMulti,
)

#: Python nests loops at most 20 deep; each multi step is a loop of the generated function.
_LOOPS = 8
#: Most branches whose next steps are each branch's own; more meet first.
_BRANCHES = 4


def source_place(source: str) -> str:
    """The name of the place where the positions of a source are entries."""
    return f"source {source}"


@dataclass(frozen=True)
class Operation:
    """A step at its place in the pipeline.

    place: the name of the state kept there; empty for a stateless step.
    """

    step: Transformation
    place: str = ""

    @property
    def multi(self) -> bool:
        return isinstance(self.step, ComputationMulti | StateComputationMulti)


@dataclass(frozen=True)
class Edge:
    """From one stage to another.

    routed: to the worker that owns the event's key (an exchange), else inside the worker.
    extractor: gives the key; None where all events have the key "".
    keyed: events travel with the key that they have so far (only on a forward).
    """

    index: int
    sender: int
    receiver: int
    routed: bool
    extractor: KeyExtractor[Any] | None = None
    keyed: bool = False


@dataclass(frozen=True)
class Stage:
    """operations in order, then every one of the edges and sinks."""

    index: int
    source: SourceNode | None
    operations: tuple[Operation, ...]
    edges: tuple[Edge, ...]
    sinks: tuple[int, ...]

    @property
    def name(self) -> str:
        """What it does, for logs."""
        names = [self.source.name] if self.source else []
        names += [operation.step.name for operation in self.operations]
        return " > ".join(names) or f"stage {self.index}"

    @property
    def stateful(self) -> bool:
        return any(operation.place for operation in self.operations)


@dataclass(frozen=True)
class Graph:
    """All stages of an application, each before those that it leads to."""

    application: Application
    stages: tuple[Stage, ...]
    sinks: tuple[SinkConfig[Any], ...]

    @property
    def sources(self) -> list[SourceNode]:
        """All sources."""
        return [stage.source for stage in self.stages if stage.source]

    @property
    def edges(self) -> list[Edge]:
        """All edges, in order of their index."""
        edges = [edge for stage in self.stages for edge in stage.edges]
        return sorted(edges, key=lambda edge: edge.index)

    @property
    def exchanges(self) -> list[Edge]:
        """The edges that lead to other workers."""
        return [edge for edge in self.edges if edge.routed]

    @property
    def places(self) -> list[str]:
        """The names of all places that have entries: of state, and of sources' positions."""
        state = [
            operation.place
            for stage in self.stages
            for operation in stage.operations
            if operation.place
        ]
        return [*state, *(source_place(source.name) for source in self.sources)]

    def inputs(self, stage: Stage) -> list[Edge]:
        """The edges that lead to `stage`."""
        return [edge for edge in self.edges if edge.receiver == stage.index]

    def makers(self, stage: Stage) -> list[str]:
        """The steps or sources, as users know them, one of which made what a stage gives."""
        if stage.operations:
            return [stage.operations[-1].step.title]
        if stage.source:
            return [f"source '{stage.source.name}'"]
        before = [self.stages[edge.sender] for edge in self.inputs(stage)]
        return list(dict.fromkeys(title for each in before for title in self.makers(each)))

    def describe(self) -> str:
        """All that workers must agree on to exchange events, as text."""
        lines = [f"application {self.application.name!r}"]
        for stage in self.stages:
            lines.append(f"stage {stage.index} source={stage.source and stage.source.name!r}")
            lines += [
                f"  {type(op.step).__name__} {op.step.name!r} {op.place!r}"
                for op in stage.operations
            ]
            lines += [
                f"  edge {e.index} to {e.receiver} routed={e.routed} keyed={e.keyed} "
                f"by {e.extractor and e.extractor.name!r}"
                for e in stage.edges
            ]
            lines += [f"  sink {sink} {type(self.sinks[sink]).__name__}" for sink in stage.sinks]
        return "\n".join(lines)


@dataclass(eq=False)
class _Draft:
    """A stage being built; `routed` once its events are with their key's owner."""

    source: SourceNode | None = None
    routed: bool = False
    operations: list[Operation] = field(default_factory=list)
    edges: list["_DraftEdge"] = field(default_factory=list)
    sinks: list[int] = field(default_factory=list)

    @property
    def loops(self) -> int:
        return sum(operation.multi for operation in self.operations)


@dataclass
class _DraftEdge:
    receiver: _Draft
    routed: bool
    extractor: KeyExtractor[Any] | None = None


class _Builder:
    def __init__(self, application: Application) -> None:
        self.nodes = ordered(application.node)
        self.consumers = Counter(parent for node in self.nodes for parent in node.parents)
        self.ends: dict[Node, list[_Draft]] = {}
        self.drafts: list[_Draft] = []
        self.sinks: list[SinkConfig[Any]] = []
        self.places: Counter[str] = Counter()

    def build(self) -> None:
        for node in self.nodes:
            match node:
                case SourceNode():
                    ends = [self.draft(_Draft(source=node))]
                case StepNode(step=StateComputation() | StateComputationMulti()):
                    ends = [self.state(node)]
                case StepNode():
                    ends = [self.stateless(end, node) for end in self.take(node)]
                case KeyNode():
                    ends = [self.exchange(node)]
                case MergeNode():
                    ends = self.take(node)
                    if len(ends) > _BRANCHES:
                        ends = self.meet(ends)
                case SinkNode():
                    self.sink(node)
                    ends = []
                case _:
                    raise TypeError(f"no such node: {node!r}")
            self.ends[node] = ends

    def draft(self, draft: _Draft) -> _Draft:
        self.drafts.append(draft)
        return draft

    def take(self, node: Node) -> list[_Draft]:
        """Where the parents of `node` end, each free to be continued by `node` alone."""
        return [
            self.forward([end]) if self.consumers[parent] > 1 else end
            for parent in node.parents
            for end in self.ends[parent]
        ]

    def meet(self, ends: list[_Draft]) -> list[_Draft]:
        """As few new stages as can be, where `ends` come together: those with a key, and others."""
        groups = [[end for end in ends if end.routed is routed] for routed in (True, False)]
        return [self.forward(group) if len(group) > 1 else group[0] for group in groups if group]

    def parents_ends(self, node: Node) -> list[_Draft]:
        return [end for parent in node.parents for end in self.ends[parent]]

    def forward(self, ends: list[_Draft]) -> _Draft:
        """A new stage in the same worker, where `ends` meet."""
        routed = {end.routed for end in ends}
        receiver = self.draft(_Draft(routed=routed == {True}))
        for end in ends:
            end.edges.append(_DraftEdge(receiver, routed=False))
        return receiver

    def stateless(self, end: _Draft, node: StepNode) -> _Draft:
        operation = Operation(node.step)
        if operation.multi and end.loops >= _LOOPS:
            end = self.forward([end])
        end.operations.append(operation)
        return end

    def state(self, node: StepNode) -> _Draft:
        step = node.step
        self.places[step.name] += 1
        count = self.places[step.name]
        operation = Operation(step, step.name if count == 1 else f"{step.name}#{count}")
        ends = self.take(node)
        end = ends[0]
        if len(ends) > 1 or not end.routed or (operation.multi and end.loops >= _LOOPS):
            end = self.draft(_Draft(routed=True))
            for each in ends:
                each.edges.append(_DraftEdge(end, routed=not each.routed))
        end.operations.append(operation)
        return end

    def exchange(self, node: KeyNode) -> _Draft:
        receiver = self.draft(_Draft(routed=True))
        for end in self.parents_ends(node):
            end.edges.append(_DraftEdge(receiver, routed=True, extractor=node.extractor))
        return receiver

    def sink(self, node: SinkNode) -> None:
        ends = self.take(node)
        end = ends[0] if len(ends) == 1 else self.forward(ends)
        for config in node.sinks:
            end.sinks.append(len(self.sinks))
            self.sinks.append(config)


def build_graph(application: Application) -> Graph:
    """The stages of `application`."""
    builder = _Builder(application)
    builder.build()
    index = {draft: i for i, draft in enumerate(_topological(builder.drafts))}
    needs_key = _needing_keys(builder.drafts)
    stages = []
    edges = 0
    for draft, i in index.items():
        stage_edges = []
        for edge in draft.edges:
            keyed = not edge.routed and edge.receiver in needs_key
            stage_edges.append(
                Edge(edges, i, index[edge.receiver], edge.routed, edge.extractor, keyed)
            )
            edges += 1
        stages.append(
            Stage(
                i,
                draft.source,
                tuple(draft.operations),
                tuple(stage_edges),
                tuple(draft.sinks),
            )
        )
    return Graph(application, tuple(stages), tuple(builder.sinks))


def _topological(drafts: list[_Draft]) -> list[_Draft]:
    senders = Counter(edge.receiver for draft in drafts for edge in draft.edges)
    ready = [draft for draft in drafts if not senders[draft]]
    done = []
    while ready:
        draft = ready.pop(0)
        done.append(draft)
        for edge in draft.edges:
            senders[edge.receiver] -= 1
            if not senders[edge.receiver]:
                ready.append(edge.receiver)
    return done


def _needing_keys(drafts: list[_Draft]) -> set[_Draft]:
    """Stages that use the key an event has so far, or hand it on to one that does."""
    needing = {d for d in drafts if any(op.place for op in d.operations)}
    for draft in reversed(_topological(drafts)):
        if any(not edge.routed and edge.receiver in needing for edge in draft.edges):
            needing.add(draft)
    return needing
