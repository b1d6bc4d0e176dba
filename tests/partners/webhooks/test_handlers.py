"""The HTTP face of webhooks and events, served by a bare application."""

from collections.abc import AsyncGenerator
from datetime import datetime
from typing import Any, cast
from uuid import uuid4

import httpx
import pytest
from litestar import Litestar, Response
from litestar.di import Provide

from kernel.caller import Caller
from kernel.database import Connection
from kernel.errors import Refusal
from kernel.ids import to_wire
from kernel.pages import CursorSeal
from kernel.settings import Settings
from kernel.vault import Vault
from partners.webhooks import handlers, service

from .conftest import Partner, register

URL = "https://hooks.example.com/in"


def serve(connection: Connection, partner: Partner, now: datetime) -> httpx.AsyncClient:
    """A client of `partner` on a bare application in the test's transaction."""
    caller = Caller(
        partner_id=partner.id,
        app_id=uuid4(),
        client_id="app_1",
        scopes=frozenset(("events:read",)),
        key_thumbprint="x",
    )
    given: dict[str, tuple[Any, Any]] = {
        "connection": (Connection, connection),
        "caller": (Caller, caller),
        "now": (datetime, now),
        "vault": (Vault, partner.vault),
        "cursors": (CursorSeal, CursorSeal(bytes(32))),
        "settings": (Settings, Settings()),
    }
    application = Litestar(
        handlers.routes,
        dependencies={name: _provide(*what) for name, what in given.items()},
        exception_handlers={
            Refusal: lambda _, refusal: Response({"code": refusal.code, **refusal.facts}, status_code=409)
        },
        openapi_config=None,
    )
    transport = httpx.ASGITransport(cast(Any, application))
    return httpx.AsyncClient(transport=transport, base_url="https://bank.example")


def _provide(kind: Any, value: Any) -> Provide:
    def provided() -> Any:
        return value

    provided.__annotations__["return"] = kind
    return Provide(provided, sync_to_thread=False)


@pytest.fixture
async def http(
    connection: Connection, partner: Partner, now: datetime
) -> AsyncGenerator[httpx.AsyncClient, None]:
    async with serve(connection, partner, now) as client:
        yield client


async def _register(http: httpx.AsyncClient, *event_types: str) -> dict[str, Any]:
    answer = await http.post("/v1/webhook_endpoints", json={"url": URL, "event_types": event_types or ["*"]})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_every_route_asks_for_the_scope_and_every_post_is_idempotent() -> None:
    for route in handlers.routes:
        assert route.opt["scope"] == "events:read"
        assert route.opt.get("idempotent", False) is ("POST" in route.http_methods)


async def test_the_secret_of_an_endpoint_is_shown_once(http: httpx.AsyncClient) -> None:
    new = await _register(http, "plan.captured", "plan.captured")
    assert new["secret"].startswith("whsec_")
    assert new["id"].startswith("whe_")
    assert new["event_types"] == ["plan.captured"]
    [listed] = (await http.get("/v1/webhook_endpoints")).json()["data"]
    assert listed == {key: value for key, value in new.items() if key != "secret"}
    rotated = (await http.post(f"/v1/webhook_endpoints/{new['id']}/rotate_secret")).json()
    assert rotated["secret"] != new["secret"]


@pytest.mark.parametrize(
    "body",
    [
        {"url": URL},
        {"url": URL, "event_types": []},
        {"url": URL, "event_types": ["Plan Captured"]},
        {"url": URL, "event_types": ["*"], "status": "disabled"},
        {"url": URL, "event_types": ["*"], "partner_id": "ptn_1"},
        {"url": "x" * 3_000, "event_types": ["*"]},
    ],
)
async def test_a_body_outside_the_schema_is_refused(http: httpx.AsyncClient, body: dict[str, Any]) -> None:
    assert (await http.post("/v1/webhook_endpoints", json=body)).status_code == 400


async def test_an_inner_url_is_refused_with_its_reason(http: httpx.AsyncClient) -> None:
    answer = await http.post(
        "/v1/webhook_endpoints", json={"url": "https://169.254.169.254/", "event_types": ["*"]}
    )
    assert answer.json() == {"code": "webhook_url_refused", "reason": "host"}


async def test_a_partner_has_at_most_twenty_endpoints_listed_in_pages(http: httpx.AsyncClient) -> None:
    ids = [(await _register(http))["id"] for _ in range(20)]
    answer = await http.post("/v1/webhook_endpoints", json={"url": URL, "event_types": ["*"]})
    assert answer.json()["code"] == "too_many_webhook_endpoints"
    first = (await http.get("/v1/webhook_endpoints", params={"limit": 15})).json()
    rest = (
        await http.get("/v1/webhook_endpoints", params={"limit": 15, "cursor": first["next_cursor"]})
    ).json()
    assert sorted(item["id"] for item in (*first["data"], *rest["data"])) == sorted(ids)
    assert rest["next_cursor"] is None


async def test_events_are_read_page_by_page_and_on_from_the_last_id(
    http: httpx.AsyncClient, connection: Connection, partner: Partner, now: datetime
) -> None:
    await partner.tell(connection, "plan.captured", now=now, count=5)
    while await service.relay(connection, limit=1_000, now=now):
        pass
    first = (await http.get("/v1/events", params={"limit": 2})).json()
    assert set(first["data"][0]) == {"id", "type", "occurred_at", "partner", "sequence", "object", "data"}
    assert first["data"][0]["occurred_at"] == "2026-11-20T04:00:00Z"
    second = (await http.get("/v1/events", params={"limit": 2, "after": first["next_cursor"]})).json()
    third = (await http.get("/v1/events", params={"after": second["data"][-1]["id"]})).json()
    pages = (*first["data"], *second["data"], *third["data"])
    assert [event["data"]["no"] for event in pages] == [0, 1, 2, 3, 4]
    assert third["next_cursor"] is None


async def test_another_partner_sees_neither_endpoint_nor_event_nor_cursor(
    http: httpx.AsyncClient, connection: Connection, partner: Partner, vault: Vault, now: datetime
) -> None:
    endpoint = (await _register(http))["id"]
    await partner.tell(connection, "plan.captured", now=now, count=3)
    while await service.relay(connection, limit=1_000, now=now):
        pass
    events = (await http.get("/v1/events", params={"limit": 1})).json()
    async with serve(connection, await register(connection, vault, now), now) as stranger:
        for call in (
            stranger.get(f"/v1/webhook_endpoints/{endpoint}/deliveries"),
            stranger.post(f"/v1/webhook_endpoints/{endpoint}/rotate_secret"),
            stranger.post(f"/v1/webhook_endpoints/{endpoint}/test"),
            stranger.post(f"/v1/webhook_endpoints/{endpoint}/verify"),
            stranger.post(f"/v1/webhook_endpoints/{endpoint}/replay", json={"since": "2026-01-01T00:00:00Z"}),
            stranger.get("/v1/events", params={"after": events["data"][0]["id"]}),
            stranger.get(f"/v1/webhook_endpoints/{to_wire('whe', uuid4())}/deliveries"),
        ):
            assert (await call).json()["code"] == "not_found"
        assert (await stranger.get("/v1/events")).json()["data"] == []
        stolen = await stranger.get("/v1/events", params={"after": events["next_cursor"]})
        assert stolen.json()["code"] == "invalid_cursor"


async def test_deliveries_are_listed_tested_and_replayed(
    http: httpx.AsyncClient, connection: Connection, now: datetime
) -> None:
    endpoint = (await _register(http, "plan.captured"))["id"]
    sent = await http.post(f"/v1/webhook_endpoints/{endpoint}/test")
    assert (sent.status_code, sent.json()["event_type"]) == (202, "webhook.test")
    while await service.relay(connection, limit=1_000, now=now):
        pass
    [delivery] = (await http.get(f"/v1/webhook_endpoints/{endpoint}/deliveries")).json()["data"]
    assert (delivery["type"], delivery["state"], delivery["attempts"]) == ("webhook.test", "pending", 0)
    path = f"/v1/webhook_endpoints/{endpoint}/replay"
    again = await http.post(path, json={"event_id": delivery["event_id"]})
    assert again.json() == {"code": "delivery_in_progress", "state": "pending"}
    await connection.execute("UPDATE webhooks_delivery SET state = 'dead' WHERE state = 'pending'")
    again = await http.post(path, json={"event_id": delivery["event_id"]})
    assert (again.status_code, again.json()) == (202, {"queued": 1, "next_cursor": None})
    nothing = await http.post(path, json={"since": "2026-11-20T12:00:00+08:00"})
    assert nothing.json() == {"queued": 0, "next_cursor": None}
    for body in ({}, {"event_id": delivery["event_id"], "since": "2026-11-20T12:00:00Z"}):
        assert (await http.post(path, json=body)).json()["code"] == "replay_needs_one_choice"
