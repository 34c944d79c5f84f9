"""The simulation sees mistakes: each of these, put into the real code, makes a known seed fail, or
another one when dice have moved: `python -m tests.simulation.sim_mutations` finds them anew.

The number before each is the ruling of the protocol that it breaks.
"""

import pytest
from tests.simulation.sim_mutations import MISTAKES, first_failure, mistaken
from tests.simulation.sim_run import run_seed, small

from wallaroo.state.native import AVAILABLE

#: By mistake: the ruling, and the first seed that fails with it.
SEEDS = {
    "streams of an old generation are taken": ("1", 168),
    "one worker that has rolled back is enough": ("2", 0),
    "a manifest is not synced": ("3", 0),
    "folders are not synced": ("3", 0),
    "the name of a new folder is not synced": ("3", 0),
    "a generation is used before it is durable": ("3", 0),
    "a commit is announced before it is durable": ("3", 0),
    "an epoch begins while another is in flight": ("3", 2),
    "recovery does not wait for work in the background": ("4", 538),
    "a delta is not synced": ("5", 0),
    "uncommitted deltas are merged": ("5", 7),
    "generations follow each other at full speed": ("6", 3),
    "entries leave the memory before the base has them": ("7", 0),
    "a rollback keeps what uncommitted epochs touched": ("7", 7),
    "a rollback keeps what the current epoch touched": ("7", 5),
    "an entry that is touched again is encoded as it is then": ("7", 0),
    "every class is written as its __dict__": ("8", 6),
    "whatever can't be read back is written": ("9", 8),
    "a first touch does not ask who owns the key": ("10", 120),
    "the first barrier is enough": ("14", 0),
    "the barrier is put on some outputs only": ("14", 0),
    "a stage that waits holds up all others": ("15", 0),
    "a final barrier lets sources go on": ("17", 290),
    "workers that have read all end the application": ("18", 0),
    "those that join need not be waited for": ("20", 3),
    "a donor says that all has come when the switch begins": ("20", 5),
    "a donor does not wait until all is encoded": ("20", 0),
    "a switch is reported before what was given is durable": ("21", 3),
    "events of moved keys are not held back": ("20", 9),
    "what is held back is overtaken": ("20", 9),
    "a donor forgets what moves before that is committed": ("21", 5),
    "what was given is looked for in the base at once": ("21", 3),
    "memory keeps what was given away": ("21", 5),
    "the base keeps what was there before": ("21", 29),
    "what was given is not taken into the base": ("21", 5),
    "what the base lacks is not copied": ("22", 5),
    "what is touched while it is copied is not sent": ("22", 9),
    "older deltas are copied over newer ones": ("22", 90),
    "a partition that moves is read on": ("27", 5),
    "a partition is read before its position has come": ("27", 5),
    "who had read all before a switch is not asked again": ("18", 29),
    "a leaver ends before its output is published": ("29", 40),
    "a stage routes by the old assignment behind a switch": ("20", 3),
    "positions are taken after the cut": ("27", 3),
    "pending output is not synced": ("28", 0),
    "output is published before its commit": ("28", 0),
    "output is not synced before its pending file goes": ("28", 0),
    "an epoch is reported before the last is published": ("28", 4),
    "output that waited is not published by recovery": ("28", 31),
    "output of an epoch is forgotten when the last one's is published": ("28", 4),
    "output of an earlier life is kept": ("29", 3),
}


#: Dice fall otherwise after a change of the code: so many seeds are tried for another.
_TRIED = 1500


@pytest.mark.skipif(not AVAILABLE, reason="the seeds are those of the table in C")
@pytest.mark.parametrize(
    ("mistake", "seed"),
    [pytest.param(name, seed, id=f"{ruling}: {name}") for name, (ruling, seed) in SEEDS.items()],
)
def test_a_mistake_makes_a_seed_fail_that_passes_without(mistake: str, seed: int) -> None:
    with small():
        with mistaken(mistake):
            found = first_failure([seed, *range(_TRIED)])
        assert found is not None, f"no seed below {_TRIED} sees that {mistake}"
        assert not run_seed(found).failure


def test_every_mistake_is_seen_by_a_seed() -> None:
    assert SEEDS.keys() == MISTAKES.keys()
