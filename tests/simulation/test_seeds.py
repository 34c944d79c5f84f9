"""Seeds of simulated clusters: whatever fails, what comes out is exact."""

import pytest
from tests.simulation.sim_run import run_seed, small

#: How many seeds a test takes, and how many tests there are.
_SEEDS, _TESTS = 30, 10

#: Seeds that failed once, and what they showed.
REGRESSIONS = {
    1: "the next epoch's output was kept while the last one's was published, and got forgotten",
    409: "a worker that came back when the application had ended was refused, which is a failure",
    7641: "a worker that was silent while it left did not go back to the generation that it knew",
    8865: "the same, with nobody else beside worker 0",
    0: "a folder was made and its name never synced, so a power cut took all that was in it",
}


@pytest.mark.parametrize("first", range(0, _SEEDS * _TESTS, _SEEDS))
def test_what_comes_out_is_exact_whatever_fails(first: int) -> None:
    with small():
        failed = [
            result for seed in range(first, first + _SEEDS) if (result := run_seed(seed)).failure
        ]
    assert not failed, f"seed {failed[0].seed}: {failed[0].failure}"


@pytest.mark.parametrize("seed", REGRESSIONS)
def test_a_seed_that_failed_once_no_longer_does(seed: int) -> None:
    with small():
        assert not run_seed(seed).failure
