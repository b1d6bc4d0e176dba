"""The partner client: proofs as the RFCs want them, one renewal for all, retries under the same key and with a fresh proof."""

import asyncio
import hashlib
import os
from collections.abc import AsyncGenerator, Callable
from typing import Any
from urllib.parse import parse_qs

import httpx
import jwt
import msgspec
import pytest

from gateway.client import ApiProblem, PartnerClient, Unreachable
from gateway.credentials import Credentials, CredentialsUnreadable, SigningKey, base64url, read_credentials

BASE_URL = "https://bank.example"
KEY = SigningKey.generate()
CREDENTIALS = Credentials(
    base_url=BASE_URL,
    issuer=BASE_URL,
    client_id="app_1",
    kid="shop-1",
    private_jwk=KEY.private_jwk(),
    scopes=["points:earn", "members:read"],
    webhook_secret="whsec_AAAA",
)

Reply = Callable[[httpx.Request], httpx.Response]


class Server:
    """A platform that answers what the test tells it to, and remembers what it was asked."""

    def __init__(self) -> None:
        self.tokens: list[httpx.Request] = []
        self.calls: list[httpx.Request] = []
        self.replies: list[Reply | httpx.Response | Exception] = []
        self.token_reply: Reply = self.issue

    def issue(self, _request: httpx.Request) -> httpx.Response:
        grant = {"access_token": f"token-{len(self.tokens)}", "token_type": "DPoP", "expires_in": 300}
        return httpx.Response(200, json=grant)

    async def answer(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/oauth2/token":
            self.tokens.append(request)
            await asyncio.sleep(0)  # lets others ask for a token at the same time
            return self.token_reply(request)
        self.calls.append(request)
        reply = self.replies.pop(0) if self.replies else httpx.Response(200, json={"ok": True})
        if isinstance(reply, Exception):
            raise reply
        return reply if isinstance(reply, httpx.Response) else reply(request)


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
async def client(server: Server) -> AsyncGenerator[PartnerClient, None]:
    http = httpx.AsyncClient(transport=httpx.MockTransport(server.answer))
    async with PartnerClient(CREDENTIALS, http=http, deadline_seconds=5.0) as client:
        yield client


def problem(status: int, code: str, **headers: str) -> httpx.Response:
    return httpx.Response(status, json={"status": status, "code": code, "title": "No"}, headers=headers)


def proof_in(request: httpx.Request) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims of the request's proof, its signature verified by another library."""
    proof = request.headers["dpop"]
    header = jwt.get_unverified_header(proof)
    key = jwt.PyJWK(header["jwk"], algorithm="ES256")
    return header, jwt.decode(
        proof, key, algorithms=["ES256"], options={"require": ["jti", "iat", "htm", "htu"]}
    )


async def test_a_token_is_asked_for_with_assertion_and_proof(client: PartnerClient, server: Server) -> None:
    await client.get("/v1/me")
    (request,) = server.tokens
    form = {name: values[0] for name, values in parse_qs(request.content.decode()).items()}
    public = jwt.PyJWK(KEY.public_jwk, algorithm="ES256")
    claims = jwt.decode(
        form["client_assertion"],
        public,
        algorithms=["ES256"],
        audience=BASE_URL,
        options={"strict_aud": True},
    )
    assert claims["iss"] == claims["sub"] == "app_1"
    assert claims["exp"] - claims["iat"] == 60
    assert jwt.get_unverified_header(form["client_assertion"])["kid"] == "shop-1"
    assert (form["grant_type"], form["scope"]) == ("client_credentials", "points:earn members:read")
    header, proof = proof_in(request)
    assert header["typ"] == "dpop+jwt"
    assert "d" not in header["jwk"]
    assert (proof["htm"], proof["htu"], "ath" in proof) == ("POST", f"{BASE_URL}/oauth2/token", False)


async def test_a_proof_names_the_request_without_its_query(client: PartnerClient, server: Server) -> None:
    await client.get("/v1/events?limit=5")
    (request,) = server.calls
    header, proof = proof_in(request)
    assert request.url.query == b"limit=5"
    assert (proof["htm"], proof["htu"]) == ("GET", f"{BASE_URL}/v1/events")
    assert proof["ath"] == base64url(hashlib.sha256(b"token-1").digest())
    assert request.headers["authorization"] == "DPoP token-1"
    assert header["jwk"] == proof_in(server.tokens[0])[0]["jwk"]


async def test_parallel_calls_fetch_one_token(client: PartnerClient, server: Server) -> None:
    await asyncio.gather(*(client.get("/v1/me") for _ in range(20)))
    assert (len(server.tokens), len(server.calls)) == (1, 20)
    assert len({proof_in(call)[1]["jti"] for call in server.calls}) == 20


@pytest.mark.parametrize(
    "trouble",
    [
        problem(503, "outcome_unknown"),
        problem(503, "database_busy", **{"retry-after": "0"}),
        problem(429, "rate_limited", **{"retry-after": "0"}),
        problem(409, "idempotency_in_progress"),
        problem(500, "internal_error"),
        httpx.Response(502, text="bad gateway"),
        httpx.ConnectError("refused"),
        httpx.ReadError("reset"),
        httpx.ReadTimeout("slow"),
    ],
    ids=lambda trouble: getattr(trouble, "text", str(trouble))[:40],
)
async def test_trouble_is_retried_with_the_same_key_and_a_fresh_proof(
    client: PartnerClient, server: Server, trouble: httpx.Response | Exception
) -> None:
    server.replies = [trouble, trouble]
    assert await client.post("/v1/points/holds", {"points": 1}) == {"ok": True}
    assert len(server.calls) == 3
    assert len({call.headers["idempotency-key"] for call in server.calls}) == 1
    assert len({proof_in(call)[1]["jti"] for call in server.calls}) == 3
    assert {call.content for call in server.calls} == {b'{"points":1}'}


@pytest.mark.parametrize(
    ("status", "code"), [(400, "body_malformed"), (404, "not_found"), (409, "hold_not_open"), (422, "x")]
)
async def test_a_refusal_is_raised_at_once(
    client: PartnerClient, server: Server, status: int, code: str
) -> None:
    server.replies = [problem(status, code)]
    with pytest.raises(ApiProblem) as caught:
        await client.post("/v1/points/holds", {})
    assert (caught.value.status, caught.value.code, caught.value.document["title"]) == (status, code, "No")
    assert len(server.calls) == 1


async def test_a_bug_of_the_servers_is_not_retried_for_ever(client: PartnerClient, server: Server) -> None:
    server.replies = [problem(500, "internal_error")] * 9
    with pytest.raises(ApiProblem):
        await client.get("/v1/me")
    assert len(server.calls) == 3


async def test_the_deadline_ends_all_retries(server: Server) -> None:
    server.replies = [httpx.ConnectError("refused")] * 99
    http = httpx.AsyncClient(transport=httpx.MockTransport(server.answer))
    async with PartnerClient(CREDENTIALS, http=http, deadline_seconds=0.3) as client:
        with pytest.raises(Unreachable):
            await client.get("/v1/me")
    assert 2 <= len(server.calls) <= 5


async def test_an_ended_token_is_replaced_once(client: PartnerClient, server: Server) -> None:
    server.replies = [problem(401, "invalid_token")]
    assert await client.get("/v1/me") == {"ok": True}
    assert [call.headers["authorization"] for call in server.calls] == ["DPoP token-1", "DPoP token-2"]
    server.replies = [problem(401, "invalid_token")] * 2
    with pytest.raises(ApiProblem) as caught:
        await client.get("/v1/me")
    assert caught.value.code == "invalid_token"


async def test_a_nonce_the_server_asks_for_is_in_the_next_proof(
    client: PartnerClient, server: Server
) -> None:
    server.replies = [problem(401, "use_dpop_nonce", **{"dpop-nonce": "n-1"})]
    await client.get("/v1/me")
    assert [proof_in(call)[1].get("nonce") for call in server.calls] == [None, "n-1"]


async def test_an_unknown_client_is_told_so(client: PartnerClient, server: Server) -> None:
    server.token_reply = lambda _: httpx.Response(401, json={"error": "invalid_client"})
    with pytest.raises(ApiProblem) as caught:
        await client.get("/v1/me")
    assert (caught.value.status, caught.value.code) == (401, "invalid_client")
    assert len(server.tokens) == 1


def test_a_key_survives_its_file(tmp_path: Any) -> None:
    path = tmp_path / "shop.json"
    path.write_bytes(msgspec.json.encode(CREDENTIALS))
    read = read_credentials(path)
    assert SigningKey.read(read.private_jwk).public_jwk == KEY.public_jwk
    assert "private_jwk" in os.fsdecode(path.read_bytes())


@pytest.mark.parametrize("content", [None, b"", b"{}", b"[1]"])
def test_a_file_that_is_no_partner_file_is_named(tmp_path: Any, content: bytes | None) -> None:
    path = tmp_path / "shop.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CredentialsUnreadable, match=r"shop\.json"):
        read_credentials(path)
