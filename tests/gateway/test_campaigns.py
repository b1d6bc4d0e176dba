"""Campaigns through HTTP: what a partner is told, what it is refused, and what one process learns of another's pause."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest

from gateway.client import ApiProblem, PartnerClient
from gateway.runtime import Runtime
from kernel.database import transaction
from points.earning import campaigns
from points.earning.definitions import CampaignDefinition

EARNINGS = "/v1/points/earnings"
BATCH = "/v1/points/earnings/batch"
HOUR = timedelta(hours=1)


class Staff:
    """The bank's people, who prepare campaigns for one partner."""

    def __init__(self, runtime: Runtime, partner_id: UUID) -> None:
        self.runtime = runtime
        self.partner_id = partner_id
        self.now: datetime = runtime.clock.now()

    async def run(self, **changes: Any) -> str:
        """The code of a campaign that has been running for an hour."""
        code = f"test-{uuid4().hex[:10]}"
        fields: dict[str, Any] = {
            "code": code,
            "name_zh": "活动",
            "name_en": "Campaign",
            "starts_at": self.now - 2 * HOUR,
            "ends_at": self.now + HOUR,
            "partner_ids": [self.partner_id],
            "multiplier_pct": 200,
            "named_only": True,
        }
        definition = msgspec.convert(fields | changes, CampaignDefinition)
        async with transaction(self.runtime.pool) as connection:
            await campaigns.propose_campaign(connection, definition, by="maker", now=self.now - HOUR)
            await campaigns.approve_campaign(connection, code, by="checker", now=self.now - HOUR)
        return code

    async def pause(self, code: str) -> None:
        async with transaction(self.runtime.pool) as connection:
            await campaigns.pause_campaign(connection, code, by="anyone", now=self.now)


@pytest.fixture
async def staff(runtime: Runtime, partner: PartnerClient) -> Staff:
    """The bank's people."""
    async with transaction(runtime.pool) as connection:
        partner_id = await connection.fetchval(
            "SELECT partner_id FROM registry_app WHERE client_id = $1", partner.credentials.client_id
        )
    return Staff(runtime, partner_id)


async def bind(partner: PartnerClient) -> str:
    answer = await partner.post("/v1/members/bindings", {"customer_refs": [str(uuid4())]})
    return str(answer["bindings"][0]["member"])


def earning(staff: Staff, member: str, **changes: Any) -> dict[str, Any]:
    return {
        "member": member,
        "source_ref": str(uuid4()),
        "kind": "purchase",
        "occurred_at": staff.now.isoformat(),
        "amount_fen": 10_000,
    } | changes


async def refusal(partner: PartnerClient, body: dict[str, Any]) -> tuple[int, str]:
    with pytest.raises(ApiProblem) as refused:
        await partner.post(EARNINGS, body, idempotency_key=str(uuid4()))
    return refused.value.status, refused.value.code


async def test_the_answer_lists_every_component_and_the_operation_explains_it(
    staff: Staff, partner: PartnerClient
) -> None:
    code = await staff.run(
        budget={"total": 30, "on_exhaustion": "partial"}, shares=[{"pending_days": 1, "validity_months": 1}]
    )
    member = await bind(partner)
    answer = await partner.post(EARNINGS, earning(staff, member, campaign=code), idempotency_key=str(uuid4()))
    assert (answer["points"], answer["rule_version"]) == (130, 1)
    assert [(c["rule"], c.get("campaign"), c["points"]) for c in answer["components"]] == [
        ("base", None, 100),
        ("campaign", code, 30),
    ]
    assert answer["components"][1]["activates_at"] > staff.now.isoformat()
    assert answer["balance"]["pending_points"] == 30
    told = await partner.get(f"/v1/points/operations/{answer['id']}")
    assert (told["calculation"]["base_points"], told["calculation"]["bonus_points"]) == (100, 30)
    assert told["calculation"]["campaigns"] == [
        {
            "campaign": code,
            "multiplier_pct": 200,
            "fixed_points": None,
            "wanted_points": 100,
            "points": 30,
            "limited_by": "budget",
        }
    ]


async def test_every_refusal_has_its_code_and_changes_nothing(staff: Staff, partner: PartnerClient) -> None:
    member = await bind(partner)
    tight = await staff.run(budget={"total": 100})
    foreign = await staff.run(partner_ids=[str(uuid4())])
    tuition = await staff.run(kinds=["tuition"])
    first = earning(staff, member, campaign=tight)
    assert (await partner.post(EARNINGS, first, idempotency_key=str(uuid4())))["points"] == 200
    before = await partner.get(f"/v1/members/{member}/points")
    for changes, expected in (
        ({"campaign": "no-such"}, (422, "campaign_unknown")),
        ({"campaign": foreign}, (422, "campaign_unknown")),
        ({"campaign": tuition}, (422, "campaign_not_applicable")),
        ({"campaign": tight}, (409, "budget_exhausted")),
        ({"rule_version": 99}, (409, "rule_version_stale")),
        ({"occurred_at": (staff.now + HOUR).isoformat()}, (422, "occurred_in_future")),
        ({"occurred_at": (staff.now - 731 * 24 * HOUR).isoformat()}, (422, "occurred_too_long_ago")),
        ({"campaign": ""}, (422, "validation_failed")),
        ({"campaign": "a\x00b"}, (422, "validation_failed")),
        ({"rule_version": 0}, (422, "validation_failed")),
        ({"rule_version": 2**40}, (422, "validation_failed")),
    ):
        assert await refusal(partner, earning(staff, member, **changes)) == expected, changes
    after = await partner.get(f"/v1/members/{member}/points")
    assert after["available_points"] == before["available_points"]


async def test_each_item_of_a_batch_is_judged_by_itself(staff: Staff, partner: PartnerClient) -> None:
    member = await bind(partner)
    code = await staff.run(budget={"total": 150}, member_cap_points=1_000)
    items = [
        earning(staff, member, campaign=code),
        earning(staff, member, campaign=code),
        earning(staff, member),
        earning(staff, member, campaign=code, amount_fen=5_000),
        earning(staff, member, rule_version=1),
    ]
    answer = await partner.post(BATCH, {"items": items}, idempotency_key=str(uuid4()))
    told = [
        result["earning"]["points"] if result["status"] == 201 else result["problem"]["code"]
        for result in answer["results"]
    ]
    assert told == [200, "budget_exhausted", 100, 100, 100]


async def test_a_pause_is_felt_at_once(staff: Staff, partner: PartnerClient) -> None:
    member = await bind(partner)
    code = await staff.run(named_only=False)
    assert (await partner.post(EARNINGS, earning(staff, member), idempotency_key=str(uuid4())))[
        "points"
    ] == 200
    await staff.pause(code)
    assert (await partner.post(EARNINGS, earning(staff, member), idempotency_key=str(uuid4())))[
        "points"
    ] == 100
