"""What a wallet's statements read when the wallet, or the bank, has very many lots: the wallet's own, each once."""

import json
from datetime import date, timedelta
from typing import Any

import pytest

from kernel.caller import MemberRef
from kernel.database import Connection
from points.ledger import history_queries, queries, service
from points.ledger.model import TESSERA, wallet_ref
from points.ledger.rules import InsufficientPoints

Bank = Any
DAY = timedelta(days=1)


async def test_an_old_balance_reads_every_move_once(bank: Bank, connection: Connection) -> None:
    member = await _saver(bank, connection, lots=40)
    key, at = (member.bucket, member.member_id), bank.now + 50 * DAY
    for statement, arguments in (
        (history_queries.READ_BALANCE_AT, (*key, at, date(2027, 1, 1), 1)),
        (history_queries.LIST_EXPIRING_AT, (*key, at, 12, 1)),
    ):
        scans = _scans(await _explain(connection, statement, *arguments), "ledger_lot_change")
        assert [node["Actual Loops"] for node in scans] == [1]


async def test_a_sweep_reads_no_lot_that_is_not_due(bank: Bank, connection: Connection) -> None:
    member = await _saver(bank, connection, lots=40)
    at = bank.now + 10 * DAY + timedelta(hours=1)
    assert len(await queries.list_due_lots(connection, [wallet_ref(member)], now=at)) == 10
    plan = await _explain(
        connection, queries.LIST_DUE_LOTS, [member.bucket], [member.member_id], at, [TESSERA]
    )
    read = sum(node["Actual Rows"] + node["Rows Removed by Filter"] for node in _scans(plan, "ledger_lot"))
    assert read == 10


async def test_a_sweep_ends_with_the_wallet_in_which_its_limit_is_reached(
    bank: Bank, connection: Connection
) -> None:
    later = bank.now + 90 * DAY
    while await service.expire_due(connection, limit=1_000, now=later):
        pass  # whatever else there is in these books
    for _ in range(5):
        await _saver(bank, connection, lots=4)
    swept = [await service.expire_due(connection, limit=5, now=later) for _ in range(4)]
    assert swept == [8, 8, 4, 0]


@pytest.mark.parametrize("lots", [1, 3, 4, 5, 31, 32, 33, 40])
@pytest.mark.parametrize("spare", [0, 1, 9, 10, 15])
async def test_a_hold_of_any_number_of_lots_takes_the_soonest(
    bank: Bank, connection: Connection, lots: int, spare: int
) -> None:
    member = await _saver(bank, connection, lots=lots)
    points = max(1, 10 * lots - spare)
    hold = await bank.hold(connection, member, points)
    pinned = await connection.fetch(
        "SELECT lot_seq, points FROM ledger_hold_lot WHERE hold_id = $1 ORDER BY lot_seq", hold.id
    )
    whole, rest = divmod(points, 10)
    taken = [*((seq, 10) for seq in range(1, whole + 1)), *([(whole + 1, rest)] if rest else [])]
    assert [tuple(row) for row in pinned] == taken


@pytest.mark.parametrize("lots", [3, 4, 5, 32, 33])
async def test_more_than_all_lots_hold_is_refused_with_what_is_free(
    bank: Bank, connection: Connection, lots: int
) -> None:
    member = await _saver(bank, connection, lots=lots)
    with pytest.raises(InsufficientPoints) as refused:
        await bank.hold(connection, member, 10 * lots + 1)
    assert refused.value.facts["available_points"] == 10 * lots


async def _saver(bank: Bank, connection: Connection, *, lots: int) -> MemberRef:
    """A member of whose lots one ends every day."""
    member: MemberRef = await bank.enrol(connection)
    postings = [bank.posting(member, 10, expires_in=day * DAY) for day in range(1, lots + 1)]
    await service.post_earnings(connection, postings, now=bank.now)
    return member


async def _explain(connection: Connection, statement: str, *arguments: Any) -> dict[str, Any]:
    """The plan of tables that the planner knows nothing about yet, as it ran."""
    await connection.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off")
    text = await connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", *arguments)
    plan: dict[str, Any] = json.loads(text)[0]["Plan"]
    return plan


def _scans(plan: dict[str, Any], table: str) -> list[dict[str, Any]]:
    """The nodes that read the table, those never executed aside."""
    below = [node for child in plan.get("Plans", []) for node in _scans(child, table)]
    here = plan.get("Relation Name") == table and plan["Actual Loops"] > 0
    return (
        [plan | {"Rows Removed by Filter": plan.get("Rows Removed by Filter", 0)}, *below] if here else below
    )
