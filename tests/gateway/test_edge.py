"""The edge and the unit of work: what every request meets, whatever its route."""

import asyncio
from typing import Any
from uuid import uuid4

import httpx
import msgspec
import pytest

from gateway.app import ROUTES
from gateway.client import ApiProblem, PartnerClient
from gateway.edge import Edge
from gateway.scopes import RouteClosed, check_scope
from kernel.caller import Caller, InsufficientScope
from kernel.redis_client import open_redis
from partners.mobile.scopes import MOBILE_SCOPES
from partners.oauth.access import TokenMissing
from partners.oauth.scopes import SCOPES

EARNINGS = "/v1/points/earnings"
HOLDS = "/v1/points/holds"


async def new_member(partner: PartnerClient) -> str:
    """A member with consent, bound by the partner's own number."""
    answer = await partner.post("/v1/members/bindings", {"customer_refs": [str(uuid4())]})
    return str(answer["bindings"][0]["member"])


def earning(member: str, **changed: Any) -> dict[str, Any]:
    return {
        "member": member,
        "source_ref": str(uuid4()),
        "kind": "purchase",
        "occurred_at": "2026-11-11T20:00:00+08:00",
        "amount_fen": 129_900,
    } | changed


async def available(partner: PartnerClient, member: str) -> int:
    return int((await partner.get(f"/v1/members/{member}/points"))["available_points"])


@pytest.mark.parametrize("handler", ROUTES, ids=lambda handler: handler.handler_name)
def test_every_route_declares_who_may_call_it(handler: Any) -> None:
    declared = handler.opt.get("scope")
    known = MOBILE_SCOPES if handler.opt.get("audience") == "mobile" else SCOPES
    assert handler.opt.get("public") is True or declared == "self" or set(declared.split("|")) <= set(known)


@pytest.mark.parametrize(
    "handler", [route for route in ROUTES if "scope" in route.opt], ids=lambda handler: handler.handler_name
)
def test_every_partner_route_has_its_protection_level(handler: Any) -> None:
    assert handler.opt.get("level") in ("A1", "A2"), "JR/T 0185: A1 public data, A2 funds and accounts"


def test_a_route_that_declares_nothing_is_closed_to_everybody() -> None:
    with pytest.raises(TokenMissing):
        check_scope(None, {})
    with pytest.raises(RouteClosed):
        check_scope(_caller("points:earn"), {})


def test_one_of_the_declared_scopes_is_enough() -> None:
    check_scope(_caller("points:spend"), {"scope": "points:earn|points:spend"})
    with pytest.raises(InsufficientScope):
        check_scope(_caller("offers:read"), {"scope": "points:earn|points:spend"})


async def test_every_answer_carries_the_security_headers(http: httpx.AsyncClient) -> None:
    for path in ("/livez", "/nowhere", "/v1/me"):
        headers = (await http.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert headers["x-request-id"].startswith("req_")
        assert "default-src 'none'" in headers["content-security-policy"]


async def test_a_clients_interaction_id_is_given_back_when_it_is_a_uuid(http: httpx.AsyncClient) -> None:
    mine = str(uuid4())

    assert (await http.get("/livez", headers={"x-fapi-interaction-id": mine})).headers[
        "x-fapi-interaction-id"
    ] == mine
    assert (
        "x-fapi-interaction-id"
        not in (await http.get("/livez", headers={"x-fapi-interaction-id": "x"})).headers
    )


async def test_a_body_over_the_limit_is_refused_before_it_is_read(
    edge: Edge, http: httpx.AsyncClient
) -> None:
    answer = await http.post("/oauth2/token", content=b"x" * 65_537)

    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


async def test_a_body_that_grows_beyond_the_limit_is_refused(http: httpx.AsyncClient) -> None:
    async def endless() -> Any:
        for _ in range(200):
            yield b"x" * 1_024

    answer = await http.post("/oauth2/token", content=endless())

    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


async def test_a_write_without_a_key_is_refused(partner: PartnerClient) -> None:
    member = await new_member(partner)

    answer = await partner.send("POST", EARNINGS, msgspec.json.encode(earning(member)))

    assert answer.status == 400 and answer.json()["code"] == "idempotency_key_missing"
    assert await available(partner, member) == 0


async def test_the_same_key_gives_the_same_bytes_and_one_effect(partner: PartnerClient) -> None:
    member = await new_member(partner)
    body = msgspec.json.encode(earning(member))

    first = await partner.send("POST", EARNINGS, body, idempotency_key="k1")
    second = await partner.send("POST", EARNINGS, body, idempotency_key="k1")

    assert (first.status, second.status) == (201, 201)
    assert first.content == second.content
    assert second.headers["idempotency-replayed"] == "true" and "idempotency-replayed" not in first.headers
    assert await available(partner, member) == 1_299


async def test_the_same_key_with_another_body_is_refused(partner: PartnerClient) -> None:
    member = await new_member(partner)
    await partner.send("POST", EARNINGS, msgspec.json.encode(earning(member)), idempotency_key="k2")

    with pytest.raises(ApiProblem) as refused:
        await partner.post(EARNINGS, earning(member, amount_fen=1), idempotency_key="k2")

    assert (refused.value.status, refused.value.code) == (422, "idempotency_key_reused")


async def test_two_partners_may_use_the_same_key(partner: PartnerClient, register: Any) -> None:
    other = await register(*sorted(SCOPES))
    for who in (partner, other):
        member = await new_member(who)
        assert (await who.post(EARNINGS, earning(member), idempotency_key="shared"))["points"] == 1_299


async def test_a_refusal_may_be_tried_again_under_its_key(partner: PartnerClient) -> None:
    member = await new_member(partner)
    hold = {"member": member, "points": 100, "order_ref": "o-1", "ttl_seconds": 600}
    with pytest.raises(ApiProblem) as refused:
        await partner.post(HOLDS, hold, idempotency_key="k3")
    assert refused.value.code == "insufficient_points"

    await partner.post(EARNINGS, earning(member))

    assert (await partner.post(HOLDS, hold, idempotency_key="k3"))["state"] == "open"


async def test_a_hundred_copies_have_one_effect_and_equal_answers(partner: PartnerClient) -> None:
    member = await new_member(partner)
    body = msgspec.json.encode(earning(member))

    answers = await asyncio.gather(
        *(partner.send("POST", EARNINGS, body, idempotency_key="k4") for _ in range(100))
    )

    assert {answer.content for answer in answers} == {answers[0].content}
    assert {answer.status for answer in answers} == {201}
    assert await available(partner, member) == 1_299


async def test_a_proof_is_good_for_one_write(partner: PartnerClient, http: httpx.AsyncClient) -> None:
    member = await new_member(partner)
    headers = await _signed(partner, "POST", EARNINGS) | {"idempotency-key": "k5"}

    first = await http.post(EARNINGS, json=earning(member), headers=headers)
    second = await http.post(EARNINGS, json=earning(member), headers=headers | {"idempotency-key": "k6"})

    assert first.status_code == 201
    assert (second.status_code, second.json()["code"]) == (401, "invalid_dpop_proof")
    assert 'error="invalid_dpop_proof"' in second.headers["www-authenticate"]
    assert await available(partner, member) == 1_299


async def test_a_proof_used_in_a_refused_write_stays_used(
    partner: PartnerClient, http: httpx.AsyncClient
) -> None:
    member = await new_member(partner)
    headers = await _signed(partner, "POST", HOLDS)
    hold = {"member": member, "points": 100, "order_ref": "o-1", "ttl_seconds": 600}

    refused = await http.post(HOLDS, json=hold, headers=headers | {"idempotency-key": "k7"})
    again = await http.post(HOLDS, json=hold, headers=headers | {"idempotency-key": "k8"})

    assert refused.json()["code"] == "insufficient_points"
    assert again.json()["code"] == "invalid_dpop_proof"


async def test_a_hundred_copies_of_one_proof_read_once(
    partner: PartnerClient, http: httpx.AsyncClient
) -> None:
    headers = await _signed(partner, "GET", "/v1/me")

    answers = await asyncio.gather(*(http.get("/v1/me", headers=headers) for _ in range(100)))

    assert sorted({answer.status_code for answer in answers}) == [200, 401]
    assert sum(answer.status_code == 200 for answer in answers) == 1


async def test_without_redis_a_read_proof_is_still_good_once(
    partner: PartnerClient, http: httpx.AsyncClient, edge: Edge
) -> None:
    headers = await _signed(partner, "GET", "/v1/me")
    runtime = edge.runtime
    kept, runtime.redis = runtime.redis, open_redis("redis://127.0.0.1:1")
    try:
        first = await http.get("/v1/me", headers=headers)
        second = await http.get("/v1/me", headers=headers)
    finally:
        await runtime.redis.aclose()
        runtime.redis = kept

    assert (first.status_code, second.status_code) == (200, 401)


async def test_over_the_limit_is_429_with_a_time_to_come_back(register: Any) -> None:
    slow = await register("members:read", per_second=1, burst=3)
    await slow.token()

    answers = [await _read_me(slow) for _ in range(5)]

    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert answers[-1].json()["code"] == "rate_limited"
    assert int(answers[-1].headers["retry-after"]) >= 1
    assert answers[0].headers["ratelimit-policy"].startswith('"read";q=3')


async def test_a_missing_scope_is_403(register: Any) -> None:
    reader = await register("members:read")

    with pytest.raises(ApiProblem) as refused:
        await reader.post(HOLDS, {"member": "x", "points": 1, "order_ref": "o", "ttl_seconds": 60})

    assert (refused.value.status, refused.value.code) == (403, "insufficient_scope")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "body_malformed"),
        (b"\xff\xfe", 400, "body_malformed"),
        (b"[]", 422, "validation_failed"),
        (b"{}", 422, "validation_failed"),
        (b"null", 422, "validation_failed"),
        (b'{"member":"x","points":1.5,"order_ref":"o","ttl_seconds":60}', 422, "validation_failed"),
        (b'{"member":"x","points":-1,"order_ref":"o","ttl_seconds":60}', 422, "validation_failed"),
        (b'{"member":"x","points":1e400,"order_ref":"o","ttl_seconds":60}', 422, "validation_failed"),
        (
            b'{"member":"x","points":99999999999999999999,"order_ref":"o","ttl_seconds":60}',
            422,
            "validation_failed",
        ),
        (b'{"member":"x","points":1,"order_ref":"o","ttl_seconds":60,"extra":1}', 422, "validation_failed"),
        (b'{"member":' + b"[" * 30_000, 422, "validation_failed"),
        (b'{"extra":' + b"[" * 30_000, 422, "validation_failed"),
        (b'{"member":"x","points":"100","order_ref":"o","ttl_seconds":60}', 422, "validation_failed"),
        (b'{"member":"\\u0000","points":1,"order_ref":"o","ttl_seconds":60}', 404, "member_not_found"),
    ],
)
async def test_a_bad_body_has_its_code(partner: PartnerClient, body: bytes, status: int, code: str) -> None:
    answer = await partner.send("POST", HOLDS, body, idempotency_key=str(uuid4()))

    assert (answer.status, answer.json()["code"]) == (status, code), answer.content


async def test_a_validation_problem_points_at_the_field(partner: PartnerClient) -> None:
    body = b'{"member":"x","points":-1,"order_ref":"o","ttl_seconds":60}'

    answer = await partner.send("POST", HOLDS, body, idempotency_key=str(uuid4()))

    assert answer.json()["errors"][0]["pointer"] == "/points"


async def test_a_problem_leaks_nothing(http: httpx.AsyncClient) -> None:
    answer = await http.get("/v1/me?password=hunter2", headers={"authorization": "DPoP eyJ.secret.part"})

    assert answer.headers["content-type"] == "application/problem+json"
    assert "hunter2" not in answer.text and "secret" not in answer.text


async def test_the_openapi_document_names_every_route(http: httpx.AsyncClient) -> None:
    document = (await http.get("/openapi.json")).json()

    documented = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    declared = {
        (method, path.replace(":str}", "}"))
        for handler in ROUTES
        if handler.include_in_schema is not False
        for path in handler.paths
        for method in handler.http_methods
    }
    assert documented == declared


async def _signed(partner: PartnerClient, method: str, path: str) -> dict[str, str]:
    token, token_hash = await partner._current_token()
    return {
        "authorization": f"DPoP {token}",
        "dpop": partner.make_proof(method, path, token_hash=token_hash),
    }


async def _read_me(partner: PartnerClient) -> httpx.Response:
    return await partner._http.get("/v1/me", headers=await _signed(partner, "GET", "/v1/me"))


def _caller(*scopes: str) -> Caller:
    return Caller(
        partner_id=uuid4(), app_id=uuid4(), client_id="app_x", scopes=frozenset(scopes), key_thumbprint="t"
    )


@pytest.mark.parametrize(
    ("more", "status", "code"),
    [
        pytest.param([("authorization", "DPoP x")], 401, "invalid_token", id="a second token"),
        pytest.param([("authorization", "")], 401, "invalid_token", id="an empty second token"),
        pytest.param([("dpop", "x")], 401, "invalid_dpop_proof", id="a second proof"),
        pytest.param([("DPoP", "")], 401, "invalid_dpop_proof", id="an empty second proof"),
        pytest.param([("content-length", "2")], 400, "request_malformed", id="a second length"),
        pytest.param([("idempotency-key", "b")], 400, "idempotency_key_missing", id="a second key"),
    ],
)
async def test_no_field_that_decides_may_come_twice(
    partner: PartnerClient, edge: Edge, more: list[tuple[str, str]], status: int, code: str
) -> None:
    body = msgspec.json.encode(earning(await new_member(partner)))
    signed = await _signed(partner, "POST", EARNINGS)
    headers = [*signed.items(), ("idempotency-key", "a"), ("content-length", str(len(body))), *more]
    scope = {
        "type": "http",
        "method": "POST",
        "path": EARNINGS,
        "raw_path": EARNINGS.encode(),
        "query_string": b"",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers],
        "client": ("127.0.0.1", 1),
    }
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await edge(scope, receive, send)

    assert (sent[0]["status"], msgspec.json.decode(sent[1]["body"])["code"]) == (status, code)
