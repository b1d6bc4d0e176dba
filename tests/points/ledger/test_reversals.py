"""Reversals on real PostgreSQL: claw-back, arrears, restoring to lots, rounding, and refunds that come twice."""

from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from kernel.database import Connection
from points.ledger import service
from points.ledger.model import Reversal
from points.ledger.service import (
    OperationNotReversible,
    OperationUnknown,
    RefundAlreadyPosted,
    RefundExceedsOrder,
)

Bank = Any


async def refund(
    bank: Bank, connection: Connection, operation_id: UUID, fen: int, ref: str = "r1", **changes: Any
) -> Reversal:
    arguments = {"partner_id": bank.partner_id, "side": "earn", "now": bank.now} | changes
    return await service.reverse(
        connection, operation_id=operation_id, refund_ref=ref, refunded_fen=fen, **arguments
    )


async def test_a_claw_back_takes_from_the_same_lot_first(bank: Bank, connection: Connection) -> None:
    member = await bank.enrol(connection)
    await bank.earn(connection, member, 100, expires_in=timedelta(days=1))
    earned = await bank.earn(connection, member, 100)
    reversal = await refund(bank, connection, earned.operation_id, 10_000)
    assert (reversal.points_clawed_back, reversal.arrears_added) == (100, 0)
    assert await bank.lots(connection, member) == [(100, 100, 0), (100, 0, 0)]
    assert await bank.audit(connection, member) == []


async def test_then_from_the_same_funders_lots(bank: Bank, connection: Connection) -> None:
    member = await bank.enrol(connection)
    await bank.earn(connection, member, 100, funder_id=2)
    await bank.earn(connection, member, 100)
    earned = await bank.earn(connection, member, 100, expires_in=timedelta(days=1))
    await bank.hold(connection, member, 80)
    reversal = await refund(bank, connection, earned.operation_id, 10_000)
    assert (reversal.points_clawed_back, reversal.arrears_added) == (100, 0)
    assert await bank.lots(connection, member) == [(100, 100, 0), (100, 20, 0), (100, 80, 80)]
    assert await bank.audit(connection, member) == []


async def test_the_funder_is_remembered_when_the_lot_itself_has_ended(
    bank: Bank, connection: Connection
) -> None:
    member = await bank.enrol(connection)
    await bank.earn(connection, member, 100, funder_id=2, expires_in=timedelta(days=10))
    earned = await bank.earn(connection, member, 100, expires_in=timedelta(days=1))
    await bank.earn(connection, member, 100)
    later = bank.now + timedelta(days=2)
    reversal = await refund(bank, connection, earned.operation_id, 10_000, now=later)
    assert (reversal.points_clawed_back, reversal.arrears_added) == (100, 0)
    assert await bank.lots(connection, member) == [(100, 100, 0), (100, 0, 0), (100, 0, 0)]
    assert await bank.audit(connection, member) == []


async def test_other_funders_points_repay_what_is_owed_at_once(bank: Bank, connection: Connection) -> None:
    member = await bank.enrol(connection)
    await bank.earn(connection, member, 50, funder_id=2)
    earned = await bank.earn(connection, member, 100, expires_in=timedelta(days=1))
    await bank.hold(connection, member, 80)
    reversal = await refund(bank, connection, earned.operation_id, 10_000)
    assert (reversal.points_clawed_back, reversal.arrears_added) == (100, 30)
    assert reversal.balance.available_points == 0
    # the funder of the earning gets all of it back; the other's points went to the member's debt
    clawed = await connection.fetch(
        "SELECT funder_id, debit_account, points FROM ledger_entry WHERE member_id = $1 AND credit_account = 10",
        member.member_id,
    )
    assert sorted(map(tuple, clawed)) == [(1, 1, 20), (1, 4, 80)]
    assert await bank.audit(connection, member) == []


async def test_what_is_missing_becomes_arrears_and_later_earnings_repay_it(
    bank: Bank, connection: Connection
) -> None:
    member = await bank.enrol(connection)
    earned = await bank.earn(connection, member, 100)
    await bank.spend(connection, member, 70)
    reversal = await refund(bank, connection, earned.operation_id, 10_000)
    assert (reversal.points_clawed_back, reversal.arrears_added) == (100, 70)
    assert reversal.balance.available_points == 0
    assert reversal.balance.arrears_points == 70

    repaying = await bank.earn(connection, member, 50)
    assert (repaying.balance.available_points, repaying.balance.arrears_points) == (0, 20)
    repaying = await bank.earn(connection, member, 50)
    assert (repaying.balance.available_points, repaying.balance.arrears_points) == (30, 0)
    assert await bank.audit(connection, member) == []


async def test_held_points_are_never_touched(bank: Bank, connection: Connection) -> None:
    member = await bank.enrol(connection)
    earned = await bank.earn(connection, member, 100)
    held = await bank.hold(connection, member, 100)
    reversal = await refund(bank, connection, earned.operation_id, 5_000)
    assert (reversal.points_clawed_back, reversal.arrears_added) == (50, 50)
    outcome = await service.capture_hold(
        connection, hold_id=held.id, partner_id=bank.partner_id, now=bank.now
    )
    assert outcome.captured_points == 100
    assert await bank.audit(connection, member) == []


async def test_partial_refunds_floor_cumulatively_and_the_last_is_exact(
    bank: Bank, connection: Connection
) -> None:
    member = await bank.enrol(connection)
    earned = await bank.earn(connection, member, 10, amount_fen=1_099)
    undone = [
        (await refund(bank, connection, earned.operation_id, fen, f"r{fen}")).points_clawed_back
        for fen in (100, 366, 333, 300)
    ]
    assert undone == [0, 4, 3, 3]
    with pytest.raises(RefundExceedsOrder) as refused:
        await refund(bank, connection, earned.operation_id, 1, "one too many")
    assert refused.value.facts == {"refundable_fen": 0}
    assert await bank.audit(connection, member) == []


async def test_a_refund_of_zero_points_is_still_remembered(bank: Bank, connection: Connection) -> None:
    member = await bank.enrol(connection)
    earned = await bank.earn(connection, member, 1, amount_fen=199)
    reversal = await refund(bank, connection, earned.operation_id, 1)
    assert reversal.points_clawed_back == 0
    with pytest.raises(RefundAlreadyPosted):
        await refund(bank, connection, earned.operation_id, 1)


async def test_a_spend_comes_back_to_its_lots_in_reverse_order(bank: Bank, connection: Connection) -> None:
    member = await bank.enrol(connection)
    await bank.earn(connection, member, 100, expires_in=timedelta(days=10))
    await bank.earn(connection, member, 100, expires_in=timedelta(days=20))
    hold_id = await bank.spend(connection, member, 150)
    reversal = await refund(bank, connection, hold_id, 60, side="spend")
    assert reversal.points_restored == 60
    assert await bank.lots(connection, member) == [(100, 10, 0), (100, 100, 0)]
    reversal = await refund(bank, connection, hold_id, 90, "r2", side="spend")
    assert reversal.points_restored == 90
    assert await bank.lots(connection, member) == [(100, 100, 0), (100, 100, 0)]
    assert await bank.audit(connection, member) == []


async def test_points_of_a_lot_that_has_ended_come_back_as_a_child_with_grace(
    bank: Bank, connection: Connection
) -> None:
    member = await bank.enrol(connection)
    await bank.earn(connection, member, 100, expires_in=timedelta(days=10))
    hold_id = await bank.spend(connection, member, 100)
    later = bank.now + timedelta(days=11)
    reversal = await refund(bank, connection, hold_id, 100, now=later, side="spend")
    assert reversal.points_restored == 100
    child = await connection.fetchrow(
        "SELECT parent_lot_seq, expires_at, remaining_points FROM ledger_lot WHERE member_id = $1 AND parent_lot_seq > 0",
        member.member_id,
    )
    assert child is not None
    assert tuple(child) == (1, later + timedelta(days=30), 100)
    assert await bank.available(connection, member, later) == 100
    assert await bank.audit(connection, member) == []


async def test_restored_points_repay_arrears_first(bank: Bank, connection: Connection) -> None:
    member = await bank.enrol(connection)
    earned = await bank.earn(connection, member, 100, expires_in=timedelta(days=10))
    hold_id = await bank.spend(connection, member, 100)
    await refund(bank, connection, earned.operation_id, 3_000)
    later = bank.now + timedelta(days=11)
    reversal = await refund(bank, connection, hold_id, 100, now=later, side="spend")
    assert reversal.points_restored == 100
    assert (reversal.balance.available_points, reversal.balance.arrears_points) == (70, 0)
    assert await bank.audit(connection, member) == []


async def test_a_refund_reference_counts_once_for_ever(bank: Bank, connection: Connection) -> None:
    member = await bank.enrol(connection)
    earned = await bank.earn(connection, member, 100)
    await refund(bank, connection, earned.operation_id, 100)
    with pytest.raises(RefundAlreadyPosted):
        await refund(bank, connection, earned.operation_id, 100)


async def test_what_is_not_an_earning_or_a_capture_cannot_be_reversed(
    bank: Bank, connection: Connection
) -> None:
    member = await bank.enrol(connection)
    earned = await bank.earn(connection, member, 100)
    held = await bank.hold(connection, member, 50)
    with pytest.raises(OperationNotReversible) as refused:
        await refund(bank, connection, held.id, 10, side="spend")
    assert refused.value.facts == {"state": "open"}
    reversal = await refund(bank, connection, earned.operation_id, 100)
    with pytest.raises(OperationNotReversible):
        await refund(bank, connection, reversal.id, 10)
    with pytest.raises(OperationUnknown):
        await refund(bank, connection, earned.operation_id, 10, partner_id=uuid4())


async def test_settlement_reads_every_change_once(bank: Bank, connection: Connection) -> None:
    member = await bank.enrol(connection)
    earned = await bank.earn(connection, member, 100, unit_cost_e6=800_000)
    hold_id = await bank.spend(connection, member, 40)
    await refund(bank, connection, hold_id, 10, side="spend")
    await refund(bank, connection, earned.operation_id, 10_000)
    lines = await connection.fetch(
        """SELECT kind, sum(points)::int, sum(amount_fen)::int FROM ledger_settlement_source
            WHERE partner_id = $1 GROUP BY kind ORDER BY kind""",
        bank.partner_id,
    )
    assert [tuple(line) for line in lines] == [
        ("points_clawed_back", 100, 80),
        ("points_issued", 100, 80),
        ("points_redeemed", 40, 40),
        ("points_restored", 10, 10),
    ]
