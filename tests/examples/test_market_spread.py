import importlib
import re
from collections import defaultdict
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

import wallaroo
from wallaroo import testing

market_spread = importlib.import_module("market_spread")
gen = importlib.import_module("gen")

Order, Price, Market = market_spread.Order, market_spread.Price, market_spread.Market

FOLDER = Path(market_spread.__file__ or "").parent
FILES = ["--orders", str(FOLDER / "orders.bin"), "--prices", str(FOLDER / "prices.bin")]
TCP = ["--in", "orders@127.0.0.1:7010,prices@127.0.0.1:7011", "--out", "127.0.0.1:7002"]


def messages(path: Path) -> Iterator[Any]:
    """The messages of a file, cut out by hand."""
    data = path.read_bytes()
    while data:
        end = 4 + int.from_bytes(data[:4], "big")
        yield market_spread.decode(data[4:end])
        data = data[end:]


def line(order: Any, price: Any) -> str | None:
    """What is to come out for an order when `price` is the latest of its symbol."""
    text = f"order {order.id} to {'buy' if order.side == b'B' else 'sell'} {order.quantity} "
    text += order.symbol.decode()
    if price is None:
        return f"{text}: no price\n"
    if Fraction(price.offer - price.bid, price.offer + price.bid) * 2 > Fraction(1, 100):
        return f"{text}: spread {price.bid}-{price.offer}\n"
    return None


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
def test_a_session_gives_the_alerts_in_expected_txt(workers: int) -> None:
    args = ["market_spread", "--session", str(FOLDER / "session.bin")]
    application = market_spread.application_setup(args)
    result = testing.run(application, workers=workers, seed=workers)
    lines = [line.decode() for line in result.encoded()]
    assert sorted(lines) == (FOLDER / "expected.txt").read_text().splitlines(keepends=True)
    by_symbol = defaultdict(list)
    for alert in result.values():
        by_symbol[alert.order.symbol].append(alert.order.id)
    assert all(ids == sorted(ids) for ids in by_symbol.values())
    assert all(states["check orders"] for states in result.states)


@pytest.fixture(scope="module")
def streams(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with orders and prices enough that their batches take turns."""
    folder = tmp_path_factory.mktemp("streams")
    gen.main(["--messages", "8000", "--dir", str(folder)])
    return folder


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
@pytest.mark.parametrize("kind", ["files", "tcp"])
def test_two_streams_give_alerts_that_some_interleaving_explains(
    kind: str, workers: int, streams: Path
) -> None:
    both = {name: list(messages(streams / f"{name}.bin")) for name in ("orders", "prices")}
    files = ["--orders", str(streams / "orders.bin"), "--prices", str(streams / "prices.bin")]
    args = files if kind == "files" else TCP
    application = market_spread.application_setup(["market_spread", *args])
    inputs = both if kind == "tcp" else {}
    result = testing.run(application, inputs, workers=workers, seed=workers)
    alerts = {int(line.split()[1]): line.decode() for line in result.encoded()}
    assert len(alerts) == len(result.encoded())
    assert 0 < sum("spread" in line for line in alerts.values()) < len(alerts) < 4000
    market: dict[bytes, list[Any]] = defaultdict(lambda: [None])
    for price in both["prices"]:
        market[price.symbol].append(price)
    # The earliest price that explains an order leaves the most for its symbol's next.
    for order in both["orders"]:
        prices = market[order.symbol]
        while line(order, prices[0]) != alerts.get(order.id):
            prices.pop(0)
            assert prices, f"nothing explains {alerts.get(order.id)} for {order}"


def test_an_order_passes_only_on_a_narrow_spread() -> None:
    market = Market()
    order = Order(b"ACME", 7, b"S", 300)
    alert = market_spread.check(order, market)
    assert market_spread.encode_alert(alert) == "order 7 to sell 300 ACME: no price\n"
    assert market_spread.check(Price(b"ACME", 19_900, 20_100), market) is None
    assert market_spread.check(order, market) is None  # 1 % exactly
    assert market_spread.check(Price(b"ACME", 19_900, 20_101), market) is None
    alert = market_spread.check(order, market)
    assert market_spread.encode_alert(alert) == "order 7 to sell 300 ACME: spread 19900-20101\n"
    assert Market.latest is None


def test_messages_are_told_apart_by_their_kind() -> None:
    order = bytes.fromhex("4f 0000000000000007 41434d4500000000 42 0000012c")
    price = bytes.fromhex("50 41434d4500000000 00004e20 00004e84")
    assert market_spread.decode(order) == Order(b"ACME", 7, b"B", 300)
    assert market_spread.decode(price) == Price(b"ACME", 20_000, 20_100)
    assert market_spread.decode(b"X") is None
    assert market_spread.decode(b"") is None
    assert market_spread.by_symbol(market_spread.decode(price)) == b"ACME"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "needs --in"),
        (["--bogus"], "market_spread: unrecognized arguments: --bogus"),
        (["--in", "orders@a:1", "--out", "b:2"], "--in takes orders@host:port,prices@host:port"),
        (["--in", "a:1,b:2", "--out", "b:2"], "--in takes orders@host:port,prices@host:port"),
        (TCP[:2], "needs --out"),
        ([*TCP[:3], "b:2,c:3"], "--out takes one address"),
        ([*TCP, *FILES], "either files or --in and --out"),
        ([*TCP, "--out-file", "x"], "--out-file goes with files"),
        (FILES[:2], "give --orders and --prices"),
        ([*FILES, "--session", "x"], "--session alone"),
    ],
)
def test_wrong_arguments_are_told(args: list[str], message: str) -> None:
    with pytest.raises(wallaroo.WallarooParameterError, match=re.escape(message)):
        market_spread.application_setup(["folder/market_spread", *args])


# gen.py


def test_the_data_are_what_gen_makes(tmp_path: Path) -> None:
    gen.main(["--dir", str(tmp_path)])
    for name in ("session.bin", "orders.bin", "prices.bin"):
        assert (tmp_path / name).read_bytes() == (FOLDER / name).read_bytes()


def test_gen_makes_as_many_orders_as_prices_over_any_symbols(tmp_path: Path) -> None:
    frames = list(gen.session(10_001, 1_000, seed=5))
    read = [(kind, market_spread.decode(frame[4:])) for kind, frame in frames]
    assert all(isinstance(m, Order if kind == "orders" else Price) for kind, m in read)
    orders = [message for kind, message in read if kind == "orders"]
    prices = [message for kind, message in read if kind == "prices"]
    assert [order.id for order in orders] == list(range(1, 5_002))
    assert len(prices) == 5_000
    assert len({order.symbol for order in orders}) > 950
    assert {gen.symbol(n) for n in range(9, 1_000, 10)}.isdisjoint(p.symbol for p in prices)
    assert 0.15 < sum(price.too_wide for price in prices) / len(prices) < 0.25


def test_gen_names_symbols_with_letters() -> None:
    assert [gen.symbol(n) for n in (0, 25, 26, 701, 702)] == [b"A", b"Z", b"AA", b"ZZ", b"AAA"]
