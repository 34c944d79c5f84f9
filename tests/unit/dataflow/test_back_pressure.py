"""Every queue is bounded: what has no room is waited for, and nothing else is."""

from typing import Any

import pytest
from tests.unit.dataflow import pipelines as p
from tests.unit.dataflow.cluster import (
    Cluster,
    Reader,
    Writer,
    codec,
    engine_of,
    run_dry,
    small_rooms,
)

from wallaroo.dataflow import exchange
from wallaroo.dataflow.barrier import Barrier
from wallaroo.dataflow.engine import BATCH, Engine
from wallaroo.dataflow.exchange import Inbox, Outbox
from wallaroo.dataflow.graph import build_graph
from wallaroo.partitioning import Assignment, hash_key, normalize_key

MANY = 100_000
ROOM = 1 << 13


@pytest.fixture(autouse=True)
def _rooms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Queues that small numbers fill sooner than the real ones."""
    monkeypatch.setattr(exchange, "ROOM", ROOM)
    monkeypatch.setattr(exchange, "FRAME", ROOM // 4)


def number_of(worker: int, workers: int) -> int:
    """A number whose key belongs to `worker`."""
    owner = Assignment.first(workers).owner
    return next(
        number
        for number in range(1000)
        if owner(hash_key(normalize_key(p.by_byte(number)))) == worker
    )


def queued(engine: Engine) -> int:
    """Events and bytes in all queues, roughly."""
    return sum(inbox._size for inbox in engine.inboxes.values()) + sum(
        outbox._bytes + len(outbox.values) for outbox in engine.outboxes.values()
    )


def keyed() -> p.Events:
    return p.source().key_by(p.by_byte)


def test_a_source_is_not_read_while_the_sink_behind_it_has_no_room() -> None:
    reader, writer = Reader(range(MANY)), Writer()
    engine = engine_of(p.application(p.source()), readers={"numbers": reader}, writers=[writer])
    writer.has_room = False
    run_dry(engine)
    assert reader.reads == 0


def test_a_source_is_not_read_while_the_sink_behind_an_exchange_has_no_room() -> None:
    reader, writer = Reader(range(MANY)), Writer()
    application = p.application(keyed().to(p.tally).key_by(p.by_byte).to(p.count))
    engine = engine_of(application, readers={"numbers": reader}, writers=[writer])
    writer.has_room = False
    run_dry(engine)
    assert reader.reads == 0


def test_a_sink_that_has_room_again_gets_all_events() -> None:
    reader, writer = Reader(range(5000)), Writer()
    engine = engine_of(p.application(keyed()), readers={"numbers": reader}, writers=[writer])
    engine.step()
    writer.has_room = False
    run_dry(engine)
    waited_with = len(writer.written)
    writer.has_room = True
    run_dry(engine)
    assert waited_with < 5000
    assert sorted(map(int, writer.written)) == list(range(5000))


def test_what_waits_before_a_forward_to_a_full_sink_is_bounded() -> None:
    numbers = p.source()
    application = p.application(numbers.to(p.add_one).merge(numbers.key_by(p.by_rest)))
    reader, writer = Reader(range(MANY)), Writer()
    engine = engine_of(application, readers={"numbers": reader}, writers=[writer])
    writer.has_room = False
    run_dry(engine)
    assert 0 < reader.given <= 4 * exchange.LOCAL_ROOM
    assert queued(engine) <= 4 * exchange.LOCAL_ROOM + 2 * BATCH


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_a_cluster_whose_sinks_are_full_holds_a_bounded_number_of_events(workers: int) -> None:
    numbers = p.source()
    pipeline = numbers.key_by(p.by_rest).to(p.tally).key_by(p.by_byte).to(p.double_up)
    application = p.application(pipeline.merge(numbers).key_by(p.by_any).to(p.tally))
    with small_rooms():
        cluster = Cluster(
            application, {"numbers": {w: range(MANY) for w in range(workers)}}, workers, 0
        )
        for writers in cluster.writers:
            writers[0].has_room = False
        cluster.settle()
        first = [reader.given for reader in cluster.readers["numbers"].values()]
        cluster.settle()
        again = [reader.given for reader in cluster.readers["numbers"].values()]
    assert max(first) < 2000
    assert again == first, "it goes on reading"


def test_a_source_waits_for_an_outbox_to_another_worker() -> None:
    reader = Reader(range(MANY))
    application = p.application(keyed())
    engine = engine_of(application, workers=2, readers={"numbers": reader})
    run_dry(engine)
    (outbox,) = engine.outboxes.values()
    assert not outbox.has_room
    assert outbox._bytes < 2 * ROOM
    assert reader.given < MANY


def test_a_source_goes_on_when_the_stream_has_taken_a_frame() -> None:
    reader = Reader(range(MANY))
    engine = engine_of(p.application(keyed()), workers=2, readers={"numbers": reader})
    run_dry(engine)
    before = reader.given
    (outbox,) = engine.outboxes.values()
    outbox.take()
    run_dry(engine)
    assert reader.given > before


def test_what_came_from_others_is_worked_off_while_a_source_waits_to_send() -> None:
    """Ruling 15 of docs/protocol.md: a stage that waits to send lets later stages drain."""
    writer = Writer()
    engine = engine_of(
        p.application(keyed().to(p.tally)),
        worker=1,
        workers=2,
        readers={"numbers": Reader(range(MANY))},
        writers=[writer],
    )
    run_dry(engine)
    assert not next(iter(engine.outboxes.values())).has_room
    mine = number_of(1, 2)
    inbox = engine.inboxes[0, 0]
    before = len(writer.written)
    inbox.add([codec().encode_block([mine] * 10)])
    run_dry(engine)
    assert len(writer.written) == before + 10


def test_one_stream_without_room_does_not_stop_a_source_that_does_not_use_it() -> None:
    blocked = p.source("blocked").key_by(p.by_rest).to(p.tally)
    free = p.source("free").key_by(p.by_byte).to(p.count)
    readers = {"blocked": Reader(range(MANY)), "free": Reader(range(3000))}
    engine = engine_of(p.application(blocked.merge(free)), workers=2, readers=readers)
    run_dry(engine)
    full = [outbox for outbox in engine.outboxes.values() if not outbox.has_room]
    assert [outbox.edge.sender for outbox in full] == [
        stage.index for stage in engine.graph.stages if stage.source and stage.name == "blocked"
    ]
    assert readers["blocked"].given < MANY
    assert readers["free"].ended


def test_a_barrier_is_put_on_a_stream_that_has_no_room() -> None:
    """Ruling 14 of docs/protocol.md: a barrier is exempt from bounds."""
    engine = engine_of(p.application(keyed()), workers=2, readers={"numbers": Reader(range(MANY))})
    run_dry(engine)
    (outbox,) = engine.outboxes.values()
    assert not outbox.has_room
    engine.inject(Barrier(1))
    run_dry(engine)
    taken = list(iter(outbox.take, Barrier(1)))
    assert taken
    assert None not in taken


def test_a_stage_with_the_barrier_of_one_stream_reads_the_others_still() -> None:
    writer = Writer()
    engine = engine_of(p.application(keyed().to(p.tally)), workers=2, writers=[writer])
    mine = number_of(0, 2)
    engine.inject(Barrier(1))
    run_dry(engine)  # the local stream has its barrier
    engine.inboxes[0, 1].add([codec().encode_block([mine])])
    run_dry(engine)
    assert writer.written == [str(mine)]


def test_a_stage_with_the_barrier_of_a_stream_reads_no_more_of_it_until_all_have_it() -> None:
    passed: list[Barrier] = []
    writer = Writer()
    application = p.application(keyed().to(p.tally))
    engine = engine_of(application, workers=3, writers=[writer], passed=passed.append)
    mine = number_of(0, 3)
    behind = [codec().encode_block([mine])]
    engine.inboxes[0, 1].add_barrier(Barrier(1))
    engine.inboxes[0, 1].add(behind)
    engine.inject(Barrier(1))
    run_dry(engine)
    held_back = not writer.written and not passed
    engine.inboxes[0, 2].add_barrier(Barrier(1))
    run_dry(engine)
    assert held_back
    assert passed == [Barrier(1)]
    assert writer.written == [str(mine)]


def test_an_inbox_that_has_room_again_says_so() -> None:
    edge = build_graph(p.application(keyed())).exchanges[0]
    told: list[bool] = []
    with small_rooms():
        inbox = Inbox(edge, 1, local=False)
        inbox.on_room = lambda: told.append(inbox.has_room)
        inbox.add([codec().encode_block(list(range(200)))])
        full = not inbox.has_room
        inbox.take_events(codec(), 1000)
    assert full
    assert told == [True]


def test_an_inbox_gives_a_large_block_in_parts_and_in_order() -> None:
    inbox = Inbox(build_graph(p.application(keyed())).exchanges[0], 1, local=False)
    inbox.add([codec().encode_block(list(range(10)))])
    inbox.add_barrier(Barrier(1))
    parts = []
    while not inbox.peek_barrier():
        parts.append(inbox.take_events(codec(), 4))
    assert parts == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_an_outbox_gives_everything_once_and_in_order_with_barriers_between() -> None:
    edge = build_graph(p.application(keyed())).exchanges[0]
    with small_rooms():
        outbox = Outbox(edge, 1, codec(), lambda: None)
        for epoch in range(1, 4):
            for value in range(10 * epoch, 10 * epoch + 10):
                outbox.values.append(value)
                outbox.settle()
            outbox.add_barrier(Barrier(epoch))
        outbox.values.append(99)
        given: list[Any] = []
        while (taken := outbox.take()) is not None:
            if isinstance(taken, Barrier):
                given.append(taken)
            else:
                given += [value for block in taken for value in codec().decode_block(block)]
    assert given == [
        *range(10, 20),
        Barrier(1),
        *range(20, 30),
        Barrier(2),
        *range(30, 40),
        Barrier(3),
        99,
    ]
    assert outbox.idle
    assert outbox.has_room


def test_an_outbox_gives_a_lone_event_at_once() -> None:
    """No linger timer: when idle, an event goes out at once."""
    woken: list[bool] = []
    edge = build_graph(p.application(keyed())).exchanges[0]
    outbox = Outbox(edge, 1, codec(), lambda: woken.append(True))
    outbox.values.append(1)
    outbox.settle()
    assert woken
    assert outbox.take() == [codec().encode_block([1])]


def test_frames_are_about_as_large_as_they_should_be() -> None:
    edge = build_graph(p.application(keyed())).exchanges[0]
    outbox = Outbox(edge, 1, codec(), lambda: None)
    for start in range(0, 200_000, 1000):
        outbox.values.extend(range(start, start + 1000))
        outbox.settle()
    sizes = []
    while isinstance(taken := outbox.take(), list):
        sizes.append(sum(map(len, taken)))
    assert len(sizes) > 1
    assert max(sizes) < 2 * (ROOM // 4)
