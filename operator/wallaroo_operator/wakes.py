"""Which application is reconciled when.

Events only wake: a hundred of them for one application are one reconcile. Each application is
reconciled by one task at a time; one that fails is tried again later and later, whatever wakes it.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

#: Seconds for which events are gathered; before what failed is tried again, doubled up to the last.
GATHER, AGAIN, LONGEST = 0.2, 1.0, 300.0
#: Applications reconciled at a time.
AT_A_TIME = 8

K = TypeVar("K", bound=Hashable)

_log = logging.getLogger("wallaroo_operator")


class Wakes(Generic[K]):
    """A queue without duplicates.

    do: reconciles; returns the seconds after which to do so again, None to forget the application.
        It is told whether something woke it.
    soon: exceptions after which it is done again at once, a few times. told: those whose words say
        all: they are logged without a traceback.
    """

    def __init__(
        self,
        do: Callable[[K, bool], Awaitable[float | None]],
        soon: type[Exception],
        told: tuple[type[Exception], ...] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._do = do
        self._soon = soon
        self._told = told
        self._clock = clock
        #: When to do what; what was woken; what may not be done before; how often it has failed.
        self._due: dict[K, float] = {}
        self._woken: set[K] = set()
        self._not_before: dict[K, float] = {}
        self._failures: dict[K, int] = {}
        self._running: dict[K, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._due) + len(self._running)

    def wake(self, key: K) -> None:
        """Something has happened to it."""
        self._woken.add(key)
        self._at(key, self._clock() + GATHER)

    def _at(self, key: K, when: float) -> None:
        self._due[key] = min(self._due.get(key, when), when)
        self._changed.set()

    async def run(self) -> None:
        """Do what is due, until cancelled."""
        try:
            while True:
                self._changed.clear()
                wait = self._start()
                with contextlib.suppress(TimeoutError):  # wait_for may swallow a cancellation
                    async with asyncio.timeout(wait):
                        await self._changed.wait()
        finally:
            tasks = list(self._running.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self) -> float | None:
        """Start what is due; seconds until the next is."""
        now = self._clock()
        due = [(max(w, self._not_before.get(key, 0.0)), key) for key, w in self._due.items()]
        for when, key in sorted(due, key=lambda each: each[0]):
            if key in self._running:
                continue
            if when > now:
                return when - now
            if len(self._running) >= AT_A_TIME:
                return None
            del self._due[key]
            woken = key in self._woken
            self._woken.discard(key)
            self._running[key] = asyncio.create_task(self._one(key, woken), name=f"{key}")
        return None

    async def _one(self, key: K, woken: bool) -> None:
        again: float | None = None
        try:
            again = await self._do(key, woken)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            again = self._failed(key, error)
        else:
            self._failures.pop(key, None)
            self._not_before.pop(key, None)
        finally:
            del self._running[key]
            self._changed.set()
        if again is not None:
            self._at(key, self._clock() + again)

    def _failed(self, key: K, error: Exception) -> float:
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        self._woken.add(key)  # what was to be done is still to be done
        if isinstance(error, self._soon):
            wait = min(0.1 * 2.0 ** min(failures - 1, 10), 10.0)
            _log.debug("%s: decided again, for %s", key, error)
        else:
            wait = min(AGAIN * 2.0 ** min(failures - 1, 10), LONGEST)
            why = str(error) or type(error).__name__
            trace = None if isinstance(error, self._told) else error
            _log.error("%s: tried again in %g s: %s", key, wait, why, exc_info=trace)
        self._not_before[key] = self._clock() + wait
        return wait
