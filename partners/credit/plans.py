"""One plan at a time: locking it before anything of it moves, and telling its partner what happened."""

from datetime import datetime
from typing import Any
from uuid import UUID

from kernel.database import Connection
from kernel.errors import Absent
from kernel.ids import to_wire
from kernel.outbox import Event, enqueue
from partners.credit import queries
from partners.credit.model import Plan


async def lock_plan(connection: Connection, *, plan_id: UUID, partner_id: UUID) -> Plan:
    """The plan, locked before any of its points: everybody locks in this order."""
    plan = await queries.lock_plan(connection, plan_id, partner_id=partner_id)
    if plan is None:
        raise Absent
    return plan


async def tell(
    connection: Connection, plan: Plan, kind: str, facts: dict[str, Any], *, now: datetime
) -> None:
    """Write one fact about the plan to the outbox."""
    event = Event(
        bucket=plan.bucket,
        partner_id=plan.partner_id,
        type=kind,
        aggregate=to_wire("pln", plan.id),
        payload={
            "plan_id": to_wire("pln", plan.id),
            "order_ref": plan.terms.order_ref,
            "state": plan.state,
            **facts,
        },
    )
    await enqueue(connection, [event], now=now)
