"""A worker's directory has an identity, so that another one is never taken for it.

A checkpoint names the directories that hold it. One that is empty, or another worker's, or from
an earlier life of the application, can't stand in.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from wallaroo.disk import Disk, replace_durably
from wallaroo.errors import InputError

_FILE = "identity.json"
#: What may be in a folder before it has an identity.
_OTHERS = {"lock", f".{_FILE}.draft"}


@dataclass(frozen=True)
class Identity:
    """id: random, made with the directory. admitted: it has been a member's."""

    application: str
    worker: int
    id: str
    admitted: bool = False


def identify(
    disk: Disk, folder: Path, application: str, worker: int, new_id: str, *, strange: bool = False
) -> Identity:
    """The identity of a worker's folder; with `new_id` if it has none yet.

    strange: it may be another's: whoever goes by the id does not take it for this one's.
    Raises `InputError` if the folder is another's, and OSError.
    """
    disk.make_folder(folder)
    names = set(disk.names(folder))
    if _FILE not in names:
        if names - _OTHERS:
            raise InputError(
                f"{folder} is not empty, and does not say whose it is; put back its {_FILE}, or "
                "start anew with another --dir"
            )
        identity = Identity(application, worker, new_id)
        keep(disk, folder, identity)
        return identity
    try:
        identity = Identity(**json.loads(disk.read(folder / _FILE)))
    except (ValueError, TypeError) as error:
        raise InputError(
            f"{folder / _FILE} is damaged: {error}; put back an intact copy, or start anew with "
            "another --dir"
        ) from None
    if (identity.application, identity.worker) != (application, worker) and not strange:
        raise InputError(
            f"{folder} belongs to worker {identity.worker} of {identity.application!r}, not to "
            f"worker {worker} of {application!r}"
        )
    return identity


def keep(disk: Disk, folder: Path, identity: Identity) -> None:
    """Write a folder's identity. Raises OSError."""
    replace_durably(disk, folder / _FILE, json.dumps(asdict(identity)).encode())
