"""What a member must see of authorization details: a plan's cost, from the quote it is about."""

from datetime import datetime
from typing import Protocol, runtime_checkable
from uuid import UUID

from msgspec import Struct

from kernel.database import Connection
from kernel.errors import Absent
from kernel.ids import from_wire
from partners.oauth.details import (
    AskedDetail,
    AuthorizationDetail,
    DetailInvalid,
    InstalmentPlan,
    InstalmentPlanAsked,
)


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
        self, connection: Connection, *, partner_id: UUID, quote_id: UUID, now: datetime
    ) -> QuoteTerms | None:
        """The terms of the partner's quote, unless it is another partner's, absent, or not to be accepted any more."""
        ...


async def complete_details(
    connection: Connection, details: list[AskedDetail], quotes: Quotes, *, partner_id: UUID, now: datetime
) -> tuple[list[AuthorizationDetail], int | None]:
    """The details with what a member must see of them, and the member they are about, if they are about one."""
    completed: list[AuthorizationDetail] = []
    member_id: int | None = None
    for detail in details:
        if isinstance(detail, InstalmentPlanAsked):
            terms = await _find_terms(connection, detail.quote_id, quotes, partner_id, now)
            member_id = terms.member_id
            completed.append(_shown(detail, terms))
        else:
            completed.append(detail)
    return completed, member_id


async def _find_terms(
    connection: Connection, quote_id: str, quotes: Quotes, partner_id: UUID, now: datetime
) -> QuoteTerms:
    try:
        identifier = from_wire("qte", quote_id)
    except Absent:
        raise DetailInvalid("there is no such quote to accept") from None
    terms = await quotes.find_terms(connection, partner_id=partner_id, quote_id=identifier, now=now)
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
