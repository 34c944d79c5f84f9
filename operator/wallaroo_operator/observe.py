"""Looking: what the API server and the coordinator say of an application, as `Observed`."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from wallaroo.runtime.client import Unreachable
from wallaroo_operator import certs, names
from wallaroo_operator.app import App, Json, Module
from wallaroo_operator.coordinators import Talks
from wallaroo_operator.observed import Claim, Coordinator, Observed, Pod, Workers, moment

_GROUP = f"{names.GROUP}/{names.VERSION}"
#: API, kind and name.
_Named = tuple[str, str, str]


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
    own = sorted(
        {
            ("apps/v1", "StatefulSet", name),
            ("v1", "Service", names.headless(name)),
            ("v1", "Service", name),
            ("policy/v1", "PodDisruptionBudget", name),
            ("v1", "Secret", names.ca_secret(name)),
            ("v1", "Secret", names.tls_secret(name)),
        }
    )
    ours = f"{names.INSTANCE}={name},{names.MANAGED_BY}={names.MANAGER}"
    got, pods, claims, maps, module = await asyncio.gather(
        _get(api, namespace, own),
        api.list("v1", "Pod", namespace, ours),
        api.list("v1", "PersistentVolumeClaim", namespace, ours),
        api.list("v1", "ConfigMap", namespace, ours),
        module_of(api, app),
    )
    objects, conflicts, departing = _by_owner(app, got)
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
    proofs = tuple(pod for pod, each in zip(read, pods, strict=True) if _proves(pod, each, app))
    wanting = _wanting(app, module, workers, coordinator, objects, (*of_workers, *proofs))
    _, more, former = _by_owner(app, await _get(api, namespace, wanting), workers)
    observed = Observed(
        app,
        now,
        settings.image,
        settings.tls,
        moment(found["metadata"].get("creationTimestamp")),
        module,
        workers,
        of_workers,
        proofs,
        tuple(each for each in (Claim.read(claim, name) for claim in claims) if each),
        coordinator,
        unreached,
        (*conflicts, *more),
        (*departing, *former),
        objects=objects,
    )
    return Seen(observed, secrets, held, talks)


async def _get(api: Api, namespace: str, wanted: Sequence[_Named]) -> list[tuple[_Named, Json]]:
    """Those of these objects that are there."""
    got = await asyncio.gather(
        *(api.get(version, kind, namespace, name) for version, kind, name in wanted)
    )
    return [(named, each) for named, each in zip(wanted, got, strict=True) if each is not None]


def _by_owner(
    app: App, got: Iterable[tuple[_Named, Json]], workers: Workers | None = None
) -> tuple[dict[tuple[str, str], Json], list[str], list[str]]:
    """Objects of the application's names: its own, those in its way, and a former one's."""
    objects: dict[tuple[str, str], Json] = {}
    conflicts, departing = [], []
    owners = {app.uid, workers.uid} if workers else {app.uid}
    for (version, kind, name), there in got:
        by = _controller(there)
        if by.get("uid") in owners:
            objects[kind, name] = {"apiVersion": version, "kind": kind, **there}
        elif by.get("kind") == names.KIND and by.get("name") == app.name:
            departing.append(f"{kind} {name}")
        else:
            owner = f"{by['kind']} {by['name']}" if by else "nobody"
            conflicts.append(f"{kind} {name} is there already and belongs to {owner}")
    return objects, conflicts, departing


def _wanting(
    app: App,
    module: Module | None,
    workers: Workers | None,
    c: Coordinator | None,
    objects: Mapping[tuple[str, str], Json],
    pods: Iterable[Pod],
) -> list[_Named]:
    """What is to be made next and is not there: only then its name may be somebody else's.

    Of pods of workers that is the first: their controller stops at one that it can't make.
    """
    found: list[_Named] = []
    there = {pod.name for pod in pods}
    if module and not module.missing:
        copy = names.module_map(app.name, module.text)
        if ("ConfigMap", copy) not in objects:
            found.append(("v1", "ConfigMap", copy))
    if workers is None:
        return found
    inputs = "" if module and module.missing else app.inputs(module)
    proof = names.proof(app.name, inputs)
    if inputs and workers.inputs != inputs and proof not in there:
        found.append(("v1", "Pod", proof))
    needed = workers.replicas
    if c:  # what nobody needs any more is about to be let go
        needed = min(needed, max(app.target, *(each + 1 for each in c.taking_part), 0))
    absent = (names.pod(app.name, each) for each in range(needed))
    first = next((each for each in absent if each not in there), None)
    return [*found, ("v1", "Pod", first)] if first else found


def _controller(found: Json) -> Mapping[str, Any]:
    owners = found["metadata"].get("ownerReferences") or ()
    return next((each for each in owners if each.get("controller")), {})


def _is(found: Json, app: App) -> bool:
    return bool(_controller(found).get("uid") == app.uid)


def _proves(pod: Pod, found: Json, app: App) -> bool:
    return pod.ordinal is None and _is(found, app)
