"""At the counter: a partner's program that nobody here wrote asks, the member approves on the phone, points are spent."""

import asyncio
import json
from datetime import UTC, datetime
from typing import Any, cast
from uuid import uuid4

import httpx
import pytest
import requests
from phone import LOOPBACK, Phone
from requests_oauth2client import OAuth2Client, PrivateKeyJwt
from requests_oauth2client.exceptions import AuthorizationPending, InvalidGrant
from served import Platform

from gateway.client import PartnerClient
from gateway.runtime import Runtime
from gateway.sandbox_logins import SandboxLogin
from gateway.sandbox_mobile import MobileApp


class OutsidePhone(Phone):
    """A phone that knows the sandbox's file and nothing else."""

    callback = LOOPBACK

    def __init__(self, http: httpx.AsyncClient, platform: Platform, app: MobileApp, member: SandboxLogin):
        super().__init__(http, cast(Runtime, None), cast(Any, app), cast(Any, member))
        self._platform = platform
        self.origin = platform.base_url

    @property
    def now(self) -> datetime:
        return datetime.now(UTC)

    async def read_message(self) -> str:
        told = await asyncio.to_thread(self._platform.run, "sandbox", "messages", self.member.login)
        return told.stdout.partition("验证码 ")[2][:6]


@pytest.fixture
async def phone(platform: Platform, http: httpx.AsyncClient) -> OutsidePhone:
    """The first member's."""
    told = json.loads((platform.data_dir / "sandbox" / "mobile.json").read_bytes())
    assert told["issuer"] == f"{platform.base_url}/mobile"
    app = MobileApp(**{**told, "members": [SandboxLogin(**login) for login in told["members"]]})
    phone = OutsidePhone(http, platform, app, app.members[0])
    await phone.log_in()
    return phone


async def test_a_member_pays_with_points_at_the_counter(
    platform: Platform, ecommerce: PartnerClient, phone: OutsidePhone, earning: Any
) -> None:
    mine = ecommerce.credentials
    sub = mine.members[0].sub
    await ecommerce.post("/v1/points/earnings", earning(sub))
    metadata = (await phone.http.get("/.well-known/openid-configuration")).json()
    client = OAuth2Client(
        token_endpoint=metadata["token_endpoint"],
        backchannel_authentication_endpoint=metadata["backchannel_authentication_endpoint"],
        issuer=metadata["issuer"],
        auth=PrivateKeyJwt(mine.client_id, {**mine.private_jwk, "kid": mine.kid}, aud=metadata["issuer"]),
        dpop_bound_access_tokens=True,
        testing=True,
    )
    asked = await asyncio.to_thread(
        client.backchannel_authentication_request,
        "members:read points:spend",
        login_hint=sub,
        binding_message="4711",
        requested_expiry=120,
        authorization_details='[{"type": "points_spend", "max_points": 50}]',
    )
    assert (asked.expires_in, asked.interval) == (120, 5)
    with pytest.raises(AuthorizationPending):
        await asyncio.to_thread(client.ciba, asked)
    [shown] = (await phone.call("GET", "/mobile/v1/authorizations")).json()["data"]
    assert (shown["partner"]["name_zh"], shown["binding_message"]) == ("晨光商城", "4711")
    approval = {"details_hash": shown["details_hash"], "binding_message": "4711"}
    approved = await phone.call("POST", f"/mobile/v1/authorizations/{shown['id']}/approve", approval)
    assert approved.status_code == 200, approved.text
    token = await asyncio.to_thread(client.ciba, asked)
    assert token.token_type == "DPoP"
    assert token.refresh_token
    with pytest.raises(InvalidGrant):
        await asyncio.to_thread(client.ciba, asked)
    for points, status in ((50, 201), (1, 403)):
        spent = await asyncio.to_thread(
            requests.post,
            f"{platform.base_url}/v1/points/spends",
            json={"member": sub, "points": points, "order_ref": f"order-{uuid4()}"},
            headers={"Idempotency-Key": str(uuid4())},
            auth=token,
            timeout=20,
        )
        assert spent.status_code == status, spent.text
    [entry] = (await phone.call("GET", "/mobile/v1/points/entries?limit=1")).json()["data"]
    assert entry["points"] == 50
    consents = (await phone.call("GET", "/mobile/v1/consents")).json()["data"]
    assert consents[0]["id"] == token.grant_id
    # four partners have had the sandbox's own consent from the beginning
    assert len(consents) >= 5


async def test_the_app_stays_logged_in_and_logs_out(phone: OutsidePhone) -> None:
    for _ in range(2):
        refreshed = await phone.refresh()
        assert refreshed.status_code == 200, refreshed.text
        phone.tokens = refreshed.json()
    assert (await phone.call("GET", "/mobile/v1/membership")).json()["tier"]
    form = {"client_id": phone.app.client_id, "token": phone.tokens["refresh_token"]}
    assert (await phone.http.post("/mobile/oauth2/revoke", data=form)).status_code == 200
    assert (await phone.call("GET", "/mobile/v1/me")).status_code == 401
