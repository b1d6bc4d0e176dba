"""A bank of its own for each file, and who asks it."""

from collections.abc import AsyncGenerator

import pytest
from conformance.bank import ISSUER, Bank, RelyingParty, open_bank
from conformance.code_flow import CALLBACK, CALLBACK_WITH_QUERY
from own_database import database_name, database_url, owner_url, pool

from kernel import logs
from kernel.settings import Secret, Settings
from kernel.vault import generate_ring

__all__ = ["database_name", "database_url", "owner_url", "pool"]

logs.configure("error")


@pytest.fixture(autouse=True)
def module() -> str:
    """The module of the suite that the test carries out; `@module` names it."""
    return ""


@pytest.fixture(scope="module")
async def bank(database_url: str, redis_url: str) -> AsyncGenerator[Bank, None]:
    """The server under test."""
    settings = Settings(
        base_url=ISSUER,
        database_url=Secret(database_url),
        redis_url=Secret(redis_url),
        master_keys=Secret(generate_ring()),
    )
    async with open_bank(settings) as opened:
        yield opened


@pytest.fixture(scope="module")
async def first(bank: Bank) -> RelyingParty:
    """The client of the suite's configuration."""
    return await bank.register(redirect_uri=CALLBACK)


@pytest.fixture(scope="module")
async def second(bank: Bank) -> RelyingParty:
    """Its second client, of another partner; its redirect URI has a query."""
    return await bank.register(redirect_uri=CALLBACK_WITH_QUERY)
