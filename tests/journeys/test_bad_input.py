"""What a partner can send wrong: every line is refused with its own word, and nothing happens."""

import hashlib
import os
import time
from collections.abc import Callable
from typing import Any

import httpx
import msgspec
import pytest

from gateway.client import PartnerClient
from gateway.credentials import SigningKey, base64url

Make = Callable[..., dict[str, Any]]

EARNINGS = "/v1/points/earnings"
BIG = 70_000


def problem(answer: httpx.Response | Any) -> tuple[int, str]:
    """Status and code; the answer must be a problem document as RFC 9457 §3 has it."""
    content = answer.content
    assert answer.headers["content-type"] == "application/problem+json"
    document = msgspec.json.decode(content)
    status = answer.status_code if isinstance(answer, httpx.Response) else answer.status
    assert document["status"] == status
    assert {"type", "title", "detail", "code", "trace_id"} <= document.keys()
    return status, document["code"]


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"foo": 1}, ""),
        ({"amount_fen": -1}, "/amount_fen"),
        ({"amount_fen": 10**13 + 1}, "/amount_fen"),
        ({"amount_fen": 10**30}, "/amount_fen"),
        ({"amount_fen": 12.5}, "/amount_fen"),
        ({"amount_fen": "100"}, "/amount_fen"),
        ({"amount_fen": True}, "/amount_fen"),
        ({"amount_fen": None}, "/amount_fen"),
        ({"occurred_at": "2026-11-11"}, "/occurred_at"),
        ({"occurred_at": "2026-11-11T12:00:00"}, "/occurred_at"),
        ({"occurred_at": 1_790_000_000}, "/occurred_at"),
        ({"source_ref": ""}, "/source_ref"),
        ({"source_ref": "x" * 129}, "/source_ref"),
        ({"kind": "gift"}, "/kind"),
        ({"member": ["a"]}, "/member"),
        ({"own_card": "yes"}, "/own_card"),
    ],
)
async def test_a_body_that_breaks_the_schema_is_refused_by_field(
    ecommerce: PartnerClient, earning: Make, changes: dict[str, Any], pointer: str
) -> None:
    body = msgspec.json.encode(earning(ecommerce.credentials.members[0].sub) | changes)
    answer = await ecommerce.send("POST", EARNINGS, body, idempotency_key=os.urandom(8).hex())
    assert problem(answer) == (422, "validation_failed")
    assert answer.json()["errors"][0]["pointer"] == pointer


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"member": ', (400, "body_malformed")),
        (b"\xff\xfe{}", (400, "body_malformed")),
        (b'{"member": "\xff"}', (400, "body_malformed")),
        (b"null", (422, "validation_failed")),
        (b"[]", (422, "validation_failed")),
        (b'"text"', (422, "validation_failed")),
        (b'{"member": ' + b"[" * 3_000, (422, "validation_failed")),
        (b" " * BIG, (413, "body_too_large")),
    ],
    ids=["cut off", "utf-16", "not utf-8", "null", "list", "string", "deep", "large"],
)
async def test_a_body_that_is_no_object_is_refused(
    ecommerce: PartnerClient, body: bytes, expected: tuple[int, str]
) -> None:
    answer = await ecommerce.send("POST", EARNINGS, body, idempotency_key=os.urandom(8).hex())
    assert problem(answer) == expected


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/v1/nothing", (404, "route_unknown")),
        ("GET", "/v1/points/earnings", (405, "method_not_allowed")),
        ("DELETE", "/v1/me", (405, "method_not_allowed")),
        ("GET", "/v1/points/holds/hld_00000000000000000000000000", (404, "hold_not_found")),
        ("GET", "/v1/points/holds/pln_00000000000000000000000000", (404, "not_found")),
        ("GET", "/v1/points/holds/%00", (404, "not_found")),
        ("GET", "/v1/members/nobody/points", (404, "member_not_found")),
        ("GET", "/v1/events?limit=0", (422, "limit_out_of_range")),
        ("GET", "/v1/events?limit=101", (422, "limit_out_of_range")),
        ("GET", "/v1/events?limit=ten", (422, "validation_failed")),
        ("GET", "/v1/settlement_batches?cursor=forged", (400, "invalid_cursor")),
    ],
)
async def test_what_is_not_there_is_absent(
    ecommerce: PartnerClient, method: str, path: str, expected: tuple[int, str]
) -> None:
    assert problem(await ecommerce.send(method, path)) == expected


async def test_what_moves_value_needs_a_key(ecommerce: PartnerClient, earning: Make) -> None:
    body = msgspec.json.encode(earning(ecommerce.credentials.members[0].sub))
    assert problem(await ecommerce.send("POST", EARNINGS, body)) == (400, "idempotency_key_missing")


async def test_another_partners_hold_is_absent(
    ecommerce: PartnerClient, hospital: PartnerClient, earning: Make
) -> None:
    member = ecommerce.credentials.members[15].sub
    await ecommerce.post(EARNINGS, earning(member))
    hold = await ecommerce.post("/v1/points/holds", {"member": member, "points": 1, "order_ref": "other"})
    path = f"/v1/points/holds/{hold['id']}"
    assert problem(await hospital.send("GET", path)) == (404, "hold_not_found")
    for action in ("capture", "release"):
        answer = await hospital.send("POST", f"{path}/{action}", b"{}", idempotency_key=os.urandom(8).hex())
        assert problem(answer) == (404, "hold_not_found")
    await ecommerce.post(f"{path}/release")


class Thief:
    """Somebody who has a partner's token, but makes the requests by hand."""

    def __init__(self, client: PartnerClient, http: httpx.AsyncClient) -> None:
        self._client = client
        self._http = http
        self.key = SigningKey.generate()

    async def get(self, *, authorization: str | None = None, proof: str | None = None) -> httpx.Response:
        token = await self._client.token()
        headers = {
            "authorization": authorization or f"DPoP {token}",
            "dpop": proof or self._client.make_proof("GET", "/v1/me", token_hash=_hash(token)),
        }
        return await self._http.get(
            "/v1/me", headers={name: text for name, text in headers.items() if text != "-"}
        )

    async def proof(self, **changes: Any) -> str:
        """A proof like the client's own, signed with the thief's key."""
        claims = {
            "jti": os.urandom(8).hex(),
            "htm": "GET",
            "htu": f"{self._client.credentials.base_url}/v1/me",
            "iat": int(time.time()),
            "ath": _hash(await self._client.token()),
        }
        header = {"typ": "dpop+jwt", "alg": "ES256", "jwk": self.key.public_jwk}
        return self.key.sign(header, claims | changes)


def _hash(token: str) -> str:
    return base64url(hashlib.sha256(token.encode()).digest())


@pytest.fixture
def thief(ecommerce: PartnerClient, http: httpx.AsyncClient) -> Thief:
    return Thief(ecommerce, http)


async def test_the_thiefs_tools_work_when_nothing_is_wrong(thief: Thief) -> None:
    assert (await thief.get()).status_code == 200


async def test_a_request_without_a_token_is_told_what_is_missing(http: httpx.AsyncClient) -> None:
    answer = await http.get("/v1/me")
    assert problem(answer)[0] == 401
    assert answer.headers["www-authenticate"].startswith("DPoP ")


async def test_a_changed_token_is_refused(thief: Thief, ecommerce: PartnerClient) -> None:
    header, claims, signature = (await ecommerce.token()).split(".")
    for forged in (
        f"{header}.{claims}.{signature[:-4]}AAAA",
        f"{base64url(msgspec.json.encode({'alg': 'none', 'typ': 'at+jwt'}))}.{claims}.",
        f"{header}.{base64url(b'{}')}.{signature}",
        "not-a-token",
    ):
        proof = ecommerce.make_proof("GET", "/v1/me", token_hash=_hash(forged))
        answer = await thief.get(authorization=f"DPoP {forged}", proof=proof)
        assert problem(answer)[0] == 401


async def test_a_stolen_token_is_useless_without_its_key(thief: Thief) -> None:
    assert problem(await thief.get(proof=await thief.proof()))[0] == 401


async def test_a_bound_token_is_no_bearer_token(thief: Thief, ecommerce: PartnerClient) -> None:
    answer = await thief.get(authorization=f"Bearer {await ecommerce.token()}")
    assert problem(answer)[0] == 401
    assert problem(await thief.get(proof="-"))[0] == 401


async def test_a_proof_is_good_once_for_one_request(thief: Thief, ecommerce: PartnerClient) -> None:
    proof = ecommerce.make_proof("GET", "/v1/me", token_hash=_hash(await ecommerce.token()))
    assert (await thief.get(proof=proof)).status_code == 200
    assert problem(await thief.get(proof=proof)) == (401, "invalid_dpop_proof")
    token_hash = _hash(await ecommerce.token())
    for other in (("POST", "/v1/me"), ("GET", "/v1/keys")):
        answer = await thief.get(proof=ecommerce.make_proof(*other, token_hash=token_hash))
        assert problem(answer) == (401, "invalid_dpop_proof")


@pytest.mark.parametrize("iat", [-600, 600])
async def test_an_old_or_early_proof_is_refused(thief: Thief, iat: int) -> None:
    proof = await thief.proof(iat=int(time.time()) + iat)
    assert problem(await thief.get(proof=proof))[0] == 401


async def test_a_token_of_another_partner_does_not_open_a_members_account(
    ecommerce: PartnerClient, education: PartnerClient
) -> None:
    foreign = ecommerce.credentials.members[0].sub
    assert problem(await education.send("GET", f"/v1/members/{foreign}/points")) == (404, "member_not_found")


async def test_the_token_endpoint_speaks_oauth(http: httpx.AsyncClient) -> None:
    answer = await http.post("/oauth2/token", data={"grant_type": "client_credentials"})
    assert answer.status_code in (400, 401)
    assert answer.json()["error"] in ("invalid_request", "invalid_client", "invalid_dpop_proof")
    assert answer.headers["cache-control"] == "no-store"
