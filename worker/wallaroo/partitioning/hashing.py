"""Points of the hash interval: where a key, or a partition of a source, lies.

Everything that has state lies at one point, and so has one owner. Keys are spread by their hash;
the few partitions of a source are spaced evenly instead, since hashes of few things clump.
"""

from xxhash import xxh3_64_intdigest

#: The hash interval is [0, INTERVAL).
INTERVAL = 1 << 64


def hash_key(key: str | bytes) -> int:
    """The point of `key`: xxh3_64 with seed 0, of its UTF-8 if it is a str.

    >>> hash_key("the") == hash_key(b"the")
    True
    """
    return xxh3_64_intdigest(key.encode() if isinstance(key, str) else key)


def partition_point(index: int, count: int) -> int:
    """The point of partition `index` of `count`: the middle of its equal part of the interval.

    >>> [hex(partition_point(i, 2)) for i in range(2)]
    ['0x4000000000000000', '0xc000000000000000']
    """
    if not 0 <= index < count:
        raise ValueError(f"partition {index} of {count}")
    return ((2 * index + 1) << 63) // count


def normalize_key(key: object) -> str | bytes:
    """What a key extractor returned, as a key: an int is the character of that code point.

    Raises TypeError for what can be no key, and UnicodeEncodeError for a str without UTF-8.

    >>> normalize_key(97), normalize_key(b"a")
    ('a', b'a')
    """
    if isinstance(key, int):
        if not 0 <= key <= 0x10FFFF:
            raise TypeError(f"the int {key} stands for no character")
        key = chr(key)
    if isinstance(key, str):
        key.encode()
    elif not isinstance(key, bytes):
        raise TypeError(f"a {type(key).__name__} is neither str, bytes nor int")
    return key
