"""However a refund is cut into pieces, the books end the same and every piece adds up."""

from collections import Counter
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn
from msgspec import structs

from partners.credit.journal import capture_lines, refund_lines
from partners.credit.model import FundingShare, Line, Plan, PlanTerms, RefundParts, RefundPolicy
from partners.credit.refund_rules import (
    split_cart_value,
    spread_over_captures,
    take_refund_apart,
    uncaptured_value,
)
from partners.credit.rules import check_refund, settle_state
from partners.credit.schedules import reschedule

NOW = datetime(2026, 11, 20, 4, 0, tzinfo=UTC)
NOBODY = UUID(int=1)


@st.composite
def plans(draw: DrawFn) -> Plan:
    """A plan authorised for any mixture of discount, points, down payment and finance, by any funders."""
    parts = [draw(st.integers(0, 5_000)) for _ in range(3)]
    financed_fen = draw(st.integers(1, 50_000))
    funding = [
        FundingShare(
            funder=draw(st.sampled_from(["bank", "merchant", "partner"])),
            kind=kind,
            share_ppm=draw(st.integers(0, 1_000_000)),
            cap_fen=draw(st.none() | st.integers(0, 500)),
            order=order,
        )
        for kind in ("discount", "interest_subsidy")
        for order in range(draw(st.integers(1, 3)))
    ]
    terms = PlanTerms(
        quote_id=NOBODY,
        order_ref="order-1",
        member_sub="sub",
        total_fen=sum(parts) + financed_fen,
        discount_fen=parts[0],
        points=parts[1],
        points_value_fen=parts[1],
        down_payment_fen=parts[2],
        financed_fen=financed_fen,
        periods=draw(st.integers(1, 24)),
        method="interest_free",
        annual_rate_ppm=0,
        fee_ppm_per_period=0,
        residue_on="last",
        day_count="30/360",
        subsidy_ppm_per_period=draw(st.integers(0, 20_000)),
        funding=tuple(funding),
        refund_policy=RefundPolicy(
            allocation="reamortise", interest_refund=draw(st.booleans()), fee_refund=draw(st.booleans())
        ),
        entitlement=None,
    )
    return Plan(
        bucket=1,
        id=NOBODY,
        member_id=1,
        partner_id=NOBODY,
        application_id=NOBODY,
        state="authorised",
        terms=terms,
        hold_id=None,
        total_fen=terms.total_fen,
        financed_fen=financed_fen,
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


def capture(plan: Plan, amount_fen: int) -> tuple[Plan, list[Line]]:
    lines = capture_lines(plan, amount_fen)
    captured = structs.replace(plan, captured_fen=plan.captured_fen + amount_fen, captures=plan.captures + 1)
    return structs.replace(captured, state=settle_state(captured)), lines


def pay(plan: Plan, rows: int) -> Plan:
    """The customer pays some instalments, with interest and fees as if there were any."""
    paid = reschedule(plan)[:rows]
    principal_fen = sum(row.principal_fen for row in paid)
    after = structs.replace(
        plan,
        principal_paid_fen=principal_fen,
        interest_paid_fen=principal_fen // 7,
        fee_paid_fen=principal_fen // 11,
        rows_paid=len(paid),
    )
    return structs.replace(after, state=settle_state(after))


def refund(plan: Plan, amount_fen: int) -> tuple[Plan, RefundParts, list[Line]]:
    check_refund(plan, amount_fen)
    parts = take_refund_apart(plan, amount_fen)
    lines = refund_lines(
        plan, parts, discount_refunded_fen=split_cart_value(plan.terms, plan.refunded_fen).discount_fen
    )
    refunded = structs.replace(
        plan,
        refunded_fen=plan.refunded_fen + amount_fen,
        released_fen=plan.released_fen + parts.uncaptured_released_fen,
        reduced_fen=plan.reduced_fen + parts.principal_reduced_fen,
        returned_fen=plan.returned_fen + parts.cash_to_customer_fen,
    )
    return structs.replace(refunded, state=settle_state(refunded)), parts, lines


def books(lines: list[Line]) -> Counter[tuple[str, str]]:
    """What each funder has on each account, debit less credit."""
    totals: Counter[tuple[str, str]] = Counter()
    for line in lines:
        assert line.amount_fen > 0
        totals[line.debit, line.funder] += line.amount_fen
        totals[line.credit, line.funder] -= line.amount_fen
    return Counter({key: total for key, total in totals.items() if total})


def pieces_of(total_fen: int, cuts: list[int]) -> list[int]:
    ends = sorted({cut % (total_fen + 1) for cut in cuts} | {0, total_fen})
    return [end - start for start, end in pairwise(ends)]


@given(
    plan=plans(),
    captured_ppm=st.lists(st.integers(1, 1_000_000), min_size=1, max_size=3),
    rows_paid=st.integers(0, 24),
    refunded_ppm=st.integers(1, 1_000_000),
    cuts=st.lists(st.integers(0, 10**9), max_size=8),
)
def test_any_pieces_of_a_refund_end_at_the_same_books(
    plan: Plan, captured_ppm: list[int], rows_paid: int, refunded_ppm: int, cuts: list[int]
) -> None:
    posted: list[Line] = []
    for share_ppm in captured_ppm:
        amount_fen = max(1, plan.uncaptured_fen * share_ppm // 1_000_000)
        if plan.uncaptured_fen:
            plan, lines = capture(plan, amount_fen)
            posted += lines
    plan = pay(plan, rows_paid)
    refunded_fen = max(1, plan.total_fen * refunded_ppm // 1_000_000)

    whole, whole_parts, whole_lines = refund(plan, refunded_fen)
    piecewise, pieces, piece_lines = plan, [], list[Line]()
    for amount_fen in pieces_of(refunded_fen, cuts):
        piecewise, parts, lines = refund(piecewise, amount_fen)
        assert amount_fen == (
            parts.uncaptured_released_fen
            + parts.principal_reduced_fen
            + parts.cash_to_customer_fen
            + parts.discount_reversed_fen
            + parts.points_value_fen
            + parts.down_payment_returned_fen
        )
        assert all(value >= 0 for value in structs.astuple(parts)[:8])
        assert all(share.amount_fen >= 0 for share in parts.subsidy_reversed)
        pieces.append(parts)
        piece_lines += lines

    assert piecewise == whole
    assert books(posted + piece_lines) == books(posted + whole_lines)
    for field in ("interest_refund_fen", "fee_refund_fen", "points_value_fen", "discount_reversed_fen"):
        assert sum(getattr(parts, field) for parts in pieces) == getattr(whole_parts, field)


@given(plan=plans(), cuts=st.lists(st.integers(0, 10**9), max_size=5))
def test_a_plan_refunded_in_full_leaves_no_trace_on_any_account(plan: Plan, cuts: list[int]) -> None:
    plan, posted = capture(plan, plan.financed_fen)
    for amount_fen in pieces_of(plan.total_fen, cuts):
        plan, _, lines = refund(plan, amount_fen)
        posted += lines
    assert plan.state == "fully_refunded"
    assert plan.outstanding_fen == plan.uncaptured_fen == 0
    assert not books(posted)


@given(plan=plans(), captured_ppm=st.integers(1, 999_999), refunded_ppm=st.integers(0, 999_999))
def test_what_was_never_captured_can_be_refunded_by_itself(
    plan: Plan, captured_ppm: int, refunded_ppm: int
) -> None:
    plan, _ = capture(plan, max(1, plan.financed_fen * captured_ppm // 1_000_000))
    if refunded_fen := plan.total_fen * refunded_ppm // 1_000_000:
        plan, _, _ = refund(plan, refunded_fen)
    if plan.state == "partially_captured":
        after, parts, _ = refund(plan, uncaptured_value(plan))
        assert parts.uncaptured_released_fen == plan.uncaptured_fen
        assert (parts.principal_reduced_fen, parts.cash_to_customer_fen) == (0, 0)
        assert after.state == "active"


@given(
    captured=st.lists(st.integers(1, 10_000), min_size=1, max_size=5),
    cuts=st.lists(st.integers(0, 10**9), max_size=6),
)
def test_pieces_of_a_refund_undo_each_capture_once(captured: list[int], cuts: list[int]) -> None:
    undone, undone_fen = [0] * len(captured), 0
    for amount_fen in pieces_of(sum(captured), cuts):
        spread = spread_over_captures(captured, undone_fen=undone_fen, amount_fen=amount_fen)
        assert sum(spread) == amount_fen
        undone = [before + more for before, more in zip(undone, spread, strict=True)]
        undone_fen += amount_fen
    assert undone == captured
