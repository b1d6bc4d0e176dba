"""Same key, same answer: the record of a request commits with its effect.

The answer is kept compressed and sealed: it may hold what only the caller was to see, such as a new secret.

`begin` waits (bounded by lock_timeout) for a request in flight under the same key, so parallel copies of one request
get one effect and equal answers. A refused request leaves no record: nothing happened, it may be tried again.
"""

import zlib
from datetime import datetime
from uuid import UUID

import asyncpg
from msgspec import Struct

from kernel.database import Connection, read_if_any
from kernel.errors import Conflict, Malformed, Unprocessable
from kernel.vault import Vault, sha256

KEY_LENGTH_MAX = 255
TABLE = "kernel_idempotency"


class IdempotencyKeyMissing(Malformed):
    """This call moves value, so it needs an Idempotency-Key header of 1 to 255 visible ASCII characters."""


class IdempotencyKeyReused(Unprocessable):
    """The Idempotency-Key was used before with another request."""


class IdempotencyInProgress(Conflict):
    """A request with this Idempotency-Key is still being worked on; repeat in a moment."""


class StoredAnswer(Struct, frozen=True, kw_only=True):
    """The answer the first request got."""

    status: int
    body: bytes


class _Record(Struct, frozen=True, kw_only=True):
    """The answer as it is kept."""

    fingerprint: bytes
    status: int
    #: deflated, then sealed for its own row
    body: bytes


BEGIN = "SELECT * FROM kernel_idempotency_begin($1, $2)"

REMEMBER = """
INSERT INTO kernel_idempotency (app_id, key_hash, fingerprint, status, body, created_at)
VALUES ($1, $2, $3, $4, $5, $6)
"""

FORGET_OLD = """
DELETE FROM kernel_idempotency
 WHERE (app_id, key_hash) IN (SELECT app_id, key_hash FROM kernel_idempotency WHERE created_at < $1 LIMIT $2)
"""


def check_key(key: str | None) -> str:
    """The key as sent, bare or as a quoted structured-field string."""
    bare = (key or "").strip().removeprefix('"').removesuffix('"')
    if not 0 < len(bare) <= KEY_LENGTH_MAX or not all("!" <= character <= "~" for character in bare):
        raise IdempotencyKeyMissing
    return bare


def fingerprint(method: str, path: str, body: bytes) -> bytes:
    """What makes two requests the same: method, path and the client's bytes."""
    return sha256(method, path, body)


async def begin(
    connection: Connection, *, app_id: UUID, key: str, fingerprint: bytes, vault: Vault
) -> StoredAnswer | None:
    """The stored answer if this request was answered before; None if it is new, and then it is ours until commit."""
    key_hash = sha256(key)
    try:
        found = await connection.fetchrow(BEGIN, app_id, key_hash)
    except asyncpg.LockNotAvailableError:
        raise IdempotencyInProgress from None
    record = read_if_any(found, _Record)
    if record is None:
        return None
    if record.fingerprint != fingerprint:
        raise IdempotencyKeyReused
    packed = vault.unseal(record.body, table=TABLE, column="body", row=_row(app_id, key_hash))
    return StoredAnswer(status=record.status, body=zlib.decompress(packed))


async def remember(
    connection: Connection,
    *,
    app_id: UUID,
    key: str,
    fingerprint: bytes,
    answer: StoredAnswer,
    vault: Vault,
    now: datetime,
) -> None:
    """Keep the answer, in the transaction of its effect."""
    key_hash = sha256(key)
    packed = zlib.compress(answer.body, 1)
    sealed = vault.seal(packed, table=TABLE, column="body", row=_row(app_id, key_hash))
    await connection.execute(REMEMBER, app_id, key_hash, fingerprint, answer.status, sealed, now)


async def forget_old(connection: Connection, *, before: datetime, limit: int = 1_000) -> int:
    """Drop records older than the contract keeps them; returns how many."""
    result = await connection.execute(FORGET_OLD, before, limit)
    return int(result.rpartition(" ")[2])


def _row(app_id: UUID, key_hash: bytes) -> str:
    return f"{app_id}:{key_hash.hex()}"
