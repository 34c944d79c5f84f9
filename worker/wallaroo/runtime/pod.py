"""A worker as a pod of Kubernetes.

Its container is started again whenever it exits, so it exits only when it is told to, by SIGTERM,
or when it is broken: an application that has ended or failed, and a worker that owns nothing any
more, leave it idle, to be asked how it is. Nobody starts it with the others, or knows its address
before it has one, so workers look for their coordinator until they find it, and an operator decides
what begins.
"""

import asyncio
import contextlib
import os
import queue
import signal
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import structlog

from wallaroo.errors import Failure, InputError
from wallaroo.partitioning import Assignment
from wallaroo.protocol.coordinator import Phase
from wallaroo.protocol.manifest import Manifest
from wallaroo.protocol.messages import (
    Checkpoint,
    Checkpointed,
    Commit,
    Finish,
    Halt,
    Recover,
    Refuse,
    ToWorker,
)
from wallaroo.runtime.application import Program
from wallaroo.runtime.certificates import Certificates
from wallaroo.runtime.directory import Directory
from wallaroo.runtime.network import Network, joined
from wallaroo.runtime.options import FAILED, Options
from wallaroo.runtime.worker import Control, Worker
from wallaroo.v1 import control_pb2 as pb

#: Where a pod listens: the coordinator, exchanges, and who asks how it is.
CONTROL_PORT, EXCHANGE_PORT, HEALTH_PORT = 7710, 7711, 7712
#: What Kubernetes shows of a container that has ended.
TERMINATION_LOG = Path("/dev/termination-log")
#: Seconds for a checkpoint before the pod ends.
_CHECKPOINT = 20.0
#: Seconds in which a coordinator that was told of a failure has answered.
_ANSWER = 5.0
#: Seconds between looks whether output is published.
_LOOK = 0.01
#: After so many attempts to reach the coordinator, the next one is a second later.
_SLOWLY = 10

_log = structlog.get_logger("wallaroo.pod")


@dataclass(frozen=True)
class Pod:
    """Of the application `application` (an id), which `coordinator` leads to.

    name, uid, ip: of the pod; worker: its number. certificates: where they are; None for none.
    """

    name: str
    uid: str
    ip: str
    worker: int
    application: str
    coordinator: str
    certificates: Path | None = None

    def network(self) -> Network:
        """How it is reached. Raises `InputError` if the certificates can't be used."""
        coordinator = self.coordinator
        if self.worker == 0:  # its name may not lead here yet
            coordinator = joined(self.ip, CONTROL_PORT)
        certificates = Certificates(self.certificates) if self.certificates else None
        return Network(joined(self.ip, EXCHANGE_PORT), coordinator, certificates)


class PodWorker(Worker):
    """The worker of a pod."""

    _attended = True

    def __init__(
        self, program: Program, pod: Pod, options: Options, directory: Directory, network: Network
    ) -> None:
        super().__init__(program, pod.worker, options, directory.worker(pod.worker), network)
        self._pod = pod
        self._started = False
        #: Why it does nothing; empty if it does, or would.
        self._idle = ""
        #: Why the coordinator does not let it take part, or why there is none.
        self._apart = "it has not reached the coordinator yet"
        self._terminated: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._committed = 0
        #: Nothing is left that a checkpoint would keep.
        self._free = threading.Event()
        threading.Thread(target=self._await_end, name="end", daemon=True).start()

    async def run(self) -> int:
        """Work until a signal ends the process. Raises `InputError`."""
        await self._start()
        self._started = True
        _log.info("the pod is up", address=self._network.exchange)
        await asyncio.Event().wait()
        return 0

    @property
    def unready(self) -> str:
        """Why it is not ready; empty if it is. In any thread."""
        if not self._started:
            return "it waits for its predecessor to let go of its directory"
        if self._idle:
            return self._idle
        control = self._control
        if control is None or not control.connected:
            return f"it is not connected to the coordinator: {self._apart}"
        if not self.node.serves:
            return "it is no member of the assignment in force, or is leaving"
        return ""

    @property
    def refused(self) -> int:
        """Connections that could not prove that they belong here."""
        certificates = self._network.certificates
        return certificates.refused if certificates else 0

    # What differs from a worker on one machine

    def _beginning(self) -> tuple[Manifest, Phase]:
        nothing = Manifest(
            self.program.name,
            generation=0,
            epoch=0,
            assignment=Assignment.first(1),  # until it is told how many begin
            places={},
            partitions={},
            application_id=self._pod.application,
        )
        return nothing, Phase.VACANT

    def _registration(self) -> pb.FromWorker:
        message = super()._registration()
        message.register.pod = self._pod.name
        message.register.pod_uid = self._pod.uid
        return message

    def _heed(self, message: ToWorker) -> None:
        match message:
            case Refuse(why):
                self._is_refused(why)
            case Finish(released):
                self._finish(released=released)
            case Checkpointed():
                self._publishing()
            case Recover() if self._failure:
                self._exit(FAILED)  # what was in the middle of something begins as a new process
            case _:
                if isinstance(message, Recover):
                    self._idle = ""
                if isinstance(message, Commit):
                    self._committed = message.epoch
                self.node.take(message)

    def _publishing(self) -> None:
        """What it has done is committed: end once its output is where it belongs."""
        if self.node.processing and self.node.member.published < self._committed:
            self._loop.call_later(_LOOK, self._publishing)
        else:
            self._free.set()

    def _is_refused(self, why: str) -> None:
        """Ask again in a while: it, or worker 0, may be about to be replaced."""
        control = self._control
        assert control
        if why != self._apart:
            _log.error("refused", why=why)
        self._attempts = _SLOWLY
        self._coordinator_lost((control, why))

    def _finish(self, *, released: bool) -> None:
        """Nothing is left to do: stay, idle; a later coordinator may have something."""
        self._free.set()
        if not self._failure:
            self._idle = "it was released" if released else "the application has ended or failed"
        _log.info("idle", why=self._idle)
        self.node.take(Halt())
        if released and self._control:  # for good: its number may be given to another process
            control, self._control = self._control, None
            control.leave()

    def _failed(self, failure: Failure) -> None:
        self._idle = failure.message
        self._call(self.node.take, Halt())
        self._loop.call_later(_ANSWER, self._maybe_break)

    def _maybe_break(self) -> None:
        """The application goes on though this worker failed: it has to begin again."""
        if not self._free.is_set():
            leave_word(self._idle)
            self._exit(FAILED)

    def _coordinator_lost(self, lost: tuple[Control, str]) -> None:
        if lost[0] is self._control:
            self._apart = lost[1]
            self._free.set()  # what is not committed will be done again
            if self._failure:
                self._exit(FAILED)
        super()._coordinator_lost(lost)

    # The end

    def terminate(self) -> None:
        """End, once what was done is in a checkpoint. To be called by a signal's handler."""
        self._terminated.put(None)

    def _await_end(self) -> None:
        # In a thread, for a function of the user's may hold the event loop up.
        self._terminated.get()
        control = self._control
        if self._started and control and control.connected and not self._idle:
            self._free.clear()
            self.tell(Checkpoint())
            if not self._free.wait(_CHECKPOINT):
                _log.warning("no checkpoint could be had", seconds=_CHECKPOINT)
        _log.info("ended by a signal")
        self._exit(0)

    def _exit(self, code: int) -> NoReturn:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):  # user code may have put its own there
                stream.flush()
        os._exit(code)


def run_pod(worker: PodWorker) -> int:
    """Run a worker until a signal ends the process; returns the exit code if it can't."""
    signal.signal(signal.SIGTERM, lambda *_: worker.terminate())
    signal.signal(signal.SIGINT, lambda *_: worker.terminate())
    try:
        return asyncio.run(worker.run())
    except InputError as error:
        reason = str(error)
    except (OSError, RuntimeError) as error:
        reason = f"the worker can't start: {error}"
    _log.error("stopped", reason=reason)
    leave_word(reason)
    return FAILED


def leave_word(why: str, log: Path | None = None) -> None:
    """Have Kubernetes show why the container ends, where it looks for that."""
    with contextlib.suppress(OSError):
        # Never made: outside a pod there is none.
        descriptor = os.open(log or TERMINATION_LOG, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
        with open(descriptor, "w", errors="backslashreplace") as file:
            file.write(f"{why}\n"[-4096:])
