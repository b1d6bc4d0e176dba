"""The statements of members' counters: what was used of a cap."""

from collections.abc import Sequence
from datetime import date
from typing import Any
from uuid import UUID

from msgspec import Struct

from kernel.caller import MemberRef
from kernel.database import Connection

#: the scope of the base rule's cap, whatever its version
BASE = UUID(int=0)

TAKE = "SELECT earning_take($1)"

UNTAKE = "SELECT earning_untake($1)"


class CapWant(Struct, frozen=True, kw_only=True):
    """Points wanted under a limit for a day, for the whole time, or both."""

    member: MemberRef
    #: the campaign, or BASE
    scope: UUID
    day: date
    points: int
    daily_limit: int | None
    total_limit: int | None


async def take(connection: Connection, wants: Sequence[CapWant]) -> list[int]:
    """What each want is granted, in order; the counters are locked by key until the transaction ends."""
    granted: list[int] = await connection.fetchval(TAKE, [_row(want) for want in wants])
    return granted


async def untake(connection: Connection, wants: Sequence[CapWant]) -> None:
    """Give back what this transaction has taken."""
    await connection.execute(UNTAKE, [_row(want) for want in wants])


def _row(want: CapWant) -> tuple[Any, ...]:
    """In the order of the type earning_want."""
    return (
        *(want.member.bucket, want.member.member_id, want.scope, want.day),
        *(want.points, want.daily_limit, want.total_limit),
    )
