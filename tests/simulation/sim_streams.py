"""Streams between workers: as `wallaroo.runtime.exchange`, without gRPC.

Each carries frames in order, slowly, and may break at any moment, of which its two ends learn each
at a time of its own. The receiver takes the streams of the generation that it expects, once each:
what an older one carries is refused whenever it arrives, a newer one waits.
"""

from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from tests.simulation.sim_scheduler import Violation

from wallaroo.dataflow.barrier import Barrier
from wallaroo.dataflow.engine import Engine
from wallaroo.dataflow.exchange import Inbox, Outbox

if TYPE_CHECKING:
    from tests.simulation.sim_process import Process

Frame = list[bytes] | Barrier


class Stream:
    """From an outbox of `sender` to worker `outbox.receiver`."""

    def __init__(self, sender: "Process", generation: int, outbox: Outbox) -> None:
        self.sender = sender
        self.generation = generation
        self.outbox = outbox
        self.key = (outbox.edge.index, sender.worker)
        self.receiver: Process | None = None
        self.cut = False
        #: Seconds by which what is on its way when it is cut is late.
        self.late = 0.0
        #: The final barrier has come.
        self.done = False
        self.flying: deque[Frame] = deque()
        #: Frames that were sent and not read: HTTP/2 lets through so much.
        self.unread = 0
        self.window = sender.scheduler.random.choice((1, 2, 4))
        self._scheduler = sender.scheduler

    def __str__(self) -> str:
        return f"{self.generation}:{self.sender.worker}-{self.outbox.receiver}#{self.key[0]}"

    def delay(self) -> float:
        """Seconds that a frame is under way."""
        return self._scheduler.delay(self.sender.cluster.scenario.exchange_delay)

    def connect(self) -> None:
        """Ask the receiver to take it."""
        self._scheduler.after(self.delay(), self._arrive)

    def _arrive(self) -> None:
        if self.cut or not self.sender.alive:
            return
        receiver = self.sender.cluster.living(self.outbox.receiver)
        if receiver is None:  # it is tried again: a receiver that restarts has its address
            self.connect()
            return
        self.receiver = receiver
        receiver.enter(lambda: receiver.receiver.accept(self))

    def accepted(self) -> None:
        """The receiver has taken it."""
        self._scheduler.after(
            self.delay(), lambda: self.sender.enter(lambda: self.sender.streams.connected(self))
        )

    def pump(self) -> None:
        """Send what the outbox has, as far as there is room on the way."""
        while not self.cut and self.unread < self.window:
            had_room = self.outbox.has_room
            frame = self.outbox.take()
            if frame is None:
                return
            if not isinstance(frame, Barrier) and not had_room and self.outbox.has_room:
                self.sender.wake()
            self.unread += 1
            self.flying.append(frame)
            self.sender.cluster.sent()
            self._scheduler.after(self.delay(), self._deliver)

    def _deliver(self) -> None:
        if self.late:
            self._scheduler.after(self.late, self._deliver_now)
        else:
            self._deliver_now()

    def _deliver_now(self) -> None:
        receiver = self.receiver
        if receiver is None or not self.flying:
            return
        frame = self.flying.popleft()
        receiver.enter(lambda: receiver.receiver.receive(self, frame))

    def was_read(self) -> None:
        """There is room on the way for another frame."""
        self._scheduler.after(self.delay(), lambda: self.sender.enter(self._more))

    def _more(self) -> None:
        self.unread -= 1
        if not self.cut:
            self.pump()

    def break_up(self, to_sender: float, to_receiver: float) -> None:
        """It is cut; each end learns of it after so many seconds, unless it has let go of it.

        Some of what is on its way still arrives.
        """
        if self.cut or self.done:
            self.cut = True
            return
        self.cut = True
        self._scheduler.log(f"stream {self} is cut")
        for _ in range(self._scheduler.random.randrange(len(self.flying) + 1)):
            self.flying.pop()
        if self._scheduler.chance(0.3):
            self.late = self._scheduler.delay(0.1)
        sender, receiver = self.sender, self.receiver
        peer = self.outbox.receiver
        self._scheduler.after(
            to_sender,
            lambda: sender.enter(lambda: sender.stream_lost(self.generation, peer)),
        )
        if receiver is not None:
            self._scheduler.after(
                to_receiver,
                lambda: receiver.enter(
                    lambda: receiver.stream_lost(self.generation, sender.worker)
                ),
            )


class Receiver:
    """Takes the streams of other workers, those of one generation at a time."""

    def __init__(self, process: "Process") -> None:
        self._process = process
        self.generation = 0
        self.inboxes: dict[tuple[int, int], Inbox] = {}
        self.taken: dict[tuple[int, int], Stream] = {}
        self._waiting: list[Stream] = []
        self._arrived: dict[tuple[int, int], deque[tuple[Stream, Frame]]] = {}

    def expects(self, generation: int) -> bool:
        """Whether to take what a stream of a generation carries."""
        return generation == self.generation

    def expect(self, generation: int, inboxes: dict[tuple[int, int], Inbox]) -> None:
        """From now on take the streams of this generation, and of no other."""
        self.close()
        self.generation = generation
        self.inboxes = inboxes
        waiting, self._waiting = self._waiting, []
        for stream in waiting:
            self.accept(stream)

    def close(self) -> None:
        """Cut all streams: the generation is over."""
        self.inboxes = {}
        self._arrived = {}
        taken, self.taken = self.taken, {}
        for stream in taken.values():
            stream.break_up(stream.delay(), stream.delay())

    def accept(self, stream: Stream) -> None:
        """A stream has come."""
        if stream.cut:
            return
        if stream.generation > self.generation:  # ruling 1: it waits unread
            self._waiting.append(stream)
            return
        inbox = self.inboxes.get(stream.key)
        if not self.expects(stream.generation) or inbox is None or stream.key in self.taken:
            self._process.scheduler.log(f"stream {stream} is refused")
            stream.break_up(stream.delay(), stream.delay())
            return
        self.taken[stream.key] = stream
        self._arrived[stream.key] = deque()
        stream.accepted()

    def receive(self, stream: Stream, frame: Frame) -> None:
        """A frame has come."""
        arrived = self._arrived.get(stream.key)
        if not self.expects(stream.generation) or arrived is None:
            return
        self._process.scheduler.log(f"frame {stream} {frame if type(frame) is Barrier else ''}")
        arrived.append((stream, frame))
        self._read(stream.key)

    def _read(self, key: tuple[int, int]) -> None:
        inbox, arrived = self.inboxes.get(key), self._arrived.get(key)
        if inbox is None or arrived is None:
            return
        inbox.on_room = lambda: self._process.later(0.0, lambda: self._read(key))
        while arrived and inbox.has_room:
            stream, frame = arrived.popleft()
            if stream.done:  # ruling 17
                raise Violation(f"something follows the final barrier on {stream}")
            if isinstance(frame, Barrier):
                inbox.add_barrier(frame)
                stream.done = frame.final
            else:
                inbox.add(frame)
            stream.was_read()
            self._process.wake()

    def die(self) -> None:
        """Its process is gone, and all its connections."""
        for stream in [*self.taken.values(), *self._waiting]:
            stream.break_up(stream.delay(), stream.delay())


class Streams:
    """The streams that start at one worker, of one generation at a time."""

    def __init__(self, process: "Process") -> None:
        self._process = process
        self.streams: dict[int, Stream] = {}
        self._missing: set[int] = set()
        self._opened: Callable[[], None] = lambda: None

    def open(
        self,
        generation: int,
        engine: Engine,
        addresses: Mapping[int, str],
        opened: Callable[[], None],
    ) -> None:
        """Connect the engine's outboxes; then call `opened`."""
        self.streams = {
            id(outbox): Stream(self._process, generation, outbox)
            for outbox in engine.outboxes.values()
        }
        self._missing = set(self.streams)
        self._opened = opened
        for stream in self.streams.values():
            assert stream.outbox.receiver in addresses
            stream.connect()
        if not self.streams:
            self._process.later(0.0, opened)

    def connected(self, stream: Stream) -> None:
        """A stream has been taken."""
        mine = id(stream.outbox)
        if stream.cut or self.streams.get(mine) is not stream or mine not in self._missing:
            return
        self._missing.remove(mine)
        if not self._missing:
            self._opened()
            for each in self.streams.values():
                each.pump()

    def wake(self, outbox: Outbox) -> None:
        """An outbox has something to send."""
        stream = self.streams.get(id(outbox))
        if stream and not self._missing:
            self._process.later(stream.delay() * 0.1, stream.pump)

    def close(self) -> None:
        """Cut them."""
        streams, self.streams = self.streams, {}
        for stream in streams.values():
            stream.break_up(stream.delay(), stream.delay())
