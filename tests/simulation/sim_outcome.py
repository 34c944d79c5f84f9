"""What must be left when an application is complete, after a last power cut: no less, no more."""

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from tests.simulation.sim_applications import Counts, Keyed, Window, seen
from tests.simulation.sim_base import SimBase
from tests.simulation.sim_disk import ProcessDisk
from tests.simulation.sim_scheduler import Violation

from wallaroo.partitioning import hash_key
from wallaroo.protocol.manifest import Manifest
from wallaroo.state.store import Store

if TYPE_CHECKING:
    from tests.simulation.sim_cluster import Cluster

Inputs = list[tuple[str, int]]


def check_outcome(cluster: "Cluster") -> None:
    """Raise `Violation` if output or state is not what it must be."""
    sample = cluster.scenario.sample
    outputs: dict[str, Inputs] = {}
    for sink in range(sample.sinks):
        found = _check_output(cluster, sink)
        for name, inputs in found.items():
            outputs.setdefault(name, inputs)
    manifest = cluster.manifest
    states = [_states(cluster, manifest, worker) for worker in range(cluster.scenario.workers)]
    for place, keyed in sample.places.items():
        level = place.removeprefix("count ")
        for key, expected in keyed.inputs.items():
            holders = [state for state in states if key in state[place]]
            owner = manifest.assignment.owner(hash_key(key))
            if len(holders) != 1 or holders[0] is not states[owner]:
                raise Violation(f"{len(holders)} workers hold key {key!r} at {place}")
            name = f"{level}:{key.hex() if isinstance(key, bytes) else key}"
            _check_state(place, key, expected, holders[0][place][key], outputs.get(name))
    keys = sum(state["keys"] for state in states)
    wanted = sum(len(keyed.inputs) for keyed in sample.places.values())
    if keys != wanted:
        raise Violation(f"there are {keys} entries instead of {wanted}")


def _check_output(cluster: "Cluster", sink: int) -> dict[str, Inputs]:
    """By name of what a state computation gave: all its inputs in order."""
    sample, workers = cluster.scenario.sample, cluster.scenario.workers
    lines: dict[str, list[tuple[int, Window]]] = defaultdict(list)
    names = [f"{sink}.txt" if workers == 1 else f"{sink}.part-{w}.txt" for w in range(workers)]
    there = cluster.machine_of(0).durable_names(cluster.scenario.output)
    if more := {name for name in there if name.startswith(f"{sink}.")} - set(names):
        raise Violation(f"worker 0 has left {more} of an earlier life")
    for worker, name in enumerate(names):
        data = cluster.machine_of(worker).durable(cluster.scenario.output / name)
        if data is None:
            raise Violation(f"the output {name} is gone")
        here = set()
        for line in data.decode().splitlines():
            try:
                about, number, window = line.split(" ")
                parsed = tuple(
                    (origin, int(n)) for origin, n in (e.split("=") for e in window.split(",") if e)
                )
                found = int(number), parsed
            except ValueError:
                raise Violation(f"{name} has the line {line!r}") from None
            if about not in here and about in lines:
                raise Violation(f"{about} is in two outputs of {sink}")
            here.add(about)
            lines[about].append(found)
    return _check_lines(sample.outputs, sample.places, lines)


def _check_lines(
    expected: Counts, places: dict[str, Keyed], lines: dict[str, list[tuple[int, Window]]]
) -> dict[str, Inputs]:
    if set(lines) != set(expected):
        raise Violation(f"there is output of {sorted(lines)} instead of {sorted(expected)}")
    inputs: dict[str, Inputs] = {}
    for name, found in lines.items():
        numbers = [number for number, _ in found]
        if numbers != list(range(1, expected[name] + 1)):
            raise Violation(f"{name} gave {numbers} instead of 1 to {expected[name]}")
        if not found[0][1]:
            continue
        last = inputs[name] = [window[-1] for _, window in found]
        for number, window in found:
            if window != tuple(last[max(0, number - 4) : number]):
                raise Violation(f"{name} has at {number} the window {window} of {last}")
        _check_inputs(name, last)
    return inputs


def _check_inputs(name: str, inputs: Inputs) -> None:
    """Every origin's events come in order, none twice, none missing."""
    counts: dict[str, int] = defaultdict(int)
    for origin, number in inputs:
        counts[origin] += 1
        if number != counts[origin]:
            raise Violation(f"{name} got {origin} {number} after {counts[origin] - 1}: {inputs}")


def _check_state(
    place: str, key: str | bytes, expected: Counts, state: Any, inputs: Inputs | None
) -> None:
    count, window = seen(state)
    if count != sum(expected.values()):
        raise Violation(f"{place} has counted {count} of {key!r}, not {expected}")
    if inputs is not None:
        counts: dict[str, int] = {}
        for origin, number in inputs:
            counts[origin] = number
        if counts != expected or tuple(inputs[-4:]) != window:
            raise Violation(f"{place} has for {key!r} {window} after {inputs}, not {expected}")
    for origin, number in window:
        left = [n for o, n in window if o == origin]
        if left != list(range(expected[origin] - len(left) + 1, expected[origin] + 1)):
            raise Violation(f"{place} has for {key!r} the window {window} of {expected}: {number}")


class _Reader:
    """Who looks at a disk when all is over."""

    def __init__(self, cluster: "Cluster") -> None:
        self.scheduler = cluster.scheduler

    def operate(self, what: str) -> bool:
        return True

    def wrote(self, path: object, offset: int, length: int) -> None:
        pass


def _states(cluster: "Cluster", manifest: Manifest, worker: int) -> dict[str, Any]:
    """The state on a worker's disk, by place and key; and how many keys it says there are."""
    disk = ProcessDisk(cluster.machine_of(worker), _Reader(cluster))
    folder = cluster.folder(worker)
    base = SimBase(folder / "base", cluster.bases[worker], disk)
    store = Store(disk, folder / "deltas", cluster.scenario.codec, base, lambda: 0.0, None)
    store.recover(manifest.epoch, manifest.parts[worker].deltas)
    found: dict[str, Any] = {"keys": store.keys}
    for place, keyed in cluster.scenario.sample.places.items():
        live = store.place(manifest.places[place], place, keyed.make).live
        entries = {key: live[key] for key in keyed.inputs}
        found[place] = {key: state for key, state in entries.items() if _used(state)}
    return found


def _used(state: Any) -> bool:
    """Whether it was stored, and not made just now."""
    return bool(state) if isinstance(state, dict) else seen(state)[0] > 0
