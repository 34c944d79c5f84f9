"""What the objects of an application look like; the golden files say it in full.

`WALLAROO_GOLDEN=1 pytest tests/unit/operator/test_objects.py` writes them anew. A change of one
is a change of every application that exists: see ruling K8s 23.
"""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.unit.operator.apps import MODULE, app

from wallaroo_operator import manifests, names
from wallaroo_operator.app import App, Module

GOLDEN = Path(__file__).parent / "golden"
IN_MAP = Module("app.py", MODULE)

EVERYTHING = {
    "app": {"path": "/app/count.py"},
    "image": "example/count:2",
    "args": ["--in", "lines@0.0.0.0:7000"],
    "stateCache": 1000,
    "onError": "DeadLetter",
    "deadLetterPath": "/data/dead.txt",
    "checkpoint": {"interval": "500ms"},
    "storage": {"size": "10Gi", "className": "fast", "onDelete": "Delete"},
    "ports": [{"name": "lines", "port": 7000}],
    "drainTimeout": "1m",
    "resources": {"requests": {"cpu": "2"}},
    "env": [{"name": "POD_NAME", "value": "not mine to say"}, {"name": "LEVEL", "value": "5"}],
    "envFrom": [{"secretRef": {"name": "broker"}}],
    "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    "template": {
        "metadata": {
            "labels": {"team": "blue", names.APPLICATION: "another"},
            "annotations": {"note": "yes"},
        },
        "spec": {
            "nodeSelector": {"disk": "ssd"},
            "tolerations": [{"operator": "Exists"}],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
        },
    },
}


def rendered(of: App, module: Module | None) -> list[dict[str, Any]]:
    pods = manifests.template(of, "stock:1", module, "0123456789abcdef", tls=True)
    found = [
        manifests.headless_service(of),
        manifests.disruption_budget(of, 3),
        manifests.statefulset(of, 3, pods),
        manifests.proof_pod(of, pods, ["count", "lines"]),
        manifests.secret(of, names.tls_secret(of.name), {"tls.crt": "YQ=="}),
    ]
    if of.ports:
        found.append(manifests.client_service(of))
    if module:
        found.append(manifests.module_map(of, module))
    return found


@pytest.mark.parametrize(
    ("name", "of", "module"),
    [("plain", app(), IN_MAP), ("everything", app("everything", **EVERYTHING), None)],
)
def test_an_application_is_rendered_as_ever(name: str, of: App, module: Module | None) -> None:
    """Ruling K8s 23."""
    text = yaml.safe_dump_all(rendered(of, module), sort_keys=False)
    path = GOLDEN / f"{name}.yaml"
    if os.environ.get("WALLAROO_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize("name", ["plain", "everything"])
def test_what_a_statefulset_can_not_change_stays_as_it_is(name: str) -> None:
    """Ruling K8s 23: these are frozen, for applications that exist."""
    found = list(yaml.safe_load_all((GOLDEN / f"{name}.yaml").read_text()))
    (workers,) = (each for each in found if each["kind"] == "StatefulSet")
    app_name = workers["metadata"]["name"]
    spec = workers["spec"]
    assert spec["selector"] == {"matchLabels": {"wallaroo.dev/application": app_name}}
    assert spec["serviceName"] == f"{app_name}-workers"
    assert spec["podManagementPolicy"] == "Parallel"
    assert [each["metadata"]["name"] for each in spec["volumeClaimTemplates"]] == ["state"]
    assert spec["updateStrategy"] == {"type": "OnDelete"}  # ruling K8s 18


def pod_spec(**spec: Any) -> dict[str, Any]:
    found: dict[str, Any] = manifests.template(app(**spec), "stock:1", IN_MAP, "0", tls=True)
    return found


def test_pods_are_confined() -> None:
    """Ruling K8s 13."""
    spec = pod_spec()["spec"]
    (container,) = spec["containers"]
    assert spec["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "fsGroup": 65532,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert container["resources"] == {"requests": {"cpu": "1", "memory": "512Mi"}}
    empty = [each for each in spec["volumes"] if "emptyDir" in each]
    assert {each["name"] for each in empty} == {"tmp", "home"}
    assert all(each["emptyDir"]["sizeLimit"] for each in empty)


def test_the_users_additions_can_not_replace_what_is_ours() -> None:
    """Ruling K8s 13."""
    found = pod_spec(**{k: v for k, v in EVERYTHING.items() if k not in {"app", "image"}})
    assert found["metadata"]["labels"][names.APPLICATION] == "count"
    assert found["metadata"]["labels"]["team"] == "blue"
    last = {each["name"]: each for each in found["spec"]["containers"][0]["env"]}
    assert "valueFrom" in last["POD_NAME"]
    assert last["LEVEL"]["value"] == "5"


def test_a_pod_has_a_minute_to_end_and_no_hook() -> None:
    """Ruling K8s 11."""
    spec = pod_spec()["spec"]
    assert spec["terminationGracePeriodSeconds"] == 60
    assert "lifecycle" not in spec["containers"][0]


def test_claims_are_kept_unless_the_application_says_otherwise() -> None:
    """Ruling K8s 5."""
    pods = pod_spec()
    kept = manifests.statefulset(app(), 1, pods)["spec"]["persistentVolumeClaimRetentionPolicy"]
    assert kept == {"whenScaled": "Retain", "whenDeleted": "Retain"}
    gone = manifests.statefulset(app(storage={"onDelete": "Delete"}), 1, pods)["spec"]
    assert gone["persistentVolumeClaimRetentionPolicy"]["whenDeleted"] == "Delete"


@pytest.mark.parametrize(("members", "kept"), [(1, 0), (3, 2), (0, 0)])
def test_a_budget_lets_one_member_go_at_a_time(members: int, kept: int) -> None:
    """Ruling K8s 20."""
    spec = manifests.disruption_budget(app(), members)["spec"]
    assert spec["minAvailable"] == kept
    assert spec["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_worker_0_is_found_though_it_is_not_ready_and_clients_find_ready_ones() -> None:
    """Ruling K8s 9."""
    of = app(ports=[{"name": "lines", "port": 7000}])
    headless, client = manifests.headless_service(of)["spec"], manifests.client_service(of)["spec"]
    assert headless["clusterIP"] == "None"
    assert headless["publishNotReadyAddresses"] is True
    assert "publishNotReadyAddresses" not in client
    assert [each["port"] for each in client["ports"]] == [7000]


def test_a_template_is_proven_without_state_and_seen_by_no_service() -> None:
    """Ruling K8s 18."""
    proof = manifests.proof_pod(app(), pod_spec(), ["count"])
    assert names.APPLICATION not in proof["metadata"]["labels"]
    (container,) = proof["spec"]["containers"]
    assert container["args"][:4] == ["pod", "--check", "--steps-of", "count"]
    assert container["args"][-1] == "/etc/wallaroo/module/app.py"
    assert {each["name"] for each in container["volumeMounts"]} == {"module", "tmp", "home"}
    assert not {"livenessProbe", "readinessProbe", "startupProbe"} & container.keys()
    assert proof["spec"]["restartPolicy"] == "Never"


def test_a_module_is_copied_under_a_name_that_says_its_text() -> None:
    """Ruling K8s 18."""
    one, other = (manifests.module_map(app(), Module("app.py", text)) for text in ("a", "b"))
    assert one["immutable"] is True
    assert one["metadata"]["name"] != other["metadata"]["name"]
    assert one["metadata"]["name"].startswith("count-module-")


def test_everything_goes_with_its_application() -> None:
    """Ruling K8s 21: without a finalizer."""
    for each in rendered(app(ports=[{"name": "x", "port": 1}]), IN_MAP):
        (owner,) = each["metadata"]["ownerReferences"]
        assert owner["uid"] == "uid-of-the-app"
        assert owner["controller"] is True
        assert "finalizers" not in each["metadata"]
