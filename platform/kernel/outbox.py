"""The outbox: what happened, written in the transaction in which it happened, told to the world afterwards."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from msgspec import Struct

from kernel.database import Connection, read
from kernel.ids import new_id


class Event(Struct, frozen=True, kw_only=True):
    """A fact about one aggregate, addressed to one partner."""

    #: of the member the fact concerns, or of the partner
    bucket: int
    partner_id: UUID
    #: `plan.authorised`, `points.hold.captured`: noun, then past participle
    type: str
    #: the public id of the thing it happened to
    aggregate: str
    #: public ids, amounts and states only: never personal data
    payload: dict[str, Any]


ENQUEUE = """
INSERT INTO outbox_event (bucket, id, partner_id, type, aggregate, payload, occurred_at)
SELECT e.bucket, e.id, e.partner_id, e.type, e.aggregate, e.payload, $7
  FROM unnest($1::smallint[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::jsonb[])
       AS e (bucket, id, partner_id, type, aggregate, payload)
"""


async def enqueue(connection: Connection, events: Sequence[Event], *, now: datetime) -> None:
    """Write the events; they leave after commit, at least once, each with a fixed id."""
    if not events:
        return
    await connection.execute(
        ENQUEUE,
        [event.bucket for event in events],
        [new_id(now) for _ in events],
        [event.partner_id for event in events],
        [event.type for event in events],
        [event.aggregate for event in events],
        [event.payload for event in events],
        now,
    )


class Run(Struct, frozen=True, kw_only=True):
    """Events of one partner that just got their positions, without a gap."""

    partner_id: UUID
    first_position: int
    last_position: int

    @property
    def events(self) -> int:
        """How many they are."""
        return self.last_position - self.first_position + 1


LOCK_STAMPING = "SELECT pg_try_advisory_xact_lock(hashtextextended('outbox.position', 0))"

# Waiting events are taken in the order in which they were written, and so numbered; partners' rows are locked in key
# order, although the lock above lets only one in.
STAMP_POSITIONS = """
WITH waiting AS MATERIALIZED (
    SELECT w.bucket, w.id, w.partner_id, row_number() OVER (PARTITION BY w.partner_id ORDER BY w.ordinal) AS nth
      FROM (SELECT bucket, id, partner_id, ordinal
              FROM outbox_event
             WHERE position IS NULL
             ORDER BY ordinal
             LIMIT $1) AS w
), run AS (
    SELECT partner_id, count(*) AS events FROM waiting GROUP BY partner_id ORDER BY partner_id
), counted AS (
    INSERT INTO outbox_sequence AS s (partner_id, last_position)
    SELECT partner_id, events FROM run
        ON CONFLICT (partner_id) DO UPDATE SET last_position = s.last_position + excluded.last_position
    RETURNING s.partner_id, s.last_position
), stamped AS (
    UPDATE outbox_event AS e
       SET position = c.last_position - r.events + w.nth
      FROM waiting AS w
      JOIN run AS r ON r.partner_id = w.partner_id
      JOIN counted AS c ON c.partner_id = w.partner_id
     WHERE e.bucket = w.bucket AND e.id = w.id
)
SELECT c.partner_id, c.last_position - r.events + 1 AS first_position, c.last_position
  FROM counted AS c
  JOIN run AS r ON r.partner_id = c.partner_id
 ORDER BY c.partner_id  -- the same for everybody
"""


async def stamp_positions(connection: Connection, *, limit: int) -> list[Run]:
    """Give waiting events their positions in their partner's sequence, in the order in which they were written.

    One transaction at a time: a second caller gets nothing, so no position ever becomes visible after a higher one.
    The lock is its own statement, because the statement that stamps must see what the holder before committed.
    """
    if not await connection.fetchval(LOCK_STAMPING):
        return []
    return [read(record, Run) for record in await connection.fetch(STAMP_POSITIONS, limit)]
