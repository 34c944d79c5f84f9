"""The application whose sink never gets rid of anything, for memory under back-pressure.

    stalled_app.py PORT

A generator makes events as fast as it is asked to, for ever, over few keys, so that state does not
grow. The sink's peer at PORT accepts and never reads: all there is to see is whether anything on
the way to it is unbounded.
"""

import events
import wallaroo

_KEYS = 10_000


class Numbers:
    """0, 1, 2, ..."""

    def initial_value(self) -> int:
        return 0

    def apply(self, previous: int) -> int:
        return previous + 1


@wallaroo.key_extractor
def key_of(number: int) -> str:
    """One of few keys."""
    return f"w{number % _KEYS}"


@wallaroo.state_computation("count", events.Total)
def count(number: int, total: events.Total) -> tuple[int, int]:
    """Count the key's events."""
    total.count += 1
    return (number, total.count)


@wallaroo.encoder
def encode(counted: tuple[int, int]) -> str:
    """A line."""
    return f"event {counted[0]} is number {counted[1]} of its key\n"


def application_setup(args: list[str]) -> wallaroo.Application:
    """Numbers, counted by key, to a peer that does not read."""
    pipeline = (
        wallaroo.source("numbers", wallaroo.GenSourceConfig("numbers", Numbers()))
        .key_by(key_of)
        .to(count)
        .to_sink(wallaroo.TCPSinkConfig("127.0.0.1", args[1], encode))
    )
    return wallaroo.build_application("stalled", pipeline)
