-- Earning: versions of the rules, campaigns with their windows, funding and budgets, and what members have used of caps.
--
-- Definitions never change. A rule version or a campaign is inserted whole as a draft; afterwards only its state moves,
-- and two people are needed to let it earn. What was decided with it can so be computed again for ever.

------------------------------------------------------------------------------------------------------------------
-- What is in force
------------------------------------------------------------------------------------------------------------------

-- Changes with every change of a rule or campaign: processes hold both in memory and look here whether they are current.
-- Not a counter: a value seen in a transaction that was rolled back never comes again.
CREATE TABLE earning_epoch (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    epoch  uuid    NOT NULL
);
INSERT INTO earning_epoch (epoch) VALUES (gen_random_uuid());
GRANT SELECT ON earning_epoch TO tessera_app;
GRANT UPDATE (epoch) ON earning_epoch TO tessera_app;

CREATE FUNCTION earning_move_epoch() RETURNS trigger
    LANGUAGE plpgsql AS $$
BEGIN
    UPDATE earning_epoch SET epoch = gen_random_uuid();
    RETURN NULL;
END $$;

-- One version of how activity becomes points. Without a rate that fits, one point takes fen_per_point of the amount.
-- The caps hold for the base points, the tier's part included. Points end at the end of the month that is
-- validity_months after the activity's, or after the same day of that month; they begin pending_days after the
-- activity's day. in_force_from: set with the approval, far enough ahead for every process to know of it in time.
CREATE TABLE earning_rule (
    version       int         PRIMARY KEY CHECK (version > 0),
    state         text        NOT NULL DEFAULT 'draft' CHECK (state IN ('draft', 'in_review', 'scheduled', 'superseded')),
    fen_per_point int         NOT NULL CHECK (fen_per_point > 0),
    transaction_cap_points bigint CHECK (transaction_cap_points >= 0),
    daily_cap_points bigint   CHECK (daily_cap_points >= 0),
    validity_months int       NOT NULL CHECK (validity_months BETWEEN 1 AND 120),
    expiry        text        NOT NULL CHECK (expiry IN ('end_of_month', 'same_day')),
    pending_days  int         NOT NULL CHECK (pending_days BETWEEN 0 AND 27),
    unit_cost_e6  bigint      NOT NULL CHECK (unit_cost_e6 >= 0),
    funder_id     int         NOT NULL REFERENCES ledger_funder,
    effective_from timestamptz,
    in_force_from timestamptz,
    made_by       text        NOT NULL CHECK (made_by <> ''),
    made_at       timestamptz NOT NULL,
    approved_by   text        CHECK (approved_by <> ''),
    approved_at   timestamptz,
    CONSTRAINT earning_rule_two_people CHECK (approved_by <> made_by),
    CONSTRAINT earning_rule_approved_is_scheduled CHECK (
        num_nonnulls(approved_by, approved_at, in_force_from) = CASE WHEN state IN ('draft', 'in_review') THEN 0 ELSE 3 END)
);
GRANT SELECT, INSERT ON earning_rule TO tessera_app;
GRANT UPDATE (state, in_force_from, approved_by, approved_at) ON earning_rule TO tessera_app;

-- What kinds, categories and the own card earn; the first that fits, by no, decides. Without fen_per_point: nothing.
CREATE TABLE earning_rate (
    version       int      NOT NULL REFERENCES earning_rule,
    no            smallint NOT NULL CHECK (no > 0),
    kind          text,
    category      text,
    own_card      boolean,
    fen_per_point int      CHECK (fen_per_point > 0),
    PRIMARY KEY (version, no)
);
GRANT SELECT, INSERT ON earning_rate TO tessera_app;

INSERT INTO earning_rule (
    version, state, fen_per_point, validity_months, expiry, pending_days, unit_cost_e6, funder_id,
    in_force_from, made_by, made_at, approved_by, approved_at)
SELECT 1, 'scheduled', 100, 24, 'end_of_month', 0, 1000000, id, begun, 'migration', begun, 'release', begun
  FROM ledger_funder, (SELECT '2000-01-01 00:00:00+08'::timestamptz AS begun) AS always WHERE code = 'bank';

-- A rule for a time that adds points to what the base rule gives: a multiple of the base points without the tier's
-- part, or a fixed number. NULL in a condition means that everything fits. Several days of the week, of the month
-- (clamped: 31 is the last day of February) or of the year narrow the window, and so does a time of the day, all in
-- Shanghai. Of an exclusive group only the best campaign applies.
CREATE TABLE earning_campaign (
    id            uuid        PRIMARY KEY,
    code          text        NOT NULL UNIQUE CHECK (code ~ '^[a-z0-9][a-z0-9_-]{1,62}$'),
    name_zh       text        NOT NULL,
    name_en       text        NOT NULL,
    state         text        NOT NULL DEFAULT 'draft' CHECK (state IN (
        'draft', 'in_review', 'scheduled', 'running', 'paused', 'exhausted', 'ended')),
    priority      int         NOT NULL,
    exclusive_group text,
    starts_at     timestamptz NOT NULL,
    ends_at       timestamptz NOT NULL,
    late_days     int         NOT NULL CHECK (late_days BETWEEN 0 AND 730),
    weekdays      smallint[]  CHECK (weekdays <> '{}' AND weekdays <@ '{1,2,3,4,5,6,7}'),
    month_days    smallint[]  CHECK (month_days <> '{}' AND 1 <= ALL (month_days) AND 31 >= ALL (month_days)),
    year_days     text[]      CHECK (year_days <> '{}'),
    from_time     time,
    until_time    time,
    multiplier_pct int        CHECK (multiplier_pct BETWEEN 101 AND 10000),
    fixed_points  bigint      CHECK (fixed_points BETWEEN 1 AND 100000000),
    kinds         text[],
    categories    text[],
    own_card      boolean,
    min_amount_fen bigint     NOT NULL CHECK (min_amount_fen >= 0),
    tiers         text[],
    partner_ids   uuid[],
    listed        boolean     NOT NULL,
    named_only    boolean     NOT NULL,
    transaction_cap_points bigint CHECK (transaction_cap_points > 0),
    member_cap_points bigint  CHECK (member_cap_points > 0),
    member_daily_cap_points bigint CHECK (member_daily_cap_points > 0),
    budget_total  bigint      CHECK (budget_total > 0),
    budget_unit   text        CHECK (budget_unit IN ('points', 'fen')),
    on_exhaustion text        NOT NULL CHECK (on_exhaustion IN ('skip', 'partial')),
    budget_id     uuid        UNIQUE,
    in_force_from timestamptz,
    made_by       text        NOT NULL CHECK (made_by <> ''),
    made_at       timestamptz NOT NULL,
    approved_by   text        CHECK (approved_by <> ''),
    approved_at   timestamptz,
    CHECK (starts_at < ends_at),
    CHECK (from_time < until_time),
    CHECK (num_nonnulls(from_time, until_time) IN (0, 2)),
    CHECK (num_nonnulls(weekdays, month_days, year_days) <= 1),
    CHECK (num_nonnulls(multiplier_pct, fixed_points) = 1),
    CHECK (num_nonnulls(budget_total, budget_unit) IN (0, 2)),
    CONSTRAINT earning_campaign_two_people CHECK (approved_by <> made_by),
    CONSTRAINT earning_campaign_approved CHECK (
        num_nonnulls(approved_by, approved_at, in_force_from) IN (0, 3)
        AND (approved_by IS NOT NULL OR state IN ('draft', 'in_review', 'ended'))
        AND (approved_by IS NULL OR state NOT IN ('draft', 'in_review'))),
    CONSTRAINT earning_campaign_budget CHECK (
        (budget_id IS NOT NULL) = (budget_total IS NOT NULL AND approved_by IS NOT NULL))
);
GRANT SELECT, INSERT ON earning_campaign TO tessera_app;
GRANT UPDATE (state, budget_id, in_force_from, approved_by, approved_at) ON earning_campaign TO tessera_app;

-- Who pays for a campaign's points. Each share of a bonus is a lot of its own.
CREATE TABLE earning_campaign_share (
    campaign_id  uuid     NOT NULL REFERENCES earning_campaign,
    no           smallint NOT NULL CHECK (no > 0),
    funder_id    int      NOT NULL REFERENCES ledger_funder,
    share_ppm    int      NOT NULL CHECK (share_ppm BETWEEN 1 AND 1000000),
    unit_cost_e6 bigint   NOT NULL CHECK (unit_cost_e6 >= 0),
    validity_months int   NOT NULL CHECK (validity_months BETWEEN 1 AND 120),
    expiry       text     NOT NULL CHECK (expiry IN ('end_of_month', 'same_day')),
    pending_days int      NOT NULL CHECK (pending_days BETWEEN 0 AND 27),
    PRIMARY KEY (campaign_id, no),
    UNIQUE (campaign_id, funder_id)
);
GRANT SELECT, INSERT ON earning_campaign_share TO tessera_app;

-- The members a listed campaign is for: a segment, uploaded before the approval.
CREATE TABLE earning_campaign_member (
    bucket      smallint NOT NULL,
    member_id   bigint   NOT NULL,
    campaign_id uuid     NOT NULL,
    PRIMARY KEY (bucket, member_id, campaign_id)
);
GRANT SELECT, INSERT ON earning_campaign_member TO tessera_app;

-- Nothing is added to what was approved, and an approval is not given twice.
CREATE FUNCTION earning_check_draft() RETURNS trigger
    LANGUAGE plpgsql AS $$
BEGIN
    IF TG_TABLE_NAME = 'earning_rate' THEN
        PERFORM FROM earning_rule WHERE version = NEW.version AND state = 'draft';
    ELSE
        PERFORM FROM earning_campaign WHERE id = NEW.campaign_id AND state = 'draft';
    END IF;
    IF NOT FOUND THEN
        RAISE check_violation USING MESSAGE = 'only a draft can be added to', CONSTRAINT = 'earning_draft_only';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER earning_rate_of_draft BEFORE INSERT ON earning_rate
    FOR EACH ROW EXECUTE FUNCTION earning_check_draft();
CREATE TRIGGER earning_campaign_share_of_draft BEFORE INSERT ON earning_campaign_share
    FOR EACH ROW EXECUTE FUNCTION earning_check_draft();
CREATE TRIGGER earning_campaign_member_of_draft BEFORE INSERT ON earning_campaign_member
    FOR EACH ROW EXECUTE FUNCTION earning_check_draft();

CREATE FUNCTION earning_keep_approval() RETURNS trigger
    LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.approved_by IS NOT NULL
       AND (NEW.approved_by, NEW.approved_at, NEW.in_force_from)
           IS DISTINCT FROM (OLD.approved_by, OLD.approved_at, OLD.in_force_from) THEN
        RAISE check_violation USING MESSAGE = 'an approval is for good', CONSTRAINT = 'earning_approved_once';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER earning_rule_approval BEFORE UPDATE ON earning_rule
    FOR EACH ROW EXECUTE FUNCTION earning_keep_approval();
CREATE TRIGGER earning_campaign_approval BEFORE UPDATE ON earning_campaign
    FOR EACH ROW EXECUTE FUNCTION earning_keep_approval();

CREATE TRIGGER earning_rule_epoch AFTER INSERT OR UPDATE ON earning_rule
    FOR EACH ROW EXECUTE FUNCTION earning_move_epoch();
CREATE TRIGGER earning_campaign_epoch AFTER INSERT OR UPDATE ON earning_campaign
    FOR EACH ROW EXECUTE FUNCTION earning_move_epoch();

------------------------------------------------------------------------------------------------------------------
-- What members have used of caps
------------------------------------------------------------------------------------------------------------------

-- scope: a campaign, or the zero UUID for the base rule, whatever its version. day: the business day in Shanghai of the
-- activity, or -infinity for the campaign's whole time. Refunds do not give caps back.
CREATE TABLE earning_counter (
    bucket      smallint NOT NULL,
    member_id   bigint   NOT NULL,
    scope       uuid     NOT NULL,
    day         date     NOT NULL,
    used_points bigint   NOT NULL DEFAULT 0 CHECK (used_points >= 0),
    PRIMARY KEY (bucket, member_id, scope, day)
) WITH (fillfactor = 70);
GRANT SELECT, INSERT ON earning_counter TO tessera_app;
GRANT UPDATE (used_points) ON earning_counter TO tessera_app;

-- points wanted under a daily limit, a limit for the whole time, or both
CREATE TYPE earning_want AS (
    bucket smallint, member_id bigint, scope uuid, day date, points bigint, daily_limit bigint, total_limit bigint);

-- Grants each want, in the order given, as much as its limits leave; the counters are locked by key, before anything
-- else of the members is.
CREATE FUNCTION earning_take(p_wants earning_want[]) RETURNS bigint[]
    LANGUAGE plpgsql
    SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
    SET enable_material = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    granted bigint[] := '{}';
    want    earning_want;
    takes   bigint;
BEGIN
    INSERT INTO earning_counter (bucket, member_id, scope, day)
    SELECT w.bucket, w.member_id, w.scope, w.day FROM unnest(p_wants) AS w WHERE w.daily_limit IS NOT NULL
     UNION
    SELECT w.bucket, w.member_id, w.scope, '-infinity' FROM unnest(p_wants) AS w WHERE w.total_limit IS NOT NULL
     ORDER BY 1, 2, 3, 4
        ON CONFLICT DO NOTHING;
    PERFORM FROM (
            SELECT w.bucket, w.member_id, w.scope, w.day FROM unnest(p_wants) AS w WHERE w.daily_limit IS NOT NULL
             UNION
            SELECT w.bucket, w.member_id, w.scope, '-infinity' FROM unnest(p_wants) AS w WHERE w.total_limit IS NOT NULL
             ORDER BY 1, 2, 3, 4) AS wanted
      CROSS JOIN LATERAL (
            SELECT c.bucket FROM earning_counter AS c
             WHERE c.bucket = wanted.bucket AND c.member_id = wanted.member_id
               AND c.scope = wanted.scope AND c.day = wanted.day
               FOR UPDATE) AS locked;

    FOREACH want IN ARRAY p_wants LOOP
        SELECT least(want.points, min(CASE c.day WHEN '-infinity' THEN want.total_limit ELSE want.daily_limit END
                                      - c.used_points))
          INTO takes
          FROM earning_counter AS c
         WHERE c.bucket = want.bucket AND c.member_id = want.member_id AND c.scope = want.scope
           AND ((c.day = want.day AND want.daily_limit IS NOT NULL)
                OR (c.day = '-infinity' AND want.total_limit IS NOT NULL));
        takes := greatest(takes, 0);
        granted := array_append(granted, takes);
        IF takes > 0 THEN
            UPDATE earning_counter AS c
               SET used_points = c.used_points + takes
             WHERE c.bucket = want.bucket AND c.member_id = want.member_id AND c.scope = want.scope
               AND ((c.day = want.day AND want.daily_limit IS NOT NULL)
                    OR (c.day = '-infinity' AND want.total_limit IS NOT NULL));
        END IF;
    END LOOP;
    RETURN granted;
END $$;

-- Gives points back to counters that this transaction has taken them from.
CREATE FUNCTION earning_untake(p_wants earning_want[]) RETURNS void
    LANGUAGE plpgsql
    SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
    SET enable_material = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    want earning_want;
BEGIN
    FOREACH want IN ARRAY p_wants LOOP
        UPDATE earning_counter AS c
           SET used_points = c.used_points - want.points
         WHERE c.bucket = want.bucket AND c.member_id = want.member_id AND c.scope = want.scope
           AND ((c.day = want.day AND want.daily_limit IS NOT NULL)
                OR (c.day = '-infinity' AND want.total_limit IS NOT NULL));
    END LOOP;
END $$;

------------------------------------------------------------------------------------------------------------------
-- The books check
------------------------------------------------------------------------------------------------------------------

-- Whether a moment lies in the days and hours of a campaign.
CREATE FUNCTION earning_recurs(campaign earning_campaign, moment timestamptz) RETURNS boolean
    LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT (campaign.weekdays IS NULL OR extract(isodow FROM local.moment)::smallint = ANY (campaign.weekdays))
       AND (campaign.month_days IS NULL OR EXISTS (
            SELECT FROM unnest(campaign.month_days) AS d (day)
             WHERE least(d.day, extract(day FROM date_trunc('month', local.moment) + interval '1 month - 1 day'))
                   = extract(day FROM local.moment)))
       AND (campaign.year_days IS NULL OR EXISTS (
            SELECT FROM unnest(campaign.year_days) AS d (day)
             WHERE to_char(local.moment, 'MM-DD') = d.day
                OR (d.day = '02-29' AND to_char(local.moment, 'MM-DD') = '02-28'
                    AND extract(day FROM local.moment + interval '1 day') = 1)))
       AND (campaign.from_time IS NULL
            OR (local.moment::time >= campaign.from_time AND local.moment::time < campaign.until_time))
      FROM (SELECT moment AT TIME ZONE 'Asia/Shanghai' AS moment) AS local
$$;

-- What one point takes of an amount by a version's rates; NULL where nothing is earned.
CREATE FUNCTION earning_fen_per_point(p_version int, p_kind text, p_category text, p_own_card boolean) RETURNS int
    LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT fits.fen_per_point
      FROM (SELECT r.no::int AS no, r.fen_per_point
              FROM earning_rate AS r
             WHERE r.version = p_version AND (r.kind IS NULL OR r.kind = p_kind)
               AND (r.category IS NULL OR r.category = p_category)
               AND (r.own_card IS NULL OR r.own_card = p_own_card)
             UNION ALL
            SELECT 2147483647, rule.fen_per_point FROM earning_rule AS rule WHERE rule.version = p_version) AS fits
     ORDER BY fits.no
     LIMIT 1
$$;

CREATE OR REPLACE VIEW books_earning_rule AS
SELECT rule.version, rule.fen_per_point, rule.transaction_cap_points,
       EXISTS (SELECT FROM earning_rate AS rate WHERE rate.version = rule.version) AS has_rates
  FROM earning_rule AS rule;

CREATE OR REPLACE VIEW books_i43_earnings_replay AS
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
   AND (rule.version IS NULL
        OR coalesce(l.base, 0) IS DISTINCT FROM least(
               coalesce(div(o.amount_fen::numeric * o.multiplier_pct, 100 * CASE
                   WHEN rule.has_rates
                   THEN earning_fen_per_point(o.rule_version, o.source_kind, o.category, o.own_card)
                   ELSE rule.fen_per_point END), 0),
               rule.transaction_cap_points, (o.calculation ->> 'base_limit')::numeric)
        OR coalesce(l.points, 0) <> o.points
        OR NOT EXISTS (SELECT FROM membership_matrix AS m
                        WHERE m.tier = o.tier AND m.multiplier_pct = o.multiplier_pct));

CREATE VIEW books_i57_rule_in_force AS
SELECT o.bucket, o.member_id, o.id, o.rule_version, o.occurred_at, o.recorded_at
  FROM ledger_operation AS o
  LEFT JOIN (SELECT version, in_force_from,
                    lead(in_force_from, 1, 'infinity') OVER (ORDER BY in_force_from, version) AS in_force_until
               FROM earning_rule
              WHERE in_force_from IS NOT NULL) AS rule
    ON rule.version = o.rule_version
   AND least(o.occurred_at, o.recorded_at) >= rule.in_force_from
   AND least(o.occurred_at, o.recorded_at) < rule.in_force_until
 WHERE o.kind = 'earn' AND rule.version IS NULL;
COMMENT ON VIEW books_i57_rule_in_force IS
    'Every earning was decided by the rule version in force at the moment of the activity, one that two people had let earn.';

-- What campaigns gave, as the operations tell it.
CREATE VIEW books_earning_component AS
SELECT o.bucket, o.member_id, o.id AS operation_id, o.partner_id, o.source_kind, o.category, o.own_card, o.amount_fen,
       o.tier, o.rule_version, least(o.occurred_at, o.recorded_at) AS moment,
       c.campaign, c.points, c."limit", c.limited_by, c.budget_id, c.drawn
  FROM ledger_operation AS o
 CROSS JOIN LATERAL jsonb_to_recordset(o.calculation -> 'campaigns')
       AS c (campaign text, points bigint, "limit" bigint, limited_by text, budget_id uuid, drawn bigint)
 WHERE o.kind = 'earn' AND o.calculation IS NOT NULL AND o.calculation ? 'campaigns';

CREATE VIEW books_i58_campaign_lots AS
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
                WHERE n.campaign IS NOT NULL AND n.parent_lot_seq IS NULL) AS lot
         LEFT JOIN earning_campaign AS campaign ON campaign.code = lot.campaign
         LEFT JOIN earning_campaign_share AS share
           ON share.campaign_id = campaign.id AND share.funder_id = lot.funder_id
        GROUP BY lot.bucket, lot.member_id, lot.operation_id, lot.campaign) AS l
    ON l.bucket = c.bucket AND l.member_id = c.member_id AND l.operation_id = c.operation_id AND l.campaign = c.campaign
 WHERE c.points IS DISTINCT FROM l.points OR l.strangers > 0 OR l.uneven > 0;
COMMENT ON VIEW books_i58_campaign_lots IS
    'A campaign''s points are in lots of its funders, split by their shares to within a point, and the operation tells of every one of them.';

CREATE VIEW books_i59_campaigns_replay AS
SELECT c.bucket, c.member_id, c.operation_id, c.campaign, c.points, again.points AS again
  FROM books_earning_component AS c
  LEFT JOIN earning_campaign AS campaign ON campaign.code = c.campaign
  LEFT JOIN books_earning_rule AS rule ON rule.version = c.rule_version
 CROSS JOIN LATERAL (
       SELECT CASE WHEN rule.has_rates THEN earning_fen_per_point(c.rule_version, c.source_kind, c.category, c.own_card)
                   ELSE rule.fen_per_point END AS fen_per_point) AS rate
 CROSS JOIN LATERAL (
       SELECT CASE WHEN rate.fen_per_point IS NOT NULL THEN least(
                  coalesce(campaign.fixed_points, div(
                      c.amount_fen::numeric * (campaign.multiplier_pct - 100), 100 * rate.fen_per_point::numeric)),
                  campaign.transaction_cap_points, c."limit") END AS points) AS again
 WHERE again.points IS DISTINCT FROM c.points
    OR (c.points > 0 AND campaign.budget_unit = 'points' AND c.budget_id IS DISTINCT FROM campaign.budget_id)
    OR (c.budget_id <> campaign.budget_id)
    OR (c.budget_id IS NOT NULL AND campaign.budget_unit = 'points' AND c.drawn IS DISTINCT FROM c.points);
COMMENT ON VIEW books_i59_campaigns_replay IS
    'Every campaign''s points, computed again from the amount, the rate, the campaign and the limit met, are the points it gave; a budget of points was drawn on for exactly as many.';

CREATE VIEW books_i60_campaign_conditions AS
SELECT c.bucket, c.member_id, c.operation_id, c.campaign, c.moment, terms.starts_at, terms.ends_at
  FROM books_earning_component AS c
  LEFT JOIN earning_campaign AS terms ON terms.code = c.campaign
 WHERE (terms.approved_by IS NOT NULL
        AND c.moment >= greatest(terms.starts_at, terms.in_force_from) AND c.moment < terms.ends_at
        AND earning_recurs(terms, c.moment)
        AND (terms.kinds IS NULL OR c.source_kind = ANY (terms.kinds))
        AND (terms.categories IS NULL OR coalesce(c.category = ANY (terms.categories), false))
        AND (terms.own_card IS NULL OR c.own_card = terms.own_card)
        AND c.amount_fen >= terms.min_amount_fen
        AND (terms.tiers IS NULL OR c.tier = ANY (terms.tiers))
        AND (terms.partner_ids IS NULL OR c.partner_id = ANY (terms.partner_ids))
        AND (NOT terms.listed OR EXISTS (
             SELECT FROM earning_campaign_member AS m
              WHERE m.bucket = c.bucket AND m.member_id = c.member_id AND m.campaign_id = terms.id)))
       IS NOT TRUE;
COMMENT ON VIEW books_i60_campaign_conditions IS
    'No campaign gave points outside its window, to anybody it was not for, or for anything it was not for.';

CREATE VIEW books_i61_campaign_budgets AS
SELECT campaign.code, campaign.budget_id, s.used, coalesce(d.drawn, 0) AS drawn
  FROM earning_campaign AS campaign
 CROSS JOIN LATERAL (
       SELECT coalesce(sum(slot.used), 0) AS used FROM ledger_budget_slot AS slot
        WHERE slot.budget_id = campaign.budget_id) AS s
  LEFT JOIN (
       SELECT c.budget_id,
              sum(c.drawn - CASE WHEN r.reversed_fen > 0 THEN div(c.drawn::numeric * r.reversed_fen, r.base_fen)
                                 ELSE 0 END) AS drawn
         FROM books_earning_component AS c
         LEFT JOIN ledger_reversible AS r
           ON r.bucket = c.bucket AND r.member_id = c.member_id AND r.operation_id = c.operation_id
        WHERE c.budget_id IS NOT NULL
        GROUP BY c.budget_id) AS d ON d.budget_id = campaign.budget_id
 WHERE campaign.budget_id IS NOT NULL AND s.used <> coalesce(d.drawn, 0);
COMMENT ON VIEW books_i61_campaign_budgets IS
    'Of a campaign''s budget is used what its earnings drew, less what refunds gave back in proportion.';

CREATE VIEW books_i62_caps AS
SELECT coalesce(k.bucket, e.bucket) AS bucket, coalesce(k.member_id, e.member_id) AS member_id,
       coalesce(k.scope, e.scope) AS scope, coalesce(k.day, e.day) AS day, k.used_points, e.points, e.cap
  FROM (SELECT * FROM earning_counter WHERE used_points > 0) AS k
  FULL JOIN (
       SELECT c.bucket, c.member_id, campaign.id AS scope, '-infinity'::date AS day, sum(c.points) AS points,
              campaign.member_cap_points AS cap
         FROM books_earning_component AS c
         JOIN earning_campaign AS campaign ON campaign.code = c.campaign AND campaign.member_cap_points IS NOT NULL
        GROUP BY c.bucket, c.member_id, campaign.id
       HAVING sum(c.points) > 0
        UNION ALL
       SELECT c.bucket, c.member_id, campaign.id, (c.moment AT TIME ZONE 'Asia/Shanghai')::date, sum(c.points),
              campaign.member_daily_cap_points
         FROM books_earning_component AS c
         JOIN earning_campaign AS campaign ON campaign.code = c.campaign AND campaign.member_daily_cap_points IS NOT NULL
        GROUP BY c.bucket, c.member_id, campaign.id, (c.moment AT TIME ZONE 'Asia/Shanghai')::date
       HAVING sum(c.points) > 0
        UNION ALL
       SELECT o.bucket, o.member_id, '00000000-0000-0000-0000-000000000000',
              (least(o.occurred_at, o.recorded_at) AT TIME ZONE 'Asia/Shanghai')::date, sum(lot.points),
              max(rule.daily_cap_points)
         FROM earning_rule AS rule
         -- what a plan looks after is not under the cap
         JOIN ledger_operation AS o ON o.rule_version = rule.version AND o.kind = 'earn'
         JOIN ledger_lot AS lot
           ON lot.bucket = o.bucket AND lot.member_id = o.member_id AND lot.operation_id = o.id AND lot.campaign IS NULL
        WHERE rule.daily_cap_points IS NOT NULL AND o.manager IS NULL
        GROUP BY o.bucket, o.member_id, (least(o.occurred_at, o.recorded_at) AT TIME ZONE 'Asia/Shanghai')::date) AS e
    ON e.bucket = k.bucket AND e.member_id = k.member_id AND e.scope = k.scope AND e.day = k.day
 WHERE k.used_points IS DISTINCT FROM e.points OR e.points > e.cap;
COMMENT ON VIEW books_i62_caps IS
    'What a member''s counters say was used of a cap is what earnings gave under it, and not more than the cap.';

GRANT SELECT ON
    books_i57_rule_in_force, books_i58_campaign_lots, books_i59_campaigns_replay, books_i60_campaign_conditions,
    books_i61_campaign_budgets, books_i62_caps
    TO tessera_app;
