"""The offers a fresh sandbox is seeded with: one at an e-commerce checkout, one at a hospital's till."""

from datetime import datetime, timedelta
from uuid import UUID

from kernel.database import Connection
from partners.credit.model import FundingShare, RefundPolicy
from partners.offers.model import (
    EntitlementGrant,
    Instalment,
    InstantDiscount,
    OfferDefinition,
    OfferDoc,
    PointsPay,
    Terms,
    Text,
    Window,
)
from partners.offers.service import publish_offer

ON_SALE = timedelta(days=3650)
#: half again the usual contract rate, as contracts have it
OVERDUE_RATE_PPM = 182_500


def ecommerce_offer(now: datetime) -> OfferDefinition:
    """A bank-funded discount, and interest-free instalments the merchant pays for; points may pay half."""
    return OfferDefinition(
        scenario="ecom_checkout",
        doc=OfferDoc(
            title=Text(zh="立减5%，最长12期免息", en="5 % off, up to 12 interest-free instalments"),
            components=(
                InstantDiscount(share_ppm=50_000, cap_fen=20_000),
                Instalment(
                    periods=(3, 6, 12),
                    customer_rate_ppm=0,
                    method="interest_free",
                    subsidy_ppm_per_period=3_000,
                    residue_on="last",
                    down_payment_max_ppm=500_000,
                    overdue_rate_ppm=OVERDUE_RATE_PPM,
                ),
                PointsPay(max_share_ppm=500_000),
            ),
            funding=(
                FundingShare(funder="bank", kind="discount", share_ppm=1_000_000),
                FundingShare(funder="merchant", kind="interest_subsidy", share_ppm=1_000_000),
            ),
            refund_policy=RefundPolicy(allocation="reamortise", interest_refund=True, fee_refund=True),
            terms=Terms(min_total_fen=10_000, max_total_fen=10_000_000),
        ),
        window=Window(starts_at=now, ends_at=now + ON_SALE),
    )


def hospital_offer(now: datetime) -> OfferDefinition:
    """Treatment paid in instalments at no cost, with a health consultation; the bank pays for both."""
    return OfferDefinition(
        scenario="medical",
        doc=OfferDoc(
            title=Text(
                zh="医疗分期零息零费，赠健康咨询",
                en="Treatment in instalments at no cost, with a consultation",
            ),
            components=(
                Instalment(
                    periods=(6, 12),
                    customer_rate_ppm=0,
                    method="interest_free",
                    subsidy_ppm_per_period=2_500,
                    residue_on="first",
                    overdue_rate_ppm=OVERDUE_RATE_PPM,
                ),
                EntitlementGrant(kind="health_consultation", quantity=1, valid_days=365),
            ),
            funding=(FundingShare(funder="bank", kind="interest_subsidy", share_ppm=1_000_000),),
            refund_policy=RefundPolicy(allocation="last", interest_refund=True, fee_refund=True),
            terms=Terms(min_total_fen=100_000, max_total_fen=20_000_000),
        ),
        window=Window(starts_at=now, ends_at=now + ON_SALE),
    )


async def publish_definition(
    connection: Connection, definition: OfferDefinition, *, partner_id: UUID, now: datetime
) -> UUID:
    """Put one of these on sale for a partner whose agreement covers the scenario; returns the version."""
    return await publish_offer(
        connection,
        partner_id=partner_id,
        scenario=definition.scenario,
        title_zh=definition.doc.title.zh,
        title_en=definition.doc.title.en,
        components=definition.doc.components,
        funding=definition.doc.funding,
        refund_policy=definition.doc.refund_policy,
        terms=definition.doc.terms,
        window=definition.window,
        now=now,
    )
