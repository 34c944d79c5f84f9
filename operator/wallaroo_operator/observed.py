"""What an application is like now, as plain values: what `decide` decides on.

`Pod`, `Claim` and `Workers` are what the API server says; `Coordinator` is what worker 0 says. An
application whose coordinator does not answer has none, and then nothing is known of its state.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from wallaroo.partitioning import Assignment, Piece
from wallaroo_operator import names
from wallaroo_operator.app import App, Json, Module


def timestamp(at: float) -> str:
    """Seconds since 1970 as the API server writes them.

    >>> timestamp(0)
    '1970-01-01T00:00:00Z'
    """
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def moment(text: str | None) -> float:
    """Seconds since 1970 of what the API server wrote; 0 if it wrote nothing."""
    return datetime.fromisoformat(text).timestamp() if text else 0.0


@dataclass(frozen=True)
class Pod:
    """A pod: a worker's, or one that proves a template (of no ordinal).

    gone_by: when it should have been gone, if it is being deleted; else 0.
    waiting, words: why its container does not run, in one word and in words.
    exit_code, last_words: of its container's last run that ended; -1 for none.
    """

    name: str
    uid: str
    resource_version: str = ""
    ordinal: int | None = None
    revision: str = ""
    inputs: str = ""
    owner: str = ""
    phase: str = "Pending"
    ready: bool = False
    gone_by: float = 0.0
    node: str = ""
    ip: str = ""
    unschedulable: str = ""
    waiting: str = ""
    words: str = ""
    exit_code: int = -1
    last_words: str = ""
    restarts: int = 0
    running_since: float = 0.0
    finished_at: float = 0.0

    @property
    def deleting(self) -> bool:
        return bool(self.gone_by)

    @classmethod
    def read(cls, found: Json, application: str) -> "Pod":
        """From what the API server says."""
        meta, status = found["metadata"], found.get("status", {})
        conditions = {each["type"]: each for each in status.get("conditions") or ()}
        states = status.get("containerStatuses") or [{}]
        state, last = states[0].get("state", {}), states[0].get("lastState", {})
        waiting = state.get("waiting", {})
        ended = state.get("terminated") or last.get("terminated") or {}
        scheduled = conditions.get("PodScheduled", {})
        # Beside this reason there are failures of the scheduler's own, which it tries again.
        unschedulable = scheduled.get("reason") == "Unschedulable"
        labels = meta.get("labels") or {}
        worker = names.APPLICATION in labels
        return cls(
            meta["name"],
            meta["uid"],
            meta.get("resourceVersion", ""),
            names.ordinal(application, meta["name"]) if worker else None,
            labels.get(names.REVISION, ""),
            (meta.get("annotations") or {}).get(names.INPUTS, ""),
            next((o["uid"] for o in meta.get("ownerReferences") or () if o.get("controller")), ""),
            status.get("phase", "Pending"),
            conditions.get("Ready", {}).get("status") == "True",
            moment(meta.get("deletionTimestamp")),
            found.get("spec", {}).get("nodeName", ""),
            status.get("podIP", ""),
            scheduled.get("message", "") if unschedulable else "",
            waiting.get("reason", ""),
            waiting.get("message", "") or status.get("message", ""),
            ended.get("exitCode", -1),
            ended.get("message", "").strip(),
            states[0].get("restartCount", 0),
            moment(state.get("running", {}).get("startedAt")),
            moment((state.get("terminated") or {}).get("finishedAt")),
        )


@dataclass(frozen=True)
class Claim:
    """A worker's volume claim."""

    name: str
    uid: str
    resource_version: str
    ordinal: int
    deleting: bool = False
    created: float = 0.0

    @classmethod
    def read(cls, found: Json, application: str) -> "Claim | None":
        """From what the API server says; None if it is no worker's."""
        meta = found["metadata"]
        number = names.ordinal(application, meta["name"], f"{names.STATE}-")
        if number is None:
            return None
        return cls(
            meta["name"],
            meta["uid"],
            meta["resourceVersion"],
            number,
            "deletionTimestamp" in meta,
            moment(meta.get("creationTimestamp")),
        )


@dataclass(frozen=True)
class Workers:
    """The StatefulSet.

    revision: of the template that new pods get; empty while its controller has not looked.
    """

    uid: str
    resource_version: str
    replicas: int
    inputs: str
    revision: str
    template: Json
    on_delete: str = "Retain"
    begun: str = ""

    @classmethod
    def read(cls, found: Json) -> "Workers":
        """From what the API server says."""
        meta, spec, status = found["metadata"], found["spec"], found.get("status", {})
        looked = status.get("observedGeneration") == meta.get("generation")
        kept = spec.get("persistentVolumeClaimRetentionPolicy") or {}
        return cls(
            meta["uid"],
            meta["resourceVersion"],
            spec["replicas"],
            (meta.get("annotations") or {}).get(names.INPUTS, ""),
            status.get("updateRevision", "") if looked else "",
            spec["template"],
            kept.get("whenDeleted", "Retain"),
            (meta.get("annotations") or {}).get(names.BEGUN, ""),
        )

    @property
    def tls(self) -> bool:
        """Whether workers of this template show certificates, and ask for them."""
        return any(each["name"] == "tls" for each in self.template["spec"].get("volumes") or ())

    @property
    def image(self) -> str:
        return str(self.template["spec"]["containers"][0]["image"])


@dataclass(frozen=True)
class Worker:
    """What the coordinator says of a worker."""

    number: int
    pod_uid: str = ""
    present: bool = False
    ca: str = ""
    read: int = 0
    dead_letters: int = 0


@dataclass(frozen=True)
class Coordinator:
    """What worker 0 has answered in this reconcile.

    rescale, history: records as the protocol has them; see `wallaroo.protocol.rescale`.
    keys: of all members. departed: what workers that have left did, all together.
    """

    phase: str
    application: str = ""
    vacant: bool = False
    lost: tuple[int, ...] = ()
    stop_requested: bool = False
    epoch: int = 0
    committed_at: float = 0.0
    assignment: Assignment | None = None
    members: frozenset[int] = frozenset()
    joiners: frozenset[int] = frozenset()
    leaving: frozenset[int] = frozenset()
    workers: Mapping[int, Worker] = field(default_factory=dict)
    rescale: Mapping[str, Any] | None = None
    history: tuple[Mapping[str, Any], ...] = ()
    failure: Mapping[str, Any] | None = None
    places: tuple[str, ...] = ()
    recoveries: int = 0
    keys: int = 0
    departed: Mapping[str, int] = field(default_factory=lambda: {"read": 0, "dead_letters": 0})

    @classmethod
    def read(cls, found: Mapping[str, Any]) -> "Coordinator":
        """From `Client.status`."""
        pieces = tuple(Piece(p["start"], p["end"], p["worker"]) for p in found["assignment"])
        workers = {
            each["worker"]: Worker(
                each["worker"],
                each["pod_uid"],
                each["present"],
                each["ca"],
                each["read"],
                each["dead_letters"],
            )
            for each in found["workers"]
        }
        return cls(
            found["phase"],
            found["application_id"],
            found["vacant"],
            tuple(found["lost"]),
            found["stop_requested"],
            found["epoch"],
            found["committed_at"],
            Assignment(found["version"], pieces) if pieces else None,
            frozenset(found["members"]),
            frozenset(found["joiners"]),
            frozenset(found["leaving"]),
            workers,
            found["rescale"],
            tuple(found["rescales"]),
            found["error"],
            tuple(found["places"]),
            found["recoveries"],
            found["keys"],
            found["departed"],
        )

    @property
    def switching(self) -> bool:
        """Whether a rescale is past the point up to which it can be called off."""
        return bool(self.rescale and self.rescale["phase"] == "switch")

    @property
    def taking_part(self) -> frozenset[int]:
        """Who must not go: members, those that still hand over, and all of a rescale under way."""
        rescale = self.rescale
        many = max(rescale["from"], rescale["to"]) if rescale else 0
        return self.members | self.leaving | frozenset(range(many))

    def processing(self, ordinal: int) -> bool:
        """Whether a worker is a member that processes.

        All that are there do while the application runs; what they report of it themselves comes
        later, and would have them pause after each rescale.
        """
        worker = self.workers.get(ordinal)
        there = ordinal in self.members and worker is not None and worker.present
        return there and self.phase == "running"


@dataclass(frozen=True)
class Observed:
    """All that is known of an application.

    stock, tls: of the operator's configuration: the image for modules from ConfigMaps, and whether
        new templates have certificates.
    conflicts: objects of its names that are not its own, in words.
    departing: objects of its names that go with a former application of its name.
    refused: what the API server said when it would not do what was decided last; else empty.
    objects: Services, budget and copies of modules, by kind and name.
    unreached: why the coordinator has not answered.
    """

    app: App
    now: float
    stock: str
    tls: bool = True
    created: float = 0.0
    module: Module | None = None
    workers: Workers | None = None
    pods: tuple[Pod, ...] = ()
    proofs: tuple[Pod, ...] = ()
    claims: tuple[Claim, ...] = ()
    coordinator: Coordinator | None = None
    unreached: str = ""
    conflicts: tuple[str, ...] = ()
    departing: tuple[str, ...] = ()
    refused: str = ""
    objects: Mapping[tuple[str, str], Json] = field(default_factory=dict)
