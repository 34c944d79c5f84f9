"""A file sink loses and doubles nothing, wherever it crashes (rulings 28 and 29)."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.unit.connectors.forgetful import Crashed, ForgetfulDisk
from tests.unit.connectors.services import DirectServices

import wallaroo
from wallaroo.api.connectors import SinkWriter
from wallaroo.connectors import file_sink
from wallaroo.disk import write_durably

PART = Path("/nowhere at all/counts.txt")
FOLDER = Path("/nowhere at all/state/sink")
EPOCHS = 5


class World:
    """What outlives a crash: the disk, and what the coordinator has committed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.disk = ForgetfulDisk(seed)
        write_durably(self.disk, PART, [b"of an earlier run"])
        self.batches: list[list[list[bytes | str]]] = [
            [[f"<{epoch}.{batch}>", b"+"] for batch in range(self.random.choice((0, 1, 2, 4)))]
            for epoch in range(EPOCHS)
        ]
        self.mark: dict[str, Any] | None = None
        self.committed = 0
        #: What threads of writers closed before a rollback may still do, at any time.
        self.stale: list[Callable[[], None]] = []

    def expected(self, epochs: int) -> bytes:
        """The output of the first epochs."""
        parts = (part for epoch in self.batches[:epochs] for batch in epoch for part in batch)
        return b"".join(part.encode() if isinstance(part, str) else part for part in parts)

    @property
    def seen(self) -> bytes:
        return self.disk.contents(PART) or b""

    def check(self) -> None:
        """Nothing that is not committed stands in the part."""
        assert self.expected(self.committed).startswith(self.seen)

    def live(self) -> None:
        """A worker's life, or a generation of it: until all is published, or a rollback."""
        services = DirectServices(wait=True, disk=self.disk, folder=FOLDER)
        writer = wallaroo.FileSinkConfig(PART).open(services, self.mark)
        assert self.seen == self.expected(self.committed)
        Life(self, writer, services).run()


class Life:
    def __init__(self, world: World, writer: SinkWriter, services: DirectServices) -> None:
        self.world = world
        self.writer = writer
        self.services = services
        self.epoch = world.committed
        self.batches = [*world.batches[self.epoch]] if self.epoch < EPOCHS else []
        #: Of the epoch before: marks that came, and what is due.
        self.marks: list[Any] = []
        self.steps: list[str] = []

    def run(self) -> None:
        pick = self.world.random
        while self.epoch < EPOCHS or self.steps:
            self.world.check()
            if pick.random() < 0.02:
                self.writer.close()
                self.world.stale += self.services.submitted
                return
            if self.world.stale and pick.random() < 0.2:
                self.world.stale.pop(pick.randrange(len(self.world.stale)))()
            if self.services.submitted and pick.random() < 0.6:
                self.services.submitted.pop(pick.randrange(len(self.services.submitted)))()
            elif self.batches and pick.random() < 0.5:
                self.writer.write(self.batches.pop(0))
            else:
                self.step()
        self.finish()
        assert self.world.disk.names(FOLDER) == []
        assert self.world.seen == self.world.expected(EPOCHS)

    def finish(self) -> None:
        """Let the threads come to their end."""
        while self.services.submitted:
            self.services.submitted.pop(0)()
            self.world.check()
        assert self.services.failures == []

    def step(self) -> None:
        """What the coordinator does next, if it is its turn."""
        world = self.world
        match self.steps[:1]:
            case [] if not self.batches and self.epoch < EPOCHS:
                self.epoch += 1
                self.batches = [*world.batches[self.epoch]] if self.epoch < EPOCHS else []
                self.steps = ["commit", "tell", "wait"]
                self.writer.checkpoint(self.epoch, self.marks.append)
            case ["commit"] if self.marks:
                self.steps.pop(0)
                # A rollback may come right after, and finds it committed.
                world.mark, world.committed = self.marks.pop(), self.epoch
            case ["tell"]:
                self.steps.pop(0)
                for _ in range(world.random.choice((1, 1, 2))):
                    self.writer.commit(world.committed, self.steps.clear)
            case _:
                pass


def run(seed: int, crash_at: int) -> int:
    """Run with a crash at an operation, and perhaps more; how many operations there were."""
    world = World(seed)
    world.disk.crash_at = crash_at
    crashes = 0
    while True:
        try:
            world.live()
        except Crashed:
            world.disk.crash()
            world.stale.clear()
            crashes += 1
            if crashes < 3 and world.random.random() < 0.6:
                world.disk.crash_at = world.disk.operations + world.random.randint(1, 8)
            continue
        if world.committed == EPOCHS and world.disk.names(FOLDER) == []:
            break
    assert world.seen == world.expected(EPOCHS)
    return world.disk.operations


@pytest.mark.parametrize("seed", range(60))
def test_a_crash_at_any_operation_loses_and_doubles_nothing(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_sink, "_CHUNK", 5)
    monkeypatch.setattr(file_sink, "_ROOM", 20)
    for crash_at in range(1, run(seed, -1) + 1):
        run(seed, crash_at)
