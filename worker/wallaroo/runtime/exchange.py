"""Streams over gRPC: from each outbox to the inbox at its other end.

They carry exchanges, and what donors send receivers in a rescale. Each stream has a connection of
its own: that one which is not read holds up no other then rests on nothing that HTTP/2 has a choice
about.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import grpc
import grpc.aio

from wallaroo.dataflow.barrier import Barrier
from wallaroo.dataflow.exchange import LARGEST, Outbox
from wallaroo.runtime.attempt import Incoming, Outgoing
from wallaroo.runtime.network import Network
from wallaroo.v1 import exchange_pb2 as pb
from wallaroo.v1 import exchange_pb2_grpc

#: Seconds between frames of a stream that hold less than a block: for the first stream of a worker,
#: and more for each other.
_FIRST, _OTHER = 0.0005, 0.001
#: Of all connections between exchanges.
OPTIONS = [
    # The largest event, and what goes with it.
    ("grpc.max_receive_message_length", 2 * LARGEST - 1),
    ("grpc.max_send_message_length", 2 * LARGEST - 1),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.so_reuseport", 0),
]


class Lost(Exception):
    """The stream from or to a worker has broken, which was opened for an attempt if not 0."""

    def __init__(self, worker: int, why: str, attempt: int) -> None:
        super().__init__(f"lost worker {worker}: {why}")
        self.worker = worker
        self.attempt = attempt


class Pace:
    """How often a worker sends less than a block of events: some 1,000 times a second in all.

    A frame costs both ends some 0.1 ms whatever it holds, and gRPC takes frames faster than the
    other end reads them. A sender that sends whenever it can would fill gRPC's buffers with small
    ones as soon as the other end is a little slower, and never learn that it should send larger.
    """

    def __init__(self) -> None:
        #: How many streams send events.
        self.streams = 0

    @property
    def interval(self) -> float:
        """Seconds from one such frame of a stream to its next."""
        return _FIRST + _OTHER * (self.streams - 1)


class Sender:
    """Carries an outbox's frames to the worker at the other end of `channel`, which is its own."""

    def __init__(
        self,
        outbox: Outgoing,
        sender: int,
        generation: int,
        attempt: int,
        channel: grpc.aio.Channel,
        pace: Pace,
        room: Callable[[], None],
    ) -> None:
        self.outbox = self._outbox = outbox
        self.attempt = attempt
        self._more = asyncio.Event()
        self._pace = pace
        #: When the next frame may be sent that holds little; whether that is waited for.
        self._next = 0.0
        self._pausing = False
        self._room = room
        self._open = pb.Open(
            generation=generation,
            channel=outbox.channel,
            sender=sender,
            receiver=outbox.receiver,
            attempt=attempt,
        )
        self._channel = channel
        self._call = exchange_pb2_grpc.ExchangeStub(channel).Send(wait_for_ready=True)

    def wake(self) -> None:
        """There is something to send."""
        if not (self._pausing and self._outbox.little):
            self._more.set()

    async def connect(self) -> None:
        """Return when the receiver has accepted the stream. Raises `Lost`."""
        try:
            await self._call.write(pb.Frame(open=self._open))
            if not await self._call.initial_metadata():
                await self._call  # it is refused: this says why
        except (grpc.RpcError, asyncio.InvalidStateError) as error:
            raise self._lost(error) from error

    async def run(self) -> None:
        """Send until a final barrier has been read. Raises `Lost`, and `CodecError`."""
        paced = isinstance(self._outbox, Outbox)
        self._pace.streams += paced
        try:
            await self._run()
        finally:
            self._pace.streams -= paced

    async def _run(self) -> None:
        outbox = self._outbox
        write = self._call.write
        try:
            while True:
                if outbox.little:
                    await self._pause()
                had_room = outbox.has_room
                taken = outbox.take()
                if taken is None:
                    self._more.clear()
                    await self._more.wait()
                elif isinstance(taken, Barrier):
                    barrier = pb.Barrier(epoch=taken.epoch, final=taken.final, switch=taken.switch)
                    await write(pb.Frame(barrier=barrier))
                    if taken.final:
                        await self._call.done_writing()
                        await self._call
                        return
                else:
                    if not had_room and outbox.has_room:
                        self._room()
                    await write(pb.Frame(events=pb.Events(blocks=taken)))
        except (grpc.RpcError, asyncio.InvalidStateError) as error:
            raise self._lost(error) from error

    async def _pause(self) -> None:
        """Wait until the next frame may be sent, or there is enough for one that need not wait."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._next:
            self._pausing = True
            self._more.clear()
            timer = loop.call_at(self._next, self._more.set)
            await self._more.wait()
            timer.cancel()
            self._pausing = False
        self._next = loop.time() + self._pace.interval

    def _lost(self, error: Exception) -> Lost:
        why = error.details() if isinstance(error, grpc.aio.AioRpcError) else str(error)
        return Lost(self._outbox.receiver, why or "the stream broke", self.attempt)

    async def close(self) -> None:
        await self._channel.close()


class Receiver(exchange_pb2_grpc.ExchangeServicer):
    """Takes the streams of other workers, those of one generation at a time.

    wake: called when an inbox has got something.
    lost: called, with the generation, when one of its streams breaks.
    """

    def __init__(
        self, worker: int, wake: Callable[[], None], lost: Callable[[int, Lost], None]
    ) -> None:
        self._worker = worker
        self._wake = wake
        self._lost = lost
        #: The last generation that was expected, and the last attempt in it; by (channel, sender)
        #: what takes its streams, and for which attempt; nothing takes them once it is over.
        self._generation = 0
        self._attempt = 0
        self._inboxes: dict[tuple[int, int], tuple[int, Incoming]] = {}
        self._changed = asyncio.Event()
        self._taken: dict[tuple[int, int], asyncio.Task[Any]] = {}

    async def serve(self, network: Network) -> grpc.aio.Server:
        """Start to listen."""
        self._network = network
        server = grpc.aio.server(options=OPTIONS)
        exchange_pb2_grpc.add_ExchangeServicer_to_server(self, server)
        network.listen(server, network.exchange)
        await server.start()
        return server

    def expect(
        self, generation: int, attempt: int, inboxes: Mapping[tuple[int, int], Incoming]
    ) -> None:
        """From now on take the streams of this generation, and of no other.

        attempt: if it is not 0, take these beside those of before.
        """
        if generation != self._generation or not attempt:
            self.close()
        self._generation, self._attempt = generation, attempt
        self._inboxes.update({key: (attempt, inbox) for key, inbox in inboxes.items()})
        self._changed.set()
        self._changed = asyncio.Event()

    def close(self, attempt: int | None = None) -> None:
        """Cut all streams, for the generation is over; or those of an attempt."""
        self._drop(
            key for key, (of, _) in self._inboxes.items() if attempt is None or of == attempt
        )

    def drop(self, workers: Collection[int]) -> None:
        """Let go of the streams of workers that need them no more."""
        self._drop(key for key in self._inboxes if key[1] in workers)

    def _drop(self, keys: Iterable[tuple[int, int]]) -> None:
        for key in list(keys):
            del self._inboxes[key]
            task = self._taken.pop(key, None)
            if task:
                task.cancel()

    async def Send(  # noqa: N802  gRPC's name
        self, requests: object, context: grpc.aio.ServicerContext
    ) -> pb.Received:
        self._network.met(context.peer())
        first = await context.read()
        inbox = await self._accept(first, context)
        generation, attempt = self._generation, first.open.attempt
        room = asyncio.Event()
        inbox.on_room = room.set
        try:
            await context.send_initial_metadata((("accepted", "yes"),))
            while True:
                frame = await context.read()
                if frame is grpc.aio.EOF:
                    raise Lost(inbox.sender, "it closed the stream", attempt)
                kind = frame.WhichOneof("kind")
                if kind == "events":
                    inbox.add(frame.events.blocks)
                    self._wake()
                    while not inbox.has_room:
                        room.clear()
                        await room.wait()
                elif kind == "barrier":
                    barrier = frame.barrier
                    inbox.add_barrier(Barrier(barrier.epoch, barrier.final, barrier.switch))
                    self._wake()
                    if barrier.final:
                        key = first.open.channel, inbox.sender
                        if self._taken.get(key) is asyncio.current_task():  # else it is of another
                            del self._taken[key], self._inboxes[key]
                        return pb.Received()
                else:
                    raise Lost(inbox.sender, f"it sent a frame of kind {kind!r}", attempt)
        except Lost as error:
            if asyncio.current_task() in self._taken.values():  # else it is needed no more
                self._lost(generation, error)
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except asyncio.CancelledError:
            if asyncio.current_task() in self._taken.values():
                self._lost(generation, Lost(inbox.sender, "its stream broke", attempt))
                raise
            # gRPC does not tell the sender of what is cancelled here.
            await context.abort(grpc.StatusCode.ABORTED, f"generation {generation} is over")
        raise AssertionError("abort returned")

    async def _accept(self, first: object, context: grpc.aio.ServicerContext) -> Incoming:
        """The inbox that the stream is for; refuses a stream that nobody expects."""
        if not isinstance(first, pb.Frame) or first.WhichOneof("kind") != "open":
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT, "the first frame must open the stream"
            )
            raise AssertionError("abort returned")
        opened = first.open
        # Ruling 1: one of a later generation, or attempt, waits unread.
        while (opened.generation, opened.attempt) > (self._generation, self._attempt):
            await self._changed.wait()
        if opened.generation != self._generation or opened.receiver != self._worker:
            await context.abort(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"this is worker {self._worker} in generation {self._generation}, not worker "
                f"{opened.receiver} in generation {opened.generation}",
            )
        key = (opened.channel, opened.sender)
        attempt, inbox = self._inboxes.get(key, (0, None))
        if inbox is None or attempt != opened.attempt or key in self._taken:
            await context.abort(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"worker {self._worker} expects no stream {opened.channel} from worker "
                f"{opened.sender} in attempt {opened.attempt}",
            )
        assert inbox is not None
        task = asyncio.current_task()
        assert task is not None
        self._taken[key] = task
        return inbox
