"""Rescales where no events flow and no checkpoints are taken: nobody else wakes a worker."""

from unittest import mock

import pytest
from tests.simulation.sim_cluster import Cluster
from tests.simulation.sim_run import small
from tests.simulation.sim_scenario import Scenario
from tests.simulation.sim_scheduler import Scheduler

from wallaroo.dataflow.engine import Engine
from wallaroo.partitioning import Assignment


@pytest.mark.parametrize("seed", [5, 9, 11, 12])
def test_a_rescale_right_after_another_waits_for_nobody(seed: int) -> None:
    """It has the last one settled, and copies, though nothing else goes on."""
    scheduler = Scheduler(seed)
    scenario = Scenario(scheduler.random)
    scenario.interval, scenario.faults, scenario.cache, scenario.patient = 0.0, [], None, True
    scenario.workers, scenario.assignment = 2, Assignment.first(2)
    scenario.targets = [(0.3, 3), (1.0, 4)]
    with small(), mock.patch.object(Engine, "_read_events", return_value=False):
        cluster = Cluster(scenario, scheduler)
        cluster.target = 2
        cluster._start_run()
        cluster._next_target(list(scenario.targets))
        while scheduler.now < 30 and scheduler.step():
            manifest = cluster.invariants.durable_manifest()
            if manifest and len(manifest.members) == 4:
                break
        assert manifest
        assert len(manifest.members) == 4
    assert {each["outcome"] for each in manifest.history} == {"committed"}
