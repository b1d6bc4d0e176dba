"""The directory: young answers, one question at a time, nothing invented without the database."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import datetime
from uuid import uuid4

import pytest

from kernel.database import DatabaseBusy, Pool, open_pool, transaction
from partners.registry import service
from partners.registry.directory import AppDirectory
from partners.registry.model import App


class Timer:
    """A monotonic timer that a test winds."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
async def app(pool: Pool, now: datetime) -> App:
    async with transaction(pool) as connection:
        partner_id = await service.register_partner(
            connection,
            slug=f"clinic-{uuid4().hex[:12]}",
            name_zh="示例医院",
            name_en="Sample Hospital",
            kind="service_provider",
            scene="hospital",
            status="live",
            now=now,
        )
        return await service.register_app(connection, partner_id=partner_id, scopes=["points:earn"], now=now)


@pytest.fixture
async def own_pool(database_url: str) -> AsyncGenerator[Pool, None]:
    async with await open_pool(database_url, size=2) as opened:
        yield opened


async def suspend(pool: Pool, app: App, now: datetime) -> None:
    async with transaction(pool) as connection:
        await service.set_partner_status(
            connection, partner_id=app.partner_id, status="suspended", actor="admin:duty", now=now
        )


async def test_a_change_is_seen_within_the_lifetime(pool: Pool, app: App, now: datetime) -> None:
    timer = Timer()
    directory = AppDirectory(pool, life_seconds=1, monotonic=timer)
    seen = []
    for seconds in (0.0, 0.9, 1.0):
        timer.seconds = seconds
        client = await directory.find(app.client_id)
        assert client is not None
        seen.append(client.partner_status)
        if seconds == 0.0:
            await suspend(pool, app, now)
    assert seen == ["live", "live", "suspended"]


async def test_a_hint_shortens_the_wait(pool: Pool, app: App, now: datetime) -> None:
    directory = AppDirectory(pool, life_seconds=1, monotonic=Timer())
    await directory.find(app.client_id)
    await suspend(pool, app, now)
    directory.forget(app.client_id)
    client = await directory.find(app.client_id)
    assert client is not None
    assert client.partner_status == "suspended"


async def test_parallel_questions_are_asked_once(own_pool: Pool, app: App) -> None:
    directory = AppDirectory(own_pool, life_seconds=1, monotonic=Timer())
    clients = await asyncio.gather(*(directory.find(app.client_id) for _ in range(100)))
    assert clients[0] is not None
    # the very same object: one answer, shared
    assert all(client is clients[0] for client in clients)


async def test_one_who_hangs_up_does_not_take_the_answer_along(own_pool: Pool, app: App) -> None:
    directory = AppDirectory(own_pool, life_seconds=1, monotonic=Timer())
    first = asyncio.create_task(directory.find(app.client_id))
    second = asyncio.create_task(directory.find(app.client_id))
    await asyncio.sleep(0)  # both have asked, neither has the answer
    first.cancel()
    assert await second is not None


async def test_a_stranger_stays_one_for_a_lifetime(pool: Pool) -> None:
    directory = AppDirectory(pool, life_seconds=1, monotonic=Timer())
    assert await directory.find("app_nobody") is None
    assert await directory.find("app_nobody") is None


async def test_without_the_database_there_is_no_answer(own_pool: Pool, app: App) -> None:
    timer = Timer()
    directory = AppDirectory(own_pool, life_seconds=1, monotonic=timer)
    await directory.find(app.client_id)
    await own_pool.close()
    timer.seconds = 2
    with pytest.raises(DatabaseBusy):
        await directory.find(app.client_id)
