"""What a source or a sink is made of: a config that the user writes, and what it opens.

A config is a value, the same on every worker. On the worker that has to read or write it opens a
reader or a writer, which the dataflow calls and which never blocks: it says that it has nothing,
or no room, and wakes the dataflow when that changes.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from wallaroo.api.steps import Decoder, Encoder
from wallaroo.disk import Disk
from wallaroo.errors import Failure

In = TypeVar("In", contravariant=True)
Out = TypeVar("Out", covariant=True)
T = TypeVar("T")


#: The partition of a source that has but one: whatever else users rename, its position is found.
WHOLE = "all"


class Services(Protocol):
    """What a worker does for its connectors."""

    @property
    def worker(self) -> int:
        """This worker's ordinal."""

    @property
    def workers(self) -> int:
        """How many workers there are."""

    @property
    def disk(self) -> Disk:
        """Where files are: connectors that write go through it."""

    @property
    def folder(self) -> Path:
        """A folder of this connector's own, for what must outlive a crash."""

    def wake(self) -> None:
        """Run the dataflow: something can be read, or written, that could not before."""

    def submit(
        self, work: Callable[[], T], done: Callable[[T], None], failed: Callable[[Exception], None]
    ) -> None:
        """Do blocking `work` off the dataflow's thread, then call `done` or `failed` on it."""

    def spawn(self, task: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine on the dataflow's loop until the connector's life ends."""

    def fail(self, failure: Failure) -> None:
        """Stop the application."""

    def waiting(self, what: str, why: str) -> None:
        """Tell the user what `what` waits for; an empty `why` when it no longer waits."""


class SourceReader(ABC):
    """One open partition of a source."""

    #: There is nothing more to read. It has come to its own end, unless it was stopped.
    ended = False
    #: Turns what it gives into events; None if it gives events.
    decoder: Decoder[Any] | None = None
    #: It was told to stop before it had come to its own end: there may be more for the next run.
    stopped = False
    #: It can't be read again: it goes on over a recovery, from where it is.
    lasting = False
    #: It comes to its end by itself before long, and others of its source on this worker may wait
    #: for that. The others are read in turns.
    finite = False
    #: It is closed, and has not yet let go of what its successor needs; it wakes the dataflow then.
    closing = False
    #: Bytes that were sent to it and will never be read: their connections were cut.
    lost = 0

    @property
    def connections(self) -> int:
        """Clients that are connected now."""
        return 0

    @property
    def unread(self) -> int:
        """Bytes that have come for it and wait to be read, as far as it knows."""
        return 0

    @abstractmethod
    def read(self, limit: int) -> list[Any]:
        """The next events, at most `limit`; an empty list if there are none now.

        Raises `DataflowError` if they can't be read.
        """

    def stop(self) -> None:
        """Come to an end soon: a final barrier is due. What can be read again is left."""
        self.ended = True

    def let_go(self, grace: float, patience: float, done: Callable[[], None]) -> None:
        """This worker is about to leave: let new clients in for `grace` seconds, then no more.

        Those that are still connected `patience` seconds later are cut off. Then call `done`, once
        all has been read that is going to be.
        """
        done()

    def take_back(self) -> None:  # noqa: B027  only who has clients has let go of any
        """This worker stays after all. Raises `InputError` if clients can't be let in again."""

    def position(self) -> Any:
        """Where to go on: right behind what `read` has given; None if it can't be read again.

        A value that `open` understands. It is asked for between two calls of `read`, also after
        `stop`, and encoded at once: it may refer to what changes when the reader goes on.
        """
        return None

    def close(self) -> None:
        """Let go of everything at once: what was read since the last checkpoint is read again."""
        self.ended = True


class SourceConfig(ABC, Generic[Out]):
    """Where a source's events come from."""

    #: Its clients come to it: it has one partition, which does not move, on worker 0, or on each
    #: worker one of its own. Nothing of it is kept in a checkpoint.
    listens = False

    @abstractmethod
    def partitions(self) -> list[str]:
        """The names of what can be read independently, in order; the same on every worker.

        Raises `InputError` if that can't be told.
        """

    @abstractmethod
    def open(self, partition: str, services: Services, position: Any = None) -> SourceReader:
        """Read a partition from `position` on; from its beginning if that is None.

        Raises `InputError` if it can't be read.
        """


class SinkWriter(ABC):
    """A sink, open on one worker."""

    #: False while it holds as much as it may.
    has_room = True

    @abstractmethod
    def write(self, batch: list[Any]) -> None:
        """Take what the encoder gave, bytes and str, in order; the list stays the caller's."""

    @abstractmethod
    def checkpoint(self, epoch: int, done: Callable[[Any], None]) -> None:
        """All that was written so far belongs to `epoch` or an earlier one.

        Call `done` with a mark (None, or a dict of str, int, bool and None) once that is safe:
        durable as *pending*, for a sink that publishes at the commit; at its receiver, for one that
        sends at once.
        """

    @abstractmethod
    def commit(self, epoch: int, done: Callable[[], None]) -> None:
        """`epoch` is committed: publish it, and call `done` when that is durable.

        It may be called again for an epoch that has been published.
        """

    def close(self) -> None:  # noqa: B027  most writers hold nothing
        """Let go of everything at once; what is not committed is dropped."""


class SinkConfig(ABC, Generic[In]):
    """Where a sink's output goes."""

    #: Turns an event into bytes or str for the writer; None if the writer takes events.
    encoder: Encoder[In] | None = None

    @property
    def identity(self) -> str:
        """What a checkpoint knows it by: the mark of one sink is never taken for another's."""
        return type(self).__name__

    @abstractmethod
    def open(self, services: Services, mark: dict[str, Any] | None = None) -> SinkWriter:
        """Write on this worker, behind `mark`; from nothing if that is None.

        mark: what `checkpoint` gave for the committed epoch from which the application goes on.
        What that epoch left pending is published first, if it was not.
        Raises `InputError` if it can't be written.
        """
