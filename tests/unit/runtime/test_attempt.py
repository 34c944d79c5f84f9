"""A worker's part in one attempt to rescale: what it gives, what it gets, by which streams."""

from typing import Any

import pytest
from tests.unit.dataflow import pipelines as p
from tests.unit.dataflow.cluster import Writer, codec, numbers

from wallaroo.dataflow.consignment import CHANNEL, Consignment
from wallaroo.dataflow.engine import Engine
from wallaroo.dataflow.graph import build_graph
from wallaroo.partitioning import Assignment
from wallaroo.partitioning.rewrite import moves, rewrite
from wallaroo.protocol.manifest import Staging as StagingMark
from wallaroo.protocol.member import HasStaged
from wallaroo.protocol.messages import Enlist
from wallaroo.runtime.attempt import _WORD, Attempt, Outgoing
from wallaroo.state.memory import MemoryBase, memory_store
from wallaroo.state.parcels import Entries, Last, Parcel, UpTo, encode_parcel
from wallaroo.state.staging import Staging
from wallaroo.state.store import Store
from wallaroo.state.throttle import at_once

GRAPH = build_graph(p.application(p.source().key_by(p.by_rest).to(p.tally)))
PLACES = numbers(GRAPH)
#: The one exchange of the pipeline.
EDGE = GRAPH.exchanges[0].index


class Host:
    """Worker `worker` in an attempt from an assignment of `old` workers to one of `new`."""

    def __init__(self, worker: int, old: int, new: int) -> None:
        first = Assignment.first(old)
        to = Enlist(7, 3, 5, first, rewrite(first, range(new)), {}, PLACES, {"numbers": {"a": 1}})
        self.to = to
        self.moves = moves(to.old, to.new)
        self.store: Store = memory_store(codec())
        self.woken: list[Outgoing] = []
        self.came: list[tuple[int, bytes]] = []
        self.gained: list[str] = []
        self.engine = Engine(
            GRAPH,
            worker,
            to.old,
            codec(),
            self.store,
            PLACES,
            to.partitions,
            [Writer() for _ in GRAPH.sinks],
            wake=lambda _: None,
            passed=lambda _: None,
            held=lambda _: None,
            clock=lambda: 0.0,
            gained=self.gained.append,
        )
        self.attempt = Attempt(to, worker, joins=worker >= old)

    def open(self) -> tuple[list[Outgoing], dict[tuple[int, int], Any]]:
        return self.attempt.open(
            self.engine,
            self.store,
            MemoryBase() if self.attempt.mark else None,
            lambda: 0.0,
            self.woken.append,
            lambda donor, data: self.came.append((donor, data)),
            at_once,
        )

    def take(self, donor: int, parcel: Parcel) -> HasStaged | None:
        return self.attempt.take(donor, encode_parcel(parcel), self.engine)

    @property
    def staging(self) -> Staging:
        assert self.attempt.staging
        return self.attempt.staging


class TestWhoItIs:
    @pytest.mark.parametrize(
        ("worker", "old", "new", "leaves", "joins"),
        [(0, 2, 3, False, False), (2, 2, 3, False, True), (2, 3, 2, True, False)],
    )
    def test_one_that_stays_joins_or_leaves(
        self, worker: int, old: int, new: int, leaves: bool, joins: bool
    ) -> None:
        attempt = Host(worker, old, new).attempt
        assert (attempt.leaves, attempt.joins) == (leaves, joins)
        assert attempt.joiners == set(range(old, new))
        assert attempt.leavers == set(range(new, old))

    def test_behind_the_switch_it_owns_what_the_new_assignment_says(self) -> None:
        host = Host(2, 2, 3)
        host.open()
        host.attempt.inject(6, host.engine, host.store)
        tenure = host.attempt.tenure(6)
        owned = tuple((piece.start, piece.end) for piece in host.to.new.pieces_of(2))
        assert (tenure.version, tenure.owned, tenure.switched, tenure.joined) == (2, owned, 6, 6)


class TestStreams:
    def test_a_donor_opens_those_to_joiners_and_one_for_what_it_gives(self) -> None:
        host = Host(0, 2, 3)
        outgoing, incoming = host.open()
        assert [(each.channel, each.receiver) for each in outgoing] == [(EDGE, 2), (CHANNEL, 2)]
        assert list(incoming) == [(EDGE, 2)]
        assert host.attempt.donor
        assert host.attempt.staging is None

    def test_one_that_joins_opens_all_of_the_dataflow(self) -> None:
        host = Host(2, 2, 3)
        outgoing, incoming = host.open()
        assert {(each.channel, each.receiver) for each in outgoing} == {(EDGE, 0), (EDGE, 1)}
        assert set(incoming) == {(EDGE, 0), (EDGE, 1), (CHANNEL, 0), (CHANNEL, 1)}
        assert host.attempt.donor is None
        assert host.staging.awaited == {(w, n) for w in (0, 1) for n in PLACES.values()}

    def test_one_that_leaves_opens_those_for_what_it_gives_alone(self) -> None:
        host = Host(2, 3, 2)
        outgoing, incoming = host.open()
        assert {(each.channel, each.receiver) for each in outgoing} == {(CHANNEL, 0), (CHANNEL, 1)}
        assert all(isinstance(each, Consignment) for each in outgoing)
        assert incoming == {}

    def test_one_of_which_nothing_moves_opens_none(self) -> None:
        host = Host(1, 2, 2)
        assert host.open() == ([], {})
        assert (host.attempt.donor, host.attempt.staging) == (None, None)
        assert host.attempt.take_job() is None
        host.attempt.close()

    def test_the_staging_is_named_by_the_attempt_and_covers_what_is_gained(self) -> None:
        """Ruling 22: every attempt has one of its own."""
        host = Host(2, 2, 3)
        host.open()
        mark = host.attempt.mark
        assert mark
        gets = tuple((m.start, m.end) for m in host.moves if m.receiver == 2)
        assert mark == StagingMark("7-3", gets)

    def test_what_comes_by_a_donors_stream_is_handed_on_as_its(self) -> None:
        host = Host(2, 2, 3)
        _, incoming = host.open()
        incoming[CHANNEL, 1].add([b"first", b"second"])
        assert host.came == [(1, b"first"), (1, b"second")]

    def test_a_donors_stream_has_room_as_long_as_the_staging_has(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        host = Host(2, 2, 3)
        _, incoming = host.open()
        arrivals = incoming[CHANNEL, 0]
        assert arrivals.has_room
        monkeypatch.setattr(host.staging, "_waiting", 1 << 40)
        assert not arrivals.has_room


class TestWhatAReceiverSays:
    def test_it_is_as_far_as_the_donor_that_is_least_far(self) -> None:
        host = Host(2, 2, 3)
        host.open()
        assert host.take(0, UpTo(5)) == HasStaged(7, 3, -1, 0, 0)
        assert host.take(1, UpTo(5)) == HasStaged(7, 3, 5, 0, 0)

    def test_it_does_not_repeat_itself(self) -> None:
        host = Host(2, 2, 3)
        host.open()
        host.take(0, UpTo(5))
        assert host.take(0, UpTo(6)) is None, "the other one is still where it was"

    def test_entries_are_told_of_now_and_then(self) -> None:
        host = Host(2, 2, 3)
        host.open()
        assert host.take(0, Entries([b"key"], [b"small"])) is None
        said = host.take(0, Entries([b"other"], [b"x" * _WORD]))
        assert said
        assert (said.epoch, said.entries) == (-1, 2)
        assert said.size > _WORD
        assert host.take(0, Entries([b"third"], [b"small"])) is None

    def test_that_a_place_has_ended_is_for_the_dataflow_alone(self) -> None:
        host = Host(2, 2, 3)
        host.open()
        assert host.take(0, Last(PLACES["tally"])) is None


class TestTheSwitch:
    def test_the_dataflow_waits_for_what_has_not_come(self) -> None:
        """Ruling 21."""
        host = Host(2, 2, 3)
        host.open()
        ended = {(0, n) for n in PLACES.values()} | {(1, PLACES["tally"])}
        for donor, number in sorted(ended):
            host.take(donor, Last(number))
        host.attempt.inject(6, host.engine, host.store)
        assert host.attempt.switch == 6
        assert host.store.staging is host.staging
        assert host.engine._awaited == {(w, n) for w in (0, 1) for n in PLACES.values()} - ended
        wanted = [(m.start, m.end, m.donor) for m in host.moves if m.receiver == 2]
        assert host.engine._ranges == wanted

    def test_the_dataflow_is_told_what_comes_from_then_on(self) -> None:
        host = Host(2, 2, 3)
        host.open()
        host.attempt.inject(6, host.engine, host.store)
        host.take(1, Last(PLACES["tally"]))
        assert (1, PLACES["tally"]) not in host.engine._awaited

    def test_one_that_only_gives_waits_for_nothing(self) -> None:
        host = Host(0, 2, 3)
        host.open()
        host.attempt.inject(6, host.engine, host.store)
        assert (host.store.staging, host.engine._awaited) == (None, set())


class TestWorkInTheBackground:
    def test_what_a_receiver_has_is_written_and_then_there_is_room(self) -> None:
        host = Host(2, 2, 3)
        _, incoming = host.open()
        room: list[int] = []
        for donor in (0, 1):
            incoming[CHANNEL, donor].on_room = lambda donor=donor: room.append(donor)
            for number in PLACES.values():
                host.take(donor, Last(number))
        work = host.attempt.take_job()
        assert work
        assert room == [0, 1]
        job, done = work
        assert not host.staging.durable
        done(job())
        assert host.staging.durable
        assert host.attempt.take_job() is None

    def test_a_donor_that_is_closed_catches_nothing_any_more(self) -> None:
        host = Host(0, 2, 3)
        host.open()
        donor = host.attempt.donor
        assert donor
        donor.allowed = True
        donor.work(0.0)
        assert host.store._catcher is donor
        host.attempt.close()
        assert host.store._catcher is None
