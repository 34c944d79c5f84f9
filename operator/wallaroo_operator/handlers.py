"""What is heard of the cluster, by kopf: events, which wake applications, and nothing else.

kopf's other handlers would add finalizers, which trap a namespace when the operator is gone, and
annotations of their own. So only events are listened to; what is so is read from the API server.
"""

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass
from typing import Any

import aiohttp
import kopf

from wallaroo_operator import names
from wallaroo_operator.act import DecideAgain
from wallaroo_operator.api import Api, Refused, log_in
from wallaroo_operator.coordinators import Coordinators
from wallaroo_operator.metrics import RECONCILES, SECONDS, Site
from wallaroo_operator.observe import Settings
from wallaroo_operator.reconcile import Key, Reconciler
from wallaroo_operator.wakes import Wakes

_log = logging.getLogger("wallaroo_operator")
#: What is listened to beside the applications: what is labelled as made by this operator.
_OWNED = (
    ("apps", "v1", "statefulsets"),
    ("", "v1", "pods"),
    ("", "v1", "persistentvolumeclaims"),
)


@dataclass
class _Running:
    """What lives as long as the operator."""

    api: Api
    links: Coordinators
    wakes: Wakes[Key]
    loop: asyncio.Task[None]
    site: Site


class Operator:
    """The operator: made of what it is configured with, it is run by kopf."""

    def __init__(self, settings: Settings, port: int) -> None:
        self._settings = settings
        self._port = port
        self._running: _Running | None = None
        #: Of each application what an event was last about: its own status wakes nobody.
        self._known: dict[Key, Any] = {}

    def registry(self) -> kopf.OperatorRegistry:
        """What kopf is to call."""
        registry = kopf.OperatorRegistry()
        kopf.on.login(registry=registry)(log_in)
        kopf.on.startup(registry=registry)(self._start)
        kopf.on.cleanup(registry=registry)(self._stop)
        kopf.on.event(names.GROUP, names.VERSION, names.PLURAL, registry=registry)(self._asked)
        for resource in _OWNED:
            kopf.on.event(*resource, registry=registry)(self._changed)
        return registry

    async def _start(self, settings: kopf.OperatorSettings, **_: Any) -> None:
        settings.peering.standalone = True  # two at once are harmless: writes name versions
        settings.posting.enabled = False
        settings.scanning.disabled = True
        settings.networking.request_timeout = 30
        settings.watching.server_timeout = 300
        settings.watching.client_timeout = 330
        for resource in _OWNED:
            labelled = f"{names.MANAGED_BY}={names.MANAGER}"
            settings.watching.label_selectors[resource] = labelled
        api = await Api().__aenter__()
        links = Coordinators()
        reconciler = Reconciler(api, links, self._settings)

        async def do(key: Key, woken: bool) -> float | None:
            began = time.monotonic()
            result = "error"
            try:
                again = await reconciler.reconcile(key, woken=woken)
                result = "done"
                return again
            except DecideAgain:
                result = "again"
                raise
            finally:
                RECONCILES.labels(result).inc()
                SECONDS.observe(time.monotonic() - began)

        wakes: Wakes[Key] = Wakes(do, DecideAgain, (Refused, aiohttp.ClientError, TimeoutError))
        loop = asyncio.create_task(wakes.run(), name="reconciles")
        site = Site(api, reconciler, lambda: len(wakes), lambda: not loop.done())
        await site.start(self._port)
        self._running = _Running(api, links, wakes, loop, site)
        _log.info("the operator runs; workers run %s", self._settings.image)

    async def _stop(self, **_: Any) -> None:
        if self._running is None:
            return
        running, self._running = self._running, None
        running.loop.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running.loop
        await running.site.close()
        running.links.close()
        await running.api.__aexit__(None, None, None)

    def _wake(self, key: Key) -> None:
        if self._running:
            self._running.wakes.wake(key)

    async def _asked(self, event: Any, body: Any, **_: Any) -> None:
        """An application was made, changed or deleted."""
        meta = body["metadata"]
        key = meta["namespace"], meta["name"]
        about = (
            meta["uid"],
            meta.get("generation"),
            dict(meta.get("annotations") or {}),
            "deletionTimestamp" in meta,
            event["type"] == "DELETED",
        )
        if self._known.get(key) == about and event["type"] is not None:
            return
        if event["type"] == "DELETED":
            self._known.pop(key, None)
        else:
            self._known[key] = about
        self._wake(key)

    async def _changed(self, body: Any, **_: Any) -> None:
        """Something of an application was made, changed or deleted."""
        name = (body["metadata"].get("labels") or {}).get(names.INSTANCE)
        if name:
            self._wake((body["metadata"]["namespace"], name))
