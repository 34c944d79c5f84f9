"""WallarooApps for tests, with defaults filled in as the API server does."""

import copy
from typing import Any

from wallaroo_operator.app import App
from wallaroo_operator.crd import SPEC

MODULE = "import wallaroo\n"


def filled(value: Any, schema: dict[str, Any] = SPEC) -> Any:
    """With the schema's defaults."""
    if isinstance(value, list):
        return [filled(each, schema.get("items", {})) for each in value]
    if not isinstance(value, dict) or "properties" not in schema:
        return value
    found = dict(value)
    for name, each in schema["properties"].items():
        if name not in found and "default" in each:
            found[name] = copy.deepcopy(each["default"])
        if name in found:
            found[name] = filled(found[name], each)
    return found


def resource(name: str = "count", namespace: str = "team", **spec: Any) -> dict[str, Any]:
    """As the API server has it."""
    spec = {"app": {"configMap": {"name": "module", "key": "app.py"}}, **spec}
    return {
        "apiVersion": "wallaroo.dev/v1alpha1",
        "kind": "WallarooApp",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": "uid-of-the-app",
            "generation": 1,
            "resourceVersion": "10",
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": filled(spec),
    }


def app(name: str = "count", **spec: Any) -> App:
    """As the operator reads it."""
    return App.read(resource(name, **spec))
