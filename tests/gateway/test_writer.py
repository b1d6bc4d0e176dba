"""The ledger writer through HTTP: crowds, copies, poison, faults; and that a crowd gets what each would get alone."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from typing import Any, cast
from uuid import uuid4

import asyncpg
import httpx
import msgspec
import pytest
from msgspec.structs import replace

from gateway import books
from gateway.app import ROUTES, build_edge, build_litestar
from gateway.client import PartnerClient
from gateway.edge import Edge
from gateway.requests import OneTimeProof
from gateway.runtime import Runtime
from gateway.writer import Answered, Errand, LedgerWriter
from kernel import idempotency
from kernel.caller import Caller
from kernel.database import Pool, open_pool, transaction
from kernel.settings import Settings
from points.earning.book_queries import READ_EPOCH
from points.earning.handlers import EARNINGS as EARNINGS_KIND
from points.earning.handlers import EarnRequest

EARNINGS = "/v1/points/earnings"
HOLDS = "/v1/points/holds"


async def bind(partner: PartnerClient, count: int) -> list[str]:
    """Members with consent, bound by the partner's own numbers."""
    answer = await partner.post(
        "/v1/members/bindings", {"customer_refs": [str(uuid4()) for _ in range(count)]}
    )
    return [binding["member"] for binding in answer["bindings"]]


def earning(member: str, **changed: Any) -> dict[str, Any]:
    return {
        "member": member,
        "source_ref": str(uuid4()),
        "kind": "purchase",
        "occurred_at": "2026-11-11T20:00:00+08:00",
        "amount_fen": 129_900,
    } | changed


def hold(member: str, points: int, **changed: Any) -> dict[str, Any]:
    return {"member": member, "points": points, "order_ref": "o-1", "ttl_seconds": 600} | changed


async def balance(partner: PartnerClient, member: str) -> dict[str, int]:
    read = await partner.get(f"/v1/members/{member}/points")
    return {name: read[f"{name}_points"] for name in ("available", "held")}


async def raw(
    partner: PartnerClient,
    http: httpx.AsyncClient,
    path: str,
    body: bytes,
    key: str,
    proof: str | None = None,
) -> httpx.Response:
    """One request as it is, without the client's retries."""
    token, token_hash = await partner._current_token()
    headers = {
        "authorization": f"DPoP {token}",
        "dpop": proof or partner.make_proof("POST", path, token_hash=token_hash),
        "idempotency-key": key,
        "content-type": "application/json",
    }
    return await http.post(path, content=body, headers=headers)


async def faults(pool: Pool) -> list[str]:
    async with pool.acquire() as connection:
        return [finding.view for finding in await books.check(connection) if finding.rows]


async def crowd(requests: Sequence[Coroutine[Any, Any, Any]]) -> list[Any]:
    return await asyncio.gather(*requests)


@pytest.mark.parametrize(
    "handler",
    [route for route in ROUTES if route.opt.get("together")],
    ids=lambda handler: handler.handler_name,
)
def test_a_route_that_posts_together_takes_no_transaction_of_its_own(handler: Any) -> None:
    assert handler.opt.get("idempotent") is True
    assert "connection" not in handler.parsed_fn_signature.parameters


async def test_a_crowd_with_copies_of_keys_proofs_and_sources(
    partner: PartnerClient, http: httpx.AsyncClient, pool: Pool
) -> None:
    members = await bind(partner, 20)
    plain = [(earning(members[n % 20]), str(uuid4())) for n in range(200)]
    same_key = [plain[n] for n in range(30)]
    other_body = [(earning(members[0]), plain[n][1]) for n in range(30, 40)]
    same_source = [(plain[n][0], str(uuid4())) for n in range(40, 70)]
    _, token_hash = await partner._current_token()
    proof = partner.make_proof("POST", EARNINGS, token_hash=token_hash)
    same_proof = [(earning(members[1]), str(uuid4())) for _ in range(20)]
    unknown = [(earning("x" * 43), str(uuid4())) for _ in range(10)]

    groups = [plain, same_key, other_body, same_source, unknown]
    answers = await crowd(
        [
            raw(partner, http, EARNINGS, msgspec.json.encode(body), key)
            for group in groups
            for body, key in group
        ]
        + [raw(partner, http, EARNINGS, msgspec.json.encode(body), key, proof) for body, key in same_proof]
    )

    told = Counter((answer.status_code, answer.json().get("code")) for answer in answers)
    assert told == {
        (201, None): 200 + 30 + 1,
        (422, "idempotency_key_reused"): 10,
        (409, "source_already_earned"): 30,
        (404, "member_not_found"): 10,
        (401, "invalid_dpop_proof"): 19,
    }
    first, copies = answers[:30], answers[200:230]
    assert [answer.content for answer in copies] == [answer.content for answer in first]
    for pair in zip(first, copies, strict=True):
        assert sum("idempotency-replayed" in answer.headers for answer in pair) == 1, "whichever came second"
    total = sum([(await balance(partner, member))["available"] for member in members])
    assert total == 201 * 1_299
    assert await faults(pool) == []


async def test_a_crowd_never_holds_more_than_there_is(
    partner: PartnerClient, http: httpx.AsyncClient, pool: Pool
) -> None:
    members = await bind(partner, 10)
    for member in members:
        await partner.post(EARNINGS, earning(member, amount_fen=1_000_00))

    answers = await crowd(
        [
            raw(partner, http, HOLDS, msgspec.json.encode(hold(members[n % 10], 100)), str(uuid4()))
            for n in range(300)
        ]
    )

    told = Counter((answer.status_code, answer.json().get("code")) for answer in answers)
    assert told == {(201, None): 100, (409, "insufficient_points"): 200}
    holds = [answer.json()["id"] for answer in answers if answer.status_code == 201]
    endings = await crowd(
        [
            raw(partner, http, f"{HOLDS}/{hold_id}/{verb}", b"{}", str(uuid4()))
            for hold_id in holds
            for verb in ("capture", "release")
        ]
    )
    told = Counter((answer.status_code, answer.json().get("code")) for answer in endings)
    assert told[(200, None)] == 100 and told[(409, "hold_not_open")] == 100
    for member in members:
        assert (await balance(partner, member))["held"] == 0
    assert await faults(pool) == []


async def test_one_item_the_database_refuses_fails_no_neighbour(
    partner: PartnerClient, http: httpx.AsyncClient
) -> None:
    (member,) = await bind(partner, 1)
    await partner.post(EARNINGS, earning(member))
    _, token_hash = await partner._current_token()
    proof = partner.make_proof("POST", HOLDS, token_hash=token_hash)
    poison = msgspec.json.encode(hold(member, 10, order_ref="a\0b"))

    answers = await crowd(
        [raw(partner, http, HOLDS, msgspec.json.encode(hold(member, 10)), str(uuid4())) for _ in range(5)]
        + [raw(partner, http, HOLDS, poison, str(uuid4()), proof)]
        + [raw(partner, http, HOLDS, msgspec.json.encode(hold(member, 10)), str(uuid4())) for _ in range(5)]
    )

    assert [answer.status_code for answer in answers] == [201] * 5 + [422] + [201] * 5
    assert answers[5].json()["code"] == "value_not_storable"
    again = await raw(partner, http, HOLDS, msgspec.json.encode(hold(member, 10)), str(uuid4()), proof)
    assert again.json()["code"] == "invalid_dpop_proof", "a proof used in a failed write stays used"
    assert (await balance(partner, member))["held"] == 100


async def test_a_crowd_costs_the_statements_of_one(
    partner: PartnerClient, runtime: Runtime, database_url: str
) -> None:
    members = await bind(partner, 8)
    app = await runtime.verifier.authenticate(
        method="POST",
        path=EARNINGS,
        authorization=[f"DPoP {await partner.token()}"],
        proofs=[partner.make_proof("POST", EARNINGS, token_hash=(await partner._current_token())[1])],
        now=runtime.clock.now(),
    )
    async with await open_pool(database_url, size=1) as single:
        writer = LedgerWriter(single, vault=runtime.vault, subjects=runtime.subjects)

        async def statements_of(count: int) -> list[str]:
            statements: list[str] = []
            errands = [_errand(app.caller, members[n % 8], runtime) for n in range(count)]
            async with single.acquire() as connection:
                connection.add_query_logger(note := lambda record: statements.append(record.query))
            outcomes = await writer.post_together(EARNINGS_KIND, errands)
            async with single.acquire() as connection:
                connection.remove_query_logger(note)
            assert all(isinstance(outcome, Answered) for outcome in outcomes)
            # whether the rule book is current is asked twice a second, however many batches there are
            return [text for text in statements if text.strip() and text != READ_EPOCH]

        await statements_of(1)  # the first time, the driver asks for the types
        one, many = await statements_of(1), await statements_of(100)

    assert one == many
    assert sum("ledger_post_earnings" in statement for statement in many) == 1
    assert len(many) <= 9, "begin, proofs, keys, subjects, standings, postings, activity, answers, commit"


def _errand(caller: Caller, member: str, runtime: Runtime) -> Errand:
    now = runtime.clock.now()
    return Errand(
        caller=caller,
        proof=OneTimeProof(scope="test", jti=str(uuid4()), expires_at=now),
        request=idempotency.keyed(app_id=caller.app_id, key=str(uuid4()), fingerprint=bytes(32)),
        status=201,
        now=now,
        item=msgspec.convert(earning(member), EarnRequest),
    )


async def test_a_write_costs_redis_next_to_nothing(
    partner: PartnerClient, http: httpx.AsyncClient, runtime: Runtime, worker: int
) -> None:
    (member,) = await bind(partner, 1)

    async def commands() -> int:
        """Of all clients on this worker's own logical database."""
        clients = await runtime.redis.client_list()
        return sum(int(client["tot-cmds"]) for client in clients if client["db"] == str(worker))

    before = await commands()
    answers = await crowd(
        [raw(partner, http, EARNINGS, msgspec.json.encode(earning(member)), str(uuid4())) for _ in range(200)]
    )

    assert {answer.status_code for answer in answers} == {201}
    assert await commands() - before <= 0.1 * len(answers)


@pytest.fixture
async def impatient(settings: Settings) -> AsyncGenerator[tuple[Runtime, Edge], None]:
    """A second process, as it were, that gives up waiting for a lock after a moment."""
    runtime = Runtime(replace(settings, lock_timeout_ms=100))
    async with runtime.open():
        yield runtime, build_edge(runtime, build_litestar(runtime, openapi=None))


def at(edge: Edge, partner: PartnerClient) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=cast(Any, edge), raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url=partner.credentials.base_url)


async def test_a_wallet_locked_elsewhere_stops_only_its_own_requests(
    partner: PartnerClient, impatient: tuple[Runtime, Edge], pool: Pool
) -> None:
    locked, *free = await bind(partner, 6)
    await partner.post(EARNINGS, earning(locked))
    async with at(impatient[1], partner) as http, transaction(pool) as other:
        await other.execute(
            "SELECT FROM ledger_wallet JOIN oauth_subject USING (bucket, member_id) WHERE sub = $1 FOR UPDATE OF ledger_wallet",
            locked,
        )
        answers = await crowd(
            [
                raw(partner, http, EARNINGS, msgspec.json.encode(earning(member)), str(uuid4()))
                for member in [locked, *free]
            ]
        )

    assert [answer.status_code for answer in answers] == [503] + [201] * 5
    assert answers[0].json()["code"] == "database_busy"


async def test_a_key_in_flight_elsewhere_stops_only_its_own_request(
    partner: PartnerClient, impatient: tuple[Runtime, Edge], pool: Pool
) -> None:
    members = await bind(partner, 4)
    bodies = [msgspec.json.encode(earning(member)) for member in members]
    keys = [str(uuid4()) for _ in members]
    app_id = await pool.fetchval(
        "SELECT id FROM registry_app WHERE client_id = $1", partner.credentials.client_id
    )
    async with at(impatient[1], partner) as http:
        async with transaction(pool) as other:
            vault = impatient[0].vault
            await idempotency.begin(
                other, idempotency.keyed(app_id=app_id, key=keys[0], fingerprint=bytes(32)), vault=vault
            )
            requests = [
                raw(partner, http, EARNINGS, body, key) for body, key in zip(bodies, keys, strict=True)
            ]
            answers = await crowd(requests)
        later = await raw(partner, http, EARNINGS, bodies[0], keys[0])

    assert [answer.status_code for answer in answers] == [409] + [201] * 3
    assert answers[0].json()["code"] == "idempotency_in_progress"
    assert later.status_code == 201


async def test_a_session_that_dies_in_mid_batch_leaves_every_request_with_a_true_answer(
    partner: PartnerClient, http: httpx.AsyncClient, pool: Pool, servers: Any
) -> None:
    members = await bind(partner, 50)
    sent = [(msgspec.json.encode(earning(members[n % 50])), str(uuid4())) for n in range(300)]
    killer = await asyncpg.connect(servers.superuser_url)
    over = asyncio.Event()

    async def kill() -> int:
        killed = 0
        while not over.is_set() and killed < 5:
            killed += await killer.fetchval(
                """
                SELECT count(*) FROM (
                    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                     WHERE application_name = 'tessera' AND query LIKE '%ledger_post_earnings%'
                       AND state <> 'idle' LIMIT 1) AS ended"""
            )
        return killed

    killing = asyncio.create_task(kill())
    try:
        answers: list[httpx.Response] = []
        for begin in range(0, 300, 50):
            answers += await crowd(
                [raw(partner, http, EARNINGS, body, key) for body, key in sent[begin : begin + 50]]
            )
    finally:
        over.set()
        killed = await killing
        await killer.close()

    told = Counter((answer.status_code, answer.json().get("code")) for answer in answers)
    assert set(told) <= {(201, None), (503, "database_busy"), (503, "outcome_unknown")}
    assert killed > 0 and told[(201, None)] < 300
    again = await crowd([raw(partner, http, EARNINGS, body, key) for body, key in sent])
    assert {answer.status_code for answer in again} == {201}
    for before, after in zip(answers, again, strict=True):
        if before.status_code == 201:
            assert after.content == before.content and after.headers["idempotency-replayed"] == "true"
        elif before.json()["code"] == "database_busy":
            assert "idempotency-replayed" not in after.headers, "busy means that nothing had happened"
    total = sum([(await balance(partner, member))["available"] for member in members])
    assert total == 300 * 1_299
    assert await faults(pool) == []


async def test_a_crowd_gets_what_each_would_get_alone(
    partner: PartnerClient, http: httpx.AsyncClient
) -> None:
    """The same story told twice: one request at a time, then all of a kind together."""

    async def in_turn(requests: Sequence[Callable[[], Awaitable[httpx.Response]]]) -> list[httpx.Response]:
        return [await request() for request in requests]

    async def together(requests: Sequence[Callable[[], Awaitable[httpx.Response]]]) -> list[httpx.Response]:
        return await asyncio.gather(*(request() for request in requests))

    told = [await _story(partner, http, way) for way in (in_turn, together)]

    assert told[0] == told[1]


async def _story(partner: PartnerClient, http: httpx.AsyncClient, way: Callable[..., Any]) -> list[Any]:
    members = await bind(partner, 8)
    stem = str(uuid4())

    def asks(path: str, body: dict[str, Any], key: str) -> Callable[[], Awaitable[httpx.Response]]:
        return lambda: raw(partner, http, path, msgspec.json.encode(body), f"{stem}-{key}")

    earnings = [
        asks(
            EARNINGS,
            earning(member, source_ref=f"{stem}-{n % 6}", amount_fen=n * 3_333, kind=kind),
            f"e{n}{kind}",
        )
        for n, member in enumerate(members)
        for kind in ("purchase", "tuition")
    ]
    earnings += [
        asks(EARNINGS, earning(members[0], occurred_at="2036-01-01T00:00:00Z"), "future"),
        asks(EARNINGS, earning(members[0], occurred_at="2016-01-01T00:00:00Z"), "past"),
        asks(EARNINGS, earning("nobody"), "nobody"),
    ]
    told = await way(earnings)
    holds = await way(
        [asks(HOLDS, hold(member, 60, order_ref=f"o-{n}"), f"h{n}") for n, member in enumerate(members)]
    )
    told += holds
    ids = [answer.json().get("id", "hld_nonsense") for answer in holds]
    told += await way(
        [asks(f"{HOLDS}/{ids[n]}/capture", {"points": 10 * n + 1}, f"c{n}") for n in (0, 2, 3, 4, 7)]
    )
    told += await way([asks(f"{HOLDS}/{ids[n]}/release", {}, f"r{n}") for n in (0, 3, 5, 6)])
    return [_essence(answer) for answer in told]


def _essence(answer: httpx.Response) -> Any:
    """An answer without what is new each time."""
    changing = {"id", "lot_id", "operation_id", "trace_id", "expires_at", "type", "deadline_at"}

    def bare(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: bare(one) for name, one in value.items() if name not in changing}
        return [bare(one) for one in value] if isinstance(value, list) else value

    headers = {name for name in answer.headers if name not in ("retry-after",)}
    return answer.status_code, bare(answer.json()), headers
