"""Every statement on what is used once on the way to a token: pushed requests, codes, refresh tokens, revocations."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal
from uuid import UUID

from msgspec import Struct

from kernel.caller import MemberRef
from kernel.database import Connection, read, read_if_any
from partners.oauth.model import AuthorizationRequest, CodeDocument, PushedRequest

INSERT_REQUEST = """
INSERT INTO oauth_request (id, partner_id, client_id, request_uri_hash, handle_hash, state, document, pushed_at,
                           request_uri_expires_at)
VALUES ($1, $2, $3, $4, $5, 'pushed', $6, $7, $8)
"""

# The first opening sets the page's end; later ones change nothing.
OPEN_REQUEST = """
UPDATE oauth_request
   SET expires_at = coalesce(expires_at, $4)
 WHERE request_uri_hash = $1 AND client_id = $2 AND state = 'pushed' AND request_uri_expires_at > $3
RETURNING id, partner_id, client_id, document, expires_at
"""

FIND_REQUEST = """
SELECT id, partner_id, client_id, document, expires_at
  FROM oauth_request
 WHERE handle_hash = $1 AND state = 'pushed' AND expires_at > $2
"""

# The one statement that decides: of many answers to a request the first counts.
END_REQUEST = """
UPDATE oauth_request
   SET state = $2, ended_at = $3
 WHERE id = $1 AND state = 'pushed' AND expires_at > $3
RETURNING true
"""

EXPIRE_REQUESTS = """
UPDATE oauth_request
   SET state = 'expired', ended_at = $1
 WHERE state = 'pushed' AND coalesce(expires_at, request_uri_expires_at) <= $1
"""

FORGET_REQUESTS = """
DELETE FROM oauth_request WHERE id IN (SELECT id FROM oauth_request WHERE pushed_at < $1 LIMIT 10000)
"""

INSERT_CODE = """
INSERT INTO oauth_code (code_hash, origin, client_id, consent_id, document, issued_at, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7)
"""

FIND_CODE = """
SELECT origin, client_id, document, expires_at, used_at FROM oauth_code WHERE code_hash = $1
"""

# The one statement that decides which exchange of a code succeeds.
USE_CODE = "UPDATE oauth_code SET used_at = $2 WHERE code_hash = $1 AND used_at IS NULL RETURNING true"

# An exchange that is under way is waited for: either it has its tokens by then, or it comes too late.
USE_CODES_OF_GRANT = "UPDATE oauth_code SET used_at = $2 WHERE consent_id = $1 AND used_at IS NULL"

# The same with what the member approved on the phone and nobody has fetched yet: it can be fetched no longer.
CLOSE_BACKCHANNELS_OF_GRANT = """
UPDATE oauth_backchannel
   SET expires_at = $3
 WHERE member_id = $2 AND consent_id = $1 AND state = 'approved' AND expires_at > $3
"""

# Of refresh tokens too: they outlive what they came with.
LIST_ORIGINS = """
SELECT origin FROM oauth_code WHERE consent_id = $1
 UNION
SELECT id FROM oauth_backchannel WHERE member_id = $2 AND consent_id = $1 AND state = 'redeemed'
 UNION
SELECT origin FROM oauth_refresh WHERE consent_id = $1 AND revoked_at IS NULL
"""

FORGET_CODES = """
DELETE FROM oauth_code WHERE code_hash IN (SELECT code_hash FROM oauth_code WHERE issued_at < $1 LIMIT 10000)
"""


class StoredCode(Struct, frozen=True, kw_only=True):
    """A code as it lies in the database."""

    origin: UUID
    client_id: str
    document: CodeDocument
    expires_at: datetime
    used_at: datetime | None


async def insert_request(
    connection: Connection,
    *,
    request_id: UUID,
    partner_id: UUID,
    client_id: str,
    request_uri_hash: bytes,
    handle_hash: bytes,
    document: AuthorizationRequest,
    request_uri_expires_at: datetime,
    now: datetime,
) -> None:
    await connection.execute(
        INSERT_REQUEST,
        request_id,
        partner_id,
        client_id,
        request_uri_hash,
        handle_hash,
        document,
        now,
        request_uri_expires_at,
    )


async def open_request(
    connection: Connection,
    request_uri_hash: bytes,
    *,
    client_id: str,
    page_expires_at: datetime,
    now: datetime,
) -> PushedRequest | None:
    return read_if_any(
        await connection.fetchrow(OPEN_REQUEST, request_uri_hash, client_id, now, page_expires_at),
        PushedRequest,
    )


async def find_request(connection: Connection, handle_hash: bytes, *, now: datetime) -> PushedRequest | None:
    return read_if_any(await connection.fetchrow(FIND_REQUEST, handle_hash, now), PushedRequest)


async def end_request(
    connection: Connection, request_id: UUID, *, state: Literal["approved", "denied"], now: datetime
) -> bool:
    """False if it was answered before, or too late."""
    return bool(await connection.fetchval(END_REQUEST, request_id, state, now))


async def expire_requests(connection: Connection, *, now: datetime) -> None:
    await connection.execute(EXPIRE_REQUESTS, now)


async def forget_requests(connection: Connection, *, before: datetime) -> None:
    await connection.execute(FORGET_REQUESTS, before)


async def insert_code(
    connection: Connection,
    code_hash: bytes,
    *,
    origin: UUID,
    client_id: str,
    document: CodeDocument,
    expires_at: datetime,
    now: datetime,
) -> None:
    await connection.execute(
        INSERT_CODE, code_hash, origin, client_id, document.grant_id, document, now, expires_at
    )


async def find_code(connection: Connection, code_hash: bytes) -> StoredCode | None:
    return read_if_any(await connection.fetchrow(FIND_CODE, code_hash), StoredCode)


async def list_origins(connection: Connection, consent_id: UUID, member: MemberRef) -> list[UUID]:
    return [record["origin"] for record in await connection.fetch(LIST_ORIGINS, consent_id, member.member_id)]


async def use_code(connection: Connection, code_hash: bytes, *, now: datetime) -> bool:
    """True for one caller, whoever else holds a copy."""
    return bool(await connection.fetchval(USE_CODE, code_hash, now))


async def use_codes_of_grant(connection: Connection, consent_id: UUID, *, now: datetime) -> None:
    """Use up those nobody has exchanged yet."""
    await connection.execute(USE_CODES_OF_GRANT, consent_id, now)


async def close_backchannels_of_grant(
    connection: Connection, consent_id: UUID, member: MemberRef, *, now: datetime
) -> None:
    await connection.execute(CLOSE_BACKCHANNELS_OF_GRANT, consent_id, member.member_id, now)


async def forget_codes(connection: Connection, *, before: datetime) -> None:
    await connection.execute(FORGET_CODES, before)


INSERT_REVOCATIONS = """
INSERT INTO oauth_revocation (subject, revoked_at, expires_at)
SELECT revoked.subject, $2, $3
  FROM unnest($1::text[]) AS revoked (subject)
ON CONFLICT DO NOTHING
"""


async def insert_revocations(
    connection: Connection, subjects: Sequence[str], *, expires_at: datetime, now: datetime
) -> None:
    await connection.execute(INSERT_REVOCATIONS, subjects, now, expires_at)


# Everything from the oldest transaction on that was still running when it was asked the last time: whoever took an older
# id and had not committed then is among them. The snapshot's own oldest is the mark for the next time.
LIST_REVOCATIONS = """
SELECT pg_snapshot_xmin(pg_current_snapshot())::text AS mark, clock_timestamp() AS now,
       coalesce(array_agg(found.subject), '{}') AS subjects, coalesce(array_agg(found.expires_at), '{}') AS ends
  FROM (SELECT subject, max(expires_at) AS expires_at FROM oauth_revocation
         WHERE xid >= $1::text::xid8 AND expires_at > clock_timestamp()
         GROUP BY subject LIMIT $2) AS found
"""

LIST_REVOKED = (
    "SELECT DISTINCT subject FROM oauth_revocation WHERE subject = ANY($1::text[]) AND expires_at > $2"
)

FORGET_REVOCATIONS = """
DELETE FROM oauth_revocation
 WHERE (subject, revoked_at) IN (SELECT subject, revoked_at FROM oauth_revocation WHERE expires_at < $1 LIMIT 10000)
"""


class Revocations(Struct, frozen=True, kw_only=True):
    """What was revoked since a mark, and the next mark."""

    mark: str
    #: by the database's clock
    now: datetime
    subjects: list[str]
    ends: list[datetime]


async def list_revocations(connection: Connection, *, mark: str, limit: int) -> Revocations:
    return read(await connection.fetchrow(LIST_REVOCATIONS, mark, limit), Revocations)


async def list_revoked(connection: Connection, subjects: Sequence[str], *, now: datetime) -> set[str]:
    """Those of `subjects` that were revoked."""
    return {record["subject"] for record in await connection.fetch(LIST_REVOKED, subjects, now)}


async def forget_revocations(connection: Connection, *, now: datetime) -> None:
    """Those that concern no token that could still be alive."""
    await connection.execute(FORGET_REVOCATIONS, now)
