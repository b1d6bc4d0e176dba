-- A refund credits a funder with what the refunded earning cost it; and points of campaigns may go wherever points go.

-- What settlement reads: every entry that changes what bank and a partner owe each other, once.
--
-- Redeeming and restoring concern the partner where it happened, at the value the points paid for. Issuing, clawing
-- back and breakage concern the partner that funds the points, wherever they were issued; without such a partner, the
-- one that issued them, at the entry's cost. So each entry has one addressee, and none learns who else funds points in
-- its shop: another's funding is shown as the bank's, which stands in between.
--
-- What a funder pays is points × the lots' unit costs, exactly: exact_fen_e6, in millionths of a fen. A refund credits
-- what the earning cost, in proportion, whichever lots the points were taken from: after the refund of everything all
-- of it, and never more. Settlement makes whole fen of the sums; amount_fen is what the entry would come to alone.
-- due_on is the day whose batch takes it.
CREATE OR REPLACE VIEW ledger_settlement_source AS
SELECT o.partner_id, o.id AS operation_id, o.id::text || ':' || e.seq AS entry_ref, leg.kind,
       CASE WHEN f.partner_id <> o.partner_id THEN 'bank' ELSE f.code END AS funder,
       o.bucket, e.points,
       CASE WHEN leg.at_cost THEN e.value_fen ELSE div(e.points::numeric * t.value_fen_e6, 1000000)::bigint END
           AS amount_fen,
       e.business_on, e.recorded_at, NULL::numeric AS exact_fen_e6, e.business_on AS due_on
  FROM ledger_operation AS o
  JOIN ledger_entry AS e ON e.bucket = o.bucket AND e.member_id = o.member_id AND e.operation_id = o.id
  JOIN (VALUES ('earn', 10, NULL, 'points_issued', true),
               ('reverse_earn', NULL, 10, 'points_clawed_back', true),
               ('capture', NULL, 11, 'points_redeemed', false),
               ('spend', NULL, 11, 'points_redeemed', false),
               ('reverse_spend', 11, NULL, 'points_restored', false))
       AS leg (operation_kind, debit_account, credit_account, kind, at_cost)
    ON leg.operation_kind = o.kind
   AND (leg.debit_account = e.debit_account OR leg.credit_account = e.credit_account)
  JOIN ledger_funder AS f ON f.id = e.funder_id
  JOIN ledger_point_type AS t ON t.code = e.point_type
 WHERE NOT leg.at_cost OR f.partner_id IS NULL
UNION ALL
SELECT f.partner_id, o.id, o.id::text || ':' || e.seq,
       CASE WHEN prepaid.funder_id IS NULL THEN leg.kind ELSE leg.prepaid_kind END,
       f.code, o.bucket, e.points, div(exact.fen_e6, 1000000)::bigint, e.business_on, e.recorded_at, exact.fen_e6,
       CASE WHEN terms.billed = 'monthly'
            THEN (date_trunc('month', e.business_on::timestamp) + interval '1 month - 1 day')::date
            ELSE e.business_on END
  FROM ledger_funder AS f
  JOIN ledger_entry AS e ON e.funder_id = f.id
  JOIN ledger_operation AS o ON o.bucket = e.bucket AND o.member_id = e.member_id AND o.id = e.operation_id
  JOIN (VALUES ('earn', 10, NULL, 'points_issued', 'prepaid_used'),
               ('reverse_earn', NULL, 10, 'points_clawed_back', 'prepaid_returned'),
               ('expire', NULL, 12, 'breakage_share', 'breakage_share'))
       AS leg (operation_kind, debit_account, credit_account, kind, prepaid_kind)
    ON leg.operation_kind = o.kind
   AND (leg.debit_account = e.debit_account OR leg.credit_account = e.credit_account)
  LEFT JOIN ledger_funder_terms_range AS terms
    ON terms.funder_id = e.funder_id AND terms.effective_on <= e.business_on
   AND (terms.until_on IS NULL OR e.business_on < terms.until_on)
  LEFT JOIN (SELECT DISTINCT bucket, member_id, operation_id, funder_id FROM ledger_funding_draw) AS prepaid
    ON prepaid.bucket = o.bucket AND prepaid.member_id = o.member_id AND prepaid.funder_id = e.funder_id
   AND prepaid.operation_id = coalesce(o.reverses, o.id)
  LEFT JOIN (SELECT m.bucket, m.member_id, m.point_type, m.seq, sum(m.points::numeric * l.unit_cost_e6) AS fen_e6
               FROM ledger_lot AS l
               JOIN ledger_lot_move AS m USING (bucket, member_id, point_type, lot_seq)
              WHERE l.funder_id IN (SELECT id FROM ledger_funder WHERE partner_id IS NOT NULL)
                AND m.kind IN ('grant', 'expire')
              GROUP BY m.bucket, m.member_id, m.point_type, m.seq) AS cost
    ON cost.bucket = e.bucket AND cost.member_id = e.member_id AND cost.point_type = e.point_type AND cost.seq = e.seq
  LEFT JOIN (SELECT bucket, member_id, operation_id, funder_id, sum(points) AS points,
                    sum(points::numeric * unit_cost_e6) AS fen_e6
               FROM ledger_lot
              WHERE funder_id IN (SELECT id FROM ledger_funder WHERE partner_id IS NOT NULL)
              GROUP BY bucket, member_id, operation_id, funder_id) AS issued
    ON issued.bucket = o.bucket AND issued.member_id = o.member_id AND issued.operation_id = o.reverses
   AND issued.funder_id = e.funder_id
  LEFT JOIN (SELECT c.bucket, c.member_id, c.point_type, c.seq,
                    sum(c.points) OVER (PARTITION BY c.bucket, c.member_id, r.reverses, c.funder_id
                                        ORDER BY c.seq) AS points
               FROM ledger_operation AS r
               JOIN ledger_entry AS c ON c.bucket = r.bucket AND c.member_id = r.member_id AND c.operation_id = r.id
              WHERE r.kind = 'reverse_earn' AND c.credit_account = 10
                AND c.funder_id IN (SELECT id FROM ledger_funder WHERE partner_id IS NOT NULL)) AS upto
    ON upto.bucket = e.bucket AND upto.member_id = e.member_id AND upto.point_type = e.point_type AND upto.seq = e.seq
 CROSS JOIN LATERAL (
       SELECT CASE leg.operation_kind
              WHEN 'expire' THEN div(coalesce(cost.fen_e6, 0) * coalesce(terms.breakage_ppm, 0), 1000000)
              WHEN 'reverse_earn' THEN div(issued.fen_e6 * upto.points, issued.points)
                                       - div(issued.fen_e6 * (upto.points - e.points), issued.points)
              ELSE cost.fen_e6 END AS fen_e6) AS exact
 WHERE f.partner_id IS NOT NULL
   AND (leg.kind <> 'breakage_share' OR terms.breakage_ppm > 0)
UNION ALL
SELECT f.partner_id, b.id, 'block:' || b.id, 'prepaid_bought', f.code, 0::smallint, b.points, b.paid_fen,
       b.business_on, b.bought_at, NULL::numeric, b.business_on
  FROM ledger_funder_block AS b
  JOIN ledger_funder AS f ON f.id = b.funder_id
 WHERE f.partner_id IS NOT NULL;

-- A campaign's points go on as lots of transfers, exchanges and restored spends: what the campaign gave is what its
-- earnings granted.
CREATE OR REPLACE VIEW books_i58_campaign_lots AS
SELECT coalesce(c.bucket, l.bucket) AS bucket, coalesce(c.member_id, l.member_id) AS member_id,
       coalesce(c.operation_id, l.operation_id) AS operation_id, coalesce(c.campaign, l.campaign) AS campaign,
       c.points, l.points AS lots_points, l.strangers
  FROM (SELECT * FROM books_earning_component WHERE points > 0) AS c
  FULL JOIN (
       SELECT lot.bucket, lot.member_id, lot.operation_id, lot.campaign, sum(lot.points) AS points,
              count(*) FILTER (WHERE share.campaign_id IS NULL) AS strangers,
              count(*) FILTER (WHERE abs(lot.points * 1000000 - lot.total * share.share_ppm) >= 1000000) AS uneven
         FROM (SELECT n.bucket, n.member_id, n.operation_id, n.campaign, n.funder_id, n.points,
                      sum(n.points) OVER (PARTITION BY n.bucket, n.member_id, n.operation_id, n.campaign) AS total
                 FROM ledger_lot AS n
                 LEFT JOIN ledger_operation AS o
                   ON o.bucket = n.bucket AND o.member_id = n.member_id AND o.id = n.operation_id
                WHERE n.campaign IS NOT NULL
                  AND coalesce(o.kind, 'none') NOT IN ('transfer_in', 'exchange', 'reverse_spend')) AS lot
         LEFT JOIN earning_campaign AS campaign ON campaign.code = lot.campaign
         LEFT JOIN earning_campaign_share AS share
           ON share.campaign_id = campaign.id AND share.funder_id = lot.funder_id
        GROUP BY lot.bucket, lot.member_id, lot.operation_id, lot.campaign) AS l
    ON l.bucket = c.bucket AND l.member_id = c.member_id AND l.operation_id = c.operation_id AND l.campaign = c.campaign
 WHERE c.points IS DISTINCT FROM l.points OR l.strangers > 0 OR l.uneven > 0;
