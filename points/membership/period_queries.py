"""The statements about tiers: what a judgement reads, the periods it begins, and their history."""

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any

import msgspec

from kernel.caller import MemberRef
from kernel.database import Connection, read
from points.membership.model import Inputs, Period, Rules, Verdict, Window

# The lateral subqueries keep any plan to key lookups. The bank level of the date: of the last date fed up to it the last
# revision, or what the member was enrolled with.
LIST_INPUTS = """
SELECT member.*, coalesce(fed.bank_level, member.enrolled_bank_level) AS bank_level, activity.qualifying_fen,
       activity.qualifying_count
  FROM unnest($1::smallint[], $2::bigint[]) AS asked (bucket, member_id)
 CROSS JOIN LATERAL (
       SELECT m.bucket, m.member_id, m.period_no, m.tier, m.multiplier_pct, m.shop_level, m.valid_until,
              m.enrolled_bank_level
         FROM membership_member AS m
        WHERE m.bucket = asked.bucket AND m.member_id = asked.member_id
       OFFSET 0) AS member
  LEFT JOIN LATERAL (
       SELECT f.bank_level
         FROM membership_bank_level AS f
        WHERE f.bucket = asked.bucket AND f.member_id = asked.member_id AND f.valid_from <= $3
        ORDER BY f.valid_from DESC, f.revision DESC
        LIMIT 1) AS fed ON true
 CROSS JOIN LATERAL (
       SELECT coalesce(sum(a.qualifying_fen), 0)::bigint AS qualifying_fen,
              coalesce(sum(a.qualifying_count), 0)::bigint AS qualifying_count
         FROM membership_activity_month AS a
        WHERE a.bucket = asked.bucket AND a.member_id = asked.member_id AND a.month >= $4 AND a.month < $5
       OFFSET 0) AS activity
"""

# In key order: whoever locks several members waits in one direction.
LOCK_MEMBERS = """
SELECT member.bucket
  FROM membership_member AS member
  JOIN unnest($1::smallint[], $2::bigint[]) AS asked (bucket, member_id)
    ON asked.bucket = member.bucket AND asked.member_id = member.member_id
 ORDER BY member.bucket, member.member_id
   FOR NO KEY UPDATE OF member
"""

# In key order: the cursor is the last key.
LIST_MEMBERS = """
SELECT bucket, member_id
  FROM membership_member
 WHERE bucket >= $1 AND bucket < $2 AND (bucket, member_id) > ($3, $4)
 ORDER BY bucket, member_id
 LIMIT $5
"""

# The member's row shows the period in force; the period names the one before. A clock that is a little behind does not
# turn the order round.
BEGIN_PERIODS = """
WITH verdict AS (
    SELECT * FROM jsonb_to_recordset($1) AS v (
           bucket smallint, member_id bigint, no int, tier text, multiplier_pct int, bank_level text, shop_level text,
           judged_tier text, reason text, valid_until timestamptz, qualifying_fen bigint, qualifying_count int)
), moved AS (
    UPDATE membership_member AS m
       SET tier = v.tier, multiplier_pct = v.multiplier_pct, bank_level = v.bank_level, shop_level = v.shop_level,
           matrix_version = $2, period_no = v.no, valid_until = v.valid_until
      FROM verdict AS v
     WHERE m.bucket = v.bucket AND m.member_id = v.member_id AND m.period_no = v.no - 1
    RETURNING m.bucket, m.member_id
)
INSERT INTO membership_tier_period (
       bucket, member_id, no, tier, multiplier_pct, bank_level, shop_level, judged_tier, reason, matrix_version,
       scheme_version, window_from, window_to, qualifying_fen, qualifying_count, judged_on, starts_at, valid_until,
       previous_starts_at)
SELECT v.bucket, v.member_id, v.no, v.tier, v.multiplier_pct, v.bank_level, v.shop_level, v.judged_tier, v.reason, $2,
       $3, $4, $5, v.qualifying_fen, v.qualifying_count, $6, greatest($7, before.starts_at), v.valid_until,
       before.starts_at
  FROM moved
  JOIN verdict AS v ON v.bucket = moved.bucket AND v.member_id = moved.member_id
  JOIN membership_tier_period AS before
    ON before.bucket = v.bucket AND before.member_id = v.member_id AND before.no = v.no - 1
"""

# Newest first; a period ends where the next one begins.
LIST_PERIODS = """
SELECT p.no, p.tier, p.multiplier_pct, p.bank_level, p.shop_level, p.judged_tier, p.reason, p.matrix_version,
       p.scheme_version, p.window_from, p.window_to, p.qualifying_fen, p.qualifying_count, p.judged_on, p.starts_at,
       next.starts_at AS ends_at, p.valid_until
  FROM membership_tier_period AS p
  LEFT JOIN membership_tier_period AS next
    ON next.bucket = p.bucket AND next.member_id = p.member_id AND next.no = p.no + 1
 WHERE p.bucket = $1 AND p.member_id = $2 AND ($3::int IS NULL OR p.no < $3)
 ORDER BY p.no DESC
 LIMIT $4
"""


async def list_inputs(
    connection: Connection, members: Sequence[MemberRef], *, day: date, window: Window
) -> list[Inputs]:
    """What is known of these members for a judgement on `day`."""
    records = await connection.fetch(LIST_INPUTS, *_keys(members), day, window.start_on, window.end_on)
    return [_inputs(dict(record)) for record in records]


async def lock_members(connection: Connection, members: Sequence[MemberRef]) -> None:
    await connection.fetch(LOCK_MEMBERS, *_keys(members))


async def list_members(
    connection: Connection, *, buckets: range, after: MemberRef | None, limit: int
) -> list[MemberRef]:
    """The next members of these buckets, by key."""
    bucket, member_id = (-1, 0) if after is None else (after.bucket, after.member_id)
    records = await connection.fetch(LIST_MEMBERS, buckets.start, buckets.stop, bucket, member_id, limit)
    return [read(record, MemberRef) for record in records]


async def begin_periods(
    connection: Connection,
    decided: Sequence[tuple[Inputs, Verdict]],
    *,
    rules: Rules,
    window: Window,
    day: date,
    now: datetime,
) -> None:
    await connection.execute(
        BEGIN_PERIODS,
        [_verdict_row(inputs, verdict) for inputs, verdict in decided],
        rules.matrix.version,
        rules.scheme.version,
        window.start_on,
        window.end_on,
        day,
        now,
    )


async def list_periods(
    connection: Connection, member: MemberRef, *, before: int | None, limit: int
) -> list[Period]:
    records = await connection.fetch(LIST_PERIODS, member.bucket, member.member_id, before, limit)
    return [read(record, Period) for record in records]


def _keys(members: Sequence[MemberRef]) -> tuple[list[int], list[int]]:
    return [member.bucket for member in members], [member.member_id for member in members]


def _inputs(row: dict[str, Any]) -> Inputs:
    member = MemberRef(member_id=row.pop("member_id"), bucket=row.pop("bucket"))
    del row["enrolled_bank_level"]
    return msgspec.convert(row | {"member": member}, Inputs)


def _verdict_row(inputs: Inputs, verdict: Verdict) -> dict[str, Any]:
    return {
        "bucket": inputs.member.bucket,
        "member_id": inputs.member.member_id,
        "no": inputs.period_no + 1,
        "tier": verdict.tier,
        "multiplier_pct": verdict.multiplier_pct,
        "bank_level": verdict.bank_level,
        "shop_level": verdict.shop_level,
        "judged_tier": verdict.judged_tier,
        "reason": verdict.reason,
        "valid_until": verdict.valid_until,
        "qualifying_fen": inputs.qualifying_fen,
        "qualifying_count": inputs.qualifying_count,
    }
