"""Streams between workers: what is not expected is refused, and its sender told."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import grpc
import grpc.aio
import pytest

from wallaroo.dataflow.exchange import Inbox
from wallaroo.dataflow.graph import Edge
from wallaroo.runtime.exchange import Lost, Receiver
from wallaroo.v1 import exchange_pb2 as pb
from wallaroo.v1 import exchange_pb2_grpc

WORKER, SENDER, EXCHANGE, GENERATION = 0, 1, 7, 3


def opening(
    *, generation: int = GENERATION, receiver: int = WORKER, exchange: int = EXCHANGE
) -> pb.Frame:
    return pb.Frame(
        open=pb.Open(generation=generation, exchange=exchange, sender=SENDER, receiver=receiver)
    )


def events(*blocks: bytes) -> pb.Frame:
    return pb.Frame(events=pb.Events(blocks=blocks))


def barrier(*, final: bool) -> pb.Frame:
    return pb.Frame(barrier=pb.Barrier(epoch=1, final=final))


class Streams:
    """A receiver of worker 0, and streams to it one after the other."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.inbox = Inbox(Edge(EXCHANGE, 0, 1, routed=True), SENDER, local=False)
        self.lost: list[Lost] = []

    def send(self, *streams: list[pb.Frame]) -> list[str]:
        """What came of each stream: empty if it was received, else why not."""
        return asyncio.run(self._send(streams))

    async def _send(self, streams: tuple[list[pb.Frame], ...]) -> list[str]:
        inboxes = asyncio.get_running_loop().create_future()
        inboxes.set_result({(EXCHANGE, SENDER): self.inbox})
        receiver = Receiver(WORKER, GENERATION, inboxes, lambda: None, self.lost.append)
        server = await receiver.serve(self.address)
        results = []
        async with grpc.aio.insecure_channel(self.address) as channel:
            for frames in streams:
                call = exchange_pb2_grpc.ExchangeStub(channel).Send(iter(frames))
                try:
                    await asyncio.wait_for(call, 30)
                    results.append("")
                except grpc.aio.AioRpcError as error:
                    results.append(error.details() or "")
        await server.stop(None)
        return results


@pytest.fixture
def streams(tmp_path: Path) -> Streams:
    return Streams(f"unix:{tmp_path / 's'}")


def test_a_stream_brings_its_blocks_and_barriers_in_order(streams: Streams) -> None:
    assert streams.send([opening(), events(b"a", b"b"), barrier(final=True)]) == [""]
    taken = list(streams.inbox._items)
    assert taken[:2] == [b"a", b"b"]
    assert streams.lost == []


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (lambda: opening(generation=2), "generation 3, not worker 0 in generation 2"),
        (lambda: opening(generation=4), "generation 3, not worker 0 in generation 4"),
        (lambda: opening(receiver=5), "this is worker 0 in generation 3, not worker 5"),
        (lambda: opening(exchange=8), "expects no stream of exchange 8 from worker 1"),
        (lambda: events(b"a"), "the first frame must open the stream"),
    ],
)
def test_a_stream_that_nobody_expects_is_refused_unread(
    frame: Callable[[], pb.Frame], words: str, streams: Streams
) -> None:
    """Ruling 1 of docs/protocol.md: a message of any other generation is not processed."""
    (why,) = streams.send([frame(), events(b"a")])
    assert words in why
    assert streams.inbox.empty


def test_a_second_stream_from_the_same_sender_is_refused(streams: Streams) -> None:
    first, second = streams.send(
        [opening(), events(b"a"), barrier(final=True)], [opening(), events(b"b")]
    )
    assert first == ""
    assert "expects no stream" in second
    assert b"b" not in streams.inbox._items


def test_a_stream_that_ends_before_its_final_barrier_is_lost(streams: Streams) -> None:
    (why,) = streams.send([opening(), events(b"a"), barrier(final=False)])
    assert why == "lost worker 1: it closed the stream"
    assert [error.worker for error in streams.lost] == [SENDER]


def test_a_stream_that_is_opened_twice_is_lost(streams: Streams) -> None:
    (why,) = streams.send([opening(), opening()])
    assert "it sent a frame of kind 'open'" in why
