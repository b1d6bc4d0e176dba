"""The bank's pages over HTTP: who may take which step, what a browser is told, and that nothing leaks."""

import asyncio
import logging
import re
from collections.abc import AsyncGenerator
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit
from uuid import uuid4

import httpx
import pyotp
import pytest
from waiting import HEALTH, PLAN, SPEND, TAX, Member, Waiting, enrol, push

from gateway.app import ROUTES
from gateway.edge import Edge
from gateway.pages.browser import DEVICE_COOKIE, browser_cookie
from gateway.pages.consent import percent, yuan
from gateway.pages.language import preferred_locale
from gateway.pages.look import ADDRESS, SCRIPT, STYLE, render_error_page
from gateway.pages.wording import LOCALES, TEXTS, VALUES
from gateway.runtime import Runtime
from kernel.database import transaction
from partners.login.delivery import list_messages
from partners.login.rules import LIMITS

ORIGIN = "http://127.0.0.1:8080"
TOTP = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"


class Visitor:
    """A browser without scripts: keeps cookies, names its origin, follows nothing by itself."""

    def __init__(self, http: httpx.AsyncClient, language: str = "zh-CN") -> None:
        self._http = http
        self._language = language
        self.cookies: dict[str, str] = {}

    async def get(self, path: str, **headers: str) -> httpx.Response:
        return self._keep(await self._http.get(path, headers=self._headers() | headers))

    async def post(
        self, path: str, form: dict[str, str] | None = None, *, origin: str | None = ORIGIN, **headers: str
    ) -> httpx.Response:
        sent = self._headers() | {"content-type": "application/x-www-form-urlencoded"}
        sent |= {"origin": origin} if origin is not None else {}
        body = urlencode(form or {})
        return self._keep(await self._http.post(path, content=body, headers=sent | headers))

    def _headers(self) -> dict[str, str]:
        cookies = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        return {"accept-language": self._language} | ({"cookie": cookies} if cookies else {})

    def _keep(self, answer: httpx.Response) -> httpx.Response:
        for header in answer.headers.get_list("set-cookie"):
            name, _, value = header.partition(";")[0].partition("=")
            self.cookies[name] = value.strip('"')
        return answer


@pytest.fixture
def visitor(http: httpx.AsyncClient) -> Visitor:
    return Visitor(http)


async def ask(runtime: Runtime, **changes: Any) -> Waiting:
    async with transaction(runtime.pool) as connection:
        return await push(connection, vault=runtime.vault, now=runtime.clock.now(), **changes)


@pytest.fixture
async def member(runtime: Runtime) -> Member:
    async with transaction(runtime.pool) as connection:
        return await enrol(connection, vault=runtime.vault, totp_secret=TOTP, now=runtime.clock.now())


@pytest.fixture
async def waiting(runtime: Runtime) -> Waiting:
    return await ask(runtime)


async def code_of(runtime: Runtime, member: Member) -> str:
    async with transaction(runtime.pool) as connection:
        found = await list_messages(connection, login=member.login, vault=runtime.vault)
    assert found
    return found[0][1].removeprefix("验证码 ")[:6]


async def state_of(runtime: Runtime, waiting: Waiting) -> str:
    async with transaction(runtime.pool) as connection:
        return str(
            await connection.fetchval("SELECT state FROM oauth_request WHERE id = $1", waiting.request_id)
        )


async def log_in(runtime: Runtime, visitor: Visitor, waiting: Waiting, member: Member) -> None:
    """To the consent page, by password and code."""
    await visitor.get(waiting.path)
    form = {"login": member.login, "password": member.password}
    assert (await visitor.post(f"{waiting.path}/password", form)).status_code == 303
    form = {"code": await code_of(runtime, member)}
    assert (await visitor.post(f"{waiting.path}/code", form)).status_code == 303


async def test_a_member_logs_in_and_agrees(
    runtime: Runtime, visitor: Visitor, waiting: Waiting, member: Member
) -> None:
    await log_in(runtime, visitor, waiting, member)
    shown = await visitor.get(waiting.path)
    for text in ("晨光商城", "400-000-0101", "提供会员服务", "积分余额和明细", "2027年11月26日", "撤回"):
        assert text in shown.text
    answered = await visitor.post(f"{waiting.path}/consent", {"decision": "approve"})
    assert answered.status_code == 303
    back = urlsplit(answered.headers["location"])
    assert (back.scheme, back.netloc, back.path) == ("https", "shop.example", "/callback")
    assert set(parse_qs(back.query)) == {"code", "state", "iss"}
    assert await state_of(runtime, waiting) == "approved"
    async with transaction(runtime.pool) as connection:
        given = await connection.fetchrow(
            "SELECT * FROM oauth_consent_given WHERE request_id = $1", waiting.request_id
        )
        granted = await connection.fetchrow(
            "SELECT * FROM oauth_consent WHERE partner_id = $1", waiting.partner_id
        )
    assert given is not None and granted is not None
    assert granted["member_id"] == member.ref.member_id
    assert given["methods"] == ["pwd", "otp"]


async def test_a_form_that_is_sent_twice_in_a_row_goes_where_it_went_once(
    runtime: Runtime, http: httpx.AsyncClient, waiting: Waiting, member: Member
) -> None:
    visitor, form = Visitor(http), {"login": member.login, "password": member.password}
    await visitor.get(waiting.path)
    hasty = [Visitor(http) for _ in range(3)]
    for each in hasty:
        each.cookies = dict(visitor.cookies)
    answers = await asyncio.gather(*(each.post(f"{waiting.path}/password", form) for each in hasty))
    assert 303 in [answer.status_code for answer in answers]
    last = [each for each in hasty if "验证码" in (await each.get(waiting.path)).text]
    assert len(last) == 1, "one cookie is good, the one that was set last"
    async with transaction(runtime.pool) as connection:
        sent = await connection.fetchval(
            "SELECT count(*) FROM login_message WHERE account_id = $1", member.account_id
        )
    assert sent == 1
    form = {"code": await code_of(runtime, member)}
    assert (await last[0].post(f"{waiting.path}/code", form)).status_code == 303


async def test_to_decline_takes_no_login(runtime: Runtime, visitor: Visitor, waiting: Waiting) -> None:
    await visitor.get(waiting.path)
    answered = await visitor.post(f"{waiting.path}/consent", {"decision": "deny"})
    assert answered.status_code == 303
    assert parse_qs(urlsplit(answered.headers["location"]).query)["error"] == ["access_denied"]
    assert await state_of(runtime, waiting) == "denied"
    assert (await visitor.get(waiting.path)).status_code == 404


async def test_to_agree_takes_a_complete_login(
    runtime: Runtime, visitor: Visitor, waiting: Waiting, member: Member
) -> None:
    await visitor.get(waiting.path)
    early = await visitor.post(f"{waiting.path}/consent", {"decision": "approve"})
    await visitor.post(f"{waiting.path}/password", {"login": member.login, "password": member.password})
    half = await visitor.post(f"{waiting.path}/consent", {"decision": "approve"})
    for answer in (early, half):
        assert (answer.status_code, answer.headers["location"]) == (303, f"{waiting.path}?lang=zh")
    assert await state_of(runtime, waiting) == "pushed"


@pytest.mark.parametrize("form", [{}, {"decision": ""}, {"decision": "yes"}, {"approve": "approve"}])
async def test_nothing_but_the_word_itself_is_consent(
    runtime: Runtime, visitor: Visitor, waiting: Waiting, member: Member, form: dict[str, str]
) -> None:
    await log_in(runtime, visitor, waiting, member)
    await visitor.post(f"{waiting.path}/consent", form)
    assert await state_of(runtime, waiting) == "pushed"


async def test_an_answer_is_given_once(
    runtime: Runtime, visitor: Visitor, waiting: Waiting, member: Member
) -> None:
    await log_in(runtime, visitor, waiting, member)
    kept = dict(visitor.cookies)
    await visitor.post(f"{waiting.path}/consent", {"decision": "approve"})
    visitor.cookies = kept
    for decision in ("approve", "deny"):
        again = await visitor.post(f"{waiting.path}/consent", {"decision": decision})
        assert again.status_code == 404 and "location" not in again.headers
    assert await state_of(runtime, waiting) == "approved"


async def test_of_many_answers_at_once_one_is_taken(
    runtime: Runtime, http: httpx.AsyncClient, visitor: Visitor, waiting: Waiting, member: Member
) -> None:
    await log_in(runtime, visitor, waiting, member)
    crowd = [Visitor(http) for _ in range(20)]
    for each in crowd:
        each.cookies = dict(visitor.cookies)
    answers = await asyncio.gather(
        *(each.post(f"{waiting.path}/consent", {"decision": "approve"}) for each in crowd)
    )
    assert min(answer.status_code for answer in answers) == 303
    assert sum("location" in answer.headers for answer in answers) == 1
    async with transaction(runtime.pool) as connection:
        grants = await connection.fetchval(
            "SELECT count(*) FROM oauth_consent WHERE partner_id = $1", waiting.partner_id
        )
    assert grants == 1


@pytest.mark.parametrize("given", ["", "no", "on", "yes"])
async def test_pipl_29_sensitive_data_takes_a_separate_consent_that_nobody_ticked_before(
    runtime: Runtime, visitor: Visitor, member: Member, given: str
) -> None:
    waiting = await ask(runtime, sensitive=True, details=(TAX, HEALTH))
    await log_in(runtime, visitor, waiting, member)
    shown = (await visitor.get(waiting.path)).text
    (box,) = re.findall(r"<input type=\"checkbox\"[^>]*>", shown)
    assert "checked" not in box
    for text in ("单独同意", "2024、2025 年度：申报收入、已缴税额", "就诊日期、就诊科室"):
        assert text in shown
    answered = await visitor.post(f"{waiting.path}/consent", {"decision": "approve", "sensitive": given})
    if given == "yes":
        assert answered.status_code == 303 and await state_of(runtime, waiting) == "approved"
    else:
        assert answered.status_code == 422 and 'role="alert"' in answered.text
        assert await state_of(runtime, waiting) == "pushed"


async def test_an_instalment_is_shown_with_its_whole_cost(
    runtime: Runtime, http: httpx.AsyncClient, member: Member
) -> None:
    waiting = await ask(runtime, details=(PLAN, SPEND))
    visitor = Visitor(http, "en")
    await log_in(runtime, visitor, waiting, member)
    text = (await visitor.get(waiting.path)).text
    for expected in (
        "¥12,999.00",
        "<dd>12</dd>",
        "¥13,967.04",
        "Annual rate (simple)",
        "13.8418%",
        "Annual rate (compound, IRR)",
        "14.75%",
        "20,000 points",
        "26 November 2027",
    ):
        assert expected in text


async def test_a_request_about_one_member_is_not_answered_by_another(
    runtime: Runtime, visitor: Visitor, member: Member
) -> None:
    waiting = await ask(runtime, details=(PLAN,), member_id=member.ref.member_id + 1)
    await log_in(runtime, visitor, waiting, member)
    answered = await visitor.post(f"{waiting.path}/consent", {"decision": "approve"})
    assert parse_qs(urlsplit(answered.headers["location"]).query)["error"] == ["access_denied"]


async def test_of_a_request_about_one_member_another_sees_nothing(
    runtime: Runtime, visitor: Visitor, member: Member
) -> None:
    waiting = await ask(runtime, details=(PLAN,), member_id=member.ref.member_id + 1)
    await log_in(runtime, visitor, waiting, member)
    shown = await visitor.get(waiting.path)
    assert shown.status_code == 403
    assert "12,999.00" not in shown.text and 'value="approve"' not in shown.text
    assert 'role="alert"' in shown.text and 'value="deny"' in shown.text
    unticked = await visitor.post(f"{waiting.path}/consent", {"decision": "deny"})
    assert parse_qs(urlsplit(unticked.headers["location"]).query)["error"] == ["access_denied"]


async def test_a_wrong_password_and_a_name_nobody_has_are_answered_alike(
    http: httpx.AsyncClient, waiting: Waiting, member: Member
) -> None:
    visitor = Visitor(http)
    await visitor.get(waiting.path)
    answers = [
        await visitor.post(f"{waiting.path}/password", {"login": login, "password": "wrong"})
        for login in (member.login, f"nobody-{uuid4().hex}")
    ]
    assert [answer.status_code for answer in answers] == [422, 422]
    assert answers[0].text == answers[1].text
    volatile = {"x-request-id", "ratelimit", "date"}
    known, unknown = ({k: v for k, v in answer.headers.items() if k not in volatile} for answer in answers)
    assert known == unknown


@pytest.mark.parametrize("known", [True, False])
async def test_too_many_guesses_lock_a_name_whether_anybody_has_it_or_not(
    runtime: Runtime, http: httpx.AsyncClient, member: Member, known: bool
) -> None:
    login = member.login if known else f"nobody-{uuid4().hex}"
    waiting = await ask(runtime)
    visitor = Visitor(http)
    await visitor.get(waiting.path)
    statuses = [
        (
            await visitor.post(f"{waiting.path}/password", {"login": login, "password": str(number)})
        ).status_code
        for number in range(LIMITS["name"].attempts + 1)
    ]
    assert statuses == [422] * LIMITS["name"].attempts + [429]
    if known:
        right = await visitor.post(f"{waiting.path}/password", {"login": login, "password": member.password})
        assert right.status_code == 429


async def test_a_guess_that_cannot_be_counted_is_not_tried(
    runtime: Runtime, visitor: Visitor, waiting: Waiting, member: Member
) -> None:
    await visitor.get(waiting.path)
    form = {"login": member.login, "password": "wrong"}
    await visitor.post(f"{waiting.path}/password", form)
    async with transaction(runtime.pool) as other:
        index = runtime.vault.blind_index("login-name", member.login)
        await other.execute("SELECT FROM login_attempt WHERE subject = $1 FOR UPDATE", index)
        refused = await visitor.post(f"{waiting.path}/password", form | {"password": member.password})
    assert refused.status_code == 503 and TEXTS["error_busy"][0] in refused.text
    passed = await visitor.post(f"{waiting.path}/password", form | {"password": member.password})
    assert passed.status_code == 303


async def test_the_cookie_changes_with_every_stage_and_the_old_one_is_worth_nothing(
    runtime: Runtime, http: httpx.AsyncClient, waiting: Waiting, member: Member
) -> None:
    visitor, name = Visitor(http), browser_cookie(waiting.handle)
    await visitor.get(waiting.path)
    first = visitor.cookies[name]
    await visitor.post(f"{waiting.path}/password", {"login": member.login, "password": member.password})
    second = visitor.cookies[name]
    await visitor.post(f"{waiting.path}/code", {"code": await code_of(runtime, member)})
    third = visitor.cookies[name]
    assert len({first, second, third}) == 3
    for planted in (first, second):
        thief = Visitor(http)
        thief.cookies[name] = planted
        assert (await thief.get(waiting.path)).status_code == 409
        assert (await thief.post(f"{waiting.path}/consent", {"decision": "approve"})).status_code == 409


@pytest.mark.parametrize("cookie", [None, "", "x" * 43, "../../etc"])
async def test_a_matter_belongs_to_the_browser_that_opened_it_first(
    http: httpx.AsyncClient, waiting: Waiting, cookie: str | None
) -> None:
    first, second = Visitor(http), Visitor(http)
    assert (await first.get(waiting.path)).status_code == 200
    if cookie is not None:
        second.cookies[browser_cookie(waiting.handle)] = cookie
    assert (await second.get(waiting.path)).status_code == 409
    for step in ("password", "code", "app_code", "new_code", "passkey", "new_passkey", "consent"):
        form = {"decision": "deny", "login": "x", "password": "x", "code": "0", "credential": "{}"}
        assert (await second.post(f"{waiting.path}/{step}", form)).status_code == 409
    assert (await first.get(waiting.path)).status_code == 200


FOREIGN: dict[str, dict[str, Any]] = {
    "no origin at all": {"origin": None},
    "another origin": {"origin": "https://evil.example"},
    "a null origin": {"origin": "null"},
    "another port": {"origin": "http://127.0.0.1:8081"},
    "another scheme": {"origin": "https://127.0.0.1:8080"},
    "cross-site by Sec-Fetch-Site": {"sec-fetch-site": "cross-site"},
    "same-site is another host": {"sec-fetch-site": "same-site"},
    "typed into the address bar": {"sec-fetch-site": "none"},
}


@pytest.mark.parametrize(
    "step", ["password", "new_code", "code", "app_code", "passkey", "new_passkey", "consent"]
)
@pytest.mark.parametrize("how", FOREIGN)
async def test_a_form_from_elsewhere_is_refused_and_changes_nothing(
    runtime: Runtime, visitor: Visitor, waiting: Waiting, step: str, how: str
) -> None:
    await visitor.get(waiting.path)
    answer = await visitor.post(f"{waiting.path}/{step}", {"decision": "deny"}, **FOREIGN[how])
    assert answer.status_code == 403 and answer.headers["content-type"].startswith("text/html")
    assert await state_of(runtime, waiting) == "pushed"


async def test_a_form_that_only_says_same_origin_by_sec_fetch_site_is_ours(
    visitor: Visitor, waiting: Waiting
) -> None:
    await visitor.get(waiting.path)
    headers = {"sec-fetch-site": "same-origin"}
    answer = await visitor.post(f"{waiting.path}/consent", {"decision": "deny"}, origin=None, **headers)
    assert answer.status_code == 303


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b'{"decision": "deny"}'),
        ("multipart/form-data; boundary=x", b"--x--"),
        ("application/x-www-form-urlencoded", b"decision=deny&decision=approve"),
        ("application/x-www-form-urlencoded", b"decision=%ff"),
        ("application/x-www-form-urlencoded", "decision=拒".encode()),
        ("application/x-www-form-urlencoded", b"&".join(b"a%d=1" % n for n in range(20))),
        ("", b"decision=deny"),
    ],
)
async def test_a_body_that_is_no_form_of_ours_is_refused(
    runtime: Runtime, visitor: Visitor, waiting: Waiting, content_type: str, body: bytes
) -> None:
    await visitor.get(waiting.path)
    cookies = "; ".join(f"{name}={value}" for name, value in visitor.cookies.items())
    headers = {"content-type": content_type, "origin": ORIGIN, "cookie": cookies}
    answer = await visitor._http.post(f"{waiting.path}/consent", content=body, headers=headers)
    assert answer.status_code == 400 and answer.headers["content-type"].startswith("text/html")
    assert await state_of(runtime, waiting) == "pushed"


@pytest.mark.parametrize("handle", ["x", "A" * 43, "A" * 300, "%00" * 16, "..%2f..%2fetc%2fpasswd", "'" * 43])
async def test_a_handle_nobody_has_is_a_page_of_ours_and_tells_nothing(visitor: Visitor, handle: str) -> None:
    answer = await visitor.get(f"/oauth2/interactions/{handle}")
    assert answer.status_code == 404
    assert "location" not in answer.headers and "set-cookie" not in answer.headers


async def test_a_page_that_waited_too_long_is_over(
    runtime: Runtime, visitor: Visitor, waiting: Waiting
) -> None:
    await visitor.get(waiting.path)
    async with transaction(runtime.pool) as connection:
        await connection.execute(
            "UPDATE oauth_request SET expires_at = $2 WHERE id = $1",
            waiting.request_id,
            runtime.clock.now() - timedelta(seconds=1),
        )
    assert (await visitor.get(waiting.path)).status_code == 404
    answer = await visitor.post(f"{waiting.path}/consent", {"decision": "deny"})
    assert answer.status_code == 404 and "location" not in answer.headers


EVIL = "<script>alert(1)</script>\"'>&{{7*7}}"


@pytest.mark.parametrize("stage", ["password", "code", "consent"])
async def test_what_a_partner_calls_itself_is_text_and_nothing_else(
    runtime: Runtime, visitor: Visitor, member: Member, stage: str
) -> None:
    waiting = await ask(
        runtime,
        name_zh=EVIL,
        name_en=EVIL,
        contact=EVIL,
        ui_locales=EVIL,
        purposes=(EVIL,),
        data_kinds=(EVIL,),
    )
    if stage == "consent":
        await log_in(runtime, visitor, waiting, member)
    else:
        await visitor.get(waiting.path)
    if stage == "code":
        form = {"login": member.login, "password": member.password}
        await visitor.post(f"{waiting.path}/password", form)
    text = (await visitor.get(waiting.path)).text
    assert "<script>alert" not in text and "49" not in re.sub(r"[?&]v=[0-9a-f]+", "", text).replace(
        waiting.handle, ""
    )
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&#34;&#39;&gt;&amp;{{7*7}}" in text


@pytest.mark.parametrize("typed", ["<b>x</b>", "member01", '"><img src=x>'])
async def test_what_was_typed_is_not_shown_again(visitor: Visitor, waiting: Waiting, typed: str) -> None:
    await visitor.get(waiting.path)
    answer = await visitor.post(f"{waiting.path}/password", {"login": typed, "password": typed})
    assert typed not in answer.text


@pytest.mark.parametrize("port", ["", ":8443", "http"])
async def test_every_page_forbids_what_it_does_not_need(
    runtime: Runtime, visitor: Visitor, member: Member, port: str
) -> None:
    back = "http://127.0.0.1:9" if port == "http" else f"https://shop.example{port}"
    waiting = await ask(runtime, redirect_uri=f"{back}/callback")
    pages = {"password": await visitor.get(waiting.path)}
    pages["decline"] = await visitor.get(f"{waiting.path}/decline")
    form = {"login": member.login, "password": member.password}
    await visitor.post(f"{waiting.path}/password", form)
    pages["code"] = await visitor.get(waiting.path)
    pages["wrong code"] = await visitor.post(f"{waiting.path}/code", {"code": "abc"})
    await visitor.post(f"{waiting.path}/code", {"code": await code_of(runtime, member)})
    pages["consent"] = await visitor.get(waiting.path)
    pages["error"] = await visitor.get("/oauth2/interactions/" + "A" * 43)
    away = " https:" + (f" {back}" if port == "http" else "")
    for name, page in pages.items():
        targets = "'self'" + (away if name in ("consent", "decline") else "")
        targets = "'none'" if name == "error" else targets
        assert page.headers["content-security-policy"] == (
            f"default-src 'none'; style-src 'self'; form-action {targets}; "
            "frame-ancestors 'none'; base-uri 'none'"
        )
        assert page.headers["cache-control"] == "no-store"
        assert page.headers["x-frame-options"] == "DENY"
        assert page.headers["x-content-type-options"] == "nosniff"
        assert page.headers["referrer-policy"] == "same-origin"
        assert "<script" not in page.text and "style=" not in page.text
        assert not re.search(r"\son\w+=", page.text)


async def test_cookies_are_for_this_host_alone_and_out_of_reach_of_scripts(
    runtime: Runtime, visitor: Visitor, waiting: Waiting, member: Member
) -> None:
    set_ = (await visitor.get(waiting.path)).headers.get_list("set-cookie")
    form = {"login": member.login, "password": member.password}
    set_ += (await visitor.post(f"{waiting.path}/password", form)).headers.get_list("set-cookie")
    form = {"code": await code_of(runtime, member)}
    set_ += (await visitor.post(f"{waiting.path}/code", form)).headers.get_list("set-cookie")
    assert len(set_) == 4
    for cookie in set_:
        name, *attributes = [part.strip() for part in cookie.split(";")]
        assert name.startswith("__Host-") and waiting.handle not in cookie and member.login not in cookie
        assert {"Secure", "HttpOnly", "Path=/"} <= set(attributes)
        assert not any(attribute.lower().startswith("domain") for attribute in attributes)
        assert ("SameSite=strict" if name.startswith(DEVICE_COOKIE) else "SameSite=lax") in attributes


async def test_neither_addresses_nor_logs_nor_answers_carry_what_was_typed(
    runtime: Runtime, http: httpx.AsyncClient, waiting: Waiting, member: Member, capfd: Any, caplog: Any
) -> None:
    caplog.set_level(logging.DEBUG)
    visitor, locations = Visitor(http), []
    await visitor.get(waiting.path)
    form = {"login": member.login, "password": member.password}
    locations.append((await visitor.post(f"{waiting.path}/password", form)).headers["location"])
    code = await code_of(runtime, member)
    locations.append((await visitor.post(f"{waiting.path}/code", {"code": code})).headers["location"])
    answered = await visitor.post(f"{waiting.path}/consent", {"decision": "approve"})
    locations.append(answered.headers["location"])
    said = "".join(capfd.readouterr())
    for secret in (member.login, member.password, code):
        assert all(secret not in location for location in locations[:2])
        assert secret not in said
    assert member.login not in locations[2] and member.password not in locations[2]
    assert waiting.handle not in said and waiting.handle not in locations[2]


async def test_the_authenticator_app_is_another_way(
    runtime: Runtime, visitor: Visitor, waiting: Waiting, member: Member
) -> None:
    await visitor.get(waiting.path)
    await visitor.post(f"{waiting.path}/password", {"login": member.login, "password": member.password})
    shown = await visitor.get(f"{waiting.path}?lang=zh&factor=app")
    assert "/app_code?lang=zh" in shown.text
    code = pyotp.TOTP(TOTP).at(runtime.clock.now())
    assert (await visitor.post(f"{waiting.path}/app_code", {"code": code})).status_code == 303
    assert "同意授权" in (await visitor.get(waiting.path)).text


async def test_a_code_that_is_wrong_spent_or_guessed_at_too_often_is_told_apart(
    runtime: Runtime, visitor: Visitor, waiting: Waiting, member: Member
) -> None:
    await visitor.get(waiting.path)
    await visitor.post(f"{waiting.path}/password", {"login": member.login, "password": member.password})
    wrong = f"{(int(await code_of(runtime, member)) + 1) % 1_000_000:06}"
    seen = [await visitor.post(f"{waiting.path}/code", {"code": wrong}) for _ in range(16)]
    texts = [TEXTS[key][0] for key in ("wrong_code", "spent_code", "locked")]
    told = [next(text for text in texts if text in answer.text) for answer in seen]
    assert told == [texts[0]] * 5 + [texts[1]] * 10 + [texts[2]]
    assert [answer.status_code for answer in seen] == [422] * 15 + [429]


async def test_a_new_code_can_be_had_twice_more(
    runtime: Runtime, visitor: Visitor, waiting: Waiting, member: Member
) -> None:
    await visitor.get(waiting.path)
    await visitor.post(f"{waiting.path}/password", {"login": member.login, "password": member.password})
    statuses = [(await visitor.post(f"{waiting.path}/new_code")).status_code for _ in range(3)]
    assert statuses == [303, 303, 429]


@pytest.fixture
async def speechless(runtime: Runtime) -> AsyncGenerator[None, None]:
    """A bank that has not joined its messaging yet, as a live one begins."""
    sender, runtime.code_sender = runtime.code_sender, None
    yield
    runtime.code_sender = sender


@pytest.mark.usefixtures("speechless")
async def test_without_a_sender_only_the_app_is_a_second_factor(
    runtime: Runtime, visitor: Visitor, waiting: Waiting, member: Member
) -> None:
    await visitor.get(waiting.path)
    await visitor.post(f"{waiting.path}/password", {"login": member.login, "password": member.password})
    shown = (await visitor.get(waiting.path)).text
    assert "/app_code?" in shown and "new_code" not in shown
    assert (await visitor.post(f"{waiting.path}/new_code")).status_code == 429
    other = await ask(runtime)
    async with transaction(runtime.pool) as connection:
        plain = await enrol(connection, vault=runtime.vault, now=runtime.clock.now())
    await visitor.get(other.path)
    await visitor.post(f"{other.path}/password", {"login": plain.login, "password": plain.password})
    assert TEXTS["no_factor"][0] in (await visitor.get(other.path)).text
    async with transaction(runtime.pool) as connection:
        assert not await connection.fetchval(
            "SELECT count(*) FROM login_message WHERE account_id = $1", plain.account_id
        )


@pytest.mark.parametrize(
    ("accepted", "ui_locales", "chosen", "shown"),
    [
        ("zh-CN,zh;q=0.9", None, None, "zh-Hans"),
        ("en-US,en;q=0.9,zh;q=0.8", None, None, "en"),
        ("fr", None, None, "zh-Hans"),
        ("", None, None, "zh-Hans"),
        ("zh-CN", "en-GB zh", None, "en"),
        ("en", "fr zh-CN", None, "zh-Hans"),
        ("en", "zh", "en", "en"),
        ("en", "en", "zh", "zh-Hans"),
        ("en", None, "<script>", "en"),
    ],
)
async def test_the_language_is_the_members_choice_then_the_partners_wish_then_the_browsers(
    runtime: Runtime,
    http: httpx.AsyncClient,
    accepted: str,
    ui_locales: str | None,
    chosen: str | None,
    shown: str,
) -> None:
    waiting = await ask(runtime, ui_locales=ui_locales)
    query = "" if chosen is None else "?" + urlencode({"lang": chosen})
    answer = await Visitor(http, accepted).get(waiting.path + query)
    assert f'<html lang="{shown}">' in answer.text


@pytest.mark.parametrize(
    ("header", "locale"),
    [
        ("zh;q=0.1, en;q=0.2", "en"),
        ("en;q=0", "zh"),
        ("en;q=x", "zh"),
        ("en;q=2", "zh"),
        ("EN-us", "en"),
        ("*", "zh"),
        (",,;;q=", "zh"),
        ("en," * 1000, "en"),
        ("fr," * 1000 + "en", "zh"),
    ],
)
def test_rfc9110_12_5_4_accept_language_is_read_by_quality(header: str, locale: str) -> None:
    assert preferred_locale(header) == locale


@pytest.mark.parametrize(
    ("fen", "shown"), [(0, "¥0.00"), (5, "¥0.05"), (100, "¥1.00"), (1_299_900, "¥12,999.00")]
)
def test_money_is_shown_to_the_fen(fen: int, shown: str) -> None:
    assert yuan(fen) == shown


@pytest.mark.parametrize(
    ("ppm", "shown"),
    [(0, "0.00%"), (138_418, "13.8418%"), (120_000, "12.00%"), (1, "0.0001%"), (145_500, "14.55%")],
)
def test_rates_are_shown_exactly(ppm: int, shown: str) -> None:
    assert percent(ppm) == shown


def test_every_sentence_is_said_in_both_languages() -> None:
    for key, texts in {**TEXTS, **VALUES}.items():
        assert len(texts) == len(LOCALES) and all(texts), key
        zh, en = (set(re.findall(r"{(\w+)}", text)) for text in texts)
        assert zh == en, key


@pytest.mark.parametrize("code", ["request_unknown", "login_over", "request_refused", "nothing we know"])
@pytest.mark.parametrize("locale", LOCALES)
def test_an_error_page_can_be_had_for_any_code(code: str, locale: Any) -> None:
    page = render_error_page(code, locale=locale, reference="req_1")
    assert page.status_code == 400 and "req_1" in page.content


@pytest.mark.parametrize(("name", "kind"), [(STYLE, "text/css"), (SCRIPT, "text/javascript")])
async def test_the_style_and_the_script_are_ours_and_may_be_kept(
    http: httpx.AsyncClient, name: str, kind: str
) -> None:
    answer = await http.get(ADDRESS[name])
    assert answer.status_code == 200 and answer.headers["content-type"].startswith(kind)
    assert "immutable" in answer.headers["cache-control"]
    for absent in ("/static/pages/handlers.py", "/static/pages/..%2fhandlers.py", "/static/pages/"):
        assert (await http.get(absent)).status_code == 404


def test_every_step_says_that_it_is_open_to_everybody() -> None:
    steps = [route for route in ROUTES if any("/interactions/" in path for path in route.paths)]
    assert len(steps) == 9
    assert all(route.opt == {"public": True} for route in steps)


@pytest.mark.parametrize(
    ("language", "title"), [("zh", "请求无效或已完成"), ("en", "This request is unknown")]
)
async def test_a_request_that_cannot_be_followed_ends_on_a_page_of_the_same_look(
    http: httpx.AsyncClient, language: str, title: str
) -> None:
    answer = await Visitor(http, language).get(
        "/oauth2/authorize?client_id=app_x&request_uri=<b>&request_uri=x"
    )
    assert answer.status_code == 400 and title in answer.text and ADDRESS[STYLE] in answer.text
    assert "form-action 'none';" in answer.headers["content-security-policy"]
    assert "<b>" not in answer.text


async def test_the_redirect_to_the_page_leaves_when_the_page_is_there(runtime: Runtime, edge: Edge) -> None:
    async with transaction(runtime.pool) as connection:
        waiting = await push(connection, vault=runtime.vault, now=runtime.clock.now())
        await connection.execute(
            "UPDATE oauth_request SET expires_at = NULL WHERE id = $1", waiting.request_id
        )
    opened: list[Any] = []

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            async with runtime.pool.acquire() as other:
                opened.append(
                    await other.fetchval(
                        "SELECT expires_at FROM oauth_request WHERE id = $1", waiting.request_id
                    )
                )

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    path, _, query = waiting.authorize.partition("?")
    scope = {"type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "headers": []}
    await edge(scope | {"query_string": query.encode(), "client": ("127.0.0.1", 1)}, receive, send)
    assert opened and opened[0] is not None
