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
)
from points.ledger.rules import cost_fen, restored_expiry

_by_funder = attrgetter("lot.funder_id")
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
        self._wallets = {wallet.member_id: wallet for wallet in wallets}
        self._now = now
        self._business_on = business_date(now)
        self._operations: list[Operation] = []
        self._entries: list[Entry] = []
        self._lots: list[tuple[Lot, UUID, int]] = []
        self._moves: list[Move] = []

    def wallet(self, member: MemberRef) -> Wallet:
        return self._wallets[member.member_id]

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
        )
        self._operations.append(operation)
        return operation.id

    def post(
        self, operation_id: UUID, debit: Account, credit: Account, takes: Sequence[Take], move: MoveKind
    ) -> None:
        """Move the points of these lots of one wallet: one entry per funder."""
        for funder_id, group in groupby(sorted(takes, key=_by_funder), key=_by_funder):
            share = list(group)
            member = MemberRef(member_id=share[0].lot.member_id, bucket=share[0].lot.bucket)
            points = sum(taken.points for taken in share)
            seq = self._enter(operation_id, member, debit, credit, points, funder_id, cost_fen(share))
            self._moves.extend(_move(taken, seq, move) for taken in share)

    def owe(self, operation_id: UUID, origin: Take) -> None:
        """Book points that no lot has left as arrears, at the cost of the lot that should have had them."""
        member = MemberRef(member_id=origin.lot.member_id, bucket=origin.lot.bucket)
        cost = cost_fen([origin])
        self._enter(
            operation_id, member, Account.ARREARS, Account.ISSUED, origin.points, origin.lot.funder_id, cost
        )

    def renew(self, operation_id: UUID, expired: Take) -> Take:
        """Give points back to a lot that has ended meanwhile: a child lot of the same funder and cost."""
        parent = expired.lot
        member = MemberRef(member_id=parent.member_id, bucket=parent.bucket)
        seq = self._enter(
            operation_id,
            member,
            Account.REDEEMED,
            Account.AVAILABLE,
            expired.points,
            parent.funder_id,
            cost_fen([expired]),
        )
        child = replace(
            parent,
            lot_seq=seq,
            operation_id=operation_id,
            effective_at=self._now,
            expires_at=restored_expiry(self._now),
            remaining_points=expired.points,
            held_points=0,
        )
        self._lots.append((child, new_id(self._now), parent.lot_seq))
        renewed = Take(lot=child, points=expired.points)
        self._moves.append(_move(renewed, seq, "grant"))
        return renewed

    def repay(self, operation_id: UUID, freed: Sequence[Take]) -> list[Take]:
        """Let free points repay what the member owes; returns those that did."""
        if not freed:
            return []
        member = MemberRef(member_id=freed[0].lot.member_id, bucket=freed[0].lot.bucket)
        owed = self.wallet(member).arrears_points
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
        """Book the end of waiting; what may be spent from now on repays arrears first. All lots, as they stand then."""
        ripe = [Take(lot=lot, points=lot.pending_points) for lot in lots if lot.is_ripe(self._now)]
        if not ripe:
            return list(lots)
        lot = ripe[0].lot
        member = MemberRef(member_id=lot.member_id, bucket=lot.bucket)
        points = sum(taken.points for taken in ripe)
        operation_id = self.record(member, "activate", points=points, partner_id=None)
        self.post(operation_id, Account.PENDING, Account.AVAILABLE, ripe, "activate")
        repaid = {taken.lot.lot_seq: taken.points for taken in self.repay(operation_id, ripe)}
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
        lot = ended[0].lot
        member = MemberRef(member_id=lot.member_id, bucket=lot.bucket)
        points = sum(taken.points for taken in ended)
        operation_id = self.record(member, "expire", points=points, partner_id=None)
        self.post(operation_id, Account.AVAILABLE, Account.BREAKAGE, ended, "expire")

    async def write(self, connection: Connection) -> None:
        """Everything in one statement; the constraints have the last word."""
        await connection.execute(
            queries.WRITE,
            [_operation_row(operation) for operation in self._operations],
            [self._entry_row(entry) for entry in self._entries],
            [self._lot_row(*child) for child in self._lots],
            [(m.bucket, m.member_id, TESSERA, m.seq, m.lot_seq, m.kind, m.points) for m in self._moves],
        )

    def _enter(
        self,
        operation_id: UUID,
        member: MemberRef,
        debit: Account,
        credit: Account,
        points: int,
        funder_id: int,
        cost: int,
    ) -> int:
        wallet = self.wallet(member)
        changes: dict[str, Any] = {"seq": wallet.seq + 1}
        for account, signed in ((debit, -points), (credit, points)):
            if account in _FIELDS:
                field, nature = _FIELDS[account]
                changes[field] = getattr(wallet, field) + nature * signed
        after = self._wallets[member.member_id] = replace(wallet, **changes)
        self._entries.append(
            Entry(
                bucket=member.bucket,
                member_id=member.member_id,
                seq=after.seq,
                operation_id=operation_id,
                debit=debit,
                credit=credit,
                points=points,
                funder_id=funder_id,
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
            *(e.bucket, e.member_id, TESSERA, e.seq, e.operation_id, int(e.debit), int(e.credit)),
            *(e.points, e.funder_id, e.value_fen),
            *(e.available_after, e.held_after, e.pending_after, e.arrears_after),
            *(self._now, self._business_on, None),
        )

    def _lot_row(self, lot: Lot, lot_id: UUID, parent_lot_seq: int) -> tuple[Any, ...]:
        """In the order of ledger_lot's columns."""
        return (
            *(lot.bucket, lot.member_id, TESSERA, lot.lot_seq, lot_id, lot.operation_id, parent_lot_seq),
            *(lot.funder_id, lot.unit_cost_e6, lot.campaign, lot.rule_version),
            *(lot.effective_at, None, lot.expires_at),
            *(lot.remaining_points, lot.remaining_points, 0, 0),
        )


def _move(taken: Take, seq: int, kind: MoveKind) -> Move:
    lot = taken.lot
    return Move(
        bucket=lot.bucket,
        member_id=lot.member_id,
        seq=seq,
        lot_seq=lot.lot_seq,
        kind=kind,
        points=taken.points,
    )


def _operation_row(o: Operation) -> tuple[Any, ...]:
    """In the order of ledger_operation's columns."""
    return (
        *(o.bucket, o.member_id, o.id, o.kind, o.partner_id, o.hold_id, o.source_kind, o.source_ref),
        *(o.reverses, o.refund_ref, o.amount_fen, o.points, o.rule_version, o.tier, o.multiplier_pct),
        *(o.own_card, o.category, o.occurred_at, o.recorded_at, o.business_on, o.manager),
        *(o.point_type, o.calculation),
    )
