-- One frame for all recurring work: how far each job has come with each business date.

-- One row for each lane of a run, so that several workers share one: a lane is worked on by whoever holds its row.
-- What a batch did and where the lane stands are one transaction. The cursor is the job's own affair; null at the
-- beginning and at the end. A lane that is finished stays so.
CREATE TABLE kernel_job_run (
    job         text        NOT NULL CHECK (job <> ''),
    business_on date        NOT NULL,
    lane        smallint    NOT NULL CHECK (lane BETWEEN 0 AND 1023),
    cursor      jsonb,
    done        bigint      NOT NULL DEFAULT 0 CHECK (done >= 0),
    started_at  timestamptz NOT NULL,
    finished_at timestamptz,
    PRIMARY KEY (job, business_on, lane),
    CONSTRAINT kernel_job_run_finished_has_no_cursor CHECK (finished_at IS NULL OR cursor IS NULL)
);
GRANT SELECT, INSERT ON kernel_job_run TO tessera_app;
GRANT UPDATE (cursor, done, finished_at) ON kernel_job_run TO tessera_app;

-- A run is finished when all its lanes are; they are opened together.
CREATE VIEW kernel_job_state AS
SELECT job, business_on, count(*) AS lanes, count(finished_at) AS lanes_finished, sum(done)::bigint AS done,
       min(started_at) AS started_at, CASE WHEN count(*) = count(finished_at) THEN max(finished_at) END AS finished_at
  FROM kernel_job_run
 GROUP BY job, business_on;
GRANT SELECT ON kernel_job_state TO tessera_app;

-- What was done before there was a frame.
INSERT INTO kernel_job_run (job, business_on, lane, cursor, done, started_at, finished_at)
SELECT job, period, 0,
       CASE WHEN finished_at IS NULL AND after_bucket >= 0
            THEN jsonb_build_array(after_bucket, after_member_id, after_point_type) END,
       made, started_at, finished_at
  FROM ledger_job
UNION ALL
SELECT 'seal', business_on, 0, NULL, sum(leaves), min(sealed_at), max(sealed_at)
  FROM ledger_seal
 GROUP BY business_on;

CREATE OR REPLACE VIEW books_i41_statements_follow_each_other AS
SELECT s.bucket, s.member_id, s.point_type, s.period, s.first_seq, s.previous_last, s.opening_points,
       s.previous_points, s.opening_arrears_points, s.previous_arrears, NULL::bigint AS left_out_seq
  FROM (SELECT n.*, lag(n.last_seq, 1, 0::bigint) OVER wallet AS previous_last,
               lag(n.closing_points, 1, 0::bigint) OVER wallet AS previous_points,
               lag(n.closing_arrears_points, 1, 0::bigint) OVER wallet AS previous_arrears
          FROM ledger_statement AS n
        WINDOW wallet AS (PARTITION BY n.bucket, n.member_id, n.point_type ORDER BY n.period)) AS s
 WHERE (s.first_seq, s.opening_points, s.opening_arrears_points)
       <> (s.previous_last + 1, s.previous_points, s.previous_arrears)
UNION ALL
SELECT e.bucket, e.member_id, e.point_type, e.period, NULL, s.last_seq, NULL, NULL, NULL, NULL, e.seq
  FROM (SELECT n.bucket, n.member_id, n.point_type, max(n.seq) AS seq, date_trunc('month', max(n.business_on))::date AS period
          FROM ledger_entry AS n
         WHERE n.business_on < (SELECT max(j.business_on) + interval '1 month' FROM kernel_job_state AS j
                                 WHERE j.job = 'statements' AND j.finished_at IS NOT NULL)
         GROUP BY n.bucket, n.member_id, n.point_type) AS e
  LEFT JOIN (SELECT bucket, member_id, point_type, max(last_seq) AS last_seq
               FROM ledger_statement
              GROUP BY bucket, member_id, point_type) AS s
    ON s.bucket = e.bucket AND s.member_id = e.member_id AND s.point_type = e.point_type
 WHERE e.seq > coalesce(s.last_seq, 0);

DROP TABLE ledger_job;
