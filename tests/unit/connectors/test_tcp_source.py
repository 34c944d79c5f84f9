"""A TCP source: whole frames of many clients, none of whom can harm another."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from typing import Any

import pytest
from tests.unit.connectors.services import LoopServices, free_port, looped, until

import wallaroo
from wallaroo.connectors import tcp_source
from wallaroo.errors import InputError


@wallaroo.decoder(header_length=4, length_fmt=">i")
def decode(payload: bytes) -> bytes:
    return payload


def framed(*payloads: bytes) -> bytes:
    return b"".join(struct.pack(">i", len(payload)) + payload for payload in payloads)


class Source:
    """A source that listens, and what was read of it."""

    def __init__(self, services: LoopServices, **options: Any) -> None:
        self.port = free_port()
        config = wallaroo.TCPSourceConfig("lines", "127.0.0.1", self.port, decode, **options)
        self.reader: Any = config.open("lines", services)
        self.frames: list[bytes] = []

    async def connect(self) -> "Client":
        return Client(*await asyncio.open_connection("127.0.0.1", self.port))

    def read(self, limit: int = 1000) -> list[bytes]:
        frames: list[bytes] = self.reader.read(limit)
        self.frames += frames
        return frames

    async def until(self, condition: Callable[[], object]) -> None:
        """Read until `condition`."""

        def read_on() -> object:
            self.read()
            return condition()

        await until(read_on)

    async def until_frames(self, count: int) -> None:
        await self.until(lambda: len(self.frames) >= count)


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def closed(self) -> None:
        """Wait until the source has closed the connection."""
        with pytest.raises((EOFError, ConnectionError)):
            await self.reader.readexactly(1)

    def close(self) -> None:
        self.writer.close()


@looped
async def test_frames_come_as_payloads_in_order(services: LoopServices) -> None:
    source = Source(services)
    client = await source.connect()
    payloads = [b"a", b"", b"bc", bytes(range(256)), b"x" * 5000]
    await client.send(framed(*payloads))
    await source.until_frames(5)
    assert source.frames == payloads
    client.close()


@looped
async def test_the_dataflow_is_woken_when_a_frame_is_whole(services: LoopServices) -> None:
    source = Source(services)
    client = await source.connect()
    await client.send(framed(b"abc")[:-1])
    await until(lambda: any(len(each.data) == 6 for each in source.reader.clients))
    early = services.wakes
    await client.send(b"c")
    await until(lambda: services.wakes)
    assert early == 0
    assert source.read() == [b"abc"]
    client.close()


@looped
async def test_a_frame_may_come_byte_by_byte(services: LoopServices) -> None:
    source = Source(services)
    client = await source.connect()
    data = framed(b"first", b"", b"second")
    for sent, byte in enumerate(data, start=1):
        await client.send(bytes([byte]))

        def arrived(sent: int = sent) -> bool:
            unread = sum(len(each.data) for each in source.reader.clients)
            return sum(4 + len(frame) for frame in source.frames) + unread == sent

        await source.until(arrived)
    assert source.frames == [b"first", b"", b"second"]
    client.close()


@looped
async def test_frames_of_many_clients_all_come_each_clients_in_order(
    services: LoopServices,
) -> None:
    source = Source(services)
    clients = [await source.connect() for _ in range(40)]
    for number in range(25):
        for name, client in enumerate(clients):
            await client.send(framed(f"{name} {number}".encode()))
        source.read(7)
    await source.until_frames(40 * 25)
    by_client: dict[bytes, list[int]] = {}
    for frame in source.frames:
        sender, _, count = frame.partition(b" ")
        by_client.setdefault(sender, []).append(int(count))
    assert len(by_client) == 40
    assert all(numbers == list(range(25)) for numbers in by_client.values())
    for client in clients:
        client.close()


@looped
async def test_a_frame_larger_than_a_connections_room_comes(services: LoopServices) -> None:
    source = Source(services)
    client = await source.connect()
    payload = b"x" * (4 * tcp_source._ROOM)
    sending = asyncio.ensure_future(client.send(framed(payload, b"next")))
    await source.until_frames(2)
    await sending
    assert source.frames == [payload, b"next"]
    client.close()


@looped
async def test_what_a_client_sent_before_it_went_comes(services: LoopServices) -> None:
    source = Source(services)
    client = await source.connect()
    await client.send(framed(b"a", b"b"))
    client.close()
    await until(lambda: source.reader.ready and not source.reader.clients)
    assert source.read() == [b"a", b"b"]


@looped
async def test_a_frame_cut_short_by_its_client_is_dropped(services: LoopServices) -> None:
    source = Source(services)
    cut, other = await source.connect(), await source.connect()
    await cut.send(framed(b"whole", b"cut")[:-1])
    cut.close()
    await other.send(framed(b"other"))
    await source.until_frames(2)
    await until(lambda: len(source.reader.clients) == 1)
    assert sorted([*source.frames, *source.read()]) == [b"other", b"whole"]
    other.close()


BAD = {
    "negative": struct.pack(">i", -1),
    "huge": struct.pack(">i", 2**31 - 1),
    "one too large": struct.pack(">i", 101),
}


@pytest.mark.parametrize("header", BAD.values(), ids=BAD)
class TestALengthThatCannotBe:
    @looped
    async def test_closes_its_connection(self, header: bytes, services: LoopServices) -> None:
        source = Source(services, max_size=100)
        client = await source.connect()
        await client.send(header + b"rest")
        await client.closed()
        assert source.read() == []
        client.close()

    @looped
    async def test_harms_no_other_connection(self, header: bytes, services: LoopServices) -> None:
        source = Source(services, max_size=100)
        bad, good = await source.connect(), await source.connect()
        await good.send(framed(b"before"))
        await bad.send(header + b"rest")
        await bad.closed()
        await good.send(framed(b"after"))
        late = await source.connect()
        await late.send(framed(b"late"))
        await source.until_frames(3)
        assert sorted(source.frames) == [b"after", b"before", b"late"]
        for client in (bad, good, late):
            client.close()

    @looped
    async def test_behind_good_frames_leaves_them(
        self, header: bytes, services: LoopServices
    ) -> None:
        source = Source(services, max_size=100)
        client = await source.connect()
        await client.send(framed(b"a", b"b") + header + framed(b"never"))
        await source.until_frames(2)
        await client.closed()
        assert source.frames == [b"a", b"b"]
        assert source.read() == []
        client.close()


@looped
async def test_a_payload_of_exactly_the_largest_size_comes(services: LoopServices) -> None:
    source = Source(services, max_size=100)
    client = await source.connect()
    await client.send(framed(b"x" * 100))
    await source.until_frames(1)
    assert source.frames == [b"x" * 100]
    client.close()


class TestBackPressure:
    @looped
    async def test_a_client_waits_while_nothing_is_read(self, services: LoopServices) -> None:
        source = Source(services)
        client = await source.connect()
        total = 64 << 20
        sending = asyncio.ensure_future(client.send(framed(b"x" * 1020) * (total >> 10)))
        await until(lambda: any(each._paused for each in source.reader.clients))
        (connection,) = source.reader.clients
        for _ in range(100):
            await asyncio.sleep(0)
        assert len(connection.data) < 4 * tcp_source._ROOM
        assert not sending.done()
        await source.until_frames(total >> 10)
        await sending
        client.close()

    @looped
    async def test_other_clients_are_served_while_one_waits(self, services: LoopServices) -> None:
        source = Source(services, max_received_count=10)
        busy, other = await source.connect(), await source.connect()
        sending = asyncio.ensure_future(busy.send(framed(b"busy") * 200_000))
        await until(lambda: any(each._paused for each in source.reader.clients))
        await other.send(framed(b"other"))
        await until(lambda: len(source.reader.ready) == 2)
        assert b"other" in source.read(20), "the busy client's frames all come first"
        sending.cancel()
        for client in (busy, other):
            client.writer.transport.abort()

    @looped
    async def test_no_more_is_read_than_is_asked_for(self, services: LoopServices) -> None:
        source = Source(services)
        client = await source.connect()
        await client.send(framed(*[b"x"] * 100))
        await until(lambda: services.wakes)
        found = []
        while len(source.frames) < 100:
            found.append(len(source.read(7)))
            await asyncio.sleep(0)
        assert max(found) == 7
        client.close()


class TestStopping:
    @looped
    async def test_accepts_no_more_clients(self, services: LoopServices) -> None:
        """Ruling 31 of docs/protocol.md: it first stops accepting."""
        source = Source(services)
        (await source.connect()).close()
        source.reader.stop()
        await source.until(lambda: source.reader.ended)
        with pytest.raises(ConnectionError):
            await source.connect()

    @looped
    async def test_serves_its_clients_until_they_close(self, services: LoopServices) -> None:
        """Ruling 31 of docs/protocol.md."""
        source = Source(services)
        client = await source.connect()
        await client.send(framed(b"before"))
        await source.until_frames(1)
        source.reader.stop()
        await client.send(framed(b"after"))
        await source.until_frames(2)
        client.close()
        await source.until(lambda: source.reader.ended)
        assert source.frames == [b"before", b"after"]

    @looped
    async def test_closes_a_client_that_is_quiet(self, services: LoopServices) -> None:
        source = Source(services)
        client = await source.connect()
        await client.send(framed(b"a"))
        await source.until_frames(1)
        source.reader.stop()
        await source.until(lambda: source.reader.ended)
        await client.closed()
        client.close()

    @looped
    async def test_has_ended_only_when_all_that_came_is_read(self, services: LoopServices) -> None:
        source = Source(services)
        client = await source.connect()
        await client.send(framed(b"a", b"b"))
        await until(lambda: source.reader.ready)
        client.close()
        source.reader.stop()
        await until(lambda: source.reader._stopped)
        assert source.read(1) == [b"a"]
        assert not source.reader.ended
        assert source.read(1) == [b"b"]
        assert source.reader.ended

    @looped
    async def test_does_not_take_a_client_that_must_wait_for_a_quiet_one(
        self, services: LoopServices
    ) -> None:
        """What it has sent lies in the kernel, unread: closing would lose it."""
        source = Source(services)
        client = await source.connect()
        count = 40_000
        sending = asyncio.ensure_future(client.send(framed(b"x" * 96) * count))
        await until(lambda: any(each._paused for each in source.reader.clients))
        source.reader.stop()
        loop = asyncio.get_running_loop()
        later = loop.time() + 3 * tcp_source._QUIET
        await until(lambda: loop.time() > later)  # nothing is read for longer than a quiet time
        await source.until_frames(count)
        await sending
        client.close()
        await source.until(lambda: source.reader.ended)
        assert len(source.frames) == count


class Gone:
    """Whether a source has said that no client is left."""

    def __init__(self) -> None:
        self.said = 0

    def __call__(self) -> None:
        self.said += 1


async def lets_go(source: Source, *, grace: float = 0.0, patience: float = 60.0) -> Gone:
    """The worker of a source is about to leave; returns when clients know it."""
    gone = Gone()
    source.reader.let_go(grace, patience, gone)
    await until(lambda: not source.reader._listeners)
    return gone


class TestLettingGo:
    """Ruling 31 of docs/protocol.md, and ruling K8s 12."""

    @looped
    async def test_new_clients_come_for_a_while_and_then_no_more(
        self, services: LoopServices
    ) -> None:
        source = Source(services)
        (await source.connect()).close()
        gone = Gone()
        source.reader.let_go(0.3, 60.0, gone)
        client = await source.connect()
        await client.send(framed(b"late"))
        await until(lambda: not source.reader._listeners)
        with pytest.raises(ConnectionError):
            await source.connect()
        client.close()
        await source.until(lambda: gone.said)
        assert source.frames == [b"late"]

    @looped
    async def test_a_client_that_looks_is_told_and_loses_nothing(
        self, services: LoopServices
    ) -> None:
        source = Source(services)
        client = await source.connect()
        await client.send(framed(b"before"))
        gone = await lets_go(source)
        assert await client.reader.read() == b"", "the end of what it could read"
        await client.send(framed(b"after", b"cut")[:-1])
        await source.until_frames(2)
        assert not gone.said
        await client.send(b"t")
        client.close()
        await source.until(lambda: gone.said)
        assert source.frames == [b"before", b"after", b"cut"]
        assert (source.reader.lost, source.reader.connections) == (0, 0)

    @looped
    async def test_it_is_over_only_when_all_that_came_is_read(self, services: LoopServices) -> None:
        source = Source(services)
        client = await source.connect()
        await client.send(framed(b"a", b"b"))
        await until(lambda: source.reader.ready)
        gone = await lets_go(source)
        client.close()
        await until(lambda: not source.reader.clients)
        await asyncio.sleep(2 * tcp_source._LOOK)
        assert not gone.said
        assert source.read(1) == [b"a"]
        await source.until(lambda: gone.said)
        assert source.frames == [b"a", b"b"]

    @looped
    async def test_with_no_client_it_is_over_at_once(self, services: LoopServices) -> None:
        gone = await lets_go(Source(services))
        await until(lambda: gone.said)

    @looped
    async def test_a_client_that_stays_is_cut_off_and_what_is_lost_is_counted(
        self, services: LoopServices
    ) -> None:
        source = Source(services)
        client = await source.connect()
        await client.send(framed(b"whole", b"cut")[:-1])
        await until(lambda: source.reader.unread == 15)
        gone = await lets_go(source, patience=0.1)
        await source.until(lambda: gone.said)
        assert source.frames == [b"whole"], "whole frames that are here are read"
        assert source.reader.lost == 6
        await client.closed()
        client.close()

    @looped
    async def test_what_the_kernel_has_of_it_counts_too(self, services: LoopServices) -> None:
        source = Source(services)
        client = await source.connect()
        total = 1 << 20
        sending = asyncio.ensure_future(client.send(framed(b"x" * 1020) * (total >> 10)))
        await until(lambda: any(each._paused for each in source.reader.clients))
        (connection,) = source.reader.clients
        await until(lambda: connection.waiting)
        gone = await lets_go(source, patience=0.1)
        await until(lambda: not source.reader.clients)  # nothing has been read
        await source.until(lambda: gone.said)
        with contextlib.suppress(ConnectionError):
            await sending
        assert source.reader.lost
        assert source.reader.lost + 1024 * len(source.frames) <= total
        client.writer.transport.abort()

    @looped
    async def test_one_that_stays_after_all_listens_again(self, services: LoopServices) -> None:
        source = Source(services)
        client = await source.connect()
        gone = await lets_go(source, patience=0.2)
        source.reader.take_back()
        await client.send(framed(b"a"))
        other = await source.connect()
        await other.send(framed(b"b"))
        await source.until_frames(2)
        await asyncio.sleep(0.3)
        assert (gone.said, source.reader.connections) == (0, 2), "nobody is cut off"
        for each in (client, other):
            each.close()

    @looped
    async def test_one_that_stays_before_it_has_stopped_to_listen_goes_on(
        self, services: LoopServices
    ) -> None:
        source = Source(services)
        client = await source.connect()
        gone = Gone()
        source.reader.let_go(0.1, 0.0, gone)
        source.reader.take_back()
        await asyncio.sleep(0.2)
        (await source.connect()).close()
        await client.send(framed(b"a"))
        await source.until_frames(1)
        assert not gone.said
        client.close()

    @looped
    async def test_closing_meanwhile_counts_what_is_dropped(self, services: LoopServices) -> None:
        source = Source(services)
        client = await source.connect()
        await client.send(framed(b"whole", b"cut")[:-1])
        await until(lambda: source.reader.unread == 15)
        gone = await lets_go(source)
        source.reader.close()
        await client.closed()
        assert (source.reader.lost, gone.said) == (15, 0)
        client.close()


class TestClosing:
    @looped
    async def test_lets_go_of_port_and_clients(self, services: LoopServices) -> None:
        source = Source(services)
        clients = [await source.connect() for _ in range(3)]
        await clients[0].send(framed(b"whole", b"cut")[:-1])
        await until(lambda: source.reader.ready and len(source.reader.clients) == 3)
        source.reader.close()
        assert source.read() == []
        assert source.reader.ended
        for client in clients:
            await client.closed()
            client.close()
        await until(lambda: all(task.done() for task in services.tasks))
        with pytest.raises(ConnectionError):
            await source.connect()
        assert (source.read(), source.reader.ended) == ([], True)

    @looped
    async def test_says_when_its_successor_may_listen(self, services: LoopServices) -> None:
        source = Source(services)
        (await source.connect()).close()
        assert not source.reader.closing
        source.reader.close()
        assert source.reader.closing, "the port is still in use"
        wakes = services.wakes
        await until(lambda: not source.reader.closing)
        assert services.wakes > wakes
        source.reader.config.open("lines", services).close()

    @looped
    async def test_before_it_serves_lets_go_of_the_port(self, services: LoopServices) -> None:
        source = Source(services)
        source.reader.close()
        with pytest.raises(ConnectionError):
            await source.connect()
        await until(lambda: all(task.done() for task in services.tasks))

    @pytest.mark.parametrize("turns", range(6))
    @looped
    async def test_at_any_moment_leaves_nothing_open(
        self, turns: int, services: LoopServices
    ) -> None:
        source = Source(services)
        with socket.create_connection(("127.0.0.1", source.port)) as client:
            client.sendall(framed(b"a"))
            for _ in range(turns):
                await asyncio.sleep(0)
            source.reader.close()
            await until(lambda: all(task.done() for task in services.tasks))
            client.setblocking(False)
            with contextlib.suppress(ConnectionError):
                assert await asyncio.get_running_loop().sock_recv(client, 1) == b""
        assert source.read() == []

    @looped
    async def test_lets_the_port_be_used_again(self, services: LoopServices) -> None:
        source = Source(services)
        client = await source.connect()
        source.reader.close()
        await until(lambda: all(task.done() for task in services.tasks))
        config = source.reader.config
        reader = config.open("lines", services)
        other = await source.connect()
        await other.send(framed(b"again"))
        await until(lambda: reader.ready)
        assert reader.read(10) == [b"again"]
        client.close()
        other.close()


@looped
async def test_it_has_no_position(services: LoopServices) -> None:
    source = Source(services)
    client = await source.connect()
    await client.send(framed(b"a"))
    await source.until_frames(1)
    assert source.reader.position() is None
    client.close()


class TestListening:
    @looped
    async def test_on_a_port_in_use_is_refused_with_words(self, services: LoopServices) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            config = wallaroo.TCPSourceConfig("lines", "127.0.0.1", port, decode)
            with pytest.raises(
                InputError,
                match=rf"source 'lines': can't listen on 127\.0\.0\.1:{port}: Address already",
            ):
                config.open("lines", services)

    @pytest.mark.parametrize("host", ["no such host", "a..b", "x" * 70, "203.0.113.7"])
    @looped
    async def test_on_a_host_that_is_none_of_ours_is_refused_with_words(
        self, host: str, services: LoopServices
    ) -> None:
        config = wallaroo.TCPSourceConfig("lines", host, free_port(), decode)
        with pytest.raises(InputError, match="source 'lines': can't listen on "):
            config.open("lines", services)

    @looped
    async def test_by_name_works(self, services: LoopServices) -> None:
        port = free_port()
        config = wallaroo.TCPSourceConfig("lines", "localhost", port, decode)
        reader = config.open("lines", services)
        _, writer = await asyncio.open_connection("localhost", port)
        writer.write(framed(b"a"))
        await until(lambda: services.wakes)
        assert reader.read(10) == [b"a"]
        writer.close()
