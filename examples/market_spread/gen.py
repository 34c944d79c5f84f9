"""Make input for market_spread.py: python gen.py [--messages N] [--symbols N] [--seed N].

As a real feed would, it shares nothing with the application but the format of the messages. It
writes a trading session as it went (session.bin), and its orders and prices apart (orders.bin,
prices.bin). One symbol in ten is ordered but never priced; one price in five is too wide.
"""

import argparse
import random
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

#: Length of what follows, kind, id, symbol, side, quantity.
ORDER = struct.Struct(">IcQ8scI")
#: Length of what follows, kind, symbol, bid, offer.
PRICE = struct.Struct(">Ic8sII")


def symbol(number: int) -> bytes:
    """A name of letters: A, B, … Z, AA, AB and so on."""
    name = b""
    number += 1
    while number:
        number, letter = divmod(number - 1, 26)
        name = bytes([65 + letter]) + name
    return name


def session(messages: int, symbols: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """("orders" or "prices", frame) in order of arrival; as many of one as of the other."""
    draw = random.Random(seed)
    orders = 0
    for number in range(messages):
        which = draw.randrange(symbols)
        name = symbol(which)
        if draw.randrange(messages - number) < (messages + 1) // 2 - orders:
            orders += 1
            side = draw.choice([b"B", b"S"])
            frame = ORDER.pack(
                ORDER.size - 4, b"O", orders, name, side, draw.randrange(100, 1100, 100)
            )
            yield "orders", frame
        else:
            if which % 10 == 9:
                name = symbol(which - 1)
            bid = draw.randrange(5_000, 50_000)
            widths = (12, 20) if draw.randrange(5) == 0 else (1, 9)
            offer = bid + bid * draw.randrange(*widths) // 1000
            yield "prices", PRICE.pack(PRICE.size - 4, b"P", name, bid, offer)


def main(args: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=1000, help="default: 1000")
    parser.add_argument("--symbols", type=int, default=40, help="default: 40")
    parser.add_argument("--seed", type=int, default=1, help="default: 1")
    parser.add_argument("--dir", type=Path, default=Path(), help="default: the current directory")
    options = parser.parse_args(args)
    with (
        (options.dir / "session.bin").open("wb") as both,
        (options.dir / "orders.bin").open("wb") as orders,
        (options.dir / "prices.bin").open("wb") as prices,
    ):
        files = {"orders": orders, "prices": prices}
        for kind, frame in session(options.messages, options.symbols, options.seed):
            both.write(frame)
            files[kind].write(frame)


if __name__ == "__main__":
    main(sys.argv[1:])
