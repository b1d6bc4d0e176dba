"""Dry runs over HTTP: what a spend or a refund would answer at this moment, and the lots it would move."""

from collections.abc import Sequence
from datetime import datetime

from litestar import post
from litestar.di import NamedDependency
from litestar.params import JSONBody

from kernel.caller import Caller, Subjects
from kernel.database import Connection
from kernel.ids import from_wire, to_wire
from points.ledger import service
from points.ledger.bodies import LotView, RefundDryRun, RefundDryRunView, SpendDryRun, SpendDryRunView
from points.ledger.deeds import LotTouch, RefundPart
from points.ledger.funder_codes import find_told_funders
from points.ledger.handlers_refunds import EARN, ReversalTargetUnclear, find_earning_part
from points.ledger.model import SPEND_ORDER
from points.ledger.postings import SPEND


@post("/v1/points/dry_runs/spend", scope=SPEND, level="A1", member_token=True, status_code=200)
async def preview_spend(
    data: JSONBody[SpendDryRun],
    connection: NamedDependency[Connection],
    caller: NamedDependency[Caller],
    subjects: NamedDependency[Subjects],
    now: NamedDependency[datetime],
) -> SpendDryRunView:
    """Say what a spend or a hold would take; nothing happens."""
    member = await subjects.resolve_one(connection, caller, data.member, scope=SPEND, now=now)
    point_type = await service.find_point_type(connection, data.point_type)
    found = await service.preview_spend(
        connection, member=member, points=data.points, point_type=point_type, now=now
    )
    touched = [LotTouch(move="spend", taken=taken) for taken in found.takes]
    return SpendDryRunView(
        points=found.points,
        value_fen=found.value_fen,
        point_type=point_type.name,
        spend_order=SPEND_ORDER,
        lots=await _view_lots(connection, caller, touched),
        balance=found.balance,
        as_of=now,
    )


@post("/v1/points/dry_runs/refund", scope=f"{EARN}|{SPEND}", level="A1", status_code=200)
async def preview_points_refund(
    data: JSONBody[RefundDryRun],
    connection: NamedDependency[Connection],
    caller: NamedDependency[Caller],
    subjects: NamedDependency[Subjects],
    now: NamedDependency[datetime],
) -> RefundDryRunView:
    """Say what a refund of one side or of both would do; nothing happens."""
    spend = earning = None
    if data.spend is not None:
        caller.require(SPEND)
        spend = RefundPart(
            operation_id=from_wire("hld", data.spend.id),
            refunded_fen=data.spend.refunded_fen or data.refunded_fen,
        )
    if data.earning is not None:
        caller.require(EARN)
        earning = await find_earning_part(data.earning, data.refunded_fen, connection, caller, subjects, now)
    if spend is None and earning is None:
        raise ReversalTargetUnclear
    found = await service.preview_refund(
        connection,
        spend=spend,
        earning=earning,
        partner_id=caller.partner_id,
        refund_ref=data.refund_ref,
        now=now,
    )
    return RefundDryRunView(
        points_restored=found.spend.points_restored if found.spend else 0,
        points_clawed_back=found.earning.points_clawed_back if found.earning else 0,
        arrears_added=found.earning.arrears_added if found.earning else 0,
        lots=await _view_lots(connection, caller, found.touched),
        balance=found.balance,
        as_of=now,
    )


async def _view_lots(connection: Connection, caller: Caller, touched: Sequence[LotTouch]) -> list[LotView]:
    """The lots that exist already; who pays is told by points.ledger.funder_codes."""
    told = await find_told_funders(connection, [touch.taken.lot.funder_id for touch in touched])
    return [
        LotView(
            lot_id=to_wire("lot", taken.lot.id),
            move=touch.move,
            points=taken.points,
            funder=told.tell(taken.lot.funder_id, partner_id=caller.partner_id),
            expires_at=taken.lot.expires_at,
        )
        for touch in touched
        if (taken := touch.taken).lot.id is not None
    ]


routes = [preview_spend, preview_points_refund]
