"""Membership over HTTP: standing, rights, and the use of a right."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from litestar import get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody
from msgspec import Meta, Struct

from kernel.caller import Caller, MemberUnknown, Subjects
from kernel.database import Connection
from kernel.ids import from_wire, to_wire
from kernel.pages import CursorSeal, Page, check_limit
from points.membership import service
from points.membership.model import BankLevel, Entitlement, ShopLevel, Tier
from points.membership.rules import state_of

SCOPE = "members:read"


class Membership(Struct, frozen=True, kw_only=True):
    """Where a member stands."""

    member: str
    tier: Tier
    bank_level: BankLevel
    shop_level: ShopLevel
    multiplier_pct: int
    matrix_version: int


class EntitlementView(Struct, frozen=True, kw_only=True):
    """A right of a member at this partner."""

    id: str
    kind: str
    state: str
    quantity: int
    used: int
    expires_at: datetime | None
    granted_at: datetime


class UseEntitlement(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One use of a right."""

    use_ref: Annotated[
        str, Meta(min_length=1, max_length=128, description="Your number of this use; counts once.")
    ]
    quantity: Annotated[int, Meta(ge=1, le=1000, description="How many uses at once.")] = 1


@get("/v1/members/{sub:str}/membership", scope=SCOPE, level="A1")
async def read_membership(
    sub: FromPath[str],
    connection: NamedDependency[Connection],
    caller: NamedDependency[Caller],
    subjects: NamedDependency[Subjects],
    now: NamedDependency[datetime],
) -> Membership:
    """Read a member's tier and levels."""
    member = await subjects.resolve_one(connection, caller, sub, scope=SCOPE, now=now)
    standing = (await service.list_standings(connection, [member])).get(member.member_id)
    if standing is None:
        raise MemberUnknown
    return Membership(
        member=sub,
        tier=standing.tier,
        bank_level=standing.bank_level,
        shop_level=standing.shop_level,
        multiplier_pct=standing.multiplier_pct,
        matrix_version=standing.matrix_version,
    )


@get("/v1/members/{sub:str}/entitlements", scope=SCOPE, level="A1")
async def list_entitlements(
    sub: FromPath[str],
    connection: NamedDependency[Connection],
    caller: NamedDependency[Caller],
    subjects: NamedDependency[Subjects],
    cursors: NamedDependency[CursorSeal],
    now: NamedDependency[datetime],
    limit: FromQuery[int] = 20,
    cursor: FromQuery[str | None] = None,
) -> Page[EntitlementView]:
    """List a member's entitlements at this partner, newest first."""
    check_limit(limit)
    member = await subjects.resolve_one(connection, caller, sub, scope=SCOPE, now=now)
    binding = f"{caller.client_id}:entitlements:{sub}"
    before = None if cursor is None else UUID(cursors.open(binding, cursor))
    found = await service.list_entitlements(
        connection, member, partner_id=caller.partner_id, before=before, limit=limit + 1
    )
    more = cursors.seal(binding, str(found[limit - 1].id)) if len(found) > limit else None
    return Page(data=[_view(entitlement, now) for entitlement in found[:limit]], next_cursor=more)


@post(
    "/v1/entitlements/{id:str}/use", scope="entitlements:write", idempotent=True, level="A2", status_code=200
)
async def use_entitlement(
    id: FromPath[str],
    data: JSONBody[UseEntitlement],
    connection: NamedDependency[Connection],
    caller: NamedDependency[Caller],
    now: NamedDependency[datetime],
) -> EntitlementView:
    """Use an entitlement."""
    entitlement = await service.use_entitlement(
        connection,
        entitlement_id=from_wire("etl", id),
        partner_id=caller.partner_id,
        use_ref=data.use_ref,
        quantity=data.quantity,
        now=now,
    )
    return _view(entitlement, now)


def _view(entitlement: Entitlement, now: datetime) -> EntitlementView:
    return EntitlementView(
        id=to_wire("etl", entitlement.id),
        kind=entitlement.kind,
        state=state_of(entitlement, now),
        quantity=entitlement.quantity,
        used=entitlement.used,
        expires_at=entitlement.expires_at,
        granted_at=entitlement.granted_at,
    )


routes = [read_membership, list_entitlements, use_entitlement]
