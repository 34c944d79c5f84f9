"""Pods that go, at any time: with a source that can be read again every event counts exactly once.

What was sent to the collector since the last checkpoint is sent again, so outputs may come twice.
"""

import json
import time

import pytest
from applications import Sequences
from k8s import Collector, Failed, Namespace, seconds, until


@pytest.fixture
def running(namespace: Namespace, collector: Collector) -> Sequences:
    """Three workers, and half a minute of numbers."""
    made = Sequences(namespace, collector, 3, rate=2_000)
    made.app.until_ready()
    made.until_more(4_000)
    return made


def _delete(made: Sequences, ordinal: int) -> None:
    made.namespace.kubectl("delete", "pod", f"{made.app.name}-{ordinal}", "--wait=false")


def _kill(made: Sequences, ordinal: int) -> None:
    """As when the kernel does it: without a word."""
    made.namespace.kubectl("exec", f"{made.app.name}-{ordinal}", "--", "touch", "/tmp/die")


def _evict(made: Sequences, ordinal: int) -> None:
    """As `kubectl drain` does it. Raises `Failed` if the budget does not allow it."""
    name, namespace = f"{made.app.name}-{ordinal}", made.namespace.name
    meta = {"name": name, "namespace": namespace}
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": meta}
    path = f"/api/v1/namespaces/{namespace}/pods/{name}/eviction"
    made.namespace.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(body))


@pytest.mark.parametrize("ordinal", [0, 1])
def test_a_pod_is_deleted(running: Sequences, ordinal: int) -> None:
    before = running.app.uids()
    _delete(running, ordinal)
    until(lambda: before[ordinal] not in running.app.uids(), "the pod stays")
    running.app.until_ready()
    running.end(twice=True)


@pytest.mark.parametrize("ordinal", [0, 2])
def test_a_container_is_killed(running: Sequences, ordinal: int) -> None:
    """It starts again in its pod, and goes on from the last checkpoint."""
    _kill(running, ordinal)

    def restarted() -> bool:
        [status] = running.app.pods()[ordinal]["status"]["containerStatuses"]
        return bool(status["restartCount"] and status["ready"])

    until(restarted, "the container does not come back")
    running.end(twice=True)


def test_all_pods_are_deleted_at_once(running: Sequences) -> None:
    before = set(running.app.uids())
    running.namespace.kubectl(
        "delete", "pods", "-l", "wallaroo.dev/application=app", "--wait=false"
    )
    until(lambda: not before & set(running.app.uids()), "pods stay")
    running.app.until_ready()
    running.end(twice=True)


@pytest.mark.parametrize("after", seconds(2, 0.5, 4, 6))
@pytest.mark.parametrize("ordinal", [0, 1, 3])
def test_a_pod_is_deleted_in_a_rescale(running: Sequences, ordinal: int, after: float) -> None:
    """Worker 0, a donor, one that joins: the rescale is tried again, or was committed."""
    running.app.scale(5)
    time.sleep(after)
    try:
        _delete(running, ordinal)
    except Failed:
        assert ordinal == 3  # it was not there yet
    running.app.until_members(5, 240)
    running.app.scale(2)
    time.sleep(after)
    _delete(running, min(ordinal, 1))
    running.app.until_members(2, 240)
    running.end(twice=True)


def test_an_eviction_takes_a_checkpoint_first(namespace: Namespace, collector: Collector) -> None:
    """Ruling K8s 11: what was done before is not done again."""
    seldom = {"interval": "10m"}
    running = Sequences(namespace, collector, 3, rate=2_000, checkpoint=seldom)
    running.app.until_ready()
    running.until_more(20_000)
    done, before = collector.count(), running.app.uids()[1]
    _evict(running, 1)
    until(lambda: before not in running.app.uids(), "the pod stays")
    running.app.until_ready()
    found, _ = running.end(twice=True)
    assert found.twice < done / 2  # what came between the barrier and the end of the pod


def _allowed(made: Sequences) -> int:
    """How many pods may be evicted now."""
    return int(made.namespace.get("pdb", "app")["status"]["disruptionsAllowed"])


def test_no_second_member_is_evicted_before_the_first_is_back(running: Sequences) -> None:
    """Ruling K8s 20."""
    until(lambda: _allowed(running) == 1, "no member may go")
    before = running.app.uids()
    _evict(running, 1)
    with pytest.raises(Failed, match="disruption budget"):
        _evict(running, 2)
    until(lambda: before[1] not in running.app.uids(), "the pod stays")
    running.app.until_ready()
    assert running.app.uids()[2] == before[2]
    until(lambda: _allowed(running) == 1, "no member may go though all are back")
    _evict(running, 2)
    until(lambda: before[2] not in running.app.uids(), "the pod stays")
    running.app.until_ready()
    running.end(twice=True)


def test_the_budget_follows_the_members(running: Sequences) -> None:
    """Ruling K8s 20."""
    budget = running.namespace.get("pdb", "app")
    assert budget["spec"]["minAvailable"] == 2
    assert budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
    running.app.scale(2)
    running.app.until_members(2)
    until(lambda: running.namespace.get("pdb", "app")["spec"]["minAvailable"] == 1, "stays")
    running.end()


@pytest.mark.parametrize("ordinal", [0, 1])
def test_state_that_is_lost_is_never_begun_anew_in_silence(
    running: Sequences, ordinal: int
) -> None:
    """Rulings K8s 1 and 2: a person has to accept it."""
    running.namespace.kubectl("delete", "pvc", f"state-app-{ordinal}", "--wait=false")
    _delete(running, ordinal)
    found = running.app.until_condition("Degraded", "True", "StateLost")
    assert f"state-app-{ordinal}" in found["message"]
    assert "accept-state-loss" in found["message"]
    assert running.app.condition("Ready")["status"] == "False"
    count = running.collector.count()
    time.sleep(3)
    assert running.collector.count() <= count + 4_000  # what was under way; then nothing
    epoch = running.app.status().get("checkpoint", {}).get("epoch", 0)
    note = f"wallaroo.dev/accept-state-loss={epoch}"
    running.namespace.kubectl("annotate", "wapp", "app", note)
    running.app.until_ready()
