"""Identifiers that may be used once: client assertions, proofs of possession. PostgreSQL is their only truth."""

from datetime import datetime

from kernel.database import Connection
from kernel.vault import sha256

USE_ONCE = """
INSERT INTO kernel_one_time_id (id_hash, expires_at)
VALUES ($1, $2)
ON CONFLICT (id_hash) DO NOTHING
RETURNING true
"""

FORGET_EXPIRED = """
DELETE FROM kernel_one_time_id
 WHERE id_hash IN (SELECT id_hash FROM kernel_one_time_id WHERE expires_at < $1 LIMIT $2)
"""


async def use_once(connection: Connection, *, scope: str, identifier: str, expires_at: datetime) -> bool:
    """True the first time `identifier` is seen in `scope`; False for ever after, until `expires_at`."""
    return bool(await connection.fetchval(USE_ONCE, sha256(scope, identifier), expires_at))


async def forget_expired(connection: Connection, *, limit: int = 10_000, now: datetime) -> int:
    """Drop identifiers that could no longer be accepted anyway; returns how many."""
    status = await connection.execute(FORGET_EXPIRED, now, limit)
    return int(status.rpartition(" ")[2])
