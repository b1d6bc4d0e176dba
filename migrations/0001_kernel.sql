-- What every domain leans on: outbox, audit log, idempotency, one-time identifiers.
-- The application role may only do what is granted here; append-only tables get neither UPDATE nor DELETE.

GRANT USAGE ON SCHEMA public TO tessera_app;

-- Every ledger key begins with the bucket: a stable hash of the member, 0 to 1023. Knuth's multiplicative hash on
-- 32 bits; the multiplier keeps the product inside bigint.
CREATE FUNCTION bucket_of(member_id bigint) RETURNS smallint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN ((((member_id & 4294967295) * 1540483477) & 4294967295) >> 22)::smallint;

-- Facts on their way out. `position` is given by the relay, one relay at a time, so it follows commit order and a
-- reader that remembers the last position it saw never misses an event.
CREATE TABLE outbox_event (
    bucket      smallint    NOT NULL,
    id          uuid        NOT NULL,
    partner_id  uuid        NOT NULL,
    type        text        NOT NULL,
    aggregate   text        NOT NULL,
    payload     jsonb       NOT NULL,
    occurred_at timestamptz NOT NULL,
    position    bigint,
    PRIMARY KEY (bucket, id)
);
CREATE INDEX outbox_event_waiting ON outbox_event (id) WHERE position IS NULL;
CREATE UNIQUE INDEX outbox_event_partner_position ON outbox_event (partner_id, position) WHERE position IS NOT NULL;
CREATE SEQUENCE outbox_event_position;
GRANT SELECT, INSERT ON outbox_event TO tessera_app;
GRANT UPDATE (position) ON outbox_event TO tessera_app;
GRANT USAGE ON SEQUENCE outbox_event_position TO tessera_app;

-- Who did what: a chain per lane; the head row serialises the lane.
CREATE TABLE audit_lane (
    lane smallint PRIMARY KEY CHECK (lane BETWEEN 0 AND 7),
    seq  bigint   NOT NULL DEFAULT 0,
    hash bytea    NOT NULL DEFAULT '\x'
);
INSERT INTO audit_lane (lane) SELECT generate_series(0, 7);
CREATE TABLE audit_record (
    lane      smallint    NOT NULL REFERENCES audit_lane,
    seq       bigint      NOT NULL,
    at        timestamptz NOT NULL,
    actor     text        NOT NULL,
    action    text        NOT NULL,
    subject   text        NOT NULL,
    detail    jsonb       NOT NULL,
    prev_hash bytea       NOT NULL,
    hash      bytea       NOT NULL,
    PRIMARY KEY (lane, seq)
);
CREATE FUNCTION audit_hash(
    prev_hash bytea, lane smallint, seq bigint, at timestamptz, actor text, action text, subject text, detail jsonb
) RETURNS bytea
    LANGUAGE sql IMMUTABLE
    RETURN sha256(prev_hash || convert_to(
        jsonb_build_array(lane, seq, (extract(epoch FROM at) * 1000000)::bigint, actor, action, subject, detail)::text,
        'UTF8'));
-- The only way in: it runs as the owner, so the application can neither write a record of its own making nor move a head.
CREATE FUNCTION audit_append(
    p_lane int, p_at timestamptz, p_actor text, p_action text, p_subject text, p_detail jsonb
) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    head audit_lane;
    next_hash bytea;
BEGIN
    SELECT * INTO STRICT head FROM audit_lane WHERE lane = p_lane FOR UPDATE;
    next_hash := audit_hash(head.hash, head.lane, head.seq + 1, p_at, p_actor, p_action, p_subject, p_detail);
    INSERT INTO audit_record (lane, seq, at, actor, action, subject, detail, prev_hash, hash)
    VALUES (head.lane, head.seq + 1, p_at, p_actor, p_action, p_subject, p_detail, head.hash, next_hash);
    UPDATE audit_lane SET seq = head.seq + 1, hash = next_hash WHERE lane = head.lane;
END $$;
REVOKE ALL ON FUNCTION audit_append FROM PUBLIC;
GRANT EXECUTE ON FUNCTION audit_append TO tessera_app;
GRANT SELECT ON audit_lane, audit_record TO tessera_app;

-- Same key, same answer; the answer is deflated and sealed. `begin` serialises requests under one key until the end of the transaction.
CREATE TABLE kernel_idempotency (
    app_id      uuid        NOT NULL,
    key_hash    bytea       NOT NULL,
    fingerprint bytea       NOT NULL,
    status      smallint    NOT NULL,
    body        bytea       NOT NULL,
    created_at  timestamptz NOT NULL,
    PRIMARY KEY (app_id, key_hash)
);
CREATE INDEX kernel_idempotency_age ON kernel_idempotency (created_at);
CREATE FUNCTION kernel_idempotency_begin(p_app_id uuid, p_key_hash bytea)
    RETURNS TABLE (fingerprint bytea, status smallint, body bytea)
    LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended(p_app_id::text || encode(p_key_hash, 'hex'), 0));
    RETURN QUERY
        SELECT k.fingerprint, k.status, k.body
          FROM kernel_idempotency AS k
         WHERE k.app_id = p_app_id AND k.key_hash = p_key_hash;
END $$;
-- The same for many requests at once, and without waiting: a key in use elsewhere comes back as not locked. Only places
-- that are not simply new come back. Whatever the statistics say, every access is by key.
CREATE FUNCTION kernel_idempotency_begin_each(p_app_ids uuid[], p_key_hashes bytea[])
    RETURNS TABLE (place int, locked boolean, fingerprint bytea, status smallint, body bytea)
    LANGUAGE plpgsql
    SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
    SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    locks boolean[];
BEGIN
    SELECT array_agg(pg_try_advisory_xact_lock(hashtextextended(k.app_id::text || encode(k.key_hash, 'hex'), 0))
                     ORDER BY k.place)
      INTO locks
      FROM unnest(p_app_ids, p_key_hashes) WITH ORDINALITY AS k (app_id, key_hash, place);
    -- A statement of its own: it sees what those committed who held the locks before.
    RETURN QUERY
        SELECT k.place::int, locks[k.place], kept.fingerprint, kept.status, kept.body
          FROM unnest(p_app_ids, p_key_hashes) WITH ORDINALITY AS k (app_id, key_hash, place)
          LEFT JOIN kernel_idempotency AS kept ON kept.app_id = k.app_id AND kept.key_hash = k.key_hash
         WHERE kept.key_hash IS NOT NULL OR NOT locks[k.place];
END $$;
GRANT SELECT, INSERT, DELETE ON kernel_idempotency TO tessera_app;

-- Client assertions and proofs already seen.
CREATE TABLE kernel_one_time_id (
    id_hash    bytea       PRIMARY KEY,
    expires_at timestamptz NOT NULL
);
CREATE INDEX kernel_one_time_id_expiry ON kernel_one_time_id (expires_at);
GRANT SELECT, INSERT, DELETE ON kernel_one_time_id TO tessera_app;
