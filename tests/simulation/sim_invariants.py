"""What must hold at every step, seen from outside."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from tests.simulation.sim_base import Content
from tests.simulation.sim_disk import MachineDisk
from tests.simulation.sim_scheduler import Violation
from xxhash import xxh3_64_intdigest

from wallaroo.protocol.coordinator import BACK_OFF, LONGEST_BACK_OFF, Phase
from wallaroo.protocol.manifest import DeltaMark, Manifest
from wallaroo.protocol.messages import (
    Commit,
    Finish,
    Halt,
    Inject,
    Prepared,
    Recover,
    Resume,
    ToWorker,
)
from wallaroo.runtime.node import sink_folder

if TYPE_CHECKING:
    from tests.simulation.sim_cluster import Cluster
    from tests.simulation.sim_process import Process
    from tests.simulation.sim_service import Service


class Invariants:
    """Raise `Violation` where one does not hold."""

    def __init__(self, cluster: "Cluster") -> None:
        self._cluster = cluster
        self._generation = 0
        self._formed: tuple[Service, int] | None = None
        #: The last epoch that somebody was told is committed.
        self._committed = 0
        self._in_flight = 0
        self._injected: tuple[Service, int] | None = None
        self._ready: dict[int, set[int]] = {}
        #: The last fault that a coordinator saw: in which call, when, at which committed epoch, and
        #: how many there have been at that.
        self._fault: tuple[Service, int, float, int, int] | None = None
        #: By output file: what has been written there, all of it committed.
        self._outputs: dict[Path, bytes] = {}
        self._manifest: tuple[str, Manifest] | None = None

    # The coordinator

    def starts(self, manifest: Manifest) -> None:
        """A coordinator starts from a manifest."""
        if manifest.epoch < self._committed or manifest.generation < self._generation:
            raise Violation(
                f"a coordinator starts at {manifest.generation}, {manifest.epoch}, after "
                f"{self._generation}, {self._committed}"
            )

    def told(self, service: "Service", call: int, worker: int, message: ToWorker) -> None:
        """A coordinator says something, in its `call`th call."""
        match message:
            case Halt():
                self._halts(service, call)
            case Recover():
                self._recovers(service, call, worker, message)
            case Resume(generation):
                durable = self.durable_manifest()
                members = set(durable.members) if durable else set()
                lacking = members - self._ready.get(generation, set())
                if lacking:
                    raise Violation(f"{generation} resumes before {lacking} are ready")
            case Inject(generation, epoch):
                self._injects(service, call, generation, epoch)
            case Commit(_, epoch):
                self._commits(epoch)
            case Finish():
                durable = self.durable_manifest()
                if durable and worker not in durable.members:
                    return  # it has left
                ends = service.machine.stop_requested or service.machine.phase is Phase.FAILED
                if not (ends or (durable and durable.complete)):
                    raise Violation("the application ends before all that it reads has")

    def _halts(self, service: "Service", call: int) -> None:
        durable = self.durable_manifest()
        epoch, count = durable.epoch if durable else 0, 1
        if self._fault and self._fault[0] is service:
            if self._fault[1] == call:
                return
            if self._fault[3] == epoch:
                count += self._fault[4]
        self._fault = service, call, self._cluster.scheduler.now, epoch, count

    def _begins(self, service: "Service", epoch: int) -> None:
        """A generation begins at an epoch: not at once where faults come again and again."""
        if self._fault is None or self._fault[0] is not service or self._fault[3] != epoch:
            return
        _, _, since, _, count = self._fault
        now = self._cluster.scheduler.now
        if count > 1 and now < since + min(BACK_OFF * 2 ** (count - 2), LONGEST_BACK_OFF):
            raise Violation(f"{count} faults without a commit, the last {now - since} s ago")

    def _recovers(self, service: "Service", call: int, worker: int, message: Recover) -> None:
        generation = message.generation
        durable = self.durable_manifest()
        if durable and worker in durable.leaving and generation == self._generation:
            pass  # it comes back when all others are there, and publishes what it has left
        elif self._formed != (service, call):
            if generation <= self._generation:
                raise Violation(f"generation {generation} begins after {self._generation}")
            self._formed = service, call
            self._generation = generation
            self._in_flight = 0
            self._begins(service, message.epoch)
        if durable is None or durable.generation < generation:
            raise Violation(f"generation {generation} is used before it is durable")
        if message.epoch != durable.epoch or message.epoch < self._committed:
            raise Violation(f"recovery to {message.epoch}, when {durable.epoch} is committed")

    def _injects(self, service: "Service", call: int, generation: int, epoch: int) -> None:
        if self._injected == (service, call):
            return
        self._injected = service, call
        if self._in_flight:
            raise Violation(f"epoch {epoch} begins while {self._in_flight} is in flight")
        durable = self.durable_manifest()
        if durable is None or (durable.generation, durable.epoch) != (generation, epoch - 1):
            raise Violation(
                f"epoch {epoch} of {generation} begins after {durable and durable.epoch}"
            )
        self._in_flight = epoch

    def _commits(self, epoch: int) -> None:
        durable = self.durable_manifest()
        if durable is None or durable.epoch != epoch:
            raise Violation(f"epoch {epoch} is announced before it is durable")
        if epoch < self._committed:
            raise Violation(f"epoch {epoch} is committed after {self._committed}")
        self._committed = epoch
        self._in_flight = 0

    def durable_manifest(self) -> Manifest | None:
        """The manifest that would rule after a power cut now."""
        folder = self._cluster.folder(0) / "manifests"
        disk = self._cluster.machine_of(0)
        names = [name for name in disk.durable_names(folder) if name.endswith(".json")]
        names = [name for name in names if not name.startswith(".")]
        if not names:
            return None
        if self._manifest is None or self._manifest[0] != names[-1]:
            data = disk.durable(folder / names[-1])
            assert data is not None
            text = data.decode().partition("\n")[2]
            if not text:
                raise Violation(f"the manifest {names[-1]} has its name before it is durable")
            self._manifest = names[-1], Manifest.from_json(text)
        return self._manifest[1]

    # Workers

    def ready(self, worker: int, generation: int) -> None:
        """A worker holds what is committed."""
        self._ready.setdefault(generation, set()).add(worker)

    def prepared(self, process: "Process", message: Prepared) -> None:
        """A worker says that all it did in an epoch is durable: look whether it is."""
        disk, folder, part = process.disk.machine, process.folder, message.part
        identity = json.loads(disk.durable(folder / "identity.json") or b"{}")
        if identity.get("id") != part.directory or not identity.get("admitted"):
            raise Violation(f"{process} is not durably the one that it says it is")
        contents = self._cluster.contents[process.worker]
        stamp = contents["base"].stamp
        base = max(stamp.epoch, part.joined - 1)
        if part.staging and stamp.version <= 1 and not self._staged(contents, part.staging.id):
            raise Violation(f"{process} prepares {message.epoch} before its staging is durable")
        epochs = [mark.epoch for mark in part.deltas if mark.epoch > base]
        if epochs != list(range(base + 1, message.epoch + 1)):
            raise Violation(f"{process} has deltas {epochs} after {base} for {message.epoch}")
        for mark in part.deltas:
            if mark.epoch > base:
                self._durable_delta(process, mark)
        for named in part.sinks:
            sink = (named or {})["mark"]
            path = Path(sink["path"])
            published = disk.durable(path)
            if published is None or len(published) < sink["start"]:
                raise Violation(f"{process} prepares {message.epoch} before {path} is published")
            if sink["pending"] is None:
                continue
            pending = disk.durable(folder / sink_folder((named or {})["sink"]) / sink["pending"])
            if pending is None or len(pending) < sink["length"]:
                raise Violation(f"{process} prepares {message.epoch} before its output is durable")

    def _staged(self, contents: dict[str, Content], name: str) -> bool:
        return contents.get(f"staging-{name}", Content()).stamp.version > 0

    def _durable_delta(self, process: "Process", mark: DeltaMark) -> None:
        data = process.disk.machine.durable(process.folder / "deltas" / mark.name)
        if data is None or len(data) != mark.size or xxh3_64_intdigest(data[:-8]) != mark.checksum:
            raise Violation(f"{process} says that the delta of {mark.epoch} is durable: it is not")

    # Output

    def wrote(self, disk: MachineDisk, path: Path, offset: int, length: int) -> None:
        """`length` bytes of an output file have been written."""
        folder = disk.folder(str(path.parent))
        file = folder.names.get(path.name) if folder else None
        data: bytes = getattr(file, "data", b"")
        known = self._outputs.get(path, b"")
        manifest = self.durable_manifest()
        most = 0
        known_sinks = []
        if manifest:
            parts = [*manifest.parts.values(), *manifest.leaving.values()]
            known_sinks = [*(part.sinks for part in parts), *manifest.retired.values()]
        for sinks in known_sinks:
            for mark in (each["mark"] for each in sinks if each):
                if mark["path"] == str(path):
                    most = max(most, mark["start"] + mark["length"])
        if len(data) > most:
            raise Violation(f"{path} has {len(data)} bytes when {most} are committed")
        end = min(offset + length, len(known))
        if data[offset:end] != known[offset:end]:
            raise Violation(f"{path} has changed where it was committed")
        if offset <= len(known):
            written = data[offset : offset + length]
            self._outputs[path] = known[:offset] + written + known[offset + length :]
