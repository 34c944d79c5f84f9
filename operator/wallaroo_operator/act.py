"""Doing: carries actions out, and tells what they were about."""

import asyncio
import logging
from collections.abc import Iterable

from wallaroo.runtime.client import Unreachable
from wallaroo_operator import names
from wallaroo_operator.actions import Action, Apply, Begin, Delete, Rescale, Stop
from wallaroo_operator.api import Refused
from wallaroo_operator.app import App, Json
from wallaroo_operator.conditions import Event
from wallaroo_operator.coordinators import Talks
from wallaroo_operator.observe import Api
from wallaroo_operator.observed import timestamp

_log = logging.getLogger("wallaroo_operator")


class DecideAgain(Exception):
    """What was decided on is no longer so, or was refused for now."""


async def write_status(api: Api, app: App, status: Json) -> App:
    """Write the status; returns the application as it is then. Raises `DecideAgain`."""
    manifest = {
        "apiVersion": f"{names.GROUP}/{names.VERSION}",
        "kind": names.KIND,
        "metadata": {"name": app.name, "namespace": app.namespace},
        "status": status,
    }
    try:
        return App.read(await api.apply(manifest, app.resource_version, "status"))
    except Refused as refused:
        raise _again(refused) from refused


async def act(api: Api, talks: Talks | None, app: App, actions: Iterable[Action]) -> None:
    """Carry actions out in their order. Raises `DecideAgain`, `Refused`."""
    for action in actions:
        try:
            await _act(api, talks, app, action)
        except Refused as refused:
            raise _again(refused) from refused
        except Unreachable as error:
            raise DecideAgain(f"the coordinator does not answer: {error}") from error


async def _act(api: Api, talks: Talks | None, app: App, action: Action) -> None:
    match action:
        case Apply(manifest, version):
            await api.apply(manifest, version)
            _log.info("%s/%s: applied %s", app.namespace, app.name, _named(manifest))
        case Delete(group, kind, name, uid, version):
            try:
                await api.delete(group, kind, app.namespace, name, uid, version)
            except Refused as refused:
                if refused.code != 404:
                    raise
            _log.info("%s/%s: deleted %s %s", app.namespace, app.name, kind, name)
        case _:
            if talks is None:
                raise DecideAgain("the coordinator is not known")
            refusal = await asyncio.to_thread(_say, talks, action)
            said = refusal or "done"
            _log.info("%s/%s: %s: %s", app.namespace, app.name, type(action).__name__, said)
            if refusal:
                raise DecideAgain(refusal)


def _say(talks: Talks, action: Begin | Rescale | Stop) -> str:
    match action:
        case Begin(workers, accept_loss, epoch):
            return talks.begin(workers, accept_loss=accept_loss, epoch=epoch)
        case Rescale(base, assignment):
            return talks.rescale(base, assignment)
        case Stop():
            talks.stop()
            return ""


def _named(manifest: Json) -> str:
    return f"{manifest['kind']} {manifest['metadata']['name']}"


def _again(refused: Refused) -> Exception:
    return DecideAgain(str(refused)) if refused.conflict else refused


async def tell(api: Api, app: App, events: Iterable[Event], now: float) -> None:
    """Post events. One that can't be posted is no reason to stop: conditions say the same."""
    for event in events:
        at = timestamp(now)
        manifest = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": event.name(app.name, app.uid), "namespace": app.namespace},
            "involvedObject": {
                "apiVersion": f"{names.GROUP}/{names.VERSION}",
                "kind": names.KIND,
                "name": app.name,
                "namespace": app.namespace,
                "uid": app.uid,
                "resourceVersion": app.resource_version,
            },
            "type": event.type,
            "reason": event.reason,
            "message": event.message[:1024],
            "source": {"component": names.MANAGER},
            "reportingComponent": names.MANAGER,
            "reportingInstance": names.MANAGER,
            "firstTimestamp": at,
            "lastTimestamp": at,
            "count": 1,
        }
        try:
            await api.create(manifest)
        except Refused as refused:
            if refused.code != 409:  # told before a crash
                _log.warning("%s/%s: no event: %s", app.namespace, app.name, refused)
