"""What an application at rest costs: glances, and counters now and then."""

import asyncio
import contextlib
from base64 import b64decode
from collections.abc import Awaitable, Callable, Iterator
from typing import Any
from unittest import mock

import pytest
from tests.unit.operator.kube_world import KEY, Counting, World, conditions, settled

from wallaroo_operator.act import DecideAgain
from wallaroo_operator.api import Refused
from wallaroo_operator.app import Json
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


@contextlib.contextmanager
def refusing(api: Counting, code: int, why: str) -> Iterator[None]:
    """The API server does not take the StatefulSet."""
    taken = api.apply

    async def refuse(manifest: Json, version: str, subresource: str = "") -> Json:
        if manifest["kind"] == "StatefulSet":
            raise Refused(code, why)
        return await taken(manifest, version, subresource)

    with mock.patch.object(api, "apply", refuse):
        yield


def test_what_the_api_server_refuses_stands_in_the_status_until_it_does_not() -> None:
    async def then(world: World, api: Counting, reconciler: Reconciler) -> None:
        world.edit(replicas=5)
        why = 'pods "count" is forbidden: exceeded quota'
        with refusing(api, 403, why):
            for _ in range(2):
                with pytest.raises(Refused):
                    await reconciler.reconcile(KEY)
                assert ("Degraded", "True", "Refused") in set(conditions(world.app))
            told = [each["reason"] for each in world.of("Event")]
            assert told.count("Refused") == 1
            (degraded,) = (c for c in world.app["status"]["conditions"] if c["type"] == "Degraded")
            assert why in degraded["message"]
        await reconciler.reconcile(KEY)
        assert ("Degraded", "False", "AsExpected") in set(conditions(world.app))

    run(then)


@pytest.mark.parametrize("code", [429, 500, 503])
def test_a_server_in_trouble_is_only_asked_again(code: int) -> None:
    async def then(world: World, api: Counting, reconciler: Reconciler) -> None:
        world.edit(replicas=5)
        with refusing(api, code, "try again"), pytest.raises(Refused):
            await reconciler.reconcile(KEY)
        assert ("Degraded", "False", "AsExpected") in set(conditions(world.app))

    run(then)
