"""The operator's metrics and health, on one port."""

import time
from collections.abc import Callable, Iterable

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from wallaroo_operator.api import Api
from wallaroo_operator.reconcile import Reconciler

registry = CollectorRegistry()
RECONCILES = Counter(
    "wallaroo_operator_reconciles", "Reconciles, by how they ended.", ["result"], registry=registry
)
SECONDS = Histogram(
    "wallaroo_operator_reconcile_seconds", "How long a reconcile took.", registry=registry
)


class _Now(Collector):
    """What is looked up when it is asked for."""

    def __init__(self, api: Api, reconciler: Reconciler, queued: Callable[[], int]) -> None:
        self._api = api
        self._reconciler = reconciler
        self._queued = queued

    def collect(self) -> Iterable[Metric]:
        requests = CounterMetricFamily(
            "wallaroo_operator_api_requests",
            "Requests to the API server, without watches.",
            labels=["method"],
        )
        for method, count in self._api.requests.items():
            requests.add_metric([method], count)
        yield requests
        conditions = GaugeMetricFamily(
            "wallaroo_operator_condition",
            "1 for the status that a condition of an application has.",
            labels=["namespace", "application", "type", "status", "reason"],
        )
        members = GaugeMetricFamily(
            "wallaroo_operator_members",
            "Members of an application.",
            labels=["namespace", "application"],
        )
        for (namespace, name), seen in self._reconciler.seen().items():
            status = seen.observed.app.status
            members.add_metric([namespace, name], status.get("members", 0))
            for each in status.get("conditions", ()):
                labels = [namespace, name, each["type"], each["status"], each["reason"]]
                conditions.add_metric(labels, 1)
        yield conditions
        yield members
        yield GaugeMetricFamily(
            "wallaroo_operator_queued", "Applications to be reconciled.", self._queued()
        )


class Site:
    """`/metrics`, `/livez` and `/readyz`."""

    def __init__(
        self,
        api: Api,
        reconciler: Reconciler,
        queued: Callable[[], int],
        alive: Callable[[], bool],
    ) -> None:
        self._alive = alive
        self._now = _Now(api, reconciler, queued)
        registry.register(self._now)
        app = web.Application()
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/livez", self._health)
        app.router.add_get("/readyz", self._health)
        self._runner = web.AppRunner(app, access_log=None)

    async def start(self, port: int) -> None:
        """Listen. Raises OSError."""
        await self._runner.setup()
        await web.TCPSite(self._runner, None, port).start()

    async def close(self) -> None:
        """Listen no longer."""
        registry.unregister(self._now)
        await self._runner.cleanup()

    async def _metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), content_type="text/plain")

    async def _health(self, _request: web.Request) -> web.Response:
        return web.Response(status=200 if self._alive() else 500, text=f"{time.time():.0f}\n")
