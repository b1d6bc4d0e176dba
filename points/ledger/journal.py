"""The journal: what one transaction writes into the books of locked wallets, gathered in memory, written at once."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import groupby
from operator import attrgetter
from typing import Any
from uuid import UUID

from msgspec.structs import replace

from kernel.calendar import business_date
from kernel.caller import MemberRef
from kernel.database import Connection
from kernel.ids import new_id
from points.ledger import queries
from points.ledger.model import (
    TESSERA,
    Account,
    Entry,
    Lot,
    Manager,
    Move,
    MoveKind,
    Operation,
    OperationKind,
    Take,
    Wallet,
    WalletRef,
)
from points.ledger.rules import cost_fen, restored_expiry, spend_order

_by_funder = attrgetter("lot.funder_id")
#: how a move changes what is remaining, held and pending in its lot; see ledger_move_remaining and its neighbours
_EFFECTS: dict[MoveKind, tuple[int, int, int]] = {
    "hold": (0, 1, 0),
    "capture": (-1, -1, 0),
    "release": (0, -1, 0),
    "restore": (1, 0, 0),
    "activate": (0, 0, -1),
    "void": (-1, 0, -1),
}
_GONE = (-1, 0, 0)
#: how a debit and a credit change a member's account; arrears are what the member owes, so they grow on the debit side
_FIELDS = {
    Account.AVAILABLE: ("available_points", 1),
    Account.HELD: ("held_points", 1),
    Account.PENDING: ("pending_points", 1),
    Account.ARREARS: ("arrears_points", -1),
}


class Journal:
    """Postings on locked wallets. Balances move here as they will in the books; nothing is written before `write`."""

    def __init__(self, wallets: Iterable[Wallet], *, now: datetime) -> None:
        self._wallets = {(wallet.member_id, wallet.point_type): wallet for wallet in wallets}
        self._now = now
        self._business_on = business_date(now)
        self._operations: list[Operation] = []
        self._entries: list[Entry] = []
        self._lots: list[tuple[Lot, int | None]] = []
        self._moves: list[Move] = []
        #: the lots moved so far as they stand now, by wallet and number
        self._standing: dict[tuple[int, int, int], Lot] = {}
        #: which operation moved how much of which lot
        self._traces: list[tuple[UUID, MoveKind, Take]] = []

    def wallet(self, member: MemberRef, point_type: int = TESSERA) -> Wallet:
        return self._wallets[member.member_id, point_type]

    def has(self, key: WalletRef) -> bool:
        """Whether the wallet is one of those the journal was opened on."""
        return (key.member_id, key.point_type) in self._wallets

    def owing_pending_points(self, key: WalletRef) -> int:
        """What waits, or has ripened, in the wallet of who owes; nothing of who has none."""
        wallet = self._wallets.get((key.member_id, key.point_type))
        return 0 if wallet is None or not wallet.arrears_points else wallet.pending_points

    def standing(self, key: WalletRef, lots: Iterable[Lot]) -> list[Lot]:
        """These lots of a wallet as they stand now, and those moved so far, in spend order."""
        found = {lot.lot_seq: lot for lot in lots}
        for (member_id, point_type, lot_seq), lot in self._standing.items():
            if (member_id, point_type) == (key.member_id, key.point_type):
                found[lot_seq] = lot
        return sorted(found.values(), key=spend_order)

    def trace(self, operation_id: UUID) -> list[tuple[MoveKind, Take]]:
        """What an operation has done to which lots so far, in that order."""
        return [(kind, taken) for traced, kind, taken in self._traces if traced == operation_id]

    def record(
        self,
        member: MemberRef,
        kind: OperationKind,
        *,
        points: int,
        partner_id: UUID | None,
        operation_id: UUID | None = None,
        hold_id: UUID | None = None,
        source_ref: str | None = None,
        reverses: UUID | None = None,
        refund_ref: str | None = None,
        amount_fen: int = 0,
        manager: Manager | None = None,
        point_type: int = TESSERA,
        calculation: dict[str, Any] | None = None,
    ) -> UUID:
        """Open an operation; the entries posted under its id belong to it."""
        operation = Operation(
            bucket=member.bucket,
            member_id=member.member_id,
            id=operation_id or new_id(self._now),
            kind=kind,
            partner_id=partner_id,
            hold_id=hold_id,
            source_ref=source_ref,
            reverses=reverses,
            refund_ref=refund_ref,
            amount_fen=amount_fen,
            points=points,
            occurred_at=self._now,
            recorded_at=self._now,
            business_on=self._business_on,
            manager=manager,
            point_type=point_type,
            calculation=calculation,
        )
        self._operations.append(operation)
        return operation.id

    def post(
        self, operation_id: UUID, debit: Account, credit: Account, takes: Sequence[Take], move: MoveKind
    ) -> None:
        """Move the points of these lots of one wallet: one entry per funder."""
        for _, group in groupby(sorted(takes, key=_by_funder), key=_by_funder):
            share = list(group)
            points = sum(taken.points for taken in share)
            seq = self._enter(operation_id, share[0].lot, debit, credit, points, cost_fen(share))
            for taken in share:
                self._move(operation_id, taken, seq, move)

    def owe(self, operation_id: UUID, origin: Take) -> None:
        """Book points that no lot has left as arrears, at the cost of the lot that should have had them."""
        cost = cost_fen([origin])
        self._enter(operation_id, origin.lot, Account.ARREARS, Account.ISSUED, origin.points, cost)

    def grant(
        self,
        operation_id: UUID,
        debit: Account,
        lot: Lot,
        *,
        cost: int | None = None,
        parent_lot_seq: int | None = None,
    ) -> Take:
        """Make a lot with the remaining points and the attributes of `lot`; `cost` where they do not tell it."""
        granted = Take(lot=lot, points=lot.remaining_points)
        value = cost_fen([granted]) if cost is None else cost
        seq = self._enter(operation_id, lot, debit, Account.AVAILABLE, granted.points, value)
        lot = replace(
            lot,
            lot_seq=seq,
            operation_id=operation_id,
            held_points=0,
            pending_points=0,
            activates_at=None,
            id=new_id(self._now),
        )
        self._lots.append((lot, parent_lot_seq))
        granted = Take(lot=lot, points=lot.remaining_points)
        self._move(operation_id, granted, seq, "grant")
        return granted

    def renew(self, operation_id: UUID, expired: Take) -> Take:
        """Give points back to a lot that has ended meanwhile: a child lot of the same funder and cost."""
        parent = expired.lot
        child = replace(
            parent,
            effective_at=self._now,
            expires_at=restored_expiry(self._now),
            remaining_points=expired.points,
        )
        return self.grant(operation_id, Account.REDEEMED, child, parent_lot_seq=parent.lot_seq)

    def repay(self, operation_id: UUID, freed: Sequence[Take]) -> list[Take]:
        """Let free points repay what the member owes; returns those that did."""
        if not freed:
            return []
        key = freed[0].lot.wallet
        owed = self.wallet(key.member, key.point_type).arrears_points
        paying = []
        for taken in freed:
            if paid := min(owed, taken.points):
                paying.append(Take(lot=taken.lot, points=paid))
                owed -= paid
        self.post(operation_id, Account.AVAILABLE, Account.ARREARS, paying, "repay")
        return paying

    def settle(self, lots: Sequence[Lot]) -> list[Lot]:
        """Book what time has done to these lots of one wallet, in spend order; returns the live ones as they stand now."""
        standing = self._activate(lots)
        self.expire([Take(lot=lot, points=lot.free_points) for lot in standing if not lot.is_live(self._now)])
        return [lot for lot in standing if lot.is_live(self._now)]

    def _activate(self, lots: Sequence[Lot]) -> list[Lot]:
        """Book the end of waiting; what may be spent from now on repays arrears first. All lots, as they stand then.

        They repay in the order in which they ripened: as if it had been booked at each of these instants.
        """
        ripe = [Take(lot=lot, points=lot.pending_points) for lot in lots if lot.is_ripe(self._now)]
        if not ripe:
            return list(lots)
        key = ripe[0].lot.wallet
        points = sum(taken.points for taken in ripe)
        operation_id = self.record(
            key.member, "activate", points=points, partner_id=None, point_type=key.point_type
        )
        self.post(operation_id, Account.PENDING, Account.AVAILABLE, ripe, "activate")
        by_ripeness = sorted(ripe, key=attrgetter("lot.activates_at"))
        repaid = {taken.lot.lot_seq: taken.points for taken in self.repay(operation_id, by_ripeness)}
        activated = {taken.lot.lot_seq for taken in ripe}
        return [
            replace(lot, pending_points=0, remaining_points=lot.remaining_points - repaid.get(lot.lot_seq, 0))
            if lot.lot_seq in activated
            else lot
            for lot in lots
        ]

    def expire(self, ended: Sequence[Take]) -> None:
        """Book the end of free points of one wallet."""
        ended = [taken for taken in ended if taken.points > 0]
        if not ended:
            return
        key = ended[0].lot.wallet
        points = sum(taken.points for taken in ended)
        operation_id = self.record(
            key.member, "expire", points=points, partner_id=None, point_type=key.point_type
        )
        self.post(operation_id, Account.AVAILABLE, Account.BREAKAGE, ended, "expire")

    async def write(self, connection: Connection) -> None:
        """Everything in one statement; the constraints have the last word."""
        await connection.execute(
            queries.WRITE,
            [_operation_row(operation) for operation in self._operations],
            [self._entry_row(entry) for entry in self._entries],
            [_lot_row(lot, parent_lot_seq) for lot, parent_lot_seq in self._lots],
            [(m.bucket, m.member_id, m.point_type, m.seq, m.lot_seq, m.kind, m.points) for m in self._moves],
        )

    def _move(self, operation_id: UUID, taken: Take, seq: int, kind: MoveKind) -> None:
        lot = taken.lot
        move = Move(
            bucket=lot.bucket,
            member_id=lot.member_id,
            point_type=lot.point_type,
            seq=seq,
            lot_seq=lot.lot_seq,
            kind=kind,
            points=taken.points,
        )
        self._moves.append(move)
        self._traces.append((operation_id, kind, taken))
        place = (lot.member_id, lot.point_type, lot.lot_seq)
        if kind == "grant":
            self._standing[place] = lot
            return
        remaining, held, pending = (sign * taken.points for sign in _EFFECTS.get(kind, _GONE))
        stood = self._standing.get(place, lot)
        self._standing[place] = replace(
            stood,
            remaining_points=stood.remaining_points + remaining,
            held_points=stood.held_points + held,
            pending_points=stood.pending_points + pending,
        )

    def _enter(
        self, operation_id: UUID, lot: Lot, debit: Account, credit: Account, points: int, cost: int
    ) -> int:
        """One entry in the wallet of the lot, charged to its funder; returns its number."""
        wallet = self._wallets[lot.member_id, lot.point_type]
        changes: dict[str, Any] = {"seq": wallet.seq + 1}
        for account, signed in ((debit, -points), (credit, points)):
            if account in _FIELDS:
                field, nature = _FIELDS[account]
                changes[field] = getattr(wallet, field) + nature * signed
        after = self._wallets[lot.member_id, lot.point_type] = replace(wallet, **changes)
        self._entries.append(
            Entry(
                bucket=lot.bucket,
                member_id=lot.member_id,
                point_type=lot.point_type,
                seq=after.seq,
                operation_id=operation_id,
                debit=debit,
                credit=credit,
                points=points,
                funder_id=lot.funder_id,
                value_fen=cost,
                available_after=after.available_points,
                held_after=after.held_points,
                pending_after=after.pending_points,
                arrears_after=after.arrears_points,
            )
        )
        return after.seq

    def _entry_row(self, e: Entry) -> tuple[Any, ...]:
        """In the order of ledger_entry's columns; the hash is the database's."""
        return (
            *(e.bucket, e.member_id, e.point_type, e.seq, e.operation_id, int(e.debit), int(e.credit)),
            *(e.points, e.funder_id, e.value_fen),
            *(e.available_after, e.held_after, e.pending_after, e.arrears_after),
            *(self._now, self._business_on, None),
        )


def _lot_row(lot: Lot, parent_lot_seq: int | None) -> tuple[Any, ...]:
    """In the order of ledger_lot's columns."""
    return (
        *(lot.bucket, lot.member_id, lot.point_type, lot.lot_seq, lot.id, lot.operation_id, parent_lot_seq),
        *(lot.funder_id, lot.unit_cost_e6, lot.campaign, lot.rule_version),
        *(lot.effective_at, None, lot.expires_at),
        *(lot.remaining_points, lot.remaining_points, 0, 0, None),
    )


def _operation_row(o: Operation) -> tuple[Any, ...]:
    """In the order of ledger_operation's columns."""
    return (
        *(o.bucket, o.member_id, o.id, o.kind, o.partner_id, o.hold_id, o.source_kind, o.source_ref),
        *(o.reverses, o.refund_ref, o.amount_fen, o.points, o.rule_version, o.tier, o.multiplier_pct),
        *(o.own_card, o.category, o.occurred_at, o.recorded_at, o.business_on, o.manager),
        *(o.point_type, o.calculation),
    )
