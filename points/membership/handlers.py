"""Membership over HTTP: where a member stands and why, and every tier before."""

from datetime import date, datetime

from litestar import get
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery
from msgspec import Struct

from kernel.caller import Caller, Subjects
from kernel.database import Connection
from kernel.pages import CursorSeal, Page, check_limit
from points.membership import handlers_activity, handlers_entitlements, service
from points.membership.model import BankLevel, Kept, Outlook, Period, Progress, Reason, ShopLevel, Tier

SCOPE = "members:read"


class NextLevel(Struct, frozen=True, kw_only=True):
    """What a member lacks of the next shop level, in the months that count now."""

    shop_level: ShopLevel
    #: the tier it would make
    tier: Tier
    missing_fen: int
    missing_count: int
    window_from: date
    #: the first day that does not count any more
    window_to: date


class Membership(Struct, frozen=True, kw_only=True):
    """Where a member stands."""

    member: str
    tier: Tier
    #: the levels that made the tier
    bank_level: BankLevel
    shop_level: ShopLevel
    multiplier_pct: int
    matrix_version: int
    scheme_version: int
    since: datetime
    #: the tier does not fall before
    valid_until: datetime
    #: why the tier began; then whether the levels make it today or it is kept although they do not
    reasons: list[Reason | Kept]
    #: null at the highest level
    next_level: NextLevel | None


class TierPeriod(Struct, frozen=True, kw_only=True):
    """A tier a member had, from its start to the start of the next."""

    no: int
    tier: Tier
    multiplier_pct: int
    bank_level: BankLevel
    shop_level: ShopLevel
    #: what the matrix said of the levels; a tier falls by one at a time
    judged_tier: Tier
    reason: Reason
    matrix_version: int
    scheme_version: int
    judged_on: date
    starts_at: datetime
    #: null while it is in force
    ends_at: datetime | None
    valid_until: datetime


@get("/v1/members/{sub:str}/membership", scope=SCOPE, level="A1", member_token=True)
async def read_membership(
    sub: FromPath[str],
    connection: NamedDependency[Connection],
    caller: NamedDependency[Caller],
    subjects: NamedDependency[Subjects],
    now: NamedDependency[datetime],
) -> Membership:
    """Read a member's tier, why it is that, and what the next level takes."""
    member = await subjects.resolve_one(connection, caller, sub, scope=SCOPE, now=now)
    return view_membership(sub, await service.read_outlook(connection, member, now=now))


@get("/v1/members/{sub:str}/membership/history", scope=SCOPE, level="A1", member_token=True)
async def list_tier_periods(
    sub: FromPath[str],
    connection: NamedDependency[Connection],
    caller: NamedDependency[Caller],
    subjects: NamedDependency[Subjects],
    cursors: NamedDependency[CursorSeal],
    now: NamedDependency[datetime],
    limit: FromQuery[int] = 20,
    cursor: FromQuery[str | None] = None,
) -> Page[TierPeriod]:
    """List a member's tiers, newest first."""
    check_limit(limit)
    member = await subjects.resolve_one(connection, caller, sub, scope=SCOPE, now=now)
    binding = f"{caller.client_id}:tiers:{sub}"
    before = None if cursor is None else int(cursors.open(binding, cursor))
    found = await service.list_periods(connection, member, before=before, limit=limit + 1)
    more = cursors.seal(binding, found[limit - 1].no) if len(found) > limit else None
    return Page(data=[_period(period) for period in found[:limit]], next_cursor=more)


def view_membership(sub: str, outlook: Outlook) -> Membership:
    period = outlook.period
    return Membership(
        member=sub,
        tier=period.tier,
        bank_level=period.bank_level,
        shop_level=period.shop_level,
        multiplier_pct=period.multiplier_pct,
        matrix_version=period.matrix_version,
        scheme_version=period.scheme_version,
        since=period.starts_at,
        valid_until=period.valid_until,
        reasons=[period.reason, outlook.kept],
        next_level=None if outlook.progress is None else _next_level(outlook.progress),
    )


def _next_level(progress: Progress) -> NextLevel:
    return NextLevel(
        shop_level=progress.shop_level,
        tier=progress.tier,
        missing_fen=progress.missing_fen,
        missing_count=progress.missing_count,
        window_from=progress.window.start_on,
        window_to=progress.window.end_on,
    )


def _period(p: Period) -> TierPeriod:
    """Without the activity it was judged by: that is also what the member did elsewhere."""
    return TierPeriod(
        no=p.no,
        tier=p.tier,
        multiplier_pct=p.multiplier_pct,
        bank_level=p.bank_level,
        shop_level=p.shop_level,
        judged_tier=p.judged_tier,
        reason=p.reason,
        matrix_version=p.matrix_version,
        scheme_version=p.scheme_version,
        judged_on=p.judged_on,
        starts_at=p.starts_at,
        ends_at=p.ends_at,
        valid_until=p.valid_until,
    )


routes = [
    read_membership,
    list_tier_periods,
    *handlers_activity.routes,
    *handlers_entitlements.routes,
]
