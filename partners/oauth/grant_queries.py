"""Every statement on single grants; those that a thousand members share are in queries.py."""

from collections.abc import Sequence
from datetime import date, datetime
from uuid import UUID

import asyncpg
import msgspec

from kernel.calendar import business_date
from kernel.caller import MemberRef
from kernel.database import Connection, read
from partners.oauth.details import AuthorizationDetail
from partners.oauth.model import Consent, MemberGrant, Request

LOCK_PAIR = """
SELECT pg_advisory_xact_lock(hashtextextended('oauth_consent:' || $1::uuid::text || ':' || $2::bigint::text, 0))
"""

COUNT_STANDING = """
SELECT count(*)
  FROM oauth_consent
 WHERE partner_id = $1 AND member_id = $2 AND withdrawn_at IS NULL AND ends_on >= $3
"""

INSERT_GRANT = """
INSERT INTO oauth_consent (id, partner_id, member_id, bucket, scopes, purposes, data_kinds, authorization_details,
                           sensitive, granted_at, ends_on)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
"""

FIND_GRANT = """
SELECT id, member_id, bucket, scopes, purposes, data_kinds, authorization_details, sensitive, granted_at, ends_on
  FROM oauth_consent
 WHERE partner_id = $1 AND id = $2 AND withdrawn_at IS NULL AND ends_on >= $3
"""

LIST_STANDING = """
SELECT id FROM oauth_consent WHERE id = ANY($1::uuid[]) AND withdrawn_at IS NULL AND ends_on >= $2
"""

# A withdrawal that is under way is waited for, and stays.
CHANGE_GRANT = """
UPDATE oauth_consent
   SET scopes = $2, purposes = $3, data_kinds = $4, authorization_details = $5, sensitive = $6, ends_on = $7
 WHERE id = $1 AND withdrawn_at IS NULL
RETURNING true
"""

WITHDRAW_GRANT = """
UPDATE oauth_consent
   SET withdrawn_at = $3
 WHERE partner_id = $1 AND id = $2 AND withdrawn_at IS NULL
RETURNING member_id, bucket
"""

# The newest first: ids are ordered by time.
LIST_OF_MEMBER = """
SELECT id, partner_id, scopes, purposes, data_kinds, authorization_details, sensitive, granted_at, ends_on
  FROM oauth_consent
 WHERE member_id = $1 AND withdrawn_at IS NULL AND ends_on >= $2
   AND ($3::uuid IS NULL OR id < $3) AND ($4::uuid IS NULL OR id = $4)
 ORDER BY id DESC
 LIMIT $5
"""

INSERT_GIVEN = """
INSERT INTO oauth_consent_given (id, consent_id, request_id, client_id, scopes, purposes, data_kinds,
                                 authorization_details, sensitive, ends_on, authenticated_at, methods, given_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
"""


async def lock_pair(connection: Connection, partner_id: UUID, member_id: int) -> None:
    await connection.execute(LOCK_PAIR, partner_id, member_id)


async def count_standing(
    connection: Connection, partner_id: UUID, member: MemberRef, *, now: datetime
) -> int:
    count: int = await connection.fetchval(COUNT_STANDING, partner_id, member.member_id, business_date(now))
    return count


async def insert_grant(
    connection: Connection, pushed: Request, *, grant_id: UUID, member: MemberRef, now: datetime
) -> None:
    asked = pushed.document
    await connection.execute(
        INSERT_GRANT,
        grant_id,
        pushed.partner_id,
        member.member_id,
        member.bucket,
        asked.scopes,
        asked.purposes,
        asked.data_kinds,
        asked.authorization_details,
        asked.sensitive,
        now,
        asked.ends_on,
    )


async def find_grant(
    connection: Connection, partner_id: UUID, grant_id: UUID, *, now: datetime
) -> Consent | None:
    record = await connection.fetchrow(FIND_GRANT, partner_id, grant_id, business_date(now))
    return None if record is None else read_consent(record)


async def list_standing(connection: Connection, ids: Sequence[UUID], *, now: datetime) -> set[UUID]:
    return {record["id"] for record in await connection.fetch(LIST_STANDING, ids, business_date(now))}


async def change_grant(
    connection: Connection,
    grant_id: UUID,
    *,
    scopes: Sequence[str],
    purposes: Sequence[str],
    data_kinds: Sequence[str],
    authorization_details: Sequence[AuthorizationDetail],
    sensitive: bool,
    ends_on: date,
) -> bool:
    """False if it was withdrawn meanwhile."""
    return bool(
        await connection.fetchval(
            CHANGE_GRANT, grant_id, scopes, purposes, data_kinds, authorization_details, sensitive, ends_on
        )
    )


async def withdraw_grant(
    connection: Connection, partner_id: UUID, grant_id: UUID, *, now: datetime
) -> MemberRef | None:
    """Whose grant it was; None if it does not stand."""
    record = await connection.fetchrow(WITHDRAW_GRANT, partner_id, grant_id, now)
    return None if record is None else MemberRef(member_id=record["member_id"], bucket=record["bucket"])


async def list_of_member(
    connection: Connection,
    member: MemberRef,
    *,
    before: UUID | None = None,
    grant_id: UUID | None = None,
    limit: int,
    now: datetime,
) -> list[MemberGrant]:
    """Those older than `before`, or the one of this id."""
    records = await connection.fetch(
        LIST_OF_MEMBER, member.member_id, business_date(now), before, grant_id, limit
    )
    return [read(record, MemberGrant) for record in records]


async def insert_given(
    connection: Connection,
    pushed: Request,
    *,
    given_id: UUID,
    consent_id: UUID,
    authenticated_at: datetime,
    methods: Sequence[str],
    now: datetime,
) -> None:
    """What was agreed to, as it was shown."""
    asked = pushed.document
    await connection.execute(
        INSERT_GIVEN,
        given_id,
        consent_id,
        pushed.id,
        pushed.client_id,
        asked.scopes,
        asked.purposes,
        asked.data_kinds,
        asked.authorization_details,
        asked.sensitive,
        asked.ends_on,
        authenticated_at,
        methods,
        now,
    )


def read_consent(record: asyncpg.Record) -> Consent:
    """A row with the columns of FIND_GRANT."""
    fields = dict(record)
    member = {"member_id": fields.pop("member_id"), "bucket": fields.pop("bucket")}
    return msgspec.convert({**fields, "member": member}, Consent)
