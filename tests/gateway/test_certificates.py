"""Apps that come with certificates: who they are, what their tokens are bound to, and that nobody else gets in so."""

from collections.abc import AsyncGenerator
from typing import Any, cast
from uuid import uuid4

import httpx
import pytest
from certificates import client_cert, make_certificate
from msgspec import structs

from gateway.app import build_edge, build_litestar
from gateway.client import PartnerClient
from gateway.runtime import Runtime
from kernel.database import transaction
from kernel.settings import Settings
from partners.registry import changes
from partners.registry import service as registry
from partners.registry.model import Access

PRIVATE_PORT = 9443
PRIVATE = f"http://127.0.0.1:{PRIVATE_PORT}"
NAME = "api.shop.example"
OURS = make_certificate(NAME)


@pytest.fixture(scope="module")
async def private_runtime(settings: Settings) -> AsyncGenerator[Runtime, None]:
    """A process that also answers on a private port, and has a name for connections with certificates."""
    runtime = Runtime(
        structs.replace(settings, private_port=PRIVATE_PORT, mtls_base_url="https://mtls.bank.example")
    )
    async with runtime.open():
        yield runtime


@pytest.fixture
async def web(private_runtime: Runtime) -> AsyncGenerator[httpx.AsyncClient, None]:
    edge = build_edge(private_runtime, build_litestar(private_runtime, openapi=None))
    transport = httpx.ASGITransport(app=cast(Any, edge), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport) as client:
        yield client


async def set_access(runtime: Runtime, partner: PartnerClient, **access: Any) -> None:
    now = runtime.clock.now()
    async with transaction(runtime.pool) as connection:
        app = await registry.find_app_by_client(connection, partner.credentials.client_id)
        change = await changes.propose_access(
            connection,
            app=app,
            access=Access(**access),
            loopback=True,
            reason="contract",
            by="admin:maker",
            now=now,
        )
        await changes.approve_change(connection, change_id=change.id, by="admin:checker", now=now)


async def ask_token(
    web: httpx.AsyncClient, client_id: str, certificate: bytes | None, *, base: str = PRIVATE, **form: str
) -> httpx.Response:
    headers = {} if certificate is None else {"client-cert": client_cert(certificate)}
    fields = {"grant_type": "client_credentials", "client_id": client_id} | form
    return await web.post(f"{base}/oauth2/token", data=fields, headers=headers)


async def call(
    web: httpx.AsyncClient,
    token: str,
    certificate: bytes | None,
    *,
    base: str = PRIVATE,
    scheme: str = "Bearer",
) -> tuple[int, str]:
    headers = {"authorization": f"{scheme} {token}"}
    if certificate is not None:
        headers["client-cert"] = client_cert(certificate)
    answer = await web.get(f"{base}/v1/me", headers=headers)
    return answer.status_code, answer.json().get("code", "")


@pytest.fixture
async def holder(private_runtime: Runtime, partner: PartnerClient) -> PartnerClient:
    """A partner whose app authenticates with a certificate and whose tokens are bound to it."""
    await set_access(private_runtime, partner, token_binding="certificate", certificate_subject=f"dns:{NAME}")
    return partner


async def test_rfc8705_a_certificate_gets_a_token_that_works_with_it_and_with_nothing_else(
    web: httpx.AsyncClient, holder: PartnerClient
) -> None:
    answer = await ask_token(web, holder.credentials.client_id, OURS)
    assert answer.status_code == 200, answer.text
    assert answer.json()["token_type"] == "Bearer"
    token = answer.json()["access_token"]

    assert await call(web, token, OURS) == (200, "")
    assert await call(web, token, OURS) == (200, ""), "the connection is the proof, so a call may be repeated"
    assert await call(web, token, make_certificate(NAME)) == (401, "invalid_token")
    assert await call(web, token, None) == (401, "invalid_token")
    assert await call(web, token, OURS, base="http://127.0.0.1:8080") == (401, "invalid_token")
    assert await call(web, token, OURS, scheme="DPoP") == (401, "invalid_token")


async def test_a_token_bound_to_a_key_is_never_a_bearers(
    web: httpx.AsyncClient, register: Any, private_runtime: Runtime
) -> None:
    partner = await register("members:read")
    token, _ = await partner._current_token()
    assert await call(web, token, OURS) == (401, "invalid_token")
    assert await call(web, token, None) == (401, "invalid_token")


@pytest.mark.parametrize(
    "certificate",
    [
        pytest.param(make_certificate("api.other.example"), id="another name"),
        pytest.param(make_certificate("API.SHOP.EXAMPLE.evil.example"), id="a longer name"),
        pytest.param(make_certificate("x.example", common_name=NAME), id="the name as common name"),
        pytest.param(None, id="no certificate"),
    ],
)
async def test_another_certificate_does_not_authenticate(
    web: httpx.AsyncClient, holder: PartnerClient, certificate: bytes | None
) -> None:
    answer = await ask_token(web, holder.credentials.client_id, certificate)
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


async def test_row_23_a_certificate_header_on_the_public_port_authenticates_nobody(
    web: httpx.AsyncClient, holder: PartnerClient
) -> None:
    answer = await ask_token(web, holder.credentials.client_id, OURS, base="http://127.0.0.1:8080")
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


async def test_a_certificate_does_not_authenticate_an_app_that_registered_none(
    web: httpx.AsyncClient, partner: PartnerClient
) -> None:
    answer = await ask_token(web, partner.credentials.client_id, OURS)
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
    nobody = await ask_token(web, "app_" + "0" * 26, OURS)
    assert (nobody.status_code, nobody.json()) == (401, answer.json()), "a stranger learns no more"


async def test_of_pinned_certificates_no_other_is_taken(
    web: httpx.AsyncClient, private_runtime: Runtime, partner: PartnerClient
) -> None:
    await set_access(
        private_runtime,
        partner,
        token_binding="certificate",
        certificate_subject="dn:CN=api,O=Shop",
        certificate_thumbprints=("A" * 43,),
    )
    answer = await ask_token(web, partner.credentials.client_id, OURS)
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
    await set_access(
        private_runtime, partner, token_binding="certificate", certificate_subject="dn:CN=api,O=Shop"
    )
    answer = await ask_token(web, partner.credentials.client_id, OURS)
    assert answer.status_code == 200, answer.text


async def test_an_assertion_may_ask_for_a_token_bound_to_the_connections_certificate(
    web: httpx.AsyncClient, private_runtime: Runtime, partner: PartnerClient
) -> None:
    await set_access(private_runtime, partner, token_binding="certificate")
    form = {
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "client_assertion": partner.make_assertion(),
    }
    answer = await ask_token(web, partner.credentials.client_id, OURS, **form)
    assert answer.status_code == 200, answer.text
    assert await call(web, answer.json()["access_token"], OURS) == (200, "")
    form["client_assertion"] = partner.make_assertion()
    bare = await ask_token(web, partner.credentials.client_id, None, **form)
    assert (bare.status_code, bare.json()["error"]) == (400, "invalid_request")


async def test_the_metadata_says_where_certificates_are_asked_for(
    web: httpx.AsyncClient, http: httpx.AsyncClient
) -> None:
    path = "/.well-known/oauth-authorization-server"
    told = (await web.get(PRIVATE + path)).json()
    assert told["mtls_endpoint_aliases"]["token_endpoint"] == "https://mtls.bank.example/oauth2/token"
    assert told["tls_client_certificate_bound_access_tokens"] is True
    assert "tls_client_auth" in told["token_endpoint_auth_methods_supported"]
    silent = (await http.get(path)).json()
    assert "mtls_endpoint_aliases" not in silent
    assert "tls_client_auth" not in silent["token_endpoint_auth_methods_supported"]


async def test_an_app_with_networks_is_used_from_them_only(
    web: httpx.AsyncClient, private_runtime: Runtime, holder: PartnerClient
) -> None:
    await set_access(
        private_runtime,
        holder,
        token_binding="certificate",
        certificate_subject=f"dns:{NAME}",
        ip_allow=("198.51.100.0/24",),
    )
    client_id = holder.credentials.client_id
    outside = await ask_token(web, client_id, OURS)
    assert (outside.status_code, outside.json()["error"]) == (403, "unauthorized_client")
    assert outside.json()["error_description"].startswith("ip_not_allowed")

    inside = {"client-cert": client_cert(OURS), "x-forwarded-for": "198.51.100.7"}
    fields = {"grant_type": "client_credentials", "client_id": client_id}
    answer = await web.post(f"{PRIVATE}/oauth2/token", data=fields, headers=inside)
    assert answer.status_code == 200, answer.text
    bearer = {"authorization": f"Bearer {answer.json()['access_token']}"}
    assert (await web.get(f"{PRIVATE}/v1/me", headers=inside | bearer)).status_code == 200
    for spoofed in ("198.51.100.7, 192.0.2.1", "198.51.100.7, x", ""):
        elsewhere = inside | bearer | {"x-forwarded-for": spoofed}
        refused = await web.get(f"{PRIVATE}/v1/me", headers=elsewhere)
        assert (refused.status_code, refused.json()["code"]) == (403, "ip_not_allowed")


async def test_a_write_with_a_certificate_bound_token_needs_no_proof(
    web: httpx.AsyncClient, holder: PartnerClient
) -> None:
    token = (await ask_token(web, holder.credentials.client_id, OURS)).json()["access_token"]
    headers = {"authorization": f"Bearer {token}", "client-cert": client_cert(OURS)}
    bindings = await web.post(
        f"{PRIVATE}/v1/members/bindings", headers=headers, json={"customer_refs": [str(uuid4())]}
    )
    member = bindings.json()["bindings"][0]["member"]
    earning = {
        "member": member,
        "source_ref": str(uuid4()),
        "kind": "purchase",
        "occurred_at": "2026-11-11T20:00:00+08:00",
        "amount_fen": 10_000,
        "category": "appliances",
        "own_card": True,
    }
    answer = await web.post(
        f"{PRIVATE}/v1/points/earnings",
        headers=headers | {"idempotency-key": str(uuid4())},
        json=earning,
    )
    assert answer.status_code == 201, answer.text
