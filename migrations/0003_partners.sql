-- Partners, their apps, keys and agreements (registry_*); signing keys, pairwise subjects and consents (oauth_*).
-- Subjects, consents and customers point at partners and members without foreign keys: they are written a thousand at
-- a time, members belong to another domain, and no partner or member row is ever deleted.

CREATE TABLE registry_partner (
    id         uuid        PRIMARY KEY,
    slug       text        NOT NULL CONSTRAINT registry_partner_slug UNIQUE CHECK (slug ~ '^[a-z][a-z0-9-]{1,62}$'),
    name_zh    text        NOT NULL CHECK (name_zh <> ''),
    name_en    text        NOT NULL CHECK (name_en <> ''),
    kind       text        NOT NULL CHECK (kind IN ('product_supplier', 'service_provider')),
    scene      text        NOT NULL CHECK (scene IN ('ecommerce', 'hospital', 'education', 'tax')),
    status     text        NOT NULL CHECK (status IN ('draft', 'submitted', 'in_review', 'approved', 'live', 'suspended',
                                                      'terminating', 'terminated', 'rejected')),
    -- raised whenever tokens issued before must stop working for good
    epoch      integer     NOT NULL DEFAULT 1 CHECK (epoch > 0),
    created_at timestamptz NOT NULL,
    changed_at timestamptz NOT NULL
);
GRANT SELECT, INSERT ON registry_partner TO tessera_app;
GRANT UPDATE (name_zh, name_en, status, epoch, changed_at) ON registry_partner TO tessera_app;

CREATE TABLE registry_app (
    id              uuid        PRIMARY KEY,
    partner_id      uuid        NOT NULL REFERENCES registry_partner,
    client_id       text        NOT NULL UNIQUE,
    status          text        NOT NULL CHECK (status IN ('active', 'inactive', 'removed')),
    scopes          text[]      NOT NULL,
    rate_per_second integer     NOT NULL CHECK (rate_per_second > 0),
    burst           integer     NOT NULL CHECK (burst > 0),
    created_at      timestamptz NOT NULL
);
CREATE INDEX registry_app_partner ON registry_app (partner_id);
GRANT SELECT, INSERT ON registry_app TO tessera_app;
GRANT UPDATE (status, scopes, rate_per_second, burst) ON registry_app TO tessera_app;

-- Public keys only. The check is the second wall: the rule in partners/registry/jwk.py is the first.
CREATE TABLE registry_key (
    app_id   uuid        NOT NULL REFERENCES registry_app,
    kid      text        NOT NULL CHECK (length(kid) BETWEEN 1 AND 64),
    jwk      jsonb       NOT NULL CHECK (NOT jwk ?| ARRAY['d', 'p', 'q', 'dp', 'dq', 'qi', 'oth', 'k']),
    status   text        NOT NULL CHECK (status IN ('pending', 'active', 'retiring', 'revoked')),
    added_at timestamptz NOT NULL,
    CONSTRAINT registry_key_kid PRIMARY KEY (app_id, kid)
);
GRANT SELECT, INSERT ON registry_key TO tessera_app;
GRANT UPDATE (status) ON registry_key TO tessera_app;

CREATE TABLE registry_agreement (
    id         uuid        PRIMARY KEY,
    partner_id uuid        NOT NULL REFERENCES registry_partner,
    scenarios  text[]      NOT NULL,
    -- who pays for what: {"points": "bank", "subsidy": {"merchant_ppm": …}}
    funding    jsonb       NOT NULL,
    starts_on  date        NOT NULL,
    ends_on    date        NOT NULL CHECK (ends_on >= starts_on),
    created_at timestamptz NOT NULL
);
CREATE INDEX registry_agreement_partner ON registry_agreement (partner_id, starts_on);
GRANT SELECT, INSERT ON registry_agreement TO tessera_app;

-- A partner's own number of a customer, kept only as a keyed hash.
CREATE TABLE registry_customer (
    partner_id uuid        NOT NULL,
    ref_hash   bytea       NOT NULL CHECK (length(ref_hash) = 32),
    member_id  bigint      NOT NULL,
    bucket     smallint    NOT NULL,
    bound_at   timestamptz NOT NULL,
    PRIMARY KEY (partner_id, ref_hash)
);
GRANT SELECT, INSERT ON registry_customer TO tessera_app;

-- Keys the authorization server signs with; the private half is sealed by the vault for this very row.
CREATE TABLE oauth_signing_key (
    kid         text        PRIMARY KEY,
    private_jwk bytea       NOT NULL,
    public_jwk  jsonb       NOT NULL CHECK (NOT public_jwk ? 'd'),
    status      text        NOT NULL CHECK (status IN ('pending', 'active', 'retiring', 'retired')),
    created_at  timestamptz NOT NULL
);
CREATE UNIQUE INDEX oauth_signing_key_active ON oauth_signing_key (status) WHERE status = 'active';
GRANT SELECT, INSERT ON oauth_signing_key TO tessera_app;
GRANT UPDATE (status) ON oauth_signing_key TO tessera_app;

-- The name under which one partner knows one member; two partners cannot compare notes.
CREATE TABLE oauth_subject (
    partner_id  uuid        NOT NULL,
    member_id   bigint      NOT NULL,
    bucket      smallint    NOT NULL,
    sub         text        NOT NULL CHECK (length(sub) = 43),
    key_version smallint    NOT NULL,
    bound_at    timestamptz NOT NULL,
    CONSTRAINT oauth_subject_member PRIMARY KEY (partner_id, member_id),
    CONSTRAINT oauth_subject_sub UNIQUE (partner_id, sub)
);
GRANT SELECT, INSERT ON oauth_subject TO tessera_app;

-- What a member allows one partner. A new consent replaces the one in force; nothing is deleted.
CREATE TABLE oauth_consent (
    id           uuid        PRIMARY KEY,
    partner_id   uuid        NOT NULL,
    member_id    bigint      NOT NULL,
    bucket       smallint    NOT NULL,
    scopes       text[]      NOT NULL,
    purposes     text[]      NOT NULL,
    granted_at   timestamptz NOT NULL,
    ends_on      date        NOT NULL,
    withdrawn_at timestamptz
);
CREATE UNIQUE INDEX oauth_consent_standing ON oauth_consent (partner_id, member_id) WHERE withdrawn_at IS NULL;
GRANT SELECT, INSERT ON oauth_consent TO tessera_app;
GRANT UPDATE (withdrawn_at) ON oauth_consent TO tessera_app;

-- What a member withdrew stays withdrawn; to consent again is a new row.
CREATE FUNCTION oauth_consent_stays_withdrawn() RETURNS trigger
    LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'consent % was withdrawn and cannot be revived', OLD.id USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER oauth_consent_stays_withdrawn BEFORE UPDATE ON oauth_consent
    FOR EACH ROW WHEN (OLD.withdrawn_at IS NOT NULL AND NEW.withdrawn_at IS DISTINCT FROM OLD.withdrawn_at)
    EXECUTE FUNCTION oauth_consent_stays_withdrawn();
