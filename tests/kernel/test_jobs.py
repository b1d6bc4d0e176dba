"""A job is done once for a date: each row once, by any number of workers, whatever dies in between."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import UTC, date, datetime, timedelta
from uuid import uuid4

import asyncpg
import pytest

from kernel import idempotency, jobs
from kernel.database import Connection, Pool, acquire, drop, open_pool, transaction
from kernel.jobs import Job, Run, Step

DAY = date(2026, 11, 20)
NOW = datetime(2026, 11, 21, 1, tzinfo=UTC)
ROWS = 64
BATCH = 3


class Stones:
    """A table of stones, one bucket in sixteen, that a job picks up in the order of their buckets."""

    def __init__(self, table: str) -> None:
        self.table = table
        self.broken: set[int] = set()

    async def pick(self, connection: Connection, run: Run, now: datetime) -> Step:
        after = run.buckets.start - 1 if run.cursor is None else run.cursor
        picked = await connection.fetch(
            f"UPDATE {self.table} SET picked = picked + 1 WHERE bucket IN (SELECT bucket FROM {self.table}"
            " WHERE bucket > $1 AND bucket < $2 ORDER BY bucket LIMIT $3) RETURNING bucket",
            *(after, run.buckets.stop, BATCH),
        )
        if run.lane in self.broken:
            raise LookupError("a stone is too heavy")
        if not picked:
            return Step(done=0, cursor=None)
        return Step(done=len(picked), cursor=max(stone["bucket"] for stone in picked))

    def job(self, *, lanes: int = 4) -> Job:
        return Job(name=self.table, lanes=lanes, step=self.pick)

    async def picked(self, connection: Connection) -> list[int]:
        """How often each stone was picked up."""
        return [row[0] for row in await connection.fetch(f"SELECT picked FROM {self.table} ORDER BY bucket")]


@pytest.fixture
async def stones(owner_url: str) -> AsyncGenerator[Stones, None]:
    table = f"stones_{uuid4().hex}"
    owner = await asyncpg.connect(owner_url)
    await owner.execute(f"CREATE TABLE {table} (bucket int PRIMARY KEY, picked int NOT NULL DEFAULT 0)")
    await owner.execute(f"INSERT INTO {table} SELECT 16 * n FROM generate_series(0, {ROWS - 1}) AS n")
    await owner.execute(f"GRANT SELECT, UPDATE ON {table} TO tessera_app")
    yield Stones(table)
    await owner.execute(f"DELETE FROM kernel_job_run WHERE job = '{table}'")
    await owner.execute(f"DROP TABLE {table}")
    await owner.close()


async def to_the_end(pool: Pool, job: Job) -> int:
    """As one worker does it: batch after batch, each in its own transaction."""
    batches = 0
    while True:
        async with transaction(pool) as connection:
            if not await jobs.advance(connection, job, business_on=DAY, now=NOW):
                return batches
        batches += 1


async def test_two_workers_at_once_handle_each_row_once(pool: Pool, stones: Stones) -> None:
    job = stones.job()
    await asyncio.gather(to_the_end(pool, job), to_the_end(pool, job))
    await to_the_end(pool, job)  # whichever came while the other was opening the run
    async with transaction(pool) as connection:
        assert await stones.picked(connection) == [1] * ROWS
        run = await jobs.find_run(connection, job.name, business_on=DAY)
    assert run is not None and (run.lanes, run.lanes_finished, run.done) == (4, 4, ROWS)
    assert run.finished_at == NOW


async def test_workers_take_different_lanes_and_a_third_finds_none(pool: Pool, stones: Stones) -> None:
    job = stones.job(lanes=2)
    async with transaction(pool) as connection:
        await jobs.claim(connection, job, business_on=DAY, now=NOW)
    async with transaction(pool) as one, transaction(pool) as two, transaction(pool) as three:
        first = await jobs.claim(one, job, business_on=DAY, now=NOW)
        second = await jobs.claim(two, job, business_on=DAY, now=NOW)
        assert first is not None and second is not None
        assert (first.lane, first.buckets) == (0, range(512))
        assert (second.lane, second.buckets) == (1, range(512, 1024))
        assert await jobs.advance(three, job, business_on=DAY, now=NOW) is False
        assert not await jobs.finished(three, job, business_on=DAY)


async def test_nobody_waits_for_whoever_opens_a_run(pool: Pool, stones: Stones) -> None:
    job = stones.job()
    async with transaction(pool) as one, transaction(pool) as two:
        assert await jobs.advance(one, job, business_on=DAY, now=NOW)
        assert await jobs.advance(two, job, business_on=DAY, now=NOW) is False


async def test_a_killed_worker_loses_one_batch_and_the_next_goes_on_at_the_cursor(
    pool: Pool, database_url: str, stones: Stones
) -> None:
    job = stones.job(lanes=1)
    async with transaction(pool) as connection:
        await jobs.advance(connection, job, business_on=DAY, now=NOW)
    async with await open_pool(database_url, size=1) as other, acquire(other) as killed:
        await killed.execute("BEGIN")
        run = await jobs.claim(killed, job, business_on=DAY, now=NOW)
        assert run is not None and run.cursor == 16 * (BATCH - 1)
        await jobs.work(killed, job, run, now=NOW)
        drop(killed)
    while (await to_the_end(pool, job)) == 0:  # until the server has seen that nobody is there
        pass
    async with transaction(pool) as connection:
        assert await jobs.finished(connection, job, business_on=DAY)
        assert await stones.picked(connection) == [1] * ROWS


async def test_a_second_run_does_nothing_and_another_date_is_another_run(pool: Pool, stones: Stones) -> None:
    job = stones.job()
    assert await to_the_end(pool, job) > 0
    assert await to_the_end(pool, job) == 0
    async with transaction(pool) as connection:
        assert await jobs.list_finished(connection, job.name, since=DAY) == [DAY]
        assert await jobs.advance(connection, job, business_on=date(2026, 11, 21), now=NOW)
        assert await jobs.find_last_finished(connection, job.name) == DAY


async def test_a_failing_lane_stays_where_it_was_and_stops_no_other(pool: Pool, stones: Stones) -> None:
    job, leaving = stones.job(), set[int]()
    stones.broken = {1}
    while True:
        run = None
        try:
            async with transaction(pool) as connection:
                run = await jobs.claim(connection, job, business_on=DAY, leaving=leaving, now=NOW)
                if run is None:
                    break
                await jobs.work(connection, job, run, now=NOW)
        except LookupError:
            assert run is not None
            leaving.add(run.lane)
    async with transaction(pool) as connection:
        assert await stones.picked(connection) == [1] * 16 + [0] * 16 + [1] * 32
        state = await jobs.find_run(connection, job.name, business_on=DAY)
        assert state is not None and (state.lanes_finished, state.finished_at) == (3, None)
    stones.broken.clear()
    await to_the_end(pool, job)
    async with transaction(pool) as connection:
        assert await stones.picked(connection) == [1] * ROWS


async def test_the_number_of_lanes_is_that_of_the_day_it_began(pool: Pool, stones: Stones) -> None:
    async with transaction(pool) as connection:
        await jobs.advance(connection, stones.job(lanes=2), business_on=DAY, now=NOW)
    await to_the_end(pool, stones.job(lanes=8))
    async with transaction(pool) as connection:
        assert await stones.picked(connection) == [1] * ROWS
        run = await jobs.find_run(connection, stones.table, business_on=DAY)
    assert run is not None and run.lanes == 2


@pytest.mark.parametrize("lanes", [1, 3, 8, 1000])
def test_the_lanes_share_the_buckets_without_a_gap(lanes: int) -> None:
    parts = [Run(job="any", business_on=DAY, lane=lane, lanes=lanes).buckets for lane in range(lanes)]
    assert [bucket for part in parts for bucket in part] == list(range(1024))


async def test_the_application_cannot_forget_a_run(connection: Connection) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute("DELETE FROM kernel_job_run")


async def test_answers_are_forgotten_ninety_days_after_they_were_given(connection: Connection) -> None:
    """The last instant of the business date, in Shanghai, is what they are ninety days older than."""
    app_id, end = uuid4(), datetime(2026, 11, 20, 16, tzinfo=UTC)
    for number, age in enumerate((timedelta(days=90, microseconds=1), timedelta(days=90), timedelta(0))):
        await connection.execute(
            "INSERT INTO kernel_idempotency VALUES ($1, $2, '', 200, '', $3)",
            *(app_id, bytes([number]), end - age),
        )
    while await jobs.advance(connection, idempotency.FORGETTING, business_on=DAY, now=NOW):
        pass
    kept = await connection.fetch(
        "SELECT key_hash FROM kernel_idempotency WHERE app_id = $1 ORDER BY key_hash", app_id
    )
    assert [row["key_hash"] for row in kept] == [b"\x01", b"\x02"]
