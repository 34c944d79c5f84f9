"""What an application's objects look like: pure functions of it, checked against golden files.

An upgrade of the operator must not restart workers, nor ask for what the API server refuses to
change; so whoever changes something here sees in the golden files what that does to an application
that exists.
"""

from collections.abc import Mapping
from typing import Any

from wallaroo_operator import names
from wallaroo_operator.app import App, Json, Module, seconds

#: Seconds: a checkpoint at the end may take 20, and what hangs then is to be seen as such.
GRACE = 60
#: The part of a pod's restrictions that concerns its containers.
_CONFINED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
_OVERRIDES = (
    "affinity",
    "tolerations",
    "topologySpreadConstraints",
    "nodeSelector",
    "priorityClassName",
    "imagePullSecrets",
    "runtimeClassName",
)


def owner(app: App) -> Json:
    """The reference that makes an object go with its application."""
    return {
        "apiVersion": f"{names.GROUP}/{names.VERSION}",
        "kind": names.KIND,
        "name": app.name,
        "uid": app.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def _object(app: App, api: str, kind: str, name: str, **more: Any) -> Json:
    meta: Json = {
        "name": name,
        "namespace": app.namespace,
        "labels": {**names.labels(app.name), **names.selector(app.name)},
        "ownerReferences": [owner(app)],
    }
    return {"apiVersion": api, "kind": kind, "metadata": meta, **more}


def headless_service(app: App) -> Json:
    """By which worker 0 is found, ready or not: it must be found to become ready."""
    return _object(
        app,
        "v1",
        "Service",
        names.headless(app.name),
        spec={
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": names.selector(app.name),
            "ports": [
                {"name": "control", "port": names.CONTROL, "targetPort": names.CONTROL},
                {"name": "exchange", "port": names.EXCHANGE, "targetPort": names.EXCHANGE},
                {"name": "health", "port": names.HEALTH, "targetPort": names.HEALTH},
            ],
        },
    )


def client_service(app: App) -> Json:
    """By which clients of TCP sources find ready workers."""
    return _object(
        app,
        "v1",
        "Service",
        app.name,
        spec={
            "selector": names.selector(app.name),
            "ports": [
                {"name": each["name"], "port": each["port"], "targetPort": each["port"]}
                for each in app.ports
            ],
        },
    )


def disruption_budget(app: App, members: int) -> Json:
    """One member at a time; a pod that isn't ready is no reason to hold up a drain."""
    return _object(
        app,
        "policy/v1",
        "PodDisruptionBudget",
        app.name,
        spec={
            "minAvailable": max(members - 1, 0),
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": names.selector(app.name)},
        },
    )


def secret(app: App, name: str, data: Mapping[str, str]) -> Json:
    """A Secret; `data` is in base64."""
    return _object(app, "v1", "Secret", name, type="Opaque", data=dict(data))


def module_map(app: App, module: Module) -> Json:
    """A copy of the module that can't change: a rollout decides which pods see which text."""
    return _object(
        app,
        "v1",
        "ConfigMap",
        names.module_map(app.name, module.text),
        immutable=True,
        data={module.file: module.text},
    )


def arguments(app: App, *, tls: bool) -> list[str]:
    """What a worker is called with."""
    at = f"{names.pod(app.name, 0)}.{names.headless(app.name)}.{app.namespace}.svc"
    found = ["pod", "--name", app.name, "--application", app.uid]
    found += ["--coordinator", f"{at}:{names.CONTROL}", "--dir", names.STATE_DIR]
    if tls:
        found += ["--tls", names.TLS_DIR]
    spec = app.spec
    interval = seconds(spec.get("checkpoint", {}).get("interval", "1s"))
    found += ["--checkpoint-interval", f"{interval:g}s"]
    if spec.get("stateCache"):
        found += ["--state-cache", str(spec["stateCache"])]
    if spec.get("onError") == "DeadLetter":
        found += ["--on-error", "dead-letter", spec["deadLetterPath"]]
    found += ["--drain-timeout", f"{seconds(spec.get('drainTimeout', '30s')):g}s"]
    return [*found, app.path, *spec.get("args", ())]


def _field(name: str, path: str) -> Json:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def _probe(path: str, period: int, failures: int, timeout: int) -> Json:
    return {
        "httpGet": {"path": path, "port": names.HEALTH},
        "periodSeconds": period,
        "failureThreshold": failures,
        "timeoutSeconds": timeout,
    }


def _container(app: App, image: str, module: Module | None, *, tls: bool) -> Json:
    spec = app.spec
    # Ours come last: of two variables of a name the later one counts.
    env = [
        *spec.get("env", ()),
        _field("POD_NAME", "metadata.name"),
        _field("POD_NAMESPACE", "metadata.namespace"),
        _field("POD_UID", "metadata.uid"),
        _field("POD_IP", "status.podIP"),
        {"name": "HOME", "value": names.HOME},
    ]
    mounts: list[Json] = [{"name": names.STATE, "mountPath": names.STATE_DIR}]
    if module:
        mounts.append({"name": "module", "mountPath": names.MODULE_DIR, "readOnly": True})
    if tls:
        mounts.append({"name": "tls", "mountPath": names.TLS_DIR, "readOnly": True})
    mounts += [{"name": "tmp", "mountPath": "/tmp"}, {"name": "home", "mountPath": names.HOME}]  # noqa: S108
    return {
        "name": names.CONTAINER,
        "image": image,
        "imagePullPolicy": spec.get("imagePullPolicy", "IfNotPresent"),
        "args": arguments(app, tls=tls),
        "env": env,
        **({"envFrom": list(spec["envFrom"])} if spec.get("envFrom") else {}),
        "ports": [
            {"name": "control", "containerPort": names.CONTROL},
            {"name": "exchange", "containerPort": names.EXCHANGE},
            {"name": "health", "containerPort": names.HEALTH},
            *({"name": each["name"], "containerPort": each["port"]} for each in app.ports),
        ],
        "resources": spec.get("resources", {}),
        # Importing a module may take minutes; from then on a thread of its own answers.
        "startupProbe": _probe("/livez", 1, 300, 2),
        "livenessProbe": _probe("/livez", 10, 6, 5),
        "readinessProbe": _probe("/readyz", 2, 2, 2),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": _CONFINED,
        "volumeMounts": [*mounts, *spec.get("volumeMounts", ())],
    }


def template(app: App, image: str, module: Module | None, inputs: str, *, tls: bool) -> Json:
    """The template of a worker's pod."""
    additions = app.spec.get("template", {})
    meta, spec = additions.get("metadata", {}), additions.get("spec", {})
    volumes: list[Json] = []
    if module:
        name = names.module_map(app.name, module.text)
        volumes.append({"name": "module", "configMap": {"name": name}})
    if tls:
        volumes.append({"name": "tls", "secret": {"secretName": names.tls_secret(app.name)}})
    volumes += [
        {"name": "tmp", "emptyDir": {"sizeLimit": "256Mi"}},
        {"name": "home", "emptyDir": {"sizeLimit": "64Mi"}},
    ]
    return {
        "metadata": {
            "labels": {
                **meta.get("labels", {}),
                **names.labels(app.name),
                **names.selector(app.name),
            },
            "annotations": {**meta.get("annotations", {}), names.INPUTS: inputs},
        },
        "spec": {
            **{key: spec[key] for key in _OVERRIDES if key in spec},
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": GRACE,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": names.USER,
                "runAsGroup": names.USER,
                "fsGroup": names.USER,
                "fsGroupChangePolicy": "OnRootMismatch",
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [_container(app, image, module, tls=tls)],
            "volumes": [*volumes, *spec.get("volumes", ())],
        },
    }


def statefulset(app: App, replicas: int, pods: Json, begun: str = "") -> Json:
    """The workers; `pods` is their template, `begun` the application that has state there.

    OnDelete: when pods of another revision go is for the operator to say. Parallel: all members
    are needed before any of them gets ready.
    """
    storage = app.spec.get("storage", {})
    claim: Json = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": storage.get("size", "1Gi")}},
    }
    if storage.get("className"):
        claim["storageClassName"] = storage["className"]
    found = _object(
        app,
        "apps/v1",
        "StatefulSet",
        app.name,
        spec={
            "replicas": replicas,
            "serviceName": names.headless(app.name),
            "podManagementPolicy": "Parallel",
            "updateStrategy": {"type": "OnDelete"},
            "persistentVolumeClaimRetentionPolicy": {
                "whenScaled": "Retain",
                "whenDeleted": storage.get("onDelete", "Retain"),
            },
            "selector": {"matchLabels": names.selector(app.name)},
            "template": pods,
            "volumeClaimTemplates": [
                {
                    "apiVersion": "v1",
                    "kind": "PersistentVolumeClaim",
                    "metadata": {
                        "name": names.STATE,
                        "labels": {**names.labels(app.name), **names.selector(app.name)},
                    },
                    "spec": claim,
                }
            ],
        },
    )
    inputs = pods["metadata"]["annotations"][names.INPUTS]
    found["metadata"]["annotations"] = {names.INPUTS: inputs}
    if begun:
        found["metadata"]["annotations"][names.BEGUN] = begun
    return found


def proof_pod(app: App, pods: Json, places: list[str]) -> Json:
    """A pod that proves a template, without state, before a worker gets it.

    It is pulled, loads the module and says whether it has a place for all state that there is. It
    has the label of no worker: neither Services nor the StatefulSet may see it.
    """
    inputs = pods["metadata"]["annotations"][names.INPUTS]
    spec = {key: value for key, value in pods["spec"].items() if key != "containers"}
    container = pods["spec"]["containers"][0]
    steps = [word for place in places for word in ("--steps-of", place)]
    checked = {
        key: value
        for key, value in container.items()
        if key not in {"startupProbe", "livenessProbe", "readinessProbe", "ports"}
    }
    checked["args"] = ["pod", "--check", *steps, *container["args"][1:]]
    checked["volumeMounts"] = [
        each for each in container["volumeMounts"] if each["name"] not in {names.STATE, "tls"}
    ]
    found = _object(app, "v1", "Pod", names.proof(app.name, inputs))
    found["metadata"]["labels"] = names.labels(app.name)
    found["metadata"]["annotations"] = dict(pods["metadata"]["annotations"])
    found["spec"] = {
        **spec,
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 5,
        "containers": [checked],
        "volumes": [each for each in spec["volumes"] if each["name"] != "tls"],
    }
    return found
