-- The ledger written faster: columns of plain values instead of arrays of rows, sets instead of loops, and fewer rows.
--
-- What a row can tell is not written twice. The grant of a lot is the lot itself, and the claim on a source is a unique
-- index on the operations. `ledger_lot_move` and `ledger_source_claim` stay what they were to readers, as views.

------------------------------------------------------------------------------------------------------------------
-- The claim on a source is the earning itself
------------------------------------------------------------------------------------------------------------------

DROP VIEW books_i16_source_claims;
CREATE UNIQUE INDEX ledger_operation_source
    ON ledger_operation (bucket, member_id, partner_id, source_kind, source_ref) WHERE kind = 'earn';
ALTER TABLE ledger_operation ADD CONSTRAINT ledger_operation_has_source
    CHECK (kind <> 'earn' OR (source_kind IS NOT NULL AND source_ref IS NOT NULL));
DO $$
BEGIN
    IF EXISTS (SELECT FROM ledger_source_claim AS c
                 LEFT JOIN ledger_operation AS o
                   ON o.bucket = c.bucket AND o.member_id = c.member_id AND o.id = c.operation_id AND o.kind = 'earn'
                  AND o.partner_id = c.partner_id AND o.source_kind = c.kind AND o.source_ref = c.source_ref
                WHERE o.id IS NULL) THEN
        RAISE EXCEPTION 'a source is claimed by no earning: run `tessera books check`';
    END IF;
END $$;
ALTER TABLE ledger_source_claim RENAME TO ledger_source_claim_before;
CREATE VIEW ledger_source_claim AS
SELECT bucket, member_id, partner_id, source_kind AS kind, source_ref, id AS operation_id
  FROM ledger_operation
 WHERE kind = 'earn';
GRANT SELECT ON ledger_source_claim TO tessera_app;

CREATE VIEW books_i16_source_claims AS
SELECT bucket, member_id, partner_id, source_kind, source_ref, count(*) AS earnings
  FROM ledger_operation
 WHERE kind = 'earn'
 GROUP BY bucket, member_id, partner_id, source_kind, source_ref
HAVING count(*) > 1 OR partner_id IS NULL OR source_kind IS NULL OR source_ref IS NULL;
COMMENT ON VIEW books_i16_source_claims IS 'Every earning names its source, and no source has two.';
GRANT SELECT ON books_i16_source_claims TO tessera_app;

------------------------------------------------------------------------------------------------------------------
-- A lot is its own grant
------------------------------------------------------------------------------------------------------------------

ALTER TABLE ledger_lot_move RENAME TO ledger_lot_change;
ALTER INDEX ledger_lot_move_pkey RENAME TO ledger_lot_change_pkey;
DELETE FROM ledger_lot_change AS m
 USING ledger_lot AS lot
 WHERE m.kind = 'grant' AND m.seq = m.lot_seq
   AND lot.bucket = m.bucket AND lot.member_id = m.member_id AND lot.point_type = m.point_type
   AND lot.lot_seq = m.lot_seq AND lot.points = m.points;
ALTER TABLE ledger_lot_change ADD CONSTRAINT ledger_lot_change_is_no_grant CHECK (kind <> 'grant');
CREATE VIEW ledger_lot_move AS
SELECT bucket, member_id, point_type, seq, lot_seq, kind, points FROM ledger_lot_change
UNION ALL
SELECT bucket, member_id, point_type, lot_seq, lot_seq, 'grant', points FROM ledger_lot;
GRANT SELECT ON ledger_lot_move TO tessera_app;

-- Whoever read the tables reads the views.
DO $$
DECLARE
    reader record;
BEGIN
    FOR reader IN
        SELECT DISTINCT was.relname AS table_name, now.relname AS view_name, r.ev_class::regclass AS name,
               pg_get_viewdef(r.ev_class) AS definition
          FROM (VALUES ('ledger_lot_change', 'ledger_lot_move'), ('ledger_source_claim_before', 'ledger_source_claim'))
               AS renamed (table_name, view_name)
          JOIN pg_class AS was ON was.oid = renamed.table_name::regclass
          JOIN pg_class AS now ON now.oid = renamed.view_name::regclass
          JOIN pg_depend AS d ON d.classid = 'pg_rewrite'::regclass AND d.refobjid = was.oid
          JOIN pg_rewrite AS r ON r.oid = d.objid AND r.ev_class <> now.oid
    LOOP
        EXECUTE format('CREATE OR REPLACE VIEW %s AS %s', reader.name,
                       replace(reader.definition, reader.table_name, reader.view_name));
    END LOOP;
END $$;
DROP TABLE ledger_source_claim_before;

-- Spent or not changes once in a lot's life; what is left of it, with every spend. An index that asks for the first is
-- left alone by the second.
ALTER TABLE ledger_lot ADD COLUMN live boolean NOT NULL GENERATED ALWAYS AS (remaining_points > 0) STORED;
DROP INDEX ledger_lot_spend_order;
CREATE INDEX ledger_lot_spend_order
    ON ledger_lot (bucket, member_id, point_type, expires_at NULLS LAST, lot_seq) WHERE live;

-- What the jobs book is found by its instant in UTC, and only by that: so no plan for one wallet goes through everything
-- that is due in all wallets, which is much on the first of a month.
DROP INDEX ledger_lot_due;
CREATE INDEX ledger_lot_due ON ledger_lot ((expires_at AT TIME ZONE 'UTC')) WHERE live;
DROP INDEX ledger_lot_pending;
CREATE INDEX ledger_lot_pending ON ledger_lot ((activates_at AT TIME ZONE 'UTC')) WHERE pending_points > 0;

------------------------------------------------------------------------------------------------------------------
-- The chain
------------------------------------------------------------------------------------------------------------------

-- The canonical form of an entry, as ledger_entry_hash has it, of its plain fields: a row made for each entry costs more
-- than the hash.
CREATE FUNCTION ledger_entry_form(
    bucket smallint, member_id bigint, point_type smallint, seq bigint, operation_id uuid, debit_account smallint,
    credit_account smallint, points bigint, funder_id int, value_fen bigint, available_after bigint,
    held_after bigint, pending_after bigint, arrears_after bigint, recorded_at timestamptz, business_on date
) RETURNS bytea
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN int2send(bucket) || int8send(member_id) || int2send(point_type) || int8send(seq)
        || uuid_send(operation_id) || int2send(debit_account) || int2send(credit_account)
        || int8send(points) || int4send(funder_id) || int8send(value_fen)
        || int8send(available_after) || int8send(held_after)
        || int8send(pending_after) || int8send(arrears_after)
        || timestamptz_send(recorded_at) || date_send(business_on);

-- Chains the forms of a window, beginning after `head`.
CREATE FUNCTION ledger_form_link(link bytea, head bytea, form bytea) RETURNS bytea
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    RETURN sha256(coalesce(link, head) || form);
END $$;
CREATE AGGREGATE ledger_form_chain(head bytea, form bytea) (SFUNC = ledger_form_link, STYPE = bytea);

-- What points cost their funder, rounded down.
CREATE FUNCTION ledger_cost_fen(points bigint, unit_cost_e6 bigint) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN points <= 1000000000 AND unit_cost_e6 <= 1000000000 THEN points * unit_cost_e6 / 1000000
                ELSE div(points::numeric * unit_cost_e6, 1000000)::bigint END;

------------------------------------------------------------------------------------------------------------------
-- Writing
------------------------------------------------------------------------------------------------------------------

-- In the functions below some columns are compared as `= ANY (ARRAY[…])`: as a key it does the same, but no plan can
-- join by it. So nothing is left but one lookup by key per row, in the order of the rows, whatever the statistics say. The
-- point type too is made a value of the row: a constant looks selective on a table that is empty when the plan is made, and
-- the plan would walk the whole index for each batch from then on.

-- Adds to the house's accounts, each slot once and in the one order in which everybody locks them: by bucket, issued
-- points after all others (see ledger_write). Most slots are there already; before the first of a day is inserted,
-- nothing may be locked.
CREATE FUNCTION ledger_add_to_slots(
    p_buckets smallint[], p_accounts smallint[], p_funders int[], p_point_types smallint[], p_days date[],
    p_debits bigint[], p_credits bigint[]
) RETURNS void
    LANGUAGE plpgsql
    SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
    SET enable_material = off SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    IF EXISTS (
        SELECT FROM unnest(p_buckets, p_accounts, p_funders, p_point_types, p_days)
                    AS side (bucket, account, funder_id, point_type, business_on)
          LEFT JOIN LATERAL (
               SELECT true AS found FROM ledger_house_slot AS slot
                WHERE slot.bucket = side.bucket AND slot.account = side.account
                  AND slot.funder_id = side.funder_id AND slot.point_type = side.point_type
                  AND slot.business_on = side.business_on
               OFFSET 0) AS slot ON true
         WHERE slot.found IS NULL) THEN
        INSERT INTO ledger_house_slot AS slot (
            bucket, account, funder_id, point_type, business_on, debit_points, credit_points)
        SELECT side.bucket, side.account, side.funder_id, side.point_type, side.business_on, side.debit,
               side.credit
          FROM unnest(p_buckets, p_accounts, p_funders, p_point_types, p_days, p_debits, p_credits)
               AS side (bucket, account, funder_id, point_type, business_on, debit, credit)
         ORDER BY 1, 2 DESC, 3, 4, 5
            ON CONFLICT (bucket, account, funder_id, point_type, business_on) DO UPDATE
           SET debit_points = slot.debit_points + excluded.debit_points,
               credit_points = slot.credit_points + excluded.credit_points;
    ELSE
        UPDATE ledger_house_slot AS slot
           SET debit_points = slot.debit_points + side.debit, credit_points = slot.credit_points + side.credit
          FROM (SELECT * FROM unnest(p_buckets, p_accounts, p_funders, p_point_types, p_days, p_debits, p_credits)
                              AS side (bucket, account, funder_id, point_type, business_on, debit, credit)
                 ORDER BY 1, 2 DESC, 3, 4, 5) AS side
         WHERE slot.bucket = ANY (ARRAY[side.bucket]) AND slot.account = side.account
           AND slot.funder_id = side.funder_id AND slot.point_type = side.point_type
           AND slot.business_on = side.business_on;
    END IF;
END $$;

-- Writes what was decided under the wallets' locks, of any kind. Entries come with the wallet's next numbers and balances
-- and are chained here. Everything else follows from them: lots from moves, wallets from their last entries, house slots
-- from the entries' house sides. Slots are shared between members, so they are locked last, and in one order: by bucket,
-- issued points after all others, because who writes twice in a transaction (a plan is captured or refunded: points
-- spent or restored, then points earned or clawed back) comes to them last.
--
-- Whatever the tables' statistics say, every access here is by key: the settings keep a plan made on empty tables
-- from scanning full ones, and spare a single posting the planning.
DROP FUNCTION ledger_write;
CREATE FUNCTION ledger_write(
    p_operations ledger_operation[], p_entries ledger_entry[], p_lots ledger_lot[], p_moves ledger_lot_move[]
) RETURNS void
    LANGUAGE plpgsql
    SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
    SET enable_material = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    buckets  smallint[];
    accounts smallint[];
    funders  int[];
    types    smallint[];
    days     date[];
    debits   bigint[];
    credits  bigint[];
BEGIN
    INSERT INTO ledger_operation SELECT * FROM unnest(p_operations);
    INSERT INTO ledger_lot (
        bucket, member_id, point_type, lot_seq, id, operation_id, parent_lot_seq, funder_id, unit_cost_e6, campaign,
        rule_version, effective_at, activates_at, expires_at, points, remaining_points, held_points, pending_points)
    SELECT l.bucket, l.member_id, l.point_type, l.lot_seq, l.id, l.operation_id, l.parent_lot_seq, l.funder_id,
           l.unit_cost_e6, l.campaign, l.rule_version, l.effective_at, l.activates_at, l.expires_at, l.points,
           l.remaining_points, l.held_points, l.pending_points
      FROM unnest(p_lots) AS l;
    INSERT INTO ledger_lot_change SELECT m.* FROM unnest(p_moves) AS m WHERE m.kind <> 'grant';

    UPDATE ledger_lot AS lot
       SET remaining_points = lot.remaining_points + moved.remaining,
           held_points = lot.held_points + moved.held,
           pending_points = lot.pending_points + moved.pending
      FROM (SELECT m.bucket, m.member_id, m.point_type, m.lot_seq,
                   sum(m.points * ledger_move_remaining(m.kind)) AS remaining,
                   sum(m.points * ledger_move_held(m.kind)) AS held,
                   sum(m.points * ledger_move_pending(m.kind)) AS pending
              FROM unnest(p_moves) AS m
             WHERE m.kind <> 'grant'
             GROUP BY 1, 2, 3, 4) AS moved
     WHERE lot.bucket = ANY (ARRAY[moved.bucket]) AND lot.member_id = moved.member_id
       AND lot.point_type = moved.point_type AND lot.lot_seq = moved.lot_seq;

    WITH chained AS (
        INSERT INTO ledger_entry
        SELECT e.bucket, e.member_id, e.point_type, e.seq, e.operation_id, e.debit_account, e.credit_account,
               e.points, e.funder_id, e.value_fen,
               e.available_after, e.held_after, e.pending_after, e.arrears_after, e.recorded_at, e.business_on,
               ledger_form_chain(wallet.head_hash, ledger_entry_form(
                   e.bucket, e.member_id, e.point_type, e.seq, e.operation_id, e.debit_account, e.credit_account,
                   e.points, e.funder_id, e.value_fen, e.available_after, e.held_after, e.pending_after,
                   e.arrears_after, e.recorded_at, e.business_on))
                   OVER (PARTITION BY e.bucket, e.member_id, e.point_type ORDER BY e.seq)
          FROM unnest(p_entries) AS e
         CROSS JOIN LATERAL (
               SELECT w.head_hash FROM ledger_wallet AS w
                WHERE w.bucket = e.bucket AND w.member_id = e.member_id AND w.point_type = e.point_type
               OFFSET 0) AS wallet
        RETURNING *
    )
    UPDATE ledger_wallet AS wallet
       SET seq = last.seq, head_hash = last.hash,
           available_points = last.available_after, held_points = last.held_after,
           pending_points = last.pending_after, arrears_points = last.arrears_after
      FROM (SELECT DISTINCT ON (bucket, member_id, point_type) *
              FROM chained
             ORDER BY bucket, member_id, point_type, seq DESC) AS last
     WHERE wallet.bucket = ANY (ARRAY[last.bucket]) AND wallet.member_id = last.member_id
       AND wallet.point_type = last.point_type;

    SELECT array_agg(slot.bucket), array_agg(slot.account), array_agg(slot.funder_id), array_agg(slot.point_type),
           array_agg(slot.business_on), array_agg(slot.debit), array_agg(slot.credit)
      INTO buckets, accounts, funders, types, days, debits, credits
      FROM (SELECT side.bucket, side.account, side.funder_id, side.point_type, side.business_on,
                   sum(side.debit)::bigint AS debit, sum(side.credit)::bigint AS credit
              FROM (SELECT e.bucket, e.debit_account AS account, e.funder_id, e.point_type, e.business_on,
                           e.points AS debit, 0 AS credit
                      FROM unnest(p_entries) AS e WHERE e.debit_account >= 10
                     UNION ALL
                    SELECT e.bucket, e.credit_account, e.funder_id, e.point_type, e.business_on, 0, e.points
                      FROM unnest(p_entries) AS e WHERE e.credit_account >= 10) AS side
             GROUP BY 1, 2, 3, 4, 5) AS slot;
    IF buckets IS NOT NULL THEN
        PERFORM ledger_add_to_slots(buckets, accounts, funders, types, days, debits, credits);
    END IF;
END $$;

-- Posts earnings of which some have earned before or some repay arrears, in wallets that are locked; as below.
CREATE FUNCTION ledger_post_mixed_earnings(
    p_point_type smallint, p_now timestamptz, p_business_on date, p_wallet_buckets smallint[], p_wallet_members bigint[],
    seqs bigint[], availables bigint[], helds bigint[], pendings bigint[], owed bigint[], heads bytea[],
    p_wallets int[], p_ids uuid[], p_partner_ids uuid[], p_source_kinds text[], p_source_refs text[],
    p_amounts_fen bigint[], p_points bigint[], p_rule_versions int[], p_tiers text[], p_multipliers_pct int[],
    p_own_cards boolean[], p_categories text[], p_occurred_at timestamptz[], p_managers text[], p_calculations jsonb[],
    p_aggregates text[], p_payloads jsonb[],
    p_grant_of int[], p_lot_ids uuid[], p_funders int[], p_unit_costs_e6 bigint[], p_campaigns text[],
    p_expires_at timestamptz[], p_granted bigint[], p_activates_at timestamptz[],
    OUT operation_ids uuid[], OUT posted boolean[], OUT available bigint[], OUT held bigint[], OUT pending bigint[],
    OUT arrears bigint[]
)
    LANGUAGE plpgsql
    SET enable_seqscan = off SET enable_bitmapscan = off SET enable_nestloop = off SET enable_mergejoin = off
    SET enable_material = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    sides      smallint[];                      -- the house's side, by bucket and funder
    side_funders int[];
    side_points bigint[];
BEGIN
    WITH wallet AS MATERIALIZED (
        SELECT w.*, coalesce(ended.points, 0) AS expired, coalesce(due.matured, 0) AS matured,
               coalesce(due.activated, 0) AS activated
          FROM unnest(p_wallet_buckets, p_wallet_members, seqs, availables, helds, pendings, owed, heads) WITH ORDINALITY
               AS w (bucket, member_id, seq, available, held, pending, arrears, head, wallet)
          LEFT JOIN LATERAL (
               SELECT sum(lot.remaining_points - lot.held_points - lot.pending_points) AS points
                 FROM ledger_lot AS lot
                WHERE lot.bucket = w.bucket AND lot.member_id = w.member_id AND lot.point_type = p_point_type
                  AND lot.live AND lot.expires_at <= p_now) AS ended ON true
          LEFT JOIN LATERAL (
               SELECT sum(lot.pending_points) AS matured,
                      sum(lot.pending_points) FILTER (WHERE lot.expires_at IS NULL OR lot.expires_at > p_now)
                          AS activated
                 FROM ledger_lot AS lot
                WHERE lot.bucket = w.bucket AND lot.member_id = w.member_id AND lot.point_type = p_point_type
                  AND lot.live AND lot.pending_points > 0 AND lot.activates_at <= p_now) AS due
            ON w.pending > 0
    ), posting AS MATERIALIZED (
        SELECT p.*, w.bucket, w.member_id, earlier.id AS earlier_id
          FROM unnest(p_wallets, p_ids, p_partner_ids, p_source_kinds, p_source_refs, p_occurred_at, p_rule_versions)
               WITH ORDINALITY
               AS p (wallet, id, partner_id, source_kind, source_ref, occurred_at, rule_version, place)
          JOIN wallet AS w ON w.wallet = p.wallet
          LEFT JOIN LATERAL (
               SELECT o.id
                 FROM ledger_operation AS o
                WHERE o.bucket = w.bucket AND o.member_id = w.member_id AND o.partner_id = p.partner_id
                  AND o.source_kind = p.source_kind AND o.source_ref = p.source_ref AND o.kind = 'earn'
               OFFSET 0) AS earlier ON true
    ), operation AS (
        INSERT INTO ledger_operation (
            bucket, member_id, id, kind, partner_id, source_kind, source_ref, amount_fen, points, rule_version, tier,
            multiplier_pct, own_card, category, occurred_at, recorded_at, business_on, manager, point_type, calculation)
        SELECT p.bucket, p.member_id, p.id, 'earn', p.partner_id, p.source_kind, p.source_ref, o.amount_fen, o.points,
               p.rule_version, o.tier, o.multiplier_pct, o.own_card, o.category, p.occurred_at, p_now, p_business_on,
               o.manager, p_point_type, o.calculation
          FROM posting AS p
          JOIN unnest(p_amounts_fen, p_points, p_tiers, p_multipliers_pct, p_own_cards, p_categories, p_managers,
                      p_calculations) WITH ORDINALITY
               AS o (amount_fen, points, tier, multiplier_pct, own_card, category, manager, calculation, place)
            ON o.place = p.place
         WHERE p.earlier_id IS NULL
    ), granted AS MATERIALIZED (
        -- With the running sums of what may be spent at once and of what waits.
        SELECT p.place AS posting, g.place, p.wallet, p.id, p.bucket, p.member_id, p.occurred_at, p.rule_version,
               g.lot_id, g.funder_id, g.unit_cost_e6, g.campaign, g.expires_at, g.points, now.waiting,
               CASE WHEN now.waiting > 0 THEN g.activates_at END AS activates_at,
               g.points - now.waiting AS free, (sum(g.points - now.waiting) OVER sequence)::bigint AS free_sum,
               (sum(now.waiting) OVER sequence)::bigint AS waiting_sum
          FROM unnest(p_grant_of, p_lot_ids, p_funders, p_unit_costs_e6, p_campaigns, p_expires_at, p_granted,
                      p_activates_at) WITH ORDINALITY
               AS g (posting, lot_id, funder_id, unit_cost_e6, campaign, expires_at, points, activates_at, place)
          JOIN posting AS p ON p.place = g.posting AND p.earlier_id IS NULL
         CROSS JOIN LATERAL (
               SELECT CASE WHEN g.activates_at > p_now THEN g.points ELSE 0 END AS waiting) AS now
        WINDOW sequence AS (PARTITION BY p.wallet ORDER BY g.place ROWS UNBOUNDED PRECEDING)
    ), leg AS (
        -- Of each grant an entry; and who owes repays first, with what may be spent.
        SELECT g.*, 10::smallint AS debit, (CASE g.waiting WHEN 0 THEN 1 ELSE 3 END)::smallint AS credit,
               g.points AS moved, g.free_sum - least(w.arrears, g.free_sum - g.free) AS freed,
               least(w.arrears, g.free_sum - g.free) AS repaid_sum,
               g.points - least(w.arrears, g.free_sum) + least(w.arrears, g.free_sum - g.free) AS remaining
          FROM granted AS g
          JOIN wallet AS w ON w.wallet = g.wallet
         UNION ALL
        SELECT g.*, 1::smallint, 4::smallint, repaid.points, g.free_sum - least(w.arrears, g.free_sum), least(w.arrears, g.free_sum), 0
          FROM granted AS g
          JOIN wallet AS w ON w.wallet = g.wallet
         CROSS JOIN LATERAL (
               SELECT least(w.arrears, g.free_sum) - least(w.arrears, g.free_sum - g.free) AS points) AS repaid
         WHERE repaid.points > 0
    ), numbered AS MATERIALIZED (
        SELECT leg.wallet, leg.place, leg.posting, leg.bucket, leg.member_id, leg.id, leg.debit, leg.credit, leg.moved,
               leg.funder_id, ledger_cost_fen(leg.moved, leg.unit_cost_e6) AS value_fen, w.head,
               w.seq + row_number() OVER (PARTITION BY leg.wallet ORDER BY leg.place, leg.debit DESC) AS seq,
               w.available + leg.freed AS available, w.held, w.pending + leg.waiting_sum AS pending,
               w.arrears - leg.repaid_sum AS arrears,
               leg.lot_id, leg.unit_cost_e6, leg.campaign, leg.rule_version, leg.occurred_at, leg.activates_at,
               leg.expires_at, leg.waiting, leg.remaining
          FROM leg
          JOIN wallet AS w ON w.wallet = leg.wallet
    ), entry AS MATERIALIZED (
        SELECT n.*,
               ledger_form_chain(n.head, ledger_entry_form(
                   n.bucket, n.member_id, p_point_type, n.seq, n.id, n.debit, n.credit, n.moved, n.funder_id,
                   n.value_fen, n.available, n.held, n.pending, n.arrears, p_now, p_business_on)) OVER chain AS hash,
               lead(n.seq) OVER chain IS NULL AS is_last
          FROM numbered AS n
        WINDOW chain AS (PARTITION BY n.wallet ORDER BY n.seq ROWS UNBOUNDED PRECEDING)
    ), booked AS (
        INSERT INTO ledger_entry (
            bucket, member_id, point_type, seq, operation_id, debit_account, credit_account, points, funder_id,
            value_fen, available_after, held_after, pending_after, arrears_after, recorded_at, business_on, hash)
        SELECT e.bucket, e.member_id, p_point_type, e.seq, e.id, e.debit, e.credit, e.moved, e.funder_id, e.value_fen,
               e.available, e.held, e.pending, e.arrears, p_now, p_business_on, e.hash
          FROM entry AS e
    ), lot AS (
        INSERT INTO ledger_lot (
            bucket, member_id, point_type, lot_seq, id, operation_id, funder_id, unit_cost_e6, campaign, rule_version,
            effective_at, activates_at, expires_at, points, remaining_points, pending_points)
        SELECT e.bucket, e.member_id, p_point_type, e.seq, e.lot_id, e.id, e.funder_id, e.unit_cost_e6, e.campaign,
               e.rule_version, e.occurred_at, e.activates_at, e.expires_at, e.moved, e.remaining, e.waiting
          FROM entry AS e
         WHERE e.debit = 10
    ), change AS (
        INSERT INTO ledger_lot_change (bucket, member_id, point_type, seq, lot_seq, kind, points)
        SELECT e.bucket, e.member_id, p_point_type, e.seq, e.seq - 1, 'repay', e.moved FROM entry AS e WHERE e.debit = 1
    ), moved AS (
        UPDATE ledger_wallet AS w
           SET seq = e.seq, head_hash = e.hash, available_points = e.available, pending_points = e.pending,
               arrears_points = e.arrears
          FROM entry AS e
         WHERE e.is_last AND w.bucket = ANY (ARRAY[e.bucket]) AND w.member_id = ANY (ARRAY[e.member_id])
           AND w.point_type = ANY (ARRAY[CASE WHEN e.is_last THEN p_point_type END])
    ), told AS (
        -- An earning has one event, which shares its identifier.
        INSERT INTO outbox_event (bucket, id, partner_id, type, aggregate, payload, occurred_at)
        SELECT p.bucket, p.id, p.partner_id, 'points.earned', t.aggregate, t.payload, p_now
          FROM posting AS p
          JOIN unnest(p_aggregates, p_payloads) WITH ORDINALITY AS t (aggregate, payload, place) ON t.place = p.place
         WHERE p.earlier_id IS NULL
    ), house AS (
        SELECT e.bucket, e.funder_id, sum(e.moved)::bigint AS points
          FROM entry AS e WHERE e.debit = 10
         GROUP BY e.bucket, e.funder_id
    ), answer AS (
        SELECT p.place, coalesce(p.earlier_id, p.id) AS id, p.earlier_id IS NULL AS posted,
               coalesce(e.available, before.available, w.available) - w.expired + w.activated AS available, w.held,
               coalesce(e.pending, before.pending, w.pending) - w.matured AS pending,
               coalesce(e.arrears, before.arrears, w.arrears) AS arrears
          FROM posting AS p
          JOIN wallet AS w ON w.wallet = p.wallet
          LEFT JOIN (SELECT n.*, lead(n.posting) OVER (ORDER BY n.place, n.debit DESC) IS DISTINCT FROM n.posting AS is_end
                       FROM entry AS n) AS e ON e.posting = p.place AND e.is_end
          -- What was too little for a point shows the wallet as the postings before left it.
          LEFT JOIN LATERAL (
               SELECT n.available, n.pending, n.arrears FROM entry AS n
                WHERE e.posting IS NULL AND n.wallet = p.wallet AND n.posting < p.place
                ORDER BY n.seq DESC
                LIMIT 1) AS before ON true
    )
    SELECT a.ids, a.posted, a.available, a.held, a.pending, a.arrears, h.buckets, h.funders, h.points
      INTO operation_ids, posted, available, held, pending, arrears, sides, side_funders, side_points
      FROM (SELECT array_agg(answer.id ORDER BY answer.place) AS ids,
                   array_agg(answer.posted ORDER BY answer.place) AS posted,
                   array_agg(answer.available ORDER BY answer.place) AS available,
                   array_agg(answer.held ORDER BY answer.place) AS held,
                   array_agg(answer.pending ORDER BY answer.place) AS pending,
                   array_agg(answer.arrears ORDER BY answer.place) AS arrears
              FROM answer) AS a,
           (SELECT array_agg(house.bucket) AS buckets, array_agg(house.funder_id) AS funders,
                   array_agg(house.points) AS points
              FROM house) AS h;

    IF sides IS NOT NULL THEN
        PERFORM ledger_add_to_slots(
            sides, array_fill(10::smallint, ARRAY[cardinality(sides)]), side_funders,
            array_fill(p_point_type, ARRAY[cardinality(sides)]),
            array_fill(p_business_on, ARRAY[cardinality(sides)]), side_points,
            array_fill(0::bigint, ARRAY[cardinality(sides)]));
    END IF;
END $$;

-- Posts earnings, many or one: grants lots, chains entries, tells the world. Postings come ordered by (bucket,
-- member_id), no two with one source; p_wallets says which of the distinct wallets is whose, p_free_sums and
-- p_waiting_sums what it and those before it in its wallet grant to be spent at once and later. The same of each grant,
-- with its number within its wallet; p_grant_of says whose it is. That much the caller counts, so that here no join is
-- needed and rows are written as they come. p_aggregates are the operations' public ids and p_payloads what their events
-- tell, made by the caller: here they would cost six times as much. Answers come as columns, in the postings' order. An
-- earning whose source had earned before is not posted: operation_ids names the one that was. Nothing is posted and no
-- column answered while a wallet owes what points that have ripened in it must repay first: that is to be booked before.
DROP FUNCTION ledger_post_earnings;
DROP TYPE ledger_grant;
CREATE FUNCTION ledger_post_earnings(
    p_point_type smallint, p_now timestamptz, p_business_on date, p_wallet_buckets smallint[], p_wallet_members bigint[],
    p_wallets int[], p_ids uuid[], p_partner_ids uuid[], p_source_kinds text[], p_source_refs text[],
    p_amounts_fen bigint[], p_points bigint[], p_rule_versions int[], p_tiers text[], p_multipliers_pct int[],
    p_own_cards boolean[], p_categories text[], p_occurred_at timestamptz[], p_managers text[], p_calculations jsonb[],
    p_aggregates text[], p_payloads jsonb[], p_free_sums bigint[], p_waiting_sums bigint[],
    p_grant_of int[], p_lot_ids uuid[], p_funders int[], p_unit_costs_e6 bigint[], p_campaigns text[],
    p_expires_at timestamptz[], p_granted bigint[], p_activates_at timestamptz[], p_grant_wallets int[],
    p_grant_nth int[], p_grant_free_sums bigint[], p_grant_waiting_sums bigint[],
    OUT operation_ids uuid[], OUT posted boolean[], OUT available bigint[], OUT held bigint[], OUT pending bigint[],
    OUT arrears bigint[]
)
    LANGUAGE plpgsql
    SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
    SET enable_material = off SET enable_sort = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    seqs       bigint[];                        -- of the locked wallets, in order
    availables bigint[];
    helds      bigint[];
    pendings   bigint[];
    owed       bigint[];
    heads      bytea[];
    expired    bigint[];                        -- what in them is past its expiry but not yet booked
    matured    bigint[];                        -- what in them is pending no longer but not yet booked
    activated  bigint[];                        -- what of that has not expired meanwhile
    sides      smallint[];                      -- the house's side, by bucket and funder
    side_funders int[];
    side_points bigint[];
BEGIN
    INSERT INTO ledger_wallet (bucket, member_id, point_type)
    SELECT owner.bucket, owner.member_id, p_point_type
      FROM unnest(p_wallet_buckets, p_wallet_members) WITH ORDINALITY AS owner (bucket, member_id, place)
      LEFT JOIN LATERAL (
           SELECT true AS found FROM ledger_wallet AS w
            WHERE w.bucket = owner.bucket AND w.member_id = owner.member_id AND w.point_type = p_point_type
           OFFSET 0) AS w ON true
     WHERE w.found IS NULL
     ORDER BY owner.place
        ON CONFLICT DO NOTHING;

    -- Locked in key order; the lateral subquery cannot be turned into a scan.
    SELECT array_agg(w.seq), array_agg(w.available_points), array_agg(w.held_points), array_agg(w.pending_points),
           array_agg(w.arrears_points), array_agg(w.head_hash)
      INTO seqs, availables, helds, pendings, owed, heads
      FROM unnest(p_wallet_buckets, p_wallet_members) AS owner (bucket, member_id)
     CROSS JOIN LATERAL (
           SELECT w.*
             FROM ledger_wallet AS w
            WHERE w.bucket = owner.bucket AND w.member_id = owner.member_id AND w.point_type = p_point_type
              FOR UPDATE) AS w;

    -- From here on nobody else writes what belongs to these wallets.
    IF 0 < ANY (owed) AND EXISTS (
        SELECT FROM unnest(p_wallet_buckets, p_wallet_members, pendings, owed) AS w (bucket, member_id, pending, owed)
         CROSS JOIN LATERAL (
               SELECT FROM ledger_lot AS lot
                WHERE w.owed > 0 AND w.pending > 0 AND lot.bucket = w.bucket AND lot.member_id = w.member_id
                  AND lot.point_type = p_point_type AND lot.live AND lot.pending_points > 0
                  AND (lot.activates_at <= p_now) IS TRUE
               OFFSET 0) AS ripe) THEN
        RETURN;
    END IF;
    IF 0 < ANY (owed) OR EXISTS (
        SELECT FROM unnest(p_wallets, p_partner_ids, p_source_kinds, p_source_refs)
                    AS p (wallet, partner_id, source_kind, source_ref)
         CROSS JOIN LATERAL (
               SELECT FROM ledger_operation AS o
                WHERE o.bucket = p_wallet_buckets[p.wallet] AND o.member_id = p_wallet_members[p.wallet]
                  AND o.partner_id = p.partner_id AND o.source_kind = p.source_kind AND o.source_ref = p.source_ref
                  AND o.kind = 'earn'
               OFFSET 0) AS earlier) THEN
        SELECT * INTO operation_ids, posted, available, held, pending, arrears
          FROM ledger_post_mixed_earnings(
               p_point_type, p_now, p_business_on, p_wallet_buckets, p_wallet_members, seqs, availables, helds,
               pendings, owed, heads, p_wallets, p_ids, p_partner_ids, p_source_kinds, p_source_refs, p_amounts_fen,
               p_points, p_rule_versions, p_tiers, p_multipliers_pct, p_own_cards, p_categories, p_occurred_at,
               p_managers, p_calculations, p_aggregates, p_payloads, p_grant_of, p_lot_ids, p_funders,
               p_unit_costs_e6, p_campaigns, p_expires_at, p_granted, p_activates_at);
        RETURN;
    END IF;

    SELECT array_agg(coalesce(ended.points, 0)), array_agg(coalesce(due.matured, 0)),
           array_agg(coalesce(due.activated, 0))
      INTO expired, matured, activated
      FROM unnest(p_wallet_buckets, p_wallet_members, pendings) AS w (bucket, member_id, pending)
      LEFT JOIN LATERAL (
           SELECT sum(due.points)::bigint AS points
             FROM (SELECT lot.remaining_points - lot.held_points - lot.pending_points AS points
                     FROM ledger_lot AS lot
                    WHERE lot.bucket = w.bucket AND lot.member_id = w.member_id AND lot.point_type = p_point_type
                      AND lot.live AND lot.expires_at <= p_now
                    ORDER BY lot.expires_at NULLS LAST, lot.lot_seq  -- as the index of a wallet's lots, so by it
                   OFFSET 0) AS due) AS ended ON true
      LEFT JOIN LATERAL (
           SELECT sum(lot.pending_points)::bigint AS matured,
                  (sum(lot.pending_points) FILTER (WHERE lot.expires_at IS NULL OR lot.expires_at > p_now))::bigint
                      AS activated
             FROM ledger_lot AS lot
            WHERE w.pending > 0 AND lot.bucket = w.bucket AND lot.member_id = w.member_id
              AND lot.point_type = p_point_type AND lot.live AND lot.pending_points > 0
              AND lot.activates_at <= p_now) AS due ON true;

    INSERT INTO ledger_operation (
        bucket, member_id, id, kind, partner_id, source_kind, source_ref, amount_fen, points, rule_version, tier,
        multiplier_pct, own_card, category, occurred_at, recorded_at, business_on, manager, point_type, calculation)
    SELECT p_wallet_buckets[p.wallet], p_wallet_members[p.wallet], p.id, 'earn', p.partner_id, p.source_kind,
           p.source_ref, p.amount_fen, p.points, p.rule_version, p.tier, p.multiplier_pct, p.own_card, p.category,
           p.occurred_at, p_now, p_business_on, p.manager, p_point_type, p.calculation
      FROM unnest(p_wallets, p_ids, p_partner_ids, p_source_kinds, p_source_refs, p_amounts_fen, p_points,
                  p_rule_versions, p_tiers, p_multipliers_pct, p_own_cards, p_categories, p_occurred_at, p_managers,
                  p_calculations)
           AS p (wallet, id, partner_id, source_kind, source_ref, amount_fen, points, rule_version, tier,
                 multiplier_pct, own_card, category, occurred_at, manager, calculation);

    WITH granted AS (
        SELECT g.wallet, g.nth, p_wallet_buckets[g.wallet] AS bucket, p_wallet_members[g.wallet] AS member_id,
               seqs[g.wallet] + g.nth AS seq, g.posting, p_ids[g.posting] AS id, g.lot_id, g.funder_id, g.unit_cost_e6,
               g.campaign, g.expires_at, g.points, ledger_cost_fen(g.points, g.unit_cost_e6) AS value_fen,
               CASE WHEN g.activates_at > p_now THEN g.activates_at END AS activates_at,
               (CASE WHEN g.activates_at > p_now THEN 3 ELSE 1 END)::smallint AS credit,
               availables[g.wallet] + g.free_sum AS available, helds[g.wallet] AS held,
               pendings[g.wallet] + g.waiting_sum AS pending
          FROM unnest(p_grant_wallets, p_grant_nth, p_grant_of, p_lot_ids, p_funders, p_unit_costs_e6, p_campaigns,
                      p_expires_at, p_granted, p_activates_at, p_grant_free_sums, p_grant_waiting_sums)
               AS g (wallet, nth, posting, lot_id, funder_id, unit_cost_e6, campaign, expires_at, points, activates_at,
                     free_sum, waiting_sum)
    ), entry AS MATERIALIZED (
        SELECT n.*,
               ledger_form_chain(heads[n.wallet], ledger_entry_form(
                   n.bucket, n.member_id, p_point_type, n.seq, n.id, 10::smallint, n.credit, n.points, n.funder_id,
                   n.value_fen, n.available, n.held, n.pending, 0::bigint, p_now, p_business_on)) OVER chain AS hash,
               lead(n.nth) OVER chain IS NULL AS is_last
          FROM granted AS n
        WINDOW chain AS (PARTITION BY n.wallet ORDER BY n.nth ROWS UNBOUNDED PRECEDING)
    ), booked AS (
        INSERT INTO ledger_entry (
            bucket, member_id, point_type, seq, operation_id, debit_account, credit_account, points, funder_id,
            value_fen, available_after, held_after, pending_after, arrears_after, recorded_at, business_on, hash)
        SELECT e.bucket, e.member_id, p_point_type, e.seq, e.id, 10, e.credit, e.points, e.funder_id, e.value_fen,
               e.available, e.held, e.pending, 0, p_now, p_business_on, e.hash
          FROM entry AS e
    ), lot AS (
        INSERT INTO ledger_lot (
            bucket, member_id, point_type, lot_seq, id, operation_id, funder_id, unit_cost_e6, campaign, rule_version,
            effective_at, activates_at, expires_at, points, remaining_points, pending_points)
        SELECT e.bucket, e.member_id, p_point_type, e.seq, e.lot_id, e.id, e.funder_id, e.unit_cost_e6, e.campaign,
               p_rule_versions[e.posting], p_occurred_at[e.posting], e.activates_at, e.expires_at, e.points, e.points,
               CASE e.credit WHEN 3 THEN e.points ELSE 0 END
          FROM entry AS e
    ), moved AS (
        UPDATE ledger_wallet AS w
           SET seq = e.seq, head_hash = e.hash, available_points = e.available, pending_points = e.pending
          FROM entry AS e
         WHERE e.is_last AND w.bucket = ANY (ARRAY[e.bucket]) AND w.member_id = ANY (ARRAY[e.member_id])
           AND w.point_type = ANY (ARRAY[CASE WHEN e.is_last THEN p_point_type END])
    )
    SELECT array_agg(house.bucket), array_agg(house.funder_id), array_agg(house.points)
      INTO sides, side_funders, side_points
      FROM (SELECT e.bucket, e.funder_id, sum(e.points)::bigint AS points
              FROM entry AS e
             GROUP BY e.bucket, e.funder_id) AS house;

    -- An earning has one event, which shares its identifier.
    INSERT INTO outbox_event (bucket, id, partner_id, type, aggregate, payload, occurred_at)
    SELECT p_wallet_buckets[p.wallet], p.id, p.partner_id, 'points.earned', p.aggregate, p.payload, p_now
      FROM unnest(p_wallets, p_ids, p_partner_ids, p_aggregates, p_payloads)
           AS p (wallet, id, partner_id, aggregate, payload);

    operation_ids := p_ids;
    SELECT array_agg(true), array_agg(availables[p.wallet] + p.free_sum - expired[p.wallet] + activated[p.wallet]),
           array_agg(helds[p.wallet]), array_agg(pendings[p.wallet] + p.waiting_sum - matured[p.wallet]),
           array_agg(0::bigint)
      INTO posted, available, held, pending, arrears
      FROM unnest(p_wallets, p_free_sums, p_waiting_sums) AS p (wallet, free_sum, waiting_sum);

    IF sides IS NOT NULL THEN
        PERFORM ledger_add_to_slots(
            sides, array_fill(10::smallint, ARRAY[cardinality(sides)]), side_funders,
            array_fill(p_point_type, ARRAY[cardinality(sides)]),
            array_fill(p_business_on, ARRAY[cardinality(sides)]), side_points,
            array_fill(0::bigint, ARRAY[cardinality(sides)]));
    END IF;
END $$;

-- Places holds, many or one, in wallets where nothing else is to be booked first. Requests come ordered by (bucket,
-- member_id), p_wallets says which of the distinct wallets is whose. Lots pay in spend order: soonest expiry first, then
-- oldest; no expiry last. Answers come as columns: placed, or not and how much was free. Where `placed` is NULL the
-- wallet is locked and the caller decides, because points have ended or ripened in it, it has very many lots, or of
-- several requests not all can be granted.
CREATE FUNCTION ledger_place_holds(
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
    ), lot AS MATERIALIZED (
        SELECT w.wallet, l.*
          FROM wallet AS w
         CROSS JOIN LATERAL (
               SELECT n.lot_seq, n.funder_id, n.unit_cost_e6, n.free, n.due,
                      (sum(n.free) OVER (ORDER BY n.expires_at NULLS LAST, n.lot_seq ROWS UNBOUNDED PRECEDING)
                       - n.free)::bigint AS before
                 FROM (SELECT m.lot_seq, m.funder_id, m.unit_cost_e6, m.expires_at,
                              m.remaining_points - m.held_points - m.pending_points AS free,
                              coalesce(m.expires_at <= p_now, false)
                              OR (m.pending_points > 0 AND m.activates_at <= p_now) AS due
                         FROM ledger_lot AS m
                        WHERE m.bucket = w.bucket AND m.member_id = w.member_id AND m.point_type = p_point_type
                          AND m.live AND m.remaining_points > m.held_points
                        ORDER BY m.expires_at NULLS LAST, m.lot_seq
                        LIMIT 32) AS n) AS l
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

-- Ends holds, many or one: captures what is to be spent of them and gives the rest back. Closings come ordered by
-- (bucket, member_id), no hold twice; p_wallets says which of the distinct wallets is whose. p_event_ids, p_aggregates
-- and p_payloads are of the events. Answers in order: which of the holds were still open. Where more would have to be
-- booked than that (returned points of a lot that has ended, or of a member who owes), nothing is, and `closed` is NULL:
-- the wallets are locked and the caller decides.
CREATE FUNCTION ledger_settle_holds(
    p_point_type smallint, p_now timestamptz, p_business_on date, p_wallet_buckets smallint[], p_wallet_members bigint[],
    p_wallets int[], p_ids uuid[], p_kinds text[], p_states text[], p_spent bigint[], p_operations uuid[],
    p_partner_ids uuid[], p_order_refs text[], p_amounts_fen bigint[], p_points bigint[], p_managers text[],
    p_event_ids uuid[], p_aggregates text[], p_payloads jsonb[],
    OUT closed boolean[]
)
    LANGUAGE plpgsql
    SET enable_seqscan = off SET enable_bitmapscan = off SET enable_nestloop = off SET enable_mergejoin = off
    SET enable_material = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    seqs       bigint[];                        -- of the locked wallets, in order
    availables bigint[];
    helds      bigint[];
    pendings   bigint[];
    owed       bigint[];
    heads      bytea[];
    sides      smallint[];                      -- the house's side, by bucket and funder
    side_funders int[];
    side_points bigint[];
BEGIN
    SELECT array_agg(w.seq), array_agg(w.available_points), array_agg(w.held_points), array_agg(w.pending_points),
           array_agg(w.arrears_points), array_agg(w.head_hash)
      INTO seqs, availables, helds, pendings, owed, heads
      FROM unnest(p_wallet_buckets, p_wallet_members) AS owner (bucket, member_id)
     CROSS JOIN LATERAL (
           SELECT w.*
             FROM ledger_wallet AS w
            WHERE w.bucket = owner.bucket AND w.member_id = owner.member_id AND w.point_type = p_point_type
              FOR UPDATE) AS w;

    IF EXISTS (
        SELECT FROM unnest(p_wallets, p_ids, p_spent, p_points) AS c (wallet, id, spent, points)
         CROSS JOIN LATERAL (
               SELECT lot.expires_at
                 FROM ledger_hold_lot AS p
                 JOIN ledger_lot AS lot
                   ON lot.bucket = p.bucket AND lot.member_id = p.member_id AND lot.point_type = p_point_type
                  AND lot.lot_seq = p.lot_seq
                WHERE p.bucket = p_wallet_buckets[c.wallet] AND p.member_id = p_wallet_members[c.wallet]
                  AND p.hold_id = c.id AND c.spent < c.points
               OFFSET 0) AS pinned
         WHERE c.spent < c.points AND (owed[c.wallet] > 0 OR pinned.expires_at <= p_now)) THEN
        RETURN;
    END IF;

    WITH wallet AS MATERIALIZED (
        SELECT w.*
          FROM unnest(p_wallet_buckets, p_wallet_members, seqs, availables, helds, pendings, owed, heads) WITH ORDINALITY
               AS w (bucket, member_id, seq, available, held, pending, arrears, head, wallet)
    ), asked AS MATERIALIZED (
        SELECT c.*, w.bucket, w.member_id
          FROM unnest(p_wallets, p_ids, p_states, p_spent, p_operations) WITH ORDINALITY
               AS c (wallet, id, state, spent, operation_id, place)
          JOIN wallet AS w ON w.wallet = c.wallet
    ), ended AS (
        -- The one way out of `open`; whoever comes second finds no row.
        UPDATE ledger_hold AS hold
           SET state = c.state, captured_points = c.spent, closed_at = p_now, closed_by = c.operation_id
          FROM asked AS c
         WHERE hold.bucket = ANY (ARRAY[c.bucket]) AND hold.member_id = ANY (ARRAY[c.member_id])
           AND hold.id = ANY (ARRAY[c.id])
           AND hold.closed_at IS NULL  -- that is, open; said so, no plan goes through the index of all open holds
        RETURNING c.place
    ), pinned AS MATERIALIZED (
        SELECT c.place, c.wallet, c.bucket, c.member_id, c.id, c.operation_id, p.lot_seq, p.funder_id, p.unit_cost_e6,
               p.points, greatest(least(c.spent - p.before, p.points), 0) AS spent
          FROM asked AS c
          JOIN ended ON ended.place = c.place
         CROSS JOIN LATERAL (
               SELECT k.lot_seq, k.points, lot.funder_id, lot.unit_cost_e6,
                      (sum(k.points) OVER (ORDER BY lot.expires_at NULLS LAST, lot.lot_seq ROWS UNBOUNDED PRECEDING)
                       - k.points)::bigint AS before
                 FROM ledger_hold_lot AS k
                CROSS JOIN LATERAL (
                      SELECT m.lot_seq, m.funder_id, m.unit_cost_e6, m.expires_at
                        FROM ledger_lot AS m
                       WHERE m.bucket = k.bucket AND m.member_id = k.member_id AND m.point_type = p_point_type
                         AND m.lot_seq = k.lot_seq
                      OFFSET 0) AS lot
                WHERE k.bucket = c.bucket AND k.member_id = c.member_id AND k.hold_id = c.id) AS p
    ), moved AS MATERIALIZED (
        -- Spent first, then given back.
        SELECT p.*, 11::smallint AS credit, 'capture' AS kind, p.spent AS moved FROM pinned AS p WHERE p.spent > 0
         UNION ALL
        SELECT p.*, 1::smallint, 'release', p.points - p.spent FROM pinned AS p WHERE p.spent < p.points
    ), numbered AS MATERIALIZED (
        -- One entry for each end, side and funder.
        SELECT t.*, w.head, w.pending, w.arrears, w.seq + row_number() OVER line AS seq,
               w.available + (sum(CASE t.credit WHEN 1 THEN t.points ELSE 0 END) OVER line)::bigint AS available,
               w.held - (sum(t.points) OVER line)::bigint AS held
          FROM (SELECT n.place, n.wallet, n.bucket, n.member_id, n.operation_id, n.credit, n.funder_id,
                       sum(n.moved)::bigint AS points,
                       div(sum(n.moved::numeric * n.unit_cost_e6), 1000000)::bigint AS value_fen
                  FROM moved AS n
                 GROUP BY n.place, n.wallet, n.bucket, n.member_id, n.operation_id, n.credit, n.funder_id) AS t
          JOIN wallet AS w ON w.wallet = t.wallet
        WINDOW line AS (PARTITION BY t.wallet ORDER BY t.place, t.credit DESC, t.funder_id ROWS UNBOUNDED PRECEDING)
    ), entry AS MATERIALIZED (
        SELECT n.*,
               ledger_form_chain(n.head, ledger_entry_form(
                   n.bucket, n.member_id, p_point_type, n.seq, n.operation_id, 2::smallint, n.credit, n.points,
                   n.funder_id, n.value_fen, n.available, n.held, n.pending, n.arrears, p_now, p_business_on))
                   OVER chain AS hash,
               lead(n.seq) OVER chain IS NULL AS is_last
          FROM numbered AS n
        WINDOW chain AS (PARTITION BY n.wallet ORDER BY n.seq ROWS UNBOUNDED PRECEDING)
    ), told AS MATERIALIZED (
        SELECT c.bucket, c.member_id, c.id, c.operation_id, c.spent, t.*
          FROM asked AS c
          JOIN ended ON ended.place = c.place
          JOIN unnest(p_kinds, p_states, p_partner_ids, p_order_refs, p_amounts_fen, p_points, p_managers, p_event_ids,
                      p_aggregates, p_payloads) WITH ORDINALITY
               AS t (kind, state, partner_id, order_ref, amount_fen, points, manager, event_id, aggregate, payload, place)
            ON t.place = c.place
    ), operation AS (
        INSERT INTO ledger_operation (
            bucket, member_id, id, kind, partner_id, hold_id, source_ref, amount_fen, points, occurred_at, recorded_at,
            business_on, manager, point_type)
        SELECT c.bucket, c.member_id, c.operation_id, c.kind, c.partner_id, c.id, c.order_ref, c.amount_fen,
               CASE c.spent WHEN 0 THEN c.points ELSE c.spent END, p_now, p_now, p_business_on, c.manager, p_point_type
          FROM told AS c
    ), event AS (
        INSERT INTO outbox_event (bucket, id, partner_id, type, aggregate, payload, occurred_at)
        SELECT c.bucket, c.event_id, c.partner_id, 'points.hold.' || c.state, c.aggregate, c.payload, p_now
          FROM told AS c
    ), captured AS (
        UPDATE ledger_hold_lot AS k
           SET captured = p.spent
          FROM pinned AS p
         WHERE p.spent > 0 AND k.bucket = ANY (ARRAY[p.bucket]) AND k.member_id = ANY (ARRAY[p.member_id])
           AND k.hold_id = ANY (ARRAY[p.id]) AND k.lot_seq = ANY (ARRAY[p.lot_seq])
    ), booked AS (
        INSERT INTO ledger_entry (
            bucket, member_id, point_type, seq, operation_id, debit_account, credit_account, points, funder_id,
            value_fen, available_after, held_after, pending_after, arrears_after, recorded_at, business_on, hash)
        SELECT e.bucket, e.member_id, p_point_type, e.seq, e.operation_id, 2, e.credit, e.points, e.funder_id,
               e.value_fen, e.available, e.held, e.pending, e.arrears, p_now, p_business_on, e.hash
          FROM entry AS e
    ), change AS (
        INSERT INTO ledger_lot_change (bucket, member_id, point_type, seq, lot_seq, kind, points)
        SELECT m.bucket, m.member_id, p_point_type, e.seq, m.lot_seq, m.kind, m.moved
          FROM moved AS m
          JOIN entry AS e ON e.place = m.place AND e.credit = m.credit AND e.funder_id = m.funder_id
    ), lots AS (
        UPDATE ledger_lot AS l
           SET held_points = l.held_points - p.points, remaining_points = l.remaining_points - p.spent
          FROM (SELECT n.bucket, n.member_id, n.lot_seq, sum(n.points)::bigint AS points, sum(n.spent)::bigint AS spent
                  FROM pinned AS n
                 GROUP BY n.bucket, n.member_id, n.lot_seq) AS p
         WHERE l.bucket = ANY (ARRAY[p.bucket]) AND l.member_id = ANY (ARRAY[p.member_id])
           AND l.point_type = ANY (ARRAY[CASE WHEN p.points > 0 THEN p_point_type END])
           AND l.lot_seq = ANY (ARRAY[p.lot_seq])
    ), wallets AS (
        UPDATE ledger_wallet AS w
           SET seq = e.seq, head_hash = e.hash, available_points = e.available, held_points = e.held
          FROM entry AS e
         WHERE e.is_last AND w.bucket = ANY (ARRAY[e.bucket]) AND w.member_id = ANY (ARRAY[e.member_id])
           AND w.point_type = ANY (ARRAY[CASE WHEN e.is_last THEN p_point_type END])
    ), house AS (
        SELECT e.bucket, e.funder_id, sum(e.points)::bigint AS points
          FROM entry AS e WHERE e.credit = 11
         GROUP BY e.bucket, e.funder_id
    )
    SELECT a.closed, h.buckets, h.funders, h.points
      INTO closed, sides, side_funders, side_points
      FROM (SELECT array_agg(ended.place IS NOT NULL ORDER BY c.place) AS closed
              FROM asked AS c
              LEFT JOIN ended ON ended.place = c.place) AS a,
           (SELECT array_agg(house.bucket) AS buckets, array_agg(house.funder_id) AS funders,
                   array_agg(house.points) AS points
              FROM house) AS h;

    IF sides IS NOT NULL THEN
        PERFORM ledger_add_to_slots(
            sides, array_fill(11::smallint, ARRAY[cardinality(sides)]), side_funders,
            array_fill(p_point_type, ARRAY[cardinality(sides)]), array_fill(p_business_on, ARRAY[cardinality(sides)]),
            array_fill(0::bigint, ARRAY[cardinality(sides)]), side_points);
    END IF;
END $$;
