"""A real Chromium against the real gateway on a loopback port, and a partner's page to come back to.

Without a Chromium these tests are skipped and say so; `make browser` fails then.
"""

import asyncio
import os
import shutil
import socket
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from msgspec import Struct
from own_database import database_name, database_url, owner_url, pool
from playwright.async_api import Browser, BrowserContext, Page, async_playwright
from waiting import Member, Waiting, enrol, push

from gateway.app import build_edge, build_litestar
from gateway.runtime import Runtime
from kernel import logs
from kernel.database import transaction
from kernel.settings import Secret, Settings
from kernel.vault import generate_ring
from partners.login.delivery import list_messages

__all__ = ["database_name", "database_url", "owner_url", "pool"]

logs.configure("error")

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PHONE: dict[str, Any] = {
    "viewport": {"width": 390, "height": 844},
    "device_scale_factor": 2,
    "has_touch": True,
}
PATIENCE_MS = 20_000


class Site(Struct, frozen=True, kw_only=True):
    """The gateway, listening."""

    base_url: str
    runtime: Runtime


@pytest.fixture(scope="session")
def chromium_path() -> str:
    """Where Chromium is."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        if os.environ.get("BROWSER_NEEDED"):
            pytest.fail("no Chromium on PATH: install it (apt-get install chromium)", pytrace=False)
        pytest.skip("NO CHROMIUM ON PATH: the bank's pages are not tested in a browser")
    return found


@pytest.fixture(scope="session")
async def chromium(chromium_path: str) -> AsyncGenerator[Browser, None]:
    """One browser for the run; every test has a profile of its own in it."""
    async with async_playwright() as driver:
        browser = await driver.chromium.launch(
            executable_path=chromium_path, args=FLAGS, timeout=4 * PATIENCE_MS
        )
        yield browser
        await browser.close()


@pytest.fixture(scope="module")
async def site(database_url: str, redis_url: str) -> AsyncGenerator[Site, None]:
    """The gateway under a name, not an address: passkeys belong to names."""
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        base_url = f"http://localhost:{listener.getsockname()[1]}"
        settings = Settings(
            base_url=base_url,
            database_url=Secret(database_url),
            redis_url=Secret(redis_url),
            master_keys=Secret(generate_ring()),
        )
        runtime = Runtime(settings)
        async with runtime.open():
            edge = build_edge(runtime, build_litestar(runtime, openapi=None))
            config = uvicorn.Config(
                cast(Any, edge), lifespan="off", log_config=None, access_log=False, ws="none"
            )
            server = uvicorn.Server(config)
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            yield Site(base_url=base_url, runtime=runtime)
            server.should_exit = True
            await serving


@pytest.fixture(scope="module")
async def shop() -> AsyncGenerator[str, None]:
    """The partner's page, on another origin; what it is asked for stands in the browser's address."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = b"<!doctype html><title>shop</title><h1>back at the shop</h1>"
        head = f"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/callback"
    server.close()


@pytest.fixture(scope="module")
async def roaming_shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[tuple[str, str], None]:
    """A partner on https that goes on to another host of its own; its callback, and where one ends up."""
    home: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        status = f"302 Found\r\nlocation: {home[0]}" if b" /callback" in head else "200 OK"
        writer.write(f"HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(
        answer, "0.0.0.0", 0, ssl=_own_certificate(tmp_path_factory.mktemp("shop"))
    )
    port = server.sockets[0].getsockname()[1]
    home.append(f"https://127.0.0.2:{port}/home")
    yield f"https://127.0.0.1:{port}/callback", home[0]
    server.close()


def _own_certificate(folder: Path) -> ssl.SSLContext:
    """What nobody vouches for; the test's browser is told not to mind."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "shop.example")])
    begins = datetime(2020, 1, 1, tzinfo=UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(begins)
        .not_valid_after(begins + timedelta(days=36_500))
        .sign(key, SHA256())
    )
    path = folder / "shop.pem"
    path.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        + certificate.public_bytes(Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


Ask = Callable[..., Awaitable[Waiting]]


@pytest.fixture
def ask(site: Site, shop: str) -> Ask:
    """A partner's request that waits for an answer."""

    async def ask(**changes: Any) -> Waiting:
        now: datetime = site.runtime.clock.now()
        async with transaction(site.runtime.pool) as connection:
            return await push(
                connection,
                vault=site.runtime.vault,
                now=now,
                **({"redirect_uri": shop, "issuer": site.base_url} | changes),
            )

    return ask


@pytest.fixture
async def member(site: Site) -> Member:
    """Somebody who can log in."""
    async with transaction(site.runtime.pool) as connection:
        return await enrol(connection, vault=site.runtime.vault, now=site.runtime.clock.now())


async def last_code(site: Site, member: Member) -> str:
    """The code that was sent last, as it stands on the member's phone."""
    async with transaction(site.runtime.pool) as connection:
        messages = await list_messages(connection, login=member.login, vault=site.runtime.vault)
    assert messages
    return messages[0][1].removeprefix("验证码 ")[:6]


Opened = Callable[..., Awaitable[tuple[BrowserContext, Page, list[str]]]]


@pytest.fixture
async def open_browser(chromium: Browser) -> AsyncGenerator[Opened, None]:
    """A phone with a fresh profile; its third part collects whatever the browser complains about."""
    contexts: list[BrowserContext] = []

    async def opened(**options: Any) -> tuple[BrowserContext, Page, list[str]]:
        context = await chromium.new_context(**(PHONE | {"locale": "zh-CN"} | options))
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        page = await context.new_page()
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        return context, page, complaints

    yield opened
    for context in contexts:
        await context.close()
