"""Attempts counted in PostgreSQL, by the minute: requests of a client or an address, and failures.

One row for a subject and a minute, dropped when the minute is long over. Where thousands a second are counted, one of many
requests counts for all of them: the row is no queue, and the sum is right.
"""

import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta

from msgspec import Struct

from kernel.database import Connection, read
from kernel.one_time import id_hash
from kernel.vault import sha256

WINDOW = timedelta(minutes=1)
#: a limit is counted in steps of a thousandth
STEPS = 1_000

# The identifier is used up and the request counted in one trip. Who does not count itself reads what others counted.
USE_ONCE_COUNTED = """
WITH used AS (
    INSERT INTO kernel_one_time_id (id_hash, expires_at)
    VALUES ($1, $2)
    ON CONFLICT (id_hash) DO NOTHING
    RETURNING true
), counted AS (
    INSERT INTO kernel_attempt AS a (subject, window_at, requests)
    SELECT $3, $4, $5::bigint WHERE $5::bigint > 0
    ON CONFLICT (subject, window_at) DO UPDATE SET requests = a.requests + $5::bigint
    RETURNING requests
)
SELECT EXISTS (SELECT FROM used) AS first,
       coalesce((SELECT requests FROM counted),
                (SELECT requests FROM kernel_attempt WHERE subject = $3 AND window_at = $4), 0) AS requests
"""

# The same for many requests at once; subjects in order, so that two batches wait for each other but never in a circle.
USE_EACH_ONCE_COUNTED = """
WITH used AS (
    INSERT INTO kernel_one_time_id (id_hash, expires_at)
    SELECT u.id_hash, u.expires_at FROM unnest($1::bytea[], $2::timestamptz[]) AS u (id_hash, expires_at) ORDER BY u.id_hash
    ON CONFLICT (id_hash) DO NOTHING
    RETURNING id_hash
), counted AS (
    INSERT INTO kernel_attempt AS a (subject, window_at, requests)
    SELECT c.subject, $5, c.requests FROM unnest($3::bytea[], $4::bigint[]) AS c (subject, requests) ORDER BY c.subject
    ON CONFLICT (subject, window_at) DO UPDATE SET requests = a.requests + EXCLUDED.requests
    RETURNING subject, requests
)
SELECT id_hash, NULL::bytea AS subject, NULL::bigint AS requests FROM used
UNION ALL
SELECT NULL, subject, requests FROM counted
"""

COUNT = """
INSERT INTO kernel_attempt AS a (subject, window_at, requests, failures)
VALUES ($1, $2, $3, $4)
ON CONFLICT (subject, window_at) DO UPDATE SET requests = a.requests + $3, failures = a.failures + $4
RETURNING requests, failures
"""

FORGET_ATTEMPTS = """
DELETE FROM kernel_attempt
 WHERE (subject, window_at) IN (SELECT subject, window_at FROM kernel_attempt WHERE window_at < $1 LIMIT $2)
"""


class Counted(Struct, frozen=True, kw_only=True):
    """What a subject has done in the present minute."""

    requests: int
    failures: int


def address_subject(network: str) -> str:
    """Under which an address is counted."""
    return f"address:{network}"


def window_of(now: datetime) -> datetime:
    """The beginning of the minute."""
    return now.replace(second=0, microsecond=0)


def seconds_left(now: datetime) -> int:
    """Until the next minute begins; at least one."""
    return max(1, int((window_of(now) + WINDOW - now).total_seconds()) + 1)


async def use_once_counted(
    connection: Connection,
    *,
    scope: str,
    identifier: str,
    expires_at: datetime,
    subject: str,
    limit: int,
    now: datetime,
) -> tuple[bool, bool]:
    """Whether `identifier` is seen for the first time, and whether `subject` is within its limit of this minute."""
    step = max(1, limit // STEPS)
    counts = step if secrets.randbelow(step) == 0 else 0
    record = await connection.fetchrow(
        USE_ONCE_COUNTED,
        id_hash(scope, identifier),
        expires_at,
        sha256("attempt", subject),
        window_of(now),
        counts,
    )
    assert record is not None, "the statement answers one row"
    return record["first"], record["requests"] <= limit


async def use_each_once_counted(
    connection: Connection, ids: Mapping[bytes, datetime], requests: Mapping[str, int], *, now: datetime
) -> tuple[set[bytes], dict[str, int]]:
    """Those of `ids` seen for the first time, and each subject's requests of this minute with these `requests` added."""
    if not ids:
        return set(), {}
    subjects = {sha256("attempt", subject): subject for subject in requests}
    records = await connection.fetch(
        USE_EACH_ONCE_COUNTED,
        list(ids.keys()),
        list(ids.values()),
        list(subjects),
        [requests[subject] for subject in subjects.values()],
        window_of(now),
    )
    fresh = {record["id_hash"] for record in records if record["id_hash"] is not None}
    counted = {
        subjects[record["subject"]]: int(record["requests"])
        for record in records
        if record["subject"] is not None
    }
    return fresh, counted


async def count(
    connection: Connection, subject: str, *, requests: int = 0, failures: int = 0, now: datetime
) -> Counted:
    """Add to what the subject has done in this minute; returns all of it."""
    record = await connection.fetchrow(COUNT, sha256("attempt", subject), window_of(now), requests, failures)
    return read(record, Counted)


async def forget_attempts(connection: Connection, *, limit: int = 10_000, now: datetime) -> int:
    """Drop the counts of minutes that are over; returns how many."""
    status = await connection.execute(FORGET_ATTEMPTS, now - 5 * WINDOW, limit)
    return int(status.rpartition(" ")[2])
