"""A day is closed once, with everything in it; what comes late goes into the next batch."""

import asyncio
import csv
import io
from datetime import date, datetime, timedelta
from uuid import UUID, uuid4

import asyncpg
import pytest

from kernel.database import Connection, Pool, transaction
from kernel.errors import Absent
from kernel.ids import to_wire
from partners.settlement import service
from partners.settlement.model import Batch, Direction
from partners.settlement.rules import SettlementRuleMissing
from points.membership.service import enrol_members

from .conftest import Journal, Shop

DAY = date(2026, 11, 20)


async def _close(shop: Shop, day: date = DAY, *, now: datetime | None = None) -> Batch:
    return await service.close_batch(
        shop.connection, partner_id=shop.partner_id, business_on=day, now=now or shop.now + timedelta(hours=1)
    )


async def _totals(shop: Shop, batch: Batch) -> dict[str, tuple[Direction, int, int, int]]:
    _, totals = await service.find_batch(shop.connection, batch_id=batch.id, partner_id=shop.partner_id)
    return {total.kind: (total.direction, total.lines, total.points, total.amount_fen) for total in totals}


async def _source_sum(shop: Shop) -> int:
    total: int = await shop.connection.fetchval(
        "SELECT sum(amount_fen)::bigint FROM (SELECT partner_id, amount_fen FROM ledger_settlement_source"
        " UNION ALL SELECT partner_id, amount_fen FROM credit_settlement_source) AS s WHERE partner_id = $1",
        shop.partner_id,
    )
    return total


async def test_a_batch_is_everything_the_books_say(shop: Shop, journal: Journal) -> None:
    earned = await shop.earn(1_000)
    await shop.earn(500, funder="partner:mall")
    spent = await shop.spend(600)
    await shop.refund("earn", earned, 50_000)
    await shop.refund("spend", spent, 150)
    await journal.write("capture", "bank", 90_000, owed=True)
    await journal.write("discount", "bank", 5_000, owed=True)
    await journal.write("merchant_subsidy", "merchant", 1_620, owed=False)
    await journal.write("refund", "bank", 30_000, owed=False)

    batch = await _close(shop)
    totals = await _totals(shop, batch)
    assert totals["points_redeemed"] == ("bank_owes_partner", 1, 600, 600)
    assert totals["points_restored"] == ("partner_owes_bank", 1, 150, 150)
    assert totals["points_clawed_back"] == ("none", 2, 500, 400)  # 400 from the lot, 100 owed
    assert totals["capture"] == ("bank_owes_partner", 1, 0, 90_000)
    assert totals["merchant_subsidy"] == ("partner_owes_bank", 1, 0, 1_620)
    issued = await shop.connection.fetch(
        "SELECT direction, points, amount_fen FROM settlement_total WHERE batch_id = $1 AND kind = 'points_issued'"
        " ORDER BY direction",
        batch.id,
    )
    assert [tuple(row) for row in issued] == [("none", 1_000, 800), ("partner_owes_bank", 500, 400)]
    assert batch.bank_owes_fen == 600 + 90_000 + 5_000
    assert batch.partner_owes_fen == 150 + 400 + 1_620 + 30_000
    assert batch.net_fen == batch.bank_owes_fen - batch.partner_owes_fen
    lines = await service.list_lines(
        shop.connection, batch_id=batch.id, partner_id=shop.partner_id, limit=100
    )
    assert [line.no for line in lines] == list(range(1, batch.lines + 1))
    assert sum(line.amount_fen for line in lines) == await _source_sum(shop)


async def test_a_second_close_of_the_day_without_news_is_the_same_batch(shop: Shop) -> None:
    await shop.earn(100)
    first = await _close(shop)
    assert await _close(shop) == first
    assert len(await service.list_batches(shop.connection, partner_id=shop.partner_id, limit=10)) == 1


async def test_a_day_without_business_has_an_empty_batch(shop: Shop) -> None:
    batch = await _close(shop)
    assert (batch.state, batch.sequence, batch.lines, batch.net_fen) == ("closed", 1, 0, 0)


async def test_what_comes_late_goes_into_a_further_batch_of_the_day(shop: Shop, journal: Journal) -> None:
    await shop.earn(100)
    first = await _close(shop)
    await shop.spend(40)
    await journal.write("capture", "bank", 700, owed=True)
    second = await _close(shop)
    assert (second.business_on, second.sequence, second.lines, second.net_fen) == (DAY, 2, 2, 740)
    batch, _ = await service.find_batch(shop.connection, batch_id=first.id, partner_id=shop.partner_id)
    assert batch == first


async def test_what_was_missed_goes_into_the_next_day(shop: Shop, journal: Journal, now: datetime) -> None:
    await journal.write("capture", "bank", 700, owed=True)
    await journal.write("capture", "bank", 900, owed=True, on=DAY + timedelta(days=1))
    assert (await _close(shop)).net_fen == 700
    await journal.write("capture", "bank", 11, owed=True, on=DAY - timedelta(days=30))
    next_day = await _close(shop, DAY + timedelta(days=1), now=now + timedelta(days=1))
    assert (next_day.sequence, next_day.lines, next_day.net_fen) == (1, 2, 911)


async def test_nothing_of_another_partner_is_settled(
    shop: Shop, connection: Connection, now: datetime
) -> None:
    [member] = await enrol_members(connection, count=1, now=now)
    other = Shop(connection, member, now)
    await shop.earn(100)
    await other.earn(200)
    batch = await _close(shop)
    assert batch.lines == 1
    assert (await _close(other)).lines == 1
    with pytest.raises(Absent):
        await service.find_batch(connection, batch_id=batch.id, partner_id=other.partner_id)
    with pytest.raises(Absent):
        await service.list_lines(connection, batch_id=batch.id, partner_id=other.partner_id, limit=1)


async def test_a_kind_nobody_has_a_rule_for_is_never_dropped(shop: Shop, journal: Journal) -> None:
    await journal.write("donation", "bank", 1, owed=True)
    with pytest.raises(SettlementRuleMissing):
        await _close(shop)


async def test_the_close_is_told_and_written_down(shop: Shop) -> None:
    batch = await _close(shop)
    wire_id = to_wire("stb", batch.id)
    event = await shop.connection.fetchrow(
        "SELECT type, payload FROM outbox_event WHERE aggregate = $1", wire_id
    )
    assert event is not None
    assert event["type"] == "settlement.closed"
    assert event["payload"]["net_fen"] == 0
    assert await shop.connection.fetchval("SELECT action FROM audit_record WHERE subject = $1", wire_id) == (
        "settlement.close"
    )


@pytest.mark.parametrize(
    "attempt",
    [
        "UPDATE settlement_batch SET bank_owes_fen = 1 WHERE id = $1",
        "UPDATE settlement_batch SET state = 'closing', closed_at = NULL WHERE id = $1",
        """INSERT INTO settlement_line
           SELECT batch_id, no + 1, partner_id, source, entry_ref || 'x', operation_id, kind, funder, direction, points,
                  amount_fen, business_on, recorded_at
             FROM settlement_line WHERE batch_id = $1""",
    ],
)
async def test_a_closed_batch_never_changes(shop: Shop, attempt: str) -> None:
    await shop.earn(100)
    batch = await _close(shop)
    with pytest.raises(asyncpg.CheckViolationError):
        await shop.connection.execute(attempt, batch.id)


@pytest.mark.parametrize(
    "attempt",
    [
        "UPDATE settlement_line SET points = 0",
        "DELETE FROM settlement_line",
        "TRUNCATE settlement_line CASCADE",
        "DELETE FROM settlement_batch",
        "UPDATE settlement_total SET points = 0",
        "UPDATE settlement_rule SET direction = 'none'",
    ],
)
async def test_the_application_cannot_rewrite_settlement(connection: Connection, attempt: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute(attempt)


async def test_a_closed_batch_may_be_paid(shop: Shop) -> None:
    batch = await _close(shop)
    for state in ("reconciled", "paid"):
        await shop.connection.execute("UPDATE settlement_batch SET state = $2 WHERE id = $1", batch.id, state)
    paid, _ = await service.find_batch(shop.connection, batch_id=batch.id, partner_id=shop.partner_id)
    assert paid.state == "paid"


async def test_a_batch_that_is_paid_is_not_paid_again(shop: Shop) -> None:
    batch = await _close(shop)
    await shop.connection.execute("UPDATE settlement_batch SET state = 'paid' WHERE id = $1", batch.id)
    with pytest.raises(asyncpg.CheckViolationError):
        await shop.connection.execute("UPDATE settlement_batch SET state = 'closed' WHERE id = $1", batch.id)


async def test_two_closes_at_once_make_one_batch(pool: Pool, now: datetime) -> None:
    async with transaction(pool) as connection:
        [member] = await enrol_members(connection, count=1, now=now)
        shop = Shop(connection, member, now)
        for _ in range(20):
            await shop.earn(10)

    async def close() -> UUID:
        async with transaction(pool) as connection:
            batch = await service.close_batch(
                connection, partner_id=shop.partner_id, business_on=DAY, now=now
            )
        return batch.id

    ids = await asyncio.gather(*(close() for _ in range(4)))
    async with transaction(pool) as connection:
        batches = await service.list_batches(connection, partner_id=shop.partner_id, limit=10)
    assert [batch.id for batch in batches] == list(set(ids))
    assert batches[0].lines == 20


async def test_the_file_has_every_line_however_many(
    shop: Shop, connection: Connection, now: datetime
) -> None:
    batch_id = uuid4()
    await connection.execute(
        "INSERT INTO settlement_batch (id, partner_id, business_on, sequence, state) VALUES ($1, $2, $3, 1, 'closing')",
        batch_id,
        shop.partner_id,
        DAY,
    )
    await connection.execute(
        "INSERT INTO settlement_line SELECT $1::uuid, n, $2, 'ledger', $1::uuid || '/' || n, $1::uuid, 'points_issued', 'bank', 'none',"
        " n, n, $3, $4 FROM generate_series(1, 2500) AS n",
        batch_id,
        shop.partner_id,
        DAY,
        now,
    )
    chunks = [chunk async for chunk in service.stream_csv(connection, batch_id=batch_id)]
    rows = list(csv.reader(io.StringIO(b"".join(chunks).decode(), newline="")))
    assert len(chunks) == 3
    assert [row[0] for row in rows] == ["no", *map(str, range(1, 2_501))]


async def test_batches_are_listed_newest_first_in_pages(shop: Shop, now: datetime) -> None:
    for days in (3, 2, 1, 0):
        await _close(shop, DAY - timedelta(days=days))
    first = await service.list_batches(shop.connection, partner_id=shop.partner_id, limit=3)
    last = first[-1]
    rest = await service.list_batches(
        shop.connection, partner_id=shop.partner_id, before=(last.business_on, last.sequence), limit=3
    )
    assert [batch.business_on.day for batch in (*first, *rest)] == [20, 19, 18, 17]
