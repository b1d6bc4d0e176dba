"""Everything that can be asked of a member's points, told twice: as a request, and as what the model makes of it."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import msgspec

from exactness.house import MALL, Answer, Customer, House, Partner
from exactness.model import Lot, Refused, Wallet, end_of_base_points
from kernel.calendar import rfc3339
from kernel.database import transaction
from kernel.errors import Refusal
from kernel.ids import new_id
from points.ledger import service as ledger
from points.ledger.model import POINTS, EarnPosting, Grant

#: status and, of the body, what the model can know
Expected = tuple[int, dict[str, Any]]
STATUS = {
    "insufficient_points": 409,
    "hold_not_open": 409,
    "hold_lapsed": 409,
    "capture_exceeds_hold": 422,
    "operation_not_reversible": 409,
    "refund_exceeds_order": 422,
    "refund_already_posted": 409,
    "source_already_earned": 409,
    "exchange_too_small": 422,
    "exchange_already_posted": 409,
}


@dataclass
class Scene:
    """One member at one partner, and the public ids of what was done so far."""

    house: House
    partner: Partner
    customer: Customer
    #: to whom points may be given
    friend: Customer
    #: by the partner's own number
    wire: dict[str, str] = field(default_factory=dict)

    @property
    def now(self) -> datetime:
        return self.house.clock.at


@dataclass
class Deed:
    """A request under a key, and its meaning."""

    path: str
    body: Any
    #: changes the model as the request should change the books, and says what should be answered
    tell: Callable[[Wallet], Expected]
    #: the partner's number of what it makes
    name: str = ""
    key: str = field(default_factory=lambda: uuid4().hex)

    async def do(self, scene: Scene) -> Answer:
        return await scene.house.post(scene.partner, self.path, self.body, key=self.key)

    async def do_until_known(self, scene: Scene) -> Answer:
        return await scene.house.post_until_known(scene.partner, self.path, self.body, key=self.key)

    def predict(self, wallet: Wallet) -> Expected:
        try:
            return self.tell(wallet)
        except Refused as refused:
            return STATUS[refused.code], {"code": refused.code}

    def learn(self, scene: Scene, answer: Answer) -> None:
        """Keep the public id of what was made."""
        if self.name and answer.status == 201:
            scene.wire.setdefault(self.name, answer.body["id"])


@dataclass
class Sweep:
    """A job of the house's own; nobody is answered."""

    run: Callable[[House], Awaitable[None]]
    tell: Callable[[Wallet], None]
    key: str = ""

    async def do(self, scene: Scene) -> Answer:
        await self.run(scene.house)
        return Answer(status=204, content=b"{}", replayed=False)

    do_until_known = do

    def predict(self, wallet: Wallet) -> Expected:
        self.tell(wallet)
        return 204, {}

    def learn(self, scene: Scene, answer: Answer) -> None:
        """There is nothing to learn."""


def earn(scene: Scene, ref: str, fen: int) -> Deed:
    """An activity over HTTP: base points of the bank."""
    now = scene.now

    def tell(wallet: Wallet) -> Expected:
        points = wallet.earn(ref, fen=fen, grants=_base(fen, now), now=now)
        return 201, {"points": points, "balance": wallet.balance(now)}

    return Deed("/v1/points/earnings", activity(scene, ref, fen), tell, name=ref)


def batch(scene: Scene, items: Sequence[tuple[str, str, int]]) -> Deed:
    """Items are (what, number, fen); each is judged by itself."""
    now = scene.now
    bodies = []
    for what, ref, fen in items:
        body = activity(scene, ref, fen)
        changed: dict[str, dict[str, Any]] = {
            "good": {},
            "stranger": {"member": "x" * 43},
            "negative": {"amount_fen": -1},
            "future": {"occurred_at": rfc3339(now + timedelta(hours=1))},
        }
        bodies.append(body | changed[what])

    def tell(wallet: Wallet) -> Expected:
        statuses: list[int] = []
        for what, ref, fen in items:
            try:
                if what == "good":
                    wallet.earn(ref, fen=fen, grants=_base(fen, now), now=now)
                statuses.append({"good": 201, "stranger": 404, "negative": 422, "future": 422}[what])
            except Refused as refused:
                statuses.append(STATUS[refused.code])
        return 200, {"results": [{"status": status} for status in statuses]}

    return _Batch("/v1/points/earnings/batch", {"items": bodies}, tell, refs=[ref for _, ref, _ in items])


@dataclass
class _Batch(Deed):
    """A batch teaches one id for each item that was posted."""

    refs: list[str] = field(default_factory=list)

    def learn(self, scene: Scene, answer: Answer) -> None:
        if answer.status != 200:
            return
        for ref, result in zip(self.refs, answer.body["results"], strict=True):
            if result["status"] == 201:
                scene.wire.setdefault(ref, result["earning"]["id"])


def hold(scene: Scene, ref: str, points: int, ttl_seconds: int) -> Deed:
    now = scene.now
    deadline = now + timedelta(seconds=ttl_seconds)

    def tell(wallet: Wallet) -> Expected:
        wallet.hold(ref, points, deadline=deadline, now=now)
        return 201, {
            "state": "open",
            "points": points,
            "value_fen": points,
            "order_ref": ref,
            "expires_at": rfc3339(deadline),
        }

    body = {"member": scene.customer.sub, "points": points, "order_ref": ref, "ttl_seconds": ttl_seconds}
    return Deed("/v1/points/holds", body, tell, name=ref)


def capture(scene: Scene, ref: str, points: int | None, order_fen: int | None) -> Deed:
    now = scene.now

    def tell(wallet: Wallet) -> Expected:
        spent = wallet.capture(ref, points, order_fen=order_fen, now=now)
        released = wallet.holds[ref].points - spent
        return 200, {"state": "captured", "captured_points": spent, "released_points": released}

    body: dict[str, Any] = {}
    if points is not None:
        body["points"] = points
    if order_fen is not None:
        body["order_fen"] = order_fen
    return Deed(f"/v1/points/holds/{scene.wire[ref]}/capture", body, tell)


def release(scene: Scene, ref: str) -> Deed:
    now = scene.now

    def tell(wallet: Wallet) -> Expected:
        wallet.release(ref, now=now)
        return 200, {"state": "released", "released_points": wallet.holds[ref].points}

    return Deed(f"/v1/points/holds/{scene.wire[ref]}/release", None, tell)


def refund_earning(scene: Scene, ref: str, refund_ref: str, fen: int) -> Deed:
    now = scene.now

    def tell(wallet: Wallet) -> Expected:
        clawed, owed = wallet.refund_earning(ref, refund_ref, fen, now=now)
        told = {"points_clawed_back": clawed, "points_restored": 0, "arrears_added": owed}
        return 201, told | {"balance": wallet.balance(now)}

    return Deed("/v1/points/reversals", _refund(scene, ref, refund_ref, fen), tell)


def refund_spend(scene: Scene, ref: str, refund_ref: str, fen: int) -> Deed:
    now = scene.now

    def tell(wallet: Wallet) -> Expected:
        restored = wallet.refund_spend(ref, refund_ref, fen, now=now)
        told = {"points_clawed_back": 0, "points_restored": restored, "arrears_added": 0}
        return 201, told | {"balance": wallet.balance(now)}

    return Deed("/v1/points/reversals", _refund(scene, ref, refund_ref, fen), tell)


def spend(scene: Scene, ref: str, points: int, order_fen: int | None) -> Deed:
    now = scene.now

    def tell(wallet: Wallet) -> Expected:
        wallet.spend(ref, points, order_fen=order_fen, now=now)
        return 201, {"state": "captured", "points": points, "captured_points": points, "order_ref": ref}

    body: dict[str, Any] = {"member": scene.customer.sub, "points": points, "order_ref": ref}
    if order_fen is not None:
        body["order_fen"] = order_fen
    return Deed("/v1/points/spends", body, tell, name=ref)


def refund_both(scene: Scene, spent: str, earned: str, refund_ref: str, fen: int) -> Deed:
    now = scene.now

    def tell(wallet: Wallet) -> Expected:
        restored, clawed, owed = wallet.refund_both(spent, earned, refund_ref, fen, now=now)
        told = {"points_clawed_back": clawed, "points_restored": restored, "arrears_added": owed}
        return 201, told | {"balance": wallet.balance(now)}

    sides = {"spend": {"id": scene.wire[spent]}, "earning": {"operation_id": scene.wire[earned]}}
    return Deed("/v1/points/refunds", {"refund_ref": refund_ref, "refunded_fen": fen} | sides, tell)


def transfer(scene: Scene, ref: str, points: int) -> Deed:
    now = scene.now

    def tell(wallet: Wallet) -> Expected:
        wallet.send(ref, points, now=now)
        return 201, {"state": "sent", "points": points, "transfer_ref": ref}

    body = {"from": scene.customer.sub, "to": scene.friend.sub, "points": points, "transfer_ref": ref}
    return Deed("/v1/points/transfers", body, tell)


def exchange(scene: Scene, ref: str, points: int, way: str) -> Deed:
    """Into the other kind of points, or back."""
    now = scene.now

    def tell(wallet: Wallet) -> Expected:
        taken, given = wallet.exchange(ref, points, way, now=now)
        assert wallet.mall is not None
        here, there = wallet.balance(now), wallet.mall.balance(now)
        left, gained = (here, there) if way == "out" else (there, here)
        told = {"taken_points": taken, "given_points": given, "from_balance": left, "to_balance": gained}
        return 201, told

    one, other = ("tessera", MALL) if way == "out" else (MALL, "tessera")
    body = {"member": scene.customer.sub, "from_type": one, "to_type": other}
    return Deed("/v1/points/exchanges", {**body, "points": points, "exchange_ref": ref}, tell)


@dataclass
class Decision:
    """What two people of the bank decide; it is posted or refused."""

    points: int
    now: datetime
    key: str = ""

    async def do(self, scene: Scene) -> Answer:
        try:
            async with transaction(scene.house.desk) as connection:
                proposed = await ledger.propose_adjustment(
                    connection,
                    member=scene.customer.member,
                    point_type=POINTS,
                    points=self.points,
                    reason_code="goodwill",
                    reason="a complaint was right",
                    by="maker",
                    now=scene.now,
                )
                await ledger.approve_adjustment(
                    connection, adjustment_id=proposed.id, by="checker", now=scene.now
                )
        except Refusal as refusal:
            return Answer(
                status=STATUS[refusal.code],
                content=msgspec.json.encode({"code": refusal.code}),
                replayed=False,
            )
        return Answer(status=204, content=b"{}", replayed=False)

    do_until_known = do

    def predict(self, wallet: Wallet) -> Expected:
        try:
            wallet.adjust(self.points, now=self.now)
        except Refused as refused:
            return STATUS[refused.code], {"code": refused.code}
        return 204, {}

    def learn(self, scene: Scene, answer: Answer) -> None:
        """There is nothing to learn."""


def adjust(scene: Scene, points: int) -> Decision:
    return Decision(points, scene.now)


def arrive_all(scene: Scene) -> Sweep:
    now = scene.now

    async def run(house: House) -> None:
        done = 1
        while done:
            async with transaction(house.desk) as connection:
                done = await ledger.end_transfers(connection, house.runtime.subjects, limit=100, now=now)

    return Sweep(run, lambda wallet: wallet.end_transfers(now=now))


def lapse_all(scene: Scene) -> Sweep:
    now = scene.now

    async def run(house: House) -> None:
        done = 1
        while done:
            async with transaction(house.desk) as connection:
                done = await ledger.lapse_due(connection, limit=100, now=now)

    return Sweep(run, lambda wallet: wallet.lapse(now=now))


def expire_all(scene: Scene) -> Sweep:
    """Books what is true already, so the model does not change."""
    now = scene.now

    async def run(house: House) -> None:
        done = 1
        while done:
            async with transaction(house.desk) as connection:
                done = await ledger.expire_due(connection, limit=100, now=now)

    return Sweep(run, lambda wallet: None)


def activate_all(scene: Scene) -> Sweep:
    """Books what time has done to what waited; the model's own time has passed already."""
    now = scene.now

    async def run(house: House) -> None:
        done = 1
        while done:
            async with transaction(house.desk) as connection:
                done = await ledger.activate_due(connection, limit=100, now=now)

    return Sweep(run, lambda wallet: None)


def earn_funded(scene: Scene, ref: str, fen: int, lots: Sequence[Lot]) -> Sweep:
    """An earning of several funders, over the service, as rules would post it."""
    now = scene.now
    posting = EarnPosting(
        operation_id=new_id(now),
        member=scene.customer.member,
        partner_id=scene.partner.id,
        source_kind="purchase",
        source_ref=ref,
        amount_fen=fen,
        occurred_at=now,
        rule_version=1,
        tier="start",
        multiplier_pct=100,
        own_card=True,
        category=None,
        grants=tuple(
            Grant(
                rule="base",
                multiplier_pct=100,
                points=lot.points,
                lot_id=new_id(now),
                funder_id=lot.funder,
                unit_cost_e6=1_000_000 // lot.funder,
                expires_at=lot.ends,
                activates_at=lot.begins,
            )
            for lot in lots
        ),
    )

    async def run(house: House) -> None:
        async with transaction(house.desk) as connection:
            [outcome] = await ledger.post_earnings(connection, [posting], now=now)
        assert outcome.posted

    def tell(wallet: Wallet) -> None:
        wallet.earn(ref, fen=fen, grants=lots, now=now)

    return Sweep(run, tell)


def activity(scene: Scene, ref: str, fen: int) -> dict[str, Any]:
    """The body of an earning."""
    return {
        "member": scene.customer.sub,
        "source_ref": ref,
        "kind": "purchase",
        "occurred_at": rfc3339(scene.now),
        "amount_fen": fen,
    }


def _refund(scene: Scene, ref: str, refund_ref: str, fen: int) -> dict[str, Any]:
    return {"operation_id": scene.wire[ref], "refund_ref": refund_ref, "refunded_fen": fen}


def _base(fen: int, now: datetime) -> list[Lot]:
    """A point for every whole yuan."""
    points = fen // 100
    return [Lot(funder=1, points=points, left=points, ends=end_of_base_points(now))] if points else []
