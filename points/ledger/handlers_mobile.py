"""A member's own points over HTTP, as the bank's app shows them: everything, whatever partner it came by."""

from datetime import datetime

from litestar import get
from litestar.di import NamedDependency
from litestar.params import FromQuery
from msgspec import Struct

from kernel.caller import MemberCaller
from kernel.database import Connection
from kernel.pages import CursorSeal, Page, check_limit
from points.ledger import service
from points.ledger.bodies import EntryView, PointsView
from points.ledger.handlers import EXPIRING_MAX, view_entry, view_points
from points.ledger.model import POINTS, ExpiringPoints

READ = "member:read"
MOBILE = "mobile"


class ExpiringView(Struct, frozen=True, kw_only=True):
    """The free points that end next, soonest first, one line for each instant."""

    expiring: list[ExpiringPoints]
    as_of: datetime
    point_type: str


@get("/mobile/v1/points", scope=READ, audience=MOBILE, level="A1")
async def read_own_points(
    connection: NamedDependency[Connection],
    member_caller: NamedDependency[MemberCaller],
    now: NamedDependency[datetime],
    point_type: FromQuery[str] = POINTS.name,
) -> PointsView:
    """Read your points of one type and what of them ends next."""
    code = (await service.find_point_type(connection, point_type)).code
    balance = await service.read_balance(connection, member_caller.member, point_type=code, now=now)
    expiring = await service.list_expiring(
        connection, member_caller.member, limit=EXPIRING_MAX, point_type=code, now=now
    )
    return view_points(balance, expiring, point_type, now)


@get("/mobile/v1/points/expiring", scope=READ, audience=MOBILE, level="A1")
async def list_own_expiring(
    connection: NamedDependency[Connection],
    member_caller: NamedDependency[MemberCaller],
    now: NamedDependency[datetime],
    limit: FromQuery[int] = 20,
    point_type: FromQuery[str] = POINTS.name,
) -> ExpiringView:
    """List which of your points end when, soonest first."""
    check_limit(limit)
    code = (await service.find_point_type(connection, point_type)).code
    expiring = await service.list_expiring(
        connection, member_caller.member, limit=limit, point_type=code, now=now
    )
    return ExpiringView(expiring=expiring, as_of=now, point_type=point_type)


@get("/mobile/v1/points/entries", scope=READ, audience=MOBILE, level="A1")
async def list_own_entries(
    connection: NamedDependency[Connection],
    member_caller: NamedDependency[MemberCaller],
    cursors: NamedDependency[CursorSeal],
    limit: FromQuery[int] = 20,
    cursor: FromQuery[str | None] = None,
    point_type: FromQuery[str] = POINTS.name,
) -> Page[EntryView]:
    """List what was entered in your wallet of one type, newest first."""
    check_limit(limit)
    code = (await service.find_point_type(connection, point_type)).code
    binding = f"{member_caller.client_id}:entries:{member_caller.subject}:{code}"
    before = None if cursor is None else int(cursors.open(binding, cursor))
    found = await service.list_own_entries(
        connection, member_caller.member, before_seq=before, limit=limit + 1, point_type=code
    )
    more = cursors.seal(binding, found[limit - 1].seq) if len(found) > limit else None
    return Page(data=[view_entry(entry) for entry in found[:limit]], next_cursor=more)


routes = [read_own_points, list_own_expiring, list_own_entries]
