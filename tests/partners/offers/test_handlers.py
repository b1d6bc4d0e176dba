"""Offers, quotes and plans as a partner sees them on the wire."""

from collections.abc import AsyncGenerator
from datetime import datetime
from typing import Any

import httpx
import pytest
from litestar import Litestar
from litestar.di import Provide

import partners.credit.handlers
import partners.offers.handlers
from gateway.problems import exception_handlers
from gateway.requests import Passage
from kernel.database import Connection
from kernel.ids import to_wire
from kernel.settings import Settings
from partners.oauth.service import PairwiseSubjects


def provide(value: Any) -> Provide:
    def given() -> Any:
        return value

    return Provide(given, sync_to_thread=False)


@pytest.fixture
async def http(
    connection: Connection, hospital: Any, now: datetime
) -> AsyncGenerator[httpx.AsyncClient, None]:
    """The routes of offers and credit, called as the hospital's app."""
    given = {
        "connection": connection,
        "caller": hospital.caller,
        "subjects": PairwiseSubjects(),
        "signer": hospital.signer,
        "settings": Settings(),
        "now": now,
    }
    app = Litestar(
        route_handlers=[*partners.offers.handlers.routes, *partners.credit.handlers.routes],
        dependencies={name: provide(value) for name, value in given.items()},
        exception_handlers=exception_handlers(),
        openapi_config=None,
    )

    async def edge(scope: Any, receive: Any, send: Any) -> None:
        Passage(request_id="req_1", base_url="https://bank.example", now=now).enter(scope)
        await app(scope, receive, send)

    transport = httpx.ASGITransport(app=edge)
    async with httpx.AsyncClient(transport=transport, base_url="https://bank.example") as client:
        yield client


async def post(http: httpx.AsyncClient, path: str, body: Any = None, *, status: int) -> Any:
    answer = await (http.post(path) if body is None else http.post(path, json=body))
    assert answer.status_code == status, answer.text
    return answer.json()


async def test_the_whole_story_over_http(http: httpx.AsyncClient, hospital: Any) -> None:
    cart = {
        "order_ref": "bill-1",
        "lines": [{"sku": "treatment", "name": "门诊", "quantity": 1, "unit_fen": 600_000}],
        "total_fen": 600_000,
    }
    found = await post(
        http,
        "/v1/offers/search",
        {"scenario": "medical", "member": hospital.sub, "cart": cart, "personalised": False},
        status=200,
    )
    [offer] = found["offers"]
    assert found["personalised"] is False
    assert [component["type"] for component in offer["components"]] == ["instalment", "entitlement"]
    quote = await post(
        http,
        "/v1/quotes",
        {"offer_version": offer["offer_version"], "member": hospital.sub, "cart": cart, "periods": 6},
        status=201,
    )
    assert quote["expires_at"].endswith("Z")
    assert quote["points"] == {"spend": 0, "value_fen": 0}
    assert quote["schedule"][0] == {
        "no": 1,
        "due_on": "2026-12-20",
        "anchor_on": "2026-12-20",
        "principal_fen": 100_000,
        "interest_fen": 0,
        "fee_fen": 0,
        "due_fen": 100_000,
    }
    assert quote["funding"] == [{"funder": "bank", "kind": "interest_subsidy", "amount_fen": 9_000}]
    # Never without rate, repayment method and total cost.
    assert {"customer_rate_ppm", "repayment_method", "total_cost_fen", "total_payable_fen"} <= quote.keys()
    path = f"/v1/quotes/{quote['id']}"
    evidence = {
        "hash": quote["disclosure"]["hash"],
        "displayed_seconds": 8,
        "confirmed_at": "2026-11-20T12:00:00+08:00",
    }
    assert (await post(http, f"{path}/disclosure", evidence, status=200))["state"] == "disclosed"
    answer = await post(http, f"{path}/accept", status=201)
    assert answer["application"]["decision"] == {"outcome": "approved", "reason_codes": ["approved"]}
    plan = f"/v1/plans/{answer['plan']['id']}"
    assert (await http.get(path)).json()["state"] == "accepted"
    application = (await http.get(f"/v1/applications/{answer['application']['id']}")).json()
    assert application["plan_id"] == answer["plan"]["id"]

    captured = await post(http, f"{plan}/captures", {"amount_fen": 400_000}, status=201)
    assert captured["plan"]["state"] == "partially_captured"
    assert (await post(http, f"{plan}/captures", status=201))["amount_fen"] == 200_000
    schedule = (await http.get(f"{plan}/schedule")).json()
    assert (schedule["cause"], schedule["version"], len(schedule["rows"])) == ("capture", 3, 6)

    refund = {"refund_ref": "r-1", "amount_fen": 150_000, "lines": [{"sku": "treatment", "quantity": 1}]}
    preview = await post(http, f"{plan}/refunds/preview", refund, status=200)
    statement = await post(http, f"{plan}/refunds", refund, status=201)
    assert preview == {**statement, "id": None}
    assert {
        "uncaptured_released_fen",
        "principal_reduced_fen",
        "cash_to_customer_fen",
        "interest_refund_fen",
        "fee_refund_fen",
        "discount_reversed_fen",
        "subsidy_reversed",
        "points_restored",
        "points_clawed_back",
        "arrears_added",
        "entitlements_revoked",
        "schedule",
    } <= statement.keys()
    assert (await http.get(plan)).json()["outstanding_fen"] == 450_000
    again = await post(http, f"{plan}/refunds", refund, status=409)
    assert again["code"] == "refund_already_posted"
    assert (await post(http, f"{plan}/void", status=409))["code"] == "plan_not_voidable"


async def test_a_decline_does_not_say_why(
    http: httpx.AsyncClient, connection: Connection, hospital: Any, now: datetime
) -> None:
    for order in range(2):
        await hospital.authorise(connection, hospital.cart(2_400_000, order_ref=f"o-{order}"), now=now)
    quote = await hospital.quote(connection, hospital.cart(2_400_000), now=now)
    await hospital.disclose(connection, quote, now=now)
    answer = await http.post(f"/v1/quotes/{to_wire('qte', quote.id)}/accept", json={})
    assert answer.status_code == 201
    assert answer.json()["plan"] is None
    assert answer.json()["application"]["decision"] == {"outcome": "declined", "reason_codes": ["declined"]}
    application = await http.get(f"/v1/applications/{answer.json()['application']['id']}")
    assert "limit" not in answer.text + application.text


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/quotes/{}"),
        ("POST", "/v1/quotes/{}/accept"),
        ("GET", "/v1/plans/{}"),
        ("GET", "/v1/plans/{}/schedule"),
        ("POST", "/v1/plans/{}/captures"),
        ("POST", "/v1/plans/{}/void"),
        ("GET", "/v1/applications/{}"),
    ],
)
@pytest.mark.parametrize(
    "name", ["nonsense", "qte_00000000000000000000000000", "pln_00000000000000000000000000"]
)
async def test_what_is_not_there_is_404(http: httpx.AsyncClient, method: str, path: str, name: str) -> None:
    answer = await http.request(method, path.format(name))
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_unknown_fields_and_unprintable_names_are_refused(
    http: httpx.AsyncClient, hospital: Any
) -> None:
    cart: dict[str, Any] = {
        "order_ref": "o",
        "lines": [{"sku": "s", "quantity": 1, "unit_fen": 600_000}],
        "total_fen": 600_000,
    }
    request = {"scenario": "medical", "member": hospital.sub, "cart": cart}
    assert (await http.post("/v1/offers/search", json=request)).status_code == 200
    for spoilt in (
        {**request, "extra": 1},
        {**request, "scenario": "casino"},
        {**request, "cart": {**cart, "lines": [{**cart["lines"][0], "name": "a\nb"}]}},
        {**request, "cart": {**cart, "total_fen": 6_000.5}},
    ):
        assert (await http.post("/v1/offers/search", json=spoilt)).status_code == 422
