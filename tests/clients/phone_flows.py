"""What a third-party client must be able to do on a member's phone, and through it; each client's file takes these tests as its own."""

from collections.abc import AsyncGenerator
from typing import Any

import msgspec
import pytest
from clients.flows import claims_of
from clients.member import Member
from clients.third_party import Configure, PublicApp, Refused, ThirdParty
from msgspec import Struct
from served import Platform

__all__ = [
    "phone",
    "test_a_denied_request_gives_no_token",
    "test_a_member_approves_on_the_phone_and_the_partner_collects",
    "test_the_app_logs_in_and_refreshes",
]

#: whose phone it is: the same place in the members' file and in the partners' files
NUMBER = 2


class Phone(Struct, frozen=True, kw_only=True):
    """A phone with the bank's app, logged in."""

    app: ThirdParty
    token: dict[str, Any]
    base_url: str

    async def waiting(self) -> list[dict[str, Any]]:
        answer = await self.app.call(self.token, "GET", f"{self.base_url}/mobile/v1/authorizations")
        assert answer.status == 200, answer.body
        return list(msgspec.json.decode(answer.body)["data"])

    async def answer(self, asked: dict[str, Any], decision: str) -> None:
        """What the member taps; approving says again what was shown."""
        url = f"{self.base_url}/mobile/v1/authorizations/{asked['id']}/{decision}"
        shown = {"details_hash": asked["details_hash"], "binding_message": asked["binding_message"]}
        answer = await self.app.call(self.token, "POST", url, shown if decision == "approve" else {})
        assert answer.status == 200, answer.body


@pytest.fixture(scope="module")
async def phone(configure: Configure, member: Member, platform: Platform) -> AsyncGenerator[Phone, None]:
    """The third-party client in the place of the bank's app."""
    known = msgspec.json.decode(platform.mobile_app(), type=PublicApp)
    async with configure(known) as app:
        address = await app.begin(redirect_uri=known.redirect_uri, scope="authorizations:answer member:read")
        token = await app.redeem(address, await member.agree(address, number=NUMBER))
        yield Phone(app=app, token=token, base_url=platform.base_url)


async def test_the_app_logs_in_and_refreshes(phone: Phone) -> None:
    renewed = await phone.app.refresh(phone.token)
    assert renewed["refresh_token"] != phone.token["refresh_token"], "each refresh token makes the next one"
    answer = await phone.app.call(renewed, "GET", f"{phone.base_url}/mobile/v1/me")
    assert answer.status == 200, answer.body


async def test_a_member_approves_on_the_phone_and_the_partner_collects(
    client: ThirdParty, phone: Phone, platform: Platform
) -> None:
    sub = platform.partner("ecommerce").members[NUMBER].sub
    asked = await client.ask(scope="members:read", login_hint=sub, binding_message="W4SCT")
    (shown,) = await phone.waiting()
    assert shown["binding_message"] == "W4SCT"
    await phone.answer(shown, "approve")
    token = await client.collect(asked)
    assert claims_of(token)["sub"] == sub
    assert (await client.call(token, "GET", f"{platform.base_url}/v1/members/{sub}/points")).status == 200


async def test_a_denied_request_gives_no_token(client: ThirdParty, phone: Phone, platform: Platform) -> None:
    sub = platform.partner("ecommerce").members[NUMBER].sub
    asked = await client.ask(scope="members:read", login_hint=sub)
    (shown,) = await phone.waiting()
    await phone.answer(shown, "deny")
    with pytest.raises(Refused) as refused:
        await client.collect(asked)
    assert refused.value.error == "access_denied"
