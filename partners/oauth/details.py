"""The types of authorization_details (RFC 9396) this server knows: what a partner may ask, and what a member is shown."""

from typing import Annotated, Any, Literal, Protocol, runtime_checkable
from uuid import UUID

import msgspec
from msgspec import Meta, Struct

from kernel.database import Connection
from kernel.errors import Absent
from kernel.ids import from_wire

DETAILS_MAX = 8

Points = Annotated[int, Meta(ge=1, le=1_000_000_000)]
OrderRef = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[ -~]+\Z")]
QuoteId = Annotated[str, Meta(pattern=r"^qte_[0-9A-Z]{26}\Z")]
Year = Annotated[int, Meta(ge=2000, le=2100)]


class PointsSpend(
    Struct, frozen=True, kw_only=True, tag_field="type", tag="points_spend", forbid_unknown_fields=True
):
    """Spend up to so many points, counted over everything that is held under the grant."""

    max_points: Points


class InstalmentPlanAsked(
    Struct, frozen=True, kw_only=True, tag_field="type", tag="instalment_plan", forbid_unknown_fields=True
):
    """Accept one quote of this partner, as a partner asks for it."""

    quote_id: QuoteId


class InstalmentPlan(
    Struct, frozen=True, kw_only=True, tag_field="type", tag="instalment_plan", forbid_unknown_fields=True
):
    """Accept one quote, with the cost a member must see before agreeing."""

    quote_id: QuoteId
    amount_fen: int
    periods: int
    annual_rate_simple_ppm: int
    annual_rate_compound_ppm: int
    total_payable_fen: int


class TaxData(
    Struct, frozen=True, kw_only=True, tag_field="type", tag="tax_data", forbid_unknown_fields=True
):
    """Hand over what the member declared and paid in some years."""

    tax_years: Annotated[list[Year], Meta(min_length=1, max_length=10)]
    datatypes: Annotated[
        list[Literal["declared_income", "paid_tax", "deductions"]], Meta(min_length=1, max_length=3)
    ]


class HealthRegistration(
    Struct, frozen=True, kw_only=True, tag_field="type", tag="health_registration", forbid_unknown_fields=True
):
    """Hand over the member's registrations at a hospital."""

    datatypes: Annotated[
        list[Literal["visit_date", "department", "registration_fee"]], Meta(min_length=1, max_length=3)
    ]


class AccountOpen(
    Struct, frozen=True, kw_only=True, tag_field="type", tag="account_open", forbid_unknown_fields=True
):
    """Open an account of one product in the member's name."""

    product: Literal["edu_savings", "elderly_wealth"]


AskedDetail = PointsSpend | InstalmentPlanAsked | TaxData | HealthRegistration | AccountOpen
AuthorizationDetail = PointsSpend | InstalmentPlan | TaxData | HealthRegistration | AccountOpen

DETAIL_TYPES = ("points_spend", "instalment_plan", "tax_data", "health_registration", "account_open")
#: what PIPL §28 calls sensitive: a member agrees to it separately
SENSITIVE = (TaxData, HealthRegistration, AccountOpen)


class DetailInvalid(ValueError):
    """The text says what is wrong with the authorization details, for the partner's developers."""


class QuoteTerms(Struct, frozen=True, kw_only=True):
    """A quote that may still be accepted: whose it is and what it costs."""

    member_id: int
    amount_fen: int
    periods: int
    annual_rate_simple_ppm: int
    annual_rate_compound_ppm: int
    total_payable_fen: int


@runtime_checkable  # Litestar checks what it injects by isinstance
class Quotes(Protocol):
    """Where quotes are; the gateway joins it to partners.offers."""

    async def find_terms(
        self, connection: Connection, *, partner_id: UUID, quote_id: UUID
    ) -> QuoteTerms | None:
        """The terms of the partner's quote, unless it is another partner's, absent, or not to be accepted any more."""
        ...


def read_details(text: str) -> list[AskedDetail]:
    """What is asked, by type; RFC 9396 §5: unknown type, unknown field, wrong or missing value are refused."""
    try:
        details = msgspec.json.decode(text, type=list[AskedDetail])
    except (msgspec.MsgspecError, RecursionError) as mistake:
        raise DetailInvalid(str(mistake)) from None
    if not details:
        raise DetailInvalid("it is empty")
    if len(details) > DETAILS_MAX:
        raise DetailInvalid(f"more than {DETAILS_MAX} details")
    types = [type(detail) for detail in details]
    for kind in (PointsSpend, InstalmentPlanAsked):
        if types.count(kind) > 1:
            raise DetailInvalid("ask for one spending limit and one plan at a time")
    return details


async def complete_details(
    connection: Connection, details: list[AskedDetail], quotes: Quotes, *, partner_id: UUID
) -> tuple[list[AuthorizationDetail], int | None]:
    """The details with what a member must see of them, and the member they are about, if they are about one."""
    completed: list[AuthorizationDetail] = []
    member_id: int | None = None
    for detail in details:
        if isinstance(detail, InstalmentPlanAsked):
            terms = await _find_terms(connection, detail.quote_id, quotes, partner_id)
            member_id = terms.member_id
            completed.append(_shown(detail, terms))
        else:
            completed.append(detail)
    return completed, member_id


async def _find_terms(connection: Connection, quote_id: str, quotes: Quotes, partner_id: UUID) -> QuoteTerms:
    try:
        identifier = from_wire("qte", quote_id)
    except Absent:
        raise DetailInvalid("there is no such quote to accept") from None
    terms = await quotes.find_terms(connection, partner_id=partner_id, quote_id=identifier)
    if terms is None:
        raise DetailInvalid("there is no such quote to accept")
    return terms


def _shown(detail: InstalmentPlanAsked, terms: QuoteTerms) -> InstalmentPlan:
    return InstalmentPlan(
        quote_id=detail.quote_id,
        amount_fen=terms.amount_fen,
        periods=terms.periods,
        annual_rate_simple_ppm=terms.annual_rate_simple_ppm,
        annual_rate_compound_ppm=terms.annual_rate_compound_ppm,
        total_payable_fen=terms.total_payable_fen,
    )


def to_claims(details: list[AuthorizationDetail]) -> list[dict[str, Any]]:
    """The details as they stand in tokens and answers."""
    return [msgspec.to_builtins(detail) for detail in details]
