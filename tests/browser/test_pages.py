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
    await page.keyboard.type(member.login)
    await page.keyboard.press("Tab")
    await page.keyboard.type(member.password)
    if shot:
        await shoot(page, f"{shot}-1-password")
    await page.keyboard.press("Enter")
    await page.wait_for_selector("#code")
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
    await page.goto(site.base_url + waiting.path)
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
