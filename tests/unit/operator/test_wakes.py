"""When applications are reconciled: seldom enough, soon enough, one at a time."""

import asyncio
from collections.abc import Callable
from itertools import pairwise

import pytest

from wallaroo_operator import wakes as module
from wallaroo_operator.wakes import Wakes


class Conflict(Exception):
    pass


async def watched(wakes: Wakes[str], then: Callable[[], bool]) -> None:
    task = asyncio.create_task(wakes.run())
    try:
        async with asyncio.timeout(5):
            while not then():  # noqa: ASYNC110  it is what is tested that says so
                await asyncio.sleep(0.005)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GATHER", 0.01)
    monkeypatch.setattr(module, "AGAIN", 0.02)


def test_many_events_are_one_reconcile() -> None:
    """Ruling K8s 21."""
    done: list[tuple[str, bool]] = []

    async def do(key: str, woken: bool) -> float | None:
        done.append((key, woken))
        return None

    async def main() -> None:
        wakes = Wakes(do, Conflict)
        for _ in range(100):
            wakes.wake("a")
        wakes.wake("b")
        await watched(wakes, lambda: len(done) >= 2 and not len(wakes))

    asyncio.run(main())
    assert sorted(done) == [("a", True), ("b", True)]


def test_an_application_is_reconciled_by_one_at_a_time() -> None:
    """Ruling K8s 21."""
    running, most, times = 0, 0, 0

    async def main() -> None:
        async def do(key: str, woken: bool) -> float | None:
            nonlocal running, most, times
            running, times = running + 1, times + 1
            most = max(most, running)
            wakes.wake("a")
            await asyncio.sleep(0.02)
            running -= 1
            return None

        wakes = Wakes(do, Conflict)
        wakes.wake("a")
        await watched(wakes, lambda: times >= 3)

    asyncio.run(main())
    assert most == 1


def test_it_is_looked_at_again_without_an_event() -> None:
    seen: list[bool] = []

    async def do(key: str, woken: bool) -> float | None:
        seen.append(woken)
        return 0.01

    async def main() -> None:
        wakes = Wakes(do, Conflict)
        wakes.wake("a")
        await watched(wakes, lambda: len(seen) >= 3)

    asyncio.run(main())
    assert seen[:3] == [True, False, False]


def test_what_fails_is_tried_again_later_and_later_whatever_wakes_it() -> None:
    """Ruling K8s 21: back-off per key."""
    times: list[float] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()

        async def do(key: str, woken: bool) -> float | None:
            times.append(loop.time())
            raise RuntimeError("no")

        wakes = Wakes(do, Conflict)

        def nagging() -> bool:
            wakes.wake("a")
            return len(times) >= 4

        await watched(wakes, nagging)

    asyncio.run(main())
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert all(gap >= 0.02 * 2**n * 0.9 for n, gap in enumerate(gaps))


def test_a_conflict_is_decided_again_at_once() -> None:
    """Ruling K8s 14."""
    done: list[str] = []

    async def do(key: str, woken: bool) -> float | None:
        done.append(key)
        if len(done) == 1:
            raise Conflict
        return None

    async def main() -> None:
        wakes = Wakes(do, Conflict)
        wakes.wake("a")
        await watched(wakes, lambda: len(done) == 2)

    asyncio.run(main())
    assert done == ["a", "a"]
