"""A partner with a vault, and a real receiver on loopback that answers as it is told."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import datetime
from uuid import UUID

import httpx
import pytest
from msgspec import Struct

from kernel import outbox
from kernel.database import Connection, Pool, transaction
from kernel.ids import new_id
from kernel.vault import Vault, generate_ring
from partners.registry import service as registry
from partners.webhooks import delivery, service
from partners.webhooks.model import NewEndpoint


class Received(Struct, frozen=True, kw_only=True):
    """One request that arrived."""

    path: str
    headers: dict[str, str]
    body: bytes


class Receiver:
    """An HTTP server of a partner. `answers` are given in turn, the last one for ever; None means silence."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.answers: list[bytes | None] = [b"HTTP/1.1 204 No Content\r\n\r\n"]
        self.endless = False
        self.stalls = False
        self.open_connections = 0
        self.most_connections = 0
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/in?tenant=7"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open_connections += 1
        self.most_connections = max(self.most_connections, self.open_connections)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers: dict[str, str] = {}
            for line in head[1:]:
                name, _, value = line.partition(": ")
                headers[name.lower()] = value
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            self.received.append(Received(path=head[0].split(" ")[1], headers=headers, body=body))
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            if answer is None:
                await reader.read()
            else:
                writer.write(answer)
                if self.stalls:
                    await reader.read()
                while self.endless and not writer.is_closing():
                    writer.write(b"x" * 65_536)
                    await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            self.open_connections -= 1
            writer.close()


class Partner:
    """A registered partner and what its tests need."""

    def __init__(self, partner_id: UUID, vault: Vault) -> None:
        self.id = partner_id
        self.vault = vault

    async def listen(
        self, connection: Connection, url: str, *event_types: str, now: datetime, secret: str | None = None
    ) -> NewEndpoint:
        return await service.register_endpoint(
            connection,
            partner_id=self.id,
            url=url,
            event_types=event_types or ("*",),
            secret=secret,
            vault=self.vault,
            mode="sandbox",
            now=now,
        )

    async def tell(self, connection: Connection, kind: str, *, now: datetime, count: int = 1) -> None:
        events = [
            outbox.Event(
                bucket=self.id.int % 1024,
                partner_id=self.id,
                type=kind,
                aggregate=f"pln_{no}",
                payload={"no": no},
            )
            for no in range(count)
        ]
        await outbox.enqueue(connection, events, now=now)


@pytest.fixture
def vault() -> Vault:
    return Vault(generate_ring())


async def register(connection: Connection, vault: Vault, now: datetime) -> Partner:
    partner_id = await registry.register_partner(
        connection,
        slug=f"p{new_id(now).hex[-12:]}",
        name_zh="合作方",
        name_en="Partner",
        kind="service_provider",
        scene="ecommerce",
        status="live",
        now=now,
    )
    return Partner(partner_id, vault)


@pytest.fixture
async def partner(connection: Connection, vault: Vault, now: datetime) -> Partner:
    """In the transaction that is rolled back."""
    return await register(connection, vault, now)


@pytest.fixture
async def lasting(
    pool: Pool, owner_connection: Connection, vault: Vault, now: datetime
) -> AsyncGenerator[Partner, None]:
    """Committed, for tests that need several transactions; afterwards nothing of it is due any more."""
    async with transaction(pool) as connection:
        partner = await register(connection, vault, now)
    yield partner
    await owner_connection.execute(
        "DELETE FROM webhooks_delivery USING webhooks_endpoint AS w WHERE w.id = endpoint_id AND w.partner_id = $1",
        partner.id,
    )


@pytest.fixture
async def receiver() -> AsyncGenerator[Receiver, None]:
    receiver = Receiver()
    await receiver.start()
    yield receiver
    await receiver.stop()


@pytest.fixture
async def client() -> AsyncGenerator[httpx.AsyncClient, None]:
    async with delivery.open_client() as opened:
        yield opened
