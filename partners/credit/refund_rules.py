"""Pure refund arithmetic: running totals decide every part, so any pieces of a refund end at the same books."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate, pairwise

from msgspec import Struct

from partners.credit.model import FunderAmount, Plan, PlanTerms, RefundParts
from partners.credit.rules import difference, share_out, subsidy_of


class CartSplit(Struct, frozen=True, kw_only=True):
    """A cart value taken apart by who had paid it."""

    discount_fen: int
    points_value_fen: int
    down_payment_fen: int
    financed_fen: int


def split_cart_value(terms: PlanTerms, value_fen: int) -> CartSplit:
    """The first `value_fen` of the cart, by who paid; the financed part takes the residues.

    Each part is a floor of what the parts before it left over. Such floors never shrink as the value grows and are
    exact at the whole cart; independent floors would not be (three equal parts of 3 fen, at 2 fen).
    """
    left_fen, whole_fen = value_fen, terms.total_fen
    parts: list[int] = []
    for weight_fen in (terms.discount_fen, terms.points_value_fen, terms.down_payment_fen):
        part_fen = left_fen * weight_fen // whole_fen
        parts.append(part_fen)
        left_fen, whole_fen = left_fen - part_fen, whole_fen - weight_fen
    return CartSplit(
        discount_fen=parts[0], points_value_fen=parts[1], down_payment_fen=parts[2], financed_fen=left_fen
    )


def take_refund_apart(plan: Plan, amount_fen: int) -> RefundParts:
    """What refunding `amount_fen` more of the cart comes to.

    The financed part first releases what was never captured, then reduces what is owed, and only then is money the
    customer has already paid.
    """
    before = split_cart_value(plan.terms, plan.refunded_fen)
    after = split_cart_value(plan.terms, plan.refunded_fen + amount_fen)
    financed_fen = after.financed_fen - before.financed_fen
    released_fen = min(financed_fen, plan.uncaptured_fen)
    reduced_fen = min(financed_fen - released_fen, plan.outstanding_fen)
    cash_fen = financed_fen - released_fen - reduced_fen
    return RefundParts(
        uncaptured_released_fen=released_fen,
        principal_reduced_fen=reduced_fen,
        cash_to_customer_fen=cash_fen,
        discount_reversed_fen=after.discount_fen - before.discount_fen,
        points_value_fen=after.points_value_fen - before.points_value_fen,
        down_payment_returned_fen=after.down_payment_fen - before.down_payment_fen,
        interest_refund_fen=_cost_returned(plan, plan.interest_paid_fen, cash_fen)
        if plan.terms.refund_policy.interest_refund
        else 0,
        fee_refund_fen=_cost_returned(plan, plan.fee_paid_fen, cash_fen)
        if plan.terms.refund_policy.fee_refund
        else 0,
        subsidy_reversed=difference(
            subsidies_on(plan.terms, plan.carried_fen),
            subsidies_on(plan.terms, plan.carried_fen - reduced_fen - cash_fen),
        ),
    )


def uncaptured_value(plan: Plan) -> int:
    """The cart value that releases, when it is refunded, all that was never captured and nothing else.

    A fen more of cart value is at most a fen more of principal, so some values come to it exactly; the greatest leaves
    no odd fen of discount or points with goods that were not delivered.
    """
    wanted_fen = split_cart_value(plan.terms, plan.refunded_fen).financed_fen + plan.uncaptured_fen
    above = bisect_right(
        range(plan.total_fen + 1),
        wanted_fen,
        key=lambda value_fen: split_cart_value(plan.terms, value_fen).financed_fen,
    )
    return above - 1 - plan.refunded_fen


def subsidies_on(terms: PlanTerms, principal_fen: int) -> tuple[FunderAmount, ...]:
    """What each funder pays for the customer's lower rate on captured principal."""
    subsidy_fen = subsidy_of(
        principal_fen, ppm_per_period=terms.subsidy_ppm_per_period, periods=terms.periods
    )
    return share_out(subsidy_fen, "interest_subsidy", terms.funding)


def _cost_returned(plan: Plan, paid_fen: int, cash_fen: int) -> int:
    """The part of a cost paid that belongs to the principal given back."""
    if not cash_fen:
        return 0
    returned_fen = plan.returned_fen
    return (
        paid_fen * (returned_fen + cash_fen) // plan.principal_paid_fen
        - paid_fen * returned_fen // plan.principal_paid_fen
    )


def spread_over_captures(captured: Sequence[int], *, undone_fen: int, amount_fen: int) -> list[int]:
    """How much of each capture a refund undoes, oldest first, after `undone_fen` was undone before."""
    ends = list(accumulate(captured, initial=0))
    return [
        max(0, min(end, undone_fen + amount_fen) - max(start, undone_fen)) for start, end in pairwise(ends)
    ]


def shrink(principals: Sequence[int], *, by_fen: int, from_last: bool) -> list[int]:
    """The principals with `by_fen` taken off from one end."""
    ordered = list(reversed(principals)) if from_last else list(principals)
    left_fen = by_fen
    for at, principal_fen in enumerate(ordered):
        taken_fen = min(principal_fen, left_fen)
        ordered[at] = principal_fen - taken_fen
        left_fen -= taken_fen
    assert not left_fen, "a refund reduces no more than is outstanding"
    return list(reversed(ordered)) if from_last else ordered
