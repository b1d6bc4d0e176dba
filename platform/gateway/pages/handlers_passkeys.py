"""Passkeys in the browser: shown in place of a code, and added after a complete login."""

from datetime import datetime
from typing import Any

from litestar import Request, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath

from gateway.pages import flow
from gateway.pages.arrival import logged_in
from gateway.pages.browser import check_own_form, read_form, read_visit
from gateway.pages.flow import PAGE
from gateway.pages.look import redirect
from gateway.pages.troubles import TROUBLES
from gateway.runtime import Runtime
from kernel.database import Connection
from partners.login import passkeys, service
from partners.login.model import Step
from partners.login.service import new_secret

Browser = Request[Any, Any, Any]
Page = Response[str]


@post(f"{PAGE}/passkey", public=True, include_in_schema=False, exception_handlers=TROUBLES)
async def post_passkey(
    request: Browser,
    handle: FromPath[str],
    connection: NamedDependency[Connection],
    runtime: NamedDependency[Runtime],
    now: NamedDependency[datetime],
) -> Page:
    """The second factor, shown by this device."""
    check_own_form(request, runtime.base_url)
    visit, form = read_visit(request, handle), read_form(request)
    matter = await flow.continue_(connection, runtime, visit, now=now)
    if matter.session.stage != "password" or matter.party is None:
        return redirect(matter.here)
    browser = new_secret()
    outcome = await passkeys.try_passkey(
        connection,
        matter.session,
        response=form.get("credential", ""),
        device=await service.find_device(connection, visit.device, now=now),
        party=matter.party,
        browser=browser,
        now=now,
    )
    if isinstance(outcome, Step):
        problem, status = flow.PASSKEY_PROBLEMS[outcome]
        return await flow.factor_page(connection, matter, "passkey", problem=problem, status=status, now=now)
    return await logged_in(connection, matter, outcome, browser, now)


@get(
    f"{PAGE}/new_passkey",
    public=True,
    include_in_schema=False,
    exception_handlers=TROUBLES,
)
async def show_new_passkey(
    request: Browser,
    handle: FromPath[str],
    connection: NamedDependency[Connection],
    runtime: NamedDependency[Runtime],
    now: NamedDependency[datetime],
) -> Page:
    """Offer to add a passkey on this device."""
    visit = read_visit(request, handle)
    matter = await flow.continue_(connection, runtime, visit, now=now)
    return await flow.new_passkey_page(connection, matter, now=now)


@post(
    f"{PAGE}/new_passkey",
    public=True,
    include_in_schema=False,
    exception_handlers=TROUBLES,
)
async def post_new_passkey(
    request: Browser,
    handle: FromPath[str],
    connection: NamedDependency[Connection],
    runtime: NamedDependency[Runtime],
    now: NamedDependency[datetime],
) -> Page:
    """Keep the passkey that this device made."""
    check_own_form(request, runtime.base_url)
    visit, form = read_visit(request, handle), read_form(request)
    matter = await flow.continue_(connection, runtime, visit, now=now)
    device = await flow.own_device(connection, matter, now=now)
    if device is None or matter.party is None:
        return redirect(matter.here)
    added = await passkeys.add_passkey(
        connection,
        matter.session,
        response=form.get("credential", ""),
        device=device,
        party=matter.party,
        now=now,
    )
    if added is Step.PASSED:
        return redirect(matter.here)
    return await flow.new_passkey_page(connection, matter, problem="passkey_not_added", status=422, now=now)


routes = [post_passkey, show_new_passkey, post_new_passkey]
