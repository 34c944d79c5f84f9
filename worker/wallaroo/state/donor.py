"""What a worker gives away in a rescale: it copies while events flow, then hands over the rest.

First comes what the base has of the moving points, as of one epoch; then, of each epoch that is
committed later, what it touched of them, which is caught where it is encoded. What several epochs
touched goes once. Behind the switch the entries touched last follow as they are encoded, and end
with a mark for each place, also when there are none.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Protocol

from wallaroo.partitioning import INTERVAL
from wallaroo.partitioning.rewrite import Move
from wallaroo.state.base import View
from wallaroo.state.delta import Content
from wallaroo.state.entries import (
    Block,
    as_entries,
    open_block,
    place_range,
    point_key,
)
from wallaroo.state.live import Place, stored_at
from wallaroo.state.parcels import Entries, Last, Parcel, UpTo
from wallaroo.state.store import Store

#: Entries of a parcel.
_PARCEL = 256
#: While it copies, at first: bytes a second; how long it rests after each second of work, for the
#: thread is the dataflow's, and seconds at most, for it may have waited for a processor. It
#: hastens twofold when it falls behind for so many epochs.
_RATE, _REST, _LONGEST, _EPOCHS = 8 << 20, 5.0, 0.02, 3
#: More than no time, in seconds.
_INSTANT = 1e-6


class Outlet(Protocol):
    """Where what a receiver gets is put."""

    @property
    def has_room(self) -> bool: ...

    def add(self, parcel: Parcel) -> int:
        """Send a parcel, in order; returns its size in bytes."""

    def end(self) -> None:
        """Nothing follows."""


class Donor:
    """Gives away what `moves` says, in one attempt to rescale.

    outlets: by receiver. clock: in seconds.
    """

    def __init__(
        self,
        store: Store,
        moves: Sequence[Move],
        outlets: Mapping[int, Outlet],
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._outlets = outlets
        self._clock = clock
        self._moves = sorted(moves, key=lambda move: move.start)
        self._starts = [point_key(move.start) for move in self._moves]
        self._view: View | None = None
        self._scan: Iterator[tuple[int, list[tuple[bytes, bytes]]]] | None = None
        #: A delta that the base lacked is being read, the newest first; blocks of the last one
        #: that was, with its epoch.
        self._reading = False
        self._blocks: list[tuple[int, Block]] = []
        #: Whether all that take part are ready.
        self.allowed = False
        self._started = self._pins = self._closed = False
        self._copied = False
        #: By receiver: what later epochs have touched and is committed.
        self._touched: dict[int, dict[bytes, bytes]] = {receiver: {} for receiver in outlets}
        #: By epoch not committed yet: the same.
        self._caught: dict[int, dict[int, dict[bytes, bytes]]] = {}
        self._encoded: dict[int, dict[bytes, bytes]] = {receiver: {} for receiver in outlets}
        #: The epoch up to which all is committed; and the one that receivers were told.
        self._committed = -1
        self._told = -1
        self._switching = False
        self._left: set[int] = set()
        self._flushed: set[int] = set()
        #: Bytes that may be sent at a time of the clock; when it may work again; by how much both
        #: limits are loosened; whether it was they that stopped it last; how many entries an epoch
        #: found that were not sent.
        self._allowed, self._at = 0.0, clock()
        self._rested = 0.0
        self._haste = 1.0
        self._limited = False
        self._behind: list[int] = []

    # What happens to the store

    def caught(self, block: Block) -> None:
        """A block of an epoch's delta has been encoded."""
        place = self._store.places[block.place]
        encoded = self._encoded
        if self._switching:
            self._flush(block.place)
        for receiver, keys, values in self._moving(place, block):
            if self._switching:
                self._outlets[receiver].add(Entries(keys, values))  # exempt from all bounds
            else:
                encoded[receiver].update(zip(keys, values, strict=True))

    def sealed(self, epoch: int) -> None:
        """A delta is complete."""
        self._caught[epoch] = self._encoded
        self._encoded = {receiver: {} for receiver in self._outlets}

    def committed(self, epoch: int) -> None:
        """An epoch is committed: what it touched may be sent."""
        self._committed = max(self._committed, epoch)
        if self._copied:
            self._behind.append(sum(map(len, self._touched.values())))
        for each in sorted(each for each in self._caught if each <= epoch):
            for receiver, entries in self._caught.pop(each).items():
                self._touched[receiver].update(entries)
        last = self._behind[-_EPOCHS - 1 :]
        if len(last) > _EPOCHS and last[-1] >= last[0] > 0:  # ruling 23
            self._haste *= 2
            self._behind.clear()

    def switch(self) -> None:
        """The barrier of the switch is injected: what is left goes as it comes."""
        self._switching = True
        self._left = set(self._store.places)

    def _flush(self, place: int) -> None:
        """What earlier epochs touched at a place goes before what the last one did.

        Not at once, for a place that has many would hold up the positions of partitions, which are
        encoded first and keep their events waiting.
        """
        if place not in self._left or place in self._flushed:
            return
        self._flushed.add(place)
        start, end = place_range(place, 0, INTERVAL)
        for receiver, entries in self._touched.items():
            mine = {key: entry for key, entry in entries.items() if start <= key < end}
            for key in mine:
                del entries[key]
            while mine:
                self._send(receiver, mine)

    def ended(self, place: int) -> None:
        """All that the last epoch touched at a place is encoded."""
        if self._switching and place in self._left:
            self._flush(place)
            self._left.discard(place)
            for outlet in self._outlets.values():
                outlet.add(Last(place))
                if not self._left:
                    outlet.end()

    # Work in slices

    def work(self, until: float) -> bool:
        """Send on until the clock is at `until`; whether there may be more at once.

        Raises `StateDamaged`.
        """
        if self._switching:
            return False
        began = self._clock()
        while self._slice():
            now = self._clock()
            self._rested = now + min((now - began) * _REST, _LONGEST) / self._haste
            if now >= until:
                return True
            began = now
        return False

    @property
    def wait(self) -> float:
        """Seconds until the limits allow more; 0 where something else is waited for."""
        if not self._limited or self._switching:
            return 0.0
        left = max(self._rested - self._clock(), -self._allowed / (_RATE * self._haste))
        return max(left, _INSTANT)  # it may be over since it was looked at

    def take_job(self) -> Callable[[], Any] | None:
        """To read one of the deltas that the base lacked; `job_done` follows."""
        if self._reading or not self._started or self._view is not None or self._blocks:
            return None
        job = self._store.pinned_job() if self._pins else None
        self._reading = job is not None
        return job

    def job_done(self, found: tuple[int, Content]) -> None:
        """What `take_job` gave has been read: the epoch of a delta, and its content."""
        self._reading = False
        if self._closed:
            self._unpin()
            return
        epoch, content = found
        self._blocks = [(epoch, block) for block in content.blocks]

    def _slice(self) -> bool:
        """Do a little; False if nothing can be done now."""
        if not self._started:
            return self.allowed and self._start()
        if not self._may_send():
            return False
        if self._view is not None:
            return self._scan_some()
        if self._blocks:
            self._take_block(*self._blocks.pop())
            return True
        if not self._copied:
            if self._reading or self._store.pinned:
                return False
            self._copied = True
            self._unpin()
        for receiver, entries in self._touched.items():
            if entries and self._outlets[receiver].has_room:
                self._send(receiver, entries)
                return True
        if self._told < self._committed and not any(self._touched.values()):
            self._told = self._committed
            for outlet in self._outlets.values():
                outlet.add(UpTo(self._told))
            return True
        return False

    def _start(self) -> bool:
        found = self._store.pin()
        if found is None:
            return False
        self._started = self._pins = True
        self._view, self._committed = found
        self._store.catch(self)
        self._scan = self._scanned(self._view)
        return True

    def _scanned(self, view: View) -> Iterator[tuple[int, list[tuple[bytes, bytes]]]]:
        for place in sorted(self._store.places):
            for move in self._moves:
                start, end = place_range(place, move.start, move.end)
                found = view.scan(start, end)
                while chunk := list(islice(found, _PARCEL)):
                    yield move.receiver, chunk

    def _scan_some(self) -> bool:
        assert self._scan is not None
        found = next(self._scan, None)
        if found is None:
            assert self._view is not None
            self._view.close()
            self._view = self._scan = None
            return True
        receiver, chunk = found
        keys, values = map(list, zip(*chunk, strict=True))
        self._allowed -= self._outlets[receiver].add(Entries(keys, values))
        return True

    def _take_block(self, epoch: int, block: Block) -> None:
        """What moves of a delta that the base lacked."""
        place = self._store.places[block.place]
        for receiver, keys, values in self._moving(place, block):
            entries = zip(keys, values, strict=True)
            if epoch <= self._committed:
                touched = self._touched[receiver]
                for key, value in entries:
                    touched.setdefault(key, value)  # what came since is newer
            else:
                caught = self._caught.setdefault(epoch, {each: {} for each in self._outlets})
                caught[receiver].update(entries)

    def _send(self, receiver: int, entries: dict[bytes, bytes]) -> None:
        keys = list(islice(entries, _PARCEL))
        values = [entries.pop(key) for key in keys]
        self._allowed -= self._outlets[receiver].add(Entries(keys, values))

    def _may_send(self) -> bool:
        """Whether the limits allow a parcel now."""
        now = self._clock()
        rate = _RATE * self._haste
        self._allowed = min(rate / 20, self._allowed + (now - self._at) * rate)
        self._at = now
        self._limited = now < self._rested or self._allowed <= 0
        return not self._limited and all(each.has_room for each in self._outlets.values())

    def _moving(self, place: Place, block: Block) -> Iterator[tuple[int, list[bytes], list[bytes]]]:
        """By receiver, the entries of a block that move, as the base has them."""
        keys, values = open_block(block)
        where = stored_at(place, keys)
        chosen: dict[int, list[int]] = {}
        for index, at in enumerate(where):
            point = at[2:10]
            which = bisect_right(self._starts, point) - 1
            if which >= 0:
                move = self._moves[which]
                if int.from_bytes(point, "big") < move.end:
                    chosen.setdefault(move.receiver, []).append(index)
        for receiver, indexes in chosen.items():
            yield (
                receiver,
                [where[index] for index in indexes],
                as_entries(block.kind, [values[index] for index in indexes]),
            )

    def _unpin(self) -> None:
        if self._pins:
            self._pins = False
            self._store.unpin()

    def close(self) -> None:
        """The attempt is over."""
        self._closed = True
        if self._started:
            self._store.catch(None)
        if not self._reading:  # else files are being read, and have to stay
            self._unpin()
        if self._view is not None:
            self._view.close()
            self._view = self._scan = None
