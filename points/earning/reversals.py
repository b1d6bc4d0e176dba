"""Reversals: what the ledger undoes of an earning is taken back of the member's activity in the same transaction."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from kernel.database import Connection
from kernel.errors import Refusal
from points.ledger import service as ledger
from points.ledger.deeds import Refund, RefundPart
from points.ledger.model import Manager, Reversal, ReversalRequest, Side
from points.membership import service as membership


async def reverse(
    connection: Connection,
    *,
    operation_id: UUID,
    partner_id: UUID,
    side: Side,
    refund_ref: str,
    refunded_fen: int,
    manager: Manager | None = None,
    now: datetime,
) -> Reversal:
    """Undo the share of an earning or a spend that a refund stands for."""
    reversal = await ledger.reverse(
        connection,
        operation_id=operation_id,
        partner_id=partner_id,
        side=side,
        refund_ref=refund_ref,
        refunded_fen=refunded_fen,
        manager=manager,
        now=now,
    )
    if side == "earn":
        await _undo(connection, [(operation_id, refunded_fen)], partner_id=partner_id)
    return reversal


async def reverse_each(
    connection: Connection, requests: Sequence[ReversalRequest], *, now: datetime
) -> list[Reversal | Refusal]:
    """`reverse` for each request in turn; each is answered for itself, in the order of `requests`."""
    answers = await ledger.reverse_each(connection, requests, now=now)
    for partner_id in sorted({request.partner_id for request in requests}):
        undone = [
            (request.operation_id, request.refunded_fen)
            for request, answer in zip(requests, answers, strict=True)
            if isinstance(answer, Reversal) and request.side == "earn" and request.partner_id == partner_id
        ]
        await _undo(connection, undone, partner_id=partner_id)
    return answers


async def refund(
    connection: Connection,
    *,
    spend: RefundPart,
    earning: RefundPart,
    partner_id: UUID,
    refund_ref: str,
    now: datetime,
) -> Refund:
    """Give back what an order spent and take back what it earned, both or neither."""
    done = await ledger.refund(
        connection, spend=spend, earning=earning, partner_id=partner_id, refund_ref=refund_ref, now=now
    )
    await _undo(connection, [(earning.operation_id, earning.refunded_fen)], partner_id=partner_id)
    return done


async def _undo(connection: Connection, undone: Sequence[tuple[UUID, int]], *, partner_id: UUID) -> None:
    """Member after member in key order, as everywhere."""
    found = []
    for operation_id, fen in undone:
        source = await ledger.find_source(connection, operation_id=operation_id, partner_id=partner_id)
        found.append((source, fen))
    for source, fen in sorted(found, key=lambda pair: (pair[0].member.bucket, pair[0].member.member_id)):
        await membership.undo_activity(
            connection,
            source.member,
            partner_id=partner_id,
            kind=source.kind,
            source_ref=source.source_ref,
            fen=fen,
        )
