"""Balances: what a member has at this moment, and the sweep that books what has already ended."""

import sys
from collections.abc import Sequence
from datetime import datetime
from itertools import groupby
from uuid import UUID

from kernel.caller import MemberRef
from kernel.database import Connection
from points.ledger import queries
from points.ledger.journal import Journal
from points.ledger.model import (
    TESSERA,
    Balance,
    ExpiringPoints,
    ListedEntry,
    Lot,
    Take,
    WalletRef,
    wallet_ref,
)

NOTHING = Balance(available_points=0, held_points=0, pending_points=0, arrears_points=0)


async def read_balance(
    connection: Connection, member: MemberRef, *, point_type: int = TESSERA, now: datetime
) -> Balance:
    """What `member` has at `now`; points past their expiry are gone whether or not the sweep has come by."""
    return await queries.read_balance(connection, wallet_ref(member, point_type), now=now) or NOTHING


async def list_expiring(
    connection: Connection,
    member: MemberRef,
    *,
    limit: int = 12,
    point_type: int = TESSERA,
    now: datetime,
) -> list[ExpiringPoints]:
    """The free points that end next, one line per instant."""
    return await queries.list_expiring(connection, wallet_ref(member, point_type), limit=limit, now=now)


async def list_entries(
    connection: Connection,
    member: MemberRef,
    *,
    partner_id: UUID,
    before_seq: int | None = None,
    limit: int,
    point_type: int = TESSERA,
) -> list[ListedEntry]:
    """Entries of the partner's own operations, newest first, those numbered below `before_seq`.

    Another's would show what the member does elsewhere, and join the subjects under which the two know the member.
    """
    return await queries.list_entries(
        connection,
        wallet_ref(member, point_type),
        partner_id=partner_id,
        before_seq=before_seq or 2**63 - 1,
        limit=limit,
    )


async def list_own_entries(
    connection: Connection,
    member: MemberRef,
    *,
    before_seq: int | None = None,
    limit: int,
    point_type: int = TESSERA,
) -> list[ListedEntry]:
    """Every entry of the member's wallet, newest first, those numbered below `before_seq`: for the member alone."""
    return await queries.list_own_entries(
        connection, wallet_ref(member, point_type), before_seq=before_seq or 2**63 - 1, limit=limit
    )


async def expire_due(connection: Connection, *, limit: int, now: datetime) -> int:
    """Book the end of `limit` lots, and whatever else is due in their wallets; returns how many lots."""
    owners = await queries.list_ended_lot_owners(connection, limit=limit, now=now)
    return await settle_wallets(connection, owners, limit=limit, now=now)


async def activate_due(connection: Connection, *, limit: int, now: datetime) -> int:
    """Book `limit` lots whose points wait no longer, and whatever else is due in their wallets; returns how many."""
    owners = await queries.list_ripe_lot_owners(connection, limit=limit, now=now)
    return await settle_wallets(connection, owners, limit=limit, now=now)


async def settle_wallets(
    connection: Connection, owners: Sequence[WalletRef], *, limit: int = sys.maxsize, now: datetime
) -> int:
    """Book what time has done to these wallets; returns to how many lots.

    A wallet is settled whole or not at all, and none is begun once the limit is reached: points that end together at a
    month's end would otherwise make the batch many times as large.
    """
    if not owners:
        return 0
    wallets = await queries.lock_wallets(connection, owners)
    lots = await queries.list_due_lots(connection, [wallet.key for wallet in wallets], now=now)
    journal = Journal(wallets, now=now)
    booked = 0
    for _, due in groupby(lots, key=lambda lot: lot.wallet):
        if booked >= limit:
            break
        together = list(due)
        journal.settle(together)
        booked += len(together)
    await journal.write(connection)
    return booked


def take_all(lots: Sequence[Lot]) -> list[Take]:
    """Every free point of these lots."""
    return [Take(lot=lot, points=lot.free_points) for lot in lots]
