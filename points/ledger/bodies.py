"""What the ledger's routes take and give."""

from datetime import datetime
from typing import Annotated

from msgspec import Meta, Struct

from kernel.money import OrderFen, PositiveFen, PositivePoints
from points.ledger.deeds import TransferState
from points.ledger.model import POINTS, Balance, ExpiringPoints, HoldState, MoveKind, OperationKind
from points.ledger.rules import HOLD_TTL_SECONDS_MAX

Sub = Annotated[str, Meta(max_length=128, description="The member's subject at your organisation.")]
Reference = Annotated[str, Meta(min_length=1, max_length=128)]
TypeName = Annotated[str, Meta(min_length=1, max_length=64, description="The type of points, by its name.")]


class PointsView(Struct, frozen=True, kw_only=True):
    """What a member has at this moment."""

    available_points: int
    held_points: int
    pending_points: int
    arrears_points: int
    #: the free points that end next, soonest first
    expiring: list[ExpiringPoints]
    as_of: datetime
    point_type: str


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
    point_type: TypeName = POINTS.name


class PointsQuote(Struct, frozen=True, kw_only=True):
    """How far points would go; nothing is reserved."""

    max_points: int
    #: what those points pay for
    value_fen: int
    points_per_yuan: int
    point_type: str


class HoldRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Points to reserve for a checkout."""

    member: Sub
    points: PositivePoints
    order_ref: Annotated[Reference, Meta(description="Your number of the order.")]
    ttl_seconds: Annotated[
        int, Meta(ge=1, le=HOLD_TTL_SECONDS_MAX, description="The hold lapses after this long.")
    ] = 1_800
    point_type: TypeName = POINTS.name


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
    point_type: str
    #: version of the order in which lots are spent: 1 takes what ends soonest, then the oldest; what never ends comes last
    spend_order: int


class SpendRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Points to spend at once."""

    member: Sub
    points: PositivePoints
    order_ref: Annotated[Reference, Meta(description="Your number of the order.")]
    order_fen: (
        Annotated[PositiveFen, Meta(description="The order's total; partial refunds are proportional to it.")]
        | None
    ) = None
    point_type: TypeName = POINTS.name


class SpendView(Struct, frozen=True, kw_only=True):
    """A spend: a hold that was captured when it was placed; reversed and read under the same id."""

    id: str
    state: HoldState
    points: int
    captured_points: int
    value_fen: int
    order_ref: str
    point_type: str


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


class EarningPart(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The earning of a refunded order, by its id or by the event that earned."""

    operation_id: Annotated[str, Meta(description="The earning's `ent_…`.")] | None = None
    member: Sub | None = None
    kind: (
        Annotated[Reference, Meta(description="With source_ref: the kind of the earning's event.")] | None
    ) = None
    source_ref: Annotated[Reference, Meta(description="Your number of the event that earned.")] | None = None
    refunded_fen: (
        Annotated[PositiveFen, Meta(description="Of the amount that earned, if it is not refunded_fen.")]
        | None
    ) = None


class SpendPart(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The spend of a refunded order."""

    id: Annotated[str, Meta(description="The `hld_…` of the captured hold or of the spend.")]
    refunded_fen: (
        Annotated[PositiveFen, Meta(description="Of the order_fen of the spend, if it is not refunded_fen.")]
        | None
    ) = None


class PointsRefundRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A refund of an order that was paid with points and earned some."""

    refund_ref: Annotated[Reference, Meta(description="Your number of the refund; posted once for ever.")]
    refunded_fen: PositiveFen
    spend: SpendPart
    earning: EarningPart


class PointsRefundView(Struct, frozen=True, kw_only=True):
    """What a refund did on both sides; one id for each."""

    spend_reversal_id: str
    earning_reversal_id: str
    points_restored: int
    points_clawed_back: int
    arrears_added: int
    balance: Balance


class LotView(Struct, frozen=True, kw_only=True):
    """Points of a lot that would move."""

    lot_id: str
    move: MoveKind
    points: int
    #: the bank or your own organisation; null for anybody else
    funder: str | None
    expires_at: datetime | None


class SpendDryRun(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A spend or a hold that might come."""

    member: Sub
    points: PositivePoints
    point_type: TypeName = POINTS.name


class SpendDryRunView(Struct, frozen=True, kw_only=True):
    """What a spend or a hold would take at this moment, in that order; nothing has happened."""

    points: int
    value_fen: int
    point_type: str
    #: version of the order in which they are spent
    spend_order: int
    lots: list[LotView]
    #: as it would be after a spend
    balance: Balance
    as_of: datetime


class RefundDryRun(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A refund that might come, of one side or of both."""

    refund_ref: Annotated[Reference, Meta(description="Your number of the refund.")]
    refunded_fen: PositiveFen
    spend: SpendPart | None = None
    earning: EarningPart | None = None


class RefundDryRunView(Struct, frozen=True, kw_only=True):
    """What a refund would do at this moment; nothing has happened."""

    points_restored: int
    points_clawed_back: int
    arrears_added: int
    lots: list[LotView]
    balance: Balance
    as_of: datetime


class TransferRequest(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"from_": "from"}
):
    """Points that one member gives to another; both consent to you."""

    from_: Annotated[str, Meta(max_length=128, description="The sender's subject at your organisation.")]
    to: Annotated[str, Meta(max_length=128, description="The receiver's subject at your organisation.")]
    points: PositivePoints
    transfer_ref: Annotated[Reference, Meta(description="Your number of the transfer; sent once for ever.")]
    point_type: TypeName = POINTS.name


class TransferView(Struct, frozen=True, kw_only=True):
    """A transfer and how it stands; it ends within seconds."""

    id: str
    state: TransferState
    points: int
    transfer_ref: str
    sent_at: datetime
    ended_at: datetime | None


class ExchangeRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Points of one type to turn into points of another."""

    member: Sub
    from_type: TypeName
    to_type: TypeName
    points: Annotated[PositivePoints, Meta(description="At most so many; what makes no whole point stays.")]
    exchange_ref: Annotated[Reference, Meta(description="Your number of the exchange; posted once for ever.")]


class ExchangeView(Struct, frozen=True, kw_only=True):
    """What an exchange took and gave."""

    id: str
    from_type: str
    to_type: str
    #: what makes whole points of the other type
    taken_points: int
    given_points: int
    rate_numerator: int
    rate_denominator: int
    #: of both wallets afterwards
    from_balance: Balance
    to_balance: Balance
