"""How activity becomes points, as tables."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from points.earning.rules import base_points, end_of_points
from points.membership.rules import OccurredInFuture, OccurredTooLongAgo, check_occurred_at

NOW = datetime(2026, 11, 22, 4, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("amount_fen", "multiplier_pct", "points"),
    [
        (0, 100, 0),
        (99, 100, 0),
        (100, 100, 1),
        (129_900, 100, 1_299),
        (28_950, 105, 303),
        (99, 200, 1),
        (199, 150, 2),
        (10**13, 200, 2 * 10**11),
    ],
)
def test_one_point_for_a_yuan_times_the_tier_with_one_floor_at_the_end(
    amount_fen: int, multiplier_pct: int, points: int
) -> None:
    assert base_points(amount_fen, multiplier_pct) == points


@given(amount=st.integers(0, 10**10), more=st.integers(0, 10**6), multiplier=st.integers(100, 200))
def test_spending_more_never_earns_less(amount: int, more: int, multiplier: int) -> None:
    assert base_points(amount + more, multiplier) >= base_points(amount, multiplier)


@pytest.mark.parametrize(
    ("occurred_at", "ends_at"),
    [
        # an evening in London is the next morning, here the next month, in Shanghai
        (datetime(2026, 10, 31, 15, 59, tzinfo=UTC), datetime(2028, 10, 31, 16, 0, tzinfo=UTC)),
        (datetime(2026, 10, 31, 16, 0, tzinfo=UTC), datetime(2028, 11, 30, 16, 0, tzinfo=UTC)),
        (datetime(2026, 2, 28, 4, 0, tzinfo=UTC), datetime(2028, 2, 29, 16, 0, tzinfo=UTC)),
        (datetime(2025, 1, 1, 4, 0, tzinfo=UTC), datetime(2027, 1, 31, 16, 0, tzinfo=UTC)),
        (datetime(2024, 11, 23, 4, 0, tzinfo=UTC), datetime(2026, 11, 30, 16, 0, tzinfo=UTC)),
    ],
)
def test_points_end_with_the_month_two_years_after_the_activity(
    occurred_at: datetime, ends_at: datetime
) -> None:
    assert end_of_points(occurred_at, NOW) == ends_at


def test_points_are_never_born_expired() -> None:
    late = datetime(2024, 12, 5, 4, 0, tzinfo=UTC)
    occurred_at = datetime(2022, 11, 5, 4, 0, tzinfo=UTC)
    assert end_of_points(occurred_at, late) == datetime(2024, 12, 31, 16, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("age", "refusal"),
    [
        (timedelta(minutes=-5), None),
        (timedelta(minutes=-5, microseconds=-1), OccurredInFuture),
        (timedelta(days=730), None),
        (timedelta(days=730, microseconds=1), OccurredTooLongAgo),
    ],
)
def test_only_what_happened_lately_earns(
    age: timedelta, refusal: type[OccurredInFuture | OccurredTooLongAgo] | None
) -> None:
    if refusal is None:
        check_occurred_at(NOW - age, NOW)
    else:
        with pytest.raises(refusal):
            check_occurred_at(NOW - age, NOW)
