"""A gateway in the test's own loop, partners and members of it, and the tokens of both.

Each request comes from an address of its own, so that what is counted by address never decides a test.
"""

import base64
import hashlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import count
from typing import Any, cast
from uuid import UUID, uuid4

import httpx
from phone import Phone, enrol_member, register_app

from gateway.app import build_edge, build_litestar
from gateway.client import Answer, PartnerClient
from gateway.credentials import Credentials, SigningKey
from gateway.edge import App, Receive, Scope, Send
from gateway.runtime import Runtime
from kernel.calendar import business_date
from kernel.caller import MemberRef
from kernel.database import transaction
from kernel.settings import Secret, Settings
from kernel.vault import generate_ring
from partners.oauth.grants import Authentication
from partners.oauth.interaction import approve_interaction
from partners.oauth.scopes import SCOPES, member_scopes
from partners.offers.sandbox import ecommerce_offer, publish_definition
from partners.registry import service as registry

BASE_URL = "http://127.0.0.1:8080"
REDIRECT = "http://127.0.0.1:8765/callback"
VERIFIER = "v" * 64
EVERYTHING = " ".join(member_scopes(sorted(SCOPES)))
PLENTY = 1_000_000
#: one for all gateways of these tests, which may share a database
RING = generate_ring()


def digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


class Steady(PartnerClient):
    """A partner's client that takes a 401 for an answer."""

    def _may_renew(self, answer: Answer, token: str) -> bool:
        return False


class MemberClient(Steady):
    """A partner's client that calls with a member's token in place of its own."""

    grant_id = ""
    refresh_token = ""

    def adopt(self, issued: dict[str, Any]) -> None:
        self._token = issued["access_token"]
        self._token_hash = digest(self._token)
        self._renew_at = float("inf")
        self.grant_id = issued["grant_id"]
        self.refresh_token = issued["refresh_token"]

    async def form(self, path: str, **fields: str) -> httpx.Response:
        """A form to an OAuth endpoint, with a fresh assertion."""
        form = {
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            "client_assertion": self.make_assertion(),
            **fields,
        }
        headers = {"dpop": self.make_proof("POST", path)} if path == "/oauth2/token" else {}
        return await self._http.post(path, data=form, headers=headers)


class House:
    """The gateway and whoever knows it."""

    def __init__(self, runtime: Runtime, http: httpx.AsyncClient) -> None:
        self.runtime = runtime
        self.http = http

    def client(self, credentials: Credentials) -> PartnerClient:
        return Steady(credentials, http=self.http, deadline_seconds=5.0)

    async def partner(self, *scopes: str) -> PartnerClient:
        """A live partner with one app, which may do everything unless told otherwise, and an offer on sale."""
        key, kid, now = SigningKey.generate(), f"k-{uuid4().hex[:12]}", self.runtime.clock.now()
        granted = list(scopes or sorted(SCOPES))
        async with transaction(self.runtime.pool) as connection:
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
                scopes=granted,
                rate_per_second=PLENTY,
                burst=PLENTY,
                dpop_nonce_required=False,
                request_signature="optional",
                now=now,
            )
            jwk = key.public_jwk | {"kid": kid, "alg": "ES256"}
            await registry.add_key(connection, app_id=app.id, jwk=jwk, now=now)
            await registry.add_redirect_uri(
                connection, client_id=app.client_id, uri=REDIRECT, sandbox=True, actor="test", now=now
            )
            await registry.record_agreement(
                connection,
                partner_id=partner_id,
                scenarios=("ecom_checkout",),
                funding={},
                starts_on=business_date(now) - timedelta(days=1),
                ends_on=business_date(now) + timedelta(days=30),
                now=now,
            )
            await publish_definition(connection, ecommerce_offer(now), partner_id=partner_id, now=now)
        credentials = Credentials(
            base_url=BASE_URL,
            issuer=BASE_URL,
            client_id=app.client_id,
            kid=kid,
            private_jwk=key.private_jwk(),
            scopes=granted,
            webhook_secret="",
        )
        return self.client(credentials)

    async def phone(self) -> Phone:
        """A member of its own, logged in with the bank's app."""
        phone = Phone(
            self.http, self.runtime, await register_app(self.runtime), await enrol_member(self.runtime)
        )
        await phone.log_in()
        return phone

    async def partner_id(self, partner: PartnerClient) -> UUID:
        async with transaction(self.runtime.pool) as connection:
            client = await registry.find_client(connection, partner.credentials.client_id)
        assert client is not None
        return client.partner_id

    async def find_member(self, partner: PartnerClient, member: str) -> MemberRef:
        asked = [(await self.partner_id(partner), member)]
        async with transaction(self.runtime.pool) as connection:
            [ref] = await self.runtime.subjects.resolve_each(
                connection, asked, scope="members:read", now=self.runtime.clock.now()
            )
        assert isinstance(ref, MemberRef)
        return ref

    async def ask_member(self, client: MemberClient, scope: str, **asked: str) -> str:
        """The handle of a page that waits for the member."""
        pushed = await client.form(
            "/oauth2/par",
            response_type="code",
            redirect_uri=REDIRECT,
            scope=scope,
            code_challenge=digest(VERIFIER),
            code_challenge_method="S256",
            **asked,
        )
        assert pushed.status_code == 201, pushed.text
        params = {"client_id": client.credentials.client_id, "request_uri": pushed.json()["request_uri"]}
        opened = await self.http.get("/oauth2/authorize", params=params)
        assert opened.status_code == 303
        return opened.headers["location"].removeprefix("/oauth2/interactions/")

    async def approve(self, handle: str, member: MemberRef) -> str:
        """The code for which the member agreed."""
        now = self.runtime.clock.now()
        async with transaction(self.runtime.pool) as connection:
            url = await approve_interaction(
                connection,
                handle=handle,
                member=member,
                authentication=Authentication(at=now, methods=["pwd", "otp"]),
                sensitive_given=True,
                now=now,
            )
        return httpx.URL(url).params["code"]

    async def grant(self, partner: PartnerClient, member: str, scope: str = EVERYTHING) -> MemberClient:
        """A client with the token of one of the partner's members."""
        client = MemberClient(partner.credentials, http=self.http, deadline_seconds=5.0)
        handle = await self.ask_member(client, scope)
        code = await self.approve(handle, await self.find_member(partner, member))
        issued = await client.form(
            "/oauth2/token",
            grant_type="authorization_code",
            code=code,
            redirect_uri=REDIRECT,
            code_verifier=VERIFIER,
        )
        assert issued.status_code == 200, issued.text
        client.adopt(issued.json())
        return client

    async def suspend(self, partner: PartnerClient) -> None:
        async with transaction(self.runtime.pool) as connection:
            client = await registry.find_client(connection, partner.credentials.client_id)
            assert client is not None
            await registry.set_partner_status(
                connection,
                partner_id=client.partner_id,
                status="suspended",
                actor="test",
                now=self.runtime.clock.now(),
            )
        self.runtime.directory.forget(partner.credentials.client_id)


class _Wandering:
    """The gateway behind addresses that are never the same twice."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._numbers = count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        number = next(self._numbers)
        scope["client"] = (f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}", 1)
        await self._app(scope, receive, send)


@asynccontextmanager
async def open_house(database_url: str, redis_url: str) -> AsyncGenerator[House, None]:
    """A sandbox for as long as the block runs."""
    settings = Settings(
        base_url=BASE_URL,
        database_url=Secret(database_url),
        redis_url=Secret(redis_url),
        master_keys=Secret(RING),
        token_requests_per_minute=PLENTY,
    )
    runtime = Runtime(settings)
    async with runtime.open():
        app = _Wandering(build_edge(runtime, build_litestar(runtime, openapi=None)))
        transport = httpx.ASGITransport(app=cast(Any, app), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url=BASE_URL) as http:
            yield House(runtime, http)
