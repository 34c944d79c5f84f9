"""A worker's state machine. Rulings are those of docs/protocol.md."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wallaroo.partitioning import Assignment
from wallaroo.protocol.manifest import Part
from wallaroo.protocol.member import (
    Abandon,
    Durable,
    Effect,
    End,
    Event,
    GiveUp,
    GoBack,
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
    Broken,
    Commit,
    Drained,
    Finish,
    Halt,
    Inject,
    Prepared,
    Published,
    Ready,
    Recover,
    Refuse,
    Resume,
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
        assert tell(running(), Told(Inject(1, 1, final=True))) == [PutBarrier(1, final=True)]

    def test_an_epoch_is_reported_once_it_is_durable(self) -> None:
        member = running()
        assert tell(member, Durable(1, 1, PART)) == [Say(Prepared(1, 1, PART))]

    def test_an_epoch_is_not_reported_before_the_one_before_is_published(self) -> None:
        """Ruling 28."""
        member = running()
        tell(member, Durable(1, 1, PART))
        assert tell(member, Told(Commit(1, 1)), Durable(1, 2, PART)) == [Publish(1)]
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


@given(seed=st.integers(0, 1 << 30))
def test_no_sequence_of_events_makes_it_process_or_report_out_of_turn(seed: int) -> None:
    """Rulings 1, 2 and 28, whatever comes late, twice or from another generation."""
    chance = random.Random(seed)
    member = Member()
    open_, running_, last = False, False, 0
    for _ in range(150):
        generation = max(1, member.generation + chance.choice((0, 0, 0, 0, -1, 1)))
        epoch = max(0, member.published + chance.choice((0, 1, 1, 2)))
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
        ]
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
                case PutBarrier() | Publish():
                    assert running_
                case Say(message):
                    assert getattr(message, "generation", None) == last
                    if isinstance(message, Prepared):
                        assert running_
                        assert member.published >= message.epoch - 1
