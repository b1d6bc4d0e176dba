"""The statements on what was: balances of members and of the house at an earlier moment."""

from collections.abc import Sequence
from datetime import date, datetime

from kernel.database import Connection, read, read_if_any
from points.ledger.model import Balance, ExpiringPoints, HouseBalance, WalletRef

# The entry's number decides, because requests that overtake each other are recorded in another order by microseconds:
# the last number recorded by then is the last link of the chain that existed. Backwards by key, and from the end of the
# month's statement where there is one, so that an old balance costs one month of one wallet.
# What had ripened by then repaid arrears as in READ_BALANCE. Moves are read once, in their order, and each leads to its
# lot by key: moves of a lot have no index of their own.
READ_BALANCE_AT = """
SELECT entry.available_after - due.ended + due.kept AS available_points,
       entry.held_after AS held_points,
       entry.pending_after - due.ripe AS pending_points,
       entry.arrears_after - due.repaid AS arrears_points
  FROM (SELECT e.bucket, e.member_id, e.point_type, e.seq,
               e.available_after, e.held_after, e.pending_after, e.arrears_after
          FROM ledger_entry AS e
         WHERE e.bucket = $1 AND e.member_id = $2 AND e.point_type = $5
           AND e.seq <= coalesce((SELECT s.last_seq
                                    FROM ledger_statement AS s
                                   WHERE s.bucket = $1 AND s.member_id = $2 AND s.point_type = $5 AND s.period >= $4
                                   ORDER BY s.period
                                   LIMIT 1), 9223372036854775807)
           AND e.recorded_at <= $3
         ORDER BY e.seq DESC
         LIMIT 1) AS entry
 CROSS JOIN LATERAL (
       SELECT coalesce(sum(lot.free) FILTER (WHERE lot.expires_at <= $3), 0)::bigint AS ended,
              coalesce(sum(lot.ripe), 0)::bigint AS ripe, coalesce(sum(lot.repaid), 0)::bigint AS repaid,
              coalesce(sum(lot.ripe - lot.repaid) FILTER (WHERE lot.expires_at IS NULL OR lot.expires_at > $3), 0)::bigint
                  AS kept
         FROM (SELECT n.expires_at, n.free, n.ripe,
                      least(n.ripe, greatest(0, entry.arrears_after + n.ripe
                          - sum(n.ripe) OVER ripened)) AS repaid
                 FROM (SELECT l.lot_seq, l.expires_at, l.activates_at,
                              CASE WHEN l.activates_at IS NULL THEN moved.free ELSE moved.free_waited END AS free,
                              CASE WHEN l.activates_at <= $3 THEN moved.pending ELSE 0 END AS ripe
                         FROM (SELECT m.lot_seq,
                                      sum(m.points * ledger_move_free(m.kind, false)) AS free,
                                      sum(m.points * ledger_move_free(m.kind, true)) AS free_waited,
                                      sum(m.points * CASE m.kind WHEN 'grant' THEN 1 ELSE ledger_move_pending(m.kind) END)
                                          AS pending
                                 FROM ledger_lot_move AS m
                                WHERE m.bucket = entry.bucket AND m.member_id = entry.member_id
                                  AND m.point_type = entry.point_type AND m.seq <= entry.seq
                                GROUP BY m.lot_seq) AS moved
                        CROSS JOIN LATERAL (
                              SELECT o.lot_seq, o.expires_at, o.activates_at
                                FROM ledger_lot AS o
                               WHERE o.bucket = entry.bucket AND o.member_id = entry.member_id
                                 AND o.point_type = entry.point_type AND o.lot_seq = moved.lot_seq
                                 AND (o.expires_at <= $3 OR o.activates_at <= $3)
                              OFFSET 0) AS l) AS n
               WINDOW ripened AS (ORDER BY n.activates_at, n.expires_at NULLS LAST, n.lot_seq
                                  ROWS UNBOUNDED PRECEDING)) AS lot) AS due
"""

# Soonest first, as LIST_EXPIRING; what was free in a lot at that moment is the sum of the moves until then.
LIST_EXPIRING_AT = """
SELECT lot.expires_at, sum(lot.points)::bigint AS points
  FROM (SELECT n.expires_at,
               n.points - least(n.ripe, greatest(0, owed.points + n.ripe
                   - sum(n.ripe) OVER ripened)) AS points
          FROM (SELECT l.lot_seq, l.expires_at, l.activates_at, moved.points,
                       CASE WHEN l.activates_at IS NULL THEN 0 ELSE moved.pending END AS ripe
                  FROM (SELECT m.lot_seq,
                               sum(m.points * (ledger_move_remaining(m.kind) - ledger_move_held(m.kind))) AS points,
                               sum(m.points * CASE m.kind WHEN 'grant' THEN 1 ELSE ledger_move_pending(m.kind) END)
                                   AS pending
                          FROM ledger_lot_move AS m
                         CROSS JOIN LATERAL (
                               SELECT FROM ledger_entry AS e
                                WHERE e.bucket = $1 AND e.member_id = $2 AND e.point_type = $5 AND e.seq = m.seq
                                  AND e.recorded_at <= $3
                               OFFSET 0) AS entered
                         WHERE m.bucket = $1 AND m.member_id = $2 AND m.point_type = $5
                         GROUP BY m.lot_seq) AS moved
                 CROSS JOIN LATERAL (
                       SELECT o.lot_seq, o.expires_at, o.activates_at
                         FROM ledger_lot AS o
                        WHERE o.bucket = $1 AND o.member_id = $2 AND o.point_type = $5 AND o.lot_seq = moved.lot_seq
                          AND (o.expires_at > $3 OR o.activates_at <= $3)
                          AND (o.activates_at IS NULL OR o.activates_at <= $3)
                       OFFSET 0) AS l) AS n
         CROSS JOIN (SELECT e.arrears_after AS points
                       FROM ledger_entry AS e
                      WHERE e.bucket = $1 AND e.member_id = $2 AND e.point_type = $5 AND e.recorded_at <= $3
                      ORDER BY e.seq DESC
                      LIMIT 1) AS owed
        WINDOW ripened AS (ORDER BY n.activates_at, n.expires_at NULLS LAST, n.lot_seq ROWS UNBOUNDED PRECEDING)) AS lot
 WHERE lot.expires_at > $3 AND lot.points > 0
 GROUP BY lot.expires_at
 ORDER BY lot.expires_at
 LIMIT $4
"""

# By account and funder: the order of the plan of accounts.
LIST_HOUSE_BALANCES = """
SELECT account.name AS account, funder.code AS funder, sum(slot.debit_points)::bigint AS debit_points,
       sum(slot.credit_points)::bigint AS credit_points,
       (sum(slot.debit_points - slot.credit_points) * CASE account.nature WHEN 'debit' THEN 1 ELSE -1 END)::bigint
           AS balance_points
  FROM ledger_house_slot AS slot
  JOIN ledger_account AS account ON account.code = slot.account
  JOIN ledger_funder AS funder ON funder.id = slot.funder_id
 WHERE slot.point_type = $2 AND slot.business_on <= $1
 GROUP BY account.code, account.name, account.nature, funder.id, funder.code
 ORDER BY account.code, funder.id
"""


async def read_balance_at(
    connection: Connection, key: WalletRef, *, at: datetime, period: date
) -> Balance | None:
    """None before the first entry. `period` is the first day of the business month that holds `at`."""
    record = await connection.fetchrow(READ_BALANCE_AT, key.bucket, key.member_id, at, period, key.point_type)
    return read_if_any(record, Balance)


async def list_expiring_at(
    connection: Connection, key: WalletRef, *, at: datetime, limit: int
) -> list[ExpiringPoints]:
    records = await connection.fetch(LIST_EXPIRING_AT, key.bucket, key.member_id, at, limit, key.point_type)
    return [read(record, ExpiringPoints) for record in records]


async def list_house_balances(
    connection: Connection, *, day: date, point_type: int
) -> Sequence[HouseBalance]:
    return [
        read(record, HouseBalance) for record in await connection.fetch(LIST_HOUSE_BALANCES, day, point_type)
    ]
