"""A TCP source: listens, and cuts what its clients send into frames.

Locally worker 0 listens for all, on Kubernetes each worker for itself. Each connection has a
bounded buffer; a full one is not read, so the client's own writes wait. Plain TCP cannot be read
again: what a connection had sent and the application had not read is lost if the application
crashes.

A worker that is about to leave stops to listen, and sends each client the end of its own direction:
who looks at its connection learns that it should close it and connect again, and loses nothing. Who
does not is cut off when the time for that is over; what it had sent unread is lost, and counted.
"""

import asyncio
import errno
import fcntl
import os
import socket
import struct
import termios
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar, cast, overload

import structlog

from wallaroo.api.connectors import WHOLE, Services, SourceConfig, SourceReader
from wallaroo.api.steps import Decoder
from wallaroo.errors import InputError, WallarooParameterError

T = TypeVar("T")

#: The largest payload, in bytes, unless the user says otherwise.
_MAX_SIZE = 1 << 24
#: Bytes that one connection may have unread, or as many as one whole frame.
_ROOM = 1 << 18
#: When the application stops: seconds of quiet after which a connection is closed, and the
#: longest that a busy one is still served.
_QUIET, _DRAIN = 0.2, 5.0
#: Seconds between looks at what is left of the connections of a worker that is to leave.
_LOOK = 0.05
#: Turns of the event loop without a new connection after which none is waiting to be let in.
_TURNS = 8

_log = structlog.get_logger("wallaroo.tcp_source")


def check_port(port: str | int, what: str) -> int:
    """`port` as an int. Raises `WallarooParameterError` if it is none."""
    try:
        number = int(port)
    except (TypeError, ValueError):
        number = -1
    if not 0 <= number <= 65535:
        raise WallarooParameterError(f"{what}: {port!r} is not a port")
    return number


class TCPSourceConfig(SourceConfig[T]):
    """Listens on `host`:`port` for any number of clients that send frames.

    >>> import wallaroo
    >>> @wallaroo.decoder(header_length=4, length_fmt=">I")
    ... def decode(payload: bytes) -> str:
    ...     return payload.decode("utf-8")
    >>> lines = wallaroo.source(
    ...     "lines", wallaroo.TCPSourceConfig("lines", "127.0.0.1", "7010", decode)
    ... )

    What a client has sent can't be read again: a crash loses what was received since the last
    checkpoint, so each frame counts at most once. A client that must not lose any needs an answer
    from further on. Connections outlive a recovery in which their worker did not fail.

    On Kubernetes every worker listens. One that is to leave sends its clients an end of file (of
    what they could read); those that then close and connect again lose nothing. Those that are
    still connected when the drain time-out has passed are cut off.

    max_size: the largest payload, in bytes; a client that announces more is cut off, and the
        application goes on.
    max_received_count: the most frames that one client hands over at a time.
    valid, parallelism: accepted for Wallaroo 0.6.1's sake; any number of clients is served.

    `TCPSourceConfig(host, port, decoder)`, without a name, is Wallaroo 0.6.1's form.
    Raises `WallarooParameterError` if an argument is not what it should be.
    """

    listens = True

    @overload
    def __init__(
        self,
        name: str,
        host: str,
        port: str | int,
        decoder: Decoder[T],
        valid: bool = True,
        parallelism: int = 10,
        max_size: int = _MAX_SIZE,
        max_received_count: int = 1000,
    ) -> None: ...

    @overload
    def __init__(
        self, host: str, port: str | int, decoder: Decoder[T], parallelism: int = 10
    ) -> None: ...

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        old = dict(zip(("host", "port", "decoder", "parallelism"), args, strict=False)) | kwargs
        if (
            isinstance(old.get("decoder"), Decoder)
            and "name" not in old
            and len(old) == (len(args) + len(kwargs))
        ):
            old["name"] = f"{old.get('host')}:{old.get('port')}"
            self._set(**old)
        else:
            self._set(*args, **kwargs)

    def _set(
        self,
        name: str,
        host: str,
        port: str | int,
        decoder: Decoder[T],
        valid: bool = True,
        parallelism: int = 10,
        max_size: int = _MAX_SIZE,
        max_received_count: int = 1000,
    ) -> None:
        what = f"TCPSourceConfig '{name}'"
        if not isinstance(host, str):
            raise WallarooParameterError(f"{what}: {host!r} is not a host")
        if not isinstance(decoder, Decoder):
            raise WallarooParameterError(
                f"{what}: decoder must be decorated with @wallaroo.decoder, not {decoder!r}"
            )
        for option, number in (("max_size", max_size), ("max_received_count", max_received_count)):
            if not isinstance(number, int) or number < 1:
                raise WallarooParameterError(f"{what}: {option} must be at least 1, not {number!r}")
        self.name = name
        self.host = host
        self.port = check_port(port, what)
        self.decoder = decoder
        self.max_size = max_size
        self.max_received_count = max_received_count

    def partitions(self) -> list[str]:
        return [WHOLE]

    def open(self, partition: str, services: Services, position: Any = None) -> SourceReader:
        reader = _Reader(self, services, self.listen())
        services.spawn(reader.serve())
        return reader

    def listen(self) -> list[socket.socket]:
        """On every address that the host has: localhost has two. Raises `InputError`."""
        listeners: list[socket.socket] = []
        try:
            for family, _, _, _, address in socket.getaddrinfo(
                self.host, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            ):
                try:
                    listeners.append(
                        socket.create_server(
                            cast("tuple[str, int]", address[:2]), family=family, backlog=1024
                        )
                    )
                except OSError as error:
                    if error.errno != errno.EADDRNOTAVAIL:  # a name for an address we lack
                        raise
            if not listeners:
                raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
        except (OSError, UnicodeError) as error:  # UnicodeError: the host is no name
            for listener in listeners:
                listener.close()
            why = error.strerror if isinstance(error, OSError) else None
            raise InputError(
                f"source '{self.name}': can't listen on {self.host}:{self.port}: {why or error}"
            ) from None
        return listeners


class _Reader(SourceReader):
    lasting = True

    def __init__(
        self, config: TCPSourceConfig[Any], services: Services, listeners: list[socket.socket]
    ) -> None:
        self.config = config
        self.decoder = config.decoder
        self.services = services
        self.ready: deque[_Connection] = deque()
        self.clients: set[_Connection] = set()
        self.accepted = 0
        self.closed = False
        self._listeners = listeners
        self._servers: list[asyncio.Server] = []
        self._stopping = asyncio.Event()
        self._stopped = False
        #: While clients are let go of: which time that is.
        self._letting_go: object | None = None

    @property
    def connections(self) -> int:
        return len(self.clients)

    @property
    def unread(self) -> int:
        return sum(client.unread for client in self.clients)

    async def listen(self) -> None:
        """Let clients in."""
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            if self.closed:
                break
            server = await loop.create_server(
                lambda: _Connection(self), sock=listener, start_serving=False
            )
            self._servers.append(server)  # before it serves, so that close() finds it
            await server.start_serving()

    async def serve(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await self.listen()
            await self._stopping.wait()
            await self._accept_rest()  # also when closed: asyncio would leave one half made open
            self._close_listeners()
            deadline = loop.time() + _DRAIN
            while self.clients and loop.time() < deadline:
                await asyncio.sleep(_QUIET / 4)
                for connection in list(self.clients):
                    if connection.quiet(loop.time() - _QUIET):
                        connection.close()
        finally:
            self._close_listeners()
            for connection in list(self.clients):
                connection.close()
            self._stopped = True
            self.closing = False
            self.services.wake()

    def _close_listeners(self) -> None:
        for server in self._servers:
            server.close()
        for listener in self._listeners:  # those that no server has taken
            listener.close()
        self._servers, self._listeners = [], []

    def let_go(self, grace: float, patience: float, done: Callable[[], None]) -> None:
        self._letting_go = this = object()
        self.services.spawn(self._let_go(this, grace, patience, done))

    async def _let_go(
        self, this: object, grace: float, patience: float, done: Callable[[], None]
    ) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(grace)
        if self._letting_go is not this:
            return
        await self._accept_rest()
        if self._letting_go is not this:
            return
        self._close_listeners()
        for client in list(self.clients):
            client.say_end()
        deadline = loop.time() + patience
        while self.clients or self.ready:
            if self._letting_go is not this:
                return
            if loop.time() >= deadline:
                for client in list(self.clients):
                    client.cut()
            await asyncio.sleep(_LOOK)
        done()

    def take_back(self) -> None:
        if self._letting_go is None:
            return
        self._letting_go = None
        if not self._listeners and not self._stopping.is_set():
            self._listeners = self.config.listen()
            self.services.spawn(self.listen())

    async def _accept_rest(self) -> None:
        """Let those in who had connected before the stop."""
        turns = 0
        before = self.accepted
        while turns < _TURNS:
            await asyncio.sleep(0)
            turns = turns + 1 if self.accepted == before else 0
            before = self.accepted

    def read(self, limit: int) -> list[Any]:
        frames: list[bytes] = []
        while self.ready and len(frames) < limit:
            connection = self.ready.popleft()
            frames += connection.take(min(limit - len(frames), self.config.max_received_count))
        self.ended = self._stopped and not self.ready
        return frames

    def stop(self) -> None:
        self._stopping.set()

    def close(self) -> None:
        self.closing = not self.closed and bool(self._servers)
        self.ended = self.closed = self._stopped = True
        self._stopping.set()
        self._letting_go = None
        if not self._servers:
            self._close_listeners()
        for connection in list(self.clients):
            connection.forget()
        for connection in self.ready:  # its client is gone, but what it has sent was still here
            connection.drop()
        self.ready.clear()


class _Connection(asyncio.Protocol):
    """One client. It is in the reader's `ready` while it may have whole frames."""

    def __init__(self, reader: _Reader) -> None:
        self._reader = reader
        self._header = reader.config.decoder.header
        self.data = bytearray()
        self._paused = False
        self._transport: asyncio.Transport | None = None
        self._peer = ""
        self._is_ready = False
        self._cut = False
        self._heard = asyncio.get_running_loop().time()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        # It has none if it is gone again already.
        self._peer = "{}:{}".format(*(transport.get_extra_info("peername") or ("?", 0))[:2])
        self._reader.clients.add(self)
        self._reader.accepted += 1
        if self._reader.closed:
            self.forget()

    def data_received(self, data: bytes) -> None:
        self._heard = asyncio.get_running_loop().time()
        self.data += data
        self._ready()
        if self._is_ready and len(self.data) >= _ROOM and self._transport:
            self._paused = True
            self._transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._reader.clients.discard(self)
        self._ready()
        self._check_rest()

    def quiet(self, since: float) -> bool:
        """Whether nothing has come `since` then, though it was read."""
        return not self._paused and self._heard < since

    def close(self) -> None:
        """Read no more of it; what it has sent is still taken."""
        if self._transport:
            self._transport.abort()
            self._reader.clients.discard(self)

    @property
    def unread(self) -> int:
        """Bytes that wait here, and in the kernel if none are taken from there."""
        return len(self.data) + (self.waiting if self._paused else 0)

    @property
    def waiting(self) -> int:
        """Bytes that the kernel has of it."""
        handle: Any = self._transport and self._transport.get_extra_info("socket")
        if handle is None or handle.fileno() < 0:
            return 0
        found = fcntl.ioctl(handle.fileno(), termios.FIONREAD, b"\0\0\0\0")
        return int(struct.unpack("i", found)[0])

    def say_end(self) -> None:
        """Tell the client that it should close the connection: nothing will come by it."""
        if self._transport and not self._transport.is_closing():
            self._transport.write_eof()

    def cut(self) -> None:
        """Read no more of it, though it sends; whole frames that are here are still taken."""
        lost = self.waiting
        self._reader.lost += lost
        self._cut = True
        _log.warning(
            "cut off a client that has not closed its connection",
            source=self._reader.config.name,
            client=self._peer,
            unread=lost,
        )
        self.close()
        self._check_rest()

    def forget(self) -> None:
        """Read no more of it, and drop what it has sent."""
        self._reader.lost += self.waiting
        self.drop()
        self.close()

    def drop(self) -> None:
        """Drop what it has sent."""
        self._reader.lost += len(self.data)
        self.data.clear()

    def _ready(self) -> None:
        if not self._is_ready and self._whole_frame():
            self._is_ready = True
            self._reader.ready.append(self)
            self._reader.services.wake()

    def _length(self, at: int) -> int:
        """Of the payload whose header is at `at`; -1 if it can't be accepted."""
        (length,) = self._header.unpack_from(self.data, at)
        if 0 <= length <= self._reader.config.max_size:
            return int(length)
        _log.warning(
            "refused a frame and closed its connection",
            source=self._reader.config.name,
            client=self._peer,
            length=length,
            max_size=self._reader.config.max_size,
        )
        self.data.clear()
        self.close()
        return -1

    def _whole_frame(self) -> bool:
        size = self._header.size
        if len(self.data) < size:
            return False
        length = self._length(0)
        return length >= 0 and len(self.data) >= size + length

    def take(self, limit: int) -> list[bytes]:
        """At most `limit` whole frames' payloads."""
        self._is_ready = False
        frames: list[bytes] = []
        size = self._header.size
        data = self.data
        view = memoryview(data)
        at = 0
        try:
            end = len(data)
            while len(frames) < limit and at + size <= end:
                (length,) = self._header.unpack_from(view, at)
                if not 0 <= length <= self._reader.config.max_size or at + size + length > end:
                    break
                frames.append(bytes(view[at + size : at + size + length]))
                at += size + length
        finally:
            view.release()
        del data[:at]
        self._ready()
        if self._paused and self._transport and (len(data) < _ROOM or not self._is_ready):
            self._paused = False
            self._heard = asyncio.get_running_loop().time()
            self._transport.resume_reading()
        self._check_rest()
        return frames

    def _check_rest(self) -> None:
        gone = self._transport is None or self._cut
        if gone and self.data and not self._is_ready:
            if self._cut:
                self._reader.lost += len(self.data)
            _log.warning(
                "a connection closed inside a frame, which is dropped",
                source=self._reader.config.name,
                client=self._peer,
                bytes=len(self.data),
            )
            self.data.clear()
