"""The types of authorization_details (RFC 9396) this server knows: what a partner may ask, and what a member is shown."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

DETAILS_MAX = 8

Points = Annotated[int, Meta(ge=1, le=1_000_000_000)]
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


def read_details(text: str) -> list[AskedDetail]:
    """What is asked, by type; RFC 9396 §5: unknown type, unknown field, wrong or missing value are refused."""
    try:
        details = msgspec.json.decode(text, type=list[AskedDetail])
    except (msgspec.MsgspecError, RecursionError) as mistake:
        raise DetailInvalid(_plain(str(mistake))) from None
    if not details:
        raise DetailInvalid("it is empty")
    if len(details) > DETAILS_MAX:
        raise DetailInvalid(f"more than {DETAILS_MAX} details")
    types = [type(detail) for detail in details]
    for kind in (PointsSpend, InstalmentPlanAsked):
        if types.count(kind) > 1:
            raise DetailInvalid("ask for one spending limit and one plan at a time")
    return details


def _plain(text: str) -> str:
    """What RFC 6749 §5.2 lets stand in an error_description."""
    return "".join(c for c in text if " " <= c <= "~" and c not in '"\\')[:200]


def to_claims(details: list[AuthorizationDetail]) -> list[dict[str, Any]]:
    """The details as they stand in tokens and answers."""
    return [msgspec.to_builtins(detail) for detail in details]
