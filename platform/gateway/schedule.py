"""What is due when: the list of all jobs, the dates that are open, and how one is worked off.

A job is added by one line in `schedule`.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import date, datetime, timedelta
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from kernel import idempotency, jobs
from kernel.calendar import add_months, business_date
from kernel.database import Connection, Pool, acquire, transaction
from kernel.errors import Conflict
from kernel.jobs import Job, RunState
from kernel.vault import Vault
from partners.credit import service as credit
from partners.oauth import rotation
from partners.settlement import closing
from points.ledger import service as ledger
from points.membership import service as membership

#: a settlement takes a day's lines in one statement
TIMEOUT_MS = 300_000
#: how long whoever runs a job by hand waits for another worker's batch
PATIENCE_SECONDS = 600.0
LOOK_AGAIN_SECONDS = 0.2

FirstDay = Callable[[Connection], Awaitable[date | None]]


class DateNotDue(Conflict):
    """The job is not due for this date: it is not over yet, or it lies before the first entry."""


class JobInOtherHands(Conflict):
    """Other workers have been at this job for ten minutes; look again later."""


class Scheduled(Struct, frozen=True, kw_only=True):
    """A job and the moment from which it is due."""

    job: Job
    #: after the midnight, in Shanghai, that ends the date's day or month; ten minutes at least (see ledger.check_over)
    after: timedelta
    #: a month's date is its first day
    every: Literal["day", "month"] = "day"
    #: how many missed dates are caught up; None: all of them, because none may be left out
    back: int | None = 31
    #: no date before this one has anything in it
    first: FirstDay = ledger.find_first_day


async def _find_first_money(connection: Connection) -> date | None:
    days = (await ledger.find_first_day(connection), await credit.find_first_day(connection))
    return min((day for day in days if day is not None), default=None)


def schedule(signer: ledger.SealSigner | None, vault: Vault | None = None) -> tuple[Scheduled, ...]:
    """Every job of the platform, in the order in which those due are worked off."""
    return (
        Scheduled(job=ledger.sealing(signer), after=timedelta(minutes=15), back=None),
        Scheduled(job=ledger.STATEMENTS, after=timedelta(minutes=20), every="month", back=None),
        Scheduled(job=closing.CLOSING, after=timedelta(minutes=30), first=_find_first_money),
        # of missed dates the last ones: every evaluation judges all that is known by then
        Scheduled(
            job=membership.EVALUATION, after=timedelta(minutes=40), back=3, first=membership.find_first_day
        ),
        # whatever was missed, the next time does what is due by then
        Scheduled(
            job=rotation.rotating(vault),
            after=timedelta(hours=1),
            back=1,
            first=rotation.find_first_key_day,
        ),
        Scheduled(job=idempotency.FORGETTING, after=timedelta(hours=2), back=1),
    )


def list_due(scheduled: Scheduled, *, first: date | None, now: datetime) -> list[date]:
    """The dates, oldest first, that are over by now and whose work may be outstanding."""
    if first is None:
        return []
    today = business_date(now - scheduled.after)
    dates = []
    if scheduled.every == "month":
        month = first.replace(day=1)
        while add_months(month, 1) <= today:
            dates.append(month)
            month = add_months(month, 1)
    else:
        dates = [first + timedelta(days=n) for n in range((today - first).days)]
    return dates if scheduled.back is None else dates[-scheduled.back :]


async def list_open(
    connection: Connection, scheduled: Scheduled, *, first: date | None, now: datetime
) -> list[date]:
    """The due dates that have not been worked off, oldest first."""
    due = list_due(scheduled, first=first, now=now)
    if not due:
        return []
    finished = set(await jobs.list_finished(connection, scheduled.job.name, since=due[0]))
    return [day for day in due if day not in finished]


class WorkedOff(Struct, frozen=True, kw_only=True):
    """What one worker could do for a date."""

    batches: int
    #: what stopped single lanes; they stand where they stood
    failures: tuple[Exception, ...]
    #: whether nothing is left to do by anyone
    finished: bool


async def work_off(
    pool: Pool,
    job: Job,
    *,
    business_on: date,
    now_of: Callable[[], datetime],
    ending: Callable[[], bool] = lambda: False,
) -> WorkedOff:
    """Batch after batch, each in its own transaction, until no lane is left that can be worked on."""
    batches, leaving, failures = 0, set[int](), list[Exception]()
    while not ending():
        run, now = None, now_of()
        try:
            async with transaction(pool) as connection:
                run = await jobs.claim(connection, job, business_on=business_on, leaving=leaving, now=now)
                if run is None:
                    break
                await jobs.work(connection, job, run, now=now)
        except Exception as failure:
            if run is None:
                raise
            leaving.add(run.lane)
            failures.append(failure)
        else:
            batches += 1
    async with acquire(pool) as connection:
        finished = await jobs.finished(connection, job, business_on=business_on)
    return WorkedOff(batches=batches, failures=tuple(failures), finished=finished)


async def run_by_hand(
    pool: Pool,
    scheduled: Scheduled,
    *,
    business_on: date,
    now_of: Callable[[], datetime],
    patience_seconds: float = PATIENCE_SECONDS,
) -> RunState:
    """The date's run to its end, whoever does it; raises what stopped a lane, after the other lanes are done."""
    if scheduled.every == "month":
        business_on = business_on.replace(day=1)
    job, patience = scheduled.job, time.monotonic() + patience_seconds
    async with acquire(pool) as connection:
        first = await scheduled.first(connection)
    if business_on not in list_due(replace(scheduled, back=None), first=first, now=now_of()):
        raise DateNotDue(job=job.name, date=business_on.isoformat())
    while not (worked := await work_off(pool, job, business_on=business_on, now_of=now_of)).finished:
        if worked.failures:
            raise worked.failures[0]
        if worked.batches:
            patience = time.monotonic() + patience_seconds
        elif time.monotonic() > patience:
            raise JobInOtherHands(job=job.name, date=business_on.isoformat())
        await asyncio.sleep(LOOK_AGAIN_SECONDS)
    async with acquire(pool) as connection:
        run = await jobs.find_run(connection, job.name, business_on=business_on)
    assert run is not None, "a finished run has rows"
    return run
