"""A member asked by way of the phone: the member's side. What waits is listed, approved as it was shown, or denied.

What is approved is named by the hash of all of it, so a request that was exchanged for another cannot be approved.
"""

import hashlib
import hmac
from datetime import datetime, timedelta
from typing import ClassVar, Literal
from uuid import UUID

import msgspec
from msgspec import Struct

from kernel import outbox
from kernel.caller import MemberRef
from kernel.database import Connection
from kernel.errors import Absent, Conflict
from kernel.ids import to_wire
from partners.oauth import backchannel_queries, grants, queries
from partners.oauth.access import AccessRefused
from partners.oauth.backchannel_queries import Backchannel
from partners.oauth.backchannel_rules import FETCH, FRESH, WAITING_FOR_MEMBER_MAX, is_fresh, needs_fresh_login
from partners.oauth.grants import Authentication
from partners.oauth.interaction import SensitiveConsentMissing
from partners.registry import service as registry
from partners.registry.jwk import encode
from partners.registry.model import Partner

Decision = Literal["approved", "denied"]


class AuthorizationUnknown(Absent):
    """There is no such request for you."""

    code = "authorization_not_found"


class AuthorizationDecided(Conflict):
    """This request was answered the other way before."""


class AuthorizationExpired(Conflict):
    """This request was not answered in time; the partner may ask again."""


class AuthorizationNotAsShown(Conflict):
    """The request is not the one that was shown; show it anew before it is approved."""


class AuthorizationWithdrawn(Conflict):
    """The partner may not be given anything at this moment."""


class GrantNotRecorded(Conflict):
    """The grant cannot be recorded: the one to be widened has ended, or too many stand already."""


class InsufficientUserAuthentication(AccessRefused):
    """Approving this takes a login not older than max_age seconds; have the member log in again (RFC 9470)."""

    error: ClassVar[str | None] = "insufficient_user_authentication"

    def challenge(self) -> str:
        """RFC 9470 §3: with the age that would do."""
        return f"{super().challenge()}, max_age={FRESH // timedelta(seconds=1)}"


class Authorization(Struct, frozen=True, kw_only=True):
    """A request as the member is shown it."""

    request: Backchannel
    partner: Partner

    @property
    def details_hash(self) -> str:
        """Names everything that is approved: who asks, what for, and every number in it."""
        shown = {
            "id": self.request.id,
            "partner_id": self.request.partner_id,
            "client_id": self.request.client_id,
            "document": self.request.document,
        }
        return encode(hashlib.sha256(msgspec.json.encode(shown, order="deterministic")).digest())

    @property
    def needs_fresh_login(self) -> bool:
        return needs_fresh_login(self.request.document)


class Approval(Struct, frozen=True, kw_only=True):
    """What the member says when approving: what was shown, and the separate consent if it was needed."""

    binding_message: str | None
    details_hash: str
    sensitive_given: bool


async def list_authorizations(
    connection: Connection, member: MemberRef, *, now: datetime
) -> list[Authorization]:
    """Everything that waits for this member, the oldest first."""
    waiting = await backchannel_queries.list_waiting(
        connection, member, limit=WAITING_FOR_MEMBER_MAX, now=now
    )
    return [
        Authorization(request=request, partner=await registry.find_partner(connection, request.partner_id))
        for request in waiting
    ]


async def approve_authorization(
    connection: Connection,
    member: MemberRef,
    request_id: UUID,
    *,
    approval: Approval,
    authentication: Authentication,
    now: datetime,
) -> None:
    """Record the grant the partner may now fetch a token for; a second approval changes nothing."""
    found = await _find(connection, member, request_id)
    _check_as_shown(found, approval)
    if found.request.state in ("approved", "redeemed"):
        return
    _check_open(found.request, now=now)
    if found.request.document.sensitive and not approval.sensitive_given:
        raise SensitiveConsentMissing
    if found.needs_fresh_login and not is_fresh(authentication.at, now=now):
        raise InsufficientUserAuthentication
    await _check_may_be_given(connection, found.request)
    if not await _decide(connection, found.request, "approved", now=now):
        # Somebody was first, or it ran out in between; what became of it decides.
        await _answer_late(connection, member, found.request, "approved")
        return
    grant_id = await grants.record_grant(
        connection, found.request, member=member, authentication=authentication, now=now
    )
    if grant_id is None:
        raise GrantNotRecorded
    await backchannel_queries.name_consent(connection, found.request.id, grant_id)
    await _tell(connection, found.request, "approved", now=now)


async def deny_authorization(
    connection: Connection, member: MemberRef, request_id: UUID, *, now: datetime
) -> None:
    """The partner is told that the member did not agree; a second denial changes nothing."""
    found = await _find(connection, member, request_id)
    if found.request.state == "denied":
        return
    _check_open(found.request, now=now)
    if not await _decide(connection, found.request, "denied", now=now):
        await _answer_late(connection, member, found.request, "denied")
        return
    await _tell(connection, found.request, "denied", now=now)


async def _find(connection: Connection, member: MemberRef, request_id: UUID) -> Authorization:
    request = await backchannel_queries.find_of_member(connection, request_id, member)
    if request is None:
        raise AuthorizationUnknown
    return Authorization(request=request, partner=await registry.find_partner(connection, request.partner_id))


def _check_as_shown(found: Authorization, approval: Approval) -> None:
    same = hmac.compare_digest(approval.details_hash.encode(), found.details_hash.encode())
    if not same or approval.binding_message != found.request.document.binding_message:
        raise AuthorizationNotAsShown


def _check_open(request: Backchannel, *, now: datetime) -> None:
    if request.state != "pending":
        raise AuthorizationDecided(decision="denied" if request.state == "denied" else "approved")
    if request.expires_at <= now:
        raise AuthorizationExpired


async def _check_may_be_given(connection: Connection, request: Backchannel) -> None:
    client = await registry.find_client(connection, request.client_id)
    if client is None or client.partner_status != "live" or client.app_status != "active":
        raise AuthorizationWithdrawn


async def _decide(connection: Connection, request: Backchannel, decision: Decision, *, now: datetime) -> bool:
    return await backchannel_queries.decide_backchannel(
        connection,
        request.id,
        request.member,
        state=decision,
        fetch_until=now + FETCH,
        now=now,
    )


async def _answer_late(
    connection: Connection, member: MemberRef, request: Backchannel, decision: Decision
) -> None:
    """The same answer given twice at once is one answer; the other one is refused."""
    present = await backchannel_queries.find_of_member(connection, request.id, member)
    assert present is not None, "what waits is not forgotten"
    if present.state == "pending":
        raise AuthorizationExpired
    was: Decision = "denied" if present.state == "denied" else "approved"
    if was != decision:
        raise AuthorizationDecided(decision=was)


async def _tell(connection: Connection, request: Backchannel, decision: Decision, *, now: datetime) -> None:
    """Poll mode needs no ping; whoever listens to events may poll at the right moment."""
    names = await queries.list_names(connection, request.partner_id, [request.member.member_id])
    name = to_wire("aut", request.id)
    event = outbox.Event(
        bucket=request.member.bucket,
        partner_id=request.partner_id,
        type="authorization.decided",
        aggregate=name,
        payload={
            "authorization": name,
            "member": names.get(request.member.member_id),
            "decision": decision,
        },
    )
    await outbox.enqueue(connection, [event], now=now)
