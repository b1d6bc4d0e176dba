"""The decisions about plans, one by one."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from msgspec import structs

from kernel.errors import Refusal
from partners.credit.model import FundingShare, Plan, PlanTerms, RefundPolicy
from partners.credit.refund_rules import shrink, split_cart_value, spread_over_captures
from partners.credit.rules import (
    AuthorisationExpired,
    CaptureExceedsAuthorisation,
    PlanNotCapturable,
    PlanNotRefundable,
    PlanNotVoidable,
    RefundExceedsCaptured,
    check_capture,
    check_refund,
    check_void,
    decide_application,
    settle_state,
    share_out,
)
from partners.credit.schedules import reduce_schedule, reschedule

NOW = datetime(2026, 11, 20, 4, 0, tzinfo=UTC)
NOBODY = UUID(int=1)

TERMS = PlanTerms(
    quote_id=NOBODY,
    order_ref="order-1",
    member_sub="sub",
    total_fen=120_000,
    discount_fen=6_000,
    points=4_000,
    points_value_fen=4_000,
    down_payment_fen=0,
    financed_fen=110_000,
    periods=12,
    method="interest_free",
    annual_rate_ppm=0,
    fee_ppm_per_period=0,
    residue_on="last",
    day_count="30/360",
    subsidy_ppm_per_period=3_000,
    funding=(
        FundingShare(funder="bank", kind="discount", share_ppm=1_000_000),
        FundingShare(funder="merchant", kind="interest_subsidy", share_ppm=1_000_000),
    ),
    refund_policy=RefundPolicy(allocation="reamortise", interest_refund=True, fee_refund=True),
    entitlement=None,
)

PLAN = Plan(
    bucket=1,
    id=NOBODY,
    member_id=1,
    partner_id=NOBODY,
    application_id=NOBODY,
    state="authorised",
    terms=TERMS,
    hold_id=None,
    total_fen=TERMS.total_fen,
    financed_fen=TERMS.financed_fen,
    captured_fen=0,
    refunded_fen=0,
    released_fen=0,
    reduced_fen=0,
    returned_fen=0,
    principal_paid_fen=0,
    interest_paid_fen=0,
    fee_paid_fen=0,
    rows_paid=0,
    captures=0,
    schedule_version=1,
    entries=0,
    starts_on=date(2026, 11, 20),
    authorised_at=NOW,
    authorised_until=NOW + timedelta(days=7),
)


def plan(**changes: Any) -> Plan:
    return structs.replace(PLAN, **changes)


@pytest.mark.parametrize(
    ("amount_fen", "used_fen", "outcome", "reason"),
    [
        (1, 0, "approved", "within_limit"),
        (3_000_000, 0, "approved", "within_limit"),
        (3_000_001, 0, "referred", "large_amount"),
        (1_000_000, 4_000_000, "approved", "within_limit"),
        (1_000_001, 4_000_000, "declined", "limit_exceeded"),
        # Over the limit is declined even where the amount alone would be referred.
        (4_000_000, 2_000_000, "declined", "limit_exceeded"),
    ],
)
def test_an_application_is_declined_over_the_limit_then_referred_when_large(
    amount_fen: int, used_fen: int, outcome: str, reason: str
) -> None:
    decision = decide_application(amount_fen, limit_fen=5_000_000, used_fen=used_fen)
    assert (decision.outcome, decision.reason_codes) == (outcome, (reason,))


@pytest.mark.parametrize(
    ("attempt", "refusal"),
    [
        (lambda: check_capture(plan(state="voided"), None, now=NOW), PlanNotCapturable),
        # The state speaks before the deadline, the deadline before the amount.
        (lambda: check_capture(plan(state="active"), 1, now=NOW + timedelta(days=8)), PlanNotCapturable),
        (lambda: check_capture(plan(), 10**12, now=NOW + timedelta(days=7)), AuthorisationExpired),
        (lambda: check_capture(plan(), 110_001, now=NOW), CaptureExceedsAuthorisation),
        (
            lambda: check_capture(
                plan(state="partially_captured", captured_fen=100_000, released_fen=4_000), 6_001, now=NOW
            ),
            CaptureExceedsAuthorisation,
        ),
        (lambda: check_void(plan(state="partially_captured")), PlanNotVoidable),
        (lambda: check_void(plan(state="voided")), PlanNotVoidable),
        (lambda: check_refund(PLAN, 1), PlanNotRefundable),
        (lambda: check_refund(plan(state="voided"), 1), PlanNotRefundable),
        (lambda: check_refund(plan(state="active"), 120_001), RefundExceedsCaptured),
        (lambda: check_refund(plan(state="active", refunded_fen=1), 120_000), RefundExceedsCaptured),
        (
            lambda: check_refund(plan(state="fully_refunded", refunded_fen=120_000), 1),
            RefundExceedsCaptured,
        ),
    ],
)
def test_the_most_specific_refusal_comes_first(attempt: Callable[[], object], refusal: type[Refusal]) -> None:
    with pytest.raises(refusal):
        attempt()


def test_a_capture_without_amount_takes_what_is_left() -> None:
    left = plan(state="partially_captured", captured_fen=50_000, released_fen=10_000)
    assert check_capture(left, None, now=NOW) == 50_000


@pytest.mark.parametrize(
    ("totals", "state"),
    [
        ({"captured_fen": 1}, "partially_captured"),
        ({"captured_fen": 110_000}, "active"),
        ({"captured_fen": 100_000, "released_fen": 10_000}, "active"),
        ({"captured_fen": 110_000, "principal_paid_fen": 110_000}, "paid_off"),
        ({"captured_fen": 110_000, "reduced_fen": 10_000, "principal_paid_fen": 100_000}, "paid_off"),
        ({"captured_fen": 110_000, "refunded_fen": 120_000, "reduced_fen": 110_000}, "fully_refunded"),
    ],
)
def test_totals_alone_decide_where_a_plan_stands(totals: dict[str, int], state: str) -> None:
    assert settle_state(plan(**totals)) == state


def test_the_last_funder_pays_what_caps_and_shares_leave() -> None:
    funding = [
        FundingShare(funder="merchant", kind="discount", share_ppm=500_000, cap_fen=1_000, order=2),
        FundingShare(funder="bank", kind="discount", share_ppm=300_000, order=1),
        FundingShare(funder="partner", kind="discount", share_ppm=0, order=3),
        FundingShare(funder="bank", kind="interest_subsidy", share_ppm=1_000_000),
    ]
    shares = share_out(10_001, "discount", funding)
    assert [(share.funder, share.amount_fen) for share in shares] == [
        ("bank", 3_000),
        ("merchant", 1_000),
        ("partner", 6_001),
    ]


def test_cart_value_splits_exactly_where_independent_floors_would_not() -> None:
    thirds = structs.replace(TERMS, total_fen=3, discount_fen=1, points=1, points_value_fen=1, financed_fen=1)
    for value_fen in range(4):
        split = split_cart_value(thirds, value_fen)
        parts = (split.discount_fen, split.points_value_fen, split.down_payment_fen, split.financed_fen)
        assert sum(parts) == value_fen
        assert max(parts) <= 1


def test_a_refund_undoes_the_oldest_capture_first() -> None:
    assert spread_over_captures([100, 50, 30], undone_fen=0, amount_fen=120) == [100, 20, 0]
    assert spread_over_captures([100, 50, 30], undone_fen=90, amount_fen=65) == [10, 50, 5]


@pytest.mark.parametrize(("from_last", "left"), [(True, [100, 100, 20, 0]), (False, [0, 20, 100, 100])])
def test_a_refund_shrinks_instalments_from_the_end_the_offer_names(from_last: bool, left: list[int]) -> None:
    assert shrink([100, 100, 100, 100], by_fen=180, from_last=from_last) == left


@pytest.mark.parametrize(
    ("allocation", "principals"),
    [
        ("reamortise", [(3, 6_666), (4, 6_666), (5, 6_666), (6, 6_666), (7, 6_666), (8, 6_666), (9, 6_666),
                        (10, 6_666), (11, 6_666), (12, 6_672)]),
        ("last", [(3, 9_166), (4, 9_166), (5, 9_166), (6, 9_166), (7, 9_166), (8, 9_166), (9, 9_166), (10, 2_504)]),
        ("next", [(5, 2_496), (6, 9_166), (7, 9_166), (8, 9_166), (9, 9_166), (10, 9_166), (11, 9_166),
                  (12, 9_174)]),
    ],
)  # fmt: skip
def test_the_allocation_of_the_offer_decides_which_instalments_shrink(
    allocation: str, principals: list[tuple[int, int]]
) -> None:
    terms = structs.replace(TERMS, refund_policy=structs.replace(TERMS.refund_policy, allocation=allocation))
    running = plan(
        terms=terms, state="active", captured_fen=110_000, rows_paid=2, principal_paid_fen=18_332, captures=1
    )
    rows = reschedule(running)
    # The two instalments paid stay what they were: twelve of 9,166 and the odd 8 fen with the last.
    before = [structs.replace(row, principal_fen=9_166 + (8 if row.no == 12 else 0)) for row in rows]
    by_fen = running.outstanding_fen - 66_666
    refunded = structs.replace(running, reduced_fen=by_fen)
    after = reduce_schedule(refunded, before, by_fen=by_fen)
    assert [(row.no, row.principal_fen) for row in after] == principals
    assert sum(row.principal_fen for row in after) == refunded.outstanding_fen


def test_interest_of_a_reduced_schedule_is_that_of_the_balance_left() -> None:
    terms = structs.replace(
        TERMS,
        method="equal_principal",
        annual_rate_ppm=120_000,
        refund_policy=structs.replace(TERMS.refund_policy, allocation="last"),
    )
    running = plan(terms=terms, state="active", captured_fen=120_000, financed_fen=120_000, captures=1)
    refunded = structs.replace(running, reduced_fen=60_000)
    after = reduce_schedule(refunded, reschedule(running), by_fen=60_000)
    assert [row.interest_fen for row in after] == [600, 500, 400, 300, 200, 100]


def test_a_principal_smaller_than_the_periods_left_is_paid_fen_by_fen() -> None:
    rows = reschedule(plan(state="active", captured_fen=5, captures=1))
    assert [row.principal_fen for row in rows] == [1, 1, 1, 1, 1]
