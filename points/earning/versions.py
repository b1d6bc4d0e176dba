"""Rule versions: proposed by one person, approved by another, in force from a moment on and never changed."""

from datetime import datetime
from typing import Any

from kernel import audit
from kernel.audit import AuditRecord
from kernel.calendar import rfc3339
from kernel.database import Connection
from kernel.errors import Absent, Conflict, Forbidden
from points.earning import campaign_queries as queries
from points.earning.book import LEAD, SHELF
from points.earning.definitions import DefinitionInvalid, RuleDefinition, check_rule
from points.ledger.funder_codes import list_funder_codes


class RuleVersionUnknown(Absent):
    """There is no such version of the earning rules."""


class NotInReview(Conflict):
    """Only what is in review can be approved, and only a draft submitted."""


class MakerMayNotApprove(Forbidden):
    """Whoever proposed a change may not approve it."""


async def propose_rule(connection: Connection, definition: RuleDefinition, *, by: str, now: datetime) -> int:
    """A new version, handed in for review; its number."""
    check_rule(definition)
    funder_id = await find_funder(connection, definition.terms.funder)
    version = await queries.insert_rule(connection, definition, funder_id=funder_id, made_by=by, now=now)
    await queries.submit_rule(connection, version)
    await _record(connection, version, "earning_rule.propose", by, {}, now)
    return version


async def approve_rule(connection: Connection, version: int, *, by: str, now: datetime) -> datetime:
    """Let a version earn; returns from when on, which is late enough for every process to know of it."""
    found = await queries.find_rule(connection, version)
    if found is None:
        raise RuleVersionUnknown
    state, made_by = found
    if made_by == by:
        raise MakerMayNotApprove
    in_force_from = await queries.approve_rule(connection, version, by=by, earliest=now + LEAD, now=now)
    if in_force_from is None:
        raise NotInReview(state=state)
    await _record(
        connection, version, "earning_rule.approve", by, {"in_force_from": rfc3339(in_force_from)}, now
    )
    SHELF.forget()
    return in_force_from


async def list_rules(connection: Connection) -> list[dict[str, Any]]:
    """Every version with its state, oldest first."""
    return await queries.list_rule_rows(connection)


async def find_funder(connection: Connection, code: str) -> int:
    """The number of a funder that there is."""
    for funder_id, known in (await list_funder_codes(connection)).items():
        if known == code:
            return funder_id
    raise DefinitionInvalid(reason=f"there is no funder {code}")


async def _record(
    connection: Connection, version: int, action: str, by: str, detail: dict[str, Any], now: datetime
) -> None:
    record = AuditRecord(actor=by, action=action, subject=f"earning_rule:{version}", detail=detail)
    await audit.append(connection, record, partner_id=None, now=now)
