"""The statements of settlement."""

from datetime import date, datetime
from uuid import UUID

from kernel.database import Connection, read, read_if_any
from partners.settlement.model import Batch, Line, Source, Total

LOCK_PARTNER = "SELECT pg_advisory_xact_lock(hashtextextended('settlement:' || $1::text, 0))"

# A close reads a whole day at once, whatever the statistics of tables filled a minute ago say.
PREPARE = "SELECT set_config('statement_timeout', '60s', true), set_config('enable_nestloop', 'off', true)"

FIND_LATEST = """
SELECT id, partner_id, business_on, sequence, state, lines, partner_owes_fen, bank_owes_fen, net_fen, closed_at
  FROM settlement_batch
 WHERE partner_id = $1
 ORDER BY business_on DESC, sequence DESC
 LIMIT 1
"""

FIND_BATCH = """
SELECT id, partner_id, business_on, sequence, state, lines, partner_owes_fen, bank_owes_fen, net_fen, closed_at
  FROM settlement_batch
 WHERE id = $1 AND partner_id = $2
"""

LIST_BATCHES = """
SELECT id, partner_id, business_on, sequence, state, lines, partner_owes_fen, bank_owes_fen, net_fen, closed_at
  FROM settlement_batch
 WHERE partner_id = $1 AND (business_on, sequence) < ($2, $3)
 ORDER BY business_on DESC, sequence DESC
 LIMIT $4
"""

OPEN_BATCH = """
INSERT INTO settlement_batch (id, partner_id, business_on, sequence, state)
VALUES ($1, $2, $3, $4, 'closing')
"""

# What has an exact amount grows the floor of the sum of all such lines of its funder and kind, in the order of the lines,
# on from where the batches before ended: so all lines together are the whole fen of what is owed exactly.
TAKE_LEDGER = """
INSERT INTO settlement_line (batch_id, no, partner_id, source, entry_ref, operation_id, kind, funder, direction,
                             points, amount_fen, business_on, recorded_at, exact_fen_e6)
SELECT $1, $4 + due.place, due.partner_id, 'ledger', due.entry_ref, due.operation_id, due.kind, due.funder,
       due.direction, due.points,
       CASE WHEN due.exact_fen_e6 IS NULL THEN due.amount_fen
            ELSE div(due.total_e6, 1000000) - div(due.total_e6 - due.exact_fen_e6, 1000000) END,
       due.business_on, due.recorded_at, due.exact_fen_e6
  FROM (SELECT s.*, r.direction, row_number() OVER (ORDER BY s.recorded_at, s.entry_ref) AS place,
               coalesce(c.fen_e6, 0)
               + sum(s.exact_fen_e6) OVER (PARTITION BY s.funder, s.kind ORDER BY s.recorded_at, s.entry_ref) AS total_e6
          FROM ledger_settlement_source AS s
          LEFT JOIN settlement_rule AS r ON r.kind = s.kind AND r.funder_kind = split_part(s.funder, ':', 1)
          LEFT JOIN (SELECT funder, kind, sum(fen_e6) AS fen_e6
                       FROM settlement_carry
                      WHERE partner_id = $2
                      GROUP BY funder, kind) AS c ON c.funder = s.funder AND c.kind = s.kind
         WHERE s.partner_id = $2
           AND s.due_on <= $3
           AND NOT EXISTS (SELECT FROM settlement_line AS l WHERE l.source = 'ledger' AND l.entry_ref = s.entry_ref)
       ) AS due
"""

CARRY_ON = """
INSERT INTO settlement_carry (partner_id, funder, kind, batch_id, fen_e6)
SELECT partner_id, funder, kind, batch_id, sum(exact_fen_e6)
  FROM settlement_line
 WHERE batch_id = $1 AND exact_fen_e6 IS NOT NULL
 GROUP BY partner_id, funder, kind, batch_id
"""

TAKE_CREDIT = """
INSERT INTO settlement_line (batch_id, no, partner_id, source, entry_ref, operation_id, kind, funder, direction,
                             points, amount_fen, business_on, recorded_at)
SELECT $1, $4 + row_number() OVER (ORDER BY s.recorded_at, s.entry_ref), s.partner_id, 'credit', s.entry_ref,
       s.operation_id, s.kind, s.funder, r.direction, 0, s.amount_fen, s.business_on, s.recorded_at
  FROM credit_settlement_source AS s
  LEFT JOIN settlement_rule AS r ON r.kind = s.kind AND r.funder_kind = split_part(s.funder, ':', 1)
 WHERE s.partner_id = $2
   AND s.business_on <= $3
   AND NOT EXISTS (SELECT FROM settlement_line AS l WHERE l.source = 'credit' AND l.entry_ref = s.entry_ref)
"""

SUM_UP = """
INSERT INTO settlement_total (batch_id, kind, direction, lines, points, amount_fen)
SELECT batch_id, kind, direction, count(*), sum(points), sum(amount_fen)
  FROM settlement_line
 WHERE batch_id = $1
 GROUP BY batch_id, kind, direction
"""

CLOSE_BATCH = """
UPDATE settlement_batch AS b
   SET state = 'closed',
       closed_at = $2,
       lines = t.lines,
       partner_owes_fen = t.partner_owes_fen,
       bank_owes_fen = t.bank_owes_fen
  FROM (SELECT coalesce(sum(lines), 0) AS lines,
               coalesce(sum(amount_fen) FILTER (WHERE direction = 'partner_owes_bank'), 0) AS partner_owes_fen,
               coalesce(sum(amount_fen) FILTER (WHERE direction = 'bank_owes_partner'), 0) AS bank_owes_fen
          FROM settlement_total
         WHERE batch_id = $1) AS t
 WHERE b.id = $1 AND b.state = 'closing'
RETURNING b.id, b.partner_id, b.business_on, b.sequence, b.state, b.lines, b.partner_owes_fen, b.bank_owes_fen,
          b.net_fen, b.closed_at
"""

LIST_TOTALS = """
SELECT kind, direction, lines, points, amount_fen
  FROM settlement_total
 WHERE batch_id = $1
 ORDER BY kind, direction
"""

LIST_LINES = """
SELECT no, source, entry_ref, operation_id, kind, funder, direction, points, amount_fen, business_on, recorded_at
  FROM settlement_line
 WHERE batch_id = $1 AND no > $2
 ORDER BY no
 LIMIT $3
"""

_CLOSE_SECONDS = 60.0


async def lock_partner(connection: Connection, *, partner_id: UUID) -> None:
    """From here to commit nobody else closes a batch of this partner."""
    await connection.execute(LOCK_PARTNER, str(partner_id))


async def find_latest(connection: Connection, *, partner_id: UUID) -> Batch | None:
    """The partner's last batch: days are closed in order."""
    return read_if_any(await connection.fetchrow(FIND_LATEST, partner_id), Batch)


async def find_batch(connection: Connection, *, batch_id: UUID, partner_id: UUID) -> Batch | None:
    """The partner's batch, or None: another partner's does not exist for this one."""
    return read_if_any(await connection.fetchrow(FIND_BATCH, batch_id, partner_id), Batch)


async def list_batches(
    connection: Connection, *, partner_id: UUID, before: tuple[date, int], limit: int
) -> list[Batch]:
    """Newest first: yesterday's account is what one looks for."""
    return [
        read(record, Batch) for record in await connection.fetch(LIST_BATCHES, partner_id, *before, limit)
    ]


async def open_batch(
    connection: Connection, *, batch_id: UUID, partner_id: UUID, business_on: date, sequence: int
) -> None:
    """A batch that is closing: lines may join until it is closed, later in this transaction."""
    await connection.execute(PREPARE)
    await connection.execute(OPEN_BATCH, batch_id, partner_id, business_on, sequence)


async def take_lines(
    connection: Connection, source: Source, *, batch_id: UUID, partner_id: UUID, business_on: date, after: int
) -> int:
    """Every entry of the source up to the day that has no line yet; numbered in the order of recording. How many."""
    statement = {"ledger": TAKE_LEDGER, "credit": TAKE_CREDIT}[source]
    status = await connection.execute(
        statement, batch_id, partner_id, business_on, after, timeout=_CLOSE_SECONDS
    )
    return int(status.rpartition(" ")[2])


async def close_batch(connection: Connection, *, batch_id: UUID, now: datetime) -> Batch:
    """Sum the lines up and close."""
    await connection.execute(CARRY_ON, batch_id, timeout=_CLOSE_SECONDS)
    await connection.execute(SUM_UP, batch_id, timeout=_CLOSE_SECONDS)
    return read(await connection.fetchrow(CLOSE_BATCH, batch_id, now), Batch)


async def list_totals(connection: Connection, *, batch_id: UUID) -> list[Total]:
    """By kind, in the alphabet's order so that two looks are alike."""
    return [read(record, Total) for record in await connection.fetch(LIST_TOTALS, batch_id)]


async def list_lines(connection: Connection, *, batch_id: UUID, after: int, limit: int) -> list[Line]:
    """By number, which is the order of recording within each source."""
    return [read(record, Line) for record in await connection.fetch(LIST_LINES, batch_id, after, limit)]
