"""One member's month as a file that anyone can verify: the statement, its entries, and the way to the day's signed seal.

docs/verify/tessera_statement.py reads it. The entries of the month chain from the link before them to the statement's last
hash; that hash is a leaf of the seal of the day of the last entry, and the path leads from the leaf to the root
(RFC 6962 §2.1.1). So the bank cannot show one member another month than the one it has sealed.
"""

import hashlib
from collections.abc import Sequence
from datetime import date, datetime
from typing import TextIO

from gateway.books_export import Lines, named
from kernel.caller import MemberRef
from kernel.database import Connection
from kernel.errors import Absent, Conflict

FORMAT = "tessera-statement-1"


class StatementUnknown(Absent):
    """The member has no statement of that month: nothing happened in it, or it has not been issued yet."""

    code = "statement_not_found"


class StatementNotSealed(Conflict):
    """The day of the statement's last entry has not been sealed yet."""


FIND_STATEMENT = """
SELECT bucket, member_id, point_type, period, opening_points, earned_points, restored_points, spent_points,
       expired_points, clawed_points, repaid_points, closing_points, closing_held_points, opening_arrears_points,
       owed_points, closing_arrears_points, first_seq, last_seq, head_hash, adjusted_in_points, adjusted_out_points,
       transferred_in_points, transferred_out_points, exchanged_in_points, exchanged_out_points
  FROM ledger_statement
 WHERE bucket = $1 AND member_id = $2 AND point_type = $3 AND period = $4
"""

# In the order of the chain, with the last entry before the month for its hash.
LIST_ENTRIES = """
SELECT bucket, member_id, point_type, seq, operation_id, debit_account, credit_account, points, funder_id, value_fen,
       available_after, held_after, pending_after, arrears_after, recorded_at, business_on, hash
  FROM ledger_entry
 WHERE bucket = $1 AND member_id = $2 AND point_type = $3 AND seq BETWEEN $4::bigint - 1 AND $5
 ORDER BY seq
"""

# Leaves in key order, as the root is defined over them.
LIST_LEAVES = """
SELECT ledger_leaf_hash(head.bucket, head.member_id, head.point_type, head.seq, head.hash) AS leaf
  FROM (SELECT DISTINCT ON (e.bucket, e.member_id, e.point_type)
               e.bucket, e.member_id, e.point_type, e.seq, e.hash
          FROM ledger_entry AS e
         WHERE e.business_on = $1 AND e.bucket / 128 = $2
         ORDER BY e.bucket, e.member_id, e.point_type, e.seq DESC) AS head
 ORDER BY head.bucket, head.member_id, head.point_type
"""

FIND_SEAL = """
SELECT lane, business_on, leaves, root, previous_hash, hash, signature, signing_jwk, sealed_at
  FROM ledger_seal
 WHERE lane = $1 AND business_on = $2
"""

HASH_LEAF = "SELECT ledger_leaf_hash($1::smallint, $2::bigint, $3::smallint, $4::bigint, $5::bytea)"


async def export_statement(
    connection: Connection,
    file: TextIO,
    *,
    member: MemberRef,
    point_type: int = 1,
    period: date,
    now: datetime,
) -> None:
    """Write the month of one wallet; StatementUnknown or StatementNotSealed when it cannot be proved."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        key = member.bucket, member.member_id, point_type
        statement = await connection.fetchrow(FIND_STATEMENT, *key, period)
        if statement is None:
            raise StatementUnknown
        first_seq, last_seq = statement["first_seq"], statement["last_seq"]
        entries = await connection.fetch(LIST_ENTRIES, *key, first_seq, last_seq)
        link = entries.pop(0)["hash"] if first_seq > 1 else b""
        lane, day = member.bucket // 128, entries[-1]["business_on"]
        seal = await connection.fetchrow(FIND_SEAL, lane, day)
        if seal is None:
            raise StatementNotSealed(day=day.isoformat())
        leaves = [record["leaf"] for record in await connection.fetch(LIST_LEAVES, day, lane)]
        leaf = await connection.fetchval(HASH_LEAF, *key, last_seq, statement["head_hash"])
    lines = Lines(file)
    lines.write("header", format=FORMAT, exported_at=now)
    bucket, member_id, _ = key
    lines.write("wallet", bucket=bucket, member=member_id, point_type=point_type, link=link)
    for entry in entries:
        lines.write("entry", **named(entry))
    lines.write("statement", **named(statement))
    lines.write("path", steps=audit_path(leaves, leaves.index(leaf)))
    lines.write("seal", **seal)


def audit_path(leaves: Sequence[bytes], place: int) -> list[tuple[str, bytes]]:
    """What to join with a leaf, and on which side, level by level up to the root; RFC 6962 §2.1.1."""
    level, path = list(leaves), list[tuple[str, bytes]]()
    while len(level) > 1:
        neighbour = place ^ 1
        if neighbour < len(level):
            path.append(("left" if neighbour < place else "right", level[neighbour]))
        # neighbours are joined, an odd last one moves up as it is
        level = [
            hashlib.sha256(b"\1" + level[n] + level[n + 1]).digest() if n + 1 < len(level) else level[n]
            for n in range(0, len(level), 2)
        ]
        place //= 2
    return path
