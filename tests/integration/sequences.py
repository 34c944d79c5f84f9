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


def pace(number, rate=5000):
    # So many a second, until somebody is in a hurry.
    if not number % 25 and not os.path.exists("hurry"):
        time.sleep(25 / rate)


class Numbers:
    def __init__(self, last):
        self.last = last

    def initial_value(self):
        return 1

    def apply(self, previous):
        pace(previous)
        return previous + 1 if previous < self.last else None


class Endless:
    # Until the file `enough` names a number, at least that one, and a multiple of 25.
    def __init__(self, rate):
        self.rate = rate

    def initial_value(self):
        return 1

    def apply(self, previous):
        pace(previous, self.rate)
        if not previous % 25 and os.path.exists("enough"):
            with open("enough") as enough:
                if previous >= int(enough.read()):
                    return None
        return previous + 1


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
    elif source.startswith("endless:"):
        rate = int(source.removeprefix("endless:"))
        config = wallaroo.GenSourceConfig("numbers", Endless(rate))
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
    assert _check(out) == Counter(expected)


def check_prefix(out: Path) -> int:
    """What came out so far is unbroken; returns how much that is."""
    return _check(out).total()


def enough(out: Path, more: int = 2000) -> None:
    """Have the endless source end soon, but not before it has given more than there is."""
    last = -(-(sum(1 for _ in _lines(out)) + more) // 25) * 25
    (out.parent / "enough.new").write_text(str(last))
    (out.parent / "enough.new").rename(out.parent / "enough")
    (out.parent / "hurry").touch()


def check_endless(out: Path) -> int:
    """What came out is all that the endless source gave; returns how much that is."""
    found = _check(out)
    least = int((out.parent / "enough").read_text())
    assert max(found) >= least
    assert not max(found) % 25
    assert found == Counter(range(1, max(found) + 1))
    return max(found)


def _check(out: Path) -> Counter[int]:
    """How often each number came out.

    A key may move from part to part. In each part its outputs are in order; all together they are
    unbroken.
    """
    outputs: dict[int, list[tuple[int, list[int]]]] = defaultdict(list)
    totals: dict[int, list[int]] = defaultdict(list)
    for part in parts(out):
        before: dict[int, int] = defaultdict(int)
        totals_before: dict[int, int] = defaultdict(int)
        for line in part.read_text().splitlines():
            key, number, last, total = _parse(line)
            assert number > before[key], f"{part.name}: {line!r} comes after {before[key]}"
            assert total > totals_before[key % BUCKETS], f"{part.name}: {line!r}"
            before[key], totals_before[key % BUCKETS] = number, total
            outputs[key].append((number, last))
            totals[key % BUCKETS].append(total)
    for key, mine in outputs.items():
        mine.sort()
        inputs = [0, 0, 0]
        for expected, (number, last) in enumerate(mine, start=1):
            inputs.append(last[-1])
            assert number == expected, f"key {key}: {number} stands where {expected} belongs"
            assert last == inputs[-4:], f"key {key}: {number} has {last}, not {inputs[-4:]}"
    for bucket, found in totals.items():
        assert sorted(found) == list(range(1, len(found) + 1)), f"bucket {bucket}"
    return Counter(last[-1] for mine in outputs.values() for _, last in mine)


def _lines(out: Path) -> list[str]:
    return [line for part in parts(out) for line in part.read_text().splitlines()]


def _parse(line: str) -> tuple[int, int, list[int], int]:
    found = re.fullmatch(r"(\d+) (\d+) ([\d,]+) (\d+)", line)
    assert found, f"this is no output: {line!r}"
    last = [int(number) for number in found[3].split(",")]
    return int(found[1]), int(found[2]), last, int(found[4])
