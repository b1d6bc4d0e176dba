"""Points of a campaign go wherever points go, and the books stay in order."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from kernel.database import Connection
from points.earning import campaigns, reversals
from points.earning.book import SHELF
from points.earning.model import Earned
from points.earning.service import earn
from points.ledger import budgets
from points.ledger import service as ledger
from points.ledger.deeds import ExchangeRequest, RefundPart, TransferRequest
from points.ledger.model import POINTS

Bank = Any
Marketing = Any


async def contradictions(connection: Connection) -> list[str]:
    views = await connection.fetch(
        "SELECT viewname FROM pg_views WHERE viewname ~ '^books_i[0-9]+_' ORDER BY viewname"
    )
    return [view[0] for view in views if await connection.fetch(f"SELECT FROM {view[0]}")]


async def test_points_of_a_campaign_are_given_exchanged_spent_and_refunded_after_it_ended(
    connection: Connection, bank: Bank, marketing: Marketing
) -> None:
    found_before = await contradictions(connection)
    member, friend = await bank.enrol(connection), await bank.enrol(connection)
    await marketing.run("double", budget={"total": 1_000}, member_cap_points=500)
    SHELF.forget()
    bought = marketing.activity(member, "order")
    [earned] = await earn(connection, [bought], partner_id=bank.partner_id, now=bank.now)
    assert isinstance(earned, Earned) and earned.points == 200
    budget_id = (await campaigns.find_campaign(connection, "double")).budget_id
    assert budget_id is not None
    gift = TransferRequest(
        sender=member,
        receiver=friend,
        partner_id=bank.partner_id,
        points=120,
        transfer_ref="gift",
        point_type=POINTS,
    )
    await ledger.send_points(connection, gift, now=bank.now)
    assert await ledger.end_transfers(connection, bank.everybody, limit=9, now=bank.now) == 1
    miles = await bank.register_type(connection)
    await ledger.set_rate(
        connection,
        from_type=POINTS,
        to_type=miles,
        numerator=1,
        denominator=3,
        valid_from=bank.now,
        by="ann",
        now=bank.now,
    )
    exchange = ExchangeRequest(
        member=friend,
        partner_id=bank.partner_id,
        from_type=POINTS,
        to_type=miles,
        points=60,
        exchange_ref="x",
    )
    await ledger.exchange_points(connection, exchange, now=bank.now)
    spent = await bank.spend_at_once(connection, member, 80, order_fen=10_000)
    assert await contradictions(connection) == found_before

    await campaigns.end_campaign(connection, "double", by="checker", now=bank.now)
    later = bank.now + timedelta(days=3)
    done = await reversals.refund(
        connection,
        spend=RefundPart(operation_id=spent.id, refunded_fen=5_000),
        earning=RefundPart(operation_id=earned.operation_id, refunded_fen=5_000),
        partner_id=bank.partner_id,
        refund_ref="half",
        now=later,
    )
    assert (done.spend.points_restored, done.earning.points_clawed_back) == (40, 100)
    assert done.balance.arrears_points == 60
    assert (await budgets.read_budget(connection, budget_id)).used == 50
    years = bank.now + timedelta(days=900)
    await _refund(connection, bank, "spend", spent.id, years)
    await _refund(connection, bank, "earn", earned.operation_id, years)
    assert (await budgets.read_budget(connection, budget_id)).used == 0
    assert await contradictions(connection) == found_before


async def _refund(connection: Connection, bank: Bank, side: Any, operation_id: UUID, now: Any) -> None:
    await reversals.reverse(
        connection,
        operation_id=operation_id,
        partner_id=bank.partner_id,
        side=side,
        refund_ref="rest",
        refunded_fen=5_000,
        now=now,
    )


async def test_a_source_named_twice_in_a_batch_with_different_campaigns_earns_and_draws_once(
    connection: Connection, bank: Bank, marketing: Marketing
) -> None:
    member = await bank.enrol(connection)
    for code in ("one", "two"):
        await marketing.run(code, named_only=True, budget={"total": 150}, member_daily_cap_points=150)
    SHELF.forget()
    items = [marketing.activity(member, "order", campaign=code) for code in ("one", "two", "one")]
    answers = await earn(connection, items, partner_id=bank.partner_id, now=bank.now)
    assert [isinstance(answer, Earned) for answer in answers] == [True, False, False]
    for code, used in (("one", 100), ("two", 0)):
        budget_id = (await campaigns.find_campaign(connection, code)).budget_id
        assert budget_id is not None
        assert (await budgets.read_budget(connection, budget_id)).used == used
    assert await bank.available(connection, member) == 200
    assert await marketing.contradictions() == {}
    # what the copies took and gave back can be had again
    again = [marketing.activity(member, "other", campaign="two")]
    [answer] = await earn(connection, again, partner_id=bank.partner_id, now=bank.now)
    assert isinstance(answer, Earned) and answer.points == 200
