"""A limit is drawn from exactly, whoever draws at the same time."""

import asyncio
from uuid import uuid4

from kernel.allowances import draw, give_back
from kernel.database import Connection, Pool, transaction


async def test_a_limit_is_drawn_up_to_the_last_point(connection: Connection) -> None:
    name = f"test:{uuid4()}"
    assert not await draw(connection, name, amount=11, limit=10)
    assert await draw(connection, name, amount=7, limit=10)
    assert not await draw(connection, name, amount=4, limit=10)
    assert await draw(connection, name, amount=3, limit=10)
    assert not await draw(connection, name, amount=1, limit=10)
    await give_back(connection, name, amount=3)
    assert await draw(connection, name, amount=2, limit=10)
    # a limit that was lowered meanwhile lets nothing more out
    assert not await draw(connection, name, amount=1, limit=5)


async def test_a_crowd_draws_no_more_than_there_is(pool: Pool) -> None:
    name = f"test:{uuid4()}"
    gate = asyncio.Semaphore(6)

    async def one() -> bool:
        async with gate, transaction(pool) as connection:
            return await draw(connection, name, amount=3, limit=100)

    drawn = await asyncio.gather(*(one() for _ in range(60)))
    assert sum(drawn) == 33
