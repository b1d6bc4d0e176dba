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


class Stamped(Struct, frozen=True, kw_only=True):
    """A run of events that just got their positions."""

    events: int
    #: None when nothing was waiting
    first_position: int | None
    last_position: int | None


LOCK_STAMPING = "SELECT pg_try_advisory_xact_lock(hashtextextended('outbox.position', 0))"

STAMP_POSITIONS = """
WITH waiting AS MATERIALIZED (
    SELECT w.bucket, w.id, nextval('outbox_event_position') AS position
      FROM (SELECT bucket, id FROM outbox_event WHERE position IS NULL ORDER BY ordinal LIMIT $1) AS w
), stamped AS (
    UPDATE outbox_event AS e
       SET position = w.position
      FROM waiting AS w
     WHERE e.bucket = w.bucket AND e.id = w.id
    RETURNING e.position
)
SELECT count(*)::int AS events, min(position) AS first_position, max(position) AS last_position FROM stamped
"""


async def stamp_positions(connection: Connection, *, limit: int) -> Stamped:
    """Give waiting events their positions, in the order in which they were written.

    One transaction at a time: a second caller gets nothing, so no position ever becomes visible after a higher one.
    The lock is its own statement, because the statement that stamps must see what the holder before committed.
    """
    if not await connection.fetchval(LOCK_STAMPING):
        return Stamped(events=0, first_position=None, last_position=None)
    return read(await connection.fetchrow(STAMP_POSITIONS, limit), Stamped)
