"""Rewards' decisions: who may have what, when it may be taken back, what must be refused; no clock, no I/O."""

import re
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from uuid import UUID

from kernel.calendar import business_date, rfc3339
from kernel.caller import MemberRef
from kernel.errors import Absent, Conflict, Forbidden, Unprocessable
from points.ledger.rules import HOLD_TTL_SECONDS_MAX
from points.rewards.model import Definition, LimitPeriod, Redemption, Reward, RewardState, Stock, Undoing

PIECES_MAX = 1_000_000
CODE_LENGTH_MAX = 128
_CODE = re.compile(r"[!-~]([ -~]*[!-~])?")
#: the one period of what is limited for ever
_EVER = date(1970, 1, 1)
#: from which states each state of a reward is reached
_BEFORE: dict[RewardState, tuple[RewardState, ...]] = {
    "draft": (),
    "active": ("draft", "paused"),
    "paused": ("active",),
    "ended": ("draft", "active", "paused"),
}


class RewardUnknown(Absent):
    """No such reward, or not one that can be redeemed through this partner."""

    code = "reward_not_found"


class RewardNotAvailable(Conflict):
    """The reward cannot be redeemed now: it is paused, it has ended, or its time has not come."""


class RewardOutOfStock(Conflict):
    """Nothing is left of the reward."""


class RewardLimitReached(Conflict):
    """The member has had the reward as often as this period allows."""


class RewardPriceChanged(Conflict):
    """The reward costs something else now: show the member the new price and ask again."""


class RewardTransitionRefused(Conflict):
    """The reward's state does not lead to the one asked for."""


class RewardDefinitionRefused(Unprocessable):
    """The definition of the reward contradicts itself."""


class CodeFileRefused(Unprocessable):
    """A file of codes has one code per line: 1 to 128 printable ASCII characters, none twice."""


class TierNotEligible(Conflict):
    """The member's tier may not have this reward."""


class RedemptionUnknown(Absent):
    """No such redemption, or not one of this partner's."""

    code = "redemption_not_found"


class RedemptionRefUsed(Conflict):
    """This redemption_ref was used before for a redemption of this member."""


class RedemptionNotOpen(Conflict):
    """The redemption is already over, or is not in the provider's hands."""


class RedemptionNotCancellable(Conflict):
    """The reward's policy, or what has become of the redemption, does not let it be cancelled."""


class FulfilmentOverdue(Conflict):
    """The time to fulfil the redemption is over: the points are the member's again."""


class NotTheProvider(Forbidden):
    """Only the partner that provides the reward says what became of it."""


class NotTheRedeemer(Forbidden):
    """Only the partner through whom it was redeemed cancels a redemption or sees its code."""


class CodeNotShown(Conflict):
    """There is no code to show: the redemption is not a gift card, or was cancelled."""


class OffsetContradicted(Conflict):
    """The fee offset was recorded with the opposite outcome before."""


def check_definition(definition: Definition) -> Stock:
    """How the reward's stock is kept; refuses what could never be honoured."""
    kind, cancellation = definition.kind, definition.cancellation
    mistakes = {
        "title": not (0 < len(definition.title_zh) <= 200 and 0 < len(definition.title_en) <= 200),
        "price_points": not 0 < definition.price_points < 10**13,
        "ends_at": definition.ends_at is not None and definition.ends_at <= definition.starts_at,
        "provider_id": (kind == "service" and definition.provider_id is None)
        or (kind == "fee_offset" and definition.provider_id is not None),
        "pieces": definition.pieces is not None
        and (kind != "service" or not 0 <= definition.pieces <= PIECES_MAX),
        "offset_fen": (kind == "fee_offset") != (definition.offset_fen is not None)
        or (definition.offset_fen is not None and definition.offset_fen <= 0),
        "fulfil_seconds": (kind == "service") != (definition.fulfil_seconds is not None)
        or not 60 <= (definition.fulfil_seconds or 60) <= HOLD_TTL_SECONDS_MAX,
        "limit": definition.limit is not None and not 1 <= definition.limit.count <= 1_000,
        "cancellation": (cancellation.policy == "within_days") != (cancellation.days is not None)
        or not 1 <= (cancellation.days or 1) <= 365
        or (kind == "fee_offset" and cancellation.policy != "none"),
    }
    for field, mistaken in mistakes.items():
        if mistaken:
            raise RewardDefinitionRefused(field=field)
    if kind == "gift_card":
        return "codes"
    return "unlimited" if definition.pieces is None else "counted"


def states_before(state: RewardState) -> tuple[RewardState, ...]:
    """From which states a reward comes to `state`."""
    return _BEFORE[state]


def check_codes(lines: Sequence[str]) -> list[str]:
    """The codes of a file, in order; empty lines are left out. What is refused names the line, never the code."""
    codes: dict[str, None] = {}
    for number, line in enumerate(lines, start=1):
        code = line.strip()
        if not code:
            continue
        if len(code) > CODE_LENGTH_MAX or not _CODE.fullmatch(code) or code in codes:
            raise CodeFileRefused(line=number)
        codes[code] = None
    return list(codes)


def is_on_offer(reward: Reward, now: datetime) -> bool:
    """Whether the catalogue has it at this moment."""
    return (
        reward.state == "active"
        and reward.starts_at <= now
        and (reward.ends_at is None or now < reward.ends_at)
    )


def is_for_tier(reward: Reward, tier: str) -> bool:
    return not reward.tiers or tier in reward.tiers


def is_through(reward: Reward, partner_id: UUID) -> bool:
    return not reward.partners or partner_id in reward.partners


def check_reward(
    reward: Reward | None, *, partner_id: UUID, tier: str, price_points: int | None, now: datetime
) -> Reward:
    """The reward, if this member may have it through this partner now, at the price it was shown."""
    if reward is None or reward.state == "draft" or not is_through(reward, partner_id):
        raise RewardUnknown
    if not is_on_offer(reward, now):
        raise RewardNotAvailable
    if not is_for_tier(reward, tier):
        raise TierNotEligible(tier=tier)
    if price_points is not None and price_points != reward.price_points:
        raise RewardPriceChanged(price_points=reward.price_points)
    return reward


def period_of(period: LimitPeriod, now: datetime) -> date:
    """The first day of the period in which `now` counts."""
    today = business_date(now)
    if period == "day":
        return today
    if period == "month":
        return today.replace(day=1)
    return today.replace(month=1, day=1) if period == "year" else _EVER


def check_party(redemption: Redemption | None, asking: UUID | MemberRef) -> Redemption:
    """The redemption, for its member, its redeemer or its provider; another's is as absent as none."""
    parties = () if redemption is None else (redemption.member, redemption.partner_id, redemption.supplier_id)
    if redemption is None or asking not in parties:
        raise RedemptionUnknown
    return redemption


def check_redeemer(redemption: Redemption | None, asking: UUID | MemberRef) -> Redemption:
    """The redemption, for its member or the partner through whom it was redeemed."""
    redemption = check_party(redemption, asking)
    if asking not in (redemption.member, redemption.partner_id):
        raise NotTheRedeemer
    return redemption


def check_provider(redemption: Redemption | None, partner_id: UUID) -> Redemption:
    """The redemption, for the partner that provides what it is for, while it is in its hands."""
    redemption = check_party(redemption, partner_id)
    if redemption.supplier_id != partner_id:
        raise NotTheProvider
    if redemption.state != "requested":
        raise RedemptionNotOpen(state=redemption.state)
    return redemption


def check_in_time(redemption: Redemption, now: datetime) -> None:
    """Whether the sweep has come by makes no difference."""
    assert redemption.fulfil_by is not None, "a requested redemption is a service's"
    if redemption.fulfil_by <= now:
        raise FulfilmentOverdue(fulfil_by=rfc3339(redemption.fulfil_by))


def decide_undoing(redemption: Redemption, reward: Reward, now: datetime) -> Undoing:
    """How the redemption is taken back, if the reward's policy lets it."""
    if redemption.state in ("failed", "cancelled"):
        raise RedemptionNotCancellable(state=redemption.state)
    if redemption.state == "fulfilling":
        raise RedemptionNotCancellable(state="fulfilling", reason="outcome_pending")
    if reward.cancel_policy == "none":
        raise RedemptionNotCancellable(state=redemption.state, reason="policy")
    if redemption.state == "requested":
        return Undoing(points="release", gives_back=True)
    until = cancellable_until(redemption, reward)
    if until is None:
        raise RedemptionNotCancellable(state="fulfilled", reason="policy")
    if now >= until:
        raise RedemptionNotCancellable(state="fulfilled", reason="too_late", until=rfc3339(until))
    if redemption.shown_at is not None and not reward.cancel_shown:
        raise RedemptionNotCancellable(state="fulfilled", reason="code_shown")
    # A code is never handed out again: what does not come back to the stock does not come back to the limit either.
    return Undoing(points="reverse", gives_back=reward.cancel_restocks and reward.kind != "gift_card")


def cancellable_until(redemption: Redemption, reward: Reward) -> datetime | None:
    """Until when a fulfilled redemption may be cancelled; None for never."""
    if redemption.fulfilled_at is None or reward.cancel_days is None:
        return None
    return redemption.fulfilled_at + timedelta(days=reward.cancel_days)
