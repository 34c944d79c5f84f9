"""The queue in which what a donor gives a receiver waits: an outbox like that of an exchange.

Its stream is one of its own, so that it never waits behind events, nor they behind it.
"""

from collections import deque
from collections.abc import Callable

from wallaroo.dataflow.barrier import Barrier
from wallaroo.state.parcels import Parcel, encode_parcel

#: The number of the stream on which a donor sends to a receiver, where exchanges have theirs.
CHANNEL = 1 << 31
#: Bytes that wait on it before there is no room, and of what is sent at once, about.
ROOM, FRAME = 1 << 21, 1 << 18


class Consignment:
    """Parcels on their way to worker `receiver`."""

    channel = CHANNEL
    #: What is here is sent without waiting for more.
    little = False

    def __init__(self, receiver: int, wake: Callable[["Consignment"], None]) -> None:
        self.receiver = receiver
        self._frames: deque[bytes] = deque()
        self._bytes = 0
        self._ended = False
        self._wake = wake

    @property
    def has_room(self) -> bool:
        return self._bytes < ROOM

    def add(self, parcel: Parcel) -> int:
        """Send a parcel, in order; returns its size."""
        frame = encode_parcel(parcel)
        self._frames.append(frame)
        self._bytes += len(frame)
        self._wake(self)
        return len(frame)

    def end(self) -> None:
        """Nothing follows: the stream ends behind what is here."""
        self._ended = True
        self._wake(self)

    def take(self) -> list[bytes] | Barrier | None:
        """What to send next; a final barrier at the end, None if nothing."""
        frames: list[bytes] = []
        size = 0
        while self._frames and size < FRAME:
            frames.append(self._frames.popleft())
            size += len(frames[-1])
        self._bytes -= size
        if not frames and self._ended:
            self._ended = False
            return Barrier(0, final=True)
        return frames or None
