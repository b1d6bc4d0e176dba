"""After the second factor: on to the consent, in a browser that is known from now on."""

from datetime import datetime

from litestar import Response

from gateway.pages import flow
from gateway.pages.browser import drop_browser, keep_browser, keep_device
from gateway.pages.look import redirect
from kernel.database import Connection
from partners.login import service
from partners.login.model import Session
from partners.login.service import new_secret
from partners.mobile.logins import complete_login, deny_login
from partners.oauth.grants import Authentication
from partners.oauth.interaction import deny_interaction


async def logged_in(
    connection: Connection, matter: flow.Matter, session: Session, browser: str, now: datetime
) -> Response[str]:
    """On to the consent, or back to the bank's own app, in a browser that is known from now on."""
    cookies = [keep_browser(matter.visit.handle, browser)]
    if await flow.own_device(connection, matter.of(session), now=now) is None:
        assert session.account_id is not None, "a login that is complete is somebody's"
        secret = new_secret()
        await service.bind_device(connection, account_id=session.account_id, secret=secret, now=now)
        cookies.append(keep_device(secret))
    if matter.interaction.first_party:
        back = await return_to_app(connection, matter, session, now=now)
        return redirect(back, cookies=(drop_browser(matter.visit.handle), *cookies[1:]))
    return redirect(matter.here, cookies=tuple(cookies))


async def turn_down(connection: Connection, matter: flow.Matter, *, now: datetime) -> str:
    """The member leaves; returns where to."""
    handle = matter.visit.handle
    if matter.interaction.first_party:
        return await deny_login(connection, handle=handle, now=now)
    return await deny_interaction(connection, handle=handle, now=now)


async def return_to_app(
    connection: Connection, matter: flow.Matter, session: Session, *, now: datetime
) -> str:
    """Of the bank's own app nothing is asked after the login; returns where the app waits, with a code."""
    proved = await service.finish(connection, session, now=now)
    return await complete_login(
        connection,
        handle=matter.visit.handle,
        member=proved.member,
        authentication=Authentication(at=proved.at, methods=proved.methods),
        now=now,
    )
