"""A small bank for the tests of points: members, earnings, holds, and an auditor who trusts no sum."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from uuid import UUID, uuid4

import pytest
from own_database import database_name, database_url, owner_url, pool

from kernel.caller import ConsentMissing, MemberRef
from kernel.database import Connection
from kernel.errors import Refusal
from kernel.ids import new_id
from points.earning.book import SHELF
from points.ledger import service
from points.ledger.model import POINTS, EarnOutcome, EarnPosting, Grant, Hold, PointType, SpendRequest
from points.membership.service import enrol_members

__all__ = ["Bank", "bank", "database_name", "database_url", "make_bank", "owner_url", "pool"]

#: every line is a sentence that must be true of one wallet; a query finds what contradicts it
AUDIT = {
    "the wallet shows its last entry": """
        SELECT FROM ledger_wallet AS w JOIN ledger_entry AS e USING (bucket, member_id, point_type, seq)
         WHERE w.member_id = $1
           AND (w.available_points, w.held_points, w.pending_points, w.arrears_points, w.head_hash)
            IS DISTINCT FROM (e.available_after, e.held_after, e.pending_after, e.arrears_after, e.hash)""",
    "every account is the sum of its entries": """
        SELECT FROM ledger_wallet AS w
         CROSS JOIN LATERAL (
               SELECT sum(CASE WHEN credit_account = 1 THEN points WHEN debit_account = 1 THEN -points END) AS available,
                      sum(CASE WHEN credit_account = 2 THEN points WHEN debit_account = 2 THEN -points END) AS held,
                      sum(CASE WHEN credit_account = 3 THEN points WHEN debit_account = 3 THEN -points END) AS pending,
                      sum(CASE WHEN credit_account = 4 THEN -points WHEN debit_account = 4 THEN points END) AS arrears,
                      count(*) AS entries
                 FROM ledger_entry AS e
                WHERE e.bucket = w.bucket AND e.member_id = w.member_id AND e.point_type = w.point_type) AS total
         WHERE w.member_id = $1
           AND (w.available_points, w.held_points, w.pending_points, w.arrears_points, w.seq)
            IS DISTINCT FROM
               (coalesce(available, 0), coalesce(held, 0), coalesce(pending, 0), coalesce(arrears, 0), entries)""",
    "available, held and pending are what the lots have": """
        SELECT FROM ledger_wallet AS w
         CROSS JOIN LATERAL (
               SELECT coalesce(sum(remaining_points - held_points - pending_points), 0) AS free,
                      coalesce(sum(held_points), 0) AS held, coalesce(sum(pending_points), 0) AS waiting
                 FROM ledger_lot AS l
                WHERE l.bucket = w.bucket AND l.member_id = w.member_id AND l.point_type = w.point_type) AS lots
         WHERE w.member_id = $1
           AND (w.available_points, w.held_points, w.pending_points) IS DISTINCT FROM (free, lots.held, waiting)""",
    "held is what the open holds reserve": """
        SELECT FROM ledger_wallet AS w
         WHERE w.member_id = $1 AND w.held_points <> (
               SELECT coalesce(sum(points), 0) FROM ledger_hold AS h
                WHERE h.member_id = $1 AND h.state = 'open' AND h.point_type = w.point_type)""",
    "a hold's lots make up the hold": """
        SELECT FROM ledger_hold AS h
         CROSS JOIN LATERAL (
               SELECT sum(points) AS points, sum(captured) AS captured
                 FROM ledger_hold_lot AS p WHERE p.member_id = h.member_id AND p.hold_id = h.id) AS pinned
         WHERE h.member_id = $1 AND (h.points, h.captured_points) IS DISTINCT FROM (pinned.points, pinned.captured)""",
    "lots are what their moves made of them": """
        SELECT FROM ledger_lot AS l
         CROSS JOIN LATERAL (
               SELECT sum(CASE WHEN kind IN ('grant', 'restore') THEN points
                               WHEN kind IN ('hold', 'release', 'activate') THEN 0 ELSE -points END) AS remaining,
                      sum(CASE WHEN kind = 'hold' THEN points
                               WHEN kind IN ('capture', 'release') THEN -points ELSE 0 END) AS held,
                      CASE WHEN l.activates_at IS NULL THEN 0
                           ELSE l.points - coalesce(sum(points) FILTER (WHERE kind IN ('activate', 'void')), 0) END AS pending
                 FROM ledger_lot_move AS m
                WHERE m.member_id = l.member_id AND m.point_type = l.point_type AND m.lot_seq = l.lot_seq) AS moved
         WHERE l.member_id = $1
           AND (l.remaining_points, l.held_points, l.pending_points)
            IS DISTINCT FROM (moved.remaining, moved.held, moved.pending)""",
    "an entry's moves make up its points": """
        SELECT FROM ledger_entry AS e
         CROSS JOIN LATERAL (
               SELECT sum(points) AS points
                 FROM ledger_lot_move AS m
                WHERE m.member_id = e.member_id AND m.point_type = e.point_type AND m.seq = e.seq) AS moved
         WHERE e.member_id = $1 AND e.debit_account <> 4 AND moved.points IS DISTINCT FROM e.points""",
    "the chain replays": """
        SELECT FROM (SELECT e.hash,
                            ledger_entry_hash(lag(e.hash, 1, '\\x') OVER (PARTITION BY e.point_type ORDER BY e.seq), e) AS expected
                       FROM ledger_entry AS e WHERE e.member_id = $1) AS link
         WHERE link.hash <> link.expected""",
    "nothing is undone twice": """
        SELECT FROM ledger_reversible AS r
         CROSS JOIN LATERAL (
               SELECT sum(o.amount_fen) AS fen, sum(o.points) AS points FROM ledger_operation AS o
                WHERE o.member_id = r.member_id AND o.reverses = r.operation_id) AS undone
         WHERE r.member_id = $1
           AND (r.reversed_fen, r.reversed_points) IS DISTINCT FROM (undone.fen, undone.points)""",
}

HOUSE_AUDIT = """
SELECT FROM (SELECT bucket, account, funder_id, point_type, business_on, sum(debit) AS debit, sum(credit) AS credit
               FROM (SELECT bucket, debit_account AS account, funder_id, point_type, business_on, points AS debit, 0 AS credit
                       FROM ledger_entry
                      UNION ALL
                     SELECT bucket, credit_account, funder_id, point_type, business_on, 0, points FROM ledger_entry) AS side
              WHERE account >= 10
              GROUP BY 1, 2, 3, 4, 5) AS entered
  FULL JOIN ledger_house_slot AS slot USING (bucket, account, funder_id, point_type, business_on)
 WHERE (entered.debit, entered.credit) IS DISTINCT FROM (slot.debit_points, slot.credit_points)
"""


class Everybody:
    """Every member consents; the seam at which partners.oauth is joined."""

    async def names(
        self, connection: Connection, *, partner_id: UUID, member_ids: Sequence[int]
    ) -> dict[int, str]:
        return {member_id: str(member_id) for member_id in member_ids}

    async def resolve_each(
        self, connection: Connection, asked: Sequence[tuple[UUID, str]], *, scope: str, now: datetime
    ) -> list[MemberRef | Refusal]:
        return [MemberRef(member_id=int(sub), bucket=0) for _, sub in asked]


class Nobody(Everybody):
    """No member consents any more."""

    async def resolve_each(
        self, connection: Connection, asked: Sequence[tuple[UUID, str]], *, scope: str, now: datetime
    ) -> list[MemberRef | Refusal]:
        return [ConsentMissing() for _ in asked]


class Bank:
    """Short words for long calls."""

    def __init__(self, now: datetime) -> None:
        self.now = now
        self.partner_id = uuid4()
        self.everybody = Everybody()
        self.nobody = Nobody()

    async def enrol(self, connection: Connection) -> MemberRef:
        return (await enrol_members(connection, count=1, now=self.now))[0]

    def posting(
        self,
        member: MemberRef,
        points: int,
        *,
        source_ref: str | None = None,
        amount_fen: int | None = None,
        expires_in: timedelta | None = timedelta(days=365),
        activates_in: timedelta | None = None,
        funder_id: int = 1,
        unit_cost_e6: int = 1_000_000,
    ) -> EarnPosting:
        grant = Grant(
            rule="base",
            multiplier_pct=100,
            points=points,
            lot_id=new_id(self.now),
            funder_id=funder_id,
            unit_cost_e6=unit_cost_e6,
            expires_at=None if expires_in is None else self.now + expires_in,
            activates_at=None if activates_in is None else self.now + activates_in,
        )
        return EarnPosting(
            operation_id=new_id(self.now),
            member=member,
            partner_id=self.partner_id,
            source_kind="purchase",
            source_ref=source_ref or str(uuid4()),
            amount_fen=points * 100 if amount_fen is None else amount_fen,
            occurred_at=self.now,
            rule_version=1,
            tier="start",
            multiplier_pct=100,
            own_card=True,
            category=None,
            grants=(grant,) if points else (),
        )

    async def earn(
        self,
        connection: Connection,
        member: MemberRef,
        points: int,
        *,
        source_ref: str | None = None,
        amount_fen: int | None = None,
        expires_in: timedelta | None = timedelta(days=365),
        activates_in: timedelta | None = None,
        funder_id: int = 1,
        unit_cost_e6: int = 1_000_000,
        now: datetime | None = None,
    ) -> EarnOutcome:
        posting = self.posting(
            member,
            points,
            source_ref=source_ref,
            amount_fen=amount_fen,
            expires_in=expires_in,
            activates_in=activates_in,
            funder_id=funder_id,
            unit_cost_e6=unit_cost_e6,
        )
        return (await service.post_earnings(connection, [posting], now=now or self.now))[0]

    async def hold(
        self,
        connection: Connection,
        member: MemberRef,
        points: int,
        *,
        ttl_seconds: int = 1800,
        now: datetime | None = None,
    ) -> Hold:
        return await service.place_hold(
            connection,
            member=member,
            partner_id=self.partner_id,
            points=points,
            order_ref="order-1",
            ttl_seconds=ttl_seconds,
            now=now or self.now,
        )

    async def spend(self, connection: Connection, member: MemberRef, points: int) -> UUID:
        """Hold and capture; the hold's id."""
        held = await self.hold(connection, member, points)
        await service.capture_hold(connection, hold_id=held.id, partner_id=self.partner_id, now=self.now)
        return held.id

    async def spend_at_once(
        self,
        connection: Connection,
        member: MemberRef,
        points: int,
        *,
        order_fen: int | None = None,
        point_type: PointType = POINTS,
        now: datetime | None = None,
    ) -> Hold:
        """A spend without a hold before it."""
        request = SpendRequest(
            member=member,
            partner_id=self.partner_id,
            points=points,
            order_ref="order-1",
            order_fen=order_fen,
            point_type=point_type,
        )
        [answer] = await service.spend_points(connection, [request], now=now or self.now)
        if isinstance(answer, Refusal):
            raise answer
        return answer

    async def adjust(
        self,
        connection: Connection,
        member: MemberRef,
        points: int,
        *,
        point_type: PointType = POINTS,
        now: datetime | None = None,
    ) -> None:
        """Given or taken by two of the bank's people."""
        proposed = await service.propose_adjustment(
            connection,
            member=member,
            point_type=point_type,
            points=points,
            reason_code="goodwill",
            reason="A test.",
            by="admin:ann",
            now=now or self.now,
        )
        await service.approve_adjustment(
            connection, adjustment_id=proposed.id, by="admin:bob", now=now or self.now
        )

    async def register_type(
        self, connection: Connection, name: str = "miles", *, value_fen_e6: int = 5_000_000
    ) -> PointType:
        """A second type of points."""
        return await service.register_point_type(
            connection, name=name, value_fen_e6=value_fen_e6, by="admin:ann", now=self.now
        )

    async def contradictions(self, connection: Connection) -> list[str]:
        """The views of the points books that have something to say, whosever it is."""
        views = await connection.fetch(
            "SELECT viewname FROM pg_views WHERE viewname ~ '^books_i(0[2-9]|1[0-5]|17|18|33|6[3-9])_' ORDER BY 1"
        )
        return [view[0] for view in views if await connection.fetch(f"SELECT FROM {view[0]}")]

    async def available(self, connection: Connection, member: MemberRef, now: datetime | None = None) -> int:
        balance = await service.read_balance(connection, member, now=now or self.now)
        return balance.available_points

    async def lots(self, connection: Connection, member: MemberRef) -> list[tuple[int, int, int]]:
        """(points, remaining, held) of every lot, oldest first."""
        records = await connection.fetch(
            "SELECT points, remaining_points, held_points FROM ledger_lot WHERE member_id = $1 ORDER BY lot_seq",
            member.member_id,
        )
        return [(record[0], record[1], record[2]) for record in records]

    async def audit(self, connection: Connection, member: MemberRef) -> list[str]:
        """The sentences that are not true of this member's books."""
        contradicted = []
        for sentence, query in AUDIT.items():
            if await connection.fetch(query, member.member_id):
                contradicted.append(sentence)
        if await connection.fetch(HOUSE_AUDIT):
            contradicted.append("house slots are the sum of the entries")
        return contradicted


@pytest.fixture(autouse=True)
def fresh_rule_book() -> None:
    """What the test before changed and rolled back is not remembered."""
    SHELF.forget()


@pytest.fixture
def bank(now: datetime) -> Bank:
    """Short words for long calls."""
    return Bank(now)


@pytest.fixture
def make_bank() -> Callable[[datetime], Bank]:
    """For properties, where fixtures of one test serve many examples."""
    return Bank
