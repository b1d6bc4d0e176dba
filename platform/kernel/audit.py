"""The audit log: who did what to what, append-only, hash-chained per lane."""

from datetime import datetime
from typing import Any
from uuid import UUID

from msgspec import Struct

from kernel.database import Connection

LANES = 8


class AuditRecord(Struct, frozen=True, kw_only=True):
    """One act that somebody may have to answer for."""

    #: who acted: `app:app_…`, `admin:…`, `job:…`
    actor: str
    #: noun and verb: `plan.refund`, `app.suspend`
    action: str
    #: the public id of what was acted on
    subject: str
    #: ids and amounts; never personal data
    detail: dict[str, Any]


APPEND = "SELECT audit_append($1, $2, $3, $4, $5, $6)"


async def append(
    connection: Connection, record: AuditRecord, *, partner_id: UUID | None, now: datetime
) -> None:
    """Append to the lane of the partner; the lane's head is locked until commit, so call it last."""
    lane = 0 if partner_id is None else 1 + partner_id.int % (LANES - 1)
    await connection.execute(APPEND, lane, now, record.actor, record.action, record.subject, record.detail)
