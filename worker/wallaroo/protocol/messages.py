"""What the coordinator and the workers say to one another."""

from collections.abc import Mapping
from dataclasses import dataclass, field

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
    """All that this worker did in an epoch is durable, and the epoch before is published."""

    generation: int
    epoch: int
    part: Part


@dataclass(frozen=True)
class Published:
    """The worker's sinks have published a committed epoch."""

    generation: int
    epoch: int


@dataclass(frozen=True)
class Broken:
    """A stream to or from another worker broke."""

    generation: int
    peer: int


@dataclass(frozen=True)
class Failed:
    """The worker can't go on, and its successor could not either: the application stops."""

    failure: Failure


FromWorker = Register | Ready | Drained | Prepared | Published | Broken | Failed

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

    addresses: of all members. part: what the manifest says of this worker; None at the beginning.
    """

    generation: int
    epoch: int
    assignment: Assignment
    addresses: Mapping[int, str]
    places: Mapping[str, int]
    partitions: Mapping[str, Mapping[str, int]]
    part: Part | None = field(default=None)


@dataclass(frozen=True)
class Resume:
    """All members are ready: process."""

    generation: int


@dataclass(frozen=True)
class Inject:
    """Put a barrier behind what the sources have given. final: nothing follows it."""

    generation: int
    epoch: int
    final: bool = False


@dataclass(frozen=True)
class Commit:
    """An epoch is committed."""

    generation: int
    epoch: int


@dataclass(frozen=True)
class Finish:
    """The application has ended, or failed: end."""


ToWorker = Refuse | Halt | Recover | Resume | Inject | Commit | Finish
