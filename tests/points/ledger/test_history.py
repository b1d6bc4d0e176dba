"""An earlier moment is answered from what was recorded then, and from nothing that happened since."""

import json
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from kernel import jobs
from kernel.caller import MemberRef
from kernel.database import Connection
from points.ledger import history_queries, service
from points.ledger.model import Balance

Bank = Any
TICK = timedelta(microseconds=1)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def balance(available: int, held: int = 0, arrears: int = 0) -> Balance:
    return Balance(available_points=available, held_points=held, pending_points=0, arrears_points=arrears)


async def test_a_balance_is_what_the_last_entry_by_then_left(bank: Bank, connection: Connection) -> None:
    member, start = await bank.enrol(connection), bank.now
    await bank.earn(connection, member, 100)
    hold = await bank.hold(connection, member, 30, ttl_seconds=86_400, now=start + HOUR)
    await service.capture_hold(
        connection, hold_id=hold.id, partner_id=bank.partner_id, points=20, now=start + 2 * HOUR
    )
    expected = [
        (start - TICK, balance(0)),
        (start, balance(100)),
        (start + HOUR - TICK, balance(100)),
        (start + HOUR, balance(70, held=30)),
        (start + 2 * HOUR, balance(80)),
        (start + 1000 * HOUR, balance(80)),
    ]
    for at, found in expected:
        assert await service.balance_at(connection, member, at=at) == found


async def test_points_end_at_their_instant_whenever_the_sweep_came_by(
    bank: Bank, connection: Connection
) -> None:
    member, start = await bank.enrol(connection), bank.now
    await bank.earn(connection, member, 100, expires_in=DAY)
    await bank.earn(connection, member, 7)
    await bank.hold(connection, member, 40, ttl_seconds=86_400 * 7)
    moments = [start, start + DAY - TICK, start + DAY, start + 2 * DAY]
    seen = [await service.read_balance(connection, member, now=moment) for moment in moments]
    assert [found.available_points for found in seen] == [67, 67, 7, 7]
    assert [await service.balance_at(connection, member, at=moment) for moment in moments] == seen
    await service.expire_due(connection, limit=10, now=start + 3 * DAY)
    assert [await service.balance_at(connection, member, at=moment) for moment in moments] == seen


async def test_what_was_to_end_next_is_told_as_it_was(bank: Bank, connection: Connection) -> None:
    member, start = await bank.enrol(connection), bank.now
    await bank.earn(connection, member, 100, expires_in=DAY)
    await bank.earn(connection, member, 7, expires_in=2 * DAY)
    asked = [await service.list_expiring(connection, member, now=start)]
    await bank.hold(connection, member, 103, now=start + HOUR)
    asked.append(await service.list_expiring(connection, member, now=start + HOUR))
    later = [start, start + HOUR]
    assert [await service.list_expiring_at(connection, member, at=at) for at in later] == asked
    assert [[line.points for line in lines] for lines in asked] == [[100, 7], [4]]


async def test_a_day_ends_at_midnight_in_shanghai(bank: Bank, connection: Connection) -> None:
    member = await bank.enrol(connection)
    midnight = datetime(2026, 11, 30, 16, tzinfo=UTC)
    await bank.earn(connection, member, 1, now=midnight - TICK)
    await bank.earn(connection, member, 20, now=midnight)
    days = [date(2026, 11, 29), date(2026, 11, 30), date(2026, 12, 1)]
    found = [(await service.balance_on(connection, member, day=day)).available_points for day in days]
    assert found == [0, 1, 21]


async def test_late_news_change_no_earlier_balance(bank: Bank, connection: Connection) -> None:
    member, start = await bank.enrol(connection), bank.now
    await bank.earn(connection, member, 5)
    before = await service.balance_at(connection, member, at=start + DAY)
    await bank.earn(connection, member, 9, now=start + 2 * DAY)  # the event itself was at `start`
    assert await service.balance_at(connection, member, at=start + DAY) == before
    assert await bank.available(connection, member, start + 2 * DAY) == 14


async def test_requests_that_overtook_each_other_make_one_history(bank: Bank, connection: Connection) -> None:
    member, start = await bank.enrol(connection), bank.now
    await bank.earn(connection, member, 1, now=start + 2 * TICK)
    await bank.earn(connection, member, 20, now=start + TICK)
    assert (await service.balance_at(connection, member, at=start + DAY)).available_points == 21


async def test_the_house_stands_as_its_slots_say(bank: Bank, connection: Connection) -> None:
    member, start = await bank.enrol(connection), bank.now
    today = date(2026, 11, 20)
    before = await _house(connection, today), await _house(connection, today + DAY)
    await bank.earn(connection, member, 100, now=start)
    await bank.spend(connection, member, 30)
    await bank.earn(connection, member, 7, now=start + DAY)
    after = await _house(connection, today), await _house(connection, today + DAY)
    assert [after[0].get(name, 0) - before[0].get(name, 0) for name in ("issued", "redeemed")] == [100, 30]
    assert [after[1].get(name, 0) - before[1].get(name, 0) for name in ("issued", "redeemed")] == [107, 30]


async def _house(connection: Connection, day: date) -> dict[str, int]:
    found = await service.house_balances_on(connection, day=day)
    return {line.account: line.balance_points for line in found if line.funder == "bank"}


@pytest.mark.parametrize("stated", [False, True])
async def test_an_old_balance_is_found_by_key(bank: Bank, connection: Connection, stated: bool) -> None:
    member, start = await bank.enrol(connection), bank.now
    for place in range(60):
        await bank.earn(connection, member, 1, now=start + place * DAY)
    if stated:
        for period in (date(2026, 11, 1), date(2026, 12, 1)):
            await _issue(connection, period)
    plan = await _explain(connection, member, start + 2 * DAY)
    scans = [node for node in _nodes(plan) if node.get("Relation Name") == "ledger_entry"]
    assert [(node["Node Type"], node["Index Name"]) for node in scans] == [
        ("Index Scan", "ledger_entry_pkey")
    ]
    assert scans[0]["Scan Direction"] == "Backward"
    assert not [node for node in _nodes(plan) if node["Node Type"] == "Seq Scan"]
    # 60 days are 11 of November, 31 of December, 18 of January; the statement spares the later months
    assert scans[0]["Rows Removed by Filter"] == (8 if stated else 57)


async def _issue(connection: Connection, period: date) -> None:
    now = datetime(2027, 3, 1, tzinfo=UTC)
    while await jobs.advance(connection, service.STATEMENTS, business_on=period, now=now):
        pass


async def _explain(connection: Connection, member: MemberRef, at: datetime) -> dict[str, Any]:
    await connection.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off")
    text = await connection.fetchval(
        f"EXPLAIN (ANALYZE, FORMAT JSON) {history_queries.READ_BALANCE_AT}",
        member.bucket,
        member.member_id,
        at,
        date(2026, 11, 1),
        1,
    )
    plan: dict[str, Any] = json.loads(text)[0]["Plan"]
    return plan


def _nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(node for child in plan.get("Plans", []) for node in _nodes(child))]
