"""Every statement of webhooks is valid on the migrated schema."""

import pytest

from kernel import outbox
from kernel.database import Connection
from partners.webhooks import queries

STATEMENTS = {
    f"{module.__name__}.{name}": value
    for module in (queries, outbox)
    for name, value in vars(module).items()
    if name.isupper() and isinstance(value, str) and " " in value
}


@pytest.mark.parametrize("name", STATEMENTS)
async def test_it_can_be_prepared(connection: Connection, name: str) -> None:
    await connection.prepare(STATEMENTS[name])
