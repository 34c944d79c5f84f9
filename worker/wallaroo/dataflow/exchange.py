"""The two ends of a stream between stages: an outbox where it starts, an inbox where it ends.

An outbox gathers the events for one receiver and gives them away, encoded, whenever its stream
has room: one frame at a time when the stream is idle, ever larger ones while it is busy, without
a timer. Both ends are bounded in bytes; a barrier is exempt, so that it can always pass.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

from wallaroo.dataflow.barrier import Barrier
from wallaroo.dataflow.graph import Edge
from wallaroo.state.codec import BLOCK, Codec, CodecError

#: Bytes that an outbox or an inbox holds before it has no room.
ROOM = 1 << 20
#: Bytes of one frame, about; one block may be more.
FRAME = 1 << 18
#: Bytes of a block that is split, if it holds several events; bytes that no event may exceed.
LARGE, LARGEST = 1 << 22, 1 << 30
#: Events that wait for a stage of the same worker before it has no room.
LOCAL_ROOM = 4096


class Outbox:
    """Events on their way from a stage here to a stage of worker `receiver`."""

    def __init__(self, edge: Edge, receiver: int, codec: Codec, wake: Callable[[], None]) -> None:
        self.edge = edge
        #: The number of its stream between two workers.
        self.channel = edge.index
        self.receiver = receiver
        #: It carries nothing but barriers of a switch until the first of these has passed.
        self.joining = False
        #: Events of the batch at hand; the list is always this one.
        self.values: list[Any] = []
        self._items: deque[bytes | Barrier] = deque()
        self._bytes = 0
        self._codec = codec
        self._wake = wake

    @property
    def has_room(self) -> bool:
        return self._bytes < ROOM

    @property
    def size(self) -> int:
        """Bytes that wait here, but for what the last batch has left and no block holds yet."""
        return self._bytes

    @property
    def idle(self) -> bool:
        """Nothing waits to be sent."""
        return not self._items and not self.values

    @property
    def little(self) -> bool:
        """What waits to be sent is less than a block, and no barrier is behind it."""
        return not self._items and bool(self.values)

    def settle(self) -> None:
        """After a batch: make full blocks of what it left, and tell the stream."""
        values = self.values
        if not values:
            return
        if len(values) >= BLOCK:
            full = len(values) - len(values) % BLOCK
            for start in range(0, full, BLOCK):
                self._seal(values[start : start + BLOCK])
            del values[:full]
        self._wake()

    def add_barrier(self, barrier: Barrier) -> None:
        if self.values:
            self._seal(self.values[:])
            self.values.clear()
        self._items.append(barrier)
        self._wake()

    def _seal(self, values: list[Any]) -> None:
        block = self._codec.encode_block(values)
        if len(block) > LARGE and len(values) > 1:
            half = len(values) // 2
            self._seal(values[:half])
            self._seal(values[half:])
            return
        if len(block) > LARGEST:
            raise CodecError(f"it is {len(block):,} bytes long; at most {LARGEST:,} can be sent")
        self._items.append(block)
        self._bytes += len(block)

    def take(self) -> list[bytes] | Barrier | None:
        """What to send next: blocks of about `FRAME` bytes, or a barrier; None if nothing."""
        items = self._items
        if not items:
            if not self.values:
                return None
            self._seal(self.values[:])
            self.values.clear()
        first = items.popleft()
        if isinstance(first, Barrier):
            return first
        blocks = [first]
        size = len(first)
        while size < FRAME and items and not isinstance(items[0], Barrier):
            block = items.popleft()
            assert isinstance(block, bytes)
            blocks.append(block)
            size += len(block)
        if not items and self.values and size < FRAME:
            self._seal(self.values[:])
            self.values.clear()
            block = items.popleft()
            assert isinstance(block, bytes)
            blocks.append(block)
            size += len(block)
        self._bytes -= size
        return blocks


class Inbox:
    """What came for a stage here by one stream; of another worker, or of this one."""

    def __init__(self, edge: Edge, sender: int, *, local: bool) -> None:
        self.edge = edge
        self.sender = sender
        self.local = local
        #: Nothing comes by it before the barrier of a switch.
        self.joining = False
        #: Events of the batch at hand, from a stage of this worker; always this list.
        self.values: list[Any] = []
        #: The barrier that this stream has come to while others have not.
        self.barrier: Barrier | None = None
        #: Called when there is room again.
        self.on_room: Callable[[], None] = lambda: None
        self._items: deque[bytes | list[Any] | Barrier] = deque()
        self._size = 0
        self._room = LOCAL_ROOM if local else ROOM

    @property
    def has_room(self) -> bool:
        return self._size < self._room

    @property
    def size(self) -> int:
        """What waits here, in bytes; in events, if it is of this worker."""
        return self._size

    @property
    def empty(self) -> bool:
        return not self._items

    def settle(self) -> None:
        """After a batch of a stage of this worker: queue what it left."""
        if self.values:
            self._items.append(self.values[:])
            self._size += len(self.values)
            self.values.clear()

    def add(self, blocks: list[bytes]) -> None:
        """Blocks from another worker."""
        self._items.extend(blocks)
        self._size += sum(map(len, blocks))

    def add_barrier(self, barrier: Barrier) -> None:
        self.settle()
        self._items.append(barrier)

    def peek_barrier(self) -> bool:
        """Whether a barrier is next."""
        return bool(self._items) and isinstance(self._items[0], Barrier)

    def take_barrier(self) -> Barrier:
        """The barrier that is next."""
        barrier = self._items.popleft()
        assert isinstance(barrier, Barrier)
        return barrier

    def take_events(self, codec: Codec, limit: int) -> list[Any]:
        """The events that are next, at most `limit`. Raises `CodecError`."""
        had_room = self.has_room
        item = self._items.popleft()
        if isinstance(item, bytes):
            self._size -= len(item)
            events = codec.decode_block(item)
            if len(events) > limit:
                # What is decoded already counts for little: it came from this one block.
                self._items.appendleft(events[limit:])
                del events[limit:]
        else:
            assert isinstance(item, list)
            events = item[:limit]
            if len(item) > limit:
                self._items.appendleft(item[limit:])
            if self.local:
                self._size -= len(events)
        if not had_room and self.has_room:
            self.on_room()
        return events
