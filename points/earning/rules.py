"""How activity becomes points; pure, and versioned so that every entry can be explained later."""

from datetime import date, datetime
from uuid import UUID

from kernel.calendar import add_months, business_date, start_of_day
from kernel.errors import Conflict
from points.earning.model import Activity, EarningRule
from points.ledger.model import VALUE_FEN_E6, Grant
from points.membership.model import Standing

#: the rules in force: one point for every whole yuan, for two years
RULE = EarningRule(version=1, fen_per_point=100, validity_months=24, unit_cost_e6=VALUE_FEN_E6)


class SourceAlreadyEarned(Conflict):
    """This event has already earned points; an event earns once for ever."""


def base_points(amount_fen: int, multiplier_pct: int, rule: EarningRule = RULE) -> int:
    """Points for an amount: everything is multiplied first, then there is one floor."""
    return amount_fen * multiplier_pct // (rule.fen_per_point * 100)


def end_of_points(occurred_at: datetime, now: datetime, rule: EarningRule = RULE) -> datetime:
    """The first instant of the month after the one that holds the activity's date plus the validity, in Shanghai.

    It counts from the activity, yet points are never born expired: late news count from the day they arrive.
    """
    ends_at = _end_of_month_after(business_date(occurred_at), rule.validity_months)
    return ends_at if ends_at > now else _end_of_month_after(business_date(now), 0)


def grants_of(
    activity: Activity, standing: Standing, *, lot_id: UUID, now: datetime, rule: EarningRule = RULE
) -> tuple[Grant, ...]:
    """The lots an activity earns; none when the amount is too small for one point."""
    points = base_points(activity.amount_fen, standing.multiplier_pct, rule)
    if points == 0:
        return ()
    return (
        Grant(
            rule="base",
            multiplier_pct=standing.multiplier_pct,
            points=points,
            lot_id=lot_id,
            unit_cost_e6=rule.unit_cost_e6,
            expires_at=end_of_points(activity.occurred_at, now, rule),
        ),
    )


def _end_of_month_after(day: date, months: int) -> datetime:
    first = add_months(day.replace(day=1), months + 1)
    return start_of_day(first)
