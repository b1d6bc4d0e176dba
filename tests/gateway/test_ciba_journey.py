"""The whole way over HTTP: a partner asks, the member approves on the phone, the partner polls, and spends points."""

import httpx
import pytest
from phone import Phone, enrol_member, register_app

from gateway.client import PartnerClient
from gateway.runtime import Runtime
from kernel.database import transaction
from partners.oauth import service as oauth
from partners.oauth.scopes import SCOPES
from partners.registry import service as registry

from .conftest import Register
from .test_member_tokens import MemberClient, earn, hold, partner_id_of, told

CIBA = "urn:openid:params:grant-type:ciba"


@pytest.fixture
async def phone(runtime: Runtime, http: httpx.AsyncClient) -> Phone:
    """A member's phone, logged in."""
    phone = Phone(http, runtime, await register_app(runtime), await enrol_member(runtime))
    await phone.log_in()
    return phone


async def introduce(runtime: Runtime, partner: PartnerClient, phone: Phone) -> str:
    """The member's subject at a partner that may ask on the phone."""
    partner_id, now = await partner_id_of(runtime, partner), runtime.clock.now()
    async with transaction(runtime.pool) as connection:
        await registry.allow_backchannel(
            connection,
            client_id=partner.credentials.client_id,
            allowed=True,
            actor="test",
            now=now,
        )
        return await oauth.subject_for(
            connection, partner_id=partner_id, member=phone.member.ref, vault=runtime.vault, now=now
        )


async def test_a_partner_asks_the_member_approves_and_points_are_spent(
    runtime: Runtime, register: Register, http: httpx.AsyncClient, phone: Phone
) -> None:
    partner = await register(*sorted(SCOPES))
    sub = await introduce(runtime, partner, phone)
    client = MemberClient(partner.credentials, http=http, deadline_seconds=5.0)
    asked = await client.form(
        "/oauth2/bc-authorize",
        login_hint=sub,
        scope="members:read points:earn points:spend",
        authorization_details='[{"type": "points_spend", "max_points": 500}]',
        binding_message="三号窗口 4711",
    )
    assert asked.status_code == 200, asked.text
    assert asked.headers["cache-control"] == "no-store"
    request = asked.json()
    assert (request["expires_in"], request["interval"]) == (300, 5)
    poll = {"grant_type": CIBA, "auth_req_id": request["auth_req_id"]}
    waiting = await client.form("/oauth2/token", **poll)
    assert (waiting.status_code, waiting.json()["error"]) == (400, "authorization_pending")

    [shown] = (await phone.call("GET", "/mobile/v1/authorizations")).json()["data"]
    assert shown["id"] == request["authorization"]
    assert shown["partner"]["name_zh"] == "测试商城"
    assert shown["binding_message"] == "三号窗口 4711"
    assert shown["authorization_details"] == [{"type": "points_spend", "max_points": 500}]
    approval = {"details_hash": shown["details_hash"], "binding_message": shown["binding_message"]}
    path = f"/mobile/v1/authorizations/{shown['id']}/approve"
    for _ in range(2):
        approved = await phone.call("POST", path, approval)
        assert approved.json() == {"id": shown["id"], "state": "approved"}, approved.text

    issued = await client.form("/oauth2/token", **poll)
    assert issued.status_code == 200, issued.text
    client.adopt(issued.json())
    await earn(client, sub)
    assert (await told(client, "POST", "/v1/points/holds", hold(sub, 400)))[0] == 201
    assert (await told(client, "POST", "/v1/points/holds", hold(sub, 200)))[0] == 403
    points = (await phone.call("GET", "/mobile/v1/points")).json()
    assert points["held_points"] == 400
    again = await client.form("/oauth2/token", **poll)
    assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")

    # what the member takes back is refused at once, and the refresh token with it
    [consent] = (await phone.call("GET", "/mobile/v1/consents")).json()["data"]
    assert consent["id"] == client.grant_id
    assert (await phone.call("DELETE", f"/mobile/v1/consents/{consent['id']}")).status_code == 204
    assert (await told(client, "POST", "/v1/points/holds", hold(sub, 10)))[0] in (401, 403)
    refreshed = await client.form(
        "/oauth2/token", grant_type="refresh_token", refresh_token=client.refresh_token
    )
    assert refreshed.json()["error"] == "invalid_grant"
    assert (await phone.call("GET", f"/mobile/v1/consents/{consent['id']}")).status_code == 404


async def test_the_partner_hears_of_the_decision_by_an_event(
    runtime: Runtime, register: Register, http: httpx.AsyncClient, phone: Phone
) -> None:
    partner = await register("members:read", "events:read")
    sub = await introduce(runtime, partner, phone)
    client = MemberClient(partner.credentials, http=http, deadline_seconds=5.0)
    asked = (await client.form("/oauth2/bc-authorize", login_hint=sub, scope="members:read")).json()
    denied = await phone.call("POST", f"/mobile/v1/authorizations/{asked['authorization']}/deny")
    assert denied.json()["state"] == "denied"
    async with transaction(runtime.pool) as connection:
        events = await connection.fetch(
            "SELECT payload FROM outbox_event WHERE type = 'authorization.decided' AND aggregate = $1",
            asked["authorization"],
        )
    assert [event["payload"] for event in events] == [
        {"authorization": asked["authorization"], "member": sub, "decision": "denied"}
    ]
    told_ = await client.form("/oauth2/token", grant_type=CIBA, auth_req_id=asked["auth_req_id"])
    assert told_.json()["error"] == "access_denied"
