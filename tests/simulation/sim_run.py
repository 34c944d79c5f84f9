"""Run seeds.

python -m tests.simulation.sim_run --seeds 10000          many, on all cores
python -m tests.simulation.sim_run --seed 17 --log        one, with all that happens
"""

import argparse
import contextlib
import io
import os
import random
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from types import CodeType, SimpleNamespace
from typing import Any
from unittest import mock

from tests.simulation.sim_cluster import Cluster
from tests.simulation.sim_scenario import Scenario
from tests.simulation.sim_scheduler import Scheduler


@dataclass(frozen=True)
class Result:
    """What came of a seed. failure: empty if all was well."""

    seed: int
    failure: str
    digest: str
    steps: int
    lines: list[str]


@contextlib.contextmanager
def small() -> Iterator[None]:
    """Queues, batches, blocks and deltas so small that everything has many turns."""
    files: list[Any] = []

    def opened(*arguments: Any) -> Any:
        files.append(io.FileIO(*arguments))
        return files[-1]

    @lru_cache(maxsize=10_000)
    def compiled(text: str) -> CodeType:
        return compile(text, "<generated>", "exec")

    with contextlib.ExitStack() as stack:
        enter = stack.enter_context
        enter(
            mock.patch.multiple(
                "wallaroo.dataflow.exchange", ROOM=200, FRAME=100, LOCAL_ROOM=6, BLOCK=4
            )
        )
        enter(mock.patch("wallaroo.dataflow.engine.BATCH", 3))
        enter(mock.patch("wallaroo.runtime.node.SLICE", 0.00003))
        enter(mock.patch("wallaroo.state.live.CHUNK", 2))
        enter(
            mock.patch.multiple(
                "wallaroo.state.store", CHUNK=2, _DELTAS=3, _NATIVE=1, _TAKEN=3, _ABOVE=4
            )
        )
        enter(mock.patch("wallaroo.state.native._SIMPLE", 1))
        enter(mock.patch.multiple("wallaroo.connectors.file_sink", _ROOM=300, _CHUNK=64))
        enter(mock.patch.multiple("wallaroo.connectors.file_source", _CHUNK=60))
        enter(mock.patch("wallaroo.connectors.file_source.io", SimpleNamespace(FileIO=opened)))
        # The same text is compiled once, and not kept for tracebacks.
        enter(
            mock.patch(
                "wallaroo.dataflow.codegen.compile",
                lambda text, file, _: _named(compiled(text), file),
                create=True,
            )
        )
        enter(mock.patch("wallaroo.dataflow.codegen.linecache", SimpleNamespace(cache=_Nothing())))
        try:
            yield
        finally:
            for file in files:
                file.close()


def _named(code: CodeType, file: str) -> CodeType:
    """Compiled code, and the functions in it, as of a file: errors are explained by that."""
    constants = (_named(e, file) if isinstance(e, CodeType) else e for e in code.co_consts)
    return code.replace(co_filename=file, co_consts=tuple(constants))


class _Nothing(dict[str, Any]):
    def __setitem__(self, key: str, value: Any) -> None:
        pass


def run_seed(seed: int, *, keep: bool = False) -> Result:
    """Run one seed; call it within `small`."""
    scheduler = Scheduler(seed, keep=keep)
    failure = ""
    try:
        bugs = random.Random(f"bugs of {seed}")
        Cluster(Scenario(scheduler.random, bugs), scheduler).run()
    except Exception:
        failure = traceback.format_exc()
    return Result(seed, failure, scheduler.digest, scheduler.steps, scheduler.lines)


def run_seeds(seeds: list[int]) -> list[Result]:
    """Run some seeds."""
    with small():
        return [run_seed(seed) for seed in seeds]


def first_failure(seeds: list[int], *changes: Callable[[], Any]) -> Result | None:
    """The first of the seeds that fails with these changes in place."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(small())
        for change in changes:
            stack.enter_context(change())
        for seed in seeds:
            result = run_seed(seed)
            if result.failure:
                return result
    return None


def replay(seed: int, *, log: bool) -> int:
    """Run one seed and show what happens."""
    with small():
        result = run_seed(seed, keep=log)
    for line in result.lines:
        print(line)
    print(f"seed {seed}: {result.steps} steps, log {result.digest}")
    print(result.failure, end="")
    return bool(result.failure)


def simulate(first: int, count: int) -> int:
    """Run many seeds on all cores; returns 1 if one fails."""
    cores = os.cpu_count() or 1
    chunks = [
        list(range(at, min(at + 50, first + count))) for at in range(first, first + count, 50)
    ]
    failed: list[int] = []
    done = 0
    began = time.monotonic()
    with ProcessPoolExecutor(cores) as pool:
        for results in pool.map(run_seeds, chunks):
            done += len(results)
            rate = done / (time.monotonic() - began)
            for result in results:
                if result.failure:
                    failed.append(result.seed)
                    last = result.failure.strip().splitlines()[-1]
                    print(f"\rseed {result.seed}: {last}" + " " * 20)
                    print(f"  {_command(result.seed)}")
            print(f"\r{done} of {count} seeds, {len(failed)} failed, {rate:.0f}/s ", end="")
            sys.stdout.flush()
    print()
    return bool(failed)


def _command(seed: int) -> str:
    return f"{os.path.relpath(sys.executable)} -m tests.simulation.sim_run --seed {seed} --log"


def main() -> int:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(prog="sim_run", description="Run simulated clusters.")
    parser.add_argument("--seed", type=int, help="replay this one")
    parser.add_argument("--log", action="store_true", help="show all that happens")
    parser.add_argument("--seeds", type=int, default=1000, help="how many to run")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    asked = parser.parse_args()
    if asked.seed is not None:
        return replay(asked.seed, log=asked.log)
    return simulate(asked.first, asked.seeds)


if __name__ == "__main__":
    sys.exit(main())
