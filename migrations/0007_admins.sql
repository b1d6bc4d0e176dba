-- Bank staff who may enter the console. Passwords are Argon2id hashes, TOTP secrets are sealed by the vault.

CREATE TABLE gateway_admin (
    id            uuid        PRIMARY KEY,
    login         text        NOT NULL UNIQUE CHECK (login ~ '^[a-z0-9][a-z0-9._-]{1,62}$'),
    roles         text[]      NOT NULL CHECK (
        cardinality(roles) > 0 AND roles <@ ARRAY['viewer', 'maker', 'checker', 'duty_officer']),
    password_hash text        NOT NULL,
    totp_sealed   bytea       NOT NULL,
    created_at    timestamptz NOT NULL,
    disabled_at   timestamptz
);
GRANT SELECT, INSERT ON gateway_admin TO tessera_app;
GRANT UPDATE (roles, password_hash, totp_sealed, disabled_at) ON gateway_admin TO tessera_app;
