"""Rewards in a fresh sandbox: earned points become a card, a fee that is waived, and a talk with a doctor."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

from gateway.client import PartnerClient

Make = Callable[..., dict[str, Any]]


async def shelf(client: PartnerClient, member: str) -> dict[str, Any]:
    """The newest reward of each kind that the member may have."""
    listed = (await client.get(f"/v1/rewards?member={member}"))["data"]
    return {reward["kind"]: reward for reward in reversed(listed)}


async def test_a_new_user_redeems_something_of_every_kind_at_once(
    ecommerce: PartnerClient, hospital: PartnerClient, earning: Make, ref: Callable[[], str]
) -> None:
    member = next(m.sub for m in ecommerce.credentials.members if m.bank_level == "private")
    await ecommerce.post("/v1/points/earnings", earning(member))
    offered = await shelf(ecommerce, member)
    assert set(offered) == {"gift_card", "fee_offset", "service"}
    before = (await ecommerce.get(f"/v1/members/{member}/points"))["available_points"]
    redeemed = {
        kind: await ecommerce.post(
            "/v1/redemptions", {"member": member, "reward": reward["id"], "redemption_ref": ref()}
        )
        for kind, reward in offered.items()
    }
    paths = {kind: f"/v1/redemptions/{redemption['id']}" for kind, redemption in redeemed.items()}

    code = (await ecommerce.send("POST", f"{paths['gift_card']}/code")).json()["code"]
    assert code.startswith("SANDBOX-")
    given = await hospital.post(f"{paths['service']}/fulfil")
    assert given["state"] == "fulfilled"
    until = time.monotonic() + 30
    while (await ecommerce.get(paths["fee_offset"]))["state"] == "fulfilling":
        assert time.monotonic() < until, "the worker did not ask the sandbox's fee system"
        await asyncio.sleep(0.05)
    states = {kind: (await ecommerce.get(path))["state"] for kind, path in paths.items()}
    assert set(states.values()) == {"fulfilled"}
    after = await ecommerce.get(f"/v1/members/{member}/points")
    price = sum(reward["price_points"] for reward in offered.values())
    assert (after["available_points"], after["held_points"]) == (before - price, 0)
