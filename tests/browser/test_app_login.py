"""A member logs in with the bank's own app, in a real Chromium: from the code straight back to the app."""

import base64
import hashlib
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from waiting import Member

from kernel.database import transaction
from partners.mobile import service as mobile

from .conftest import Opened, Site, last_code


@pytest.mark.parametrize("scripts", [False, True])
async def test_a_login_leads_back_to_the_app_without_a_consent(
    site: Site, member: Member, open_browser: Opened, shop: str, scripts: bool
) -> None:
    async with transaction(site.runtime.pool) as connection:
        app = await mobile.register_app(
            connection,
            name_zh="示例手机银行",
            name_en=f"Sample bank {scripts}",
            redirect_uris=[shop],
            actor="test",
            now=site.runtime.clock.now(),
        )
    challenge = base64.urlsafe_b64encode(hashlib.sha256(b"v" * 64).digest()).rstrip(b"=").decode()
    asked = urlencode(
        {
            "client_id": app.client_id,
            "redirect_uri": shop,
            "response_type": "code",
            "code_challenge": challenge,
            "code_challenge_method": "S256",
            "state": "s-1",
        }
    )
    _, page, complaints = await open_browser(java_script_enabled=scripts)
    await page.goto(f"{site.base_url}/mobile/oauth2/authorize?{asked}")
    assert "示例手机银行" in await page.inner_text("main")
    await page.focus("#login")
    await page.keyboard.type(member.login)
    await page.keyboard.press("Tab")
    await page.keyboard.type(member.password)
    await page.keyboard.press("Enter")
    await page.wait_for_selector("#code:focus")
    await page.keyboard.type(await last_code(site, member))
    await page.keyboard.press("Enter")
    await page.wait_for_url(f"{shop}?**")
    answer = parse_qs(urlsplit(page.url).query)
    assert set(answer) == {"code", "state", "iss"}
    assert answer["iss"] == [f"{site.base_url}/mobile"]
    assert complaints == []
