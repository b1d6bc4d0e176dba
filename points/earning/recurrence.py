"""When a campaign is on: days of the week, of the month or of the year and hours of the day, in Shanghai; pure."""

from datetime import datetime, timedelta

from kernel.calendar import SHANGHAI
from points.earning.model import Campaign, Recurrence

_DAY = timedelta(days=1)


def is_on(campaign: Campaign, moment: datetime) -> bool:
    """Whether `moment` lies in the campaign's half-open window, on one of its days and in its hours."""
    opens_at = max(campaign.starts_at, campaign.in_force_from or campaign.starts_at)
    return opens_at <= moment < campaign.ends_at and recurs(campaign.recurrence, moment)


def recurs(recurrence: Recurrence, moment: datetime) -> bool:
    """Whether `moment` is on one of the days and in the hours; a day that a month lacks is the month's last."""
    local = moment.astimezone(SHANGHAI)
    if recurrence.weekdays is not None and local.isoweekday() not in recurrence.weekdays:
        return False
    if recurrence.month_days is not None and not _in_month(recurrence.month_days, local):
        return False
    if recurrence.year_days is not None and not _in_year(recurrence.year_days, local):
        return False
    if recurrence.from_time is None or recurrence.until_time is None:
        return True
    return recurrence.from_time <= local.time() < recurrence.until_time


def _in_month(days: tuple[int, ...], local: datetime) -> bool:
    if local.day in days:
        return True
    return _is_last_of_month(local) and any(day > local.day for day in days)


def _in_year(days: tuple[str, ...], local: datetime) -> bool:
    today = f"{local.month:02}-{local.day:02}"
    return today in days or (today == "02-28" and "02-29" in days and _is_last_of_month(local))


def _is_last_of_month(local: datetime) -> bool:
    return (local + _DAY).day == 1
