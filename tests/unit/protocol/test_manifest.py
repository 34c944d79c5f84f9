"""Manifests: what they say, in what order they are, and as text. Rulings: docs/protocol.md."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.protocol.watch import beginning

from wallaroo.partitioning import INTERVAL, Assignment, Piece, hash_key, partition_point
from wallaroo.protocol.manifest import (
    DeltaMark,
    Manifest,
    Part,
    Staging,
    part_from_json,
    part_to_json,
)

NUMBERS = st.integers(0, (1 << 64) - 1)
NAMES = st.text(max_size=8)
MARKS = st.lists(
    st.none()
    | st.dictionaries(NAMES, st.none() | st.booleans() | st.integers() | NAMES, max_size=2),
    max_size=3,
).map(tuple)
POINTS = st.integers(0, INTERVAL - 1)
STAGINGS = st.builds(
    Staging,
    NAMES,
    st.lists(st.tuples(POINTS, st.integers(1, INTERVAL)), max_size=3).map(tuple),
)
PARTS = st.builds(
    Part,
    NAMES,
    st.lists(st.builds(DeltaMark, NUMBERS, NUMBERS, NUMBERS, NUMBERS), max_size=3).map(tuple),
    MARKS,
    st.frozensets(st.tuples(NAMES, NAMES), max_size=3),
    st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS),
    NUMBERS,
    st.none() | STAGINGS,
)
PLACES = st.dictionaries(NAMES, st.integers(0, 65535), max_size=3)
PARTITIONS = st.dictionaries(NAMES, st.dictionaries(NAMES, NUMBERS, max_size=3), max_size=3)
WORKERS = st.integers(0, 99)


@st.composite
def assignments(draw: st.DrawFn) -> Assignment:
    bounds = sorted(draw(st.sets(st.integers(1, INTERVAL - 1), max_size=5)))
    starts, ends = [0, *bounds], [*bounds, INTERVAL]
    owners = draw(st.lists(st.integers(0, 9), min_size=len(starts), max_size=len(starts)))
    return Assignment(draw(st.integers(0, 1 << 40)), tuple(map(Piece, starts, ends, owners)))


MANIFESTS = st.builds(
    Manifest,
    NAMES,
    NUMBERS,
    NUMBERS,
    assignments(),
    PLACES,
    PARTITIONS,
    st.dictionaries(WORKERS, PARTS, max_size=3),
    NUMBERS,
    st.dictionaries(WORKERS, PARTS, max_size=2),
    st.dictionaries(WORKERS, MARKS, max_size=2),
    st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS),
    st.lists(st.dictionaries(NAMES, st.integers() | NAMES, max_size=2), max_size=2).map(tuple),
)


@given(MANIFESTS)
def test_a_manifest_comes_back_from_its_text_as_it_was(manifest: Manifest) -> None:
    assert Manifest.from_json(manifest.to_json()) == manifest


@given(PARTS)
def test_a_part_comes_back_from_plain_values_as_it_was(part: Part) -> None:
    assert part_from_json(json.loads(json.dumps(part_to_json(part)))) == part


def changed(**change: Any) -> str:
    return json.dumps(json.loads(beginning(2).to_json()) | change)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "Expecting value"),
        ("[]", "it is not a manifest"),
        ("null", "it is not a manifest"),
        ("{}", "KeyError: 'format'"),
        (changed(format=1), "it has format 1; this version of Wallaroo reads 3"),
        (changed(assignment={"version": 1, "pieces": [[0, 5, 0]]}), "not at 2\\^64"),
        (changed(assignment={"version": 1, "pieces": [[0, 5]]}), "it is not a manifest"),
        (changed(parts={"0": {}}), "it is not a manifest"),
        (changed(parts=[]), "it is not a manifest"),
        (changed(parts={"zero": None}), "invalid literal|not a manifest"),
    ],
)
def test_any_other_text_is_refused_with_words(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Manifest.from_json(text)


def test_the_members_are_those_who_own_something() -> None:
    pieces = (Piece(0, 5, 4), Piece(5, INTERVAL, 1))
    assert replace(beginning(2), assignment=Assignment(3, pieces)).members == (1, 4)


def test_a_deltas_name_says_epoch_and_generation_and_sorts_by_them() -> None:
    marks = [DeltaMark(9, 2, 0, 0), DeltaMark(10, 1, 0, 0), DeltaMark(10, 11, 0, 0)]
    names = [mark.name for mark in marks]
    assert names[0] == "delta-0000000000000009-00000002"
    assert names == sorted(names)


class TestComplete:
    """Ruling 18: the application ends when one committed manifest shows all ended."""

    @staticmethod
    def manifest(*ended: str, epoch: int = 1) -> Manifest:
        parts = {
            worker: Part("", ended=frozenset({("numbers", name)}))
            for worker, name in enumerate(ended)
        }
        return replace(beginning(2), epoch=epoch, parts=parts)

    def test_it_is_once_every_partition_has_ended_whoever_read_it(self) -> None:
        assert self.manifest("a", "b").complete
        assert self.manifest("b", "a").complete

    def test_it_is_not_while_one_has_not(self) -> None:
        assert not self.manifest("a").complete
        assert not self.manifest("a", "a").complete

    def test_it_is_not_at_the_beginning(self) -> None:
        assert not beginning(2).complete

    def test_it_is_not_where_there_is_no_partition(self) -> None:
        assert not replace(self.manifest(), partitions={}).complete
        assert not replace(self.manifest(), partitions={"numbers": {}}).complete

    def test_it_is_no_more_when_a_partition_is_added(self) -> None:
        grown = self.manifest("a", "b").for_program(["tally"], {"numbers": ["a", "b", "c"]})
        assert not grown.complete


class TestWhatAProgramHas:
    """Ruling 11: a partition's point is fixed when first seen, and kept."""

    def test_partitions_seen_at_once_lie_in_the_middle_of_equal_parts(self) -> None:
        manifest = replace(beginning(1), partitions={}).for_program(
            ["tally"], {"files": ["x", "y", "z"]}
        )
        assert manifest.partitions == {
            "files": {name: partition_point(i, 3) for i, name in enumerate("xyz")}
        }

    def test_those_there_were_stay_where_they_are_and_one_added_lies_at_its_hash(self) -> None:
        before = beginning(1)
        after = before.for_program(["tally"], {"numbers": ["c", "b", "a"]})
        assert after.partitions == {"numbers": {"a": 1 << 62, "b": 3 << 62, "c": hash_key("c")}}
        assert before.partitions == {"numbers": {"a": 1 << 62, "b": 3 << 62}}, "it is a value"

    def test_those_that_are_gone_for_now_are_remembered(self) -> None:
        after = beginning(1).for_program(["tally"], {"numbers": ["a"]})
        assert after.partitions["numbers"].keys() == {"a", "b"}

    def test_places_keep_their_numbers_and_new_ones_get_the_next(self) -> None:
        before = replace(beginning(1), places={"count": 0, "tally": 1})
        after = before.for_program(["window", "tally", "count"], {})
        assert after.places == {"count": 0, "tally": 1, "window": 2}

    def test_a_place_that_the_program_lacks_is_named(self) -> None:
        before = replace(beginning(1), places={"count": 0, "tally": 1})
        with pytest.raises(ValueError, match="the checkpoint holds tally, which the application"):
            before.for_program(["count"], {})

    def test_the_same_program_changes_nothing(self) -> None:
        before = beginning(2)
        assert before.for_program(["tally"], {"numbers": ["a", "b"]}) == before
