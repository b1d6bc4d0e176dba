"""The statements on holds. `point_type = 1` is the one kind of points there is so far: model.TESSERA."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from kernel.caller import MemberRef
from kernel.database import Connection, read
from points.ledger.model import Closing, Hold, HoldLot, Lot, Take

OPEN_HOLD = """
WITH opened AS (
    INSERT INTO ledger_hold (bucket, member_id, id, point_type, partner_id, order_ref, points, deadline_at, opened_at,
                             manager)
    VALUES ($1, $2, $3, 1, $4, $5, $6, $7, $8, $11)
)
INSERT INTO ledger_hold_lot (bucket, member_id, hold_id, lot_seq, points)
SELECT $1, $2, $3, pinned.lot_seq, pinned.points
  FROM unnest($9::bigint[], $10::bigint[]) AS pinned (lot_seq, points)
"""

LIST_HOLDS = """
SELECT bucket, member_id, id, partner_id, points, captured_points, state, order_ref, deadline_at, closed_by, manager
  FROM ledger_hold
 WHERE id = ANY($1::uuid[])
"""

# The one way out of `open`; whoever comes second finds no row.
CLOSE_HOLD = """
UPDATE ledger_hold
   SET state = $4, captured_points = $5, closed_at = $6, closed_by = $7
 WHERE bucket = $1 AND member_id = $2 AND id = $3 AND state = 'open'
RETURNING bucket, member_id, id, partner_id, points, captured_points, state, order_ref, deadline_at, closed_by, manager
"""

# Ordered so that the longest overdue go first.
LIST_LAPSED_HOLDS = """
SELECT bucket, member_id, id, partner_id, points, captured_points, state, order_ref, deadline_at, closed_by, manager
  FROM ledger_hold
 WHERE state = 'open' AND deadline_at <= $1
 ORDER BY deadline_at
 LIMIT $2
"""

# Per hold in the order in which a capture consumes them: spend order. The lateral subquery keeps any plan to key
# lookups.
LIST_HOLD_LOTS = """
SELECT pinned.hold_id, pinned.pinned_points, pinned.captured, pinned.restored,
       pinned.bucket, pinned.member_id, pinned.lot_seq, pinned.operation_id, pinned.funder_id, pinned.unit_cost_e6,
       pinned.campaign, pinned.rule_version, pinned.effective_at, pinned.expires_at, pinned.remaining_points,
       pinned.held_points
  FROM unnest($1::smallint[], $2::bigint[], $3::uuid[]) AS hold (bucket, member_id, id)
 CROSS JOIN LATERAL (
       SELECT p.hold_id, p.points AS pinned_points, p.captured, p.restored, lot.*
         FROM ledger_hold_lot AS p
         JOIN ledger_lot AS lot
           ON lot.bucket = p.bucket AND lot.member_id = p.member_id AND lot.point_type = 1
          AND lot.lot_seq = p.lot_seq
        WHERE p.bucket = hold.bucket AND p.member_id = hold.member_id AND p.hold_id = hold.id
       OFFSET 0) AS pinned
 ORDER BY pinned.hold_id, pinned.expires_at NULLS LAST, pinned.lot_seq
"""

MARK_CAPTURED = """
UPDATE ledger_hold_lot AS pinned
   SET captured = spent.points
  FROM unnest($4::bigint[], $5::bigint[]) AS spent (lot_seq, points)
 WHERE pinned.bucket = $1 AND pinned.member_id = $2 AND pinned.hold_id = $3 AND pinned.lot_seq = spent.lot_seq
"""

MARK_RESTORED = """
UPDATE ledger_hold_lot AS pinned
   SET restored = pinned.restored + back.points
  FROM unnest($4::bigint[], $5::bigint[]) AS back (lot_seq, points)
 WHERE pinned.bucket = $1 AND pinned.member_id = $2 AND pinned.hold_id = $3 AND pinned.lot_seq = back.lot_seq
"""


async def open_holds(
    connection: Connection, opened: Sequence[tuple[Hold, Sequence[Take]]], *, now: datetime
) -> None:
    await connection.executemany(OPEN_HOLD, [_opening(hold, takes, now) for hold, takes in opened])


async def list_holds(connection: Connection, hold_ids: Collection[UUID]) -> dict[UUID, Hold]:
    """Those that exist, whosever they are."""
    holds = [_hold(dict(record)) for record in await connection.fetch(LIST_HOLDS, list(hold_ids))]
    return {hold.id: hold for hold in holds}


async def list_lapsed_holds(connection: Connection, *, limit: int, now: datetime) -> list[Hold]:
    return [_hold(dict(record)) for record in await connection.fetch(LIST_LAPSED_HOLDS, now, limit)]


async def close_holds(
    connection: Connection, closings: Sequence[Closing], *, now: datetime
) -> dict[UUID, Hold]:
    """The holds that were still open, as closed, by the operation that closed them."""
    records = await connection.fetchmany(CLOSE_HOLD, [_closing(closing, now) for closing in closings])
    holds = [_hold(dict(record)) for record in records]
    return {hold.closed_by: hold for hold in holds if hold.closed_by is not None}


async def list_hold_lots(connection: Connection, holds: Sequence[Hold]) -> dict[UUID, list[HoldLot]]:
    """The lots each hold pins, by hold."""
    records = await connection.fetch(
        LIST_HOLD_LOTS,
        [hold.member.bucket for hold in holds],
        [hold.member.member_id for hold in holds],
        [hold.id for hold in holds],
    )
    pinned: dict[UUID, list[HoldLot]] = {hold.id: [] for hold in holds}
    for record in records:
        pinned[record["hold_id"]].append(_hold_lot(record))
    return pinned


async def mark_captured(connection: Connection, captures: Sequence[tuple[Hold, Sequence[Take]]]) -> None:
    if captures:
        await connection.executemany(MARK_CAPTURED, [_keyed(hold, takes) for hold, takes in captures])


async def mark_restored(connection: Connection, hold: Hold, takes: Sequence[Take]) -> None:
    await connection.execute(MARK_RESTORED, *_keyed(hold, takes))


def _opening(hold: Hold, takes: Sequence[Take], now: datetime) -> tuple[Any, ...]:
    member = hold.member
    return (
        *(member.bucket, member.member_id, hold.id, hold.partner_id, hold.order_ref, hold.points),
        *(hold.deadline_at, now),
        [taken.lot.lot_seq for taken in takes],
        [taken.points for taken in takes],
        hold.manager,
    )


def _closing(closing: Closing, now: datetime) -> tuple[Any, ...]:
    hold = closing.hold
    return (
        *(hold.member.bucket, hold.member.member_id, hold.id),
        *(closing.state, closing.spent, now, closing.operation_id),
    )


def _hold_lot(record: asyncpg.Record) -> HoldLot:
    return HoldLot(
        hold_id=record["hold_id"],
        lot=read(record, Lot),
        points=record["pinned_points"],
        captured=record["captured"],
        restored=record["restored"],
    )


def _keyed(hold: Hold, takes: Sequence[Take]) -> tuple[Any, ...]:
    sequences, points = [taken.lot.lot_seq for taken in takes], [taken.points for taken in takes]
    return hold.member.bucket, hold.member.member_id, hold.id, sequences, points


def _hold(row: dict[str, Any]) -> Hold:
    member = MemberRef(member_id=row.pop("member_id"), bucket=row.pop("bucket"))
    return msgspec.convert(row | {"member": member}, Hold)
