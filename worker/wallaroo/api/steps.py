"""The steps of a pipeline: a user's functions, each with a name and a role.

A decorated function stays callable as the plain function that it is, so that it can be tested
without Wallaroo. Everything that can be checked is checked where the function is decorated.
"""

import functools
import inspect
import struct
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar, cast

from wallaroo.errors import WallarooParameterError

In = TypeVar("In", contravariant=True)
Out = TypeVar("Out", covariant=True)
State = TypeVar("State")
T = TypeVar("T")
U = TypeVar("U")

#: What a key extractor may return; an int stands for the one character of that code point.
Key = str | bytes | int


class Step:
    """A named function of the user's."""

    #: How messages call this kind of step.
    kind = "step"
    #: How many arguments its function takes.
    arity = 1

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self.check_name(name)
        self.name = name
        self.function = function
        if not callable(function):
            raise WallarooParameterError(f"{self.title}: {function!r} is not a function")
        self._check_arity()
        # Not its attributes: they would overwrite the step's own.
        functools.update_wrapper(cast("Callable[..., Any]", self), function, updated=())

    @classmethod
    def check_name(cls, name: object) -> None:
        """Raise `WallarooParameterError` if `name` is none, such as a function in its place."""
        if not isinstance(name, str) or not name:
            given = '; write its decorator with brackets: (name="...")' if callable(name) else ""
            raise WallarooParameterError(
                f"a {cls.kind} needs a name, a non-empty str, not {name!r}{given}"
            )

    @property
    def title(self) -> str:
        """The step as messages name it."""
        return f"{self.kind} '{self.name}'"

    def _check_arity(self) -> None:
        try:
            signature = inspect.signature(self.function)
        except (TypeError, ValueError):  # some built-in functions tell nothing
            return
        try:
            signature.bind(*[None] * self.arity)
        except TypeError:
            parameters = "parameter" if self.arity == 1 else "parameters"
            raise WallarooParameterError(
                f"{self.title}: the function must take {self.arity} {parameters}, "
                f"but is defined as {self.name_of_function}{signature}"
            ) from None

    @property
    def name_of_function(self) -> str:
        return getattr(self.function, "__name__", repr(self.function))

    def __repr__(self) -> str:
        return f"<{self.title}>"


class Computation(Step, Generic[In, Out]):
    """One value in, one value or None out."""

    kind = "computation"

    def __call__(self, data: In) -> Out | None:
        return self.function(data)  # type: ignore[no-any-return]


class ComputationMulti(Step, Generic[In, Out]):
    """One value in, any number of values out."""

    kind = "computation"

    def __call__(self, data: In) -> Iterable[Out] | None:
        return self.function(data)  # type: ignore[no-any-return]


class _Stateful(Step):
    kind = "state computation"
    arity = 2

    def __init__(self, name: str, function: Callable[..., Any], state: Callable[[], Any]) -> None:
        super().__init__(name, function)
        self.state = state
        if not callable(state):
            raise WallarooParameterError(
                f"{self.title}: state must be a class that can be called without arguments, "
                f"not {state!r}"
            )
        try:
            signature = inspect.signature(state)
        except (TypeError, ValueError):  # some built-in classes tell nothing
            return
        try:
            signature.bind()
        except TypeError as error:
            raise WallarooParameterError(
                f"{self.title}: its state {getattr(state, '__name__', state)!s} is made without "
                f"arguments at a key's first event, but {error}; give them defaults"
            ) from None


class StateComputation(_Stateful, Generic[In, State, Out]):
    """One value and its key's state in, one value or None out."""

    def __call__(self, data: In, state: State) -> Out | None:
        return self.function(data, state)  # type: ignore[no-any-return]


class StateComputationMulti(_Stateful, Generic[In, State, Out]):
    """One value and its key's state in, any number of values out."""

    def __call__(self, data: In, state: State) -> Iterable[Out] | None:
        return self.function(data, state)  # type: ignore[no-any-return]


class KeyExtractor(Step, Generic[In]):
    """The key of a value."""

    kind = "key extractor"

    def __call__(self, data: In) -> Key:
        return self.function(data)  # type: ignore[no-any-return]


class Decoder(Step, Generic[Out]):
    """A frame's payload in, a value or None out, and how frames are cut from a stream."""

    kind = "decoder"

    def __init__(self, function: Callable[..., Any], header_length: int, length_fmt: str) -> None:
        super().__init__(getattr(function, "__name__", repr(function)), function)
        try:
            self.header = struct.Struct(length_fmt)
        except (struct.error, TypeError) as error:
            raise WallarooParameterError(
                f"{self.title}: length_fmt {length_fmt!r} is no struct format: {error}"
            ) from None
        if self.header.size != header_length:
            raise WallarooParameterError(
                f"{self.title}: length_fmt {length_fmt!r} takes {self.header.size} bytes, "
                f"but header_length is {header_length!r}"
            )
        value = self.header.unpack(bytes(header_length))
        if len(value) != 1 or not isinstance(value[0], int):
            raise WallarooParameterError(
                f"{self.title}: length_fmt {length_fmt!r} must give one integer, the length"
            )
        self.header_length = header_length
        self.length_fmt = length_fmt

    def __call__(self, payload: bytes) -> Out | None:
        return self.function(payload)  # type: ignore[no-any-return]


class Encoder(Step, Generic[In]):
    """A value in, what a sink writes out."""

    kind = "encoder"

    def __call__(self, data: In) -> bytes | str | None:
        return self.function(data)  # type: ignore[no-any-return]


def computation(name: str) -> Callable[[Callable[[T], U | None]], Computation[T, U]]:
    """Make a function of one value a step; returning None filters the value out.

    >>> import wallaroo
    >>> @wallaroo.computation(name="halve even numbers")
    ... def halve(number: int) -> int | None:
    ...     return number // 2 if number % 2 == 0 else None
    >>> halve(10)
    5

    Raises `WallarooParameterError` if the function does not take one parameter.
    """
    Computation.check_name(name)
    return lambda function: Computation(name, function)


def computation_multi(
    name: str,
) -> Callable[[Callable[[T], Iterable[U] | None]], ComputationMulti[T, U]]:
    """Make a function of one value a step; each element that it returns goes on by itself.

    >>> import wallaroo
    >>> @wallaroo.computation_multi(name="split")
    ... def split(line: str) -> list[str]:
    ...     return line.split()
    >>> split("in the beginning")
    ['in', 'the', 'beginning']

    Returning None or an empty list filters the value out.
    Raises `WallarooParameterError` if the function does not take one parameter.
    """
    ComputationMulti.check_name(name)
    return lambda function: ComputationMulti(name, function)


def state_computation(
    name: str, state: Callable[[], State]
) -> Callable[[Callable[[T, State], U | None]], StateComputation[T, State, U]]:
    """Make a function of one value and its key's state a step.

    The state is an object of the class `state`, called without arguments when the first value
    of a key arrives; the function changes it in place. Returning None sends nothing on.

    >>> import wallaroo
    >>> class Total:
    ...     count = 0
    >>> @wallaroo.state_computation(name="count", state=Total)
    ... def count(word: str, total: Total) -> tuple[str, int]:
    ...     total.count += 1
    ...     return (word, total.count)
    >>> total = Total()
    >>> count("the", total), count("the", total)
    (('the', 1), ('the', 2))

    Raises `WallarooParameterError` if the function does not take two parameters or `state`
    needs arguments.
    """
    StateComputation.check_name(name)
    return lambda function: StateComputation(name, function, state)


def state_computation_multi(
    name: str, state: Callable[[], State]
) -> Callable[[Callable[[T, State], Iterable[U] | None]], StateComputationMulti[T, State, U]]:
    """As `state_computation`; each element that the function returns goes on by itself.

    >>> import wallaroo
    >>> class Seen:
    ...     def __init__(self) -> None:
    ...         self.values: list[int] = []
    >>> @wallaroo.state_computation_multi(name="pairs", state=Seen)
    ... def pairs(value: int, seen: Seen) -> list[tuple[int, int]]:
    ...     found = [(earlier, value) for earlier in seen.values]
    ...     seen.values.append(value)
    ...     return found
    >>> seen = Seen()
    >>> pairs(1, seen), pairs(2, seen)
    ([], [(1, 2)])
    """
    StateComputationMulti.check_name(name)
    return lambda function: StateComputationMulti(name, function, state)


def key_extractor(function: Callable[[T], Key]) -> KeyExtractor[T]:
    """Make a function that gives a value's key; a str or bytes, or an int, taken as chr(int).

    It must be pure: the same value has the same key wherever and whenever it is asked for.

    >>> import wallaroo
    >>> @wallaroo.key_extractor
    ... def first_letter(word: str) -> str:
    ...     return word[:1]
    >>> first_letter("beginning")
    'b'

    Raises `WallarooParameterError` if the function does not take one parameter.
    """
    return KeyExtractor(getattr(function, "__name__", repr(function)), function)


def decoder(
    header_length: int, length_fmt: str
) -> Callable[[Callable[[bytes], T | None]], Decoder[T]]:
    """Make a function that turns a frame's payload into a value; None drops the frame.

    A frame is a header of `header_length` bytes, which `length_fmt` (as of `struct`) turns into
    the length of the payload in bytes, and the payload.

    >>> import wallaroo
    >>> @wallaroo.decoder(header_length=4, length_fmt=">I")
    ... def decode_line(payload: bytes) -> str:
    ...     return payload.decode("utf-8")
    >>> decode_line(b"in the beginning")
    'in the beginning'

    Raises `WallarooParameterError` if the header does not fit `length_fmt`.
    """
    return lambda function: Decoder(function, header_length, length_fmt)


def encoder(function: Callable[[T], bytes | str | None]) -> Encoder[T]:
    r"""Make a function that gives the bytes a sink writes; a str is UTF-8, None sends nothing.

    >>> import wallaroo
    >>> @wallaroo.encoder
    ... def encode_count(count: tuple[str, int]) -> bytes:
    ...     return f"{count[0]} => {count[1]}\n".encode()
    >>> encode_count(("the", 2))
    b'the => 2\n'

    Raises `WallarooParameterError` if the function does not take one parameter.
    """
    return Encoder(getattr(function, "__name__", repr(function)), function)
