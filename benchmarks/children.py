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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent
#: Seconds for an application to end after a signal.
_PATIENCE = 10.0


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


def _command(at: Path, workers: int, app: str, arguments: tuple[object, ...]) -> list[str]:
    command = [sys.executable, "-m", "wallaroo", "run", "--workers", str(workers)]
    return [*command, "--dir", str(at), str(_HERE / app), *map(str, arguments)]


def run_wallaroo(workers: int, app: str, *arguments: object) -> None:
    """`wallaroo run` an application of this folder until its sources end."""
    with folder() as temporary:
        at = temporary / "app"
        command = _command(at, workers, app, arguments)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            logs = [log.read_text()[-2000:] for log in sorted(at.glob("logs/*"))]
            raise ChildFailed("\n".join([f"{app} failed:", done.stderr, *logs]))


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
            runner.send_signal(signal.SIGTERM)  # asks for an orderly end, which never comes
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


def resident_bytes(pid: int) -> int:
    """The memory of a process that is in RAM (RSS)."""
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")
