"""Who pays for points is told of the bank and of oneself; with whom else the bank has agreed stays between those two."""

from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest

from gateway.client import PartnerClient
from gateway.runtime import Runtime
from kernel.database import transaction
from points.earning import campaigns
from points.earning.definitions import CampaignDefinition
from points.ledger import service as ledger
from points.ledger.funder_model import Terms

HOUR = timedelta(hours=1)


async def partner_id(runtime: Runtime, partner: PartnerClient) -> UUID:
    async with transaction(runtime.pool) as connection:
        found: UUID = await connection.fetchval(
            "SELECT partner_id FROM registry_app WHERE client_id = $1", partner.credentials.client_id
        )
    return found


async def run_campaign(runtime: Runtime, *, at: UUID, funder: str, owner: UUID) -> str:
    """The code of a running campaign at one partner whose points `owner` pays for."""
    now, code = runtime.clock.now(), f"test-{uuid4().hex[:10]}"
    definition: dict[str, Any] = {
        "code": code,
        "name_zh": "活动",
        "name_en": "Campaign",
        "starts_at": now - 2 * HOUR,
        "ends_at": now + HOUR,
        "partner_ids": [at],
        "multiplier_pct": 200,
        "named_only": True,
        "shares": [{"funder": funder, "validity_months": 1}],
    }
    async with transaction(runtime.pool) as connection:
        await ledger.register_funder(
            connection,
            code=funder,
            kind="partner",
            partner_id=owner,
            terms=Terms(effective_on=now.date() - timedelta(days=1), billing="bank"),
            actor="test",
            now=now,
        )
        wanted = msgspec.convert(definition, CampaignDefinition)
        await campaigns.propose_campaign(connection, wanted, by="maker", now=now - HOUR)
        await campaigns.approve_campaign(connection, code, by="checker", now=now - HOUR)
    return code


@pytest.mark.parametrize("own", [True, False])
async def test_a_funder_is_told_to_its_owner_alone_wherever_it_shows(
    runtime: Runtime, partner: PartnerClient, own: bool
) -> None:
    ours = await partner_id(runtime, partner)
    funder = f"partner:f{uuid4().hex[:10]}"
    code = await run_campaign(runtime, at=ours, funder=funder, owner=ours if own else uuid4())
    bound = await partner.post("/v1/members/bindings", {"customer_refs": [str(uuid4())]})
    member = bound["bindings"][0]["member"]

    def earning() -> dict[str, Any]:
        return {
            "member": member,
            "source_ref": str(uuid4()),
            "kind": "purchase",
            "occurred_at": runtime.clock.now().isoformat(),
            "amount_fen": 10_000,
            "campaign": code,
        }

    told = ["bank", funder if own else None]
    preview = await partner.post("/v1/points/dry_runs/earn", earning())
    assert [part["funder"] for part in preview["components"]] == told
    single = await partner.post("/v1/points/earnings", earning())
    assert [part["funder"] for part in single["components"]] == told
    batch = await partner.post("/v1/points/earnings/batch", {"items": [earning()]})
    assert [part["funder"] for part in batch["results"][0]["earning"]["components"]] == told
    explained = await partner.get(f"/v1/points/operations/{single['id']}")
    assert [lot["funder"] for lot in explained["lots"]] == told
    assert [lot["campaign"] for lot in explained["lots"]] == [None, code]
    spent = await partner.post("/v1/points/spends", {"member": member, "points": 300, "order_ref": "o"})
    for answer in (
        await partner.get(f"/v1/points/operations/{spent['id']}"),
        await partner.post("/v1/points/dry_runs/spend", {"member": member, "points": 100}),
    ):
        assert {lot["funder"] for lot in answer["lots"]} <= set(told)
    everything = await partner.get("/v1/events?limit=100")
    assert own or funder not in msgspec.json.encode([single, batch, explained, everything]).decode()


async def test_a_spend_does_not_say_in_whose_campaign_its_points_were_earned(
    runtime: Runtime, partner: PartnerClient
) -> None:
    ours = await partner_id(runtime, partner)
    code = await run_campaign(runtime, at=ours, funder=f"partner:f{uuid4().hex[:10]}", owner=uuid4())
    bound = await partner.post("/v1/members/bindings", {"customer_refs": [str(uuid4())]})
    member = bound["bindings"][0]["member"]
    await partner.post(
        "/v1/points/earnings",
        {
            "member": member,
            "source_ref": str(uuid4()),
            "kind": "purchase",
            "occurred_at": runtime.clock.now().isoformat(),
            "amount_fen": 10_000,
            "campaign": code,
        },
    )
    spent = await partner.post("/v1/points/spends", {"member": member, "points": 200, "order_ref": "o"})
    explained = await partner.get(f"/v1/points/operations/{spent['id']}")
    assert len(explained["lots"]) == 2
    assert {lot["campaign"] for lot in explained["lots"]} == {None}
