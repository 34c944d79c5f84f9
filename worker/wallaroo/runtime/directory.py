"""An application's directory, and the private one for its sockets.

DIR/application.json    which application it belongs to
DIR/lock                held while a run lives, by its runner and all its workers
DIR/control.json        where the coordinator of the live run listens
DIR/target.json         how many workers are asked for
DIR/failure-N.json      why worker N stopped
DIR/status.json         what worker 0 knew of the application when it ended
DIR/outcome.json        how the last run ended
DIR/logs/worker-N.log   what worker N said
DIR/workers/N/          worker N's state: see wallaroo.runtime.identity, wallaroo.state.store

Sockets lie elsewhere, in a new directory of mode 0700: the path of a Unix socket is at most 107
bytes long, and DIR may be anywhere.
"""

import contextlib
import fcntl
import json
import os
import re
import shutil
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from wallaroo.disk import RealDisk
from wallaroo.errors import Failure, InputError
from wallaroo.runtime.options import MOST_WORKERS

#: Seconds to wait for the workers of a run whose runner was killed.
_PATIENCE = 5.0


def default_directory(application: str) -> Path:
    """`.wallaroo/NAME` in the current directory; NAME is the application's, fit for a file.

    >>> default_directory("Word Count!")
    PosixPath('.wallaroo/Word-Count')
    """
    name = re.sub(r"[^\w.-]+", "-", application).strip("-.") or "application"
    return Path(".wallaroo") / name


class Directory:
    """The directory at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.logs = path / "logs"

    def claim(self, application: str) -> int:
        """Make it this application's and lock it; returns the lock, to be passed to workers.

        Raises `InputError` if it is another application's, in use, or can't be written.
        """
        try:
            str(self.path).encode()
        except UnicodeEncodeError:  # nor would the state's database take it
            raise InputError(
                f"can't use {self.path}: its name is not UTF-8; choose another --dir"
            ) from None
        try:
            RealDisk().make_folder(self.path)
            self._check_empty()
            lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._lock(lock)
            owner = self._read("application.json")
            if owner is not None and owner.get("application") != application:
                raise InputError(
                    f"{self.path} belongs to the application {owner.get('application')!r}, not to "
                    f"{application!r}; choose another --dir, or delete it"
                )
            self._write("application.json", {"application": application, "format": 1})
            self.logs.mkdir(exist_ok=True)
            for stale in [*self.path.glob("failure-*.json"), *self.logs.glob("worker-*.log")]:
                stale.unlink()
            self._remove_stale_sockets()
            for name in ("control.json", "status.json", "outcome.json", "target.json"):
                (self.path / name).unlink(missing_ok=True)
        except OSError as error:
            raise InputError(f"can't use {self.path}: {error.strerror}") from None
        return lock

    def _check_empty(self) -> None:
        """Raise `InputError` if there is something that is not Wallaroo's."""
        names = {entry.name for entry in self.path.iterdir()} - {"lock"}
        if names and "application.json" not in names:
            raise InputError(
                f"{self.path} is not empty and belongs to no application of Wallaroo's; "
                "choose another --dir"
            )

    def _remove_stale_sockets(self) -> None:
        """Those of a run whose runner was killed; the lock says that it is over."""
        control = self._read("control.json") or {}
        sockets = Path(str(control.get("coordinator", "")).removeprefix("unix:")).parent
        if sockets.name.startswith("wallaroo-") and sockets.is_dir():
            shutil.rmtree(sockets, ignore_errors=True)

    def _lock(self, lock: int) -> None:
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                control = self._read("control.json") or {}
                pid = control.get("pid")
                # After kill -9 of a runner its workers end by themselves, a moment later.
                if time.monotonic() > deadline or (isinstance(pid, int) and _alive(pid)):
                    who = f" (process {pid})" if pid else ""
                    raise InputError(
                        f"{self.path} is in use by a live run{who}; stop it with "
                        f"'wallaroo stop --dir {self.path}', or choose another --dir"
                    ) from None
                time.sleep(0.05)

    @property
    def locked(self) -> bool:
        """Whether a run lives."""
        try:
            lock = os.open(self.path / "lock", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        else:
            return False
        finally:
            os.close(lock)

    @property
    def cut_short(self) -> bool:
        """Whether the last run has ended without a word."""
        return self._read("control.json") is not None and not self.locked

    def log(self, worker: int) -> Path:
        return self.logs / f"worker-{worker}.log"

    def worker(self, worker: int) -> Path:
        """Where worker `worker` keeps its state."""
        return self.path / "workers" / str(worker)

    def workers(self) -> set[int]:
        """The workers that have left something here."""
        found = (path.name for path in (self.path / "workers").glob("*"))
        return {int(name) for name in found if name.isdecimal()}

    def forget_state(self) -> None:
        """Remove the state of all workers."""
        forgotten = self.path / "forgotten"
        shutil.rmtree(forgotten, ignore_errors=True)
        if (self.path / "workers").exists():
            (self.path / "workers").rename(forgotten)  # all or nothing
            RealDisk().sync_folder(self.path)
        shutil.rmtree(forgotten, ignore_errors=True)

    def write_control(self, address: str) -> None:
        self._write("control.json", {"pid": os.getpid(), "coordinator": address})

    def coordinator(self) -> str | None:
        """Where the coordinator of the live run listens; None if no run lives."""
        control = self._read("control.json")
        return str(control["coordinator"]) if control and self.locked else None

    def write_target(self, workers: int) -> None:
        """Ask for a number of workers."""
        self._write("target.json", {"workers": workers})

    def target(self) -> int | None:
        """How many workers are asked for; None if nobody has asked."""
        found = self._read("target.json")
        if found is None:
            return None
        workers = found.get("workers")
        if not isinstance(workers, int) or not 1 <= workers <= MOST_WORKERS:
            raise InputError(f"{self.path / 'target.json'} asks for no number of workers")
        return workers

    def remove_worker(self, worker: int) -> None:
        """Remove what a worker that has left leaves behind. Raises OSError."""
        gone = self.path / "gone"
        shutil.rmtree(gone, ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            self.worker(worker).rename(gone)  # all or nothing
            RealDisk().sync_folder(self.path / "workers")
        shutil.rmtree(gone, ignore_errors=True)

    def write_failure(self, worker: int, failure: Failure) -> None:
        self._write(f"failure-{worker}.json", asdict(failure))

    def failure(self, worker: int) -> Failure | None:
        """Why a worker stopped, if it said so."""
        found = self._read(f"failure-{worker}.json")
        return Failure(**found) if found else None

    def write_status(self, status: dict[str, Any]) -> None:
        self._write("status.json", status)

    def status(self) -> dict[str, Any] | None:
        """What worker 0 knew when it ended."""
        return self._read("status.json")

    def write_outcome(self, outcome: dict[str, Any]) -> None:
        self._write("outcome.json", outcome)
        (self.path / "control.json").unlink(missing_ok=True)

    def outcome(self) -> dict[str, Any] | None:
        """How the last run ended."""
        return self._read("outcome.json")

    def _write(self, name: str, value: dict[str, Any]) -> None:
        temporary = self.path / f".{name}.{os.getpid()}"
        temporary.write_text(json.dumps(value, indent=1))
        temporary.replace(self.path / name)

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            found = json.loads((self.path / name).read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise InputError(f"can't read {self.path / name}: {error}") from None
        if not isinstance(found, dict):
            raise InputError(f"can't read {self.path / name}: it is not what Wallaroo writes")
        return found


def lock_folder(folder: Path) -> int:
    """Take a worker's folder for this process's life, once its predecessor has let go of it."""
    RealDisk().make_folder(folder)
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


class Sockets:
    """A private directory for the sockets of one run. Raises `InputError` if there can't be one."""

    def __init__(self) -> None:
        base = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
        # gRPC decodes what looks like an escape; a socket's path is at most 107 bytes.
        if len(os.fsencode(base)) > 60 or set(base) & set("%?#") or not os.access(base, os.W_OK):
            base = "/tmp"  # noqa: S108  mkdtemp makes a private directory in it
        try:
            self.path = Path(tempfile.mkdtemp(prefix="wallaroo-", dir=base)).absolute()
        except OSError as error:
            raise InputError(
                f"can't make a folder for sockets in {base}: {error.strerror}; make room there, or "
                "set XDG_RUNTIME_DIR to a folder that can be written"
            ) from None

    @property
    def coordinator(self) -> str:
        return coordinator_address(self.path)

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


def coordinator_address(sockets: Path) -> str:
    """Where worker 0's coordinator listens."""
    return f"unix:{sockets / 'coordinator'}"


def worker_socket(sockets: Path, worker: int) -> Path:
    """The socket of a worker's exchanges."""
    return sockets / f"worker-{worker}"


def worker_address(sockets: Path, worker: int) -> str:
    """Where a worker's exchanges listen."""
    return f"unix:{worker_socket(sockets, worker)}"


def keep_from_children(lock: int) -> None:
    """Close `lock` in processes that user code forks: it is held by workers alone."""

    def close() -> None:
        with contextlib.suppress(OSError):
            os.close(lock)

    os.register_at_fork(after_in_child=close)
    os.set_inheritable(lock, False)
