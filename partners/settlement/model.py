"""Settlement: what bank and partner owe each other, batch by batch, line by line."""

from datetime import date, datetime
from typing import Literal
from uuid import UUID

from msgspec import Struct

BatchState = Literal["open", "closing", "closed", "reconciled", "paid"]
#: `none` is a line for information: nobody owes anybody
Direction = Literal["partner_owes_bank", "bank_owes_partner", "none"]
Source = Literal["ledger", "credit"]


class Total(Struct, frozen=True, kw_only=True):
    """The sum of one kind of lines of a batch."""

    #: `points_issued`, `capture`, …
    kind: str
    direction: Direction
    lines: int
    points: int
    amount_fen: int


class Batch(Struct, frozen=True, kw_only=True):
    """One closed account between bank and partner."""

    id: UUID
    partner_id: UUID
    #: everything recorded up to the end of this day in Shanghai, and not settled before
    business_on: date
    #: 1 for the first batch of the day; later ones hold what came in after
    sequence: int
    state: BatchState
    lines: int
    partner_owes_fen: int
    bank_owes_fen: int
    #: what the bank pays; below zero the partner pays
    net_fen: int
    closed_at: datetime | None


class Line(Struct, frozen=True, kw_only=True):
    """One entry of the books, settled."""

    no: int
    source: Source
    #: names the entry in its source, once for ever
    entry_ref: str
    operation_id: UUID
    kind: str
    funder: str
    direction: Direction
    points: int
    amount_fen: int
    business_on: date
    recorded_at: datetime
