"""Reversals over HTTP: a refund takes back what an order earned and counted for, or gives back what it spent."""

from datetime import datetime
from uuid import UUID

from litestar import post
from litestar.di import NamedDependency
from litestar.params import JSONBody

from kernel.caller import Caller, Subjects
from kernel.database import Connection
from kernel.errors import Unprocessable
from kernel.ids import from_wire, to_wire
from points.earning import service
from points.ledger import service as ledger
from points.ledger.bodies import ReversalRequest, ReversalView
from points.ledger.model import Side
from points.ledger.rules import OperationUnknown

EARN = "points:earn"
SPEND = "points:spend"


class ReversalTargetUnclear(Unprocessable):
    """Name what to reverse either by operation_id, or by member, kind and source_ref together."""


@post("/v1/points/reversals", scope=f"{EARN}|{SPEND}", idempotent=True, level="A2")
async def reverse(
    data: JSONBody[ReversalRequest],
    connection: NamedDependency[Connection],
    caller: NamedDependency[Caller],
    subjects: NamedDependency[Subjects],
    now: NamedDependency[datetime],
) -> ReversalView:
    """Undo what a refunded order earned, or give back what it spent."""
    side, operation_id = await _find_target(data, connection, caller, subjects, now)
    reversal = await service.reverse(
        connection,
        operation_id=operation_id,
        partner_id=caller.partner_id,
        side=side,
        refund_ref=data.refund_ref,
        refunded_fen=data.refunded_fen,
        now=now,
    )
    return ReversalView(
        id=to_wire("ent", reversal.id),
        points_clawed_back=reversal.points_clawed_back,
        points_restored=reversal.points_restored,
        arrears_added=reversal.arrears_added,
        balance=reversal.balance,
    )


async def _find_target(
    data: ReversalRequest, connection: Connection, caller: Caller, subjects: Subjects, now: datetime
) -> tuple[Side, UUID]:
    """Who may earn may undo an earning, who may spend a spend."""
    if data.operation_id is not None:
        if data.member or data.kind or data.source_ref:
            raise ReversalTargetUnclear
        if data.operation_id.startswith("hld_"):
            caller.require(SPEND)
            return "spend", from_wire("hld", data.operation_id)
        caller.require(EARN)
        return "earn", from_wire("ent", data.operation_id)
    if data.member is None or data.kind is None or data.source_ref is None:
        raise ReversalTargetUnclear
    caller.require(EARN)
    member = await subjects.resolve_one(connection, caller, data.member, scope=EARN, now=now)
    found = await ledger.find_earning(
        connection, member=member, partner_id=caller.partner_id, kind=data.kind, source_ref=data.source_ref
    )
    if found is None:
        raise OperationUnknown
    return "earn", found


routes = [reverse]
