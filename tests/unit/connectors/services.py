"""What connectors get from a worker, played by a test."""

import asyncio
import functools
import inspect
import shutil
import socket
import tempfile
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from wallaroo.disk import Disk, RealDisk
from wallaroo.errors import Failure

T = TypeVar("T")

#: Seconds within which everything that is waited for here has come about, even on a busy machine.
PATIENCE = 30.0


class DirectServices:
    """Blocking work is done at once, or when the test says so."""

    def __init__(
        self,
        worker: int = 0,
        workers: int = 1,
        *,
        wait: bool = False,
        disk: Disk | None = None,
        folder: Path | None = None,
    ) -> None:
        self.worker = worker
        self.workers = workers
        self.disk = disk or RealDisk()
        if folder is None:
            folder = Path(tempfile.mkdtemp())
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self.folder = folder
        self.wakes = 0
        self.failures: list[Failure] = []
        self.submitted: list[Callable[[], None]] = []
        self._wait = wait

    def wake(self) -> None:
        self.wakes += 1

    def submit(
        self, work: Callable[[], T], done: Callable[[T], None], failed: Callable[[Exception], None]
    ) -> None:
        def run() -> None:
            try:
                result = work()
            except Exception as error:
                failed(error)
            else:
                done(result)

        if self._wait:
            self.submitted.append(run)
        else:
            run()

    def run_submitted(self) -> None:
        """Do what waits to be done, and what follows from it."""
        while self.submitted:
            self.submitted.pop(0)()

    def spawn(self, task: Coroutine[Any, Any, None]) -> None:
        task.close()
        raise AssertionError("no loop to run a task on")

    def fail(self, failure: Failure) -> None:
        self.failures.append(failure)

    def waiting(self, what: str, why: str) -> None:
        pass


class LoopServices(DirectServices):
    """Tasks run on the test's event loop."""

    def __init__(self) -> None:
        super().__init__()
        self.tasks: list[asyncio.Task[None]] = []
        self.told: list[tuple[str, str]] = []

    def spawn(self, task: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(asyncio.ensure_future(task))

    def waiting(self, what: str, why: str) -> None:
        self.told.append((what, why))

    @property
    def waits(self) -> str:
        """What is told to be waited for now."""
        return self.told[-1][1] if self.told else ""

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        results = await asyncio.gather(*self.tasks, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result


async def until(condition: Callable[[], object]) -> None:
    """Wait for `condition`; fails after `PATIENCE`."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110  any condition, of any thing
            await asyncio.sleep(0.001)


def looped(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """A test that runs on an event loop; it gets `services`, and all that it left is closed."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        async def run_test() -> None:
            services = LoopServices()
            try:
                async with asyncio.timeout(2 * PATIENCE):
                    await test(*args, services=services, **kwargs)
            finally:
                await services.close()

        asyncio.run(run_test())

    signature = inspect.signature(test)
    others = [each for each in signature.parameters.values() if each.name != "services"]
    made: Any = run
    made.__signature__ = signature.replace(parameters=others)
    del made.__wrapped__
    return run


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
