"""A campaign's budget at its peak: hundreds want the last points at the same moment, through many connections."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import msgspec
import pytest

from kernel.database import Pool, transaction
from kernel.errors import Refusal
from points.earning import campaigns
from points.earning.book import SHELF
from points.earning.definitions import CampaignDefinition
from points.earning.model import Activity, Earned
from points.earning.service import earn
from points.ledger import budgets
from points.membership.service import enrol_members

HOUR = timedelta(hours=1)
EARNINGS = 500
CONNECTIONS = 8


@pytest.fixture
def now() -> datetime:
    """A moment of its own: what is committed here must not be in the way of other tests' sweeps and rules."""
    return datetime(2030, 11, 15, 4, 0, tzinfo=UTC)


async def test_five_hundred_at_once_get_exactly_what_a_budget_of_a_hundred_has(
    pool: Pool, now: datetime
) -> None:
    partner_id, code = uuid4(), f"peak-{uuid4().hex[:8]}"
    fields: dict[str, Any] = {
        "code": code,
        "name_zh": "双11",
        "name_en": "Double 11",
        "starts_at": now - 2 * HOUR,
        "ends_at": now + HOUR,
        "partner_ids": [partner_id],
        "multiplier_pct": 300,
        "member_cap_points": 1_000,
        "budget": {"total": 100, "on_exhaustion": "partial"},
    }
    async with transaction(pool) as connection:
        members = await enrol_members(connection, count=EARNINGS, now=now)
        definition = msgspec.convert(fields, CampaignDefinition)
        await campaigns.propose_campaign(connection, definition, by="maker", now=now - HOUR)
        await campaigns.approve_campaign(connection, code, by="checker", now=now - HOUR)
    SHELF.forget()

    connections = asyncio.Semaphore(CONNECTIONS)

    async def buy(place: int) -> int:
        activity = Activity(
            member=members[place],
            source_ref="order",
            kind="purchase",
            occurred_at=now,
            amount_fen=100 * (1 + place % 3),
        )
        async with connections, transaction(pool) as connection:
            (result,) = await earn(connection, [activity], partner_id=partner_id, now=now)
        assert isinstance(result, Earned), result
        return sum(grant.points for grant in result.grants if grant.campaign == code)

    given = await asyncio.gather(*[buy(place) for place in range(EARNINGS)])

    assert sum(given) == 100
    async with transaction(pool) as connection:
        budget_id = (await campaigns.find_campaign(connection, code)).budget_id
        assert budget_id is not None
        state = await budgets.read_budget(connection, budget_id)
        assert (state.used, state.left) == (100, 0)
        for view in ("books_i58_campaign_lots", "books_i61_campaign_budgets", "books_i62_caps"):
            assert await connection.fetch(f"SELECT * FROM {view}") == []
        await campaigns.end_campaign(connection, code, by="anyone", now=now)


async def test_copies_of_one_event_draw_the_budget_once(pool: Pool, now: datetime) -> None:
    partner_id, code = uuid4(), f"copies-{uuid4().hex[:8]}"
    fields: dict[str, Any] = {
        "code": code,
        "name_zh": "双11",
        "name_en": "Double 11",
        "starts_at": now - 2 * HOUR,
        "ends_at": now + HOUR,
        "partner_ids": [partner_id],
        "fixed_points": 10,
        "budget": {"total": 1_000},
    }
    async with transaction(pool) as connection:
        (member,) = await enrol_members(connection, count=1, now=now)
        definition = msgspec.convert(fields, CampaignDefinition)
        await campaigns.propose_campaign(connection, definition, by="maker", now=now - HOUR)
        await campaigns.approve_campaign(connection, code, by="checker", now=now - HOUR)
    SHELF.forget()
    activity = Activity(member=member, source_ref="order", kind="purchase", occurred_at=now, amount_fen=100)

    connections = asyncio.Semaphore(CONNECTIONS)

    async def send() -> Earned | Refusal:
        async with connections, transaction(pool) as connection:
            (result,) = await earn(connection, [activity], partner_id=partner_id, now=now)
        return result

    results = await asyncio.gather(*[send() for _ in range(100)])

    assert sum(isinstance(result, Earned) for result in results) == 1
    async with transaction(pool) as connection:
        budget_id = (await campaigns.find_campaign(connection, code)).budget_id
        assert budget_id is not None
        assert (await budgets.read_budget(connection, budget_id)).used == 10
        await campaigns.end_campaign(connection, code, by="anyone", now=now)


async def test_who_earns_and_moves_the_same_points_otherwise_locks_budgets_before_wallets(
    pool: Pool, now: datetime
) -> None:
    """What happens `meanwhile` finds the budget in hand and the wallet free: nobody can wait in a circle."""
    partner_id, code = uuid4(), f"peak-{uuid4().hex[:8]}"
    fields: dict[str, Any] = {
        "code": code,
        "name_zh": "双11",
        "name_en": "Double 11",
        "starts_at": now - 2 * HOUR,
        "ends_at": now + HOUR,
        "partner_ids": [partner_id],
        "multiplier_pct": 200,
        "budget": {"total": 1_000},
    }
    async with transaction(pool) as connection:
        [member] = await enrol_members(connection, count=1, now=now)
        await campaigns.propose_campaign(
            connection, msgspec.convert(fields, CampaignDefinition), by="maker", now=now - HOUR
        )
        await campaigns.approve_campaign(connection, code, by="checker", now=now - HOUR)
        first = Activity(
            member=member, source_ref="a", kind="purchase", occurred_at=now - 3 * HOUR, amount_fen=10_000
        )
        await earn(connection, [first], partner_id=partner_id, now=now)
    SHELF.forget()
    seen: list[str] = []

    async def look() -> None:
        for table in ("ledger_wallet", "ledger_budget_slot"):
            wanted = member.member_id if table == "ledger_wallet" else member.bucket
            column = "member_id" if table == "ledger_wallet" else "bucket"
            try:
                async with transaction(pool) as other:
                    statement = f"SELECT FROM {table} WHERE {column} = $1 FOR UPDATE NOWAIT"
                    assert await other.fetch(statement, wanted)
                seen.append(f"{table} free")
            except asyncpg.LockNotAvailableError:
                seen.append(f"{table} locked")

    second = Activity(member=member, source_ref="b", kind="purchase", occurred_at=now, amount_fen=10_000)
    async with transaction(pool) as connection:
        # the slot is there before, so that the other connection can see it
        budget_id = (await campaigns.find_campaign(connection, code)).budget_id
        assert budget_id is not None
        await budgets.lock(connection, [(member.bucket, budget_id)], now=now)
    async with transaction(pool) as connection:
        [earned] = await earn(connection, [second], partner_id=partner_id, meanwhile=look, now=now)
        assert isinstance(earned, Earned) and earned.points == 200
    assert seen == ["ledger_wallet free", "ledger_budget_slot locked"]
    async with transaction(pool) as connection:
        await campaigns.end_campaign(connection, code, by="anyone", now=now)
