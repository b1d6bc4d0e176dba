"""Refunds over HTTP: an earning with what it counted for, or a spend, undone; both by one refund; or up to a thousand."""

from datetime import datetime

from litestar import post
from litestar.di import NamedDependency
from litestar.params import JSONBody

from kernel.caller import Caller, Subjects
from kernel.database import Connection
from kernel.errors import Refusal
from kernel.ids import from_wire, to_wire
from kernel.items import decode_items
from points.earning import reversals as service
from points.ledger.bodies import PointsRefundRequest, PointsRefundView, ReversalRequest, ReversalView
from points.ledger.deeds import RefundPart
from points.ledger.handlers_batches import ItemBatch, ItemResults, tell_results
from points.ledger.handlers_refunds import EARN, find_earning_part, find_target, view_reversal
from points.ledger.model import Reversal
from points.ledger.model import ReversalRequest as Wish
from points.ledger.postings import SPEND


@post("/v1/points/reversals", scope=f"{EARN}|{SPEND}", idempotent=True, level="A2")
async def reverse(
    data: JSONBody[ReversalRequest],
    connection: NamedDependency[Connection],
    caller: NamedDependency[Caller],
    subjects: NamedDependency[Subjects],
    now: NamedDependency[datetime],
) -> ReversalView:
    """Undo what a refunded order earned, or give back what it spent."""
    side, operation_id = await find_target(data, connection, caller, subjects, now)
    reversal = await service.reverse(
        connection,
        operation_id=operation_id,
        partner_id=caller.partner_id,
        side=side,
        refund_ref=data.refund_ref,
        refunded_fen=data.refunded_fen,
        now=now,
    )
    return view_reversal(reversal)


@post("/v1/points/refunds", scope=f"{EARN}|{SPEND}", idempotent=True, level="A2")
async def refund_points(
    data: JSONBody[PointsRefundRequest],
    connection: NamedDependency[Connection],
    caller: NamedDependency[Caller],
    subjects: NamedDependency[Subjects],
    now: NamedDependency[datetime],
) -> PointsRefundView:
    """Give back what a refunded order spent and take back what it earned, both or neither."""
    caller.require(EARN)
    caller.require(SPEND)
    done = await service.refund(
        connection,
        spend=RefundPart(
            operation_id=from_wire("hld", data.spend.id),
            refunded_fen=data.spend.refunded_fen or data.refunded_fen,
        ),
        earning=await find_earning_part(data.earning, data.refunded_fen, connection, caller, subjects, now),
        partner_id=caller.partner_id,
        refund_ref=data.refund_ref,
        now=now,
    )
    return PointsRefundView(
        spend_reversal_id=to_wire("ent", done.spend.id),
        earning_reversal_id=to_wire("ent", done.earning.id),
        points_restored=done.spend.points_restored,
        points_clawed_back=done.earning.points_clawed_back,
        arrears_added=done.earning.arrears_added,
        balance=done.balance,
    )


@post(
    "/v1/points/reversals/batch",
    scope=f"{EARN}|{SPEND}",
    idempotent=True,
    batch=True,
    level="A2",
    status_code=200,
)
async def reverse_each(
    data: JSONBody[ItemBatch],
    connection: NamedDependency[Connection],
    caller: NamedDependency[Caller],
    subjects: NamedDependency[Subjects],
    base_url: NamedDependency[str],
    now: NamedDependency[datetime],
) -> ItemResults:
    """Undo up to 1,000 earnings or spends in one transaction, with a result for each."""
    wishes: list[Wish | Refusal] = []
    for item in decode_items(data.items, ReversalRequest):
        try:
            wishes.append(
                item if isinstance(item, Refusal) else await _find(item, connection, caller, subjects, now)
            )
        except Refusal as refusal:
            wishes.append(refusal)
    requests = [wish for wish in wishes if isinstance(wish, Wish)]
    outcomes = iter(await service.reverse_each(connection, requests, now=now))
    answers = [wish if isinstance(wish, Refusal) else next(outcomes) for wish in wishes]
    views = [view_reversal(answer) if isinstance(answer, Reversal) else answer for answer in answers]
    return tell_results(views, 201, base_url)


async def _find(
    item: ReversalRequest, connection: Connection, caller: Caller, subjects: Subjects, now: datetime
) -> Wish:
    side, operation_id = await find_target(item, connection, caller, subjects, now)
    return Wish(
        operation_id=operation_id,
        partner_id=caller.partner_id,
        side=side,
        refund_ref=item.refund_ref,
        refunded_fen=item.refunded_fen,
    )


routes = [reverse, refund_points, reverse_each]
