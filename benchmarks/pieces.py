"""What one worker of two does in its own process, timed piece by piece on the real code.

    pieces.py KIND COUNT WORKER

Prints nanoseconds as JSON. First the whole: the real engine as worker WORKER of two, which reads
its half of COUNT words, encodes what belongs to the other and decodes what the other sends; only
gRPC and the event loop are missing. Then the pieces, each the difference between two loops of
which one does one thing more. Those loops take turns over chunks of the words, so that a slow
moment of the machine falls on all of them; every loop gets words and state of its own, for a word
that has been looked up once remembers its hash, and what lies in the processor's caches is half
the cost of a look-up. Garbage is collected in the whole, as in a worker, and not in the pieces.
"""

import gc
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

import events
import throughput_app
import wallaroo
from wallaroo.api.connectors import Services, SinkConfig, SinkWriter, SourceConfig, SourceReader
from wallaroo.dataflow.engine import BATCH, SLICE, Engine
from wallaroo.dataflow.graph import build_graph
from wallaroo.partitioning import Assignment, hash_key
from wallaroo.state.allowlist import AllowList
from wallaroo.state.codec import BLOCK, Codec
from wallaroo.state.live import Live
from wallaroo.state.memory import memory_store

#: Words that each loop takes before it is the next one's turn.
_CHUNK = 50_000

Ids = npt.NDArray[np.int64]


class _Reader(SourceReader):
    """Gives the words that it was given."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.at = 0

    def read(self, limit: int) -> list[Any]:
        batch = self.words[self.at : self.at + limit]
        self.at += len(batch)
        return batch


class _Source(SourceConfig[str]):
    def partitions(self) -> list[str]:
        return ["words"]

    def open(self, partition: str, services: Services, position: Any = None) -> SourceReader:
        return _Reader()


class _Sink(SinkConfig[Any]):
    def open(self, services: Services, mark: dict[str, Any] | None = None) -> SinkWriter:
        return _Dropped()


class _Dropped(SinkWriter):
    def write(self, batch: list[Any]) -> None:
        pass

    def checkpoint(self, epoch: int, done: Callable[[Any], None]) -> None:
        done(None)

    def commit(self, epoch: int, done: Callable[[], None]) -> None:
        done()


def _engine(worker: int, workers: int, codec: Codec) -> tuple[Engine, _Reader]:
    pipeline = (
        wallaroo.source("words", _Source())
        .key_by(throughput_app.key_of)
        .to(throughput_app.count_word)
        .to_sink(_Sink())
    )
    graph = build_graph(wallaroo.build_application("pieces", pipeline))
    engine = Engine(
        graph,
        worker,
        Assignment.first(workers),
        codec,
        memory_store(codec),
        {name: number for number, name in enumerate(graph.places)},
        {"words": {"words": 0}},
        [_Dropped()],
        wake=lambda _: None,
        passed=lambda _: None,
        held=lambda _: None,
        clock=time.perf_counter,
    )
    reader = _Reader()
    engine.read_from("words", "words", reader)
    return engine, reader


def _live(codec: Codec) -> Live:
    return memory_store(codec).place(0, "count", events.Total).live


def _owned(numbers: Ids, worker: int) -> npt.NDArray[np.bool_]:
    """Which of these words belong to `worker` of two."""
    distinct, where = np.unique(numbers, return_inverse=True)
    owner = Assignment.first(2).owner
    mine = [owner(hash_key(word)) == worker for word in events.named(distinct)]
    return np.array(mine)[where]


def _blocks(words: list[str], codec: Codec) -> list[bytes]:
    starts = range(0, len(words), BLOCK)
    return [codec.encode_block(words[start : start + BLOCK]) for start in starts]


def whole(worker: int, read: list[str], blocks: list[bytes], codec: Codec) -> tuple[float, float]:
    """Seconds for reading `read` and receiving `blocks`; how much of them is garbage collection."""
    engine, reader = _engine(worker, 2, codec)
    (inbox,) = [inbox for inbox in engine.inboxes.values() if not inbox.local]
    (outbox,) = engine.outboxes.values()
    waiting = list(reversed(blocks))
    collecting = 0.0
    began_collecting = 0.0

    def collect(phase: str, _: dict[str, int]) -> None:
        nonlocal collecting, began_collecting
        if phase == "start":
            began_collecting = time.process_time()
        else:
            collecting += time.process_time() - began_collecting

    gc.collect()
    gc.freeze()
    gc.callbacks.append(collect)
    clock = time.perf_counter
    began = time.process_time()
    reader.words = read
    # As the worker does it: slices of dataflow, and between them what the streams do.
    busy = True
    while busy or waiting:
        until = clock() + SLICE / 2
        while (busy := engine.step()) and clock() < until:
            pass
        while outbox.take():
            pass
        while waiting and inbox.has_room:
            inbox.add([waiting.pop()])
    took = time.process_time() - began
    gc.callbacks.remove(collect)
    gc.unfreeze()
    return took, collecting


def _loop(words: list[str]) -> None:
    for start in range(0, len(words), BATCH):
        for _ in words[start : start + BATCH]:
            pass


def _key(words: list[str], key_of: Callable[[str], str] = events.key_of) -> None:
    for start in range(0, len(words), BATCH):
        for word in words[start : start + BATCH]:
            key_of(word)


def _look_up(live: Live) -> Callable[[list[str]], None]:
    def run(words: list[str], key_of: Callable[[str], str] = events.key_of) -> None:
        states = live
        for start in range(0, len(words), BATCH):
            for word in words[start : start + BATCH]:
                key = key_of(word)
                states[key]

    return run


def _state(live: Live) -> Callable[[list[str]], None]:
    def run(words: list[str], key_of: Callable[[str], str] = events.key_of) -> None:
        states = live
        count_word = events.count_word
        for start in range(0, len(words), BATCH):
            for word in words[start : start + BATCH]:
                key = key_of(word)
                count_word(word, states[key])

    return run


def _append(live: Live) -> Callable[[list[str]], None]:
    def run(words: list[str], key_of: Callable[[str], str] = events.key_of) -> None:
        states = live
        count_word = events.count_word
        out: list[Any] = []
        add = out.append
        for start in range(0, len(words), BATCH):
            for word in words[start : start + BATCH]:
                key = key_of(word)
                add(count_word(word, states[key]))
            out.clear()

    return run


def _fed(engine: Engine, reader: _Reader) -> Callable[[list[str]], None]:
    def run(words: list[str]) -> None:
        reader.words, reader.at = words, 0
        while engine.step():
            pass

    return run


def pieces(worker: int, numbers: Ids, codec: Codec) -> dict[str, float]:
    """Nanoseconds a call of each piece, for words that all belong to `worker` of two."""
    blocks: list[bytes] = []

    def encode(words: list[str]) -> None:
        blocks[:] = _blocks(words, codec)

    def decode(_: list[str]) -> None:
        for block in blocks:
            codec.decode_block(block)

    # Each does what the one before does, and one thing more; but for the last two.
    loops: dict[str, Callable[[list[str]], None]] = {
        "loop": _loop,
        "key": _key,
        "look-up": _look_up(_live(codec)),
        "state": _state(_live(codec)),
        "append": _append(_live(codec)),
        "alone": _fed(*_engine(0, 1, codec)),
        "routed": _fed(*_engine(worker, 2, codec)),
        "encode": encode,
        "decode": decode,
    }
    seconds = dict.fromkeys(loops, 0.0)
    gc.collect()
    gc.disable()
    for start in range(0, len(numbers), _CHUNK):
        for name, loop in loops.items():
            words = events.named(numbers[start : start + _CHUNK])
            began = time.process_time()
            loop(words)
            seconds[name] += time.process_time() - began
    gc.enable()
    ns = {name: took / len(numbers) * 1e9 for name, took in seconds.items()}
    return {
        "key": ns["key"] - ns["loop"],
        "look_up": ns["look-up"] - ns["key"],
        "state": ns["state"] - ns["look-up"],
        "append": ns["append"] - ns["state"],
        "hash_and_route": ns["routed"] - ns["alone"],
        "encode": ns["encode"],
        "decode": ns["decode"],
    }


def main() -> None:
    """Measure both; nanoseconds are of an event that this worker reads, or of a call."""
    kind, count, worker = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    codec = Codec(AllowList([]))
    read = events.ids(kind, count // 2, seed=worker)
    read_mine = _owned(read, worker)
    from_other = events.ids(kind, count // 2, seed=1 - worker)
    received = from_other[_owned(from_other, worker)]
    blocks = _blocks(events.named(received), codec)
    took, collecting = whole(worker, events.named(read), blocks, codec)
    blocks.clear()
    found = {
        "engine": took / len(read) * 1e9,
        "collecting": collecting / len(read) * 1e9,
        "exchanged": 1 - float(read_mine.mean()),
        **pieces(worker, np.concatenate([read[read_mine], received]), codec),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
