"""A TCP sink: connects to its peer, waits for it with back-off, and connects again when cut.

What has been written is kept until the peer's kernel has acknowledged it (SIOCOUTQ says how much
it has not), and is sent again on a new connection: nothing is lost when the peer comes back,
though what it had received of the last frames may come twice. An epoch's checkpoint waits until
all that was written before it is acknowledged: what is committed has reached the peer.
"""

import array
import asyncio
import contextlib
import fcntl
import random
import socket
import sys
import termios
from collections import deque
from collections.abc import Callable
from typing import Any, Never, TypeVar

import structlog

from wallaroo.api.connectors import Services, SinkConfig, SinkWriter
from wallaroo.api.steps import Encoder
from wallaroo.connectors.tcp_source import check_port
from wallaroo.errors import WallarooParameterError

T = TypeVar("T", contravariant=True)

#: Bytes that may wait to be sent or acknowledged.
_ROOM = 1 << 22
#: Seconds between attempts to connect, first and most.
_BACKOFF, _BACKOFF_MOST = 0.05, 2.0
#: Seconds between looks at what is acknowledged.
_LOOK = 0.02

_log = structlog.get_logger("wallaroo.tcp_sink")


class TCPSinkConfig(SinkConfig[T]):
    r"""Connects to `host`:`port` from every worker and writes what `encoder` gives.

    >>> import wallaroo
    >>> @wallaroo.encoder
    ... def encode(word: str) -> str:
    ...     return word + "\n"
    >>> sink = wallaroo.TCPSinkConfig("127.0.0.1", "7002", encode)

    The peer may come later and may go away for a while: until it is back the sink keeps what it
    can, and its sources wait; a checkpoint waits for it too.

    Every output is sent at once, and at least once: after a crash those since the last checkpoint
    are sent again, perhaps in another order. Received means acknowledged by the peer's kernel; what
    the peer itself loses is not sent again.

    Raises `WallarooParameterError` if an argument is not what it should be.
    """

    def __init__(self, host: str, port: str | int, encoder: Encoder[T]) -> None:
        if not isinstance(host, str) or not host:
            raise WallarooParameterError(f"TCPSinkConfig: {host!r} is not a host")
        if not isinstance(encoder, Encoder):
            raise WallarooParameterError(
                f"TCPSinkConfig {host}:{port}: encoder must be decorated with @wallaroo.encoder, "
                f"not {encoder!r}"
            )
        self.host = host
        self.port = check_port(port, "TCPSinkConfig")
        self.encoder = encoder

    def open(self, services: Services, mark: dict[str, Any] | None = None) -> SinkWriter:
        writer = _Writer(self.host, self.port, services)
        services.spawn(writer.run())
        return writer


class _Writer(SinkWriter):
    def __init__(self, host: str, port: int, services: Services) -> None:
        self._host = host
        self._port = port
        self._name = f"sink {host}:{port}"
        self._services = services
        #: Frames to send, and frames sent but not known to be acknowledged, in order.
        self._unsent: deque[bytes] = deque()
        self._unacknowledged: deque[bytes] = deque()
        self._size = 0
        #: Bytes that were ever acknowledged, and how many must be for each waiting checkpoint.
        self._acknowledged = 0
        self._waiting: deque[tuple[int, Callable[[Any], None]]] = deque()
        self._more = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def write(self, batch: list[bytes | str]) -> None:
        for part in batch:
            frame = part.encode() if isinstance(part, str) else part
            if frame:
                self._unsent.append(frame)
                self._size += len(frame)
        self.has_room = self._size < _ROOM
        self._more.set()

    def checkpoint(self, epoch: int, done: Callable[[Any], None]) -> None:
        self._waiting.append((self._acknowledged + self._size, done))
        self._tell()

    def commit(self, epoch: int, done: Callable[[], None]) -> None:
        done()

    def close(self) -> None:
        self._closed = True
        self._unsent.clear()
        self._unacknowledged.clear()
        self._waiting.clear()
        if self._task:
            self._task.cancel()
        self._services.waiting(self._name, "")

    def _tell(self) -> None:
        """Tell the checkpoints before which all is acknowledged."""
        while self._waiting and self._waiting[0][0] <= self._acknowledged:
            _, done = self._waiting.popleft()
            done(None)

    async def run(self) -> None:
        self._task = asyncio.current_task()
        try:
            if not self._closed:
                await self._run()
        except asyncio.CancelledError:
            if not self._closed:
                raise

    async def _run(self) -> None:
        delay = _BACKOFF
        while True:
            try:
                connection = await self._connect()
            except OSError as error:
                self._services.waiting(self._name, f"can't connect: {_why(error)}")
                await asyncio.sleep(delay * random.uniform(0.5, 1))  # noqa: S311
                delay = min(2 * delay, _BACKOFF_MOST)
                continue
            delay = _BACKOFF
            self._services.waiting(self._name, "")
            with connection:
                try:
                    await self._send(connection)
                except OSError as error:
                    self._services.waiting(self._name, f"connection lost: {_why(error)}")
                    self._unsent.extendleft(reversed(self._unacknowledged))
                    self._unacknowledged.clear()

    async def _connect(self) -> socket.socket:
        loop = asyncio.get_running_loop()
        try:
            addresses = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        except UnicodeError as error:
            raise OSError(f"{self._host} is not a host's name ({error})") from None
        failed = OSError("no address")
        for family, kind, protocol, _, address in addresses:
            connection = socket.socket(family, kind, protocol)
            try:
                connection.setblocking(False)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                await loop.sock_connect(connection, address)
            except OSError as error:
                connection.close()
                failed = error
            except BaseException:
                connection.close()
                raise
            else:
                return connection
        raise failed

    async def _send(self, connection: socket.socket) -> Never:
        """Send until closed. Raises OSError when the connection is lost."""
        sent = 0
        known = 0  # acknowledged, of what was sent, as far as frames have been let go
        rest = memoryview(b"")
        while True:
            if not rest:
                rest = memoryview(self._next())
            if rest:
                # Not sock_sendall(): it returns only when a slow peer has taken the last of it,
                # and what comes after a checkpoint must not delay it.
                with contextlib.suppress(BlockingIOError):
                    count = connection.send(rest)
                    sent += count
                    rest = rest[count:]
            acknowledged = sent - _unacknowledged_bytes(connection)
            while self._unacknowledged and known + len(self._unacknowledged[0]) <= acknowledged:
                size = len(self._unacknowledged.popleft())
                known += size
                self._acknowledged += size
                self._size -= size
            self._tell()
            if not self.has_room and self._size < _ROOM:
                self.has_room = True
                self._services.wake()
            if rest or not self._unsent:
                await self._look_later(connection if rest else None)

    def _next(self) -> bytes:
        """Some whole frames, of those that are not sent yet."""
        frames = []
        size = 0
        while self._unsent and size < 1 << 17:
            frame = self._unsent.popleft()
            self._unacknowledged.append(frame)
            frames.append(frame)
            size += len(frame)
        return b"".join(frames)

    async def _look_later(self, blocked: socket.socket | None) -> None:
        """Wait for more to send, room in `blocked`, or the time to look what is acknowledged."""
        loop = asyncio.get_running_loop()
        self._more.clear()
        if blocked:
            loop.add_writer(blocked, self._more.set)
        try:
            async with asyncio.timeout(_LOOK if self._size else None):
                await self._more.wait()
        except TimeoutError:
            pass
        finally:
            if blocked:
                loop.remove_writer(blocked)


def _unacknowledged_bytes(connection: socket.socket) -> int:
    """What the peer's kernel has not acknowledged. Raises OSError if the connection is lost."""
    code = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, "connection lost")
    if sys.platform != "linux":  # no such ioctl: what the kernel took counts as acknowledged
        return 0
    count = array.array("i", [0])
    fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, count)  # SIOCOUTQ is the same number
    return count[0]


def _why(error: OSError) -> str:
    return error.strerror or str(error)
