"""A cluster as the tests see it: kubectl, helm, patience, and pods that load and collect.

What a person would do is done with kubectl; what is looked at again and again is read from the API
server directly, which takes a fiftieth of kubectl's time.
"""

import json
import os
import secrets
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest
from kubernetes import client, config

HERE = Path(__file__).resolve().parents[1]
ROOT = HERE.parents[1]
#: The namespace of the release that looks after all others.
OPERATOR = "wallaroo-system"
PROGRAMS = HERE / "programs"
T = TypeVar("T")
Json = dict[str, Any]
#: Notes what is measured, by name, with its unit and what it should be below.
Measured = Callable[[str, float, str, float], None]

_CORE, _APPS = "/api/v1", "/apis/apps/v1"
#: Where the API server has the objects of a namespace, by the name that kubectl knows them under.
_PATHS = {
    "wapp": "/apis/wallaroo.dev/v1alpha1/namespaces/{}/wallarooapps",
    "statefulset": _APPS + "/namespaces/{}/statefulsets",
    "pdb": "/apis/policy/v1/namespaces/{}/poddisruptionbudgets",
    **{
        name: _CORE + "/namespaces/{}/" + plural
        for name, plural in {
            "pod": "pods",
            "pvc": "persistentvolumeclaims",
            "service": "services",
            "secret": "secrets",
            "configmap": "configmaps",
            "event": "events",
            "serviceaccount": "serviceaccounts",
        }.items()
    },
}

#: Seconds to wait for what must come; only a broken product waits so long.
PATIENCE = 120.0


class Failed(AssertionError):
    """A command has failed; `words` is what it said."""

    def __init__(self, command: Sequence[str], words: str) -> None:
        super().__init__(f"{' '.join(command)}: {words}")
        self.words = words


def seconds(first: float, *others: float) -> list[Any]:
    """Moments at which something may happen, as parameters: the others make a test `long`."""
    return [
        pytest.param(each, id=f"after {each} s", marks=[pytest.mark.long] * (each != first))
        for each in (first, *others)
    ]


def until(what: Callable[[], T], why: str, seconds: float = PATIENCE) -> T:
    """The first true value of `what`; fails the test if none comes."""
    deadline = time.monotonic() + seconds
    while True:
        value = what()
        if value:
            return value
        assert time.monotonic() < deadline, f"{why}, after {seconds:.0f} s"
        time.sleep(0.3)


def run(command: Sequence[str], stdin: str | bytes | None = None, seconds: float = 180) -> str:
    """What a command prints. Raises `Failed`."""
    data = stdin.encode() if isinstance(stdin, str) else stdin
    done = subprocess.run(command, input=data, capture_output=True, timeout=seconds, check=False)
    if done.returncode:
        raise Failed(command, (done.stderr or done.stdout).decode(errors="replace").strip())
    return done.stdout.decode()


class Cluster:
    """One whose kubeconfig is given; `worker` and `operator` are images that it can run."""

    def __init__(self, kubeconfig: str, worker: str, operator: str) -> None:
        os.environ["KUBECONFIG"] = kubeconfig
        self.worker = worker
        self.operator = operator
        #: Namespaces that are to go; all must have gone in the end.
        self.deleted: list[str] = []
        config.load_kube_config(kubeconfig)
        self._api = client.ApiClient()

    def read(self, path: str, **query: str) -> Json:
        """What the API server has there; {} if it has nothing."""
        asked = self._api.param_serialize(
            "GET", path, query_params=list(query.items()), auth_settings=["BearerToken"]
        )
        answer = self._api.call_api(*asked)
        text = answer.read()
        if answer.status == 404:
            return {}
        if answer.status >= 300:
            raise Failed(["GET", path], f"{answer.status} {text.decode(errors='replace')}")
        found: Json = json.loads(text)
        return found

    def has(self, namespace: str) -> bool:
        """Whether there is such a namespace."""
        return bool(self.read(f"{_CORE}/namespaces/{namespace}"))

    def until_deleted(self) -> None:
        """Return when no namespace is left that was to go: nothing may trap one."""
        until(lambda: not any(map(self.has, self.deleted)), f"one of {self.deleted} hangs")

    def helm(self, *args: str) -> str:
        return run(["helm", *args], seconds=300)

    def install(self, release: str, namespace: str, *sets: str) -> None:
        """Install or upgrade, with the images of this build; returns when the operator is ready."""
        images = []
        for name, image in (("image", self.operator), ("workerImage", self.worker)):
            repository, _, tag = image.rpartition(":")
            images += [f"{name}.repository={repository}", f"{name}.tag={tag}"]
        values = [word for each in images for word in ("--set-string", each)]
        values += [word for each in sets for word in ("--set", each)]
        chart = str(ROOT / "charts" / "wallaroo")
        self.helm(
            *("upgrade", "--install", release, chart),
            *("--namespace", namespace, "--create-namespace", "--wait", "--timeout", "120s"),
            *values,
        )

    def cordon(self) -> None:
        """Have no node take a pod more."""
        run(["kubectl", "cordon", "-l", "kubernetes.io/hostname"])

    def uncordon(self) -> None:
        run(["kubectl", "uncordon", "-l", "kubernetes.io/hostname"])


class Namespace:
    """A namespace of a test, under restricted Pod Security."""

    def __init__(self, cluster: Cluster, name: str = "") -> None:
        self.cluster = cluster
        self.name = name or f"t-{secrets.token_hex(3)}"
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        meta = {"name": self.name, "labels": labels}
        apply({"apiVersion": "v1", "kind": "Namespace", "metadata": meta})
        until(self._has_account, "the namespace gets no service account")

    def _has_account(self) -> bool:
        return bool(self.get("serviceaccount", "default"))

    def kubectl(self, *args: str, stdin: str | bytes | None = None, seconds: float = 180) -> str:
        return run(["kubectl", "-n", self.name, *args], stdin, seconds)

    def get(self, kind: str, name: str) -> Json:
        """The object; {} if there is none."""
        return self.cluster.read(f"{_PATHS[kind].format(self.name)}/{name}")

    def all(self, kind: str, selector: str = "") -> list[Json]:
        """The objects of a kind, those that a label selector chooses."""
        found = self.cluster.read(_PATHS[kind].format(self.name), labelSelector=selector)
        items: list[Json] = found.get("items", [])
        return items

    def apply(self, *objects: Json) -> None:
        for each in objects:
            each["metadata"].setdefault("namespace", self.name)
            apply(each)

    def delete(self, seconds: float = PATIENCE, *, wait: bool = True) -> None:
        """It is gone when this returns, or at least when all tests are over."""
        self.kubectl("delete", "namespace", self.name, "--wait=false", "--ignore-not-found")
        if wait:
            until(lambda: not self.cluster.has(self.name), "the namespace hangs", seconds)
        else:
            self.cluster.deleted.append(self.name)

    def events(self, name: str = "") -> list[Json]:
        """Of an object of this name, or of all."""
        found = self.all("event")
        return [each for each in found if not name or each["involvedObject"]["name"] == name]

    def config_map(self, name: str, **files: str) -> None:
        data = {file.replace("__", "."): text for file, text in files.items()}
        self.apply(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}
        )

    def program(self, name: str, *args: str) -> "Program":
        """A pod that runs one of the programs beside this file, in the worker's image."""
        return Program(self, name, args)

    def words(self) -> str:
        """What there is, for who reads why a test failed."""
        said = []
        for args in (
            ("get", "wapp,statefulset,pods,pvc,service,pdb", "-o", "wide"),
            ("get", "wapp", "-o", "yaml"),
            ("get", "events", "--sort-by=.lastTimestamp"),
        ):
            try:
                said.append(self.kubectl(*args))
            except Failed as failed:
                said.append(str(failed))
        for pod in self.all("pod"):
            name = pod["metadata"]["name"]
            for more in ((), ("--previous",)):
                try:
                    log = self.kubectl("logs", name, "--tail=40", *more)
                except Failed as failed:
                    log = failed.words
                if log.strip() and not (more and "not found" in log):
                    said.append(f"{name} {' '.join(more)}\n{log}")
        return "\n".join(said)


def apply(manifest: Json) -> None:
    """As `kubectl apply` does, with strict validation. Raises `Failed`."""
    run(["kubectl", "apply", "--validate=strict", "-f", "-"], json.dumps(manifest))


class Program:
    """A pod beside the application: a collector, or a load."""

    def __init__(self, namespace: Namespace, name: str, args: Sequence[str]) -> None:
        self.namespace, self.name = namespace, name
        programs = {path.name: path.read_text() for path in PROGRAMS.glob("*.py")}
        namespace.apply(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "programs"},
                "data": programs,
            },
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": name},
                "spec": {
                    "clusterIP": "None",
                    "selector": {"program": name},
                    "ports": [{"port": 9000}],
                },
            },
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name, "labels": {"program": name}},
                "spec": self._spec(args),
            },
        )
        namespace.kubectl("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=60s")

    def _spec(self, args: Sequence[str]) -> Json:
        return {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "securityContext": {
                "runAsNonRoot": True,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "program",
                    "image": self.namespace.cluster.worker,
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["python", f"/programs/{args[0]}", *args[1:]],
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    "volumeMounts": [
                        {"name": "programs", "mountPath": "/programs"},
                        {"name": "tmp", "mountPath": "/tmp"},
                    ],
                }
            ],
            "volumes": [
                {"name": "programs", "configMap": {"name": "programs"}},
                {"name": "tmp", "emptyDir": {}},
            ],
        }

    def execute(self, *command: str, stdin: bytes | None = None) -> str:
        interactive = ["-i"] if stdin is not None else []
        return self.namespace.kubectl("exec", *interactive, self.name, "--", *command, stdin=stdin)

    def result(self, seconds: float = PATIENCE) -> Json:
        """What it says at its end."""
        phase = ""

        def ended() -> bool:
            nonlocal phase
            phase = self.namespace.get("pod", self.name)["status"]["phase"]
            return phase in {"Succeeded", "Failed"}

        until(ended, f"{self.name} does not end", seconds)
        log = self.namespace.kubectl("logs", self.name)
        assert phase == "Succeeded", log
        found: Json = json.loads(log.strip().splitlines()[-1])
        return found


class Collector(Program):
    """Keeps what comes out of an application."""

    def __init__(self, namespace: Namespace) -> None:
        super().__init__(namespace, "collector", ("collect.py", "9000", "/tmp/out"))
        self.address = f"collector.{namespace.name}.svc:9000"

    def count(self) -> int:
        """How many lines it has; 0 where it does not say."""
        pod = f"{_CORE}/namespaces/{self.namespace.name}/pods/{self.name}:9001"
        found: int = self.namespace.cluster.read(f"{pod}/proxy/").get("lines", 0)
        return found

    def lines(self) -> list[str]:
        """Each behind the time in ms when it came."""
        count = self.count()

        def all_of_them() -> list[str]:
            # What a command prints last, `kubectl exec` may lose.
            said = self.execute("cat", "/tmp/out")
            found = said.splitlines()
            return found if said.endswith("\n") and len(found) >= count else []

        return until(all_of_them, f"its {count} lines can't be read") if count else []

    def settled(self, quiet: float = 3.0) -> list[str]:
        """All lines, once no more have come for some seconds."""
        size, since = -1, time.monotonic()
        while time.monotonic() - since < quiet:
            now = self.count()
            if now != size:
                size, since = now, time.monotonic()
            time.sleep(0.5)
        return self.lines()


class App:
    """A WallarooApp of a test."""

    def __init__(self, namespace: Namespace, name: str = "app", **spec: Any) -> None:
        self.namespace, self.name = namespace, name
        few = {"requests": {"cpu": "20m", "memory": "64Mi"}}
        storage = {"size": "64Mi", "onDelete": "Delete"}
        self.spec: Json = {"resources": few, "storage": storage, "drainTimeout": "10s", **spec}

    def manifest(self) -> Json:
        return {
            "apiVersion": "wallaroo.dev/v1alpha1",
            "kind": "WallarooApp",
            "metadata": {"name": self.name, "namespace": self.namespace.name},
            "spec": self.spec,
        }

    def apply(self, **spec: Any) -> "App":
        self.spec.update(spec)
        self.namespace.apply(self.manifest())
        return self

    def get(self) -> Json:
        return self.namespace.get("wapp", self.name)

    def status(self) -> Json:
        found: Json = self.get().get("status", {})
        return found

    def condition(self, kind: str) -> Json:
        """The condition of that kind; one that says nothing if there is none."""
        for each in self.status().get("conditions", []):
            if each["type"] == kind:
                found: Json = each
                return found
        return {"status": "Unknown", "reason": "", "message": ""}

    def until_ready(self, seconds: float = PATIENCE) -> None:
        """As a user waits for it."""
        self.namespace.kubectl(
            "wait", "--for=condition=Ready", f"wapp/{self.name}", f"--timeout={seconds:.0f}s"
        )

    def until_condition(
        self, kind: str, status: str, reason: str, seconds: float = PATIENCE
    ) -> Json:
        def found() -> Json:
            each = self.condition(kind)
            return each if (each["status"], each["reason"]) == (status, reason) else {}

        return until(found, f"{kind} does not become {status} with the reason {reason}", seconds)

    def until_members(self, members: int, seconds: float = PATIENCE) -> None:
        """So many workers own everything, and the pods are so many."""

        def rescaled() -> bool:
            status = self.status()
            return status.get("members") == members and len(self.pods()) == members

        until(rescaled, f"there are not {members} members", seconds)
        self.until_ready()

    def scale(self, replicas: int) -> None:
        self.namespace.kubectl("scale", "wapp", self.name, f"--replicas={replicas}")

    def pods(self) -> list[Json]:
        """Of its workers, in order."""
        return sorted(
            self.namespace.all("pod", f"wallaroo.dev/application={self.name}"),
            key=lambda each: int(each["metadata"]["name"].rpartition("-")[2]),
        )

    def uids(self) -> list[str]:
        return [each["metadata"]["uid"] for each in self.pods()]

    def claims(self) -> list[str]:
        names = [each["metadata"]["name"] for each in self.namespace.all("pvc")]
        return sorted(each for each in names if each.startswith(f"state-{self.name}-"))
