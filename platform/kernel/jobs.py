"""Recurring work: a job is done once for each business date, a bounded batch at a time, by any number of workers.

A run (a job on a business date) has lanes, and a lane is worked on by whoever holds its row. What a batch did and where
the lane stands commit together: a worker that was killed loses one batch, and the next one goes on at the cursor. A
finished lane is never opened again, so a second run finds nothing to do. The lane's row is locked before anything the
step locks; no request ever waits for one.
"""

from collections.abc import Awaitable, Callable, Collection
from datetime import date, datetime
from typing import Any

from msgspec import Struct

from kernel.database import Connection, read

BUCKETS = 1024


class Run(Struct, frozen=True, kw_only=True):
    """One lane of a job on one business date, as its next batch finds it."""

    job: str
    business_on: date
    lane: int
    #: how many lanes share the run
    lanes: int
    #: where the batch before stopped; None at the beginning
    cursor: Any | None = None

    @property
    def buckets(self) -> range:
        """The lane's own buckets."""
        return range(BUCKETS * self.lane // self.lanes, BUCKETS * (self.lane + 1) // self.lanes)


class Step(Struct, frozen=True, kw_only=True):
    """What one bounded batch did."""

    #: rows handled in it
    done: int
    #: where to go on, as JSON can say it; None: the lane is finished
    cursor: Any | None


class Job(Struct, frozen=True, kw_only=True):
    """Something to be done once for every business date."""

    #: by which the runs are known for ever
    name: str
    #: parallel parts; lane k of n has the buckets from 1024·k/n up to 1024·(k+1)/n
    lanes: int
    #: one bounded batch in the caller's transaction; what it does twice for one date must change nothing
    step: Callable[[Connection, Run, datetime], Awaitable[Step]]


class RunState(Struct, frozen=True, kw_only=True):
    """A run as an operator sees it."""

    job: str
    business_on: date
    lanes: int
    lanes_finished: int
    #: rows handled so far
    done: int
    started_at: datetime
    #: None while a lane is unfinished
    finished_at: datetime | None


# Whoever opens a run holds this to the end of its transaction; nobody waits for it.
TRY_OPENING = "SELECT pg_try_advisory_xact_lock(hashtextextended('job:' || $1::text || ':' || $2::date, 0))"

RUN_EXISTS = "SELECT EXISTS (SELECT FROM kernel_job_run WHERE job = $1 AND business_on = $2)"

OPEN_RUN = """
INSERT INTO kernel_job_run (job, business_on, lane, started_at)
SELECT $1, $2, lane, $4 FROM generate_series(0, $3::int - 1) AS lane
ON CONFLICT (job, business_on, lane) DO NOTHING
"""

# The lowest lane that nobody works on: lanes are finished one after another, by as many workers as there are.
CLAIM_LANE = """
SELECT job, business_on, lane, cursor,
       (SELECT count(*) FROM kernel_job_run AS n WHERE n.job = $1 AND n.business_on = $2) AS lanes
  FROM kernel_job_run
 WHERE job = $1 AND business_on = $2 AND finished_at IS NULL AND lane <> ALL ($3::smallint[])
 ORDER BY lane
 LIMIT 1
   FOR UPDATE SKIP LOCKED
"""

MOVE_LANE = """
UPDATE kernel_job_run SET cursor = $4, done = done + $5, finished_at = $6
 WHERE job = $1 AND business_on = $2 AND lane = $3
"""

FIND_RUN = """
SELECT job, business_on, lanes, lanes_finished, done, started_at, finished_at
  FROM kernel_job_state
 WHERE job = $1 AND business_on = $2
"""

# Newest first: an operator asks what ran last. The names break ties, so that two looks are alike.
LIST_RUNS = """
SELECT job, business_on, lanes, lanes_finished, done, started_at, finished_at
  FROM kernel_job_state
 ORDER BY started_at DESC, job, business_on DESC
 LIMIT $1
"""

# Oldest first, as dates are worked through.
LIST_FINISHED = """
SELECT business_on
  FROM kernel_job_state
 WHERE job = $1 AND business_on >= $2 AND finished_at IS NOT NULL
 ORDER BY business_on
"""

FIND_LAST_FINISHED = """
SELECT max(business_on) FROM kernel_job_state WHERE job = $1 AND finished_at IS NOT NULL
"""


async def advance(connection: Connection, job: Job, *, business_on: date, now: datetime) -> bool:
    """One batch of one unfinished lane that nobody else works on.

    False when there is none: all lanes are finished, or others are at work on the rest; `finished` tells which.
    """
    run = await claim(connection, job, business_on=business_on, now=now)
    if run is None:
        return False
    await work(connection, job, run, now=now)
    return True


async def claim(
    connection: Connection, job: Job, *, business_on: date, leaving: Collection[int] = (), now: datetime
) -> Run | None:
    """An unfinished lane that nobody else works on, kept to the end of the transaction; not one of `leaving`."""
    if not await connection.fetchval(RUN_EXISTS, job.name, business_on):
        if not await connection.fetchval(TRY_OPENING, job.name, business_on):
            return None
        await connection.execute(OPEN_RUN, job.name, business_on, job.lanes, now)
    record = await connection.fetchrow(CLAIM_LANE, job.name, business_on, list(leaving))
    return None if record is None else read(record, Run)


async def work(connection: Connection, job: Job, run: Run, *, now: datetime) -> Step:
    """One batch of a lane that was claimed; when it raises, the caller's transaction ends and nothing has happened."""
    step = await job.step(connection, run, now)
    assert step.cursor is None or step.done > 0 or step.cursor != run.cursor, f"{job.name} does not advance"
    finished_at = now if step.cursor is None else None
    await connection.execute(
        MOVE_LANE, run.job, run.business_on, run.lane, step.cursor, step.done, finished_at
    )
    return step


async def finished(connection: Connection, job: Job, *, business_on: date) -> bool:
    """Whether the job has been done for the date."""
    run = await find_run(connection, job.name, business_on=business_on)
    return run is not None and run.finished_at is not None


async def find_run(connection: Connection, name: str, *, business_on: date) -> RunState | None:
    record = await connection.fetchrow(FIND_RUN, name, business_on)
    return None if record is None else read(record, RunState)


async def list_runs(connection: Connection, *, limit: int) -> list[RunState]:
    """The latest runs of all jobs."""
    return [read(record, RunState) for record in await connection.fetch(LIST_RUNS, limit)]


async def list_finished(connection: Connection, name: str, *, since: date) -> list[date]:
    """The dates from `since` on for which the job has been done."""
    return [record["business_on"] for record in await connection.fetch(LIST_FINISHED, name, since)]


async def find_last_finished(connection: Connection, name: str) -> date | None:
    """The latest date for which the job has been done."""
    found: date | None = await connection.fetchval(FIND_LAST_FINISHED, name)
    return found
