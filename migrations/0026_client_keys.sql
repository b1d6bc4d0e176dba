-- Keys that rotate themselves, where an app's keys may be fetched, certificates, addresses, decisions of two people
-- about partners, and the counters of the token endpoint.

-- A pending key waits for its first use; the keys before it then retire and are good until not_after.
ALTER TABLE registry_key
    ADD COLUMN overlap_seconds integer CHECK (overlap_seconds BETWEEN 0 AND 2592000),
    ADD COLUMN not_after       timestamptz,
    ADD COLUMN activated_at    timestamptz,
    ADD COLUMN revoked_at      timestamptz;
-- A rotation while one is pending is refused by the rule; this is the second wall.
CREATE UNIQUE INDEX registry_key_pending ON registry_key (app_id) WHERE status = 'pending';
GRANT UPDATE (not_after, activated_at, revoked_at) ON registry_key TO tessera_app;

ALTER TABLE registry_app
    ADD COLUMN jwks_uri                text   CHECK (jwks_uri ~ '^https?://' AND length(jwks_uri) <= 2048),
    ADD COLUMN token_binding           text   NOT NULL DEFAULT 'dpop' CHECK (token_binding IN ('dpop', 'certificate')),
    -- 'dns:api.shop.example' or 'dn:CN=…,O=…' (RFC 4514): by which the app authenticates with its certificate
    ADD COLUMN certificate_subject     text   CHECK (certificate_subject ~ '^(dns|dn):.'),
    -- SHA-256 of the whole certificate, base64url; none: any certificate of the subject
    ADD COLUMN certificate_thumbprints text[] NOT NULL DEFAULT '{}',
    -- none: from everywhere
    ADD COLUMN ip_allow                cidr[] NOT NULL DEFAULT '{}';
GRANT UPDATE (jwks_uri, token_binding, certificate_subject, certificate_thumbprints, ip_allow) ON registry_app TO tessera_app;

-- The last good copy of the keys an app publishes; attempted_at lets one process fetch at a time, and once a minute.
CREATE TABLE registry_jwks (
    app_id       uuid        PRIMARY KEY REFERENCES registry_app,
    jwks_uri     text        NOT NULL,
    keys         jsonb       NOT NULL DEFAULT '{}',
    fetched_at   timestamptz,
    attempted_at timestamptz NOT NULL,
    failure      text
);
GRANT SELECT, INSERT, UPDATE, DELETE ON registry_jwks TO tessera_app;

-- What one of the bank's people proposes about a partner and another decides; the payload never changes.
CREATE TABLE registry_change (
    id          uuid        PRIMARY KEY,
    partner_id  uuid        NOT NULL REFERENCES registry_partner,
    app_id      uuid        REFERENCES registry_app,
    kind        text        NOT NULL CHECK (kind IN ('reinstate', 'access')),
    payload     jsonb       NOT NULL,
    reason      text        NOT NULL CHECK (length(reason) BETWEEN 1 AND 500),
    state       text        NOT NULL CHECK (state IN ('proposed', 'approved', 'rejected', 'expired')),
    proposed_by text        NOT NULL,
    proposed_at timestamptz NOT NULL,
    expires_at  timestamptz NOT NULL,
    decided_by  text        CONSTRAINT registry_change_two_people CHECK (decided_by <> proposed_by),
    decided_at  timestamptz,
    CHECK (state IN ('proposed', 'expired') OR decided_by IS NOT NULL)
);
CREATE UNIQUE INDEX registry_change_open
    ON registry_change (partner_id, kind, coalesce(app_id, partner_id)) WHERE state = 'proposed';
GRANT SELECT, INSERT ON registry_change TO tessera_app;
GRANT UPDATE (state, decided_by, decided_at) ON registry_change TO tessera_app;

-- When a signing key took its present status: published keys wait a day, replaced ones stay a day.
ALTER TABLE oauth_signing_key ADD COLUMN moved_at timestamptz;
UPDATE oauth_signing_key SET moved_at = created_at;
ALTER TABLE oauth_signing_key ALTER COLUMN moved_at SET NOT NULL;
GRANT UPDATE (moved_at) ON oauth_signing_key TO tessera_app;

-- Requests and failures of one client or address in one minute; the subject is a hash. Swept when the minute is long over.
CREATE TABLE kernel_attempt (
    subject   bytea       NOT NULL CHECK (length(subject) = 32),
    window_at timestamptz NOT NULL,
    requests  bigint      NOT NULL DEFAULT 0,
    failures  bigint      NOT NULL DEFAULT 0,
    PRIMARY KEY (subject, window_at)
);
CREATE INDEX kernel_attempt_window ON kernel_attempt (window_at);
GRANT SELECT, INSERT, UPDATE, DELETE ON kernel_attempt TO tessera_app;
