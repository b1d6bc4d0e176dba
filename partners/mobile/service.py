"""The bank's apps: registered by an operator, switched off at once; and what time has ended is forgotten."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import asyncpg

from kernel import audit
from kernel.audit import AuditRecord
from kernel.database import Connection
from kernel.errors import Absent, Conflict, Unprocessable
from kernel.ids import new_id, to_wire
from partners.mobile import queries
from partners.mobile.model import App
from partners.mobile.rules import CLIENT_ID, IDLE, PAGE_LIFE, REDIRECTS_MAX, check_redirect_uri
from partners.mobile.scopes import MOBILE_SCOPES

#: so long a code or refresh token that comes a second time is still known for one
MEMORY = timedelta(days=1)


class AppNameTaken(Conflict):
    """There is an app of this name already."""


class AppRedirectsMissing(Unprocessable):
    """An app has from one to sixteen addresses it is returned to."""


async def register_app(
    connection: Connection,
    *,
    name_zh: str,
    name_en: str,
    redirect_uris: Sequence[str],
    scopes: Sequence[str] = tuple(MOBILE_SCOPES),
    actor: str,
    now: datetime,
) -> App:
    """A public client of the mobile issuer."""
    if not 1 <= len(redirect_uris) <= REDIRECTS_MAX:
        raise AppRedirectsMissing
    for uri in redirect_uris:
        check_redirect_uri(uri)
    app = App(
        client_id=to_wire("mob", new_id(now)),
        name_zh=name_zh,
        name_en=name_en,
        redirect_uris=list(redirect_uris),
        scopes=sorted(scopes),
        status="active",
    )
    try:
        await queries.insert_app(connection, app, now=now)
    except asyncpg.UniqueViolationError:
        raise AppNameTaken from None
    await _note(connection, app.client_id, "mobile.app_registered", actor=actor, now=now)
    return app


async def switch_off_app(connection: Connection, *, client_id: str, actor: str, now: datetime) -> None:
    """From the commit on nobody logs in with it, and none of its tokens is taken."""
    if not await queries.set_app_status(connection, client_id, "inactive"):
        raise Absent
    await _note(connection, client_id, "mobile.app_switched_off", actor=actor, now=now)


async def find_app(connection: Connection, client_id: str) -> App | None:
    """The app of this name, if it is active."""
    if CLIENT_ID.fullmatch(client_id) is None:
        return None
    app = await queries.find_app(connection, client_id)
    return app if app is not None and app.status == "active" else None


async def list_apps(connection: Connection) -> list[App]:
    """Every app, switched off or not."""
    return await queries.list_apps(connection)


async def forget_old(connection: Connection, *, now: datetime) -> None:
    """Drop logins, sessions and refresh tokens that decide nothing any more, some rows at a time."""
    await queries.forget_unanswered(connection, before=now - PAGE_LIFE - PAGE_LIFE)
    await queries.forget_logins(connection, before=now - MEMORY)
    await queries.forget_refresh(connection, before=now - IDLE - MEMORY)
    await queries.forget_sessions(connection, before=now - IDLE - MEMORY)


async def _note(connection: Connection, client_id: str, action: str, *, actor: str, now: datetime) -> None:
    record = AuditRecord(actor=actor, action=action, subject=client_id, detail={})
    await audit.append(connection, record, partner_id=None, now=now)
