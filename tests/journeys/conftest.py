"""One `tessera serve` for all journeys, as an operator would start it, and partners who know nothing but their file."""

import uuid
from collections.abc import AsyncGenerator, Callable, Generator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from served import Platform, serve

from gateway.client import PartnerClient
from kernel.calendar import rfc3339


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


async def _connect(platform: Platform, slug: str) -> AsyncGenerator[PartnerClient, None]:
    async with PartnerClient(platform.partner(slug), deadline_seconds=20.0) as client:
        yield client


@pytest.fixture
async def ecommerce(platform: Platform) -> AsyncGenerator[PartnerClient, None]:
    """The mall."""
    async for client in _connect(platform, "ecommerce"):
        yield client


@pytest.fixture
async def hospital(platform: Platform) -> AsyncGenerator[PartnerClient, None]:
    """The hospital."""
    async for client in _connect(platform, "hospital"):
        yield client


@pytest.fixture
async def education(platform: Platform) -> AsyncGenerator[PartnerClient, None]:
    """The academy."""
    async for client in _connect(platform, "education"):
        yield client


@pytest.fixture
async def tax(platform: Platform) -> AsyncGenerator[PartnerClient, None]:
    """The tax service."""
    async for client in _connect(platform, "tax"):
        yield client


@pytest.fixture
def ref() -> Callable[[], str]:
    """Order numbers nobody used before."""
    return lambda: f"t-{uuid.uuid4().hex[:16]}"


@pytest.fixture
def earning(ref: Callable[[], str]) -> Callable[..., dict[str, Any]]:
    """The body of an earning, good unless a test changes something."""

    def make(member: str, **changes: Any) -> dict[str, Any]:
        body = {
            "member": member,
            "source_ref": ref(),
            "kind": "purchase",
            "occurred_at": rfc3339(datetime.now(UTC)),
            "amount_fen": 129_900,
        }
        return body | changes

    return make
