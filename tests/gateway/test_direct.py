"""The short way and the long way to a hot route give the same answers, good and bad."""

import json
import re
from collections.abc import Generator
from datetime import datetime
from typing import Any, cast
from uuid import uuid4

import httpx
import pytest

from gateway.app import batch_paths, build_edge, build_litestar
from gateway.client import PartnerClient
from gateway.direct import direct_reads, direct_routes
from gateway.edge import Edge
from gateway.runtime import Runtime
from kernel.clock import DatabaseClock

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


class StillClock(DatabaseClock):
    """Time stands still, so that nothing of an answer is of its moment."""

    def __init__(self, at: datetime) -> None:
        super().__init__()
        self._at = at

    def set(self, reading: datetime, *, asked_at: float, answered_at: float) -> None:
        """The database's time goes on."""

    def now(self) -> datetime:
        return self._at


@pytest.fixture
def stillness(runtime: Runtime) -> Generator[None, None, None]:
    kept, runtime.clock = runtime.clock, StillClock(runtime.clock.now())
    yield
    runtime.clock = kept


#: what an open segment of a path may be asked with; `{known}` is something of the partner's own
SEGMENTS = ("{known}", "hld_0", "A" * 43, "bindings", "holds", "é", "%00", "%2F", "a%0Ab", "")


@pytest.mark.parametrize("tail", ["", "/", "?", "?limit=1", "?limit=x&limit=1"])
async def test_both_ways_to_a_read_answer_byte_for_byte_alike(
    ways: list[Edge], partner: PartnerClient, runtime: Runtime, stillness: None, tail: str
) -> None:
    known = await _things_of(partner)
    statuses = set()
    for read in direct_reads(build_litestar(runtime, openapi=None)):
        for path in sorted(_paths(read.template, known)):
            answers = [await _get(edge, partner, path + tail) for edge in ways]
            assert answers[0] == answers[1], path + tail
            statuses.add(answers[0][0])
    assert statuses >= {200, 404}


@pytest.mark.parametrize("scopes", [("points:earn",), ()], ids=["another scope", "none"])
async def test_a_read_needs_its_scope_on_both_ways(
    ways: list[Edge], register: Any, runtime: Runtime, scopes: tuple[str, ...]
) -> None:
    partner = await register("members:read", *scopes)
    for read in direct_reads(build_litestar(runtime, openapi=None)):
        (path,) = _paths(read.template, {}, segments=("x",))
        answers = [await _get(edge, partner, path) for edge in ways]
        assert answers[0] == answers[1], path


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "POST", "PUT", "DELETE", "PATCH"])
async def test_another_method_at_a_reads_path_is_answered_alike(
    ways: list[Edge], partner: PartnerClient, method: str
) -> None:
    for path in ("/v1/me", "/v1/members/x", "/v1/points/holds/x", "/v1/members/bindings"):
        answers = [await _get(edge, partner, path, method) for edge in ways]
        assert answers[0] == answers[1], path


@pytest.mark.parametrize("host", ["a b", "127.0.0.1/x", "", "bank.example"])
async def test_the_host_is_judged_on_both_ways(ways: list[Edge], partner: PartnerClient, host: str) -> None:
    answers = [await _get(edge, partner, "/v1/me", host=host) for edge in ways]
    assert answers[0] == answers[1]


def test_hot_reads_have_the_short_way(runtime: Runtime) -> None:
    short = {read.template for read in direct_reads(build_litestar(runtime, openapi=None))}
    assert short >= {
        "/v1/me",
        "/v1/members/{sub:str}",
        "/v1/members/{sub:str}/points",
        "/v1/points/holds/{id:str}",
        "/v1/quotes/{quote_id:str}",
    }


async def _things_of(partner: PartnerClient) -> dict[str, str]:
    """Something behind every kind of open segment, by the start of the template."""
    bound = await partner.post("/v1/members/bindings", {"customer_refs": [str(uuid4())]})
    member = bound["bindings"][0]["member"]
    earned = {
        "member": member,
        "source_ref": str(uuid4()),
        "kind": "purchase",
        "occurred_at": "2026-11-11T20:00:00+08:00",
        "amount_fen": 129_900,
    }
    await partner.post(EARNINGS, earned)
    hold = await partner.post(HOLDS, {"member": member, "points": 100, "order_ref": "o-1"})
    return {"/v1/members/": member, "/v1/points/holds/": hold["id"]}


def _paths(template: str, known: dict[str, str], segments: tuple[str, ...] = SEGMENTS) -> set[str]:
    head, found, rest = template.partition("{")
    if not found:
        return {template}
    return {
        head + segment.format(known=known.get(head, "x")) + rest.partition("}")[2] for segment in segments
    }


async def _get(
    edge: Edge, partner: PartnerClient, path: str, method: str = "GET", **more: str
) -> tuple[Any, ...]:
    """The whole answer but for what is of the moment: the request's id, the rest of the limit, the nonce."""
    base_url = partner.credentials.base_url
    url = httpx.URL(base_url + path)
    token, token_hash = await partner._current_token()
    sent = url.raw_path.partition(b"?")[0].decode()
    headers = {
        "authorization": f"DPoP {token}",
        "dpop": partner.make_proof(method, sent, token_hash=token_hash),
    } | more
    seen: dict[str, Any] = {}

    async def watched(scope: Any, receive: Any, send: Any) -> None:
        await edge(scope, receive, send)
        seen["route"] = scope.get("path_template")

    transport = httpx.ASGITransport(app=cast(Any, watched), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport) as client:
        answer = await client.request(method, url, headers=headers)
    momentary = ("x-request-id", "ratelimit", "dpop-nonce")
    lasting = sorted((name, value) for name, value in answer.headers.items() if name not in momentary)
    content = answer.content.replace(answer.headers["x-request-id"].encode(), b"")
    content = re.sub(rb'"next_cursor":"[^"]+"', b"sealed anew each time", content)
    return answer.status_code, lasting, content, seen["route"]


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
