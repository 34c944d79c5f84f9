"""`kubectl scale` and autoscalers while events flow: nothing lost, nothing twice."""

import time

import pytest
from applications import Sequences
from k8s import Collector, Namespace, until


def _history(app: Sequences) -> list[tuple[int, int]]:
    """The rescales that were committed."""
    return [
        (each["from"], each["to"])
        for each in app.app.status().get("history", [])
        if each["outcome"] == "Committed"
    ]


def _with_load(
    namespace: Namespace, collector: Collector, replicas: int, rate: int = 4000
) -> Sequences:
    made = Sequences(namespace, collector, replicas)
    made.app.until_ready()
    made.begin(rate)
    return made


def test_three_to_five_to_two_under_load(namespace: Namespace, collector: Collector) -> None:
    """The least moves; volumes go after the commit, and no client loses (rulings K8s 3 and 12)."""
    made = _with_load(namespace, collector, 3)
    assert made.app.claims() == [f"state-app-{n}" for n in range(3)]
    for members in (5, 2):
        made.app.scale(members)
        made.app.until_members(members)
        made.until_more(5000)
    until(lambda: len(made.app.claims()) == 2, "claims of released workers stay")
    made.end()
    assert _history(made) == [(3, 5), (5, 2)]
    for each in made.app.status()["history"]:
        assert each["moved"] == each["minimum"]
        assert each["entries"] > 0
    pieces = made.app.status()["assignment"]["pieces"]
    assert {each["worker"] for each in pieces} == {0, 1}
    assert pieces[0]["start"] == pieces[-1]["end"] == "0" * 16  # ruling K8s 17


@pytest.mark.parametrize("targets", [(2, 3, 2), (5, 3, 5)], ids=["3-2-3-2", "3-5-3-5"])
def test_targets_that_follow_each_other_quickly(
    namespace: Namespace, collector: Collector, targets: tuple[int, ...]
) -> None:
    """A returning ordinal never meets stale state (ruling K8s 3)."""
    made = _with_load(namespace, collector, 3, rate=2000)
    for members in targets:
        made.app.scale(members)
        time.sleep(4)
    made.app.until_members(targets[-1], 240)
    made.until_more(4000)
    made.end()


def test_without_load_the_state_moves_too(namespace: Namespace, collector: Collector) -> None:
    made = _with_load(namespace, collector, 1)
    made.end()
    made.app.scale(3)
    made.app.until_members(3)
    [record] = made.app.status()["history"]
    assert record["moved"] == record["minimum"]
    until(lambda: made.app.status()["keys"] == 207, "not all keys are there", 60)


@pytest.mark.alone
def test_a_pod_that_finds_no_room_stops_nothing(namespace: Namespace, collector: Collector) -> None:
    """Ruling K8s 16: shown with the scheduler's words; it goes through once there is room."""
    made = Sequences(namespace, collector, 2, rescaleTimeout="5s")
    made.app.until_ready()
    made.begin(2000)
    namespace.cluster.cordon()
    try:
        made.app.scale(4)

        def said() -> bool:
            found = made.app.condition("Rescaling")
            return found["reason"] == "WaitingForPods" and "unschedulable" in found["message"]

        until(said, "the scheduler's words are not there")
        assert made.app.condition("Ready")["status"] == "True"
        made.until_more(2000)
    finally:
        namespace.cluster.uncordon()
    made.app.until_members(4)
    made.end()


@pytest.mark.alone
def test_a_target_is_called_off_while_pods_are_waited_for(
    namespace: Namespace, collector: Collector
) -> None:
    made = _with_load(namespace, collector, 2, rate=2000)
    namespace.cluster.cordon()
    try:
        made.app.scale(4)
        made.app.until_condition("Rescaling", "False", "WaitingForPods", 60)
        made.app.scale(2)
        made.app.until_members(2)
    finally:
        namespace.cluster.uncordon()
    made.end()
    assert _history(made) == []


def test_an_autoscaler_adds_workers_under_load_and_takes_them_back(
    namespace: Namespace, collector: Collector
) -> None:
    """On CPU, as docs/kubernetes.md says, with shorter times (ruling K8s 25)."""
    made = Sequences(
        namespace,
        collector,
        1,
        resources={"requests": {"cpu": "100m", "memory": "64Mi"}},
        env=[{"name": "BUSY", "value": "0.0001"}],
    )
    made.app.until_ready()
    target = {"type": "Utilization", "averageUtilization": 70}
    namespace.apply(
        {
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "app"},
            "spec": {
                "scaleTargetRef": {
                    "apiVersion": "wallaroo.dev/v1alpha1",
                    "kind": "WallarooApp",
                    "name": "app",
                },
                "minReplicas": 1,
                "maxReplicas": 3,
                "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
                "behavior": {
                    "scaleUp": {"stabilizationWindowSeconds": 5},
                    "scaleDown": {"stabilizationWindowSeconds": 20},
                },
            },
        }
    )
    made.begin(2000)
    until(lambda: made.app.status().get("members", 1) > 1, "nothing is added", 240)
    made.until_more(4000)
    made.end()
    until(lambda: made.app.status()["members"] == 1, "nothing is taken back", 240)
    made.app.until_ready()
