"""Check orders against the market: reject those for symbols that trade at too wide a spread.

Two streams, orders and prices, are merged and keyed by symbol, so that both kinds of message for
a symbol meet at the one object that holds its latest price. An order is rejected, with an alert,
if the spread between bid and offer is more than 1 % of their middle or no price was seen yet.
"""

import argparse
import functools
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import wallaroo

#: id, symbol (padded with NULs), side, quantity; and symbol, bid, offer. Both after the kind.
_ORDER = struct.Struct(">xQ8scI")
_PRICE = struct.Struct(">x8sII")


@dataclass
class Message:
    symbol: bytes


@dataclass
class Order(Message):
    """side: b"B" to buy, b"S" to sell."""

    id: int
    side: bytes
    quantity: int


@dataclass
class Price(Message):
    """The best that buyers bid and sellers offer, in cents."""

    bid: int
    offer: int

    @property
    def too_wide(self) -> bool:
        """Whether the spread is more than 1 % of the middle; in integers, so exactly."""
        return (self.offer - self.bid) * 200 > self.bid + self.offer


@dataclass
class Alert:
    """A rejected order; `price` is None if none was seen."""

    order: Order
    price: Price | None


class Market:
    """What is known of one symbol."""

    latest: Price | None = None


@wallaroo.decoder(header_length=4, length_fmt=">I")
def decode(payload: bytes) -> Message | None:
    """An order or a price, by the first byte; messages of other kinds are dropped."""
    if payload[:1] == b"P":
        symbol, bid, offer = _PRICE.unpack(payload)
        return Price(symbol.rstrip(b"\0"), bid, offer)
    if payload[:1] == b"O":
        order, symbol, side, quantity = _ORDER.unpack(payload)
        return Order(symbol.rstrip(b"\0"), order, side, quantity)
    return None


@wallaroo.key_extractor
def by_symbol(message: Message) -> bytes:
    return message.symbol


@wallaroo.state_computation(name="check orders", state=Market)
def check(message: Message, market: Market) -> Alert | None:
    """Take note of a price; let an order pass in silence, or reject it with an alert."""
    if isinstance(message, Price):
        market.latest = message
    elif isinstance(message, Order) and (market.latest is None or market.latest.too_wide):
        return Alert(message, market.latest)
    return None


@wallaroo.encoder
def encode_alert(alert: Alert) -> str:
    order, price = alert.order, alert.price
    what = "buy" if order.side == b"B" else "sell"
    why = f"spread {price.bid}-{price.offer}" if price else "no price"
    return f"order {order.id} to {what} {order.quantity} {order.symbol.decode()}: {why}\n"


def application_setup(args: list[str]) -> wallaroo.Application:
    """Read two TCP streams into a TCP sink, or files into a file."""
    options = _parser(args[0]).parse_args(args[1:])
    paths = {"orders": options.orders, "prices": options.prices, "session": options.session}
    files = {name: path for name, path in paths.items() if path is not None}
    if not files:
        if options.out_file is not None:
            raise wallaroo.WallarooParameterError("--out-file goes with files, not with --in")
        return _on_tcp(args)
    if options.input is not None or options.output is not None:
        raise wallaroo.WallarooParameterError("give either files or --in and --out, not both")
    if set(files) not in ({"orders", "prices"}, {"session"}):
        raise wallaroo.WallarooParameterError("give --orders and --prices, or --session alone")
    sources = [
        wallaroo.source(name, wallaroo.FileSourceConfig(name, path, decode))
        for name, path in files.items()
    ]
    return _build(sources, wallaroo.FileSinkConfig(options.out_file or "alerts.txt", encode_alert))


def _on_tcp(args: list[str]) -> wallaroo.Application:
    addresses = wallaroo.tcp_parse_input_addrs(args)
    if sorted(address[0] for address in addresses) != ["orders", "prices"]:
        raise wallaroo.WallarooParameterError("--in takes orders@host:port,prices@host:port here")
    sources = [
        wallaroo.source(name, wallaroo.TCPSourceConfig(name, host, port, decode))
        for name, host, port in addresses
    ]
    [(host, port), *more] = wallaroo.tcp_parse_output_addrs(args)
    if more:
        raise wallaroo.WallarooParameterError("--out takes one address here")
    return _build(sources, wallaroo.TCPSinkConfig(host, port, encode_alert))


def _build(
    sources: list[wallaroo.Pipeline[Message]],
    sink: wallaroo.FileSinkConfig[Alert] | wallaroo.TCPSinkConfig[Alert],
) -> wallaroo.Application:
    messages = functools.reduce(lambda one, other: one.merge(other), sources)
    alerts = messages.key_by(by_symbol).to(check)
    return wallaroo.build_application("market spread", alerts.to_sink(sink))


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise wallaroo.WallarooParameterError(f"{self.prog}: {message}")


def _parser(program: str) -> _Parser:
    parser = _Parser(Path(program).name, description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "-i", "--in", dest="input", metavar="orders@HOST:PORT,prices@HOST:PORT", help="listen here"
    )
    parser.add_argument("-o", "--out", dest="output", metavar="HOST:PORT", help="send alerts there")
    parser.add_argument("--orders", metavar="PATH", help="read orders from a file")
    parser.add_argument("--prices", metavar="PATH", help="read prices from a file")
    parser.add_argument("--session", metavar="PATH", help="read both from one file, in its order")
    parser.add_argument("--out-file", metavar="PATH", help="default: alerts.txt")
    return parser
