"""What the routes of rewards take and give."""

from datetime import datetime
from typing import Annotated

from msgspec import Meta, Struct

from kernel.money import PositivePoints
from points.rewards.model import LimitPeriod, RedemptionState, RewardKind

Sub = Annotated[str, Meta(max_length=128, description="The member's subject at your organisation.")]
Reference = Annotated[str, Meta(min_length=1, max_length=128, description="Your number of the redemption.")]


class TitleView(Struct, frozen=True, kw_only=True):
    """What a reward is called."""

    zh: str
    en: str


class LimitView(Struct, frozen=True, kw_only=True):
    """How often one member may have a reward."""

    count: int
    period: LimitPeriod
    #: how often still, in this period
    left: int


class RewardView(Struct, frozen=True, kw_only=True):
    """A reward the member may redeem."""

    id: str
    kind: RewardKind
    title: TitleView
    price_points: int
    #: which points it costs
    point_type: str
    price_version: int
    #: what a fee offset takes off the fee
    offset_fen: int | None
    #: pieces left, of gift cards 1,000 at most are counted; null for as many as are wanted
    left: int | None
    limit: LimitView | None
    ends_at: datetime | None


class RedemptionRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A reward that a member wants."""

    member: Sub
    reward: Annotated[str, Meta(max_length=64, description="The reward's `rwd_…`.")]
    redemption_ref: Reference
    price_points: (
        Annotated[PositivePoints, Meta(description="The price the member was shown; if it has changed, 409.")]
        | None
    ) = None


class FailureRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why a service will not be given."""

    reason: Annotated[str, Meta(min_length=1, max_length=64, pattern="^[a-z][a-z0-9_]*$")] = "not_provided"


class RedemptionView(Struct, frozen=True, kw_only=True):
    """A redemption; to its provider without the redeemer's number and the member's name there."""

    id: str
    state: RedemptionState
    kind: RewardKind
    reward: str
    member: str | None
    redemption_ref: str | None
    price_points: int
    price_version: int
    requested_at: datetime
    #: until when a service may be fulfilled
    fulfil_by: datetime | None
    fulfilled_at: datetime | None
    closed_at: datetime | None
    #: why it failed
    reason: str | None
    #: when the code was first shown
    shown_at: datetime | None


class CodeView(Struct, frozen=True, kw_only=True):
    """A gift card's code."""

    code: str
