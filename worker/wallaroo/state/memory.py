"""State that lives in memory alone, for running an application without a directory."""

from collections.abc import Callable, Iterator
from pathlib import Path

from wallaroo.disk import RealDisk
from wallaroo.state.codec import Codec
from wallaroo.state.store import Store


class _Nowhere(RealDisk):
    """A disk that nothing is written to."""

    def make_folder(self, folder: Path) -> None:
        pass


class _EmptyBatch:
    def put(self, key: bytes, value: bytes) -> None:
        raise AssertionError("nothing is committed in memory")


class _EmptyBase:
    """A base that holds nothing."""

    epoch = 0
    keys = 0
    size = 0

    def get(self, key: bytes) -> bytes | None:
        return None

    def batch(self) -> _EmptyBatch:
        return _EmptyBatch()

    def write(self, batch: object, epoch: int, keys: int) -> None:
        raise AssertionError("nothing is committed in memory")

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        return iter(())

    def close(self) -> None:
        pass


def memory_store(codec: Codec, clock: Callable[[], float] = lambda: 0.0) -> Store:
    """A store whose epochs are never committed."""
    return Store(_Nowhere(), Path("/nowhere"), codec, _EmptyBase(), clock)
