"""What takes two of the bank's people: to reinstate a partner, and to change how an app may come in.

One proposes, another approves, and it is done once, in the transaction of the approval.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from kernel import audit
from kernel.audit import AuditRecord
from kernel.database import Connection
from kernel.errors import Absent, Conflict, Unprocessable
from kernel.ids import new_id, to_wire
from partners.registry import change_queries, queries
from partners.registry.access import check_access
from partners.registry.model import Access, App, Change, ChangeKind, ChangeState
from partners.registry.service import find_app, find_partner, set_partner_status

#: how long a proposal waits for a second pair of eyes
PROPOSAL_LIFE = timedelta(hours=72)
REASON_LENGTH_MAX = 500


class ReasonMissing(Unprocessable):
    """Say why, in one to 500 characters."""


class ChangeUnknown(Absent):
    """No such proposal."""

    code = "change_not_found"


class ChangeOpen(Conflict):
    """The same change of this partner or app is waiting for a decision already."""


class ChangeNeedsAnother(Conflict):
    """Who proposed a change cannot decide it: it takes two people."""


class ChangeDecided(Conflict):
    """The change has been decided already, or nobody decided it in time."""


class PartnerNotSuspended(Conflict):
    """Only a suspended partner is reinstated."""


async def propose_reinstatement(
    connection: Connection, *, partner_id: UUID, reason: str, by: str, now: datetime
) -> Change:
    """Put it before somebody else; the partner stays suspended."""
    partner = await find_partner(connection, partner_id)
    if partner.status != "suspended":
        raise PartnerNotSuspended(partner_status=partner.status)
    return await _propose(connection, "reinstate", partner_id, None, {}, reason=reason, by=by, now=now)


async def propose_access(
    connection: Connection, *, app: App, access: Access, loopback: bool, reason: str, by: str, now: datetime
) -> Change:
    """Put a new access before somebody else; the app keeps the one it has."""
    payload = msgspec.to_builtins(check_access(access, loopback=loopback))
    return await _propose(
        connection, "access", app.partner_id, app.id, payload, reason=reason, by=by, now=now
    )


async def approve_change(connection: Connection, *, change_id: UUID, by: str, now: datetime) -> Change:
    """Do it, once. One that nobody decided in time comes back as `expired`, and nothing has changed."""
    found = await _find_open(connection, change_id, by)
    if found.expires_at <= now:
        return await _decide(connection, found, "expired", None, now)
    decided = await _decide(connection, found, "approved", by, now)
    if found.kind == "reinstate":
        await set_partner_status(
            connection, partner_id=found.partner_id, status="live", reason=found.reason, actor=by, now=now
        )
    else:
        assert found.app_id is not None, "an access is one app's"
        await _set_access(connection, found.app_id, msgspec.convert(found.payload, Access), by=by, now=now)
    return decided


async def reject_change(connection: Connection, *, change_id: UUID, by: str, now: datetime) -> Change:
    """Turn it down; or find that time has."""
    found = await _find_open(connection, change_id, by)
    if found.expires_at <= now:
        return await _decide(connection, found, "expired", None, now)
    return await _decide(connection, found, "rejected", by, now)


async def list_changes(
    connection: Connection, *, state: ChangeState | None = None, limit: int = 100
) -> Sequence[Change]:
    """Newest first."""
    return await change_queries.list_changes(connection, state=state, limit=limit)


async def _propose(
    connection: Connection,
    kind: ChangeKind,
    partner_id: UUID,
    app_id: UUID | None,
    payload: dict[str, Any],
    *,
    reason: str,
    by: str,
    now: datetime,
) -> Change:
    told = reason.strip()
    if not 0 < len(told) <= REASON_LENGTH_MAX:
        raise ReasonMissing
    change = Change(
        id=new_id(now),
        partner_id=partner_id,
        app_id=app_id,
        kind=kind,
        payload=payload,
        reason=told,
        state="proposed",
        proposed_by=by,
        proposed_at=now,
        expires_at=now + PROPOSAL_LIFE,
    )
    await change_queries.expire_changes(connection, partner_id, now=now)
    try:
        await change_queries.insert_change(connection, change)
    except asyncpg.UniqueViolationError as violation:
        assert violation.constraint_name == "registry_change_open"
        raise ChangeOpen from None
    await _record(connection, change, "propose", by, now)
    return change


async def _find_open(connection: Connection, change_id: UUID, by: str) -> Change:
    found = await change_queries.find_change(connection, change_id)
    if found is None:
        raise ChangeUnknown
    if found.state != "proposed":
        raise ChangeDecided(state=found.state)
    if found.proposed_by == by:
        raise ChangeNeedsAnother
    return found


async def _decide(
    connection: Connection, change: Change, state: ChangeState, by: str | None, now: datetime
) -> Change:
    if not await change_queries.decide_change(connection, change.id, state, by=by, now=now):
        raise ChangeDecided
    if by is not None:
        await _record(connection, change, state, by, now)
    return msgspec.structs.replace(change, state=state, decided_by=by, decided_at=now)


async def _set_access(
    connection: Connection, app_id: UUID, access: Access, *, by: str, now: datetime
) -> None:
    """The app's tokens end: what they are bound to, and where they may come from, may be other now."""
    if not await queries.set_access(connection, app_id, access):
        raise Absent
    await queries.raise_epoch(connection, app_id, now=now)
    app = await find_app(connection, app_id)
    record = AuditRecord(
        actor=by, action="app.access", subject=app.client_id, detail=msgspec.to_builtins(access)
    )
    await audit.append(connection, record, partner_id=app.partner_id, now=now)


async def _record(connection: Connection, change: Change, verb: str, by: str, now: datetime) -> None:
    detail = {"change": to_wire("chg", change.id), "reason": change.reason, **change.payload}
    record = AuditRecord(
        actor=by,
        action=f"{change.kind}.{verb}",
        subject=to_wire("ptn", change.partner_id),
        detail=detail,
    )
    await audit.append(connection, record, partner_id=change.partner_id, now=now)
