"""Several types of points: wallets that never mix, and the exchange between them."""

from datetime import date, timedelta
from typing import Any

import pytest

from kernel.database import Connection
from kernel.errors import Refusal
from points.ledger import service
from points.ledger.deeds import Exchange, ExchangeRate, ExchangeRequest
from points.ledger.exchanges import (
    ExchangeAlreadyPosted,
    ExchangeRateInvalid,
    ExchangeRateMissing,
    ExchangeTooSmall,
    split_exchange,
    whole_points,
)
from points.ledger.model import POINTS, Lot, PointType, Take
from points.ledger.point_types import PointTypeExists, PointTypeInvalid
from points.ledger.rules import PointTypeUnknown
from points.ledger.service import InsufficientPoints

Bank = Any
DAY = timedelta(days=1)


def rate(numerator: int, denominator: int, now: Any = None) -> ExchangeRate:
    return ExchangeRate(
        from_type=1, to_type=2, version=1, numerator=numerator, denominator=denominator, valid_from=now
    )


async def set_rate(
    bank: Bank, connection: Connection, to_type: PointType, numerator: int, denominator: int, **at: Any
) -> ExchangeRate:
    return await service.set_rate(
        connection,
        from_type=POINTS,
        to_type=to_type,
        numerator=numerator,
        denominator=denominator,
        valid_from=at.get("valid_from", bank.now),
        by="admin:ann",
        now=bank.now,
    )


async def exchange(
    bank: Bank,
    connection: Connection,
    member: Any,
    to_type: PointType,
    points: int,
    ref: str = "x",
    **at: Any,
) -> Exchange:
    request = ExchangeRequest(
        member=member,
        partner_id=bank.partner_id,
        from_type=POINTS,
        to_type=to_type,
        points=points,
        exchange_ref=ref,
    )
    return await service.exchange_points(connection, request, now=at.get("now", bank.now))


async def test_a_spend_of_one_type_never_takes_another(bank: Bank, connection: Connection) -> None:
    member, miles = await bank.enrol(connection), await bank.register_type(connection)
    await bank.earn(connection, member, 1_000)
    with pytest.raises(InsufficientPoints) as refused:
        await bank.spend_at_once(connection, member, 1, point_type=miles)
    assert refused.value.facts == {"available_points": 0}
    await bank.adjust(connection, member, 50, point_type=miles)
    spent = await bank.spend_at_once(connection, member, 20, point_type=miles)
    held = await service.place_hold(
        connection,
        member=member,
        partner_id=bank.partner_id,
        points=20,
        order_ref="o",
        ttl_seconds=60,
        point_type=miles,
        now=bank.now,
    )
    closed = await service.capture_hold(
        connection, hold_id=held.id, partner_id=bank.partner_id, points=15, now=bank.now
    )
    assert (closed.value_fen, closed.released_points) == (75, 5)
    found = await service.find_hold(connection, hold_id=spent.id, partner_id=bank.partner_id)
    assert (found.point_type, found.points) == (miles, 20)
    balances = [
        await service.read_balance(connection, member, point_type=code, now=bank.now)
        for code in (POINTS.code, miles.code)
    ]
    assert [balance.available_points for balance in balances] == [1_000, 15]
    await service.reverse(
        connection,
        operation_id=spent.id,
        partner_id=bank.partner_id,
        side="spend",
        refund_ref="r",
        refunded_fen=100,
        now=bank.now,
    )
    balance = await service.read_balance(connection, member, point_type=miles.code, now=bank.now)
    assert balance.available_points == 35
    assert await bank.audit(connection, member) == []
    assert await bank.contradictions(connection) == []


async def test_time_works_on_every_type(bank: Bank, connection: Connection) -> None:
    member, miles = await bank.enrol(connection), await bank.register_type(connection)
    await bank.earn(connection, member, 10, expires_in=DAY)
    await bank.adjust(connection, member, 50, point_type=miles)
    held = await service.place_hold(
        connection,
        member=member,
        partner_id=bank.partner_id,
        points=20,
        order_ref="o",
        ttl_seconds=60,
        point_type=miles,
        now=bank.now,
    )
    assert await service.lapse_due(connection, limit=9, now=held.deadline_at) == 1
    later = bank.now + 800 * DAY
    assert await service.expire_due(connection, limit=999, now=later) >= 2
    for code in (POINTS.code, miles.code):
        left = await service.read_balance(connection, member, point_type=code, now=bank.now)
        assert (left.available_points, left.held_points) == (0, 0)
    assert await bank.audit(connection, member) == []
    assert await bank.contradictions(connection) == []


async def test_an_earlier_balance_is_one_of_its_type(bank: Bank, connection: Connection) -> None:
    member, miles = await bank.enrol(connection), await bank.register_type(connection)
    await bank.earn(connection, member, 10)
    await bank.adjust(connection, member, 50, point_type=miles)
    await bank.spend_at_once(connection, member, 20, point_type=miles, now=bank.now + DAY)
    found = [
        await service.balance_at(connection, member, at=bank.now + days, point_type=miles.code)
        for days in (-DAY, 0 * DAY, DAY)
    ]
    assert [balance.available_points for balance in found] == [0, 50, 30]
    assert (await service.balance_at(connection, member, at=bank.now + DAY)).available_points == 10
    [line] = await service.list_expiring_at(connection, member, at=bank.now, point_type=miles.code)
    assert line.points == 50
    house = await service.house_balances_on(connection, day=date(2026, 11, 20), point_type=miles.code)
    assert [(one.account, one.balance_points) for one in house] == [("adjusted", 50)]


async def test_a_type_is_registered_once_and_for_good(bank: Bank, connection: Connection) -> None:
    miles = await bank.register_type(connection)
    assert await service.list_point_types(connection) == [POINTS, miles]
    for name, value, refusal in (
        ("Miles", 1, PointTypeInvalid),
        ("", 1, PointTypeInvalid),
        ("other", 0, PointTypeInvalid),
        ("other", 10**12 + 1, PointTypeInvalid),
    ):
        with pytest.raises(refusal):
            await bank.register_type(connection, name, value_fen_e6=value)
    with pytest.raises(PointTypeUnknown):
        await service.find_point_type(connection, "nothing\0")
    with pytest.raises(PointTypeExists):
        await bank.register_type(connection)


@pytest.mark.parametrize(
    ("points", "numerator", "denominator", "expected"),
    [
        (100, 1, 1, (100, 100)),
        (25, 3, 10, (24, 7)),
        (9, 1, 10, (0, 0)),
        (10, 1, 10, (10, 1)),
        (1, 7, 2, (1, 3)),
        (2, 7, 2, (2, 7)),
        (10**13, 999_999, 1_000_000, (10**13, 9_999_990_000_000)),
    ],
)
def test_only_what_makes_whole_points_is_taken(
    points: int, numerator: int, denominator: int, expected: tuple[int, int]
) -> None:
    taken, given = whole_points(points, rate(numerator, denominator))
    assert (taken, given) == expected
    assert taken <= points
    assert taken * numerator // denominator == given


def take(lot_seq: int, points: int, *, funder_id: int = 1, unit_cost_e6: int = 1_000_000) -> Take:
    lot = Lot(
        bucket=0,
        member_id=1,
        lot_seq=lot_seq,
        operation_id=None,  # type: ignore[arg-type]  # no rule asks for it
        funder_id=funder_id,
        unit_cost_e6=unit_cost_e6,
        campaign=None,
        rule_version=None,
        effective_at=None,  # type: ignore[arg-type]  # no rule asks for it
        expires_at=None,
        remaining_points=points,
        held_points=0,
    )
    return Take(lot=lot, points=points)


@pytest.mark.parametrize(
    ("takes", "numerator", "denominator", "expected"),
    [
        ([take(1, 10), take(2, 10)], 1, 1, [(1, 10, 10_000_000), (2, 10, 10_000_000)]),
        # a point made of two lots ends with the sooner one
        ([take(1, 5), take(2, 5)], 1, 10, [(1, 1, 10_000_000)]),
        ([take(1, 5), take(2, 5, funder_id=2)], 1, 10, [(1, 1, 5_000_000)]),
        ([take(1, 15), take(2, 15)], 1, 10, [(1, 2, 15_000_000), (2, 1, 15_000_000)]),
        ([take(1, 1), take(2, 1)], 7, 2, [(1, 4, 1_000_000), (2, 3, 1_000_000)]),
    ],
)
def test_every_lot_becomes_its_share(
    takes: list[Take], numerator: int, denominator: int, expected: list[tuple[int, int, int]]
) -> None:
    given = sum(one.points for one in takes) * numerator // denominator
    lots = split_exchange(takes, given, rate(numerator, denominator))
    assert [(lot.source.lot_seq, lot.points, lot.cost_e6) for lot in lots] == expected
    assert sum(lot.points for lot in lots) == given


async def test_an_exchange_moves_two_wallets_at_once(bank: Bank, connection: Connection) -> None:
    member, miles = await bank.enrol(connection), await bank.register_type(connection)
    await bank.earn(connection, member, 100, expires_in=9 * DAY, unit_cost_e6=333_333)
    await bank.earn(connection, member, 100, expires_in=5 * DAY, funder_id=2)
    await set_rate(bank, connection, miles, 3, 10)
    done = await exchange(bank, connection, member, miles, 155)
    assert (done.taken_points, done.given_points) == (154, 46)
    left, gained = done.balances
    assert (left.available_points, gained.available_points) == (46, 46)
    rows = await connection.fetch(
        "SELECT points, funder_id, expires_at - $2, unit_cost_e6 FROM ledger_lot"
        " WHERE member_id = $1 AND point_type = 2 ORDER BY expires_at",
        member.member_id,
        bank.now,
    )
    assert [tuple(row) for row in rows] == [(30, 2, 5 * DAY, 3_333_333), (16, 1, 9 * DAY, 1_124_998)]
    with pytest.raises(ExchangeAlreadyPosted):
        await exchange(bank, connection, member, miles, 10)
    assert await bank.audit(connection, member) == []
    assert await bank.contradictions(connection) == []


async def test_the_rate_in_force_counts(bank: Bank, connection: Connection) -> None:
    member, miles = await bank.enrol(connection), await bank.register_type(connection)
    await bank.earn(connection, member, 100)
    with pytest.raises(ExchangeRateMissing):
        await exchange(bank, connection, member, miles, 10)
    await set_rate(bank, connection, miles, 1, 10)
    await set_rate(bank, connection, miles, 1, 5, valid_from=bank.now + DAY)
    with pytest.raises(ExchangeTooSmall) as refused:
        await exchange(bank, connection, member, miles, 9)
    assert refused.value.facts == {"points_min": 10}
    assert (await exchange(bank, connection, member, miles, 10)).given_points == 1
    assert (await exchange(bank, connection, member, miles, 10, "y", now=bank.now + DAY)).given_points == 2
    assert [one.version for one in await service.list_rates(connection)] == [1, 2]
    assert await bank.contradictions(connection) == []


@pytest.mark.parametrize(
    "change", [{"numerator": 0}, {"denominator": 0}, {"numerator": 1_000_001}, {"valid_from": -DAY}]
)
async def test_a_rate_that_makes_no_sense_is_refused(
    bank: Bank, connection: Connection, change: dict[str, Any]
) -> None:
    miles = await bank.register_type(connection)
    wish: dict[str, Any] = {"numerator": 1, "denominator": 1, "valid_from": 0 * DAY} | change
    wish["valid_from"] += bank.now
    with pytest.raises(ExchangeRateInvalid):
        await set_rate(bank, connection, miles, **wish)


async def test_what_is_exchanged_repays_what_is_owed_there(bank: Bank, connection: Connection) -> None:
    """Arrears of one type are nobody's business in another; in their own they come first."""
    member, miles = await bank.enrol(connection), await bank.register_type(connection)
    earned = await bank.earn(connection, member, 100)
    await bank.spend_at_once(connection, member, 100)
    await service.reverse(
        connection,
        operation_id=earned.operation_id,
        partner_id=bank.partner_id,
        side="earn",
        refund_ref="r",
        refunded_fen=10_000,
        now=bank.now,
    )
    await bank.adjust(connection, member, 30, point_type=miles)
    owed = await service.read_balance(connection, member, now=bank.now)
    miles_left = await service.read_balance(connection, member, point_type=miles.code, now=bank.now)
    assert (owed.arrears_points, miles_left.available_points) == (100, 30)
    await service.set_rate(
        connection,
        from_type=miles,
        to_type=POINTS,
        numerator=4,
        denominator=1,
        valid_from=bank.now,
        by="admin:ann",
        now=bank.now,
    )
    request = ExchangeRequest(
        member=member,
        partner_id=bank.partner_id,
        from_type=miles,
        to_type=POINTS,
        points=30,
        exchange_ref="x",
    )
    done = await service.exchange_points(connection, request, now=bank.now)
    assert (done.balances[1].available_points, done.balances[1].arrears_points) == (20, 0)
    assert await bank.audit(connection, member) == []
    assert await bank.contradictions(connection) == []


async def test_a_refusal_names_what_is_there(bank: Bank, connection: Connection) -> None:
    member, miles = await bank.enrol(connection), await bank.register_type(connection)
    await bank.earn(connection, member, 5)
    await set_rate(bank, connection, miles, 1, 1)
    with pytest.raises(Refusal) as refused:
        await exchange(bank, connection, member, miles, 6)
    assert (refused.value.code, refused.value.facts) == ("insufficient_points", {"available_points": 5})


async def test_balances_after_an_exchange_know_what_has_ripened(bank: Bank, connection: Connection) -> None:
    """Also where the exchange did not need it, and nobody has booked it yet."""
    member, miles = await bank.enrol(connection), await bank.register_type(connection)
    await bank.earn(connection, member, 5)
    waiting = bank.posting(member, 7, activates_in=DAY)
    await service.post_earnings(connection, [waiting], now=bank.now)
    await set_rate(bank, connection, miles, 1, 1)
    done = await exchange(bank, connection, member, miles, 5, now=bank.now + DAY)
    assert (done.balances[0].available_points, done.balances[0].pending_points) == (7, 0)
    assert done.balances[0] == await service.read_balance(connection, member, now=bank.now + DAY)
