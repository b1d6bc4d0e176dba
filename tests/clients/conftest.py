"""A `tessera serve` of its own, for clients that nobody here wrote."""

from collections.abc import AsyncGenerator, Generator

import httpx
import pytest
from clients.member import Member
from clients.third_party import Configure, ThirdParty
from served import Platform, serve

pytest.register_assert_rewrite("clients.flows", "clients.member_flows", "clients.phone_flows")


@pytest.fixture(scope="session")
def platform() -> Generator[Platform, None, None]:
    """A platform on a fresh data directory."""
    with serve() as running:
        yield running


@pytest.fixture
async def http(platform: Platform) -> AsyncGenerator[httpx.AsyncClient, None]:
    """Somebody without any credentials."""
    async with httpx.AsyncClient(base_url=platform.base_url, timeout=30.0) as client:
        yield client


@pytest.fixture(scope="module")
async def client(configure: Configure, platform: Platform) -> AsyncGenerator[ThirdParty, None]:
    """The mall's client."""
    async with configure(platform.partner("ecommerce")) as configured:
        yield configured


@pytest.fixture
async def thief(configure: Configure, platform: Platform) -> AsyncGenerator[ThirdParty, None]:
    """A second client of the mall, with another key for its proofs."""
    async with configure(platform.partner("ecommerce")) as configured:
        yield configured


@pytest.fixture(scope="module")
async def member(platform: Platform) -> AsyncGenerator[Member, None]:
    """Whoever is asked."""
    async with Member.at(platform) as somebody:
        yield somebody
