"""The coordinator's part in a rescale: members and owners change at one barrier, or not at all.

Rulings are those of docs/protocol.md.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.protocol.test_coordinator import (
    all_say,
    commit,
    elapse,
    heard,
    joined,
    kinds,
    part,
    persisted,
    prepare,
    running,
    told,
)
from tests.unit.protocol.watch import Watched, register
from tests.unit.protocol.world import World

from wallaroo.errors import Failure
from wallaroo.partitioning import INTERVAL, Assignment
from wallaroo.partitioning.rewrite import minimum, moved, moves, rewrite
from wallaroo.protocol.coordinator import (
    COPY_TIME,
    DRAIN_TIME,
    GRACE,
    SETTLE,
    Answer,
    Coordinator,
    Effect,
    Elapsed,
    Event,
    Lost,
    Persist,
    Persisted,
    Phase,
    RescaleRequested,
    StopRequested,
    Tell,
    Timer,
)
from wallaroo.protocol.manifest import Part
from wallaroo.protocol.messages import (
    Abort,
    Broken,
    Commit,
    ConnectionsClosed,
    Copy,
    Drain,
    Drained,
    Enlist,
    Enlisted,
    Failed,
    Finish,
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
from wallaroo.protocol.rescale import HISTORY
from wallaroo.protocol.rescale import Phase as Step

MARKS = ({"sink": "out", "mark": {"start": 3}},)


# How far an attempt is brought


def request(watched: Watched, workers: int | Sequence[int], base: int = 0) -> RescaleRequested:
    old = watched.committed.assignment
    members = range(workers) if isinstance(workers, int) else workers
    return RescaleRequested(base or old.version, rewrite(old, members))


def asked(watched: Watched, workers: int | Sequence[int]) -> list[Effect]:
    """Another number of workers is asked for, when those that are to join are there."""
    event = request(watched, workers)
    there = set(event.assignment.workers) - watched.machine.present
    watched.tell(*map(joined, sorted(there)))
    return watched.tell(event)


def refusal(effects: list[Effect]) -> str:
    (answer,) = [each.refusal for each in effects if isinstance(each, Answer)]
    return answer


def attempt_of(watched: Watched) -> Enlist:
    assert watched.enlist
    return watched.enlist


def enlisted(watched: Watched) -> list[Effect]:
    """All that take part are ready."""
    to = attempt_of(watched)
    said = Enlisted(to.generation, to.attempt)
    return watched.tell(*(heard(w, said) for w in sorted(watched.everyone)))


def staged(watched: Watched, epoch: int, *, entries: int = 1, size: int = 10) -> list[Effect]:
    """All receivers have what was committed up to an epoch."""
    to = attempt_of(watched)
    said = Staged(to.generation, to.attempt, epoch, entries, size)
    receivers = sorted({move.receiver for move in moves(to.old, to.new)})
    return watched.tell(*(heard(w, said) for w in receivers))


def copying(workers: int, wanted: int | Sequence[int], interval: float = 1.0) -> Watched:
    """A rescale in its phase Copy, behind the commit of epoch 1."""
    watched = running(workers, interval)
    commit(watched) if interval else None
    asked(watched, wanted)
    enlisted(watched)
    if not interval:
        prepare(watched)
        persisted(watched)
    assert phase(watched) is Step.COPY
    return watched


def catching_up(workers: int, wanted: int | Sequence[int]) -> Watched:
    """Receivers have epoch 1, and epoch 2 is under way."""
    watched = copying(workers, wanted)
    assert told(staged(watched, 1)) == [Inject(1, 2)]
    assert phase(watched) is Step.CATCH_UP
    return watched


def switching(workers: int, wanted: int | Sequence[int]) -> Watched:
    """Epoch 3 is the one behind which the new assignment holds; it is under way."""
    watched = catching_up(workers, wanted)
    prepare(watched)
    persisted(watched)
    assert phase(watched) is Step.SWITCH
    return watched


def prepare_switch(watched: Watched, *, but: int | None = None, held: float = 0.0) -> list[Effect]:
    """All that take part report the epoch of the switch; all but one if that is said."""
    generation, epoch = watched.machine.generation, watched.committed.epoch + 1
    return watched.tell(
        *(
            heard(w, Prepared(generation, epoch, last_part(watched, w), held))
            for w in sorted(watched.everyone)
            if w != but
        )
    )


def last_part(watched: Watched, worker: int) -> Part:
    epoch = watched.committed.epoch + 1
    return replace(part(worker, epoch, watched.machine.generation), sinks=MARKS)


def switched(workers: int, wanted: int | Sequence[int]) -> Watched:
    """Epoch 3 is committed, and with it the new assignment."""
    watched = switching(workers, wanted)
    prepare_switch(watched)
    persisted(watched)
    assert watched.machine.rescale is None
    return watched


def phase(watched: Watched) -> Step:
    attempt = watched.machine.rescale
    assert attempt
    return attempt.phase


def outcome(watched: Watched) -> tuple[str, str]:
    """Of the last attempt: what came of it, and why."""
    record = watched.machine.history[-1]
    return record["outcome"], record["why"]


def receivers_of(effects: list[Effect], kind: type) -> list[int]:
    return sorted(e.worker for e in effects if isinstance(e, Tell) and isinstance(e.message, kind))


class TestAsking:
    """Ruling 25: each attempt rewrites anew from the version in force: compare and set."""

    def test_all_members_and_those_that_join_are_told_to_get_ready(self) -> None:
        watched = running(2)
        commit(watched)
        effects = asked(watched, 4)
        assert receivers_of(effects, Enlist) == [0, 1, 2, 3]
        to = attempt_of(watched)
        assert (to.old, to.new.version) == (Assignment.first(2), 2)
        assert to.new.workers == (0, 1, 2, 3)
        assert to.addresses == {w: f"unix:{w}" for w in range(4)}
        assert refusal(effects) == ""

    @pytest.mark.parametrize("base", [2, 7])
    def test_an_assignment_that_was_rewritten_from_another_version_is_refused(
        self, base: int
    ) -> None:
        watched = running(2)
        why = refusal(watched.tell(request(watched, 1, base)))
        assert f"from version {base} to 2, but version 1 is in force: rewrite that one" in why
        assert watched.machine.rescale is None

    def test_an_assignment_that_leaves_a_version_out_is_refused(self) -> None:
        watched = running(2)
        new = replace(rewrite(Assignment.first(2), [0]), version=3)
        assert "version 1 is in force" in refusal(watched.tell(RescaleRequested(1, new)))

    def test_after_the_switch_the_version_before_is_refused(self) -> None:
        watched = running(2)
        late = request(watched, 1)
        watched = switched(2, 3)
        assert "but version 2 is in force" in refusal(watched.tell(late))

    def test_one_that_is_to_join_and_is_not_there_is_named(self) -> None:
        watched = running(2)
        watched.tell(joined(3))
        assert refusal(watched.tell(request(watched, 4))) == (
            "worker 2 is not there: start it first"
        )

    def test_worker_0_can_not_leave(self) -> None:
        watched = running(2)
        assert "worker 0 can't leave" in refusal(watched.tell(request(watched, [1])))

    @pytest.mark.parametrize("when", ["forming", "recovering", "stopping"])
    def test_it_is_refused_while_the_application_does_not_run(self, when: str) -> None:
        watched = running(2)
        if when == "stopping":
            watched.tell(StopRequested())
        else:
            watched.tell(Lost(1, "first 1"))
        if when == "recovering":
            watched.tell(joined(1, "second"))
            persisted(watched)
        why = refusal(watched.tell(request(watched, 1)))
        assert why == f"the application is {when}: ask again when it runs"

    def test_it_is_refused_once_a_stop_waits_for_the_epoch_in_flight(self) -> None:
        watched = running(2)
        elapse(watched, "epoch")
        watched.tell(StopRequested())
        assert "ask again when it runs" in refusal(watched.tell(request(watched, 1)))

    def test_one_that_is_still_leaving_can_not_join(self) -> None:
        watched = switched(3, 2)
        why = refusal(watched.tell(request(watched, 3)))
        assert why == "worker 2 is still leaving: ask again when it has gone"

    def test_asking_again_for_what_is_under_way_changes_nothing(self) -> None:
        watched = copying(2, 3)
        effects = watched.tell(request(watched, 3))
        assert effects == [Answer("")]
        assert phase(watched) is Step.COPY

    def test_one_that_joins_again_is_told_where_its_sinks_were(self) -> None:
        watched = switched(3, 2)
        watched.tell(heard(2, Published(1, 3)), Lost(2, "first 2"))
        prepare(watched)
        persisted(watched)
        assert watched.committed.retired == {2: MARKS}
        watched.tell(joined(2, "second"))
        effects = watched.tell(request(watched, 3))
        sinks = {e.worker: e.message.sinks for e in effects if isinstance(e, Tell)}  # type: ignore[union-attr]
        assert sinks == {0: (), 1: (), 2: MARKS}

    def test_one_that_waits_to_join_has_no_part_in_what_happens_meanwhile(self) -> None:
        watched = running(2)
        watched.tell(joined(2))
        elapse(watched, "epoch")
        effects = [*prepare(watched), *persisted(watched)]
        assert not [e for e in effects if isinstance(e, Tell) and e.worker == 2]
        assert watched.tell(Lost(2, "first 2")) == []
        assert watched.machine.phase is Phase.RUNNING

    def test_one_of_another_program_can_not_join(self) -> None:
        watched = running(2)
        other = replace(register(2), fingerprint="other")
        (effect,) = watched.tell(heard(2, other))
        assert isinstance(effect, Tell)
        assert isinstance(effect.message, Refuse)
        assert "worker 2 is not there" in refusal(watched.tell(request(watched, 3)))


class TestPhases:
    def test_donors_begin_when_all_are_ready(self) -> None:
        watched = running(2)
        commit(watched)
        asked(watched, 3)
        assert watched.tell(*(heard(w, Enlisted(1, 1)) for w in (2, 0, 0))) == []
        effects = watched.tell(heard(1, Enlisted(1, 1)))
        assert told(effects) == [Copy(1, 1)]
        assert receivers_of(effects, Copy) == [0, 1, 2]

    def test_what_another_attempt_or_generation_was_ready_for_does_not_count(self) -> None:
        watched = running(2)
        commit(watched)
        asked(watched, 3)
        watched.tell(heard(0, Enlisted(1, 1)), heard(1, Enlisted(1, 1)))
        assert watched.tell(*(heard(2, Enlisted(*each)) for each in [(1, 2), (2, 1), (0, 1)])) == []

    def test_an_epoch_runs_at_once_when_receivers_have_all_that_is_committed(self) -> None:
        """Ruling 23."""
        watched = copying(2, 3)
        assert watched.tell(heard(2, Staged(1, 1, 0, 1, 10))) == []
        assert told(watched.tell(heard(2, Staged(1, 1, 1, 2, 20)))) == [Inject(1, 2)]

    def test_every_receiver_counts(self) -> None:
        watched = copying(4, 2)
        assert watched.tell(heard(0, Staged(1, 1, 1, 1, 10))) == []
        assert told(watched.tell(heard(1, Staged(1, 1, 1, 1, 10)))) == [Inject(1, 2)]

    def test_epochs_go_on_while_receivers_are_behind(self) -> None:
        watched = copying(2, 3)
        commit(watched)
        assert watched.tell(heard(2, Staged(1, 1, 1, 1, 10))) == []
        assert phase(watched) is Step.COPY

    def test_the_switch_comes_right_behind_the_commit_of_the_epoch_before(self) -> None:
        """Ruling 23: so that little is left for the last delta."""
        watched = catching_up(2, 3)
        prepare(watched)
        effects = persisted(watched)
        assert told(effects) == [Commit(1, 2), Inject(1, 3, final=False, switch=1)]
        assert receivers_of(effects, Inject) == [0, 1, 2], "one that joins injects it, too (20)"

    def test_the_switch_is_not_injected_while_an_epoch_is_in_flight(self) -> None:
        """Ruling 24."""
        watched = copying(2, 3)
        elapse(watched, "epoch")
        assert told(staged(watched, 1)) == []
        assert told(elapse(watched, "epoch")) == []
        prepare(watched)
        assert told(persisted(watched))[-1] == Inject(1, 3, final=False, switch=1)

    def test_with_checkpoints_off_a_full_one_comes_first(self) -> None:
        """Ruling 23."""
        watched = running(2, interval=0.0)
        asked(watched, 3)
        assert told(enlisted(watched)) == [Inject(1, 1)], "nothing is copied yet"
        prepare(watched)
        effects = persisted(watched)
        assert told(effects) == [Commit(1, 1), Copy(1, 1)]
        assert told(staged(watched, 1)) == [Inject(1, 2)]
        prepare(watched)
        assert told(persisted(watched)) == [Commit(1, 2), Inject(1, 3, switch=1)]

    def test_before_the_first_checkpoint_one_comes_first_too(self) -> None:
        watched = running(2)
        asked(watched, 3)
        assert told(enlisted(watched)) == [Inject(1, 1)]

    def test_a_rescale_in_which_nothing_moves_to_anybody_copies_nothing(self) -> None:
        """One for one: what a leaver had goes to the one that joins."""
        watched = copying(2, [0, 5])
        assert {move.receiver for move in moves(Assignment.first(2), attempt_of(watched).new)} == {
            5
        }
        assert told(staged(watched, 1)) == [Inject(1, 2)]

    def test_an_epoch_without_the_switch_needs_members_alone(self) -> None:
        watched = catching_up(2, 3)
        (effect,) = prepare(watched)
        assert isinstance(effect, Persist)
        assert effect.manifest.assignment.version == 1


class TestTheSwitch:
    def test_it_commits_when_members_of_both_assignments_have_passed_it(self) -> None:
        """Ruling 20."""
        watched = switching(2, [0, 2])
        assert prepare_switch(watched, but=1) == []
        (effect,) = watched.tell(heard(1, Prepared(1, 3, last_part(watched, 1))))
        assert isinstance(effect, Persist)

    def test_its_manifest_is_the_truth_about_the_assignment(self) -> None:
        watched = switching(2, [0, 2])
        new = attempt_of(watched).new
        (effect,) = prepare_switch(watched)
        assert isinstance(effect, Persist)
        manifest = effect.manifest
        assert (manifest.epoch, manifest.assignment, manifest.switched) == (3, new, 3)
        assert manifest.parts == {w: last_part(watched, w) for w in (0, 2)}
        assert manifest.leaving == {1: last_part(watched, 1)}

    def test_nothing_changes_before_that_is_durable(self) -> None:
        """Ruling 3."""
        watched = switching(2, 3)
        prepare_switch(watched)
        assert watched.committed.assignment.version == 1
        effects = persisted(watched)
        assert watched.committed.assignment.version == 2
        assert told(effects) == [Commit(1, 3)]
        assert receivers_of(effects, Commit) == [0, 1, 2]

    def test_one_that_leaves_hears_of_the_commit(self) -> None:
        watched = switching(3, 2)
        prepare_switch(watched)
        assert receivers_of(persisted(watched), Commit) == [0, 1, 2]
        assert watched.committed.members == (0, 1)

    def test_the_next_epoch_is_that_of_the_new_members(self) -> None:
        watched = switched(2, 3)
        effects = elapse(watched, "epoch")
        assert receivers_of(effects, Inject) == [0, 1, 2]
        assert prepare_switch(watched) == [], "the attempt is over"
        (effect,) = prepare(watched)
        assert isinstance(effect, Persist)
        assert set(effect.manifest.parts) == {0, 1, 2}
        assert effect.manifest.switched == 3

    def test_one_that_comes_back_is_no_longer_retired(self) -> None:
        watched = switched(3, 2)
        watched.tell(heard(2, Published(1, 3)), Lost(2, "first 2"))
        prepare(watched)
        persisted(watched)
        watched.tell(joined(2), request(watched, 3))
        enlisted(watched)
        staged(watched, 4)
        prepare(watched)
        persisted(watched)
        prepare_switch(watched)
        persisted(watched)
        assert watched.committed.members == (0, 1, 2)
        assert watched.committed.retired == {}

    def test_the_loss_of_a_new_member_is_a_fault(self) -> None:
        watched = switched(2, 3)
        assert receivers_of(watched.tell(Lost(2, "first 2")), Halt) == [0, 1]

    def test_who_has_drained_has_to_say_so_anew(self) -> None:
        """Who reads what has changed."""
        watched = switching(2, 3)
        watched.tell(heard(0, Drained(1)), heard(2, Drained(1)))
        prepare_switch(watched)
        persisted(watched)
        assert watched.tell(heard(1, Drained(1))) == []
        assert watched.tell(heard(0, Drained(1))) == []
        assert told(watched.tell(heard(2, Drained(1)))) == [Inject(1, 4, final=True)]

    def test_what_all_drained_before_the_switch_is_no_end_behind_it(self) -> None:
        watched = switching(2, 3)
        all_say(watched, Drained(1))
        prepare_switch(watched)
        assert told(persisted(watched)) == [Commit(1, 3)]
        assert watched.machine.phase is Phase.RUNNING

    def test_with_others_the_next_rescale_begins_where_this_one_ended(self) -> None:
        watched = switched(2, 3)
        effects = asked(watched, 5)
        assert attempt_of(watched).old == watched.committed.assignment
        assert attempt_of(watched).attempt == 2
        assert receivers_of(effects, Enlist) == [0, 1, 2, 3, 4]


class TestGivingUp:
    """Ruling 24: before the switch a rescale is abandoned without a rollback."""

    def given_up(self, watched: Watched, effects: list[Effect], workers: list[int]) -> str:
        assert told(effects) == [Abort(1, 1)]
        assert receivers_of(effects, Abort) == workers
        assert watched.machine.phase is Phase.RUNNING
        assert watched.machine.rescale is None
        assert watched.machine.recoveries == 0
        assert watched.committed.assignment.version == 1
        found, why = outcome(watched)
        assert found == "aborted"
        return why

    def test_one_that_does_not_get_ready_in_time_is_named(self) -> None:
        watched = running(2)
        commit(watched)
        asked(watched, 4)
        watched.tell(*(heard(w, Enlisted(1, 1)) for w in (0, 1, 3)))
        why = self.given_up(watched, elapse(watched, "rescale"), [0, 1, 2, 3])
        assert why == "worker 2 did not get ready within 60 s"

    def test_a_copy_that_does_not_move_is_given_up(self) -> None:
        watched = copying(2, 3)
        assert kinds(elapse(watched, "rescale")) == [Timer], "it had come to this phase"
        why = self.given_up(watched, elapse(watched, "rescale"), [0, 1, 2])
        assert why == "nothing more was copied, or an epoch was not committed within 30 s"

    def test_a_copy_that_moves_is_not(self) -> None:
        watched = copying(2, 3)
        for size in range(1, 10):
            watched.tell(heard(2, Staged(1, 1, -1, size, size)))
            assert kinds(elapse(watched, "rescale")) == [Timer]
        assert phase(watched) is Step.COPY

    def test_it_is_given_up_when_the_epoch_before_the_switch_is_overdue(self) -> None:
        watched = catching_up(2, 3)
        elapse(watched, "rescale")
        self.given_up(watched, elapse(watched, "rescale"), [0, 1, 2])
        prepare(watched)
        assert told(persisted(watched)) == [Commit(1, 2)], "an epoch as any"

    def test_from_the_switch_on_there_is_no_time_out(self) -> None:
        watched = switching(2, 3)
        timers = [e for e in watched.effects if isinstance(e, Timer) and e.kind == "rescale"]
        assert watched.tell(*map(Elapsed, timers * 2)) == []
        assert phase(watched) is Step.SWITCH

    def test_a_timer_of_an_earlier_phase_does_nothing(self) -> None:
        watched = running(2)
        commit(watched)
        asked(watched, 3)
        timer = next(e for e in watched.effects if isinstance(e, Timer) and e.kind == "rescale")
        enlisted(watched)
        assert watched.tell(Elapsed(timer), Elapsed(timer)) == []

    @pytest.mark.parametrize("how_far", [copying, catching_up])
    def test_the_loss_of_one_that_joins_is_no_fault(
        self, how_far: Callable[[int, int], Watched]
    ) -> None:
        watched = how_far(2, 4)
        why = self.given_up(watched, watched.tell(Lost(3, "first 3")), [0, 1, 2])
        assert why == "worker 3, which was to join, went away"

    def test_its_successor_waits_for_the_next_attempt(self) -> None:
        watched = copying(2, 3)
        assert told(watched.tell(joined(2, "second"))) == [Abort(1, 1)]
        assert refusal(watched.tell(request(watched, 3))) == ""
        assert attempt_of(watched).attempt == 2

    def test_one_that_fails_to_join_does_not_stop_the_application(self) -> None:
        watched = copying(2, 3)
        effects = watched.tell(heard(2, Failed(Failure("its disk is full"))))
        why = self.given_up(watched, effects, [0, 1])
        assert why == "worker 2 can't join: its disk is full"
        assert watched.machine.present == {0, 1}

    def test_one_that_fails_while_it_waits_to_join_does_not_either(self) -> None:
        watched = running(2)
        watched.tell(joined(2))
        assert watched.tell(heard(2, Failed(Failure("no")))) == []
        assert watched.machine.phase is Phase.RUNNING

    def test_a_stream_of_the_attempt_that_breaks_is_no_fault(self) -> None:
        watched = copying(2, 3)
        effects = watched.tell(heard(0, Broken(1, 2, 1)))
        why = self.given_up(watched, effects, [0, 1, 2])
        assert why == "the connection of worker 0 to worker 2 broke"

    def test_one_between_members_is_none_either_if_it_was_opened_for_the_attempt(self) -> None:
        """From a leaver to who gets what it had."""
        watched = copying(3, 2)
        self.given_up(watched, watched.tell(heard(0, Broken(1, 2, 1))), [0, 1, 2])

    def test_a_stream_of_the_generation_that_breaks_meanwhile_is_a_fault(self) -> None:
        watched = copying(2, 3)
        effects = watched.tell(heard(0, Broken(1, 1)))
        assert told(effects) == [Halt()]
        assert [e.seconds for e in effects if isinstance(e, Timer)] == [SETTLE]

    def test_what_is_said_of_a_stream_of_an_attempt_that_is_given_up_is_not_heeded(self) -> None:
        """Both ends of each tell of one fault, and they are closed anyway."""
        watched = copying(3, 2)
        watched.tell(heard(0, Broken(1, 2, 1)))
        said: list[Event] = [heard(1, Broken(1, 2, 1)), heard(2, Broken(1, 0, 1))]
        assert watched.tell(*said) == []
        watched.tell(request(watched, 2))
        assert watched.tell(*said) == [], "nor in the next attempt"
        assert watched.machine.phase is Phase.RUNNING

    def test_it_is_given_up_when_the_application_is_about_to_end(self) -> None:
        watched = copying(2, 3)
        effects = watched.tell(StopRequested())
        assert told(effects) == [Abort(1, 1), Inject(1, 2, final=True)]
        assert receivers_of(effects, Inject) == [0, 1]
        assert outcome(watched) == ("aborted", "the application was about to end")

    def test_it_ends_with_the_application(self) -> None:
        """Else it is under way for ever, and its end is told when all is over."""
        watched = copying(2, 3)
        assert told(watched.tell(heard(1, Failed(Failure("no"))))) == [Finish()]
        assert watched.machine.rescale is None
        assert outcome(watched)[0] == "aborted"
        assert watched.tell(Lost(2, "first 2")) == []

    def test_it_may_be_called_off(self) -> None:
        watched = copying(2, 3)
        in_force = RescaleRequested(1, watched.committed.assignment)
        effects = watched.tell(in_force)
        assert told(effects) == [Abort(1, 1)]
        assert refusal(effects) == ""
        assert outcome(watched) == ("aborted", "it was called off")
        assert watched.tell(in_force) == [Answer("")], "there is nothing to call off"

    def test_it_may_not_be_called_off_behind_the_switch(self) -> None:
        watched = switching(2, 3)
        assert watched.tell(RescaleRequested(1, watched.committed.assignment)) == [Answer("")]
        assert phase(watched) is Step.SWITCH

    def test_a_new_target_supersedes_it(self) -> None:
        watched = copying(2, 3)
        effects = asked(watched, 4)
        assert [type(message) for message in told(effects)] == [Abort, Enlist]
        assert receivers_of(effects, Enlist) == [0, 1, 2, 3]
        assert outcome(watched) == ("aborted", "4 workers were asked for meanwhile")
        assert attempt_of(watched).attempt == 2, "every attempt has an id of its own (22)"

    def test_a_new_target_that_is_refused_does_not(self) -> None:
        watched = copying(2, 3)
        assert "worker 3 is not there" in refusal(watched.tell(request(watched, 4)))
        assert phase(watched) is Step.COPY

    def test_a_new_target_behind_the_switch_has_to_wait(self) -> None:
        watched = switching(2, 3)
        watched.tell(joined(3))
        why = refusal(watched.tell(request(watched, 4)))
        assert why == "a rescale is about to commit: ask again when it has"

    def test_what_is_said_in_an_attempt_that_is_given_up_does_not_count(self) -> None:
        watched = running(2)
        commit(watched)
        asked(watched, 3)
        watched.tell(*(heard(w, Enlisted(1, 1)) for w in (0, 1)))
        asked(watched, 4)
        assert watched.tell(*(heard(w, Enlisted(1, 1)) for w in range(4))) == []
        assert told(enlisted(watched)) == [Copy(1, 2)]
        assert watched.tell(*(heard(w, Staged(1, 1, 1, 1, 1)) for w in (2, 3))) == []

    def test_a_checkpoint_that_does_not_come_is_said_to_be_missing(self) -> None:
        """Ruling 23: with checkpoints off a full one comes first."""
        watched = running(2, interval=0.0)
        asked(watched, 3)
        enlisted(watched)
        elapse(watched, "rescale")
        assert "was not committed" in outcome(watched)[1]


class TestFaults:
    """A crash before the commit of the switch recovers under v, after it under v + 1."""

    def recovered(self, watched: Watched, worker: int) -> list[Effect]:
        """The successor of a worker comes, and a generation forms."""
        watched.tell(joined(worker, "second"))
        while not watched.persisting:
            elapse(watched, "form")
        return persisted(watched)

    @pytest.mark.parametrize("worker", [0, 1, 2])
    @pytest.mark.parametrize(
        ("step", "how_far"),
        [("copy", copying), ("catch up", catching_up), ("switch", switching)],
        ids=["copy", "catch up", "switch"],
    )
    def test_the_loss_of_a_member_is_one(
        self, step: str, how_far: Callable[[int, int], Watched], worker: int
    ) -> None:
        """A donor, and one that leaves."""
        watched = how_far(3, 2)
        effects = watched.tell(Lost(worker, f"first {worker}"))
        others = [w for w in range(3) if w != worker]
        assert receivers_of(effects, Halt) == others
        assert outcome(watched) == ("aborted", f"there was a fault in the phase '{step}'")
        recover = self.recovered(watched, worker)
        assert receivers_of(recover, Recover) == [0, 1, 2]
        assert watched.committed.assignment.version == 1, "what was in force is"
        assert watched.committed.switched == 0

    def test_those_that_were_to_join_stop_too_and_are_no_members(self) -> None:
        watched = copying(2, 3)
        assert receivers_of(watched.tell(Lost(1, "first 1")), Halt) == [0, 2]
        effects = self.recovered(watched, 1)
        assert receivers_of(effects, Recover) == [0, 1]
        watched.tell(heard(0, Ready(2)))
        assert told(watched.tell(heard(1, Ready(2), "second"))) == [Resume(2)]

    def test_the_loss_of_one_that_joins_is_one_behind_the_switch(self) -> None:
        watched = switching(2, 3)
        assert receivers_of(watched.tell(Lost(2, "first 2")), Halt) == [0, 1]
        assert outcome(watched) == ("aborted", "there was a fault in the phase 'switch'")
        recover = self.recovered(watched, 2)
        assert receivers_of(recover, Recover) == [0, 1]

    def test_one_that_was_to_join_is_not_waited_for(self) -> None:
        """The assignment in force is v, and all its members are there."""
        watched = switching(2, 3)
        watched.tell(Lost(2, "first 2"))
        assert watched.persisting

    def test_a_broken_stream_is_one_behind_the_switch(self) -> None:
        watched = switching(2, 3)
        effects = watched.tell(heard(0, Broken(1, 2, 1)))
        assert receivers_of(effects, Halt) == [0, 1, 2]

    def test_the_failure_of_one_that_joins_stops_the_application_behind_the_switch(self) -> None:
        watched = switching(2, 3)
        assert told(watched.tell(heard(2, Failed(Failure("no"))))) == [Finish()]
        assert watched.machine.phase is Phase.FAILED

    @pytest.mark.parametrize("worker", [0, 1, 2])
    def test_a_fault_while_its_manifest_is_made_durable_goes_on_under_the_new_one(
        self, worker: int
    ) -> None:
        """What may be durable is never gone behind."""
        watched = switching(2, 3)
        prepare_switch(watched)
        effects = watched.tell(Lost(worker, f"first {worker}"))
        assert receivers_of(effects, Halt) == [w for w in range(3) if w != worker]
        assert persisted(watched) == []
        assert outcome(watched) == ("committed", "")
        assert watched.committed.assignment.version == 2
        effects = self.recovered(watched, worker)
        assert receivers_of(effects, Recover) == [0, 1, 2]
        message = next(e.message for e in effects if isinstance(e, Tell))
        assert isinstance(message, Recover)
        assert (message.epoch, message.switched) == (3, 3)
        assert message.assignment == watched.committed.assignment

    def test_a_coordinator_that_dies_then_goes_on_from_what_is_durable(self) -> None:
        """There is no third case."""
        watched = switching(2, 3)
        (effect,) = prepare_switch(watched)
        assert isinstance(effect, Persist)
        for manifest, workers in ((watched.committed, 2), (effect.manifest, 3)):
            again = Watched(Coordinator(manifest, "same", 1.0))
            again.tell(*map(joined, range(3)))
            effects = persisted(again)
            assert receivers_of(effects, Recover) == list(range(workers))

    def test_the_next_attempt_has_the_number_of_its_generation(self) -> None:
        """Ruling 22: every attempt has an id of its own."""
        watched = copying(2, 3)
        watched.tell(Lost(1, "first 1"))
        self.recovered(watched, 1)
        watched.tell(heard(0, Ready(2)), heard(1, Ready(2), "second"))
        watched.tell(request(watched, 3))
        assert (attempt_of(watched).generation, attempt_of(watched).attempt) == (2, 1)
        attempts = [record["attempt"] for record in watched.machine.history]
        assert attempts == ["1-1"]

    def test_what_an_earlier_generation_staged_does_not_count(self) -> None:
        """Ruling 1."""
        watched = copying(2, 3)
        watched.tell(Lost(1, "first 1"))
        self.recovered(watched, 1)
        watched.tell(heard(0, Ready(2)), heard(1, Ready(2), "second"))
        watched.tell(request(watched, 3))
        assert watched.tell(heard(2, Enlisted(1, 1)), heard(2, Staged(1, 1, 9, 1, 1))) == []
        assert watched.enlisted == set()


def draining(workers: int, wanted: int | Sequence[int], listening: Sequence[int]) -> Watched:
    """Receivers have epoch 1; those that listen say so when they are ready."""
    watched = running(workers)
    commit(watched)
    asked(watched, wanted)
    to = attempt_of(watched)
    for worker in sorted(watched.everyone):
        watched.tell(heard(worker, Enlisted(1, to.attempt, worker in listening)))
    assert phase(watched) is Step.COPY
    staged(watched, 1)
    return watched


class TestClientsOfLeavers:
    """Ruling 31, and ruling K8s 12: they are let go of before the switch."""

    def test_a_leaver_that_listens_is_told_to_once_receivers_have_all(self) -> None:
        watched = draining(3, 1, listening=[0, 1, 2])
        assert phase(watched) is Step.DRAIN
        drain = Drain(1, 1, GRACE, DRAIN_TIME)
        assert [e for e in watched.effects if isinstance(e, Tell) and e.message == drain] == [
            Tell(1, "first 1", drain),
            Tell(2, "first 2", drain),
        ]
        assert not [each for each in told(watched.effects) if each == Inject(1, 2)]

    def test_the_last_epoch_begins_when_all_of_them_have_none_any_more(self) -> None:
        watched = draining(3, 1, listening=[1, 2])
        assert told(watched.tell(heard(1, ConnectionsClosed(1, 1, 0)))) == []
        assert told(watched.tell(heard(2, ConnectionsClosed(1, 1, 0)))) == [Inject(1, 2)]
        assert phase(watched) is Step.CATCH_UP
        prepare(watched)
        assert Inject(1, 3, switch=1) in told(persisted(watched))

    def test_nobody_waits_where_no_leaver_listens(self) -> None:
        watched = draining(3, 1, listening=[])
        assert phase(watched) is Step.CATCH_UP

    def test_nobody_waits_for_one_that_stays(self) -> None:
        watched = draining(3, 1, listening=[0])
        assert phase(watched) is Step.CATCH_UP

    def test_nobody_waits_where_nobody_leaves(self) -> None:
        watched = draining(2, 3, listening=[0, 1, 2])
        assert phase(watched) is Step.CATCH_UP

    def test_copying_goes_on_meanwhile_and_has_to_be_up_to_date_at_the_end(self) -> None:
        watched = draining(2, 1, listening=[1])
        commit(watched)
        watched.tell(heard(1, ConnectionsClosed(1, 1, 0)))
        assert phase(watched) is Step.DRAIN, "epoch 2 is still to be copied"
        staged(watched, 2)
        assert phase(watched) is Step.CATCH_UP

    def test_what_was_lost_is_in_the_record(self) -> None:
        watched = draining(3, 1, listening=[1, 2])
        watched.tell(heard(1, ConnectionsClosed(1, 1, 20)), heard(2, ConnectionsClosed(1, 1, 3)))
        prepare(watched)
        persisted(watched)
        prepare_switch(watched)
        persisted(watched)
        record = watched.machine.history[-1]
        assert (record["outcome"], record["lost"]) == ("committed", 23)
        assert list(record["seconds"]) == ["prepare", "copy", "drain", "catch up", "switch"]

    def test_a_leaver_that_can_not_even_cut_them_holds_up_nobody_for_ever(self) -> None:
        watched = draining(2, 1, listening=[1])
        timer = next(each for each in reversed(watched.effects) if isinstance(each, Timer))
        assert timer.seconds > GRACE + DRAIN_TIME, "it cuts them itself"
        assert told(watched.tell(Elapsed(timer))) == [Inject(1, 2)]
        prepare(watched)
        persisted(watched)
        assert phase(watched) is Step.SWITCH
        watched.tell(heard(1, ConnectionsClosed(1, 1, 5)))
        prepare_switch(watched)
        persisted(watched)
        assert watched.machine.history[-1]["lost"] == 5

    def test_the_attempt_is_looked_after_behind_it(self) -> None:
        watched = draining(2, 1, listening=[1])
        effects = watched.tell(heard(1, ConnectionsClosed(1, 1, 0)))
        assert Timer("rescale", watched.machine._watching, COPY_TIME) in effects
        elapse(watched, "rescale")
        elapse(watched, "rescale")
        assert watched.machine.history[-1]["outcome"] == "aborted"

    def test_it_is_given_up_like_any_phase_before_the_switch(self) -> None:
        watched = draining(2, 1, listening=[1])
        effects = watched.tell(RescaleRequested(1, watched.committed.assignment))
        assert told(effects) == [Abort(1, 1)]

    def test_what_another_attempt_or_generation_says_does_not_count(self) -> None:
        watched = draining(2, 1, listening=[1])
        watched.tell(heard(1, ConnectionsClosed(1, 2, 0)), heard(1, ConnectionsClosed(2, 1, 0)))
        assert phase(watched) is Step.DRAIN


class TestLeavers:
    """Ruling 29: "holds nothing" includes unpublished and unsent output."""

    def test_one_may_end_once_it_has_published_and_not_before(self) -> None:
        watched = switched(3, 2)
        assert not receivers_of(watched.effects, Finish)
        effects = watched.tell(heard(2, Published(1, 3)))
        assert effects[0] == Tell(2, "first 2", Finish(released=True))
        assert watched.tell(heard(2, Published(1, 3))) == []

    def test_the_next_manifest_drops_it_and_that_comes_at_once(self) -> None:
        watched = switched(3, 2)
        assert set(watched.committed.leaving) == {2}
        effects = watched.tell(heard(2, Published(1, 3)))
        assert receivers_of(effects, Inject) == [0, 1]
        (effect,) = prepare(watched)
        assert isinstance(effect, Persist)
        assert effect.manifest.leaving == {}
        assert effect.manifest.retired == {2: MARKS}

    def test_that_comes_with_checkpoints_off_too(self) -> None:
        watched = copying(3, 2, interval=0.0)
        staged(watched, 1)
        prepare(watched)
        persisted(watched)
        prepare_switch(watched)
        persisted(watched)
        assert told(watched.tell(heard(2, Published(1, 3)))) == [
            Finish(released=True),
            Inject(1, 4),
        ]

    def test_that_comes_with_checkpoints_off_when_a_fault_came_between(self) -> None:
        """Else its number could never join again."""
        watched = copying(3, 2, interval=0.0)
        staged(watched, 1)
        prepare(watched)
        persisted(watched)
        prepare_switch(watched)
        persisted(watched)
        watched.tell(Lost(1, "first 1"), joined(1, "second"), heard(2, Published(1, 3)))
        persisted(watched)
        watched.tell(heard(0, Ready(2)))
        effects = watched.tell(heard(1, Ready(2), "second"))
        assert told(effects) == [Resume(2), Inject(2, 4)]

    def test_its_death_is_no_fault_of_the_members(self) -> None:
        watched = switched(3, 2)
        assert watched.tell(Lost(2, "first 2")) == []
        assert watched.machine.phase is Phase.RUNNING
        commit(watched)
        assert set(watched.committed.leaving) == {2}, "it has not published yet"

    def test_its_broken_streams_are_none(self) -> None:
        watched = switched(3, 2)
        assert (
            watched.tell(heard(0, Broken(1, 2)), heard(2, Broken(1, 0)), heard(1, Broken(1, 2, 1)))
            == []
        )

    def test_one_that_restarts_publishes_what_its_part_says_and_may_end(self) -> None:
        watched = switched(3, 2)
        leaver = watched.committed.leaving[2]
        (effect,) = watched.tell(Lost(2, "first 2"), joined(2, "second"))
        assert isinstance(effect, Tell)
        assert isinstance(effect.message, Recover)
        assert (effect.worker, effect.message.part) == (2, leaver)
        assert 2 not in effect.message.assignment.workers
        effects = watched.tell(heard(2, Published(1, 3), "second"))
        assert effects[0] == Tell(2, "second", Finish(released=True))

    def test_one_that_restarts_with_another_directory_is_refused(self) -> None:
        """Ruling 5: what it had not published is lost."""
        watched = switched(3, 2)
        watched.tell(Lost(2, "first 2"))
        (effect,) = watched.tell(heard(2, register(2, "another"), "second"))
        assert isinstance(effect, Tell)
        assert isinstance(effect.message, Refuse)

    def test_one_that_restarts_after_it_has_published_may_end_at_once(self) -> None:
        watched = switched(3, 2)
        watched.tell(heard(2, Published(1, 3)), Lost(2, "first 2"))
        assert watched.tell(joined(2, "second")) == [Tell(2, "second", Finish(released=True))]

    def test_once_it_has_gone_its_number_may_join_again(self) -> None:
        watched = switched(3, 2)
        watched.tell(heard(2, Published(1, 3)), Lost(2, "first 2"))
        prepare(watched)
        persisted(watched)
        assert watched.tell(joined(2, "second")) == []
        assert refusal(watched.tell(request(watched, 3))) == ""

    def test_a_recovery_lets_go_of_one_that_is_there(self) -> None:
        watched = switched(3, 2)
        watched.tell(Lost(1, "first 1"), joined(1, "second"))
        effects = persisted(watched)
        assert receivers_of(effects, Recover) == [0, 1, 2]
        watched.tell(heard(0, Ready(2)))
        assert told(watched.tell(heard(1, Ready(2), "second"))) == [Resume(2)], (
            "it is not waited for"
        )

    def test_what_it_published_in_the_generation_before_counts(self) -> None:
        """It owns nothing of this one."""
        watched = switched(3, 2)
        watched.tell(Lost(1, "first 1"), joined(1, "second"))
        persisted(watched)
        effects = watched.tell(heard(2, Published(1, 3)))
        assert effects == [Tell(2, "first 2", Finish(released=True))]

    def test_one_that_leaves_may_be_asked_for_only_when_it_has_gone(self) -> None:
        watched = switched(3, 2)
        watched.tell(heard(2, Published(1, 3)))
        assert "still leaving" in refusal(watched.tell(request(watched, 3)))

    def test_the_application_does_not_end_before_it_has_published(self) -> None:
        watched = switched(3, 2)
        watched.tell(StopRequested())
        prepare(watched)
        persisted(watched)
        assert all_say(watched, Published(1, 4)) == []
        effects = watched.tell(heard(2, Published(1, 3)))
        assert watched.machine.phase is Phase.ENDED
        assert set(receivers_of(effects, Finish)) == {0, 1, 2}

    def test_the_partitions_that_it_read_to_their_end_count(self) -> None:
        """Ruling 18: they are what its part says until their new owner's does."""
        watched = switching(2, [0])
        parts = {
            w: replace(last_part(watched, w), ended=frozenset({("numbers", "ab"[w])}))
            for w in (0, 1)
        }
        watched.tell(*(heard(w, Prepared(1, 3, each)) for w, each in parts.items()))
        persisted(watched)
        assert watched.committed.complete


class TestTheRecord:
    def test_it_says_what_moved_and_what_it_took(self) -> None:
        watched = running(2)
        commit(watched)
        watched.tell(joined(2))
        machine = watched.machine
        now = 100.0

        def at(seconds: float, *events: Event) -> None:
            nonlocal now
            now += seconds
            for event in events:
                machine.handle(event, now)

        new = rewrite(Assignment.first(2), range(3))
        at(0, RescaleRequested(1, new))
        at(1, *(heard(w, Enlisted(1, 1)) for w in range(3)))
        at(2, heard(2, Staged(1, 1, 1, 7, 700)))
        at(3, *(heard(w, Prepared(1, 2, part(w, 2, 1))) for w in range(2)))
        assert machine._persisting
        persisting = machine._persisting
        at(0, Persisted(persisting.generation, persisting.epoch))
        at(4, *(heard(w, Prepared(1, 3, part(w, 3, 1), w / 10)) for w in range(3)))
        at(0, Persisted(1, 3))
        (record,) = machine.history
        assert record == {
            "attempt": "1-1",
            "from": 2,
            "to": 3,
            "version": 2,
            "outcome": "committed",
            "why": "",
            "moved": moved(Assignment.first(2), new) / INTERVAL,
            "minimum": float(minimum(2, 3)),
            "pieces": len(new.pieces),
            "entries": 7,
            "bytes": 700,
            "seconds": {"prepare": 1.0, "copy": 2.0, "catch up": 3.0, "switch": 4.0},
            "held": 0.2,
            "lost": 0,
        }

    def test_the_manifest_that_commits_it_has_it(self) -> None:
        """Its coordinator may die right behind that."""
        watched = switched(2, 3)
        after = watched.committed
        assert [record["outcome"] for record in after.history] == ["committed"]
        assert Coordinator(after, "same", 1.0).history == [*after.history]

    def test_the_last_few_are_remembered(self) -> None:
        watched = copying(2, 3)
        for _ in range(HISTORY + 3):
            watched.tell(RescaleRequested(1, watched.committed.assignment), request(watched, 3))
        attempts = [record["attempt"] for record in watched.machine.history]
        assert attempts == [f"1-{number}" for number in range(4, HISTORY + 4)]

    def test_how_far_it_is_can_be_seen(self) -> None:
        watched = copying(2, 3)
        watched.tell(heard(2, Staged(1, 1, -1, 5, 50)))
        attempt = watched.machine.rescale
        assert attempt
        progress = attempt.progress(0.0)
        assert (progress["phase"], progress["entries"], progress["bytes"]) == ("copy", 5, 50)
        assert progress["outcome"] == ""


class TestWhoCounts:
    """Nobody but a member is waited for, and nobody else stands in for one."""

    def test_one_that_waits_to_join_is_not_ready_in_a_members_place(self) -> None:
        """Ruling 2."""
        watched = running(2)
        watched.tell(joined(2), Lost(1, "first 1"), joined(1, "second"))
        persisted(watched)
        watched.machine.handle(heard(2, Ready(2)))
        assert watched.machine.handle(heard(0, Ready(2))) == []

    def test_one_that_waits_to_join_has_not_prepared_in_a_members_place(self) -> None:
        watched = running(2)
        watched.tell(joined(2))
        elapse(watched, "epoch")
        assert watched.machine.handle(heard(2, Prepared(1, 1, part(2, 1, 1)))) == []

    def test_one_that_waits_to_join_has_not_published_in_a_members_place(self) -> None:
        watched = running(2)
        watched.tell(joined(2), StopRequested())
        prepare(watched)
        persisted(watched)
        assert watched.machine.handle(heard(2, Published(1, 1))) == []


@settings(max_examples=60, deadline=None)
@given(
    workers=st.integers(1, 4),
    seed=st.integers(0, 1 << 30),
    interval=st.sampled_from([0.0, 1.0, 1.0]),
    faults=st.sampled_from([0.0, 0.01, 0.05, 0.15]),
    drains=st.booleans(),
)
def test_whatever_breaks_while_workers_come_and_go_all_stay_consistent_and_it_gets_done(
    workers: int, seed: int, interval: float, faults: float, drains: bool
) -> None:
    """Rulings 1, 2, 3, 17, 18, 20, 22 to 25, 28 and 29; see `Watched` and `World`."""
    world = World(workers, seed, interval=interval, drains=drains)
    world.restarts = world.chance.random() < 0.5
    for _ in range(400):
        if world.chance.random() < 0.02:
            world.target = world.chance.randrange(1, 6)
            world.hasty = world.chance.random() < 0.3
            world.ask()
        world.step(faults=faults)
    world.calm(lambda: world.works or world.over)
    # With checkpoints off one that has left may be left over:
    # test_that_comes_with_checkpoints_off_when_a_fault_came_between.
    if interval and not (drains or world.over):
        world.calm(lambda: world.settled)
        goal = world.watched.committed.epoch + 3
        world.calm(lambda: world.watched.committed.epoch >= goal)
    if not world.over:
        world.stop()
    world.calm(lambda: world.over and all(each.ended for each in world.processes.values()))
    assert world.phase is Phase.ENDED
