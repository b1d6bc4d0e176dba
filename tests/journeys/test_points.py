"""Points at the mall: earned once, held, captured in part, released, refunded; never twice and never too many."""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from gateway.client import ApiProblem, PartnerClient

Make = Callable[..., dict[str, Any]]
COPIES = 100


async def refused(client: PartnerClient, path: str, body: Any) -> tuple[int, str]:
    """Status and code of a call that must not succeed."""
    with pytest.raises(ApiProblem) as caught:
        await client.post(path, body)
    return caught.value.status, caught.value.code


async def balance(client: PartnerClient, member: str) -> tuple[int, int]:
    points = await client.get(f"/v1/members/{member}/points")
    return points["available_points"], points["held_points"]


async def test_an_order_earns_by_the_members_tier(ecommerce: PartnerClient, earning: Make) -> None:
    for member in ecommerce.credentials.members[:3]:
        standing = await ecommerce.get(f"/v1/members/{member.sub}/membership")
        assert (standing["bank_level"], standing["shop_level"]) == (member.bank_level, member.shop_level)
        earned = await ecommerce.post("/v1/points/earnings", earning(member.sub, amount_fen=129_900))
        assert earned["points"] == 129_900 * standing["multiplier_pct"] // 10_000
        assert sum(part["points"] for part in earned["components"]) == earned["points"]


async def test_an_order_earns_once_whatever_the_key(ecommerce: PartnerClient, earning: Make) -> None:
    member = ecommerce.credentials.members[4].sub
    body = earning(member)
    await ecommerce.post("/v1/points/earnings", body)
    before = await balance(ecommerce, member)
    assert await refused(ecommerce, "/v1/points/earnings", body) == (409, "source_already_earned")
    assert await balance(ecommerce, member) == before


async def test_a_hundred_copies_have_one_effect_and_one_answer(
    ecommerce: PartnerClient, earning: Make
) -> None:
    member = ecommerce.credentials.members[5].sub
    before, _ = await balance(ecommerce, member)
    body = msgspec.json.encode(earning(member))
    answers = await asyncio.gather(
        *(
            ecommerce.send("POST", "/v1/points/earnings", body, idempotency_key=f"copies-{member}")
            for _ in range(COPIES)
        )
    )
    assert {answer.status for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert sum("idempotency-replayed" not in answer.headers for answer in answers) == 1
    assert (await balance(ecommerce, member))[0] == before + answers[0].json()["points"]


async def test_the_same_key_with_another_body_is_refused(ecommerce: PartnerClient, earning: Make) -> None:
    member = ecommerce.credentials.members[5].sub
    await ecommerce.post("/v1/points/earnings", earning(member), idempotency_key=f"reused-{member}")
    with pytest.raises(ApiProblem) as caught:
        await ecommerce.post("/v1/points/earnings", earning(member), idempotency_key=f"reused-{member}")
    assert (caught.value.status, caught.value.code) == (422, "idempotency_key_reused")


async def test_a_partial_capture_spends_a_part_and_releases_the_rest(
    ecommerce: PartnerClient, earning: Make, ref: Callable[[], str]
) -> None:
    member = ecommerce.credentials.members[6].sub
    await ecommerce.post("/v1/points/earnings", earning(member))
    available, held = await balance(ecommerce, member)
    hold = await ecommerce.post("/v1/points/holds", _hold(member, 500, ref()))
    assert await balance(ecommerce, member) == (available - 500, held + 500)
    captured = await ecommerce.post(f"/v1/points/holds/{hold['id']}/capture", {"points": 300})
    assert (captured["captured_points"], captured["released_points"]) == (300, 200)
    assert await balance(ecommerce, member) == (available - 300, held)
    restored = await ecommerce.post(
        "/v1/points/reversals", {"operation_id": hold["id"], "refund_ref": ref(), "refunded_fen": 100}
    )
    assert restored["points_restored"] == 100
    assert await balance(ecommerce, member) == (available - 200, held)


@pytest.mark.parametrize("end", ["release", "capture"])
async def test_a_hold_ends_once(
    ecommerce: PartnerClient, earning: Make, ref: Callable[[], str], end: str
) -> None:
    member = ecommerce.credentials.members[7].sub
    await ecommerce.post("/v1/points/earnings", earning(member))
    hold = await ecommerce.post("/v1/points/holds", _hold(member, 10, ref()))
    path = f"/v1/points/holds/{hold['id']}"
    await ecommerce.post(f"{path}/{end}", {})
    before = await balance(ecommerce, member)
    for again in ("capture", "release"):
        assert await refused(ecommerce, f"{path}/{again}", {}) == (409, "hold_not_open")
    assert await balance(ecommerce, member) == before


async def test_more_than_the_balance_is_not_held(ecommerce: PartnerClient, ref: Callable[[], str]) -> None:
    member = ecommerce.credentials.members[8].sub
    before = await balance(ecommerce, member)
    body = _hold(member, before[0] + 1, ref())
    assert await refused(ecommerce, "/v1/points/holds", body) == (409, "insufficient_points")
    assert await balance(ecommerce, member) == before


async def test_partial_refunds_take_back_the_share_and_never_more_than_was_earned(
    ecommerce: PartnerClient, earning: Make, ref: Callable[[], str]
) -> None:
    member = ecommerce.credentials.members[9].sub
    earned = await ecommerce.post("/v1/points/earnings", earning(member, amount_fen=10_001))
    taken = 0
    for part in (3_334, 3_334, 3_333):
        body = {"operation_id": earned["id"], "refund_ref": ref(), "refunded_fen": part}
        taken += (await ecommerce.post("/v1/points/reversals", body))["points_clawed_back"]
    assert taken == earned["points"]
    more = {"operation_id": earned["id"], "refund_ref": ref(), "refunded_fen": 1}
    assert await refused(ecommerce, "/v1/points/reversals", more) == (422, "refund_exceeds_order")


async def test_a_batch_answers_each_item_by_itself(ecommerce: PartnerClient, earning: Make) -> None:
    member = ecommerce.credentials.members[10].sub
    twice = earning(member)
    items = [earning(member), twice, twice, earning("nobody"), earning(member, amount_fen=-1), {"foo": 1}]
    answer = await ecommerce.post("/v1/points/earnings/batch", {"items": items})
    codes = [result.get("problem", {}).get("code") for result in answer["results"]]
    assert codes == [None, None, "source_already_earned", "member_not_found", "item_invalid", "item_invalid"]


async def test_entries_number_a_wallets_history_without_a_gap(
    ecommerce: PartnerClient, earning: Make
) -> None:
    member = ecommerce.credentials.members[11].sub
    for _ in range(3):
        await ecommerce.post("/v1/points/earnings", earning(member))
    seen: list[int] = []
    cursor = ""
    while True:
        page = await ecommerce.get(f"/v1/members/{member}/points/entries?limit=2{cursor}")
        seen += [entry["seq"] for entry in page["data"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert seen == list(range(len(seen), 0, -1))
    assert len(seen) >= 3


def _hold(member: str, points: int, order_ref: str) -> dict[str, Any]:
    return {"member": member, "points": points, "order_ref": order_ref, "ttl_seconds": 600}
