"""The way to a member's tokens over HTTP: pushed requests, the authorization endpoint, introspection, revocation, grants."""

from datetime import date, datetime
from typing import Any
from urllib.parse import parse_qsl

from litestar import Request, Response, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath
from msgspec import Struct

from kernel.caller import Caller
from kernel.database import Connection
from kernel.errors import Absent
from kernel.ids import from_wire, to_wire
from kernel.sender import Sender
from kernel.settings import Settings
from kernel.vault import Vault
from partners.oauth import grants
from partners.oauth.details import to_claims
from partners.oauth.discovery import AUTHORIZE_PATH, GRANTS_PATH
from partners.oauth.error_page import ErrorPages
from partners.oauth.handlers import NO_STORE, TokenError, refusal_headers
from partners.oauth.introspection import (
    INTROSPECTION_PATH,
    REVOCATION_PATH,
    introspect_token,
    revoke_token,
)
from partners.oauth.keys import Signer
from partners.oauth.model import Consent, TokenRefused
from partners.oauth.pushing import PAR_PATH, RequestPushed, open_interaction, push_request
from partners.oauth.quote_terms import Quotes

INTERACTIONS_PATH = "/oauth2/interactions"


class PushedAnswer(Struct, frozen=True, kw_only=True):
    """Where the member is to be sent, with the `client_id` beside it, and for how many seconds."""

    request_uri: str
    expires_in: int


class GrantView(Struct, frozen=True, kw_only=True):
    """What a member allows (OAuth 2.0 Grant Management)."""

    grant_id: str
    scopes: list[dict[str, str]]
    authorization_details: list[dict[str, Any]]
    purposes: list[str]
    data_kinds: list[str]
    granted_at: datetime
    ends_on: date


class GrantUnknown(Absent):
    """There is no such grant, or it has ended, or it is not yours."""


@post(PAR_PATH, public=True, status_code=201)
async def push_authorization_request(
    request: Request[Any, Any, Any],
    connection: NamedDependency[Connection],
    signer: NamedDependency[Signer],
    vault: NamedDependency[Vault],
    quotes: NamedDependency[Quotes],
    base_url: NamedDependency[str],
    sender: NamedDependency[Sender],
    settings: NamedDependency[Settings],
    now: NamedDependency[datetime],
) -> Response[PushedAnswer | TokenError]:
    """Leave what you ask of a member, and get the request_uri to send the member with (RFC 9126)."""
    outcome = await push_request(
        connection,
        body=await request.body(),
        content_type=request.headers.get("content-type", ""),
        proofs=request.headers.getall("dpop", []),
        issuer=signer.issuer,
        base_url=base_url,
        vault=vault,
        quotes=quotes,
        sender=sender,
        requests_per_minute=settings.token_requests_per_minute,
        now=now,
    )
    if isinstance(outcome, RequestPushed):
        pushed = PushedAnswer(request_uri=outcome.request_uri, expires_in=outcome.expires_in)
        return Response(pushed, status_code=201, headers=NO_STORE)
    return refuse(outcome)


@get(AUTHORIZE_PATH, public=True)
async def authorize(
    request: Request[Any, Any, Any],
    connection: NamedDependency[Connection],
    vault: NamedDependency[Vault],
    error_pages: NamedDependency[ErrorPages],
    now: NamedDependency[datetime],
) -> Response[str]:
    """Send a member's browser here with `client_id` and `request_uri`; the bank's own pages follow."""
    pairs = parse_qsl(request.scope["query_string"].decode("latin-1"), keep_blank_values=True)
    query = dict(pairs)
    language = request.headers.get("accept-language", "")
    # RFC 6749 §3.1: no parameter twice. RFC 9126 §4 with FAPI 2.0 §5.3.2.2: nothing but what was pushed is followed,
    # so a request that was not pushed has no address it could be sent back to.
    if len(query) != len(pairs):
        return error_pages.show("a parameter is given twice", accept_language=language)
    handle = await open_interaction(
        connection,
        client_id=query.get("client_id", ""),
        request_uri=query.get("request_uri", ""),
        vault=vault,
        now=now,
    )
    if handle is None:
        return error_pages.show("invalid_request_uri", accept_language=language)
    # RFC 9700 §4.12: 303, so that nothing of a form is sent on; never 307.
    return Response(
        "", status_code=303, media_type="text/plain", headers={"location": f"{INTERACTIONS_PATH}/{handle}"}
    )


@post(INTROSPECTION_PATH, public=True, status_code=200)
async def introspect(
    request: Request[Any, Any, Any],
    connection: NamedDependency[Connection],
    signer: NamedDependency[Signer],
    sender: NamedDependency[Sender],
    settings: NamedDependency[Settings],
    now: NamedDependency[datetime],
) -> Response[dict[str, Any] | TokenError]:
    """Ask whether one of your own tokens is good (RFC 7662)."""
    outcome = await introspect_token(
        connection,
        body=await request.body(),
        content_type=request.headers.get("content-type", ""),
        signer=signer,
        sender=sender,
        requests_per_minute=settings.token_requests_per_minute,
        now=now,
    )
    if isinstance(outcome, TokenRefused):
        return refuse(outcome)
    return Response(outcome, status_code=200, headers=NO_STORE)


@post(REVOCATION_PATH, public=True, status_code=200)
async def revoke(
    request: Request[Any, Any, Any],
    connection: NamedDependency[Connection],
    signer: NamedDependency[Signer],
    sender: NamedDependency[Sender],
    settings: NamedDependency[Settings],
    now: NamedDependency[datetime],
) -> Response[dict[str, Any] | TokenError]:
    """End one of your own tokens, or a grant by its id (RFC 7009); unknown ones are 200 as well."""
    outcome = await revoke_token(
        connection,
        body=await request.body(),
        content_type=request.headers.get("content-type", ""),
        signer=signer,
        sender=sender,
        requests_per_minute=settings.token_requests_per_minute,
        now=now,
    )
    return Response({}, status_code=200, headers=NO_STORE) if outcome is None else refuse(outcome)


@get(f"{GRANTS_PATH}/{{grant_id:str}}", scope="self", level="A1", member_token=True)
async def read_grant(
    grant_id: FromPath[str],
    connection: NamedDependency[Connection],
    caller: NamedDependency[Caller],
    now: NamedDependency[datetime],
) -> GrantView:
    """Read what a member allows you under one grant."""
    identifier = from_wire("grt", grant_id)
    check_own(caller, grant_id)
    grant = await grants.find_grant(connection, partner_id=caller.partner_id, grant_id=identifier, now=now)
    if grant is None:
        raise GrantUnknown
    return _view(grant)


@delete(f"{GRANTS_PATH}/{{grant_id:str}}", scope="self", level="A2", member_token=True, status_code=204)
async def end_grant(
    grant_id: FromPath[str],
    connection: NamedDependency[Connection],
    caller: NamedDependency[Caller],
    now: NamedDependency[datetime],
) -> None:
    """Give a grant back: its tokens and refresh tokens end with it."""
    identifier = from_wire("grt", grant_id)
    check_own(caller, grant_id)
    ended = await grants.withdraw_grant(
        connection, partner_id=caller.partner_id, grant_id=identifier, now=now
    )
    if not ended:
        raise GrantUnknown


def check_own(caller: Caller, grant_id: str) -> None:
    """A member's token knows its own grant only."""
    if caller.subject is not None and caller.grant_id != grant_id:
        raise GrantUnknown


def _view(grant: Consent) -> GrantView:
    return GrantView(
        grant_id=to_wire("grt", grant.id),
        scopes=[{"scope": " ".join(grant.scopes)}] if grant.scopes else [],
        authorization_details=to_claims(grant.authorization_details),
        purposes=grant.purposes,
        data_kinds=grant.data_kinds,
        granted_at=grant.granted_at,
        ends_on=grant.ends_on,
    )


def refuse(outcome: TokenRefused) -> Response[Any]:
    """RFC 6749 §5.2."""
    error = TokenError(error=outcome.error, error_description=outcome.description)
    return Response(error, status_code=outcome.status, headers=refusal_headers(outcome))


routes = [push_authorization_request, authorize, introspect, revoke, read_grant, end_grant]
