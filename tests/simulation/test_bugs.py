"""Bugs of a user's stop the application; mended, it ends as if they had never been there.

Seeds of test_seeds.py have some, beside faults. Here each kind comes without faults, and is seen.
"""

import random
from collections.abc import Iterator
from itertools import count, islice
from unittest import mock

import pytest
from tests.simulation.sim_bugs import KINDS
from tests.simulation.sim_cluster import Cluster
from tests.simulation.sim_process import Process
from tests.simulation.sim_run import small
from tests.simulation.sim_scenario import Scenario
from tests.simulation.sim_scheduler import Scheduler

from wallaroo.dataflow.engine import Engine
from wallaroo.errors import Failure

#: How many clusters have a bug of each kind: an event that can't be sent may go nowhere.
_CLUSTERS = 12


def _clusters(kind: str) -> Iterator[Cluster]:
    """Those whose user has such a bug, and where nothing else goes wrong."""
    for seed in count():
        scheduler = Scheduler(seed)
        scenario = Scenario(scheduler.random, random.Random(f"bugs of {seed}"))
        if scenario.sample.bug.kind == kind and scenario.workers > 1:
            scenario.faults = []
            yield Cluster(scenario, scheduler)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_wrong_is_told_and_once_mended_all_is_exact(kind: str) -> None:
    clusters = list(islice(_clusters(kind), _CLUSTERS))
    with small():
        for cluster in clusters:
            cluster.run()
    assert any(cluster.scenario.sample.bug.mended for cluster in clusters)


def test_nothing_goes_on_behind_an_event_that_failed() -> None:
    """The process has yet to end: what it does until then would be without the event."""
    told: list[tuple[Process, Failure]] = []
    with small(), mock.patch.object(Process, "fail", lambda *failed: told.append(failed)):
        cluster = next(_clusters(KINDS[0]))
        cluster._start_run()
        while not told:
            assert cluster.scheduler.step()
        ((process, _),) = told
        assert process.node
        with mock.patch.object(Engine, "step") as stepped:
            assert not process.node.run()
    stepped.assert_not_called()
