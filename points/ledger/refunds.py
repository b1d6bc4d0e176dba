"""Refunds of orders that were paid with points and earned some: one act on both sides."""

from datetime import datetime
from uuid import UUID

from kernel.database import Connection
from kernel.errors import Unprocessable
from points.ledger.deeds import LotTouch, Refund, RefundPart, RefundPreview
from points.ledger.model import Reversal, ReversalRequest, Side, Undoable
from points.ledger.reversals import Undoing, find_undoable


class RefundTargetsDiffer(Unprocessable):
    """The earning and the spend belong to different members or to different types of points."""


async def refund(
    connection: Connection,
    *,
    spend: RefundPart,
    earning: RefundPart,
    partner_id: UUID,
    refund_ref: str,
    now: datetime,
) -> Refund:
    """Give back what an order spent, then take back what it earned, each by its own cumulative floor.

    In this order, so that points that come back pay for those that go before anything becomes arrears. If either side
    is refused, neither happens.
    """
    requests = _requests(spend, earning, partner_id, refund_ref)
    spent, earned = await _find(connection, requests)
    undoing = await Undoing.begin(connection, [spent, earned], now=now)
    restored = await undoing.undo(spent, requests[0])
    clawed = await undoing.undo(earned, requests[1])
    await undoing.write()
    return Refund(spend=restored, earning=clawed, balance=clawed.balance)


async def preview_refund(
    connection: Connection,
    *,
    spend: RefundPart | None,
    earning: RefundPart | None,
    partner_id: UUID,
    refund_ref: str,
    now: datetime,
) -> RefundPreview:
    """What a refund of one side or of both would do at this moment; nothing is locked and nothing written."""
    requests = _requests(spend, earning, partner_id, refund_ref)
    targets = await _find(connection, requests)
    undoing = await Undoing.preview(connection, targets, now=now)
    done: dict[Side, Reversal] = {}
    for target, request in zip(targets, requests, strict=True):
        done[request.side] = await undoing.undo(target, request)
    *_, last = done.values()
    touched = [
        LotTouch(move=move, taken=taken)
        for reversal in done.values()
        for move, taken in undoing.journal.trace(reversal.id)
    ]
    return RefundPreview(
        spend=done.get("spend"), earning=done.get("earn"), balance=last.balance, touched=touched
    )


def _requests(
    spend: RefundPart | None, earning: RefundPart | None, partner_id: UUID, refund_ref: str
) -> list[ReversalRequest]:
    """The spend first."""
    sides: tuple[tuple[Side, RefundPart | None], ...] = (("spend", spend), ("earn", earning))
    return [
        ReversalRequest(
            operation_id=part.operation_id,
            partner_id=partner_id,
            side=side,
            refund_ref=refund_ref,
            refunded_fen=part.refunded_fen,
        )
        for side, part in sides
        if part is not None
    ]


async def _find(connection: Connection, requests: list[ReversalRequest]) -> list[Undoable]:
    targets = [await find_undoable(connection, request) for request in requests]
    if len({target.wallet for target in targets}) > 1:
        raise RefundTargetsDiffer
    return targets
