"""The statements behind statements and seals."""

from collections.abc import Sequence
from datetime import date, datetime

from kernel.caller import MemberRef
from kernel.database import Connection, read
from points.ledger.model import DayRoot, Seal, Statement, WalletCursor

# A first entry is always a grant, and a grant always touches a slot.
FIND_FIRST_DAY = "SELECT min(business_on) FROM ledger_house_slot"

ISSUE_STATEMENTS = """
SELECT bucket AS after_bucket, member_id AS after_member_id, point_type AS after_point_type, made
  FROM ledger_issue_statements($1, $2, $3, $4, $5, $6)
"""

# Newest first; a month without entries has no row, so the month asked for may be answered by an earlier one.
LIST_STATEMENTS = """
SELECT bucket, member_id, period, opening_points, earned_points, restored_points, spent_points, expired_points,
       clawed_points, repaid_points, closing_points, closing_held_points, opening_arrears_points, owed_points,
       closing_arrears_points, first_seq, last_seq, head_hash, adjusted_in_points, adjusted_out_points,
       transferred_in_points, transferred_out_points, exchanged_in_points, exchanged_out_points
  FROM ledger_statement
 WHERE bucket = $1 AND member_id = $2 AND point_type = 1 AND period <= $3
 ORDER BY period DESC
 LIMIT $4
"""

# One lock for all lanes: days are sealed one after another.
LOCK_SEALING = "SELECT pg_advisory_xact_lock(hashtextextended('ledger.seal', 0))"

FIND_LAST_SEALED = "SELECT max(business_on) FROM ledger_seal"

# Leaves in key order: that is what the root is defined over. Every lane has a root, also one in which nothing moved.
LIST_DAY_ROOTS = """
SELECT d.lane, $1::date AS business_on, d.leaves, d.root, d.previous_hash,
       ledger_seal_hash(d.lane, $1::date, d.leaves, d.root, d.previous_hash) AS hash
  FROM (SELECT lane.lane, coalesce(moved.leaves, 0) AS leaves,
               ledger_merkle_root(coalesce(moved.hashes, '{}')) AS root, coalesce(before.hash, '') AS previous_hash
          FROM (SELECT generate_series(0, 7)::smallint AS lane) AS lane
          LEFT JOIN (
               SELECT head.bucket / 128 AS lane, count(*) AS leaves,
                      array_agg(ledger_leaf_hash(head.bucket, head.member_id, head.point_type, head.seq, head.hash)
                                ORDER BY head.bucket, head.member_id, head.point_type) AS hashes
                 FROM (SELECT DISTINCT ON (e.bucket, e.member_id, e.point_type)
                              e.bucket, e.member_id, e.point_type, e.seq, e.hash
                         FROM ledger_entry AS e
                        WHERE e.business_on = $1
                        ORDER BY e.bucket, e.member_id, e.point_type, e.seq DESC) AS head
                GROUP BY head.bucket / 128) AS moved ON moved.lane = lane.lane
          LEFT JOIN ledger_seal AS before ON before.lane = lane.lane AND before.business_on = $1::date - 1) AS d
 ORDER BY d.lane
"""

INSERT_SEAL = """
INSERT INTO ledger_seal (lane, business_on, leaves, root, previous_hash, hash, signature, signing_jwk, sealed_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
"""

# By lane, for a person who looks at one day.
LIST_SEALS = """
SELECT lane, business_on, leaves, root, previous_hash, hash, signature, signing_jwk, sealed_at
  FROM ledger_seal
 WHERE business_on = $1
 ORDER BY lane
"""


async def find_first_day(connection: Connection) -> date | None:
    found: date | None = await connection.fetchval(FIND_FIRST_DAY)
    return found


async def issue_statements(
    connection: Connection, *, period: date, after: WalletCursor, limit: int, now: datetime
) -> tuple[WalletCursor, int] | None:
    """The next wallets' statements: the key of the last wallet looked at, and how many were issued; None at the end."""
    record = await connection.fetchrow(ISSUE_STATEMENTS, period, *after, limit, now)
    if record is None:
        return None
    bucket, member_id, point_type, made = record
    return (bucket, member_id, point_type), made


async def list_statements(
    connection: Connection, member: MemberRef, *, until: date, limit: int
) -> list[Statement]:
    records = await connection.fetch(LIST_STATEMENTS, member.bucket, member.member_id, until, limit)
    return [read(record, Statement) for record in records]


async def lock_sealing(connection: Connection) -> None:
    await connection.execute(LOCK_SEALING)


async def find_last_sealed(connection: Connection) -> date | None:
    found: date | None = await connection.fetchval(FIND_LAST_SEALED)
    return found


async def list_day_roots(connection: Connection, *, day: date) -> list[DayRoot]:
    return [read(record, DayRoot) for record in await connection.fetch(LIST_DAY_ROOTS, day)]


async def insert_seals(connection: Connection, seals: Sequence[Seal]) -> None:
    await connection.executemany(
        INSERT_SEAL,
        [
            (
                *(s.lane, s.business_on, s.leaves, s.root, s.previous_hash, s.hash),
                *(s.signature, s.signing_jwk, s.sealed_at),
            )
            for s in seals
        ],
    )


async def list_seals(connection: Connection, *, day: date) -> list[Seal]:
    return [read(record, Seal) for record in await connection.fetch(LIST_SEALS, day)]
