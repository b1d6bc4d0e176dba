"""A database for each file of tests: what one file commits does not stand in the books of another.

The folders whose tests ask the books of everybody take these fixtures in their conftest, in place of the worker's.
"""

from collections.abc import AsyncGenerator
from itertools import count
from urllib.parse import urlsplit

import asyncpg
import pytest

from kernel.database import Pool, open_pool
from kernel.supervisor import Endpoints

__all__ = ["database_name", "database_url", "owner_url", "pool"]

_numbers = count(1)


@pytest.fixture(scope="module")
async def database_name(servers: Endpoints, template: str, worker: int) -> AsyncGenerator[str, None]:
    """This file's own migrated database."""
    name = f"tessera_file_{worker}_{next(_numbers)}"
    connection = await asyncpg.connect(servers.superuser_url)
    await connection.execute(f"CREATE DATABASE {name} OWNER tessera_owner TEMPLATE {template}")
    await connection.execute(f"REVOKE ALL ON DATABASE {name} FROM PUBLIC")
    await connection.execute(f"GRANT CONNECT ON DATABASE {name} TO tessera_app")
    yield name
    await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await connection.close()


@pytest.fixture(scope="module")
def database_url(servers: Endpoints, database_name: str) -> str:
    """This file's database as the application role."""
    return urlsplit(servers.database_url)._replace(path=f"/{database_name}").geturl()


@pytest.fixture(scope="module")
def owner_url(servers: Endpoints, database_name: str) -> str:
    """This file's database as the role that owns the schema."""
    return urlsplit(servers.migration_url)._replace(path=f"/{database_name}").geturl()


@pytest.fixture(scope="module")
async def pool(database_url: str) -> AsyncGenerator[Pool, None]:
    """Connections as the application role; what is committed through them stays for the file."""
    async with await open_pool(database_url, application="tessera-tests") as opened:
        yield opened
