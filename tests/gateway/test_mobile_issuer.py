"""The mobile issuer over HTTP: OAuth 2.1 for a client without a secret, clause by clause; tokens never cross issuers."""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Callable
from datetime import timedelta
from typing import Any, cast

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from phone import CALLBACK, LOOPBACK, Phone, enrol_member, read_answer, register_app

from gateway.app import build_edge, build_litestar
from gateway.client import PartnerClient
from gateway.runtime import Runtime
from kernel.database import transaction
from kernel.ids import from_wire
from kernel.settings import Settings
from partners.mobile import service as mobile
from partners.mobile import tokens
from partners.mobile.rules import GRACE

from .conftest import BASE_URL
from .test_member_tokens import MemberClient

TOKEN_PATH = "/mobile/oauth2/token"


@pytest.fixture
async def phone(runtime: Runtime, http: httpx.AsyncClient) -> Phone:
    """A member's phone, not logged in yet."""
    return Phone(http, runtime, await register_app(runtime), await enrol_member(runtime))


@pytest.fixture
async def logged_in(phone: Phone) -> Phone:
    await phone.log_in()
    return phone


def claims_of(token: str) -> dict[str, Any]:
    return dict(jwt.decode(token, options={"verify_signature": False}))


async def age_refresh(phone: Phone, seconds: float) -> None:
    """As if every refresh token of the session had been used so much earlier."""
    session = from_wire("ses", claims_of(phone.tokens["access_token"])["sid"])
    async with transaction(phone.runtime.pool) as connection:
        await connection.execute(
            "UPDATE mobile_refresh SET used_at = used_at - $2::interval WHERE session_id = $1",
            session,
            timedelta(seconds=seconds),
        )


async def session_of(phone: Phone) -> Any:
    session = from_wire("ses", claims_of(phone.tokens["access_token"])["sid"])
    async with transaction(phone.runtime.pool) as connection:
        return await connection.fetchrow("SELECT * FROM mobile_session WHERE id = $1", session)


async def audited(phone: Phone, action: str) -> int:
    sid = claims_of(phone.tokens["access_token"])["sid"]
    async with transaction(phone.runtime.pool) as connection:
        count: int = await connection.fetchval(
            "SELECT count(*) FROM audit_record WHERE action = $1 AND subject = $2", action, sid
        )
    return count


async def test_rfc_8414_the_metadata_leads_to_the_endpoints(http: httpx.AsyncClient) -> None:
    document = (await http.get("/.well-known/oauth-authorization-server/mobile")).json()
    assert document["issuer"] == f"{BASE_URL}/mobile"
    assert document["jwks_uri"] == f"{BASE_URL}/oauth2/jwks"
    assert document["token_endpoint_auth_methods_supported"] == ["none"]
    assert document["code_challenge_methods_supported"] == ["S256"]
    assert document["grant_types_supported"] == ["authorization_code", "refresh_token"]
    assert document["authorization_response_iss_parameter_supported"] is True
    resource = (await http.get("/.well-known/oauth-protected-resource/mobile/v1")).json()
    assert resource["resource"] == f"{BASE_URL}/mobile/v1"
    assert resource["authorization_servers"] == [document["issuer"]]
    for other in ("oauth-authorization-server", "oauth-protected-resource"):
        assert f"{BASE_URL}/mobile" not in (await http.get(f"/.well-known/{other}")).text


async def test_rfc_9068_a_token_says_whose_it_is_and_how_the_member_logged_in(logged_in: Phone) -> None:
    assert logged_in.tokens["token_type"] == "DPoP"
    assert logged_in.tokens["expires_in"] == 300
    claims = claims_of(logged_in.tokens["access_token"])
    assert jwt.get_unverified_header(logged_in.tokens["access_token"])["typ"] == "at+jwt"
    assert (claims["iss"], claims["aud"]) == (f"{BASE_URL}/mobile", f"{BASE_URL}/mobile/v1")
    assert claims["client_id"] == logged_in.app.client_id != claims["sub"]
    # the member's number is not among them
    assert " ".join(sorted(claims)) == (
        "amr aud auth_time client_id cnf exp iat iss jti livemode nbf scope sid sub"
    )
    assert list(claims["cnf"]) == ["jkt"]
    assert claims["amr"] == ["pwd", "otp"]
    me = (await logged_in.call("GET", "/mobile/v1/me")).json()
    assert (me["sub"], me["client_id"], me["session"]) == (claims["sub"], claims["client_id"], claims["sid"])


@pytest.mark.parametrize("address", [CALLBACK, LOOPBACK])
async def test_the_app_gets_its_code_where_it_asked_for_it(phone: Phone, address: str) -> None:
    code = await phone.code(redirect_uri=address)
    assert (await phone.exchange(code, redirect_uri=address)).status_code == 200


async def test_the_pages_of_a_login_may_lead_to_the_app_alone(phone: Phone) -> None:
    page = (await phone.begin()).headers["location"]
    shown = await phone.http.get(page)
    policy = shown.headers["content-security-policy"]
    assert "form-action 'self' com.example.bank:;" in policy
    assert "测试手机银行" in shown.text


async def test_rfc_9207_a_member_who_leaves_is_told_to_the_app_with_iss(phone: Phone) -> None:
    page = (await phone.begin()).headers["location"]
    cookies: dict[str, str] = {}
    await phone.visit("GET", page, cookies)
    answered = await phone.visit("POST", f"{page}/consent", cookies, {"decision": "deny"})
    answer = read_answer(answered.headers["location"])
    assert (answer["error"], answer["state"]) == ("access_denied", "s-1")
    assert (await phone.http.get(page)).status_code == 404


@pytest.mark.parametrize(
    "changes",
    [
        {"client_id": None},
        {"client_id": "mob_" + "0" * 26},
        {"client_id": "app_" + "0" * 26},
        {"redirect_uri": None},
        {"redirect_uri": "com.example.bank:/callback2"},
        {"redirect_uri": "com.example.bank:/callback/"},
        {"redirect_uri": "COM.example.bank:/callback"},
        {"redirect_uri": "http://127.0.0.1:8767/callback"},
        {"redirect_uri": "https://evil.example/"},
        {"state": "x" * 513},
        {"state": "a\r\nb"},
    ],
)
async def test_oauth_2_1_4_1_1_nothing_is_redirected_to_an_address_that_is_not_the_apps(
    phone: Phone, changes: dict[str, Any]
) -> None:
    refused = await phone.begin(**changes)
    assert refused.status_code == 400
    assert "location" not in refused.headers


async def test_rfc_6749_3_1_a_parameter_given_twice_is_refused(phone: Phone) -> None:
    doubled = await phone.http.get(f"/mobile/oauth2/authorize?{phone.query()}&state=x")
    assert doubled.status_code == 400


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"scope": "points:spend"}, "invalid_scope"),
        ({"resource": f"{BASE_URL}/v1"}, "invalid_target"),
        ({"prompt": "none"}, "login_required"),
    ],
)
async def test_oauth_2_1_4_1_2_1_other_refusals_are_told_to_the_app(
    phone: Phone, changes: dict[str, Any], error: str
) -> None:
    refused = await phone.begin(**changes)
    assert refused.status_code == 303
    answer = read_answer(refused.headers["location"])
    assert (answer["error"], answer["state"]) == (error, "s-1")


@pytest.mark.parametrize(
    ("clause", "changes", "status", "error"),
    [
        ("RFC 6749 §4.1.3 no code", {"code": None}, 400, "invalid_request"),
        ("RFC 6749 §4.1.3 another code", {"code": "A" * 43}, 400, "invalid_grant"),
        ("RFC 6749 §4.1.3 redirect_uri", {"redirect_uri": LOOPBACK}, 400, "invalid_grant"),
        ("RFC 6749 §4.1.3 no redirect_uri", {"redirect_uri": None}, 400, "invalid_grant"),
        ("RFC 7636 §4.6 no verifier", {"code_verifier": None}, 400, "invalid_grant"),
        ("RFC 7636 §4.6 another verifier", {"code_verifier": "w" * 64}, 400, "invalid_grant"),
        ("RFC 7636 §4.1 short verifier", {"code_verifier": "v"}, 400, "invalid_grant"),
        ("RFC 6749 §5.2 no client_id", {"client_id": None}, 401, "invalid_client"),
        ("RFC 6749 §5.2 unknown client", {"client_id": "mob_" + "0" * 26}, 401, "invalid_client"),
        ("RFC 6749 §2.3 a secret", {"client_secret": "x"}, 401, "invalid_client"),
        ("RFC 6749 §2.3 an assertion", {"client_assertion": "x.y.z"}, 401, "invalid_client"),
        ("RFC 8707", {"resource": f"{BASE_URL}/v1"}, 400, "invalid_target"),
        ("RFC 6749 §5.2 no grant type", {"grant_type": None}, 400, "invalid_request"),
        ("OAuth 2.1 password", {"grant_type": "password"}, 400, "unsupported_grant_type"),
        ("client_credentials", {"grant_type": "client_credentials"}, 400, "unsupported_grant_type"),
    ],
)
async def test_a_code_is_refused_and_not_used_up(
    phone: Phone, clause: str, changes: dict[str, Any], status: int, error: str
) -> None:
    code = await phone.code()
    refused = await phone.exchange(code, **changes)
    assert (refused.status_code, refused.json()["error"]) == (status, error), clause
    assert refused.headers["cache-control"] == "no-store"
    assert (await phone.exchange(code)).status_code == 200


async def test_rfc_9449_5_tokens_are_bound_to_a_key(phone: Phone) -> None:
    code = await phone.code()
    assert (await phone.exchange(code, proof=None)).json()["error"] == "invalid_dpop_proof"
    replayed = phone.proof("POST", TOKEN_PATH)
    assert (await phone.exchange("A" * 43, proof=replayed)).json()["error"] == "invalid_grant"
    assert (await phone.exchange(code, proof=replayed)).json()["error"] == "invalid_dpop_proof"
    elsewhere = phone.proof("POST", "/oauth2/token")
    assert (await phone.exchange(code, proof=elsewhere)).json()["error"] == "invalid_dpop_proof"


async def test_rfc_9449_10_a_code_bound_to_a_key_is_of_no_use_with_another(phone: Phone) -> None:
    await phone.log_in()
    code = await phone.code(dpop_jkt=claims_of(phone.tokens["access_token"])["cnf"]["jkt"])
    own = phone.key
    phone.key = ec.generate_private_key(ec.SECP256R1())
    assert (await phone.exchange(code)).json()["error"] == "invalid_grant"
    phone.key = own
    assert (await phone.exchange(code)).status_code == 200


async def test_rfc_6749_4_1_2_a_code_used_twice_ends_the_session(phone: Phone) -> None:
    code = await phone.code()
    phone.tokens = (await phone.exchange(code)).json()
    assert (await phone.exchange(code)).json()["error"] == "invalid_grant"
    assert (await phone.call("GET", "/mobile/v1/me")).status_code == 401
    assert (await phone.refresh()).json()["error"] == "invalid_grant"
    assert await audited(phone, "mobile.code_reuse_detected") == 1


async def test_a_code_lives_a_minute(phone: Phone) -> None:
    code = await phone.code()
    async with transaction(phone.runtime.pool) as connection:
        await connection.execute(
            "UPDATE mobile_login SET code_expires_at = now() WHERE client_id = $1", phone.app.client_id
        )
    assert (await phone.exchange(code)).json()["error"] == "invalid_grant"


# ---- refresh


async def test_rfc_9700_4_14_each_refresh_token_makes_the_next(logged_in: Phone) -> None:
    seen = {logged_in.tokens["refresh_token"]}
    for _ in range(3):
        answer = await logged_in.refresh()
        assert answer.status_code == 200, answer.text
        logged_in.tokens = answer.json()
        seen.add(logged_in.tokens["refresh_token"])
        assert (await logged_in.call("GET", "/mobile/v1/me")).status_code == 200
    assert len(seen) == 4


async def test_a_lost_answer_is_not_a_logout(logged_in: Phone) -> None:
    first = logged_in.tokens["refresh_token"]
    lost = (await logged_in.refresh(first)).json()["refresh_token"]
    again = (await logged_in.refresh(first)).json()["refresh_token"]
    assert again == lost
    await age_refresh(logged_in, GRACE.total_seconds() - 5)
    assert (await logged_in.refresh(first)).json()["refresh_token"] == lost
    assert (await logged_in.refresh(lost)).status_code == 200


async def test_rfc_9700_4_14_2_reuse_after_the_grace_ends_the_family_and_is_audited(logged_in: Phone) -> None:
    first = logged_in.tokens["refresh_token"]
    second = (await logged_in.refresh(first)).json()["refresh_token"]
    await age_refresh(logged_in, GRACE.total_seconds() + 1)
    for token in (first, second, first):
        assert (await logged_in.refresh(token)).json()["error"] == "invalid_grant"
    assert (await logged_in.call("GET", "/mobile/v1/me")).json()["code"] == "invalid_token"
    assert (await session_of(logged_in))["ended_because"] == "refresh_reused"
    assert await audited(logged_in, "mobile.refresh_reuse_detected") == 1


async def test_whoever_has_a_refresh_token_without_the_key_gets_nothing_and_ends_nothing(
    logged_in: Phone, runtime: Runtime
) -> None:
    used = logged_in.tokens["refresh_token"]
    logged_in.tokens = (await logged_in.refresh(used)).json()
    await age_refresh(logged_in, 3600)
    own = logged_in.key
    logged_in.key = ec.generate_private_key(ec.SECP256R1())
    for token in (used, logged_in.tokens["refresh_token"]):
        assert (await logged_in.refresh(token)).json()["error"] == "invalid_grant"
    logged_in.key = own
    other = await register_app(runtime)
    foreign = await logged_in.refresh(client_id=other.client_id)
    assert foreign.json()["error"] == "invalid_grant"
    assert (await logged_in.refresh()).status_code == 200


@pytest.mark.parametrize("token", ["", "x", "A" * 43, "x" * 5000, "二"])
async def test_a_refresh_token_of_nobody_is_refused(logged_in: Phone, token: str) -> None:
    refused = await logged_in.token(grant_type="refresh_token", refresh_token=token)
    assert refused.json()["error"] == ("invalid_request" if not token else "invalid_grant")


async def test_rfc_6749_6_a_refresh_may_ask_for_less_but_not_for_more(logged_in: Phone) -> None:
    less = (await logged_in.refresh(scope="member:read")).json()
    assert less["scope"] == "member:read"
    refused = await logged_in.call("GET", "/mobile/v1/consents", token=less["access_token"])
    assert refused.json()["code"] == "insufficient_scope"
    narrow = Phone(logged_in.http, logged_in.runtime, logged_in.app, logged_in.member)
    await narrow.log_in(scope="member:read")
    assert (await narrow.refresh(scope="member:read consents:manage")).json()["error"] == "invalid_scope"


async def test_a_phone_left_idle_for_a_month_logs_in_anew(logged_in: Phone) -> None:
    async with transaction(logged_in.runtime.pool) as connection:
        await connection.execute(
            "UPDATE mobile_session SET refreshed_at = refreshed_at - interval '30 days' WHERE client_id = $1",
            logged_in.app.client_id,
        )
    assert (await logged_in.refresh()).json()["error"] == "invalid_grant"


@pytest.fixture
async def two_workers(
    settings: Settings, http: httpx.AsyncClient
) -> AsyncGenerator[list[httpx.AsyncClient], None]:
    """The gateway in two processes' worth of pools and memory."""
    second = Runtime(settings)
    async with second.open():
        edge = build_edge(second, build_litestar(second, openapi=None))
        transport = httpx.ASGITransport(app=cast(Any, edge), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url=BASE_URL) as other:
            yield [http, other]


async def crowd(step: Callable[[int], Any], copies: int = 100) -> list[httpx.Response]:
    gate = asyncio.Semaphore(12)

    async def one(number: int) -> httpx.Response:
        async with gate:
            answer: httpx.Response = await step(number)
            return answer

    return await asyncio.gather(*(one(number) for number in range(copies)))


def with_worker(phone: Phone, http: httpx.AsyncClient) -> Phone:
    """The same phone, talking to another process."""
    twin = Phone(http, phone.runtime, phone.app, phone.member)
    twin.key, twin.verifier, twin.tokens = phone.key, phone.verifier, phone.tokens
    return twin


async def test_of_a_hundred_refreshes_at_once_all_get_one_successor(
    logged_in: Phone, two_workers: list[httpx.AsyncClient]
) -> None:
    phones = [with_worker(logged_in, http) for http in two_workers]
    answers = await crowd(lambda number: phones[number % 2].refresh())
    assert {answer.status_code for answer in answers} == {200}
    successors = {answer.json()["refresh_token"] for answer in answers}
    assert len(successors) == 1
    assert (await logged_in.refresh(successors.pop())).status_code == 200
    session = await session_of(logged_in)
    async with transaction(logged_in.runtime.pool) as connection:
        kept = await connection.fetch(
            "SELECT generation FROM mobile_refresh WHERE session_id = $1 ORDER BY generation", session["id"]
        )
    assert [record["generation"] for record in kept] == [0, 1, 2]
    assert session["ended_at"] is None


async def test_of_a_hundred_copies_of_a_code_one_is_exchanged(
    phone: Phone, two_workers: list[httpx.AsyncClient]
) -> None:
    code = await phone.code()
    phones = [with_worker(phone, http) for http in two_workers]
    answers = await crowd(lambda number: phones[number % 2].exchange(code))
    assert [answer.status_code for answer in answers].count(200) == 1
    [winner] = [answer for answer in answers if answer.status_code == 200]
    phone.tokens = winner.json()
    assert (await phone.call("GET", "/mobile/v1/me")).status_code == 401


async def test_of_a_hundred_reuses_at_once_the_family_ends_once(
    logged_in: Phone, two_workers: list[httpx.AsyncClient]
) -> None:
    first = logged_in.tokens["refresh_token"]
    await logged_in.refresh(first)
    await age_refresh(logged_in, 60)
    phones = [with_worker(logged_in, http) for http in two_workers]
    answers = await crowd(lambda number: phones[number % 2].refresh(first), copies=40)
    assert {answer.json().get("error") for answer in answers} == {"invalid_grant"}
    assert await audited(logged_in, "mobile.refresh_reuse_detected") == 1


async def test_a_read_replayed_at_another_worker_is_refused(
    logged_in: Phone, two_workers: list[httpx.AsyncClient]
) -> None:
    token = logged_in.tokens["access_token"]
    for method, path in (
        ("GET", "/mobile/v1/me"),
        ("POST", f"/mobile/v1/authorizations/aut_{'0' * 26}/deny"),
    ):
        proof = logged_in.proof(method, path, token=token)
        headers = {"authorization": f"DPoP {token}", "dpop": proof}
        answers = [await http.request(method, path, headers=headers) for http in two_workers]
        assert answers[0].status_code in (200, 404)
        assert (answers[1].status_code, answers[1].json()["code"]) == (401, "invalid_dpop_proof")


# ---- the end of a session


@pytest.mark.parametrize("which", ["access_token", "refresh_token"])
async def test_rfc_7009_revoking_any_token_ends_the_session_everywhere(
    logged_in: Phone, two_workers: list[httpx.AsyncClient], which: str
) -> None:
    form = {"client_id": logged_in.app.client_id, "token": logged_in.tokens[which]}
    assert (await logged_in.http.post("/mobile/oauth2/revoke", data=form)).status_code == 200
    for http in two_workers:
        twin = with_worker(logged_in, http)
        assert (await twin.call("GET", "/mobile/v1/me")).json()["code"] == "invalid_token"
        assert (await twin.refresh()).json()["error"] == "invalid_grant"
    assert (await logged_in.http.post("/mobile/oauth2/revoke", data=form)).status_code == 200


async def test_rfc_7009_2_1_another_apps_token_is_not_ended(logged_in: Phone, runtime: Runtime) -> None:
    other = await register_app(runtime)
    form = {"client_id": other.client_id, "token": logged_in.tokens["refresh_token"]}
    assert (await logged_in.http.post("/mobile/oauth2/revoke", data=form)).status_code == 200
    assert (await logged_in.call("GET", "/mobile/v1/me")).status_code == 200
    for token in ("x", "x.y.z", "二", secrets.token_urlsafe(32)):
        assert (
            await logged_in.http.post("/mobile/oauth2/revoke", data={**form, "token": token})
        ).status_code == 200
    nobody = await logged_in.http.post("/mobile/oauth2/revoke", data={"token": "x"})
    assert (nobody.status_code, nobody.json()["error"]) == (401, "invalid_client")


async def test_an_app_that_was_switched_off_is_refused_at_once(logged_in: Phone, runtime: Runtime) -> None:
    async with transaction(runtime.pool) as connection:
        await mobile.switch_off_app(
            connection, client_id=logged_in.app.client_id, actor="test", now=runtime.clock.now()
        )
    assert (await logged_in.call("GET", "/mobile/v1/me")).status_code == 401
    assert (await logged_in.refresh()).json()["error"] == "invalid_client"
    assert (await logged_in.begin()).status_code == 400


async def test_a_member_has_ten_phones_at_most_and_the_oldest_is_logged_out(
    logged_in: Phone, runtime: Runtime
) -> None:
    session, now = await session_of(logged_in), runtime.clock.now()
    async with transaction(runtime.pool) as connection:
        await connection.execute(
            """
            INSERT INTO mobile_session (id, client_id, member_id, bucket, jkt, scopes, authenticated_at, methods,
                                        started_at, refreshed_at)
            SELECT gen_random_uuid(), client_id, member_id, bucket, jkt, scopes, authenticated_at, methods,
                   started_at + make_interval(secs => n), refreshed_at
              FROM mobile_session, generate_series(1, 9) AS n
             WHERE id = $1
            """,
            session["id"],
        )
        await connection.execute(
            "UPDATE mobile_session SET refreshed_at = $2 WHERE member_id = $1", session["member_id"], now
        )
    assert (await logged_in.call("GET", "/mobile/v1/me")).status_code == 200
    await Phone(logged_in.http, runtime, logged_in.app, logged_in.member).log_in()
    assert (await logged_in.call("GET", "/mobile/v1/me")).status_code == 401
    assert (await session_of(logged_in))["ended_because"] == "replaced"


# ---- tokens never cross issuers


async def test_a_mobile_token_is_nothing_to_the_partner_api(logged_in: Phone) -> None:
    for path in ("/v1/me", "/v1/events", "/oauth2/grants/grt_" + "0" * 26):
        refused = await logged_in.call("GET", path)
        assert (refused.status_code, refused.json()["code"]) == (401, "invalid_token"), path


async def test_a_partners_token_is_nothing_to_the_mobile_api(
    http: httpx.AsyncClient, partner: PartnerClient
) -> None:
    client = MemberClient(partner.credentials, http=http, deadline_seconds=5.0)
    answers = [
        await client.send(method, path)
        for method, path in (
            ("GET", "/mobile/v1/me"),
            ("GET", "/mobile/v1/consents"),
            ("POST", "/mobile/v1/authorizations/aut_" + "0" * 26 + "/deny"),
        )
    ]
    assert {(answer.status, answer.json()["code"]) for answer in answers} == {(401, "invalid_token")}


async def test_neither_issuer_takes_the_others_clients_codes_or_refresh_tokens(
    logged_in: Phone, partner: PartnerClient, http: httpx.AsyncClient
) -> None:
    client = MemberClient(partner.credentials, http=http, deadline_seconds=5.0)
    for form in (
        {"grant_type": "refresh_token", "refresh_token": logged_in.tokens["refresh_token"]},
        {"grant_type": "authorization_code", "code": await logged_in.code(), "redirect_uri": CALLBACK},
    ):
        refused = await client.form("/oauth2/token", **form)
        assert refused.json()["error"] in ("invalid_grant", "unauthorized_client")
    inactive = await client.form("/oauth2/introspect", token=logged_in.tokens["access_token"])
    assert inactive.json() == {"active": False}
    revoked = await client.form("/oauth2/revoke", token=logged_in.tokens["access_token"])
    assert revoked.status_code == 200
    assert (await logged_in.call("GET", "/mobile/v1/me")).status_code == 200
    # a partner at the mobile issuer: its name and its assertion are nothing there
    app_id = partner.credentials.client_id
    named = await logged_in.token(client_id=app_id, grant_type="refresh_token", refresh_token="x")
    asserted = await logged_in.token(
        client_id=app_id,
        grant_type="refresh_token",
        refresh_token="x",
        client_assertion=client.make_assertion(),
    )
    assert [answer.json()["error"] for answer in (named, asserted)] == ["invalid_client"] * 2
    # the bank's app at the partner issuer, without an assertion
    bare = await http.post(
        "/oauth2/token",
        data={"client_id": logged_in.app.client_id, "grant_type": "refresh_token"},
        headers={"dpop": logged_in.proof("POST", "/oauth2/token")},
    )
    assert bare.json()["error"] == "invalid_client"
    opened = await http.get(f"/oauth2/authorize?{logged_in.query()}")
    assert (opened.status_code, "location" in opened.headers) == (400, False)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"iss": BASE_URL}, "issuer"),
        ({"iss": f"{BASE_URL}/mobile/"}, "issuer"),
        ({"aud": f"{BASE_URL}/v1"}, "resource"),
        ({"livemode": True}, "mode"),
        ({"exp": 1}, "expired"),
        ({"nbf": 2**40}, "not valid yet"),
        ({"sid": "ses_x"}, "sid"),
        ({"sid": "ses_" + "0" * 26}, "session"),
    ],
)
async def test_rfc_9068_4_a_token_of_ours_that_is_not_for_this_is_refused(
    logged_in: Phone, change: dict[str, Any], reason: str
) -> None:
    claims = claims_of(logged_in.tokens["access_token"]) | change
    forged = logged_in.runtime.signer.sign(claims, typ="at+jwt")
    refused = await logged_in.call("GET", "/mobile/v1/me", token=forged)
    assert (refused.status_code, refused.json()["code"]) == (401, "invalid_token")
    assert reason in refused.json()["reason"]
    assert refused.headers["www-authenticate"].startswith('DPoP error="invalid_token"')


async def test_a_bearer_and_a_foreign_key_are_refused(logged_in: Phone) -> None:
    token = logged_in.tokens["access_token"]
    bearer = await logged_in.http.get("/mobile/v1/me", headers={"authorization": f"Bearer {token}"})
    assert (bearer.status_code, bearer.json()["code"]) == (401, "invalid_token")
    assert (await logged_in.http.get("/mobile/v1/me")).json()["code"] == "token_missing"
    logged_in.key = ec.generate_private_key(ec.SECP256R1())
    assert (await logged_in.call("GET", "/mobile/v1/me")).json()["code"] == "invalid_dpop_proof"


async def test_no_partner_knows_the_members_name_here(logged_in: Phone, runtime: Runtime) -> None:
    sub = claims_of(logged_in.tokens["access_token"])["sub"]
    assert sub == tokens.subject_of(logged_in.member.ref, runtime.vault)
    async with transaction(runtime.pool) as connection:
        known = await connection.fetchval("SELECT count(*) FROM oauth_subject WHERE sub = $1", sub)
    assert known == 0
