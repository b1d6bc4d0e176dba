"""Identifiers that may be used once: client assertions, proofs of possession. PostgreSQL is their only truth."""

from collections.abc import Mapping
from datetime import datetime

from kernel.database import Connection
from kernel.vault import sha256

USE_ONCE = """
INSERT INTO kernel_one_time_id (id_hash, expires_at)
VALUES ($1, $2)
ON CONFLICT (id_hash) DO NOTHING
RETURNING true
"""

# Ordered, so that two batches with the same identifiers wait for each other but never in a circle.
USE_EACH_ONCE = """
INSERT INTO kernel_one_time_id (id_hash, expires_at)
SELECT used.id_hash, used.expires_at
  FROM unnest($1::bytea[], $2::timestamptz[]) AS used (id_hash, expires_at)
 ORDER BY used.id_hash
ON CONFLICT (id_hash) DO NOTHING
RETURNING id_hash
"""

FORGET_EXPIRED = """
DELETE FROM kernel_one_time_id
 WHERE id_hash IN (SELECT id_hash FROM kernel_one_time_id WHERE expires_at < $1 LIMIT $2)
"""


async def use_once(connection: Connection, *, scope: str, identifier: str, expires_at: datetime) -> bool:
    """True the first time `identifier` is seen in `scope`; False for ever after, until `expires_at`."""
    return bool(await connection.fetchval(USE_ONCE, id_hash(scope, identifier), expires_at))


async def use_each_once(connection: Connection, ids: Mapping[bytes, datetime]) -> set[bytes]:
    """Those of `ids`, hashed with their scope, that are seen for the first time; each comes with its end."""
    if not ids:
        return set()
    records = await connection.fetch(USE_EACH_ONCE, list(ids.keys()), list(ids.values()))
    return {record["id_hash"] for record in records}


def id_hash(scope: str, identifier: str) -> bytes:
    """Under which an identifier is remembered."""
    return sha256(scope, identifier)


async def forget_expired(connection: Connection, *, limit: int = 10_000, now: datetime) -> int:
    """Drop identifiers that could no longer be accepted anyway; returns how many."""
    status = await connection.execute(FORGET_EXPIRED, now, limit)
    return int(status.rpartition(" ")[2])
