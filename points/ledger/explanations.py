"""Explanations: why an operation moved what it moved, and which operations carry a reference."""

from collections.abc import Sequence
from uuid import UUID

from kernel.database import Connection
from points.ledger import explanation_queries, hold_queries, queries
from points.ledger.model import Explanation, Operation
from points.ledger.rules import OperationUnknown


async def explain_operation(connection: Connection, *, operation_id: UUID, partner_id: UUID) -> Explanation:
    """The partner's operation with the lots it touched and what refunds have undone of it."""
    operation = await queries.find_operation(connection, operation_id, partner_id=partner_id)
    if operation is None:
        raise OperationUnknown
    together, hold = [operation.id], None
    if operation.kind in ("hold", "spend"):
        hold = (await hold_queries.list_holds(connection, [operation.id]))[operation.id]
        if hold.closed_by is not None and hold.closed_by != operation.id:
            together.append(hold.closed_by)
    member = operation.member
    return Explanation(
        operation=operation,
        hold=hold,
        movements=await explanation_queries.list_movements(connection, member, operation_ids=together),
        lots=await explanation_queries.list_lot_moves(connection, member, operation_ids=together),
        reversals=await explanation_queries.list_reversals(connection, member, operation_ids=together),
    )


async def search_operations(
    connection: Connection, *, reference: str, partner_id: UUID | None = None, limit: int = 100
) -> Sequence[Operation]:
    """Operations of any member whose event, order or refund has this number at a partner, newest first.

    For the bank's own staff: partners number their orders as they like, so one number may belong to several.
    """
    return await explanation_queries.search_operations(
        connection, reference=reference, partner_id=partner_id, limit=limit
    )
