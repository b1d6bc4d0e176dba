"""Rewards' nouns: what is in the catalogue, what it costs, and what became of who redeemed it."""

from collections.abc import Sequence
from datetime import date, datetime
from typing import Annotated, Literal, Protocol
from uuid import UUID

from msgspec import Meta, Struct

from kernel.caller import MemberRef
from points.ledger.model import POINTS
from points.membership.model import Tier

#: where the bank itself stands in for a partner: as supplier of what it gives away, as channel of its own app
BANK = UUID(int=0)

RewardKind = Literal["gift_card", "fee_offset", "service"]
RewardState = Literal["draft", "active", "paused", "ended"]
Stock = Literal["codes", "counted", "unlimited"]
LimitPeriod = Literal["day", "month", "year", "ever"]
CancelPolicy = Literal["none", "until_fulfilled", "within_days"]
RedemptionState = Literal["requested", "fulfilling", "fulfilled", "failed", "cancelled"]
#: what another system says of a fee offset; unknown is not failed
OffsetOutcome = Literal["done", "refused", "unknown"]


class Limit(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How often one member may have a reward; periods are those of Shanghai's calendar."""

    count: int
    period: LimitPeriod


class Cancellation(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Until when a redemption may be taken back."""

    policy: CancelPolicy = "none"
    #: from fulfilment; only with `within_days`
    days: int | None = None
    #: whether what was fulfilled goes back into the stock; a code never does
    restocks: bool = True
    #: whether a gift card may come back although its code was shown
    shown: bool = False


class Definition(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A reward as somebody at the bank writes it down; nothing of it but the price ever changes."""

    kind: RewardKind
    title_zh: str
    title_en: str
    price_points: int
    #: name of the type of points it costs
    point_type: str = POINTS.name
    #: the partner that gives it and is paid for it; None for the bank
    provider_id: UUID | None = None
    #: pieces of a service; None for as many as are wanted
    pieces: int | None = None
    #: what a fee offset takes off a bank fee
    offset_fen: int | None = None
    #: how long the provider of a service may take to confirm
    fulfil_seconds: int | None = None
    starts_at: Annotated[datetime, Meta(tz=True)]
    ends_at: Annotated[datetime, Meta(tz=True)] | None = None
    #: which tiers may have it; empty for all
    tiers: Sequence[Tier] = ()
    #: through which partners it may be redeemed; empty for all
    partners: Sequence[UUID] = ()
    limit: Limit | None = None
    cancellation: Cancellation = Cancellation()


class Reward(Struct, frozen=True, kw_only=True):
    """An item of the catalogue with the price it has now."""

    id: UUID
    kind: RewardKind
    title_zh: str
    title_en: str
    provider_id: UUID | None
    stock: Stock
    offset_fen: int | None
    fulfil_seconds: int | None
    starts_at: datetime
    ends_at: datetime | None
    tiers: tuple[str, ...]
    partners: tuple[UUID, ...]
    limit_count: int | None
    limit_period: LimitPeriod | None
    cancel_policy: CancelPolicy
    cancel_days: int | None
    cancel_restocks: bool
    cancel_shown: bool
    state: RewardState
    price_version: int
    price_points: int
    point_type: int

    @property
    def supplier_id(self) -> UUID:
        """In whose name points are spent on it."""
        return self.provider_id or BANK


class Offered(Struct, frozen=True, kw_only=True):
    """A reward as one member may have it now."""

    reward: Reward
    #: name of the type of points it costs
    point_type: str
    #: pieces left, as far as one counts; None for as many as are wanted
    left: int | None
    #: how often the member may still have it in this period; None without a limit
    times_left: int | None


class Redemption(Struct, frozen=True, kw_only=True):
    """A member's purchase of a reward."""

    id: UUID
    member: MemberRef
    #: through whom it was redeemed
    partner_id: UUID
    redemption_ref: str
    reward_id: UUID
    kind: RewardKind
    supplier_id: UUID
    #: the price it saw, whatever the reward costs now
    price_version: int
    price_points: int
    point_type: int
    hold_id: UUID
    code_id: UUID | None = None
    #: first day of the period in which it counts against the member's limit
    period_on: date | None = None
    #: whether it takes a piece of the stock, and one of the member's times
    has_piece: bool
    counts: bool
    state: RedemptionState
    requested_at: datetime
    #: from this instant on a service can no longer be fulfilled
    fulfil_by: datetime | None = None
    fulfilled_at: datetime | None = None
    closed_at: datetime | None = None
    #: why it failed
    reason: str | None = None
    #: when its code was first shown
    shown_at: datetime | None = None


class Wish(Struct, frozen=True, kw_only=True):
    """What somebody asks for on behalf of a member."""

    member: MemberRef
    #: through whom; BANK for the bank's own app
    partner_id: UUID
    reward_id: UUID
    redemption_ref: str
    #: the price the member was shown; None to take what it is
    price_points: int | None = None


class Undoing(Struct, frozen=True, kw_only=True):
    """How a redemption is taken back."""

    #: give the held points back, or reverse the spend
    points: Literal["release", "reverse"]
    #: the piece goes back into the stock, and the time to the member
    gives_back: bool


class Offset(Struct, frozen=True, kw_only=True):
    """A bank fee to be reduced, once for ever per redemption."""

    redemption_id: UUID
    member: MemberRef
    offset_fen: int


class FeeOffset(Protocol):
    """The system that books bank fees, seen from here."""

    async def settle(self, offset: Offset) -> OffsetOutcome:
        """Reduce the fee, or say what became of it: the same redemption is reduced once, however often this is asked."""
        ...


class LoadedCodes(Struct, frozen=True, kw_only=True):
    """What became of a file of codes."""

    loaded: int
    #: already there, for this reward or another
    known: int
