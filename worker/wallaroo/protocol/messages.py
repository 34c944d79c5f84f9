"""What the coordinator and the workers say to one another."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from wallaroo.errors import Failure
from wallaroo.partitioning import Assignment
from wallaroo.protocol.manifest import Part

# From a worker


@dataclass(frozen=True)
class Register:
    """A worker is there, and processes nothing until it is told to recover.

    address: where its exchanges listen. fingerprint: of its program.
    directory: the identity of its directory.
    admitted: whether that has been a member's before, so that it may hold state.
    """

    address: str
    fingerprint: str
    directory: str
    admitted: bool


@dataclass(frozen=True)
class Ready:
    """The worker holds exactly the committed epoch, and its streams to all others are open."""

    generation: int


@dataclass(frozen=True)
class Drained:
    """All that this worker reads has come to its end."""

    generation: int


@dataclass(frozen=True)
class Prepared:
    """All that this worker did in an epoch is durable, and the epoch before is published.

    held: the longest time, in seconds, that events of a moved key were held back for it.
    """

    generation: int
    epoch: int
    part: Part
    held: float = 0.0


@dataclass(frozen=True)
class Published:
    """The worker's sinks have published a committed epoch."""

    generation: int
    epoch: int


@dataclass(frozen=True)
class Broken:
    """A stream to or from another worker broke. attempt: that it was opened for; 0 for none."""

    generation: int
    peer: int
    attempt: int = 0


@dataclass(frozen=True)
class Enlisted:
    """The worker is ready for an attempt to rescale: its streams to all that take part are open.

    listens: it is to leave, and has connections of clients that must be served to their end.
    """

    generation: int
    attempt: int
    listens: bool = False


@dataclass(frozen=True)
class ConnectionsClosed:
    """A leaver serves no client any more, and has read all that it is going to read of them.

    lost: bytes that those it has cut off had sent and it has not read.
    """

    generation: int
    attempt: int
    lost: int


@dataclass(frozen=True)
class Staged:
    """How far a receiver has got: it has all that its donors had committed up to `epoch`.

    epoch: -1 before the first. entries, size: taken in so far, size in bytes.
    """

    generation: int
    attempt: int
    epoch: int
    entries: int
    size: int


@dataclass(frozen=True)
class Failed:
    """The worker can't go on, and its successor could not either: the application stops."""

    failure: Failure


@dataclass(frozen=True)
class Checkpoint:
    """The worker is about to end: what it has done is to be in a checkpoint first."""


FromWorker = (
    Register
    | Ready
    | Drained
    | Prepared
    | Published
    | Broken
    | Enlisted
    | ConnectionsClosed
    | Staged
    | Failed
    | Checkpoint
)

# To a worker


@dataclass(frozen=True)
class Refuse:
    """The worker can't take part."""

    message: str


@dataclass(frozen=True)
class Halt:
    """A fault has been seen: stop processing until told to recover."""


@dataclass(frozen=True)
class Recover:
    """Go back to a committed epoch, as a member of a new generation.

    A worker that owns nothing of the assignment is leaving: it publishes what its part says, and
    says so.

    addresses: of all members. part: what the manifest says of this worker; None at the beginning.
    switched: the epoch at whose end the assignment came into force.
    """

    generation: int
    epoch: int
    assignment: Assignment
    addresses: Mapping[int, str]
    places: Mapping[str, int]
    partitions: Mapping[str, Mapping[str, int]]
    part: Part | None = field(default=None)
    switched: int = 0


@dataclass(frozen=True)
class Resume:
    """All members are ready: process."""

    generation: int


@dataclass(frozen=True)
class Enlist:
    """Get ready for an attempt to rescale: open streams to all that take part.

    epoch: the last committed one. old: the assignment in force; new: the one to switch to.
    addresses: of the members of both. sinks: where a joiner's sinks write on.
    """

    generation: int
    attempt: int
    epoch: int
    old: Assignment
    new: Assignment
    addresses: Mapping[int, str]
    places: Mapping[str, int]
    partitions: Mapping[str, Mapping[str, int]]
    sinks: tuple[dict[str, Any] | None, ...] = ()


@dataclass(frozen=True)
class Copy:
    """All are ready: send what moves to its receivers."""

    generation: int
    attempt: int


@dataclass(frozen=True)
class Drain:
    """Let go of the clients that are connected here: this worker is about to leave.

    grace: seconds for which new ones are still let in, since they may not know yet.
    patience: seconds after that in which they may close their connections before they are cut.
    """

    generation: int
    attempt: int
    grace: float
    patience: float


@dataclass(frozen=True)
class Abort:
    """The attempt is given up: forget it. The assignment in force stays."""

    generation: int
    attempt: int


@dataclass(frozen=True)
class Inject:
    """Put a barrier behind what the sources have given.

    final: nothing follows it. switch: behind it the new assignment of that attempt holds; 0: none.
    """

    generation: int
    epoch: int
    final: bool = False
    switch: int = 0


@dataclass(frozen=True)
class Commit:
    """An epoch is committed."""

    generation: int
    epoch: int


@dataclass(frozen=True)
class Finish:
    """The application has ended, or failed: end.

    released: it goes on, but the worker owns nothing of it any more, and holds nothing.
    """

    released: bool = False


@dataclass(frozen=True)
class Checkpointed:
    """What the worker had done when it asked is in a checkpoint, or will be done again."""


ToWorker = (
    Refuse
    | Halt
    | Recover
    | Resume
    | Enlist
    | Copy
    | Drain
    | Abort
    | Inject
    | Commit
    | Finish
    | Checkpointed
)
