-- The books of membership: what must be true of activity, tiers, versions and rights. A row is a contradiction.

CREATE VIEW books_i44_activity_months AS
SELECT coalesce(m.bucket, a.bucket) AS bucket, coalesce(m.member_id, a.member_id) AS member_id,
       coalesce(m.month, a.month) AS month, m.qualifying_fen, a.fen, m.qualifying_count, a.count
  FROM membership_activity_month AS m
  FULL JOIN (
       SELECT bucket, member_id, month, sum(amount_fen - undone_fen) AS fen,
              count(*) FILTER (WHERE undone_fen = 0 OR undone_fen < amount_fen) AS count
         FROM membership_activity
        GROUP BY bucket, member_id, month) AS a
    ON a.bucket = m.bucket AND a.member_id = m.member_id AND a.month = m.month
 WHERE (m.qualifying_fen, m.qualifying_count) IS DISTINCT FROM (a.fen, a.count);
COMMENT ON VIEW books_i44_activity_months IS
    'What qualifies in a month is the sum of what its member did in it and nobody took back.';

CREATE VIEW books_i45_activity_undone AS
SELECT a.bucket, a.member_id, a.partner_id, a.kind, a.source_ref, a.month, a.amount_fen, a.undone_fen, r.reversed_fen
  FROM membership_activity AS a
  LEFT JOIN ledger_source_claim AS c
    ON c.bucket = a.bucket AND c.member_id = a.member_id AND c.partner_id = a.partner_id AND c.kind = a.kind
   AND c.source_ref = a.source_ref
  LEFT JOIN ledger_reversible AS r
    ON r.bucket = c.bucket AND r.member_id = c.member_id AND r.operation_id = c.operation_id
 WHERE a.undone_fen <> least(a.amount_fen, coalesce(r.reversed_fen, 0))
    OR a.month <> date_trunc('month', a.occurred_at AT TIME ZONE 'Asia/Shanghai')::date;
COMMENT ON VIEW books_i45_activity_undone IS
    'Of an activity that earned, as much is undone as refunds took back of the earning; it counts in its own month.';

CREATE VIEW books_i46_tier_periods AS
SELECT m.bucket, m.member_id, m.period_no, p.no, p.periods, m.tier, p.tier AS period_tier, NULL::timestamptz AS starts_at,
       NULL::timestamptz AS previous_starts_at
  FROM membership_member AS m
  FULL JOIN (
       SELECT n.*, count(*) OVER member AS periods, row_number() OVER (member ORDER BY n.no DESC) AS place
         FROM membership_tier_period AS n
       WINDOW member AS (PARTITION BY n.bucket, n.member_id)) AS p
    ON p.bucket = m.bucket AND p.member_id = m.member_id
 WHERE coalesce(p.place, 1) = 1
   AND (m.period_no, m.period_no::bigint, m.tier, m.multiplier_pct, m.bank_level, m.shop_level, m.matrix_version, m.valid_until)
       IS DISTINCT FROM (p.no, p.periods, p.tier, p.multiplier_pct, p.bank_level, p.shop_level, p.matrix_version, p.valid_until)
UNION ALL
SELECT p.bucket, p.member_id, NULL, p.no, NULL, NULL, p.tier, p.previous_starts_at, p.found
  FROM (SELECT n.*, lag(n.starts_at) OVER (PARTITION BY n.bucket, n.member_id ORDER BY n.no) AS found
          FROM membership_tier_period AS n) AS p
 WHERE p.previous_starts_at IS DISTINCT FROM p.found OR p.starts_at < p.found;
COMMENT ON VIEW books_i46_tier_periods IS
    'A member stands where the last tier period says, and the periods follow each other without a gap.';

CREATE VIEW books_i47_tiers_judged AS
SELECT p.bucket, p.member_id, p.no, p.reason, p.previous_tier, p.tier, p.multiplier_pct, p.judged_tier, p.bank_level,
       p.shop_level, p.earned_rank
  FROM (SELECT n.*, lag(n.tier) OVER w AS previous_tier, lag(n.multiplier_pct) OVER w AS previous_pct,
               lag(n.shop_level) OVER w AS previous_shop_level,
               (SELECT coalesce(max(l.rank), 0)
                  FROM membership_scheme_level AS l
                  JOIN membership_scheme AS s ON s.version = l.version
                 WHERE l.version = n.scheme_version
                   AND CASE s.needs
                       WHEN 'all' THEN n.qualifying_fen >= coalesce(l.min_fen, 0)
                                   AND n.qualifying_count >= coalesce(l.min_count, 0)
                       ELSE n.qualifying_fen >= l.min_fen OR n.qualifying_count >= l.min_count END) AS earned_rank
          FROM membership_tier_period AS n
        WINDOW w AS (PARTITION BY n.bucket, n.member_id ORDER BY n.no)) AS p
  LEFT JOIN membership_matrix AS cell
    ON cell.version = p.matrix_version AND cell.bank_level = p.bank_level AND cell.shop_level = p.shop_level
  LEFT JOIN membership_tier AS t ON t.tier = p.tier
  LEFT JOIN membership_tier AS judged ON judged.tier = p.judged_tier
  LEFT JOIN membership_tier AS previous ON previous.tier = p.previous_tier
 WHERE p.judged_tier IS DISTINCT FROM cell.tier
    OR t.rank < judged.rank
    OR (t.rank = judged.rank AND p.multiplier_pct <> cell.multiplier_pct)
    OR NOT EXISTS (SELECT FROM membership_matrix AS m
                    WHERE m.version = p.matrix_version AND m.tier = p.tier AND m.multiplier_pct = p.multiplier_pct)
    OR CASE p.reason
       WHEN 'upgraded' THEN (t.rank, p.multiplier_pct) <= (previous.rank, p.previous_pct)
       WHEN 'renewed' THEN t.rank <> previous.rank
       WHEN 'downgraded' THEN t.rank >= previous.rank
                           OR EXISTS (SELECT FROM membership_matrix AS m JOIN membership_tier AS between_ USING (tier)
                                       WHERE m.version = p.matrix_version AND between_.rank > t.rank
                                         AND between_.rank < previous.rank)
       WHEN 'fraud' THEN (t.rank, p.multiplier_pct) >= (previous.rank, p.previous_pct)
       ELSE false END
    OR (p.reason <> 'downgraded' AND t.rank <> judged.rank)
    OR (p.no > 1 AND p.shop_level <> (ARRAY['iron', 'bronze', 'silver', 'gold'])[p.earned_rank + 1]
        AND NOT (p.reason = 'upgraded' AND p.shop_level = p.previous_shop_level));
COMMENT ON VIEW books_i47_tiers_judged IS
    'Every tier is what the matrix of its version says of the levels, or one step above on the way down; the shop level is what the activity made, or was held.';

CREATE VIEW books_i48_versions AS
SELECT v.kind, v.version, v.parts, parts.found, NULL::bigint AS member_id, NULL::int AS period_no
  FROM membership_version AS v
  LEFT JOIN (
       SELECT 'matrix' AS kind, version, count(*) AS found FROM membership_matrix GROUP BY version
        UNION ALL
       SELECT 'scheme', version, count(*) FROM membership_scheme_level GROUP BY version
        UNION ALL
       SELECT 'privileges', version, count(*) FROM membership_privilege GROUP BY version) AS parts
    ON parts.kind = v.kind AND parts.version = v.version
 WHERE coalesce(parts.found, 0) <> v.parts
UNION ALL
SELECT s.kind, s.version, NULL, NULL, NULL, NULL
  FROM membership_switch AS s
  LEFT JOIN membership_version AS v ON v.kind = s.kind AND v.version = s.version
 WHERE v.proposed_by IS DISTINCT FROM s.proposed_by OR s.switched_by = s.proposed_by
UNION ALL
SELECT used.kind, used.version, NULL, NULL, used.member_id, used.no
  FROM (SELECT 'matrix' AS kind, matrix_version AS version, judged_on, member_id, no FROM membership_tier_period
         UNION ALL
        SELECT 'scheme', scheme_version, judged_on, member_id, no FROM membership_tier_period) AS used
  LEFT JOIN (SELECT kind, version, min(effective_on) AS first_on FROM membership_switch GROUP BY kind, version) AS s
    ON s.kind = used.kind AND s.version = used.version
 WHERE s.first_on IS NULL OR s.first_on > used.judged_on;
COMMENT ON VIEW books_i48_versions IS
    'A version is as it was proposed, two people put it in force, and nobody was judged by it before.';

CREATE VIEW books_i49_rights AS
SELECT e.bucket, e.member_id, e.id, e.kind, e.quantity, e.used, e.booked, b.booked AS bookings, b.used AS used_bookings,
       e.period_on, e.privilege_version
  FROM membership_entitlement AS e
  LEFT JOIN (
       SELECT bucket, member_id, entitlement_id, sum(quantity) FILTER (WHERE state = 'booked') AS booked,
              sum(quantity) FILTER (WHERE state = 'used') AS used
         FROM membership_booking
        GROUP BY bucket, member_id, entitlement_id) AS b
    ON b.bucket = e.bucket AND b.member_id = e.member_id AND b.entitlement_id = e.id
  LEFT JOIN (
       SELECT DISTINCT version, partner_id, kind, quantity FROM membership_privilege) AS p
    ON p.version = e.privilege_version AND p.partner_id = e.partner_id AND p.kind = e.kind AND p.quantity = e.quantity
 WHERE e.booked <> coalesce(b.booked, 0)
    OR e.used < coalesce(b.used, 0)
    OR (e.period_on IS NOT NULL AND p.version IS NULL);
COMMENT ON VIEW books_i49_rights IS
    'What is booked of a right is the sum of its open bookings, and a tier gives in a period what its version says.';

GRANT SELECT ON
    books_i44_activity_months, books_i45_activity_undone, books_i46_tier_periods, books_i47_tiers_judged,
    books_i48_versions, books_i49_rights
    TO tessera_app;
