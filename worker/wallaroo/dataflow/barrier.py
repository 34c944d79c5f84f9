"""Barriers: what ends an epoch on every stream."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Barrier:
    """All before it belongs to `epoch` or an earlier one, all after it to a later one.

    final: nothing follows it until the application runs again.
    switch: behind it another assignment holds, and other members.
    """

    epoch: int
    final: bool = False
    switch: bool = False
