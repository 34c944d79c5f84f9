"""Fresh processes to measure in: what one measurement leaves behind must not touch the next.

Everything runs in a temporary directory, with this interpreter; a child that fails ends the
benchmark with what it said.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from wallaroo.errors import InputError
from wallaroo.runtime.client import Client, Unreachable
from wallaroo.runtime.directory import Directory

T = TypeVar("T")

_HERE = Path(__file__).parent
#: Options of `wallaroo run`: no checkpoint but the one at the end.
NO_CHECKPOINTS = ("--checkpoint-interval", "0")
#: Seconds for an application to end after a signal.
_PATIENCE = 10.0
#: Seconds between looks at an application that is watched.
_LOOK = 0.2


class ChildFailed(Exception):
    """A process that was to be measured did not end well."""


def run_script(script: str, *arguments: object) -> dict[str, Any]:
    """Run a script of this folder; returns the JSON that it prints."""
    command = [sys.executable, str(_HERE / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ChildFailed(f"{script} failed:\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@contextmanager
def folder() -> Iterator[Path]:
    """A temporary folder for results."""
    with tempfile.TemporaryDirectory(prefix="bench-") as path:
        yield Path(path)


def results(path: Path) -> list[dict[str, Any]]:
    """What workers wrote to a folder of results."""
    return [json.loads(file.read_text()) for file in sorted(path.glob("*.json"))]


def _command(
    at: Path, workers: int, app: str, arguments: Sequence[object], options: Sequence[object] = ()
) -> list[str]:
    command = [sys.executable, "-m", "wallaroo", "run", "--workers", str(workers)]
    command += ["--dir", str(at), *map(str, options)]
    return [*command, str(_HERE / app), *map(str, arguments)]


class Running:
    """A live run of the application `app`, in the directory `at`."""

    def __init__(self, at: Path, app: str, runner: subprocess.Popen[bytes], said: Path) -> None:
        self.at = at
        self._app = app
        self._runner = runner
        self._said = said
        self._client: Client | None = None

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return self._runner.poll() is None

    def status(self) -> dict[str, Any] | None:
        """What `wallaroo status --json` prints; None while nobody answers.

        It is asked for without starting a process, which would use a good part of a core.
        """
        try:
            if self._client is None:
                address = Directory(self.at).coordinator()
                if address is None:
                    return None
                self._client = Client(address)
            return self._client.status()
        except (InputError, Unreachable):
            self.close()  # a new connection does not wait before it tries
            return None

    def running(self) -> dict[str, Any]:
        """The status once all its workers run."""

        def look() -> dict[str, Any] | None:
            status = self.status()
            return status if status and status["phase"] == "running" else None

        return self.wait_for(look, "does not run")

    def wait_for(
        self, look: Callable[[], T | None], lacking: str, every: float = 0.1, patience: float = 30.0
    ) -> T:
        """What `look` gives once that is not None. Raises `ChildFailed`.

        every: seconds between looks. patience: seconds until it is given up; lacking: why.
        """
        until = time.monotonic() + patience
        while time.monotonic() < until and self.alive:
            found = look()
            if found is not None:
                return found
            time.sleep(every)
        raise self._failed(lacking if self.alive else "has ended")

    def wait(self) -> None:
        """Return when its sources have ended. Raises `ChildFailed` if it ends another way."""
        if self._runner.wait():
            raise self._failed("failed")

    def _failed(self, how: str) -> ChildFailed:
        logs = [log.read_text()[-2000:] for log in sorted(self.at.glob("logs/*"))]
        return ChildFailed("\n".join([f"{self._app} {how}:", self._said.read_text(), *logs]))

    def close(self) -> None:
        """Let go of the connection."""
        if self._client:
            self._client.__exit__()
            self._client = None


@contextmanager
def started(
    workers: int, app: str, *arguments: object, options: Sequence[object] = ()
) -> Iterator[Running]:
    """`wallaroo run` an application of this folder; it is killed if it lives longer than this."""
    with folder() as temporary:
        at, said = temporary / "app", temporary / "said"
        with said.open("w") as file:
            runner = subprocess.Popen(
                _command(at, workers, app, arguments, options), stdout=file, stderr=file
            )
        running = Running(at, app, runner, said)
        try:
            yield running
        finally:
            running.close()
            _end(runner)


def run_wallaroo(
    workers: int,
    app: str,
    *arguments: object,
    options: Sequence[object] = (),
    watch: Callable[[Running], None] | None = None,
) -> None:
    """`wallaroo run` an application of this folder until its sources end.

    watch: called now and then meanwhile.
    """
    with started(workers, app, *arguments, options=options) as running:
        while watch and running.alive:
            watch(running)
            time.sleep(_LOOK)
        running.wait()


@contextmanager
def running_wallaroo(workers: int, app: str, *arguments: object) -> Iterator[Path]:
    """`wallaroo run` an application that never ends, in the directory given; kill it at the end."""
    with folder() as temporary:
        at = temporary / "app"
        runner = subprocess.Popen(
            _command(at, workers, app, arguments),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield at
        finally:
            _end(runner)


def _end(runner: subprocess.Popen[bytes]) -> None:
    """End an application in the middle of what it does."""
    if runner.poll() is not None:
        return
    runner.send_signal(signal.SIGTERM)  # asks for an orderly end, which may never come
    time.sleep(0.5)
    runner.send_signal(signal.SIGTERM)
    try:
        runner.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        runner.kill()  # its workers end with it
        runner.wait()


def status(at: Path) -> dict[str, Any] | None:
    """What `wallaroo status` knows of the application in the directory `at`; None if not yet."""
    command = [sys.executable, "-m", "wallaroo", "status", "--json", "--dir", str(at)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return json.loads(done.stdout) if done.returncode == 0 else None


def run_bytewax(processes: int, kind: str, count: int, into: Path) -> None:
    """Run the flow for comparison: in one process, or in a cluster of several on loopback.

    It takes no snapshots, as the application that it is compared to takes none either.
    """
    flow = f"bytewax_flow:flow({kind!r}, {count}, {str(into)!r})"
    command = [sys.executable, "-m", "bytewax.run", "-s", "3600", flow]
    addresses = ";".join(f"127.0.0.1:{port}" for port in _free_ports(processes))
    children = []
    with (into / "said").open("w") as said:
        for process in range(processes):
            cluster = ["-i", str(process), "-a", addresses] if processes > 1 else []
            children.append(
                subprocess.Popen([*command, *cluster], cwd=_HERE, stdout=said, stderr=said)
            )
        try:
            if any(child.wait() for child in children):
                raise ChildFailed(f"bytewax failed:\n{(into / 'said').read_text()}")
        finally:
            for child in children:
                child.kill()
                child.wait()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def unshared_bytes(pid: int | None = None) -> int:
    """The memory that a process has for itself (USS); this process's if none is named."""
    with open(f"/proc/{pid or os.getpid()}/smaps_rollup") as file:
        return 1024 * sum(int(line.split()[1]) for line in file if line.startswith("Private_"))


def proportional_bytes(pid: int) -> int:
    """Memory of a process; of pages that several share, its part (PSS)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"process {pid} tells no memory")


def resident_bytes(pid: int) -> int:
    """The memory of a process that is in RAM (RSS)."""
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


def written_bytes(pid: int) -> int:
    """What a process has caused to be written to disks, since it started."""
    fields = Path(f"/proc/{pid}/io").read_text().split()
    return int(fields[fields.index("write_bytes:") + 1])
