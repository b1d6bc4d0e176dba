"""A draft: an earning decided but for what is scarce: caps on the member, campaigns' lists and budgets."""

from datetime import date, datetime
from typing import Any
from uuid import UUID

from msgspec import Struct

from kernel.calendar import business_date
from kernel.caller import MemberUnknown
from kernel.errors import Refusal
from kernel.ids import new_id
from points.earning.book import RuleBook
from points.earning.model import Activity, EarningRule
from points.earning.rules import (
    base_grants,
    base_points,
    beginning_of_points,
    cap,
    check_rule_version,
    effective_moment,
    end_of_points,
    fen_per_point,
    rule_at,
)
from points.earning.stacking import Bonus, applies, bonus_points, check_named, split
from points.ledger.model import EarnPosting, Grant
from points.membership.model import Standing
from points.membership.rules import check_occurred_at


class Draft(Struct, frozen=True, kw_only=True):
    """An earning as far as the rules alone decide it."""

    activity: Activity
    partner_id: UUID
    standing: Standing
    rule: EarningRule
    #: what one point takes of the amount; None where nothing is earned
    fen_per_point: int | None
    base_points: int
    #: what the member's day had left, if that was less
    base_limit: int | None = None
    #: before it is scarce: every campaign that applies, in order; after: the chosen ones, with what they give
    bonuses: tuple[Bonus, ...] = ()
    #: by which everything was chosen
    moment: datetime

    @property
    def day(self) -> date:
        """The business day of the activity, on which caps count it."""
        return business_date(self.moment)

    @property
    def is_plain(self) -> bool:
        """Whether nothing scarce is wanted, so that it can be posted as it is."""
        return not self.bonuses and not self.is_capped

    @property
    def is_capped(self) -> bool:
        """Whether the member's day has room for so many base points only."""
        return (
            self.base_points > 0 and self.rule.daily_cap_points is not None and self.activity.manager is None
        )


def draw_up(
    book: RuleBook, activity: Activity, standing: Standing | None, *, partner_id: UUID, now: datetime
) -> Draft | Refusal:
    """What an activity earns by the rules, or why it earns nothing."""
    if standing is None:
        return MemberUnknown()
    try:
        check_occurred_at(activity.occurred_at, now)
        moment = effective_moment(activity.occurred_at, now)
        rule = rule_at(book.rules, moment)
        check_rule_version(activity.rule_version, rule)
        rate: int | None = rule.fen_per_point
        if rule.rates:
            rate = fen_per_point(
                rule, kind=activity.kind, category=activity.category, own_card=activity.own_card
            )
        bonuses: tuple[Bonus, ...] = ()
        # What a plan looks after earns when wallets are locked already, too late for counters and budgets.
        if book.campaigns and rate is not None and activity.manager is None:
            bonuses = tuple(
                Bonus(campaign=campaign, points=bonus_points(campaign, activity.amount_fen, rate))
                for campaign in book.campaigns
                if applies(
                    campaign, activity, tier=standing.tier, partner_id=partner_id, moment=moment, now=now
                )
            )
        if activity.campaign is not None:
            known = book.known.get(activity.campaign)
            applying = [bonus.campaign for bonus in bonuses]
            check_named(activity.campaign, known, applying, partner_id=partner_id)
    except Refusal as refusal:
        return refusal
    points = 0 if rate is None else base_points(activity.amount_fen, standing.multiplier_pct, rate)
    return Draft(
        activity=activity,
        partner_id=partner_id,
        standing=standing,
        rule=rule,
        fen_per_point=rate,
        base_points=cap(points, rule.transaction_cap_points),
        bonuses=bonuses,
        moment=moment,
    )


def posting_of(draft: Draft, *, now: datetime) -> EarnPosting:
    """The draft as the ledger posts it."""
    activity = draft.activity
    grants = base_grants(
        activity,
        draft.base_points,
        draft.standing.multiplier_pct,
        lot_id=new_id(now),
        now=now,
        rule=draft.rule,
    )
    for bonus in draft.bonuses:
        grants += _grants_of(bonus, activity, now)
    return EarnPosting(
        operation_id=new_id(now),
        member=activity.member,
        partner_id=draft.partner_id,
        source_kind=activity.kind,
        source_ref=activity.source_ref,
        amount_fen=activity.amount_fen,
        occurred_at=activity.occurred_at,
        rule_version=draft.rule.version,
        tier=draft.standing.tier,
        multiplier_pct=draft.standing.multiplier_pct,
        own_card=activity.own_card,
        category=activity.category,
        manager=activity.manager,
        grants=grants,
        calculation=_calculation(draft),
    )


def _grants_of(bonus: Bonus, activity: Activity, now: datetime) -> tuple[Grant, ...]:
    """A lot for each funder that pays a part of it."""
    campaign = bonus.campaign
    return tuple(
        Grant(
            rule="campaign",
            multiplier_pct=campaign.multiplier_pct or 100,
            points=points,
            lot_id=new_id(now),
            funder_id=share.terms.funder_id,
            funder=share.terms.funder,
            unit_cost_e6=share.terms.unit_cost_e6,
            campaign=campaign.code,
            expires_at=end_of_points(activity.occurred_at, now, share.terms),
            activates_at=beginning_of_points(activity.occurred_at, now, share.terms),
        )
        for points, share in zip(split(bonus.points, campaign.shares), campaign.shares, strict=True)
        if points > 0
    )


def _calculation(draft: Draft) -> dict[str, Any] | None:
    """What the operation has to tell besides its columns so that it can be replayed; None when they say it all."""
    told: dict[str, Any] = {}
    if draft.base_limit is not None:
        told["base_limit"] = draft.base_limit
    if draft.activity.campaign is not None:
        told["named"] = draft.activity.campaign
    if draft.bonuses:
        told["campaigns"] = [_component(bonus) for bonus in draft.bonuses]
    return told or None


def _component(bonus: Bonus) -> dict[str, Any]:
    told: dict[str, Any] = {"campaign": bonus.campaign.code, "points": bonus.points}
    if bonus.limited_by is not None:
        told |= {"limit": bonus.limit, "limited_by": bonus.limited_by}
    if bonus.drawn:
        told |= {"budget_id": str(bonus.campaign.budget_id), "drawn": bonus.drawn}
    return told
