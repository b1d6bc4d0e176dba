"""Quotes as the authorization server sees them: what a member is shown before allowing one to be accepted."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from kernel.caller import Caller
from kernel.database import Connection
from kernel.errors import Absent, Forbidden
from kernel.ids import to_wire
from partners.oauth.quote_terms import QuoteTerms
from partners.offers import queries
from partners.offers.model import Quote
from partners.offers.rules import state_of


class AuthorizationDetailsInsufficient(Forbidden):
    """The member's token does not carry the authorization detail this needs."""


class MemberAuthorizationRequired(Forbidden):
    """A plan takes the member's own word: ask for an `instalment_plan` authorization, by redirect or on the phone."""


class OfferedQuotes:
    """partners.oauth.quote_terms.Quotes over the quotes kept here."""

    async def find_terms(
        self, connection: Connection, *, partner_id: UUID, quote_id: UUID, now: datetime
    ) -> QuoteTerms | None:
        """The terms of the partner's quote while it may be accepted: a member is shown no cost that is not to be had."""
        quote = await queries.find_quote(connection, quote_id, partner_id=partner_id)
        if quote is None or state_of(quote, now=now) not in ("issued", "disclosed"):
            return None
        terms = quote.doc.terms
        return QuoteTerms(
            member_id=quote.member_id,
            amount_fen=terms.financed_fen,
            periods=terms.periods,
            annual_rate_simple_ppm=quote.doc.annual_rate_simple_ppm,
            annual_rate_compound_ppm=quote.doc.annual_rate_compound_ppm,
            total_payable_fen=sum(row.due_fen for row in quote.doc.schedule),
        )


def check_own(caller: Caller, quote: Quote) -> None:
    """To a member's token another member's quote is as absent as another partner's."""
    if caller.subject not in (None, quote.doc.terms.member_sub):
        raise Absent


def check_may_accept(caller: Caller, quote: Quote, *, mode: Literal["sandbox", "live"]) -> None:
    """A member's token accepts the quotes its member agreed to; in the sandbox the app's own goes by the consent."""
    if caller.subject is None:
        if mode == "live":
            raise MemberAuthorizationRequired
        return
    agreed = {
        detail["quote_id"] for detail in caller.authorization_details if detail["type"] == "instalment_plan"
    }
    if to_wire("qte", quote.id) not in agreed:
        raise AuthorizationDetailsInsufficient(type="instalment_plan")
