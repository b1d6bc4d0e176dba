"""Budgets: limits of points or fen that many draw on at once and nobody ever exceeds.

Draw before wallets are locked, and everything of one transaction in as few calls as possible: campaigns' budgets first,
then funders' blocks, then nothing more of either. What is given back after an answer ("this source has earned already")
touches only what the draw has locked; whoever gives back later than that locks first, with `lock`.
"""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from msgspec import Struct

from kernel.database import Connection
from kernel.errors import Conflict
from kernel.ids import new_id
from points.ledger import budget_queries as queries
from points.ledger.budget_queries import BudgetKind, BudgetState, BudgetUnit

__all__ = [
    "BudgetClosed",
    "BudgetKind",
    "BudgetState",
    "BudgetUnit",
    "Want",
    "close_budget",
    "draw",
    "draw_in_turn",
    "give_back",
    "lock",
    "open_budget",
    "raise_total",
    "read_budget",
]


class Want(Struct, frozen=True, kw_only=True):
    """A wish to use some of a budget for a member of a bucket."""

    bucket: int
    budget_id: UUID
    amount: int


class BudgetClosed(Conflict):
    """The budget is closed: nothing can be added to it."""


async def open_budget(
    connection: Connection, *, kind: BudgetKind, unit: BudgetUnit, owner: str, total: int, now: datetime
) -> UUID:
    """A new budget of which nothing is used."""
    assert total >= 0, "a limit is not negative"
    budget_id = new_id(now)
    await queries.insert_budget(
        connection, budget_id=budget_id, kind=kind, unit=unit, owner=owner, total=total, now=now
    )
    return budget_id


async def draw(
    connection: Connection, wants: Sequence[Want], *, partial: bool = False, now: datetime
) -> list[int]:
    """What each want was granted: its whole amount or nothing; with `partial`, what there is.

    In the order of `wants`, in one round trip. Of two draws at the same moment one comes first: nothing is exceeded and
    nothing is refused while there is enough.
    """
    return [
        sum(shares)
        for shares in await draw_in_turn(connection, [[w] for w in wants], partial=partial, now=now)
    ]


async def draw_in_turn(
    connection: Connection, wants: Sequence[Sequence[Want]], *, partial: bool = False, now: datetime
) -> list[list[int]]:
    """`draw`, for wants that several budgets may pay for: each from the first that has something, the rest from the next.

    The alternatives of one want name the same amount and different budgets.
    """
    del now  # a draw is true whenever it commits
    rows = [(number, want) for number, turns in enumerate(wants) for want in turns]
    if not rows:
        return [[] for _ in wants]
    assert all(want.amount > 0 for _, want in rows), "a draw takes something"
    granted = iter(
        await queries.draw_budgets(
            connection,
            buckets=[want.bucket for _, want in rows],
            budget_ids=[want.budget_id for _, want in rows],
            amounts=[want.amount for _, want in rows],
            numbers=[number for number, _ in rows],
            partial=partial,
        )
    )
    return [[next(granted) for _ in turns] for turns in wants]


async def give_back(connection: Connection, wants: Sequence[Want], *, now: datetime) -> None:
    """Return drawn amounts to where they came from; they can be drawn again once this commits."""
    del now
    assert all(want.amount >= 0 for want in wants), "what is given back was drawn"
    if wants:
        await queries.return_budgets(
            connection,
            buckets=[want.bucket for want in wants],
            budget_ids=[want.budget_id for want in wants],
            amounts=[want.amount for want in wants],
        )


async def lock(connection: Connection, places: Sequence[tuple[int, UUID]], *, now: datetime) -> None:
    """Lock what `give_back` will need for these buckets and budgets, before wallets are locked."""
    wants = [Want(bucket=bucket, budget_id=budget_id, amount=0) for bucket, budget_id in places]
    await give_back(connection, wants, now=now)


async def read_budget(connection: Connection, budget_id: UUID) -> BudgetState:
    """How much of it is used; exact for what has committed."""
    return await queries.read_budget(connection, budget_id=budget_id)


async def raise_total(connection: Connection, budget_id: UUID, *, by: int, now: datetime) -> None:
    """More of the same."""
    del now
    assert by > 0, "a limit once given is not taken back; close the budget instead"
    if not await queries.raise_total(connection, budget_id=budget_id, by=by):
        raise BudgetClosed


async def close_budget(connection: Connection, budget_id: UUID, *, now: datetime) -> BudgetState:
    """Nothing more can be drawn; what was drawn can still be given back."""
    await queries.close_budget(connection, budget_id=budget_id, now=now)
    return await queries.read_budget(connection, budget_id=budget_id)
