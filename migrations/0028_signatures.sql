-- Signed messages: what an app must sign, the SM2 keys of partners and of the bank.

-- New apps sign; those that exist go on as they were until they are told otherwise.
ALTER TABLE registry_app ADD COLUMN request_signature text NOT NULL DEFAULT 'optional'
    CHECK (request_signature IN ('optional', 'fapi', 'sm2'));
ALTER TABLE registry_app ALTER COLUMN request_signature SET DEFAULT 'fapi';
GRANT UPDATE (request_signature) ON registry_app TO tessera_app;

-- Public keys only: a point of the curve has no room for a private one.
CREATE TABLE registry_sm2_key (
    app_id    uuid        NOT NULL REFERENCES registry_app,
    serial_no text        NOT NULL CHECK (serial_no ~ '^[0-9A-Za-z._-]{1,64}$'),
    x         bytea       NOT NULL CHECK (length(x) = 32),
    y         bytea       NOT NULL CHECK (length(y) = 32),
    status    text        NOT NULL CHECK (status IN ('active', 'revoked')),
    added_at  timestamptz NOT NULL,
    CONSTRAINT registry_sm2_key_serial PRIMARY KEY (app_id, serial_no),
    CONSTRAINT registry_sm2_key_point UNIQUE (app_id, x)
);
GRANT SELECT, INSERT ON registry_sm2_key TO tessera_app;
GRANT UPDATE (status) ON registry_sm2_key TO tessera_app;

-- The keys the bank signs its answers with under the SM2 scheme; the private half is sealed for this very row.
CREATE TABLE oauth_sm2_key (
    serial_no   text        PRIMARY KEY,
    private_der bytea       NOT NULL,
    public_spki bytea       NOT NULL,
    status      text        NOT NULL CHECK (status IN ('active', 'retired')),
    created_at  timestamptz NOT NULL
);
CREATE UNIQUE INDEX oauth_sm2_key_active ON oauth_sm2_key (status) WHERE status = 'active';
GRANT SELECT, INSERT ON oauth_sm2_key TO tessera_app;
GRANT UPDATE (status) ON oauth_sm2_key TO tessera_app;
