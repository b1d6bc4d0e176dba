"""Funders' nouns: who pays for points, on which terms, out of which blocks."""

from collections.abc import Sequence
from datetime import date, datetime
from typing import Literal
from uuid import UUID

from msgspec import Struct

from points.ledger.model import EarnPosting

FunderKind = Literal["bank", "partner", "merchant", "fiscal"]
#: `bank`: the funder pays nothing here; `prepaid`: out of blocks; `postpaid`: billed as issued
Billing = Literal["bank", "prepaid", "postpaid"]
Billed = Literal["daily", "monthly"]


class Terms(Struct, frozen=True, kw_only=True):
    """What is agreed with a funder from a day on."""

    effective_on: date
    billing: Billing
    #: a point's price, in millionths of a fen
    price_fen_e6: int = 0
    #: the part of the price the funder pays; the bank bears the rest
    billing_ppm: int = 1_000_000
    #: the part of the cost of points that end unused which the funder gets back
    breakage_ppm: int = 0
    #: which batch bills: the day's, or that of the month's last day
    billed: Billed = "daily"


class Funder(Struct, frozen=True, kw_only=True):
    """Somebody who pays for points."""

    id: int
    #: `kind:name`; `bank` is the bank itself
    code: str
    kind: FunderKind
    #: whose settlement shows what the funder owes; None outside settlement
    partner_id: UUID | None
    #: in force or to come, oldest first
    terms: Sequence[Terms] = ()


class Block(Struct, frozen=True, kw_only=True):
    """Points bought in advance."""

    id: UUID
    funder_id: int
    purchase_ref: str
    #: the first day on which it pays; of several the earliest pays first
    starts_on: date
    points: int
    paid_fen: int
    used_points: int
    closed_at: datetime | None = None

    @property
    def left_points(self) -> int:
        return 0 if self.closed_at is not None else self.points - self.used_points


class FundingSource(Struct, frozen=True, kw_only=True):
    """Where a funder's points come from today."""

    funder_id: int
    #: None: nothing is agreed, points are issued at the cost their grant says
    billing: Billing | None
    #: what a point costs the funder, in millionths of a fen
    unit_cost_e6: int
    #: the blocks that may pay, in their order, each with what a point of it cost
    blocks: Sequence[tuple[UUID, int]] = ()


class FundingWant(Struct, frozen=True, kw_only=True):
    """Points that a funder is to pay for, for a member of a bucket."""

    bucket: int
    funder_id: int
    points: int


class Share(Struct, frozen=True, kw_only=True):
    """What one block pays."""

    block_id: UUID
    points: int


class Draw(Struct, frozen=True, kw_only=True):
    """How a want is paid."""

    bucket: int
    funder_id: int
    #: what a point costs the funder; None: as the grant says
    unit_cost_e6: int | None
    #: empty for who does not pay in advance
    shares: Sequence[Share] = ()


class Funded(Struct, frozen=True, kw_only=True):
    """A posting whose points are paid for, at what they cost."""

    posting: EarnPosting
    draws: Sequence[Draw] = ()


class Drawn(Struct, frozen=True, kw_only=True):
    """What an operation drew on a block and has not got back."""

    operation_id: UUID
    funder_id: int
    block_id: UUID
    points: int
