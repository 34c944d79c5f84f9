"""Virtual time, chance, and the log of what happened.

Everything in a simulation happens in one thread, one call after the other, in the order of
virtual time. All chance comes from one generator, so a seed says all that happens.
"""

import heapq
import random
from collections.abc import Callable
from itertools import count

from xxhash import xxh3_64


class Violation(Exception):
    """What must never be, is."""


class Scheduler:
    """keep: whether to keep the log's lines, not only their hash."""

    def __init__(self, seed: int, *, keep: bool = False) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self.steps = 0
        self.lines: list[str] = []
        self._keep = keep
        self._hash = xxh3_64()
        self._numbers = count()
        self._calls: list[tuple[float, int, Callable[[], None]]] = []

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        """Call it in `seconds`."""
        heapq.heappush(self._calls, (self.now + seconds, next(self._numbers), call))

    def step(self) -> bool:
        """Do what is next; False if there is nothing."""
        if not self._calls:
            return False
        self.now, _, call = heapq.heappop(self._calls)
        self.steps += 1
        call()
        return True

    def chance(self, share: float) -> bool:
        """True in that share of cases."""
        return self.random.random() < share

    def delay(self, mean: float) -> float:
        """Seconds: mostly about `mean`, at times next to nothing, at times very long."""
        luck = self.random.random()
        if luck < 0.3:
            return mean * 0.1 * self.random.random()
        if luck < 0.97:
            return self.random.expovariate(1 / mean)
        return mean * 20 * self.random.random()

    def log(self, text: str) -> None:
        """Something has happened."""
        line = f"{self.now:.6f} {text}"
        self._hash.update(line.encode())
        if self._keep:
            self.lines.append(line)

    @property
    def digest(self) -> str:
        """Of the log so far."""
        return self._hash.hexdigest()
