"""The two statements that post holds by the hundred: their many columns, and the columns they answer with."""

from collections.abc import Sequence
from datetime import datetime

from kernel.calendar import business_date
from kernel.caller import MemberRef
from kernel.database import Connection
from kernel.ids import new_id
from kernel.outbox import Event
from points.ledger.model import Closing, Hold, OperationKind

PLACE_HOLDS = """
SELECT placed, free FROM ledger_place_holds($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
"""

SETTLE_HOLDS = """
SELECT ledger_settle_holds($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)
"""


async def place_holds(
    connection: Connection, holds: Sequence[Hold], *, now: datetime
) -> list[tuple[bool | None, int]]:
    """Of each: placed or not, and how much was free; None where the wallet, locked now, needs more than that.

    They come ordered by (bucket, member) and are of one kind of points.
    """
    record = await connection.fetchrow(
        PLACE_HOLDS,
        *(
            holds[0].point_type.code,
            now,
            business_date(now),
            *wallet_columns([hold.member for hold in holds]),
        ),
        [hold.id for hold in holds],
        [hold.partner_id for hold in holds],
        [hold.points for hold in holds],
        [hold.order_ref for hold in holds],
        [hold.deadline_at for hold in holds],
        [hold.manager for hold in holds],
    )
    assert record is not None, "the function answers with one row"
    placed, free = record
    return list(zip(placed, free, strict=True))


async def settle_holds(
    connection: Connection,
    closings: Sequence[Closing],
    kinds: Sequence[OperationKind],
    events: Sequence[Event],
    *,
    now: datetime,
) -> list[bool] | None:
    """Which of the holds were still open and are closed now; None if the wallets, locked now, need more than that.

    They come ordered by (bucket, member), all of one kind of points, no hold twice, each with the kind of its end and its event.
    """
    holds = [closing.hold for closing in closings]
    closed: list[bool] | None = await connection.fetchval(
        SETTLE_HOLDS,
        *(
            holds[0].point_type.code,
            now,
            business_date(now),
            *wallet_columns([hold.member for hold in holds]),
        ),
        [hold.id for hold in holds],
        kinds,
        [closing.state for closing in closings],
        [closing.spent for closing in closings],
        [closing.operation_id for closing in closings],
        [hold.partner_id for hold in holds],
        [hold.order_ref for hold in holds],
        [closing.amount_fen for closing in closings],
        [hold.points for hold in holds],
        [hold.manager for hold in holds],
        [new_id(now) for _ in holds],
        [event.aggregate for event in events],
        [event.payload for event in events],
    )
    return closed


def wallet_columns(members: Sequence[MemberRef]) -> tuple[list[int], list[int], list[int]]:
    """The distinct wallets of sorted members as columns, and of each the number of its wallet, counted from one."""
    buckets: list[int] = []
    member_ids: list[int] = []
    wallets: list[int] = []
    for member in members:
        if not member_ids or member_ids[-1] != member.member_id:
            buckets.append(member.bucket)
            member_ids.append(member.member_id)
        wallets.append(len(member_ids))
    return buckets, member_ids, wallets
