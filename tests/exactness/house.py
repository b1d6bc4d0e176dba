"""A gateway in the test's own loop with a database of its own, a clock that tests move, and callers it believes.

Everything behind the edge is real: routes, writer, transactions, idempotency, PostgreSQL. Only who asks and what time
it is are given, at the seams where the process would ask the token and the database.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import asyncpg
import httpx
import msgspec
from msgspec import Struct

from gateway import books, books_recent
from gateway.app import build_edge, build_litestar
from gateway.runtime import Runtime
from kernel import logs
from kernel.calendar import business_date
from kernel.caller import Caller, MemberRef
from kernel.clock import DatabaseClock
from kernel.database import Connection, Pool, open_pool, transaction
from kernel.sender import Sender
from kernel.settings import Secret, Settings
from kernel.supervisor import Endpoints
from kernel.vault import generate_ring
from partners.oauth.model import Authenticated
from partners.oauth.scopes import SCOPES
from partners.oauth.service import grant_consent, subject_for
from partners.registry import service as registry
from partners.registry.model import Client
from points.membership.service import enrol_members

T = TypeVar("T")

NOW = datetime(2026, 11, 20, 4, 0, tzinfo=UTC)
BASE_URL = "http://127.0.0.1:8080"
#: the pool of the gateway; only its sessions are killed
GATEWAY = "tessera"
RETRIES_MAX = 200
#: a kind of points that others may become
MALL = "mall"


class StandingClock(DatabaseClock):
    """Stands where it is put."""

    def __init__(self, at: datetime) -> None:
        super().__init__()
        self.at = at

    def set(self, reading: datetime, *, asked_at: float, answered_at: float) -> None:
        """The database's time does not matter here."""

    def now(self) -> datetime:
        return self.at


class Believer:
    """Takes whoever asks for whom the Authorization header names."""

    def __init__(self) -> None:
        self.callers: dict[str, Caller] = {}

    async def authenticate(
        self,
        *,
        method: str,
        path: str,
        authorization: list[str],
        proofs: list[str],
        sender: Sender,
        now: datetime,
    ) -> Authenticated:
        """The seam at which partners.oauth.access is joined."""
        (name,) = authorization
        caller = self.callers[name]
        client = Client(
            app_id=caller.app_id,
            partner_id=caller.partner_id,
            client_id=name,
            app_status="active",
            partner_status="live",
            epoch=1,
            scopes=sorted(caller.scopes),
            rate_per_second=1_000_000,
            burst=1_000_000,
            keys={},
            dpop_nonce_required=False,
            request_signature="optional",
        )
        return Authenticated(
            caller=caller,
            client=client,
            proof_scope=name,
            proof_jti=uuid4().hex,
            proof_expires_at=now + timedelta(seconds=60),
            rate_per_second=1_000_000,
            burst=1_000_000,
        )


class Partner(Struct, frozen=True, kw_only=True):
    """Somebody the gateway believes."""

    id: UUID
    name: str


class Customer(Struct, frozen=True, kw_only=True):
    """A member, and the name under which the partner knows the member."""

    member: MemberRef
    sub: str


class Answer(Struct, frozen=True, kw_only=True):
    """What came back."""

    status: int
    content: bytes
    replayed: bool

    @property
    def body(self) -> Any:
        return msgspec.json.decode(self.content)

    @property
    def code(self) -> str | None:
        """The word of a refusal; None for a success."""
        return self.body["code"] if self.status >= 400 else None

    @property
    def is_open(self) -> bool:
        """Whether the same has to be asked again to learn what happened."""
        return self.status == 503 or self.code == "idempotency_in_progress"


class House:
    """The gateway, and what a test needs around it."""

    def __init__(self, runtime: Runtime, http: httpx.AsyncClient, believer: Believer, clock: StandingClock):
        self.runtime = runtime
        self.clock = clock
        self._http = http
        self._believer = believer
        #: the tests' own sessions, which nobody kills
        self.desk: Pool
        self.superuser: Connection

    async def register(self, *, slug: str | None = None) -> Partner:
        """A live partner that may do everything."""
        async with transaction(self.desk) as connection:
            partner_id = await registry.register_partner(
                connection,
                slug=slug or f"mall-{uuid4().hex[:12]}",
                name_zh="商城",
                name_en="Mall",
                kind="service_provider",
                scene="ecommerce",
                status="live",
                now=self.clock.at,
            )
        name = f"app_{partner_id.hex}"
        self._believer.callers[name] = Caller(
            partner_id=partner_id,
            app_id=partner_id,
            client_id=name,
            scopes=frozenset(SCOPES),
            key_thumbprint="",
        )
        return Partner(id=partner_id, name=name)

    async def enrol(self, partner: Partner, *, count: int = 1) -> list[Customer]:
        """New members who consent to all the partner may ask."""
        async with transaction(self.desk) as connection:
            members = await enrol_members(connection, count=count, now=self.clock.at)
            return [await self._introduce(connection, partner, member) for member in members]

    async def _introduce(self, connection: Connection, partner: Partner, member: MemberRef) -> Customer:
        now, vault = self.clock.at, self.runtime.vault
        sub = await subject_for(connection, partner_id=partner.id, member=member, vault=vault, now=now)
        await grant_consent(
            connection,
            partner_id=partner.id,
            member=member,
            scopes=[scope for scope, told in SCOPES.items() if told.needs_consent],
            ends_on=date(9999, 12, 31),
            now=now,
        )
        return Customer(member=member, sub=sub)

    async def post(self, partner: Partner, path: str, body: Any = None, *, key: str | None = None) -> Answer:
        """One request, once."""
        headers = {"authorization": partner.name, "idempotency-key": key or uuid4().hex}
        content = b"" if body is None else msgspec.json.encode(body)
        if content:
            headers["content-type"] = "application/json"
        return _answer(await self._http.post(path, content=content, headers=headers))

    async def post_until_known(self, partner: Partner, path: str, body: Any = None, *, key: str) -> Answer:
        """The same request again and again until the answer says what happened."""
        for _ in range(RETRIES_MAX):
            answer = await self.post(partner, path, body, key=key)
            if not answer.is_open:
                return answer
        raise AssertionError(f"still no outcome of {path} after {RETRIES_MAX} tries: {answer.content!r}")

    async def get(self, partner: Partner, path: str) -> Answer:
        return _answer(await self._http.get(path, headers={"authorization": partner.name}))

    async def kill_sessions(self, *, waiting: bool = False) -> int:
        """End the gateway's sessions in the database, or only those that wait for a lock; returns how many."""
        killed: int = await self.superuser.fetchval(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = $1"
            " AND (NOT $2 OR wait_event_type = 'Lock')",
            GATEWAY,
            waiting,
        )
        return killed

    async def broken_sentences_of(self, members: Sequence[MemberRef]) -> dict[str, list[dict[str, Any]]]:
        """What the check of recent days finds about these members."""
        async with transaction(self.desk) as connection:
            found = await books_recent.look_at(connection, members, business_date(NOW))
        return {
            finding.view: finding.rows
            for finding in found
            if finding.rows and finding.view in books_recent.OF_MEMBERS | books_recent.OF_EVENTS
        }

    async def broken_sentences(self) -> dict[str, list[dict[str, Any]]]:
        """What the whole books check finds."""
        async with self.desk.acquire() as connection:
            found = await books.check(connection)
        return {finding.view: finding.rows for finding in found if finding.rows}


class Loop:
    """An event loop for tests that are not coroutines themselves."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)

    def __call__(self, work: Callable[[], Awaitable[T]]) -> T:
        async def run() -> T:
            return await work()

        return self._runner.run(run())

    def close(self) -> None:
        self._runner.close()


@asynccontextmanager
async def open_database(servers: Endpoints, *, template: str, name: str) -> AsyncGenerator[None, None]:
    """A migrated database that is gone afterwards."""
    connection = await asyncpg.connect(servers.superuser_url)
    try:
        await connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        await connection.execute(f"CREATE DATABASE {name} OWNER tessera_owner TEMPLATE {template}")
        await connection.execute(f"GRANT CONNECT ON DATABASE {name} TO tessera_app")
        yield
        await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await connection.close()


@asynccontextmanager
async def open_house(
    servers: Endpoints, *, template: str, name: str, redis_url: str
) -> AsyncGenerator[House, None]:
    """A house on a database called `name`."""
    logs.configure("critical")
    async with open_database(servers, template=template, name=name):
        settings = Settings(
            base_url=BASE_URL,
            database_url=Secret(on_database(servers.database_url, name)),
            redis_url=Secret(redis_url),
            master_keys=Secret(generate_ring()),
        )
        runtime, clock, believer = Runtime(settings), StandingClock(NOW), Believer()
        runtime.clock = clock
        async with runtime.open():
            runtime.verifier = cast(Any, believer)
            edge = build_edge(runtime, build_litestar(runtime, openapi=None))
            transport = httpx.ASGITransport(app=cast(Any, edge), raise_app_exceptions=False)
            async with (
                httpx.AsyncClient(transport=transport, base_url=BASE_URL) as http,
                await open_pool(on_database(servers.database_url, name), application="tessera-tests") as desk,
            ):
                house = House(runtime, http, believer, clock)
                house.desk = desk
                house.superuser = await asyncpg.connect(on_database(servers.superuser_url, name))
                try:
                    yield house
                finally:
                    await house.superuser.close()


def on_database(url: str, name: str) -> str:
    """`url` with another database."""
    return urlsplit(url)._replace(path=f"/{name}").geturl()


def _answer(response: httpx.Response) -> Answer:
    return Answer(
        status=response.status_code,
        content=response.content,
        replayed="idempotency-replayed" in response.headers,
    )
