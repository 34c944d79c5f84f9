"""The application that the checkpoint benchmark runs for latency: two entries touched per event.

    checkpoint_latency_app.py RATE KEYS SECONDS WORKERS RESULTS

Events are offered as by latency_app.py, and counted twice: by their key, and then, through a second
exchange, by another one that is made of it. KEYS keys come in an order that is shuffled, but each
once before any comes again. So as long as RATE is not above KEYS, no entry is touched twice in
a second, and 2 * RATE entries are touched in each.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt

import events
import latency_app
import wallaroo
from latency_app import Event, Latencies, key_of


class Paced(latency_app.Paced):
    """As latency_app.py's, with keys in turn."""

    def numbers(self, partition: int, count: int) -> npt.NDArray[np.int64]:
        mine = np.arange(partition, self.keys, len(self.names))
        np.random.default_rng(partition).shuffle(mine)
        return np.resize(mine, count)


@wallaroo.state_computation("count", events.Total)
def count(event: Event, total: events.Total) -> Event:
    """Count the key's events, and pass them on."""
    total.count += 1
    return event


@wallaroo.key_extractor
def other_key_of(event: Event) -> str:
    """The other key of an event; one for each key."""
    return f"other {event[0]}"


@wallaroo.state_computation("count again", events.Total)
def count_again(event: Event, total: events.Total) -> tuple[int, int]:
    """Count the other key's events; the output is what the latency is computed from."""
    total.count += 1
    return event[1:]


def application_setup(args: list[str]) -> wallaroo.Application:
    """Paced events, counted by two keys."""
    rate, keys, seconds, workers, results = args[1:]
    source = Paced(int(rate), int(keys), float(seconds), int(workers), Path(results))
    pipeline = (
        wallaroo.source("paced", source)
        .key_by(key_of)
        .to(count)
        .key_by(other_key_of)
        .to(count_again)
        .to_sink(Latencies(Path(results)))
    )
    return wallaroo.build_application("checkpoint latency", pipeline)
