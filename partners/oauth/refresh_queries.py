"""Every statement on refresh tokens."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from msgspec import Struct

from kernel.database import Connection, read_if_any

INSERT_REFRESH = """
INSERT INTO oauth_refresh (token_hash, origin, client_id, consent_id, sub, jkt, scopes, issued_at, used_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8)
"""

FIND_REFRESH = """
SELECT token_hash, origin, client_id, consent_id, sub, jkt, scopes, issued_at, used_at, revoked_at
  FROM oauth_refresh
 WHERE token_hash = $1
"""

# The one statement that decides whether it still works.
TOUCH_REFRESH = """
UPDATE oauth_refresh
   SET used_at = greatest(used_at, $3)
 WHERE token_hash = $1 AND revoked_at IS NULL AND used_at > $2
RETURNING true
"""

REVOKE_REFRESH = "UPDATE oauth_refresh SET revoked_at = $2 WHERE origin = $1 AND revoked_at IS NULL"

REVOKE_REFRESH_OF_GRANT = """
UPDATE oauth_refresh SET revoked_at = $2 WHERE consent_id = $1 AND revoked_at IS NULL
"""

FORGET_REFRESH = """
DELETE FROM oauth_refresh WHERE token_hash IN (SELECT token_hash FROM oauth_refresh WHERE used_at < $1 LIMIT 10000)
"""


class StoredRefresh(Struct, frozen=True, kw_only=True):
    """A refresh token as it lies in the database."""

    token_hash: bytes
    origin: UUID
    client_id: str
    consent_id: UUID
    sub: str
    #: thumbprint of the DPoP key it is bound to
    jkt: str
    scopes: list[str]
    issued_at: datetime
    used_at: datetime
    revoked_at: datetime | None


async def insert_refresh(
    connection: Connection,
    token_hash: bytes,
    *,
    origin: UUID,
    client_id: str,
    consent_id: UUID,
    sub: str,
    jkt: str,
    scopes: Sequence[str],
    now: datetime,
) -> None:
    await connection.execute(INSERT_REFRESH, token_hash, origin, client_id, consent_id, sub, jkt, scopes, now)


async def find_refresh(connection: Connection, token_hash: bytes) -> StoredRefresh | None:
    return read_if_any(await connection.fetchrow(FIND_REFRESH, token_hash), StoredRefresh)


async def touch_refresh(
    connection: Connection, token_hash: bytes, *, idle_since: datetime, now: datetime
) -> bool:
    """False if it was revoked, or not used since."""
    return bool(await connection.fetchval(TOUCH_REFRESH, token_hash, idle_since, now))


async def revoke_refresh(connection: Connection, origin: UUID, *, now: datetime) -> None:
    await connection.execute(REVOKE_REFRESH, origin, now)


async def revoke_refresh_of_grant(connection: Connection, consent_id: UUID, *, now: datetime) -> None:
    await connection.execute(REVOKE_REFRESH_OF_GRANT, consent_id, now)


async def forget_refresh(connection: Connection, *, before: datetime) -> None:
    await connection.execute(FORGET_REFRESH, before)
