"""What an earning drew on budgets, as the operation tells it, and what a refund of it gives back; pure."""

from uuid import UUID

from points.ledger.budgets import Want
from points.ledger.model import Operation, Reversible


def list_drawn(operation: Operation) -> list[tuple[UUID, int]]:
    """(budget, amount) for every budget that paid for a part of the earning."""
    parts = (operation.calculation or {}).get("campaigns", ())
    return [(UUID(part["budget_id"]), part["drawn"]) for part in parts if "budget_id" in part]


def returned_by(operation: Operation, reversible: Reversible, refunded_fen: int) -> list[Want]:
    """The cumulative floor, as for points: after the refund of everything, everything is back."""
    after = reversible.reversed_fen + refunded_fen
    return [
        Want(
            bucket=operation.bucket,
            budget_id=budget_id,
            amount=drawn * after // reversible.base_fen
            - drawn * reversible.reversed_fen // reversible.base_fen,
        )
        for budget_id, drawn in list_drawn(operation)
    ]
