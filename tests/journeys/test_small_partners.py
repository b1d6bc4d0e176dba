"""The academy and the tax service: they read the tier and give points, and may do no more."""

from collections.abc import Callable
from typing import Any

import pytest

from gateway.client import ApiProblem, PartnerClient

Make = Callable[..., dict[str, Any]]


async def test_the_academy_rewards_tuition(education: PartnerClient, earning: Make) -> None:
    member = education.credentials.members[0]
    standing = await education.get(f"/v1/members/{member.sub}/membership")
    body = earning(member.sub, kind="tuition", amount_fen=268_000)
    earned = await education.post("/v1/points/earnings", body)
    assert earned["points"] == 268_000 * standing["multiplier_pct"] // 10_000


async def test_the_tax_service_rewards_a_return(tax: PartnerClient, earning: Make) -> None:
    earned = await tax.post("/v1/points/earnings", earning(tax.credentials.members[1].sub, kind="tax"))
    assert earned["balance"]["available_points"] >= earned["points"] > 0


async def test_partners_know_a_member_by_different_names(
    education: PartnerClient, tax: PartnerClient, ecommerce: PartnerClient, hospital: PartnerClient
) -> None:
    names = [{m.sub for m in client.credentials.members} for client in (education, tax, ecommerce, hospital)]
    assert len(set.union(*names)) == sum(map(len, names)) == 80


async def test_another_partners_name_for_a_member_means_nothing(
    education: PartnerClient, tax: PartnerClient, earning: Make
) -> None:
    foreign = tax.credentials.members[0].sub
    with pytest.raises(ApiProblem) as read:
        await education.get(f"/v1/members/{foreign}/points")
    with pytest.raises(ApiProblem) as written:
        await education.post("/v1/points/earnings", earning(foreign))
    assert {(p.value.status, p.value.code) for p in (read, written)} == {(404, "member_not_found")}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/points/holds", {"points": 1, "order_ref": "x", "ttl_seconds": 60}),
        ("/v1/points/quotes", {"order_amount_fen": 100}),
    ],
)
async def test_spending_needs_its_scope(tax: PartnerClient, path: str, body: dict[str, Any]) -> None:
    with pytest.raises(ApiProblem) as caught:
        await tax.post(path, body | {"member": tax.credentials.members[0].sub})
    assert (caught.value.status, caught.value.code) == (403, "insufficient_scope")
    assert "points:spend" in caught.value.document["scope"]
