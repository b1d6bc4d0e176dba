-- Who pays for points, on what terms, in advance or afterwards, and how that reaches the funder's own settlement.

-- A funder's terms from a day on; the latest that has begun holds. Append-only: new terms are a new row.
--   bank      the funder pays nothing through the platform;
--   prepaid   points come out of blocks paid for before;
--   postpaid  points are billed as they are issued, in the batch of the day or of the month.
-- price_fen_e6 is a point's price in millionths of a fen, billing_ppm the part of it the funder pays, breakage_ppm the
-- part of the cost of points that end unused which the funder gets back.
CREATE TABLE ledger_funder_terms (
    funder_id     int         NOT NULL REFERENCES ledger_funder,
    effective_on  date        NOT NULL,
    billing       text        NOT NULL CHECK (billing IN ('bank', 'prepaid', 'postpaid')),
    price_fen_e6  bigint      NOT NULL CHECK (price_fen_e6 BETWEEN 0 AND 1000000000000),
    billing_ppm   int         NOT NULL CHECK (billing_ppm BETWEEN 0 AND 1000000),
    breakage_ppm  int         NOT NULL CHECK (breakage_ppm BETWEEN 0 AND 1000000),
    billed        text        NOT NULL CHECK (billed IN ('daily', 'monthly')),
    unit_cost_e6  bigint      NOT NULL GENERATED ALWAYS AS (
        CASE billing WHEN 'postpaid' THEN price_fen_e6 * billing_ppm / 1000000 ELSE 0 END) STORED,
    agreed_at     timestamptz NOT NULL,
    CONSTRAINT ledger_funder_terms_day PRIMARY KEY (funder_id, effective_on)
);
GRANT SELECT, INSERT ON ledger_funder_terms TO tessera_app;

-- The same as ranges of days: [effective_on, until_on).
CREATE VIEW ledger_funder_terms_range AS
SELECT t.*, lead(t.effective_on) OVER (PARTITION BY t.funder_id ORDER BY t.effective_on) AS until_on
  FROM ledger_funder_terms AS t;
GRANT SELECT ON ledger_funder_terms_range TO tessera_app;

-- Points bought in advance; the block's budget, which shares its id, says how many of them are left. A purchase
-- happens once per reference. low_water_ppm: at which parts of the block the funder is told. Append-only.
CREATE TABLE ledger_funder_block (
    id            uuid        PRIMARY KEY REFERENCES ledger_budget,
    funder_id     int         NOT NULL REFERENCES ledger_funder,
    purchase_ref  text        NOT NULL CHECK (length(purchase_ref) BETWEEN 1 AND 64),
    starts_on     date        NOT NULL,
    points        bigint      NOT NULL CHECK (points > 0),
    paid_fen      bigint      NOT NULL CHECK (paid_fen >= 0),
    low_water_ppm int[]       NOT NULL,
    bought_at     timestamptz NOT NULL,
    business_on   date        NOT NULL,
    CONSTRAINT ledger_funder_block_purchase UNIQUE (funder_id, purchase_ref)
);
-- Blocks are used in the order of their starts.
CREATE INDEX ledger_funder_block_order ON ledger_funder_block (funder_id, starts_on, id);
GRANT SELECT, INSERT ON ledger_funder_block TO tessera_app;

-- That a block's rest came down to a mark is told once. Append-only.
CREATE TABLE ledger_funder_alert (
    block_id   uuid        NOT NULL,
    low_ppm    int         NOT NULL,
    alerted_at timestamptz NOT NULL,
    PRIMARY KEY (block_id, low_ppm)
);
GRANT SELECT, INSERT ON ledger_funder_alert TO tessera_app;

-- Which block paid for the points an operation issued (the row names the operation twice), and what reversals gave
-- back to it (the row names the reversal second). Append-only.
CREATE TABLE ledger_funding_draw (
    bucket       smallint NOT NULL,
    member_id    bigint   NOT NULL,
    operation_id uuid     NOT NULL,
    funder_id    int      NOT NULL,
    block_id     uuid     NOT NULL,
    by_operation uuid     NOT NULL,
    points       bigint   NOT NULL CHECK (points > 0),
    PRIMARY KEY (bucket, member_id, operation_id, block_id, by_operation)
);
GRANT SELECT, INSERT ON ledger_funding_draw TO tessera_app;

------------------------------------------------------------------------------------------------------------------
-- Published
------------------------------------------------------------------------------------------------------------------

-- What settlement reads: every entry that changes what bank and a partner owe each other, once.
--
-- Redeeming and restoring concern the partner where it happened, at the value the points paid for. Issuing, clawing
-- back and breakage concern the partner that funds the points, wherever they were issued; without such a partner, the
-- one that issued them, at the entry's cost. So each entry has one addressee, and none learns who else funds points in
-- its shop: another's funding is shown as the bank's, which stands in between.
--
-- What a funder pays is points × the lots' unit costs, exactly: exact_fen_e6, in millionths of a fen. Settlement makes
-- whole fen of the sums; amount_fen is what the entry would come to alone. due_on is the day whose batch takes it.
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
                AND m.kind IN ('grant', 'claw', 'void', 'expire')
              GROUP BY m.bucket, m.member_id, m.point_type, m.seq) AS cost
    ON cost.bucket = e.bucket AND cost.member_id = e.member_id AND cost.point_type = e.point_type AND cost.seq = e.seq
 CROSS JOIN LATERAL (
       SELECT CASE leg.kind WHEN 'breakage_share' THEN div(coalesce(cost.fen_e6, 0) * coalesce(terms.breakage_ppm, 0), 1000000)
                            -- what is owed has no lot any more: its cost is the entry's
                            ELSE coalesce(cost.fen_e6, e.value_fen::numeric * 1000000) END AS fen_e6) AS exact
 WHERE f.partner_id IS NOT NULL
   AND (leg.kind <> 'breakage_share' OR terms.breakage_ppm > 0)
UNION ALL
SELECT f.partner_id, b.id, 'block:' || b.id, 'prepaid_bought', f.code, 0::smallint, b.points, b.paid_fen,
       b.business_on, b.bought_at, NULL::numeric, b.business_on
  FROM ledger_funder_block AS b
  JOIN ledger_funder AS f ON f.id = b.funder_id
 WHERE f.partner_id IS NOT NULL;

INSERT INTO settlement_rule (kind, funder_kind, direction, reason)
SELECT r.kind, k.funder_kind, r.direction, r.reason
  FROM (VALUES
    ('prepaid_bought', 'partner_owes_bank', 'Points were bought in advance.'),
    ('prepaid_used', 'none', 'These points came out of a block that is paid for.'),
    ('prepaid_returned', 'none', 'These points went back to the block they came from.'),
    ('breakage_share', 'bank_owes_partner', 'Points ended unused: the contract gives the funder part of their cost back.'))
    AS r (kind, direction, reason)
 CROSS JOIN (VALUES ('partner'), ('merchant'), ('fiscal')) AS k (funder_kind);

-- A line's exact amount, where it has one: its whole fen are the growth of the floor of the sum of all such lines of
-- the partner, funder and kind, so that over all batches nothing is lost but the part of a fen that is not full yet.
ALTER TABLE settlement_line ADD COLUMN exact_fen_e6 numeric CHECK (exact_fen_e6 >= 0);

-- What the lines of a batch come to exactly; the sum over a partner's batches is where the next one goes on. Append-only.
CREATE TABLE settlement_carry (
    partner_id uuid    NOT NULL,
    funder     text    NOT NULL,
    kind       text    NOT NULL,
    batch_id   uuid    NOT NULL REFERENCES settlement_batch,
    fen_e6     numeric NOT NULL CHECK (fen_e6 >= 0),
    PRIMARY KEY (partner_id, funder, kind, batch_id)
);
GRANT SELECT, INSERT ON settlement_carry TO tessera_app;

------------------------------------------------------------------------------------------------------------------
-- The books check
------------------------------------------------------------------------------------------------------------------

CREATE OR REPLACE VIEW books_settlement_source AS
SELECT 'ledger' AS source, partner_id, operation_id, entry_ref, kind, funder, points, amount_fen, business_on, recorded_at,
       exact_fen_e6, due_on
  FROM ledger_settlement_source
UNION ALL
SELECT 'credit', partner_id, operation_id, entry_ref, kind, funder, 0, amount_fen, business_on, recorded_at, NULL,
       business_on
  FROM credit_settlement_source;

CREATE OR REPLACE VIEW books_i31_line_is_its_source AS
SELECT l.batch_id, l.no, l.source, l.entry_ref, l.kind, l.amount_fen, s.amount_fen AS source_amount_fen
  FROM settlement_line AS l
  JOIN settlement_batch AS b ON b.id = l.batch_id
  LEFT JOIN books_settlement_source AS s ON s.source = l.source AND s.entry_ref = l.entry_ref
 WHERE (l.partner_id, l.operation_id, l.kind, l.funder, l.points, l.exact_fen_e6, l.business_on, l.recorded_at)
       IS DISTINCT FROM
       (s.partner_id, s.operation_id, s.kind, s.funder, s.points, s.exact_fen_e6, s.business_on, s.recorded_at)
    OR l.exact_fen_e6 IS NULL AND l.amount_fen <> s.amount_fen
    OR s.due_on > b.business_on;

CREATE OR REPLACE VIEW books_i32_nothing_left_out AS
SELECT s.source, s.partner_id, s.entry_ref, s.kind, s.amount_fen, s.business_on, s.recorded_at, b.closed_at
  FROM books_settlement_source AS s
  JOIN LATERAL (SELECT max(closed_at) AS closed_at
                  FROM settlement_batch
                 WHERE partner_id = s.partner_id AND business_on >= s.due_on) AS b
    ON s.recorded_at < b.closed_at - interval '5 minutes'
 WHERE NOT EXISTS (SELECT FROM settlement_line AS l WHERE l.source = s.source AND l.entry_ref = s.entry_ref);

CREATE VIEW books_i51_block_is_its_draws AS
SELECT b.id, b.funder_id, b.points, budget.total, coalesce(slot.used, 0) AS used, coalesce(drawn.points, 0) AS drawn
  FROM ledger_funder_block AS b
  FULL JOIN (SELECT * FROM ledger_budget WHERE kind = 'prepaid') AS budget ON budget.id = b.id
  LEFT JOIN (SELECT budget_id, sum(used) AS used FROM ledger_budget_slot GROUP BY budget_id) AS slot
    ON slot.budget_id = coalesce(b.id, budget.id)
  LEFT JOIN (SELECT block_id, sum(CASE WHEN by_operation = operation_id THEN points ELSE -points END) AS points
               FROM ledger_funding_draw
              GROUP BY block_id) AS drawn ON drawn.block_id = coalesce(b.id, budget.id)
 WHERE b.points IS DISTINCT FROM budget.total
    OR coalesce(slot.used, 0) <> coalesce(drawn.points, 0)
    OR coalesce(drawn.points, 0) NOT BETWEEN 0 AND b.points;
COMMENT ON VIEW books_i51_block_is_its_draws IS
    'What is used of a funder''s block is what operations drew on it less what reversals gave back: never below zero, never more than was bought.';

CREATE VIEW books_i52_prepaid_points_are_drawn AS
SELECT coalesce(issued.operation_id, drawn.operation_id) AS operation_id,
       coalesce(issued.funder_id, drawn.funder_id) AS funder_id, issued.points, drawn.points AS drawn
  FROM (SELECT e.bucket, e.member_id, e.operation_id, e.funder_id, sum(e.points) AS points,
               coalesce(bool_or(t.billing = 'prepaid'), false) AS prepaid
          FROM ledger_entry AS e
          JOIN ledger_operation AS o ON o.bucket = e.bucket AND o.member_id = e.member_id AND o.id = e.operation_id
          LEFT JOIN ledger_funder_terms_range AS t
            ON t.funder_id = e.funder_id AND t.effective_on <= e.business_on
           AND (t.until_on IS NULL OR e.business_on < t.until_on)
         WHERE e.debit_account = 10 AND o.kind = 'earn'
         GROUP BY e.bucket, e.member_id, e.operation_id, e.funder_id) AS issued
  FULL JOIN (SELECT d.bucket, d.member_id, d.operation_id, d.funder_id, sum(d.points) AS points
               FROM ledger_funding_draw AS d
              WHERE d.by_operation = d.operation_id
              GROUP BY d.bucket, d.member_id, d.operation_id, d.funder_id) AS drawn
    ON drawn.bucket = issued.bucket AND drawn.member_id = issued.member_id
   AND drawn.operation_id = issued.operation_id AND drawn.funder_id = issued.funder_id
 WHERE issued.points IS DISTINCT FROM drawn.points AND (drawn.points IS NOT NULL OR issued.prepaid);
COMMENT ON VIEW books_i52_prepaid_points_are_drawn IS
    'Every point a prepaid funder issues is drawn on one of its blocks, and nothing else is.';

CREATE VIEW books_i53_block_gets_its_own_back AS
SELECT d.operation_id, d.block_id, d.funder_id, d.points AS drawn, r.points AS returned
  FROM (SELECT bucket, member_id, operation_id, block_id, funder_id, sum(points) AS points
          FROM ledger_funding_draw WHERE by_operation <> operation_id
         GROUP BY bucket, member_id, operation_id, block_id, funder_id) AS r
  LEFT JOIN ledger_funding_draw AS d
    ON d.bucket = r.bucket AND d.member_id = r.member_id AND d.operation_id = r.operation_id
   AND d.block_id = r.block_id AND d.by_operation = d.operation_id
 WHERE r.points > coalesce(d.points, 0)
UNION ALL
SELECT r.by_operation, NULL, r.funder_id, coalesce(e.points, 0), r.points
  FROM (SELECT bucket, member_id, by_operation, funder_id, sum(points) AS points
          FROM ledger_funding_draw WHERE by_operation <> operation_id
         GROUP BY bucket, member_id, by_operation, funder_id) AS r
  LEFT JOIN (SELECT bucket, member_id, operation_id, funder_id, sum(points) AS points
               FROM ledger_entry WHERE credit_account = 10
              GROUP BY bucket, member_id, operation_id, funder_id) AS e
    ON e.bucket = r.bucket AND e.member_id = r.member_id AND e.operation_id = r.by_operation
   AND e.funder_id = r.funder_id
 WHERE r.points > coalesce(e.points, 0);
COMMENT ON VIEW books_i53_block_gets_its_own_back IS
    'A block gets back no more than an operation drew on it, and no more than the reversal took from the member.';

CREATE VIEW books_i54_funded_entry_is_billed AS
SELECT f.code, e.operation_id, e.seq, e.points, e.business_on, l.partner_id AS billed_to
  FROM ledger_entry AS e
  JOIN ledger_funder AS f ON f.id = e.funder_id
  JOIN ledger_operation AS o ON o.bucket = e.bucket AND o.member_id = e.member_id AND o.id = e.operation_id
  LEFT JOIN ledger_funder_terms_range AS t
    ON t.funder_id = e.funder_id AND t.effective_on <= e.business_on
   AND (t.until_on IS NULL OR e.business_on < t.until_on)
  LEFT JOIN settlement_line AS l ON l.source = 'ledger' AND l.entry_ref = e.operation_id::text || ':' || e.seq
  -- days are closed in order: the last batch has taken what was due by then
  LEFT JOIN (SELECT DISTINCT ON (partner_id) partner_id, business_on, closed_at
               FROM settlement_batch
              ORDER BY partner_id, business_on DESC, sequence DESC) AS last
    ON last.partner_id = f.partner_id
   AND last.business_on >= CASE WHEN t.billed = 'monthly'
                                THEN (date_trunc('month', e.business_on::timestamp) + interval '1 month - 1 day')::date
                                ELSE e.business_on END
 WHERE f.partner_id IS NOT NULL
   AND (e.debit_account = 10 AND o.kind = 'earn' OR e.credit_account = 10 AND o.kind = 'reverse_earn')
   AND (l.partner_id <> f.partner_id OR l.partner_id IS NULL AND e.recorded_at < last.closed_at - interval '5 minutes');
COMMENT ON VIEW books_i54_funded_entry_is_billed IS
    'Points a partner funds are billed to that partner and nobody else, and those of a closed period are billed.';

CREATE VIEW books_i55_funder_pays_to_the_fen AS
SELECT coalesce(l.partner_id, c.partner_id) AS partner_id, coalesce(l.funder, c.funder) AS funder,
       coalesce(l.kind, c.kind) AS kind, l.amount_fen, l.fen_e6, c.fen_e6 AS carried_e6
  FROM (SELECT partner_id, funder, kind, sum(amount_fen) AS amount_fen, sum(exact_fen_e6) AS fen_e6
          FROM settlement_line WHERE exact_fen_e6 IS NOT NULL
         GROUP BY partner_id, funder, kind) AS l
  FULL JOIN (SELECT partner_id, funder, kind, sum(fen_e6) AS fen_e6
               FROM settlement_carry
              GROUP BY partner_id, funder, kind) AS c
    ON c.partner_id = l.partner_id AND c.funder = l.funder AND c.kind = l.kind
 WHERE l.fen_e6 IS DISTINCT FROM c.fen_e6 OR l.amount_fen <> div(l.fen_e6, 1000000);
COMMENT ON VIEW books_i55_funder_pays_to_the_fen IS
    'All lines of a funder and kind together are the whole fen of what they come to exactly.';

CREATE VIEW books_i56_nobody_sees_anothers_funder AS
SELECT l.batch_id, l.no, l.partner_id, l.funder, f.partner_id AS funders_partner_id
  FROM settlement_line AS l
  JOIN ledger_funder AS f ON f.code = l.funder
 WHERE l.source = 'ledger' AND f.partner_id <> l.partner_id;
COMMENT ON VIEW books_i56_nobody_sees_anothers_funder IS
    'A partner''s settlement names no funder that is another partner.';

GRANT SELECT ON
    books_i51_block_is_its_draws, books_i52_prepaid_points_are_drawn, books_i53_block_gets_its_own_back,
    books_i54_funded_entry_is_billed, books_i55_funder_pays_to_the_fen, books_i56_nobody_sees_anothers_funder
    TO tessera_app;
