"""A member's tokens over HTTP: what they open, for whom, how much, and how fast they stop."""

import base64
import hashlib
import json
from datetime import timedelta
from typing import Any, Protocol
from uuid import uuid4

import httpx
import msgspec
import pytest

from gateway.app import ROUTES
from gateway.client import Answer, PartnerClient
from gateway.runtime import Runtime
from kernel.calendar import business_date, rfc3339
from kernel.caller import MemberRef
from kernel.database import transaction
from kernel.ids import to_wire
from partners.oauth import grants
from partners.oauth import service as oauth
from partners.oauth.grants import Authentication
from partners.oauth.interaction import approve_interaction
from partners.oauth.scopes import SCOPES, member_scopes
from partners.offers.sandbox import ecommerce_offer, publish_definition
from partners.registry import service as registry

REDIRECT = "http://127.0.0.1:8765/callback"
VERIFIER = "v" * 64
EVERYTHING = " ".join(member_scopes(sorted(SCOPES)))


class MemberClient(PartnerClient):
    """A partner's client that calls with a member's token in place of its own."""

    grant_id = ""
    refresh_token = ""

    def adopt(self, issued: dict[str, Any]) -> None:
        self._token = issued["access_token"]
        self._token_hash = digest(self._token)
        self._renew_at = float("inf")
        self.grant_id = issued["grant_id"]
        self.refresh_token = issued["refresh_token"]

    def _may_renew(self, answer: Answer, token: str) -> bool:
        return False

    async def form(self, path: str, **fields: str) -> httpx.Response:
        """A form to an OAuth endpoint, with a fresh assertion."""
        form = {
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            "client_assertion": self.make_assertion(),
            **fields,
        }
        headers = {"dpop": self.make_proof("POST", path)} if path == "/oauth2/token" else {}
        return await self._http.post(path, data=form, headers=headers)


def digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


class Grant(Protocol):
    """Leads one of the partner's members through the whole way to a token."""

    async def __call__(
        self, partner: PartnerClient, member: str, scope: str = EVERYTHING, **asked: str
    ) -> MemberClient: ...


@pytest.fixture
def grant(runtime: Runtime, http: httpx.AsyncClient) -> Grant:
    async def granted(
        partner: PartnerClient, member: str, scope: str = EVERYTHING, **asked: str
    ) -> MemberClient:
        client = MemberClient(partner.credentials, http=http, deadline_seconds=5.0)
        client_id, now = partner.credentials.client_id, runtime.clock.now()
        async with transaction(runtime.pool) as connection:
            await registry.add_redirect_uri(
                connection, client_id=client_id, uri=REDIRECT, sandbox=True, actor="test", now=now
            )
        pushed = await client.form(
            "/oauth2/par",
            response_type="code",
            redirect_uri=REDIRECT,
            scope=scope,
            code_challenge=digest(VERIFIER),
            code_challenge_method="S256",
            state="s",
            **asked,
        )
        assert pushed.status_code == 201, pushed.text
        opened = await http.get(
            "/oauth2/authorize",
            params={"client_id": client_id, "request_uri": pushed.json()["request_uri"]},
        )
        assert opened.status_code == 303
        handle = opened.headers["location"].removeprefix("/oauth2/interactions/")
        ref = await find_member(runtime, partner, member)
        async with transaction(runtime.pool) as connection:
            url = await approve_interaction(
                connection,
                handle=handle,
                member=ref,
                authentication=Authentication(at=now, methods=["pwd", "otp"]),
                sensitive_given=True,
                now=runtime.clock.now(),
            )
        issued = await client.form(
            "/oauth2/token",
            grant_type="authorization_code",
            code=httpx.URL(url).params["code"],
            redirect_uri=REDIRECT,
            code_verifier=VERIFIER,
        )
        assert issued.status_code == 200, issued.text
        assert issued.headers["cache-control"] == "no-store"
        client.adopt(issued.json())
        return client

    return granted


async def partner_id_of(runtime: Runtime, partner: PartnerClient) -> Any:
    async with transaction(runtime.pool) as connection:
        client = await registry.find_client(connection, partner.credentials.client_id)
    assert client is not None
    return client.partner_id


async def find_member(runtime: Runtime, partner: PartnerClient, member: str) -> MemberRef:
    partner_id = await partner_id_of(runtime, partner)
    async with transaction(runtime.pool) as connection:
        [ref] = await runtime.subjects.resolve_each(
            connection, [(partner_id, member)], scope="members:read", now=runtime.clock.now()
        )
    assert isinstance(ref, MemberRef)
    return ref


async def bind(partner: PartnerClient, count: int = 2) -> list[str]:
    bound = await partner.post(
        "/v1/members/bindings", {"customer_refs": [str(uuid4()) for _ in range(count)]}
    )
    return [binding["member"] for binding in bound["bindings"]]


async def earn(client: PartnerClient, member: str, amount_fen: int = 100_000) -> Any:
    return await client.post(
        "/v1/points/earnings",
        {
            "member": member,
            "source_ref": str(uuid4()),
            "kind": "purchase",
            "occurred_at": "2026-11-11T20:00:00+08:00",
            "amount_fen": amount_fen,
        },
    )


async def told(client: PartnerClient, method: str, path: str, body: Any = None) -> tuple[int, str]:
    raw = b"" if body is None else msgspec.json.encode(body)
    answer = await client.send(method, path, raw, idempotency_key=str(uuid4()) if raw else None)
    return answer.status, "" if answer.status < 400 else answer.json()["code"]


def hold(member: str, points: int) -> dict[str, Any]:
    return {"member": member, "points": points, "order_ref": "order"}


async def test_a_members_token_works_for_its_member_and_finds_no_other(
    partner: PartnerClient, grant: Grant
) -> None:
    own, other = await bind(partner)
    await earn(partner, other)
    foreign = (await partner.post("/v1/points/holds", hold(other, 10)))["id"]
    client = await grant(partner, own)
    await earn(client, own)
    assert (await client.get(f"/v1/members/{own}/points"))["available_points"] > 0
    mine = (await client.post("/v1/points/holds", hold(own, 10)))["id"]
    assert (await client.get(f"/v1/points/holds/{mine}"))["points"] == 10
    for path in ("", "/points", "/points/entries", "/membership", "/entitlements"):
        assert await told(client, "GET", f"/v1/members/{own}{path}") == (200, "")
        assert await told(client, "GET", f"/v1/members/{other}{path}") == (404, "member_not_found")
    assert await told(client, "POST", "/v1/points/holds", hold(other, 1)) == (404, "member_not_found")
    assert await told(client, "POST", "/v1/points/spends", hold(other, 1)) == (404, "member_not_found")
    absent = "hld_" + "0" * 26
    for method, step in (("GET", ""), ("POST", "/capture"), ("POST", "/release")):
        refused = [
            await told(client, method, f"/v1/points/holds/{id}{step}", {} if step else None)
            for id in (foreign, absent)
        ]
        assert refused[0] == refused[1] and refused[0][0] == 404
    assert (await client.post(f"/v1/points/holds/{mine}/capture", {}))["state"] == "captured"


async def test_a_members_token_gets_no_answer_that_was_given_about_another(
    partner: PartnerClient, grant: Grant
) -> None:
    own, other = await bind(partner)
    await earn(partner, other)
    body, key = msgspec.json.encode(hold(other, 10)), str(uuid4())
    answer = await partner.send("POST", "/v1/points/holds", body, idempotency_key=key)
    assert answer.status == 201
    client = await grant(partner, own)
    assert (await client.send("POST", "/v1/points/holds", body, idempotency_key=key)).status == 404


def test_only_routes_that_look_up_their_own_member_take_a_members_token() -> None:
    taking = {
        (min(route.http_methods - {"OPTIONS", "HEAD"}), path)
        for route in ROUTES
        if route.opt.get("member_token") is True
        for path in route.paths
    }
    assert taking == {
        ("GET", "/v1/me"),
        ("GET", "/v1/members/{sub:str}"),
        ("GET", "/v1/members/{sub:str}/points"),
        ("GET", "/v1/members/{sub:str}/points/entries"),
        ("GET", "/v1/members/{sub:str}/membership"),
        ("GET", "/v1/members/{sub:str}/membership/history"),
        ("GET", "/v1/members/{sub:str}/entitlements"),
        ("POST", "/v1/members/{sub:str}/activity"),
        ("POST", "/v1/points/earnings"),
        ("POST", "/v1/points/quotes"),
        ("POST", "/v1/points/spends"),
        ("POST", "/v1/points/holds"),
        ("GET", "/v1/points/holds/{id:str}"),
        ("POST", "/v1/points/holds/{id:str}/capture"),
        ("POST", "/v1/points/holds/{id:str}/release"),
        ("POST", "/v1/points/dry_runs/earn"),
        ("POST", "/v1/points/dry_runs/spend"),
        ("GET", "/v1/rewards"),
        ("POST", "/v1/offers/search"),
        ("POST", "/v1/quotes"),
        ("GET", "/v1/quotes/{quote_id:str}"),
        ("POST", "/v1/quotes/{quote_id:str}/disclosure"),
        ("POST", "/v1/quotes/{quote_id:str}/accept"),
        ("GET", "/v1/plans/{plan_id:str}"),
        ("GET", "/v1/plans/{plan_id:str}/schedule"),
        ("GET", "/oauth2/grants/{grant_id:str}"),
        ("DELETE", "/oauth2/grants/{grant_id:str}"),
    }


async def test_other_routes_refuse_a_members_token(partner: PartnerClient, grant: Grant) -> None:
    own, _ = await bind(partner)
    client = await grant(partner, own)
    for path in ("/v1/keys", "/v1/points/operations/ent_" + "0" * 26):
        assert await told(client, "GET", path) == (403, "member_token_not_accepted")


async def test_a_scope_that_was_not_granted_is_refused_with_its_challenge(
    partner: PartnerClient, grant: Grant
) -> None:
    own, _ = await bind(partner)
    client = await grant(partner, own, "members:read")
    answer = await client.send(
        "POST", "/v1/points/quotes", msgspec.json.encode({"member": own, "order_amount_fen": 1})
    )
    assert (answer.status, answer.json()["code"]) == (403, "insufficient_scope")
    # RFC 6750 §3.1
    assert 'error="insufficient_scope"' in answer.headers["www-authenticate"]
    assert 'scope="points:spend"' in answer.headers["www-authenticate"]


async def test_a_withdrawn_grant_ends_its_tokens_although_another_stands(
    runtime: Runtime, partner: PartnerClient, grant: Grant
) -> None:
    own, _ = await bind(partner)
    client, kept = await grant(partner, own), await grant(partner, own)
    assert client.grant_id != kept.grant_id
    assert await told(client, "GET", f"/v1/members/{own}") == (200, "")
    await client.delete(f"/oauth2/grants/{client.grant_id}")
    # from the commit on, whatever this process still remembers
    for method, path, body in (
        ("GET", f"/v1/members/{own}", None),
        ("POST", "/v1/points/holds", hold(own, 1)),
        ("POST", "/v1/points/quotes", {"member": own, "order_amount_fen": 100}),
    ):
        assert await told(client, method, path, body) in {(403, "grant_ended"), (401, "invalid_token")}
    assert await told(kept, "GET", f"/v1/members/{own}") == (200, "")
    refreshed = await client.form(
        "/oauth2/token", grant_type="refresh_token", refresh_token=client.refresh_token
    )
    assert (refreshed.status_code, refreshed.json()["error"]) == (400, "invalid_grant")
    introspected = await client.form("/oauth2/introspect", token=client.refresh_token)
    assert introspected.json() == {"active": False}


async def test_a_revoked_token_is_refused_by_another_process(
    runtime: Runtime, partner: PartnerClient, grant: Grant
) -> None:
    own, _ = await bind(partner)
    client = await grant(partner, own)
    other = Runtime(runtime.settings)
    async with other.open():
        token = await client.token()

        async def enter() -> None:
            proof = client.make_proof("GET", "/v1/me", token_hash=digest(token))
            await other.verifier.authenticate(
                method="GET",
                path="/v1/me",
                authorization=[f"DPoP {token}"],
                proofs=[proof],
                now=other.clock.now(),
            )

        await enter()
        assert (await client.form("/oauth2/revoke", token=token)).status_code == 200
        # what the other process read before is at most half a second old; it is made to look older
        other.verifier._revocations._read_at = float("-inf")
        with pytest.raises(Exception, match="access token"):
            await enter()


async def test_grants_are_read_and_ended_by_their_partner_alone(
    partner: PartnerClient, grant: Grant, register: Any
) -> None:
    own, other = await bind(partner)
    client, second = await grant(partner, own, "members:read"), await grant(partner, other)
    path = f"/oauth2/grants/{client.grant_id}"
    for reader in (client, partner):
        shown = await reader.get(path)
        assert shown["grant_id"] == client.grant_id
        assert shown["scopes"] == [{"scope": "members:read"}]
        assert (shown["purposes"], shown["data_kinds"]) == (
            ["membership"],
            ["member_level", "points_balance"],
        )
    stranger = await register(*sorted(SCOPES))
    for outsider in (stranger, second):
        assert await told(outsider, "GET", path) == (404, "grant_unknown")
        assert await told(outsider, "DELETE", path) == (404, "grant_unknown")
    assert await told(partner, "GET", "/oauth2/grants/x") == (404, "not_found")
    await partner.delete(path)
    assert await told(partner, "GET", path) == (404, "grant_unknown")
    assert await told(partner, "DELETE", path) == (404, "grant_unknown")


async def test_points_are_spent_up_to_what_the_member_allowed_in_all(
    partner: PartnerClient, grant: Grant
) -> None:
    own, _ = await bind(partner)
    await earn(partner, own)
    client = await grant(
        partner,
        own,
        "points:spend",
        authorization_details=json.dumps([{"type": "points_spend", "max_points": 100}]),
    )
    assert await told(client, "POST", "/v1/points/holds", hold(own, 101)) == (403, "spend_limit_exceeded")
    assert await told(client, "POST", "/v1/points/holds", hold(own, 60)) == (201, "")
    # a wish that fails for another reason draws nothing
    assert await told(client, "POST", "/v1/points/holds", hold(own, 40) | {"point_type": "none"}) == (
        422,
        "point_type_unknown",
    )
    assert await told(client, "POST", "/v1/points/spends", hold(own, 41)) == (403, "spend_limit_exceeded")
    assert await told(client, "POST", "/v1/points/spends", hold(own, 40)) == (201, "")
    assert await told(client, "POST", "/v1/points/holds", hold(own, 1)) == (403, "spend_limit_exceeded")
    # the app's own token goes by the consent alone, as before
    assert await told(partner, "POST", "/v1/points/holds", hold(own, 1)) == (201, "")


async def test_a_spend_beyond_the_balance_draws_nothing_of_the_limit(
    partner: PartnerClient, grant: Grant
) -> None:
    own, _ = await bind(partner)
    await earn(partner, own, 10_000)
    asked = json.dumps([{"type": "points_spend", "max_points": 1_000_000}])
    client = await grant(partner, own, "points:spend", authorization_details=asked)
    assert await told(client, "POST", "/v1/points/holds", hold(own, 1_000_000)) == (
        409,
        "insufficient_points",
    )
    assert await told(client, "POST", "/v1/points/holds", hold(own, 10)) == (201, "")


@pytest.fixture
async def shop(runtime: Runtime, partner: PartnerClient) -> PartnerClient:
    """A partner with an instalment offer."""
    partner_id, now = await partner_id_of(runtime, partner), runtime.clock.now()
    today = business_date(now)
    async with transaction(runtime.pool) as connection:
        await registry.record_agreement(
            connection,
            partner_id=partner_id,
            scenarios=("ecom_checkout",),
            funding={},
            starts_on=today - timedelta(days=1),
            ends_on=today + timedelta(days=30),
            now=now,
        )
        await publish_definition(connection, ecommerce_offer(now), partner_id=partner_id, now=now)
    return partner


async def quote(shop: PartnerClient, runtime: Runtime, member: str) -> Any:
    """A disclosed quote."""
    cart = {
        "order_ref": str(uuid4()),
        "lines": [{"sku": "tv", "quantity": 1, "unit_fen": 120_000}],
        "total_fen": 120_000,
    }
    search = {"scenario": "ecom_checkout", "member": member, "cart": cart, "personalised": False}
    [offer, *_] = (await shop.post("/v1/offers/search", search))["offers"]
    body = {
        "offer_version": offer["offer_version"],
        "member": member,
        "cart": cart,
        "periods": offer["terms"][0]["periods"],
    }
    made = await shop.post("/v1/quotes", body)
    evidence = {
        "hash": made["disclosure"]["hash"],
        "displayed_seconds": max(8, made["disclosure"]["min_read_seconds"]),
        "confirmed_at": rfc3339(runtime.clock.now()),
    }
    await shop.post(f"/v1/quotes/{made['id']}/disclosure", evidence)
    return made


async def test_a_quote_is_accepted_by_a_members_token_that_names_it(
    runtime: Runtime, shop: PartnerClient, grant: Grant
) -> None:
    own, other = await bind(shop)
    wanted, another = await quote(shop, runtime, own), await quote(shop, runtime, own)
    foreign = await quote(shop, runtime, other)
    asked = json.dumps([{"type": "instalment_plan", "quote_id": wanted["id"]}])
    client = await grant(shop, own, "offers:read offers:write", authorization_details=asked)
    shown = (await client.get(f"/oauth2/grants/{client.grant_id}"))["authorization_details"]
    assert shown == [
        {
            "type": "instalment_plan",
            "quote_id": wanted["id"],
            "amount_fen": wanted["amount_financed_fen"],
            **{
                name: wanted[name]
                for name in (
                    "periods",
                    "annual_rate_simple_ppm",
                    "annual_rate_compound_ppm",
                    "total_payable_fen",
                )
            },
        }
    ]
    insufficient = (403, "authorization_details_insufficient")
    assert await told(client, "POST", f"/v1/quotes/{another['id']}/accept", {}) == insufficient
    for method, step in (("GET", ""), ("POST", "/accept")):
        body: Any = {} if step else None
        assert await told(client, method, f"/v1/quotes/{foreign['id']}{step}", body) == (404, "not_found")
    bare = await grant(shop, own, "offers:write")
    assert await told(bare, "POST", f"/v1/quotes/{wanted['id']}/accept", {}) == insufficient
    assert (await told(client, "POST", f"/v1/quotes/{wanted['id']}/accept", {}))[0] == 201
    # the app's own token goes by the consent, as before
    assert (await told(shop, "POST", f"/v1/quotes/{another['id']}/accept", {}))[0] == 201


async def test_a_plan_is_read_by_its_members_token_and_is_absent_to_anothers(
    runtime: Runtime, shop: PartnerClient, grant: Grant
) -> None:
    own, other = await bind(shop)
    made = await quote(shop, runtime, own)
    accepted = await shop.post(f"/v1/quotes/{made['id']}/accept", {})
    path = f"/v1/plans/{accepted['plan']['id']}"
    client, stranger = await grant(shop, own, "plans:read"), await grant(shop, other, "plans:read")
    for step in ("", "/schedule"):
        assert await told(client, "GET", path + step) == (200, "")
        absent = await told(stranger, "GET", f"/v1/plans/pln_{'0' * 26}{step}")
        assert await told(stranger, "GET", path + step) == absent == (404, "not_found")


async def test_a_quote_of_another_partner_or_an_accepted_one_is_not_asked_for(
    runtime: Runtime, shop: PartnerClient, grant: Grant, register: Any, http: httpx.AsyncClient
) -> None:
    own, _ = await bind(shop)
    made = await quote(shop, runtime, own)
    stranger = await register(*sorted(SCOPES))
    [theirs, _] = await bind(stranger)
    asked = json.dumps([{"type": "instalment_plan", "quote_id": made["id"]}])
    with pytest.raises(AssertionError, match="invalid_authorization_details"):
        await grant(stranger, theirs, "offers:write", authorization_details=asked)
    await shop.post(f"/v1/quotes/{made['id']}/accept", {})
    with pytest.raises(AssertionError, match="invalid_authorization_details"):
        await grant(shop, own, "offers:write", authorization_details=asked)


@pytest.mark.parametrize(
    "query",
    [
        "",
        "client_id=app_0",
        "client_id=app_0&request_uri=urn:ietf:params:oauth:request_uri:x",
        "request_uri=urn:ietf:params:oauth:request_uri:x",
        "client_id=a&client_id=b&request_uri=x",
        "response_type=code&client_id=app_0&redirect_uri=https://evil.example/&code_challenge=x",
        "client_id=app_0&request_uri=https://evil.example/r&redirect_uri=https://evil.example/",
        "client_id=%00&request_uri=%ff",
    ],
    ids=lambda query: query[:40],
)
async def test_ensure_unsigned_authorization_request_without_using_par_fails(
    http: httpx.AsyncClient, query: str
) -> None:
    answer = await http.get(f"/oauth2/authorize?{query}")
    assert answer.status_code == 400
    assert answer.headers["content-type"].startswith("text/html")
    assert "location" not in answer.headers
    assert "evil" not in answer.text
    assert "access-control-allow-origin" not in answer.headers
    assert answer.headers["content-security-policy"] == (
        "default-src 'none'; style-src 'self'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
    )


@pytest.mark.parametrize("path", ["/oauth2/par", "/oauth2/introspect", "/oauth2/revoke"])
async def test_par_attempt_invalid_http_method(http: httpx.AsyncClient, path: str) -> None:
    for method in ("GET", "PUT", "DELETE"):
        assert (await http.request(method, path)).status_code == 405
    assert (await http.post("/oauth2/authorize")).status_code == 405


async def test_both_discovery_documents_are_the_same_and_every_endpoint_is_there(
    http: httpx.AsyncClient,
) -> None:
    document = (await http.get("/.well-known/oauth-authorization-server")).json()
    assert (await http.get("/.well-known/openid-configuration")).json() == document
    assert document["require_pushed_authorization_requests"] is True
    assert document["response_types_supported"] == ["code"]
    assert document["code_challenge_methods_supported"] == ["S256"]
    assert document["authorization_response_iss_parameter_supported"] is True
    for algorithms in (name for name in document if name.endswith("signing_alg_values_supported")):
        assert set(document[algorithms]) <= {"PS256", "ES256", "EdDSA"}
    for name in document:
        if name.endswith("_endpoint"):
            path = httpx.URL(document[name]).path + ("/grt_x" if name.startswith("grant") else "")
            assert (await http.get(path)).status_code != 404, name


async def test_withdrawing_all_consent_ends_members_tokens(
    runtime: Runtime, partner: PartnerClient, grant: Grant
) -> None:
    own, _ = await bind(partner)
    client = await grant(partner, own)
    ref, partner_id = await find_member(runtime, partner, own), await partner_id_of(runtime, partner)
    async with transaction(runtime.pool) as connection:
        assert await oauth.withdraw_consent(
            connection, partner_id=partner_id, member=ref, now=runtime.clock.now()
        )
    for path in ("", "/points", "/membership"):
        assert (await told(client, "GET", f"/v1/members/{own}{path}"))[0] in (401, 403)
        assert (await told(partner, "GET", f"/v1/members/{own}{path}")) == (403, "consent_missing")


async def test_from_its_withdrawal_on_nothing_is_done_or_told_on_a_grant(
    runtime: Runtime, shop: PartnerClient, grant: Grant
) -> None:
    """Also where the member is not looked up, nor anything done, for it was answered before."""
    own, _ = await bind(shop)
    made = await quote(shop, runtime, own)
    plan = (await shop.post(f"/v1/quotes/{made['id']}/accept", {}))["plan"]["id"]
    client = await grant(shop, own)
    search = {
        "scenario": "ecom_checkout",
        "member": own,
        "cart": {
            "order_ref": "again",
            "lines": [{"sku": "tv", "quantity": 1, "unit_fen": 120_000}],
            "total_fen": 120_000,
        },
    }
    [offer, *_] = (await shop.post("/v1/offers/search", search))["offers"]
    wish = {"offer_version": offer["offer_version"], "periods": offer["terms"][0]["periods"]}
    body = msgspec.json.encode({**wish, "member": own, "cart": search["cart"]})
    key = str(uuid4())
    assert (await client.send("POST", "/v1/quotes", body, idempotency_key=key)).status == 201
    reads = ["/v1/me", f"/v1/rewards?member={own}", f"/v1/quotes/{made['id']}", f"/v1/plans/{plan}"]
    reads += [f"/v1/plans/{plan}/schedule", f"/oauth2/grants/{client.grant_id}", f"/v1/members/{own}"]
    for path in reads:
        assert (await told(client, "GET", path))[0] == 200, path
    # what this process knows of revocations stays as it is
    runtime.verifier._revocations._read_at = float("inf")
    try:
        await shop.delete(f"/oauth2/grants/{client.grant_id}")
        for path in reads:
            assert await told(client, "GET", path) == (403, "grant_ended"), path
        again = await client.send("POST", "/v1/quotes", body, idempotency_key=key)
        assert (again.status, again.json()["code"]) == (403, "grant_ended")
    finally:
        runtime.verifier._revocations._read_at = float("-inf")


async def test_a_limit_the_member_set_is_not_passed_by_with_the_apps_own_token(
    runtime: Runtime, partner: PartnerClient, grant: Grant
) -> None:
    """The page said: up to so many points while the authorisation lasts."""
    own, _ = await bind(partner)
    await earn(partner, own)
    asked = json.dumps([{"type": "points_spend", "max_points": 100}])
    client = await grant(partner, own, "members:read points:spend", authorization_details=asked)
    named = {"partner_id": await partner_id_of(runtime, partner), "now": runtime.clock.now()}
    async with transaction(runtime.pool) as connection:
        ref = await find_member(runtime, partner, own)
        for other in await oauth.list_consents(connection, member=ref, **named):
            if to_wire("grt", other.id) != client.grant_id:
                await grants.withdraw_grant(connection, grant_id=other.id, **named)
    missing = (403, "consent_missing")
    for path in ("/v1/points/holds", "/v1/points/spends"):
        assert await told(partner, "POST", path, hold(own, 101)) == missing
        assert await told(client, "POST", path, hold(own, 50)) == (201, "")
    assert await told(partner, "POST", "/v1/points/quotes", {"member": own, "order_amount_fen": 1}) == missing
    assert await told(partner, "GET", f"/v1/members/{own}/points") == (200, "")


@pytest.mark.parametrize("scope", ["points:earn", "points:spend"])
async def test_whose_tier_an_answer_tells_was_asked_for_the_level(
    partner: PartnerClient, grant: Grant, scope: str
) -> None:
    """Who earns is told how, by the tier; who redeems, which rewards the tier may have."""
    own, _ = await bind(partner)
    client = await grant(partner, own, scope)
    if scope == "points:earn":
        earned = await earn(client, own)
        assert "tier" in (await partner.get(f"/v1/points/operations/{earned['id']}"))["calculation"]
    shown = await client.get(f"/oauth2/grants/{client.grant_id}")
    assert "member_level" in shown["data_kinds"]
