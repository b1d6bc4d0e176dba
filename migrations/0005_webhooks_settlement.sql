-- Telling partners what happened (webhooks_*), and what bank and partner owe each other (settlement_*).

-- The id of an event says when its request began, and a request that waited for a lock begins before the one it waited
-- for. The ordinal is taken at the insert, while the aggregate is still locked: events of one aggregate get their
-- positions in the order in which they happened.
ALTER TABLE outbox_event ADD COLUMN ordinal bigint GENERATED ALWAYS AS IDENTITY;
DROP INDEX outbox_event_waiting;
CREATE INDEX outbox_event_waiting ON outbox_event (ordinal) WHERE position IS NULL;

-- A secret given to a partner before it has any endpoint; its new endpoints sign with it.
CREATE TABLE webhooks_partner_secret (
    partner_id    uuid        PRIMARY KEY,
    secret_sealed bytea       NOT NULL,
    created_at    timestamptz NOT NULL
);
GRANT SELECT, INSERT, UPDATE ON webhooks_partner_secret TO tessera_app;

-- Where a partner wants to be told. `public_id` is the id on the wire: a test event is addressed to it by name.
CREATE TABLE webhooks_endpoint (
    id                     uuid        PRIMARY KEY,
    public_id              text        NOT NULL UNIQUE,
    partner_id             uuid        NOT NULL,
    url                    text        NOT NULL CHECK (length(url) <= 2048),
    event_types            text[]      NOT NULL CHECK (cardinality(event_types) BETWEEN 1 AND 50),
    secret_sealed          bytea       NOT NULL,
    previous_secret_sealed bytea,
    previous_valid_until   timestamptz,
    status                 text        NOT NULL CHECK (status IN ('active', 'disabled')),
    disabled_reason        text,
    created_at             timestamptz NOT NULL,
    failing_since          timestamptz,
    CHECK ((status = 'disabled') = (disabled_reason IS NOT NULL)),
    CHECK ((previous_secret_sealed IS NULL) = (previous_valid_until IS NULL))
);
CREATE INDEX webhooks_endpoint_partner ON webhooks_endpoint (partner_id, id);
GRANT SELECT, INSERT, UPDATE ON webhooks_endpoint TO tessera_app;

-- One event on its way to one endpoint. A worker holds a delivery by its lease token until `lease_until`; whoever comes
-- back later with an old token changes nothing.
CREATE TABLE webhooks_delivery (
    id           uuid        PRIMARY KEY,
    endpoint_id  uuid        NOT NULL REFERENCES webhooks_endpoint,
    bucket       smallint    NOT NULL,
    event_id     uuid        NOT NULL,
    sequence     bigint      NOT NULL,
    state        text        NOT NULL CHECK (state IN ('pending', 'delivered', 'retrying', 'dead')),
    attempt      int         NOT NULL DEFAULT 0 CHECK (attempt >= 0),
    started_at   timestamptz NOT NULL,
    next_at      timestamptz NOT NULL,
    lease_token  uuid,
    lease_until  timestamptz,
    last_status  int,
    last_error   text,
    delivered_at timestamptz,
    UNIQUE (endpoint_id, event_id),
    FOREIGN KEY (bucket, event_id) REFERENCES outbox_event,
    CHECK ((lease_token IS NULL) = (lease_until IS NULL)),
    CHECK ((state = 'delivered') = (delivered_at IS NOT NULL)),
    CHECK (lease_token IS NULL OR state IN ('pending', 'retrying'))
);
CREATE INDEX webhooks_delivery_due ON webhooks_delivery (endpoint_id, next_at, sequence)
    WHERE state IN ('pending', 'retrying');
CREATE INDEX webhooks_delivery_endpoint ON webhooks_delivery (endpoint_id, sequence DESC);
GRANT SELECT, INSERT, UPDATE ON webhooks_delivery TO tessera_app;

-- Who owes whom for a line, by what happened and who pays for it. `none` is a line for information: the bank paid
-- with its own money for its own customer.
CREATE TABLE settlement_rule (
    kind        text NOT NULL,
    funder_kind text NOT NULL CHECK (funder_kind IN ('bank', 'partner', 'merchant', 'fiscal')),
    direction   text NOT NULL CHECK (direction IN ('partner_owes_bank', 'bank_owes_partner', 'none')),
    reason      text NOT NULL,
    PRIMARY KEY (kind, funder_kind)
);
INSERT INTO settlement_rule (kind, funder_kind, direction, reason) VALUES
    ('points_issued', 'bank', 'none', 'The bank promised points at its own cost.'),
    ('points_issued', 'partner', 'partner_owes_bank', 'The partner promised points; the bank will pay whoever takes them.'),
    ('points_issued', 'merchant', 'partner_owes_bank', 'The merchant promised points; its partner answers for it.'),
    ('points_issued', 'fiscal', 'none', 'The treasury pays for these points, outside this settlement.'),
    ('points_clawed_back', 'bank', 'none', 'The bank takes back its own promise.'),
    ('points_clawed_back', 'partner', 'bank_owes_partner', 'The promise the partner paid for is taken back.'),
    ('points_clawed_back', 'merchant', 'bank_owes_partner', 'The promise the merchant paid for is taken back.'),
    ('points_clawed_back', 'fiscal', 'none', 'The treasury is credited outside this settlement.'),
    ('points_redeemed', 'bank', 'bank_owes_partner', 'The partner gave goods for points.'),
    ('points_redeemed', 'partner', 'bank_owes_partner', 'The partner gave goods for points that were paid for when issued.'),
    ('points_redeemed', 'merchant', 'bank_owes_partner', 'The partner gave goods for points that were paid for when issued.'),
    ('points_redeemed', 'fiscal', 'bank_owes_partner', 'The partner gave goods for points.'),
    ('points_restored', 'bank', 'partner_owes_bank', 'The goods came back, so the points'' value does too.'),
    ('points_restored', 'partner', 'partner_owes_bank', 'The goods came back, so the points'' value does too.'),
    ('points_restored', 'merchant', 'partner_owes_bank', 'The goods came back, so the points'' value does too.'),
    ('points_restored', 'fiscal', 'partner_owes_bank', 'The goods came back, so the points'' value does too.'),
    ('capture', 'bank', 'bank_owes_partner', 'The bank pays the partner the principal it financed.'),
    ('refund', 'bank', 'partner_owes_bank', 'The partner returns principal for goods that came back.'),
    ('discount', 'bank', 'bank_owes_partner', 'The bank makes up the discount it gave in the partner''s shop.'),
    ('discount_reversal', 'bank', 'partner_owes_bank', 'The discount is returned with the goods.'),
    ('merchant_subsidy', 'merchant', 'partner_owes_bank', 'The merchant pays the customer''s interest.'),
    ('merchant_subsidy', 'partner', 'partner_owes_bank', 'The partner pays the customer''s interest.'),
    ('subsidy_reversal', 'merchant', 'bank_owes_partner', 'Interest that will not be earned is not paid for.'),
    ('subsidy_reversal', 'partner', 'bank_owes_partner', 'Interest that will not be earned is not paid for.');
GRANT SELECT ON settlement_rule TO tessera_app;

-- What one partner's business up to one day came to. Closed once, then only its payment moves on.
CREATE TABLE settlement_batch (
    id               uuid        PRIMARY KEY,
    partner_id       uuid        NOT NULL,
    business_on      date        NOT NULL,
    sequence         int         NOT NULL CHECK (sequence >= 1),
    state            text        NOT NULL CHECK (state IN ('open', 'closing', 'closed', 'reconciled', 'paid')),
    lines            int         NOT NULL DEFAULT 0 CHECK (lines >= 0),
    partner_owes_fen bigint      NOT NULL DEFAULT 0 CHECK (partner_owes_fen >= 0),
    bank_owes_fen    bigint      NOT NULL DEFAULT 0 CHECK (bank_owes_fen >= 0),
    net_fen          bigint      NOT NULL GENERATED ALWAYS AS (bank_owes_fen - partner_owes_fen) STORED,
    closed_at        timestamptz,
    UNIQUE (partner_id, business_on, sequence),
    UNIQUE (id, partner_id),
    CHECK ((state IN ('open', 'closing')) = (closed_at IS NULL))
);
GRANT SELECT, INSERT ON settlement_batch TO tessera_app;
GRANT UPDATE (state, lines, partner_owes_fen, bank_owes_fen, closed_at) ON settlement_batch TO tessera_app;

CREATE FUNCTION settlement_batch_guard() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    states CONSTANT text[] := '{open, closing, closed, reconciled, paid}';
BEGIN
    IF (NEW.lines, NEW.partner_owes_fen, NEW.bank_owes_fen, NEW.closed_at)
        IS DISTINCT FROM (OLD.lines, OLD.partner_owes_fen, OLD.bank_owes_fen, OLD.closed_at)
        OR array_position(states, NEW.state) < array_position(states, OLD.state)
    THEN
        RAISE EXCEPTION 'settlement batch % is closed: its figures never change', OLD.id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'settlement_batch_is_closed';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER settlement_batch_is_closed BEFORE UPDATE ON settlement_batch
    FOR EACH ROW WHEN (OLD.state IN ('closed', 'reconciled', 'paid')) EXECUTE FUNCTION settlement_batch_guard();

-- One row of a published source, settled. The unique key on the source row is what makes twice impossible.
CREATE TABLE settlement_line (
    batch_id     uuid        NOT NULL,
    no           int         NOT NULL CHECK (no >= 1),
    partner_id   uuid        NOT NULL,
    source       text        NOT NULL CHECK (source IN ('ledger', 'credit')),
    entry_ref    text        NOT NULL,
    operation_id uuid        NOT NULL,
    kind         text        NOT NULL,
    funder       text        NOT NULL,
    direction    text        NOT NULL CHECK (direction IN ('partner_owes_bank', 'bank_owes_partner', 'none')),
    points       bigint      NOT NULL CHECK (points >= 0),
    amount_fen   bigint      NOT NULL CHECK (amount_fen >= 0),
    business_on  date        NOT NULL,
    recorded_at  timestamptz NOT NULL,
    PRIMARY KEY (batch_id, no),
    UNIQUE (source, entry_ref),
    FOREIGN KEY (batch_id, partner_id) REFERENCES settlement_batch (id, partner_id)
);
GRANT SELECT, INSERT ON settlement_line TO tessera_app;

CREATE FUNCTION settlement_line_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (
        SELECT FROM settlement_batch AS b
         WHERE b.id IN (SELECT DISTINCT n.batch_id FROM new_line AS n) AND b.state <> 'closing')
    THEN
        RAISE EXCEPTION 'a settlement line may only join a batch that is closing'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'settlement_line_batch_is_closing';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER settlement_line_batch_is_closing AFTER INSERT ON settlement_line
    REFERENCING NEW TABLE AS new_line FOR EACH STATEMENT EXECUTE FUNCTION settlement_line_guard();

-- The sums of a batch by kind, as the partner books them.
CREATE TABLE settlement_total (
    batch_id   uuid   NOT NULL REFERENCES settlement_batch,
    kind       text   NOT NULL,
    direction  text   NOT NULL CHECK (direction IN ('partner_owes_bank', 'bank_owes_partner', 'none')),
    lines      int    NOT NULL CHECK (lines >= 1),
    points     bigint NOT NULL CHECK (points >= 0),
    amount_fen bigint NOT NULL CHECK (amount_fen >= 0),
    PRIMARY KEY (batch_id, kind, direction)
);
GRANT SELECT, INSERT ON settlement_total TO tessera_app;
