"""Transfers: points given to another member, in two transactions with the points in transit between them."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import groupby
from typing import Protocol
from uuid import UUID

from msgspec.structs import replace

from kernel.calendar import business_date
from kernel.caller import MemberRef
from kernel.database import Connection
from kernel.errors import Absent, Conflict, Refusal, Unprocessable
from kernel.ids import new_id, to_wire
from kernel.outbox import Event, enqueue
from points.ledger import queries, transfer_queries
from points.ledger.deeds import SentLot, Transfer, TransferRequest, TransferState
from points.ledger.journal import Journal
from points.ledger.model import Account, Lot, Take, WalletRef, wallet_ref
from points.ledger.picking import pick_lots

SPEND = "points:spend"
#: of one transfer, and what a member may send on one business day
TRANSFER_POINTS_MAX = 1_000_000
DAY_TRANSFERS_MAX = 20


class Consents(Protocol):
    """Who still consents to a partner: the part of kernel.caller.Subjects that is asked here."""

    async def names(
        self, connection: Connection, *, partner_id: UUID, member_ids: Sequence[int]
    ) -> dict[int, str]: ...

    async def resolve_each(
        self, connection: Connection, asked: Sequence[tuple[UUID, str]], *, scope: str, now: datetime
    ) -> Sequence[MemberRef | Refusal]: ...


class TransferToOneself(Unprocessable):
    """Sender and receiver are the same member."""


class TransferTooLarge(Unprocessable):
    """One transfer takes fewer points than that."""


class TransferLimitReached(Conflict):
    """The member has sent as many transfers or points today as one may."""


class TransferAlreadySent(Conflict):
    """A transfer with this transfer_ref has already been sent for this member."""


class TransferUnknown(Absent):
    """No such transfer, or not one of this partner's."""

    code = "transfer_not_found"


async def send_points(connection: Connection, request: TransferRequest, *, now: datetime) -> Transfer:
    """The first transaction: the points leave the sender's lots and are in transit until `end_transfers` has come by."""
    assert request.points > 0, "the handler's type lets nothing else in"
    if request.receiver == request.sender:
        raise TransferToOneself
    if request.points > TRANSFER_POINTS_MAX:
        raise TransferTooLarge(points_max=TRANSFER_POINTS_MAX)
    key = wallet_ref(request.sender, request.point_type.code)
    journal, [takes] = await pick_lots(connection, [(key, request.points)], now=now)
    await _check_allowed(connection, request, now)
    if isinstance(takes, Refusal):
        raise takes
    transfer = Transfer(
        id=new_id(now),
        sender=request.sender,
        receiver=request.receiver,
        partner_id=request.partner_id,
        point_type=request.point_type.code,
        points=request.points,
        transfer_ref=request.transfer_ref,
        state="sent",
        sent_at=now,
    )
    journal.record(
        request.sender,
        "transfer_out",
        points=transfer.points,
        partner_id=transfer.partner_id,
        operation_id=transfer.id,
        source_ref=transfer.transfer_ref,
        point_type=transfer.point_type,
    )
    journal.post(transfer.id, Account.AVAILABLE, Account.IN_TRANSIT, takes, "transfer")
    await transfer_queries.insert_transfer(connection, transfer, takes, day=business_date(now))
    await journal.write(connection)
    await enqueue(connection, [_event(transfer)], now=now)
    return transfer


async def find_transfer(connection: Connection, *, transfer_id: UUID, partner_id: UUID) -> Transfer:
    """The partner's transfer; another's is as absent as none."""
    found = await transfer_queries.find_transfer(connection, transfer_id, partner_id=partner_id)
    if found is None:
        raise TransferUnknown
    return found


async def end_transfers(connection: Connection, subjects: Consents, *, limit: int, now: datetime) -> int:
    """The second transaction, for up to `limit` transfers under way; returns how many.

    The points arrive as lots of their own with everything the sender's had. They go back where the receiver does not
    consent to the partner any more, or where nothing of them is left to live; what has ended on the way ends where it
    gets to.
    """
    under_way = await transfer_queries.claim_under_way(connection, limit=limit)
    if not under_way:
        return 0
    sent = await transfer_queries.list_sent_lots(connection, under_way)
    willing = await _list_willing(connection, subjects, under_way, now)
    ended = [
        replace(transfer, state=_decide(transfer.id in willing, sent[transfer.id], now), ended_at=now)
        for transfer in under_way
    ]
    keys = [transfer.target if transfer.state == "arrived" else transfer.source for transfer in ended]
    await queries.open_wallets(connection, keys)
    journal = Journal(await queries.lock_wallets(connection, keys), now=now)
    for _, due in groupby(
        await queries.list_due_lots(connection, sorted(set(keys), key=_by_key), now=now),
        key=lambda lot: lot.wallet,
    ):
        journal.settle(list(due))
    operations = []
    for transfer, key in zip(ended, keys, strict=True):
        operation_id = journal.record(
            key.member,
            "transfer_in",
            points=transfer.points,
            partner_id=transfer.partner_id,
            source_ref=transfer.transfer_ref,
            point_type=transfer.point_type,
        )
        own = {}
        if transfer.state == "returned":
            own = await _list_own(connection, key, sent[transfer.id])
        _journal_arrival(journal, operation_id, key, sent[transfer.id], own, now)
        operations.append((transfer, operation_id))
    done = await transfer_queries.end_transfers(connection, operations, now=now)
    assert done == len(ended), "claimed rows are ended by nobody else"
    await journal.write(connection)
    await enqueue(connection, [_event(transfer) for transfer in ended], now=now)
    return done


def _decide(willing: bool, sent: Sequence[SentLot], now: datetime) -> TransferState:
    alive = any(lot.expires_at is None or lot.expires_at > now for lot in sent)
    return "arrived" if willing and alive else "returned"


def _journal_arrival(
    journal: Journal,
    operation_id: UUID,
    key: WalletRef,
    sent: Sequence[SentLot],
    own: Mapping[int, Lot],
    now: datetime,
) -> None:
    """Out of transit into this wallet: to `own` lots where they are its own and live, else to lots made for it."""
    alive: list[Take] = []
    ended: list[Take] = []
    for lot in sent:
        mine = own.get(lot.lot_seq)
        if mine is not None and mine.is_live(now):
            back = Take(lot=mine, points=lot.points)
            journal.post(operation_id, Account.IN_TRANSIT, Account.AVAILABLE, [back], "restore")
            alive.append(back)
            continue
        granted = journal.grant(
            operation_id,
            Account.IN_TRANSIT,
            _made_of(lot, key),
            parent_lot_seq=None if mine is None else mine.lot_seq,
        )
        (alive if granted.lot.is_live(now) else ended).append(granted)
    journal.expire(ended)
    journal.repay(operation_id, alive)


def _made_of(sent: SentLot, key: WalletRef) -> Lot:
    """A lot of this wallet with everything the sender's had; never with a longer life."""
    return Lot(
        bucket=key.bucket,
        member_id=key.member_id,
        point_type=key.point_type,
        lot_seq=0,
        operation_id=UUID(int=0),
        funder_id=sent.funder_id,
        unit_cost_e6=sent.unit_cost_e6,
        campaign=sent.campaign,
        rule_version=sent.rule_version,
        effective_at=sent.effective_at,
        expires_at=sent.expires_at,
        remaining_points=sent.points,
        held_points=0,
    )


async def _check_allowed(connection: Connection, request: TransferRequest, now: datetime) -> None:
    """Under the sender's lock, so that nobody sends between question and answer."""
    sender = request.sender
    sent_before = await transfer_queries.find_by_ref(
        connection, sender, partner_id=request.partner_id, transfer_ref=request.transfer_ref
    )
    if sent_before is not None:
        raise TransferAlreadySent(transfer_id=to_wire("trf", sent_before))
    today = await transfer_queries.read_sent_today(connection, sender, day=business_date(now))
    if today.transfers >= DAY_TRANSFERS_MAX or today.points + request.points > TRANSFER_POINTS_MAX:
        raise TransferLimitReached(
            transfers_max=DAY_TRANSFERS_MAX, points_left=TRANSFER_POINTS_MAX - today.points
        )


async def _list_willing(
    connection: Connection, subjects: Consents, transfers: Sequence[Transfer], now: datetime
) -> set[UUID]:
    """Those whose receivers still consent to the partner that sent them."""
    named: list[tuple[UUID, str]] = []
    receivers: list[Transfer] = []
    for partner_id in sorted({transfer.partner_id for transfer in transfers}):
        theirs = [transfer for transfer in transfers if transfer.partner_id == partner_id]
        names = await subjects.names(
            connection, partner_id=partner_id, member_ids=[transfer.receiver.member_id for transfer in theirs]
        )
        for transfer in theirs:
            if sub := names.get(transfer.receiver.member_id):
                named.append((partner_id, sub))
                receivers.append(transfer)
    found = await subjects.resolve_each(connection, named, scope=SPEND, now=now)
    return {
        transfer.id
        for transfer, member in zip(receivers, found, strict=True)
        if not isinstance(member, Refusal)
    }


async def _list_own(connection: Connection, key: WalletRef, sent: Sequence[SentLot]) -> dict[int, Lot]:
    lots = await transfer_queries.list_own_lots(connection, key, lot_seqs=[lot.lot_seq for lot in sent])
    return {lot.lot_seq: lot for lot in lots}


def _by_key(key: WalletRef) -> tuple[int, int, int]:
    return key.bucket, key.member_id, key.point_type


def _event(transfer: Transfer) -> Event:
    wire_id = to_wire("trf", transfer.id)
    return Event(
        bucket=transfer.sender.bucket,
        partner_id=transfer.partner_id,
        type=f"points.transfer.{transfer.state}",
        aggregate=wire_id,
        payload={
            "id": wire_id,
            "transfer_ref": transfer.transfer_ref,
            "state": transfer.state,
            "points": transfer.points,
        },
    )
