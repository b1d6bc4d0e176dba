-- The events of a partner are numbered by themselves: from a sequence of everybody's, its gaps would tell how busy the
-- others are. A partner that reads its events in order sees by a gap that it missed one. Numbers given before stay.
CREATE TABLE outbox_sequence (
    partner_id    uuid   PRIMARY KEY,
    last_position bigint NOT NULL CHECK (last_position > 0)
) WITH (fillfactor = 70);
INSERT INTO outbox_sequence (partner_id, last_position)
SELECT partner_id, max(position) FROM outbox_event WHERE position IS NOT NULL GROUP BY partner_id;
GRANT SELECT, INSERT ON outbox_sequence TO tessera_app;
GRANT UPDATE (last_position) ON outbox_sequence TO tessera_app;
DROP SEQUENCE outbox_event_position;

CREATE VIEW books_i75_event_sequences AS
SELECT coalesce(s.partner_id, e.partner_id) AS partner_id, s.last_position, e.highest
  FROM outbox_sequence AS s
  FULL JOIN (
       SELECT partner_id, max(position) AS highest
         FROM outbox_event
        WHERE position IS NOT NULL
        GROUP BY partner_id) AS e ON e.partner_id = s.partner_id
 WHERE s.last_position IS DISTINCT FROM e.highest;
COMMENT ON VIEW books_i75_event_sequences IS 'The next event of a partner comes after all it has been told.';
GRANT SELECT ON books_i75_event_sequences TO tessera_app;
