"""Streams between workers: what is not expected is refused, and its sender told.

Ruling 1 of docs/protocol.md: a message of any other generation is not processed; an older one is
refused and its sender told, a newer one waits unread. Streams are opened anew for each generation.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from wallaroo.dataflow.barrier import Barrier
from wallaroo.dataflow.exchange import Inbox, Outbox
from wallaroo.dataflow.graph import Edge
from wallaroo.runtime.exchange import OPTIONS, Lost, Pace, Receiver, Sender
from wallaroo.runtime.network import Network
from wallaroo.state.allowlist import AllowList
from wallaroo.state.codec import BLOCK, Codec
from wallaroo.v1 import exchange_pb2 as pb
from wallaroo.v1 import exchange_pb2_grpc

WORKER, SENDER, CHANNEL, GENERATION = 0, 1, 7, 3
EDGE = Edge(CHANNEL, 0, 1, routed=True)
#: Seconds in which something would have happened if it could.
MOMENT = 0.1


def opening(
    *,
    generation: int = GENERATION,
    receiver: int = WORKER,
    channel: int = CHANNEL,
    attempt: int = 0,
) -> pb.Frame:
    return pb.Frame(
        open=pb.Open(
            generation=generation,
            channel=channel,
            sender=SENDER,
            receiver=receiver,
            attempt=attempt,
        )
    )


def events(*blocks: bytes) -> pb.Frame:
    return pb.Frame(events=pb.Events(blocks=blocks))


def barrier(*, final: bool, switch: bool = False) -> pb.Frame:
    return pb.Frame(barrier=pb.Barrier(epoch=1, final=final, switch=switch))


class Streams:
    """A receiver of worker 0 that expects generation 3, and streams to it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.inbox = Inbox(EDGE, SENDER, local=False)
        self.lost: list[tuple[int, int, int]] = []
        self.receiver: Receiver
        self.channel: grpc.aio.Channel

    def run(self, test: Callable[[], Awaitable[None]]) -> None:
        async def running() -> None:
            async with self._serving():
                await asyncio.wait_for(test(), 5)

        asyncio.run(running())

    @asynccontextmanager
    async def _serving(self) -> AsyncIterator[None]:
        self.receiver = Receiver(
            WORKER,
            lambda: None,
            lambda generation, error: self.lost.append((generation, error.attempt, error.worker)),
        )
        self.receiver.expect(GENERATION, 0, self.inboxes())
        server = await self.receiver.serve(Network(self.address, ""))
        async with grpc.aio.insecure_channel(self.address) as self.channel:
            yield
        await server.stop(None)

    def inboxes(self) -> dict[tuple[int, int], Inbox]:
        return {(CHANNEL, SENDER): self.inbox}

    def call(self, frames: Iterable[pb.Frame] | None = None) -> Any:
        """A stream; without frames, one to write to."""
        stub = exchange_pb2_grpc.ExchangeStub(self.channel)
        return stub.Send() if frames is None else stub.Send(iter(frames))

    async def result(self, call: Any) -> str:
        """What came of a stream: empty if it was received, else why not."""
        try:
            await call
        except grpc.aio.AioRpcError as error:
            return error.details() or str(error.code())
        except asyncio.CancelledError:
            return "cancelled"
        return ""

    def send(self, *streams: list[pb.Frame]) -> list[str]:
        """What came of streams one after the other."""
        results: list[str] = []

        async def test() -> None:
            for frames in streams:
                results.append(await self.result(self.call(frames)))

        self.run(test)
        return results

    def taken(self) -> list[Any]:
        return list(self.inbox._items)


@pytest.fixture
def streams(tmp_path: Path) -> Streams:
    return Streams(f"unix:{tmp_path / 's'}")


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  it is said by no event
        await asyncio.sleep(0.005)


def test_a_stream_brings_its_blocks_and_barriers_in_order(streams: Streams) -> None:
    assert streams.send(
        [opening(), events(b"a", b"b"), barrier(final=False), events(b"c"), barrier(final=True)]
    ) == [""]
    assert streams.taken() == [b"a", b"b", Barrier(1), b"c", Barrier(1, final=True)]
    assert streams.lost == []


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (lambda: opening(generation=2), "generation 3, not worker 0 in generation 2"),
        (lambda: opening(generation=0), "generation 3, not worker 0 in generation 0"),
        (lambda: opening(receiver=5), "this is worker 0 in generation 3, not worker 5"),
        (lambda: opening(channel=8), "expects no stream 8 from worker 1"),
        (lambda: events(b"a"), "the first frame must open the stream"),
        (pb.Frame, "the first frame must open the stream"),
    ],
)
def test_a_stream_that_nobody_expects_is_refused_unread(
    frame: Callable[[], pb.Frame], words: str, streams: Streams
) -> None:
    (why,) = streams.send([frame(), events(b"a")])
    assert words in why
    assert streams.inbox.empty
    assert streams.lost == [], "nothing is lost that was never there"


def test_a_stream_of_a_newer_generation_waits_unread_until_that_is_expected(
    streams: Streams,
) -> None:
    async def test() -> None:
        frames = [opening(generation=4), events(b"a"), barrier(final=True)]
        call = streams.call(frames)
        await asyncio.sleep(MOMENT)
        assert not call.done()
        assert streams.inbox.empty
        streams.inbox = Inbox(EDGE, SENDER, local=False)
        streams.receiver.expect(4, 0, streams.inboxes())
        assert await streams.result(call) == ""
        assert streams.taken() == [b"a", Barrier(1, final=True)]

    streams.run(test)


def test_a_stream_of_a_generation_that_is_skipped_is_refused(streams: Streams) -> None:
    async def test() -> None:
        call = streams.call([opening(generation=4), events(b"a")])
        await asyncio.sleep(MOMENT)
        streams.receiver.expect(5, 0, streams.inboxes())
        assert "in generation 5, not worker 0 in generation 4" in await streams.result(call)
        assert streams.inbox.empty

    streams.run(test)


def test_a_sender_that_goes_while_it_waits_leaves_nothing_behind(streams: Streams) -> None:
    async def test() -> None:
        call = streams.call([opening(generation=4), events(b"gone")])
        await asyncio.sleep(MOMENT)
        call.cancel()
        await asyncio.sleep(MOMENT)
        streams.receiver.expect(4, 0, streams.inboxes())
        frames = [opening(generation=4), events(b"a"), barrier(final=True)]
        assert await streams.result(streams.call(frames)) == ""
        assert streams.taken() == [b"a", Barrier(1, final=True)]

    streams.run(test)


def test_before_any_generation_is_expected_streams_wait(streams: Streams) -> None:
    async def test() -> None:
        receiver = Receiver(WORKER, lambda: None, lambda generation, error: None)
        server = await receiver.serve(Network(f"{streams.address}2", ""))
        async with grpc.aio.insecure_channel(f"{streams.address}2") as streams.channel:
            call = streams.call([opening(generation=1), events(b"a"), barrier(final=True)])
            await asyncio.sleep(MOMENT)
            assert not call.done()
            receiver.expect(1, 0, streams.inboxes())
            assert await streams.result(call) == ""
        await server.stop(None)

    streams.run(test)


class TestAGenerationThatIsOver:
    def test_takes_no_new_stream(self, streams: Streams) -> None:
        async def test() -> None:
            streams.receiver.close()
            why = await streams.result(streams.call([opening(), events(b"a")]))
            assert "expects no stream 7 from worker 1" in why
            assert streams.inbox.empty

        streams.run(test)

    @pytest.mark.parametrize("by", ["close", "expect"])
    def test_has_its_streams_cut_and_tells_their_senders(self, by: str, streams: Streams) -> None:
        async def test() -> None:
            call = streams.call()
            await call.write(opening())
            await call.write(events(b"a"))
            await until(lambda: not streams.inbox.empty)
            before = streams.inbox
            if by == "close":
                streams.receiver.close()
            else:
                streams.inbox = Inbox(EDGE, SENDER, local=False)
                streams.receiver.expect(4, 0, streams.inboxes())
            assert await streams.result(call) == "generation 3 is over"
            assert list(before._items) == [b"a"]
            assert streams.lost == [], "that is no fault"

        streams.run(test)

    def test_leaves_its_place_to_the_streams_of_the_next(self, streams: Streams) -> None:
        async def test() -> None:
            old = streams.call()
            await old.write(opening())
            await old.write(events(b"old"))
            await until(lambda: not streams.inbox.empty)
            streams.inbox = Inbox(EDGE, SENDER, local=False)
            streams.receiver.expect(4, 0, streams.inboxes())
            frames = [opening(generation=4), events(b"new"), barrier(final=True)]
            assert await streams.result(streams.call(frames)) == ""
            assert streams.taken() == [b"new", Barrier(1, final=True)]
            old.cancel()

        streams.run(test)

    def test_is_cut_while_it_waits_for_room(self, streams: Streams) -> None:
        async def test() -> None:
            call = streams.call()
            await call.write(opening())
            await call.write(events(b"x" * (1 << 21)))
            await call.write(events(b"never read"))
            await until(lambda: not streams.inbox.has_room)
            streams.receiver.close()
            assert await streams.result(call)
            assert len(streams.taken()) == 1

        streams.run(test)


def test_a_second_stream_from_the_same_sender_is_refused(streams: Streams) -> None:
    first, second = streams.send(
        [opening(), events(b"a"), barrier(final=True)], [opening(), events(b"b")]
    )
    assert first == ""
    assert "expects no stream" in second
    assert b"b" not in streams.taken()


def test_a_stream_that_ends_before_its_final_barrier_is_lost(streams: Streams) -> None:
    (why,) = streams.send([opening(), events(b"a"), barrier(final=False)])
    assert why == "lost worker 1: it closed the stream"
    assert streams.lost == [(GENERATION, 0, SENDER)]


def test_a_stream_that_is_opened_twice_is_lost(streams: Streams) -> None:
    (why,) = streams.send([opening(), opening()])
    assert "it sent a frame of kind 'open'" in why
    assert streams.lost == [(GENERATION, 0, SENDER)]


def test_a_stream_whose_sender_dies_is_lost(streams: Streams) -> None:
    async def test() -> None:
        call = streams.call()
        await call.write(opening())
        await call.write(events(b"a"))
        await until(lambda: not streams.inbox.empty)
        call.cancel()
        await until(lambda: bool(streams.lost))
        assert streams.lost == [(GENERATION, 0, SENDER)]

    streams.run(test)


class TestAnAttemptToRescale:
    """Its streams come beside those of the generation (rulings 15, 22 and 24)."""

    @staticmethod
    def expect(streams: Streams, attempt: int, sender: int = SENDER, channel: int = 8) -> Inbox:
        inbox = Inbox(EDGE, sender, local=False)
        streams.receiver.expect(GENERATION, attempt, {(channel, sender): inbox})
        return inbox

    def test_leaves_the_streams_of_the_generation_as_they_are(self, streams: Streams) -> None:
        async def test() -> None:
            before = streams.call()
            await before.write(opening())
            await before.write(events(b"a"))
            await until(lambda: not streams.inbox.empty)
            inbox = self.expect(streams, 1)
            frames = [opening(channel=8, attempt=1), events(b"x"), barrier(final=True)]
            assert await streams.result(streams.call(frames)) == ""
            assert list(inbox._items) == [b"x", Barrier(1, final=True)]
            await before.write(events(b"b"))
            await until(lambda: len(streams.taken()) == 2)
            assert streams.lost == []
            before.cancel()

        streams.run(test)

    def test_that_is_yet_to_come_has_its_streams_wait_unread(self, streams: Streams) -> None:
        async def test() -> None:
            frames = [opening(channel=8, attempt=2), events(b"x"), barrier(final=True)]
            call = streams.call(frames)
            await asyncio.sleep(MOMENT)
            assert not call.done()
            self.expect(streams, 1)
            await asyncio.sleep(MOMENT)
            assert not call.done()
            inbox = self.expect(streams, 2)
            assert await streams.result(call) == ""
            assert list(inbox._items) == [b"x", Barrier(1, final=True)]

        streams.run(test)

    def test_that_is_given_up_has_its_streams_cut_and_no_others(self, streams: Streams) -> None:
        async def test() -> None:
            before, of_attempt = streams.call(), streams.call()
            await before.write(opening())
            await before.write(events(b"a"))
            inbox = self.expect(streams, 1)
            await of_attempt.write(opening(channel=8, attempt=1))
            await of_attempt.write(events(b"x"))
            await until(lambda: not streams.inbox.empty and not inbox.empty)
            streams.receiver.close(1)
            assert await streams.result(of_attempt)
            await before.write(events(b"b"))
            await until(lambda: len(streams.taken()) == 2)
            assert streams.lost == [], "that is no fault"
            before.cancel()

        streams.run(test)

    @pytest.mark.parametrize("attempt", [0, 1])
    def test_that_is_over_has_no_streams_any_more(self, attempt: int, streams: Streams) -> None:
        async def test() -> None:
            self.expect(streams, 1)
            streams.receiver.close(1)
            self.expect(streams, 2)
            why = await streams.result(streams.call([opening(channel=8, attempt=attempt)]))
            assert f"expects no stream 8 from worker 1 in attempt {attempt}" in why

        streams.run(test)

    def test_says_what_its_streams_were_opened_for_when_one_breaks(self, streams: Streams) -> None:
        async def test() -> None:
            inbox = self.expect(streams, 3)
            call = streams.call()
            await call.write(opening(channel=8, attempt=3))
            await call.write(events(b"x"))
            await until(lambda: not inbox.empty)
            call.cancel()
            await until(lambda: bool(streams.lost))
            assert streams.lost == [(GENERATION, 3, SENDER)]

        streams.run(test)

    def test_lets_go_of_the_streams_of_a_leaver(self, streams: Streams) -> None:
        async def test() -> None:
            call = streams.call()
            await call.write(opening())
            await call.write(events(b"a"))
            await until(lambda: not streams.inbox.empty)
            streams.receiver.drop([SENDER])
            assert await streams.result(call)
            assert streams.lost == [], "that is no fault"

        streams.run(test)

    def test_a_barrier_says_that_it_is_that_of_a_switch(self, streams: Streams) -> None:
        frames = [opening(), barrier(final=False, switch=True), barrier(final=True)]
        assert streams.send(frames) == [""]
        assert streams.taken() == [Barrier(1, switch=True), Barrier(1, final=True)]


class TestASender:
    @staticmethod
    def of(
        streams: Streams, generation: int = GENERATION, pace: Pace | None = None
    ) -> tuple[Sender, Outbox]:
        outbox = Outbox(EDGE, WORKER, Codec(AllowList([])), lambda: sender.wake())  # noqa: PLW0108
        channel = Network("", "").to_worker(streams.address, OPTIONS)
        sender = Sender(outbox, SENDER, generation, 0, channel, pace or Pace(), lambda: None)
        return sender, outbox

    def test_is_connected_once_the_receiver_has_accepted_it(self, streams: Streams) -> None:
        async def test() -> None:
            sender, _ = self.of(streams, 4)
            connecting = asyncio.ensure_future(sender.connect())
            await asyncio.sleep(MOMENT)
            assert not connecting.done(), "the receiver is not there yet"
            streams.receiver.expect(4, 0, streams.inboxes())
            await connecting
            await sender.close()

        streams.run(test)

    def test_of_an_older_generation_is_told(self, streams: Streams) -> None:
        async def test() -> None:
            sender, _ = self.of(streams, 2)
            with pytest.raises(Lost, match="in generation 3, not worker 0 in generation 2"):
                await sender.connect()
            await sender.close()

        streams.run(test)

    def test_sends_until_the_final_barrier_has_been_read(self, streams: Streams) -> None:
        async def test() -> None:
            sender, outbox = self.of(streams)
            await sender.connect()
            running = asyncio.ensure_future(sender.run())
            for number in range(3):
                outbox.values.append(number)
                outbox.settle()
                await asyncio.sleep(0)
            outbox.add_barrier(Barrier(1))
            outbox.add_barrier(Barrier(2, final=True))
            await running
            *blocks, first, last = streams.taken()
            decode = Codec(AllowList([])).decode_block
            assert [value for block in blocks for value in decode(block)] == [0, 1, 2]
            assert (first, last) == (Barrier(1), Barrier(2, final=True))
            await sender.close()

        streams.run(test)

    @pytest.mark.parametrize("then", ["a block", "a barrier"])
    def test_waits_with_little_until_it_is_time_or_it_is_much(
        self, then: str, streams: Streams
    ) -> None:
        async def test() -> None:
            pace = Pace()
            sender, outbox = self.of(streams, pace=pace)
            await sender.connect()
            running = asyncio.ensure_future(sender.run())
            await asyncio.sleep(0)
            assert pace.streams == 1
            pace.streams = 1_000_000

            def give(*numbers: int) -> None:
                outbox.values.extend(numbers)
                outbox.settle()

            give(0)
            await until(lambda: len(streams.taken()) == 1)  # what is alone goes at once
            for number in range(1, 4):
                give(number)
                await asyncio.sleep(MOMENT / 10)
            await asyncio.sleep(MOMENT)
            assert len(streams.taken()) == 1
            if then == "a block":
                give(*range(4, BLOCK + 1))
                await until(lambda: len(streams.taken()) == 2)
                await asyncio.sleep(0)
            outbox.add_barrier(Barrier(1, final=True))
            await running
            _, rest, _ = streams.taken()
            decode = Codec(AllowList([])).decode_block
            assert decode(rest) == list(range(1, BLOCK + 1 if then == "a block" else 4))
            assert pace.streams == 999_999, "it counts no more"
            await sender.close()

        streams.run(test)

    def test_goes_on_when_it_is_time(self, streams: Streams) -> None:
        async def test() -> None:
            pace = Pace()
            sender, outbox = self.of(streams, pace=pace)
            await sender.connect()
            running = asyncio.ensure_future(sender.run())
            pace.streams = 20
            for number in range(4):
                outbox.values.append(number)
                outbox.settle()
                await asyncio.sleep(0.001)
            await until(lambda: len(streams.taken()) == 2)
            decode = Codec(AllowList([])).decode_block
            assert [decode(block) for block in streams.taken()] == [[0], [1, 2, 3]]
            running.cancel()
            await sender.close()

        streams.run(test)

    def test_whose_stream_is_cut_has_lost_the_receiver(self, streams: Streams) -> None:
        async def test() -> None:
            sender, outbox = self.of(streams)
            await sender.connect()
            running = asyncio.ensure_future(sender.run())
            await asyncio.sleep(0)
            streams.receiver.close()
            await asyncio.sleep(MOMENT)
            outbox.add_barrier(Barrier(1))
            with pytest.raises(Lost) as caught:
                await running
            assert caught.value.worker == WORKER
            await sender.close()

        streams.run(test)
