"""Time: one clock that follows the database, business dates in Shanghai, months that clamp."""

from datetime import UTC, date, datetime, timedelta

import pytest

from kernel.calendar import add_months, business_date, rfc3339, start_of_day
from kernel.clock import DatabaseClock
from kernel.database import Connection, tell_time

NOON = datetime(2026, 11, 20, 4, 0, tzinfo=UTC)


class Seconds:
    """A monotonic timer that stands still until told."""

    def __init__(self) -> None:
        self.value = 50.0

    def __call__(self) -> float:
        return self.value


def test_the_clock_carries_a_reading_forward() -> None:
    seconds = Seconds()
    clock = DatabaseClock(seconds)
    clock.set(NOON, asked_at=49.0, answered_at=51.0)

    seconds.value += 10

    assert clock.now() == NOON + timedelta(seconds=10)


def test_the_clock_never_steps_back() -> None:
    seconds = Seconds()
    clock = DatabaseClock(seconds)
    clock.set(NOON, asked_at=50, answered_at=50)
    before = clock.now()

    clock.set(NOON - timedelta(hours=2), asked_at=50, answered_at=50)

    assert clock.now() == before


@pytest.mark.parametrize(
    ("trip_seconds", "error_seconds"),
    [(0.010, 0.0), (3.0, 0.0), (0.009, 1.0)],
    ids=["a little slower", "kept waiting", "as quick as ever"],
)
def test_a_reading_that_was_kept_waiting_is_not_taken(trip_seconds: float, error_seconds: float) -> None:
    seconds = Seconds()
    clock = DatabaseClock(seconds)
    clock.set(NOON, asked_at=50.0, answered_at=50.001)
    seconds.value += 10

    # a reading that leads by the half of its trip, or (a clock that was put forward) by a second
    led = NOON + timedelta(seconds=10 + trip_seconds / 2 + error_seconds)
    clock.set(led, asked_at=60.0 - trip_seconds / 2, answered_at=60.0 + trip_seconds / 2)

    error = (clock.now() - NOON - timedelta(seconds=10)).total_seconds()
    assert error == pytest.approx(error_seconds, abs=0.01)


def test_slow_readings_are_taken_when_there_are_no_better_ones_for_long() -> None:
    seconds = Seconds()
    clock = DatabaseClock(seconds)
    clock.set(NOON, asked_at=50.0, answered_at=50.001)
    seconds.value += 3_600

    clock.set(NOON + timedelta(hours=2), asked_at=3_649.9, answered_at=3_650.1)

    assert clock.now() == NOON + timedelta(hours=2)


def test_a_clock_that_was_never_set_tells_no_time() -> None:
    with pytest.raises(RuntimeError):
        DatabaseClock().now()


async def test_the_database_tells_the_time(connection: Connection) -> None:
    clock = DatabaseClock()

    await tell_time(clock, connection)

    assert abs(clock.now() - await connection.fetchval("SELECT clock_timestamp()")) < timedelta(seconds=1)


@pytest.mark.parametrize(
    ("moment", "day"),
    [
        (datetime(2026, 11, 20, 15, 59, 59, tzinfo=UTC), date(2026, 11, 20)),
        (datetime(2026, 11, 20, 16, 0, 0, tzinfo=UTC), date(2026, 11, 21)),
    ],
)
def test_the_business_day_turns_at_midnight_in_shanghai(moment: datetime, day: date) -> None:
    assert business_date(moment) == day


def test_a_day_starts_at_sixteen_hundred_utc_of_the_day_before() -> None:
    assert start_of_day(date(2026, 11, 20)) == datetime(2026, 11, 19, 16, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("day", "months", "expected"),
    [
        (date(2026, 1, 31), 1, date(2026, 2, 28)),
        (date(2026, 1, 31), 2, date(2026, 3, 31)),
        (date(2028, 1, 31), 1, date(2028, 2, 29)),
        (date(2026, 11, 30), 1, date(2026, 12, 30)),
        (date(2026, 12, 31), 2, date(2027, 2, 28)),
        (date(2026, 3, 31), -1, date(2026, 2, 28)),
        (date(2026, 5, 15), 0, date(2026, 5, 15)),
    ],
)
def test_a_day_the_month_lacks_becomes_its_last(day: date, months: int, expected: date) -> None:
    assert add_months(day, months) == expected


def test_instants_are_written_in_utc_with_a_z() -> None:
    assert rfc3339(NOON) == "2026-11-20T04:00:00Z"
