"""A TCP sink: nothing that it was given is lost while its peers come and go."""

import asyncio
import functools
import socket
import struct
from typing import Any

import pytest
from tests.unit.connectors.services import LoopServices, free_port, looped, until

import wallaroo
from wallaroo.connectors import tcp_sink


@wallaroo.encoder
def encode(word: str) -> str:
    return word


class Sink:
    """A sink, and whether its final checkpoint is done."""

    def __init__(self, services: LoopServices, port: int, host: str = "127.0.0.1") -> None:
        self.writer: Any = wallaroo.TCPSinkConfig(host, port, encode).open(services)
        self.services = services
        self.finished = False

    def write(self, *frames: bytes | str) -> None:
        self.writer.write(list(frames))

    def finish(self) -> None:
        """Checkpoint, then close: a final barrier."""

        def done(mark: Any) -> None:
            assert mark is None
            self.finished = True
            self.writer.close()

        self.writer.checkpoint(1, done)

    def checkpoint(self, epoch: int, passed: list[int]) -> None:
        self.writer.checkpoint(epoch, lambda _: passed.append(epoch))


class Peer:
    """Listens at `port`, and keeps what each connection sent."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.received: list[bytearray] = []
        self.ended: list[bool] = []
        self._transports: list[asyncio.Transport] = []
        self._server: asyncio.Server | None = None

    async def listen(self) -> "Peer":
        self._server = await asyncio.get_running_loop().create_server(
            lambda: _PeerConnection(self), "127.0.0.1", self.port
        )
        return self

    async def go_away(self) -> None:
        """Cut all connections and listen no more."""
        if self._server:
            self._server.close()
            self._server = None
        for transport in self._transports:
            reset(transport.get_extra_info("socket"))
            transport.abort()
        self._transports.clear()
        await asyncio.sleep(0)

    @property
    def all(self) -> bytes:
        return b"".join(map(bytes, self.received))

    def ends_with(self, data: bytes) -> bool:
        return self.all.endswith(data)


class _PeerConnection(asyncio.Protocol):
    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._number = len(peer.received)
        peer.received.append(bytearray())
        peer.ended.append(False)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._peer._transports.append(transport)

    def data_received(self, data: bytes) -> None:
        self._peer.received[self._number] += data

    def connection_lost(self, exc: Exception | None) -> None:
        self._peer.ended[self._number] = True
        if self._transport in self._peer._transports:
            self._peer._transports.remove(self._transport)


def reset(connection: Any) -> None:
    """Make the connection end with a reset when it is closed."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def deaf_server() -> socket.socket:
    """Accepts, but takes hardly more than it is read."""
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
    server.bind(("127.0.0.1", 0))
    server.listen()
    server.setblocking(False)
    return server


@looped
async def test_frames_come_byte_for_byte_and_in_order(services: LoopServices) -> None:
    peer = await Peer(free_port()).listen()
    sink = Sink(services, peer.port)
    sink.write(b"a\n", "é\n", b"", "")
    sink.write(b"\x00\xff")
    await until(lambda: peer.all == b"a\n\xc3\xa9\n\x00\xff")
    await peer.go_away()


@looped
async def test_many_frames_come_over_one_connection(services: LoopServices) -> None:
    peer = await Peer(free_port()).listen()
    sink = Sink(services, peer.port)
    for start in range(0, 20_000, 500):
        sink.write(*(f"{number}\n" for number in range(start, start + 500)))
        await asyncio.sleep(0)
    sink.finish()
    await until(lambda: sink.finished and all(peer.ended))
    assert peer.all.split() == [str(number).encode() for number in range(20_000)]
    assert len(peer.received) == 1
    await peer.go_away()


class TestAnAbsentPeer:
    @looped
    async def test_is_waited_for_and_told(self, services: LoopServices) -> None:
        port = free_port()
        sink = Sink(services, port)
        sink.write("early\n")
        await until(lambda: services.waits)
        assert services.told[-1][0] == f"sink 127.0.0.1:{port}"
        assert services.waits.startswith("can't connect: ")

    @looped
    async def test_gets_everything_when_it_comes(self, services: LoopServices) -> None:
        port = free_port()
        sink = Sink(services, port)
        sink.write("early\n")
        await until(lambda: services.waits)
        peer = await Peer(port).listen()
        sink.write("late\n")
        await until(lambda: peer.all == b"early\nlate\n")
        assert services.waits == "", "it is told to be waited for still"
        await peer.go_away()

    @looped
    async def test_is_not_waited_for_when_there_is_nothing_to_send(
        self, services: LoopServices
    ) -> None:
        sink = Sink(services, free_port())
        sink.finish()
        await until(lambda: sink.finished)
        assert services.waits == ""

    @looped
    async def test_is_waited_for_at_the_end_when_there_is_something_to_send(
        self, services: LoopServices
    ) -> None:
        port = free_port()
        sink = Sink(services, port)
        sink.write("last\n")
        sink.finish()
        await until(lambda: len(services.told) >= 2)
        early = sink.finished
        peer = await Peer(port).listen()
        await until(lambda: sink.finished and all(peer.ended))
        assert not early
        assert peer.all == b"last\n"
        await peer.go_away()

    @pytest.mark.parametrize("host", ["no such host", "a..b", "x" * 70])
    @looped
    async def test_of_a_name_that_is_none_is_told(self, host: str, services: LoopServices) -> None:
        sink = Sink(services, 7002, host)
        sink.write("a\n")
        await until(lambda: services.waits)
        assert services.waits.startswith("can't connect: ")


class TestAPeerThatGoesAway:
    @looped
    async def test_gets_what_follows_when_it_is_back(self, services: LoopServices) -> None:
        """Ruling 30 of docs/protocol.md: unacknowledged frames are sent again."""
        peer = await Peer(free_port()).listen()
        sink = Sink(services, peer.port)
        written = 0
        for count in (1, 50, 3, 2000, 1):
            expected = written + count
            sink.write(*(f"{number}\n" for number in range(written, expected)))
            written = expected
            await until(functools.partial(peer.ends_with, f"{written - 1}\n".encode()))
            await peer.go_away()
            await peer.listen()
        sink.write("end\n")
        sink.finish()
        await until(lambda: sink.finished and all(peer.ended))
        assert peer.all.split() == [*(str(n).encode() for n in range(written)), b"end"]
        assert len(peer.received) > 1
        await peer.go_away()

    @looped
    async def test_is_told_while_it_is_away(self, services: LoopServices) -> None:
        peer = await Peer(free_port()).listen()
        sink = Sink(services, peer.port)
        sink.write("a\n")
        await until(lambda: peer.all == b"a\n")
        await peer.go_away()
        sink.write("b\n")
        await until(lambda: services.waits)
        assert services.waits.startswith(("connection lost: ", "can't connect: "))

    @looped
    async def test_without_having_acknowledged_is_sent_the_same_again(
        self, services: LoopServices
    ) -> None:
        """Ruling 30 of docs/protocol.md; it begins with a whole frame."""
        frames = [f"{number:09}\n".encode() * 100 for number in range(3000)]
        with deaf_server() as server:
            port = server.getsockname()[1]
            sink = Sink(services, port)
            sink.write(*frames)
            sink.finish()
            loop = asyncio.get_running_loop()
            connection, _ = await loop.sock_accept(server)
            await until(lambda: sink.writer._unacknowledged)
            reset(connection)
            connection.close()
            connection, _ = await loop.sock_accept(server)
            received = bytearray()
            with connection:
                while data := await loop.sock_recv(connection, 1 << 20):
                    received += data
        numbers = [int(line) for line in received.split()]
        first = numbers[0]
        assert first < 500, "what the first peer had not acknowledged is not sent again"
        assert numbers == [number for number in range(first, 3000) for _ in range(100)]
        await until(lambda: sink.finished)


class TestFinishing:
    @looped
    async def test_waits_until_the_peers_kernel_has_acknowledged_everything(
        self, services: LoopServices
    ) -> None:
        """Ruling 30 of docs/protocol.md: SIOCOUTQ is 0."""
        with deaf_server() as server:
            sink = Sink(services, server.getsockname()[1])
            sink.write(b"x" * 100_000)
            sink.write(*[b"y" * 1000] * 900)
            sink.finish()
            loop = asyncio.get_running_loop()
            connection, _ = await loop.sock_accept(server)
            with connection:
                connection.setblocking(False)
                await until(lambda: sink.writer._unacknowledged)
                count = 0
                while count < 500_000:
                    count += len(await loop.sock_recv(connection, 1 << 16))
                early = sink.finished
                while data := await loop.sock_recv(connection, 1 << 16):
                    count += len(data)
        await until(lambda: sink.finished)
        assert not early
        assert count == 1_000_000

    @looped
    async def test_closes_the_connection(self, services: LoopServices) -> None:
        peer = await Peer(free_port()).listen()
        sink = Sink(services, peer.port)
        sink.write("a\n")
        sink.finish()
        await until(lambda: peer.ended == [True])
        assert peer.all == b"a\n"
        await peer.go_away()


class TestACheckpoint:
    """Ruling 30 of docs/protocol.md."""

    @looped
    async def test_is_done_when_all_before_it_is_acknowledged(self, services: LoopServices) -> None:
        peer = await Peer(free_port()).listen()
        sink = Sink(services, peer.port)
        passed: list[int] = []
        for epoch in range(1, 20):
            sink.write(*(f"{epoch}\n" for _ in range(epoch)))
            sink.checkpoint(epoch, passed)
        assert passed == []
        await until(lambda: len(passed) == 19)
        assert passed == list(range(1, 20))
        await until(lambda: len(peer.all.split()) == sum(range(1, 20)))
        await peer.go_away()

    @looped
    async def test_of_nothing_is_done_at_once(self, services: LoopServices) -> None:
        sink = Sink(services, free_port())
        passed: list[int] = []
        sink.checkpoint(1, passed)
        assert passed == [1]

    @looped
    async def test_does_not_wait_for_what_is_written_after_it(self, services: LoopServices) -> None:
        with deaf_server() as server:
            sink = Sink(services, server.getsockname()[1])
            connection, _ = await asyncio.get_running_loop().sock_accept(server)
            with connection:
                passed: list[int] = []
                sink.write(b"before")
                sink.checkpoint(1, passed)
                while sink.writer.has_room:
                    sink.write(b"x" * 100_000)
                sink.checkpoint(2, passed)
                await until(lambda: passed)
                assert passed == [1]
                assert not sink.writer.has_room
                reset(connection)

    @looped
    async def test_is_done_while_a_later_write_is_stuck(self, services: LoopServices) -> None:
        """What is acknowledged is seen though the peer takes no more."""
        loop = asyncio.get_running_loop()
        with deaf_server() as server:
            sink = Sink(services, server.getsockname()[1])
            connection, _ = await loop.sock_accept(server)
            with connection:
                passed: list[int] = []
                sink.write(b"x" * 3_000_000)
                sink.checkpoint(1, passed)
                sink.write(*[b"y" * 1000] * 20_000)
                count = 0
                while count < 3_000_000:
                    data = await loop.sock_recv(connection, min(1 << 14, 3_000_000 - count))
                    count += len(data)
                await until(lambda: passed)
                assert sink.writer._unsent
                reset(connection)

    @looped
    async def test_waits_for_a_peer_that_is_absent(self, services: LoopServices) -> None:
        peer = Peer(free_port())
        sink = Sink(services, peer.port)
        passed: list[int] = []
        sink.write("a\n")
        sink.checkpoint(1, passed)
        await until(lambda: services.waits)
        early = list(passed)
        await peer.listen()
        await until(lambda: passed)
        assert early == []
        assert services.waits == ""
        await peer.go_away()

    @looped
    async def test_waits_for_a_peer_that_went_away(self, services: LoopServices) -> None:
        with deaf_server() as server:
            sink = Sink(services, server.getsockname()[1])
            loop = asyncio.get_running_loop()
            connection, _ = await loop.sock_accept(server)
            passed: list[int] = []
            sink.write(b"x" * 4_000_000)
            sink.checkpoint(1, passed)
            await until(lambda: sink.writer._unacknowledged)
            reset(connection)
            connection.close()
            connection, _ = await loop.sock_accept(server)
            early = list(passed)
            count = 0
            with connection:
                while count < 4_000_000:
                    count += len(await loop.sock_recv(connection, 1 << 20))
                await until(lambda: passed)
            assert early == []

    @looped
    async def test_that_is_committed_needs_no_more(self, services: LoopServices) -> None:
        sink = Sink(services, free_port())
        sink.write("a\n")
        committed: list[int] = []
        sink.writer.commit(1, lambda: committed.append(1))
        assert committed == [1]


class TestClosing:
    @looped
    async def test_ends_what_runs_for_it(self, services: LoopServices) -> None:
        sinks = [Sink(services, free_port()) for _ in range(3)]
        sinks[0].writer.close()  # before it has begun
        sinks[1].write("a\n")
        await until(lambda: services.waits)
        sinks[1].writer.close()
        assert services.waits == ""
        with deaf_server() as server:
            sinks[2].writer._port = server.getsockname()[1]
            connection, _ = await asyncio.get_running_loop().sock_accept(server)
            sinks[2].write(b"x" * 4_000_000)
            await until(lambda: sinks[2].writer._unacknowledged)
            sinks[2].writer.close()
            await until(lambda: all(task.done() for task in services.tasks))
            connection.close()
        assert not any(task.cancelled() for task in services.tasks)

    @looped
    async def test_drops_what_is_not_sent_and_its_checkpoints(self, services: LoopServices) -> None:
        peer = Peer(free_port())
        sink = Sink(services, peer.port)
        passed: list[int] = []
        sink.write("a\n")
        sink.checkpoint(1, passed)
        await until(lambda: services.waits)
        sink.writer.close()
        await peer.listen()
        later = asyncio.get_running_loop().time() + 0.2
        await until(lambda: asyncio.get_running_loop().time() > later)
        assert (passed, peer.received) == ([], [])
        await peer.go_away()


class TestRoom:
    @looped
    async def test_is_bounded_while_the_peer_is_absent(self, services: LoopServices) -> None:
        sink = Sink(services, free_port())
        written = 0
        while sink.writer.has_room:
            sink.write(b"x" * 100_000)
            written += 100_000
        assert tcp_sink._ROOM <= written < tcp_sink._ROOM + 200_000

    @looped
    async def test_is_there_again_when_the_peer_reads_and_the_dataflow_is_woken(
        self, services: LoopServices
    ) -> None:
        peer = Peer(free_port())
        sink = Sink(services, peer.port)
        while sink.writer.has_room:
            sink.write(b"x" * 100_000)
        before = services.wakes
        await peer.listen()
        await until(lambda: sink.writer.has_room)
        assert services.wakes > before
        await peer.go_away()

    @looped
    async def test_counts_what_is_not_acknowledged(self, services: LoopServices) -> None:
        """Sent is not enough: it is kept, to be sent again."""
        with deaf_server() as server:
            sink = Sink(services, server.getsockname()[1])
            connection, _ = await asyncio.get_running_loop().sock_accept(server)
            with connection:
                while sink.writer.has_room:
                    sink.write(b"x" * 100_000)
                    await asyncio.sleep(0)
                await until(lambda: sink.writer._unacknowledged)
                kept = sum(map(len, (*sink.writer._unsent, *sink.writer._unacknowledged)))
                reset(connection)
        assert kept > tcp_sink._ROOM // 2
