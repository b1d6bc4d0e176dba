"""Replay: what an earning gave, computed again from what was stored with it."""

from msgspec import Struct

from points.earning.model import EarningRule
from points.earning.rules import RULE, base_points
from points.ledger.model import Operation

#: every version that an operation may name; the view books_earning_rule has the same figures
RULES: dict[int, EarningRule] = {RULE.version: RULE}


class Replayed(Struct, frozen=True, kw_only=True):
    """An earning computed again."""

    rule: EarningRule
    tier: str
    multiplier_pct: int
    #: amount × multiplier ÷ what one point takes, one floor at the end
    base_points: int


def replay(operation: Operation) -> Replayed:
    """By the version in force then and the tier the member had then, whatever both are today."""
    assert operation.kind == "earn" and operation.rule_version and operation.tier and operation.multiplier_pct
    rule = RULES[operation.rule_version]
    return Replayed(
        rule=rule,
        tier=operation.tier,
        multiplier_pct=operation.multiplier_pct,
        base_points=base_points(operation.amount_fen, operation.multiplier_pct, rule),
    )
