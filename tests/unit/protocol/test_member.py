"""A worker's state machine. Rulings are those of docs/protocol.md."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wallaroo.partitioning import Assignment
from wallaroo.partitioning.rewrite import rewrite
from wallaroo.protocol.manifest import Part
from wallaroo.protocol.member import (
    Abandon,
    ClientsGone,
    Donate,
    Durable,
    Effect,
    End,
    Event,
    GetReady,
    GiveUp,
    GiveUpAttempt,
    GoBack,
    HasStaged,
    IsEnlisted,
    LetGo,
    Member,
    Phase,
    Publish,
    PutBarrier,
    Recovered,
    Run,
    Say,
    SinksPublished,
    SourcesEnded,
    StreamBroke,
    Told,
)
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

PART = Part("directory")


def recover(generation: int, epoch: int = 0) -> Recover:
    return Recover(generation, epoch, Assignment.first(1), {0: "unix:0"}, {}, {}, PART)


def tell(member: Member, *events: Event) -> list[Effect]:
    return [effect for event in events for effect in member.handle(event)]


def running(generation: int = 1, epoch: int = 0) -> Member:
    member = Member()
    back = Told(recover(generation, epoch))
    tell(member, back, Recovered(generation), Told(Resume(generation)))
    assert member.phase is Phase.RUNNING
    return member


class TestRecovery:
    def test_it_goes_back_says_so_and_runs_when_all_have(self) -> None:
        """Ruling 2."""
        member = Member()
        assert tell(member, Told(recover(1))) == [GoBack(recover(1))]
        assert tell(member, Recovered(1)) == [Say(Ready(1))]
        assert tell(member, Told(Resume(1))) == [Run()]

    def test_it_does_not_run_before_it_is_back(self) -> None:
        member = Member()
        assert tell(member, Told(recover(1)), Told(Resume(1))) == [GoBack(recover(1))]

    def test_it_stops_before_it_goes_back(self) -> None:
        member = running()
        assert tell(member, Told(recover(2, 5))) == [Abandon(), GoBack(recover(2, 5))]

    def test_it_halts_once_and_goes_back_later(self) -> None:
        member = running()
        assert tell(member, Told(Halt()), Told(Halt())) == [Abandon()]
        assert tell(member, Told(recover(2))) == [GoBack(recover(2))]

    def test_a_fault_while_it_goes_back_abandons_that(self) -> None:
        member = Member()
        tell(member, Told(recover(1)))
        assert tell(member, Told(Halt())) == [Abandon()]
        assert tell(member, Recovered(1)) == []
        tell(member, Told(recover(2)))
        assert tell(member, Recovered(1)) == [], "that was the time before"
        assert tell(member, Recovered(2)) == [Say(Ready(2))]

    @pytest.mark.parametrize("generation", [1, 2, 3])
    def test_an_older_generation_or_the_same_again_is_not_heeded(self, generation: int) -> None:
        """Ruling 1."""
        member = running(3)
        assert tell(member, Told(recover(generation))) == []
        assert member.phase is Phase.RUNNING

    def test_one_that_leaves_and_was_lost_comes_back_to_the_same_generation(self) -> None:
        """Ruling 29: for one that is leaving no new one begins."""
        member = running(3)
        tell(member, Told(Halt()))
        assert tell(member, Told(recover(3, 7))) == [], "it is a member"
        member.worker = 1
        assert tell(member, Told(recover(2, 7))) == []
        assert tell(member, Told(recover(3, 7))) == [GoBack(recover(3, 7))]
        assert tell(member, Told(recover(3, 7))) == [], "it is on its way"
        assert tell(member, SinksPublished(3, 7)) == [Say(Published(3, 7))]

    @pytest.mark.parametrize("message", [Resume(1), Inject(1, 1), Commit(1, 1)], ids=repr)
    def test_what_an_older_generation_is_told_is_not_heeded(
        self, message: Resume | Inject | Commit
    ) -> None:
        """Ruling 1."""
        assert tell(running(2), Told(message)) == []

    @pytest.mark.parametrize("message", [Inject(1, 1), Commit(1, 1), Resume(1)], ids=repr)
    def test_after_a_fault_it_does_nothing_more_of_its_generation(
        self, message: Resume | Inject | Commit
    ) -> None:
        member = running()
        tell(member, Told(Halt()))
        assert tell(member, Told(message)) == []


class TestEpochs:
    def test_a_barrier_is_put_where_it_is_told(self) -> None:
        assert tell(running(), Told(Inject(1, 1, final=True))) == [
            PutBarrier(1, final=True, switch=False)
        ]

    def test_an_epoch_is_reported_once_it_is_durable(self) -> None:
        member = running()
        assert tell(member, Durable(1, 1, PART)) == [Say(Prepared(1, 1, PART))]

    def test_an_epoch_is_not_reported_before_the_one_before_is_published(self) -> None:
        """Ruling 28."""
        member = running()
        tell(member, Durable(1, 1, PART))
        assert tell(member, Told(Commit(1, 1)), Durable(1, 2, PART)) == [Publish(1, switched=False)]
        assert tell(member, SinksPublished(1, 1)) == [
            Say(Published(1, 1)),
            Say(Prepared(1, 2, PART)),
        ]

    def test_it_is_reported_once(self) -> None:
        member = running()
        tell(member, Durable(1, 1, PART), SinksPublished(1, 1), Durable(1, 2, PART))
        assert tell(member, SinksPublished(1, 1)) == [Say(Published(1, 1))]

    def test_what_was_committed_counts_as_published_after_going_back_to_it(self) -> None:
        """Ruling 28: a sink publishes what is pending when it is opened."""
        member = running(2, epoch=7)
        assert tell(member, Durable(2, 8, PART)) == [Say(Prepared(2, 8, PART))]

    def test_what_becomes_durable_after_a_fault_is_not_reported(self) -> None:
        member = running()
        tell(member, Told(Halt()))
        assert tell(member, Durable(1, 1, PART)) == []
        tell(member, Told(recover(2)))
        assert tell(member, Recovered(2), Told(Resume(2))) == [Say(Ready(2)), Run()]
        assert tell(member, SinksPublished(2, 0)) == [Say(Published(2, 0))], "no report of epoch 1"

    def test_what_waited_for_its_sinks_is_forgotten_by_a_recovery(self) -> None:
        member = running()
        tell(member, Durable(1, 1, PART), Told(Commit(1, 1)), Durable(1, 2, PART))
        tell(member, Told(recover(2, 1)), Recovered(2), Told(Resume(2)))
        assert tell(member, SinksPublished(1, 1)) == []
        assert tell(member, SinksPublished(2, 1)) == [Say(Published(2, 1))]

    def test_the_end_of_its_sources_and_a_broken_stream_are_said(self) -> None:
        member = running()
        assert tell(member, SourcesEnded(1), StreamBroke(1, 3)) == [
            Say(Drained(1)),
            Say(Broken(1, 3)),
        ]

    def test_those_of_an_earlier_generation_are_not(self) -> None:
        """Ruling 1."""
        member = running(2)
        assert tell(member, SourcesEnded(1), StreamBroke(1, 3)) == []


def enlist(attempt: int = 1, generation: int = 1, epoch: int = 5) -> Enlist:
    old = Assignment.first(2)
    return Enlist(generation, attempt, epoch, old, rewrite(old, range(3)), {}, {}, {})


class TestRescale:
    """Rulings 20 to 24, as one that is a member already."""

    def test_it_gets_ready_says_so_and_gives_what_moves_when_all_are(self) -> None:
        member = running()
        assert tell(member, Told(enlist())) == [GetReady(enlist(), joins=False)]
        assert tell(member, IsEnlisted(1, 1)) == [Say(Enlisted(1, 1))]
        assert tell(member, Told(Copy(1, 1))) == [Donate(1)]
        assert member.phase is Phase.RUNNING

    def test_it_says_how_far_it_has_got(self) -> None:
        member = running()
        tell(member, Told(enlist()))
        assert tell(member, HasStaged(1, 1, 4, 7, 70)) == [Say(Staged(1, 1, 4, 7, 70))]

    def test_epochs_go_on_meanwhile(self) -> None:
        member = running()
        tell(member, Told(enlist()))
        put = PutBarrier(1, final=False, switch=False)
        assert tell(member, Told(Inject(1, 1)), Durable(1, 1, PART)) == [
            put,
            Say(Prepared(1, 1, PART)),
        ]
        assert tell(member, Told(Commit(1, 1))) == [Publish(1, switched=False)]
        assert member.attempt == 1

    def test_the_switch_is_a_barrier_that_says_so_and_its_commit_too(self) -> None:
        member = running()
        tell(member, Told(enlist()))
        switch = Told(Inject(1, 1, switch=1))
        assert tell(member, switch) == [PutBarrier(1, final=False, switch=True)]
        assert tell(member, Durable(1, 1, PART, 0.5)) == [Say(Prepared(1, 1, PART, 0.5))]
        assert tell(member, Told(Commit(1, 1))) == [Publish(1, switched=True)]
        assert member.attempt == 0, "the attempt is over"

    def test_the_next_commit_is_none_of_a_switch(self) -> None:
        member = running()
        tell(member, Told(enlist()), Told(Inject(1, 1, switch=1)), Told(Commit(1, 1)))
        tell(member, Told(Inject(1, 2)))
        assert tell(member, Told(Commit(1, 2))) == [Publish(2, switched=False)]

    def test_it_forgets_an_attempt_that_is_given_up_and_goes_on(self) -> None:
        """Ruling 24: without a rollback."""
        member = running()
        tell(member, Told(enlist()))
        assert tell(member, Told(Abort(1, 1))) == [GiveUpAttempt(1)]
        assert tell(member, Told(Abort(1, 1))) == []
        assert tell(member, IsEnlisted(1, 1), HasStaged(1, 1, 1, 1, 1), Told(Copy(1, 1))) == []
        assert member.phase is Phase.RUNNING

    def test_what_comes_of_an_attempt_before_is_not_said(self) -> None:
        """Ruling 22: every attempt has an id of its own."""
        member = running()
        tell(member, Told(enlist(1)), Told(Abort(1, 1)), Told(enlist(2)))
        assert tell(member, IsEnlisted(1, 1), HasStaged(1, 1, 1, 1, 1), Told(Copy(1, 1))) == []
        assert tell(member, Told(Abort(1, 1))) == []
        assert tell(member, IsEnlisted(1, 2)) == [Say(Enlisted(1, 2))]

    def test_a_later_attempt_takes_the_place_of_one(self) -> None:
        member = running()
        tell(member, Told(enlist(1)))
        assert tell(member, Told(enlist(2))) == [GetReady(enlist(2), joins=False)]
        assert member.attempt == 2

    @pytest.mark.parametrize("generation", [1, 3])
    def test_one_of_another_generation_is_not_heeded(self, generation: int) -> None:
        """Ruling 1."""
        member = running(2)
        assert tell(member, Told(enlist(1, generation))) == []
        tell(member, Told(enlist(1, 2)))
        others: list[Event] = [
            Told(Copy(generation, 1)),
            Told(Abort(generation, 1)),
            IsEnlisted(generation, 1),
        ]
        assert tell(member, *others) == []
        assert member.attempt == 1

    def test_a_fault_ends_it(self) -> None:
        member = running()
        tell(member, Told(enlist()), Told(Inject(1, 1, switch=1)))
        assert tell(member, Told(Halt())) == [Abandon()]
        assert (member.attempt, member._switch) == (0, 0)
        tell(member, Told(recover(2)), Recovered(2), Told(Resume(2)), Told(Inject(2, 1)))
        assert tell(member, Told(Commit(2, 1))) == [Publish(1, switched=False)]

    def test_it_is_not_heeded_before_it_runs(self) -> None:
        member = Member()
        tell(member, Told(recover(1)))
        assert tell(member, Told(enlist())) == []

    def test_for_what_a_stream_that_broke_was_opened_is_said(self) -> None:
        member = running()
        tell(member, Told(enlist()))
        assert tell(member, StreamBroke(1, 2, 1)) == [Say(Broken(1, 2, 1))]


class TestJoining:
    """Rulings 20 and 24: it takes part from the barrier of the switch on, and not before."""

    @staticmethod
    def joining(epoch: int = 5) -> Member:
        member = Member()
        tell(member, Told(enlist(1, 3, epoch)), IsEnlisted(3, 1))
        assert member.phase is Phase.JOINING
        return member

    def test_it_gets_ready_in_the_generation_that_there_is(self) -> None:
        member = Member()
        assert tell(member, Told(enlist(1, 3))) == [GetReady(enlist(1, 3), joins=True)]
        assert (member.generation, member.phase) == (3, Phase.JOINING)
        assert tell(member, IsEnlisted(3, 1)) == [Say(Enlisted(3, 1))]

    def test_it_says_how_far_it_has_got(self) -> None:
        assert tell(self.joining(), HasStaged(3, 1, 5, 1, 10)) == [Say(Staged(3, 1, 5, 1, 10))]

    def test_epochs_before_the_switch_are_not_its_own(self) -> None:
        member = self.joining()
        assert tell(member, Told(Inject(3, 6)), Told(Commit(3, 6)), Told(Copy(3, 1))) == [Donate(1)]
        assert tell(member, Durable(3, 6, PART)) == []

    def test_it_runs_from_the_switch_on(self) -> None:
        """One that joins injects it, too (20)."""
        member = self.joining()
        switch = Told(Inject(3, 7, switch=1))
        assert tell(member, switch) == [PutBarrier(7, final=False, switch=True)]
        assert member.phase is Phase.RUNNING
        assert tell(member, Durable(3, 7, PART)) == [Say(Prepared(3, 7, PART))], "ruling 28"
        assert tell(member, Told(Commit(3, 7))) == [Publish(7, switched=True)]

    def test_the_switch_of_another_attempt_is_not_its_own(self) -> None:
        member = self.joining()
        assert tell(member, Told(Inject(3, 7, switch=2))) == []
        assert member.phase is Phase.JOINING

    def test_it_waits_again_when_the_attempt_is_given_up(self) -> None:
        member = self.joining()
        assert tell(member, Told(Abort(3, 1))) == [Abandon()]
        assert member.phase is Phase.WAITING
        again = enlist(2, 3)
        assert tell(member, Told(again)) == [GetReady(again, joins=True)]

    def test_a_fault_before_the_commit_makes_it_wait_again(self) -> None:
        member = self.joining()
        tell(member, Told(Inject(3, 7, switch=1)))
        assert tell(member, Told(Halt())) == [Abandon()]
        assert tell(member, Told(Commit(3, 7)), Durable(3, 7, PART)) == []
        again = enlist(1, 4)
        assert tell(member, Told(again)) == [GetReady(again, joins=True)]

    def test_a_fault_behind_the_commit_makes_it_go_back_like_any_member(self) -> None:
        member = self.joining()
        tell(member, Told(Inject(3, 7, switch=1)), Told(Halt()))
        assert tell(member, Told(recover(4, 7))) == [GoBack(recover(4, 7))]

    def test_an_older_generation_is_not_heeded(self) -> None:
        """Ruling 1."""
        member = self.joining()
        tell(member, Told(Halt()))
        assert tell(member, Told(enlist(1, 2))) == []


class TestClientsOfOneThatLeaves:
    """Ruling 31, and ruling K8s 12."""

    def test_it_says_that_it_has_some(self) -> None:
        member = running()
        tell(member, Told(enlist()))
        assert tell(member, IsEnlisted(1, 1, listens=True)) == [Say(Enlisted(1, 1, listens=True))]

    def test_it_lets_go_of_them_and_says_when_they_are_gone(self) -> None:
        member = running()
        tell(member, Told(enlist()))
        assert not member.draining
        assert tell(member, Told(Drain(1, 1, 5, 30))) == [LetGo(1, 5, 30)]
        assert member.draining
        assert tell(member, ClientsGone(1, 1, 7)) == [Say(ConnectionsClosed(1, 1, 7))]

    def test_one_that_stays_after_all_is_there_for_clients_again(self) -> None:
        member = running()
        tell(member, Told(enlist()), Told(Drain(1, 1, 5, 30)))
        assert tell(member, Told(Abort(1, 1))) == [GiveUpAttempt(1)]
        assert not member.draining
        assert tell(member, ClientsGone(1, 1, 7)) == []

    def test_a_fault_ends_it_too(self) -> None:
        member = running()
        tell(member, Told(enlist()), Told(Drain(1, 1, 5, 30)), Told(Halt()))
        assert not member.draining

    @pytest.mark.parametrize("drain", [Drain(1, 2, 5, 30), Drain(2, 1, 5, 30)], ids=repr)
    def test_another_attempt_or_generation_is_not_heeded(self, drain: Drain) -> None:
        member = running()
        tell(member, Told(enlist()))
        assert tell(member, Told(drain)) == []
        assert not member.draining


class TestLeaving:
    """Ruling 29."""

    def test_it_says_that_it_has_published_the_last_epoch(self) -> None:
        member = running()
        tell(member, Told(enlist()), Told(Inject(1, 1, switch=1)), Durable(1, 1, PART))
        tell(member, Told(Commit(1, 1)))
        assert tell(member, SinksPublished(1, 1)) == [Say(Published(1, 1))]
        assert tell(member, Told(Finish())) == [Abandon(), End()]

    def test_one_that_comes_back_publishes_on_the_way_and_says_so(self) -> None:
        member = Member()
        tell(member, Told(recover(4, 9)))
        assert tell(member, SinksPublished(4, 9)) == [Say(Published(4, 9))]


class TestTheEnd:
    def test_it_ends_when_it_is_told(self) -> None:
        member = running()
        assert tell(member, Told(Finish())) == [Abandon(), End()]

    def test_it_gives_up_when_it_is_refused(self) -> None:
        assert tell(Member(), Told(Refuse("no"))) == [Abandon(), GiveUp("no")]

    @pytest.mark.parametrize("last", [Finish(), Refuse("no")], ids=repr)
    def test_nothing_follows(self, last: Finish | Refuse) -> None:
        member = running()
        tell(member, Told(last))
        events: list[Event] = [
            *(Told(recover(2)), Told(Halt()), Told(Finish()), Told(Inject(1, 1))),
            *(Durable(1, 1, PART), SinksPublished(1, 1), StreamBroke(1, 0), SourcesEnded(1)),
        ]
        assert tell(member, *events) == []


@settings(deadline=None)
@given(seed=st.integers(0, 1 << 30))
def test_no_sequence_of_events_makes_it_process_or_report_out_of_turn(seed: int) -> None:
    """Rulings 1, 2 and 28, whatever comes late, twice or from another generation."""
    chance = random.Random(seed)
    member = Member()
    open_, running_, last = False, False, 0
    for _ in range(150):
        generation = max(1, member.generation + chance.choice((0, 0, 0, 0, -1, 1)))
        epoch = max(0, member.published + chance.choice((0, 1, 1, 2)))
        attempt = max(1, member.attempt + chance.choice((0, 0, 0, 1, -1)))
        options: list[Event] = [
            Told(recover(generation, epoch)),
            *[Recovered(generation)] * 3,
            *[Told(Resume(generation))] * 3,
            Told(Halt()),
            *[Told(Inject(generation, epoch))] * 2,
            *[Told(Commit(generation, epoch))] * 2,
            *[Durable(generation, epoch, PART)] * 3,
            *[SinksPublished(generation, epoch)] * 2,
            SourcesEnded(generation),
            StreamBroke(generation, 0),
            *[Told(enlist(attempt, generation))] * 2,
            IsEnlisted(generation, attempt),
            Told(Copy(generation, attempt)),
            Told(Drain(generation, attempt, 1, 1)),
            ClientsGone(generation, attempt, 0),
            Told(Inject(generation, epoch, switch=member.attempt)),
            Told(Abort(generation, attempt)),
            HasStaged(generation, attempt, epoch, 0, 0),
        ]
        before = member.attempt
        for effect in member.handle(chance.choice(options)):
            match effect:
                case Abandon():
                    assert open_, "there is nothing to abandon"
                    open_ = running_ = False
                case GoBack(to):
                    assert not open_
                    assert to.generation > last, "generations go on"
                    open_, last = True, to.generation
                case Run():
                    assert open_
                    assert not running_
                    running_ = True
                case GetReady(to, joins):
                    assert open_ == running_ != joins, "it joins from nothing"
                    assert to.generation >= last
                    open_, last = True, to.generation
                case PutBarrier(_, _, switch):
                    if switch and not running_:
                        running_ = True  # from here on it is a member
                    assert running_
                    assert not switch or member.attempt
                case Publish():
                    assert running_
                case Donate() | LetGo() | GiveUpAttempt():
                    assert before
                case Say(message):
                    assert getattr(message, "generation", None) == last
                    if isinstance(message, Prepared):
                        assert running_
                        assert member.published >= message.epoch - 1
