-- More that can happen to points: spent at once, adjusted, transferred, exchanged, and pending until a moment.
--
-- A lot knows how many of its points are booked as pending. Whether they are pending still is decided at the moment of
-- use from activates_at, like expiry: who uses a wallet books what has become free, and a job books the rest.

ALTER TABLE ledger_operation DROP CONSTRAINT ledger_operation_kind_check;
ALTER TABLE ledger_operation ADD CONSTRAINT ledger_operation_kind_check CHECK (kind IN (
    'earn', 'hold', 'capture', 'release', 'lapse', 'spend', 'reverse_earn', 'reverse_spend', 'expire', 'activate',
    'adjust', 'transfer_out', 'transfer_in', 'exchange'));
-- A partner's acts name the partner; what time or the bank does names none.
ALTER TABLE ledger_operation DROP CONSTRAINT ledger_operation_check1;
ALTER TABLE ledger_operation ADD CONSTRAINT ledger_operation_partner CHECK (
    partner_id IS NOT NULL OR kind IN ('expire', 'activate', 'adjust', 'transfer_out', 'transfer_in', 'exchange'));
-- point_type: of the wallet it begins with. calculation: how campaigns changed an earning, so that it can be replayed.
ALTER TABLE ledger_operation
    ADD COLUMN point_type smallint NOT NULL DEFAULT 1,
    ADD COLUMN calculation jsonb;

INSERT INTO ledger_account (code, name, nature) VALUES (14, 'adjusted', 'debit'), (15, 'exchanged', 'credit');

ALTER TABLE ledger_lot_move DROP CONSTRAINT ledger_lot_move_kind_check;
ALTER TABLE ledger_lot_move ADD CONSTRAINT ledger_lot_move_kind_check CHECK (kind IN (
    'grant', 'hold', 'capture', 'release', 'spend', 'expire', 'claw', 'restore', 'repay', 'activate', 'void',
    'adjust', 'transfer', 'exchange'));

ALTER TABLE ledger_lot ADD COLUMN pending_points bigint NOT NULL DEFAULT 0;
ALTER TABLE ledger_lot DROP CONSTRAINT ledger_lot_within_bounds;
ALTER TABLE ledger_lot ADD CONSTRAINT ledger_lot_within_bounds CHECK (
    0 <= held_points AND 0 <= pending_points AND held_points + pending_points <= remaining_points
    AND remaining_points <= points AND (pending_points = 0 OR activates_at IS NOT NULL));
-- Points that could end before they begin would have to be booked out of order.
ALTER TABLE ledger_lot ADD CONSTRAINT ledger_lot_begins_before_it_ends CHECK (activates_at < expires_at);
-- What the activation job books.
CREATE INDEX ledger_lot_pending ON ledger_lot (activates_at) WHERE pending_points > 0;
GRANT UPDATE (pending_points) ON ledger_lot TO tessera_app;

-- What a move does to its lot: the one place that knows.
CREATE FUNCTION ledger_move_remaining(kind text) RETURNS int
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN kind IN ('grant', 'restore') THEN 1
                WHEN kind IN ('capture', 'spend', 'expire', 'claw', 'repay', 'void', 'adjust', 'transfer', 'exchange')
                THEN -1 ELSE 0 END;
CREATE FUNCTION ledger_move_held(kind text) RETURNS int
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN kind = 'hold' THEN 1 WHEN kind IN ('capture', 'release') THEN -1 ELSE 0 END;
CREATE FUNCTION ledger_move_pending(kind text) RETURNS int
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN kind IN ('activate', 'void') THEN -1 ELSE 0 END;

-- What a move does to what is free in its lot; the points of a lot that waits are free once they are activated.
CREATE FUNCTION ledger_move_free(kind text, waits boolean) RETURNS int
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN kind = 'grant' THEN CASE WHEN waits THEN 0 ELSE 1 END
                WHEN kind IN ('activate', 'restore', 'release') THEN 1
                WHEN kind IN ('capture', 'void') THEN 0 ELSE -1 END;

-- A grant may be pending until a moment.
ALTER TYPE ledger_grant ADD ATTRIBUTE activates_at timestamptz;

-- Writes what was decided under the wallets' locks. Entries come with the wallet's next numbers and balances; they are
-- chained here unless they come with their hashes, all of them or none. Everything else follows from them: lots from
-- moves, wallets from their last entries, house slots from the entries' house sides. Slots are shared between members, so they are locked last, and in one order: by bucket,
-- issued points after all others, because who writes twice in a transaction (a plan is captured or refunded: points
-- spent or restored, then points earned or clawed back) comes to them last.
--
-- Whatever the tables' statistics say, every access here is by key: the settings keep a plan made on empty tables
-- from scanning full ones, and spare a single posting the planning.
CREATE OR REPLACE FUNCTION ledger_write(
    p_operations ledger_operation[], p_entries ledger_entry[], p_lots ledger_lot[], p_moves ledger_lot_move[]
) RETURNS void
    LANGUAGE plpgsql
    SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
    SET enable_material = off SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    INSERT INTO ledger_operation SELECT * FROM unnest(p_operations);
    INSERT INTO ledger_lot SELECT * FROM unnest(p_lots);
    INSERT INTO ledger_lot_move SELECT * FROM unnest(p_moves);

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
     WHERE (lot.bucket, lot.member_id, lot.point_type, lot.lot_seq)
         = (moved.bucket, moved.member_id, moved.point_type, moved.lot_seq);

    IF p_entries[1].hash IS NOT NULL THEN
        INSERT INTO ledger_entry SELECT * FROM unnest(p_entries);
        UPDATE ledger_wallet AS wallet
           SET seq = last.seq, head_hash = last.hash,
               available_points = last.available_after, held_points = last.held_after,
               pending_points = last.pending_after, arrears_points = last.arrears_after
          FROM (SELECT DISTINCT ON (bucket, member_id, point_type) *
                  FROM unnest(p_entries)
                 ORDER BY bucket, member_id, point_type, seq DESC) AS last
         WHERE (wallet.bucket, wallet.member_id, wallet.point_type) = (last.bucket, last.member_id, last.point_type);
    ELSE
        WITH chained AS (
            INSERT INTO ledger_entry
            SELECT e.bucket, e.member_id, e.point_type, e.seq, e.operation_id, e.debit_account, e.credit_account,
                   e.points, e.funder_id, e.value_fen,
                   e.available_after, e.held_after, e.pending_after, e.arrears_after, e.recorded_at, e.business_on,
                   ledger_chain(wallet.head_hash, e)
                       OVER (PARTITION BY e.bucket, e.member_id, e.point_type ORDER BY e.seq)
              FROM unnest(p_entries) AS e
              JOIN ledger_wallet AS wallet USING (bucket, member_id, point_type)
            RETURNING *
        )
        UPDATE ledger_wallet AS wallet
           SET seq = last.seq, head_hash = last.hash,
               available_points = last.available_after, held_points = last.held_after,
               pending_points = last.pending_after, arrears_points = last.arrears_after
          FROM (SELECT DISTINCT ON (bucket, member_id, point_type) *
                  FROM chained
                 ORDER BY bucket, member_id, point_type, seq DESC) AS last
         WHERE (wallet.bucket, wallet.member_id, wallet.point_type) = (last.bucket, last.member_id, last.point_type);
    END IF;

    INSERT INTO ledger_house_slot AS slot (
        bucket, account, funder_id, point_type, business_on, debit_points, credit_points)
    SELECT side.bucket, side.account, side.funder_id, side.point_type, side.business_on, sum(side.debit), sum(side.credit)
      FROM (SELECT e.bucket, e.debit_account AS account, e.funder_id, e.point_type, e.business_on,
                   e.points AS debit, 0 AS credit
              FROM unnest(p_entries) AS e WHERE e.debit_account >= 10
             UNION ALL
            SELECT e.bucket, e.credit_account, e.funder_id, e.point_type, e.business_on, 0, e.points
              FROM unnest(p_entries) AS e WHERE e.credit_account >= 10) AS side
     GROUP BY 1, 2, 3, 4, 5
     ORDER BY 1, 2 DESC, 3, 4, 5
        ON CONFLICT (bucket, account, funder_id, point_type, business_on) DO UPDATE
       SET debit_points = slot.debit_points + excluded.debit_points,
           credit_points = slot.credit_points + excluded.credit_points;
END $$;

-- Posts earnings, many or one: claims their sources, grants lots, repays arrears, chains entries, tells the world.
-- Postings come ordered by (bucket, member_id); p_grant_counts says how many of p_grants belong to each. An earning
-- whose source was claimed before is not posted: the row returned names the operation that was. p_aggregates are the
-- operations' public ids and p_payloads what their events tell, made by the caller: here they would cost six times as much.
CREATE OR REPLACE FUNCTION ledger_post_earnings(
    p_point_type smallint, p_now timestamptz,
    p_postings ledger_operation[], p_grant_counts int[], p_grants ledger_grant[], p_aggregates text[],
    p_payloads jsonb[]
) RETURNS TABLE (operation_id uuid, posted boolean, available bigint, held bigint, pending bigint, arrears bigint)
    LANGUAGE plpgsql
    SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
    SET enable_material = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    claims    uuid[];                           -- the postings whose source was free, in order
    wallets   ledger_wallet[];                  -- the locked wallets, in order
    expired   bigint[];                         -- what in them is past its expiry but not yet booked
    matured   bigint[];                         -- what in them is pending no longer but not yet booked
    activated bigint[];                         -- what of that has not expired meanwhile
    accepted  ledger_operation[]  := '{}';
    aggregates text[]             := '{}';
    payloads  jsonb[]             := '{}';
    entries   ledger_entry[]      := '{}';
    lots      ledger_lot[]        := '{}';
    moves     ledger_lot_move[]   := '{}';
    posting   ledger_operation;
    granted   ledger_grant;
    wallet    ledger_wallet;
    entry     ledger_entry;
    waiting   bigint;
    repaid    bigint;
    lot_seq   bigint;
    at_posting int := 0;
    at_claim  int := 1;
    at_wallet int := 0;
    at_grant  int := 0;
BEGIN
    INSERT INTO ledger_wallet (bucket, member_id, point_type)
    SELECT DISTINCT p.bucket, p.member_id, p_point_type FROM unnest(p_postings) AS p ORDER BY 1, 2
        ON CONFLICT DO NOTHING;

    -- Locked in key order; the lateral subquery cannot be turned into a scan.
    SELECT array_agg(locked) INTO wallets
      FROM (SELECT DISTINCT p.bucket, p.member_id FROM unnest(p_postings) AS p ORDER BY 1, 2) AS owner
     CROSS JOIN LATERAL (
           SELECT w.*
             FROM ledger_wallet AS w
            WHERE w.bucket = owner.bucket AND w.member_id = owner.member_id AND w.point_type = p_point_type
              FOR UPDATE) AS locked;

    WITH claimed AS (
        INSERT INTO ledger_source_claim AS claim (bucket, member_id, partner_id, kind, source_ref, operation_id)
        SELECT p.bucket, p.member_id, p.partner_id, p.source_kind, p.source_ref, p.id FROM unnest(p_postings) AS p
            ON CONFLICT DO NOTHING
        RETURNING claim.operation_id
    )
    SELECT array_agg(c.operation_id) INTO claims FROM claimed AS c;

    SELECT array_agg(coalesce((
               SELECT sum(lot.remaining_points - lot.held_points - lot.pending_points)
                 FROM ledger_lot AS lot
                WHERE lot.bucket = w.bucket AND lot.member_id = w.member_id AND lot.point_type = p_point_type
                  AND lot.remaining_points > 0 AND lot.expires_at <= p_now), 0) ORDER BY w.ordinality),
           array_agg(coalesce(due.matured, 0) ORDER BY w.ordinality),
           array_agg(coalesce(due.activated, 0) ORDER BY w.ordinality)
      INTO expired, matured, activated
      FROM unnest(wallets) WITH ORDINALITY AS w
      LEFT JOIN LATERAL (
           SELECT sum(lot.pending_points) AS matured,
                  sum(lot.pending_points) FILTER (WHERE lot.expires_at IS NULL OR lot.expires_at > p_now) AS activated
             FROM ledger_lot AS lot
            WHERE lot.bucket = w.bucket AND lot.member_id = w.member_id AND lot.point_type = p_point_type
              AND lot.remaining_points > 0 AND lot.pending_points > 0 AND lot.activates_at <= p_now) AS due
        ON w.pending_points > 0;

    FOREACH posting IN ARRAY p_postings LOOP
        at_posting := at_posting + 1;
        IF wallet.member_id IS DISTINCT FROM posting.member_id THEN
            at_wallet := at_wallet + 1;
            wallet := wallets[at_wallet];
            ASSERT wallet.member_id = posting.member_id, 'postings come ordered by wallet';
        END IF;

        IF claims[at_claim] IS DISTINCT FROM posting.id THEN
            at_grant := at_grant + p_grant_counts[at_posting];
            posted := false;
            SELECT claim.operation_id INTO operation_id
              FROM ledger_source_claim AS claim
             WHERE claim.bucket = posting.bucket AND claim.member_id = posting.member_id
               AND claim.partner_id = posting.partner_id AND claim.kind = posting.source_kind
               AND claim.source_ref = posting.source_ref;
        ELSE
            at_claim := at_claim + 1;
            posted := true;
            operation_id := posting.id;
            accepted := array_append(accepted, posting);
            aggregates := array_append(aggregates, p_aggregates[at_posting]);
            payloads := array_append(payloads, p_payloads[at_posting]);
            FOR i IN 1 .. p_grant_counts[at_posting] LOOP
                at_grant := at_grant + 1;
                granted := p_grants[at_grant];
                wallet.seq := wallet.seq + 1;
                waiting := CASE WHEN granted.activates_at > p_now THEN granted.points ELSE 0 END;
                wallet.pending_points := wallet.pending_points + waiting;
                wallet.available_points := wallet.available_points + granted.points - waiting;
                lot_seq := wallet.seq;
                entry := ROW(
                    posting.bucket, posting.member_id, p_point_type, wallet.seq, posting.id,
                    10, CASE waiting WHEN 0 THEN 1 ELSE 3 END,
                    granted.points, granted.funder_id, div(granted.points::numeric * granted.unit_cost_e6, 1000000),
                    wallet.available_points, wallet.held_points, wallet.pending_points, wallet.arrears_points,
                    posting.recorded_at, posting.business_on, NULL);
                wallet.head_hash := ledger_entry_hash(wallet.head_hash, entry);
                entry.hash := wallet.head_hash;
                entries := array_append(entries, entry);
                lots := array_append(lots, ROW(
                    posting.bucket, posting.member_id, p_point_type, lot_seq, granted.lot_id, posting.id, NULL,
                    granted.funder_id, granted.unit_cost_e6, granted.campaign, posting.rule_version,
                    posting.occurred_at, CASE WHEN waiting > 0 THEN granted.activates_at END, granted.expires_at,
                    granted.points, granted.points, 0, waiting)::ledger_lot);
                moves := array_append(moves, ROW(
                    posting.bucket, posting.member_id, p_point_type, wallet.seq, lot_seq, 'grant',
                    granted.points)::ledger_lot_move);
                -- Who owes repays first, with what may be spent.
                repaid := least(wallet.arrears_points, granted.points - waiting);
                IF repaid > 0 THEN
                    wallet.seq := wallet.seq + 1;
                    wallet.available_points := wallet.available_points - repaid;
                    wallet.arrears_points := wallet.arrears_points - repaid;
                    entry := ROW(
                        posting.bucket, posting.member_id, p_point_type, wallet.seq, posting.id, 1, 4,
                        repaid, granted.funder_id, div(repaid::numeric * granted.unit_cost_e6, 1000000),
                        wallet.available_points, wallet.held_points, wallet.pending_points, wallet.arrears_points,
                        posting.recorded_at, posting.business_on, NULL);
                    wallet.head_hash := ledger_entry_hash(wallet.head_hash, entry);
                    entry.hash := wallet.head_hash;
                    entries := array_append(entries, entry);
                    moves := array_append(moves, ROW(
                        posting.bucket, posting.member_id, p_point_type, wallet.seq, lot_seq, 'repay',
                        repaid)::ledger_lot_move);
                END IF;
            END LOOP;
        END IF;
        -- What has ripened repays first, and of that first what has ended since.
        repaid := least(wallet.arrears_points, matured[at_wallet]);
        available := wallet.available_points - expired[at_wallet]
                     + least(activated[at_wallet], matured[at_wallet] - repaid);
        held := wallet.held_points;
        pending := wallet.pending_points - matured[at_wallet];
        arrears := wallet.arrears_points - repaid;
        RETURN NEXT;
    END LOOP;

    PERFORM ledger_write(accepted, entries, lots, moves);

    -- An earning has one event, which shares its identifier.
    INSERT INTO outbox_event (bucket, id, partner_id, type, aggregate, payload, occurred_at)
    SELECT o.bucket, o.id, o.partner_id, 'points.earned', aggregates[o.ordinality],
           payloads[o.ordinality], p_now
      FROM unnest(accepted) WITH ORDINALITY AS o;
END $$;

------------------------------------------------------------------------------------------------------------------
-- The books check
------------------------------------------------------------------------------------------------------------------

CREATE OR REPLACE VIEW books_i03_operation_points AS
SELECT o.bucket, o.member_id, o.id, o.kind, o.points, coalesce(sum(e.points), 0) AS entries_points
  FROM ledger_operation AS o
  JOIN (VALUES ('earn', 10, 1), ('earn', 10, 3), ('hold', 1, 2), ('capture', 2, 11), ('release', 2, 1), ('lapse', 2, 1),
               ('spend', 1, 11), ('reverse_earn', NULL, 10), ('reverse_spend', 11, NULL), ('expire', 1, 12),
               ('activate', 3, 1), ('adjust', 1, 14), ('adjust', 14, 1), ('transfer_out', 1, 13),
               ('transfer_in', 13, 1), ('exchange', 1, 15))
       AS leg (kind, debit_account, credit_account) ON leg.kind = o.kind
  LEFT JOIN ledger_entry AS e
    ON e.bucket = o.bucket AND e.member_id = o.member_id AND e.operation_id = o.id
   AND (leg.debit_account IS NULL OR leg.debit_account = e.debit_account)
   AND (leg.credit_account IS NULL OR leg.credit_account = e.credit_account)
 GROUP BY o.bucket, o.member_id, o.id, o.kind, o.points
HAVING coalesce(sum(e.points), 0) <> o.points;

CREATE OR REPLACE VIEW books_i09_wallet_is_its_lots AS
SELECT w.bucket, w.member_id, w.point_type, w.available_points, coalesce(l.free, 0) AS free_points,
       w.held_points, coalesce(l.held, 0) AS pinned_points, w.pending_points, coalesce(l.pending, 0) AS waiting_points
  FROM ledger_wallet AS w
  LEFT JOIN (SELECT bucket, member_id, point_type, sum(remaining_points - held_points - pending_points) AS free,
                    sum(held_points) AS held, sum(pending_points) AS pending
               FROM ledger_lot
              GROUP BY bucket, member_id, point_type) AS l
    ON l.bucket = w.bucket AND l.member_id = w.member_id AND l.point_type = w.point_type
 WHERE (w.available_points, w.held_points, w.pending_points)
       <> (coalesce(l.free, 0), coalesce(l.held, 0), coalesce(l.pending, 0));
COMMENT ON VIEW books_i09_wallet_is_its_lots IS
    'A wallet has available what its lots have free, held what they have pinned, and pending what of them waits. What has expired or ripened counts until it is booked.';

CREATE OR REPLACE VIEW books_i10_lot_is_its_moves AS
SELECT coalesce(l.bucket, m.bucket) AS bucket, coalesce(l.member_id, m.member_id) AS member_id,
       coalesce(l.lot_seq, m.lot_seq) AS lot_seq, l.points, m.granted, l.remaining_points, m.remaining,
       l.held_points, m.held, l.pending_points, m.pending
  FROM ledger_lot AS l
  FULL JOIN (
       SELECT n.bucket, n.member_id, n.point_type, n.lot_seq,
              sum(n.points) FILTER (WHERE n.kind = 'grant') AS granted,
              sum(n.points * ledger_move_remaining(n.kind)) AS remaining,
              sum(n.points * ledger_move_held(n.kind)) AS held,
              sum(CASE WHEN n.kind = 'grant' AND e.credit_account = 3 THEN n.points
                       ELSE n.points * ledger_move_pending(n.kind) END) AS pending
         FROM ledger_lot_move AS n
         LEFT JOIN ledger_entry AS e USING (bucket, member_id, point_type, seq)
        GROUP BY n.bucket, n.member_id, n.point_type, n.lot_seq) AS m
    ON m.bucket = l.bucket AND m.member_id = l.member_id AND m.point_type = l.point_type AND m.lot_seq = l.lot_seq
 WHERE (l.points, l.remaining_points, l.held_points, l.pending_points)
       IS DISTINCT FROM (m.granted, m.remaining, m.held, m.pending);
COMMENT ON VIEW books_i10_lot_is_its_moves IS
    'What a lot was granted, has left, has pinned and has waiting is the sum of the moves on it.';

CREATE OR REPLACE VIEW books_i11_entry_is_its_moves AS
SELECT coalesce(e.bucket, m.bucket) AS bucket, coalesce(e.member_id, m.member_id) AS member_id,
       coalesce(e.seq, m.seq) AS seq, e.debit_account, e.credit_account, e.points, m.points AS moved_points, m.kinds
  FROM ledger_entry AS e
  FULL JOIN (
       SELECT bucket, member_id, point_type, seq, sum(points) AS points, min(kind) AS kind, count(DISTINCT kind) AS kinds
         FROM ledger_lot_move
        GROUP BY bucket, member_id, point_type, seq) AS m
    ON m.bucket = e.bucket AND m.member_id = e.member_id AND m.point_type = e.point_type AND m.seq = e.seq
  LEFT JOIN (VALUES (10, 1, 'grant'), (10, 3, 'grant'), (11, 1, 'grant'), (1, 2, 'hold'), (2, 11, 'capture'),
                    (2, 1, 'release'), (1, 11, 'spend'), (1, 12, 'expire'), (1, 10, 'claw'), (3, 10, 'void'),
                    (11, 1, 'restore'), (1, 4, 'repay'), (3, 1, 'activate'), (1, 14, 'adjust'), (14, 1, 'grant'),
                    (1, 13, 'transfer'), (13, 1, 'grant'), (13, 1, 'restore'), (1, 15, 'exchange'), (15, 1, 'grant'))
       AS leg (debit_account, credit_account, kind)
    ON leg.debit_account = e.debit_account AND leg.credit_account = e.credit_account AND leg.kind = m.kind
 WHERE CASE WHEN e.debit_account = 4 AND e.credit_account = 10 THEN m.points IS NOT NULL
            ELSE e.points IS DISTINCT FROM m.points OR m.kinds <> 1 OR leg.kind IS NULL END;
