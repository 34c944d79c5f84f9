"""What is seen of names that somebody else may have, and what it costs to look for them."""

import asyncio

import pytest
from tests.unit.operator.kube_world import (
    KEY,
    NAME,
    NAMESPACE,
    SETTINGS,
    Counting,
    FakeLinks,
    Json,
    World,
    conditions,
    settled,
)

from wallaroo_operator import names
from wallaroo_operator.app import App, Module
from wallaroo_operator.observe import observe
from wallaroo_operator.observed import Observed

#: Requests for what is looked at always: the application, six objects by name, three lists and the
#: module.
USUAL = 11
STRANGER = {"kind": "Job", "name": "nightly", "uid": "of the job", "controller": True}


@pytest.fixture
def world() -> World:
    """With an application of three workers at rest."""
    found = World(0)
    found.edit(replicas=3)
    asyncio.run(settled(found, Counting(found)))
    return found


def seen(world: World, api: Counting | None = None) -> Observed:
    api = api or Counting(world)
    found = asyncio.run(observe(api, FakeLinks(world, api), SETTINGS, KEY, world.now))
    assert found
    return found.observed


def put(world: World, kind: str, name: str, *owners: Json) -> None:
    """Somebody makes an object."""
    meta = {"name": name, "namespace": NAMESPACE, "ownerReferences": list(owners)}
    world.put({"kind": kind, "metadata": meta, "status": {}})


def test_what_is_at_rest_costs_no_more_than_it_always_does(world: World) -> None:
    api = Counting(world)
    assert seen(world, api).conflicts == ()
    assert api.requests == USUAL


def test_only_the_first_pod_that_is_missing_is_looked_for(world: World) -> None:
    world.edit(replicas=300)
    assert world.workers
    world.workers["spec"]["replicas"] = 300
    api = Counting(world)
    assert seen(world, api).conflicts == ()
    assert api.requests == USUAL + 1


@pytest.mark.parametrize(
    ("owners", "whose"), [((), "nobody"), ((STRANGER,), "Job nightly")], ids=["nobody's", "a job's"]
)
def test_a_pod_in_the_place_of_a_worker_is_in_the_way(
    world: World, owners: tuple[Json, ...], whose: str
) -> None:
    """Ruling K8s 14; ruling K8s 22: members process. Fewer replicas are a way out."""
    put(world, "Pod", "count-3", *owners)
    world.edit(replicas=4)
    asyncio.run(settled(world, Counting(world)))
    found = {kind: (status, reason) for kind, status, reason in conditions(world.app)}
    assert found["Degraded"] == ("True", "NameConflict")
    assert found["Ready"] == ("True", "Running")
    assert seen(world).conflicts == (f"Pod count-3 is there already and belongs to {whose}",)
    world.edit(replicas=3)
    asyncio.run(settled(world, Counting(world)))
    assert ("Degraded", "False", "AsExpected") in conditions(world.app)
    assert ("Pod", "count-3") in world.objects


def test_a_pod_that_was_made_between_two_requests_is_not_in_the_way(world: World) -> None:
    """Ruling K8s 14: it belongs to the StatefulSet."""
    assert world.workers
    pod = world.objects["Pod", "count-2"]
    del pod["metadata"]["labels"]  # the list does not have it
    assert seen(world).conflicts == ()


def test_a_config_map_in_the_place_of_the_modules_copy_is_in_the_way(world: World) -> None:
    """Ruling K8s 14."""
    name = names.module_map(NAME, "another")
    put(world, "ConfigMap", name, STRANGER)
    world.set_module("another")
    (conflict,) = seen(world).conflicts
    assert conflict == f"ConfigMap {name} is there already and belongs to Job nightly"


def test_a_pod_in_the_place_of_the_proof_is_in_the_way(world: World) -> None:
    """Ruling K8s 14."""
    world.set_module("another")
    name = names.proof(NAME, App.read(world.app).inputs(Module("app.py", "another")))
    put(world, "Pod", name)
    (conflict,) = seen(world).conflicts
    assert conflict == f"Pod {name} is there already and belongs to nobody"


def test_what_goes_with_a_former_application_is_waited_for(world: World) -> None:
    """Ruling K8s 14."""
    name = names.module_map(NAME, "another")
    former = {"kind": names.KIND, "name": NAME, "uid": "of the former", "controller": True}
    put(world, "ConfigMap", name, former)
    world.set_module("another")
    found = seen(world)
    assert (found.conflicts, found.departing) == ((), (f"ConfigMap {name}",))
