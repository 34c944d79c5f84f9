"""The coordinator's state machine: from workers that appear to workers that end together."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wallaroo.protocol.coordinator import (
    BarrierPassed,
    Connect,
    Connected,
    Coordinator,
    Effect,
    Event,
    Finish,
    Inject,
    Lost,
    Phase,
    Refuse,
    Registered,
    SourcesEnded,
    Start,
    StopRequested,
)


def registered(worker: int, fingerprint: str = "same") -> Registered:
    return Registered(worker, f"unix:{worker}", fingerprint)


def tell(machine: Coordinator, *events: Event) -> list[Effect]:
    return [effect for event in events for effect in machine.handle(event)]


def running(workers: int) -> Coordinator:
    machine = Coordinator(workers)
    tell(machine, *(registered(w) for w in range(workers)))
    tell(machine, *(Connected(w) for w in range(workers)))
    assert machine.phase is Phase.RUNNING
    return machine


def test_workers_connect_once_all_are_there() -> None:
    machine = Coordinator(3)
    assert tell(machine, registered(2), registered(0)) == []
    assert tell(machine, registered(1)) == [Connect({2: "unix:2", 0: "unix:0", 1: "unix:1"})]


def test_sources_are_read_once_all_are_connected() -> None:
    machine = Coordinator(2)
    tell(machine, registered(0), registered(1))
    assert tell(machine, Connected(1)) == []
    assert tell(machine, Connected(1)) == [], "told twice by one is not told by both"
    assert tell(machine, Connected(0)) == [Start()]


def test_a_worker_of_another_program_is_refused_and_named() -> None:
    machine = Coordinator(2)
    tell(machine, registered(0))
    (refusal,) = tell(machine, registered(1, "other"))
    assert isinstance(refusal, Refuse)
    assert refusal.worker == 1
    assert "worker 1 runs another program than worker 0" in refusal.message
    assert tell(machine, registered(1)) == [Connect({0: "unix:0", 1: "unix:1"})]


@pytest.mark.parametrize("worker", [-1, 2])
def test_a_worker_outside_the_members_is_refused(worker: int) -> None:
    (refusal,) = tell(Coordinator(2), registered(worker))
    assert isinstance(refusal, Refuse)


def test_a_second_process_that_claims_a_workers_place_is_refused() -> None:
    machine = Coordinator(2)
    tell(machine, registered(0))
    assert tell(machine, registered(0)) == [], "the same one again is no other"
    (refusal,) = tell(machine, Registered(0, "unix:elsewhere", "same"))
    assert isinstance(refusal, Refuse)
    assert "registered already" in refusal.message


def test_the_end_of_all_sources_brings_one_final_barrier() -> None:
    machine = running(2)
    assert tell(machine, SourcesEnded(0), SourcesEnded(0)) == []
    assert tell(machine, SourcesEnded(1)) == [Inject(1, final=True)]
    assert tell(machine, SourcesEnded(1), StopRequested()) == []


def test_a_stop_brings_a_final_barrier_once() -> None:
    machine = running(2)
    assert tell(machine, StopRequested(), StopRequested()) == [Inject(1, final=True)]
    assert machine.phase is Phase.STOPPING


def test_a_stop_before_all_are_connected_waits_for_the_start() -> None:
    machine = Coordinator(1)
    assert tell(machine, StopRequested()) == []
    tell(machine, registered(0))
    assert tell(machine, Connected(0)) == [Start(), Inject(1, final=True)]


def test_workers_end_once_all_have_passed_the_final_barrier() -> None:
    machine = running(2)
    tell(machine, StopRequested())
    assert tell(machine, BarrierPassed(0, 1)) == []
    assert tell(machine, BarrierPassed(1, 7)) == [], "another epoch's barrier is not it"
    assert tell(machine, BarrierPassed(1, 1)) == [Finish()]
    assert machine.phase is Phase.ENDED


def test_a_lost_worker_is_a_failure_unless_all_have_ended() -> None:
    machine = running(1)
    tell(machine, StopRequested(), BarrierPassed(0, 1), Lost(0))
    assert machine.phase is Phase.ENDED
    machine = running(2)
    tell(machine, Lost(1))
    assert machine.phase is Phase.FAILED
    assert tell(machine, StopRequested(), SourcesEnded(0), SourcesEnded(1)) == []


def test_a_worker_that_comes_after_a_failure_is_refused() -> None:
    machine = Coordinator(2)
    tell(machine, registered(0), Lost(0))
    assert tell(machine, registered(1)) == [Refuse(1, "the application has failed")]
    assert machine.phase is Phase.FAILED


def test_the_loss_of_a_process_that_was_refused_harms_nobody() -> None:
    machine = running(1)
    tell(machine, registered(5), Lost(5))
    assert machine.phase is Phase.RUNNING


@given(workers=st.integers(1, 5), seed=st.integers(0, 10_000), stop=st.booleans())
def test_in_any_order_and_told_twice_everything_happens_once(
    workers: int, seed: int, stop: bool
) -> None:
    rng = random.Random(seed)
    machine = Coordinator(workers)
    effects: list[Effect] = []

    def all_say(*kinds: list[Event]) -> None:
        events = [event for kind in kinds for event in kind for _ in range(rng.randint(1, 2))]
        rng.shuffle(events)
        effects.extend(tell(machine, *events))

    members = range(workers)
    all_say([registered(w) for w in members], [StopRequested()] if stop else [])
    all_say([Connected(w) for w in members])
    all_say([SourcesEnded(w) for w in members])
    all_say([BarrierPassed(w, 1) for w in members])
    kinds = [type(effect) for effect in effects]
    assert kinds == [Connect, Start, Inject, Finish]
    assert machine.phase is Phase.ENDED
