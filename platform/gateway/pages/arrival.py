"""After the second factor: on to the consent, in a browser that is known from now on."""

from datetime import datetime

from litestar import Response

from gateway.pages import flow
from gateway.pages.browser import keep_browser, keep_device
from gateway.pages.look import redirect
from kernel.database import Connection
from partners.login import service
from partners.login.model import Session
from partners.login.service import new_secret


async def logged_in(
    connection: Connection, matter: flow.Matter, session: Session, browser: str, now: datetime
) -> Response[str]:
    """On to the consent, in a browser that is known from now on."""
    cookies = [keep_browser(matter.visit.handle, browser)]
    if await flow.own_device(connection, matter.of(session), now=now) is None:
        assert session.account_id is not None, "a login that is complete is somebody's"
        secret = new_secret()
        await service.bind_device(connection, account_id=session.account_id, secret=secret, now=now)
        cookies.append(keep_device(secret))
    return redirect(matter.here, cookies=tuple(cookies))
