"""A worker runs by itself what is due, in order, also what was missed, and never what is not over."""

from datetime import UTC, date, datetime, timedelta
from uuid import uuid4

import pytest
from msgspec import structs

from gateway.schedule import (
    DateNotDue,
    JobInOtherHands,
    Scheduled,
    list_due,
    run_by_hand,
    schedule,
)
from gateway.worker import CATCH_UP_DATES, DueJobs
from kernel import jobs
from kernel.database import Connection, Pool, transaction
from kernel.jobs import Job, Run, Step

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
