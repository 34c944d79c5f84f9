"""Looking: what the API server and the coordinator say of an application, as `Observed`."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from wallaroo.runtime.client import Unreachable
from wallaroo_operator import certs, names
from wallaroo_operator.app import App, Json, Module
from wallaroo_operator.coordinators import Talks
from wallaroo_operator.observed import Claim, Coordinator, Observed, Pod, Workers, moment

_GROUP = f"{names.GROUP}/{names.VERSION}"


@dataclass(frozen=True)
class Settings:
    """Of the operator.

    image: of workers that run a module from a ConfigMap. tls: whether workers get certificates.
    """

    image: str
    tls: bool = True


class Api(Protocol):
    """The API server; see `wallaroo_operator.api.Api`."""

    async def get(self, api: str, kind: str, namespace: str, name: str) -> Json | None:
        """An object; None if it is not there."""

    async def list(self, api: str, kind: str, namespace: str, selector: str) -> list[Json]:
        """The objects with these labels."""

    async def apply(self, manifest: Json, resource_version: str, subresource: str = "") -> Json:
        """Server-side apply, only on this version, or where nothing is for ""."""

    async def create(self, manifest: Json) -> Json:
        """Make an object."""

    async def delete(
        self, api: str, kind: str, namespace: str, name: str, uid: str, resource_version: str
    ) -> None:
        """Delete this very object."""


class Links(Protocol):
    """The coordinators; see `wallaroo_operator.coordinators.Coordinators`."""

    def at(self, uid: str, ip: str, held: certs.Held | None) -> Talks:
        """That of an application."""

    def forget(self, uid: str) -> None:
        """Close a connection."""


@dataclass(frozen=True)
class Seen:
    """What was seen: what is decided on, the Secrets, and how to talk to the coordinator."""

    observed: Observed
    secrets: Mapping[str, Json | None]
    held: certs.Held
    talks: Talks | None


async def module_of(api: Api, app: App) -> Module | None:
    """The application's text; None if it is in the image."""
    wanted = app.config_map
    if wanted is None:
        return None
    name, key = wanted
    found = await api.get("v1", "ConfigMap", app.namespace, name)
    if found is None:
        return Module(key, missing=f"there is no ConfigMap {name} in namespace {app.namespace}")
    text = (found.get("data") or {}).get(key)
    if text is None:
        keys = ", ".join(found.get("data") or ()) or "none"
        return Module(key, missing=f"ConfigMap {name} has no key {key} (it has {keys})")
    return Module(key, text)


async def ask(talks: Talks) -> tuple[Coordinator | None, str]:
    """What the coordinator answers, or why it does not."""
    try:
        return Coordinator.read(await asyncio.to_thread(talks.status)), ""
    except Unreachable as error:
        return None, str(error)


async def observe(
    api: Api, links: Links, settings: Settings, key: tuple[str, str], now: float
) -> Seen | None:
    """All that is known of an application now; None if there is none of this name."""
    namespace, name = key
    found = await api.get(_GROUP, names.KIND, namespace, name)
    if found is None:
        return None
    app = App.read(found)
    if app.deleting:
        return Seen(Observed(app, now, settings.image), {}, certs.Held(), None)
    own = {
        ("apps/v1", "StatefulSet", name),
        ("v1", "Service", names.headless(name)),
        ("v1", "Service", name),
        ("policy/v1", "PodDisruptionBudget", name),
        ("v1", "Secret", names.ca_secret(name)),
        ("v1", "Secret", names.tls_secret(name)),
    }
    ours = f"{names.INSTANCE}={name},{names.MANAGED_BY}={names.MANAGER}"
    got, pods, claims, maps, module = await asyncio.gather(
        asyncio.gather(*(api.get(kind[0], kind[1], namespace, kind[2]) for kind in sorted(own))),
        api.list("v1", "Pod", namespace, ours),
        api.list("v1", "PersistentVolumeClaim", namespace, ours),
        api.list("v1", "ConfigMap", namespace, ours),
        module_of(api, app),
    )
    objects: dict[tuple[str, str], Json] = {}
    conflicts, departing = [], []
    for (api_version, kind, called), there in zip(sorted(own), got, strict=True):
        if there is None:
            continue
        by = _controller(there)
        if by.get("uid") == app.uid:
            objects[kind, called] = {"apiVersion": api_version, "kind": kind, **there}
        elif by.get("kind") == names.KIND and by.get("name") == name:
            departing.append(f"{kind} {called}")
        else:
            owner = f"{by['kind']} {by['name']}" if by else "nobody"
            conflicts.append(f"{kind} {called} is there already and belongs to {owner}")
    objects |= {("ConfigMap", each["metadata"]["name"]): each for each in maps if _is(each, app)}
    there = objects.pop(("StatefulSet", name), None)
    workers = Workers.read(there) if there else None
    secrets = {
        called: objects.pop(("Secret", called), None)
        for called in (names.ca_secret(name), names.tls_secret(name))
    }
    held = certs.Held.read(*((each or {}).get("data") or {} for each in secrets.values()))
    read = [Pod.read(each, name) for each in pods]
    of_workers = tuple(each for each in read if each.ordinal is not None)
    talks, coordinator, unreached = None, None, ""
    first = next((pod for pod in of_workers if pod.ordinal == 0), None)
    if workers and first and first.ip and first.owner == workers.uid:
        talks = links.at(app.uid, first.ip, held if workers.tls else None)
        coordinator, unreached = await ask(talks)
    observed = Observed(
        app,
        now,
        settings.image,
        settings.tls,
        moment(found["metadata"].get("creationTimestamp")),
        module,
        workers,
        of_workers,
        tuple(pod for pod, each in zip(read, pods, strict=True) if _proves(pod, each, app)),
        tuple(each for each in (Claim.read(claim, name) for claim in claims) if each),
        coordinator,
        unreached,
        tuple(conflicts),
        tuple(departing),
        objects,
    )
    return Seen(observed, secrets, held, talks)


def _controller(found: Json) -> Mapping[str, Any]:
    owners = found["metadata"].get("ownerReferences") or ()
    return next((each for each in owners if each.get("controller")), {})


def _is(found: Json, app: App) -> bool:
    return bool(_controller(found).get("uid") == app.uid)


def _proves(pod: Pod, found: Json, app: App) -> bool:
    return pod.ordinal is None and _is(found, app)
