"""The ledger as other domains call it: earn, hold, spend, give, reverse, adjust, read, prove, fund; and the sweeps."""

from points.ledger.adjustments import (
    approve_adjustment,
    expire_adjustments,
    find_adjustment,
    list_adjustments,
    propose_adjustment,
    reject_adjustment,
)
from points.ledger.balances import (
    activate_due,
    expire_due,
    list_entries,
    list_expiring,
    list_own_entries,
    read_balance,
)
from points.ledger.dry_runs import preview_earning, preview_spend
from points.ledger.earnings import find_earning, find_source, post_earnings
from points.ledger.exchanges import exchange_points, list_rates, set_rate
from points.ledger.explanations import explain_operation, search_operations
from points.ledger.funders import (
    buy_block,
    change_terms,
    find_funder,
    list_blocks,
    list_funders,
    register_funder,
)
from points.ledger.funding import draw_funding, give_back_draws, post_funded_earnings, record_draws
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
from points.ledger.point_types import (
    find_point_type,
    find_point_types,
    list_point_types,
    read_point_type,
    register_point_type,
)
from points.ledger.refunds import preview_refund, refund
from points.ledger.reversals import reverse, reverse_each
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
from points.ledger.spends import spend_points
from points.ledger.statements import (
    STATEMENTS,
    check_over,
    find_statement,
    issuing,
    list_open_months,
    list_statements,
)
from points.ledger.transfers import end_transfers, find_transfer, send_points

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
    "approve_adjustment",
    "balance_at",
    "balance_on",
    "buy_block",
    "capture_hold",
    "change_terms",
    "check_over",
    "close_holds",
    "draw_funding",
    "end_of_day",
    "end_transfers",
    "exchange_points",
    "expire_adjustments",
    "expire_due",
    "explain_operation",
    "find_adjustment",
    "find_earning",
    "find_first_day",
    "find_funder",
    "find_hold",
    "find_point_type",
    "find_point_types",
    "find_source",
    "find_statement",
    "find_transfer",
    "give_back_draws",
    "house_balances_on",
    "issuing",
    "lapse_due",
    "list_adjustments",
    "list_blocks",
    "list_entries",
    "list_expiring",
    "list_expiring_at",
    "list_funders",
    "list_open_days",
    "list_open_months",
    "list_own_entries",
    "list_point_types",
    "list_rates",
    "list_statements",
    "place_hold",
    "place_holds",
    "post_earnings",
    "post_funded_earnings",
    "preview_earning",
    "preview_refund",
    "preview_spend",
    "propose_adjustment",
    "read_balance",
    "read_point_type",
    "record_draws",
    "refund",
    "register_funder",
    "register_point_type",
    "reject_adjustment",
    "release_hold",
    "reverse",
    "reverse_each",
    "seal_day",
    "sealing",
    "search_operations",
    "send_points",
    "set_rate",
    "spend_points",
    "value_fen",
]
