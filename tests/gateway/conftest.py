"""The whole gateway in the test's own loop, and a partner with real keys to call it."""

from collections.abc import AsyncGenerator
from typing import Any, Protocol, cast
from uuid import uuid4

import httpx
import pytest

from gateway.app import build_edge, build_litestar
from gateway.client import PartnerClient
from gateway.credentials import Credentials, SigningKey
from gateway.edge import Edge
from gateway.runtime import Runtime
from kernel import logs
from kernel.database import transaction
from kernel.settings import Secret, Settings
from kernel.vault import generate_ring
from partners.oauth.scopes import SCOPES
from partners.registry import service as registry
from partners.registry.model import RequestSignature

logs.configure("error")

BASE_URL = "http://127.0.0.1:8080"
RING = generate_ring()


@pytest.fixture(scope="session")
def settings(database_url: str, redis_url: str) -> Settings:
    """A sandbox on this worker's database."""
    return Settings(
        base_url=BASE_URL,
        database_url=Secret(database_url),
        redis_url=Secret(redis_url),
        master_keys=Secret(RING),
    )


@pytest.fixture(scope="session")
async def runtime(settings: Settings) -> AsyncGenerator[Runtime, None]:
    """What a worker process holds."""
    runtime = Runtime(settings)
    async with runtime.open():
        yield runtime


@pytest.fixture(scope="session")
def edge(runtime: Runtime) -> Edge:
    """The gateway as one worker process runs it; its lifespan is the runtime's, which is open."""
    return build_edge(runtime, build_litestar(runtime, openapi=None))


@pytest.fixture
async def http(edge: Edge) -> AsyncGenerator[httpx.AsyncClient, None]:
    """A client that speaks to the gateway without a socket."""
    transport = httpx.ASGITransport(app=cast(Any, edge), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url=BASE_URL) as client:
        yield client


class Register(Protocol):
    """Registers a live partner with one app and one key."""

    async def __call__(
        self,
        *scopes: str,
        per_second: int = 1_000,
        burst: int = 5_000,
        strict: bool = False,
        request_signature: RequestSignature = "optional",
    ) -> PartnerClient: ...


@pytest.fixture
def register(runtime: Runtime, http: httpx.AsyncClient) -> Register:
    """Partners as many as a test wants."""

    async def register(
        *scopes: str,
        per_second: int = 1_000,
        burst: int = 5_000,
        strict: bool = False,
        request_signature: RequestSignature = "optional",
    ) -> PartnerClient:
        credentials = await _register(runtime, list(scopes), per_second, burst, strict, request_signature)
        signs = request_signature == "fapi"
        return PartnerClient(credentials, http=http, deadline_seconds=5.0, sign_requests=signs)

    return register


@pytest.fixture
async def partner(register: Register) -> PartnerClient:
    """A partner that may do everything."""
    return await register(*sorted(SCOPES))


@pytest.fixture
async def strict_partner(register: Register) -> PartnerClient:
    """A partner that must sign its writes; nonces are a matter of their own."""
    return await register(*sorted(SCOPES), request_signature="fapi")


async def _register(
    runtime: Runtime,
    scopes: list[str],
    per_second: int,
    burst: int,
    strict: bool,
    request_signature: RequestSignature,
) -> Credentials:
    key = SigningKey.generate()
    now = runtime.clock.now()
    async with transaction(runtime.pool) as connection:
        partner_id = await registry.register_partner(
            connection,
            slug=f"shop-{uuid4().hex[:12]}",
            name_zh="测试商城",
            name_en="Test Mall",
            kind="service_provider",
            scene="ecommerce",
            status="live",
            now=now,
        )
        app = await registry.register_app(
            connection,
            partner_id=partner_id,
            scopes=scopes,
            rate_per_second=per_second,
            burst=burst,
            dpop_nonce_required=strict,
            request_signature=request_signature,
            now=now,
        )
        await registry.add_key(
            connection, app_id=app.id, jwk=key.public_jwk | {"kid": "test", "alg": "ES256"}, now=now
        )
    return Credentials(
        base_url=BASE_URL,
        issuer=BASE_URL,
        client_id=app.client_id,
        kid="test",
        private_jwk=key.private_jwk(),
        scopes=scopes,
        webhook_secret="",
    )
