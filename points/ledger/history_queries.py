"""The statements on what was: balances of members and of the house at an earlier moment."""

from collections.abc import Sequence
from datetime import date, datetime

from kernel.caller import MemberRef
from kernel.database import Connection, read, read_if_any
from points.ledger.model import Balance, ExpiringPoints, HouseBalance

# The entry's number decides, because requests that overtake each other are recorded in another order by microseconds:
# the last number recorded by then is the last link of the chain that existed. Backwards by key, and from the end of the
# month's statement where there is one, so that an old balance costs one month of one wallet.
READ_BALANCE_AT = """
SELECT entry.available_after - due.ended
           + least(due.ripe_live, due.ripe - least(entry.arrears_after, due.ripe)) AS available_points,
       entry.held_after AS held_points,
       entry.pending_after - due.ripe AS pending_points,
       entry.arrears_after - least(entry.arrears_after, due.ripe) AS arrears_points
  FROM (SELECT e.bucket, e.member_id, e.point_type, e.seq,
               e.available_after, e.held_after, e.pending_after, e.arrears_after
          FROM ledger_entry AS e
         WHERE e.bucket = $1 AND e.member_id = $2 AND e.point_type = 1
           AND e.seq <= coalesce((SELECT s.last_seq
                                    FROM ledger_statement AS s
                                   WHERE s.bucket = $1 AND s.member_id = $2 AND s.point_type = 1 AND s.period >= $4
                                   ORDER BY s.period
                                   LIMIT 1), 9223372036854775807)
           AND e.recorded_at <= $3
         ORDER BY e.seq DESC
         LIMIT 1) AS entry
 CROSS JOIN LATERAL (
       SELECT coalesce(sum(lot.free) FILTER (WHERE lot.expires_at <= $3), 0)::bigint AS ended,
              coalesce(sum(lot.pending), 0)::bigint AS ripe,
              coalesce(sum(lot.pending) FILTER (WHERE lot.expires_at IS NULL OR lot.expires_at > $3), 0)::bigint
                  AS ripe_live
         FROM (SELECT l.expires_at,
                      sum(m.points * ledger_move_free(m.kind, l.activates_at IS NOT NULL)) AS free,
                      CASE WHEN l.activates_at <= $3
                           THEN sum(m.points * CASE m.kind WHEN 'grant' THEN 1 ELSE ledger_move_pending(m.kind) END)
                      END AS pending
                 FROM ledger_lot AS l
                 JOIN ledger_lot_move AS m USING (bucket, member_id, point_type, lot_seq)
                WHERE l.bucket = entry.bucket AND l.member_id = entry.member_id AND l.point_type = entry.point_type
                  AND l.lot_seq <= entry.seq AND (l.expires_at <= $3 OR l.activates_at <= $3)
                  AND m.seq <= entry.seq
                GROUP BY l.lot_seq, l.expires_at, l.activates_at) AS lot) AS due
"""

# Soonest first, as LIST_EXPIRING; what was free in a lot at that moment is the sum of the moves until then.
LIST_EXPIRING_AT = """
SELECT lot.expires_at, sum(m.points * (ledger_move_remaining(m.kind) - ledger_move_held(m.kind)))::bigint AS points
  FROM ledger_lot AS lot
  JOIN ledger_lot_move AS m USING (bucket, member_id, point_type, lot_seq)
  JOIN ledger_entry AS e USING (bucket, member_id, point_type, seq)
 WHERE lot.bucket = $1 AND lot.member_id = $2 AND lot.point_type = 1 AND lot.expires_at > $3
   AND (lot.activates_at IS NULL OR lot.activates_at <= $3) AND e.recorded_at <= $3
 GROUP BY lot.expires_at
HAVING sum(m.points * (ledger_move_remaining(m.kind) - ledger_move_held(m.kind))) > 0
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
 WHERE slot.point_type = 1 AND slot.business_on <= $1
 GROUP BY account.code, account.name, account.nature, funder.id, funder.code
 ORDER BY account.code, funder.id
"""


async def read_balance_at(
    connection: Connection, member: MemberRef, *, at: datetime, period: date
) -> Balance | None:
    """None before the first entry. `period` is the first day of the business month that holds `at`."""
    record = await connection.fetchrow(READ_BALANCE_AT, member.bucket, member.member_id, at, period)
    return read_if_any(record, Balance)


async def list_expiring_at(
    connection: Connection, member: MemberRef, *, at: datetime, limit: int
) -> list[ExpiringPoints]:
    records = await connection.fetch(LIST_EXPIRING_AT, member.bucket, member.member_id, at, limit)
    return [read(record, ExpiringPoints) for record in records]


async def list_house_balances(connection: Connection, *, day: date) -> Sequence[HouseBalance]:
    return [read(record, HouseBalance) for record in await connection.fetch(LIST_HOUSE_BALANCES, day)]
