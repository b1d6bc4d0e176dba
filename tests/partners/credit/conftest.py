"""A partner, a member with points, and plans made without an offer."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from msgspec import Struct

from kernel.caller import MemberRef
from kernel.database import Connection
from kernel.ids import new_id
from partners.credit import capturing, refunding, service
from partners.credit.model import (
    Capture,
    EntitlementTerms,
    FundingShare,
    Plan,
    PlanTerms,
    RefundPolicy,
    Statement,
)
from partners.registry.service import register_partner
from points.earning.model import Activity
from points.earning.service import earn
from points.membership.service import enrol_members

DEFAULTS: dict[str, Any] = {
    "order_ref": "order-1",
    "member_sub": "sub",
    "total_fen": 120_000,
    "discount_fen": 6_000,
    "points": 4_000,
    "points_value_fen": 4_000,
    "down_payment_fen": 0,
    "financed_fen": 110_000,
    "periods": 12,
    "method": "interest_free",
    "annual_rate_ppm": 0,
    "fee_ppm_per_period": 0,
    "residue_on": "last",
    "day_count": "30/360",
    "subsidy_ppm_per_period": 3_000,
    "funding": (
        FundingShare(funder="bank", kind="discount", share_ppm=1_000_000),
        FundingShare(funder="merchant", kind="interest_subsidy", share_ppm=1_000_000),
    ),
    "refund_policy": RefundPolicy(allocation="reamortise", interest_refund=True, fee_refund=True),
    "entitlement": EntitlementTerms(kind="health_consultation", quantity=1, valid_days=365),
}


class Counter(Struct, frozen=True, kw_only=True):
    """A partner's till: one partner, one member, and everything that can be done to a plan."""

    connection: Connection
    partner_id: UUID
    member: MemberRef
    now: datetime

    async def apply(self, **changes: Any) -> service.Answer:
        terms = PlanTerms(quote_id=new_id(self.now), **{**DEFAULTS, **changes})
        return await service.apply_for_plan(
            self.connection, terms, member=self.member, partner_id=self.partner_id, now=self.now
        )

    async def authorise(self, **changes: Any) -> Plan:
        plan = (await self.apply(**changes)).plan
        assert plan is not None
        return plan

    async def capture(
        self, plan: Plan, amount_fen: int | None = None, *, after: timedelta = timedelta(0)
    ) -> tuple[Plan, Capture]:
        return await capturing.capture_plan(
            self.connection,
            plan_id=plan.id,
            partner_id=self.partner_id,
            amount_fen=amount_fen,
            now=self.now + after,
        )

    async def refund(self, plan: Plan, amount_fen: int, *, refund_ref: str | None = None) -> Statement:
        return await refunding.post_refund(
            self.connection,
            plan_id=plan.id,
            partner_id=self.partner_id,
            refund_ref=refund_ref or new_id(self.now).hex,
            amount_fen=amount_fen,
            now=self.now,
        )

    async def preview(self, plan: Plan, amount_fen: int) -> Statement:
        return await refunding.preview_refund(
            self.connection,
            plan_id=plan.id,
            partner_id=self.partner_id,
            refund_ref="preview",
            amount_fen=amount_fen,
            now=self.now,
        )

    async def repay(self, plan: Plan) -> Plan:
        return await capturing.record_repayment(
            self.connection, plan_id=plan.id, partner_id=self.partner_id, now=self.now
        )

    async def find(self, plan: Plan) -> Plan:
        return await service.find_plan(self.connection, plan_id=plan.id, partner_id=self.partner_id)

    async def line_used(self) -> int:
        used: int = await self.connection.fetchval(
            "SELECT used_fen FROM credit_line WHERE member_id = $1", self.member.member_id
        )
        return used


async def open_counter(connection: Connection, *, now: datetime) -> Counter:
    partner_id = await register_partner(
        connection,
        slug=f"p{new_id(now).hex[-12:]}",
        name_zh="合作方",
        name_en="Partner",
        kind="service_provider",
        scene="ecommerce",
        status="live",
        now=now,
    )
    [member] = await enrol_members(connection, count=1, now=now)
    activity = Activity(
        member=member, source_ref="first", kind="purchase", occurred_at=now, amount_fen=10_000_00
    )
    [earned] = await earn(connection, [activity], partner_id=partner_id, now=now)
    assert not isinstance(earned, Exception)
    return Counter(connection=connection, partner_id=partner_id, member=member, now=now)


@pytest.fixture
async def counter(connection: Connection, now: datetime) -> Counter:
    """In the transaction that is rolled back."""
    return await open_counter(connection, now=now)


@pytest.fixture
def counter_maker() -> Callable[..., Any]:
    """For tests that need several transactions."""
    return open_counter
