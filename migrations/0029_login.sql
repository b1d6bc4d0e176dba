-- Members' own credentials and what becomes of a login. Names are sealed and found by a keyed index; codes, cookies and
-- handles are stored as hashes only; counters stand here, because a limit that can be lost is no limit.

CREATE TABLE login_account (
    id          uuid        PRIMARY KEY,
    member_id   bigint      NOT NULL CONSTRAINT login_account_member UNIQUE,
    bucket      smallint    NOT NULL,
    name_index  bytea       NOT NULL CONSTRAINT login_account_name UNIQUE CHECK (length(name_index) = 32),
    name_sealed bytea       NOT NULL,
    -- the secret of an authenticator app, sealed, and the time step of its last code: each is good once
    totp_sealed bytea,
    totp_step   bigint,
    created_at  timestamptz NOT NULL,
    disabled_at timestamptz
);
GRANT SELECT, INSERT ON login_account TO tessera_app;
GRANT UPDATE (totp_sealed, totp_step, disabled_at) ON login_account TO tessera_app;

-- Argon2id in PHC form: the parameters stand with the hash.
CREATE TABLE login_password (
    account_id uuid        PRIMARY KEY REFERENCES login_account,
    hash       text        NOT NULL CHECK (hash LIKE '$argon2id$%'),
    changed_at timestamptz NOT NULL
);
GRANT SELECT, INSERT ON login_password TO tessera_app;
GRANT UPDATE (hash, changed_at) ON login_password TO tessera_app;

-- A browser that the member once logged in with completely.
CREATE TABLE login_device (
    id          uuid        PRIMARY KEY,
    account_id  uuid        NOT NULL REFERENCES login_account,
    secret_hash bytea       NOT NULL UNIQUE CHECK (length(secret_hash) = 32),
    bound_at    timestamptz NOT NULL,
    ends_at     timestamptz NOT NULL,
    revoked_at  timestamptz
);
CREATE INDEX login_device_account ON login_device (account_id, bound_at);
GRANT SELECT, INSERT ON login_device TO tessera_app;
GRANT UPDATE (revoked_at) ON login_device TO tessera_app;

CREATE TABLE login_passkey (
    credential_id bytea       PRIMARY KEY CHECK (length(credential_id) BETWEEN 1 AND 1023),
    account_id    uuid        NOT NULL REFERENCES login_account,
    -- offered on this device only
    device_id     uuid        NOT NULL REFERENCES login_device,
    public_key    bytea       NOT NULL CHECK (length(public_key) <= 1024),
    sign_count    bigint      NOT NULL CHECK (sign_count >= 0),
    -- kept in hardware that cannot give it away, or synchronised between the member's devices
    hardware      boolean     NOT NULL,
    added_at      timestamptz NOT NULL,
    used_at       timestamptz,
    revoked_at    timestamptz
);
CREATE INDEX login_passkey_device ON login_passkey (device_id);
GRANT SELECT, INSERT ON login_passkey TO tessera_app;
GRANT UPDATE (sign_count, used_at, revoked_at) ON login_passkey TO tessera_app;

-- One login for one matter (context) in one browser.
CREATE TABLE login_session (
    id               uuid        PRIMARY KEY,
    context_hash     bytea       NOT NULL CONSTRAINT login_session_context UNIQUE CHECK (length(context_hash) = 32),
    browser_hash     bytea       NOT NULL CHECK (length(browser_hash) = 32),
    stage            text        NOT NULL CHECK (stage IN ('new', 'password', 'done', 'ended')),
    account_id       uuid        REFERENCES login_account,
    methods          text[]      NOT NULL DEFAULT '{}',
    -- what a passkey has to sign: taken once
    challenge        bytea,
    started_at       timestamptz NOT NULL,
    expires_at       timestamptz NOT NULL,
    authenticated_at timestamptz,
    CHECK ((stage = 'new') <= (account_id IS NULL)),
    CHECK (stage NOT IN ('password', 'done') OR account_id IS NOT NULL),
    CHECK (stage <> 'done' OR authenticated_at IS NOT NULL)
);
CREATE INDEX login_session_expiry ON login_session (expires_at);
GRANT SELECT, INSERT, DELETE ON login_session TO tessera_app;
GRANT UPDATE (browser_hash, stage, account_id, methods, challenge, authenticated_at) ON login_session TO tessera_app;

-- The one-time code of a session: six digits under a key of the vault. A new code replaces the one before.
CREATE TABLE login_code (
    session_id uuid        PRIMARY KEY REFERENCES login_session ON DELETE CASCADE,
    code_hash  bytea       NOT NULL CHECK (length(code_hash) = 32),
    sends      smallint    NOT NULL CHECK (sends BETWEEN 1 AND 3),
    attempts   smallint    NOT NULL CHECK (attempts BETWEEN 0 AND 5),
    sent_at    timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    used_at    timestamptz
);
GRANT SELECT, INSERT ON login_code TO tessera_app;
GRANT UPDATE (code_hash, sends, attempts, sent_at, expires_at, used_at) ON login_code TO tessera_app;

-- Attempts within a window, by what they were made against: a name, a device, an account, an address; keyed hashes.
CREATE TABLE login_attempt (
    kind           text        NOT NULL CHECK (kind IN ('name', 'device', 'address', 'code', 'app', 'passkey', 'send')),
    subject        bytea       NOT NULL CHECK (length(subject) = 32),
    attempts       integer     NOT NULL CHECK (attempts >= 0),
    window_ends_at timestamptz NOT NULL,
    PRIMARY KEY (kind, subject)
);
CREATE INDEX login_attempt_window ON login_attempt (window_ends_at);
GRANT SELECT, INSERT, DELETE ON login_attempt TO tessera_app;
GRANT UPDATE (attempts, window_ends_at) ON login_attempt TO tessera_app;

-- What the sandbox would have sent to a member's phone. A live system never writes here.
CREATE TABLE login_message (
    id          uuid        PRIMARY KEY,
    account_id  uuid        NOT NULL REFERENCES login_account,
    text_sealed bytea       NOT NULL,
    sent_at     timestamptz NOT NULL
);
CREATE INDEX login_message_account ON login_message (account_id, id);
GRANT SELECT, INSERT, DELETE ON login_message TO tessera_app;

-- PIPL Art. 23: who receives a member's data is named with a contact.
ALTER TABLE registry_partner ADD COLUMN contact text NOT NULL DEFAULT '' CHECK (length(contact) <= 200);
GRANT UPDATE (contact) ON registry_partner TO tessera_app;
