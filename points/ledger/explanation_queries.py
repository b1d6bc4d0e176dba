"""The statements that explain operations and find them by a partner's own numbers."""

from collections.abc import Sequence
from uuid import UUID

from kernel.caller import MemberRef
from kernel.database import Connection, read
from points.ledger.model import LotMove, MovedPoints, Operation, PostedReversal

# In the order in which the entries were posted.
LIST_LOT_MOVES = """
SELECT m.seq, lot.id AS lot_id, m.kind, m.points, lot.funder_id, funder.code AS funder,
       lot.unit_cost_e6, lot.campaign, lot.operation_id AS granted_by, lot.expires_at
  FROM ledger_entry AS e
  JOIN ledger_lot_move AS m USING (bucket, member_id, point_type, seq)
  JOIN ledger_lot AS lot USING (bucket, member_id, point_type, lot_seq)
  JOIN ledger_funder AS funder ON funder.id = lot.funder_id
 WHERE e.bucket = $1 AND e.member_id = $2 AND e.operation_id = ANY($3::uuid[])
 ORDER BY m.point_type, m.seq, m.lot_seq
"""

# Ordered by the first entry of each kind, so that the same operation always reads the same.
LIST_MOVEMENTS = """
SELECT ledger_movement(debit_account, credit_account) AS movement, sum(points)::bigint AS points
  FROM ledger_entry
 WHERE bucket = $1 AND member_id = $2 AND operation_id = ANY($3::uuid[])
 GROUP BY 1
 ORDER BY min(point_type), min(seq)
"""

# Oldest first: that is how they added up.
LIST_REVERSALS = """
SELECT id, refund_ref, amount_fen, points, recorded_at
  FROM ledger_operation
 WHERE bucket = $1 AND member_id = $2 AND reverses = ANY($3::uuid[])
 ORDER BY recorded_at, id
"""

# Newest first; the id breaks ties.
SEARCH_OPERATIONS = """
SELECT bucket, member_id, id, kind, partner_id, hold_id, source_kind, source_ref, reverses, refund_ref,
       amount_fen, points, rule_version, tier, multiplier_pct, own_card, category,
       occurred_at, recorded_at, business_on, manager, point_type, calculation
  FROM ledger_operation
 WHERE (source_ref = $1 OR refund_ref = $1) AND ($2::uuid IS NULL OR partner_id = $2)
 ORDER BY recorded_at DESC, id DESC
 LIMIT $3
"""


async def list_lot_moves(
    connection: Connection, member: MemberRef, *, operation_ids: Sequence[UUID]
) -> list[LotMove]:
    records = await connection.fetch(LIST_LOT_MOVES, member.bucket, member.member_id, operation_ids)
    return [read(record, LotMove) for record in records]


async def list_movements(
    connection: Connection, member: MemberRef, *, operation_ids: Sequence[UUID]
) -> list[MovedPoints]:
    records = await connection.fetch(LIST_MOVEMENTS, member.bucket, member.member_id, operation_ids)
    return [read(record, MovedPoints) for record in records]


async def list_reversals(
    connection: Connection, member: MemberRef, *, operation_ids: Sequence[UUID]
) -> list[PostedReversal]:
    records = await connection.fetch(LIST_REVERSALS, member.bucket, member.member_id, operation_ids)
    return [read(record, PostedReversal) for record in records]


async def search_operations(
    connection: Connection, *, reference: str, partner_id: UUID | None, limit: int
) -> list[Operation]:
    records = await connection.fetch(SEARCH_OPERATIONS, reference, partner_id, limit)
    return [read(record, Operation) for record in records]
