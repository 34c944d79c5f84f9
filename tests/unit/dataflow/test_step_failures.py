"""What a user reads when a step goes wrong: which step, which key, which event, which line."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.unit.dataflow import pipelines as p
from tests.unit.dataflow.cluster import Cluster
from tests.unit.dataflow.pipelines import Events

import wallaroo
from wallaroo import testing
from wallaroo.errors import DataflowError, Failure

WORKERS = pytest.mark.parametrize("workers", [1, 3])


class Broken(Exception):
    pass


def check(event: int) -> None:
    if event == 13:
        raise Broken("unlucky")  # the user's line


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
    yield event
    check(event)


@wallaroo.state_computation(name="fragile state", state=p.Tally)
def fragile_state(event: int, state: p.Tally) -> int:
    check(event)
    return event


@wallaroo.state_computation_multi(name="fragile state multi", state=p.Tally)
def fragile_state_multi(event: int, state: p.Tally) -> list[int]:
    check(event)
    return [event]


class NeverMade:
    def __init__(self) -> None:
        raise Broken("unlucky")  # the user's line


@wallaroo.state_computation(name="stateless", state=NeverMade)
def never_called(event: int, state: NeverMade) -> int:
    return event


@wallaroo.key_extractor
def fragile_key(event: int) -> str:
    check(event)
    return "key"


@wallaroo.key_extractor
def itself(event: int) -> int:
    return event


@wallaroo.encoder
def fragile_encoder(event: int) -> str:
    check(event)
    return str(event)


class FragileSink(p.Kept):
    encoder = fragile_encoder


def failure_of(pipeline: Events, workers: int, numbers: list[int] | None = None) -> Failure:
    return failure_of_application(p.application(pipeline), workers, numbers)


def failure_of_application(
    application: wallaroo.Application, workers: int, numbers: list[int] | None = None
) -> Failure:
    numbers = [1, 2, 13, 4] if numbers is None else numbers
    with pytest.raises(testing.ApplicationFailed) as caught:
        testing.run(application, {"numbers": numbers}, workers=workers)
    return caught.value.failure


def assert_only_the_users_lines(traceback: str) -> None:
    assert "# the user's line" in traceback
    assert "Broken: unlucky" in traceback
    files = set(re.findall(r'File "([^"]+)"', traceback))
    assert files == {__file__}, "frames of our own"


STEPS: list[tuple[str, str, Callable[[Events], Events]]] = [
    ("computation 'fragile'", "", lambda numbers: numbers.to(fragile)),
    ("computation 'fragile multi'", "", lambda numbers: numbers.to(fragile_multi)),
    ("computation 'fragile generator'", "", lambda numbers: numbers.to(fragile_generator)),
    ("state computation 'fragile state'", "''", lambda numbers: numbers.to(fragile_state)),
    (
        "state computation 'fragile state'",
        "'rest 2'",
        lambda numbers: numbers.key_by(p.by_rest).to(fragile_state),
    ),
    (
        "state computation 'fragile state'",
        r"b'\x00'",
        lambda numbers: numbers.key_by(p.by_byte).to(fragile_state),
    ),
    (
        "state computation 'fragile state'",
        "'\\r'",  # the character that the int 13 stands for
        lambda numbers: numbers.key_by(itself).to(fragile_state),
    ),
    (
        "state computation 'fragile state multi'",
        "'rest 2'",
        lambda numbers: numbers.key_by(p.by_rest).to(fragile_state_multi),
    ),
    ("key extractor 'fragile_key'", "", lambda numbers: numbers.key_by(fragile_key)),
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
class TestAStepThatRaises:
    def test_is_named_with_what_it_raised(
        self, step: str, key: str, way: Callable[[Events], Events], workers: int
    ) -> None:
        failure = failure_of(way(p.source()), workers)
        assert failure.step == step
        assert failure.message == f"{step} raised Broken: unlucky"

    def test_is_shown_with_its_event_and_key(
        self, step: str, key: str, way: Callable[[Events], Events], workers: int
    ) -> None:
        failure = failure_of(way(p.source()), workers)
        assert (failure.event, failure.key) == ("13", key)

    def test_is_shown_with_the_users_lines_and_not_with_ours(
        self, step: str, key: str, way: Callable[[Events], Events], workers: int
    ) -> None:
        assert_only_the_users_lines(failure_of(way(p.source()), workers).traceback)


@WORKERS
def test_an_encoder_that_raises_is_named_with_its_event(workers: int) -> None:
    pipeline = p.source().key_by(p.by_rest).to_sink(FragileSink())
    failure = failure_of_application(wallaroo.build_application("test", pipeline), workers)
    assert failure.step == "encoder 'fragile_encoder'"
    assert failure.event == "13"
    assert "raised Broken: unlucky" in failure.message


@WORKERS
def test_a_state_class_that_raises_is_shown_with_its_step_and_key(workers: int) -> None:
    failure = failure_of(p.source().key_by(p.by_rest).to(never_called), workers, [5])
    assert failure.step == "state computation 'stateless'"
    assert (failure.event, failure.key) == ("5", "'rest 5'")
    assert "raise Broken" in failure.traceback


@WORKERS
def test_a_step_that_exits_is_a_failure_like_any_other(workers: int) -> None:
    @wallaroo.computation(name="exit")
    def leave(event: int) -> int:
        raise SystemExit(3)

    failure = failure_of(p.source().to(leave), workers)
    assert failure.step == "computation 'exit'"
    assert "SystemExit" in failure.message


def test_an_error_whose_message_is_empty_is_still_named() -> None:
    @wallaroo.computation(name="silent")
    def silent(event: int) -> int:
        raise KeyError

    assert "KeyError" in failure_of(p.source().to(silent), 1).message


@WORKERS
@pytest.mark.parametrize(
    ("key", "why"),
    [
        (1.5, "a float is neither str, bytes nor int"),
        (None, "a NoneType is neither str, bytes nor int"),
        (["a"], "a list is neither str, bytes nor int"),
        (("a", 1), "a tuple is neither str, bytes nor int"),
        (bytearray(b"a"), "a bytearray is neither str, bytes nor int"),
        (-1, "the int -1 stands for no character"),
        (0x110000, "the int 1114112 stands for no character"),
        ("\ud800", "it has no UTF-8 (surrogates not allowed)"),
        (0xD800, "it has no UTF-8 (surrogates not allowed)"),
    ],
    ids=lambda value: ascii(value) if not isinstance(value, str) or len(value) == 1 else "",
)
@pytest.mark.parametrize("first", ["a", b"a"], ids=["after a str", "after bytes"])
def test_a_key_that_can_be_none_is_shown_with_its_extractor_and_event(
    key: Any, why: str, workers: int, first: str | bytes
) -> None:
    @wallaroo.key_extractor
    def by_odd(event: int) -> Any:
        return key if event == 13 else first

    numbers = [1] * 100 + [13]
    failure = failure_of(p.source().key_by(by_odd).to(p.tally), workers, numbers)
    assert f"returned {key!r} for event 13: {why}" in failure.message
    assert failure.step == "key extractor 'by_odd'"
    assert (failure.event, failure.key) == ("13", repr(key))


@WORKERS
def test_a_bad_key_before_a_step_without_state_is_refused_too(workers: int) -> None:
    @wallaroo.key_extractor
    def by_float(event: int) -> Any:
        return 1.5

    failure = failure_of(p.source().key_by(by_float).to(p.add_one), workers)
    assert failure.step == "key extractor 'by_float'"


@WORKERS
def test_a_bad_key_is_refused_before_a_filter_can_hide_it(workers: int) -> None:
    @wallaroo.key_extractor
    def by_float(event: int) -> Any:
        return 1.5

    pipeline = p.source().key_by(by_float).to(p.drop_fives).to(p.tally)
    assert "by_float" in failure_of(pipeline, workers, [5]).message


@pytest.mark.parametrize("seed", range(5))
def test_an_extractor_that_gives_another_key_when_asked_again_is_found_by_the_receiver(
    seed: int,
) -> None:
    """Ruling 10 of docs/protocol.md: a first touch checks that its point is owned here."""
    asked: list[int] = []

    @wallaroo.key_extractor
    def impure(event: int) -> str:
        asked.append(event)
        return f"key {len(asked)}"

    application = p.application(p.source().key_by(impure).to(p.tally))
    with pytest.raises(testing.ApplicationFailed) as caught:
        testing.run(application, {"numbers": list(range(50))}, workers=3, seed=seed)
    assert "must give the same key for the same event" in str(caught.value)
    assert caught.value.failure.key.startswith("'key ")
    assert caught.value.failure.step == "key extractor 'impure'"


@WORKERS
@pytest.mark.parametrize("given", [3, 2.5, ["a"], bytearray(b"a")], ids=repr)
def test_an_encoder_that_returns_neither_bytes_nor_str_is_named(given: Any, workers: int) -> None:
    @wallaroo.encoder
    def odd(event: int) -> Any:
        return given

    class Sink(p.Kept):
        encoder = odd

    pipeline = p.source().key_by(p.by_rest).to_sink(Sink())
    failure = failure_of_application(wallaroo.build_application("test", pipeline), workers)
    assert failure.step == "encoder 'odd'"
    assert failure.message == (
        f"encoder 'odd' returned {given!r}: an encoder returns bytes, str or None"
    )


@WORKERS
@pytest.mark.parametrize("multi", ["computation", "state computation"])
def test_a_multi_step_that_returns_no_iterable_is_named(multi: str, workers: int) -> None:
    @wallaroo.computation_multi(name="odd")
    def odd(event: int) -> Any:
        return 3

    @wallaroo.state_computation_multi(name="odd", state=p.Tally)
    def odd_state(event: int, state: p.Tally) -> Any:
        return 3

    pipeline = p.source().to(odd if multi == "computation" else odd_state)
    failure = failure_of(pipeline, workers)
    assert failure.step == f"{multi} 'odd'"
    assert "'int' object is not iterable" in failure.message
    assert failure.event == "1"


class Shy:
    """Raises when it is shown."""

    def __repr__(self) -> str:
        raise Broken("not shown")


@WORKERS
def test_an_event_whose_repr_raises_is_shown_by_its_class(workers: int) -> None:
    @wallaroo.computation(name="make shy")
    def make_shy(event: int) -> Any:
        return Shy()

    @wallaroo.computation(name="fail")
    def fail(event: Any) -> int:
        raise Broken("unlucky")

    failure = failure_of(p.source().to(make_shy).to(fail), workers)
    assert failure.step == "computation 'fail'"
    assert failure.event == "<Shy, whose repr() raised Broken>"


def test_a_long_event_is_shortened() -> None:
    @wallaroo.computation(name="long")
    def long(event: int) -> Any:
        return "x" * 10_000

    failure = failure_of(p.source().to(long).to(fragile_of_str), 1)
    assert len(failure.event) < 500
    assert failure.event.endswith("… (10002 characters)")


@wallaroo.computation(name="same")
def same(event: Any) -> Any:
    return event


@wallaroo.computation(name="fragile of str")
def fragile_of_str(event: Any) -> int:
    raise Broken("unlucky")


class TestAnEventThatCannotBeSent:
    """It is told at the latest when it goes to another worker, with the step that made it."""

    @staticmethod
    def failure(make: Callable[[], Any], numbers: int = 40) -> Failure:
        @wallaroo.computation(name="make")
        def wrap(event: int) -> Any:
            return (event, make())

        @wallaroo.key_extractor
        def by_first(event: Any) -> str:
            return str(event[0])

        pipeline = p.source().to(wrap).key_by(by_first).to(same)
        return failure_of(pipeline, 3, list(range(numbers)))

    def test_is_shown_with_its_step_and_class(self) -> None:
        class Local:
            pass

        failure = self.failure(Local)
        assert failure.step == "computation 'make'"
        assert "computation 'make' made an event that can't be sent to worker" in failure.message
        assert "Local may not be sent or stored: it is defined inside a function" in failure.message

    def test_is_shown_itself(self) -> None:
        class Local:
            def __repr__(self) -> str:
                return "<the local>"

        assert "<the local>" in self.failure(Local).event

    def test_is_told_when_many_were_made_too(self) -> None:
        assert self.failure(lambda: print, numbers=5000).step == "computation 'make'"

    def test_names_the_source_where_no_step_made_it(self) -> None:
        @wallaroo.key_extractor
        def by_first(event: Any) -> str:
            return str(event[0])

        class Local:
            pass

        pipeline = p.source("things").key_by(by_first).to(same)
        with pytest.raises(testing.ApplicationFailed) as caught:
            testing.run(
                p.application(pipeline), {"things": [(n, Local()) for n in range(40)]}, workers=3
            )
        assert caught.value.failure.step == "source 'things'"

    def test_names_all_that_may_have_made_it_where_many_come_together(self) -> None:
        def make(event: int) -> Any:
            return (event, print)

        made = [wallaroo.computation(name=f"make {number}")(make) for number in range(5)]

        @wallaroo.key_extractor
        def by_first(event: Any) -> str:
            return str(event[0])

        numbers = p.source()
        whole: Any = numbers.to(made[0])
        for each in made[1:]:
            whole = whole.merge(numbers.to(each))
        failure = failure_of(whole.key_by(by_first).to(same), 3, list(range(40)))
        assert failure.step == " or ".join(f"computation 'make {number}'" for number in range(5))


class TestAGenerator:
    class Fragile:
        def initial_value(self) -> int:
            return 11

        def apply(self, previous: int) -> int:
            check(previous + 1)
            return previous + 1

    def failure(self, workers: int) -> Failure:
        config = wallaroo.GenSourceConfig("numbers", self.Fragile())
        application = p.application(wallaroo.source("numbers", config))
        with pytest.raises(testing.ApplicationFailed) as caught:
            testing.run(application, workers=workers)
        return caught.value.failure

    @WORKERS
    def test_that_raises_is_named_with_the_value_before(self, workers: int) -> None:
        failure = self.failure(workers)
        assert failure.step == "source 'numbers'"
        assert failure.event == "12"
        assert failure.message == (
            "the generator of source 'numbers' raised Broken: unlucky, after 12"
        )

    @WORKERS
    def test_that_raises_is_shown_with_the_users_lines_and_not_with_ours(
        self, workers: int
    ) -> None:
        assert_only_the_users_lines(self.failure(workers).traceback)


def test_a_decoder_that_raises_is_named_with_its_frame() -> None:
    @wallaroo.decoder(header_length=4, length_fmt=">I")
    def strict(payload: bytes) -> int:
        check(int(payload))
        return int(payload)

    application = p.application(p.source())
    cluster = Cluster(application, {"numbers": {0: [b"1", b"13"]}}, 1, 0)
    cluster.readers["numbers"][0].decoder = strict
    with pytest.raises(DataflowError) as caught:
        cluster.run()
    assert caught.value.failure.step == "decoder 'strict'"
    assert caught.value.failure.event == "b'13'"
    assert_only_the_users_lines(caught.value.failure.traceback)


def test_a_step_is_told_from_another_when_the_same_stage_was_generated_twice() -> None:
    """While a barrier is on its way a stage runs other code than before and after."""
    pipeline = p.source().to(p.add_one).key_by(p.by_rest).to(p.tally).to(p.drop_fives)
    application = p.application(pipeline.key_by(p.by_byte).to(fragile_state))
    for seed in range(20):
        cluster = Cluster(application, {"numbers": {0: [*range(30), 500, 12]}}, 2, seed)
        with pytest.raises(DataflowError) as caught:
            cluster.run(barriers=2)
        assert caught.value.failure.step == "state computation 'fragile state'"
        assert caught.value.failure.event == "13"


def test_the_message_of_a_failed_run_ends_with_the_users_traceback() -> None:
    with pytest.raises(testing.ApplicationFailed, match="raised Broken: unlucky\n") as caught:
        testing.run(p.application(p.source().to(fragile)), {"numbers": [13]})
    assert "# the user's line" in str(caught.value)
