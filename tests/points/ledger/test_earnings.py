"""Earnings on real PostgreSQL: batches, sources that earn once, the chain, and what the books refuse."""

from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from kernel.database import Connection
from points.ledger import service
from points.ledger.model import POINTS_PER_YUAN, TESSERA, VALUE_FEN_E6, Account

Bank = Any

APPEND_ONLY = ("ledger_operation", "ledger_entry", "ledger_lot_change")


async def test_an_earning_fills_the_wallet_the_lot_and_the_outbox(bank: Bank, connection: Connection) -> None:
    member = await bank.enrol(connection)
    outcome = await bank.earn(connection, member, 1299, source_ref="order-1")
    assert outcome.posted
    assert outcome.balance.available_points == 1299
    assert await bank.lots(connection, member) == [(1299, 1299, 0)]
    event = await connection.fetchrow(
        "SELECT type, aggregate, payload FROM outbox_event WHERE partner_id = $1", bank.partner_id
    )
    assert event is not None
    assert event["type"] == "points.earned"
    assert event["payload"] == {
        "id": event["aggregate"],
        "kind": "purchase",
        "source_ref": "order-1",
        "points": 1299,
    }
    assert await bank.audit(connection, member) == []


async def test_several_earnings_of_one_member_in_one_batch_chain(bank: Bank, connection: Connection) -> None:
    members = [await bank.enrol(connection) for _ in range(5)]
    postings = [bank.posting(members[place % 5], 10 + place) for place in range(30)]
    outcomes = await service.post_earnings(connection, postings, now=bank.now)
    assert [outcome.operation_id for outcome in outcomes] == [posting.operation_id for posting in postings]
    for place, member in enumerate(members):
        assert await bank.available(connection, member) == sum(10 + p for p in range(place, 30, 5))
        assert await bank.audit(connection, member) == []


async def test_a_source_earns_once_within_a_batch_and_across_batches(
    bank: Bank, connection: Connection
) -> None:
    member, other = await bank.enrol(connection), await bank.enrol(connection)
    first = await bank.earn(connection, member, 5, source_ref="seen")
    postings = [
        bank.posting(member, 7, source_ref="new"),
        bank.posting(member, 7, source_ref="seen"),
        bank.posting(other, 7, source_ref="seen"),
        bank.posting(member, 7, source_ref="new"),
    ]
    outcomes = await service.post_earnings(connection, postings, now=bank.now)
    assert [outcome.posted for outcome in outcomes] == [True, False, True, False]
    assert outcomes[1].operation_id == first.operation_id
    assert outcomes[3].operation_id == postings[0].operation_id
    assert await bank.available(connection, member) == 12
    assert await bank.available(connection, other) == 7
    assert await bank.audit(connection, member) == []


async def test_one_batch_is_one_statement_and_one_update_per_house_slot(
    bank: Bank, connection: Connection
) -> None:
    member = await bank.enrol(connection)
    before = await connection.fetchval(
        "SELECT n_tup_upd + n_tup_ins FROM pg_stat_xact_all_tables WHERE relname = 'ledger_house_slot'"
    )
    postings = [bank.posting(member, 1) for _ in range(50)]
    await service.post_earnings(connection, postings, now=bank.now)
    after = await connection.fetchval(
        "SELECT n_tup_upd + n_tup_ins FROM pg_stat_xact_all_tables WHERE relname = 'ledger_house_slot'"
    )
    assert after - before == 1
    assert await bank.available(connection, member) == 50


async def test_an_earning_of_nothing_claims_its_source(bank: Bank, connection: Connection) -> None:
    member = await bank.enrol(connection)
    outcome = await bank.earn(connection, member, 0, source_ref="free", amount_fen=0)
    assert outcome.posted
    found = await service.find_earning(
        connection, member=member, partner_id=bank.partner_id, kind="purchase", source_ref="free"
    )
    assert found == outcome.operation_id
    assert not (await bank.earn(connection, member, 5, source_ref="free")).posted
    assert await bank.lots(connection, member) == []


async def test_an_earnings_balance_leaves_out_what_has_ended(bank: Bank, connection: Connection) -> None:
    member = await bank.enrol(connection)
    await bank.earn(connection, member, 10, expires_in=timedelta(hours=1))
    outcome = await bank.earn(connection, member, 5, now=bank.now + timedelta(hours=2))
    assert outcome.balance.available_points == 5


async def test_the_sweep_only_books_what_is_already_true(bank: Bank, connection: Connection) -> None:
    members = [await bank.enrol(connection) for _ in range(3)]
    for member in members:
        await bank.earn(connection, member, 10, expires_in=timedelta(hours=1))
        await bank.earn(connection, member, 5)
    later = bank.now + timedelta(hours=1)
    before = [await service.read_balance(connection, member, now=later) for member in members]
    assert await service.expire_due(connection, limit=1, now=later) > 0
    while await service.expire_due(connection, limit=2, now=later):
        continue
    for member in members:
        assert await bank.lots(connection, member) == [(10, 0, 0), (5, 5, 0)]
    assert [await service.read_balance(connection, member, now=later) for member in members] == before
    assert [balance.available_points for balance in before] == [5, 5, 5]
    for member in members:
        assert await bank.audit(connection, member) == []


async def test_expiring_points_are_listed_soonest_first(bank: Bank, connection: Connection) -> None:
    member = await bank.enrol(connection)
    for days in (30, 10, 30, 20):
        await bank.earn(connection, member, days, expires_in=timedelta(days=days))
    await bank.hold(connection, member, 10)
    lines = await service.list_expiring(connection, member, limit=2, now=bank.now)
    assert [(line.points, line.expires_at) for line in lines] == [
        (20, bank.now + timedelta(days=20)),
        (60, bank.now + timedelta(days=30)),
    ]


async def test_entries_come_in_pages_newest_first(bank: Bank, connection: Connection) -> None:
    member = await bank.enrol(connection)
    for points in (1, 2, 3):
        await bank.earn(connection, member, points)
    page = await service.list_entries(connection, member, partner_id=bank.partner_id, limit=2)
    assert [(entry.seq, entry.points, entry.credit) for entry in page] == [
        (3, 3, "available"),
        (2, 2, "available"),
    ]
    rest = await service.list_entries(connection, member, partner_id=bank.partner_id, before_seq=2, limit=2)
    assert [(entry.seq, entry.available_after) for entry in rest] == [(1, 1)]


@pytest.mark.parametrize("table", APPEND_ONLY)
@pytest.mark.parametrize("deed", ["UPDATE {} SET member_id = 0", "DELETE FROM {}", "TRUNCATE {}"])
async def test_the_application_cannot_change_the_past(connection: Connection, table: str, deed: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute(deed.format(table))


@pytest.mark.parametrize(
    "deed",
    [
        "UPDATE ledger_lot SET points = points + 1",
        "UPDATE ledger_hold SET points = points + 1",
        "UPDATE ledger_hold_lot SET points = points + 1",
        "UPDATE ledger_reversible SET base_points = 0",
        "DELETE FROM ledger_wallet",
        "DELETE FROM ledger_lot",
        "DELETE FROM ledger_house_slot",
    ],
)
async def test_what_was_granted_or_reserved_cannot_be_rewritten(connection: Connection, deed: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute(deed)


@pytest.mark.parametrize(
    "deed",
    [
        "UPDATE ledger_wallet SET available_points = -1",
        "UPDATE ledger_wallet SET arrears_points = 1",
        "UPDATE ledger_lot SET remaining_points = points + 1",
        "UPDATE ledger_lot SET held_points = remaining_points + 1",
    ],
)
async def test_the_constraints_guard_what_the_rules_promise(
    bank: Bank, connection: Connection, deed: str
) -> None:
    member = await bank.enrol(connection)
    await bank.earn(connection, member, 10)
    with pytest.raises(asyncpg.CheckViolationError):
        await connection.execute(f"{deed} WHERE member_id = $1", member.member_id)


async def test_a_changed_entry_breaks_the_chain(bank: Bank, connection: Connection) -> None:
    member = await bank.enrol(connection)
    for points in (1, 2, 3):
        await bank.earn(connection, member, points)
    forged = await connection.fetchval(
        """SELECT e.hash <> ledger_entry_hash(
                      (SELECT hash FROM ledger_entry WHERE member_id = $1 AND seq = 1),
                      ROW(e.bucket, e.member_id, e.point_type, e.seq, e.operation_id, e.debit_account,
                          e.credit_account, 200, e.funder_id, e.value_fen, e.available_after, e.held_after,
                          e.pending_after, e.arrears_after, e.recorded_at, e.business_on, e.hash)::ledger_entry)
             FROM ledger_entry AS e WHERE e.member_id = $1 AND e.seq = 2""",
        member.member_id,
    )
    assert forged


async def test_the_constants_are_those_of_the_tables(connection: Connection) -> None:
    assert await connection.fetchval(
        "SELECT value_fen_e6 FROM ledger_point_type WHERE code = $1", TESSERA
    ) == (VALUE_FEN_E6)
    assert POINTS_PER_YUAN * VALUE_FEN_E6 == 100 * 1_000_000
    accounts = {
        row["code"]: row["name"] for row in await connection.fetch("SELECT code, name FROM ledger_account")
    }
    assert {account.value: account.name.lower() for account in Account}.items() <= accounts.items()
    assert await connection.fetchval("SELECT id FROM ledger_funder WHERE code = 'bank'") == 1
