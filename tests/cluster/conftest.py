"""What the cluster tests need: a cluster, both images in it, the chart, a namespace a test.

With KUBECONFIG set that cluster is used; WALLAROO_WORKER_IMAGE and WALLAROO_OPERATOR_IMAGE then
name images that it can pull. Else a cluster of one node is started on this machine
(machine/cluster), and taken down at the end, unless it ran before; images are built and loaded,
under a tag of their own. With WALLAROO_INSTALLED set an operator is there already, as when one runs
on a developer's desk.
"""

import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from k8s import HERE, OPERATOR, ROOT, Cluster, Collector, Failed, Namespace, run

MACHINE = HERE / "machine" / "cluster"
STATE = Path(os.environ.get("STATE", "/var/tmp/wallaroo-cluster"))
NEEDED = (
    *("containerd", "runc", "ip", "iptables", "conntrack", "busybox", "buildah", "debootstrap"),
    *("xz", "openssl"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE) and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(600))


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
    if os.environ.get("KUBECONFIG"):
        if not worker or not operator:
            pytest.skip("KUBECONFIG needs WALLAROO_WORKER_IMAGE and WALLAROO_OPERATOR_IMAGE")
        yield Cluster(os.environ["KUBECONFIG"], worker, operator)
        return
    if why := _why_not():
        pytest.skip(why)
    before = _runs()
    kubeconfig = _machine("up").splitlines()[-1]
    os.environ["PATH"] = f"{STATE / 'bin'}:{os.environ['PATH']}"
    try:
        if not worker or not operator:
            worker, operator = _images()
        yield Cluster(kubeconfig, worker, operator)
    finally:
        if not before:
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
        cluster.install("wallaroo", OPERATOR)
    return cluster


@pytest.fixture(scope="module")
def shared(installed: Cluster) -> Iterator[Namespace]:
    """One for all tests of a file: they leave no pods in it."""
    made = Namespace(installed)
    yield made
    made.delete()


@pytest.fixture
def namespace(installed: Cluster, request: pytest.FixtureRequest) -> Iterator[Namespace]:
    """One for the test, which goes with it. Where it fails, what there was is told."""
    made = Namespace(installed)
    yield made
    if getattr(request.node, "failed", False):
        print(made.words())
        if not os.environ.get("WALLAROO_INSTALLED"):
            print(run(["kubectl", "-n", OPERATOR, "logs", "deploy/wallaroo", "--tail=80"]))
    made.delete()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    report = yield
    if report.when == "call":
        item.failed = report.failed  # type: ignore[attr-defined]
    return report


@pytest.fixture
def collector(namespace: Namespace) -> Collector:
    return Collector(namespace)
