"""What the sequence window says of what came out: nothing lost, nothing twice."""

import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

_LINE = re.compile(r"(?:(\d+) )?(\d+) (\d+) ([\d,]+) (\d+)")


@dataclass
class Found:
    """How often each input came out; outputs that came twice; when each key's outputs came."""

    inputs: Counter[int] = field(default_factory=Counter)
    twice: int = 0
    times: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))

    def longest_gap(self, since: float = 0, until: float = 1e18) -> int:
        """Milliseconds between two outputs of a key that follow each other, at most."""
        gaps = [0]
        for times in self.times.values():
            mine = [each for each in sorted(times) if since * 1000 <= each <= until * 1000]
            gaps += [after - before for before, after in itertools.pairwise(mine)]
        return max(gaps)


def read(lines: Iterable[str], *, twice: bool = False) -> Found:
    """Check that every key's outputs are unbroken, and each tells the last four inputs.

    twice: whether an output may come more than once, as after a crash to a sink that sends at once.
    """
    found = Found()
    outputs: dict[int, dict[int, list[int]]] = defaultdict(dict)
    for line in lines:
        parts = _LINE.fullmatch(line.strip())
        assert parts, f"this is no output: {line!r}"
        key, count = int(parts[2]), int(parts[3])
        last = [int(number) for number in parts[4].split(",")]
        if parts[1]:
            found.times[key].append(int(parts[1]))
        before = outputs[key].setdefault(count, last)
        assert before == last, f"key {key}: {count} has {before}, and {last}"
        found.inputs[last[-1]] += 1
    for key, mine in outputs.items():
        inputs = [0, 0, 0]
        for expected, (count, last) in enumerate(sorted(mine.items()), start=1):
            inputs.append(last[-1])
            assert count == expected, f"key {key}: {count} stands where {expected} belongs"
            assert last == inputs[-4:], f"key {key}: {count} has {last}, not {inputs[-4:]}"
    found.twice = found.inputs.total() - sum(map(len, outputs.values()))
    assert twice or not found.twice, f"{found.twice} outputs came twice"
    return found


def exactly(found: Found, last: int) -> None:
    """Each number from 1 to `last` came out."""
    missing = [number for number in range(1, last + 1) if number not in found.inputs]
    assert not missing, f"{len(missing)} of {last} inputs are lost: {missing[:10]} …"
    assert len(found.inputs) == last, "more came out than was sent"
