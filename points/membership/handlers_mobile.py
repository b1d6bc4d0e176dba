"""A member's own standing over HTTP, as the bank's app shows it."""

from datetime import datetime

from litestar import get
from litestar.di import NamedDependency

from kernel.caller import MemberCaller
from kernel.database import Connection
from points.membership import service
from points.membership.handlers import Membership, view_membership


@get("/mobile/v1/membership", scope="member:read", audience="mobile", level="A1")
async def read_own_membership(
    connection: NamedDependency[Connection],
    member_caller: NamedDependency[MemberCaller],
    now: NamedDependency[datetime],
) -> Membership:
    """Read your tier, why it is that, and what the next level takes."""
    outlook = await service.read_outlook(connection, member_caller.member, now=now)
    return view_membership(member_caller.subject, outlook)


routes = [read_own_membership]
