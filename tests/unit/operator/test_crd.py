"""The schema: what is made from it is current, structural, and says what was meant."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.unit.operator.apps import app, filled, resource

from wallaroo_operator import crd, manifests, names
from wallaroo_operator.app import App, Module, seconds

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("path", crd.files())
def test_what_is_committed_is_what_the_schema_says(path: str) -> None:
    assert (ROOT / path).read_text() == crd.files()[path], "run 'make crds'"


def schemas(schema: dict[str, Any], at: str) -> Iterator[tuple[str, dict[str, Any]]]:
    yield at, schema
    for name, each in schema.get("properties", {}).items():
        yield from schemas(each, f"{at}.{name}")
    for inner in ("items", "additionalProperties"):
        if isinstance(schema.get(inner), dict):
            yield from schemas(schema[inner], f"{at}.{inner}")


ALL = [*schemas(crd.SPEC, "spec"), *schemas(crd.STATUS, "status")]


@pytest.mark.parametrize(("path", "schema"), ALL, ids=[path for path, _ in ALL])
def test_every_field_has_a_type(path: str, schema: dict[str, Any]) -> None:
    assert "type" in schema or schema.get("x-kubernetes-int-or-string")


@pytest.mark.parametrize(("path", "schema"), ALL, ids=[path for path, _ in ALL])
def test_every_rule_has_a_message(path: str, schema: dict[str, Any]) -> None:
    assert all(each["message"] for each in schema.get("x-kubernetes-validations", ()))


def test_scaling_and_autoscaling_work_through_the_scale_subresource() -> None:
    """Ruling K8s 22: the selector is where an autoscaler looks for it."""
    (version,) = crd.definition()["spec"]["versions"]
    assert version["subresources"]["scale"] == {
        "specReplicasPath": ".spec.replicas",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector",
    }
    assert version["subresources"]["status"] == {}


def test_size_and_class_of_the_storage_can_not_be_changed() -> None:
    """Ruling K8s 23."""
    rules = [x["rule"] for x in crd.SPEC["properties"]["storage"]["x-kubernetes-validations"]]
    assert any("self.size == oldSelf.size" in rule for rule in rules)
    assert any("oldSelf.className" in rule for rule in rules)


def rules(schema: dict[str, Any]) -> str:
    return "\n".join(each["rule"] for each in schema["x-kubernetes-validations"])


def test_no_volume_may_have_a_name_of_ours() -> None:
    """Ruling K8s 13."""
    pods = manifests.template(app(), "stock:1", Module("app.py", ""), "0", tls=True)
    ours = {each["name"] for each in pods["spec"]["volumes"]}
    ours |= {each["name"] for each in pods["spec"]["containers"][0]["volumeMounts"]}
    spec = crd.SPEC["properties"]["template"]["properties"]["spec"]
    refused = rules(spec["properties"]["volumes"]["items"])
    assert set(re.findall("'([a-z]+)'", refused)) == ours


def refused(path: str) -> bool:
    """Whether the rules of the schema on a mount's path refuse it; their patterns are RE2's."""
    found = re.findall(
        r"matches\('(.*?)'\)", rules(crd.SPEC["properties"]["volumeMounts"]["items"])
    )
    assert len(found) == 2
    return not path.startswith("/") or any(re.search(each, path) for each in found)


def test_no_volume_may_be_mounted_where_ours_are() -> None:
    """Ruling K8s 13."""
    pods = manifests.template(app(), "stock:1", Module("app.py", ""), "0", tls=True)
    mounts = pods["spec"]["containers"][0]["volumeMounts"]
    for ours in (each["mountPath"] for each in mounts):
        assert refused(ours)
        assert refused(f"{ours}/")
        assert refused(f"/.{ours}")
        assert refused(f"/data/..{ours}")
        assert refused(ours[1:])
    assert refused("/")
    assert refused("/var/lib/wallaroo/below")
    assert not any(map(refused, ("/data", "/data/", "/var/lib/wallaroos", "/tmp/big", "/a.b/..c")))


def test_no_dead_letters_on_the_volume_of_the_state() -> None:
    """Ruling K8s 6."""
    assert f"!self.deadLetterPath.startsWith('{names.STATE_DIR}')" in rules(crd.SPEC)


def test_the_yaml_has_no_anchors() -> None:
    text = crd.as_yaml(crd.definition())
    assert yaml.safe_load(text) == crd.definition()
    assert "&id" not in text


def test_defaults_can_be_told_from_what_was_said() -> None:
    said = {
        "app": {"path": "/a.py"},
        "image": "mine",
        "replicas": 3,
        "checkpoint": {"interval": "5s"},
    }
    assert crd.without_defaults(filled(said)) == said


def test_a_default_that_the_schema_gets_later_is_no_other_template() -> None:
    """Ruling K8s 23: an upgrade of the operator restarts no worker."""
    found = resource()
    older = {**found, "spec": {k: v for k, v in found["spec"].items() if k != "drainTimeout"}}
    assert App.read(found).inputs(None) == App.read(older).inputs(None)


@pytest.mark.parametrize(
    "change",
    [{"replicas": 5}, {"suspend": True}, {"rescaleTimeout": "1m"}, {"imagePullPolicy": None}],
)
def test_what_is_no_matter_of_pods_is_no_other_template(change: dict[str, Any]) -> None:
    """Ruling K8s 23."""
    change = {k: v for k, v in change.items() if v is not None}
    assert App.read(resource(**change)).inputs(None) == App.read(resource()).inputs(None)


@pytest.mark.parametrize(
    "change",
    [{"image": "new"}, {"args": ["-v"]}, {"env": [{"name": "A"}]}, {"onError": "DeadLetter"}],
)
def test_what_pods_are_made_of_makes_another_template(change: dict[str, Any]) -> None:
    """Ruling K8s 23."""
    assert App.read(resource(**change)).inputs(None) != App.read(resource()).inputs(None)


def test_durations() -> None:
    assert [seconds(each) for each in ("250ms", "30s", "1.5m", "2h")] == [0.25, 30, 90, 7200]
    with pytest.raises(ValueError, match="write it like"):
        seconds("soon")
