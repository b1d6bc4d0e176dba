"""Every statement on proposed changes."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from kernel.database import Connection, read, read_if_any
from partners.registry.model import Change, ChangeState

INSERT_CHANGE = """
INSERT INTO registry_change (id, partner_id, app_id, kind, payload, reason, state, proposed_by, proposed_at, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, 'proposed', $7, $8, $9)
"""

FIND_CHANGE = """
SELECT id, partner_id, app_id, kind, payload, reason, state, proposed_by, proposed_at, expires_at, decided_by, decided_at
  FROM registry_change
 WHERE id = $1
"""

DECIDE_CHANGE = """
UPDATE registry_change SET state = $2, decided_by = $3, decided_at = $4 WHERE id = $1 AND state = 'proposed' RETURNING true
"""

EXPIRE_CHANGES = """
UPDATE registry_change SET state = 'expired', decided_at = $2 WHERE partner_id = $1 AND state = 'proposed' AND expires_at <= $2
"""

# Newest first: an operator asks what is open.
LIST_CHANGES = """
SELECT id, partner_id, app_id, kind, payload, reason, state, proposed_by, proposed_at, expires_at, decided_by, decided_at
  FROM registry_change
 WHERE $1::text IS NULL OR state = $1
 ORDER BY proposed_at DESC, id DESC
 LIMIT $2
"""


async def insert_change(connection: Connection, change: Change) -> None:
    await connection.execute(
        INSERT_CHANGE,
        change.id,
        change.partner_id,
        change.app_id,
        change.kind,
        change.payload,
        change.reason,
        change.proposed_by,
        change.proposed_at,
        change.expires_at,
    )


async def find_change(connection: Connection, change_id: UUID) -> Change | None:
    return read_if_any(await connection.fetchrow(FIND_CHANGE, change_id), Change)


async def decide_change(
    connection: Connection, change_id: UUID, state: ChangeState, *, by: str | None, now: datetime
) -> bool:
    """False if it was decided before."""
    return bool(await connection.fetchval(DECIDE_CHANGE, change_id, state, by, now))


async def expire_changes(connection: Connection, partner_id: UUID, *, now: datetime) -> None:
    """Close the partner's proposals that nobody decided in time."""
    await connection.execute(EXPIRE_CHANGES, partner_id, now)


async def list_changes(connection: Connection, *, state: ChangeState | None, limit: int) -> Sequence[Change]:
    return [read(record, Change) for record in await connection.fetch(LIST_CHANGES, state, limit)]
