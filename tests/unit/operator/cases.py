"""Situations of an application, for tests that say what is decided in them."""

from dataclasses import replace
from typing import Any

from tests.unit.operator.apps import MODULE, app

from wallaroo.partitioning import Assignment
from wallaroo_operator import manifests, names
from wallaroo_operator.actions import Apply, Delete
from wallaroo_operator.app import App, Json, Module
from wallaroo_operator.conditions import Condition
from wallaroo_operator.decide import Decision
from wallaroo_operator.observed import Claim, Coordinator, Observed, Pod, Worker, Workers

NOW = 1_800_000_000.0
CREATED = NOW - 3600
IN_MAP = Module("app.py", MODULE)


def pod(ordinal: int, **more: Any) -> Pod:
    found = Pod(
        names.pod("count", ordinal),
        f"pod-uid-{ordinal}",
        "7",
        ordinal,
        "current",
        owner="sts",
        phase="Running",
        ready=True,
        ip=f"10.0.0.{ordinal}",
        running_since=NOW - 100,
    )
    return replace(found, **more)


def claim(ordinal: int, **more: Any) -> Claim:
    found = Claim(
        names.claim("count", ordinal), f"claim-uid-{ordinal}", "8", ordinal, created=NOW - 3000
    )
    return replace(found, **more)


def workers(of: App, replicas: int, **more: Any) -> Workers:
    inputs = of.inputs(IN_MAP)
    template = manifests.template(of, "stock:1", IN_MAP, inputs, tls=True)
    return replace(Workers("sts", "5", replicas, inputs, "current", template, begun=of.uid), **more)


def record(before: int, after: int, outcome: str = "committed", **more: Any) -> Json:
    return {
        "attempt": "1-1",
        "from": before,
        "to": after,
        "version": 2,
        "outcome": outcome,
        "why": "" if outcome == "committed" else "nothing more was copied",
        "moved": 0.25,
        "minimum": 0.25,
        "entries": 5,
        "bytes": 50,
        "seconds": {"prepare": 1.0},
        "held": 0.002,
        **more,
    }


def under_way(before: int, after: int, phase: str) -> Json:
    return record(before, after, "", phase=phase)


def coordinator(members: int, **more: Any) -> Coordinator:
    found = Coordinator(
        "running",
        "uid-of-the-app",
        epoch=41,
        committed_at=NOW - 1,
        assignment=Assignment.first(members) if members else None,
        members=frozenset(range(members)),
        workers={each: Worker(each, f"pod-uid-{each}", present=True) for each in range(members)},
        keys=10 * members,
    )
    return replace(found, **more)


def at_rest(members: int = 3, of: App | None = None, **more: Any) -> Observed:
    """An application of so many workers where all is as asked for."""
    of = of or app(replicas=members)
    of = replace(of, status={"begun": of.uid, "history": [], **of.status})
    found = Observed(
        of,
        NOW,
        "stock:1",
        created=CREATED,
        module=IN_MAP,
        workers=workers(of, members),
        pods=tuple(map(pod, range(members))),
        claims=tuple(map(claim, range(members))),
        coordinator=coordinator(members),
        objects=bases(of, members),
    )
    return replace(found, **more)


def bases(of: App, members: int) -> dict[tuple[str, str], Json]:
    """What an application has besides its workers."""
    found = [
        manifests.headless_service(of),
        manifests.disruption_budget(of, members),
        manifests.module_map(of, IN_MAP),
    ]
    if of.ports:
        found.append(manifests.client_service(of))
    for each in found:
        each["metadata"] |= {"uid": f"{each['kind']}-uid", "resourceVersion": "3"}
    return {(each["kind"], each["metadata"]["name"]): each for each in found}


def asked(observed: Observed, **spec: Any) -> Observed:
    """The same, with another spec."""
    of = observed.app
    return replace(observed, app=replace(of, spec={**of.spec, **spec}, generation=2))


def remembering(observed: Observed, **status: Any) -> Observed:
    """The same, with a status."""
    of = observed.app
    return replace(observed, app=replace(of, status={**of.status, **status}))


def without(observed: Observed, *ordinals: int) -> Observed:
    """The same without these pods and claims."""
    return replace(
        observed,
        pods=tuple(each for each in observed.pods if each.ordinal not in ordinals),
        claims=tuple(each for each in observed.claims if each.ordinal not in ordinals),
    )


def condition(decision: Decision, kind: str) -> Condition:
    assert decision.status is not None
    (found,) = (each for each in decision.status["conditions"] if each["type"] == kind)
    return Condition(kind, found["status"], found["reason"], found["message"])


def manifests_of(decision: Decision, kind: str) -> list[Json]:
    """What is made or changed of a kind."""
    found = [each.manifest for each in decision.actions if isinstance(each, Apply)]
    return [each for each in found if each["kind"] == kind]


def size(decision: Decision) -> int | None:
    """What the StatefulSet is made; None if it is left."""
    found = manifests_of(decision, "StatefulSet")
    return found[0]["spec"]["replicas"] if found else None


def deleted(decision: Decision) -> list[str]:
    return [each.name for each in decision.actions if isinstance(each, Delete)]


def applied(decision: Decision) -> list[str]:
    """Kinds of what is made or changed."""
    return [each.manifest["kind"] for each in decision.actions if isinstance(each, Apply)]
