"""The hospital's day: a treatment in instalments at no cost, and the consultation that comes with it."""

from typing import Any

from gateway.demo.ecommerce import greet
from gateway.demo.instalments import accept_best_offer, return_all
from gateway.demo.telling import Teller, short, yuan


async def tell(teller: Teller) -> None:
    """The whole story."""
    member = teller.client.credentials.members[6].sub
    await greet(teller, member)
    cart: dict[str, Any] = {
        "order_ref": f"{teller.run}-visit",
        "lines": [
            {
                "sku": "dental-implant",
                "name": "种植牙",
                "category": "dental",
                "quantity": 2,
                "unit_fen": 680_000,
            }
        ],
        "total_fen": 1_360_000,
    }
    plan = await accept_best_offer(teller, member, scenario="medical", cart=cart, periods=12)
    captured = await teller.client.post(f"/v1/plans/{plan}/captures", {})
    teller.say(f"treated: captured {yuan(captured['amount_fen'])}, plan {captured['plan']['state']}")
    schedule = await teller.client.get(f"/v1/plans/{plan}/schedule")
    first, last = schedule["rows"][0], schedule["rows"][-1]
    teller.say(
        f"{len(schedule['rows'])} instalments, first {yuan(first['due_fen'])} on {first['due_on']}, "
        f"last {yuan(last['due_fen'])} on {last['due_on']}"
    )
    await use_entitlement(teller, member)
    await return_all(teller, plan, total_fen=cart["total_fen"])


async def use_entitlement(teller: Teller, member: str) -> None:
    """The right that came with the plan, used once."""
    rights = (await teller.client.get(f"/v1/members/{member}/entitlements"))["data"]
    right = next(one for one in rights if one["kind"] == "health_consultation")
    teller.say(
        f"{short(member)} now has a right to {right['quantity']} {right['kind']}, until {right['expires_at'][:10]}"
    )
    used = await teller.client.post(
        f"/v1/entitlements/{right['id']}/use", {"use_ref": f"{teller.run}-consultation"}
    )
    teller.say(f"used {used['used']} of {used['quantity']} {used['kind']}, now {used['state']}")
