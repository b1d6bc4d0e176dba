"""Refunds over HTTP: an earning or a spend undone, or both by one refund."""

from datetime import datetime
from uuid import UUID

from kernel.caller import Caller, Subjects
from kernel.database import Connection
from kernel.errors import Unprocessable
from kernel.ids import from_wire, to_wire
from points.ledger import service
from points.ledger.bodies import (
    EarningPart,
    ReversalRequest,
    ReversalView,
)
from points.ledger.deeds import RefundPart
from points.ledger.model import Reversal, Side
from points.ledger.postings import SPEND
from points.ledger.rules import OperationUnknown

EARN = "points:earn"


class ReversalTargetUnclear(Unprocessable):
    """Name what to reverse either by operation_id, or by member, kind and source_ref together."""


def view_reversal(reversal: Reversal) -> ReversalView:
    """What a refund undid, as its partner sees it."""
    return ReversalView(
        id=to_wire("ent", reversal.id),
        points_clawed_back=reversal.points_clawed_back,
        points_restored=reversal.points_restored,
        arrears_added=reversal.arrears_added,
        balance=reversal.balance,
    )


async def find_earning_part(
    part: EarningPart,
    refunded_fen: int,
    connection: Connection,
    caller: Caller,
    subjects: Subjects,
    now: datetime,
) -> RefundPart:
    """The earning side of a refund; named by a hold's id it is unclear."""
    named = ReversalRequest(
        refund_ref="-",
        refunded_fen=refunded_fen,
        operation_id=part.operation_id,
        member=part.member,
        kind=part.kind,
        source_ref=part.source_ref,
    )
    side, operation_id = await find_target(named, connection, caller, subjects, now)
    if side != "earn":
        raise ReversalTargetUnclear
    return RefundPart(operation_id=operation_id, refunded_fen=part.refunded_fen or refunded_fen)


async def find_target(
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
    found = await service.find_earning(
        connection, member=member, partner_id=caller.partner_id, kind=data.kind, source_ref=data.source_ref
    )
    if found is None:
        raise OperationUnknown
    return "earn", found
