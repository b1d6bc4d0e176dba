"""One refund of both sides, and many reversals on one journal."""

from typing import Any

import pytest

from kernel.database import Connection
from kernel.errors import Refusal
from points.ledger import service
from points.ledger.deeds import RefundPart
from points.ledger.model import Reversal, ReversalRequest
from points.ledger.refunds import RefundTargetsDiffer
from points.ledger.service import RefundAlreadyPosted, RefundExceedsOrder

Bank = Any


def part(operation_id: Any, fen: int) -> RefundPart:
    return RefundPart(operation_id=operation_id, refunded_fen=fen)


async def test_what_comes_back_pays_for_what_goes(bank: Bank, connection: Connection) -> None:
    """The order earned 100; 80 of these points paid for another part of it, and only 20 are left."""
    member = await bank.enrol(connection)
    earned = await bank.earn(connection, member, 100)
    spent = await bank.spend_at_once(connection, member, 80, order_fen=10_000)
    done = await service.refund(
        connection,
        spend=part(spent.id, 10_000),
        earning=part(earned.operation_id, 10_000),
        partner_id=bank.partner_id,
        refund_ref="r1",
        now=bank.now,
    )
    assert (done.spend.points_restored, done.earning.points_clawed_back) == (80, 100)
    assert done.earning.arrears_added == 0
    assert (done.balance.available_points, done.balance.arrears_points) == (0, 0)
    assert await bank.lots(connection, member) == [(100, 0, 0)]
    assert await bank.audit(connection, member) == []
    assert await bank.contradictions(connection) == []


async def test_each_side_has_its_own_cumulative_floor(bank: Bank, connection: Connection) -> None:
    member = await bank.enrol(connection)
    await bank.earn(connection, member, 500)
    earned = await bank.earn(connection, member, 100)
    spent = await bank.spend_at_once(connection, member, 50, order_fen=10_000)
    sums = []
    for number, fen in enumerate((3_333, 3_333, 3_334)):
        done = await service.refund(
            connection,
            spend=part(spent.id, fen),
            earning=part(earned.operation_id, fen),
            partner_id=bank.partner_id,
            refund_ref=f"r{number}",
            now=bank.now,
        )
        sums.append((done.spend.points_restored, done.earning.points_clawed_back))
    assert sums == [(16, 33), (17, 33), (17, 34)]
    assert await bank.available(connection, member) == 500
    assert await bank.audit(connection, member) == []


@pytest.mark.parametrize("side", ["spend", "earn"])
async def test_a_side_refunded_under_the_number_refuses_the_whole(
    bank: Bank, connection: Connection, side: Any
) -> None:
    member = await bank.enrol(connection)
    earned = await bank.earn(connection, member, 100)
    spent = await bank.spend_at_once(connection, member, 50, order_fen=10_000)
    await service.reverse(
        connection,
        operation_id=spent.id if side == "spend" else earned.operation_id,
        partner_id=bank.partner_id,
        side=side,
        refund_ref="r1",
        refunded_fen=1_000,
        now=bank.now,
    )
    before = await bank.lots(connection, member)
    with pytest.raises(RefundAlreadyPosted):
        await service.refund(
            connection,
            spend=part(spent.id, 1_000),
            earning=part(earned.operation_id, 1_000),
            partner_id=bank.partner_id,
            refund_ref="r1",
            now=bank.now,
        )
    assert await bank.lots(connection, member) == before
    assert await bank.audit(connection, member) == []


async def test_a_side_that_exceeds_its_order_refuses_the_whole(bank: Bank, connection: Connection) -> None:
    member = await bank.enrol(connection)
    earned = await bank.earn(connection, member, 100)
    spent = await bank.spend_at_once(connection, member, 50)
    with pytest.raises(RefundExceedsOrder):
        await service.refund(
            connection,
            spend=part(spent.id, 50),
            earning=part(earned.operation_id, 10_001),
            partner_id=bank.partner_id,
            refund_ref="r1",
            now=bank.now,
        )
    assert await bank.lots(connection, member) == [(100, 50, 0)]
    assert await bank.audit(connection, member) == []


async def test_both_sides_are_one_members(bank: Bank, connection: Connection) -> None:
    member, other = await bank.enrol(connection), await bank.enrol(connection)
    await bank.earn(connection, member, 100)
    earned = await bank.earn(connection, other, 100)
    spent = await bank.spend_at_once(connection, member, 50)
    with pytest.raises(RefundTargetsDiffer):
        await service.refund(
            connection,
            spend=part(spent.id, 50),
            earning=part(earned.operation_id, 50),
            partner_id=bank.partner_id,
            refund_ref="r1",
            now=bank.now,
        )


async def test_reversals_posted_together_see_each_other(bank: Bank, connection: Connection) -> None:
    member, other = await bank.enrol(connection), await bank.enrol(connection)
    first = (await bank.earn(connection, member, 100)).operation_id
    second = (await bank.earn(connection, other, 100)).operation_id
    spent = (await bank.spend_at_once(connection, other, 100, order_fen=10_000)).id
    asked: list[tuple[Any, Any, str, int]] = [
        (first, "earn", "a", 5_000),
        (second, "earn", "a", 4_000),
        (first, "earn", "a", 1_000),
        (first, "earn", "b", 5_001),
        (spent, "spend", "a", 9_000),
        (first, "earn", "c", 5_000),
        (spent, "earn", "d", 1),
        (second, "earn", "e", 6_000),
    ]
    answers = await service.reverse_each(
        connection,
        [
            ReversalRequest(
                operation_id=operation_id,
                partner_id=bank.partner_id,
                side=side,
                refund_ref=ref,
                refunded_fen=fen,
            )
            for operation_id, side, ref, fen in asked
        ],
        now=bank.now,
    )
    assert [answer.code if isinstance(answer, Refusal) else "done" for answer in answers] == [
        "done",
        "done",
        "refund_already_posted",
        "refund_exceeds_order",
        "done",
        "done",
        "operation_not_found",
        "done",
    ]
    done = [answer for answer in answers if isinstance(answer, Reversal)]
    assert [(one.points_clawed_back, one.points_restored, one.arrears_added) for one in done] == [
        (50, 0, 0),
        (40, 0, 40),
        (0, 90, 0),
        (50, 0, 0),
        (60, 0, 10),
    ]
    for who in (member, other):
        assert await bank.audit(connection, who) == []
    assert await bank.contradictions(connection) == []
