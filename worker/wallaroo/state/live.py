"""The state objects that a worker's functions see: one dict a place in the pipeline.

A key's first touch falls into `__missing__`. That is the slow path, so all that is to be checked
or done once a key happens there, and the fast path is a dict's own look-up.
"""

from collections.abc import Callable
from typing import Any

from wallaroo.partitioning import hash_key, normalize_key


class NotMyKey(Exception):
    """A key was touched on a worker that does not own it."""


class Live(dict[str | bytes, Any]):
    """State objects by key; a missing one is made by `make`.

    owns: says whether this worker owns a point of the hash interval; None if it owns all.
    """

    def __init__(self, make: Callable[[], Any], owns: Callable[[int], bool] | None) -> None:
        super().__init__()
        self._make = make
        self._owns = owns

    def __missing__(self, key: object) -> Any:
        proper = normalize_key(key)
        if proper is not key:  # an int, which is looked up as its character
            return self[proper]
        if self._owns is not None and not self._owns(hash_key(proper)):
            raise NotMyKey
        state = self[proper] = self._make()
        return state
