"""A coordinator that somebody attends: how it begins, what is lost, and checkpoints on request.

"Ruling K8s" are those for pods, see docs/pods.md; the others are those of docs/protocol.md.
"""

from dataclasses import replace

import pytest
from tests.unit.protocol.test_coordinator import (
    elapse,
    heard,
    joined,
    part,
    persisted,
    prepare,
    running,
    told,
)
from tests.unit.protocol.test_coordinator_rescale import switched
from tests.unit.protocol.watch import Watched, beginning, register

from wallaroo.errors import Failure
from wallaroo.protocol.coordinator import (
    Answer,
    BeginRequested,
    Coordinator,
    Effect,
    Event,
    Lost,
    Persist,
    Persisted,
    Phase,
    StopRequested,
    Tell,
)
from wallaroo.protocol.manifest import Manifest, Part
from wallaroo.protocol.messages import (
    Checkpoint,
    Checkpointed,
    Commit,
    Failed,
    Finish,
    Halt,
    Inject,
    Prepared,
    Ready,
    Recover,
    Refuse,
)

MARKS: tuple[dict[str, object] | None, ...] = ({"sink": "file out.txt", "mark": {"start": 7}},)


class Attended:
    """A coordinator, and a disk that does at once what it is asked for."""

    def __init__(self, committed: Manifest, phase: Phase = Phase.FORMING) -> None:
        self.machine = Coordinator(committed, "same", 1.0, phase=phase, attended=True)
        self.written: list[Manifest] = []

    def tell(self, *events: Event) -> list[Effect]:
        """What comes of these; of manifests, too, which are written at once."""
        effects: list[Effect] = []
        to_do = list(events)
        while to_do:
            for effect in self.machine.handle(to_do.pop(0)):
                if isinstance(effect, Persist):
                    self.written.append(effect.manifest)
                    to_do.append(Persisted(effect.manifest.generation, effect.manifest.epoch))
                effects.append(effect)
        return effects

    def begin(self, workers: int = 0, *, accept_loss: bool = False, epoch: int = 0) -> str:
        effects = self.tell(BeginRequested(workers, accept_loss, epoch))
        return [each.refusal for each in effects if isinstance(each, Answer)][-1]


def vacant() -> Attended:
    return Attended(replace(beginning(1), application_id="uid"), Phase.VACANT)


def holding(worker: int) -> Event:
    """A worker with state of an unknown time is there."""
    return heard(worker, register(worker, f"old directory {worker}", admitted=True))


def resumed(workers: int = 2, epoch: int = 5) -> Attended:
    """Of an application that has a checkpoint, before anybody is there."""
    parts = {w: replace(part(w, epoch, 1), sinks=MARKS) for w in range(workers)}
    return Attended(replace(beginning(workers), generation=1, epoch=epoch, parts=parts))


def recovers(effects: list[Effect]) -> dict[int, Recover]:
    return {
        each.worker: each.message
        for each in effects
        if isinstance(each, Tell) and isinstance(each.message, Recover)
    }


class TestBeginning:
    """Ruling K8s 2: from nothing only when somebody says so."""

    def test_nothing_begins_by_itself(self) -> None:
        attended = vacant()
        assert attended.tell(joined(0), joined(1)) == []
        assert attended.machine.phase is Phase.VACANT

    def test_it_begins_with_as_many_workers_as_it_is_told(self) -> None:
        attended = vacant()
        attended.tell(joined(0))
        assert attended.begin(2) == ""
        assert attended.machine.phase is Phase.FORMING
        assert set(recovers(attended.tell(joined(1)))) == {0, 1}

    def test_that_it_has_begun_is_durable_before_anybody_joins(self) -> None:
        """Else a crash would leave it vacant, and it could not be told from one that is lost."""
        attended = vacant()
        attended.begin(3)
        (manifest,) = attended.written
        assert (manifest.generation, manifest.epoch, manifest.members) == (0, 0, (0, 1, 2))
        assert manifest.application_id == "uid"

    def test_it_is_vacant_until_that_is_durable(self) -> None:
        machine = vacant().machine
        machine.handle(BeginRequested(2))
        phases = [machine.phase]
        assert machine.handle(BeginRequested(3)) == [Answer("the application has begun already")]
        machine.handle(Persisted(0, 0))
        phases.append(machine.phase)
        assert phases == [Phase.VACANT, Phase.FORMING]

    def test_it_begins_once(self) -> None:
        attended = vacant()
        attended.begin(2)
        assert attended.begin(2) == "the application has begun already"
        assert resumed().begin(2) == "the application has begun already"

    def test_it_does_not_begin_without_workers(self) -> None:
        assert "at least one worker" in vacant().begin(0)

    def test_it_does_not_begin_over_state_that_a_member_holds(self) -> None:
        """Worker 0's directory is lost: never silently from zero."""
        attended = vacant()
        attended.tell(joined(0), holding(1))
        assert "worker 1 holds state, but worker 0 knows of no checkpoint" in attended.begin(2)
        assert attended.machine.phase is Phase.VACANT

    def test_what_is_held_by_one_that_would_be_no_member_is_of_no_matter(self) -> None:
        attended = vacant()
        attended.tell(joined(0), holding(1))
        assert attended.begin(1) == ""

    def test_when_that_loss_is_accepted_what_they_hold_does_not_count(self) -> None:
        attended = vacant()
        attended.tell(joined(0), holding(1))
        effects = attended.tell(BeginRequested(2, accept_loss=True))
        parts = {worker: message.part for worker, message in recovers(effects).items()}
        assert parts == {0: Part("directory 0"), 1: Part("old directory 1", joined=1)}

    def test_one_that_holds_state_and_comes_after_the_beginning_is_lost(self) -> None:
        attended = vacant()
        attended.tell(joined(0))
        attended.begin(2)
        assert attended.tell(holding(1)) == []
        assert attended.machine.lost == [1]
        assert attended.begin(accept_loss=True, epoch=41) == "", "there is no other epoch yet"
        assert attended.machine.phase is Phase.RECOVERING

    def test_a_stop_before_it_has_begun_is_remembered(self) -> None:
        attended = vacant()
        attended.tell(StopRequested(), joined(0))
        attended.begin(1)
        effects = attended.tell(heard(0, Ready(1)))
        assert Inject(1, 1, final=True) in told(effects)


class TestLosses:
    """Ruling K8s 1: a member without its directory never serves."""

    def test_a_member_with_another_directory_waits_and_is_named(self) -> None:
        attended = resumed()
        attended.tell(joined(0))
        assert attended.tell(heard(1, register(1, "empty"))) == []
        assert attended.machine.lost == [1]
        assert attended.machine.phase is Phase.FORMING

    def test_when_its_own_directory_is_back_all_go_on(self) -> None:
        attended = resumed()
        attended.tell(joined(0), heard(1, register(1, "empty")), Lost(1, "first 1"))
        assert attended.machine.lost == []
        effects = attended.tell(joined(1, "second"))
        assert recovers(effects)[1].part == replace(part(1, 5, 1), sinks=MARKS)

    def test_one_that_is_not_there_is_not_lost(self) -> None:
        attended = resumed()
        attended.tell(joined(0))
        assert attended.machine.lost == []

    def test_once_the_loss_is_accepted_it_goes_on_from_nothing_behind_its_output(self) -> None:
        attended = resumed()
        attended.tell(joined(0), heard(1, register(1, "empty")))
        effects = attended.tell(BeginRequested(0, accept_loss=True, epoch=5))
        told_to = recovers(effects)
        assert told_to[0].part == replace(part(0, 5, 1), sinks=MARKS)
        assert told_to[1].part == Part("empty", sinks=MARKS, joined=6)
        assert attended.written[-1].parts[1].directory == "empty"
        assert attended.machine.lost == []

    def test_a_loss_is_accepted_as_of_the_last_checkpoint_and_no_other(self) -> None:
        attended = resumed()
        attended.tell(joined(0), heard(1, register(1, "empty")))
        assert "is of epoch 5, not of epoch 4" in attended.begin(accept_loss=True, epoch=4)
        assert attended.machine.lost == [1]

    def test_one_that_restarts_before_the_others_are_there_is_still_accepted(self) -> None:
        attended = resumed()
        attended.tell(heard(1, register(1, "empty")))
        attended.begin(accept_loss=True, epoch=5)
        attended.tell(Lost(1, "first 1"), heard(1, register(1, "empty"), "second"))
        assert attended.machine.lost == []
        assert recovers(attended.tell(joined(0)))[1].part == Part("empty", sinks=MARKS, joined=6)

    def test_what_is_lost_later_is_not_accepted_with_it(self) -> None:
        attended = resumed()
        attended.tell(heard(1, register(1, "empty")))
        attended.begin(accept_loss=True, epoch=5)
        attended.tell(heard(0, register(0, "empty, too")))
        assert attended.machine.lost == [0]
        attended.tell(Lost(1, "first 1"), heard(1, register(1, "yet another"), "second"))
        assert attended.machine.lost == [0, 1]

    def test_a_leaver_that_has_lost_what_it_had_to_publish_is_let_go_when_that_is_accepted(
        self,
    ) -> None:
        before = switched(3, 2).committed
        attended = Attended(before)
        attended.tell(joined(0), joined(1), heard(2, register(2, "empty")))
        generation = attended.machine.generation
        attended.tell(heard(0, Ready(generation)), heard(1, Ready(generation)))
        assert (attended.machine.phase, attended.machine.lost) == (Phase.RUNNING, [2])
        effects = attended.tell(BeginRequested(0, accept_loss=True, epoch=before.epoch))
        assert Finish(released=True) in told(effects)

    def test_one_that_came_before_the_manifest_was_durable_waits_too(self) -> None:
        attended = vacant()
        attended.begin(2)
        machine = attended.machine
        machine.handle(joined(0))
        machine.handle(joined(1))
        machine.handle(Lost(1, "first 1"))
        machine.handle(heard(1, register(1, "another"), "second"))
        assert machine.handle(Persisted(1, 0)) == []
        assert machine.lost == [1]

    def test_one_of_another_program_is_refused_here_too(self) -> None:
        """Ruling K8s 18."""
        (effect,) = resumed().tell(heard(1, replace(register(1), fingerprint="other")))
        assert isinstance(effect, Tell)
        assert isinstance(effect.message, Refuse)
        assert "worker 1 runs another program than worker 0" in effect.message.message

    def test_a_joiner_is_never_lost(self) -> None:
        attended = resumed()
        attended.tell(holding(2))
        assert (attended.machine.lost, set(attended.machine.joiners)) == ([], {2})


class TestCheckpointsOnRequest:
    """Ruling K8s 11: before it ends a worker has a checkpoint taken."""

    @staticmethod
    def ask(watched: Watched, worker: int) -> list[Effect]:
        return watched.tell(heard(worker, Checkpoint()))

    def test_one_comes_at_once_and_whoever_asked_is_told_when_it_is_committed(self) -> None:
        watched = running()
        assert told(self.ask(watched, 1)) == [Inject(1, 1)]
        prepare(watched)
        effects = persisted(watched)
        assert [e for e in effects if isinstance(e, Tell)][-1] == Tell(1, "first 1", Checkpointed())

    def test_an_epoch_that_was_injected_before_the_request_is_not_enough(self) -> None:
        watched = running()
        elapse(watched, "epoch")
        assert self.ask(watched, 1) == []
        prepare(watched)
        effects = persisted(watched)
        assert Checkpointed() not in told(effects)
        assert Inject(1, 2) in told(effects), "the next one follows at once"
        prepare(watched)
        assert Checkpointed() in told(persisted(watched))

    def test_several_requests_share_one(self) -> None:
        watched = running(3)
        elapse(watched, "epoch")
        for worker in (2, 0, 1):
            assert self.ask(watched, worker) == []
        commit_one = prepare(watched)
        assert commit_one
        persisted(watched)
        prepare(watched)
        answers = [
            e.worker
            for e in persisted(watched)
            if isinstance(e, Tell) and isinstance(e.message, Checkpointed)
        ]
        assert answers == [0, 1, 2]
        assert watched.committed.epoch == 2

    def test_with_checkpoints_off_one_is_taken_too(self) -> None:
        watched = running(interval=0.0)
        assert Inject(1, 1) in told(self.ask(watched, 0))

    def test_a_fault_answers_for_what_was_done_will_be_done_again(self) -> None:
        watched = running(3)
        self.ask(watched, 2)
        assert told(watched.tell(Lost(1, "first 1"))) == [Halt(), Checkpointed()]

    def test_where_nothing_is_processed_the_answer_comes_at_once(self) -> None:
        watched = Watched.new(2)
        watched.tell(joined(0))
        assert told(self.ask(watched, 0)) == [Checkpointed()]
        watched.tell(joined(1))
        persisted(watched)
        assert told(self.ask(watched, 0)) == [Checkpointed()], "it has gone back, no more"

    def test_one_that_is_no_member_has_nothing_to_keep(self) -> None:
        watched = running()
        watched.tell(joined(2))
        assert told(self.ask(watched, 2)) == [Checkpointed()]

    def test_one_that_has_lost_its_state_has_nothing_to_keep(self) -> None:
        attended = resumed()
        attended.tell(heard(1, register(1, "empty")))
        assert told(attended.tell(heard(1, Checkpoint()))) == [Checkpointed()]

    def test_the_final_epoch_will_do(self) -> None:
        watched = running()
        watched.tell(StopRequested())
        assert self.ask(watched, 1) == []
        prepare(watched)
        assert told(persisted(watched)) == [Commit(1, 1), Checkpointed()]
        assert told(self.ask(watched, 0)) == [Checkpointed()]

    def test_when_all_is_over_the_answer_comes_at_once(self) -> None:
        attended = resumed(1)
        attended.tell(joined(0), heard(0, Failed(Failure("no"))))
        assert told(attended.tell(heard(0, Checkpoint()))) == [Checkpointed()]

    def test_one_that_is_gone_is_not_told(self) -> None:
        watched = running()
        self.ask(watched, 1)
        watched.tell(Lost(1, "first 1"), joined(1, "second"))
        persisted(watched)
        watched.tell(heard(0, Ready(2)), heard(1, Ready(2), "second"))
        elapse(watched, "epoch")
        watched.tell(heard(0, Prepared(2, 1, part(0, 1, 2))))
        watched.tell(heard(1, Prepared(2, 1, part(1, 1, 2)), "second"))
        persisted(watched)
        assert Checkpointed() not in told(watched.effects)


@pytest.mark.parametrize("attended", [False, True])
def test_a_request_of_an_earlier_session_is_not_heard(attended: bool) -> None:
    watched = running()
    watched.machine.attended = attended
    watched.tell(Lost(1, "first 1"), joined(1, "second"))
    assert watched.tell(heard(1, Checkpoint())) == []
