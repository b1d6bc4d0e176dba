"""The mobile API over HTTP: who may do what with every route, and that a member reaches nothing of another's."""

from typing import Any

import httpx
import pytest
from msgspec import Struct
from phone import Phone, enrol_member, register_app

from gateway.app import ROUTES
from gateway.client import PartnerClient
from gateway.runtime import Runtime
from kernel.database import Connection, transaction
from kernel.ids import to_wire
from partners.mobile.scopes import MOBILE_SCOPES
from partners.oauth import service as oauth
from partners.oauth.scopes import SCOPES

from .conftest import Register
from .test_ciba_journey import introduce
from .test_member_tokens import MemberClient, earn

NOTHING = "0" * 26
READ, ANSWER, MANAGE = "member:read", "authorizations:answer", "consents:manage"

#: every route, the scope it takes, and the status its owner gets
MATRIX: dict[tuple[str, str], tuple[str | None, int]] = {
    ("GET", "/mobile/v1/me"): (None, 200),
    ("GET", "/mobile/v1/points"): (READ, 200),
    ("GET", "/mobile/v1/points/entries"): (READ, 200),
    ("GET", "/mobile/v1/points/expiring"): (READ, 200),
    ("GET", "/mobile/v1/membership"): (READ, 200),
    ("GET", "/mobile/v1/authorizations"): (ANSWER, 200),
    ("POST", "/mobile/v1/authorizations/{authorization}/approve"): (ANSWER, 200),
    ("POST", "/mobile/v1/authorizations/{authorization}/deny"): (ANSWER, 409),
    ("GET", "/mobile/v1/consents"): (MANAGE, 200),
    ("GET", "/mobile/v1/consents/{consent}"): (MANAGE, 200),
    ("DELETE", "/mobile/v1/consents/{consent}"): (MANAGE, 204),
}


class Scene(Struct, frozen=True, kw_only=True):
    """What a member has: something asked, something allowed."""

    authorization: str
    consent: str
    approval: dict[str, Any]

    def path(self, template: str) -> str:
        return template.format(authorization=self.authorization, consent=self.consent)


ABSENT = Scene(
    authorization=f"aut_{NOTHING}",
    consent=f"grt_{NOTHING}",
    approval={"details_hash": "A" * 43, "binding_message": None},
)


@pytest.fixture
async def phone(runtime: Runtime, http: httpx.AsyncClient) -> Phone:
    return await another_phone(runtime, http)


async def another_phone(runtime: Runtime, http: httpx.AsyncClient, **asked: Any) -> Phone:
    """A member of its own, logged in."""
    phone = Phone(http, runtime, await register_app(runtime), await enrol_member(runtime))
    await phone.log_in(**asked)
    return phone


async def prepare(runtime: Runtime, partner: PartnerClient, phone: Phone) -> Scene:
    sub = await introduce(runtime, partner, phone)
    client = MemberClient(partner.credentials, http=phone.http, deadline_seconds=5.0)
    asked = await client.form("/oauth2/bc-authorize", login_hint=sub, scope="members:read")
    assert asked.status_code == 200, asked.text
    async with transaction(runtime.pool) as connection:
        caller = await connection.fetchval("SELECT partner_id FROM oauth_subject WHERE sub = $1", sub)
        consent = await oauth.grant_consent(
            connection,
            partner_id=caller,
            member=phone.member.ref,
            scopes=["members:read", "points:earn"],
            ends_on=runtime.clock.now().date().replace(year=2031),
            now=runtime.clock.now(),
        )
    shown = (await phone.call("GET", "/mobile/v1/authorizations")).json()["data"]
    [mine] = [one for one in shown if one["id"] == asked.json()["authorization"]]
    return Scene(
        authorization=mine["id"],
        consent=to_wire("grt", consent),
        approval={"details_hash": mine["details_hash"], "binding_message": None},
    )


async def ask(phone: Phone, method: str, template: str, scene: Scene) -> tuple[int, str, str]:
    body = scene.approval if template.endswith("/approve") else None
    answer = await phone.call(method, scene.path(template), body)
    if answer.status_code < 400:
        return answer.status_code, "", ""
    problem = answer.json()
    return answer.status_code, problem["code"], problem["detail"]


def shape(path: str) -> str:
    return "/".join("{}" if part.startswith("{") else part for part in path.split("/"))


def test_every_mobile_route_is_in_the_matrix_and_declares_its_audience() -> None:
    served = [
        (method, shape(path), route.opt)
        for route in ROUTES
        for method in route.http_methods - {"OPTIONS", "HEAD"}
        for path in route.paths
        if path.startswith("/mobile/v1")
    ]
    assert {(method, path) for method, path, _ in served} == {
        (method, shape(path)) for method, path in MATRIX
    }
    assert {opt.get("audience") for _, _, opt in served} == {"mobile"}
    assert {opt.get("scope") for _, _, opt in served} == {"self", *MOBILE_SCOPES}


def test_no_other_route_is_for_the_app() -> None:
    elsewhere = {
        path
        for route in ROUTES
        for path in route.paths
        if route.opt.get("audience") is not None and not path.startswith("/mobile/v1/")
    }
    assert elsewhere == set()


@pytest.mark.parametrize(("method", "route"), [pytest.param(*route, id=" ".join(route)) for route in MATRIX])
async def test_a_route_serves_its_member_with_its_scope_and_nobody_else(
    runtime: Runtime,
    register: Register,
    http: httpx.AsyncClient,
    phone: Phone,
    method: str,
    route: str,
) -> None:
    scope, status = MATRIX[method, route]
    partner = await register(*sorted(SCOPES))
    own = await prepare(runtime, partner, phone)
    path = own.path(route)
    # anonymous, and a partner who may do everything
    assert (await http.request(method, path)).status_code == 401
    token_of_partner = await partner.send(method, path, b"")
    assert (token_of_partner.status, token_of_partner.json()["code"]) == (401, "invalid_token")
    # another member, who finds it absent, with the same words as what nobody has
    stranger = await another_phone(runtime, http)
    if "{" in route:
        foreign, absent = [await ask(stranger, method, route, scene) for scene in (own, ABSENT)]
        assert foreign == absent
        assert foreign[0] == 404
    # the member with every scope but the one
    if scope is not None:
        narrow = Phone(http, runtime, phone.app, phone.member)
        await narrow.log_in(scope=" ".join(sorted(set(MOBILE_SCOPES) - {scope})))
        assert (await ask(narrow, method, route, own))[:2] == (403, "insufficient_scope")
    if route.endswith("/deny"):
        await ask(phone, "POST", "/mobile/v1/authorizations/{authorization}/approve", own)
    assert (await ask(phone, method, route, own))[0] == status


async def test_a_member_sees_its_own_points_whatever_partner_they_came_by(
    runtime: Runtime, register: Register, http: httpx.AsyncClient, phone: Phone
) -> None:
    for _ in range(2):
        partner = await register(*sorted(SCOPES))
        sub = await introduce(runtime, partner, phone)
        await prepare(runtime, partner, phone)
        await earn(MemberClient(partner.credentials, http=http, deadline_seconds=5.0), sub)
        own = (await partner.get(f"/v1/members/{sub}/points/entries"))["data"]
        assert len(own) == 1
    shown = (await phone.call("GET", "/mobile/v1/points/entries?limit=1")).json()
    more = (
        await phone.call("GET", f"/mobile/v1/points/entries?limit=1&cursor={shown['next_cursor']}")
    ).json()
    assert (len(shown["data"]), len(more["data"]), more["next_cursor"]) == (1, 1, None)
    points = (await phone.call("GET", "/mobile/v1/points")).json()
    assert points["available_points"] == shown["data"][0]["points"] + more["data"][0]["points"]
    expiring = (await phone.call("GET", "/mobile/v1/points/expiring")).json()
    assert sum(line["points"] for line in expiring["expiring"]) == points["available_points"]
    assert (await phone.call("GET", "/mobile/v1/membership")).json()["tier"]
    # a cursor is of one member
    stranger = await another_phone(runtime, http)
    stolen = await stranger.call("GET", f"/mobile/v1/points/entries?cursor={shown['next_cursor']}")
    assert (stolen.status_code, stolen.json()["code"]) == (400, "invalid_cursor")


async def test_consents_are_listed_page_by_page_and_withdrawn_at_once_also_while_suspended(
    runtime: Runtime, register: Register, http: httpx.AsyncClient, phone: Phone
) -> None:
    scenes = [await prepare(runtime, await register(*sorted(SCOPES)), phone) for _ in range(3)]
    seen: list[str] = []
    cursor = ""
    while True:
        page = (await phone.call("GET", f"/mobile/v1/consents?limit=2{cursor}")).json()
        seen += [consent["id"] for consent in page["data"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert seen == [scene.consent for scene in reversed(scenes)]
    first = (await phone.call("GET", f"/mobile/v1/consents/{scenes[0].consent}")).json()
    assert [scope["code"] for scope in first["scopes"]] == ["members:read", "points:earn"]
    assert all(scope["zh"] and scope["en"] for scope in first["scopes"])
    async with transaction(runtime.pool) as connection:
        await connection.execute(
            "UPDATE registry_partner SET status = 'suspended' WHERE id IN "
            "(SELECT partner_id FROM oauth_consent WHERE member_id = $1)",
            phone.member.ref.member_id,
        )
    for scene in scenes:
        assert (await phone.call("DELETE", f"/mobile/v1/consents/{scene.consent}")).status_code == 204
        gone = await phone.call("DELETE", f"/mobile/v1/consents/{scene.consent}")
        assert (gone.status_code, gone.json()["code"]) == (404, "consent_not_found")
    assert (await phone.call("GET", "/mobile/v1/consents")).json()["data"] == []


async def test_an_old_login_does_not_approve_what_costs_points(
    runtime: Runtime, register: Register, phone: Phone, owner_connection: Connection
) -> None:
    partner = await register(*sorted(SCOPES))
    sub = await introduce(runtime, partner, phone)
    client = MemberClient(partner.credentials, http=phone.http, deadline_seconds=5.0)
    await client.form("/oauth2/bc-authorize", login_hint=sub, scope="points:spend")
    # the application itself may not make a login younger or older
    await owner_connection.execute(
        "UPDATE mobile_session SET authenticated_at = authenticated_at - interval '1 hour' WHERE member_id = $1",
        phone.member.ref.member_id,
    )
    [shown] = (await phone.call("GET", "/mobile/v1/authorizations")).json()["data"]
    assert shown["needs_fresh_login"] is True
    approval = {"details_hash": shown["details_hash"], "binding_message": shown["binding_message"]}
    path = f"/mobile/v1/authorizations/{shown['id']}/approve"
    refused = await phone.call("POST", path, approval)
    assert (refused.status_code, refused.json()["code"]) == (401, "insufficient_user_authentication")
    # RFC 9470 §3
    challenge = refused.headers["www-authenticate"]
    assert 'error="insufficient_user_authentication"' in challenge and "max_age=300" in challenge
    await phone.log_in()
    assert (await phone.call("POST", path, approval)).status_code == 200


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422),
        ({"details_hash": "A" * 43}, 422),
        ({"details_hash": "A" * 42, "binding_message": None}, 422),
        ({"details_hash": "A" * 43, "binding_message": None, "sensitive": "yes"}, 422),
        ({"details_hash": "A" * 43, "binding_message": None, "extra": 1}, 422),
        ({"details_hash": "A" * 43, "binding_message": "x" * 65}, 422),
        ({"details_hash": "A" * 43, "binding_message": None}, 409),
    ],
)
async def test_an_approval_says_what_was_shown(
    runtime: Runtime, register: Register, phone: Phone, body: dict[str, Any], status: int
) -> None:
    scene = await prepare(runtime, await register(*sorted(SCOPES)), phone)
    path = f"/mobile/v1/authorizations/{scene.authorization}/approve"
    assert (await phone.call("POST", path, body)).status_code == status
    [waiting] = (await phone.call("GET", "/mobile/v1/authorizations")).json()["data"]
    assert waiting["id"] == scene.authorization


@pytest.mark.parametrize("name", ["x", "aut_", "grt_" + NOTHING, "aut_" + "0" * 25 + "u", "aut_" + "Z" * 26])
async def test_a_name_of_no_request_is_absent(phone: Phone, name: str) -> None:
    assert (await phone.call("POST", f"/mobile/v1/authorizations/{name}/deny")).status_code == 404
