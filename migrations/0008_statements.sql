-- Proof of the points ledger: monthly statements, daily seals, and the views that hold them against the entries.
--
-- Nothing here is needed to know a balance; everything can be computed again from ledger_entry. That is the use of it:
-- a statement or a seal that was issued, printed, signed and carried away contradicts books that were rewritten later.

------------------------------------------------------------------------------------------------------------------
-- Statements
------------------------------------------------------------------------------------------------------------------

-- What an entry means on a statement, by its two accounts; null for a pair no operation makes. Points available, held
-- and pending are all still the member's own: entries between those accounts are 'moved' and change no statement line.
-- A migration that brings a new kind of entry replaces this function; until then a statement with one does not close.
CREATE FUNCTION ledger_movement(debit_account smallint, credit_account smallint) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE
        WHEN debit_account IN (1, 2, 3) AND credit_account IN (1, 2, 3) THEN 'moved'
        WHEN debit_account = 10 AND credit_account IN (1, 3) THEN 'earned'
        WHEN debit_account = 11 AND credit_account = 1 THEN 'restored'
        WHEN debit_account = 2 AND credit_account = 11 THEN 'spent'
        WHEN debit_account = 1 AND credit_account = 12 THEN 'expired'
        WHEN debit_account IN (1, 3) AND credit_account = 10 THEN 'clawed'
        WHEN debit_account = 1 AND credit_account = 4 THEN 'repaid'
        WHEN debit_account = 4 AND credit_account = 10 THEN 'owed'
    END;

-- One month of one wallet, in Shanghai's months; a month without entries has none. Opening and closing count what the
-- member owns, held points included; what the member owes is a sum of its own. The closing figures are those of the
-- last entry and the movements are sums of the entries, so the checks compare two different things. The foreign key is
-- the link: a statement that does not begin at number one begins where another ended, with the same figures.
-- Append-only.
CREATE TABLE ledger_statement (
    bucket                 smallint    NOT NULL,
    member_id              bigint      NOT NULL,
    point_type             smallint    NOT NULL,
    period                 date        NOT NULL CHECK (period = date_trunc('month', period)::date),
    opening_points         bigint      NOT NULL,
    earned_points          bigint      NOT NULL CHECK (earned_points >= 0),
    restored_points        bigint      NOT NULL CHECK (restored_points >= 0),
    spent_points           bigint      NOT NULL CHECK (spent_points >= 0),
    expired_points         bigint      NOT NULL CHECK (expired_points >= 0),
    clawed_points          bigint      NOT NULL CHECK (clawed_points >= 0),
    repaid_points          bigint      NOT NULL CHECK (repaid_points >= 0),
    closing_points         bigint      NOT NULL CHECK (closing_points >= 0),
    closing_held_points    bigint      NOT NULL,
    opening_arrears_points bigint      NOT NULL,
    owed_points            bigint      NOT NULL CHECK (owed_points >= 0),
    closing_arrears_points bigint      NOT NULL CHECK (closing_arrears_points >= 0),
    first_seq              bigint      NOT NULL CHECK (first_seq > 0),
    last_seq               bigint      NOT NULL,
    previous_seq           bigint      GENERATED ALWAYS AS (CASE WHEN first_seq > 1 THEN first_seq - 1 END) STORED,
    head_hash              bytea       NOT NULL CHECK (length(head_hash) = 32),
    issued_at              timestamptz NOT NULL,
    PRIMARY KEY (bucket, member_id, point_type, period),
    CONSTRAINT ledger_statement_end
        UNIQUE (bucket, member_id, point_type, last_seq, closing_points, closing_arrears_points),
    CONSTRAINT ledger_statement_link
        FOREIGN KEY (bucket, member_id, point_type, previous_seq, opening_points, opening_arrears_points)
        REFERENCES ledger_statement (bucket, member_id, point_type, last_seq, closing_points, closing_arrears_points),
    CONSTRAINT ledger_statement_begins_empty
        CHECK (first_seq > 1 OR (opening_points = 0 AND opening_arrears_points = 0)),
    CONSTRAINT ledger_statement_closes
        CHECK (closing_points = opening_points + earned_points + restored_points
                              - spent_points - expired_points - clawed_points - repaid_points),
    CONSTRAINT ledger_statement_arrears_close
        CHECK (closing_arrears_points = opening_arrears_points + owed_points - repaid_points),
    CHECK (first_seq <= last_seq),
    CHECK (closing_held_points BETWEEN 0 AND closing_points)
);
GRANT SELECT, INSERT ON ledger_statement TO tessera_app;

-- How far a job has come with a period: the key of the last wallet looked at. The row is the job's lock; two runs of
-- one job share its work.
CREATE TABLE ledger_job (
    job              text        NOT NULL CHECK (job IN ('statements')),
    period           date        NOT NULL,
    after_bucket     smallint    NOT NULL DEFAULT -1,
    after_member_id  bigint      NOT NULL DEFAULT 0,
    after_point_type smallint    NOT NULL DEFAULT 0,
    made             bigint      NOT NULL DEFAULT 0,
    started_at       timestamptz NOT NULL,
    finished_at      timestamptz,
    PRIMARY KEY (job, period)
);
GRANT SELECT, INSERT ON ledger_job TO tessera_app;
GRANT UPDATE (after_bucket, after_member_id, after_point_type, made, finished_at) ON ledger_job TO tessera_app;

-- Issues the statements of a month for the next p_limit wallets after a key, and says where it stopped: no key when no
-- wallet was left. A statement takes up where the one before ended and goes as far as the wallet's first entry of a
-- later month. What another run has issued stays as it is.
--
-- As in ledger_write, every access is by key whatever the statistics say.
CREATE FUNCTION ledger_issue_statements(
    p_period date, p_after_bucket smallint, p_after_member_id bigint, p_after_point_type smallint, p_limit int,
    p_now timestamptz
) RETURNS TABLE (bucket smallint, member_id bigint, point_type smallint, made bigint)
    LANGUAGE sql
    SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
    SET enable_material = off AS $$
WITH batch AS MATERIALIZED (
    SELECT w.bucket, w.member_id, w.point_type, w.seq
      FROM ledger_wallet AS w
     WHERE (w.bucket, w.member_id, w.point_type) > (p_after_bucket, p_after_member_id, p_after_point_type)
     ORDER BY w.bucket, w.member_id, w.point_type
     LIMIT p_limit
), issued AS (
    INSERT INTO ledger_statement (
        bucket, member_id, point_type, period, opening_points, earned_points, restored_points, spent_points,
        expired_points, clawed_points, repaid_points, closing_points, closing_held_points, opening_arrears_points,
        owed_points, closing_arrears_points, first_seq, last_seq, head_hash, issued_at)
    SELECT w.bucket, w.member_id, w.point_type, p_period, coalesce(previous.closing_points, 0), moved.earned,
           moved.restored, moved.spent, moved.expired, moved.clawed, moved.repaid,
           last.available_after + last.held_after + last.pending_after, last.held_after,
           coalesce(previous.closing_arrears_points, 0), moved.owed, last.arrears_after,
           coalesce(previous.last_seq, 0) + 1, last.seq, last.hash, p_now
      FROM batch AS w
      LEFT JOIN LATERAL (
           SELECT s.last_seq, s.closing_points, s.closing_arrears_points
             FROM ledger_statement AS s
            WHERE s.bucket = w.bucket AND s.member_id = w.member_id AND s.point_type = w.point_type
              AND s.period < p_period
            ORDER BY s.period DESC
            LIMIT 1) AS previous ON true
      LEFT JOIN LATERAL (
           SELECT e.seq
             FROM ledger_entry AS e
            WHERE e.bucket = w.bucket AND e.member_id = w.member_id AND e.point_type = w.point_type
              AND e.seq > coalesce(previous.last_seq, 0) AND e.business_on >= p_period + interval '1 month'
            ORDER BY e.seq
            LIMIT 1) AS later ON true
     CROSS JOIN LATERAL (
           SELECT coalesce(sum(e.points) FILTER (WHERE e.movement = 'earned'), 0) AS earned,
                  coalesce(sum(e.points) FILTER (WHERE e.movement = 'restored'), 0) AS restored,
                  coalesce(sum(e.points) FILTER (WHERE e.movement = 'spent'), 0) AS spent,
                  coalesce(sum(e.points) FILTER (WHERE e.movement = 'expired'), 0) AS expired,
                  coalesce(sum(e.points) FILTER (WHERE e.movement = 'clawed'), 0) AS clawed,
                  coalesce(sum(e.points) FILTER (WHERE e.movement = 'repaid'), 0) AS repaid,
                  coalesce(sum(e.points) FILTER (WHERE e.movement = 'owed'), 0) AS owed,
                  max(e.seq) AS last_seq
             FROM (SELECT n.seq, n.points, ledger_movement(n.debit_account, n.credit_account) AS movement
                     FROM ledger_entry AS n
                    WHERE n.bucket = w.bucket AND n.member_id = w.member_id AND n.point_type = w.point_type
                      AND n.seq > coalesce(previous.last_seq, 0)
                      AND n.seq < coalesce(later.seq, 9223372036854775807)) AS e) AS moved
      JOIN ledger_entry AS last
        ON last.bucket = w.bucket AND last.member_id = w.member_id AND last.point_type = w.point_type
       AND last.seq = moved.last_seq
     WHERE w.seq > coalesce(previous.last_seq, 0)
        ON CONFLICT ON CONSTRAINT ledger_statement_pkey DO NOTHING
    RETURNING 1
)
SELECT b.bucket, b.member_id, b.point_type, (SELECT count(*) FROM issued)
  FROM batch AS b
 ORDER BY b.bucket DESC, b.member_id DESC, b.point_type DESC
 LIMIT 1
$$;

------------------------------------------------------------------------------------------------------------------
-- Seals
------------------------------------------------------------------------------------------------------------------

-- Merkle trees as in RFC 6962 §2.1: leaves and nodes are told apart by their first byte, and so is a seal. A leaf names
-- a wallet and the last link of its chain, which seals all its entries up to that number.
CREATE FUNCTION ledger_leaf_hash(bucket smallint, member_id bigint, point_type smallint, seq bigint, hash bytea)
    RETURNS bytea
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN sha256('\x00'::bytea || int2send(bucket) || int8send(member_id) || int2send(point_type) || int8send(seq) || hash);

-- The root above leaf hashes in order: neighbours are joined level by level, an odd last one moves up as it is. Sets
-- and not subscripts: reaching into an array of bytea costs its length.
CREATE FUNCTION ledger_merkle_root(leaves bytea[]) RETURNS bytea
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    level bytea[] := leaves;
BEGIN
    IF cardinality(level) = 0 THEN
        RETURN sha256('');
    END IF;
    WHILE cardinality(level) > 1 LOOP
        SELECT array_agg(pair.node ORDER BY pair.place) INTO level
          FROM (SELECT (n.place - 1) / 2 AS place,
                       CASE count(*) WHEN 2 THEN sha256('\x01'::bytea || string_agg(n.hash, ''::bytea ORDER BY n.place))
                                     ELSE string_agg(n.hash, ''::bytea) END AS node
                  FROM unnest(level) WITH ORDINALITY AS n (hash, place)
                 GROUP BY (n.place - 1) / 2) AS pair;
    END LOOP;
    RETURN level[1];
END $$;

CREATE FUNCTION ledger_seal_hash(lane smallint, business_on date, leaves bigint, root bytea, previous_hash bytea)
    RETURNS bytea
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN sha256('\x02'::bytea || int2send(lane) || date_send(business_on) || int8send(leaves) || root || previous_hash);

-- One day of one lane (128 neighbouring buckets): the root above every wallet that moved that day, chained to the day
-- before without a gap. A wallet that did not move is sealed by its last leaf. The signature is a compact JWS of the
-- platform's key over these figures; its public key stands beside it, because keys are rotated. Append-only.
CREATE TABLE ledger_seal (
    lane          smallint    NOT NULL CHECK (lane BETWEEN 0 AND 7),
    business_on   date        NOT NULL,
    leaves        bigint      NOT NULL CHECK (leaves >= 0),
    root          bytea       NOT NULL CHECK (length(root) = 32),
    previous_hash bytea       NOT NULL,
    previous_on   date        GENERATED ALWAYS AS (CASE WHEN previous_hash <> '\x' THEN business_on - 1 END) STORED,
    hash          bytea       NOT NULL,
    signature     text,
    signing_jwk   jsonb,
    sealed_at     timestamptz NOT NULL,
    PRIMARY KEY (lane, business_on),
    CONSTRAINT ledger_seal_end UNIQUE (lane, business_on, hash),
    CONSTRAINT ledger_seal_link
        FOREIGN KEY (lane, previous_on, previous_hash) REFERENCES ledger_seal (lane, business_on, hash),
    CONSTRAINT ledger_seal_hashes CHECK (hash = ledger_seal_hash(lane, business_on, leaves, root, previous_hash)),
    CHECK ((signature IS NULL) = (signing_jwk IS NULL))
);
GRANT SELECT, INSERT ON ledger_seal TO tessera_app;

------------------------------------------------------------------------------------------------------------------
-- Search
------------------------------------------------------------------------------------------------------------------

-- Finds operations by a partner's number without a member: a bloom filter for each quarter of a megabyte, written when
-- the range is full, so that posting does not pay for it.
CREATE INDEX ledger_operation_reference ON ledger_operation USING brin (
    source_ref text_bloom_ops (n_distinct_per_range = 1500), refund_ref text_bloom_ops (n_distinct_per_range = 500)
) WITH (pages_per_range = 32, autosummarize = on);

------------------------------------------------------------------------------------------------------------------
-- The books check
------------------------------------------------------------------------------------------------------------------

CREATE VIEW books_i40_statement_is_its_entries AS
SELECT s.bucket, s.member_id, s.point_type, s.period, s.first_seq, s.last_seq, m.entries, s.earned_points, m.earned,
       s.restored_points, m.restored, s.spent_points, m.spent, s.expired_points, m.expired, s.clawed_points, m.clawed,
       s.repaid_points, m.repaid, s.owed_points, m.owed, m.last_on
  FROM ledger_statement AS s
  LEFT JOIN (
       SELECT p.bucket, p.member_id, p.point_type, p.period, count(*) AS entries,
              coalesce(sum(e.points) FILTER (WHERE e.movement = 'earned'), 0) AS earned,
              coalesce(sum(e.points) FILTER (WHERE e.movement = 'restored'), 0) AS restored,
              coalesce(sum(e.points) FILTER (WHERE e.movement = 'spent'), 0) AS spent,
              coalesce(sum(e.points) FILTER (WHERE e.movement = 'expired'), 0) AS expired,
              coalesce(sum(e.points) FILTER (WHERE e.movement = 'clawed'), 0) AS clawed,
              coalesce(sum(e.points) FILTER (WHERE e.movement = 'repaid'), 0) AS repaid,
              coalesce(sum(e.points) FILTER (WHERE e.movement = 'owed'), 0) AS owed,
              max(e.business_on) AS last_on
         FROM ledger_statement AS p
         JOIN (SELECT n.bucket, n.member_id, n.point_type, n.seq, n.points, n.business_on,
                      ledger_movement(n.debit_account, n.credit_account) AS movement
                 FROM ledger_entry AS n) AS e
           ON e.bucket = p.bucket AND e.member_id = p.member_id AND e.point_type = p.point_type
          AND e.seq BETWEEN p.first_seq AND p.last_seq
        GROUP BY p.bucket, p.member_id, p.point_type, p.period) AS m
    ON m.bucket = s.bucket AND m.member_id = s.member_id AND m.point_type = s.point_type AND m.period = s.period
  LEFT JOIN ledger_entry AS last
    ON last.bucket = s.bucket AND last.member_id = s.member_id AND last.point_type = s.point_type
   AND last.seq = s.last_seq
 WHERE (s.earned_points, s.restored_points, s.spent_points, s.expired_points, s.clawed_points, s.repaid_points,
        s.owed_points, s.last_seq - s.first_seq + 1)
       IS DISTINCT FROM (m.earned, m.restored, m.spent, m.expired, m.clawed, m.repaid, m.owed, m.entries)
    OR (s.closing_points, s.closing_held_points, s.closing_arrears_points, s.head_hash)
       IS DISTINCT FROM (last.available_after + last.held_after + last.pending_after, last.held_after,
                         last.arrears_after, last.hash)
    OR m.last_on >= s.period + interval '1 month';
COMMENT ON VIEW books_i40_statement_is_its_entries IS
    'A statement is the sum of its entries by what they mean, ends as the last of them left the wallet, and has none of a later month.';

CREATE VIEW books_i41_statements_follow_each_other AS
SELECT s.bucket, s.member_id, s.point_type, s.period, s.first_seq, s.previous_last, s.opening_points,
       s.previous_points, s.opening_arrears_points, s.previous_arrears, NULL::bigint AS left_out_seq
  FROM (SELECT n.*, lag(n.last_seq, 1, 0::bigint) OVER wallet AS previous_last,
               lag(n.closing_points, 1, 0::bigint) OVER wallet AS previous_points,
               lag(n.closing_arrears_points, 1, 0::bigint) OVER wallet AS previous_arrears
          FROM ledger_statement AS n
        WINDOW wallet AS (PARTITION BY n.bucket, n.member_id, n.point_type ORDER BY n.period)) AS s
 WHERE (s.first_seq, s.opening_points, s.opening_arrears_points)
       <> (s.previous_last + 1, s.previous_points, s.previous_arrears)
UNION ALL
SELECT e.bucket, e.member_id, e.point_type, e.period, NULL, s.last_seq, NULL, NULL, NULL, NULL, e.seq
  FROM (SELECT n.bucket, n.member_id, n.point_type, max(n.seq) AS seq, date_trunc('month', max(n.business_on))::date AS period
          FROM ledger_entry AS n
         WHERE n.business_on < (SELECT max(j.period) + interval '1 month' FROM ledger_job AS j
                                 WHERE j.job = 'statements' AND j.finished_at IS NOT NULL)
         GROUP BY n.bucket, n.member_id, n.point_type) AS e
  LEFT JOIN (SELECT bucket, member_id, point_type, max(last_seq) AS last_seq
               FROM ledger_statement
              GROUP BY bucket, member_id, point_type) AS s
    ON s.bucket = e.bucket AND s.member_id = e.member_id AND s.point_type = e.point_type
 WHERE e.seq > coalesce(s.last_seq, 0);
COMMENT ON VIEW books_i41_statements_follow_each_other IS
    'A statement begins where the wallet''s one before ended, with its figures, and no entry of a month that was closed is on none.';

CREATE VIEW books_i42_seals AS
SELECT s.lane, s.business_on, s.leaves, d.leaves AS leaves_found, s.previous_on, s.previous_found
  FROM (SELECT n.*, lag(n.hash, 1, '\x'::bytea) OVER lane AS previous_found,
               lag(n.business_on, 1, n.business_on - 1) OVER lane AS day_before
          FROM ledger_seal AS n
        WINDOW lane AS (PARTITION BY n.lane ORDER BY n.business_on)) AS s
  LEFT JOIN (
       SELECT head.bucket / 128 AS lane, head.business_on, count(*) AS leaves,
              array_agg(ledger_leaf_hash(head.bucket, head.member_id, head.point_type, head.seq, head.hash)
                        ORDER BY head.bucket, head.member_id, head.point_type) AS hashes
         FROM (SELECT DISTINCT ON (e.business_on, e.bucket, e.member_id, e.point_type)
                      e.business_on, e.bucket, e.member_id, e.point_type, e.seq, e.hash
                 FROM ledger_entry AS e
                ORDER BY e.business_on, e.bucket, e.member_id, e.point_type, e.seq DESC) AS head
        GROUP BY head.bucket / 128, head.business_on) AS d ON d.lane = s.lane AND d.business_on = s.business_on
 WHERE s.leaves <> coalesce(d.leaves, 0)
    OR s.root <> ledger_merkle_root(coalesce(d.hashes, '{}'))
    OR s.hash <> ledger_seal_hash(s.lane, s.business_on, s.leaves, s.root, s.previous_hash)
    OR s.previous_hash <> s.previous_found
    OR s.day_before <> s.business_on - 1;
COMMENT ON VIEW books_i42_seals IS
    'Every seal is the root above the wallets that moved on its day, as they stood, and follows the seal of the day before.';

-- The rules' figures by version; points.earning.rules has the same, and a test compares them.
CREATE VIEW books_earning_rule AS
SELECT rule.version, rule.fen_per_point FROM (VALUES (1, 100)) AS rule (version, fen_per_point);
GRANT SELECT ON books_earning_rule TO tessera_app;

CREATE VIEW books_i43_earnings_replay AS
SELECT o.bucket, o.member_id, o.id, o.points, l.points AS lots_points, l.base, o.amount_fen, o.multiplier_pct, o.tier,
       o.rule_version
  FROM ledger_operation AS o
  LEFT JOIN books_earning_rule AS rule ON rule.version = o.rule_version
  LEFT JOIN (SELECT bucket, member_id, operation_id, sum(points) AS points,
                    sum(points) FILTER (WHERE campaign IS NULL) AS base
               FROM ledger_lot
              GROUP BY bucket, member_id, operation_id) AS l
    ON l.bucket = o.bucket AND l.member_id = o.member_id AND l.operation_id = o.id
 WHERE o.kind = 'earn'
   AND (coalesce(l.base, 0) IS DISTINCT FROM div(o.amount_fen::numeric * o.multiplier_pct, rule.fen_per_point * 100)
        OR coalesce(l.points, 0) <> o.points
        OR NOT EXISTS (SELECT FROM membership_matrix AS m
                        WHERE m.tier = o.tier AND m.multiplier_pct = o.multiplier_pct));
COMMENT ON VIEW books_i43_earnings_replay IS
    'Every earning, computed again from the amount, multiplier and rule stored with it, gives the points it was granted.';

GRANT SELECT ON
    books_i40_statement_is_its_entries, books_i41_statements_follow_each_other, books_i42_seals,
    books_i43_earnings_replay
    TO tessera_app;
