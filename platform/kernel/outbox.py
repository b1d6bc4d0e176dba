"""The outbox: what happened, written in the transaction in which it happened, told to the world afterwards."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from msgspec import Struct

from kernel.database import Connection
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
