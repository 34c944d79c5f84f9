"""Where keys and partitions lie in the hash interval."""

import enum

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from wallaroo.partitioning import INTERVAL, hash_key, normalize_key, partition_point


def test_the_interval_has_2_to_the_64_points() -> None:
    assert INTERVAL == 2**64


@pytest.mark.parametrize(
    ("key", "point"),
    [
        ("", 0x2D06800538D394C2),
        ("a", 0xE6C632B61E964E1F),
        ("the", 0xCB1283631CF33D7D),
        ("grüß", 0x76956C0B3661DFDD),
        ("long" * 100, 0x810E662885FF9B83),
    ],
)
def test_a_key_lies_at_its_xxh3_64_for_ever(key: str, point: int) -> None:
    """Stored keys are found by these points: another hash would lose them."""
    assert hash_key(key) == point


@given(st.text())
def test_a_str_lies_where_its_utf8_lies(key: str) -> None:
    assert hash_key(key) == hash_key(key.encode("utf-8"))


@given(st.text() | st.binary())
def test_a_key_lies_in_the_interval(key: str | bytes) -> None:
    assert 0 <= hash_key(key) < INTERVAL


@given(st.integers(1, 1000))
def test_partitions_lie_in_the_middle_of_equal_parts(count: int) -> None:
    """Ruling 11 of docs/protocol.md: point ((2i+1) << 63) // n."""
    points = [partition_point(index, count) for index in range(count)]
    assert points == [((2 * index + 1) * 2**63) // count for index in range(count)]
    for index, point in enumerate(points):
        assert index * INTERVAL <= point * count < (index + 1) * INTERVAL


def test_one_partition_lies_in_the_middle() -> None:
    assert partition_point(0, 1) == INTERVAL // 2


@pytest.mark.parametrize(("index", "count"), [(1, 1), (-1, 3), (3, 3), (0, 0)])
def test_a_partition_that_is_not_there_has_no_point(index: int, count: int) -> None:
    with pytest.raises(ValueError, match=f"partition {index} of {count}"):
        partition_point(index, count)


@given(st.binary() | st.text(st.characters(exclude_categories=["Cs"])))
def test_a_str_or_bytes_is_a_key_as_it_is(key: str | bytes) -> None:
    assert normalize_key(key) is key


@given(st.integers(0, 0x10FFFF))
def test_an_int_stands_for_its_character(code: int) -> None:
    assume(not 0xD800 <= code <= 0xDFFF)
    assert normalize_key(code) == chr(code)


def test_a_bool_is_the_int_that_it_is() -> None:
    assert normalize_key(True) == "\x01"


def test_a_str_of_a_class_of_its_own_is_a_key() -> None:
    class Colour(enum.StrEnum):
        RED = "red"

    assert normalize_key(Colour.RED) == "red"
    assert hash_key(Colour.RED) == hash_key("red")


@pytest.mark.parametrize("key", [None, 1.0, ["a"], ("a",), bytearray(b"a"), memoryview(b"a")])
def test_anything_else_is_no_key(key: object) -> None:
    with pytest.raises(TypeError, match=f"a {type(key).__name__} is neither str, bytes nor int"):
        normalize_key(key)


@pytest.mark.parametrize("key", [-1, 0x110000, 2**100])
def test_an_int_that_is_no_character_is_no_key(key: int) -> None:
    with pytest.raises(TypeError, match=f"the int {key} stands for no character"):
        normalize_key(key)


@pytest.mark.parametrize("key", ["\ud800", "a\udfff", 0xD800])
def test_a_lone_surrogate_is_no_key(key: str | int) -> None:
    with pytest.raises(UnicodeEncodeError, match="surrogates not allowed"):
        normalize_key(key)
