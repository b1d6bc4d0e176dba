"""How campaigns stack: order, groups, caps after multiplication, funders' shares; pure tables and properties."""

from datetime import UTC, datetime
from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from points.earning.model import Campaign, LotTerms, Rate, Share
from points.earning.rules import (
    RULE,
    RuleVersionStale,
    beginning_of_points,
    check_rule_version,
    end_of_points,
    fen_per_point,
    rule_at,
)
from points.earning.stacking import Bonus, affordable, bonus_points, choose, cost_of, split

TERMS = LotTerms(unit_cost_e6=1_000_000, validity_months=24)


def share(ppm: int, *, funder_id: int = 1, unit_cost_e6: int = 1_000_000) -> Share:
    return Share(share_ppm=ppm, terms=replace(TERMS, funder_id=funder_id, unit_cost_e6=unit_cost_e6))


def campaign(code: str = "some", **changes: Any) -> Campaign:
    fields: dict[str, Any] = {
        "id": UUID(int=1),
        "code": code,
        "state": "running",
        "priority": 100,
        "starts_at": datetime(2026, 11, 1, tzinfo=UTC),
        "ends_at": datetime(2026, 12, 1, tzinfo=UTC),
        "shares": (share(1_000_000),),
    }
    if "fixed_points" not in changes:
        fields["multiplier_pct"] = 200
    return Campaign(**fields | changes)


@pytest.mark.parametrize(
    ("terms", "amount_fen", "rate", "points"),
    [
        ({"multiplier_pct": 200}, 129_900, 100, 1_299),
        # half of the base more, floored once
        ({"multiplier_pct": 150}, 129_900, 100, 649),
        ({"multiplier_pct": 101}, 9_999, 100, 0),
        ({"multiplier_pct": 300}, 50, 100, 1),
        ({"multiplier_pct": 200}, 129_900, 250, 519),
        ({"multiplier_pct": 200, "transaction_cap_points": 500}, 129_900, 100, 500),
        ({"fixed_points": 88}, 0, 100, 88),
        ({"fixed_points": 88, "transaction_cap_points": 80}, 0, 100, 80),
    ],
)
def test_a_campaign_multiplies_the_base_without_the_tier_and_is_capped_afterwards(
    terms: dict[str, Any], amount_fen: int, rate: int, points: int
) -> None:
    assert bonus_points(campaign(**terms), amount_fen, rate) == points


@pytest.mark.parametrize(
    ("offered", "named", "chosen"),
    [
        # by priority, then by code
        ([("b", 2, None, 5), ("a", 2, None, 5), ("c", 1, None, 5)], None, ["c", "a", "b"]),
        # nothing is no component
        ([("a", 1, None, 0), ("b", 1, None, 5)], None, ["b"]),
        # the best of a group; the earlier of equals
        ([("a", 1, "x", 5), ("b", 2, "x", 9), ("c", 3, "y", 1)], None, ["b", "c"]),
        ([("a", 2, "x", 9), ("b", 1, "x", 9)], None, ["b"]),
        # what the partner counts on is the best of its group
        ([("a", 1, "x", 5), ("b", 2, "x", 9)], "a", ["a"]),
        ([("a", 1, "x", 0), ("b", 2, "x", 9)], "a", ["b"]),
    ],
)
def test_the_order_is_fixed_and_of_a_group_one_applies(
    offered: list[tuple[str, int, str | None, int]], named: str | None, chosen: list[str]
) -> None:
    bonuses = [
        Bonus(campaign=campaign(code, priority=priority, exclusive_group=group), points=points)
        for code, priority, group, points in offered
    ]
    assert [bonus.campaign.code for bonus in choose(bonuses, named)] == chosen


@pytest.mark.parametrize(
    ("points", "ppm", "parts"),
    [
        (100, [1_000_000], [100]),
        (100, [500_000, 500_000], [50, 50]),
        (101, [500_000, 500_000], [51, 50]),
        (1, [300_000, 700_000], [0, 1]),
        (10, [333_333, 333_333, 333_334], [3, 3, 4]),
        (2, [333_333, 333_333, 333_334], [1, 0, 1]),
    ],
)
def test_shares_go_by_the_largest_remainder(points: int, ppm: list[int], parts: list[int]) -> None:
    assert split(points, [share(one) for one in ppm]) == parts


@st.composite
def shares(draw: st.DrawFn) -> tuple[Share, ...]:
    cuts = sorted(draw(st.sets(st.integers(1, 999_999), max_size=5)))
    edges = [0, *cuts, 1_000_000]
    return tuple(
        share(high - low, funder_id=number, unit_cost_e6=draw(st.integers(0, 3_000_000)))
        for number, (low, high) in enumerate(pairwise(edges), 1)
    )


@given(points=st.integers(0, 10**9), shares=shares())
def test_shares_make_up_the_points_and_are_off_by_less_than_one(
    points: int, shares: tuple[Share, ...]
) -> None:
    parts = split(points, shares)
    assert sum(parts) == points
    assert all(
        abs(part * 1_000_000 - points * one.share_ppm) < 1_000_000
        for part, one in zip(parts, shares, strict=True)
    )


@given(points=st.integers(0, 10**6), budget=st.integers(0, 10**7), shares=shares())
def test_what_is_affordable_costs_no_more_than_there_is(
    points: int, budget: int, shares: tuple[Share, ...]
) -> None:
    some = campaign(shares=shares, budget_unit="fen")
    found = affordable(some, points, budget)
    assert 0 <= found <= points
    assert cost_of(some, found) <= budget


def test_a_budget_of_points_is_used_to_the_last() -> None:
    assert affordable(campaign(budget_unit="points"), 100, 37) == 37


RATED = replace(
    RULE,
    rates=(
        Rate(category="tobacco", fen_per_point=None),
        Rate(kind="tax", fen_per_point=None),
        Rate(kind="purchase", own_card=True, fen_per_point=50),
        Rate(category="books", fen_per_point=25),
    ),
)


@pytest.mark.parametrize(
    ("kind", "category", "own_card", "rate"),
    [
        ("purchase", None, False, 100),
        ("purchase", None, True, 50),
        # the first that fits decides
        ("purchase", "books", True, 50),
        ("purchase", "books", False, 25),
        ("medical", "books", True, 25),
        # excluded
        ("purchase", "tobacco", True, None),
        ("tax", "books", False, None),
        ("medical", None, True, 100),
    ],
)
def test_the_first_rate_that_fits_decides(
    kind: str, category: str | None, own_card: bool, rate: int | None
) -> None:
    assert fen_per_point(RATED, kind=kind, category=category, own_card=own_card) == rate


def test_the_version_in_force_is_the_one_of_the_moment() -> None:
    begins = datetime(2026, 11, 20, 4, 0, tzinfo=UTC)
    rules = [RULE, replace(RULE, version=2, in_force_from=begins)]
    assert rule_at(rules, datetime(2026, 11, 20, 3, 59, 59, 999_999, tzinfo=UTC)).version == 1
    assert rule_at(rules, begins).version == 2
    check_rule_version(2, rules[1])
    with pytest.raises(RuleVersionStale) as refused:
        check_rule_version(1, rules[1])
    assert refused.value.facts == {"rule_version": 2}


NOW = datetime(2026, 1, 31, 4, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("occurred_at", "months", "expiry", "ends_at"),
    [
        # 31 January and a month is 28 February, to its end; 29 February where there is one
        (NOW, 1, "same_day", datetime(2026, 2, 28, 16, 0, tzinfo=UTC)),
        (NOW, 25, "same_day", datetime(2028, 2, 29, 16, 0, tzinfo=UTC)),
        (NOW, 1, "end_of_month", datetime(2026, 2, 28, 16, 0, tzinfo=UTC)),
        (datetime(2024, 2, 29, 4, 0, tzinfo=UTC), 24, "same_day", datetime(2026, 2, 28, 16, 0, tzinfo=UTC)),
        # late news: never born expired
        (datetime(2025, 1, 1, 4, 0, tzinfo=UTC), 1, "same_day", datetime(2026, 1, 31, 16, 0, tzinfo=UTC)),
    ],
)
def test_validity_clamps_to_the_end_of_the_month(
    occurred_at: datetime, months: int, expiry: Any, ends_at: datetime
) -> None:
    terms = replace(TERMS, validity_months=months, expiry=expiry)
    assert end_of_points(occurred_at, NOW, terms) == ends_at


@pytest.mark.parametrize(
    ("occurred_at", "days", "begins_at"),
    [
        (NOW, 0, None),
        # effective next day: from the next midnight in Shanghai, the end of a month or not
        (NOW, 1, datetime(2026, 1, 31, 16, 0, tzinfo=UTC)),
        (NOW, 7, datetime(2026, 2, 6, 16, 0, tzinfo=UTC)),
        # reported late: the days are over
        (datetime(2026, 1, 29, 4, 0, tzinfo=UTC), 1, None),
        (datetime(2026, 1, 29, 4, 0, tzinfo=UTC), 3, datetime(2026, 1, 31, 16, 0, tzinfo=UTC)),
    ],
)
def test_pending_points_begin_at_a_midnight_in_shanghai(
    occurred_at: datetime, days: int, begins_at: datetime | None
) -> None:
    assert beginning_of_points(occurred_at, NOW, replace(TERMS, pending_days=days)) == begins_at


@given(
    occurred=st.integers(0, 730 * 24),
    days=st.integers(0, 27),
    months=st.integers(1, 30),
    expiry=st.sampled_from(["end_of_month", "same_day"]),
)
def test_points_begin_before_they_end(occurred: int, days: int, months: int, expiry: Any) -> None:
    occurred_at = datetime.fromtimestamp(NOW.timestamp() - occurred * 3_600, tz=UTC)
    terms = replace(TERMS, pending_days=days, validity_months=months, expiry=expiry)
    begins_at = beginning_of_points(occurred_at, NOW, terms)
    assert (begins_at or NOW) < end_of_points(occurred_at, NOW, terms)
