-- Rewards: what points buy (rewards_reward), what there is of it (rewards_stock, rewards_code), and who bought it
-- (rewards_redemption). Money stands behind each redemption as a hold that nobody else may close.

-- The catalogue: a reference table. What was promised never changes: another promise is another reward. Only its state
-- and the version of its price move. provider_id: the partner that gives it and is paid for it; NULL for the bank.
-- tiers and partners: who may have it, and through whom; empty for all.
CREATE TABLE rewards_reward (
    id              uuid        PRIMARY KEY,
    kind            text        NOT NULL CHECK (kind IN ('gift_card', 'fee_offset', 'service')),
    title_zh        text        NOT NULL CHECK (length(title_zh) BETWEEN 1 AND 200),
    title_en        text        NOT NULL CHECK (length(title_en) BETWEEN 1 AND 200),
    provider_id     uuid,
    stock           text        NOT NULL CHECK (stock IN ('codes', 'counted', 'unlimited')),
    offset_fen      bigint      CHECK (offset_fen > 0),
    fulfil_seconds  int         CHECK (fulfil_seconds BETWEEN 60 AND 604800),
    starts_at       timestamptz NOT NULL,
    ends_at         timestamptz,
    tiers           text[]      NOT NULL,
    partners        uuid[]      NOT NULL,
    limit_count     int         CHECK (limit_count > 0),
    limit_period    text        CHECK (limit_period IN ('day', 'month', 'year', 'ever')),
    cancel_policy   text        NOT NULL CHECK (cancel_policy IN ('none', 'until_fulfilled', 'within_days')),
    cancel_days     int         CHECK (cancel_days BETWEEN 1 AND 365),
    cancel_restocks boolean     NOT NULL,
    cancel_shown    boolean     NOT NULL,
    state           text        NOT NULL CHECK (state IN ('draft', 'active', 'paused', 'ended')),
    price_version   int         NOT NULL CHECK (price_version > 0),
    created_at      timestamptz NOT NULL,
    CHECK (ends_at > starts_at),
    CHECK ((limit_count IS NULL) = (limit_period IS NULL)),
    CHECK ((cancel_policy = 'within_days') = (cancel_days IS NOT NULL)),
    CHECK ((kind = 'gift_card') = (stock = 'codes')),
    CHECK ((kind = 'fee_offset') = (offset_fen IS NOT NULL)),
    CHECK ((kind = 'service') = (fulfil_seconds IS NOT NULL)),
    CHECK (kind <> 'service' OR provider_id IS NOT NULL),
    -- the bank's own fee, booked in another system: nobody can take it back by themselves
    CHECK (kind <> 'fee_offset' OR (provider_id IS NULL AND stock = 'unlimited' AND cancel_policy = 'none'))
);
CREATE INDEX rewards_reward_active ON rewards_reward (id) WHERE state = 'active';
GRANT SELECT, INSERT ON rewards_reward TO tessera_app;
GRANT UPDATE (state, price_version) ON rewards_reward TO tessera_app;

-- What a reward costs, by version; append-only. A redemption keeps the version it saw.
CREATE TABLE rewards_price (
    reward_id  uuid        NOT NULL REFERENCES rewards_reward,
    version    int         NOT NULL,
    points     bigint      NOT NULL CHECK (points > 0),
    point_type smallint    NOT NULL,
    since      timestamptz NOT NULL,
    PRIMARY KEY (reward_id, version)
);
GRANT SELECT, INSERT ON rewards_price TO tessera_app;

-- Pieces of a counted reward. A redemption takes one by one conditional UPDATE, so there is never one too many.
CREATE TABLE rewards_stock (
    reward_id uuid PRIMARY KEY REFERENCES rewards_reward,
    total     int  NOT NULL CHECK (total >= 0),
    taken     int  NOT NULL DEFAULT 0,
    CONSTRAINT rewards_stock_within_bounds CHECK (0 <= taken AND taken <= total)
);
GRANT SELECT, INSERT ON rewards_stock TO tessera_app;
GRANT UPDATE (total, taken) ON rewards_stock TO tessera_app;

-- Gift card codes, sealed by the vault; code_index is keyed, finds a code that was loaded before, and reveals none. A
-- code is good once, whatever card it was loaded for. It is handed to one redemption for ever.
CREATE TABLE rewards_code (
    id            uuid        PRIMARY KEY,
    reward_id     uuid        NOT NULL REFERENCES rewards_reward,
    ordinal       bigint      GENERATED ALWAYS AS IDENTITY,
    code_sealed   bytea       NOT NULL,
    code_index    bytea       NOT NULL UNIQUE,
    loaded_at     timestamptz NOT NULL,
    redemption_id uuid        UNIQUE,
    handed_at     timestamptz,
    voided_at     timestamptz,
    CHECK ((redemption_id IS NULL) = (handed_at IS NULL)),
    CHECK (voided_at IS NULL OR handed_at IS NOT NULL)
);
CREATE INDEX rewards_code_free ON rewards_code (reward_id, ordinal) WHERE redemption_id IS NULL;
GRANT SELECT, INSERT ON rewards_code TO tessera_app;
GRANT UPDATE (redemption_id, handed_at, voided_at) ON rewards_code TO tessera_app;

CREATE FUNCTION rewards_keep_code() RETURNS trigger
    LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a code is handed out once and void for ever' USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE TRIGGER rewards_code_once BEFORE UPDATE ON rewards_code
    FOR EACH ROW WHEN ((OLD.redemption_id IS NOT NULL AND NEW.redemption_id IS DISTINCT FROM OLD.redemption_id)
                    OR (OLD.voided_at IS NOT NULL AND NEW.voided_at IS DISTINCT FROM OLD.voided_at))
    EXECUTE FUNCTION rewards_keep_code();

-- How often a member has had a reward in one period, where the reward is limited.
CREATE TABLE rewards_member_use (
    bucket    smallint NOT NULL,
    member_id bigint   NOT NULL,
    reward_id uuid     NOT NULL,
    period_on date     NOT NULL,
    used      int      NOT NULL CHECK (used >= 0),
    PRIMARY KEY (bucket, member_id, reward_id, period_on)
);
GRANT SELECT, INSERT ON rewards_member_use TO tessera_app;
GRANT UPDATE (used) ON rewards_member_use TO tessera_app;

-- A member's purchase of a reward. partner_id: through whom; supplier_id: who gives it, in whose name the hold is, and
-- who is paid (the nil UUID for the bank). has_piece, counts: whether it still takes a piece of the stock and one of the
-- member's times in the period. asked_at: when the outcome of a fee offset was last asked for.
CREATE TABLE rewards_redemption (
    bucket         smallint    NOT NULL,
    member_id      bigint      NOT NULL,
    id             uuid        NOT NULL,
    partner_id     uuid        NOT NULL,
    redemption_ref text        NOT NULL,
    reward_id      uuid        NOT NULL,
    kind           text        NOT NULL CHECK (kind IN ('gift_card', 'fee_offset', 'service')),
    supplier_id    uuid        NOT NULL,
    price_version  int         NOT NULL,
    price_points   bigint      NOT NULL CHECK (price_points > 0),
    point_type     smallint    NOT NULL,
    hold_id        uuid        NOT NULL,
    code_id        uuid,
    period_on      date,
    has_piece      boolean     NOT NULL,
    counts         boolean     NOT NULL,
    state          text        NOT NULL CHECK (state IN ('requested', 'fulfilling', 'fulfilled', 'failed', 'cancelled')),
    requested_at   timestamptz NOT NULL,
    fulfil_by      timestamptz,
    fulfilled_at   timestamptz,
    closed_at      timestamptz,
    reason         text,
    shown_at       timestamptz,
    asked_at       timestamptz,
    PRIMARY KEY (bucket, member_id, id),
    UNIQUE (bucket, member_id, partner_id, redemption_ref),
    UNIQUE (bucket, member_id, hold_id),
    CHECK ((kind = 'gift_card') = (code_id IS NOT NULL)),
    CHECK (kind <> 'gift_card' OR has_piece),
    CHECK ((kind = 'service') = (fulfil_by IS NOT NULL)),
    CHECK (period_on IS NOT NULL OR NOT counts),
    CHECK ((state = 'fulfilling') <= (kind = 'fee_offset')),
    CHECK (state <> 'fulfilled' OR fulfilled_at IS NOT NULL),
    CHECK ((state IN ('failed', 'cancelled')) = (closed_at IS NOT NULL)),
    CHECK ((state = 'failed') = (reason IS NOT NULL)),
    CHECK (shown_at IS NULL OR kind = 'gift_card')
);
-- The wire id names no member; on one node this finds it.
CREATE INDEX rewards_redemption_id ON rewards_redemption (id);
CREATE INDEX rewards_redemption_due ON rewards_redemption (fulfil_by) WHERE state = 'requested';
CREATE INDEX rewards_redemption_unknown ON rewards_redemption (asked_at NULLS FIRST) WHERE state = 'fulfilling';
GRANT SELECT, INSERT ON rewards_redemption TO tessera_app;
GRANT UPDATE (has_piece, counts, state, fulfilled_at, closed_at, reason, shown_at, asked_at)
    ON rewards_redemption TO tessera_app;

------------------------------------------------------------------------------------------------------------------
-- Books
------------------------------------------------------------------------------------------------------------------

CREATE VIEW books_i70_redemptions_are_paid AS
SELECT r.bucket, r.member_id, r.id, r.state, r.price_points, p.points AS priced_points, h.state AS hold_state,
       h.captured_points, v.reversed_points
  FROM rewards_redemption AS r
  LEFT JOIN rewards_price AS p ON p.reward_id = r.reward_id AND p.version = r.price_version
  LEFT JOIN ledger_hold AS h ON h.bucket = r.bucket AND h.member_id = r.member_id AND h.id = r.hold_id
  LEFT JOIN ledger_reversible AS v
    ON v.bucket = h.bucket AND v.member_id = h.member_id AND v.operation_id = h.closed_by
 WHERE (p.points, p.point_type) IS DISTINCT FROM (r.price_points, r.point_type)
    OR (h.points, h.point_type, h.partner_id, h.manager)
       IS DISTINCT FROM (r.price_points, r.point_type, r.supplier_id, 'redemption')
    OR NOT CASE WHEN r.state = 'requested' THEN h.state IN ('open', 'lapsed')
                WHEN r.state IN ('fulfilling', 'fulfilled')
                THEN h.captured_points = r.price_points AND coalesce(v.reversed_points, 0) = 0
                ELSE h.state IN ('released', 'lapsed') OR coalesce(v.reversed_points, 0) = r.price_points END;
COMMENT ON VIEW books_i70_redemptions_are_paid IS
    'Behind every redemption stands a hold of the price it saw: captured once it is out of our hands, given back in full when it failed or was cancelled.';

CREATE VIEW books_i71_redemption_holds AS
SELECT h.bucket, h.member_id, h.id, h.state, r.id AS redemption_id, r.state AS redemption_state
  FROM ledger_hold AS h
  LEFT JOIN rewards_redemption AS r ON r.bucket = h.bucket AND r.member_id = h.member_id AND r.hold_id = h.id
 WHERE h.manager = 'redemption' AND (r.id IS NULL OR (h.state = 'open' AND r.state <> 'requested'));
COMMENT ON VIEW books_i71_redemption_holds IS
    'A hold that redemptions look after belongs to one, and is open only while that is.';

CREATE VIEW books_i72_codes_once AS
SELECT c.id AS code_id, c.reward_id, c.redemption_id, r.id, r.state, c.voided_at
  FROM (SELECT * FROM rewards_code WHERE redemption_id IS NOT NULL) AS c
  FULL JOIN (SELECT * FROM rewards_redemption WHERE code_id IS NOT NULL) AS r
    ON r.id = c.redemption_id AND r.code_id = c.id AND r.reward_id = c.reward_id
 WHERE c.id IS NULL
    OR r.id IS NULL
    OR c.handed_at <> r.requested_at
    OR (c.voided_at IS NOT NULL) <> (r.state = 'cancelled');
COMMENT ON VIEW books_i72_codes_once IS
    'Every code handed out belongs to the one redemption that names it, every such redemption has its code, and the codes of cancelled ones are void.';

CREATE VIEW books_i73_stock_and_limits AS
SELECT w.id AS reward_id, NULL::bigint AS member_id, NULL::date AS period_on, s.total AS allowed, s.taken AS counted,
       coalesce(t.pieces, 0) AS found
  FROM rewards_reward AS w
  LEFT JOIN rewards_stock AS s ON s.reward_id = w.id
  LEFT JOIN (SELECT reward_id, count(*) AS pieces FROM rewards_redemption WHERE has_piece GROUP BY reward_id) AS t
    ON t.reward_id = w.id
 WHERE CASE w.stock WHEN 'counted' THEN s.taken IS DISTINCT FROM coalesce(t.pieces, 0) OR s.total < s.taken
                    WHEN 'unlimited' THEN t.pieces > 0 OR s.reward_id IS NOT NULL
                    ELSE s.reward_id IS NOT NULL END
UNION ALL
SELECT coalesce(u.reward_id, t.reward_id), coalesce(u.member_id, t.member_id), coalesce(u.period_on, t.period_on),
       w.limit_count, coalesce(u.used, 0), coalesce(t.times, 0)
  FROM rewards_member_use AS u
  FULL JOIN (SELECT bucket, member_id, reward_id, period_on, count(*) AS times
               FROM rewards_redemption
              WHERE counts
              GROUP BY bucket, member_id, reward_id, period_on) AS t
    ON t.bucket = u.bucket AND t.member_id = u.member_id AND t.reward_id = u.reward_id AND t.period_on = u.period_on
  LEFT JOIN rewards_reward AS w ON w.id = coalesce(u.reward_id, t.reward_id)
 WHERE coalesce(u.used, 0) <> coalesce(t.times, 0) OR coalesce(t.times, 0) > coalesce(w.limit_count, 0);
COMMENT ON VIEW books_i73_stock_and_limits IS
    'What is taken of a reward''s stock, and how often a member had it in a period, is what the redemptions say, and no more than there is.';

GRANT SELECT ON
    books_i70_redemptions_are_paid, books_i71_redemption_holds, books_i72_codes_once, books_i73_stock_and_limits
    TO tessera_app;
