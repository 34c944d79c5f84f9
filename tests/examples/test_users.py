import copy
import importlib
import json
import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

import wallaroo
from wallaroo import testing

users = importlib.import_module("users")

FOLDER = Path(users.__file__ or "").parent


def purchases(shop: Any) -> list[Any]:
    """All that a shop still gives."""
    found = [shop.initial_value()]
    while (purchase := shop.apply(found[-1])) is not None:
        found.append(purchase)
    return found


@pytest.fixture(scope="module", params=[1, 2, 3, 7])
def result(request: pytest.FixtureRequest) -> testing.Result:
    application = users.application_setup(["users"])
    return testing.run(application, workers=request.param, seed=request.param)


def test_changes_are_those_in_expected_changes_txt(result: testing.Result) -> None:
    lines = [line.decode() for line in result.encoded(0)]
    expected = (FOLDER / "expected_changes.txt").read_text().splitlines(keepends=True)
    assert sorted(lines) == expected


def test_changes_of_a_user_come_in_order(result: testing.Result) -> None:
    tiers: dict[str, str] = defaultdict(lambda: "new")
    for line in result.encoded(0):
        user, old, new = re.split(": | -> | at ", line.decode())[:3]
        assert tiers[user] == old
        tiers[user] = new


def test_members_come_to_those_in_expected_members_jsonl(result: testing.Result) -> None:
    last = {}
    for line in result.encoded(1):
        event = json.loads(line)
        last[event["tier"]] = event
    expected = (FOLDER / "expected_members.jsonl").read_text().splitlines()
    assert sorted(map(json.dumps, last.values())) == expected


def test_members_of_a_tier_change_by_one_and_are_never_negative(result: testing.Result) -> None:
    members: Counter[str] = Counter()
    for line in result.encoded(1):
        event = json.loads(line)
        assert abs(event["members"] - members[event["tier"]]) == 1
        assert event["members"] >= 0
        members[event["tier"]] = event["members"]


def test_each_user_has_one_state_at_each_step(result: testing.Result) -> None:
    spent: Counter[str] = Counter()
    for purchase in purchases(users.Shop(2000, 1)):
        spent[purchase.user] += purchase.cents
    assert {user: total.cents for user, total in result.state("total per user").items()} == spent
    assert result.state("tier per user").keys() == spent.keys()
    for states in result.states:
        assert states["total per user"].keys() == states["tier per user"].keys()
        assert states["total per user"]


def test_both_sinks_get_every_event(result: testing.Result) -> None:
    assert len(result.values(0)) == len(result.encoded(0)) + len(result.encoded(1))
    assert len(result.values(1)) == len(result.values(0))


# The generator


def test_new_users_keep_arriving() -> None:
    found = [purchase.user for purchase in purchases(users.Shop(10_000, 1))]
    assert len(found) == 10_000
    known: set[str] = set()
    for start in range(0, len(found), 1000):
        new = set(found[start : start + 1000]) - known
        assert 150 < len(new) < 250
        known |= new


def test_a_seed_decides_the_purchases() -> None:
    first, same, other = (purchases(users.Shop(50, seed)) for seed in (1, 1, 2))
    assert first == same
    assert first != other


def test_a_shop_goes_on_from_a_copy_of_its_attributes() -> None:
    shop = users.Shop(100, 1)
    for _ in range(40):
        shop.initial_value()
    assert all(type(value) is int for value in vars(shop).values())
    later = copy.copy(shop)
    assert purchases(shop) == purchases(later)


# The steps, as plain functions


def test_add_up_keeps_a_total() -> None:
    total = users.Total()
    spent = [users.add_up(users.Purchase("ann", cents), total).total for cents in (100, 250)]
    assert spent == [100, 350]
    assert users.by_user(users.Purchase("ann", 1)) == "ann"


def test_a_tier_is_told_only_when_it_changes() -> None:
    tier = users.Tier()
    totals = [1, 24_999, 25_000, 99_999, 100_000, 200_000]
    changes = [users.change_tier(users.Spent("ann", total), tier) for total in totals]
    assert changes == [
        users.Change("ann", 1, "", "bronze"),
        None,
        users.Change("ann", 25_000, "bronze", "silver"),
        None,
        users.Change("ann", 100_000, "silver", "gold"),
        None,
    ]


def test_a_change_leaves_the_old_tier_and_enters_the_new() -> None:
    move = users.Move
    assert users.moves(users.Change("ann", 1, "", "bronze")) == [move("bronze", 1)]
    both = users.moves(users.Change("ann", 1, "bronze", "gold"))
    assert both == [move("bronze", -1), move("gold", 1)]
    count = users.Count()
    counted = [users.count_members(move("gold", by), count).members for by in (1, 1, -1)]
    assert counted == [1, 2, 1]
    assert users.by_tier(move("gold", 1)) == "gold"


def test_each_encoder_takes_its_own_kind_of_event() -> None:
    change, members = users.Change("ann", 5, "", "bronze"), users.Members("bronze", 3)
    assert users.encode_change(change) == "ann: new -> bronze at 5\n"
    assert users.encode_change(members) is None
    assert users.encode_members(members) == '{"tier": "bronze", "members": 3}\n'
    assert users.encode_members(change) is None


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--events", "0"], "--events must be at least 1, not 0"),
        (["--events", "many"], "users: argument --events: invalid int value: 'many'"),
        (["file"], "users: unrecognized arguments: file"),
    ],
)
def test_wrong_arguments_are_told(args: list[str], message: str) -> None:
    with pytest.raises(wallaroo.WallarooParameterError, match=re.escape(message)):
        users.application_setup(["folder/users", *args])
