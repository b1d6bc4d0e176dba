"""A month of a wallet is stated once it is over, closes, follows the month before, and never changes."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from kernel import jobs
from kernel.caller import MemberRef
from kernel.database import Connection
from points.ledger import service
from points.ledger.deeds import ExchangeRequest, TransferRequest
from points.ledger.model import POINTS, Statement
from points.ledger.statements import EarlierMonthOpen, PeriodNotOver

Bank = Any
NOVEMBER, DECEMBER, JANUARY = date(2026, 11, 1), date(2026, 12, 1), date(2027, 1, 1)
#: the first instant of December in Shanghai
MIDNIGHT = datetime(2026, 11, 30, 16, tzinfo=UTC)
TICK = timedelta(microseconds=1)
LATER = datetime(2027, 3, 15, tzinfo=UTC)


@pytest.fixture(autouse=True)
async def nothing_before_november(connection: Connection) -> None:
    """What other tests have committed lies in no month before."""
    first: date | None = await connection.fetchval("SELECT min(business_on) FROM ledger_house_slot")
    assert first is None or first >= NOVEMBER


async def issue(
    connection: Connection, period: date, *, limit: int = 500, now: datetime = LATER
) -> jobs.RunState:
    while await jobs.advance(connection, service.issuing(limit), business_on=period, now=now):
        pass
    return await found(connection, period)


async def found(connection: Connection, period: date) -> jobs.RunState:
    run = await jobs.find_run(connection, "statements", business_on=period)
    assert run is not None
    return run


async def statements(connection: Connection, member: MemberRef) -> Sequence[Statement]:
    """Oldest first."""
    return list(await service.list_statements(connection, member, limit=100, now=LATER))[::-1]


async def test_the_month_ends_at_midnight_in_shanghai(bank: Bank, connection: Connection) -> None:
    member = await bank.enrol(connection)
    await bank.earn(connection, member, 100, now=MIDNIGHT - TICK)
    await bank.earn(connection, member, 7, now=MIDNIGHT)
    await issue(connection, NOVEMBER)
    await issue(connection, DECEMBER)
    november, december = await statements(connection, member)
    assert (november.period, november.earned_points, november.closing_points) == (NOVEMBER, 100, 100)
    assert (december.period, december.opening_points, december.earned_points) == (DECEMBER, 100, 7)
    assert (november.first_seq, november.last_seq, december.first_seq, december.last_seq) == (1, 1, 2, 2)


async def test_every_kind_of_entry_has_its_own_line(bank: Bank, connection: Connection) -> None:
    member, now = await bank.enrol(connection), bank.now
    earned = await bank.earn(connection, member, 500, amount_fen=50_000)
    await bank.earn(connection, member, 40, expires_in=timedelta(days=1))
    spent, kept = await bank.hold(connection, member, 300), await bank.hold(connection, member, 100)
    partner = {"partner_id": bank.partner_id}
    await service.capture_hold(connection, hold_id=spent.id, points=250, now=now, **partner)
    await service.reverse(
        connection, operation_id=spent.id, side="spend", refund_ref="a", refunded_fen=50, now=now, **partner
    )
    next_day = now + timedelta(days=1)
    await service.expire_due(connection, limit=10, now=next_day)
    await service.reverse(
        connection,
        operation_id=earned.operation_id,
        side="earn",
        refund_ref="b",
        refunded_fen=50_000,
        now=next_day,
        **partner,
    )
    balance = await service.read_balance(connection, member, now=next_day)
    await bank.earn(connection, member, 30, now=next_day)
    await issue(connection, NOVEMBER)
    (stated,) = await statements(connection, member)
    assert (stated.earned_points, stated.spent_points, stated.restored_points) == (570, 250, 50)
    assert stated.owed_points == balance.arrears_points > 0
    assert stated.repaid_points == 30
    assert stated.closing_arrears_points == balance.arrears_points - 30
    assert stated.expired_points + stated.clawed_points == 570 + 50 - 250 - 30 - stated.closing_points
    assert stated.closing_held_points == kept.points == stated.closing_points, "what is held is still owned"
    assert stated.opening_points == stated.opening_arrears_points == 0


async def test_what_else_happens_has_lines_of_its_own_and_a_quiet_month_has_none(
    bank: Bank, connection: Connection
) -> None:
    member, other = await bank.enrol(connection), await bank.enrol(connection)
    miles = await bank.register_type(connection)
    await bank.earn(connection, member, 500)
    await bank.spend_at_once(connection, member, 20)
    for points in (30, -12):
        await bank.adjust(connection, member, points)
    for points, consents in ((50, bank.everybody), (7, bank.nobody)):
        request = TransferRequest(
            sender=member,
            receiver=other,
            partner_id=bank.partner_id,
            points=points,
            transfer_ref=f"t{points}",
            point_type=POINTS,
        )
        await service.send_points(connection, request, now=bank.now)
        await service.end_transfers(connection, consents, limit=9, now=bank.now)
    await service.set_rate(
        connection,
        from_type=POINTS,
        to_type=miles,
        numerator=1,
        denominator=10,
        valid_from=bank.now,
        by="admin:ann",
        now=bank.now,
    )
    exchange = ExchangeRequest(
        member=member,
        partner_id=bank.partner_id,
        from_type=POINTS,
        to_type=miles,
        points=101,
        exchange_ref="x",
    )
    await service.exchange_points(connection, exchange, now=bank.now)
    await issue(connection, NOVEMBER)
    (stated,) = await statements(connection, member)
    figures = (
        (stated.spent_points, stated.adjusted_in_points, stated.adjusted_out_points),
        (stated.transferred_in_points, stated.transferred_out_points),
        (stated.exchanged_in_points, stated.exchanged_out_points),
        stated.closing_points,
    )
    assert figures == ((20, 30, 12), (7, 57), (0, 100), 500 - 20 + 30 - 12 - 57 + 7 - 100)
    views = ("books_i40_statement_is_its_entries", "books_i41_statements_follow_each_other")
    for view in views:
        assert await connection.fetch(f"SELECT FROM {view} WHERE member_id = $1", member.member_id) == []
    await issue(connection, DECEMBER)
    quiet = await service.find_statement(connection, member, period=DECEMBER)
    assert quiet is not None
    assert quiet.opening_points == quiet.closing_points == stated.closing_points
    assert (quiet.adjusted_in_points, quiet.transferred_out_points, quiet.exchanged_out_points) == (0, 0, 0)


@pytest.mark.parametrize("now", [MIDNIGHT - TICK, MIDNIGHT, MIDNIGHT + timedelta(minutes=10) - TICK])
async def test_a_month_is_stated_ten_minutes_after_it_is_over(connection: Connection, now: datetime) -> None:
    with pytest.raises(PeriodNotOver):
        await jobs.advance(connection, service.STATEMENTS, business_on=NOVEMBER, now=now)


async def test_months_are_stated_in_their_order(bank: Bank, connection: Connection) -> None:
    member = await bank.enrol(connection)
    await bank.earn(connection, member, 1)
    await bank.earn(connection, member, 1, now=MIDNIGHT)
    assert (await service.list_open_months(connection, until=DECEMBER)) == [NOVEMBER, DECEMBER]
    with pytest.raises(EarlierMonthOpen):
        await jobs.advance(connection, service.STATEMENTS, business_on=DECEMBER, now=LATER)
    await issue(connection, NOVEMBER)
    assert (await service.list_open_months(connection, until=JANUARY)) == [DECEMBER, JANUARY]


async def test_a_job_goes_on_where_it_was_and_a_second_run_changes_nothing(
    bank: Bank, connection: Connection
) -> None:
    members = [await bank.enrol(connection) for _ in range(5)]
    for member in members:
        await bank.earn(connection, member, 10)
    before = await connection.fetchval("SELECT count(*) FROM ledger_wallet")
    assert await jobs.advance(connection, service.issuing(2), business_on=NOVEMBER, now=LATER)
    first = await found(connection, NOVEMBER)
    assert (first.finished_at, first.done <= 2) == (None, True)
    finished = await issue(connection, NOVEMBER, limit=2)
    assert finished.done <= before
    rows = await connection.fetch("SELECT * FROM ledger_statement ORDER BY bucket, member_id, period")
    assert len([row for row in rows if row["member_id"] in {m.member_id for m in members}]) == 5
    assert await issue(connection, NOVEMBER, now=LATER + timedelta(days=1)) == finished
    assert await connection.fetch("SELECT * FROM ledger_statement ORDER BY bucket, member_id, period") == rows


async def test_a_run_whose_place_was_lost_issues_nothing_twice(bank: Bank, connection: Connection) -> None:
    member = await bank.enrol(connection)
    await bank.earn(connection, member, 10)
    await issue(connection, NOVEMBER)
    again = await connection.fetchval(
        "SELECT made FROM ledger_issue_statements($1, -1::smallint, 0, 0::smallint, 100, $2)", NOVEMBER, LATER
    )
    assert again == 0


async def test_a_quiet_month_is_told_from_the_one_before(bank: Bank, connection: Connection) -> None:
    member = await bank.enrol(connection)
    await bank.earn(connection, member, 10)
    for period in (NOVEMBER, DECEMBER, JANUARY):
        await issue(connection, period)
    assert len(await statements(connection, member)) == 1
    assert await service.find_statement(connection, member, period=date(2026, 10, 1)) is None
    quiet = await service.find_statement(connection, member, period=JANUARY)
    assert quiet is not None
    assert (quiet.period, quiet.opening_points, quiet.closing_points, quiet.earned_points) == (
        JANUARY,
        10,
        10,
        0,
    )
    assert (quiet.first_seq, quiet.last_seq) == (2, 1)
    assert await service.find_statement(connection, member, period=date(2027, 2, 1)) is None, "not issued yet"


async def test_a_request_overtaken_at_midnight_is_on_the_next_statement(
    bank: Bank, connection: Connection
) -> None:
    member = await bank.enrol(connection)
    await bank.earn(connection, member, 1, now=MIDNIGHT - 2 * TICK)
    await bank.earn(connection, member, 20, now=MIDNIGHT)
    await bank.earn(connection, member, 300, now=MIDNIGHT - TICK)
    await issue(connection, NOVEMBER)
    await issue(connection, DECEMBER)
    assert [(s.earned_points, s.closing_points) for s in await statements(connection, member)] == [
        (1, 1),
        (320, 321),
    ]


COPY = """
INSERT INTO ledger_statement (
    bucket, member_id, point_type, period, opening_points, earned_points, restored_points, spent_points, expired_points,
    clawed_points, repaid_points, closing_points, closing_held_points, opening_arrears_points, owed_points,
    closing_arrears_points, first_seq, last_seq, head_hash, issued_at)
SELECT bucket, member_id, point_type, '2026-12-01', {opening}, {earned}, 0, 0, 0, 0, 0, {closing}, 0, {arrears}, 0,
       {arrears}, last_seq + {step}, last_seq + 9, head_hash, issued_at
  FROM ledger_statement WHERE member_id = $1
"""
GOOD = {"opening": 10, "earned": 5, "closing": 15, "arrears": 0, "step": 1}


@pytest.mark.parametrize(
    ("change", "constraint"),
    [
        ({"opening": 11, "closing": 16}, "ledger_statement_link"),
        ({"arrears": 3}, "ledger_statement_link"),
        ({"step": 2}, "ledger_statement_link"),
        ({"closing": 16}, "ledger_statement_closes"),
        ({"step": 0}, "ledger_statement_begins_empty"),
        ({}, None),
    ],
)
async def test_a_statement_that_does_not_close_or_follow_cannot_be_written(
    bank: Bank, connection: Connection, change: dict[str, int], constraint: str | None
) -> None:
    member = await bank.enrol(connection)
    await bank.earn(connection, member, 10)
    await issue(connection, NOVEMBER)
    copy = COPY.format(**GOOD | change)
    if constraint is None:
        await connection.execute(copy, member.member_id)
        return
    with pytest.raises(asyncpg.IntegrityConstraintViolationError) as violation:
        await connection.execute(copy, member.member_id)
    assert violation.value.constraint_name == constraint


@pytest.mark.parametrize("table", ["ledger_statement", "ledger_seal"])
@pytest.mark.parametrize("act", ["UPDATE {} SET point_type = 1", "DELETE FROM {}", "TRUNCATE {}"])
async def test_the_application_cannot_change_what_it_stated(
    connection: Connection, table: str, act: str
) -> None:
    act = act.replace("point_type = 1", "leaves = 0") if table == "ledger_seal" else act
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute(act.format(table))


async def test_a_kind_of_entry_that_no_statement_knows_stops_the_job(
    bank: Bank, connection: Connection
) -> None:
    member = await bank.enrol(connection)
    await bank.earn(connection, member, 10)
    await connection.execute(
        "INSERT INTO ledger_entry SELECT bucket, member_id, point_type, 2, operation_id, 12, 1, 5, funder_id, 0, 15, 0, 0, 0,"
        " recorded_at, business_on, hash FROM ledger_entry WHERE member_id = $1",
        member.member_id,
    )
    await connection.execute(
        "UPDATE ledger_wallet SET seq = 2, available_points = 15 WHERE member_id = $1", member.member_id
    )
    with pytest.raises(asyncpg.CheckViolationError) as violation:
        await issue(connection, NOVEMBER)
    assert violation.value.constraint_name == "ledger_statement_closes"
