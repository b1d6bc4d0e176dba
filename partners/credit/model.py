"""The words of instalment plans: agreed terms, applications, decisions, plans and what a refund did."""

from datetime import date, datetime
from typing import Literal
from uuid import UUID

from msgspec import Struct

from kernel.caller import MemberRef
from partners.credit.calendar import DayCount
from partners.credit.repayment import ResidueOn
from partners.credit.schedule import Method

Funder = Literal["bank", "merchant", "partner"]
FundingKind = Literal["discount", "interest_subsidy"]
Allocation = Literal["next", "last", "reamortise"]
Outcome = Literal["approved", "approved_lower", "referred", "declined"]
ApplicationState = Literal[
    "created",
    "submitted",
    "in_decision",
    "approved",
    "approved_lower",
    "referred",
    "declined",
    "withdrawn",
    "expired",
]
PlanState = Literal[
    "authorised",
    "partially_captured",
    "active",
    "paid_off",
    "voided",
    "auth_expired",
    "fully_refunded",
    "overdue",
    "charged_off",
]
Cause = Literal["original", "capture", "refund", "prepayment", "reschedule"]
Account = Literal[
    "customer_receivable",
    "customer_cash",
    "merchant_payable",
    "bank_discount_expense",
    "bank_subsidy_expense",
    "subsidy_income",
    "interest_income",
    "fee_income",
]


class FundingShare(Struct, frozen=True, kw_only=True):
    """Who pays for a discount or for the interest the customer is not charged."""

    #: who pays
    funder: Funder
    #: for what
    kind: FundingKind
    #: part of what the funders before left over, in millionths; the last of a kind takes the whole rest
    share_ppm: int
    #: the most this funder pays on one plan; null is no limit
    cap_fen: int | None = None
    #: funders pay in this order
    order: int = 1


class RefundPolicy(Struct, frozen=True, kw_only=True):
    """What happens to the schedule and to costs already paid when goods come back."""

    #: which instalments become smaller: the next ones, the last ones, or all evenly
    allocation: Allocation
    #: whether interest paid on principal given back is returned
    interest_refund: bool
    #: whether fees paid on principal given back are returned
    fee_refund: bool


class EntitlementTerms(Struct, frozen=True, kw_only=True):
    """A right the member gets with the plan's first capture."""

    #: kind of entitlement: `health_consultation`
    kind: str
    #: how many uses
    quantity: int
    #: days from the first capture until it lapses
    valid_days: int


class PlanTerms(Struct, frozen=True, kw_only=True):
    """Everything a quote settled; stored with the plan and never changed."""

    #: the quote these terms come from
    quote_id: UUID
    #: the partner's name for the order
    order_ref: str
    #: the pairwise subject under which the partner knows the member
    member_sub: str
    #: value of the cart
    total_fen: int
    #: taken off the cart
    discount_fen: int
    #: points the member spends
    points: int
    #: what those points pay
    points_value_fen: int
    #: what the member pays the merchant directly
    down_payment_fen: int
    #: the rest: what the plan finances
    financed_fen: int
    #: number of instalments
    periods: int
    #: how the principal comes back
    method: Method
    #: the customer's nominal annual rate
    annual_rate_ppm: int
    #: the customer's fee per period, of the amount financed
    fee_ppm_per_period: int
    #: which instalment takes the odd fen
    residue_on: ResidueOn
    #: how the share of a year is counted
    day_count: DayCount
    #: what funders pay per period for the customer's lower rate, of the amount financed
    subsidy_ppm_per_period: int
    #: who pays for what
    funding: tuple[FundingShare, ...]
    #: what a refund does
    refund_policy: RefundPolicy
    #: what comes with the plan, if anything
    entitlement: EntitlementTerms | None


class Decision(Struct, frozen=True, kw_only=True):
    """What was decided about an application, and why; the reasons never leave the bank."""

    #: the answer
    outcome: Outcome
    #: the rules that led to it
    reason_codes: tuple[str, ...]
    #: the member's credit limit at that moment
    limit_fen: int
    #: how much of it was in use
    used_fen: int


class Application(Struct, frozen=True, kw_only=True):
    """What a member asked for and how it ended."""

    id: UUID
    #: where it stands
    state: ApplicationState
    #: the quote that was accepted
    quote_id: UUID
    #: how much was asked for
    amount_fen: int
    #: over how many instalments
    periods: int
    created_at: datetime
    #: the decision, for the partner: without the reasons
    outcome: Outcome
    decided_at: datetime
    #: the plan that came of it
    plan_id: UUID | None


class Plan(Struct, frozen=True, kw_only=True):
    """A running credit with its totals."""

    bucket: int
    id: UUID
    member_id: int
    partner_id: UUID
    application_id: UUID
    state: PlanState
    terms: PlanTerms
    #: the points reserved with it
    hold_id: UUID | None
    #: value of the cart
    total_fen: int
    #: principal authorised
    financed_fen: int
    #: principal captured
    captured_fen: int
    #: cart value refunded
    refunded_fen: int
    #: principal refunded before it was captured
    released_fen: int
    #: principal refunded while it was owed
    reduced_fen: int
    #: principal refunded after it was paid
    returned_fen: int
    principal_paid_fen: int
    interest_paid_fen: int
    fee_paid_fen: int
    #: instalments paid
    rows_paid: int
    #: captures made
    captures: int
    #: number of the current schedule
    schedule_version: int
    #: entries in the money journal
    entries: int
    #: anchor of the schedule
    starts_on: date
    authorised_at: datetime
    #: captures are possible until then
    authorised_until: datetime

    @property
    def member(self) -> MemberRef:
        return MemberRef(member_id=self.member_id, bucket=self.bucket)

    @property
    def uncaptured_fen(self) -> int:
        return self.financed_fen - self.captured_fen - self.released_fen

    @property
    def outstanding_fen(self) -> int:
        """Principal the customer still owes."""
        return self.captured_fen - self.reduced_fen - self.principal_paid_fen

    @property
    def carried_fen(self) -> int:
        """Captured principal that no refund has undone; subsidies are paid on it."""
        return self.captured_fen - self.reduced_fen - self.returned_fen


class Capture(Struct, frozen=True, kw_only=True):
    """Principal paid out for goods delivered."""

    id: UUID
    #: position among the plan's captures, from 1
    no: int
    amount_fen: int
    #: the earning that a refund claws back
    earn_operation_id: UUID | None
    points_earned: int
    captured_at: datetime


class FunderAmount(Struct, frozen=True, kw_only=True):
    """A funder's part of an amount."""

    funder: Funder
    amount_fen: int


class RefundParts(Struct, frozen=True, kw_only=True):
    """What one refund of cart value comes to; the first six add up to it."""

    uncaptured_released_fen: int
    principal_reduced_fen: int
    #: principal that was already paid and goes back to the customer
    cash_to_customer_fen: int
    discount_reversed_fen: int
    points_value_fen: int
    #: the merchant's to give back
    down_payment_returned_fen: int
    interest_refund_fen: int
    fee_refund_fen: int
    subsidy_reversed: tuple[FunderAmount, ...]


class ScheduleRow(Struct, frozen=True, kw_only=True):
    """One instalment as the partner sees it."""

    no: int
    #: when the money is due
    due_on: date
    #: the same day before the bank's calendar moved it
    anchor_on: date
    principal_fen: int
    interest_fen: int
    fee_fen: int
    due_fen: int


class Statement(Struct, frozen=True, kw_only=True):
    """Everything a refund did, in one place."""

    #: the refund; null in a preview
    id: str | None
    refund_ref: str
    #: cart value refunded
    amount_fen: int
    uncaptured_released_fen: int
    principal_reduced_fen: int
    cash_to_customer_fen: int
    interest_refund_fen: int
    fee_refund_fen: int
    discount_reversed_fen: int
    #: to be given back by the merchant, who received it
    down_payment_returned_fen: int
    #: paid with points, given back as points
    points_value_fen: int
    subsidy_reversed: tuple[FunderAmount, ...]
    points_restored: int
    points_clawed_back: int
    #: points that were already spent and are now owed
    arrears_added: int
    entitlements_revoked: int
    #: where the plan stands afterwards
    plan_state: PlanState
    #: the instalments still to come
    schedule: tuple[ScheduleRow, ...]


class Line(Struct, frozen=True, kw_only=True):
    """One debit and one credit of the same amount."""

    #: what it is for: `capture`, `refund`, `merchant_subsidy`
    kind: str
    debit: Account
    credit: Account
    amount_fen: int
    #: who bears it
    funder: str
