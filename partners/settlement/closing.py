"""The job that closes every partner's batch of a day that is over."""

from datetime import datetime
from uuid import UUID

import asyncpg
import structlog

from kernel.database import Connection
from kernel.errors import Refusal
from kernel.jobs import Job, Run, Step
from partners.registry import service as registry
from partners.registry.model import Partner, PartnerStatus
from partners.settlement.rules import SettlementOutOfOrder, SettlementRuleMissing
from partners.settlement.service import close_batch

log = structlog.get_logger("settlement")

#: of partners with whom there may be something to settle, also when they may not trade any more
SETTLED: tuple[PartnerStatus, ...] = ("live", "suspended", "terminating", "terminated")
_BEFORE_ALL = UUID(int=0)


async def _close_next(connection: Connection, run: Run, now: datetime) -> Step:
    after = _BEFORE_ALL if run.cursor is None else UUID(run.cursor)
    partner = await registry.find_next_partner(connection, after=after, statuses=SETTLED)
    if partner is None:
        return Step(done=0, cursor=None)
    closed = await _close(connection, partner, run, now)
    return Step(done=int(closed), cursor=str(partner.id))


async def _close(connection: Connection, partner: Partner, run: Run, now: datetime) -> bool:
    """One partner's trouble is not the next one's: what stays open is in the next batch that can be closed."""
    try:
        async with connection.transaction():
            await close_batch(connection, partner_id=partner.id, business_on=run.business_on, now=now)
    except SettlementOutOfOrder:  # closed for a later day by hand, with all there was
        return False
    except (SettlementRuleMissing, asyncpg.PostgresError) as trouble:
        told = trouble.code if isinstance(trouble, Refusal) else type(trouble).__name__
        log.warning("settlement_refused", partner=partner.slug, code=told, day=str(run.business_on))
        return False
    return True


#: a partner to a batch, one after another: each reads a whole day
CLOSING = Job(name="settlement", lanes=1, step=_close_next)
