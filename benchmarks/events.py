"""What the benchmarks have in common: words, the two functions called for each, the bare loop.

    events.py KIND COUNT

Run as a program it times the bare loop in this process, which is fresh and has imported nothing
of Wallaroo's: the least that Python can do for these events, which all else is compared to.
"""

import json
import sys
import time
from typing import Any

import numpy as np
import numpy.typing as npt

#: Words of a language, about: 5M of them hold about 97k distinct ones.
_VOCABULARY, _EXPONENT = 100_000, 1.1
#: Equally likely keys: 5M events touch about 993k of them.
_UNIFORM = 1_000_000
#: Events of one batch of the bare loop.
_BATCH = 1000


def ids(kind: str, count: int, seed: int) -> npt.NDArray[np.int64]:
    """The numbers of `count` words, shape (count,).

    kind: "zipf" or "uniform".
    """
    random = np.random.default_rng(seed)
    if kind == "uniform":
        return random.integers(0, _UNIFORM, count)
    weights = np.arange(1, _VOCABULARY + 1, dtype=float) ** -_EXPONENT
    edges = np.cumsum(weights / weights.sum())
    # The last edge may be a rounding error below 1.
    return np.minimum(np.searchsorted(edges, random.random(count)), _VOCABULARY - 1)


def named(numbers: npt.NDArray[np.int64]) -> list[str]:
    """The words of these numbers, each an object of its own as if it had just arrived."""
    return [f"w{i}" for i in numbers.tolist()]


def words(kind: str, count: int, seed: int) -> list[str]:
    """`count` words of a kind."""
    return named(ids(kind, count, seed))


class Total:
    """The state of a word."""

    count = 0


def key_of(word: str) -> str:
    """The key of an event."""
    return word


def count_word(word: str, total: Total) -> tuple[str, int]:
    """The state function; its result is the output."""
    total.count += 1
    return (word, total.count)


def bare(events: list[str]) -> dict[str, Total]:
    """Two calls and an output per event."""
    states: dict[str, Total] = {}
    out: list[Any] = []
    add = out.append
    for start in range(0, len(events), _BATCH):
        for word in events[start : start + _BATCH]:
            key = key_of(word)
            state = states.get(key)
            if state is None:
                state = states[key] = Total()
            add(count_word(word, state))
        out.clear()
    return states


def main() -> None:
    """Time the bare loop; prints seconds and distinct keys as JSON."""
    kind, count = sys.argv[1], int(sys.argv[2])
    events = words(kind, count, seed=0)
    began = time.perf_counter()
    states = bare(events)
    print(json.dumps({"seconds": time.perf_counter() - began, "keys": len(states)}))


if __name__ == "__main__":
    main()
