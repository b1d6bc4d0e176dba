"""Spends: points spent at once, without a hold to wait in between. Many at a time or one."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from kernel.database import Connection
from kernel.errors import Refusal
from kernel.ids import new_id, to_wire
from kernel.outbox import Event, enqueue
from points.ledger import hold_queries
from points.ledger.journal import Journal
from points.ledger.model import Account, Hold, SpendRequest, Take, wallet_ref
from points.ledger.picking import pick_lots
from points.ledger.rules import check_spend_request, value_fen

#: a spend is over when it begins; its row wants a deadline after that all the same
BORN_CAPTURED = timedelta(seconds=1)


async def spend_points(
    connection: Connection, requests: Sequence[SpendRequest], *, now: datetime
) -> list[Hold | Refusal]:
    """Spend points for each request in turn; each is answered for itself, in the order of `requests`.

    A spend is a hold that is born captured, by one operation which has its id: what reverses, reads or explains a
    captured hold does the same to it.
    """
    for request in requests:
        check_spend_request(request)
    asked = [(wallet_ref(request.member, request.point_type.code), request.points) for request in requests]
    journal, picked = await pick_lots(connection, asked, now=now)
    answers: list[Hold | Refusal] = []
    spent: list[tuple[Hold, Sequence[Take]]] = []
    for request, takes in zip(requests, picked, strict=True):
        if isinstance(takes, Refusal):
            answers.append(takes)
            continue
        hold = _captured(request, now)
        _journal_spend(journal, request, hold, takes)
        spent.append((hold, takes))
        answers.append(hold)
    if spent:
        await hold_queries.insert_spends(connection, spent, now=now)
        await journal.write(connection)
        await enqueue(connection, [_event(hold) for hold, _ in spent], now=now)
    return answers


def _captured(request: SpendRequest, now: datetime) -> Hold:
    hold_id = new_id(now)
    return Hold(
        id=hold_id,
        member=request.member,
        partner_id=request.partner_id,
        points=request.points,
        captured_points=request.points,
        state="captured",
        order_ref=request.order_ref,
        deadline_at=now + BORN_CAPTURED,
        closed_by=hold_id,
        point_type=request.point_type,
    )


def _journal_spend(journal: Journal, request: SpendRequest, hold: Hold, takes: Sequence[Take]) -> None:
    value = value_fen(hold.points, hold.point_type)
    journal.record(
        hold.member,
        "spend",
        points=hold.points,
        partner_id=hold.partner_id,
        operation_id=hold.id,
        hold_id=hold.id,
        source_ref=hold.order_ref,
        amount_fen=value if request.order_fen is None else request.order_fen,
        point_type=hold.point_type.code,
    )
    journal.post(hold.id, Account.AVAILABLE, Account.REDEEMED, takes, "spend")


def _event(hold: Hold) -> Event:
    wire_id = to_wire("hld", hold.id)
    return Event(
        bucket=hold.member.bucket,
        partner_id=hold.partner_id,
        type="points.spent",
        aggregate=wire_id,
        payload={
            "id": wire_id,
            "order_ref": hold.order_ref,
            "points": hold.points,
            "point_type": hold.point_type.name,
            "value_fen": value_fen(hold.points, hold.point_type),
        },
    )
