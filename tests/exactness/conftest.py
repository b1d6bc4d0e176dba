"""One house for the tests of this folder that are coroutines."""

from collections.abc import AsyncGenerator

import pytest

from exactness.checkout import Checkout
from exactness.house import House, open_house
from kernel.supervisor import Endpoints


@pytest.fixture(scope="module")
async def house(
    servers: Endpoints, template: str, worker: int, redis_url: str
) -> AsyncGenerator[House, None]:
    """A gateway with a database of its own."""
    name = f"tessera_exact_{worker}"
    async with open_house(servers, template=template, name=name, redis_url=redis_url) as opened:
        yield opened


@pytest.fixture
async def at(house: House) -> Checkout:
    """A new partner with one customer who has earned two hundred points."""
    partner = await house.register()
    [customer] = await house.enrol(partner)
    checkout = Checkout(house, partner, customer)
    await checkout.earn(20_000)
    return checkout
