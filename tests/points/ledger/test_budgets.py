"""Budgets: never one over, never refused while there is enough, nobody waits in a circle."""

import asyncio
import random
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from kernel.database import Connection, Pool, transaction
from points.ledger import budgets
from points.ledger.budgets import Want


async def opened(connection: Connection, total: int, now: datetime) -> UUID:
    return await budgets.open_budget(
        connection, kind="campaign", unit="points", owner="test", total=total, now=now
    )


def want(bucket: int, budget_id: UUID, amount: int) -> Want:
    return Want(bucket=bucket, budget_id=budget_id, amount=amount)


async def contradictions(connection: Connection) -> list[Any]:
    return await connection.fetch("SELECT * FROM books_i50_budget_is_its_slots")


@pytest.mark.parametrize(
    ("total", "asked", "partial", "granted"),
    [
        (100, [(1, 60), (2, 60), (3, 40)], False, [60, 0, 40]),
        (100, [(1, 60), (2, 60), (3, 40)], True, [60, 40, 0]),
        (100, [(1, 100), (1, 1)], False, [100, 0]),
        (100, [(1, 101)], False, [0]),
        (100, [(1, 101)], True, [100]),
        (0, [(1, 1)], False, [0]),
        (10_000_000, [(1, 5_000_000), (2, 5_000_000), (3, 1)], False, [5_000_000, 5_000_000, 0]),
        (3, [(1, 1), (1, 1), (2, 1), (1, 1)], False, [1, 1, 1, 0]),
    ],
)
async def test_wants_are_granted_in_their_order_until_nothing_is_left(
    connection: Connection,
    now: datetime,
    total: int,
    asked: list[tuple[int, int]],
    partial: bool,
    granted: list[int],
) -> None:
    budget_id = await opened(connection, total, now)
    wants = [want(bucket, budget_id, amount) for bucket, amount in asked]
    assert await budgets.draw(connection, wants, partial=partial, now=now) == granted
    state = await budgets.read_budget(connection, budget_id)
    assert (state.used, state.left) == (sum(granted), total - sum(granted))
    assert await contradictions(connection) == []


async def test_leases_of_other_buckets_come_back_for_the_last_draw(
    connection: Connection, now: datetime
) -> None:
    """Ten buckets lease in advance and use one each: one bucket can still use all the rest."""
    budget_id = await opened(connection, 1_000_000, now)
    await budgets.draw(connection, [want(bucket, budget_id, 1) for bucket in range(10)], now=now)
    assert (await budgets.read_budget(connection, budget_id)).leased > 10
    assert await budgets.draw(connection, [want(77, budget_id, 999_990)], now=now) == [999_990]
    assert await budgets.draw(connection, [want(3, budget_id, 1)], now=now) == [0]
    assert await contradictions(connection) == []


async def test_while_there_is_plenty_the_budgets_own_row_is_not_touched(
    connection: Connection, pool: Pool, now: datetime
) -> None:
    async with transaction(pool) as first:
        budget_id = await opened(first, 1_000_000_000, now)
        await budgets.draw(first, [want(1, budget_id, 1), want(2, budget_id, 1)], now=now)
    async with transaction(pool) as other:
        await other.execute("SELECT FROM ledger_budget WHERE id = $1 FOR UPDATE", budget_id)
        assert await budgets.draw(connection, [want(1, budget_id, 100)], now=now) == [100]


async def test_an_exhausted_budget_refuses_without_waiting(
    connection: Connection, pool: Pool, now: datetime
) -> None:
    async with transaction(pool) as first:
        budget_id = await opened(first, 10, now)
        await budgets.draw(first, [want(1, budget_id, 9), want(2, budget_id, 2)], now=now)
    async with transaction(pool) as other:
        await other.execute("SELECT FROM ledger_budget WHERE id = $1 FOR UPDATE", budget_id)
        assert await budgets.draw(connection, [want(1, budget_id, 2)], now=now) == [0]


async def test_what_is_given_back_can_be_drawn_by_any_bucket(connection: Connection, now: datetime) -> None:
    budget_id = await opened(connection, 100, now)
    await budgets.draw(connection, [want(1, budget_id, 100), want(2, budget_id, 1)], now=now)
    await budgets.give_back(connection, [want(1, budget_id, 30), want(1, budget_id, 10)], now=now)
    assert (await budgets.read_budget(connection, budget_id)).left == 40
    assert await budgets.draw(connection, [want(5, budget_id, 40)], now=now) == [40]
    assert await contradictions(connection) == []


async def test_more_is_never_given_back_than_was_drawn(connection: Connection, now: datetime) -> None:
    budget_id = await opened(connection, 100, now)
    await budgets.draw(connection, [want(1, budget_id, 10)], now=now)
    with pytest.raises(asyncpg.CheckViolationError):
        await budgets.give_back(connection, [want(1, budget_id, 11)], now=now)


async def test_an_aborted_draw_leaves_nothing(pool: Pool, now: datetime) -> None:
    async with transaction(pool) as connection:
        budget_id = await opened(connection, 10, now)
    with pytest.raises(asyncpg.PostgresError):
        async with transaction(pool) as connection:
            assert await budgets.draw(connection, [want(1, budget_id, 10)], now=now) == [10]
            await connection.execute("SELECT 1 / 0")
    async with transaction(pool) as connection:
        assert await budgets.draw(connection, [want(2, budget_id, 10)], now=now) == [10]


async def test_a_session_killed_in_its_draw_leaves_nothing(
    pool: Pool, owner_connection: Connection, now: datetime
) -> None:
    async with transaction(pool) as connection:
        budget_id = await opened(connection, 10, now)
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError)):
        async with transaction(pool) as connection:
            await budgets.draw(connection, [want(1, budget_id, 10)], now=now)
            connection.terminate()
            await connection.execute("SELECT 1")
    async with transaction(pool) as connection:
        assert await budgets.draw(connection, [want(2, budget_id, 10)], now=now) == [10]


async def test_a_raised_budget_grants_again_and_a_closed_one_never(
    connection: Connection, now: datetime
) -> None:
    budget_id = await opened(connection, 10, now)
    assert await budgets.draw(connection, [want(1, budget_id, 10), want(2, budget_id, 1)], now=now) == [10, 0]
    await budgets.raise_total(connection, budget_id, by=100_000, now=now)
    assert await budgets.draw(connection, [want(2, budget_id, 5)], now=now) == [5]
    closed = await budgets.close_budget(connection, budget_id, now=now)
    assert (closed.used, closed.leased, closed.left) == (15, 15, 0)
    assert await budgets.draw(connection, [want(2, budget_id, 1)], partial=True, now=now) == [0]
    with pytest.raises(budgets.BudgetClosed):
        await budgets.raise_total(connection, budget_id, by=1, now=now)
    await budgets.give_back(connection, [want(2, budget_id, 5)], now=now)
    assert (await budgets.read_budget(connection, budget_id)).used == 10
    assert await contradictions(connection) == []


async def test_a_want_is_paid_by_budgets_in_turn_or_not_at_all(connection: Connection, now: datetime) -> None:
    first, second = await opened(connection, 10, now), await opened(connection, 20, now)

    async def both(amount: int) -> list[int]:
        turns = [want(1, first, amount), want(1, second, amount)]
        return (await budgets.draw_in_turn(connection, [turns], now=now))[0]

    assert await both(6) == [6, 0]
    assert await both(6) == [4, 2]
    assert await both(19) == [0, 0]
    assert await both(18) == [0, 18]
    assert await both(1) == [0, 0]
    assert await contradictions(connection) == []


async def test_a_thousand_draws_at_once_end_at_exactly_the_budget(pool: Pool, now: datetime) -> None:
    async with transaction(pool) as connection:
        budget_id = await opened(connection, 100, now)

    async def one(number: int) -> int:
        async with transaction(pool) as connection:
            return (await budgets.draw(connection, [want(number % 1024, budget_id, 1)], now=now))[0]

    granted = await in_turns(pool, [one] * 1_000)
    assert sum(granted) == 100
    async with transaction(pool) as connection:
        state = await budgets.read_budget(connection, budget_id)
        assert (state.used, state.left) == (100, 0)
        assert await contradictions(connection) == []


async def in_turns(pool: Pool, deeds: Sequence[Any]) -> list[int]:
    """As many at once as there are connections."""
    numbers = iter(range(len(deeds)))
    results: list[int] = []

    async def work() -> None:
        for number in numbers:
            results.append(await deeds[number](number))

    await asyncio.gather(*(work() for _ in range(pool.get_max_size())))
    return results


@pytest.mark.parametrize("total", [300, 60_000, 20_000_000])
async def test_batches_over_the_same_budgets_never_wait_in_a_circle(
    pool: Pool, now: datetime, total: int
) -> None:
    """In either order, drawing and giving back, while the budgets run dry; every point is granted in the end."""
    async with transaction(pool) as connection:
        ids = [await opened(connection, total, now) for _ in range(3)]
    chance = random.Random(7)  # the same walk every time
    kept: list[Want] = []

    def batch() -> list[Want]:
        wants = [
            want(chance.randrange(8), chance.choice(ids), chance.randint(1, total // 60)) for _ in range(12)
        ]
        return wants if chance.random() < 0.5 else wants[::-1]

    async def one(_: int) -> int:
        wants = batch()
        async with transaction(pool) as connection:
            granted = await budgets.draw(connection, wants, partial=chance.random() < 0.5, now=now)
            drawn = [
                want(w.bucket, w.budget_id, amount)
                for w, amount in zip(wants, granted, strict=True)
                if amount
            ]
            returned = drawn[: len(drawn) // 3]
            await budgets.give_back(connection, returned, now=now)
        kept.extend(drawn[len(returned) :])
        return sum(w.amount for w in drawn[len(returned) :])

    granted = sum(await in_turns(pool, [one] * 300))
    async with transaction(pool) as connection:
        states = [await budgets.read_budget(connection, budget_id) for budget_id in ids]
        assert sum(state.used for state in states) == granted
        for state in states:
            of_it = [w for w in kept if w.budget_id == state.id]
            assert sum(w.amount for w in of_it) == state.used
            assert state.used <= total
            rest = want(500, state.id, max(1, state.left))
            assert await budgets.draw(connection, [rest], partial=True, now=now) == [state.left]
        assert await contradictions(connection) == []
