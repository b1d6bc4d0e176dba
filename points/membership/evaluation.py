"""The evaluation: once for every business date each member is judged, and given the rights of the present periods."""

from datetime import datetime

from kernel.calendar import business_date
from kernel.caller import MemberRef
from kernel.database import Connection
from kernel.jobs import Job, Run, Step
from points.membership import period_queries as queries
from points.membership.periods import judge_members
from points.membership.privileges import grant_rights

PAGE = 500
LANES = 8


async def evaluate(connection: Connection, run: Run, now: datetime) -> Step:
    """The next members of the lane. Judged twice for a date nothing changes; neither does the order of dates."""
    after = None if run.cursor is None else MemberRef(bucket=run.cursor[0], member_id=run.cursor[1])
    members = await queries.list_members(connection, buckets=run.buckets, after=after, limit=PAGE)
    if members:
        await judge_members(connection, members, day=run.business_on, cause="evaluation", now=now)
        await grant_rights(connection, members, day=business_date(now), now=now)
    full = len(members) == PAGE
    return Step(done=len(members), cursor=[members[-1].bucket, members[-1].member_id] if full else None)


EVALUATION = Job(name="evaluation", lanes=LANES, step=evaluate)
