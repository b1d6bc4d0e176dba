"""Membership's nouns: levels, what members do, tiers and the rules that make them, and the rights that come with them."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Literal
from uuid import UUID

from msgspec import Struct

from kernel.caller import MemberRef

BankLevel = Literal["express", "comm", "wode", "private"]
ShopLevel = Literal["iron", "bronze", "silver", "gold"]
Tier = Literal["start", "bronze", "silver", "gold", "platinum"]

#: from the lowest to the highest
BANK_LEVELS: tuple[BankLevel, ...] = ("express", "comm", "wode", "private")
SHOP_LEVELS: tuple[ShopLevel, ...] = ("iron", "bronze", "silver", "gold")
TIERS: tuple[Tier, ...] = ("start", "bronze", "silver", "gold", "platinum")

#: what a partner may report as done
DeedKind = Literal["purchase", "bill_payment", "tuition", "medical", "tax", "activity"]

#: why a tier period began
Reason = Literal["enrolled", "upgraded", "renewed", "downgraded", "fraud"]
#: why none began: the levels make the tier, or it is kept although they no longer do
Kept = Literal["qualified", "protected", "grace"]
#: what makes somebody judge: news that may raise a tier, the evaluation of a business date, or fraud found
Cause = Literal["news", "evaluation", "fraud"]

#: what of the rules is proposed and switched on by itself
VersionKind = Literal["matrix", "scheme", "privileges"]


class Deed(Struct, frozen=True, kw_only=True):
    """What a member did at a partner; with partner and kind, source_ref counts once for ever."""

    member: MemberRef
    kind: str
    source_ref: str
    occurred_at: datetime
    amount_fen: int
    own_card: bool = False
    category: str | None = None


class Standing(Struct, frozen=True, kw_only=True):
    """Where a member stands: the tier in force, the two levels that made it, and what it multiplies."""

    tier: Tier
    bank_level: BankLevel
    shop_level: ShopLevel
    #: 200 doubles what is earned
    multiplier_pct: int
    matrix_version: int


class Cell(Struct, frozen=True, kw_only=True):
    """What one pair of levels makes."""

    tier: Tier
    #: 200 doubles what is earned
    multiplier_pct: int


class Matrix(Struct, frozen=True, kw_only=True):
    """One version of bank level × shop level; a version never changes."""

    version: int
    cells: Mapping[tuple[BankLevel, ShopLevel], Cell]


class Threshold(Struct, frozen=True, kw_only=True):
    """What a shop level takes of the activity in a window; None: does not matter."""

    min_fen: int | None = None
    min_count: int | None = None


class Scheme(Struct, frozen=True, kw_only=True):
    """One version of how activity becomes a shop level and how long a tier lasts; a version never changes."""

    version: int
    #: so many calendar months up to the present one, or the present calendar year up to it
    window_kind: Literal["rolling", "calendar"]
    window_months: int
    #: of a level's thresholds
    needs: Literal["all", "any"]
    #: when activity raises a tier; at once what arrives later the same day earns by the new one
    rises: Literal["at_once", "at_evaluation"] = "at_evaluation"
    validity_months: int
    #: how long a tier outlives its validity
    grace_days: int
    levels: Mapping[ShopLevel, Threshold]


class Rules(Struct, frozen=True, kw_only=True):
    """What a judgement goes by."""

    matrix: Matrix
    scheme: Scheme


class Window(Struct, frozen=True, kw_only=True):
    """Whole months in Asia/Shanghai, half-open."""

    #: the first day that counts
    start_on: date
    #: the first day that does not
    end_on: date


class Inputs(Struct, frozen=True, kw_only=True):
    """All that is known of a member for a judgement: the tier held, and what the bank and the partners said."""

    member: MemberRef
    #: number of the tier period in force
    period_no: int
    tier: Tier
    multiplier_pct: int
    #: the shop level that made the tier
    shop_level: ShopLevel
    valid_until: datetime
    #: the bank level in force on the date, by the feed
    bank_level: BankLevel
    qualifying_fen: int
    qualifying_count: int


class Verdict(Struct, frozen=True, kw_only=True):
    """What a judgement came to; a tier period begins only for a Reason."""

    reason: Reason | Kept
    tier: Tier
    multiplier_pct: int
    bank_level: BankLevel
    shop_level: ShopLevel
    #: what the matrix says of the levels
    judged_tier: Tier
    valid_until: datetime


class Period(Struct, frozen=True, kw_only=True):
    """A tier a member had, and why; it ends where the next one begins."""

    no: int
    tier: Tier
    multiplier_pct: int
    bank_level: BankLevel
    shop_level: ShopLevel
    judged_tier: Tier
    reason: Reason
    matrix_version: int
    scheme_version: int
    #: the activity that was judged; None at enrolment
    window_from: date | None
    window_to: date | None
    qualifying_fen: int | None
    qualifying_count: int | None
    judged_on: date
    starts_at: datetime
    #: None while it is in force
    ends_at: datetime | None
    valid_until: datetime


class Progress(Struct, frozen=True, kw_only=True):
    """What a member lacks of the next shop level in the present window."""

    shop_level: ShopLevel
    #: what the matrix would make of it
    tier: Tier
    missing_fen: int
    missing_count: int
    window: Window


class Outlook(Struct, frozen=True, kw_only=True):
    """Where a member stands, why, and what comes next."""

    period: Period
    #: whether the levels make the tier today, or it is kept although they do not
    kept: Kept
    #: None at the highest level
    progress: Progress | None


class Privilege(Struct, frozen=True, kw_only=True):
    """What a tier gives: so many of a kind at one partner in every calendar month, quarter or year."""

    tier: Tier
    partner_id: UUID
    kind: str
    quantity: int
    period: Literal["month", "quarter", "year"]


class Proposal(Struct, frozen=True, kw_only=True):
    """A version as it was proposed."""

    kind: VersionKind
    version: int
    proposed_by: str


class Simulation(Struct, frozen=True, kw_only=True):
    """What an evaluation by other rules would do to every member; nothing is changed."""

    matrix_version: int
    scheme_version: int
    business_on: date
    members: int
    up: int
    down: int
    unchanged: int
    #: of the unchanged, those who keep a tier that their levels no longer make
    protected: int
    #: members by (tier before, tier after)
    by_tier: Mapping[tuple[Tier, Tier], int]
    #: (up, down, unchanged) by the bank's level of the date and the shop level held
    by_pair: Mapping[tuple[BankLevel, ShopLevel], tuple[int, int, int]]


class FedLevel(Struct, frozen=True, kw_only=True):
    """What the bank says of one member, from a date on."""

    member: MemberRef
    bank_level: BankLevel
    valid_from: date


class DueRight(Struct, frozen=True, kw_only=True):
    """A right of a tier that a member does not have yet, or has less of, for one period."""

    member: MemberRef
    partner_id: UUID
    kind: str
    quantity: int
    period_on: date
    expires_at: datetime
    privilege_version: int


class Entitlement(Struct, frozen=True, kw_only=True):
    """A right of a member: a number of uses until an end."""

    id: UUID
    member: MemberRef
    partner_id: UUID
    kind: str
    #: what it was given for; undoing that revokes it
    source: str
    quantity: int
    used: int
    #: promised for a date
    booked: int = 0
    #: taken back with the tier that gave them
    withdrawn: int = 0
    expires_at: datetime | None
    revoked_at: datetime | None
    granted_at: datetime

    @property
    def left(self) -> int:
        """Uses that are neither made, nor promised, nor gone."""
        return self.quantity - self.used - self.booked - self.withdrawn


class Booking(Struct, frozen=True, kw_only=True):
    """Uses of a right that are promised for a date."""

    booking_ref: str
    booked_for: date
    quantity: int
    state: Literal["booked", "used", "cancelled"]


#: of several members, in the order of their keys
Members = Sequence[MemberRef]
