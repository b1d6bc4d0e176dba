-- A plan made while a table is empty stays for the session: it must go by the key also where the key seems no better.

-- Takes the locks of many keys at once and finds what was answered before; a key in other hands is left aside. Of each key
-- one lookup: what is behind OFFSET 0 cannot be joined by reading the whole index.
CREATE OR REPLACE FUNCTION kernel_idempotency_begin_each(p_app_ids uuid[], p_key_hashes bytea[])
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
          LEFT JOIN LATERAL (
               SELECT n.key_hash, n.fingerprint, n.status, n.body
                 FROM kernel_idempotency AS n
                WHERE n.app_id = k.app_id AND n.key_hash = k.key_hash
               OFFSET 0) AS kept ON true
         WHERE kept.key_hash IS NOT NULL OR NOT locks[k.place];
END $$;
