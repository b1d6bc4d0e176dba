"""Holds on real PostgreSQL: spend order, capture, release, lapse, and who wins a race."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from kernel.database import Connection
from kernel.errors import Refusal
from points.ledger import service
from points.ledger.model import CloseRequest, HoldRequest
from points.ledger.service import (
    CaptureExceedsHold,
    HoldLapsed,
    HoldNotOpen,
    HoldUnknown,
    InsufficientPoints,
)

Bank = Any


async def test_a_hold_takes_soonest_expiry_first_then_oldest_and_no_expiry_last(
    bank: Bank, connection: Connection
) -> None:
    member = await bank.enrol(connection)
    for expires_in in (None, timedelta(days=300), timedelta(days=30), timedelta(days=300)):
        await bank.earn(connection, member, 100, expires_in=expires_in)
    await bank.hold(connection, member, 250)
    assert await bank.lots(connection, member) == [
        (100, 100, 0),
        (100, 100, 100),
        (100, 100, 100),
        (100, 100, 50),
    ]
    assert await bank.audit(connection, member) == []


async def test_held_points_are_not_available(bank: Bank, connection: Connection) -> None:
    member = await bank.enrol(connection)
    await bank.earn(connection, member, 100)
    await bank.hold(connection, member, 60)
    with pytest.raises(InsufficientPoints) as refused:
        await bank.hold(connection, member, 41)
    assert refused.value.facts == {"available_points": 40}


async def test_a_member_without_a_wallet_has_nothing(bank: Bank, connection: Connection) -> None:
    member = await bank.enrol(connection)
    with pytest.raises(InsufficientPoints) as refused:
        await bank.hold(connection, member, 1)
    assert refused.value.facts == {"available_points": 0}


async def test_expired_points_are_booked_by_the_hold_that_meets_them(
    bank: Bank, connection: Connection
) -> None:
    member = await bank.enrol(connection)
    await bank.earn(connection, member, 100, expires_in=timedelta(hours=1))
    await bank.earn(connection, member, 50)
    later = bank.now + timedelta(hours=1)
    assert await bank.available(connection, member, later) == 50
    with pytest.raises(InsufficientPoints) as refused:
        await bank.hold(connection, member, 51, now=later)
    assert refused.value.facts == {"available_points": 50}
    await bank.hold(connection, member, 50, now=later)
    assert await bank.lots(connection, member) == [(100, 0, 0), (50, 50, 50)]
    assert await bank.audit(connection, member) == []


async def test_a_partial_capture_releases_the_rest(bank: Bank, connection: Connection) -> None:
    member = await bank.enrol(connection)
    await bank.earn(connection, member, 100, expires_in=timedelta(days=1))
    await bank.earn(connection, member, 100)
    held = await bank.hold(connection, member, 150)
    outcome = await service.capture_hold(
        connection, hold_id=held.id, partner_id=bank.partner_id, points=120, now=bank.now
    )
    assert (outcome.captured_points, outcome.released_points, outcome.value_fen) == (120, 30, 120)
    assert outcome.hold.state == "captured"
    assert await bank.lots(connection, member) == [(100, 0, 0), (100, 80, 0)]
    assert await bank.audit(connection, member) == []


async def test_a_lot_that_ends_while_held_is_still_captured(bank: Bank, connection: Connection) -> None:
    member = await bank.enrol(connection)
    await bank.earn(connection, member, 100, expires_in=timedelta(minutes=5))
    held = await bank.hold(connection, member, 100, ttl_seconds=3600)
    outcome = await service.capture_hold(
        connection, hold_id=held.id, partner_id=bank.partner_id, now=bank.now + timedelta(minutes=50)
    )
    assert outcome.captured_points == 100
    assert await bank.audit(connection, member) == []


async def test_released_points_of_a_lot_that_has_ended_are_gone_at_once(
    bank: Bank, connection: Connection
) -> None:
    member = await bank.enrol(connection)
    await bank.earn(connection, member, 100, expires_in=timedelta(minutes=5))
    await bank.earn(connection, member, 100)
    held = await bank.hold(connection, member, 150, ttl_seconds=3600)
    later = bank.now + timedelta(minutes=50)
    await service.release_hold(connection, hold_id=held.id, partner_id=bank.partner_id, now=later)
    assert await bank.available(connection, member, later) == 100
    assert await bank.lots(connection, member) == [(100, 0, 0), (100, 100, 0)]
    assert await bank.audit(connection, member) == []


async def test_released_points_repay_arrears_first(bank: Bank, connection: Connection) -> None:
    member = await bank.enrol(connection)
    earned = await bank.earn(connection, member, 100)
    held = await bank.hold(connection, member, 80)
    await service.reverse(
        connection,
        operation_id=earned.operation_id,
        partner_id=bank.partner_id,
        side="earn",
        refund_ref="r",
        refunded_fen=10_000,
        now=bank.now,
    )
    balance = await service.read_balance(connection, member, now=bank.now)
    assert (balance.available_points, balance.held_points, balance.arrears_points) == (0, 80, 80)
    await service.release_hold(connection, hold_id=held.id, partner_id=bank.partner_id, now=bank.now)
    balance = await service.read_balance(connection, member, now=bank.now)
    assert (balance.available_points, balance.held_points, balance.arrears_points) == (0, 0, 0)
    assert await bank.audit(connection, member) == []


async def test_a_hold_closes_once(bank: Bank, connection: Connection) -> None:
    member = await bank.enrol(connection)
    await bank.earn(connection, member, 100)
    held = await bank.hold(connection, member, 100)
    await service.capture_hold(connection, hold_id=held.id, partner_id=bank.partner_id, now=bank.now)
    for close in (service.capture_hold, service.release_hold):
        with pytest.raises(HoldNotOpen) as refused:
            await close(connection, hold_id=held.id, partner_id=bank.partner_id, now=bank.now)
        assert refused.value.facts == {"state": "captured"}


async def test_a_capture_stays_within_the_hold(bank: Bank, connection: Connection) -> None:
    member = await bank.enrol(connection)
    await bank.earn(connection, member, 100)
    held = await bank.hold(connection, member, 50)
    with pytest.raises(CaptureExceedsHold):
        await service.capture_hold(
            connection, hold_id=held.id, partner_id=bank.partner_id, points=51, now=bank.now
        )


async def test_another_partners_hold_is_absent(bank: Bank, connection: Connection) -> None:
    member = await bank.enrol(connection)
    await bank.earn(connection, member, 100)
    held = await bank.hold(connection, member, 50)
    for call in (service.find_hold,):
        with pytest.raises(HoldUnknown):
            await call(connection, hold_id=held.id, partner_id=uuid4())
    with pytest.raises(HoldUnknown):
        await service.capture_hold(connection, hold_id=held.id, partner_id=uuid4(), now=bank.now)


async def test_a_capture_after_the_deadline_is_refused_and_the_job_books_the_lapse(
    bank: Bank, connection: Connection
) -> None:
    member = await bank.enrol(connection)
    await bank.earn(connection, member, 100)
    held = await bank.hold(connection, member, 60, ttl_seconds=60)
    deadline = held.deadline_at
    with pytest.raises(HoldLapsed):
        await service.capture_hold(connection, hold_id=held.id, partner_id=bank.partner_id, now=deadline)
    for moment, state in ((deadline - timedelta(microseconds=1), "open"), (deadline, "lapsed")):
        while await service.lapse_due(connection, limit=2, now=moment):
            continue
        found = await service.find_hold(connection, hold_id=held.id, partner_id=bank.partner_id)
        assert found.state == state
    assert await bank.available(connection, member) == 100
    assert await bank.audit(connection, member) == []


async def test_closing_a_hold_tells_the_partner(bank: Bank, connection: Connection) -> None:
    member = await bank.enrol(connection)
    await bank.earn(connection, member, 100)
    await bank.spend(connection, member, 40)
    payload = await connection.fetchval(
        "SELECT payload FROM outbox_event WHERE partner_id = $1 AND type = 'points.hold.captured'",
        bank.partner_id,
    )
    assert payload["captured_points"] == 40
    assert payload["order_ref"] == "order-1"


async def test_many_holds_are_placed_in_turn_and_each_is_answered_for_itself(
    bank: Bank, connection: Connection
) -> None:
    rich, poor = await bank.enrol(connection), await bank.enrol(connection)
    await bank.earn(connection, rich, 60, expires_in=timedelta(days=1))
    await bank.earn(connection, rich, 40)
    await bank.earn(connection, poor, 5)
    requests = [
        HoldRequest(member=member, partner_id=bank.partner_id, points=points, order_ref="o", ttl_seconds=60)
        for member, points in ((rich, 50), (poor, 6), (rich, 51), (rich, 50), (poor, 5))
    ]
    answers = await service.place_holds(connection, requests, now=bank.now)
    assert [a.facts if isinstance(a, Refusal) else a.points for a in answers] == [
        50,
        {"available_points": 5},
        {"available_points": 50},
        50,
        5,
    ]
    assert await bank.lots(connection, rich) == [(60, 60, 60), (40, 40, 40)]
    for member in (rich, poor):
        assert await bank.audit(connection, member) == []


async def test_many_holds_are_closed_in_turn_and_the_first_of_two_wins(
    bank: Bank, connection: Connection
) -> None:
    ann, bob = await bank.enrol(connection), await bank.enrol(connection)
    await bank.earn(connection, ann, 100)
    await bank.earn(connection, bob, 100)
    first, second = await bank.hold(connection, ann, 30), await bank.hold(connection, ann, 20)
    third = await bank.hold(connection, bob, 10)
    requests = [
        CloseRequest(hold_id=first.id, partner_id=bank.partner_id, state="captured", points=10),
        CloseRequest(hold_id=first.id, partner_id=bank.partner_id, state="released"),
        CloseRequest(hold_id=third.id, partner_id=bank.partner_id, state="released"),
        CloseRequest(hold_id=second.id, partner_id=uuid4(), state="released"),
        CloseRequest(hold_id=second.id, partner_id=bank.partner_id, state="captured", points=21),
        CloseRequest(hold_id=second.id, partner_id=bank.partner_id, state="captured"),
    ]
    answers = await service.close_holds(connection, requests, now=bank.now)
    assert [a.code if isinstance(a, Refusal) else a.captured_points for a in answers] == [
        10,
        "hold_not_open",
        0,
        "hold_not_found",
        "capture_exceeds_hold",
        20,
    ]
    assert await bank.available(connection, ann) == 70
    assert await bank.available(connection, bob) == 100
    for member in (ann, bob):
        assert await bank.audit(connection, member) == []
