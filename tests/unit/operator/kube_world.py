"""A cluster of its own for the operator: an API server, controllers, pods and their workers.

It runs the operator's real code from looking to acting. Everything that the operator asks waits
until the scheduler (`test_simulation`) lets it happen, so that anything may come in between. What
must never happen is checked where it would happen.
"""

import asyncio
import copy
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tests.unit.operator.apps import filled, resource

from wallaroo.partitioning import Assignment
from wallaroo.partitioning.rewrite import minimum, moved
from wallaroo.runtime.client import Unreachable
from wallaroo_operator import names
from wallaroo_operator.act import DecideAgain
from wallaroo_operator.api import Refused
from wallaroo_operator.observe import Settings
from wallaroo_operator.observed import timestamp
from wallaroo_operator.reconcile import GLANCE, Reconciler

NAME, NAMESPACE = "count", "team"
KEY = (NAMESPACE, NAME)
SETTINGS = Settings("stock:1", tls=False)
Json = dict[str, Any]
GOOD, BAD_MODULE, BAD_RUN = "good", "raises when it is loaded", "ends when it runs"


@dataclass
class Disk:
    """What is on the volume of a claim."""

    identity: str = ""
    manifest: Json | None = None


@dataclass
class Process:
    """A worker in a pod."""

    pod_uid: str
    ordinal: int
    claim: str
    module: str
    joined: bool = False
    released: bool = False


@dataclass
class Coordinator:
    """Worker 0's: what it forgets when its process ends."""

    process: Process
    phase: str = "forming"
    stop_requested: bool = False
    rescale: Json | None = None
    new: Assignment | None = None
    attempts: int = 0
    history: list[Json] = field(default_factory=list)


class World:
    """Everything that there is."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = 1_800_000_000.0
        self.version = 100
        self.objects: dict[tuple[str, str], Json] = {}
        self.disks: dict[str, Disk] = {}
        self.processes: dict[str, Process] = {}
        self.coordinator: Coordinator | None = None
        self.waiting: list[asyncio.Future[None]] = []
        self.writes = 0
        self.log: list[str] = []
        #: Faults that are on now.
        self.room = 100
        self.refuses_rescales = False
        self.accepted: set[str] = set()
        #: What workers say that they trust.
        self.trusted = ""
        self.began = 0
        #: Whether the last answer of the coordinator was that nothing is processed any more.
        self.answered_at_rest = False
        self.put(filled_app())
        self.set_module(GOOD)

    # Objects

    def next_version(self) -> str:
        self.version += 1
        return str(self.version)

    def put(self, found: Json) -> Json:
        found["metadata"]["resourceVersion"] = self.next_version()
        found["metadata"].setdefault("uid", f"{found['kind']}-{self.version}")
        found["metadata"].setdefault("creationTimestamp", timestamp(self.now))
        self.objects[found["kind"], found["metadata"]["name"]] = found
        return found

    def of(self, kind: str) -> list[Json]:
        return [each for (there, _), each in list(self.objects.items()) if there == kind]

    @property
    def app(self) -> Json:
        return self.objects["WallarooApp", NAME]

    @property
    def workers(self) -> Json | None:
        return self.objects.get(("StatefulSet", NAME))

    def edit(self, **spec: Any) -> None:
        """The user changes the application."""
        found = self.app
        found["spec"].update(spec)
        found["metadata"]["generation"] += 1
        self.put(found)
        self.say(f"user: {spec}")

    def annotate(self, name: str, value: str) -> None:
        self.app["metadata"].setdefault("annotations", {})[name] = value
        self.put(self.app)
        self.say(f"user: {name}={value}")

    def set_module(self, text: str) -> None:
        meta = {"name": "module", "namespace": NAMESPACE}
        self.put(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"app.py": text}}
        )
        self.say(f"user: the module is {text}")

    def say(self, what: str) -> None:
        self.log.append(f"{self.now - 1_800_000_000:.0f}: {what}")

    # Truth, for invariants

    def manifest(self) -> Json | None:
        """What rules: on the disk of worker 0's claim."""
        claim = self.objects.get(("PersistentVolumeClaim", names.claim(NAME, 0)))
        return self.disks[claim["metadata"]["uid"]].manifest if claim else None

    def taking_part(self) -> set[int]:
        manifest = self.manifest()
        if manifest is None:
            return set()
        found = set(manifest["members"]) | set(manifest["leaving"])
        c = self.coordinator
        if c and c.rescale:
            found |= set(range(max(c.rescale["from"], c.rescale["to"])))
        return found

    # The cluster's own controllers

    def controllers(self) -> list[Callable[[], None]]:
        """What may happen next, each by itself."""
        found: list[Callable[[], None]] = [self._statefulset_controller]
        found += [partial(self._kubelet, pod) for pod in self.of("Pod") if _ours(pod)]
        found += [
            partial(self._claim_protection, claim)
            for claim in self.of("PersistentVolumeClaim")
            if "deletionTimestamp" in claim["metadata"]
        ]
        if self.coordinator:
            found += [self._coordinate] * 3
        return found

    def _statefulset_controller(self) -> None:
        workers = self.workers
        if workers is None:
            return
        spec, meta = workers["spec"], workers["metadata"]
        revision = f"revision-{names.digest(spec['template'])[:8]}"
        status = {"observedGeneration": meta["generation"], "updateRevision": revision}
        if workers.get("status") != status:
            workers["status"] = status
            self.put(workers)
        for ordinal in range(spec["replicas"]):
            claim = self.objects.get(("PersistentVolumeClaim", names.claim(NAME, ordinal)))
            if claim is None:
                claim = self._make_claim(ordinal)
            if ("Pod", names.pod(NAME, ordinal)) not in self.objects and (
                "deletionTimestamp" not in claim["metadata"]
            ):
                self._make_pod(ordinal, spec["template"], revision)
        for pod in self.of("Pod"):
            number = names.ordinal(NAME, pod["metadata"]["name"])
            if number is not None and number >= spec["replicas"] and _ours(pod):
                self._end(pod)

    def _make_claim(self, ordinal: int) -> Json:
        meta = {
            "name": names.claim(NAME, ordinal),
            "namespace": NAMESPACE,
            "labels": {**names.labels(NAME), **names.selector(NAME)},
        }
        claim = self.put({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta})
        self.disks[claim["metadata"]["uid"]] = Disk()
        self.say(f"claim {ordinal} is made")
        return claim

    def _make_pod(self, ordinal: int, template: Json, revision: str) -> None:
        assert self.workers
        owner = {"controller": True, "kind": "StatefulSet", "name": NAME}
        meta = {
            "name": names.pod(NAME, ordinal),
            "namespace": NAMESPACE,
            "labels": {**template["metadata"]["labels"], names.REVISION: revision},
            "annotations": dict(template["metadata"]["annotations"]),
            "ownerReferences": [{**owner, "uid": self.workers["metadata"]["uid"]}],
        }
        self.put(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": meta,
                "spec": copy.deepcopy(template["spec"]),
                "status": {"phase": "Pending"},
            }
        )
        self.say(f"pod {ordinal} is made ({revision})")

    def _end(self, found: Json) -> None:
        if "deletionTimestamp" not in found["metadata"]:
            found["metadata"]["deletionTimestamp"] = timestamp(self.now + 60)
            self.put(found)

    def _claim_protection(self, claim: Json) -> None:
        ordinal = names.ordinal(NAME, claim["metadata"]["name"], "state-")
        pod = self.objects.get(("Pod", names.pod(NAME, ordinal or 0)))
        if pod and _ours(pod):
            return
        del self.objects["PersistentVolumeClaim", claim["metadata"]["name"]]
        del self.disks[claim["metadata"]["uid"]]
        self.say(f"claim {ordinal} is gone")

    def _module_of(self, pod: Json) -> str:
        for volume in pod["spec"]["volumes"]:
            if volume["name"] == "module":
                found = self.objects.get(("ConfigMap", volume["configMap"]["name"]))
                return str(found["data"]["app.py"]) if found else ""
        raise AssertionError("a pod without a module")

    def _kubelet(self, pod: Json) -> None:
        meta = pod["metadata"]
        if self.objects.get(("Pod", meta["name"])) is not pod:
            return
        ordinal = names.ordinal(NAME, meta["name"]) if names.APPLICATION in meta["labels"] else None
        if "deletionTimestamp" in meta:
            del self.objects["Pod", meta["name"]]
            self._kill(meta["uid"])
            self.say(f"pod {meta['name']} is gone")
            return
        status = pod["status"]
        image = pod["spec"]["containers"][0]["image"]
        module = self._module_of(pod)
        scheduled = sum("podIP" in each["status"] for each in self.of("Pod"))
        if "podIP" not in status and scheduled >= self.room and ordinal is not None:
            status["conditions"] = [
                {
                    "type": "PodScheduled",
                    "status": "False",
                    "reason": "Unschedulable",
                    "message": "no node has room",
                }
            ]
        elif image == "unpullable":
            self._waits(pod, "ImagePullBackOff", "no such image")
        elif not module:
            self._waits(pod, "ContainerCreating", "the ConfigMap is missing")
        elif ordinal is None:
            failed = module == BAD_MODULE
            ended = {
                "exitCode": 2 if failed else 0,
                "message": "it raises",
                "finishedAt": timestamp(self.now),
            }
            status["phase"] = "Failed" if failed else "Succeeded"
            status["containerStatuses"] = [{"state": {"terminated": ended}}]
        elif module in {BAD_MODULE, BAD_RUN}:
            self._waits(pod, "CrashLoopBackOff", "back-off")
            self._kill(meta["uid"])
        elif meta["uid"] not in self.processes:
            claim = self.objects["PersistentVolumeClaim", names.claim(NAME, ordinal)]
            status["phase"], status["podIP"] = "Running", f"10.0.0.{ordinal}"
            running = {"running": {"startedAt": timestamp(self.now)}}
            status["containerStatuses"] = [{"state": running}]
            status["conditions"] = [{"type": "PodScheduled", "status": "True"}]
            process = Process(meta["uid"], ordinal, claim["metadata"]["uid"], module)
            self.processes[meta["uid"]] = process
            if ordinal == 0:
                self.coordinator = Coordinator(process)
                found = self.disks[process.claim].manifest
                self.coordinator.history = list(found["history"]) if found else []
            self.say(f"worker {ordinal} runs")
        else:
            self._set_ready(pod, ordinal)
            return
        self.put(pod)

    def _waits(self, pod: Json, reason: str, message: str) -> None:
        waiting = {"waiting": {"reason": reason, "message": message}}
        last = {"terminated": {"exitCode": 1, "message": "boom"}}
        pod["status"]["containerStatuses"] = [{"state": waiting, "lastState": last}]
        pod["status"].pop("podIP", None)
        pod["status"]["conditions"] = [{"type": "PodScheduled", "status": "True"}]

    def _set_ready(self, pod: Json, ordinal: int) -> None:
        c = self.coordinator
        manifest = self.manifest()
        ready = bool(c and manifest and c.phase == "running" and ordinal in manifest["members"])
        conditions = [
            {"type": "PodScheduled", "status": "True"},
            {"type": "Ready", "status": str(ready)},
        ]
        if pod["status"]["conditions"] != conditions:
            pod["status"]["conditions"] = conditions
            self.put(pod)

    def _kill(self, uid: str) -> None:
        process = self.processes.pop(uid, None)
        if process and process.ordinal == 0:
            self.coordinator = None
        elif process and self.coordinator:
            self._lose(process)

    def restart(self, process: Process) -> None:
        """Its container ends and is started again."""
        self._kill(process.pod_uid)
        self.say(f"worker {process.ordinal} is killed")

    # The coordinator and its workers

    def _lose(self, process: Process) -> None:
        """A worker's connection is gone."""
        c, manifest = self.coordinator, self.manifest()
        assert c
        if c.rescale and process.ordinal in self.taking_part():
            self._give_up("a worker was lost")
        if manifest and process.ordinal in manifest["members"] and c.phase == "running":
            c.phase = "recovering"

    def present(self) -> dict[int, Process]:
        """Workers that are in touch with the coordinator and may be members."""
        c = self.coordinator
        assert c
        return {
            each.ordinal: each
            for each in self.processes.values()
            if each.module == c.process.module and not each.released
        }

    def lost(self) -> list[int]:
        manifest = self.manifest()
        assert manifest
        return [
            ordinal
            for ordinal, process in sorted(self.present().items())
            if ordinal in manifest["members"]
            and self.disks[process.claim].identity != manifest["members"][ordinal]
        ]

    def _record(self, outcome: str, why: str) -> Json:
        c = self.coordinator
        assert c
        assert c.rescale
        return {**c.rescale, "outcome": outcome, "why": why, "phase": ""}

    def _give_up(self, why: str) -> None:
        c = self.coordinator
        assert c
        c.history = [*c.history, self._record("abandoned", why)][-20:]
        c.rescale = c.new = None
        self.say(f"the rescale is given up: {why}")

    def _coordinate(self) -> None:
        c, manifest = self.coordinator, self.manifest()
        if c is None or manifest is None:
            return
        present = self.present()
        for each in present.values():
            if each.ordinal not in manifest["members"] and not each.joined:
                each.joined = True
                self.disks[each.claim] = Disk()  # a joiner's directory is emptied first
        whole = set(manifest["members"]) <= present.keys() and not self.lost()
        if c.phase in {"forming", "recovering"} and whole:
            c.phase = "running"
        elif c.phase == "running" and not whole:
            c.phase = "recovering"
        elif c.phase == "running":
            manifest["epoch"] += 1
            for each in list(manifest["leaving"]):
                manifest["leaving"].remove(each)
                if each in present:
                    present[each].released = True
                self.say(f"worker {each} is released")
            if c.stop_requested and not c.rescale:
                c.phase = "stopping"
            else:
                self._go_on(c, manifest)
        elif c.phase == "stopping":
            c.phase = "ended"

    def _go_on(self, c: Coordinator, manifest: Json) -> None:
        if c.rescale is None:
            return
        phases = ["prepare", "copy", "catch up", "switch"]
        at = phases.index(c.rescale["phase"])
        if at < 3:
            if self.refuses_rescales:
                self._give_up("nothing more was copied")
            else:
                c.rescale["phase"] = phases[at + 1]
            return
        assert c.new
        present = self.present()
        wanted = c.new.workers
        for ordinal in wanted:
            if ordinal not in manifest["members"]:
                process = present[ordinal]
                identity = f"directory {self.next_version()}"
                self.disks[process.claim].identity = identity
                manifest["members"][ordinal] = identity
        gone = [each for each in manifest["members"] if each not in wanted]
        for each in gone:
            del manifest["members"][each]
        manifest["leaving"] += gone
        manifest["assignment"] = c.new
        c.history = [*c.history, self._record("committed", "")][-20:]
        manifest["history"] = list(c.history)
        c.rescale = c.new = None
        self.say(f"members are {sorted(manifest['members'])}")


def _ours(pod: Json) -> bool:
    """Whether it is one of the application's, and not a stranger of such a name."""
    return names.INSTANCE in pod["metadata"].get("labels", {})


def filled_app() -> Json:
    found = resource(NAME, NAMESPACE)
    found["spec"] = filled(found["spec"])
    return found


class FakeApi:
    """The API server as one operator sees it. deleted: claims that it last saw being deleted."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.deleted: set[str] = set()

    async def _turn(self) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.world.waiting.append(future)
        await future

    async def get(self, api: str, kind: str, namespace: str, name: str) -> Json | None:
        await self._turn()
        return copy.deepcopy(self.world.objects.get((kind, name)))

    async def list(self, api: str, kind: str, namespace: str, selector: str) -> list[Json]:
        await self._turn()
        wanted = dict(each.split("=") for each in selector.split(","))
        found = [
            copy.deepcopy(each)
            for each in self.world.of(kind)
            if wanted.items() <= each["metadata"].get("labels", {}).items()
        ]
        if kind == "PersistentVolumeClaim":
            deleted = (each["metadata"] for each in found)
            self.deleted = {each["name"] for each in deleted if "deletionTimestamp" in each}
        return found

    def _not_while_deleting(self) -> None:
        assert "deletionTimestamp" not in self.world.app["metadata"], "it is being deleted"

    async def apply(self, manifest: Json, resource_version: str, subresource: str = "") -> Json:
        await self._turn()
        world = self.world
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        there = world.objects.get((kind, name))
        if (there["metadata"]["resourceVersion"] if there else "") != resource_version:
            raise Refused(409, f"{kind} {name} has changed")
        world.writes += 1
        if subresource:
            assert there
            there["status"] = copy.deepcopy(manifest["status"])
            return copy.deepcopy(world.put(there))
        made = copy.deepcopy(manifest)
        if there:
            made["metadata"] = {**there["metadata"], **made["metadata"]}
            made["status"] = there.get("status", {})
            if made.get("spec") != there.get("spec"):
                made["metadata"]["generation"] = there["metadata"].get("generation", 1) + 1
        else:
            made["metadata"]["generation"] = 1
        if kind == "Pod":
            made["status"] = {"phase": "Pending"}
        if kind == "StatefulSet":
            self._check_size(made["spec"]["replicas"])
        world.say(f"operator: applies {kind} {name} {made.get('spec', {}).get('replicas', '')}")
        return copy.deepcopy(world.put(made))

    def _check_size(self, replicas: int) -> None:
        """Ruling K8s 4: never smaller than members in force or in flight."""
        world = self.world
        if world.workers is None:
            return  # it only grows from there
        needed = max(world.taking_part(), default=-1) + 1
        there = world.workers["spec"]["replicas"]
        if replicas >= min(needed, there):
            return
        assert replicas == 0, f"{replicas} of {needed} workers"
        assert world.answered_at_rest, "stopped without a last checkpoint"

    async def create(self, manifest: Json) -> Json:
        await self._turn()
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        if (kind, name) in self.world.objects:
            raise Refused(409, f"{kind} {name} is there")
        self.world.writes += 1
        self.world.say(f"event: {manifest['reason']}: {manifest['message'][:150]}")
        return copy.deepcopy(self.world.put(copy.deepcopy(manifest)))

    async def delete(
        self, api: str, kind: str, namespace: str, name: str, uid: str, resource_version: str
    ) -> None:
        await self._turn()
        world = self.world
        there = world.objects.get((kind, name))
        if there is None:
            raise Refused(404, f"{kind} {name} is gone")
        if there["metadata"]["uid"] != uid or (
            resource_version and there["metadata"]["resourceVersion"] != resource_version
        ):
            raise Refused(409, f"{kind} {name} has changed")
        world.writes += 1
        world.say(f"operator: deletes {kind} {name}")
        if kind == "PersistentVolumeClaim":
            ordinal = names.ordinal(NAME, name, "state-")
            assert ordinal not in world.taking_part(), f"the claim of worker {ordinal}"
            assert resource_version, "ruling K8s 3 asks for both preconditions"
        if kind in {"Pod", "PersistentVolumeClaim"}:
            world._end(there)
        else:
            del world.objects[kind, name]


class Counting(FakeApi):
    """Answers at once, and counts what it is asked."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.requests = 0

    async def _turn(self) -> None:
        self.requests += 1


class FakeTalks:
    """Worker 0's answers, as `Client` gives them."""

    def __init__(self, world: World, api: FakeApi) -> None:
        self.world = world
        self.api = api

    def _there(self) -> Coordinator:
        c = self.world.coordinator
        if c is None:
            raise Unreachable("connection refused")
        return c

    def status(self) -> Json:
        c, world = self._there(), self.world
        manifest = world.manifest()
        present = world.present()
        world.answered_at_rest = manifest is None or c.phase == "ended"
        found: Json = {
            "phase": "vacant" if manifest is None else c.phase,
            "application_id": manifest["application"] if manifest else "",
            "vacant": manifest is None,
            "lost": world.lost() if manifest else [],
            "stop_requested": c.stop_requested,
            "epoch": manifest["epoch"] if manifest else 0,
            "committed_at": world.now if manifest else 0,
            "version": manifest["assignment"].version if manifest else 0,
            "assignment": [
                {"start": p.start, "end": p.end, "worker": p.worker}
                for p in (manifest["assignment"].pieces if manifest else ())
            ],
            "members": sorted(manifest["members"]) if manifest else [],
            "joiners": sorted(
                each
                for each, process in present.items()
                if manifest and each not in manifest["members"] and process.joined
            ),
            "leaving": list(manifest["leaving"]) if manifest else [],
            "rescale": c.rescale,
            "rescales": list(c.history),
            "error": None,
            "places": ["count"],
            "recoveries": 0,
            "keys": 10,
            "departed": {"read": 0, "dead_letters": 0},
        }
        members = found["members"]
        found["workers"] = [
            {
                "worker": each,
                "pod_uid": present[each].pod_uid if each in present else "",
                "present": each in present,
                "processing": c.phase == "running" and each in present and each in members,
                "ca": world.trusted,
                "keys": 1,
                "read": 1,
                "dead_letters": 0,
            }
            for each in sorted({*present, *members})
        ]
        return copy.deepcopy(found)

    def begin(self, workers: int, *, accept_loss: bool = False, epoch: int = 0) -> str:
        c, world = self._there(), self.world
        manifest = world.manifest()
        claim = c.process.claim
        world.say(f"operator: begin {workers} {accept_loss} {epoch}")
        if manifest is not None and not accept_loss:
            return "it has begun"
        if accept_loss:
            wanted = world.app["metadata"].get("annotations", {}).get(names.ACCEPT_LOSS)
            assert wanted == str(epoch), "nobody has accepted that"
        else:
            assert world.began == 0, "ruling K8s 2: an application starts from nothing once"
            assert world.app["status"]["begun"], "it is recorded before it is said"
        if manifest is None:
            world.began += 1
            manifest = {
                "application": world.app["metadata"]["uid"],
                "epoch": 1,
                "assignment": Assignment.first(workers),
                "members": {},
                "leaving": [],
                "history": [],
            }
            world.disks[claim].manifest = manifest
            for each in range(workers):
                manifest["members"][each] = ""
        for each, process in world.present().items():
            if each in manifest["members"]:
                identity = manifest["members"][each] or f"directory {world.next_version()}"
                manifest["members"][each] = world.disks[process.claim].identity = identity
        for each, identity in manifest["members"].items():
            if not identity:  # it comes, and is told who it is
                there = world.objects.get(("PersistentVolumeClaim", names.claim(NAME, each)))
                if there is None:
                    there = world._make_claim(each)
                made = f"directory {world.next_version()}"
                manifest["members"][each] = world.disks[there["metadata"]["uid"]].identity = made
        return ""

    def rescale(self, base: int, assignment: Assignment) -> str:
        c, world = self._there(), self.world
        manifest = world.manifest()
        assert manifest
        world.say(f"operator: rescale to {len(assignment.workers)} from version {base}")
        if assignment == manifest["assignment"]:
            if c.rescale and c.rescale["phase"] != "switch":
                world._give_up("it was called off")
            return ""
        version = manifest["assignment"].version
        if base != version or assignment.version != version + 1:
            return "it was rewritten from another version"
        if c.phase != "running" or c.stop_requested:
            return "it does not run"
        if c.rescale and c.rescale["phase"] == "switch":
            return "a rescale is about to commit"
        joiners = set(assignment.workers) - set(manifest["members"])
        if joiners - set(world.present()) or joiners & set(manifest["leaving"]):
            return "a worker is not there"
        for each in joiners:  # ruling K8s 3
            # One that is deleted after the look is seen by the next, which calls it off.
            assert names.claim(NAME, each) not in self.api.deleted, "a member on a deleted claim"
        if c.rescale:
            world._give_up("another number was asked for")
        c.attempts += 1
        old = manifest["assignment"]
        c.new = assignment
        c.rescale = {
            "attempt": f"{world.next_version()}-{c.attempts}",
            "from": len(old.workers),
            "to": len(assignment.workers),
            "version": assignment.version,
            "moved": moved(old, assignment) / 2**64,
            "minimum": float(minimum(len(old.workers), len(assignment.workers))),
            "entries": 1,
            "bytes": 1,
            "seconds": {"prepare": 0.1},
            "held": 0.001,
            "phase": "prepare",
        }
        return ""

    def stop(self) -> None:
        c = self._there()
        c.stop_requested = True
        if c.rescale and c.rescale["phase"] != "switch":
            self.world._give_up("a stop was asked for")
        self.world.say("operator: stop")


class FakeLinks:
    """Connections to coordinators, of the operator that looks by `api`."""

    def __init__(self, world: World, api: FakeApi) -> None:
        self.world = world
        self.api = api

    def at(self, uid: str, ip: str, held: Any) -> FakeTalks:
        return FakeTalks(self.world, self.api)

    def forget(self, uid: str) -> None:
        pass


async def settled(world: World, api: FakeApi, settings: Settings = SETTINGS) -> Reconciler:
    """An operator whose application has come to rest."""
    reconciler = Reconciler(api, FakeLinks(world, api), settings, lambda: world.now)
    quiet = 0
    while quiet < 5:
        for each in world.controllers():
            each()
        world.now += 1
        try:
            again = await reconciler.reconcile(KEY)
        except DecideAgain:
            again = 0.1
        quiet = quiet + 1 if again is not None and again >= GLANCE else 0
    return reconciler


def conditions(app: Json) -> Iterator[tuple[str, str, str]]:
    """Type, status and reason of each."""
    for each in app.get("status", {}).get("conditions", ()):
        yield each["type"], each["status"], each["reason"]
