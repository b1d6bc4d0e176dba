"""Every SQL statement prepares against the migrated schema: a misspelt column is found here, not at night."""

import importlib
import pkgutil
import re
from types import ModuleType

import pytest

import gateway
import kernel
import partners
import points
from kernel.database import Connection

STATEMENT = re.compile(r"^\s*(SELECT|INSERT|UPDATE|DELETE|WITH)\b", re.IGNORECASE)


def _modules(package: ModuleType) -> list[ModuleType]:
    found = [package]
    for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not info.name.endswith("__main__"):
            found.append(importlib.import_module(info.name))
    return found


STATEMENTS = sorted(
    {
        (f"{module.__name__}.{name}", value)
        for package in (gateway, kernel, partners, points)
        for module in _modules(package)
        for name, value in vars(module).items()
        if name.isupper() and isinstance(value, str) and STATEMENT.match(value)
    }
)


@pytest.mark.parametrize("statement", [sql for _, sql in STATEMENTS], ids=[name for name, _ in STATEMENTS])
async def test_the_statement_prepares(connection: Connection, statement: str) -> None:
    await connection.prepare(statement)


def test_there_are_statements() -> None:
    assert len(STATEMENTS) > 50
