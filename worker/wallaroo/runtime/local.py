"""A worker as a process beside the command that runs it: `wallaroo run` on one machine.

The command is its parent: the two end together, and words between them are files in DIR. A worker
that can't go on exits, and the command says why; when the application ends, so does it.
"""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import structlog

from wallaroo.errors import Failure, InputError, to_be_mended
from wallaroo.partitioning import Assignment
from wallaroo.protocol.coordinator import Phase
from wallaroo.protocol.manifest import Manifest
from wallaroo.runtime.application import Program
from wallaroo.runtime.directory import Directory, coordinator_address, worker_address
from wallaroo.runtime.messages import status_dict
from wallaroo.runtime.network import Network
from wallaroo.runtime.options import FAILED, Options
from wallaroo.runtime.worker import Worker

#: Seconds for streams to close at the end; the process ends in any case.
_CLOSING = 1.0

_log = structlog.get_logger("wallaroo.worker")


class LocalWorker(Worker):
    """Worker `worker` of the run in `directory`, whose sockets are in `sockets`."""

    def __init__(
        self, program: Program, worker: int, options: Options, directory: Directory, sockets: Path
    ) -> None:
        network = Network(worker_address(sockets, worker), coordinator_address(sockets))
        super().__init__(program, worker, options, directory.worker(worker), network)
        self._directory = directory
        self._sockets = sockets

    async def run(self) -> int:
        """Work until told to finish; returns the exit code. Raises `InputError`."""
        await self._start()
        await self._done.wait()
        self._finishing = True
        closing = [*self._tasks, asyncio.ensure_future(self._server.stop(None))]
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(closing, timeout=_CLOSING)
        service = self._service
        if service:
            status = status_dict(service.status())
            _leave_word(lambda place: place.write_status(status), self._directory, self._sockets)
        if self._control:
            self._control.leave()
        if service:
            if not self._failure:
                await asyncio.to_thread(service.wait_until_alone)
            self._coordinator.stop(None).wait()
            service.close()
        self._threads.shutdown(wait=False, cancel_futures=True)
        if not self._failure:
            self.node.close()
        os.close(self._lock)
        return FAILED if self._failure else 0

    def _beginning(self) -> tuple[Manifest, Phase]:
        assignment = Assignment.first(self._options.workers or 1)
        return Manifest(self.program.name, 0, 0, assignment, {}, {}), Phase.FORMING

    def _failed(self, failure: Failure) -> None:
        self._done.set()
        _leave_word(
            lambda place: place.write_failure(self.worker, failure), self._directory, self._sockets
        )


def run_worker(
    program: Program, worker: int, options: Options, directory: Directory, sockets: Path
) -> int:
    """Run a worker in this process until the application ends; returns the exit code."""
    try:
        return asyncio.run(LocalWorker(program, worker, options, directory, sockets).run())
    except InputError as error:
        reason = str(error)
    except OSError as error:  # on the way to work: later ones have their own words
        where = error.filename or directory.worker(worker)
        reason = to_be_mended(f"can't use {where}: {error.strerror or error}")
    failure = Failure(reason, worker=worker)
    _leave_word(lambda place: place.write_failure(worker, failure), directory, sockets)
    _log.error("stopped", reason=reason)
    return FAILED


def _leave_word(write: Callable[[Directory], None], directory: Directory, sockets: Path) -> None:
    """Tell the runner something: the disk may be full, or the directory gone."""
    for place in (directory, Directory(sockets)):
        try:
            write(place)
        except OSError as error:
            _log.error("the runner can't be told", why=str(error))
        else:
            return
