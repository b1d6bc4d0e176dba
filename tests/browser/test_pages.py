"""The whole way of a member through the bank's pages, in a real Chromium."""

import os
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.async_api import Page
from waiting import HEALTH, PLAN, SPEND, TAX, Member

from .conftest import Ask, Opened, Site, last_code

SHOTS = os.environ.get("SHOTS")


async def shoot(page: Page, name: str) -> None:
    """A picture for whoever wants to look at it."""
    if SHOTS:
        await page.screenshot(path=str(Path(SHOTS) / f"{name}.png"), full_page=True)


async def log_in(site: Site, page: Page, member: Member, shot: str = "") -> None:
    """Password and code, typed and sent with the keyboard alone."""
    await page.focus("#login")
    await page.keyboard.type(member.login)
    await page.keyboard.press("Tab")
    await page.keyboard.type(member.password)
    if shot:
        await shoot(page, f"{shot}-1-password")
    await page.keyboard.press("Enter")
    await page.wait_for_selector("#code:focus")
    await page.keyboard.type(await last_code(site, member))
    if shot:
        await shoot(page, f"{shot}-2-code")
    await page.keyboard.press("Enter")
    await page.wait_for_selector(".facts")


@pytest.mark.parametrize(
    ("locale", "heading"), [("zh-CN", "是否授权“晨光商城”？"), ("en-GB", "Authorise Morning Light Mall?")]
)
async def test_a_member_agrees_without_javascript_on_a_phone_in_either_language(
    site: Site, ask: Ask, member: Member, open_browser: Opened, shop: str, locale: str, heading: str
) -> None:
    waiting = await ask(details=(PLAN, SPEND, TAX, HEALTH), sensitive=True)
    _, page, complaints = await open_browser(java_script_enabled=False, locale=locale)
    await page.goto(site.base_url + waiting.authorize)
    await log_in(site, page, member, shot=locale)
    assert await page.inner_text("h1") == heading
    await shoot(page, f"{locale}-3-consent")
    assert not await page.is_checked("[name=sensitive]")
    await page.check("[name=sensitive]")
    await page.click("button[value=approve]")
    await page.wait_for_url(f"{shop}?**")
    answer = parse_qs(urlsplit(page.url).query)
    assert set(answer) == {"code", "state", "iss"}
    assert answer["iss"] == [site.base_url]
    assert complaints == []


async def test_a_member_declines_at_once_with_the_keyboard_alone(
    site: Site, ask: Ask, open_browser: Opened, shop: str
) -> None:
    waiting = await ask()
    _, page, complaints = await open_browser(java_script_enabled=False)
    await page.goto(site.base_url + waiting.path)
    await page.wait_for_selector("#login:focus")
    for _ in range(3):  # from the name to the password, the button, the way back
        await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    await page.wait_for_selector("button[value=deny]:focus")
    await shoot(page, "decline")
    await page.keyboard.press("Enter")
    await page.wait_for_url(f"{shop}?error=access_denied**")
    assert complaints == []
    await page.goto(site.base_url + waiting.path)
    assert await page.inner_text("h1") == "请求无效或已完成"
    await shoot(page, "error")


async def test_declining_on_the_consent_page_needs_no_tick(
    site: Site, ask: Ask, member: Member, open_browser: Opened, shop: str
) -> None:
    waiting = await ask(details=(TAX,), sensitive=True)
    _, page, _ = await open_browser()
    await page.goto(site.base_url + waiting.path)
    await log_in(site, page, member)
    await page.click("button[value=approve]")
    assert page.url.startswith(site.base_url), "the browser itself asks for the tick"
    await page.click("button[value=deny]")
    await page.wait_for_url(f"{shop}?error=access_denied**")


async def test_the_language_is_switched_by_a_link_at_every_step(
    site: Site, ask: Ask, member: Member, open_browser: Opened
) -> None:
    waiting = await ask()
    _, page, _ = await open_browser(java_script_enabled=False, locale="en-GB")
    await page.goto(site.base_url + waiting.path)
    await page.click(".language")
    assert await page.inner_text("h1") == "登录"
    await log_in(site, page, member)
    assert await page.inner_text("h1") == "是否授权“晨光商城”？"
    await page.click(".language")
    assert await page.inner_text("h1") == "Authorise Morning Light Mall?"


async def test_two_requests_in_two_tabs_do_not_disturb_each_other(
    site: Site, ask: Ask, member: Member, open_browser: Opened, shop: str
) -> None:
    context, page, _ = await open_browser()
    other = await context.new_page()
    await page.goto(site.base_url + (await ask()).path)
    await other.goto(site.base_url + (await ask()).path)
    await page.bring_to_front()
    await log_in(site, page, member)
    await other.bring_to_front()
    await log_in(site, other, member)
    for tab in (page, other):
        await tab.click("button[value=approve]")
        await tab.wait_for_url(f"{shop}?code=**")


@pytest.mark.parametrize("agrees", [True, False])
async def test_a_partner_on_https_may_send_its_customer_on_to_another_host(
    site: Site,
    ask: Ask,
    member: Member,
    open_browser: Opened,
    roaming_shop: tuple[str, str],
    agrees: bool,
) -> None:
    callback, home = roaming_shop
    waiting = await ask(redirect_uri=callback)
    _, page, complaints = await open_browser(ignore_https_errors=True)
    await page.goto(site.base_url + waiting.path)
    if agrees:
        await log_in(site, page, member)
        await page.click("button[value=approve]")
    else:
        await page.click(".leave a")
        await page.click("button[value=deny]")
    await page.wait_for_url(home)
    assert not [complaint for complaint in complaints if "Content Security Policy" in complaint]


async def test_what_a_partner_calls_itself_runs_nothing(
    site: Site, ask: Ask, member: Member, open_browser: Opened
) -> None:
    evil = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    waiting = await ask(name_zh=evil, name_en=evil, contact=evil)
    _, page, complaints = await open_browser()
    await page.goto(site.base_url + waiting.path)
    await log_in(site, page, member)
    assert evil in await page.inner_text("h1")
    assert complaints == []


async def test_no_other_page_frames_ours_or_sends_our_forms(
    site: Site, ask: Ask, open_browser: Opened, shop: str
) -> None:
    waiting = await ask()
    _, page, complaints = await open_browser()
    await page.goto(site.base_url + waiting.path)
    await page.goto(shop)
    await page.set_content(f'<iframe src="{site.base_url}{waiting.path}"></iframe>')
    async with page.expect_response(lambda answer: answer.request.method == "POST") as posted:
        await page.set_content(
            f'<form method="post" action="{site.base_url}{waiting.path}/consent">'
            '<input name="decision" value="deny"></form>'
        )
        await page.evaluate("document.forms[0].submit()")
    assert (await posted.value).status == 403
    await page.wait_for_selector("h1")
    await page.goto(site.base_url + waiting.path)
    assert await page.inner_text("h1") == "登录"
    assert any("frame" in complaint.lower() for complaint in complaints)


MEASURE = """() => {
  const small = [...document.querySelectorAll("a, button, input:not([type=hidden]):not([type=checkbox]), label.tick")]
    .filter((each) => each.getBoundingClientRect().height < 44).map((each) => each.outerHTML);
  const unnamed = [...document.querySelectorAll("input:not([type=hidden])")]
    .filter((each) => each.labels.length === 0).map((each) => each.outerHTML);
  return {small, unnamed, wide: document.documentElement.scrollWidth - window.innerWidth,
          headings: document.querySelectorAll("h1").length, main: document.querySelectorAll("main").length,
          language: document.documentElement.lang};
}"""


@pytest.mark.parametrize(("locale", "language"), [("zh-CN", "zh-Hans"), ("en-GB", "en")])
async def test_every_page_fits_a_small_phone_with_targets_for_a_thumb_and_a_name_for_every_field(
    site: Site, ask: Ask, member: Member, open_browser: Opened, locale: str, language: str
) -> None:
    name = "A partner with a name as long as the register of companies allows it to be"
    waiting = await ask(details=(PLAN, SPEND, TAX, HEALTH), sensitive=True, name_zh=name, name_en=name)
    _, page, _ = await open_browser(locale=locale, viewport={"width": 320, "height": 568})
    measured = []
    await page.goto(site.base_url + waiting.path)
    measured.append(await page.evaluate(MEASURE))
    await page.fill("#login", "nobody")
    await page.fill("#password", "wrong")
    await page.press("#password", "Enter")
    await page.wait_for_selector("[role=alert]")
    await shoot(page, f"{locale}-wrong-password")
    measured.append(await page.evaluate(MEASURE))
    await page.fill("#login", "")
    await log_in(site, page, member)
    await shoot(page, f"{locale}-320")
    measured.append(await page.evaluate(MEASURE))
    await page.goto(site.base_url + "/oauth2/interactions/" + "A" * 43)
    measured.append(await page.evaluate(MEASURE))
    expected = {"small": [], "unnamed": [], "wide": 0, "headings": 1, "main": 1, "language": language}
    assert measured == [expected] * 4
    await page.set_viewport_size({"width": 1280, "height": 900})
    await page.goto(site.base_url + waiting.path)
    await shoot(page, f"{locale}-desktop")
