"""The coordinator's state machine: generations, epochs, faults and endings.

Rulings are those of docs/protocol.md.
"""

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.protocol.watch import OVER, Watched, beginning, register
from tests.unit.protocol.world import World

from wallaroo.errors import Failure
from wallaroo.partitioning.rewrite import rewrite
from wallaroo.protocol.coordinator import (
    BACK_OFF,
    LONGEST_BACK_OFF,
    SETTLE,
    Coordinator,
    Effect,
    Elapsed,
    Event,
    Heard,
    Lost,
    Persist,
    Persisted,
    Phase,
    RescaleRequested,
    StopRequested,
    Tell,
    Timer,
)
from wallaroo.protocol.manifest import DeltaMark, Part
from wallaroo.protocol.messages import (
    Broken,
    Commit,
    Drained,
    Enlisted,
    Failed,
    Finish,
    FromWorker,
    Halt,
    Inject,
    Prepared,
    Published,
    Ready,
    Recover,
    Refuse,
    Resume,
    Staged,
)

WORKERS = 2


def heard(worker: int, message: FromWorker, session: str = "") -> Heard:
    return Heard(worker, session or f"first {worker}", message)


def joined(worker: int, session: str = "") -> Heard:
    return heard(worker, register(worker), session)


def part(worker: int, epoch: int, generation: int, *, ended: bool = False) -> Part:
    marks = tuple(DeltaMark(each, generation, 0, 1) for each in range(1, epoch + 1))
    pairs = {("numbers", "ab"[worker % 2])} if ended else set()
    return Part(f"directory {worker}", marks, ended=frozenset(pairs))


def persisted(watched: Watched) -> list[Effect]:
    """The disk does what it was asked for."""
    manifest = watched.persisting
    assert manifest
    return watched.tell(Persisted(manifest.generation, manifest.epoch))


def recovering(workers: int = WORKERS, interval: float = 1.0) -> Watched:
    watched = Watched.new(workers, interval)
    watched.tell(*map(joined, range(workers)))
    persisted(watched)
    return watched


def all_say(watched: Watched, *messages: FromWorker, session: str = "") -> list[Effect]:
    members = watched.committed.members
    return watched.tell(*(heard(w, message, session) for message in messages for w in members))


def get_ready(watched: Watched) -> list[Effect]:
    return all_say(watched, Ready(watched.machine.generation))


def running(workers: int = WORKERS, interval: float = 1.0) -> Watched:
    watched = recovering(workers, interval)
    get_ready(watched)
    assert watched.machine.phase is Phase.RUNNING
    return watched


def elapse(watched: Watched, kind: str) -> list[Effect]:
    """The last timer of a kind runs out."""
    timers = [each for each in watched.effects if isinstance(each, Timer) and each.kind == kind]
    return watched.tell(Elapsed(timers[-1]))


def prepare(watched: Watched, *, ended: bool = False) -> list[Effect]:
    """All members report the epoch in flight."""
    generation, epoch = watched.machine.generation, watched.committed.epoch + 1
    return watched.tell(
        *(
            heard(w, Prepared(generation, epoch, part(w, epoch, generation, ended=ended)))
            for w in watched.committed.members
        )
    )


def commit(watched: Watched) -> list[Effect]:
    """An epoch from its injection to its commit."""
    elapse(watched, "epoch")
    prepare(watched)
    return persisted(watched)


def publish(watched: Watched) -> list[Effect]:
    return all_say(watched, Published(watched.machine.generation, watched.committed.epoch))


def told(effects: list[Effect]) -> list[object]:
    """What is said, once for all who are told the same."""
    messages: list[object] = []
    for effect in effects:
        if isinstance(effect, Tell) and effect.message not in messages:
            messages.append(effect.message)
    return messages


def kinds(effects: list[Effect]) -> list[type]:
    return [type(effect) for effect in effects]


class TestForming:
    def test_a_generation_forms_once_all_members_are_there(self) -> None:
        watched = Watched.new(3)
        assert watched.tell(joined(2), joined(0)) == []
        (effect,) = watched.tell(joined(1))
        assert isinstance(effect, Persist)
        assert (effect.manifest.generation, effect.manifest.epoch) == (1, 0)

    def test_its_number_is_durable_before_anybody_hears_it(self) -> None:
        """Ruling 3: the start of a generation is itself a manifest."""
        watched = Watched.new(WORKERS)
        effects = watched.tell(*map(joined, range(WORKERS)))
        assert kinds(effects) == [Persist]
        effects = persisted(watched)
        assert [type(message) for message in told(effects)] == [Recover, Recover]
        assert {effect.message.generation for effect in effects if isinstance(effect, Tell)} == {1}  # type: ignore[union-attr]

    def test_members_are_told_the_epoch_the_addresses_and_their_own_part(self) -> None:
        watched = running()
        commit(watched)
        watched.tell(Lost(1, "first 1"), joined(1, "second"))
        effects = persisted(watched)
        recover = {e.worker: e.message for e in effects if isinstance(e, Tell)}
        for worker, message in recover.items():
            assert isinstance(message, Recover)
            assert (message.generation, message.epoch) == (2, 1)
            assert message.addresses == {0: "unix:0", 1: "unix:1"}
            assert message.part == part(worker, 1, 1)

    def test_nothing_is_processed_before_all_have_gone_back(self) -> None:
        """Ruling 2: recovery has two steps."""
        watched = recovering()
        assert watched.tell(heard(1, Ready(1)), heard(1, Ready(1))) == []
        effects = watched.tell(heard(0, Ready(1)))
        assert told(effects) == [Resume(1)]

    def test_what_another_generation_was_ready_for_does_not_count(self) -> None:
        """Ruling 1."""
        watched = recovering()
        watched.tell(Lost(1, "first 1"), joined(1, "second"))
        persisted(watched)
        assert watched.tell(heard(0, Ready(1)), heard(1, Ready(1), "second")) == []
        watched.tell(heard(0, Ready(2)))
        assert told(watched.tell(heard(1, Ready(2), "second"))) == [Resume(2)]

    def test_a_member_that_is_lost_while_the_number_is_made_durable_is_waited_for(self) -> None:
        watched = Watched.new(WORKERS)
        watched.tell(joined(0), joined(1), Lost(1, "first 1"))
        assert persisted(watched) == []
        (effect,) = watched.tell(joined(1, "second"))
        assert isinstance(effect, Persist)
        assert effect.manifest.generation == 2, "no number is used twice"

    def test_a_member_that_is_replaced_meanwhile_takes_part(self) -> None:
        watched = Watched.new(WORKERS)
        watched.tell(joined(0), joined(1), Lost(1, "first 1"), joined(1, "second"))
        effects = persisted(watched)
        assert {(e.worker, e.session) for e in effects if isinstance(e, Tell)} == {
            (0, "first 0"),
            (1, "second"),
        }

    def test_one_with_another_directory_that_came_meanwhile_is_refused_once(self) -> None:
        """Ruling 5: the manifest holds, per member, the identity of its directory."""
        watched = Watched.new(WORKERS)
        watched.tell(joined(0), joined(1), Lost(1, "first 1"))
        watched.tell(heard(1, register(1, "another directory"), "second"))
        (effect,) = persisted(watched)
        assert isinstance(effect, Tell)
        assert (effect.worker, effect.session) == (1, "second")
        assert isinstance(effect.message, Refuse)
        (effect,) = watched.tell(joined(1, "third"))
        assert isinstance(effect, Persist)


class TestWhoIsRefused:
    @staticmethod
    def why(watched: Watched, event: Event) -> str:
        (effect,) = watched.tell(event)
        assert isinstance(effect, Tell)
        assert isinstance(effect.message, Refuse)
        return effect.message.message

    def test_one_of_another_program(self) -> None:
        other = replace(register(1), fingerprint="other")
        why = self.why(Watched.new(2), heard(1, other))
        assert "worker 1 runs another program than worker 0" in why

    def test_one_whose_directory_the_manifest_does_not_know(self) -> None:
        """Ruling 5: directories have identity."""
        watched = running()
        commit(watched)
        watched.tell(Lost(1, "first 1"))
        why = self.why(watched, heard(1, register(1, "empty one"), "second"))
        assert "worker 1's directory is not the one that the checkpoint of epoch 1 knows" in why
        assert "empty one" in why

    def test_one_that_holds_state_when_the_coordinator_knows_of_none(self) -> None:
        """Ruling 5: an empty directory of worker 0 would begin a second life."""
        why = self.why(Watched.new(2), heard(1, register(1, admitted=True)))
        assert "worker 0's directory is lost" in why

    def test_one_of_an_unknown_number_is_not_but_waits_to_join(self) -> None:
        assert Watched.new(2).tell(joined(2)) == []

    def test_the_loss_of_one_that_was_refused_harms_nobody(self) -> None:
        watched = running()
        other = replace(register(5), fingerprint="other")
        watched.tell(heard(5, other), Lost(5, "first 5"))
        assert watched.machine.phase is Phase.RUNNING


class TestEpochs:
    def test_one_is_injected_every_interval(self) -> None:
        watched = recovering(interval=2.5)
        (timer,) = [each for each in get_ready(watched) if isinstance(each, Timer)]
        assert (timer.kind, timer.seconds) == ("epoch", 2.5)
        effects = watched.tell(Elapsed(timer))
        assert told(effects) == [Inject(1, 1)]
        assert [each.seconds for each in effects if isinstance(each, Timer)] == [2.5]

    def test_one_is_in_flight_and_the_next_waits_for_its_commit(self) -> None:
        watched = running()
        elapse(watched, "epoch")
        assert elapse(watched, "epoch") == []
        prepare(watched)
        assert told(persisted(watched)) == [Commit(1, 1), Inject(1, 2)]

    def test_it_is_committed_once_its_manifest_is_durable_and_not_before(self) -> None:
        """Ruling 3: nothing is told before it returns."""
        watched = running()
        elapse(watched, "epoch")
        (effect,) = prepare(watched)
        assert isinstance(effect, Persist)
        assert effect.manifest.parts == {0: part(0, 1, 1), 1: part(1, 1, 1)}
        assert told(persisted(watched)) == [Commit(1, 1)]
        assert watched.committed.epoch == 1

    def test_a_report_that_is_said_twice_is_one(self) -> None:
        watched = running()
        elapse(watched, "epoch")
        report = heard(0, Prepared(1, 1, part(0, 1, 1)))
        assert watched.tell(report, report) == []

    @pytest.mark.parametrize(("generation", "epoch"), [(1, 2), (1, 0), (0, 1), (2, 1)])
    def test_a_report_of_another_epoch_or_generation_does_not_count(
        self, generation: int, epoch: int
    ) -> None:
        """Ruling 1."""
        watched = running()
        elapse(watched, "epoch")
        watched.tell(heard(0, Prepared(1, 1, part(0, 1, 1))))
        assert watched.tell(heard(1, Prepared(generation, epoch, part(1, 1, 1)))) == []

    def test_a_report_that_comes_again_after_the_commit_does_nothing(self) -> None:
        watched = running()
        commit(watched)
        elapse(watched, "epoch")
        assert watched.tell(heard(0, Prepared(1, 1, part(0, 1, 1)))) == []
        assert watched.machine._parts == {}

    def test_without_an_interval_none_is_injected_but_the_last(self) -> None:
        watched = recovering(interval=0)
        assert told(get_ready(watched)) == [Resume(1)]
        assert not [each for each in watched.effects if isinstance(each, Timer)]
        assert told(watched.tell(StopRequested())) == [Inject(1, 1, final=True)]

    def test_a_timer_of_an_earlier_generation_injects_nothing(self) -> None:
        watched = running()
        timer = next(each for each in watched.effects if isinstance(each, Timer))
        watched.tell(Lost(1, "first 1"), joined(1, "second"))
        persisted(watched)
        watched.tell(Elapsed(timer))
        watched.tell(heard(0, Ready(2)))
        assert told(watched.tell(heard(1, Ready(2), "second"))) == [Resume(2)]
        assert watched.tell(Elapsed(timer)) == []


class TestFaults:
    def test_all_others_halt_and_a_new_generation_begins_at_the_last_commit(self) -> None:
        watched = running()
        commit(watched)
        assert watched.tell(Lost(1, "first 1")) == [Tell(0, "first 0", Halt())]
        (effect,) = watched.tell(joined(1, "second"))
        assert isinstance(effect, Persist)
        assert (effect.manifest.generation, effect.manifest.epoch) == (2, 1)
        assert watched.machine.recoveries == 1

    def test_a_successor_that_is_there_before_the_loss_is_noticed_begins_one_too(self) -> None:
        watched = running()
        effects = watched.tell(joined(1, "second"))
        assert effects[0] == Tell(0, "first 0", Halt())
        assert kinds(effects) == [Tell, Persist]
        assert watched.tell(Lost(1, "first 1"), heard(1, Drained(1))) == []

    def test_a_stream_that_breaks_is_one_once_its_worker_may_have_turned_out_to_be_gone(
        self,
    ) -> None:
        watched = running()
        effects = watched.tell(heard(0, Broken(1, 1)))
        assert told(effects) == [Halt()]
        (timer,) = [each for each in effects if isinstance(each, Timer)]
        assert (timer.kind, timer.seconds) == ("form", SETTLE)
        assert watched.tell(heard(1, Broken(1, 0))) == [], "both ends tell of one fault"
        assert kinds(watched.tell(Elapsed(timer))) == [Persist]

    def test_a_stream_that_broke_in_an_earlier_generation_is_none(self) -> None:
        """Ruling 1."""
        watched = running()
        watched.tell(heard(0, Broken(1, 1)))
        elapse(watched, "form")
        persisted(watched)
        assert watched.tell(heard(1, Broken(1, 0))) == []
        get_ready(watched)
        assert watched.tell(heard(1, Broken(1, 0))) == []
        assert watched.machine.phase is Phase.RUNNING

    def test_a_loss_while_others_go_back_begins_another_generation(self) -> None:
        watched = recovering()
        watched.tell(heard(0, Ready(1)), Lost(1, "first 1"), joined(1, "second"))
        elapse(watched, "form") if not watched.persisting else None
        persisted(watched)
        assert watched.machine.phase is Phase.RECOVERING
        assert watched.machine.generation == 2

    def test_an_epoch_in_flight_is_forgotten(self) -> None:
        watched = running()
        elapse(watched, "epoch")
        watched.tell(heard(0, Prepared(1, 1, part(0, 1, 1))))
        watched.tell(Lost(1, "first 1"), joined(1, "second"))
        assert watched.tell(heard(0, Prepared(1, 1, part(0, 1, 1)))) == []
        persisted(watched)
        watched.tell(heard(0, Ready(2)), heard(1, Ready(2), "second"))
        elapse(watched, "epoch")
        assert watched.tell(heard(1, Prepared(2, 1, part(1, 1, 2)), "second")) == []
        (effect,) = watched.tell(heard(0, Prepared(2, 1, part(0, 1, 2))))
        assert isinstance(effect, Persist)
        assert effect.manifest.parts == {0: part(0, 1, 2), 1: part(1, 1, 2)}

    def test_a_loss_while_a_manifest_is_made_durable_waits_for_it_and_goes_on_from_it(
        self,
    ) -> None:
        """Two manifests are never under way; what may be durable is never gone behind."""
        watched = running()
        elapse(watched, "epoch")
        prepare(watched)
        assert told(watched.tell(Lost(1, "first 1"), joined(1, "second"))) == [Halt()]
        (effect,) = persisted(watched)
        assert isinstance(effect, Persist)
        assert (effect.manifest.generation, effect.manifest.epoch) == (2, 1)

    def test_a_disk_that_says_twice_that_it_is_done_commits_once(self) -> None:
        watched = running()
        commit(watched)
        assert watched.tell(Persisted(1, 1), Persisted(1, 0), Persisted(2, 1)) == []

    def test_the_session_of_a_successor_is_the_only_one_that_is_heard(self) -> None:
        watched = running()
        watched.tell(Lost(1, "first 1"), joined(1, "second"))
        persisted(watched)
        watched.tell(heard(0, Ready(2)))
        assert watched.tell(heard(1, Ready(2))) == []
        assert told(watched.tell(heard(1, Ready(2), "second"))) == [Resume(2)]


class TestBackOff:
    """Ruling 6: a fault before the first commit since the last recovery backs off."""

    @staticmethod
    def fault(watched: Watched) -> float:
        """Worker 1 dies and is there again; for how long the next generation waits."""
        session = watched.machine._present[1][0]
        effects = watched.tell(Lost(1, session), joined(1, session + "'"))
        timers = [each for each in effects if isinstance(each, Timer)]
        if timers:
            watched.tell(Elapsed(timers[0]))
        persisted(watched)
        generation = watched.machine.generation
        watched.tell(heard(0, Ready(generation)), heard(1, Ready(generation), session + "'"))
        return timers[0].seconds if timers else 0.0

    def test_it_is_doubled_with_each_fault_up_to_the_longest(self) -> None:
        watched = running()
        waits = [self.fault(watched) for _ in range(8)]
        doubled = [BACK_OFF * 2**n for n in range(7)]
        assert waits == [0.0, *(min(each, LONGEST_BACK_OFF) for each in doubled)]

    def test_it_ends_with_a_commit(self) -> None:
        watched = running()
        self.fault(watched)
        self.fault(watched)
        elapse(watched, "epoch")
        generation = watched.machine.generation
        session = watched.machine._present[1][0]
        watched.tell(heard(0, Prepared(generation, 1, part(0, 1, generation))))
        watched.tell(heard(1, Prepared(generation, 1, part(1, 1, generation)), session))
        persisted(watched)
        assert self.fault(watched) == 0.0

    def test_a_commit_of_the_time_before_the_fault_does_not_spare_the_next(self) -> None:
        watched = running()
        elapse(watched, "epoch")
        prepare(watched)
        watched.tell(Lost(1, "first 1"), joined(1, "second"))
        persisted(watched)
        persisted(watched)
        watched.tell(heard(0, Ready(2)), heard(1, Ready(2), "second"))
        assert self.fault(watched) == BACK_OFF

    def test_it_goes_on_for_as_long_as_the_faults_do(self) -> None:
        watched = running()
        for _ in range(1100):
            wait = self.fault(watched)
        assert wait == LONGEST_BACK_OFF

    def test_a_worker_that_is_there_meanwhile_waits_too(self) -> None:
        watched = running()
        self.fault(watched)
        session = watched.machine._present[1][0]
        watched.tell(Lost(1, session))
        assert watched.tell(joined(1, "third")) == []
        assert kinds(elapse(watched, "form")) == [Persist]


class TestEndings:
    def test_a_stop_brings_a_final_barrier_once(self) -> None:
        watched = running()
        effects = watched.tell(StopRequested(), StopRequested())
        assert told(effects) == [Inject(1, 1, final=True)]
        assert watched.machine.phase is Phase.STOPPING

    def test_a_stop_before_the_generation_forms_is_carried_out_once_it_has(self) -> None:
        watched = Watched.new(WORKERS)
        assert watched.tell(StopRequested()) == []
        watched.tell(*map(joined, range(WORKERS)))
        persisted(watched)
        assert told(get_ready(watched)) == [Resume(1), Inject(1, 1, final=True)]

    def test_a_stop_while_an_epoch_is_in_flight_waits_for_its_commit(self) -> None:
        watched = running()
        elapse(watched, "epoch")
        assert watched.tell(StopRequested()) == []
        prepare(watched)
        assert told(persisted(watched)) == [Commit(1, 1), Inject(1, 2, final=True)]

    def test_the_end_of_all_sources_brings_a_final_barrier(self) -> None:
        watched = running()
        assert watched.tell(heard(0, Drained(1)), heard(0, Drained(1))) == []
        assert told(watched.tell(heard(1, Drained(1)))) == [Inject(1, 1, final=True)]

    def test_what_had_come_to_its_end_before_a_fault_has_to_say_so_again(self) -> None:
        watched = running()
        watched.tell(heard(0, Drained(1)), Lost(1, "first 1"), joined(1, "second"))
        persisted(watched)
        watched.tell(heard(0, Ready(2)), heard(1, Ready(2), "second"))
        assert watched.tell(heard(1, Drained(2), "second"), heard(0, Drained(1))) == []
        assert told(watched.tell(heard(0, Drained(2)))) == [Inject(2, 1, final=True)]

    def test_workers_end_once_all_have_published_the_final_epoch(self) -> None:
        watched = running()
        watched.tell(StopRequested())
        prepare(watched)
        assert told(persisted(watched)) == [Commit(1, 1)]
        assert watched.tell(heard(0, Published(1, 1)), heard(0, Published(1, 1))) == []
        assert watched.tell(heard(1, Published(1, 0))) == []
        assert told(watched.tell(heard(1, Published(1, 1)))) == [Finish()]
        assert watched.machine.phase is Phase.ENDED

    def test_a_final_epoch_that_a_fault_undid_is_injected_again(self) -> None:
        watched = running()
        watched.tell(StopRequested(), Lost(1, "first 1"), joined(1, "second"))
        persisted(watched)
        watched.tell(heard(0, Ready(2)))
        effects = watched.tell(heard(1, Ready(2), "second"))
        assert told(effects) == [Resume(2), Inject(2, 1, final=True)]

    @pytest.mark.parametrize("when", ["before it is durable", "before all have published"])
    def test_a_fault_between_the_final_commit_and_the_end_ends_without_processing_anything(
        self, when: str
    ) -> None:
        """Ruling 17: nothing follows a final barrier until the application runs again."""
        watched = running()
        watched.tell(StopRequested())
        prepare(watched)
        if when == "before all have published":
            persisted(watched)
            watched.tell(heard(0, Published(1, 1)))
        watched.tell(Lost(1, "first 1"), joined(1, "second"))
        if when == "before it is durable":
            persisted(watched)
        persisted(watched)
        watched.tell(heard(0, Ready(2)))
        assert told(watched.tell(heard(1, Ready(2), "second"))) == [Finish()]
        assert watched.machine.phase is Phase.ENDED

    def test_a_committed_manifest_with_all_partitions_ended_ends_the_next_run_at_once(
        self,
    ) -> None:
        """Ruling 18."""
        watched = running()
        all_say(watched, Drained(1))
        prepare(watched, ended=True)
        persisted(watched)
        assert watched.committed.complete
        again = Watched(Coordinator(watched.committed, "same", 1.0))
        again.tell(*map(joined, range(WORKERS)))
        persisted(again)
        assert told(get_ready(again)) == [Finish()]
        assert again.machine.phase is Phase.ENDED

    def test_a_regular_epoch_with_all_partitions_ended_is_followed_by_a_final_one(self) -> None:
        """Ruling 18: the sources had ended, and worker 1 has not said so yet."""
        watched = running()
        watched.tell(heard(0, Drained(1)))
        elapse(watched, "epoch")
        prepare(watched, ended=True)
        persisted(watched)
        assert watched.machine.phase is Phase.RUNNING
        assert told(watched.tell(heard(1, Drained(1)))) == [Inject(1, 2, final=True)]

    def test_a_failure_ends_all_at_once(self) -> None:
        watched = running()
        assert told(watched.tell(heard(1, Failed(Failure("no"))))) == [Finish()]
        assert watched.machine.phase is Phase.FAILED

    def test_nothing_is_committed_after_a_failure(self) -> None:
        """The last report may come when the failure was heard already."""
        watched = running()
        elapse(watched, "epoch")
        watched.tell(heard(0, Prepared(1, 1, part(0, 1, 1))), heard(0, Failed(Failure("no"))))
        assert watched.tell(heard(1, Prepared(1, 1, part(1, 1, 1)))) == []

    def test_one_that_comes_when_all_is_over_is_told_to_end(self) -> None:
        watched = running()
        watched.tell(heard(0, Failed(Failure("no"))))
        assert watched.tell(joined(1, "second")) == [Tell(1, "second", Finish())]

    def test_a_failure_in_an_earlier_session_is_none(self) -> None:
        watched = running()
        watched.tell(Lost(1, "first 1"), joined(1, "second"))
        assert watched.tell(heard(1, Failed(Failure("no")))) == []
        assert watched.machine.phase is Phase.FORMING

    @pytest.mark.parametrize("ending", ["stop", "failure"])
    def test_nothing_but_the_end_is_said_when_all_is_over(self, ending: str) -> None:
        watched = running()
        if ending == "failure":
            watched.tell(heard(1, Failed(Failure("no"))))
        else:
            watched.tell(StopRequested())
            prepare(watched)
            persisted(watched)
            publish(watched)
        assert watched.machine.phase in OVER
        for event in list(watched.events):
            if (event.message if isinstance(event, Heard) else None) is not None:
                assert not [e for e in watched.tell(event) if not isinstance(e, Tell)]
        assert watched.tell(StopRequested(), Lost(0, "first 0"), Lost(1, "first 1")) == []


@settings(max_examples=150, deadline=None)
@given(
    workers=st.integers(1, 4),
    seed=st.integers(0, 1 << 30),
    interval=st.sampled_from([0.0, 1.0]),
    faults=st.sampled_from([0.01, 0.05, 0.15, 0.4]),
    drains=st.booleans(),
    stop=st.booleans(),
)
def test_whatever_breaks_the_machines_stay_consistent_and_come_to_run_again(
    workers: int, seed: int, interval: float, faults: float, drains: bool, stop: bool
) -> None:
    """Rulings 1, 2, 3, 17 and 28; the checks are in `Watched` and `World`."""
    world = World(workers, seed, interval=interval, drains=drains)
    stop_at = world.chance.randrange(300) if stop else -1
    for step in range(300):
        if step == stop_at:
            world.stop()
        world.step(faults=faults)
    world.calm(lambda: world.works or world.over)
    if not (drains or stop or world.over) and interval:
        goal = world.watched.committed.epoch + 3
        world.calm(lambda: world.watched.committed.epoch >= goal)
    world.stop()
    world.calm(lambda: world.over and all(each.ended for each in world.processes.values()))
    assert world.phase is Phase.ENDED


@settings(max_examples=150, deadline=None)
@given(
    workers=st.integers(1, 3), seed=st.integers(0, 1 << 30), interval=st.sampled_from([0.0, 1.0])
)
def test_no_sequence_of_events_at_all_breaks_what_must_hold(
    workers: int, seed: int, interval: float
) -> None:
    """Late, doubled, of old sessions, generations and epochs; some of them nobody would say."""
    chance = random.Random(seed)
    watched = Watched.new(workers, interval)
    for _ in range(250):
        watched.tell(_any_event(chance, watched))


def rescale_messages(generation: int, attempt: int, epoch: int) -> list[FromWorker]:
    return [
        *[Enlisted(generation, attempt)] * 4,
        *[Staged(generation, attempt, epoch, 1, 10)] * 4,
        Published(generation, epoch),
        Broken(generation, 0, attempt),
        Broken(generation, 7, attempt),
    ]


def _any_event(chance: random.Random, watched: Watched) -> Event:
    machine = watched.machine
    if watched.events and chance.random() < 0.2:
        return chance.choice(watched.events)
    others = machine.rescale.everyone if machine.rescale else watched.committed.leaving
    worker = chance.choice([*watched.committed.members, *watched.committed.members, *others, 7, 8])
    session = watched.sessions.get(worker, f"{worker}/{chance.randrange(3)}")
    if chance.random() < 0.1:
        session = f"{worker}/{chance.randrange(20)}"
    generation = max(0, machine.generation + chance.choice((0, 0, 0, 0, -1, 1)))
    epoch = max(0, watched.committed.epoch + chance.choice((1, 1, 1, 0, 2)))
    what = chance.random()
    if what < 0.2 or worker not in machine._present:
        directory = "" if chance.random() < 0.9 else "another"
        register_ = register(worker, directory, admitted=chance.random() < 0.1)
        return Heard(worker, session, register_)
    if what < 0.25:
        return Lost(worker, session)
    if what < 0.5:
        manifest = watched.persisting
        if manifest and chance.random() < 0.8:
            return Persisted(manifest.generation, manifest.epoch)
        return Persisted(generation, epoch)
    if what < 0.6:
        timers = [each for each in watched.effects if isinstance(each, Timer)]
        return Elapsed(chance.choice(timers)) if timers else Elapsed(Timer("form", 1, 1.0))
    if what < 0.602:
        return StopRequested()
    if what < 0.603:
        return Heard(worker, session, Failed(Failure("no")))
    if what < 0.63:
        base = machine.committed.assignment.version - (chance.random() < 0.1)
        workers = [0, *chance.sample(range(1, 9), chance.randrange(4))]
        return RescaleRequested(base, rewrite(machine.committed.assignment, workers))
    attempt = machine.rescale.attempt if machine.rescale else chance.randrange(4)
    said = rescale_messages(generation, attempt, epoch - 1)
    taking_part = {
        *machine.committed.members,
        *(machine.rescale.everyone if machine.rescale else ()),
    }
    if chance.random() < 0.4 or worker not in taking_part:
        return Heard(worker, session, chance.choice(said))
    report = part(worker, epoch, generation, ended=chance.random() < 0.1)
    messages: list[FromWorker] = [
        *[Ready(generation)] * 4,
        *[Prepared(generation, epoch, report)] * 4,
        *[Published(generation, epoch - 1)] * 2,
        Drained(generation),
        Broken(generation, 0),
    ]
    return Heard(worker, session, chance.choice(messages))


def test_a_manifest_of_an_earlier_run_is_where_the_next_one_begins() -> None:
    """Ruling 3: the numbers go on, so that none is used twice."""
    committed = replace(beginning(1), generation=5, epoch=9, parts={0: part(0, 9, 5)})
    watched = Watched(Coordinator(committed, "same", 1.0))
    (effect,) = watched.tell(joined(0))
    assert isinstance(effect, Persist)
    assert (effect.manifest.generation, effect.manifest.epoch) == (6, 9)
    assert told(persisted(watched)) == [
        Recover(
            6,
            9,
            committed.assignment,
            {0: "unix:0"},
            committed.places,
            committed.partitions,
            part(0, 9, 5),
        )
    ]
