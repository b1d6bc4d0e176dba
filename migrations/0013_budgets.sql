-- Budgets that are never exceeded, spent by everybody at once without a row that everybody writes.
--
-- A budget leases parts of itself to slots, one per bucket, and draws are taken from the slot of the member's bucket.
-- Nobody else touches that slot, so while there is plenty no two buckets meet. Leases shrink with the rest. When a draw
-- needs more than the rest, all slots give back what they have not used and the budget becomes scarce: from then on a
-- slot leases exactly what is drawn, and a draw is a look at one row. So `exhausted` is always true when it is said.

-- owner: what the budget belongs to: a campaign, a funder's block. leased: what all slots together were granted.
CREATE TABLE ledger_budget (
    id        uuid        PRIMARY KEY,
    kind      text        NOT NULL CHECK (kind IN ('campaign', 'prepaid')),
    unit      text        NOT NULL CHECK (unit IN ('points', 'fen')),
    owner     text        NOT NULL CHECK (owner <> ''),
    total     bigint      NOT NULL,
    leased    bigint      NOT NULL DEFAULT 0,
    scarce    boolean     NOT NULL DEFAULT false,
    opened_at timestamptz NOT NULL,
    closed_at timestamptz,
    CONSTRAINT ledger_budget_within_total CHECK (0 <= leased AND leased <= total),
    CONSTRAINT ledger_budget_closed_is_scarce CHECK (closed_at IS NULL OR scarce)
) WITH (fillfactor = 50);
GRANT SELECT, INSERT ON ledger_budget TO tessera_app;
GRANT UPDATE (total, leased, scarce, closed_at) ON ledger_budget TO tessera_app;

-- A bucket's part of a budget: granted to it, and of that used. No foreign key: its check would wait for whoever leases.
CREATE TABLE ledger_budget_slot (
    bucket    smallint NOT NULL CHECK (bucket BETWEEN 0 AND 1023),
    budget_id uuid     NOT NULL,
    granted   bigint   NOT NULL DEFAULT 0,
    used      bigint   NOT NULL DEFAULT 0,
    PRIMARY KEY (bucket, budget_id),
    CONSTRAINT ledger_budget_slot_within_lease CHECK (0 <= used AND used <= granted)
) WITH (fillfactor = 70);
GRANT SELECT, INSERT ON ledger_budget_slot TO tessera_app;
GRANT UPDATE (granted, used) ON ledger_budget_slot TO tessera_app;

-- A budget as it stands, a closed one with nothing left.
CREATE FUNCTION ledger_budget_rest(p_id uuid, OUT id uuid, OUT total bigint, OUT leased bigint, OUT scarce boolean)
    RETURNS SETOF record
    LANGUAGE sql STABLE
    BEGIN ATOMIC
        SELECT b.id, CASE WHEN b.closed_at IS NULL THEN b.total ELSE b.leased END, b.leased, b.scarce
          FROM ledger_budget AS b
         WHERE b.id = p_id;
    END;

-- Locks budgets' own rows by id, then slots by bucket and budget: the wanted ones, made if they are new, and for
-- `p_whole` all there are. Everybody who locks budgets does it here, so nobody waits in a circle. Nobody who holds a slot
-- waits for the row of its budget: who finds out late that it is needed lets go of everything and begins again, row first.
CREATE FUNCTION ledger_lock_budgets(p_rows uuid[], p_whole uuid[], p_buckets smallint[], p_budget_ids uuid[]) RETURNS void
    LANGUAGE plpgsql
    SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
    SET enable_material = off SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    IF p_rows <> '{}' THEN
        PERFORM FROM (SELECT DISTINCT w.id FROM unnest(p_rows) AS w (id) ORDER BY 1) AS wanted
          CROSS JOIN LATERAL (SELECT b.id FROM ledger_budget AS b WHERE b.id = wanted.id FOR UPDATE) AS locked;
    END IF;
    INSERT INTO ledger_budget_slot (bucket, budget_id)
    SELECT DISTINCT w.bucket, w.budget_id FROM unnest(p_buckets, p_budget_ids) AS w (bucket, budget_id) ORDER BY 1, 2
        ON CONFLICT DO NOTHING;
    PERFORM FROM (SELECT w.bucket, w.budget_id FROM unnest(p_buckets, p_budget_ids) AS w (bucket, budget_id)
                   UNION
                  SELECT g.bucket, w.id FROM unnest(p_whole) AS w (id), generate_series(0, 1023) AS g (bucket)
                   ORDER BY 1, 2) AS wanted
      CROSS JOIN LATERAL (
            SELECT s.bucket FROM ledger_budget_slot AS s
             WHERE s.bucket = wanted.bucket AND s.budget_id = wanted.budget_id FOR UPDATE) AS locked;
END $$;

-- Takes back what slots have not used, of budgets all of whose slots are locked. They are scarce from now on, unless
-- draws as large as p_amount can still be leased in advance.
CREATE FUNCTION ledger_reclaim_budgets(p_whole uuid[], p_amount bigint) RETURNS void
    LANGUAGE plpgsql
    SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
    SET enable_material = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    buckets smallint[];
    ids     uuid[];
    unused  bigint[];
BEGIN
    SELECT array_agg(s.bucket), array_agg(s.budget_id), array_agg(s.unused) INTO buckets, ids, unused
      FROM unnest(p_whole) AS w (id), generate_series(0, 1023) AS g (bucket)
     CROSS JOIN LATERAL (
           SELECT v.bucket, v.budget_id, v.granted - v.used AS unused
             FROM ledger_budget_slot AS v
            WHERE v.bucket = g.bucket AND v.budget_id = w.id AND v.granted > v.used
           OFFSET 0) AS s;
    UPDATE ledger_budget_slot AS slot
       SET granted = slot.used
      FROM unnest(buckets, ids) AS s (bucket, budget_id)
     WHERE slot.bucket = s.bucket AND slot.budget_id = s.budget_id;
    UPDATE ledger_budget AS b
       SET leased = b.leased - back.unused,
           scarce = coalesce((b.total - b.leased + back.unused) / 4096 < p_amount, true)
      FROM (SELECT w.id, coalesce(sum(s.unused), 0)::bigint AS unused
              FROM unnest(p_whole) AS w (id)
              LEFT JOIN unnest(ids, unused) AS s (budget_id, unused) ON s.budget_id = w.id
             GROUP BY w.id) AS back
     WHERE b.id = back.id;
END $$;

-- Draws on slots alone, each want on the first of its budgets; NULL when a slot does not suffice, with all of them locked.
CREATE FUNCTION ledger_draw_slots(
    p_buckets smallint[], p_budget_ids uuid[], p_amounts bigint[], p_wants int[]
) RETURNS bigint[]
    LANGUAGE plpgsql
    SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
    SET enable_material = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    granted bigint[];                           -- what each row takes if all is well
    buckets smallint[];
    ids     uuid[];
    asked   bigint[];
    enough  boolean;
BEGIN
    SELECT array_agg(CASE WHEN r.first THEN r.amount ELSE 0 END ORDER BY r.place) INTO granted
      FROM (SELECT w.amount, w.place, w.want IS DISTINCT FROM lag(w.want) OVER (ORDER BY w.place) AS first
              FROM unnest(p_amounts, p_wants) WITH ORDINALITY AS w (amount, want, place)) AS r;
    SELECT array_agg(s.bucket), array_agg(s.budget_id), array_agg(wanted.amount),
           bool_and(coalesce(s.granted - s.used >= wanted.amount, false))
      INTO buckets, ids, asked, enough
      FROM (SELECT w.bucket, w.budget_id, sum(w.amount) AS amount
              FROM unnest(p_buckets, p_budget_ids, granted) AS w (bucket, budget_id, amount)
             WHERE w.amount > 0
             GROUP BY w.bucket, w.budget_id
             ORDER BY w.bucket, w.budget_id) AS wanted
      LEFT JOIN LATERAL (
           SELECT v.bucket, v.budget_id, v.granted, v.used
             FROM ledger_budget_slot AS v
            WHERE v.bucket = wanted.bucket AND v.budget_id = wanted.budget_id FOR UPDATE) AS s ON true;
    IF NOT enough THEN
        RETURN NULL;
    END IF;
    UPDATE ledger_budget_slot AS slot
       SET used = slot.used + w.amount
      FROM unnest(buckets, ids, asked) AS w (bucket, budget_id, amount)
     WHERE slot.bucket = w.bucket AND slot.budget_id = w.budget_id;
    RETURN granted;
END $$;

-- Draws amounts, many or one. Rows with the same number in p_wants stand together and are one want: tried on their
-- budgets in the order given, the want's whole amount or nothing, unless p_partial. Returns what each row was granted.
CREATE FUNCTION ledger_draw_budgets(
    p_buckets smallint[], p_budget_ids uuid[], p_amounts bigint[], p_wants int[], p_partial boolean
) RETURNS bigint[]
    LANGUAGE plpgsql
    SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
    SET enable_material = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    firm      uuid[];                           -- budgets whose own row is locked first, because slots do not suffice
    whole     uuid[]   := '{}';                 -- budgets all of whose slots give back what they have not used
    short     uuid[];                           -- what turns out to belong to the first,
    dry       uuid[];                           -- or to the second
    ids       uuid[];                           -- the budgets, by id
    rest      bigint[];                         -- what each has not leased yet
    scarce    boolean[];
    leasing   bigint[];                         -- what each leases here
    at_budget int[];                            -- which budget a row is about
    at_slot   int[];                            -- and which slot
    hopeless  boolean[];                        -- rows nobody need wait for
    slots     ledger_budget_slot[];             -- by bucket and budget
    free      bigint[];                         -- what each has not used yet
    lent      bigint[];                         -- what each is granted here
    taken     bigint[];                         -- and what is drawn
    granted   bigint[];
    missing   bigint;
    part      bigint;
    first     int;
    last      int;
    b         int;
    s         int;
BEGIN
    SELECT array_agg(w.id ORDER BY w.id) INTO ids FROM (SELECT DISTINCT unnest(p_budget_ids) AS id) AS w;
    SELECT array_agg(v.total - v.leased ORDER BY v.id), array_agg(v.scarce ORDER BY v.id) INTO rest, scarce
      FROM unnest(ids) AS w (id)
     CROSS JOIN LATERAL ledger_budget_rest(w.id) AS v;
    ASSERT cardinality(rest) = cardinality(ids), 'who draws knows the budget';
    -- While there is plenty, slots suffice.
    IF true <> ALL (scarce) THEN
        BEGIN
            granted := ledger_draw_slots(p_buckets, p_budget_ids, p_amounts, p_wants);
            IF granted IS NOT NULL THEN
                RETURN granted;
            END IF;
            RAISE EXCEPTION 'slots do not suffice' USING ERRCODE = 'TB001';
        EXCEPTION WHEN SQLSTATE 'TB001' THEN
            NULL;
        END;
    END IF;

    SELECT array_agg(array_position(ids, w.budget_id) ORDER BY w.place), array_agg(w.slot ORDER BY w.place)
      INTO at_budget, at_slot
      FROM (SELECT r.budget_id, r.place, dense_rank() OVER (ORDER BY r.bucket, r.budget_id) AS slot
              FROM unnest(p_buckets, p_budget_ids) WITH ORDINALITY AS r (bucket, budget_id, place)) AS w;
    -- Of a scarce budget no slot has anything left: who asks for more than the rest is refused without a lock.
    SELECT array_agg(w.hopeless ORDER BY w.place) INTO hopeless
      FROM (SELECT r.place, bool_and(scarce[r.budget]) OVER want
                   AND sum(rest[r.budget]) OVER want < CASE WHEN p_partial THEN 1 ELSE r.amount END AS hopeless
              FROM unnest(at_budget, p_amounts, p_wants) WITH ORDINALITY AS r (budget, amount, want, place)
            WINDOW want AS (PARTITION BY r.want)) AS w;
    IF true = ALL (hopeless) THEN
        RETURN array_fill(0::bigint, ARRAY[cardinality(p_wants)]);
    END IF;
    SELECT coalesce(array_agg(DISTINCT ids[r.budget]) FILTER (WHERE scarce[r.budget]), '{}') INTO firm
      FROM unnest(at_budget, hopeless) AS r (budget, hopeless)
     WHERE NOT r.hopeless;

    LOOP
        short := '{}';
        dry := '{}';
        granted := array_fill(0::bigint, ARRAY[cardinality(p_wants)]);
        leasing := array_fill(0::bigint, ARRAY[cardinality(ids)]);
        BEGIN
            PERFORM ledger_lock_budgets(firm, whole, array_agg(w.bucket), array_agg(w.budget_id))
               FROM unnest(p_buckets, p_budget_ids, hopeless) AS w (bucket, budget_id, hopeless)
              WHERE NOT w.hopeless;
            IF whole <> '{}' THEN
                PERFORM ledger_reclaim_budgets(whole, (SELECT max(a) FROM unnest(p_amounts) AS w (a)));
            END IF;
            SELECT array_agg(v.total - v.leased ORDER BY v.id), array_agg(v.scarce ORDER BY v.id) INTO rest, scarce
              FROM unnest(ids) AS w (id)
             CROSS JOIN LATERAL ledger_budget_rest(w.id) AS v;
            SELECT array_agg(ROW(w.bucket, w.budget_id, 0, 0)::ledger_budget_slot ORDER BY w.bucket, w.budget_id),
                   array_agg(coalesce(s.granted - s.used, 0) ORDER BY w.bucket, w.budget_id)
              INTO slots, free
              FROM (SELECT DISTINCT r.bucket, r.budget_id FROM unnest(p_buckets, p_budget_ids) AS r (bucket, budget_id)) AS w
              LEFT JOIN ledger_budget_slot AS s ON s.bucket = w.bucket AND s.budget_id = w.budget_id;
            lent := array_fill(0::bigint, ARRAY[cardinality(slots)]);
            taken := lent;

            last := 0;
            WHILE last < cardinality(p_wants) LOOP
                first := last + 1;
                last := first;
                WHILE p_wants[last + 1] = p_wants[first] LOOP
                    last := last + 1;
                END LOOP;
                CONTINUE WHEN hopeless[first];

                -- Is there enough?
                missing := p_amounts[first];
                FOR i IN first .. last LOOP
                    b := at_budget[i];
                    IF ids[b] <> ALL (firm) THEN
                        missing := missing - least(missing, free[at_slot[i]]);
                        IF missing > 0 THEN
                            short := short || ids[b];
                        END IF;
                    ELSE
                        missing := missing - least(missing, free[at_slot[i]] + rest[b]);
                        IF missing > 0 AND NOT scarce[b] AND ids[b] <> ALL (whole) THEN
                            dry := dry || ids[b];
                        END IF;
                    END IF;
                    EXIT WHEN missing = 0 OR short <> '{}' OR dry <> '{}';
                END LOOP;
                CONTINUE WHEN short <> '{}' OR dry <> '{}' OR missing > 0 AND NOT p_partial;

                missing := p_amounts[first];
                FOR i IN first .. last LOOP
                    EXIT WHEN missing = 0;
                    b := at_budget[i];
                    s := at_slot[i];
                    IF missing > free[s] AND ids[b] = ANY (firm) THEN
                        part := least(missing - free[s], rest[b]);
                        IF NOT scarce[b] THEN
                            part := greatest(part, rest[b] / 4096);
                        END IF;
                        rest[b] := rest[b] - part;
                        leasing[b] := leasing[b] + part;
                        lent[s] := lent[s] + part;
                        free[s] := free[s] + part;
                    END IF;
                    part := least(missing, free[s]);
                    free[s] := free[s] - part;
                    taken[s] := taken[s] + part;
                    granted[i] := part;
                    missing := missing - part;
                END LOOP;
            END LOOP;
            IF short <> '{}' OR dry <> '{}' THEN
                RAISE EXCEPTION 'budgets have to be locked before their slots' USING ERRCODE = 'TB001';
            END IF;

            UPDATE ledger_budget_slot AS slot
               SET granted = slot.granted + d.lent, used = slot.used + d.taken
              FROM unnest(slots, lent, taken) AS d (bucket, budget_id, was_granted, was_used, lent, taken)
             WHERE slot.bucket = d.bucket AND slot.budget_id = d.budget_id AND d.lent + d.taken > 0;
            UPDATE ledger_budget AS budget
               SET leased = budget.leased + d.leased
              FROM unnest(ids, leasing) AS d (id, leased)
             WHERE budget.id = d.id AND d.leased > 0;
            RETURN granted;
        EXCEPTION WHEN SQLSTATE 'TB001' THEN
            firm := ARRAY(SELECT DISTINCT unnest(firm || short));
            whole := ARRAY(SELECT DISTINCT unnest(whole || dry));
        END;
    END LOOP;
END $$;

-- Gives amounts back to the slots they were drawn from, or, of a scarce budget, through them to everybody. An amount of
-- zero only locks, so that more can be given back later in the transaction, after other locks.
CREATE FUNCTION ledger_return_budgets(p_buckets smallint[], p_budget_ids uuid[], p_amounts bigint[]) RETURNS void
    LANGUAGE plpgsql
    SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
    SET enable_material = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    firm  uuid[];
    short uuid[];
BEGIN
    SELECT coalesce(array_agg(DISTINCT v.id) FILTER (WHERE v.scarce), '{}') INTO firm
      FROM unnest(p_budget_ids) AS w (id)
     CROSS JOIN LATERAL ledger_budget_rest(w.id) AS v;
    LOOP
        BEGIN
            PERFORM ledger_lock_budgets(firm, '{}', p_buckets, p_budget_ids);
            SELECT array_agg(DISTINCT v.id) INTO short
              FROM unnest(p_budget_ids) AS w (id)
             CROSS JOIN LATERAL ledger_budget_rest(w.id) AS v
             WHERE v.scarce AND v.id <> ALL (firm);
            IF short IS NOT NULL THEN
                RAISE EXCEPTION 'budgets have to be locked before their slots' USING ERRCODE = 'TB001';
            END IF;
            WITH back AS (
                SELECT w.bucket, w.budget_id, sum(w.amount)::bigint AS amount,
                       (SELECT v.scarce FROM ledger_budget_rest(w.budget_id) AS v) AS scarce
                  FROM unnest(p_buckets, p_budget_ids, p_amounts) AS w (bucket, budget_id, amount)
                 GROUP BY w.bucket, w.budget_id
                HAVING sum(w.amount) > 0
            ), slot AS (
                UPDATE ledger_budget_slot AS s
                   SET used = s.used - back.amount,
                       granted = s.granted - CASE WHEN back.scarce THEN back.amount ELSE 0 END
                  FROM back
                 WHERE s.bucket = back.bucket AND s.budget_id = back.budget_id
            )
            UPDATE ledger_budget AS b
               SET leased = b.leased - back.amount
              FROM (SELECT budget_id, sum(amount)::bigint AS amount FROM back WHERE scarce GROUP BY budget_id) AS back
             WHERE b.id = back.budget_id;
            RETURN;
        EXCEPTION WHEN SQLSTATE 'TB001' THEN
            firm := firm || short;
        END;
    END LOOP;
END $$;

-- Ends a budget: no slot keeps anything, nothing more is leased. What was drawn stays drawn, and can still be given back.
CREATE FUNCTION ledger_close_budget(p_id uuid, p_now timestamptz) RETURNS void
    LANGUAGE plpgsql
    SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
    SET enable_material = off SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    PERFORM ledger_lock_budgets(ARRAY[p_id], ARRAY[p_id], '{}', '{}');
    PERFORM ledger_reclaim_budgets(ARRAY[p_id], NULL);
    UPDATE ledger_budget SET closed_at = coalesce(closed_at, p_now) WHERE id = p_id;
END $$;

CREATE VIEW books_i50_budget_is_its_slots AS
SELECT b.id, b.kind, b.owner, b.total, b.leased, coalesce(s.granted, 0) AS granted, coalesce(s.used, 0) AS used, b.scarce
  FROM ledger_budget AS b
  FULL JOIN (SELECT budget_id, sum(granted) AS granted, sum(used) AS used
               FROM ledger_budget_slot
              GROUP BY budget_id) AS s ON s.budget_id = b.id
 WHERE b.leased IS DISTINCT FROM coalesce(s.granted, 0)
    OR b.leased > b.total
    OR coalesce(s.used, 0) > coalesce(s.granted, 0)
    OR b.scarce AND coalesce(s.used, 0) <> coalesce(s.granted, 0);
COMMENT ON VIEW books_i50_budget_is_its_slots IS
    'What a budget has leased is what its slots were granted, never more than its total; a scarce one has nothing lying in slots.';
GRANT SELECT ON books_i50_budget_is_its_slots TO tessera_app;
