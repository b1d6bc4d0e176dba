"""Requests and failed authentications are counted in PostgreSQL over all processes, and without it nobody gets in."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import datetime, timedelta
from typing import Any, cast

import httpx
import pytest
from msgspec import structs

from gateway.app import build_edge, build_litestar
from gateway.attempts import AttemptGate, TooManyAttempts
from gateway.client import PartnerClient
from gateway.runtime import Runtime
from kernel import attempts
from kernel.attempts import address_subject
from kernel.database import DatabaseBusy, open_pool, transaction
from kernel.sender import Sender
from kernel.settings import Settings

TOKEN = "/oauth2/token"
HERE = "127.0.0.1"


class Timer:
    """A monotonic timer that a test winds."""

    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
async def strict(settings: Settings) -> AsyncGenerator[Runtime, None]:
    """A process with small limits; the minute begins afresh."""
    runtime = Runtime(structs.replace(settings, token_requests_per_minute=40, token_failures_per_minute=5))
    async with runtime.open():
        await runtime.pool.execute("DELETE FROM kernel_attempt")
        yield runtime
        await runtime.pool.execute("DELETE FROM kernel_attempt")


@pytest.fixture
async def web(strict: Runtime) -> AsyncGenerator[httpx.AsyncClient, None]:
    edge = build_edge(strict, build_litestar(strict, openapi=None))
    transport = httpx.ASGITransport(app=cast(Any, edge), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url=strict.base_url) as client:
        yield client


async def ask(web: httpx.AsyncClient, partner: PartnerClient, **changes: str) -> httpx.Response:
    form = {
        "grant_type": "client_credentials",
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "client_assertion": partner.make_assertion(),
    } | changes
    return await web.post(TOKEN, data=form, headers={"dpop": partner.make_proof("POST", TOKEN)})


async def enter(gate: AttemptGate, address: str, now: datetime) -> bool:
    try:
        await gate.enter(Sender(address=address), now=now)
    except TooManyAttempts:
        return False
    return True


def gate_of(runtime: Runtime, timer: Timer | None = None, **limits: int) -> AttemptGate:
    given = {"requests_per_minute": 100, "failures_per_minute": 5} | limits
    return AttemptGate(runtime.pool, monotonic=timer or Timer(), **given)


async def test_of_all_processes_an_address_gets_what_the_minute_has(strict: Runtime, now: datetime) -> None:
    processes = [gate_of(strict) for _ in range(4)]
    crowd = await asyncio.gather(
        *(enter(process, "192.0.2.1", now) for process in processes for _ in range(60))
    )
    assert sum(crowd) == 100
    assert await enter(processes[0], "192.0.2.2", now), "another address has its own minute"
    assert await enter(processes[0], "192.0.2.1", now + timedelta(minutes=1)), "and so has the next minute"


async def test_the_addresses_of_one_ipv6_customer_are_one(strict: Runtime, now: datetime) -> None:
    gate = gate_of(strict, requests_per_minute=10)
    entered = [await enter(gate, f"2001:db8:0:1::{n:x}", now) for n in range(1, 12)]
    assert entered == [True] * 10 + [False]
    assert await enter(gate, "2001:db8:0:2::1", now)


async def test_failures_elsewhere_are_known_within_a_second(strict: Runtime, now: datetime) -> None:
    timer = Timer()
    gate = gate_of(strict, timer)
    assert await enter(gate, "192.0.2.9", now)
    async with transaction(strict.pool) as connection:
        await attempts.count(connection, address_subject("192.0.2.9"), failures=5, now=now)
    timer.seconds = 1.0
    assert not await enter(gate, "192.0.2.9", now)


async def test_without_the_database_nobody_gets_in(settings: Settings, now: datetime) -> None:
    assert settings.database_url is not None
    pool = await open_pool(settings.database_url.reveal(), size=2)
    gate = AttemptGate(pool, requests_per_minute=100, failures_per_minute=5)
    await pool.close()
    with pytest.raises(DatabaseBusy):
        await gate.enter(Sender(address="192.0.2.1"), now=now)


async def test_who_fails_too_often_is_refused_even_with_the_right_key(
    strict: Runtime, web: httpx.AsyncClient, partner: PartnerClient
) -> None:
    async with transaction(strict.pool) as connection:
        # As if four of five had failed already, whatever minute it is by now.
        for minute in (timedelta(), timedelta(minutes=1)):
            moment = strict.clock.now() + minute
            await attempts.count(connection, address_subject(HERE), failures=4, now=moment)
    assert (await ask(web, partner, client_assertion="x.y.z")).status_code == 401
    strict.attempts._slices.clear()  # a second later
    refused = await ask(web, partner)
    assert (refused.status_code, refused.json()["code"]) == (429, "too_many_attempts")
    assert 1 <= int(refused.headers["retry-after"]) <= 61


async def test_a_client_that_fails_too_often_does_not_lock_out_the_members_of_its_network(
    strict: Runtime, web: httpx.AsyncClient
) -> None:
    """The steps of a login have limits of their own."""
    async with transaction(strict.pool) as connection:
        for minute in (timedelta(), timedelta(minutes=1)):
            moment = strict.clock.now() + minute
            await attempts.count(connection, address_subject(HERE), failures=5, now=moment)
    assert (await web.post(TOKEN)).status_code == 429
    form = {"login": "somebody", "password": "something"}
    step = await web.post(
        f"/oauth2/interactions/{'x' * 43}/password", data=form, headers={"origin": strict.base_url}
    )
    assert step.status_code == 404
    assert step.headers["content-type"].startswith("text/html")


async def test_a_client_has_its_requests_of_a_minute_and_no_more(
    strict: Runtime, web: httpx.AsyncClient, partner: PartnerClient
) -> None:
    client_id = partner.credentials.client_id
    async with transaction(strict.pool) as connection:
        for minute in (timedelta(), timedelta(minutes=1)):
            moment = strict.clock.now() + minute
            await attempts.count(connection, f"client:{client_id}", requests=39, now=moment)
    assert (await ask(web, partner)).status_code == 200
    refused = await ask(web, partner)
    assert (refused.status_code, refused.json()["error"]) == (429, "temporarily_unavailable")
    assert 1 <= int(refused.headers["retry-after"]) <= 61


async def test_counts_are_dropped_when_their_minute_is_long_over(strict: Runtime, now: datetime) -> None:
    async with transaction(strict.pool) as connection:
        await attempts.count(connection, "address:a", requests=1, now=now)
        await attempts.count(connection, "address:b", requests=1, now=now + timedelta(minutes=10))
        assert await attempts.forget_attempts(connection, now=now + timedelta(minutes=10)) == 1


@pytest.mark.parametrize(("identifiers", "firsts", "in_time"), [(1, 1, 50), (50, 50, 10)])
async def test_no_identifier_passes_twice_and_every_first_one_is_counted(
    strict: Runtime, now: datetime, identifiers: int, firsts: int, in_time: int
) -> None:
    async def use(n: int) -> tuple[bool, bool]:
        async with transaction(strict.pool) as connection:
            return await attempts.use_once_counted(
                connection,
                scope="assertion:x",
                identifier=f"{identifiers}-{n % identifiers}",
                expires_at=now + timedelta(minutes=1),
                subject="client:x",
                limit=10,
                now=now,
            )

    answers = await asyncio.gather(*(use(n) for n in range(50)))
    assert sum(first for first, _ in answers) == firsts
    assert sum(within for _, within in answers) == in_time


async def test_a_batch_is_counted_with_its_identifiers(strict: Runtime, now: datetime) -> None:
    async def use(batch: int) -> tuple[set[bytes], dict[str, int]]:
        names = [bytes([batch, n]) * 16 for n in range(4)]
        subjects = {names[0]: "client:a", names[1]: "client:a", names[2]: "client:b"}
        ids = dict.fromkeys(names, now + timedelta(minutes=1))
        async with transaction(strict.pool) as connection:
            return await attempts.use_each_once_counted(connection, ids, subjects, now=now)

    answers = await asyncio.gather(*(use(batch) for batch in range(20)))
    copies = await asyncio.gather(*(use(batch) for batch in range(20)))
    assert sum(len(fresh) for fresh, _ in answers) == 80
    assert sorted(counted["client:a"] for _, counted in answers) == list(range(2, 42, 2))
    assert sorted(counted["client:b"] for _, counted in answers) == list(range(1, 21))
    assert copies == [(set(), {})] * 20


@pytest.mark.parametrize("path", ["//oauth2/token", "/%2Foauth2/token", "///oauth2//token"])
async def test_another_spelling_of_the_path_is_no_way_around_the_count(
    strict: Runtime, web: httpx.AsyncClient, partner: PartnerClient, path: str
) -> None:
    async with transaction(strict.pool) as connection:
        for minute in (timedelta(), timedelta(minutes=1)):
            moment = strict.clock.now() + minute
            await attempts.count(connection, address_subject(HERE), failures=5, now=moment)
    form = {
        "grant_type": "client_credentials",
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "client_assertion": partner.make_assertion(),
    }
    headers = {"dpop": partner.make_proof("POST", TOKEN)}
    answer = await web.post(f"{strict.base_url}{path}", data=form, headers=headers)
    assert (answer.status_code, answer.json().get("code")) == (404, "route_unknown")


async def test_a_count_that_cannot_be_made_in_time_answers_503(
    settings: Settings, partner: PartnerClient
) -> None:
    runtime = Runtime(structs.replace(settings, lock_timeout_ms=50))
    async with runtime.open():
        edge = build_edge(runtime, build_litestar(runtime, openapi=None))
        transport = httpx.ASGITransport(app=cast(Any, edge), raise_app_exceptions=False)
        async with (
            httpx.AsyncClient(transport=transport, base_url=runtime.base_url) as client,
            transaction(runtime.pool) as connection,
        ):
            for minute in (timedelta(), timedelta(minutes=1)):
                moment = runtime.clock.now() + minute
                await attempts.count(connection, address_subject(HERE), requests=1, now=moment)
            answer = await ask(client, partner)
    assert (answer.status_code, answer.json()["code"]) == (503, "database_busy")
