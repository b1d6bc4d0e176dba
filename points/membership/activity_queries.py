"""The statements about what members do: deeds, their counts by month, and who may have risen."""

from collections.abc import Sequence
from datetime import date, datetime
from uuid import UUID

from kernel.caller import MemberRef
from kernel.database import Connection
from points.membership.model import Deed
from points.membership.rules import month_of

# One statement for many deeds. First the deeds, in key order, so that batches with the same ones wait in one direction;
# then the months, in key order too. What counted comes back with whether its member now meets a shop level above the one
# held: the months just moved as they are, the others as the statement finds them, each read by key (OFFSET 0 keeps any
# plan to that), and of the members only those who meet a level at all. A scheme whose tiers rise
# at the evaluation needs nothing of this.
RECORD_DEEDS = """
WITH counted AS (
    INSERT INTO membership_activity (
           bucket, member_id, partner_id, kind, source_ref, month, amount_fen, own_card, category, occurred_at, recorded_at)
    SELECT d.*, $12
      FROM unnest($1::smallint[], $2::bigint[], $3::uuid[], $4::text[], $5::text[], $6::date[], $7::bigint[],
                  $8::boolean[], $9::text[], $10::timestamptz[])
           AS d (bucket, member_id, partner_id, kind, source_ref, month, amount_fen, own_card, category, occurred_at)
     ORDER BY d.bucket, d.member_id, d.partner_id, d.kind, d.source_ref
        ON CONFLICT (bucket, member_id, partner_id, kind, source_ref) DO NOTHING
    RETURNING bucket, member_id, partner_id, kind, source_ref, month, amount_fen
), moved AS (
    INSERT INTO membership_activity_month AS m (bucket, member_id, month, qualifying_fen, qualifying_count)
    SELECT bucket, member_id, month, sum(amount_fen), count(*)
      FROM counted
     GROUP BY bucket, member_id, month
     ORDER BY bucket, member_id, month
        ON CONFLICT (bucket, member_id, month) DO UPDATE
       SET qualifying_fen = m.qualifying_fen + excluded.qualifying_fen,
           qualifying_count = m.qualifying_count + excluded.qualifying_count
    RETURNING m.bucket, m.member_id, m.month, m.qualifying_fen, m.qualifying_count
), scheme AS MATERIALIZED (
    SELECT s.needs = 'all' AS every, membership_window_start(s.window_kind, s.window_months, $11) AS start_on,
           array_agg(coalesce(l.min_fen, t.never) ORDER BY l.rank) AS fen,
           array_agg(coalesce(l.min_count, t.never) ORDER BY l.rank) AS count
      FROM membership_scheme AS s
      JOIN membership_scheme_level AS l ON l.version = s.version
     CROSS JOIN LATERAL (SELECT CASE s.needs WHEN 'all' THEN 0 ELSE 9223372036854775807 END AS never) AS t
     WHERE s.version = membership_version_on('scheme', $11) AND s.rises = 'at_once'
     GROUP BY s.version
), earned AS MATERIALIZED (
    SELECT has.bucket, has.member_id,
           (SELECT count(*)
              FROM generate_series(1, cardinality(s.fen)) AS n
             WHERE CASE WHEN s.every THEN has.fen + before.fen >= s.fen[n] AND has.count + before.count >= s.count[n]
                        ELSE has.fen + before.fen >= s.fen[n] OR has.count + before.count >= s.count[n] END) AS rank
      FROM scheme AS s
     CROSS JOIN (
           SELECT m.bucket, m.member_id, array_agg(m.month) AS months,
                  coalesce(sum(m.qualifying_fen) FILTER (WHERE m.month BETWEEN s.start_on AND $11), 0)::bigint AS fen,
                  coalesce(sum(m.qualifying_count) FILTER (WHERE m.month BETWEEN s.start_on AND $11), 0) AS count
             FROM moved AS m
            CROSS JOIN scheme AS s
            GROUP BY m.bucket, m.member_id) AS has
     CROSS JOIN LATERAL (
           SELECT coalesce(sum(m.qualifying_fen), 0)::bigint AS fen, coalesce(sum(m.qualifying_count), 0) AS count
             FROM membership_activity_month AS m
            WHERE m.bucket = has.bucket AND m.member_id = has.member_id
              AND m.month BETWEEN s.start_on AND $11 AND m.month <> ALL (has.months)
           OFFSET 0) AS before
     -- thresholds do not fall from level to level: who misses the first one misses all
     WHERE CASE WHEN s.every THEN has.fen + before.fen >= s.fen[1] AND has.count + before.count >= s.count[1]
                ELSE has.fen + before.fen >= s.fen[1] OR has.count + before.count >= s.count[1] END
), risen AS (
    SELECT e.bucket, e.member_id
      FROM earned AS e
     CROSS JOIN LATERAL (
           SELECT member.shop_level
             FROM membership_member AS member
            WHERE member.bucket = e.bucket AND member.member_id = e.member_id
           OFFSET 0) AS held
     WHERE e.rank > array_position('{iron,bronze,silver,gold}'::text[], held.shop_level) - 1
)
SELECT c.bucket, c.member_id, c.partner_id, c.kind, c.source_ref, r.member_id IS NOT NULL AS risen
  FROM counted AS c
  LEFT JOIN risen AS r ON r.bucket = c.bucket AND r.member_id = c.member_id
"""

# The deed first, then its month, as everywhere; nothing when it was never counted or is wholly undone.
UNDO_DEED = """
WITH deed AS (
    SELECT bucket, member_id, partner_id, kind, source_ref, month, least(amount_fen - undone_fen, $6) AS fen,
           (amount_fen - undone_fen <= $6)::int AS whole
      FROM membership_activity
     WHERE bucket = $1 AND member_id = $2 AND partner_id = $3 AND kind = $4 AND source_ref = $5
       AND undone_fen < amount_fen
       FOR UPDATE
), undone AS (
    UPDATE membership_activity AS a
       SET undone_fen = a.undone_fen + deed.fen
      FROM deed
     WHERE a.bucket = deed.bucket AND a.member_id = deed.member_id AND a.partner_id = deed.partner_id
       AND a.kind = deed.kind AND a.source_ref = deed.source_ref
)
UPDATE membership_activity_month AS m
   SET qualifying_fen = m.qualifying_fen - deed.fen, qualifying_count = m.qualifying_count - deed.whole
  FROM deed
 WHERE m.bucket = deed.bucket AND m.member_id = deed.member_id AND m.month = deed.month
"""

#: which deed a row is about
Key = tuple[int, int, UUID, str, str]


def key_of(partner_id: UUID, deed: Deed) -> Key:
    return deed.member.bucket, deed.member.member_id, partner_id, deed.kind, deed.source_ref


async def record_deeds(
    connection: Connection, reported: Sequence[tuple[UUID, Deed]], *, day: date, now: datetime
) -> dict[Key, bool]:
    """What counted for the first time, and whether its member may have risen."""
    deeds = [deed for _, deed in reported]
    records = await connection.fetch(
        RECORD_DEEDS,
        [deed.member.bucket for deed in deeds],
        [deed.member.member_id for deed in deeds],
        [partner_id for partner_id, _ in reported],
        [deed.kind for deed in deeds],
        [deed.source_ref for deed in deeds],
        [month_of(deed.occurred_at) for deed in deeds],
        [deed.amount_fen for deed in deeds],
        [deed.own_card for deed in deeds],
        [deed.category for deed in deeds],
        [deed.occurred_at for deed in deeds],
        day,
        now,
    )
    return {(r[0], r[1], r[2], r[3], r[4]): r[5] for r in records}


async def undo_deed(
    connection: Connection, member: MemberRef, *, partner_id: UUID, kind: str, source_ref: str, fen: int
) -> None:
    await connection.execute(UNDO_DEED, member.bucket, member.member_id, partner_id, kind, source_ref, fen)
