"""Holds: points reserved for a checkout, then captured, released or lapsed, once."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

from kernel.caller import MemberRef
from kernel.database import Connection
from kernel.ids import new_id, to_wire
from kernel.outbox import Event, enqueue
from points.ledger import queries
from points.ledger.balances import take_all
from points.ledger.journal import Journal
from points.ledger.model import Account, Hold, HoldOutcome, HoldState, Take
from points.ledger.rules import (
    HOLD_TTL_SECONDS_MAX,
    CaptureExceedsHold,
    HoldLapsed,
    HoldNotOpen,
    HoldUnknown,
    InsufficientPoints,
    split_capture,
    split_expired,
    take,
    value_fen,
)

_KINDS: dict[HoldState, Literal["capture", "release", "lapse"]] = {
    "captured": "capture",
    "released": "release",
    "lapsed": "lapse",
}


async def place_hold(
    connection: Connection,
    *,
    member: MemberRef,
    partner_id: UUID,
    points: int,
    order_ref: str,
    ttl_seconds: int,
    now: datetime,
) -> Hold:
    """Reserve `points`; the lots that pay are pinned, so one may expire while held and is still captured."""
    assert points > 0, "the handler's type lets nothing else in"
    assert 1 <= ttl_seconds <= HOLD_TTL_SECONDS_MAX, "the handler's type lets nothing else in"
    wallets = await queries.lock_wallets(connection, [member])
    if not wallets:
        raise InsufficientPoints(available_points=0)
    lots = await queries.list_spendable_lots(connection, member, points=points, now=now)
    expired, live = split_expired(lots, now)
    takes = take(live, points)
    if (together := sum(taken.points for taken in takes)) < points:
        raise InsufficientPoints(available_points=together)

    hold = Hold(
        id=new_id(now),
        member=member,
        partner_id=partner_id,
        points=points,
        captured_points=0,
        state="open",
        order_ref=order_ref,
        deadline_at=now + timedelta(seconds=ttl_seconds),
    )
    journal = Journal(wallets, now=now)
    journal.expire(take_all(expired))
    # the hold is its own opening operation
    journal.record(
        member,
        "hold",
        points=points,
        partner_id=partner_id,
        operation_id=hold.id,
        hold_id=hold.id,
        source_ref=order_ref,
    )
    journal.post(hold.id, Account.AVAILABLE, Account.HELD, takes, "hold")
    await queries.open_hold(connection, hold, takes, now=now)
    await journal.write(connection)
    return hold


async def find_hold(connection: Connection, *, hold_id: UUID, partner_id: UUID) -> Hold:
    """The partner's hold; another's is as absent as none."""
    hold = await queries.find_hold(connection, hold_id, partner_id=partner_id)
    if hold is None:
        raise HoldUnknown
    return hold


async def capture_hold(
    connection: Connection,
    *,
    hold_id: UUID,
    partner_id: UUID,
    points: int | None = None,
    order_fen: int | None = None,
    now: datetime,
) -> HoldOutcome:
    """Spend `points` of the hold (all by default) and release the rest.

    `order_fen` is the total that later partial refunds are proportional to: by default what the points paid for.
    """
    hold = await find_hold(connection, hold_id=hold_id, partner_id=partner_id)
    spent = hold.points if points is None else points
    if spent > hold.points:
        raise CaptureExceedsHold(held_points=hold.points)
    if hold.state == "open" and hold.deadline_at <= now:
        raise HoldLapsed(deadline_at=hold.deadline_at.isoformat())
    amount_fen = value_fen(spent) if order_fen is None else order_fen
    return await _close(connection, hold, "captured", spent=spent, amount_fen=amount_fen, now=now)


async def release_hold(
    connection: Connection, *, hold_id: UUID, partner_id: UUID, now: datetime
) -> HoldOutcome:
    """Give every point of the hold back to its lot."""
    hold = await find_hold(connection, hold_id=hold_id, partner_id=partner_id)
    return await _close(connection, hold, "released", spent=0, amount_fen=0, now=now)


async def lapse_due(connection: Connection, *, limit: int, now: datetime) -> int:
    """Book the end of up to `limit` holds whose deadline has passed; returns how many."""
    due = await queries.list_lapsed_holds(connection, limit=limit, now=now)
    if not due:
        return 0
    journal = Journal(await queries.lock_wallets(connection, [hold.member for hold in due]), now=now)
    outcomes = []
    for hold in due:
        outcome = await _resolve(connection, journal, hold, "lapsed", spent=0, amount_fen=0, now=now)
        if outcome is not None:
            outcomes.append(outcome)
    await _finish(connection, journal, outcomes, now=now)
    return len(outcomes)


async def _close(
    connection: Connection, hold: Hold, state: HoldState, *, spent: int, amount_fen: int, now: datetime
) -> HoldOutcome:
    journal = Journal(await queries.lock_wallets(connection, [hold.member]), now=now)
    outcome = await _resolve(connection, journal, hold, state, spent=spent, amount_fen=amount_fen, now=now)
    if outcome is None:
        first = await find_hold(connection, hold_id=hold.id, partner_id=hold.partner_id)
        raise HoldNotOpen(state=first.state)
    await _finish(connection, journal, [outcome], now=now)
    return outcome


async def _resolve(
    connection: Connection,
    journal: Journal,
    hold: Hold,
    state: HoldState,
    *,
    spent: int,
    amount_fen: int,
    now: datetime,
) -> HoldOutcome | None:
    """Close `hold` under its wallet's lock and journal what follows; None when somebody else was first."""
    operation_id = new_id(now)
    closed = await queries.close_hold(
        connection, hold, state=state, captured_points=spent, operation_id=operation_id, now=now
    )
    if closed is None:
        return None
    captured, returned = split_capture(await queries.list_hold_lots(connection, hold), spent)
    journal.record(
        hold.member,
        _KINDS[state],
        points=spent or hold.points,
        partner_id=hold.partner_id,
        operation_id=operation_id,
        hold_id=hold.id,
        source_ref=hold.order_ref,
        amount_fen=amount_fen,
    )
    if captured:
        journal.post(operation_id, Account.HELD, Account.REDEEMED, captured, "capture")
        await queries.mark_captured(connection, hold, captured)
    _release(journal, operation_id, returned, now)
    return HoldOutcome(
        hold=closed,
        captured_points=spent,
        released_points=hold.points - spent,
        value_fen=value_fen(spent),
        operation_id=operation_id,
    )


def _release(journal: Journal, operation_id: UUID, returned: Sequence[Take], now: datetime) -> None:
    """Points of a lot that ended while held are gone at once; the others repay arrears before they are free."""
    journal.post(operation_id, Account.HELD, Account.AVAILABLE, returned, "release")
    journal.expire([taken for taken in returned if not taken.lot.is_live(now)])
    journal.repay(operation_id, [taken for taken in returned if taken.lot.is_live(now)])


async def _finish(
    connection: Connection, journal: Journal, outcomes: Sequence[HoldOutcome], *, now: datetime
) -> None:
    if not outcomes:
        return
    await journal.write(connection)
    await enqueue(connection, [_event(outcome) for outcome in outcomes], now=now)


def _event(outcome: HoldOutcome) -> Event:
    hold = outcome.hold
    return Event(
        bucket=hold.member.bucket,
        partner_id=hold.partner_id,
        type=f"points.hold.{hold.state}",
        aggregate=to_wire("hld", hold.id),
        payload={
            "id": to_wire("hld", hold.id),
            "order_ref": hold.order_ref,
            "state": hold.state,
            "captured_points": outcome.captured_points,
            "released_points": outcome.released_points,
            "value_fen": outcome.value_fen,
        },
    )
