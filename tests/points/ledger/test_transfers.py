"""Transfers: out of one wallet, through transit, into another; whatever happens in between."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from kernel.database import Connection, Pool, transaction
from kernel.errors import Refusal
from points.ledger import service
from points.ledger.deeds import Transfer, TransferRequest
from points.ledger.model import POINTS
from points.ledger.service import InsufficientPoints
from points.ledger.transfers import (
    TransferAlreadySent,
    TransferLimitReached,
    TransferTooLarge,
    TransferToOneself,
    TransferUnknown,
)

Bank = Any


async def send(
    bank: Bank, connection: Connection, sender: Any, receiver: Any, points: int, ref: str = "t", **at: Any
) -> Transfer:
    request = TransferRequest(
        sender=sender,
        receiver=receiver,
        partner_id=bank.partner_id,
        points=points,
        transfer_ref=ref,
        point_type=POINTS,
    )
    return await service.send_points(connection, request, now=at.get("now", bank.now))


async def end(bank: Bank, connection: Connection, subjects: Any = None, **at: Any) -> int:
    return await service.end_transfers(
        connection, subjects or bank.everybody, limit=100, now=at.get("now", bank.now)
    )


async def attributes(connection: Connection, member: Any) -> list[tuple[Any, ...]]:
    rows = await connection.fetch(
        "SELECT remaining_points, funder_id, unit_cost_e6, expires_at FROM ledger_lot"
        " WHERE member_id = $1 AND remaining_points > 0 ORDER BY expires_at NULLS LAST, lot_seq",
        member.member_id,
    )
    return [tuple(row) for row in rows]


async def test_lots_keep_everything_on_their_way(bank: Bank, connection: Connection) -> None:
    sender, receiver = await bank.enrol(connection), await bank.enrol(connection)
    await bank.earn(connection, sender, 100, unit_cost_e6=700_000)
    await bank.earn(connection, sender, 50, expires_in=timedelta(days=3), funder_id=2, unit_cost_e6=1)
    sent = await send(bank, connection, sender, receiver, 120)
    assert await bank.available(connection, sender) == 30
    assert await bank.available(connection, receiver) == 0
    assert await bank.contradictions(connection) == []
    assert await end(bank, connection) == 1
    assert await attributes(connection, receiver) == [
        (50, 2, 1, bank.now + timedelta(days=3)),
        (70, 1, 700_000, bank.now + timedelta(days=365)),
    ]
    found = await service.find_transfer(connection, transfer_id=sent.id, partner_id=bank.partner_id)
    assert (found.state, found.ended_at) == ("arrived", bank.now)
    assert await end(bank, connection) == 0
    for member in (sender, receiver):
        assert await bank.audit(connection, member) == []
    assert await bank.contradictions(connection) == []


async def test_points_go_back_to_their_lots_when_the_receiver_does_not_consent_any_more(
    bank: Bank, connection: Connection
) -> None:
    sender, receiver = await bank.enrol(connection), await bank.enrol(connection)
    await bank.earn(connection, sender, 100)
    sent = await send(bank, connection, sender, receiver, 60)
    assert await end(bank, connection, bank.nobody) == 1
    assert await bank.lots(connection, sender) == [(100, 100, 0)]
    assert await bank.available(connection, receiver) == 0
    found = await service.find_transfer(connection, transfer_id=sent.id, partner_id=bank.partner_id)
    assert found.state == "returned"
    assert await bank.audit(connection, sender) == []
    assert await bank.contradictions(connection) == []


async def test_what_ends_on_the_way_ends_where_it_gets_to(bank: Bank, connection: Connection) -> None:
    sender, receiver = await bank.enrol(connection), await bank.enrol(connection)
    await bank.earn(connection, sender, 100)
    await bank.earn(connection, sender, 50, expires_in=timedelta(hours=1))
    await send(bank, connection, sender, receiver, 60)
    later = bank.now + timedelta(hours=1)
    assert await end(bank, connection, now=later) == 1
    assert await bank.available(connection, receiver, later) == 10
    assert [row[0] for row in await attributes(connection, receiver)] == [10]
    assert await bank.audit(connection, receiver) == []
    assert await bank.contradictions(connection) == []


@pytest.mark.parametrize("willing", [True, False])
async def test_when_nothing_is_left_to_live_it_ends_at_the_sender(
    bank: Bank, connection: Connection, willing: bool
) -> None:
    sender, receiver = await bank.enrol(connection), await bank.enrol(connection)
    await bank.earn(connection, sender, 50, expires_in=timedelta(hours=1))
    await send(bank, connection, sender, receiver, 50)
    later = bank.now + timedelta(days=1)
    assert await end(bank, connection, bank.everybody if willing else bank.nobody, now=later) == 1
    assert await bank.available(connection, sender, later) == 0
    assert await bank.available(connection, receiver, later) == 0
    assert await bank.audit(connection, sender) == []
    assert await bank.contradictions(connection) == []


async def test_what_arrives_repays_what_is_owed_first(bank: Bank, connection: Connection) -> None:
    sender, receiver = await bank.enrol(connection), await bank.enrol(connection)
    await bank.earn(connection, sender, 100)
    earned = await bank.earn(connection, receiver, 40)
    await bank.spend_at_once(connection, receiver, 40)
    await service.reverse(
        connection,
        operation_id=earned.operation_id,
        partner_id=bank.partner_id,
        side="earn",
        refund_ref="r",
        refunded_fen=4_000,
        now=bank.now,
    )
    await send(bank, connection, sender, receiver, 100)
    await end(bank, connection)
    balance = await service.read_balance(connection, receiver, now=bank.now)
    assert (balance.available_points, balance.arrears_points) == (60, 0)
    assert await bank.audit(connection, receiver) == []


async def test_what_cannot_be_sent(bank: Bank, connection: Connection) -> None:
    sender, receiver = await bank.enrol(connection), await bank.enrol(connection)
    await bank.earn(connection, sender, 1_500_000)
    with pytest.raises(TransferToOneself):
        await send(bank, connection, sender, sender, 1)
    with pytest.raises(TransferTooLarge):
        await send(bank, connection, sender, receiver, 1_000_001)
    with pytest.raises(InsufficientPoints):
        await send(bank, connection, receiver, sender, 1)
    sent = await send(bank, connection, sender, receiver, 900_000)
    with pytest.raises(TransferAlreadySent):
        await send(bank, connection, sender, receiver, 1)
    with pytest.raises(TransferLimitReached):
        await send(bank, connection, sender, receiver, 100_001, "other")
    with pytest.raises(TransferUnknown):
        await service.find_transfer(connection, transfer_id=sent.id, partner_id=uuid4())
    await send(bank, connection, sender, receiver, 100_000, "other")


async def test_a_member_sends_twenty_times_a_day(bank: Bank, connection: Connection) -> None:
    sender, receiver = await bank.enrol(connection), await bank.enrol(connection)
    await bank.earn(connection, sender, 100)
    for number in range(20):
        await send(bank, connection, sender, receiver, 1, f"t{number}")
    with pytest.raises(TransferLimitReached):
        await send(bank, connection, sender, receiver, 1, "one more")
    await send(bank, connection, sender, receiver, 1, "one more", now=bank.now + timedelta(days=1))


async def test_a_crash_between_the_two_transactions_loses_nothing(bank: Bank, pool: Pool) -> None:
    async with transaction(pool) as connection:
        sender, receiver = await bank.enrol(connection), await bank.enrol(connection)
        await bank.earn(connection, sender, 100)
        await send(bank, connection, sender, receiver, 100)
    with pytest.raises(ZeroDivisionError):
        async with transaction(pool) as connection:
            assert await end(bank, connection) == 1
            raise ZeroDivisionError  # before the commit
    async with transaction(pool) as connection:
        assert await bank.available(connection, sender) == 0
        assert await bank.available(connection, receiver) == 0
        assert await bank.contradictions(connection) == []
        assert await end(bank, connection) == 1
    async with transaction(pool) as connection:
        assert await bank.available(connection, receiver) == 100
        assert await bank.contradictions(connection) == []


async def test_several_workers_end_a_transfer_once(bank: Bank, pool: Pool) -> None:
    async with transaction(pool) as connection:
        sender, receiver = await bank.enrol(connection), await bank.enrol(connection)
        await bank.earn(connection, sender, 100)
        for number in range(10):
            await send(bank, connection, sender, receiver, 10, f"t{number}")

    async def work() -> int:
        async with transaction(pool) as connection:
            return await service.end_transfers(connection, bank.everybody, limit=3, now=bank.now)

    while sum(await asyncio.gather(*(work() for _ in range(5)))):
        pass
    async with transaction(pool) as connection:
        assert await bank.available(connection, receiver) == 100
        assert await bank.audit(connection, receiver) == []
        assert await bank.contradictions(connection) == []


async def test_opposite_transfers_do_not_wait_in_a_circle(bank: Bank, pool: Pool) -> None:
    async with transaction(pool) as connection:
        one, two = await bank.enrol(connection), await bank.enrol(connection)
        for member in (one, two):
            await bank.earn(connection, member, 1_000)

    async def give(sender: Any, receiver: Any, number: int) -> str:
        try:
            async with transaction(pool) as connection:
                await send(bank, connection, sender, receiver, 5, f"t{number}")
            async with transaction(pool) as connection:
                await service.end_transfers(connection, bank.everybody, limit=2, now=bank.now)
        except Refusal as refusal:
            return refusal.code
        return "sent"

    deeds = [give(one, two, number) for number in range(20)] + [
        give(two, one, number) for number in range(20)
    ]
    assert set(await asyncio.gather(*deeds)) == {"sent"}
    async with transaction(pool) as connection:
        while await end(bank, connection):
            pass
        for member in (one, two):
            assert await bank.available(connection, member) == 1_000
            assert await bank.audit(connection, member) == []
        assert await bank.contradictions(connection) == []
