-- What the books checks have looked at, so that the next one may begin where a good one left off.
--
-- next_since is a business day: everything recorded before it was found to be true by this check and those before it.
-- A check that found something, or that began later than the one before it left off, does not move it. Append-only.
CREATE TABLE books_check (
    id          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    since       date,                       -- the first day looked at; null: everything was
    next_since  date,                       -- null: no check has been good yet
    members     bigint      CHECK (members >= 0),
    broken      text[]      NOT NULL,
    started_at  timestamptz NOT NULL,
    finished_at timestamptz NOT NULL,
    CHECK (started_at <= finished_at),
    CHECK ((since IS NULL) = (members IS NULL))
);
GRANT SELECT, INSERT ON books_check TO tessera_app;

CREATE VIEW books_i74_checks_leave_no_gap AS
SELECT c.id, c.since, c.next_since, c.previous, c.broken
  FROM (SELECT n.*, lag(n.next_since) OVER (ORDER BY n.id) AS previous FROM books_check AS n) AS c
 WHERE c.next_since IS NOT NULL AND c.next_since > coalesce(c.previous, '-infinity')
   AND (c.since > coalesce(c.previous, '-infinity') OR c.broken <> '{}');
COMMENT ON VIEW books_i74_checks_leave_no_gap IS
    'A check moves the day from which the next one looks only if it found nothing and began no later than the one before left off.';

GRANT SELECT ON books_i74_checks_leave_no_gap TO tessera_app;
