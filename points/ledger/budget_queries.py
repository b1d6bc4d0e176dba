"""The statements of budgets."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal
from uuid import UUID

from msgspec import Struct

from kernel.database import Connection, read

BudgetKind = Literal["campaign", "prepaid"]
BudgetUnit = Literal["points", "fen"]


class BudgetState(Struct, frozen=True, kw_only=True):
    """A budget as committed."""

    id: UUID
    kind: BudgetKind
    unit: BudgetUnit
    #: what it belongs to
    owner: str
    total: int
    #: handed to the buckets' slots
    leased: int
    #: of that, drawn
    used: int
    closed_at: datetime | None

    @property
    def left(self) -> int:
        """What can still be drawn."""
        return 0 if self.closed_at is not None else self.total - self.used


INSERT_BUDGET = """
INSERT INTO ledger_budget (id, kind, unit, owner, total, opened_at) VALUES ($1, $2, $3, $4, $5, $6)
"""

DRAW_BUDGETS = "SELECT ledger_draw_budgets($1, $2, $3, $4, $5)"

RETURN_BUDGETS = "SELECT ledger_return_budgets($1, $2, $3)"

CLOSE_BUDGET = "SELECT ledger_close_budget($1, $2)"

# More makes leases worth while again, so the budget is not scarce any more.
RAISE_TOTAL = """
UPDATE ledger_budget SET total = total + $2, scarce = false WHERE id = $1 AND closed_at IS NULL RETURNING id
"""

# By key, bucket by bucket: the slots of one budget lie far apart.
READ_BUDGET = """
SELECT b.id, b.kind, b.unit, b.owner, b.total, b.leased, b.closed_at, coalesce((
           SELECT sum(s.used)
             FROM generate_series(0, 1023) AS g (bucket)
             JOIN ledger_budget_slot AS s ON s.bucket = g.bucket AND s.budget_id = b.id), 0)::bigint AS used
  FROM ledger_budget AS b
 WHERE b.id = $1
"""


async def insert_budget(
    connection: Connection,
    *,
    budget_id: UUID,
    kind: BudgetKind,
    unit: BudgetUnit,
    owner: str,
    total: int,
    now: datetime,
) -> None:
    """A budget without slots: they come with the first draw of a bucket."""
    await connection.execute(INSERT_BUDGET, budget_id, kind, unit, owner, total, now)


async def draw_budgets(
    connection: Connection,
    *,
    buckets: Sequence[int],
    budget_ids: Sequence[UUID],
    amounts: Sequence[int],
    numbers: Sequence[int],
    partial: bool,
) -> list[int]:
    """What each row was granted; rows of one number are one want."""
    granted: list[int] = await connection.fetchval(
        DRAW_BUDGETS, buckets, budget_ids, amounts, numbers, partial
    )
    return granted


async def return_budgets(
    connection: Connection, *, buckets: Sequence[int], budget_ids: Sequence[UUID], amounts: Sequence[int]
) -> None:
    """Give amounts back; zero only locks."""
    await connection.execute(RETURN_BUDGETS, buckets, budget_ids, amounts)


async def read_budget(connection: Connection, *, budget_id: UUID) -> BudgetState:
    """The budget with the sum of its slots."""
    return read(await connection.fetchrow(READ_BUDGET, budget_id), BudgetState)


async def raise_total(connection: Connection, *, budget_id: UUID, by: int) -> bool:
    """False when the budget is closed."""
    return await connection.fetchval(RAISE_TOTAL, budget_id, by) is not None


async def close_budget(connection: Connection, *, budget_id: UUID, now: datetime) -> None:
    """Take every unused lease back and lease no more."""
    await connection.execute(CLOSE_BUDGET, budget_id, now)
