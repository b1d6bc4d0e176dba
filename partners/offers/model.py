"""The words of scenario offers: typed components, carts, terms, quotes and their disclosure."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from msgspec import UNSET, Meta, Struct, UnsetType

from kernel.caller import MemberRef
from kernel.money import ORDER_FEN_MAX, OrderFen
from partners.credit.calendar import DayCount
from partners.credit.model import FundingShare, PlanTerms, RefundPolicy, ScheduleRow
from partners.credit.repayment import ResidueOn
from partners.credit.schedule import Method

Scenario = Literal[
    "ecom_checkout",
    "group_buy",
    "medical",
    "edu_tuition",
    "edu_savings",
    "study_abroad",
    "tax_credit",
    "elderly_wealth",
    "own_mall",
]
VersionState = Literal[
    "draft", "in_review", "approved", "scheduled", "active", "paused", "exhausted", "ended"
]
QuoteState = Literal["issued", "disclosed", "accepted", "consumed", "expired", "revoked"]

LINES_MAX = 200

#: no control characters: writers of JSON do not agree on how to escape them, and carts are hashed
_PRINTABLE = r"^[^\x00-\x1f\x7f]+$"
Name = Annotated[str, Meta(min_length=1, max_length=200, pattern=_PRINTABLE)]
Category = Annotated[str, Meta(min_length=1, max_length=64, pattern=_PRINTABLE)]
Reference = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[!-~]+$")]


class Text(Struct, frozen=True, kw_only=True):
    """A sentence in both languages."""

    zh: str
    en: str


class InstantDiscount(Struct, frozen=True, kw_only=True, tag="instant_discount"):
    """A part of the cart taken off at once."""

    #: of the cart's total
    share_ppm: int
    #: the most that is taken off
    cap_fen: int


class Instalment(Struct, frozen=True, kw_only=True, tag="instalment"):
    """Paying in monthly instalments."""

    #: the numbers of instalments to choose from
    periods: tuple[int, ...]
    #: the customer's nominal annual rate
    customer_rate_ppm: int
    method: Method
    #: the customer's fee per period, of the amount financed
    fee_ppm_per_period: int = 0
    #: what funders pay per period, of the amount financed, for the customer's lower rate
    subsidy_ppm_per_period: int = 0
    #: which instalment takes the odd fen
    residue_on: ResidueOn = "last"
    day_count: DayCount = "30/360"
    #: the most of the cart that may be paid down
    down_payment_max_ppm: int = 0
    #: annual rate on an overdue principal
    overdue_rate_ppm: int = 0


class PointsPay(Struct, frozen=True, kw_only=True, tag="points_pay"):
    """Paying a part with points."""

    #: the most that points may pay, of the cart less its discount
    max_share_ppm: int


class EntitlementGrant(Struct, frozen=True, kw_only=True, tag="entitlement"):
    """A right that comes with the first capture."""

    #: `health_consultation`
    kind: str
    #: how many uses
    quantity: int
    #: days until it lapses
    valid_days: int


Component = InstantDiscount | Instalment | PointsPay | EntitlementGrant


class Terms(Struct, frozen=True, kw_only=True):
    """The limits within which an offer applies."""

    #: smallest cart
    min_total_fen: int
    #: largest cart
    max_total_fen: int
    #: seconds a quote stands
    quote_seconds: int = 900
    #: seconds the cost table must be in view before it can be confirmed
    min_read_seconds: int = 5


class Window(Struct, frozen=True, kw_only=True):
    """When an offer is on sale; the end is the first moment it is not."""

    starts_at: datetime
    ends_at: datetime


class OfferDoc(Struct, frozen=True, kw_only=True):
    """What a version says; it never changes."""

    title: Text
    components: tuple[Component, ...]
    funding: tuple[FundingShare, ...]
    refund_policy: RefundPolicy
    terms: Terms


class OfferDefinition(Struct, frozen=True, kw_only=True):
    """Everything needed to publish an offer for a partner."""

    scenario: Scenario
    doc: OfferDoc
    window: Window


class OfferVersion(Struct, frozen=True, kw_only=True):
    """A published version of an offer."""

    id: UUID
    offer_id: UUID
    partner_id: UUID
    scenario: Scenario
    state: VersionState
    starts_at: datetime
    ends_at: datetime
    doc: OfferDoc


class CartLine(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One kind of goods in a cart."""

    sku: Reference
    name: Name | UnsetType = UNSET
    category: Category | UnsetType = UNSET
    quantity: Annotated[int, Meta(le=1_000_000)]
    unit_fen: OrderFen


class Cart(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is being bought."""

    order_ref: Reference
    lines: Annotated[list[CartLine], Meta(max_length=2_000)]
    total_fen: Annotated[int, Meta(ge=0, le=ORDER_FEN_MAX)]


class Price(Struct, frozen=True, kw_only=True):
    """A cart taken apart by who pays."""

    total_fen: int
    discount_fen: int
    points: int
    points_value_fen: int
    down_payment_fen: int
    financed_fen: int


class TermOffer(Struct, frozen=True, kw_only=True):
    """One number of instalments, with all it costs."""

    periods: int
    customer_rate_ppm: int
    #: period rate times twelve, 单利
    annual_rate_simple_ppm: int
    #: period rate compounded over a year, 复利
    annual_rate_compound_ppm: int
    first_due_fen: int
    other_due_fen: int
    total_payable_fen: int
    #: interest and fees
    total_cost_fen: int
    repayment_method: Method


class RankedOffer(Struct, frozen=True, kw_only=True):
    """An offer as it is listed."""

    offer_version: str
    title: Text
    components: tuple[Component, ...]
    #: cheapest first
    terms: tuple[TermOffer, ...]
    discount_fen: int
    amount_financed_fen: int
    #: points that could pay a part now; null when not personalised or not offered
    max_points: int | None
    #: why it stands where it stands
    rank_reasons: tuple[str, ...]


class FundingLine(Struct, frozen=True, kw_only=True):
    """Who pays how much of what."""

    funder: str
    kind: str
    amount_fen: int


class DisclosureRow(Struct, frozen=True, kw_only=True):
    """One line of the cost table (综合融资成本明示表)."""

    #: stable name of the line
    item: str
    label: Text
    #: the amount, where the line is one
    amount_fen: int | None
    #: the rate, where the line is one
    rate_ppm: int | None
    #: how it is computed
    method: Text
    #: when it is charged
    standard: Text
    #: who receives it
    payee: Text


class Disclosure(Struct, frozen=True, kw_only=True):
    """The cost table a borrower must see before accepting."""

    rows: tuple[DisclosureRow, ...]
    #: SHA-256 of the rows as canonical JSON, hex
    hash: str
    min_read_seconds: int


class QuoteDoc(Struct, frozen=True, kw_only=True):
    """What a quote says; it never changes."""

    #: what a plan would take over
    terms: PlanTerms
    schedule: tuple[ScheduleRow, ...]
    annual_rate_simple_ppm: int
    annual_rate_compound_ppm: int
    funding: tuple[FundingLine, ...]
    disclosure: Disclosure
    sales_code: str | None


class Quote(Struct, frozen=True, kw_only=True):
    """A signed, expiring, single-use price for one cart, member and partner."""

    bucket: int
    id: UUID
    member_id: int
    partner_id: UUID
    version_id: UUID
    state: QuoteState
    cart_hash: str
    disclosure_hash: str
    doc: QuoteDoc
    jws: str
    issued_at: datetime
    expires_at: datetime
    disclosed_at: datetime | None
    accepted_at: datetime | None
    #: the member's consent under which it was accepted
    consent_id: UUID | None = None

    @property
    def member(self) -> MemberRef:
        return MemberRef(member_id=self.member_id, bucket=self.bucket)


class Evidence(Struct, frozen=True, kw_only=True):
    """That the cost table was shown and confirmed."""

    #: of the table that was shown
    hash: str
    #: how long it was in view
    displayed_seconds: int
    #: when the member confirmed
    confirmed_at: datetime
