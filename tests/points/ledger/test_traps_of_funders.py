"""The known traps of points that others pay for, a test each, under the numbers they have among all traps of points ledgers."""

import asyncio
from datetime import date, timedelta
from typing import Any
from uuid import uuid4

from msgspec.structs import replace

from kernel.database import Connection, Pool, transaction
from kernel.ids import new_id
from points.ledger import service
from points.ledger.budgets import Want, draw, open_budget, read_budget
from points.ledger.funder_model import Terms
from points.ledger.funder_rules import FunderExhausted
from points.ledger.model import EarnPosting

Bank = Any
TODAY = date(2026, 11, 20)


async def test_trap_18_partner_funded_liability(bank: Bank, connection: Connection) -> None:
    """Funder and cost on lot and entry; prepaid never goes below zero; a cancellation returns to the same block; billed once."""
    funder = await service.register_funder(
        connection,
        code=f"partner:p{uuid4().hex[:12]}",
        kind="partner",
        partner_id=uuid4(),
        terms=Terms(
            effective_on=TODAY - timedelta(days=1), billing="prepaid", price_fen_e6=0, billing_ppm=1_000_000
        ),
        actor="test",
        now=bank.now,
    )
    await service.buy_block(
        connection,
        code=funder.code,
        points=100,
        paid_fen=70,
        starts_on=TODAY,
        purchase_ref="p-1",
        actor="test",
        now=bank.now,
    )
    member = await bank.enrol(connection)

    def posting(points: int) -> EarnPosting:
        made: EarnPosting = bank.posting(member, points)
        [grant] = made.grants
        return replace(made, grants=(replace(grant, funder_id=funder.id, lot_id=new_id(bank.now)),))

    async def left() -> int:
        [block] = await service.list_blocks(connection, code=funder.code)
        return block.points - block.used_points

    [answer] = await service.post_funded_earnings(connection, [posting(80)], now=bank.now)
    assert not isinstance(answer, FunderExhausted)
    [refused] = await service.post_funded_earnings(connection, [posting(21)], now=bank.now)
    assert isinstance(refused, FunderExhausted)
    assert (await left(), await bank.available(connection, member)) == (20, 80)
    [entry] = await connection.fetch(
        "SELECT e.funder_id, e.value_fen, l.funder_id AS of_lot, l.unit_cost_e6 FROM ledger_entry AS e"
        " JOIN ledger_lot AS l ON l.member_id = e.member_id AND l.lot_seq = e.seq WHERE e.member_id = $1",
        member.member_id,
    )
    assert tuple(entry) == (funder.id, 56, funder.id, 700_000)

    await bank.spend(connection, member, 80)
    await service.reverse(
        connection,
        operation_id=answer[1].operation_id,
        partner_id=bank.partner_id,
        side="earn",
        refund_ref="r-1",
        refunded_fen=4_000,
        now=bank.now,
    )
    assert await left() == 60, "although the points were spent: the member owes them, the funder does not"
    lines = await connection.fetch(
        "SELECT kind, entry_ref FROM ledger_settlement_source WHERE funder = $1", funder.code
    )
    assert len({row["entry_ref"] for row in lines}) == len(lines), "each entry is billed once"
    assert await bank.audit(connection, member) == []


async def test_trap_21_exact_caps_under_load(pool: Pool, bank: Bank) -> None:
    """However many draw at once and from whatever bucket: not one point over, and the last one can be spent."""
    async with transaction(pool) as connection:
        budget_id = await open_budget(
            connection, kind="campaign", unit="points", owner=f"cmp:{uuid4().hex}", total=1_000, now=bank.now
        )

    async def draw_from(bucket: int, amount: int) -> int:
        async with transaction(pool) as connection:
            [granted] = await draw(
                connection, [Want(bucket=bucket, budget_id=budget_id, amount=amount)], now=bank.now
            )
            return granted

    granted = await asyncio.gather(*(draw_from(place * 37 % 1_024, 30) for place in range(60)))
    assert sorted(granted, reverse=True) == [30] * 33 + [0] * 27
    assert [await draw_from(1_000, amount) for amount in (11, 9, 2, 1, 1)] == [0, 9, 0, 1, 0]
    async with transaction(pool) as connection:
        state = await read_budget(connection, budget_id)
    assert (state.used, state.left) == (1_000, 0)
