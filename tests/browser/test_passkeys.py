"""Passkeys in a real Chromium, with the authenticator its developer tools provide."""

from typing import Any

import pytest
from playwright.async_api import BrowserContext, CDPSession, Page
from waiting import Member

from .conftest import Ask, Opened, Site
from .test_pages import log_in, shoot


async def plug_in(context: BrowserContext, page: Page, **options: Any) -> tuple[CDPSession, str]:
    """An authenticator inside the device."""
    session = await context.new_cdp_session(page)
    await session.send("WebAuthn.enable")
    described = {
        "protocol": "ctap2",
        "transport": "internal",
        "hasResidentKey": True,
        "hasUserVerification": True,
        "isUserVerified": True,
        "automaticPresenceSimulation": True,
    }
    added = await session.send("WebAuthn.addVirtualAuthenticator", {"options": described | options})
    return session, added["authenticatorId"]


async def add_passkey(page: Page) -> None:
    """From the consent page and back."""
    await page.click(".others a")
    await page.wait_for_selector("[data-passkey=create]")
    await shoot(page, "passkey-new")
    await page.click("button.primary")
    await page.wait_for_selector(".facts")


async def to_second_factor(site: Site, page: Page, ask: Ask, member: Member) -> None:
    """Another request, up to the page after the password."""
    waiting = await ask()
    await page.goto(site.base_url + waiting.path)
    await page.fill("#login", member.login)
    await page.fill("#password", member.password)
    await page.press("#password", "Enter")


async def test_a_passkey_is_added_once_and_then_takes_the_place_of_the_code(
    site: Site, ask: Ask, member: Member, open_browser: Opened, shop: str
) -> None:
    context, page, complaints = await open_browser()
    await plug_in(context, page)
    await page.goto(site.base_url + (await ask()).path)
    await log_in(site, page, member)
    await add_passkey(page)
    assert not await page.query_selector(".others a"), "it is offered once"
    await page.click("button[value=approve]")
    await page.wait_for_url(f"{shop}?**")

    await to_second_factor(site, page, ask, member)
    await page.wait_for_selector("[data-passkey=get]")
    await shoot(page, "passkey-get")
    await page.click("button.primary")
    await page.wait_for_selector(".facts")
    await page.click("button[value=approve]")
    await page.wait_for_url(f"{shop}?code=**")
    assert complaints == []
    async with site.runtime.pool.acquire() as connection:
        given = await connection.fetch(
            "SELECT methods FROM oauth_consent_given AS g JOIN oauth_consent AS c ON c.id = g.consent_id "
            "WHERE c.member_id = $1 ORDER BY g.given_at",
            member.ref.member_id,
        )
    assert [row["methods"] for row in given] == [["pwd", "otp"], ["pwd", "hwk", "user"]]


async def test_whoever_is_not_verified_is_told_and_may_use_a_code(
    site: Site, ask: Ask, member: Member, open_browser: Opened
) -> None:
    context, page, _ = await open_browser()
    session, authenticator = await plug_in(context, page)
    await page.goto(site.base_url + (await ask()).path)
    await log_in(site, page, member)
    await add_passkey(page)

    await to_second_factor(site, page, ask, member)
    await page.wait_for_selector("[data-passkey=get]")
    await session.send(
        "WebAuthn.setUserVerified", {"authenticatorId": authenticator, "isUserVerified": False}
    )
    await page.click("button.primary")
    await page.wait_for_selector("[data-failed]:not([hidden])")
    await page.click(".others a")
    await page.click("button.primary")
    await page.wait_for_selector("#code")


@pytest.mark.parametrize("scripts", [True, False])
async def test_another_browser_of_the_same_member_is_asked_for_a_code(
    site: Site, ask: Ask, member: Member, open_browser: Opened, scripts: bool
) -> None:
    context, page, _ = await open_browser()
    await plug_in(context, page)
    await page.goto(site.base_url + (await ask()).path)
    await log_in(site, page, member)
    await add_passkey(page)

    _, elsewhere, _ = await open_browser(java_script_enabled=scripts)
    await to_second_factor(site, elsewhere, ask, member)
    await elsewhere.wait_for_selector("#code")
