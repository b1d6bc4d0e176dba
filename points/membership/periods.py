"""Tier periods: members are judged, and those whose tier changes or is renewed begin a new period."""

from collections.abc import Sequence
from datetime import date, datetime

from kernel import audit
from kernel.calendar import business_date
from kernel.caller import MemberRef, MemberUnknown
from kernel.database import Connection
from points.membership import period_queries as queries
from points.membership.model import Cause, Inputs, Outlook, Period, Rules, Verdict
from points.membership.privileges import grant_rights, withdraw_rights
from points.membership.rules import CHANGES, judge, kept_as, progress_of, window_of
from points.membership.version_queries import find_rules


async def judge_members(
    connection: Connection,
    members: Sequence[MemberRef],
    *,
    day: date,
    cause: Cause,
    rules: Rules | None = None,
    now: datetime,
) -> list[tuple[Inputs, Verdict]]:
    """Judge these members by the rules in force on `day`; returns those for whom a tier period began.

    Everybody is looked at without a lock; only those who change are locked, read again and judged for good.
    """
    rules = rules or await find_rules(connection, day=day)
    changing = _changes(await look(connection, members, rules, day=day, cause=cause))
    if not changing:
        return []
    chosen = sorted(
        (inputs.member for inputs, _ in changing), key=lambda member: (member.bucket, member.member_id)
    )
    await queries.lock_members(connection, chosen)
    decided = _changes(await look(connection, chosen, rules, day=day, cause=cause))
    if decided:
        window = window_of(rules.scheme, day)
        await queries.begin_periods(connection, decided, rules=rules, window=window, day=day, now=now)
        changed = [inputs.member for inputs, _ in decided]
        if cause == "fraud":
            await withdraw_rights(connection, changed)
        await grant_rights(connection, changed, day=business_date(now), now=now)
    return decided


async def look(
    connection: Connection, members: Sequence[MemberRef], rules: Rules, *, day: date, cause: Cause
) -> list[tuple[Inputs, Verdict]]:
    """What a judgement would say of these members; nothing is changed."""
    window = window_of(rules.scheme, day)
    found = await queries.list_inputs(connection, members, day=day, window=window)
    return [(inputs, judge(inputs, rules, day=day, cause=cause)) for inputs in found]


async def judge_fraud(
    connection: Connection, member: MemberRef, *, found_by: str, now: datetime
) -> list[tuple[Inputs, Verdict]]:
    """Take at once what the member's levels do not make: no protection, no grace, as many tiers down as it takes."""
    day = business_date(now)
    decided = await judge_members(connection, [member], day=day, cause="fraud", now=now)
    record = audit.AuditRecord(
        actor=f"admin:{found_by}",
        action="member.fraud",
        subject=f"member:{member.member_id}",
        detail={"tier": decided[0][1].tier} if decided else {},
    )
    await audit.append(connection, record, partner_id=None, now=now)
    return decided


async def read_outlook(connection: Connection, member: MemberRef, *, now: datetime) -> Outlook:
    """Where the member stands and why, and what the next level takes."""
    day = business_date(now)
    rules = await find_rules(connection, day=day)
    periods = await queries.list_periods(connection, member, before=None, limit=1)
    if not periods:
        raise MemberUnknown
    ((inputs, _),) = await look(connection, [member], rules, day=day, cause="news")
    return Outlook(
        period=periods[0], kept=kept_as(inputs, rules, day=day), progress=progress_of(inputs, rules, day=day)
    )


async def list_periods(
    connection: Connection, member: MemberRef, *, before: int | None = None, limit: int
) -> list[Period]:
    """The member's tier periods, newest first, those before number `before`."""
    return await queries.list_periods(connection, member, before=before, limit=limit)


def _changes(judged: Sequence[tuple[Inputs, Verdict]]) -> list[tuple[Inputs, Verdict]]:
    return [(inputs, verdict) for inputs, verdict in judged if verdict.reason in CHANGES]
