"""Points spent at once: one operation, then everything a captured hold can do."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from kernel.database import Connection, DatabaseBusy, Pool, transaction
from kernel.errors import Refusal
from kernel.ids import to_wire
from points.ledger import service
from points.ledger.model import SPEND_ORDER, SpendRequest
from points.ledger.service import HoldNotOpen, InsufficientPoints, OperationUnknown

Bank = Any


async def test_a_spend_takes_the_lots_a_hold_would_take(bank: Bank, connection: Connection) -> None:
    member = await bank.enrol(connection)
    for expires_in in (None, timedelta(days=300), timedelta(days=30)):
        await bank.earn(connection, member, 100, expires_in=expires_in)
    spent = await bank.spend_at_once(connection, member, 150)
    assert (spent.state, spent.points, spent.captured_points, spent.closed_by) == (
        "captured",
        150,
        150,
        spent.id,
    )
    assert await bank.lots(connection, member) == [(100, 100, 0), (100, 50, 0), (100, 0, 0)]
    assert await bank.audit(connection, member) == []
    assert await bank.contradictions(connection) == []


async def test_a_spend_is_one_operation_with_its_event(bank: Bank, connection: Connection) -> None:
    member = await bank.enrol(connection)
    await bank.earn(connection, member, 100)
    spent = await bank.spend_at_once(connection, member, 40)
    kinds = await connection.fetch(
        "SELECT kind, points FROM ledger_operation WHERE member_id = $1 AND kind <> 'earn'", member.member_id
    )
    assert [tuple(row) for row in kinds] == [("spend", 40)]
    payload = await connection.fetchval(
        "SELECT payload FROM outbox_event WHERE partner_id = $1 AND type = 'points.spent'", bank.partner_id
    )
    assert payload == {
        "id": to_wire("hld", spent.id),
        "order_ref": "order-1",
        "points": 40,
        "point_type": "tessera",
        "value_fen": 40,
    }


async def test_a_spend_is_reversed_under_its_own_id(bank: Bank, connection: Connection) -> None:
    member = await bank.enrol(connection)
    await bank.earn(connection, member, 100)
    spent = await bank.spend_at_once(connection, member, 40, order_fen=10_000)
    for ref, fen, points in (("r1", 3_333, 13), ("r2", 6_667, 27)):
        reversal = await service.reverse(
            connection,
            operation_id=spent.id,
            partner_id=bank.partner_id,
            side="spend",
            refund_ref=ref,
            refunded_fen=fen,
            now=bank.now,
        )
        assert reversal.points_restored == points
    assert await bank.lots(connection, member) == [(100, 100, 0)]
    assert await bank.audit(connection, member) == []
    assert await bank.contradictions(connection) == []


async def test_a_spend_cannot_be_captured_or_released_again(bank: Bank, connection: Connection) -> None:
    member = await bank.enrol(connection)
    await bank.earn(connection, member, 100)
    spent = await bank.spend_at_once(connection, member, 40)
    with pytest.raises(HoldNotOpen):
        await service.capture_hold(connection, hold_id=spent.id, partner_id=bank.partner_id, now=bank.now)
    with pytest.raises(HoldNotOpen):
        await service.release_hold(connection, hold_id=spent.id, partner_id=bank.partner_id, now=bank.now)
    await service.lapse_due(connection, limit=999, now=bank.now + timedelta(days=1))
    found = await service.find_hold(connection, hold_id=spent.id, partner_id=bank.partner_id)
    assert found == spent


async def test_who_may_only_earn_cannot_name_a_spend(bank: Bank, connection: Connection) -> None:
    member = await bank.enrol(connection)
    await bank.earn(connection, member, 100)
    spent = await bank.spend_at_once(connection, member, 40)
    with pytest.raises(OperationUnknown):
        await service.reverse(
            connection,
            operation_id=spent.id,
            partner_id=bank.partner_id,
            side="earn",
            refund_ref="r",
            refunded_fen=1,
            now=bank.now,
        )


async def test_spends_posted_together_see_each_other(bank: Bank, connection: Connection) -> None:
    member, other = await bank.enrol(connection), await bank.enrol(connection)
    await bank.earn(connection, member, 100)
    requests = [
        SpendRequest(member=who, partner_id=bank.partner_id, points=points, order_ref="o")
        for who, points in ((member, 60), (other, 1), (member, 60), (member, 40))
    ]
    answers = await service.spend_points(connection, requests, now=bank.now)
    refused = [answer.facts if isinstance(answer, Refusal) else None for answer in answers]
    assert refused == [None, {"available_points": 0}, {"available_points": 40}, None]
    assert await bank.lots(connection, member) == [(100, 0, 0)]
    assert await bank.audit(connection, member) == []


async def test_a_hundred_spends_at_once_never_spend_a_point_twice(bank: Bank, pool: Pool) -> None:
    async with transaction(pool) as connection:
        member = await bank.enrol(connection)
        for points in (300, 45, 155):
            await bank.earn(connection, member, points)

    async def spend() -> str:
        while True:
            try:
                async with transaction(pool) as connection:
                    await bank.spend_at_once(connection, member, 7)
            except DatabaseBusy:
                continue  # a hundred want few connections
            except InsufficientPoints as refusal:
                return refusal.code
            return "spent"

    outcomes = await asyncio.gather(*(spend() for _ in range(100)))
    assert sorted(outcomes) == ["insufficient_points"] * 29 + ["spent"] * 71
    async with transaction(pool) as connection:
        assert await bank.available(connection, member) == 3
        assert await bank.audit(connection, member) == []


async def test_the_order_of_spending_is_the_one_the_books_describe(
    bank: Bank, connection: Connection
) -> None:
    member = await bank.enrol(connection)
    await bank.earn(connection, member, 100)
    hold = await bank.hold(connection, member, 10)
    found = await service.find_hold(connection, hold_id=hold.id, partner_id=bank.partner_id)
    last = await connection.fetchval("SELECT max(version) FROM ledger_spend_order")
    assert found.spend_order == hold.spend_order == SPEND_ORDER == last
