"""Rewards as others call it: look after the catalogue, offer, redeem, fulfil, fail, cancel, show, offset."""

from points.rewards.catalogue import (
    add_pieces,
    define_reward,
    find_reward,
    list_offered,
    list_rewards,
    load_codes,
    move_reward,
    set_price,
)
from points.rewards.offsets import claim_offsets, confirm_offset, record_outcome, refuse_offset
from points.rewards.redemptions import (
    cancel,
    fail,
    fail_overdue,
    find_redemption,
    fulfil,
    redeem,
    show_code,
)

__all__ = [
    "add_pieces",
    "cancel",
    "claim_offsets",
    "confirm_offset",
    "define_reward",
    "fail",
    "fail_overdue",
    "find_redemption",
    "find_reward",
    "fulfil",
    "list_offered",
    "list_rewards",
    "load_codes",
    "move_reward",
    "record_outcome",
    "redeem",
    "refuse_offset",
    "set_price",
    "show_code",
]
