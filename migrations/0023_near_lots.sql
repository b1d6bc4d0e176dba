-- A hold looks at as many lots as it needs: at the first few, and only where they do not suffice at more.

-- The first lots of a wallet that may pay, soonest expiry first, then oldest, no expiry last: what is free of each, what
-- all before it have free, and whether it has ended or ripened and something is to be booked first.
CREATE FUNCTION ledger_lots_in_spend_order(
    p_bucket smallint, p_member_id bigint, p_point_type smallint, p_now timestamptz, p_most bigint
) RETURNS TABLE (lot_seq bigint, funder_id int, unit_cost_e6 bigint, free bigint, due boolean, before bigint)
    LANGUAGE sql STABLE AS $$
SELECT n.lot_seq, n.funder_id, n.unit_cost_e6, n.free, n.due,
       (sum(n.free) OVER (ORDER BY n.expires_at NULLS LAST, n.lot_seq ROWS UNBOUNDED PRECEDING) - n.free)::bigint
  FROM (SELECT m.lot_seq, m.funder_id, m.unit_cost_e6, m.expires_at,
               m.remaining_points - m.held_points - m.pending_points AS free,
               coalesce(m.expires_at <= p_now, false) OR (m.pending_points > 0 AND m.activates_at <= p_now) AS due
          FROM ledger_lot AS m
         WHERE m.bucket = p_bucket AND m.member_id = p_member_id AND m.point_type = p_point_type
           AND m.live AND m.remaining_points > m.held_points
         ORDER BY m.expires_at NULLS LAST, m.lot_seq
         LIMIT p_most) AS n
$$;

CREATE OR REPLACE FUNCTION ledger_place_holds(
    p_point_type smallint, p_now timestamptz, p_business_on date, p_wallet_buckets smallint[], p_wallet_members bigint[],
    p_wallets int[], p_ids uuid[], p_partner_ids uuid[], p_points bigint[], p_order_refs text[],
    p_deadlines timestamptz[], p_managers text[],
    OUT placed boolean[], OUT free bigint[]
)
    LANGUAGE plpgsql
    SET enable_seqscan = off SET enable_bitmapscan = off SET enable_nestloop = off SET enable_mergejoin = off
    SET enable_material = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    seqs       bigint[];                        -- of the locked wallets, in order; NULL where there is none
    availables bigint[];
    helds      bigint[];
    pendings   bigint[];
    owed       bigint[];
    heads      bytea[];
BEGIN
    SELECT array_agg(w.seq), array_agg(w.available_points), array_agg(w.held_points), array_agg(w.pending_points),
           array_agg(w.arrears_points), array_agg(w.head_hash)
      INTO seqs, availables, helds, pendings, owed, heads
      FROM unnest(p_wallet_buckets, p_wallet_members) AS owner (bucket, member_id)
      LEFT JOIN LATERAL (
           SELECT w.*
             FROM ledger_wallet AS w
            WHERE w.bucket = owner.bucket AND w.member_id = owner.member_id AND w.point_type = p_point_type
              FOR UPDATE) AS w ON true;

    WITH asked AS MATERIALIZED (
        SELECT r.*, (sum(r.points) OVER (PARTITION BY r.wallet ORDER BY r.place ROWS UNBOUNDED PRECEDING))::bigint AS upto
          FROM unnest(p_wallets, p_ids, p_partner_ids, p_points, p_order_refs, p_deadlines, p_managers) WITH ORDINALITY
               AS r (wallet, id, partner_id, points, order_ref, deadline_at, manager, place)
    ), wallet AS MATERIALIZED (
        SELECT w.*, ask.points AS wanted, ask.requests
          FROM unnest(p_wallet_buckets, p_wallet_members, seqs, availables, helds, pendings, owed, heads) WITH ORDINALITY
               AS w (bucket, member_id, seq, available, held, pending, arrears, head, wallet)
          JOIN (SELECT r.wallet, max(r.upto) AS points, count(*) AS requests FROM asked AS r GROUP BY r.wallet) AS ask
            ON ask.wallet = w.wallet
    ), near AS MATERIALIZED (
        -- The first few lots pay for most holds; a wallet may have very many.
        SELECT w.wallet, l.*
          FROM wallet AS w
         CROSS JOIN LATERAL ledger_lots_in_spend_order(w.bucket, w.member_id, p_point_type, p_now, 4) AS l
    ), far AS MATERIALIZED (
        SELECT w.wallet, w.bucket, w.member_id
          FROM wallet AS w
          JOIN (SELECT n.wallet, sum(n.free) AS free, count(*) AS lots FROM near AS n GROUP BY n.wallet) AS seen
            ON seen.wallet = w.wallet AND seen.lots = 4 AND (seen.free < w.wanted OR w.pending > 0)
    ), lot AS MATERIALIZED (
        SELECT n.* FROM near AS n WHERE NOT EXISTS (SELECT FROM far AS f WHERE f.wallet = n.wallet)
         UNION ALL
        SELECT f.wallet, l.*
          FROM far AS f
         CROSS JOIN LATERAL ledger_lots_in_spend_order(f.bucket, f.member_id, p_point_type, p_now, 32) AS l
    ), judged AS MATERIALIZED (
        -- Of each wallet: everything asked for is there, or nothing of the one thing asked for, or it is not for us.
        SELECT w.wallet, coalesce(l.free, 0) AS free,
               CASE WHEN l.due OR w.arrears > 0 OR (l.lots >= 32 AND w.pending > 0) THEN NULL
                    WHEN l.free >= w.wanted THEN true
                    WHEN w.requests = 1 AND coalesce(l.lots, 0) < 32 THEN false END AS grantable
          FROM wallet AS w
          LEFT JOIN (SELECT n.wallet, sum(n.free)::bigint AS free, count(*) AS lots, bool_or(n.due) AS due
                       FROM lot AS n
                      GROUP BY n.wallet) AS l ON l.wallet = w.wallet
    ), granted AS MATERIALIZED (
        SELECT r.*, w.bucket, w.member_id
          FROM asked AS r
          JOIN wallet AS w ON w.wallet = r.wallet
          JOIN judged AS j ON j.wallet = r.wallet AND j.grantable
    ), taken AS MATERIALIZED (
        SELECT r.place, r.wallet, r.bucket, r.member_id, r.id, l.lot_seq, l.funder_id, l.unit_cost_e6,
               least(r.upto, l.before + l.free) - greatest(r.upto - r.points, l.before) AS points
          FROM granted AS r
          JOIN lot AS l ON l.wallet = r.wallet AND l.free > 0
                       AND l.before < r.upto AND l.before + l.free > r.upto - r.points
    ), numbered AS MATERIALIZED (
        -- One entry for each hold and funder.
        SELECT t.*, w.head, w.pending, w.arrears, w.seq + row_number() OVER line AS seq,
               w.available - (sum(t.points) OVER line)::bigint AS available,
               w.held + (sum(t.points) OVER line)::bigint AS held
          FROM (SELECT n.place, n.wallet, n.bucket, n.member_id, n.id, n.funder_id, sum(n.points)::bigint AS points,
                       div(sum(n.points::numeric * n.unit_cost_e6), 1000000)::bigint AS value_fen
                  FROM taken AS n
                 GROUP BY n.place, n.wallet, n.bucket, n.member_id, n.id, n.funder_id) AS t
          JOIN wallet AS w ON w.wallet = t.wallet
        WINDOW line AS (PARTITION BY t.wallet ORDER BY t.place, t.funder_id ROWS UNBOUNDED PRECEDING)
    ), entry AS MATERIALIZED (
        SELECT n.*,
               ledger_form_chain(n.head, ledger_entry_form(
                   n.bucket, n.member_id, p_point_type, n.seq, n.id, 1::smallint, 2::smallint, n.points, n.funder_id,
                   n.value_fen, n.available, n.held, n.pending, n.arrears, p_now, p_business_on)) OVER chain AS hash,
               lead(n.seq) OVER chain IS NULL AS is_last
          FROM numbered AS n
        WINDOW chain AS (PARTITION BY n.wallet ORDER BY n.seq ROWS UNBOUNDED PRECEDING)
    ), operation AS (
        INSERT INTO ledger_operation (
            bucket, member_id, id, kind, partner_id, hold_id, source_ref, amount_fen, points, occurred_at, recorded_at,
            business_on, manager, point_type)
        SELECT r.bucket, r.member_id, r.id, 'hold', r.partner_id, r.id, r.order_ref, 0, r.points, p_now, p_now,
               p_business_on, r.manager, p_point_type
          FROM granted AS r
    ), hold AS (
        INSERT INTO ledger_hold (
            bucket, member_id, id, point_type, partner_id, order_ref, points, deadline_at, opened_at, manager)
        SELECT r.bucket, r.member_id, r.id, p_point_type, r.partner_id, r.order_ref, r.points, r.deadline_at, p_now,
               r.manager
          FROM granted AS r
    ), pinned AS (
        INSERT INTO ledger_hold_lot (bucket, member_id, hold_id, lot_seq, points)
        SELECT t.bucket, t.member_id, t.id, t.lot_seq, t.points FROM taken AS t
    ), booked AS (
        INSERT INTO ledger_entry (
            bucket, member_id, point_type, seq, operation_id, debit_account, credit_account, points, funder_id,
            value_fen, available_after, held_after, pending_after, arrears_after, recorded_at, business_on, hash)
        SELECT e.bucket, e.member_id, p_point_type, e.seq, e.id, 1, 2, e.points, e.funder_id, e.value_fen, e.available,
               e.held, e.pending, e.arrears, p_now, p_business_on, e.hash
          FROM entry AS e
    ), change AS (
        INSERT INTO ledger_lot_change (bucket, member_id, point_type, seq, lot_seq, kind, points)
        SELECT t.bucket, t.member_id, p_point_type, e.seq, t.lot_seq, 'hold', t.points
          FROM taken AS t
          JOIN entry AS e ON e.place = t.place AND e.funder_id = t.funder_id
    ), lots AS (
        UPDATE ledger_lot AS l
           SET held_points = l.held_points + t.points
          FROM (SELECT n.bucket, n.member_id, n.lot_seq, sum(n.points)::bigint AS points
                  FROM taken AS n
                 GROUP BY n.bucket, n.member_id, n.lot_seq) AS t
         WHERE l.bucket = ANY (ARRAY[t.bucket]) AND l.member_id = ANY (ARRAY[t.member_id])
           AND l.point_type = ANY (ARRAY[CASE WHEN t.points > 0 THEN p_point_type END])
           AND l.lot_seq = ANY (ARRAY[t.lot_seq])
    ), wallets AS (
        UPDATE ledger_wallet AS w
           SET seq = e.seq, head_hash = e.hash, available_points = e.available, held_points = e.held
          FROM entry AS e
         WHERE e.is_last AND w.bucket = ANY (ARRAY[e.bucket]) AND w.member_id = ANY (ARRAY[e.member_id])
           AND w.point_type = ANY (ARRAY[CASE WHEN e.is_last THEN p_point_type END])
    )
    SELECT array_agg(j.grantable ORDER BY r.place), array_agg(j.free ORDER BY r.place)
      INTO placed, free
      FROM asked AS r
      JOIN judged AS j ON j.wallet = r.wallet;
END $$;
