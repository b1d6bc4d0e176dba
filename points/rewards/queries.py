"""The statements on redemptions, and on how often a member has had a reward."""

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any
from uuid import UUID

import msgspec

from kernel.caller import MemberRef
from kernel.database import Connection
from points.rewards.model import Redemption, RedemptionState, Reward

# One row per member, reward and period; whoever comes past the limit finds none.
COUNT_USE = """
INSERT INTO rewards_member_use AS use (bucket, member_id, reward_id, period_on, used)
VALUES ($1, $2, $3, $4, 1)
    ON CONFLICT (bucket, member_id, reward_id, period_on) DO UPDATE
   SET used = use.used + 1
 WHERE use.used < $5
RETURNING true
"""

DISCOUNT_USE = """
UPDATE rewards_member_use SET used = used - 1
 WHERE bucket = $1 AND member_id = $2 AND reward_id = $3 AND period_on = $4
"""

LIST_USES = """
SELECT use.reward_id, use.used
  FROM unnest($3::uuid[], $4::date[]) AS asked (reward_id, period_on)
  JOIN rewards_member_use AS use
    ON use.bucket = $1 AND use.member_id = $2 AND use.reward_id = asked.reward_id AND use.period_on = asked.period_on
"""

INSERT_REDEMPTION = """
INSERT INTO rewards_redemption (
    bucket, member_id, id, partner_id, redemption_ref, reward_id, kind, supplier_id, price_version, price_points,
    point_type, hold_id, code_id, period_on, has_piece, counts, state, requested_at, fulfil_by)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)
    ON CONFLICT (bucket, member_id, partner_id, redemption_ref) DO NOTHING
RETURNING true
"""

FIND_BY_REF = """
SELECT id FROM rewards_redemption WHERE bucket = $1 AND member_id = $2 AND partner_id = $3 AND redemption_ref = $4
"""

FIND_REDEMPTION = """
SELECT bucket, member_id, id, partner_id, redemption_ref, reward_id, kind, supplier_id, price_version, price_points,
       point_type, hold_id, code_id, period_on, has_piece, counts, state, requested_at, fulfil_by, fulfilled_at,
       closed_at, reason, shown_at
  FROM rewards_redemption
 WHERE id = $1
"""

LOCK_REDEMPTION = """
SELECT bucket, member_id, id, partner_id, redemption_ref, reward_id, kind, supplier_id, price_version, price_points,
       point_type, hold_id, code_id, period_on, has_piece, counts, state, requested_at, fulfil_by, fulfilled_at,
       closed_at, reason, shown_at
  FROM rewards_redemption
 WHERE id = $1
   FOR UPDATE
"""

# The longest overdue first. One that somebody is at is left to him.
LOCK_OVERDUE = """
SELECT bucket, member_id, id, partner_id, redemption_ref, reward_id, kind, supplier_id, price_version, price_points,
       point_type, hold_id, code_id, period_on, has_piece, counts, state, requested_at, fulfil_by, fulfilled_at,
       closed_at, reason, shown_at
  FROM rewards_redemption
 WHERE state = 'requested' AND fulfil_by <= $1
 ORDER BY fulfil_by
 LIMIT 1
   FOR UPDATE SKIP LOCKED
"""

# Who was asked about longest ago, or never, comes first; two workers get different ones.
CLAIM_UNKNOWN = """
UPDATE rewards_redemption AS redemption
   SET asked_at = $1
  FROM (SELECT r.bucket, r.member_id, r.id, reward.offset_fen
          FROM rewards_redemption AS r
          JOIN rewards_reward AS reward ON reward.id = r.reward_id
         WHERE r.state = 'fulfilling' AND (r.asked_at IS NULL OR r.asked_at <= $2)
         ORDER BY r.asked_at NULLS FIRST
         LIMIT $3
           FOR UPDATE OF r SKIP LOCKED) AS claimed
 WHERE redemption.bucket = claimed.bucket AND redemption.member_id = claimed.member_id AND redemption.id = claimed.id
RETURNING redemption.bucket, redemption.member_id, redemption.id, claimed.offset_fen
"""

# The one way from state to state; whoever comes second finds no row.
MOVE_REDEMPTION = """
UPDATE rewards_redemption
   SET state = $5, has_piece = has_piece AND NOT $6, counts = counts AND NOT $7, reason = $8,
       fulfilled_at = CASE WHEN $5 = 'fulfilled' THEN $9::timestamptz ELSE fulfilled_at END,
       closed_at = CASE WHEN $5 IN ('failed', 'cancelled') THEN $9::timestamptz END
 WHERE bucket = $1 AND member_id = $2 AND id = $3 AND state = $4
RETURNING bucket, member_id, id, partner_id, redemption_ref, reward_id, kind, supplier_id, price_version, price_points,
          point_type, hold_id, code_id, period_on, has_piece, counts, state, requested_at, fulfil_by, fulfilled_at,
          closed_at, reason, shown_at
"""

MARK_SHOWN = """
UPDATE rewards_redemption SET shown_at = $4 WHERE bucket = $1 AND member_id = $2 AND id = $3 AND shown_at IS NULL
"""


async def count_use(
    connection: Connection, member: MemberRef, *, reward_id: UUID, period_on: date, limit: int
) -> bool:
    """False when the limit is reached."""
    key = member.bucket, member.member_id, reward_id, period_on
    return bool(await connection.fetchval(COUNT_USE, *key, limit))


async def discount_use(
    connection: Connection, member: MemberRef, *, reward_id: UUID, period_on: date
) -> None:
    await connection.execute(DISCOUNT_USE, member.bucket, member.member_id, reward_id, period_on)


async def list_uses(
    connection: Connection, member: MemberRef, periods: Sequence[tuple[Reward, date]]
) -> dict[UUID, int]:
    """How often the member had each reward in its period, by reward; without those never had."""
    rewards, days = [reward.id for reward, _ in periods], [day for _, day in periods]
    records = await connection.fetch(LIST_USES, member.bucket, member.member_id, rewards, days)
    return {record["reward_id"]: record["used"] for record in records}


async def insert_redemption(connection: Connection, r: Redemption) -> bool:
    """False when its reference was used before."""
    return bool(
        await connection.fetchval(
            INSERT_REDEMPTION,
            *(r.member.bucket, r.member.member_id, r.id, r.partner_id, r.redemption_ref, r.reward_id, r.kind),
            *(r.supplier_id, r.price_version, r.price_points, r.point_type, r.hold_id, r.code_id),
            *(r.period_on, r.has_piece, r.counts, r.state, r.requested_at, r.fulfil_by),
        )
    )


async def find_by_ref(
    connection: Connection, member: MemberRef, *, partner_id: UUID, redemption_ref: str
) -> UUID | None:
    key = member.bucket, member.member_id, partner_id, redemption_ref
    found: UUID | None = await connection.fetchval(FIND_BY_REF, *key)
    return found


async def find_redemption(connection: Connection, redemption_id: UUID) -> Redemption | None:
    """Whosever it is."""
    return _read(await connection.fetchrow(FIND_REDEMPTION, redemption_id))


async def lock_redemption(connection: Connection, redemption_id: UUID) -> Redemption | None:
    """Whosever it is, until commit."""
    return _read(await connection.fetchrow(LOCK_REDEMPTION, redemption_id))


async def lock_overdue(connection: Connection, *, now: datetime) -> Redemption | None:
    return _read(await connection.fetchrow(LOCK_OVERDUE, now))


async def claim_unknown(
    connection: Connection, *, before: datetime, limit: int, now: datetime
) -> list[tuple[UUID, MemberRef, int]]:
    """(redemption, member, what to take off the fee), not asked about since `before`."""
    records = await connection.fetch(CLAIM_UNKNOWN, now, before, limit)
    return [
        (r["id"], MemberRef(member_id=r["member_id"], bucket=r["bucket"]), r["offset_fen"]) for r in records
    ]


async def move_redemption(
    connection: Connection,
    redemption: Redemption,
    *,
    state: RedemptionState,
    gives_back: bool = False,
    reason: str | None = None,
    now: datetime,
) -> Redemption | None:
    """The redemption as moved; None when it has left its state meanwhile. A code handed out stays taken."""
    member = redemption.member
    returns_piece = gives_back and redemption.code_id is None
    key = member.bucket, member.member_id, redemption.id, redemption.state
    return _read(
        await connection.fetchrow(MOVE_REDEMPTION, *key, state, returns_piece, gives_back, reason, now)
    )


async def mark_shown(connection: Connection, redemption: Redemption, *, now: datetime) -> None:
    member = redemption.member
    await connection.execute(MARK_SHOWN, member.bucket, member.member_id, redemption.id, now)


def _read(record: Any) -> Redemption | None:
    if record is None:
        return None
    row = dict(record)
    member = MemberRef(member_id=row.pop("member_id"), bucket=row.pop("bucket"))
    return msgspec.convert(row | {"member": member}, Redemption)
