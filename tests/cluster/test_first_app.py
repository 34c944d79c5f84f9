"""From nothing to an application whose counts are exact, as a newcomer does it."""

import re
from collections import Counter

import pytest
from applications import EXAMPLE, word_count
from k8s import Collector, Namespace, until


def _until_counted(collector: Collector, words: int) -> Counter[str]:
    """How often each word came out; each of its totals came once."""
    until(lambda: collector.count() >= words, "not all words have come out", 240)
    totals: dict[str, list[int]] = {}
    for line in collector.settled():
        found = re.fullmatch(r"\d+ (\w+) => (\d+)", line)
        assert found, line
        totals.setdefault(found[1], []).append(int(found[2]))
    for word, mine in totals.items():
        assert sorted(mine) == list(range(1, len(mine) + 1)), f"{word}: {sorted(mine)[:10]} …"
    return Counter({word: len(mine) for word, mine in totals.items()})


@pytest.mark.parametrize("scale", [(), (4, 2)], ids=["at rest", "scaled meanwhile"])
def test_the_words_of_a_real_text_are_counted_exactly(
    namespace: Namespace, collector: Collector, scale: tuple[int, ...]
) -> None:
    """The module by a ConfigMap, the text over TCP."""
    app = word_count(namespace, collector)
    app.until_ready()
    load = namespace.program("load", "load.py", "word-count", "7000", "lines", "6")
    text = (EXAMPLE / "kjv.txt.gz").read_bytes()
    load.execute("sh", "-c", "cat >/tmp/part && mv /tmp/part /tmp/text.gz", stdin=text)
    for members in scale:
        app.scale(members)
        app.until_members(members)
    assert not load.result(240)["broken"]
    counts = _until_counted(collector, 791_450)
    for line in (EXAMPLE / "expected.txt").read_text().splitlines():
        if found := re.fullmatch(r"(\w+) => (\d+)", line):
            assert counts[found[1]] == int(found[2])
    assert counts.total() == 791_450
    assert counts["the"] == 63_919
