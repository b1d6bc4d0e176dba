"""The ledger over HTTP: balances, entries, quotes, spends and holds."""

from datetime import datetime

from litestar import get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody

from kernel.caller import Caller, Subjects
from kernel.database import Connection
from kernel.ids import from_wire, to_wire
from kernel.pages import CursorSeal, Page, check_limit
from kernel.together import Writer
from points.ledger import handlers_batches, handlers_dry_runs, handlers_transfers, service
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
    SpendRequest,
    SpendView,
)
from points.ledger.model import (
    POINTS,
    Balance,
    ExpiringPoints,
    ListedEntry,
)
from points.ledger.postings import CAPTURES, HOLDS, RELEASES, SPEND, SPENDS, Capture, view_hold
from points.ledger.rules import HoldUnknown

READ = "members:read"

EXPIRING_MAX = 12


@get("/v1/members/{sub:str}/points", scope=READ, level="A1", member_token=True)
async def read_points(
    sub: FromPath[str],
    connection: NamedDependency[Connection],
    caller: NamedDependency[Caller],
    subjects: NamedDependency[Subjects],
    now: NamedDependency[datetime],
    point_type: FromQuery[str] = POINTS.name,
) -> PointsView:
    """Read a member's points of one type and what of them ends next."""
    member = await subjects.resolve_one(connection, caller, sub, scope=READ, now=now)
    code = (await service.find_point_type(connection, point_type)).code
    balance = await service.read_balance(connection, member, point_type=code, now=now)
    expiring = await service.list_expiring(connection, member, limit=EXPIRING_MAX, point_type=code, now=now)
    return view_points(balance, expiring, point_type, now)


@get("/v1/members/{sub:str}/points/entries", scope=READ, level="A1", member_token=True)
async def list_entries(
    sub: FromPath[str],
    connection: NamedDependency[Connection],
    caller: NamedDependency[Caller],
    subjects: NamedDependency[Subjects],
    cursors: NamedDependency[CursorSeal],
    now: NamedDependency[datetime],
    limit: FromQuery[int] = 20,
    cursor: FromQuery[str | None] = None,
    point_type: FromQuery[str] = POINTS.name,
) -> Page[EntryView]:
    """List what your operations entered in a member's wallet of one type, newest first."""
    check_limit(limit)
    member = await subjects.resolve_one(connection, caller, sub, scope=READ, now=now)
    code = (await service.find_point_type(connection, point_type)).code
    binding = f"{caller.client_id}:entries:{sub}:{code}"
    before = None if cursor is None else int(cursors.open(binding, cursor))
    found = await service.list_entries(
        connection,
        member,
        partner_id=caller.partner_id,
        before_seq=before,
        limit=limit + 1,
        point_type=code,
    )
    more = cursors.seal(binding, found[limit - 1].seq) if len(found) > limit else None
    return Page(data=[view_entry(entry) for entry in found[:limit]], next_cursor=more)


@post("/v1/points/quotes", scope=SPEND, level="A1", member_token=True, status_code=200)
async def quote_points(
    data: JSONBody[QuoteRequest],
    connection: NamedDependency[Connection],
    caller: NamedDependency[Caller],
    subjects: NamedDependency[Subjects],
    now: NamedDependency[datetime],
) -> PointsQuote:
    """Say how many points an order could be paid with."""
    member = await subjects.resolve_one(connection, caller, data.member, scope=SPEND, now=now)
    point_type = await service.find_point_type(connection, data.point_type)
    balance = await service.read_balance(connection, member, point_type=point_type.code, now=now)
    payable = data.order_amount_fen * 1_000_000 // point_type.value_fen_e6
    points = min(balance.available_points, payable)
    return PointsQuote(
        max_points=points,
        value_fen=service.value_fen(points, point_type),
        points_per_yuan=100_000_000 // point_type.value_fen_e6,
        point_type=point_type.name,
    )


@post("/v1/points/spends", scope=SPEND, idempotent=True, together=True, level="A2", member_token=True)
async def spend_points(data: JSONBody[SpendRequest], writer: NamedDependency[Writer]) -> SpendView:
    """Spend points at once."""
    return await writer.post(SPENDS, data)


@post("/v1/points/holds", scope=SPEND, idempotent=True, together=True, level="A2", member_token=True)
async def place_hold(data: JSONBody[HoldRequest], writer: NamedDependency[Writer]) -> HoldView:
    """Reserve points for a checkout."""
    return await writer.post(HOLDS, data)


@get("/v1/points/holds/{id:str}", scope=SPEND, level="A1", member_token=True)
async def read_hold(
    id: FromPath[str],
    connection: NamedDependency[Connection],
    caller: NamedDependency[Caller],
    subjects: NamedDependency[Subjects],
    now: NamedDependency[datetime],
) -> HoldView:
    """Read a hold."""
    hold = await service.find_hold(connection, hold_id=from_wire("hld", id), partner_id=caller.partner_id)
    if caller.subject is not None:
        owner = await subjects.resolve_one(connection, caller, caller.subject, scope=SPEND, now=now)
        if owner != hold.member:
            raise HoldUnknown
    return view_hold(hold)


@post(
    "/v1/points/holds/{id:str}/capture",
    scope=SPEND,
    idempotent=True,
    together=True,
    level="A2",
    member_token=True,
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
    member_token=True,
    status_code=200,
)
async def release_hold(id: FromPath[str], writer: NamedDependency[Writer]) -> ReleasedView:
    """Give a hold's points back."""
    return await writer.post(RELEASES, id)


def view_points(
    balance: Balance, expiring: list[ExpiringPoints], point_type: str, at: datetime
) -> PointsView:
    return PointsView(
        available_points=balance.available_points,
        held_points=balance.held_points,
        pending_points=balance.pending_points,
        arrears_points=balance.arrears_points,
        expiring=expiring,
        as_of=at,
        point_type=point_type,
    )


def view_entry(entry: ListedEntry) -> EntryView:
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
    spend_points,
    place_hold,
    read_hold,
    capture_hold,
    release_hold,
    *handlers_batches.routes,
    *handlers_dry_runs.routes,
    *handlers_transfers.routes,
]
