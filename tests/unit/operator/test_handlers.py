"""What kopf is asked for, and what not: see ruling K8s 21."""

import asyncio
from typing import Any

import kopf
import pytest
from kopf._cogs.structs.references import Resource
from kopf._core.intents.causes import Activity

from wallaroo_operator import handlers
from wallaroo_operator.handlers import Operator
from wallaroo_operator.observe import Settings

OWNED = [
    Resource("apps", "v1", "statefulsets", namespaced=True),
    Resource("", "v1", "pods", namespaced=True),
    Resource("", "v1", "persistentvolumeclaims", namespaced=True),
]
APPLICATIONS = Resource("wallaroo.dev", "v1alpha1", "wallarooapps", namespaced=True)


class Enough(Exception):
    pass


@pytest.fixture
def operator() -> Operator:
    return Operator(Settings("stock:1"), 0)


def test_events_are_listened_to_and_nothing_else(operator: Operator) -> None:
    """Ruling K8s 21: all other handlers of objects add finalizers or annotations."""
    registry = operator.registry()
    for kind in ("_changing", "_spawning", "_indexing", "_webhooks"):
        assert not list(getattr(registry, kind).get_all_handlers()), kind
    activities = {each.activity for each in registry._activities.get_all_handlers()}
    assert activities == {Activity.AUTHENTICATION, Activity.STARTUP, Activity.CLEANUP}
    heard = registry._watching.get_all_selectors()
    assert len(heard) == 4
    for resource in (*OWNED, APPLICATIONS):
        assert any(each.check(resource) for each in heard), resource


def test_what_applications_are_made_of_is_watched_by_its_label(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ruling K8s 21."""

    class NoApi:
        async def __aenter__(self) -> Any:
            raise Enough

    monkeypatch.setattr(handlers, "Api", NoApi)
    settings = kopf.OperatorSettings()
    with pytest.raises(Enough):
        asyncio.run(operator._start(settings=settings))
    for resource in OWNED:
        found = set(settings.watching.label_selectors.collect(resource))
        assert found == {"app.kubernetes.io/managed-by=wallaroo-operator"}
    assert not set(settings.watching.label_selectors.collect(APPLICATIONS))
    assert settings.peering.standalone
    assert not settings.posting.enabled
