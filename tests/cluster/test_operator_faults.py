"""The operator can be killed at any line, and goes on; applications do not need it to run."""

import time

import pytest
from applications import Sequences
from k8s import OPERATOR, Collector, Namespace, run, seconds


def _kill_operator() -> None:
    run(
        [
            *("kubectl", "-n", OPERATOR, "delete", "pod", "--grace-period=0", "--force"),
            *("-l", "app.kubernetes.io/component=operator"),
        ]
    )


def _until_operator() -> None:
    run(["kubectl", "-n", OPERATOR, "rollout", "status", "deploy/wallaroo", "--timeout=90s"])


@pytest.mark.alone
@pytest.mark.parametrize("after", seconds(1, 0, 2, 3, 5, 8))
def test_it_is_killed_in_a_rescale(
    namespace: Namespace, collector: Collector, after: float
) -> None:
    """Ruling K8s 17: it finds its way."""
    made = Sequences(namespace, collector, 3)
    made.app.until_ready()
    made.begin(2000)
    for members in (5, 2):
        made.app.scale(members)
        time.sleep(after)
        _kill_operator()
        _until_operator()
        made.app.until_members(members, 240)
    made.end()


@pytest.mark.alone
def test_applications_run_on_without_it(namespace: Namespace, collector: Collector) -> None:
    """A pod that is replaced needs the Secret alone (ruling K8s 24)."""
    made = Sequences(namespace, collector, 2, rate=2_000)
    made.app.until_ready()
    deployment = ("-n", OPERATOR, "scale", "deploy/wallaroo")
    run(["kubectl", *deployment, "--replicas=0"])
    try:
        made.until_more(4_000)
        before = made.app.uids()[1]
        namespace.kubectl("delete", "pod", "app-1", "--wait")
        assert before not in made.app.uids()
        made.until_more(4_000)
    finally:
        run(["kubectl", *deployment, "--replicas=1"])
        _until_operator()
    made.end(twice=True)


def test_with_its_status_wiped_it_finds_its_way(namespace: Namespace, collector: Collector) -> None:
    """Ruling K8s 17: status is a report."""
    made = Sequences(namespace, collector, 2)
    made.app.until_ready()
    made.begin(2000)
    wiped = '{"status": null}'
    namespace.kubectl("patch", "wapp", "app", "--subresource=status", "--type=merge", "-p", wiped)
    made.app.scale(3)
    made.app.until_members(3)
    made.end()


@pytest.mark.alone
def test_its_restart_restarts_no_worker(namespace: Namespace, collector: Collector) -> None:
    """Ruling K8s 23."""
    made = Sequences(namespace, collector, 2, rate=2_000)
    made.app.until_ready()
    before = made.app.uids()
    _kill_operator()
    _until_operator()
    time.sleep(5)
    assert made.app.uids() == before
    made.end()


def test_nothing_is_applied_onto_what_belongs_to_somebody_else(
    namespace: Namespace, collector: Collector
) -> None:
    """Ruling K8s 14."""
    meta = {"name": "app", "labels": {"whose": "mine"}}
    spec = {"ports": [{"port": 80}], "selector": {"app": "mine"}}
    namespace.apply({"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec})
    made = Sequences(namespace, collector, 1)
    found = made.app.until_condition("Ready", "False", "NameConflict")
    assert "Service" in found["message"]
    assert namespace.get("service", "app")["spec"]["selector"] == {"app": "mine"}
    namespace.kubectl("delete", "service", "app")
    made.app.until_ready()
