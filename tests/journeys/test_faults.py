"""What must hold whatever dies: every line answered once, every point booked once, no request left hanging.

One `serve` of two HTTP workers, hurt once for each fault in the middle of the same import under fresh order numbers.
The results must be those of an import that nothing disturbed. FAULT_LINES makes the imports longer.
"""

import asyncio
import hashlib
import os
import random
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Timer
from typing import Any

import asyncpg
import httpx
import msgspec
import pytest
from faults import Serve, alive, frozen, gone, left_of, refused, resume_all, rows_of, start_command

from gateway import books
from gateway.client import Answer, PartnerClient
from gateway.credentials import base64url
from kernel.calendar import rfc3339
from kernel.database import Connection
from kernel.supervisor.process import wait_until

LINES = int(os.environ.get("FAULT_LINES", "4000"))
CUSTOMERS = LINES // 3
REFUNDS = LINES // 200
IMPORT_SECONDS = 120.0
PAUSE_SECONDS = 2.0
SILENCE_SECONDS = 3.0

#: waiting for a connection, for a statement that is given up, and for its rollback, which is given up as well
HANG_SECONDS = 12.0
RECOVERY_SECONDS = 3.0
#: an attempt at Redis to count and one to remember the proof take a second together, the rest is a busy machine's; a
#: crowd that waited for Redis one after another would take a minute
DEGRADED_SECONDS = 5.0

NOON = datetime.now(UTC).replace(hour=4, minute=0, second=0, microsecond=0) - timedelta(days=2)
EARNINGS = "/v1/points/earnings"

Row = tuple[Any, ...]


@pytest.fixture(scope="module")
def serve() -> Generator[Serve, None, None]:
    root = Path(tempfile.mkdtemp(prefix="tessera-faults-", dir="/var/tmp"))
    root.chmod(0o711)
    serve = Serve(root)
    try:
        serve.start()
        yield serve
    finally:
        serve.reap()
        shutil.rmtree(root)


@pytest.fixture
async def partner(serve: Serve) -> AsyncGenerator[PartnerClient, None]:
    """The mall, which takes the first answer as it comes."""
    async with PartnerClient(serve.partner("ecommerce"), deadline_seconds=0.0) as client:
        await client.token()
        yield client


def write_orders(directory: Path, name: str) -> Path:
    """The same orders every time, of the same customers, under numbers that begin with `name`; refunds come last."""
    chance = random.Random(LINES)
    lines = ["order_id,customer_ref,ordered_at,quantity,amount_fen,category,refund_of"]
    orders = []
    for number in range(LINES - REFUNDS):
        order = (f"{name}-{number}", f"c{chance.randrange(CUSTOMERS)}", chance.randrange(99_999))
        at = rfc3339(NOON - timedelta(minutes=chance.randrange(100_000)))
        lines.append(f"{order[0]},{order[1]},{at},1,{order[2]},,")
        orders.append(order)
    for number, (order_id, customer, amount_fen) in enumerate(chance.sample(orders, REFUNDS)):
        lines.append(f"{name}-r{number},{customer},{rfc3339(NOON)},1,{amount_fen // 2},,{order_id}")
    file = directory / f"{name}.csv"
    file.write_text("\n".join(lines) + "\n")
    return file


def command(serve: Serve, file: Path, results: Path) -> list[str]:
    return [
        *("import", "orders", str(file), "--partner", "ecommerce", "--progress"),
        *("--results", str(results), "--data-dir", str(serve.data_dir)),
    ]


def begin_import(*arguments: str) -> subprocess.Popen[str]:
    """The import, a third into the file, with the next chunks on their way."""
    process = start_command(*arguments)
    assert process.stderr is not None
    drawn = ""
    while _lines_done(drawn) < LINES // 3:
        letter = process.stderr.read(1)
        assert letter, drawn
        drawn += letter
    return process


def _lines_done(drawn: str) -> int:
    found = re.findall(r"([\d,]+)/", drawn)
    return int(found[-1].replace(",", "")) if found else 0


def import_again(serve: Serve, file: Path) -> list[Row]:
    """The whole import, once more."""
    results = file.with_suffix(".again")
    done = serve.run(*command(serve, file, results)[:-2], seconds=IMPORT_SECONDS)
    assert done.returncode == 0, done.stderr
    return rows_of(results)


def without_name(rows: list[Row]) -> list[Row]:
    return [(order_id.partition("-")[2], *rest) for order_id, *rest in rows]


@pytest.fixture(scope="module")
def undisturbed(serve: Serve) -> list[Row]:
    """The results when nothing happens."""
    directory = serve.data_dir.parent
    rows = without_name(import_again(serve, write_orders(directory, "calm")))
    assert Counter(status for _, status, _, _ in rows) == {"earned": LINES - REFUNDS, "reversed": REFUNDS}
    return rows


def kill_postmaster(serve: Serve, _importer: subprocess.Popen[str]) -> None:
    os.kill(serve.postmaster(), signal.SIGKILL)


def kill_session(serve: Serve, _importer: subprocess.Popen[str]) -> None:
    os.kill(serve.sessions()[0], signal.SIGKILL)


def kill_valkey(serve: Serve, _importer: subprocess.Popen[str]) -> None:
    os.kill(serve.valkey(), signal.SIGKILL)


def kill_http_worker(serve: Serve, _importer: subprocess.Popen[str]) -> None:
    os.kill(serve.http_workers()[0], signal.SIGKILL)


def pause_http_worker(serve: Serve, _importer: subprocess.Popen[str]) -> None:
    pid = serve.http_workers()[0]
    os.kill(pid, signal.SIGSTOP)
    Timer(PAUSE_SECONDS, os.kill, (pid, signal.SIGCONT)).start()


def kill_importer(_serve: Serve, importer: subprocess.Popen[str]) -> None:
    importer.kill()


def kill_serve(serve: Serve, _importer: subprocess.Popen[str]) -> None:
    serve.signal(signal.SIGKILL)
    serve.start()


FAULTS = (
    kill_postmaster,
    kill_session,
    kill_valkey,
    kill_http_worker,
    pause_http_worker,
    kill_importer,
    kill_serve,
)


@pytest.mark.parametrize("hurt", FAULTS, ids=lambda hurt: hurt.__name__)
async def test_an_import_survives(
    serve: Serve,
    undisturbed: list[Row],
    tmp_path: Path,
    hurt: Callable[[Serve, subprocess.Popen[str]], None],
) -> None:
    name = hurt.__name__.replace("_", "")
    file, results = write_orders(tmp_path, name), tmp_path / "results.csv"
    importer = begin_import(*command(serve, file, results))
    hurt(serve, importer)
    _, said = importer.communicate(timeout=IMPORT_SECONDS)
    if hurt is kill_importer:
        assert importer.returncode == -signal.SIGKILL and not results.exists()
    else:
        assert importer.returncode == 0, said
        assert without_name(rows_of(results)) == undisturbed

    assert without_name(import_again(serve, file)) == undisturbed
    connection = await asyncpg.connect(serve.announced()["database_url"])
    try:
        assert await booked(connection, name) == undisturbed_books(undisturbed)
        assert [finding for finding in await books.check(connection) if finding.rows] == []
    finally:
        await connection.close()


BOOKED = """
SELECT kind, count(*) AS operations, count(DISTINCT coalesce(refund_ref, source_ref)) AS numbers, sum(points)::bigint AS points
  FROM ledger_operation
 WHERE source_ref LIKE $1 OR refund_ref LIKE $1
 GROUP BY kind
"""


async def booked(connection: Connection, name: str) -> dict[str, tuple[int, ...]]:
    """Operations, different numbers and points in the ledger under `name`, by kind."""
    records = await connection.fetch(BOOKED, f"{name}-%")
    return {kind: (operations, numbers, points) for kind, operations, numbers, points in records}


def undisturbed_books(rows: list[Row]) -> dict[str, tuple[int, ...]]:
    """What the ledger must hold for these results: one operation for each line."""
    earned = sum(points for _, status, points, _ in rows if status == "earned")
    reversed_ = -sum(points for _, status, points, _ in rows if status == "reversed")
    orders = LINES - REFUNDS
    return {"earn": (orders, orders, earned), "reverse_earn": (REFUNDS, REFUNDS, reversed_)}


async def new_member(partner: PartnerClient, name: str) -> str:
    bound = await partner.post("/v1/members/bindings", {"customer_refs": [name]})
    return str(bound["bindings"][0]["member"])


def earning(member: str, source_ref: str) -> dict[str, Any]:
    """The same body every time it is sent again."""
    return {
        "member": member,
        "source_ref": source_ref,
        "kind": "purchase",
        "occurred_at": rfc3339(NOON),
        "amount_fen": 10_000,
    }


async def earn(partner: PartnerClient, member: str, source_ref: str) -> Answer:
    body = msgspec.json.encode(earning(member, source_ref))
    return await partner.send("POST", EARNINGS, body, idempotency_key=f"key-{source_ref}")


async def timed(answering: Coroutine[Any, Any, Answer]) -> tuple[Answer, float]:
    """The answer and the seconds it took."""
    began_at = time.monotonic()
    return await answering, time.monotonic() - began_at


async def until_answered(partner: PartnerClient, member: str, source_ref: str) -> float:
    """Seconds until an earning is answered as it should be."""
    began_at = time.monotonic()
    while (answer := await earn(partner, member, source_ref)).status != 201:
        assert time.monotonic() - began_at < RECOVERY_SECONDS, answer
    return time.monotonic() - began_at


async def test_a_silent_postgresql_hangs_nobody(serve: Serve, partner: PartnerClient) -> None:
    member = await new_member(partner, "silent")
    for number in range(20):
        assert (await earn(partner, member, f"warm-{number}")).status == 201
    with frozen(serve.postgres()):
        requests = [
            asyncio.create_task(timed(asked))
            for number in range(15)
            for asked in (
                earn(partner, member, f"silent-{number}"),
                partner.send("GET", f"/v1/members/{member}/points"),
            )
        ]
        health = await _live_while(serve, requests)
    answers = [request.result() for request in requests]

    assert {answer.status for answer, _ in answers} == {503}
    assert {answer.json()["code"] for answer, _ in answers} <= {"database_busy", "outcome_unknown"}
    assert max(seconds for _, seconds in answers) < HANG_SECONDS
    assert max(health) < 1.0
    for number in range(15):
        await until_answered(partner, member, f"silent-{number}")
    balance = await partner.get(f"/v1/members/{member}/points")
    assert balance["available_points"] == 35 * 100


async def _live_while(serve: Serve, requests: list[asyncio.Task[Any]]) -> list[float]:
    """The seconds of one /livez after another, until all requests are answered."""
    taken = []
    async with httpx.AsyncClient(base_url=serve.base_url, timeout=HANG_SECONDS) as http:
        while not all(request.done() for request in requests):
            began_at = time.monotonic()
            assert (await http.get("/livez")).status_code in (200, 429)
            taken.append(time.monotonic() - began_at)
            await asyncio.wait(requests, timeout=0.1)
    return taken


async def test_a_postgresql_that_pauses_loses_nothing(serve: Serve, partner: PartnerClient) -> None:
    member = await new_member(partner, "pause")
    pids = serve.postgres()
    with frozen(pids):
        resume = Timer(SILENCE_SECONDS, resume_all, (pids,))
        resume.start()
        requests = [asyncio.create_task(timed(earn(partner, member, f"pause-{n}"))) for n in range(10)]
        answers = [await request for request in requests]
        resume.join()

    assert {answer.status for answer, _ in answers} <= {201, 503}
    assert max(seconds for _, seconds in answers) < HANG_SECONDS
    for number in range(10):
        await until_answered(partner, member, f"pause-{number}")
    balance = await partner.get(f"/v1/members/{member}/points")
    assert balance["available_points"] == 10 * 100


async def test_a_silent_redis_is_done_without(serve: Serve, partner: PartnerClient) -> None:
    member = await new_member(partner, "degraded")
    policies = []
    with frozen([serve.valkey()]):
        for number in range(20):
            for asked in (
                earn(partner, member, f"degraded-{number}"),
                partner.send("GET", f"/v1/members/{member}/points"),
            ):
                answer, seconds = await timed(asked)
                assert answer.status in (200, 201) and seconds < DEGRADED_SECONDS
                policies.append(answer.headers["ratelimit-policy"])
        crowd = [timed(partner.send("GET", f"/v1/members/{member}/points")) for _ in range(100)]
        for answer, seconds in await asyncio.gather(*crowd):
            assert answer.status == 200 and seconds < DEGRADED_SECONDS
    assert {policy.endswith(";degraded") for policy in policies[-10:]} == {True}
    balance = await partner.get(f"/v1/members/{member}/points")
    assert balance["available_points"] == 20 * 100


async def test_a_proof_is_good_once_also_without_redis(serve: Serve, partner: PartnerClient) -> None:
    token = await partner.token()
    headers = {
        "authorization": f"DPoP {token}",
        "dpop": partner.make_proof("GET", "/v1/me", token_hash=_hash_of(token)),
    }
    async with httpx.AsyncClient(base_url=serve.base_url, timeout=HANG_SECONDS) as http:
        with frozen([serve.valkey()]):
            answers = [await http.get("/v1/me", headers=headers) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 401]


def _hash_of(token: str) -> str:
    return base64url(hashlib.sha256(token.encode()).digest())


async def test_the_end_waits_for_the_requests_in_flight(serve: Serve, partner: PartnerClient) -> None:
    member = await new_member(partner, "last")
    assert (await earn(partner, member, "last-0")).status == 201
    family = serve.family()
    tags = serve.tags()
    assert len(tags) == 2
    items = [earning(member, f"last-{number}") for number in range(1, 1_001)]
    body = msgspec.json.encode({"items": items})
    database = await asyncpg.connect(serve.announced()["database_url"])
    try:
        async with database.transaction():
            assert await database.fetchval(HOLD_WALLET, member) is not None
            slow = asyncio.create_task(
                partner.send("POST", f"{EARNINGS}/batch", body, idempotency_key="last")
            )
            await asyncio.wait_for(_until_someone_waits(database), HANG_SECONDS)
            serve.signal(signal.SIGTERM)
            assert await asyncio.to_thread(wait_until, lambda: refused(serve.port), 1.5)
            assert not slow.done()
        answer = await slow
    finally:
        await database.close()

    assert answer.status == 200
    assert {result["status"] for result in answer.json()["results"]} == {201}
    assert serve.wait() == 0
    assert gone(family), alive(family)
    assert left_of(tags) == []


def test_no_fault_was_taken_for_a_bug(serve: Serve) -> None:
    said = serve.log.read_text()
    assert "database_busy" in said
    assert [line for line in said.splitlines() if "request_failed" in line or "edge_failed" in line] == []


HOLD_WALLET = """
SELECT w.seq
  FROM ledger_wallet AS w
  JOIN oauth_subject AS s USING (bucket, member_id)
 WHERE s.sub = $1
   FOR UPDATE OF w
"""


async def _until_someone_waits(database: Connection) -> None:
    """Return when a session waits for a lock, as the slow request does for ours."""
    while not await database.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
        pass  # each look is a trip to the server: nothing is burnt here
