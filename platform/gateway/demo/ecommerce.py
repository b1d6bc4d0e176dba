"""The mall's day: points for an order, points spent at the checkout, a purchase in instalments and its partial return."""

from typing import Any

from gateway.demo.instalments import accept_best_offer, return_all, show_statement
from gateway.demo.telling import Teller, short, yuan
from kernel.calendar import rfc3339
from kernel.clock import SystemClock

ORDER_FEN = 129_900
HOLD_POINTS = 500
CAPTURED_POINTS = 300
REFUND_FEN = 30_000


async def tell(teller: Teller) -> None:
    """The whole story."""
    member = teller.client.credentials.members[-5].sub
    me = await teller.client.get("/v1/me")
    teller.say(f"is {me['name']['zh']} {me['name']['en']}, with {len(me['app']['token_scopes'])} scopes")
    await greet(teller, member)
    await earn_twice(teller, member)
    await pay_with_points(teller, member)
    await buy_in_instalments(teller, member)


async def greet(teller: Teller, member: str) -> None:
    """Who the member is to the bank."""
    standing = await teller.client.get(f"/v1/members/{member}/membership")
    points = await teller.client.get(f"/v1/members/{member}/points")
    teller.say(
        f"{short(member)} is {standing['tier']} ({standing['bank_level']} × {standing['shop_level']}), "
        f"points count {standing['multiplier_pct']} %, balance {points['available_points']:,} points"
    )


async def earn(
    teller: Teller, member: str, *, number: int, amount_fen: int, kind: str = "purchase", **facts: Any
) -> dict[str, Any]:
    """Points for an order."""
    order = f"{teller.run}-{number}"
    body = {
        "member": member,
        "source_ref": order,
        "kind": kind,
        "occurred_at": rfc3339(SystemClock().now()),
        "amount_fen": amount_fen,
        **facts,
    }
    earning: dict[str, Any] = await teller.client.post("/v1/points/earnings", body)
    parts = ", ".join(f"{part['rule']} {part['points']:,}" for part in earning["components"])
    teller.say(
        f"earned {earning['points']:,} points for {kind} {order} ({yuan(amount_fen)}; {parts}) · {short(member)} · "
        f"balance {earning['balance']['available_points']:,}"
    )
    return earning


async def earn_twice(teller: Teller, member: str) -> None:
    """An order earns once for ever; a partial refund takes its share back."""
    earning = await earn(teller, member, number=1, amount_fen=ORDER_FEN, category="appliances", own_card=True)
    again = {
        "member": member,
        "source_ref": f"{teller.run}-1",
        "kind": "purchase",
        "occurred_at": rfc3339(SystemClock().now()),
        "amount_fen": ORDER_FEN,
    }
    await teller.expect_refusal(
        f"order {teller.run}-1 a second time", "/v1/points/earnings", again, code="source_already_earned"
    )
    refund = {
        "operation_id": earning["id"],
        "refund_ref": f"{teller.run}-1-r1",
        "refunded_fen": REFUND_FEN,
    }
    reversal = await teller.client.post("/v1/points/reversals", refund)
    teller.say(
        f"took back {reversal['points_clawed_back']:,} points for {yuan(REFUND_FEN)} returned of order {teller.run}-1 · "
        f"balance {reversal['balance']['available_points']:,}"
    )


async def pay_with_points(teller: Teller, member: str) -> None:
    """Hold, capture a part; hold, release; hold more than there is."""
    path = "/v1/points/holds"
    quote = await teller.client.post("/v1/points/quotes", {"member": member, "order_amount_fen": ORDER_FEN})
    teller.say(
        f"could take up to {quote['max_points']:,} points, worth {yuan(quote['value_fen'])}, for an order"
    )
    hold = await teller.client.post(path, _hold(teller, member, 2, HOLD_POINTS))
    teller.say(f"held {hold['points']:,} points ({yuan(hold['value_fen'])}) for order {teller.run}-2")
    captured = await teller.client.post(f"{path}/{hold['id']}/capture", {"points": CAPTURED_POINTS})
    teller.say(
        f"captured {captured['captured_points']:,} of them ({yuan(captured['value_fen'])}), "
        f"released {captured['released_points']:,}"
    )
    hold = await teller.client.post(path, _hold(teller, member, 3, HOLD_POINTS))
    released = await teller.client.post(f"{path}/{hold['id']}/release")
    teller.say(f"held {hold['points']:,} points for order {teller.run}-3, customer left: {released['state']}")
    await teller.expect_refusal(
        f"a capture of the released hold of order {teller.run}-3",
        f"{path}/{hold['id']}/capture",
        {},
        code="hold_not_open",
    )
    await teller.expect_refusal(
        "a hold of 9,000,000 points", path, _hold(teller, member, 4, 9_000_000), code="insufficient_points"
    )


def _hold(teller: Teller, member: str, number: int, points: int) -> dict[str, Any]:
    return {
        "member": member,
        "points": points,
        "order_ref": f"{teller.run}-{number}",
        "ttl_seconds": 900,
    }


async def buy_in_instalments(teller: Teller, member: str) -> None:
    """Search, quote, disclose, accept, deliver, and take one article back."""
    cart: dict[str, Any] = {
        "order_ref": f"{teller.run}-5",
        "lines": [
            {
                "sku": "fridge-520",
                "name": "冰箱 520L",
                "category": "appliances",
                "quantity": 1,
                "unit_fen": 459_900,
            },
            {
                "sku": "kettle-17",
                "name": "电水壶",
                "category": "appliances",
                "quantity": 2,
                "unit_fen": 15_000,
            },
        ],
        "total_fen": 489_900,
    }
    plan = await accept_best_offer(
        teller, member, scenario="ecom_checkout", cart=cart, periods=6, points_to_spend=CAPTURED_POINTS
    )
    captured = await teller.client.post(f"/v1/plans/{plan}/captures", {})
    teller.say(
        f"delivered order {teller.run}-5: captured {yuan(captured['amount_fen'])}, "
        f"earned {captured['points_earned']:,} points, plan {captured['plan']['state']}"
    )
    statement = await teller.client.post(
        f"/v1/plans/{plan}/refunds", {"refund_ref": f"{teller.run}-5-r1", "amount_fen": REFUND_FEN}
    )
    show_statement(teller, statement)
    await return_all(teller, plan, already_fen=REFUND_FEN, total_fen=cart["total_fen"])
