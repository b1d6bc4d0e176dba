"""What every third-party client must be able to do for a member who agrees; each client's file takes these tests as its own."""

from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from clients.flows import claims_of
from clients.member import Member
from clients.third_party import Refused, ThirdParty
from served import Platform

__all__ = [
    "test_a_detail_is_granted_and_told",
    "test_a_member_agrees_and_the_client_acts_for_the_member",
    "test_a_member_who_declines_is_reported_to_the_client",
    "test_a_refresh_token_gives_another_token_for_the_member",
    "test_a_token_is_looked_at_ended_and_looked_at",
    "test_a_token_nobody_knows_is_revoked_without_a_word",
    "test_a_wrong_detail_is_refused",
    "test_an_answer_of_another_issuer_is_not_believed",
]

CALLBACK = "http://127.0.0.1:8765/callback"
SCOPE = "members:read points:earn"


async def test_a_member_agrees_and_the_client_acts_for_the_member(
    client: ThirdParty, member: Member, platform: Platform
) -> None:
    token = await authorize(client, member)
    claims = claims_of(token)
    assert claims["sub"] not in (client.metadata["issuer"], platform.partner("ecommerce").client_id)
    assert set(token["scope"].split()) == set(SCOPE.split())
    points = f"{platform.base_url}/v1/members/{claims['sub']}/points"
    assert (await client.call(token, "GET", points)).status == 200


async def test_a_member_who_declines_is_reported_to_the_client(client: ThirdParty, member: Member) -> None:
    address = await client.push(redirect_uri=CALLBACK, scope=SCOPE)
    answer = await member.decline(address)
    with pytest.raises(Refused) as refused:
        await client.redeem(address, answer)
    assert refused.value.error == "access_denied"


async def test_an_answer_of_another_issuer_is_not_believed(client: ThirdParty, member: Member) -> None:
    address = await client.push(redirect_uri=CALLBACK, scope=SCOPE)
    answer = await member.agree(address)
    ours = quote(client.metadata["issuer"], safe="")
    assert ours in answer
    with pytest.raises(Refused):
        await client.redeem(address, answer.replace(ours, quote("https://other.example", safe="")))


async def test_a_detail_is_granted_and_told(client: ThirdParty, member: Member) -> None:
    limit = {"type": "points_spend", "max_points": 500}
    details = msgspec.json.encode([limit]).decode()
    token = await authorize(client, member, scope="points:spend", authorization_details=details)
    assert token["authorization_details"] == [limit]
    assert claims_of(token)["authorization_details"] == [limit]


async def test_a_wrong_detail_is_refused(client: ThirdParty) -> None:
    details = msgspec.json.encode([{"type": "points_spend", "max_points": 0}]).decode()
    with pytest.raises(Refused) as refused:
        await client.push(redirect_uri=CALLBACK, scope=SCOPE, authorization_details=details)
    assert refused.value.error == "invalid_authorization_details"


async def test_a_refresh_token_gives_another_token_for_the_member(
    client: ThirdParty, member: Member, platform: Platform
) -> None:
    first = await authorize(client, member)
    second = await client.refresh(first)
    assert second["access_token"] != first["access_token"]
    assert claims_of(second)["sub"] == claims_of(first)["sub"]
    points = f"{platform.base_url}/v1/members/{claims_of(second)['sub']}/points"
    assert (await client.call(second, "GET", points)).status == 200


async def test_a_token_is_looked_at_ended_and_looked_at(client: ThirdParty, member: Member) -> None:
    token = await authorize(client, member)
    seen = await client.introspect(token["access_token"])
    assert seen["active"] is True
    assert seen["sub"] == claims_of(token)["sub"]
    assert (await client.introspect(token["refresh_token"]))["active"] is True
    await client.revoke(token["refresh_token"])
    for ended in (token["access_token"], token["refresh_token"]):
        assert await client.introspect(ended) == {"active": False}
    with pytest.raises(Refused) as refused:
        await client.refresh(token)
    assert refused.value.error == "invalid_grant"


async def test_a_token_nobody_knows_is_revoked_without_a_word(client: ThirdParty) -> None:
    await client.revoke("unknown")
    assert await client.introspect("unknown") == {"active": False}


async def authorize(client: ThirdParty, member: Member, **parameters: str) -> dict[str, Any]:
    """The tokens of a member who agrees."""
    address = await client.push(**{"redirect_uri": CALLBACK, "scope": SCOPE, **parameters})
    return await client.redeem(address, await member.agree(address))
