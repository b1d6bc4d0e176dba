"""Earning's nouns: what a customer did at a partner, the rules and campaigns that look at it, and what it earned."""

from collections.abc import Sequence
from datetime import datetime, time
from typing import Literal
from uuid import UUID

from msgspec import Struct

from kernel.caller import MemberRef
from points.ledger.model import BANK_FUNDER, BANK_FUNDER_ID, Balance, Grant, Manager

#: what a partner may report
ReportedKind = Literal["purchase", "bill_payment", "tuition", "medical", "tax", "activity"]
#: and what the bank itself adds
ActivityKind = ReportedKind | Literal["instalment"]


#: points end with the month, or after the same day of it
Expiry = Literal["end_of_month", "same_day"]
CampaignState = Literal["draft", "in_review", "scheduled", "running", "paused", "exhausted", "ended"]
#: which of what limits a component did
Limit = Literal["member_cap", "budget", "funder"]


class LotTerms(Struct, frozen=True, kw_only=True):
    """What becomes of granted points: who pays for them, when they begin and when they end."""

    funder_id: int = BANK_FUNDER_ID
    funder: str = BANK_FUNDER
    #: what one point costs the funder, in millionths of a fen
    unit_cost_e6: int
    #: points end this many months after the business date of the activity
    validity_months: int
    expiry: Expiry = "end_of_month"
    #: points begin at midnight in Shanghai this many days after the activity; 0 for at once
    pending_days: int = 0


class Rate(Struct, frozen=True, kw_only=True):
    """What one kind of activity earns; None fits everything."""

    kind: str | None = None
    category: str | None = None
    own_card: bool | None = None
    #: what one point takes of an order; None for activities that earn nothing
    fen_per_point: int | None


class EarningRule(Struct, frozen=True, kw_only=True):
    """One version of how activity becomes points; a version never changes."""

    version: int
    #: what one point takes of an order, before multipliers, where no rate fits
    fen_per_point: int
    #: the first that fits decides
    rates: tuple[Rate, ...] = ()
    #: at most so many base points for one activity, and for one member's day in Shanghai
    transaction_cap_points: int | None = None
    daily_cap_points: int | None = None
    terms: LotTerms
    in_force_from: datetime


class Recurrence(Struct, frozen=True, kw_only=True):
    """The days and hours of a campaign within its window, in Shanghai; None for all of them."""

    #: 1 is Monday
    weekdays: tuple[int, ...] | None = None
    #: a day that a month lacks is its last
    month_days: tuple[int, ...] | None = None
    #: `11-11`; 29 February is the 28th in years that lack it
    year_days: tuple[str, ...] | None = None
    from_time: time | None = None
    #: the first moment that is outside again
    until_time: time | None = None


class Share(Struct, frozen=True, kw_only=True):
    """One funder's part of a campaign's points; each share is a lot of its own."""

    share_ppm: int
    terms: LotTerms


class Campaign(Struct, frozen=True, kw_only=True):
    """A rule for a time that adds points to what the base rule gives; its definition never changes."""

    id: UUID
    code: str
    state: CampaignState
    #: lower goes first; the code decides between equals
    priority: int
    #: only the best of a group applies
    exclusive_group: str | None = None
    #: the window is half-open
    starts_at: datetime
    ends_at: datetime
    #: activities of the window earn when reported up to so many days after its end
    late_days: int = 30
    recurrence: Recurrence = Recurrence()
    #: 200 adds the base points once more, without the tier's part
    multiplier_pct: int | None = None
    fixed_points: int | None = None
    kinds: tuple[str, ...] | None = None
    categories: tuple[str, ...] | None = None
    own_card: bool | None = None
    min_amount_fen: int = 0
    tiers: tuple[str, ...] | None = None
    partner_ids: tuple[UUID, ...] | None = None
    #: only for the members on its list
    listed: bool = False
    #: only for activities that name it
    named_only: bool = False
    transaction_cap_points: int | None = None
    member_cap_points: int | None = None
    member_daily_cap_points: int | None = None
    budget_id: UUID | None = None
    budget_unit: Literal["points", "fen"] | None = None
    on_exhaustion: Literal["skip", "partial"] = "skip"
    shares: tuple[Share, ...]
    #: set with the approval
    in_force_from: datetime | None = None

    @property
    def is_open(self) -> bool:
        """Whether it may give points when its window says so."""
        return self.state in ("scheduled", "running")


class Activity(Struct, frozen=True, kw_only=True):
    """What a member did at a partner, as the partner tells it."""

    member: MemberRef
    #: the partner's own number of it; with the kind it earns once for ever
    source_ref: str
    kind: ActivityKind
    occurred_at: datetime
    amount_fen: int
    category: str | None = None
    #: paid with the bank's own card
    own_card: bool = False
    #: who alone may undo what it earns
    manager: Manager | None = None
    #: the campaign the partner counts on, and the rule version; None for whatever is in force
    campaign: str | None = None
    rule_version: int | None = None


class Earned(Struct, frozen=True, kw_only=True):
    """What an activity earned."""

    operation_id: UUID
    points: int
    rule_version: int
    grants: Sequence[Grant]
    balance: Balance
