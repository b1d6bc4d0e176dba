"""History: what a member had, and what the house's accounts stood at, at an earlier moment; nothing is rewritten for it."""

from collections.abc import Sequence
from datetime import date, datetime, timedelta

from kernel.calendar import business_date, start_of_day
from kernel.caller import MemberRef
from kernel.database import Connection
from points.ledger import history_queries
from points.ledger.balances import NOTHING
from points.ledger.model import TESSERA, Balance, ExpiringPoints, HouseBalance, wallet_ref

#: the finest step of a recorded moment
INSTANT = timedelta(microseconds=1)


async def balance_at(
    connection: Connection, member: MemberRef, *, at: datetime, point_type: int = TESSERA
) -> Balance:
    """What `member` had at `at`, by what was recorded until then; points past their expiry at `at` are not in it.

    An event that happened earlier and was reported later counts from the moment it was recorded.
    """
    period = business_date(at).replace(day=1)
    return (
        await history_queries.read_balance_at(
            connection, wallet_ref(member, point_type), at=at, period=period
        )
        or NOTHING
    )


async def balance_on(
    connection: Connection, member: MemberRef, *, day: date, point_type: int = TESSERA
) -> Balance:
    """What `member` had when the business day ended; points that end at that midnight are still in it."""
    return await balance_at(connection, member, at=end_of_day(day), point_type=point_type)


async def list_expiring_at(
    connection: Connection, member: MemberRef, *, at: datetime, limit: int = 12, point_type: int = TESSERA
) -> list[ExpiringPoints]:
    """The free points that were to end next at `at`, one line per instant."""
    return await history_queries.list_expiring_at(
        connection, wallet_ref(member, point_type), at=at, limit=limit
    )


async def house_balances_on(
    connection: Connection, *, day: date, point_type: int = TESSERA
) -> Sequence[HouseBalance]:
    """Every account of the house by funder at the end of the business day."""
    return await history_queries.list_house_balances(connection, day=day, point_type=point_type)


def end_of_day(day: date) -> datetime:
    """The last instant of the business day."""
    return start_of_day(day + timedelta(days=1)) - INSTANT
