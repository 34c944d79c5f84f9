"""What is to be done next about an application, decided from what it is like now and nothing else.

One thing at a time, in this order: what can't run is mended, a rescale that can't be called off
any more is finished and what it has released is cleared, then suspension, rollout, rescale. Each
decision is made anew from what the API server and the coordinator answer, so whoever made the last
one may have died at any line.

What keeps state safe stands in three places: `_floor` (the StatefulSet is never smaller than what
the coordinator has just answered), `_clear` (claims go only when nobody is left who could use them)
and `_vacant` (nothing starts from nothing twice).
"""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from wallaroo.partitioning.rewrite import rewrite
from wallaroo_operator import conditions, diagnosis, manifests, names
from wallaroo_operator.actions import Action, Apply, Begin, Delete, Rescale, Stop
from wallaroo_operator.app import Json
from wallaroo_operator.conditions import Condition, Event
from wallaroo_operator.diagnosis import Problem, problem
from wallaroo_operator.observed import Claim, Coordinator, Observed, Pod, Workers, moment, timestamp

#: Seconds before a rescale that was abandoned is tried again, doubled each time up to the last.
AGAIN, LONGEST = 10.0, 300.0
#: Seconds in which a last checkpoint should be committed.
STOPPING_TIME = 60.0
#: Seconds in which a worker that runs should have got in touch with the coordinator.
JOINING_TIME = 300.0
#: Seconds after which a template that could not be proven for no fault of its own is tried again.
PROOF_TIME = 60.0
#: Seconds between two looks: while something is being done; while something is waited for; else.
SOON, WAITING, IDLE = 1.0, 5.0, 300.0
#: At most, for what somebody has to do and no watch tells of.
UNTOLD = 60.0


@dataclass(frozen=True)
class Decision:
    """What is to be done: events told, status written, then the actions in order.

    status: as it should be; None to leave it.
    again: seconds after which to look again, whatever is heard meanwhile.
    """

    actions: tuple[Action, ...] = ()
    status: Json | None = None
    events: tuple[Event, ...] = ()
    again: float = IDLE


def decide(observed: Observed) -> Decision:
    """What is next."""
    if observed.app.deleting:
        return Decision()  # its objects go with it; a write would be in the way
    return _Case(observed).decide()


def covers(existing: Any, wanted: Any) -> bool:
    """Whether all that is wanted is there already; the API server adds more."""
    if isinstance(wanted, dict):
        return isinstance(existing, dict) and all(
            key in existing and covers(existing[key], each) for key, each in wanted.items()
        )
    if isinstance(wanted, list):
        return (
            isinstance(existing, list)
            and len(existing) == len(wanted)
            and all(map(covers, existing, wanted))
        )
    return bool(existing == wanted)


class _Case:
    """One application, now."""

    def __init__(self, observed: Observed) -> None:
        self._o = observed
        self._app = observed.app
        self._c: Coordinator | None = observed.coordinator
        self._target = observed.app.target
        self._actions: list[Action] = []
        self._events: list[Event] = []
        self._again = IDLE
        #: What of the status is remembered.
        self._kept: Json = {
            key: self._app.status[key]
            for key in ("begun", "beginning", "anew", "retry", "settled", "stopping")
            if key in self._app.status
        }
        if observed.workers and observed.workers.begun:
            self._kept.setdefault("begun", observed.workers.begun)
        self._rescale: Json | None = None
        self._ready: Problem | None = None
        self._progressing = Condition("Progressing", "False", "AsAsked", "all is as asked for")
        self._rescaling = Condition("Rescaling", "False", "Idle", "nothing moves")
        self._degraded: list[Problem] = []
        module = observed.module
        self._module_missing = module.missing if module else ""
        self._inputs = "" if self._module_missing else self._app.inputs(module)

    # The way through

    def decide(self) -> Decision:
        o = self._o
        if o.departing:
            message = f"waits until {o.departing[0]} of a former application is gone"
            self._problem("Starting", message)
            self._progress("Starting", message)
            self._look_again(WAITING)
            return self._decision()
        if o.conflicts:
            what = "; ".join(o.conflicts)
            self._stuck(
                "NameConflict",
                f"{what}: delete or rename what is there, or give the application another name",
            )
            if self._c and self._c.phase == "running":
                self._ready = None  # what is in the way keeps nobody from processing
            self._look_again(self._untold())
            return self._decision()
        if self._module_missing and o.workers is None:
            self._stuck("ModuleNotFound", self._module_missing)
            self._look_again(self._untold())
            return self._decision()
        self._bases()
        if o.workers is None:
            self._create()
        else:
            self._look_at_pods()
            self._steps(o.workers)
            self._sweep(o.workers)
        return self._decision()

    def _steps(self, workers: Workers) -> None:
        """What is to be done about workers that are there, the first thing first."""
        self._remember()
        if workers.replicas == 0:
            if self._target:
                self._resume(workers)
            else:
                self._suspended(workers)
            return
        c = self._c
        if c is None:
            self._unreached(workers)
            return
        if c.vacant:
            self._vacant(c, workers)
            return
        if self._short(c, workers):
            return
        if c.lost:
            self._lost(c)
            return
        if self._repair(c, workers):
            return
        if c.switching:
            self._follow(c)
            self._look_again(SOON)
            return
        if self._clear(c, workers) and self._target >= len(c.members):
            return
        if not self._target:
            self._suspend(c, workers)
            return
        if self._rollout(c, workers) or self._restart(c):
            return
        self._scale(c, workers)

    # What an application needs besides workers

    def _bases(self) -> None:
        app, o = self._app, self._o
        wanted = [manifests.headless_service(app)]
        if app.ports:
            wanted.append(manifests.client_service(app))
        if o.module and not self._module_missing:
            wanted.append(manifests.module_map(app, o.module))
        wanted.append(manifests.disruption_budget(app, self._budgeted()))
        for each in wanted:
            self._ensure(each)
        there = o.objects.get(("Service", app.name))
        if there and not app.ports:
            self._actions.append(_delete(there))

    def _budgeted(self) -> int:
        """How many members a budget must keep: before a commit that adds some, those too."""
        c = self._c
        if c and not c.vacant:
            return max(len(c.members), c.rescale["to"] if c.rescale else 0)
        if c is None and self._o.workers is not None:
            there = self._o.objects.get(("PodDisruptionBudget", self._app.name))
            if there:  # it is not known who is a member; what was known holds
                return int(there["spec"]["minAvailable"]) + 1
        return self._target

    def _ensure(self, wanted: Json) -> None:
        kind, name = wanted["kind"], wanted["metadata"]["name"]
        there = self._o.objects.get((kind, name))
        if there is None:
            self._actions.append(Apply(wanted))
        elif not covers(there, wanted):
            self._actions.append(Apply(wanted, there["metadata"]["resourceVersion"]))

    def _template(self) -> Json:
        o = self._o
        image = self._app.spec.get("image") or o.stock
        return manifests.template(self._app, image, o.module, self._inputs, tls=o.tls)

    # From nothing to workers

    def _create(self) -> None:
        if leaving := self._departing():
            self._problem("Starting", f"waits until {leaving} of a former application is gone")
            self._progress("Starting", f"waits until {leaving} of a former application is gone")
            self._look_again(WAITING)
            return
        replicas = self._to_start_with()
        if replicas and self._retained():
            self._tell(
                "Normal",
                "ResumedFromClaims",
                "volume claims of a former application of this name are there, and it goes on from "
                "their state",
                self._app.uid,
            )
        self._actions.append(Apply(manifests.statefulset(self._app, replicas, self._template())))
        self._progress("Starting", f"{diagnosis.workers(replicas)} being started")
        self._problem("Starting", "pods are being made")
        self._look_again(WAITING)

    def _departing(self) -> str:
        """A claim that is being deleted, or a pod of another StatefulSet."""
        for claim in self._o.claims:
            if claim.deleting:
                return f"volume claim {claim.name}"
        uid = self._o.workers.uid if self._o.workers else ""
        for pod in self._o.pods:
            if pod.owner != uid:
                return f"pod {pod.name}"
        return ""

    def _retained(self) -> bool:
        return any(claim.created < self._o.created for claim in self._o.claims)

    def _to_start_with(self) -> int:
        """How many workers: before any rescale those of the manifest, all of which have claims."""
        if not self._target:
            return 0
        claims = [claim.ordinal + 1 for claim in self._o.claims]
        return max(claims) if claims else self._target

    def _vacant(self, c: Coordinator, workers: Workers) -> None:
        """Worker 0 has no state. Nobody but a person lets an application begin a second time."""
        first = self._first_claim()
        begun = self._kept.get("begun")
        again = begun and first and self._kept.get("beginning") == first.uid
        if not self._target:
            if begun and not again:
                self._state_lost([0], self._known_epoch())
            self._resize(workers, 0)
            self._progress("Suspending", "the workers have no state yet, and are stopped")
            return
        fresh = not begun and not self._retained()
        if not (fresh or again):
            epoch = self._known_epoch()
            if self._app.accepted_loss != str(epoch):
                self._state_lost([0], epoch)
                self._differing(c, workers)
                return
        if workers.replicas < self._target:
            self._resize(workers, self._target)
            return
        if first is None:
            self._problem("Starting", "waits for worker 0's volume")
            self._look_again(WAITING)
            return
        if self._going(range(self._target)):
            return
        if fresh or again:
            self._kept["begun"] = begun or self._app.uid
            self._kept["beginning"] = first.uid
            if not workers.begun:
                self._resize(workers, workers.replicas)
            self._actions.append(Begin(self._target))
            message = f"the application starts from nothing with {diagnosis.workers(self._target)}"
            self._tell("Normal", "Begun", message, first.uid)
        else:
            epoch = self._known_epoch()
            self._kept["begun"] = begun or self._app.uid
            self._kept["anew"] = first.uid
            self._actions.append(Begin(self._target, accept_loss=True, epoch=epoch))
            message = "its state was lost, which was accepted: the application starts from nothing"
            self._tell("Warning", "StateLossAccepted", message, f"{first.uid} {epoch}")
        self._problem("Starting", "the application begins")
        self._progress("Starting", "the application begins")
        self._look_again(SOON)

    def _going(self, starting: Container[int]) -> bool:
        """Whether workers that are to start with no state have claims that are being deleted.

        Their pods, which hold these claims, have nothing to lose, and go.
        """
        going = [each for each in self._o.claims if each.deleting and each.ordinal in starting]
        if not going:
            return False
        pods = (self._pod(each.ordinal) for each in going)
        self._remove(pod for pod in pods if pod and not pod.deleting)
        message = f"waits until volume claim {going[0].name} is gone"
        self._problem("Starting", message)
        self._progress("Starting", message)
        self._look_again(WAITING)
        return True

    def _first_claim(self) -> Claim | None:
        """Of worker 0's volume."""
        return next((claim for claim in self._o.claims if claim.ordinal == 0), None)

    def _known_epoch(self) -> int:
        return int(self._app.status.get("checkpoint", {}).get("epoch", 0))

    def _lost(self, c: Coordinator) -> None:
        """Members are there without the state that they should have."""
        # Where all state was lost and that was accepted, so is what others have of that time, who
        # may be heard only afterwards.
        first = self._first_claim()
        anew = c.epoch == 0 and first and self._kept.get("anew") == first.uid
        if not anew and self._app.accepted_loss != str(c.epoch):
            self._state_lost(c.lost, c.epoch)
            return
        if self._going(c.lost):
            return
        self._actions.append(Begin(len(c.members), accept_loss=True, epoch=c.epoch))
        message = f"the state of worker {diagnosis.numbers(c.lost)} was lost, which was accepted"
        self._tell("Warning", "StateLossAccepted", message, str(c.epoch))
        self._problem("Starting", message)
        self._look_again(SOON)

    def _state_lost(self, lost: Iterable[int], epoch: int) -> None:
        lost = sorted(lost)
        claims = ", ".join(names.claim(self._app.name, each) for each in lost)
        self._stuck(
            "StateLost",
            f"worker {diagnosis.numbers(lost)} has not the state that it had: volume claim "
            f"{claims} was deleted or emptied. Bring the volume back (a backup, a snapshot) and "
            "delete the pod; "
            f"or accept the loss, as of epoch {epoch}: kubectl annotate wapp {self._app.name} "
            f"{names.ACCEPT_LOSS}={epoch} --overwrite",
        )
        self._look_again(WAITING)

    # Pods

    def _look_at_pods(self) -> None:
        """What is wrong with pods, for people to see."""
        for pod in sorted(self._o.pods, key=lambda each: each.ordinal or 0):
            found = problem(pod, self._o.now)
            if found:
                self._look_again(WAITING)
                if found.degraded:
                    self._degraded.append(found)
        c = self._c
        for claim in self._o.claims:
            if c and claim.deleting and claim.ordinal in c.members and self._pod(claim.ordinal):
                message = (
                    f"volume claim {claim.name} of a member is being deleted: its state goes when "
                    f"its pod does. Scale below {claim.ordinal + 1} to move the state away first"
                )
                if claim.ordinal == 0:
                    message = (
                        f"volume claim {claim.name} of worker 0 is being deleted: its state goes "
                        "when its pod does. Back the volume up before that"
                    )
                self._degraded.append(Problem("ClaimDeleted", message))

    def _pod(self, ordinal: int) -> Pod | None:
        return next((pod for pod in self._o.pods if pod.ordinal == ordinal), None)

    def _others(self, workers: Workers) -> list[Pod]:
        """Pods of another revision of the template that have not been told to go."""
        if not workers.revision:
            return []
        return [p for p in self._o.pods if p.revision != workers.revision and not p.deleting]

    def _remove(self, pods: Iterable[Pod]) -> None:
        for pod in pods:
            self._actions.append(Delete("v1", "Pod", pod.name, pod.uid, pod.resource_version))

    def _short(self, c: Coordinator, workers: Workers) -> bool:
        """Start members that are missing; whether there are any."""
        floor = self._floor(c)
        if workers.replicas >= floor:
            return False
        if leaving := [x for x in self._o.claims if x.deleting and not self._pod(x.ordinal)]:
            self._progress("Starting", f"waits until volume claim {leaving[0].name} is gone")
            self._look_again(WAITING)
        else:
            self._resize(workers, floor)
            self._progress(
                "Starting", f"{diagnosis.workers(floor)} hold the state; missing ones are started"
            )
        return True

    def _repair(self, c: Coordinator, workers: Workers) -> bool:
        """Replace pods that will never do what they are there for.

        Whether that is all to be done now: a rescale before its switch is called off for it.
        """
        needed = c.taking_part if c.switching else c.members | c.leaving
        doomed = [
            pod
            for pod in self._o.pods
            if pod.ordinal is not None
            and not pod.deleting
            and pod.ordinal not in needed
            and pod.ordinal < self._target
            and (self._on_deleted_claim(pod) or self._mute(pod, c))
        ]
        outdated = [
            pod
            for pod in self._others(workers)
            if pod.ordinal is None or not (c.processing(pod.ordinal) or pod.ordinal in c.leaving)
        ]
        if c.phase in {"ended", "stopping"}:
            outdated = []  # all go at once, when the checkpoint is there
        pods = {pod.uid: pod for pod in (*doomed, *outdated)}.values()
        if not pods:
            return False
        called_off = bool(c.rescale) and not c.switching
        if called_off:
            self._call_off(c)
            self._progress("Repairing", "a rescale is called off: pods are replaced first")
        self._remove(pods)
        self._look_again(SOON)
        return called_off

    def _on_deleted_claim(self, pod: Pod) -> bool:
        return any(claim.deleting and claim.ordinal == pod.ordinal for claim in self._o.claims)

    def _mute(self, pod: Pod, c: Coordinator) -> bool:
        """Whether a pod has run for long and its worker has not joined: released, or broken."""
        return bool(
            c.phase == "running"
            and pod.ordinal not in c.joiners
            and pod.running_since
            and self._o.now > pod.running_since + JOINING_TIME
        )

    # The size of the StatefulSet, and what it leaves behind

    @staticmethod
    def _floor(c: Coordinator) -> int:
        """The StatefulSet must not be smaller, as the coordinator has just answered."""
        return max(c.taking_part, default=-1) + 1

    def _resize(self, workers: Workers, replicas: int, template: Json | None = None) -> None:
        begun = self._kept.get("begun", "")
        wanted = manifests.statefulset(self._app, replicas, template or workers.template, begun)
        self._actions.append(Apply(wanted, workers.resource_version))
        self._look_again(SOON)

    def _released(self, c: Coordinator) -> str:
        """The last committed rescale, if it has released workers that were not cleared yet."""
        last = [each for each in c.history if each["outcome"] == "committed"][-1:]
        if last and last[0]["to"] < last[0]["from"]:
            attempt = str(last[0]["attempt"])
            return attempt if attempt != self._kept.get("settled") else ""
        return ""

    def _clear(self, c: Coordinator, workers: Workers) -> bool:
        """Let go of what nobody needs any more; whether that goes on."""
        floor = self._floor(c)
        released = self._released(c)
        if not self._target and not released:
            return False  # suspension is about to take all pods
        # A released worker never joins again: its pod goes, though its ordinal be asked for anew.
        size = floor if released else max(floor, self._target)
        if workers.replicas > size:
            self._resize(workers, size)
            self._clearing("workers that own nothing any more are stopped")
            return True
        size = workers.replicas
        if pods := [p for p in self._o.pods if p.ordinal is not None and p.ordinal >= size]:
            self._clearing(f"waits until pod {pods[0].name} is gone")
            return True
        claims = [claim for claim in self._o.claims if claim.ordinal >= size]
        if claims and not workers.revision:
            self._clearing("waits for the StatefulSet's controller")
            return True
        for claim in claims:
            if not claim.deleting:
                self._actions.append(_release(claim))
                message = f"volume claim {claim.name} is deleted: nothing of it is needed any more"
                self._tell("Normal", "ClaimReleased", message, claim.uid)
        if claims:
            self._clearing(f"waits until volume claim {claims[0].name} is gone")
            return True
        if c.leaving:
            self._clearing(
                f"waits until worker {diagnosis.numbers(c.leaving)} has handed over its last output"
            )
            return True
        if released:
            self._kept["settled"] = released
        return False

    def _clearing(self, message: str) -> None:
        self._progress("Clearing", message)
        self._look_again(SOON)

    # Suspension

    def _suspend(self, c: Coordinator, workers: Workers) -> None:
        if c.rescale:
            self._call_off(c)
            self._progress("Suspending", "a rescale is called off first")
            return
        since = moment(self._kept.setdefault("stopping", timestamp(self._o.now)))
        late = self._o.now > since + STOPPING_TIME
        message = "waits for the last checkpoint"
        if c.phase == "ended" or (c.phase == "failed" and not c.stop_requested):
            self._resize(workers, 0)
            message = "the last checkpoint is committed; the workers are stopped"
            late = False
        elif c.phase == "failed":
            late = True
            message = f"the last checkpoint failed: {diagnosis.failed(c)}"
        elif c.phase == "running" and not c.stop_requested:
            self._actions.append(Stop())
        if late:
            blocked = (
                f"{message}; the pods are kept until it is committed. See status and logs of "
                "worker 0, or take back suspend (or replicas: 0)"
            )
            self._degraded.append(Problem("SuspendBlocked", blocked))
            self._progress("SuspendBlocked", blocked, status="False")
        else:
            self._progress("Suspending", message)
        self._look_again(SOON)

    def _suspended(self, workers: Workers) -> None:
        self._kept.pop("stopping", None)
        self._problem("Suspended", "no workers run; their volumes keep the state")
        self._degraded.clear()
        if self._o.pods:
            self._progress("Suspending", f"waits until pod {self._o.pods[0].name} is gone")
            self._look_again(WAITING)
        elif self._proven(self._c, workers):
            self._resize(workers, 0, self._template())
        else:
            self._policy(workers)

    def _resume(self, workers: Workers) -> None:
        if leaving := self._departing():
            self._progress("Resuming", f"waits until {leaving} is gone")
            self._problem("Resuming", f"waits until {leaving} is gone")
            self._look_again(WAITING)
            return
        proven = self._proven(self._c, workers)
        if proven is None:
            self._problem("Resuming", "waits until it is known whether the new template works")
            return
        replicas = self._to_start_with()
        self._resize(workers, replicas, self._template() if proven else None)
        self._progress("Resuming", f"{diagnosis.workers(replicas)} being started")
        self._problem("Resuming", "pods are being made")

    # Without a coordinator

    def _unreached(self, workers: Workers) -> None:
        """Nothing is known: nothing is shrunk, deleted or rescaled. A template may be mended."""
        why = self._o.unreached or "pod 0 has no address yet"
        self._look_again(WAITING)
        if not self._target:
            since = moment(self._kept.setdefault("stopping", timestamp(self._o.now)))
            message = f"the coordinator does not answer ({why}), so no last checkpoint is known"
            if self._o.now > since + STOPPING_TIME:
                self._degraded.append(Problem("SuspendBlocked", message))
                self._progress("SuspendBlocked", message, status="False")
            else:
                self._progress("Suspending", message)
            return
        proven = self._differing(None, workers)
        if not proven:
            self._progress("Starting", f"the coordinator does not answer: {why}")

    def _differing(self, c: Coordinator | None, workers: Workers) -> bool:
        """Where nothing is processed, a template that is proven takes its place at once."""
        if self._proven(c, workers):
            if any(pod.ready for pod in self._o.pods if pod.ordinal == 0):
                return False  # it may well process, and just not have answered
            self._resize(workers, workers.replicas, self._template())
            self._progress("RollingOut", "the new template is proven; no worker processes")
            return True
        if workers.inputs == self._inputs:
            idle = [pod for pod in self._others(workers) if not pod.ready]
            self._remove(idle)
            if idle:
                self._progress(
                    "RollingOut", "pods of another template that do not run are replaced"
                )
            return bool(idle)
        return True

    # Rollout

    def _proven(self, c: Coordinator | None, workers: Workers) -> bool | None:
        """Whether there is another template that works; None while it is tried in a pod."""
        if not self._inputs or workers.inputs == self._inputs:
            return False
        proof = next((each for each in self._o.proofs if each.inputs == self._inputs), None)
        if proof is None:
            places = c.places if c else self._app.status.get("places", ())
            pod = manifests.proof_pod(self._app, self._template(), list(places))
            self._actions.append(Apply(pod))
            self._progress("ProvingTemplate", "the new template is tried in a pod of its own")
            self._look_again(WAITING)
            return None
        if proof.phase == "Succeeded":
            return True
        found = problem(proof, self._o.now)
        if proof.phase == "Failed" and found is None:
            found = Problem("PodFailed", f"pod {proof.name} failed: {proof.words}")
        self._look_again(WAITING)
        if found is None or not found.degraded:
            said = f": {found.message}" if found else ""
            message = f"the new template is tried in a pod of its own{said}"
            self._progress("ProvingTemplate", message)
            return None
        over = self._o.now > proof.finished_at + PROOF_TIME
        if proof.phase == "Failed" and found.reason != "ModuleFailed" and over:
            self._remove([proof])  # an eviction, say, is no fault of the template
        message = f"nothing was changed, for the new template does not work: {found.message}"
        self._progress("RolloutFailed", message, status="False")
        self._degraded.append(Problem("RolloutFailed", message))
        return False

    def _rollout(self, c: Coordinator, workers: Workers) -> bool:
        """Checkpoint, apply, replace all pods; whether that is under way."""
        anew = self._proven(c, workers)
        others = self._others(workers)
        if not anew and not others:
            return False
        if c.rescale:
            self._call_off(c)
            self._progress("RollingOut", "a rescale is called off first")
            return True
        processing = c.phase == "running" and (
            anew or any(p.ordinal in c.members for p in others if p.ordinal is not None)
        )
        if processing and not c.stop_requested:
            self._actions.append(Stop())
            self._progress("RollingOut", "a checkpoint is taken before the pods are replaced")
        elif processing or c.phase == "stopping":
            self._progress("RollingOut", "waits for the checkpoint")
        elif anew:
            self._resize(workers, workers.replicas, self._template())
            self._progress("RollingOut", "the new template is applied")
        else:
            going = {action.uid for action in self._actions if isinstance(action, Delete)}
            self._remove(pod for pod in others if pod.uid not in going)
            self._progress("RollingOut", "pods of the former template are replaced")
        self._look_again(SOON)
        return True

    def _restart(self, c: Coordinator) -> bool:
        """Workers that were stopped for something that was taken back start again."""
        pods = self._o.pods
        if not (c.stop_requested and c.phase in {"ended", "stopping", "failed"}):
            return False
        if c.phase == "failed":
            return False
        self._progress("Resuming", "the workers had been stopped, and start again")
        self._look_again(SOON)
        first = self._pod(0)
        if c.phase == "ended" and first and not any(pod.deleting for pod in pods):
            self._remove(pods)
        return True

    # Rescale

    def _remember(self) -> None:
        """What is to be kept in mind of the coordinator's answer."""
        c = self._c
        if self._target:
            self._kept.pop("stopping", None)
        if c is None or c.vacant:
            return
        # It has begun, whoever said so.
        self._kept["begun"] = self._kept.get("begun") or c.application or self._app.uid
        self._kept.pop("beginning", None)
        if c.epoch:
            self._kept.pop("anew", None)
        last = str(c.history[-1]["attempt"]) if c.history else ""
        retry: Mapping[str, Any] = self._kept.get("retry", {})
        if retry.get("target") != self._target:  # a new target starts afresh
            self._kept["retry"] = {"target": self._target, "attempt": last, "failures": 0}
            return
        if last == retry.get("attempt"):
            return
        if not c.history:  # worker 0 has started again: attempts that failed are forgotten there
            self._kept["retry"] = {**retry, "attempt": ""}
            return
        seen = c.history[-1]
        if seen["outcome"] == "committed" or seen["to"] != self._target:
            self._kept["retry"] = {**retry, "attempt": last, "failures": 0}
            self._kept["retry"].pop("notBefore", None)
            return
        failures = retry.get("failures", 0) + 1
        wait = min(AGAIN * 2 ** (failures - 1), LONGEST)
        self._kept["retry"] = {
            "target": self._target,
            "attempt": last,
            "failures": failures,
            "notBefore": timestamp(self._o.now + wait),
        }
        message = f"the rescale to {diagnosis.workers(seen['to'])} was given up: {seen['why']}"
        self._tell("Warning", "RescaleAbandoned", message, last)

    def _call_off(self, c: Coordinator) -> None:
        assert c.assignment is not None
        self._actions.append(Rescale(c.assignment.version, c.assignment))
        self._look_again(SOON)

    def _follow(self, c: Coordinator) -> None:
        rescale = c.rescale
        assert rescale is not None
        status = conditions.rescale_status(rescale)
        message = f"from {diagnosis.workers(rescale['from'])} to {rescale['to']}"
        self._rescaling = Condition("Rescaling", "True", status["phase"], message)
        self._progress("Rescaling", message)
        self._look_again(SOON)

    def _scale(self, c: Coordinator, workers: Workers) -> None:
        target, members = self._target, c.members
        wanted = frozenset(range(target))
        if wanted == members:
            if c.rescale:
                self._call_off(c)
            self._policy(workers)
            return
        assert c.assignment is not None
        if c.phase in {"ended", "failed"}:
            reason = "Failed" if c.phase == "failed" else "Complete"
            why = f"{target} workers are asked for, but nothing is processed: nothing moves"
            self._progress(reason, why, status="False")
            return
        if c.rescale and c.rescale["to"] == target:
            self._follow(c)
            return
        message = f"from {diagnosis.workers(len(members))} to {target}"
        self._progress("Rescaling", message)
        missing = wanted - members - c.joiners
        if missing or workers.replicas < target:
            if c.rescale:
                self._call_off(c)
            self._wait_for_pods(c, workers, missing)
            return
        if c.phase != "running" or c.stop_requested:
            why = "waits until all members process again"
            self._rescaling = Condition("Rescaling", "False", "WaitingForRecovery", why)
            self._look_again(SOON)
            return
        retry = self._kept.get("retry", {})
        not_before = moment(retry.get("notBefore"))
        if not_before > self._o.now:
            last = c.history[-1]["why"] if c.history else ""
            why = f"{message} was given up: {last}. It is tried again at {retry['notBefore']}"
            self._rescaling = Condition("Rescaling", "False", "WaitingToRetry", why)
            self._look_again(not_before - self._o.now + 0.1)
            return
        if any(claim.deleting and claim.ordinal in wanted - members for claim in self._o.claims):
            self._look_again(SOON)  # its pod is being replaced
            return
        self._actions.append(Rescale(c.assignment.version, rewrite(c.assignment, sorted(wanted))))
        self._rescaling = Condition("Rescaling", "True", "Prepare", message)
        self._look_again(SOON)

    def _wait_for_pods(self, c: Coordinator, workers: Workers, missing: frozenset[int]) -> None:
        target, now = self._target, self._o.now
        if workers.replicas < target:
            self._resize(workers, target)
        before = self._app.status.get("rescale") or {}
        same = before.get("phase") == "WaitingForPods" and before.get("to") == target
        since = before.get("since") if same else None
        since = since or timestamp(now)
        self._rescale = {
            "from": len(c.members),
            "to": target,
            "phase": "WaitingForPods",
            "since": since,
        }
        words = []
        for ordinal in sorted(missing):
            pod = self._pod(ordinal)
            found = problem(pod, now) if pod else None
            words.append(
                found.message if found else f"pod {names.pod(self._app.name, ordinal)} starts"
            )
        said = "; ".join(words[:3]) + (f"; and {len(words) - 3} more" if len(words) > 3 else "")
        late = now > moment(since) + self._app.rescale_timeout
        reason = "TimedOut" if late else "WaitingForPods"
        message = f"from {diagnosis.workers(len(c.members))} to {target}: {said}"
        if late:
            message = (
                f"{message}. This has taken longer than rescaleTimeout; the application runs on as "
                "it is, and is rescaled once the pods are up"
            )
            self._degraded.append(Problem("RescaleTimedOut", message))
        self._rescaling = Condition("Rescaling", "False", reason, message)
        self._look_again(WAITING)

    def _policy(self, workers: Workers) -> None:
        """What of the StatefulSet may change besides size and template."""
        kept = self._app.spec.get("storage", {}).get("onDelete", "Retain")
        if (workers.on_delete, workers.begun) != (kept, self._kept.get("begun", "")):
            self._resize(workers, workers.replicas)

    # What has served its time

    def _sweep(self, workers: Workers) -> None:
        """Delete proofs and copies of modules that nobody uses."""
        for proof in self._o.proofs:
            stale = proof.inputs != self._inputs or workers.inputs == self._inputs
            if stale and not proof.deleting:
                self._remove([proof])
        if self._actions or not self._inputs or workers.inputs != self._inputs:
            return
        if not workers.revision or any(p.revision != workers.revision for p in self._o.pods):
            return
        used = {
            each["configMap"]["name"]
            for each in workers.template["spec"].get("volumes", ())
            if "configMap" in each
        }
        for (kind, name), there in self._o.objects.items():
            if kind == "ConfigMap" and name not in used:
                self._actions.append(_delete(there))

    # In words

    def _untold(self) -> float:
        """Seconds until what no watch tells of is looked at again: more, the longer it is so."""
        since = next(
            (
                moment(each["lastTransitionTime"])
                for each in self._app.status.get("conditions", ())
                if each["type"] == "Degraded"
            ),
            self._o.now,
        )
        return min(max(WAITING, (self._o.now - since) / 4), UNTOLD)

    def _look_again(self, seconds: float) -> None:
        self._again = min(self._again, max(seconds, 0.1))

    def _tell(self, kind: str, reason: str, message: str, once: str) -> None:
        self._events.append(Event(kind, reason, message, once))

    def _problem(self, reason: str, message: str) -> None:
        self._ready = self._ready or Problem(reason, message, degraded=False)

    def _progress(self, reason: str, message: str, status: str = "True") -> None:
        self._progressing = Condition("Progressing", status, reason, message)

    def _stuck(self, reason: str, message: str) -> None:
        self._ready = Problem(reason, message)
        self._degraded.insert(0, self._ready)
        self._progress(reason, message, status="False")

    def _readiness(self) -> Condition:
        """Ready: every member of the assignment in force processes, also during a rescale."""
        c = self._c
        if c and c.phase == "running" and c.members and not self._ready:
            idle = [each for each in sorted(c.members) if not c.processing(each)]
            if not idle:
                running = f"all members process: {len(c.members)}"
                return Condition("Ready", "True", "Running", running)
            self._ready = self._trouble(c) or Problem(
                "Recovering", f"worker {diagnosis.numbers(idle)} does not process yet"
            )
        if not self._ready:
            self._ready = self._trouble(c)
        found = self._ready or self._quiet(c)
        unknown = found.reason == "CoordinatorUnreachable"
        return Condition("Ready", "Unknown" if unknown else "False", found.reason, found.message)

    def _trouble(self, c: Coordinator | None) -> Problem | None:
        """What keeps members from processing."""
        if c and c.phase == "failed":
            found = Problem("Failed", diagnosis.failed(c))
            self._degraded.insert(0, found)
            return found
        if c and c.phase == "ended" and not c.stop_requested:
            return Problem("Complete", "all sources have ended, and all is committed")
        members = c.members if c and not c.vacant else frozenset({0})
        for pod in sorted(self._o.pods, key=lambda each: each.ordinal or 0):
            found_in = problem(pod, self._o.now)
            if found_in and (not c or pod.ordinal in members):
                return found_in
        return None

    def _quiet(self, c: Coordinator | None) -> Problem:
        """Not ready, and nothing wrong is known."""
        if c is None:
            first = self._pod(0)
            if first and first.ready and not first.deleting:
                return Problem(
                    "CoordinatorUnreachable",
                    f"worker 0 is ready, but does not answer the operator: {self._o.unreached}",
                )
            return Problem("Starting", f"worker 0 is not there yet: {self._o.unreached}")
        if c.phase in {"stopping", "ended"}:
            return Problem("Stopped", "the last checkpoint is taken, and nothing is processed")
        there = {n for n, worker in c.workers.items() if worker.present}
        absent = c.members - there
        what = f": waits for worker {diagnosis.numbers(absent)}" if absent else ""
        return Problem("Recovering" if c.epoch else "Starting", f"the workers form up{what}")

    def _decision(self) -> Decision:
        o, app = self._o, self._app
        if o.refused:
            message = (
                f"the API server refuses what is to be done next: {o.refused}. It is tried again"
            )
            self._degraded.insert(0, Problem("Refused", message))
        ready = self._readiness()
        worst = next((each for each in self._degraded if each.degraded), None)
        degraded = (
            Condition("Degraded", "True", worst.reason, worst.message)
            if worst
            else Condition("Degraded", "False", "AsExpected", "nobody has to do anything")
        )
        found = (ready, self._progressing, self._rescaling, degraded)
        before = app.status.get("conditions", [])
        status: Json = {
            "observedGeneration": app.generation,
            "conditions": conditions.merged(before, found, app.generation, o.now),
            "replicas": len(o.pods),
            "selector": ",".join(f"{k}={v}" for k, v in names.selector(app.name).items()),
        }
        counted = ("checkpoint", "keys", "events", "deadLetters")
        shown = ("members", "assignment", "history", "places", *counted)
        last = {key: app.status[key] for key in shown if key in app.status}
        status |= last  # what was last known, where nothing is known now
        if self._c and not self._c.vacant:
            status |= conditions.told_by(self._c)
        if self._rescale:
            status["rescale"] = self._rescale
        if o.workers:
            status["image"] = o.workers.image
        status |= self._kept
        events = [*self._events, *conditions.transitions(before, found), *self._chronicle()]
        return Decision(tuple(self._actions), status, tuple(events), self._again)

    def _chronicle(self) -> list[Event]:
        """Rescales that have been committed since the status was written."""
        known = {each.get("attempt") for each in self._app.status.get("history", ())}
        found = []
        for each in self._c.history if self._c and "history" in self._app.status else ():
            if each["attempt"] in known or each["outcome"] != "committed":
                continue
            told = conditions.rescale_status(each)
            message = (
                f"rescaled from {diagnosis.workers(each['from'])} to {each['to']} in "
                f"{told['seconds']} s: {each['moved']:.2%} moved, {each['minimum']:.2%} is the "
                "least possible; "
                f"no event was held back for more than {told['held']}"
            )
            found.append(Event("Normal", "Rescaled", message, str(each["attempt"])))
        return found


def _delete(there: Json) -> Delete:
    meta = there["metadata"]
    return Delete(
        there["apiVersion"], there["kind"], meta["name"], meta["uid"], meta["resourceVersion"]
    )


def _release(claim: Claim) -> Delete:
    return Delete("v1", "PersistentVolumeClaim", claim.name, claim.uid, claim.resource_version)
