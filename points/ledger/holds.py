"""Holds: points reserved for a checkout, then captured, released or lapsed, once. Many at a time or one."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import groupby
from typing import Literal, TypeVar
from uuid import UUID

from msgspec.structs import replace

from kernel.caller import MemberRef
from kernel.database import Connection
from kernel.errors import Refusal
from kernel.ids import new_id, to_wire
from kernel.outbox import Event, enqueue
from points.ledger import hold_posting_queries, hold_queries, queries
from points.ledger.journal import Journal
from points.ledger.model import (
    POINTS,
    Account,
    CloseRequest,
    Closing,
    Hold,
    HoldLot,
    HoldOutcome,
    HoldRequest,
    HoldState,
    Manager,
    PointType,
    Take,
    wallet_ref,
)
from points.ledger.picking import pick_lots
from points.ledger.rules import (
    HoldNotOpen,
    HoldUnknown,
    InsufficientPoints,
    check_hold_request,
    decide_closing,
    split_capture,
    value_fen,
)

T = TypeVar("T")

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
    manager: Manager | None = None,
    point_type: PointType = POINTS,
    now: datetime,
) -> Hold:
    """Reserve `points`; the lots that pay are pinned, so one may expire while held and is still captured."""
    request = HoldRequest(
        member=member,
        partner_id=partner_id,
        points=points,
        order_ref=order_ref,
        ttl_seconds=ttl_seconds,
        manager=manager,
        point_type=point_type,
    )
    return only(await place_holds(connection, [request], now=now))


async def place_holds(
    connection: Connection, requests: Sequence[HoldRequest], *, now: datetime
) -> list[Hold | Refusal]:
    """Reserve points for each request in turn; each is answered for itself, in the order of `requests`.

    One statement does it for all wallets in which nothing else is due. The others are locked with them, in one order,
    and their dues are booked by the journal; only its entries reach house slots, so these come last.
    """
    for request in requests:
        check_hold_request(request)
    if len({request.point_type.code for request in requests}) != 1:
        return await _place_in_turn(connection, requests, now=now)
    order = sorted(range(len(requests)), key=lambda place: _owner(requests[place].member))
    holds = [_opened(requests[place], now) for place in order]
    outcomes = await hold_posting_queries.place_holds(connection, holds, now=now)
    answers: dict[int, Hold | Refusal] = {}
    left: list[int] = []
    for place, hold, (placed, free) in zip(order, holds, outcomes, strict=True):
        if placed is None:
            left.append(place)
        else:
            answers[place] = hold if placed else InsufficientPoints(available_points=free)
    if left:
        left.sort()
        posted = await _place_in_turn(connection, [requests[place] for place in left], now=now)
        answers.update(zip(left, posted, strict=True))
    return [answers[place] for place in range(len(requests))]


async def _place_in_turn(
    connection: Connection, requests: Sequence[HoldRequest], *, now: datetime
) -> list[Hold | Refusal]:
    """By the journal: what has ended or ripened in these wallets is booked first."""
    asked = [(wallet_ref(request.member, request.point_type.code), request.points) for request in requests]
    journal, picked = await pick_lots(connection, asked, now=now)
    answers: list[Hold | Refusal] = []
    opened: list[tuple[Hold, Sequence[Take]]] = []
    for request, takes in zip(requests, picked, strict=True):
        if isinstance(takes, Refusal):
            answers.append(takes)
            continue
        hold = _opened(request, now)
        _journal_opening(journal, hold, takes)
        opened.append((hold, takes))
        answers.append(hold)
    if opened:
        await hold_queries.open_holds(connection, opened, now=now)
        await journal.write(connection)
    return answers


async def find_hold(connection: Connection, *, hold_id: UUID, partner_id: UUID) -> Hold:
    """The partner's hold; another's is as absent as none."""
    hold = (await hold_queries.list_holds(connection, [hold_id])).get(hold_id)
    if hold is None or hold.partner_id != partner_id:
        raise HoldUnknown
    return hold


async def capture_hold(
    connection: Connection,
    *,
    hold_id: UUID,
    partner_id: UUID,
    points: int | None = None,
    order_fen: int | None = None,
    manager: Manager | None = None,
    now: datetime,
) -> HoldOutcome:
    """Spend `points` of the hold (all by default) and release the rest.

    `order_fen` is the total that later partial refunds are proportional to: by default what the points paid for.
    """
    request = CloseRequest(
        hold_id=hold_id,
        partner_id=partner_id,
        state="captured",
        points=points,
        order_fen=order_fen,
        manager=manager,
    )
    return only(await close_holds(connection, [request], now=now))


async def release_hold(
    connection: Connection,
    *,
    hold_id: UUID,
    partner_id: UUID,
    manager: Manager | None = None,
    now: datetime,
) -> HoldOutcome:
    """Give every point of the hold back to its lot."""
    request = CloseRequest(hold_id=hold_id, partner_id=partner_id, state="released", manager=manager)
    return only(await close_holds(connection, [request], now=now))


async def close_holds(
    connection: Connection, requests: Sequence[CloseRequest], *, now: datetime
) -> list[HoldOutcome | Refusal]:
    """Capture or release each hold in turn; each is answered for itself, in the order of `requests`."""
    known = await hold_queries.list_holds(connection, {request.hold_id for request in requests})
    decided: list[Closing | Refusal] = []
    for request in requests:
        try:
            found = known.get(request.hold_id)
            decided.append(decide_closing(request, found, operation_id=new_id(now), now=now))
        except Refusal as refusal:
            decided.append(refusal)
    closings = [decision for decision in decided if isinstance(decision, Closing)]
    outcomes = await _close(connection, closings, now=now)
    late = [closing.hold.id for closing in closings if closing.operation_id not in outcomes]
    closed_before = await hold_queries.list_holds(connection, late) if late else {}
    return [
        decision
        if isinstance(decision, Refusal)
        else outcomes.get(decision.operation_id) or HoldNotOpen(state=closed_before[decision.hold.id].state)
        for decision in decided
    ]


async def lapse_due(connection: Connection, *, limit: int, now: datetime) -> int:
    """Book the end of up to `limit` holds whose deadline has passed; returns how many."""
    due = await hold_queries.list_lapsed_holds(connection, limit=limit, now=now)
    closings = [
        Closing(hold=hold, state="lapsed", spent=0, amount_fen=0, operation_id=new_id(now)) for hold in due
    ]
    return len(await _close(connection, closings, now=now))


async def _close(
    connection: Connection, closings: Sequence[Closing], *, now: datetime
) -> dict[UUID, HoldOutcome]:
    """Try every closing under its wallet's lock; the outcomes of those that came first, by operation.

    One statement does it, unless more is to be booked in one of the wallets than the ends of the holds.
    """
    if not closings:
        return {}
    if len({closing.hold.point_type.code for closing in closings}) != 1:
        return await _close_in_turn(connection, closings, now=now)
    firsts = {closing.hold.id: closing for closing in reversed(closings)}
    ordered = sorted(firsts.values(), key=lambda closing: _owner(closing.hold.member))
    outcomes = [_closed(closing) for closing in ordered]
    closed = await hold_posting_queries.settle_holds(
        connection,
        ordered,
        [_KINDS[closing.state] for closing in ordered],
        [_event(outcome) for outcome in outcomes],
        now=now,
    )
    if closed is None:
        return await _close_in_turn(connection, closings, now=now)
    return {o.operation_id: o for o, is_closed in zip(outcomes, closed, strict=True) if is_closed}


async def _close_in_turn(
    connection: Connection, closings: Sequence[Closing], *, now: datetime
) -> dict[UUID, HoldOutcome]:
    """By the journal: what comes back to a lot that has ended expires, what comes back to who owes repays."""
    wallets = await queries.lock_wallets(
        connection,
        [wallet_ref(closing.hold.member, closing.hold.point_type.code) for closing in closings],
    )
    journal = Journal(wallets, now=now)
    # what has ripened repays before what comes back does
    if owing := [wallet.key for wallet in wallets if wallet.arrears_points and wallet.pending_points]:
        due = await queries.list_due_lots(connection, owing, now=now)
        for _, lots in groupby(due, key=lambda lot: lot.wallet):
            journal.settle(list(lots))
    closed = await hold_queries.close_holds(connection, closings, now=now)
    pinned = await hold_queries.list_hold_lots(connection, list(closed.values()))
    captures: list[tuple[Hold, Sequence[Take]]] = []
    outcomes: dict[UUID, HoldOutcome] = {}
    for closing in closings:
        hold = closed.get(closing.operation_id)
        if hold is None:
            continue
        captured = _journal_closing(journal, closing, pinned[hold.id], now)
        if captured:
            captures.append((hold, captured))
        outcomes[closing.operation_id] = _closed(closing)
    if outcomes:
        await hold_queries.mark_captured(connection, captures)
        await journal.write(connection)
        await enqueue(connection, [_event(outcome) for outcome in outcomes.values()], now=now)
    return outcomes


def _owner(member: MemberRef) -> tuple[int, int]:
    return member.bucket, member.member_id


def _closed(closing: Closing) -> HoldOutcome:
    hold = closing.hold
    return HoldOutcome(
        hold=replace(
            hold, state=closing.state, captured_points=closing.spent, closed_by=closing.operation_id
        ),
        captured_points=closing.spent,
        released_points=hold.points - closing.spent,
        value_fen=value_fen(closing.spent, hold.point_type),
        operation_id=closing.operation_id,
    )


def _opened(request: HoldRequest, now: datetime) -> Hold:
    return Hold(
        id=new_id(now),
        member=request.member,
        partner_id=request.partner_id,
        points=request.points,
        captured_points=0,
        state="open",
        order_ref=request.order_ref,
        deadline_at=now + timedelta(seconds=request.ttl_seconds),
        manager=request.manager,
        point_type=request.point_type,
    )


def _journal_opening(journal: Journal, hold: Hold, takes: Sequence[Take]) -> None:
    """A hold is its own opening operation."""
    journal.record(
        hold.member,
        "hold",
        points=hold.points,
        partner_id=hold.partner_id,
        operation_id=hold.id,
        hold_id=hold.id,
        source_ref=hold.order_ref,
        manager=hold.manager,
        point_type=hold.point_type.code,
    )
    journal.post(hold.id, Account.AVAILABLE, Account.HELD, takes, "hold")


def _journal_closing(
    journal: Journal, closing: Closing, pinned: Sequence[HoldLot], now: datetime
) -> list[Take]:
    """Spend, then give back: points of a lot that ended while held are gone at once, the others repay arrears first.

    Returns what was spent.
    """
    hold, operation_id = closing.hold, closing.operation_id
    captured, returned = split_capture(pinned, closing.spent)
    journal.record(
        hold.member,
        _KINDS[closing.state],
        points=closing.spent or hold.points,
        partner_id=hold.partner_id,
        operation_id=operation_id,
        hold_id=hold.id,
        source_ref=hold.order_ref,
        amount_fen=closing.amount_fen,
        manager=hold.manager,
        point_type=hold.point_type.code,
    )
    journal.post(operation_id, Account.HELD, Account.REDEEMED, captured, "capture")
    journal.post(operation_id, Account.HELD, Account.AVAILABLE, returned, "release")
    journal.expire([taken for taken in returned if not taken.lot.is_live(now)])
    journal.repay(operation_id, [taken for taken in returned if taken.lot.is_live(now)])
    return captured


def only(answers: Sequence[T | Refusal]) -> T:
    """The answer to a single wish; its refusal is raised."""
    (answer,) = answers
    if isinstance(answer, Refusal):
        raise answer
    return answer


def _event(outcome: HoldOutcome) -> Event:
    hold = outcome.hold
    wire_id = to_wire("hld", hold.id)
    return Event(
        bucket=hold.member.bucket,
        partner_id=hold.partner_id,
        type=f"points.hold.{hold.state}",
        aggregate=wire_id,
        payload={
            "id": wire_id,
            "order_ref": hold.order_ref,
            "state": hold.state,
            "captured_points": outcome.captured_points,
            "released_points": outcome.released_points,
            "value_fen": outcome.value_fen,
        },
    )
