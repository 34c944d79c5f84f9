"""The manifest: what is committed, whole and in one value.

An epoch is committed when its manifest is durable. The start of a generation is a manifest too,
so that no generation's number is used twice. Of all manifests the highest (generation, epoch) is
the truth.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from wallaroo.partitioning import Assignment, Piece, hash_key, partition_point

#: Of what is written here; another is refused.
FORMAT = 3

#: Events read, received, written and set aside.
Counts = tuple[int, int, int, int]


@dataclass(frozen=True, order=True)
class DeltaMark:
    """A delta file, as the manifest knows it. checksum: xxh3_64 of it; size: its bytes."""

    epoch: int
    generation: int
    checksum: int
    size: int

    @property
    def name(self) -> str:
        """Of the file."""
        return f"delta-{self.epoch:016d}-{self.generation:08d}"


@dataclass(frozen=True)
class Staging:
    """What a worker was given by a rescale and its base lacks yet.

    id: names the attempt, and the folder; ranges: of points, [start, end), that it gained.
    """

    id: str
    ranges: tuple[tuple[int, int], ...]

    def covers(self, point: int) -> bool:
        """Whether it is the truth about a point."""
        return any(start <= point < end for start, end in self.ranges)


@dataclass(frozen=True)
class Part:
    """One worker's part of a checkpoint.

    directory: the identity of the worker's directory.
    deltas: those that its base lacks, in order, up to the checkpoint's epoch.
    sinks: of each sink, what it is known by (`sink`), and its `mark`.
    ended: the (source, partition) pairs it owns that have come to their end.
    counts: of what it did since the application began, or since it last joined.
    joined: the epoch at whose end it became a member; it has no delta of an earlier one. Where that
        is yet to come, it has no state, whatever its directory holds.
    staging: what the last rescale gave it, as long as its base lacks that.
    """

    directory: str
    deltas: tuple[DeltaMark, ...] = ()
    sinks: tuple[dict[str, Any] | None, ...] = ()
    ended: frozenset[tuple[str, str]] = frozenset()
    counts: Counts = (0, 0, 0, 0)
    joined: int = 0
    staging: Staging | None = None


@dataclass(frozen=True)
class Manifest:
    """The committed cut at the end of `epoch`.

    places: the number of each place that has entries, for good.
    partitions: by source, the point of each partition, fixed when it was first seen.
    parts: by worker; empty at the very beginning.
    switched: the epoch at whose end the assignment came into force; 0 for the first one.
    leaving: by worker that has handed over all it owned, its part as of then: until it says that
        it has published its output.
    retired: by worker that has left, its sinks' marks: should it return, it writes on there.
    departed: the counts of all workers that have left, together.
    history: of the last rescales, the newest last, what they did and took.
    application_id: what tells the application from others of its name; empty on one machine, where
        the directory does.
    """

    application: str
    generation: int
    epoch: int
    assignment: Assignment
    places: Mapping[str, int]
    partitions: Mapping[str, Mapping[str, int]]
    parts: Mapping[int, Part] = field(default_factory=dict)
    switched: int = 0
    leaving: Mapping[int, Part] = field(default_factory=dict)
    retired: Mapping[int, tuple[dict[str, Any] | None, ...]] = field(default_factory=dict)
    departed: Counts = (0, 0, 0, 0)
    history: tuple[dict[str, Any], ...] = ()
    application_id: str = ""

    @property
    def members(self) -> tuple[int, ...]:
        """The workers that own something."""
        return self.assignment.workers

    @property
    def complete(self) -> bool:
        """Whether every partition of every source has ended; not if there is none."""
        parts = [*self.parts.values(), *self.leaving.values()]
        ended = {pair for part in parts for pair in part.ended}
        pairs = {(source, name) for source, names in self.partitions.items() for name in names}
        return bool(pairs) and pairs <= ended

    def for_program(
        self, places: Iterable[str], partitions: Mapping[str, Sequence[str]]
    ) -> "Manifest":
        """This manifest with what a program has that it does not know yet.

        places: that the program has. partitions: by source, the names that there are now.
        A partition keeps the point at which it was first seen; one added later to a source lies at
        the hash of its name. Raises ValueError, with words, if the program lacks a place.
        """
        places = list(places)
        gone = [name for name in self.places if name not in places]
        if gone:
            raise ValueError(
                f"the checkpoint holds {', '.join(gone)}, which the application no longer has"
            )
        numbers = dict(self.places)
        for name in places:
            numbers.setdefault(name, len(numbers))
        points = {source: dict(known) for source, known in self.partitions.items()}
        for source, names in partitions.items():
            if source not in points:
                count = len(names)
                points[source] = {n: partition_point(i, count) for i, n in enumerate(names)}
            for name in names:
                points[source].setdefault(name, hash_key(name))
        return replace(self, places=numbers, partitions=points)

    def to_json(self) -> str:
        """As text."""
        return json.dumps(
            {
                "format": FORMAT,
                "application": self.application,
                "generation": self.generation,
                "epoch": self.epoch,
                "assignment": {
                    "version": self.assignment.version,
                    "pieces": [[p.start, p.end, p.worker] for p in self.assignment.pieces],
                },
                "places": dict(self.places),
                "partitions": {source: dict(p) for source, p in self.partitions.items()},
                "parts": {str(worker): part_to_json(part) for worker, part in self.parts.items()},
                "switched": self.switched,
                "leaving": {str(w): part_to_json(part) for w, part in self.leaving.items()},
                "retired": {str(w): list(sinks) for w, sinks in self.retired.items()},
                "departed": list(self.departed),
                "history": list(self.history),
                **({"application_id": self.application_id} if self.application_id else {}),
            }
        )

    @classmethod
    def from_json(cls, text: str) -> "Manifest":
        """What `to_json` gave. Raises ValueError, with words, if it is anything else."""
        try:
            found = json.loads(text)
            if found["format"] != FORMAT:
                raise ValueError(
                    f"it has format {found['format']}; this version of Wallaroo reads {FORMAT}"
                )
            pieces = tuple(Piece(*piece) for piece in found["assignment"]["pieces"])
            return cls(
                found["application"],
                found["generation"],
                found["epoch"],
                Assignment(found["assignment"]["version"], pieces),
                found["places"],
                found["partitions"],
                {int(worker): part_from_json(part) for worker, part in found["parts"].items()},
                found["switched"],
                {int(worker): part_from_json(part) for worker, part in found["leaving"].items()},
                {int(worker): tuple(sinks) for worker, sinks in found["retired"].items()},
                _counts(found["departed"]),
                tuple(found["history"]),
                found.get("application_id", ""),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"it is not a manifest ({type(error).__name__}: {error})") from error


def _counts(found: Sequence[int]) -> Counts:
    read, received, written, dead = found
    return read, received, written, dead


def part_to_json(part: Part) -> dict[str, Any]:
    """A part as plain values."""
    return {
        "directory": part.directory,
        "deltas": [[d.epoch, d.generation, d.checksum, d.size] for d in part.deltas],
        "sinks": list(part.sinks),
        "ended": sorted(map(list, part.ended)),
        "counts": list(part.counts),
        "joined": part.joined,
        "staging": part.staging and [part.staging.id, list(map(list, part.staging.ranges))],
    }


def part_from_json(found: Mapping[str, Any]) -> Part:
    """What `part_to_json` gave. Raises KeyError or TypeError if it is anything else."""
    return Part(
        found["directory"],
        tuple(DeltaMark(*delta) for delta in found["deltas"]),
        tuple(found["sinks"]),
        frozenset((source, name) for source, name in found["ended"]),
        _counts(found["counts"]),
        found["joined"],
        staging_from(found["staging"]),
    )


def staging_from(found: Any) -> Staging | None:
    """What `part_to_json` made of a staging."""
    if found is None:
        return None
    name, ranges = found
    return Staging(name, tuple((start, end) for start, end in ranges))
