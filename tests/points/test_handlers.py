"""The points routes over HTTP: shapes of requests and answers, without the edge around them."""

from collections.abc import AsyncGenerator, Sequence
from datetime import datetime, timedelta
from typing import Any, cast
from uuid import UUID, uuid4

import httpx
import pytest
from litestar import Litestar, Request, Response
from litestar.di import Provide

import points.earning.handlers
import points.earning.handlers_dry_runs
import points.ledger.handlers
import points.membership.handlers
from kernel.caller import Caller, ConsentMissing, MemberRef, MemberUnknown
from kernel.database import Connection
from kernel.errors import Refusal
from kernel.ids import to_wire
from kernel.pages import CursorSeal
from kernel.problem import status_of, to_problem
from kernel.together import Asked, I, Kind, O
from points.ledger.explanation_queries import SEARCH_OPERATIONS
from points.ledger.model import POINTS
from points.ledger.service import end_transfers, expire_due, search_operations, set_rate
from points.membership.service import grant_entitlement

Bank = Any
BASE = "https://bank.example"
SCOPES = frozenset({"points:earn", "points:spend", "members:read", "entitlements:write"})
ROUTES = [
    *points.earning.handlers.routes,
    *points.earning.handlers_dry_runs.routes,
    *points.ledger.handlers.routes,
    *points.membership.handlers.routes,
]


class KnownSubjects:
    """The members this partner knows; the seam at which partners.oauth is joined."""

    def __init__(self) -> None:
        self.members: dict[str, MemberRef] = {}
        self.asked_scopes: set[str] = set()

    async def resolve(
        self, connection: Connection, caller: Caller, subs: Sequence[str], *, scope: str, now: datetime
    ) -> dict[str, MemberRef]:
        self.asked_scopes.add(scope)
        return {sub: self.members[sub] for sub in subs if sub in self.members}

    async def resolve_one(
        self, connection: Connection, caller: Caller, sub: str, *, scope: str, now: datetime
    ) -> MemberRef:
        self.asked_scopes.add(scope)
        if sub == "unwilling":
            raise ConsentMissing
        if sub not in self.members:
            raise MemberUnknown
        return self.members[sub]

    async def resolve_each(
        self,
        connection: Connection,
        asked: Sequence[tuple[UUID, str]],
        *,
        scope: str,
        by_member: bool = False,
        now: datetime,
    ) -> list[MemberRef | Refusal]:
        self.asked_scopes.add(scope)
        return [
            ConsentMissing() if sub == "unwilling" else self.members.get(sub) or MemberUnknown()
            for _, sub in asked
        ]

    async def names(
        self, connection: Connection, *, partner_id: UUID, member_ids: Sequence[int]
    ) -> dict[int, str]:
        return {member.member_id: sub for sub, member in self.members.items()}


class AtOnce:
    """Posts every request by itself, on the test's connection; the seam at which the gateway's writer is joined."""

    def __init__(self, desk: "Desk") -> None:
        self._desk = desk

    async def post(self, kind: Kind[I, O], item: I) -> O:
        desk = self._desk
        asked = [Asked(caller=desk.caller(), item=item)]
        (answer,) = await kind.post(desk.connection, asked, desk.subjects, desk.now)
        if isinstance(answer, Refusal):
            raise answer
        return answer


class Desk:
    """One partner's view of the routes."""

    def __init__(self, bank: Bank, connection: Connection) -> None:
        self.bank = bank
        self.connection = connection
        self.now: datetime = bank.now
        self.scopes = SCOPES
        self.subjects = KnownSubjects()
        self._cursors = CursorSeal(bytes(32))
        app = Litestar(
            route_handlers=ROUTES,
            dependencies={
                "connection": Provide(lambda: self.connection, sync_to_thread=False),
                "caller": Provide(self.caller, sync_to_thread=False),
                "writer": Provide(lambda: AtOnce(self), sync_to_thread=False),
                "subjects": Provide(lambda: self.subjects, sync_to_thread=False),
                "cursors": Provide(lambda: self._cursors, sync_to_thread=False),
                "base_url": Provide(lambda: BASE, sync_to_thread=False),
                "now": Provide(lambda: self.now, sync_to_thread=False),
            },
            exception_handlers={Refusal: _answer},
            openapi_config=None,
        )
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(app=cast(Any, app)), base_url=BASE)

    def caller(self) -> Caller:
        return Caller(
            partner_id=self.bank.partner_id,
            app_id=self.bank.partner_id,
            client_id="app_test",
            scopes=self.scopes,
            key_thumbprint="",
        )

    async def enrol(self, sub: str) -> MemberRef:
        member: MemberRef = await self.bank.enrol(self.connection)
        self.subjects.members[sub] = member
        return member

    async def post(self, path: str, body: Any = None) -> tuple[int, Any]:
        response = await self.http.post(path, json=body)
        return response.status_code, response.json()

    async def get(self, path: str) -> tuple[int, Any]:
        response = await self.http.get(path)
        return response.status_code, response.json()

    async def earn(self, sub: str, ref: str, yuan: int) -> Any:
        status, answer = await self.post("/v1/points/earnings", self.activity(sub, ref, yuan))
        assert status == 201, answer
        return answer

    def activity(self, sub: str, ref: str, yuan: int) -> dict[str, Any]:
        return {
            "member": sub,
            "source_ref": ref,
            "kind": "purchase",
            "occurred_at": "2026-11-11T20:00:00+08:00",
            "amount_fen": yuan * 100,
            "category": "appliances",
            "own_card": True,
        }


def _answer(_: Request[Any, Any, Any], refusal: Refusal) -> Response[Any]:
    return Response(to_problem(refusal, base_url=BASE), status_code=status_of(refusal))


@pytest.fixture
async def desk(bank: Bank, connection: Connection) -> AsyncGenerator[Desk, None]:
    opened = Desk(bank, connection)
    yield opened
    await opened.http.aclose()


async def test_an_earning_names_its_components_and_the_balance(desk: Desk) -> None:
    await desk.enrol("ann")
    answer = await desk.earn("ann", "order-1", 1_299)
    assert answer["id"].startswith("ent_")
    (component,) = answer["components"]
    assert component.pop("lot_id").startswith("lot_")
    assert component == {
        "rule": "base",
        "multiplier_pct": 100,
        "points": 1_299,
        "funder": "bank",
        "expires_at": "2028-11-30T16:00:00Z",
    }
    assert answer["points"] == 1_299
    assert answer["balance"] == {
        "available_points": 1_299,
        "held_points": 0,
        "pending_points": 0,
        "arrears_points": 0,
    }


async def test_a_second_earning_of_the_event_names_the_first(desk: Desk) -> None:
    await desk.enrol("ann")
    first = await desk.earn("ann", "order-1", 10)
    status, problem = await desk.post("/v1/points/earnings", desk.activity("ann", "order-1", 10))
    assert (status, problem["code"], problem["operation_id"]) == (409, "source_already_earned", first["id"])


@pytest.mark.parametrize(
    "change",
    [
        {"amount_fen": -1},
        {"amount_fen": 1.5},
        {"occurred_at": "2026-11-11T20:00:00"},
        {"kind": "gift"},
        {"source_ref": ""},
        {"surprise": 1},
    ],
)
async def test_what_does_not_fit_the_schema_is_refused(desk: Desk, change: dict[str, Any]) -> None:
    await desk.enrol("ann")
    status, _ = await desk.post("/v1/points/earnings", desk.activity("ann", "order-1", 10) | change)
    assert status == 400  # Litestar's own; the gateway turns it into 422 with pointers


async def test_a_batch_answers_every_item_for_itself(desk: Desk) -> None:
    await desk.enrol("ann")
    items = [
        desk.activity("ann", "a", 10),
        desk.activity("bob", "b", 10),
        desk.activity("ann", "a", 10),
        desk.activity("ann", "c", 10) | {"amount_fen": -1},
        desk.activity("ann", "d", 10) | {"occurred_at": "2027-01-01T00:00:00Z"},
        "not even an object",
        desk.activity("ann", "nul\0", 10),
    ]
    status, answer = await desk.post("/v1/points/earnings/batch", {"items": items})
    results = answer["results"]
    assert status == 200
    assert [result["status"] for result in results] == [201, 404, 409, 422, 422, 422, 422]
    assert results[0]["earning"]["points"] == 10
    assert "problem" not in results[0]
    assert results[2]["problem"] == {
        "type": f"{BASE}/problems/source_already_earned",
        "title": "Conflict with the present state",
        "status": 409,
        "detail": "This event has already earned points; an event earns once for ever.",
        "code": "source_already_earned",
        "operation_id": results[0]["earning"]["id"],
    }
    assert "$.amount_fen" in results[3]["problem"]["message"]


@pytest.mark.parametrize("items", [[], [{}] * 1_001])
async def test_a_batch_has_one_to_a_thousand_items(desk: Desk, items: list[Any]) -> None:
    status, _ = await desk.post("/v1/points/earnings/batch", {"items": items})
    assert status == 400


async def test_a_checkout_from_quote_to_refund(desk: Desk) -> None:
    await desk.enrol("ann")
    await desk.earn("ann", "order-1", 500)
    quote = await desk.post("/v1/points/quotes", {"member": "ann", "order_amount_fen": 300})
    told = {"max_points": 300, "value_fen": 300, "points_per_yuan": 100, "point_type": "tessera"}
    assert quote == (200, told)
    quote = await desk.post("/v1/points/quotes", {"member": "ann", "order_amount_fen": 90_000})
    assert quote[1]["max_points"] == 500

    status, hold = await desk.post(
        "/v1/points/holds", {"member": "ann", "points": 300, "order_ref": "o", "ttl_seconds": 600}
    )
    assert (status, hold["state"], hold["points"], hold["value_fen"]) == (201, "open", 300, 300)
    assert hold["expires_at"] == "2026-11-20T04:10:00Z"
    path = f"/v1/points/holds/{hold['id']}"
    assert (await desk.get(path))[1] == hold

    status, captured = await desk.post(f"{path}/capture", {"points": 200})
    assert status == 200
    assert captured == {
        "id": hold["id"],
        "state": "captured",
        "captured_points": 200,
        "released_points": 100,
        "value_fen": 200,
    }
    status, problem = await desk.post(f"{path}/release")
    assert (status, problem["code"], problem["state"]) == (409, "hold_not_open", "captured")

    refund = {"operation_id": hold["id"], "refund_ref": "rf-1", "refunded_fen": 50}
    status, reversal = await desk.post("/v1/points/reversals", refund)
    assert (status, reversal["points_restored"], reversal["points_clawed_back"]) == (201, 50, 0)
    assert reversal["balance"]["available_points"] == 350
    assert (await desk.post("/v1/points/reversals", refund))[1]["code"] == "refund_already_posted"


async def test_a_hold_without_enough_points_tells_how_many_there_are(desk: Desk) -> None:
    await desk.enrol("ann")
    await desk.earn("ann", "order-1", 5)
    status, problem = await desk.post("/v1/points/holds", {"member": "ann", "points": 6, "order_ref": "o"})
    assert (status, problem["code"], problem["available_points"]) == (409, "insufficient_points", 5)


async def test_a_hold_is_released_and_captured_without_a_body(desk: Desk) -> None:
    await desk.enrol("ann")
    await desk.earn("ann", "order-1", 10)
    for deed, state in (("release", "released"), ("capture", "captured")):
        _, hold = await desk.post("/v1/points/holds", {"member": "ann", "points": 10, "order_ref": "o"})
        status, answer = await desk.post(f"/v1/points/holds/{hold['id']}/{deed}")
        assert (status, answer["state"]) == (200, state)


async def test_an_earning_can_be_reversed_by_its_source(desk: Desk) -> None:
    await desk.enrol("ann")
    await desk.earn("ann", "order-1", 10)
    source = {"member": "ann", "kind": "purchase", "source_ref": "order-1"}
    status, reversal = await desk.post(
        "/v1/points/reversals", source | {"refund_ref": "r", "refunded_fen": 500}
    )
    assert (status, reversal["points_clawed_back"], reversal["arrears_added"]) == (201, 5, 0)
    status, problem = await desk.post(
        "/v1/points/reversals", source | {"source_ref": "no", "refund_ref": "r", "refunded_fen": 5}
    )
    assert (status, problem["code"]) == (404, "operation_not_found")


async def test_a_reversal_names_its_target_in_one_way(desk: Desk) -> None:
    await desk.enrol("ann")
    earned = await desk.earn("ann", "order-1", 10)
    refund = {"refund_ref": "r", "refunded_fen": 5}
    for target in ({}, {"member": "ann"}, {"operation_id": earned["id"], "member": "ann"}):
        status, problem = await desk.post("/v1/points/reversals", refund | target)
        assert (status, problem["code"]) == (422, "reversal_target_unclear")


async def test_undoing_needs_the_scope_of_doing(desk: Desk) -> None:
    await desk.enrol("ann")
    earned = await desk.earn("ann", "order-1", 10)
    _, hold = await desk.post("/v1/points/holds", {"member": "ann", "points": 10, "order_ref": "o"})
    for operation_id, scope in ((earned["id"], "points:spend"), (hold["id"], "points:earn")):
        desk.scopes = frozenset({scope})
        status, problem = await desk.post(
            "/v1/points/reversals",
            {"operation_id": operation_id, "refund_ref": "r", "refunded_fen": 5},
        )
        assert (status, problem["code"]) == (403, "insufficient_scope")


async def test_points_are_told_with_what_ends_next(desk: Desk) -> None:
    await desk.enrol("ann")
    await desk.earn("ann", "order-1", 10)
    status, points = await desk.get("/v1/members/ann/points")
    assert status == 200
    assert points == {
        "available_points": 10,
        "held_points": 0,
        "pending_points": 0,
        "arrears_points": 0,
        "expiring": [{"points": 10, "expires_at": "2028-11-30T16:00:00Z"}],
        "as_of": "2026-11-20T04:00:00Z",
        "point_type": "tessera",
    }
    desk.now += timedelta(days=900)
    assert (await desk.get("/v1/members/ann/points"))[1]["available_points"] == 0
    assert await expire_due(desk.connection, limit=10_000, now=desk.now) > 0
    assert (await desk.get("/v1/members/ann/points"))[1]["available_points"] == 0


async def test_entries_are_paged_to_the_first(desk: Desk) -> None:
    await desk.enrol("ann")
    for place in range(3):
        await desk.earn("ann", f"order-{place}", 10)
    _, page = await desk.get("/v1/members/ann/points/entries?limit=2")
    assert [entry["seq"] for entry in page["data"]] == [3, 2]
    _, last = await desk.get(f"/v1/members/ann/points/entries?limit=2&cursor={page['next_cursor']}")
    assert [entry["seq"] for entry in last["data"]] == [1]
    assert last["next_cursor"] is None


async def test_entries_show_no_operation_of_another_partner(desk: Desk) -> None:
    """An operation's id seen at two partners would join the two subjects under which they know the member."""
    member = await desk.enrol("ann")
    own = await desk.earn("ann", "order-1", 10)
    partner_id, desk.bank.partner_id = desk.bank.partner_id, uuid4()
    await desk.earn("ann", "order-1", 20)
    await desk.bank.hold(desk.connection, member, 5)
    desk.bank.partner_id = partner_id
    _, page = await desk.get("/v1/members/ann/points/entries")
    assert {entry["operation_id"] for entry in page["data"]} == {own["id"]}
    assert page["next_cursor"] is None


async def test_consent_is_asked_for_the_scope_in_use(desk: Desk) -> None:
    await desk.enrol("ann")
    await desk.earn("ann", "order-1", 10)
    await desk.get("/v1/members/ann/points")
    await desk.post("/v1/points/quotes", {"member": "ann", "order_amount_fen": 1})
    assert desk.subjects.asked_scopes == {"points:earn", "members:read", "points:spend"}
    assert (await desk.get("/v1/members/unwilling/points"))[0] == 403
    assert (await desk.get("/v1/members/nobody/points"))[0] == 404


async def test_membership_and_entitlements(desk: Desk) -> None:
    member = await desk.enrol("ann")
    _, standing = await desk.get("/v1/members/ann/membership")
    assert standing["tier"] == "start"
    for place in range(3):
        await grant_entitlement(
            desk.connection,
            member=member,
            partner_id=desk.bank.partner_id,
            kind="airport_lane",
            source="tier",
            quantity=1,
            expires_at=None,
            now=desk.now + timedelta(seconds=place),
        )
    _, page = await desk.get("/v1/members/ann/entitlements?limit=2")
    _, rest = await desk.get(f"/v1/members/ann/entitlements?limit=2&cursor={page['next_cursor']}")
    assert (len(page["data"]), len(rest["data"]), rest["next_cursor"]) == (2, 1, None)
    identifier = rest["data"][0]["id"]
    status, used = await desk.post(f"/v1/entitlements/{identifier}/use", {"use_ref": "u"})
    assert (status, used["state"], used["used"]) == (200, "used", 1)
    assert (await desk.post(f"/v1/entitlements/{identifier}/use", {"use_ref": "v"}))[0] == 409


async def test_an_earning_is_explained_with_its_inputs_lots_and_refunds(desk: Desk) -> None:
    await desk.enrol("ann")
    earned = await desk.earn("ann", "order-1", 1_299)
    refund = {"operation_id": earned["id"], "refund_ref": "rf-1", "refunded_fen": 10_000}
    _, reversal = await desk.post("/v1/points/reversals", refund)
    status, told = await desk.get(f"/v1/points/operations/{earned['id']}")
    assert (status, told["kind"], told["member"], told["points"]) == (200, "earn", "ann", 1_299)
    assert (told["source_kind"], told["source_ref"]) == ("purchase", "order-1")
    assert told["calculation"] == {
        "rule_version": 1,
        "fen_per_point": 100,
        "tier": "start",
        "multiplier_pct": 100,
        "amount_fen": 129_900,
        "category": "appliances",
        "own_card": True,
        "base_points": 1_299,
        "base_limit_points": None,
        "bonus_points": 0,
        "campaigns": [],
    }
    (lot,) = told["lots"]
    assert lot == {
        "lot_id": earned["components"][0]["lot_id"],
        "move": "grant",
        "points": 1_299,
        "funder": "bank",
        "campaign": None,
        "expires_at": "2028-11-30T16:00:00Z",
    }
    assert told["movements"] == [{"movement": "earned", "points": 1_299}]
    assert told["reversals"] == [
        {
            "id": reversal["id"],
            "refund_ref": "rf-1",
            "refunded_fen": 10_000,
            "points": 100,
            "recorded_at": "2026-11-20T04:00:00Z",
        }
    ]
    assert (told["reversed_points"], told["reversed_fen"]) == (100, 10_000)
    assert (told["occurred_at"], told["business_on"]) == ("2026-11-11T12:00:00Z", "2026-11-20")

    _, undone = await desk.get(f"/v1/points/operations/{reversal['id']}")
    assert (undone["kind"], undone["reverses"], undone["refund_ref"]) == (
        "reverse_earn",
        earned["id"],
        "rf-1",
    )
    assert (undone["calculation"], undone["movements"]) == (None, [{"movement": "clawed", "points": 100}])


async def test_a_hold_is_explained_with_its_ending(desk: Desk) -> None:
    await desk.enrol("ann")
    await desk.earn("ann", "order-1", 500)
    _, hold = await desk.post("/v1/points/holds", {"member": "ann", "points": 300, "order_ref": "o"})
    await desk.post(f"/v1/points/holds/{hold['id']}/capture", {"points": 200})
    refund = {"operation_id": hold["id"], "refund_ref": "rf-1", "refunded_fen": 50}
    _, reversal = await desk.post("/v1/points/reversals", refund)
    _, told = await desk.get(f"/v1/points/operations/{hold['id']}")
    assert (told["kind"], told["hold_id"], told["hold_state"], told["source_ref"]) == (
        "hold",
        hold["id"],
        "captured",
        "o",
    )
    assert [(lot["move"], lot["points"]) for lot in told["lots"]] == [
        ("hold", 300),
        ("capture", 200),
        ("release", 100),
    ]
    assert told["movements"] == [{"movement": "moved", "points": 400}, {"movement": "spent", "points": 200}]
    assert [(r["id"], r["points"]) for r in told["reversals"]] == [(reversal["id"], 50)]
    _, undone = await desk.get(f"/v1/points/operations/{reversal['id']}")
    assert (undone["reverses"], undone["movements"]) == (hold["id"], [{"movement": "restored", "points": 50}])
    same = await desk.get(f"/v1/points/operations/ent_{hold['id'].removeprefix('hld_')}")
    assert same[1] | {"id": told["id"]} == told, "the list of entries calls it by this name"


async def test_an_explanation_is_for_the_operations_own_partner_and_scope(desk: Desk) -> None:
    await desk.enrol("ann")
    earned = await desk.earn("ann", "order-1", 500)
    _, hold = await desk.post("/v1/points/holds", {"member": "ann", "points": 300, "order_ref": "o"})
    for scope, mine, other in (("earn", earned, hold), ("spend", hold, earned)):
        desk.scopes = frozenset({f"points:{scope}"})
        assert (await desk.get(f"/v1/points/operations/{mine['id']}"))[0] == 200
        status, problem = await desk.get(f"/v1/points/operations/{other['id']}")
        assert (status, problem["code"]) == (403, "insufficient_scope")
    desk.scopes = SCOPES
    for absent in (f"hld_{earned['id'].removeprefix('ent_')}", "ent_nonsense", "lot_1"):
        assert (await desk.get(f"/v1/points/operations/{absent}"))[0] == 404
    desk.bank.partner_id = uuid4()
    status, problem = await desk.get(f"/v1/points/operations/{earned['id']}")
    assert (status, problem["code"]) == (404, "operation_not_found")


async def test_staff_find_operations_by_any_number_of_a_partner(desk: Desk) -> None:
    await desk.enrol("ann")
    earned = await desk.earn("ann", "order-1", 500)
    _, hold = await desk.post("/v1/points/holds", {"member": "ann", "points": 300, "order_ref": "order-1"})
    refund = {"operation_id": earned["id"], "refund_ref": "refund-7", "refunded_fen": 100}
    await desk.post("/v1/points/reversals", refund)
    found = await search_operations(desk.connection, reference="order-1", partner_id=desk.bank.partner_id)
    assert {(o.kind, to_wire("ent", o.id)) for o in found} == {
        ("earn", earned["id"]),
        ("hold", f"ent_{hold['id'].removeprefix('hld_')}"),
    }
    (reversal,) = await search_operations(
        desk.connection, reference="refund-7", partner_id=desk.bank.partner_id
    )
    assert (reversal.kind, to_wire("ent", reversal.reverses or uuid4())) == ("reverse_earn", earned["id"])
    assert await search_operations(desk.connection, reference="order-1", partner_id=uuid4()) == []
    await desk.connection.execute("SET LOCAL enable_seqscan = off")
    plan = await desk.connection.fetch(f"EXPLAIN {SEARCH_OPERATIONS}", "order-1", desk.bank.partner_id, 10)
    assert any("ledger_operation_reference" in line[0] for line in plan)


async def test_a_spend_is_a_hold_that_is_over(desk: Desk) -> None:
    await desk.enrol("ann")
    await desk.earn("ann", "order-1", 500)
    status, spent = await desk.post(
        "/v1/points/spends", {"member": "ann", "points": 300, "order_ref": "o", "order_fen": 1_000}
    )
    hold_id = spent.pop("id")
    assert (status, spent) == (
        201,
        {
            "state": "captured",
            "points": 300,
            "captured_points": 300,
            "value_fen": 300,
            "order_ref": "o",
            "point_type": "tessera",
        },
    )
    assert (await desk.get(f"/v1/points/holds/{hold_id}"))[1]["state"] == "captured"
    refund = {"operation_id": hold_id, "refund_ref": "r", "refunded_fen": 500}
    assert (await desk.post("/v1/points/reversals", refund))[1]["points_restored"] == 150
    _, explained = await desk.get(f"/v1/points/operations/{hold_id}")
    assert (explained["kind"], explained["hold_state"], explained["reversed_points"]) == (
        "spend",
        "captured",
        150,
    )
    assert explained["movements"] == [{"movement": "spent", "points": 300}]
    assert [(lot["move"], lot["points"]) for lot in explained["lots"]] == [("spend", 300)]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/points/spends", {"points": 1, "order_ref": "o"}),
        ("/v1/points/holds", {"points": 1, "order_ref": "o"}),
        ("/v1/points/quotes", {"order_amount_fen": 1}),
        ("/v1/points/dry_runs/spend", {"points": 1}),
    ],
)
async def test_an_unknown_type_of_points_is_refused(desk: Desk, path: str, body: dict[str, Any]) -> None:
    await desk.enrol("ann")
    for name in ("gold", "nul\0"):
        status, problem = await desk.post(path, body | {"member": "ann", "point_type": name})
        assert (status, problem["code"]) == (422, "point_type_unknown")
    status, problem = await desk.get("/v1/members/ann/points?point_type=gold")
    assert (status, problem["code"]) == (422, "point_type_unknown")


async def test_points_of_another_type_are_another_wallet(desk: Desk) -> None:
    member = await desk.enrol("ann")
    miles = await desk.bank.register_type(desk.connection)
    await desk.earn("ann", "order-1", 500)
    _, points = await desk.get("/v1/members/ann/points?point_type=miles")
    assert (points["available_points"], points["point_type"], points["expiring"]) == (0, "miles", [])
    await desk.bank.adjust(desk.connection, member, 40, point_type=miles)
    _, quote = await desk.post(
        "/v1/points/quotes", {"member": "ann", "order_amount_fen": 104, "point_type": "miles"}
    )
    assert quote == {"max_points": 20, "value_fen": 100, "points_per_yuan": 20, "point_type": "miles"}
    _, hold = await desk.post(
        "/v1/points/holds", {"member": "ann", "points": 20, "order_ref": "o", "point_type": "miles"}
    )
    assert (hold["value_fen"], hold["point_type"]) == (100, "miles")
    assert (await desk.get(f"/v1/points/holds/{hold['id']}"))[1] == hold
    _, captured = await desk.post(f"/v1/points/holds/{hold['id']}/capture", {"points": 7})
    assert captured["value_fen"] == 35
    _, points = await desk.get("/v1/members/ann/points?point_type=miles")
    assert points["available_points"] == 33
    _, entries = await desk.get("/v1/members/ann/points/entries?point_type=miles")
    assert {entry["kind"] for entry in entries["data"]} == {"hold", "capture"}


async def test_batches_answer_every_item_for_itself(desk: Desk) -> None:
    await desk.enrol("ann")
    await desk.earn("ann", "order-1", 500)
    wish = {"member": "ann", "points": 200, "order_ref": "o"}
    items = [
        wish,
        wish | {"member": "bob"},
        wish | {"points": 0},
        "x",
        wish | {"order_ref": "\0"},
        wish,
        wish,
    ]
    for kind in ("spends", "holds"):
        status, answer = await desk.post(f"/v1/points/{kind}/batch", {"items": items})
        assert status == 200
        expected = (
            [201, 404, 422, 422, 422, 201, 409] if kind == "spends" else [409, 404, 422, 422, 422, 409, 409]
        )
        assert [result["status"] for result in answer["results"]] == expected
        if kind == "spends":
            spent = [result["result"]["id"] for result in answer["results"] if "result" in result]
    undo = {"refund_ref": "r", "refunded_fen": 200}
    status, answer = await desk.post(
        "/v1/points/reversals/batch",
        {
            "items": [
                undo | {"operation_id": spent[0]},
                undo | {"operation_id": spent[0]},
                undo | {"member": "ann", "kind": "purchase", "source_ref": "order-1"},
                undo | {"operation_id": spent[1], "refunded_fen": 201},
                undo,
            ]
        },
    )
    results = answer["results"]
    assert [result["status"] for result in results] == [201, 409, 201, 422, 422]
    assert [result["problem"]["code"] for result in results if "problem" in result] == [
        "refund_already_posted",
        "refund_exceeds_order",
        "reversal_target_unclear",
    ]
    assert results[2]["result"]["balance"]["available_points"] == 298
    _, answer = await desk.post("/v1/points/holds/batch", {"items": [wish | {"points": 50}] * 3})
    holds = [result["result"]["id"] for result in answer["results"]]
    _, answer = await desk.post(
        "/v1/points/captures/batch",
        {
            "items": [
                {"id": holds[0], "points": 20},
                {"id": holds[0]},
                {"id": holds[1], "points": 51},
                {"id": "x"},
            ]
        },
    )
    assert [result["status"] for result in answer["results"]] == [200, 409, 422, 404]
    assert answer["results"][0]["result"]["released_points"] == 30
    _, answer = await desk.post(
        "/v1/points/releases/batch", {"items": [{"id": holds[1]}, {"id": holds[0]}, {"ids": holds}]}
    )
    assert [result["status"] for result in answer["results"]] == [200, 409, 422]
    assert await desk.bank.audit(desk.connection, desk.subjects.members["ann"]) == []
    assert await desk.bank.contradictions(desk.connection) == []


async def test_one_refund_undoes_both_sides(desk: Desk) -> None:
    await desk.enrol("ann")
    await desk.earn("ann", "before", 50)
    spend = {"member": "ann", "points": 40, "order_ref": "order-1", "order_fen": 10_000}
    _, spent = await desk.post("/v1/points/spends", spend)
    earned = await desk.earn("ann", "order-1", 96)
    refund = {
        "refund_ref": "r",
        "refunded_fen": 5_000,
        "spend": {"id": spent["id"]},
        "earning": {"member": "ann", "kind": "purchase", "source_ref": "order-1", "refunded_fen": 4_800},
    }
    status, preview = await desk.post("/v1/points/dry_runs/refund", refund)
    assert status == 200
    assert [(lot["move"], lot["points"], lot["funder"]) for lot in preview["lots"]] == [
        ("restore", 20, "bank"),
        ("claw", 48, "bank"),
    ]
    status, done = await desk.post("/v1/points/refunds", refund)
    assert (status, done["points_restored"], done["points_clawed_back"]) == (201, 20, 48)
    assert (preview["points_restored"], preview["points_clawed_back"]) == (20, 48)
    assert done["balance"] == preview["balance"]
    status, problem = await desk.post("/v1/points/refunds", refund)
    assert (status, problem["code"]) == (409, "refund_already_posted")
    status, problem = await desk.post(
        "/v1/points/refunds", refund | {"refund_ref": "s", "earning": {"operation_id": spent["id"]}}
    )
    assert (status, problem["code"]) == (422, "reversal_target_unclear")
    for scopes in ({"points:earn"}, {"points:spend"}):
        desk.scopes = frozenset(scopes)
        status, problem = await desk.post(
            "/v1/points/refunds", refund | {"refund_ref": "s", "earning": {"operation_id": earned["id"]}}
        )
        assert (status, problem["code"]) == (403, "insufficient_scope")


async def everything(desk: Desk) -> list[Any]:
    """Every row of the books, and the sequences behind them."""
    tables = await desk.connection.fetch(
        "SELECT tablename FROM pg_tables WHERE tablename ~ '^(ledger|outbox|kernel|audit)_' ORDER BY 1"
    )
    rows = [
        await desk.connection.fetch(f"SELECT t::text FROM {table[0]} AS t ORDER BY t::text")
        for table in tables
    ]
    return [
        *rows,
        await desk.connection.fetch("SELECT sequencename, last_value FROM pg_sequences ORDER BY 1"),
    ]


async def test_a_dry_run_says_what_happens_then_and_changes_nothing(desk: Desk) -> None:
    member = await desk.enrol("ann")
    for days in (300, None, 30, 1):
        expires_in = None if days is None else timedelta(days=days)
        await desk.bank.earn(desk.connection, member, 100, expires_in=expires_in)
    desk.now += timedelta(days=1)
    before = await everything(desk)
    status, preview = await desk.post("/v1/points/dry_runs/spend", {"member": "ann", "points": 250})
    assert (status, preview["value_fen"], preview["balance"]["available_points"]) == (200, 250, 50)
    problem = await desk.post("/v1/points/dry_runs/spend", {"member": "ann", "points": 301})
    assert (problem[0], problem[1]["available_points"]) == (409, 300)
    assert await everything(desk) == before
    for path in ("holds", "spends"):
        savepoint = desk.connection.transaction()
        await savepoint.start()
        _, taken = await desk.post(f"/v1/points/{path}", {"member": "ann", "points": 250, "order_ref": "o"})
        _, explained = await desk.get(f"/v1/points/operations/{taken['id']}")
        moved = sorted((lot["lot_id"], lot["points"], lot["expires_at"]) for lot in explained["lots"])
        told = sorted((lot["lot_id"], lot["points"], lot["expires_at"]) for lot in preview["lots"])
        assert told == moved
        await savepoint.rollback()


async def test_a_dry_run_hides_who_else_pays(desk: Desk) -> None:
    member = await desk.enrol("ann")
    own, foreign = [
        await desk.connection.fetchval(
            "INSERT INTO ledger_funder (code, kind, partner_id) VALUES ($1, 'partner', $2) RETURNING id",
            code,
            partner_id,
        )
        for code, partner_id in (("partner:own", desk.bank.partner_id), ("partner:else", uuid4()))
    ]
    for funder_id in (own, foreign, 1):
        await desk.bank.earn(desk.connection, member, 10, funder_id=funder_id)
    _, preview = await desk.post("/v1/points/dry_runs/spend", {"member": "ann", "points": 30})
    assert [lot["funder"] for lot in preview["lots"]] == ["partner:own", None, "bank"]


async def test_a_dry_run_of_an_earning_gives_the_answer_of_the_real_one(desk: Desk) -> None:
    await desk.enrol("ann")
    earned = await desk.earn("ann", "order-1", 100)
    await desk.post("/v1/points/spends", {"member": "ann", "points": 100, "order_ref": "o"})
    await desk.post(
        "/v1/points/reversals", {"operation_id": earned["id"], "refund_ref": "r", "refunded_fen": 10_000}
    )
    before = await everything(desk)
    status, preview = await desk.post("/v1/points/dry_runs/earn", desk.activity("ann", "order-2", 130))
    assert await everything(desk) == before
    real = await desk.earn("ann", "order-2", 130)
    assert (status, preview["points"], preview["balance"]) == (200, 130, real["balance"])
    for told, done in zip(preview["components"], real["components"], strict=True):
        assert {name: told[name] for name in done if name != "lot_id"} == {
            name: done[name] for name in done if name != "lot_id"
        }
    status, problem = await desk.post("/v1/points/dry_runs/earn", desk.activity("ann", "order-2", 130))
    assert (status, problem["code"], problem["operation_id"]) == (409, "source_already_earned", real["id"])


async def test_a_transfer_over_http(desk: Desk) -> None:
    await desk.enrol("ann")
    await desk.enrol("bob")
    await desk.earn("ann", "order-1", 100)
    body = {"from": "ann", "to": "bob", "points": 60, "transfer_ref": "t"}
    status, sent = await desk.post("/v1/points/transfers", body)
    assert (status, sent["state"], sent["ended_at"]) == (201, "sent", None)
    assert sent["id"].startswith("trf_")
    assert await end_transfers(desk.connection, desk.subjects, limit=9, now=desk.now) == 1
    _, found = await desk.get(f"/v1/points/transfers/{sent['id']}")
    assert (found["state"], found["points"]) == ("arrived", 60)
    assert (await desk.get("/v1/members/bob/points"))[1]["available_points"] == 60
    for change, answer in (
        ({}, (409, "transfer_already_sent")),
        ({"to": "ann"}, (422, "transfer_to_oneself")),
        ({"to": "cid"}, (404, "member_not_found")),
        ({"from": "unwilling"}, (403, "consent_missing")),
        ({"to": "unwilling"}, (403, "consent_missing")),
        ({"transfer_ref": "u"}, (409, "insufficient_points")),
        ({"transfer_ref": "u", "points": 1_000_001}, (422, "transfer_too_large")),
    ):
        status, problem = await desk.post("/v1/points/transfers", body | change)
        assert (status, problem["code"]) == answer
    desk.bank.partner_id = uuid4()
    assert (await desk.get(f"/v1/points/transfers/{sent['id']}"))[1]["code"] == "transfer_not_found"


async def test_an_exchange_over_http(desk: Desk) -> None:
    await desk.enrol("ann")
    miles = await desk.bank.register_type(desk.connection)
    await desk.earn("ann", "order-1", 100)
    body = {"member": "ann", "from_type": "tessera", "to_type": "miles", "points": 25, "exchange_ref": "x"}
    status, problem = await desk.post("/v1/points/exchanges", body)
    assert (status, problem["code"]) == (409, "exchange_rate_missing")
    await set_rate(
        desk.connection,
        from_type=POINTS,
        to_type=miles,
        numerator=1,
        denominator=10,
        valid_from=desk.now,
        by="admin:ann",
        now=desk.now,
    )
    status, done = await desk.post("/v1/points/exchanges", body)
    assert (status, done["taken_points"], done["given_points"]) == (201, 20, 2)
    assert (done["from_balance"]["available_points"], done["to_balance"]["available_points"]) == (80, 2)
    _, explained = await desk.get(f"/v1/points/operations/{done['id']}")
    assert explained["movements"] == [
        {"movement": "exchanged_out", "points": 20},
        {"movement": "exchanged_in", "points": 2},
    ]
    status, problem = await desk.post("/v1/points/exchanges", body)
    assert (status, problem["code"], problem["operation_id"]) == (409, "exchange_already_posted", done["id"])
