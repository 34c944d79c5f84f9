"""Real worker processes on this machine: started, watched and ended by the tests."""

import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from wallaroo.errors import InputError
from wallaroo.runtime.client import Client, Unreachable
from wallaroo.runtime.directory import Directory

ROOT = Path(__file__).resolve().parents[2]
T = TypeVar("T")

#: The command, as it is installed beside this Python.
WALLAROO = str(Path(sys.executable).with_name("wallaroo"))

#: Seconds to wait for what must come; only a broken product waits so long.
PATIENCE = 60.0


def until(what: Callable[[], T], why: str = "") -> T:
    """The first true value of `what`; fails the test if none comes."""
    deadline = time.monotonic() + PATIENCE
    while True:
        value = what()
        if value:
            return value
        assert time.monotonic() < deadline, why or "waited in vain"
        time.sleep(0.02)


def frame(payload: bytes) -> bytes:
    """A frame with a header of four bytes."""
    return struct.pack(">I", len(payload)) + payload


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class Run:
    """A `wallaroo run`, in a directory of its own."""

    def __init__(
        self,
        cwd: Path,
        app: Path,
        args: list[str],
        workers: int | None = 1,
        options: Sequence[str] = (),
    ) -> None:
        self.cwd = cwd
        self.dir = cwd / "dir"
        command = [WALLAROO, "run", *options]
        if workers is not None:
            command += ["--workers", str(workers)]
        command += ["--dir", str(self.dir), str(app), *args]
        self.process = subprocess.Popen(
            command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.out = ""
        self.err = ""
        self._client: Client | None = None

    def wait(self) -> int:
        """Its exit code, once it has ended."""
        self._hang_up()
        self.out, self.err = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode

    def succeed(self) -> None:
        assert self.wait() == 0, self.err + self.logs()

    def logs(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self.dir.glob("logs/*.log")))

    def status(self) -> dict[str, Any]:
        """What `wallaroo status --json` prints; {} while it can't."""
        try:
            address = Directory(self.dir).coordinator()
            if address:  # takes a hundredth of the command's time
                if not self._client:
                    self._client = Client(address)
                return self._client.status()
        except (Unreachable, InputError):
            self._hang_up()
            return {}
        if self.process.poll() is None:  # it starts
            return {}
        done = cli("status", "--json", "--dir", str(self.dir))
        return json.loads(done.stdout) if done.returncode == 0 else {}

    def _hang_up(self) -> None:
        if self._client:
            self._client.__exit__(None, None, None)
            self._client = None

    def until_running(self) -> dict[str, Any]:
        def running() -> dict[str, Any]:
            if self.process.poll() is not None:
                self.wait()
                raise AssertionError(f"the run has ended: {self.err}{self.logs()}")
            found = self.status()
            return found if found.get("phase") == "running" else {}

        return until(running, "the run did not start")

    def pids(self) -> list[int]:
        """Of its workers."""
        return [worker["pid"] for worker in self.until_running()["workers"]]

    def until_committed(self, epochs: int = 2) -> None:
        """Return when so many epochs more are committed, without a fault in between."""
        found = self.until_running()

        def committed() -> bool:
            nonlocal found
            now = self.until_running()
            if now["generation"] != found["generation"]:
                found = now
            return bool(now["epoch"] >= found["epoch"] + epochs)

        until(committed, "nothing is committed")

    def kill_workers(self, *workers: int) -> None:
        """Kill these at once; return when others have taken their places."""
        pids = self.pids()
        for worker in workers:
            os.kill(pids[worker], signal.SIGKILL)
        until(
            lambda: all(
                new != pids[worker] for worker, new in enumerate(self.pids()) if worker in workers
            )
        )

    def ask_for(self, workers: int) -> None:
        """Ask for so many workers, as `wallaroo scale` does in ten times the time."""
        Directory(self.dir).write_target(workers)

    def until_members(self, workers: int) -> dict[str, Any]:
        """Return when so many workers are members, and nothing is left to be rescaled."""

        def rescaled() -> dict[str, Any]:
            found = self.until_running()
            settled = not found["rescale"] and not found["leaving"]
            return found if settled and found["members"] == list(range(workers)) else {}

        try:
            return until(rescaled)
        except AssertionError:
            found = {name: each for name, each in self.status().items() if name != "assignment"}
            raise AssertionError(f"it is not rescaled to {workers}: {found}{self.logs()}") from None

    def scale(self, workers: int) -> dict[str, Any]:
        """Ask for so many workers, and return when they are members; returns the record."""
        self.ask_for(workers)
        record: dict[str, Any] = self.until_members(workers)["rescales"][-1]
        assert (record["outcome"], record["to"]) == ("committed", workers)
        return record

    def kill_everything(self) -> None:
        """The runner, and all its workers at once, as when the power fails."""
        pids = self.children()
        for number in (signal.SIGSTOP, signal.SIGKILL):  # so that none sees another one die
            for pid in (self.process.pid, *pids):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
        self.kill()
        until(lambda: not any(map(alive, pids)), "workers are left")

    def children(self) -> list[int]:
        """The processes of all its workers, of those that join or leave, too."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it has ended
                title = (process / "cmdline").read_text(errors="replace")
                if title.startswith("wallaroo worker ") and f" --dir {self.dir} " in title:
                    found.append(int(process.name))
        return found

    def kill(self) -> None:
        self._hang_up()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        if self.process.stdout and not self.process.stdout.closed:
            self.process.communicate()


def cli(*args: str) -> subprocess.CompletedProcess[str]:
    """`wallaroo` with `args`, to its end."""
    return subprocess.run(
        [WALLAROO, *args],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits for its parent does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


class Peer:
    """What listens at the other end of a TCP sink, and keeps all lines that it gets."""

    def __init__(self, port: int = 0) -> None:
        #: By connection: what several send comes in pieces that don't end where lines do.
        self._got: list[bytearray] = []
        self.connections: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port = int(self._listener.getsockname()[1])
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._closed = False
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections.append(connection)
            self._got.append(bytearray())
            args = (connection, self._got[-1])
            thread = threading.Thread(target=self._read, args=args, daemon=True)
            self._threads.append(thread)
            thread.start()

    def _read(self, connection: socket.socket, got: bytearray) -> None:
        try:
            while data := connection.recv(1 << 16):
                with self._lock:
                    got += data
        except OSError:
            pass

    @property
    def data(self) -> bytes:
        """The whole lines; what a connection that was cut had begun comes again on another."""
        with self._lock:
            return b"".join(bytes(got[: got.rfind(b"\n") + 1]) for got in self._got)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._accepting.join(timeout=5)
        self._listener.close()
        for connection in self.connections:
            # Reset, as a process that dies with unread data does.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        for thread in self._threads:
            thread.join(timeout=5)
