"""Which worker owns which key: the hash interval and its assignment to workers. Pure."""

from wallaroo.partitioning.assignment import Assignment, Piece
from wallaroo.partitioning.hashing import (
    INTERVAL,
    hash_key,
    normalize_key,
    partition_point,
)

__all__ = ["INTERVAL", "Assignment", "Piece", "hash_key", "normalize_key", "partition_point"]
