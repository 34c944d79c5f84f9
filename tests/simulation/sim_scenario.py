"""What a seed means: an application, a cluster, how slow everything is, and which faults come."""

import random
from pathlib import Path

from tests.simulation.sim_applications import HERE, OPEN_STATES, OUTPUT, Sample, sample

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

#: Most workers that a rescale asks for.
MOST = 5
#: The share of users that have a bug.
_BUGS = 0.15


class Scenario:
    """Drawn from a seed. bugs: dice of their own, for bugs of a user's; None for none."""

    def __init__(self, chance: random.Random, bugs: random.Random | None = None) -> None:
        self.workers = chance.choice((1, 2, 2, 3, 3, 4))
        #: Whether all workers are on one machine.
        self.together = chance.random() < 0.5
        #: Whether other numbers of workers are asked for.
        self.rescales = chance.random() < 0.6
        self.sample: Sample = sample(chance, long=self.rescales)
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
        #: How many workers are asked for, and after how many seconds each.
        self.targets: list[tuple[float, int]] = []
        #: Whether one is asked for only when the one before has come about.
        self.patient = False
        if self.rescales:
            self._rescale(chance)
        if bugs and bugs.random() < _BUGS:
            self.sample.bug.draw(
                bugs, self.sample.places, self.assignment, OPEN_STATES, rescales=self.rescales
            )

    def _rescale(self, chance: random.Random) -> None:
        """Ask for other numbers of workers, and let the events last until they have come."""
        self.pace = chance.choice((0.005, 0.01, 0.02))
        self.control_delay = chance.choice((0.0003, 0.002))
        self.disk_delay = chance.choice((0.0003, 0.002, 0.01))
        self.restart_delay = chance.choice((0.003, 0.03))
        if chance.random() < 0.8:
            self.interval = chance.choice((0.01, 0.03, 0.1))
        if self.cache is not None:  # so that epochs leave time for the base
            self.interval = 0.3
        gap = chance.choice((0.01, 0.05, 0.3, 1.0))
        for _ in range(chance.choice((1, 1, 2, 3, 5))):
            self.targets.append((gap * chance.random() * 2, chance.randrange(1, MOST + 1)))
        if chance.random() < 0.4:
            self.patient = True
            there = chance.randrange(1, MOST + 1)
            self.targets = [(0.01, there), (0.01, self.workers), (0.01, there)]
            self.faults = self.faults[:1]

    def _assignment(self, chance: random.Random) -> Assignment:
        if chance.random() < 0.5:
            return Assignment.first(self.workers)
        points = {hash_key(f"k{number}") for number in range(chance.randrange(8))}
        points |= {chance.randrange(1, INTERVAL) for _ in range(self.workers)}
        starts = sorted({0} | points)
        owners = [chance.randrange(self.workers) for _ in starts]
        owners[: self.workers] = range(self.workers)
        return Assignment(1, tuple(map(Piece, starts, [*starts[1:], INTERVAL], owners)))
