-- Membership: what members do, the tier that makes together with the bank's own rating, and the rights of a tier.
--
-- What was done is counted by month, apart from points: spending never lowers a tier. What the bank and a partner report
-- may come late and in any order, so it is kept with the date it is about; a judgement reads what is known and writes down
-- all it read. Versions of the rules never change; one person proposes a version, another switches it on from a date.

------------------------------------------------------------------------------------------------------------------
-- Activity
------------------------------------------------------------------------------------------------------------------

-- What a member did at a partner, once for ever. `month` is the calendar month in Asia/Shanghai in which it happened.
-- undone_fen is what refunds took back of it; nothing else ever changes.
CREATE TABLE membership_activity (
    bucket      smallint    NOT NULL,
    member_id   bigint      NOT NULL,
    partner_id  uuid        NOT NULL,
    kind        text        NOT NULL,
    source_ref  text        NOT NULL,
    month       date        NOT NULL CHECK (extract(day FROM month) = 1),
    amount_fen  bigint      NOT NULL CHECK (amount_fen >= 0),
    undone_fen  bigint      NOT NULL DEFAULT 0,
    own_card    boolean     NOT NULL,
    category    text,
    occurred_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL,
    PRIMARY KEY (bucket, member_id, partner_id, kind, source_ref),
    CONSTRAINT membership_activity_undone CHECK (undone_fen BETWEEN 0 AND amount_fen)
);
GRANT SELECT, INSERT ON membership_activity TO tessera_app;
GRANT UPDATE (undone_fen) ON membership_activity TO tessera_app;

-- The same by month: what qualifies for a shop level. An activity counts as one until all of it is undone.
CREATE TABLE membership_activity_month (
    bucket           smallint NOT NULL,
    member_id        bigint   NOT NULL,
    month            date     NOT NULL,
    qualifying_fen   bigint   NOT NULL CHECK (qualifying_fen >= 0),
    qualifying_count int      NOT NULL CHECK (qualifying_count >= 0),
    PRIMARY KEY (bucket, member_id, month)
) WITH (fillfactor = 70);
GRANT SELECT, INSERT ON membership_activity_month TO tessera_app;
GRANT UPDATE (qualifying_fen, qualifying_count) ON membership_activity_month TO tessera_app;

-- Everything that has earned counts as done.
INSERT INTO membership_activity (bucket, member_id, partner_id, kind, source_ref, month, amount_fen, undone_fen, own_card,
                                 category, occurred_at, recorded_at)
SELECT o.bucket, o.member_id, o.partner_id, o.source_kind, o.source_ref,
       date_trunc('month', o.occurred_at AT TIME ZONE 'Asia/Shanghai')::date, o.amount_fen,
       coalesce(r.reversed_fen, 0), coalesce(o.own_card, false), o.category, o.occurred_at, o.recorded_at
  FROM ledger_operation AS o
  LEFT JOIN ledger_reversible AS r
    ON r.bucket = o.bucket AND r.member_id = o.member_id AND r.operation_id = o.id
 WHERE o.kind = 'earn';
INSERT INTO membership_activity_month (bucket, member_id, month, qualifying_fen, qualifying_count)
SELECT bucket, member_id, month, sum(amount_fen - undone_fen),
       count(*) FILTER (WHERE undone_fen = 0 OR undone_fen < amount_fen)
  FROM membership_activity
 GROUP BY bucket, member_id, month;

-- What the bank says of a member, from a date on. A correction of the same date is a further revision; the last one
-- counts. Append-only.
CREATE TABLE membership_bank_level (
    bucket      smallint    NOT NULL,
    member_id   bigint      NOT NULL,
    valid_from  date        NOT NULL,
    revision    int         NOT NULL CHECK (revision > 0),
    bank_level  text        NOT NULL CHECK (bank_level IN ('express', 'comm', 'wode', 'private')),
    fed_ref     text        NOT NULL,
    recorded_at timestamptz NOT NULL,
    PRIMARY KEY (bucket, member_id, valid_from, revision)
);
GRANT SELECT, INSERT ON membership_bank_level TO tessera_app;

------------------------------------------------------------------------------------------------------------------
-- Versions of the rules
------------------------------------------------------------------------------------------------------------------

-- Who proposed what; `parts` is how many rows the version consists of. Append-only, like all that hangs on it.
CREATE TABLE membership_version (
    kind        text        NOT NULL CHECK (kind IN ('matrix', 'scheme', 'privileges')),
    version     int         NOT NULL CHECK (version > 0),
    parts       int         NOT NULL CHECK (parts >= 0),
    proposed_by text        NOT NULL CHECK (proposed_by <> ''),
    proposed_at timestamptz NOT NULL,
    PRIMARY KEY (kind, version),
    CONSTRAINT membership_version_proposer UNIQUE (kind, version, proposed_by)
);
GRANT SELECT, INSERT ON membership_version TO tessera_app;

-- From which date a version is in force, by whose second signature. Of several for one date the last one counts.
CREATE TABLE membership_switch (
    kind         text        NOT NULL,
    effective_on date        NOT NULL,
    no           bigint      NOT NULL GENERATED ALWAYS AS IDENTITY,
    version      int         NOT NULL,
    proposed_by  text        NOT NULL,
    switched_by  text        NOT NULL CHECK (switched_by <> ''),
    switched_at  timestamptz NOT NULL,
    PRIMARY KEY (kind, effective_on, no),
    FOREIGN KEY (kind, version, proposed_by) REFERENCES membership_version (kind, version, proposed_by),
    CONSTRAINT membership_switch_two_people CHECK (switched_by <> proposed_by),
    CONSTRAINT membership_switch_not_back CHECK (effective_on >= (switched_at AT TIME ZONE 'Asia/Shanghai')::date)
);
GRANT SELECT, INSERT ON membership_switch TO tessera_app;

CREATE FUNCTION membership_version_on(asked_kind text, day date) RETURNS int
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN (SELECT version FROM membership_switch
             WHERE kind = asked_kind AND effective_on <= day
             ORDER BY effective_on DESC, no DESC
             LIMIT 1);

-- How good a tier is; a better one has a higher number.
CREATE TABLE membership_tier (
    tier text     PRIMARY KEY,
    rank smallint NOT NULL UNIQUE
);
INSERT INTO membership_tier (tier, rank) VALUES ('start', 0), ('bronze', 1), ('silver', 2), ('gold', 3), ('platinum', 4);
GRANT SELECT ON membership_tier TO tessera_app;

ALTER TABLE membership_matrix
    ADD CHECK (bank_level IN ('express', 'comm', 'wode', 'private')),
    ADD CHECK (shop_level IN ('iron', 'bronze', 'silver', 'gold')),
    ADD FOREIGN KEY (tier) REFERENCES membership_tier;
GRANT INSERT ON membership_matrix TO tessera_app;

-- How activity becomes a shop level. The window is so many calendar months up to the present one (`rolling`), or the
-- present calendar year up to it. `needs`: of a level's two thresholds all, or any. `rises`: whether activity raises a tier
-- at once or at the evaluation.
CREATE TABLE membership_scheme (
    version         int  PRIMARY KEY,
    window_kind     text NOT NULL CHECK (window_kind IN ('rolling', 'calendar')),
    window_months   int  NOT NULL CHECK (window_months BETWEEN 1 AND 36),
    needs           text NOT NULL CHECK (needs IN ('all', 'any')),
    rises           text NOT NULL CHECK (rises IN ('at_once', 'at_evaluation')),
    validity_months int  NOT NULL CHECK (validity_months BETWEEN 1 AND 60),
    grace_days      int  NOT NULL CHECK (grace_days BETWEEN 0 AND 366),
    CHECK (window_kind = 'rolling' OR window_months = 12)
);
GRANT SELECT, INSERT ON membership_scheme TO tessera_app;

CREATE TABLE membership_scheme_level (
    version    int      NOT NULL REFERENCES membership_scheme,
    shop_level text     NOT NULL CHECK (shop_level IN ('bronze', 'silver', 'gold')),
    rank       smallint NOT NULL CHECK (rank = CASE shop_level WHEN 'bronze' THEN 1 WHEN 'silver' THEN 2 ELSE 3 END),
    min_fen    bigint   CHECK (min_fen > 0),
    min_count  int      CHECK (min_count > 0),
    PRIMARY KEY (version, shop_level),
    CHECK (min_fen IS NOT NULL OR min_count IS NOT NULL)
);
GRANT SELECT, INSERT ON membership_scheme_level TO tessera_app;

-- What a tier gives: so many of a kind at one partner in every calendar month, quarter or year.
CREATE TABLE membership_privilege (
    version    int  NOT NULL,
    tier       text NOT NULL REFERENCES membership_tier,
    partner_id uuid NOT NULL,
    kind       text NOT NULL CHECK (kind <> ''),
    quantity   int  NOT NULL CHECK (quantity BETWEEN 1 AND 1000),
    period     text NOT NULL CHECK (period IN ('month', 'quarter', 'year')),
    PRIMARY KEY (version, tier, partner_id, kind)
);
GRANT SELECT, INSERT ON membership_privilege TO tessera_app;

INSERT INTO membership_scheme (version, window_kind, window_months, needs, rises, validity_months, grace_days)
VALUES (1, 'rolling', 12, 'all', 'at_evaluation', 12, 30);
INSERT INTO membership_scheme_level (version, shop_level, rank, min_fen, min_count) VALUES
    (1, 'bronze', 1, 5000000, 12), (1, 'silver', 2, 15000000, 24), (1, 'gold', 3, 40000000, 48);
INSERT INTO membership_version (kind, version, parts, proposed_by, proposed_at) VALUES
    ('matrix', 1, 16, 'tessera', '2000-01-01 00:00+08'), ('scheme', 1, 3, 'tessera', '2000-01-01 00:00+08');
INSERT INTO membership_switch (kind, effective_on, version, proposed_by, switched_by, switched_at) VALUES
    ('matrix', '2000-01-01', 1, 'tessera', 'release', '2000-01-01 00:00+08'),
    ('scheme', '2000-01-01', 1, 'tessera', 'release', '2000-01-01 00:00+08');

-- The first month whose activity counts for `day`; the last is the one that holds it.
CREATE FUNCTION membership_window_start(window_kind text, window_months int, day date) RETURNS date
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE window_kind
           WHEN 'calendar' THEN date_trunc('year', day::timestamp)::date
           ELSE (date_trunc('month', day::timestamp) - make_interval(months => window_months - 1))::date END;

------------------------------------------------------------------------------------------------------------------
-- Tiers
------------------------------------------------------------------------------------------------------------------

-- The tier in force stands with the member, where earning finds it by key; bank_level and shop_level are the levels that
-- made it. The level a member was enrolled with counts until the bank feeds another.
ALTER TABLE membership_member
    ADD COLUMN enrolled_bank_level text CHECK (enrolled_bank_level IN ('express', 'comm', 'wode', 'private')),
    ADD COLUMN tier text,
    ADD COLUMN multiplier_pct int CHECK (multiplier_pct BETWEEN 100 AND 1000),
    ADD COLUMN matrix_version int,
    ADD COLUMN period_no int CHECK (period_no > 0),
    ADD COLUMN valid_until timestamptz;
-- Who is a member today is protected as if enrolled today.
UPDATE membership_member AS member
   SET enrolled_bank_level = member.bank_level, tier = matrix.tier, multiplier_pct = matrix.multiplier_pct,
       matrix_version = 1, period_no = 1,
       valid_until = (((now() AT TIME ZONE 'Asia/Shanghai')::date + interval '12 months')::date + 1)::timestamp
                     AT TIME ZONE 'Asia/Shanghai'
  FROM membership_matrix AS matrix
 WHERE matrix.version = 1 AND matrix.bank_level = member.bank_level AND matrix.shop_level = member.shop_level;
ALTER TABLE membership_member
    ALTER COLUMN enrolled_bank_level SET NOT NULL,
    ALTER COLUMN tier SET NOT NULL,
    ALTER COLUMN multiplier_pct SET NOT NULL,
    ALTER COLUMN matrix_version SET NOT NULL,
    ALTER COLUMN period_no SET NOT NULL,
    ALTER COLUMN valid_until SET NOT NULL;
GRANT UPDATE (tier, multiplier_pct, matrix_version, period_no, valid_until) ON membership_member TO tessera_app;

-- Every tier a member had, and why. A period ends where the next one begins: each names the start of the one before, which
-- must be a row with that number and start, so periods are half-open, follow each other without a gap and never overlap.
-- judged_tier is what the matrix says of the levels; protection and the single step down keep `tier` above it.
-- Append-only.
CREATE TABLE membership_tier_period (
    bucket             smallint    NOT NULL,
    member_id          bigint      NOT NULL,
    no                 int         NOT NULL CHECK (no > 0),
    tier               text        NOT NULL,
    multiplier_pct     int         NOT NULL,
    bank_level         text        NOT NULL,
    shop_level         text        NOT NULL,
    judged_tier        text        NOT NULL,
    reason             text        NOT NULL CHECK (reason IN ('enrolled', 'upgraded', 'renewed', 'downgraded', 'fraud')),
    matrix_version     int         NOT NULL,
    scheme_version     int         NOT NULL,
    window_from        date,
    window_to          date,
    qualifying_fen     bigint,
    qualifying_count   int,
    judged_on          date        NOT NULL,
    starts_at          timestamptz NOT NULL,
    valid_until        timestamptz NOT NULL,
    previous_no        int         GENERATED ALWAYS AS (CASE WHEN no > 1 THEN no - 1 END) STORED,
    previous_starts_at timestamptz,
    PRIMARY KEY (bucket, member_id, no),
    CONSTRAINT membership_tier_period_start UNIQUE (bucket, member_id, no, starts_at),
    CONSTRAINT membership_tier_period_link FOREIGN KEY (bucket, member_id, previous_no, previous_starts_at)
        REFERENCES membership_tier_period (bucket, member_id, no, starts_at),
    CONSTRAINT membership_tier_period_order CHECK (previous_starts_at <= starts_at),
    CHECK ((no = 1) = (previous_starts_at IS NULL)),
    CHECK ((no = 1) = (reason = 'enrolled')),
    CHECK ((no = 1) = (qualifying_fen IS NULL)),
    CHECK (window_from < window_to)
);
GRANT SELECT, INSERT ON membership_tier_period TO tessera_app;
INSERT INTO membership_tier_period (bucket, member_id, no, tier, multiplier_pct, bank_level, shop_level, judged_tier,
                                    reason, matrix_version, scheme_version, judged_on, starts_at, valid_until)
SELECT bucket, member_id, 1, tier, multiplier_pct, bank_level, shop_level, tier, 'enrolled', 1, 1,
       (created_at AT TIME ZONE 'Asia/Shanghai')::date, created_at, valid_until
  FROM membership_member;

------------------------------------------------------------------------------------------------------------------
-- Rights of a tier
------------------------------------------------------------------------------------------------------------------

-- A right of a tier belongs to one period and is given once for it; privilege_version says by which version. `booked` uses
-- are promised for a date, `withdrawn` ones are gone: what is left for anybody is the rest.
ALTER TABLE membership_entitlement
    ADD COLUMN booked int NOT NULL DEFAULT 0 CHECK (booked >= 0),
    ADD COLUMN withdrawn int NOT NULL DEFAULT 0 CHECK (withdrawn >= 0),
    ADD COLUMN period_on date,
    ADD COLUMN privilege_version int,
    ADD CONSTRAINT membership_entitlement_quota CHECK (used + booked + withdrawn <= quantity),
    ADD CHECK ((period_on IS NULL) = (privilege_version IS NULL));
CREATE UNIQUE INDEX membership_entitlement_period
    ON membership_entitlement (bucket, member_id, partner_id, kind, period_on) WHERE period_on IS NOT NULL;
GRANT UPDATE (booked, withdrawn, quantity, privilege_version) ON membership_entitlement TO tessera_app;

-- Uses promised for a date. The state leaves `booked` once.
CREATE TABLE membership_booking (
    bucket         smallint    NOT NULL,
    member_id      bigint      NOT NULL,
    entitlement_id uuid        NOT NULL,
    booking_ref    text        NOT NULL,
    booked_for     date        NOT NULL,
    quantity       int         NOT NULL CHECK (quantity > 0),
    state          text        NOT NULL DEFAULT 'booked' CHECK (state IN ('booked', 'used', 'cancelled')),
    booked_at      timestamptz NOT NULL,
    closed_at      timestamptz,
    PRIMARY KEY (bucket, member_id, entitlement_id, booking_ref),
    CHECK ((state = 'booked') = (closed_at IS NULL))
);
GRANT SELECT, INSERT ON membership_booking TO tessera_app;
GRANT UPDATE (state, closed_at) ON membership_booking TO tessera_app;
