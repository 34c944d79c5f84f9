"""What is decided, situation by situation."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from tests.unit.operator.apps import app
from tests.unit.operator.cases import (
    CREATED,
    IN_MAP,
    NOW,
    applied,
    asked,
    at_rest,
    bases,
    claim,
    condition,
    coordinator,
    deleted,
    manifests_of,
    pod,
    record,
    remembering,
    size,
    under_way,
    without,
    workers,
)

from wallaroo.partitioning import Assignment
from wallaroo.partitioning.rewrite import rewrite
from wallaroo_operator import manifests, names
from wallaroo_operator.actions import Begin, Delete, Rescale, Stop
from wallaroo_operator.app import Module
from wallaroo_operator.decide import IDLE, UNTOLD, WAITING, decide
from wallaroo_operator.observed import Coordinator, Observed, Pod, moment, timestamp

THREE, FOUR = Assignment.first(3), Assignment.first(4)


def nothing_but_looking(observed: Observed) -> bool:
    return decide(observed).actions == ()


# At rest


def test_nothing_is_done_where_all_is_as_asked_for() -> None:
    decision = decide(at_rest())
    assert decision.actions == ()
    assert decision.again == IDLE
    assert condition(decision, "Ready").status == "True"
    assert condition(decision, "Progressing").status == "False"
    assert condition(decision, "Degraded").status == "False"


def test_the_status_says_what_there_is() -> None:
    """Rulings K8s 17 and 22."""
    status = decide(at_rest()).status
    assert status is not None
    assert (status["replicas"], status["members"], status["keys"]) == (3, 3, 30)
    assert status["selector"] == "wallaroo.dev/application=count"
    assert status["observedGeneration"] == 1
    assert status["checkpoint"] == {"epoch": 41, "time": timestamp(NOW - 1)}
    assert [piece["end"] for piece in status["assignment"]["pieces"]] == [
        "5555555555555555",
        "aaaaaaaaaaaaaaaa",
        "0000000000000000",
    ]


def test_the_selector_is_there_from_the_first_reconcile() -> None:
    """Ruling K8s 22: an autoscaler needs it."""
    first = Observed(app(), NOW, "stock:1", created=CREATED, module=IN_MAP)
    status = decide(first).status
    assert status is not None
    assert status["selector"] == "wallaroo.dev/application=count"


def test_an_application_that_is_being_deleted_is_left_alone() -> None:
    """Ruling K8s 21."""
    o = at_rest()
    decision = decide(replace(asked(o, replicas=5), app=replace(o.app, deleting=True)))
    assert (decision.actions, decision.status, decision.events) == ((), None, ())


# From nothing


def test_everything_is_made_with_the_workers_asked_for() -> None:
    o = Observed(app(replicas=3), NOW, "stock:1", created=CREATED, module=IN_MAP)
    decision = decide(o)
    assert applied(decision) == ["Service", "ConfigMap", "PodDisruptionBudget", "StatefulSet"]
    assert size(decision) == 3


def test_ports_have_a_service_for_clients() -> None:
    o = Observed(
        app(ports=[{"name": "a", "port": 7000}]), NOW, "stock:1", created=CREATED, module=IN_MAP
    )
    assert applied(decide(o)).count("Service") == 2
    with_service = at_rest(of=app(replicas=3, ports=[{"name": "a", "port": 7000}]))
    without_ports = asked(with_service, ports=[])
    assert "count" in deleted(decide(without_ports))


def test_retained_claims_are_started_from() -> None:
    """Ruling K8s 5: the members of the manifest come first, and an Event says so."""
    retained = tuple(claim(each, created=CREATED - 10) for each in range(4))
    o = Observed(app(replicas=2), NOW, "stock:1", created=CREATED, module=IN_MAP, claims=retained)
    decision = decide(o)
    assert size(decision) == 4
    assert "ResumedFromClaims" in [event.reason for event in decision.events]


def test_no_worker_starts_on_a_claim_that_is_being_deleted() -> None:
    """Ruling K8s 3."""
    o = Observed(
        app(), NOW, "stock:1", created=CREATED, module=IN_MAP, claims=(claim(0, deleting=True),)
    )
    assert size(decide(o)) is None
    resuming = asked(at_rest(3, workers=workers(app(), 0), pods=()), replicas=3)
    held = replace(resuming, coordinator=None, claims=(claim(0), claim(1, deleting=True)))
    assert size(decide(held)) is None


def vacant(**status: Any) -> Observed:
    o = at_rest(2, coordinator=coordinator(0, phase="vacant", vacant=True, epoch=0))
    return replace(o, app=replace(o.app, status=status), workers=workers(o.app, 2, begun=""))


def test_an_application_begins_once_it_is_recorded() -> None:
    """Ruling K8s 2."""
    decision = decide(vacant())
    assert decision.actions[-1] == Begin(2)
    assert decision.status is not None
    assert decision.status["begun"] == "uid-of-the-app"
    assert decision.status["beginning"] == "claim-uid-0"
    (sts,) = manifests_of(decision, "StatefulSet")
    assert sts["metadata"]["annotations"][names.BEGUN] == "uid-of-the-app"


def test_what_was_recorded_and_perhaps_not_said_is_said_again_on_the_same_claim_alone() -> None:
    """Ruling K8s 2."""
    again = decide(vacant(begun="uid-of-the-app", beginning="claim-uid-0"))
    assert again.actions[-1] == Begin(2)
    other = decide(vacant(begun="uid-of-the-app", beginning="claim-uid-of-before"))
    assert Begin(2) not in other.actions
    assert condition(other, "Degraded").reason == "StateLost"


def test_nothing_begins_from_nothing_a_second_time() -> None:
    """Ruling K8s 2."""
    decision = decide(vacant(begun="uid-of-the-app", checkpoint={"epoch": 41}))
    assert decision.actions == ()
    found = condition(decision, "Degraded")
    assert (found.status, found.reason) == ("True", "StateLost")
    assert "state-count-0" in found.message
    assert "wallaroo.dev/accept-state-loss=41" in found.message
    assert condition(decision, "Ready").status == "False"


def test_a_wiped_status_does_not_make_it_begin_again() -> None:
    """Ruling K8s 2 and 17: the StatefulSet remembers, too."""
    o = replace(vacant(), workers=workers(app(), 2))
    assert condition(decide(o), "Degraded").reason == "StateLost"


@pytest.mark.parametrize("ordinal", [0, 1])
def test_nothing_begins_on_a_claim_that_is_being_deleted(ordinal: int) -> None:
    """Ruling K8s 3: its pod goes, with nothing to lose, and then the claim."""
    o = vacant()
    claims = tuple(claim(each, deleting=each == ordinal) for each in range(2))
    decision = decide(replace(o, claims=claims))
    assert decision.actions == (Delete("v1", "Pod", f"count-{ordinal}", f"pod-uid-{ordinal}", "7"),)
    assert decision.status is not None
    assert "begun" not in decision.status
    assert f"state-count-{ordinal}" in condition(decision, "Ready").message
    leaving = tuple(pod(each, gone_by=(NOW + 30) * (each == ordinal)) for each in range(2))
    assert nothing_but_looking(replace(o, claims=claims, pods=leaving))


def test_no_member_whose_state_is_lost_begins_on_a_claim_that_is_being_deleted() -> None:
    """Ruling K8s 3."""
    o = at_rest(3, coordinator=coordinator(3, phase="forming", lost=(2,)))
    o = replace(o, claims=(*o.claims[:2], claim(2, deleting=True)))
    assert nothing_but_looking(o), "a person has not accepted the loss"
    accepted = replace(o, app=replace(o.app, annotations={names.ACCEPT_LOSS: "41"}))
    assert decide(accepted).actions == (Delete("v1", "Pod", "count-2", "pod-uid-2", "7"),)


@pytest.mark.parametrize(("accepted", "begins"), [("41", True), ("40", False), ("", False)])
def test_a_person_accepts_a_loss_as_of_an_epoch(accepted: str, begins: bool) -> None:
    """Ruling K8s 2."""
    o = vacant(begun="uid-of-the-app", checkpoint={"epoch": 41})
    o = replace(o, app=replace(o.app, annotations={names.ACCEPT_LOSS: accepted}))
    expected = Begin(2, accept_loss=True, epoch=41)
    assert (expected in decide(o).actions) == begins


def test_a_members_lost_state_is_named_and_accepted() -> None:
    """Ruling K8s 1 and 2."""
    o = at_rest(3, coordinator=coordinator(3, phase="forming", lost=(2,)))
    lost = decide(o)
    assert lost.actions == ()
    assert "state-count-2" in condition(lost, "Degraded").message
    accepted = replace(o, app=replace(o.app, annotations={names.ACCEPT_LOSS: "41"}))
    assert decide(accepted).actions == (Begin(3, accept_loss=True, epoch=41),)


def test_a_loss_of_everything_that_was_accepted_covers_who_is_heard_only_afterwards() -> None:
    """Rulings K8s 1 and 2."""
    o = vacant(begun="uid-of-the-app", checkpoint={"epoch": 41})
    annotations = {names.ACCEPT_LOSS: "41"}
    o = replace(o, app=replace(o.app, annotations=annotations))
    status = decide(o).status
    assert status is not None
    forming = coordinator(2, phase="forming", lost=(1,), epoch=0)
    o = replace(o, app=replace(o.app, status=status), coordinator=forming)
    assert decide(o).actions == (Begin(2, accept_loss=True, epoch=0),)
    other = (replace(o.claims[0], uid="of another life"), *o.claims[1:])
    assert decide(replace(o, claims=other)).actions == ()
    status = decide(replace(o, coordinator=coordinator(2, epoch=3))).status
    assert status is not None
    assert "anew" not in status


# Scaling up


def test_scaling_up_starts_pods_first() -> None:
    """Ruling K8s 16."""
    decision = decide(asked(at_rest(3), replicas=4))
    assert size(decision) == 4
    assert not any(isinstance(each, Rescale) for each in decision.actions)
    assert condition(decision, "Rescaling").reason == "WaitingForPods"
    assert condition(decision, "Ready").status == "True"  # ruling K8s 22
    assert condition(decision, "Progressing").status == "True"


def growing(**more: Any) -> Observed:
    """From three workers to four, whose pod is there."""
    o = asked(at_rest(3), replicas=4)
    pods = (*o.pods, more.pop("pod", pod(3, ready=False)))
    return replace(o, workers=workers(o.app, 4), pods=pods, claims=(*o.claims, claim(3)), **more)


def test_the_schedulers_words_are_passed_on() -> None:
    """Ruling K8s 16."""
    waiting = Pod(
        "count-3", "u", ordinal=3, revision="current", owner="sts", unschedulable="0/1 nodes"
    )
    found = condition(decide(growing(pod=waiting)), "Rescaling")
    assert (found.status, found.reason) == ("False", "WaitingForPods")
    assert "0/1 nodes" in found.message


def test_waiting_for_pods_too_long_is_shown_and_waited_on() -> None:
    """Ruling K8s 16."""
    since = {"from": 3, "to": 4, "phase": "WaitingForPods", "since": timestamp(NOW - 601)}
    decision = decide(remembering(growing(), rescale=since))
    assert condition(decision, "Rescaling").reason == "TimedOut"
    assert condition(decision, "Degraded").reason == "RescaleTimedOut"
    assert condition(decision, "Ready").status == "True"
    assert size(decision) is None  # pods stay, for a cluster autoscaler to see them


def test_the_coordinator_is_asked_once_all_joiners_are_up() -> None:
    """Ruling K8s 16."""
    up = growing(coordinator=coordinator(3, joiners=frozenset({3})))
    assert decide(up).actions == (Rescale(1, rewrite(THREE, range(4))),)


def test_no_joiner_on_a_claim_that_is_being_deleted() -> None:
    """Ruling K8s 3: its pod is replaced instead."""
    up = growing(coordinator=coordinator(3, joiners=frozenset({3})))
    up = replace(up, claims=(*up.claims[:3], claim(3, deleting=True)))
    assert decide(up).actions == (Delete("v1", "Pod", "count-3", "pod-uid-3", "7"),)


def test_a_budget_counts_members_to_be_before_they_are() -> None:
    """Ruling K8s 20."""
    o = growing(coordinator=coordinator(3, rescale=under_way(3, 4, "copy")))
    (budget,) = manifests_of(decide(o), "PodDisruptionBudget")
    assert budget["spec"]["minAvailable"] == 3


def abandoned(times: int, **retry: Any) -> Observed:
    """Attempts to get to four workers have failed."""
    history = tuple(record(3, 4, "abandoned", attempt=f"1-{each}") for each in range(times))
    c = coordinator(3, joiners=frozenset({3}), history=history)
    return remembering(growing(coordinator=c), retry=retry)


@pytest.mark.parametrize(("before", "wait"), [(0, 10), (1, 20), (2, 40), (5, 300), (30, 300)])
def test_an_abandoned_rescale_is_tried_again_later_and_later(before: int, wait: float) -> None:
    """Ruling K8s 16."""
    decision = decide(abandoned(2, target=4, attempt="1-0", failures=before))
    assert decision.actions == ()
    assert decision.status is not None
    assert moment(decision.status["retry"]["notBefore"]) == NOW + wait
    assert condition(decision, "Rescaling").reason == "WaitingToRetry"
    assert "nothing more was copied" in condition(decision, "Rescaling").message
    assert "RescaleAbandoned" in [event.reason for event in decision.events]


def test_it_is_tried_again_when_the_time_has_come() -> None:
    """Ruling K8s 16."""
    o = abandoned(1, target=4, attempt="1-0", failures=1, notBefore=timestamp(NOW - 1))
    assert isinstance(decide(o).actions[-1], Rescale)


def test_a_new_target_starts_afresh() -> None:
    """Ruling K8s 16."""
    o = abandoned(1, target=5, attempt="1-0", failures=7, notBefore=timestamp(NOW + 200))
    assert isinstance(decide(o).actions[-1], Rescale)


# Rescales under way


@pytest.mark.parametrize("phase", ["prepare", "copy", "catch up"])
def test_another_target_supersedes_a_rescale_before_its_switch(phase: str) -> None:
    """Ruling K8s 15."""
    c = coordinator(3, joiners=frozenset({3}), rescale=under_way(3, 4, phase))
    back = decide(asked(growing(coordinator=c), replicas=3))
    assert back.actions[-1] == Rescale(1, THREE)  # the assignment in force calls it off
    down = decide(asked(growing(coordinator=c), replicas=2))
    assert down.actions[-1] == Rescale(1, rewrite(THREE, range(2)))


@pytest.mark.parametrize("phase", ["prepare", "copy", "catch up"])
def test_a_rescale_before_its_switch_is_called_off_for_a_repair(phase: str) -> None:
    """Ruling K8s 15: a joiner of another revision of the template goes, and is not told twice."""
    c = coordinator(3, joiners=frozenset({3}), rescale=under_way(3, 4, phase))
    o = growing(coordinator=c, pod=pod(3, revision="bad"))
    o = replace(o, objects=bases(o.app, 4))
    decision = decide(o)
    assert decision.actions == (
        Rescale(1, THREE),
        Delete("v1", "Pod", "count-3", "pod-uid-3", "7"),
    )
    assert condition(decision, "Progressing").reason == "Repairing"
    going = (*o.pods[:3], pod(3, revision="bad", gone_by=NOW + 30))
    assert nothing_but_looking(replace(o, pods=going))


@pytest.mark.parametrize("phase", ["prepare", "copy", "catch up", "switch"])
def test_a_joiner_whose_claim_is_deleted_does_not_become_a_member(phase: str) -> None:
    """Ruling K8s 3: as long as it can be helped."""
    c = coordinator(3, joiners=frozenset({3}), rescale=under_way(3, 4, phase))
    claims = (*(claim(n) for n in range(3)), claim(3, deleting=True))
    o = replace(growing(coordinator=c), claims=claims)
    o = replace(o, objects=bases(o.app, 4))
    called_off = (Rescale(1, THREE), Delete("v1", "Pod", "count-3", "pod-uid-3", "7"))
    assert decide(o).actions == (() if phase == "switch" else called_off)


@pytest.mark.parametrize(
    "spec", [{"replicas": 3}, {"replicas": 2}, {"suspend": True}, {"args": ["new"]}]
)
def test_a_rescale_past_its_switch_is_finished_whatever_is_asked(spec: dict[str, Any]) -> None:
    """Ruling K8s 15."""
    c = coordinator(3, joiners=frozenset({3}), rescale=under_way(3, 4, "switch"))
    o = asked(growing(coordinator=c), **spec)
    o = replace(o, objects=bases(o.app, 4))
    decision = decide(o)
    assert decision.actions == ()
    assert condition(decision, "Rescaling").reason == "Switch"


def test_nothing_that_takes_part_is_shrunk_away() -> None:
    """Ruling K8s 4."""
    for phase in ("prepare", "switch"):
        c = coordinator(3, joiners=frozenset({3}), rescale=under_way(3, 4, phase))
        assert size(decide(asked(growing(coordinator=c), replicas=1))) is None


# Scaling down


def test_scaling_down_rescales_first() -> None:
    """Ruling K8s 3."""
    decision = decide(asked(at_rest(4), replicas=3))
    assert decision.actions == (Rescale(1, rewrite(FOUR, range(3))),)


def shrunk(**more: Any) -> Observed:
    """Four workers of which the last owns nothing any more."""
    o = asked(at_rest(4), replicas=3)
    found = replace(o, coordinator=coordinator(3, history=(record(4, 3),)), objects=bases(o.app, 3))
    return replace(found, **more)


def test_the_statefulset_shrinks_after_the_commit() -> None:
    """Ruling K8s 3."""
    decision = decide(shrunk())
    assert size(decision) == 3
    assert deleted(decision) == []


def test_it_does_not_while_a_leaver_holds_something() -> None:
    """Ruling K8s 4."""
    c = coordinator(3, history=(record(4, 3),), leaving=frozenset({3}))
    assert nothing_but_looking(shrunk(coordinator=c))


def test_nothing_is_shrunk_deleted_or_rescaled_on_no_information() -> None:
    """Ruling K8s 4."""
    o = replace(shrunk(coordinator=None), claims=tuple(map(claim, range(5))))
    assert nothing_but_looking(o)
    o = replace(o, workers=workers(o.app, 3))
    assert nothing_but_looking(o)


def test_claims_wait_for_their_pods_to_be_gone() -> None:
    """Ruling K8s 3."""
    o = shrunk()
    o = replace(o, workers=workers(o.app, 3))
    assert nothing_but_looking(o)  # pod 3 is there
    gone = replace(o, pods=o.pods[:3])
    assert decide(gone).actions == (
        Delete("v1", "PersistentVolumeClaim", "state-count-3", "claim-uid-3", "8"),
    )


def test_claims_wait_for_the_controller_to_have_seen_the_size() -> None:
    """Ruling K8s 3."""
    o = shrunk()
    o = replace(o, workers=workers(o.app, 3, revision=""), pods=o.pods[:3])
    assert nothing_but_looking(o)


def test_the_statefulset_grows_only_over_claims_that_are_gone() -> None:
    """Ruling K8s 3: three, two, three, quickly."""
    o = asked(shrunk(), replicas=4)
    assert size(decide(o)) == 3  # a released worker never joins again (ruling K8s 8)
    o = replace(o, workers=workers(o.app, 3), pods=o.pods[:3])
    assert deleted(decide(o)) == ["state-count-3"]
    assert nothing_but_looking(replace(o, claims=(*o.claims[:3], claim(3, deleting=True))))
    settled = decide(without(o, 3))
    assert size(settled) == 4
    assert settled.status is not None
    assert settled.status["settled"] == "1-1"


def test_a_rescale_is_told_of_once() -> None:
    told = [event for event in decide(shrunk()).events if event.reason == "Rescaled"]
    assert len(told) == 1
    assert "25.00% moved" in told[0].message
    known = remembering(shrunk(), history=[{"attempt": "1-1"}])
    assert "Rescaled" not in [event.reason for event in decide(known).events]


def test_a_statefulset_that_somebody_shrank_is_grown_again() -> None:
    """Ruling K8s 4."""
    o = without(at_rest(3), 2)
    assert size(decide(replace(o, workers=workers(o.app, 2)))) == 3


# Suspension


@pytest.mark.parametrize("spec", [{"suspend": True}, {"replicas": 0}])
def test_suspending_asks_for_a_last_checkpoint_first(spec: dict[str, Any]) -> None:
    """Ruling K8s 19."""
    decision = decide(asked(at_rest(), **spec))
    assert decision.actions == (Stop(),)
    assert condition(decision, "Progressing").reason == "Suspending"


def suspending(phase: str, since: float = NOW, **more: Any) -> Observed:
    o = at_rest(3, coordinator=coordinator(3, phase=phase, **more))
    return remembering(asked(o, suspend=True), stopping=timestamp(since))


def test_pods_go_once_it_is_committed() -> None:
    """Ruling K8s 19."""
    assert nothing_but_looking(suspending("stopping", stop_requested=True))
    assert size(decide(suspending("ended", stop_requested=True))) == 0


def test_a_rescale_before_its_switch_is_called_off_for_it() -> None:
    """Ruling K8s 15."""
    o = suspending("running", rescale=under_way(3, 2, "copy"))
    assert decide(o).actions == (Rescale(1, THREE),)


@pytest.mark.parametrize(("since", "blocked"), [(NOW - 50, False), (NOW - 61, True)])
def test_pods_are_kept_while_it_takes_long(since: float, blocked: bool) -> None:
    """Ruling K8s 19."""
    decision = decide(suspending("stopping", since, stop_requested=True))
    assert decision.actions == ()
    assert (condition(decision, "Degraded").reason == "SuspendBlocked") == blocked


def test_pods_are_kept_when_it_fails_or_nobody_answers() -> None:
    """Ruling K8s 19 and 4."""
    failed = decide(suspending("failed", stop_requested=True, failure={"message": "disk full"}))
    assert failed.actions == ()
    assert condition(failed, "Progressing").reason == "SuspendBlocked"
    unheard = replace(suspending("running", NOW - 61), coordinator=None)
    assert decide(unheard).actions == ()
    assert condition(decide(unheard), "Degraded").reason == "SuspendBlocked"


def suspended(**spec: Any) -> Observed:
    o = at_rest(3, coordinator=None, pods=())
    o = asked(o, suspend=True, **spec)
    return replace(o, workers=replace(workers(app(replicas=3), 0), inputs=o.app.inputs(IN_MAP)))


def test_a_suspended_application_is_at_rest() -> None:
    decision = decide(suspended())
    assert decision.actions == ()
    assert condition(decision, "Ready").reason == "Suspended"
    assert condition(decision, "Degraded").status == "False"


def test_it_resumes_with_the_members_it_had() -> None:
    """Ruling K8s 19: those of the manifest, all of which have claims; then it is rescaled."""
    assert size(decide(asked(suspended(), suspend=False, replicas=1))) == 3


def test_taking_suspension_back_starts_stopped_workers_again() -> None:
    o = at_rest(3, coordinator=coordinator(3, phase="ended", stop_requested=True))
    assert deleted(decide(o)) == ["count-0", "count-1", "count-2"]
    assert nothing_but_looking(replace(o, pods=(*o.pods[:2], pod(2, gone_by=NOW + 30))))


# Rollout


def changed(*proofs: Pod, **more: Any) -> Observed:
    """Another template is asked for."""
    o = asked(at_rest(3), args=["new"])
    return replace(o, proofs=tuple(replace(p, inputs=o.app.inputs(IN_MAP)) for p in proofs), **more)


PROVEN = Pod("count-check-1", "proof-uid", "9", phase="Succeeded", exit_code=0)
DISPROVEN = Pod(
    "count-check-1",
    "proof-uid",
    "9",
    phase="Failed",
    exit_code=2,
    last_words="Error\nmodule has no application_setup",
    finished_at=NOW - 100,
)
UNPULLED = Pod("count-check-1", "proof-uid", waiting="ImagePullBackOff", words="no such image")


def test_a_new_template_is_proven_first() -> None:
    """Ruling K8s 18."""
    decision = decide(changed())
    assert applied(decision) == ["Pod"]
    assert condition(decision, "Progressing").reason == "ProvingTemplate"
    assert condition(decision, "Ready").status == "True"


@pytest.mark.parametrize(
    ("proof", "words"), [(DISPROVEN, "no application_setup"), (UNPULLED, "no such image")]
)
def test_nothing_is_touched_when_that_fails(proof: Pod, words: str) -> None:
    """Ruling K8s 18."""
    decision = decide(changed(proof))
    assert decision.actions == ()
    found = condition(decision, "Progressing")
    assert (found.status, found.reason) == ("False", "RolloutFailed")
    assert words in found.message
    assert condition(decision, "Ready").status == "True"


def test_a_failure_that_is_not_the_templates_is_tried_again() -> None:
    """Ruling K8s 18."""
    evicted = replace(DISPROVEN, exit_code=-1, words="The node was low on memory")
    assert deleted(decide(changed(evicted))) == ["count-check-1"]


def test_a_rollout_is_checkpoint_apply_replace() -> None:
    """Ruling K8s 18."""
    assert decide(changed(PROVEN)).actions == (Stop(),)
    stopping = coordinator(3, phase="stopping", stop_requested=True)
    assert nothing_but_looking(changed(PROVEN, coordinator=stopping))
    ended = coordinator(3, phase="ended", stop_requested=True)
    apply = decide(changed(PROVEN, coordinator=ended))
    assert applied(apply) == ["StatefulSet"]
    assert size(apply) == 3
    o = changed(coordinator=ended)
    o = replace(o, workers=replace(workers(o.app, 3), revision="next"))
    assert deleted(decide(o)) == ["count-0", "count-1", "count-2"]


def test_a_rescale_before_its_switch_makes_way_for_a_rollout() -> None:
    """Ruling K8s 15."""
    c = coordinator(3, rescale=under_way(3, 2, "copy"))
    assert decide(changed(PROVEN, coordinator=c)).actions == (Rescale(1, THREE),)


def test_a_pod_of_another_revision_that_does_not_process_goes_at_once() -> None:
    """Ruling K8s 18: so a revert always heals."""
    o = at_rest(3, coordinator=None, unreached="connection refused")
    broken = tuple(pod(each, revision="bad", ready=False) for each in range(3))
    o = replace(o, pods=broken)
    assert deleted(decide(o)) == ["count-0", "count-1", "count-2"]
    one = at_rest(3, pods=(pod(0), pod(1), pod(2, revision="bad")))
    c = coordinator(3, phase="recovering")
    c = replace(c, workers={**c.workers, 2: replace(c.workers[2], present=False)})
    assert deleted(decide(replace(one, coordinator=c))) == ["count-2"]


def test_a_template_heals_workers_of_which_nothing_is_heard() -> None:
    """Ruling K8s 18."""
    crashing = tuple(pod(each, ready=False) for each in range(3))
    assert size(decide(changed(PROVEN, coordinator=None, pods=crashing))) == 3
    ready = changed(PROVEN, coordinator=None)
    assert size(decide(ready)) is None  # they may well process


def test_scaling_keeps_the_template_that_is_there() -> None:
    """Ruling K8s 23: an upgrade of the operator restarts no worker."""
    o = asked(at_rest(3), replicas=4)
    older = workers(o.app, 3)
    older = replace(older, template={**older.template, "spec": {**older.template["spec"], "x": 1}})
    decision = decide(replace(o, workers=older, stock="stock:2"))
    (sts,) = manifests_of(decision, "StatefulSet")
    assert sts["spec"]["template"] == older.template


def test_another_stock_image_restarts_no_worker() -> None:
    """Ruling K8s 23."""
    assert nothing_but_looking(replace(at_rest(), stock="stock:2"))


def test_a_rollout_by_annotation() -> None:
    """Ruling K8s 23."""
    o = at_rest()
    o = replace(o, app=replace(o.app, annotations={names.RESTARTED_AT: "now"}))
    assert applied(decide(o)) == ["Pod"]


def changed_while_suspended(*proofs: Pod, places: Sequence[str] = (), **spec: Any) -> Observed:
    """places: what had state when its workers were heard last."""
    o = asked(suspended(), args=["new"], **spec)
    o = replace(o, app=replace(o.app, status={**o.app.status, "places": list(places)}))
    return replace(o, proofs=tuple(replace(p, inputs=o.app.inputs(IN_MAP)) for p in proofs))


def test_a_suspended_application_takes_a_template_that_is_proven() -> None:
    """Ruling K8s 18."""
    first = decide(changed_while_suspended())
    assert applied(first) == ["Pod"]
    assert condition(first, "Progressing").reason == "ProvingTemplate"
    assert condition(first, "Ready").reason == "Suspended"
    tried = replace(PROVEN, phase="Running", exit_code=-1)
    assert nothing_but_looking(changed_while_suspended(tried))
    (proof,) = manifests_of(decide(changed_while_suspended(places=["count"])), "Pod")
    assert ["--steps-of", "count"] == proof["spec"]["containers"][0]["args"][2:4]
    taken = decide(changed_while_suspended(PROVEN))
    assert applied(taken) == ["StatefulSet"]
    assert size(taken) == 0


def test_a_template_that_does_not_work_changes_nothing_while_suspended() -> None:
    """Ruling K8s 18."""
    decision = decide(changed_while_suspended(DISPROVEN))
    assert decision.actions == ()
    assert condition(decision, "Progressing").reason == "RolloutFailed"
    assert condition(decision, "Degraded").reason == "RolloutFailed"
    assert condition(decision, "Ready").reason == "Suspended"


def test_it_resumes_with_a_new_template_once_that_is_proven() -> None:
    """Ruling K8s 18."""
    first = decide(changed_while_suspended(suspend=False))
    assert applied(first) == ["Pod"]
    assert condition(first, "Ready").reason == "Resuming"
    tried = replace(PROVEN, phase="Running", exit_code=-1)
    assert nothing_but_looking(changed_while_suspended(tried, suspend=False))
    resumed = decide(changed_while_suspended(PROVEN, suspend=False))
    (sts,) = manifests_of(resumed, "StatefulSet")
    assert sts["spec"]["replicas"] == 3
    assert "new" in sts["spec"]["template"]["spec"]["containers"][0]["args"]


def test_it_resumes_with_the_template_that_is_there_if_the_new_one_does_not_work() -> None:
    """Ruling K8s 18."""
    resumed = decide(changed_while_suspended(DISPROVEN, suspend=False))
    (sts,) = manifests_of(resumed, "StatefulSet")
    assert sts["spec"]["replicas"] == 3
    assert "new" not in sts["spec"]["template"]["spec"]["containers"][0]["args"]
    assert condition(resumed, "Degraded").reason == "RolloutFailed"
    assert deleted(resumed) == [], "the proof stays, or it would be tried again and again"


def test_a_proof_of_what_was_taken_back_while_suspended_is_swept_away() -> None:
    """Ruling K8s 18."""
    o = replace(suspended(), proofs=(replace(DISPROVEN, inputs="other"),))
    assert deleted(decide(o)) == ["count-check-1"]
    assert condition(decide(o), "Degraded").status == "False"


def test_what_a_rollout_has_left_is_swept_away() -> None:
    """Ruling K8s 18."""
    o = at_rest()
    old = manifests.module_map(o.app, Module("app.py", "old"))
    old["metadata"] |= {"uid": "old-uid", "resourceVersion": "2"}
    o = replace(o, objects={**o.objects, ("ConfigMap", old["metadata"]["name"]): old})
    assert deleted(decide(o)) == [old["metadata"]["name"]]
    assert deleted(decide(replace(at_rest(), proofs=(PROVEN,)))) == ["count-check-1"]


# What is wrong, in words


def test_names_that_are_taken_are_named_and_nothing_is_touched() -> None:
    """Ruling K8s 14."""
    o = replace(at_rest(), conflicts=("Service count is there already and belongs to nobody",))
    decision = decide(o)
    assert decision.actions == ()
    assert condition(decision, "Degraded").reason == "NameConflict"
    assert decision.again <= WAITING, "nothing tells when it is gone"
    stuck = replace(o.app, status=decision.status or {})
    assert decide(replace(o, app=stuck, now=NOW + 80)).again == 20
    assert decide(replace(o, app=stuck, now=NOW + 8000)).again == UNTOLD
    assert condition(decision, "Ready").status == "True"  # ruling K8s 22: members process
    forming = decide(replace(o, coordinator=coordinator(3, phase="forming")))
    assert "Service count" in condition(forming, "Ready").message


def test_what_is_left_of_a_former_application_is_waited_for() -> None:
    """Ruling K8s 14."""
    o = replace(at_rest(1, coordinator=None), workers=None, departing=("Service count",))
    decision = decide(o)
    assert decision.actions == ()
    found = condition(decision, "Ready")
    assert (found.status, found.reason) == ("False", "Starting")
    assert "Service count of a former application" in found.message
    assert condition(decision, "Degraded").status == "False"
    assert decision.again == WAITING, "nothing tells when it is gone"


def test_a_module_that_is_missing() -> None:
    gone = Module("app.py", missing="there is no ConfigMap module")
    first = decide(Observed(app(), NOW, "stock:1", created=CREATED, module=gone))
    assert first.actions == ()
    assert condition(first, "Ready").reason == "ModuleNotFound"
    running = decide(replace(at_rest(), module=gone))
    assert running.actions == ()
    assert condition(running, "Ready").status == "True"


def starting(**more: Any) -> Observed:
    o = at_rest(1, coordinator=None, unreached="no route")
    return replace(o, pods=(pod(0, ready=False, running_since=0.0, **more),))


@pytest.mark.parametrize(
    ("more", "reason", "words"),
    [
        ({"waiting": "ImagePullBackOff", "words": "not found"}, "ImagePullFailed", "not found"),
        ({"waiting": "CrashLoopBackOff", "exit_code": 1}, "CrashLoop", "kubectl logs"),
        ({"exit_code": 2, "last_words": "a\nno such module"}, "ModuleFailed", "no such module"),
        ({"waiting": "CreateContainerConfigError", "words": "no secret"}, "PodFailed", "no secret"),
    ],
)
def test_pods_that_can_not_run(more: dict[str, Any], reason: str, words: str) -> None:
    decision = decide(starting(**more))
    for kind in ("Ready", "Degraded"):
        found = condition(decision, kind)
        assert (found.reason, words in found.message) == (reason, True)


def test_a_pod_that_can_not_be_scheduled_is_for_an_autoscaler() -> None:
    """Ruling K8s 22: no person must act."""
    decision = decide(starting(unschedulable="no node has room"))
    assert condition(decision, "Ready").reason == "Unschedulable"
    assert condition(decision, "Degraded").status == "False"


def test_a_pod_on_a_node_that_is_gone_is_never_forced() -> None:
    """Ruling K8s 7."""
    c = coordinator(3, phase="recovering")
    c = replace(c, workers={**c.workers, 2: replace(c.workers[2], present=False)})
    stuck = pod(2, gone_by=NOW - 31, node="node-7")
    decision = decide(replace(at_rest(3, coordinator=c), pods=(pod(0), pod(1), stuck)))
    assert decision.actions == ()
    found = condition(decision, "Ready")
    assert (found.status, found.reason) == ("False", "WorkerUnreachable")
    assert all(word in found.message for word in ("count-2", "node-7", "out-of-service"))


def test_a_users_exception() -> None:
    """Ruling K8s 22: a person must act."""
    failure = {"message": "division by zero", "step": "divide", "key": "a", "event": "(1, 0)"}
    decision = decide(at_rest(3, coordinator=coordinator(3, phase="failed", failure=failure)))
    assert decision.actions == ()
    found = condition(decision, "Degraded")
    assert found.reason == "Failed"
    assert all(word in found.message for word in ("divide", "(1, 0)", "DeadLetter"))


def test_sources_that_have_ended() -> None:
    """Ruling K8s 8."""
    decision = decide(at_rest(3, coordinator=coordinator(3, phase="ended")))
    assert decision.actions == ()
    assert condition(decision, "Ready").reason == "Complete"
    assert condition(decision, "Degraded").status == "False"


def test_a_members_claim_that_is_being_deleted_is_told_while_there_is_time() -> None:
    o = at_rest(3)
    decision = decide(replace(o, claims=(*o.claims[:2], claim(2, deleting=True))))
    assert decision.actions == ()
    assert condition(decision, "Degraded").reason == "ClaimDeleted"
    assert condition(decision, "Ready").status == "True"


def test_a_coordinator_that_does_not_answer_though_it_is_ready() -> None:
    decision = decide(at_rest(3, coordinator=None, unreached="deadline exceeded"))
    assert condition(decision, "Ready").status == "Unknown"
    assert decision.actions == ()


def test_a_worker_that_runs_and_never_joins_is_replaced() -> None:
    mute = growing(pod=pod(3, ready=False, running_since=NOW - 301))
    assert deleted(decide(mute)) == ["count-3"]


# The status, and what is told


def test_a_status_that_was_wiped_is_found_again() -> None:
    """Ruling K8s 17."""
    o = at_rest()
    found = decide(replace(o, app=replace(o.app, status={})))
    assert found.actions == ()
    assert found.status is not None
    assert found.status["begun"] == "uid-of-the-app"
    assert found.status["members"] == 3


def test_the_time_of_a_condition_changes_with_its_status_alone() -> None:
    first = decide(at_rest())
    assert first.status is not None
    later = replace(remembering(at_rest(), **first.status), now=NOW + 60)
    assert decide(later).status == first.status
    assert decide(later).events == ()


def test_an_event_has_the_same_name_when_it_is_told_again() -> None:
    """Ruling K8s 21."""
    one, again = (decide(replace(shrunk(), now=NOW + each)).events for each in (0, 5))
    assert [e.name("count", "u") for e in one] == [e.name("count", "u") for e in again]
    assert len({e.name("count", "u") for e in one}) == len(one)


def test_above_500_pieces_the_status_holds_shares() -> None:
    """Ruling K8s 17."""
    from wallaroo.partitioning import INTERVAL, Piece

    cuts = [INTERVAL * each // 600 for each in range(601)]
    pieces = tuple(Piece(cuts[i], cuts[i + 1], i % 3) for i in range(600))
    c = replace(coordinator(3), assignment=Assignment(7, pieces))
    status = decide(at_rest(3, coordinator=c)).status
    assert status is not None
    assert "pieces" not in status["assignment"]
    assert [each["pieces"] for each in status["assignment"]["shares"]] == [200, 200, 200]


def test_a_member_that_just_joined_does_not_make_the_application_unready() -> None:
    """Ruling K8s 22: ready also during a rescale; what workers report comes a moment later."""
    found = {
        "worker": 0,
        "pod_uid": "pod-uid-0",
        "present": True,
        "processing": False,
        "ca": "",
        "keys": 0,
        "read": 0,
        "dead_letters": 0,
    }
    assignment = [{"start": 0, "end": 1 << 64, "worker": 0}]
    answer: dict[str, Any] = {
        "phase": "running",
        "application_id": "uid-of-the-app",
        "vacant": False,
        "lost": [],
        "stop_requested": False,
        "epoch": 1,
        "committed_at": NOW,
        "version": 1,
        "assignment": assignment,
        "members": [0],
        "joiners": [],
        "leaving": [],
        "workers": [found],
        "rescale": None,
        "rescales": [],
        "error": None,
        "places": [],
        "recoveries": 0,
        "keys": 0,
        "departed": {"read": 0, "dead_letters": 0},
    }
    c = Coordinator.read(answer)
    assert condition(decide(at_rest(1, coordinator=c)), "Ready").status == "True"


def test_a_complete_application_is_not_rescaled_and_says_so() -> None:
    decision = decide(asked(at_rest(3, coordinator=coordinator(3, phase="ended")), replicas=5))
    assert decision.actions == ()
    assert condition(decision, "Progressing").reason == "Complete"


def test_a_failure_of_the_scheduler_is_no_lack_of_room() -> None:
    conditions = [
        {"type": "PodScheduled", "status": "False", "reason": "SchedulerError", "message": "oops"}
    ]
    meta = {"name": "count-0", "uid": "u", "labels": {names.APPLICATION: "count"}}
    found = Pod.read({"metadata": meta, "status": {"conditions": conditions}}, "count")
    assert found.unschedulable == ""
