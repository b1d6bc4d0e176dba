"""A live partner with one app and one registered key, and the bank's side of the conversation."""

from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Any
from uuid import uuid4

import pytest
from partner_client import PartnerClient

from kernel.database import Connection, Pool
from kernel.vault import Vault, generate_ring
from partners.oauth import queries
from partners.oauth.keys import Signer, load_signer
from partners.registry import service as registry
from partners.registry.model import App
from points.membership.service import enrol_members

from .member_flow import REDIRECT, Flow

BASE_URL = "https://bank.example"
SCOPES = ["members:read", "points:earn", "settlement:read"]

Register = Callable[..., Coroutine[Any, Any, tuple[App, PartnerClient]]]


@pytest.fixture
def base_url() -> str:
    return BASE_URL


@pytest.fixture(scope="session")
def vault() -> Vault:
    return Vault(generate_ring())


@pytest.fixture
async def signer(connection: Connection, vault: Vault, now: datetime) -> Signer:
    await queries.move_signing_keys(connection, present="active", wanted="retired")
    return await load_signer(connection, vault, BASE_URL, now)


@pytest.fixture
async def lasting_signer(pool: Pool, vault: Vault, now: datetime) -> Signer:
    """A signer for tests that commit; its own key is in memory only."""
    async with pool.acquire() as connection:
        unseen = connection.transaction()
        await unseen.start()
        await queries.move_signing_keys(connection, present="active", wanted="retired")
        signer = await load_signer(connection, vault, BASE_URL, now)
        await unseen.rollback()
    return signer


@pytest.fixture(scope="session")
def register() -> Register:
    """Registers a live partner with an app and its key on the given connection."""

    async def registered(
        connection: Connection, now: datetime, *, alg: str = "ES256"
    ) -> tuple[App, PartnerClient]:
        partner_id = await registry.register_partner(
            connection,
            slug=f"mall-{uuid4().hex[:12]}",
            name_zh="示例商城",
            name_en="Sample Mall",
            kind="service_provider",
            scene="ecommerce",
            status="live",
            now=now,
        )
        app = await registry.register_app(connection, partner_id=partner_id, scopes=SCOPES, now=now)
        client = PartnerClient(client_id=app.client_id, issuer=BASE_URL, alg=alg)
        await registry.add_key(connection, app_id=app.id, jwk=client.public_jwk, now=now)
        return app, client

    return registered


@pytest.fixture
async def app_and_client(
    connection: Connection, register: Register, now: datetime
) -> tuple[App, PartnerClient]:
    return await register(connection, now)


@pytest.fixture
def app(app_and_client: tuple[App, PartnerClient]) -> App:
    return app_and_client[0]


@pytest.fixture
def client(app_and_client: tuple[App, PartnerClient]) -> PartnerClient:
    return app_and_client[1]


class Onto:
    """A connection that is open already, as something to be entered once for each step."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def __aenter__(self) -> Connection:
        return self._connection

    async def __aexit__(self, *_: object) -> None:
        return None


@pytest.fixture
def flow_of(connection: Connection, signer: Signer, vault: Vault, now: datetime) -> Any:
    """Makes the flow of a client on the test's own connection."""

    async def made(app: App, client: PartnerClient) -> Flow:
        await registry.add_redirect_uri(
            connection, client_id=app.client_id, uri=REDIRECT, sandbox=False, actor="test", now=now
        )
        [member] = await enrol_members(connection, count=1, now=now)
        return Flow(
            lambda: Onto(connection), client=client, signer=signer, vault=vault, member=member, now=now
        )

    return made


@pytest.fixture
async def flow(flow_of: Any, app: App, client: PartnerClient) -> Flow:
    made: Flow = await flow_of(app, client)
    return made
