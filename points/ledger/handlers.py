"""The ledger over HTTP: balances, entries, quotes and holds."""

from datetime import datetime

from litestar import get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody

from kernel.caller import Caller, Subjects
from kernel.database import Connection
from kernel.ids import from_wire, to_wire
from kernel.pages import CursorSeal, Page, check_limit
from kernel.together import Writer
from points.ledger import service
from points.ledger.bodies import (
    CapturedView,
    EntryView,
    HoldCapture,
    HoldRequest,
    HoldView,
    PointsQuote,
    PointsView,
    QuoteRequest,
    ReleasedView,
)
from points.ledger.model import (
    POINTS_PER_YUAN,
    Balance,
    ExpiringPoints,
    ListedEntry,
)
from points.ledger.postings import CAPTURES, HOLDS, RELEASES, SPEND, Capture, view_hold

READ = "members:read"

EXPIRING_MAX = 12


@get("/v1/members/{sub:str}/points", scope=READ, level="A1")
async def read_points(
    sub: FromPath[str],
    connection: NamedDependency[Connection],
    caller: NamedDependency[Caller],
    subjects: NamedDependency[Subjects],
    now: NamedDependency[datetime],
) -> PointsView:
    """Read a member's points and what of them ends next."""
    member = await subjects.resolve_one(connection, caller, sub, scope=READ, now=now)
    balance = await service.read_balance(connection, member, now=now)
    expiring = await service.list_expiring(connection, member, limit=EXPIRING_MAX, now=now)
    return _points(balance, expiring, now)


@get("/v1/members/{sub:str}/points/entries", scope=READ, level="A1")
async def list_entries(
    sub: FromPath[str],
    connection: NamedDependency[Connection],
    caller: NamedDependency[Caller],
    subjects: NamedDependency[Subjects],
    cursors: NamedDependency[CursorSeal],
    now: NamedDependency[datetime],
    limit: FromQuery[int] = 20,
    cursor: FromQuery[str | None] = None,
) -> Page[EntryView]:
    """List what your operations entered in a member's wallet, newest first."""
    check_limit(limit)
    member = await subjects.resolve_one(connection, caller, sub, scope=READ, now=now)
    binding = f"{caller.client_id}:entries:{sub}"
    before = None if cursor is None else int(cursors.open(binding, cursor))
    found = await service.list_entries(
        connection, member, partner_id=caller.partner_id, before_seq=before, limit=limit + 1
    )
    more = cursors.seal(binding, found[limit - 1].seq) if len(found) > limit else None
    return Page(data=[_entry(entry) for entry in found[:limit]], next_cursor=more)


@post("/v1/points/quotes", scope=SPEND, level="A1", status_code=200)
async def quote_points(
    data: JSONBody[QuoteRequest],
    connection: NamedDependency[Connection],
    caller: NamedDependency[Caller],
    subjects: NamedDependency[Subjects],
    now: NamedDependency[datetime],
) -> PointsQuote:
    """Say how many points an order could be paid with."""
    member = await subjects.resolve_one(connection, caller, data.member, scope=SPEND, now=now)
    balance = await service.read_balance(connection, member, now=now)
    points = min(balance.available_points, data.order_amount_fen * POINTS_PER_YUAN // 100)
    return PointsQuote(
        max_points=points, value_fen=service.value_fen(points), points_per_yuan=POINTS_PER_YUAN
    )


@post("/v1/points/holds", scope=SPEND, idempotent=True, together=True, level="A2")
async def place_hold(data: JSONBody[HoldRequest], writer: NamedDependency[Writer]) -> HoldView:
    """Reserve points for a checkout."""
    return await writer.post(HOLDS, data)


@get("/v1/points/holds/{id:str}", scope=SPEND, level="A1")
async def read_hold(
    id: FromPath[str], connection: NamedDependency[Connection], caller: NamedDependency[Caller]
) -> HoldView:
    """Read a hold."""
    hold_id = from_wire("hld", id)
    return view_hold(await service.find_hold(connection, hold_id=hold_id, partner_id=caller.partner_id))


@post(
    "/v1/points/holds/{id:str}/capture",
    scope=SPEND,
    idempotent=True,
    together=True,
    level="A2",
    status_code=200,
)
async def capture_hold(
    id: FromPath[str], writer: NamedDependency[Writer], data: JSONBody[HoldCapture | None] = None
) -> CapturedView:
    """Spend a hold's points, or some of them; the rest is released."""
    return await writer.post(CAPTURES, Capture(id=id, wish=data or HoldCapture()))


@post(
    "/v1/points/holds/{id:str}/release",
    scope=SPEND,
    idempotent=True,
    together=True,
    level="A2",
    status_code=200,
)
async def release_hold(id: FromPath[str], writer: NamedDependency[Writer]) -> ReleasedView:
    """Give a hold's points back."""
    return await writer.post(RELEASES, id)


def _points(balance: Balance, expiring: list[ExpiringPoints], at: datetime) -> PointsView:
    return PointsView(
        available_points=balance.available_points,
        held_points=balance.held_points,
        pending_points=balance.pending_points,
        arrears_points=balance.arrears_points,
        expiring=expiring,
        as_of=at,
    )


def _entry(entry: ListedEntry) -> EntryView:
    return EntryView(
        operation_id=to_wire("ent", entry.operation_id),
        seq=entry.seq,
        kind=entry.kind,
        debit=entry.debit,
        credit=entry.credit,
        points=entry.points,
        available_after=entry.available_after,
        held_after=entry.held_after,
        pending_after=entry.pending_after,
        arrears_after=entry.arrears_after,
        recorded_at=entry.recorded_at,
    )


routes = [
    read_points,
    list_entries,
    quote_points,
    place_hold,
    read_hold,
    capture_hold,
    release_hold,
]
