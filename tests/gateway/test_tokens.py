"""The short way to a client's own token answers as the token endpoint does, and uses everything up once."""

import asyncio
from collections.abc import Generator
from datetime import datetime, timedelta
from typing import Any, cast
from urllib.parse import urlencode

import httpx
import jwt
import pytest
from msgspec import structs

from gateway.app import batch_paths, build_edge, build_litestar
from gateway.client import ASSERTION_TYPE, PartnerClient
from gateway.edge import Edge
from gateway.runtime import Runtime
from kernel import attempts
from kernel.attempts import address_subject
from kernel.clock import DatabaseClock
from kernel.database import Connection, transaction
from kernel.settings import Settings
from partners.oauth.token import TOKEN_PATH

FORM = "application/x-www-form-urlencoded"


@pytest.fixture
def ways(runtime: Runtime) -> list[Edge]:
    """The gateway as it runs, and without its short way."""
    litestar = build_litestar(runtime, openapi=None)
    return [
        build_edge(runtime, litestar),
        Edge(cast(Any, litestar), runtime, batch_paths=batch_paths(litestar)),
    ]


@pytest.fixture
def stillness(runtime: Runtime) -> Generator[None, None, None]:
    """No minute turns while a test counts."""
    kept, runtime.clock = runtime.clock, StillClock(runtime.clock.now())
    yield
    runtime.clock = kept


class StillClock(DatabaseClock):
    def __init__(self, at: datetime) -> None:
        super().__init__()
        self._at = at

    def set(self, reading: datetime, *, asked_at: float, answered_at: float) -> None:
        """The database's time goes on."""

    def now(self) -> datetime:
        return self._at


@pytest.fixture
async def shop(register: Any) -> PartnerClient:
    partner: PartnerClient = await register("members:read", "points:earn")
    return partner


async def ask(
    edge: Edge, shop: PartnerClient, *, headers: list[tuple[str, str]] | None = None, **changes: Any
) -> httpx.Response:
    """A token request, good but for `changes` of its form and for `headers` in place of its own."""
    form = {
        "grant_type": "client_credentials",
        "client_assertion_type": ASSERTION_TYPE,
        "client_assertion": shop.make_assertion(),
    } | changes
    good = [("content-type", FORM), ("dpop", shop.make_proof("POST", TOKEN_PATH))]
    transport = httpx.ASGITransport(app=cast(Any, edge), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url=shop.credentials.base_url) as http:
        body = urlencode({name: value for name, value in form.items() if value is not None}).encode()
        return await http.post(TOKEN_PATH, content=body, headers=good if headers is None else headers)


def told(answer: httpx.Response) -> tuple[Any, ...]:
    """What does not depend on the moment."""
    document = answer.json()
    if "access_token" in document:
        claims = jwt.decode(document["access_token"], options={"verify_signature": False})
        document["access_token"] = {
            name: claims[name] for name in claims if name not in ("jti", "iat", "exp", "nbf")
        }
        document["header"] = jwt.get_unverified_header(answer.json()["access_token"])
    momentary = ("x-request-id", "ratelimit", "content-length")
    headers = sorted((name, value) for name, value in answer.headers.items() if name not in momentary)
    return answer.status_code, headers, document


REQUESTS: dict[str, dict[str, Any]] = {
    "good": {},
    "a part of the scopes": {"scope": "members:read"},
    "a scope it has not": {"scope": "points:spend"},
    "no scope at all": {"scope": " "},
    "the resource": {"resource": "http://127.0.0.1:8080/v1"},
    "another resource": {"resource": "https://other.example"},
    "another grant": {"grant_type": "authorization_code", "code": "x"},
    "an unknown grant": {"grant_type": "password"},
    "no grant": {"grant_type": None},
    "no assertion": {"client_assertion": None},
    "a broken assertion": {"client_assertion": "a.b.c"},
    "another kind of assertion": {"client_assertion_type": "x"},
    "a secret too": {"client_secret": "x"},
    "another client_id": {"client_id": "app_00000000000000000000000000"},
    "JSON": {"headers": [("content-type", "application/json"), ("dpop", "x")]},
    "no content type": {"headers": [("dpop", "x")]},
    "no proof": {"headers": [("content-type", FORM)]},
    "two proofs": {"headers": [("content-type", FORM), ("dpop", "x"), ("dpop", "x")]},
    "a broken proof": {"headers": [("content-type", FORM), ("dpop", "a.b.c")]},
}


@pytest.mark.parametrize("changes", REQUESTS.values(), ids=REQUESTS)
async def test_both_ways_answer_alike(ways: list[Edge], shop: PartnerClient, changes: dict[str, Any]) -> None:
    answers = [told(await ask(edge, shop, **changes)) for edge in ways]

    assert answers[0] == answers[1]


@pytest.mark.parametrize("short", [True, False], ids=["short way", "long way"])
async def test_what_was_used_is_used_on_either_way(
    ways: list[Edge], shop: PartnerClient, short: bool
) -> None:
    first, second = ways if short else reversed(ways)
    assertion, proof = shop.make_assertion(), shop.make_proof("POST", TOKEN_PATH)
    headers = [("content-type", FORM), ("dpop", proof)]

    good = await ask(first, shop, client_assertion=assertion, headers=headers)
    same_assertion = await ask(second, shop, client_assertion=assertion)
    same_proof = await ask(second, shop, headers=headers)

    assert good.status_code == 200
    assert (same_assertion.status_code, same_assertion.json()["error"]) == (401, "invalid_client")
    assert (same_proof.status_code, same_proof.json()["error"]) == (400, "invalid_dpop_proof")


@pytest.mark.parametrize("one", ["assertion", "proof"])
async def test_of_a_hundred_copies_in_two_processes_one_gets_a_token(
    ways: list[Edge], shop: PartnerClient, settings: Settings, one: str
) -> None:
    other = Runtime(settings)
    async with other.open():
        edges = [ways[0], build_edge(other, build_litestar(other, openapi=None))]
        same: dict[str, Any] = (
            {"client_assertion": shop.make_assertion()}
            if one == "assertion"
            else {"headers": [("content-type", FORM), ("dpop", shop.make_proof("POST", TOKEN_PATH))]}
        )
        answers = await asyncio.gather(*(ask(edges[n % 2], shop, **same) for n in range(100)))

    assert sorted({answer.status_code for answer in answers}) == [200, 401 if one == "assertion" else 400]
    assert sum(answer.status_code == 200 for answer in answers) == 1


async def test_tokens_asked_for_together_take_few_statements(
    ways: list[Edge], shop: PartnerClient, runtime: Runtime
) -> None:
    await ask(ways[0], shop)
    before = await _writes(runtime)

    answers = await asyncio.gather(*(ask(ways[0], shop) for _ in range(100)))

    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["access_token"] for answer in answers}) == 100
    assert await _writes(runtime) - before <= 30


async def _writes(runtime: Runtime) -> int:
    """How many transactions used something up."""
    async with runtime.pool.acquire() as connection:
        return int(await connection.fetchval("SELECT count(DISTINCT xmin::text) FROM kernel_one_time_id"))


async def test_a_key_that_is_revoked_gets_no_token_from_what_is_remembered(
    ways: list[Edge], shop: PartnerClient, owner_connection: Connection
) -> None:
    assert (await ask(ways[0], shop)).status_code == 200  # from now on the client is remembered for a moment
    await owner_connection.execute(
        "UPDATE registry_key SET status = 'revoked' WHERE app_id = (SELECT id FROM registry_app WHERE client_id = $1)",
        shop.credentials.client_id,
    )

    refused = await ask(ways[0], shop)

    assert (refused.status_code, refused.json()["error"]) == (401, "invalid_client")


@pytest.mark.parametrize(
    "policy",
    [
        "ip_allow = ARRAY['192.0.2.0/24']::cidr[]",
        "ip_allow = ARRAY['127.0.0.0/8']::cidr[]",
        "token_binding = 'certificate'",
        "grant_types = ARRAY['authorization_code']",
        "status = 'inactive'",
    ],
)
async def test_the_apps_policy_holds_on_either_way(
    ways: list[Edge], register: Any, owner_connection: Connection, policy: str
) -> None:
    answers = []
    for edge in ways:
        shop = await register("points:earn")
        statement = f"UPDATE registry_app SET {policy} WHERE client_id = $1"
        await owner_connection.execute(statement, shop.credentials.client_id)
        status, headers, document = told(await ask(edge, shop))
        answers.append((status, headers, document.get("error"), document.get("error_description")))

    assert answers[0] == answers[1]


@pytest.mark.parametrize("together", [False, True], ids=["one by one", "together"])
async def test_a_client_is_counted_on_the_short_way(
    ways: list[Edge], runtime: Runtime, stillness: None, shop: PartnerClient, together: bool
) -> None:
    almost = runtime.settings.token_requests_per_minute - 3
    async with runtime.pool.acquire() as connection:
        subject = f"client:{shop.credentials.client_id}"
        await attempts.count(connection, subject, requests=almost, now=runtime.clock.now())
    if together:
        answers = await asyncio.gather(*(ask(ways[0], shop) for _ in range(8)))
    else:
        answers = [await ask(ways[0], shop) for _ in range(8)]

    assert sorted(answer.status_code for answer in answers) == [200] * 3 + [429] * 5
    refused = [answer for answer in answers if answer.status_code == 429]
    assert {answer.json()["error"] for answer in refused} == {"temporarily_unavailable"}
    assert all(answer.headers["retry-after"] for answer in refused)


@pytest.mark.parametrize("short", [True, False], ids=["short way", "long way"])
async def test_a_replayed_assertion_is_the_failure_of_whoever_sent_it(
    ways: list[Edge], runtime: Runtime, stillness: None, shop: PartnerClient, short: bool
) -> None:
    edge = ways[0] if short else ways[1]
    assertion = shop.make_assertion()
    async with runtime.pool.acquire() as connection:
        address = address_subject("127.0.0.1")
        before = await attempts.count(connection, address, now=runtime.clock.now())
        await ask(edge, shop, client_assertion=assertion)
        await ask(edge, shop, client_assertion=assertion)
        after = await attempts.count(connection, address, now=runtime.clock.now())

    assert after.failures - before.failures == 1


@pytest.mark.parametrize("together", [False, True], ids=["one by one", "together"])
@pytest.mark.parametrize("short", [True, False], ids=["short way", "long way"])
async def test_copies_of_an_assertion_are_not_counted_as_the_clients_requests(
    settings: Settings, shop: PartnerClient, short: bool, together: bool
) -> None:
    # Whoever has caught one could otherwise lock its client out.
    runtime = Runtime(structs.replace(settings, token_requests_per_minute=1_999))
    async with runtime.open():
        runtime.clock = StillClock(runtime.clock.now())
        litestar = build_litestar(runtime, openapi=None)
        edge = build_edge(runtime, litestar)
        if not short:
            edge = Edge(cast(Any, litestar), runtime, batch_paths=batch_paths(litestar))
        assertion = shop.make_assertion()
        copies = [ask(edge, shop, client_assertion=assertion) for _ in range(4)]
        answers = await asyncio.gather(*copies) if together else [await copy for copy in copies]
        async with runtime.pool.acquire() as connection:
            subject = f"client:{shop.credentials.client_id}"
            counted = await attempts.count(connection, subject, now=runtime.clock.now())

    assert sorted(answer.status_code for answer in answers) == [200, 401, 401, 401]
    assert counted.requests == 1


async def test_a_client_whose_count_is_locked_holds_up_nobody_else(settings: Settings, register: Any) -> None:
    stuck, other = await register("points:earn"), await register("points:earn")
    runtime = Runtime(structs.replace(settings, lock_timeout_ms=500))
    async with runtime.open():
        edge = build_edge(runtime, build_litestar(runtime, openapi=None))
        async with transaction(runtime.pool) as connection:
            for minute in (timedelta(), timedelta(minutes=1)):
                moment = runtime.clock.now() + minute
                await attempts.count(
                    connection, f"client:{stuck.credentials.client_id}", requests=1, now=moment
                )
            for client_id in (stuck.credentials.client_id, other.credentials.client_id):
                await runtime.directory.find(client_id)  # known, so that all are in one batch
            crowd = [ask(edge, stuck) for _ in range(25)]
            answers = await asyncio.gather(*crowd, *(ask(edge, other) for _ in range(3)))

    assert [answer.status_code for answer in answers[25:]] == [200] * 3
