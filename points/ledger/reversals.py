"""Reversals: a refund claws back what an order earned, or restores what it spent. Many at a time or one."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Self
from uuid import UUID

from msgspec.structs import replace

from kernel.database import Connection
from kernel.errors import Refusal
from kernel.ids import to_wire
from kernel.outbox import Event, enqueue
from points.ledger import budgets, funding, hold_queries, queries
from points.ledger.balances import take_all
from points.ledger.budgets import Want
from points.ledger.drawn import list_drawn, returned_by
from points.ledger.holds import only
from points.ledger.journal import Journal
from points.ledger.model import (
    Account,
    Hold,
    HoldLot,
    Lot,
    Manager,
    Operation,
    Reversal,
    ReversalRequest,
    Reversible,
    Side,
    Take,
    Undoable,
)
from points.ledger.rules import (
    OperationNotReversible,
    OperationUnknown,
    RefundAlreadyPosted,
    check_manager,
    give_back,
    points_to_reverse,
    share_missing,
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
    request = ReversalRequest(
        operation_id=operation_id,
        partner_id=partner_id,
        side=side,
        refund_ref=refund_ref,
        refunded_fen=refunded_fen,
        manager=manager,
    )
    return only(await reverse_each(connection, [request], now=now))


async def reverse_each(
    connection: Connection, requests: Sequence[ReversalRequest], *, now: datetime
) -> list[Reversal | Refusal]:
    """`reverse` for each request in turn; each is answered for itself, in the order of `requests`."""
    found: list[Undoable | Refusal] = []
    for request in requests:
        try:
            found.append(await find_undoable(connection, request))
        except Refusal as refusal:
            found.append(refusal)
    undoing = await Undoing.begin(
        connection, [target for target in found if isinstance(target, Undoable)], now=now
    )
    answers: list[Reversal | Refusal] = []
    for request, target in zip(requests, found, strict=True):
        try:
            answers.append(target if isinstance(target, Refusal) else await undoing.undo(target, request))
        except Refusal as refusal:  # before anything of it was in the journal
            answers.append(refusal)
    await undoing.write()
    return answers


async def find_undoable(connection: Connection, request: ReversalRequest) -> Undoable:
    """The operation a refund undoes, and the hold it captured if it was a spend."""
    partner_id, side = request.partner_id, request.side
    operation = await queries.find_operation(connection, request.operation_id, partner_id=partner_id)
    # Who may only earn must not name a spend by another kind of id, nor the other way round.
    if operation is None or (operation.kind in ("hold", "spend")) != (side == "spend"):
        raise OperationUnknown
    hold = None
    if side == "spend":
        hold = (await hold_queries.list_holds(connection, [operation.id]))[operation.id]
        if hold.state != "captured" or hold.closed_by is None:
            raise OperationNotReversible(state=hold.state)
        if hold.closed_by != operation.id:
            operation = await queries.find_operation(connection, hold.closed_by, partner_id=partner_id)
            assert operation is not None, "a captured hold names its capture"
    elif operation.kind != "earn":
        raise OperationNotReversible
    check_manager(operation.manager, request.manager)
    return Undoable(operation=operation, hold=hold)


class Undoing:
    """Refunds on one journal. What one of them does, the next one sees; nothing is written before `write`."""

    def __init__(self, connection: Connection, journal: Journal, *, now: datetime) -> None:
        self._connection = connection
        self._now = now
        self.journal = journal
        self._done: list[tuple[Undoable, ReversalRequest, Reversal]] = []
        self._counts: dict[UUID, Reversible] = {}
        #: by earning and funder, what refunds may still charge to the funder
        self._rooms: dict[UUID, dict[int, int]] = {}
        self._pinned: dict[UUID, list[HoldLot]] = {}
        self._restored: list[tuple[Hold, list[Take]]] = []
        #: what goes back to campaigns' budgets
        self._returned: list[Want] = []
        #: what was taken of points that funders' blocks paid for
        self._taken: list[tuple[Operation, UUID, list[Take]]] = []

    @classmethod
    async def begin(cls, connection: Connection, targets: Sequence[Undoable], *, now: datetime) -> Self:
        """With the wallets of all of them locked, and before them the budgets and blocks that may get points back."""
        operations = [target.operation for target in targets]
        drawn = [(one.bucket, budget_id) for one in operations for budget_id, _ in list_drawn(one)]
        if drawn:
            await budgets.lock(connection, drawn, now=now)
        funded = [operation for operation in operations if operation.block_funded]
        if funded:
            await funding.lock_blocks(connection, funded, now=now)
        wallets = await queries.lock_wallets(connection, [target.wallet for target in targets])
        return cls(connection, Journal(wallets, now=now), now=now)

    @classmethod
    async def preview(cls, connection: Connection, targets: Sequence[Undoable], *, now: datetime) -> Self:
        """With the wallets as they are at this moment; not to be written."""
        wallets = await queries.list_wallets(connection, [target.wallet for target in targets])
        return cls(connection, Journal(wallets, now=now), now=now)

    async def undo(self, target: Undoable, request: ReversalRequest) -> Reversal:
        """Enter one refund in the journal; refused before anything of it is there."""
        assert request.refunded_fen > 0, "the handler's type lets nothing else in"
        operation, hold, now = target.operation, target.hold, self._now
        # asked only now: under the lock nobody can post it between question and answer
        await self._check_new(operation, request.refund_ref)
        count = await self._count(operation)
        points = points_to_reverse(count, request.refunded_fen)
        if hold is None:
            lots = await queries.list_lots_to_reverse(
                self._connection, target.wallet, operation_id=operation.id
            )
        else:
            lots = await queries.list_due_lots(self._connection, [target.wallet], now=now)
            await self._list_pinned(hold)
        lots = self.journal.standing(target.wallet, lots)
        live = self.journal.settle(lots)
        reversal_id = self.journal.record(
            operation.member,
            "reverse_earn" if hold is None else "reverse_spend",
            points=points,
            partner_id=operation.partner_id,
            hold_id=None if hold is None else hold.id,
            reverses=operation.id,
            refund_ref=request.refund_ref,
            amount_fen=request.refunded_fen,
            manager=request.manager,
            point_type=operation.point_type,
        )
        owed = 0
        if hold is None:
            origin = [lot for lot in lots if lot.operation_id == operation.id]
            room = await self._room(operation, origin, count)
            owed, taken = _claw_back(self.journal, reversal_id, live, origin, room, points)
            for one in taken:
                room[one.lot.funder_id] -= one.points
            if operation.block_funded:
                self._taken.append((operation, reversal_id, taken))
        else:
            self._restore(hold, reversal_id, points)
        self._returned += returned_by(operation, count, request.refunded_fen)
        self._counts[operation.id] = replace(
            count,
            reversed_fen=count.reversed_fen + request.refunded_fen,
            reversed_points=count.reversed_points + points,
        )
        reversal = Reversal(
            id=reversal_id,
            points_clawed_back=points if hold is None else 0,
            points_restored=points if hold is not None else 0,
            arrears_added=owed,
            balance=self.journal.wallet(operation.member, operation.point_type).balance,
        )
        self._done.append((target, request, reversal))
        return reversal

    async def write(self) -> None:
        """Write all of them; their events with them."""
        if not self._done:
            return
        for target, request, reversal in self._done:
            points = reversal.points_clawed_back + reversal.points_restored
            await queries.move_reversible(
                self._connection, target.operation, fen=request.refunded_fen, points=points
            )
        for hold, returned in self._restored:
            await hold_queries.mark_restored(self._connection, hold, returned)
        await budgets.give_back(self._connection, self._returned, now=self._now)
        for operation, reversal_id, taken in self._taken:
            await funding.return_draws(
                self._connection, operation, taken, by_operation=reversal_id, now=self._now
            )
        await self.journal.write(self._connection)
        await enqueue(
            self._connection,
            [
                _event(target.operation, target.hold, request.refund_ref, reversal)
                for target, request, reversal in self._done
            ],
            now=self._now,
        )

    async def _check_new(self, operation: Operation, refund_ref: str) -> None:
        posted = any(
            (target.operation.id, request.refund_ref) == (operation.id, refund_ref)
            for target, request, _ in self._done
        )
        if posted or await queries.find_refund(self._connection, operation, refund_ref=refund_ref):
            raise RefundAlreadyPosted(refund_ref=refund_ref)

    async def _count(self, operation: Operation) -> Reversible:
        if operation.id not in self._counts:
            self._counts[operation.id] = await queries.read_reversible(self._connection, operation)
        return self._counts[operation.id]

    async def _room(self, operation: Operation, origin: Sequence[Lot], count: Reversible) -> dict[int, int]:
        """Asked only where several pay: a single funder issued all that is not undone yet."""
        if operation.id not in self._rooms:
            funders = {lot.funder_id for lot in origin}
            if len(funders) > 1:
                first_seq = min(lot.lot_seq for lot in origin)
                issued = await queries.list_issued(self._connection, operation, first_seq=first_seq)
            else:
                issued = dict.fromkeys(funders, count.base_points - count.reversed_points)
            self._rooms[operation.id] = {funder_id: max(points, 0) for funder_id, points in issued.items()}
        return self._rooms[operation.id]

    async def _list_pinned(self, hold: Hold) -> None:
        if hold.id not in self._pinned:
            self._pinned |= await hold_queries.list_hold_lots(self._connection, [hold])

    def _restore(self, hold: Hold, reversal_id: UUID, points: int) -> None:
        """To the same lots; a lot that has ended meanwhile gets a child. Arrears are repaid before anything is free."""
        returned = give_back(self._pinned[hold.id], points)
        back = {taken.lot.lot_seq: taken.points for taken in returned}
        self._pinned[hold.id] = [
            replace(pinned, restored=pinned.restored + back.get(pinned.lot.lot_seq, 0))
            for pinned in self._pinned[hold.id]
        ]
        self._restored.append((hold, returned))
        alive = [taken for taken in returned if taken.lot.is_live(self._now)]
        self.journal.post(reversal_id, Account.REDEEMED, Account.AVAILABLE, alive, "restore")
        renewed = [
            self.journal.renew(reversal_id, taken) for taken in returned if not taken.lot.is_live(self._now)
        ]
        self.journal.repay(reversal_id, [*alive, *renewed])


def _claw_back(
    journal: Journal,
    reversal_id: UUID,
    live: Sequence[Lot],
    origin: Sequence[Lot],
    room: Mapping[int, int],
    points: int,
) -> tuple[int, list[Take]]:
    """From the earning's own lots, then its funders', then owed; held points are never touched.

    Returns how much of it stays owed, and what the points were taken from.
    """
    if points == 0:
        return 0, []
    key = origin[0].wallet
    voided, taken_back = take_back(live, origin, points, room)
    journal.post(reversal_id, Account.PENDING, Account.ISSUED, voided, "void")
    journal.post(reversal_id, Account.AVAILABLE, Account.ISSUED, taken_back, "claw")
    takes = [*voided, *taken_back]
    missing = share_missing(origin, takes, room, points)
    if not missing:
        return 0, takes
    for share in missing:
        journal.owe(reversal_id, share)
    # who owes cannot have points free: what is left repays at once, as later earnings would
    alive = {lot.lot_seq for lot in live}
    left = [lot for lot in journal.standing(key, live) if lot.lot_seq in alive]
    repaid = journal.repay(reversal_id, take_all(left))
    owed = sum(share.points for share in missing) - sum(taken.points for taken in repaid)
    return owed, [*takes, *missing]


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
