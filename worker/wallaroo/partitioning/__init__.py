"""Which worker owns which key: the hash interval, its assignment to workers, and the next. Pure."""

from wallaroo.partitioning.assignment import Assignment, Piece
from wallaroo.partitioning.hashing import (
    INTERVAL,
    hash_key,
    normalize_key,
    partition_point,
)
from wallaroo.partitioning.rewrite import Move, minimum, moved, moves, rewrite

__all__ = [
    "INTERVAL",
    "Assignment",
    "Move",
    "Piece",
    "hash_key",
    "minimum",
    "moved",
    "moves",
    "normalize_key",
    "partition_point",
    "rewrite",
]
