"""The statements on holds, and on spends, which are holds captured at birth."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from kernel.caller import MemberRef
from kernel.database import Connection, read
from points.ledger.model import Closing, Hold, HoldLot, Lot, PointType, Take

OPEN_HOLDS = """
INSERT INTO ledger_hold (
    opened_at, bucket, member_id, id, partner_id, order_ref, points, deadline_at, manager, point_type)
SELECT $1, opened.*
  FROM unnest($2::smallint[], $3::bigint[], $4::uuid[], $5::uuid[], $6::text[], $7::bigint[], $8::timestamptz[],
              $9::text[], $10::smallint[]) AS opened
"""

# Closed by the very operation that opened it: its own.
INSERT_SPENDS = """
INSERT INTO ledger_hold (
    opened_at, closed_at, state, bucket, member_id, id, closed_by, partner_id, order_ref, points, captured_points,
    deadline_at, point_type)
SELECT $1, $1, 'captured', spent.bucket, spent.member_id, spent.id, spent.id, spent.partner_id, spent.order_ref,
       spent.points, spent.points, spent.deadline_at, spent.point_type
  FROM unnest($2::smallint[], $3::bigint[], $4::uuid[], $5::uuid[], $6::text[], $7::bigint[], $8::timestamptz[],
              $9::smallint[]) AS spent (bucket, member_id, id, partner_id, order_ref, points, deadline_at, point_type)
"""

SPEND_LOTS = """
INSERT INTO ledger_hold_lot (bucket, member_id, hold_id, lot_seq, points, captured)
SELECT spent.bucket, spent.member_id, spent.hold_id, spent.lot_seq, spent.points, spent.points
  FROM unnest($1::smallint[], $2::bigint[], $3::uuid[], $4::bigint[], $5::bigint[])
       AS spent (bucket, member_id, hold_id, lot_seq, points)
"""

PIN_LOTS = """
INSERT INTO ledger_hold_lot (bucket, member_id, hold_id, lot_seq, points)
SELECT pinned.* FROM unnest($1::smallint[], $2::bigint[], $3::uuid[], $4::bigint[], $5::bigint[]) AS pinned
"""

LIST_HOLDS = """
SELECT h.bucket, h.member_id, h.id, h.partner_id, h.points, h.captured_points, h.state, h.order_ref, h.deadline_at,
       h.closed_by, h.manager, h.spend_order, t.code AS point_type, t.name AS point_type_name, t.value_fen_e6
  FROM ledger_hold AS h
  JOIN ledger_point_type AS t ON t.code = h.point_type
 WHERE h.id = ANY($1::uuid[])
"""

CLOSE_HOLDS = """
SELECT h.bucket, h.member_id, h.id, h.partner_id, h.points, h.captured_points, h.state, h.order_ref, h.deadline_at,
       h.closed_by, h.manager, h.spend_order, t.code AS point_type, t.name AS point_type_name, t.value_fen_e6
  FROM ledger_close_holds($1, $2, $3, $4, $5, $6, $7) AS h
  JOIN ledger_point_type AS t ON t.code = h.point_type
"""

# Ordered so that the longest overdue go first.
LIST_LAPSED_HOLDS = """
SELECT h.bucket, h.member_id, h.id, h.partner_id, h.points, h.captured_points, h.state, h.order_ref, h.deadline_at,
       h.closed_by, h.manager, h.spend_order, t.code AS point_type, t.name AS point_type_name, t.value_fen_e6
  FROM ledger_hold AS h
  JOIN ledger_point_type AS t ON t.code = h.point_type
 WHERE h.state = 'open' AND h.deadline_at <= $1
 ORDER BY h.deadline_at
 LIMIT $2
"""

# Per hold in the order in which a capture consumes them: spend order. The lateral subquery keeps any plan to key
# lookups.
LIST_HOLD_LOTS = """
SELECT pinned.hold_id, pinned.pinned_points, pinned.captured, pinned.restored,
       pinned.bucket, pinned.member_id, pinned.lot_seq, pinned.operation_id, pinned.funder_id, pinned.unit_cost_e6,
       pinned.campaign, pinned.rule_version, pinned.effective_at, pinned.expires_at, pinned.remaining_points,
       pinned.held_points, pinned.pending_points, pinned.activates_at, pinned.point_type, pinned.id
  FROM unnest($1::smallint[], $2::bigint[], $3::uuid[], $4::smallint[]) AS hold (bucket, member_id, id, point_type)
 CROSS JOIN LATERAL (
       SELECT p.hold_id, p.points AS pinned_points, p.captured, p.restored, lot.*
         FROM ledger_hold_lot AS p
         JOIN ledger_lot AS lot
           ON lot.bucket = p.bucket AND lot.member_id = p.member_id AND lot.point_type = hold.point_type
          AND lot.lot_seq = p.lot_seq
        WHERE p.bucket = hold.bucket AND p.member_id = hold.member_id AND p.hold_id = hold.id
       OFFSET 0) AS pinned
 ORDER BY pinned.hold_id, pinned.expires_at NULLS LAST, pinned.lot_seq
"""

MARK_CAPTURED = "SELECT ledger_mark_captured($1, $2, $3, $4, $5)"

MARK_RESTORED = """
UPDATE ledger_hold_lot AS pinned
   SET restored = pinned.restored + back.points
  FROM unnest($4::bigint[], $5::bigint[]) AS back (lot_seq, points)
 WHERE pinned.bucket = $1 AND pinned.member_id = $2 AND pinned.hold_id = $3 AND pinned.lot_seq = back.lot_seq
"""


async def open_holds(
    connection: Connection, opened: Sequence[tuple[Hold, Sequence[Take]]], *, now: datetime
) -> None:
    holds = [hold for hold, _ in opened]
    await connection.execute(
        OPEN_HOLDS,
        now,
        [hold.member.bucket for hold in holds],
        [hold.member.member_id for hold in holds],
        [hold.id for hold in holds],
        [hold.partner_id for hold in holds],
        [hold.order_ref for hold in holds],
        [hold.points for hold in holds],
        [hold.deadline_at for hold in holds],
        [hold.manager for hold in holds],
        [hold.point_type.code for hold in holds],
    )
    await connection.execute(PIN_LOTS, *_by_lot(opened))


async def insert_spends(
    connection: Connection, spent: Sequence[tuple[Hold, Sequence[Take]]], *, now: datetime
) -> None:
    holds = [hold for hold, _ in spent]
    await connection.execute(
        INSERT_SPENDS,
        now,
        [hold.member.bucket for hold in holds],
        [hold.member.member_id for hold in holds],
        [hold.id for hold in holds],
        [hold.partner_id for hold in holds],
        [hold.order_ref for hold in holds],
        [hold.points for hold in holds],
        [hold.deadline_at for hold in holds],
        [hold.point_type.code for hold in holds],
    )
    await connection.execute(SPEND_LOTS, *_by_lot(spent))


async def list_holds(connection: Connection, hold_ids: Collection[UUID]) -> dict[UUID, Hold]:
    """Those that exist, whosever they are."""
    holds = [_hold(dict(record)) for record in await connection.fetch(LIST_HOLDS, list(hold_ids))]
    return {hold.id: hold for hold in holds}


async def list_lapsed_holds(connection: Connection, *, limit: int, now: datetime) -> list[Hold]:
    return [_hold(dict(record)) for record in await connection.fetch(LIST_LAPSED_HOLDS, now, limit)]


async def close_holds(
    connection: Connection, closings: Sequence[Closing], *, now: datetime
) -> dict[UUID, Hold]:
    """The holds that were still open, as closed, by the operation that closed them; of two closings the first counts."""
    first: dict[UUID, Closing] = {}
    for closing in closings:
        first.setdefault(closing.hold.id, closing)
    records = await connection.fetch(
        CLOSE_HOLDS,
        now,
        [closing.hold.member.bucket for closing in first.values()],
        [closing.hold.member.member_id for closing in first.values()],
        list(first),
        [closing.state for closing in first.values()],
        [closing.spent for closing in first.values()],
        [closing.operation_id for closing in first.values()],
    )
    holds = [_hold(dict(record)) for record in records]
    return {hold.closed_by: hold for hold in holds if hold.closed_by is not None}


async def list_hold_lots(connection: Connection, holds: Sequence[Hold]) -> dict[UUID, list[HoldLot]]:
    """The lots each hold pins, by hold."""
    records = await connection.fetch(
        LIST_HOLD_LOTS,
        [hold.member.bucket for hold in holds],
        [hold.member.member_id for hold in holds],
        [hold.id for hold in holds],
        [hold.point_type.code for hold in holds],
    )
    pinned: dict[UUID, list[HoldLot]] = {hold.id: [] for hold in holds}
    for record in records:
        pinned[record["hold_id"]].append(_hold_lot(record))
    return pinned


async def mark_captured(connection: Connection, captures: Sequence[tuple[Hold, Sequence[Take]]]) -> None:
    if captures:
        await connection.execute(MARK_CAPTURED, *_by_lot(captures))


async def mark_restored(connection: Connection, hold: Hold, takes: Sequence[Take]) -> None:
    sequences, points = [taken.lot.lot_seq for taken in takes], [taken.points for taken in takes]
    await connection.execute(
        MARK_RESTORED, hold.member.bucket, hold.member.member_id, hold.id, sequences, points
    )


def _hold_lot(record: asyncpg.Record) -> HoldLot:
    return HoldLot(
        hold_id=record["hold_id"],
        lot=read(record, Lot),
        points=record["pinned_points"],
        captured=record["captured"],
        restored=record["restored"],
    )


def _by_lot(holds: Sequence[tuple[Hold, Sequence[Take]]]) -> tuple[list[Any], ...]:
    """Of each lot of each hold: bucket, member, hold, number, points; as columns."""
    rows = [
        (hold.member.bucket, hold.member.member_id, hold.id, taken.lot.lot_seq, taken.points)
        for hold, takes in holds
        for taken in takes
    ]
    return tuple(list(column) for column in zip(*rows, strict=True))


def _hold(row: dict[str, Any]) -> Hold:
    member = MemberRef(member_id=row.pop("member_id"), bucket=row.pop("bucket"))
    point_type = PointType(
        code=row["point_type"], name=row.pop("point_type_name"), value_fen_e6=row.pop("value_fen_e6")
    )
    return msgspec.convert(row | {"member": member, "point_type": point_type}, Hold)
