"""Offers: publish, take off sale, and search what a member can have for a cart."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from kernel.calendar import business_date
from kernel.caller import MemberRef
from kernel.database import Connection
from kernel.errors import Absent
from kernel.ids import new_id, to_wire
from partners.credit.annual_rate import plan_annual_rates
from partners.credit.model import FundingShare, RefundPolicy
from partners.credit.schedule import build_schedule
from partners.offers import queries
from partners.offers.model import (
    Cart,
    Component,
    OfferDefinition,
    OfferDoc,
    OfferVersion,
    RankedOffer,
    Scenario,
    TermOffer,
    Terms,
    Text,
    Window,
)
from partners.offers.rules import (
    POINT_FEN,
    OfferNotOnSale,
    check_cart,
    check_offer,
    discount_on,
    instalment_of,
    points_limit_fen,
    rank,
    rank_reasons,
)
from partners.registry.service import find_agreement
from points.ledger.service import read_balance


async def publish_offer(
    connection: Connection,
    *,
    partner_id: UUID,
    scenario: Scenario,
    title_zh: str,
    title_en: str,
    components: Sequence[Component],
    funding: Sequence[FundingShare],
    refund_policy: RefundPolicy,
    terms: Terms,
    window: Window,
    now: datetime,
) -> UUID:
    """Put an offer on sale for one partner; returns its version."""
    doc = OfferDoc(
        title=Text(zh=title_zh, en=title_en),
        components=tuple(components),
        funding=tuple(funding),
        refund_policy=refund_policy,
        terms=terms,
    )
    check_offer(doc)
    version_id = new_id(now)
    await queries.insert_offer(
        connection,
        OfferDefinition(scenario=scenario, doc=doc, window=window),
        offer_id=new_id(now),
        version_id=version_id,
        partner_id=partner_id,
        now=now,
    )
    return version_id


async def pause_offer(connection: Connection, *, version_id: UUID, partner_id: UUID) -> None:
    """Take a version off sale; quotes already issued keep their price."""
    moved = await queries.move_version(
        connection, version_id, partner_id=partner_id, present="active", wanted="paused"
    )
    if not moved:
        raise OfferNotOnSale


async def find_version(connection: Connection, *, version_id: UUID, partner_id: UUID) -> OfferVersion:
    version = await queries.find_version(connection, version_id, partner_id=partner_id)
    if version is None:
        raise Absent
    return version


async def check_agreement(
    connection: Connection, *, partner_id: UUID, scenario: Scenario, now: datetime
) -> bool:
    """Whether the partner's agreement in force covers the scenario."""
    agreement = await find_agreement(connection, partner_id, now=now)
    return agreement is not None and scenario in agreement.scenarios


async def search_offers(
    connection: Connection,
    *,
    partner_id: UUID,
    member: MemberRef,
    scenario: Scenario,
    cart: Cart,
    personalised: bool,
    now: datetime,
) -> list[RankedOffer]:
    """What the member can have for the cart, best first.

    Without personalisation nothing about the member is read, so two members get the same answer.
    """
    check_cart(cart)
    if not await check_agreement(connection, partner_id=partner_id, scenario=scenario, now=now):
        return []
    versions = await queries.list_on_sale(
        connection, partner_id=partner_id, scenario=scenario, total_fen=cart.total_fen, now=now
    )
    available: int | None = None
    if personalised and versions:
        available = (await read_balance(connection, member, now=now)).available_points
    offers = (_price(version, cart.total_fen, available=available, now=now) for version in versions)
    return rank([offer for offer in offers if offer is not None])


def _price(
    version: OfferVersion, total_fen: int, *, available: int | None, now: datetime
) -> RankedOffer | None:
    """The offer for a cart of `total_fen`; None when nothing would be left to finance."""
    doc = version.doc
    discount_fen = discount_on(doc, total_fen)
    financed_fen = total_fen - discount_fen
    terms = _list_terms(doc, financed_fen, now=now)
    if not terms:
        return None
    points_fen = points_limit_fen(doc, financed_fen)
    return RankedOffer(
        offer_version=to_wire("ofv", version.id),
        title=doc.title,
        components=doc.components,
        terms=tuple(terms),
        discount_fen=discount_fen,
        amount_financed_fen=financed_fen,
        max_points=None if available is None or not points_fen else min(available, points_fen // POINT_FEN),
        rank_reasons=rank_reasons(
            doc.components, compound_ppm=terms[0].annual_rate_compound_ppm, discount_fen=discount_fen
        ),
    )


def _list_terms(doc: OfferDoc, financed_fen: int, *, now: datetime) -> list[TermOffer]:
    """Every number of instalments the amount is large enough for, the cheapest first."""
    periods = [periods for periods in instalment_of(doc).periods if periods <= financed_fen]
    terms = [_price_term(doc, financed_fen, count, now=now) for count in periods]
    return sorted(
        terms, key=lambda term: (term.annual_rate_compound_ppm, term.total_payable_fen, term.periods)
    )


def _price_term(doc: OfferDoc, financed_fen: int, periods: int, *, now: datetime) -> TermOffer:
    plan = instalment_of(doc)
    schedule = build_schedule(
        principal_fen=financed_fen,
        annual_rate_ppm=plan.customer_rate_ppm,
        periods=periods,
        method=plan.method,
        day_count=plan.day_count,
        start_on=business_date(now),
        residue_on=plan.residue_on,
        fee_ppm_per_period=plan.fee_ppm_per_period,
    )
    rates = plan_annual_rates(schedule)
    return TermOffer(
        periods=periods,
        customer_rate_ppm=plan.customer_rate_ppm,
        annual_rate_simple_ppm=rates.simple_ppm,
        annual_rate_compound_ppm=rates.compound_ppm,
        first_due_fen=schedule.rows[0].due_fen,
        other_due_fen=schedule.rows[min(1, periods - 1)].due_fen,
        total_payable_fen=schedule.total_payable_fen,
        total_cost_fen=schedule.total_interest_fen + schedule.total_fee_fen,
        repayment_method=plan.method,
    )
