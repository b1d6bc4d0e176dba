"""Allotment: what is scarce is given out to drafts: places on campaigns' lists, members' caps, campaigns' budgets.

For a whole batch together and in one order: campaigns looked at, counters locked, budgets drawn on, each in one round
trip and only if a draft wants it; wallets are locked afterwards. What an earning did not use in the end (its campaign
refused, its source earned before) goes back in the same transaction, to rows that are locked already.
"""

from collections.abc import Sequence
from datetime import datetime

from msgspec.structs import replace

from kernel.database import Connection
from kernel.errors import Refusal
from points.earning import book_queries, cap_queries
from points.earning.cap_queries import BASE, CapWant
from points.earning.draft import Draft
from points.earning.model import Limit
from points.earning.stacking import (
    Bonus,
    BudgetExhausted,
    CampaignNotApplicable,
    affordable,
    choose,
    cost_of,
)
from points.ledger import budgets
from points.ledger.budgets import Want


async def allot(connection: Connection, drafts: Sequence[Draft], *, now: datetime) -> list[Draft | Refusal]:
    """The drafts with what they really get; a refusal where a named campaign gives nothing. In their order."""
    chosen = await _choose(connection, drafts)
    capped = await _take_caps(connection, chosen)
    drawn = await _draw_budgets(connection, capped, now=now)
    outcomes = [_judge(draft) for draft in drawn]
    refused = [draft for draft, outcome in zip(drawn, outcomes, strict=True) if isinstance(outcome, Refusal)]
    await give_back(connection, refused, now=now)
    return outcomes


async def try_allot(connection: Connection, draft: Draft, *, now: datetime) -> Draft | Refusal:
    """What `allot` would give this draft at this moment, undone at once."""
    begun = connection.transaction()
    await begun.start()
    try:
        (outcome,) = await allot(connection, [draft], now=now)
    finally:
        await begun.rollback()
    return outcome


async def give_back(connection: Connection, drafts: Sequence[Draft], *, now: datetime) -> None:
    """What these drafts were given in this transaction and do not use."""
    taken = [want for draft in drafts for want in _cap_wants(draft)]
    if taken:
        await cap_queries.untake(connection, taken)
    await budgets.give_back(
        connection,
        [
            _budget_want(draft, bonus, bonus.drawn)
            for draft in drafts
            for bonus in draft.bonuses
            if bonus.drawn
        ],
        now=now,
    )


async def _choose(connection: Connection, drafts: Sequence[Draft]) -> list[Draft]:
    """Of the campaigns that apply, those that still stand and are for this member; of each group the best."""
    asked = [(draft.activity.member, bonus.campaign.id) for draft in drafts for bonus in draft.bonuses]
    if not asked:
        return list(drafts)
    stands = iter(await book_queries.list_stands(connection, asked))
    return [
        replace(
            draft,
            bonuses=tuple(
                choose([bonus for bonus in draft.bonuses if next(stands)], draft.activity.campaign)
            ),
        )
        for draft in drafts
    ]


async def _take_caps(connection: Connection, drafts: Sequence[Draft]) -> list[Draft]:
    """Base points and bonuses as far as the members' counters leave room."""
    wants = [want for draft in drafts for want in _cap_wants(draft)]
    if not wants:
        return list(drafts)
    granted = iter(await cap_queries.take(connection, wants))
    capped = []
    for draft in drafts:
        if draft.is_capped:
            points = next(granted)
            if points < draft.base_points:
                draft = replace(draft, base_points=points, base_limit=points)
        bonuses = [
            _limit(bonus, next(granted), "member_cap") if _is_capped(bonus) else bonus
            for bonus in draft.bonuses
        ]
        capped.append(replace(draft, bonuses=tuple(bonuses)))
    return capped


async def _draw_budgets(connection: Connection, drafts: Sequence[Draft], *, now: datetime) -> list[Draft]:
    """Bonuses as far as their budgets pay for them: what is left, or nothing, as the campaign says."""
    wants = [
        _budget_want(draft, bonus, cost_of(bonus.campaign, bonus.points))
        for draft in drafts
        for bonus in draft.bonuses
        if _draws(bonus)
    ]
    if not wants:
        return list(drafts)
    partial = any(
        bonus.campaign.on_exhaustion == "partial" and _draws(bonus)
        for draft in drafts
        for bonus in draft.bonuses
    )
    # one call: who locks budgets twice in a transaction could meet somebody who did it the other way round
    granted = iter(await budgets.draw(connection, wants, partial=partial, now=now))
    unused: list[Want] = []
    freed: list[CapWant] = []
    paid = []
    for draft in drafts:
        bonuses = []
        for bonus in draft.bonuses:
            if _draws(bonus):
                budget = next(granted)
                settled = _settle(bonus, budget)
                if settled.drawn < budget:
                    unused.append(_budget_want(draft, bonus, budget - settled.drawn))
                if settled.points < bonus.points and _is_capped(bonus):
                    freed.append(_cap_want(draft, bonus, bonus.points - settled.points))
                bonus = settled
            bonuses.append(bonus)
        paid.append(replace(draft, bonuses=tuple(bonuses)))
    await budgets.give_back(connection, unused, now=now)
    if freed:
        await cap_queries.untake(connection, freed)
    return paid


def _judge(draft: Draft) -> Draft | Refusal:
    """A campaign the partner counted on must give something; of the others, those that gave nothing are told of."""
    named = draft.activity.campaign
    if named is None:
        return draft
    bonus = next((bonus for bonus in draft.bonuses if bonus.campaign.code == named), None)
    if bonus is None:
        return CampaignNotApplicable()
    if bonus.points:
        return draft
    return (
        BudgetExhausted() if bonus.limited_by == "budget" else CampaignNotApplicable(reason=bonus.limited_by)
    )


def _settle(bonus: Bonus, budget: int) -> Bonus:
    """The bonus that a drawn amount pays for."""
    campaign = bonus.campaign
    cost = cost_of(campaign, bonus.points)
    if budget >= cost:
        return replace(bonus, drawn=cost)
    points = 0 if campaign.on_exhaustion == "skip" else affordable(campaign, bonus.points, budget)
    return replace(_limit(bonus, points, "budget"), drawn=cost_of(campaign, points))


def _limit(bonus: Bonus, points: int, by: Limit) -> Bonus:
    if points >= bonus.points:
        return bonus
    return replace(bonus, points=points, limit=points, limited_by=by)


def _draws(bonus: Bonus) -> bool:
    """Whether a budget has to pay for it; points that cost nothing draw nothing."""
    return (
        bonus.campaign.budget_id is not None
        and bonus.points > 0
        and cost_of(bonus.campaign, bonus.points) > 0
    )


def _is_capped(bonus: Bonus) -> bool:
    campaign = bonus.campaign
    return bonus.points > 0 and (
        campaign.member_cap_points is not None or campaign.member_daily_cap_points is not None
    )


def _cap_wants(draft: Draft) -> list[CapWant]:
    """What the draft takes of counters, in the order in which the answers are read."""
    wants = []
    if draft.is_capped:
        wants.append(
            CapWant(
                member=draft.activity.member,
                scope=BASE,
                day=draft.day,
                points=draft.base_points,
                daily_limit=draft.rule.daily_cap_points,
                total_limit=None,
            )
        )
    wants += [_cap_want(draft, bonus, bonus.points) for bonus in draft.bonuses if _is_capped(bonus)]
    return wants


def _cap_want(draft: Draft, bonus: Bonus, points: int) -> CapWant:
    return CapWant(
        member=draft.activity.member,
        scope=bonus.campaign.id,
        day=draft.day,
        points=points,
        daily_limit=bonus.campaign.member_daily_cap_points,
        total_limit=bonus.campaign.member_cap_points,
    )


def _budget_want(draft: Draft, bonus: Bonus, amount: int) -> Want:
    assert bonus.campaign.budget_id is not None, "only a campaign with a budget draws on one"
    return Want(bucket=draft.activity.member.bucket, budget_id=bonus.campaign.budget_id, amount=amount)
