"""What Prometheus is told of a worker.

Nothing is counted one event at a time, nor here at all: the dataflow counts for itself. The thread
that runs it takes a `Sample` a few times a second; a scrape, which comes in a thread of its own,
shows the last one, and looks at what can be read from any thread: the clock, the disk, the
coordinator. So a scrape waits for no user function, and none of them for a scrape.

Counters begin with the process and only grow: what a recovery has done again is counted again.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram, start_http_server
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from wallaroo.dataflow.engine import Backlog, Counters
from wallaroo.errors import InputError
from wallaroo.protocol.rescale import Phase

#: Seconds over which the busy ratio is taken.
WINDOW = 10.0
#: Parts of a worker's folder that are state.
_STATE = ("base", "deltas", "staging")
_OUTCOMES = ("committed", "aborted")
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


@dataclass(frozen=True)
class Sample:
    """A worker a moment ago.

    progress: events since the process began. unread: bytes that clients have sent and that wait.
    lost: bytes of clients that were cut off.
    """

    progress: Counters = field(default_factory=Counters)
    backlog: Backlog = field(default_factory=Backlog)
    keys: int = 0
    connections: int = 0
    unread: int = 0
    lost: int = 0


@dataclass(frozen=True)
class Overview:
    """The application, as its coordinator knows it. committed_at: by the clock; 0 for never."""

    epoch: int
    generation: int
    members: int
    committed_at: float
    recoveries: int


@dataclass
class Busy:
    """How long a thread has been busy.

    It says `begin` and `end`; any thread may look. clock: seconds.
    """

    clock: Callable[[], float] = time.perf_counter
    _total: float = 0.0
    _since: float | None = None
    _shown: float = 0.0
    #: When it was looked, and how long it had been busy then.
    _marks: deque[tuple[float, float]] = field(default_factory=deque)

    def begin(self) -> None:
        """Work begins."""
        self._since = self.clock()

    def end(self) -> None:
        """Work has ended."""
        if self._since is not None:
            self._total += self.clock() - self._since
            self._since = None

    @property
    def seconds(self) -> float:
        """For how long, what goes on now included; never less than before."""
        total, since = self._total, self._since  # in this order: rather too little than twice
        now = total + (self.clock() - since if since is not None else 0.0)
        self._shown = max(self._shown, now)
        return self._shown

    def mark(self) -> None:
        """Remember how it is now; the ratio is taken from `WINDOW` seconds ago."""
        now = self.clock()
        self._marks.append((now, self.seconds))
        while now - self._marks[0][0] > WINDOW:
            self._marks.popleft()

    @property
    def ratio(self) -> float:
        """The share of the last `WINDOW` seconds, from 0 to 1."""
        marks = list(self._marks)
        if not marks:
            return 0.0
        at, busy = marks[0]
        past = self.clock() - at
        return min(1.0, (self.seconds - busy) / past) if past > 0 else 0.0


class Metrics(Collector):
    """All metrics of one worker, in `registry`.

    That is the process's own by default: what the application itself counts with prometheus_client
    is served together with them.

    info: what is always the same of it. folder: where its state is.
    """

    def __init__(
        self, info: dict[str, str], folder: Path, registry: CollectorRegistry = REGISTRY
    ) -> None:
        self.registry = registry
        self._sample = Sample()
        self.busy = Busy()
        self._info = info
        self._folder = folder
        self._look: Callable[[], Overview] | None = None
        registry.register(self)

    def take(self, sample: Sample) -> None:
        """The worker as it is now."""
        self._sample = sample
        self.busy.mark()

    def coordinate(self, look: Callable[[], Overview]) -> "Coordination":
        """This worker is also the coordinator. look: at the application, from any thread."""
        self._look = look
        return Coordination(self.registry)

    def collect(self) -> Iterator[Metric]:
        sample = self._sample
        yield InfoMetricFamily("wallaroo_worker", "The worker.", value=self._info)
        for name, help_, value in (
            ("events_read", "Events read from sources.", sample.progress.read),
            ("events_received", "Events that came from other workers.", sample.progress.received),
            ("events_written", "What encoders gave to sinks.", sample.progress.written),
            ("dead_letters", "Events for which a user's function raised.", sample.progress.dead),
            (
                "connection_lost_bytes",
                "Bytes that clients had sent unread when they were cut off.",
                sample.lost,
            ),
            ("busy_seconds", "Time in which the dataflow worked.", self.busy.seconds),
        ):
            yield CounterMetricFamily(f"wallaroo_{name}", help_, value)
        for name, help_, value in (
            ("busy_ratio", f"Share of the last {WINDOW:g} s that was busy.", self.busy.ratio),
            ("keys", "Keys that have a state, over all steps.", sample.keys),
            ("connections", "Clients that are connected to TCP sources.", sample.connections),
        ):
            yield GaugeMetricFamily(f"wallaroo_{name}", help_, value)
        yield _by(
            "backlog_events",
            "Events that wait here for a later stage, or for the state of a key that moves.",
            "queue",
            {"local": sample.backlog.local, "held": sample.backlog.held},
        )
        yield _by(
            "backlog_bytes",
            "Bytes that wait: come from workers, on their way to workers, unread of clients.",
            "queue",
            {
                "inbox": sample.backlog.inbox,
                "outbox": sample.backlog.outbox,
                "connections": sample.unread,
            },
        )
        yield _by("state_bytes", "State on disk.", "part", self._state())
        if self._look:
            yield from _overview(self._look())

    def _state(self) -> dict[str, int]:
        """Bytes of each part of the state."""
        found = dict.fromkeys(_STATE, 0)
        for folder in _entries(self._folder):
            part = folder.name.partition("-")[0]
            if part in found and folder.is_dir():
                for entry in _entries(folder.path):
                    try:
                        found[part] += entry.stat().st_size
                    except FileNotFoundError:
                        continue  # it was removed just now
        return found


class Coordination:
    """What the coordinator tells when it happens: an epoch is committed, a rescale has ended."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._epochs = Histogram(
            "wallaroo_epoch_seconds",
            "From the injection of an epoch's barrier to its commit.",
            registry=registry,
            buckets=_SECONDS,
        )
        self._rescales = Counter(
            "wallaroo_rescales",
            "Attempts to rescale that have ended.",
            ["outcome"],
            registry=registry,
        )
        self._phases = Histogram(
            "wallaroo_rescale_phase_seconds",
            "How long the phases of committed rescales took.",
            ["phase"],
            registry=registry,
            buckets=_SECONDS,
        )
        self._held = Histogram(
            "wallaroo_rescale_hold_back_seconds",
            "The longest that an event was held back in a committed rescale.",
            registry=registry,
            buckets=(0.001, 0.0025, *_SECONDS),
        )
        self._lost = Counter(
            "wallaroo_rescale_lost_bytes",
            "Bytes that clients of workers that left had sent unread when they were cut off.",
            registry=registry,
        )
        for outcome in _OUTCOMES:
            self._rescales.labels(outcome)
        for phase in Phase:
            self._phases.labels(phase.value)

    def committed(self, seconds: float) -> None:
        """An epoch is committed, so many seconds after its barrier was injected."""
        self._epochs.observe(seconds)

    def rescaled(self, record: dict[str, Any]) -> None:
        """An attempt has ended; its record."""
        self._rescales.labels(record["outcome"]).inc()
        self._lost.inc(record["lost"])
        if record["outcome"] != "committed":
            return
        self._held.observe(record["held"])
        for phase, seconds in record["seconds"].items():
            self._phases.labels(phase).observe(seconds)


def serve(registry: CollectorRegistry, port: int) -> Callable[[], None]:
    """Serve metrics on a port of this machine alone, in a thread; what comes back ends it.

    Raises `InputError`.
    """
    try:
        server, thread = start_http_server(port, "127.0.0.1", registry)
    except (OSError, OverflowError) as error:  # OverflowError: there is no such port
        why = error.strerror if isinstance(error, OSError) else "there is no such port"
        raise InputError(f"can't serve metrics on 127.0.0.1:{port}: {why}") from None

    def close() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return close


def _overview(found: Overview) -> Iterable[Metric]:
    age = time.time() - found.committed_at if found.committed_at else float("nan")
    for name, help_, value in (
        ("epoch", "The last committed epoch.", found.epoch),
        ("generation", "The number of the cluster's incarnation.", found.generation),
        ("members", "Workers that share the keys.", found.members),
        ("commit_age_seconds", "Time since the last commit.", age),
    ):
        yield GaugeMetricFamily(f"wallaroo_{name}", help_, value)
    yield CounterMetricFamily(
        "wallaroo_recoveries", "Generations begun for a fault.", found.recoveries
    )


def _by(name: str, help_: str, label: str, values: dict[str, int]) -> Metric:
    metric = GaugeMetricFamily(f"wallaroo_{name}", help_, labels=[label])
    for which, value in values.items():
        metric.add_metric([which], value)
    return metric


def _entries(folder: str | Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return list(found)
    except FileNotFoundError:
        return []
