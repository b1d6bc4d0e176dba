-- The books check: one view for each sentence that must be true of the whole system. A view returns the rows that
-- contradict its sentence, so empty means good; the sentence is the view's comment. `tessera books check` runs every
-- view named books_i… in one snapshot.
--
-- What is not here, and why:
-- * That debits equal credits. In both journals one row is one debit and one credit of the same amount.
-- * That nothing is settled twice. The unique key of settlement_line on (source, entry_ref) leaves no room for it.
-- * That an event has one position and an endpoint one delivery of it. Unique keys again.
-- * Idempotency records. They hold a hash of the key and the answer's bytes and commit with the effect they answer for;
--   nothing in them refers to a row.
-- * One-time identifiers. They are forgotten when they expire, so there is nothing to compare them with.
-- A forger who rewrites entries, wallets, lots and hashes together is only caught by a copy of the chain heads outside
-- this database.

-- The id of a row as partners see it: a prefix and 26 characters of Crockford's alphabet.
CREATE FUNCTION books_wire_id(prefix text, id uuid) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN prefix || '_' || (
        SELECT string_agg(substr('0123456789ABCDEFGHJKMNPQRSTVWXYZ',
                                 substring(b.bits FROM place * 5 + 1 FOR 5)::bit(5)::int + 1, 1), '' ORDER BY place)
          FROM (SELECT B'00' || ('x' || replace(id::text, '-', ''))::bit(128) AS bits) AS b,
               generate_series(0, 25) AS place);

-- What each entry does to the member's four balances, and the wallet as it should stand after it.
CREATE VIEW books_entry AS
SELECT e.bucket, e.member_id, e.point_type, e.seq, e.operation_id, e.debit_account, e.credit_account, e.points,
       e.available_after, e.held_after, e.pending_after, e.arrears_after,
       row_number() OVER wallet AS place,
       sum(CASE 1 WHEN e.credit_account THEN e.points WHEN e.debit_account THEN -e.points ELSE 0 END) OVER wallet
           AS available,
       sum(CASE 2 WHEN e.credit_account THEN e.points WHEN e.debit_account THEN -e.points ELSE 0 END) OVER wallet
           AS held,
       sum(CASE 3 WHEN e.credit_account THEN e.points WHEN e.debit_account THEN -e.points ELSE 0 END) OVER wallet
           AS pending,
       sum(CASE 4 WHEN e.debit_account THEN e.points WHEN e.credit_account THEN -e.points ELSE 0 END) OVER wallet
           AS arrears
  FROM ledger_entry AS e
WINDOW wallet AS (PARTITION BY e.bucket, e.member_id, e.point_type ORDER BY e.seq ROWS UNBOUNDED PRECEDING);

------------------------------------------------------------------------------------------------------------------
-- Points: entries and wallets
------------------------------------------------------------------------------------------------------------------

CREATE VIEW books_i01_entry_accounts AS
SELECT e.bucket, e.member_id, e.point_type, e.seq, e.debit_account, e.credit_account, e.funder_id
  FROM ledger_entry AS e
  LEFT JOIN ledger_account AS d ON d.code = e.debit_account
  LEFT JOIN ledger_account AS c ON c.code = e.credit_account
  LEFT JOIN ledger_funder AS f ON f.id = e.funder_id
 WHERE d.code IS NULL OR c.code IS NULL OR f.id IS NULL OR least(e.debit_account, e.credit_account) >= 10;
COMMENT ON VIEW books_i01_entry_accounts IS
    'Every entry has a debit and a credit on known accounts, at least one of them the member''s, and a known funder.';

CREATE VIEW books_i02_entry_operation AS
SELECT coalesce(e.bucket, o.bucket) AS bucket, coalesce(e.member_id, o.member_id) AS member_id,
       coalesce(e.operation_id, o.id) AS operation_id, e.seq, o.kind
  FROM ledger_entry AS e
  FULL JOIN ledger_operation AS o ON o.bucket = e.bucket AND o.member_id = e.member_id AND o.id = e.operation_id
 WHERE o.id IS NULL
    OR (e.operation_id IS NULL AND o.points > 0)
    OR e.recorded_at <> o.recorded_at
    OR e.business_on <> o.business_on
    OR o.business_on <> (o.recorded_at AT TIME ZONE 'Asia/Shanghai')::date;
COMMENT ON VIEW books_i02_entry_operation IS
    'Every entry belongs to an operation of its member and its day, and every operation that moves points has entries.';

CREATE VIEW books_i03_operation_points AS
SELECT o.bucket, o.member_id, o.id, o.kind, o.points, coalesce(sum(e.points), 0) AS entries_points
  FROM ledger_operation AS o
  JOIN (VALUES ('earn', 10, 1), ('hold', 1, 2), ('capture', 2, 11), ('release', 2, 1), ('lapse', 2, 1),
               ('reverse_earn', NULL, 10), ('reverse_spend', 11, NULL), ('expire', 1, 12))
       AS leg (kind, debit_account, credit_account) ON leg.kind = o.kind
  LEFT JOIN ledger_entry AS e
    ON e.bucket = o.bucket AND e.member_id = o.member_id AND e.operation_id = o.id
   AND (leg.debit_account IS NULL OR leg.debit_account = e.debit_account)
   AND (leg.credit_account IS NULL OR leg.credit_account = e.credit_account)
 GROUP BY o.bucket, o.member_id, o.id, o.kind, o.points
HAVING coalesce(sum(e.points), 0) <> o.points;
COMMENT ON VIEW books_i03_operation_points IS
    'The points of an operation are the points of its entries on the accounts its kind moves.';

CREATE VIEW books_i04_wallet_is_its_entries AS
SELECT coalesce(w.bucket, s.bucket) AS bucket, coalesce(w.member_id, s.member_id) AS member_id,
       coalesce(w.point_type, s.point_type) AS point_type, w.available_points, s.available, w.held_points, s.held,
       w.pending_points, s.pending, w.arrears_points, s.arrears, w.seq, s.entries
  FROM ledger_wallet AS w
  FULL JOIN (
       SELECT bucket, member_id, point_type, count(*) AS entries,
              sum(CASE 1 WHEN credit_account THEN points WHEN debit_account THEN -points ELSE 0 END) AS available,
              sum(CASE 2 WHEN credit_account THEN points WHEN debit_account THEN -points ELSE 0 END) AS held,
              sum(CASE 3 WHEN credit_account THEN points WHEN debit_account THEN -points ELSE 0 END) AS pending,
              sum(CASE 4 WHEN debit_account THEN points WHEN credit_account THEN -points ELSE 0 END) AS arrears
         FROM ledger_entry
        GROUP BY bucket, member_id, point_type) AS s
    ON s.bucket = w.bucket AND s.member_id = w.member_id AND s.point_type = w.point_type
 WHERE (w.available_points, w.held_points, w.pending_points, w.arrears_points, w.seq)
       IS DISTINCT FROM (coalesce(s.available, 0), coalesce(s.held, 0), coalesce(s.pending, 0),
                         coalesce(s.arrears, 0), coalesce(s.entries, 0));
COMMENT ON VIEW books_i04_wallet_is_its_entries IS 'A wallet is the sum of its entries, and counts them.';

CREATE VIEW books_i05_balances_after AS
SELECT bucket, member_id, point_type, seq, place, available_after, available, held_after, held,
       pending_after, pending, arrears_after, arrears
  FROM books_entry
 WHERE seq <> place
    OR (available_after, held_after, pending_after, arrears_after) <> (available, held, pending, arrears);
COMMENT ON VIEW books_i05_balances_after IS
    'The entries of a wallet are numbered without a gap, and each carries the balances that it and those before it make.';

CREATE VIEW books_i06_never_negative AS
SELECT bucket, member_id, point_type, seq, available, held, pending, arrears
  FROM books_entry
 WHERE least(available, held, pending, arrears) < 0;
COMMENT ON VIEW books_i06_never_negative IS 'No balance of a member was below zero at any moment of its history.';

CREATE VIEW books_i07_chain AS
SELECT e.bucket, e.member_id, e.point_type, e.seq
  FROM (SELECT entry AS row, entry.bucket, entry.member_id, entry.point_type, entry.seq, entry.hash,
               lag(entry.hash, 1, '\x') OVER wallet AS previous,
               lead(entry.seq) OVER wallet IS NULL AS is_last
          FROM ledger_entry AS entry
        WINDOW wallet AS (PARTITION BY entry.bucket, entry.member_id, entry.point_type ORDER BY entry.seq)) AS e
  LEFT JOIN ledger_wallet AS w
    ON e.is_last AND w.bucket = e.bucket AND w.member_id = e.member_id AND w.point_type = e.point_type
 WHERE e.hash IS DISTINCT FROM ledger_entry_hash(e.previous, e.row)
    OR (e.is_last AND w.head_hash IS DISTINCT FROM e.hash);
COMMENT ON VIEW books_i07_chain IS
    'The hash of each entry seals the entry and the one before it, and the wallet remembers the last.';

CREATE VIEW books_i08_house_slots AS
SELECT coalesce(slot.bucket, s.bucket) AS bucket, coalesce(slot.account, s.account) AS account,
       coalesce(slot.funder_id, s.funder_id) AS funder_id, coalesce(slot.business_on, s.business_on) AS business_on,
       slot.debit_points, s.debit, slot.credit_points, s.credit
  FROM ledger_house_slot AS slot
  FULL JOIN (
       SELECT side.bucket, side.account, side.funder_id, side.point_type, side.business_on,
              sum(side.debit) AS debit, sum(side.credit) AS credit
         FROM (SELECT bucket, debit_account AS account, funder_id, point_type, business_on, points AS debit, 0 AS credit
                 FROM ledger_entry WHERE debit_account >= 10
                UNION ALL
               SELECT bucket, credit_account, funder_id, point_type, business_on, 0, points
                 FROM ledger_entry WHERE credit_account >= 10) AS side
        GROUP BY side.bucket, side.account, side.funder_id, side.point_type, side.business_on) AS s
    ON s.bucket = slot.bucket AND s.account = slot.account AND s.funder_id = slot.funder_id
   AND s.point_type = slot.point_type AND s.business_on = slot.business_on
 WHERE (coalesce(slot.debit_points, 0), coalesce(slot.credit_points, 0))
       <> (coalesce(s.debit, 0), coalesce(s.credit, 0));
COMMENT ON VIEW books_i08_house_slots IS
    'Each of the house''s accounts is, by bucket, funder and day, the sum of the entries on it.';

------------------------------------------------------------------------------------------------------------------
-- Points: lots and holds
------------------------------------------------------------------------------------------------------------------

CREATE VIEW books_i09_wallet_is_its_lots AS
SELECT w.bucket, w.member_id, w.point_type, w.available_points, coalesce(l.free, 0) AS free_points,
       w.held_points, coalesce(l.held, 0) AS pinned_points
  FROM ledger_wallet AS w
  LEFT JOIN (SELECT bucket, member_id, point_type, sum(remaining_points - held_points) AS free, sum(held_points) AS held
               FROM ledger_lot
              GROUP BY bucket, member_id, point_type) AS l
    ON l.bucket = w.bucket AND l.member_id = w.member_id AND l.point_type = w.point_type
 WHERE (w.available_points, w.held_points) <> (coalesce(l.free, 0), coalesce(l.held, 0));
COMMENT ON VIEW books_i09_wallet_is_its_lots IS
    'A wallet has available what its lots have free, and held what they have pinned. What has expired counts until the sweep has booked it.';

CREATE VIEW books_i10_lot_is_its_moves AS
SELECT coalesce(l.bucket, m.bucket) AS bucket, coalesce(l.member_id, m.member_id) AS member_id,
       coalesce(l.lot_seq, m.lot_seq) AS lot_seq, l.points, m.granted, l.remaining_points, m.remaining,
       l.held_points, m.held
  FROM ledger_lot AS l
  FULL JOIN (
       SELECT bucket, member_id, point_type, lot_seq,
              sum(points) FILTER (WHERE kind = 'grant') AS granted,
              sum(CASE WHEN kind IN ('grant', 'restore') THEN points
                       WHEN kind IN ('capture', 'expire', 'claw', 'repay') THEN -points ELSE 0 END) AS remaining,
              sum(CASE WHEN kind = 'hold' THEN points
                       WHEN kind IN ('capture', 'release') THEN -points ELSE 0 END) AS held
         FROM ledger_lot_move
        GROUP BY bucket, member_id, point_type, lot_seq) AS m
    ON m.bucket = l.bucket AND m.member_id = l.member_id AND m.point_type = l.point_type AND m.lot_seq = l.lot_seq
 WHERE (l.points, l.remaining_points, l.held_points) IS DISTINCT FROM (m.granted, m.remaining, m.held);
COMMENT ON VIEW books_i10_lot_is_its_moves IS
    'What a lot was granted, has left and has pinned is the sum of the moves on it.';

CREATE VIEW books_i11_entry_is_its_moves AS
SELECT coalesce(e.bucket, m.bucket) AS bucket, coalesce(e.member_id, m.member_id) AS member_id,
       coalesce(e.seq, m.seq) AS seq, e.debit_account, e.credit_account, e.points, m.points AS moved_points, m.kinds
  FROM ledger_entry AS e
  FULL JOIN (
       SELECT bucket, member_id, point_type, seq, sum(points) AS points, min(kind) AS kind, count(DISTINCT kind) AS kinds
         FROM ledger_lot_move
        GROUP BY bucket, member_id, point_type, seq) AS m
    ON m.bucket = e.bucket AND m.member_id = e.member_id AND m.point_type = e.point_type AND m.seq = e.seq
  LEFT JOIN (VALUES (10, 1, 'grant'), (11, 1, 'grant'), (1, 2, 'hold'), (2, 11, 'capture'), (2, 1, 'release'),
                    (1, 12, 'expire'), (1, 10, 'claw'), (11, 1, 'restore'), (1, 4, 'repay'))
       AS leg (debit_account, credit_account, kind)
    ON leg.debit_account = e.debit_account AND leg.credit_account = e.credit_account AND leg.kind = m.kind
 WHERE CASE WHEN e.debit_account = 4 AND e.credit_account = 10 THEN m.points IS NOT NULL
            ELSE e.points IS DISTINCT FROM m.points OR m.kinds <> 1 OR leg.kind IS NULL END;
COMMENT ON VIEW books_i11_entry_is_its_moves IS
    'Every point an entry moves is traced to lots, by moves of its kind; only new arrears have no lot.';

CREATE VIEW books_i12_lot_funder AS
SELECT m.bucket, m.member_id, m.seq, m.lot_seq, l.funder_id AS lot_funder_id, e.funder_id
  FROM ledger_lot_move AS m
  JOIN ledger_lot AS l USING (bucket, member_id, point_type, lot_seq)
  JOIN ledger_entry AS e USING (bucket, member_id, point_type, seq)
 WHERE l.funder_id <> e.funder_id;
COMMENT ON VIEW books_i12_lot_funder IS 'An entry is charged to the funder of the lots it moves.';

CREATE VIEW books_i13_hold_is_its_lots AS
SELECT h.bucket, h.member_id, h.id, h.state, h.points, coalesce(sum(p.points), 0) AS pinned_points,
       h.captured_points, coalesce(sum(p.captured), 0) AS captured_of_lots
  FROM ledger_hold AS h
  LEFT JOIN ledger_hold_lot AS p ON p.bucket = h.bucket AND p.member_id = h.member_id AND p.hold_id = h.id
 GROUP BY h.bucket, h.member_id, h.id, h.state, h.points, h.captured_points
HAVING (h.points, h.captured_points) <> (coalesce(sum(p.points), 0), coalesce(sum(p.captured), 0));
COMMENT ON VIEW books_i13_hold_is_its_lots IS 'A hold pins and captures what it pins and captures of each lot.';

CREATE VIEW books_i14_lot_is_pinned_by_open_holds AS
SELECT l.bucket, l.member_id, l.lot_seq, l.held_points, coalesce(p.points, 0) AS open_holds_points
  FROM ledger_lot AS l
  LEFT JOIN (SELECT h.bucket, h.member_id, h.point_type, k.lot_seq, sum(k.points) AS points
               FROM ledger_hold AS h
               JOIN ledger_hold_lot AS k ON k.bucket = h.bucket AND k.member_id = h.member_id AND k.hold_id = h.id
              WHERE h.state = 'open'
              GROUP BY h.bucket, h.member_id, h.point_type, k.lot_seq) AS p
    ON p.bucket = l.bucket AND p.member_id = l.member_id AND p.point_type = l.point_type AND p.lot_seq = l.lot_seq
 WHERE l.held_points <> coalesce(p.points, 0);
COMMENT ON VIEW books_i14_lot_is_pinned_by_open_holds IS 'What a lot has pinned is what open holds pin of it.';

CREATE VIEW books_i15_hold_operations AS
SELECT h.bucket, h.member_id, h.id, h.state, h.closed_by, opened.id AS opened_by, c.kind
  FROM ledger_hold AS h
  LEFT JOIN ledger_operation AS opened
    ON opened.bucket = h.bucket AND opened.member_id = h.member_id AND opened.id = h.id AND opened.kind = 'hold'
  LEFT JOIN ledger_operation AS c ON c.bucket = h.bucket AND c.member_id = h.member_id AND c.id = h.closed_by
 WHERE opened.points IS DISTINCT FROM h.points
    OR opened.partner_id IS DISTINCT FROM h.partner_id
    OR (h.state <> 'open' AND (c.kind, c.hold_id) IS DISTINCT FROM (
           CASE h.state WHEN 'captured' THEN 'capture' WHEN 'released' THEN 'release' ELSE 'lapse' END, h.id));
COMMENT ON VIEW books_i15_hold_operations IS
    'A hold was opened by one operation, and the one that closed it is of the kind its state says.';

------------------------------------------------------------------------------------------------------------------
-- Points: once, and undone at most once
------------------------------------------------------------------------------------------------------------------

CREATE VIEW books_i16_source_claims AS
SELECT coalesce(o.bucket, c.bucket) AS bucket, coalesce(o.member_id, c.member_id) AS member_id,
       o.id, c.operation_id, coalesce(o.source_ref, c.source_ref) AS source_ref
  FROM (SELECT * FROM ledger_operation WHERE kind = 'earn') AS o
  FULL JOIN ledger_source_claim AS c
    ON c.bucket = o.bucket AND c.member_id = o.member_id AND c.operation_id = o.id
   AND c.partner_id = o.partner_id AND c.kind = o.source_kind AND c.source_ref = o.source_ref
 WHERE o.id IS NULL OR c.operation_id IS NULL;
COMMENT ON VIEW books_i16_source_claims IS
    'Every earning holds the claim on its source, and every claim belongs to the earning it names.';

CREATE VIEW books_i17_reversals AS
SELECT coalesce(r.bucket, s.bucket) AS bucket, coalesce(r.member_id, s.member_id) AS member_id,
       coalesce(r.operation_id, s.reverses) AS operation_id, r.base_fen, r.reversed_fen, s.fen, r.base_points,
       r.reversed_points, s.points
  FROM ledger_reversible AS r
  FULL JOIN (SELECT bucket, member_id, reverses, sum(amount_fen) AS fen, sum(points) AS points
               FROM ledger_operation
              WHERE reverses IS NOT NULL
              GROUP BY bucket, member_id, reverses) AS s
    ON s.bucket = r.bucket AND s.member_id = r.member_id AND s.reverses = r.operation_id
  LEFT JOIN ledger_operation AS o ON o.bucket = r.bucket AND o.member_id = r.member_id AND o.id = r.operation_id
 WHERE (r.reversed_fen, r.reversed_points) IS DISTINCT FROM (s.fen, s.points)
    OR (r.base_fen, r.base_points) IS DISTINCT FROM (o.amount_fen, o.points)
    OR r.reversed_fen > r.base_fen
    OR r.reversed_points <> div(r.base_points::numeric * r.reversed_fen, nullif(r.base_fen, 0));
COMMENT ON VIEW books_i17_reversals IS
    'What refunds have undone of an operation is the sum of its reversals, the cumulative floor of its share, and never more than the operation.';

CREATE VIEW books_i18_restored_lots AS
SELECT s.bucket, s.member_id, s.hold_id, s.restored, coalesce(o.points, 0) AS reversed_points
  FROM (SELECT bucket, member_id, hold_id, sum(restored) AS restored
          FROM ledger_hold_lot
         GROUP BY bucket, member_id, hold_id) AS s
  LEFT JOIN (SELECT bucket, member_id, hold_id, sum(points) AS points
               FROM ledger_operation
              WHERE kind = 'reverse_spend'
              GROUP BY bucket, member_id, hold_id) AS o
    ON o.bucket = s.bucket AND o.member_id = s.member_id AND o.hold_id = s.hold_id
 WHERE s.restored <> coalesce(o.points, 0);
COMMENT ON VIEW books_i18_restored_lots IS 'What went back to the lots of a captured hold is what its reversals gave back.';

CREATE VIEW books_i19_entitlement_uses AS
SELECT e.bucket, e.member_id, e.id, e.used, coalesce(sum(u.quantity), 0) AS uses
  FROM membership_entitlement AS e
  LEFT JOIN membership_entitlement_use AS u
    ON u.bucket = e.bucket AND u.member_id = e.member_id AND u.entitlement_id = e.id
 GROUP BY e.bucket, e.member_id, e.id, e.used
HAVING e.used <> coalesce(sum(u.quantity), 0);
COMMENT ON VIEW books_i19_entitlement_uses IS 'What is used of a right is the sum of its uses.';

------------------------------------------------------------------------------------------------------------------
-- Audit, events, deliveries
------------------------------------------------------------------------------------------------------------------

CREATE VIEW books_i20_audit_chain AS
SELECT lane.lane, r.seq, r.place
  FROM audit_lane AS lane
  LEFT JOIN (
       SELECT a.*, row_number() OVER chain AS place, lag(a.hash, 1, '\x') OVER chain AS previous,
              lead(a.seq) OVER chain IS NULL AS is_last
         FROM audit_record AS a
       WINDOW chain AS (PARTITION BY a.lane ORDER BY a.seq)) AS r ON r.lane = lane.lane
 WHERE r.seq <> r.place
    OR r.prev_hash <> r.previous
    OR r.hash <> audit_hash(r.prev_hash, r.lane, r.seq, r.at, r.actor, r.action, r.subject, r.detail)
    OR (r.is_last AND (lane.seq, lane.hash) <> (r.seq, r.hash))
    OR (r.seq IS NULL AND (lane.seq, lane.hash) <> (0, '\x'));
COMMENT ON VIEW books_i20_audit_chain IS
    'Every lane of the audit log counts without a gap, each hash seals its record and the one before, and the head is the last.';

CREATE VIEW books_i21_operations_are_told AS
SELECT o.bucket, o.member_id, o.id, o.kind
  FROM ledger_operation AS o
  LEFT JOIN outbox_event AS e ON o.kind = 'earn' AND e.bucket = o.bucket AND e.id = o.id
 WHERE o.kind = 'earn' AND (e.type, e.partner_id) IS DISTINCT FROM ('points.earned', o.partner_id)
UNION ALL
SELECT o.bucket, o.member_id, o.id, o.kind
  FROM ledger_operation AS o
  LEFT JOIN outbox_event AS e
    ON e.bucket = o.bucket AND e.partner_id = o.partner_id
   AND e.type = CASE o.kind WHEN 'capture' THEN 'points.hold.captured' WHEN 'release' THEN 'points.hold.released'
                            WHEN 'lapse' THEN 'points.hold.lapsed' ELSE 'points.reversed' END
   AND e.aggregate = CASE WHEN o.kind IN ('reverse_earn', 'reverse_spend') THEN books_wire_id('ent', o.id)
                          ELSE books_wire_id('hld', o.hold_id) END
 WHERE o.kind IN ('capture', 'release', 'lapse', 'reverse_earn', 'reverse_spend') AND e.id IS NULL
UNION ALL
SELECT bucket, NULL, NULL, type
  FROM outbox_event
 WHERE type LIKE 'points.hold.%' OR type = 'points.reversed'
 GROUP BY bucket, partner_id, type, aggregate
HAVING count(*) > 1;
COMMENT ON VIEW books_i21_operations_are_told IS
    'Every earning, every end of a hold and every reversal has its event, once. Placing a hold is the partner''s own act and expiry nobody''s: they have none.';

CREATE VIEW books_i22_deliveries AS
SELECT d.id, d.endpoint_id, d.event_id, d.sequence, e.position
  FROM webhooks_delivery AS d
  LEFT JOIN webhooks_endpoint AS w ON w.id = d.endpoint_id
  LEFT JOIN outbox_event AS e ON e.bucket = d.bucket AND e.id = d.event_id
 WHERE d.sequence IS DISTINCT FROM e.position OR w.partner_id IS DISTINCT FROM e.partner_id;
COMMENT ON VIEW books_i22_deliveries IS
    'A delivery carries an event to an endpoint of the event''s own partner, under the event''s position.';

------------------------------------------------------------------------------------------------------------------
-- Credit
------------------------------------------------------------------------------------------------------------------

CREATE VIEW books_i23_plan_is_its_entries AS
SELECT p.bucket, p.id, p.state, p.entries, s.entries AS entries_found, p.captured_fen, s.captured_fen AS captured_found,
       p.reduced_fen, s.reduced_fen AS reduced_found, p.returned_fen, s.returned_fen AS returned_found,
       p.principal_paid_fen, s.principal_paid_fen AS principal_paid_found
  FROM credit_plan AS p
  LEFT JOIN LATERAL (
       SELECT count(*) AS entries,
              coalesce(max(e.seq), 0) AS last_seq,
              bool_and(e.partner_id = p.partner_id) AS own,
              coalesce(sum(e.amount_fen) FILTER (WHERE e.kind = 'capture'), 0) AS captured_fen,
              coalesce(sum(e.amount_fen) FILTER (WHERE e.kind = 'refund' AND e.credit_account = 'customer_receivable'), 0)
                  AS reduced_fen,
              coalesce(sum(e.amount_fen) FILTER (WHERE e.kind = 'refund' AND e.credit_account = 'customer_cash'), 0)
                  AS returned_fen,
              coalesce(sum(e.amount_fen) FILTER (WHERE e.kind = 'repayment'), 0) AS principal_paid_fen,
              coalesce(sum(e.amount_fen) FILTER (WHERE e.kind = 'interest'), 0) AS interest_paid_fen,
              coalesce(sum(e.amount_fen) FILTER (WHERE e.kind = 'fee'), 0) AS fee_paid_fen,
              coalesce(sum(CASE 'customer_receivable' WHEN e.debit_account THEN e.amount_fen
                                WHEN e.credit_account THEN -e.amount_fen ELSE 0 END), 0) AS receivable_fen
         FROM credit_entry AS e
        WHERE e.bucket = p.bucket AND e.plan_id = p.id) AS s ON true
 WHERE (p.entries, p.entries) <> (s.entries, s.last_seq)
    OR NOT s.own
    OR (p.captured_fen, p.reduced_fen, p.returned_fen, p.principal_paid_fen, p.interest_paid_fen, p.fee_paid_fen)
       <> (s.captured_fen, s.reduced_fen, s.returned_fen, s.principal_paid_fen, s.interest_paid_fen, s.fee_paid_fen)
    OR s.receivable_fen <> p.captured_fen - p.reduced_fen - p.principal_paid_fen;
COMMENT ON VIEW books_i23_plan_is_its_entries IS
    'The totals of a plan are the sums of its money entries, which are numbered without a gap; what the customer owes is the balance of the receivable.';

CREATE VIEW books_i24_plan_is_its_records AS
SELECT p.bucket, p.id, p.captures, c.captures AS captures_found, p.captured_fen, c.fen AS captured_found,
       p.refunded_fen, r.fen AS refunded_found, p.principal_paid_fen, y.principal_fen AS principal_paid_found
  FROM credit_plan AS p
  LEFT JOIN LATERAL (
       SELECT count(*) AS captures, coalesce(sum(amount_fen), 0) AS fen
         FROM credit_capture WHERE bucket = p.bucket AND plan_id = p.id) AS c ON true
  LEFT JOIN LATERAL (
       SELECT coalesce(sum(amount_fen), 0) AS fen
         FROM credit_refund WHERE bucket = p.bucket AND plan_id = p.id) AS r ON true
  LEFT JOIN LATERAL (
       SELECT coalesce(max(no), 0) AS rows_paid, coalesce(sum(principal_fen), 0) AS principal_fen,
              coalesce(sum(interest_fen), 0) AS interest_fen, coalesce(sum(fee_fen), 0) AS fee_fen
         FROM credit_repayment WHERE bucket = p.bucket AND plan_id = p.id) AS y ON true
 WHERE (p.captures, p.captured_fen, p.refunded_fen) <> (c.captures, c.fen, r.fen)
    OR (p.rows_paid, p.principal_paid_fen, p.interest_paid_fen, p.fee_paid_fen)
       <> (y.rows_paid, y.principal_fen, y.interest_fen, y.fee_fen);
COMMENT ON VIEW books_i24_plan_is_its_records IS
    'The totals of a plan are the sums of its captures, refunds and repayments.';

CREATE VIEW books_i25_schedule_principal AS
SELECT v.bucket, v.plan_id, v.version, p.schedule_version, v.cause, v.principal_fen, s.rows_fen, s.open_fen,
       p.financed_fen, p.captured_fen, p.reduced_fen, p.principal_paid_fen
  FROM credit_plan AS p
  LEFT JOIN credit_schedule_version AS v ON v.bucket = p.bucket AND v.plan_id = p.id
  LEFT JOIN LATERAL (
       SELECT coalesce(sum(principal_fen), 0) AS rows_fen,
              coalesce(sum(principal_fen) FILTER (WHERE no > p.rows_paid), 0) AS open_fen
         FROM credit_schedule_row
        WHERE bucket = v.bucket AND plan_id = v.plan_id AND version = v.version) AS s ON true
 WHERE v.version IS NULL
    OR v.version > p.schedule_version
    OR v.principal_fen <> s.rows_fen
    OR (v.version = 1 AND (v.cause, v.principal_fen) <> ('original', p.financed_fen))
    OR (v.version = p.schedule_version AND p.captures > 0
        AND s.open_fen <> p.captured_fen - p.reduced_fen - p.principal_paid_fen)
UNION ALL
SELECT p.bucket, p.id, NULL, p.schedule_version, NULL, NULL, NULL, NULL, p.financed_fen, p.captured_fen, p.reduced_fen,
       p.principal_paid_fen
  FROM credit_plan AS p
 WHERE p.schedule_version <> (SELECT count(*) FROM credit_schedule_version AS v
                               WHERE v.bucket = p.bucket AND v.plan_id = p.id);
COMMENT ON VIEW books_i25_schedule_principal IS
    'A schedule''s principal is the sum of its rows; the first repays what is financed, the current one exactly what is still owed; none is missing.';

CREATE VIEW books_i26_quote_to_plan AS
SELECT coalesce(q.bucket, a.bucket) AS bucket, q.id AS quote_id, q.state, a.id AS application_id, p.id AS plan_id
  FROM (SELECT * FROM offers_quote WHERE state IN ('accepted', 'consumed')) AS q
  FULL JOIN credit_application AS a ON a.bucket = q.bucket AND a.quote_id = q.id
  LEFT JOIN credit_decision AS d ON d.bucket = a.bucket AND d.application_id = a.id
  LEFT JOIN credit_plan AS p ON p.bucket = a.bucket AND p.application_id = a.id
 WHERE q.id IS NULL
    OR a.id IS NULL
    OR (q.partner_id, q.member_id) <> (a.partner_id, a.member_id)
    OR (p.partner_id, p.member_id) <> (a.partner_id, a.member_id)
    OR d.outcome IS NULL
    OR (p.id IS NULL) = (d.outcome IN ('approved', 'approved_lower'))
    OR p.terms ->> 'quote_id' <> a.quote_id::text;
COMMENT ON VIEW books_i26_quote_to_plan IS
    'An accepted quote has one application, decided once, and at most one plan: exactly one if it was approved.';

CREATE VIEW books_i27_plan_hold AS
SELECT p.bucket, p.id, p.state, p.hold_id, h.state AS hold_state
  FROM credit_plan AS p
  LEFT JOIN ledger_hold AS h ON h.bucket = p.bucket AND h.member_id = p.member_id AND h.id = p.hold_id
 WHERE p.hold_id IS NOT NULL
   AND CASE WHEN h.id IS NULL OR h.partner_id <> p.partner_id THEN true
            WHEN p.captures > 0 THEN h.state <> 'captured'
            WHEN p.state = 'voided' THEN h.state NOT IN ('released', 'lapsed')
            ELSE h.state = 'captured' END;
COMMENT ON VIEW books_i27_plan_hold IS
    'The points of a plan are spent once anything of it is captured and not before, and free once it is voided.';

CREATE VIEW books_i28_credit_line AS
SELECT l.bucket, l.member_id, l.used_fen, coalesce(sum(p.open_fen), 0) AS plans_fen
  FROM credit_line AS l
  LEFT JOIN (SELECT bucket, member_id, financed_fen - released_fen - reduced_fen - principal_paid_fen AS open_fen
               FROM credit_plan
              WHERE state NOT IN ('voided', 'auth_expired')) AS p
    ON p.bucket = l.bucket AND p.member_id = l.member_id
 GROUP BY l.bucket, l.member_id, l.used_fen
HAVING l.used_fen <> coalesce(sum(p.open_fen), 0);
COMMENT ON VIEW books_i28_credit_line IS 'What a member uses of the credit line is what the plans have reserved and still wait for.';

------------------------------------------------------------------------------------------------------------------
-- Settlement
------------------------------------------------------------------------------------------------------------------

CREATE VIEW books_i29_batch_is_its_lines AS
SELECT b.id, b.partner_id, b.business_on, b.sequence, b.lines, s.lines AS lines_found, b.partner_owes_fen,
       s.partner_owes_fen AS partner_owes_found, b.bank_owes_fen, s.bank_owes_fen AS bank_owes_found
  FROM settlement_batch AS b
  LEFT JOIN LATERAL (
       SELECT count(*) AS lines, coalesce(max(no), 0) AS last_no,
              coalesce(sum(amount_fen) FILTER (WHERE direction = 'partner_owes_bank'), 0) AS partner_owes_fen,
              coalesce(sum(amount_fen) FILTER (WHERE direction = 'bank_owes_partner'), 0) AS bank_owes_fen
         FROM settlement_line WHERE batch_id = b.id) AS s ON true
 WHERE b.state IN ('closing', 'open')
    OR (b.lines, b.lines) <> (s.lines, s.last_no)
    OR (b.partner_owes_fen, b.bank_owes_fen) <> (s.partner_owes_fen, s.bank_owes_fen);
COMMENT ON VIEW books_i29_batch_is_its_lines IS
    'A settlement batch is closed in one go; its figures are the sums of its lines, numbered without a gap.';

CREATE VIEW books_i30_batch_totals AS
SELECT coalesce(t.batch_id, s.batch_id) AS batch_id, coalesce(t.kind, s.kind) AS kind,
       coalesce(t.direction, s.direction) AS direction, t.lines, s.lines AS lines_found, t.points,
       s.points AS points_found, t.amount_fen, s.amount_fen AS amount_found
  FROM settlement_total AS t
  FULL JOIN (SELECT batch_id, kind, direction, count(*) AS lines, sum(points) AS points, sum(amount_fen) AS amount_fen
               FROM settlement_line
              GROUP BY batch_id, kind, direction) AS s
    ON s.batch_id = t.batch_id AND s.kind = t.kind AND s.direction = t.direction
 WHERE (t.lines, t.points, t.amount_fen) IS DISTINCT FROM (s.lines, s.points, s.amount_fen);
COMMENT ON VIEW books_i30_batch_totals IS 'The sums of a batch by kind are the sums of its lines.';

CREATE VIEW books_settlement_source AS
SELECT 'ledger' AS source, partner_id, operation_id, entry_ref, kind, funder, points, amount_fen, business_on, recorded_at
  FROM ledger_settlement_source
UNION ALL
SELECT 'credit', partner_id, operation_id, entry_ref, kind, funder, 0, amount_fen, business_on, recorded_at
  FROM credit_settlement_source;

CREATE VIEW books_i31_line_is_its_source AS
SELECT l.batch_id, l.no, l.source, l.entry_ref, l.kind, l.amount_fen, s.amount_fen AS source_amount_fen
  FROM settlement_line AS l
  JOIN settlement_batch AS b ON b.id = l.batch_id
  LEFT JOIN books_settlement_source AS s ON s.source = l.source AND s.entry_ref = l.entry_ref
 WHERE (l.partner_id, l.operation_id, l.kind, l.funder, l.points, l.amount_fen, l.business_on, l.recorded_at)
       IS DISTINCT FROM
       (s.partner_id, s.operation_id, s.kind, s.funder, s.points, s.amount_fen, s.business_on, s.recorded_at)
    OR l.business_on > b.business_on;
COMMENT ON VIEW books_i31_line_is_its_source IS
    'A settlement line says of its entry what the books say, and is not ahead of its batch''s day.';

CREATE VIEW books_i32_nothing_left_out AS
SELECT s.source, s.partner_id, s.entry_ref, s.kind, s.amount_fen, s.business_on, s.recorded_at, b.closed_at
  FROM books_settlement_source AS s
  JOIN LATERAL (SELECT max(closed_at) AS closed_at
                  FROM settlement_batch
                 WHERE partner_id = s.partner_id AND business_on >= s.business_on) AS b
    ON s.recorded_at < b.closed_at - interval '5 minutes'
 WHERE NOT EXISTS (SELECT FROM settlement_line AS l WHERE l.source = s.source AND l.entry_ref = s.entry_ref);
COMMENT ON VIEW books_i32_nothing_left_out IS
    'No entry of a settled day is missing from settlement. What was recorded after the close, or was under way at that moment, waits for the next batch.';

------------------------------------------------------------------------------------------------------------------
-- What sums do not show: time, evidence, terms, states, events
------------------------------------------------------------------------------------------------------------------

CREATE VIEW books_i33_points_end_in_time AS
SELECT m.bucket, m.member_id, m.seq, m.lot_seq, NULL::uuid AS hold_id, m.kind, e.recorded_at AS moved_at,
       l.expires_at AS ends_at
  FROM ledger_lot_move AS m
  JOIN ledger_lot AS l USING (bucket, member_id, point_type, lot_seq)
  JOIN ledger_entry AS e USING (bucket, member_id, point_type, seq)
 WHERE CASE WHEN m.kind = 'expire' THEN l.expires_at IS NULL OR e.recorded_at < l.expires_at
            ELSE m.kind IN ('hold', 'claw', 'restore', 'repay') AND l.expires_at <= e.recorded_at END
UNION ALL
SELECT bucket, member_id, NULL, NULL, id, state, closed_at, deadline_at
  FROM ledger_hold
 WHERE (state = 'captured' AND closed_at >= deadline_at) OR (state = 'lapsed' AND closed_at < deadline_at);
COMMENT ON VIEW books_i33_points_end_in_time IS
    'No lot is booked as expired before its time or used from then on unless a hold had pinned it; a hold is captured before its deadline and lapses from then on.';

CREATE VIEW books_i34_acceptance_evidence AS
SELECT q.bucket, q.id, q.state, e.displayed_seconds, e.recorded_at, q.accepted_at, q.expires_at
  FROM offers_quote AS q
  LEFT JOIN offers_disclosure_evidence AS e ON e.bucket = q.bucket AND e.quote_id = q.id
 WHERE q.disclosure_hash IS DISTINCT FROM q.doc -> 'disclosure' ->> 'hash'
    OR (e.quote_id IS NULL AND q.state IN ('disclosed', 'accepted', 'consumed'))
    OR (e.quote_id IS NOT NULL AND q.state = 'issued')
    OR e.hash <> q.disclosure_hash
    OR e.displayed_seconds < (q.doc -> 'disclosure' ->> 'min_read_seconds')::int
    OR q.accepted_at < e.recorded_at
    OR q.accepted_at >= q.expires_at;
COMMENT ON VIEW books_i34_acceptance_evidence IS
    'Nobody accepted a quote without having been shown its own cost table, long enough and before, or after its time.';

CREATE VIEW books_i35_refund_statements AS
SELECT r.bucket, r.plan_id, r.refund_ref, r.amount_fen, s.parts_fen
  FROM credit_refund AS r
 CROSS JOIN LATERAL (
       SELECT sum((r.statement ->> part)::bigint) AS parts_fen
         FROM unnest(ARRAY['uncaptured_released_fen', 'principal_reduced_fen', 'cash_to_customer_fen',
                           'discount_reversed_fen', 'points_value_fen', 'down_payment_returned_fen']) AS part) AS s
 WHERE s.parts_fen IS DISTINCT FROM r.amount_fen
UNION ALL
SELECT p.bucket, p.id, NULL, p.released_fen + p.reduced_fen + p.returned_fen, s.released_fen + s.reduced_fen + s.returned_fen
  FROM credit_plan AS p
 CROSS JOIN LATERAL (
       SELECT coalesce(sum((statement ->> 'uncaptured_released_fen')::bigint), 0) AS released_fen,
              coalesce(sum((statement ->> 'principal_reduced_fen')::bigint), 0) AS reduced_fen,
              coalesce(sum((statement ->> 'cash_to_customer_fen')::bigint), 0) AS returned_fen,
              coalesce(sum((statement ->> 'interest_refund_fen')::bigint), 0) AS interest_fen,
              coalesce(sum((statement ->> 'fee_refund_fen')::bigint), 0) AS fee_fen
         FROM credit_refund WHERE bucket = p.bucket AND plan_id = p.id) AS s
 CROSS JOIN LATERAL (
       SELECT coalesce(sum(amount_fen) FILTER (WHERE kind = 'interest_refund'), 0) AS interest_fen,
              coalesce(sum(amount_fen) FILTER (WHERE kind = 'fee_refund'), 0) AS fee_fen
         FROM credit_entry WHERE bucket = p.bucket AND plan_id = p.id) AS e
 WHERE (p.released_fen, p.reduced_fen, p.returned_fen, e.interest_fen, e.fee_fen)
       <> (s.released_fen, s.reduced_fen, s.returned_fen, s.interest_fen, s.fee_fen);
COMMENT ON VIEW books_i35_refund_statements IS
    'The parts of a refund''s statement add up to the refund, and what the statements say together is what the plan and its money entries say.';

CREATE VIEW books_i36_funding_follows_terms AS
SELECT p.bucket, p.id, e.discount_fen, t.discount_fen AS discount_agreed_fen, e.subsidy_fen,
       t.subsidy_fen AS subsidy_agreed_fen
  FROM credit_plan AS p
 CROSS JOIN LATERAL (
       SELECT coalesce(sum(CASE kind WHEN 'discount' THEN amount_fen WHEN 'discount_reversal' THEN -amount_fen END), 0)
                  AS discount_fen,
              coalesce(sum(CASE WHEN kind IN ('merchant_subsidy', 'bank_subsidy') THEN amount_fen
                                WHEN kind IN ('subsidy_reversal', 'bank_subsidy_reversal') THEN -amount_fen END), 0)
                  AS subsidy_fen
         FROM credit_entry WHERE bucket = p.bucket AND plan_id = p.id) AS e
 CROSS JOIN LATERAL (
       SELECT CASE WHEN p.captures > 0 THEN (p.terms ->> 'discount_fen')::bigint - coalesce((
                  SELECT sum((statement ->> 'discount_reversed_fen')::bigint)
                    FROM credit_refund WHERE bucket = p.bucket AND plan_id = p.id), 0) ELSE 0 END AS discount_fen,
              CASE WHEN p.terms -> 'funding' @> '[{"kind": "interest_subsidy"}]'
                   THEN div((p.captured_fen - p.reduced_fen - p.returned_fen)::numeric
                            * (p.terms ->> 'subsidy_ppm_per_period')::bigint * (p.terms ->> 'periods')::int, 1000000)
                   ELSE 0 END AS subsidy_fen,
              jsonb_path_exists(p.terms, '$.funding[*] ? (@.kind == "discount" && @.funder != "bank")') AS shared) AS t
 WHERE e.subsidy_fen <> t.subsidy_fen
    OR CASE WHEN t.shared THEN e.discount_fen NOT BETWEEN 0 AND t.discount_fen ELSE e.discount_fen <> t.discount_fen END;
COMMENT ON VIEW books_i36_funding_follows_terms IS
    'The subsidies booked on a plan are those agreed for the principal still carried, and the bank''s discount is its part of what refunds have left of it.';

CREATE VIEW books_i37_money_accounts AS
SELECT e.bucket, e.plan_id, e.seq, e.kind, e.debit_account, e.credit_account
  FROM credit_entry AS e
  LEFT JOIN (VALUES ('capture', 'customer_receivable', 'merchant_payable'),
                    ('discount', 'bank_discount_expense', 'merchant_payable'),
                    ('discount_reversal', 'merchant_payable', 'bank_discount_expense'),
                    ('merchant_subsidy', 'merchant_payable', 'subsidy_income'),
                    ('subsidy_reversal', 'subsidy_income', 'merchant_payable'),
                    ('bank_subsidy', 'bank_subsidy_expense', 'subsidy_income'),
                    ('bank_subsidy_reversal', 'subsidy_income', 'bank_subsidy_expense'),
                    ('refund', 'merchant_payable', 'customer_receivable'),
                    ('refund', 'merchant_payable', 'customer_cash'),
                    ('interest_refund', 'interest_income', 'customer_cash'),
                    ('fee_refund', 'fee_income', 'customer_cash'),
                    ('repayment', 'customer_cash', 'customer_receivable'),
                    ('interest', 'customer_cash', 'interest_income'),
                    ('fee', 'customer_cash', 'fee_income'))
       AS leg (kind, debit_account, credit_account)
    ON leg.kind = e.kind AND leg.debit_account = e.debit_account AND leg.credit_account = e.credit_account
 WHERE leg.kind IS NULL;
COMMENT ON VIEW books_i37_money_accounts IS 'Every money entry of a plan moves the accounts that its kind moves.';

CREATE VIEW books_i38_plan_state AS
SELECT bucket, id, state, captures, total_fen, refunded_fen, financed_fen, captured_fen, released_fen, reduced_fen,
       principal_paid_fen
  FROM credit_plan
 WHERE CASE WHEN captures = 0 THEN state NOT IN ('authorised', 'voided', 'auth_expired')
            WHEN refunded_fen = total_fen THEN state <> 'fully_refunded'
            WHEN financed_fen > captured_fen + released_fen THEN state <> 'partially_captured'
            WHEN captured_fen = reduced_fen + principal_paid_fen THEN state <> 'paid_off'
            ELSE state NOT IN ('active', 'overdue', 'charged_off') END;
COMMENT ON VIEW books_i38_plan_state IS 'A plan is in the state that its totals put it in.';

CREATE VIEW books_i39_credit_is_told AS
SELECT done.aggregate, done.type, done.times, coalesce(told.times, 0) AS told
  FROM (SELECT a.partner_id, books_wire_id('apl', a.id) AS aggregate, 'application.' || d.outcome AS type, 1 AS times
          FROM credit_application AS a
          JOIN credit_decision AS d ON d.bucket = a.bucket AND d.application_id = a.id
         UNION ALL
        SELECT p.partner_id, named.aggregate, deed.type, deed.times
          FROM credit_plan AS p
         CROSS JOIN LATERAL (SELECT books_wire_id('pln', p.id) AS aggregate OFFSET 0) AS named
         CROSS JOIN LATERAL (VALUES
               ('plan.authorised', 1),
               ('plan.voided', (p.state = 'voided')::int),
               ('plan.auth_expired', (p.state = 'auth_expired')::int),
               ('plan.captured', p.captures),
               ('plan.instalment_paid', (SELECT count(*)::int FROM credit_repayment
                                          WHERE bucket = p.bucket AND plan_id = p.id)),
               ('refund.succeeded', (SELECT count(*)::int FROM credit_refund
                                      WHERE bucket = p.bucket AND plan_id = p.id))) AS deed (type, times)
         UNION ALL
        SELECT partner_id, books_wire_id('stb', id), 'settlement.closed', 1
          FROM settlement_batch) AS done
  LEFT JOIN (SELECT partner_id, aggregate, type, count(*) AS times
               FROM outbox_event
              GROUP BY partner_id, aggregate, type) AS told
    ON told.partner_id = done.partner_id AND told.aggregate = done.aggregate AND told.type = done.type
 WHERE coalesce(told.times, 0) <> done.times;
COMMENT ON VIEW books_i39_credit_is_told IS
    'Every decision, everything that happened to a plan and every settlement has its event, once.';

GRANT SELECT ON
    books_i01_entry_accounts, books_i02_entry_operation, books_i03_operation_points, books_i04_wallet_is_its_entries,
    books_i05_balances_after, books_i06_never_negative, books_i07_chain, books_i08_house_slots,
    books_i09_wallet_is_its_lots, books_i10_lot_is_its_moves, books_i11_entry_is_its_moves, books_i12_lot_funder,
    books_i13_hold_is_its_lots, books_i14_lot_is_pinned_by_open_holds, books_i15_hold_operations,
    books_i16_source_claims, books_i17_reversals, books_i18_restored_lots, books_i19_entitlement_uses,
    books_i20_audit_chain, books_i21_operations_are_told, books_i22_deliveries, books_i23_plan_is_its_entries,
    books_i24_plan_is_its_records, books_i25_schedule_principal, books_i26_quote_to_plan, books_i27_plan_hold,
    books_i28_credit_line, books_i29_batch_is_its_lines, books_i30_batch_totals, books_i31_line_is_its_source,
    books_i32_nothing_left_out, books_i33_points_end_in_time, books_i34_acceptance_evidence,
    books_i35_refund_statements, books_i36_funding_follows_terms, books_i37_money_accounts, books_i38_plan_state,
    books_i39_credit_is_told
    TO tessera_app;
