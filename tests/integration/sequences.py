"""The sequence window: an application whose output tells whether anything is lost or came twice.

Per key an unbroken sequence 1, 2, 3, … comes out, each with the last four inputs of the key; a
second stage numbers what comes out, by another key.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

#: Keys of the first stage, and of the second.
KEYS, BUCKETS = 30, 7

APP = f"""
import os
import time

import faults


def pace(number):
    # Five thousand a second, until somebody is in a hurry.
    if not number % 25 and not os.path.exists("hurry"):
        time.sleep(0.005)


class Numbers:
    def __init__(self, last):
        self.last = last

    def initial_value(self):
        return 1

    def apply(self, previous):
        pace(previous)
        return previous + 1 if previous < self.last else None


class Window:
    def __init__(self):
        self.count = 0
        self.last = [0, 0, 0, 0]


class Total:
    count = 0


@wallaroo.computation(name="parse")
def parse(line):
    number = int(line)
    pace(number)
    return number


@wallaroo.key_extractor
def key(number):
    return f"key {{number % {KEYS}}}"


@wallaroo.state_computation(name="window", state=Window)
def window(number, state):
    state.count += 1
    state.last = [*state.last[1:], number]
    return number % {KEYS}, state.count, state.last


@wallaroo.key_extractor
def bucket(result):
    return f"bucket {{result[0] % {BUCKETS}}}"


@wallaroo.state_computation(name="total", state=Total)
def total(result, state):
    state.count += 1
    key, count, last = result
    return f"{{key}} {{count}} {{','.join(map(str, last))}} {{state.count}}"


def application_setup(args):
    _, source, out = args
    if source.startswith("numbers:"):
        last = int(source.removeprefix("numbers:"))
        config = wallaroo.GenSourceConfig("numbers", Numbers(last))
        numbers = wallaroo.source("numbers", config)
    else:
        config = wallaroo.FileSourceConfig("numbers", source)
        numbers = wallaroo.source("numbers", config).to(parse)
    pipeline = (numbers.key_by(key).to(window).key_by(bucket).to(total)
        .to_sink(wallaroo.FileSinkConfig(out)))
    return wallaroo.build_application("sequences", pipeline)
"""


def parts(out: Path) -> list[Path]:
    """The files that a sink has written."""
    return sorted([*out.parent.glob(f"{out.stem}.part-*{out.suffix}"), *out.parent.glob(out.name)])


def check(out: Path, expected: Iterable[int]) -> None:
    """What came out is what these numbers give: nothing lost, nothing twice."""
    check_prefix(out)
    found = Counter(number for line in _lines(out) for number in [_parse(line)[2][-1]])
    assert found == Counter(expected)


def check_prefix(out: Path) -> int:
    """What came out so far is unbroken; returns how much that is."""
    inputs: dict[int, list[int]] = defaultdict(lambda: [0, 0, 0])
    totals: dict[int, list[int]] = defaultdict(list)
    count = 0
    for line in _lines(out):
        key, number, last, total = _parse(line)
        mine = inputs[key]
        mine.append(last[-1])
        assert number == len(mine) - 3, f"{line!r} comes after {number_of(mine)}"
        assert last == mine[-4:], line
        totals[key % BUCKETS].append(total)
        count += 1
    for bucket, found in totals.items():
        assert found == list(range(1, len(found) + 1)), f"bucket {bucket}"
    return count


def number_of(inputs: list[int]) -> str:
    return f"output {len(inputs) - 4} of its key"


def _lines(out: Path) -> list[str]:
    return [line for part in parts(out) for line in part.read_text().splitlines()]


def _parse(line: str) -> tuple[int, int, list[int], int]:
    found = re.fullmatch(r"(\d+) (\d+) ([\d,]+) (\d+)", line)
    assert found, f"this is no output: {line!r}"
    last = [int(number) for number in found[3].split(",")]
    return int(found[1]), int(found[2]), last, int(found[4])
