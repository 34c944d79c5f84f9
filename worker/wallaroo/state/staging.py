"""What a receiver is given in a rescale, until it is part of the base.

It is kept apart, durable in a database of its own, because it may still come to nothing: then it is
dropped whole. Once the switch is committed it is the truth about the keys that it covers, as of the
switch, until the base has been settled: has taken all of it in.
"""

from collections.abc import Callable, Collection, Iterator
from typing import Any

from wallaroo.protocol import manifest
from wallaroo.state.base import Base, Stamp
from wallaroo.state.entries import StateDamaged
from wallaroo.state.parcels import Entries, Last, UpTo, decode_parcel
from wallaroo.state.throttle import Worked, at_once

#: Bytes to write at once.
_BATCH = 2 << 20
#: Bytes that may wait to be written before nothing more is read.
_ROOM = 16 << 20
#: Behind the keys of every place.
_END = b"\xff\xff\xff"


class Staging:
    """What `donors` give; mark: its name, and which points it covers.

    places: numbers of those that come. base: an empty database, or the one that has it all. worked:
    called after pieces of work in the background.
    """

    def __init__(
        self,
        mark: manifest.Staging,
        base: Base,
        donors: Collection[int] = (),
        places: Collection[int] = (),
        worked: Worked = at_once,
    ) -> None:
        self.mark = mark
        self.entries = 0
        self.size = 0
        self._base = base
        self._worked = worked
        #: By donor: all that was committed up to this epoch is here.
        self._epochs = dict.fromkeys(donors, -1)
        self._awaited = {(donor, place) for donor in donors for place in places}
        #: What is not in the database yet: in the batch that is next, or is being written.
        self._fresh: dict[bytes, bytes] = {}
        self._writing: dict[bytes, bytes] = {}
        self._batch = base.batch()
        self._waiting = 0
        self._busy = False
        #: Entries are on disk as far as they came; and all have come.
        self._written = 0
        self._complete = not self._awaited

    @property
    def has_room(self) -> bool:
        """Whether to read on."""
        return self._waiting < _ROOM

    @property
    def epoch(self) -> int:
        """The epoch up to which all that was committed is here; -1 for none."""
        return min(self._epochs.values(), default=-1)

    @property
    def durable(self) -> bool:
        """Whether all of it has come, and is on disk."""
        return not self._awaited and self._complete

    @property
    def awaited(self) -> frozenset[tuple[int, int]]:
        """(donor, place) of what is still to come."""
        return frozenset(self._awaited)

    def take(self, donor: int, data: bytes) -> Last | UpTo | None:
        """A parcel has come; returns it unless it is of entries. Raises `StateDamaged`."""
        parcel = decode_parcel(data)
        match parcel:
            case Entries(keys, values):
                # Here, and not where it is written: a thread that runs Python code would take turns
                # with the dataflow's.
                put = self._batch.put
                for key, value in zip(keys, values, strict=True):
                    put(key, value)
                self._fresh.update(zip(keys, values, strict=True))
                self.entries += len(keys)
                self.size += len(data)
                self._waiting += len(data)
                return None
            case UpTo(epoch):
                self._epochs[donor] = epoch
            case Last(place):
                self._awaited.discard((donor, place))
        return parcel

    def get(self, key: bytes) -> bytes | None:
        """An entry. Raises `StateDamaged`."""
        found = self._fresh.get(key)
        if found is None:
            found = self._writing.get(key)
        return self._base.get(key) if found is None else found

    def take_job(self) -> Callable[[], Any] | None:
        """What is to be written now, for a background thread; `job_done` follows."""
        last = not self._awaited and not self._complete
        if self._busy or not (self._waiting >= _BATCH or last):
            return None
        self._busy = True
        self._writing, self._fresh = self._fresh, {}
        self._waiting = 0
        self._written += 1
        batch, self._batch = self._batch, self._base.batch()
        stamp = Stamp(self._written, version=int(last))

        def write() -> bool:
            self._base.write(batch, stamp, self._worked)
            return last

        return write

    def job_done(self, result: Any) -> None:
        """The job has ended."""
        self._busy = False
        self._writing = {}
        self._complete = result

    def check(self) -> None:
        """Raise `StateDamaged` unless all that was given is on disk."""
        if not self._base.stamp.version:
            raise StateDamaged(
                f"what this worker was given by rescale {self.mark.id} is missing from its "
                "directory; restore the directory from a copy, or start the application anew from "
                "an empty one"
            )

    def scan(self) -> Iterator[tuple[bytes, bytes]]:
        """All of it, in order, once it is durable."""
        view = self._base.view()
        try:
            yield from view.scan(b"\0\0", _END)
        finally:
            view.close()

    def close(self) -> None:
        """Let go of the files."""
        self._base.close()
