"""Quotes: price a cart under an offer, disclose what it costs, sign it."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from msgspec import Struct

from kernel.calendar import business_date
from kernel.caller import MemberRef
from kernel.database import Connection
from kernel.errors import Absent
from kernel.ids import new_id, to_wire
from kernel.outbox import Event, enqueue
from partners.credit.annual_rate import AnnualRates, plan_annual_rates
from partners.credit.model import EntitlementTerms, PlanTerms
from partners.credit.refund_rules import subsidies_on
from partners.credit.rules import share_out
from partners.credit.schedules import list_rows, schedule_terms
from partners.oauth.keys import Signer
from partners.offers import queries
from partners.offers.canonical import canonical_hash
from partners.offers.disclosure import disclose
from partners.offers.model import Cart, FundingLine, OfferDoc, OfferVersion, Price, Quote, QuoteDoc
from partners.offers.rules import (
    OfferNotOnSale,
    check_amount,
    check_cart,
    check_instalments,
    check_on_sale,
    check_term,
    entitlement_of,
    instalment_of,
    price_cart,
)
from partners.offers.service import check_agreement, find_version
from points.ledger.service import read_balance

JWS_TYPE = "quote+jwt"


class QuoteRequest(Struct, frozen=True, kw_only=True):
    """What is to be priced."""

    version_id: UUID
    member: MemberRef
    #: the pairwise subject under which the partner knows the member
    member_sub: str
    cart: Cart
    periods: int
    points: int
    down_payment_fen: int
    sales_code: str | None


async def issue_quote(
    connection: Connection, request: QuoteRequest, *, partner_id: UUID, signer: Signer, now: datetime
) -> Quote:
    """A signed price for one cart; points are checked, not held: they are held when the quote is accepted."""
    check_cart(request.cart)
    version = await find_version(connection, version_id=request.version_id, partner_id=partner_id)
    check_on_sale(version, now=now)
    if not await check_agreement(connection, partner_id=partner_id, scenario=version.scenario, now=now):
        raise OfferNotOnSale(scenario=version.scenario)
    check_term(version.doc, request.periods)
    check_amount(version.doc, request.cart.total_fen)
    available = 0
    if request.points:
        available = (await read_balance(connection, request.member, now=now)).available_points
    price = price_cart(
        version.doc,
        request.cart.total_fen,
        points=request.points,
        down_payment_fen=request.down_payment_fen,
        available=available,
    )
    check_instalments(request.periods, price.financed_fen)
    quote = _draw_up(request, version, price, partner_id=partner_id, signer=signer, now=now)
    await queries.insert_quote(connection, quote)
    await tell(connection, quote, "quote.issued", now=now)
    return quote


async def find_quote(connection: Connection, *, quote_id: UUID, partner_id: UUID) -> Quote:
    quote = await queries.find_quote(connection, quote_id, partner_id=partner_id)
    if quote is None:
        raise Absent
    return quote


def _draw_up(
    request: QuoteRequest,
    version: OfferVersion,
    price: Price,
    *,
    partner_id: UUID,
    signer: Signer,
    now: datetime,
) -> Quote:
    quote_id, expires_at = new_id(now), now + timedelta(seconds=version.doc.terms.quote_seconds)
    terms = _agree(request, version.doc, price, quote_id=quote_id)
    schedule = schedule_terms(terms, principal_fen=price.financed_fen, starts_on=business_date(now))
    rates = plan_annual_rates(schedule)
    disclosure = disclose(
        terms,
        schedule,
        rates,
        overdue_rate_ppm=instalment_of(version.doc).overdue_rate_ppm,
        min_read_seconds=version.doc.terms.min_read_seconds,
    )
    doc = QuoteDoc(
        terms=terms,
        schedule=tuple(list_rows(schedule)),
        annual_rate_simple_ppm=rates.simple_ppm,
        annual_rate_compound_ppm=rates.compound_ppm,
        funding=_fund(terms),
        disclosure=disclosure,
        sales_code=request.sales_code,
    )
    cart_hash = canonical_hash(request.cart)
    claims = {
        "iss": signer.issuer,
        "aud": to_wire("ptn", partner_id),
        "sub": request.member_sub,
        "qid": to_wire("qte", quote_id),
        "ofv": to_wire("ofv", version.id),
        "cart_hash": cart_hash,
        **_sign_amounts(terms, rates),
        "schedule_hash": canonical_hash(doc.schedule),
        "disclosure_hash": disclosure.hash,
        "iat": int(now.timestamp()),
        "exp": int(expires_at.timestamp()),
    }
    return Quote(
        bucket=request.member.bucket,
        id=quote_id,
        member_id=request.member.member_id,
        partner_id=partner_id,
        version_id=version.id,
        state="issued",
        cart_hash=cart_hash,
        disclosure_hash=disclosure.hash,
        doc=doc,
        jws=signer.sign(claims, typ=JWS_TYPE),
        issued_at=now,
        expires_at=expires_at,
        disclosed_at=None,
        accepted_at=None,
    )


def _agree(request: QuoteRequest, doc: OfferDoc, price: Price, *, quote_id: UUID) -> PlanTerms:
    plan, right = instalment_of(doc), entitlement_of(doc)
    return PlanTerms(
        quote_id=quote_id,
        order_ref=request.cart.order_ref,
        member_sub=request.member_sub,
        total_fen=price.total_fen,
        discount_fen=price.discount_fen,
        points=price.points,
        points_value_fen=price.points_value_fen,
        down_payment_fen=price.down_payment_fen,
        financed_fen=price.financed_fen,
        periods=request.periods,
        method=plan.method,
        annual_rate_ppm=plan.customer_rate_ppm,
        fee_ppm_per_period=plan.fee_ppm_per_period,
        residue_on=plan.residue_on,
        day_count=plan.day_count,
        subsidy_ppm_per_period=plan.subsidy_ppm_per_period,
        funding=doc.funding,
        refund_policy=doc.refund_policy,
        entitlement=None
        if right is None
        else EntitlementTerms(kind=right.kind, quantity=right.quantity, valid_days=right.valid_days),
    )


def _fund(terms: PlanTerms) -> tuple[FundingLine, ...]:
    """Who pays for the discount and for the customer's lower rate if all of the quote is captured."""
    discount = share_out(terms.discount_fen, "discount", terms.funding)
    subsidy = subsidies_on(terms, terms.financed_fen)
    return (
        *(FundingLine(funder=part.funder, kind="discount", amount_fen=part.amount_fen) for part in discount),
        *(
            FundingLine(funder=part.funder, kind="interest_subsidy", amount_fen=part.amount_fen)
            for part in subsidy
        ),
    )


def _sign_amounts(terms: PlanTerms, rates: AnnualRates) -> dict[str, Any]:
    return {
        "order_ref": terms.order_ref,
        "total_fen": terms.total_fen,
        "discount_fen": terms.discount_fen,
        "points": {"spend": terms.points, "value_fen": terms.points_value_fen},
        "down_payment_fen": terms.down_payment_fen,
        "amount_financed_fen": terms.financed_fen,
        "periods": terms.periods,
        "annual_rate_simple_ppm": rates.simple_ppm,
        "annual_rate_compound_ppm": rates.compound_ppm,
    }


async def tell(connection: Connection, quote: Quote, kind: str, *, now: datetime) -> None:
    """Write one fact about the quote to the outbox."""
    event = Event(
        bucket=quote.bucket,
        partner_id=quote.partner_id,
        type=kind,
        aggregate=to_wire("qte", quote.id),
        payload={
            "quote_id": to_wire("qte", quote.id),
            "order_ref": quote.doc.terms.order_ref,
            "amount_financed_fen": quote.doc.terms.financed_fen,
        },
    )
    await enqueue(connection, [event], now=now)
