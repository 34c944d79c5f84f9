"""The schema of a WallarooApp: what the API server accepts, fills in, and says of what it refuses.

It is written down once, here. The CustomResourceDefinition as YAML and the reference for readers
are made from it by `python -m wallaroo_operator.crd`, and a test says that they are current.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from wallaroo_operator.names import (
    GROUP,
    KIND,
    LONGEST_NAME,
    NAME,
    PLURAL,
    RESERVED,
    STATE_DIR,
    VERSION,
)

Json = dict[str, Any]

_FREE = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def _rule(rule: str, message: str, **more: str) -> Json:
    return {"rule": rule, "message": message, **more}


def _object(
    description: str,
    properties: Json,
    *,
    required: tuple[str, ...] = (),
    rules: tuple[Json, ...] = (),
    default: Any = None,
) -> Json:
    found: Json = {"type": "object", "description": description, "properties": properties}
    if required:
        found["required"] = list(required)
    if rules:
        found["x-kubernetes-validations"] = list(rules)
    if default is not None:
        found["default"] = default
    return found


def _text(description: str, **more: Any) -> Json:
    return {"type": "string", "description": description, **more}


def _number(description: str, **more: Any) -> Json:
    return {"type": "integer", "format": "int32", "description": description, **more}


def _list(description: str, items: Json, **more: Any) -> Json:
    return {"type": "array", "description": description, "items": items, **more}


def _texts(description: str) -> Json:
    return {
        "type": "object",
        "description": description,
        "additionalProperties": {"type": "string"},
    }


def _free(description: str) -> Json:
    return {**_FREE, "description": description}


def _duration(description: str, default: str, *, zero: bool = False) -> Json:
    rules = [
        _rule(
            "self.matches('^[0-9]+([.][0-9]+)?(ms|s|m|h)$')",
            "write a duration like 500ms, 1s or 10m",
        )
    ]
    if not zero:
        rules.append(_rule("self.matches('[1-9]')", "a duration must be more than nothing"))
    return {
        **_text(description, default=default, maxLength=16),
        "x-kubernetes-validations": rules,
    }


def _quantities(description: str) -> Json:
    return {
        "type": "object",
        "description": description,
        "additionalProperties": {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "x-kubernetes-int-or-string": True,
        },
    }


_SOURCES = {
    "configMap": _free("As in a pod."),
    "secret": _free("As in a pod."),
    "emptyDir": _free("As in a pod."),
    "persistentVolumeClaim": _free("As in a pod: one that all workers can mount (ReadWriteMany)."),
    "projected": _free("As in a pod."),
}

_RESERVED = ", ".join(map(str, RESERVED))

SPEC = _object(
    "What is asked for.",
    {
        "image": _text(
            "The image of the workers. Empty for the stock image of the operator, which runs a "
            "module from a ConfigMap.",
            default="",
        ),
        "imagePullPolicy": _text(
            "When the image is pulled.",
            enum=["Always", "IfNotPresent", "Never"],
            default="IfNotPresent",
        ),
        "app": _object(
            "Where the application's module is: exactly one of both.",
            {
                "path": _text("The module's file in the image, as /app/word_count.py."),
                "configMap": _object(
                    "A ConfigMap of the same namespace that holds the module. A change of it is "
                    "rolled out.",
                    {
                        "name": _text("Its name.", minLength=1, maxLength=253),
                        "key": _text(
                            "The key in it, which is the file's name.",
                            pattern="^[A-Za-z_][A-Za-z0-9_]*[.]py$",
                            maxLength=253,
                        ),
                    },
                    required=("name", "key"),
                ),
            },
            rules=(
                _rule(
                    "has(self.path) != has(self.configMap)",
                    "say where the module is by exactly one of app.path and app.configMap",
                ),
            ),
        ),
        "args": _list("What the module's application_setup gets.", {"type": "string"}, default=[]),
        "replicas": _number(
            "The number of workers; 0 is the same as suspend. Leave it out of manifests where an "
            "autoscaler sets it.",
            minimum=0,
            maximum=1000,
            default=1,
        ),
        "suspend": {
            "type": "boolean",
            "description": "Take a last checkpoint, then run no workers; state is kept.",
            "default": False,
        },
        "checkpoint": _object(
            "When state is saved.",
            {
                "interval": _duration(
                    "Between two checkpoints; 0s for none but the last.", "1s", zero=True
                )
            },
            default={},
        ),
        "stateCache": {
            **_number(
                "Entries of state that a worker holds in memory; all if left out.", minimum=1
            ),
            "format": "int64",
        },
        "onError": _text(
            "What follows when a user's function raises: the application stops with nothing lost, "
            "or the event is set aside.",
            enum=["Stop", "DeadLetter"],
            default="Stop",
        ),
        "deadLetterPath": _text("The file for events that were set aside.", maxLength=1024),
        "storage": _object(
            "Of the volume that each worker keeps its state on. Size and class can't be changed.",
            {
                "size": {
                    "anyOf": [{"type": "integer"}, {"type": "string"}],
                    "description": "Of each volume.",
                    "x-kubernetes-int-or-string": True,
                    "pattern": "^[0-9]+([.][0-9]+)?([KMGTPE]i?|[mk]|[eE][+-]?[0-9]+)?$",
                    "default": "1Gi",
                },
                "className": _text("The storage class; the cluster's default if left out."),
                "onDelete": _text(
                    "What becomes of the volume claims when the application is deleted. An "
                    "application made again over retained claims goes on from them.",
                    enum=["Retain", "Delete"],
                    default="Retain",
                ),
            },
            default={},
            rules=(
                _rule(
                    # The default is looked at too, before it gets a size.
                    "!has(self.size) || !has(oldSelf.size) || self.size == oldSelf.size",
                    "storage.size can't be changed: the volumes are there already",
                ),
                _rule(
                    "(has(self.className) ? self.className : '') == "
                    "(has(oldSelf.className) ? oldSelf.className : '')",
                    "storage.className can't be changed: the volumes are there already",
                ),
            ),
        ),
        "ports": _list(
            "TCP sources of the module. With any, a Service of the application's name leads "
            "clients to ready workers.",
            _object(
                "A port.",
                {
                    "name": _text(
                        "Its name.",
                        pattern="^[a-z]([-a-z0-9]*[a-z0-9])?$",
                        maxLength=15,
                    ),
                    "port": _number(
                        f"Where the source listens; not {_RESERVED}, which are ours.",
                        minimum=1,
                        maximum=65535,
                    ),
                },
                required=("name", "port"),
                rules=(
                    _rule(
                        f"!(self.port in [{_RESERVED}])",
                        f"ports {_RESERVED} are used by the worker itself",
                    ),
                ),
            ),
            maxItems=32,
            default=[],
            **{"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
        "drainTimeout": _duration(
            "How long a worker that leaves serves the clients that are connected to it.",
            "30s",
            zero=True,
        ),
        "rescaleTimeout": _duration(
            "After this time without all new pods up a rescale is shown as timed out. It goes "
            "through nevertheless once they are.",
            "10m",
        ),
        "resources": _object(
            "Of a worker's container.",
            {
                "requests": _quantities("What is set aside for it."),
                "limits": _quantities("What it can't exceed. A limit on cpu makes rescales slow."),
            },
            default={"requests": {"cpu": "1", "memory": "512Mi"}},
        ),
        "env": _list(
            "Environment variables, as in a pod.",
            {
                **_FREE,
                "properties": {"name": {"type": "string"}},
                "required": ["name"],
            },
            default=[],
        ),
        "envFrom": _list("As in a pod.", dict(_FREE), default=[]),
        "volumeMounts": _list(
            "Where template.spec.volumes are mounted, as in a pod. Not below our own directories.",
            {
                **_FREE,
                "properties": {
                    "name": {"type": "string"},
                    "mountPath": {"type": "string", "maxLength": 1024},
                },
                "required": ["name", "mountPath"],
                "x-kubernetes-validations": [
                    _rule(
                        "self.mountPath.startsWith('/') && "
                        "!self.mountPath.matches('/([.]{0,2}/|[.]{1,2}$)')",
                        "write the path in full, from / on, without //, /./ and /../",
                    ),
                    _rule(
                        "!self.mountPath.matches("
                        "'^/(tmp|(var/lib|etc|home)?(/wallaroo(/.*)?)?)/?$')",
                        "this path is the worker's own: mount it elsewhere",
                    ),
                ],
            },
            maxItems=32,
            default=[],
        ),
        "template": _object(
            "Additions to the workers' pods.",
            {
                "metadata": _object(
                    "Of the pods.",
                    {
                        "labels": _texts("More labels."),
                        "annotations": _texts("More annotations."),
                    },
                ),
                "spec": _object(
                    "Where and how they run.",
                    {
                        "affinity": _free("As in a pod."),
                        "tolerations": _list("As in a pod.", dict(_FREE)),
                        "topologySpreadConstraints": _list("As in a pod.", dict(_FREE)),
                        "nodeSelector": _texts("As in a pod."),
                        "priorityClassName": _text("As in a pod."),
                        "imagePullSecrets": _list("As in a pod.", dict(_FREE)),
                        "runtimeClassName": _text("As in a pod."),
                        "volumes": _list(
                            "More volumes, of these kinds.",
                            _object(
                                "A volume.",
                                {
                                    "name": _text(
                                        "Its name.",
                                        pattern="^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
                                        maxLength=63,
                                    ),
                                    **_SOURCES,
                                },
                                required=("name",),
                                rules=(
                                    _rule(
                                        "!(self.name in ['state', 'module', 'tls', 'tmp', 'home'])",
                                        "the names state, module, tls, tmp and home are taken",
                                    ),
                                ),
                            ),
                            maxItems=32,
                        ),
                    },
                ),
            },
            default={},
        ),
    },
    required=("app",),
    rules=(
        _rule(
            "!has(self.app.path) || (has(self.image) && size(self.image) > 0)",
            "app.path is a file in an image: name that image",
            fieldPath=".image",
        ),
        _rule(
            "self.onError != 'DeadLetter' || (has(self.deadLetterPath) && "
            "size(self.deadLetterPath) > 0)",
            "onError: DeadLetter needs deadLetterPath, the file to write to",
        ),
        _rule(
            f"!has(self.deadLetterPath) || !self.deadLetterPath.startsWith('{STATE_DIR}')",
            f"deadLetterPath must not be below {STATE_DIR}: that goes with the worker",
        ),
    ),
)

_CONDITION = _object(
    "A condition.",
    {
        "type": _text("Ready, Progressing, Rescaling or Degraded."),
        "status": _text("True, False or Unknown.", enum=["True", "False", "Unknown"]),
        "reason": _text("In one word."),
        "message": _text("In words: what is so, and what to do."),
        "observedGeneration": {"type": "integer", "format": "int64"},
        "lastTransitionTime": _text("When the status changed.", format="date-time"),
    },
    required=("type", "status", "reason", "message", "lastTransitionTime"),
)

_RESCALE = _object(
    "A rescale.",
    {
        "attempt": _text("What tells it from others."),
        "from": _number("Workers before."),
        "to": _number("Workers after."),
        "phase": _text("WaitingForPods, Prepare, Copy, Drain, CatchUp or Switch."),
        "outcome": _text("Committed or Abandoned."),
        "why": _text("Why it was abandoned."),
        "since": _text("When waiting for its pods began.", format="date-time"),
        "moved": _text("The share of the hash interval that moves."),
        "minimum": _text("The least share that can move."),
        "entries": {"type": "integer", "format": "int64", "description": "Keys sent."},
        "bytes": {"type": "integer", "format": "int64", "description": "Bytes sent."},
        "seconds": _text("How long it took."),
        "held": _text("The longest time that an event was held back."),
    },
)

STATUS = _object(
    "What is so: a report, which nothing is decided by but what is said of it here.",
    {
        "observedGeneration": {
            "type": "integer",
            "format": "int64",
            "description": "The generation of the spec that has been taken up.",
        },
        "conditions": _list(
            "Ready, Progressing, Rescaling and Degraded.",
            _CONDITION,
            **{"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
        ),
        "replicas": _number("Pods that match the selector."),
        "selector": _text("The pods of the application, for autoscalers."),
        "members": _number("Workers that own a part of the hash interval."),
        "image": _text("What the workers run."),
        "begun": _text(
            "The application that was told to start from nothing, once. Without its state nothing "
            "starts again until a person accepts that."
        ),
        "beginning": _text(
            "The volume claim on which it was told so, until the coordinator has answered."
        ),
        "anew": _text(
            "The volume claim on which it started from nothing again, as a person had accepted, "
            "until its first checkpoint."
        ),
        "places": _list(
            "What has state, as last heard: steps, and positions of sources. A new template must "
            "have a step for each.",
            {"type": "string"},
        ),
        "assignment": _object(
            "Who owns what of the hash interval.",
            {
                "version": {"type": "integer", "format": "int64"},
                "pieces": _list(
                    "In order, each from its start to before its end, 16 hexadecimal digits. Left "
                    "out above 500.",
                    _object(
                        "A piece.",
                        {
                            "start": _text("16 hexadecimal digits."),
                            "end": _text("16 hexadecimal digits; 0000000000000000 is the end."),
                            "worker": _number("Its owner."),
                        },
                    ),
                ),
                "shares": _list(
                    "Above 500 pieces: how many pieces each worker has, and their share.",
                    _object(
                        "A share.",
                        {
                            "worker": _number("The owner."),
                            "pieces": _number("How many."),
                            "share": _text("Of the hash interval."),
                        },
                    ),
                ),
            },
        ),
        "rescale": {**_RESCALE, "description": "The rescale under way, or waited for."},
        "history": _list("The last rescales, the newest last.", _RESCALE),
        "retry": _object(
            "When a rescale that was abandoned is tried again.",
            {
                "target": _number("For this number of workers."),
                "attempt": _text("The last attempt that was seen."),
                "failures": _number("In a row."),
                "notBefore": _text("When.", format="date-time"),
            },
        ),
        "settled": _text("The last committed rescale whose released volumes have been cleared."),
        "stopping": _text("Since when a last checkpoint has been awaited.", format="date-time"),
        "checkpoint": _object(
            "The last committed one.",
            {
                "epoch": {"type": "integer", "format": "int64"},
                "time": _text("When.", format="date-time"),
            },
        ),
        "keys": {"type": "integer", "format": "int64", "description": "Entries of state."},
        "events": {"type": "integer", "format": "int64", "description": "Events read by sources."},
        "deadLetters": {"type": "integer", "format": "int64", "description": "Events set aside."},
        "recoveries": {
            "type": "integer",
            "format": "int64",
            "description": "Faults recovered from since worker 0 started.",
        },
    },
)

_TOP_RULE = _rule(
    f"self.metadata.name.size() <= {LONGEST_NAME} && self.metadata.name.matches('{NAME}')",
    f"a name has at most {LONGEST_NAME} small letters, digits and hyphens, and begins with a "
    "letter: pods, Services and volumes are named by it",
)


def _column(name: str, kind: str, path: str, description: str, **more: Any) -> Json:
    return {"name": name, "type": kind, "jsonPath": path, "description": description, **more}


def definition() -> Json:
    """The CustomResourceDefinition."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": ["wapp"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "description": "A stateful stream application and its workers.",
                            "required": ["spec"],
                            "properties": {
                                "apiVersion": {"type": "string"},
                                "kind": {"type": "string"},
                                "metadata": {"type": "object"},
                                "spec": SPEC,
                                "status": STATUS,
                            },
                            "x-kubernetes-validations": [_TOP_RULE],
                        }
                    },
                    "subresources": {
                        "status": {},
                        "scale": {
                            "specReplicasPath": ".spec.replicas",
                            "statusReplicasPath": ".status.replicas",
                            "labelSelectorPath": ".status.selector",
                        },
                    },
                    "additionalPrinterColumns": [
                        _column(
                            "Ready",
                            "string",
                            '.status.conditions[?(@.type=="Ready")].status',
                            "Whether every member processes.",
                        ),
                        _column(
                            "Workers", "integer", ".status.members", "Members of the assignment."
                        ),
                        _column("Desired", "integer", ".spec.replicas", "Workers asked for."),
                        _column(
                            "Rescaling",
                            "string",
                            '.status.conditions[?(@.type=="Rescaling")].reason',
                            "What the rescale does.",
                        ),
                        _column("Keys", "integer", ".status.keys", "Entries of state."),
                        _column(
                            "Reason",
                            "string",
                            '.status.conditions[?(@.type=="Ready")].reason',
                            "Why it is ready or not.",
                            priority=1,
                        ),
                        _column("Age", "date", ".metadata.creationTimestamp", "Since when."),
                    ],
                }
            ],
        },
    }


def without_defaults(value: Any, schema: Json = SPEC) -> Any:
    """What of a value of the schema was said, and not filled in by the API server."""
    if isinstance(value, dict) and "properties" in schema:
        properties = schema["properties"]
        found = {
            key: without_defaults(each, properties.get(key, {})) for key, each in value.items()
        }
        return {
            key: each
            for key, each in found.items()
            if "default" not in properties.get(key, {})
            or each
            not in (properties[key]["default"], without_defaults(properties[key]["default"]))
        }
    return value


class _Dumper(yaml.SafeDumper):
    """Without anchors: a schema says the same thing at several places."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def as_yaml(value: Json) -> str:
    """As it is committed."""
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=100, allow_unicode=True)
    return f"# Made by `make crds` from the schema in operator/wallaroo_operator/crd.py.\n{text}"


def _type(schema: Json) -> str:
    if schema.get("x-kubernetes-int-or-string"):
        return "quantity"
    if schema["type"] == "array":
        return f"list of {_type(schema['items'])}"
    if "additionalProperties" in schema:
        return f"map of {_type(schema['additionalProperties'])}"
    return str(schema["type"])


def _rows(schema: Json, at: str = "") -> Iterator[str]:
    for name, each in schema.get("properties", {}).items():
        path = f"{at}{name}"
        default = each.get("default", "")
        shown = "" if default in ("", {}, []) else f"`{json.dumps(default).strip(chr(34))}`"
        if name in schema.get("required", ()):
            shown = "required"
        said = [str(each.get("description", "")).replace("|", "\\|")]
        if "enum" in each:
            said.append("One of " + ", ".join(f"`{value}`" for value in each["enum"]) + ".")
        if "minimum" in each and "maximum" in each:
            said.append(f"From {each['minimum']} to {each['maximum']}.")
        yield f"| `{path}` | {_type(each)} | {shown} | {' '.join(filter(None, said))} |"
        inner = each.get("items", each)
        yield from _rows(inner, path + ("[]." if inner is not each else "."))


def _rules(schema: Json, at: str) -> Iterator[str]:
    for rule in schema.get("x-kubernetes-validations", ()):
        yield f"| `{at}` | {rule['message']} |"
    for name, each in schema.get("properties", {}).items():
        yield from _rules(each.get("items", each), f"{at}.{name}" + "[]" * ("items" in each))


def reference() -> str:
    """The reference for readers, as Markdown."""
    head = "| field | type | default | what it is |\n|---|---|---|---|"
    refused = [f"| `metadata.name` | {_TOP_RULE['message']} |", *_rules(SPEC, "spec")]
    lines = [
        "<!-- Made by `make crds` from the schema in operator/wallaroo_operator/crd.py. -->",
        "# WallarooApp",
        "",
        f"`{GROUP}/{VERSION}`, kind `{KIND}`, short name `wapp`. It has the subresources `status`",
        "and `scale`, so `kubectl scale` and any HorizontalPodAutoscaler drive it.",
        "",
        "## spec",
        "",
        head,
        *_rows(SPEC),
        "",
        "## What is refused",
        "",
        "The API server refuses these, with these words:",
        "",
        "| where | why |",
        "|---|---|",
        *refused,
        "",
        "## status",
        "",
        head,
        *_rows(STATUS),
        "",
    ]
    return "\n".join(lines)


def files() -> dict[str, str]:
    """What is made from the schema, by its path in the repository."""
    text = as_yaml(definition())
    return {
        "charts/wallaroo/files/wallarooapps.yaml": text,
        "deploy/crds.yaml": text,
        "docs/crd.md": reference(),
    }


if __name__ == "__main__":
    for name, text in files().items():
        path = Path(sys.argv[1]) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
