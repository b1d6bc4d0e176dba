"""What every domain writes beside its own rows: audit chain, outbox, idempotency, one-time ids; on a real server."""

import asyncio
from datetime import datetime, timedelta
from uuid import uuid4

import asyncpg
import pytest

from kernel import audit, idempotency, one_time, outbox
from kernel.database import Connection, Pool, transaction
from kernel.vault import Vault, generate_ring

VAULT = Vault(generate_ring())
RECORD = audit.AuditRecord(actor="app:x", action="plan.refund", subject="pln_1", detail={"amount_fen": 5})


async def test_audit_records_are_chained_without_a_gap(connection: Connection, now: datetime) -> None:
    partner = uuid4()
    for _ in range(3):
        await audit.append(connection, RECORD, partner_id=partner, now=now)

    rows = await connection.fetch(
        "SELECT *, audit_hash(prev_hash, lane, seq, at, actor, action, subject, detail) AS again"
        "  FROM audit_record WHERE lane = $1 ORDER BY seq DESC LIMIT 3",
        1 + partner.int % 7,
    )

    last, middle, first = rows
    assert last["prev_hash"] == middle["hash"] and middle["prev_hash"] == first["hash"]
    assert last["seq"] == first["seq"] + 2
    assert all(row["hash"] == row["again"] for row in rows)


@pytest.mark.parametrize("table", ["audit_record", "outbox_event"])
@pytest.mark.parametrize("statement", ["DELETE FROM {}", "TRUNCATE {}"])
async def test_the_application_can_not_undo_what_is_on_record(pool: Pool, table: str, statement: str) -> None:
    async with pool.acquire() as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement.format(table))


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_record SET actor = 'nobody'",
        "UPDATE audit_lane SET seq = 0",
        "INSERT INTO audit_record VALUES (0, 1, now(), 'x', 'x', 'x', '{}', '', '')",
    ],
)
async def test_the_application_can_only_append_to_the_audit_log(pool: Pool, statement: str) -> None:
    async with pool.acquire() as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)


async def test_events_are_written_with_the_transaction(connection: Connection, now: datetime) -> None:
    partner = uuid4()
    event = outbox.Event(
        bucket=3, partner_id=partner, type="plan.voided", aggregate="pln_1", payload={"id": "pln_1"}
    )

    await outbox.enqueue(connection, [event, event], now=now)

    rows = await connection.fetch("SELECT * FROM outbox_event WHERE partner_id = $1", partner)
    assert [row["payload"] for row in rows] == [{"id": "pln_1"}] * 2
    assert rows[0]["position"] is None


async def test_an_identifier_is_good_once(connection: Connection, now: datetime) -> None:
    until = now + timedelta(minutes=2)
    name = str(uuid4())

    assert await one_time.use_once(connection, scope="dpop", identifier=name, expires_at=until)
    assert not await one_time.use_once(connection, scope="dpop", identifier=name, expires_at=until)
    assert await one_time.use_once(connection, scope="assertion", identifier=name, expires_at=until)


async def test_only_expired_identifiers_are_forgotten(connection: Connection, now: datetime) -> None:
    name = str(uuid4())
    await one_time.use_once(connection, scope="t", identifier=name, expires_at=now + timedelta(seconds=1))

    await one_time.forget_expired(connection, now=now)
    assert not await one_time.use_once(connection, scope="t", identifier=name, expires_at=now)

    assert await one_time.forget_expired(connection, now=now + timedelta(seconds=2)) >= 1
    assert await one_time.use_once(connection, scope="t", identifier=name, expires_at=now)


async def test_a_stored_answer_comes_back_byte_for_byte(connection: Connection, now: datetime) -> None:
    app_id, key, mark = uuid4(), "key-1", b"\x01" * 32
    body = b'{"id":"x"}' * 1_000

    answer = idempotency.StoredAnswer(status=201, body=body)

    assert (
        await idempotency.begin(
            connection, idempotency.keyed(app_id=app_id, key=key, fingerprint=mark), vault=VAULT
        )
        is None
    )
    await idempotency.remember_each(
        connection,
        [(idempotency.keyed(app_id=app_id, key=key, fingerprint=mark), answer)],
        vault=VAULT,
        now=now,
    )

    assert (
        await idempotency.begin(
            connection, idempotency.keyed(app_id=app_id, key=key, fingerprint=mark), vault=VAULT
        )
        == answer
    )
    with pytest.raises(idempotency.IdempotencyKeyReused):
        await idempotency.begin(
            connection, idempotency.keyed(app_id=app_id, key=key, fingerprint=b"\x02" * 32), vault=VAULT
        )
    assert (
        await idempotency.begin(
            connection, idempotency.keyed(app_id=uuid4(), key=key, fingerprint=mark), vault=VAULT
        )
        is None
    )


async def test_a_stored_answer_is_sealed(connection: Connection, now: datetime) -> None:
    app_id = uuid4()
    answer = idempotency.StoredAnswer(status=201, body=b'{"secret":"whsec_abc"}')
    await idempotency.remember_each(
        connection,
        [(idempotency.keyed(app_id=app_id, key="k", fingerprint=b"\x05" * 32), answer)],
        vault=VAULT,
        now=now,
    )

    kept = await connection.fetchval("SELECT body FROM kernel_idempotency WHERE app_id = $1", app_id)

    assert b"whsec" not in kept


async def test_a_second_request_waits_for_the_first_under_its_key(pool: Pool, now: datetime) -> None:
    app_id, mark = uuid4(), b"\x03" * 32
    begun = asyncio.Event()

    async def first() -> None:
        async with transaction(pool) as connection:
            assert (
                await idempotency.begin(
                    connection, idempotency.keyed(app_id=app_id, key="k", fingerprint=mark), vault=VAULT
                )
                is None
            )
            begun.set()
            await connection.execute("SELECT pg_sleep(0.2)")
            await idempotency.remember_each(
                connection,
                [
                    (
                        idempotency.keyed(app_id=app_id, key="k", fingerprint=mark),
                        idempotency.StoredAnswer(status=200, body=b"{}"),
                    )
                ],
                vault=VAULT,
                now=now,
            )

    async def second() -> idempotency.StoredAnswer | None:
        await begun.wait()
        async with transaction(pool) as connection:
            return await idempotency.begin(
                connection, idempotency.keyed(app_id=app_id, key="k", fingerprint=mark), vault=VAULT
            )

    _, stored = await asyncio.gather(first(), second())

    assert stored is not None and stored.body == b"{}"


async def test_waiting_longer_than_the_lock_timeout_is_in_progress(pool: Pool) -> None:
    app_id, mark = uuid4(), b"\x04" * 32
    async with transaction(pool) as first, transaction(pool) as second:
        await second.execute("SET LOCAL lock_timeout = '50ms'")
        await idempotency.begin(
            first, idempotency.keyed(app_id=app_id, key="k", fingerprint=mark), vault=VAULT
        )

        with pytest.raises(idempotency.IdempotencyInProgress):
            await idempotency.begin(
                second, idempotency.keyed(app_id=app_id, key="k", fingerprint=mark), vault=VAULT
            )


@pytest.mark.parametrize("key", [None, "", '""', " ", "a b", "x" * 256, "ключ", "a\x00"])
def test_a_key_that_is_no_key_is_missing(key: str | None) -> None:
    with pytest.raises(idempotency.IdempotencyKeyMissing):
        idempotency.check_key(key)


def test_a_quoted_key_is_the_same_key() -> None:
    assert idempotency.check_key('"abc"') == idempotency.check_key("abc") == "abc"
