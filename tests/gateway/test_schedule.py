"""A worker runs by itself what is due, in order, also what was missed, and never what is not over."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import UTC, date, datetime, timedelta
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import asyncpg
import pytest
from msgspec import structs

from gateway import books
from gateway.schedule import (
    DateNotDue,
    JobInOtherHands,
    Scheduled,
    list_due,
    run_by_hand,
    schedule,
    work_off,
)
from gateway.worker import CATCH_UP_DATES, DueJobs
from kernel import jobs
from kernel.caller import MemberRef
from kernel.database import Connection, Pool, acquire, open_pool, transaction
from kernel.ids import new_id
from kernel.jobs import Job, Run, Step
from kernel.supervisor import Endpoints
from partners.registry import service as registry
from partners.settlement import service as settlement
from points.ledger import service as ledger
from points.ledger.model import EarnPosting, Grant
from points.membership.service import enrol_members

FIRST = date(2026, 11, 27)
#: a quarter past midnight in Shanghai, at the end of 30 November
QUARTER_PAST = datetime(2026, 11, 30, 16, 15, tzinfo=UTC)
QUARTER = timedelta(minutes=15)
DAY = timedelta(days=1)


async def _first(_connection: Connection) -> date | None:
    return FIRST


async def _no_first(_connection: Connection) -> date | None:
    return None


class Diary:
    """A job that writes down for which dates it ran."""

    def __init__(self, *, lanes: int = 1) -> None:
        self.written: list[date] = []
        self.broken: set[tuple[date, int]] = set()
        self.scheduled = Scheduled(
            job=Job(name=f"diary_{uuid4().hex}", lanes=lanes, step=self._write), after=QUARTER, first=_first
        )

    async def _write(self, _connection: Connection, run: Run, _now: datetime) -> Step:
        if (run.business_on, run.lane) in self.broken:
            raise LookupError("the page is torn")
        self.written.append(run.business_on)
        return Step(done=1, cursor=None)


def noon(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, 4, tzinfo=UTC)


DAILY = Scheduled(job=Diary().scheduled.job, after=QUARTER)
MONTHLY = structs.replace(DAILY, every="month")


@pytest.mark.parametrize(
    ("scheduled", "first", "now", "due"),
    [
        (DAILY, FIRST, QUARTER_PAST, [27, 28, 29, 30]),
        (DAILY, FIRST, QUARTER_PAST - timedelta(microseconds=1), [27, 28, 29]),
        (DAILY, FIRST, noon(FIRST), []),
        (DAILY, date(2026, 12, 24), QUARTER_PAST, []),
        (DAILY, None, QUARTER_PAST, []),
        (structs.replace(DAILY, back=2), FIRST, QUARTER_PAST, [29, 30]),
        (MONTHLY, FIRST, QUARTER_PAST, [1]),
        (MONTHLY, FIRST, QUARTER_PAST - timedelta(microseconds=1), []),
        (MONTHLY, None, QUARTER_PAST, []),
    ],
)
def test_a_date_is_due_once_it_is_over_and_never_before_the_first_entry(
    scheduled: Scheduled, first: date | None, now: datetime, due: list[int]
) -> None:
    assert [day.day for day in list_due(scheduled, first=first, now=now)] == due


def test_months_are_caught_up_in_order() -> None:
    due = list_due(MONTHLY, first=FIRST, now=noon(date(2027, 2, 3)))
    assert due == [date(2026, 11, 1), date(2026, 12, 1), date(2027, 1, 1)]


async def test_missed_days_are_caught_up_in_order_and_a_few_in_a_round(pool: Pool) -> None:
    diary, now = Diary(), noon(FIRST)
    worker = DueJobs(pool, [diary.scheduled], now_of=lambda: now)
    assert await worker.round() == 0, "the first day is not over"
    now = noon(FIRST + 10 * DAY)
    assert await worker.round() == CATCH_UP_DATES
    assert await worker.round() == 10 - CATCH_UP_DATES
    assert await worker.round() == 0
    assert diary.written == [FIRST + n * DAY for n in range(10)]
    now += DAY
    assert await DueJobs(pool, [diary.scheduled], now_of=lambda: now).round() == 1, "another worker goes on"
    assert diary.written[-1] == FIRST + 10 * DAY


async def test_a_failing_lane_stops_neither_other_lanes_nor_other_jobs_but_the_next_date(pool: Pool) -> None:
    torn, whole = Diary(lanes=3), Diary()
    torn.broken = {(FIRST, 1)}
    worker = DueJobs(pool, [torn.scheduled, whole.scheduled], now_of=lambda: noon(FIRST + 2 * DAY))
    assert await worker.round() == 4
    assert torn.written == [FIRST] * 2
    assert whole.written == [FIRST, FIRST + DAY]
    assert await worker.round() == 0, "what fails again is not work done"
    torn.broken.clear()
    assert await worker.round() == 4
    assert torn.written == [FIRST] * 3 + [FIRST + DAY] * 3


async def test_a_worker_that_is_to_end_begins_no_further_batch(pool: Pool) -> None:
    diary = Diary()
    worker = DueJobs(
        pool,
        [diary.scheduled],
        now_of=lambda: noon(FIRST + 5 * DAY),
        ending=lambda: bool(diary.written),
    )
    assert await worker.round() == 1
    assert diary.written == [FIRST]


async def test_nothing_runs_before_there_is_an_entry(pool: Pool) -> None:
    diary = Diary()
    empty = structs.replace(diary.scheduled, first=_no_first)
    assert await DueJobs(pool, [empty], now_of=lambda: QUARTER_PAST).round() == 0
    with pytest.raises(DateNotDue):
        await run_by_hand(pool, empty, business_on=FIRST, now_of=lambda: QUARTER_PAST)


async def test_by_hand_a_date_runs_to_its_end_once(pool: Pool) -> None:
    diary = Diary(lanes=2)
    for _ in range(2):
        run = await run_by_hand(pool, diary.scheduled, business_on=FIRST, now_of=lambda: QUARTER_PAST)
        assert (run.lanes_finished, run.done, run.finished_at) == (2, 2, QUARTER_PAST)
    with pytest.raises(DateNotDue):
        await run_by_hand(pool, diary.scheduled, business_on=FIRST + 4 * DAY, now_of=lambda: QUARTER_PAST)
    with pytest.raises(DateNotDue):
        await run_by_hand(pool, diary.scheduled, business_on=FIRST - DAY, now_of=lambda: QUARTER_PAST)
    assert diary.written == [FIRST, FIRST]


async def test_by_hand_what_stopped_a_lane_is_told(pool: Pool) -> None:
    diary = Diary(lanes=2)
    diary.broken = {(FIRST, 0)}
    with pytest.raises(LookupError, match="torn"):
        await run_by_hand(pool, diary.scheduled, business_on=FIRST, now_of=lambda: QUARTER_PAST)
    assert diary.written == [FIRST], "the other lane is done"


async def test_by_hand_nobody_waits_for_ever_for_another_worker(pool: Pool) -> None:
    diary = Diary()
    async with transaction(pool) as connection:
        await jobs.claim(connection, diary.scheduled.job, business_on=FIRST, now=QUARTER_PAST)
        with pytest.raises(JobInOtherHands):
            await run_by_hand(
                pool,
                diary.scheduled,
                business_on=FIRST,
                now_of=lambda: QUARTER_PAST,
                patience_seconds=0.0,
            )
    assert (
        await run_by_hand(pool, diary.scheduled, business_on=FIRST, now_of=lambda: QUARTER_PAST)
    ).done == 1


def test_jobs_have_names_of_their_own() -> None:
    names = [scheduled.job.name for scheduled in schedule(None)]
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize("scheduled", schedule(None), ids=lambda scheduled: scheduled.job.name)
def test_no_job_begins_while_a_request_of_the_day_may_still_write(scheduled: Scheduled) -> None:
    assert scheduled.after > timedelta(minutes=10)


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
