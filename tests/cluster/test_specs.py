"""What the API server refuses, with words that help; no operator takes part."""

from typing import Any

import pytest
from k8s import App, Failed, Json, Namespace, apply

APP = {"configMap": {"name": "word-count", "key": "word_count.py"}}


def _refusal(namespace: Namespace, name: str = "app", **spec: Any) -> str:
    spec.setdefault("app", APP)
    with pytest.raises(Failed) as failed:
        App(namespace, name, **spec).apply()
    return failed.value.words


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"replicas": -1}, "spec.replicas"),
        ({"app": {}}, "exactly one of app.path and app.configMap"),
        ({"app": {"path": "/app/a.py", **APP}}, "exactly one of app.path and app.configMap"),
        ({"app": {"path": "/app/a.py"}}, "name that image"),
        ({"app": None}, "spec.app"),
        ({"checkpoint": {"interval": "often"}}, "write a duration like 500ms"),
        ({"drainTimeout": "5 minutes"}, "write a duration like 500ms"),
        ({"onError": "Ignore"}, "DeadLetter"),
        ({"onError": "DeadLetter"}, "needs deadLetterPath"),
        (
            {"onError": "DeadLetter", "deadLetterPath": "/var/lib/wallaroo/dead.txt"},
            "deadLetterPath must not be below /var/lib/wallaroo",
        ),
        ({"ports": [{"name": "control", "port": 7710}]}, "used by the worker itself"),
        ({"ports": [{"name": "lines", "port": 70000}]}, "spec.ports[0].port"),
        ({"storage": {"size": "large"}}, "spec.storage.size"),
        ({"replica": 3}, 'unknown field "spec.replica"'),
        ({"template": {"spec": {"hostNetwork": True}}}, "hostNetwork"),
        ({"template": {"spec": {"serviceAccountName": "admin"}}}, "serviceAccountName"),
        ({"securityContext": {"runAsUser": 0}}, "securityContext"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_wrong_spec_is_refused(shared: Namespace, spec: Json, says: str) -> None:
    """Also one that would loosen what confines the pods (ruling K8s 13), or lose output (6)."""
    words = _refusal(shared, **spec)
    assert says in words, words


@pytest.mark.parametrize("name", ["state", "module", "tls", "tmp", "home"])
def test_a_volume_of_a_name_of_ours_is_refused(shared: Namespace, name: str) -> None:
    """Ruling K8s 13."""
    volumes = [{"name": name, "emptyDir": {}}]
    words = _refusal(shared, template={"spec": {"volumes": volumes}})
    assert "the names state, module, tls, tmp and home are taken" in words, words


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/var/lib/wallaroo", "the worker's own"),
        ("/etc/wallaroo/tls/more", "the worker's own"),
        ("/home/wallaroo/", "the worker's own"),
        ("/tmp", "the worker's own"),
        ("/", "the worker's own"),
        ("var/lib/wallaroo", "write the path in full"),
        ("/var/lib//wallaroo", "write the path in full"),
        ("/data/../tmp", "write the path in full"),
    ],
)
def test_a_path_of_ours_is_no_place_for_a_volume(shared: Namespace, path: str, says: str) -> None:
    """Ruling K8s 13."""
    words = _refusal(
        shared,
        template={"spec": {"volumes": [{"name": "data", "emptyDir": {}}]}},
        volumeMounts=[{"name": "data", "mountPath": path}],
    )
    assert says in words, words


@pytest.mark.parametrize("name", ["a" * 41, "1st", "word.count"])
def test_a_name_that_its_objects_could_not_have_is_refused(shared: Namespace, name: str) -> None:
    """Ruling K8s 23."""
    words = _refusal(shared, name)
    assert "40" in words or "must" in words, words


@pytest.mark.parametrize(
    ("storage", "says"),
    [
        ({"size": "2Gi"}, "storage.size can't be changed"),
        ({"className": "fast"}, "storage.className can't be changed"),
    ],
    ids=["size", "class"],
)
def test_storage_stays_as_it_is(shared: Namespace, storage: Json, says: str) -> None:
    """Ruling K8s 23."""
    app = App(shared, f"kept-{next(iter(storage)).lower()}", app=APP, suspend=True).apply()
    with pytest.raises(Failed) as failed:
        app.apply(storage={**app.spec["storage"], **storage})
    assert says in failed.value.words


def test_scale_is_refused_what_a_spec_is(shared: Namespace) -> None:
    App(shared, "scaled", app=APP, suspend=True).apply()
    with pytest.raises(Failed):
        shared.kubectl("scale", "wapp", "scaled", "--replicas=1001")


def test_what_is_left_out_has_defaults(shared: Namespace) -> None:
    manifest = App(shared, "plain", app=APP).manifest()
    manifest["spec"] = {"app": APP, "suspend": True}
    apply(manifest)
    spec = shared.get("wapp", "plain")["spec"]
    assert spec["replicas"] == 1
    assert spec["checkpoint"]["interval"] == "1s"
    assert spec["storage"] == {"size": "1Gi", "onDelete": "Retain"}
    assert spec["onError"] == "Stop"


def test_explain_tells_what_a_field_means(shared: Namespace) -> None:
    for field in ("spec.app.configMap", "spec.storage.onDelete", "status.conditions"):
        assert "DESCRIPTION" in shared.kubectl("explain", f"wapp.{field}")
