"""Every statement on requests that wait for a member's answer on the phone."""

from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

import asyncpg
import msgspec
from msgspec import Struct

from kernel.caller import MemberRef
from kernel.database import Connection, read
from partners.oauth.backchannel_rules import OpenRequests
from partners.oauth.model import BackchannelDocument

State = Literal["pending", "approved", "denied", "redeemed"]

# Taken in the order of their keys, so that two requests wait for each other but never in a circle.
LOCK_ASKING = """
SELECT pg_advisory_xact_lock(key)
  FROM (SELECT hashtextextended(name, 0) AS key
          FROM unnest(ARRAY['backchannel:partner:' || $1::uuid::text, 'backchannel:member:' || $2::bigint::text]) AS name
         ORDER BY 1) AS keys
"""

COUNT_OPEN = """
SELECT (SELECT count(*) FROM oauth_backchannel
         WHERE member_id = $2 AND asked_at > $3::timestamptz - interval '1 hour'
           AND state = 'pending' AND expires_at > $3) AS waiting_for_member,
       (SELECT count(*) FROM oauth_backchannel
         WHERE member_id = $2 AND partner_id = $1 AND asked_at > $3::timestamptz - interval '1 hour'
           AND state = 'pending' AND expires_at > $3) AS waiting_of_pair,
       (SELECT count(*) FROM oauth_backchannel
         WHERE partner_id = $1 AND state = 'pending' AND expires_at > $3) AS waiting_of_partner,
       (SELECT count(*) FROM oauth_backchannel
         WHERE member_id = $2 AND partner_id = $1 AND asked_at > $3::timestamptz - interval '1 hour') AS asked_in_hour
"""

INSERT_BACKCHANNEL = """
INSERT INTO oauth_backchannel (id, auth_req_hash, partner_id, client_id, member_id, bucket, state, document, asked_at,
                               expires_at, interval_seconds, poll_due_at)
VALUES ($1, $2, $3, $4, $5, $6, 'pending', $7, $8, $9, $10, $8)
"""

FIND_BY_SECRET = """
SELECT id, partner_id, client_id, member_id, bucket, state, document, asked_at, expires_at, interval_seconds,
       consent_id
  FROM oauth_backchannel
 WHERE auth_req_hash = $1
"""

FIND_OF_MEMBER = """
SELECT id, partner_id, client_id, member_id, bucket, state, document, asked_at, expires_at, interval_seconds,
       consent_id
  FROM oauth_backchannel
 WHERE id = $1 AND member_id = $2
"""

# The oldest first: it runs out first, or nearly so.
LIST_WAITING = """
SELECT id, partner_id, client_id, member_id, bucket, state, document, asked_at, expires_at, interval_seconds,
       consent_id
  FROM oauth_backchannel
 WHERE member_id = $1 AND asked_at > $2::timestamptz - interval '1 hour' AND state = 'pending' AND expires_at > $2
 ORDER BY asked_at, id
 LIMIT $3
"""

# The one statement that decides: of many answers to a request the first counts. What is approved can be fetched a while.
DECIDE_BACKCHANNEL = """
UPDATE oauth_backchannel
   SET state = $3, decided_at = $4, expires_at = CASE $3 WHEN 'approved' THEN greatest(expires_at, $5) ELSE expires_at END
 WHERE id = $1 AND member_id = $2 AND state = 'pending' AND expires_at > $4
RETURNING true
"""

NAME_CONSENT = "UPDATE oauth_backchannel SET consent_id = $2 WHERE id = $1 AND state = 'approved'"

# The one statement that decides which poll gets the token.
REDEEM_BACKCHANNEL = """
UPDATE oauth_backchannel
   SET state = 'redeemed', redeemed_at = $2
 WHERE id = $1 AND state = 'approved' AND expires_at > $2
RETURNING consent_id
"""

# A poll in time moves the next one; of parallel polls one is in time.
POLL_IN_TIME = """
UPDATE oauth_backchannel
   SET poll_due_at = $2::timestamptz + make_interval(secs => interval_seconds)
 WHERE id = $1 AND poll_due_at <= $2::timestamptz + $3::interval
RETURNING true
"""

POLL_TOO_FAST = """
UPDATE oauth_backchannel
   SET interval_seconds = least(interval_seconds + $3, 3600),
       poll_due_at = $2::timestamptz + make_interval(secs => least(interval_seconds + $3, 3600))
 WHERE id = $1
"""

FORGET_BACKCHANNEL = """
DELETE FROM oauth_backchannel WHERE id IN (SELECT id FROM oauth_backchannel WHERE asked_at < $1 LIMIT 10000)
"""


class Backchannel(Struct, frozen=True, kw_only=True):
    """A request to a member's phone, and how far it has come."""

    id: UUID
    partner_id: UUID
    client_id: str
    member: MemberRef
    state: State
    document: BackchannelDocument
    asked_at: datetime
    expires_at: datetime
    interval_seconds: int
    #: the grant it became
    consent_id: UUID | None


async def lock_asking(connection: Connection, partner_id: UUID, member: MemberRef) -> None:
    await connection.execute(LOCK_ASKING, partner_id, member.member_id)


async def count_open(
    connection: Connection, partner_id: UUID, member: MemberRef, *, now: datetime
) -> OpenRequests:
    return read(await connection.fetchrow(COUNT_OPEN, partner_id, member.member_id, now), OpenRequests)


async def insert_backchannel(
    connection: Connection,
    *,
    request_id: UUID,
    auth_req_hash: bytes,
    partner_id: UUID,
    client_id: str,
    member: MemberRef,
    document: BackchannelDocument,
    expires_at: datetime,
    interval_seconds: int,
    now: datetime,
) -> None:
    await connection.execute(
        INSERT_BACKCHANNEL,
        request_id,
        auth_req_hash,
        partner_id,
        client_id,
        member.member_id,
        member.bucket,
        document,
        now,
        expires_at,
        interval_seconds,
    )


async def find_by_secret(connection: Connection, auth_req_hash: bytes) -> Backchannel | None:
    return _read(await connection.fetchrow(FIND_BY_SECRET, auth_req_hash))


async def find_of_member(connection: Connection, request_id: UUID, member: MemberRef) -> Backchannel | None:
    return _read(await connection.fetchrow(FIND_OF_MEMBER, request_id, member.member_id))


async def list_waiting(
    connection: Connection, member: MemberRef, *, limit: int, now: datetime
) -> list[Backchannel]:
    records = await connection.fetch(LIST_WAITING, member.member_id, now, limit)
    return [found for record in records if (found := _read(record)) is not None]


async def decide_backchannel(
    connection: Connection,
    request_id: UUID,
    member: MemberRef,
    *,
    state: Literal["approved", "denied"],
    fetch_until: datetime,
    now: datetime,
) -> bool:
    """False if it was answered before, or too late."""
    decided = await connection.fetchval(
        DECIDE_BACKCHANNEL, request_id, member.member_id, state, now, fetch_until
    )
    return bool(decided)


async def name_consent(connection: Connection, request_id: UUID, consent_id: UUID) -> None:
    await connection.execute(NAME_CONSENT, request_id, consent_id)


async def redeem_backchannel(connection: Connection, request_id: UUID, *, now: datetime) -> UUID | None:
    """The grant, for one caller; None for everybody else, and while there is none."""
    consent_id: UUID | None = await connection.fetchval(REDEEM_BACKCHANNEL, request_id, now)
    return consent_id


async def poll_in_time(connection: Connection, request_id: UUID, *, early: timedelta, now: datetime) -> bool:
    return bool(await connection.fetchval(POLL_IN_TIME, request_id, now, early))


async def poll_too_fast(connection: Connection, request_id: UUID, *, slower: int, now: datetime) -> None:
    await connection.execute(POLL_TOO_FAST, request_id, now, slower)


async def forget_backchannel(connection: Connection, *, before: datetime) -> None:
    await connection.execute(FORGET_BACKCHANNEL, before)


def _read(record: asyncpg.Record | None) -> Backchannel | None:
    if record is None:
        return None
    fields = dict(record)
    member = {"member_id": fields.pop("member_id"), "bucket": fields.pop("bucket")}
    return msgspec.convert({**fields, "member": member}, Backchannel)
