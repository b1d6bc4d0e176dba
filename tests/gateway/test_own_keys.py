"""A partner rotates and revokes its keys over HTTP, with assertions signed by the keys in question."""

import asyncio
import json
from typing import Any

import httpx
import pytest
from partner_client import b64, generate, private_jwk
from publisher import Publisher

from gateway.client import ApiProblem, PartnerClient
from gateway.credentials import SigningKey
from gateway.runtime import Runtime
from partners.oauth.claimed import Claimed, read_claimed


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


async def test_an_assertion_by_a_published_key_is_fetched_for(
    partner: PartnerClient, http: httpx.AsyncClient, runtime: Runtime
) -> None:
    jwk, published = successor(partner, "published")
    other_jwk, other = successor(partner, "unpublished")
    async with Publisher([jwk]).serving() as publisher:
        await runtime.pool.execute(
            "UPDATE registry_app SET jwks_uri = $2 WHERE client_id = $1",
            partner.credentials.client_id,
            publisher.uri,
        )
        runtime.client_keys._directory.forget(partner.credentials.client_id)
        answers = await asyncio.gather(*(ask(http, published) for _ in range(20)))
        assert (answers, publisher.asked) == ([(200, "")] * 20, 1)
        publisher.keys = [jwk, other_jwk]
        # Within the same minute nobody asks again, however many kids are made up.
        answers = await asyncio.gather(*(ask(http, other) for _ in range(20)))
        assert (answers, publisher.asked) == ([(401, "invalid_client")] * 20, 1)
        assert await ask(http, published) == (200, "")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"client_assertion=",
        b"xclient_assertion=a.b.c",
        b"client_assertion=a.b",
        b"client_assertion=a.b.c.d",
        b"client_assertion=\xff.b.c",
        b"client_assertion=bnVsbA.bnVsbA.c",
        b"client_assertion=" + b"W" * 9_000 + b".e30.c",
        b"client_assertion=eyJraWQiOiJhIn0.eyJpc3MiOiJub2JvZHkifQ.c",
    ],
)
def test_what_claims_nothing_is_not_looked_up(body: bytes) -> None:
    assert read_claimed(body) is None


@pytest.mark.parametrize("before", [b"", b"grant_type=client_credentials&"])
def test_a_claim_is_read_wherever_it_stands(before: bytes) -> None:
    client_id = "app_" + "0" * 26
    parts = [b64(json.dumps(part).encode()) for part in ({"kid": "a"}, {"iss": client_id})]
    body = before + f"client_assertion={parts[0]}.{parts[1]}.x&scope=y".encode()
    assert read_claimed(body) == Claimed(client_id, "a")
