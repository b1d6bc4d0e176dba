"""Bank levels: what the bank says of its customers from a date on, in whatever order it says so."""

from collections.abc import Sequence
from datetime import datetime

from kernel.calendar import business_date
from kernel.caller import MemberRef
from kernel.database import Connection
from points.membership import level_queries as queries
from points.membership.model import FedLevel
from points.membership.periods import judge_members


async def find_members(connection: Connection, member_ids: Sequence[int]) -> dict[int, MemberRef]:
    """Those of these numbers that are members, by number."""
    return await queries.find_members(connection, member_ids)


async def feed_bank_levels(
    connection: Connection, fed: Sequence[FedLevel], *, fed_ref: str, now: datetime
) -> list[bool]:
    """Write down what is new, the later of two for one date last; True for what was, in the order of `fed`.

    A level of a date that was fed before is a correction and stands beside it; the same again is nothing new. Better
    levels that are in force count at once, worse ones at the next evaluation.
    """
    if not fed:
        return []
    order = sorted(range(len(fed)), key=lambda place: (fed[place].member.bucket, fed[place].member.member_id))
    ordered = [fed[place] for place in order]
    members = {one.member.member_id: one.member for one in ordered}
    await queries.lock_members(connection, list(members.values()))
    latest = await queries.list_latest(connection, ordered)
    new: dict[int, tuple[FedLevel, int]] = {}
    for place, one in zip(order, ordered, strict=True):
        key = one.member.member_id, one.valid_from
        level, revision = latest.get(key, (None, 0))
        if level != one.bank_level:
            latest[key] = (one.bank_level, revision + 1)
            new[place] = (one, revision + 1)
    await queries.insert_levels(connection, list(new.values()), fed_ref=fed_ref, now=now)
    touched = {one.member.member_id: one.member for one, _ in new.values()}
    if touched:
        await judge_members(connection, list(touched.values()), day=business_date(now), cause="news", now=now)
    return [place in new for place in range(len(fed))]
