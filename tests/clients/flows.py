"""What every third-party client must be able to do; each client's file takes these tests as its own."""

import base64
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from clients.third_party import Configure, Refused, ThirdParty
from served import Platform

from kernel.calendar import rfc3339

__all__ = [
    "test_a_proof_by_another_key_is_refused",
    "test_a_scope_the_app_does_not_have_is_refused",
    "test_a_write_is_sent_again_with_the_servers_nonce",
    "test_client_credentials_give_a_token_that_calls_the_api",
    "test_points_are_earned",
    "test_the_metadata_is_understood",
]


def claims_of(token: dict[str, Any]) -> dict[str, Any]:
    """What an access token says; clients need not look inside, tests may."""
    body = token["access_token"].split(".")[1]
    return dict(msgspec.json.decode(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))))


async def test_the_metadata_is_understood(client: ThirdParty, platform: Platform) -> None:
    assert client.metadata["issuer"] == platform.base_url
    assert "private_key_jwt" in client.metadata["token_endpoint_auth_methods_supported"]
    assert "ES256" in client.metadata["dpop_signing_alg_values_supported"]


async def test_client_credentials_give_a_token_that_calls_the_api(
    client: ThirdParty, platform: Platform
) -> None:
    token = await client.token(scope="points:earn members:read")
    assert token["token_type"].lower() == "dpop"
    assert set(token["scope"].split()) == {"points:earn", "members:read"}
    assert claims_of(token)["aud"] == f"{platform.base_url}/v1"
    answer = await client.call(token, "GET", f"{platform.base_url}/v1/me")
    assert answer.status == 200
    assert msgspec.json.decode(answer.body)["app"]["client_id"] == platform.partner("ecommerce").client_id


async def test_points_are_earned(client: ThirdParty, platform: Platform) -> None:
    token = await client.token(scope="points:earn")
    earning = {
        "member": platform.partner("ecommerce").members[0].sub,
        "source_ref": f"t-{uuid4().hex[:16]}",
        "kind": "purchase",
        "occurred_at": rfc3339(datetime.now(UTC)),
        "amount_fen": 129_900,
    }
    answer = await client.call(token, "POST", f"{platform.base_url}/v1/points/earnings", earning)
    assert answer.status == 201, answer.body
    assert msgspec.json.decode(answer.body)["points"] >= 1_299


async def test_a_write_is_sent_again_with_the_servers_nonce(configure: Configure, platform: Platform) -> None:
    bindings = f"{platform.base_url}/v1/members/bindings"
    async with configure(platform.strict_app()) as client:
        token = await client.token(scope="points:earn")
        for ref in ("c-1", "c-2"):
            answer = await client.call(token, "POST", bindings, {"customer_refs": [ref]})
            assert answer.status == 200, answer.body
            assert answer.headers["dpop-nonce"]


async def test_a_scope_the_app_does_not_have_is_refused(client: ThirdParty) -> None:
    with pytest.raises(Refused) as refused:
        await client.token(scope="leads:write")
    assert refused.value.error == "invalid_scope"


async def test_a_proof_by_another_key_is_refused(
    client: ThirdParty, thief: ThirdParty, platform: Platform
) -> None:
    stolen = await client.token()
    with pytest.raises(Refused) as refused:
        await thief.call(stolen, "GET", f"{platform.base_url}/v1/me")
    assert refused.value.error == "invalid_dpop_proof"
