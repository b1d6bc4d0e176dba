"""The short way and the long way to a hot route give the same answers, good and bad."""

import json
from typing import Any, cast
from uuid import uuid4

import httpx
import pytest

from gateway.app import batch_paths, build_edge, build_litestar
from gateway.client import PartnerClient
from gateway.direct import direct_routes
from gateway.edge import Edge
from gateway.runtime import Runtime

EARNINGS, HOLDS = "/v1/points/earnings", "/v1/points/holds"


@pytest.fixture
def ways(runtime: Runtime) -> list[Edge]:
    """The gateway as it runs, and without its short way."""
    litestar = build_litestar(runtime, openapi=None)
    return [
        build_edge(runtime, litestar),
        Edge(cast(Any, litestar), runtime, batch_paths=batch_paths(litestar)),
    ]


class Caller:
    """A partner's raw requests, and what of the answers does not depend on the moment."""

    def __init__(self, edge: Edge, partner: PartnerClient) -> None:
        self._edge = edge
        self._partner = partner

    async def post(self, path: str, body: bytes, key: str | None) -> tuple[Any, ...]:
        token, token_hash = await self._partner._current_token()
        headers = {
            "authorization": f"DPoP {token}",
            "dpop": self._partner.make_proof("POST", path, token_hash=token_hash),
            "content-type": "application/json",
        }
        if key is not None:
            headers["idempotency-key"] = key
        transport = httpx.ASGITransport(app=self._watched, raise_app_exceptions=False)
        async with httpx.AsyncClient(
            transport=transport, base_url=self._partner.credentials.base_url
        ) as client:
            answer = await client.post(path, content=body, headers=headers)
        document = answer.json()
        self.id = document.get("id", "")
        told = {
            name: value for name, value in document.items() if name in ("code", "errors", "points", "state")
        }
        names = sorted(set(answer.headers) - {"dpop-nonce", "allow"})
        replayed = answer.headers.get("idempotency-replayed")
        content_type = answer.headers["content-type"]
        return answer.status_code, content_type, replayed, names, sorted(document), told, self._route

    async def _watched(self, scope: Any, receive: Any, send: Any) -> None:
        await self._edge(scope, receive, send)
        self._route = scope.get("path_template")  # under which the request is counted and logged


async def test_both_ways_answer_alike(ways: list[Edge], partner: PartnerClient) -> None:
    stories = []
    for edge in ways:
        caller = Caller(edge, partner)
        bound = await partner.post("/v1/members/bindings", {"customer_refs": [str(uuid4())]})
        member = bound["bindings"][0]["member"]
        earned = {
            "member": member,
            "source_ref": str(uuid4()),
            "kind": "purchase",
            "occurred_at": "2026-11-11T20:00:00+08:00",
            "amount_fen": 129_900,
        }
        wished = {"member": member, "points": 100, "order_ref": "o-1"}
        key, other = str(uuid4()), str(uuid4())
        story = [
            await caller.post(EARNINGS, _json(earned), key),
            await caller.post(EARNINGS, _json(earned), key),
            await caller.post(EARNINGS, _json(earned | {"amount_fen": 1}), key),
            await caller.post(EARNINGS, _json(earned), str(uuid4())),
            await caller.post(EARNINGS, _json(earned | {"member": "nobody"}), str(uuid4())),
            await caller.post(EARNINGS, _json(earned | {"amount_fen": "1"}), str(uuid4())),
            await caller.post(EARNINGS, _json(earned | {"more": 1}), str(uuid4())),
            await caller.post(EARNINGS, _json(earned | {"source_ref": "a\0b"}), str(uuid4())),
            await caller.post(EARNINGS, b"{", str(uuid4())),
            await caller.post(EARNINGS, b"\xff", str(uuid4())),
            await caller.post(EARNINGS, b"[" * 20_000, str(uuid4())),
            await caller.post(EARNINGS, b"", str(uuid4())),
            await caller.post(EARNINGS, _json(earned), None),
            await caller.post(EARNINGS, _json(earned), "no key \t"),
            await caller.post(EARNINGS + "/", _json(earned), str(uuid4())),
            await caller.post(HOLDS, _json(wished | {"points": 10**15}), str(uuid4())),
            await caller.post(HOLDS, _json(wished), str(uuid4())),
        ]
        hold = f"{HOLDS}/{caller.id}"
        story += [
            await caller.post(f"{HOLDS}/hld_0/capture", b"", str(uuid4())),
            await caller.post(f"{HOLDS}//capture", b"", str(uuid4())),
            await caller.post(f"{hold}/capture", _json({"points": 101}), str(uuid4())),
            await caller.post(f"{hold}/capture", b"", other),
            await caller.post(f"{hold}/capture", b"", other),
            await caller.post(f"{hold}/release", b"", str(uuid4())),
        ]
        stories.append(story)
    assert stories[0] == stories[1]
    assert {answer[0] for answer in stories[0]} >= {200, 201, 400, 404, 409, 422}


async def test_a_scope_that_is_missing_is_missed_on_both_ways(ways: list[Edge], register: Any) -> None:
    partner = await register("members:read")
    answers = [await Caller(edge, partner).post(EARNINGS, b"{}", str(uuid4())) for edge in ways]
    assert answers[0] == answers[1]
    assert answers[0][0] == 403


def test_every_route_that_posts_together_has_the_short_way(runtime: Runtime) -> None:
    litestar = build_litestar(runtime, openapi=None)
    short = {route.template for route in direct_routes(litestar)}
    assert short == {
        path
        for route in litestar.routes
        for handler in getattr(route, "route_handlers", [])
        if handler.opt.get("together")
        for path in handler.paths
    }
    assert {EARNINGS, HOLDS, f"{HOLDS}/{{id:str}}/capture", f"{HOLDS}/{{id:str}}/release"} <= short


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()
