"""The mobile issuer over HTTP: metadata, authorization, tokens, revocation."""

from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl

from litestar import Request, Response, get, post
from litestar.di import NamedDependency
from msgspec import Struct

from kernel.database import Connection
from partners.mobile import discovery, handlers_consents, handlers_member, rules
from partners.mobile.logins import LoginBegun, LoginRefused, begin_login
from partners.mobile.model import TokensIssued
from partners.mobile.tokens import Bank, request_tokens, revoke_token
from partners.oauth.error_page import ErrorPages
from partners.oauth.handlers import CACHEABLE, NO_STORE, TokenError
from partners.oauth.handlers_flow import INTERACTIONS_PATH, refuse


class MobileTokens(Struct, frozen=True, kw_only=True):
    """An access token bound to the phone's key, and the refresh token that makes the next one."""

    access_token: str
    token_type: str
    expires_in: int
    refresh_token: str
    scope: str


@get("/.well-known/oauth-authorization-server/mobile", public=True)
async def read_mobile_server_metadata(base_url: NamedDependency[str]) -> Response[dict[str, Any]]:
    """What the mobile issuer can do (RFC 8414)."""
    return Response(discovery.describe_server(base_url=base_url), headers=CACHEABLE)


@get(f"/.well-known/oauth-protected-resource{rules.RESOURCE_PATH}", public=True)
async def read_mobile_resource_metadata(base_url: NamedDependency[str]) -> Response[dict[str, Any]]:
    """What the mobile API asks of a caller (RFC 9728)."""
    return Response(discovery.describe_resource(base_url=base_url), headers=CACHEABLE)


@get(rules.AUTHORIZE_PATH, public=True)
async def log_in_with_the_app(
    request: Request[Any, Any, Any],
    connection: NamedDependency[Connection],
    base_url: NamedDependency[str],
    error_pages: NamedDependency[ErrorPages],
    now: NamedDependency[datetime],
) -> Response[str]:
    """Send the member's browser here to log in with the app; the bank's own pages follow, and then the app's address."""
    pairs = parse_qsl(request.scope["query_string"].decode("latin-1"), keep_blank_values=True)
    query = dict(pairs)
    language = request.headers.get("accept-language", "")
    # RFC 6749 §3.1: no parameter twice.
    if len(query) != len(pairs):
        return error_pages.show("a parameter is given twice", accept_language=language)
    begun = await begin_login(connection, query=query, base_url=base_url, now=now)
    match begun:
        case LoginBegun(handle=handle):
            return _see_other(f"{INTERACTIONS_PATH}/{handle}")
        case LoginRefused(url=url):
            return _see_other(url)
        case None:
            return error_pages.show("client_id or redirect_uri is not registered", accept_language=language)


@post(rules.TOKEN_PATH, public=True, status_code=200)
async def issue_mobile_tokens(
    request: Request[Any, Any, Any],
    connection: NamedDependency[Connection],
    bank: NamedDependency[Bank],
    now: NamedDependency[datetime],
) -> Response[MobileTokens | TokenError]:
    """Exchange a code or a refresh token, with a DPoP proof of the phone's key; each refresh token makes the next one."""
    outcome = await request_tokens(
        connection,
        bank,
        body=await request.body(),
        content_type=request.headers.get("content-type", ""),
        proofs=request.headers.getall("dpop", []),
        now=now,
    )
    if isinstance(outcome, TokensIssued):
        answer = MobileTokens(
            access_token=outcome.access_token,
            token_type=outcome.token_type,
            expires_in=outcome.expires_in,
            refresh_token=outcome.refresh_token,
            scope=outcome.scope,
        )
        return Response(answer, status_code=200, headers=NO_STORE)
    return refuse(outcome)


@post(rules.REVOCATION_PATH, public=True, status_code=200)
async def end_mobile_session(
    request: Request[Any, Any, Any],
    connection: NamedDependency[Connection],
    bank: NamedDependency[Bank],
    now: NamedDependency[datetime],
) -> Response[dict[str, Any] | TokenError]:
    """Log out: end the session of a token (RFC 7009); unknown ones are 200 as well."""
    outcome = await revoke_token(
        connection,
        bank,
        body=await request.body(),
        content_type=request.headers.get("content-type", ""),
        now=now,
    )
    return Response({}, status_code=200, headers=NO_STORE) if outcome is None else refuse(outcome)


def _see_other(address: str) -> Response[str]:
    # RFC 9700 §4.12: 303, so that nothing of a form is sent on; never 307.
    return Response("", status_code=303, media_type="text/plain", headers={"location": address})


routes = [
    read_mobile_server_metadata,
    read_mobile_resource_metadata,
    log_in_with_the_app,
    issue_mobile_tokens,
    end_mobile_session,
    *handlers_member.routes,
    *handlers_consents.routes,
]
