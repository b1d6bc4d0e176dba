"""Definitions: rule versions and campaigns as somebody writes them down, and what must be true of them."""

import re
from datetime import date, datetime, time
from typing import Annotated, Literal
from uuid import UUID

from msgspec import Meta, Struct

from kernel.errors import Unprocessable
from points.earning.model import CampaignState, Expiry, Rate
from points.earning.stacking import PPM
from points.ledger.model import BANK_FUNDER, VALUE_FEN_E6

Code = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_-]{1,62}$")]
Name = Annotated[str, Meta(min_length=1, max_length=200)]
Points = Annotated[int, Meta(ge=1, le=10**12)]
Moment = Annotated[datetime, Meta(tz=True)]
KINDS = frozenset(("purchase", "bill_payment", "tuition", "medical", "tax", "activity", "instalment"))
TIERS = frozenset(("start", "bronze", "silver", "gold", "platinum"))


class DefinitionInvalid(Unprocessable):
    """The definition contradicts itself."""


class TermsDefinition(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What becomes of granted points."""

    funder: Name = BANK_FUNDER
    unit_cost_e6: Annotated[int, Meta(ge=0, le=10**9)] = VALUE_FEN_E6
    validity_months: Annotated[int, Meta(ge=1, le=120)] = 24
    expiry: Expiry = "end_of_month"
    pending_days: Annotated[int, Meta(ge=0, le=27)] = 0


class RuleDefinition(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A version of the earning rules; it comes into force at `effective_from`, or once it is approved."""

    fen_per_point: Annotated[int, Meta(ge=1, le=10**9)]
    rates: Annotated[list[Rate], Meta(max_length=500)] = []
    transaction_cap_points: Points | None = None
    daily_cap_points: Points | None = None
    terms: TermsDefinition = TermsDefinition()
    effective_from: Moment | None = None


class ShareDefinition(TermsDefinition, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One funder's part of a campaign's points."""

    share_ppm: Annotated[int, Meta(ge=1, le=PPM)] = PPM


class RecurrenceDefinition(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Days and hours in Shanghai; at most one kind of days."""

    weekdays: Annotated[list[Annotated[int, Meta(ge=1, le=7)]], Meta(min_length=1)] | None = None
    month_days: Annotated[list[Annotated[int, Meta(ge=1, le=31)]], Meta(min_length=1)] | None = None
    year_days: Annotated[list[str], Meta(min_length=1)] | None = None
    from_time: time | None = None
    until_time: time | None = None


class BudgetDefinition(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a campaign may give altogether, and what happens when less is left than an earning wants."""

    total: Annotated[int, Meta(ge=1, le=10**15)]
    unit: Literal["points", "fen"] = "points"
    on_exhaustion: Literal["skip", "partial"] = "skip"


class CampaignDefinition(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A campaign; a condition that is left out fits everything."""

    code: Code
    name_zh: Name
    name_en: Name
    starts_at: Moment
    ends_at: Moment
    late_days: Annotated[int, Meta(ge=0, le=730)] = 30
    recurrence: RecurrenceDefinition = RecurrenceDefinition()
    priority: Annotated[int, Meta(ge=0, le=1_000_000)] = 100
    exclusive_group: Code | None = None
    multiplier_pct: Annotated[int, Meta(ge=101, le=10_000)] | None = None
    fixed_points: Annotated[int, Meta(ge=1, le=10**8)] | None = None
    kinds: Annotated[list[str], Meta(min_length=1)] | None = None
    categories: Annotated[list[Name], Meta(min_length=1, max_length=1_000)] | None = None
    own_card: bool | None = None
    min_amount_fen: Annotated[int, Meta(ge=0, le=10**15)] = 0
    tiers: Annotated[list[str], Meta(min_length=1)] | None = None
    partner_ids: Annotated[list[UUID], Meta(min_length=1, max_length=1_000)] | None = None
    listed: bool = False
    named_only: bool = False
    transaction_cap_points: Points | None = None
    member_cap_points: Points | None = None
    member_daily_cap_points: Points | None = None
    budget: BudgetDefinition | None = None
    shares: Annotated[tuple[ShareDefinition, ...], Meta(min_length=1, max_length=20)] = (ShareDefinition(),)


class CampaignRow(Struct, frozen=True, kw_only=True):
    """A campaign in a list of them."""

    id: UUID
    code: str
    name_zh: str
    name_en: str
    state: CampaignState
    starts_at: datetime
    ends_at: datetime
    multiplier_pct: int | None
    fixed_points: int | None
    budget_total: int | None
    budget_unit: str | None
    budget_id: UUID | None
    made_by: str
    approved_by: str | None


def check_rule(definition: RuleDefinition) -> None:
    """Rates are for kinds there are."""
    for rate in definition.rates:
        if rate.kind is not None and rate.kind not in KINDS:
            raise DefinitionInvalid(reason=f"there is no kind {rate.kind}")
        if rate.fen_per_point is not None and not 1 <= rate.fen_per_point <= 10**9:
            raise DefinitionInvalid(reason="a rate takes at least a fen for a point")


def check_campaign(definition: CampaignDefinition) -> None:
    """A campaign has one effect, a window, kinds and tiers there are, and funders that pay for all of it."""
    if (definition.multiplier_pct is None) == (definition.fixed_points is None):
        raise DefinitionInvalid(reason="either multiplier_pct or fixed_points")
    if definition.starts_at >= definition.ends_at:
        raise DefinitionInvalid(reason="it ends before it starts")
    if not set(definition.kinds or ()) <= KINDS:
        raise DefinitionInvalid(reason="kinds has one that there is not")
    if not set(definition.tiers or ()) <= TIERS:
        raise DefinitionInvalid(reason="tiers has one that there is not")
    if sum(share.share_ppm for share in definition.shares) != PPM:
        raise DefinitionInvalid(reason="the shares do not make up 1000000")
    if len({share.funder for share in definition.shares}) != len(definition.shares):
        raise DefinitionInvalid(reason="a funder has two shares")
    _check_recurrence(definition.recurrence)


def _check_recurrence(recurrence: RecurrenceDefinition) -> None:
    kinds = (recurrence.weekdays, recurrence.month_days, recurrence.year_days)
    if sum(days is not None for days in kinds) > 1:
        raise DefinitionInvalid(reason="days of the week, of the month or of the year, not two of them")
    if (recurrence.from_time is None) != (recurrence.until_time is None):
        raise DefinitionInvalid(reason="from_time and until_time come together")
    if recurrence.from_time is not None and recurrence.until_time is not None:
        if recurrence.from_time.tzinfo or recurrence.until_time.tzinfo:
            raise DefinitionInvalid(reason="the hours are Shanghai's and name no zone")
        if recurrence.from_time >= recurrence.until_time:
            raise DefinitionInvalid(reason="until_time is not after from_time on the same day")
    for day in recurrence.year_days or ():
        if not _is_day_of_leap_year(day):
            raise DefinitionInvalid(reason="year_days are MM-DD")


def _is_day_of_leap_year(text: str) -> bool:
    if re.fullmatch(r"\d{2}-\d{2}", text, re.ASCII) is None:
        return False
    try:
        date.fromisoformat(f"2024-{text}")
    except ValueError:
        return False
    return True
