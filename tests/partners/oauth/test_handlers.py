"""The HTTP face of registry and authorization server, served by a bare application."""

from collections.abc import AsyncGenerator
from datetime import datetime
from typing import Any, cast

import httpx
import msgspec
import pytest
from litestar import Litestar
from litestar.di import Provide
from partner_client import PartnerClient, generate, public_jwk

from kernel.caller import Caller, Subjects
from kernel.database import Connection
from kernel.pages import CursorSeal
from kernel.sender import NOBODY, Sender
from kernel.settings import Settings
from kernel.vault import Vault
from partners.oauth import handlers as oauth
from partners.oauth.keys import Signer
from partners.oauth.scopes import SCOPES
from partners.oauth.service import PairwiseSubjects
from partners.registry import handlers as registry
from partners.registry import service
from partners.registry.model import App, KeyStatus

URL = "https://bank.example/oauth2/token"


@pytest.fixture
async def http(
    connection: Connection, signer: Signer, vault: Vault, app: App, base_url: str, now: datetime
) -> AsyncGenerator[httpx.AsyncClient, None]:
    caller = Caller(
        partner_id=app.partner_id,
        app_id=app.id,
        client_id=app.client_id,
        scopes=frozenset(("points:earn", "members:read")),
        key_thumbprint="x",
    )
    given: dict[str, tuple[Any, Any]] = {
        "connection": (Connection, connection),
        "signer": (Signer, signer),
        "vault": (Vault, vault),
        "caller": (Caller, caller),
        "subjects": (Subjects, PairwiseSubjects()),
        "cursors": (CursorSeal, CursorSeal(bytes(32))),
        "settings": (Settings, Settings()),
        "sender": (Sender, NOBODY),
        "base_url": (str, base_url),
        "now": (datetime, now),
    }
    application = Litestar(
        [*registry.routes, *oauth.routes],
        dependencies={name: _provide(*what) for name, what in given.items()},
        openapi_config=None,
    )
    transport = httpx.ASGITransport(cast(Any, application))
    async with httpx.AsyncClient(transport=transport, base_url=base_url) as opened:
        yield opened


def _provide(kind: Any, value: Any) -> Provide:
    def provided() -> Any:
        return value

    provided.__annotations__["return"] = kind
    return Provide(provided, sync_to_thread=False)


def test_every_route_says_who_may_call_it() -> None:
    for handler in (*registry.routes, *oauth.routes):
        assert handler.opt.get("public") or handler.opt["scope"] in {"self", *SCOPES}


async def test_a_token_is_fetched(http: httpx.AsyncClient, client: PartnerClient, now: datetime) -> None:
    answer = await http.post(
        "/oauth2/token",
        content=client.form(now),
        headers={
            "Content-Type": "application/x-www-form-urlencoded",
            "DPoP": client.proof("POST", URL, now),
        },
    )
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-type"].startswith("application/json")
    body = answer.json()
    assert set(body) == {"access_token", "token_type", "expires_in", "scope"}
    assert (body["token_type"], body["expires_in"]) == ("DPoP", 300)


async def test_a_refusal_speaks_oauth(http: httpx.AsyncClient, client: PartnerClient, now: datetime) -> None:
    proof = client.proof("POST", URL, now)
    answer = await http.post(
        "/oauth2/token",
        content=client.form(now),
        headers=[
            ("Content-Type", "application/x-www-form-urlencoded"),
            ("DPoP", proof),
            ("DPoP", proof),
        ],
    )
    assert answer.status_code == 400
    assert answer.headers["cache-control"] == "no-store"
    assert answer.json()["error"] == "invalid_dpop_proof"
    assert "exactly one" in answer.json()["error_description"]


async def test_metadata_leads_to_the_keys(http: httpx.AsyncClient, signer: Signer, base_url: str) -> None:
    server = (await http.get("/.well-known/oauth-authorization-server")).json()
    assert server["issuer"] == base_url
    assert server["token_endpoint"] == URL
    assert server["grant_types_supported"] == [
        "client_credentials",
        "authorization_code",
        "refresh_token",
        "urn:openid:params:grant-type:ciba",
    ]
    assert server["token_endpoint_auth_methods_supported"] == ["private_key_jwt"]
    assert server["dpop_signing_alg_values_supported"] == ["ES256", "PS256", "EdDSA"]
    answer = await http.get(server["jwks_uri"])
    assert answer.json() == signer.jwks()
    assert answer.headers["cache-control"] == "max-age=300"
    for path in ("", "/v1"):
        resource = (await http.get(f"/.well-known/oauth-protected-resource{path}")).json()
        assert resource["resource"] == f"{base_url}/v1"
        assert resource["authorization_servers"] == [base_url]
        assert resource["dpop_bound_access_tokens_required"] is True


async def test_an_app_reads_about_itself(http: httpx.AsyncClient, app: App) -> None:
    me = (await http.get("/v1/me")).json()
    assert me["id"].startswith("ptn_")
    assert me["name"] == {"zh": "示例商城", "en": "Sample Mall"}
    assert (me["scene"], me["status"], me["livemode"]) == ("ecommerce", "live", False)
    assert me["app"]["client_id"] == app.client_id
    assert me["app"]["scopes"] == sorted(app.scopes)
    assert me["app"]["token_scopes"] == ["members:read", "points:earn"]
    assert me["agreement"] is None


async def test_keys_come_in_pages(
    http: httpx.AsyncClient, connection: Connection, app: App, now: datetime
) -> None:
    for kid, status in (("k2", "retiring"), ("k3", "pending")):
        jwk = {**public_jwk("ES256", generate("ES256")), "kid": kid}
        await service.add_key(connection, app_id=app.id, jwk=jwk, status=cast(KeyStatus, status), now=now)
    first = (await http.get("/v1/keys", params={"limit": 2})).json()
    second = (await http.get("/v1/keys", params={"limit": 2, "cursor": first["next_cursor"]})).json()
    assert [key["kid"] for key in first["data"] + second["data"]] == ["k1", "k2", "k3"]
    assert second["next_cursor"] is None
    assert "d" not in first["data"][0]["jwk"]


async def test_customers_are_bound_and_read(http: httpx.AsyncClient, vault: Vault) -> None:
    body = msgspec.json.encode({"customer_refs": ["c-1", "c-2", "c-1"]})
    answers = [
        await http.post("/v1/members/bindings", content=body, headers={"Content-Type": "application/json"})
        for _ in range(2)
    ]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json() == answers[1].json()
    bindings = answers[0].json()["bindings"]
    assert [binding["customer_ref"] for binding in bindings] == ["c-1", "c-2", "c-1"]
    assert bindings[0]["member"] == bindings[2]["member"] != bindings[1]["member"]
    sub = bindings[0]["member"]
    assert (await http.get(f"/v1/members/{sub}")).json() == {
        "member": sub,
        "since": "2026-11-20",
        "consent": {"scopes": ["members:read", "points:earn"], "ends_on": "2031-11-20"},
    }


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"customer_refs": []},
        {"customer_refs": [""]},
        {"customer_refs": ["x" * 129]},
        {"customer_refs": ["x"] * 1_001},
        {"customer_refs": ["x"], "mode": "sandbox"},
    ],
    ids=lambda body: str(body)[:40],
)
async def test_a_wrong_binding_request_is_refused(body: dict[str, Any], http: httpx.AsyncClient) -> None:
    assert (await http.post("/v1/members/bindings", json=body)).status_code == 400
