"""Grants: what members allow partners; opened, widened, replaced, and withdrawn with effect from the commit on."""

import math
from collections.abc import Collection, Sequence
from datetime import date, datetime, timedelta
from uuid import UUID

import asyncpg
from msgspec import Struct

from kernel import outbox
from kernel.caller import MemberRef
from kernel.database import Connection
from kernel.errors import Conflict, Forbidden
from kernel.ids import from_wire, new_id, to_wire
from partners.oauth import flow_queries, grant_queries, queries, refresh_queries
from partners.oauth.details import DETAILS_MAX, AuthorizationDetail, PointsSpend
from partners.oauth.model import TOKEN_SECONDS, Asked, Consent, MemberGrant, Request

GRANTS_MAX = 16
#: how long a revocation is kept: beyond the last token it could concern
REVOCATION_LIFE = timedelta(seconds=TOKEN_SECONDS + 60)


class ConsentChanging(Conflict):
    """Another consent of this member is being recorded at this moment; repeat."""


class GrantEnded(Forbidden):
    """The member has withdrawn the grant this token stands on, or it has ended; ask the member again."""


class Authentication(Struct, frozen=True, kw_only=True):
    """How a member proved to be one, as far as partners and auditors may know."""

    at: datetime
    #: RFC 8176: pwd, otp, hwk, swk, user
    methods: list[str]


async def lock_pair(connection: Connection, *, partner_id: UUID, member: MemberRef) -> None:
    """From here to commit nobody else changes what this member allows this partner."""
    try:
        await grant_queries.lock_pair(connection, partner_id, member.member_id)
    except asyncpg.LockNotAvailableError:
        raise ConsentChanging from None


async def record_grant(
    connection: Connection,
    pushed: Request,
    *,
    member: MemberRef,
    authentication: Authentication,
    now: datetime,
) -> UUID | None:
    """The grant a member has just given; None when there is none to widen, or too many to add one."""
    await lock_pair(connection, partner_id=pushed.partner_id, member=member)
    asked = pushed.document
    if asked.grant_action == "create":
        grant_id = await _create(connection, pushed, member, now=now)
    else:
        grant_id = await _change(connection, pushed, member, now=now)
    if grant_id is None:
        return None
    await grant_queries.insert_given(
        connection,
        pushed,
        given_id=new_id(now),
        consent_id=grant_id,
        authenticated_at=authentication.at,
        methods=authentication.methods,
        now=now,
    )
    await tell(connection, "consent.granted", pushed.partner_id, member, grant_id, now=now)
    return grant_id


async def _create(
    connection: Connection, pushed: Request, member: MemberRef, *, now: datetime
) -> UUID | None:
    standing = await grant_queries.count_standing(connection, pushed.partner_id, member, now=now)
    if standing >= GRANTS_MAX:
        return None
    grant_id = new_id(now)
    await grant_queries.insert_grant(connection, pushed, grant_id=grant_id, member=member, now=now)
    return grant_id


async def _change(
    connection: Connection, pushed: Request, member: MemberRef, *, now: datetime
) -> UUID | None:
    """Merge into, or replace, the grant the request names; it keeps its id."""
    asked = pushed.document
    assert asked.grant_id is not None, "a request without a grant to change is refused when pushed"
    present = await grant_queries.find_grant(connection, pushed.partner_id, asked.grant_id, now=now)
    if present is None or present.member != member:
        return None
    wanted = asked if asked.grant_action == "replace" else _merged(present, asked)
    if len(wanted.authorization_details) > DETAILS_MAX:
        return None
    changed = await grant_queries.change_grant(
        connection,
        present.id,
        scopes=wanted.scopes,
        purposes=wanted.purposes,
        data_kinds=wanted.data_kinds,
        authorization_details=wanted.authorization_details,
        sensitive=wanted.sensitive,
        ends_on=wanted.ends_on,
    )
    if not changed:
        return None
    lowered = _limit_of(wanted.authorization_details) < _limit_of(present.authorization_details)
    if asked.grant_action == "replace" or lowered:
        await _end_tokens(connection, present, now=now)
    return present.id


async def _end_tokens(connection: Connection, grant: Consent, *, now: datetime) -> None:
    """Whatever came or could come of earlier codes: it may carry more than is granted now. The grant itself goes on."""
    await flow_queries.use_codes_of_grant(connection, grant.id, now=now)
    await flow_queries.close_backchannels_of_grant(connection, grant.id, grant.member, now=now)
    origins = await flow_queries.list_origins(connection, grant.id, grant.member)
    await refresh_queries.revoke_refresh_of_grant(connection, grant.id, now=now)
    await revoke(connection, [f"origin:{origin}" for origin in origins], now=now)


def _limit_of(details: Sequence[AuthorizationDetail]) -> float:
    """How many points may be spent in all."""
    return min((each.max_points for each in details if isinstance(each, PointsSpend)), default=math.inf)


class _Extent(Struct, frozen=True, kw_only=True):
    scopes: list[str]
    purposes: list[str]
    data_kinds: list[str]
    authorization_details: list[AuthorizationDetail]
    sensitive: bool
    ends_on: date


def _merged(present: Consent, asked: Asked) -> _Extent:
    # Of spending limits there is one, the last; everything else adds up.
    renewed = any(isinstance(detail, PointsSpend) for detail in asked.authorization_details)
    details = [
        detail
        for detail in present.authorization_details
        if not (renewed and isinstance(detail, PointsSpend))
    ]
    details += [detail for detail in asked.authorization_details if detail not in details]
    return _Extent(
        scopes=sorted({*present.scopes, *asked.scopes}),
        purposes=sorted({*present.purposes, *asked.purposes}),
        data_kinds=sorted({*present.data_kinds, *asked.data_kinds}),
        authorization_details=details,
        sensitive=present.sensitive or asked.sensitive,
        # The page showed what is new and its end. What was agreed to before must not outlast the end shown then, nor
        # what is new the end shown now; whoever wants longer asks for everything again and replaces the grant.
        ends_on=min(present.ends_on, asked.ends_on),
    )


async def withdraw_grant(connection: Connection, *, partner_id: UUID, grant_id: UUID, now: datetime) -> bool:
    """End one grant of the partner, standing or lapsed; False if there is no such grant left to end."""
    member = await grant_queries.withdraw_grant(connection, partner_id, grant_id, now=now)
    if member is None:
        return False
    await revoke(connection, [f"grant:{grant_id}"], now=now)
    await tell(connection, "consent.withdrawn", partner_id, member, grant_id, now=now)
    return True


async def find_grant(
    connection: Connection, *, partner_id: UUID, grant_id: UUID, now: datetime
) -> Consent | None:
    """The partner's grant of this id, if it stands."""
    return await grant_queries.find_grant(connection, partner_id, grant_id, now=now)


async def list_of_member(
    connection: Connection, *, member: MemberRef, before: UUID | None, limit: int, now: datetime
) -> list[MemberGrant]:
    """What the member allows, whoever it was given to, the newest first."""
    return await grant_queries.list_of_member(connection, member, before=before, limit=limit, now=now)


async def find_of_member(
    connection: Connection, *, member: MemberRef, grant_id: UUID, now: datetime
) -> MemberGrant | None:
    """The member's own grant of this id, if it stands."""
    found = await grant_queries.list_of_member(connection, member, grant_id=grant_id, limit=1, now=now)
    return found[0] if found else None


async def list_ended(connection: Connection, grant_ids: Collection[str], *, now: datetime) -> set[str]:
    """Those of the grants (`grt_…`) that do not stand any more."""
    if not grant_ids:
        return set()
    known = {from_wire("grt", grant_id): grant_id for grant_id in grant_ids}
    standing = await grant_queries.list_standing(connection, list(known), now=now)
    return {grant_id for identifier, grant_id in known.items() if identifier not in standing}


async def check_stands(connection: Connection, grant_id: str, *, now: datetime) -> None:
    """A member's token is good for nothing once its grant has ended, whatever other grants stand."""
    if await list_ended(connection, [grant_id], now=now):
        raise GrantEnded


async def revoke(connection: Connection, subjects: Sequence[str], *, now: datetime) -> None:
    """Tokens of these subjects stop working: in this transaction's sight at once, everywhere within a second."""
    await flow_queries.insert_revocations(connection, subjects, expires_at=now + REVOCATION_LIFE, now=now)


async def tell(
    connection: Connection,
    type_: str,
    partner_id: UUID,
    member: MemberRef,
    consent_id: UUID,
    *,
    now: datetime,
) -> None:
    """One event for the partner, with its own name of the member if it has one already."""
    names = await queries.list_names(connection, partner_id, [member.member_id])
    event = outbox.Event(
        bucket=member.bucket,
        partner_id=partner_id,
        type=type_,
        aggregate=to_wire("grt", consent_id),
        payload={"grant": to_wire("grt", consent_id), "member": names.get(member.member_id)},
    )
    await outbox.enqueue(connection, [event], now=now)
