"""What the ledger's routes take and give."""

from datetime import datetime
from typing import Annotated

from msgspec import Meta, Struct

from kernel.money import OrderFen, PositiveFen, PositivePoints
from points.ledger.model import Balance, ExpiringPoints, HoldState, OperationKind
from points.ledger.rules import HOLD_TTL_SECONDS_MAX

Sub = Annotated[str, Meta(max_length=128, description="The member's subject at your organisation.")]
Reference = Annotated[str, Meta(min_length=1, max_length=128)]


class PointsView(Struct, frozen=True, kw_only=True):
    """What a member has at this moment."""

    available_points: int
    held_points: int
    pending_points: int
    arrears_points: int
    #: the free points that end next, soonest first
    expiring: list[ExpiringPoints]
    as_of: datetime


class EntryView(Struct, frozen=True, kw_only=True):
    """One debit and one credit of a member's wallet."""

    operation_id: str
    #: number within the wallet; those of other partners' operations are not shown
    seq: int
    kind: OperationKind
    debit: str
    credit: str
    points: int
    available_after: int
    held_after: int
    pending_after: int
    arrears_after: int
    recorded_at: datetime


class QuoteRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An order that points might pay for."""

    member: Sub
    order_amount_fen: OrderFen


class PointsQuote(Struct, frozen=True, kw_only=True):
    """How far points would go; nothing is reserved."""

    max_points: int
    #: what those points pay for
    value_fen: int
    points_per_yuan: int


class HoldRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Points to reserve for a checkout."""

    member: Sub
    points: PositivePoints
    order_ref: Annotated[Reference, Meta(description="Your number of the order.")]
    ttl_seconds: Annotated[
        int, Meta(ge=1, le=HOLD_TTL_SECONDS_MAX, description="The hold lapses after this long.")
    ] = 1_800


class HoldView(Struct, frozen=True, kw_only=True):
    """A hold as its partner sees it."""

    id: str
    state: HoldState
    points: int
    captured_points: int
    value_fen: int
    order_ref: str
    #: from this instant on it cannot be captured
    expires_at: datetime


class HoldCapture(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much of a hold to spend."""

    points: PositivePoints | None = None
    order_fen: (
        Annotated[PositiveFen, Meta(description="The order's total; partial refunds are proportional to it.")]
        | None
    ) = None


class CapturedView(Struct, frozen=True, kw_only=True):
    """What a capture spent and gave back."""

    id: str
    state: HoldState
    captured_points: int
    released_points: int
    value_fen: int


class ReleasedView(Struct, frozen=True, kw_only=True):
    """A hold that is over."""

    id: str
    state: HoldState
    released_points: int


class ReversalRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A refund, and the earning or the spend it undoes."""

    refund_ref: Annotated[Reference, Meta(description="Your number of the refund; posted once for ever.")]
    refunded_fen: PositiveFen
    operation_id: (
        Annotated[str, Meta(description="An earning's `ent_…` or a captured hold's `hld_…`.")] | None
    ) = None
    member: Sub | None = None
    kind: (
        Annotated[Reference, Meta(description="With source_ref: the kind of the earning's event.")] | None
    ) = None
    source_ref: Annotated[Reference, Meta(description="Your number of the event that earned.")] | None = None


class ReversalView(Struct, frozen=True, kw_only=True):
    """What a refund undid."""

    id: str
    points_clawed_back: int
    points_restored: int
    arrears_added: int
    balance: Balance
