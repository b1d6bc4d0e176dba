"""Every statement on the fetched keys of apps."""

from datetime import datetime
from typing import Any
from uuid import UUID

from kernel.database import Connection

FIND_KEYS = """
SELECT j.keys FROM registry_jwks AS j JOIN registry_app AS a ON a.id = j.app_id AND a.jwks_uri = j.jwks_uri WHERE a.id = $1
"""

# Of all processes one fetches, and no sooner than a minute after the last attempt, however it ended.
CLAIM_FETCH = """
INSERT INTO registry_jwks AS j (app_id, jwks_uri, attempted_at)
VALUES ($1, $2, $3)
ON CONFLICT (app_id) DO UPDATE
   SET attempted_at = $3, jwks_uri = $2,
       keys = CASE WHEN j.jwks_uri = $2 THEN j.keys ELSE '{}' END,
       fetched_at = CASE WHEN j.jwks_uri = $2 THEN j.fetched_at END
 WHERE j.jwks_uri <> $2 OR j.attempted_at <= $4
RETURNING true
"""

STORE_KEYS = """
UPDATE registry_jwks SET keys = $3, fetched_at = $4, failure = NULL WHERE app_id = $1 AND jwks_uri = $2
"""

STORE_FAILURE = "UPDATE registry_jwks SET failure = $3 WHERE app_id = $1 AND jwks_uri = $2"

DROP_KEY = "UPDATE registry_jwks SET keys = keys - $2::text WHERE app_id = $1"


async def find_keys(connection: Connection, app_id: UUID) -> dict[str, Any]:
    """Kid to public JWK of the last good copy."""
    found: dict[str, Any] | None = await connection.fetchval(FIND_KEYS, app_id)
    return found or {}


async def claim_fetch(
    connection: Connection, app_id: UUID, jwks_uri: str, *, attempted_before: datetime, now: datetime
) -> bool:
    """Whether it is the caller's turn to fetch."""
    return bool(await connection.fetchval(CLAIM_FETCH, app_id, jwks_uri, now, attempted_before))


async def store_keys(
    connection: Connection, app_id: UUID, jwks_uri: str, keys: dict[str, Any], *, now: datetime
) -> None:
    """Replace the copy, unless the app publishes elsewhere by now."""
    await connection.execute(STORE_KEYS, app_id, jwks_uri, keys, now)


async def store_failure(connection: Connection, app_id: UUID, jwks_uri: str, failure: str) -> None:
    """Say why the copy is old."""
    await connection.execute(STORE_FAILURE, app_id, jwks_uri, failure)


async def drop_key(connection: Connection, app_id: UUID, kid: str) -> None:
    """Forget one key of the copy."""
    await connection.execute(DROP_KEY, app_id, kid)
