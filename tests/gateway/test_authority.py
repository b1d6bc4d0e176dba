"""Who may do what: every points route, asked by everybody for everything; a route that is missing in the matrix fails."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any
from uuid import uuid4

import httpx
import msgspec
import pytest
from points_routes import EARN, MATRIX, NOTHING, SPEND, ask, deliver, outcome, prepare, withdraw

from gateway.app import ROUTES
from gateway.client import PartnerClient
from gateway.runtime import Runtime
from partners.oauth.scopes import SCOPES

Register = Callable[..., Awaitable[PartnerClient]]

CELLS = [pytest.param(*route, id=" ".join(route)) for route in MATRIX]


@pytest.fixture(autouse=True)
async def delivered(runtime: Runtime) -> AsyncGenerator[None, None]:
    """Nothing is left under way for the next test."""
    yield
    await deliver(runtime)


def shape(path: str) -> str:
    """A path with whatever its parameters are called."""
    parts = path.partition("?")[0].split("/")
    return "/".join("{}" if part.startswith("{") else part for part in parts)


def test_every_points_route_is_in_the_matrix() -> None:
    served = {
        (method, shape(path))
        for route in ROUTES
        if route.fn.__module__.startswith("points.")
        for method in route.http_methods - {"OPTIONS", "HEAD"}
        for path in route.paths
        if not path.startswith("/mobile/")  # test_mobile.py has their matrix
    }
    assert {(method, shape(path)) for method, path in MATRIX} == served


def test_every_points_route_that_moves_value_takes_an_idempotency_key() -> None:
    harmless = ("/v1/points/quotes", "/v1/points/dry_runs/", "/v1/redemptions/{id:str}/code")
    bare = {
        path
        for route in ROUTES
        if route.fn.__module__.startswith("points.") and "POST" in route.http_methods
        for path in route.paths
        if route.opt.get("idempotent") is not True
    }
    assert {path for path in bare if not path.startswith(harmless)} == set()


@pytest.mark.parametrize(("method", "path"), CELLS)
async def test_a_route_serves_its_owner_with_its_scope_and_consent_and_nobody_else(
    runtime: Runtime,
    register: Register,
    http: httpx.AsyncClient,
    partner: PartnerClient,
    method: str,
    path: str,
) -> None:
    probe, own = MATRIX[method, path], await prepare(runtime, partner)
    # anonymous
    content = msgspec.json.encode(probe.body(own))
    where = path.format(**msgspec.structs.asdict(own))
    assert (await http.request(method, where, content=content)).status_code == 401
    # another partner, who may do everything: as if it were not there, with the same words
    stranger = await register(*sorted(SCOPES))
    foreign, absent = [outcome(await ask(stranger, method, path, scene), probe) for scene in (own, NOTHING)]
    assert foreign[0] == absent[0] == 404
    assert foreign[1] == absent[1]
    # the partner itself, with every scope but the one
    for scope in probe.scope.split():
        credentials = msgspec.structs.replace(partner.credentials, scopes=sorted(set(SCOPES) - {scope}))
        narrow = PartnerClient(credentials, http=http, deadline_seconds=5.0)
        assert outcome(await ask(narrow, method, path, own), probe) == (403, "insufficient_scope")
    # the member no longer consents: only what was begun may still be ended or read
    if probe.consent:
        unwilling = await prepare(runtime, partner)
        await withdraw(runtime, partner, unwilling.member)
        assert outcome(await ask(partner, method, path, unwilling), probe) == (403, "consent_missing")
    status, code = outcome(await ask(partner, method, path, own), probe)
    assert status == probe.own or (not probe.own and status in (200, 201)), code


@pytest.mark.parametrize("side", ["spend", "earning"])
async def test_a_refund_of_an_own_and_a_foreign_side_does_neither(
    runtime: Runtime, register: Register, partner: PartnerClient, side: str
) -> None:
    own = await prepare(runtime, partner)
    stranger = await register(*sorted(SCOPES))
    foreign = await prepare(runtime, stranger)
    before = await partner.get(f"/v1/members/{own.member}/points")
    body = {
        "refund_ref": str(uuid4()),
        "refunded_fen": 1,
        "spend": {"id": (foreign if side == "spend" else own).spend},
        "earning": {"operation_id": (foreign if side == "earning" else own).earning},
    }
    for path in ("/v1/points/refunds", "/v1/points/dry_runs/refund"):
        answer = await partner.send("POST", path, msgspec.json.encode(body), idempotency_key=str(uuid4()))
        assert (answer.status, answer.json()["code"]) == (404, "operation_not_found")
    after = await partner.get(f"/v1/members/{own.member}/points")
    assert (after | {"as_of": ""}) == (before | {"as_of": ""})


async def test_points_are_sent_to_ones_own_members_only(
    runtime: Runtime, register: Register, partner: PartnerClient
) -> None:
    own = await prepare(runtime, partner)
    foreign = await prepare(runtime, await register(*sorted(SCOPES)))
    for ends in ({"to": foreign.member}, {"from": foreign.member}):
        body = {"from": own.member, "to": own.other, "points": 1, "transfer_ref": str(uuid4())} | ends
        answer = await partner.send(
            "POST", "/v1/points/transfers", msgspec.json.encode(body), idempotency_key=str(uuid4())
        )
        assert (answer.status, answer.json()["code"]) == (404, "member_not_found")


async def test_a_token_for_one_side_neither_reads_nor_undoes_the_other(
    runtime: Runtime, partner: PartnerClient, http: httpx.AsyncClient
) -> None:
    own = await prepare(runtime, partner)
    for scope, foreign in ((EARN, own.spend), (SPEND, own.earning)):
        credentials = msgspec.structs.replace(partner.credentials, scopes=[scope])
        narrow = PartnerClient(credentials, http=http, deadline_seconds=5.0)
        undo: dict[str, Any] = {"operation_id": foreign, "refund_ref": str(uuid4()), "refunded_fen": 1}
        read = await narrow.send("GET", f"/v1/points/operations/{foreign}")
        single = await narrow.send(
            "POST", "/v1/points/reversals", msgspec.json.encode(undo), idempotency_key=str(uuid4())
        )
        assert [answer.json()["code"] for answer in (read, single)] == ["insufficient_scope"] * 2
        batch = await narrow.post("/v1/points/reversals/batch", {"items": [undo]})
        assert batch["results"][0]["problem"]["code"] == "insufficient_scope"
