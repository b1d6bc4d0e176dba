"""The HTTP face of settlement, served by a bare application."""

import csv
import io
from collections.abc import AsyncGenerator
from datetime import date, datetime, timedelta
from typing import Any, cast
from uuid import UUID, uuid4

import httpx
import pytest
from litestar import Litestar, Response
from litestar.di import Provide

from kernel.caller import Caller
from kernel.database import Connection
from kernel.errors import Refusal
from kernel.ids import to_wire
from kernel.pages import CursorSeal
from partners.settlement import handlers, service
from partners.settlement.model import Batch

from .conftest import Shop

DAY = date(2026, 11, 20)


def serve(connection: Connection, partner_id: UUID) -> httpx.AsyncClient:
    """A client of the partner on a bare application in the test's transaction."""
    caller = Caller(
        partner_id=partner_id,
        app_id=uuid4(),
        client_id="app_1",
        scopes=frozenset(("settlement:read",)),
        key_thumbprint="x",
    )
    given: dict[str, tuple[Any, Any]] = {
        "connection": (Connection, connection),
        "caller": (Caller, caller),
        "cursors": (CursorSeal, CursorSeal(bytes(32))),
    }
    application = Litestar(
        handlers.routes,
        dependencies={name: _provide(*what) for name, what in given.items()},
        exception_handlers={Refusal: lambda _, refusal: Response({"code": refusal.code}, status_code=409)},
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
async def http(connection: Connection, shop: Shop) -> AsyncGenerator[httpx.AsyncClient, None]:
    async with serve(connection, shop.partner_id) as client:
        yield client


@pytest.fixture
async def batch(shop: Shop, connection: Connection, now: datetime) -> Batch:
    for points in (100, 200, 300):
        await shop.earn(points)
    await shop.spend(50)
    return await service.close_batch(connection, partner_id=shop.partner_id, business_on=DAY, now=now)


def test_every_route_asks_for_the_scope() -> None:
    assert [route.opt["scope"] for route in handlers.routes] == ["settlement:read"] * 3


async def test_a_batch_is_shown_with_its_sums(http: httpx.AsyncClient, batch: Batch) -> None:
    shown = (await http.get(f"/v1/settlement_batches/{to_wire('stb', batch.id)}")).json()
    assert (shown["business_on"], shown["state"], shown["lines"], shown["net_fen"]) == (
        "2026-11-20",
        "closed",
        4,
        50,
    )
    assert shown["totals"] == [
        {"kind": "points_issued", "direction": "none", "lines": 3, "points": 600, "amount_fen": 480},
        {
            "kind": "points_redeemed",
            "direction": "bank_owes_partner",
            "lines": 1,
            "points": 50,
            "amount_fen": 50,
        },
    ]
    [listed] = (await http.get("/v1/settlement_batches")).json()["data"]
    assert listed == {key: value for key, value in shown.items() if key != "totals"}


async def test_batches_come_in_pages(
    http: httpx.AsyncClient, shop: Shop, connection: Connection, now: datetime
) -> None:
    for days in (2, 1, 0):
        await service.close_batch(
            connection, partner_id=shop.partner_id, business_on=DAY - timedelta(days=days), now=now
        )
    first = (await http.get("/v1/settlement_batches", params={"limit": 2})).json()
    rest = (await http.get("/v1/settlement_batches", params={"cursor": first["next_cursor"]})).json()
    assert [item["business_on"] for item in (*first["data"], *rest["data"])] == [
        "2026-11-20",
        "2026-11-19",
        "2026-11-18",
    ]
    assert rest["next_cursor"] is None


async def test_lines_come_in_pages_or_as_one_file(http: httpx.AsyncClient, batch: Batch) -> None:
    path = f"/v1/settlement_batches/{to_wire('stb', batch.id)}/lines"
    first = (await http.get(path, params={"limit": 3})).json()
    rest = (await http.get(path, params={"limit": 3, "cursor": first["next_cursor"]})).json()
    lines = [*first["data"], *rest["data"]]
    assert [line["no"] for line in lines] == [1, 2, 3, 4]
    assert rest["next_cursor"] is None

    answer = await http.get(path, headers={"accept": "text/csv"})
    assert answer.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(answer.text, newline="")))
    assert [row["operation_id"] for row in rows] == [line["operation_id"] for line in lines]
    assert [int(row["amount_fen"]) for row in rows] == [line["amount_fen"] for line in lines]
    assert [row["recorded_at"] for row in rows] == [line["recorded_at"] for line in lines]


async def test_another_partner_sees_nothing_of_it(
    connection: Connection, batch: Batch, http: httpx.AsyncClient
) -> None:
    path = f"/v1/settlement_batches/{to_wire('stb', batch.id)}"
    page = (await http.get(f"{path}/lines", params={"limit": 1})).json()
    async with serve(connection, uuid4()) as stranger:
        for url, accept in ((path, "*/*"), (f"{path}/lines", "*/*"), (f"{path}/lines", "text/csv")):
            assert (await stranger.get(url, headers={"accept": accept})).json()["code"] == "not_found"
        stolen = await stranger.get(f"{path}/lines", params={"cursor": page["next_cursor"]})
        assert stolen.json()["code"] == "invalid_cursor"
        assert (await stranger.get("/v1/settlement_batches")).json()["data"] == []
