"""The statements on adjustments."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from kernel.database import Connection, read, read_if_any
from points.ledger.deeds import Adjustment, AdjustmentState

INSERT_ADJUSTMENT = """
INSERT INTO ledger_adjustment (
    bucket, member_id, id, point_type, points, funder_id, reason_code, reason, proposed_by, proposed_at, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
"""

FIND_ADJUSTMENT = """
SELECT id, bucket, member_id, point_type, points, funder_id, reason_code, reason, state, proposed_by, proposed_at,
       expires_at, decided_by, decided_at
  FROM ledger_adjustment
 WHERE id = $1
"""

# The newest first: that is what somebody has to decide.
LIST_ADJUSTMENTS = """
SELECT id, bucket, member_id, point_type, points, funder_id, reason_code, reason, state, proposed_by, proposed_at,
       expires_at, decided_by, decided_at
  FROM ledger_adjustment
 WHERE $1::text IS NULL OR state = $1
 ORDER BY proposed_at DESC, id DESC
 LIMIT $2
"""

# Once: whoever comes second finds no row.
DECIDE_ADJUSTMENT = """
UPDATE ledger_adjustment
   SET state = $4, decided_by = $5, decided_at = $6
 WHERE bucket = $1 AND member_id = $2 AND id = $3 AND state = 'proposed'
RETURNING id, bucket, member_id, point_type, points, funder_id, reason_code, reason, state, proposed_by, proposed_at,
          expires_at, decided_by, decided_at
"""

# The longest overdue first; nobody waits for one who decides at this moment.
LIST_OVERDUE = """
SELECT id, bucket, member_id, point_type, points, funder_id, reason_code, reason, state, proposed_by, proposed_at,
       expires_at, decided_by, decided_at
  FROM ledger_adjustment
 WHERE state = 'proposed' AND expires_at <= $1
 ORDER BY expires_at
 LIMIT $2
   FOR UPDATE SKIP LOCKED
"""

FIND_FUNDER = "SELECT id FROM ledger_funder WHERE code = $1"

IS_PARTNERS = "SELECT partner_id IS NOT NULL FROM ledger_funder WHERE id = $1"


async def insert_adjustment(connection: Connection, adjustment: Adjustment) -> None:
    a = adjustment
    await connection.execute(
        INSERT_ADJUSTMENT,
        *(a.bucket, a.member_id, a.id, a.point_type, a.points, a.funder_id),
        *(a.reason_code, a.reason, a.proposed_by, a.proposed_at, a.expires_at),
    )


async def find_adjustment(connection: Connection, adjustment_id: UUID) -> Adjustment | None:
    return read_if_any(await connection.fetchrow(FIND_ADJUSTMENT, adjustment_id), Adjustment)


async def list_adjustments(
    connection: Connection, *, state: AdjustmentState | None, limit: int
) -> Sequence[Adjustment]:
    records = await connection.fetch(LIST_ADJUSTMENTS, state, limit)
    return [read(record, Adjustment) for record in records]


async def list_overdue(connection: Connection, *, limit: int, now: datetime) -> Sequence[Adjustment]:
    return [read(record, Adjustment) for record in await connection.fetch(LIST_OVERDUE, now, limit)]


async def decide_adjustment(
    connection: Connection, adjustment: Adjustment, *, state: AdjustmentState, by: str | None, now: datetime
) -> Adjustment | None:
    """The adjustment as decided; None if it was no longer open."""
    found = await connection.fetchrow(
        DECIDE_ADJUSTMENT, adjustment.bucket, adjustment.member_id, adjustment.id, state, by, now
    )
    return read_if_any(found, Adjustment)


async def find_funder(connection: Connection, code: str) -> int | None:
    found: int | None = await connection.fetchval(FIND_FUNDER, code)
    return found


async def is_partners(connection: Connection, funder_id: int) -> bool:
    """Whether a partner is behind the funder, who is billed for what it issues."""
    found: bool = await connection.fetchval(IS_PARTNERS, funder_id)
    return found
