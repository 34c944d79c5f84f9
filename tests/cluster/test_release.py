"""The release: its test, its upgrade, its end, and an operator for one namespace alone."""

import secrets
import time
from collections.abc import Iterator
from typing import Any

import pytest
from applications import Sequences
from k8s import OPERATOR, Collector, Failed, Namespace, run


@pytest.fixture
def running(namespace: Namespace, collector: Collector) -> Sequences:
    made = Sequences(namespace, collector, 2, rate=2_000)
    made.app.until_ready()
    return made


def test_helm_test_passes(namespace: Namespace) -> None:
    assert "Succeeded" in namespace.cluster.helm("test", "wallaroo", "-n", OPERATOR)


@pytest.mark.alone
def test_an_upgrade_restarts_no_worker(running: Sequences) -> None:
    """Ruling K8s 23."""
    before = running.app.uids()
    note = f"podAnnotations.changed={secrets.token_hex(3)}a"
    running.namespace.cluster.install("wallaroo", OPERATOR, note)
    time.sleep(5)
    assert running.app.uids() == before
    running.app.scale(3)
    running.app.until_members(3)
    running.end()


@pytest.mark.alone
def test_an_uninstall_leaves_applications_and_their_data(running: Sequences) -> None:
    cluster = running.namespace.cluster
    before = running.app.uids()
    cluster.helm("uninstall", "wallaroo", "-n", OPERATOR, "--wait")
    try:
        assert running.app.get()
        running.until_more(2_000)
        assert running.app.uids() == before
    finally:
        cluster.install("wallaroo", OPERATOR)
    running.app.scale(3)
    running.app.until_members(3)
    running.end()


@pytest.mark.alone
def test_a_namespace_goes_while_there_is_no_operator(namespace: Namespace) -> None:
    """Ruling K8s 21: no finalizer is in the way."""
    other = Namespace(namespace.cluster)
    Sequences(other, Collector(other), 2).app.until_ready()
    scale = ("kubectl", "-n", OPERATOR, "scale", "deploy/wallaroo")
    run([*scale, "--replicas=0"])
    try:
        other.delete(90)
    finally:
        run([*scale, "--replicas=1"])


@pytest.mark.alone
class TestForOneNamespace:
    @pytest.fixture
    def alone(self, namespace: Namespace) -> Iterator[Any]:
        """A release in the test's namespace, and none beside it."""
        cluster = namespace.cluster
        cluster.helm("uninstall", "wallaroo", "-n", OPERATOR, "--wait")
        try:
            cluster.install("alone", namespace.name, "namespaced=true", "crds.enabled=false")
            yield cluster
        finally:
            cluster.install("wallaroo", OPERATOR)

    def test_it_needs_nothing_else(
        self, alone: Any, namespace: Namespace, collector: Collector
    ) -> None:
        """Ruling K8s 26."""
        made = Sequences(namespace, collector, 2)
        made.app.until_ready()
        made.begin(2000)
        made.app.scale(3)
        made.app.until_members(3)
        made.end()
        namespace.cluster.helm("uninstall", "alone", "-n", namespace.name)

    def test_the_namespace_goes_with_the_operator_in_it(
        self, alone: Any, namespace: Namespace, collector: Collector
    ) -> None:
        Sequences(namespace, collector, 2).app.until_ready()
        namespace.kubectl("delete", "namespace", namespace.name, "--timeout=90s")


@pytest.mark.parametrize(
    ("verb", "resource", "allowed"),
    [
        ("list", "secrets", False),
        ("get", "secrets", True),
        ("update", "wallarooapps", False),
        ("patch", "wallarooapps/status", True),
        ("update", "wallarooapps/finalizers", True),
        ("create", "roles.rbac.authorization.k8s.io", False),
        ("create", "pods/exec", False),
    ],
)
def test_the_operator_may_do_what_it_needs(
    namespace: Namespace, verb: str, resource: str, allowed: bool
) -> None:
    """Ruling K8s 26."""
    account = f"system:serviceaccount:{OPERATOR}:wallaroo"
    kind, _, subresource = resource.partition("/")
    more = [f"--subresource={subresource}"] if subresource else []
    kind = f"{kind}.wallaroo.dev" if kind == "wallarooapps" else kind
    try:
        said = namespace.kubectl("auth", "can-i", verb, kind, *more, f"--as={account}")
    except Failed as failed:
        said = failed.words
    assert said.strip().startswith("yes" if allowed else "no"), said
