"""The platform's own jobs on real books: what a deployment that was down makes up for, and what is left to the next batch."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import UTC, date, datetime, timedelta
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import asyncpg
import pytest

from gateway import books
from gateway.schedule import run_by_hand, schedule, work_off
from gateway.worker import DueJobs
from kernel import jobs
from kernel.caller import MemberRef
from kernel.database import Connection, Pool, acquire, open_pool, transaction
from kernel.ids import new_id
from kernel.supervisor import Endpoints
from partners.registry import service as registry
from partners.settlement import closing
from partners.settlement import service as settlement
from points.ledger import service as ledger
from points.ledger.model import EarnPosting, Grant
from points.membership.service import enrol_members

FIRST = date(2026, 11, 27)
DAY = timedelta(days=1)


def noon(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, 4, tzinfo=UTC)


@pytest.fixture
async def bank_pool(servers: Endpoints, template: str, worker: int) -> AsyncGenerator[Pool, None]:
    """A database of its own: the jobs of the platform take everybody's rows."""
    name = f"tessera_schedule_{worker}"
    connection = await asyncpg.connect(servers.superuser_url)
    await connection.execute(f"CREATE DATABASE {name} OWNER tessera_owner TEMPLATE {template}")
    await connection.execute(f"GRANT CONNECT ON DATABASE {name} TO tessera_app")
    url = urlsplit(servers.database_url)._replace(path=f"/{name}").geturl()
    async with await open_pool(url) as opened:
        yield opened
    await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await connection.close()


async def _register(connection: Connection, slug: str) -> UUID:
    return await registry.register_partner(
        connection,
        slug=slug,
        name_zh="商城",
        name_en="Mall",
        kind="service_provider",
        scene="ecommerce",
        status="live",
        now=noon(FIRST),
    )


async def _earn(
    connection: Connection, member: MemberRef, partner_id: UUID, points: int, now: datetime
) -> None:
    grant = Grant(
        rule="base", multiplier_pct=100, points=points, lot_id=new_id(now), expires_at=now + 365 * DAY
    )
    posting = EarnPosting(
        operation_id=new_id(now),
        member=member,
        partner_id=partner_id,
        source_kind="purchase",
        source_ref=str(new_id(now)),
        amount_fen=points * 100,
        occurred_at=now,
        rule_version=1,
        tier="start",
        multiplier_pct=100,
        own_card=False,
        category=None,
        grants=(grant,),
    )
    await ledger.post_earnings(connection, [posting], now=now)


async def test_a_deployment_that_was_down_catches_up_with_two_workers(bank_pool: Pool) -> None:
    """Down from Friday to Tuesday, across the end of a month; then two workers start at once."""
    async with transaction(bank_pool) as connection:
        mall, _ = await _register(connection, "mall"), await _register(connection, "idle")
        members = await enrol_members(connection, count=3, now=noon(FIRST))
        for place, member in enumerate(members):
            await _earn(connection, member, mall, 100, noon(FIRST))
            await _earn(connection, member, mall, 10, noon(FIRST + place * DAY))
    now = noon(date(2026, 12, 1))
    workers = [DueJobs(bank_pool, schedule(None), now_of=lambda: now) for _ in range(2)]
    while sum(await asyncio.gather(*(worker.round() for worker in workers))):
        pass

    days = [FIRST + n * DAY for n in range(4)]
    async with transaction(bank_pool) as connection:
        sealed = await connection.fetch("SELECT DISTINCT business_on FROM ledger_seal ORDER BY 1")
        assert [row[0] for row in sealed] == days
        assert (
            await connection.fetchval("SELECT count(*) FROM ledger_statement WHERE period = '2026-11-01'")
            == 3
        )
        batches = await settlement.list_batches(connection, partner_id=mall, limit=10)
        assert [(batch.business_on, batch.lines) for batch in batches[::-1]] == list(
            zip(days, (4, 1, 1, 0), strict=True)
        )
        runs = await jobs.list_runs(connection, limit=100)
        assert all(run.finished_at == now for run in runs)
        assert {run.business_on for run in runs if run.job == "statements"} == {date(2026, 11, 1)}
    async with acquire(bank_pool) as connection:
        assert [finding.view for finding in await books.check(connection) if finding.rows] == []


async def test_a_batch_closed_by_hand_during_the_day_leaves_the_rest_to_the_worker(bank_pool: Pool) -> None:
    now = noon(FIRST)
    async with transaction(bank_pool) as connection:
        mall = await _register(connection, "mall")
        [member] = await enrol_members(connection, count=1, now=now)
        await _earn(connection, member, mall, 100, now)
        await settlement.close_batch(connection, partner_id=mall, business_on=FIRST, now=now)
        await _earn(connection, member, mall, 10, now + timedelta(hours=1))
    worker = DueJobs(bank_pool, schedule(None), now_of=lambda: now)
    assert await worker.round() == 0, "today stays open"
    now += DAY
    while await worker.round():
        pass
    async with transaction(bank_pool) as connection:
        batches = await settlement.list_batches(connection, partner_id=mall, limit=10)
        assert [(batch.business_on, batch.sequence, batch.lines) for batch in batches] == [
            (FIRST, 2, 1),
            (FIRST, 1, 1),
        ]


async def test_a_day_before_one_that_was_closed_by_hand_has_nothing_left(bank_pool: Pool) -> None:
    now = noon(FIRST)
    async with transaction(bank_pool) as connection:
        mall = await _register(connection, "mall")
        [member] = await enrol_members(connection, count=1, now=now)
        await _earn(connection, member, mall, 100, now)
        now += DAY
        await settlement.close_batch(connection, partner_id=mall, business_on=FIRST + DAY, now=now)
    closing = next(scheduled for scheduled in schedule(None) if scheduled.job.name == "settlement")
    worked = await work_off(bank_pool, closing.job, business_on=FIRST, now_of=lambda: now)
    assert (worked.finished, worked.failures) == (True, ())
    async with transaction(bank_pool) as connection:
        batches = await settlement.list_batches(connection, partner_id=mall, limit=10)
        assert [(batch.business_on, batch.lines) for batch in batches] == [(FIRST + DAY, 1)]


async def _donate(connection: Connection, member: MemberRef, partner_id: UUID, now: datetime) -> None:
    """An entry of a kind for which nobody has decided who owes whom."""
    application_id, plan_id = uuid4(), uuid4()
    await connection.execute(
        "INSERT INTO credit_application VALUES ($1, $2, $3, $4, $2, 'approved', 100, 1, $5)",
        *(member.bucket, application_id, member.member_id, partner_id, now),
    )
    await connection.execute(
        "INSERT INTO credit_plan (bucket, id, member_id, partner_id, application_id, state, terms, total_fen,"
        " financed_fen, starts_on, authorised_at, authorised_until)"
        " VALUES ($1, $2, $3, $4, $5, 'authorised', '{}', 100, 100, $6, $7, $7)",
        *(member.bucket, plan_id, member.member_id, partner_id, application_id, FIRST, now),
    )
    await connection.execute(
        "INSERT INTO credit_entry VALUES ($1, $2, 1, $3, 'donation', 'customer_receivable', 'merchant_payable', 100,"
        " 'bank', $4, $5, $6)",
        *(member.bucket, plan_id, uuid4(), partner_id, FIRST, now),
    )


async def test_a_partner_that_cannot_be_settled_does_not_stop_the_next(bank_pool: Pool) -> None:
    now = noon(FIRST)
    async with transaction(bank_pool) as connection:
        odd, mall = await _register(connection, "odd"), await _register(connection, "mall")
        members = await enrol_members(connection, count=2, now=now)
        await _earn(connection, members[0], odd, 100, now)
        await _earn(connection, members[1], mall, 100, now)
        await _donate(connection, members[0], odd, now)
    closing = next(scheduled for scheduled in schedule(None) if scheduled.job.name == "settlement")
    run = await run_by_hand(bank_pool, closing, business_on=FIRST, now_of=lambda: now + DAY)
    assert (run.finished_at, run.done) == (now + DAY, 1)
    async with transaction(bank_pool) as connection:
        assert await settlement.list_batches(connection, partner_id=odd, limit=10) == []
        assert len(await settlement.list_batches(connection, partner_id=mall, limit=10)) == 1


async def test_a_partner_in_other_hands_is_left_to_the_next_batch(bank_pool: Pool) -> None:
    async with transaction(bank_pool) as connection:
        partners = [await _register(connection, slug) for slug in ("first", "second")]
        [member] = await enrol_members(connection, count=1, now=noon(FIRST))
        for partner_id in partners:
            await _earn(connection, member, partner_id, 10, noon(FIRST))
    held, free = sorted(partners)
    async with transaction(bank_pool) as other:
        await other.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended('settlement:' || $1::text, 0))", str(held)
        )
        advancing = True
        while advancing:
            async with transaction(bank_pool) as connection:
                await connection.execute("SET LOCAL lock_timeout = '50ms'")
                advancing = await jobs.advance(
                    connection, closing.CLOSING, business_on=FIRST, now=noon(FIRST + DAY)
                )
    async with acquire(bank_pool) as connection:
        closed = await connection.fetch(
            "SELECT partner_id FROM settlement_batch WHERE business_on = $1", FIRST
        )
        assert [row["partner_id"] for row in closed] == [free]
    async with transaction(bank_pool) as connection:
        batch = await settlement.close_batch(
            connection, partner_id=held, business_on=FIRST + DAY, now=noon(FIRST + 2 * DAY)
        )
    assert batch.lines == 1
