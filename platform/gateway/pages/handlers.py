"""The steps of a login and of a consent as a browser takes them: GET shows where the member is, POST takes one step.

A POST that succeeded answers 303 back to the page, one that did not shows the same page with what is wrong. The
password is looked at outside any transaction: its count is committed before, the new stage after.
"""

from datetime import datetime
from typing import Any

import structlog
from litestar import Request, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath

from gateway.pages import flow, handlers_passkeys
from gateway.pages.arrival import logged_in, turn_down
from gateway.pages.browser import (
    check_own_form,
    drop_browser,
    keep_browser,
    read_form,
    read_visit,
)
from gateway.pages.flow import PAGE
from gateway.pages.look import ADDRESS, CONTENT, STATIC, STATIC_PATH, redirect
from gateway.pages.troubles import TROUBLES
from gateway.requests import Passage
from gateway.runtime import Runtime
from kernel.database import Connection, transaction
from kernel.errors import Absent
from partners.login import codes, service
from partners.login.model import Session, Step
from partners.login.service import new_secret
from partners.oauth.grants import Authentication
from partners.oauth.interaction import approve_interaction

log = structlog.get_logger("pages")

Browser = Request[Any, Any, Any]
Page = Response[str]


@get(PAGE, public=True, include_in_schema=False, exception_handlers=TROUBLES)
async def show_page(
    request: Browser,
    handle: FromPath[str],
    connection: NamedDependency[Connection],
    runtime: NamedDependency[Runtime],
    now: NamedDependency[datetime],
) -> Page:
    """Where the member is: password, second factor or consent. The first visit binds the matter to the browser."""
    visit = read_visit(request, handle)
    matter, fresh = await flow.enter(connection, runtime, visit, now=now)
    return await flow.show(
        connection,
        matter,
        wish=request.query_params.get("factor"),
        cookies=(keep_browser(handle, fresh),) if fresh else (),
        now=now,
    )


@post(f"{PAGE}/password", public=True, include_in_schema=False, exception_handlers=TROUBLES)
async def post_password(
    request: Browser, handle: FromPath[str], runtime: NamedDependency[Runtime], now: NamedDependency[datetime]
) -> Page:
    """The first factor; a code is sent at once unless this device has a passkey."""
    check_own_form(request, runtime.base_url)
    visit, form = read_visit(request, handle), read_form(request)
    async with transaction(runtime.pool) as connection:
        matter = await flow.continue_(connection, runtime, visit, now=now)
        if matter.session.stage != "new":
            return redirect(matter.here)
        trial = await service.try_password(
            connection,
            login=form.get("login", ""),
            device_secret=visit.device,
            address=visit.address,
            vault=runtime.vault,
            now=now,
        )
    if isinstance(trial, Step):
        log.warning("login_locked", request_id=Passage.of(request.scope).request_id)
        return flow.password_page(matter, problem="locked", status=429)
    verdict = await runtime.passwords.look_at(trial.stored, form.get("password", ""))
    browser = new_secret()
    async with transaction(runtime.pool) as connection:
        passed = await service.pass_password(
            connection, matter.session, trial, verdict, browser=browser, now=now
        )
        if isinstance(passed, Session) and await flow.needs_code(connection, matter.of(passed), now=now):
            await codes.send_code(
                connection, passed, sender=runtime.code_sender, vault=runtime.vault, now=now
            )
    if isinstance(passed, Step):
        return flow.password_page(matter, problem="wrong_password", status=422)
    return redirect(matter.here, cookies=(keep_browser(handle, browser),))


@post(f"{PAGE}/new_code", public=True, include_in_schema=False, exception_handlers=TROUBLES)
async def post_new_code(
    request: Browser,
    handle: FromPath[str],
    connection: NamedDependency[Connection],
    runtime: NamedDependency[Runtime],
    now: NamedDependency[datetime],
) -> Page:
    """Send another code."""
    check_own_form(request, runtime.base_url)
    visit = read_visit(request, handle)
    matter = await flow.continue_(connection, runtime, visit, now=now)
    if matter.session.stage != "password":
        return redirect(matter.here)
    sent = await codes.send_code(
        connection, matter.session, sender=runtime.code_sender, vault=runtime.vault, now=now
    )
    if sent is Step.PASSED:
        return redirect(f"{matter.here}&factor=code")
    return await flow.factor_page(connection, matter, "code", problem="sends_locked", status=429, now=now)


@post(
    [f"{PAGE}/code", f"{PAGE}/app_code"],
    public=True,
    include_in_schema=False,
    exception_handlers=TROUBLES,
)
async def post_code(
    request: Browser,
    handle: FromPath[str],
    connection: NamedDependency[Connection],
    runtime: NamedDependency[Runtime],
    now: NamedDependency[datetime],
) -> Page:
    """The second factor, typed: the code that was sent, or the one an authenticator app shows."""
    check_own_form(request, runtime.base_url)
    visit, form = read_visit(request, handle), read_form(request)
    matter = await flow.continue_(connection, runtime, visit, now=now)
    if matter.session.stage != "password":
        return redirect(matter.here)
    by_app = request.url.path.endswith("/app_code")
    attempt = codes.try_app_code if by_app else codes.try_code
    browser = new_secret()
    outcome = await attempt(
        connection,
        matter.session,
        code=form.get("code", ""),
        browser=browser,
        vault=runtime.vault,
        now=now,
    )
    if isinstance(outcome, Step):
        problem, status = flow.CODE_PROBLEMS[outcome]
        factor = "app" if by_app else "code"
        return await flow.factor_page(connection, matter, factor, problem=problem, status=status, now=now)
    return await logged_in(connection, matter, outcome, browser, now)


@post(f"{PAGE}/consent", public=True, include_in_schema=False, exception_handlers=TROUBLES)
async def post_consent(
    request: Browser,
    handle: FromPath[str],
    connection: NamedDependency[Connection],
    runtime: NamedDependency[Runtime],
    now: NamedDependency[datetime],
) -> Page:
    """The member's answer. To decline takes no login; to agree takes a complete one."""
    check_own_form(request, runtime.base_url)
    visit, form = read_visit(request, handle), read_form(request)
    matter = await flow.continue_(connection, runtime, visit, now=now)
    decision = form.get("decision")
    if decision == "deny":
        await service.give_up(connection, matter.session)
        back = await turn_down(connection, matter, now=now)
        return redirect(back, cookies=(drop_browser(handle),))
    if decision != "approve" or matter.session.stage != "done" or matter.interaction.first_party:
        return redirect(matter.here)
    given = form.get("sensitive") == "yes"
    if matter.interaction.sensitive and not given:
        return await flow.consent_page(connection, matter, problem="sensitive_needed", status=422, now=now)
    proved = await service.finish(connection, matter.session, now=now)
    back = await approve_interaction(
        connection,
        handle=handle,
        member=proved.member,
        authentication=Authentication(at=proved.at, methods=proved.methods),
        sensitive_given=given,
        now=now,
    )
    return redirect(back, cookies=(drop_browser(handle),))


@get(f"{PAGE}/decline", public=True, include_in_schema=False, exception_handlers=TROUBLES)
async def show_decline(
    request: Browser,
    handle: FromPath[str],
    connection: NamedDependency[Connection],
    runtime: NamedDependency[Runtime],
    now: NamedDependency[datetime],
) -> Page:
    """Leave without a login."""
    visit = read_visit(request, handle)
    return flow.decline_page(await flow.continue_(connection, runtime, visit, now=now))


@get(f"{STATIC_PATH}/{{name:str}}", public=True, include_in_schema=False)
async def show_static(name: FromPath[str]) -> Response[bytes]:
    """The style and the one script of the pages."""
    if name not in ADDRESS:
        raise Absent
    headers = {"cache-control": "public, max-age=31536000, immutable"}
    return Response(CONTENT[name], media_type=STATIC[name], headers=headers)


routes = [
    show_page,
    post_password,
    post_new_code,
    post_code,
    post_consent,
    show_decline,
    show_static,
    *handlers_passkeys.routes,
]
