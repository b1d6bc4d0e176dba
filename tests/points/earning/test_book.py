"""The rule book: how old it may be, and what an earning costs that no campaign touches."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from kernel.database import Connection
from points.earning import campaigns
from points.earning.book import FRESH_SECONDS, SHELF, Shelf
from points.earning.service import earn, preview_earning
from points.ledger import budgets

Bank = Any
Marketing = Any


class Timer:
    """A monotonic timer that a test moves."""

    def __init__(self) -> None:
        self.seconds = 1_000.0

    def __call__(self) -> float:
        return self.seconds


@asynccontextmanager
async def statements_of(connection: Connection) -> AsyncGenerator[list[str], None]:
    """The statements sent while the block runs."""
    statements: list[str] = []
    with connection.query_logger(lambda record: statements.append(record.query)):
        yield statements
        await asyncio.sleep(0)  # the driver tells of a statement after it


async def test_the_book_is_looked_at_once_in_half_a_second(
    marketing: Marketing, connection: Connection
) -> None:
    timer = Timer()
    shelf = Shelf(timer)
    first = await shelf.current(connection, now=marketing.now)
    await marketing.run("some")
    timer.seconds += FRESH_SECONDS - 0.001
    async with statements_of(connection) as statements:
        assert await shelf.current(connection, now=marketing.now) is first
    assert statements == []
    timer.seconds += 0.001
    second = await shelf.current(connection, now=marketing.now)
    assert [campaign.code for campaign in second.campaigns] == ["some"]
    timer.seconds += FRESH_SECONDS
    async with statements_of(connection) as statements:
        assert await shelf.current(connection, now=marketing.now) is second
    assert len(statements) == 1, "nothing has changed: only the epoch was read"


async def test_a_book_read_from_what_was_rolled_back_is_read_again(
    marketing: Marketing, connection: Connection
) -> None:
    timer = Timer()
    shelf = Shelf(timer)
    undone = connection.transaction()
    await undone.start()
    await marketing.run("undone")
    assert len((await shelf.current(connection, now=marketing.now)).campaigns) == 1
    await undone.rollback()
    await marketing.run("done")
    timer.seconds += FRESH_SECONDS
    book = await shelf.current(connection, now=marketing.now)
    assert [campaign.code for campaign in book.campaigns] == ["done"]


async def test_a_sweep_that_finds_nothing_makes_nobody_read_again(
    marketing: Marketing, connection: Connection
) -> None:
    await campaigns.keep_states(connection, now=marketing.now)
    before = await connection.fetchval("SELECT epoch FROM earning_epoch")
    assert await campaigns.keep_states(connection, now=marketing.now) == 0
    assert await connection.fetchval("SELECT epoch FROM earning_epoch") == before


async def cost_of(marketing: Marketing, bank: Bank, refs: list[str]) -> int:
    """How many statements a batch takes once the book is read and the driver knows the types."""
    members = [await bank.enrol(marketing.connection) for _ in range(3)]
    items = [marketing.activity(members[place % 3], f"{ref}-{place}") for ref in refs for place in range(20)]
    await SHELF.current(marketing.connection, now=marketing.now)
    async with statements_of(marketing.connection) as statements:
        await earn(marketing.connection, items, partner_id=bank.partner_id, now=marketing.now)
    return len([text for text in statements if "earning_epoch" not in text])


async def test_a_batch_pays_for_what_is_scarce_only_if_it_wants_it(
    marketing: Marketing, connection: Connection, bank: Bank
) -> None:
    await cost_of(marketing, bank, ["warm"])
    plain = await cost_of(marketing, bank, ["a"])
    await marketing.run("elsewhere", kinds=["tuition"], budget={"total": 10_000}, member_cap_points=1_000)
    assert await cost_of(marketing, bank, ["b"]) == plain
    await marketing.run("open")
    looked = await cost_of(marketing, bank, ["c"])
    assert looked == plain + 1
    await marketing.run("scarce", budget={"total": 100_000}, member_cap_points=100_000)
    await cost_of(marketing, bank, ["warm-too"])
    scarce = await cost_of(marketing, bank, ["d"])
    assert scarce == plain + 3
    assert await cost_of(marketing, bank, ["e", "f", "g"]) == scarce


async def test_a_dry_run_says_what_a_campaign_would_give_and_draws_nothing(
    marketing: Marketing, connection: Connection, bank: Bank
) -> None:
    member = await bank.enrol(connection)
    await marketing.run("tight", budget={"total": 70, "on_exhaustion": "partial"}, member_cap_points=90)
    for _ in range(2):
        previewed = await preview_earning(
            connection, marketing.activity(member, "a"), partner_id=bank.partner_id, now=marketing.now
        )
        assert [(grant.campaign, grant.points) for grant in previewed.grants] == [
            (None, 100),
            ("tight", 70),
        ]
    campaign = await campaigns.find_campaign(connection, "tight")
    assert campaign.budget_id is not None
    assert (await budgets.read_budget(connection, campaign.budget_id)).used == 0
    assert await connection.fetchval("SELECT count(*) FROM earning_counter") == 0
    assert await marketing.contradictions() == {}


async def test_late_approvals_change_nothing_that_was_earned_before(
    marketing: Marketing, connection: Connection, bank: Bank
) -> None:
    member = await bank.enrol(connection)
    items = [marketing.activity(member, "a")]
    await earn(connection, items, partner_id=bank.partner_id, now=marketing.now)
    marketing.now += timedelta(hours=3)
    await marketing.rule(fen_per_point=50)
    late = [
        marketing.activity(member, "b", occurred_at=marketing.now - timedelta(hours=2)),
        marketing.activity(member, "c"),
    ]
    results = await earn(connection, late, partner_id=bank.partner_id, now=marketing.now)
    assert [result.points for result in results] == [100, 200]  # type: ignore[union-attr]  # none is refused
    assert await marketing.contradictions() == {}
