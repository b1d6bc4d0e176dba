"""Repayment schedules: published figures, the residue rule, month ends, refusals."""

import json
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import ROUND_HALF_EVEN, ROUND_UP, Context, Inexact, localcontext
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partners.credit.calendar import DayCount, list_anchors, year_fractions
from partners.credit.repayment import ResidueOn
from partners.credit.schedule import (
    AnnualRateOutOfRange,
    DownPaymentOutOfRange,
    FeeRateOutOfRange,
    Instalment,
    InterestFreeBearsInterest,
    Method,
    PeriodsOutOfRange,
    PrincipalOutOfRange,
    PrincipalTooSmall,
    RoundingUnitOutOfRange,
    Schedule,
    ScheduleTermInvalid,
    StartDateOutOfRange,
    build_schedule,
)

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "instalments.json").read_text())
#: V2 is a table of unrounded amounts printed to two places: its principals add up to 2,499.99. With the instalment
#: rounded to 217.75 and the principal adding up, the last row cannot help being two fen of principal smaller.
DEVIATIONS = {"V2": {"last_principal_fen": -2, "last_interest_fen": -1, "total_interest_fen": -1}}

EXAMPLE: dict[str, Any] = {
    "principal_fen": 1_000_000,
    "annual_rate_ppm": 120_000,
    "periods": 12,
    "method": "equal_instalment",
    "day_count": "30/360",
    "start_on": date(2026, 1, 31),
}


def build(**changes: Any) -> Schedule:
    return build_schedule(**{**EXAMPLE, **changes})


def build_from_vector(given_input: dict[str, Any]) -> Schedule:
    start_on = date.fromisoformat(given_input.get("start_on", "2024-01-01"))
    return build_schedule(**{"day_count": "30/360", **given_input, "start_on": start_on})


def read_figures(schedule: Schedule) -> dict[str, Any]:
    first, last = schedule.rows[0], schedule.rows[-1]
    return {
        "down_payment_fen": schedule.down_payment_fen,
        "instalment_fen": first.due_fen,
        "due_fen": [row.due_fen for row in schedule.rows],
        "interest_fen": [row.interest_fen for row in schedule.rows],
        "first_principal_fen": first.principal_fen,
        "first_interest_fen": first.interest_fen,
        "last_principal_fen": last.principal_fen,
        "last_interest_fen": last.interest_fen,
        "last_due_fen": last.due_fen,
        "total_interest_fen": schedule.total_interest_fen,
    }


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["id"])
def test_published_schedules_are_met(vector: dict[str, Any]) -> None:
    figures = read_figures(build_from_vector(vector["input"]))
    deviations = DEVIATIONS.get(vector["id"], {})
    for name, expected in vector["expect"].items():
        if name in deviations:
            assert figures[name] - expected == deviations[name], name
        else:
            assert figures[name] == expected, name


def test_every_published_schedule_is_tried() -> None:
    assert {vector["id"] for vector in VECTORS} == {"V2", "V3", "V5", "V7", "V8", "V10", "V11", "V31"}


@pytest.mark.parametrize(
    ("principal_fen", "annual_rate_ppm", "periods", "instalment_fen"),
    [
        (10_000_000, 99_900, 36, 322_625),
        (13_000, 200_000, 12, 1_204),
        (20_000_000, 75_000, 180, 185_402),
    ],
)
def test_level_instalment_matches_published_amounts(
    principal_fen: int, annual_rate_ppm: int, periods: int, instalment_fen: int
) -> None:
    schedule = build(principal_fen=principal_fen, annual_rate_ppm=annual_rate_ppm, periods=periods)
    assert {row.due_fen for row in schedule.rows[:-1]} == {instalment_fen}


def test_plan_rebuilt_midway_carries_on_numbers_and_anchor_day() -> None:
    """4,999 over 12; after three payments 1,000 is refunded and nine rows remain."""
    rebuilt = build(
        principal_fen=274_922, annual_rate_ppm=0, method="interest_free", periods=9, elapsed_periods=3
    )
    assert [row.due_fen for row in rebuilt.rows] == [30_546] * 8 + [30_554]
    assert [row.no for row in rebuilt.rows] == list(range(4, 13))
    assert [row.anchor_on for row in rebuilt.rows] == [row.anchor_on for row in build().rows[3:]]


@dataclass(frozen=True, kw_only=True)
class Terms:
    principal_fen: int
    annual_rate_ppm: int
    periods: int
    method: Method
    day_count: DayCount
    residue_on: ResidueOn
    rounding_unit_fen: int
    fee_ppm_per_period: int
    down_payment_ppm: int
    start_on: date

    def build(self) -> Schedule:
        return build_schedule(**vars(self))


@st.composite
def list_terms(draw: st.DrawFn) -> Terms:
    """Terms that must be accepted, down to one rounding unit per row."""
    periods = draw(st.integers(1, 480) | st.sampled_from([3, 6, 12, 24, 36]))
    unit = draw(st.sampled_from([1, 1, 1, 10, 100]))
    method: Method = draw(st.sampled_from(["equal_instalment", "equal_principal", "interest_free", "bullet"]))
    down_payment_ppm = draw(st.sampled_from([0, 0, 250_000]))
    least = periods * unit * (2 if down_payment_ppm else 1)
    return Terms(
        principal_fen=draw(st.integers(least, least * 10) | st.integers(least, 10**10)),
        annual_rate_ppm=0 if method == "interest_free" else draw(st.integers(0, 360_000)),
        periods=periods,
        method=method,
        day_count=draw(st.sampled_from(["30/360", "act/360", "act/365", "act/act"])),
        residue_on=draw(st.sampled_from(["first", "last"])),
        rounding_unit_fen=unit,
        fee_ppm_per_period=draw(st.sampled_from([0, 0, 6_000])),
        down_payment_ppm=down_payment_ppm,
        start_on=draw(st.dates(date(2025, 1, 1), date(2040, 12, 31))),
    )


@given(list_terms())
def test_principal_adds_up_and_the_number_of_instalments_never_changes(terms: Terms) -> None:
    schedule = terms.build()
    assert schedule.down_payment_fen + schedule.amount_financed_fen == terms.principal_fen
    assert sum(row.principal_fen for row in schedule.rows) == schedule.amount_financed_fen
    assert [row.no for row in schedule.rows] == list(range(1, terms.periods + 1))
    assert schedule.total_interest_fen == sum(row.interest_fen for row in schedule.rows)
    assert schedule.total_fee_fen == sum(row.fee_fen for row in schedule.rows)
    assert schedule.total_payable_fen == sum(row.due_fen for row in schedule.rows)


@given(list_terms())
def test_rows_are_never_negative_and_never_empty(terms: Terms) -> None:
    for row in terms.build().rows:
        assert min(row.principal_fen, row.interest_fen, row.fee_fen) >= 0
        assert row.due_fen == row.principal_fen + row.interest_fen + row.fee_fen
        assert row.due_fen >= 1 or terms.method == "bullet"


@given(list_terms())
def test_interest_of_each_row_is_half_up_on_what_is_outstanding(terms: Terms) -> None:
    """Recomputed day by day with exact fractions, independently of the program's own day counting."""
    schedule = terms.build()
    balance, opened_on = schedule.amount_financed_fen, terms.start_on
    for row in schedule.rows:
        share = share_of_year(opened_on, row.anchor_on, terms.day_count)
        exact = balance * Fraction(terms.annual_rate_ppm, 1_000_000) * share
        assert row.interest_fen == (exact + Fraction(1, 2)).__floor__()
        balance, opened_on = balance - row.principal_fen, row.anchor_on
    assert balance == 0


def share_of_year(start_on: date, end_on: date, day_count: DayCount) -> Fraction:
    days = [start_on + timedelta(days=passed) for passed in range(1, (end_on - start_on).days + 1)]
    if day_count == "30/360":
        return Fraction(1, 12)
    if day_count == "act/act":
        leap = sum(date(day.year, 12, 31).timetuple().tm_yday == 366 for day in days)
        return Fraction(leap, 366) + Fraction(len(days) - leap, 365)
    return Fraction(len(days), 360 if day_count == "act/360" else 365)


@given(list_terms().filter(lambda terms: terms.method in ("equal_principal", "interest_free")))
def test_only_the_named_row_takes_the_residue_of_an_even_split(terms: Terms) -> None:
    principals = [row.principal_fen for row in terms.build().rows]
    named = principals.pop(0 if terms.residue_on == "first" else -1)
    assert len(set(principals)) <= 1
    assert all(principal % terms.rounding_unit_fen == 0 for principal in principals)
    if terms.method == "interest_free" and principals:
        assert principals[0] <= named


@given(
    principal_fen=st.integers(10_000, 10**9),
    annual_rate_ppm=st.integers(0, 240_000),
    periods=st.integers(2, 60),
    residue_on=st.sampled_from(["first", "last"]),
)
def test_only_the_named_row_differs_from_the_level_instalment(
    principal_fen: int, annual_rate_ppm: int, periods: int, residue_on: ResidueOn
) -> None:
    """Named first, a few fen may stay with the last: no whole fen more or less in the first row leaves fewer."""
    schedule = build(
        principal_fen=principal_fen,
        annual_rate_ppm=annual_rate_ppm,
        periods=periods,
        residue_on=residue_on,
    )
    dues = [row.due_fen for row in schedule.rows]
    if residue_on == "last":
        assert len(set(dues[:-1])) == 1
    elif periods > 2:
        assert len(set(dues[1:-1])) == 1
        level, left = dues[1], abs(dues[-1] - dues[1])
        others = [
            last_due(principal_fen, annual_rate_ppm, [dues[0] + step, *dues[1:-1]]) for step in (-2, -1, 1, 2)
        ]
        assert all(left <= abs(other - level) for other in others if other is not None)


def last_due(principal_fen: int, annual_rate_ppm: int, dues: list[int]) -> int | None:
    """What the last of equal months comes to after these; None where a row would not pay its own interest."""
    balance, monthly = principal_fen, Fraction(annual_rate_ppm, 12_000_000)
    for due in dues:
        principal = due - (balance * monthly + Fraction(1, 2)).__floor__()
        if principal < 0 or principal >= balance:
            return None
        balance -= principal
    return balance + (balance * monthly + Fraction(1, 2)).__floor__()


def test_residue_named_first_is_paid_first() -> None:
    last, first = build(periods=36), build(periods=36, residue_on="first")
    assert [row.due_fen for row in last.rows] == [33_214] * 35 + [33_228]
    assert [row.due_fen for row in first.rows] == [33_223] + [33_214] * 35


@pytest.mark.parametrize(
    ("rounding", "dues"),
    [
        (None, [1_666] * 5 + [1_670]),
        ("down", [1_666] * 5 + [1_670]),
        ("nearest", [1_667] * 5 + [1_665]),
        ("up", [1_667] * 5 + [1_665]),
    ],
)
def test_interest_free_rounds_down_unless_told_otherwise(rounding: str | None, dues: list[int]) -> None:
    schedule = build(
        principal_fen=10_000, annual_rate_ppm=0, periods=6, method="interest_free", rounding=rounding
    )
    assert [row.due_fen for row in schedule.rows] == dues


def test_rounding_up_never_leaves_the_named_row_empty() -> None:
    schedule = build(principal_fen=100, annual_rate_ppm=0, periods=60, method="interest_free", rounding="up")
    assert [row.due_fen for row in schedule.rows] == [1] * 59 + [41]


def test_bullet_pays_interest_each_period_and_principal_at_the_end() -> None:
    schedule = build(method="bullet", periods=3)
    assert [(row.principal_fen, row.interest_fen) for row in schedule.rows] == [
        (0, 10_000),
        (0, 10_000),
        (1_000_000, 10_000),
    ]


def test_equal_principal_charges_the_opening_balance() -> None:
    schedule = build(method="equal_principal", periods=4)
    assert [(row.principal_fen, row.interest_fen) for row in schedule.rows] == [
        (250_000, 10_000),
        (250_000, 7_500),
        (250_000, 5_000),
        (250_000, 2_500),
    ]


def test_fee_is_the_same_in_every_row_and_never_called_interest() -> None:
    schedule = build(
        principal_fen=1_200_000, annual_rate_ppm=0, method="interest_free", fee_ppm_per_period=6_000
    )
    assert {(row.fee_fen, row.interest_fen, row.due_fen) for row in schedule.rows} == {(7_200, 0, 107_200)}
    assert schedule.total_fee_fen == 86_400


def test_due_dates_come_from_the_anchor_day() -> None:
    assert [row.anchor_on.isoformat() for row in build(periods=4).rows] == [
        "2026-02-28",
        "2026-03-31",
        "2026-04-30",
        "2026-05-31",
    ]


@given(start_on=st.dates(date(2025, 1, 1), date(2040, 12, 31)), periods=st.integers(1, 480))
def test_month_ends_clamp_and_recover(start_on: date, periods: int) -> None:
    anchors = list_anchors(start_on, elapsed_periods=0, periods=periods)
    for passed, anchor in enumerate(anchors):
        assert (anchor.year * 12 + anchor.month) - (start_on.year * 12 + start_on.month) == passed
        last_of_month = (anchor + timedelta(days=1)).month != anchor.month
        assert anchor.day == start_on.day or (last_of_month and anchor.day < start_on.day)


def test_days_at_new_year_are_counted_after_the_start_through_the_end() -> None:
    anchors = list_anchors(date(2023, 12, 12), elapsed_periods=0, periods=1)
    (fraction,) = year_fractions(anchors, "act/act")
    assert Fraction(*fraction) == Fraction(19, 365) + Fraction(12, 366)


def test_bank_calendar_moves_the_due_date_and_nothing_else() -> None:
    def next_monday(day: date) -> date:
        return day + timedelta(days=-day.weekday() % 7)

    plain, moved = build(day_count="act/365"), build(day_count="act/365", shift=next_monday)
    assert {row.due_on.weekday() for row in moved.rows} == {0}
    assert [strip_due_date(row) for row in moved.rows] == [strip_due_date(row) for row in plain.rows]


def strip_due_date(row: Instalment) -> tuple[object, ...]:
    return row.no, row.anchor_on, row.principal_fen, row.interest_fen, row.fee_fen, row.due_fen


def test_callers_decimal_context_has_no_say() -> None:
    expected = build(periods=36)
    with localcontext(Context(prec=3, rounding=ROUND_UP, traps=[Inexact])):
        assert build(periods=36) == expected
    with localcontext(Context(prec=60, rounding=ROUND_HALF_EVEN)):
        assert build(periods=36) == expected


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"periods": 0}, PeriodsOutOfRange),
        ({"periods": 481}, PeriodsOutOfRange),
        ({"principal_fen": 0}, PrincipalOutOfRange),
        ({"principal_fen": -1}, PrincipalOutOfRange),
        ({"principal_fen": 10**13 + 1}, PrincipalOutOfRange),
        ({"principal_fen": 11}, PrincipalTooSmall),
        ({"principal_fen": 1_199, "rounding_unit_fen": 100}, PrincipalTooSmall),
        ({"principal_fen": 16, "down_payment_ppm": 300_000}, PrincipalTooSmall),
        ({"annual_rate_ppm": -1}, AnnualRateOutOfRange),
        ({"annual_rate_ppm": 10_000_001}, AnnualRateOutOfRange),
        ({"method": "interest_free"}, InterestFreeBearsInterest),
        ({"fee_ppm_per_period": -1}, FeeRateOutOfRange),
        ({"fee_ppm_per_period": 1_000_001}, FeeRateOutOfRange),
        ({"down_payment_ppm": -1}, DownPaymentOutOfRange),
        ({"down_payment_ppm": 1_000_000}, DownPaymentOutOfRange),
        ({"rounding_unit_fen": 0}, RoundingUnitOutOfRange),
        ({"rounding_unit_fen": 10_001}, RoundingUnitOutOfRange),
        ({"start_on": date(1989, 12, 31)}, StartDateOutOfRange),
        ({"start_on": date(9999, 12, 31)}, StartDateOutOfRange),
    ],
)
def test_terms_without_a_schedule_are_refused(
    changes: dict[str, Any], refusal: type[ScheduleTermInvalid]
) -> None:
    with pytest.raises(refusal) as refused:
        build(**changes)
    assert type(refused.value) is refusal


@pytest.mark.parametrize(
    "changes", [{"periods": 480}, {"principal_fen": 12}, {"annual_rate_ppm": 10_000_000}]
)
def test_terms_at_the_edge_are_accepted(changes: dict[str, Any]) -> None:
    schedule = build(**changes)
    assert sum(row.principal_fen for row in schedule.rows) == schedule.amount_financed_fen
