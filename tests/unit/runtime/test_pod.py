"""How a pod's worker waits for its coordinator, and for a checkpoint before it ends."""

import queue
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from tests.unit.dataflow import pipelines

from wallaroo.dataflow.graph import build_graph
from wallaroo.protocol.messages import Checkpoint, Checkpointed, FromWorker
from wallaroo.runtime import worker as module
from wallaroo.runtime.application import Program
from wallaroo.runtime.directory import Directory
from wallaroo.runtime.metrics import Metrics
from wallaroo.runtime.options import Options
from wallaroo.runtime.pod import Pod, PodWorker


class Patience:
    """An event for which nobody waits in vain: the time just passes. waited: how long, in all."""

    def __init__(self) -> None:
        self.told = False
        self.waited: list[float] = []

    def set(self) -> None:
        self.told = True

    def clear(self) -> None:
        self.told = False

    def is_set(self) -> bool:
        return self.told

    def wait(self, seconds: float) -> bool:
        self.waited.append(seconds)
        return self.told


class Connection:
    """To the coordinator."""

    connected = True

    def leave(self) -> None:
        self.connected = False


class Node:
    def take(self, message: object) -> None: ...


class Loop:
    """Remembers for when it is asked to call."""

    def __init__(self) -> None:
        self.delays: list[float] = []

    def call_later(self, delay: float, function: object) -> None:
        self.delays.append(delay)


class Told(PodWorker):
    """A pod's worker that runs, of which is kept what it does."""

    def __init__(self, folder: Path) -> None:
        graph = build_graph(pipelines.application(pipelines.source()))
        program = Program(folder / "app.py", (), graph, "fingerprint")
        pod = Pod("app-1", "uid", "127.0.0.1", 1, "application", "127.0.0.1:1")
        options = Options(None, 1.0, None, None, 1.0)
        super().__init__(program, pod, options, Directory(folder), pod.network())
        self.patience = Patience()
        self.said: list[FromWorker] = []
        self.ended: queue.SimpleQueue[int] = queue.SimpleQueue()
        self.loop = Loop()
        self.connection = Connection()
        parts: dict[str, Any] = {
            "_free": self.patience,
            "_loop": self.loop,
            "_control": self.connection,
            "node": Node(),
            "_started": True,
            "_exit": self.ended.put,
        }
        vars(self).update(parts)

    def tell(self, message: FromWorker) -> None:
        self.said.append(message)

    def ends(self) -> int:
        """The exit code, once it has one."""
        return self.ended.get(timeout=30)


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Told:
    registry = CollectorRegistry()
    monkeypatch.setattr(module, "Metrics", partial(Metrics, registry=registry))
    return Told(tmp_path)


class TestTheEnd:
    """Ruling K8s 11."""

    def test_a_checkpoint_that_does_not_come_is_waited_for_20_s(self, worker: Told) -> None:
        worker.terminate()
        assert worker.ends() == 0
        assert worker.said == [Checkpoint()]
        assert worker.patience.waited == [20.0]

    def test_whoever_signals_again_asks_for_no_other(self, worker: Told) -> None:
        for _ in range(3):
            worker.terminate()
        assert worker.ends() == 0
        assert worker.said == [Checkpoint()]

    def test_one_that_is_committed_ends_the_wait(self, worker: Told) -> None:
        class Committed(Patience):
            def wait(self, seconds: float) -> bool:
                worker._heed(Checkpointed())
                return super().wait(seconds)

        patience = Committed()
        vars(worker)["_free"] = patience
        vars(worker.node)["processing"] = False
        worker.terminate()
        assert worker.ends() == 0
        assert patience.told

    def test_one_that_is_apart_ends_at_once(self, worker: Told) -> None:
        worker.connection.connected = False
        worker.terminate()
        assert worker.ends() == 0
        assert (worker.said, worker.patience.waited) == ([], [])

    def test_one_that_waits_for_its_predecessor_ends_at_once(self, worker: Told) -> None:
        worker._started = False
        worker.terminate()
        assert worker.ends() == 0
        assert (worker.said, worker.patience.waited) == ([], [])


def test_however_often_the_coordinator_is_not_reached_the_next_attempt_is_a_second_later(
    worker: Told,
) -> None:
    """Ruling K8s 9."""
    for _ in range(2000):
        lost: Any = Connection()
        worker._control = lost
        worker._coordinator_lost((lost, "connection refused"))
    assert worker.loop.delays[0] < 0.1
    assert max(worker.loop.delays) == worker.loop.delays[-1] == 1.0


def test_one_that_is_refused_asks_again_in_a_second(worker: Told) -> None:
    """Ruling K8s 9."""
    worker._is_refused("it runs another program")
    assert worker.loop.delays == [1.0]
