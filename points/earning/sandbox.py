"""The campaigns every sandbox has: proposed, so that somebody can approve them and see what they do."""

from datetime import datetime, timedelta

from points.earning.definitions import (
    BudgetDefinition,
    CampaignDefinition,
    RecurrenceDefinition,
    ShareDefinition,
)

_YEAR = timedelta(days=366)


def red_friday(now: datetime) -> CampaignDefinition:
    """最红星期五: half of the base points more, every Friday, up to 500 points a member and day."""
    return CampaignDefinition(
        code="red-friday",
        name_zh="最红星期五",
        name_en="Red Friday",
        starts_at=now,
        ends_at=now + _YEAR,
        recurrence=RecurrenceDefinition(weekdays=[5]),
        priority=100,
        multiplier_pct=150,
        kinds=["purchase"],
        member_daily_cap_points=500,
        shares=(ShareDefinition(validity_months=6, pending_days=1),),
    )


def double_eleven(now: datetime) -> CampaignDefinition:
    """双11: the base points once more, on 11 November, with the bank's own card, as long as the budget lasts."""
    return CampaignDefinition(
        code="double-11",
        name_zh="双11双倍积分",
        name_en="Double-11",
        starts_at=now,
        ends_at=now + _YEAR,
        recurrence=RecurrenceDefinition(year_days=["11-11"]),
        priority=50,
        multiplier_pct=200,
        kinds=["purchase"],
        own_card=True,
        transaction_cap_points=20_000,
        budget=BudgetDefinition(total=10_000_000, on_exhaustion="partial"),
        shares=(ShareDefinition(validity_months=12),),
    )
