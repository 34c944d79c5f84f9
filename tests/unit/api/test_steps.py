"""Decorated functions stay callable; what is wrong with one is said where it is decorated."""

import functools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import wallaroo
from wallaroo import WallarooParameterError

Decorate = Callable[[Any], Any]


class Total:
    count = 0


class NeedsName:
    def __init__(self, name: str) -> None:
        self.name = name


def one(data: Any) -> Any:
    return data


def two(data: Any, state: Any) -> Any:
    return data


DECORATORS: dict[str, tuple[Decorate, int]] = {
    "computation": (wallaroo.computation("a step"), 1),
    "computation_multi": (wallaroo.computation_multi("a step"), 1),
    "state_computation": (wallaroo.state_computation("a step", Total), 2),
    "state_computation_multi": (wallaroo.state_computation_multi("a step", Total), 2),
    "key_extractor": (wallaroo.key_extractor, 1),
    "decoder": (wallaroo.decoder(header_length=4, length_fmt=">I"), 1),
    "encoder": (wallaroo.encoder, 1),
}
EACH = pytest.mark.parametrize("decorator", DECORATORS)


class TestADecoratedFunction:
    def test_is_called_as_the_function_it_is(self) -> None:
        @wallaroo.computation(name="double")
        def double(number: int) -> int:
            return 2 * number

        assert double(4) == 8

    def test_of_several_results_is_called_as_the_function_it_is(self) -> None:
        @wallaroo.computation_multi(name="split")
        def split(line: str) -> Iterator[str]:
            yield from line.split()

        assert list(split("a b") or []) == ["a", "b"]

    def test_with_a_state_is_called_with_it(self) -> None:
        @wallaroo.state_computation(name="count", state=Total)
        def count(word: str, total: Total) -> tuple[str, int]:
            total.count += 1
            return (word, total.count)

        total = Total()
        assert [count("a", total), count("a", total)] == [("a", 1), ("a", 2)]

    def test_with_a_state_and_several_results_is_called_with_it(self) -> None:
        @wallaroo.state_computation_multi(name="pairs", state=Total)
        def pairs(word: str, total: Total) -> list[str]:
            total.count += 1
            return [word] * total.count

        assert pairs("a", Total()) == ["a"]

    def test_that_extracts_keys_decodes_or_encodes_is_called_as_it_is(self) -> None:
        @wallaroo.key_extractor
        def first(word: str) -> str:
            return word[0]

        @wallaroo.decoder(header_length=4, length_fmt=">I")
        def decode(payload: bytes) -> str:
            return payload.decode()

        @wallaroo.encoder
        def encode(word: str) -> bytes:
            return word.encode()

        assert (first("abc"), decode(b"abc"), encode("abc")) == ("a", "abc", b"abc")

    def test_keeps_its_exceptions(self) -> None:
        @wallaroo.computation(name="fail")
        def fail(number: int) -> int:
            raise KeyError(number)

        with pytest.raises(KeyError):
            fail(1)

    @EACH
    def test_keeps_its_name_and_documentation(self, decorator: str) -> None:
        decorate, _ = DECORATORS[decorator]

        def documented(*args: Any) -> None:
            """What it does."""

        step = decorate(documented)
        assert (step.__name__, step.__doc__) == ("documented", "What it does.")
        assert step.__wrapped__ is documented

    @EACH
    def test_may_have_more_parameters_if_they_have_defaults(self, decorator: str) -> None:
        decorate, _ = DECORATORS[decorator]

        def generous(data: Any, state: Any = None, *, option: int = 0, **more: Any) -> None:
            pass

        decorate(generous)

    def test_may_be_any_callable(self) -> None:
        step = wallaroo.computation(name="upper")(str.upper)
        assert step("a") == "A"
        assert wallaroo.computation(name="three")(functools.partial(max, 3))(1) == 3
        assert wallaroo.computation(name="to int")(int)("5") == 5

    def test_shows_itself_by_kind_and_name(self) -> None:
        assert repr(wallaroo.computation("double")(one)) == "<computation 'double'>"
        assert repr(wallaroo.key_extractor(one)) == "<key extractor 'one'>"
        assert repr(wallaroo.state_computation("sum", Total)(two)) == "<state computation 'sum'>"

    def test_keeps_its_step_name_whatever_attributes_the_function_has(self) -> None:
        def marked(data: Any) -> Any:
            return data

        vars(marked).update(name="other", function=None, kind="other")
        step = wallaroo.computation(name="mine")(marked)
        assert (step.name, step.kind) == ("mine", "computation")
        assert step(1) == 1

    def test_decorated_twice_has_the_outer_name(self) -> None:
        inner = wallaroo.computation(name="inner")(one)
        outer = wallaroo.computation(name="outer")(inner)
        assert outer.name == "outer"
        assert outer(1) == 1


class TestArity:
    @EACH
    @pytest.mark.parametrize("count", [0, 1, 2, 3])
    def test_a_function_of_the_wrong_number_of_parameters_is_refused_by_name(
        self, decorator: str, count: int
    ) -> None:
        decorate, arity = DECORATORS[decorator]
        functions: list[Any] = [
            lambda: None,
            lambda data: None,
            lambda data, state: None,
            lambda data, state, more: None,
        ]
        if count == arity:
            decorate(functions[count])
            return
        plural = "parameter" if arity == 1 else "parameters"
        with pytest.raises(WallarooParameterError, match=f"must take {arity} {plural}") as caught:
            decorate(functions[count])
        named = "a step" if decorator.endswith(("computation", "multi")) else "<lambda>"
        assert f"'{named}'" in str(caught.value)

    def test_the_message_shows_the_function_as_it_is_defined(self) -> None:
        def add(left: int, right: int) -> int:
            return left + right

        with pytest.raises(WallarooParameterError, match=r"add\(left: int, right: int\) -> int"):
            wallaroo.computation(name="sum")(add)  # type: ignore[arg-type]

    def test_a_keyword_that_must_be_given_is_refused(self) -> None:
        def strict(data: Any, *, option: int) -> Any:
            return data

        with pytest.raises(WallarooParameterError, match="computation 'strict'"):
            wallaroo.computation(name="strict")(strict)  # type: ignore[arg-type]

    @EACH
    def test_what_is_no_function_is_refused(self, decorator: str) -> None:
        decorate, _ = DECORATORS[decorator]
        with pytest.raises(WallarooParameterError, match="3 is not a function"):
            decorate(3)


NAMED: dict[str, Callable[[Any], Any]] = {
    "computation": wallaroo.computation,
    "computation_multi": wallaroo.computation_multi,
    "state_computation": lambda name: wallaroo.state_computation(name, Total),
    "state_computation_multi": lambda name: wallaroo.state_computation_multi(name, Total),
}


@pytest.mark.parametrize("decorator", NAMED)
class TestAName:
    @pytest.mark.parametrize("name", ["", None, 3, b"name"], ids=repr)
    def test_that_is_none_is_refused(self, decorator: str, name: Any) -> None:
        function = two if "state" in decorator else one
        with pytest.raises(WallarooParameterError, match="needs a name, a non-empty str"):
            NAMED[decorator](name)(function)

    def test_left_out_by_decorating_without_brackets_is_refused_at_once(
        self, decorator: str
    ) -> None:
        """Else the function would be silently lost: its name would stand for a decorator."""
        function = two if "state" in decorator else one
        with pytest.raises(WallarooParameterError, match="write its decorator with brackets"):
            NAMED[decorator](function)

    def test_may_be_any_words(self, decorator: str) -> None:
        function = two if "state" in decorator else one
        assert NAMED[decorator]("étape n° 1 / ✓")(function).name == "étape n° 1 / ✓"


class TestAStateClass:
    @pytest.mark.parametrize(
        "decorate",
        [wallaroo.state_computation, wallaroo.state_computation_multi],
        ids=["one", "multi"],
    )
    def test_that_needs_arguments_is_refused_with_the_step(self, decorate: Any) -> None:
        with pytest.raises(WallarooParameterError) as caught:
            decorate(name="rename", state=NeedsName)(two)
        message = str(caught.value)
        assert message.startswith("state computation 'rename': its state NeedsName is made without")
        assert "missing a required argument: 'name'" in message
        assert "give them defaults" in message

    @pytest.mark.parametrize("state", [None, 3, "Total", Total()], ids=["None", "3", "str", "obj"])
    def test_that_is_none_is_refused(self, state: Any) -> None:
        with pytest.raises(WallarooParameterError, match="state computation 'sum': state must be"):
            wallaroo.state_computation(name="sum", state=state)(two)

    @pytest.mark.parametrize(
        "state",
        [dict, list, set, int, Counter, bytearray, lambda: defaultdict(int), Total],
        ids=lambda state: str(state.__name__),
    )
    def test_may_be_anything_called_without_arguments(self, state: Any) -> None:
        step = wallaroo.state_computation(name="sum", state=state)(two)
        assert type(step.state()) is type(state())


class TestADecoder:
    @pytest.mark.parametrize(
        ("length", "fmt", "message"),
        [
            (4, ">Z", "'>Z' is no struct format"),
            (4, "4", "'4' is no struct format"),
            (4, 4, "4 is no struct format"),
            (4, None, "None is no struct format"),
            (2, ">I", "'>I' takes 4 bytes, but header_length is 2"),
            (8, ">I", "'>I' takes 4 bytes, but header_length is 8"),
            ("4", ">I", "takes 4 bytes, but header_length is '4'"),
            (None, ">I", "takes 4 bytes, but header_length is None"),
            (0, "", "must give one integer, the length"),
            (4, ">HH", "must give one integer, the length"),
            (4, ">f", "must give one integer, the length"),
            (4, "4s", "must give one integer, the length"),
            (4, "4x", "must give one integer, the length"),
            (1, "c", "must give one integer, the length"),
        ],
    )
    def test_whose_header_does_not_fit_is_refused_by_name(
        self, length: Any, fmt: Any, message: str
    ) -> None:
        with pytest.raises(WallarooParameterError) as caught:
            wallaroo.decoder(header_length=length, length_fmt=fmt)(one)
        assert str(caught.value).startswith("decoder 'one': ")
        assert message in str(caught.value)

    @pytest.mark.parametrize(
        ("length", "fmt", "header"),
        [
            (4, ">I", b"\0\0\0\5"),
            (4, "<i", b"\5\0\0\0"),
            (2, "!H", b"\0\5"),
            (1, "B", b"\5"),
            (8, ">Q", b"\0" * 7 + b"\5"),
            (8, ">4xI", b"\0" * 7 + b"\5"),
        ],
    )
    def test_reads_the_length_as_its_format_says(
        self, length: int, fmt: str, header: bytes
    ) -> None:
        decoder = wallaroo.decoder(header_length=length, length_fmt=fmt)(one)
        assert decoder.header.unpack(header) == (5,)
        assert (decoder.header_length, decoder.length_fmt) == (length, fmt)
