"""The nouns of what else is done to points: adjusted, given to another member, exchanged, refunded on both sides."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal
from uuid import UUID

from msgspec import Struct

from kernel.caller import MemberRef
from points.ledger.model import Balance, Lot, MoveKind, PointType, Reversal, Take, WalletRef

AdjustmentState = Literal["proposed", "posted", "rejected", "expired"]
TransferState = Literal["sent", "arrived", "returned"]


class Adjustment(Struct, frozen=True, kw_only=True):
    """Points the bank gives or takes by its own decision, once two of its people agree."""

    id: UUID
    bucket: int
    member_id: int
    point_type: int
    #: taken when below zero
    points: int
    #: who pays for what is given; what is taken is charged to the funders of its lots
    funder_id: int
    reason_code: str
    reason: str
    state: AdjustmentState
    proposed_by: str
    proposed_at: datetime
    #: from this instant on it can only be proposed anew
    expires_at: datetime
    #: None while it is open, and when time decided
    decided_by: str | None = None
    decided_at: datetime | None = None

    @property
    def wallet(self) -> WalletRef:
        return WalletRef(bucket=self.bucket, member_id=self.member_id, point_type=self.point_type)


class TransferRequest(Struct, frozen=True, kw_only=True):
    """A wish to give points to another member."""

    sender: MemberRef
    receiver: MemberRef
    partner_id: UUID
    points: int
    #: the partner's own number of the transfer: sent once for ever
    transfer_ref: str
    point_type: PointType


class Transfer(Struct, frozen=True, kw_only=True):
    """Points on their way from one member to another, or there, or back."""

    id: UUID
    sender: MemberRef
    receiver: MemberRef
    partner_id: UUID
    point_type: int
    points: int
    transfer_ref: str
    state: TransferState
    sent_at: datetime
    ended_at: datetime | None = None

    @property
    def source(self) -> WalletRef:
        return _key(self.sender, self.point_type)

    @property
    def target(self) -> WalletRef:
        return _key(self.receiver, self.point_type)


class SentLot(Struct, frozen=True, kw_only=True):
    """What a transfer takes of one of the sender's lots, with all that goes with it."""

    lot_seq: int
    points: int
    funder_id: int
    unit_cost_e6: int
    campaign: str | None
    rule_version: int | None
    effective_at: datetime
    expires_at: datetime | None


class ExchangeRate(Struct, frozen=True, kw_only=True):
    """`numerator` points of one type for `denominator` of another, from a moment on."""

    from_type: int
    to_type: int
    version: int
    numerator: int
    denominator: int
    valid_from: datetime


class ExchangeRequest(Struct, frozen=True, kw_only=True):
    """A wish to turn points of one type into points of another."""

    member: MemberRef
    partner_id: UUID
    from_type: PointType
    to_type: PointType
    #: at most so many; what would not make a whole point stays
    points: int
    #: the partner's own number of the exchange: posted once for ever
    exchange_ref: str


class TargetLot(Struct, frozen=True, kw_only=True):
    """What the points of one lot become."""

    source: Lot
    points: int
    #: of all of them to the funder, in millionths of a fen
    cost_e6: int


class Exchange(Struct, frozen=True, kw_only=True):
    """What an exchange took and gave."""

    id: UUID
    taken_points: int
    given_points: int
    rate: ExchangeRate
    #: of the two wallets, in the order from, to
    balances: tuple[Balance, Balance]


class RefundPart(Struct, frozen=True, kw_only=True):
    """One side of a refund: the operation, and how much of its order came back."""

    operation_id: UUID
    refunded_fen: int


class Refund(Struct, frozen=True, kw_only=True):
    """What one refund did on both sides."""

    #: what was spent and came back
    spend: Reversal
    #: what was earned and was taken back, after that
    earning: Reversal
    balance: Balance


class LotTouch(Struct, frozen=True, kw_only=True):
    """What would be done to points of a lot."""

    move: MoveKind
    taken: Take


class SpendPreview(Struct, frozen=True, kw_only=True):
    """What a hold or a spend would take at this moment."""

    points: int
    value_fen: int
    #: in spend order
    takes: Sequence[Take]
    balance: Balance


class RefundPreview(Struct, frozen=True, kw_only=True):
    """What a refund would do at this moment."""

    spend: Reversal | None
    earning: Reversal | None
    balance: Balance
    touched: Sequence[LotTouch]


class SentToday(Struct, frozen=True, kw_only=True):
    """What a member has sent on one business day."""

    transfers: int
    points: int


def _key(member: MemberRef, point_type: int) -> WalletRef:
    return WalletRef(bucket=member.bucket, member_id=member.member_id, point_type=point_type)
