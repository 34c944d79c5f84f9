"""A source that makes its own events: one partition, read by the one worker that owns it."""

import copy
import time
import traceback
from typing import Any, Generic, Protocol, TypeVar, overload

from wallaroo.api.connectors import WHOLE, Services, SourceConfig, SourceReader
from wallaroo.errors import (
    DataflowError,
    Failure,
    InputError,
    WallarooParameterError,
    message_of,
    shorten,
)

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
    state: `apply` may change it. It works on a copy, which is saved with every checkpoint, and goes
    on from there after a crash: every event is counted exactly once. So its attributes must be
    values that can be copied and stored. `GenSourceConfig(gen)`, without a name, is Wallaroo
    0.6.1's form.

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
        return [WHOLE]

    def open(self, partition: str, services: Services, position: Any = None) -> SourceReader:
        if position is None:
            # A rollback to the beginning needs it as the application made it.
            try:
                gen = copy.deepcopy(self.gen)
            except Exception as error:
                raise InputError(
                    f"source '{self.name}': its generator can't be copied "
                    f"({message_of(error)}). It is the source's state, saved with every "
                    "checkpoint: keep nothing in it that is not a value, such as an open file"
                ) from error
            return _Reader(self.name, gen)
        if not isinstance(position, dict) or "generator" not in position:
            raise InputError(
                f"source '{self.name}': the saved state is of another kind of source, and holds "
                "no generator to go on with"
            )
        return _Reader(self.name, position["generator"], position["started"], position["previous"])


class _Reader(SourceReader):
    def __init__(
        self, name: str, gen: Generator[Any], started: bool = False, previous: Any = None
    ) -> None:
        self._name = name
        self._gen = gen
        self._started = started
        self._previous = previous

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

    def position(self) -> Any:
        return {"generator": self._gen, "started": self._started, "previous": self._previous}
