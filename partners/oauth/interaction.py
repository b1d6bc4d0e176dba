"""A member's answer to a partner: what the bank's own pages show of a pushed request, and where they send the member back.

The pages know a request by its handle alone. Of all answers to a request the first counts; nothing is used up by looking.
"""

import secrets
from datetime import date, datetime, timedelta
from urllib.parse import urlencode
from uuid import UUID

from msgspec import Struct

from kernel.caller import MemberRef
from kernel.database import Connection
from kernel.errors import Absent, Conflict, Unprocessable
from kernel.ids import new_id
from kernel.vault import sha256
from partners.oauth import flow_queries
from partners.oauth.details import AuthorizationDetail
from partners.oauth.grants import Authentication, record_grant
from partners.oauth.model import AuthorizationRequest, CodeDocument, PushedRequest
from partners.registry import service as registry

CODE_LIFE = timedelta(seconds=60)
HANDLE_LENGTH_MAX = 128


class InteractionGone(Absent):
    """This page has ended: it was answered before, or waited for too long. Begin again at the partner."""


class SensitiveConsentMissing(Unprocessable):
    """What the partner asks for includes sensitive data, to which you have to agree separately."""


class AnsweredMeanwhile(Conflict):
    """This request was answered in another window."""


class Interaction(Struct, frozen=True, kw_only=True):
    """What a member must see before answering."""

    #: of the pushed authorization request
    id: UUID
    partner_name_zh: str
    partner_name_en: str
    partner_contact: str
    scopes: list[str]
    #: keys of partners.oauth.scopes.PURPOSES and DATA_KINDS
    purposes: list[str]
    data_kinds: list[str]
    authorization_details: list[AuthorizationDetail]
    #: separate consent (PIPL §29) must be given
    sensitive: bool
    #: the last day of the grant asked for
    ends_on: date
    ui_locales: str | None
    #: the only member who may agree, and who may see it, where the request is about one
    member_id: int | None = None
    #: where the answer goes; the pages allow their forms to end there
    redirect_uri: str
    expires_at: datetime
    #: the bank's own app: whoever has logged in is sent back, there is nothing to agree to
    first_party: bool = False


async def find_interaction(connection: Connection, *, handle: str, now: datetime) -> Interaction | None:
    """The open request behind a page, or None; may be asked as often as the page is loaded.

    Of a partner that was suspended meanwhile there is none: nobody should log in for what leads nowhere.
    """
    pushed = await _find(connection, handle, now=now)
    if pushed is None:
        return None
    partner = await registry.find_partner(connection, pushed.partner_id)
    asked = pushed.document
    return Interaction(
        id=pushed.id,
        partner_name_zh=partner.name_zh,
        partner_name_en=partner.name_en,
        partner_contact=partner.contact,
        scopes=asked.scopes,
        purposes=asked.purposes,
        data_kinds=asked.data_kinds,
        authorization_details=asked.authorization_details,
        sensitive=asked.sensitive,
        ends_on=asked.ends_on,
        ui_locales=asked.ui_locales,
        member_id=asked.member_id,
        redirect_uri=asked.redirect_uri,
        expires_at=pushed.expires_at,
    )


async def approve_interaction(
    connection: Connection,
    *,
    handle: str,
    member: MemberRef,
    authentication: Authentication,
    sensitive_given: bool,
    now: datetime,
) -> str:
    """Record the grant and use the request up; returns where the member is sent, with a code or an error."""
    pushed = await _find(connection, handle, now=now)
    if pushed is None:
        raise InteractionGone
    if pushed.document.sensitive and not sensitive_given:
        raise SensitiveConsentMissing
    if pushed.document.member_id not in (None, member.member_id):
        return await _deny(connection, pushed, "the request is about another member", now=now)
    if not await flow_queries.end_request(connection, pushed.id, state="approved", now=now):
        raise AnsweredMeanwhile
    grant_id = await record_grant(connection, pushed, member=member, authentication=authentication, now=now)
    if grant_id is None:
        return refusal_url(pushed.document, "access_denied", "the grant cannot be recorded")
    code = await _issue_code(connection, pushed, grant_id, member, authentication, now=now)
    return answer_url(pushed.document, {"code": code})


async def deny_interaction(connection: Connection, *, handle: str, now: datetime) -> str:
    """Use the request up without a grant; returns where the member is sent."""
    pushed = await _find(connection, handle, now=now)
    if pushed is None:
        raise InteractionGone
    return await _deny(connection, pushed, "the member did not agree", now=now)


async def _deny(connection: Connection, pushed: PushedRequest, reason: str, *, now: datetime) -> str:
    if not await flow_queries.end_request(connection, pushed.id, state="denied", now=now):
        raise AnsweredMeanwhile
    return refusal_url(pushed.document, "access_denied", reason)


async def _find(connection: Connection, handle: str, *, now: datetime) -> PushedRequest | None:
    if not 0 < len(handle) <= HANDLE_LENGTH_MAX or not handle.isascii():
        return None
    pushed = await flow_queries.find_request(connection, sha256(handle), now=now)
    return pushed if pushed is not None and await _may_return(connection, pushed) else None


async def _may_return(connection: Connection, pushed: PushedRequest) -> bool:
    """Whether the client may still have its answer: it and its partner are active, the address is still its own."""
    client = await registry.find_client(connection, pushed.client_id)
    return (
        client is not None
        and client.partner_status == "live"
        and client.app_status == "active"
        and pushed.document.redirect_uri in client.redirect_uris
    )


async def _issue_code(
    connection: Connection,
    pushed: PushedRequest,
    grant_id: UUID,
    member: MemberRef,
    authentication: Authentication,
    *,
    now: datetime,
) -> str:
    """A code of 256 random bits, of which the database knows the hash (FAPI 2.0 §5.3.2.1: it lives 60 s at most)."""
    code = secrets.token_urlsafe(32)
    asked = pushed.document
    document = CodeDocument(
        request_id=pushed.id,
        partner_id=pushed.partner_id,
        grant_id=grant_id,
        member_id=member.member_id,
        bucket=member.bucket,
        redirect_uri=asked.redirect_uri,
        code_challenge=asked.code_challenge,
        dpop_jkt=asked.dpop_jkt,
        scopes=asked.scopes,
        authenticated_at=authentication.at,
        methods=authentication.methods,
    )
    await flow_queries.insert_code(
        connection,
        sha256(code),
        origin=new_id(now),
        client_id=pushed.client_id,
        document=document,
        expires_at=now + CODE_LIFE,
        now=now,
    )
    return code


def answer_url(asked: AuthorizationRequest, answer: dict[str, str]) -> str:
    """The redirect URI with the answer, the partner's own state and the issuer (RFC 9207)."""
    return address_of(asked.redirect_uri, answer, state=asked.state, issuer=asked.issuer)


def address_of(redirect_uri: str, answer: dict[str, str], *, state: str | None, issuer: str) -> str:
    """Where an answer of the authorization endpoint goes (RFC 6749 §4.1.2, RFC 9207)."""
    fields = dict(answer)
    if state is not None:
        fields["state"] = state
    fields["iss"] = issuer
    joint = "&" if "?" in redirect_uri else "?"
    return f"{redirect_uri}{joint}{urlencode(fields)}"


def refusal_url(asked: AuthorizationRequest, error: str, description: str) -> str:
    """The redirect URI with an error of RFC 6749 §4.1.2.1."""
    return answer_url(asked, {"error": error, "error_description": description})
