"""The ledger as other domains call it: earn, hold, capture, release, reverse, read; and the two sweeps."""

from points.ledger.balances import expire_due, list_entries, list_expiring, read_balance
from points.ledger.earnings import find_earning, post_earnings
from points.ledger.holds import (
    capture_hold,
    close_holds,
    find_hold,
    lapse_due,
    place_hold,
    place_holds,
    release_hold,
)
from points.ledger.reversals import reverse
from points.ledger.rules import (
    CaptureExceedsHold,
    HoldLapsed,
    HoldNotOpen,
    HoldUnknown,
    InsufficientPoints,
    OperationNotReversible,
    OperationUnknown,
    RefundAlreadyPosted,
    RefundExceedsOrder,
    value_fen,
)

__all__ = [
    "CaptureExceedsHold",
    "HoldLapsed",
    "HoldNotOpen",
    "HoldUnknown",
    "InsufficientPoints",
    "OperationNotReversible",
    "OperationUnknown",
    "RefundAlreadyPosted",
    "RefundExceedsOrder",
    "capture_hold",
    "close_holds",
    "expire_due",
    "find_earning",
    "find_hold",
    "lapse_due",
    "list_entries",
    "list_expiring",
    "place_hold",
    "place_holds",
    "post_earnings",
    "read_balance",
    "release_hold",
    "reverse",
    "value_fen",
]
