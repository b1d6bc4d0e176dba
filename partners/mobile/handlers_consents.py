"""A member's own grants over HTTP: what one has allowed whom, and taking it back."""

from datetime import date, datetime
from typing import Any

from litestar import delete, get
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery
from msgspec import Struct

from kernel.caller import MemberCaller
from kernel.database import Connection
from kernel.errors import Absent
from kernel.ids import from_wire, to_wire
from kernel.pages import CursorSeal, Page, check_limit
from partners.mobile.handlers_member import MOBILE, Asker, Words, to_words
from partners.oauth import grants
from partners.oauth.details import to_claims
from partners.oauth.model import MemberGrant
from partners.oauth.scopes import DATA_KINDS, PURPOSES, SCOPES
from partners.registry import service as registry

MANAGE = "consents:manage"


class ConsentUnknown(Absent):
    """There is no such consent of yours, or it has ended."""

    code = "consent_not_found"


class ConsentDetail(Struct, frozen=True, kw_only=True):
    """What one has allowed a partner."""

    id: str
    partner: Asker
    scopes: list[Words]
    purposes: list[Words]
    data_kinds: list[Words]
    authorization_details: list[dict[str, Any]]
    sensitive: bool
    granted_at: datetime
    #: the last day
    ends_on: date


@get("/mobile/v1/consents", scope=MANAGE, audience=MOBILE, level="A1")
async def list_own_consents(
    connection: NamedDependency[Connection],
    member_caller: NamedDependency[MemberCaller],
    cursors: NamedDependency[CursorSeal],
    now: NamedDependency[datetime],
    limit: FromQuery[int] = 20,
    cursor: FromQuery[str | None] = None,
) -> Page[ConsentDetail]:
    """List what you have allowed partners and still stands, the newest first."""
    check_limit(limit)
    binding = f"{member_caller.client_id}:consents:{member_caller.subject}"
    before = None if cursor is None else from_wire("grt", str(cursors.open(binding, cursor)))
    found = await grants.list_of_member(
        connection, member=member_caller.member, before=before, limit=limit + 1, now=now
    )
    more = cursors.seal(binding, to_wire("grt", found[limit - 1].id)) if len(found) > limit else None
    return Page(data=[await _view(connection, grant) for grant in found[:limit]], next_cursor=more)


@get("/mobile/v1/consents/{id:str}", scope=MANAGE, audience=MOBILE, level="A1")
async def read_own_consent(
    id: FromPath[str],
    connection: NamedDependency[Connection],
    member_caller: NamedDependency[MemberCaller],
    now: NamedDependency[datetime],
) -> ConsentDetail:
    """Read what you have allowed a partner."""
    found = await grants.find_of_member(
        connection, member=member_caller.member, grant_id=from_wire("grt", id), now=now
    )
    if found is None:
        raise ConsentUnknown
    return await _view(connection, found)


@delete("/mobile/v1/consents/{id:str}", scope=MANAGE, audience=MOBILE, level="A2", status_code=204)
async def withdraw_own_consent(
    id: FromPath[str],
    connection: NamedDependency[Connection],
    member_caller: NamedDependency[MemberCaller],
    now: NamedDependency[datetime],
) -> None:
    """Withdraw what you have allowed a partner, at once: its tokens and refresh tokens end with it."""
    found = await grants.find_of_member(
        connection, member=member_caller.member, grant_id=from_wire("grt", id), now=now
    )
    if found is None or not await grants.withdraw_grant(
        connection, partner_id=found.partner_id, grant_id=found.id, now=now
    ):
        raise ConsentUnknown


async def _view(connection: Connection, grant: MemberGrant) -> ConsentDetail:
    partner = await registry.find_partner(connection, grant.partner_id)
    return ConsentDetail(
        id=to_wire("grt", grant.id),
        partner=Asker(name_zh=partner.name_zh, name_en=partner.name_en, contact=partner.contact),
        scopes=[to_words(scope, SCOPES.get(scope)) for scope in grant.scopes],
        purposes=[to_words(purpose, PURPOSES.get(purpose)) for purpose in grant.purposes],
        data_kinds=[to_words(kind, DATA_KINDS.get(kind)) for kind in grant.data_kinds],
        authorization_details=to_claims(grant.authorization_details),
        sensitive=grant.sensitive,
        granted_at=grant.granted_at,
        ends_on=grant.ends_on,
    )


routes = [list_own_consents, read_own_consent, withdraw_own_consent]
