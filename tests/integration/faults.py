"""Ends a worker at a named point of the protocol: imported by the application in each worker.

FAULTS in the environment is a JSON list of faults. Each happens once: it leaves its marker, so that
the worker's successor goes on. A fault waits for the ones before it.

point: see POINTS. worker: whose process, any if there is none. nth: at which time; 1 is the first.
signal: what it sends itself there, SIGKILL if there is none; SIGSTOP has it hang.
"""

import importlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def _switching(donor: Any, place: int) -> bool:
    return bool(donor._switching)


def _is_switch(_: Any, manifest: Any) -> bool:
    return bool(manifest.epoch and manifest.switched == manifest.epoch)


#: By name: the function, whether before or after it, and for which arguments.
POINTS: dict[str, tuple[str, str, Callable[..., bool]]] = {
    "before the barrier": ("dataflow.engine:Engine.inject", "before", lambda *_: True),
    "after the barrier": ("dataflow.engine:Engine.inject", "after", lambda *_: True),
    "before the delta is written": ("state.delta:Delta.write", "before", lambda *_: True),
    "before the delta is synced": (
        "disk:RealDisk.sync",
        "before",
        lambda _, path: path.name.startswith("delta-"),
    ),
    "before the delta is reported": (
        "protocol.member:Member.handle",
        "before",
        lambda _, event: type(event).__name__ == "Durable",
    ),
    "before the manifest has its name": (
        "disk:RealDisk.link",
        "before",
        lambda _, path, name: "-0000000000000000" not in name.name,
    ),
    "before the manifest's name is durable": (
        "disk:RealDisk.link",
        "after",
        lambda _, path, name: "-0000000000000000" not in name.name,
    ),
    "before the commit is told": (
        "runtime.manifests:Manifests.add",
        "after",
        lambda _, manifest: manifest.epoch > 0,
    ),
    "before the publication": ("connectors.file_sink:_Place.publish", "before", lambda *_: True),
    "in the middle of the publication": (
        "disk:RealDisk.write_at",
        "half",
        lambda _, path, *more: path.suffix != ".pending",
    ),
    "before the part is synced": (
        "disk:RealDisk.sync",
        "before",
        lambda _, path: path.suffix == ".txt",
    ),
    "before the publication is reported": (
        "connectors.file_sink:_Place.publish",
        "after",
        lambda *_: True,
    ),
    "before the pending file is removed": (
        "connectors.file_sink:_Place.remove",
        "before",
        lambda *_: True,
    ),
    "before the state is rolled back": ("runtime.node:Node._go_back", "before", lambda *_: True),
    "after the state is rolled back": ("state.store:Store.recover", "after", lambda *_: True),
    "before it says that it is ready": (
        "protocol.member:Member.handle",
        "before",
        lambda _, event: type(event).__name__ == "Recovered",
    ),
    "before the recovery is told": (
        "runtime.manifests:Manifests.add",
        "after",
        lambda _, manifest: manifest.generation > 1 and manifest.epoch > 0,
    ),
    "before the base is written": ("state.base:RocksBase.write", "before", lambda *_: True),
    "before the merged deltas are removed": (
        "state.base:RocksBase.write",
        "after",
        lambda *_: True,
    ),
    "before the last barrier": (
        "dataflow.engine:Engine.inject",
        "before",
        lambda _, barrier: barrier.final,
    ),
    "after the last barrier": (
        "dataflow.engine:Engine.inject",
        "after",
        lambda _, barrier: barrier.final,
    ),
    "before it ends": ("runtime.worker:Worker.end", "before", lambda *_: True),
    # Of a rescale. Prepare:
    "before the rescale begins": (
        "protocol.coordinator:Coordinator.handle",
        "before",
        lambda _, event, *more: type(event).__name__ == "RescaleRequested",
    ),
    "before it gets ready": ("runtime.node:Node._get_ready", "before", lambda *_: True),
    "before it is enlisted": (
        "protocol.member:Member.handle",
        "before",
        lambda _, event: type(event).__name__ == "IsEnlisted",
    ),
    # Copy:
    "before it donates": ("runtime.node:Node._donate", "before", lambda *_: True),
    "in the middle of the copy": ("state.donor:Donor._scan_some", "after", lambda *_: True),
    "before it takes a parcel": ("state.staging:Staging.take", "before", lambda *_: True),
    # Catch up:
    "before the copy is reported": (
        "protocol.member:Member.handle",
        "before",
        lambda _, event: type(event).__name__ == "HasStaged",
    ),
    "before the last epoch before the switch": (
        "protocol.coordinator:Coordinator._maybe_catch_up",
        "after",
        lambda coordinator: coordinator.rescale and coordinator.rescale.last,
    ),
    # Switch:
    "before the switch is injected": (
        "dataflow.engine:Engine.inject",
        "before",
        lambda _, barrier: barrier.switch,
    ),
    "after the switch is injected": (
        "dataflow.engine:Engine.inject",
        "after",
        lambda _, barrier: barrier.switch,
    ),
    "before its last words to a receiver": ("state.donor:Donor.ended", "before", _switching),
    "before the switch is reported": (
        "runtime.node:Node._handle",
        "before",
        lambda node, event: (
            type(event).__name__ == "Durable"
            and node._attempt
            and node._attempt.switch == event.epoch
        ),
    ),
    "before the switch is durable": ("runtime.manifests:Manifests.add", "before", _is_switch),
    # Just after the commit:
    "before the switch is told": ("runtime.manifests:Manifests.add", "after", _is_switch),
    "before it has switched": ("runtime.node:Node._has_switched", "before", lambda *_: True),
    "after it has switched": ("runtime.node:Node._has_switched", "after", lambda *_: True),
    "before it is settled": (
        "state.settlement:Settlement.take_job",
        "before",
        lambda settlement: not settlement._more and not settlement._writing,
    ),
    "after it is settled": ("state.settlement:Settlement.written", "before", lambda s: s._last),
}


def _worker() -> int | None:
    if sys.argv[1:2] != ["worker"]:
        return None
    return int(sys.argv[sys.argv.index("--worker") + 1])


def _arm(fault: dict[str, Any], before: list[Path]) -> None:
    where, when, fits = POINTS[fault["point"]]
    module, _, name = where.partition(":")
    kind, _, method = name.partition(".")
    owner = getattr(importlib.import_module(f"wallaroo.{module}"), kind)
    original = getattr(owner, method)
    marker = Path(fault["marker"])
    left = int(fault["nth"])

    def due(*args: Any) -> bool:
        nonlocal left
        if marker.exists() or not all(path.exists() for path in before) or not fits(*args):
            return False
        left -= 1
        return left <= 0

    def end() -> None:
        marker.touch()
        os.kill(os.getpid(), signal.Signals[fault.get("signal", "SIGKILL")])
        time.sleep(0.1)  # until it has happened

    def wrapper(*args: Any, **named: Any) -> Any:
        now = due(*args)
        if now and when == "before":
            end()
        if now and when == "half":
            original(*args[:-1], args[-1][: len(args[-1]) // 2])
            end()
        result = original(*args, **named)
        if now:
            end()
        return result

    setattr(owner, method, wrapper)


def arm() -> None:
    """Arm the faults that are this worker's."""
    worker = _worker()
    before: list[Path] = []
    for fault in json.loads(os.environ.get("FAULTS", "[]")):
        if worker is not None and fault.get("worker", worker) == worker:
            _arm(fault, list(before))
        before.append(Path(fault["marker"]))


arm()
