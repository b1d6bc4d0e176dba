"""Adjustments: points the bank gives or takes by its own decision; one of its people proposes, another decides."""

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from kernel import audit
from kernel.calendar import add_months, business_date, start_of_day
from kernel.caller import MemberRef
from kernel.database import Connection
from kernel.errors import Absent, Conflict, Refusal, Unprocessable
from kernel.ids import new_id, to_wire
from points.ledger import adjustment_queries, queries
from points.ledger.deeds import Adjustment, AdjustmentState
from points.ledger.journal import Journal
from points.ledger.model import BANK_FUNDER, Account, Lot, PointType
from points.ledger.picking import pick_lots
from points.ledger.point_types import read_point_type

#: how long a proposal waits for a second pair of eyes
PROPOSAL_LIFE = timedelta(days=7)
#: adjusted points end at the end of the month this many months later, as earned ones do
VALIDITY_MONTHS = 24
ADJUSTMENT_POINTS_MAX = 10_000_000
_CODE = re.compile(r"[a-z][a-z0-9_]{0,31}")


class AdjustmentInvalid(Unprocessable):
    """An adjustment has points other than zero, at most ten million, a reason code and a sentence that says why."""


class AdjustmentFunderUnknown(Unprocessable):
    """There is no funder with this code."""


class AdjustmentUnknown(Absent):
    """No such adjustment."""

    code = "adjustment_not_found"


class AdjustmentNeedsAnother(Conflict):
    """Who proposed an adjustment cannot decide it: it takes two people."""


class AdjustmentDecided(Conflict):
    """The adjustment has already been posted or rejected, or nobody decided it in time."""


async def propose_adjustment(
    connection: Connection,
    *,
    member: MemberRef,
    point_type: PointType,
    points: int,
    reason_code: str,
    reason: str,
    funder: str = BANK_FUNDER,
    by: str,
    now: datetime,
) -> Adjustment:
    """Put it before somebody else; nothing moves yet. Points below zero are to be taken."""
    told = reason.strip()
    if (
        not 0 < abs(points) <= ADJUSTMENT_POINTS_MAX
        or _CODE.fullmatch(reason_code) is None
        or not 0 < len(told) <= 500
    ):
        raise AdjustmentInvalid
    funder_id = await adjustment_queries.find_funder(connection, funder)
    if funder_id is None:
        raise AdjustmentFunderUnknown(funder=funder)
    adjustment = Adjustment(
        id=new_id(now),
        bucket=member.bucket,
        member_id=member.member_id,
        point_type=point_type.code,
        points=points,
        funder_id=funder_id,
        reason_code=reason_code,
        reason=told,
        state="proposed",
        proposed_by=by,
        proposed_at=now,
        expires_at=now + PROPOSAL_LIFE,
    )
    await adjustment_queries.insert_adjustment(connection, adjustment)
    await _record(connection, adjustment, "adjustment.propose", by, now)
    return adjustment


async def approve_adjustment(
    connection: Connection, *, adjustment_id: UUID, by: str, now: datetime
) -> Adjustment:
    """Post it, once. One that nobody decided in time comes back as `expired`, and nothing has moved."""
    found = await _find_open(connection, adjustment_id, by)
    if found.expires_at <= now:
        return await _decide(connection, found, "expired", None, now)
    journal = await _gather(connection, found, now)
    # only now, under the wallet's lock: whoever is second finds it decided and takes back all of this
    posted = await _close(connection, found, "posted", by, now)
    await journal.write(connection)
    await _record(connection, posted, "adjustment.approve", by, now)
    return posted


async def reject_adjustment(
    connection: Connection, *, adjustment_id: UUID, by: str, now: datetime
) -> Adjustment:
    """Turn it down; or find that time has."""
    found = await _find_open(connection, adjustment_id, by)
    if found.expires_at <= now:
        return await _decide(connection, found, "expired", None, now)
    return await _decide(connection, found, "rejected", by, now)


async def find_adjustment(connection: Connection, adjustment_id: UUID) -> Adjustment:
    """Whatever its state."""
    found = await adjustment_queries.find_adjustment(connection, adjustment_id)
    if found is None:
        raise AdjustmentUnknown
    return found


async def list_adjustments(
    connection: Connection, *, state: AdjustmentState | None = None, limit: int = 100
) -> Sequence[Adjustment]:
    """Newest first."""
    return await adjustment_queries.list_adjustments(connection, state=state, limit=limit)


async def expire_adjustments(connection: Connection, *, limit: int, now: datetime) -> int:
    """Close up to `limit` proposals that nobody decided in time; returns how many."""
    overdue = await adjustment_queries.list_overdue(connection, limit=limit, now=now)
    for adjustment in overdue:
        await _decide(connection, adjustment, "expired", None, now)
    return len(overdue)


async def _find_open(connection: Connection, adjustment_id: UUID, by: str) -> Adjustment:
    found = await find_adjustment(connection, adjustment_id)
    if found.state != "proposed":
        raise AdjustmentDecided(state=found.state)
    if found.proposed_by == by:
        raise AdjustmentNeedsAnother
    return found


async def _gather(connection: Connection, adjustment: Adjustment, now: datetime) -> Journal:
    """The journal of the posting: a lot of its own that repays what is owed first, or free lots in spend order."""
    if adjustment.points < 0:
        journal, [takes] = await pick_lots(connection, [(adjustment.wallet, -adjustment.points)], now=now)
        if isinstance(takes, Refusal):
            raise takes
        _open(journal, adjustment)
        journal.post(adjustment.id, Account.AVAILABLE, Account.ADJUSTED, takes, "adjust")
        return journal
    await queries.open_wallets(connection, [adjustment.wallet])
    journal = Journal(await queries.lock_wallets(connection, [adjustment.wallet]), now=now)
    journal.settle(await queries.list_due_lots(connection, [adjustment.wallet], now=now))
    if await adjustment_queries.is_partners(connection, adjustment.funder_id):
        unit_cost_e6 = 0
    else:
        unit_cost_e6 = (await read_point_type(connection, adjustment.point_type)).value_fen_e6
    _open(journal, adjustment)
    granted = journal.grant(adjustment.id, Account.ADJUSTED, _lot(adjustment, unit_cost_e6, now))
    journal.repay(adjustment.id, [granted])
    return journal


def _open(journal: Journal, adjustment: Adjustment) -> None:
    journal.record(
        adjustment.wallet.member,
        "adjust",
        points=abs(adjustment.points),
        partner_id=None,
        operation_id=adjustment.id,
        source_ref=adjustment.reason_code,
        point_type=adjustment.point_type,
    )


def _lot(adjustment: Adjustment, unit_cost_e6: int, now: datetime) -> Lot:
    """Points given by the bank's decision cost it what they pay for, and a partner nothing: nobody bills them."""
    ends_on = add_months(business_date(now).replace(day=1), VALIDITY_MONTHS + 1)
    return Lot(
        bucket=adjustment.bucket,
        member_id=adjustment.member_id,
        point_type=adjustment.point_type,
        lot_seq=0,
        operation_id=adjustment.id,
        funder_id=adjustment.funder_id,
        unit_cost_e6=unit_cost_e6,
        campaign=None,
        rule_version=None,
        effective_at=now,
        expires_at=start_of_day(ends_on),
        remaining_points=adjustment.points,
        held_points=0,
    )


async def _decide(
    connection: Connection, adjustment: Adjustment, state: AdjustmentState, by: str | None, now: datetime
) -> Adjustment:
    decided = await _close(connection, adjustment, state, by, now)
    action = "adjustment.reject" if state == "rejected" else "adjustment.expire"
    await _record(connection, decided, action, by or "job:adjustments", now)
    return decided


async def _close(
    connection: Connection, adjustment: Adjustment, state: AdjustmentState, by: str | None, now: datetime
) -> Adjustment:
    """Out of `proposed`, once; whoever comes second is refused."""
    decided = await adjustment_queries.decide_adjustment(connection, adjustment, state=state, by=by, now=now)
    if decided is None:
        raise AdjustmentDecided(state=(await find_adjustment(connection, adjustment.id)).state)
    return decided


async def _record(
    connection: Connection, adjustment: Adjustment, action: str, by: str, now: datetime
) -> None:
    """What was proposed or decided by whom; the reason's sentence stays in its own table."""
    detail: dict[str, Any] = {
        "points": adjustment.points,
        "point_type": adjustment.point_type,
        "reason_code": adjustment.reason_code,
    }
    record = audit.AuditRecord(actor=by, action=action, subject=to_wire("adj", adjustment.id), detail=detail)
    await audit.append(connection, record, partner_id=None, now=now)
