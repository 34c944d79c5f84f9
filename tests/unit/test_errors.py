"""Values are shown in messages as Python shows them, and never make them fail."""

import pytest

from wallaroo.errors import DataflowError, Failure, shorten


class Loud:
    def __repr__(self) -> str:
        raise RuntimeError("not shown")


class Endless:
    def __repr__(self) -> str:
        return repr(self)


def test_a_value_is_shown_as_python_shows_it() -> None:
    assert shorten({"a": [1, None]}) == "{'a': [1, None]}"


@pytest.mark.parametrize("length", [398, 399, 10_000])
def test_a_long_value_is_cut_and_says_how_long_it_is(length: int) -> None:
    shown = shorten("x" * length)
    whole = repr("x" * length)
    if len(whole) <= 400:
        assert shown == whole
    else:
        assert shown == f"{whole[:400]}… ({len(whole)} characters)"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (Loud(), "<Loud, whose repr() raised RuntimeError>"),
        (Endless(), "<Endless, whose repr() raised RecursionError>"),
    ],
    ids=["raises", "endless"],
)
def test_a_value_that_can_not_be_shown_is_named_by_its_class(value: object, shown: str) -> None:
    assert shorten(value) == shown


def test_an_error_of_the_dataflow_says_what_its_failure_says() -> None:
    failure = Failure("it broke", step="step 'x'")
    error = DataflowError(failure)
    assert str(error) == "it broke"
    assert error.failure is failure
