"""The statements of webhooks."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from kernel.database import Connection, read, read_if_any
from kernel.outbox import Run
from partners.webhooks.model import TEST_EVENT, Claim, Delivery, Endpoint, Event, Replay

FIND_PARTNER_SECRET = "SELECT secret_sealed FROM webhooks_partner_secret WHERE partner_id = $1"

SAVE_PARTNER_SECRET = """
INSERT INTO webhooks_partner_secret (partner_id, secret_sealed, created_at)
VALUES ($1, $2, $3)
ON CONFLICT (partner_id) DO UPDATE SET secret_sealed = EXCLUDED.secret_sealed, created_at = EXCLUDED.created_at
"""

INSERT_ENDPOINT = """
INSERT INTO webhooks_endpoint (id, public_id, partner_id, url, event_types, secret_sealed, status, created_at)
VALUES ($1, $2, $3, $4, $5, $6, 'active', $7)
RETURNING id, partner_id, url, event_types, status, disabled_reason, created_at, failing_since
"""

FIND_ENDPOINT = """
SELECT id, partner_id, url, event_types, status, disabled_reason, created_at, failing_since
  FROM webhooks_endpoint
 WHERE id = $1 AND partner_id = $2
"""

LOCK_SECRET = "SELECT secret_sealed FROM webhooks_endpoint WHERE id = $1 AND partner_id = $2 FOR UPDATE"

LIST_ENDPOINTS = """
SELECT id, partner_id, url, event_types, status, disabled_reason, created_at, failing_since
  FROM webhooks_endpoint
 WHERE partner_id = $1 AND id > $2
 ORDER BY id
 LIMIT $3
"""

LOCK_ENDPOINTS = "SELECT pg_advisory_xact_lock(hashtextextended('webhooks_endpoint:' || $1::uuid::text, 0))"

COUNT_ENDPOINTS = "SELECT count(*) FROM webhooks_endpoint WHERE partner_id = $1"

REPLACE_SECRET = """
UPDATE webhooks_endpoint
   SET secret_sealed = $2, previous_secret_sealed = $3, previous_valid_until = $4
 WHERE id = $1
"""

ENABLE_ENDPOINT = """
UPDATE webhooks_endpoint
   SET status = 'active', disabled_reason = NULL, failing_since = NULL
 WHERE id = $1 AND status = 'disabled'
"""

ADD_DELIVERIES = """
INSERT INTO webhooks_delivery (id, endpoint_id, bucket, event_id, sequence, state, started_at, next_at)
SELECT gen_random_uuid(), w.id, e.bucket, e.id, e.position, 'pending', $3, $3
  FROM unnest($1::uuid[], $2::bigint[], $5::bigint[]) AS run (partner_id, first_position, last_position)
  JOIN webhooks_endpoint AS w ON w.partner_id = run.partner_id
  JOIN outbox_event AS e
    ON e.partner_id = run.partner_id AND e.position BETWEEN run.first_position AND run.last_position
 WHERE w.status = 'active'
   AND CASE WHEN e.type = $4 THEN e.aggregate = w.public_id ELSE w.event_types && ARRAY['*', e.type] END
ON CONFLICT (endpoint_id, event_id) DO NOTHING
"""

LOCK_CLAIMING = "SELECT pg_advisory_xact_lock(hashtextextended('webhooks.claim', 0))"

CLAIM_DUE = """
WITH flying AS (
    SELECT endpoint_id, count(*) AS deliveries
      FROM webhooks_delivery
     WHERE state IN ('pending', 'retrying') AND lease_until > $4
     GROUP BY endpoint_id
), due AS MATERIALIZED (
    SELECT d.id
      FROM webhooks_endpoint AS w
      LEFT JOIN flying AS f ON f.endpoint_id = w.id
     CROSS JOIN LATERAL (
        SELECT q.id, q.next_at
          FROM webhooks_delivery AS q
         WHERE q.endpoint_id = w.id
           AND q.state IN ('pending', 'retrying')
           AND q.next_at <= $4
           AND (q.lease_until IS NULL OR q.lease_until <= $4)
         ORDER BY q.next_at, q.sequence
         LIMIT greatest(0, CASE WHEN w.failing_since IS NULL THEN $2::bigint ELSE 1 END - coalesce(f.deliveries, 0))
           FOR UPDATE SKIP LOCKED
     ) AS d
     WHERE w.status = 'active'
     ORDER BY d.next_at
     LIMIT $1
)
UPDATE webhooks_delivery AS d
   SET lease_token = gen_random_uuid(), lease_until = $4 + make_interval(secs => $3), attempt = d.attempt + 1
  FROM due, webhooks_endpoint AS w, outbox_event AS e
 WHERE d.id = due.id AND w.id = d.endpoint_id AND e.bucket = d.bucket AND e.id = d.event_id
RETURNING d.id, d.endpoint_id, d.lease_token, d.attempt, d.started_at,
          w.url, w.secret_sealed, w.previous_secret_sealed, w.previous_valid_until,
          e.id AS event_id, e.partner_id, e.type, e.aggregate, e.payload, e.occurred_at, e.position
"""

MARK_DELIVERED = """
WITH done AS (
    UPDATE webhooks_delivery
       SET state = 'delivered', delivered_at = $3, last_status = $4, last_error = NULL,
           lease_token = NULL, lease_until = NULL
     WHERE id = $1 AND lease_token = $2
    RETURNING endpoint_id
), healthy AS (
    UPDATE webhooks_endpoint SET failing_since = NULL
     WHERE id IN (SELECT endpoint_id FROM done) AND failing_since IS NOT NULL
)
SELECT count(*) = 1 FROM done
"""

LOCK_FAILING = """
SELECT w.failing_since
  FROM webhooks_endpoint AS w
  JOIN webhooks_delivery AS d ON d.endpoint_id = w.id
 WHERE d.id = $1 AND d.lease_token = $2
   FOR UPDATE
"""

MARK_FAILED = """
UPDATE webhooks_delivery
   SET state = CASE WHEN $3::timestamptz IS NULL THEN 'dead' ELSE 'retrying' END,
       next_at = coalesce($3, next_at), last_status = $4, last_error = $5, lease_token = NULL, lease_until = NULL
 WHERE id = $1 AND lease_token = $2
RETURNING endpoint_id
"""

NOTE_FAILING = """
UPDATE webhooks_endpoint
   SET failing_since = coalesce(failing_since, $2),
       status = CASE WHEN $3::text IS NULL THEN status ELSE 'disabled' END,
       disabled_reason = coalesce($3::text, disabled_reason)
 WHERE id = $1 AND (failing_since IS NULL OR $3::text IS NOT NULL)
"""

POSTPONE = """
UPDATE webhooks_delivery
   SET next_at = $3, attempt = attempt - 1, lease_token = NULL, lease_until = NULL
 WHERE id = $1 AND lease_token = $2
"""

LIST_DELIVERIES = """
SELECT d.id, d.event_id, e.type, d.sequence, d.state, d.attempt,
       CASE WHEN d.state IN ('pending', 'retrying') THEN d.next_at END AS next_at,
       d.last_status, d.last_error, d.delivered_at
  FROM webhooks_delivery AS d
  JOIN outbox_event AS e ON e.bucket = d.bucket AND e.id = d.event_id
 WHERE d.endpoint_id = $1 AND d.sequence < $2
 ORDER BY d.sequence DESC
 LIMIT $3
"""

REPLAY_EVENT = """
UPDATE webhooks_delivery
   SET state = 'pending', attempt = 0, started_at = $3, next_at = $3, delivered_at = NULL
 WHERE endpoint_id = $1 AND event_id = $2 AND state IN ('delivered', 'dead')
RETURNING id
"""

FIND_DELIVERY_STATE = "SELECT state FROM webhooks_delivery WHERE endpoint_id = $1 AND event_id = $2"

REPLAY_SINCE = """
WITH wanted AS (
    SELECT w.id AS endpoint_id, e.bucket, e.id, e.position
      FROM webhooks_endpoint AS w
      JOIN outbox_event AS e ON e.partner_id = w.partner_id AND e.position IS NOT NULL
     WHERE w.id = $1 AND e.occurred_at >= $2 AND e.position > $6 AND e.type <> $5 AND w.event_types && ARRAY['*', e.type]
     ORDER BY e.position
     LIMIT $4
), again AS (
    INSERT INTO webhooks_delivery AS d (id, endpoint_id, bucket, event_id, sequence, state, started_at, next_at)
    SELECT gen_random_uuid(), endpoint_id, bucket, id, position, 'pending', $3, $3 FROM wanted
    ON CONFLICT (endpoint_id, event_id) DO UPDATE
       SET state = 'pending', attempt = 0, started_at = $3, next_at = $3, delivered_at = NULL
     WHERE d.state IN ('delivered', 'dead')
    RETURNING d.id
)
SELECT (SELECT count(*) FROM again)::int AS queued,
       (SELECT max(position) FROM wanted HAVING count(*) = $4) AS last_position
"""

LIST_EVENTS = """
SELECT id, partner_id, type, aggregate, payload, occurred_at, position
  FROM outbox_event
 WHERE partner_id = $1 AND position > $2
 ORDER BY position
 LIMIT $3
"""

FIND_POSITION = """
SELECT position
  FROM outbox_event
 WHERE bucket = ANY (ARRAY(SELECT generate_series(0, 1023)::smallint)) AND id = $2 AND partner_id = $1
   AND position IS NOT NULL
"""


async def find_partner_secret(connection: Connection, *, partner_id: UUID) -> bytes | None:
    """The sealed secret set for all new endpoints of a partner."""
    sealed: bytes | None = await connection.fetchval(FIND_PARTNER_SECRET, partner_id)
    return sealed


async def save_partner_secret(
    connection: Connection, *, partner_id: UUID, sealed: bytes, now: datetime
) -> None:
    """Set it; endpoints that exist keep theirs."""
    await connection.execute(SAVE_PARTNER_SECRET, partner_id, sealed, now)


async def insert_endpoint(
    connection: Connection,
    *,
    endpoint_id: UUID,
    public_id: str,
    partner_id: UUID,
    url: str,
    event_types: Sequence[str],
    sealed: bytes,
    now: datetime,
) -> Endpoint:
    """A new endpoint, active at once."""
    return read(
        await connection.fetchrow(
            INSERT_ENDPOINT, endpoint_id, public_id, partner_id, url, list(event_types), sealed, now
        ),
        Endpoint,
    )


async def find_endpoint(connection: Connection, *, endpoint_id: UUID, partner_id: UUID) -> Endpoint | None:
    """The partner's endpoint, or None: another partner's does not exist for this one."""
    return read_if_any(await connection.fetchrow(FIND_ENDPOINT, endpoint_id, partner_id), Endpoint)


async def lock_secret(connection: Connection, *, endpoint_id: UUID, partner_id: UUID) -> bytes | None:
    """The current sealed secret; two rotations at once would lose one."""
    sealed: bytes | None = await connection.fetchval(LOCK_SECRET, endpoint_id, partner_id)
    return sealed


async def list_endpoints(
    connection: Connection, *, partner_id: UUID, after: UUID, limit: int
) -> list[Endpoint]:
    """Ordered by id, which is the order of registration, so that pages do not overlap."""
    return [
        read(record, Endpoint) for record in await connection.fetch(LIST_ENDPOINTS, partner_id, after, limit)
    ]


async def lock_endpoints(connection: Connection, *, partner_id: UUID) -> None:
    """From here to commit nobody else adds an endpoint of the partner, so that a crowd cannot race past the limit."""
    await connection.execute(LOCK_ENDPOINTS, partner_id)


async def count_endpoints(connection: Connection, *, partner_id: UUID) -> int:
    """How many the partner has, disabled ones too."""
    count: int = await connection.fetchval(COUNT_ENDPOINTS, partner_id)
    return count


async def replace_secret(
    connection: Connection,
    *,
    endpoint_id: UUID,
    sealed: bytes,
    previous: bytes,
    previous_valid_until: datetime,
) -> None:
    """From now on both sign; after `previous_valid_until` only the new one."""
    await connection.execute(REPLACE_SECRET, endpoint_id, sealed, previous, previous_valid_until)


async def enable_endpoint(connection: Connection, *, endpoint_id: UUID) -> None:
    """Switch a disabled endpoint on again; what waited for it is due at once."""
    await connection.execute(ENABLE_ENDPOINT, endpoint_id)


async def add_deliveries(connection: Connection, runs: Sequence[Run], *, now: datetime) -> None:
    """A delivery for each active endpoint that asked for the event. Driven from the endpoints: few partners want all."""
    await connection.execute(
        ADD_DELIVERIES,
        [run.partner_id for run in runs],
        [run.first_position for run in runs],
        now,
        TEST_EVENT,
        [run.last_position for run in runs],
    )


async def claim_due(
    connection: Connection, *, limit: int, per_endpoint: int, lease_seconds: int, now: datetime
) -> list[Claim]:
    """Take due deliveries, oldest first; claims queue up so that the bound per endpoint is exact over all workers.

    An endpoint that is failing is tried with one delivery at a time.
    """
    await connection.execute(LOCK_CLAIMING)
    records = await connection.fetch(CLAIM_DUE, limit, per_endpoint, float(lease_seconds), now)
    return [read(record, Claim) for record in records]


async def mark_delivered(
    connection: Connection, *, delivery_id: UUID, lease_token: UUID, status: int, now: datetime
) -> bool:
    """False when the lease was lost to somebody else."""
    return bool(await connection.fetchval(MARK_DELIVERED, delivery_id, lease_token, now, status))


async def lock_failing(
    connection: Connection, *, delivery_id: UUID, lease_token: UUID
) -> tuple[datetime | None] | None:
    """Since when the endpoint fails, in a tuple; None when the lease was lost."""
    record = await connection.fetchrow(LOCK_FAILING, delivery_id, lease_token)
    return None if record is None else (record["failing_since"],)


async def mark_failed(
    connection: Connection,
    *,
    delivery_id: UUID,
    lease_token: UUID,
    next_at: datetime | None,
    status: int | None,
    error: str | None,
) -> UUID | None:
    """The endpoint's id; None when the lease was lost to somebody else."""
    endpoint_id: UUID | None = await connection.fetchval(
        MARK_FAILED, delivery_id, lease_token, next_at, status, error
    )
    return endpoint_id


async def note_failing(
    connection: Connection, *, endpoint_id: UUID, disable_reason: str | None, now: datetime
) -> None:
    """Remember the first failure of a row, and switch the endpoint off when there is a reason."""
    await connection.execute(NOTE_FAILING, endpoint_id, now, disable_reason)


async def postpone(
    connection: Connection, *, delivery_id: UUID, lease_token: UUID, next_at: datetime
) -> None:
    """Give a claim back untried."""
    await connection.execute(POSTPONE, delivery_id, lease_token, next_at)


async def list_deliveries(
    connection: Connection, *, endpoint_id: UUID, before: int, limit: int
) -> list[Delivery]:
    """Newest event first: what went wrong just now is what one looks for."""
    records = await connection.fetch(LIST_DELIVERIES, endpoint_id, before, limit)
    return [read(record, Delivery) for record in records]


async def replay_event(connection: Connection, *, endpoint_id: UUID, event_id: UUID, now: datetime) -> bool:
    """Send a delivered or dead one again; False when there is none in such a state."""
    return await connection.fetchval(REPLAY_EVENT, endpoint_id, event_id, now) is not None


async def find_delivery_state(connection: Connection, *, endpoint_id: UUID, event_id: UUID) -> str | None:
    """The state of the event's delivery to the endpoint, if there is one."""
    state: str | None = await connection.fetchval(FIND_DELIVERY_STATE, endpoint_id, event_id)
    return state


async def replay_since(
    connection: Connection, *, endpoint_id: UUID, since: datetime, after: int, limit: int, now: datetime
) -> Replay:
    """Queue a limited run, oldest first, so that a next call can go on; an event that never had a delivery gets one."""
    return read(
        await connection.fetchrow(REPLAY_SINCE, endpoint_id, since, now, limit, TEST_EVENT, after), Replay
    )


async def list_events(connection: Connection, *, partner_id: UUID, after: int, limit: int) -> list[Event]:
    """Ordered by position, which becomes visible in that order: a reader that goes on from the last never misses one."""
    return [read(record, Event) for record in await connection.fetch(LIST_EVENTS, partner_id, after, limit)]


async def find_position(connection: Connection, *, partner_id: UUID, event_id: UUID) -> int | None:
    """Where the event stands. Its bucket is unknown, so all 1,024 keys are probed: dearer than a key, cheaper than an index."""
    position: int | None = await connection.fetchval(FIND_POSITION, partner_id, event_id)
    return position
