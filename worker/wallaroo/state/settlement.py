"""What a worker owns, and how its base becomes that after a rescale.

What the rescale gave goes from the staging into the base, and what it took is removed, in slices; a
last batch notes the version of the assignment. Until that is written nothing counts as done, so a
restart does all of it again. No key comes back from an earlier time: where something was gained,
what the base had there is removed first.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby, islice

from wallaroo.partitioning import INTERVAL
from wallaroo.state.base import Base
from wallaroo.state.entries import place_range
from wallaroo.state.staging import Staging
from wallaroo.state.throttle import Worked, at_once

#: Entries of a slice.
_SLICE = 256
#: Bytes that are written at once.
_BYTES = 64 << 20


@dataclass(frozen=True)
class Tenure:
    """What a worker owns, and since when.

    version: of the assignment; owned: [start, end) of points, in order; switched: the epoch at
    whose end they came to be its own; 0 if it has had them from the beginning.
    joined: the epoch at whose end the worker became a member.
    """

    version: int = 1
    owned: tuple[tuple[int, int], ...] = ((0, INTERVAL),)
    switched: int = 0
    joined: int = 0

    def owns(self, point: int) -> bool:
        """Whether a point is this worker's."""
        at = bisect_right(self.owned, (point, INTERVAL)) - 1
        return at >= 0 and point < self.owned[at][1]

    @property
    def lost(self) -> list[tuple[int, int]]:
        """All other points."""
        ends = [0, *(end for _, end in self.owned)]
        starts = [*(start for start, _ in self.owned), INTERVAL]
        return [(end, start) for end, start in zip(ends, starts, strict=True) if end < start]


def _place(entry: tuple[bytes, bytes]) -> int:
    return int.from_bytes(entry[0][:2], "big")


class Settlement:
    """Makes `base` what `tenure` says, with what `staging` has.

    counting: by the number of each place, whether its entries count as keys. took: called with a
    place and entries of it, keys as the base has them, that come from `staging`. worked: after
    pieces of work in the background.
    """

    def __init__(
        self,
        base: Base,
        tenure: Tenure,
        staging: Staging | None,
        counting: Mapping[int, bool],
        took: Callable[[int, list[tuple[bytes, bytes]]], None] = lambda *_: None,
        worked: Worked = at_once,
    ) -> None:
        self.staging = staging
        self._base = base
        self._tenure = tenure
        self._counting = counting
        self._took = took
        self._worked = worked
        self._gained = self._lost = 0
        self._batch = base.batch()
        self._size = 0
        self._writing = self._last = False
        self._steps = self._all_steps()
        self._more = True

    def prepare(self) -> bool:
        """Do a slice; False if it has to wait, for a job or because all is done."""
        if self._writing or not self._more or self._size > _BYTES:
            return False
        self._more = next(self._steps, False)
        return True

    def _all_steps(self) -> Iterator[bool]:
        staging = self.staging
        if staging:
            for place in self._counting:
                for start, end in staging.mark.ranges:
                    self._batch.clear(*place_range(place, start, end))
            found = staging.scan()
            while entries := list(islice(found, _SLICE)):
                put = self._batch.put
                for key, value in entries:
                    put(key, value)
                    self._size += len(key) + len(value)
                for number, some in groupby(entries, _place):
                    mine = list(some)
                    self._gained += len(mine) * self._counting.get(number, False)
                    self._took(number, mine)
                yield True
        view = self._base.view()
        for place, counts in self._counting.items():
            for start, end in self._tenure.lost if counts else ():
                for _ in view.scan(*place_range(place, start, end)):
                    self._lost += 1
                    if not self._lost % _SLICE:
                        yield True
        view.close()

    def take_job(self) -> Callable[[], None] | None:
        """To write what is prepared, if it is time; `written` follows."""
        if self._writing or (self._more and self._size <= _BYTES):
            return None
        self._writing, self._last = True, not self._more
        batch, self._batch, self._size = self._batch, self._base.batch(), 0
        stamp = self._base.stamp
        if self._last:
            for place in self._counting:
                for start, end in self._tenure.lost:
                    batch.clear(*place_range(place, start, end))
            moved = stamp.moved + self._gained - self._lost
            stamp = stamp._replace(moved=moved, version=self._tenure.version)

        def write() -> None:
            self._base.write(batch, stamp, self._worked)

        return write

    def written(self) -> bool:
        """A job has ended; whether it was the last."""
        self._writing = False
        return self._last
