-- The bank's own app: its registration, how a member logs in with it, its session and the tokens that keep it; and what
-- partners ask of members by way of it (CIBA). Secrets lie here as their SHA-256 only.

-- A partner's request that waits for the member's answer on the phone (OpenID CIBA, poll).
-- pending → approved → redeemed; pending → denied; what is past expires_at has expired, whatever it says here.
CREATE TABLE oauth_backchannel (
    id               uuid        PRIMARY KEY,
    auth_req_hash    bytea       NOT NULL CONSTRAINT oauth_backchannel_secret UNIQUE CHECK (length(auth_req_hash) = 32),
    partner_id       uuid        NOT NULL,
    client_id        text        NOT NULL,
    member_id        bigint      NOT NULL,
    bucket           smallint    NOT NULL,
    state            text        NOT NULL CHECK (state IN ('pending', 'approved', 'denied', 'redeemed')),
    -- partners.oauth.model.BackchannelDocument
    document         jsonb       NOT NULL,
    asked_at         timestamptz NOT NULL,
    expires_at       timestamptz NOT NULL,
    -- how long the client waits between polls, and when the next one is due
    interval_seconds integer     NOT NULL CHECK (interval_seconds BETWEEN 1 AND 3600),
    poll_due_at      timestamptz NOT NULL,
    decided_at       timestamptz CHECK ((decided_at IS NULL) = (state = 'pending')),
    consent_id       uuid        REFERENCES oauth_consent,
    redeemed_at      timestamptz CHECK ((redeemed_at IS NOT NULL) = (state = 'redeemed')),
    CHECK (state NOT IN ('pending', 'denied') OR consent_id IS NULL)
);
CREATE INDEX oauth_backchannel_member ON oauth_backchannel (member_id, asked_at);
CREATE INDEX oauth_backchannel_open ON oauth_backchannel (partner_id) WHERE state = 'pending';
CREATE INDEX oauth_backchannel_asked_at ON oauth_backchannel (asked_at);
GRANT SELECT, INSERT, DELETE ON oauth_backchannel TO tessera_app;
GRANT UPDATE (state, expires_at, interval_seconds, poll_due_at, decided_at, consent_id, redeemed_at)
    ON oauth_backchannel TO tessera_app;

-- The member first: the same index finds a pair's grants and a member's own, whoever they were given to.
DROP INDEX oauth_consent_standing;
CREATE INDEX oauth_consent_standing ON oauth_consent (member_id, partner_id) WHERE withdrawn_at IS NULL;

-- The bank's app as an OAuth client: it keeps no secret (RFC 8252).
CREATE TABLE mobile_app (
    client_id     text        PRIMARY KEY,
    name_zh       text        NOT NULL,
    name_en       text        NOT NULL,
    redirect_uris text[]      NOT NULL CHECK (cardinality(redirect_uris) BETWEEN 1 AND 16),
    scopes        text[]      NOT NULL,
    status        text        NOT NULL CHECK (status IN ('active', 'inactive')),
    registered_at timestamptz NOT NULL,
    UNIQUE (name_en)
);
GRANT SELECT, INSERT ON mobile_app TO tessera_app;
GRANT UPDATE (status) ON mobile_app TO tessera_app;

-- A login on its way: a page that waits, then a code that is exchanged once. open → approved → used; open → denied.
CREATE TABLE mobile_login (
    id               uuid        PRIMARY KEY,
    client_id        text        NOT NULL REFERENCES mobile_app,
    handle_hash      bytea       NOT NULL CONSTRAINT mobile_login_handle UNIQUE CHECK (length(handle_hash) = 32),
    state            text        NOT NULL CHECK (state IN ('open', 'approved', 'denied', 'used')),
    -- partners.mobile.model.LoginDocument
    document         jsonb       NOT NULL,
    started_at       timestamptz NOT NULL,
    expires_at       timestamptz NOT NULL,
    code_hash        bytea       CONSTRAINT mobile_login_code UNIQUE CHECK (length(code_hash) = 32),
    code_expires_at  timestamptz,
    member_id        bigint,
    bucket           smallint,
    authenticated_at timestamptz,
    methods          text[],
    CHECK ((state IN ('approved', 'used')) = (code_hash IS NOT NULL AND code_expires_at IS NOT NULL AND member_id IS NOT NULL
           AND bucket IS NOT NULL AND authenticated_at IS NOT NULL AND methods IS NOT NULL))
);
CREATE INDEX mobile_login_started_at ON mobile_login (started_at);
CREATE INDEX mobile_login_unanswered ON mobile_login (started_at) WHERE state IN ('open', 'denied');
GRANT SELECT, INSERT, DELETE ON mobile_login TO tessera_app;
GRANT UPDATE (state, code_hash, code_expires_at, member_id, bucket, authenticated_at, methods) ON mobile_login TO tessera_app;

-- The app on one phone, logged in as one member; its id is that of the login. Whatever is asked with its tokens looks here.
CREATE TABLE mobile_session (
    id               uuid        PRIMARY KEY,
    client_id        text        NOT NULL REFERENCES mobile_app,
    member_id        bigint      NOT NULL,
    bucket           smallint    NOT NULL,
    jkt              text        NOT NULL,
    scopes           text[]      NOT NULL,
    authenticated_at timestamptz NOT NULL,
    methods          text[]      NOT NULL,
    started_at       timestamptz NOT NULL,
    refreshed_at     timestamptz NOT NULL,
    ended_at         timestamptz,
    ended_because    text        CHECK (ended_because IN ('revoked', 'replaced', 'code_reused', 'refresh_reused')),
    CHECK ((ended_at IS NULL) = (ended_because IS NULL))
);
CREATE INDEX mobile_session_member ON mobile_session (member_id) WHERE ended_at IS NULL;
CREATE INDEX mobile_session_refreshed_at ON mobile_session (refreshed_at);
GRANT SELECT, INSERT, DELETE ON mobile_session TO tessera_app;
GRANT UPDATE (refreshed_at, ended_at, ended_because) ON mobile_session TO tessera_app;

-- The family of a session's refresh tokens: each makes the next, once.
CREATE TABLE mobile_refresh (
    token_hash bytea       PRIMARY KEY CHECK (length(token_hash) = 32),
    session_id uuid        NOT NULL REFERENCES mobile_session ON DELETE CASCADE,
    generation integer     NOT NULL CHECK (generation >= 0),
    issued_at  timestamptz NOT NULL,
    used_at    timestamptz,
    UNIQUE (session_id, generation)
);
CREATE INDEX mobile_refresh_used_at ON mobile_refresh (used_at);
GRANT SELECT, INSERT, DELETE ON mobile_refresh TO tessera_app;
GRANT UPDATE (used_at) ON mobile_refresh TO tessera_app;
