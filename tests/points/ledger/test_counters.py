"""What a batch costs the database, counted: figures that no machine's speed changes."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

from kernel.database import Connection
from points.ledger import service
from points.ledger.model import CloseRequest, Hold, HoldRequest

Bank = Any

WRITTEN = """
SELECT n_tup_ins + n_tup_upd FROM pg_stat_xact_user_tables WHERE relname = $1
"""

WAL_END = "SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint"

#: updates of lots that made new entries in every index
MOVED_OFF = """
SELECT n_tup_upd - n_tup_hot_upd FROM pg_stat_xact_user_tables WHERE relname = 'ledger_lot'
"""


async def written(connection: Connection, table: str) -> int:
    """How many rows of `table` this transaction has inserted or updated so far."""
    count: int = await connection.fetchval(WRITTEN, table)
    return count


@asynccontextmanager
async def statements_of(connection: Connection) -> AsyncGenerator[list[str], None]:
    """The statements sent while the block runs."""
    statements: list[str] = []
    with connection.query_logger(lambda record: statements.append(record.query)):
        yield statements
        await asyncio.sleep(0)  # the driver tells of a statement after it


async def test_a_batch_writes_each_house_slot_and_each_wallet_once(
    connection: Connection, bank: Bank
) -> None:
    members = [await bank.enrol(connection) for _ in range(3)]
    slots = {member.bucket for member in members}
    await service.post_earnings(connection, [bank.posting(member, 10) for member in members], now=bank.now)
    before = await written(connection, "ledger_house_slot"), await written(connection, "ledger_wallet")

    postings = [bank.posting(members[n % 3], 10 + n) for n in range(60)]
    await service.post_earnings(connection, postings, now=bank.now)

    assert await written(connection, "ledger_house_slot") - before[0] == len(slots)
    assert await written(connection, "ledger_wallet") - before[1] == 3


async def test_a_batch_of_earnings_is_one_round_trip(connection: Connection, bank: Bank) -> None:
    members = [await bank.enrol(connection) for _ in range(3)]
    await bank.earn(connection, members[0], 1)  # the first time, the driver asks for the types

    async with statements_of(connection) as statements:
        await service.post_earnings(
            connection, [bank.posting(members[n % 3], 10 + n) for n in range(60)], now=bank.now
        )

    assert len(statements) == 1


async def test_an_earning_writes_less_than_four_kilobytes_of_wal(connection: Connection, bank: Bank) -> None:
    members = [await bank.enrol(connection) for _ in range(3)]

    async def write() -> int:
        begun: int = await connection.fetchval(WAL_END)
        await service.post_earnings(
            connection, [bank.posting(members[n % 3], 10 + n) for n in range(300)], now=bank.now
        )
        written: int = await connection.fetchval(WAL_END)
        return written - begun

    await write()  # the first time after a checkpoint, whole pages are written
    assert min([await write() for _ in range(3)]) < 300 * 4_000


async def test_what_a_hold_leaves_of_a_lot_stays_on_its_page(connection: Connection, bank: Bank) -> None:
    member = await bank.enrol(connection)
    await bank.earn(connection, member, 1_000)
    before = await connection.fetchval(MOVED_OFF)

    for _ in range(5):
        await bank.spend(connection, member, 1)

    assert await connection.fetchval(MOVED_OFF) == before


async def test_holds_cost_the_same_statements_however_many(connection: Connection, bank: Bank) -> None:
    members = [await bank.enrol(connection) for _ in range(3)]
    for member in members:
        await bank.earn(connection, member, 1_000)

    async def cost_of(count: int) -> tuple[int, int]:
        requests = [
            HoldRequest(
                member=members[n % 3],
                partner_id=bank.partner_id,
                points=1,
                order_ref=str(uuid4()),
                ttl_seconds=60,
            )
            for n in range(count)
        ]
        async with statements_of(connection) as placing:
            holds = await service.place_holds(connection, requests, now=bank.now)
        closings = [
            CloseRequest(hold_id=hold.id, partner_id=bank.partner_id, state="captured")
            for hold in holds
            if isinstance(hold, Hold)
        ]
        async with statements_of(connection) as closing:
            await service.close_holds(connection, closings, now=bank.now)
        return len(placing), len(closing)

    await cost_of(1)  # the first time, the driver asks for the types
    assert await cost_of(1) == await cost_of(60) == (1, 2)
