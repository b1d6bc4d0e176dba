"""Reversals: a refund claws back what an order earned, or restores what it spent."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from kernel.database import Connection
from kernel.ids import new_id, to_wire
from kernel.outbox import Event, enqueue
from points.ledger import hold_queries, queries
from points.ledger.balances import take_all
from points.ledger.journal import Journal
from points.ledger.model import Account, Hold, Lot, Manager, Operation, Reversal, Side, Take
from points.ledger.rules import (
    OperationNotReversible,
    OperationUnknown,
    RefundAlreadyPosted,
    check_manager,
    give_back,
    points_to_reverse,
    take_back,
)


async def reverse(
    connection: Connection,
    *,
    operation_id: UUID,
    partner_id: UUID,
    side: Side,
    refund_ref: str,
    refunded_fen: int,
    manager: Manager | None = None,
    now: datetime,
) -> Reversal:
    """Undo the share of an earning or of a captured hold that a refund of `refunded_fen` stands for.

    `operation_id` is an earning's, or a hold's on the spending side. Each `refund_ref` counts once for ever. What was
    granted is reversed, not what today's rules would grant.
    """
    assert refunded_fen > 0, "the handler's type lets nothing else in"
    operation, hold = await _find(connection, operation_id, partner_id, side)
    check_manager(operation.manager, manager)
    journal = Journal(await queries.lock_wallets(connection, [operation.member]), now=now)
    # asked only now: under the lock nobody can post it between question and answer
    if await queries.find_refund(connection, operation, refund_ref=refund_ref) is not None:
        raise RefundAlreadyPosted(refund_ref=refund_ref)
    reversible = await queries.open_reversible(connection, operation)
    points = points_to_reverse(reversible, refunded_fen)

    reversal_id = new_id(now)
    if hold is None:
        lots = await queries.list_lots_to_reverse(connection, operation.member, operation_id=operation.id)
    else:
        lots = await queries.list_due_lots(connection, [operation.member], now=now)
    live = journal.settle(lots)
    journal.record(
        operation.member,
        "reverse_earn" if hold is None else "reverse_spend",
        points=points,
        partner_id=partner_id,
        operation_id=reversal_id,
        hold_id=None if hold is None else hold.id,
        reverses=operation.id,
        refund_ref=refund_ref,
        amount_fen=refunded_fen,
        manager=manager,
    )
    arrears_added = 0
    if hold is None:
        origin = [lot for lot in lots if lot.operation_id == operation.id]
        arrears_added = _claw_back(journal, reversal_id, live, origin, points)
    else:
        await _restore(connection, journal, hold, reversal_id, points, now)
    await queries.move_reversible(connection, operation, fen=refunded_fen, points=points)
    await journal.write(connection)

    reversal = Reversal(
        id=reversal_id,
        points_clawed_back=points if hold is None else 0,
        points_restored=points if hold is not None else 0,
        arrears_added=arrears_added,
        balance=journal.wallet(operation.member).balance,
    )
    await enqueue(connection, [_event(operation, hold, refund_ref, reversal)], now=now)
    return reversal


async def _find(
    connection: Connection, operation_id: UUID, partner_id: UUID, side: Side
) -> tuple[Operation, Hold | None]:
    """The operation a refund undoes, and the hold it captured if it was a spend."""
    operation = await queries.find_operation(connection, operation_id, partner_id=partner_id)
    # Who may only earn must not name a spend by another kind of id, nor the other way round.
    if operation is None or (operation.kind == "hold") != (side == "spend"):
        raise OperationUnknown
    if side == "earn":
        if operation.kind != "earn":
            raise OperationNotReversible
        return operation, None
    hold = (await hold_queries.list_holds(connection, [operation.id]))[operation.id]
    if hold.state != "captured" or hold.closed_by is None:
        raise OperationNotReversible(state=hold.state)
    capture = await queries.find_operation(connection, hold.closed_by, partner_id=partner_id)
    assert capture is not None, "a captured hold names its capture"
    return capture, hold


def _claw_back(
    journal: Journal, reversal_id: UUID, live: Sequence[Lot], origin: Sequence[Lot], points: int
) -> int:
    """From the earning's own lots, then its funders', then owed; held points are never touched.

    Returns how much of it stays owed.
    """
    if points == 0:
        return 0
    voided, taken_back = take_back(live, origin, points)
    journal.post(reversal_id, Account.PENDING, Account.ISSUED, voided, "void")
    journal.post(reversal_id, Account.AVAILABLE, Account.ISSUED, taken_back, "claw")
    owed = points - sum(taken.points for taken in (*voided, *taken_back))
    if owed == 0:
        return 0
    journal.owe(reversal_id, Take(lot=origin[0], points=owed))
    # who owes cannot have points free: other funders' points repay at once, as later earnings would
    used = {taken.lot.lot_seq for taken in taken_back}
    repaid = journal.repay(reversal_id, take_all([lot for lot in live if lot.lot_seq not in used]))
    return owed - sum(taken.points for taken in repaid)


async def _restore(
    connection: Connection,
    journal: Journal,
    hold: Hold,
    reversal_id: UUID,
    points: int,
    now: datetime,
) -> None:
    """To the same lots; a lot that has ended meanwhile gets a child. Arrears are repaid before anything is free."""
    pinned = await hold_queries.list_hold_lots(connection, [hold])
    returned = give_back(pinned[hold.id], points)
    alive = [taken for taken in returned if taken.lot.is_live(now)]
    journal.post(reversal_id, Account.REDEEMED, Account.AVAILABLE, alive, "restore")
    renewed = [journal.renew(reversal_id, taken) for taken in returned if not taken.lot.is_live(now)]
    await hold_queries.mark_restored(connection, hold, returned)
    journal.repay(reversal_id, [*alive, *renewed])


def _event(operation: Operation, hold: Hold | None, refund_ref: str, reversal: Reversal) -> Event:
    wire_id = to_wire("ent", reversal.id)
    undone = to_wire("ent", operation.id) if hold is None else to_wire("hld", hold.id)
    return Event(
        bucket=operation.bucket,
        partner_id=operation.partner_id or UUID(int=0),
        type="points.reversed",
        aggregate=wire_id,
        payload={
            "id": wire_id,
            "operation_id": undone,
            "refund_ref": refund_ref,
            "points_clawed_back": reversal.points_clawed_back,
            "points_restored": reversal.points_restored,
            "arrears_added": reversal.arrears_added,
        },
    )
