"""A database of its own for each file, and the gateway on it: in the test's loop, or behind a socket."""

from collections.abc import AsyncGenerator

import pytest
from attacks.house import RING, House, open_house
from conformance.bank import ISSUER, Bank, RelyingParty, open_bank
from own_database import database_name, database_url, owner_url, pool

from kernel import logs
from kernel.settings import Secret, Settings

__all__ = ["database_name", "database_url", "owner_url", "pool"]

logs.configure("error")


@pytest.fixture(scope="module")
async def house(database_url: str, redis_url: str) -> AsyncGenerator[House, None]:
    """The whole gateway without a socket."""
    async with open_house(database_url, redis_url) as opened:
        yield opened


@pytest.fixture(scope="module")
async def bank(database_url: str, redis_url: str) -> AsyncGenerator[Bank, None]:
    """The whole gateway behind a socket, with a clock that can be moved."""
    settings = Settings(
        base_url=ISSUER,
        database_url=Secret(database_url),
        redis_url=Secret(redis_url),
        master_keys=Secret(RING),
        token_requests_per_minute=1_000_000,
        token_failures_per_minute=1_000_000,
    )
    async with open_bank(settings) as opened:
        yield opened


@pytest.fixture(scope="module")
async def party(bank: Bank) -> RelyingParty:
    """A client of the bank that does everything right, except where a test says otherwise."""
    return await bank.register()


@pytest.fixture(scope="module")
async def stranger(bank: Bank) -> RelyingParty:
    """A client of another partner."""
    return await bank.register()
