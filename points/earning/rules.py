"""How activity becomes points; pure, and versioned so that every entry can be explained later."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from uuid import UUID

from kernel.calendar import add_months, business_date, start_of_day
from kernel.errors import Conflict
from points.earning.model import Activity, EarningRule, LotTerms
from points.ledger.model import VALUE_FEN_E6, Grant

#: the first version: one point for every whole yuan, for two years; the migrated schema begins with the same
RULE = EarningRule(
    version=1,
    fen_per_point=100,
    terms=LotTerms(unit_cost_e6=VALUE_FEN_E6, validity_months=24),
    in_force_from=datetime(1999, 12, 31, 16, tzinfo=UTC),
)


class SourceAlreadyEarned(Conflict):
    """This event has already earned points; an event earns once for ever."""


class RuleVersionStale(Conflict):
    """Another version of the earning rules is in force for this activity than the request expects."""


def effective_moment(occurred_at: datetime, now: datetime) -> datetime:
    """The moment by which rule and campaigns are chosen: the activity's, but no clock that runs ahead moves it past now."""
    return min(occurred_at, now)


def rule_at(rules: Sequence[EarningRule], moment: datetime) -> EarningRule:
    """The version in force at `moment`, of versions in the order in which they come into force."""
    for rule in reversed(rules):
        if rule.in_force_from <= moment:
            return rule
    return rules[0]


def check_rule_version(expected: int | None, rule: EarningRule) -> None:
    """A partner that has shown its customer what an order earns may insist on that version."""
    if expected is not None and expected != rule.version:
        raise RuleVersionStale(rule_version=rule.version)


def fen_per_point(rule: EarningRule, *, kind: str, category: str | None, own_card: bool) -> int | None:
    """What one point takes of this activity's amount: by the first rate that fits; None where nothing is earned."""
    for rate in rule.rates:
        if (
            rate.kind in (None, kind)
            and rate.category in (None, category)
            and rate.own_card in (None, own_card)
        ):
            return rate.fen_per_point
    return rule.fen_per_point


def base_points(amount_fen: int, multiplier_pct: int, fen_per_point: int = RULE.fen_per_point) -> int:
    """Points for an amount: everything is multiplied first, then there is one floor."""
    return amount_fen * multiplier_pct // (fen_per_point * 100)


def cap(points: int, *limits: int | None) -> int:
    """`points`, or the smallest of the limits there are."""
    for limit in limits:
        if limit is not None and limit < points:
            points = limit
    return points


def end_of_points(occurred_at: datetime, now: datetime, terms: LotTerms = RULE.terms) -> datetime:
    """The first instant without the points: after the month, or the day, that is the validity after the activity's date.

    It counts from the activity, in Shanghai, and a day that a month lacks is its last. Points are never born expired:
    late news count to the end of the month in which they arrive.
    """
    day = business_date(occurred_at)
    if terms.expiry == "end_of_month":
        ends_at = _end_of_month_after(day, terms.validity_months)
    else:
        ends_at = start_of_day(add_months(day, terms.validity_months) + timedelta(days=1))
    return ends_at if ends_at > now else _end_of_month_after(business_date(now), 0)


def beginning_of_points(
    occurred_at: datetime, now: datetime, terms: LotTerms = RULE.terms
) -> datetime | None:
    """When pending points may be spent: a midnight in Shanghai; None when that is now."""
    if terms.pending_days == 0:
        return None
    begins_at = start_of_day(business_date(occurred_at) + timedelta(days=terms.pending_days))
    return begins_at if begins_at > now else None


def base_grants(
    activity: Activity, points: int, multiplier_pct: int, *, lot_id: UUID, now: datetime, rule: EarningRule
) -> tuple[Grant, ...]:
    """The lot of the base points; none when the amount is too small for one point."""
    if points == 0:
        return ()
    terms = rule.terms
    return (
        Grant(
            rule="base",
            multiplier_pct=multiplier_pct,
            points=points,
            lot_id=lot_id,
            funder_id=terms.funder_id,
            funder=terms.funder,
            unit_cost_e6=terms.unit_cost_e6,
            expires_at=end_of_points(activity.occurred_at, now, terms),
            activates_at=beginning_of_points(activity.occurred_at, now, terms),
        ),
    )


@lru_cache(maxsize=4_096)  # the days of two years and the validities there are
def _end_of_month_after(day: date, months: int) -> datetime:
    first = add_months(day.replace(day=1), months + 1)
    return start_of_day(first)
