"""Many at once, on committed data: the last piece goes to one, and who gets none pays nothing."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

import asyncpg
import pytest

from kernel.caller import MemberRef
from kernel.database import Connection, DatabaseBusy, Pool, transaction
from kernel.errors import Refusal
from points.rewards import service
from points.rewards.model import Cancellation, Limit, Redemption

Shelf = Any
T = TypeVar("T")
WEEK = Cancellation(policy="within_days", days=7)


class Killed(Exception):
    """The process ended here."""


async def outcomes(pool: Pool, deeds: Sequence[Callable[[Connection], Awaitable[T]]]) -> list[T | Refusal]:
    """Every deed in its own transaction, as many at once as there are connections; who finds it busy asks again."""

    async def attempt(deed: Callable[[Connection], Awaitable[T]]) -> T | Refusal:
        while True:
            try:
                async with transaction(pool) as connection:
                    return await deed(connection)
            except (DatabaseBusy, asyncpg.LockNotAvailableError):
                continue
            except Refusal as refusal:
                return refusal

    return await asyncio.gather(*(attempt(deed) for deed in deeds))


def tally(results: Sequence[object]) -> dict[str, int]:
    """How many got what: `done`, or the code of the refusal."""
    words = [result.code if isinstance(result, Refusal) else "done" for result in results]
    return {word: words.count(word) for word in sorted(set(words))}


def redeeming(
    shelf: Shelf, reward_id: UUID, crowd: Sequence[MemberRef]
) -> list[Callable[[Connection], Awaitable[Redemption]]]:
    """One wish of each."""

    def wanting(member: MemberRef) -> Callable[[Connection], Awaitable[Redemption]]:
        return lambda connection: shelf.redeem(connection, member, reward_id)

    return [wanting(member) for member in crowd]


async def members(shelf: Shelf, pool: Pool, count: int, points: int = 100) -> list[MemberRef]:
    async with transaction(pool) as connection:
        return [await shelf.member(connection, points) for _ in range(count)]


async def put(shelf: Shelf, pool: Pool, kind: str, **more: Any) -> UUID:
    async with transaction(pool) as connection:
        reward_id: UUID = await shelf.put(connection, kind, **more)
        return reward_id


async def paid(shelf: Shelf, pool: Pool, who: Sequence[MemberRef]) -> int:
    """How many of them have spent or set aside their hundred points."""
    async with transaction(pool) as connection:
        balances = [await shelf.balance(connection, member) for member in who]
        assert set(balances) <= {(100, 0), (0, 100), (0, 0)}
        assert await shelf.contradictions(connection) == []
    return sum(available == 0 for available, _ in balances)


@pytest.mark.parametrize("kind", ["gift_card", "service"])
async def test_two_hundred_want_fifty_and_fifty_get_one_each(shelf: Shelf, pool: Pool, kind: str) -> None:
    stock = {"codes": 50} if kind == "gift_card" else {"pieces": 50}
    reward_id = await put(shelf, pool, kind, **stock)
    crowd = await members(shelf, pool, 200)
    results = await outcomes(pool, redeeming(shelf, reward_id, crowd))
    assert tally(results) == {"done": 50, "reward_out_of_stock": 150}
    assert await paid(shelf, pool, crowd) == 50
    async with transaction(pool) as connection:
        if kind == "service":
            assert await shelf.taken(connection, reward_id) == 50
            return
        codes = await connection.fetch(
            "SELECT redemption_id FROM rewards_code WHERE reward_id = $1", reward_id
        )
        redeemed = {result.id for result in results if not isinstance(result, Refusal)}
        assert {record[0] for record in codes} == redeemed and len(codes) == 50


@pytest.mark.parametrize("kind", ["gift_card", "service"])
async def test_who_cannot_pay_leaves_the_piece_to_who_can(shelf: Shelf, pool: Pool, kind: str) -> None:
    """The poor come first and hold every piece for a moment: nobody else may be told that nothing is left."""
    stock = {"codes": 5} if kind == "gift_card" else {"pieces": 5}
    reward_id = await put(shelf, pool, kind, **stock)
    poor, rich = await members(shelf, pool, 30, points=99), await members(shelf, pool, 5)
    results = await outcomes(pool, redeeming(shelf, reward_id, [*poor, *rich]))
    assert tally(results[:30]).keys() <= {"insufficient_points", "reward_out_of_stock"}
    assert tally(results[30:]) == {"done": 5}
    assert await paid(shelf, pool, rich) == 5


async def test_one_member_stays_within_its_limit(shelf: Shelf, pool: Pool) -> None:
    reward_id = await put(shelf, pool, "gift_card", codes=30, limit=Limit(count=3, period="day"))
    (member,) = await members(shelf, pool, 1, points=10_000)
    results = await outcomes(pool, [lambda c: shelf.redeem(c, member, reward_id)] * 20)
    assert tally(results) == {"done": 3, "reward_limit_reached": 17}
    async with transaction(pool) as connection:
        assert await shelf.balance(connection, member) == (9_700, 0)
        assert await shelf.contradictions(connection) == []


async def test_one_reference_redeems_once(shelf: Shelf, pool: Pool) -> None:
    reward_id = await put(shelf, pool, "gift_card", codes=30)
    (member,) = await members(shelf, pool, 1, points=10_000)
    results = await outcomes(pool, [lambda c: shelf.redeem(c, member, reward_id, ref="once")] * 20)
    assert tally(results) == {"done": 1, "redemption_ref_used": 19}
    async with transaction(pool) as connection:
        assert await shelf.balance(connection, member) == (9_900, 0)
        free = await connection.fetchval(
            "SELECT count(*) FROM rewards_code WHERE reward_id = $1 AND redemption_id IS NULL", reward_id
        )
        assert free == 29


async def test_fulfil_cancel_fail_and_the_sweep_race_and_one_wins(shelf: Shelf, pool: Pool) -> None:
    reward_id = await put(
        shelf, pool, "service", pieces=9, cancellation=Cancellation(policy="until_fulfilled")
    )
    crowd = await members(shelf, pool, 8)
    for member in crowd:
        async with transaction(pool) as connection:
            redemption_id = (await shelf.redeem(connection, member, reward_id)).id
        key = {"redemption_id": redemption_id, "now": shelf.now}
        deeds: list[Callable[[Connection], Awaitable[object]]] = [
            partial(service.fulfil, provider_id=shelf.provider_id, **key),
            partial(service.fail, provider_id=shelf.provider_id, reason="x", **key),
            partial(service.cancel, asking=member, **key),
        ]
        results = await outcomes(pool, deeds * 3)
        assert tally(results)["done"] == 1
    overdue = shelf.now + timedelta(hours=1)
    await outcomes(pool, [lambda c: service.fail_overdue(c, now=overdue)] * 4)
    async with transaction(pool) as connection:
        assert await shelf.contradictions(connection) == []
        for member in crowd:
            assert await shelf.bank.audit(connection, member) == []


async def test_redeeming_and_cancelling_in_circles_never_waits_for_itself(shelf: Shelf, pool: Pool) -> None:
    limit = Limit(count=100, period="day")
    reward_id = await put(shelf, pool, "service", pieces=3, cancellation=WEEK, limit=limit)
    crowd = await members(shelf, pool, 4, points=1_000)

    async def round_trip(member: MemberRef) -> None:
        for _ in range(5):
            try:
                async with transaction(pool) as connection:
                    redemption = await shelf.redeem(connection, member, reward_id)
            except Refusal as refusal:
                assert refusal.code == "reward_out_of_stock"
                continue
            async with transaction(pool) as connection:
                await service.cancel(connection, redemption_id=redemption.id, asking=member, now=shelf.now)

    await asyncio.gather(*(round_trip(member) for member in crowd * 2))
    async with transaction(pool) as connection:
        assert await shelf.taken(connection, reward_id) == 0
        assert [await shelf.balance(connection, member) for member in crowd] == [(1_000, 0)] * 4
        assert await shelf.contradictions(connection) == []


@pytest.mark.parametrize("kind", ["gift_card", "service", "fee_offset"])
async def test_killed_in_the_middle_nothing_happened(shelf: Shelf, pool: Pool, kind: str) -> None:
    more = {"gift_card": {"codes": 1}, "service": {"pieces": 1}, "fee_offset": {}}[kind]
    reward_id = await put(shelf, pool, kind, limit=Limit(count=1, period="ever"), **more)
    (member,) = await members(shelf, pool, 1)
    with pytest.raises(Killed):
        async with transaction(pool) as connection:
            await shelf.redeem(connection, member, reward_id, ref="again")
            raise Killed
    async with transaction(pool) as connection:
        assert await shelf.balance(connection, member) == (100, 0)
        assert await shelf.contradictions(connection) == []
        redemption = await shelf.redeem(connection, member, reward_id, ref="again")
        assert redemption.redemption_ref == "again"


async def test_many_say_the_outcome_of_an_offset_at_once(shelf: Shelf, pool: Pool) -> None:
    reward_id = await put(shelf, pool, "fee_offset")
    (member,) = await members(shelf, pool, 1)
    async with transaction(pool) as connection:
        redemption = await shelf.redeem(connection, member, reward_id)
    key = {"redemption_id": redemption.id, "now": shelf.now}
    results = await outcomes(
        pool,
        [
            lambda c: service.record_outcome(c, outcome="done", **key),
            lambda c: service.record_outcome(c, outcome="refused", **key),
        ]
        * 8,
    )
    assert tally(results) == {"done": 8, "offset_contradicted": 8}
    async with transaction(pool) as connection:
        assert await shelf.balance(connection, member) in [(0, 0), (100, 0)]
        assert await shelf.contradictions(connection) == []
