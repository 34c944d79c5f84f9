"""The local runner: starts the workers of an application as processes, and watches them.

It does what a StatefulSet and a person with kubectl do in a cluster. Workers end when it ends,
however it ends.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

from wallaroo.connectors.file_sink import FileSinkConfig
from wallaroo.connectors.file_source import FileSourceConfig
from wallaroo.dataflow.graph import Graph
from wallaroo.errors import Failure, InputError
from wallaroo.protocol.coordinator import Phase
from wallaroo.runtime.application import Program
from wallaroo.runtime.client import Client, Unreachable
from wallaroo.runtime.directory import Directory, Sockets
from wallaroo.runtime.worker import FAILED

#: Seconds between looks at the processes, and between questions to the coordinator.
_LOOK, _ASK = 0.02, 0.5
#: Seconds for a worker to end when it is told to by a signal.
_PATIENCE = 2.0


class Interrupted(Exception):
    """A second signal: the workers were killed in the middle of what they did."""


class WorkerEnded(Exception):
    """A worker ended that should not have, and took the run with it."""

    def __init__(self, worker: int, how: str, log: Path) -> None:
        super().__init__(f"worker {worker} {how}; its log is {log}")


class Stopped(Exception):
    """The application stopped itself; carries the `Failure`."""

    def __init__(self, failure: Failure, log: Path) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.log = log


class Runner:
    """Runs `program` on `workers` processes, with state and logs in `directory`.

    cwd: the folder in which the workers start.
    """

    def __init__(self, program: Program, workers: int, directory: Directory, cwd: Path) -> None:
        self._program = program
        self._cwd = cwd
        self._workers = workers
        self._directory = directory
        self._processes: list[subprocess.Popen[bytes]] = []
        self._signals = 0
        self._stop_told = False

    def run(self, show: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        """Run until the sources end or a signal says stop; returns the last status.

        show: called now and then with the status.
        Raises `InputError`, `Stopped`, `WorkerEnded` and `Interrupted`.
        """
        _check_connectors(self._program.graph)
        lock = self._directory.claim(self._program.name)
        sockets = Sockets()
        before = {
            number: signal.signal(number, self._signalled)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        outcome: dict[str, Any] = {"ended": "killed", "error": None}
        try:
            self._directory.write_control(sockets.coordinator)
            for worker in range(self._workers):
                self._processes.append(self._spawn(worker, lock, sockets.path))
            with Client(sockets.coordinator) as client:
                self._watch(client, show)
            status = self._directory.status() or {}
            outcome["ended"] = "stopped" if status.get("stop_requested") else "ended"
            return status
        except Stopped as error:
            outcome = {"ended": "failed", "error": asdict(error.failure)}
            raise
        except WorkerEnded as error:
            outcome = {"ended": "failed", "error": asdict(Failure(str(error)))}
            raise
        finally:
            self._kill()
            sockets.remove()
            for number, handler in before.items():
                signal.signal(number, handler)
            with contextlib.suppress(OSError):  # the folder has been deleted, or the disk is full
                self._directory.write_outcome(
                    {
                        "application": self._program.name,
                        **outcome,
                        "status": self._directory.status(),
                    }
                )

    def _spawn(self, worker: int, lock: int, sockets: Path) -> subprocess.Popen[bytes]:
        # -P: modules come from where Python and the application are, not from this folder.
        command = [sys.executable, "-u", "-P", "-m", "wallaroo", "worker"]
        command += ["--worker", str(worker), "--workers", str(self._workers)]
        command += ["--parent", str(os.getpid()), "--lock", str(lock)]
        command += ["--dir", str(self._directory.path), "--sockets", str(sockets)]
        command += ["--", str(self._program.path), *self._program.arguments]
        with self._directory.log(worker).open("ab") as log:
            return subprocess.Popen(  # noqa: S603  our own interpreter
                command,
                cwd=self._cwd,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the runner, which tells the workers
                pass_fds=(lock,),  # held until the last of them is gone
            )

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        self._signals += 1

    def _watch(self, client: Client, show: Callable[[dict[str, Any]], None]) -> None:
        asked = 0.0
        while any(process.poll() is None for process in self._processes):
            self._check()
            if self._signals > 1:
                raise Interrupted
            now = time.monotonic()
            if now - asked > _ASK or (self._signals and not self._stop_told):
                asked = now
                self._ask(client, show)
            time.sleep(_LOOK)
        self._check()
        self._check_finished()

    def _ask(self, client: Client, show: Callable[[dict[str, Any]], None]) -> None:
        try:
            if self._signals and not self._stop_told:
                client.stop()
                self._stop_told = True
            show(client.status())
        except Unreachable:
            pass  # it is not there yet, or no longer

    def _check(self) -> None:
        """Raise if a worker has ended that should not have."""
        for worker, process in enumerate(self._processes):
            code = process.poll()
            if not code:
                continue
            log = self._directory.log(worker)
            failure = self._directory.failure(worker) if code == FAILED else None
            if failure:
                self._check_finished()  # it may have lost one that ended as if all were done
                raise Stopped(failure, log)
            how = (
                f"was ended by {signal.Signals(-code).name}" if code < 0 else f"broke (code {code})"
            )
            raise WorkerEnded(worker, how, log)

    def _check_finished(self) -> None:
        """Raise if a worker has ended with 0 though the application has not."""
        if (self._directory.status() or {}).get("phase") == Phase.ENDED.value:
            return
        for worker, process in enumerate(self._processes):
            if process.poll() == 0:
                how = "ended by itself (code 0) before the application did"
                raise WorkerEnded(worker, how, self._directory.log(worker))

    def _kill(self) -> None:
        """End what is left of our processes."""
        alive = [process for process in self._processes if process.poll() is None]
        for process in alive:
            process.terminate()
        deadline = time.monotonic() + _PATIENCE
        for process in alive:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _check_connectors(graph: Graph) -> None:
    """Raise `InputError` for what can be told before anything is started."""
    files = [sink for sink in graph.sinks if isinstance(sink, FileSinkConfig)]
    for index, sink in enumerate(files):
        if any(other.path.resolve() == sink.path.resolve() for other in files[:index]):
            raise InputError(f"two sinks write {sink.path}; give one of them another path")
    for source in graph.sources:
        partitions = source.config.partitions()
        if not isinstance(source.config, FileSourceConfig):
            continue
        for sink in files:
            for path in partitions:
                if sink.writes(Path(path)):
                    raise InputError(
                        f"source '{source.name}' reads {path}, which the sink {sink.path} of the "
                        "same application writes; give the sink another path"
                    )
