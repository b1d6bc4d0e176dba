"""From a cart to an authorised plan, and the statement of a refund, as both credit stories tell them."""

from typing import Any

from gateway.demo.telling import Teller, percent, yuan
from kernel.calendar import rfc3339
from kernel.clock import SystemClock

READ_SECONDS = 8


async def accept_best_offer(
    teller: Teller,
    member: str,
    *,
    scenario: str,
    cart: dict[str, Any],
    periods: int,
    points_to_spend: int = 0,
) -> str:
    """Search, quote, disclose, accept; returns the plan's id."""
    found = await teller.client.post(
        "/v1/offers/search",
        {"scenario": scenario, "member": member, "cart": cart, "personalised": True},
    )
    offer = found["offers"][0]
    teller.say(
        f"found {len(found['offers'])} offer for {yuan(cart['total_fen'])}: {offer['title']['zh']} "
        f"({offer['title']['en']}), because {', '.join(offer['rank_reasons'])}"
    )
    request = {"offer_version": offer["offer_version"], "member": member, "cart": cart, "periods": periods}
    if points_to_spend:
        request["points_to_spend"] = points_to_spend
    quote = await teller.client.post("/v1/quotes", request)
    _show_quote(teller, quote)
    shown = {
        "hash": quote["disclosure"]["hash"],
        "displayed_seconds": max(READ_SECONDS, quote["disclosure"]["min_read_seconds"]),
        "confirmed_at": rfc3339(SystemClock().now()),
    }
    await teller.client.post(f"/v1/quotes/{quote['id']}/disclosure", shown)
    teller.say(
        f"showed the cost table of {len(quote['disclosure']['rows'])} rows for {shown['displayed_seconds']} s; confirmed"
    )
    accepted = await teller.client.post(
        f"/v1/quotes/{quote['id']}/accept", {"cart": cart, "jws": quote["jws"]}
    )
    plan: str = accepted["plan"]["id"]
    teller.say(
        f"accepted: application {accepted['application']['decision']['outcome']}, plan …{plan[-4:]} "
        f"{accepted['plan']['state']} for {yuan(quote['amount_financed_fen'])}"
    )
    await teller.expect_refusal(
        "the same quote a second time", f"/v1/quotes/{quote['id']}/accept", {}, code="quote_already_accepted"
    )
    return plan


async def return_all(teller: Teller, plan: str, *, total_fen: int, already_fen: int = 0) -> None:
    """Give everything back, which also frees the member's credit line for the next run."""
    rest_fen = total_fen - already_fen
    statement = await teller.client.post(
        f"/v1/plans/{plan}/refunds", {"refund_ref": f"{plan}-all", "amount_fen": rest_fen}
    )
    teller.say(
        f"took everything else back ({yuan(rest_fen)}): principal reduced by "
        f"{yuan(statement['principal_reduced_fen'])}, plan …{plan[-4:]} {statement['plan_state']}"
    )


def _show_quote(teller: Teller, quote: dict[str, Any]) -> None:
    rows = quote["schedule"]
    teller.say(
        f"quoted {yuan(quote['amount_financed_fen'])} in {len(rows)} instalments of {yuan(rows[0]['due_fen'])}, "
        f"discount {yuan(quote['discount_fen'])}, {quote['points']['spend']:,} points "
        f"({yuan(quote['points']['value_fen'])}), annual cost {percent(quote['annual_rate_compound_ppm'])}"
    )
    paid = "; ".join(
        f"{part['funder']} pays {yuan(part['amount_fen'])} {part['kind']}" for part in quote["funding"]
    )
    teller.say(f"funding: {paid}")


def show_statement(teller: Teller, statement: dict[str, Any]) -> None:
    """What a refund did, part by part."""
    teller.say(f"refunded {yuan(statement['amount_fen'])} of the order; the statement:")
    for title, name in _AMOUNTS:
        if statement[name]:
            teller.say(f"    {title:<34} {yuan(statement[name]):>12}")
    for part in statement["subsidy_reversed"]:
        teller.say(f"    {'subsidy of ' + part['funder'] + ' reversed':<34} {yuan(part['amount_fen']):>12}")
    for title, name in _COUNTS:
        if statement[name]:
            teller.say(f"    {title:<34} {statement[name]:>12,}")
    teller.say(f"    {'the plan is now':<34} {statement['plan_state']:>12}")


_AMOUNTS = (
    ("authorisation released", "uncaptured_released_fen"),
    ("principal reduced", "principal_reduced_fen"),
    ("cash to the customer", "cash_to_customer_fen"),
    ("interest refunded", "interest_refund_fen"),
    ("fees refunded", "fee_refund_fen"),
    ("discount reversed", "discount_reversed_fen"),
    ("down payment returned", "down_payment_returned_fen"),
    ("paid with points", "points_value_fen"),
)
_COUNTS = (
    ("points given back", "points_restored"),
    ("points taken back", "points_clawed_back"),
    ("points now owed", "arrears_added"),
    ("entitlements revoked", "entitlements_revoked"),
)
