"""The server under test: the whole gateway behind a socket, with a clock that a test may move, and clients of it.

It is known as https://bank.example, whatever address it listens on, as behind a proxy that ends TLS.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import uvicorn
from partner_client import PartnerClient, private_jwk

from gateway.app import build_edge, build_litestar
from gateway.runtime import Runtime
from kernel.caller import MemberRef
from kernel.clock import DatabaseClock
from kernel.database import transaction
from kernel.settings import Settings
from partners.oauth.grants import Authentication
from partners.oauth.interaction import approve_interaction, deny_interaction
from partners.registry import service as registry
from points.membership.service import enrol_members

ISSUER = "https://bank.example"
TOKEN = "/oauth2/token"
PAR = "/oauth2/par"
AUTHORIZE = "/oauth2/authorize"
INTROSPECT = "/oauth2/introspect"
REVOKE = "/oauth2/revoke"
ME = "/v1/me"
FORM = "application/x-www-form-urlencoded"


def refused(answer: httpx.Response, status: int, *errors: str) -> None:
    """An error of RFC 6749 §5.2, complete and not to be cached."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json")
    assert answer.headers["cache-control"] == "no-store"
    body = answer.json()
    assert body["error"] in errors
    # RFC 6749 §5.2: printable ASCII in the description, without control characters
    assert all(" " <= character <= "~" for character in body["error_description"])
    assert set(body) <= {"error", "error_description", "error_uri"}


class MovedClock(DatabaseClock):
    """The database's clock, as it will be `ahead` from now."""

    ahead = timedelta()

    def now(self) -> datetime:
        return super().now() + self.ahead


class Bank:
    """A running server and a connection to it."""

    def __init__(self, runtime: Runtime, clock: MovedClock, http: httpx.AsyncClient) -> None:
        self.runtime = runtime
        self.clock = clock
        self.http = http

    @contextlib.contextmanager
    def later(self, **duration: float) -> Generator[None, None, None]:
        """Inside the block it is so much later, for the server and for its clients."""
        self.clock.ahead = timedelta(**duration)
        try:
            yield
        finally:
            self.clock.ahead = timedelta()

    async def register(
        self, *scopes: str, alg: str = "ES256", redirect_uri: str | None = None
    ) -> "RelyingParty":
        """A live partner with one app and one key; with a redirect URI it may ask members."""
        now = self.clock.now()
        async with transaction(self.runtime.pool) as connection:
            partner_id = await registry.register_partner(
                connection,
                slug=f"rp-{uuid4().hex[:12]}",
                name_zh="测试合作方",
                name_en="Test Partner",
                kind="service_provider",
                scene="ecommerce",
                status="live",
                now=now,
            )
            granted = scopes or ("members:read", "points:earn")
            # The suite's plan has no signed messages.
            app = await registry.register_app(
                connection, partner_id=partner_id, scopes=granted, request_signature="optional", now=now
            )
            client = PartnerClient(client_id=app.client_id, issuer=ISSUER, alg=alg)
            await registry.add_key(connection, app_id=app.id, jwk=client.public_jwk, now=now)
            if redirect_uri is not None:
                await registry.add_redirect_uri(
                    connection,
                    client_id=app.client_id,
                    uri=redirect_uri,
                    sandbox=False,
                    actor="test",
                    now=now,
                )
        return RelyingParty(self, client)

    async def enrol(self) -> MemberRef:
        """A member nobody has asked anything yet."""
        async with transaction(self.runtime.pool) as connection:
            (member,) = await enrol_members(connection, count=1, now=self.clock.now())
        return member

    async def approve(self, handle: str, member: MemberRef) -> str:
        """A member agrees to what the page of `handle` says; where the member's browser is sent."""
        now = self.clock.now()
        async with transaction(self.runtime.pool) as connection:
            return await approve_interaction(
                connection,
                handle=handle,
                member=member,
                authentication=Authentication(at=now, methods=["pwd", "otp"]),
                sensitive_given=True,
                now=now,
            )

    async def deny(self, handle: str) -> str:
        """A member does not agree."""
        async with transaction(self.runtime.pool) as connection:
            return await deny_interaction(connection, handle=handle, now=self.clock.now())


class RelyingParty:
    """A client that does everything right, except where a test says otherwise."""

    def __init__(self, bank: Bank, keys: PartnerClient) -> None:
        self.bank = bank
        self.keys = keys

    @property
    def client_id(self) -> str:
        return self.keys.client_id

    def proof(self, method: str, path: str, **changes: Any) -> str:
        return self.keys.proof(method, ISSUER + path, self.bank.clock.now(), **changes)

    def assertion(self, **changes: Any) -> str:
        return self.keys.assertion(self.bank.clock.now(), **changes)

    async def ask_token(self, *, proofs: list[str] | None = None, **form: Any) -> httpx.Response:
        """The answer of the token endpoint; `form` changes single parameters."""
        sent = [self.proof("POST", TOKEN)] if proofs is None else proofs
        return await self.send_form(TOKEN, proofs=sent, **form)

    async def send_form(self, path: str, *, proofs: list[str], **form: Any) -> httpx.Response:
        """The answer of an OAuth endpoint to an authenticated form."""
        return await self.bank.http.post(
            path,
            content=self.keys.form(self.bank.clock.now(), **form),
            headers=[("Content-Type", FORM), *(("DPoP", proof) for proof in proofs)],
        )

    async def token(self, **form: Any) -> str:
        answer = await self.ask_token(**form)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])

    async def call(
        self,
        token: str,
        *,
        method: str = "GET",
        path: str = ME,
        scheme: str = "DPoP",
        proofs: list[str] | None = None,
        header: str = "DPoP",
    ) -> httpx.Response:
        """The answer of the partner API to a good request, except for what the test says."""
        answer = await self._call(token, method, path, scheme, header, proofs)
        if proofs is None and 'error="use_dpop_nonce"' in answer.headers.get("www-authenticate", ""):
            # RFC 9449 §9: once more, with the nonce
            nonce = answer.headers["dpop-nonce"]
            again = [self.proof(method, path.partition("?")[0], token=token, nonce=nonce)]
            answer = await self._call(token, method, path, scheme, header, again)
        return answer

    async def _call(
        self, token: str, method: str, path: str, scheme: str, header: str, proofs: list[str] | None
    ) -> httpx.Response:
        sent = [self.proof(method, path.partition("?")[0], token=token)] if proofs is None else proofs
        headers = [("Authorization", f"{scheme} {token}"), *((header, proof) for proof in sent)]
        return await self.bank.http.request(method, path, headers=headers)

    @property
    def private_proof_jwk(self) -> dict[str, Any]:
        return private_jwk(self.keys.proof_alg, self.keys.proof_key)


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Signals stay with the test runner."""
        yield


@asynccontextmanager
async def open_bank(settings: Settings) -> AsyncGenerator[Bank, None]:
    """A bank for as long as the block runs."""
    runtime, clock = Runtime(settings), MovedClock()
    runtime.clock = clock
    async with runtime.open():
        application = build_edge(runtime, build_litestar(runtime, openapi=None))
        config = uvicorn.Config(
            application,
            http="httptools",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
        )
        server = _Server(config)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            address = f"http://127.0.0.1:{listener.getsockname()[1]}"
            async with httpx.AsyncClient(base_url=address, timeout=30.0) as http:
                yield Bank(runtime, clock, http)
            server.should_exit = True
            await serving
