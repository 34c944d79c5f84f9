"""What may be done about an application: plain values, which `act` carries out.

Each says on what it was decided: on a version of an object, an object's UID, or a version of the
assignment. So one that was decided on what is no longer so does nothing.
"""

from dataclasses import dataclass, field

from wallaroo.partitioning import Assignment
from wallaroo_operator.app import Json


@dataclass(frozen=True)
class Apply:
    """Make an object like this; `resource_version` is that it was decided on, empty for none."""

    manifest: Json = field(hash=False)
    resource_version: str = ""


@dataclass(frozen=True)
class Delete:
    """Delete this very object."""

    api: str
    kind: str
    name: str
    uid: str
    resource_version: str = ""


@dataclass(frozen=True)
class Begin:
    """Tell the coordinator to start from nothing, or without what is lost."""

    workers: int
    accept_loss: bool = False
    epoch: int = 0


@dataclass(frozen=True)
class Rescale:
    """Hand a rewritten assignment over; that in force itself calls a rescale off."""

    base: int
    assignment: Assignment


@dataclass(frozen=True)
class Stop:
    """Ask for a last checkpoint, after which nothing is processed."""


Action = Apply | Delete | Begin | Rescale | Stop
