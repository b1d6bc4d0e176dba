-- The authorization server of the partner issuer: what was asked (oauth_request), what may be exchanged once (oauth_code),
-- what keeps giving tokens (oauth_refresh), what a member grants (oauth_consent, now a grant of its own id) and what was
-- taken back (oauth_revocation). Secrets lie here as their SHA-256 only.

-- Where an app may have members sent back to, and which grants it may use; least by default.
ALTER TABLE registry_app
    ADD COLUMN redirect_uris text[] NOT NULL DEFAULT '{}' CHECK (cardinality(redirect_uris) <= 16),
    ADD COLUMN grant_types   text[] NOT NULL DEFAULT '{client_credentials}'
        CHECK (grant_types <@ ARRAY['client_credentials', 'authorization_code', 'refresh_token',
                                    'urn:openid:params:grant-type:ciba']);
GRANT UPDATE (redirect_uris, grant_types) ON registry_app TO tessera_app;

-- A member may have several grants standing for one partner: the one index stays, but is not unique any more. How many
-- there may be is decided under a lock of the pair (partners/oauth/grants.py).
ALTER TABLE oauth_consent
    ADD COLUMN data_kinds            text[]  NOT NULL DEFAULT '{}',
    ADD COLUMN authorization_details jsonb   NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(authorization_details) = 'array'),
    ADD COLUMN sensitive             boolean NOT NULL DEFAULT false;
DROP INDEX oauth_consent_standing;
CREATE INDEX oauth_consent_standing ON oauth_consent (partner_id, member_id) WHERE withdrawn_at IS NULL;
GRANT UPDATE (scopes, purposes, data_kinds, authorization_details, sensitive, ends_on) ON oauth_consent TO tessera_app;
DROP TRIGGER oauth_consent_stays_withdrawn ON oauth_consent;
CREATE TRIGGER oauth_consent_stays_withdrawn BEFORE UPDATE ON oauth_consent
    FOR EACH ROW WHEN (OLD.withdrawn_at IS NOT NULL) EXECUTE FUNCTION oauth_consent_stays_withdrawn();

-- What a member was shown and agreed to, each time: the grant's row changes when it is widened, this never does.
CREATE TABLE oauth_consent_given (
    id                    uuid        PRIMARY KEY,
    consent_id            uuid        NOT NULL REFERENCES oauth_consent,
    request_id            uuid        NOT NULL,
    client_id             text        NOT NULL,
    scopes                text[]      NOT NULL,
    purposes              text[]      NOT NULL,
    data_kinds            text[]      NOT NULL,
    authorization_details jsonb       NOT NULL,
    sensitive             boolean     NOT NULL,
    ends_on               date        NOT NULL,
    authenticated_at      timestamptz NOT NULL,
    methods               text[]      NOT NULL,
    given_at              timestamptz NOT NULL
);
CREATE INDEX oauth_consent_given_consent ON oauth_consent_given (consent_id);
GRANT SELECT, INSERT ON oauth_consent_given TO tessera_app;

-- A pushed authorization request (RFC 9126). `request_uri` opens the page once or several times for a short while; the
-- handle of the page is used up by the member's answer.
CREATE TABLE oauth_request (
    id                     uuid        PRIMARY KEY,
    partner_id             uuid        NOT NULL,
    client_id              text        NOT NULL,
    request_uri_hash       bytea       NOT NULL CONSTRAINT oauth_request_uri UNIQUE CHECK (length(request_uri_hash) = 32),
    handle_hash            bytea       NOT NULL CONSTRAINT oauth_request_handle UNIQUE CHECK (length(handle_hash) = 32),
    state                  text        NOT NULL CHECK (state IN ('pushed', 'approved', 'denied', 'expired')),
    -- partners.oauth.model.AuthorizationRequest
    document               jsonb       NOT NULL,
    pushed_at              timestamptz NOT NULL,
    request_uri_expires_at timestamptz NOT NULL,
    -- of the page; null until it is opened
    expires_at             timestamptz,
    ended_at               timestamptz CHECK ((ended_at IS NULL) = (state = 'pushed'))
);
CREATE INDEX oauth_request_pushed_at ON oauth_request (pushed_at);
CREATE INDEX oauth_request_open ON oauth_request (coalesce(expires_at, request_uri_expires_at)) WHERE state = 'pushed';
GRANT SELECT, INSERT, DELETE ON oauth_request TO tessera_app;
GRANT UPDATE (state, expires_at, ended_at) ON oauth_request TO tessera_app;

-- An authorization code: one exchange, by one client, with one redirect URI, verifier and key.
CREATE TABLE oauth_code (
    code_hash  bytea       PRIMARY KEY CHECK (length(code_hash) = 32),
    -- names everything that comes of this code: its revocation ends all of it
    origin     uuid        NOT NULL UNIQUE,
    client_id  text        NOT NULL,
    consent_id uuid        NOT NULL REFERENCES oauth_consent,
    -- partners.oauth.model.CodeDocument
    document   jsonb       NOT NULL,
    issued_at  timestamptz NOT NULL,
    expires_at timestamptz NOT NULL CHECK (expires_at <= issued_at + interval '60 seconds'),
    used_at    timestamptz
);
CREATE INDEX oauth_code_issued_at ON oauth_code (issued_at);
CREATE INDEX oauth_code_consent ON oauth_code (consent_id);
GRANT SELECT, INSERT, DELETE ON oauth_code TO tessera_app;
GRANT UPDATE (used_at) ON oauth_code TO tessera_app;

-- A refresh token is not rotated (FAPI 2.0 §5.3.2.1): it is bound to client, key and grant, and ends with the grant.
CREATE TABLE oauth_refresh (
    token_hash bytea       PRIMARY KEY CHECK (length(token_hash) = 32),
    origin     uuid        NOT NULL UNIQUE,
    client_id  text        NOT NULL,
    consent_id uuid        NOT NULL REFERENCES oauth_consent,
    sub        text        NOT NULL,
    jkt        text        NOT NULL,
    scopes     text[]      NOT NULL,
    issued_at  timestamptz NOT NULL,
    used_at    timestamptz NOT NULL,
    revoked_at timestamptz
);
CREATE INDEX oauth_refresh_used_at ON oauth_refresh (used_at);
CREATE INDEX oauth_refresh_consent ON oauth_refresh (consent_id);
GRANT SELECT, INSERT, DELETE ON oauth_refresh TO tessera_app;
GRANT UPDATE (used_at, revoked_at) ON oauth_refresh TO tessera_app;

-- What was drawn of a limit, such as of the points a member lets a partner spend under one grant.
CREATE TABLE kernel_allowance (
    name  text   PRIMARY KEY CHECK (length(name) BETWEEN 1 AND 128),
    drawn bigint NOT NULL CHECK (drawn >= 0)
);
GRANT SELECT, INSERT ON kernel_allowance TO tessera_app;
GRANT UPDATE (drawn) ON kernel_allowance TO tessera_app;

-- What must stop working before it expires: `token:<jti>`, `origin:<uuid>`, `grant:<uuid>`. Kept until the last access
-- token it could concern has expired. By transaction id, so that a reader who saw everything below a snapshot's oldest
-- running transaction misses nobody who commits late.
CREATE TABLE oauth_revocation (
    subject    text        NOT NULL,
    revoked_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    xid        xid8        NOT NULL DEFAULT pg_current_xact_id(),
    PRIMARY KEY (subject, revoked_at)
);
CREATE INDEX oauth_revocation_xid ON oauth_revocation (xid);
CREATE INDEX oauth_revocation_expires_at ON oauth_revocation (expires_at);
GRANT SELECT, INSERT, DELETE ON oauth_revocation TO tessera_app;
