"""The ledger's statements on wallets, lots and operations."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from kernel.caller import MemberRef
from kernel.database import Connection, read, read_if_any
from points.ledger.model import (
    Balance,
    ExpiringPoints,
    ListedEntry,
    Lot,
    Operation,
    Reversible,
    Wallet,
    WalletRef,
)

# Ordered by key: every transaction that locks several wallets locks them in the same order. The lateral subquery keeps
# any plan to one key lookup per wallet.
LOCK_WALLETS = """
SELECT wallet.*
  FROM (SELECT DISTINCT bucket, member_id, point_type
          FROM unnest($1::smallint[], $2::bigint[], $3::smallint[]) AS o (bucket, member_id, point_type)
         ORDER BY bucket, member_id, point_type) AS owner
 CROSS JOIN LATERAL (
       SELECT w.bucket, w.member_id, w.point_type, w.seq,
              w.available_points, w.held_points, w.pending_points, w.arrears_points
         FROM ledger_wallet AS w
        WHERE w.bucket = owner.bucket AND w.member_id = owner.member_id AND w.point_type = owner.point_type
          FOR UPDATE) AS wallet
"""

# The same without a lock, for who only looks. Ordered by key.
LIST_WALLETS = """
SELECT w.bucket, w.member_id, w.point_type, w.seq,
       w.available_points, w.held_points, w.pending_points, w.arrears_points
  FROM unnest($1::smallint[], $2::bigint[], $3::smallint[]) AS owner (bucket, member_id, point_type)
  JOIN ledger_wallet AS w USING (bucket, member_id, point_type)
 ORDER BY w.bucket, w.member_id, w.point_type
"""

# Ordered by key, as they are locked.
OPEN_WALLETS = """
INSERT INTO ledger_wallet (bucket, member_id, point_type)
SELECT DISTINCT bucket, member_id, point_type
  FROM unnest($1::smallint[], $2::bigint[], $3::smallint[]) AS o (bucket, member_id, point_type)
 ORDER BY bucket, member_id, point_type
    ON CONFLICT DO NOTHING
"""

# Per wallet in spend order: soonest expiry first, then oldest; no expiry last. The running sum stops at the points
# needed; lots past their expiry come along, because whoever uses a wallet books what has ended in it.
LIST_SPENDABLE_LOTS = """
SELECT lot.bucket, lot.member_id, lot.lot_seq, lot.operation_id, lot.funder_id, lot.unit_cost_e6,
       lot.campaign, lot.rule_version, lot.effective_at, lot.expires_at, lot.remaining_points, lot.held_points,
       lot.pending_points, lot.activates_at, lot.point_type, lot.id
  FROM unnest($1::smallint[], $2::bigint[], $5::smallint[], $3::bigint[])
       AS wanted (bucket, member_id, point_type, points)
 CROSS JOIN LATERAL (
       SELECT l.*,
              l.expires_at <= $4 AS expired,
              sum(l.remaining_points - l.held_points)
                  FILTER (WHERE l.expires_at IS NULL OR l.expires_at > $4)
                  OVER (ORDER BY l.expires_at NULLS LAST, l.lot_seq ROWS UNBOUNDED PRECEDING)
              - (l.remaining_points - l.held_points) AS before
         FROM ledger_lot AS l
        WHERE l.bucket = wanted.bucket AND l.member_id = wanted.member_id AND l.point_type = wanted.point_type
          AND l.live AND l.remaining_points > l.held_points
          AND (l.activates_at IS NULL OR l.activates_at <= $4)) AS lot
 WHERE lot.expired OR lot.before < wanted.points
 ORDER BY lot.bucket, lot.member_id, lot.point_type, lot.expires_at NULLS LAST, lot.lot_seq
"""

# Spend order. Lots of the reversed operation come even when nothing of them is left: they tell the funder.
LIST_LOTS_TO_REVERSE = """
SELECT lot.bucket, lot.member_id, lot.lot_seq, lot.operation_id, lot.funder_id, lot.unit_cost_e6,
       lot.campaign, lot.rule_version, lot.effective_at, lot.expires_at, lot.remaining_points, lot.held_points,
       lot.pending_points, lot.activates_at, lot.point_type, lot.id
  FROM ledger_lot AS lot
 WHERE lot.bucket = $1 AND lot.member_id = $2 AND lot.point_type = $4
   AND (lot.remaining_points > lot.held_points OR lot.operation_id = $3)
 ORDER BY lot.expires_at NULLS LAST, lot.lot_seq
"""

# Ordered by wallet, so that its entries follow each other, and in spend order. Two halves, because one condition for
# both would read every lot a member has: the ended ones by key, what waits only where something waits (see READ_BALANCE).
LIST_DUE_LOTS = """
SELECT lot.bucket, lot.member_id, lot.lot_seq, lot.operation_id, lot.funder_id, lot.unit_cost_e6,
       lot.campaign, lot.rule_version, lot.effective_at, lot.expires_at, lot.remaining_points, lot.held_points,
       lot.pending_points, lot.activates_at, lot.point_type, lot.id
  FROM unnest($1::smallint[], $2::bigint[], $4::smallint[]) AS owner (bucket, member_id, point_type)
 CROSS JOIN LATERAL (
       SELECT l.*
         FROM ledger_lot AS l
        WHERE l.bucket = owner.bucket AND l.member_id = owner.member_id AND l.point_type = owner.point_type
          AND l.live AND l.remaining_points > l.held_points AND l.expires_at <= $3
        UNION ALL
       SELECT l.*
         FROM ledger_wallet AS w
         JOIN ledger_lot AS l USING (bucket, member_id, point_type)
        WHERE w.bucket = owner.bucket AND w.member_id = owner.member_id AND w.point_type = owner.point_type AND w.pending_points > 0
          AND l.live AND l.pending_points > 0 AND (l.activates_at <= $3) IS TRUE
          AND (l.expires_at IS NULL OR l.expires_at > $3)
       OFFSET 0) AS lot
 ORDER BY lot.bucket, lot.member_id, lot.point_type, lot.expires_at NULLS LAST, lot.lot_seq
"""

# Ordered so that the longest overdue go first; said as ledger_lot_due has it.
LIST_ENDED_LOT_OWNERS = """
SELECT bucket, member_id, point_type
  FROM ledger_lot
 WHERE live AND remaining_points > held_points AND expires_at AT TIME ZONE 'UTC' <= $1::timestamptz AT TIME ZONE 'UTC'
 ORDER BY expires_at AT TIME ZONE 'UTC'
 LIMIT $2
"""

# Ordered so that the longest overdue go first; said as ledger_lot_pending has it.
LIST_RIPE_LOT_OWNERS = """
SELECT bucket, member_id, point_type
  FROM ledger_lot
 WHERE pending_points > 0 AND activates_at AT TIME ZONE 'UTC' <= $1::timestamptz AT TIME ZONE 'UTC'
 ORDER BY activates_at AT TIME ZONE 'UTC'
 LIMIT $2
"""

# What time has done since the last booking: lots that ended lose what is free, lots that ripened give what waited, and
# of that the arrears are repaid first, in the order in which the lots ripened, whether they have ended since or not: so
# it would have been, had a sweep come by at every instant. IS TRUE keeps the plan from looking for one member's lots
# among all that ripened since the sweep: at the end of a campaign these are many.
READ_BALANCE = """
SELECT wallet.available_points - ended.points + due.kept AS available_points,
       wallet.held_points,
       wallet.pending_points - due.ripe AS pending_points,
       wallet.arrears_points - due.repaid AS arrears_points
  FROM ledger_wallet AS wallet
 CROSS JOIN LATERAL (
       SELECT coalesce(sum(lot.remaining_points - lot.held_points - lot.pending_points), 0)::bigint AS points
         FROM ledger_lot AS lot
        WHERE lot.bucket = wallet.bucket AND lot.member_id = wallet.member_id AND lot.point_type = wallet.point_type
          AND lot.live AND lot.expires_at <= $3) AS ended
 CROSS JOIN LATERAL (
       SELECT coalesce(sum(lot.points), 0)::bigint AS ripe, coalesce(sum(lot.repaid), 0)::bigint AS repaid,
              coalesce(sum(lot.points - lot.repaid) FILTER (WHERE lot.expires_at IS NULL OR lot.expires_at > $3), 0)::bigint
                  AS kept
         FROM (SELECT r.pending_points AS points, r.expires_at,
                      least(r.pending_points, greatest(0, wallet.arrears_points + r.pending_points
                          - sum(r.pending_points) OVER ripened)) AS repaid
                 FROM ledger_lot AS r
                WHERE wallet.pending_points > 0
                  AND r.bucket = wallet.bucket AND r.member_id = wallet.member_id AND r.point_type = wallet.point_type
                  AND r.live AND r.pending_points > 0 AND (r.activates_at <= $3) IS TRUE
               WINDOW ripened AS (ORDER BY r.activates_at, r.expires_at NULLS LAST, r.lot_seq
                                  ROWS UNBOUNDED PRECEDING)) AS lot) AS due
 WHERE wallet.bucket = $1 AND wallet.member_id = $2 AND wallet.point_type = $4
"""

# Soonest first: that is what the member wants to know. What ripened and repays arrears is not there to end; see
# READ_BALANCE.
LIST_EXPIRING = """
WITH paying AS MATERIALIZED (
    SELECT lot.lot_seq,
           least(lot.pending_points, greatest(0, wallet.arrears_points + lot.pending_points
               - sum(lot.pending_points) OVER ripened)) AS points
      FROM ledger_wallet AS wallet
      JOIN ledger_lot AS lot USING (bucket, member_id, point_type)
     WHERE wallet.bucket = $1 AND wallet.member_id = $2 AND wallet.point_type = $5
       AND wallet.arrears_points > 0 AND wallet.pending_points > 0
       AND lot.live AND lot.pending_points > 0 AND (lot.activates_at <= $3) IS TRUE
    WINDOW ripened AS (ORDER BY lot.activates_at, lot.expires_at NULLS LAST, lot.lot_seq ROWS UNBOUNDED PRECEDING)
)
SELECT lot.expires_at, sum(lot.free)::bigint AS points
  FROM (SELECT l.expires_at,
               l.remaining_points - l.held_points - CASE WHEN l.activates_at > $3 THEN l.pending_points ELSE 0 END
               - coalesce((SELECT p.points FROM paying AS p WHERE p.lot_seq = l.lot_seq), 0) AS free
          FROM ledger_lot AS l
         WHERE l.bucket = $1 AND l.member_id = $2 AND l.point_type = $5
           AND l.live AND l.remaining_points > l.held_points AND l.expires_at > $3) AS lot
 WHERE lot.free > 0
 GROUP BY lot.expires_at
 ORDER BY lot.expires_at
 LIMIT $4
"""

# Newest first, by number within the wallet.
LIST_ENTRIES = """
SELECT entry.seq, entry.operation_id, operation.kind, debited.name AS debit, credited.name AS credit, entry.points,
       entry.available_after, entry.held_after, entry.pending_after, entry.arrears_after, entry.recorded_at
  FROM ledger_entry AS entry
  JOIN ledger_operation AS operation
    ON operation.bucket = entry.bucket AND operation.member_id = entry.member_id
   AND operation.id = entry.operation_id
  JOIN ledger_account AS debited ON debited.code = entry.debit_account
  JOIN ledger_account AS credited ON credited.code = entry.credit_account
 WHERE entry.bucket = $1 AND entry.member_id = $2 AND entry.point_type = $6 AND entry.seq < $3
   AND operation.partner_id = $4
 ORDER BY entry.seq DESC
 LIMIT $5
"""

# As LIST_ENTRIES, for the member's own eyes: whatever partner it came by.
LIST_OWN_ENTRIES = """
SELECT entry.seq, entry.operation_id, operation.kind, debited.name AS debit, credited.name AS credit, entry.points,
       entry.available_after, entry.held_after, entry.pending_after, entry.arrears_after, entry.recorded_at
  FROM ledger_entry AS entry
  JOIN ledger_operation AS operation
    ON operation.bucket = entry.bucket AND operation.member_id = entry.member_id
   AND operation.id = entry.operation_id
  JOIN ledger_account AS debited ON debited.code = entry.debit_account
  JOIN ledger_account AS credited ON credited.code = entry.credit_account
 WHERE entry.bucket = $1 AND entry.member_id = $2 AND entry.point_type = $5 AND entry.seq < $3
 ORDER BY entry.seq DESC
 LIMIT $4
"""

FIND_OPERATION = """
SELECT bucket, member_id, id, kind, partner_id, hold_id, source_kind, source_ref, reverses, refund_ref,
       amount_fen, points, rule_version, tier, multiplier_pct, own_card, category,
       occurred_at, recorded_at, business_on, manager, point_type, calculation,
       EXISTS (SELECT FROM ledger_funding_draw AS d
                WHERE d.bucket = o.bucket AND d.member_id = o.member_id AND d.operation_id = o.id) AS block_funded
  FROM ledger_operation AS o
 WHERE id = $1 AND partner_id = $2
"""

FIND_REFUND = """
SELECT id FROM ledger_operation WHERE bucket = $1 AND member_id = $2 AND reverses = $3 AND refund_ref = $4
"""

# What every funder has issued for an earning and not got back by its refunds. From the earning's first entry on: what
# came before in the wallet has nothing to do with it. No order: read by funder.
LIST_ISSUED = """
SELECT e.funder_id, sum(CASE WHEN e.debit_account = 10 THEN e.points ELSE -e.points END)::bigint AS points
  FROM ledger_entry AS e
 WHERE e.bucket = $1 AND e.member_id = $2 AND e.point_type = $3 AND e.seq >= $5
   AND e.operation_id = ANY (ARRAY(
           SELECT o.id FROM ledger_operation AS o WHERE o.id = $4
            UNION ALL
           SELECT o.id FROM ledger_operation AS o WHERE o.bucket = $1 AND o.member_id = $2 AND o.reverses = $4))
   AND 10 IN (e.debit_account, e.credit_account)
 GROUP BY e.funder_id
"""

FIND_CLAIM = """
SELECT operation_id
  FROM ledger_source_claim
 WHERE bucket = $1 AND member_id = $2 AND partner_id = $3 AND kind = $4 AND source_ref = $5
"""

READ_REVERSIBLE = """
SELECT base_fen, reversed_fen, base_points, reversed_points
  FROM ledger_reversible
 WHERE bucket = $1 AND member_id = $2 AND operation_id = $3
"""

# Opened by the first refund; the constraints keep any of them from undoing too much.
MOVE_REVERSIBLE = """
INSERT INTO ledger_reversible AS r (
    bucket, member_id, operation_id, base_fen, base_points, reversed_fen, reversed_points)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (bucket, member_id, operation_id) DO UPDATE
   SET reversed_fen = r.reversed_fen + excluded.reversed_fen,
       reversed_points = r.reversed_points + excluded.reversed_points
"""

# The bank's and the partner's own; who else pays for points is not the partner's business.
WRITE = "SELECT ledger_write($1, $2, $3, $4)"


async def lock_wallets(connection: Connection, keys: Sequence[WalletRef]) -> list[Wallet]:
    """The wallets as they are once nobody else can change them; a member who never had any points has none."""
    return [read(record, Wallet) for record in await connection.fetch(LOCK_WALLETS, *_columns(keys))]


async def list_wallets(connection: Connection, keys: Sequence[WalletRef]) -> list[Wallet]:
    """The wallets as they are at this moment; somebody may be changing them."""
    return [read(record, Wallet) for record in await connection.fetch(LIST_WALLETS, *_columns(keys))]


async def open_wallets(connection: Connection, keys: Sequence[WalletRef]) -> None:
    """Make those that are not there yet."""
    await connection.execute(OPEN_WALLETS, *_columns(keys))


async def list_spendable_lots(
    connection: Connection, wanted: Mapping[WalletRef, int], *, now: datetime
) -> list[Lot]:
    """Every lot that time has changed, and as many live ones as the points need; all when there are too few."""
    buckets, member_ids, types = _columns(list(wanted))
    records = await connection.fetch(
        LIST_SPENDABLE_LOTS, buckets, member_ids, list(wanted.values()), now, types
    )
    return [read(record, Lot) for record in records]


async def list_lots_to_reverse(connection: Connection, key: WalletRef, *, operation_id: UUID) -> list[Lot]:
    """Lots with free or pending points, and those of the operation."""
    records = await connection.fetch(
        LIST_LOTS_TO_REVERSE, key.bucket, key.member_id, operation_id, key.point_type
    )
    return [read(record, Lot) for record in records]


async def list_due_lots(connection: Connection, keys: Sequence[WalletRef], *, now: datetime) -> list[Lot]:
    """Lots whose free points have ended, or whose pending points wait no longer."""
    buckets, member_ids, types = _columns(keys)
    records = await connection.fetch(LIST_DUE_LOTS, buckets, member_ids, now, types)
    return [read(record, Lot) for record in records]


async def list_ended_lot_owners(connection: Connection, *, limit: int, now: datetime) -> list[WalletRef]:
    """In whose wallets lots have ended, one name per lot."""
    return [read(record, WalletRef) for record in await connection.fetch(LIST_ENDED_LOT_OWNERS, now, limit)]


async def list_ripe_lot_owners(connection: Connection, *, limit: int, now: datetime) -> list[WalletRef]:
    """In whose wallets pending points wait no longer, one name per lot."""
    return [read(record, WalletRef) for record in await connection.fetch(LIST_RIPE_LOT_OWNERS, now, limit)]


async def read_balance(connection: Connection, key: WalletRef, *, now: datetime) -> Balance | None:
    record = await connection.fetchrow(READ_BALANCE, key.bucket, key.member_id, now, key.point_type)
    return read_if_any(record, Balance)


async def list_expiring(
    connection: Connection, key: WalletRef, *, limit: int, now: datetime
) -> list[ExpiringPoints]:
    records = await connection.fetch(LIST_EXPIRING, key.bucket, key.member_id, now, limit, key.point_type)
    return [read(record, ExpiringPoints) for record in records]


async def list_entries(
    connection: Connection, key: WalletRef, *, partner_id: UUID, before_seq: int, limit: int
) -> list[ListedEntry]:
    records = await connection.fetch(
        LIST_ENTRIES, key.bucket, key.member_id, before_seq, partner_id, limit, key.point_type
    )
    return [read(record, ListedEntry) for record in records]


async def list_own_entries(
    connection: Connection, key: WalletRef, *, before_seq: int, limit: int
) -> list[ListedEntry]:
    records = await connection.fetch(
        LIST_OWN_ENTRIES, key.bucket, key.member_id, before_seq, limit, key.point_type
    )
    return [read(record, ListedEntry) for record in records]


async def find_operation(connection: Connection, operation_id: UUID, *, partner_id: UUID) -> Operation | None:
    return read_if_any(await connection.fetchrow(FIND_OPERATION, operation_id, partner_id), Operation)


async def find_refund(connection: Connection, operation: Operation, *, refund_ref: str) -> UUID | None:
    found: UUID | None = await connection.fetchval(
        FIND_REFUND, operation.bucket, operation.member_id, operation.id, refund_ref
    )
    return found


async def find_claim(
    connection: Connection, member: MemberRef, *, partner_id: UUID, kind: str, source_ref: str
) -> UUID | None:
    found: UUID | None = await connection.fetchval(
        FIND_CLAIM, member.bucket, member.member_id, partner_id, kind, source_ref
    )
    return found


async def read_reversible(connection: Connection, operation: Operation) -> Reversible:
    """How much of it is undone; nothing before the first refund. The wallet's lock covers it."""
    found = await connection.fetchrow(READ_REVERSIBLE, operation.bucket, operation.member_id, operation.id)
    return read_if_any(found, Reversible) or Reversible(
        base_fen=operation.amount_fen, reversed_fen=0, base_points=operation.points, reversed_points=0
    )


async def list_issued(connection: Connection, operation: Operation, *, first_seq: int) -> dict[int, int]:
    """By funder: what the earning made it issue, less what refunds of it took back."""
    o = operation
    records = await connection.fetch(LIST_ISSUED, o.bucket, o.member_id, o.point_type, o.id, first_seq)
    return {record["funder_id"]: record["points"] for record in records}


async def move_reversible(connection: Connection, operation: Operation, *, fen: int, points: int) -> None:
    o = operation
    await connection.execute(
        MOVE_REVERSIBLE, o.bucket, o.member_id, o.id, o.amount_fen, o.points, fen, points
    )


def _columns(keys: Sequence[WalletRef]) -> tuple[list[int], list[int], list[int]]:
    return [key.bucket for key in keys], [key.member_id for key in keys], [key.point_type for key in keys]
