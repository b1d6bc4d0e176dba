"""Anchor days and the share of a year each period of a plan covers."""

from calendar import isleap
from datetime import date
from typing import Literal, assert_never

from kernel.calendar import add_months

DayCount = Literal["30/360", "act/360", "act/365", "act/act"]

#: A share of a year as an exact (numerator, denominator): no digit is lost before interest is rounded.
YearFraction = tuple[int, int]


def list_anchors(start_on: date, *, elapsed_periods: int, periods: int) -> list[date]:
    """The start of the first period and the end of each, all counted from `start_on` (31 Jan, 28 Feb, 31 Mar).

    Chaining each month from the one before would lose the 31st after the first short month.
    """
    return [add_months(start_on, elapsed_periods + passed) for passed in range(periods + 1)]


def year_fractions(anchors: list[date], day_count: DayCount) -> list[YearFraction]:
    """The share of a year between each anchor and the next."""
    return [_year_fraction(anchors[at], anchors[at + 1], day_count) for at in range(len(anchors) - 1)]


def _year_fraction(start_on: date, end_on: date, day_count: DayCount) -> YearFraction:
    match day_count:
        case "30/360":
            return 1, 12
        case "act/360":
            return (end_on - start_on).days, 360
        case "act/365":
            return (end_on - start_on).days, 365
        case "act/act":
            return _split_at_new_year(start_on, end_on)
        case _:
            assert_never(day_count)


def _split_at_new_year(start_on: date, end_on: date) -> YearFraction:
    """Days after `start_on` through `end_on`, each divided by the length of the year it falls in."""
    common = leap = 0
    for year in range(start_on.year, end_on.year + 1):
        days = (min(end_on, date(year, 12, 31)) - max(start_on, date(year - 1, 12, 31))).days
        if isleap(year):
            leap += days
        else:
            common += days
    return common * 366 + leap * 365, 365 * 366
