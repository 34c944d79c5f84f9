"""Streams between workers: as `wallaroo.runtime.exchange`, without gRPC.

Each carries frames in order, slowly, and may break at any moment, of which its two ends learn each
at a time of its own. The receiver takes the streams of the generation that it expects, once each:
what an older one carries is refused whenever it arrives, a newer one waits.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from tests.simulation.sim_scheduler import Violation

from wallaroo.dataflow.barrier import Barrier
from wallaroo.dataflow.exchange import Outbox
from wallaroo.runtime.attempt import Incoming, Outgoing
from wallaroo.state.codec import CodecError

if TYPE_CHECKING:
    from tests.simulation.sim_process import Process

Frame = list[bytes] | Barrier


class Stream:
    """From an outbox of `sender` to worker `outbox.receiver`."""

    def __init__(self, sender: "Process", generation: int, attempt: int, outbox: Outgoing) -> None:
        self.sender = sender
        self.generation = generation
        self.attempt = attempt
        self.outbox = outbox
        self.key = (outbox.channel, sender.worker)
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
        ends = f"{self.sender.worker}-{self.outbox.receiver}#{self.key[0]}"
        return f"{self.generation}.{self.attempt}:{ends}"

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
            self.delay(), lambda: self.sender.enter(lambda: self.sender.connected(self))
        )

    def pump(self) -> None:
        """Send what the outbox has, as far as there is room on the way."""
        while not self.cut and self.unread < self.window:
            had_room = self.outbox.has_room
            try:
                frame = self.outbox.take()
            except CodecError as error:
                assert self.sender.node
                assert isinstance(self.outbox, Outbox)
                self.sender.node.cannot_send(self.outbox, error)
                return
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
            lambda: sender.enter(lambda: sender.stream_lost(self, peer)),
        )
        if receiver is not None:
            self._scheduler.after(
                to_receiver,
                lambda: receiver.enter(lambda: receiver.stream_lost(self, sender.worker)),
            )


class Receiver:
    """Takes the streams of other workers, those of one generation at a time."""

    def __init__(self, process: "Process") -> None:
        self._process = process
        self.generation = 0
        self.attempt = 0
        self.inboxes: dict[tuple[int, int], tuple[int, Incoming]] = {}
        self.taken: dict[tuple[int, int], Stream] = {}
        self._waiting: list[Stream] = []
        self._arrived: dict[tuple[int, int], deque[tuple[Stream, Frame]]] = {}

    def expects(self, generation: int) -> bool:
        """Whether to take what a stream of a generation carries."""
        return generation == self.generation

    def holds(self, stream: Stream) -> bool:
        """Whether it has not let go of a stream that it took."""
        return self.taken.get(stream.key) is stream

    def expect(
        self, generation: int, attempt: int, inboxes: Mapping[tuple[int, int], Incoming]
    ) -> None:
        """From now on take the streams of this generation, or attempt in it."""
        if generation != self.generation or not attempt:
            self.close()
        self.generation, self.attempt = generation, attempt
        self.inboxes.update({key: (attempt, inbox) for key, inbox in inboxes.items()})
        waiting, self._waiting = self._waiting, []
        for stream in waiting:
            self.accept(stream)

    def close(self, attempt: int | None = None) -> None:
        """Cut all streams, for the generation is over; or those of an attempt."""
        self._drop(k for k, (of, _) in self.inboxes.items() if attempt is None or of == attempt)

    def drop(self, workers: Collection[int]) -> None:
        """Let go of streams that are needed no more."""
        self._drop(k for k in self.inboxes if k[1] in workers)

    def _drop(self, keys: Iterable[tuple[int, int]]) -> None:
        for key in list(keys):
            del self.inboxes[key]
            self._arrived.pop(key, None)
            stream = self.taken.pop(key, None)
            if stream:
                stream.break_up(stream.delay(), stream.delay())

    def accept(self, stream: Stream) -> None:
        """A stream has come."""
        if stream.cut:
            return
        # Ruling 1: one of a later generation, or attempt, waits unread.
        if (stream.generation, stream.attempt) > (self.generation, self.attempt):
            self._waiting.append(stream)
            return
        attempt, inbox = self.inboxes.get(stream.key, (0, None))
        expected = self.expects(stream.generation) and attempt == stream.attempt
        if not expected or inbox is None or stream.key in self.taken:
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
        _, inbox = self.inboxes.get(key, (0, None))
        arrived = self._arrived.get(key)
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
                if frame.final:
                    self.taken.pop(key, None)
                    self.inboxes.pop(key, None)
            else:
                inbox.add(frame)
            stream.was_read()
            self._process.wake()

    def die(self) -> None:
        """Its process is gone, and all its connections."""
        for stream in [*self.taken.values(), *self._waiting]:
            stream.break_up(stream.delay(), stream.delay())


class Streams:
    """The streams that start at one worker and were opened together."""

    def __init__(
        self,
        process: "Process",
        generation: int,
        attempt: int,
        outgoing: Sequence[Outgoing],
        addresses: Mapping[int, str],
        opened: Callable[[], None],
    ) -> None:
        self._process = process
        self.attempt = attempt
        self.streams = {
            id(outbox): Stream(process, generation, attempt, outbox) for outbox in outgoing
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

    def wake(self, outbox: Outgoing) -> None:
        """An outbox has something to send."""
        stream = self.streams.get(id(outbox))
        if stream and not self._missing:
            self._process.later(stream.delay() * 0.1, stream.pump)

    def close(self) -> None:
        """Cut them."""
        self.drop({stream.outbox.receiver for stream in self.streams.values()})

    def drop(self, workers: Collection[int]) -> None:
        """Cut those to some workers."""
        for key, stream in list(self.streams.items()):
            if stream.outbox.receiver in workers:
                del self.streams[key]
                self._missing.discard(key)
                stream.break_up(stream.delay(), stream.delay())
