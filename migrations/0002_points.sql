-- Points and membership: who the members are, what they own, and the books that prove it.
--
-- One operation is one row in ledger_operation and any number of entries; one entry is one debit and one credit, so
-- the books balance by construction. Wallets, lots and house slots are sums kept beside the entries; they can always
-- be computed again. Every key begins with the member's bucket. Hot tables carry no foreign keys: rows are written
-- together by ledger_write, and `tessera books check` proves that they still belong together.

------------------------------------------------------------------------------------------------------------------
-- Membership
------------------------------------------------------------------------------------------------------------------

-- A customer of the bank. Name and phone are sealed by the vault; phone_index finds a member by phone without
-- revealing it. Erasing a person means clearing these three: the ledger knows only the number.
CREATE TABLE membership_member (
    member_id   bigint      NOT NULL GENERATED ALWAYS AS IDENTITY UNIQUE,
    bucket      smallint    NOT NULL GENERATED ALWAYS AS (bucket_of(member_id)) STORED,
    bank_level  text        NOT NULL CHECK (bank_level IN ('express', 'comm', 'wode', 'private')),
    shop_level  text        NOT NULL CHECK (shop_level IN ('iron', 'bronze', 'silver', 'gold')),
    name_sealed bytea,
    phone_sealed bytea,
    phone_index bytea,
    created_at  timestamptz NOT NULL,
    PRIMARY KEY (bucket, member_id)
);
CREATE INDEX membership_member_phone ON membership_member (phone_index) WHERE phone_index IS NOT NULL;
GRANT SELECT, INSERT ON membership_member TO tessera_app;
GRANT UPDATE (bank_level, shop_level, name_sealed, phone_sealed, phone_index) ON membership_member TO tessera_app;

-- The tier of a member is bank level × shop level; a new version is a new set of sixteen rows.
CREATE TABLE membership_matrix (
    version        int  NOT NULL,
    bank_level     text NOT NULL,
    shop_level     text NOT NULL,
    tier           text NOT NULL,
    multiplier_pct int  NOT NULL CHECK (multiplier_pct BETWEEN 100 AND 1000),
    PRIMARY KEY (version, bank_level, shop_level)
);
INSERT INTO membership_matrix (version, bank_level, shop_level, tier, multiplier_pct) VALUES
    (1, 'express', 'iron', 'start',  100), (1, 'express', 'bronze', 'bronze', 105),
    (1, 'express', 'silver', 'bronze', 110), (1, 'express', 'gold', 'silver', 120),
    (1, 'comm',    'iron', 'bronze', 105), (1, 'comm',    'bronze', 'bronze', 115),
    (1, 'comm',    'silver', 'silver', 125), (1, 'comm',    'gold', 'gold',   135),
    (1, 'wode',    'iron', 'silver', 125), (1, 'wode',    'bronze', 'silver', 135),
    (1, 'wode',    'silver', 'gold', 145), (1, 'wode',    'gold', 'platinum', 160),
    (1, 'private', 'iron', 'gold',   150), (1, 'private', 'bronze', 'gold',   160),
    (1, 'private', 'silver', 'platinum', 175), (1, 'private', 'gold', 'platinum', 200);
GRANT SELECT ON membership_matrix TO tessera_app;

-- A right of a member: what a tier, an offer or a campaign gives. `source` names the cause, so that undoing the
-- cause can revoke what is still unused.
CREATE TABLE membership_entitlement (
    bucket     smallint    NOT NULL,
    member_id  bigint      NOT NULL,
    id         uuid        NOT NULL,
    partner_id uuid        NOT NULL,
    kind       text        NOT NULL,
    source     text        NOT NULL,
    quantity   int         NOT NULL CHECK (quantity > 0),
    used       int         NOT NULL DEFAULT 0 CHECK (used BETWEEN 0 AND quantity),
    expires_at timestamptz,
    revoked_at timestamptz,
    granted_at timestamptz NOT NULL,
    PRIMARY KEY (bucket, member_id, id),
    FOREIGN KEY (bucket, member_id) REFERENCES membership_member
);
-- The wire id names no member; on one node this finds it.
CREATE INDEX membership_entitlement_id ON membership_entitlement (id);
GRANT SELECT, INSERT ON membership_entitlement TO tessera_app;
GRANT UPDATE (used, revoked_at) ON membership_entitlement TO tessera_app;

-- Every use of a right, once per reference of the partner; never changed.
CREATE TABLE membership_entitlement_use (
    bucket         smallint    NOT NULL,
    member_id      bigint      NOT NULL,
    entitlement_id uuid        NOT NULL,
    use_ref        text        NOT NULL,
    quantity       int         NOT NULL CHECK (quantity > 0),
    used_at        timestamptz NOT NULL,
    PRIMARY KEY (bucket, member_id, entitlement_id, use_ref)
);
GRANT SELECT, INSERT ON membership_entitlement_use TO tessera_app;

------------------------------------------------------------------------------------------------------------------
-- The plan of accounts
------------------------------------------------------------------------------------------------------------------

-- Kinds of points; each member has one wallet of each. value_fen_e6: what one point pays for, in millionths of a fen.
CREATE TABLE ledger_point_type (
    code         smallint PRIMARY KEY,
    name         text     NOT NULL UNIQUE,
    value_fen_e6 bigint   NOT NULL CHECK (value_fen_e6 > 0)
);
INSERT INTO ledger_point_type (code, name, value_fen_e6) VALUES (1, 'tessera', 1000000);
GRANT SELECT ON ledger_point_type TO tessera_app;

-- Below 10 the member's accounts, from 10 the house's. `nature` is the side on which the account grows.
CREATE TABLE ledger_account (
    code   smallint PRIMARY KEY,
    name   text     NOT NULL UNIQUE,
    nature text     NOT NULL CHECK (nature IN ('debit', 'credit'))
);
INSERT INTO ledger_account (code, name, nature) VALUES
    (1, 'available', 'credit'), (2, 'held', 'credit'), (3, 'pending', 'credit'), (4, 'arrears', 'debit'),
    (10, 'issued', 'debit'), (11, 'redeemed', 'credit'), (12, 'breakage', 'credit'), (13, 'in_transit', 'credit');
GRANT SELECT ON ledger_account TO tessera_app;

-- Who pays for points. Lots remember their funder; spending a lot is spending that funder's money.
CREATE TABLE ledger_funder (
    id         int  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    code       text NOT NULL UNIQUE,
    kind       text NOT NULL CHECK (kind IN ('bank', 'partner', 'merchant', 'fiscal')),
    partner_id uuid
);
INSERT INTO ledger_funder (code, kind) VALUES ('bank', 'bank');
GRANT SELECT, INSERT ON ledger_funder TO tessera_app;

------------------------------------------------------------------------------------------------------------------
-- The books
------------------------------------------------------------------------------------------------------------------

-- The one row an operation locks. `seq` counts the wallet's entries without a gap and head_hash is the last link of
-- their chain. A member who owes has nothing available: what comes in repays first.
CREATE TABLE ledger_wallet (
    bucket           smallint NOT NULL,
    member_id        bigint   NOT NULL,
    point_type       smallint NOT NULL,
    seq              bigint   NOT NULL DEFAULT 0,
    available_points bigint   NOT NULL DEFAULT 0 CHECK (available_points >= 0),
    held_points      bigint   NOT NULL DEFAULT 0 CHECK (held_points >= 0),
    pending_points   bigint   NOT NULL DEFAULT 0 CHECK (pending_points >= 0),
    arrears_points   bigint   NOT NULL DEFAULT 0 CHECK (arrears_points >= 0),
    head_hash        bytea    NOT NULL DEFAULT '\x',
    PRIMARY KEY (bucket, member_id, point_type),
    CONSTRAINT ledger_wallet_owes_or_owns CHECK (NOT (available_points > 0 AND arrears_points > 0))
) WITH (fillfactor = 70);
GRANT SELECT, INSERT ON ledger_wallet TO tessera_app;
GRANT UPDATE (seq, available_points, held_points, pending_points, arrears_points, head_hash)
    ON ledger_wallet TO tessera_app;

-- What happened, with everything the rules looked at: a refund in two years reverses what was granted, not what
-- today's rules would grant. Append-only. business_on is the day of recording, on which settlement counts it. What has
-- a manager (an instalment plan) is undone through it and not by the partner directly.
CREATE TABLE ledger_operation (
    bucket         smallint    NOT NULL,
    member_id      bigint      NOT NULL,
    id             uuid        NOT NULL,
    kind           text        NOT NULL CHECK (kind IN (
        'earn', 'hold', 'capture', 'release', 'lapse', 'reverse_earn', 'reverse_spend', 'expire')),
    partner_id     uuid,
    hold_id        uuid,
    source_kind    text,
    source_ref     text,
    reverses       uuid,
    refund_ref     text,
    amount_fen     bigint      NOT NULL CHECK (amount_fen >= 0),
    points         bigint      NOT NULL CHECK (points >= 0),
    rule_version   int,
    tier           text,
    multiplier_pct int,
    own_card       boolean,
    category       text,
    occurred_at    timestamptz NOT NULL,
    recorded_at    timestamptz NOT NULL,
    business_on    date        NOT NULL,
    manager        text,
    PRIMARY KEY (bucket, member_id, id),
    CHECK ((reverses IS NULL) = (refund_ref IS NULL)),
    CHECK (partner_id IS NOT NULL OR kind = 'expire')
);
-- A wire id names no member; on one node this finds it. With Citus the wire id would carry the bucket.
CREATE INDEX ledger_operation_id ON ledger_operation (id);
-- A refund is posted once for ever.
CREATE UNIQUE INDEX ledger_operation_refund ON ledger_operation (bucket, member_id, reverses, refund_ref)
    WHERE reverses IS NOT NULL;
GRANT SELECT, INSERT ON ledger_operation TO tessera_app;

-- One debit and one credit of the same points, with the wallet as it stood afterwards. Append-only; the hash chains
-- each entry to the wallet's entry before. value_fen is what these points cost their funder.
CREATE TABLE ledger_entry (
    bucket          smallint    NOT NULL,
    member_id       bigint      NOT NULL,
    point_type      smallint    NOT NULL,
    seq             bigint      NOT NULL,
    operation_id    uuid        NOT NULL,
    debit_account   smallint    NOT NULL,
    credit_account  smallint    NOT NULL,
    points          bigint      NOT NULL CHECK (points > 0),
    funder_id       int         NOT NULL,
    value_fen       bigint      NOT NULL CHECK (value_fen >= 0),
    available_after bigint      NOT NULL CHECK (available_after >= 0),
    held_after      bigint      NOT NULL CHECK (held_after >= 0),
    pending_after   bigint      NOT NULL CHECK (pending_after >= 0),
    arrears_after   bigint      NOT NULL CHECK (arrears_after >= 0),
    recorded_at     timestamptz NOT NULL,
    business_on     date        NOT NULL,
    hash            bytea       NOT NULL,
    PRIMARY KEY (bucket, member_id, point_type, seq),
    CHECK (debit_account <> credit_account)
);
-- Entries arrive in the order of their days: a few bytes per range find the day that settlement asks for.
CREATE INDEX ledger_entry_day ON ledger_entry USING brin (business_on) WITH (pages_per_range = 32);
GRANT SELECT, INSERT ON ledger_entry TO tessera_app;

-- An event at a partner earns once for ever, whatever keys and retries it arrives with. Append-only.
CREATE TABLE ledger_source_claim (
    bucket       smallint NOT NULL,
    member_id    bigint   NOT NULL,
    partner_id   uuid     NOT NULL,
    kind         text     NOT NULL,
    source_ref   text     NOT NULL,
    operation_id uuid     NOT NULL,
    PRIMARY KEY (bucket, member_id, partner_id, kind, source_ref)
);
GRANT SELECT, INSERT ON ledger_source_claim TO tessera_app;

-- Points granted together. lot_seq is the seq of the entry that granted them. `remaining` still belongs to the
-- member, `held` of it is pinned by holds; the difference is free. activates_at is NULL for points that may be spent at
-- once: whoever reads them a millisecond earlier by another process's clock must not miss them.
CREATE TABLE ledger_lot (
    bucket           smallint    NOT NULL,
    member_id        bigint      NOT NULL,
    point_type       smallint    NOT NULL,
    lot_seq          bigint      NOT NULL,
    id               uuid        NOT NULL,
    operation_id     uuid        NOT NULL,
    parent_lot_seq   bigint,
    funder_id        int         NOT NULL,
    unit_cost_e6     bigint      NOT NULL CHECK (unit_cost_e6 >= 0),
    campaign         text,
    rule_version     int,
    effective_at     timestamptz NOT NULL,
    activates_at     timestamptz,
    expires_at       timestamptz,
    points           bigint      NOT NULL CHECK (points > 0),
    remaining_points bigint      NOT NULL,
    held_points      bigint      NOT NULL DEFAULT 0,
    PRIMARY KEY (bucket, member_id, point_type, lot_seq),
    CONSTRAINT ledger_lot_within_bounds
        CHECK (0 <= held_points AND held_points <= remaining_points AND remaining_points <= points)
) WITH (fillfactor = 85);
-- Spend order: soonest expiry first, then oldest; no expiry last.
CREATE INDEX ledger_lot_spend_order
    ON ledger_lot (bucket, member_id, point_type, expires_at NULLS LAST, lot_seq) WHERE remaining_points > 0;
-- What the sweep books.
CREATE INDEX ledger_lot_due ON ledger_lot (expires_at) WHERE remaining_points > 0;
GRANT SELECT, INSERT ON ledger_lot TO tessera_app;
GRANT UPDATE (remaining_points, held_points) ON ledger_lot TO tessera_app;

-- Which entry touched which lot: a spend can be traced to the grants it consumed. Append-only.
CREATE TABLE ledger_lot_move (
    bucket     smallint NOT NULL,
    member_id  bigint   NOT NULL,
    point_type smallint NOT NULL,
    seq        bigint   NOT NULL,
    lot_seq    bigint   NOT NULL,
    kind       text     NOT NULL CHECK (kind IN (
        'grant', 'hold', 'capture', 'release', 'expire', 'claw', 'restore', 'repay')),
    points     bigint   NOT NULL CHECK (points > 0),
    PRIMARY KEY (bucket, member_id, point_type, seq, lot_seq)
);
GRANT SELECT, INSERT ON ledger_lot_move TO tessera_app;

-- Points reserved for a checkout. The state leaves `open` once, by one conditional UPDATE under the wallet's lock.
CREATE TABLE ledger_hold (
    bucket          smallint    NOT NULL,
    member_id       bigint      NOT NULL,
    id              uuid        NOT NULL,
    point_type      smallint    NOT NULL,
    partner_id      uuid        NOT NULL,
    order_ref       text        NOT NULL,
    points          bigint      NOT NULL CHECK (points > 0),
    captured_points bigint      NOT NULL DEFAULT 0 CHECK (captured_points BETWEEN 0 AND points),
    state           text        NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'captured', 'released', 'lapsed')),
    deadline_at     timestamptz NOT NULL,
    opened_at       timestamptz NOT NULL,
    closed_at       timestamptz,
    closed_by       uuid,
    manager         text,
    PRIMARY KEY (bucket, member_id, id),
    CHECK ((state = 'open') = (closed_at IS NULL)),
    CHECK ((state = 'open') = (closed_by IS NULL)),
    CHECK ((state = 'captured') = (captured_points > 0))
) WITH (fillfactor = 85);
CREATE INDEX ledger_hold_id ON ledger_hold (id);
CREATE INDEX ledger_hold_due ON ledger_hold (deadline_at) WHERE state = 'open';
GRANT SELECT, INSERT ON ledger_hold TO tessera_app;
GRANT UPDATE (captured_points, state, closed_at, closed_by) ON ledger_hold TO tessera_app;

-- The lots a hold pins, what of them was captured, and what refunds have given back.
CREATE TABLE ledger_hold_lot (
    bucket    smallint NOT NULL,
    member_id bigint   NOT NULL,
    hold_id   uuid     NOT NULL,
    lot_seq   bigint   NOT NULL,
    points    bigint   NOT NULL CHECK (points > 0),
    captured  bigint   NOT NULL DEFAULT 0,
    restored  bigint   NOT NULL DEFAULT 0,
    PRIMARY KEY (bucket, member_id, hold_id, lot_seq),
    CHECK (0 <= restored AND restored <= captured AND captured <= points)
) WITH (fillfactor = 85);
GRANT SELECT, INSERT ON ledger_hold_lot TO tessera_app;
GRANT UPDATE (captured, restored) ON ledger_hold_lot TO tessera_app;

-- How much of an operation refunds have undone; opened by the first refund. Nothing is undone twice.
CREATE TABLE ledger_reversible (
    bucket          smallint NOT NULL,
    member_id       bigint   NOT NULL,
    operation_id    uuid     NOT NULL,
    base_fen        bigint   NOT NULL,
    reversed_fen    bigint   NOT NULL DEFAULT 0,
    base_points     bigint   NOT NULL,
    reversed_points bigint   NOT NULL DEFAULT 0,
    PRIMARY KEY (bucket, member_id, operation_id),
    CHECK (0 <= reversed_fen AND reversed_fen <= base_fen),
    CHECK (0 <= reversed_points AND reversed_points <= base_points)
);
GRANT SELECT, INSERT ON ledger_reversible TO tessera_app;
GRANT UPDATE (reversed_fen, reversed_points) ON ledger_reversible TO tessera_app;

-- The house's accounts by day and funder, one row per bucket, so that no row is shared by every earn.
CREATE TABLE ledger_house_slot (
    bucket        smallint NOT NULL,
    account       smallint NOT NULL CHECK (account >= 10),
    funder_id     int      NOT NULL,
    point_type    smallint NOT NULL,
    business_on   date     NOT NULL,
    debit_points  bigint   NOT NULL CHECK (debit_points >= 0),
    credit_points bigint   NOT NULL CHECK (credit_points >= 0),
    PRIMARY KEY (bucket, account, funder_id, point_type, business_on)
) WITH (fillfactor = 70);
GRANT SELECT, INSERT ON ledger_house_slot TO tessera_app;
GRANT UPDATE (debit_points, credit_points) ON ledger_house_slot TO tessera_app;

------------------------------------------------------------------------------------------------------------------
-- The chain
------------------------------------------------------------------------------------------------------------------

-- The canonical form of an entry is its fields in order, integers big-endian, instants in microseconds; all of fixed
-- width, so no two entries share a form. An entry's hash seals the hash before it together with that form.
CREATE FUNCTION ledger_entry_hash(previous bytea, e ledger_entry) RETURNS bytea
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN sha256(previous
        || int2send(e.bucket) || int8send(e.member_id) || int2send(e.point_type) || int8send(e.seq)
        || uuid_send(e.operation_id) || int2send(e.debit_account) || int2send(e.credit_account)
        || int8send(e.points) || int4send(e.funder_id) || int8send(e.value_fen)
        || int8send(e.available_after) || int8send(e.held_after)
        || int8send(e.pending_after) || int8send(e.arrears_after)
        || timestamptz_send(e.recorded_at) || date_send(e.business_on));

-- Chains the entries of a window, beginning after `head`.
CREATE FUNCTION ledger_chain_link(link bytea, head bytea, e ledger_entry) RETURNS bytea
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    RETURN ledger_entry_hash(coalesce(link, head), e);
END $$;
CREATE AGGREGATE ledger_chain(head bytea, e ledger_entry) (SFUNC = ledger_chain_link, STYPE = bytea);

------------------------------------------------------------------------------------------------------------------
-- Writing
------------------------------------------------------------------------------------------------------------------

-- Writes what was decided under the wallets' locks. Entries come with the wallet's next numbers and balances; they are
-- chained here unless they come with their hashes, all of them or none. Everything else follows from them: lots from
-- moves, wallets from their last entries, house slots from the entries' house sides. Slots are shared between members, so they are locked last, and in one order: by bucket,
-- issued points after all others, because who writes twice in a transaction (a plan is captured or refunded: points
-- spent or restored, then points earned or clawed back) comes to them last.
--
-- Whatever the tables' statistics say, every access here is by key: the settings keep a plan made on empty tables
-- from scanning full ones, and spare a single posting the planning.
CREATE FUNCTION ledger_write(
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
       SET remaining_points = lot.remaining_points + moved.remaining, held_points = lot.held_points + moved.held
      FROM (SELECT m.bucket, m.member_id, m.point_type, m.lot_seq,
                   sum(CASE WHEN m.kind IN ('capture', 'expire', 'claw', 'repay') THEN -m.points
                            WHEN m.kind = 'restore' THEN m.points ELSE 0 END) AS remaining,
                   sum(CASE WHEN m.kind = 'hold' THEN m.points
                            WHEN m.kind IN ('capture', 'release') THEN -m.points ELSE 0 END) AS held
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

-- The one way out of `open`, for holds whose wallets are locked; whoever comes second finds no row. No hold comes twice.
CREATE FUNCTION ledger_close_holds(
    p_now timestamptz, p_buckets smallint[], p_member_ids bigint[], p_ids uuid[], p_states text[], p_spent bigint[],
    p_operations uuid[]
) RETURNS SETOF ledger_hold
    LANGUAGE plpgsql
    SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
    SET enable_material = off SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    RETURN QUERY
        UPDATE ledger_hold AS hold
           SET state = closing.state, captured_points = closing.spent, closed_at = p_now,
               closed_by = closing.operation_id
          FROM unnest(p_buckets, p_member_ids, p_ids, p_states, p_spent, p_operations)
               AS closing (bucket, member_id, id, state, spent, operation_id)
         WHERE hold.bucket = closing.bucket AND hold.member_id = closing.member_id AND hold.id = closing.id
           AND hold.closed_at IS NULL  -- that is, open; said so, no plan goes through the index of all open holds
        RETURNING hold.*;
END $$;

-- Of the lots that holds pin, what was spent.
CREATE FUNCTION ledger_mark_captured(
    p_buckets smallint[], p_member_ids bigint[], p_hold_ids uuid[], p_lot_seqs bigint[], p_points bigint[]
) RETURNS void
    LANGUAGE plpgsql
    SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
    SET enable_material = off SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    UPDATE ledger_hold_lot AS pinned
       SET captured = spent.points
      FROM unnest(p_buckets, p_member_ids, p_hold_ids, p_lot_seqs, p_points)
           AS spent (bucket, member_id, hold_id, lot_seq, points)
     WHERE pinned.bucket = spent.bucket AND pinned.member_id = spent.member_id
       AND pinned.hold_id = spent.hold_id AND pinned.lot_seq = spent.lot_seq;
END $$;

-- A grant of one posting: the rule decided it, the ledger makes a lot of it.
CREATE TYPE ledger_grant AS (
    lot_id       uuid,
    funder_id    int,
    unit_cost_e6 bigint,
    campaign     text,
    expires_at   timestamptz,
    points       bigint
);

-- Posts earnings, many or one: claims their sources, grants lots, repays arrears, chains entries, tells the world.
-- Postings come ordered by (bucket, member_id); p_grant_counts says how many of p_grants belong to each. An earning
-- whose source was claimed before is not posted: the row returned names the operation that was. p_aggregates are the
-- operations' public ids and p_payloads what their events tell, made by the caller: here they would cost six times as much.
CREATE FUNCTION ledger_post_earnings(
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
               SELECT sum(lot.remaining_points - lot.held_points)
                 FROM ledger_lot AS lot
                WHERE lot.bucket = w.bucket AND lot.member_id = w.member_id AND lot.point_type = p_point_type
                  AND lot.remaining_points > 0 AND lot.expires_at <= p_now), 0) ORDER BY w.ordinality)
      INTO expired
      FROM unnest(wallets) WITH ORDINALITY AS w;

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
                wallet.available_points := wallet.available_points + granted.points;
                lot_seq := wallet.seq;
                entry := ROW(
                    posting.bucket, posting.member_id, p_point_type, wallet.seq, posting.id, 10, 1,
                    granted.points, granted.funder_id, div(granted.points::numeric * granted.unit_cost_e6, 1000000),
                    wallet.available_points, wallet.held_points, wallet.pending_points, wallet.arrears_points,
                    posting.recorded_at, posting.business_on, NULL);
                wallet.head_hash := ledger_entry_hash(wallet.head_hash, entry);
                entry.hash := wallet.head_hash;
                entries := array_append(entries, entry);
                lots := array_append(lots, ROW(
                    posting.bucket, posting.member_id, p_point_type, lot_seq, granted.lot_id, posting.id, NULL,
                    granted.funder_id, granted.unit_cost_e6, granted.campaign, posting.rule_version,
                    posting.occurred_at, NULL, granted.expires_at,
                    granted.points, granted.points, 0)::ledger_lot);
                moves := array_append(moves, ROW(
                    posting.bucket, posting.member_id, p_point_type, wallet.seq, lot_seq, 'grant',
                    granted.points)::ledger_lot_move);
                -- Who owes repays first.
                repaid := least(wallet.arrears_points, granted.points);
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
        available := wallet.available_points - expired[at_wallet];
        held := wallet.held_points;
        pending := wallet.pending_points;
        arrears := wallet.arrears_points;
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
-- Published
------------------------------------------------------------------------------------------------------------------

-- What settlement reads: every entry that changes what bank and partner owe each other, once. Issuing and clawing
-- back count at cost to the funder, redeeming and restoring at the value the points paid for.
CREATE VIEW ledger_settlement_source AS
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
               ('reverse_spend', 11, NULL, 'points_restored', false))
       AS leg (operation_kind, debit_account, credit_account, kind, at_cost)
    ON leg.operation_kind = o.kind
   AND (leg.debit_account = e.debit_account OR leg.credit_account = e.credit_account)
  JOIN ledger_funder AS f ON f.id = e.funder_id
  JOIN ledger_point_type AS t ON t.code = e.point_type;
GRANT SELECT ON ledger_settlement_source TO tessera_app;
