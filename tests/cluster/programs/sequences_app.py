"""The sequence window in pods: its output tells whether anything is lost or came twice.

Per key an unbroken sequence 1, 2, 3, … comes out, each with the last four inputs of the key. Then
a second stage numbers what came out, by another key.
"""

import os
import time

import wallaroo

KEYS, BUCKETS = 200, 7
#: Another text of it is another fingerprint: what a rollout of the module is tried with.
EDITION = "first"


class Numbers:
    """1, 2, 3, … so many a second, up to the number that the file /tmp/enough has, or beyond it."""

    def __init__(self, rate):
        self.rate = rate

    def initial_value(self):
        return 1

    def apply(self, previous):
        if not previous % 50:
            time.sleep(50 / self.rate)
            if os.path.exists("/tmp/enough"):
                with open("/tmp/enough") as enough:
                    if previous >= int(enough.read()):
                        return None
        return previous + 1


class Window:
    def __init__(self):
        self.count = 0
        self.last = [0, 0, 0, 0]


class Total:
    count = 0


@wallaroo.decoder(header_length=4, length_fmt=">I")
def decode(payload):
    return int(payload)


@wallaroo.key_extractor
def key(number):
    return f"key {number % KEYS}"


@wallaroo.state_computation(name="window", state=Window)
def window(number, state):
    if number == int(os.environ.get("RAISE_AT", "0")):
        raise ValueError(f"{number} is not to my liking")
    if not number % 53 and os.path.exists("/tmp/die"):
        os.unlink("/tmp/die")
        os._exit(9)  # a process can't kill itself where it is the first of its container
    if os.environ.get("BUSY"):
        until = time.perf_counter() + float(os.environ["BUSY"])
        while time.perf_counter() < until:
            pass
    state.count += 1
    state.last = [*state.last[1:], number]
    return number % KEYS, state.count, state.last


@wallaroo.key_extractor
def bucket(result):
    return f"bucket {result[0] % BUCKETS}"


@wallaroo.state_computation(name="total", state=Total)
def total(result, state):
    state.count += 1
    key, count, last = result
    return f"{key} {count} {','.join(map(str, last))} {state.count}"


@wallaroo.encoder
def encode(line):
    return line + "\n"


def application_setup(args):
    """tcp:PORT, or numbers:RATE; then HOST:PORT or a file for what comes out."""
    _, source, out = args
    kind, number = source.split(":")
    if kind == "tcp":
        config = wallaroo.TCPSourceConfig("numbers", "0.0.0.0", number, decode)
    else:
        config = wallaroo.GenSourceConfig("numbers", Numbers(int(number)))
    if ":" in out:
        sink = wallaroo.TCPSinkConfig(*out.split(":"), encode)
    else:
        sink = wallaroo.FileSinkConfig(out, encode)
    pipeline = (
        wallaroo.source("numbers", config)
        .key_by(key)
        .to(window)
        .key_by(bucket)
        .to(total)
        .to_sink(sink)
    )
    return wallaroo.build_application("sequences", pipeline)
