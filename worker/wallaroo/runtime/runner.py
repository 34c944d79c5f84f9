"""The local runner: starts the workers of an application as processes, and watches them.

It does what a StatefulSet and an operator do in a cluster: a worker that dies is started again, one
that hangs is killed first; where another number of workers is asked for than there are members, it
starts those that are to join and asks the coordinator for a rescale, until it has come about
(wallaroo.runtime.scaler). Workers end when it ends, however it ends.
"""

import contextlib
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from wallaroo.disk import RealDisk
from wallaroo.errors import Failure, InputError
from wallaroo.protocol.coordinator import Phase
from wallaroo.protocol.manifest import Manifest
from wallaroo.runtime.application import Program
from wallaroo.runtime.checks import check_connectors
from wallaroo.runtime.client import Client, Unreachable
from wallaroo.runtime.directory import Directory, Sockets, worker_socket
from wallaroo.runtime.forking import ForkServer, Start, WorkerProcess
from wallaroo.runtime.manifests import Manifests
from wallaroo.runtime.options import FAILED, Options
from wallaroo.runtime.scaler import Scaler

#: Seconds between looks at the processes, and between questions to the coordinator.
_LOOK, _ASK = 0.02, 0.5
#: The same until the application runs.
_ASK_FIRST = 0.1
#: Seconds for the coordinator to answer, before the processes are looked at again.
_ANSWER = 2.0
#: Seconds for a worker to end when it is told to by a signal.
_PATIENCE = 2.0
#: At which of its deaths, without a checkpoint in between, a worker is given up.
_DEATHS = 5
#: Seconds before a worker is started again, doubled with each death without a checkpoint.
_RESTART, _LONGEST_RESTART = 0.05, 2.0
_OVER = {Phase.ENDED.value, Phase.FAILED.value}
#: How many times a worker's patience worker 0 may leave a question for the status unanswered.
_COORDINATOR = 3


class Interrupted(Exception):
    """A second signal: the workers were killed in the middle of what they did."""


class WorkerEnded(Exception):
    """A worker died again and again, with no checkpoint in between."""

    def __init__(self, worker: int, how: str, log: Path) -> None:
        super().__init__(
            f"worker {worker} {how}; that was its {_DEATHS}th death without a checkpoint in "
            f"between, so there is no point in starting it again; its log is {log}"
        )


class Stopped(Exception):
    """The application stopped itself; carries the `Failure`."""

    def __init__(self, failure: Failure, log: Path) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.log = log


class View(Protocol):
    """What shows a run to a person."""

    def update(self, status: dict[str, Any]) -> None:
        """The coordinator's status."""

    def tell(self, what: str) -> None:
        """Something that a person should know."""


@dataclass(eq=False)
class _Process:
    """A worker's process, or the time at which its successor starts."""

    worker: int
    process: WorkerProcess | None = None
    restart_at: float = 0.0
    #: It has ended because the application has.
    ended: bool = False
    #: How often it has died since the last checkpoint.
    deaths: int = 0
    #: When it was last seen to be there, or excused; 0 if it can't be yet.
    seen: float = 0.0


class Runner:
    """Runs `program` with state and logs in `directory`.

    cwd: the folder in which the workers start. server: forks them; it is closed at the end.
    """

    def __init__(
        self,
        program: Program,
        options: Options,
        directory: Directory,
        cwd: Path,
        server: ForkServer,
    ) -> None:
        self._program = program
        self._cwd = cwd
        self._server = server
        self._options = options
        self._directory = directory
        self._processes: list[_Process] = []
        self._scaler = Scaler(directory)
        self._signals = 0
        self._stop_told = False
        self._epoch = 0
        self._answered = 0.0
        #: The last one that was seen to run.
        self._generation = 0

    def run(self, view: View) -> dict[str, Any]:
        """Run until the sources end or a signal says stop; returns the last status.

        Raises `InputError`, `Stopped`, `WorkerEnded` and `Interrupted`.
        """
        check_connectors(self._program.graph, self._options.dead_letters)
        lock = self._directory.claim(self._program.name)
        members = self._members(view)
        self._sockets = sockets = Sockets()
        before = {
            number: signal.signal(number, self._signalled)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        outcome: dict[str, Any] = {"ended": "killed", "error": None}
        try:
            try:
                self._server.hold(lock)
                self._scaler.begin(members, self._options.workers)
                self._directory.write_control(sockets.coordinator)
                for worker in sorted(self._scaler.needed):
                    self._processes.append(_Process(worker, self._spawn(worker, sockets.path)))
            except OSError as error:
                raise InputError(
                    f"can't use {self._directory.path}: {error.strerror or error}"
                ) from None
            with Client(sockets.coordinator, _ANSWER) as client:
                self._watch(client, view, lambda w: self._spawn(w, sockets.path))
            status = self._last_status()
            if status["phase"] == Phase.FAILED.value:  # who said why was killed on its way out
                raise Stopped(Failure(**status["error"]), self._directory.log(0))
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
            self._server.close()
            for number, handler in before.items():
                signal.signal(number, handler)
            status = self._last_status()
            sockets.remove()
            with contextlib.suppress(OSError):  # the folder has been deleted, or the disk is full
                self._directory.write_outcome(
                    {
                        "application": self._program.name,
                        **outcome,
                        "status": status or None,
                    }
                )

    def _members(self, view: View) -> list[int]:
        """The workers to start: those of the checkpoint, if there is one."""
        manifest = Manifests(RealDisk(), self._directory.worker(0) / "manifests").last()
        if manifest is None or manifest.epoch == 0:
            if manifest is not None:
                self._directory.forget_state()  # nothing had been committed
            return list(range(self._options.workers or 1))
        view.tell(self._resuming(manifest))
        self._epoch = manifest.epoch
        self._scaler.needed = {*manifest.members, *manifest.leaving}
        self._scaler.told = {each["attempt"] for each in manifest.history}
        return list(manifest.members)

    def _resuming(self, manifest: Manifest) -> str:
        if manifest.complete:
            text = f"all sources had ended by the checkpoint of epoch {manifest.epoch}: "
            text += "nothing is left to do but what has been added since"
        else:
            text = f"going on from the checkpoint of epoch {manifest.epoch}"
        workers = len(manifest.members)
        if self._options.workers not in (None, workers) and not manifest.complete:
            text += (
                f", with its {workers} worker{'s' * (workers > 1)}; then it is rescaled to "
                f"{self._options.workers}"
            )
        return text

    def _spawn(self, worker: int, sockets: Path) -> WorkerProcess:
        worker_socket(sockets, worker).unlink(missing_ok=True)
        arguments = ["worker", "--worker", str(worker), *self._options.flags()]
        arguments += ["--dir", str(self._directory.path), "--sockets", str(sockets)]
        arguments += ["--", str(self._program.path), *self._program.arguments]
        return self._server.start(Start(arguments, self._cwd, self._directory.log(worker)))

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        self._signals += 1

    def _watch(self, client: Client, view: View, spawn: Callable[[int], WorkerProcess]) -> None:
        asked = 0.0
        self._answered = over = time.monotonic()
        while not all(each.ended for each in self._processes):
            now = time.monotonic()
            if not self._processes[0].ended:
                over = now
            elif now - over > _PATIENCE:
                return  # what is left succeeds workers that died when all was done
            for each in list(self._processes):
                self._look_after(each, now, view, client, spawn)
            if self._signals > 1:
                raise Interrupted
            # It shows that it runs as soon as it does.
            soon = not self._generation or self._scaler.busy
            if now - asked > (_ASK_FIRST if soon else _ASK) or (
                self._signals and not self._stop_told
            ):
                asked = now
                self._ask(client, view, spawn)
            time.sleep(_LOOK)

    def _ask(self, client: Client, view: View, spawn: Callable[[int], WorkerProcess]) -> None:
        try:
            status = client.status()
            self._stop_told = bool(self._signals)
            # Again and again: a coordinator that is restarted does not know of it.
            if self._signals and not status["stop_requested"]:
                client.stop()
        except Unreachable:
            for each in self._processes:
                each.seen = each.seen and time.monotonic()
            self._maybe_kill_coordinator(view)
            return
        self._answered = time.monotonic()
        self._kill_silent(status, view)
        generation = status["generation"]
        if status["phase"] == Phase.RUNNING.value and generation > self._generation:
            if self._generation:
                view.tell(f"going on from the checkpoint of epoch {status['epoch']}")
            self._generation = generation
        self._scale(status, client, view, spawn)
        view.update(status)

    def _scale(
        self,
        status: dict[str, Any],
        client: Client,
        view: View,
        spawn: Callable[[int], WorkerProcess],
    ) -> None:
        """Bring about as many workers as are asked for."""
        running = {each.worker for each in self._processes}
        scaler = self._scaler
        scaler.look(status, client, view.tell)
        for worker in sorted(scaler.needed - running):
            try:
                self._processes.append(_Process(worker, spawn(worker)))
            except OSError as error:
                scaler.failed(f"worker {worker} can't be started: {error}", view.tell)
        for each in list(self._processes):
            if each.worker in scaler.needed:
                continue
            process = each.process
            if process is not None and process.poll() is None:
                if each.worker in scaler.unwanted:
                    process.terminate()  # it has not joined, and is not to any more
                continue
            self._processes.remove(each)
        for worker in scaler.gone - {each.worker for each in self._processes}:
            with contextlib.suppress(OSError):
                self._directory.remove_worker(worker)

    def _kill_silent(self, status: dict[str, Any], view: View) -> None:
        """End workers whose process is there, but which take part no more.

        The coordinator has given them up; or they were members, and do not come to a new one.
        """
        known = {each["worker"]: each for each in status["workers"]}
        now = time.monotonic()
        for each in self._processes:
            process, said = each.process, known.get(each.worker)
            if process is None or process.poll() is not None:
                continue
            if said is None or said["pid"] != process.pid:
                said = {"present": False, "silent": False}  # it is not there yet, or not again
            # Its socket is there once it has loaded the application, which may take long.
            loaded = worker_socket(self._sockets.path, each.worker).exists()
            if said["present"] or status["phase"] in _OVER or (loaded and not each.seen):
                each.seen = now
            elif each.seen and (said["silent"] or now - each.seen > self._options.patience):
                view.tell(
                    f"worker {each.worker} has not answered for {self._options.patience:g} s: "
                    "it is killed"
                )
                process.kill()
                each.seen = 0.0

    def _maybe_kill_coordinator(self, view: View) -> None:
        """Worker 0 is watched from here."""
        patience = _COORDINATOR * self._options.patience
        process = self._processes[0].process
        if process is None or process.poll() is not None:
            self._answered = time.monotonic()
        elif time.monotonic() - self._answered > patience:
            view.tell(f"worker 0 has not answered for {patience:g} s: it is killed")
            process.kill()
            self._answered = time.monotonic()

    def _look_after(
        self,
        each: _Process,
        now: float,
        view: View,
        client: Client,
        spawn: Callable[[int], WorkerProcess],
    ) -> None:
        """Start a worker again that has died. Raises `Stopped` and `WorkerEnded`."""
        if each.process is None:
            if now >= each.restart_at:
                try:
                    each.process = spawn(each.worker)
                    each.seen = 0.0
                except OSError as error:
                    why = f"worker {each.worker} can't be started again: {error}"
                    raise Stopped(Failure(why), self._directory.log(each.worker)) from None
                self._answered = now
            return
        code = each.process.poll()
        if code is None or each.ended:
            return
        log = self._directory.log(each.worker)
        if each.worker not in self._scaler.members:
            self._has_left(each, code, view)
            return
        if code == FAILED:
            raise Stopped(self._why(each.worker), log)
        status: dict[str, Any] = {}
        try:
            status = self._newest(client)
        except Unreachable:
            if code == 0:
                return  # worker 0 is ending, too: its word is there in a moment
        each.ended = status.get("phase") in _OVER
        if each.ended:
            return
        if code == 0 and each.worker not in status.get("members", [each.worker]):
            self._has_left(each, code, view)  # since the last look
            return
        if code < 0:
            how = f"was ended by {signal.Signals(-code).name}"
        elif code == 0:
            how = "ended by itself (code 0) before the application did"
        else:
            how = f"broke (code {code})"
        self._forgive()
        each.deaths += 1
        if each.deaths >= _DEATHS:
            raise WorkerEnded(each.worker, how, log)
        view.tell(f"worker {each.worker} {how}: it is started again")
        delay = min(_RESTART * 2 ** (each.deaths - 1), _LONGEST_RESTART)
        each.process, each.restart_at = None, now + delay
        if each is self._processes[0]:
            # Its successor knows nothing of who has ended already: it needs them all again.
            for other in self._processes[1:]:
                if other.ended:
                    other.process, other.ended, other.restart_at = None, False, now + delay

    def _has_left(self, each: _Process, code: int, view: View) -> None:
        """The process of a worker that is no member has ended."""
        self._processes.remove(each)
        if each.worker in self._scaler.unwanted or code == 0:
            return
        if code == FAILED:
            why = self._why(each.worker).message
        else:
            why = f"worker {each.worker} ended with code {code} before it had joined"
        self._scaler.failed(why, view.tell)

    def _forgive(self) -> None:
        """After a checkpoint, deaths count anew."""
        with contextlib.suppress(InputError):  # worker 0 says so itself
            manifest = Manifests(RealDisk(), self._directory.worker(0) / "manifests").last()
            if manifest and manifest.epoch > self._epoch:
                self._epoch = manifest.epoch
                for each in self._processes:
                    each.deaths = 0

    def _why(self, worker: int) -> Failure:
        """Why a worker has stopped, by its own word."""
        said = self._directory.failure(worker) or Directory(self._sockets.path).failure(worker)
        return said or Failure(f"worker {worker} stopped, and could not say why", worker=worker)

    def _newest(self, client: Client) -> dict[str, Any]:
        """What worker 0 says, or its last word, which it writes before it ends; empty for none.

        Raises `Unreachable`.
        """
        zero = self._processes[0].process
        if zero is None:
            return {}
        # In this order: between the two it may end.
        return client.status() if zero.poll() is None else self._last_status()

    def _last_status(self) -> dict[str, Any]:
        """What worker 0 knew when it ended."""
        return self._directory.status() or Directory(self._sockets.path).status() or {}

    def _kill(self) -> None:
        """End what is left of our processes."""
        alive = [each.process for each in self._processes if each.process]
        alive = [process for process in alive if process.poll() is None]
        for process in alive:
            process.terminate()
        deadline = time.monotonic() + _PATIENCE
        for process in alive:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except TimeoutError:
                process.kill()
