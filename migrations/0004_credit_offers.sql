-- Scenario offers, quotes and instalment plans. Offers are reference tables; everything of a member begins with the
-- member's bucket. Decisions, evidence, schedules, captures, refunds, repayments and the money journal are append-only.

CREATE TABLE offers_offer (
    id         uuid        PRIMARY KEY,
    partner_id uuid        NOT NULL,
    scenario   text        NOT NULL,
    created_at timestamptz NOT NULL
);
GRANT SELECT, INSERT ON offers_offer TO tessera_app;

-- What is sold. The document never changes; only the state may move.
CREATE TABLE offers_version (
    id            uuid        PRIMARY KEY,
    offer_id      uuid        NOT NULL REFERENCES offers_offer,
    number        integer     NOT NULL CHECK (number > 0),
    partner_id    uuid        NOT NULL,
    scenario      text        NOT NULL,
    state         text        NOT NULL CHECK (state IN (
        'draft', 'in_review', 'approved', 'scheduled', 'active', 'paused', 'exhausted', 'ended')),
    starts_at     timestamptz NOT NULL,
    ends_at       timestamptz NOT NULL,
    min_total_fen bigint      NOT NULL CHECK (min_total_fen > 0),
    max_total_fen bigint      NOT NULL,
    doc           jsonb       NOT NULL,
    created_at    timestamptz NOT NULL,
    UNIQUE (offer_id, number),
    CHECK (starts_at < ends_at),
    CHECK (min_total_fen <= max_total_fen)
);
CREATE INDEX offers_version_on_sale ON offers_version (partner_id, scenario) WHERE state = 'active';
GRANT SELECT, INSERT ON offers_version TO tessera_app;
GRANT UPDATE (state) ON offers_version TO tessera_app;

-- A signed price. A quote past its time is expired whatever its stored state says.
CREATE TABLE offers_quote (
    bucket          smallint    NOT NULL,
    id              uuid        NOT NULL,
    member_id       bigint      NOT NULL,
    partner_id      uuid        NOT NULL,
    version_id      uuid        NOT NULL REFERENCES offers_version,
    state           text        NOT NULL CHECK (state IN ('issued', 'disclosed', 'accepted', 'consumed', 'expired', 'revoked')),
    cart_hash       text        NOT NULL,
    disclosure_hash text        NOT NULL,
    doc             jsonb       NOT NULL,
    jws             text        NOT NULL,
    issued_at       timestamptz NOT NULL,
    expires_at      timestamptz NOT NULL,
    disclosed_at    timestamptz,
    accepted_at     timestamptz,
    consent_id      uuid,
    PRIMARY KEY (bucket, id),
    CHECK (issued_at < expires_at),
    CHECK (state NOT IN ('disclosed', 'accepted', 'consumed') OR disclosed_at IS NOT NULL),
    CHECK ((state IN ('accepted', 'consumed')) = (accepted_at IS NOT NULL)),
    CHECK ((accepted_at IS NULL) = (consent_id IS NULL))
);
CREATE INDEX offers_quote_id ON offers_quote (id);
GRANT SELECT, INSERT ON offers_quote TO tessera_app;
GRANT UPDATE (state, disclosed_at, accepted_at, consent_id) ON offers_quote TO tessera_app;

-- What the borrower was shown, for how long, and when it was confirmed.
CREATE TABLE offers_disclosure_evidence (
    bucket            smallint    NOT NULL,
    quote_id          uuid        NOT NULL,
    hash              text        NOT NULL,
    displayed_seconds integer     NOT NULL CHECK (displayed_seconds > 0),
    confirmed_at      timestamptz NOT NULL,
    recorded_at       timestamptz NOT NULL,
    PRIMARY KEY (bucket, quote_id),
    FOREIGN KEY (bucket, quote_id) REFERENCES offers_quote (bucket, id)
);
GRANT SELECT, INSERT ON offers_disclosure_evidence TO tessera_app;

-- How much credit a member may have open, and has. Every plan reserves here before it exists, so two decisions taken
-- at once cannot both use the last of the limit.
CREATE TABLE credit_line (
    bucket    smallint NOT NULL,
    member_id bigint   NOT NULL,
    limit_fen bigint   NOT NULL CHECK (limit_fen >= 0),
    used_fen  bigint   NOT NULL DEFAULT 0 CHECK (used_fen >= 0),
    PRIMARY KEY (bucket, member_id),
    CONSTRAINT credit_line_within_limit CHECK (used_fen <= limit_fen)
);
GRANT SELECT, INSERT ON credit_line TO tessera_app;
GRANT UPDATE (used_fen) ON credit_line TO tessera_app;

CREATE TABLE credit_application (
    bucket     smallint    NOT NULL,
    id         uuid        NOT NULL,
    member_id  bigint      NOT NULL,
    partner_id uuid        NOT NULL,
    quote_id   uuid        NOT NULL,
    state      text        NOT NULL CHECK (state IN (
        'created', 'submitted', 'in_decision', 'approved', 'approved_lower', 'referred', 'declined', 'withdrawn', 'expired')),
    amount_fen bigint      NOT NULL CHECK (amount_fen > 0),
    periods    integer     NOT NULL CHECK (periods > 0),
    created_at timestamptz NOT NULL,
    PRIMARY KEY (bucket, id),
    CONSTRAINT credit_application_once_per_quote UNIQUE (bucket, quote_id)
);
CREATE INDEX credit_application_id ON credit_application (id);
GRANT SELECT, INSERT ON credit_application TO tessera_app;
GRANT UPDATE (state) ON credit_application TO tessera_app;

-- Why. The reasons stay inside the bank; the partner is told the outcome.
CREATE TABLE credit_decision (
    bucket         smallint    NOT NULL,
    application_id uuid        NOT NULL,
    outcome        text        NOT NULL CHECK (outcome IN ('approved', 'approved_lower', 'referred', 'declined')),
    reason_codes   text[]      NOT NULL,
    limit_fen      bigint      NOT NULL,
    used_fen       bigint      NOT NULL,
    rule_version   text        NOT NULL,
    automated      boolean     NOT NULL,
    decided_at     timestamptz NOT NULL,
    PRIMARY KEY (bucket, application_id),
    FOREIGN KEY (bucket, application_id) REFERENCES credit_application (bucket, id)
);
GRANT SELECT, INSERT ON credit_decision TO tessera_app;

-- The running credit and its totals. refunded_fen counts cart value; released, reduced and returned split the part of
-- it that was financed: never captured, no longer owed, already paid and given back.
CREATE TABLE credit_plan (
    bucket             smallint    NOT NULL,
    id                 uuid        NOT NULL,
    member_id          bigint      NOT NULL,
    partner_id         uuid        NOT NULL,
    application_id     uuid        NOT NULL,
    state              text        NOT NULL CHECK (state IN (
        'authorised', 'partially_captured', 'active', 'paid_off', 'voided', 'auth_expired', 'fully_refunded',
        'overdue', 'charged_off')),
    terms              jsonb       NOT NULL,
    hold_id            uuid,
    total_fen          bigint      NOT NULL CHECK (total_fen > 0),
    financed_fen       bigint      NOT NULL CHECK (financed_fen BETWEEN 1 AND total_fen),
    captured_fen       bigint      NOT NULL DEFAULT 0 CHECK (captured_fen >= 0),
    refunded_fen       bigint      NOT NULL DEFAULT 0 CHECK (refunded_fen BETWEEN 0 AND total_fen),
    released_fen       bigint      NOT NULL DEFAULT 0 CHECK (released_fen >= 0),
    reduced_fen        bigint      NOT NULL DEFAULT 0 CHECK (reduced_fen >= 0),
    returned_fen       bigint      NOT NULL DEFAULT 0 CHECK (returned_fen >= 0),
    principal_paid_fen bigint      NOT NULL DEFAULT 0 CHECK (principal_paid_fen >= 0),
    interest_paid_fen  bigint      NOT NULL DEFAULT 0 CHECK (interest_paid_fen >= 0),
    fee_paid_fen       bigint      NOT NULL DEFAULT 0 CHECK (fee_paid_fen >= 0),
    rows_paid          integer     NOT NULL DEFAULT 0 CHECK (rows_paid >= 0),
    captures           integer     NOT NULL DEFAULT 0 CHECK (captures >= 0),
    schedule_version   integer     NOT NULL DEFAULT 1 CHECK (schedule_version > 0),
    entries            integer     NOT NULL DEFAULT 0 CHECK (entries >= 0),
    starts_on          date        NOT NULL,
    authorised_at      timestamptz NOT NULL,
    authorised_until   timestamptz NOT NULL,
    PRIMARY KEY (bucket, id),
    CONSTRAINT credit_plan_once_per_application UNIQUE (bucket, application_id),
    FOREIGN KEY (bucket, application_id) REFERENCES credit_application (bucket, id),
    CONSTRAINT credit_plan_within_authorisation CHECK (captured_fen + released_fen <= financed_fen),
    CONSTRAINT credit_plan_within_captured CHECK (reduced_fen + principal_paid_fen <= captured_fen),
    CONSTRAINT credit_plan_returns_what_was_paid CHECK (returned_fen <= principal_paid_fen)
);
CREATE INDEX credit_plan_id ON credit_plan (id);
CREATE INDEX credit_plan_lapsing ON credit_plan (state, authorised_until)
    WHERE state IN ('authorised', 'partially_captured');
GRANT SELECT, INSERT ON credit_plan TO tessera_app;
GRANT UPDATE (state, captured_fen, refunded_fen, released_fen, reduced_fen, returned_fen, principal_paid_fen,
    interest_paid_fen, fee_paid_fen, rows_paid, captures, schedule_version, entries, starts_on)
    ON credit_plan TO tessera_app;

-- The latest version is the current one. Rows already paid stay with the version under which they were paid.
CREATE TABLE credit_schedule_version (
    bucket       smallint    NOT NULL,
    plan_id      uuid        NOT NULL,
    version      integer     NOT NULL CHECK (version > 0),
    cause        text        NOT NULL CHECK (cause IN ('original', 'capture', 'refund', 'prepayment', 'reschedule')),
    principal_fen bigint     NOT NULL CHECK (principal_fen >= 0),
    created_at   timestamptz NOT NULL,
    PRIMARY KEY (bucket, plan_id, version),
    FOREIGN KEY (bucket, plan_id) REFERENCES credit_plan (bucket, id)
);
GRANT SELECT, INSERT ON credit_schedule_version TO tessera_app;

CREATE TABLE credit_schedule_row (
    bucket        smallint NOT NULL,
    plan_id       uuid     NOT NULL,
    version       integer  NOT NULL,
    no            integer  NOT NULL CHECK (no > 0),
    due_on        date     NOT NULL,
    anchor_on     date     NOT NULL,
    principal_fen bigint   NOT NULL CHECK (principal_fen >= 0),
    interest_fen  bigint   NOT NULL CHECK (interest_fen >= 0),
    fee_fen       bigint   NOT NULL CHECK (fee_fen >= 0),
    due_fen       bigint   NOT NULL,
    PRIMARY KEY (bucket, plan_id, version, no),
    FOREIGN KEY (bucket, plan_id, version) REFERENCES credit_schedule_version (bucket, plan_id, version),
    CHECK (due_fen = principal_fen + interest_fen + fee_fen)
);
GRANT SELECT, INSERT ON credit_schedule_row TO tessera_app;

CREATE TABLE credit_capture (
    bucket            smallint    NOT NULL,
    plan_id           uuid        NOT NULL,
    no                integer     NOT NULL CHECK (no > 0),
    id                uuid        NOT NULL,
    amount_fen        bigint      NOT NULL CHECK (amount_fen > 0),
    earn_operation_id uuid,
    points_earned     bigint      NOT NULL CHECK (points_earned >= 0),
    captured_at       timestamptz NOT NULL,
    PRIMARY KEY (bucket, plan_id, no),
    FOREIGN KEY (bucket, plan_id) REFERENCES credit_plan (bucket, id)
);
GRANT SELECT, INSERT ON credit_capture TO tessera_app;

CREATE TABLE credit_refund (
    bucket      smallint    NOT NULL,
    plan_id     uuid        NOT NULL,
    refund_ref  text        NOT NULL,
    id          uuid        NOT NULL,
    amount_fen  bigint      NOT NULL CHECK (amount_fen > 0),
    statement   jsonb       NOT NULL,
    refunded_at timestamptz NOT NULL,
    PRIMARY KEY (bucket, plan_id, refund_ref),
    FOREIGN KEY (bucket, plan_id) REFERENCES credit_plan (bucket, id)
);
GRANT SELECT, INSERT ON credit_refund TO tessera_app;

CREATE TABLE credit_repayment (
    bucket        smallint    NOT NULL,
    plan_id       uuid        NOT NULL,
    no            integer     NOT NULL CHECK (no > 0),
    id            uuid        NOT NULL,
    principal_fen bigint      NOT NULL CHECK (principal_fen >= 0),
    interest_fen  bigint      NOT NULL CHECK (interest_fen >= 0),
    fee_fen       bigint      NOT NULL CHECK (fee_fen >= 0),
    paid_at       timestamptz NOT NULL,
    PRIMARY KEY (bucket, plan_id, no),
    FOREIGN KEY (bucket, plan_id) REFERENCES credit_plan (bucket, id)
);
GRANT SELECT, INSERT ON credit_repayment TO tessera_app;

CREATE TABLE credit_account (
    code    text PRIMARY KEY,
    name_zh text NOT NULL,
    side    text NOT NULL CHECK (side IN ('asset', 'liability', 'income', 'expense'))
);
INSERT INTO credit_account (code, name_zh, side) VALUES
    ('customer_receivable', '应收客户分期款', 'asset'),
    ('customer_cash', '客户还款账户', 'asset'),
    ('merchant_payable', '应付合作方款', 'liability'),
    ('bank_discount_expense', '银行立减支出', 'expense'),
    ('bank_subsidy_expense', '银行贴息支出', 'expense'),
    ('subsidy_income', '贴息收入', 'income'),
    ('interest_income', '利息收入', 'income'),
    ('fee_income', '手续费收入', 'income');
GRANT SELECT ON credit_account TO tessera_app;

-- The money journal: one row is one debit and one credit, so it cannot be out of balance.
CREATE TABLE credit_entry (
    bucket         smallint    NOT NULL,
    plan_id        uuid        NOT NULL,
    seq            integer     NOT NULL CHECK (seq > 0),
    operation_id   uuid        NOT NULL,
    kind           text        NOT NULL,
    debit_account  text        NOT NULL REFERENCES credit_account,
    credit_account text        NOT NULL REFERENCES credit_account,
    amount_fen     bigint      NOT NULL CHECK (amount_fen > 0),
    funder         text        NOT NULL CHECK (funder IN ('bank', 'merchant', 'partner', 'customer')),
    partner_id     uuid        NOT NULL,
    business_on    date        NOT NULL,
    recorded_at    timestamptz NOT NULL,
    PRIMARY KEY (bucket, plan_id, seq),
    FOREIGN KEY (bucket, plan_id) REFERENCES credit_plan (bucket, id),
    CHECK (debit_account <> credit_account)
);
CREATE INDEX credit_entry_partner_day ON credit_entry (partner_id, business_on);
GRANT SELECT, INSERT ON credit_entry TO tessera_app;

-- Published for settlement and books: every entry that changes what the bank owes a partner. Amounts are positive;
-- capture, discount and subsidy_reversal are owed to the partner, refund, discount_reversal and merchant_subsidy by it.
CREATE VIEW credit_settlement_source AS
SELECT partner_id,
       operation_id,
       plan_id::text || '/' || seq AS entry_ref,
       kind,
       funder,
       bucket,
       amount_fen,
       business_on,
       recorded_at
  FROM credit_entry
 WHERE 'merchant_payable' IN (debit_account, credit_account);
GRANT SELECT ON credit_settlement_source TO tessera_app;
