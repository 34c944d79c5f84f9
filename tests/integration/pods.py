"""Worker pods on this machine, each with a loopback address of its own, and an operator's part."""

import contextlib
import itertools
import os
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
from processes import WALLAROO, until

from wallaroo.partitioning import Assignment, Piece
from wallaroo.partitioning.rewrite import rewrite
from wallaroo.runtime.client import Client, Unreachable

#: Each cluster has addresses of its own, so that none meets what is left of another.
_NETWORKS = itertools.count(os.getpid() % 200 + 1)
#: The part of it that other test processes beside this one have not.
_PART = 77 + int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))


class PodProcess:
    """A pod's container."""

    def __init__(self, cluster: "Pods", worker: int) -> None:
        self.worker = worker
        self.ip = cluster.ip(worker)
        self.log = cluster.folder / f"pod-{worker}.log"
        command = [WALLAROO, "pod", "--name", "app", "--application", cluster.uid]
        command += ["--coordinator", f"{cluster.ip(0)}:7710", "--dir", str(cluster.volume(worker))]
        command += [*cluster.options, str(cluster.app), *cluster.args]
        uid = f"{cluster.uid}-{worker}-{next(cluster.uids)}"
        identity = {"POD_NAME": f"app-{worker}", "POD_IP": self.ip, "POD_UID": uid}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                cwd=cluster.folder,
                env={**os.environ, **identity},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def get(self, path: str) -> tuple[int, str]:
        """What it answers over HTTP; (0, "") if nothing."""
        try:
            with urllib.request.urlopen(f"http://{self.ip}:7712{path}", timeout=5) as found:
                return found.status, found.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    @property
    def ready(self) -> bool:
        return self.get("/readyz")[0] == 200

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def wait(self, timeout: float = 30.0) -> int:
        return self.process.wait(timeout)


class Pods:
    """The pods of an application; `restart` is on its kubelet."""

    def __init__(
        self, folder: Path, app: Path, args: Sequence[str], options: Sequence[str] = ()
    ) -> None:
        self.folder = folder
        self.app = app
        self.args = list(args)
        self.options = list(options)
        self.uid = "first"
        self.uids = itertools.count()
        self.credentials: Callable[[], grpc.ChannelCredentials] | None = None
        self.pods: dict[int, PodProcess] = {}
        self._network = next(_NETWORKS)
        self._moved: dict[int, int] = {}

    def ip(self, worker: int) -> str:
        host = worker + 10 + self._moved.get(worker, 0)
        return f"127.{_PART}.{self._network % 256}.{host}"

    def move(self, worker: int) -> None:
        """Give the next pod of this worker another address, as pods have that are replaced."""
        self._moved[worker] = self._moved.get(worker, 0) + 100

    def volume(self, worker: int) -> Path:
        return self.folder / f"volume-{worker}"

    def start(self, *workers: int) -> None:
        for worker in workers:
            self.pods[worker] = PodProcess(self, worker)

    def terminate(self, *workers: int) -> None:
        """As for a drain or a rollout; returns when they are gone."""
        for worker in workers:
            self.pods[worker].signal()
        for worker in workers:
            assert self.pods.pop(worker).wait() == 0

    def kill(self) -> None:
        for pod in self.pods.values():
            if pod.process.poll() is None:
                pod.process.kill()
            pod.process.wait()

    def logs(self) -> str:
        texts = (f"{path.name}:\n{path.read_text()}" for path in self.folder.glob("pod-*.log"))
        return "\n".join(texts)[-20_000:]

    @contextlib.contextmanager
    def client(self) -> Iterator[Client]:
        credentials = self.credentials() if self.credentials else None
        with Client(f"{self.ip(0)}:7710", 5.0, credentials) as client:
            yield client

    def status(self) -> dict[str, Any]:
        """What the coordinator says; {} while it doesn't."""
        try:
            with self.client() as client:
                return client.status()
        except Unreachable:
            return {}

    def until(self, what: Callable[[dict[str, Any]], object], why: str) -> dict[str, Any]:
        """The status, once it is so."""

        def so() -> dict[str, Any]:
            found = self.status()
            return found if found and what(found) else {}

        try:
            return until(so)
        except AssertionError:
            raise AssertionError(f"{why}: {self.status()}\n{self.logs()}") from None

    def until_running(self, workers: int) -> dict[str, Any]:
        def runs(found: dict[str, Any]) -> bool:
            members = found["members"] == list(range(workers)) and not found["leaving"]
            return bool(members and found["phase"] == "running" and not found["rescale"])

        return self.until(runs, f"it does not run with {workers}")

    def until_committed(self, epochs: int = 2) -> dict[str, Any]:
        before = self.until(lambda found: found["phase"] == "running", "it does not run")["epoch"]
        return self.until(lambda found: found["epoch"] >= before + epochs, "nothing is committed")

    def until_vacant(self, workers: int) -> None:
        self.until(lambda found: self._present(found) >= set(range(workers)), "not all are there")

    @staticmethod
    def _present(found: dict[str, Any]) -> set[int]:
        return {each["worker"] for each in found["workers"] if each["present"]}

    def begin(self, workers: int, *, accept_loss: bool = False, epoch: int = 0) -> str:
        with self.client() as client:
            return client.begin(workers, accept_loss=accept_loss, epoch=epoch)

    def stop(self) -> None:
        with self.client() as client:
            client.stop()

    def begun(self, workers: int) -> None:
        """Start so many from nothing; return when they run."""
        self.start(*range(workers))
        self.until_vacant(workers)
        assert self.begin(workers) == ""
        self.until_running(workers)

    def rescale(self, workers: int) -> None:
        """Ask for so many until the rescale is committed."""

        def asked(found: dict[str, Any]) -> bool:
            wanted = list(range(workers))
            if found["members"] == wanted:
                return not found["leaving"] and not found["rescale"]
            here = {*found["members"], *found["joiners"]} >= set(wanted)
            if found["phase"] == "running" and here and not found["rescale"]:
                pieces = tuple(
                    Piece(p["start"], p["end"], p["worker"]) for p in found["assignment"]
                )
                old = Assignment(found["version"], pieces)
                with self.client() as client, contextlib.suppress(Unreachable):
                    client.rescale(old.version, rewrite(old, wanted))
            return False

        self.until(asked, f"it is not rescaled to {workers}")
