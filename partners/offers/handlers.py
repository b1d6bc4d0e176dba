"""Offers and quotes over HTTP."""

from datetime import datetime
from typing import Annotated, Literal

from litestar import get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody
from msgspec import Meta, Struct

from kernel.caller import Caller, Subjects
from kernel.database import Connection
from kernel.ids import from_wire, to_wire
from kernel.money import OrderFen, Points
from kernel.settings import Settings
from partners.credit.model import EntitlementTerms, Outcome, PlanState, ScheduleRow
from partners.credit.schedule import Method
from partners.oauth.keys import Signer
from partners.offers import acceptance, quoting, service
from partners.offers.authorizing import check_own
from partners.offers.model import (
    Cart,
    Disclosure,
    Evidence,
    FundingLine,
    Quote,
    QuoteState,
    RankedOffer,
    Scenario,
)
from partners.offers.rules import state_of

Subject = Annotated[str, Meta(min_length=1, max_length=128, description="The member's pairwise subject.")]


class SearchRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """For whom, where and for what to look for offers."""

    scenario: Scenario
    member: Subject
    cart: Cart
    personalised: Annotated[bool, Meta(description="False reads nothing about the member.")] = True


class SearchAnswer(Struct, frozen=True, kw_only=True):
    """What the member can have, best first."""

    offers: list[RankedOffer]
    #: whether anything about the member was looked at
    personalised: bool


class NewQuoteRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to price."""

    offer_version: Annotated[str, Meta(max_length=40, description="From the search, `ofv_…`.")]
    member: Subject
    cart: Cart
    periods: Annotated[int, Meta(ge=1, le=480, description="How many instalments.")]
    points_to_spend: Points = 0
    down_payment_fen: OrderFen = 0
    sales_code: (
        Annotated[str, Meta(min_length=1, max_length=64, description="Whom the sale is credited to.")] | None
    ) = None


class PointsPart(Struct, frozen=True, kw_only=True):
    """What points pay of a quote."""

    spend: int
    value_fen: int


class QuoteAnswer(Struct, frozen=True, kw_only=True):
    """A quote."""

    id: str
    jws: Annotated[str, Meta(description="The quote signed by the bank, `typ` quote+jwt, ES256.")]
    state: QuoteState
    expires_at: datetime
    offer_version: str
    member: str
    order_ref: str
    total_fen: int
    discount_fen: int
    points: PointsPart
    down_payment_fen: int
    amount_financed_fen: int
    periods: int
    repayment_method: Method
    customer_rate_ppm: int
    annual_rate_simple_ppm: int
    annual_rate_compound_ppm: int
    total_payable_fen: int
    total_cost_fen: int
    schedule: tuple[ScheduleRow, ...]
    funding: tuple[FundingLine, ...]
    entitlement: EntitlementTerms | None
    disclosure: Disclosure
    sales_code: str | None


class DisclosureRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """That the cost table was shown and confirmed."""

    hash: Annotated[str, Meta(min_length=1, max_length=128, description="Of the table that was shown.")]
    displayed_seconds: Annotated[int, Meta(ge=0, le=86_400, description="How long it was in view.")]
    confirmed_at: Annotated[datetime, Meta(tz=True, description="When the member confirmed.")]


class DisclosureAnswer(Struct, frozen=True, kw_only=True):
    """The quote can now be accepted."""

    id: str
    state: Literal["disclosed"] = "disclosed"


class AcceptRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the partner believes it accepts; all of it is optional."""

    cart: Annotated[Cart | None, Meta(description="The cart as it is now; must be the one quoted.")] = None
    jws: Annotated[str | None, Meta(description="The signed quote; must be the one issued.")] = None


class AcceptedDecision(Struct, frozen=True, kw_only=True):
    """What was decided. Reasons that would tell of a member's credit stay with the bank."""

    outcome: Outcome
    reason_codes: list[str]


class ApplicationView(Struct, frozen=True, kw_only=True):
    """The application an acceptance made."""

    id: str
    decision: AcceptedDecision


class PlanView(Struct, frozen=True, kw_only=True):
    """The plan an approved application made."""

    id: str
    state: PlanState
    amount_financed_fen: int
    authorised_until: datetime


class AcceptAnswer(Struct, frozen=True, kw_only=True):
    """The decision, and the plan if it was approved."""

    application: ApplicationView
    plan: PlanView | None


@post("/v1/offers/search", scope="offers:read", level="A1", member_token=True, status_code=200)
async def search_offers(
    data: JSONBody[SearchRequest],
    connection: NamedDependency[Connection],
    caller: NamedDependency[Caller],
    subjects: NamedDependency[Subjects],
    now: NamedDependency[datetime],
) -> SearchAnswer:
    """List the offers a member can have for a cart, by total annualised cost."""
    member = await subjects.resolve_one(connection, caller, data.member, scope="offers:read", now=now)
    offers = await service.search_offers(
        connection,
        partner_id=caller.partner_id,
        member=member,
        scenario=data.scenario,
        cart=data.cart,
        personalised=data.personalised,
        now=now,
    )
    return SearchAnswer(offers=offers, personalised=data.personalised)


@post("/v1/quotes", scope="offers:write", idempotent=True, level="A2", member_token=True)
async def issue_quote(
    data: JSONBody[NewQuoteRequest],
    connection: NamedDependency[Connection],
    caller: NamedDependency[Caller],
    subjects: NamedDependency[Subjects],
    signer: NamedDependency[Signer],
    now: NamedDependency[datetime],
) -> QuoteAnswer:
    """Price a cart under an offer: a signed quote with its schedule and cost table, good once and for minutes."""
    member = await subjects.resolve_one(connection, caller, data.member, scope="offers:write", now=now)
    request = quoting.QuoteRequest(
        version_id=from_wire("ofv", data.offer_version),
        member=member,
        member_sub=data.member,
        cart=data.cart,
        periods=data.periods,
        points=data.points_to_spend,
        down_payment_fen=data.down_payment_fen,
        sales_code=data.sales_code,
    )
    quote = await quoting.issue_quote(
        connection, request, partner_id=caller.partner_id, signer=signer, now=now
    )
    return _show(quote, now=now)


@get("/v1/quotes/{quote_id:str}", scope="offers:read", level="A1", member_token=True)
async def read_quote(
    quote_id: FromPath[str],
    connection: NamedDependency[Connection],
    caller: NamedDependency[Caller],
    now: NamedDependency[datetime],
) -> QuoteAnswer:
    """Read a quote as it stands now."""
    quote = await quoting.find_quote(
        connection, quote_id=from_wire("qte", quote_id), partner_id=caller.partner_id
    )
    check_own(caller, quote)
    return _show(quote, now=now)


@post(
    "/v1/quotes/{quote_id:str}/disclosure",
    scope="offers:write",
    level="A2",
    member_token=True,
    status_code=200,
)
async def disclose_quote(
    quote_id: FromPath[str],
    data: JSONBody[DisclosureRequest],
    connection: NamedDependency[Connection],
    caller: NamedDependency[Caller],
    now: NamedDependency[datetime],
) -> DisclosureAnswer:
    """Record that the member was shown the cost table long enough and confirmed it."""
    evidence = Evidence(
        hash=data.hash, displayed_seconds=data.displayed_seconds, confirmed_at=data.confirmed_at
    )
    await acceptance.disclose_quote(
        connection,
        evidence,
        quote_id=from_wire("qte", quote_id),
        caller=caller,
        now=now,
    )
    return DisclosureAnswer(id=quote_id)


@post(
    "/v1/quotes/{quote_id:str}/accept", scope="offers:write", idempotent=True, level="A2", member_token=True
)
async def accept_quote(
    quote_id: FromPath[str],
    connection: NamedDependency[Connection],
    caller: NamedDependency[Caller],
    subjects: NamedDependency[Subjects],
    settings: NamedDependency[Settings],
    now: NamedDependency[datetime],
    data: JSONBody[AcceptRequest | None] = None,
) -> AcceptAnswer:
    """Accept a quote: the application is decided, and an approved plan is authorised with its points held."""
    asked = data or AcceptRequest()
    answer = await acceptance.accept_quote(
        connection,
        quote_id=from_wire("qte", quote_id),
        caller=caller,
        subjects=subjects,
        cart=asked.cart,
        jws=asked.jws,
        mode=settings.mode,
        now=now,
    )
    plan = answer.plan
    return AcceptAnswer(
        application=ApplicationView(
            id=to_wire("apl", answer.application_id),
            decision=AcceptedDecision(
                outcome=answer.decision.outcome, reason_codes=[answer.decision.outcome]
            ),
        ),
        plan=None
        if plan is None
        else PlanView(
            id=to_wire("pln", plan.id),
            state=plan.state,
            amount_financed_fen=plan.financed_fen,
            authorised_until=plan.authorised_until,
        ),
    )


def _show(quote: Quote, *, now: datetime) -> QuoteAnswer:
    doc, terms = quote.doc, quote.doc.terms
    return QuoteAnswer(
        id=to_wire("qte", quote.id),
        jws=quote.jws,
        state=state_of(quote, now=now),
        expires_at=quote.expires_at,
        offer_version=to_wire("ofv", quote.version_id),
        member=terms.member_sub,
        order_ref=terms.order_ref,
        total_fen=terms.total_fen,
        discount_fen=terms.discount_fen,
        points=PointsPart(spend=terms.points, value_fen=terms.points_value_fen),
        down_payment_fen=terms.down_payment_fen,
        amount_financed_fen=terms.financed_fen,
        periods=terms.periods,
        repayment_method=terms.method,
        customer_rate_ppm=terms.annual_rate_ppm,
        annual_rate_simple_ppm=doc.annual_rate_simple_ppm,
        annual_rate_compound_ppm=doc.annual_rate_compound_ppm,
        total_payable_fen=sum(row.due_fen for row in doc.schedule),
        total_cost_fen=sum(row.interest_fen + row.fee_fen for row in doc.schedule),
        schedule=doc.schedule,
        funding=doc.funding,
        entitlement=terms.entitlement,
        disclosure=doc.disclosure,
        sales_code=doc.sales_code,
    )


routes = [search_offers, issue_quote, read_quote, disclose_quote, accept_quote]
