"""Every points route with a sound request of it: what tests of authority and of hostile bodies ask of each."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import msgspec
from msgspec import Struct

from gateway.client import Answer, PartnerClient
from gateway.runtime import Runtime
from kernel.caller import MemberRef
from kernel.database import transaction
from kernel.ids import to_wire
from partners.oauth import service as oauth
from points.ledger.service import end_transfers
from points.membership.service import grant_entitlement
from points.rewards import service as rewards
from points.rewards.model import Definition

Body = Mapping[str, Any] | None

EARN, SPEND, READ, ACTIVITY = "points:earn", "points:spend", "members:read", "activity:write"
RIGHTS = "entitlements:write"
ABSENT = {prefix: prefix + "_" + "0" * 26 for prefix in ("ent", "hld", "trf", "rwd", "rdm", "etl")}


class Scene(Struct, frozen=True, kw_only=True):
    """What belongs to one partner: the names that its requests contain."""

    member: str
    other: str
    earning: str
    hold: str
    spend: str
    transfer: str
    reward: str
    redemption: str
    right: str


#: names that nobody has
NOTHING = Scene(
    member="nobody",
    other="nobody",
    earning=ABSENT["ent"],
    hold=ABSENT["hld"],
    spend=ABSENT["hld"],
    transfer=ABSENT["trf"],
    reward=ABSENT["rwd"],
    redemption=ABSENT["rdm"],
    right=ABSENT["etl"],
)


class Probe(Struct, frozen=True, kw_only=True):
    """How a route is asked about a scene's things, and how it refuses."""

    scope: str
    body: Callable[[Scene], Body] = lambda _scene: None
    #: whose: a member's consent is asked for, so that withdrawing it closes the route
    consent: bool = True
    #: the items of a batch are refused one by one, in a 200
    batch: bool = False
    #: why it does not succeed for its owner either, when it is asked first
    own: int = 0


def occurred(scene: Scene) -> dict[str, Any]:
    return {
        "source_ref": str(uuid4()),
        "kind": "purchase",
        "occurred_at": "2026-11-11T20:00:00+08:00",
        "amount_fen": 100,
    }


def earning(scene: Scene) -> dict[str, Any]:
    return occurred(scene) | {"member": scene.member}


def hold(scene: Scene) -> dict[str, Any]:
    return {
        "member": scene.member,
        "points": 1,
        "order_ref": str(uuid4()),
        "ttl_seconds": 600,
        "point_type": "tessera",
    }


def spend(scene: Scene) -> dict[str, Any]:
    return {
        "member": scene.member,
        "points": 1,
        "order_ref": str(uuid4()),
        "order_fen": 100,
        "point_type": "tessera",
    }


def undo_earning(scene: Scene) -> dict[str, Any]:
    return {"operation_id": scene.earning, "refund_ref": str(uuid4()), "refunded_fen": 1}


def refund(scene: Scene) -> dict[str, Any]:
    return {
        "refund_ref": str(uuid4()),
        "refunded_fen": 1,
        "spend": {"id": scene.spend},
        "earning": {"operation_id": scene.earning},
    }


def transfer(scene: Scene) -> dict[str, Any]:
    return {"from": scene.member, "to": scene.other, "points": 1, "transfer_ref": str(uuid4())}


def exchange(scene: Scene) -> dict[str, Any]:
    return {
        "member": scene.member,
        "from_type": "tessera",
        "to_type": "tessera",
        "points": 1,
        "exchange_ref": str(uuid4()),
    }


def each(make: Callable[[Scene], Any]) -> Callable[[Scene], Body]:
    return lambda scene: {"items": [make(scene)]}


MEMBER, POINTS = "/v1/members/{member}", "/v1/points"
MATRIX: dict[tuple[str, str], Probe] = {
    ("GET", f"{MEMBER}/points"): Probe(scope=READ),
    ("GET", f"{MEMBER}/points/entries"): Probe(scope=READ),
    ("GET", f"{MEMBER}/membership"): Probe(scope=READ),
    ("GET", f"{MEMBER}/membership/history"): Probe(scope=READ),
    ("GET", f"{MEMBER}/entitlements"): Probe(scope=READ),
    ("POST", f"{MEMBER}/activity"): Probe(scope=ACTIVITY, body=occurred),
    ("POST", "/v1/activity/batch"): Probe(scope=ACTIVITY, body=each(earning), batch=True),
    ("POST", "/v1/entitlements/{right}/book"): Probe(
        scope=RIGHTS,
        body=lambda _: {"booking_ref": str(uuid4()), "booked_for": "2099-01-01", "quantity": 1},
        own=422,
    ),
    ("POST", "/v1/entitlements/{right}/cancel"): Probe(
        scope=RIGHTS, body=lambda _: {"booking_ref": str(uuid4())}, consent=False, own=404
    ),
    ("POST", "/v1/entitlements/{right}/use"): Probe(
        scope=RIGHTS, body=lambda _: {"use_ref": str(uuid4()), "quantity": 1}
    ),
    ("POST", f"{POINTS}/earnings"): Probe(scope=EARN, body=earning),
    ("POST", f"{POINTS}/earnings/batch"): Probe(scope=EARN, body=each(earning), batch=True),
    ("POST", f"{POINTS}/dry_runs/earn"): Probe(scope=EARN, body=earning),
    ("POST", f"{POINTS}/quotes"): Probe(
        scope=SPEND, body=lambda scene: {"member": scene.member, "order_amount_fen": 100}
    ),
    ("POST", f"{POINTS}/dry_runs/spend"): Probe(
        scope=SPEND, body=lambda scene: {"member": scene.member, "points": 1}
    ),
    ("POST", f"{POINTS}/spends"): Probe(scope=SPEND, body=spend),
    ("POST", f"{POINTS}/spends/batch"): Probe(scope=SPEND, body=each(spend), batch=True),
    ("POST", f"{POINTS}/holds"): Probe(scope=SPEND, body=hold),
    ("POST", f"{POINTS}/holds/batch"): Probe(scope=SPEND, body=each(hold), batch=True),
    ("GET", f"{POINTS}/holds/{{hold}}"): Probe(scope=SPEND, consent=False),
    ("POST", f"{POINTS}/holds/{{hold}}/capture"): Probe(scope=SPEND, body=lambda _: {}, consent=False),
    ("POST", f"{POINTS}/holds/{{hold}}/release"): Probe(scope=SPEND, consent=False),
    ("POST", f"{POINTS}/captures/batch"): Probe(
        scope=SPEND, body=each(lambda scene: {"id": scene.hold}), batch=True, consent=False
    ),
    ("POST", f"{POINTS}/releases/batch"): Probe(
        scope=SPEND, body=each(lambda scene: {"id": scene.hold}), batch=True, consent=False
    ),
    ("POST", f"{POINTS}/reversals"): Probe(scope=EARN, body=undo_earning, consent=False),
    ("POST", f"{POINTS}/reversals/batch"): Probe(
        scope=EARN, body=each(undo_earning), batch=True, consent=False
    ),
    ("POST", f"{POINTS}/refunds"): Probe(scope=f"{EARN} {SPEND}", body=refund, consent=False),
    ("POST", f"{POINTS}/dry_runs/refund"): Probe(scope=f"{EARN} {SPEND}", body=refund, consent=False),
    ("POST", f"{POINTS}/transfers"): Probe(scope=SPEND, body=transfer),
    ("GET", f"{POINTS}/transfers/{{transfer}}"): Probe(scope=SPEND, consent=False),
    ("POST", f"{POINTS}/exchanges"): Probe(scope=SPEND, body=exchange, own=409),
    ("GET", f"{POINTS}/operations/{{earning}}"): Probe(scope=EARN, consent=False),
    ("GET", "/v1/rewards?member={member}"): Probe(scope=SPEND),
    ("POST", "/v1/redemptions"): Probe(
        scope=SPEND,
        body=lambda scene: {
            "member": scene.member,
            "reward": scene.reward,
            "redemption_ref": str(uuid4()),
            "price_points": 10,
        },
    ),
    ("GET", "/v1/redemptions/{redemption}"): Probe(scope=SPEND, consent=False),
    ("POST", "/v1/redemptions/{redemption}/code"): Probe(scope=SPEND),
    ("POST", "/v1/redemptions/{redemption}/cancel"): Probe(scope=SPEND, consent=False, own=409),
    # the partner redeemed it, the bank provides it
    ("POST", "/v1/redemptions/{redemption}/fulfil"): Probe(scope=SPEND, consent=False, own=403),
    ("POST", "/v1/redemptions/{redemption}/fail"): Probe(
        scope=SPEND, body=lambda _: {}, consent=False, own=403
    ),
}


async def prepare(runtime: Runtime, partner: PartnerClient) -> Scene:
    """Two members, and one of everything."""
    now = runtime.clock.now()
    bound = await partner.post("/v1/members/bindings", {"customer_refs": [str(uuid4()), str(uuid4())]})
    member, other = (binding["member"] for binding in bound["bindings"])
    async with transaction(runtime.pool) as connection:
        partner_id: UUID = await connection.fetchval(
            "SELECT partner_id FROM registry_app WHERE client_id = $1", partner.credentials.client_id
        )
        [ref] = await runtime.subjects.resolve_each(connection, [(partner_id, member)], scope=READ, now=now)
        assert isinstance(ref, MemberRef)
        key: dict[str, Any] = {"actor": "test", "now": now}
        definition = Definition(
            kind="gift_card", title_zh="礼", title_en="gift", price_points=10, starts_at=now
        )
        reward = await rewards.define_reward(connection, definition, **key)
        lines = [f"{reward}/{number}" for number in range(5)]
        await rewards.load_codes(connection, reward_id=reward, lines=lines, vault=runtime.vault, **key)
        await rewards.move_reward(connection, reward_id=reward, state="active", **key)
        right = await grant_entitlement(
            connection,
            member=ref,
            partner_id=partner_id,
            kind="health_consultation",
            source="test",
            quantity=100,
            expires_at=now + timedelta(days=30),
            now=now,
        )
    plain = {
        "source_ref": str(uuid4()),
        "kind": "purchase",
        "occurred_at": "2026-11-11T20:00:00+08:00",
        "member": member,
    }
    earned = await partner.post("/v1/points/earnings", plain | {"amount_fen": 100_000})
    wish = {"member": member, "points": 10, "order_ref": "order"}
    held = await partner.post("/v1/points/holds", wish)
    spent = await partner.post("/v1/points/spends", wish)
    sent = await partner.post(
        "/v1/points/transfers", {"from": member, "to": other, "points": 5, "transfer_ref": str(uuid4())}
    )
    redeemed = await partner.post(
        "/v1/redemptions",
        {"member": member, "reward": to_wire("rwd", reward), "redemption_ref": str(uuid4())},
    )
    return Scene(
        member=member,
        other=other,
        earning=earned["id"],
        hold=held["id"],
        spend=spent["id"],
        transfer=sent["id"],
        reward=to_wire("rwd", reward),
        redemption=redeemed["id"],
        right=to_wire("etl", right),
    )


async def ask(client: PartnerClient, method: str, path: str, scene: Scene) -> Answer:
    body = MATRIX[method, path].body(scene)
    raw = b"" if body is None else msgspec.json.encode(body)
    where = path.format(**msgspec.structs.asdict(scene))
    return await client.send(method, where, raw, idempotency_key=str(uuid4()) if method == "POST" else None)


def outcome(answer: Answer, probe: Probe) -> tuple[int, str]:
    """Status and code; of a batch's only item where the batch itself was taken."""
    document = answer.json()
    if probe.batch and answer.status == 200:
        [result] = document["results"]
        return result["status"], result.get("problem", {}).get("code", "")
    return answer.status, document.get("code", "") if answer.status >= 400 else ""


async def withdraw(runtime: Runtime, partner: PartnerClient, member: str) -> None:
    now = runtime.clock.now()
    async with transaction(runtime.pool) as connection:
        partner_id = await connection.fetchval(
            "SELECT partner_id FROM registry_app WHERE client_id = $1", partner.credentials.client_id
        )
        [ref] = await runtime.subjects.resolve_each(connection, [(partner_id, member)], scope=READ, now=now)
        assert isinstance(ref, MemberRef)
        assert await oauth.withdraw_consent(connection, partner_id=partner_id, member=ref, now=now)


async def deliver(runtime: Runtime) -> None:
    """What a worker would do: no transfer of a test stays under way."""
    async with transaction(runtime.pool) as connection:
        while await end_transfers(connection, runtime.subjects, limit=100, now=runtime.clock.now()):
            pass
