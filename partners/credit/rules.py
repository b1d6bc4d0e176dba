"""Pure decisions about credit: whether it is given, where a plan stands, who bears which fen."""

from collections.abc import Sequence
from datetime import datetime

from kernel.calendar import rfc3339
from kernel.errors import Conflict, Unprocessable
from partners.credit.model import Decision, FunderAmount, FundingKind, FundingShare, Plan, PlanState

RULE_VERSION = "limit-2026-11"
LIMIT_FEN = 5_000_000
REFERRAL_FEN = 3_000_000

_MILLION = 1_000_000
_CAPTURABLE = ("authorised", "partially_captured")
_REFUNDABLE = ("partially_captured", "active", "overdue", "paid_off", "fully_refunded")


class PlanNotCapturable(Conflict):
    """The plan has nothing left to capture in its present state."""


class AuthorisationExpired(Conflict):
    """The authorisation has lapsed; ask the member to accept a new quote."""


class CaptureExceedsAuthorisation(Unprocessable):
    """The capture is larger than what is still authorised."""


class PlanNotVoidable(Conflict):
    """Only a plan of which nothing was captured can be voided; refund it instead."""


class PlanNotRefundable(Conflict):
    """The plan cannot be refunded in its present state; void it if nothing was captured."""


class RefundExceedsCaptured(Unprocessable):
    """The refund is larger than what of the order has not been refunded yet."""


class NothingToRepay(Conflict):
    """The plan has no instalment left to pay."""


def decide_application(amount_fen: int, *, limit_fen: int, used_fen: int) -> Decision:
    """Decline over the member's limit, refer a large amount to a person, approve the rest."""
    if used_fen + amount_fen > limit_fen:
        return Decision(
            outcome="declined", reason_codes=("limit_exceeded",), limit_fen=limit_fen, used_fen=used_fen
        )
    if amount_fen > REFERRAL_FEN:
        return Decision(
            outcome="referred", reason_codes=("large_amount",), limit_fen=limit_fen, used_fen=used_fen
        )
    return Decision(
        outcome="approved", reason_codes=("within_limit",), limit_fen=limit_fen, used_fen=used_fen
    )


def check_capture(plan: Plan, amount_fen: int | None, *, now: datetime) -> int:
    """The principal to capture: what was asked, or everything left."""
    if plan.state not in _CAPTURABLE:
        raise PlanNotCapturable(state=plan.state)
    if plan.authorised_until <= now:
        raise AuthorisationExpired(authorised_until=rfc3339(plan.authorised_until))
    amount_fen = plan.uncaptured_fen if amount_fen is None else amount_fen
    if not 0 < amount_fen <= plan.uncaptured_fen:
        raise CaptureExceedsAuthorisation(amount_fen=amount_fen, uncaptured_fen=plan.uncaptured_fen)
    return amount_fen


def check_void(plan: Plan) -> None:
    """A void undoes an authorisation, never a capture."""
    if plan.state != "authorised":
        raise PlanNotVoidable(state=plan.state)


def check_refund(plan: Plan, amount_fen: int) -> None:
    """Cart value comes back once, and only after some of it was captured."""
    if plan.state not in _REFUNDABLE:
        raise PlanNotRefundable(state=plan.state)
    left_fen = plan.total_fen - plan.refunded_fen
    if amount_fen > left_fen:
        raise RefundExceedsCaptured(amount_fen=amount_fen, refundable_fen=left_fen)


def settle_state(plan: Plan) -> PlanState:
    """Where a plan stands after a capture, a refund or a repayment, by its totals alone."""
    if plan.refunded_fen == plan.total_fen:
        return "fully_refunded"
    if plan.uncaptured_fen:
        return "partially_captured"
    if not plan.outstanding_fen:
        return "paid_off"
    return "active"


def share_out(
    amount_fen: int, kind: FundingKind, funding: Sequence[FundingShare]
) -> tuple[FunderAmount, ...]:
    """Each funder's part of `amount_fen`, in their order; the last takes what is left.

    Each takes a floor of the rest, so no part shrinks when the amount grows by a fen: parts of a running total can be
    posted as differences.
    """
    shares = sorted((share for share in funding if share.kind == kind), key=lambda share: share.order)
    parts: list[FunderAmount] = []
    left_fen = amount_fen
    for share in shares[:-1]:
        part_fen = left_fen * share.share_ppm // _MILLION
        part_fen = part_fen if share.cap_fen is None else min(part_fen, share.cap_fen)
        parts.append(FunderAmount(funder=share.funder, amount_fen=part_fen))
        left_fen -= part_fen
    if shares:
        parts.append(FunderAmount(funder=shares[-1].funder, amount_fen=left_fen))
    return tuple(parts)


def subsidy_of(principal_fen: int, *, ppm_per_period: int, periods: int) -> int:
    """What funders pay for the customer's lower rate on a principal."""
    return principal_fen * ppm_per_period * periods // _MILLION


def difference(after: Sequence[FunderAmount], before: Sequence[FunderAmount]) -> tuple[FunderAmount, ...]:
    """What each funder's part grew by; both share out the same kind among the same funders."""
    return tuple(
        FunderAmount(funder=new.funder, amount_fen=new.amount_fen - old.amount_fen)
        for new, old in zip(after, before, strict=True)
    )
