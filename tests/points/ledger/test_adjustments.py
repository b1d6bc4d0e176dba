"""Adjustments: two people, once, in the books and on record."""

import asyncio
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from kernel.database import Connection, Pool, transaction
from kernel.errors import Refusal
from points.ledger import service
from points.ledger.adjustments import (
    AdjustmentDecided,
    AdjustmentFunderUnknown,
    AdjustmentInvalid,
    AdjustmentNeedsAnother,
)
from points.ledger.deeds import Adjustment
from points.ledger.model import POINTS
from points.ledger.service import InsufficientPoints

Bank = Any


async def propose(bank: Bank, connection: Connection, member: Any, points: int, **changes: Any) -> Adjustment:
    wish = {"reason_code": "goodwill", "reason": "A late parcel.", "by": "admin:ann"} | changes
    return await service.propose_adjustment(
        connection, member=member, point_type=POINTS, points=points, now=bank.now, **wish
    )


async def test_nothing_moves_before_another_person_agrees(bank: Bank, connection: Connection) -> None:
    member = await bank.enrol(connection)
    proposed = await propose(bank, connection, member, 500)
    assert await bank.available(connection, member) == 0
    with pytest.raises(AdjustmentNeedsAnother):
        await service.approve_adjustment(connection, adjustment_id=proposed.id, by="admin:ann", now=bank.now)
    posted = await service.approve_adjustment(
        connection, adjustment_id=proposed.id, by="admin:bob", now=bank.now
    )
    assert (posted.state, posted.decided_by) == ("posted", "admin:bob")
    assert await bank.available(connection, member) == 500
    with pytest.raises(AdjustmentDecided):
        await service.approve_adjustment(connection, adjustment_id=proposed.id, by="admin:cid", now=bank.now)
    assert await bank.audit(connection, member) == []
    assert await bank.contradictions(connection) == []


async def test_what_is_given_repays_what_is_owed_first(bank: Bank, connection: Connection) -> None:
    member = await bank.enrol(connection)
    earned = await bank.earn(connection, member, 100)
    await bank.spend_at_once(connection, member, 100)
    await service.reverse(
        connection,
        operation_id=earned.operation_id,
        partner_id=bank.partner_id,
        side="earn",
        refund_ref="r",
        refunded_fen=10_000,
        now=bank.now,
    )
    await bank.adjust(connection, member, 130)
    balance = await service.read_balance(connection, member, now=bank.now)
    assert (balance.available_points, balance.arrears_points) == (30, 0)
    assert await bank.audit(connection, member) == []


async def test_what_is_taken_comes_from_free_lots_in_spend_order(bank: Bank, connection: Connection) -> None:
    member = await bank.enrol(connection)
    await bank.earn(connection, member, 100, expires_in=None)
    await bank.earn(connection, member, 100)
    await bank.hold(connection, member, 50)
    await bank.adjust(connection, member, -120)
    assert await bank.lots(connection, member) == [(100, 30, 0), (100, 50, 50)]
    with pytest.raises(InsufficientPoints):
        await bank.adjust(connection, member, -31)
    assert await bank.audit(connection, member) == []
    assert await bank.contradictions(connection) == []


async def test_a_rejected_one_is_over(bank: Bank, connection: Connection) -> None:
    member = await bank.enrol(connection)
    proposed = await propose(bank, connection, member, 500)
    with pytest.raises(AdjustmentNeedsAnother):
        await service.reject_adjustment(connection, adjustment_id=proposed.id, by="admin:ann", now=bank.now)
    await service.reject_adjustment(connection, adjustment_id=proposed.id, by="admin:bob", now=bank.now)
    with pytest.raises(AdjustmentDecided) as refused:
        await service.approve_adjustment(connection, adjustment_id=proposed.id, by="admin:bob", now=bank.now)
    assert refused.value.facts == {"state": "rejected"}
    assert await bank.contradictions(connection) == []


async def test_one_that_nobody_decides_in_a_week_expires(bank: Bank, connection: Connection) -> None:
    member = await bank.enrol(connection)
    first = await propose(bank, connection, member, 1)
    await propose(bank, connection, member, 2)
    week = bank.now + timedelta(days=7)
    assert await service.expire_adjustments(connection, limit=9, now=week - timedelta(microseconds=1)) == 0
    late = await service.approve_adjustment(connection, adjustment_id=first.id, by="admin:bob", now=week)
    assert (late.state, late.decided_by) == ("expired", None)
    assert await service.expire_adjustments(connection, limit=9, now=week) == 1
    assert await bank.available(connection, member) == 0
    assert {a.state for a in await service.list_adjustments(connection)} == {"expired"}
    assert await bank.contradictions(connection) == []


@pytest.mark.parametrize(
    ("points", "change", "refusal"),
    [
        (0, {}, AdjustmentInvalid),
        (10_000_001, {}, AdjustmentInvalid),
        (-10_000_001, {}, AdjustmentInvalid),
        (1, {"reason_code": "Good Will"}, AdjustmentInvalid),
        (1, {"reason": " "}, AdjustmentInvalid),
        (1, {"reason": "x" * 501}, AdjustmentInvalid),
        (1, {"funder": "nobody"}, AdjustmentFunderUnknown),
    ],
)
async def test_what_makes_no_sense_is_not_even_proposed(
    bank: Bank, connection: Connection, points: int, change: dict[str, str], refusal: type[Refusal]
) -> None:
    member = await bank.enrol(connection)
    with pytest.raises(refusal):
        await propose(bank, connection, member, points, **change)


async def test_the_schema_wants_two_people_too(bank: Bank, connection: Connection) -> None:
    member = await bank.enrol(connection)
    await propose(bank, connection, member, 1)
    with pytest.raises(asyncpg.CheckViolationError) as violation:
        await connection.execute(
            "UPDATE ledger_adjustment SET state = 'rejected', decided_by = proposed_by, decided_at = proposed_at"
        )
    assert violation.value.constraint_name == "ledger_adjustment_two_people"


async def test_ten_approvals_at_once_post_it_once(bank: Bank, pool: Pool) -> None:
    async with transaction(pool) as connection:
        member = await bank.enrol(connection)
        proposed = await propose(bank, connection, member, 500)

    async def approve(number: int) -> str:
        try:
            async with transaction(pool) as connection:
                await service.approve_adjustment(
                    connection, adjustment_id=proposed.id, by=f"admin:checker-{number}", now=bank.now
                )
        except Refusal as refusal:
            return refusal.code
        return "posted"

    outcomes = await asyncio.gather(*(approve(number) for number in range(10)))
    assert sorted(outcomes) == ["adjustment_decided"] * 9 + ["posted"]
    async with transaction(pool) as connection:
        assert await bank.available(connection, member) == 500
        assert await bank.audit(connection, member) == []
