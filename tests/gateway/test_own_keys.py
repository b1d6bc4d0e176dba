"""A partner rotates and revokes its keys over HTTP, with assertions signed by the keys in question."""

import asyncio
from typing import Any

import httpx
import pytest
from partner_client import generate, private_jwk

from gateway.client import ApiProblem, PartnerClient
from gateway.credentials import SigningKey


def successor(partner: PartnerClient, kid: str) -> tuple[dict[str, Any], PartnerClient]:
    """The next public key, and a client that signs with its private half."""
    key = SigningKey.generate()
    credentials = partner.credentials.__class__(
        **{name: getattr(partner.credentials, name) for name in partner.credentials.__struct_fields__}
        | {"kid": kid, "private_jwk": key.private_jwk()}
    )
    return key.public_jwk | {"kid": kid}, PartnerClient(credentials, http=partner._http, deadline_seconds=5.0)


async def listed(partner: PartnerClient) -> dict[str, str]:
    return {key["kid"]: key["status"] for key in (await partner.get("/v1/keys"))["data"]}


async def ask(http: httpx.AsyncClient, partner: PartnerClient) -> tuple[int, str]:
    form = {
        "grant_type": "client_credentials",
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "client_assertion": partner.make_assertion(),
    }
    answer = await http.post(
        "/oauth2/token", data=form, headers={"dpop": partner.make_proof("POST", "/oauth2/token")}
    )
    return answer.status_code, answer.json().get("error", "")


async def test_row_28_a_key_rotates_without_a_gap_and_ends_when_it_is_revoked(
    partner: PartnerClient, http: httpx.AsyncClient
) -> None:
    jwk, new = successor(partner, "next")
    added = await partner.post("/v1/keys", {"jwk": jwk, "overlap_days": 1})
    assert (added["status"], added["not_after"], added["activated_at"]) == ("pending", None, None)
    assert await listed(partner) == {"next": "pending", "test": "active"}
    assert await ask(http, partner) == (200, "")

    crowd = await asyncio.gather(*(ask(http, new) for _ in range(20)))
    assert crowd == [(200, "")] * 20
    assert await listed(new) == {"next": "active", "test": "retiring"}
    assert await ask(http, partner) == (200, ""), "the old key is good during the overlap"

    revoked = await new.post("/v1/keys/test/revoke")
    assert (revoked["kid"], revoked["status"]) == ("test", "revoked")
    assert await ask(http, partner) == (401, "invalid_client")
    assert await ask(http, new) == (200, "")


async def test_a_revoked_keys_tokens_end_with_it(partner: PartnerClient, http: httpx.AsyncClient) -> None:
    token, token_hash = await partner._current_token()
    jwk, new = successor(partner, "next")
    await partner.post("/v1/keys", {"jwk": jwk})
    assert await ask(http, new) == (200, "")
    await partner.post("/v1/keys/test/revoke")

    async def call() -> int:
        headers = {
            "authorization": f"DPoP {token}",
            "dpop": partner.make_proof("GET", "/v1/me", token_hash=token_hash),
        }
        return (await http.get("/v1/me", headers=headers)).status_code

    # The directory's answer is less than a second old; the epoch it names is no more than that.
    async with asyncio.timeout(5):
        while await call() == 200:
            pass
    assert await call() == 401


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 422, "validation_failed"),
        ({"jwk": []}, 422, "validation_failed"),
        ({"jwk": {"kty": "EC"}, "overlap_days": 31}, 422, "validation_failed"),
        ({"jwk": {"kty": "EC"}, "status": "active"}, 422, "validation_failed"),
        ({"jwk": {"kty": "EC", "kid": "a"}}, 422, "key_not_supported"),
        ({"jwk": private_jwk("ES256", generate("ES256")) | {"kid": "a"}}, 422, "private_key_sent"),
        ({"jwk": {"kty": "EC", "x5u": "https://x.example/"}}, 422, "key_elsewhere"),
    ],
)
async def test_a_hostile_key_is_refused_and_nothing_is_registered(
    partner: PartnerClient, body: Any, status: int, code: str
) -> None:
    with pytest.raises(ApiProblem) as problem:
        await partner.post("/v1/keys", body)
    assert (problem.value.status, problem.value.code) == (status, code)
    assert await listed(partner) == {"test": "active"}


async def test_a_second_rotation_waits_for_the_first(partner: PartnerClient) -> None:
    await partner.post("/v1/keys", {"jwk": successor(partner, "next")[0]})
    with pytest.raises(ApiProblem) as problem:
        await partner.post("/v1/keys", {"jwk": successor(partner, "after")[0]})
    assert (problem.value.status, problem.value.code) == (409, "key_rotation_pending")


async def test_the_last_key_takes_a_word_more(partner: PartnerClient, http: httpx.AsyncClient) -> None:
    with pytest.raises(ApiProblem) as problem:
        await partner.post("/v1/keys/test/revoke")
    assert (problem.value.status, problem.value.code) == (409, "last_usable_key")
    assert (await partner.post("/v1/keys/test/revoke", {"last": True}))["status"] == "revoked"
    assert await ask(http, partner) == (401, "invalid_client")


async def test_another_partners_key_is_as_absent_as_none(register: Any) -> None:
    one, other = await register("points:earn"), await register("points:earn")
    await other.post("/v1/keys", {"jwk": successor(other, "theirs")[0]})
    problems = []
    for kid in ("theirs", "nobodys", "a%2Fb"):
        with pytest.raises(ApiProblem) as problem:
            await one.post(f"/v1/keys/{kid}/revoke")
        problems.append((problem.value.status, problem.value.code))
    assert problems[:2] == [(404, "not_found")] * 2
    assert problems[2][0] == 404
