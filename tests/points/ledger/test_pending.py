"""Points that wait: pending until their instant, whoever books it and whenever."""

from collections.abc import AsyncGenerator
from datetime import datetime, timedelta
from typing import Any

import pytest

from kernel.database import Connection
from points.ledger import service
from points.ledger.model import Balance
from points.ledger.service import InsufficientPoints

Bank = Any
TICK, DAY = timedelta(microseconds=1), timedelta(days=1)


def balance(available: int, *, held: int = 0, pending: int = 0, arrears: int = 0) -> Balance:
    return Balance(
        available_points=available, held_points=held, pending_points=pending, arrears_points=arrears
    )


async def owe(bank: Bank, connection: Connection, member: Any, points: int) -> None:
    """Earned, spent and clawed back."""
    earned = await bank.earn(connection, member, points)
    await bank.spend(connection, member, points)
    await service.reverse(
        connection,
        operation_id=earned.operation_id,
        partner_id=bank.partner_id,
        side="earn",
        refund_ref="r1",
        refunded_fen=points * 100,
        now=bank.now,
    )


async def days(
    bank: Bank, connection: Connection, count: int, *, swept: bool
) -> AsyncGenerator[datetime, None]:
    """Every instant at which something may have become true; the sweeps come by at it, or not at all."""
    for day in range(1, count + 1):
        now = bank.now + day * DAY
        if swept:
            await service.activate_due(connection, limit=10, now=now)
            await service.expire_due(connection, limit=10, now=now)
        yield now


async def test_points_wait_for_their_instant_and_are_there_at_it(bank: Bank, connection: Connection) -> None:
    member = await bank.enrol(connection)
    outcome = await bank.earn(connection, member, 100, activates_in=DAY)
    assert outcome.balance == balance(0, pending=100)
    for now, found in ((bank.now + DAY - TICK, balance(0, pending=100)), (bank.now + DAY, balance(100))):
        assert await service.read_balance(connection, member, now=now) == found
    with pytest.raises(InsufficientPoints):
        await bank.hold(connection, member, 1, now=bank.now + DAY - TICK)
    await bank.hold(connection, member, 60, now=bank.now + DAY)
    assert await service.read_balance(connection, member, now=bank.now + DAY) == balance(40, held=60)
    assert await bank.audit(connection, member) == []


async def test_the_sweep_books_what_is_true_already(bank: Bank, connection: Connection) -> None:
    member = await bank.enrol(connection)
    await bank.earn(connection, member, 100, activates_in=DAY)
    await bank.earn(connection, member, 50, activates_in=3 * DAY)
    later = bank.now + 2 * DAY
    before = await service.read_balance(connection, member, now=later)
    assert await service.activate_due(connection, limit=10, now=later) == 1
    assert await service.activate_due(connection, limit=10, now=later) == 0
    assert await service.read_balance(connection, member, now=later) == before == balance(100, pending=50)
    assert await bank.audit(connection, member) == []


async def test_what_ripens_repays_what_is_owed_even_if_it_has_ended_since(
    bank: Bank, connection: Connection
) -> None:
    member = await bank.enrol(connection)
    earned = await bank.earn(connection, member, 100)
    await bank.spend(connection, member, 100)
    await service.reverse(
        connection,
        operation_id=earned.operation_id,
        partner_id=bank.partner_id,
        side="earn",
        refund_ref="r1",
        refunded_fen=10_000,
        now=bank.now,
    )
    await bank.earn(connection, member, 30, activates_in=DAY, expires_in=2 * DAY, funder_id=2)
    await bank.earn(connection, member, 90, activates_in=DAY, funder_id=2)
    found = [
        await service.read_balance(connection, member, now=bank.now + days)
        for days in (0 * DAY, DAY, 3 * DAY)
    ]
    assert found == [balance(0, pending=120, arrears=100), balance(20), balance(20)]
    with pytest.raises(InsufficientPoints):
        await bank.hold(connection, member, 21, now=bank.now + 3 * DAY)
    await bank.hold(connection, member, 20, now=bank.now + 3 * DAY)
    assert await service.read_balance(connection, member, now=bank.now + 3 * DAY) == balance(0, held=20)
    assert await bank.audit(connection, member) == []


async def test_a_claw_back_voids_what_waits_before_it_takes_what_is_free(
    bank: Bank, connection: Connection
) -> None:
    member = await bank.enrol(connection)
    await bank.earn(connection, member, 100)
    earned = await bank.earn(connection, member, 100, activates_in=DAY)
    refund = {"partner_id": bank.partner_id, "side": "earn", "refunded_fen": 6_000}
    undone = await service.reverse(
        connection, operation_id=earned.operation_id, refund_ref="r1", now=bank.now, **refund
    )
    assert (undone.points_clawed_back, undone.balance) == (60, balance(100, pending=40))
    assert await service.read_balance(connection, member, now=bank.now + DAY) == balance(140)
    assert await bank.audit(connection, member) == []


async def test_the_answer_to_an_earning_counts_what_has_ripened(bank: Bank, connection: Connection) -> None:
    member = await bank.enrol(connection)
    await bank.earn(connection, member, 100, activates_in=DAY, expires_in=2 * DAY)
    await bank.earn(connection, member, 10, activates_in=DAY)
    later = await bank.earn(connection, member, 1, now=bank.now + DAY)
    assert later.balance == balance(111)
    latest = await bank.earn(connection, member, 1, now=bank.now + 2 * DAY)
    assert latest.balance == balance(12)
    assert await service.read_balance(connection, member, now=bank.now + 2 * DAY) == balance(12)


async def test_expiring_points_are_those_that_can_be_spent(bank: Bank, connection: Connection) -> None:
    member = await bank.enrol(connection)
    await bank.earn(connection, member, 100, activates_in=DAY, expires_in=9 * DAY)
    found = [await service.list_expiring(connection, member, now=bank.now + days) for days in (0 * DAY, DAY)]
    assert [[line.points for line in lines] for lines in found] == [[], [100]]
    before = await service.list_expiring_at(connection, member, at=bank.now + DAY)
    assert [line.points for line in before] == [100]


@pytest.mark.parametrize("booked", [True, False], ids=["job ran", "job is late"])
@pytest.mark.parametrize("ending", ["release", "lapse"])
async def test_what_ripened_pays_the_debt_before_what_a_hold_gives_back(
    bank: Bank, connection: Connection, ending: str, booked: bool
) -> None:
    """Which points are left must not depend on when the job came by: they end on different days."""
    member = await bank.enrol(connection)
    earned = await bank.earn(connection, member, 10)
    await bank.spend(connection, member, 10)
    await bank.earn(connection, member, 10, expires_in=5 * DAY, funder_id=2)
    held = await bank.hold(connection, member, 10, ttl_seconds=2 * 86_400)
    await service.reverse(
        connection,
        operation_id=earned.operation_id,
        partner_id=bank.partner_id,
        side="earn",
        refund_ref="r1",
        refunded_fen=1_000,
        now=bank.now,
    )
    await bank.earn(connection, member, 10, activates_in=DAY, expires_in=100 * DAY)
    later = bank.now + 2 * DAY
    if booked:
        assert await service.activate_due(connection, limit=10, now=later) == 1
    if ending == "release":
        await service.release_hold(connection, hold_id=held.id, partner_id=bank.partner_id, now=later)
    else:
        assert await service.lapse_due(connection, limit=10, now=later) == 1
    assert await service.read_balance(connection, member, now=later) == balance(10)
    assert await bank.lots(connection, member) == [(10, 0, 0), (10, 10, 0), (10, 0, 0)]
    assert await service.read_balance(connection, member, now=later + 4 * DAY) == balance(0)
    assert await bank.audit(connection, member) == []


@pytest.mark.parametrize("swept", [True, False])
async def test_lots_repay_in_the_order_in_which_they_ripened(
    bank: Bank, connection: Connection, swept: bool
) -> None:
    member = await bank.enrol(connection)
    await owe(bank, connection, member, 50)
    await bank.earn(connection, member, 100, activates_in=DAY, expires_in=None, funder_id=2)
    await bank.earn(connection, member, 100, activates_in=2 * DAY, expires_in=3 * DAY, funder_id=2)
    found = [
        await service.read_balance(connection, member, now=now)
        async for now in days(bank, connection, 3, swept=swept)
    ]
    assert found == [balance(50, pending=100), balance(150), balance(50)]
    now = bank.now + 3 * DAY
    with pytest.raises(InsufficientPoints):
        await bank.hold(connection, member, 51, now=now)
    await bank.hold(connection, member, 50, now=now)
    assert await service.read_balance(connection, member, now=now) == balance(0, held=50)
    assert await service.balance_at(connection, member, at=now) == balance(0, held=50)
    assert await bank.audit(connection, member) == []


@pytest.mark.parametrize("swept", [True, False])
async def test_what_is_released_does_not_repay_what_ripened_points_have_repaid(
    bank: Bank, connection: Connection, swept: bool
) -> None:
    member = await bank.enrol(connection)
    await bank.earn(connection, member, 50, funder_id=2)
    held = await bank.hold(connection, member, 50, ttl_seconds=600_000)
    await owe(bank, connection, member, 50)
    await bank.earn(connection, member, 50, activates_in=DAY, expires_in=2 * DAY, funder_id=2)
    async for now in days(bank, connection, 3, swept=swept):
        assert await service.read_balance(connection, member, now=now) == balance(0, held=50)
    await service.release_hold(connection, hold_id=held.id, partner_id=bank.partner_id, now=now)
    assert await service.read_balance(connection, member, now=now) == balance(50)
    assert await bank.audit(connection, member) == []


@pytest.mark.parametrize("swept", [True, False])
async def test_points_that_repay_are_not_said_to_expire(
    bank: Bank, connection: Connection, swept: bool
) -> None:
    member = await bank.enrol(connection)
    await owe(bank, connection, member, 100)
    await bank.earn(connection, member, 30, activates_in=DAY, expires_in=9 * DAY, funder_id=2)
    await bank.earn(connection, member, 90, activates_in=DAY, expires_in=12 * DAY, funder_id=2)
    async for now in days(bank, connection, 1, swept=swept):
        found = await service.list_expiring(connection, member, now=now)
        assert [line.points for line in found] == [20]
        assert await service.list_expiring_at(connection, member, at=now) == found


@pytest.mark.parametrize("swept", [True, False])
async def test_an_earning_repays_only_what_ripened_points_have_left_owed(
    bank: Bank, connection: Connection, swept: bool
) -> None:
    member = await bank.enrol(connection)
    earned = await bank.earn(connection, member, 50)
    await bank.spend(connection, member, 50)
    await service.reverse(
        connection,
        operation_id=earned.operation_id,
        partner_id=bank.partner_id,
        side="earn",
        refund_ref="r1",
        refunded_fen=5_000,
        now=bank.now,
    )
    await bank.earn(connection, member, 40, activates_in=DAY, expires_in=2 * DAY, funder_id=2)
    for days in (1, 2, 3):
        if swept:
            await service.activate_due(connection, limit=10, now=bank.now + days * DAY)
            await service.expire_due(connection, limit=10, now=bank.now + days * DAY)
    now = bank.now + 3 * DAY
    assert await service.read_balance(connection, member, now=now) == balance(0, arrears=10)
    outcome = await bank.earn(connection, member, 50, now=now)
    assert outcome.balance == await service.read_balance(connection, member, now=now) == balance(40)
    assert await bank.audit(connection, member) == []


async def test_a_hold_takes_nothing_of_a_lot_that_waits_whole(bank: Bank, connection: Connection) -> None:
    member = await bank.enrol(connection)
    await bank.earn(connection, member, 30, expires_in=2 * DAY)
    await bank.earn(connection, member, 50, expires_in=3 * DAY, activates_in=2 * DAY)
    await bank.earn(connection, member, 30, expires_in=4 * DAY)
    await bank.hold(connection, member, 40)
    assert await bank.lots(connection, member) == [(30, 30, 30), (50, 50, 0), (30, 30, 10)]
    assert await bank.audit(connection, member) == []
