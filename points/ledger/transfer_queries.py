"""The statements on transfers."""

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from kernel.caller import MemberRef
from kernel.database import Connection, read
from points.ledger.deeds import SentLot, SentToday, Transfer
from points.ledger.model import Lot, Take, WalletRef

INSERT_TRANSFER = """
INSERT INTO ledger_transfer (
    bucket, from_member_id, id, point_type, partner_id, transfer_ref, to_bucket, to_member_id, points, sent_at, sent_on)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
"""

INSERT_SENT_LOTS = """
INSERT INTO ledger_transfer_lot (
    bucket, from_member_id, transfer_id, lot_seq, points, funder_id, unit_cost_e6, campaign, rule_version, effective_at,
    expires_at)
SELECT $1, $2, $3, sent.*
  FROM unnest($4::bigint[], $5::bigint[], $6::int[], $7::bigint[], $8::text[], $9::int[], $10::timestamptz[],
              $11::timestamptz[]) AS sent
"""

READ_SENT_TODAY = """
SELECT count(*)::int AS transfers, coalesce(sum(points), 0)::bigint AS points
  FROM ledger_transfer
 WHERE bucket = $1 AND from_member_id = $2 AND sent_on = $3
"""

FIND_BY_REF = """
SELECT id FROM ledger_transfer
 WHERE bucket = $1 AND from_member_id = $2 AND partner_id = $3 AND transfer_ref = $4
"""

FIND_TRANSFER = """
SELECT id, bucket, from_member_id, to_bucket, to_member_id, partner_id, point_type, points, transfer_ref, state, sent_at,
       ended_at
  FROM ledger_transfer
 WHERE id = $1 AND partner_id = $2
"""

# The longest under way first. Nobody waits here: who holds one of these rows is ending it.
CLAIM_UNDER_WAY = """
SELECT id, bucket, from_member_id, to_bucket, to_member_id, partner_id, point_type, points, transfer_ref, state, sent_at,
       ended_at
  FROM ledger_transfer
 WHERE state = 'sent'
 ORDER BY sent_at
 LIMIT $1
   FOR UPDATE SKIP LOCKED
"""

# Per transfer in the order of the sender's lots.
LIST_SENT_LOTS = """
SELECT sent.transfer_id, sent.lot_seq, sent.points, sent.funder_id, sent.unit_cost_e6, sent.campaign,
       sent.rule_version, sent.effective_at, sent.expires_at
  FROM unnest($1::smallint[], $2::bigint[], $3::uuid[]) AS transfer (bucket, from_member_id, transfer_id)
  JOIN ledger_transfer_lot AS sent USING (bucket, from_member_id, transfer_id)
 ORDER BY sent.transfer_id, sent.expires_at NULLS LAST, sent.lot_seq
"""

# By number: they are put back one by one.
LIST_OWN_LOTS = """
SELECT lot.bucket, lot.member_id, lot.lot_seq, lot.operation_id, lot.funder_id, lot.unit_cost_e6,
       lot.campaign, lot.rule_version, lot.effective_at, lot.expires_at, lot.remaining_points, lot.held_points,
       lot.pending_points, lot.activates_at, lot.point_type, lot.id
  FROM ledger_lot AS lot
 WHERE lot.bucket = $1 AND lot.member_id = $2 AND lot.point_type = $3 AND lot.lot_seq = ANY($4::bigint[])
 ORDER BY lot.lot_seq
"""

END_TRANSFERS = """
UPDATE ledger_transfer AS transfer
   SET state = done.state, ended_at = $1, ended_by = done.operation_id
  FROM unnest($2::smallint[], $3::bigint[], $4::uuid[], $5::text[], $6::uuid[])
       AS done (bucket, from_member_id, id, state, operation_id)
 WHERE transfer.bucket = done.bucket AND transfer.from_member_id = done.from_member_id AND transfer.id = done.id
   AND transfer.state = 'sent'
"""


async def insert_transfer(
    connection: Connection, transfer: Transfer, takes: Sequence[Take], *, day: date
) -> None:
    key = transfer.sender.bucket, transfer.sender.member_id, transfer.id
    await connection.execute(
        INSERT_TRANSFER,
        *key,
        transfer.point_type,
        transfer.partner_id,
        transfer.transfer_ref,
        transfer.receiver.bucket,
        transfer.receiver.member_id,
        transfer.points,
        transfer.sent_at,
        day,
    )
    await connection.execute(
        INSERT_SENT_LOTS,
        *key,
        [taken.lot.lot_seq for taken in takes],
        [taken.points for taken in takes],
        [taken.lot.funder_id for taken in takes],
        [taken.lot.unit_cost_e6 for taken in takes],
        [taken.lot.campaign for taken in takes],
        [taken.lot.rule_version for taken in takes],
        [taken.lot.effective_at for taken in takes],
        [taken.lot.expires_at for taken in takes],
    )


async def read_sent_today(connection: Connection, sender: MemberRef, *, day: date) -> SentToday:
    return read(await connection.fetchrow(READ_SENT_TODAY, sender.bucket, sender.member_id, day), SentToday)


async def find_by_ref(
    connection: Connection, sender: MemberRef, *, partner_id: UUID, transfer_ref: str
) -> UUID | None:
    found: UUID | None = await connection.fetchval(
        FIND_BY_REF, sender.bucket, sender.member_id, partner_id, transfer_ref
    )
    return found


async def find_transfer(connection: Connection, transfer_id: UUID, *, partner_id: UUID) -> Transfer | None:
    found = await connection.fetchrow(FIND_TRANSFER, transfer_id, partner_id)
    return None if found is None else _transfer(found)


async def claim_under_way(connection: Connection, *, limit: int) -> list[Transfer]:
    """Transfers to be ended in this transaction, and by nobody else meanwhile."""
    return [_transfer(record) for record in await connection.fetch(CLAIM_UNDER_WAY, limit)]


async def list_sent_lots(connection: Connection, transfers: Sequence[Transfer]) -> dict[UUID, list[SentLot]]:
    """What each of them takes along, in spend order."""
    records = await connection.fetch(
        LIST_SENT_LOTS,
        [transfer.sender.bucket for transfer in transfers],
        [transfer.sender.member_id for transfer in transfers],
        [transfer.id for transfer in transfers],
    )
    sent: dict[UUID, list[SentLot]] = {transfer.id: [] for transfer in transfers}
    for record in records:
        sent[record["transfer_id"]].append(read(record, SentLot))
    return sent


async def list_own_lots(connection: Connection, key: WalletRef, *, lot_seqs: Sequence[int]) -> list[Lot]:
    records = await connection.fetch(LIST_OWN_LOTS, key.bucket, key.member_id, key.point_type, lot_seqs)
    return [read(record, Lot) for record in records]


async def end_transfers(
    connection: Connection, ended: Sequence[tuple[Transfer, UUID]], *, now: datetime
) -> int:
    """Mark them as their states say, by the operations that ended them; returns how many were under way until now."""
    result = await connection.execute(
        END_TRANSFERS,
        now,
        [transfer.sender.bucket for transfer, _ in ended],
        [transfer.sender.member_id for transfer, _ in ended],
        [transfer.id for transfer, _ in ended],
        [transfer.state for transfer, _ in ended],
        [operation_id for _, operation_id in ended],
    )
    return int(result.rpartition(" ")[2])


def _transfer(record: asyncpg.Record) -> Transfer:
    row: dict[str, Any] = dict(record)
    sender = MemberRef(member_id=row.pop("from_member_id"), bucket=row.pop("bucket"))
    receiver = MemberRef(member_id=row.pop("to_member_id"), bucket=row.pop("to_bucket"))
    return msgspec.convert(row | {"sender": sender, "receiver": receiver}, Transfer)
