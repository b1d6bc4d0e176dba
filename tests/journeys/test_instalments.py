"""A purchase in instalments: searched, quoted, disclosed, accepted once, captured, refunded by one statement."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from gateway.client import ApiProblem, PartnerClient
from kernel.calendar import rfc3339

Ref = Callable[[], str]


def cart_of(ref: str, *, unit_fen: int = 200_000) -> dict[str, Any]:
    line = {
        "sku": "washer-9",
        "name": "洗衣机",
        "category": "appliances",
        "quantity": 1,
        "unit_fen": unit_fen,
    }
    return {"order_ref": ref, "lines": [line], "total_fen": unit_fen}


async def quote_of(
    client: PartnerClient,
    member: str,
    cart: dict[str, Any],
    *,
    scenario: str = "ecom_checkout",
    periods: int = 6,
) -> dict[str, Any]:
    found = await client.post("/v1/offers/search", {"scenario": scenario, "member": member, "cart": cart})
    version = found["offers"][0]["offer_version"]
    body = {"offer_version": version, "member": member, "cart": cart, "periods": periods}
    quote: dict[str, Any] = await client.post("/v1/quotes", body)
    return quote


async def disclose(client: PartnerClient, quote: dict[str, Any], **changes: Any) -> None:
    shown = {
        "hash": quote["disclosure"]["hash"],
        "displayed_seconds": quote["disclosure"]["min_read_seconds"],
        "confirmed_at": rfc3339(datetime.now(UTC)),
    }
    await client.post(f"/v1/quotes/{quote['id']}/disclosure", shown | changes)


async def refused(client: PartnerClient, path: str, body: Any) -> tuple[int, str]:
    with pytest.raises(ApiProblem) as caught:
        await client.post(path, body)
    return caught.value.status, caught.value.code


async def test_the_mall_sells_in_instalments_and_takes_a_part_back(
    ecommerce: PartnerClient, ref: Ref
) -> None:
    member = ecommerce.credentials.members[12].sub
    cart = cart_of(ref())
    quote = await quote_of(ecommerce, member, cart)
    assert sum(row["principal_fen"] for row in quote["schedule"]) == quote["amount_financed_fen"]
    assert quote["amount_financed_fen"] + quote["discount_fen"] == cart["total_fen"]
    await disclose(ecommerce, quote)
    accepted = await ecommerce.post(f"/v1/quotes/{quote['id']}/accept", {"cart": cart, "jws": quote["jws"]})
    plan = accepted["plan"]
    assert (accepted["application"]["decision"]["outcome"], plan["state"]) == ("approved", "authorised")
    captured = await ecommerce.post(f"/v1/plans/{plan['id']}/captures", {})
    assert captured["plan"]["state"] == "active"
    body = {"refund_ref": ref(), "amount_fen": 50_000}
    preview = await ecommerce.post(f"/v1/plans/{plan['id']}/refunds/preview", body)
    statement = await ecommerce.post(f"/v1/plans/{plan['id']}/refunds", body)
    assert preview | {"id": statement["id"]} == statement
    assert statement["principal_reduced_fen"] + statement["discount_reversed_fen"] == 50_000
    rest = {"refund_ref": ref(), "amount_fen": cart["total_fen"] - 50_000}
    assert (await ecommerce.post(f"/v1/plans/{plan['id']}/refunds", rest))["plan_state"] == "fully_refunded"


async def test_the_hospitals_plan_brings_a_consultation(hospital: PartnerClient, ref: Ref) -> None:
    member = hospital.credentials.members[13].sub
    quote = await quote_of(hospital, member, cart_of(ref()), scenario="medical", periods=12)
    await disclose(hospital, quote)
    accepted = await hospital.post(f"/v1/quotes/{quote['id']}/accept", {})
    await hospital.post(f"/v1/plans/{accepted['plan']['id']}/captures", {})
    rights = (await hospital.get(f"/v1/members/{member}/entitlements"))["data"]
    assert [right["kind"] for right in rights] == ["health_consultation"]
    used = await hospital.post(f"/v1/entitlements/{rights[0]['id']}/use", {"use_ref": ref()})
    assert used["used"] == 1
    again = await refused(hospital, f"/v1/entitlements/{rights[0]['id']}/use", {"use_ref": ref()})
    assert again[0] == 409


async def test_a_quote_is_accepted_once(ecommerce: PartnerClient, ref: Ref) -> None:
    quote = await quote_of(ecommerce, ecommerce.credentials.members[14].sub, cart_of(ref()))
    await disclose(ecommerce, quote)
    path = f"/v1/quotes/{quote['id']}/accept"
    first = await ecommerce.post(path, {}, idempotency_key=f"accept-{quote['id']}")
    assert await ecommerce.post(path, {}, idempotency_key=f"accept-{quote['id']}") == first
    assert await refused(ecommerce, path, {}) == (409, "quote_already_accepted")
    await ecommerce.post(f"/v1/plans/{first['plan']['id']}/void", {})


async def test_a_changed_cart_is_not_what_was_quoted(ecommerce: PartnerClient, ref: Ref) -> None:
    cart = cart_of(ref())
    quote = await quote_of(ecommerce, ecommerce.credentials.members[14].sub, cart)
    await disclose(ecommerce, quote)
    path = f"/v1/quotes/{quote['id']}/accept"
    changed = cart_of(cart["order_ref"], unit_fen=cart["total_fen"] + 1)
    assert (await refused(ecommerce, path, {"cart": changed}))[1] == "cart_changed"
    assert (await ecommerce.get(f"/v1/quotes/{quote['id']}"))["state"] == "disclosed"


async def test_nothing_is_accepted_that_was_not_shown(ecommerce: PartnerClient, ref: Ref) -> None:
    quote = await quote_of(ecommerce, ecommerce.credentials.members[14].sub, cart_of(ref()))
    path = f"/v1/quotes/{quote['id']}/accept"
    assert (await refused(ecommerce, path, {}))[1] == "disclosure_missing"
    with pytest.raises(ApiProblem) as hurried:
        await disclose(ecommerce, quote, displayed_seconds=0)
    assert hurried.value.code == "disclosure_too_short"
    with pytest.raises(ApiProblem) as other:
        await disclose(ecommerce, quote, hash="0" * 64)
    assert other.value.code == "disclosure_mismatch"


async def test_another_partners_plan_is_as_absent_as_none(
    ecommerce: PartnerClient, hospital: PartnerClient, ref: Ref
) -> None:
    quote = await quote_of(ecommerce, ecommerce.credentials.members[14].sub, cart_of(ref()))
    await disclose(ecommerce, quote)
    plan = (await ecommerce.post(f"/v1/quotes/{quote['id']}/accept", {}))["plan"]["id"]
    for path in (f"/v1/plans/{plan}", f"/v1/plans/{plan}/schedule", f"/v1/quotes/{quote['id']}"):
        with pytest.raises(ApiProblem) as caught:
            await hospital.get(path)
        assert caught.value.status == 404
    assert (await refused(hospital, f"/v1/plans/{plan}/captures", {}))[0] == 404
    assert (await refused(hospital, f"/v1/plans/{plan}/void", {}))[0] == 404
    await ecommerce.post(f"/v1/plans/{plan}/void", {})
