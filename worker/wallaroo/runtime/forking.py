"""Worker processes, forked from one that has loaded everything but the application.

To start Python and to load this package takes a good part of a second of a core, which a worker
that joins, or succeeds one that died, would take from those that process events. So one process of
its own, the fork server, has done that; workers are its children, and share its memory. It is a
fork of the runner, from before that had loaded the application. Workers end with it, and it ends
with the runner, however that ends.
"""

import contextlib
import ctypes
import gc
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, Pipe, wait
from multiprocessing.reduction import recv_handle, send_handle
from pathlib import Path
from typing import NoReturn

from setproctitle import setproctitle

from wallaroo.runtime.directory import keep_from_children


@dataclass(frozen=True)
class Start:
    """What a worker process is started with.

    arguments: the command line. cwd: where it runs. log: the file to which standard output and
    error are added.
    """

    arguments: list[str]
    cwd: Path
    log: Path


@dataclass(frozen=True)
class _Hold:
    """A file descriptor follows: that of the lock."""


@dataclass(frozen=True)
class _Started:
    """The answer to a `Start`: the process's number, or why there is none."""

    pid: int
    error: OSError | None = None


@dataclass(frozen=True)
class _Ended:
    """A worker has ended, with an exit code or the negative number of a signal."""

    pid: int
    code: int


class WorkerProcess:
    """Like a `subprocess.Popen`, as far as it goes."""

    def __init__(self, server: "ForkServer", pid: int) -> None:
        self._server = server
        self.pid = pid

    def poll(self) -> int | None:
        """Its exit code, or the negative number of the signal that ended it; None if it runs."""
        return self._server.code(self.pid)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def wait(self, timeout: float) -> None:
        """Return when it has ended. Raises TimeoutError."""
        until = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > until:
                raise TimeoutError
            time.sleep(0.005)


class ForkServer:
    """The runner's side of it.

    main: what a worker does with its arguments. command: what runs `serve`, up to the number that
    it is given: a server that is lost is replaced so, for then a fork would have the application.

    To be made while the process has one thread.
    """

    def __init__(self, main: Callable[[list[str]], NoReturn], command: list[str]) -> None:
        self._command = command
        self._lock: int | None = None
        self._codes: dict[int, int | None] = {}
        self._connection, theirs = Pipe()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()  # else both would write what is left
        gc.collect()  # what is left is not the fork's to finalize
        #: The fork server's number.
        self.pid = os.fork()
        if self.pid == 0:
            self._connection.close()
            os.setsid()  # Ctrl-C is for the runner, which tells the workers
            with open(os.devnull) as nothing:
                os.dup2(nothing.fileno(), 0)
            setproctitle("wallaroo fork-server")
            serve(theirs, main)
        theirs.close()
        self._wait: Callable[[], object] = partial(os.waitpid, self.pid, 0)

    def hold(self, lock: int) -> None:
        """Have it and the workers hold this lock: they are the last to let go of the directory."""
        self._lock = lock
        try:
            self._connection.send(_Hold())
            send_handle(self._connection, lock, self.pid)
            # What sends it makes a socket, which an application's default timeout makes unblocking.
            os.set_blocking(self._connection.fileno(), True)
        except OSError:
            self._lost()

    def start(self, start: Start) -> WorkerProcess:
        """Start a worker. Raises OSError."""
        start.log.open("ab").close()  # else it could not say what is wrong
        try:
            self._connection.send(start)
            while not isinstance(said := self._connection.recv(), _Started):
                self._codes[said.pid] = said.code
        except (EOFError, OSError):
            self._lost()
            raise OSError("the process that forks workers was ended; see what else does") from None
        if said.error:
            raise said.error
        self._codes[said.pid] = None
        return WorkerProcess(self, said.pid)

    def code(self, pid: int) -> int | None:
        """A worker's exit code; None while it runs."""
        try:
            while self._connection.poll():
                said = self._connection.recv()
                self._codes[said.pid] = said.code
        except (EOFError, OSError):
            self._lost()
        return self._codes[pid]

    def _lost(self) -> None:
        """The fork server is gone, and its children with it; have another one."""
        for pid, code in self._codes.items():
            if code is None:
                self._codes[pid] = -signal.SIGKILL
        self.close()
        self._connection, theirs = Pipe()
        process = subprocess.Popen(  # noqa: S603  our own interpreter
            [*self._command, str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
        self.pid, self._wait = process.pid, process.wait
        theirs.close()
        if self._lock is not None:
            self.hold(self._lock)

    def close(self) -> None:
        """End it, and what it has started."""
        self._connection.close()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(self.pid, signal.SIGCONT)  # one that was stopped would never end
        with contextlib.suppress(ChildProcessError):  # the application ignores what its children do
            self._wait()


def serve(
    runner: "Connection[_Started | _Ended, _Hold | Start]", main: Callable[[list[str]], NoReturn]
) -> NoReturn:
    """Be the fork server, until the runner ends.

    runner: leads to it. main: what a worker does with its arguments.
    """
    me = os.getpid()
    signal.signal(signal.SIGCHLD, lambda *_: None)  # so that it wakes us
    woken, wake = socket.socketpair()
    for end in (woken, wake):
        end.setblocking(False)
    signal.set_wakeup_fd(wake.fileno())
    lock: int | None = None
    # Collections would write to each object, and so give every worker a copy of its own.
    gc.freeze()
    with contextlib.suppress(EOFError, OSError):  # the runner has ended
        while True:
            ready = wait([runner, woken])
            if woken in ready:
                woken.recv(4096)
                _reap(runner)
            if runner in ready:
                start = runner.recv()
                if isinstance(start, _Hold):
                    lock = recv_handle(runner)
                    continue
                try:
                    pid = os.fork()
                except OSError as error:
                    runner.send(_Started(0, error))
                    continue
                if pid == 0:
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    for each in (runner, woken, wake):
                        each.close()
                    _end_with(me)
                    if lock is not None:
                        keep_from_children(lock)
                    _be(start, main)
                runner.send(_Started(pid))
    os._exit(0)


def _reap(runner: "Connection[_Started | _Ended, _Hold | Start]") -> None:
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            runner.send(_Ended(pid, os.waitstatus_to_exitcode(status)))


def _be(start: Start, main: Callable[[list[str]], NoReturn]) -> NoReturn:
    """Be a worker, in the process that was forked."""
    try:
        # A group for signals, but no session of its own: the kernel shares processors out between
        # sessions, and the threads of one that step back would still take them from another's.
        os.setpgid(0, 0)
        with start.log.open("ab") as log:
            for standard in (1, 2):
                os.dup2(log.fileno(), standard)
        os.chdir(start.cwd)
        sys.argv = ["wallaroo", *start.arguments]
        setproctitle(" ".join(sys.argv).encode(errors="backslashreplace").decode())
        main(start.arguments)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:  # what the fork server does is not for us, whatever happens
        os._exit(1)


def _end_with(parent: int) -> None:
    """End this process when its parent ends, however it does."""
    if sys.platform == "linux":
        set_parent_death_signal = 1  # PR_SET_PDEATHSIG of prctl(2)
        ctypes.CDLL(None, use_errno=True).prctl(set_parent_death_signal, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    if sys.platform != "linux":
        threading.Thread(target=watch, name="parent", daemon=True).start()
