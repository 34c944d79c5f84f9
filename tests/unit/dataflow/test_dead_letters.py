"""With dead letters on, what a user's function raises for is set aside, and all else goes on."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.unit.dataflow import pipelines as p
from tests.unit.dataflow.cluster import Cluster, Reader, Writer, engine_of, run_dry
from tests.unit.dataflow.pipelines import Events, tallies

import wallaroo
from wallaroo.dataflow.barrier import Barrier
from wallaroo.dataflow.engine import BATCH
from wallaroo.errors import DataflowError
from wallaroo.partitioning import hash_key

WORKERS = pytest.mark.parametrize("workers", [1, 3])


class Unlucky(Exception):
    pass


def check(event: int) -> None:
    if event == 13:
        raise Unlucky("thirteen")  # the user's line


@wallaroo.computation(name="fragile")
def fragile(event: int) -> int:
    check(event)
    return event


@wallaroo.computation_multi(name="fragile multi")
def fragile_multi(event: int) -> list[int]:
    check(event)
    return [event]


@wallaroo.computation_multi(name="fragile generator")
def fragile_generator(event: int) -> Iterator[int]:
    check(event)
    yield event


@wallaroo.state_computation(name="fragile state", state=p.Tally)
def fragile_state(event: int, state: p.Tally) -> int:
    check(event)
    return event


@wallaroo.state_computation_multi(name="fragile state multi", state=p.Tally)
def fragile_state_multi(event: int, state: p.Tally) -> list[int]:
    check(event)
    return [event]


@wallaroo.key_extractor
def fragile_key(event: int) -> str:
    check(event)
    return "key"


@wallaroo.key_extractor
def odd_key(event: int) -> Any:
    return ["thirteen"] if event == 13 else "key"


@wallaroo.encoder
def fragile_encoder(event: int) -> str:
    check(event)
    return str(event)


class FragileSink(p.Kept):
    encoder = fragile_encoder


def letters_of(cluster: Cluster) -> list[dict[str, Any]]:
    return [json.loads(line) for writer in cluster.letters for line in writer.written]


STEPS: list[tuple[str, str, Callable[[Events], Events]]] = [
    ("computation 'fragile'", "", lambda numbers: numbers.to(fragile)),
    ("computation 'fragile multi'", "", lambda numbers: numbers.to(fragile_multi)),
    ("computation 'fragile generator'", "", lambda numbers: numbers.to(fragile_generator)),
    (
        "state computation 'fragile state'",
        "'rest 2'",
        lambda numbers: numbers.key_by(p.by_rest).to(fragile_state),
    ),
    (
        "state computation 'fragile state multi'",
        r"b'\x00'",
        lambda numbers: numbers.key_by(p.by_byte).to(fragile_state_multi),
    ),
    ("key extractor 'fragile_key'", "", lambda numbers: numbers.key_by(fragile_key)),
    ("key extractor 'odd_key'", "['thirteen']", lambda numbers: numbers.key_by(odd_key)),
    (
        "key extractor 'odd_key'",
        "['thirteen']",
        lambda numbers: numbers.key_by(odd_key).to(p.tally),
    ),
    (
        "computation 'fragile'",
        "",
        lambda numbers: numbers.key_by(p.by_rest).to(p.tally).key_by(p.by_byte).to(fragile),
    ),
]


@WORKERS
@pytest.mark.parametrize(
    ("step", "key", "way"), STEPS, ids=[f"{step} {key}" for step, key, _ in STEPS]
)
def test_an_event_for_which_a_step_raises_is_set_aside_and_the_others_go_on(
    step: str, key: str, way: Callable[[Events], Events], workers: int
) -> None:
    numbers = [*range(30), 13]
    application = p.application(way(p.source()))
    cluster = Cluster(application, {"numbers": {0: numbers}}, workers, 0, dead_letters=True)
    cluster.run()
    assert sorted(map(int, cluster.written())) == [n for n in range(30) if n != 13]
    letters = letters_of(cluster)
    assert [(each["step"], each["key"], each["event"]) for each in letters] == [
        (step, key, "13")
    ] * 2
    if "odd" not in step:
        assert "# the user's line" in letters[0]["traceback"]
        assert letters[0]["error"] == f"{step} raised Unlucky: thirteen"


def test_an_event_for_which_an_encoder_raises_is_set_aside_and_reaches_the_other_sinks() -> None:
    pipeline = p.source().to_sinks([p.Kept(), FragileSink(), p.Kept()])
    application = wallaroo.build_application("test", pipeline)
    cluster = Cluster(application, {"numbers": {0: [1, 13, 2]}}, 1, 0, dead_letters=True)
    cluster.run()
    assert [cluster.written(sink) for sink in range(3)] == [
        ["1", "13", "2"],
        ["1", "2"],
        ["1", "13", "2"],
    ]
    assert [each["step"] for each in letters_of(cluster)] == ["encoder 'fragile_encoder'"]


@pytest.mark.parametrize("seed", range(5))
@WORKERS
def test_an_extractor_that_raises_keeps_the_event_from_no_other_way(
    workers: int, seed: int
) -> None:
    """The ways come in another order when one of them can't be inlined: it must not matter."""
    numbers = p.source()
    ways = numbers.key_by(fragile_key).to(p.tally).merge(numbers.key_by(p.by_rest).to(p.count))
    cluster = Cluster(
        p.application(ways), {"numbers": {0: [13] * 40}}, workers, seed, dead_letters=True
    )
    cluster.run(barriers=3)
    assert tallies(cluster.state("tally")) == {}
    assert tallies(cluster.state("count")) == {"rest 2": (40, 520)}
    assert len(letters_of(cluster)) == 40


def test_a_frame_for_which_the_decoder_raises_is_set_aside() -> None:
    @wallaroo.decoder(header_length=4, length_fmt=">I")
    def strict(payload: bytes) -> int:
        return int(payload)

    reader, letters = Reader([b"1", b"?", b"2"]), Writer()
    reader.decoder = strict
    writer = Writer()
    engine = engine_of(
        p.application(p.source()),
        readers={"numbers": reader},
        writers=[writer],
        dead_letters=letters,
    )
    run_dry(engine)
    assert writer.written == ["1", "2"]
    (letter,) = map(json.loads, letters.written)
    assert (letter["step"], letter["event"]) == ("decoder 'strict'", "b'?'")
    assert engine.letters
    assert engine.letters.count == 1


def test_of_nested_multi_steps_only_the_part_that_fails_is_set_aside() -> None:
    @wallaroo.computation_multi(name="hundreds")
    def hundreds(event: int) -> list[int]:
        return [event, event + 100, event + 200]

    @wallaroo.computation_multi(name="tens")
    def tens(event: int) -> Iterator[int]:
        yield event
        if event == 101:
            raise Unlucky
        yield event + 10

    @wallaroo.computation(name="last")
    def last(event: int) -> int:
        if event == 212:
            raise Unlucky
        return event

    application = p.application(p.source().to(hundreds).to(tens).to(last))
    cluster = Cluster(application, {"numbers": {0: [1, 2]}}, 1, 0, dead_letters=True)
    cluster.run()
    expected = {1, 11, 101, 201, 211, 2, 12, 102, 112, 202}
    assert {int(value) for value in cluster.written()} == expected
    assert {(each["step"], each["event"]) for each in letters_of(cluster)} == {
        ("computation 'tens'", "101"),
        ("computation 'last'", "212"),
    }


def test_a_state_stays_as_the_function_left_it_when_it_raised() -> None:
    """Ruling 33 of docs/protocol.md."""
    application = p.application(p.source().key_by(p.by_rest).to(p.brittle_tally))
    cluster = Cluster(application, {"numbers": {0: [4, 4, 5]}}, 1, 0, dead_letters=True)
    cluster.run()
    assert tallies(cluster.state("brittle tally")) == {"rest 4": (2, 8), "rest 5": (1, 5)}
    assert cluster.written() == ["5"]


class Fussy:
    made = 0

    def __init__(self) -> None:
        Fussy.made += 1
        if Fussy.made == 1:
            raise Unlucky("not yet")


@wallaroo.state_computation(name="fussy", state=Fussy)
def fussy(event: int, state: Fussy) -> int:
    return event


def test_a_state_that_could_not_be_made_is_tried_again_by_the_next_event() -> None:
    Fussy.made = 0
    application = p.application(p.source().key_by(p.by_rest).to(fussy))
    cluster = Cluster(application, {"numbers": {0: [1, 1]}}, 1, 0, dead_letters=True)
    cluster.run()
    assert cluster.written() == ["1"]
    assert [each["step"] for each in letters_of(cluster)] == ["state computation 'fussy'"]
    assert cluster.engines[0].keys == 1


@pytest.mark.parametrize("workers", [1, 2])
def test_chains_of_many_multi_steps_still_nest_no_deeper_than_python_allows(workers: int) -> None:
    numbers = p.source()
    for _ in range(30):
        numbers = numbers.to(p.some_or_none)
    ways = numbers.key_by(p.by_brittle).to(p.count_twice).merge(numbers.key_by(p.by_any))
    for _ in range(20):
        ways = ways.to(p.some_or_none)
    application = p.application(ways, sinks=2)
    cluster = Cluster(application, {"numbers": {0: [2, 6, 11]}}, workers, 0, dead_letters=True)
    cluster.run(barriers=1)
    assert {each["step"] for each in letters_of(cluster)} == {"key extractor 'by_brittle'"}


class TestWhatNoFunctionIsToBlameForStillStops:
    def test_a_key_that_is_not_owned_here(self) -> None:
        """Ruling 10 of docs/protocol.md."""
        application = p.application(p.source().key_by(p.by_rest).to(p.tally))
        letters = Writer()
        engine = engine_of(application, workers=2, dead_letters=letters)
        owner = engine.assignment.owner
        theirs = next(n for n in range(11) if owner(hash_key(f"rest {n}")) == 1)
        engine.inboxes[0, 1].add([engine._codec.encode_block([theirs])])
        with pytest.raises(DataflowError, match="must give the same key for the same event"):
            run_dry(engine)
        assert letters.written == []

    def test_a_state_that_can_not_be_stored(self) -> None:
        letters = Writer()
        engine = engine_of(
            p.application(p.source().key_by(p.by_rest).to(p.tally)),
            readers={"numbers": Reader([1, 1])},
            dead_letters=letters,
        )
        engine.step()
        engine.state("tally")["rest 1"].sink = print
        engine.inject(Barrier(1))
        with pytest.raises(DataflowError, match="can't be stored"):
            run_dry(engine)  # the second event touches it before it is encoded
        assert letters.written == []

    def test_a_step_that_exits(self) -> None:
        @wallaroo.computation(name="exit")
        def leave(event: int) -> int:
            raise SystemExit(3)

        letters = Writer()
        engine = engine_of(
            p.application(p.source().to(leave)),
            readers={"numbers": Reader([1])},
            dead_letters=letters,
        )
        with pytest.raises(DataflowError, match="SystemExit"):
            run_dry(engine)
        assert letters.written == []

    def test_an_event_that_can_not_be_sent(self) -> None:
        @wallaroo.computation(name="make")
        def make(event: int) -> Any:
            return (event, print)

        @wallaroo.key_extractor
        def by_first(event: Any) -> str:
            return str(event[0])

        letters = Writer()
        engine = engine_of(
            p.application(p.source().to(make).key_by(by_first)),
            workers=2,
            readers={"numbers": Reader(range(40))},
            dead_letters=letters,
        )
        run_dry(engine)
        engine.inject(Barrier(1))
        with pytest.raises(DataflowError, match="can't be sent to worker 1"):
            run_dry(engine)
        assert letters.written == []


class TestEpochs:
    @staticmethod
    def two_stages(letters: Writer, reader: Reader) -> Any:
        """The first stage is alone in its source; the second waits for another worker too."""
        application = p.application(p.source().to(fragile).key_by(p.by_rest).to(p.tally))
        return engine_of(application, workers=2, readers={"numbers": reader}, dead_letters=letters)

    def test_what_is_set_aside_behind_a_barrier_waits_until_all_stages_have_passed_it(
        self,
    ) -> None:
        letters = Writer()
        reader = Reader([13, 1, 13, 13])
        engine = self.two_stages(letters, reader)
        engine.step()
        engine.inject(Barrier(1))
        run_dry(engine)
        while_it_waits = (len(letters.written), dict(letters.checkpoints))
        engine.inboxes[0, 1].add_barrier(Barrier(1))
        run_dry(engine)
        assert reader.given == 4
        assert while_it_waits == (1, {})
        assert letters.checkpoints == {1: 1}
        assert len(letters.written) == 3

    def test_they_are_held_like_any_sinks_output(self) -> None:
        held: list[int] = []
        waiting: list[Callable[[Any], None]] = []

        class Late(Writer):
            def checkpoint(self, epoch: int, done: Callable[[Any], None]) -> None:
                waiting.append(done)

        engine = engine_of(
            p.application(p.source()),
            readers={"numbers": Reader([1])},
            held=held.append,
            dead_letters=Late(),
        )
        engine.inject(Barrier(1))
        run_dry(engine)
        before = list(held)
        waiting[0]({"length": 7})
        assert before == []
        assert held == [1]
        assert engine.marks == (None, {"length": 7})

    def test_after_a_recovery_they_belong_to_the_epoch_that_follows(self) -> None:
        letters = Writer()
        engine = engine_of(
            p.application(p.source().to(fragile)),
            readers={"numbers": Reader([13])},
            epoch=7,
            dead_letters=letters,
        )
        run_dry(engine)
        assert len(letters.written) == 1
        engine.inject(Barrier(8))
        run_dry(engine)
        assert letters.checkpoints == {8: 1}


def test_sources_wait_while_the_dead_letters_have_no_room() -> None:
    letters = Writer()
    letters.has_room = False
    reader = Reader(range(10 * BATCH))
    engine = engine_of(
        p.application(p.source().to(fragile)), readers={"numbers": reader}, dead_letters=letters
    )
    run_dry(engine)
    assert reader.reads == 0
    letters.has_room = True
    run_dry(engine)
    assert reader.ended
