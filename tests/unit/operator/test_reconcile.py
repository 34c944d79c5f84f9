"""What an application at rest costs: glances, and counters now and then."""

import asyncio
from base64 import b64decode
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.unit.operator.kube_world import KEY, Counting, World, settled

from wallaroo_operator.act import DecideAgain
from wallaroo_operator.certs import AUTHORITY, fingerprint
from wallaroo_operator.observe import Settings
from wallaroo_operator.reconcile import COUNTERS, GLANCE, Reconciler

TLS = Settings("stock:1")


@pytest.fixture(autouse=True)
def _no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    async def inline(function: Callable[..., object], *args: object) -> object:
        return function(*args)

    monkeypatch.setattr(asyncio, "to_thread", inline)


def run(then: Callable[[World, Counting, Reconciler], Awaitable[None]], **spec: Any) -> None:
    async def main() -> None:
        world = World(0)
        if spec:
            world.edit(**spec)
        api = Counting(world)
        await then(world, api, await settled(world, api))

    asyncio.run(main())


def test_an_application_at_rest_is_only_glanced_at() -> None:
    async def then(world: World, api: Counting, reconciler: Reconciler) -> None:
        await reconciler.reconcile(KEY, woken=False)
        before = api.requests
        assert await reconciler.reconcile(KEY, woken=False) == GLANCE
        assert api.requests - before <= 2  # its module, and perhaps counters

    run(then)


def test_counters_are_written_every_half_a_minute_at_most() -> None:
    """Ruling K8s 21."""

    async def then(world: World, api: Counting, reconciler: Reconciler) -> None:
        before, began = world.writes, world.now
        while world.now < began + 200:
            world.now += 5
            for each in world.controllers():
                each()
            await reconciler.reconcile(KEY, woken=False)
        assert 5 <= world.writes - before <= 200 / COUNTERS + 1

    run(then)


def test_a_suspended_application_costs_no_request_between_full_looks() -> None:
    async def then(world: World, api: Counting, reconciler: Reconciler) -> None:
        await reconciler.reconcile(KEY, woken=False)
        before = api.requests
        for _ in range(10):
            world.now += GLANCE
            await reconciler.reconcile(KEY, woken=False)
        assert api.requests == before

    run(then, suspend=True)


def test_a_glance_that_finds_something_looks_at_everything() -> None:
    async def then(world: World, api: Counting, reconciler: Reconciler) -> None:
        await reconciler.reconcile(KEY, woken=False)
        world.set_module("another")
        await reconciler.reconcile(KEY, woken=False)
        assert "Pod" in {each["kind"] for each in world.objects.values()}
        assert any("check" in name for _, name in world.objects)

    run(then)


def test_a_glance_sees_whom_workers_trust_by_now() -> None:
    """Ruling K8s 24: an authority is replaced step by step, as soon as workers are there."""

    async def main() -> None:
        world = World(0)
        await settled(world, Counting(world), TLS)
        world.now += 0.7 * AUTHORITY.total_seconds()
        reconciler = await settled(world, Counting(world), TLS)
        assert "next.crt" in world.objects["Secret", "count-ca"]["data"]
        await reconciler.reconcile(KEY, woken=False)
        bundle = b64decode(world.objects["Secret", "count-tls"]["data"]["ca.crt"]).decode()
        world.trusted = fingerprint(bundle)
        with pytest.raises(DecideAgain, match="certificates"):
            await reconciler.reconcile(KEY, woken=False)
        assert "former.crt" in world.objects["Secret", "count-ca"]["data"]

    asyncio.run(main())


def test_nothing_is_written_to_an_application_that_is_being_deleted() -> None:
    """Ruling K8s 21."""

    async def then(world: World, api: Counting, reconciler: Reconciler) -> None:
        world.app["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        world.edit(replicas=5)
        before = world.writes
        assert await reconciler.reconcile(KEY) is None
        assert world.writes == before

    run(then)
