"""A retailer's users, who keep arriving: totals, loyalty tiers, and how many users each tier has.

One purchase in five is by a user never seen before, so keys come to be all the time, on whichever
worker owns them. State steps follow one another: a user's total, then the user's tier, which sends
something on only when it changes; then, keyed anew by tier, the number of its users.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import wallaroo

#: From how many cents on a user is in a tier, highest first.
TIERS = [(100_000, "gold"), (25_000, "silver"), (0, "bronze")]


@dataclass
class Purchase:
    user: str
    cents: int


@dataclass
class Spent:
    """What a user has spent so far, in cents."""

    user: str
    total: int


@dataclass
class Change:
    """A user's tier is another now; `old` is empty for a new user."""

    user: str
    total: int
    old: str
    new: str


@dataclass
class Move:
    """A user came to a tier (1) or left it (-1)."""

    tier: str
    by: int


@dataclass
class Members:
    """How many users a tier has now."""

    tier: str
    members: int


class Shop:
    """Purchases, the same for the same seed; it ends after `events` of them.

    A generator's instance is its state, to be stored and moved: so it draws lots from one integer
    of its own (Knuth's MMIX generator), not from a `random.Random`.
    """

    def __init__(self, events: int, seed: int) -> None:
        self.left = events
        self.users = 0
        self.lot = seed

    def initial_value(self) -> Purchase:
        return self._purchase()

    def apply(self, previous: Purchase) -> Purchase | None:
        return self._purchase() if self.left else None

    def _purchase(self) -> Purchase:
        self.left -= 1
        if self.users == 0 or self._draw(5) == 0:
            self.users += 1
            number = self.users
        elif self._draw(2) == 0:  # one of the last twenty to arrive
            number = self.users - self._draw(min(20, self.users))
        else:
            number = 1 + self._draw(self.users)
        return Purchase(f"user-{number}", 100 + self._draw(20_000))

    def _draw(self, below: int) -> int:
        self.lot = (self.lot * 6364136223846793005 + 1442695040888963407) % 2**64
        return (self.lot >> 33) % below


class Total:
    """Of one user, in cents."""

    cents = 0


class Tier:
    """Of one user."""

    name = ""


class Count:
    """Of the users of one tier."""

    members = 0


@wallaroo.key_extractor
def by_user(purchase: Purchase) -> str:
    return purchase.user


@wallaroo.state_computation(name="total per user", state=Total)
def add_up(purchase: Purchase, total: Total) -> Spent:
    total.cents += purchase.cents
    return Spent(purchase.user, total.cents)


@wallaroo.state_computation(name="tier per user", state=Tier)
def change_tier(spent: Spent, tier: Tier) -> Change | None:
    """A change, if the total makes one; most purchases end here."""
    name = next(name for cents, name in TIERS if spent.total >= cents)
    if name == tier.name:
        return None
    change = Change(spent.user, spent.total, tier.name, name)
    tier.name = name
    return change


@wallaroo.computation_multi(name="leave and enter")
def moves(change: Change) -> list[Move]:
    entered = Move(change.new, 1)
    return [Move(change.old, -1), entered] if change.old else [entered]


@wallaroo.key_extractor
def by_tier(move: Move) -> str:
    return move.tier


@wallaroo.state_computation(name="members per tier", state=Count)
def count_members(move: Move, count: Count) -> Members:
    count.members += move.by
    return Members(move.tier, count.members)


@wallaroo.encoder
def encode_change(event: Change | Members) -> str | None:
    """A line for a change; nothing for anything else."""
    if not isinstance(event, Change):
        return None
    return f"{event.user}: {event.old or 'new'} -> {event.new} at {event.total}\n"


@wallaroo.encoder
def encode_members(event: Change | Members) -> str | None:
    """A line of JSON for a tier's new count; nothing for anything else."""
    if not isinstance(event, Members):
        return None
    return json.dumps({"tier": event.tier, "members": event.members}) + "\n"


def application_setup(args: list[str]) -> wallaroo.Application:
    """Changes go two ways, to their sink and on to be counted; both ways end in both sinks."""
    options = _parser(args[0]).parse_args(args[1:])
    if options.events < 1:
        raise wallaroo.WallarooParameterError(f"--events must be at least 1, not {options.events}")
    shop = Shop(options.events, options.seed)
    purchases = wallaroo.source("purchases", wallaroo.GenSourceConfig("purchases", shop))
    changes = purchases.key_by(by_user).to(add_up).to(change_tier)
    members = changes.to(moves).key_by(by_tier).to(count_members)
    sinks = [
        wallaroo.FileSinkConfig(options.changes, encode_change),
        wallaroo.FileSinkConfig(options.members, encode_members),
    ]
    return wallaroo.build_application("users", changes.merge(members).to_sinks(sinks))


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise wallaroo.WallarooParameterError(f"{self.prog}: {message}")


def _parser(program: str) -> _Parser:
    parser = _Parser(Path(program).name, description=__doc__, allow_abbrev=False)
    parser.add_argument("--events", type=int, default=2000, help="how many; default: 2000")
    parser.add_argument("--seed", type=int, default=1, help="of the purchases; default: 1")
    parser.add_argument("--changes", default="changes.txt", metavar="PATH", help="a text file")
    parser.add_argument("--members", default="members.jsonl", metavar="PATH", help="JSON lines")
    return parser
