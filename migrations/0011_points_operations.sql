-- What else happens to points: spent at once, adjusted by two people, given to another member, exchanged for points of
-- another type. The kinds, accounts and moves are there since 0009; here are the records that stand beside them.

-- A type of points never changes once it is there: amounts computed with its value stay true.
GRANT INSERT ON ledger_point_type TO tessera_app;
ALTER TABLE ledger_point_type ADD CONSTRAINT ledger_point_type_name CHECK (name ~ '^[a-z][a-z0-9_]{0,31}$');

------------------------------------------------------------------------------------------------------------------
-- Adjustments
------------------------------------------------------------------------------------------------------------------

-- Points the bank gives or takes by its own decision: one of its people proposes, another decides. The operation of a
-- posted adjustment has the adjustment's id. Points are signed: taken when below zero.
CREATE TABLE ledger_adjustment (
    bucket      smallint    NOT NULL,
    member_id   bigint      NOT NULL,
    id          uuid        NOT NULL,
    point_type  smallint    NOT NULL,
    points      bigint      NOT NULL CHECK (points <> 0),
    funder_id   int         NOT NULL,
    reason_code text        NOT NULL CHECK (reason_code ~ '^[a-z][a-z0-9_]{0,31}$'),
    reason      text        NOT NULL CHECK (length(reason) BETWEEN 1 AND 500),
    state       text        NOT NULL DEFAULT 'proposed' CHECK (state IN ('proposed', 'posted', 'rejected', 'expired')),
    proposed_by text        NOT NULL,
    proposed_at timestamptz NOT NULL,
    -- from this instant on it can only be proposed anew
    expires_at  timestamptz NOT NULL CHECK (expires_at > proposed_at),
    -- nobody when time decided
    decided_by  text,
    decided_at  timestamptz,
    PRIMARY KEY (bucket, member_id, id),
    CONSTRAINT ledger_adjustment_two_people CHECK (decided_by <> proposed_by),
    CHECK ((state = 'proposed') = (decided_at IS NULL)),
    CHECK ((state IN ('posted', 'rejected')) = (decided_by IS NOT NULL)),
    CHECK (state <> 'posted' OR decided_at < expires_at)
);
CREATE INDEX ledger_adjustment_id ON ledger_adjustment (id);
CREATE INDEX ledger_adjustment_open ON ledger_adjustment (expires_at) WHERE state = 'proposed';
GRANT SELECT, INSERT ON ledger_adjustment TO tessera_app;
GRANT UPDATE (state, decided_by, decided_at) ON ledger_adjustment TO tessera_app;

------------------------------------------------------------------------------------------------------------------
-- Transfers
------------------------------------------------------------------------------------------------------------------

-- Points on their way from one member to another: two transactions, each of one member's bucket. The first takes them
-- from the sender's lots into transit, the second grants them to the receiver or gives them back. Its row lies with the
-- sender. The operation that sent it has the transfer's id; `ended_by` is the one that ended it.
CREATE TABLE ledger_transfer (
    bucket         smallint    NOT NULL,
    from_member_id bigint      NOT NULL,
    id             uuid        NOT NULL,
    point_type     smallint    NOT NULL,
    partner_id     uuid        NOT NULL,
    transfer_ref   text        NOT NULL,
    to_bucket      smallint    NOT NULL,
    to_member_id   bigint      NOT NULL CHECK (to_member_id <> from_member_id),
    points         bigint      NOT NULL CHECK (points > 0),
    state          text        NOT NULL DEFAULT 'sent' CHECK (state IN ('sent', 'arrived', 'returned')),
    sent_at        timestamptz NOT NULL,
    sent_on        date        NOT NULL,
    ended_at       timestamptz,
    ended_by       uuid,
    PRIMARY KEY (bucket, from_member_id, id),
    CONSTRAINT ledger_transfer_once UNIQUE (bucket, from_member_id, partner_id, transfer_ref),
    CHECK ((state = 'sent') = (ended_at IS NULL)),
    CHECK ((state = 'sent') = (ended_by IS NULL))
);
CREATE INDEX ledger_transfer_id ON ledger_transfer (id);
CREATE INDEX ledger_transfer_under_way ON ledger_transfer (sent_at) WHERE state = 'sent';
CREATE INDEX ledger_transfer_of_day ON ledger_transfer (bucket, from_member_id, sent_on);
GRANT SELECT, INSERT ON ledger_transfer TO tessera_app;
GRANT UPDATE (state, ended_at, ended_by) ON ledger_transfer TO tessera_app;

-- The lots a transfer takes along, with all that goes with them: whoever ends it needs no row of the sender's lots
-- unless they go back there. Append-only.
CREATE TABLE ledger_transfer_lot (
    bucket         smallint    NOT NULL,
    from_member_id bigint      NOT NULL,
    transfer_id    uuid        NOT NULL,
    lot_seq        bigint      NOT NULL,
    points         bigint      NOT NULL CHECK (points > 0),
    funder_id      int         NOT NULL,
    unit_cost_e6   bigint      NOT NULL,
    campaign       text,
    rule_version   int,
    effective_at   timestamptz NOT NULL,
    expires_at     timestamptz,
    PRIMARY KEY (bucket, from_member_id, transfer_id, lot_seq)
);
GRANT SELECT, INSERT ON ledger_transfer_lot TO tessera_app;

------------------------------------------------------------------------------------------------------------------
-- Exchanges
------------------------------------------------------------------------------------------------------------------

-- What points of one type are worth in points of another, from a moment on: numerator target points for denominator
-- points. The last version whose moment has come counts. Append-only.
CREATE TABLE ledger_exchange_rate (
    from_type   smallint    NOT NULL REFERENCES ledger_point_type,
    to_type     smallint    NOT NULL REFERENCES ledger_point_type,
    version     int         NOT NULL CHECK (version > 0),
    numerator   bigint      NOT NULL CHECK (numerator BETWEEN 1 AND 1000000),
    denominator bigint      NOT NULL CHECK (denominator BETWEEN 1 AND 1000000),
    valid_from  timestamptz NOT NULL,
    set_by      text        NOT NULL,
    set_at      timestamptz NOT NULL,
    PRIMARY KEY (from_type, to_type, version),
    CHECK (from_type <> to_type)
);
GRANT SELECT, INSERT ON ledger_exchange_rate TO tessera_app;

-- An exchange is posted once for ever under a partner's number of it.
CREATE UNIQUE INDEX ledger_operation_exchange ON ledger_operation (bucket, member_id, partner_id, source_ref)
    WHERE kind = 'exchange';

------------------------------------------------------------------------------------------------------------------
-- Published: what settlement reads
------------------------------------------------------------------------------------------------------------------

-- A spend at once counts as a hold's capture does.
CREATE OR REPLACE VIEW ledger_settlement_source AS
SELECT o.partner_id, o.id AS operation_id, o.id::text || ':' || e.seq AS entry_ref, leg.kind, f.code AS funder,
       o.bucket, e.points,
       CASE WHEN leg.at_cost THEN e.value_fen ELSE div(e.points::numeric * t.value_fen_e6, 1000000)::bigint END
           AS amount_fen,
       e.business_on, e.recorded_at
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
  JOIN ledger_point_type AS t ON t.code = e.point_type;

------------------------------------------------------------------------------------------------------------------
-- Statements
------------------------------------------------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION ledger_movement(debit_account smallint, credit_account smallint) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE
        WHEN debit_account IN (1, 2, 3) AND credit_account IN (1, 2, 3) THEN 'moved'
        WHEN debit_account = 10 AND credit_account IN (1, 3) THEN 'earned'
        WHEN debit_account = 11 AND credit_account = 1 THEN 'restored'
        WHEN debit_account IN (1, 2) AND credit_account = 11 THEN 'spent'
        WHEN debit_account = 1 AND credit_account = 12 THEN 'expired'
        WHEN debit_account IN (1, 3) AND credit_account = 10 THEN 'clawed'
        WHEN debit_account = 1 AND credit_account = 4 THEN 'repaid'
        WHEN debit_account = 4 AND credit_account = 10 THEN 'owed'
        WHEN debit_account = 14 AND credit_account = 1 THEN 'adjusted_in'
        WHEN debit_account = 1 AND credit_account = 14 THEN 'adjusted_out'
        WHEN debit_account = 13 AND credit_account = 1 THEN 'transferred_in'
        WHEN debit_account = 1 AND credit_account = 13 THEN 'transferred_out'
        WHEN debit_account = 15 AND credit_account = 1 THEN 'exchanged_in'
        WHEN debit_account = 1 AND credit_account = 15 THEN 'exchanged_out'
    END;

-- A transfer that came back is both out and in.
ALTER TABLE ledger_statement
    ADD COLUMN adjusted_in_points     bigint NOT NULL DEFAULT 0 CHECK (adjusted_in_points >= 0),
    ADD COLUMN adjusted_out_points    bigint NOT NULL DEFAULT 0 CHECK (adjusted_out_points >= 0),
    ADD COLUMN transferred_in_points  bigint NOT NULL DEFAULT 0 CHECK (transferred_in_points >= 0),
    ADD COLUMN transferred_out_points bigint NOT NULL DEFAULT 0 CHECK (transferred_out_points >= 0),
    ADD COLUMN exchanged_in_points    bigint NOT NULL DEFAULT 0 CHECK (exchanged_in_points >= 0),
    ADD COLUMN exchanged_out_points   bigint NOT NULL DEFAULT 0 CHECK (exchanged_out_points >= 0);
ALTER TABLE ledger_statement DROP CONSTRAINT ledger_statement_closes;
ALTER TABLE ledger_statement ADD CONSTRAINT ledger_statement_closes
    CHECK (closing_points = opening_points + earned_points + restored_points
                          + adjusted_in_points + transferred_in_points + exchanged_in_points
                          - spent_points - expired_points - clawed_points - repaid_points
                          - adjusted_out_points - transferred_out_points - exchanged_out_points);

-- Issues the statements of a month for the next p_limit wallets after a key, and says where it stopped: no key when no
-- wallet was left. A statement takes up where the one before ended and goes as far as the wallet's first entry of a
-- later month. What another run has issued stays as it is.
--
-- As in ledger_write, every access is by key whatever the statistics say.
CREATE OR REPLACE FUNCTION ledger_issue_statements(
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
        owed_points, closing_arrears_points, first_seq, last_seq, head_hash, issued_at,
        adjusted_in_points, adjusted_out_points, transferred_in_points, transferred_out_points,
        exchanged_in_points, exchanged_out_points)
    SELECT w.bucket, w.member_id, w.point_type, p_period, coalesce(previous.closing_points, 0), moved.earned,
           moved.restored, moved.spent, moved.expired, moved.clawed, moved.repaid,
           last.available_after + last.held_after + last.pending_after, last.held_after,
           coalesce(previous.closing_arrears_points, 0), moved.owed, last.arrears_after,
           coalesce(previous.last_seq, 0) + 1, last.seq, last.hash, p_now, moved.adjusted_in, moved.adjusted_out,
           moved.transferred_in, moved.transferred_out, moved.exchanged_in, moved.exchanged_out
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
                  coalesce(sum(e.points) FILTER (WHERE e.movement = 'adjusted_in'), 0) AS adjusted_in,
                  coalesce(sum(e.points) FILTER (WHERE e.movement = 'adjusted_out'), 0) AS adjusted_out,
                  coalesce(sum(e.points) FILTER (WHERE e.movement = 'transferred_in'), 0) AS transferred_in,
                  coalesce(sum(e.points) FILTER (WHERE e.movement = 'transferred_out'), 0) AS transferred_out,
                  coalesce(sum(e.points) FILTER (WHERE e.movement = 'exchanged_in'), 0) AS exchanged_in,
                  coalesce(sum(e.points) FILTER (WHERE e.movement = 'exchanged_out'), 0) AS exchanged_out,
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
-- The books check
------------------------------------------------------------------------------------------------------------------

CREATE OR REPLACE VIEW books_i40_statement_is_its_entries AS
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
              coalesce(sum(e.points) FILTER (WHERE e.movement = 'adjusted_in'), 0) AS adjusted_in,
              coalesce(sum(e.points) FILTER (WHERE e.movement = 'adjusted_out'), 0) AS adjusted_out,
              coalesce(sum(e.points) FILTER (WHERE e.movement = 'transferred_in'), 0) AS transferred_in,
              coalesce(sum(e.points) FILTER (WHERE e.movement = 'transferred_out'), 0) AS transferred_out,
              coalesce(sum(e.points) FILTER (WHERE e.movement = 'exchanged_in'), 0) AS exchanged_in,
              coalesce(sum(e.points) FILTER (WHERE e.movement = 'exchanged_out'), 0) AS exchanged_out,
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
        s.owed_points, s.adjusted_in_points, s.adjusted_out_points, s.transferred_in_points, s.transferred_out_points,
        s.exchanged_in_points, s.exchanged_out_points, s.last_seq - s.first_seq + 1)
       IS DISTINCT FROM (m.earned, m.restored, m.spent, m.expired, m.clawed, m.repaid, m.owed,
                             m.adjusted_in, m.adjusted_out, m.transferred_in, m.transferred_out, m.exchanged_in,
                             m.exchanged_out, m.entries)
    OR (s.closing_points, s.closing_held_points, s.closing_arrears_points, s.head_hash)
       IS DISTINCT FROM (last.available_after + last.held_after + last.pending_after, last.held_after,
                         last.arrears_after, last.hash)
    OR m.last_on >= s.period + interval '1 month';

CREATE OR REPLACE VIEW books_i15_hold_operations AS
SELECT h.bucket, h.member_id, h.id, h.state, h.closed_by, opened.id AS opened_by, c.kind
  FROM ledger_hold AS h
  LEFT JOIN ledger_operation AS opened
    ON opened.bucket = h.bucket AND opened.member_id = h.member_id AND opened.id = h.id
   AND opened.kind = CASE WHEN h.closed_by = h.id THEN 'spend' ELSE 'hold' END
  LEFT JOIN ledger_operation AS c ON c.bucket = h.bucket AND c.member_id = h.member_id AND c.id = h.closed_by
 WHERE opened.points IS DISTINCT FROM h.points
    OR opened.partner_id IS DISTINCT FROM h.partner_id
    OR opened.point_type IS DISTINCT FROM h.point_type
    OR (h.state <> 'open' AND (c.kind, c.hold_id) IS DISTINCT FROM (
           CASE WHEN h.closed_by = h.id AND h.state = 'captured' AND h.captured_points = h.points THEN 'spend'
                WHEN h.state = 'captured' THEN 'capture' WHEN h.state = 'released' THEN 'release' ELSE 'lapse' END,
           h.id));
COMMENT ON VIEW books_i15_hold_operations IS
    'A hold was opened by one operation, and the one that closed it is of the kind its state says; a spend opens and captures the whole of it at once.';

CREATE OR REPLACE VIEW books_i21_operations_are_told AS
SELECT o.bucket, o.member_id, o.id, o.kind
  FROM ledger_operation AS o
  LEFT JOIN outbox_event AS e ON o.kind = 'earn' AND e.bucket = o.bucket AND e.id = o.id
 WHERE o.kind = 'earn' AND (e.type, e.partner_id) IS DISTINCT FROM ('points.earned', o.partner_id)
UNION ALL
SELECT o.bucket, o.member_id, o.id, o.kind
  FROM ledger_operation AS o
  LEFT JOIN outbox_event AS e
    ON e.bucket = o.bucket AND e.partner_id = o.partner_id
   AND e.type = CASE o.kind WHEN 'capture' THEN 'points.hold.captured' WHEN 'release' THEN 'points.hold.released'
                            WHEN 'lapse' THEN 'points.hold.lapsed' WHEN 'spend' THEN 'points.spent'
                            WHEN 'transfer_out' THEN 'points.transfer.sent' WHEN 'exchange' THEN 'points.exchanged'
                            ELSE 'points.reversed' END
   AND e.aggregate = CASE WHEN o.kind IN ('reverse_earn', 'reverse_spend', 'exchange') THEN books_wire_id('ent', o.id)
                          WHEN o.kind = 'transfer_out' THEN books_wire_id('trf', o.id)
                          ELSE books_wire_id('hld', o.hold_id) END
 WHERE o.kind IN ('capture', 'release', 'lapse', 'spend', 'reverse_earn', 'reverse_spend', 'transfer_out', 'exchange')
   AND e.id IS NULL
UNION ALL
SELECT t.bucket, t.from_member_id, t.id, t.state
  FROM ledger_transfer AS t
  LEFT JOIN outbox_event AS e
    ON e.bucket = t.bucket AND e.partner_id = t.partner_id AND e.type = 'points.transfer.' || t.state
   AND e.aggregate = books_wire_id('trf', t.id)
 WHERE e.id IS NULL
UNION ALL
SELECT bucket, NULL, NULL, type
  FROM outbox_event
 WHERE type LIKE 'points.hold.%' OR type LIKE 'points.transfer.%'
    OR type IN ('points.reversed', 'points.spent', 'points.exchanged')
 GROUP BY bucket, partner_id, type, aggregate
HAVING count(*) > 1;
COMMENT ON VIEW books_i21_operations_are_told IS
    'Every earning, spend, end of a hold, reversal, exchange and step of a transfer has its event, once. Placing a hold is the partner''s own act, expiry nobody''s and an adjustment the bank''s: they have none.';

CREATE OR REPLACE VIEW books_i33_points_end_in_time AS
SELECT m.bucket, m.member_id, m.seq, m.lot_seq, NULL::uuid AS hold_id, m.kind, e.recorded_at AS moved_at,
       l.expires_at AS ends_at
  FROM ledger_lot_move AS m
  JOIN ledger_lot AS l USING (bucket, member_id, point_type, lot_seq)
  JOIN ledger_entry AS e USING (bucket, member_id, point_type, seq)
 WHERE CASE WHEN m.kind = 'expire' THEN l.expires_at IS NULL OR e.recorded_at < l.expires_at
            ELSE m.kind IN ('hold', 'claw', 'restore', 'repay', 'spend', 'adjust', 'transfer', 'exchange')
                 AND l.expires_at <= e.recorded_at END
UNION ALL
SELECT bucket, member_id, NULL, NULL, id, state, closed_at, deadline_at
  FROM ledger_hold
 WHERE (state = 'captured' AND closed_at >= deadline_at) OR (state = 'lapsed' AND closed_at < deadline_at);

CREATE VIEW books_i63_transfers AS
SELECT coalesce(t.bucket, o.bucket) AS bucket, coalesce(t.from_member_id, o.member_id) AS member_id,
       coalesce(t.id, o.id) AS id, t.state, t.points, o.kind, o.points AS moved_points
  FROM ledger_transfer AS t
  FULL JOIN (SELECT * FROM ledger_operation WHERE kind = 'transfer_out') AS o
    ON o.bucket = t.bucket AND o.member_id = t.from_member_id AND o.id = t.id
 WHERE (t.points, t.point_type, t.partner_id, t.transfer_ref, t.sent_at)
       IS DISTINCT FROM (o.points, o.point_type, o.partner_id, o.source_ref, o.recorded_at)
UNION ALL
SELECT coalesce(t.bucket, o.bucket), coalesce(t.from_member_id, o.member_id), coalesce(t.id, o.id), t.state, t.points,
       o.kind, o.points
  FROM (SELECT * FROM ledger_transfer WHERE state <> 'sent') AS t
  FULL JOIN (SELECT * FROM ledger_operation WHERE kind = 'transfer_in') AS o
    ON o.id = t.ended_by
   AND o.bucket = CASE t.state WHEN 'arrived' THEN t.to_bucket ELSE t.bucket END
   AND o.member_id = CASE t.state WHEN 'arrived' THEN t.to_member_id ELSE t.from_member_id END
 WHERE (t.points, t.point_type, t.partner_id, t.transfer_ref, t.ended_at)
       IS DISTINCT FROM (o.points, o.point_type, o.partner_id, o.source_ref, o.recorded_at);
COMMENT ON VIEW books_i63_transfers IS
    'A transfer left its sender by one operation and ended by one: at the receiver when it arrived, at the sender when it returned.';

CREATE VIEW books_i64_in_transit AS
SELECT coalesce(s.point_type, t.point_type) AS point_type, coalesce(s.funder_id, t.funder_id) AS funder_id,
       s.points AS in_transit_points, t.points AS under_way_points
  FROM (SELECT point_type, funder_id, sum(credit_points - debit_points) AS points
          FROM ledger_house_slot
         WHERE account = 13
         GROUP BY point_type, funder_id) AS s
  FULL JOIN (SELECT t.point_type, l.funder_id, sum(l.points) AS points
               FROM ledger_transfer AS t
               JOIN ledger_transfer_lot AS l
                 ON l.bucket = t.bucket AND l.from_member_id = t.from_member_id AND l.transfer_id = t.id
              WHERE t.state = 'sent'
              GROUP BY t.point_type, l.funder_id) AS t
    ON t.point_type = s.point_type AND t.funder_id = s.funder_id
 WHERE coalesce(s.points, 0) <> coalesce(t.points, 0);
COMMENT ON VIEW books_i64_in_transit IS
    'Points are in transit, by type and funder, as many as transfers are under way with; none when nothing is under way.';

CREATE VIEW books_i65_transferred_lots AS
SELECT t.bucket, t.from_member_id AS member_id, t.id, l.lot_seq, l.points, m.points AS moved_points, lot.expires_at
  FROM ledger_transfer AS t
  LEFT JOIN ledger_transfer_lot AS l
    ON l.bucket = t.bucket AND l.from_member_id = t.from_member_id AND l.transfer_id = t.id
  LEFT JOIN ledger_lot AS lot
    ON lot.bucket = t.bucket AND lot.member_id = t.from_member_id AND lot.point_type = t.point_type
   AND lot.lot_seq = l.lot_seq
  LEFT JOIN (SELECT e.bucket, e.member_id, e.operation_id, n.lot_seq, sum(n.points) AS points
               FROM ledger_lot_move AS n
               JOIN ledger_entry AS e USING (bucket, member_id, point_type, seq)
              WHERE n.kind = 'transfer'
              GROUP BY e.bucket, e.member_id, e.operation_id, n.lot_seq) AS m
    ON m.bucket = t.bucket AND m.member_id = t.from_member_id AND m.operation_id = t.id AND m.lot_seq = l.lot_seq
 WHERE l.points IS DISTINCT FROM m.points
    OR (l.funder_id, l.unit_cost_e6, l.campaign, l.expires_at)
       IS DISTINCT FROM (lot.funder_id, lot.unit_cost_e6, lot.campaign, lot.expires_at)
UNION ALL
SELECT t.bucket, t.from_member_id, t.id, NULL, s.points, a.points, coalesce(s.expires_at, a.expires_at)
  FROM (SELECT * FROM ledger_transfer WHERE state = 'arrived') AS t
  JOIN (SELECT bucket, from_member_id, transfer_id, funder_id, unit_cost_e6, campaign, expires_at, sum(points) AS points
          FROM ledger_transfer_lot
         GROUP BY bucket, from_member_id, transfer_id, funder_id, unit_cost_e6, campaign, expires_at) AS s
    ON s.bucket = t.bucket AND s.from_member_id = t.from_member_id AND s.transfer_id = t.id
  LEFT JOIN (SELECT bucket, member_id, operation_id, funder_id, unit_cost_e6, campaign, expires_at, sum(points) AS points
               FROM ledger_lot
              GROUP BY bucket, member_id, operation_id, funder_id, unit_cost_e6, campaign, expires_at) AS a
    ON a.bucket = t.to_bucket AND a.member_id = t.to_member_id AND a.operation_id = t.ended_by
   AND a.funder_id = s.funder_id AND a.unit_cost_e6 = s.unit_cost_e6 AND a.campaign IS NOT DISTINCT FROM s.campaign
   AND a.expires_at IS NOT DISTINCT FROM s.expires_at
 WHERE s.points IS DISTINCT FROM a.points;
COMMENT ON VIEW books_i65_transferred_lots IS
    'What a transfer takes along is what it took of the sender''s lots, and it arrives with the same funders, costs, campaigns and ends.';

CREATE VIEW books_i66_adjustments AS
SELECT coalesce(a.bucket, o.bucket) AS bucket, coalesce(a.member_id, o.member_id) AS member_id,
       coalesce(a.id, o.id) AS id, a.state, a.points, o.points AS moved_points, r.steps
  FROM ledger_adjustment AS a
  FULL JOIN (SELECT n.bucket, n.member_id, n.id, n.point_type, n.points, n.recorded_at,
                    sum(CASE WHEN e.debit_account = 14 THEN e.points WHEN e.credit_account = 14 THEN -e.points END)
                        AS signed
               FROM ledger_operation AS n
               LEFT JOIN ledger_entry AS e
                 ON e.bucket = n.bucket AND e.member_id = n.member_id AND e.operation_id = n.id
              WHERE n.kind = 'adjust'
              GROUP BY n.bucket, n.member_id, n.id, n.point_type, n.points, n.recorded_at) AS o
    ON o.bucket = a.bucket AND o.member_id = a.member_id AND o.id = a.id
  LEFT JOIN (SELECT subject, count(*) AS steps
               FROM audit_record
              WHERE action LIKE 'adjustment.%'
              GROUP BY subject) AS r ON r.subject = books_wire_id('adj', a.id)
 WHERE a.id IS NULL
    OR (a.state = 'posted') <> (o.id IS NOT NULL)
    OR (o.id IS NOT NULL AND (a.points, a.point_type, a.decided_at) IS DISTINCT FROM (o.signed, o.point_type, o.recorded_at))
    OR (a.state = 'posted' AND (a.decided_by IS NULL OR a.decided_by = a.proposed_by))
    OR r.steps IS DISTINCT FROM CASE a.state WHEN 'proposed' THEN 1 ELSE 2 END;
COMMENT ON VIEW books_i66_adjustments IS
    'Every adjustment in the books was proposed by one of the bank''s people and posted by another, once, and the audit log has every step.';

CREATE VIEW books_i67_exchanges AS
SELECT o.bucket, o.member_id, o.id, o.points, o.calculation, s.taken, s.given, s.taken_fen, s.given_fen
  FROM ledger_operation AS o
  LEFT JOIN (SELECT bucket, member_id, operation_id,
                    sum(points) FILTER (WHERE debit_account = 1 AND credit_account = 15) AS taken,
                    sum(value_fen) FILTER (WHERE debit_account = 1 AND credit_account = 15) AS taken_fen,
                    sum(points) FILTER (WHERE debit_account = 15) AS given,
                    sum(value_fen) FILTER (WHERE debit_account = 15) AS given_fen,
                    min(point_type) FILTER (WHERE debit_account = 15) AS given_type
               FROM ledger_entry
              GROUP BY bucket, member_id, operation_id) AS s
    ON s.bucket = o.bucket AND s.member_id = o.member_id AND s.operation_id = o.id
  LEFT JOIN ledger_exchange_rate AS r
    ON r.from_type = o.point_type AND r.to_type = s.given_type AND r.version = (o.calculation ->> 'rate_version')::int
 WHERE o.kind = 'exchange'
   AND ((o.points, s.given) IS DISTINCT FROM (s.taken, div(s.taken::numeric * r.numerator, r.denominator))
        OR (r.numerator, r.denominator) IS DISTINCT FROM
           ((o.calculation ->> 'numerator')::bigint, (o.calculation ->> 'denominator')::bigint)
        OR r.valid_from > o.recorded_at
        OR s.given_fen > s.taken_fen);
COMMENT ON VIEW books_i67_exchanges IS
    'Every exchange gave what its stored rate gives for what it took, one floor at the end, and created no value for any funder.';

CREATE VIEW books_i68_point_types AS
SELECT e.bucket, e.member_id, e.point_type, e.seq, e.operation_id, o.kind, o.point_type AS operation_type
  FROM ledger_entry AS e
  JOIN ledger_operation AS o ON o.bucket = e.bucket AND o.member_id = e.member_id AND o.id = e.operation_id
  LEFT JOIN ledger_point_type AS t ON t.code = e.point_type
 WHERE t.code IS NULL
    OR (e.point_type <> o.point_type AND (o.kind <> 'exchange' OR 15 IN (e.credit_account)));
COMMENT ON VIEW books_i68_point_types IS
    'An operation moves points of its own type only; an exchange alone reaches a second wallet, of a type that is registered.';

CREATE VIEW books_i69_pinned_lots_are_of_the_holds_type AS
SELECT p.bucket, p.member_id, p.hold_id, p.lot_seq, h.point_type, p.captured, m.captured AS moved_points
  FROM ledger_hold_lot AS p
  LEFT JOIN ledger_hold AS h ON h.bucket = p.bucket AND h.member_id = p.member_id AND h.id = p.hold_id
  LEFT JOIN (SELECT n.bucket, n.member_id, n.point_type, n.lot_seq, o.hold_id, sum(n.points) AS captured
               FROM ledger_lot_move AS n
               JOIN ledger_entry AS e USING (bucket, member_id, point_type, seq)
               JOIN ledger_operation AS o
                 ON o.bucket = e.bucket AND o.member_id = e.member_id AND o.id = e.operation_id
              WHERE n.kind IN ('capture', 'spend')
              GROUP BY n.bucket, n.member_id, n.point_type, n.lot_seq, o.hold_id) AS m
    ON m.bucket = p.bucket AND m.member_id = p.member_id AND m.point_type = h.point_type AND m.lot_seq = p.lot_seq
   AND m.hold_id = p.hold_id
 WHERE p.captured <> coalesce(m.captured, 0);
COMMENT ON VIEW books_i69_pinned_lots_are_of_the_holds_type IS
    'What a hold or a spend captured of a lot left that lot, in the wallet of the hold''s own type.';

GRANT SELECT ON
    books_i63_transfers, books_i64_in_transit, books_i65_transferred_lots, books_i66_adjustments, books_i67_exchanges,
    books_i68_point_types, books_i69_pinned_lots_are_of_the_holds_type
    TO tessera_app;
