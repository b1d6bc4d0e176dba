"""The statements of funders, their blocks and what was drawn on them."""

from collections.abc import Sequence
from datetime import date, datetime
from itertools import groupby
from uuid import UUID

from kernel.caller import MemberRef
from kernel.database import Connection, read
from points.ledger.funder_model import Block, Draw, Drawn, Funder, FunderKind, FundingSource, Terms
from points.ledger.model import EarnPosting, Operation

INSERT_FUNDER = "INSERT INTO ledger_funder (code, kind, partner_id) VALUES ($1, $2, $3) RETURNING id"

INSERT_TERMS = """
INSERT INTO ledger_funder_terms (funder_id, effective_on, billing, price_fen_e6, billing_ppm, breakage_ppm, billed, agreed_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
"""

# By code, for people; each with its terms, oldest first.
LIST_FUNDERS = """
SELECT f.id, f.code, f.kind, f.partner_id, t.effective_on, t.billing, t.price_fen_e6, t.billing_ppm, t.breakage_ppm,
       t.billed
  FROM ledger_funder AS f
  LEFT JOIN ledger_funder_terms AS t ON t.funder_id = f.id
 WHERE $1::text IS NULL OR f.code = $1
 ORDER BY f.code, t.effective_on
"""

INSERT_BLOCK = """
INSERT INTO ledger_funder_block (id, funder_id, purchase_ref, starts_on, points, paid_fen, low_water_ppm, bought_at,
                                 business_on)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
"""

# In the order in which they pay.
LIST_BLOCKS = """
SELECT b.id, b.funder_id, b.purchase_ref, b.starts_on, b.points, b.paid_fen, g.closed_at, coalesce((
           SELECT sum(s.used)
             FROM generate_series(0, 1023) AS n (bucket)
             JOIN ledger_budget_slot AS s ON s.bucket = n.bucket AND s.budget_id = b.id), 0)::bigint AS used_points
  FROM ledger_funder_block AS b
  JOIN ledger_budget AS g ON g.id = b.id
 WHERE b.funder_id = $1
 ORDER BY b.starts_on, b.id
"""

# The terms of the day and, of who pays in advance, the blocks that may have something left, in the order in which they
# pay: the earliest start first.
LIST_SOURCES = """
SELECT f.id AS funder_id, t.billing, coalesce(t.unit_cost_e6, 0) AS unit_cost_e6, b.id AS block_id,
       div(b.paid_fen::numeric * 1000000, b.points)::bigint AS block_cost_e6
  FROM unnest($1::int[]) AS f (id)
  LEFT JOIN LATERAL (
       SELECT v.billing, v.unit_cost_e6
         FROM ledger_funder_terms AS v
        WHERE v.funder_id = f.id AND v.effective_on <= $2
        ORDER BY v.effective_on DESC
        LIMIT 1) AS t ON true
  LEFT JOIN LATERAL (
       SELECT c.id, c.paid_fen, c.points, c.starts_on
         FROM ledger_funder_block AS c
         JOIN ledger_budget AS g ON g.id = c.id
        WHERE c.funder_id = f.id AND c.starts_on <= $2 AND g.closed_at IS NULL
          AND NOT (g.scarce AND g.leased = g.total)) AS b ON t.billing = 'prepaid'
 ORDER BY f.id, b.starts_on, b.id
"""

# Which of these events have earned already; no order, the caller asks by place.
LIST_CLAIMED = """
SELECT s.place::int
  FROM unnest($1::smallint[], $2::bigint[], $3::uuid[], $4::text[], $5::text[])
       WITH ORDINALITY AS s (bucket, member_id, partner_id, kind, source_ref, place)
 WHERE EXISTS (
       SELECT FROM ledger_source_claim AS c
        WHERE c.bucket = s.bucket AND c.member_id = s.member_id AND c.partner_id = s.partner_id
          AND c.kind = s.kind AND c.source_ref = s.source_ref)
"""

# Records what was drawn and raises each alarm once: a block is low when no more than the mark is left to lease, which
# is a little before no more is left. Ordered, because two earnings may raise the same alarms.
RECORD_DRAWS = """
WITH drawn AS (
    INSERT INTO ledger_funding_draw (bucket, member_id, operation_id, funder_id, block_id, by_operation, points)
    SELECT d.bucket, d.member_id, d.operation_id, d.funder_id, d.block_id, d.operation_id, sum(d.points)
      FROM unnest($1::smallint[], $2::bigint[], $3::uuid[], $4::int[], $5::uuid[], $6::bigint[])
           AS d (bucket, member_id, operation_id, funder_id, block_id, points)
     GROUP BY d.bucket, d.member_id, d.operation_id, d.funder_id, d.block_id
), alarm AS (
    INSERT INTO ledger_funder_alert (block_id, low_ppm, alerted_at)
    SELECT b.id, mark.ppm, $7
      FROM (SELECT DISTINCT unnest($5::uuid[]) AS id) AS touched
      JOIN ledger_funder_block AS b ON b.id = touched.id
      JOIN ledger_budget AS g ON g.id = b.id
     CROSS JOIN LATERAL unnest(b.low_water_ppm) AS mark (ppm)
     WHERE (g.total - g.leased)::numeric * 1000000 <= b.points::numeric * mark.ppm
       AND NOT EXISTS (SELECT FROM ledger_funder_alert AS a WHERE a.block_id = b.id AND a.low_ppm = mark.ppm)
     ORDER BY b.id, mark.ppm
        ON CONFLICT DO NOTHING
    RETURNING block_id, low_ppm
)
SELECT alarm.block_id, alarm.low_ppm, f.code, f.partner_id
  FROM alarm
  JOIN ledger_funder_block AS b ON b.id = alarm.block_id
  JOIN ledger_funder AS f ON f.id = b.funder_id
 ORDER BY alarm.block_id, alarm.low_ppm DESC
"""

# Of every funder whose block paid for one of the operations, the blocks that its bucket has ever used: one of them may
# have paid for whatever lot the reversal will take. No order: who locks orders.
LIST_BLOCKS_TO_LOCK = """
SELECT DISTINCT d.bucket, b.id
  FROM unnest($1::smallint[], $2::bigint[], $3::uuid[]) AS o (bucket, member_id, id)
  JOIN ledger_funding_draw AS d ON d.bucket = o.bucket AND d.member_id = o.member_id AND d.operation_id = o.id
  JOIN ledger_funder_block AS b ON b.funder_id = d.funder_id
 WHERE EXISTS (SELECT FROM ledger_budget_slot AS s WHERE s.bucket = d.bucket AND s.budget_id = b.id)
"""

# What is left of draws on locked blocks; in the order of drawing, which is the order of the blocks.
LIST_DRAWN = """
SELECT d.operation_id, d.funder_id, d.block_id,
       sum(CASE WHEN d.by_operation = d.operation_id THEN d.points ELSE -d.points END)::bigint AS points
  FROM (SELECT DISTINCT unnest($3::uuid[]) AS id) AS wanted
  JOIN ledger_funding_draw AS d ON d.bucket = $1 AND d.member_id = $2 AND d.operation_id = wanted.id
  JOIN ledger_funder_block AS b ON b.id = d.block_id
 WHERE d.block_id = ANY ($4::uuid[])
 GROUP BY d.operation_id, d.funder_id, d.block_id, b.starts_on
 ORDER BY d.operation_id, b.starts_on, d.block_id
"""

RECORD_RETURNS = """
INSERT INTO ledger_funding_draw (bucket, member_id, operation_id, funder_id, block_id, by_operation, points)
SELECT $1, $2, r.operation_id, r.funder_id, r.block_id, $3, r.points
  FROM unnest($4::uuid[], $5::int[], $6::uuid[], $7::bigint[]) AS r (operation_id, funder_id, block_id, points)
"""


async def insert_funder(
    connection: Connection, *, code: str, kind: FunderKind, partner_id: UUID | None
) -> int:
    """The new funder's number."""
    funder_id: int = await connection.fetchval(INSERT_FUNDER, code, kind, partner_id)
    return funder_id


async def insert_terms(connection: Connection, *, funder_id: int, terms: Terms, now: datetime) -> None:
    """From their day on these terms hold."""
    await connection.execute(
        INSERT_TERMS,
        *(funder_id, terms.effective_on, terms.billing, terms.price_fen_e6),
        *(terms.billing_ppm, terms.breakage_ppm, terms.billed, now),
    )


async def list_funders(connection: Connection, *, code: str | None = None) -> list[Funder]:
    """All, or the one of this code."""
    found = []
    for _, rows in groupby(await connection.fetch(LIST_FUNDERS, code), key=lambda row: row["id"]):
        agreed = list(rows)
        terms = tuple(read(row, Terms) for row in agreed if row["billing"] is not None)
        first = agreed[0]
        found.append(
            Funder(
                id=first["id"],
                code=first["code"],
                kind=first["kind"],
                partner_id=first["partner_id"],
                terms=terms,
            )
        )
    return found


async def insert_block(
    connection: Connection, block: Block, *, low_water_ppm: Sequence[int], business_on: date, now: datetime
) -> None:
    """A block whose budget has been opened."""
    await connection.execute(
        INSERT_BLOCK,
        *(block.id, block.funder_id, block.purchase_ref, block.starts_on, block.points, block.paid_fen),
        *(list(low_water_ppm), now, business_on),
    )


async def list_blocks(connection: Connection, *, funder_id: int) -> list[Block]:
    """In the order in which they pay."""
    return [read(record, Block) for record in await connection.fetch(LIST_BLOCKS, funder_id)]


async def list_sources(
    connection: Connection, funder_ids: Sequence[int], *, on: date
) -> dict[int, FundingSource]:
    """Where each funder's points come from on a day."""
    records = await connection.fetch(LIST_SOURCES, funder_ids, on)
    sources = {}
    for funder_id, rows in groupby(records, key=lambda row: row["funder_id"]):
        found = list(rows)
        sources[funder_id] = FundingSource(
            funder_id=funder_id,
            billing=found[0]["billing"],
            unit_cost_e6=found[0]["unit_cost_e6"],
            blocks=tuple((row["block_id"], row["block_cost_e6"]) for row in found if row["block_id"]),
        )
    return sources


async def list_claimed(connection: Connection, postings: Sequence[EarnPosting]) -> set[int]:
    """The places of postings whose source has earned before."""
    records = await connection.fetch(
        LIST_CLAIMED,
        [posting.member.bucket for posting in postings],
        [posting.member.member_id for posting in postings],
        [posting.partner_id for posting in postings],
        [posting.source_kind for posting in postings],
        [posting.source_ref for posting in postings],
    )
    return {record["place"] - 1 for record in records}


async def record_draws(
    connection: Connection, draws: Sequence[tuple[MemberRef, UUID, Draw]], *, now: datetime
) -> list[tuple[UUID, int, str, UUID | None]]:
    """Write them down; returns the alarms: block, mark, funder's code and partner."""
    rows = [
        (member, operation_id, draw, share) for member, operation_id, draw in draws for share in draw.shares
    ]
    records = await connection.fetch(
        RECORD_DRAWS,
        [member.bucket for member, _, _, _ in rows],
        [member.member_id for member, _, _, _ in rows],
        [operation_id for _, operation_id, _, _ in rows],
        [draw.funder_id for _, _, draw, _ in rows],
        [share.block_id for _, _, _, share in rows],
        [share.points for _, _, _, share in rows],
        now,
    )
    return [(row["block_id"], row["low_ppm"], row["code"], row["partner_id"]) for row in records]


async def list_blocks_to_lock(
    connection: Connection, operations: Sequence[Operation]
) -> list[tuple[int, UUID]]:
    """Buckets and blocks."""
    records = await connection.fetch(
        LIST_BLOCKS_TO_LOCK,
        [operation.bucket for operation in operations],
        [operation.member_id for operation in operations],
        [operation.id for operation in operations],
    )
    return [(record["bucket"], record["id"]) for record in records]


async def list_drawn(
    connection: Connection, member: MemberRef, *, operation_ids: Sequence[UUID], block_ids: Sequence[UUID]
) -> list[Drawn]:
    """What these operations drew on these blocks and have not given back."""
    records = await connection.fetch(LIST_DRAWN, member.bucket, member.member_id, operation_ids, block_ids)
    return [read(record, Drawn) for record in records]


async def record_returns(
    connection: Connection, member: MemberRef, returns: Sequence[tuple[Drawn, int]], *, by_operation: UUID
) -> None:
    """Write down what blocks get back."""
    await connection.execute(
        RECORD_RETURNS,
        *(member.bucket, member.member_id, by_operation),
        [one.operation_id for one, _ in returns],
        [one.funder_id for one, _ in returns],
        [one.block_id for one, _ in returns],
        [points for _, points in returns],
    )
