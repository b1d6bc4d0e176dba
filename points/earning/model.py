"""Earning's nouns: what a customer did at a partner, and what it earned."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal
from uuid import UUID

from msgspec import Struct

from kernel.caller import MemberRef
from points.ledger.model import Balance, Grant, Manager

#: what a partner may report
ReportedKind = Literal["purchase", "bill_payment", "tuition", "medical", "tax", "activity"]
#: and what the bank itself adds
ActivityKind = ReportedKind | Literal["instalment"]


class EarningRule(Struct, frozen=True, kw_only=True):
    """One version of how activity becomes points; a version never changes."""

    version: int
    #: what one point takes of an order, before multipliers
    fen_per_point: int
    #: points end at the end of the month this many months after the business date of the activity
    validity_months: int
    #: what one point costs the funder, in millionths of a fen
    unit_cost_e6: int


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


class Earned(Struct, frozen=True, kw_only=True):
    """What an activity earned."""

    operation_id: UUID
    points: int
    grants: Sequence[Grant]
    balance: Balance
