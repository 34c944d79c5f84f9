"""The names of an application's objects, its labels, annotations and ports: said once, here."""

import hashlib
import json
import re
from typing import Any

GROUP, VERSION, KIND, PLURAL = "wallaroo.dev", "v1alpha1", "WallarooApp", "wallarooapps"
MANAGER = "wallaroo-operator"

APPLICATION = "wallaroo.dev/application"
MANAGED_BY = "app.kubernetes.io/managed-by"
INSTANCE = "app.kubernetes.io/instance"
REVISION = "controller-revision-hash"

ACCEPT_LOSS = "wallaroo.dev/accept-state-loss"
RESTARTED_AT = "wallaroo.dev/restartedAt"
#: On a StatefulSet: what its template was rendered from; and on a pod that proves a template.
INPUTS = "wallaroo.dev/inputs"
#: On a StatefulSet: the application that was told to start from nothing. The status says so, too,
#: but a status may be wiped or not restored.
BEGUN = "wallaroo.dev/begun"

CONTROL, EXCHANGE, HEALTH = 7710, 7711, 7712
RESERVED = (CONTROL, EXCHANGE, HEALTH)

CONTAINER = "worker"
STATE = "state"
STATE_DIR = "/var/lib/wallaroo"
MODULE_DIR = "/etc/wallaroo/module"
TLS_DIR = "/etc/wallaroo/tls"
HOME = "/home/wallaroo"
USER = 65532

NAME = "^[a-z]([-a-z0-9]*[a-z0-9])?$"
LONGEST_NAME = 40


def headless(name: str) -> str:
    """The Service by which worker 0 is found."""
    return f"{name}-workers"


def tls_secret(name: str) -> str:
    """The Secret that pods mount."""
    return f"{name}-tls"


def ca_secret(name: str) -> str:
    """The Secret that no pod mounts."""
    return f"{name}-ca"


def module_map(name: str, text: str) -> str:
    """The ConfigMap that holds this text of a module."""
    return f"{name}-module-{digest(text)[:8]}"


def proof(name: str, inputs: str) -> str:
    """The pod in which the template of these inputs is proven."""
    return f"{name}-check-{inputs[:8]}"


def pod(name: str, ordinal: int) -> str:
    """The pod of a worker."""
    return f"{name}-{ordinal}"


def claim(name: str, ordinal: int) -> str:
    """The volume claim of a worker."""
    return f"{STATE}-{name}-{ordinal}"


def ordinal(of: str, name: str, prefix: str = "") -> int | None:
    """The worker that an object of application `of` belongs to by its name; None if to none.

    >>> ordinal("word-count", "word-count-12")
    12
    >>> ordinal("word-count", "state-word-count-3", "state-")
    3
    >>> ordinal("word-count", "word-count-check-0f3a")
    """
    found = re.fullmatch(f"{re.escape(prefix + of)}-(0|[1-9][0-9]*)", name)
    return int(found[1]) if found else None


def selector(name: str) -> dict[str, str]:
    """The label that the workers of an application have, and nothing else."""
    return {APPLICATION: name}


def labels(name: str) -> dict[str, str]:
    """Of all objects of an application but its workers."""
    return {
        "app.kubernetes.io/name": "wallaroo",
        "app.kubernetes.io/component": "worker",
        INSTANCE: name,
        MANAGED_BY: MANAGER,
    }


def digest(value: Any) -> str:
    """The SHA-256 of a value of JSON, or of a text, in hexadecimal."""
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
