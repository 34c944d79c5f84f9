"""A source that makes its own events: one partition, read by the one worker that owns it."""

import time
import traceback
from typing import Any, Generic, Protocol, TypeVar, overload

from wallaroo.api.connectors import Services, SourceConfig, SourceReader
from wallaroo.errors import DataflowError, Failure, WallarooParameterError, message_of, shorten

T = TypeVar("T")

#: Seconds after which what there is goes on, about.
_SLICE = 0.002
Value = TypeVar("Value", covariant=True)


class Generator(Protocol[Value]):
    """What `GenSourceConfig` takes: a first event, and each next one from the one before."""

    def initial_value(self) -> Value: ...

    def apply(self, previous: Any, /) -> Value | None: ...


class GenSourceConfig(SourceConfig[T], Generic[T]):
    """Events from `gen`: `initial_value()`, then `apply(previous)` for ever, or until None.

    >>> import wallaroo
    >>> class CountDown:
    ...     def initial_value(self) -> int:
    ...         return 3
    ...     def apply(self, previous: int) -> int | None:
    ...         return previous - 1 if previous > 1 else None
    >>> numbers = wallaroo.source("numbers", wallaroo.GenSourceConfig("numbers", CountDown()))

    It runs once per application, whatever the number of workers. The instance is the source's
    state: `apply` may change it. `GenSourceConfig(gen)`, without a name, is Wallaroo 0.6.1's form.

    Raises `WallarooParameterError` if `gen` lacks one of the two methods.
    """

    @overload
    def __init__(self, name: str, gen: Generator[T], /) -> None: ...

    @overload
    def __init__(self, gen: Generator[T], /) -> None: ...

    @overload
    def __init__(self, name: str = "generator", *, gen_instance: Generator[T]) -> None: ...

    def __init__(
        self, name: Any = "generator", gen: Any = None, *, gen_instance: Any = None
    ) -> None:
        gen = gen_instance if gen is None else gen
        self.name: str = name if gen is not None else "generator"
        self.gen: Generator[T] = gen if gen is not None else name
        for method in ("initial_value", "apply"):
            if not callable(getattr(self.gen, method, None)):
                raise WallarooParameterError(
                    f"GenSourceConfig: {shorten(self.gen)} has no method {method}()"
                )

    def partitions(self) -> list[str]:
        return [self.name]

    def open(self, partition: str, services: Services) -> SourceReader:
        return _Reader(self.name, self.gen)


class _Reader(SourceReader):
    def __init__(self, name: str, gen: Generator[Any]) -> None:
        self._name = name
        self._gen = gen
        self._started = False
        self._previous: Any = None

    def read(self, limit: int) -> list[Any]:
        events: list[Any] = []
        if self.ended:  # stopped
            return events
        value = self._previous
        apply = self._gen.apply
        try:
            if not self._started:
                self._started = True
                value = self._gen.initial_value()
                if value is not None:
                    events.append(value)
                    limit -= 1
            until = time.monotonic() + _SLICE
            while value is not None and limit:
                value = apply(value)
                if value is not None:
                    events.append(value)
                    limit -= 1
                if not limit % 16 and time.monotonic() > until:
                    break
        except Exception as error:
            frames = error.__traceback__
            if frames and frames.tb_next:
                frames = frames.tb_next  # the user's own
            raise DataflowError(
                Failure(
                    f"the generator of source '{self._name}' raised {message_of(error)}, "
                    f"after {shorten(value)}",
                    step=f"source '{self._name}'",
                    event=shorten(value),
                    traceback="".join(traceback.format_exception(type(error), error, frames)),
                )
            ) from error
        self._previous = value
        self.ended = value is None
        return events
