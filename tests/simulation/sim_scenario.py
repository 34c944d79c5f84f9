"""What a seed means: an application, a cluster, how slow everything is, and which faults come."""

import random
from pathlib import Path

from tests.simulation.sim_applications import HERE, OUTPUT, Sample, sample

from wallaroo.dataflow.graph import build_graph
from wallaroo.partitioning import INTERVAL, Assignment, Piece, hash_key
from wallaroo.state.allowlist import AllowList
from wallaroo.state.codec import Codec

_CODEC = Codec(AllowList([HERE]))

#: Faults, and how often each is drawn.
FAULTS = {
    "kill": 6,
    "kill at": 6,
    "cut power": 3,
    "cut power at": 4,
    "kill all": 1,
    "cut all power": 1,
    "pause": 3,
    "partition": 3,
    "break stream": 3,
    "break session": 3,
    "slow": 1,
    "stop": 2,
}


class Scenario:
    """Drawn from a seed."""

    def __init__(self, chance: random.Random) -> None:
        self.workers = chance.choice((1, 2, 2, 3, 3, 4))
        #: Whether all workers are on one machine.
        self.together = chance.random() < 0.5
        self.sample: Sample = sample(chance)
        self.graph = build_graph(self.sample.application)
        self.codec = _CODEC
        self.output: Path = OUTPUT
        self.assignment = self._assignment(chance)
        self.interval = chance.choice((0.0, 0.01, 0.03, 0.03, 0.1, 0.3))
        # Without checkpoints nothing can leave the memory: the command line refuses that.
        self.cache = chance.choice((None, None, 1, 4, 20)) if self.interval else None
        self.patience = chance.choice((0.1, 0.5))
        #: Seconds between slices of the dataflow.
        self.pace = chance.choice((0.0, 0.001, 0.005, 0.01))
        self.control_delay = chance.choice((0.0003, 0.002, 0.01))
        self.exchange_delay = chance.choice((0.0003, 0.002, 0.01))
        self.disk_delay = chance.choice((0.0003, 0.002, 0.01, 0.05))
        self.restart_delay = chance.choice((0.003, 0.03, 0.3))
        kinds = chance.sample(sorted(FAULTS), chance.randrange(1, len(FAULTS) + 1))
        self.faults = chance.choices(
            kinds, [FAULTS[kind] for kind in kinds], k=chance.choice((0, 1, 2, 4, 8))
        )
        #: Seconds between faults, about.
        self.fault_gap = chance.choice((0.005, 0.03, 0.1, 0.5))

    @property
    def members(self) -> set[int]:
        """All workers."""
        return set(range(self.workers))

    def _assignment(self, chance: random.Random) -> Assignment:
        if chance.random() < 0.5:
            return Assignment.first(self.workers)
        points = {hash_key(f"k{number}") for number in range(chance.randrange(8))}
        points |= {chance.randrange(1, INTERVAL) for _ in range(self.workers)}
        starts = sorted({0} | points)
        owners = [chance.randrange(self.workers) for _ in starts]
        owners[: self.workers] = range(self.workers)
        return Assignment(1, tuple(map(Piece, starts, [*starts[1:], INTERVAL], owners)))
