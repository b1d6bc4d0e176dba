"""The ledger's nouns: wallets, lots, holds, postings and what came of them."""

from collections.abc import Sequence
from datetime import date, datetime
from enum import IntEnum
from typing import Any, Literal
from uuid import UUID

from msgspec import Struct

from kernel.caller import MemberRef

#: the type of points every installation has; see ledger_point_type
TESSERA = 1
#: what one of them pays for, in millionths of a fen; equals ledger_point_type.value_fen_e6
VALUE_FEN_E6 = 1_000_000
POINTS_PER_YUAN = 100
#: the funder every installation has
BANK_FUNDER_ID = 1
BANK_FUNDER = "bank"

#: the order in force: soonest expiry first, then oldest, points without an end last; see ledger_spend_order
SPEND_ORDER = 1
#: where a walk through the wallets stands: bucket, member, point type
WalletCursor = tuple[int, int, int]
HoldState = Literal["open", "captured", "released", "lapsed"]
#: what looks after points on its own, so that nobody else may: an instalment plan, or a reward's redemption
Manager = Literal["plan", "redemption"]

#: which of a partner's acts a refund undoes
Side = Literal["earn", "spend"]

OperationKind = Literal[
    "earn",
    "hold",
    "capture",
    "release",
    "lapse",
    "spend",
    "reverse_earn",
    "reverse_spend",
    "expire",
    "activate",
    "adjust",
    "transfer_out",
    "transfer_in",
    "exchange",
]
#: what an entry means on a statement; see ledger_movement
Movement = Literal[
    "moved",
    "earned",
    "restored",
    "spent",
    "expired",
    "clawed",
    "repaid",
    "owed",
    "adjusted_in",
    "adjusted_out",
    "transferred_in",
    "transferred_out",
    "exchanged_in",
    "exchanged_out",
]
MoveKind = Literal[
    "grant",
    "hold",
    "capture",
    "release",
    "spend",
    "expire",
    "claw",
    "restore",
    "repay",
    "activate",
    "void",
    "adjust",
    "transfer",
    "exchange",
]


class Account(IntEnum):
    """The plan of accounts; see ledger_account."""

    AVAILABLE = 1
    HELD = 2
    PENDING = 3
    ARREARS = 4
    ISSUED = 10
    REDEEMED = 11
    BREAKAGE = 12
    IN_TRANSIT = 13
    ADJUSTED = 14
    EXCHANGED = 15


class PointType(Struct, frozen=True, kw_only=True):
    """A type of points: each member has one wallet of each, and they never mix."""

    code: int
    name: str
    #: what one point pays for, in millionths of a fen
    value_fen_e6: int


POINTS = PointType(code=TESSERA, name="tessera", value_fen_e6=VALUE_FEN_E6)


class WalletRef(Struct, frozen=True, kw_only=True):
    """Which wallet: a member's, of one type of points."""

    bucket: int
    member_id: int
    point_type: int = TESSERA

    @property
    def member(self) -> MemberRef:
        return MemberRef(member_id=self.member_id, bucket=self.bucket)


def wallet_ref(member: MemberRef, point_type: int = TESSERA) -> WalletRef:
    """The key of the member's wallet of this type."""
    return WalletRef(bucket=member.bucket, member_id=member.member_id, point_type=point_type)


class Balance(Struct, frozen=True, kw_only=True):
    """What a member has at one moment: expired points are already gone, whether or not they were booked."""

    #: free to spend
    available_points: int
    #: reserved for checkouts
    held_points: int
    #: earned, not yet spendable
    pending_points: int
    #: owed after a claw-back; later earnings repay it first
    arrears_points: int


class ExpiringPoints(Struct, frozen=True, kw_only=True):
    """Free points that end together."""

    points: int
    #: the first instant at which they are gone
    expires_at: datetime


class Wallet(Struct, frozen=True, kw_only=True):
    """A member's points as booked; changed only under its lock."""

    bucket: int
    member_id: int
    #: number of the last entry
    seq: int
    available_points: int
    held_points: int
    pending_points: int
    arrears_points: int
    point_type: int = TESSERA

    @property
    def member(self) -> MemberRef:
        return MemberRef(member_id=self.member_id, bucket=self.bucket)

    @property
    def key(self) -> WalletRef:
        return WalletRef(bucket=self.bucket, member_id=self.member_id, point_type=self.point_type)

    @property
    def balance(self) -> Balance:
        """What is booked; the present truth once due expiries are booked too."""
        return Balance(
            available_points=self.available_points,
            held_points=self.held_points,
            pending_points=self.pending_points,
            arrears_points=self.arrears_points,
        )


class Lot(Struct, frozen=True, kw_only=True):
    """Points granted together, as much of them as is left."""

    bucket: int
    member_id: int
    #: seq of the entry that granted it
    lot_seq: int
    operation_id: UUID
    funder_id: int
    #: what one point costs the funder, in millionths of a fen
    unit_cost_e6: int
    campaign: str | None
    rule_version: int | None
    effective_at: datetime
    #: first instant at which the points are gone; None for never
    expires_at: datetime | None
    remaining_points: int
    held_points: int
    #: booked as pending until activates_at
    pending_points: int = 0
    activates_at: datetime | None = None
    point_type: int = TESSERA
    #: its public name; set wherever lots are shown
    id: UUID | None = None

    @property
    def wallet(self) -> WalletRef:
        return WalletRef(bucket=self.bucket, member_id=self.member_id, point_type=self.point_type)

    @property
    def free_points(self) -> int:
        return self.remaining_points - self.held_points - self.pending_points

    def is_live(self, now: datetime) -> bool:
        return self.expires_at is None or self.expires_at > now

    def is_ripe(self, now: datetime) -> bool:
        """Something of it is booked as pending and waits no longer."""
        return self.pending_points > 0 and self.activates_at is not None and self.activates_at <= now


class Take(Struct, frozen=True, kw_only=True):
    """Some points of one lot."""

    lot: Lot
    points: int


class HoldLot(Struct, frozen=True, kw_only=True):
    """A lot pinned by a hold."""

    hold_id: UUID
    lot: Lot
    points: int
    captured: int
    restored: int


class Hold(Struct, frozen=True, kw_only=True):
    """Points reserved for a checkout."""

    id: UUID
    member: MemberRef
    partner_id: UUID
    points: int
    captured_points: int
    state: HoldState
    #: the partner's own number of the order
    order_ref: str
    #: from this instant on it cannot be captured
    deadline_at: datetime
    #: the operation that closed it
    closed_by: UUID | None = None
    #: who alone may close it; None for the partner that opened it
    manager: Manager | None = None
    point_type: PointType = POINTS
    #: version of the order in which its lots were picked; see SPEND_ORDER
    spend_order: int = SPEND_ORDER


class HoldRequest(Struct, frozen=True, kw_only=True):
    """A wish to reserve points."""

    member: MemberRef
    partner_id: UUID
    points: int
    order_ref: str
    #: how long it may stay open
    ttl_seconds: int
    manager: Manager | None = None
    point_type: PointType = POINTS


class SpendRequest(Struct, frozen=True, kw_only=True):
    """A wish to spend points at once."""

    member: MemberRef
    partner_id: UUID
    points: int
    order_ref: str
    #: the total that later partial refunds are proportional to; None for what the points pay for
    order_fen: int | None = None
    point_type: PointType = POINTS


class CloseRequest(Struct, frozen=True, kw_only=True):
    """A wish to capture or to release a hold."""

    hold_id: UUID
    partner_id: UUID
    #: the only member whose holds are there for whoever asks; None for all of the partner's
    member: MemberRef | None = None
    state: Literal["captured", "released"]
    #: how many of the held points to spend; None for all
    points: int | None = None
    #: the total that later partial refunds are proportional to; None for what the points paid for
    order_fen: int | None = None
    manager: Manager | None = None


class Closing(Struct, frozen=True, kw_only=True):
    """The decided end of a hold, to be tried under its wallet's lock."""

    hold: Hold
    state: HoldState
    #: points captured
    spent: int
    amount_fen: int
    operation_id: UUID


class HoldOutcome(Struct, frozen=True, kw_only=True):
    """What became of a hold."""

    hold: Hold
    captured_points: int
    released_points: int
    #: what the captured points paid for
    value_fen: int
    operation_id: UUID


class Reversal(Struct, frozen=True, kw_only=True):
    """What one refund undid."""

    id: UUID
    #: taken back of an earning, arrears included
    points_clawed_back: int
    #: given back of a spend
    points_restored: int
    #: the part of the claw-back that the member now owes
    arrears_added: int
    balance: Balance


class Grant(Struct, frozen=True, kw_only=True):
    """A rule's decision to give points: becomes a lot."""

    #: which rule: `base`, `campaign`
    rule: str
    multiplier_pct: int
    points: int
    lot_id: UUID
    funder_id: int = BANK_FUNDER_ID
    funder: str = BANK_FUNDER
    unit_cost_e6: int = VALUE_FEN_E6
    campaign: str | None = None
    expires_at: datetime | None = None
    #: pending until then; None for points that may be spent at once
    activates_at: datetime | None = None
    #: left out, not refused, when its funder has not enough left
    optional: bool = False


class EarnPosting(Struct, frozen=True, kw_only=True):
    """One earning, decided by the rules and ready for the books."""

    operation_id: UUID
    member: MemberRef
    partner_id: UUID
    #: kind and number of the event at the partner: earns once for ever
    source_kind: str
    source_ref: str
    amount_fen: int
    occurred_at: datetime
    #: what the rules looked at
    rule_version: int
    tier: str
    multiplier_pct: int
    own_card: bool
    category: str | None
    #: who alone may undo it; None for the partner that reported it
    manager: Manager | None = None
    #: empty when the amount is too small to earn
    grants: Sequence[Grant] = ()
    #: how campaigns changed it, as points.earning.replay reads it; None when only the base rule spoke
    calculation: dict[str, Any] | None = None

    @property
    def points(self) -> int:
        return sum(grant.points for grant in self.grants)


class EarnOutcome(Struct, frozen=True, kw_only=True):
    """What the books answered to one posting."""

    #: the posting's own operation, or the earlier one that had used its source
    operation_id: UUID
    #: False: the source had earned before and nothing was changed
    posted: bool
    balance: Balance


class Source(Struct, frozen=True, kw_only=True):
    """The event at a partner that earned."""

    member: MemberRef
    kind: str
    source_ref: str


class Operation(Struct, frozen=True, kw_only=True):
    """One thing that happened to one wallet."""

    bucket: int
    member_id: int
    id: UUID
    kind: OperationKind
    partner_id: UUID | None
    hold_id: UUID | None = None
    source_kind: str | None = None
    source_ref: str | None = None
    #: the operation undone, and the partner's number of the refund
    reverses: UUID | None = None
    refund_ref: str | None = None
    amount_fen: int = 0
    points: int
    rule_version: int | None = None
    tier: str | None = None
    multiplier_pct: int | None = None
    own_card: bool | None = None
    category: str | None = None
    occurred_at: datetime
    recorded_at: datetime
    business_on: date
    manager: Manager | None = None
    #: whether a funder's block paid for its points
    block_funded: bool = False
    point_type: int = TESSERA
    calculation: dict[str, Any] | None = None

    @property
    def member(self) -> MemberRef:
        return MemberRef(member_id=self.member_id, bucket=self.bucket)


class ReversalRequest(Struct, frozen=True, kw_only=True):
    """A refund, and the operation it is to undo in part or in full."""

    #: an earning's, or a hold's on the spending side
    operation_id: UUID
    partner_id: UUID
    side: Side
    #: the partner's own number of the refund: counts once for ever
    refund_ref: str
    refunded_fen: int
    manager: Manager | None = None


class Undoable(Struct, frozen=True, kw_only=True):
    """An operation that refunds may undo: an earning, or a capture with its hold."""

    operation: Operation
    hold: Hold | None

    @property
    def wallet(self) -> WalletRef:
        return wallet_ref(self.operation.member, self.operation.point_type)


class Entry(Struct, frozen=True, kw_only=True):
    """One debit and one credit; the wallet as it stood afterwards."""

    bucket: int
    member_id: int
    seq: int
    operation_id: UUID
    debit: Account
    credit: Account
    points: int
    funder_id: int
    value_fen: int
    available_after: int
    held_after: int
    pending_after: int
    arrears_after: int
    point_type: int = TESSERA


class ListedEntry(Struct, frozen=True, kw_only=True):
    """An entry as a partner may read it."""

    seq: int
    operation_id: UUID
    kind: OperationKind
    debit: str
    credit: str
    points: int
    available_after: int
    held_after: int
    pending_after: int
    arrears_after: int
    recorded_at: datetime


class Move(Struct, frozen=True, kw_only=True):
    """Which entry touched which lot."""

    bucket: int
    member_id: int
    seq: int
    lot_seq: int
    kind: MoveKind
    points: int
    point_type: int = TESSERA


class Reversible(Struct, frozen=True, kw_only=True):
    """How much of an operation refunds have undone so far."""

    base_fen: int
    reversed_fen: int
    base_points: int
    reversed_points: int


class Statement(Struct, frozen=True, kw_only=True):
    """One month of one wallet: what the member owned, what became of it, what is owned now."""

    bucket: int
    member_id: int
    #: first day of the month, in Shanghai
    period: date
    #: held points are still the member's and counted
    opening_points: int
    earned_points: int
    restored_points: int
    spent_points: int
    expired_points: int
    clawed_points: int
    #: what repaid arrears
    repaid_points: int
    closing_points: int
    closing_held_points: int
    opening_arrears_points: int
    owed_points: int
    closing_arrears_points: int
    first_seq: int
    last_seq: int
    #: the chain's link after the last entry
    head_hash: bytes
    #: by the bank's own decision
    adjusted_in_points: int = 0
    adjusted_out_points: int = 0
    #: from and to other members; what came back is in both
    transferred_in_points: int = 0
    transferred_out_points: int = 0
    #: for points of another type
    exchanged_in_points: int = 0
    exchanged_out_points: int = 0


class HouseBalance(Struct, frozen=True, kw_only=True):
    """One of the house's accounts with one funder at the end of a day."""

    account: str
    funder: str
    debit_points: int
    credit_points: int
    #: on the side on which the account grows
    balance_points: int


class DayRoot(Struct, frozen=True, kw_only=True):
    """The Merkle root above the wallets of one lane that moved on one day."""

    lane: int
    business_on: date
    leaves: int
    root: bytes
    #: the hash of the day before; empty for the first
    previous_hash: bytes
    hash: bytes


class Seal(Struct, frozen=True, kw_only=True):
    """A day's root as it was sealed."""

    lane: int
    business_on: date
    leaves: int
    root: bytes
    previous_hash: bytes
    hash: bytes
    #: compact JWS over the figures, and the public key that verifies it; None where no key was at hand
    signature: str | None
    signing_jwk: dict[str, str] | None
    sealed_at: datetime


class LotMove(Struct, frozen=True, kw_only=True):
    """What an operation did to one lot."""

    seq: int
    lot_id: UUID
    kind: MoveKind
    points: int
    funder_id: int
    funder: str
    unit_cost_e6: int
    campaign: str | None
    #: the operation that granted the lot
    granted_by: UUID
    expires_at: datetime | None


class PostedReversal(Struct, frozen=True, kw_only=True):
    """A refund that undid part of an operation."""

    id: UUID
    refund_ref: str
    amount_fen: int
    points: int
    recorded_at: datetime


class MovedPoints(Struct, frozen=True, kw_only=True):
    """What an operation's entries mean on a statement, summed."""

    #: None for a pair of accounts that no statement knows
    movement: Movement | None
    points: int


class Explanation(Struct, frozen=True, kw_only=True):
    """Everything the books know about one operation; a hold's ending is part of it."""

    operation: Operation
    #: set when the operation is a hold or a spend
    hold: Hold | None
    movements: Sequence[MovedPoints]
    #: in the order in which the lots were touched
    lots: Sequence[LotMove]
    #: what refunds have undone of it, oldest first
    reversals: Sequence[PostedReversal]
