"""A member logs in with the bank's app: the authorization endpoint, the bank's pages, and back with a code.

The pages are those of the partner issuer, without a consent: what the member uses is the bank's own.
"""

import secrets
from collections.abc import Mapping
from datetime import datetime

from msgspec import Struct

from kernel.caller import MemberRef
from kernel.database import Connection
from kernel.ids import new_id
from kernel.vault import sha256
from partners.mobile import queries, rules, service
from partners.mobile.model import Login
from partners.oauth.grants import Authentication
from partners.oauth.interaction import (
    HANDLE_LENGTH_MAX,
    AnsweredMeanwhile,
    Interaction,
    InteractionGone,
    address_of,
)
from partners.oauth.rules import RequestRefused


class LoginBegun(Struct, frozen=True, kw_only=True):
    """The page's secret: who knows it is the browser that asked."""

    handle: str


class LoginRefused(Struct, frozen=True, kw_only=True):
    """Where the refusal is told (RFC 6749 §4.1.2.1)."""

    url: str


async def begin_login(
    connection: Connection, *, query: Mapping[str, str], base_url: str, now: datetime
) -> LoginBegun | LoginRefused | None:
    """A page for a good request; None where there is no address to tell a refusal to."""
    app = await service.find_app(connection, query.get("client_id", ""))
    # OAuth 2.1 §4.1.1: an unknown client or address is never followed; addresses are compared character by character.
    if app is None or query.get("redirect_uri") not in app.redirect_uris:
        return None
    if not rules.is_storable_state(query.get("state")):
        return None
    try:
        document = rules.read_login(query, app, base_url=base_url)
    except RequestRefused as refused:
        url = address_of(
            query["redirect_uri"],
            {"error": refused.error, "error_description": refused.description},
            state=query.get("state"),
            issuer=base_url + rules.ISSUER_PATH,
        )
        return LoginRefused(url=url)
    handle = secrets.token_urlsafe(32)
    await queries.insert_login(
        connection,
        login_id=new_id(now),
        client_id=app.client_id,
        handle_hash=sha256(handle),
        document=document,
        expires_at=now + rules.PAGE_LIFE,
        now=now,
    )
    return LoginBegun(handle=handle)


async def find_login(connection: Connection, *, handle: str, now: datetime) -> Interaction | None:
    """The open login behind a page, or None; may be asked as often as the page is loaded."""
    login = await _find(connection, handle, now=now)
    if login is None:
        return None
    app = await service.find_app(connection, login.client_id)
    if app is None:
        return None
    return Interaction(
        id=login.id,
        partner_name_zh=app.name_zh,
        partner_name_en=app.name_en,
        partner_contact="",
        scopes=login.document.scopes,
        purposes=[],
        data_kinds=[],
        authorization_details=[],
        sensitive=False,
        ends_on=login.expires_at.date(),
        ui_locales=login.document.ui_locales,
        redirect_uri=login.document.redirect_uri,
        expires_at=login.expires_at,
        first_party=True,
    )


async def complete_login(
    connection: Connection,
    *,
    handle: str,
    member: MemberRef,
    authentication: Authentication,
    now: datetime,
) -> str:
    """Use the page up; returns where the app waits, with a code of 256 random bits."""
    login = await _find_open(connection, handle, now=now)
    code = secrets.token_urlsafe(32)
    approved = await queries.approve_login(
        connection,
        login.id,
        code_hash=sha256(code),
        code_expires_at=now + rules.CODE_LIFE,
        member_id=member.member_id,
        bucket=member.bucket,
        authenticated_at=authentication.at,
        methods=authentication.methods,
        now=now,
    )
    if not approved:
        raise AnsweredMeanwhile
    return _back(login, {"code": code})


async def deny_login(connection: Connection, *, handle: str, now: datetime) -> str:
    """Use the page up without a code; returns where the app waits."""
    login = await _find_open(connection, handle, now=now)
    if not await queries.deny_login(connection, login.id, now=now):
        raise AnsweredMeanwhile
    refusal = {"error": "access_denied", "error_description": "the member did not log in"}
    return _back(login, refusal)


async def _find_open(connection: Connection, handle: str, *, now: datetime) -> Login:
    login = await _find(connection, handle, now=now)
    if login is None or await service.find_app(connection, login.client_id) is None:
        raise InteractionGone
    return login


async def _find(connection: Connection, handle: str, *, now: datetime) -> Login | None:
    if not 0 < len(handle) <= HANDLE_LENGTH_MAX or not handle.isascii():
        return None
    return await queries.find_login(connection, sha256(handle), now=now)


def _back(login: Login, answer: dict[str, str]) -> str:
    return address_of(
        login.document.redirect_uri,
        answer,
        state=login.document.state,
        issuer=login.document.issuer,
    )
