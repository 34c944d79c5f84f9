"""The operator in a cluster where anything may happen between any two of its requests.

Users edit, pods end, rescales fail, modules are bad, the operator is killed at any line, and a
second one runs beside it. What must never be is asserted in `world`; that all comes to rest in the
end, as asked for, is asserted here. A seed that fails is a bug report: see `replay`.
"""

import asyncio
import random
import re
from collections.abc import Callable

import pytest
from tests.unit.operator import kube_world as world_of
from tests.unit.operator.kube_world import KEY, NAME, FakeApi, FakeLinks, World, conditions

from wallaroo_operator import names
from wallaroo_operator.act import DecideAgain
from wallaroo_operator.observe import Settings
from wallaroo_operator.reconcile import Reconciler

SEEDS = range(30)
STEPS = 1500


async def operate(world: World) -> None:
    """An operator, from its start to its death."""
    api = FakeApi(world)
    settings = Settings("stock:1", tls=False)
    reconciler = Reconciler(api, FakeLinks(world, api), settings, lambda: world.now)
    while True:
        try:
            await reconciler.reconcile(KEY)
        except DecideAgain:
            pass
        await api._turn()


async def settle() -> None:
    """Let everything that can go on do so."""
    for _ in range(12):
        await asyncio.sleep(0)


class Run:
    """One seed."""

    def __init__(self, seed: int) -> None:
        self.world = World(seed)
        self.random = random.Random(f"run {seed}")
        self.operators: list[asyncio.Task[None]] = []

    def start_operator(self) -> None:
        self.operators.append(asyncio.create_task(operate(self.world)))

    async def step(self, faults: bool) -> None:
        world, dice = self.world, self.random
        kind = dice.random()
        if faults and kind < 0.02:
            self.fault()
        elif faults and kind < 0.03:
            self.edit()
        elif faults and kind < 0.035:
            await self.kill()
        elif faults and kind < 0.038 and len(self.operators) < 2:
            self.start_operator()
        elif kind < 0.75 and world.waiting:
            future = world.waiting.pop(dice.randrange(len(world.waiting)))
            if not future.done():
                future.set_result(None)
        else:
            dice.choice(world.controllers())()
            world.now += dice.choice([0.1, 0.5, 3])
        self.accept()
        if not self.operators:
            self.start_operator()
        await settle()
        for each in self.operators:
            if each.done():
                each.result()  # raises what it died of

    async def kill(self) -> None:
        if not self.operators:
            return
        victim = self.operators.pop(self.random.randrange(len(self.operators)))
        victim.cancel()
        await asyncio.gather(victim, return_exceptions=True)
        self.world.say("the operator is killed")

    def edit(self) -> None:
        world, dice = self.world, self.random
        edits: list[Callable[[], None]] = [
            lambda: world.edit(replicas=dice.choice([1, 2, 3, 4, 5])),
            lambda: world.edit(replicas=dice.choice([1, 2, 3])),
            lambda: world.edit(replicas=0),
            lambda: world.edit(suspend=dice.random() < 0.5),
            lambda: world.edit(image=dice.choice(["", "other:2", "unpullable"])),
            lambda: world.set_module(
                dice.choice([f"good {dice.random()}", world_of.BAD_MODULE, world_of.BAD_RUN])
            ),
            lambda: world.annotate(names.RESTARTED_AT, str(world.now)),
        ]
        dice.choice(edits)()

    def fault(self) -> None:
        world, dice = self.world, self.random
        pods = [each for each in world.of("Pod") if "deletionTimestamp" not in each["metadata"]]

        def room() -> None:
            world.room = dice.choice([1, 3, 100])

        def rescales() -> None:
            world.refuses_rescales = not world.refuses_rescales

        def forget() -> None:
            if world.manifest():  # begun is found again in the coordinator's answer
                world.app["status"] = {}
                world.put(world.app)
                world.say("the status is wiped")

        def shrunk() -> None:
            if world.workers:
                world.workers["spec"]["replicas"] += 1
                world.workers["metadata"]["generation"] += 1
                world.put(world.workers)

        faults: list[Callable[[], None]] = [room, rescales, forget, shrunk]

        def lost() -> None:
            if claims:
                world._end(dice.choice(claims))
                world.say("user: deletes a claim")

        claims = world.of("PersistentVolumeClaim")
        faults.append(lost)
        if pods:
            faults.append(lambda: world._end(dice.choice(pods)))
        if world.processes:
            faults.append(lambda: world.restart(dice.choice(list(world.processes.values()))))
        dice.choice(faults)()

    def accept(self) -> None:
        """The user does what the condition says."""
        app = self.world.app
        for each in app.get("status", {}).get("conditions", ()):
            if each["type"] == "Degraded" and each["reason"] == "StateLost":
                said = re.search(f"{names.ACCEPT_LOSS}=([0-9]+)", each["message"])
                assert said
                if app["metadata"].get("annotations", {}).get(names.ACCEPT_LOSS) != said[1]:
                    self.world.annotate(names.ACCEPT_LOSS, said[1])

    def mend(self) -> None:
        """From here on nothing more goes wrong."""
        self.world.room, self.world.refuses_rescales = 100, False
        self.world.set_module("good in the end")
        self.world.edit(image="", suspend=False, replicas=self.random.choice([1, 3, 4]))
        self.world.say("-- no more faults")

    def wrong(self) -> str:
        """What is not yet as asked for."""
        world = self.world
        target = world.app["spec"]["replicas"]
        manifest = world.manifest()
        if manifest is None or sorted(manifest["members"]) != list(range(target)):
            return f"members: {manifest and manifest['members']}"
        pods = {each["metadata"]["name"] for each in world.of("Pod")}
        if pods != {names.pod(NAME, each) for each in range(target)}:
            return f"pods: {pods}"
        claims = {each["metadata"]["name"] for each in world.of("PersistentVolumeClaim")}
        if claims != {names.claim(NAME, each) for each in range(target)}:
            return f"claims: {claims}"
        copies = [each for each in world.of("ConfigMap") if each["metadata"]["name"] != "module"]
        if len(copies) != 1:
            return f"{len(copies)} copies of modules"
        if {process.module for process in world.processes.values()} != {"good in the end"}:
            return "modules"
        states = {kind: status for kind, status, _ in conditions(world.app)}
        wanted = {
            "Ready": "True",
            "Progressing": "False",
            "Rescaling": "False",
            "Degraded": "False",
        }
        if states != wanted:
            return f"conditions: {[*conditions(world.app)]}"
        (budget,) = world.of("PodDisruptionBudget")
        if budget["spec"]["minAvailable"] != target - 1:
            return f"budget: {budget['spec']}"
        return ""

    async def run(self) -> None:
        try:
            for _ in range(STEPS):
                await self.step(faults=True)
            self.mend()
            for _ in range(200):
                for _ in range(100):
                    await self.step(faults=False)
                if not self.wrong():
                    break
            assert not self.wrong(), self.wrong()
            writes = self.world.writes
            for _ in range(500):
                await self.step(faults=False)
            # At rest: nothing is written but counters, every half a minute.
            assert self.world.writes - writes <= 40, "it does not come to rest"
        finally:
            for each in self.operators:
                each.cancel()
            await asyncio.gather(*self.operators, return_exceptions=True)


async def inline(function: Callable[..., object], *args: object) -> object:
    """In place of a thread."""
    return function(*args)


def replay(seed: int) -> None:
    """Show all that happens in a seed: python -c 'from tests... import replay; replay(17)'."""
    asyncio.to_thread = inline  # type: ignore[assignment]
    run = Run(seed)
    try:
        asyncio.run(run.run())
    finally:
        print("\n".join(run.world.log))


@pytest.mark.parametrize("seed", SEEDS)
def test_it_comes_to_rest_and_never_lets_state_go(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rulings K8s 2, 3, 4, 14, 15, 17."""
    monkeypatch.setattr(asyncio, "to_thread", inline)
    run = Run(seed)
    try:
        asyncio.run(run.run())
    except BaseException:
        print("\n".join(run.world.log[-200:]))
        raise
