"""An earning computed again gives what it gave, by the rule and the tier of its own day."""

from datetime import date, datetime
from uuid import uuid4

import pytest

from kernel.database import Connection
from points.earning.book_queries import list_rules
from points.earning.replay import replay
from points.earning.rules import RULE
from points.ledger.funder_codes import list_funder_codes
from points.ledger.model import Operation


async def test_the_migrated_schema_begins_with_the_first_version(connection: Connection) -> None:
    rules = await list_rules(connection, await list_funder_codes(connection))
    assert rules == [RULE]


@pytest.mark.parametrize(
    ("amount_fen", "multiplier_pct", "points"),
    [
        (0, 100, 0),
        (99, 100, 0),
        (100, 100, 1),
        (129_900, 100, 1_299),
        (99, 160, 1),
        (333, 125, 4),
        (12_345, 135, 166),
    ],
)
def test_one_floor_at_the_end(now: datetime, amount_fen: int, multiplier_pct: int, points: int) -> None:
    operation = Operation(
        bucket=0,
        member_id=1,
        id=uuid4(),
        kind="earn",
        partner_id=uuid4(),
        amount_fen=amount_fen,
        points=points,
        rule_version=1,
        tier="gold",
        multiplier_pct=multiplier_pct,
        occurred_at=now,
        recorded_at=now,
        business_on=date(2026, 11, 20),
    )
    replayed = replay(operation, RULE, {})
    assert (replayed.base_points, replayed.tier, replayed.rule.version) == (points, "gold", 1)
