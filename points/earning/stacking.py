"""How campaigns add to an earning: which apply, in which order, how much each gives and who pays; pure.

The order is fixed: base, the tier's multiplier, then campaigns by priority and code. Everything is multiplied before it
is capped, and there is one floor for each component. A campaign multiplies the base points without the tier's part.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from msgspec import Struct

from kernel.errors import Conflict, Unprocessable
from points.earning.model import Activity, Campaign, Limit, Share
from points.earning.recurrence import is_on
from points.earning.rules import base_points, cap

PPM = 1_000_000


class CampaignUnknown(Unprocessable):
    """There is no such campaign for this partner."""


class CampaignNotApplicable(Unprocessable):
    """The named campaign gives nothing for this activity."""


class BudgetExhausted(Conflict):
    """The budget of the named campaign is used up."""


class Bonus(Struct, frozen=True, kw_only=True):
    """What one campaign adds to one earning."""

    campaign: Campaign
    points: int
    #: what stopped it from giving more, and how much that left
    limit: int | None = None
    limited_by: Limit | None = None
    #: taken from the campaign's budget, in its unit
    drawn: int = 0


def order_of(campaign: Campaign) -> tuple[int, str]:
    """The place of a campaign in every earning."""
    return campaign.priority, campaign.code


def applies(
    campaign: Campaign,
    activity: Activity,
    *,
    tier: str,
    partner_id: UUID,
    moment: datetime,
    now: datetime,
) -> bool:
    """Whether the campaign is for this activity; whether the member is on its list, the database knows."""
    return (
        campaign.is_open
        and (campaign.partner_ids is None or partner_id in campaign.partner_ids)
        and (campaign.tiers is None or tier in campaign.tiers)
        and (campaign.kinds is None or activity.kind in campaign.kinds)
        and (campaign.categories is None or activity.category in campaign.categories)
        and (campaign.own_card is None or activity.own_card == campaign.own_card)
        and activity.amount_fen >= campaign.min_amount_fen
        and (not campaign.named_only or activity.campaign == campaign.code)
        and now <= campaign.ends_at + timedelta(days=campaign.late_days)
        and is_on(campaign, moment)
    )


def check_named(
    named: str | None, known: Campaign | None, applying: Iterable[Campaign], *, partner_id: UUID
) -> None:
    """A campaign that the request names has to apply; another partner's is as unknown as none."""
    if named is None:
        return
    if known is None or (known.partner_ids is not None and partner_id not in known.partner_ids):
        raise CampaignUnknown
    if known.state == "exhausted":
        raise BudgetExhausted
    if all(campaign.code != named for campaign in applying):
        raise CampaignNotApplicable


def bonus_points(campaign: Campaign, amount_fen: int, fen_per_point: int) -> int:
    """What the campaign gives for an amount: multiplied first, then one floor, then capped."""
    if campaign.fixed_points is not None:
        points = campaign.fixed_points
    else:
        assert campaign.multiplier_pct is not None, "a campaign multiplies or adds"
        points = base_points(amount_fen, campaign.multiplier_pct - 100, fen_per_point)
    return cap(points, campaign.transaction_cap_points)


def choose(bonuses: Iterable[Bonus], named: str | None) -> list[Bonus]:
    """In order, the best of each exclusive group; the named campaign is the best of its own. Nothing is no component.

    The best is decided before caps and budgets: who reaches a limit of the best does not fall back on another.
    """
    best: dict[str, Bonus] = {}
    ordered = sorted(
        (bonus for bonus in bonuses if bonus.points > 0), key=lambda bonus: order_of(bonus.campaign)
    )
    for bonus in ordered:
        group = bonus.campaign.exclusive_group
        if group is None:
            continue
        standing = best.get(group)
        if standing is None or _rank(bonus, named) > _rank(standing, named):
            best[group] = bonus
    return [
        bonus
        for bonus in ordered
        if bonus.campaign.exclusive_group is None or best[bonus.campaign.exclusive_group] is bonus
    ]


def split(points: int, shares: Sequence[Share]) -> list[int]:
    """Each funder's part by the largest remainder; together exactly `points`. The earlier share wins a tie."""
    parts = [points * share.share_ppm // PPM for share in shares]
    remainders = [points * share.share_ppm % PPM for share in shares]
    by_remainder = sorted(range(len(shares)), key=lambda place: (-remainders[place], place))
    for place in by_remainder[: points - sum(parts)]:
        parts[place] += 1
    return parts


def cost_of(campaign: Campaign, points: int) -> int:
    """What `points` take of the campaign's budget: themselves, or what they cost the funders, floored for each lot."""
    if campaign.budget_unit == "points":
        return points
    parts = split(points, campaign.shares)
    return sum(
        part * share.terms.unit_cost_e6 // 1_000_000
        for part, share in zip(parts, campaign.shares, strict=True)
    )


def affordable(campaign: Campaign, points: int, budget: int) -> int:
    """The most points, up to `points`, that `budget` pays for."""
    if cost_of(campaign, points) <= budget:
        return points
    low, high = 0, points
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if cost_of(campaign, middle) <= budget else (low, middle)
    return low


def _rank(bonus: Bonus, named: str | None) -> tuple[bool, int]:
    return bonus.campaign.code == named, bonus.points
