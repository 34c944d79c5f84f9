"""What the cluster tests need: a cluster, both images in it, the chart, a namespace a test.

With KUBECONFIG set that cluster is used; WALLAROO_WORKER_IMAGE and WALLAROO_OPERATOR_IMAGE then
name images that it can pull. Else a cluster of one node is started on this machine
(machine/cluster), and taken down at the end, unless it ran before; images are built and loaded,
under a tag of their own. With WALLAROO_INSTALLED set an operator is there already, as when one runs
on a developer's desk.

Tests may run in several processes (pytest -n 3): they share the cluster and the release. One that
is marked `alone` disturbs others, or is disturbed by them: it has the cluster for itself.
"""

import fcntl
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from k8s import HERE, OPERATOR, ROOT, Cluster, Collector, Failed, Measured, Namespace, run

MACHINE = HERE / "machine" / "cluster"
STATE = Path(os.environ.get("STATE", "/var/tmp/wallaroo-cluster"))
#: The folder in which the processes of a test run find what they share.
SHARED = "WALLAROO_CLUSTER_TESTS"
NEEDED = (
    *("containerd", "runc", "ip", "iptables", "conntrack", "busybox", "buildah", "debootstrap"),
    *("xz", "openssl"),
)


def pytest_configure(config: pytest.Config) -> None:
    """Processes that this one starts find the folder in their environment."""
    config.addinivalue_line("markers", "long: another variant of the same is tested, too")
    config.addinivalue_line("markers", "alone: nothing else may happen in the cluster meanwhile")
    if SHARED not in os.environ:
        made = tempfile.TemporaryDirectory(prefix="cluster-tests-")
        os.environ[SHARED] = made.name
        config.add_cleanup(made.cleanup)
        config.add_cleanup(_down)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE) and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(600, func_only=True))
    items.sort(key=lambda item: item.get_closest_marker("alone") is not None)


@contextmanager
def _locked(name: str, how: int = fcntl.LOCK_EX) -> Iterator[Path]:
    """Hold the lock of that name among the processes of this run; gives the shared folder."""
    folder = Path(os.environ[SHARED])
    with (folder / f"{name}.lock").open("w") as file:
        fcntl.flock(file, how)
        yield folder


@pytest.fixture(autouse=True)
def _in_turn(request: pytest.FixtureRequest) -> Iterator[None]:
    alone = request.node.get_closest_marker("alone")
    with _locked("turn", fcntl.LOCK_EX if alone else fcntl.LOCK_SH):
        yield


def _why_not() -> str:
    """Why no cluster can be started on this machine; empty if one can."""
    if sys.platform != "linux" or os.uname().machine != "x86_64" or os.getuid() != 0:
        return "no KUBECONFIG, and a cluster is started by root on Linux x86_64 only"
    missing = [name for name in NEEDED if not shutil.which(name)]
    if not Path("/usr/lib/cni").is_dir():
        missing.append("containernetworking-plugins")
    if missing:
        return f"no KUBECONFIG, and to start a cluster {', '.join(missing)} is missing"
    prebuilt = Path(os.environ.get("WALLAROO_CLUSTER_BIN", HERE / "machine" / "bin"))
    if not (prebuilt / "kube.xz").exists() and not shutil.which("go"):
        return "no KUBECONFIG, no binaries of a cluster (WALLAROO_CLUSTER_BIN), no Go to build them"
    return ""


def _runs() -> bool:
    """Whether the cluster is there already, for somebody else: then it stays."""
    kubectl = [str(STATE / "bin" / "kubectl"), "--kubeconfig", str(STATE / "kubeconfig")]
    try:
        run([*kubectl, "get", "--raw", "/readyz", "--request-timeout=5s"])
    except (Failed, OSError):
        return False
    return True


def _machine(*args: str) -> str:
    # Its output goes to a file of its own: what it starts would keep a pipe open.
    done = subprocess.run(
        [str(MACHINE), *args], stdout=subprocess.PIPE, stderr=None, timeout=900, check=True
    )
    return done.stdout.decode().strip()


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    worker = os.environ.get("WALLAROO_WORKER_IMAGE", "")
    operator = os.environ.get("WALLAROO_OPERATOR_IMAGE", "")
    kubeconfig = os.environ.get("KUBECONFIG", "")
    if kubeconfig and not (worker and operator):
        pytest.skip("KUBECONFIG needs WALLAROO_WORKER_IMAGE and WALLAROO_OPERATOR_IMAGE")
    if not kubeconfig and (why := _why_not()):
        pytest.skip(why)
    if not kubeconfig:
        with _locked("cluster") as folder:
            up = folder / "cluster.json"
            if not up.exists():
                up.write_text(json.dumps(_up(folder)))
            kubeconfig, worker, operator = json.loads(up.read_text())
        os.environ["PATH"] = f"{STATE / 'bin'}:{os.environ['PATH']}"
    made = Cluster(kubeconfig, worker, operator)
    yield made
    made.until_deleted()


def _up(folder: Path) -> tuple[str, str, str]:
    """Start it; returns its kubeconfig and the names of both images."""
    if not _runs():
        (folder / "started").touch()
    kubeconfig = _machine("up").splitlines()[-1]
    worker = os.environ.get("WALLAROO_WORKER_IMAGE", "")
    operator = os.environ.get("WALLAROO_OPERATOR_IMAGE", "")
    if not worker or not operator:
        worker, operator = _images()
    return kubeconfig, worker, operator


def _down() -> None:
    """Take down what this run has started."""
    if (Path(os.environ[SHARED]) / "started").exists():
        _machine("down")


def _images() -> tuple[str, str]:
    """Build and load both. A tag that was loaded before would change nothing in running pods."""
    commit = run(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]).strip()
    tag = f"{commit}-{secrets.token_hex(3)}"
    names = []
    for target in ("worker", "operator"):
        names.append(f"registry.local/wallaroo/{target}:{tag}")
        _machine("image", names[-1], "--target", target, str(ROOT))
    return names[0], names[1]


@pytest.fixture(scope="session")
def helm(request: pytest.FixtureRequest) -> str:
    """The program, from this machine or from the cluster that is started on it."""
    found = shutil.which("helm", path=f"{os.environ['PATH']}:{STATE / 'bin'}")
    if not found:
        request.getfixturevalue("cluster")
        found = shutil.which("helm")
    if not found:
        pytest.skip("there is no helm")
    return found


@pytest.fixture(scope="session")
def installed(cluster: Cluster) -> Cluster:
    """The operator looks after all namespaces."""
    if not os.environ.get("WALLAROO_INSTALLED"):
        with _locked("installed") as folder:
            if not (folder / "installed").exists():
                cluster.install("wallaroo", OPERATOR)
                (folder / "installed").touch()
    return cluster


@pytest.fixture(scope="module")
def shared(installed: Cluster) -> Iterator[Namespace]:
    """One for all tests of a file: they leave no pods in it."""
    made = Namespace(installed)
    yield made
    made.delete(wait=False)


@pytest.fixture
def namespace(installed: Cluster, request: pytest.FixtureRequest) -> Iterator[Namespace]:
    """One for the test, which goes with it. Where it fails, what there was is told."""
    made = Namespace(installed)
    yield made
    if getattr(request.node, "failed", False):
        print(made.words())
        if not os.environ.get("WALLAROO_INSTALLED"):
            print(run(["kubectl", "-n", OPERATOR, "logs", "deploy/wallaroo", "--tail=80"]))
    made.delete(wait=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    report = yield
    if report.when == "call":
        item.failed = report.failed  # type: ignore[attr-defined]
    return report


@pytest.fixture
def measured(record_property: Callable[[str, object], None]) -> Measured:
    """Notes what is measured, by name, with its unit and what it should be below.

    It is told at the end, and no test fails by it: machines differ, and are busy.
    """

    def note(name: str, value: float, unit: str, target: float) -> None:
        met = "" if value < target else ": NOT met"
        record_property("measured", f"{name}: {value:,.4g} {unit} (target below {target:g}){met}")

    return note


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Tell what was measured."""
    reports = [each for found in terminalreporter.stats.values() for each in found]
    lines = [
        str(value)
        for report in reports
        if getattr(report, "when", "") == "call"
        for name, value in report.user_properties
        if name == "measured"
    ]
    if lines:
        terminalreporter.section("measured")
        for line in lines:
            terminalreporter.write_line(line)


@pytest.fixture
def collector(namespace: Namespace) -> Collector:
    return Collector(namespace)
