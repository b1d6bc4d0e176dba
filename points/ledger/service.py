"""The ledger as other domains call it: earn, hold, capture, release, reverse, read, prove; and the two sweeps."""

from points.ledger.balances import activate_due, expire_due, list_entries, list_expiring, read_balance
from points.ledger.earnings import find_earning, post_earnings
from points.ledger.explanations import explain_operation, search_operations
from points.ledger.history import balance_at, balance_on, end_of_day, house_balances_on, list_expiring_at
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
from points.ledger.seals import SealSigner, find_first_day, list_open_days, seal_day, sealing
from points.ledger.statements import (
    STATEMENTS,
    check_over,
    find_statement,
    issuing,
    list_open_months,
    list_statements,
)

__all__ = [
    "STATEMENTS",
    "CaptureExceedsHold",
    "HoldLapsed",
    "HoldNotOpen",
    "HoldUnknown",
    "InsufficientPoints",
    "OperationNotReversible",
    "OperationUnknown",
    "RefundAlreadyPosted",
    "RefundExceedsOrder",
    "SealSigner",
    "activate_due",
    "balance_at",
    "balance_on",
    "capture_hold",
    "check_over",
    "close_holds",
    "end_of_day",
    "expire_due",
    "explain_operation",
    "find_earning",
    "find_first_day",
    "find_hold",
    "find_statement",
    "house_balances_on",
    "issuing",
    "lapse_due",
    "list_entries",
    "list_expiring",
    "list_expiring_at",
    "list_open_days",
    "list_open_months",
    "list_statements",
    "place_hold",
    "place_holds",
    "post_earnings",
    "read_balance",
    "release_hold",
    "reverse",
    "seal_day",
    "sealing",
    "search_operations",
    "value_fen",
]
