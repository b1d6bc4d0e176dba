"""The statements about bank levels."""

from collections.abc import Sequence
from datetime import date, datetime

from kernel.caller import MemberRef
from kernel.database import Connection, read
from points.membership.model import BankLevel, FedLevel
from points.membership.period_queries import lock_members

FIND_MEMBERS = "SELECT member_id, bucket FROM membership_member WHERE member_id = ANY ($1)"

# The last revision of each date that is asked about.
LIST_LATEST = """
SELECT fed.member_id, fed.valid_from, fed.bank_level, fed.revision
  FROM (SELECT DISTINCT * FROM unnest($1::smallint[], $2::bigint[], $3::date[]) AS d (bucket, member_id, valid_from)) AS asked
 CROSS JOIN LATERAL (
       SELECT f.member_id, f.valid_from, f.bank_level, f.revision
         FROM membership_bank_level AS f
        WHERE f.bucket = asked.bucket AND f.member_id = asked.member_id AND f.valid_from = asked.valid_from
        ORDER BY f.revision DESC
        LIMIT 1) AS fed
"""

INSERT_LEVELS = """
INSERT INTO membership_bank_level (bucket, member_id, valid_from, revision, bank_level, fed_ref, recorded_at)
SELECT f.*, $6, $7 FROM unnest($1::smallint[], $2::bigint[], $3::date[], $4::int[], $5::text[]) AS f
"""


async def find_members(connection: Connection, member_ids: Sequence[int]) -> dict[int, MemberRef]:
    records = await connection.fetch(FIND_MEMBERS, list(member_ids))
    return {record["member_id"]: read(record, MemberRef) for record in records}


async def list_latest(
    connection: Connection, fed: Sequence[FedLevel]
) -> dict[tuple[int, date], tuple[BankLevel | None, int]]:
    """(level, revision) by member and date."""
    records = await connection.fetch(
        LIST_LATEST,
        [one.member.bucket for one in fed],
        [one.member.member_id for one in fed],
        [one.valid_from for one in fed],
    )
    return {(r["member_id"], r["valid_from"]): (r["bank_level"], r["revision"]) for r in records}


async def insert_levels(
    connection: Connection, revised: Sequence[tuple[FedLevel, int]], *, fed_ref: str, now: datetime
) -> None:
    await connection.execute(
        INSERT_LEVELS,
        [one.member.bucket for one, _ in revised],
        [one.member.member_id for one, _ in revised],
        [one.valid_from for one, _ in revised],
        [revision for _, revision in revised],
        [one.bank_level for one, _ in revised],
        fed_ref,
        now,
    )


__all__ = ["find_members", "insert_levels", "list_latest", "lock_members"]
