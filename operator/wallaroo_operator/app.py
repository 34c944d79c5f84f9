"""A WallarooApp as the operator thinks of it.

The API server has filled in defaults and refused what is wrong (`crd`), so that little is left to
check; an object of before a change of the schema may lack what has a default now.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from wallaroo_operator.crd import without_defaults
from wallaroo_operator.names import ACCEPT_LOSS, MODULE_DIR, RESTARTED_AT, digest

Json = dict[str, Any]

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def seconds(text: str) -> float:
    """A duration of the schema in seconds.

    >>> seconds("500ms"), seconds("1.5m")
    (0.5, 90.0)
    """
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)", text)
    if not found:
        raise ValueError(f"{text!r} is no duration: write it like 500ms, 30s or 10m")
    return float(found[1]) * _UNITS[found[2]]


@dataclass(frozen=True)
class Module:
    """The application's text, as its ConfigMap has it; or why there is none."""

    file: str
    text: str = ""
    missing: str = ""


@dataclass(frozen=True)
class App:
    """What is asked for.

    target: the number of workers; 0 to have none, and state kept.
    """

    name: str
    namespace: str
    uid: str
    generation: int
    resource_version: str
    spec: Mapping[str, Any]
    annotations: Mapping[str, str] = field(default_factory=dict)
    deleting: bool = False
    status: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, found: Mapping[str, Any]) -> "App":
        """From what the API server says."""
        meta = found["metadata"]
        return cls(
            meta["name"],
            meta["namespace"],
            meta["uid"],
            meta.get("generation", 0),
            meta.get("resourceVersion", ""),
            found.get("spec", {}),
            meta.get("annotations") or {},
            "deletionTimestamp" in meta,
            found.get("status") or {},
        )

    @property
    def target(self) -> int:
        return 0 if self.spec.get("suspend") else int(self.spec.get("replicas", 1))

    @property
    def config_map(self) -> tuple[str, str] | None:
        """The ConfigMap that has the module, and the key in it."""
        found = self.spec["app"].get("configMap")
        return (found["name"], found["key"]) if found else None

    @property
    def path(self) -> str:
        """The module's file in a pod."""
        found = self.config_map
        return f"{MODULE_DIR}/{found[1]}" if found else str(self.spec["app"]["path"])

    @property
    def ports(self) -> list[Json]:
        return list(self.spec.get("ports") or ())

    @property
    def rescale_timeout(self) -> float:
        return seconds(self.spec.get("rescaleTimeout", "10m"))

    @property
    def accepted_loss(self) -> str | None:
        """The epoch as of which a person has accepted that state is lost."""
        return self.annotations.get(ACCEPT_LOSS)

    def inputs(self, module: Module | None) -> str:
        """What a template is rendered from, in short.

        The same inputs keep the template that is there, whatever this version of the operator
        would make of them: an upgrade of the operator restarts no worker.
        """
        with_no_part = {"replicas", "suspend", "storage", "rescaleTimeout"}
        said = without_defaults(dict(self.spec))
        parts = {key: value for key, value in said.items() if key not in with_no_part}
        text = module.text if module else ""
        return digest([parts, text, self.annotations.get(RESTARTED_AT, "")])[:16]
