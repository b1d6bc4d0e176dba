"""Privileges: what a tier gives in a period becomes rights, once for each period, and fraud takes back what nobody booked."""

from collections.abc import Sequence
from datetime import date, datetime

from kernel.caller import MemberRef
from kernel.database import Connection
from kernel.ids import new_id
from points.membership import entitlement_queries as queries


async def grant_rights(
    connection: Connection, members: Sequence[MemberRef], *, day: date, now: datetime
) -> int:
    """Give what the members' tiers give in the periods that hold `day` and they do not have yet; returns how many.

    A lower tier takes nothing back: what is booked stays, what is not runs out with its period.
    """
    due = await queries.list_due_rights(connection, members, day=day)
    if due:
        await queries.insert_rights(connection, due, ids=[new_id(now) for _ in due], now=now)
    return len(due)


async def withdraw_rights(connection: Connection, members: Sequence[MemberRef]) -> None:
    """Take back what these members' tiers gave and is neither used nor booked."""
    await queries.withdraw_rights(connection, members)
