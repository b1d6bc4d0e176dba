"""What the tests of all partner domains share: a database for each file, and a rule book that is read anew."""

import pytest
from own_database import database_name, database_url, owner_url, pool

from points.earning.book import SHELF

__all__ = ["database_name", "database_url", "owner_url", "pool"]


@pytest.fixture(autouse=True)
def fresh_shelf() -> None:
    """No test earns by the rules that another one's transaction took back."""
    SHELF.forget()
