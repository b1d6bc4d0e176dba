"""Activity: what members do counts once by month, and may raise a tier at once."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from kernel.calendar import business_date
from kernel.caller import MemberRef
from kernel.database import Connection
from kernel.errors import Conflict, Refusal
from points.membership import activity_queries as queries
from points.membership.model import Deed
from points.membership.periods import judge_members
from points.membership.rules import check_occurred_at


class ActivityAlreadyCounted(Conflict):
    """This event has already been counted as activity, by itself or as an earning; an event counts once for ever."""


async def record_activity(
    connection: Connection, reported: Sequence[tuple[UUID, Deed]], *, now: datetime
) -> list[bool]:
    """Count what several partners report, each once for ever; True for what counted now, in the order of `reported`.

    Where the scheme raises at once, who meets a higher shop level is judged in the same transaction; what was posted with
    it earned by the tier before.
    """
    if not reported:
        return []
    day = business_date(now)
    counted = await queries.record_deeds(connection, reported, day=day, now=now)
    risen = {
        deed.member.member_id: deed.member
        for partner_id, deed in reported
        if counted.get(queries.key_of(partner_id, deed))
    }
    if risen:
        await judge_members(connection, list(risen.values()), day=day, cause="news", now=now)
    # A copy in the same report did not count: each key is taken by the first that names it.
    return [counted.pop(queries.key_of(partner_id, deed), None) is not None for partner_id, deed in reported]


async def report_activity(
    connection: Connection, reported: Sequence[tuple[UUID, Deed]], *, now: datetime
) -> list[Deed | Refusal]:
    """`record_activity` for a partner's own reports: each is answered for itself, in the order of `reported`."""
    refused = {place: fault for place, (_, deed) in enumerate(reported) if (fault := _fault_of(deed, now))}
    sound = [report for place, report in enumerate(reported) if place not in refused]
    counted = iter(await record_activity(connection, sound, now=now))
    return [
        refused.get(place) or (deed if next(counted) else ActivityAlreadyCounted(source_ref=deed.source_ref))
        for place, (_, deed) in enumerate(reported)
    ]


async def undo_activity(
    connection: Connection, member: MemberRef, *, partner_id: UUID, kind: str, source_ref: str, fen: int
) -> None:
    """Take back what a refund of `fen` stands for, never more than was counted.

    The tier stays: less activity acts at the next evaluation only.
    """
    await queries.undo_deed(
        connection, member, partner_id=partner_id, kind=kind, source_ref=source_ref, fen=fen
    )


def _fault_of(deed: Deed, now: datetime) -> Refusal | None:
    try:
        check_occurred_at(deed.occurred_at, now)
    except Refusal as refusal:
        return refusal
    return None
