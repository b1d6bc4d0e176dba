"""Windows and recurrence, as tables; the database's own computation of the same is compared with them."""

from datetime import UTC, date, datetime, time, timedelta
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import asdict, replace

from kernel.calendar import SHANGHAI
from kernel.database import Pool
from points.earning.model import Campaign, LotTerms, Recurrence, Share
from points.earning.recurrence import is_on, recurs

FRIDAYS = Recurrence(weekdays=(5,))
MONTH_ENDS = Recurrence(month_days=(31,))
LEAP_DAYS = Recurrence(year_days=("02-29",))
DOUBLE_ELEVEN = Recurrence(year_days=("11-11",))
HAPPY_HOUR = Recurrence(weekdays=(5, 6), from_time=time(18), until_time=time(20))


def shanghai(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=SHANGHAI).astimezone(UTC)


@pytest.mark.parametrize(
    ("recurrence", "moment", "on"),
    [
        (Recurrence(), "2026-11-20 12:00", True),
        # Red Friday is Friday in Shanghai: Thursday evening in London is part of it
        (FRIDAYS, "2026-11-19 23:59:59.999999", False),
        (FRIDAYS, "2026-11-20 00:00", True),
        (FRIDAYS, "2026-11-20 23:59:59.999999", True),
        (FRIDAYS, "2026-11-21 00:00", False),
        # across the end of a month and of a year
        (FRIDAYS, "2026-07-31 12:00", True),
        (FRIDAYS, "2027-01-01 12:00", True),
        # the 31st is the last day of shorter months
        (MONTH_ENDS, "2026-10-31 12:00", True),
        (MONTH_ENDS, "2026-11-30 12:00", True),
        (MONTH_ENDS, "2026-10-30 12:00", False),
        (MONTH_ENDS, "2027-02-28 12:00", True),
        (MONTH_ENDS, "2028-02-28 12:00", False),
        (MONTH_ENDS, "2028-02-29 12:00", True),
        (Recurrence(month_days=(1, 15)), "2026-11-30 12:00", False),
        (LEAP_DAYS, "2028-02-29 12:00", True),
        (LEAP_DAYS, "2028-02-28 12:00", False),
        (LEAP_DAYS, "2027-02-28 12:00", True),
        (LEAP_DAYS, "2027-03-01 12:00", False),
        (DOUBLE_ELEVEN, "2026-11-11 00:00", True),
        (DOUBLE_ELEVEN, "2026-11-10 23:59:59.999999", False),
        (DOUBLE_ELEVEN, "2026-11-12 00:00", False),
        (HAPPY_HOUR, "2026-11-20 17:59:59.999999", False),
        (HAPPY_HOUR, "2026-11-20 18:00", True),
        (HAPPY_HOUR, "2026-11-21 19:59:59.999999", True),
        (HAPPY_HOUR, "2026-11-20 20:00", False),
        # Shanghai had summer time in 1986 to 1991 and has none now: hours do not move in March and October
        (HAPPY_HOUR, "2026-04-03 18:00", True),
        (HAPPY_HOUR, "2026-10-30 18:00", True),
    ],
)
def test_days_and_hours_are_shanghais(recurrence: Recurrence, moment: str, on: bool) -> None:
    assert recurs(recurrence, shanghai(moment)) is on


@pytest.mark.parametrize(
    ("moment", "in_force_from", "on"),
    [
        ("2026-11-01 00:00", None, True),
        ("2026-10-31 23:59:59.999999", None, False),
        ("2026-11-29 23:59:59.999999", None, True),
        ("2026-11-30 00:00", None, False),
        # approved in the middle of its window
        ("2026-11-02 00:00", "2026-11-03 00:00", False),
        ("2026-11-03 00:00", "2026-11-03 00:00", True),
    ],
)
def test_a_window_is_half_open_and_begins_with_the_approval(
    moment: str, in_force_from: str | None, on: bool
) -> None:
    campaign = replace(CAMPAIGN, in_force_from=None if in_force_from is None else shanghai(in_force_from))
    assert is_on(campaign, shanghai(moment)) is on


CAMPAIGN = Campaign(
    id=UUID(int=1),
    code="some",
    state="scheduled",
    priority=1,
    starts_at=shanghai("2026-11-01 00:00"),
    ends_at=shanghai("2026-11-30 00:00"),
    multiplier_pct=200,
    shares=(Share(share_ppm=1_000_000, terms=LotTerms(unit_cost_e6=0, validity_months=1)),),
)

DAYS = st.one_of(
    st.just(Recurrence()),
    st.builds(Recurrence, weekdays=st.lists(st.integers(1, 7), min_size=1, max_size=3).map(tuple)),
    st.builds(Recurrence, month_days=st.lists(st.integers(1, 31), min_size=1, max_size=3).map(tuple)),
    st.builds(
        Recurrence,
        year_days=st.lists(
            st.dates(date(2024, 1, 1), date(2024, 12, 31)).map("{:%m-%d}".format),
            min_size=1,
            max_size=3,
        ).map(tuple),
    ),
    st.just(MONTH_ENDS),
    st.just(LEAP_DAYS),
    st.just(HAPPY_HOUR),
)
MOMENTS = st.one_of(
    st.integers(0, 10 * 366 * 24).map(lambda hours: shanghai("2020-01-01 00:00") + timedelta(hours=hours)),
    st.sampled_from(
        [shanghai(f"{year}-{day} 12:00") for year in (2027, 2028) for day in ("02-28", "03-01", "01-31")]
    ),
)


@given(examples=st.lists(st.tuples(DAYS, MOMENTS), min_size=20, max_size=20))
@settings(max_examples=40, deadline=None)
async def test_the_database_says_the_same(pool: Pool, examples: list[tuple[Recurrence, datetime]]) -> None:
    statement = "SELECT earning_recurs(jsonb_populate_record(NULL::earning_campaign, $1), $2)"
    async with pool.acquire() as connection:
        for recurrence, moment in examples:
            said = await connection.fetchval(statement, asdict(recurrence), moment)
            assert said is recurs(recurrence, moment), (recurrence, moment)
