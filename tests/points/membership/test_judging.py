"""Which tier follows from the levels, and when it may fall, as tables."""

from datetime import UTC, date, datetime, timedelta
from typing import Any, get_args

import pytest

from kernel.caller import MemberRef
from points.membership.model import (
    BANK_LEVELS,
    SHOP_LEVELS,
    TIERS,
    BankLevel,
    Cause,
    Cell,
    Inputs,
    Kept,
    Matrix,
    Reason,
    Rules,
    Scheme,
    ShopLevel,
    Threshold,
    Tier,
    Window,
)
from points.membership.rules import (
    CHANGES,
    end_of_tier,
    judge,
    kept_as,
    month_of,
    progress_of,
    shop_level_of,
    window_of,
)

ROWS: dict[BankLevel, tuple[tuple[Tier, int], ...]] = {
    "express": (("start", 100), ("bronze", 105), ("bronze", 110), ("silver", 120)),
    "comm": (("bronze", 105), ("bronze", 115), ("silver", 125), ("gold", 135)),
    "wode": (("silver", 125), ("silver", 135), ("gold", 145), ("platinum", 160)),
    "private": (("gold", 150), ("gold", 160), ("platinum", 175), ("platinum", 200)),
}
MATRIX = Matrix(
    version=1,
    cells={
        (bank, shop): Cell(tier=tier, multiplier_pct=pct)
        for bank, row in ROWS.items()
        for shop, (tier, pct) in zip(SHOP_LEVELS, row, strict=True)
    },
)
SCHEME = Scheme(
    version=1,
    window_kind="rolling",
    window_months=12,
    needs="all",
    validity_months=12,
    grace_days=30,
    levels={
        "bronze": Threshold(min_fen=1_000, min_count=2),
        "silver": Threshold(min_fen=2_000, min_count=4),
        "gold": Threshold(min_fen=3_000, min_count=8),
    },
)
RULES = Rules(matrix=MATRIX, scheme=SCHEME)
#: what the activity of each shop level is at least
ACTIVITY: dict[ShopLevel, tuple[int, int]] = {
    "iron": (0, 0),
    "bronze": (1_000, 2),
    "silver": (2_000, 4),
    "gold": (3_000, 8),
}

DAY = date(2026, 11, 20)
#: the end of DAY in Shanghai
AT = datetime(2026, 11, 20, 16, 0, tzinfo=UTC)
LATER = AT + timedelta(microseconds=1)
GRACE_OVER = AT - timedelta(days=30)


def inputs(
    held: tuple[BankLevel, ShopLevel], now: tuple[BankLevel, ShopLevel], until: datetime, **changes: Any
) -> Inputs:
    """A member whose tier was made by `held` and whose levels make `now` today."""
    cell = MATRIX.cells[held]
    fen, count = ACTIVITY[now[1]]
    given: dict[str, Any] = {
        "member": MemberRef(member_id=1, bucket=1),
        "period_no": 1,
        "tier": cell.tier,
        "multiplier_pct": cell.multiplier_pct,
        "shop_level": held[1],
        "valid_until": until,
        "bank_level": now[0],
        "qualifying_fen": fen,
        "qualifying_count": count,
    }
    return Inputs(**given | changes)


# (why, cause, levels held, levels today, valid until, reason, tier, multiplier)
JUDGED: list[tuple[str, Cause, Any, Any, datetime, Reason | Kept, Tier, int]] = [
    ("the same levels", "evaluation", ("comm", "silver"), ("comm", "silver"), LATER, "qualified", "silver", 125),
    ("more activity", "news", ("comm", "iron"), ("comm", "silver"), LATER, "upgraded", "silver", 125),
    ("two tiers at once", "news", ("express", "iron"), ("express", "gold"), LATER, "upgraded", "silver", 120),
    ("more of the same tier", "news", ("express", "bronze"), ("express", "silver"), LATER, "upgraded", "bronze", 110),
    ("more at the evaluation", "evaluation", ("comm", "iron"), ("comm", "gold"), LATER, "upgraded", "gold", 135),
    ("more although the validity is over", "evaluation", ("comm", "iron"), ("comm", "gold"), AT, "upgraded", "gold", 135),
    ("a better bank level meets the shop level held", "news", ("comm", "gold"), ("wode", "iron"), LATER,
     "upgraded", "platinum", 160),
    ("and in the grace", "news", ("comm", "gold"), ("wode", "iron"), AT - timedelta(days=1), "upgraded", "platinum", 160),
    ("and not afterwards", "evaluation", ("comm", "gold"), ("wode", "iron"), GRACE_OVER, "downgraded", "silver", 125),
    ("less within the validity", "evaluation", ("comm", "gold"), ("comm", "iron"), LATER, "protected", "gold", 135),
    ("a worse bank level within the validity", "evaluation", ("private", "gold"), ("express", "gold"), LATER,
     "protected", "platinum", 200),
    ("less as news", "news", ("comm", "gold"), ("comm", "iron"), GRACE_OVER, "grace", "gold", 135),
    ("less in the grace", "evaluation", ("comm", "gold"), ("comm", "iron"), AT, "grace", "gold", 135),
    ("less on the last day of the grace", "evaluation", ("comm", "gold"), ("comm", "iron"),
     GRACE_OVER + timedelta(microseconds=1), "grace", "gold", 135),
    ("less after the grace: the next tier, with the least it multiplies", "evaluation", ("comm", "gold"),
     ("comm", "iron"), GRACE_OVER, "downgraded", "silver", 120),
    ("at most one tier down", "evaluation", ("private", "gold"), ("express", "iron"), GRACE_OVER,
     "downgraded", "gold", 135),
    ("one tier down to what the levels make", "evaluation", ("comm", "silver"), ("comm", "iron"), GRACE_OVER,
     "downgraded", "bronze", 105),
    ("the same when the validity ends", "evaluation", ("comm", "silver"), ("comm", "silver"), AT, "renewed", "silver", 125),
    ("the same tier that multiplies less", "evaluation", ("comm", "bronze"), ("comm", "iron"), AT,
     "renewed", "bronze", 105),
    ("which is protected before", "evaluation", ("comm", "bronze"), ("comm", "iron"), LATER, "protected", "bronze", 115),
    ("news do not renew", "news", ("comm", "silver"), ("comm", "silver"), AT, "grace", "silver", 125),
    ("fraud takes all at once", "fraud", ("private", "gold"), ("express", "iron"), LATER, "fraud", "start", 100),
    ("fraud takes a multiplier", "fraud", ("comm", "bronze"), ("comm", "iron"), LATER, "fraud", "bronze", 105),
    ("fraud gives nothing", "fraud", ("comm", "iron"), ("comm", "gold"), LATER, "qualified", "bronze", 105),
    ("fraud leaves what the levels make", "fraud", ("comm", "gold"), ("comm", "gold"), LATER, "qualified", "gold", 135),
]  # fmt: skip


@pytest.mark.parametrize(
    ("why", "cause", "held", "now", "until", "reason", "tier", "multiplier_pct"),
    JUDGED,
    ids=[row[0] for row in JUDGED],
)
def test_the_tier_follows_in_the_documented_order(
    why: str,
    cause: Cause,
    held: Any,
    now: Any,
    until: datetime,
    reason: Reason | Kept,
    tier: Tier,
    multiplier_pct: int,
) -> None:
    verdict = judge(inputs(held, now, until), RULES, day=DAY, cause=cause)
    assert (verdict.reason, verdict.tier, verdict.multiplier_pct) == (reason, tier, multiplier_pct)
    if reason not in CHANGES:
        assert verdict.valid_until == until


def test_every_reason_is_in_the_table() -> None:
    assert {row[5] for row in JUDGED} == {*get_args(Reason), *get_args(Kept)} - {"enrolled"}


@pytest.mark.parametrize("held", [(bank, shop) for bank in BANK_LEVELS for shop in SHOP_LEVELS])
def test_an_evaluation_takes_one_tier_and_the_second_of_the_day_nothing(
    held: tuple[BankLevel, ShopLevel],
) -> None:
    before = inputs(held, ("express", "iron"), GRACE_OVER)
    verdict = judge(before, RULES, day=DAY, cause="evaluation")
    assert TIERS.index(before.tier) - TIERS.index(verdict.tier) <= 1
    after = inputs(
        held,
        ("express", "iron"),
        verdict.valid_until,
        tier=verdict.tier,
        multiplier_pct=verdict.multiplier_pct,
        shop_level=verdict.shop_level,
    )
    assert judge(after, RULES, day=DAY, cause="evaluation").reason not in CHANGES


def test_the_banks_news_do_not_prolong_a_shop_level() -> None:
    verdict = judge(inputs(("comm", "gold"), ("wode", "iron"), LATER), RULES, day=DAY, cause="news")
    assert (verdict.shop_level, verdict.valid_until) == ("gold", LATER)
    verdict = judge(inputs(("comm", "gold"), ("wode", "gold"), LATER), RULES, day=DAY, cause="news")
    assert verdict.valid_until == end_of_tier(SCHEME, DAY)


def test_a_step_down_skips_tiers_that_the_matrix_does_not_know() -> None:
    cells = {
        pair: Cell(tier="start", multiplier_pct=100) if cell.tier in ("silver", "bronze") else cell
        for pair, cell in MATRIX.cells.items()
    }
    rules = Rules(matrix=Matrix(version=2, cells=cells), scheme=SCHEME)
    member = inputs(("comm", "gold"), ("comm", "iron"), GRACE_OVER)
    verdict = judge(member, rules, day=DAY, cause="evaluation")
    assert (verdict.tier, verdict.judged_tier) == ("start", "start")


@pytest.mark.parametrize(
    ("needs", "fen", "count", "level"),
    [
        ("all", 999, 100, "iron"),
        ("all", 1_000, 1, "iron"),
        ("all", 1_000, 2, "bronze"),
        ("all", 10**12, 3, "bronze"),
        ("all", 2_000, 4, "silver"),
        ("all", 3_000, 8, "gold"),
        ("any", 999, 1, "iron"),
        ("any", 1_000, 0, "bronze"),
        ("any", 0, 4, "silver"),
        ("any", 3_000, 0, "gold"),
    ],
)
def test_a_shop_level_takes_all_or_any_of_its_thresholds(
    needs: Any, fen: int, count: int, level: ShopLevel
) -> None:
    scheme = Scheme(
        **{field: getattr(SCHEME, field) for field in SCHEME.__struct_fields__} | {"needs": needs}
    )
    assert shop_level_of(scheme, fen=fen, count=count) == level


def scheme_of(window_kind: str, months: int, validity: int = 12) -> Scheme:
    return Scheme(
        version=2,
        window_kind=window_kind,  # type: ignore[arg-type]  # a table of tests
        window_months=months,
        needs="all",
        validity_months=validity,
        grace_days=0,
        levels=SCHEME.levels,
    )


@pytest.mark.parametrize(
    ("window_kind", "months", "day", "start_on", "end_on"),
    [
        ("rolling", 12, "2026-11-20", "2025-12-01", "2026-12-01"),
        ("rolling", 12, "2026-01-31", "2025-02-01", "2026-02-01"),
        ("rolling", 12, "2028-02-29", "2027-03-01", "2028-03-01"),
        ("rolling", 1, "2026-12-31", "2026-12-01", "2027-01-01"),
        ("rolling", 3, "2026-01-01", "2025-11-01", "2026-02-01"),
        ("calendar", 12, "2026-01-01", "2026-01-01", "2026-02-01"),
        ("calendar", 12, "2026-12-31", "2026-01-01", "2027-01-01"),
    ],
)
def test_windows_are_whole_months_and_half_open(
    window_kind: str, months: int, day: str, start_on: str, end_on: str
) -> None:
    window = window_of(scheme_of(window_kind, months), date.fromisoformat(day))
    assert window == Window(start_on=date.fromisoformat(start_on), end_on=date.fromisoformat(end_on))


@pytest.mark.parametrize(
    ("occurred_at", "month"),
    [
        ("2026-01-31T23:59:59.999999+08:00", "2026-01-01"),
        ("2026-02-01T00:00:00+08:00", "2026-02-01"),
        ("2026-01-31T16:00:00+00:00", "2026-02-01"),
        ("2026-02-28T15:59:59+00:00", "2026-02-01"),
        ("2025-12-31T16:00:00+00:00", "2026-01-01"),
    ],
)
def test_activity_counts_in_its_month_in_shanghai(occurred_at: str, month: str) -> None:
    assert month_of(datetime.fromisoformat(occurred_at)) == date.fromisoformat(month)


@pytest.mark.parametrize(
    ("window_kind", "day", "until"),
    [
        ("rolling", "2026-11-20", "2027-11-20T16:00:00+00:00"),
        ("rolling", "2028-02-29", "2029-02-28T16:00:00+00:00"),
        ("rolling", "2026-12-31", "2027-12-31T16:00:00+00:00"),
        ("calendar", "2026-01-01", "2027-12-31T16:00:00+00:00"),
        ("calendar", "2026-12-31", "2027-12-31T16:00:00+00:00"),
    ],
)
def test_a_tier_holds_to_the_end_of_its_last_day(window_kind: str, day: str, until: str) -> None:
    assert end_of_tier(scheme_of(window_kind, 12), date.fromisoformat(day)) == datetime.fromisoformat(until)


def test_progress_names_the_next_level_and_what_is_missing() -> None:
    member = inputs(("comm", "iron"), ("comm", "bronze"), LATER, qualifying_fen=1_500, qualifying_count=9)
    progress = progress_of(member, RULES, day=DAY)
    assert progress is not None
    assert (progress.shop_level, progress.tier) == ("silver", "silver")
    assert (progress.missing_fen, progress.missing_count) == (500, 0)
    assert progress_of(inputs(("comm", "iron"), ("comm", "gold"), LATER), RULES, day=DAY) is None


@pytest.mark.parametrize(
    ("now", "until", "kept"),
    [(("comm", "gold"), AT, "qualified"), (("comm", "iron"), LATER, "protected"), (("comm", "iron"), AT, "grace")],
)  # fmt: skip
def test_what_keeps_a_tier_is_said(now: Any, until: datetime, kept: Kept) -> None:
    assert kept_as(inputs(("comm", "gold"), now, until), RULES, day=DAY) == kept
