"""Manifests on worker 0's disk: one file each, made whole and never overwritten.

DIR/manifests/GGGGGGGG-EEEEEEEEEEEEEEEE.json, by generation and epoch; the highest rules. A file is
the manifest as JSON, behind a line with the xxh3_64 of that.
"""

import re
from pathlib import Path

from xxhash import xxh3_64_hexdigest

from wallaroo.disk import Disk, create_durably
from wallaroo.errors import InputError
from wallaroo.protocol.manifest import Manifest

#: How many of the last ones are kept, for a person to look at.
_KEPT = 5
_NAME = re.compile(r"(\d{8})-(\d{16})\.json")


class Manifests:
    """Those in `folder`."""

    def __init__(self, disk: Disk, folder: Path) -> None:
        self._disk = disk
        self.folder = folder

    def last(self) -> Manifest | None:
        """The one that rules; None if there is none.

        Raises `InputError` if it is damaged: an older one would be wrong without a word.
        """
        names = self._names()
        if not names:
            return None
        path = self.folder / names[-1]
        try:
            checksum, _, text = self._disk.read(path).decode().partition("\n")
            if xxh3_64_hexdigest(text.encode()) != checksum:
                raise ValueError("its checksum does not fit what it holds")
            manifest = Manifest.from_json(text)
            if name_of(manifest) != path.name:
                raise ValueError("it belongs to another epoch than its name says")
        except OSError as error:
            raise InputError(f"can't read the manifest {path}: {error.strerror}") from None
        except ValueError as error:  # no UTF-8 and no JSON are ValueErrors, too
            raise InputError(
                f"the manifest {path} is damaged: {error}; put back an intact copy, or start anew "
                "with another --dir"
            ) from None
        return manifest

    def add(self, manifest: Manifest) -> None:
        """Make a manifest durable: this is the commit. Raises OSError."""
        self._disk.make_folder(self.folder)
        text = manifest.to_json()
        data = f"{xxh3_64_hexdigest(text.encode())}\n{text}".encode()
        create_durably(self._disk, self.folder / name_of(manifest), data)
        for name in self._names()[:-_KEPT]:
            self._disk.remove(self.folder / name)

    def committed_at(self, epoch: int) -> float:
        """When an epoch was committed, in seconds since 1970, as far as files tell; 0 if not."""
        if not epoch:
            return 0.0
        # The first one of that epoch: later ones begin generations.
        found = [name for name in self._names() if name.endswith(f"-{epoch:016}.json")]
        return (self.folder / found[0]).stat().st_mtime if found else 0.0

    def _names(self) -> list[str]:
        return [name for name in self._disk.names(self.folder) if _NAME.fullmatch(name)]


def name_of(manifest: Manifest) -> str:
    """The name of a manifest's file."""
    return f"{manifest.generation:08}-{manifest.epoch:016}.json"
