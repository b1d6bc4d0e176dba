"""Points that somebody else pays for: priced by the terms of the day, drawn on blocks, given back to the same ones."""

import asyncio
from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from msgspec.structs import replace

from kernel.caller import MemberRef
from kernel.database import Connection, Pool, transaction
from kernel.ids import new_id
from points.ledger import service
from points.ledger.funder_model import Billing, Block, Drawn, Funder, FunderKind, FundingWant, Terms
from points.ledger.funder_rules import (
    BlockInvalid,
    BlockTaken,
    FunderExhausted,
    FunderInvalid,
    FunderNotPrepaid,
    FunderTaken,
    FunderUnknown,
    TermsInThePast,
    TermsInvalid,
    TermsTaken,
    check_funder,
    share_returns,
)
from points.ledger.model import EarnOutcome, EarnPosting, Lot, Take

Bank = Any
TODAY = date(2026, 11, 20)
AGREED = TODAY - timedelta(days=10)


async def funder(
    connection: Connection,
    now: datetime,
    billing: Billing,
    *,
    price_fen_e6: int = 0,
    billing_ppm: int = 1_000_000,
) -> Funder:
    return await service.register_funder(
        connection,
        code=f"partner:p{uuid4().hex[:12]}",
        kind="partner",
        partner_id=uuid4(),
        terms=Terms(effective_on=AGREED, billing=billing, price_fen_e6=price_fen_e6, billing_ppm=billing_ppm),
        actor="test",
        now=now,
    )


async def block(
    connection: Connection,
    now: datetime,
    owner: Funder,
    points: int,
    *,
    paid_fen: int | None = None,
    starts_on: date = TODAY,
    low_water_ppm: Sequence[int] = (),
) -> Block:
    return await service.buy_block(
        connection,
        code=owner.code,
        points=points,
        paid_fen=points if paid_fen is None else paid_fen,
        starts_on=starts_on,
        purchase_ref=uuid4().hex,
        low_water_ppm=low_water_ppm,
        actor="test",
        now=now,
    )


def posting(
    bank: Bank, member: MemberRef, *grants: tuple[int, int], source_ref: str | None = None
) -> EarnPosting:
    """An earning of (funder, points) each."""
    made: EarnPosting = bank.posting(
        member, 1, source_ref=source_ref, amount_fen=100 * sum(points for _, points in grants)
    )
    [pattern] = made.grants
    lots = tuple(
        replace(pattern, funder_id=funder_id, points=points, lot_id=new_id(bank.now))
        for funder_id, points in grants
    )
    return replace(made, grants=lots)


async def earn(
    connection: Connection, bank: Bank, *postings: EarnPosting
) -> list[tuple[EarnPosting, EarnOutcome] | FunderExhausted]:
    return await service.post_funded_earnings(connection, postings, now=bank.now)


async def used(connection: Connection, owner: Funder) -> list[int]:
    return [one.used_points for one in await service.list_blocks(connection, code=owner.code)]


async def refund(
    connection: Connection, bank: Bank, operation_id: UUID, fen: int, *, ref: str | None = None
) -> None:
    await service.reverse(
        connection,
        operation_id=operation_id,
        partner_id=bank.partner_id,
        side="earn",
        refund_ref=ref or uuid4().hex,
        refunded_fen=fen,
        now=bank.now,
    )


async def contradictions(connection: Connection) -> dict[str, int]:
    names = [
        row[0]
        for row in await connection.fetch(
            "SELECT viewname FROM pg_views WHERE viewname LIKE 'books\\_i5%' ORDER BY viewname"
        )
    ]
    found = {name: len(await connection.fetch(f"SELECT * FROM {name}")) for name in names}
    return {name: rows for name, rows in found.items() if rows}


async def test_prepaid_points_come_out_of_the_block_that_begins_first(
    bank: Bank, connection: Connection
) -> None:
    owner = await funder(connection, bank.now, "prepaid")
    await block(connection, bank.now, owner, 100, paid_fen=50)
    await block(connection, bank.now, owner, 30, paid_fen=60, starts_on=TODAY - timedelta(days=1))
    await block(connection, bank.now, owner, 100, starts_on=TODAY + timedelta(days=1))
    member = await bank.enrol(connection)
    [answer] = await earn(connection, bank, posting(bank, member, (owner.id, 120)))
    assert not isinstance(answer, FunderExhausted)
    assert await used(connection, owner) == [30, 90, 0]
    # 30 points of 2 fen and 90 of half a fen
    assert answer[0].grants[0].unit_cost_e6 == 875_000
    assert await bank.available(connection, member) == 120
    assert await contradictions(connection) == {}


async def test_an_earning_whose_funder_has_not_enough_left_is_refused_and_nothing_changes(
    bank: Bank, connection: Connection
) -> None:
    owner, other = (
        await funder(connection, bank.now, "prepaid"),
        await funder(connection, bank.now, "prepaid"),
    )
    await block(connection, bank.now, owner, 10)
    await block(connection, bank.now, other, 100)
    member = await bank.enrol(connection)
    answers = await earn(
        connection,
        bank,
        posting(bank, member, (1, 5), (other.id, 7), (owner.id, 11)),
        posting(bank, member, (owner.id, 10)),
        posting(bank, member, (owner.id, 1)),
    )
    assert [isinstance(answer, FunderExhausted) for answer in answers] == [True, False, True]
    assert FunderExhausted.code == "funder_exhausted"
    assert (await used(connection, owner), await used(connection, other)) == ([10], [0])
    assert await bank.available(connection, member) == 10
    assert await contradictions(connection) == {}


async def test_an_optional_grant_is_left_out_when_its_funder_has_not_enough_left(
    bank: Bank, connection: Connection
) -> None:
    owner = await funder(connection, bank.now, "prepaid")
    await block(connection, bank.now, owner, 10)
    member = await bank.enrol(connection)
    asked = posting(bank, member, (1, 5), (owner.id, 11))
    bonus = replace(asked, grants=(asked.grants[0], replace(asked.grants[1], optional=True)))
    [answer] = await earn(connection, bank, bonus)
    assert not isinstance(answer, FunderExhausted)
    posted, outcome = answer
    assert (posted.points, outcome.balance.available_points) == (5, 5)
    assert await used(connection, owner) == [0]


async def test_a_source_that_has_earned_already_draws_nothing_and_is_told_so(
    bank: Bank, connection: Connection
) -> None:
    owner = await funder(connection, bank.now, "prepaid")
    await block(connection, bank.now, owner, 10)
    member = await bank.enrol(connection)
    twice = [posting(bank, member, (owner.id, 4), source_ref="order-1") for _ in range(2)]
    answers = await earn(connection, bank, *twice)  # in one batch, and again
    answers += await earn(connection, bank, posting(bank, member, (owner.id, 4), source_ref="order-1"))
    await earn(connection, bank, posting(bank, member, (owner.id, 6)))
    answers += await earn(connection, bank, posting(bank, member, (owner.id, 4), source_ref="order-1"))
    told = [answer if isinstance(answer, FunderExhausted) else answer[1].posted for answer in answers]
    assert told == [True, False, False, False]
    assert await used(connection, owner) == [10]
    assert await contradictions(connection) == {}


async def test_a_refund_gives_the_points_back_to_the_blocks_they_came_from(
    bank: Bank, connection: Connection
) -> None:
    owner = await funder(connection, bank.now, "prepaid")
    await block(connection, bank.now, owner, 100, paid_fen=100)
    member = await bank.enrol(connection)
    [answer] = await earn(connection, bank, posting(bank, member, (owner.id, 100)))
    await block(connection, bank.now, owner, 50, starts_on=TODAY + timedelta(days=1))
    assert not isinstance(answer, FunderExhausted)
    operation_id = answer[1].operation_id
    await refund(connection, bank, operation_id, 2_500)
    assert await used(connection, owner) == [75, 0]
    await bank.spend(connection, member, 75)
    await refund(connection, bank, operation_id, 7_500)  # now owed
    assert await used(connection, owner) == [0, 0]
    assert (await service.read_balance(connection, member, now=bank.now)).arrears_points == 75
    assert await contradictions(connection) == {}
    assert await bank.audit(connection, member) == []


async def test_a_refund_gives_back_to_the_blocks_what_its_earning_drew_whosever_lots_pay_for_it(
    bank: Bank, connection: Connection
) -> None:
    """Of two earnings spent one after the other and refunded both, every point comes back to the blocks, once."""
    owner = await funder(connection, bank.now, "prepaid")
    await block(connection, bank.now, owner, 40)
    member = await bank.enrol(connection)
    mixed = posting(bank, member, (1, 60), (owner.id, 40))
    [first] = await earn(connection, bank, mixed)
    await block(connection, bank.now, owner, 100)
    await bank.spend(connection, member, 100)
    [second] = await earn(connection, bank, posting(bank, member, (owner.id, 100)))
    assert sum(await used(connection, owner)) == 140
    assert not isinstance(first, FunderExhausted) and not isinstance(second, FunderExhausted)
    await refund(connection, bank, first[1].operation_id, 10_000)
    assert sorted(await used(connection, owner)) == [0, 100]
    assert await bank.available(connection, member) == 0
    assert await contradictions(connection) == {}
    await refund(connection, bank, second[1].operation_id, 10_000)
    assert await used(connection, owner) == [0, 0]
    assert (await service.read_balance(connection, member, now=bank.now)).arrears_points == 100
    assert await contradictions(connection) == {}
    assert await bank.audit(connection, member) == []


@pytest.mark.parametrize(
    ("billing", "price_fen_e6", "billing_ppm", "cost"),
    [
        ("postpaid", 900_000, 1_000_000, 900_000),
        ("postpaid", 900_000, 333_333, 299_999),
        ("postpaid", 0, 1_000_000, 0),
        ("bank", 0, 1_000_000, 0),
    ],
)
async def test_a_point_costs_what_the_terms_of_the_day_say(
    bank: Bank, connection: Connection, billing: Billing, price_fen_e6: int, billing_ppm: int, cost: int
) -> None:
    owner = await funder(connection, bank.now, billing, price_fen_e6=price_fen_e6, billing_ppm=billing_ppm)
    member = await bank.enrol(connection)
    await earn(connection, bank, posting(bank, member, (owner.id, 10)))
    found = await connection.fetchval(
        "SELECT unit_cost_e6 FROM ledger_lot WHERE member_id = $1", member.member_id
    )
    assert found == cost


async def test_new_terms_begin_tomorrow_and_leave_what_was_issued_alone(
    bank: Bank, connection: Connection
) -> None:
    owner = await funder(connection, bank.now, "postpaid", price_fen_e6=1_000_000)
    member = await bank.enrol(connection)
    tomorrow = TODAY + timedelta(days=1)
    changed = Terms(effective_on=tomorrow, billing="postpaid", price_fen_e6=500_000)
    await service.change_terms(connection, code=owner.code, terms=changed, actor="test", now=bank.now)
    await earn(connection, bank, posting(bank, member, (owner.id, 10)))
    bank.now += timedelta(days=1)
    await earn(connection, bank, posting(bank, member, (owner.id, 10)))
    costs = await connection.fetch(
        "SELECT unit_cost_e6 FROM ledger_lot WHERE member_id = $1 ORDER BY lot_seq", member.member_id
    )
    assert [row[0] for row in costs] == [1_000_000, 500_000]
    for refused, terms in [
        (TermsInThePast, replace(changed, effective_on=tomorrow)),
        (TermsInThePast, replace(changed, effective_on=TODAY)),
        (TermsInvalid, replace(changed, effective_on=TODAY + timedelta(days=9), billing_ppm=1_000_001)),
    ]:
        with pytest.raises(refused):
            await service.change_terms(connection, code=owner.code, terms=terms, actor="test", now=bank.now)
    again = replace(changed, effective_on=TODAY + timedelta(days=5))
    await service.change_terms(connection, code=owner.code, terms=again, actor="test", now=bank.now)
    with pytest.raises(TermsTaken):
        await service.change_terms(connection, code=owner.code, terms=again, actor="test", now=bank.now)


async def test_what_the_bank_pays_for_asks_nothing_about_funders(bank: Bank, connection: Connection) -> None:
    member = await bank.enrol(connection)
    await earn(
        connection, bank, posting(bank, member, (1, 10))
    )  # the first time, the driver asks for the types
    asked: list[str] = []
    with connection.query_logger(lambda record: asked.append(record.query)):
        await earn(connection, bank, posting(bank, member, (1, 10)))
        await asyncio.sleep(0)  # the driver tells of a statement after it
    assert len(asked) == 1


async def test_a_low_block_is_told_once_per_mark(bank: Bank, connection: Connection) -> None:
    owner = await funder(connection, bank.now, "prepaid")
    await block(connection, bank.now, owner, 1_000, low_water_ppm=(500_000, 100_000))
    member = await bank.enrol(connection)
    for points in (400, 150, 250, 150, 50):
        await earn(connection, bank, posting(bank, member, (owner.id, points)))
    events = await connection.fetch(
        "SELECT payload FROM outbox_event WHERE type = 'funder.block_low' AND partner_id = $1 ORDER BY ordinal",
        owner.partner_id,
    )
    assert [(row[0]["low_ppm"], row[0]["left_points"]) for row in events] == [(500_000, 450), (100_000, 50)]


async def test_parallel_earnings_use_a_block_up_exactly(bank: Bank, pool: Pool) -> None:
    async with transaction(pool) as connection:
        owner = await funder(connection, bank.now, "prepaid")
        await block(connection, bank.now, owner, 50)
        members = [await bank.enrol(connection) for _ in range(30)]

    async def one(member: MemberRef) -> list[object]:
        async with transaction(pool) as connection:
            postings = [posting(bank, member, (owner.id, 3)), posting(bank, member, (1, 1), (owner.id, 1))]
            return list(await earn(connection, bank, *postings))

    answers = await _together(one, members)
    refused = sum(isinstance(answer, FunderExhausted) for answer in answers)
    assert 0 < refused < 60
    async with transaction(pool) as connection:
        issued = await connection.fetchval(
            "SELECT sum(points) FROM ledger_lot WHERE funder_id = $1", owner.id
        )
        assert [issued] == await used(connection, owner)
        assert issued == 50
        assert await contradictions(connection) == {}


async def _together(deed: Any, whom: Iterable[Any]) -> list[object]:
    results = await asyncio.gather(*(deed(one) for one in whom))
    return [answer for answers in results for answer in answers]


async def test_earnings_and_refunds_of_the_same_members_never_wait_in_a_circle(
    bank: Bank, pool: Pool
) -> None:
    """Batches in either order over two funders' blocks that run dry, while refunds give points back to them."""
    async with transaction(pool) as connection:
        owners = [await funder(connection, bank.now, "prepaid") for _ in range(2)]
        for owner in owners:
            await block(connection, bank.now, owner, 150)
            await block(connection, bank.now, owner, 100)
        members = [await bank.enrol(connection) for _ in range(4)]

    async def one(number: int) -> list[object]:
        turned = number % 2 == 1
        postings = [
            posting(bank, member, *[(owner.id, 3) for owner in (owners[::-1] if turned else owners)])
            for member in (members[::-1] if turned else members)
        ]
        async with transaction(pool) as connection:
            answers = await earn(connection, bank, *postings)
        posted = [answer for answer in answers if not isinstance(answer, FunderExhausted)]
        for _, outcome in posted[: number % 3]:
            async with transaction(pool) as connection:
                await refund(connection, bank, outcome.operation_id, 600)
        return list(answers)

    answers = [answer for batch in [await _together(one, range(8)) for _ in range(6)] for answer in batch]
    assert any(isinstance(answer, FunderExhausted) for answer in answers)
    async with transaction(pool) as connection:
        for owner in owners:
            left = 250 - sum(await used(connection, owner))
            over, all_of_it = [FundingWant(bucket=1_000, funder_id=owner.id, points=left + n) for n in (1, 0)]
            assert await service.draw_funding(connection, [over], now=bank.now) == [None]
            if left:
                [rest] = await service.draw_funding(connection, [all_of_it], now=bank.now)
                assert rest is not None
                await service.give_back_draws(connection, [rest], now=bank.now)
        assert await contradictions(connection) == {}
        for member in members:
            assert await bank.audit(connection, member) == []


async def test_a_session_killed_after_its_draw_leaves_the_block_whole(bank: Bank, pool: Pool) -> None:
    async with transaction(pool) as connection:
        owner = await funder(connection, bank.now, "prepaid")
        await block(connection, bank.now, owner, 50)
        member = await bank.enrol(connection)
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError)):
        async with transaction(pool) as connection:
            await earn(connection, bank, posting(bank, member, (owner.id, 50)))
            connection.terminate()
            await connection.execute("SELECT 1")
    async with transaction(pool) as connection:
        assert await used(connection, owner) == [0]
        [answer] = await earn(connection, bank, posting(bank, member, (owner.id, 50)))
        assert not isinstance(answer, FunderExhausted)


async def test_drawing_alone_says_which_blocks_pay(bank: Bank, connection: Connection) -> None:
    owner, after = (
        await funder(connection, bank.now, "prepaid"),
        await funder(connection, bank.now, "postpaid"),
    )
    bought = await block(connection, bank.now, owner, 10, paid_fen=25)
    wants = [
        FundingWant(bucket=7, funder_id=owner.id, points=8),
        FundingWant(bucket=7, funder_id=after.id, points=8),
        FundingWant(bucket=7, funder_id=owner.id, points=3),
    ]
    first, second, third = await service.draw_funding(connection, wants, now=bank.now)
    assert first is not None
    assert second is not None
    assert third is None
    assert [(share.block_id, share.points) for share in first.shares] == [(bought.id, 8)]
    assert (first.unit_cost_e6, second.shares) == (2_500_000, ())
    await service.give_back_draws(connection, [first, second], now=bank.now)
    assert await used(connection, owner) == [0]


@pytest.mark.parametrize(
    ("code", "kind", "partner", "terms", "refused"),
    [
        ("partner:mall", "partner", True, {"billing": "prepaid"}, None),
        ("merchant:shop-1", "merchant", False, {"billing": "bank"}, None),
        ("fiscal:city", "fiscal", False, {"billing": "postpaid", "price_fen_e6": 1}, None),
        ("mall", "partner", True, {"billing": "prepaid"}, FunderInvalid),
        ("merchant:mall", "partner", True, {"billing": "prepaid"}, FunderInvalid),
        ("partner:Mall", "partner", True, {"billing": "prepaid"}, FunderInvalid),
        ("partner:mall\n", "partner", True, {"billing": "prepaid"}, FunderInvalid),
        ("partner:" + "a" * 64, "partner", True, {"billing": "prepaid"}, FunderInvalid),
        ("partner:mall", "partner", False, {"billing": "postpaid"}, FunderInvalid),
        ("bank:marketing", "bank", False, {"billing": "postpaid"}, FunderInvalid),
        ("bank:marketing", "bank", False, {"billing": "bank"}, None),
        ("partner:mall", "partner", True, {"billing": "prepaid", "price_fen_e6": 1}, TermsInvalid),
        ("partner:mall", "partner", True, {"billing": "postpaid", "price_fen_e6": -1}, TermsInvalid),
        ("partner:mall", "partner", True, {"billing": "postpaid", "price_fen_e6": 10**12 + 1}, TermsInvalid),
        ("partner:mall", "partner", True, {"billing": "postpaid", "breakage_ppm": -1}, TermsInvalid),
    ],
)
def test_what_may_be_agreed_with_a_funder(
    code: str, kind: FunderKind, partner: bool, terms: dict[str, Any], refused: type[Exception] | None
) -> None:
    agreed = Terms(effective_on=TODAY, **terms)
    partner_id = UUID(int=1) if partner else None
    if refused is None:
        check_funder(code, kind, partner_id, agreed)
    else:
        with pytest.raises(refused):
            check_funder(code, kind, partner_id, agreed)


async def test_a_block_is_bought_once_and_only_by_who_pays_in_advance(
    bank: Bank, connection: Connection
) -> None:
    owner, after = (
        await funder(connection, bank.now, "prepaid"),
        await funder(connection, bank.now, "postpaid"),
    )
    terms: dict[str, Any] = {
        "code": owner.code,
        "points": 10,
        "paid_fen": 10,
        "starts_on": TODAY,
        "purchase_ref": "po-1",
        "actor": "test",
        "now": bank.now,
    }
    await service.buy_block(connection, **terms)
    changes: list[tuple[type[Exception], dict[str, Any]]] = [
        (BlockTaken, {}),
        (FunderNotPrepaid, {"code": after.code}),
        (FunderNotPrepaid, {"starts_on": AGREED - timedelta(days=1), "purchase_ref": "po-2"}),
        (FunderUnknown, {"code": "partner:nobody"}),
        (BlockInvalid, {"points": 0}),
        (BlockInvalid, {"paid_fen": -1}),
        (BlockInvalid, {"points": 10**15 + 1}),
        (BlockInvalid, {"purchase_ref": "a b"}),
        (BlockInvalid, {"low_water_ppm": (1_000_000,)}),
    ]
    for refused, change in changes:
        with pytest.raises(refused):
            await service.buy_block(connection, **terms | change)
    assert await used(connection, owner) == [0]
    with pytest.raises(FunderTaken):
        await service.register_funder(
            connection,
            code=owner.code,
            kind="partner",
            partner_id=uuid4(),
            terms=Terms(effective_on=TODAY, billing="prepaid"),
            actor="test",
            now=bank.now,
        )


def _lot(operation_id: UUID, funder_id: int) -> Lot:
    moment = datetime.fromisoformat("2026-11-20T04:00:00+00:00")
    return Lot(
        bucket=1,
        member_id=1,
        lot_seq=1,
        operation_id=operation_id,
        funder_id=funder_id,
        unit_cost_e6=0,
        campaign=None,
        rule_version=None,
        effective_at=moment,
        expires_at=None,
        remaining_points=0,
        held_points=0,
    )


X, Y, A, B = (UUID(int=number) for number in range(1, 5))


@pytest.mark.parametrize(
    ("drawn", "takes", "returned"),
    [
        ([(X, 2, A, 10)], [(X, 2, 4)], {(X, A): 4}),
        ([(X, 2, A, 10), (X, 2, B, 5)], [(X, 2, 7)], {(X, B): 5, (X, A): 2}),
        ([(X, 2, A, 10)], [(Y, 2, 7)], {(X, A): 7}),
        ([(X, 2, A, 10)], [(X, 1, 4)], {}),
        ([(X, 2, A, 3)], [(X, 2, 4)], {(X, A): 3}),
        ([(X, 2, A, 0)], [(X, 2, 4)], {}),
        ([(X, 2, A, 5), (X, 3, B, 5)], [(X, 3, 2), (X, 2, 1)], {(X, A): 1, (X, B): 2}),
    ],
)
def test_points_go_back_to_where_they_came_from(
    drawn: list[tuple[UUID, int, UUID, int]],
    takes: list[tuple[UUID, int, int]],
    returned: dict[tuple[UUID, UUID], int],
) -> None:
    found = share_returns(
        [Drawn(operation_id=o, funder_id=f, block_id=b, points=points) for o, f, b, points in drawn],
        [Take(lot=_lot(o, f), points=points) for o, f, points in takes],
    )
    assert {(one.operation_id, one.block_id): points for one, points in found} == returned
