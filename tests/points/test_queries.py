"""Every statement of points prepares on the migrated schema."""

from types import ModuleType

import pytest

import points.earning.book_queries
import points.earning.campaign_queries
import points.earning.cap_queries
import points.ledger.adjustment_queries
import points.ledger.budget_queries
import points.ledger.exchange_queries
import points.ledger.explanation_queries
import points.ledger.funder_codes
import points.ledger.funder_queries
import points.ledger.history_queries
import points.ledger.hold_queries
import points.ledger.point_type_queries
import points.ledger.proof_queries
import points.ledger.queries
import points.ledger.transfer_queries
import points.membership.queries
import points.rewards.catalogue_queries
import points.rewards.queries
from kernel.database import Connection

MODULES = (
    points.earning.book_queries,
    points.earning.cap_queries,
    points.earning.campaign_queries,
    points.ledger.funder_codes,
    points.ledger.queries,
    points.ledger.budget_queries,
    points.ledger.adjustment_queries,
    points.ledger.budget_queries,
    points.ledger.exchange_queries,
    points.ledger.funder_queries,
    points.ledger.point_type_queries,
    points.ledger.transfer_queries,
    points.ledger.hold_queries,
    points.ledger.history_queries,
    points.ledger.proof_queries,
    points.ledger.explanation_queries,
    points.membership.queries,
    points.rewards.queries,
    points.rewards.catalogue_queries,
)
STATEMENTS = [
    pytest.param(text, id=f"{module.__name__}.{name}")
    for module in MODULES
    for name, text in vars(module).items()
    if name.isupper() and isinstance(text, str)
]


@pytest.mark.parametrize("statement", STATEMENTS)
async def test_the_statement_prepares(connection: Connection, statement: str) -> None:
    assert await connection.prepare(statement)


@pytest.mark.parametrize("module", MODULES)
def test_there_are_statements_to_prepare(module: ModuleType) -> None:
    assert any(name.isupper() for name in vars(module))
