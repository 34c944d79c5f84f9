"""What must be left when an application is complete, after a last power cut: no less, no more."""

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from tests.simulation.sim_applications import Counts, Keyed, Window, seen
from tests.simulation.sim_base import SimBases
from tests.simulation.sim_disk import ProcessDisk
from tests.simulation.sim_scheduler import Violation

from wallaroo.partitioning import hash_key
from wallaroo.protocol.manifest import Manifest
from wallaroo.state.settlement import Tenure
from wallaroo.state.staging import Staging
from wallaroo.state.store import Store

if TYPE_CHECKING:
    from tests.simulation.sim_cluster import Cluster

Inputs = list[tuple[str, int]]


def check_outcome(cluster: "Cluster") -> None:
    """Raise `Violation` if output or state is not what it must be."""
    sample = cluster.scenario.sample
    if sample.bug.must_stop:
        raise Violation(f"nobody saw of {sample.bug.place} that {sample.bug.kind}")
    outputs: dict[str, Inputs] = {}
    for sink in range(sample.sinks):
        found = _check_output(cluster, sink)
        for name, inputs in found.items():
            outputs.setdefault(name, inputs)
    manifest = cluster.manifest
    states = {worker: _states(cluster, manifest, worker) for worker in manifest.members}
    for place, keyed in sample.places.items():
        level = place.removeprefix("count ")
        for key, expected in keyed.inputs.items():
            holders = [state for state in states.values() if key in state[place]]
            owner = manifest.assignment.owner(hash_key(key))
            if len(holders) != 1 or holders[0] is not states[owner]:
                raise Violation(f"{len(holders)} workers hold key {key!r} at {place}")
            name = f"{level}:{key.hex() if isinstance(key, bytes) else key}"
            _check_state(place, key, expected, holders[0][place][key], outputs.get(name))
    if any(state["keys"] is None for state in states.values()):
        return
    keys = sum(state["keys"] for state in states.values())
    wanted = sum(len(keyed.inputs) for keyed in sample.places.values())
    if keys != wanted:
        raise Violation(f"there are {keys} entries instead of {wanted}")


def _check_output(cluster: "Cluster", sink: int) -> dict[str, Inputs]:
    """By name of what a state computation gave: all its inputs in order."""
    sample, manifest = cluster.scenario.sample, cluster.manifest
    lines: dict[str, list[tuple[int, Window]]] = defaultdict(list)
    first = f"{sink}.txt" if cluster.scenario.workers == 1 else f"{sink}.part-0.txt"
    wrote = {*manifest.members, *manifest.leaving, *manifest.retired}
    names = {w: f"{sink}.part-{w}.txt" if w else first for w in {*wrote, *cluster.ever}}
    there = cluster.machine_of(0).durable_names(cluster.scenario.output)
    if more := {name for name in there if name.startswith(f"{sink}.")} - set(names.values()):
        raise Violation(f"worker 0 has left {more} of an earlier life")
    for worker in sorted(wrote):
        name = names[worker]
        data = cluster.machine_of(worker).durable(cluster.scenario.output / name)
        if data is None:
            raise Violation(f"the output {name} is gone")
        here: dict[str, int] = {}
        for line in data.decode().splitlines():
            try:
                about, number, window = line.split(" ")
                parsed = tuple(
                    (origin, int(n)) for origin, n in (e.split("=") for e in window.split(",") if e)
                )
                found = int(number), parsed
            except ValueError:
                raise Violation(f"{name} has the line {line!r}") from None
            if found[0] <= here.get(about, 0):
                raise Violation(f"{about} gave {found[0]} after {here[about]} in {name}")
            here[about] = found[0]
            lines[about].append(found)
    return _check_lines(sample.outputs, sample.places, lines)


def _check_lines(
    expected: Counts, places: dict[str, Keyed], lines: dict[str, list[tuple[int, Window]]]
) -> dict[str, Inputs]:
    if set(lines) != set(expected):
        raise Violation(f"there is output of {sorted(lines)} instead of {sorted(expected)}")
    inputs: dict[str, Inputs] = {}
    for name, found in lines.items():
        found.sort()  # a key that has moved has given some of it here and some there
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
    bases = SimBases(cluster.contents[worker], disk)
    base = bases.open(folder / "base")
    store = Store(disk, folder / "deltas", cluster.scenario.codec, base, lambda: 0.0, None)
    part, assignment = manifest.parts[worker], manifest.assignment
    owned = tuple((piece.start, piece.end) for piece in assignment.pieces_of(worker))
    tenure = Tenure(assignment.version, owned, manifest.switched, part.joined)
    mark, staging = part.staging, None
    if mark and not store.has_settled(tenure.version):
        staging = Staging(mark, bases.open(folder / f"staging-{mark.id}"))
    store.recover(manifest.epoch, part.deltas, tenure, staging)
    places = cluster.scenario.sample.places
    lives = {
        place: store.place(manifest.places[place], place, keyed.make).live
        for place, keyed in places.items()
    }
    for name, number in manifest.places.items():
        if name not in places:
            store.place(number, name, dict, lambda _: 0)
    if cluster.scheduler.chance(0.5):
        for _ in range(1000):
            while store.work(0.0):
                pass
            if job := store.take_job():
                store.job_done(job())
        if not store.settled:
            raise Violation(f"worker {worker} does not settle")
    found: dict[str, Any] = {"keys": store.keys if store.settled else None}
    for place, keyed in places.items():
        live = lives[place]
        entries = {
            key: live[key]
            for key in keyed.inputs
            if manifest.assignment.owner(hash_key(key)) == worker
        }
        found[place] = {key: state for key, state in entries.items() if _used(state)}
    return found


def _used(state: Any) -> bool:
    """Whether it was stored, and not made just now."""
    return bool(state) if isinstance(state, dict) else seen(state)[0] > 0
