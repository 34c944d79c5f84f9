"""What a source or a sink is made of: a config that the user writes, and what it opens.

A config is a value, the same on every worker. On the worker that has to read or write it opens a
reader or a writer, which the dataflow calls and which never blocks: it says that it has nothing,
or no room, and wakes the dataflow when that changes.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from typing import Any, Generic, Protocol, TypeVar

from wallaroo.api.steps import Decoder, Encoder
from wallaroo.errors import Failure

In = TypeVar("In", contravariant=True)
Out = TypeVar("Out", covariant=True)
T = TypeVar("T")


class Services(Protocol):
    """What a worker does for its connectors."""

    @property
    def worker(self) -> int:
        """This worker's ordinal."""

    @property
    def workers(self) -> int:
        """How many workers there are."""

    def wake(self) -> None:
        """Run the dataflow: something can be read, or written, that could not before."""

    def submit(
        self, work: Callable[[], T], done: Callable[[T], None], failed: Callable[[Exception], None]
    ) -> None:
        """Do blocking `work` off the dataflow's thread, then call `done` or `failed` on it."""

    def spawn(self, task: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine on the dataflow's loop until the worker ends; it must not raise."""

    def fail(self, failure: Failure) -> None:
        """Stop the application."""

    def waiting(self, what: str, why: str) -> None:
        """Tell the user what `what` waits for; an empty `why` when it no longer waits."""


class SourceReader(ABC):
    """One open partition of a source."""

    #: There is nothing more to read, ever.
    ended = False
    #: Turns what it gives into events; None if it gives events.
    decoder: Decoder[Any] | None = None

    @abstractmethod
    def read(self, limit: int) -> list[Any]:
        """The next events, at most `limit`; an empty list if there are none now.

        Raises `DataflowError` if they can't be read.
        """

    def stop(self) -> None:
        """Come to an end soon: a final barrier is due. What can be read again is left."""
        self.ended = True


class SourceConfig(ABC, Generic[Out]):
    """Where a source's events come from."""

    #: Its clients come to it: it has no partitions to spread, and one worker listens.
    listens = False

    @abstractmethod
    def partitions(self) -> list[str]:
        """The names of what can be read independently, in order; the same on every worker.

        Raises `InputError` if that can't be told.
        """

    @abstractmethod
    def open(self, partition: str, services: Services) -> SourceReader:
        """Begin to read a partition. Raises `InputError` if it can't be."""


class SinkWriter(ABC):
    """A sink, open on one worker."""

    #: False while it holds as much as it may.
    has_room = True

    @abstractmethod
    def write(self, batch: list[Any]) -> None:
        """Take what the encoder gave, bytes and str, in order; the list stays the caller's."""

    @abstractmethod
    def finish(self, finished: Callable[[], None]) -> None:
        """Call `finished` once all that was written is where it should be, and close."""

    def abort(self) -> None:  # noqa: B027  most writers hold nothing
        """Close at once."""


class SinkConfig(ABC, Generic[In]):
    """Where a sink's output goes."""

    #: Turns an event into bytes or str for the writer; None if the writer takes events.
    encoder: Encoder[In] | None = None

    @abstractmethod
    def open(self, services: Services) -> SinkWriter:
        """Begin to write on this worker. Raises `InputError` if that can't be."""
