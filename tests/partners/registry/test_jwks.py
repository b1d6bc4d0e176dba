"""Keys fetched from a jwks_uri: what is taken of them, when they are fetched, and where nobody ever connects to."""

import asyncio
import gzip
import json
from collections.abc import AsyncGenerator, Sequence
from datetime import datetime, timedelta
from ipaddress import ip_address
from uuid import uuid4

import httpx
import pytest
from partner_client import generate, private_jwk, public_jwk
from publisher import Publisher

from kernel import outbound
from kernel.database import Pool, transaction
from kernel.outbound import Address, AddressRefused, UrlRefused
from partners.registry import client_keys, jwks, service
from partners.registry.jwks import JwksRefused, KeyFetcher, read_jwks
from partners.registry.model import App, Client

KEY = public_jwk("ES256", generate("ES256")) | {"kid": "a"}
OTHER = public_jwk("ES256", generate("ES256")) | {"kid": "b"}
MINUTE = timedelta(minutes=1)


@pytest.fixture
async def publisher() -> AsyncGenerator[Publisher, None]:
    async with Publisher([KEY]).serving() as found:
        yield found


@pytest.fixture
async def outside() -> AsyncGenerator[httpx.AsyncClient, None]:
    async with outbound.open_client() as client:
        yield client


@pytest.fixture
def fetcher(pool: Pool, outside: httpx.AsyncClient) -> KeyFetcher:
    return KeyFetcher(pool, outside, loopback=True)


@pytest.fixture
async def instant(pool: Pool) -> datetime:
    moment: datetime = await pool.fetchval("SELECT clock_timestamp()")
    return moment


@pytest.fixture
async def app(pool: Pool, publisher: Publisher, instant: datetime) -> App:
    async with transaction(pool) as connection:
        partner_id = await service.register_partner(
            connection,
            slug=f"shop-{uuid4().hex[:12]}",
            name_zh="示例商城",
            name_en="Sample Mall",
            kind="service_provider",
            scene="ecommerce",
            status="live",
            now=instant,
        )
        app = await service.register_app(
            connection, partner_id=partner_id, scopes=["points:earn"], now=instant
        )
        await connection.execute("UPDATE registry_app SET jwks_uri = $2 WHERE id = $1", app.id, publisher.uri)
    return app


async def look_up(pool: Pool, app: App) -> Client:
    async with transaction(pool) as connection:
        client = await service.find_client(connection, app.client_id)
    assert client is not None
    return client


async def test_keys_are_fetched_once_and_used_for_twenty_minutes(
    pool: Pool, fetcher: KeyFetcher, publisher: Publisher, app: App, instant: datetime
) -> None:
    assert await fetcher.refresh(await look_up(pool, app), "a", now=instant)
    client = await look_up(pool, app)
    assert set(client.keys) == {"a"}
    assert not await fetcher.refresh(client, "a", now=instant + timedelta(minutes=19))
    assert publisher.asked == 1
    assert await fetcher.refresh(client, "a", now=instant + timedelta(minutes=20))
    assert publisher.asked == 2


async def test_an_unknown_kid_forces_one_fetch_a_minute(
    pool: Pool, fetcher: KeyFetcher, publisher: Publisher, app: App, instant: datetime
) -> None:
    await fetcher.refresh(await look_up(pool, app), "a", now=instant)
    client = await look_up(pool, app)
    for seconds in (1, 30, 59):
        assert not await fetcher.refresh(client, "forged", now=instant + timedelta(seconds=seconds))
    assert publisher.asked == 1
    publisher.keys = [KEY, OTHER]
    crowd = [fetcher.refresh(client, "b", now=instant + MINUTE) for _ in range(100)]
    assert all(await asyncio.gather(*crowd))
    assert publisher.asked == 2
    assert set((await look_up(pool, app)).keys) == {"a", "b"}


async def test_of_two_processes_one_fetches(
    pool: Pool, outside: httpx.AsyncClient, publisher: Publisher, app: App, instant: datetime
) -> None:
    client = await look_up(pool, app)
    processes = [KeyFetcher(pool, outside, loopback=True) for _ in range(5)]
    await asyncio.gather(*(process.refresh(client, "a", now=instant) for process in processes))
    assert publisher.asked == 1


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        pytest.param("500 Oops", "", None, id="an error"),
        pytest.param("302 Found", "location: http://127.0.0.1:1/\r\n", b"", id="a redirect"),
        pytest.param("200 OK", "", b"not json", id="no JSON"),
        pytest.param("200 OK", "", b'{"keys": ' + b"[" * 50_000, id="a deep nest"),
        pytest.param("200 OK", "", b'{"keys": []' + b" " * 70_000 + b"}", id="too large"),
        pytest.param(
            "200 OK", "content-encoding: gzip\r\n", gzip.compress(b'{"keys": []}'), id="a compressed answer"
        ),
        pytest.param("200 OK", "", json.dumps({"keys": [KEY, KEY]}).encode(), id="a kid twice"),
    ],
)
async def test_a_failed_fetch_keeps_the_last_good_copy_for_a_day(
    pool: Pool,
    fetcher: KeyFetcher,
    publisher: Publisher,
    app: App,
    instant: datetime,
    status: str,
    headers: str,
    body: bytes | None,
) -> None:
    await fetcher.refresh(await look_up(pool, app), "a", now=instant - timedelta(hours=1))
    publisher.status, publisher.headers, publisher.body = status, headers, body
    client = await look_up(pool, app)
    assert not await fetcher.refresh(client, "a", now=instant)
    assert publisher.asked == 2
    assert set((await look_up(pool, app)).keys) == {"a"}
    await pool.execute(
        "UPDATE registry_jwks SET fetched_at = $2 WHERE app_id = $1", app.id, instant - timedelta(hours=24)
    )
    assert (await look_up(pool, app)).keys == {}


async def test_a_key_that_was_revoked_does_not_come_back_under_another_name(
    pool: Pool, fetcher: KeyFetcher, publisher: Publisher, app: App, instant: datetime
) -> None:
    publisher.keys = [KEY, OTHER]
    await fetcher.refresh(await look_up(pool, app), "a", now=instant)
    async with transaction(pool) as connection:
        await client_keys.revoke_key(connection, app_id=app.id, kid="a", actor="admin:duty", now=instant)
    publisher.keys = [KEY, KEY | {"kid": "renamed"}, OTHER]
    assert await fetcher.refresh(await look_up(pool, app), "renamed", now=instant + MINUTE)
    assert set((await look_up(pool, app)).keys) == {"b"}


async def test_a_copy_of_the_old_address_is_not_used_for_the_new_one(
    pool: Pool, fetcher: KeyFetcher, app: App, instant: datetime
) -> None:
    await fetcher.refresh(await look_up(pool, app), "a", now=instant)
    await pool.execute("UPDATE registry_app SET jwks_uri = 'http://127.0.0.1:1/other' WHERE id = $1", app.id)
    client = await look_up(pool, app)
    assert client.keys == {}
    assert not await fetcher.refresh(client, "a", now=instant)
    assert (await look_up(pool, app)).keys == {}


def test_of_a_set_only_good_keys_are_taken() -> None:
    published = [
        KEY,
        private_jwk("ES256", generate("ES256")) | {"kid": "private"},
        {"kty": "oct", "k": "c2VjcmV0", "kid": "secret"},
        KEY | {"kid": 7},
        KEY | {"kid": ""},
        KEY | {"kid": "x" * 65},
        KEY | {"kid": "enc", "use": "enc"},
        {"kid": "empty"},
    ]
    found = read_jwks(json.dumps({"keys": published}).encode())
    assert set(found) == {"a"}
    assert set(found["a"]) == {"kty", "crv", "x", "y", "kid", "alg", "use"}


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"keys": {}}', b'{"keys": [1]}', b"\xff\xfe"])
def test_what_is_no_set_is_refused(body: bytes) -> None:
    with pytest.raises(JwksRefused):
        read_jwks(body)


def test_a_set_without_bound_is_refused() -> None:
    keys = [
        public_jwk("EdDSA", generate("EdDSA")) | {"kid": f"k{place}"} for place in range(jwks.KEYS_MAX + 1)
    ]
    with pytest.raises(JwksRefused):
        read_jwks(json.dumps({"keys": keys}).encode())


# Row 14 of the attacks: what `ipaddress` calls global and nobody should call, and the spellings of this machine.
FORBIDDEN = [
    "10.0.0.1", "100.64.0.1", "100.100.100.200", "127.0.0.1", "169.254.169.254", "172.16.0.1", "192.168.1.1", "0.0.0.0",
    "192.88.99.1", "198.18.0.1", "224.0.0.1", "255.255.255.255", "168.63.129.16",
    "::1", "::", "fe80::1", "fc00::1", "fd00:ec2::254", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::a00:1",
    "64:ff9b:1::a00:1", "2002:a00:1::", "2001::1", "2001:db8::1", "3fff::1", "5f00::1", "ff02::1", "100::1",
]  # fmt: skip


@pytest.mark.parametrize("address", FORBIDDEN)
async def test_ssrf_row_14_no_connection_to_an_inner_address(address: str) -> None:
    async def resolver(_host: str, _port: int) -> Sequence[Address]:
        # One good address does not help: a name is not trusted by half.
        return [ip_address("93.184.216.34"), ip_address(address)]

    parts = outbound.check_url("https://keys.example.com/jwks", loopback=False)
    with pytest.raises(AddressRefused):
        await outbound.find_addresses(parts, loopback=False, resolver=resolver)


async def test_ssrf_row_14_a_sandbox_name_of_this_machine_does_not_lead_elsewhere() -> None:
    async def resolver(_host: str, _port: int) -> Sequence[Address]:
        return [ip_address("169.254.169.254")]

    parts = outbound.check_url("http://localhost:8000/jwks", loopback=True)
    with pytest.raises(AddressRefused):
        await outbound.find_addresses(parts, loopback=True, resolver=resolver)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/jwks",
        "https://0x7f000001/",
        "https://2130706433/",
        "https://[::1]/",
        "https://a@keys.example.com/",
        "https://keys.example.com:22/",
        "https://metadata.google.internal/",
        "file:///etc/passwd",
    ],
)
def test_ssrf_row_14_a_live_platform_calls_public_https_names_only(url: str) -> None:
    with pytest.raises(UrlRefused):
        outbound.check_url(url, loopback=False)


async def test_ssrf_row_14_the_connection_goes_to_the_address_that_was_checked(
    pool: Pool, outside: httpx.AsyncClient, publisher: Publisher, app: App, instant: datetime
) -> None:
    asked: list[str] = []

    async def rebinding(host: str, _port: int) -> Sequence[Address]:
        asked.append(host)
        return [ip_address("127.0.0.1" if len(asked) == 1 else "169.254.169.254")]

    fetcher = KeyFetcher(pool, outside, loopback=True, resolver=rebinding)
    assert await fetcher.refresh(await look_up(pool, app), "a", now=instant)
    assert (asked, publisher.asked) == (["127.0.0.1"], 1)
