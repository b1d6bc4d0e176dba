"""Cost first, then benefit; never the lowest instalment."""

from datetime import datetime
from typing import Any

import pytest
from msgspec import structs

from kernel.database import Connection
from kernel.ids import to_wire
from partners.credit.model import FundingShare
from partners.offers import service
from partners.offers.model import Instalment, OfferDefinition, OfferDoc
from partners.offers.rules import OfferInvalid, check_offer
from partners.offers.sandbox import ecommerce_offer, publish_definition


def with_plan(definition: OfferDefinition, plan: Instalment, *, discount: bool = True) -> OfferDefinition:
    """The definition with another instalment component, and perhaps without its gifts."""
    doc = definition.doc
    components = [plan if isinstance(part, Instalment) else part for part in doc.components]
    if not discount:
        components = [part for part in components if isinstance(part, Instalment)]
    kinds = {"discount"} if discount else set()
    if plan.subsidy_ppm_per_period:
        kinds.add("interest_subsidy")
    funding = tuple(share for share in doc.funding if share.kind in kinds)
    return structs.replace(
        definition, doc=structs.replace(doc, components=tuple(components), funding=funding)
    )


async def test_offers_rank_by_cost_then_benefit_and_not_by_the_lowest_instalment(
    connection: Connection, shop: Any, now: datetime
) -> None:
    base = ecommerce_offer(now)
    long_and_dear = Instalment(periods=(36,), customer_rate_ppm=120_000, method="equal_instalment")
    short_and_free = Instalment(periods=(3,), customer_rate_ppm=0, method="interest_free")
    dear = await publish_definition(
        connection, with_plan(base, long_and_dear), partner_id=shop.partner_id, now=now
    )
    plain = await publish_definition(
        connection, with_plan(base, short_and_free, discount=False), partner_id=shop.partner_id, now=now
    )
    offers = await service.search_offers(
        connection,
        partner_id=shop.partner_id,
        member=shop.member,
        scenario="ecom_checkout",
        cart=shop.cart(120_000),
        personalised=False,
        now=now,
    )
    wire = [to_wire("ofv", version) for version in (shop.version_id, plain, dear)]
    assert [offer.offer_version for offer in offers] == wire
    assert [offer.rank_reasons[0] for offer in offers] == [
        "no_borrowing_cost",
        "no_borrowing_cost",
        "annualised_cost",
    ]
    # The dearest has the lowest instalment of all single terms, and stands last.
    assert offers[-1].terms[0].other_due_fen < offers[0].terms[0].other_due_fen
    assert offers[-1].terms[0].annual_rate_compound_ppm > offers[-1].terms[0].annual_rate_simple_ppm > 0
    # Nothing about the member was read.
    assert {offer.max_points for offer in offers} == {None}


def change(doc: OfferDoc, **changes: Any) -> OfferDoc:
    return structs.replace(doc, **changes)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda doc: change(doc, components=doc.components[:1]),
        lambda doc: change(doc, components=(*doc.components, doc.components[0])),
        lambda doc: change(doc, funding=()),
        lambda doc: change(doc, funding=doc.funding[:1]),
        lambda doc: change(
            doc,
            funding=(
                FundingShare(funder="bank", kind="discount", share_ppm=1_000_000, cap_fen=1),
                doc.funding[1],
            ),
        ),
        lambda doc: change(
            doc,
            components=(
                doc.components[0],
                structs.replace(doc.components[1], periods=(61,)),
                doc.components[2],
            ),
        ),
        lambda doc: change(doc, terms=structs.replace(doc.terms, min_read_seconds=0)),
        lambda doc: change(
            doc, funding=(structs.replace(doc.funding[0], share_ppm=1_000_001), doc.funding[1])
        ),
        lambda doc: change(
            doc, components=(structs.replace(doc.components[0], share_ppm=-1), *doc.components[1:])
        ),
    ],
)
def test_an_offer_whose_gifts_nobody_pays_for_is_not_published(spoil: Any, now: datetime) -> None:
    doc = ecommerce_offer(now).doc
    check_offer(doc)
    with pytest.raises(OfferInvalid):
        check_offer(spoil(doc))
