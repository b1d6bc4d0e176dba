"""Simulation: what a rule version and campaigns would give for activities of a file, before anybody switches them on; pure."""

from collections.abc import Sequence
from typing import Annotated, TypeVar
from uuid import UUID

from msgspec import Meta, Struct

from kernel.caller import MemberRef
from kernel.errors import Refusal
from points.earning.book import RuleBook
from points.earning.definitions import CampaignDefinition, Moment, RuleDefinition, TermsDefinition
from points.earning.draft import Draft, draw_up
from points.earning.model import (
    Activity,
    ActivityKind,
    Campaign,
    EarningRule,
    LotTerms,
    Recurrence,
    Share,
)
from points.earning.rules import RULE
from points.earning.stacking import Bonus, affordable, choose, cost_of, order_of
from points.membership.model import Standing, Tier

T = TypeVar("T")

_NOBODY = UUID(int=0)


class SimulatedActivity(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One line of the file; the member is whatever tells members apart."""

    member: str
    occurred_at: Moment
    amount_fen: Annotated[int, Meta(ge=0, le=10**13)]
    kind: ActivityKind = "purchase"
    category: str | None = None
    own_card: bool = False
    partner_id: UUID = _NOBODY
    tier: Tier = "start"
    multiplier_pct: Annotated[int, Meta(ge=100, le=1_000)] = 100


class Simulated(Struct, frozen=True, kw_only=True):
    """What one activity would earn."""

    member: str
    base_points: int
    #: by campaign
    bonus_points: dict[str, int]
    #: a refusal's code instead
    code: str | None = None


class Used(Struct, kw_only=True):
    """What a simulation has used so far; it changes as the file is read."""

    caps: dict[tuple[str, str, str], int]
    budgets: dict[str, int]


def simulate(
    rule: RuleDefinition | None,
    campaigns: Sequence[CampaignDefinition],
    activities: Sequence[SimulatedActivity],
) -> list[Simulated]:
    """Each activity in the order of the file, as if it were reported at once; everyone is on every list."""
    book = _book(rule, campaigns)
    totals = {one.code: one.budget.total for one in campaigns if one.budget is not None}
    used = Used(caps={}, budgets=dict.fromkeys(totals, 0))
    return [_simulate_one(book, totals, used, activity) for activity in activities]


def _simulate_one(book: RuleBook, totals: dict[str, int], used: Used, line: SimulatedActivity) -> Simulated:
    activity = Activity(
        member=MemberRef(member_id=0, bucket=0),
        source_ref="",
        kind=line.kind,
        occurred_at=line.occurred_at,
        amount_fen=line.amount_fen,
        category=line.category,
        own_card=line.own_card,
    )
    standing = Standing(
        tier=line.tier,
        bank_level="express",
        shop_level="iron",
        multiplier_pct=line.multiplier_pct,
        matrix_version=1,
    )
    draft = draw_up(book, activity, standing, partner_id=line.partner_id, now=line.occurred_at)
    if isinstance(draft, Refusal):
        return Simulated(member=line.member, base_points=0, bonus_points={}, code=draft.code)
    base = draft.base_points
    if draft.is_capped:
        base = _take(used, line.member, "base", str(draft.day), base, draft.rule.daily_cap_points)
    bonuses = {
        bonus.campaign.code: _give(used, totals, line.member, draft, bonus)
        for bonus in choose(draft.bonuses, None)
    }
    return Simulated(member=line.member, base_points=base, bonus_points=bonuses)


def _give(used: Used, totals: dict[str, int], member: str, draft: Draft, bonus: Bonus) -> int:
    """A campaign's points as far as the member's caps and then the budget leave room."""
    campaign, points = bonus.campaign, bonus.points
    day, whole = str(draft.day), ""
    room = min(
        _room(used, member, campaign.code, day, campaign.member_daily_cap_points, points),
        _room(used, member, campaign.code, whole, campaign.member_cap_points, points),
    )
    if campaign.code in totals:
        left = totals[campaign.code] - used.budgets[campaign.code]
        if cost_of(campaign, room) > left:
            room = 0 if campaign.on_exhaustion == "skip" else affordable(campaign, room, left)
        used.budgets[campaign.code] += cost_of(campaign, room)
    for period in (day, whole):
        key = (member, campaign.code, period)
        used.caps[key] = used.caps.get(key, 0) + room
    return room


def _take(used: Used, member: str, scope: str, period: str, points: int, limit: int | None) -> int:
    taken = _room(used, member, scope, period, limit, points)
    key = (member, scope, period)
    used.caps[key] = used.caps.get(key, 0) + taken
    return taken


def _room(used: Used, member: str, scope: str, period: str, limit: int | None, points: int) -> int:
    if limit is None:
        return points
    return max(0, min(points, limit - used.caps.get((member, scope, period), 0)))


def _book(rule: RuleDefinition | None, campaigns: Sequence[CampaignDefinition]) -> RuleBook:
    known = [_campaign_of(definition) for definition in campaigns]
    return RuleBook(
        epoch=_NOBODY,
        rules=[RULE if rule is None else _rule_of(rule)],
        campaigns=sorted(known, key=order_of),
        known={campaign.code: campaign for campaign in known},
    )


def _rule_of(definition: RuleDefinition) -> EarningRule:
    return EarningRule(
        version=RULE.version + 1,
        fen_per_point=definition.fen_per_point,
        rates=tuple(definition.rates),
        transaction_cap_points=definition.transaction_cap_points,
        daily_cap_points=definition.daily_cap_points,
        terms=_terms_of(definition.terms),
        in_force_from=RULE.in_force_from,
    )


def _campaign_of(definition: CampaignDefinition) -> Campaign:
    d, recurrence = definition, definition.recurrence
    return Campaign(
        id=_NOBODY,
        code=d.code,
        state="running",
        priority=d.priority,
        exclusive_group=d.exclusive_group,
        starts_at=d.starts_at,
        ends_at=d.ends_at,
        recurrence=Recurrence(
            weekdays=_tuple(recurrence.weekdays),
            month_days=_tuple(recurrence.month_days),
            year_days=_tuple(recurrence.year_days),
            from_time=recurrence.from_time,
            until_time=recurrence.until_time,
        ),
        multiplier_pct=d.multiplier_pct,
        fixed_points=d.fixed_points,
        kinds=_tuple(d.kinds),
        categories=_tuple(d.categories),
        own_card=d.own_card,
        min_amount_fen=d.min_amount_fen,
        tiers=_tuple(d.tiers),
        partner_ids=_tuple(d.partner_ids),
        transaction_cap_points=d.transaction_cap_points,
        member_cap_points=d.member_cap_points,
        member_daily_cap_points=d.member_daily_cap_points,
        budget_unit=None if d.budget is None else d.budget.unit,
        on_exhaustion="skip" if d.budget is None else d.budget.on_exhaustion,
        shares=tuple(Share(share_ppm=share.share_ppm, terms=_terms_of(share)) for share in d.shares),
    )


def _terms_of(terms: TermsDefinition) -> LotTerms:
    return LotTerms(
        unit_cost_e6=terms.unit_cost_e6,
        validity_months=terms.validity_months,
        expiry=terms.expiry,
        pending_days=terms.pending_days,
    )


def _tuple(values: Sequence[T] | None) -> tuple[T, ...] | None:
    return None if values is None else tuple(values)
