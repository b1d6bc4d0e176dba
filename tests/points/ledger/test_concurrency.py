"""Many at once, on committed data: nothing is spent twice, earned twice or waited for in a circle."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar
from uuid import UUID

from kernel.caller import MemberRef
from kernel.database import Connection, Pool, acquire, transaction
from kernel.errors import Refusal
from points.ledger import service
from points.ledger.model import Side
from points.membership.service import enrol_members

Bank = Any
T = TypeVar("T")


async def outcomes(pool: Pool, deeds: Sequence[Callable[[Connection], Awaitable[T]]]) -> list[T | Refusal]:
    """Every deed in its own transaction, all at the same time."""

    async def attempt(deed: Callable[[Connection], Awaitable[T]]) -> T | Refusal:
        try:
            async with transaction(pool) as connection:
                return await deed(connection)
        except Refusal as refusal:
            return refusal

    return await asyncio.gather(*(attempt(deed) for deed in deeds))


def codes(results: Sequence[object]) -> list[str]:
    """`done`, or the code of the refusal."""
    return sorted(result.code if isinstance(result, Refusal) else "done" for result in results)


async def enrol(bank: Bank, pool: Pool, *points: int) -> MemberRef:
    async with transaction(pool) as connection:
        member: MemberRef = await bank.enrol(connection)
        for amount in points:
            await bank.earn(connection, member, amount)
        return member


async def test_parallel_holds_never_overspend(bank: Bank, pool: Pool) -> None:
    member = await enrol(bank, pool, 40, 60)
    results = await outcomes(pool, [lambda connection: bank.hold(connection, member, 15)] * 20)
    assert codes(results) == ["done"] * 6 + ["insufficient_points"] * 14
    async with transaction(pool) as connection:
        assert await bank.available(connection, member) == 10
        assert await bank.audit(connection, member) == []


async def test_capture_and_release_race_for_one_hold_and_one_wins(bank: Bank, pool: Pool) -> None:
    member = await enrol(bank, pool, 100)
    async with transaction(pool) as connection:
        hold = await bank.hold(connection, member, 100)

    async def capture(connection: Connection) -> object:
        return await service.capture_hold(
            connection, hold_id=hold.id, partner_id=bank.partner_id, now=bank.now
        )

    async def release(connection: Connection) -> object:
        return await service.release_hold(
            connection, hold_id=hold.id, partner_id=bank.partner_id, now=bank.now
        )

    results = await outcomes(pool, [capture, release] * 5)
    assert codes(results) == ["done"] + ["hold_not_open"] * 9
    async with transaction(pool) as connection:
        closed = await service.find_hold(connection, hold_id=hold.id, partner_id=bank.partner_id)
        assert {r.facts["state"] for r in results if isinstance(r, Refusal)} == {closed.state}
        assert await bank.audit(connection, member) == []


async def test_one_event_posted_fifty_times_at_once_earns_once(bank: Bank, pool: Pool) -> None:
    member = await enrol(bank, pool)
    results = await outcomes(
        pool, [lambda connection: bank.earn(connection, member, 10, source_ref="once")] * 50
    )
    posted = [result for result in results if not isinstance(result, Refusal) and result.posted]
    assert len(posted) == 1
    assert {r.operation_id for r in results if not isinstance(r, Refusal)} == {posted[0].operation_id}
    async with transaction(pool) as connection:
        assert await bank.available(connection, member) == 10
        assert await bank.audit(connection, member) == []


async def test_batches_in_opposite_orders_do_not_deadlock(bank: Bank, pool: Pool) -> None:
    members = [await enrol(bank, pool) for _ in range(12)]

    def batch(order: Sequence[MemberRef]) -> Callable[[Connection], Awaitable[object]]:
        async def post(connection: Connection) -> object:
            postings = [bank.posting(member, 1) for member in order for _ in range(3)]
            return await service.post_earnings(connection, postings, now=bank.now)

        return post

    results = await outcomes(pool, [batch(members), batch(members[::-1])] * 8)
    assert codes(results) == ["done"] * 16
    async with transaction(pool) as connection:
        for member in members:
            assert await bank.available(connection, member) == 48
            assert await bank.audit(connection, member) == []


async def test_parallel_refunds_together_stay_within_the_order(bank: Bank, pool: Pool) -> None:
    member = await enrol(bank, pool)
    async with transaction(pool) as connection:
        earned = await bank.earn(connection, member, 100, amount_fen=10_000)

    def refund(ref: str) -> Callable[[Connection], Awaitable[object]]:
        async def post(connection: Connection) -> object:
            return await service.reverse(
                connection,
                operation_id=earned.operation_id,
                partner_id=bank.partner_id,
                side="earn",
                refund_ref=ref,
                refunded_fen=3_000,
                now=bank.now,
            )

        return post

    results = await outcomes(pool, [refund(f"r{place % 5}") for place in range(10)])
    assert codes(results).count("done") == 3
    async with transaction(pool) as connection:
        assert await bank.available(connection, member) == 10
        assert await bank.audit(connection, member) == []


async def test_a_refund_of_both_sides_does_not_wait_in_a_circle_for_the_houses_accounts(
    bank: Bank, pool: Pool
) -> None:
    """A plan's refund restores points, then claws some back: two turns at the accounts that its bucket shares."""
    async with transaction(pool) as connection:
        crowd = await enrol_members(connection, count=1_100, now=bank.now)
        by_bucket = {member.bucket: member for member in crowd}
        one, other = next(
            (member, by_bucket[member.bucket]) for member in crowd if by_bucket[member.bucket] != member
        )
        earned = {member: await bank.earn(connection, member, 100) for member in (one, other)}
        spent = await bank.spend(connection, one, 50)
        for member in (one, other):
            await bank.earn(connection, member, 5, expires_in=timedelta(days=1))
    later = bank.now + timedelta(days=2)

    async def undo(connection: Connection, side: Side, operation_id: UUID) -> object:
        return await service.reverse(
            connection,
            operation_id=operation_id,
            partner_id=bank.partner_id,
            side=side,
            refund_ref="refund",
            refunded_fen=10 if side == "spend" else 1_000,
            now=later,
        )

    async def claw_back() -> object:
        async with transaction(pool) as connection:
            return await undo(connection, "earn", earned[other].operation_id)

    async with transaction(pool) as connection:
        await undo(connection, "spend", spent)
        waiting = asyncio.create_task(claw_back())
        async with acquire(pool) as looking:
            while not await looking.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                assert not waiting.done()
        await undo(connection, "earn", earned[one].operation_id)
    await waiting
    async with transaction(pool) as connection:
        for member in (one, other):
            assert await bank.audit(connection, member) == []


async def test_the_sweeps_and_the_shoppers_share_the_wallets(bank: Bank, pool: Pool) -> None:
    members = [await enrol(bank, pool, 50) for _ in range(6)]
    async with transaction(pool) as connection:
        for member in members:
            await bank.hold(connection, member, 20, ttl_seconds=5)
    deadline = bank.now.replace(second=5)

    async def sweep(connection: Connection) -> object:
        return await service.lapse_due(connection, limit=50, now=deadline)

    shoppers = [lambda connection, m=member: bank.hold(connection, m, 20, now=deadline) for member in members]
    results = await outcomes(pool, [sweep, *shoppers, sweep])
    assert codes(results) == ["done"] * 8
    assert sum(result for result in results if isinstance(result, int)) >= 6
    async with transaction(pool) as connection:
        for member in members:
            assert await bank.available(connection, member) == 30
            assert await bank.audit(connection, member) == []
