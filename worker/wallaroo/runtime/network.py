"""Where a worker listens and how it reaches the others.

On one machine these are sockets in a private folder; pods have addresses of their own, and prove
by certificates that they belong together.
"""

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio

from wallaroo.runtime.certificates import CLIENT_OPTIONS, Certificates

Options = Sequence[tuple[str, Any]]

#: Of the connections to the coordinator: a message names every partition of every source, and
#: whoever looks before it listens looks again soon. The *minimum* is what gRPC grants an attempt to
#: connect: a worker that uses its core fully takes a while to answer.
CONTROL_OPTIONS = [
    ("grpc.max_receive_message_length", 1 << 28),
    ("grpc.max_send_message_length", 1 << 28),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 20_000),
    ("grpc.max_reconnect_backoff_ms", 500),
]


@dataclass(frozen=True)
class Network:
    """What one worker needs of it.

    exchange: where its exchanges listen, as others know it.
    coordinator: where the coordinator is found; in worker 0 where it listens.
    certificates: with which all connections are made; without, anybody may connect.
    """

    exchange: str
    coordinator: str
    certificates: Certificates | None = None

    @property
    def local(self) -> bool:
        """Whether all workers are on this machine, so that only files have to appear."""
        return self.coordinator.startswith("unix:")

    def to_coordinator(self, options: Options) -> grpc.Channel:
        """A new connection, to where its name leads now. Raises OSError if it leads nowhere."""
        address = self.coordinator
        if not self.local:
            # Not by gRPC: it remembers for too long where a name led, and how often it failed.
            address = _look_up(address)
            options = list({**dict(options), **dict(_ELSEWHERE)}.items())
        if self.certificates is None:
            return grpc.insecure_channel(address, options=options)
        credentials = self.certificates.client()
        return grpc.secure_channel(address, credentials, options=[*options, *CLIENT_OPTIONS])

    def to_worker(self, address: str, options: Options) -> grpc.aio.Channel:
        """A connection to another worker's exchanges."""
        if self.certificates is None:
            return grpc.aio.insecure_channel(address, options=options)
        credentials = self.certificates.client()
        return grpc.aio.secure_channel(address, credentials, options=[*options, *CLIENT_OPTIONS])

    def listen(self, server: grpc.Server | grpc.aio.Server, address: str) -> None:
        """Have a server listen. Raises RuntimeError if it can't."""
        if self.certificates is None:
            server.add_insecure_port(address)
        else:
            server.add_secure_port(address, self.certificates.server())

    def met(self, peer: str) -> None:
        """Somebody has called, and was let in."""
        if self.certificates:
            self.certificates.met(peer)


#: A connection to a machine that is gone ends within seconds, and so does an attempt to make one.
_ELSEWHERE = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.keepalive_time_ms", 5_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
]


def joined(host: str, port: int) -> str:
    """An address of a host and a port.

    >>> joined("10.0.0.7", 7711), joined("fd00::7", 7711)
    ('10.0.0.7:7711', '[fd00::7]:7711')
    """
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _look_up(address: str) -> str:
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    family, _, _, _, found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    scheme = "ipv6" if family == socket.AF_INET6 else "ipv4"
    return f"{scheme}:{joined(str(found[0]), int(found[1]))}"
