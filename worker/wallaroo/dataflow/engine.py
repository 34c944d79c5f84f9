"""One worker's dataflow: its stages, their inputs, and the turn-taking between them.

`step` runs one small piece of work; whoever calls it decides when, so that the same engine runs
under an event loop and in a test. Inputs take turns, one batch each. A stage whose outputs have
no room does not read, so a slow sink slows its sources and nothing else. A stage that has a
barrier from one input reads no more of it until it has the barrier from all; then, in one go, it
freezes its state, takes the positions of its sources, asks its sinks to hold what they have, and
puts the barrier on all its outputs. That is its part of the cut.

The barrier of a switch travels between the members of the old assignment and of the new one. A
stage that passes it routes by the new one from then on. Keys that it gained may still lack what
their donor touched last: events for these are held back until that is here, and for no others.
"""

import linecache
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from wallaroo.api.connectors import SinkWriter, SourceReader
from wallaroo.api.pipeline import SourceNode
from wallaroo.api.steps import Decoder
from wallaroo.dataflow.barrier import Barrier
from wallaroo.dataflow.codegen import Batch, Line, generate
from wallaroo.dataflow.deadletters import DeadLetters
from wallaroo.dataflow.exchange import Inbox, Outbox
from wallaroo.dataflow.failures import explain, position_refused
from wallaroo.dataflow.graph import Edge, Graph, Stage, source_place
from wallaroo.errors import DataflowError, Failure, shorten
from wallaroo.partitioning import Assignment, hash_key, normalize_key
from wallaroo.state.codec import Codec, CodecError
from wallaroo.state.live import Place
from wallaroo.state.store import Store

#: Most events of one batch.
BATCH = 1024
#: Most turns in a row that go to what waits in local inboxes.
_WAY = 8
#: How long a batch should take, in seconds: control messages are never further away.
SLICE = 0.002

#: Bytes, about, that a stage holds back before it stops reading.
HELD = 4 << 20
#: Bytes that an event is taken for that came from this worker, and the least for any.
_EVENT = 128

_WRITABLE = frozenset((bytes, str))


@dataclass(frozen=True)
class Counters:
    """Events since the application began.

    read: from sources; received: from other workers; written: what encoders gave to sinks;
    dead: set aside because a user's function raised.
    """

    read: int = 0
    received: int = 0
    written: int = 0
    dead: int = 0

    def __add__(self, other: "Counters") -> "Counters":
        return Counters(
            self.read + other.read,
            self.received + other.received,
            self.written + other.written,
            self.dead + other.dead,
        )

    def __sub__(self, other: "Counters") -> "Counters":
        return Counters(
            self.read - other.read,
            self.received - other.received,
            self.written - other.written,
            self.dead - other.dead,
        )


@dataclass(frozen=True)
class Backlog:
    """What waits in a worker's dataflow.

    local: events for a later stage of the same worker; held: those for keys whose state is on its
    way. inbox, outbox: bytes of events that have come from other workers, or go to them.
    """

    local: int = 0
    held: int = 0
    inbox: int = 0
    outbox: int = 0


class _SourceInput:
    """A stage's source on this worker: the partitions that it reads here, one after the other."""

    def __init__(self, name: str, place: Place, *, listens: bool) -> None:
        self.name = name
        #: Its partition does not move with its point, and nothing of it is kept.
        self._listens = listens
        self.readers: deque[SourceReader] = deque()
        #: What the checkpoint says of each partition.
        self._place = place
        #: By partition: its reader, until its end is in the checkpoint; its entry as last stored.
        self._open: dict[str, SourceReader] = {}
        self._stored: dict[str, dict[str, Any]] = {}
        #: The partitions whose end was before the last barrier.
        self.ended: set[str] = set()
        #: A barrier to put behind what is read.
        self.pending: Barrier | None = None
        self.stopping = False
        #: Positions of partitions that this worker has gained are still to come.
        self.awaiting = False
        #: Turns what was read last into events.
        self.decoder: Decoder[Any] | None = None

    def stored(self, partition: str) -> dict[str, Any]:
        """What the checkpoint has of a partition: `position`, encoded, and whether it `ended`."""
        if self._listens:
            return {}
        stored: dict[str, Any] = dict(self._place.live[partition])
        if stored.get("ended"):
            self.ended.add(partition)
        return stored

    def add(self, partition: str, reader: SourceReader) -> None:
        self.readers.append(reader)
        self._open[partition] = reader

    def freeze(self, encode: Callable[[Any], bytes]) -> None:
        """Make the positions, as they are now, part of the cut."""
        for partition, reader in list(self._open.items()):
            ended = reader.ended and not reader.stopped
            entry = {"position": encode(reader.position()), "ended": ended}
            if ended:
                self.ended.add(partition)
                del self._open[partition]
            if self._stored.get(partition) != entry and not self._listens:
                self._stored[partition] = entry
                self._place.live[partition].update(entry)
        self._place.freeze()

    def give_up(self, partitions: Collection[str]) -> None:
        """Another worker reads these from now on."""
        for partition in partitions:
            reader = self._open.pop(partition, None)
            self._stored.pop(partition, None)
            self.ended.discard(partition)
            if reader is not None:
                if reader in self.readers:
                    self.readers.remove(reader)
                reader.close()

    def close(self, keep: Collection[SourceReader]) -> None:
        for reader in self._open.values():
            if reader not in keep:
                reader.close()

    def read(self, limit: int) -> list[Any]:
        for _ in range(len(self.readers)):
            reader = self.readers[0]
            self.decoder = reader.decoder
            events = reader.read(limit)
            if reader.ended:
                self.readers.popleft()
            elif not reader.finite:
                self.readers.rotate(-1)
            elif not events:
                break
            if events:
                return events
        return []

    def take_barrier(self) -> Barrier | None:
        """The barrier, if it is its turn: a final one waits until the readers have stopped."""
        barrier = self.pending
        if barrier is None:
            return None
        if barrier.final and not self.stopping:
            self.stopping = True
            for reader in self.readers:
                # One that goes on over a recovery may have been stopped before it.
                reader.stopped = reader.stopped or not reader.ended
                reader.stop()
            self.readers = deque(reader for reader in self.readers if not reader.ended)
        if barrier.final and self.readers:
            return None
        self.pending = None
        return barrier


@dataclass(eq=False)
class _Hold:
    """Events of a stage whose keys' state is still on its way.

    ranges: [start, end) of points, and who gives them. awaited: the donors of which something is.
    """

    ranges: list[tuple[int, int, int]]
    awaited: set[int]
    #: By donor, in order: where they came from, they themselves, and since when the first waits.
    events: dict[int, list[tuple[Edge, Any]]] = field(default_factory=dict)
    since: dict[int, float] = field(default_factory=dict)
    #: Bytes that they take, about.
    size: int = 0

    def donor(self, point: int) -> int | None:
        """Who still has something of the key at a point."""
        for start, end, donor in self.ranges:
            if start <= point < end:
                return donor if donor in self.awaited else None
        return None


@dataclass(eq=False)
class _Task:
    """A stage on this worker."""

    stage: Stage
    assignment: Assignment
    source: _SourceInput | None
    inboxes: list[Inbox]
    #: By edge: where its events go. One outbox for each other worker; the inbox of the next
    #: stage of this worker.
    outboxes: list[Outbox]
    locals: list[Inbox]
    sinks: list["_Sink"]
    #: Events of a batch that takes about a slice, as far as is known: it begins small.
    limit: int = 1
    #: How many turns in a row it has let local inboxes go first.
    gave_way: int = 0
    #: The epoch of the last barrier, and what had been done when it passed.
    passed: int = 0
    cut: Counters = field(default_factory=Counters)
    read: int = 0
    received: int = 0
    batches: dict[tuple[int, frozenset[int], frozenset[int]], Batch] = field(default_factory=dict)
    #: Stages that batches of this one may run inlined, itself first.
    reach: list["_Task"] = field(default_factory=list)
    #: What is held back, behind a switch; and what no longer is, to be run before anything else.
    hold: _Hold | None = None
    released: deque[tuple[Edge, list[Any]]] = field(default_factory=deque)

    @property
    def counters(self) -> Counters:
        return Counters(self.read, self.received, sum(sink.written for sink in self.sinks))

    @property
    def has_room(self) -> bool:
        if self.hold and self.hold.size >= HELD:
            return False  # ruling 16
        return all(outbox.has_room for outbox in self.outboxes) and all(
            sink.writer.has_room for sink in self.sinks
        )

    @property
    def holding(self) -> bool:
        """Whether events can't simply be taken as they come."""
        return self.hold is not None or bool(self.released)


@dataclass(eq=False)
class _Sink:
    writer: SinkWriter
    values: list[Any] = field(default_factory=list)
    written: int = 0
    #: The last epoch that it holds safely, and its mark.
    held: int = 0
    mark: dict[str, Any] | None = None


class Engine:
    """The dataflow of worker `worker`, in one generation of the cluster.

    store: the worker's state; numbers: of its places in it, by name.
    partitions: of each source, with their points.
    sinks: an open writer for each sink of the graph, in order.
    wake: called with an outbox that has something to send.
    passed: called with a barrier once all stages have passed it: the cut is made.
    held: called with an epoch once all sinks hold safely what belongs to it.
    clock: seconds, for keeping batches short.
    epoch: the committed one from which it goes on; counters: of what had been done by then.
    dead_letters: takes the events for which a user's function raises; without it they stop the
        application.
    gained: called with a source when the positions of what this worker has gained of it are here.
    listens: whether sources that listen do so here, as long as this worker is a member; by default
        on worker 0 alone.
    """

    def __init__(
        self,
        graph: Graph,
        worker: int,
        assignment: Assignment,
        codec: Codec,
        store: Store,
        numbers: Mapping[str, int],
        partitions: Mapping[str, Mapping[str, int]],
        sinks: list[SinkWriter],
        wake: Callable[[Outbox], None],
        passed: Callable[[Barrier], None],
        held: Callable[[int], None],
        clock: Callable[[], float],
        epoch: int = 0,
        counters: Counters = Counters(),
        dead_letters: SinkWriter | None = None,
        gained: Callable[[str], None] = lambda _: None,
        listens: bool | None = None,
    ) -> None:
        self.graph = graph
        self.worker = worker
        self.assignment = assignment
        self._codec = codec
        self._epoch = epoch
        self._start = counters
        self._store = store
        self._numbers = numbers
        self._partitions = partitions
        self._passed = passed
        self._held = held
        self._clock = clock
        self._gained = gained
        self._listens = worker == 0 if listens is None else listens
        self._turn = 0
        self._places: dict[str, Place] = {}
        self._bytes_keys: set[int] = set()
        self._odd_keys: dict[int, Callable[[object], str | bytes]] = {}
        self._lines: dict[str, dict[int, Line]] = {}
        #: Of a switch: what this worker gains, from whom, and what is still to come.
        self._ranges: list[tuple[int, int, int]] = []
        self._awaited: set[tuple[int, int]] = set()
        self._sinks = [_Sink(writer) for writer in sinks]
        self.letters: DeadLetters | None = None
        if dead_letters:
            self.letters = DeadLetters(dead_letters, self._lines, epoch, counters.dead)
            self._sinks.append(_Sink(dead_letters))
        for stage in graph.stages:
            self._open_places(stage)
        others = [w for w in assignment.workers if w != worker]
        self.outboxes: dict[tuple[int, int], Outbox] = {}
        self.inboxes: dict[tuple[int, int], Inbox] = {}
        self._wake = wake
        #: The assignment that a switch brings, while one is under way.
        self._next: Assignment | None = None
        #: The longest time that an event was held back behind the last switch, in seconds.
        self.held_back = 0.0
        for edge in graph.edges:
            self.inboxes[edge.index, worker] = Inbox(edge, worker, local=True)
            for other in others if edge.routed else []:
                self._connect(edge, other)
        self._tables: dict[tuple[int, bool], list[Callable[[Any], None] | None]] = {}
        self._tasks = [self._task(stage) for stage in graph.stages]
        for task in self._tasks:
            task.reach = self._reach(task)
        self._inputs: list[tuple[_Task, Inbox | None]] = []
        for task in self._tasks:
            if task.source:
                self._inputs.append((task, None))
            self._inputs.extend((task, inbox) for inbox in task.inboxes)

    # What the engine is made of

    def _open_places(self, stage: Stage) -> None:
        for operation in stage.operations:
            if operation.place:
                name = operation.place
                place = self._store.place(self._numbers[name], name, operation.step.state)  # type: ignore[union-attr]
                place.owns = self._owner_check(self.assignment)
                self._places[name] = place

    def _owner_check(self, assignment: Assignment) -> Callable[[int], bool] | None:
        """Whether this worker owns a point; None if it owns all."""
        if assignment.workers == (self.worker,):
            return None
        return lambda point: assignment.owner(point) == self.worker

    def _source(self, node: SourceNode) -> _SourceInput:
        title = source_place(node.name)
        points = self._partitions[node.name]

        def point(key: str | bytes) -> int:
            return points[str(key)]

        place = self._store.place(self._numbers[title], title, dict, point)
        place.point = point  # there may be more partitions than at the last recovery
        return _SourceInput(node.name, place, listens=node.config.listens)

    def _connect(self, edge: Edge, other: int) -> None:
        """Make the two ends of an exchange with another worker that are here."""
        outbox = Outbox(edge, other, self._codec, lambda: self._wake(outbox))
        self.outboxes[edge.index, other] = outbox
        self.inboxes[edge.index, other] = Inbox(edge, other, local=False)

    def _task(self, stage: Stage) -> _Task:
        return _Task(
            stage,
            self.assignment,
            self._source(stage.source) if stage.source else None,
            [
                inbox
                for (index, _), inbox in self.inboxes.items()
                if self.graph.edges[index].receiver == stage.index
            ],
            [
                outbox
                for (index, _), outbox in self.outboxes.items()
                if self.graph.edges[index].sender == stage.index
            ],
            [self.inboxes[edge.index, self.worker] for edge in stage.edges],
            [self._sinks[index] for index in stage.sinks],
            passed=self._epoch,
        )

    def _reach(self, task: _Task) -> list[_Task]:
        reach = [task]
        for each in reach:
            for edge in each.stage.edges:
                receiver = self._tasks[edge.receiver]
                if edge.routed and receiver not in reach:
                    reach.append(receiver)
        return reach

    # The environment of generated code

    def live(self, place: str) -> dict[Any, Any]:
        """The entries at a place that were touched in this epoch; a first touch finds the rest."""
        return self._places[place].live

    @property
    def dead_letters(self) -> Callable[[Exception], None] | None:
        """Takes what a user's function raised; without it, that stops the batch."""
        return self.letters.take if self.letters else None

    def _routes(self, edge: Edge) -> Assignment:
        """By what the sender of an edge routes now."""
        return self._tasks[edge.sender].assignment

    def alone(self, edge: Edge) -> bool:
        """Whether this worker owns the whole hash interval, as far as events go by `edge`."""
        return self._routes(edge).workers == (self.worker,)

    def str_keys(self, edge: Edge) -> bool:
        """Whether to expect keys of an exchange to be str, else bytes."""
        return edge.index not in self._bytes_keys

    def odd_key(self, edge: Edge) -> Callable[[object], str | bytes]:
        """Makes a key that is not as expected a proper one, and notes what it is."""

        def odd(key: object) -> str | bytes:
            (self._bytes_keys.add if isinstance(key, bytes) else self._bytes_keys.discard)(
                edge.index
            )
            return normalize_key(key)

        return self._odd_keys.setdefault(edge.index, odd)

    def slot_shift(self, edge: Edge) -> int:
        """How far to shift a point to get its slot."""
        return self._routes(edge).slot_shift

    def forward(self, edge: Edge) -> Callable[[Any], None]:
        """Takes an event for the next stage of this worker."""
        return self.inboxes[edge.index, self.worker].values.append

    def sink(self, index: int) -> Callable[[Any], None]:
        """Takes what the encoder gave for a sink."""
        return self._sinks[index].values.append

    def table(self, edge: Edge, *, inline: bool) -> list[Callable[[Any], None] | None]:
        """By slot: takes an event for the slot's owner; None for this worker with `inline`."""
        table = self._tables.get((edge.index, inline))
        if table is None:
            assignment = self._routes(edge)
            local = None if inline else self.forward(edge)
            take = {
                worker: local
                if worker == self.worker
                else self.outboxes[edge.index, worker].values.append
                for worker in assignment.workers
            }
            boundary = self._boundary(edge, inline=inline)
            table = self._tables[edge.index, inline] = [
                boundary if owner is None else take[owner] for owner in assignment.slots
            ]
        return table

    def _boundary(self, edge: Edge, *, inline: bool) -> Callable[[Any], None]:
        """Takes an event of a slot in which a piece ends: looks closer."""
        receiver = self._tasks[edge.receiver]
        assignment = self._routes(edge)
        extractor = edge.extractor

        def take(value: Any) -> None:
            key = "" if extractor is None else normalize_key(extractor.function(value))
            owner = assignment.owner(hash_key(key))
            if owner != self.worker:
                self.outboxes[edge.index, owner].values.append(value)
            elif inline:
                # In turn with the events around it, which are inlined too.
                self._batch(receiver, edge).run([value])
            else:
                self.forward(edge)(value)

        return take

    # What the runtime calls

    def stored_position(self, source: str, partition: str) -> tuple[Any, bool]:
        """From where to read a partition of a source, and whether it has come to its end."""
        stored = self._input(source).stored(partition)
        position = stored.get("position")
        return self._codec.decode(position) if position else None, bool(stored.get("ended"))

    def read_from(self, source: str, partition: str, reader: SourceReader) -> None:
        """Read a partition of a source on this worker."""
        self._input(source).add(partition, reader)

    def _input(self, source: str) -> _SourceInput:
        for task in self._tasks:
            if task.source and task.source.name == source:
                return task.source
        raise KeyError(source)

    @property
    def ended_partitions(self) -> frozenset[tuple[str, str]]:
        """(source, partition) of what had ended here at the last barrier."""
        return frozenset(
            (task.source.name, partition)
            for task in self._tasks
            if task.source
            for partition in task.source.ended
        )

    @property
    def marks(self) -> tuple[dict[str, Any] | None, ...]:
        """Each sink's mark of the last epoch that it holds; dead letters come last."""
        return tuple(sink.mark for sink in self._sinks)

    def commit(self, epoch: int, done: Callable[[], None]) -> None:
        """`epoch` is committed: publish its output, then call `done`."""
        left = len(self._sinks)

        def published() -> None:
            nonlocal left
            left -= 1
            if not left:
                done()

        if not left:
            done()
        for sink in self._sinks:
            sink.writer.commit(epoch, published)

    def close(self, keep: Collection[SourceReader] = ()) -> None:
        """Let go of sources and sinks at once; but not of the readers to `keep`."""
        for task in self._tasks:
            if task.source:
                task.source.close(keep)
        for sink in self._sinks:
            sink.writer.close()
        for file in self._lines:
            linecache.cache.pop(file, None)

    def inject(self, barrier: Barrier) -> None:
        """Put a barrier behind what the sources have given so far."""
        if barrier.switch:
            self.held_back = 0.0
        for task in self._tasks:
            if task.source:
                task.source.pending = barrier

    @property
    def sources_ended(self) -> bool:
        """Whether all that is to be read here has been."""
        sources = [task.source for task in self._tasks if task.source]
        return not any(source.readers or source.awaiting for source in sources)

    @property
    def counters(self) -> Counters:
        """What has been done here so far."""
        found = sum((task.counters for task in self._tasks), self._start)
        return replace(found, dead=self.letters.count) if self.letters else found

    @property
    def progress(self) -> Counters:
        """What has been done here since the committed epoch from which it went on."""
        return self.counters - self._start

    @property
    def backlog(self) -> Backlog:
        """What waits here, about."""
        inboxes = self.inboxes.values()
        held = [len(events) for task in self._tasks for _, events in task.released]
        for task in self._tasks:
            if task.hold:
                held += map(len, task.hold.events.values())
        return Backlog(
            sum(inbox.size for inbox in inboxes if inbox.local),
            sum(held),
            sum(inbox.size for inbox in inboxes if not inbox.local),
            sum(outbox.size for outbox in self.outboxes.values()),
        )

    @property
    def cut(self) -> Counters:
        """What had been done here by the last barrier."""
        found = sum((task.cut for task in self._tasks), self._start)
        return replace(found, dead=self.letters.cut) if self.letters else found

    @property
    def keys(self) -> int:
        """How many state objects there are."""
        return self._store.keys

    def state(self, place: str) -> dict[Any, Any]:
        """The state objects at a place that are in memory, by key."""
        return dict(self._places[place].items())

    def step(self) -> bool:
        """Run one batch of one input, or let it pass a barrier; False if nothing can run.

        Raises `DataflowError`.
        """
        for task in self._tasks:
            if task.released and self._has_room(task):
                edge, events = task.released.popleft()
                self._run(task, edge, events, self._clock())
                return True
        count = len(self._inputs)
        for offset in range(count):
            turn = (self._turn + offset) % count
            task, inbox = self._inputs[turn]
            ran = self._read_source(task) if inbox is None else self._read_inbox(task, inbox)
            if ran:
                self._turn = turn + 1
                return True
        return False

    # Turns

    def _read_source(self, task: _Task) -> bool:
        source = task.source
        assert source is not None
        barrier = source.take_barrier()
        if barrier:
            self._pass(task, barrier)
            # In the same turn: the next barrier may be here before the next turn, again and again.
            self._read_events(task, source)
            return True
        return not self._gives_way(task) and self._read_events(task, source)

    def _read_events(self, task: _Task, source: _SourceInput) -> bool:
        # At the end sources are let go of, though memory is full: no commit comes before that.
        paused = self._store.over and not source.stopping
        if not source.readers or paused or not self._has_room(task):
            return False
        began = self._clock()
        events = source.read(task.limit)
        if not events:
            return bool(source.pending) and not source.readers
        task.read += len(events)
        self._run(task, source.decoder, events, began)
        return True

    def _read_inbox(self, task: _Task, inbox: Inbox) -> bool:
        if inbox.barrier or inbox.empty or task.released:
            return False
        if inbox.peek_barrier():
            barrier = inbox.barrier = inbox.take_barrier()
            # By streams with those that are to join, the first to come is a switch's.
            inputs = [each for each in task.inboxes if barrier.switch or not each.joining]
            if all(each.barrier for each in inputs):
                for each in inputs:
                    each.barrier = None
                self._pass(task, barrier)
            return True
        if not self._has_room(task):
            return False
        began = self._clock()
        size = inbox.size
        try:
            events = inbox.take_events(self._codec, task.limit)
        except CodecError as error:
            raise DataflowError(
                Failure(f"events from worker {inbox.sender} for {task.stage.name}: {error}")
            ) from error
        if not inbox.local:
            task.received += len(events)
        if task.hold:
            events = self._hold_back(task, task.hold, inbox, events, size)
        if events:
            self._run(task, inbox.edge, events, began)
        return True

    def _has_room(self, task: _Task) -> bool:
        if self.letters and not self.letters.has_room:
            return False
        return all(each.has_room for each in task.reach) and all(
            inbox.has_room for each in task.reach for inbox in each.locals
        )

    def _gives_way(self, task: _Task) -> bool:
        """Whether what waits in local inboxes is to go on before more comes.

        Something does so after a barrier. Only when it is gone the exchange can be inlined again;
        if as much came in each turn as goes, it would never be. But who always finds something
        there, put by others, has its turn now and then.
        """
        if task.gave_way < _WAY and any(
            inbox.edge.routed and not inbox.empty and not inbox.barrier
            for each in task.reach
            for inbox in each.locals
        ):
            task.gave_way += 1
            return True
        task.gave_way = 0
        return False

    def _pass(self, task: _Task, barrier: Barrier) -> None:
        """The stage is aligned: make its part of the cut, and put the barrier on all outputs."""
        for operation in task.stage.operations:
            if operation.place:
                self._freeze(operation.place)
        if task.source:
            try:
                task.source.freeze(self._codec.encode)
            except CodecError as error:
                raise position_refused(task.source.name, error) from error
        for inbox in task.locals:
            inbox.add_barrier(barrier)
        for outbox in task.outboxes:
            if outbox.joining and not barrier.switch:
                continue
            self._encoding(outbox, lambda outbox=outbox: outbox.add_barrier(barrier))  # type: ignore[misc]
        task.passed = barrier.epoch
        task.cut = task.counters
        if barrier.switch:
            self._switch(task)
        for sink in task.sinks:
            self._checkpoint(sink, barrier.epoch)
        if any(each.passed != barrier.epoch for each in self._tasks):
            return
        if self._next and barrier.switch:
            self.assignment, self._next = self._next, None
        self._passed(barrier)
        if self.letters:
            self._checkpoint(self._sinks[-1], barrier.epoch)
            self.letters.closed(barrier.epoch)
        if not self._sinks:
            self._held(barrier.epoch)

    def _freeze(self, name: str) -> None:
        place = self._places[name]
        place.freeze()
        for task in self._tasks:
            for batch in task.batches.values():
                batch.rebind(name, place.live)

    def _checkpoint(self, sink: _Sink, epoch: int) -> None:
        def held(mark: dict[str, Any] | None) -> None:
            sink.held, sink.mark = epoch, mark
            if all(each.held == epoch for each in self._sinks):
                self._held(epoch)

        sink.writer.checkpoint(epoch, held)

    # A switch to another assignment

    def enlist(self, new: Assignment, joiners: Collection[int]) -> list[tuple[int, int]]:
        """Get ready to switch to `new`: make the ends of streams to and from `joiners`.

        Returns where they are among `outboxes` and `inboxes`.
        """
        self._next = new
        made = []
        for edge in self.graph.edges:
            for other in sorted(joiners) if edge.routed else []:
                self._connect(edge, other)
                outbox, inbox = self.outboxes[edge.index, other], self.inboxes[edge.index, other]
                outbox.joining = inbox.joining = True
                made.append((edge.index, other))
                self._tasks[edge.sender].outboxes.append(outbox)
                receiver = self._tasks[edge.receiver]
                receiver.inboxes.append(inbox)
                self._inputs.append((receiver, inbox))
        return made

    def dismiss(self, workers: Collection[int]) -> list[tuple[int, int]]:
        """Forget the streams to and from workers; returns where they were."""
        gone = [key for key in self.outboxes if key[1] in workers]
        for key in gone:
            outbox, inbox = self.outboxes.pop(key), self.inboxes.pop(key)
            for task in self._tasks:
                if outbox in task.outboxes:
                    task.outboxes.remove(outbox)
                if inbox in task.inboxes:
                    task.inboxes.remove(inbox)
            self._inputs = [pair for pair in self._inputs if pair[1] is not inbox]
        return gone

    def give_up_switch(self, joiners: Collection[int]) -> list[tuple[int, int]]:
        """The switch does not come; returns where the streams were that it would have needed."""
        self._next = None
        return self.dismiss(joiners)

    def await_state(
        self, ranges: list[tuple[int, int, int]], awaited: Collection[tuple[int, int]]
    ) -> None:
        """Behind the switch, hold back events for keys whose state is still to come.

        ranges: [start, end) of points, and the donor. awaited: donor and number of the place of
        what has not ended yet; `arrived` says so later.
        """
        self._ranges = ranges
        self._awaited = set(awaited)

    def switch_done(self) -> None:
        """The switch is committed."""
        self._ranges = []

    def arrived(self, donor: int, number: int) -> None:
        """All is here that a donor had at a place."""
        self._awaited.discard((donor, number))
        for task in self._tasks:
            hold = task.hold
            if hold and donor in hold.awaited and not self._awaits(task, donor):
                hold.awaited.discard(donor)
                self._release(task, hold, donor)
            if task.source and task.source.awaiting:
                title = source_place(task.source.name)
                mine = self._numbers[title]
                if not any(place == mine for _, place in self._awaited):
                    task.source.awaiting = False
                    self._gained(task.source.name)

    def _awaits(self, task: _Task, donor: int) -> bool:
        """Whether a donor has not ended at one of a stage's places."""
        places = [each.place for each in task.stage.operations if each.place]
        return any((donor, self._numbers[place]) in self._awaited for place in places)

    def _switch(self, task: _Task) -> None:
        """A stage has passed the barrier: from here on the new assignment holds for it."""
        new = self._next
        assert new is not None
        old, task.assignment = task.assignment, new
        task.batches.clear()
        for edge in task.stage.edges:
            for inline in (False, True):
                self._tables.pop((edge.index, inline), None)
        for outbox in task.outboxes:
            outbox.joining = False
        for inbox in task.inboxes:
            inbox.joining = False
        # A leaver sends nothing any more, and gets nothing.
        task.outboxes = [each for each in task.outboxes if each.receiver in new.workers]
        task.inboxes = [each for each in task.inboxes if each.local or each.sender in new.workers]
        places = [operation.place for operation in task.stage.operations if operation.place]
        for place in places:
            self._places[place].owns = self._owner_check(new)
        if places:
            awaited = {donor for _, _, donor in self._ranges if self._awaits(task, donor)}
            task.hold = _Hold(self._ranges, awaited) if awaited else None
        source = task.source
        if source:
            points = self._partitions[source.name]
            lost = [
                name
                for name, point in points.items()
                if self.reads(source.name, name, old) and not self.reads(source.name, name, new)
            ]
            source.give_up(lost)
            mine = self._numbers[source_place(source.name)]
            source.awaiting = any(place == mine for _, place in self._awaited)
            if not source.awaiting and self._ranges:
                self._gained(source.name)

    def reads(self, source: str, partition: str, assignment: Assignment) -> bool:
        """Whether this worker reads a partition under an assignment."""
        node = next(each for each in self.graph.sources if each.name == source)
        if node.config.listens:
            return self._listens and self.worker in assignment.workers
        return assignment.owner(self._partitions[source][partition]) == self.worker

    def _hold_back(
        self, task: _Task, hold: _Hold, inbox: Inbox, events: list[Any], size: int
    ) -> list[Any]:
        """Keep the events of keys whose state is still to come; returns the others."""
        edge = inbox.edge
        weight = _EVENT if inbox.local else max(_EVENT, (size - inbox.size) // len(events))
        passing = []
        for event in events:
            donor = hold.donor(hash_key(self._key(edge, event)))
            if donor is None:
                passing.append(event)
                continue
            if donor not in hold.since:
                hold.since[donor] = self._clock()
            hold.events.setdefault(donor, []).append((edge, event))
            hold.size += weight
        return passing

    def _key(self, edge: Edge, event: Any) -> str | bytes:
        """The key of an event that comes by an edge."""
        if edge.keyed:
            return normalize_key(event[0])
        if edge.extractor is None:
            return ""
        try:
            return normalize_key(edge.extractor.function(event))
        except Exception:  # it fails again, and is explained, where it is used
            return ""

    def _release(self, task: _Task, hold: _Hold, donor: int) -> None:
        """What was held back for a donor is next, in its order."""
        if donor in hold.since:
            self.held_back = max(self.held_back, self._clock() - hold.since.pop(donor))
        for edge, event in hold.events.pop(donor, ()):
            last = task.released[-1] if task.released else None
            if last is not None and last[0] is edge and len(last[1]) < BATCH:
                last[1].append(event)
            else:
                task.released.append((edge, [event]))
        if not hold.awaited:
            task.hold = None

    # Batches

    def _batch(self, task: _Task, entry: Edge | Decoder[Any] | None) -> Batch:
        """The function for what comes in by an edge, or from the source with its decoder."""
        inline = frozenset(
            inbox.edge.index
            for each in task.reach
            for inbox in each.locals
            # Its values: what the batch at hand has left there, if this one runs inside it.
            if inbox.edge.routed and inbox.empty and not inbox.values and not inbox.barrier
            if not self._tasks[inbox.edge.receiver].holding
        )
        key = (id(entry), inline, frozenset(self._bytes_keys))
        batch = task.batches.get(key)
        if batch is None:
            batch = task.batches[key] = generate(self.graph, task.stage, entry, self, inline)
            self._lines[batch.file] = batch.lines
        return batch

    def _run(
        self, task: _Task, entry: Edge | Decoder[Any] | None, events: list[Any], began: float
    ) -> None:
        batch = self._batch(task, entry)
        if self.letters:
            self.letters.epoch = task.passed + 1
        try:
            batch.run(events)
        except BaseException as error:  # whatever a user's function raises, the application stops
            raise explain(error, self._lines) from error
        for each in task.reach:
            for inbox in each.locals:
                inbox.settle()
            for outbox in each.outboxes:
                if outbox.values:
                    self._encoding(outbox, outbox.settle)
            for sink in each.sinks:
                if sink.values:
                    self._write(sink)
        took = self._clock() - began
        if took > SLICE:
            task.limit = max(1, int(len(events) * SLICE / took))
        elif took < SLICE / 4 and task.limit < BATCH:
            task.limit *= 2

    def _write(self, sink: _Sink) -> None:
        encoder = self.graph.sinks[self._sinks.index(sink)].encoder
        if encoder is not None and not _WRITABLE.issuperset(map(type, sink.values)):
            value = next(value for value in sink.values if type(value) not in _WRITABLE)
            raise DataflowError(
                Failure(
                    f"{encoder.title} returned {shorten(value)}: an encoder returns bytes, str "
                    "or None",
                    step=encoder.title,
                )
            )
        sink.written += len(sink.values)
        try:
            sink.writer.write(sink.values)
        except UnicodeEncodeError as error:
            step = encoder.title if encoder else "sink"
            raise DataflowError(
                Failure(
                    f"{step} returned {shorten(error.object)}, which has no UTF-8 ({error.reason})",
                    step=step,
                )
            ) from error
        sink.values.clear()

    def _encoding(self, outbox: Outbox, encode: Callable[[], None]) -> None:
        try:
            encode()
        except CodecError as error:
            raise self.unencodable(outbox, error) from error

    def unencodable(self, outbox: Outbox, error: CodecError) -> DataflowError:
        """The failure that an outbox's `CodecError` stands for."""
        step = " or ".join(self.graph.makers(self.graph.stages[outbox.edge.sender]))
        event = ""
        for value in outbox.values:
            try:
                self._codec.encode_block([value])
            except CodecError:
                event = shorten(value)
                break
        return DataflowError(
            Failure(
                f"{step} made an event that can't be sent to worker {outbox.receiver}: {error}",
                step=step,
                event=event,
            )
        )
